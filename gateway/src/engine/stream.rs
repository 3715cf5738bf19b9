//! A running query: batches out of the engine's own runtime, with back-pressure and prompt stops. ✗ encoding.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::MetricValue;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::error::EngineError;

/// Batches that may wait for the caller.
pub(super) const BATCHES_AHEAD: usize = 2;

/// What the engine sends: batches, then the end. A channel that closes before the end is a failure.
pub(super) enum Message {
    Batch(RecordBatch),
    End,
}

/// What a query read, so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Files that statistics did not rule out.
    pub files: u64,
    /// Row groups read.
    pub row_groups: u64,
    /// Bytes read from the lake, footers aside.
    pub bytes_scanned: u64,
    /// Rows that came out of the files and the tail.
    pub rows: u64,
}

/// The answer of a query. Dropping it stops the query.
pub struct QueryStream {
    pub(super) schema: SchemaRef,
    pub(super) plan: Arc<dyn ExecutionPlan>,
    pub(super) batches: mpsc::Receiver<Result<Message, EngineError>>,
    pub(super) ended: bool,
    pub(super) cancel: CancellationToken,
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

    /// What was read so far; final once `next` has given None.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        let mut files = HashSet::new();
        collect(self.plan.as_ref(), &mut stats, &mut files);
        stats.files = files.len() as u64;
        stats
    }

    /// The physical plan, for EXPLAIN and tests.
    pub fn plan_text(&self) -> String {
        datafusion::physical_plan::displayable(self.plan.as_ref()).indent(false).to_string()
    }
}

fn collect(plan: &dyn ExecutionPlan, stats: &mut Stats, files: &mut HashSet<object_store::path::Path>) {
    let leaf = plan.children().is_empty();
    if let Some(metrics) = plan.metrics().filter(|_| leaf) {
        stats.rows += metrics.output_rows().unwrap_or(0) as u64;
        stats.bytes_scanned += metrics.sum_by_name("bytes_scanned").map_or(0, |v| v.as_usize()) as u64;
        let skipped =
            metrics.sum_by_name("row_groups_pruned_dynamic_filter").map_or(0, |v| v.as_usize()) as u64;
        for metric in metrics.iter() {
            if let MetricValue::PruningMetrics { name, pruning_metrics } = metric.value()
                && name == "row_groups_pruned_statistics"
            {
                stats.row_groups += pruning_metrics.matched() as u64;
            }
        }
        stats.row_groups = stats.row_groups.saturating_sub(skipped);
    }
    if let Some(scan) = plan.downcast_ref::<DataSourceExec>()
        && let Some(config) = scan.data_source().downcast_ref::<FileScanConfig>()
    {
        files
            .extend(config.file_groups.iter().flat_map(|g| g.iter()).map(|f| f.object_meta.location.clone()));
    }
    for child in plan.children() {
        collect(child.as_ref(), stats, files);
    }
}
