//! The second executor: logical plans over pinned lake versions and tails, run by DataFusion.
//! ✗ what a statement means, routing, wire formats.
//!
//! - [`Engine::pin`] gives a statement its lake version ([`Pin`]);
//! - [`TieredProvider`] makes one relation of that version and the tail;
//! - [`Engine::execute`] optimizes a plan with the rules listed in `optimizer`, runs it on a runtime of its own
//!   and streams the batches.
//!
//! One memory pool, one spill directory and one cache of footers serve all queries; a bounded number runs at
//! once, a bounded number waits, the rest is refused.

pub mod activity;
mod coded;
mod error;
mod held;
mod optimizer;
mod pins;
mod provider;
mod prune;
mod reads;
mod stream;
#[cfg(test)]
mod tests;
mod top;

#[cfg(test)]
pub(crate) use optimizer::lost_a_step;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNode;
use datafusion::config::SpillCompression;
use datafusion::datasource::{MemTable, TableProvider};
use datafusion::error::DataFusionError;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SessionState, SessionStateBuilder, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::SessionConfig;
use futures::StreamExt;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use url::Url;

pub use error::EngineError;
pub(crate) use coded::coded_type;
pub use pins::{FileRow, Pin, Wanted};
pub use provider::TieredProvider;
pub use stream::{QueryStream, Stats};

use pins::LakeCatalog;
use stream::{BATCHES_AHEAD, Message, Place};

/// Rows of a batch where all rows of a scan leave: twice DataFusion's, for each batch wakes all who hand it on. (What is computed of
/// batches is faster where they stay in the processor's cache.)
const SCANNED_ROWS: usize = 16_384;
/// Queries that may wait for each one that may run.
const WAITING_PER_RUNNING: usize = 16;
/// Bytes on disk for each byte of memory.
const SPILL_PER_MEMORY: u64 = 32;
/// Part of the memory that footers and page indexes may take in their cache.
const FOOTERS_PER_MEMORY: usize = 8;

#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// For the working memory of all queries together.
    pub memory_limit_bytes: usize,
    /// Where sorts and hash tables that outgrow memory go, in a directory of this process.
    pub spill_dir: PathBuf,
    /// A connection that may read `watershed_control`; empty: no tiered tables, plans over given batches only.
    pub control_url: String,
    /// Directory of all lake tables.
    pub lake_root: Url,
    /// A version is leased once it has not been the newest for this long, and somebody still reads it.
    pub lease_after: Duration,
    /// Threads, and parts that one query is cut into.
    pub target_partitions: usize,
    /// Queries that run at once.
    pub max_concurrent: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        EngineConfig {
            memory_limit_bytes: 1 << 30,
            spill_dir: std::env::temp_dir(),
            control_url: String::new(),
            lake_root: Url::from_directory_path("/").expect("the root is an absolute path"),
            lease_after: Duration::from_secs(60),
            target_partitions: threads,
            max_concurrent: threads.max(4),
        }
    }
}

/// See [`Engine::load`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Queries that wait for a place, and places.
    pub waiting: usize,
    pub running_limit: usize,
    /// Working memory of all queries, and what they have on disk.
    pub memory_bytes: usize,
    pub spill_bytes: u64,
}

/// See the module.
pub struct Engine {
    state: SessionState,
    /// The same without filters that a top-k narrows.
    cautious: SessionState,
    /// The same with every sort in one piece.
    united: SessionState,
    lake: Option<Arc<LakeCatalog>>,
    running: Arc<Semaphore>,
    waiting: AtomicUsize,
    max_waiting: usize,
    spill_dir: PathBuf,
    /// Taken only when the engine is dropped.
    cpu: Option<tokio::runtime::Runtime>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("spill_dir", &self.spill_dir).finish_non_exhaustive()
    }
}

impl Engine {
    /// Starts the engine's threads and, on the caller's runtime, the follower of the lake's logs.
    ///
    /// Errors: [`EngineError::Internal`] if the spill directory cannot be made or outside of a Tokio runtime.
    pub fn new(config: EngineConfig) -> Result<Arc<Engine>, EngineError> {
        let internal = |what: &str, e: &dyn std::fmt::Display| EngineError::Internal(format!("{what}: {e}"));
        let spill_dir = own_spill_dir(&config.spill_dir)
            .map_err(|e| internal(&format!("the spill directory in {}", config.spill_dir.display()), &e))?;
        let runtime = runtime_env(&config, &spill_dir)?;
        let state = session_state(&config, runtime.clone(), true, true)?;
        let cautious = session_state(&config, runtime.clone(), false, true)?;
        let united = session_state(&config, runtime.clone(), false, false)?;
        let cpu = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.target_partitions.max(1))
            .thread_name("watershed-engine")
            .thread_stack_size(crate::threads::STACK)
            .enable_all()
            .build()
            .map_err(|e| internal("the engine's threads", &e))?;
        let lake = match config.control_url.as_str() {
            "" => None,
            url => {
                let here =
                    tokio::runtime::Handle::try_current().map_err(|e| internal("the lake's follower", &e))?;
                let catalog = LakeCatalog::new(url, config.lake_root.clone(), runtime, config.lease_after)?;
                here.spawn(LakeCatalog::follow(Arc::downgrade(&catalog)));
                Some(catalog)
            }
        };
        let max_concurrent = config.max_concurrent.max(1);
        Ok(Arc::new(Engine {
            state,
            cautious,
            united,
            lake,
            running: Arc::new(Semaphore::new(max_concurrent)),
            waiting: AtomicUsize::new(0),
            max_waiting: max_concurrent * WAITING_PER_RUNNING,
            spill_dir,
            cpu: Some(cpu),
        }))
    }

    /// A version of the lake of a tiered table. `newer`: look at the log again before answering (the fence
    /// has moved past the version at hand).
    ///
    /// Errors: [`EngineError::Internal`] if the relation is not tiered, [`EngineError::Lake`] if its log or the
    /// control tables cannot be read or do not fit together.
    pub async fn pin(&self, relid: u32, newer: bool) -> Result<Pin, EngineError> {
        let wanted = if newer { Wanted::Newest } else { Wanted::AtHand };
        let none = || EngineError::Internal("there is always a newest version".into());
        self.pin_as(relid, &wanted).await?.ok_or_else(none)
    }

    /// Pins the version that is wanted; None if it is not to be had.
    ///
    /// Errors: as of [`Engine::pin`].
    pub async fn pin_as(&self, relid: u32, wanted: &Wanted) -> Result<Option<Pin>, EngineError> {
        match &self.lake {
            Some(lake) => lake.pin(relid, wanted).await,
            None => Err(EngineError::Internal("the engine has no lake".into())),
        }
    }

    /// The version of a table that is at hand, if one is: nothing is asked of anybody.
    pub fn at_hand(&self, relid: u32) -> Option<Arc<lake::log::LakeVersion>> {
        self.lake.as_ref()?.at_hand(relid)
    }

    /// The files of the lake that `user` may know of, as of the versions at hand.
    ///
    /// Errors: [`EngineError::Lake`] if the control tables cannot be read.
    pub async fn files(&self, user: &str) -> Result<Vec<FileRow>, EngineError> {
        match &self.lake {
            Some(lake) => lake.files(user).await,
            None => Ok(Vec::new()),
        }
    }

    /// Optimizes `plan` and starts it. It runs until the stream is read to its end, dropped, or `cancel` is
    /// cancelled; at most two batches wait for the caller.
    ///
    /// Errors: any kind; those of running come out of the stream.
    pub async fn execute(
        self: &Arc<Self>,
        plan: LogicalPlan,
        cancel: CancellationToken,
    ) -> Result<QueryStream, EngineError> {
        let permit = self.admit(&cancel).await?;
        self.start(plan, cancel, Some(permit)).await
    }

    /// As [`Self::execute`], for a plan that scans and filters and may rest for long between two batches: it takes no place among the
    /// running queries, of which one may be waiting for it.
    ///
    /// Errors: as [`Self::execute`].
    pub async fn execute_apart(self: &Arc<Self>, plan: LogicalPlan) -> Result<QueryStream, EngineError> {
        self.start(plan, CancellationToken::new(), None).await
    }

    async fn start(
        self: &Arc<Self>,
        plan: LogicalPlan,
        cancel: CancellationToken,
        permit: Option<tokio::sync::OwnedSemaphorePermit>,
    ) -> Result<QueryStream, EngineError> {
        let cancel = cancel.child_token();
        let stop = cancel.clone().drop_guard();
        let (start, started) = oneshot::channel();
        let (send, batches) = mpsc::channel(BATCHES_AHEAD);
        let state = match () {
            () if optimizer::tops_a_union(&plan) => self.united.clone(),
            () if optimizer::topk_filter_is_safe(&plan) => self.state.clone(),
            () => self.cautious.clone(),
        };
        let cpu = self.cpu.as_ref().ok_or_else(|| EngineError::Internal("the engine has stopped".into()))?;
        let stopped = cancel.clone();
        let place = Place::new(permit, &self.running);
        let at_work = place.at_work();
        cpu.spawn(async move {
            let _at_work = at_work;
            tokio::select! {
                biased;
                () = stopped.cancelled() => {}
                () = run(&state, plan, start, send) => {}
            }
        });
        match started.await {
            Ok(Ok(plan)) => {
                Ok(QueryStream { schema: plan.schema(), plan, batches, ended: false, place, cancel, before: Stats::default(), _stop: stop })
            }
            Ok(Err(e)) => Err(e),
            // Dropped before it started: cancelled, or a panic while planning.
            Err(_) if cancel.is_cancelled() => Err(EngineError::Cancelled),
            Err(_) => Err(EngineError::Internal("the query ended while it was planned".into())),
        }
    }

    /// What the engine holds at present.
    pub fn load(&self) -> Load {
        let runtime = self.state.runtime_env();
        Load {
            waiting: self.waiting.load(Ordering::Relaxed),
            running_limit: self.max_waiting / WAITING_PER_RUNNING,
            memory_bytes: runtime.memory_pool.reserved(),
            spill_bytes: runtime.disk_manager.used_disk_space(),
        }
    }

    /// Waits for a place among the running queries.
    async fn admit(
        &self,
        cancel: &CancellationToken,
    ) -> Result<tokio::sync::OwnedSemaphorePermit, EngineError> {
        if let Ok(permit) = self.running.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let _place = Waiting::enter(&self.waiting, self.max_waiting)?;
        tokio::select! {
            () = cancel.cancelled() => Err(EngineError::Cancelled),
            permit = self.running.clone().acquire_owned() => {
                permit.map_err(|_| EngineError::Internal("the engine has stopped".into()))
            }
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(cpu) = self.cpu.take() {
            // Blocking for its tasks is not allowed where an async task drops the engine.
            cpu.shutdown_background();
        }
        // Files of queries that still end go with it; a leftover is removed at the next start.
        if let Err(error) = std::fs::remove_dir_all(&self.spill_dir) {
            tracing::debug!(%error, "the spill directory was left behind");
        }
    }
}

/// A place in the queue, given back on drop.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize, limit: usize) -> Result<Self, EngineError> {
        if count.fetch_add(1, Ordering::Relaxed) >= limit {
            count.fetch_sub(1, Ordering::Relaxed);
            return Err(EngineError::Refused(format!("{limit} lake queries are waiting already")));
        }
        Ok(Waiting(count))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why PostgreSQL answers.
const LOST: &str = "the plan leaves out what may raise an error";

/// Plans, tells the plan, and sends batches until the end or until nobody listens.
async fn run(
    state: &SessionState,
    plan: LogicalPlan,
    start: oneshot::Sender<Result<Arc<dyn ExecutionPlan>, EngineError>>,
    send: mpsc::Sender<Result<Message, EngineError>>,
) {
    let started = async {
        let optimized = state.optimize(&plan)?;
        if optimizer::lost_a_step(&plan, &optimized)? {
            return Err(DataFusionError::External(Box::new(EngineError::Internal(LOST.into()))));
        }
        let plan = top::narrow(optimized).await?;
        let mut context = TaskContext::from(state);
        if is_scan(&plan)? {
            let config = context.session_config().clone().with_batch_size(SCANNED_ROWS);
            context = context.with_session_config(config);
        }
        let plan = state.query_planner().create_physical_plan(&plan, state).await?;
        let stream = execute_stream(plan.clone(), Arc::new(context))?;
        Ok::<_, DataFusionError>((plan, stream))
    };
    let mut stream = match started.await {
        Ok((plan, stream)) => {
            if start.send(Ok(plan)).is_err() {
                return;
            }
            stream
        }
        Err(e) => {
            // Nobody waiting any more needs no error.
            let _ = start.send(Err(e.into()));
            return;
        }
    };
    while let Some(next) = stream.next().await {
        let message = next.map(Message::Batch).map_err(EngineError::from);
        let failed = message.is_err();
        if send.send(message).await.is_err() || failed {
            return;
        }
    }
    let _ = send.send(Ok(Message::End)).await;
}

/// Rows of tables, as they are or computed one by one.
fn is_scan(plan: &LogicalPlan) -> Result<bool, DataFusionError> {
    use LogicalPlan::*;
    plan.exists(|node| Ok(!matches!(node, Projection(_) | Filter(_) | SubqueryAlias(_) | TableScan(_)))).map(|other| !other)
}

/// A directory below `base` for this process. Those of processes that are gone are removed.
fn own_spill_dir(base: &Path) -> std::io::Result<PathBuf> {
    const PREFIX: &str = "watershed-spill-";
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    std::fs::create_dir_all(base)?;
    for entry in std::fs::read_dir(base)?.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|n| n.strip_prefix(PREFIX)).and_then(|n| n.split('-').next());
        let Some(pid) = owner.and_then(|pid| pid.parse::<u32>().ok()) else { continue };
        if pid != std::process::id() && !Path::new("/proc").join(pid.to_string()).exists() {
            // Another process may be faster.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    let dir = base.join(format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

fn runtime_env(config: &EngineConfig, spill_dir: &Path) -> Result<Arc<RuntimeEnv>, EngineError> {
    let top = NonZeroUsize::new(5).unwrap_or(NonZeroUsize::MIN);
    let pool = TrackConsumersPool::new(FairSpillPool::new(config.memory_limit_bytes), top);
    let disk = DiskManagerBuilder::default()
        .with_mode(DiskManagerMode::Directories(vec![spill_dir.to_owned()]))
        .with_max_temp_directory_size(config.memory_limit_bytes as u64 * SPILL_PER_MEMORY);
    Ok(RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(pool))
        .with_disk_manager_builder(disk)
        .with_metadata_cache_limit(config.memory_limit_bytes / FOOTERS_PER_MEMORY)
        .build_arc()?)
}

fn session_state(
    config: &EngineConfig,
    runtime: Arc<RuntimeEnv>,
    topk_filters: bool,
    sorted_apart: bool,
) -> Result<SessionState, EngineError> {
    let mut session = SessionConfig::new().with_target_partitions(config.target_partitions.max(1));
    let options = session.options_mut();
    // Both are DataFusion's defaults today, and PostgreSQL's rule.
    options.sql_parser.default_null_ordering = "nulls_max".into();
    options.execution.spill_compression = SpillCompression::Lz4Frame;
    options.execution.parquet.pushdown_filters = false;
    options.optimizer.repartition_sorts = sorted_apart;
    options.optimizer.enable_dynamic_filter_pushdown = topk_filters;
    options.optimizer.enable_topk_dynamic_filter_pushdown = topk_filters;
    options.optimizer.enable_join_dynamic_filter_pushdown = false;
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    Ok(SessionStateBuilder::new()
        .with_config(session)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_optimizer_rules(optimizer::logical()?)
        .with_physical_optimizer_rules(optimizer::physical()?)
        .build())
}

/// A relation of given batches, for virtual tables.
pub fn memory_provider(
    schema: SchemaRef,
    rows: Vec<RecordBatch>,
) -> Result<Arc<dyn TableProvider>, EngineError> {
    Ok(Arc::new(MemTable::try_new(schema, vec![rows])?))
}
