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
. "$here/../common.sh"

# Prints the folder of the virtual environment.
setup() { fetched "$here/requirements.txt" fetch_python "moto, a local S3 server"; }

case ${1:-} in
    setup) setup ;;
    run)
        [ "${2:-}" = --port ] && [ -n "${3:-}" ] || die "write: s3.sh run --port N" 2
        folder=$(setup)
        exec "$folder/bin/python" -m moto.server -H 127.0.0.1 -p "$3"
        ;;
    *)
        sed -n '4,5p' "${BASH_SOURCE[0]}" >&2
        exit 2
        ;;
esac
