#!/usr/bin/env bash
# Starts a scratch cluster of its own, then runs every tests/*.sql, each in a migrated database of its own.
# Usage: sql/tests/run.sh [name ...]     (names of tests without .sql; default all)
# WATERSHED_PG_BIN names the PostgreSQL programs where they are not found by themselves.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
migrations=$(cd "$here/../migrations" && pwd)

bin=${WATERSHED_PG_BIN:-}
if [ -z "$bin" ]; then
    if command -v initdb >/dev/null; then
        bin=$(dirname "$(readlink -f "$(command -v initdb)")")
    else
        bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
    fi
fi
[ -x "$bin/initdb" ] || { echo "no PostgreSQL found: set WATERSHED_PG_BIN" >&2; exit 2; }

work=$(mktemp -d "${TMPDIR:-/tmp}/watershed-sql.XXXXXX")
as() { "$@"; }
if [ "$(id -u)" = 0 ]; then
    chown postgres "$work"
    as() { setpriv --reuid postgres --regid postgres --clear-groups env HOME="$work" "$@"; }
fi
stop() {
    as "$bin/pg_ctl" -D "$work/data" -m immediate -w stop >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap stop EXIT

cd "$work"
as "$bin/initdb" -D "$work/data" -U watershed_admin -A trust -E UTF8 --locale=C.UTF-8 -N >"$work/initdb.log" 2>&1 \
    || { cat "$work/initdb.log" >&2; exit 2; }
as "$bin/pg_ctl" -D "$work/data" -w -l "$work/log" \
    -o "-c listen_addresses= -c unix_socket_directories=$work -c port=6499 -c fsync=off -c max_prepared_transactions=10 -c max_locks_per_transaction=1024 -c timezone=Asia/Kathmandu" \
    start >/dev/null

psql=("$bin/psql" -X -q -h "$work" -p 6499 -U watershed_admin -v ON_ERROR_STOP=1)
# $1: name of the database to make and migrate
migrated() {
    "${psql[@]}" -d postgres -c "CREATE DATABASE $1"
    local file
    for file in "$migrations"/*.sql; do
        "${psql[@]}" -d "$1" -1 -f "$file" >"$work/out" 2>&1 || { echo "migration $(basename "$file"):" >&2; cat "$work/out" >&2; exit 1; }
    done
}

tests=("$@")
if [ ${#tests[@]} = 0 ]; then
    for file in "$here"/*.sql; do tests+=("$(basename "$file" .sql)"); done
fi
failed=0
for name in "${tests[@]}"; do
    [ "$name" = assert ] && continue
    migrated "test_$name"
    if "${psql[@]}" -d "test_$name" -f "$here/assert.sql" -f "$here/$name.sql" >"$work/out" 2>&1; then
        echo "ok      $name ($(grep -c '^ok' "$work/out" || true) checks)"
    else
        echo "FAILED  $name"; cat "$work/out"; failed=1
    fi
done
exit $failed
