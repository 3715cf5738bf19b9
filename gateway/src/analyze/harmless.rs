//! What can raise no error, whatever the rows: only that may be computed more, or less, often than PostgreSQL computes it. ✗ values.

use super::ir::{Expr, Kernel, Node, Rel};
use pgexact::scalar::Scalar;
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
        Node::Call(Kernel::Key { .. } | Kernel::NumericToText, args) => args.iter().all(is_harmless),
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

/// Whether a condition over rows that were joined, or a condition of a join, does arithmetic or casts that fail for some values. PostgreSQL tests
/// such a condition as early as it can, of rows that find no partner too; how early depends on its plan.
pub(super) fn joins_by_what_fails(rel: &Rel) -> bool {
    let own = match rel {
        Rel::Filter { input, predicate } => is_joined(input) && can_fail(predicate),
        Rel::Join { on, .. } => on.as_ref().is_some_and(can_fail),
        _ => false,
    };
    own || rel.inputs().into_iter().any(joins_by_what_fails)
}

fn is_joined(rel: &Rel) -> bool {
    match rel {
        Rel::Join { .. } => true,
        Rel::Filter { input, .. } | Rel::Project { input, .. } | Rel::Attach { input, .. } => is_joined(input),
        _ => false,
    }
}

fn can_fail(expr: &Expr) -> bool {
    match &expr.node {
        Node::Column(_) | Node::Constant(_) => false,
        Node::Compare(_, a, b) | Node::Distinct(a, b) | Node::NullIf(a, b) => can_fail(a) || can_fail(b),
        Node::InList { arg, .. } | Node::Like { arg, .. } | Node::DateBin { arg, .. } => can_fail(arg),
        Node::And(items) | Node::Or(items) | Node::Coalesce(items) => items.iter().any(can_fail),
        Node::Not(a) | Node::IsNull(a) | Node::IsNotNull(a) | Node::BoolTest(a, _) => can_fail(a),
        Node::Case { whens, default } => {
            whens.iter().any(|(when, then)| can_fail(when) || can_fail(then)) || default.as_deref().is_some_and(can_fail)
        }
        Node::Call(kernel, args) => fails(kernel) || args.iter().any(can_fail),
    }
}

fn fails(kernel: &Kernel) -> bool {
    matches!(
        kernel,
        Kernel::IntArith(_)
            | Kernel::IntNegate
            | Kernel::IntAbs
            | Kernel::IntCast
            | Kernel::NumericArith(_)
            | Kernel::TextArith(_)
            | Kernel::NumericDivide
            | Kernel::NumericCast
            | Kernel::CutQuotient(..)
            | Kernel::NumericToInt
            | Kernel::TextToInt
            | Kernel::TextToNumeric
            | Kernel::FloatArith(_)
            | Kernel::Float(_)
            | Kernel::FloatToInt
            | Kernel::EpochToInstant
            | Kernel::AddInterval { .. }
            | Kernel::AddDays { .. }
            | Kernel::Scalar(Scalar::Substr | Scalar::SplitPart | Scalar::Repeat | Scalar::LPad | Scalar::RPad)
    )
}
