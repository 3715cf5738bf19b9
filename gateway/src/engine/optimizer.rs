//! Which of DataFusion's optimizer rules run. ✗ plans, statements.
//!
//! An allow-list by name: a rule that a new version brings does not run before somebody has looked at it,
//! and one that goes away stops the start. Left out of DataFusion 55.2, and why:
//!
//! - known to change answers: `rewrite_set_comparison` (ANY/ALL over one table, #25258),
//!   `decorrelate_predicate_subquery` (mark joins blind to NULL #21309, correlated NOT IN #25347, EXISTS over
//!   aggregates #24960 and OFFSET #25283), `scalar_subquery_to_join`, `decorrelate_lateral_join`. No plan has a
//!   subquery: analysis makes joins of those that are proven;
//! - rewrites of joins, windows and set operations that only make plans faster, and were not compared with
//!   PostgreSQL: `eliminate_join`, `eliminate_cross_join`, `eliminate_outer_join`, `filter_null_join_keys`,
//!   `optimize_unions`, `unions_to_filter`, `HashJoinBuffering`, `WindowTopN`, `LimitPushPastWindows`;
//! - not needed, and not covered by the comparison with PostgreSQL: `eliminate_group_by_constant`,
//!   `extract_leaf_expressions`, `push_down_leaf_projections`, `LimitAggregation` (a top-k in place of a
//!   grouped min or max), `PushdownSort`, `TopKRepartition`;
//! - the first pass of physical `FilterPushdown`: it hands every predicate to the Parquet reader, whose
//!   pruning takes any cast for monotone (`ts::time BETWEEN …` lost rows) and forgets that NaN is above its
//!   bounds. Our provider hands over what is proven safe instead. The second pass carries only the filters
//!   that a running top-k narrows; it is turned off for the plans where these could hold a cast or a float
//!   (see [`topk_filter_is_safe`]). Those of joins and aggregates are off.

use std::collections::HashSet;
use std::sync::Arc;

use crate::plan::step_of;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, LogicalPlan, SkipType, Sort};
use datafusion::optimizer::{ApplyOrder, Optimizer, OptimizerConfig, OptimizerRule};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::config::ConfigOptions;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::projection::ProjectionExec;

use super::coded::CodedAggregation;
use super::held::HoldWindows;

const LOGICAL: &[&str] = &[
    "simplify_expressions",
    "replace_distinct_aggregate",
    "extract_equijoin_predicate",
    "eliminate_duplicated_expr",
    "eliminate_filter",
    "eliminate_limit",
    "propagate_empty_relation",
    "push_down_limit",
    "push_down_filter",
    "single_distinct_aggregation_to_group_by",
    "common_sub_expression_eliminate",
    "optimize_projections",
];

const PHYSICAL: &[&str] = &[
    "OutputRequirements",
    "aggregate_statistics",
    "join_selection",
    "LimitedDistinctAggregation",
    "EnsureRequirements",
    "CombinePartialFinalAggregate",
    "OptimizeAggregateOrder",
    "ProjectionPushdown",
    "LimitPushdown",
    "EnsureCooperative",
    "FilterPushdown(Post)",
    "SanityCheckPlan",
];

fn missing<'a>(wanted: &[&'a str], found: &[&str]) -> Result<()> {
    match wanted.iter().find(|name| !found.contains(name)) {
        None => Ok(()),
        Some(name) => {
            Err(DataFusionError::Configuration(format!("this DataFusion has no optimizer rule {name}")))
        }
    }
}

/// The logical rules, in DataFusion's order.
pub(super) fn logical() -> Result<Vec<Arc<dyn OptimizerRule + Send + Sync>>> {
    let mut rules: Vec<_> = Optimizer::new().rules.into_iter().filter(|r| LOGICAL.contains(&r.name())).collect();
    missing(LOGICAL, &rules.iter().map(|r| r.name()).collect::<Vec<_>>())?;
    for rule in &mut rules {
        if rule.name() == "push_down_limit" {
            *rule = Arc::new(BehindSkipped(rule.clone()));
        }
    }
    Ok(rules)
}

/// The physical rules, in DataFusion's order, and ours for coded groups and for what windows hold.
pub(super) fn physical() -> Result<Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>>> {
    let mut rules: Vec<_> =
        PhysicalOptimizer::new().rules.into_iter().filter(|r| PHYSICAL.contains(&r.name())).collect();
    missing(PHYSICAL, &rules.iter().map(|r| r.name()).collect::<Vec<_>>())?;
    for rule in &mut rules {
        match rule.name() {
            "aggregate_statistics" => *rule = Arc::new(FromStatistics(rule.clone())),
            "LimitPushdown" => *rule = Arc::new(BehindSkipped(rule.clone())),
            _ => {}
        }
    }
    // The stages of an aggregation must still be apart.
    let at = rules.iter().position(|r| r.name() == "CombinePartialFinalAggregate").unwrap_or(rules.len());
    rules.insert(at, Arc::new(CodedAggregation));
    rules.push(Arc::new(HoldWindows));
    Ok(rules)
}

/// Answers from statistics, of counts, least and greatest values alone: of a column that shows a constant DataFusion's statistics have one value for
/// `count(DISTINCT x)` and 0 for the sum of 0, of no rows too.
#[derive(Debug)]
struct FromStatistics(Arc<dyn PhysicalOptimizerRule + Send + Sync>);

impl PhysicalOptimizerRule for FromStatistics {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let other = plan.exists(|node| {
            let aggregate = node.downcast_ref::<AggregateExec>();
            let known = |name: &str| matches!(name, "count" | "min" | "max");
            Ok(aggregate.is_some_and(|a| a.aggr_expr().iter().any(|call| call.is_distinct() || !known(call.fun().name()))))
        })?;
        if other { Ok(plan) } else { self.0.optimize(plan, config) }
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

/// Limits go below what is computed, unless they skip rows of which something is computed that may raise an error: PostgreSQL computes what it
/// skips. (Below a sort, all is computed; but DataFusion does not sort a single row.)
#[derive(Debug)]
struct BehindSkipped<R: ?Sized>(Arc<R>);

impl OptimizerRule for BehindSkipped<dyn OptimizerRule + Send + Sync> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let (mut node, mut skips) = (&plan, false);
        while let LogicalPlan::Limit(limit) = node {
            skips |= !matches!(limit.get_skip_type()?, SkipType::Literal(0));
            node = &limit.input;
        }
        let mut found = HashSet::new();
        if skips && let LogicalPlan::Projection(projection) = node {
            projection.expr.iter().try_for_each(|expr| steps_of(expr, &mut found))?;
        }
        if found.is_empty() { self.0.rewrite(plan, config) } else { Ok(Transformed::no(plan)) }
    }
}

impl PhysicalOptimizerRule for BehindSkipped<dyn PhysicalOptimizerRule + Send + Sync> {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let skips = plan.exists(|node| Ok(node.downcast_ref::<GlobalLimitExec>().is_some_and(|limit| limit.skip() > 0)))?;
        let step = |expr: &Arc<dyn PhysicalExpr>| {
            expr.exists(|e| Ok(e.downcast_ref::<ScalarFunctionExpr>().is_some_and(|call| step_of(call.fun()).is_some())))
        };
        let computes = plan.exists(|node| {
            let Some(projection) = node.downcast_ref::<ProjectionExec>() else { return Ok(false) };
            projection.expr().iter().try_fold(false, |found, output| Ok(found || step(&output.expr)?))
        })?;
        if skips && computes { Ok(plan) } else { self.0.optimize(plan, config) }
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

/// Whether anything in the plan is computed that may raise an error: rows that a top-k leaves out would not raise it, and PostgreSQL, which
/// computes what is selected before it sorts, does.
pub(super) fn computes(plan: &LogicalPlan) -> bool {
    use datafusion::logical_expr::{BinaryExpr, Operator};
    let mut found = false;
    let visited = plan.apply(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                let arithmetic = |op: &Operator| matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide | Operator::Modulo);
                found |= match e {
                    Expr::ScalarFunction(_) | Expr::Negative(_) => true,
                    Expr::BinaryExpr(BinaryExpr { op, .. }) => arithmetic(op),
                    _ => false,
                };
                Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })
        })
    });
    visited.is_err() || found
}

/// Whether the optimizer lost a step that may raise an error, or the rows of one: PostgreSQL takes it. (What analysis knows PostgreSQL not to
/// compute is in no plan.)
pub(crate) fn lost_a_step(before: &LogicalPlan, after: &LogicalPlan) -> Result<bool> {
    let before = steps(before)?;
    Ok(!before.is_empty() && (!before.is_subset(&steps(after)?) || drops_all(after)?))
}

fn steps(plan: &LogicalPlan) -> Result<HashSet<u64>> {
    let mut found = HashSet::new();
    plan.apply(|node| {
        node.apply_expressions(|expr| {
            steps_of(expr, &mut found)?;
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(found)
}

fn steps_of(expr: &Expr, found: &mut HashSet<u64>) -> Result<()> {
    expr.apply(|e| {
        if let Expr::ScalarFunction(call) = e {
            found.extend(step_of(&call.func));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

/// Whether a condition leaves out rows whatever they hold: such a one is tested before anything is computed, wherever it stood.
fn drops_all(plan: &LogicalPlan) -> Result<bool> {
    plan.exists(|node| {
        Ok(match node {
            LogicalPlan::Filter(filter) => split_conjunction(&filter.predicate).into_iter().any(|e| !e.any_column_refs()),
            LogicalPlan::TableScan(scan) => scan.filters.iter().flat_map(split_conjunction).any(|e| !e.any_column_refs()),
            _ => false,
        })
    })
}

/// Whether a top-k may stand over a union. DataFusion sorts the branches apart, and not by what is constant in each of them, though it differs
/// from one to the other; but they share the bound of the first rows (`SortExec`'s `TopKDynamicFilters`), and so drop each other's.
pub(super) fn tops_a_union(plan: &LogicalPlan) -> bool {
    let (mut united, mut first) = (false, false);
    let visited = plan.apply(|node| {
        united |= matches!(node, LogicalPlan::Union(_));
        first |= matches!(node, LogicalPlan::Limit(_) | LogicalPlan::Sort(Sort { fetch: Some(_), .. }));
        Ok(TreeNodeRecursion::Continue)
    });
    visited.is_err() || (united && first)
}

/// Whether the filters that a top-k gives to the scan can only compare columns of proven types: no cast
/// anywhere in the plan, nothing computed that may raise an error, and no sort key of another type.
pub(super) fn topk_filter_is_safe(plan: &LogicalPlan) -> bool {
    let mut safe = !computes(plan);
    let visited = plan.apply(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                if matches!(e, Expr::Cast(_) | Expr::TryCast(_)) {
                    safe = false;
                    return Ok(TreeNodeRecursion::Stop);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        if let LogicalPlan::Sort(sort) = node {
            for key in &sort.expr {
                use datafusion::logical_expr::ExprSchemable;
                safe &= matches!(
                    key.expr.get_type(sort.input.schema())?,
                    DataType::Boolean
                        | DataType::Int16
                        | DataType::Int32
                        | DataType::Int64
                        | DataType::Date32
                        | DataType::Timestamp(..)
                        | DataType::Decimal128(..)
                        | DataType::Utf8
                        | DataType::Utf8View
                );
            }
        }
        Ok(if safe { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    visited.is_ok() && safe
}
