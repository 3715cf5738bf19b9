//! The compactor's loop and its one-shot form: for each table, lead, plan, rewrite, commit, vacuum. The work runs on a thread of its
//! own, so that neither decoding nor compression holds up the caller's runtime.

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lake::log::{APP_COMPACTOR_FENCE, CommitOutcome, LakeTable};
use lake::spec::{TableSpec, load_specs};
use lake::types::day_text;
use lake::writer::WriterOptions;
use sqlx::Connection;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::lead::{self, Leader};
use crate::plan::{Job, Policy, plan};
use crate::rewrite::{Resources, discard, rewrite};
use crate::vacuum::{Periods, Removals, sweep};
use crate::{Error, Result};

/// How often a one-shot run asks whether another compactor has finished, and how long in all.
const LEAD_PAUSE: Duration = Duration::from_millis(200);
const LEAD_PATIENCE: Duration = Duration::from_secs(600);
/// A one-shot run plans again until nothing is left to do, at most this often.
const ROUNDS: usize = 8;
/// Entries of the log after which a checkpoint spares readers from going through them.
const CHECKPOINT_EVERY: u64 = 50;

/// What the compactor needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// PostgreSQL as role `watershed_archiver`.
    pub database_url: String,
    pub lake_root: Url,
    /// Between two looks at the tables.
    pub interval: Duration,
    /// Bytes that a file should have.
    pub target_file_bytes: u64,
    /// How long files stay that a commit removed; longer than the longest query.
    pub grace: Duration,
    /// How long files stay that no commit names; longer than the longest archive or rewrite.
    pub orphan_grace: Duration,
    /// Bytes of memory for merging, sorting and writing.
    pub memory_limit_bytes: usize,
    /// Where sorting spills to; `None`: the system's temporary directory.
    pub spill_dir: Option<PathBuf>,
    /// How new files are written.
    pub writer: WriterOptions,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            database_url: String::new(),
            // A constant that is a URL.
            lake_root: Url::parse("file:///lake/").unwrap_or_else(|_| unreachable!()),
            interval: Duration::from_secs(300),
            target_file_bytes: 256 << 20,
            grace: Duration::from_secs(3600),
            orphan_grace: Duration::from_secs(24 * 3600),
            memory_limit_bytes: 512 << 20,
            spill_dir: None,
            writer: WriterOptions::default(),
        }
    }
}

/// What was done to one table.
#[derive(Debug, Clone, PartialEq)]
pub struct CompactReport {
    /// `schema.name`.
    pub table: String,
    /// Rewrites that were committed.
    pub jobs: usize,
    /// Files of the table's version before and after.
    pub files_before: usize,
    pub files_after: usize,
    /// Rows that were rewritten.
    pub rows: u64,
    /// Bytes of the files that were replaced, and of those that replaced them.
    pub bytes: u64,
    pub bytes_written: u64,
    /// Files that no version needed any more, and their bytes.
    pub deleted_files: usize,
    pub deleted_bytes: u64,
    pub seconds: f64,
}

/// Where a table's compaction stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// `schema.name`.
    pub table: String,
    /// The day that is being rewritten, `YYYY-MM-DD`, and why.
    pub day: String,
    pub reason: String,
    /// Rows written so far and to be written, over the jobs that are planned now.
    pub rows: u64,
    pub rows_total: u64,
}

/// Told of progress, often, on the compactor's thread.
pub type ProgressSink = Arc<dyn Fn(&Progress) + Send + Sync>;

/// Compacts every table, again and again, until `shutdown`. What goes wrong with one table is logged and tried again at the next look.
///
/// Errors: only those of starting; see [`Resources`].
pub async fn run(cfg: Config, shutdown: CancellationToken) -> Result<()> {
    on_own_thread(shutdown, move |stop| async move {
        let mut compactor = Compactor::new(cfg)?;
        loop {
            compactor.pass(&stop).await;
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(compactor.cfg.interval) => {}
            }
        }
    })
    .await
}

/// Compacts `table` (`name` or `schema.name`), or every table, now and eagerly: waits for another compactor of the same table to
/// finish its turn, and goes on until nothing is left to do. Tables in the order of their names.
///
/// Errors: the first; tables before it are done.
pub async fn compact_now(cfg: Config, table: Option<String>) -> Result<Vec<CompactReport>> {
    compact_now_with(cfg, table, Arc::new(|_| {}), CancellationToken::new()).await
}

/// [`compact_now`] that tells of its progress and can be stopped: [`Error::Cancelled`].
pub async fn compact_now_with(
    cfg: Config,
    table: Option<String>,
    progress: ProgressSink,
    shutdown: CancellationToken,
) -> Result<Vec<CompactReport>> {
    on_own_thread(shutdown, move |stop| async move {
        let mut compactor = Compactor::new(cfg)?;
        compactor.policy = compactor.policy.eagerly();
        compactor.progress = progress;
        let mut specs = compactor.specs().await?;
        if let Some(name) = table {
            specs.retain(|s| s.qualified() == name || s.name == name);
            if specs.is_empty() {
                return Err(Error::UnknownTable(name));
            }
        }
        let mut reports = Vec::new();
        for spec in &specs {
            reports.extend(compactor.table(spec, true, &stop).await?);
        }
        Ok(reports)
    })
    .await
}

/// Runs `work` on a thread with a runtime of its own. Dropping the future stops the work at its next step.
async fn on_own_thread<T, F>(
    shutdown: CancellationToken,
    work: impl FnOnce(CancellationToken) -> F + Send + 'static,
) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>>,
{
    let stop = shutdown.child_token();
    let stopped = stop.clone();
    let _stop_when_dropped = stop.drop_guard();
    let (done, result) = tokio::sync::oneshot::channel();
    let io = |action| move |source| Error::Io { action, path: "the compactor's thread".into(), source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(io("build"))?;
    std::thread::Builder::new()
        .name("compactor".into())
        .spawn(move || {
            // The caller may be gone, and with it the interest in the result.
            let _ = done.send(runtime.block_on(work(stopped)));
        })
        .map_err(io("start"))?;
    result.await.unwrap_or(Err(Error::ThreadLost))
}

/// What lives from one look at the tables to the next.
struct Compactor {
    cfg: Config,
    policy: Policy,
    periods: Periods,
    resources: Resources,
    progress: ProgressSink,
    removals: HashMap<u32, Removals>,
}

impl Compactor {
    fn new(cfg: Config) -> Result<Self> {
        Ok(Self {
            policy: Policy::new(cfg.target_file_bytes),
            periods: Periods { grace: cfg.grace, orphan: cfg.orphan_grace },
            resources: Resources::new(cfg.memory_limit_bytes, cfg.spill_dir.clone())?,
            progress: Arc::new(|_| {}),
            removals: HashMap::new(),
            cfg,
        })
    }

    async fn specs(&self) -> Result<Vec<TableSpec>> {
        let mut conn = lead::connect(&self.cfg.database_url).await?;
        let specs = load_specs(&mut conn).await?;
        conn.close().await?;
        Ok(specs)
    }

    /// One look at every table.
    async fn pass(&mut self, stop: &CancellationToken) {
        let specs = match self.specs().await {
            Ok(specs) => specs,
            Err(error) => {
                if !stop.is_cancelled() {
                    tracing::warn!(%error, "tables could not be read; trying again later");
                }
                return;
            }
        };
        self.removals.retain(|relid, _| specs.iter().any(|s| s.relid == *relid));
        for spec in &specs {
            match self.table(spec, false, stop).await {
                Ok(Some(report)) if report.jobs > 0 || report.deleted_files > 0 => {
                    tracing::info!(
                        table = %report.table, jobs = report.jobs, files_before = report.files_before,
                        files_after = report.files_after, rows = report.rows, deleted = report.deleted_files,
                        seconds = report.seconds, "compacted"
                    );
                }
                Ok(_) => {}
                Err(_) if stop.is_cancelled() => return,
                Err(error) => {
                    tracing::warn!(table = %spec.qualified(), %error, "not compacted; trying again later");
                }
            }
        }
    }

    /// Compacts one table: a single round of jobs, or (if `insist`) rounds until there are none, waiting for the lead.
    /// `None`: the table has no lake yet, or (unless `insist`) another compactor leads.
    async fn table(
        &mut self,
        spec: &TableSpec,
        insist: bool,
        stop: &CancellationToken,
    ) -> Result<Option<CompactReport>> {
        let Some(mut table) = LakeTable::open(&self.cfg.lake_root, spec).await? else {
            return Ok(None);
        };
        let least = table.fence(APP_COMPACTOR_FENCE);
        let since = Instant::now();
        let mut leader = loop {
            if let Some(leader) = Leader::try_take(&self.cfg.database_url, spec, least).await? {
                break leader;
            }
            if !insist {
                return Ok(None);
            }
            if since.elapsed() > LEAD_PATIENCE {
                return Err(Error::Busy(spec.qualified()));
            }
            tokio::select! {
                () = stop.cancelled() => return Err(Error::Cancelled),
                () = tokio::time::sleep(LEAD_PAUSE) => {}
            }
        };
        let outcome = self.led(&mut table, &mut leader, insist, stop).await;
        leader.release().await;
        outcome.map(Some)
    }

    /// What the leader does.
    async fn led(
        &mut self,
        table: &mut LakeTable,
        leader: &mut Leader,
        insist: bool,
        stop: &CancellationToken,
    ) -> Result<CompactReport> {
        let began = Instant::now();
        let event = table.spec().event_column()?.lake_name.clone();
        let mut report = CompactReport {
            table: table.spec().qualified(),
            jobs: 0,
            files_before: table.refresh().await?.files.len(),
            files_after: 0,
            rows: 0,
            bytes: 0,
            bytes_written: 0,
            deleted_files: 0,
            deleted_bytes: 0,
            seconds: 0.0,
        };
        for _ in 0..if insist { ROUNDS } else { 1 } {
            let jobs = plan(&*table.refresh().await?, &event, &self.policy, now_ms());
            if jobs.is_empty() {
                break;
            }
            let mut progress = Progress {
                table: report.table.clone(),
                day: String::new(),
                reason: String::new(),
                rows: 0,
                rows_total: jobs.iter().map(Job::rows).sum(),
            };
            for job in &jobs {
                if stop.is_cancelled() {
                    return Err(Error::Cancelled);
                }
                progress.day = day_text(job.day);
                progress.reason = job.reason.to_string();
                self.job(table, leader, job, &progress, &mut report, stop).await?;
                progress.rows += job.rows();
            }
        }
        table.checkpoint_if_due(CHECKPOINT_EVERY).await?;
        leader.check().await?;
        let removals = self.removals.entry(table.spec().relid).or_default();
        let swept = sweep(table, removals, &self.periods, now_ms()).await?;
        report.deleted_files = swept.files;
        report.deleted_bytes = swept.bytes;
        report.files_after = table.current().files.len();
        report.seconds = began.elapsed().as_secs_f64();
        Ok(report)
    }

    /// One job, from its files to its commit.
    async fn job(
        &self,
        table: &mut LakeTable,
        leader: &mut Leader,
        job: &Job,
        progress: &Progress,
        report: &mut CompactReport,
        stop: &CancellationToken,
    ) -> Result<()> {
        lake::crash::point("compact.job");
        let done = std::sync::atomic::AtomicU64::new(progress.rows);
        let seen = |rows: u64| {
            let rows = done.fetch_add(rows, std::sync::atomic::Ordering::Relaxed) + rows;
            (self.progress)(&Progress { rows, ..progress.clone() });
        };
        let files = rewrite(table, job, &self.resources, &self.cfg.writer, stop, &seen).await?;
        if let Err(error) = leader.check().await {
            discard(&table.store(), &files).await;
            return Err(error);
        }
        match table.commit_rewrite(&job.files, files.clone(), leader.fence).await {
            Ok(CommitOutcome::Done(_)) => {
                lake::crash::point("compact.committed");
                report.jobs += 1;
                report.rows += job.rows();
                report.bytes += job.bytes();
                report.bytes_written += files.iter().map(|f| f.file.size).sum::<u64>();
                Ok(())
            }
            Ok(CommitOutcome::Lost) => {
                tracing::info!(table = %report.table, day = %progress.day, "the day's files changed meanwhile; left as it is");
                discard(&table.store(), &files).await;
                Ok(())
            }
            // The commit may be in the log: the files must stay. Vacuum finds out.
            Err(error @ lake::Error::Ambiguous { .. }) => Err(error.into()),
            Err(error @ (lake::Error::Fenced { .. } | lake::Error::Schema { .. })) => {
                discard(&table.store(), &files).await;
                Err(error.into())
            }
            // Whether anything was written before the error is not certain either.
            Err(error) => Err(error.into()),
        }
    }
}

fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

#[cfg(test)]
mod tests;
