//! `Const` datums: the bytes of a value in a little-endian server's memory.

use super::{jsonb, Numeric, Value, ValueError, days, micros};
use crate::oid;

/// Decodes the datum of a constant of type `type_oid`; `None` is NULL.
///
/// # Errors
/// [`ValueError`] for types not known here and for bytes that no value has.
pub fn from_datum(type_oid: u32, datum: Option<&[u8]>) -> Result<Value, ValueError> {
    let Some(bytes) = datum else { return Ok(Value::Null) };
    if let Some(element) = oid::array_element(type_oid) {
        return array(type_oid, element, varlena(type_oid, bytes)?);
    }
    if oid::is_varlena(type_oid) {
        return varlena_value(type_oid, varlena(type_oid, bytes)?);
    }
    fixed(type_oid, bytes)
}

fn head<const N: usize>(type_oid: u32, bytes: &[u8]) -> Result<[u8; N], ValueError> {
    bytes.get(..N).and_then(|b| b.try_into().ok()).ok_or(ValueError::Length(type_oid, bytes.len()))
}

/// A value of fixed length; longer input is the padding of a by-value Datum.
fn fixed(type_oid: u32, bytes: &[u8]) -> Result<Value, ValueError> {
    Ok(match type_oid {
        oid::BOOL => Value::Bool(head::<1>(type_oid, bytes)?[0] != 0),
        oid::INT2 => Value::Int2(i16::from_le_bytes(head(type_oid, bytes)?)),
        oid::INT4 => Value::Int4(i32::from_le_bytes(head(type_oid, bytes)?)),
        oid::INT8 => Value::Int8(i64::from_le_bytes(head(type_oid, bytes)?)),
        oid::XID8 => Value::Xid8(u64::from_le_bytes(head(type_oid, bytes)?)),
        oid::FLOAT4 => Value::Float4(f32::from_le_bytes(head(type_oid, bytes)?)),
        oid::FLOAT8 => Value::Float8(f64::from_le_bytes(head(type_oid, bytes)?)),
        oid::DATE => Value::Date(days(i32::from_le_bytes(head(type_oid, bytes)?))?),
        oid::TIMESTAMP => Value::Timestamp(micros(type_oid, i64::from_le_bytes(head(type_oid, bytes)?))?),
        oid::TIMESTAMPTZ => Value::TimestampTz(micros(type_oid, i64::from_le_bytes(head(type_oid, bytes)?))?),
        oid::INTERVAL if bytes.len() == 16 => Value::Interval {
            micros: i64::from_le_bytes(head(type_oid, bytes)?),
            days: i32::from_le_bytes(head(type_oid, &bytes[8..])?),
            months: i32::from_le_bytes(head(type_oid, &bytes[12..])?),
        },
        oid::UUID if bytes.len() == 16 => Value::Uuid(head(type_oid, bytes)?),
        oid::INTERVAL | oid::UUID => return Err(ValueError::Length(type_oid, bytes.len())),
        other => return Err(ValueError::Unknown(other)),
    })
}

/// The size of a varlena with its header and the size of the header, from its first bytes.
fn varlena_size(type_oid: u32, bytes: &[u8]) -> Result<(usize, usize), ValueError> {
    let first = *bytes.first().ok_or(ValueError::Length(type_oid, 0))?;
    if first & 1 == 1 {
        let total = usize::from(first >> 1);
        // 0x01 alone marks a pointer to a value stored elsewhere.
        return if total == 0 { Err(ValueError::Toasted(type_oid)) } else { Ok((total, 1)) };
    }
    let header = u32::from_le_bytes(head(type_oid, bytes)?);
    if header & 3 != 0 {
        return Err(ValueError::Toasted(type_oid));
    }
    let total = (header >> 2) as usize;
    if total < 4 { Err(ValueError::Malformed(type_oid)) } else { Ok((total, 4)) }
}

/// The payload of a varlena that fills `bytes`.
fn varlena(type_oid: u32, bytes: &[u8]) -> Result<&[u8], ValueError> {
    let (total, header) = varlena_size(type_oid, bytes)?;
    if total != bytes.len() {
        return Err(ValueError::Length(type_oid, bytes.len()));
    }
    Ok(&bytes[header..])
}

fn varlena_value(type_oid: u32, payload: &[u8]) -> Result<Value, ValueError> {
    Ok(match type_oid {
        oid::TEXT | oid::VARCHAR => {
            Value::Text(std::str::from_utf8(payload).map_err(|_| ValueError::Malformed(type_oid))?.to_owned())
        }
        oid::BYTEA => Value::Bytea(payload.to_vec()),
        oid::NUMERIC => Value::Numeric(numeric(payload).ok_or(ValueError::Malformed(type_oid))?),
        oid::JSONB => Value::Jsonb(jsonb::text(payload).ok_or(ValueError::Malformed(type_oid))?),
        other => return Err(ValueError::Unknown(other)),
    })
}

/// A numeric with its header, within another value.
pub(super) fn numeric_datum(bytes: &[u8]) -> Option<Numeric> {
    varlena(oid::NUMERIC, bytes).ok().and_then(numeric)
}

/// `NumericChoice` of `numeric.c`: a long header of two words, a short one of one, or a special value.
fn numeric(payload: &[u8]) -> Option<Numeric> {
    let word = |at: usize| payload.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    let header = word(0)?;
    let (negative, scale, weight, start) = match header & 0xC000 {
        0xC000 => {
            return match header & 0xF000 {
                0xC000 => Some(Numeric::NaN),
                0xD000 => Some(Numeric::Infinity),
                0xF000 => Some(Numeric::NegInfinity),
                _ => None,
            };
        }
        0x8000 => {
            // Seven bits of weight, two's complement.
            let weight = (header & 0x003F) as i16 | if header & 0x0040 != 0 { !0x003F } else { 0 };
            (header & 0x2000 != 0, (header & 0x1F80) >> 7, weight, 2)
        }
        sign => (sign == 0x4000, header & 0x3FFF, word(2)? as i16, 4),
    };
    let digits = payload.get(start..)?;
    if digits.len() % 2 != 0 {
        return None;
    }
    let digits: Vec<u16> = digits.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect();
    Numeric::from_base10000(negative, weight, scale, &digits)
}

/// `ArrayType` of `array.h`, without its length word.
fn array(type_oid: u32, element: u32, payload: &[u8]) -> Result<Value, ValueError> {
    let malformed = ValueError::Malformed(type_oid);
    // Offsets count from the start of the whole datum, whose header has four bytes.
    const HEADER: usize = 4;
    let word = |at: usize| {
        payload.get(at - HEADER..at - HEADER + 4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    };
    let dimensions = usize::try_from(word(4).ok_or(malformed.clone())?).map_err(|_| malformed.clone())?;
    let data_offset = usize::try_from(word(8).ok_or(malformed.clone())?).map_err(|_| malformed.clone())?;
    if word(12).ok_or(malformed.clone())? as u32 != element || dimensions > 6 {
        return Err(malformed);
    }
    if dimensions == 0 {
        return Ok(Value::Array { element, elements: Vec::new() });
    }
    let mut count = 1usize;
    for dimension in 0..dimensions {
        let size = word(16 + 4 * dimension).and_then(|d| usize::try_from(d).ok()).ok_or(malformed.clone())?;
        count = count.checked_mul(size).filter(|c| *c <= payload.len() * 8).ok_or(malformed.clone())?;
    }
    let bitmap_at = 16 + 8 * dimensions;
    let has_nulls = data_offset != 0;
    let mut at = if has_nulls { data_offset } else { bitmap_at.next_multiple_of(8) };
    let mut elements = Vec::with_capacity(count);
    for index in 0..count {
        if has_nulls {
            let byte = payload.get(bitmap_at - HEADER + index / 8).ok_or(malformed.clone())?;
            if byte & (1 << (index % 8)) == 0 {
                elements.push(Value::Null);
                continue;
            }
        }
        let align = oid::alignment(element).ok_or(ValueError::Unknown(element))?;
        let fixed_len = oid::fixed_length(element);
        // A short varlena is not aligned: its first byte is never zero, as a pad byte is.
        let unaligned = fixed_len.is_none() && payload.get(at - HEADER).is_some_and(|b| *b != 0);
        if !unaligned {
            at = at.next_multiple_of(align);
        }
        let rest = payload.get(at - HEADER..).ok_or(malformed.clone())?;
        let value = match fixed_len {
            Some(length) => {
                let bytes = rest.get(..length).ok_or(malformed.clone())?;
                at += length;
                fixed(element, bytes)?
            }
            None => {
                let (total, header) = varlena_size(element, rest)?;
                let bytes = rest.get(header..total).ok_or(malformed.clone())?;
                at += total;
                varlena_value(element, bytes)?
            }
        };
        elements.push(value);
    }
    Ok(Value::Array { element, elements })
}
