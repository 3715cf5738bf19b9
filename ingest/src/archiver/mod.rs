//! The archiver: ships the tail of each tiered table to the lake. Knows PostgreSQL's snapshots and the lake's commits; knows no
//! source, no client and no query.
//!
//! One archive of a table, in order, each step resting on those before:
//!
//! 1. lead the table: an advisory lock, and a fence number that only grows ([`leader`]);
//! 2. lock the table (ACCESS SHARE), then take a snapshot A, in that order, on a connection of its own ([`session`]);
//! 3. compare lineages: the transaction numbers of the previous boundary must mean the same today;
//! 4. commit A under a new number, synchronously, on the leader's connection: that makes everything A saw durable;
//! 5. read what A sees and the previous boundary does not, ordered by event time, and write it by day ([`ship`]);
//! 6. commit files, number, fence and the position of each source stream, as A saw it, to the Delta log in one entry.
//!
//! A crash between any two steps leaves at most a number that is never used, and files that no log names.

mod error;
mod leader;
pub(crate) mod session;
mod ship;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures::StreamExt;
use lake::Url;
use lake::boundary::Boundary;
use lake::log::LakeTable;
use lake::spec::{PRESENT, TableSpec, load_specs};
use lake::writer::WriterOptions;
use sqlx::{Connection, PgConnection};
use tokio_util::sync::CancellationToken;

use crate::metrics;

pub use error::{Error, Result};
pub(crate) use leader::LOCK as ARCHIVER_LOCK;
pub(crate) use session::{boundary_of, chosen, connect, lock_and_snapshot, pinned, xid_column};
pub use ship::ArchiveReport;

/// What the archiver needs to know.
#[derive(Clone)]
pub struct Config {
    /// URL of the database as role `watershed_archiver`.
    pub database_url: String,
    /// The directory that holds the lake tables.
    pub lake_root: Url,
    /// How often the tails are looked at.
    pub poll: Duration,
    /// A tail is archived at the latest this long after the archive before,
    pub interval: Duration,
    /// or as soon as it has this many rows.
    pub min_rows: u64,
    /// A file ends at about this size,
    pub target_file_bytes: u64,
    /// or at this many rows.
    pub max_rows_per_file: u64,
    /// A checkpoint of the Delta log is written every so many versions.
    pub checkpoint_every: u64,
    /// Day partitions are kept this far ahead.
    pub days_ahead: i32,
    /// So many tables are archived at the same time.
    pub concurrency: usize,
    /// How the files are written.
    pub writer: WriterOptions,
}

impl Config {
    /// The defaults: large files seldom, since freshness comes from the tail.
    pub fn new(database_url: impl Into<String>, lake_root: Url) -> Self {
        Self {
            database_url: database_url.into(),
            lake_root,
            poll: Duration::from_secs(10),
            interval: Duration::from_secs(300),
            min_rows: 1_000_000,
            target_file_bytes: 256 << 20,
            max_rows_per_file: 8 << 20,
            checkpoint_every: 20,
            days_ahead: 15,
            concurrency: 2,
            // These files are merged soon, and compressed then for good.
            writer: WriterOptions { zstd_level: 1, ..WriterOptions::default() },
        }
    }
}

impl std::fmt::Debug for Config {
    // The URL holds a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("lake_root", &self.lake_root.as_str())
            .field("interval", &self.interval)
            .field("min_rows", &self.min_rows)
            .finish_non_exhaustive()
    }
}

/// How many times [`archive_now`] tries again after a transient error.
const TRIES: u32 = 5;
/// Days are made when fewer than this many are left.
const DAYS_LEFT: i32 = 7;
/// How often that is looked at.
const DAYS_EVERY: Duration = Duration::from_secs(3600);
/// A table whose archive fails is left alone for longer and longer, up to this.
const MAX_BACKOFF: Duration = Duration::from_secs(300);

/// Archives every tiered table, or the one named (`schema.table`, or `table` if that is unambiguous), now, whatever its tail's size.
/// Waits for an archive that is under way elsewhere.
///
/// Errors: the first table's that fails for good; tables before it are archived.
pub async fn archive_now(cfg: Config, table: Option<&str>) -> Result<Vec<ArchiveReport>> {
    let shutdown = CancellationToken::new();
    let chosen = retrying(|| chosen(&cfg.database_url, table)).await?;
    let mut reports = Vec::with_capacity(chosen.len());
    for spec in &chosen {
        reports.push(retrying(|| async { ship::archive(&cfg, spec, &mut None, leader::Wait::ForTurn, &shutdown).await }).await?);
    }
    Ok(reports)
}

/// Archives on a schedule until `shutdown`: looks at every table's tail, ships what is due, keeps day partitions ahead. Errors of a
/// table are logged once, and the table is tried again later; PostgreSQL or the lake being away ends nothing.
///
/// Cancel-safe in effect: an archive cut short leaves what a crash would leave.
pub async fn run(cfg: Config, shutdown: CancellationToken) -> Result<()> {
    let mut state = Upkeep::default();
    while !shutdown.is_cancelled() {
        if let Err(error) = state.round(&cfg, &shutdown).await
            && !matches!(error, Error::Cancelled)
        {
            state.report(None, &error);
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(jittered(cfg.poll)) => {}
        }
    }
    Ok(())
}

/// What the loop remembers between rounds.
#[derive(Default)]
struct Upkeep {
    tables: HashMap<u32, Watch>,
    /// The last error of each table (`None`: of all), so that a lasting one is logged once.
    said: HashMap<Option<u32>, String>,
}

/// One table, followed.
struct Watch {
    lake: Option<LakeTable>,
    /// The spec that `lake` was opened with.
    spec: TableSpec,
    archived: Instant,
    days_checked: Option<Instant>,
    failures: u32,
    not_before: Instant,
}

impl Watch {
    fn new(spec: &TableSpec) -> Self {
        let now = Instant::now();
        Self {
            lake: None,
            spec: spec.clone(),
            archived: now,
            days_checked: None,
            failures: 0,
            not_before: now,
        }
    }
}

impl Upkeep {
    /// One look at every table.
    async fn round(&mut self, cfg: &Config, shutdown: &CancellationToken) -> Result<()> {
        let mut conn = connect(&cfg.database_url).await?;
        let specs = load_specs(&mut conn).await?;
        self.said.remove(&None);
        self.tables.retain(|relid, _| specs.iter().any(|s| s.relid == *relid));
        conn.close().await?;
        let now = Instant::now();
        let mut due = Vec::new();
        for spec in specs {
            let watch = self.tables.remove(&spec.relid).unwrap_or_else(|| Watch::new(&spec));
            if now < watch.not_before {
                self.tables.insert(spec.relid, watch);
            } else {
                due.push((spec, watch));
            }
        }
        // Each table has connections and a file of its own, so what one holds in memory bounds all of them together.
        let mut attended = futures::stream::iter(due)
            .map(|(spec, mut watch)| async move {
                let outcome = if shutdown.is_cancelled() {
                    Err(Error::Cancelled)
                } else {
                    attend(cfg, &mut watch, &spec, shutdown).await
                };
                (spec, watch, outcome)
            })
            .buffer_unordered(cfg.concurrency.max(1));
        while let Some((spec, mut watch, outcome)) = attended.next().await {
            match outcome {
                Ok(()) => {
                    watch.failures = 0;
                    self.said.remove(&Some(spec.relid));
                }
                Err(Error::Cancelled) => return Err(Error::Cancelled),
                Err(error) => {
                    job(&spec, "failed");
                    watch.failures += 1;
                    watch.lake = None;
                    let wait = cfg.poll.saturating_mul(1 << watch.failures.min(10)).min(MAX_BACKOFF);
                    watch.not_before = Instant::now() + jittered(wait);
                    self.report(Some(&spec), &error);
                }
            }
            self.tables.insert(spec.relid, watch);
        }
        Ok(())
    }

    fn report(&mut self, spec: Option<&TableSpec>, error: &Error) {
        let text = error.to_string();
        let key = spec.map(|s| s.relid);
        if self.said.get(&key) == Some(&text) {
            return;
        }
        let table = spec.map(TableSpec::qualified).unwrap_or_default();
        if error.is_transient() {
            tracing::warn!(table, error = %text, "archiving failed; it will be tried again");
        } else {
            tracing::error!(table, error = %text, "archiving failed");
        }
        self.said.insert(key, text);
    }
}

/// Looks at one table: makes days, and archives if it is due.
async fn attend(
    cfg: &Config,
    watch: &mut Watch,
    spec: &TableSpec,
    shutdown: &CancellationToken,
) -> Result<()> {
    let mut conn = connect(&cfg.database_url).await?;
    if watch.days_checked.is_none_or(|t| t.elapsed() >= DAYS_EVERY) {
        keep_days_ahead(&mut conn, spec, cfg.days_ahead).await?;
        watch.days_checked = Some(Instant::now());
    }
    if watch.lake.is_none() || watch.spec != *spec {
        watch.lake = LakeTable::open(&cfg.lake_root, spec).await?;
        watch.spec = spec.clone();
    }
    let version = match &mut watch.lake {
        Some(lake) => lake.refresh().await?.archive,
        None => 0,
    };
    let previous = boundary_of(&mut conn, spec, version).await?;
    let waited = watch.archived.elapsed() >= cfg.interval;
    let wanted = if waited { 1 } else { cfg.min_rows.max(1) };
    let waiting = tail_rows(&mut conn, spec, &previous, wanted).await?;
    let tail = metrics::gauge("watershed_archiver_tail_rows", &[("table", &spec.qualified())]);
    // Where one row is enough, no more of them are counted.
    if !waited || waiting == 0 {
        metrics::describe("watershed_archiver_tail_rows", "Rows not yet in the lake when last looked, counted up to min_rows.");
        tail.set(waiting as f64);
    }
    if waiting < wanted {
        // A quiet table's first rows wait a whole interval, so that they come in company.
        if waited {
            watch.archived = Instant::now();
        }
        return Ok(());
    }
    conn.close().await?;
    let report = ship::archive(cfg, spec, &mut watch.lake, leader::Wait::No, shutdown).await;
    match report {
        Ok(report) => {
            watch.archived = Instant::now();
            tail.set(0.0);
            job(spec, "done");
            if report.rows > 0 {
                progress(&report);
                tracing::info!(
                    table = report.table,
                    archive = report.archive,
                    rows = report.rows,
                    files = report.files,
                    bytes = report.bytes,
                    seconds = report.elapsed.as_secs_f64(),
                    "archived"
                );
            }
            Ok(())
        }
        // Someone archives it at this moment: as good.
        Err(Error::Busy(_)) => Ok(()),
        Err(e) => Err(e),
    }
}

/// Counts a round that had something to ship, or did not get that far.
fn job(spec: &TableSpec, result: &'static str) {
    metrics::describe("watershed_archiver_jobs_total", "Rounds of the archiver that shipped rows, or failed.");
    metrics::counter("watershed_archiver_jobs_total", &[("table", &spec.qualified()), ("result", result)]).inc();
}

/// Counts what was shipped.
fn progress(report: &ArchiveReport) {
    metrics::describe("watershed_archiver_rows_total", "Rows shipped to the lake.");
    metrics::describe("watershed_archiver_files_total", "Files added to the lake.");
    metrics::describe("watershed_archiver_bytes_total", "Bytes of those files.");
    metrics::describe("watershed_archiver_seconds", "Time of a round that shipped rows.");
    metrics::describe("watershed_archiver_last_success_seconds", "When rows were last shipped, in Unix time.");
    let labels = [("table", report.table.as_str())];
    metrics::counter("watershed_archiver_rows_total", &labels).add(report.rows);
    metrics::counter("watershed_archiver_files_total", &labels).add(report.files as u64);
    metrics::counter("watershed_archiver_bytes_total", &labels).add(report.bytes);
    metrics::histogram("watershed_archiver_seconds", &labels).observe(report.elapsed.as_secs_f64());
    let now = crate::load::now_micros() as f64 / 1e6;
    metrics::gauge("watershed_archiver_last_success_seconds", &labels).set(now);
}

/// Rows of the tail beyond `boundary`, counted up to `most`.
async fn tail_rows(conn: &mut PgConnection, spec: &TableSpec, boundary: &Boundary, most: u64) -> Result<u64> {
    let sql = format!(
        "SELECT count(*) FROM (SELECT 1 FROM {} t WHERE {} AND {PRESENT} LIMIT {most}) tail",
        spec.sql_name(),
        boundary.tail_predicate(&session::xid_column(spec)?),
    );
    let rows: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(conn).await?;
    Ok(rows.unsigned_abs())
}

/// Makes day partitions if few are left. Needs a moment alone with the table: without it, the next look tries again.
async fn keep_days_ahead(conn: &mut PgConnection, spec: &TableSpec, ahead: i32) -> Result<()> {
    let left: Option<i32> = sqlx::query_scalar(
        "SELECT max(day) - (now() AT TIME ZONE 'UTC')::date FROM watershed_control.partitions WHERE relid = $1",
    )
    .bind(sqlx::postgres::types::Oid(spec.relid))
    .fetch_one(&mut *conn)
    .await?;
    if left.is_some_and(|left| left >= DAYS_LEFT.min(ahead)) {
        return Ok(());
    }
    let mut tx = conn.begin().await?;
    sqlx::query("SET LOCAL lock_timeout = '2s'").execute(&mut *tx).await?;
    let made = sqlx::query_scalar::<_, i32>("SELECT watershed_control.ensure_days($1, $2)")
        .bind(sqlx::postgres::types::Oid(spec.relid))
        .bind(ahead)
        .fetch_one(&mut *tx)
        .await;
    match made {
        Ok(days) => {
            tx.commit().await?;
            tracing::info!(table = spec.qualified(), days, "made day partitions");
            Ok(())
        }
        Err(sqlx::Error::Database(e)) if e.code().as_deref() == Some("55P03") => {
            tx.rollback().await?;
            tracing::debug!(table = spec.qualified(), "no lock to make day partitions; later");
            Ok(())
        }
        Err(e) => Err(e.into()),
    }
}

/// Runs `work` again after transient errors, a few times, waiting longer each time.
async fn retrying<T, F, W>(work: F) -> Result<T>
where
    F: Fn() -> W,
    W: Future<Output = Result<T>>,
{
    let mut tries = 0;
    loop {
        match work().await {
            Err(error) if error.is_transient() && tries < TRIES => {
                tries += 1;
                tracing::debug!(%error, tries, "trying again");
                tokio::time::sleep(jittered(Duration::from_millis(100 << tries))).await;
            }
            outcome => return outcome,
        }
    }
}

/// Between three quarters and five quarters of `d`.
pub(crate) fn jittered(d: Duration) -> Duration {
    d.mul_f64(rand::random_range(0.75..1.25))
}
