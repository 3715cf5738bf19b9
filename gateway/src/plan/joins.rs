//! Joins. Hash joins come of equalities between columns, or exact expressions, of one Arrow type, NULL being equal to nothing; any other condition
//! is tested pair by pair. ✗ which joins are proven (`analyze::joins`).

use super::kernel::{self, Function};
use super::{Built, PlanError, Planner, Result};
use crate::analyze::ir::{self, JoinKind};
use datafusion::common::{Column, ScalarValue};
use datafusion::functions_aggregate::{count, first_last};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Expr, JoinType};
use lake::types::ColType;
use std::collections::BTreeSet;

pub(super) fn join(
    planner: &Planner<'_>,
    kind: JoinKind,
    left: Built,
    right: Built,
    on: Option<&ir::Expr>,
) -> Result<Built> {
    let (mut names, mut coded) = (left.names, left.coded);
    let (width, left_coded) = (names.len(), coded.clone());
    coded.extend(right.coded.iter().map(|n| n + width));
    names.extend(right.names);
    let right = right.plan.build()?;
    let mut both = Built { plan: left.plan, names, coded };
    let on = match on {
        Some(on) => Some(planner.expressions(&both).expr(on)?),
        None => None,
    };
    let kind_of_join = match kind {
        JoinKind::Inner => JoinType::Inner,
        JoinKind::Left => JoinType::Left,
        JoinKind::Right => JoinType::Right,
        JoinKind::Full => JoinType::Full,
        JoinKind::Semi => JoinType::LeftSemi,
        JoinKind::Anti => JoinType::LeftAnti,
    };
    both.plan = match (kind, on) {
        (JoinKind::Inner, None) => both.plan.cross_join(right)?,
        (_, on) => {
            let always = Expr::Literal(ScalarValue::Boolean(Some(true)), None);
            both.plan.join_on(right, kind_of_join, [on.unwrap_or(always)])?
        }
    };
    if !kind.shows_right() {
        both.names.truncate(width);
        both.coded = left_coded;
    }
    Ok(both)
}

/// The one row of `value` beside every row of `input`: what is held in memory is the one row.
pub(super) fn attach(input: Built, value: Built) -> Result<Built> {
    let Built { plan, mut names, coded } = input;
    let first = value.column(0)?;
    let name = value.names.first().cloned().flatten().ok_or_else(|| PlanError::Internal("a value without name".into()))?;
    let value = value.plan.project([first.alias(&name)])?;
    names.push(Some(name));
    Ok(Built { plan: value.cross_join(plan.build()?)?, names, coded })
}

/// One row, whatever the input: its only row's first output, NULL if it has none, an error if it has more.
pub(super) fn single(planner: &mut Planner<'_>, input: Built, types: Vec<ColType>) -> Result<Built> {
    let ty = *types.first().ok_or_else(|| PlanError::Internal("a sub-select without column".into()))?;
    let id = planner.number();
    let column = |name: &str| Expr::Column(Column::new_unqualified(name));
    let (value, rows, only, name) = (format!("v{id}"), format!("c{id}"), format!("f{id}"), format!("r{id}_0"));
    let first = input.column(0)?.alias(&value);
    let call = |function, arg| Expr::AggregateFunction(AggregateFunction::new_udf(function, vec![arg], false, None, vec![], None));
    let one = Expr::Literal(ScalarValue::Int64(Some(1)), None);
    let calls = vec![
        call(count::count_udaf(), one).alias(&rows),
        call(first_last::first_value_udaf(), column(&value)).alias(&only),
    ];
    // Two rows are as many too many as a million.
    let plan = input.plan.project([first])?.limit(0, Some(2))?.aggregate(Vec::<Expr>::new(), calls)?;
    let checked = kernel::call(Function::Single, vec![column(&rows), column(&only)], ty.arrow());
    let plan = plan.project([checked.alias(&name)])?;
    Ok(Built { plan, names: vec![Some(name)], coded: BTreeSet::new() })
}
