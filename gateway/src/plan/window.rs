//! Window functions, and DISTINCT ON. Arguments, partitions and orders are columns computed below, averages are finished above.
//! ✗ which are proven (`analyze::window`, `analyze::grouping`).

use super::kernel::{self, Function};
use super::{Built, PlanError, Planner, Result, summed};
use crate::analyze::ir::{self, Bound, Frame, FrameUnits, SortKey, WindowCall, WindowFunction};
use datafusion::common::{Column, ScalarValue};
use datafusion::functions_aggregate::{bool_and_or, count, first_last, min_max, sum};
use datafusion::functions_window::{lead_lag, nth_value, rank, row_number};
use datafusion::logical_expr::expr::{AggregateFunction, Sort, WindowFunction as Call, WindowFunctionParams};
use datafusion::logical_expr::{
    Cast, Expr, LogicalPlanBuilder, WindowFrame, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition,
};
use lake::types::ColType;
use pgtree::oid::Aggregate as Kind;
use std::collections::BTreeSet;

fn column(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}

pub(super) fn window(planner: &mut Planner<'_>, input: Built, calls: &[WindowCall]) -> Result<Built> {
    let id = planner.number();
    // The input's own outputs pass through under their names.
    let mut below: Vec<Expr> =
        input.names.iter().flatten().map(|name| column(name)).collect();
    let mut names = input.names.clone();
    let mut windows: Vec<(String, Expr)> = Vec::new();
    let mut above: Vec<Expr> = below.clone();
    let mut next = 0usize;
    for call in calls {
        let mut put = |expr: Expr| {
            let name = format!("w{id}_{next}");
            next += 1;
            below.push(expr.alias(&name));
            column(&name)
        };
        let expressions = planner.expressions(&input);
        let mut partition = Vec::with_capacity(call.partition.len());
        for expr in &call.partition {
            partition.push(put(expressions.expr(expr)?));
        }
        let mut order = Vec::with_capacity(call.order.len());
        for key in &call.order {
            let sort = planner.sort_key(&input, key)?;
            order.push(Sort::new(put(sort.expr), sort.asc, sort.nulls_first));
        }
        let filter = match &call.filter {
            Some(filter) => Some(put(expressions.expr(filter)?)),
            None => None,
        };
        let arg = match (call.args.first(), call.function) {
            (Some(arg), WindowFunction::Aggregate(kind)) => Some(put(summed(expressions.expr(arg)?, kind, arg.ty))),
            (Some(arg), _) => Some(put(expressions.expr(arg)?)),
            (None, _) => None,
        };
        let frame = frame(&call.frame, order.is_empty())?;
        let mut over = |fun: WindowFunctionDefinition, args: Vec<Expr>| {
            let params = WindowFunctionParams {
                args,
                partition_by: partition.clone(),
                order_by: order.clone(),
                window_frame: frame.clone(),
                filter: filter.clone().map(Box::new),
                null_treatment: None,
                distinct: false,
            };
            // Its result is found by the name that it has as an expression.
            let call = Expr::WindowFunction(Box::new(Call { fun, params }));
            let name = call.schema_name().to_string();
            if !windows.iter().any(|(known, _)| *known == name) {
                windows.push((name.clone(), call));
            }
            column(&name)
        };
        let udf = WindowFunctionDefinition::WindowUDF;
        let aggregate = WindowFunctionDefinition::AggregateUDF;
        let bigint = |e: Expr| Expr::Cast(Cast::new(Box::new(e), ColType::Int8.arrow()));
        let missing = || PlanError::Internal("a window function without argument".into());
        let result = match call.function {
            WindowFunction::RowNumber => bigint(over(udf(row_number::row_number_udwf()), vec![])),
            WindowFunction::Rank => bigint(over(udf(rank::rank_udwf()), vec![])),
            WindowFunction::DenseRank => bigint(over(udf(rank::dense_rank_udwf()), vec![])),
            WindowFunction::Lag(distance) => {
                let mut args = vec![arg.ok_or_else(missing)?, literal(ScalarValue::Int64(Some(distance)))];
                if let Some(default) = call.args.get(1) {
                    args.push(expressions.expr(default)?);
                }
                over(udf(lead_lag::lag_udwf()), args)
            }
            WindowFunction::FirstValue => over(udf(nth_value::first_value_udwf()), vec![arg.ok_or_else(missing)?]),
            WindowFunction::LastValue => over(udf(nth_value::last_value_udwf()), vec![arg.ok_or_else(missing)?]),
            WindowFunction::Aggregate(kind) => match (kind, arg) {
                (Kind::CountStar, _) => over(aggregate(count::count_udaf()), vec![literal(ScalarValue::Int64(Some(1)))]),
                (Kind::Count, Some(arg)) => over(aggregate(count::count_udaf()), vec![arg]),
                (Kind::Sum, Some(arg)) => over(aggregate(sum::sum_udaf()), vec![arg]),
                (Kind::Avg, Some(arg)) => {
                    let sum = over(aggregate(sum::sum_udaf()), vec![arg.clone()]);
                    let count = over(aggregate(count::count_udaf()), vec![arg]);
                    kernel::call(Function::Average, vec![sum, count], ColType::NumericText.arrow())
                }
                (Kind::Min, Some(arg)) => over(aggregate(min_max::min_udaf()), vec![arg]),
                (Kind::Max, Some(arg)) => over(aggregate(min_max::max_udaf()), vec![arg]),
                (Kind::BoolAnd, Some(arg)) => over(aggregate(bool_and_or::bool_and_udaf()), vec![arg]),
                (Kind::BoolOr, Some(arg)) => over(aggregate(bool_and_or::bool_or_udaf()), vec![arg]),
                _ => return Err(missing()),
            },
        };
        let out = format!("r{id}_{}", names.len());
        above.push(typed(result, call.ty).alias(&out));
        names.push(Some(out));
    }
    let plan = input.plan.project(below)?;
    let exprs: Vec<Expr> = windows.into_iter().map(|(_, expr)| expr).collect();
    let plan = LogicalPlanBuilder::window_plan(plan.build()?, exprs)?;
    let plan = LogicalPlanBuilder::new(plan).project(above)?;
    Ok(Built { plan, names, coded: input.coded })
}

fn literal(value: ScalarValue) -> Expr {
    Expr::Literal(value, None)
}

/// Sums of decimals come with the precision that the analysis gave them, or with one that is as wide.
fn typed(expr: Expr, ty: ColType) -> Expr {
    match ty {
        ColType::Numeric { .. } => Expr::Cast(Cast::new(Box::new(expr), ty.arrow())),
        _ => expr,
    }
}

fn frame(frame: &Frame, unordered: bool) -> Result<WindowFrame> {
    let rows = |n: u64| ScalarValue::UInt64(Some(n));
    let nothing = ScalarValue::UInt64(None);
    // Without an order all rows are peers.
    let all = unordered && frame.units == FrameUnits::Range;
    let start = match frame.start {
        Bound::Current if all => WindowFrameBound::Preceding(nothing.clone()),
        Bound::First => WindowFrameBound::Preceding(nothing.clone()),
        Bound::Preceding(n) => WindowFrameBound::Preceding(rows(n)),
        Bound::Current => WindowFrameBound::CurrentRow,
        Bound::Following(n) => WindowFrameBound::Following(rows(n)),
        Bound::Last => return Err(PlanError::Internal("a frame that begins at the end".into())),
    };
    let end = match frame.end {
        Bound::Current if all => WindowFrameBound::Following(nothing),
        Bound::Last => WindowFrameBound::Following(nothing),
        Bound::Preceding(n) => WindowFrameBound::Preceding(rows(n)),
        Bound::Current => WindowFrameBound::CurrentRow,
        Bound::Following(n) => WindowFrameBound::Following(rows(n)),
        Bound::First => return Err(PlanError::Internal("a frame that ends at the beginning".into())),
    };
    let units = match frame.units {
        FrameUnits::Rows => WindowFrameUnits::Rows,
        // Over all rows, both are the same, and an order by several columns is allowed.
        FrameUnits::Range if all => WindowFrameUnits::Rows,
        // Groups are peers by all columns of the order.
        FrameUnits::Range => WindowFrameUnits::Groups,
    };
    Ok(WindowFrame::new_bounds(units, start, end))
}

/// The first row of each group by `sort`: of every other column the first value by that order, which is one and the same row's, or one that
/// looks the same.
pub(super) fn distinct_on(
    planner: &mut Planner<'_>,
    input: Built,
    keys: &[usize],
    sort: &[SortKey],
    types: &[ColType],
) -> Result<Built> {
    let id = planner.number();
    let width = input.names.len();
    let mut below = Vec::new();
    let mut order = Vec::with_capacity(sort.len());
    for (number, key) in sort.iter().enumerate() {
        let name = format!("s{id}_{number}");
        let key = planner.sort_key(&input, key)?;
        below.push(key.expr.alias(&name));
        order.push(Sort::new(column(&name), key.asc, key.nulls_first));
    }
    let mut groups = Vec::new();
    let mut calls = Vec::new();
    let mut names: Vec<Option<String>> = vec![None; width];
    for number in (0..width).filter(|n| input.names[*n].is_some()) {
        let (name, out) = (format!("v{id}_{number}"), format!("r{id}_{number}"));
        let ty = types.get(number).ok_or_else(|| PlanError::Internal("an output without type".into()))?;
        below.push(planner.expressions(&input).expr(&ir::Expr::column(number, *ty))?.alias(&name));
        if keys.contains(&number) {
            groups.push(column(&name).alias(&out));
        } else {
            let first = first_last::first_value_udaf();
            let call = AggregateFunction::new_udf(first, vec![column(&name)], false, None, order.clone(), None);
            calls.push(Expr::AggregateFunction(call).alias(&out));
        }
        names[number] = Some(out);
    }
    let plan = input.plan.project(below)?.aggregate(groups, calls)?;
    Ok(Built { plan, names, coded: BTreeSet::new() })
}
