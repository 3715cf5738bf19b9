//! Result rows: Arrow batches to PostgreSQL DataRow messages, in text and in binary.
//!
//! Knows type OIDs, type modifiers, PostgreSQL's output functions for the types of the result set, and the
//! frame of a DataRow. Does not know RowDescription, sockets or flow control. Text is what PostgreSQL
//! writes with `client_encoding = UTF8`, `DateStyle = ISO`, `extra_float_digits` above 0 and
//! `bytea_output = hex`; the caller checks that the session has them.
//!
//! What a column may be is decided once, when the encoder is made; per batch each column becomes one
//! variant over its typed array, so that a value costs a match and no virtual call.

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryViewArray, BooleanArray, Date32Array, Decimal128Array,
    Decimal256Array, FixedSizeBinaryArray, Float32Array, Float64Array, Int16Array, Int32Array, Int64Array,
    LargeBinaryArray, LargeStringArray, RecordBatch, StringArray, StringViewArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Schema, TimeUnit};
use bytes::{BufMut, BytesMut};

use crate::calendar::{
    self, DAY_US, EPOCH_SHIFT_DAYS, EPOCH_SHIFT_US, MIN_TIMESTAMP_US, NEG_INFINITY, POS_INFINITY,
};
use crate::numeric::{Decimal, Numeric, write_decimal, write_wire};
use crate::zone::{Cursor, OutsideZoneData};
use crate::{PgError, Zone, float};

mod list;
#[cfg(test)]
mod tests;

use list::Lists;

/// OIDs of the built-in types that results may have (`pg_type.dat`).
pub mod oid {
    pub const BOOL: u32 = 16;
    pub const BYTEA: u32 = 17;
    pub const INT8: u32 = 20;
    pub const INT2: u32 = 21;
    pub const INT4: u32 = 23;
    pub const TEXT: u32 = 25;
    pub const FLOAT4: u32 = 700;
    pub const FLOAT8: u32 = 701;
    pub const VARCHAR: u32 = 1043;
    pub const DATE: u32 = 1082;
    pub const TIMESTAMP: u32 = 1114;
    pub const TIMESTAMPTZ: u32 = 1184;
    pub const NUMERIC: u32 = 1700;
    pub const UUID: u32 = 2950;
    pub const JSONB: u32 = 3802;
    pub const XID8: u32 = 5069;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    Text,
    Binary,
}

/// What PostgreSQL described for a result column, and the format the client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    pub type_oid: u32,
    pub typmod: i32,
    pub format: Format,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The pair of Arrow type and PostgreSQL type has no exact encoding here.
    #[error("column {column}: cannot encode {data_type} as type {type_oid} (typmod {typmod})")]
    Unsupported { column: usize, data_type: String, type_oid: u32, typmod: i32 },
    /// The number of columns differs from what was described.
    #[error("{columns} columns for {targets} described ones")]
    Columns { columns: usize, targets: usize },
    /// A value that the described type cannot hold.
    #[error("column {column}: {error}")]
    Value { column: usize, error: PgError },
    #[error(transparent)]
    Zone(#[from] OutsideZoneData),
}

/// How a column is encoded: chosen once from (Arrow type, PostgreSQL type, format).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    /// Decimals and integers with so many digits after the point.
    NumericFixed(u8),
    NumericText,
    Text,
    Date,
    Timestamp,
    TimestampTz,
    Uuid,
    Jsonb,
    Bytea,
    Xid8,
    /// Of what `Column::item` says.
    List,
}

#[derive(Debug, Clone)]
struct Column {
    kind: Kind,
    item: Option<Box<Column>>,
    format: Format,
    data_type: DataType,
    target: Target,
}

/// Writes rows of one result set.
#[derive(Debug, Clone)]
pub struct RowEncoder {
    columns: Vec<Column>,
    zone: Zone,
}

fn is_text(t: &DataType) -> bool {
    matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Digits after the point that a numeric typmod prescribes; None for -1.
fn typmod_scale(typmod: i32) -> Option<i32> {
    // The scale stands in the low 11 bits, signed.
    (typmod >= 4).then(|| (((typmod - 4) & 0x7ff) ^ 1024) - 1024)
}

fn kind_of(target: &Target, t: &DataType) -> Option<Kind> {
    use DataType::*;
    Some(match (target.type_oid, t) {
        (oid::BOOL, Boolean) => Kind::Bool,
        (oid::INT2, Int16 | Int32 | Int64) => Kind::Int2,
        (oid::INT4, Int16 | Int32 | Int64) => Kind::Int4,
        (oid::INT8, Int16 | Int32 | Int64) => Kind::Int8,
        (oid::XID8, Int64) => Kind::Xid8,
        (oid::FLOAT4, Float32) => Kind::Float4,
        (oid::FLOAT8, Float32 | Float64) => Kind::Float8,
        (oid::NUMERIC, Decimal128(_, s) | Decimal256(_, s))
            if *s >= 0 && typmod_scale(target.typmod).is_none_or(|m| m == i32::from(*s)) =>
        {
            Kind::NumericFixed(*s as u8)
        }
        (oid::NUMERIC, Int16 | Int32 | Int64) if typmod_scale(target.typmod).is_none_or(|m| m == 0) => {
            Kind::NumericFixed(0)
        }
        (oid::NUMERIC, t) if is_text(t) => Kind::NumericText,
        (oid::TEXT | oid::VARCHAR, t) if is_text(t) => Kind::Text,
        (oid::DATE, Date32) => Kind::Date,
        (oid::TIMESTAMP, Timestamp(TimeUnit::Microsecond, None)) => Kind::Timestamp,
        (oid::TIMESTAMPTZ, Timestamp(TimeUnit::Microsecond, Some(_))) => Kind::TimestampTz,
        (oid::UUID, FixedSizeBinary(16)) => Kind::Uuid,
        (oid::UUID, t) if is_text(t) => Kind::Uuid,
        (oid::JSONB, t) if is_text(t) => Kind::Jsonb,
        (oid::BYTEA, Binary | LargeBinary | BinaryView) => Kind::Bytea,
        _ => return None,
    })
}

impl Column {
    fn new(target: &Target, data_type: &DataType) -> Option<Column> {
        let (kind, item) = match (list::element(target.type_oid), data_type) {
            (Some(element), DataType::List(field)) => {
                let item = Target { type_oid: element, ..*target };
                (Kind::List, Some(Box::new(Column::new(&item, field.data_type())?)))
            }
            _ => (kind_of(target, data_type)?, None),
        };
        Some(Column { kind, item, format: target.format, data_type: data_type.clone(), target: *target })
    }
}

impl RowEncoder {
    /// An encoder for batches of `schema`, column by column for `targets`. `zone` is the session's.
    ///
    /// [`EncodeError::Unsupported`] for anything whose bytes could differ from PostgreSQL's. Integers may
    /// be narrower or wider than described; wider ones are range-checked per value. A typmod of numeric
    /// must agree with the decimal's scale.
    pub fn try_new(targets: &[Target], schema: &Schema, zone: &Zone) -> Result<RowEncoder, EncodeError> {
        if targets.len() != schema.fields().len() {
            return Err(EncodeError::Columns { columns: schema.fields().len(), targets: targets.len() });
        }
        let columns = targets
            .iter()
            .zip(schema.fields())
            .enumerate()
            .map(|(column, (target, field))| {
                Column::new(target, field.data_type()).ok_or_else(|| EncodeError::Unsupported {
                    column,
                    data_type: field.data_type().to_string(),
                    type_oid: target.type_oid,
                    typmod: target.typmod,
                })
            })
            .collect::<Result<_, EncodeError>>()?;
        Ok(RowEncoder { columns, zone: zone.clone() })
    }

    /// Appends up to `max_rows` DataRow messages beginning at row `from_row`; gives the number written.
    /// On an error `out` ends with the last complete row.
    pub fn encode_batch(
        &self,
        batch: &RecordBatch,
        from_row: usize,
        max_rows: usize,
        out: &mut BytesMut,
    ) -> Result<usize, EncodeError> {
        self.encode_some(batch, from_row, max_rows, usize::MAX, out)
    }

    /// As [`Self::encode_batch`], but stops after the row with which `out` reaches `soft_limit` bytes, so
    /// that a caller can flush between calls. Writes at least one row if there is one.
    pub fn encode_some(
        &self,
        batch: &RecordBatch,
        from_row: usize,
        max_rows: usize,
        soft_limit: usize,
        out: &mut BytesMut,
    ) -> Result<usize, EncodeError> {
        if batch.num_columns() != self.columns.len() {
            return Err(EncodeError::Columns { columns: batch.num_columns(), targets: self.columns.len() });
        }
        let mut writers = self
            .columns
            .iter()
            .zip(batch.columns())
            .enumerate()
            .map(|(i, (column, array))| {
                Writer::new(column, array, &self.zone).ok_or_else(|| EncodeError::Unsupported {
                    column: i,
                    data_type: array.data_type().to_string(),
                    type_oid: column.target.type_oid,
                    typmod: column.target.typmod,
                })
            })
            .collect::<Result<Vec<_>, EncodeError>>()?;
        let columns = self.columns.len() as u16;
        let end = batch.num_rows().min(from_row.saturating_add(max_rows));
        let mut written = 0;
        for row in from_row..end {
            let start = out.len();
            out.put_u8(b'D');
            out.put_u32(0);
            out.put_u16(columns);
            for (i, writer) in writers.iter_mut().enumerate() {
                if let Err(e) = writer.field(row, out) {
                    out.truncate(start);
                    return Err(match e {
                        ValueError::Zone(e) => EncodeError::Zone(e),
                        ValueError::Pg(error) => EncodeError::Value { column: i, error },
                    });
                }
            }
            let length = out.len() - start - 1;
            let Ok(length) = i32::try_from(length) else {
                out.truncate(start);
                let error = PgError::new("54000", "out of memory");
                return Err(EncodeError::Value { column: 0, error });
            };
            out[start + 1..start + 5].copy_from_slice(&length.to_be_bytes());
            written += 1;
            if out.len() >= soft_limit {
                break;
            }
        }
        Ok(written)
    }
}

pub(crate) enum ValueError {
    Pg(PgError),
    Zone(OutsideZoneData),
}

impl From<PgError> for ValueError {
    fn from(e: PgError) -> Self {
        ValueError::Pg(e)
    }
}

impl From<OutsideZoneData> for ValueError {
    fn from(e: OutsideZoneData) -> Self {
        ValueError::Zone(e)
    }
}

/// A text column in any of Arrow's layouts.
enum Strings<'a> {
    Small(&'a StringArray),
    Large(&'a LargeStringArray),
    View(&'a StringViewArray),
}

impl<'a> Strings<'a> {
    fn new(array: &'a ArrayRef) -> Option<Self> {
        Some(match array.data_type() {
            DataType::Utf8 => Strings::Small(array.as_string()),
            DataType::LargeUtf8 => Strings::Large(array.as_string()),
            DataType::Utf8View => Strings::View(array.as_string_view()),
            _ => return None,
        })
    }

    #[inline]
    fn value(&self, row: usize) -> &'a str {
        match self {
            Strings::Small(a) => a.value(row),
            Strings::Large(a) => a.value(row),
            Strings::View(a) => a.value(row),
        }
    }
}

enum Blobs<'a> {
    Small(&'a BinaryArray),
    Large(&'a LargeBinaryArray),
    View(&'a BinaryViewArray),
}

impl<'a> Blobs<'a> {
    fn new(array: &'a ArrayRef) -> Option<Self> {
        Some(match array.data_type() {
            DataType::Binary => Blobs::Small(array.as_binary()),
            DataType::LargeBinary => Blobs::Large(array.as_binary()),
            DataType::BinaryView => Blobs::View(array.as_binary_view()),
            _ => return None,
        })
    }

    fn value(&self, row: usize) -> &'a [u8] {
        match self {
            Blobs::Small(a) => a.value(row),
            Blobs::Large(a) => a.value(row),
            Blobs::View(a) => a.value(row),
        }
    }
}

enum Ints<'a> {
    I16(&'a Int16Array),
    I32(&'a Int32Array),
    I64(&'a Int64Array),
}

impl<'a> Ints<'a> {
    fn new(array: &'a ArrayRef) -> Option<Self> {
        Some(match array.data_type() {
            DataType::Int16 => Ints::I16(array.as_primitive()),
            DataType::Int32 => Ints::I32(array.as_primitive()),
            DataType::Int64 => Ints::I64(array.as_primitive()),
            _ => return None,
        })
    }

    #[inline]
    fn value(&self, row: usize) -> i64 {
        match self {
            Ints::I16(a) => a.value(row).into(),
            Ints::I32(a) => a.value(row).into(),
            Ints::I64(a) => a.value(row),
        }
    }
}

enum Values<'a> {
    Bool(&'a BooleanArray),
    Int2(Ints<'a>),
    Int4(Ints<'a>),
    Int8(Ints<'a>),
    Xid8(&'a Int64Array),
    Float32(&'a Float32Array),
    /// Float32 printed as float8.
    Widened(&'a Float32Array),
    Float64(&'a Float64Array),
    Decimal128(&'a Decimal128Array, u8),
    Decimal256(&'a Decimal256Array, u8),
    /// Integers as numeric of scale 0.
    Whole(Ints<'a>),
    NumericText(Strings<'a>),
    Text(Strings<'a>),
    Date(&'a Date32Array),
    Timestamp(&'a TimestampMicrosecondArray),
    TimestampTz(&'a TimestampMicrosecondArray, Cursor<'a>),
    UuidText(Strings<'a>),
    UuidBytes(&'a FixedSizeBinaryArray),
    Jsonb(Strings<'a>),
    Bytea(Blobs<'a>),
    List(Lists<'a>),
}

struct Writer<'a> {
    nulls: Option<&'a arrow::buffer::NullBuffer>,
    values: Values<'a>,
    binary: bool,
    /// The last local day written and its text, for timestamps: neighbouring rows mostly share it.
    day: DayText,
}

impl<'a> Writer<'a> {
    /// None if the array is not of the type the encoder was made for.
    fn new(column: &Column, array: &'a ArrayRef, zone: &'a Zone) -> Option<Self> {
        if *array.data_type() != column.data_type {
            return None;
        }
        let values = match column.kind {
            Kind::Bool => Values::Bool(array.as_boolean()),
            Kind::Int2 => Values::Int2(Ints::new(array)?),
            Kind::Int4 => Values::Int4(Ints::new(array)?),
            Kind::Int8 => Values::Int8(Ints::new(array)?),
            Kind::Xid8 => Values::Xid8(array.as_primitive()),
            Kind::Float4 => Values::Float32(array.as_primitive()),
            Kind::Float8 => match array.data_type() {
                DataType::Float32 => Values::Widened(array.as_primitive()),
                _ => Values::Float64(array.as_primitive()),
            },
            Kind::NumericFixed(scale) => match array.data_type() {
                DataType::Decimal128(..) => Values::Decimal128(array.as_primitive(), scale),
                DataType::Decimal256(..) => Values::Decimal256(array.as_primitive(), scale),
                _ => Values::Whole(Ints::new(array)?),
            },
            Kind::NumericText => Values::NumericText(Strings::new(array)?),
            Kind::Text => Values::Text(Strings::new(array)?),
            Kind::Date => Values::Date(array.as_primitive()),
            Kind::Timestamp => Values::Timestamp(array.as_primitive()),
            Kind::TimestampTz => Values::TimestampTz(array.as_primitive(), Cursor::new(zone)),
            Kind::Uuid => match Strings::new(array) {
                Some(strings) => Values::UuidText(strings),
                None => Values::UuidBytes(array.as_fixed_size_binary_opt()?),
            },
            Kind::Jsonb => Values::Jsonb(Strings::new(array)?),
            Kind::Bytea => Values::Bytea(Blobs::new(array)?),
            Kind::List => Values::List(Lists::new(array.as_list_opt()?, column.item.as_deref()?, zone)?),
        };
        Some(Writer {
            nulls: array.nulls(),
            values,
            binary: column.format == Format::Binary,
            day: DayText::default(),
        })
    }

    /// Appends the length and the value of one field.
    #[inline]
    fn field(&mut self, row: usize, out: &mut BytesMut) -> Result<(), ValueError> {
        if self.nulls.is_some_and(|n| n.is_null(row)) {
            out.put_i32(-1);
            return Ok(());
        }
        let start = out.len();
        out.put_i32(0);
        if self.binary {
            self.binary(row, out)?;
        } else {
            self.text(row, out)?;
        }
        let length = (out.len() - start - 4) as i32;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    fn text(&mut self, row: usize, out: &mut BytesMut) -> Result<(), ValueError> {
        match &mut self.values {
            Values::Bool(a) => out.put_u8(if a.value(row) { b't' } else { b'f' }),
            Values::Int2(a) => put_int(i64::from(int2(a.value(row))?), out),
            Values::Int4(a) => put_int(i64::from(int4(a.value(row))?), out),
            Values::Int8(a) => put_int(a.value(row), out),
            Values::Xid8(a) => out.put_slice(itoa::Buffer::new().format(a.value(row) as u64).as_bytes()),
            Values::Float32(a) => float::write_f32(a.value(row), out),
            Values::Widened(a) => float::write_f64(a.value(row).into(), out),
            Values::Float64(a) => float::write_f64(a.value(row), out),
            Values::Decimal128(a, scale) => {
                let value = a.value(row);
                let mut buffer = itoa::Buffer::new();
                let ascii = if value == 0 { "" } else { buffer.format(value.unsigned_abs()) };
                write_decimal(value < 0, ascii.as_bytes(), (*scale).into(), out);
            }
            Values::Decimal256(a, scale) => {
                out.put_slice(Decimal::from_i256(a.value(row), (*scale).into()).to_string().as_bytes());
            }
            Values::Whole(a) => put_int(a.value(row), out),
            Values::NumericText(a) | Values::Text(a) | Values::UuidText(a) | Values::Jsonb(a) => {
                out.put_slice(a.value(row).as_bytes());
            }
            Values::Date(a) => put_date(a.value(row), out),
            Values::Timestamp(a) => put_timestamp(a.value(row), None, &mut self.day, out)?,
            Values::TimestampTz(a, cursor) => {
                let us = a.value(row);
                let offset = if calendar::finite(us) { cursor.offset_us(us)? } else { 0 };
                put_timestamp(us, Some(offset), &mut self.day, out)?;
            }
            Values::UuidBytes(a) => put_uuid(a.value(row), out),
            Values::Bytea(a) => {
                out.put_slice(b"\\x");
                put_hex(a.value(row), out);
            }
            Values::List(a) => a.text(row, out)?,
        }
        Ok(())
    }

    fn binary(&mut self, row: usize, out: &mut BytesMut) -> Result<(), ValueError> {
        match &mut self.values {
            Values::Bool(a) => out.put_u8(a.value(row).into()),
            Values::Int2(a) => out.put_i16(int2(a.value(row))?),
            Values::Int4(a) => out.put_i32(int4(a.value(row))?),
            Values::Int8(a) => out.put_i64(a.value(row)),
            Values::Xid8(a) => out.put_i64(a.value(row)),
            Values::Float32(a) => out.put_f32(a.value(row)),
            Values::Widened(a) => out.put_f64(a.value(row).into()),
            Values::Float64(a) => out.put_f64(a.value(row)),
            Values::Decimal128(a, scale) => put_wire_i128(a.value(row), *scale, out),
            Values::Decimal256(a, scale) => {
                Numeric::Finite(Decimal::from_i256(a.value(row), (*scale).into())).write_wire(out);
            }
            Values::Whole(a) => put_wire_i128(a.value(row).into(), 0, out),
            Values::NumericText(a) => a.value(row).parse::<Numeric>()?.write_wire(out),
            Values::Text(a) => out.put_slice(a.value(row).as_bytes()),
            Values::Date(a) => out.put_i32(match a.value(row) {
                infinite @ (i32::MAX | i32::MIN) => infinite,
                day => day
                    .checked_sub(EPOCH_SHIFT_DAYS)
                    .ok_or_else(|| PgError::new("22008", "date out of range"))?,
            }),
            Values::Timestamp(a) | Values::TimestampTz(a, _) => out.put_i64(match a.value(row) {
                infinite @ (POS_INFINITY | NEG_INFINITY) => infinite,
                us => in_range(us)? - EPOCH_SHIFT_US,
            }),
            Values::UuidText(a) => put_uuid_bytes(a.value(row), out)?,
            Values::UuidBytes(a) => out.put_slice(a.value(row)),
            Values::Jsonb(a) => {
                // The version of the format.
                out.put_u8(1);
                out.put_slice(a.value(row).as_bytes());
            }
            Values::Bytea(a) => out.put_slice(a.value(row)),
            Values::List(a) => a.binary(row, out)?,
        }
        Ok(())
    }
}

fn int2(value: i64) -> Result<i16, PgError> {
    i16::try_from(value).map_err(|_| PgError::new("22003", "smallint out of range"))
}

fn int4(value: i64) -> Result<i32, PgError> {
    i32::try_from(value).map_err(|_| PgError::new("22003", "integer out of range"))
}

fn put_int(value: i64, out: &mut BytesMut) {
    out.put_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn put_wire_i128(value: i128, scale: u8, out: &mut BytesMut) {
    let mut buffer = itoa::Buffer::new();
    let ascii = if value == 0 { "" } else { buffer.format(value.unsigned_abs()) };
    let mut digits = [0u8; 40];
    for (digit, byte) in digits.iter_mut().zip(ascii.bytes()) {
        *digit = byte - b'0';
    }
    write_wire(value < 0, &digits[..ascii.len()], scale.into(), out);
}

fn in_range(us: i64) -> Result<i64, PgError> {
    if us < MIN_TIMESTAMP_US { Err(PgError::timestamp_out_of_range()) } else { Ok(us) }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn put_hex(bytes: &[u8], out: &mut BytesMut) {
    out.reserve(2 * bytes.len());
    for byte in bytes {
        out.put_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
}

fn put_uuid(bytes: &[u8], out: &mut BytesMut) {
    for (i, range) in [0..4, 4..6, 6..8, 8..10, 10..16].into_iter().enumerate() {
        if i > 0 {
            out.put_u8(b'-');
        }
        put_hex(&bytes[range], out);
    }
}

/// The 16 bytes of a 36-character uuid.
fn put_uuid_bytes(text: &str, out: &mut BytesMut) -> Result<(), PgError> {
    let invalid = || PgError::new("22P02", format!("invalid input syntax for type uuid: \"{text}\""));
    let mut bytes = [0u8; 16];
    let mut nibbles = 0;
    for (i, byte) in text.bytes().enumerate() {
        if matches!(i, 8 | 13 | 18 | 23) {
            if byte != b'-' {
                return Err(invalid());
            }
            continue;
        }
        let nibble = (byte as char).to_digit(16).ok_or_else(invalid)? as u8;
        let slot = bytes.get_mut(nibbles / 2).ok_or_else(invalid)?;
        *slot = *slot << 4 | nibble;
        nibbles += 1;
    }
    if nibbles != 32 {
        return Err(invalid());
    }
    out.put_slice(&bytes);
    Ok(())
}

fn put_two(value: u32, out: &mut BytesMut) {
    out.put_slice(&[b'0' + (value / 10) as u8, b'0' + (value % 10) as u8]);
}

/// `YYYY-MM-DD`, without the era. Gives whether the year is BC.
fn put_day(day: i64, out: &mut BytesMut) -> bool {
    let (year, month, day) = calendar::civil(day);
    let (shown, bc) = if year > 0 { (year, false) } else { (1 - year, true) };
    let mut buffer = itoa::Buffer::new();
    let text = buffer.format(shown);
    out.put_bytes(b'0', 4usize.saturating_sub(text.len()));
    out.put_slice(text.as_bytes());
    out.put_u8(b'-');
    put_two(month, out);
    out.put_u8(b'-');
    put_two(day, out);
    bc
}

pub(crate) fn put_date(day: i32, out: &mut BytesMut) {
    match day {
        i32::MAX => out.put_slice(b"infinity"),
        i32::MIN => out.put_slice(b"-infinity"),
        day => {
            if put_day(day.into(), out) {
                out.put_slice(b" BC");
            }
        }
    }
}

/// The text of a day, remembered.
#[derive(Default)]
pub(crate) struct DayText {
    day: Option<i64>,
    text: BytesMut,
    bc: bool,
}

/// `YYYY-MM-DD HH:MM:SS[.ffffff][+HH[:MM[:SS]]][ BC]`; `offset_us` east for timestamptz.
pub(crate) fn put_timestamp(
    us: i64,
    offset_us: Option<i64>,
    cache: &mut DayText,
    out: &mut BytesMut,
) -> Result<(), ValueError> {
    match us {
        POS_INFINITY => {
            out.put_slice(b"infinity");
            return Ok(());
        }
        NEG_INFINITY => {
            out.put_slice(b"-infinity");
            return Ok(());
        }
        _ => {}
    }
    let local =
        in_range(us)?.checked_add(offset_us.unwrap_or(0)).ok_or_else(PgError::timestamp_out_of_range)?;
    let day = local.div_euclid(DAY_US);
    if cache.day != Some(day) {
        cache.text.clear();
        cache.bc = put_day(day, &mut cache.text);
        cache.day = Some(day);
    }
    out.put_slice(&cache.text);
    let time = local.rem_euclid(DAY_US);
    let (second, mut fraction) = ((time / 1_000_000) as u32, (time % 1_000_000) as u32);
    let mut text = *b" 00:00:00";
    let mut two = |at: usize, value: u32| {
        text[at] = b'0' + (value / 10) as u8;
        text[at + 1] = b'0' + (value % 10) as u8;
    };
    two(1, second / 3600);
    two(4, second / 60 % 60);
    two(7, second % 60);
    out.put_slice(&text);
    if fraction > 0 {
        let mut digits = [b'0'; 7];
        digits[0] = b'.';
        for slot in digits[1..].iter_mut().rev() {
            *slot = b'0' + (fraction % 10) as u8;
            fraction /= 10;
        }
        let end = digits.iter().rposition(|d| *d != b'0').map_or(0, |i| i + 1);
        out.put_slice(&digits[..end]);
    }
    if let Some(offset) = offset_us {
        let seconds = (offset / 1_000_000).unsigned_abs() as u32;
        out.put_u8(if offset < 0 { b'-' } else { b'+' });
        put_two(seconds / 3600, out);
        let (minute, second) = (seconds / 60 % 60, seconds % 60);
        if minute != 0 || second != 0 {
            out.put_u8(b':');
            put_two(minute, out);
        }
        if second != 0 {
            out.put_u8(b':');
            put_two(second, out);
        }
    }
    if cache.bc {
        out.put_slice(b" BC");
    }
    Ok(())
}
