#!/usr/bin/env python3
"""The demo's queries on the gateway's lake route and on DuckDB over the same Parquet files: medians of 7, after one
warm-up, one process each. Needs `pip install duckdb pytz psycopg[binary]`. Usage: measure-duckdb.py DATA_DIR"""
import json, glob, os, statistics, sys, time

import duckdb
import psycopg

data = sys.argv[1]
for line in open(os.path.join(data, "connection.env")):
    if "=" in line and not line.startswith("#"):
        name, value = line.strip().split("=", 1)
        os.environ[name] = value.strip("'\"")

QUERIES = {
    "COUNT(*)": "SELECT count(*) FROM logs",
    "GROUP BY level": "SELECT level, count(*) FROM logs GROUP BY level ORDER BY level",
    "GROUP BY service, level": "SELECT service, level, count(*), min(ts), max(ts) FROM logs GROUP BY service, level ORDER BY service, level",
    "WHERE + GROUP BY": "SELECT service, count(*) FROM logs WHERE level = 'ERROR' GROUP BY service ORDER BY service",
    "hourly with FILTER": "SELECT date_trunc('hour', ts), count(*), count(*) FILTER (WHERE level = 'ERROR') FROM logs GROUP BY 1 ORDER BY 1",
    "count(DISTINCT host)": "SELECT count(DISTINCT host) FROM logs",
}


def median(run):
    run()
    times = []
    for _ in range(7):
        started = time.perf_counter()
        rows = run()
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times), rows


gateway = psycopg.connect("", autocommit=True)
gateway.execute("SET TimeZone = 'UTC'")
duck = duckdb.connect()
duck.execute("SET threads = 2")
icu = "SELECT count(*) FROM duckdb_extensions() WHERE extension_name = 'icu' AND loaded"
if duck.execute(icu).fetchone()[0]:
    duck.execute("SET TimeZone = 'UTC'")
# Files that compaction replaced wait for vacuum: what the log names is what counts.
names = {}
for entry in sorted(glob.glob(os.path.join(data, "lake/public.logs/_delta_log/*.json"))):
    for line in open(entry):
        action = json.loads(line)
        if "add" in action:
            names[action["add"]["path"]] = True
        if "remove" in action:
            names.pop(action["remove"]["path"], None)
files = [os.path.join(data, "lake/public.logs", n.replace("%3D", "=")) for n in names]
duck.execute(f"CREATE VIEW logs AS SELECT * FROM read_parquet({files!r})")
print(f"{len(files)} files, {sum(map(os.path.getsize, files)) / 1e6:.0f} MB")
print(f"{'query':25} {'gateway ms':>11} {'of it lake ms':>14} {'DuckDB ms':>10} {'ratio':>6}")
for name, sql in QUERIES.items():
    lake, a = median(lambda: gateway.execute(sql).fetchall())
    inside = gateway.execute(
        "SELECT total_us, probe_us, tail_us FROM watershed.queries WHERE route = 'lake' ORDER BY id DESC LIMIT 7"
    ).fetchall()
    own = statistics.median((t - p - u) / 1000 for t, p, u in inside)
    try:
        other, b = median(lambda: duck.execute(sql).fetchall())
        same = len(a) == len(b)
        print(f"{name:25} {lake:11.1f} {own:14.1f} {other:10.1f} {lake / other:6.1f}{'' if same else '  ROWS DIFFER'}")
    except duckdb.Error as e:
        print(f"{name:25} {lake:11.1f} {own:14.1f} {'-':>10} {str(e).splitlines()[0][:60]}")
