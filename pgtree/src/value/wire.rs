//! The wire's binary format (the types' `send` functions): network byte order.

use super::{Numeric, Value, ValueError, days, micros};
use crate::oid;

/// Decodes a value of type `type_oid` in binary format; `None` is NULL.
///
/// # Errors
/// [`ValueError`] for types not known here and for bytes that no value has.
pub fn from_pg_binary(type_oid: u32, bytes: Option<&[u8]>) -> Result<Value, ValueError> {
    let Some(bytes) = bytes else { return Ok(Value::Null) };
    if let Some(element) = oid::array_element(type_oid) {
        return array(type_oid, element, bytes);
    }
    fn exact<const N: usize>(type_oid: u32, bytes: &[u8]) -> Result<[u8; N], ValueError> {
        bytes.try_into().map_err(|_| ValueError::Length(type_oid, bytes.len()))
    }
    fn text(type_oid: u32, bytes: &[u8]) -> Result<String, ValueError> {
        Ok(std::str::from_utf8(bytes).map_err(|_| ValueError::Malformed(type_oid))?.to_owned())
    }
    let t = type_oid;
    Ok(match type_oid {
        oid::BOOL => Value::Bool(exact::<1>(t, bytes)?[0] != 0),
        oid::INT2 => Value::Int2(i16::from_be_bytes(exact(t, bytes)?)),
        oid::INT4 => Value::Int4(i32::from_be_bytes(exact(t, bytes)?)),
        oid::INT8 => Value::Int8(i64::from_be_bytes(exact(t, bytes)?)),
        oid::XID8 => Value::Xid8(u64::from_be_bytes(exact(t, bytes)?)),
        oid::FLOAT4 => Value::Float4(f32::from_be_bytes(exact(t, bytes)?)),
        oid::FLOAT8 => Value::Float8(f64::from_be_bytes(exact(t, bytes)?)),
        oid::TEXT | oid::VARCHAR => Value::Text(text(t, bytes)?),
        oid::BYTEA => Value::Bytea(bytes.to_vec()),
        oid::DATE => Value::Date(days(i32::from_be_bytes(exact(t, bytes)?))?),
        oid::TIMESTAMP => Value::Timestamp(micros(t, i64::from_be_bytes(exact(t, bytes)?))?),
        oid::TIMESTAMPTZ => Value::TimestampTz(micros(t, i64::from_be_bytes(exact(t, bytes)?))?),
        oid::UUID => Value::Uuid(exact(t, bytes)?),
        oid::INTERVAL => {
            let all: [u8; 16] = exact(t, bytes)?;
            let (time, rest) = all.split_at(8);
            let (day, month) = rest.split_at(4);
            Value::Interval {
                micros: i64::from_be_bytes(exact(t, time)?),
                days: i32::from_be_bytes(exact(t, day)?),
                months: i32::from_be_bytes(exact(t, month)?),
            }
        }
        oid::JSONB => match bytes.split_first() {
            Some((1, body)) => Value::Jsonb(text(t, body)?),
            _ => return Err(ValueError::Malformed(t)),
        },
        oid::NUMERIC => Value::Numeric(numeric(bytes).ok_or(ValueError::Malformed(t))?),
        other => return Err(ValueError::Unknown(other)),
    })
}

fn numeric(bytes: &[u8]) -> Option<Numeric> {
    let word = |at: usize| bytes.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
    let count = usize::from(word(0)?);
    let (weight, sign, scale) = (word(2)? as i16, word(4)?, word(6)?);
    if bytes.len() != 8 + 2 * count {
        return None;
    }
    let negative = match sign {
        0x0000 => false,
        0x4000 => true,
        0xC000 => return Some(Numeric::NaN),
        0xD000 => return Some(Numeric::Infinity),
        0xF000 => return Some(Numeric::NegInfinity),
        _ => return None,
    };
    let digits: Vec<u16> = bytes[8..].chunks_exact(2).map(|b| u16::from_be_bytes([b[0], b[1]])).collect();
    Numeric::from_base10000(negative, weight, scale, &digits)
}

/// `array_send`: dimensions, a flag for NULLs, the element type, sizes and lower bounds, then length and bytes of each element.
fn array(type_oid: u32, element: u32, bytes: &[u8]) -> Result<Value, ValueError> {
    let malformed = || ValueError::Malformed(type_oid);
    let mut rest = bytes;
    let mut word = || -> Result<i32, ValueError> {
        let (head, tail) = rest.split_first_chunk::<4>().ok_or_else(malformed)?;
        rest = tail;
        Ok(i32::from_be_bytes(*head))
    };
    let dimensions = word()?;
    let _has_nulls = word()?;
    if word()? as u32 != element || !(0..=6).contains(&dimensions) {
        return Err(malformed());
    }
    let mut count = usize::from(dimensions > 0);
    for _ in 0..dimensions {
        let size = usize::try_from(word()?).map_err(|_| malformed())?;
        let _lower_bound = word()?;
        count = count.checked_mul(size).filter(|c| *c <= bytes.len()).ok_or_else(malformed)?;
    }
    let mut elements = Vec::with_capacity(count);
    for _ in 0..count {
        let (head, tail) = rest.split_first_chunk::<4>().ok_or_else(malformed)?;
        let length = i32::from_be_bytes(*head);
        rest = tail;
        if length == -1 {
            elements.push(Value::Null);
            continue;
        }
        let length = usize::try_from(length).map_err(|_| malformed())?;
        if rest.len() < length {
            return Err(malformed());
        }
        let (body, tail) = rest.split_at(length);
        rest = tail;
        elements.push(from_pg_binary(element, Some(body))?);
    }
    if rest.is_empty() { Ok(Value::Array { element, elements }) } else { Err(malformed()) }
}
