"""Fetches all rows of a table of the lake in several ways, each so often, in turns. One JSON object on standard input, one on standard
output: {"rounds": n, "rows": n, "sql": "..", "flight": url, "postgres": conninfo, "user": .., "password": .., "files": [path, ...]} gives
{"seconds": {way: [..]}, "rows": n, "versions": {name: version}}."""
import importlib.metadata
import json
import sys
import time
import warnings

import adbc_driver_flightsql.dbapi
import duckdb
import pandas
import psycopg
import pyarrow
import pyarrow.flight

warnings.simplefilter("ignore")


def message(number, data):
    """A field of a message of Protocol Buffers."""
    size, rest = b"", len(data)
    while rest > 127:
        size, rest = size + bytes([rest & 127 | 128]), rest >> 7
    return bytes([number << 3 | 2]) + size + bytes([rest]) + data


job = json.load(sys.stdin)
sql = job["sql"]
credentials = {"username": job["user"], "password": job["password"]}
flight = adbc_driver_flightsql.dbapi.connect(job["flight"], db_kwargs=credentials, autocommit=True)
plain = pyarrow.flight.FlightClient(job["flight"].replace("grpc://", "grpc+tcp://"))
options = pyarrow.flight.FlightCallOptions(headers=[plain.authenticate_basic_token(job["user"], job["password"])])
wire = psycopg.connect(job["postgres"], autocommit=True)
files = duckdb.connect()
files.execute("SET enable_progress_bar = false")
files.execute("SET TimeZone = 'UTC'")
from_files = sql.replace("flown", "read_parquet([" + ", ".join("'" + f.replace("'", "''") + "'" for f in job["files"]) + "])")
setting = message(1, b"watershed.route") + message(2, message(1, b"lake"))
list(plain.do_action(pyarrow.flight.Action("SetSessionOptions", message(1, setting)), options))
with flight.cursor() as cursor:
    cursor.execute("SET watershed.route = 'lake'")
    cursor.fetchall()
wire.execute("SET watershed.route = 'lake'")


def pyarrow_flight_arrow():
    """Arrow's own client in C++, which knows Flight and not Flight SQL: the command is put together here."""
    command = b"type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery"
    command = message(1, command) + message(2, message(1, sql.encode()))
    info = plain.get_flight_info(pyarrow.flight.FlightDescriptor.for_command(command), options)
    parts = [plain.do_get(endpoint.ticket, options).read_all() for endpoint in info.endpoints]
    return pyarrow.concat_tables(parts).num_rows


def over_flight():
    cursor = flight.cursor()
    cursor.execute(sql)
    return cursor


def flight_arrow():
    with over_flight() as cursor:
        return cursor.fetch_arrow_table().num_rows


def flight_pandas():
    """Columns of Arrow's types, as pandas itself reads Parquet with dtype_backend='pyarrow'."""
    with over_flight() as cursor:
        return len(cursor.fetch_arrow_table().to_pandas(types_mapper=pandas.ArrowDtype))


def flight_pandas_objects():
    """Columns of pandas' own types; numerics become objects of Python."""
    with over_flight() as cursor:
        return len(cursor.fetch_df())


def psycopg_pandas():
    cursor = wire.execute(sql, binary=True)
    return len(pandas.DataFrame(cursor.fetchall(), columns=[c.name for c in cursor.description]))


def copy_binary():
    """The bytes alone, which nobody has read yet nor counted. PostgreSQL's own rows: COPY is not the lake's."""
    with wire.cursor() as cursor, cursor.copy(f"COPY ({sql}) TO STDOUT (FORMAT binary)") as copy:
        for _ in copy:
            pass


def duckdb_arrow():
    return files.sql(from_files).to_arrow_table().num_rows


def duckdb_pandas():
    return len(files.sql(from_files).df())


ways = [flight_arrow, pyarrow_flight_arrow, flight_pandas, flight_pandas_objects, psycopg_pandas, copy_binary, duckdb_arrow, duckdb_pandas]
seconds = {way.__name__: [] for way in ways}
counts = set()
for _ in range(job["rounds"]):
    for way in ways:
        began = time.perf_counter()
        counts.add(way() or job["rows"])
        seconds[way.__name__].append(time.perf_counter() - began)
if len(counts) != 1:
    sys.exit(f"the ways differ in rows: {counts}")
wire.execute("RESET watershed.route")
answered = wire.execute("SELECT DISTINCT route FROM watershed.queries WHERE sql = %s", [sql]).fetchall()
if answered != [("lake",)]:
    sys.exit(f"not all of it was answered by the lake: {answered}")
names = ["adbc-driver-flightsql", "pyarrow", "pandas", "psycopg", "duckdb"]
versions = {name: importlib.metadata.version(name) for name in names}
json.dump({"seconds": seconds, "rows": counts.pop(), "versions": versions}, sys.stdout)
