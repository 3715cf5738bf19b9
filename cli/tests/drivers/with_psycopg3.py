"""psycopg 3: the contract, pipelines, server cursors, binary results and parameters, COPY, prepared statements."""

import threading

import psycopg
from psycopg import sql as compose
from psycopg.rows import dict_row

from contract import HEAVY, KEY, MARK, percent, say, statements

OWN = f"SELECT count(*) AS {MARK}, sum(n), min(note) FROM journal WHERE who = %s"
JOURNAL = "INSERT INTO journal (who, n, note) VALUES (%s, %s, %s)"


def connect(**settings):
    return psycopg.connect("", **settings)


def error(name, conn, query, *parameters, **settings):
    try:
        conn.execute(query, *parameters, **settings)
        say(name, "no error")
    except psycopg.Error as e:
        d = e.diag
        say(name, type(e).__name__, e.sqlstate, d.severity, d.message_primary, d.message_detail, d.message_hint,
            d.statement_position, d.table_name, d.column_name, d.constraint_name, conn.info.transaction_status.name)


def rows(name, cursor):
    say(name, cursor.statusmessage, cursor.rowcount, [(c.name, c.type_code, c.internal_size, c.precision, c.scale) for c in cursor.description])
    for row in cursor:
        say(name, row)


def all_statements(label, conn, binary=False, prepare=None):
    for name, sql, values in statements():
        rows(f"{label} {name}", conn.execute(percent(sql), values, binary=binary, prepare=prepare))


with connect(autocommit=True) as conn:
    all_statements("text", conn)
    all_statements("binary", conn, binary=True)
    all_statements("prepared", conn, prepare=True)
    all_statements("prepared binary", conn, binary=True, prepare=True)

    # Switches to a named statement at the fifth execution; DDL in between.
    conn.prepare_threshold = 5
    for n in range(8):
        rows(f"threshold {n}", conn.execute(f"SELECT kind, count(*) AS {MARK}, max(ts) FROM samples WHERE id < %s GROUP BY kind ORDER BY kind", [100 * n]))
    conn.execute("CREATE TEMP TABLE changing (a int4)")
    for n in range(8):
        rows(f"changing {n}", conn.execute("SELECT * FROM changing", prepare=True))
        if n == 5:
            conn.execute("ALTER TABLE changing ADD b text")
            error("changed", conn, "SELECT * FROM changing", prepare=True)
            conn.execute("DEALLOCATE ALL")
            conn._prepared.clear()

    # The client's own cursor, which puts values into the text, as a simple Query.
    with psycopg.ClientCursor(conn) as cur:
        for name, sql, values in statements():
            rows(f"client {name}", cur.execute(percent(sql), values))
    with psycopg.RawCursor(conn) as cur:
        rows("raw", cur.execute(f"SELECT count(*) AS {MARK} FROM samples WHERE id < $1 AND kind = $2", [500, "kind 3"]))

# Transactions.
with connect() as conn:
    conn.execute(OWN, [KEY])
    say("status", conn.info.transaction_status.name)
    conn.cursor().executemany(JOURNAL, [(KEY, n, f"note {n}") for n in range(3)])
    rows("own rows", conn.execute(OWN, [KEY]))
    with conn.transaction():
        conn.execute(JOURNAL, (KEY, 10, "a note"))
        rows("in a savepoint", conn.execute(OWN, [KEY]))
    try:
        with conn.transaction():
            conn.execute(JOURNAL, (KEY, 100, "no note"))
            rows("before its rollback", conn.execute(OWN, [KEY]))
            raise KeyError
    except KeyError:
        rows("after its rollback", conn.execute(OWN, [KEY]))
    conn.commit()
    rows("committed", conn.execute(OWN, [KEY]))
    conn.execute(JOURNAL, (KEY, 1000, "gone"))
    conn.rollback()
    rows("rolled back", conn.execute(OWN, [KEY]))
    error("in a transaction", conn, "SELECT count(*) FROM samples WHERE nothing = 1")
    error("aborted", conn, OWN, [KEY])
    conn.rollback()
    rows("after the rollback", conn.execute(OWN, [KEY]))
    conn.rollback()
    for level in psycopg.IsolationLevel:
        conn.isolation_level = level
        conn.read_only = True
        rows(f"{level.name}", conn.execute(f"SELECT count(*), current_setting('transaction_isolation') FROM samples"))
        error("read only", conn, JOURNAL, (KEY, 1, "x"))
        conn.rollback()
    conn.isolation_level = conn.read_only = None

# Errors, and going on after them.
with connect(autocommit=True) as conn:
    conn.execute("CREATE TEMP TABLE own (id int PRIMARY KEY, t text NOT NULL CHECK (t <> ''))")
    conn.execute("INSERT INTO own VALUES (1, 'x')")
    for label, settings in [("text", {}), ("binary", {"binary": True}), ("prepared", {"prepare": True})]:
        error(f"{label} syntax", conn, "SELECT count(*) FORM samples", **settings)
        error(f"{label} column", conn, "SELECT kind, nothing, count(*) FROM samples GROUP BY 1", **settings)
        error(f"{label} table", conn, "SELECT count(*) FROM nothing_there", **settings)
        error(f"{label} group", conn, "SELECT kind, id, count(*) FROM samples GROUP BY kind", **settings)
        error(f"{label} zero", conn, "SELECT sum(1 / (i4 - i4)) FROM samples", **settings)
        error(f"{label} overflow", conn, "SELECT sum(i4 * 1000000) FROM samples", **settings)
        error(f"{label} cast", conn, "SELECT count(*) FROM samples WHERE d = %s::text::date", ["never"], **settings)
        error(f"{label} unique", conn, "INSERT INTO own VALUES (1, 'y')", **settings)
        error(f"{label} check", conn, "INSERT INTO own VALUES (2, '')", **settings)
        error(f"{label} null", conn, "INSERT INTO journal (who, n) VALUES (NULL, 1)", **settings)
        error(f"{label} update", conn, "UPDATE journal SET n = 1", **settings)
        rows(f"{label} going on", conn.execute(f"SELECT count(*) AS {MARK} FROM samples", **settings))

    # Notices.
    notices = []
    conn.add_notice_handler(lambda d: notices.append((d.severity, d.sqlstate, d.message_primary, d.message_hint)))
    conn.execute("DO $$ BEGIN RAISE NOTICE 'seen' USING HINT = 'look'; RAISE WARNING 'warned'; END $$")
    conn.execute("DROP TABLE IF EXISTS nothing_there")
    conn.execute("SELECT count(*) FROM samples")
    conn.execute("COMMIT")
    say("notices", notices)


def cancelled(name, query, cancel):
    """Cancels until the statement has ended: the first request may come before it runs."""
    with connect(autocommit=True) as conn:
        ended = threading.Event()

        def canceller():
            while not ended.wait(0.5):
                cancel(conn)

        thread = threading.Thread(target=canceller)
        thread.start()
        try:
            conn.execute(query)
            say(name, "no error")
        except psycopg.Error as e:
            say(name, type(e).__name__, e.sqlstate, e.diag.message_primary)
        ended.set()
        thread.join()
        # A request may still be on its way.
        try:
            conn.execute("SELECT pg_sleep(0.2)")
        except psycopg.errors.QueryCanceled:
            pass
        rows(f"{name}, going on", conn.execute(f"SELECT count(*) AS {MARK} FROM samples"))


cancelled("cancelled in PostgreSQL", "SELECT pg_sleep(300)", lambda c: c.cancel_safe())
cancelled("cancelled in the lake", HEAVY, lambda c: c.cancel_safe())
cancelled("cancelled by PQcancel", HEAVY, lambda c: c.cancel())
with connect(autocommit=True) as conn:
    conn.execute("SET statement_timeout = 1000")
    error("timeout", conn, HEAVY)
    conn.execute("SET statement_timeout = 0")
    rows("after the timeout", conn.execute(f"SELECT count(*) AS {MARK} FROM samples"))

# Pipelines.
with connect(autocommit=True) as conn:
    with conn.pipeline() as pipeline:
        cursors = [(name, conn.execute(percent(sql), values)) for name, sql, values in statements()]
        pipeline.sync()
        for name, cur in cursors:
            rows(f"pipeline {name}", cur)
        a = conn.execute(f"SELECT count(*) AS {MARK} FROM samples")
        # Late enough that its error does not arrive before the next statement is on its way, which would raise it.
        b = conn.execute("SELECT 1 / length(pg_sleep(2)::text)")
        c = conn.execute("SELECT count(*) FROM logs")
        try:
            pipeline.sync()
        except psycopg.Error as e:
            say("pipeline error", e.sqlstate, e.diag.message_primary)
        rows("before the error", a)
        say("the error", b.statusmessage)
        try:
            c.fetchall()
        except psycopg.Error as e:
            say("pipeline aborted", type(e).__name__)
        pipeline.sync()
        d = conn.execute(f"SELECT count(*) AS {MARK} FROM logs")
        say("after the error", d.fetchone())
with connect() as conn:
    with conn.pipeline():
        conn.cursor().executemany(JOURNAL, [(KEY, n, f"pipelined {n}") for n in range(20)])
        say("own rows of a pipeline", conn.execute(OWN, [KEY]).fetchone())
        with conn.transaction():
            conn.execute(JOURNAL, (KEY, 7, "nested"))
            say("nested in a pipeline", conn.execute(OWN, [KEY]).fetchone())
    conn.rollback()
    cur = conn.cursor()
    cur.executemany("SELECT count(*) FROM samples WHERE id < %s", [(n,) for n in (10, 20, 30)], returning=True)
    while True:
        rows("each of many", cur)
        if not cur.nextset():
            break

    # Server cursors.
    with conn.cursor("plain_cursor") as cur:
        cur.itersize = 7
        rows("server cursor", cur.execute("SELECT id, kind, n FROM samples WHERE id < %s ORDER BY id", [40]))
    with conn.cursor("scrolling", scrollable=True, binary=True) as cur:
        cur.execute("SELECT kind, count(*) FROM samples GROUP BY kind ORDER BY kind")
        say("scrolling", cur.fetchone(), cur.fetchmany(2))
        cur.scroll(-2)
        say("scrolled back", cur.fetchone())
        cur.scroll(0, mode="absolute")
        say("from the start", cur.fetchall())
    with conn.cursor("held", withhold=True) as cur:
        cur.execute("SELECT level, count(*) FROM logs GROUP BY level ORDER BY level")
        conn.commit()
        say("held", cur.fetchall())
    conn.commit()

    # Rows as they come, without a cursor on the server.
    for row in conn.cursor(row_factory=dict_row).stream(f"SELECT kind, count(*) AS {MARK} FROM samples GROUP BY kind ORDER BY kind"):
        say("streamed", row)
    conn.commit()

    # COPY.
    cur = conn.cursor()
    cur.execute("CREATE TEMP TABLE copied (id int8, t text, u uuid, by bytea, ts timestamptz)")
    with cur.copy("COPY (SELECT id, t, u, by, ts FROM samples WHERE id <= 200 ORDER BY id) TO STDOUT") as copy:
        text = b"".join(copy)
    say("copied out", len(text), text[:2000])
    with cur.copy("COPY copied FROM STDIN") as copy:
        copy.write(text)
    say("copied in", cur.statusmessage, cur.rowcount)
    with cur.copy("COPY (SELECT id, t, u, by, ts FROM samples WHERE id <= 200 ORDER BY id) TO STDOUT (FORMAT binary)") as copy:
        binary = b"".join(bytes(part) for part in copy)
    say("copied out in binary", len(binary), binary[:400])
    with cur.copy("COPY copied FROM STDIN (FORMAT binary)") as copy:
        copy.write(binary)
    say("copied in in binary", cur.statusmessage)
    rows("copied", cur.execute("SELECT count(*), count(DISTINCT id), count(t), count(by) FROM copied"))
    with cur.copy("COPY journal (who, n, note) FROM STDIN") as copy:
        for n in range(50):
            copy.write_row((KEY, n, None if n % 3 else f"row {n}"))
    say("copied into a tiered table", cur.statusmessage)
    rows("own copied rows", cur.execute(OWN, [KEY]))
    try:
        with cur.copy("COPY journal (who, n) FROM STDIN") as copy:
            copy.write("x\tno number\n")
    except psycopg.Error as e:
        say("COPY refused", e.sqlstate, e.diag.message_primary, e.diag.context)
    conn.rollback()
    try:
        with cur.copy("COPY journal (who, n) FROM STDIN") as copy:
            copy.write_row((KEY, 1))
            raise KeyError("on purpose")
    except KeyError:
        say("COPY given up", conn.info.transaction_status.name)
    conn.rollback()
    rows("after COPY", conn.execute(OWN, [KEY]))
    conn.commit()

# LISTEN and NOTIFY, on an idle connection and behind a statement of the lake.
with connect(autocommit=True) as conn, connect(autocommit=True) as other:
    conn.execute(compose.SQL("LISTEN {}").format(compose.Identifier(KEY)))
    other.execute("SELECT pg_notify(%s, 'first')", [KEY])
    for n in conn.notifies(timeout=60, stop_after=1):
        say("notified", n.channel, n.payload, n.pid == other.info.backend_pid)
    other.execute("SELECT pg_notify(%s, 'second')", [KEY])
    rows("with a notification", conn.execute(f"SELECT count(*) AS {MARK} FROM samples"))
    for n in conn.notifies(timeout=60, stop_after=1):
        say("notified", n.channel, n.payload, n.pid == other.info.backend_pid)

# Types of the server's catalogs, and two phases.
with connect() as conn:
    info = psycopg.types.TypeInfo.fetch(conn, "mood")
    say("type", info.name, info.array_oid > 0)
    info = psycopg.types.enum.EnumInfo.fetch(conn, "mood")
    say("enum", info.name, info.labels)
    psycopg.types.enum.register_enum(info, conn)
    rows("enum", conn.execute("SELECT feeling, tags FROM kinds ORDER BY rank"))
    conn.rollback()
    xid = conn.xid(1, KEY, "psycopg")
    conn.tpc_begin(xid)
    conn.execute(JOURNAL, (KEY, 5, "two phases"))
    rows("two phases", conn.execute(OWN, [KEY]))
    conn.tpc_prepare()
    conn.tpc_commit()
    rows("two phases committed", conn.execute(OWN, [KEY]))
print("done")
