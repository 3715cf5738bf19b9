//! What windows hold: DataFusion's window operators keep whole partitions in memory without keeping account of it. What they read passes here, and
//! is counted in the query's memory until they are done, so that a query which outgrows it ends instead of the process. ✗ what windows compute.

use std::sync::Arc;

use datafusion::arrow::array::{Array, RecordBatch};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::StreamExt;

/// A partition is kept as it came, and once more in one piece.
const COPIES: usize = 2;

/// Puts [`HeldExec`] below every window.
#[derive(Debug)]
pub(super) struct HoldWindows;

impl PhysicalOptimizerRule for HoldWindows {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let held = plan.transform_up(|node| {
            if !node.is::<WindowAggExec>() && !node.is::<BoundedWindowAggExec>() {
                return Ok(Transformed::no(node));
            }
            let inputs = node.children().into_iter().map(|input| Arc::new(HeldExec { input: input.clone() }) as Arc<dyn ExecutionPlan>).collect();
            Ok(Transformed::yes(replace_children_if_necessary(node, inputs)?))
        })?;
        Ok(held.data)
    }

    fn name(&self) -> &str {
        "HoldWindows"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct HeldExec {
    input: Arc<dyn ExecutionPlan>,
}

impl DisplayAs for HeldExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HeldExec")
    }
}

impl ExecutionPlan for HeldExec {
    fn name(&self) -> &str {
        "HeldExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn apply_expressions(&self, _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.into_iter().next().unwrap_or_else(|| self.input.clone());
        Ok(Arc::new(HeldExec { input }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let held = MemoryConsumer::new(format!("Window[{partition}]")).register(context.memory_pool());
        let input = self.input.execute(partition, context)?;
        let schema = input.schema();
        // The window keeps its input, and the reservation with it, until it is dropped itself.
        let batches = input.map(move |batch| batch.and_then(|batch| counted(batch, &held)));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }
}

fn counted(batch: RecordBatch, held: &MemoryReservation) -> Result<RecordBatch> {
    let bytes: usize = batch.columns().iter().map(|c| c.to_data().get_slice_memory_size()).sum::<std::result::Result<_, _>>()?;
    held.try_grow(bytes * COPIES)?;
    Ok(batch)
}
