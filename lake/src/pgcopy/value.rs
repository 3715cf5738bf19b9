//! One column's values: the binary form of each type into the Arrow builder of its type.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryViewBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder,
    Float64Builder, Int16Builder, Int32Builder, Int64Builder, StringViewBuilder, TimestampMicrosecondBuilder,
};

use super::numeric::Numeric;
use crate::Error;
use crate::types::{ColType, EPOCH_DAYS, EPOCH_MICROS};

/// Why a value was not taken.
#[derive(Debug)]
pub(super) enum Refusal {
    Malformed(String),
    Unkeepable(String),
}

impl Refusal {
    pub(super) fn malformed(what: impl Into<String>) -> Self {
        Self::Malformed(what.into())
    }

    pub(super) fn of_column(self, column: &str) -> Error {
        match self {
            Self::Malformed(what) => Error::Copy(format!("column {column}: {what}")),
            Self::Unkeepable(value) => Error::Unkeepable { column: column.into(), value },
        }
    }
}

/// An Arrow builder and what its bytes mean.
#[derive(Debug)]
pub(super) enum ColumnBuilder {
    Bool(BooleanBuilder),
    Int2(Int16Builder),
    Int4(Int32Builder),
    Int8(Int64Builder),
    Xid8(Int64Builder),
    Float4(Float32Builder),
    Float8(Float64Builder),
    Numeric(Decimal128Builder, u8, i8),
    NumericText(StringViewBuilder),
    Text(StringViewBuilder),
    Jsonb(StringViewBuilder),
    Uuid(StringViewBuilder),
    Bytea(BinaryViewBuilder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Refusal> {
    bytes.try_into().map_err(|_| Refusal::malformed(format!("{} bytes, expected {N}", bytes.len())))
}

fn text(bytes: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(bytes).map_err(|_| Refusal::malformed("text that is not UTF-8"))
}

fn uuid(bytes: &[u8]) -> Result<[u8; 36], Refusal> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let raw: [u8; 16] = fixed(bytes)?;
    let mut out = [b'-'; 36];
    let mut at = 0;
    for (i, b) in raw.into_iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            at += 1;
        }
        out[at] = HEX[usize::from(b >> 4)];
        out[at + 1] = HEX[usize::from(b & 15)];
        at += 2;
    }
    Ok(out)
}

/// Days since 1970 of days since 2000; the infinities are the same in both.
fn date(days: i32) -> Result<i32, Refusal> {
    match days {
        i32::MIN | i32::MAX => Ok(days),
        _ => match days.checked_add(EPOCH_DAYS) {
            Some(d) if d != i32::MAX => Ok(d),
            _ => Err(Refusal::Unkeepable(format!("the date {days} days after 2000-01-01"))),
        },
    }
}

/// Microseconds since 1970 of microseconds since 2000; the infinities are the same in both. PostgreSQL's last thirty years, up to
/// 294276, do not fit.
fn timestamp(micros: i64) -> Result<i64, Refusal> {
    match micros {
        i64::MIN | i64::MAX => Ok(micros),
        _ => match micros.checked_add(EPOCH_MICROS) {
            Some(t) if t != i64::MAX => Ok(t),
            _ => Err(Refusal::Unkeepable(format!("the timestamp {micros} µs after 2000-01-01"))),
        },
    }
}

impl ColumnBuilder {
    pub(super) fn new(ty: ColType, capacity: usize) -> Self {
        match ty {
            ColType::Bool => Self::Bool(BooleanBuilder::with_capacity(capacity)),
            ColType::Int2 => Self::Int2(Int16Builder::with_capacity(capacity)),
            ColType::Int4 => Self::Int4(Int32Builder::with_capacity(capacity)),
            ColType::Int8 => Self::Int8(Int64Builder::with_capacity(capacity)),
            ColType::Xid8 => Self::Xid8(Int64Builder::with_capacity(capacity)),
            ColType::Float4 => Self::Float4(Float32Builder::with_capacity(capacity)),
            ColType::Float8 => Self::Float8(Float64Builder::with_capacity(capacity)),
            ColType::Numeric { precision, scale } => Self::Numeric(
                Decimal128Builder::with_capacity(capacity).with_data_type(ty.arrow()),
                precision,
                scale,
            ),
            ColType::NumericText => Self::NumericText(StringViewBuilder::with_capacity(capacity)),
            ColType::Text | ColType::Varchar => Self::Text(StringViewBuilder::with_capacity(capacity)),
            ColType::Jsonb => Self::Jsonb(StringViewBuilder::with_capacity(capacity)),
            ColType::Uuid => Self::Uuid(StringViewBuilder::with_capacity(capacity)),
            // A decoder of arrays is refused before it has columns.
            ColType::Bytea | ColType::Array(_) => Self::Bytea(BinaryViewBuilder::with_capacity(capacity)),
            ColType::Date => Self::Date(Date32Builder::with_capacity(capacity)),
            ColType::Timestamp | ColType::TimestampTz => Self::Timestamp(
                TimestampMicrosecondBuilder::with_capacity(capacity).with_data_type(ty.arrow()),
            ),
        }
    }

    /// Appends one value, or NULL for `None`.
    #[inline]
    pub(super) fn append(&mut self, value: Option<&[u8]>) -> Result<(), Refusal> {
        let Some(v) = value else {
            self.append_null();
            return Ok(());
        };
        match self {
            Self::Bool(b) => match v {
                [0] => b.append_value(false),
                [1] => b.append_value(true),
                _ => return Err(Refusal::malformed("a bool that is neither 0 nor 1")),
            },
            Self::Int2(b) => b.append_value(i16::from_be_bytes(fixed(v)?)),
            Self::Int4(b) => b.append_value(i32::from_be_bytes(fixed(v)?)),
            Self::Int8(b) => b.append_value(i64::from_be_bytes(fixed(v)?)),
            Self::Xid8(b) => {
                let xid = u64::from_be_bytes(fixed(v)?);
                b.append_value(
                    i64::try_from(xid).map_err(|_| Refusal::Unkeepable(format!("transaction id {xid}")))?,
                );
            }
            Self::Float4(b) => b.append_value(f32::from_be_bytes(fixed(v)?)),
            Self::Float8(b) => b.append_value(f64::from_be_bytes(fixed(v)?)),
            Self::Numeric(b, p, s) => b.append_value(Numeric::parse(v)?.scaled(*p, *s)?),
            Self::NumericText(b) => b.append_value(Numeric::parse(v)?.text()),
            Self::Text(b) => b.append_value(text(v)?),
            Self::Jsonb(b) => match v {
                [1, rest @ ..] => b.append_value(text(rest)?),
                [] => return Err(Refusal::malformed("an empty jsonb")),
                [version, ..] => {
                    return Err(Refusal::malformed(format!("jsonb of version {version}")));
                }
            },
            Self::Uuid(b) => {
                let raw = uuid(v)?;
                b.append_value(text(&raw)?);
            }
            Self::Bytea(b) => b.append_value(v),
            Self::Date(b) => b.append_value(date(i32::from_be_bytes(fixed(v)?))?),
            Self::Timestamp(b) => b.append_value(timestamp(i64::from_be_bytes(fixed(v)?))?),
        }
        Ok(())
    }

    fn append_null(&mut self) {
        match self {
            Self::Bool(b) => b.append_null(),
            Self::Int2(b) => b.append_null(),
            Self::Int4(b) => b.append_null(),
            Self::Int8(b) | Self::Xid8(b) => b.append_null(),
            Self::Float4(b) => b.append_null(),
            Self::Float8(b) => b.append_null(),
            Self::Numeric(b, ..) => b.append_null(),
            Self::NumericText(b) | Self::Text(b) | Self::Jsonb(b) | Self::Uuid(b) => {
                b.append_null();
            }
            Self::Bytea(b) => b.append_null(),
            Self::Date(b) => b.append_null(),
            Self::Timestamp(b) => b.append_null(),
        }
    }

    /// The values so far as an array; the builder begins anew.
    pub(super) fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Bool(b) => Arc::new(b.finish()),
            Self::Int2(b) => Arc::new(b.finish()),
            Self::Int4(b) => Arc::new(b.finish()),
            Self::Int8(b) | Self::Xid8(b) => Arc::new(b.finish()),
            Self::Float4(b) => Arc::new(b.finish()),
            Self::Float8(b) => Arc::new(b.finish()),
            Self::Numeric(b, ..) => Arc::new(b.finish()),
            Self::NumericText(b) | Self::Text(b) | Self::Jsonb(b) | Self::Uuid(b) => Arc::new(b.finish()),
            Self::Bytea(b) => Arc::new(b.finish()),
            Self::Date(b) => Arc::new(b.finish()),
            Self::Timestamp(b) => Arc::new(b.finish()),
        }
    }
}
