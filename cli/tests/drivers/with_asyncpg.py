"""asyncpg: the contract in binary, prepared statements, cursors, COPY, type introspection, notifications."""

import asyncio
import io

import asyncpg

from contract import HEAVY, KEY, MARK, say, statements

OWN = f"SELECT count(*) AS {MARK}, sum(n), min(note) FROM journal WHERE who = $1"
JOURNAL = "INSERT INTO journal (who, n, note) VALUES ($1, $2, $3)"


async def connect(**settings):
    return await asyncpg.connect(**settings)


def rows(name, records):
    for record in records:
        say(name, list(record.keys()), record)
    say(name, len(records))


async def error(name, awaitable):
    try:
        await awaitable
        say(name, "no error")
    except asyncpg.PostgresError as e:
        say(name, type(e).__name__, e.sqlstate, e.message, e.detail, e.hint, e.position, e.table_name, e.constraint_name)


async def cancelled(name, sql):
    conn = await connect()
    await conn.execute("SELECT 1")
    task = asyncio.ensure_future(conn.fetch(sql))
    # Until it is under way: what is cancelled is this task, and the driver sends the request.
    await asyncio.sleep(1)
    task.cancel()
    try:
        await task
        say(name, "no error")
    except asyncio.CancelledError:
        say(name, "cancelled")
    except asyncpg.PostgresError as e:
        say(name, e.sqlstate, e.message)
    rows(f"{name}, going on", await conn.fetch(f"SELECT count(*) AS {MARK} FROM samples"))
    await error(f"{name}, timeout of the driver", expired(conn, sql))
    rows(f"{name}, going on", await conn.fetch(f"SELECT count(*) AS {MARK} FROM samples"))
    await conn.close()


async def expired(conn, sql):
    try:
        await conn.fetch(sql, timeout=1)
    except asyncio.TimeoutError:
        say("expired")


async def main():
    conn = await connect()
    say("settings", [getattr(conn.get_settings(), n) for n in ("TimeZone", "DateStyle", "client_encoding", "server_version", "standard_conforming_strings", "is_superuser", "in_hot_standby")])
    for label in ("first", "again"):
        for name, sql, values in statements():
            rows(f"{label} {name}", await conn.fetch(sql, *values))
    for name, sql, values in statements():
        statement = await conn.prepare(sql)
        say(f"prepared {name}", statement.get_statusmsg(), [(a.name, a.type) for a in statement.get_attributes()], statement.get_parameters())
        for _ in range(3):
            rows(f"prepared {name}", await statement.fetch(*values))
    rows("text protocol", [])
    say("execute", await conn.execute(f"SELECT count(*) AS {MARK} FROM samples"), await conn.execute("SELECT 1; SELECT count(*) FROM logs"))
    uncached = await connect(statement_cache_size=0)
    for name, sql, values in statements():
        rows(f"unnamed {name}", await uncached.fetch(sql, *values))
    await uncached.close()

    # Transactions.
    async with conn.transaction():
        rows("nothing yet", await conn.fetch(OWN, KEY))
        await conn.executemany(JOURNAL, [(KEY, n, f"note {n}") for n in range(100)])
        rows("own rows", await conn.fetch(OWN, KEY))
        try:
            async with conn.transaction():
                await conn.execute(JOURNAL, KEY, 1, "a")
                rows("in a savepoint", await conn.fetch(OWN, KEY))
                raise KeyError
        except KeyError:
            rows("after its rollback", await conn.fetch(OWN, KEY))
    rows("committed", await conn.fetch(OWN, KEY))
    transaction = conn.transaction()
    await transaction.start()
    await conn.execute(JOURNAL, KEY, 1000, "gone")
    await error("in a transaction", conn.fetch("SELECT count(*) FROM samples WHERE nothing = 1"))
    await error("aborted", conn.fetch(OWN, KEY))
    await transaction.rollback()
    rows("rolled back", await conn.fetch(OWN, KEY))
    for level in ("repeatable_read", "serializable"):
        async with conn.transaction(isolation=level, readonly=True):
            rows(level, await conn.fetch("SELECT current_setting('transaction_isolation'), count(*) FROM samples"))
    async with conn.transaction(isolation="serializable", readonly=True, deferrable=True):
        rows("deferrable", await conn.fetch("SELECT count(*) FROM samples"))

    # Errors, and going on.
    await conn.execute("CREATE TEMP TABLE own (id int PRIMARY KEY)")
    await conn.execute("INSERT INTO own VALUES (1)")
    await error("syntax", conn.fetch("SELECT count(*) FORM samples"))
    await error("column", conn.fetch("SELECT nothing, count(*) FROM samples GROUP BY 1"))
    await error("zero", conn.fetch("SELECT sum(1 / (i4 - i4)) FROM samples"))
    await error("overflow", conn.fetch("SELECT sum(i4 * $1::int4) FROM samples", 1000000))
    await error("cast", conn.fetch("SELECT count(*) FROM samples WHERE d = $1::text::date", "never"))
    await error("unique", conn.execute("INSERT INTO own VALUES (1)"))
    await error("update", conn.execute("DELETE FROM journal"))
    rows("going on", await conn.fetch(f"SELECT count(*) AS {MARK} FROM samples"))

    # A statement that DDL has outdated is prepared again.
    await conn.execute("CREATE TEMP TABLE changing (a int4)")
    await conn.execute("INSERT INTO changing VALUES (1)")
    rows("before DDL", await conn.fetch("SELECT * FROM changing"))
    await conn.execute("ALTER TABLE changing ADD b text")
    rows("after DDL", await conn.fetch("SELECT * FROM changing"))

    # Cursors: portals with a limit of rows.
    async with conn.transaction():
        async for record in conn.cursor(f"SELECT kind, i4, count(*) AS {MARK} FROM samples WHERE id < $1 GROUP BY kind, i4 ORDER BY kind, i4", 60, prefetch=7):
            say("iterated", record)
        cursor = await conn.cursor(f"SELECT kind, count(*) AS {MARK} FROM samples GROUP BY kind ORDER BY kind")
        say("cursor", await cursor.fetchrow(), await cursor.fetch(2), await cursor.fetch(10))
        statement = await conn.prepare("SELECT id, t FROM samples WHERE id < $1 ORDER BY id")
        async for record in statement.cursor(20, prefetch=6):
            say("from PostgreSQL", record)
        statement = await conn.prepare(f"SELECT d, count(*) AS {MARK} FROM samples GROUP BY d ORDER BY d")
        one, other = await statement.cursor(), await conn.cursor("SELECT rank FROM kinds ORDER BY rank")
        say("two portals", await one.fetch(3), await other.fetch(2), await one.fetch(2), await other.fetch(9))

    # COPY.
    out = io.BytesIO()
    say("copied out", await conn.copy_from_query("SELECT id, t, u, by FROM samples WHERE id <= $1 ORDER BY id", 100, output=out, format="binary"))
    say("copied out", len(out.getvalue()), out.getvalue()[:300])
    out = io.BytesIO()
    say("copied table out", await conn.copy_from_table("kinds", output=out, columns=["kind", "rank"], format="csv", header=True), out.getvalue())
    async with conn.transaction():
        say("records in", await conn.copy_records_to_table("journal", records=[(KEY, n, None) for n in range(60)], columns=["who", "n", "note"]))
        rows("own copied rows", await conn.fetch(OWN, KEY))
        say("text in", await conn.copy_to_table("journal", source=io.BytesIO(f"{KEY}\t7\n".encode()), columns=["who", "n"]))
        rows("own copied rows", await conn.fetch(OWN, KEY))

    # Types that the driver has to ask for.
    rows("enum and arrays", await conn.fetch("SELECT kind, feeling, label, tags, price FROM kinds ORDER BY rank"))
    rows("composite", await conn.fetch("SELECT k FROM kinds k ORDER BY rank"))
    rows("arrays of a lake", await conn.fetch("SELECT array_agg(DISTINCT kind ORDER BY kind) FROM samples"))
    await conn.set_type_codec("mood", encoder=str, decoder=lambda text: text.upper(), schema="public")
    await conn.set_type_codec("jsonb", encoder=str, decoder=lambda text: ("json", text), schema="pg_catalog")
    rows("codec", await conn.fetch("SELECT feeling, '{\"a\": 1}'::jsonb FROM kinds ORDER BY rank"))
    rows("codec of an aggregate", await conn.fetch("SELECT device, count(*) FROM events GROUP BY device ORDER BY 2"))

    # Notifications.
    heard = asyncio.Queue()
    await conn.add_listener(KEY, lambda c, pid, channel, payload: heard.put_nowait((pid, channel, payload)))
    other = await connect()
    for payload in ("first", "second"):
        await other.execute("SELECT pg_notify($1, $2)", KEY, payload)
        pid, channel, text = await asyncio.wait_for(heard.get(), 60)
        say("notified", channel, text, pid == other.get_server_pid())
        rows("and a statement", await conn.fetch(f"SELECT count(*) AS {MARK} FROM samples"))
    await other.close()

    await cancelled("cancelled in PostgreSQL", "SELECT pg_sleep(60)")
    await cancelled("cancelled in the lake", HEAVY)

    # A pool resets its connections.
    async with asyncpg.create_pool(min_size=1, max_size=2) as pool:
        for n in range(4):
            async with pool.acquire() as pooled:
                rows(f"pooled {n}", await pooled.fetch(f"SELECT count(*) AS {MARK} FROM samples WHERE id < $1", 100 * n))
                await pooled.execute("SET search_path = nowhere")
    await conn.close()


asyncio.run(main())
print("done")
