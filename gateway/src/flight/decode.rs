//! Rows of PostgreSQL's, in the formats that [`super::types`] asks for, as Arrow arrays. ✗ sockets, what a row is for.

use super::types::{Column, Kind, element};
use crate::wire::message::ErrorReport;
use arrow::array::*;
use arrow::array::builder::NullBufferBuilder;
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{ArrowNativeType, IntervalMonthDayNano, SchemaRef, i256};
use pgexact::numeric::Numeric;
use std::sync::Arc;

/// Days from 1970 to 2000, PostgreSQL's own beginning, and microseconds.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_US: i64 = 946_684_800_000_000;
const DAY_US: i64 = 86_400_000_000;
/// What an array's header takes, and each of its dimensions.
const ARRAY_HEADER: usize = 12;

/// A value that has no equal in Arrow, or is none of its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    pub sqlstate: &'static str,
    pub message: String,
    pub hint: &'static str,
}

impl Unfit {
    fn new(sqlstate: &'static str, message: impl Into<String>, hint: &'static str) -> Unfit {
        Unfit { sqlstate, message: message.into(), hint }
    }

    fn malformed(what: &'static str) -> Unfit {
        Unfit::new("XX000", format!("a value of {what} has not the form that PostgreSQL documents"), "Cast the column to text.")
    }

    pub fn report(&self) -> ErrorReport {
        ErrorReport::error(self.sqlstate, self.message.clone()).hint(self.hint)
    }
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// Of an infinite date, timestamp or interval.
pub(super) fn infinite(what: &str) -> Unfit {
    Unfit::new(
        "22008",
        format!("an infinite {what} has no equal in Arrow"),
        "Cast the column to text, or replace infinity: nullif(column, 'infinity').",
    )
}

/// Of a timestamp beyond Arrow's last.
pub(super) fn too_late(what: &str) -> Unfit {
    Unfit::new("22008", format!("a {what} lies beyond what Arrow can hold"), "Cast the column to text.")
}

fn not_a_number() -> Unfit {
    Unfit::new("22003", "NaN of a numeric has no equal in Arrow", "Cast the column to double precision or to text.")
}

/// The rows of one batch, growing.
pub struct Rows {
    schema: SchemaRef,
    columns: Vec<Growing>,
    rows: usize,
    bytes: usize,
}

impl Rows {
    pub fn new(columns: &[Column], schema: SchemaRef) -> Rows {
        Rows { schema, columns: columns.iter().map(|c| Growing::new(&c.kind)).collect(), rows: 0, bytes: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// About what they take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds the body of a DataRow.
    pub fn add(&mut self, body: &[u8]) -> Result<(), Unfit> {
        let mut rest = body.get(2..).ok_or_else(|| Unfit::malformed("a row"))?;
        for column in &mut self.columns {
            let (length, after) = rest.split_first_chunk::<4>().ok_or_else(|| Unfit::malformed("a row"))?;
            match i32::from_be_bytes(*length) {
                -1 => {
                    column.add(None)?;
                    rest = after;
                }
                n => {
                    let n = usize::try_from(n).map_err(|_| Unfit::malformed("a row"))?;
                    let (value, after) = after.split_at_checked(n).ok_or_else(|| Unfit::malformed("a row"))?;
                    column.add(Some(value))?;
                    rest = after;
                }
            }
        }
        self.rows += 1;
        self.bytes += body.len();
        Ok(())
    }

    /// What was added since the last time.
    pub fn take(&mut self) -> RecordBatch {
        let arrays: Vec<ArrayRef> = self.columns.iter_mut().map(Growing::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        self.rows = 0;
        self.bytes = 0;
        // The arrays are of the kinds that the schema was made of, and each has had one value a row.
        RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)
            .unwrap_or_else(|e| unreachable!("columns of one table: {e}"))
    }

    /// The arrays alone.
    pub fn take_arrays(&mut self) -> Vec<ArrayRef> {
        self.rows = 0;
        self.bytes = 0;
        self.columns.iter_mut().map(Growing::finish).collect()
    }
}

/// One array, growing.
enum Growing {
    Bool(BooleanBuilder),
    Int2(Int16Builder),
    Int4(Int32Builder),
    Int8(Int64Builder),
    Unsigned4(UInt32Builder),
    Xid8(UInt64Builder),
    Float4(Float32Builder),
    Float8(Float64Builder),
    Text(StringBuilder),
    Jsonb(StringBuilder),
    /// In text at the top, in binary inside of arrays.
    Numeric { text: StringBuilder, binary: bool },
    Bytea(BinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    TimestampTz(TimestampMicrosecondBuilder),
    Interval(IntervalMonthDayNanoBuilder),
    Decimal128(Decimal128Builder, i8, u8),
    Decimal256(Decimal256Builder, i8, u8),
    Uuid(FixedSizeBinaryBuilder),
    List(Box<Lists>),
}

struct Lists {
    item: Kind,
    items: Growing,
    offsets: Vec<i32>,
    nulls: NullBufferBuilder,
    count: usize,
}

impl Growing {
    fn new(kind: &Kind) -> Growing {
        Growing::within(kind, false)
    }

    fn within(kind: &Kind, array: bool) -> Growing {
        match kind {
            Kind::Bool => Growing::Bool(BooleanBuilder::new()),
            Kind::Int2 => Growing::Int2(Int16Builder::new()),
            Kind::Int4 => Growing::Int4(Int32Builder::new()),
            Kind::Int8 => Growing::Int8(Int64Builder::new()),
            Kind::Unsigned4 => Growing::Unsigned4(UInt32Builder::new()),
            Kind::Xid8 => Growing::Xid8(UInt64Builder::new()),
            Kind::Float4 => Growing::Float4(Float32Builder::new()),
            Kind::Float8 => Growing::Float8(Float64Builder::new()),
            Kind::Text | Kind::Printed => Growing::Text(StringBuilder::new()),
            Kind::Numeric => Growing::Numeric { text: StringBuilder::new(), binary: array },
            Kind::Jsonb => Growing::Jsonb(StringBuilder::new()),
            Kind::Bytea => Growing::Bytea(BinaryBuilder::new()),
            Kind::Date => Growing::Date(Date32Builder::new()),
            Kind::Time => Growing::Time(Time64MicrosecondBuilder::new()),
            Kind::Timestamp => Growing::Timestamp(TimestampMicrosecondBuilder::new()),
            Kind::TimestampTz => Growing::TimestampTz(TimestampMicrosecondBuilder::new().with_timezone("UTC")),
            Kind::Interval => Growing::Interval(IntervalMonthDayNanoBuilder::new()),
            Kind::Decimal128(p, s) => {
                Growing::Decimal128(Decimal128Builder::new().with_data_type(kind.data_type()), *s, *p)
            }
            Kind::Decimal256(p, s) => {
                Growing::Decimal256(Decimal256Builder::new().with_data_type(kind.data_type()), *s, *p)
            }
            Kind::Uuid => Growing::Uuid(FixedSizeBinaryBuilder::new(16)),
            Kind::List(item) => Growing::List(Box::new(Lists {
                items: Growing::within(item, true),
                item: (**item).clone(),
                offsets: vec![0],
                nulls: NullBufferBuilder::new(0),
                count: 0,
            })),
        }
    }

    fn add(&mut self, value: Option<&[u8]>) -> Result<(), Unfit> {
        /// One value of a fixed length.
        macro_rules! fixed {
            ($builder:expr, $t:ty, $what:literal) => {
                fixed!($builder, $t, $what, |v: $t| Ok::<$t, Unfit>(v))
            };
            ($builder:expr, $t:ty, $what:literal, $of:expr) => {{
                let value = match value {
                    None => None,
                    Some(v) => {
                        let v = <$t>::from_be_bytes(v.try_into().map_err(|_| Unfit::malformed($what))?);
                        Some($of(v)?)
                    }
                };
                $builder.append_option(value)
            }};
        }
        match self {
            Growing::Bool(b) => b.append_option(value.map(|v| v == [1])),
            Growing::Int2(b) => fixed!(b, i16, "smallint"),
            Growing::Int4(b) => fixed!(b, i32, "integer"),
            Growing::Int8(b) => fixed!(b, i64, "bigint"),
            Growing::Unsigned4(b) => fixed!(b, u32, "oid"),
            Growing::Xid8(b) => fixed!(b, u64, "xid8"),
            Growing::Float4(b) => fixed!(b, f32, "real"),
            Growing::Float8(b) => fixed!(b, f64, "double precision"),
            Growing::Text(b) => b.append_option(value.map(utf8).transpose()?),
            Growing::Numeric { text, binary: false } => text.append_option(value.map(utf8).transpose()?),
            Growing::Numeric { text, binary: true } => match value {
                None => text.append_null(),
                Some(v) => text.append_value(Numeric::from_wire(v).map_err(|_| Unfit::malformed("numeric"))?.to_string()),
            },
            Growing::Jsonb(b) => match value {
                None => b.append_null(),
                // The version of the format stands before the text.
                Some([1, text @ ..]) => b.append_value(utf8(text)?),
                Some(_) => return Err(Unfit::malformed("jsonb")),
            },
            Growing::Bytea(b) => b.append_option(value),
            Growing::Date(b) => fixed!(b, i32, "date", |days: i32| match days {
                i32::MIN | i32::MAX => Err(infinite("date")),
                days => days.checked_add(EPOCH_DAYS).ok_or_else(|| too_late("date")),
            }),
            Growing::Time(b) => fixed!(b, i64, "time", |us: i64| match us {
                0..DAY_US => Ok(us),
                _ => Err(Unfit::new("22008", "the time 24:00:00 has no equal in Arrow", "Cast the column to text or interval.")),
            }),
            Growing::Timestamp(b) | Growing::TimestampTz(b) => fixed!(b, i64, "timestamp", |us: i64| match us {
                i64::MIN | i64::MAX => Err(infinite("timestamp")),
                us => us.checked_add(EPOCH_US).ok_or_else(|| too_late("timestamp")),
            }),
            Growing::Interval(b) => match value {
                None => b.append_null(),
                Some(v) => b.append_value(interval(v)?),
            },
            Growing::Decimal128(b, scale, digits) => match value {
                None => b.append_null(),
                Some(v) => b.append_value(decimal::<i128>(v, *scale, *digits)?),
            },
            Growing::Decimal256(b, scale, digits) => match value {
                None => b.append_null(),
                Some(v) => b.append_value(decimal::<i256>(v, *scale, *digits)?),
            },
            Growing::Uuid(b) => match value {
                None => b.append_null(),
                Some(v) => b.append_value(v).map_err(|_| Unfit::malformed("uuid"))?,
            },
            Growing::List(lists) => lists.add(value)?,
        }
        Ok(())
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Growing::Bool(b) => Arc::new(b.finish()),
            Growing::Int2(b) => Arc::new(b.finish()),
            Growing::Int4(b) => Arc::new(b.finish()),
            Growing::Int8(b) => Arc::new(b.finish()),
            Growing::Unsigned4(b) => Arc::new(b.finish()),
            Growing::Xid8(b) => Arc::new(b.finish()),
            Growing::Float4(b) => Arc::new(b.finish()),
            Growing::Float8(b) => Arc::new(b.finish()),
            Growing::Text(b) | Growing::Jsonb(b) | Growing::Numeric { text: b, .. } => Arc::new(b.finish()),
            Growing::Bytea(b) => Arc::new(b.finish()),
            Growing::Date(b) => Arc::new(b.finish()),
            Growing::Time(b) => Arc::new(b.finish()),
            Growing::Timestamp(b) | Growing::TimestampTz(b) => Arc::new(b.finish()),
            Growing::Interval(b) => Arc::new(b.finish()),
            Growing::Decimal128(b, ..) => Arc::new(b.finish()),
            Growing::Decimal256(b, ..) => Arc::new(b.finish()),
            Growing::Uuid(b) => Arc::new(b.finish()),
            Growing::List(lists) => lists.finish(),
        }
    }
}

impl Lists {
    /// `array_send` of PostgreSQL's `arrayfuncs.c`.
    fn add(&mut self, value: Option<&[u8]>) -> Result<(), Unfit> {
        let malformed = || Unfit::malformed("an array");
        let word = |v: &[u8], at: usize| {
            v.get(at..at + 4).and_then(|b| b.try_into().ok()).map(i32::from_be_bytes).ok_or_else(malformed)
        };
        match value {
            None => self.nulls.append_null(),
            Some(v) => {
                if element_kind_differs(word(v, 8)? as u32, &self.item) {
                    return Err(malformed());
                }
                match word(v, 0)? {
                    0 => {}
                    1 if word(v, ARRAY_HEADER + 4)? == 1 => {
                        let mut rest = v.get(ARRAY_HEADER + 8..).ok_or_else(malformed)?;
                        for _ in 0..word(v, ARRAY_HEADER)? {
                            let length = word(rest, 0)?;
                            rest = &rest[4..];
                            match usize::try_from(length) {
                                Err(_) => self.items.add(None)?,
                                Ok(n) => {
                                    let (item, after) = rest.split_at_checked(n).ok_or_else(malformed)?;
                                    self.items.add(Some(item))?;
                                    rest = after;
                                }
                            }
                            self.count += 1;
                        }
                    }
                    _ => {
                        return Err(Unfit::new(
                            "0A000",
                            "an array of several dimensions, or one that does not begin at 1, has no equal in Arrow",
                            "Cast the column to text, or unnest it.",
                        ));
                    }
                }
                self.nulls.append_non_null();
            }
        }
        self.offsets.push(i32::try_from(self.count).map_err(|_| Unfit::malformed("an array"))?);
        Ok(())
    }

    fn finish(&mut self) -> ArrayRef {
        let offsets = std::mem::replace(&mut self.offsets, vec![0]);
        self.count = 0;
        let items = self.items.finish();
        // As many offsets as values and one, rising, none beyond the items.
        Arc::new(ListArray::new(Arc::new(self.item.item_field()), OffsetBuffer::new(offsets.into()), items, self.nulls.finish()))
    }
}

fn element_kind_differs(element_oid: u32, item: &Kind) -> bool {
    match item {
        // Known by the column's modifier.
        Kind::Decimal128(..) | Kind::Decimal256(..) | Kind::Numeric => element_oid != 1700,
        item => element(element_oid).is_some() || Kind::of(element_oid, -1) != *item,
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, Unfit> {
    std::str::from_utf8(bytes).map_err(|_| {
        Unfit::new("22021", "invalid byte sequence for encoding \"UTF8\"", "The database holds text of another encoding than it declares.")
    })
}

fn interval(v: &[u8]) -> Result<IntervalMonthDayNano, Unfit> {
    let malformed = || Unfit::malformed("interval");
    let us = i64::from_be_bytes(v.get(..8).and_then(|b| b.try_into().ok()).ok_or_else(malformed)?);
    let days = i32::from_be_bytes(v.get(8..12).and_then(|b| b.try_into().ok()).ok_or_else(malformed)?);
    let months = i32::from_be_bytes(v.get(12..16).and_then(|b| b.try_into().ok()).ok_or_else(malformed)?);
    if (months, days, us) == (i32::MAX, i32::MAX, i64::MAX) || (months, days, us) == (i32::MIN, i32::MIN, i64::MIN) {
        return Err(infinite("interval"));
    }
    let nanoseconds = us.checked_mul(1000).ok_or_else(|| {
        Unfit::new("22008", "an interval has more hours than Arrow can hold", "Cast the column to text, or use extract(epoch from it).")
    })?;
    Ok(IntervalMonthDayNano::new(months, days, nanoseconds))
}

/// A number of `scale` digits after the point out of `numeric_send`'s format: groups of four digits, the first of weight `weight`.
fn decimal<T: ArrowNativeTypeOp + ArrowNativeType>(v: &[u8], scale: i8, digits: u8) -> Result<T, Unfit> {
    let malformed = || Unfit::malformed("numeric");
    let too_long = || Unfit::new("22003", "a numeric has more digits than its column", "Cast the column to text.");
    let word = |n: usize| v.get(2 * n..2 * n + 2).map(|b| i16::from_be_bytes([b[0], b[1]])).ok_or_else(malformed);
    let (groups, weight, sign) = (word(0)?, i32::from(word(1)?), word(2)? as u16);
    let negative = match sign {
        0 => false,
        0x4000 => true,
        _ => return Err(not_a_number()),
    };
    let small = |n: usize| T::usize_as(n);
    let ten_thousand = small(10_000);
    let mut total = T::ZERO;
    let mut place = i32::from(scale);
    for group in 0..groups {
        let value = usize::try_from(word(4 + group as usize)?).map_err(|_| malformed())?;
        // The power of ten, in units of the last digit, that this group counts.
        place = i32::from(scale) + 4 * (weight - i32::from(group));
        let (shift, value) = match place {
            0.. => (ten_thousand, value),
            -3..0 => {
                let unit = 10usize.pow(place.unsigned_abs());
                if value % unit != 0 {
                    return Err(too_long());
                }
                (small(10_000 / unit), value / unit)
            }
            _ if value == 0 => continue,
            _ => return Err(too_long()),
        };
        total = total.mul_checked(shift).and_then(|t| t.add_checked(small(value))).map_err(|_| too_long())?;
    }
    if groups > 0 && place > 0 {
        let power = small(10).pow_checked(place as u32).map_err(|_| too_long())?;
        total = total.mul_checked(power).map_err(|_| too_long())?;
    }
    // No more digits than the column has, whatever a store may say.
    if let Ok(limit) = small(10).pow_checked(digits.into())
        && total.is_ge(limit)
    {
        return Err(too_long());
    }
    if negative { total.neg_checked().map_err(|_| too_long()) } else { Ok(total) }
}

#[cfg(test)]
mod tests;
