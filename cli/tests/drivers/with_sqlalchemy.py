"""SQLAlchemy: reflection, the inspector, Core and its group by, over psycopg2, psycopg and asyncpg."""

import asyncio
import os

import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine

from contract import KEY, MARK, say


def url(driver):
    return URL.create(f"postgresql+{driver}", os.environ["PGUSER"], os.environ["PGPASSWORD"], os.environ["PGHOST"], int(os.environ["PGPORT"]), os.environ["PGDATABASE"])


def shown(value):
    if isinstance(value, dict):
        return sorted((k, repr(shown(v))) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return [shown(v) for v in value]
    return value if isinstance(value, (int, bool, type(None))) else str(value)


def browse(label, engine):
    """What tools on SQLAlchemy ask at first."""
    inspector = sa.inspect(engine)
    say(f"{label} names", inspector.get_schema_names(), sorted(inspector.get_table_names()), sorted(inspector.get_view_names()), inspector.default_schema_name)
    say(f"{label} version", engine.dialect.server_version_info)
    for table in ("samples", "journal", "kinds", "notes", "logs", "events", "sample_kinds"):
        for method in ("get_columns", "get_pk_constraint", "get_foreign_keys", "get_indexes", "get_unique_constraints", "get_check_constraints", "get_table_comment"):
            say(f"{label} {table} {method}", shown(getattr(inspector, method)(table)))
        say(f"{label} {table} exists", inspector.has_table(table))
    say(f"{label} enums", shown(inspector.get_enums()), shown(inspector.get_domains()))
    say(f"{label} definition", inspector.get_view_definition("sample_kinds"))
    say(f"{label} several", shown(inspector.get_multi_columns(filter_names=["kinds", "samples"])))


def reflected(engine):
    metadata = sa.MetaData()
    with engine.connect() as conn:
        metadata.reflect(conn, only=["samples", "journal", "kinds", "notes", "logs"], views=False)
    for table in metadata.sorted_tables:
        say("reflected", table.name, [(c.name, str(c.type), c.nullable, c.primary_key, str(c.server_default.arg) if isinstance(c.server_default, sa.DefaultClause) else None) for c in table.columns])
    return metadata.tables


def queries(label, conn, tables):
    samples, logs, kinds = tables["samples"], tables["logs"], tables["kinds"]
    f = sa.func
    selects = {
        "grouped": sa.select(samples.c.kind, f.count().label(MARK), f.sum(samples.c.n), f.avg(samples.c.i4)).where(samples.c.id < 700).group_by(samples.c.kind).order_by(samples.c.kind),
        "having": sa.select(logs.c.service, f.count().label(MARK)).where(logs.c.level.in_(["ERROR", "WARN"])).group_by(logs.c.service).having(f.count() > 10).order_by(logs.c.service),
        "counted": sa.select(f.count().label(MARK)).select_from(samples),
        "lookup": sa.select(samples).where(samples.c.id == 23),
        "limited": sa.select(samples.c.id, samples.c.t).order_by(samples.c.id.desc()).limit(5).offset(2),
        "days": sa.select(f.date_trunc("day", logs.c.ts), f.count()).group_by(sa.text("1")).order_by(sa.text("1")).limit(9),
        "joined": sa.select(kinds.c.rank, f.count()).join(samples, samples.c.kind == kinds.c.kind).group_by(kinds.c.rank).order_by(kinds.c.rank),
        "case": sa.select(f.sum(sa.case((samples.c.b.is_(True), 1), else_=0)).label(MARK)),
        "derived": sa.select(f.max(sa.column("c")).label(MARK)).select_from(sa.select(f.count().label("c")).select_from(logs).group_by(logs.c.host).subquery()),
        "hours": sa.select(f.date_trunc(sa.literal_column("'day'"), logs.c.ts).label("day"), f.count().label(MARK)).group_by(sa.text("1")).order_by(sa.text("1")).limit(9),
    }
    for name, select in selects.items():
        result = conn.execute(select)
        say(f"{label} {name}", list(result.keys()))
        for row in result:
            say(f"{label} {name}", row)


for driver in ("psycopg2", "psycopg"):
    engine = sa.create_engine(url(driver), pool_pre_ping=True)
    browse(driver, engine)
    tables = reflected(engine)
    journal = tables["journal"]
    own = sa.select(sa.func.count().label(MARK), sa.func.sum(journal.c.n)).where(journal.c.who == f"{KEY} {driver}")
    with engine.connect() as conn:
        queries(driver, conn, tables)
    with engine.begin() as conn:
        conn.execute(journal.insert(), [{"who": f"{KEY} {driver}", "n": n} for n in range(1500)])
        say("own rows", conn.execute(own).all())
        nested = conn.begin_nested()
        conn.execute(journal.insert().values(who=f"{KEY} {driver}", n=1))
        say("nested", conn.execute(own).all())
        nested.rollback()
        say("not nested", conn.execute(own).all())
        say("returning", conn.execute(journal.insert().values(who=f"{KEY} {driver}", n=9).returning(journal.c.n, journal.c.note)).all())
    with engine.connect() as conn:
        say("committed", conn.execute(own).all())
        try:
            conn.execute(sa.text("SELECT count(*) FROM samples WHERE nothing = :n"), {"n": 1})
        except sa.exc.DBAPIError as e:
            say("error", type(e).__name__, str(e.orig))
        conn.rollback()
        say("going on", conn.execute(own).all())
        conn.rollback()
        stream = conn.execution_options(stream_results=True, max_row_buffer=10).execute(sa.select(tables["samples"].c.id).where(tables["samples"].c.id < 60).order_by("id"))
        say("streamed", [row[0] for row in stream])
    for level in ("REPEATABLE READ", "SERIALIZABLE", "AUTOCOMMIT"):
        with engine.connect().execution_options(isolation_level=level) as conn:
            say(level, conn.execute(sa.select(sa.func.count()).select_from(tables["samples"])).all())
    engine.dispose()


async def asynchronous():
    engine = create_async_engine(url("asyncpg"))
    async with engine.connect() as conn:
        metadata = sa.MetaData()
        await conn.run_sync(metadata.reflect, only=["samples", "logs", "kinds"])
        await conn.run_sync(lambda c: queries("asyncpg", c, metadata.tables))
    await engine.dispose()


asyncio.run(asynchronous())
print("done")
