//! What can raise no error, whatever the rows: only that may be computed more, or less, often than PostgreSQL computes it. ✗ values.

use super::ir::{Arith, Constant, Expr, Kernel, Node, Rel, Word};
use lake::types::ColType;
use pgexact::scalar::Scalar;
use pgtree::value::Value;

/// Whether computing the expression can raise no error in PostgreSQL, whatever the row. (Where the lake cannot go on, PostgreSQL answers.)
pub(crate) fn is_harmless(expr: &Expr) -> bool {
    !may_fail(expr) && expr.children().into_iter().all(is_harmless)
}

/// Whether the last step of computing the expression may raise an error, those before it left aside.
pub(crate) fn may_fail(expr: &Expr) -> bool {
    match &expr.node {
        Node::Column(_) | Node::Constant(_) | Node::Compare(..) | Node::Distinct(..) | Node::NullIf(..) => false,
        // Its items are constants.
        Node::InList { .. } | Node::And(_) | Node::Or(_) | Node::Coalesce(_) | Node::Case { .. } => false,
        Node::Not(_) | Node::IsNull(_) | Node::IsNotNull(_) | Node::BoolTest(..) => false,
        // A pattern must not end within an escape, which is found out where the text before it matches.
        Node::Like { pattern, .. } => !matches!(pattern, Constant::Literal(Value::Text(p)) if !p.ends_with('\\')),
        Node::DateBin { .. } => true,
        Node::Call(kernel, args) => fails(kernel, args, expr.ty),
    }
}

fn fails(kernel: &Kernel, args: &[Expr], ty: ColType) -> bool {
    let literal = |n: usize| match args.get(n).and_then(Expr::as_constant) {
        Some(Constant::Literal(Value::Int2(v))) => Some(i64::from(*v)),
        Some(Constant::Literal(Value::Int4(v))) => Some(i64::from(*v)),
        Some(Constant::Literal(Value::Int8(v))) => Some(*v),
        _ => None,
    };
    let of = |n: usize| args.get(n).map(|a| a.ty);
    match kernel {
        Kernel::Key { .. } | Kernel::NumericToText | Kernel::FloatPlace => false,
        // Every one of these numbers has a float, everything a text.
        Kernel::ToFloat => !args.iter().all(|a| is_number(a.ty)),
        Kernel::ToText | Kernel::TextConcat | Kernel::TextLength => false,
        // The least integer divided by -1 is none.
        Kernel::IntArith(Arith::Div) => literal(1).is_none_or(|v| v == 0 || v == -1),
        Kernel::IntArith(Arith::Mod) => literal(1).is_none_or(|v| v == 0),
        Kernel::IntCast => !matches!(
            (of(0), ty),
            (Some(ColType::Int2), ColType::Int2 | ColType::Int4 | ColType::Int8)
                | (Some(ColType::Int4), ColType::Int4 | ColType::Int8)
                | (Some(ColType::Int8), ColType::Int8)
        ),
        // With as many digits before the point and after it, every number fits.
        Kernel::NumericCast => match (of(0).and_then(digits), digits(ty)) {
            (Some((before, after)), Some((wide, long))) => wide < before || long < after,
            _ => true,
        },
        // PostgreSQL's own have 131,072 digits.
        Kernel::NumericArith(Arith::Add | Arith::Sub | Arith::Mul) => false,
        Kernel::NumericNegate | Kernel::NumericAbs | Kernel::NumericRound(_) | Kernel::Cut(..) | Kernel::Sign | Kernel::Extreme { .. } => false,
        Kernel::TimestampToDate | Kernel::TimestampTzToDate | Kernel::Extract(_) => false,
        Kernel::JsonbField { .. } | Kernel::JsonbElement { .. } | Kernel::JsonbPath { .. } => false,
        Kernel::ILike { pattern: Word::Literal(p), .. } => p.ends_with('\\'),
        Kernel::Regex { pattern: Word::Literal(_), .. } => false,
        Kernel::Scalar(Scalar::Substr) => literal(1).is_none() || (args.len() > 2 && literal(2).is_none_or(|v| v < 0)),
        Kernel::Scalar(Scalar::SplitPart) => literal(2).is_none_or(|v| v == 0),
        Kernel::Scalar(
            Scalar::OctetLength
            | Scalar::BitLength
            | Scalar::Ascii
            | Scalar::Left
            | Scalar::Right
            | Scalar::Position
            | Scalar::BTrim
            | Scalar::LTrim
            | Scalar::RTrim
            | Scalar::Reverse
            | Scalar::StartsWith
            | Scalar::Md5
            | Scalar::LowerC
            | Scalar::UpperC
            | Scalar::LowerAscii
            | Scalar::UpperAscii
            | Scalar::Concat
            | Scalar::ConcatWs
            | Scalar::BitAnd
            | Scalar::BitOr
            | Scalar::BitXor
            | Scalar::BitNot
            | Scalar::BoolText
            | Scalar::BoolInt
            | Scalar::IntBool,
        ) => false,
        // Arithmetic, casts and whatever else there is.
        _ => true,
    }
}

/// The most digits that the type's numbers have before the point, and after it.
fn digits(ty: ColType) -> Option<(i16, i16)> {
    match ty {
        ColType::Int2 => Some((5, 0)),
        ColType::Int4 => Some((10, 0)),
        ColType::Int8 => Some((19, 0)),
        ColType::Numeric { precision, scale } => Some((i16::from(precision) - i16::from(scale), i16::from(scale))),
        _ => None,
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
        Rel::After { first, then } => first.iter().all(is_harmless_rel) && is_harmless_rel(then),
        // More than one row is an error. Whatever else there is, is not known to be harmless.
        _ => false,
    }
}
