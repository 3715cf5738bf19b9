#!/usr/bin/env bash
# Installs what is missing, builds, and shows the whole path on two million generated rows: see README.md.
# Arguments go to `watershed demo`, e.g. ./demo.sh --rows 200000 --exit
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
. "$here/scripts/setup.sh"
setup

# As root, PostgreSQL is run by an unprivileged user, who may be kept out of the current directory.
chosen=${WATERSHED_DATA_DIR:-}
for argument in "$@"; do
    case $argument in --data-dir | --data-dir=*) chosen=yes ;; esac
done
if [ -z "$chosen" ] && [ "$(id -u)" -eq 0 ]; then
    account=$(id -un postgres 2>/dev/null || echo nobody)
    if ! setpriv --reuid "$account" --clear-groups sh -c 'cd -- "$1"' sh "$PWD" 2>/dev/null; then
        export WATERSHED_DATA_DIR=/var/lib/watershed/demo
        say "User $account, who runs PostgreSQL, cannot reach $PWD: keeping data in $WATERSHED_DATA_DIR"
    fi
fi

say "Building (a first build takes a while)"
exec cargo run --quiet --locked --manifest-path "$here/Cargo.toml" -p cli --bin watershed -- demo "$@"
