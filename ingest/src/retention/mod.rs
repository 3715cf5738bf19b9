//! Retention: which days leave PostgreSQL, which leave the lake, and when. Knows both stores and their fence; knows no source, no client
//! and no query.
//!
//! A day leaves PostgreSQL in one transaction:
//!
//! 1. the table is locked as a reader locks it, and both stores are compared: every row of the day that the boundary of the newest lake
//!    version sees must be in that version ([`compare`]). Rows once written stay as they are, so the answer keeps;
//! 2. `watershed_control.raise_floor` takes the table alone for a moment, under a short lock timeout and again after a while if it does
//!    not get it: it raises `floor` and `min_archive`, drops the day, and moves the tripwire. Rows that the boundary does not see are
//!    kept among the late ones.
//!
//! Some seconds before, the floor to come is announced, so that no gateway counts on PostgreSQL for those rows when they go. Late rows,
//! those that arrive below the floor, stand in a part of their own; once archived they are found in the lake, row for row, and deleted.
//!
//! A day leaves the lake by the lake's floor: one number in PostgreSQL below which no reader of either store shows a row. It passes only
//! days that PostgreSQL has dropped before; the compactor removes the files.
//!
//! [`plan`] decides what is to be done, without I/O. Where the disk is nearly full, days leave PostgreSQL before their time.

mod compare;
mod plan;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use lake::Url;
use lake::log::LakeTable;
use lake::spec::{PRESENT, TableSpec, load_specs};
use lake::{crash, types};
use sqlx::postgres::types::Oid;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};
use tokio_util::sync::CancellationToken;

use crate::archiver::{Error, Result, boundary_of, chosen, connect, jittered, xid_column};
use crate::metrics;
use crate::pressure::{Lookout, Watched};

pub use plan::{Facts, Step, plan};

/// What retention needs to know.
#[derive(Clone)]
pub struct Config {
    /// URL of the database as role `watershed_archiver`.
    pub database_url: String,
    /// The directory that holds the lake tables.
    pub lake_root: Url,
    /// Between two looks at the tables.
    pub interval: Duration,
    /// How long a floor is announced before it comes into force: longer than gateways take to notice.
    pub notice: Duration,
    /// How long a statement may wait behind the lock that dropping a day needs.
    pub lock_timeout: Duration,
    /// The disk that is watched; `None`: none is.
    pub watched: Option<(Watched, crate::pressure::Config)>,
    /// Days before today that stay in PostgreSQL whatever the disk says.
    pub keep_days: i32,
}

impl Config {
    /// The defaults: a look a minute, ten seconds of notice, no disk watched.
    pub fn new(database_url: impl Into<String>, lake_root: Url) -> Self {
        Self {
            database_url: database_url.into(),
            lake_root,
            interval: Duration::from_secs(60),
            notice: Duration::from_secs(10),
            lock_timeout: Duration::from_millis(500),
            watched: None,
            keep_days: 3,
        }
    }
}

impl std::fmt::Debug for Config {
    // The URL holds a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("interval", &self.interval).field("keep_days", &self.keep_days).finish_non_exhaustive()
    }
}

/// What was, or would be, done to one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// `schema.table`.
    pub table: String,
    pub hot_days: Option<i32>,
    pub lake_days: Option<i32>,
    /// Floors before, `YYYY-MM-DD`.
    pub floor: Option<String>,
    pub lake_floor: Option<String>,
    pub steps: Vec<Taken>,
}

/// One step, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// In words for a person.
    pub what: String,
    pub why: String,
    pub outcome: Outcome,
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is only planned.
    Planned,
    /// So many rows left PostgreSQL, or were found in the lake and dropped with their day.
    Done { rows: u64 },
    /// It cannot be taken now, for this reason; steps behind it wait.
    Blocked(String),
}

/// A lock that was not to be had is asked for again so often in one look.
const LOCK_TRIES: u32 = 12;
/// Rows of a dropped day that are not archived yet and move to the late ones: beyond this the archiver comes first.
const MOVE_AT_MOST: i64 = 50_000;

/// How long a step waits for older transactions to end.
const SETTLE_PATIENCE: Duration = Duration::from_secs(20);

/// How long a one-shot run waits for another look at the table to end.
const LEAD_PATIENCE: Duration = Duration::from_secs(120);

const LOCK: &str = "SELECT pg_try_advisory_lock(hashtext('watershed/retention')::int, $1::oid::int)";

/// Keeps every table's windows until `shutdown`. What goes wrong with one table is logged once and tried again at the next look.
pub async fn run(cfg: Config, shutdown: CancellationToken) -> Result<()> {
    describe();
    let mut said: HashMap<String, String> = HashMap::new();
    let mut lookout = lookout(&cfg)?;
    while !shutdown.is_cancelled() {
        let mut pause = cfg.interval;
        tokio::select! {
            () = shutdown.cancelled() => break,
            // What a stop cuts short leaves what a crash leaves: each step is one transaction.
            looked = look(&cfg, None, false, false, lookout.as_mut(), &mut said) => match looked {
                // Under pressure a day at a time leaves, and then the disk is measured again.
                Ok(reports) if reports.iter().any(pressed_and_done) => pause = cfg.interval.min(Duration::from_secs(1)),
                Ok(_) => drop(said.remove("")),
                Err(error) => once(&mut said, "", &error.to_string(), "retention could not look at the tables; it will try again"),
            },
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(jittered(pause)) => {}
        }
    }
    Ok(())
}

/// Looks at every tiered table, or the one named (`schema.table`, or `table` if that is unambiguous), once: says what would be done, and
/// does it unless `only_plan`.
///
/// Errors: what kept a table from being looked at; a step that cannot be taken is no error: see [`Outcome::Blocked`].
pub async fn retain(cfg: Config, table: Option<&str>, only_plan: bool) -> Result<Vec<Report>> {
    let mut lookout = lookout(&cfg)?;
    look(&cfg, table, only_plan, true, lookout.as_mut(), &mut HashMap::new()).await
}

fn lookout(cfg: &Config) -> Result<Option<Lookout>> {
    match &cfg.watched {
        Some((watched, marks)) => {
            let probes = watched.probes().map_err(|e| Error::Internal(e.to_string()))?;
            Ok(Some(Lookout::new(marks.clone(), probes)))
        }
        None => Ok(None),
    }
}

fn describe() {
    metrics::describe("watershed_floor_seconds", "The time from which on PostgreSQL holds every row, in Unix time.");
    metrics::describe("watershed_lake_floor_seconds", "The time before which rows are gone from both stores, in Unix time.");
    metrics::describe("watershed_retention_days_total", "Days that left PostgreSQL.");
    metrics::describe("watershed_retention_pressed_days_total", "Of these, how many left early because the disk was nearly full.");
    metrics::describe("watershed_retention_late_rows_total", "Late rows that left PostgreSQL after they were archived.");
    metrics::describe("watershed_retention_blocked", "1 while a step of retention cannot be taken.");
}

fn pressed_and_done(report: &Report) -> bool {
    report.steps.iter().any(|s| s.why.starts_with(PRESSED) && matches!(s.outcome, Outcome::Done { .. }))
}

/// How the reason of a day begins that leaves because of the disk.
const PRESSED: &str = "early: ";

fn once(said: &mut HashMap<String, String>, table: &str, text: &str, message: &'static str) {
    if said.get(table).is_none_or(|before| before != text) {
        tracing::warn!(table, reason = text, "{message}");
        said.insert(table.to_owned(), text.to_owned());
    }
}

async fn look(
    cfg: &Config,
    table: Option<&str>,
    only_plan: bool,
    waits: bool,
    lookout: Option<&mut Lookout>,
    said: &mut HashMap<String, String>,
) -> Result<Vec<Report>> {
    let specs = chosen(&cfg.database_url, table).await?;
    let mut conn = connect(&cfg.database_url).await?;
    let pressed = match lookout {
        Some(lookout) => lookout.pressed().await.map(|why| format!("{PRESSED}{why}")),
        None => None,
    };
    let mut reports = Vec::with_capacity(specs.len());
    let mut failed = None;
    for spec in &specs {
        // Leads as long as the connection lives; somebody else's look is as good as ours.
        let since = Instant::now();
        let mut leads = only_plan;
        while !leads {
            leads = sqlx::query_scalar(LOCK).bind(Oid(spec.relid)).fetch_one(&mut conn).await?;
            if leads || !waits {
                break;
            }
            if since.elapsed() > LEAD_PATIENCE {
                return Err(Error::Busy(spec.qualified()));
            }
            tokio::time::sleep(jittered(Duration::from_millis(200))).await;
        }
        if !leads {
            continue;
        }
        match attend(cfg, &mut conn, spec, pressed.clone(), only_plan).await {
            Ok(report) => {
                tell(&mut conn, spec, &report, only_plan, said).await?;
                reports.push(report);
            }
            // One table's trouble is not another's.
            Err(error) if table.is_none() && !only_plan => {
                once(said, &spec.qualified(), &error.to_string(), "retention failed; it will be tried again");
                failed = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    conn.close().await?;
    match failed {
        Some(error) if reports.is_empty() => Err(error),
        _ => Ok(reports),
    }
}

/// Log, metrics and `watershed.tables`.
async fn tell(
    conn: &mut PgConnection,
    spec: &TableSpec,
    report: &Report,
    only_plan: bool,
    said: &mut HashMap<String, String>,
) -> Result<()> {
    if only_plan {
        return Ok(());
    }
    let table = spec.qualified();
    let labels = [("table", table.as_str())];
    let blocked = report.steps.iter().find_map(|s| match &s.outcome {
        Outcome::Blocked(why) => Some(format!("{}: {why}", s.what)),
        _ => None,
    });
    for step in &report.steps {
        if let Outcome::Done { rows } = step.outcome {
            tracing::info!(table, step = step.what, reason = step.why, rows, "retention");
        }
    }
    metrics::gauge("watershed_retention_blocked", &labels).set(if blocked.is_some() { 1.0 } else { 0.0 });
    match &blocked {
        Some(why) => once(said, &table, why, "retention waits"),
        None => drop(said.remove(&table)),
    }
    conn.execute(sqlx::query("SELECT watershed_control.note_retention($1, $2)").bind(Oid(spec.relid)).bind(blocked)).await?;
    let floors = sqlx::query(
        "SELECT CASE WHEN isfinite(floor) THEN EXTRACT(epoch FROM floor)::float8 END, CASE WHEN isfinite(lake_floor) THEN EXTRACT(epoch FROM lake_floor)::float8 END
         FROM watershed_control.tables WHERE relid = $1",
    )
    .bind(Oid(spec.relid))
    .fetch_optional(conn)
    .await?;
    if let Some(floors) = floors {
        for (i, name) in ["watershed_floor_seconds", "watershed_lake_floor_seconds"].into_iter().enumerate() {
            if let Some(value) = floors.try_get::<Option<f64>, _>(i)? {
                metrics::gauge(name, &labels).set(value);
            }
        }
    }
    Ok(())
}

fn day_of(us: i64) -> i32 {
    types::partition_day(us)
}

/// One look at one table.
async fn attend(
    cfg: &Config,
    conn: &mut PgConnection,
    spec: &TableSpec,
    pressed: Option<String>,
    only_plan: bool,
) -> Result<Report> {
    let mut lake = LakeTable::open(&cfg.lake_root, spec).await?;
    let facts = facts(cfg, conn, spec, lake.as_ref(), pressed).await?;
    let today: i32 = sqlx::query_scalar("SELECT (now() AT TIME ZONE 'UTC')::date - date '1970-01-01'")
        .fetch_one(&mut *conn)
        .await?;
    let steps = plan(&facts, today);
    let mut report = Report {
        table: spec.qualified(),
        hot_days: facts.hot_days,
        lake_days: facts.lake_days,
        floor: facts.floor.map(types::day_text),
        lake_floor: facts.lake_floor.map(types::day_text),
        steps: Vec::with_capacity(steps.len()),
    };
    let last = steps.iter().rev().find_map(|s| match s {
        Step::RaiseFloor { to, .. } => Some(*to),
        _ => None,
    });
    if !only_plan {
        announce(cfg, conn, spec, last).await?;
    }
    for step in steps {
        let (what, why) = in_words(&facts, &step);
        let outcome = if only_plan {
            Outcome::Planned
        } else {
            match take(cfg, spec, &mut lake, &step).await {
                // The table changed under the comparison: the next look makes another.
                Err(Error::Postgres(sqlx::Error::Database(e))) if e.code().as_deref() == Some("40001") => {
                    Outcome::Blocked(e.message().to_owned())
                }
                other => other?,
            }
        };
        let stop = matches!(outcome, Outcome::Blocked(_));
        count(&spec.qualified(), &step, &why, &outcome);
        report.steps.push(Taken { what, why, outcome });
        if stop {
            break;
        }
    }
    Ok(report)
}

fn count(table: &str, step: &Step, why: &str, outcome: &Outcome) {
    let Outcome::Done { rows } = outcome else { return };
    let labels = [("table", table)];
    match step {
        Step::RaiseFloor { .. } => {
            metrics::counter("watershed_retention_days_total", &labels).inc();
            if why.starts_with(PRESSED) {
                metrics::counter("watershed_retention_pressed_days_total", &labels).inc();
            }
        }
        Step::ForgetLate | Step::DropExpired => metrics::counter("watershed_retention_late_rows_total", &labels).add(*rows),
        Step::RaiseLakeFloor { .. } => {}
    }
}

fn in_words(facts: &Facts, step: &Step) -> (String, String) {
    match step {
        Step::RaiseFloor { to, reason } if *to == facts.first_day && facts.floor.is_none() => {
            (format!("drop the rows before {} from PostgreSQL", types::day_text(*to)), reason.clone())
        }
        Step::RaiseFloor { to, reason } => (format!("drop {} from PostgreSQL", types::day_text(to - 1)), reason.clone()),
        Step::RaiseLakeFloor { to, reason } => (format!("end the rows before {} for good", types::day_text(*to)), reason.clone()),
        Step::ForgetLate => ("drop late rows from PostgreSQL".into(), "they came below the floor and are archived".into()),
        Step::DropExpired => ("drop late rows from PostgreSQL".into(), "they came below the lake's floor".into()),
    }
}

async fn facts(
    cfg: &Config,
    conn: &mut PgConnection,
    spec: &TableSpec,
    lake: Option<&LakeTable>,
    pressed: Option<String>,
) -> Result<Facts> {
    let row = sqlx::query(
        "SELECT t.hot_days, t.lake_days, t.first_day - date '1970-01-01' AS first_day,
                (SELECT max(p.day) - date '1970-01-01' FROM watershed_control.partitions p WHERE p.relid = t.relid) AS last_day
         FROM watershed_control.tables t WHERE t.relid = $1",
    )
    .bind(Oid(spec.relid))
    .fetch_optional(&mut *conn)
    .await?
    .ok_or_else(|| Error::UnknownTable(spec.qualified()))?;
    let first_day: i32 = row.try_get("first_day")?;
    let version = lake.map(LakeTable::current);
    let (floor, lake_floor) = (spec.floor_us.map(day_of), spec.lake_floor_us.map(day_of));
    let mut facts = Facts {
        first_day,
        last_day: row.try_get::<Option<i32>, _>("last_day")?.unwrap_or(first_day),
        floor,
        lake_floor,
        hot_days: row.try_get("hot_days")?,
        lake_days: row.try_get("lake_days")?,
        oldest: version.as_ref().and_then(|v| v.files.iter().map(|f| f.day).min()),
        pressed,
        keep_days: cfg.keep_days,
        ..Facts::default()
    };
    if let (Some(floor), Some(version)) = (floor, &version)
        && version.archive >= spec.min_archive.max(1)
    {
        let boundary = boundary_of(conn, spec, version.archive).await?;
        let beyond = boundary.tail_predicate(&xid_column(spec)?);
        let archived = format!("NOT {beyond} AND {}", compare::range(spec, lake_floor, floor)?);
        facts.late_archived = any(conn, spec, &archived).await?;
    }
    if let Some(lake_floor) = lake_floor {
        facts.late_expired = any(conn, spec, &compare::range(spec, None, lake_floor)?).await?;
    }
    Ok(facts)
}

async fn any(conn: &mut PgConnection, spec: &TableSpec, condition: &str) -> Result<bool> {
    let sql = format!("SELECT EXISTS (SELECT 1 FROM {} t WHERE {condition} AND {PRESENT})", spec.sql_name());
    Ok(sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(conn).await?)
}

/// Says the floor to come, and waits until everybody has heard. Takes back what was said if nothing comes of it.
async fn announce(cfg: &Config, conn: &mut PgConnection, spec: &TableSpec, to: Option<i32>) -> Result<()> {
    let day = to.map(types::day_text);
    let news = sqlx::query("SELECT watershed_control.warn_floor($1, $2::date), warned < coalesce($2::date, '-infinity')::timestamptz AS news FROM watershed_control.tables WHERE relid = $1")
        .bind(Oid(spec.relid))
        .bind(day)
        .fetch_optional(conn)
        .await?;
    if let Some(row) = news
        && row.try_get::<Option<bool>, _>("news")?.unwrap_or(false)
    {
        tokio::time::sleep(cfg.notice).await;
    }
    Ok(())
}

/// Takes one step, in a transaction and on a connection of its own.
async fn take(cfg: &Config, spec: &TableSpec, lake: &mut Option<LakeTable>, step: &Step) -> Result<Outcome> {
    let Some(table) = lake else {
        return Ok(Outcome::Blocked("nothing was archived yet".into()));
    };
    let version = table.refresh().await?;
    let mut conn = connect(&cfg.database_url).await?;
    conn.execute("BEGIN").await?;
    let lock = format!("LOCK TABLE {} IN ACCESS SHARE MODE", spec.sql_name());
    conn.execute(AssertSqlSafe(lock)).await?;
    let Some(spec) = load_specs(&mut conn).await?.into_iter().find(|s| s.relid == spec.relid && s.qualified() == spec.qualified())
    else {
        return Err(Error::UnknownTable(spec.qualified()));
    };
    if let Step::RaiseLakeFloor { .. } | Step::DropExpired = step {
        let day = match step {
            Step::RaiseLakeFloor { to, .. } => Some(types::day_text(*to)),
            _ => None,
        };
        if let Some(why) = settle(&mut conn, true).await? {
            return Ok(Outcome::Blocked(why));
        }
        let rows: i64 = sqlx::query_scalar("SELECT watershed_control.raise_lake_floor($1, $2::date)")
            .bind(Oid(spec.relid))
            .bind(day)
            .fetch_one(&mut conn)
            .await?;
        crash::point("retention.lake_floor");
        conn.execute("COMMIT").await?;
        return Ok(Outcome::Done { rows: rows.unsigned_abs() });
    }
    if version.archive < spec.min_archive.max(1) {
        return Ok(Outcome::Blocked("the lake has nothing that PostgreSQL may let go".into()));
    }
    let boundary = boundary_of(&mut conn, &spec, version.archive).await?;
    let lake = compare::Lake { table: &*table, version: &version, boundary: &boundary };
    let floor: String = sqlx::query_scalar("SELECT floor::text FROM watershed_control.tables WHERE relid = $1")
        .bind(Oid(spec.relid))
        .fetch_one(&mut conn)
        .await?;
    let outcome = match step {
        Step::RaiseFloor { to, reason } => raise(cfg, &mut conn, &spec, &lake, &floor, *to, reason).await?,
        _ => {
            let (from, to) = (spec.lake_floor_us.map(day_of), spec.floor_us.map_or(types::FIRST_DAY, day_of));
            match compare::late(&mut conn, &spec, &lake, from, to).await? {
                Err(why) => Outcome::Blocked(why),
                Ok(_) => match settle(&mut conn, true).await? {
                    Some(why) => Outcome::Blocked(why),
                    None => {
                        let rows: i64 = sqlx::query_scalar("SELECT watershed_control.forget_late($1, $2, $3, $4, $5::timestamptz)")
                            .bind(Oid(spec.relid))
                            .bind(version.archive)
                            .bind(boundary.to_string())
                            .bind(spec.schema_epoch)
                            .bind(&floor)
                            .fetch_one(&mut conn)
                            .await?;
                        Outcome::Done { rows: rows.unsigned_abs() }
                    }
                },
            }
        }
    };
    crash::point("retention.before_commit");
    conn.execute("COMMIT").await?;
    crash::point("retention.committed");
    conn.close().await?;
    Ok(outcome)
}

/// Where the door to cold rows is open: waits until no transaction runs that is older than this one, so that every snapshot taken after
/// its commit is known to see it. Without that the door would refuse its statements for as long as the older one runs. Gives what is still
/// running if it takes too long, and `must` says that it matters.
async fn settle(conn: &mut PgConnection, must: bool) -> Result<Option<String>> {
    let opened: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM watershed_control.cold_door)").fetch_one(&mut *conn).await?;
    if !opened {
        return Ok(None);
    }
    let since = Instant::now();
    loop {
        let oldest: bool = sqlx::query_scalar("SELECT pg_current_xact_id() <= pg_snapshot_xmin(pg_current_snapshot())").fetch_one(&mut *conn).await?;
        if oldest {
            return Ok(None);
        }
        if since.elapsed() >= SETTLE_PATIENCE {
            return Ok(must.then(|| "a transaction that has written is open for long, and the door to cold rows would be shut until it ends".into()));
        }
        tokio::time::sleep(jittered(Duration::from_millis(50))).await;
    }
}

/// Compares what goes, then takes the table alone for a moment.
async fn raise(
    cfg: &Config,
    conn: &mut PgConnection,
    spec: &TableSpec,
    lake: &compare::Lake<'_>,
    floor: &str,
    to: i32,
    reason: &str,
) -> Result<Outcome> {
    let from = spec.floor_us.map(day_of);
    let range = compare::range(spec, from, to)?;
    if let Some(why) = unsent(conn, spec, &range).await? {
        return Ok(Outcome::Blocked(why));
    }
    let beyond = lake.boundary.tail_predicate(&xid_column(spec)?);
    let sql = format!(
        "SELECT count(*) FROM (SELECT 1 FROM {} t WHERE {range} AND {beyond} AND {PRESENT} LIMIT {}) waiting",
        spec.sql_name(),
        MOVE_AT_MOST + 1
    );
    let waiting: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut *conn).await?;
    if waiting > MOVE_AT_MOST {
        return Ok(Outcome::Blocked(format!("more than {MOVE_AT_MOST} of its rows are not archived yet")));
    }
    let rows = match compare::days(conn, spec, lake, from, to).await? {
        Ok(rows) => rows,
        Err(why) => return Ok(Outcome::Blocked(why)),
    };
    // With the days go the late rows that the boundary sees: each row is either among the late ones or, from the floor down, the lake's.
    if let Some(floor) = from
        && let Err(why) = compare::late(conn, spec, lake, spec.lake_floor_us.map(day_of), floor).await?
    {
        return Ok(Outcome::Blocked(why));
    }
    if let Some(why) = settle(conn, !reason.starts_with(PRESSED)).await? {
        return Ok(Outcome::Blocked(why));
    }
    crash::point("retention.compared");
    let mut wait = Duration::from_millis(100);
    for _ in 0..LOCK_TRIES {
        conn.execute("SAVEPOINT alone").await?;
        let timeout = format!("SET LOCAL lock_timeout = {}", cfg.lock_timeout.as_millis().max(1));
        conn.execute(AssertSqlSafe(timeout)).await?;
        let raised = sqlx::query_scalar::<_, i64>("SELECT watershed_control.raise_floor($1, $2::date, $3, $4, $5, $6::timestamptz, $7)")
            .bind(Oid(spec.relid))
            .bind(types::day_text(to))
            .bind(lake.version.archive)
            .bind(lake.boundary.to_string())
            .bind(spec.schema_epoch)
            .bind(floor)
            .bind(reason)
            .fetch_one(&mut *conn)
            .await;
        match raised {
            Ok(moved) => {
                if moved > 0 {
                    tracing::debug!(table = spec.qualified(), moved, "rows that are not archived yet stay among the late ones");
                }
                return Ok(Outcome::Done { rows });
            }
            // Somebody reads or writes for long: nobody waits behind us meanwhile.
            Err(sqlx::Error::Database(e)) if matches!(e.code().as_deref(), Some("55P03" | "40P01")) => {
                conn.execute("ROLLBACK TO SAVEPOINT alone").await?;
                tokio::time::sleep(jittered(wait)).await;
                wait = (wait * 2).min(Duration::from_secs(3));
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(Outcome::Blocked("the table was in use all the time; a long transaction holds it".into()))
}

/// Whether a forward has yet to send rows of these days.
async fn unsent(conn: &mut PgConnection, spec: &TableSpec, range: &str) -> Result<Option<String>> {
    let forwards: Vec<(String, String)> =
        sqlx::query_as("SELECT name, boundary FROM watershed_control.forwards WHERE relid = $1 ORDER BY name")
            .bind(Oid(spec.relid))
            .fetch_all(&mut *conn)
            .await?;
    for (name, boundary) in forwards {
        let boundary: lake::boundary::Boundary = boundary.parse()?;
        let beyond = boundary.tail_predicate(&xid_column(spec)?);
        if any(conn, spec, &format!("{range} AND {beyond}")).await? {
            return Ok(Some(format!(
                "forward {name} has not sent all of its rows (if it no longer runs, delete its row in watershed_control.forwards)"
            )));
        }
    }
    Ok(None)
}
