//! Typed values: constants of a tree (`Const` datums in a little-endian server's memory order, arrays too) and the wire's binary format.
//!
//! Sources: `postgres.h`, `varatt`, `array.h`, `numeric.c` (`NumericChoice`), `timestamp.h` and the types' `send` functions of PostgreSQL 15.
//! Knows no Arrow and no session settings. Dates and times count from 1970-01-01; `infinity` is the type's largest value, `-infinity` its smallest.

mod datum;
mod jsonb;
mod numeric;
#[cfg(test)]
mod tests;
mod wire;

pub use datum::from_datum;
pub use numeric::Numeric;
pub use wire::from_pg_binary;

use crate::oid;

/// Days from 1970-01-01 to PostgreSQL's epoch 2000-01-01.
pub const EPOCH_DAYS: i32 = 10_957;
/// Microseconds from 1970-01-01 to 2000-01-01.
pub const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// Why bytes are not a value of a type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    #[error("values of type {0} are not known here")]
    Unknown(u32),
    #[error("a value of type {0} has {1} bytes, which cannot be")]
    Length(u32, usize),
    #[error("a value of type {0} is compressed or stored elsewhere")]
    Toasted(u32),
    #[error("a value of type {0} is malformed")]
    Malformed(u32),
}

/// One value of a known type.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int2(i16),
    Int4(i32),
    Int8(i64),
    Float4(f32),
    Float8(f64),
    Numeric(Numeric),
    /// text and varchar
    Text(String),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since 1970-01-01 00:00 of a clock without zone.
    Timestamp(i64),
    /// Microseconds since 1970-01-01 00:00 UTC.
    TimestampTz(i64),
    Interval {
        months: i32,
        days: i32,
        micros: i64,
    },
    Uuid([u8; 16]),
    /// PostgreSQL's text of a jsonb value.
    Jsonb(String),
    Bytea(Vec<u8>),
    Xid8(u64),
    /// The elements of an array of any dimensions, in storage order.
    Array {
        element: u32,
        elements: Vec<Value>,
    },
}

impl Value {
    /// See [`from_pg_binary`].
    ///
    /// # Errors
    /// [`ValueError`] for types not known here and for bytes that no value has.
    pub fn from_pg_binary(type_oid: u32, bytes: Option<&[u8]>) -> Result<Value, ValueError> {
        wire::from_pg_binary(type_oid, bytes)
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }
}

/// Microseconds since 1970 from PostgreSQL's count since 2000. Infinities stay; values beyond the range become them only if they are them.
fn micros(type_oid: u32, since_2000: i64) -> Result<i64, ValueError> {
    match since_2000 {
        i64::MAX | i64::MIN => Ok(since_2000),
        finite => {
            finite.checked_add(EPOCH_MICROS).filter(|v| *v != i64::MAX).ok_or(ValueError::Malformed(type_oid))
        }
    }
}

fn days(since_2000: i32) -> Result<i32, ValueError> {
    match since_2000 {
        i32::MAX | i32::MIN => Ok(since_2000),
        finite => {
            finite.checked_add(EPOCH_DAYS).filter(|v| *v != i32::MAX).ok_or(ValueError::Malformed(oid::DATE))
        }
    }
}

/// The 36 characters of a uuid in lower case.
pub fn uuid_text(bytes: &[u8; 16]) -> String {
    let mut out = String::with_capacity(36);
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        for nibble in [byte >> 4, byte & 15] {
            out.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
        }
    }
    out
}
