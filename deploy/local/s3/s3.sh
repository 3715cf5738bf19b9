#!/usr/bin/env bash
# A local server that speaks S3 (moto), for tests and demonstrations. It keeps everything in memory: what it holds ends with it.
#
#   s3.sh setup                 installs moto into a virtual environment, once; prints the folder that holds it
#   s3.sh run --port N          becomes the server, on 127.0.0.1:N; any key and secret will do
#
# WATERSHED_S3_CACHE is the folder for the environment (~/.cache/watershed/s3).
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
cache=${WATERSHED_S3_CACHE:-$HOME/.cache/watershed/s3}

die() {
    printf 's3.sh: %s\n' "$1" >&2
    exit "${2:-1}"
}

# Its name has the content of requirements.txt in it, so that another version is another folder.
setup() {
    local folder
    folder=$cache/$(sha256sum <"$here/requirements.txt" | cut -c 1-16)
    if [ ! -e "$folder/ready" ]; then
        command -v python3 >/dev/null 2>&1 || die "Python is needed: apt-get install python3-venv" 3
        mkdir -p -- "$cache"
        exec 9>"$cache/lock"
        flock 9
        if [ ! -e "$folder/ready" ]; then
            printf 'Installing moto, a local S3 server; once\n' >&2
            rm -rf -- "$folder"
            python3 -m venv "$folder" >&2 || die "Python cannot make virtual environments: apt-get install python3-venv" 3
            "$folder/bin/pip" install -q --disable-pip-version-check -r "$here/requirements.txt" >&2 </dev/null ||
                die "pip could not install moto" 3
            touch -- "$folder/ready"
        fi
        exec 9>&-
    fi
    printf '%s\n' "$folder"
}

case ${1:-} in
    setup) setup ;;
    run)
        [ "${2:-}" = --port ] && [ -n "${3:-}" ] || die "write: s3.sh run --port N" 2
        folder=$(setup)
        exec "$folder/bin/moto_server" -H 127.0.0.1 -p "$3"
        ;;
    *)
        sed -n '4,5p' "${BASH_SOURCE[0]}" >&2
        exit 2
        ;;
esac
