//! `variance` and `stddev` over integers and numerics of fixed scale, finished from exact sums: `numeric_stddev_internal` and `sqrt_var` of
//! PostgreSQL's `numeric.c`. Knows Arrow decimals. ✗ floats, whose sums depend on the order.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal256Builder, StringViewBuilder};
use arrow::datatypes::{DataType, Decimal256Type, Int64Type, i256};

use crate::PgError;
use crate::numeric::Decimal;
use crate::scalar::misused;

#[cfg(test)]
mod tests;

/// What is finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Deviation {
    /// Of a sample: divided by one less.
    pub sample: bool,
    /// The root of the variance.
    pub root: bool,
}

fn too_wide() -> PgError {
    PgError::not_exact("a variance is wider than 76 digits")
}

/// The squares of integers or decimals, as `returns`, a Decimal256 of twice the scale.
pub fn squares(array: &dyn Array, returns: &DataType) -> Result<ArrayRef, PgError> {
    let DataType::Decimal256(precision, scale) = returns else { return Err(misused()) };
    let (value, own) = crate::fixed::mantissas(array)?;
    if 2 * own != *scale {
        return Err(misused());
    }
    let mut out = Decimal256Builder::with_capacity(array.len())
        .with_precision_and_scale(*precision, *scale)
        .map_err(|e| PgError::not_exact(e.to_string()))?;
    for row in 0..array.len() {
        if array.is_null(row) {
            out.append_null();
        } else {
            let value = i256::from_i128(value(row));
            out.append_value(value.checked_mul(value).ok_or_else(too_wide)?);
        }
    }
    Ok(Arc::new(out.finish()))
}

/// The texts of variances or deviations: of exact sums (integers or decimals), exact sums of squares (Decimal256) and counts (Int64).
pub fn finish(
    kind: Deviation,
    sums: &dyn Array,
    squares: &dyn Array,
    counts: &dyn Array,
) -> Result<ArrayRef, PgError> {
    let squares = squares.as_primitive_opt::<Decimal256Type>().ok_or_else(misused)?;
    let counts = counts.as_primitive_opt::<Int64Type>().ok_or_else(misused)?;
    let (sum, scale) = crate::fixed::mantissas(sums)?;
    let scale = 2 * u16::from(scale.unsigned_abs());
    let mut out = StringViewBuilder::with_capacity(sums.len());
    for row in 0..sums.len() {
        let n = if counts.is_null(row) { 0 } else { counts.value(row) };
        if n <= i64::from(kind.sample) {
            out.append_null();
            continue;
        }
        let (n, x) = (i256::from_i128(n.into()), i256::from_i128(sum(row)));
        let squared = x.checked_mul(x).ok_or_else(too_wide)?;
        let numerator =
            n.checked_mul(squares.value(row)).and_then(|v| v.checked_sub(squared)).ok_or_else(too_wide)?;
        if numerator <= i256::ZERO {
            out.append_value("0");
            continue;
        }
        let less = if kind.sample { n.wrapping_sub(i256::ONE) } else { n };
        let divisor = n.checked_mul(less).ok_or_else(too_wide)?;
        let variance = Decimal::from_i256(numerator, scale).divide(&Decimal::from_i256(divisor, 0))?;
        out.append_value(if kind.root { root(&variance)? } else { variance.to_string() });
    }
    Ok(Arc::new(out.finish()))
}

/// The square root at the scale of the value, rounded half up.
fn root(value: &Decimal) -> Result<String, PgError> {
    let scale = value.scale();
    // One digit more than is shown: the root of value × 10^(2 × (scale + 1)).
    let digits = value.mantissa_text() + &"0".repeat(scale + 2);
    let root = integer_root(digits.as_bytes())?;
    let rounded =
        root.checked_add(i256::from_i128(5)).ok_or_else(too_wide)?.wrapping_div(i256::from_i128(10));
    Ok(Decimal::from_i256(rounded, scale as u16).to_string())
}

/// The largest integer whose square is at most the number of these digits, found digit by digit from pairs of them.
fn integer_root(digits: &[u8]) -> Result<i256, PgError> {
    let small = |n: i128| i256::from_i128(n);
    let (mut root, mut rest) = (i256::ZERO, i256::ZERO);
    let odd = digits.len() % 2;
    let (first, pairs) = digits.split_at(odd);
    for pair in (odd > 0).then_some(first).into_iter().chain(pairs.chunks_exact(2)) {
        let next = pair.iter().fold(0, |n, d| n * 10 + i128::from(d - b'0'));
        rest = rest.checked_mul(small(100)).and_then(|r| r.checked_add(small(next))).ok_or_else(too_wide)?;
        let twenty = root.checked_mul(small(20)).ok_or_else(too_wide)?;
        let taken = |d: i128| twenty.wrapping_add(small(d)).wrapping_mul(small(d));
        let digit = (1..=9).rev().find(|d| taken(*d) <= rest).unwrap_or(0);
        rest = rest.wrapping_sub(taken(digit));
        root = root.checked_mul(small(10)).ok_or_else(too_wide)?.wrapping_add(small(digit));
    }
    Ok(root)
}
