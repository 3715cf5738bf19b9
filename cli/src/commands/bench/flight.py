"""Fetches all rows of a table of the lake in several ways, each so often, in turns; the fast ones once before, unmeasured, and then five
times in each round. One JSON object on standard input, one on standard output: {"rounds": n, "rows": n, "sql": "..", "flight": url,
"postgres": conninfo, "user": .., "password": .., "files": [path, ...]} gives {"seconds": {way: [..]}, "rows": n, "versions": {name: version}}."""
import importlib.metadata
import json
import subprocess
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


# What fetching alone costs: a server that has all rows in memory as batches, reads no file and asks nobody for leave. It says where it
# listens, and ends with its standard input.
FROM_MEMORY = """
import sys, duckdb, pyarrow.flight
files = duckdb.connect()
files.execute("SET enable_progress_bar = false")
rows = files.sql(sys.argv[1]).to_arrow_table()
class Server(pyarrow.flight.FlightServerBase):
    def do_get(self, context, ticket):
        return pyarrow.flight.RecordBatchStream(rows)
server = Server("grpc+tcp://127.0.0.1:0")
print(server.port, flush=True)
sys.stdin.read()
server.shutdown()
"""

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
from_memory = subprocess.Popen([sys.executable, "-c", FROM_MEMORY, from_files], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
memory = pyarrow.flight.FlightClient(f"grpc+tcp://127.0.0.1:{int(from_memory.stdout.readline())}")
setting = message(1, b"watershed.route") + message(2, message(1, b"lake"))
list(plain.do_action(pyarrow.flight.Action("SetSessionOptions", message(1, setting)), options))
with flight.cursor() as cursor:
    cursor.execute("SET watershed.route = 'lake'")
    cursor.fetchall()
wire.execute("SET watershed.route = 'lake'")
counted = "SELECT count(*) FROM flown"
for _ in range(300):
    # The gateway looks for new tables every few seconds.
    wire.execute(counted, prepare=False)
    if wire.execute("SELECT route FROM watershed.queries WHERE sql = %s ORDER BY id DESC LIMIT 1", [counted], prepare=False).fetchone() == ("lake",):
        break
    time.sleep(0.1)
else:
    sys.exit("the gateway does not come to know the table")


def pyarrow_flight_arrow():
    """Arrow's own client in C++, which knows Flight and not Flight SQL: the command is put together here."""
    command = b"type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery"
    command = message(1, command) + message(2, message(1, sql.encode()))
    info = plain.get_flight_info(pyarrow.flight.FlightDescriptor.for_command(command), options)
    parts = [plain.do_get(endpoint.ticket, options).read_all() for endpoint in info.endpoints]
    return pyarrow.concat_tables(parts).num_rows


def memory_arrow():
    """The same client, of the server that has the rows in memory."""
    return memory.do_get(pyarrow.flight.Ticket(b"")).read_all().num_rows


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


# The fast ones more often: a machine that rests for a moment shows in them.
fast = [flight_arrow, duckdb_arrow, pyarrow_flight_arrow, memory_arrow]
slow = [flight_pandas, flight_pandas_objects, psycopg_pandas, copy_binary, duckdb_pandas]
seconds = {way.__name__: [] for way in fast + slow}
counts = {way() for way in fast}
for _ in range(job["rounds"]):
    for way in fast * 5 + slow:
        began = time.perf_counter()
        counts.add(way() or job["rows"])
        seconds[way.__name__].append(time.perf_counter() - began)
from_memory.communicate()
if len(counts) != 1:
    sys.exit(f"the ways differ in rows: {counts}")
wire.execute("RESET watershed.route")
others = wire.execute("SELECT DISTINCT protocol, reasons FROM watershed.queries WHERE sql = %s AND route <> 'lake'", [sql]).fetchall()
if others:
    sys.exit(f"not all of it was answered by the lake: {others}")
names = ["adbc-driver-flightsql", "pyarrow", "pandas", "psycopg", "duckdb"]
versions = {name: importlib.metadata.version(name) for name in names}
json.dump({"seconds": seconds, "rows": counts.pop(), "versions": versions}, sys.stdout)
