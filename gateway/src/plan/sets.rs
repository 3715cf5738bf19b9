//! Set operations, VALUES and `generate_series`. Rows are told apart as GROUP BY tells them: NULL is not distinct from NULL. ✗ what is proven (`analyze::sets`).

use super::expr::scalar;
use super::{Built, PlanError, Planner, Result, Value, kernel};
use crate::analyze::ir::{Constant, SetOp};
use datafusion::arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::common::{Column, NullEquality, ScalarValue};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Expr, JoinType, LogicalPlanBuilder};
use lake::types::ColType;
use pgexact::series;
use std::collections::BTreeSet;
use std::sync::Arc;

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

/// The values of `generate_series`, which are few. One of NULL has none.
pub(super) fn generated(
    planner: &mut Planner<'_>,
    start: &Constant,
    stop: &Constant,
    step: Option<&Constant>,
    ty: ColType,
) -> Result<Built> {
    let inputs = planner.inputs;
    let step = step.map(|step| inputs.value(step)).transpose()?;
    let misfit = || PlanError::Internal("a series of another type".into());
    // PostgreSQL raises some of them, if the series is read at all.
    let unproven = |e: pgexact::PgError| PlanError::Unproven(e.message);
    let values = match (inputs.value(start)?, inputs.value(stop)?, step) {
        (Value::Null, ..) | (_, Value::Null, _) | (.., Some(Value::Null)) => Vec::new(),
        (Value::Int4(start), Value::Int4(stop), step) => {
            let step = match step {
                None => 1,
                Some(Value::Int4(step)) => i64::from(*step),
                Some(_) => return Err(misfit()),
            };
            series::integers((*start).into(), (*stop).into(), step, i32::MAX.into()).map_err(unproven)?
        }
        (Value::Int8(start), Value::Int8(stop), step) => {
            let step = match step {
                None => 1,
                Some(Value::Int8(step)) => *step,
                Some(_) => return Err(misfit()),
            };
            series::integers(*start, *stop, step, i64::MAX).map_err(unproven)?
        }
        (Value::Timestamp(start), Value::Timestamp(stop), Some(step)) => {
            series::instants(*start, *stop, kernel::interval_of(step)?, None).map_err(unproven)?
        }
        (Value::TimestampTz(start), Value::TimestampTz(stop), Some(step)) => {
            series::instants(*start, *stop, kernel::interval_of(step)?, Some(&inputs.zone)).map_err(unproven)?
        }
        _ => return Err(misfit()),
    };
    let array: ArrayRef = match ty {
        // Each came from an int4.
        ColType::Int4 => Arc::new(Int32Array::from_iter_values(values.into_iter().map(|v| v as i32))),
        ColType::Int8 => Arc::new(Int64Array::from(values)),
        ColType::Timestamp => Arc::new(TimestampMicrosecondArray::from(values)),
        ColType::TimestampTz => Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC")),
        _ => return Err(misfit()),
    };
    let id = planner.number();
    let schema = Arc::new(Schema::new(vec![Field::new("value", ty.arrow(), false)]));
    let batch = RecordBatch::try_new(schema.clone(), vec![array]).map_err(|e| PlanError::Internal(e.to_string()))?;
    let rows = crate::engine::memory_provider(schema, vec![batch]).map_err(|e| PlanError::Internal(e.to_string()))?;
    let (table, name) = (format!("t{id}"), format!("r{id}_0"));
    let plan = LogicalPlanBuilder::scan(table.clone(), provider_as_source(rows), None)?;
    let value = Expr::Column(Column::new(Some(table), "value")).alias(&name);
    Ok(Built { plan: plan.project(vec![value])?, names: vec![Some(name)], coded: BTreeSet::new() })
}
