//! Numerics brought to a given scale or to integers: `floor`, `ceil`, `trunc`, `round`, `sign` and the casts of `numeric.c`; also of a quotient at
//! once, which is cut after it was rounded to the scale that `/` gives it. Knows integers, decimals and numeric texts.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Decimal128Builder};
use arrow::datatypes::DataType;

use crate::PgError;
use crate::numeric::quotient;
use crate::scalar::{Output, misused};

#[cfg(test)]
mod tests;

/// How digits are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cut {
    Floor,
    Ceil,
    /// Toward zero.
    Trunc,
    /// Half away from zero.
    Round,
}

fn too_wide() -> PgError {
    PgError::not_exact("a numeric is wider than 38 digits")
}

fn power(exponent: u32) -> Result<i128, PgError> {
    10i128.checked_pow(exponent).ok_or_else(too_wide)
}

impl Cut {
    /// `value` × 10^-`scale`, cut to `digits` after the point (before it, if negative): a mantissa of the scale max(`digits`, 0).
    fn apply(self, value: i128, scale: i32, digits: i32) -> Result<i128, PgError> {
        let shown = digits.max(0);
        if digits >= scale {
            return value.checked_mul(power((shown - scale) as u32)?).ok_or_else(too_wide);
        }
        // Beyond 38 digits nothing is left but, of floor and ceil, a one.
        let unit = 10i128.checked_pow((scale - digits) as u32);
        let (quotient, rest) = unit.map_or((0, value), |unit| (value / unit, value % unit));
        let cut = quotient
            + match self {
                Cut::Trunc => 0,
                Cut::Floor => -i128::from(rest < 0),
                Cut::Ceil => i128::from(rest > 0),
                Cut::Round => match unit {
                    Some(unit) if rest.unsigned_abs() >= unit.unsigned_abs().div_ceil(2) => value.signum(),
                    _ => 0,
                },
            };
        match digits < 0 {
            true => cut.checked_mul(power(digits.unsigned_abs())?).ok_or_else(too_wide),
            false => Ok(cut),
        }
    }
}

/// The mantissa and scale of PostgreSQL's text of a finite numeric.
fn parse(text: &str) -> Result<(i128, i32), PgError> {
    let malformed = || PgError::not_exact(format!("\"{text}\" is no numeric of 38 digits"));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let scale = i32::try_from(fraction.len()).map_err(|_| malformed())?;
    let digits = if fraction.is_empty() { whole.to_owned() } else { format!("{whole}{fraction}") };
    let numeric = digits.strip_prefix('-').unwrap_or(&digits).bytes().all(|b| b.is_ascii_digit());
    match digits.parse::<i128>() {
        Ok(value) if numeric && value.unsigned_abs() < 10u128.pow(38) => Ok((value, scale)),
        _ => Err(malformed()),
    }
}

/// The mantissas and scales of an array of numerics, row by row.
pub(crate) type Rows<'a> = Box<dyn Fn(usize) -> Result<(i128, i32), PgError> + 'a>;

pub(crate) fn rows(array: &dyn Array) -> Result<Rows<'_>, PgError> {
    if let Some(texts) = crate::fixed::Texts::of(array) {
        return Ok(Box::new(move |row| parse(texts.value(row).ok_or_else(misused)?)));
    }
    let (value, scale) = crate::fixed::mantissas(array)?;
    Ok(Box::new(move |row| Ok((value(row), scale.into()))))
}

fn build(
    rows: usize,
    returns: &DataType,
    mut value: impl FnMut(usize) -> Result<Option<i128>, PgError>,
) -> Result<ArrayRef, PgError> {
    let DataType::Decimal128(precision, scale) = returns else { return Err(misused()) };
    let limit = power((*precision).into())?.unsigned_abs();
    let mut out = Decimal128Builder::with_capacity(rows)
        .with_precision_and_scale(*precision, *scale)
        .map_err(|e| PgError::not_exact(e.to_string()))?;
    for row in 0..rows {
        match value(row)? {
            Some(v) if v.unsigned_abs() >= limit => return Err(too_wide()),
            v => out.append_option(v),
        }
    }
    Ok(Arc::new(out.finish()))
}

/// `floor(a)`, `trunc(a, digits)` and so on, as a decimal of the scale max(`digits`, 0).
pub fn cut(cut: Cut, a: &dyn Array, digits: i32, returns: &DataType) -> Result<ArrayRef, PgError> {
    let values = rows(a)?;
    build(a.len(), returns, |row| match a.is_null(row) {
        true => Ok(None),
        false => {
            let (value, scale) = values(row)?;
            cut.apply(value, scale, digits).map(Some)
        }
    })
}

/// `floor(a / b)` and so on. 22012 for a zero divisor in a row where neither is NULL.
pub fn cut_quotient(
    cut: Cut,
    a: &dyn Array,
    b: &dyn Array,
    digits: i32,
    returns: &DataType,
) -> Result<ArrayRef, PgError> {
    let (x, y) = (rows(a)?, rows(b)?);
    build(a.len(), returns, |row| {
        if a.is_null(row) || b.is_null(row) {
            return Ok(None);
        }
        let ((a, a_scale), (b, b_scale)) = (x(row)?, y(row)?);
        let (value, scale) = quotient(a, a_scale, b, b_scale)?;
        cut.apply(value, scale, digits).map(Some)
    })
}

/// `sign(a)`, as a decimal of scale 0.
pub fn sign(a: &dyn Array, returns: &DataType) -> Result<ArrayRef, PgError> {
    let values = rows(a)?;
    build(a.len(), returns, |row| match a.is_null(row) {
        true => Ok(None),
        false => Ok(Some(values(row)?.0.signum())),
    })
}

/// Casts to an integer type, rounding half away from zero. 22003 for values that it does not hold.
pub fn to_int(a: &dyn Array, returns: &DataType) -> Result<ArrayRef, PgError> {
    let (name, low, high) = match returns {
        DataType::Int16 => ("smallint", i64::from(i16::MIN), i64::from(i16::MAX)),
        DataType::Int32 => ("integer", i64::from(i32::MIN), i64::from(i32::MAX)),
        DataType::Int64 => ("bigint", i64::MIN, i64::MAX),
        _ => return Err(misused()),
    };
    let values = rows(a)?;
    let mut out = Output::new(returns, a.len())?;
    for row in 0..a.len() {
        if a.is_null(row) {
            out.null();
            continue;
        }
        let (value, scale) = values(row)?;
        match i64::try_from(Cut::Round.apply(value, scale, 0)?) {
            Ok(v) if (low..=high).contains(&v) => out.int(v)?,
            _ => return Err(PgError::new("22003", format!("{name} out of range"))),
        }
    }
    Ok(out.finish())
}
