//! Arithmetic of float8 row by row (`float8_pl` and its kin of `float.h`, `float.c`): what IEEE 754 gives for one operation, with PostgreSQL's
//! errors for overflow, underflow and division by zero. Sums over rows are not here: they depend on the order. Results that are NaN are
//! refused: their sign is the machine's.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Float64Type, Int16Type, Int32Type, Int64Type};

use crate::PgError;
use crate::arith::BinaryOp;
use crate::calendar::MIN_TIMESTAMP_US;
use crate::scalar::misused;

pub mod order;
#[cfg(test)]
mod tests;

fn floats(array: &dyn Array) -> Result<&Float64Array, PgError> {
    array.as_primitive_opt::<Float64Type>().ok_or_else(misused)
}

fn apply(op: BinaryOp, a: f64, b: f64) -> Result<f64, PgError> {
    let result = match op {
        BinaryOp::Add => a + b,
        BinaryOp::Subtract => a - b,
        BinaryOp::Multiply => a * b,
        BinaryOp::Divide if b == 0.0 && !a.is_nan() => return Err(PgError::division_by_zero()),
        BinaryOp::Divide => a / b,
        BinaryOp::Modulo => return Err(misused()),
    };
    if result.is_nan() {
        return Err(PgError::not_exact("a float that is not a number"));
    }
    if result.is_infinite() && !a.is_infinite() && !b.is_infinite() {
        return Err(PgError::new("22003", "value out of range: overflow"));
    }
    let factor = match op {
        BinaryOp::Multiply => a != 0.0 && b != 0.0,
        BinaryOp::Divide => a != 0.0 && !b.is_infinite(),
        _ => false,
    };
    if result == 0.0 && factor {
        return Err(PgError::new("22003", "value out of range: underflow"));
    }
    Ok(result)
}

/// `a op b` over float8.
pub fn binary(op: BinaryOp, a: &dyn Array, b: &dyn Array) -> Result<ArrayRef, PgError> {
    let (a, b) = (floats(a)?, floats(b)?);
    let result: Float64Array = a
        .iter()
        .zip(b.iter())
        .map(|pair| match pair {
            (Some(a), Some(b)) => apply(op, a, b).map(Some),
            _ => Ok(None),
        })
        .collect::<Result<_, _>>()?;
    Ok(Arc::new(result))
}

/// Of one float8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unary {
    Negate,
    Abs,
    Floor,
    Ceil,
    Trunc,
    /// Half to even, as `rint`.
    Round,
}

/// `dfloor`, `dround` and so on.
pub fn unary(function: Unary, a: &dyn Array) -> Result<ArrayRef, PgError> {
    let a = floats(a)?;
    if a.iter().flatten().any(f64::is_nan) {
        return Err(PgError::not_exact("a float that is not a number"));
    }
    let result: Float64Array = a.unary(|v| match function {
        Unary::Negate => -v,
        Unary::Abs => v.abs(),
        Unary::Floor => v.floor(),
        Unary::Ceil => v.ceil(),
        Unary::Trunc => v.trunc(),
        Unary::Round => v.round_ties_even(),
    });
    Ok(Arc::new(result))
}

/// Integers and numerics as float8, rounded to nearest.
pub fn from_number(array: &dyn Array) -> Result<ArrayRef, PgError> {
    let result: Float64Array = match array.data_type() {
        DataType::Int16 => array.as_primitive::<Int16Type>().unary(f64::from),
        DataType::Int32 => array.as_primitive::<Int32Type>().unary(f64::from),
        DataType::Int64 => array.as_primitive::<Int64Type>().unary(|v| v as f64),
        _ => {
            // As strtod reads numeric's text. Too large or too small is PostgreSQL's to say.
            let texts = crate::numeric::to_text(array)?;
            texts
                .as_string_view()
                .iter()
                .map(|text| match text.map(|t| (t, t.parse::<f64>())) {
                    None => Ok(None),
                    Some((t, Ok(v)))
                        if v.is_finite() && (v != 0.0 || !t.bytes().any(|b| (b'1'..=b'9').contains(&b))) =>
                    {
                        Ok(Some(v))
                    }
                    _ => Err(PgError::not_exact("a numeric beyond float8")),
                })
                .collect::<Result<_, PgError>>()?
        }
    };
    Ok(Arc::new(result))
}

/// Casts to an integer type (`dtoi4` and its kin): half to even. 22003 for values that it does not hold.
pub fn to_int(a: &dyn Array, returns: &DataType) -> Result<ArrayRef, PgError> {
    let (name, low, high) = match returns {
        DataType::Int16 => ("smallint", f64::from(i16::MIN), f64::from(i16::MAX) + 1.0),
        DataType::Int32 => ("integer", f64::from(i32::MIN), f64::from(i32::MAX) + 1.0),
        DataType::Int64 => ("bigint", i64::MIN as f64, 9_223_372_036_854_775_808.0),
        _ => return Err(misused()),
    };
    let mut out = crate::scalar::Output::new(returns, a.len())?;
    for v in floats(a)? {
        match v.map(f64::round_ties_even) {
            None => out.null(),
            // In range: the cast is exact.
            Some(v) if v >= low && v < high => out.int(v as i64)?,
            Some(_) => return Err(PgError::new("22003", format!("{name} out of range"))),
        }
    }
    Ok(out.finish())
}

/// `to_timestamp(float8)`: seconds since 1970 (`float8_timestamptz`). What is out of range is refused.
pub fn to_timestamp(a: &dyn Array) -> Result<ArrayRef, PgError> {
    const SHIFT_S: f64 = 946_684_800.0;
    let result: TimestampMicrosecondArray = floats(a)?
        .iter()
        .map(|seconds| {
            let Some(seconds) = seconds else { return Ok(None) };
            if seconds.is_nan() || seconds.abs() > 200_000_000_000.0 {
                return Err(PgError::not_exact("a timestamp far away"));
            }
            // From PostgreSQL's epoch, as it rounds there.
            let us = ((seconds - SHIFT_S) * 1_000_000.0).round_ties_even() as i64
                + crate::calendar::EPOCH_SHIFT_US;
            if us < MIN_TIMESTAMP_US {
                return Err(PgError::not_exact("a timestamp far away"));
            }
            Ok(Some(us))
        })
        .collect::<Result<_, PgError>>()?;
    Ok(Arc::new(result.with_timezone("UTC")))
}
