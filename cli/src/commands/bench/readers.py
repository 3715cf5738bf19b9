"""Times statements on another engine over the same Parquet files. One JSON object on standard input, one on standard
output: {"engine": "duckdb" | "spark", "threads": n, "rounds": n, "tables": {name: [path, ...]},
"queries": [[name, sql], ...]} gives {"milliseconds": {name: [..]}, "failed": {name: why}, "version": "..",
"peak_bytes": n}. With "rewrite": {"from": [path, ...], "to": path, "by": column, "memory": "4GB"} it sorts the files
into one and gives {"seconds": s, "rows": n, "peak_bytes": n}. "json": {table: [column, ...]} are texts that hold JSON (DuckDB)."""
import json
import re
import resource
import sys
import time

# A query that takes long is not run as often: after this many milliseconds in all no more.
ENOUGH = 15_000


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def timed(job, run):
    milliseconds, failed = {}, {}
    for name, sql in job["queries"]:
        try:
            if job.get("warm", True):
                run(sql)
            times = []
            for _ in range(job["rounds"]):
                started = time.perf_counter()
                run(sql)
                times.append((time.perf_counter() - started) * 1000)
                if sum(times) > ENOUGH:
                    break
            milliseconds[name] = times
        except Exception as error:  # whatever the engine raises is the answer for this query
            failed[name] = str(error).strip().splitlines()[0][:200]
    return {"milliseconds": milliseconds, "failed": failed, "peak_bytes": peak()}


def quoted(path):
    return "'" + path.replace("'", "''") + "'"


def duckdb_job(job):
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET enable_progress_bar = false")  # it would be drawn between the lines of the answer
    connection.execute(f"SET threads = {int(job['threads'])}")
    known = "SELECT count(*) FROM duckdb_extensions() WHERE extension_name = 'icu' AND loaded"
    if connection.execute(known).fetchone()[0]:
        connection.execute("SET TimeZone = 'UTC'")
    rewrite = job.get("rewrite")
    if rewrite:
        connection.execute(f"SET memory_limit = {quoted(rewrite['memory'])}")
        connection.execute(f"SET temp_directory = {quoted(rewrite['to'] + '.tmp')}")
        files = "[" + ", ".join(map(quoted, rewrite["from"])) + "]"
        started = time.perf_counter()
        connection.execute(
            f"COPY (SELECT * FROM read_parquet({files}) ORDER BY {rewrite['by']}) TO {quoted(rewrite['to'])}"
            " (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 1048576)"
        )
        seconds = time.perf_counter() - started
        rows = connection.execute(f"SELECT count(*) FROM read_parquet({quoted(rewrite['to'])})").fetchone()[0]
        return {"seconds": seconds, "rows": rows, "peak_bytes": peak(), "version": duckdb.__version__}
    connection.execute("CREATE SCHEMA public")
    connection.execute("SET search_path = 'main,public'")
    for table, files in job["tables"].items():
        listed = "[" + ", ".join(map(quoted, files)) + "]"
        # Columns that the files hold as text.
        json_columns = job.get("json", {}).get(table, [])
        as_json = f" REPLACE ({', '.join(f'{c}::JSON AS {c}' for c in json_columns)})" if json_columns else ""
        connection.execute(f"CREATE VIEW {table} AS SELECT *{as_json} FROM read_parquet({listed})")
    answer = timed(job, lambda sql: connection.execute(sql).fetchall())
    answer["version"] = duckdb.__version__
    return answer


def spark_job(job):
    import pyspark
    from pyspark.sql import SparkSession

    session = (
        SparkSession.builder.master(f"local[{int(job['threads'])}]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.memory", "4g")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.shuffle.partitions", str(2 * int(job["threads"])))
        .config("spark.sql.sources.parallelPartitionDiscovery.threshold", "100000")
        .config("spark.log.level", "ERROR")
        .getOrCreate()
    )
    for table, files in job["tables"].items():
        # By their whole URLs: a Hadoop configuration may make another file system the default one.
        session.read.parquet(*("file://" + path for path in files)).createOrReplaceTempView(table)
    answer = timed(job, lambda sql: session.sql(re.sub(r"\+00'", "+00:00'", sql)).collect())
    answer["version"] = pyspark.__version__
    session.stop()
    return answer


def main():
    job = json.load(sys.stdin)
    answer = {"duckdb": duckdb_job, "spark": spark_job}[job["engine"]](job)
    json.dump(answer, sys.stdout)


main()
