#!/usr/bin/env bash
# PostgreSQL's own regression suite, directly and through the gateway, on copies of one fresh data directory; then compares the
# outputs test by test. A long test (some minutes), not part of ./test.sh. docs/compatibility-wire.md lists what may differ.
#
# Usage: scripts/regress.sh [--program FILE] [--work DIR] [suite|own|tiered]...
#
#   suite   the whole schedule in the database that the gateway watches
#   own     the same in a database of its own, which the gateway relays unlooked-at
#   tiered  the suite's own tables are views over tiered ones, so that its statements are probed and many answered by the lake
#
# All, if none is named. --program is the `watershed` to test (built if not given); --work keeps outputs and differences there.
# Exit code 1: something differs that is not on the list.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
. "$here/setup.sh"
. "$here/../deploy/local/common.sh"

program= work= parts=()
while [ "$#" -gt 0 ]; do
    case $1 in
        --program) program=$2; shift 2 ;;
        --work) work=$2; shift 2 ;;
        suite | own | tiered) parts+=("$1"); shift ;;
        *) sed -n '5,12p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
    esac
done
[ "${#parts[@]}" -gt 0 ] || parts=(suite own tiered)

setup
suite=$("$here/../deploy/local/regress/suite.sh" setup)
if [ -z "$program" ]; then
    (cd -- "$here/.." && cargo build --locked -p cli)
    program=$CARGO_TARGET_DIR/debug/watershed
fi

# The server's account must reach its directory and what the tests have it read and write, and psql what the server wrote: all
# of it runs below one open folder, pg_regress as that account.
if [ -z "$work" ]; then work=$(mktemp -d /tmp/watershed-regress-XXXXXX); fi
mkdir -p -- "$work"
work=$(cd -- "$work" && pwd)
chmod 755 -- "$work"
rm -rf -- "$work"/{base,tiered-base,data,suite,out,results}
cp -R -- "$suite" "$work/suite"
mkdir -- "$work/results"

inputs= # folder below the suite's, of the tests that run
up_pid=
stop() {
    if [ -n "$up_pid" ]; then
        kill -TERM "$up_pid" 2>/dev/null || true
        wait "$up_pid" || true
        up_pid=
    fi
}
trap stop EXIT
trap 'exit 130' INT TERM

# Background work is put off, so that it takes no part.
cat >"$work/settings.toml" <<'SETTINGS'
drain_timeout = "2s"
[archiver]
interval = "24h"
[compactor]
interval = "24h"
[retention]
interval = "24h"
[ingest.pressure]
min_free = "64MiB"
min_free_percent = 0.1
SETTINGS
listen=$(free_port)
http=$(free_port)

start() {
    : >"$work/up.log"
    env -u PGHOST -u PGPORT -u PGUSER -u PGPASSWORD -u PGDATABASE WATERSHED_CONFIG="$work/settings.toml" \
        "$program" up --data-dir "$work/data" --listen "127.0.0.1:$listen" --http "127.0.0.1:$http" --flight off >"$work/up.log" 2>&1 </dev/null &
    up_pid=$!
    for _ in $(seq 1200); do
        if grep -qx ready "$work/up.log"; then return 0; fi
        kill -0 "$up_pid" 2>/dev/null || break
        sleep 0.1
    done
    cat -- "$work/up.log" >&2
    die "watershed up did not start" 4
}

# Where PostgreSQL itself listens, and its superuser's password.
upstream() { sed -n 's#^WATERSHED_ADMIN_URL=postgres://watershed_admin:\(.*\)@.*:\([0-9]*\)/.*#\1 \2#p' "$work/data/secrets"; }

as_server() {
    local account
    account=$(stat -c %U "$work/data/pg")
    if [ "$account" = "$(id -un)" ]; then "$@"; else runuser -u "$account" -- "$@"; fi
}

bindir=${WATERSHED_PG_BIN:-$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)}

sql() { # DATABASE ARGS OF psql...: as the superuser, past the gateway
    local password port database=$1
    shift
    read -r password port < <(upstream)
    PGPASSWORD=$password "$bindir/psql" -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$port" -U watershed_admin -d "$database" "$@" -f -
}

make_base() {
    say "Making a data directory"
    start
    # What pg_regress sets for databases that it makes itself.
    sql watershed <<'SQL'
ALTER DATABASE watershed SET lc_messages TO 'C';
ALTER DATABASE watershed SET lc_monetary TO 'C';
ALTER DATABASE watershed SET lc_numeric TO 'C';
ALTER DATABASE watershed SET lc_time TO 'C';
ALTER DATABASE watershed SET bytea_output TO 'hex';
ALTER DATABASE watershed SET timezone_abbreviations TO 'Default';
SQL
    stop
    mv -- "$work/data" "$work/base"
}

# A second base, in which the tables of the suite's first test are tiered.
make_tiered_base() {
    say "Making its tables tiered"
    restore base
    start
    local password port
    read -r password port < <(upstream)
    pg_regress "$port" "$password" --use-existing --dbname=watershed test_setup
    sql watershed -v part=1 <"$here/../deploy/local/regress/tiered.sql"
    "$program" archive --now --data-dir "$work/data"
    sql watershed -v part=2 <"$here/../deploy/local/regress/tiered.sql"
    stop
    mv -- "$work/data" "$work/tiered-base"
    grep -v '^test: test_setup' "$work/suite/parallel_schedule" >"$work/suite/tiered_schedule"
    # What the lake writes is ISO, and floats in full; with the suite's own styles PostgreSQL would answer everything. How many
    # parallel workers come is luck, and EXPLAIN ANALYZE shows it.
    mkdir -- "$work/suite/tiered"
    cp -R -- "$work/suite/sql" "$work/suite/expected" "$work/suite/data" "$work/suite/tiered"
    sed -i 's/^SET extra_float_digits = 0;/SET extra_float_digits = 1;/' "$work/suite/tiered/sql"/*.sql
    printf '#!/bin/sh\nPGDATESTYLE=ISO PGOPTIONS="-c intervalstyle=postgres -c max_parallel_workers=0" exec "$@"\n' >"$work/suite/iso"
    chmod 755 -- "$work/suite/iso"
}

restore() { # BASE
    rm -rf -- "$work/data" "$work/out"
    cp -a -- "$work/$1" "$work/data"
    mkdir -- "$work/out"
    chmod 777 -- "$work/out"
}

pg_regress() { # PORT PASSWORD ARGS...
    local port=$1 password=$2
    shift 2
    (cd -- "$work/out" && as_server env PGPASSWORD="$password" timeout 3600 "$work/suite/pg_regress" --bindir="$bindir" \
        --inputdir="$work/suite${inputs:+/$inputs}" --outputdir="$work/out" --dlpath="$work/suite/lib" --max-concurrent-tests=20 \
        --host=127.0.0.1 --port="$port" --user=watershed_admin "$@")
}

# One run on a copy of a base. Every run sees the same paths, since outputs show them.
run() { # NAME BASE direct|gateway ARGS OF pg_regress...
    local name=$1 base=$2 side=$3 password port from code=0
    shift 3
    say ""
    say "== $name"
    restore "$base"
    start
    read -r password port < <(upstream)
    if [ "$side" = gateway ]; then port=$listen; fi
    from=$(date +%s)
    pg_regress "$port" "$password" "$@" || code=$?
    if [ "$side" = gateway ]; then
        PGPASSWORD=$password "$bindir/psql" -X -q -h 127.0.0.1 -p "$port" -U watershed_admin -d watershed -c \
            'SELECT route, sum(calls) AS statements FROM watershed.route_stats GROUP BY route ORDER BY route' >"$work/routes" || true
    fi
    stop
    [ "$code" -le 1 ] || die "pg_regress could not run (exit code $code)" 4
    mv -- "$work/out" "$work/results/$name"
    [ "$side" = direct ] || mv -- "$work/routes" "$work/results/$name/routes"
    printf '%s\n' "$(($(date +%s) - from))" >"$work/results/$name/seconds"
}

# What an EXPLAIN of the gateway has more: route and reasons, before the plan. They widen the frame around it, and count as rows.
without_routes() {
    awk '/^ *QUERY PLAN *$/ { plan = 1; print "QUERY PLAN"; next }
         plan && /^-+$/ { next }
         plan && /^ *(Watershed route: |  because: )/ { next }
         plan && /^\([0-9]+ rows?\)$/ { plan = 0; next }
         { sub(/ +$/, ""); print }' "$1"
}

differences=0
compare() { # DIRECT GATEWAY
    local direct="$work/results/$1" gateway="$work/results/$2" table="$work/results/$2.table" diffs="$work/results/$2.diffs"
    local file test verdict other
    : >"$table"
    : >"$diffs"
    for file in "$direct"/results/*.out; do
        test=$(basename -- "$file" .out)
        if cmp -s -- "$file" "$gateway/results/$test.out"; then
            verdict=same
        elif diff -u --label "$1 $test" --label "$2 $test" <(without_routes "$file") <(without_routes "$gateway/results/$test.out") >"$work/difference"; then
            verdict=same-but-routes
        else
            verdict=DIFFERENT
            # The lake gives rows in another order where no order is asked for: whether that is all is for a reader to say.
            if cmp -s <(without_routes "$file" | sort) <(without_routes "$gateway/results/$test.out" | sort); then verdict=DIFFERENT-ORDER; fi
            cat -- "$work/difference" >>"$diffs"
        fi
        printf '%s %s\n' "$test" "$verdict" >>"$table"
    done
    say ""
    printf '== %s beside %s (%s s and %s s)\n' "$2" "$1" "$(cat "$gateway/seconds")" "$(cat "$direct/seconds")"
    column -c 150 "$table"
    cat -- "$diffs" "$gateway/routes"
    other=$(grep -c DIFFERENT "$table" || true)
    printf '%s: %s tests, %s different\n' "$2" "$(wc -l <"$table")" "$other"
    differences=$((differences + other))
}

whole=(--schedule="$work/suite/parallel_schedule")
watched=(--use-existing --dbname=watershed)
make_base
for part in "${parts[@]}"; do
    case $part in
        suite)
            run direct base direct "${whole[@]}" "${watched[@]}"
            run gateway base gateway "${whole[@]}" "${watched[@]}"
            compare direct gateway
            ;;
        own)
            run own-direct base direct "${whole[@]}"
            run own-gateway base gateway "${whole[@]}"
            compare own-direct own-gateway
            ;;
        tiered)
            make_tiered_base
            tiered=(--schedule="$work/suite/tiered_schedule" --launcher="$work/suite/iso" "${watched[@]}")
            inputs=tiered
            run tiered-direct tiered-base direct "${tiered[@]}"
            run tiered-gateway tiered-base gateway "${tiered[@]}"
            inputs=
            compare tiered-direct tiered-gateway
            ;;
    esac
done
[ "$differences" -eq 0 ]
