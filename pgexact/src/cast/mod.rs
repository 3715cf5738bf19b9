//! Casts to text and from it, as types' output and input functions make them (`int8.c`, `numutils.c`, `numeric.c`, `datetime.c`). Knows Arrow
//! arrays. Dates and times are written in ISO style; what they may look like on input is not known here.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringViewBuilder};
use arrow::datatypes::{
    DataType, Date32Type, Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};
use bytes::BytesMut;

use crate::encode::{ValueError, put_date, put_timestamp};
use crate::fixed::Texts;
use crate::scalar::{Output, misused};
use crate::zone::Cursor;
use crate::{PgError, Zone, numeric};

#[cfg(test)]
mod tests;

/// The text of integers, decimals, dates, timestamps, and timestamptz in `zone`.
pub fn to_text(array: &dyn Array, zone: &Zone) -> Result<ArrayRef, PgError> {
    let mut out = StringViewBuilder::with_capacity(array.len());
    let mut number = itoa::Buffer::new();
    let mut buffer = BytesMut::new();
    macro_rules! integers {
        ($type:ty) => {
            array.as_primitive::<$type>().iter().for_each(|v| out.append_option(v.map(|v| number.format(v))))
        };
    }
    match array.data_type() {
        DataType::Int16 => integers!(Int16Type),
        DataType::Int32 => integers!(Int32Type),
        DataType::Int64 => integers!(Int64Type),
        DataType::Decimal128(..) => return numeric::to_text(array),
        DataType::Date32 => {
            for day in array.as_primitive::<Date32Type>() {
                buffer.clear();
                out.append_option(match day {
                    Some(day) => {
                        put_date(day, &mut buffer);
                        Some(ascii(&buffer)?)
                    }
                    None => None,
                });
            }
        }
        DataType::Timestamp(TimeUnit::Microsecond, label) => {
            let mut cursor = Cursor::new(zone);
            let mut day = Default::default();
            for us in array.as_primitive::<TimestampMicrosecondType>() {
                buffer.clear();
                let Some(us) = us else {
                    out.append_null();
                    continue;
                };
                let offset = match label {
                    Some(_) if crate::calendar::finite(us) => Some(cursor.offset_us(us)?),
                    _ => None,
                };
                put_timestamp(us, offset, &mut day, &mut buffer).map_err(|e| match e {
                    ValueError::Pg(e) => e,
                    ValueError::Zone(e) => e.into(),
                })?;
                out.append_value(ascii(&buffer)?);
            }
        }
        other => return Err(PgError::not_exact(format!("no cast from {other} to text"))),
    }
    Ok(Arc::new(out.finish()))
}

fn ascii(bytes: &[u8]) -> Result<&str, PgError> {
    std::str::from_utf8(bytes).map_err(|_| misused())
}

fn texts(array: &dyn Array) -> Result<Texts<'_>, PgError> {
    Texts::of(array).ok_or_else(misused)
}

/// As `isspace` in the locale C, which is in force while PostgreSQL reads numbers.
fn is_space(byte: u8) -> bool {
    byte == b' ' || (b'\t'..=b'\r').contains(&byte)
}

/// `pg_strtoint16`, `32` and `64`: spaces, a sign, digits, spaces. `returns` is the integer's type.
pub fn text_to_int(array: &dyn Array, returns: &DataType) -> Result<ArrayRef, PgError> {
    let texts = texts(array)?;
    let (name, least, greatest) = match returns {
        DataType::Int16 => ("smallint", i64::from(i16::MIN), i64::from(i16::MAX)),
        DataType::Int32 => ("integer", i64::from(i32::MIN), i64::from(i32::MAX)),
        DataType::Int64 => ("bigint", i64::MIN, i64::MAX),
        _ => return Err(misused()),
    };
    let mut out = Output::new(returns, array.len())?;
    for row in 0..array.len() {
        match texts.value(row) {
            Some(text) => out.int(integer(text, name, least.into(), greatest.into())?)?,
            None => out.null(),
        }
    }
    Ok(out.finish())
}

fn invalid(name: &str, text: &str) -> PgError {
    PgError::new("22P02", format!("invalid input syntax for type {name}: \"{text}\""))
}

fn integer(text: &str, name: &str, least: i128, greatest: i128) -> Result<i64, PgError> {
    let out_of_range = || PgError::new("22003", format!("value \"{text}\" is out of range for type {name}"));
    let bytes = text.as_bytes();
    let mut rest = &bytes[bytes.iter().take_while(|b| is_space(**b)).count()..];
    let negative = rest.first() == Some(&b'-');
    if matches!(rest.first(), Some(b'-' | b'+')) {
        rest = &rest[1..];
    }
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 {
        return Err(invalid(name, text));
    }
    // Counted downward: the smallest value has no positive counterpart. What lies below it is met before what follows the digits.
    let mut value = 0i128;
    for digit in &rest[..digits] {
        value = value * 10 - i128::from(digit - b'0');
        if value < least {
            return Err(out_of_range());
        }
    }
    if !rest[digits..].iter().all(|b| is_space(*b)) {
        return Err(invalid(name, text));
    }
    let value = if negative { value } else { -value };
    if value > greatest {
        return Err(out_of_range());
    }
    i64::try_from(value).map_err(|_| out_of_range())
}

/// Digits that are read: numeric takes many more.
const MAX_DIGITS: usize = 1000;

/// `numeric_in` without a type modifier, as numeric's canonical text. Exponents, NaN and infinities are refused.
pub fn text_to_numeric(array: &dyn Array) -> Result<ArrayRef, PgError> {
    let texts = texts(array)?;
    let mut out = StringViewBuilder::with_capacity(array.len());
    for row in 0..array.len() {
        match texts.value(row) {
            Some(text) => out.append_value(canonical(text)?),
            None => out.append_null(),
        }
    }
    Ok(Arc::new(out.finish()))
}

fn canonical(text: &str) -> Result<String, PgError> {
    let inner = text.trim_matches(|c: char| c.is_ascii() && is_space(c as u8));
    let unsigned = inner.strip_prefix(['-', '+']).unwrap_or(inner);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        // NaN, Infinity and exponents begin with one of these, or contain one.
        return Err(match unsigned.bytes().any(|b| matches!(b, b'n' | b'N' | b'i' | b'I' | b'e' | b'E')) {
            true => PgError::not_exact("a numeric's text that is no plain number"),
            false => invalid("numeric", text),
        });
    }
    if whole.len() + fraction.len() > MAX_DIGITS {
        return Err(PgError::not_exact("a numeric's text of very many digits"));
    }
    let shown = match whole.trim_start_matches('0') {
        "" => "0",
        shown => shown,
    };
    let zero = shown == "0" && fraction.bytes().all(|b| b == b'0');
    let sign = if inner.starts_with('-') && !zero { "-" } else { "" };
    Ok(match fraction {
        "" => format!("{sign}{shown}"),
        fraction => format!("{sign}{shown}.{fraction}"),
    })
}
