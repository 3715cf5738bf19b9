"""psycopg2: the contract by simple queries, named cursors, execute_values, COPY, notifications, two phases."""

import io
import select
import threading

import psycopg2
import psycopg2.errors
import psycopg2.extensions
import psycopg2.extras

from contract import HEAVY, KEY, MARK, percent, say, statements

psycopg2.extras.register_uuid()
OWN = f"SELECT count(*) AS {MARK}, sum(n), min(note) FROM journal WHERE who = %s"
JOURNAL = "INSERT INTO journal (who, n, note) VALUES (%s, %s, %s)"


def connect(autocommit=False):
    conn = psycopg2.connect("")
    conn.autocommit = autocommit
    return conn


def ask(name, cur, sql, values=None):
    cur.execute(sql, values)
    say(name, cur.statusmessage, cur.rowcount, [tuple(c) for c in cur.description])
    for row in cur:
        say(name, row)


def error(name, conn, sql, values=None):
    try:
        conn.cursor().execute(sql, values)
        say(name, "no error")
    except psycopg2.Error as e:
        d = e.diag
        say(name, type(e).__name__, e.pgcode, e.pgerror, d.message_detail, d.message_hint, d.statement_position,
            d.table_name, d.constraint_name, conn.get_transaction_status())


# Every statement in a transaction, since this driver sends BEGIN first; then without.
for autocommit in (False, True):
    conn = connect(autocommit)
    for name, sql, values in statements():
        ask(f"{autocommit} {name}", conn.cursor(), percent(sql), values)
    conn.close()

conn = connect()
cur = conn.cursor()
ask("nothing yet", cur, OWN, [KEY])
psycopg2.extras.execute_values(cur, "INSERT INTO journal (who, n, note) VALUES %s", [(KEY, n, f"note {n}") for n in range(250)], page_size=100)
say("execute_values", cur.statusmessage, cur.rowcount)
ask("own rows", cur, OWN, [KEY])
say("returning", psycopg2.extras.execute_values(cur, "INSERT INTO journal (who, n) VALUES %s RETURNING n, note", [(KEY, n) for n in range(3)], fetch=True))
psycopg2.extras.execute_batch(cur, JOURNAL, [(KEY, n, "in a batch") for n in range(30)], page_size=7)
ask("own batch", cur, OWN, [KEY])
cur.execute("SAVEPOINT a")
cur.execute(JOURNAL, (KEY, 1, "a"))
ask("in a savepoint", cur, OWN, [KEY])
cur.execute("ROLLBACK TO a")
ask("after its rollback", cur, OWN, [KEY])
conn.commit()
ask("committed", cur, OWN, [KEY])
cur.execute(JOURNAL, (KEY, 1000, "gone"))
conn.rollback()
ask("rolled back", cur, OWN, [KEY])
error("in a transaction", conn, "SELECT count(*) FROM samples WHERE nothing = 1")
error("aborted", conn, OWN, [KEY])
conn.rollback()

# Named cursors.
with conn.cursor("named") as named:
    named.itersize = 9
    named.execute("SELECT id, ts, kind, t, n FROM samples WHERE id < %s ORDER BY id", [50])
    for row in named:
        say("named", row)
    say("named", [c.name for c in named.description])
with conn.cursor("scrolling", scrollable=True) as named:
    named.execute("SELECT kind, count(*), sum(n) FROM samples GROUP BY kind ORDER BY kind")
    say("scrolling", named.fetchone(), named.fetchmany(3))
    named.scroll(-3)
    say("scrolled back", named.fetchall())
with conn.cursor("held", withhold=True) as named:
    named.execute("SELECT level, count(*) FROM logs GROUP BY level ORDER BY level")
    conn.commit()
    say("held", named.fetchall())
conn.commit()

# COPY.
out = io.StringIO()
cur.copy_expert("COPY (SELECT id, t, n, by FROM samples WHERE id <= 150 ORDER BY id) TO STDOUT WITH CSV HEADER", out)
say("copied out", len(out.getvalue()), out.getvalue()[:1500])
cur.execute("CREATE TEMP TABLE copied (id int8, t text, n numeric, by bytea)")
out.seek(0)
cur.copy_expert("COPY copied FROM STDIN WITH CSV HEADER", out)
ask("copied in", cur, "SELECT count(*), sum(n) FROM copied")
cur.copy_from(io.StringIO("".join(f"{KEY}\t{n}\n" for n in range(40))), "journal", columns=("who", "n"))
say("copied into a tiered table", cur.rowcount)
ask("own copied rows", cur, OWN, [KEY])
conn.rollback()

# Several statements in one Query, and rows as dictionaries.
auto = connect(True)
with auto.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as rows:
    rows.execute(f"SELECT 1; SELECT kind, count(*) AS rows FROM samples GROUP BY kind ORDER BY kind")
    say("several", rows.fetchall())
    rows.execute(f"SELECT service, count(*) AS {MARK} FROM logs GROUP BY service ORDER BY service")
    say("dictionaries", rows.fetchall())
with auto.cursor() as c:
    c.execute("CREATE TEMP TABLE own (id int PRIMARY KEY)")
    c.execute("INSERT INTO own VALUES (1)")
error("syntax", auto, "SELECT count(*) FORM samples")
error("column", auto, "SELECT nothing, count(*) FROM samples GROUP BY 1")
error("zero", auto, "SELECT sum(1 / (i4 - i4)) FROM samples")
error("cast", auto, "SELECT count(*) FROM samples WHERE d = %s", ["never"])
error("unique", auto, "INSERT INTO own VALUES (1)")
error("update", auto, "DELETE FROM journal")
ask("going on", auto.cursor(), f"SELECT count(*) AS {MARK} FROM samples")
auto.cursor().execute("DO $$ BEGIN RAISE NOTICE 'seen'; END $$")
say("notices", auto.notices)
for level in (psycopg2.extensions.ISOLATION_LEVEL_REPEATABLE_READ, psycopg2.extensions.ISOLATION_LEVEL_SERIALIZABLE):
    own = connect()
    own.set_session(isolation_level=level, readonly=True)
    ask(f"isolation {level}", own.cursor(), "SELECT current_setting('transaction_isolation'), count(*) FROM samples")
    error("read only", own, JOURNAL, (KEY, 1, "x"))
    own.close()


def cancelled(name, sql):
    conn = connect(True)
    ended = threading.Event()

    def canceller():
        while not ended.wait(0.5):
            conn.cancel()

    thread = threading.Thread(target=canceller)
    thread.start()
    error(name, conn, sql)
    ended.set()
    thread.join()
    try:
        conn.cursor().execute("SELECT pg_sleep(0.2)")
    except psycopg2.errors.QueryCanceled:
        pass
    ask(f"{name}, going on", conn.cursor(), f"SELECT count(*) AS {MARK} FROM samples")
    conn.close()


cancelled("cancelled in PostgreSQL", "SELECT pg_sleep(300)")
cancelled("cancelled in the lake", HEAVY)

# Notifications.
auto.cursor().execute(f'LISTEN "{KEY}"')
other = connect(True)
for payload in ("first", "second"):
    other.cursor().execute("SELECT pg_notify(%s, %s)", [KEY, payload])
    while not auto.notifies:
        select.select([auto], [], [], 60)
        auto.poll()
    n = auto.notifies.pop(0)
    say("notified", n.channel, n.payload, n.pid == other.info.backend_pid)
    ask("and a statement", auto.cursor(), f"SELECT count(*) AS {MARK} FROM samples")

# An asynchronous connection.
wait = psycopg2.extras.wait_select
later = psycopg2.connect("", async_=1)
wait(later)
c = later.cursor()
for name, sql, values in statements():
    c.execute(percent(sql), values)
    wait(later)
    say(f"asynchronous {name}", c.fetchall())
later.close()

# Two phases.
two = connect()
xid = two.xid(2, KEY, "psycopg2")
two.tpc_begin(xid)
two.cursor().execute(JOURNAL, (KEY, 5, "two phases"))
ask("two phases", two.cursor(), OWN, [KEY])
two.tpc_prepare()
two.tpc_rollback()
ask("two phases undone", two.cursor(), OWN, [KEY])
print("done")
