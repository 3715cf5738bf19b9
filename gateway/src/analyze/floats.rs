//! Floats: where -0 and NaN would show. They compare by their place in PostgreSQL's order (`Kernel::FloatPlace`), which is exact for all of them.
//! But of values that are equal and not the same (-0 and 0, NaNs of other bits) PostgreSQL shows the one that it met first: where one value stands
//! for several, in groups and extremes, none of them may be such. That is known of some expressions, and of columns as a fact of the files and the
//! tail that are read. ✗ looking at files.

use super::ir::{Aggregate, Constant, Expr, Kernel, Node, Rel, SetOp};
use lake::types::ColType;
use pgtree::oid::Aggregate as Kind;
use pgtree::value::Value;

/// Where floats come from unchanged.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// A column: relation and attribute number.
    Column(u32, i16),
    Constant(Constant),
}

pub(super) fn is_float(ty: ColType) -> bool {
    matches!(ty, ColType::Float4 | ColType::Float8)
}

/// The float's place, of which equal ones are the same.
pub(super) fn placed(expr: Expr) -> Expr {
    Expr { node: Node::Call(Kernel::FloatPlace, vec![expr]), ty: ColType::Int8 }
}

/// Whether the expression is neither NaN nor -0, whatever the rows: what `date_part` gives is such, and what was an integer or a numeric (of which
/// NaN is refused).
pub(super) fn is_plain(expr: &Expr) -> bool {
    expr.ty == ColType::Float8
        && matches!(&expr.node, Node::Call(Kernel::Extract(_) | Kernel::EpochBetween | Kernel::ToFloat, _))
}

/// Whether the output of a relation is such a float.
pub(super) fn plain_output(rel: &Rel, number: usize) -> bool {
    of_output(rel, number).is_some_and(|sources| sources.is_empty())
}

/// The columns and constants that must have plain floats only, so that `plan` shows what PostgreSQL shows. The error names what no column's fact decides.
pub(super) fn facts(plan: &Rel) -> Result<Vec<Source>, String> {
    let mut sources = Vec::new();
    let mut rels = vec![plan];
    while let Some(rel) = rels.pop() {
        rels.extend(rel.inputs());
        let mut need = |found: Option<Vec<Source>>, place: &str| match found {
            Some(found) => {
                for source in found {
                    if !sources.contains(&source) {
                        sources.push(source);
                    }
                }
                Ok(())
            }
            None => Err(format!("{place} of floats that are computed")),
        };
        match rel {
            Rel::Aggregate { input, groups, aggregates } => {
                for group in groups.iter().filter(|g| is_float(g.ty)) {
                    need(of(group, input), "GROUP BY")?;
                }
                for aggregate in aggregates {
                    if let (Kind::Min | Kind::Max, Some(arg)) = (aggregate.kind, aggregate.arg.as_ref().filter(|a| is_float(a.ty))) {
                        need(of(arg, input), "min or max")?;
                    }
                }
            }
            Rel::Distinct { input } => {
                for (number, _) in input.types().iter().enumerate().filter(|(_, ty)| is_float(**ty)) {
                    need(of_output(input, number), "DISTINCT")?;
                }
            }
            _ => {}
        }
    }
    Ok(sources)
}

/// Whose values an expression shows unchanged; nobody's, if it is plain whatever the rows.
fn of(expr: &Expr, input: &Rel) -> Option<Vec<Source>> {
    match &expr.node {
        _ if is_plain(expr) => Some(Vec::new()),
        Node::Column(number) => of_output(input, *number),
        Node::Constant(constant) => Some(vec![Source::Constant(constant.clone())]),
        Node::Coalesce(items) => all(items.iter().map(|e| of(e, input))),
        Node::NullIf(value, _) => of(value, input),
        Node::Case { whens, default } => all(whens.iter().map(|(_, then)| then).chain(default.as_deref()).map(|e| of(e, input))),
        _ => None,
    }
}

fn of_output(rel: &Rel, number: usize) -> Option<Vec<Source>> {
    match rel {
        Rel::Scan { source, columns, .. } => {
            columns.iter().find(|c| c.output == number).map(|c| vec![Source::Column(*source, c.attnum)])
        }
        Rel::Project { input, outputs, .. } => {
            outputs.iter().find(|(output, _)| *output == number).and_then(|(_, expr)| of(expr, input))
        }
        Rel::Aggregate { input, groups, aggregates } => match number.checked_sub(groups.len()) {
            None => of(groups.get(number)?, input),
            Some(call) => match aggregates.get(call)? {
                Aggregate { kind: Kind::Min | Kind::Max, arg: Some(arg), .. } => of(arg, input),
                _ => None,
            },
        },
        Rel::Filter { input, .. }
        | Rel::Distinct { input }
        | Rel::Sort { input, .. }
        | Rel::Limit { input, .. }
        | Rel::Single { input }
        | Rel::After { then: input, .. }
        | Rel::DistinctOn { input, .. } => of_output(input, number),
        Rel::Join { left, right, .. } => match number.checked_sub(left.width()) {
            None => of_output(left, number),
            Some(number) => of_output(right, number),
        },
        Rel::Attach { input, value } => match number < input.width() {
            true => of_output(input, number),
            false => of_output(value, 0),
        },
        Rel::Window { input, .. } if number < input.width() => of_output(input, number),
        Rel::SetOp { op: SetOp::UnionAll, left, right } => all([of_output(left, number), of_output(right, number)].into_iter()),
        Rel::SetOp { .. } | Rel::Window { .. } | Rel::Values { .. } | Rel::Series { .. } | Rel::OneRow => None,
    }
}

fn all(found: impl Iterator<Item = Option<Vec<Source>>>) -> Option<Vec<Source>> {
    found.collect::<Option<Vec<_>>>().map(|found| found.concat())
}

/// Whether a float is neither NaN nor -0.
pub fn is_plain_value(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Float4(v) => !v.is_nan() && (*v != 0.0 || v.is_sign_positive()),
        Value::Float8(v) => !v.is_nan() && (*v != 0.0 || v.is_sign_positive()),
        _ => false,
    }
}
