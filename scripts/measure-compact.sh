#!/usr/bin/env bash
# Compaction beside DuckDB's COPY (SELECT ... ORDER BY ts) of the same files: rows a second and peak memory, one run.
# WATERSHED_ROWS (2000000) and WATERSHED_FILES (200) say how much; PYTHON is one that has duckdb (pip install duckdb).
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
WATERSHED_MEASURE_DIR="$dir" cargo test -q -p compactor --lib -- --ignored --nocapture measure::rows_a_second | grep '^watershed'
"${PYTHON:-python3}" - "$dir" <<'PY'
import glob, os, resource, sys, time
import duckdb
source = glob.glob(sys.argv[1] + "/public.logs/_day=*/*.parquet")
db = duckdb.connect()
db.execute("SET memory_limit = '512MB'")
db.execute(f"SET temp_directory = '{sys.argv[1]}/spill'")
out = sys.argv[1] + "/out.parquet"
began = time.monotonic()
db.execute(f"COPY (SELECT * FROM read_parquet({source!r}, hive_partitioning = false) ORDER BY ts) TO '{out}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 3, ROW_GROUP_SIZE 1048576)")
seconds = time.monotonic() - began
rows = db.execute(f"SELECT count(*) FROM '{out}'").fetchone()[0]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(f"duckdb {duckdb.__version__}: {rows} rows of {len(source)} files to 1 ({os.path.getsize(out) >> 20} MiB) in {seconds:.2f} s: {rows / seconds:.0f} rows/s, peak {peak} MiB")
PY
