#!/usr/bin/env bash
# `watershed load` beside `psql \copy` of the same rows into the same table, alternating, on a running `watershed up`
# (docs/measurements.md). Usage: measure-load.sh WATERSHED DATA_DIR [ROWS] [ROUNDS]
set -euo pipefail
watershed=$1 data=$2 rows=${3:-500000} rounds=${4:-3}
set -a; . "$data/connection.env"; set +a
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
now() { date +%s.%N; }
rate() { awk -v n="$rows" -v a="$1" -v b="$2" 'BEGIN { printf "%d", n / (b - a) }'; }
for round in $(seq "$rounds"); do
    # Another seed each round: a content that was loaded before adds nothing.
    "$watershed" generate --rows "$rows" --seed "$RANDOM$round" >"$work/rows.ndjson"
    a=$(now); "$watershed" load logs "$work/rows.ndjson" --data-dir "$data" >/dev/null; b=$(now)
    load=$(rate "$a" "$b")
    psql -X -q "$WATERSHED_POSTGRES_URL" -c "\copy (SELECT ts, level, service, host, message, metadata, ingested_at FROM logs WHERE _stream <> 0 ORDER BY _xid DESC LIMIT $rows) TO '$work/rows.tsv'"
    a=$(now); psql -X -q "$WATERSHED_POSTGRES_URL" -c "\copy logs (ts, level, service, host, message, metadata, ingested_at) FROM '$work/rows.tsv'"; b=$(now)
    copy=$(rate "$a" "$b")
    printf 'round %s: load %s rows/s, \\copy %s rows/s, ratio %s\n' "$round" "$load" "$copy" "$(awk -v a="$load" -v b="$copy" 'BEGIN { printf "%.2f", a / b }')"
done
