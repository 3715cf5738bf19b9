"""Statements of the equality corpus over Flight, compared with what PostgreSQL says: every value, and the SQLSTATE of every error.

Reads statements from the file that is named, each a line of JSON: [text, whether its rows have an order]. Prints how many there were,
then `done`.
"""

import decimal
import json
import os
import re
import sys

import psycopg
import pyarrow
import pyarrow.types as types

from doors import flight, sqlstate

ERA = re.compile(r"^(\d{4,})-(\d\d)-(\d\d)(?: (\d\d):(\d\d):(\d\d)(?:\.(\d+))?)?(?:\+00)?( BC)?$")
INTERVAL = re.compile(r"(-?\d+) (year|mon|day)s?")
CLOCK = re.compile(r"(-?)(\d+):(\d\d):(\d\d)(?:\.(\d+))?$")


def days(year, month, day):
    """Days since 1970 of a day of the Gregorian calendar."""
    year -= month <= 2
    era, of_era = divmod(year, 400)
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


def moment(text):
    """Days and microseconds since 1970."""
    found = ERA.match(text)
    year, month, day = int(found[1]), int(found[2]), int(found[3])
    n = days(1 - year if found[8] else year, month, day)
    clock = [int(v or 0) for v in found.group(4, 5, 6)]
    return n, n * 86_400_000_000 + (clock[0] * 3600 + clock[1] * 60 + clock[2]) * 1_000_000 + int((found[7] or "").ljust(6, "0") or 0)


def interval(text):
    units = {unit: int(n) for n, unit in INTERVAL.findall(text)}
    us = 0
    found = CLOCK.search(text)
    if found:
        us = (int(found[2]) * 3600 + int(found[3]) * 60 + int(found[4])) * 1_000_000 + int((found[5] or "").ljust(6, "0") or 0)
        us = -us if found[1] else us
    return units.get("year", 0) * 12 + units.get("mon", 0), units.get("day", 0), us * 1000


def items(text):
    """The elements of an array literal of one dimension."""
    out, at, text = [], 0, text[1:-1]
    while at < len(text):
        if text[at] == '"':
            at, item = at + 1, ""
            while text[at] != '"':
                at += text[at] == "\\"
                item += text[at]
                at += 1
            out.append(item)
            at += 2
        else:
            end = text.find(",", at)
            end = len(text) if end < 0 else end
            out.append(None if text[at:end] == "NULL" else text[at:end])
            at = end + 1
    return out


def of_text(text, data_type):
    """What PostgreSQL printed, as a value of the Arrow type."""
    if text is None:
        return None
    if isinstance(data_type, pyarrow.BaseExtensionType):
        return text.replace("-", "") if data_type == pyarrow.uuid() else text
    if types.is_list(data_type):
        return [of_text(v, data_type.value_type) for v in items(text)]
    if types.is_boolean(data_type):
        return text == "t"
    if types.is_integer(data_type):
        return int(text)
    if types.is_floating(data_type):
        return repr(pyarrow.scalar(float(text), data_type).as_py())
    if types.is_decimal(data_type):
        return decimal.Decimal(text)
    if types.is_binary(data_type):
        return bytes.fromhex(text[2:])
    if types.is_date(data_type):
        return moment(text)[0]
    if types.is_timestamp(data_type):
        return moment(text)[1]
    if types.is_time(data_type):
        return moment("1970-01-01 " + text)[1]
    if types.is_interval(data_type):
        return interval(text)
    return text


def of_arrow(value, data_type):
    """The value, comparable with the above."""
    if not value.is_valid:
        return None
    if isinstance(data_type, pyarrow.BaseExtensionType):
        storage = value.value
        return storage.as_py().hex() if data_type == pyarrow.uuid() else storage.as_py()
    if types.is_list(data_type):
        return [of_arrow(v, data_type.value_type) for v in value]
    if types.is_floating(data_type):
        return repr(value.as_py())
    if types.is_date(data_type) or types.is_timestamp(data_type) or types.is_time(data_type):
        return value.value
    if types.is_interval(data_type):
        return tuple(value.as_py())
    return value.as_py()


def asked_of_postgres(connection, sql):
    result = connection.pgconn.exec_params(sql.encode(), None)
    if result.status == psycopg.pq.ExecStatus.COPY_OUT:
        # Not over Flight.
        connection.pgconn.reset()
        return "0A000", None
    if result.status not in (psycopg.pq.ExecStatus.TUPLES_OK, psycopg.pq.ExecStatus.COMMAND_OK):
        return result.error_field(psycopg.pq.DiagnosticField.SQLSTATE).decode(), None
    rows = [
        [None if result.get_value(r, c) is None else result.get_value(r, c).decode() for c in range(result.nfields)]
        for r in range(result.ntuples)
    ]
    return None, rows


def asked_over_flight(connection, sql):
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return None, cursor.fetch_arrow_table()
    except Exception as error:
        return error, None


def differs(sql, ordered, direct, over):
    if not sql.strip("; "):
        # Clients do not send what says nothing.
        return False
    state, expected = asked_of_postgres(direct, sql)
    error, table = asked_over_flight(over, sql)
    if error is not None:
        if "Arrow" in str(error) and sqlstate(error) in ("22008", "22003", "0A000"):
            # A value that Arrow has not: PostgreSQL must have one like that.
            text = repr(expected)
            unfit = state is None and any(w in text for w in ("infinity", "NaN", "24:00:00", "{{", "]="))
            return False if unfit else f"refused: {error}"
        return False if state is not None and sqlstate(error) == state else f"PostgreSQL {state}, Flight {error}"
    if state is not None:
        return f"PostgreSQL {state}, Flight answers"
    of = [f.type for f in table.schema]
    got = [[of_arrow(table.column(c)[r], of[c]) for c in range(len(of))] for r in range(table.num_rows)]
    expected = [[of_text(v, t) for v, t in zip(row, of)] for row in expected]
    if not ordered:
        got, expected = sorted(got, key=repr), sorted(expected, key=repr)
    if got == expected:
        return False
    wrong = next(((g, e) for g, e in zip(got, expected) if g != e), (len(got), len(expected)))
    return f"Flight {wrong[0]}\n  PostgreSQL {wrong[1]}"


with open(sys.argv[1], encoding="utf-8") as file:
    statements = [json.loads(line) for line in file]
direct = psycopg.connect(os.environ["WATERSHED_POSTGRES_URL"], autocommit=True)
over = flight()
direct.execute("SET TimeZone = 'UTC'")
asked_over_flight(over, "SET TimeZone = 'UTC'")
faults = []
for sql, ordered in statements:
    fault = differs(sql, ordered, direct, over)
    if fault:
        faults.append(f"{sql}\n  {fault}")
print(f"{len(statements)} statements")
if faults:
    print("\n".join(faults[:25]))
    sys.exit(f"{len(faults)} of {len(statements)} differ")
print("done")
