//! The numeric kernels on Arrow arrays. Knows array types; leaves the arithmetic to the parent.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanArray, Decimal256Builder, Int64Array, StringViewBuilder,
};
use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, Int16Type, Int32Type, Int64Type, i256};

use super::{Numeric, average_text, divide_text};
use crate::PgError;
use crate::arith::BinaryOp;

/// Values of an integer or decimal array as mantissas of one scale.
enum Mantissas<'a> {
    Int16(&'a arrow::array::Int16Array),
    Int32(&'a arrow::array::Int32Array),
    Int64(&'a Int64Array),
    Decimal128(&'a arrow::array::Decimal128Array, u8),
    Decimal256(&'a arrow::array::Decimal256Array, u8),
}

fn unsupported(data_type: &DataType) -> PgError {
    PgError::not_exact(format!("no exact numeric kernel for {data_type}"))
}

impl<'a> Mantissas<'a> {
    fn of(array: &'a dyn Array) -> Result<Self, PgError> {
        Ok(match array.data_type() {
            DataType::Int16 => Self::Int16(array.as_primitive::<Int16Type>()),
            DataType::Int32 => Self::Int32(array.as_primitive::<Int32Type>()),
            DataType::Int64 => Self::Int64(array.as_primitive::<Int64Type>()),
            DataType::Decimal128(_, s) if *s >= 0 => {
                Self::Decimal128(array.as_primitive::<Decimal128Type>(), *s as u8)
            }
            DataType::Decimal256(_, s) if *s >= 0 => {
                Self::Decimal256(array.as_primitive::<Decimal256Type>(), *s as u8)
            }
            other => return Err(unsupported(other)),
        })
    }

    fn scale(&self) -> u8 {
        match self {
            Self::Decimal128(_, s) | Self::Decimal256(_, s) => *s,
            _ => 0,
        }
    }

    fn value(&self, i: usize) -> i256 {
        match self {
            Self::Int16(a) => i256::from_i128(a.value(i).into()),
            Self::Int32(a) => i256::from_i128(a.value(i).into()),
            Self::Int64(a) => i256::from_i128(a.value(i).into()),
            Self::Decimal128(a, _) => i256::from_i128(a.value(i)),
            Self::Decimal256(a, _) => a.value(i),
        }
    }
}

fn same_length(a: &dyn Array, b: &dyn Array) -> Result<(), PgError> {
    if a.len() == b.len() {
        Ok(())
    } else {
        Err(PgError::not_exact(format!("arrays of {} and {} rows", a.len(), b.len())))
    }
}

/// numeric `/` row by row over integers and decimals; NULL if either is. Gives PostgreSQL's text
/// (Utf8View). 22012 for a zero divisor in a row where neither is NULL.
pub fn divide(a: &dyn Array, b: &dyn Array) -> Result<ArrayRef, PgError> {
    same_length(a, b)?;
    let (x, y) = (Mantissas::of(a)?, Mantissas::of(b)?);
    let mut out = StringViewBuilder::with_capacity(a.len());
    for i in 0..a.len() {
        if a.is_null(i) || b.is_null(i) {
            out.append_null();
        } else {
            out.append_value(divide_text(x.value(i), x.scale(), y.value(i), y.scale())?);
        }
    }
    Ok(Arc::new(out.finish()))
}

/// Finishes `avg`: exact sums (integers or decimals) over counts (Int64), as PostgreSQL's text
/// (Utf8View). NULL where the sum is NULL or the count is 0.
pub fn average(sums: &dyn Array, counts: &dyn Array) -> Result<ArrayRef, PgError> {
    same_length(sums, counts)?;
    let x = Mantissas::of(sums)?;
    let n = counts.as_primitive_opt::<Int64Type>().ok_or_else(|| unsupported(counts.data_type()))?;
    let mut out = StringViewBuilder::with_capacity(sums.len());
    for i in 0..sums.len() {
        if sums.is_null(i) || n.is_null(i) || n.value(i) == 0 {
            out.append_null();
        } else {
            out.append_value(average_text(x.value(i), x.scale(), n.value(i))?);
        }
    }
    Ok(Arc::new(out.finish()))
}

/// `a op b` row by row over numerics in any representation, as PostgreSQL's text (`numeric_add`, `numeric_sub`, `numeric_mul`, `numeric_div`).
/// NaN, infinities and more than 76 digits are refused.
pub fn arith(op: BinaryOp, a: &dyn Array, b: &dyn Array) -> Result<ArrayRef, PgError> {
    same_length(a, b)?;
    let mut out = StringViewBuilder::with_capacity(a.len());
    for i in 0..a.len() {
        match (numeric_at(a, i)?, numeric_at(b, i)?) {
            (Some(Numeric::Finite(a)), Some(Numeric::Finite(b))) => {
                out.append_value(a.arith(op, &b)?.to_string())
            }
            (None, _) | (_, None) => out.append_null(),
            _ => return Err(PgError::not_exact("arithmetic with NaN or infinity")),
        }
    }
    Ok(Arc::new(out.finish()))
}

/// Sums of values of several scales, kept at the largest that there may be, shown at the largest that there was (Int32): as PostgreSQL's
/// text. With `counts` (Int64), their averages. NULL where the sum is NULL or the count is 0.
pub fn rescale(sums: &dyn Array, scales: &dyn Array, counts: Option<&dyn Array>) -> Result<ArrayRef, PgError> {
    let DataType::Decimal128(_, kept) = sums.data_type() else { return Err(unsupported(sums.data_type())) };
    let values = sums.as_primitive::<Decimal128Type>();
    let shown = scales.as_primitive_opt::<Int32Type>().ok_or_else(|| unsupported(scales.data_type()))?;
    let counts = match counts {
        Some(counts) => Some(
            counts.as_primitive_opt::<Int64Type>().ok_or_else(|| unsupported(counts.data_type()))?,
        ),
        None => None,
    };
    let mut out = StringViewBuilder::with_capacity(sums.len());
    for i in 0..sums.len() {
        if sums.is_null(i) || shown.is_null(i) || counts.is_some_and(|n| n.is_null(i) || n.value(i) == 0) {
            out.append_null();
            continue;
        }
        let beyond = || PgError::not_exact("a sum has more digits than were counted");
        let scale = u8::try_from(shown.value(i)).map_err(|_| beyond())?;
        let zeros = u32::try_from(i32::from(*kept) - i32::from(scale)).map_err(|_| beyond())?;
        let unit = 10i128.checked_pow(zeros).ok_or_else(beyond)?;
        if values.value(i) % unit != 0 {
            return Err(beyond());
        }
        let value = values.value(i) / unit;
        match counts {
            Some(counts) => out.append_value(average_text(i256::from_i128(value), scale, counts.value(i))?),
            None => out.append_value(super::Decimal::from_i128(value, scale.into()).to_string()),
        }
    }
    Ok(Arc::new(out.finish()))
}

/// The value at `i` of a numeric column in any representation: text, decimal or integer. None for NULL.
fn numeric_at(array: &dyn Array, i: usize) -> Result<Option<Numeric>, PgError> {
    if array.is_null(i) {
        return Ok(None);
    }
    Ok(Some(match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(i).parse()?,
        DataType::LargeUtf8 => array.as_string::<i64>().value(i).parse()?,
        DataType::Utf8View => array.as_string_view().value(i).parse()?,
        _ => {
            let m = Mantissas::of(array)?;
            Numeric::Finite(super::Decimal::from_i256(m.value(i), m.scale().into()))
        }
    }))
}

/// Integers, decimals or numeric texts as PostgreSQL's text (Utf8View): one representation for all.
pub fn to_text(array: &dyn Array) -> Result<ArrayRef, PgError> {
    let mut out = StringViewBuilder::with_capacity(array.len());
    for i in 0..array.len() {
        match numeric_at(array, i)? {
            Some(value) => out.append_value(value.to_string()),
            None => out.append_null(),
        }
    }
    Ok(Arc::new(out.finish()))
}

/// A Binary column whose byte order is PostgreSQL's order of the numerics (texts, decimals, integers),
/// and whose bytes are equal exactly where the numerics are: for ORDER BY, GROUP BY and DISTINCT.
pub fn sort_keys(array: &dyn Array) -> Result<ArrayRef, PgError> {
    let mut out = BinaryBuilder::with_capacity(array.len(), array.len() * 24);
    for i in 0..array.len() {
        match numeric_at(array, i)? {
            Some(value) => out.append_value(value.sort_key()),
            None => out.append_null(),
        }
    }
    Ok(Arc::new(out.finish()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Comparison {
    Eq,
    NotEq,
    Lt,
    LtEq,
    Gt,
    GtEq,
}

impl Comparison {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Comparison::Eq => order.is_eq(),
            Comparison::NotEq => order.is_ne(),
            Comparison::Lt => order.is_lt(),
            Comparison::LtEq => order.is_le(),
            Comparison::Gt => order.is_gt(),
            Comparison::GtEq => order.is_ge(),
        }
    }
}

/// Compares numerics in any representation row by row; NULL if either is. An array of one row is
/// compared with every row of the other.
pub fn compare(op: Comparison, a: &dyn Array, b: &dyn Array) -> Result<BooleanArray, PgError> {
    let rows = match (a.len(), b.len()) {
        (1, n) | (n, 1) => n,
        _ => {
            same_length(a, b)?;
            a.len()
        }
    };
    let constant = |array: &dyn Array| -> Result<Option<Option<Numeric>>, PgError> {
        if array.len() == 1 { numeric_at(array, 0).map(Some) } else { Ok(None) }
    };
    let (constant_a, constant_b) = (constant(a)?, constant(b)?);
    (0..rows)
        .map(|i| {
            let x = constant_a.clone().map_or_else(|| numeric_at(a, i), Ok)?;
            let y = constant_b.clone().map_or_else(|| numeric_at(b, i), Ok)?;
            Ok(x.zip(y).map(|(x, y)| op.holds(x.cmp(&y))))
        })
        .collect()
}

/// Numerics in any representation as Decimal256(76, `scale`). [`PgError::not_exact`] where that cannot hold one exactly:
/// more digits after the point than `scale` (trailing zeros aside), more than 76 in all, NaN, infinities.
pub fn to_decimal256(array: &dyn Array, scale: u8) -> Result<ArrayRef, PgError> {
    let inexact = |v: &Numeric| {
        PgError::not_exact(format!("{v} does not fit a decimal of 76 digits, {scale} after the point"))
    };
    let mut out = Decimal256Builder::with_capacity(array.len())
        .with_precision_and_scale(76, scale as i8)
        .map_err(|e| PgError::not_exact(e.to_string()))?;
    for i in 0..array.len() {
        let Some(value) = numeric_at(array, i)? else {
            out.append_null();
            continue;
        };
        let Numeric::Finite(d) = &value else { return Err(inexact(&value)) };
        let mut digits = d.digits.clone();
        if d.scale <= usize::from(scale) {
            if !digits.is_empty() {
                digits.resize(digits.len() + usize::from(scale) - d.scale, 0);
            }
        } else {
            let cut = digits.len().saturating_sub(d.scale - usize::from(scale));
            if digits.drain(cut..).any(|x| x != 0) {
                return Err(inexact(&value));
            }
        }
        if digits.len() > 76 {
            return Err(inexact(&value));
        }
        let ten = i256::from_i128(10);
        // At most 76 digits: below 2^253.
        let magnitude = digits
            .iter()
            .fold(i256::ZERO, |n, x| n.wrapping_mul(ten).wrapping_add(i256::from_i128((*x).into())));
        out.append_value(if d.negative { magnitude.wrapping_neg() } else { magnitude });
    }
    Ok(Arc::new(out.finish()))
}
