"""Both doors of the gateway under test: Flight by ADBC and pyarrow, and PostgreSQL itself by psycopg."""

import base64
import os
import re

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import psycopg
import pyarrow.flight

URL = os.environ["WATERSHED_FLIGHT_URL"]
USER = os.environ["PGUSER"]
PASSWORD = os.environ["PGPASSWORD"]


def flight(**options):
    """A session over Flight; `autocommit` unless said otherwise."""
    autocommit = options.pop("autocommit", True)
    kwargs = {"username": options.pop("user", USER), "password": options.pop("password", PASSWORD), **options}
    return flightsql.connect(URL, db_kwargs=kwargs, autocommit=autocommit)


def direct():
    """A session with PostgreSQL, past the gateway."""
    return psycopg.connect(os.environ["WATERSHED_POSTGRES_URL"], autocommit=True)


def client():
    """A plain Flight client, logged in."""
    plain = pyarrow.flight.FlightClient(URL.replace("grpc://", "grpc+tcp://"))
    header = plain.authenticate_basic_token(USER, PASSWORD)
    return plain, pyarrow.flight.FlightCallOptions(headers=[header])


def sqlstate(error):
    """The SQLSTATE that an error names."""
    found = re.search(r"\b([0-9A-Z]{5}): ", str(error))
    return found.group(1) if found else None


def fails(what, state):
    """Calls `what`, which must fail with this SQLSTATE; gives the error."""
    try:
        what()
    except (adbc_driver_manager.Error, pyarrow.flight.FlightError, pyarrow.ArrowException) as error:
        assert sqlstate(error) == state, f"{state} expected: {error}"
        return error
    raise AssertionError(f"{state} expected, nothing failed")


def rows(connection, sql, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall()


def table(connection, sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetch_arrow_table()


# --- messages of Flight SQL, by hand ---------------------------------------------------------------------------------------------

def field(number, data):
    """A length-delimited field of protobuf."""
    return bytes([number << 3 | 2]) + varint(len(data)) + data


def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def command(name, body):
    url = b"type.googleapis.com/arrow.flight.protocol.sql." + name.encode()
    return field(1, url) + field(2, body)


def fields(message):
    """The length-delimited fields of a message, by number."""
    out, at = {}, 0
    while at < len(message):
        number, at = message[at] >> 3, at + 1
        length, shift = 0, 0
        while True:
            byte, at = message[at], at + 1
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        out[number] = message[at:at + length]
        at += length
    return out


def act(plain, options, kind, name, body):
    """An action of Flight SQL; the fields of its result, if it has one."""
    results = [r.body.to_pybytes() for r in plain.do_action(pyarrow.flight.Action(kind, command(name, body)), options)]
    return fields(fields(results[0])[2]) if results else {}


def update(plain, options, sql, transaction=b""):
    """CommandStatementUpdate."""
    body = field(1, sql.encode()) + (field(2, transaction) if transaction else b"")
    descriptor = pyarrow.flight.FlightDescriptor.for_command(command("CommandStatementUpdate", body))
    writer, _ = plain.do_put(descriptor, pyarrow.schema([]), options)
    writer.close()


def statement(sql):
    return pyarrow.flight.FlightDescriptor.for_command(command("CommandStatementQuery", field(1, sql.encode())))


def set_option(plain, options, name, value):
    """SetSessionOptions of one text."""
    body = field(1, field(1, name.encode()) + field(2, field(1, value.encode())))
    return b"".join(r.body.to_pybytes() for r in plain.do_action(pyarrow.flight.Action("SetSessionOptions", body), options))


def basic(user, password):
    return (b"authorization", b"Basic " + base64.b64encode(f"{user}:{password}".encode()))
