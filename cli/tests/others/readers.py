"""Reads versions of a Delta table with libraries that know nothing of Watershed. Each line of standard input is a JSON
object {"reader": .., "path": .., "version": n}; each line of standard output its answer: {"rows": n, "sum": n,
"kinds": {kind: n}, "least": text, "greatest": text} or {"error": text}. Times as ISO 8601 in UTC."""
import datetime
import glob
import json
import os
import sys

UTC = datetime.timezone.utc
spark = None


def shown(time):
    if time is None:
        return None
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def from_us(us):
    return None if us is None else datetime.datetime.fromtimestamp(0, UTC) + datetime.timedelta(microseconds=us)


def answer(rows, total, kinds, least, greatest):
    return {
        "rows": rows,
        "sum": int(total or 0),
        "kinds": {k: n for k, n in sorted(kinds)},
        "least": shown(least),
        "greatest": shown(greatest),
    }


def with_deltalake(path, version):
    import pyarrow.compute as pc
    from deltalake import DeltaTable

    table = DeltaTable(path, version=version).to_pyarrow_table(columns=["ts", "kind", "n"])
    kinds = table.group_by("kind").aggregate([("n", "count")]).to_pylist()
    least, greatest = pc.min(table["ts"]).as_py(), pc.max(table["ts"]).as_py()
    return answer(
        table.num_rows, pc.sum(table["n"]).as_py(), [(k["kind"], k["n_count"]) for k in kinds], least, greatest
    )


def with_polars(path, version):
    import polars as pl

    frame = pl.scan_delta(path, version=version)
    one = frame.select(
        pl.len().alias("rows"), pl.col("n").sum(), pl.col("ts").min().alias("least"), pl.col("ts").max().alias("greatest")
    ).collect()
    kinds = frame.group_by("kind").agg(pl.len()).collect().rows()
    rows, total, least, greatest = one.row(0)
    return answer(rows, total, kinds, least, greatest)


def with_duckdb(path, version):
    import duckdb

    connection = duckdb.connect(config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"})
    connection.execute(f"SET extension_directory = '{os.environ['WATERSHED_DUCKDB_EXTENSIONS']}'")
    try:
        connection.execute("LOAD delta")
        source = f"delta_scan('{path}', version => {int(version)})"
        connection.execute(f"SELECT 1 FROM {source} LIMIT 0")
    except duckdb.Error:
        # Without its extension: the files that the version names.
        from deltalake import DeltaTable

        files = [file.removeprefix("file://") for file in DeltaTable(path, version=version).file_uris()]
        if not files:
            return answer(0, 0, [], None, None)
        source = f"read_parquet({files!r})"
    rows, total, least, greatest = connection.execute(
        f"SELECT count(*), sum(n), epoch_us(min(ts)), epoch_us(max(ts)) FROM {source}"
    ).fetchone()
    kinds = connection.execute(f"SELECT kind, count(*) FROM {source} GROUP BY kind").fetchall()
    return answer(rows, total, kinds, from_us(least), from_us(greatest))


def with_spark(path, version):
    global spark
    from pyspark.sql import SparkSession, functions

    if spark is None:
        spark = (
            SparkSession.builder.master("local[2]")
            .config("spark.ui.enabled", "false")
            .config("spark.ui.showConsoleProgress", "false")
            .config("spark.databricks.delta.snapshotPartitions", "2")
            .config("spark.driver.memory", "1g")
            .config("spark.driver.host", "127.0.0.1")
            .config("spark.sql.session.timeZone", "UTC")
            .config("spark.sql.shuffle.partitions", "2")
            .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
            .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
            .config("spark.jars", ",".join(delta_jars()))
            .config("spark.log.level", "ERROR")
            .getOrCreate()
        )
    frame = spark.read.format("delta").option("versionAsOf", version).load(path)
    us = functions.expr("unix_micros(ts)")
    row = frame.agg(functions.count("*"), functions.sum("n"), functions.min(us), functions.max(us)).collect()[0]
    kinds = [(k["kind"], k["count"]) for k in frame.groupBy("kind").count().collect()]
    return answer(row[0], row[1], kinds, from_us(row[2]), from_us(row[3]))


def delta_jars():
    """The jars of Delta itself; Spark brings the others that their pom names."""
    return glob.glob(os.path.join(os.environ["WATERSHED_DELTA_JARS"], "delta-*.jar"))


READERS = {"deltalake": with_deltalake, "polars": with_polars, "duckdb": with_duckdb, "spark": with_spark}

for line in sys.stdin:
    job = json.loads(line)
    try:
        said = READERS[job["reader"]](job["path"], job["version"])
    except Exception as error:  # whatever a library raises is its answer
        said = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(said), flush=True)
