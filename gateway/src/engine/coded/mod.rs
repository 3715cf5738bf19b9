//! The first stage of GROUP BY over columns that are read as codes, or over times that were cut: one number a row instead of
//! hashing keys, and one for many rows where they stand together.
//! ✗ which columns are read as codes (`plan::coded`, `provider`), merging the stages' results.
//!
//! [`CodedAggregation`] puts [`CodedAggregateExec`] in the place of DataFusion's partial aggregation where a key
//! is coded or a time that was cut. Its output is what that would give (keys, then the accumulators' states), so DataFusion's final
//! stage follows. Groups that outgrow memory or number are handed on early: the final stage, which spills,
//! merges them.

pub(super) mod groups;

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, InputOrderMode, PlanProperties, SendableRecordBatchStream,
};
use futures::StreamExt;

pub(crate) use groups::coded_type;
use groups::{Groups, TOGETHER};

/// Groups are handed on beyond this many: a table that no longer fits the processor's caches gains nothing.
const MOST_GROUPS: usize = 1 << 18;

/// See the module.
#[derive(Debug)]
pub(super) struct CodedAggregation;

impl PhysicalOptimizerRule for CodedAggregation {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let Some(aggregate) = node.downcast_ref::<AggregateExec>() else { return Ok(Transformed::no(node)) };
            if !pays(aggregate) {
                return Ok(Transformed::no(node));
            }
            let coded = |partial| Arc::new(CodedAggregateExec::new(partial)) as Arc<dyn ExecutionPlan>;
            Ok(match aggregate.mode() {
                AggregateMode::Partial => Transformed::yes(coded(aggregate.clone())),
                AggregateMode::Single => {
                    let groups = aggregate.group_expr().clone();
                    let last = groups.as_final();
                    let (calls, filters) = (aggregate.aggr_expr().to_vec(), aggregate.filter_expr().to_vec());
                    let (input, schema) = (aggregate.input().clone(), aggregate.input_schema());
                    let first = AggregateExec::try_new(
                        AggregateMode::Partial,
                        groups,
                        calls.clone(),
                        filters.clone(),
                        input,
                        schema.clone(),
                    )?;
                    let last =
                        AggregateExec::try_new(AggregateMode::Final, last, calls, filters, coded(first), schema)?;
                    Transformed::yes(Arc::new(last.with_limit_options(aggregate.limit_options())))
                }
                _ => Transformed::no(node),
            })
        })
        .data()
    }

    fn name(&self) -> &str {
        "CodedAggregation"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Whether a key is coded or a time that was cut, and everything else is what [`CodedAggregateExec`] computes.
fn pays(aggregate: &AggregateExec) -> bool {
    let keys = aggregate.group_expr();
    let Ok(types) = key_types(aggregate) else { return false };
    keys.is_single()
        && *aggregate.input_order_mode() == InputOrderMode::Linear
        && (types.iter().any(|t| *t == coded_type()) || keys.expr().iter().any(|(key, _)| is_cut(key, aggregate.input())))
        && types.iter().all(groups::supports)
        && aggregate.aggr_expr().iter().all(|a| a.groups_accumulator_supported() && a.order_bys().is_empty())
}

/// Whether it is a time computed of one column: such have few values, and rows sorted by the column have them in runs.
fn is_cut(key: &Arc<dyn PhysicalExpr>, input: &Arc<dyn ExecutionPlan>) -> bool {
    if let Some(column) = key.downcast_ref::<Column>() {
        let Some(projection) = input.downcast_ref::<ProjectionExec>() else { return false };
        return projection.expr().get(column.index()).is_some_and(|p| is_cut(&p.expr, projection.input()));
    }
    let is_time = |ty| matches!(ty, Ok(DataType::Timestamp(..) | DataType::Date32));
    is_time(key.data_type(&input.schema())) && collect_columns(key).len() == 1
}

fn key_types(aggregate: &AggregateExec) -> Result<Vec<DataType>> {
    let schema = aggregate.input().schema();
    aggregate.group_expr().expr().iter().map(|(e, _)| e.data_type(&schema)).collect()
}

/// See the module.
#[derive(Debug)]
pub(super) struct CodedAggregateExec {
    /// What it stands for: expressions, schema, input. Never executed.
    partial: AggregateExec,
    metrics: ExecutionPlanMetricsSet,
}

impl CodedAggregateExec {
    fn new(partial: AggregateExec) -> Self {
        CodedAggregateExec { partial, metrics: ExecutionPlanMetricsSet::new() }
    }
}

impl DisplayAs for CodedAggregateExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&str> = self.partial.group_expr().expr().iter().map(|(_, name)| name.as_str()).collect();
        let calls: Vec<&str> = self.partial.aggr_expr().iter().map(|a| a.name()).collect();
        write!(f, "CodedAggregateExec: gby=[{}], aggr=[{}]", keys.join(", "), calls.join(", "))
    }
}

impl ExecutionPlan for CodedAggregateExec {
    fn name(&self) -> &str {
        "CodedAggregateExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.partial.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![self.partial.input()]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.partial.apply_expressions(f)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.into_iter().next().unwrap_or_else(|| self.partial.input().clone());
        let partial = AggregateExec::try_new(
            AggregateMode::Partial,
            self.partial.group_expr().clone(),
            self.partial.aggr_expr().to_vec(),
            self.partial.filter_expr().to_vec(),
            input,
            self.partial.input_schema(),
        )?;
        Ok(Arc::new(CodedAggregateExec::new(partial)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.partial.input().execute(partition, context.clone())?;
        let reservation = MemoryConsumer::new(format!("CodedAggregate[{partition}]"))
            .with_can_spill(true)
            .register(context.memory_pool());
        let work = Work {
            schema: self.partial.schema(),
            keys: self.partial.group_expr().input_exprs(),
            types: key_types(&self.partial)?,
            groups: Groups::new(&key_types(&self.partial)?)?,
            calls: self
                .partial
                .aggr_expr()
                .iter()
                .zip(self.partial.filter_expr())
                .map(|(call, filter)| Call::new(call, filter.clone()))
                .collect::<Result<_>>()?,
            of_rows: Vec::new(),
            wide: Vec::new(),
            reservation,
            metrics: BaselineMetrics::new(&self.metrics, partition),
            rows: context.session_config().batch_size().max(1),
        };
        let batches = futures::stream::try_unfold(State::Reading(input, Box::new(work)), step);
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }
}

enum State {
    Reading(SendableRecordBatchStream, Box<Work>),
    /// Groups handed on early, to be sent before reading on.
    Sending(SendableRecordBatchStream, Box<Work>, RecordBatch, usize),
    /// The rest.
    Last(RecordBatch, usize, usize),
    Done,
}

async fn step(mut state: State) -> Result<Option<(RecordBatch, State)>> {
    loop {
        state = match state {
            State::Done => return Ok(None),
            State::Last(batch, at, rows) => {
                if at >= batch.num_rows() {
                    return Ok(None);
                }
                let part = batch.slice(at, rows.min(batch.num_rows() - at));
                return Ok(Some((part, State::Last(batch, at + rows, rows))));
            }
            State::Sending(input, work, batch, at) => {
                if at >= batch.num_rows() {
                    State::Reading(input, work)
                } else {
                    let rows = work.rows;
                    let part = batch.slice(at, rows.min(batch.num_rows() - at));
                    return Ok(Some((part, State::Sending(input, work, batch, at + rows))));
                }
            }
            State::Reading(mut input, mut work) => match input.next().await {
                Some(batch) => {
                    let full = work.add(&batch?)?;
                    if full {
                        let batch = work.hand_on()?;
                        State::Sending(input, work, batch, 0)
                    } else {
                        State::Reading(input, work)
                    }
                }
                None => {
                    drop(input);
                    match work.groups.len() {
                        0 => State::Done,
                        _ => State::Last(work.hand_on()?, 0, work.rows),
                    }
                }
            },
        };
    }
}

/// The groups of one partition so far.
struct Work {
    schema: SchemaRef,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    types: Vec<DataType>,
    groups: Groups,
    calls: Vec<Call>,
    /// The group of each row of the batch at hand.
    of_rows: Vec<u32>,
    /// The same, as accumulators want it.
    wide: Vec<usize>,
    reservation: MemoryReservation,
    metrics: BaselineMetrics,
    /// Rows of a batch that is handed on.
    rows: usize,
}

impl Work {
    /// Adds a batch; true if the groups should be handed on.
    fn add(&mut self, batch: &RecordBatch) -> Result<bool> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(false);
        }
        let _timer = self.metrics.elapsed_compute().clone();
        let _timer = _timer.timer();
        let keys = self
            .keys
            .iter()
            .map(|key| key.evaluate(batch)?.into_array(rows))
            .collect::<Result<Vec<ArrayRef>>>()?;
        self.groups.number(&keys, &mut self.of_rows)?;
        let (groups, in_runs) = (self.groups.len(), self.groups.come_in_runs());
        self.wide.clear();
        if self.calls.iter().any(|c| matches!(c.state, Accumulated::Other(_))) {
            self.wide.extend(self.of_rows.iter().map(|g| *g as usize));
        }
        for call in &mut self.calls {
            call.update(batch, &self.of_rows, &self.wide, groups, in_runs)?;
        }
        let bytes = self.groups.bytes() + self.calls.iter().map(Call::bytes).sum::<usize>();
        Ok(groups >= MOST_GROUPS || self.reservation.try_resize(bytes).is_err())
    }

    /// Gives keys and states of all groups, and begins anew.
    fn hand_on(&mut self) -> Result<RecordBatch> {
        let mut columns = self.groups.values()?;
        for call in &mut self.calls {
            columns.extend(call.take()?);
        }
        self.groups = Groups::new(&self.types)?;
        self.reservation.free();
        let batch = RecordBatch::try_new(self.schema.clone(), columns)?;
        self.metrics.record_output(batch.num_rows());
        Ok(batch)
    }
}

/// One aggregate.
struct Call {
    args: Vec<Arc<dyn PhysicalExpr>>,
    filter: Option<Arc<dyn PhysicalExpr>>,
    state: Accumulated,
}

enum Accumulated {
    /// count(*), by group.
    Rows(Vec<i64>),
    Other(Box<dyn GroupsAccumulator>),
}

impl Call {
    fn new(call: &AggregateFunctionExpr, filter: Option<Arc<dyn PhysicalExpr>>) -> Result<Self> {
        let args = call.expressions();
        let constant = |e: &Arc<dyn PhysicalExpr>| e.downcast_ref::<Literal>().is_some_and(|l| !l.value().is_null());
        let counts_rows =
            call.fun().name() == "count" && !call.is_distinct() && args.len() == 1 && args.iter().all(constant);
        let state = match counts_rows {
            true => Accumulated::Rows(Vec::new()),
            false => Accumulated::Other(call.create_groups_accumulator()?),
        };
        Ok(Call { args, filter, state })
    }

    fn bytes(&self) -> usize {
        match &self.state {
            Accumulated::Rows(counts) => counts.len() * 8,
            Accumulated::Other(other) => other.size(),
        }
    }

    fn update(&mut self, batch: &RecordBatch, of_rows: &[u32], wide: &[usize], groups: usize, in_runs: bool) -> Result<()> {
        let rows = batch.num_rows();
        let filter = match &self.filter {
            Some(filter) => Some(filter.evaluate(batch)?.into_array(rows)?),
            None => None,
        };
        let filter = filter.as_ref().map(|f| f.as_boolean());
        match &mut self.state {
            Accumulated::Rows(counts) => {
                counts.resize(groups, 0);
                count_rows(counts, of_rows, filter, in_runs);
                Ok(())
            }
            Accumulated::Other(other) => {
                let args = self
                    .args
                    .iter()
                    .map(|arg| arg.evaluate(batch)?.into_array(rows))
                    .collect::<Result<Vec<ArrayRef>>>()?;
                other.update_batch(&args, wide, filter, groups)
            }
        }
    }

    fn take(&mut self) -> Result<Vec<ArrayRef>> {
        match &mut self.state {
            Accumulated::Rows(counts) => Ok(vec![Arc::new(Int64Array::from(std::mem::take(counts)))]),
            Accumulated::Other(other) => other.state(EmitTo::All),
        }
    }
}

/// Every group of a row is below `counts.len()`.
fn count_rows(counts: &mut [i64], of_rows: &[u32], filter: Option<&BooleanArray>, in_runs: bool) {
    // Their count needs no row by row.
    if in_runs && of_rows.len() > TOGETHER && filter.is_none_or(|f| f.null_count() == 0) {
        for (n, some) in of_rows.chunks(TOGETHER).enumerate() {
            let part = filter.map(|f| f.slice(n * TOGETHER, some.len()));
            let first = some[0];
            if first == some[some.len() - 1] && some.iter().fold(true, |all, g| all & (*g == first)) {
                counts[first as usize] += part.map_or(some.len(), |f| f.true_count()) as i64;
            } else {
                count_rows(counts, some, part.as_ref(), false);
            }
        }
        return;
    }
    match filter {
        None => of_rows.iter().for_each(|g| counts[*g as usize] += 1),
        // NULL is not true.
        Some(filter) if filter.null_count() > 0 => {
            for (row, group) in of_rows.iter().enumerate() {
                counts[*group as usize] += i64::from(filter.is_valid(row) && filter.value(row));
            }
        }
        Some(filter) => {
            for (group, passes) in of_rows.iter().zip(filter.values()) {
                counts[*group as usize] += i64::from(passes);
            }
        }
    }
}
