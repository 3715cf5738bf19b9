//! How both stores are, in figures and in words: what PostgreSQL alone can tell of tables, writers and sizes is asked every few seconds,
//! and what is wrong stands behind [`Health`] for `/healthz`, `/readyz` and `watershed_problem`. Knows no rows, and mends nothing.
//!
//! - [`judge`] is pure: readings and limits in, problems out.
//! - Sizes are asked less often than the rest: they cost a look at every file of a table.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sqlx::postgres::PgConnection;
use sqlx::Row;
use tokio_util::sync::CancellationToken;

use crate::archiver::session::pinned;
use crate::metrics::{self, Gauge};
use crate::pressure::{Pressure, State};
use crate::Result;

#[cfg(test)]
mod tests;

/// What is asked, how often, and from where on something is wrong.
#[derive(Debug, Clone)]
pub struct Config {
    /// PostgreSQL as role `watershed_archiver`.
    pub database_url: String,
    pub interval: Duration,
    /// Sizes are asked once in so many rounds.
    pub sizes_every: u32,
    /// A question that is not answered for this long is an answer.
    pub patience: Duration,
    pub limits: Limits,
}

impl Config {
    pub fn new(database_url: &str) -> Config {
        Config {
            database_url: database_url.to_owned(),
            interval: Duration::from_secs(15),
            sizes_every: 20,
            patience: Duration::from_secs(10),
            limits: Limits::default(),
        }
    }
}

/// From where on something is a problem.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// A transaction that writes for so long.
    pub writer: Duration,
    /// Rows that wait for the lake while nothing was shipped for so long; twice the archiver's interval at least.
    pub boundary: Duration,
    /// How far a partition is behind.
    pub lag: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { writer: Duration::from_secs(600), boundary: Duration::from_secs(1800), lag: Duration::from_secs(300) }
    }
}

/// What may be wrong: the closed set behind the label `problem`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Postgres,
    Disk,
    Lineage,
    Writer,
    Boundary,
    Lag,
    Retention,
}

impl Kind {
    pub const ALL: [Kind; 7] =
        [Kind::Postgres, Kind::Disk, Kind::Lineage, Kind::Writer, Kind::Boundary, Kind::Lag, Kind::Retention];

    /// As a label.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Postgres => "postgres",
            Kind::Disk => "disk",
            Kind::Lineage => "lineage",
            Kind::Writer => "long_writer",
            Kind::Boundary => "boundary",
            Kind::Lag => "lag",
            Kind::Retention => "retention",
        }
    }
}

/// One thing that is wrong, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub kind: Kind,
    pub what: String,
}

/// What is wrong at present. Cheap to clone; all clones say the same.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<Vec<Problem>>>);

impl Health {
    /// Everything that is wrong, in the order of its kinds.
    pub fn problems(&self) -> Vec<Problem> {
        self.0.lock().clone()
    }

    /// Sets what is wrong, and logs what is new.
    pub fn set(&self, problems: Vec<Problem>) {
        let before = std::mem::replace(&mut *self.0.lock(), problems.clone());
        for kind in Kind::ALL {
            let is = problems.iter().find(|p| p.kind == kind);
            metrics::gauge("watershed_problem", &[("problem", kind.name())]).set(f64::from(u8::from(is.is_some())));
            match (before.iter().any(|p| p.kind == kind), is) {
                (false, Some(problem)) => tracing::warn!(problem = kind.name(), "{}", problem.what),
                (true, None) => tracing::info!(problem = kind.name(), "no problem any more"),
                _ => {}
            }
        }
    }
}

/// What PostgreSQL says of a tiered table.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    pub name: String,
    /// The table's lineage is not the server's.
    pub other_lineage: bool,
    /// Since the last archive; None: there is none.
    pub boundary_age: Option<f64>,
    /// There are rows that the lake does not have.
    pub waits: bool,
    pub retention_note: Option<String>,
}

/// A Kafka partition's lag.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Partition {
    pub name: String,
    pub seconds: f64,
}

/// Everything that was read in one round.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Readings {
    pub tables: Vec<Table>,
    pub partitions: Vec<Partition>,
    /// For how long the oldest writing transaction has been seen, in seconds.
    pub writer: Option<f64>,
}

/// What is wrong, by kind.
pub fn judge(read: &std::result::Result<Readings, String>, pressure: &State, limits: &Limits) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut wrong = |kind, what: String| problems.push(Problem { kind, what });
    if let State::Closed { reason } = pressure {
        wrong(Kind::Disk, format!("nothing is taken in: {reason}"));
    }
    match read {
        Err(why) => wrong(Kind::Postgres, format!("PostgreSQL cannot be asked: {why}")),
        Ok(read) => {
            for table in read.tables.iter().filter(|t| t.other_lineage) {
                wrong(
                    Kind::Lineage,
                    format!(
                        "{}: the server is of another lineage than the table (a restore or a failover); its rows come from PostgreSQL alone \
                         until `watershed rebase` has run",
                        table.name
                    ),
                );
            }
            if let Some(seconds) = read.writer.filter(|s| *s > limits.writer.as_secs_f64()) {
                wrong(
                    Kind::Writer,
                    format!("a transaction has been writing for {seconds:.0} s: what it wrote stays out of the lake, and retention may wait for it"),
                );
            }
            for table in &read.tables {
                if let Some(age) = table.boundary_age.filter(|age| table.waits && *age > limits.boundary.as_secs_f64()) {
                    wrong(Kind::Boundary, format!("{}: rows wait, and nothing was shipped to the lake for {age:.0} s", table.name));
                }
            }
            for partition in read.partitions.iter().filter(|p| p.seconds > limits.lag.as_secs_f64()) {
                wrong(Kind::Lag, format!("{} is {:.0} s behind", partition.name, partition.seconds));
            }
            for table in &read.tables {
                if let Some(note) = &table.retention_note {
                    wrong(Kind::Retention, format!("{}: retention waits: {note}", table.name));
                }
            }
        }
    }
    problems.sort_by_key(|p| p.kind);
    problems
}

/// Asks and judges until `stop`. What cannot be asked is a problem and no error.
///
/// Errors: none at present.
pub async fn run(config: Config, health: Health, pressure: Pressure, stop: CancellationToken) -> Result<()> {
    for (name, help) in [
        ("watershed_problem", "1 while something of this kind is wrong; /healthz says what."),
        ("watershed_boundary_age_seconds", "Time since rows of a table were last shipped to the lake."),
        ("watershed_oldest_writer_seconds", "For how long the oldest writing transaction has been seen; 0 if there is none."),
        ("watershed_postgres_up", "1 if PostgreSQL answers."),
        ("watershed_postgres_database_bytes", "Size of the database."),
        ("watershed_postgres_table_bytes", "Size of a tiered table in PostgreSQL, indexes included."),
        ("watershed_postgres_connections", "Connections that PostgreSQL has, and may have."),
        ("watershed_lineage_changed", "1 while the server is of another lineage than a table."),
    ] {
        metrics::describe(name, help);
    }
    let mut asker = Asker { config: &config, conn: None, oldest: None, round: 0, known: Vec::new() };
    loop {
        let read = match tokio::time::timeout(config.patience, asker.ask()).await {
            Ok(read) => read.map_err(|e| e.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        };
        if read.is_err() {
            asker.conn = None;
        }
        metrics::gauge("watershed_postgres_up", &[]).set(f64::from(u8::from(read.is_ok())));
        health.set(judge(&read, &pressure.state(), &config.limits));
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(config.interval) => {}
        }
    }
}

struct Asker<'a> {
    config: &'a Config,
    conn: Option<PgConnection>,
    /// The oldest writing transaction, and since when it is known.
    oldest: Option<(String, Instant)>,
    round: u32,
    /// Tables that have series.
    known: Vec<String>,
}

impl Asker<'_> {
    async fn ask(&mut self) -> Result<Readings> {
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => pinned(&self.config.database_url, "watershed vitals").await?,
        };
        let mut read = Readings { tables: self.tables(&mut conn).await?, ..Readings::default() };
        read.partitions = partitions(&mut conn).await?;
        // Nobody's privileges are needed to see how far transactions have come: what stays is at work.
        let oldest: Option<String> = sqlx::query_scalar(
            "SELECT CASE WHEN pg_snapshot_xmin(s) <> pg_snapshot_xmax(s) THEN pg_snapshot_xmin(s)::text END FROM pg_current_snapshot() s",
        )
        .fetch_one(&mut conn)
        .await?;
        self.oldest = oldest.map(|xid| match self.oldest.take() {
            Some((known, since)) if known == xid => (known, since),
            _ => (xid, Instant::now()),
        });
        read.writer = self.oldest.as_ref().map(|(_, since)| since.elapsed().as_secs_f64());
        metrics::gauge("watershed_oldest_writer_seconds", &[]).set(read.writer.unwrap_or(0.0));
        if self.round % self.config.sizes_every.max(1) == 0 {
            sizes(&mut conn).await?;
        }
        self.round = self.round.wrapping_add(1);
        self.conn = Some(conn);
        Ok(read)
    }

    async fn tables(&mut self, conn: &mut PgConnection) -> Result<Vec<Table>> {
        let rows = sqlx::query(
            "SELECT format('%I.%I', t.schema_name, t.table_name) AS name, \
             t.lineage <> watershed_control.current_lineage() AS other_lineage, \
             extract(epoch FROM clock_timestamp() - a.created_at)::float8 AS age, t.retention_note \
             FROM watershed_control.tables t LEFT JOIN LATERAL ( \
               SELECT x.created_at FROM watershed_control.archives x WHERE x.relid = t.relid ORDER BY x.number DESC LIMIT 1) a ON true",
        )
        .fetch_all(conn)
        .await?;
        let mut tables = Vec::with_capacity(rows.len());
        for row in rows {
            let name: String = row.try_get("name")?;
            let waits = metrics::gauge("watershed_archiver_tail_rows", &[("table", &name)]).get() > 0.0;
            let table = Table {
                waits,
                other_lineage: row.try_get::<Option<bool>, _>("other_lineage")?.unwrap_or(false),
                boundary_age: row.try_get("age")?,
                retention_note: row.try_get("retention_note")?,
                name,
            };
            let of = |name| -> Gauge { metrics::gauge(name, &[("table", &table.name)]) };
            of("watershed_lineage_changed").set(f64::from(u8::from(table.other_lineage)));
            if let Some(age) = table.boundary_age {
                of("watershed_boundary_age_seconds").set(age);
            }
            tables.push(table);
        }
        for gone in self.known.iter().filter(|known| tables.iter().all(|t| t.name != **known)) {
            for name in ["watershed_lineage_changed", "watershed_boundary_age_seconds", "watershed_postgres_table_bytes"] {
                metrics::remove(name, &[("table", gone)]);
            }
        }
        self.known = tables.iter().map(|t| t.name.clone()).collect();
        Ok(tables)
    }
}

/// How far behind partitions are that somebody reads.
async fn partitions(conn: &mut PgConnection) -> Result<Vec<Partition>> {
    let rows = sqlx::query(
        "SELECT topic || '/' || partition || ' of ' || table_name AS name, lag_seconds::float8 AS seconds FROM watershed.streams \
         WHERE kind = 'kafka' AND ended_at IS NULL AND lag_records > 0 AND lag_seconds IS NOT NULL",
    )
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| Ok(Partition { name: row.try_get("name")?, seconds: row.try_get("seconds")? })).collect()
}

async fn sizes(conn: &mut PgConnection) -> Result<()> {
    let rows = sqlx::query("SELECT table_name, postgres_bytes FROM watershed.tables").fetch_all(&mut *conn).await?;
    for row in rows {
        let (table, bytes): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
        metrics::gauge("watershed_postgres_table_bytes", &[("table", &table)]).set(bytes as f64);
    }
    let row = sqlx::query(
        "SELECT pg_database_size(current_database()), (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'), \
         current_setting('max_connections')::bigint",
    )
    .fetch_one(conn)
    .await?;
    let (bytes, used, limit): (i64, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    metrics::gauge("watershed_postgres_database_bytes", &[]).set(bytes as f64);
    metrics::gauge("watershed_postgres_connections", &[("state", "used")]).set(used as f64);
    metrics::gauge("watershed_postgres_connections", &[("state", "limit")]).set(limit as f64);
    Ok(())
}
