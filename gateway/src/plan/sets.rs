//! Set operations and VALUES. Rows are told apart as GROUP BY tells them: NULL is not distinct from NULL. ✗ what is proven (`analyze::sets`).

use super::expr::scalar;
use super::{Built, PlanError, Planner, Result};
use crate::analyze::ir::{Constant, SetOp};
use datafusion::common::{Column, NullEquality, ScalarValue};
use datafusion::logical_expr::{Expr, JoinType, LogicalPlanBuilder};
use lake::types::ColType;
use std::collections::BTreeSet;

pub(super) fn set_op(planner: &mut Planner<'_>, op: SetOp, left: Built, right: Built) -> Result<Built> {
    let id = planner.number();
    // What only one side still has is needed by nobody.
    let width = left.names.len();
    let both = |n: &usize| matches!((left.names.get(*n), right.names.get(*n)), (Some(Some(_)), Some(Some(_))));
    let kept: Vec<usize> = (0..width).filter(both).collect();
    let side = |built: &Built, prefix: char| -> Result<(LogicalPlanBuilder, Vec<String>)> {
        let names: Vec<String> = kept.iter().map(|n| format!("{prefix}{id}_{n}")).collect();
        let mut outputs = Vec::with_capacity(kept.len());
        for (number, name) in kept.iter().zip(&names) {
            outputs.push(built.column(*number)?.alias(name));
        }
        if outputs.is_empty() {
            // Only the number of rows is wanted.
            outputs.push(Expr::Literal(ScalarValue::Boolean(Some(true)), None).alias(format!("{prefix}{id}")));
        }
        Ok((built.plan.clone().project(outputs)?, names))
    };
    let (left, left_names) = side(&left, 'r')?;
    let union = matches!(op, SetOp::UnionAll | SetOp::Union);
    let (right, right_names) = side(&right, if union { 'r' } else { 's' })?;
    let right = right.build()?;
    let keys = || {
        let columns = |names: &[String]| names.iter().map(|n| Column::new_unqualified(n.clone())).collect::<Vec<_>>();
        (columns(&left_names), columns(&right_names))
    };
    let plan = match op {
        SetOp::UnionAll => left.union(right)?,
        SetOp::Union => left.union(right)?.distinct()?,
        SetOp::Intersect | SetOp::Except if kept.len() < width => {
            return Err(PlanError::Internal("rows cannot be told apart".into()));
        }
        SetOp::Intersect | SetOp::Except => {
            let kind = if op == SetOp::Intersect { JoinType::LeftSemi } else { JoinType::LeftAnti };
            left.distinct()?.join_detailed(right, kind, keys(), None, NullEquality::NullEqualsNull)?
        }
    };
    let mut names = vec![None; width];
    for (number, name) in kept.iter().zip(left_names) {
        names[*number] = Some(name);
    }
    Ok(Built { plan, names, coded: BTreeSet::new() })
}

pub(super) fn values(planner: &mut Planner<'_>, rows: &[Vec<Constant>], types: &[ColType]) -> Result<Built> {
    let id = planner.number();
    let mut literals = Vec::with_capacity(rows.len());
    for row in rows {
        let mut items = Vec::with_capacity(row.len());
        for (constant, ty) in row.iter().zip(types) {
            items.push(Expr::Literal(scalar(planner.inputs.value(constant)?, *ty)?, None));
        }
        literals.push(items);
    }
    let plan = LogicalPlanBuilder::values(literals)?;
    let given: Vec<Column> = plan.schema().columns();
    let names: Vec<String> = (0..types.len()).map(|n| format!("r{id}_{n}")).collect();
    let outputs: Vec<Expr> = given.into_iter().zip(&names).map(|(c, name)| Expr::Column(c).alias(name)).collect();
    Ok(Built { plan: plan.project(outputs)?, names: names.into_iter().map(Some).collect(), coded: BTreeSet::new() })
}
