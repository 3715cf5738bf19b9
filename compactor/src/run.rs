//! The compactor's loop and its one-shot form: for each table, lead, plan, rewrite, commit, vacuum. The work runs on a thread of its
//! own, so that neither decoding nor compression holds up the caller's runtime.

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lake::log::{APP_COMPACTOR_FENCE, LakeTable, NewFile};
use lake::spec::{TableSpec, load_specs};
use lake::types::day_text;
use lake::writer::WriterOptions;
use sqlx::Connection;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::lead::{self, Ended, Leader, Note};
use crate::meters;
use crate::plan::{Job, Plan, Policy, plan};
use crate::rewrite::{Resources, discard, rewrite};
use crate::turn::{Finished, finish};
use crate::vacuum::{self, Periods, Scope, Swept};
use crate::{Error, Result};

/// How often a one-shot run asks whether another compactor has finished, and how long in all.
const LEAD_PAUSE: Duration = Duration::from_millis(200);
const LEAD_PATIENCE: Duration = Duration::from_secs(600);
/// A one-shot run plans again until nothing is left to do, at most this often.
const ROUNDS: usize = 8;
/// Entries of the log after which a checkpoint spares readers from going through them.
const CHECKPOINT_EVERY: u64 = 50;

/// A table's files are listed for what no log tells of this often, if anything was written meanwhile: four times an orphan period.
const LISTINGS: i64 = 4;
/// A job that is at work at the same time as others wants at least this much memory.
const JOB_BYTES: usize = 96 << 20;

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
    /// How long files stay that a commit removed; longer than the longest query of those who take no lease.
    pub grace: Duration,
    /// How long files stay that no commit names; longer than the longest archive or rewrite.
    pub orphan_grace: Duration,
    /// Bytes of memory for merging, sorting and writing.
    pub memory_limit_bytes: usize,
    /// Threads for merging, compressing and reading back.
    pub threads: usize,
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
            threads: std::thread::available_parallelism().map_or(1, |n| usize::from(n).div_ceil(2)),
            spill_dir: None,
            writer: WriterOptions::default(),
        }
    }
}

impl Config {
    /// How many jobs are at work at once.
    fn jobs(&self) -> usize {
        self.threads.min(self.memory_limit_bytes / JOB_BYTES).max(1)
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

/// A table's state and what would be done to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Preview {
    /// `schema.name`.
    pub table: String,
    /// Of the lake.
    pub version: i64,
    pub files: usize,
    pub rows: u64,
    /// Bytes.
    pub bytes: u64,
    pub plan: Plan,
    /// Files that a vacuum would delete, as far as the log tells, and their bytes.
    pub unneeded_files: usize,
    pub unneeded_bytes: u64,
}

/// How a one-shot run goes about it.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// `name` or `schema.name`; `None`: every table.
    pub table: Option<String>,
    /// Rewrite large files for whatever overlaps them, too.
    pub full: bool,
}

/// Compacts every table, again and again, until `shutdown`. What goes wrong with one table is logged and tried again at the next look.
///
/// Errors: only those of starting; see [`Resources`].
pub async fn run(cfg: Config, shutdown: CancellationToken) -> Result<()> {
    on_own_thread(cfg.threads, shutdown, move |stop| async move {
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
    let request = Request { table, full: false };
    compact_now_with(cfg, request, Arc::new(|_| {}), CancellationToken::new()).await
}

/// [`compact_now`] that tells of its progress and can be stopped: [`Error::Cancelled`].
pub async fn compact_now_with(
    cfg: Config,
    request: Request,
    progress: ProgressSink,
    shutdown: CancellationToken,
) -> Result<Vec<CompactReport>> {
    on_own_thread(cfg.threads, shutdown, move |stop| async move {
        let mut compactor = Compactor::new(cfg)?;
        compactor.policy = if request.full { compactor.policy.fully() } else { compactor.policy.eagerly() };
        compactor.progress = progress;
        let mut reports = Vec::new();
        for spec in &compactor.chosen(&request).await? {
            reports.extend(compactor.table(spec, true, &stop).await?);
        }
        Ok(reports)
    })
    .await
}

/// What [`compact_now_with`] would do, and why. Changes nothing and waits for nobody.
pub async fn preview(cfg: Config, request: Request) -> Result<Vec<Preview>> {
    let mut compactor = Compactor::new(cfg)?;
    compactor.policy = if request.full { compactor.policy.fully() } else { compactor.policy.eagerly() };
    let mut previews = Vec::new();
    for spec in &compactor.chosen(&request).await? {
        let store = lake::store::open(&compactor.cfg.lake_root)?;
        let Some(table) = LakeTable::open_for_upkeep(store, &compactor.cfg.lake_root, spec).await? else {
            continue;
        };
        let version = table.current();
        let event = &spec.event_column()?.lake_name;
        let unneeded = vacuum::preview(&table, None, &compactor.periods, now_ms());
        previews.push(Preview {
            table: spec.qualified(),
            version: version.version,
            files: version.files.len(),
            rows: version.rows,
            bytes: version.bytes,
            plan: plan(&version, event, &compactor.policy, now_ms()),
            unneeded_files: unneeded.files,
            unneeded_bytes: unneeded.bytes,
        });
    }
    Ok(previews)
}

/// Runs `work` on a thread with a runtime of its own, of so many further threads. Dropping the future stops the work at its next step.
async fn on_own_thread<T, F>(
    threads: usize,
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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.max(1))
        .thread_name("compactor")
        .enable_all()
        .build()
        .map_err(io("build"))?;
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
    resources: Arc<Resources>,
    progress: ProgressSink,
    tables: HashMap<u32, Followed>,
}

/// A table between two turns: its log is followed, so that a look costs one question for the next entry.
struct Followed {
    spec: TableSpec,
    table: LakeTable,
    /// The version that the last turn left behind.
    seen: Option<i64>,
    /// When there is something to do even if nothing changes (milliseconds since 1970).
    due_ms: Option<i64>,
    /// When the files were last listed, and the version then.
    listed: Option<(i64, i64)>,
}

impl Compactor {
    fn new(cfg: Config) -> Result<Self> {
        Ok(Self {
            policy: Policy::new(cfg.target_file_bytes),
            periods: Periods { grace: cfg.grace, orphan: cfg.orphan_grace },
            resources: Arc::new(Resources::new(cfg.memory_limit_bytes, cfg.spill_dir.clone(), cfg.jobs())?),
            progress: Arc::new(|_| {}),
            tables: HashMap::new(),
            cfg,
        })
    }

    async fn specs(&self) -> Result<Vec<TableSpec>> {
        let mut conn = lead::connect(&self.cfg.database_url).await?;
        let specs = load_specs(&mut conn).await?;
        conn.close().await?;
        Ok(specs)
    }

    /// The tables that are asked for.
    async fn chosen(&self, request: &Request) -> Result<Vec<TableSpec>> {
        let mut specs = self.specs().await?;
        if let Some(name) = &request.table {
            specs.retain(|s| s.qualified() == *name || s.name == *name);
            if specs.is_empty() {
                return Err(Error::UnknownTable(name.clone()));
            }
        }
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
        self.tables.retain(|relid, _| specs.iter().any(|s| s.relid == *relid));
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
                    // Whatever it was, the next look starts from what is really there.
                    self.tables.remove(&spec.relid);
                    tracing::warn!(table = %spec.qualified(), %error, "not compacted; trying again later");
                }
            }
        }
    }

    /// The table of `spec`, followed; `None`: it has no lake yet.
    async fn follow(&mut self, spec: &TableSpec) -> Result<Option<Followed>> {
        if let Some(mut followed) = self.tables.remove(&spec.relid)
            && followed.spec == *spec
        {
            followed.table.refresh().await?;
            return Ok(Some(followed));
        }
        let store = lake::store::open(&self.cfg.lake_root)?;
        let table = LakeTable::open_for_upkeep(store, &self.cfg.lake_root, spec).await?;
        Ok(table.map(|table| Followed { spec: spec.clone(), table, seen: None, due_ms: None, listed: None }))
    }

    /// Compacts one table: a single round of jobs, or (if `insist`) rounds until there are none, waiting for the lead.
    /// `None`: the table has no lake yet, or (unless `insist`) another compactor leads or there is nothing to do.
    async fn table(
        &mut self,
        spec: &TableSpec,
        insist: bool,
        stop: &CancellationToken,
    ) -> Result<Option<CompactReport>> {
        let Some(mut followed) = self.follow(spec).await? else {
            return Ok(None);
        };
        let changed = followed.seen != Some(followed.table.current().version);
        if !insist && !changed && followed.due_ms.is_none_or(|due| now_ms() < due) {
            self.tables.insert(spec.relid, followed);
            return Ok(None);
        }
        let least = followed.table.fence(APP_COMPACTOR_FENCE);
        let since = Instant::now();
        let mut leader = loop {
            if let Some(leader) = Leader::try_take(&self.cfg.database_url, spec, least).await? {
                break leader;
            }
            if !insist {
                self.tables.insert(spec.relid, followed);
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
        let outcome = self.led(&mut followed, &mut leader, insist, stop).await;
        leader.release().await;
        let report = outcome?;
        self.tables.insert(spec.relid, followed);
        Ok(Some(report))
    }

    /// What the leader does.
    async fn led(
        &mut self,
        followed: &mut Followed,
        leader: &mut Leader,
        insist: bool,
        stop: &CancellationToken,
    ) -> Result<CompactReport> {
        let began = Instant::now();
        let table = &mut followed.table;
        let event = table.spec().event_column()?.lake_name.clone();
        // Nobody sees rows before the lake's floor: PostgreSQL had it committed before it could be read here.
        if let Some(floor) = table.spec().lake_floor_us {
            let expired = table.commit_expire(lake::types::partition_day(floor), leader.fence).await?;
            if expired.files > 0 {
                tracing::info!(
                    table = %table.spec().qualified(), files = expired.files, rows = expired.rows, bytes = expired.bytes,
                    before = lake::types::day_text(lake::types::partition_day(floor)), "rows have expired"
                );
            }
        }
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
        let mut next_ms = None;
        for _ in 0..if insist { ROUNDS } else { 1 } {
            let planned = plan(&*table.refresh().await?, &event, &self.policy, now_ms());
            next_ms = planned.next_ms;
            meters::debt(&report.table, &planned.jobs);
            if planned.jobs.is_empty() {
                break;
            }
            self.jobs(table, leader, planned.jobs, &mut report, stop).await?;
        }
        self.checkpoint(table, leader).await?;
        leader.check().await?;
        let swept = self.sweep(followed, leader, &mut next_ms).await?;
        report.deleted_files = swept.files;
        report.deleted_bytes = swept.bytes;
        let version = followed.table.current();
        report.files_after = version.files.len();
        report.seconds = began.elapsed().as_secs_f64();
        meters::turn(&report, version.bytes);
        // A round that did something may have made room for more.
        followed.seen = (insist || report.jobs == 0).then_some(version.version);
        followed.due_ms = next_ms;
        Ok(report)
    }

    /// A round of jobs, several at a time; each is committed when it is done.
    async fn jobs(
        &self,
        table: &mut LakeTable,
        leader: &mut Leader,
        jobs: Vec<Job>,
        report: &mut CompactReport,
        stop: &CancellationToken,
    ) -> Result<()> {
        let rows_total = jobs.iter().map(Job::rows).sum();
        let done = Arc::new(AtomicU64::new(0));
        let place = table.place();
        let mut options = self.cfg.writer.clone();
        // Writers share what reading leaves.
        options.row_group_bytes = options.row_group_bytes.min(self.cfg.memory_limit_bytes / 4 / self.cfg.jobs()).max(1 << 20);
        // Ends what is left with it, if one job fails.
        let ended = stop.child_token();
        let _end = ended.clone().drop_guard();
        let mut waiting = jobs.into_iter();
        let mut working = JoinSet::new();
        loop {
            while working.len() < self.cfg.jobs()
                && !stop.is_cancelled()
                && let Some(job) = waiting.next()
            {
                lake::crash::point("compact.job");
                let note = Note {
                    kind: "rewrite",
                    day: Some(job.day),
                    reason: job.reason.to_string(),
                    files_before: job.files.len(),
                    rows: job.rows(),
                    bytes_before: job.bytes(),
                };
                let id = leader.begin(&note).await?;
                let told = Progress {
                    table: report.table.clone(),
                    day: day_text(job.day),
                    reason: note.reason,
                    rows: 0,
                    rows_total,
                };
                let (done, progress) = (done.clone(), self.progress.clone());
                let (place, options, ended, resources) =
                    (place.clone(), options.clone(), ended.clone(), self.resources.clone());
                working.spawn(async move {
                    let seen = move |rows: u64| {
                        let rows = done.fetch_add(rows, Ordering::Relaxed) + rows;
                        progress(&Progress { rows, ..told.clone() });
                    };
                    let files = rewrite(&place, &job, &resources, &options, &ended, &seen).await;
                    (id, job, files)
                });
            }
            let Some(one) = working.join_next().await else { break };
            let Ok((id, job, files)) = one else { return Err(Error::ThreadLost) };
            let outcome = self.commit(table, leader, &job, files, report).await;
            meters::job(&report.table, outcome.as_ref().ok(), &job);
            let ended_so = match &outcome {
                Ok(ended) => ended.clone(),
                Err(error) => Ended { outcome: "failed", error: Some(error.to_string()), ..Ended::default() },
            };
            let noted = leader.end(id, &ended_so).await;
            if let Err(error) = outcome.and_then(|_| noted) {
                // The others give up, and what they had finished is not needed.
                ended.cancel();
                while let Some(other) = working.join_next().await {
                    if let Ok((_, _, Ok(files))) = other {
                        discard(&table.store(), &files).await;
                    }
                }
                return Err(error);
            }
        }
        if stop.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Commits one rewritten job.
    async fn commit(
        &self,
        table: &mut LakeTable,
        leader: &mut Leader,
        job: &Job,
        files: Result<Vec<NewFile>>,
        report: &mut CompactReport,
    ) -> Result<Ended> {
        let files = files?;
        if let Err(error) = leader.check().await {
            discard(&table.store(), &files).await;
            return Err(error);
        }
        let (count, bytes) = (files.len(), files.iter().map(|f| f.file.size).sum::<u64>());
        match finish(table, job, files, leader.fence).await? {
            Finished::Done { version } => {
                report.jobs += 1;
                report.rows += job.rows();
                report.bytes += job.bytes();
                report.bytes_written += bytes;
                Ok(Ended {
                    outcome: "done",
                    files_after: Some(count),
                    bytes_after: Some(bytes),
                    version: Some(version),
                    error: None,
                })
            }
            Finished::Lost => {
                tracing::info!(table = %report.table, day = %day_text(job.day), "the day's files changed meanwhile; left as it is");
                Ok(Ended { outcome: "lost", ..Ended::default() })
            }
        }
    }

    async fn checkpoint(&self, table: &mut LakeTable, leader: &mut Leader) -> Result<()> {
        if !table.checkpoint_if_due(CHECKPOINT_EVERY).await? {
            return Ok(());
        }
        let version = table.current();
        let note = Note {
            kind: "checkpoint",
            reason: format!("{CHECKPOINT_EVERY} versions or more since the last"),
            files_before: version.files.len(),
            rows: version.rows,
            bytes_before: version.bytes,
            ..Note::default()
        };
        let id = leader.begin(&note).await?;
        leader.end(id, &Ended { outcome: "done", version: Some(version.version), ..Ended::default() }).await
    }

    /// Deletes what nobody needs; lists the files only at first and when something was written since long.
    async fn sweep(
        &self,
        followed: &mut Followed,
        leader: &mut Leader,
        next_ms: &mut Option<i64>,
    ) -> Result<Swept> {
        let (now, version) = (now_ms(), followed.table.current().version);
        let listing_due = followed.listed.map(|(at, _)| at.saturating_add(self.periods.orphan_ms() / LISTINGS));
        let (scope, reason) = match followed.listed {
            None => (Scope::Everything, "at first, every file is looked at"),
            Some((_, then)) if then != version && listing_due.is_none_or(|due| now >= due) => {
                (Scope::Everything, "files were written since they were last listed")
            }
            Some(_) => (Scope::Removed, "removed by commits before the grace period"),
        };
        let oldest_read = leader.oldest_read().await?;
        let sweep = vacuum::sweep(&mut followed.table, scope, oldest_read, &self.periods, now).await?;
        if scope == Scope::Everything {
            followed.listed = Some((now, version));
        } else if followed.listed.is_some_and(|(_, then)| then != version) {
            // What was written since may have left something behind.
            *next_ms = earlier(*next_ms, listing_due);
        }
        *next_ms = earlier(*next_ms, sweep.next_ms);
        if sweep.swept.files > 0 {
            let note = Note {
                kind: "vacuum",
                reason: reason.to_owned(),
                files_before: sweep.swept.files,
                bytes_before: sweep.swept.bytes,
                ..Note::default()
            };
            let id = leader.begin(&note).await?;
            let ended =
                Ended { outcome: "done", files_after: Some(0), bytes_after: Some(0), ..Ended::default() };
            leader.end(id, &ended).await?;
        }
        Ok(sweep.swept)
    }
}

fn earlier(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

#[cfg(test)]
mod tests;
