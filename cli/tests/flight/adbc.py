"""What real clients of Arrow Flight SQL do, each checked against PostgreSQL itself. Prints a line for each check, then `done`."""

import datetime
import decimal
import os
import sys
import threading
import time
import uuid

import pandas
import polars
import pyarrow
import pyarrow.flight

from doors import PASSWORD, URL, USER, act, client, command, direct, fails, field, flight, rows, set_option, statement, table, update

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def one(connection, sql, parameters=None):
    return rows(connection, sql, parameters)[0][0]


@check
def answers_of_both_stores_are_the_same():
    with flight() as f, direct() as d:
        for sql in [
            "SELECT kind, count(*), sum(n), min(ts), max(d), avg(f8) FROM samples GROUP BY kind ORDER BY kind",
            "SELECT count(*), sum(i4), sum(n) FROM samples",
            "SELECT id, n, t FROM samples WHERE id < 50 ORDER BY id",
            "SELECT level, count(*) FROM logs GROUP BY level ORDER BY level NULLS LAST",
        ]:
            expected = d.execute(sql).fetchall()
            got = [tuple(r) for r in rows(f, sql)]
            # numeric without a modifier travels as text.
            same = [tuple(decimal.Decimal(v) if isinstance(w, decimal.Decimal) else v for v, w in zip(g, e)) for g, e in zip(got, expected)]
            assert same == expected, f"{sql}\n{got}\n{expected}"


@check
def the_lake_answers_over_flight():
    mark = uuid.uuid4().hex
    with flight() as f:
        assert one(f, f"SELECT count(*) FROM samples -- {mark}") == 1000
        with f.cursor() as cursor:
            for _ in range(50):
                cursor.execute(f"SELECT route, protocol, rows FROM watershed.queries WHERE sql LIKE '%{mark}' AND protocol = 'flight'")
                found = cursor.fetchall()
                if found:
                    break
                time.sleep(0.1)
    assert ("lake", "flight", 1) in [tuple(r) for r in found], found


@check
def frames_of_pandas_polars_and_pyarrow():
    sql = "SELECT id, n, t, ts, b, f8 FROM samples WHERE id <= 20 ORDER BY id"
    with flight() as f, f.cursor() as cursor:
        cursor.execute(sql)
        arrow = cursor.fetch_arrow_table()
        assert arrow.num_rows == 20 and arrow.schema.field("n").type == pyarrow.decimal128(12, 3), arrow.schema
        assert arrow.schema.field("ts").type == pyarrow.timestamp("us", "UTC")
        cursor.execute(sql)
        frame = cursor.fetch_df()
        assert isinstance(frame, pandas.DataFrame) and list(frame["id"]) == list(range(1, 21))
        assert list(pandas.read_sql(sql, f)["id"]) == list(range(1, 21))
        frame = polars.read_database(sql, f)
        assert frame["id"].to_list() == list(range(1, 21))


@check
def types_are_those_of_the_table():
    with flight() as f:
        t = table(
            f,
            "SELECT true AS b, 1::int2 AS i2, 1 AS i4, 1::int8 AS i8, 1.5::float4 AS f4, 1.5::float8 AS f8, 1.50::numeric(5,2) AS n, 0.10 AS free,"
            " 'x'::text AS t, '\\x00ff'::bytea AS by, date '2024-02-29' AS d, time '01:02:03.000004' AS tm, timestamp '2024-02-29 01:02:03' AS ts,"
            " timestamptz '2024-02-29 01:02:03+02' AS tz, interval '1 mon 2 days 00:00:03' AS iv, '{\"a\": 1}'::jsonb AS j,"
            " 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid AS u, ARRAY[1, NULL, 3] AS a, '10.0.0.1'::inet AS inet,"
            " 123456789012345678901234567890123456789.5::numeric(50,1) AS wide, ARRAY['x', NULL]::text[] AS ta, ARRAY[0.10, 2] AS na",
        )
        assert t.schema.field("u").type == pyarrow.uuid() and t.schema.field("j").type == pyarrow.json_(), t.schema
        row = {name: t.column(name)[0].as_py() for name in t.column_names}
    expected = {
        "b": True, "i2": 1, "i4": 1, "i8": 1, "f4": 1.5, "f8": 1.5, "n": decimal.Decimal("1.50"), "free": "0.10", "t": "x", "by": b"\x00\xff",
        "d": datetime.date(2024, 2, 29), "tm": datetime.time(1, 2, 3, 4), "ts": datetime.datetime(2024, 2, 29, 1, 2, 3),
        "tz": datetime.datetime(2024, 2, 28, 23, 2, 3, tzinfo=datetime.timezone.utc), "iv": (1, 2, 3_000_000_000), "j": '{"a": 1}',
        "u": uuid.UUID("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"), "a": [1, None, 3], "inet": "10.0.0.1",
        "wide": decimal.Decimal("123456789012345678901234567890123456789.5"), "ta": ["x", None], "na": ["0.10", "2"],
    }
    for name, value in expected.items():
        got = row[name]
        if name == "tz":
            got = got.astimezone(datetime.timezone.utc)
        assert (tuple(got) if name == "iv" else got) == value, f"{name}: {got!r}, {value!r} expected"


@check
def what_arrow_has_not_is_an_error_with_a_hint():
    with flight() as f:
        for sql, state in [
            ("SELECT 'infinity'::date", "22008"),
            ("SELECT '-infinity'::timestamptz", "22008"),
            ("SELECT 'NaN'::numeric(5,2)", "22003"),
            ("SELECT ARRAY[[1],[2]]", "0A000"),
            ("SELECT time '24:00'", "22008"),
        ]:
            assert "HINT" in str(fails(lambda: rows(f, sql), state)), sql
        assert one(f, "SELECT 1") == 1


@check
def errors_are_those_of_postgres():
    with flight() as f, direct() as d:
        for sql in ["SELECT * FROM nowhere", "SELECT 1/0", "SELEC 1", "SELECT 'x'::int", "SELECT sum(i4) / 0 FROM samples", "DROP TABLE nowhere"]:
            try:
                d.execute(sql)
                raise AssertionError(sql)
            except Exception as error:
                state, message = error.diag.sqlstate, error.diag.message_primary
            assert message in str(fails(lambda: rows(f, sql), state)), sql


@check
def parameters_of_every_kind():
    with flight() as f:
        assert one(f, "SELECT $1::int8 + 1", (41,)) == 42
        assert one(f, "SELECT ?::text || ?", ("a", "ü'\\")) == "aü'\\"
        assert one(f, "SELECT count(*) FROM samples WHERE id <= ? AND kind = ?", (100, "kind 1")) == 20
        assert one(f, "SELECT ($1::timestamptz AT TIME ZONE 'UTC')::text", (datetime.datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=datetime.timezone.utc),)) \
            == "2024-01-02 03:04:05.000006"
        assert one(f, "SELECT $1::date::text", (datetime.date(2024, 2, 29),)) == "2024-02-29"
        assert one(f, "SELECT $1::bytea", (b"\x00\xff",)) == b"\x00\xff"
        assert one(f, "SELECT $1::float8", (0.1,)) == 0.1
        assert one(f, "SELECT $1::bool", (True,)) is True
        assert one(f, "SELECT $1::text IS NULL", (None,)) is True
        assert one(f, "SELECT '{\"a\": 1}'::jsonb ? 'a'") is True


@check
def updates_and_batches_of_parameters():
    with flight() as f, f.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE scratch (a int, b text)")
        cursor.executemany("INSERT INTO scratch VALUES (?, ?)", [(n, f"row {n}") for n in range(1000)])
        assert one(f, "SELECT count(*) FROM scratch WHERE b = 'row ' || a") == 1000
        cursor.execute("UPDATE scratch SET b = '' WHERE a < 10")
        assert one(f, "SELECT count(*) FROM scratch WHERE b = ''") == 10
        cursor.execute("INSERT INTO scratch VALUES (-1, 'x') RETURNING a")
        assert cursor.fetchall() == [(-1,)]
        # All rows of a batch or none, whichever way it goes.
        fails(lambda: cursor.executemany("INSERT INTO scratch VALUES (?, ?)", [("7000", "x"), ("no number", "x")]), "22P02")
        assert one(f, "SELECT count(*) FROM scratch WHERE a = 7000") == 0
        returning = "INSERT INTO scratch VALUES (?::text::int, 'x') RETURNING a"
        cursor.execute(returning, pyarrow.record_batch({"a": ["7001", "7002"]}))
        assert cursor.fetchall() == [(7001,), (7002,)]
        fails(lambda: cursor.execute(returning, pyarrow.record_batch({"a": ["7003", "no number", "7004"]})), "22P02")
        assert one(f, "SELECT count(*) FROM scratch WHERE a > 7002") == 0
        # No rows of parameters are no executions.
        cursor.execute(returning, pyarrow.table({"a": pyarrow.array([], pyarrow.string())}))
        assert cursor.fetch_arrow_table().num_rows == 0
        cursor.execute("SELECT ?::int AS n, 'x' AS t", pyarrow.table({"n": pyarrow.array([], pyarrow.int32())}))
        assert cursor.fetch_arrow_table().schema.names == ["n", "t"]
        for sql in ["COPY scratch FROM STDIN", "COPY scratch TO STDOUT"]:
            assert "HINT" in str(fails(lambda: rows(f, sql), "0A000")), sql
        assert one(f, "SELECT 1") == 1


@check
def values_do_not_depend_on_settings():
    nano = pyarrow.MonthDayNano
    given = [nano([-1, 2, 3000]), nano([1, -2, 3000]), nano([-1, -2, -3000]), nano([0, 0, 0])]
    with flight() as f:
        for style in ["sql_standard", "postgres_verbose", "iso_8601", "postgres"]:
            rows(f, f"SET intervalstyle = '{style}'")
            got = [one(f, "SELECT $1::interval", pyarrow.record_batch({"i": pyarrow.array([i], pyarrow.month_day_nano_interval())})) for i in given]
            assert [tuple(g) for g in got] == [tuple(g) for g in given], (style, got)
        for off in ["SET array_nulls = off", "SELECT set_config('array_nulls', 'off', false)"]:
            rows(f, off)
            lists = pyarrow.record_batch({"a": pyarrow.array([["x", None]], pyarrow.list_(pyarrow.string()))})
            assert one(f, "SELECT ($1::text[])[2] IS NULL", lists) is True
        rows(f, "CREATE TEMPORARY TABLE texts (t text)")
        latin = "client_encoding = 'LATIN1'"
        for other in [f"SET {latin}", "SELECT set_config('client_encoding', 'LATIN1', false)", "BEGIN", f"SET LOCAL {latin}"]:
            rows(f, other)
            rows(f, "INSERT INTO texts VALUES (?)", ("ü",))
            assert one(f, "SELECT bool_and(t = U&'\\00FC') FROM texts") is True, other
        rows(f, "COMMIT")
        assert one(f, "SELECT min(t) FROM texts") == "ü"


@check
def transactions():
    with flight(autocommit=False) as f, direct() as d:
        name = f"tx_{os.getpid()}"
        with f.cursor() as cursor:
            cursor.execute(f"CREATE TABLE {name} (a int)")
            f.commit()
            cursor.execute(f"INSERT INTO {name} VALUES (1)")
            assert d.execute(f"SELECT count(*) FROM {name}").fetchone() == (0,)
            f.rollback()
            cursor.execute(f"INSERT INTO {name} VALUES (2)")
            f.commit()
            assert d.execute(f"SELECT a FROM {name}").fetchall() == [(2,)]
            # A transaction that failed is not committed in silence.
            cursor.execute(f"INSERT INTO {name} VALUES (3)")
            fails(lambda: rows(f, "SELECT 1/0"), "22012")
            fails(lambda: rows(f, "SELECT 1"), "25P02")
            fails(f.commit, "25P02")
        d.execute(f"DROP TABLE {name}")


@check
def a_handle_does_not_outlive_its_transaction():
    plain, options = client()
    with direct() as d:
        name = f"outlived_{os.getpid()}"
        d.execute(f"CREATE TABLE {name} (a int)")
        for meanwhile in [[], ["BEGIN"]]:
            transaction = act(plain, options, "BeginTransaction", "ActionBeginTransactionRequest", b"")[1]
            update(plain, options, f"INSERT INTO {name} VALUES (1)", transaction)
            for sql in ["COMMIT", *meanwhile]:
                update(plain, options, sql, transaction if sql == "COMMIT" else b"")
            fails(lambda: update(plain, options, f"INSERT INTO {name} VALUES (2)", transaction), "25P01")
            fails(lambda: act(plain, options, "EndTransaction", "ActionEndTransactionRequest", field(1, transaction) + b"\x10\x02"), "25P01")
            # And is forgotten then.
            fails(lambda: update(plain, options, f"INSERT INTO {name} VALUES (2)", transaction), "25000")
            if meanwhile:
                update(plain, options, "ROLLBACK")
        assert d.execute(f"SELECT a FROM {name}").fetchall() == [(1,), (1,)]
        d.execute(f"DROP TABLE {name}")


@check
def savepoints():
    plain, options = client()
    rolls_back, commits, releases = b"\x10\x02", b"\x10\x01", b"\x10\x01"
    with direct() as d:
        name = f"saved_{os.getpid()}"
        d.execute(f"CREATE TABLE {name} (a int)")
        transaction = act(plain, options, "BeginTransaction", "ActionBeginTransactionRequest", b"")[1]
        fails(lambda: act(plain, options, "BeginTransaction", "ActionBeginTransactionRequest", b""), "25001")
        update(plain, options, f"INSERT INTO {name} VALUES (1)", transaction)
        begin = field(1, transaction) + field(2, b"here")
        point = act(plain, options, "BeginSavepoint", "ActionBeginSavepointRequest", begin)[1]
        update(plain, options, f"INSERT INTO {name} VALUES (2)", transaction)
        act(plain, options, "EndSavepoint", "ActionEndSavepointRequest", field(1, point) + rolls_back)
        act(plain, options, "EndSavepoint", "ActionEndSavepointRequest", field(1, point) + releases)
        fails(lambda: act(plain, options, "EndSavepoint", "ActionEndSavepointRequest", field(1, b"x; DROP TABLE kinds") + releases), "3B001")
        fails(lambda: update(plain, options, f"INSERT INTO {name} VALUES (3)", b"another"), "25000")
        act(plain, options, "EndTransaction", "ActionEndTransactionRequest", field(1, transaction) + commits)
        assert d.execute(f"SELECT a FROM {name}").fetchall() == [(1,)]
        d.execute(f"DROP TABLE {name}")


@check
def what_changes_something_is_done_once():
    plain, options = client()
    with direct() as d:
        name = f"once_{os.getpid()}"
        d.execute(f"CREATE TABLE {name} (a int)")
        info = plain.get_flight_info(statement(f"INSERT INTO {name} VALUES (1) RETURNING a"), options)
        assert plain.do_get(info.endpoints[0].ticket, options).read_all().num_rows == 1
        fails(lambda: plain.do_get(info.endpoints[0].ticket, options).read_all(), "55000")
        # Nobody fetches what this one gives.
        plain.get_flight_info(statement(f"INSERT INTO {name} VALUES (2) RETURNING a"), options)
        plain.get_flight_info(statement(f"DELETE FROM {name} WHERE a = 7"), options)
        assert d.execute(f"SELECT count(*) FROM {name}").fetchone() == (2,)
        d.execute(f"DROP TABLE {name}")


@check
def what_a_select_does_is_done_once():
    plain, options = client()
    with flight() as f, direct() as d:
        name = f"effects_{os.getpid()}"
        d.execute(f"CREATE TABLE {name} (a int)")
        d.execute(f"CREATE FUNCTION f_{name}() RETURNS int LANGUAGE sql AS 'INSERT INTO {name} VALUES (1) RETURNING a'")
        d.execute(f"CREATE VIEW v_{name} AS SELECT f_{name}() AS a")
        d.execute(f"CREATE SEQUENCE s_{name}")
        done = 0
        for sql in [f"SELECT f_{name}()", f"SELECT a FROM v_{name}", f"EXPLAIN ANALYZE SELECT f_{name}()"]:
            for _ in range(5):
                with f.cursor() as cursor:
                    cursor.execute(sql)
                done += 1
                assert d.execute(f"SELECT count(*) FROM {name}").fetchone() == (done,), sql
            info = plain.get_flight_info(statement(sql), options)
            done += 1
            assert d.execute(f"SELECT count(*) FROM {name}").fetchone() == (done,), sql
            assert plain.do_get(info.endpoints[0].ticket, options).read_all().num_rows > 0
            fails(lambda: plain.do_get(info.endpoints[0].ticket, options).read_all(), "55000")
            assert d.execute(f"SELECT count(*) FROM {name}").fetchone() == (done,), sql
        plain.get_flight_info(statement(f"SELECT nextval('s_{name}')"), options)
        assert d.execute(f"SELECT nextval('s_{name}')").fetchone() == (2,)
        plain.get_flight_info(statement(f"SELECT 1 AS a INTO i_{name}"), options)
        assert d.execute(f"SELECT a FROM i_{name}").fetchall() == [(1,)]
        # What is asked about a statement means the same under every search path: an operator of somebody else's is not called.
        d.execute(f"CREATE FUNCTION o_{name}(oid, int4) RETURNS bool LANGUAGE plpgsql AS $$BEGIN INSERT INTO {name} VALUES (2); RETURN true; END$$")
        d.execute(f"CREATE OPERATOR public.>= (LEFTARG = oid, RIGHTARG = int4, FUNCTION = o_{name})")
        with f.cursor() as cursor:
            cursor.execute("SELECT 1 AS one")
            assert cursor.fetchall() == [(1,)]
        assert d.execute(f"SELECT count(*) FROM {name} WHERE a = 2").fetchone() == (0,)
        d.execute(f"DROP FUNCTION o_{name}(oid, int4) CASCADE")
        # What goes wrong is told when it is executed.
        fails(lambda: plain.get_flight_info(statement(f"SELECT f_{name}() / 0"), options), "22012")
        # An answer that is larger than what may wait is given whole all the same.
        info = plain.get_flight_info(statement(f"SELECT repeat('x', 1000), f_{name}() FROM generate_series(1, 100000)"), options)
        assert plain.do_get(info.endpoints[0].ticket, options).read_all().num_rows == 100_000
        # What only reads may be read again.
        info = plain.get_flight_info(statement("SELECT id FROM samples WHERE id <= 3"), options)
        for _ in range(2):
            assert plain.do_get(info.endpoints[0].ticket, options).read_all().num_rows == 3
        d.execute(f"DROP TABLE {name}, i_{name} CASCADE; DROP VIEW v_{name}; DROP FUNCTION f_{name}(); DROP SEQUENCE s_{name}")


@check
def rows_are_ingested_into_both_stores():
    with flight() as f, direct() as d, f.cursor() as cursor:
        name = f"ingested_{os.getpid()}"
        data = pyarrow.table({
            "a": pyarrow.array([1, 2, None], pyarrow.int64()),
            "t": ["x\ty", "back\\slash", None],
            "ts": pyarrow.array([0, 1, None], pyarrow.timestamp("us", "UTC")),
            "l": [[1, 2], [], None],
            "n": pyarrow.array([decimal.Decimal("1.50"), None, None], pyarrow.decimal128(10, 2)),
        })
        assert cursor.adbc_ingest(name, data, mode="create") == 3
        fails(lambda: cursor.adbc_ingest(name, data, mode="create"), "42P07")
        assert cursor.adbc_ingest(name, data, mode="append") == 3
        assert d.execute(f"SELECT a, t, l, n FROM {name} LIMIT 2").fetchall() \
            == [(1, "x\ty", [1, 2], decimal.Decimal("1.50")), (2, "back\\slash", [], None)]
        assert cursor.adbc_ingest(name, data, mode="replace") == 3
        assert d.execute(f"SELECT count(*) FROM {name}").fetchone() == (3,)
        d.execute(f"DROP TABLE {name}")
        now = datetime.datetime(2024, 3, 20, tzinfo=datetime.timezone.utc)
        journal = pyarrow.table({"ts": pyarrow.array([now] * 500, pyarrow.timestamp("us", "UTC")), "who": ["flight"] * 500, "n": list(range(500))})
        assert cursor.adbc_ingest("journal", journal, mode="append") == 500
        assert one(f, "SELECT count(*) FROM journal WHERE who = 'flight'") == 500
        # A row that does not fit takes all with it.
        bad = pyarrow.table({"who": ["flight too", None]})
        fails(lambda: cursor.adbc_ingest("journal", bad, mode="append"), "23502")
        assert one(f, "SELECT count(*) FROM journal WHERE who = 'flight too'") == 0


@check
def the_catalog():
    with flight() as f:
        objects = f.adbc_get_objects(depth="all", db_schema_filter="public").read_all().to_pylist()
        tables = {t["table_name"]: t for c in objects for s in c["catalog_db_schemas"] for t in s["db_schema_tables"]}
        assert {"samples", "kinds", "notes", "sample_kinds"} <= set(tables), sorted(tables)
        assert tables["sample_kinds"]["table_type"] == "VIEW"
        columns = {c["column_name"] for c in tables["samples"]["table_columns"]}
        assert {"ts", "id", "n", "u"} <= columns, columns
        schema = f.adbc_get_table_schema("samples", db_schema_filter="public")
        assert schema.field("n").type == pyarrow.decimal128(12, 3), schema
        assert "TABLE" in f.adbc_get_table_types()
        info = f.adbc_get_info()
        assert info["vendor_name"] == "Watershed", info


@check
def keys_of_tables():
    from doors import command, field
    plain, options = client()
    for name, body, columns in [
        ("CommandGetPrimaryKeys", field(3, b"kinds"), {"column_name": ["kind"], "key_sequence": [1]}),
        ("CommandGetExportedKeys", field(3, b"kinds"), {"fk_table_name": ["notes"], "delete_rule": [0]}),
        ("CommandGetImportedKeys", field(3, b"notes"), {"pk_table_name": ["kinds"], "pk_column_name": ["kind"]}),
        ("CommandGetCrossReference", field(3, b"kinds") + field(6, b"notes"), {"fk_column_name": ["kind"]}),
    ]:
        info = plain.get_flight_info(pyarrow.flight.FlightDescriptor.for_command(command(name, body)), options)
        got = plain.do_get(info.endpoints[0].ticket, options).read_all().to_pydict()
        for column, values in columns.items():
            assert got[column] == values, f"{name}: {got}"
        assert pyarrow.schema(info.schema) is not None
    info = plain.get_flight_info(pyarrow.flight.FlightDescriptor.for_command(command("CommandGetXdbcTypeInfo", b"")), options)
    types = plain.do_get(info.endpoints[0].ticket, options).read_all().to_pydict()
    assert {"int8", "numeric", "text"} <= set(types["type_name"]), types


@check
def logins_are_postgres_own():
    fails(lambda: flight(password="wrong"), "28P01")
    fails(lambda: flight(user="nobody"), "28P01")
    plain = pyarrow.flight.FlightClient(URL.replace("grpc://", "grpc+tcp://"))
    fails(lambda: plain.get_flight_info(statement("SELECT 1")), "28000")
    wrong = pyarrow.flight.FlightCallOptions(headers=[(b"authorization", b"Bearer nothing")])
    fails(lambda: plain.get_flight_info(statement("SELECT 1"), wrong), "28000")


@check
def privileges_and_settings_are_the_sessions():
    with flight() as f, flight() as other:
        rows(f, "SET watershed.route = 'postgres'")
        assert one(f, "SHOW watershed.route") == "postgres"
        assert one(other, "SHOW watershed.route") != "postgres"
        assert one(f, "SELECT current_user") == USER


@check
def options_of_the_session():
    plain, options = client()
    assert set_option(plain, options, "application_name", "flown") == b""
    def value(sql):
        info = plain.get_flight_info(statement(sql), options)
        return plain.do_get(info.endpoints[0].ticket, options).read_all().column(0)[0].as_py()
    assert value("SHOW application_name") == "flown"
    assert set_option(plain, options, "no_such_setting", "1") != b""
    # The gateway's own settings hold from the next statement on.
    assert set_option(plain, options, "watershed.route", "lake") == b""
    assert value("SELECT id FROM samples WHERE id > 998 AND id < 1000") == 999
    assert set_option(plain, options, "watershed.route", "auto") == b""
    assert value("SELECT route FROM watershed.queries WHERE sql LIKE '%id > 998%' AND protocol = 'flight' ORDER BY id DESC LIMIT 1") == "lake"
    assert set_option(plain, options, "flight.compression", "rubbish") != b""
    assert set_option(plain, options, "schema", "pg_catalog") == b""
    assert value("SELECT current_schema()") == "pg_catalog"
    got = b"".join(r.body.to_pybytes() for r in plain.do_action(pyarrow.flight.Action("GetSessionOptions", b""), options))
    assert b"flown" in got and b"flight.tickets" in got
    list(plain.do_action(pyarrow.flight.Action("CloseSession", b""), options))
    fails(lambda: plain.get_flight_info(statement("SELECT 1"), options), "28000")


@check
def compression():
    for name in ["lz4", "zstd", "none"]:
        plain, options = client()
        assert set_option(plain, options, "flight.compression", name) == b""
        info = plain.get_flight_info(statement("SELECT id, t FROM samples ORDER BY id"), options)
        got = plain.do_get(info.endpoints[0].ticket, options).read_all()
        assert got.column("id").to_pylist() == list(range(1, 1001)), name


@check
def a_large_answer_in_parts():
    sql = "SELECT a, ts FROM heavy"
    for parallel in [True, False]:
        plain, options = client()
        assert set_option(plain, options, "flight.tickets", "4") == b""
        assert len(plain.get_flight_info(statement(sql + " ORDER BY a"), options).endpoints) == 1
        info = plain.get_flight_info(statement(sql), options)
        assert len(info.endpoints) == 4
        parts = [None] * 4

        def read(n):
            parts[n] = plain.do_get(info.endpoints[n].ticket, options).read_all()

        threads = [threading.Thread(target=read, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
            if not parallel:
                thread.join()
        for thread in threads:
            thread.join()
        whole = pyarrow.concat_tables(parts)
        assert sorted(whole.column("a").to_pylist()) == list(range(1, 200_001)), (parallel, [p.num_rows for p in parts])


@check
def statements_can_be_cancelled():
    with flight() as f:
        with f.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(30)")
            began = time.monotonic()
            threading.Timer(0.5, cursor.adbc_cancel).start()
            try:
                cursor.fetchall()
                raise AssertionError("not cancelled")
            except Exception as error:
                assert not isinstance(error, AssertionError), error
            assert time.monotonic() - began < 10
        assert one(f, "SELECT 1") == 1
        # A stream that is dropped stops its statement, and the session goes on.
        plain, options = client()
        info = plain.get_flight_info(statement("SELECT generate_series(1, 3000000), repeat('x', 1000)"), options)
        reader = plain.do_get(info.endpoints[0].ticket, options)
        reader.read_chunk()
        reader.cancel()
        began = time.monotonic()
        info = plain.get_flight_info(statement("SELECT 1"), options)
        assert plain.do_get(info.endpoints[0].ticket, options).read_all().num_rows == 1
        assert time.monotonic() - began < 10
        # CancelFlightInfo, while nobody reads on.
        info = plain.get_flight_info(statement("SELECT generate_series(1, 100000000)"), options)
        reader = plain.do_get(info.endpoints[0].ticket, options)
        reader.read_chunk()
        from doors import field
        body = field(1, info.serialize())
        list(plain.do_action(pyarrow.flight.Action("CancelFlightInfo", body), options))

        def rest():
            for _ in reader:
                pass

        fails(rest, "57014")


@check
def a_call_that_is_given_up_stops_its_work():
    plain, _ = client()
    header = plain.authenticate_basic_token(USER, PASSWORD)
    options = pyarrow.flight.FlightCallOptions(headers=[header])
    hasty = pyarrow.flight.FlightCallOptions(timeout=1.0, headers=[header])
    with flight() as f, direct() as d, f.cursor() as cursor:
        name = f"given_up_{os.getpid()}"
        d.execute(f"CREATE TABLE {name} (a int)")
        body = f"BEGIN PERFORM pg_sleep(600); INSERT INTO {name} VALUES (1); RETURN 1; END"
        d.execute(f"CREATE FUNCTION slow_{name}() RETURNS int LANGUAGE plpgsql AS '{body}'")

        def at_work():
            sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE %s AND pid <> pg_backend_pid()"
            return d.execute(sql, [f"%slow_{name}%"]).fetchone()[0]

        def until(work):
            began = time.monotonic()
            while at_work() != work:
                assert time.monotonic() - began < 120, f"{at_work()} at work instead of {work}"
                time.sleep(0.05)

        def is_alive_and_commits(n):
            update(plain, options, f"INSERT INTO {name} VALUES ({n})")
            assert d.execute(f"SELECT a FROM {name}").fetchall() == [(n,)], n
            d.execute(f"DELETE FROM {name}")

        # By a deadline,
        for n, sql in enumerate([f"SELECT slow_{name}()", f"INSERT INTO {name} SELECT slow_{name}()", f"DO 'BEGIN PERFORM slow_{name}(); END'"]):
            fails(lambda: plain.get_flight_info(statement(sql), hasty), None)
            until(0)
            is_alive_and_commits(n)
            fails(lambda: update(plain, hasty, sql), None)
            until(0)
            is_alive_and_commits(n)
        # by hand, while the driver executes,
        failed = []

        def execute():
            try:
                cursor.execute(f"SELECT slow_{name}()")
            except Exception as error:
                failed.append(error)

        thread = threading.Thread(target=execute)
        thread.start()
        until(1)
        cursor.adbc_cancel()
        thread.join()
        until(0)
        assert failed
        assert one(f, "SELECT 1") == 1
        # and of an ingestion whose rows never end: nothing of it stays, and no transaction that would hold what comes next.
        descriptor = pyarrow.flight.FlightDescriptor.for_command(command("CommandStatementIngest", field(2, name.encode())))
        batch = pyarrow.record_batch({"a": pyarrow.array([7, 8], pyarrow.int32())})
        writer, _ = plain.do_put(descriptor, batch.schema, hasty)
        writer.write_batch(batch)
        while True:
            try:
                time.sleep(0.05)
                writer.write_batch(batch)
            except Exception:
                break
        is_alive_and_commits(9)
        # Parameters that never end are none.
        prepare = field(1, f"INSERT INTO {name} VALUES ($1)".encode())
        handle = act(plain, options, "CreatePreparedStatement", "ActionCreatePreparedStatementRequest", prepare)[1]
        for n in range(5):
            descriptor = pyarrow.flight.FlightDescriptor.for_command(command("CommandPreparedStatementUpdate", field(1, handle)))
            short = pyarrow.flight.FlightCallOptions(timeout=0.3, headers=[header])
            writer, _ = plain.do_put(descriptor, batch.schema, short)
            while True:
                try:
                    time.sleep(0.01)
                    writer.write_batch(batch)
                except Exception:
                    break
            is_alive_and_commits(n)
        # What waits for the session and is given up is never begun.
        held = os.getpid()
        d.execute("SELECT pg_advisory_lock(%s)", [held])
        waits = f"DO 'BEGIN PERFORM pg_advisory_xact_lock({held}); END -- slow_{name}'"
        thread = threading.Thread(target=lambda: update(plain, options, waits))
        thread.start()
        until(1)
        fails(lambda: update(plain, hasty, f"INSERT INTO {name} VALUES (10)"), None)
        fails(lambda: act(plain, hasty, "BeginTransaction", "ActionBeginTransactionRequest", b""), None)
        d.execute("SELECT pg_advisory_unlock(%s)", [held])
        thread.join()
        is_alive_and_commits(11)
        # What names no transaction is not lost in one that somebody forgot.
        transaction = act(plain, options, "BeginTransaction", "ActionBeginTransactionRequest", b"")[1]
        fails(lambda: update(plain, options, f"INSERT INTO {name} VALUES (12)"), "25001")
        act(plain, options, "EndTransaction", "ActionEndTransactionRequest", field(1, transaction) + b"\x10\x01")
        act(plain, options, "BeginTransaction", "ActionBeginTransactionRequest", b"")
        update(plain, options, "ROLLBACK")
        is_alive_and_commits(13)
        assert d.execute(f"SELECT count(*) FROM {name}").fetchone() == (0,)
        d.execute(f"DROP TABLE {name}; DROP FUNCTION slow_{name}()")


@check
def batches_that_give_more_than_they_take():
    with flight() as f, direct() as d, f.cursor() as cursor:
        name = f"giving_{os.getpid()}"
        d.execute(f"CREATE TABLE {name} (a int, t text)")
        d.execute(f"CREATE FUNCTION n_{name}() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE NOTICE '%', repeat('n', 5000); RETURN NEW; END$$")
        d.execute(f"CREATE TRIGGER n BEFORE INSERT ON {name} FOR EACH ROW EXECUTE FUNCTION n_{name}()")
        batch = pyarrow.record_batch({"a": pyarrow.array(range(512), pyarrow.int32()), "t": ["y" * 20_000] * 512})
        cursor.executemany(f"INSERT INTO {name} VALUES (?, ?) RETURNING repeat(t, 10)", batch)
        cursor.adbc_ingest(name, pyarrow.Table.from_batches([batch] * 4), mode="append")
        assert d.execute(f"SELECT count(*), sum(length(t)) FROM {name}").fetchone() == (2560, 2560 * 20_000)
        d.execute(f"DROP TABLE {name}; DROP FUNCTION n_{name}()")


@check
def two_results_of_one_session_at_a_time():
    with flight() as f, f.cursor() as first, f.cursor() as second:
        first.execute("SELECT g FROM generate_series(1, 100000) g")
        assert first.fetchone() == (1,)
        second.execute("SELECT 2")
        assert second.fetchall() == [(2,)]
        assert len(first.fetchall()) == 99_999


@check
def schemas_without_executing():
    from doors import command, field
    plain, options = client()
    with direct() as d:
        d.execute("CREATE TABLE IF NOT EXISTS asked (a int)")
        descriptor = pyarrow.flight.FlightDescriptor.for_command(command("CommandStatementQuery", field(1, b"INSERT INTO asked VALUES (1) RETURNING a")))
        assert plain.get_schema(descriptor, options).schema.names == ["a"]
        assert d.execute("SELECT count(*) FROM asked").fetchone() == (0,)
        d.execute("DROP TABLE asked")


wanted = sys.argv[1:]
for function in CHECKS:
    if wanted and function.__name__ not in wanted:
        continue
    began = time.monotonic()
    function()
    print(f"{function.__name__}: {time.monotonic() - began:.2f} s", flush=True)
print("done")
