#!/usr/bin/env bash
# Every tree that PostgreSQL prints while it runs its own regression suite, read by pgtree: how many are read whole, and by name
# what is not known. A long test (some minutes and some gigabytes), not part of ./test.sh.
#
# Usage: scripts/trees.sh [--major 16|17|18] [--work DIR] [suite|nodes]
#
#   suite   the regression suite of Debian's PostgreSQL; prints the figures
#   nodes   the statements of pgtree/tests/nodes.sql; writes their trees to pgtree/tests/trees (of another major: to trees-MAJOR)
#
# Without --major the server is Debian's, or the one in WATERSHED_PG_BIN; else one that npm carries. --work keeps the server's log.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
. "$here/../deploy/local/common.sh"

major= work= part=suite
while [ "$#" -gt 0 ]; do
    case $1 in
        --major) major=$2; shift 2 ;;
        --work) work=$2; shift 2 ;;
        suite | nodes) part=$1; shift ;;
        *) sed -n '5,11p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
    esac
done
if [ -n "$major" ]; then
    bindir=$("$here/../deploy/local/majors/server.sh" setup "$major")
else
    bindir=${WATERSHED_PG_BIN:-$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)}
fi
# Where psql is, for pg_regress.
programs=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
temporary=
if [ -z "$work" ]; then work=$(mktemp -d /tmp/watershed-trees-XXXXXX) temporary=$work; fi
mkdir -p -- "$work"
chmod 755 -- "$work"
rm -rf -- "$work"/{data,out,suite,log}
account=$(id -un)
[ "$account" != root ] || account=nobody
as_server() { if [ "$account" = "$(id -un)" ]; then "$@"; else runuser -u "$account" -- "$@"; fi; }
mkdir -- "$work/data" "$work/out"
: >"$work/log"
chown "$account" -- "$work/data" "$work/out" "$work/log"
port=$(free_port)

stop() {
    as_server "$bindir/pg_ctl" -D "$work/data" -m immediate stop >/dev/null 2>&1 || true
    [ -z "$temporary" ] || rm -rf -- "$temporary"
}
trap stop EXIT
trap 'exit 130' INT TERM

as_server "$bindir/initdb" -D "$work/data" -U postgres -A trust -E UTF8 --locale=C --no-sync >/dev/null
# No prefix: a message then is its lines, each but the first after a tab.
cat >>"$work/data/postgresql.conf" <<SETTINGS
fsync = off
max_prepared_transactions = 2
listen_addresses = '127.0.0.1'
port = $port
unix_socket_directories = ''
log_line_prefix = ''
log_min_messages = log
log_min_error_statement = log
debug_print_rewritten = on
debug_pretty_print = off
SETTINGS
as_server "$bindir/pg_ctl" -D "$work/data" -l "$work/log" -w start >/dev/null

case $part in
    suite)
        suite=$("$here/../deploy/local/regress/suite.sh" setup)
        cp -R -- "$suite" "$work/suite"
        # Thousands of levels of one function, each printed with all that are above it.
        sed -i 's/ infinite_recurse//' "$work/suite/parallel_schedule"
        # Its outputs are of no interest, only that it ran.
        (cd -- "$work/out" && as_server timeout 3600 "$work/suite/pg_regress" --bindir="$programs" --inputdir="$work/suite" \
            --outputdir="$work/out" --dlpath="$work/suite/lib" --max-concurrent-tests=20 --host=127.0.0.1 --port="$port" \
            --user=postgres --schedule="$work/suite/parallel_schedule" >"$work/regress" 2>&1) || true
        tail -n 5 -- "$work/regress" >&2
        as_server "$bindir/pg_ctl" -D "$work/data" -m fast -w stop >/dev/null
        cd -- "$here/.." && cargo run --locked --release -p pgtree --example trees -- "$work/log"
        ;;
    nodes)
        # SQL/JSON is a syntax error before 16.
        psql -X -q -h 127.0.0.1 -p "$port" -U postgres -d postgres -f "$here/../pgtree/tests/nodes.sql" >/dev/null || true
        as_server "$bindir/pg_ctl" -D "$work/data" -m fast -w stop >/dev/null
        cd -- "$here/.." && cargo run --locked -p pgtree --example trees -- "$work/log" "pgtree/tests/trees${major:+-$major}"
        ;;
esac
