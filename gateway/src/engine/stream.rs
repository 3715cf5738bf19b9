//! A running query: batches out of the engine's own runtime, with back-pressure and prompt stops. ✗ encoding.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::error::EngineError;
use super::{activity, reads};

/// Batches that may wait for the caller.
pub(super) const BATCHES_AHEAD: usize = 2;

/// Characters of a plan that are told.
const REPORTED: usize = 16 << 10;

/// What the engine sends: batches, then the end. A channel that closes before the end is a failure.
pub(super) enum Message {
    Batch(RecordBatch),
    End,
}

/// What a query read, so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Files of which rows were read.
    pub files: u64,
    /// Row groups read.
    pub row_groups: u64,
    /// Bytes read from the lake, footers aside.
    pub bytes_scanned: u64,
    /// Rows that came out of the files and the tail.
    pub rows: u64,
}

/// A query's place among the running ones, shared by who makes its batches and who fetches them.
#[derive(Debug)]
pub(super) struct Place {
    /// `None` if it needs none, has given it up for a while, or all batches are made.
    permit: Mutex<Option<OwnedSemaphorePermit>>,
    all: Option<Arc<Semaphore>>,
    over: AtomicBool,
}

impl Place {
    /// Holds `permit`, one of `all`, if there is one.
    pub(super) fn new(permit: Option<OwnedSemaphorePermit>, all: &Arc<Semaphore>) -> Arc<Self> {
        let all = permit.is_some().then(|| all.clone());
        Arc::new(Place { permit: Mutex::new(permit), all, over: AtomicBool::new(false) })
    }

    /// Where batches are made: given back when that is over, even if the last ones are still to be fetched.
    pub(super) fn at_work(self: &Arc<Self>) -> AtWork {
        activity::query_began();
        AtWork(self.clone())
    }
}

/// See [`Place::at_work`].
pub(super) struct AtWork(Arc<Place>);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::SeqCst);
        drop(self.0.permit.lock().take());
        activity::query_ended();
    }
}

/// The answer of a query. Dropping it stops the query.
pub struct QueryStream {
    pub(super) schema: SchemaRef,
    pub(super) plan: Arc<dyn ExecutionPlan>,
    pub(super) batches: mpsc::Receiver<Result<Message, EngineError>>,
    pub(super) ended: bool,
    pub(super) place: Arc<Place>,
    pub(super) cancel: CancellationToken,
    /// Of the query whose rows this one reads.
    pub(super) before: Stats,
    /// Cancels the same token.
    pub(super) _stop: DropGuard,
}

impl std::fmt::Debug for QueryStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueryStream")
            .field("schema", &self.schema)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl Drop for QueryStream {
    fn drop(&mut self) {
        let read = self.stats();
        let (mut spills, mut spilled_bytes) = (0, 0);
        spilled(self.plan.as_ref(), &mut spills, &mut spilled_bytes);
        let (files, row_groups, bytes) = (read.files, read.row_groups, read.bytes_scanned);
        activity::add(&activity::Totals { files, row_groups, bytes, spills, spilled_bytes, ..Default::default() });
    }
}

fn spilled(plan: &dyn ExecutionPlan, spills: &mut u64, bytes: &mut u64) {
    if let Some(metrics) = plan.metrics() {
        *spills += metrics.spill_count().unwrap_or(0) as u64;
        *bytes += metrics.spilled_bytes().unwrap_or(0) as u64;
    }
    for child in plan.children() {
        spilled(child.as_ref(), spills, bytes);
    }
}

impl QueryStream {
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// The next batch; None after the last one, or after an error. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<RecordBatch, EngineError>> {
        if self.ended {
            return None;
        }
        match self.batches.recv().await {
            Some(Ok(Message::Batch(batch))) => Some(Ok(batch)),
            Some(Ok(Message::End)) => {
                self.ended = true;
                None
            }
            Some(Err(e)) => {
                self.ended = true;
                Some(Err(e))
            }
            None if self.cancel.is_cancelled() => {
                self.ended = true;
                Some(Err(EngineError::Cancelled))
            }
            None => {
                self.ended = true;
                Some(Err(EngineError::Internal("the query ended without saying so".into())))
            }
        }
    }

    /// Gives up the place among the running queries: nobody may fetch for long. What is under way goes on until a few batches wait.
    pub fn rest(&self) {
        drop(self.place.permit.lock().take());
    }

    /// Takes a place again after [`Self::rest`], waiting for one if need be. Cancel-safe.
    pub async fn resume(&self) {
        let Some(all) = &self.place.all else { return };
        let placed = || self.place.over.load(Ordering::SeqCst) || self.place.permit.lock().is_some();
        if placed() {
            return;
        }
        // Closed only when the engine is gone, which the next batch will say.
        let Ok(permit) = all.clone().acquire_owned().await else { return };
        *self.place.permit.lock() = Some(permit);
        if self.place.over.load(Ordering::SeqCst) {
            self.rest();
        }
    }

    /// What was read for the rows that this query reads counts as read by it.
    pub fn following(mut self, before: Stats) -> QueryStream {
        self.before = before;
        self
    }

    /// What was read so far; final once `next` has given None.
    pub fn stats(&self) -> Stats {
        let mut stats = self.before.clone();
        collect(self.plan.as_ref(), &mut stats);
        stats
    }

    /// The physical plan, for tests.
    pub fn plan_text(&self) -> String {
        datafusion::physical_plan::displayable(self.plan.as_ref()).indent(false).to_string()
    }

    /// The plan with what each step took and gave so far, cut at a bound.
    pub fn plan_report(&self) -> String {
        let mut report = DisplayableExecutionPlan::with_metrics(self.plan.as_ref()).indent(false).to_string();
        if let Some((end, _)) = report.char_indices().nth(REPORTED) {
            report.truncate(end);
            report.push('…');
        }
        report
    }
}

fn collect(plan: &dyn ExecutionPlan, stats: &mut Stats) {
    let leaf = plan.children().is_empty();
    if let Some(metrics) = plan.metrics().filter(|_| leaf) {
        let sum = |name| metrics.sum_by_name(name).map_or(0, |v| v.as_usize()) as u64;
        stats.rows += metrics.output_rows().unwrap_or(0) as u64;
        stats.bytes_scanned += sum("bytes_scanned");
        stats.files += sum(reads::FILES_READ);
        stats.row_groups += sum(reads::ROW_GROUPS_READ);
    }
    for child in plan.children() {
        collect(child.as_ref(), stats);
    }
}
