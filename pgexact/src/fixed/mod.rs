//! Numerics of fixed scale as decimals of up to 38 digits: checked arithmetic, rounding and casts, with PostgreSQL's result where it is that
//! scale. Knows Arrow arrays; does no division (its scale depends on the values: see `numeric`).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Decimal128Builder, StringViewBuilder};
use arrow::datatypes::{DataType, Decimal128Type, Int16Type, Int32Type, Int64Type};

use crate::PgError;

#[cfg(test)]
mod tests;

/// A binary operator on decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    Add,
    Subtract,
    Multiply,
    /// Takes the sign of the dividend.
    Modulo,
}

/// 22003, as numeric arithmetic never raises it below 131072 digits: the caller chose too narrow a type.
fn too_wide() -> PgError {
    PgError::not_exact("a numeric result is wider than 38 digits")
}

fn unsupported(data_type: &DataType) -> PgError {
    PgError::not_exact(format!("no decimal kernel for {data_type}"))
}

fn power(exponent: u32) -> Result<i128, PgError> {
    10i128.checked_pow(exponent).ok_or_else(too_wide)
}

/// The mantissa at `i` and the scale, of an integer or decimal array.
pub(crate) fn mantissas(array: &dyn Array) -> Result<(Box<dyn Fn(usize) -> i128 + '_>, i8), PgError> {
    Ok(match array.data_type() {
        DataType::Int16 => {
            let a = array.as_primitive::<Int16Type>();
            (Box::new(|i| a.value(i).into()), 0)
        }
        DataType::Int32 => {
            let a = array.as_primitive::<Int32Type>();
            (Box::new(|i| a.value(i).into()), 0)
        }
        DataType::Int64 => {
            let a = array.as_primitive::<Int64Type>();
            (Box::new(|i| a.value(i).into()), 0)
        }
        DataType::Decimal128(_, scale) if *scale >= 0 => {
            let a = array.as_primitive::<Decimal128Type>();
            (Box::new(|i| a.value(i)), *scale)
        }
        other => return Err(unsupported(other)),
    })
}

fn build(
    rows: usize,
    (precision, scale): (u8, i8),
    mut value: impl FnMut(usize) -> Result<Option<i128>, PgError>,
) -> Result<ArrayRef, PgError> {
    let limit = power(precision.into())?;
    let mut out = Decimal128Builder::with_capacity(rows);
    for i in 0..rows {
        match value(i)? {
            Some(v) if v.unsigned_abs() >= limit.unsigned_abs() => return Err(too_wide()),
            v => out.append_option(v),
        }
    }
    let array: Decimal128Array = out
        .finish()
        .with_precision_and_scale(precision, scale)
        .map_err(|e| PgError::not_exact(e.to_string()))?;
    Ok(Arc::new(array))
}

/// `a op b` row by row over integers and decimals, as a decimal of the given precision and scale, which must be the scale PostgreSQL shows: the
/// larger of both, or their sum for products. 22012 for a zero divisor.
pub fn binary(op: Op, a: &dyn Array, b: &dyn Array, to: (u8, i8)) -> Result<ArrayRef, PgError> {
    if a.len() != b.len() {
        return Err(PgError::not_exact(format!("arrays of {} and {} rows", a.len(), b.len())));
    }
    let ((x, sx), (y, sy)) = (mantissas(a)?, mantissas(b)?);
    let expected = if op == Op::Multiply { sx + sy } else { sx.max(sy) };
    if to.1 != expected {
        return Err(PgError::not_exact("a decimal kernel was asked for another scale"));
    }
    let (grow_x, grow_y) = match op {
        Op::Multiply => (1, 1),
        _ => (power((expected - sx) as u32)?, power((expected - sy) as u32)?),
    };
    build(a.len(), to, |i| {
        if a.is_null(i) || b.is_null(i) {
            return Ok(None);
        }
        let x = x(i).checked_mul(grow_x).ok_or_else(too_wide)?;
        let y = y(i).checked_mul(grow_y).ok_or_else(too_wide)?;
        match op {
            Op::Add => x.checked_add(y),
            Op::Subtract => x.checked_sub(y),
            Op::Multiply => x.checked_mul(y),
            Op::Modulo if y == 0 => return Err(PgError::division_by_zero()),
            Op::Modulo => x.checked_rem(y),
        }
        .ok_or_else(too_wide)
        .map(Some)
    })
}

/// `- a` over decimals.
pub fn negate(a: &dyn Array) -> Result<ArrayRef, PgError> {
    signed(a, |v| -v)
}

/// `abs(a)` over decimals.
pub fn abs(a: &dyn Array) -> Result<ArrayRef, PgError> {
    signed(a, i128::abs)
}

/// Decimals have at most 38 digits: neither operation can overflow.
fn signed(a: &dyn Array, f: impl Fn(i128) -> i128) -> Result<ArrayRef, PgError> {
    let DataType::Decimal128(precision, scale) = *a.data_type() else {
        return Err(unsupported(a.data_type()));
    };
    let values = a.as_primitive::<Decimal128Type>();
    build(a.len(), (precision, scale), |i| Ok((!a.is_null(i)).then(|| f(values.value(i)))))
}

/// `value` at scale `from`, rounded half away from zero to `to` digits after the point (before it, if negative).
fn rounded(value: i128, from: i32, to: i32) -> Result<i128, PgError> {
    if to >= from {
        return value.checked_mul(power((to - from) as u32)?).ok_or_else(too_wide);
    }
    let dropped = (from - to) as u32;
    // Beyond 38 digits everything rounds to zero.
    let Some(unit) = 10i128.checked_pow(dropped) else { return Ok(0) };
    let (quotient, rest) = (value / unit, value % unit);
    let away = rest.unsigned_abs() >= unit.unsigned_abs().div_ceil(2);
    Ok(quotient + if away { value.signum() } else { 0 })
}

/// `round(a, digits)` over decimals, as a decimal of the given precision whose scale is `digits`, or 0 if that is negative.
pub fn round(a: &dyn Array, digits: i32, to: (u8, i8)) -> Result<ArrayRef, PgError> {
    let (value, scale) = mantissas(a)?;
    if i32::from(to.1) != digits.max(0) {
        return Err(PgError::not_exact("a decimal kernel was asked for another scale"));
    }
    build(a.len(), to, |i| {
        if a.is_null(i) {
            return Ok(None);
        }
        let cut = rounded(value(i), scale.into(), digits)?;
        let zeros = if digits < 0 { power(digits.unsigned_abs())? } else { 1 };
        cut.checked_mul(zeros).ok_or_else(too_wide).map(Some)
    })
}

/// `a::numeric(precision, scale)` over integers, decimals and numeric texts, rounding half away from zero. 22003 where a value has too many
/// digits before the point.
pub fn cast(a: &dyn Array, to: (u8, i8)) -> Result<ArrayRef, PgError> {
    let (precision, scale) = to;
    let limit = power(precision.into())?;
    let overflow = || PgError::new("22003", "numeric field overflow");
    let fits = |v: i128| if v.unsigned_abs() < limit.unsigned_abs() { Ok(Some(v)) } else { Err(overflow()) };
    if let Some(texts) = Texts::of(a) {
        return build(a.len(), to, |i| match texts.value(i) {
            None => Ok(None),
            Some("NaN" | "Infinity" | "-Infinity") => {
                Err(PgError::not_exact("a numeric that is not finite has no decimal"))
            }
            Some(text) => {
                let short = round_text(text, scale.into())?;
                let digits: String = short.chars().filter(|c| *c != '.').collect();
                fits(digits.parse().map_err(|_| overflow())?)
            }
        });
    }
    let (value, from) = mantissas(a)?;
    build(a.len(), to, |i| {
        if a.is_null(i) {
            return Ok(None);
        }
        match rounded(value(i), from.into(), scale.into()) {
            Ok(v) => fits(v),
            Err(_) => Err(overflow()),
        }
    })
}

/// `round(a, digits)` over numeric texts, as text with `digits` digits after the point, none if that is negative.
pub fn round_texts(a: &dyn Array, digits: i32) -> Result<ArrayRef, PgError> {
    let Some(texts) = Texts::of(a) else { return Err(unsupported(a.data_type())) };
    let mut out = StringViewBuilder::with_capacity(a.len());
    for i in 0..a.len() {
        match texts.value(i) {
            None => out.append_null(),
            Some(text) => out.append_value(round_text(text, digits)?),
        }
    }
    Ok(Arc::new(out.finish()))
}

/// PostgreSQL's text of a numeric, rounded half away from zero. Special values stay.
fn round_text(text: &str, digits: i32) -> Result<String, PgError> {
    if matches!(text, "NaN" | "Infinity" | "-Infinity") {
        return Ok(text.to_owned());
    }
    let malformed = || PgError::not_exact(format!("\"{text}\" is no numeric"));
    let (negative, body) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = body.split_once('.').unwrap_or((body, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return Err(malformed());
    }
    let shown = usize::try_from(digits.max(0)).map_err(|_| malformed())?;
    let mut all: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|b| b - b'0').collect();
    let keep = whole.len() as i64 + i64::from(digits);
    let up = keep >= 0 && all.get(keep as usize).is_some_and(|d| *d >= 5);
    let kept = keep.clamp(0, all.len() as i64) as usize;
    all.truncate(kept);
    if up {
        let mut at = all.len();
        loop {
            if at == 0 {
                all.insert(0, 1);
                break;
            }
            at -= 1;
            if all[at] == 9 {
                all[at] = 0;
            } else {
                all[at] += 1;
                break;
            }
        }
    }
    // Fill up to the digits shown after the point, or to the zeros before it.
    let grown = all.len() - kept;
    let wanted = (whole.len() + shown).max(kept) + grown;
    all.resize(wanted, 0);
    let first = all.iter().position(|d| *d != 0).unwrap_or(all.len());
    let negative = negative && first < all.len();
    let point = all.len() - shown;
    let mut out = String::with_capacity(all.len() + 3);
    if negative {
        out.push('-');
    }
    let start = first.min(point);
    if start == point {
        out.push('0');
    }
    out.extend(all[start..point].iter().map(|d| char::from(b'0' + d)));
    if shown > 0 {
        out.push('.');
        out.extend(all[point..].iter().map(|d| char::from(b'0' + d)));
    }
    Ok(out)
}

/// The strings of an array in any of Arrow's string layouts.
pub(crate) enum Texts<'a> {
    Utf8(&'a arrow::array::StringArray),
    Large(&'a arrow::array::LargeStringArray),
    View(&'a arrow::array::StringViewArray),
}

impl<'a> Texts<'a> {
    pub(crate) fn of(array: &'a dyn Array) -> Option<Self> {
        Some(match array.data_type() {
            DataType::Utf8 => Self::Utf8(array.as_string()),
            DataType::LargeUtf8 => Self::Large(array.as_string()),
            DataType::Utf8View => Self::View(array.as_string_view()),
            _ => return None,
        })
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Utf8(a) => a.len(),
            Self::Large(a) => a.len(),
            Self::View(a) => a.len(),
        }
    }

    pub(crate) fn value(&self, i: usize) -> Option<&'a str> {
        match self {
            Self::Utf8(a) => (!a.is_null(i)).then(|| a.value(i)),
            Self::Large(a) => (!a.is_null(i)).then(|| a.value(i)),
            Self::View(a) => (!a.is_null(i)).then(|| a.value(i)),
        }
    }
}
