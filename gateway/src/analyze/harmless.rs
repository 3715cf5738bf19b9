//! What can raise no error, whatever the rows: only that may be computed more, or less, often than PostgreSQL computes it. ✗ values.

use super::ir::{Expr, Kernel, Node, Rel};
use lake::types::ColType;

/// Whether computing the expression can raise no error, whatever the row.
pub(super) fn is_harmless(expr: &Expr) -> bool {
    match &expr.node {
        Node::Column(_) | Node::Constant(_) => true,
        Node::Compare(_, a, b) | Node::Distinct(a, b) | Node::NullIf(a, b) => is_harmless(a) && is_harmless(b),
        // Its items are constants.
        Node::InList { arg, .. } => is_harmless(arg),
        Node::And(items) | Node::Or(items) | Node::Coalesce(items) => items.iter().all(is_harmless),
        Node::Not(a) | Node::IsNull(a) | Node::IsNotNull(a) | Node::BoolTest(a, _) => is_harmless(a),
        Node::Case { whens, default } => {
            whens.iter().all(|(when, then)| is_harmless(when) && is_harmless(then)) && default.as_deref().is_none_or(is_harmless)
        }
        // What it may refuse, it refuses for PostgreSQL to answer.
        Node::Call(Kernel::Key { .. } | Kernel::NumericToText | Kernel::FloatPlace, args) => args.iter().all(is_harmless),
        // Every one of these numbers has a text and a float.
        Node::Call(Kernel::ToFloat | Kernel::ToText, args) => args.iter().all(|a| is_number(a.ty) && is_harmless(a)),
        // Patterns, arithmetic, casts and fields may raise one.
        _ => false,
    }
}

fn is_number(ty: ColType) -> bool {
    matches!(ty, ColType::Int2 | ColType::Int4 | ColType::Int8 | ColType::Numeric { .. })
}

/// Whether computing all of the relation can raise no error.
pub(super) fn is_harmless_rel(rel: &Rel) -> bool {
    match rel {
        Rel::OneRow | Rel::Scan { .. } | Rel::Values { .. } | Rel::Series { .. } => true,
        Rel::Filter { input, predicate } => is_harmless(predicate) && is_harmless_rel(input),
        Rel::Project { input, outputs, .. } => outputs.iter().all(|(_, e)| is_harmless(e)) && is_harmless_rel(input),
        Rel::Aggregate { input, groups, aggregates } => {
            let parts = aggregates.iter().flat_map(|a| a.arg.iter().chain(&a.filter)).chain(groups);
            parts.into_iter().all(is_harmless) && is_harmless_rel(input)
        }
        Rel::Sort { input, keys } => keys.iter().all(|k| is_harmless(&k.expr)) && is_harmless_rel(input),
        Rel::DistinctOn { input, sort, .. } => sort.iter().all(|k| is_harmless(&k.expr)) && is_harmless_rel(input),
        Rel::Window { input, calls } => calls.iter().flat_map(|c| c.reads()).all(is_harmless) && is_harmless_rel(input),
        Rel::Distinct { input } | Rel::Limit { input, .. } => is_harmless_rel(input),
        Rel::Join { left, right, on, .. } => {
            on.as_ref().is_none_or(is_harmless) && is_harmless_rel(left) && is_harmless_rel(right)
        }
        Rel::SetOp { left, right, .. } => is_harmless_rel(left) && is_harmless_rel(right),
        Rel::Attach { input, value } => is_harmless_rel(input) && is_harmless_rel(value),
        // More than one row is an error. Whatever else there is, is not known to be harmless.
        _ => false,
    }
}
