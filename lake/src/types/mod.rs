//! The one table of types: PostgreSQL OID and typmod <-> Arrow <-> Delta. Knows no values and no client formats.
//!
//! | PostgreSQL | Arrow | Delta |
//! | --- | --- | --- |
//! | bool | Boolean | boolean |
//! | int2, int4, int8 | Int16, Int32, Int64 | short, integer, long |
//! | xid8 (`_xid`) | Int64 | long |
//! | float4, float8 | Float32, Float64 | float, double |
//! | numeric(p, s), p <= 38, 0 <= s <= p | Decimal128(p, s) | decimal(p, s) |
//! | numeric (any other) | Utf8View, PostgreSQL's text | string |
//! | text, varchar | Utf8View | string |
//! | jsonb | Utf8View, PostgreSQL's canonical text | string |
//! | uuid | Utf8View, 36 lower-case characters | string |
//! | bytea | BinaryView | binary |
//! | date | Date32, days since 1970-01-01 | date |
//! | timestamp | Timestamp(µs) | timestamp_ntz |
//! | timestamptz | Timestamp(µs, "UTC") | timestamp |
//!
//! `infinity` is the largest value of the Arrow type, `-infinity` the smallest.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use deltalake_core::kernel::{ArrayType, DataType as DeltaType, PrimitiveType};

/// Lake name of the transaction that wrote a row.
pub const XID: &str = "_xid";
/// Lake name of the stream a row came from.
pub const STREAM: &str = "_stream";
/// Lake name of a row's position in its stream.
pub const OFFSET: &str = "_offset";
/// The partition column: the UTC day of the event time.
pub const DAY: &str = "_day";

/// Days from 1970-01-01 to 2000-01-01, PostgreSQL's epoch.
pub const EPOCH_DAYS: i32 = 10_957;
/// Microseconds from 1970-01-01 to 2000-01-01.
pub const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// Microseconds of a day.
pub const DAY_MICROS: i64 = 86_400_000_000;

/// Type OIDs, fixed in PostgreSQL since each type exists.
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

/// A column type that both stores keep exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ColType {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    /// `numeric(precision, scale)` with precision <= 38 and 0 <= scale <= precision.
    Numeric {
        precision: u8,
        scale: i8,
    },
    /// Every other numeric: unconstrained, wider than 38 digits, or with a scale outside the digits. Kept as PostgreSQL's text.
    NumericText,
    Text,
    Varchar,
    Date,
    Timestamp,
    TimestampTz,
    Uuid,
    Jsonb,
    Bytea,
    /// The type of `_xid`.
    Xid8,
    /// Never a column's: what `array_agg` and its like give. One-dimensional, from 1.
    Array(Element),
}

/// What an array is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    Bool,
    Int2,
    Int4,
    Int8,
    Float8,
    Numeric {
        precision: u8,
        scale: i8,
    },
    Text,
    Varchar,
    Date,
    Timestamp,
    TimestampTz,
    Uuid,
}

impl Element {
    /// None for types that no array here has.
    pub fn of(ty: ColType) -> Option<Element> {
        Some(match ty {
            ColType::Bool => Self::Bool,
            ColType::Int2 => Self::Int2,
            ColType::Int4 => Self::Int4,
            ColType::Int8 => Self::Int8,
            ColType::Float8 => Self::Float8,
            ColType::Numeric { precision, scale } => Self::Numeric { precision, scale },
            ColType::Text => Self::Text,
            ColType::Varchar => Self::Varchar,
            ColType::Date => Self::Date,
            ColType::Timestamp => Self::Timestamp,
            ColType::TimestampTz => Self::TimestampTz,
            ColType::Uuid => Self::Uuid,
            ColType::Float4 | ColType::NumericText | ColType::Jsonb | ColType::Bytea | ColType::Xid8 | ColType::Array(_) => return None,
        })
    }

    pub fn ty(self) -> ColType {
        match self {
            Self::Bool => ColType::Bool,
            Self::Int2 => ColType::Int2,
            Self::Int4 => ColType::Int4,
            Self::Int8 => ColType::Int8,
            Self::Float8 => ColType::Float8,
            Self::Numeric { precision, scale } => ColType::Numeric { precision, scale },
            Self::Text => ColType::Text,
            Self::Varchar => ColType::Varchar,
            Self::Date => ColType::Date,
            Self::Timestamp => ColType::Timestamp,
            Self::TimestampTz => ColType::TimestampTz,
            Self::Uuid => ColType::Uuid,
        }
    }

    /// The array type (`pg_type.typarray`).
    pub fn array_oid(self) -> u32 {
        match self {
            Self::Bool => 1000,
            Self::Int2 => 1005,
            Self::Int4 => 1007,
            Self::Int8 => 1016,
            Self::Float8 => 1022,
            Self::Numeric { .. } => 1231,
            Self::Text => 1009,
            Self::Varchar => 1015,
            Self::Date => 1182,
            Self::Timestamp => 1115,
            Self::TimestampTz => 1185,
            Self::Uuid => 2951,
        }
    }
}

impl ColType {
    /// The type of a column of PostgreSQL type `type_oid` with modifier `typmod` (-1: none). `None`: the type cannot be kept.
    pub fn from_pg(type_oid: u32, typmod: i32) -> Option<Self> {
        Some(match type_oid {
            oid::BOOL => Self::Bool,
            oid::INT2 => Self::Int2,
            oid::INT4 => Self::Int4,
            oid::INT8 => Self::Int8,
            oid::FLOAT4 => Self::Float4,
            oid::FLOAT8 => Self::Float8,
            oid::NUMERIC => numeric(typmod),
            oid::TEXT => Self::Text,
            oid::VARCHAR => Self::Varchar,
            oid::DATE => Self::Date,
            oid::TIMESTAMP => Self::Timestamp,
            oid::TIMESTAMPTZ => Self::TimestampTz,
            oid::UUID => Self::Uuid,
            oid::JSONB => Self::Jsonb,
            oid::BYTEA => Self::Bytea,
            oid::XID8 => Self::Xid8,
            _ => return None,
        })
    }

    /// The PostgreSQL type.
    pub fn type_oid(self) -> u32 {
        match self {
            Self::Bool => oid::BOOL,
            Self::Int2 => oid::INT2,
            Self::Int4 => oid::INT4,
            Self::Int8 => oid::INT8,
            Self::Float4 => oid::FLOAT4,
            Self::Float8 => oid::FLOAT8,
            Self::Numeric { .. } | Self::NumericText => oid::NUMERIC,
            Self::Text => oid::TEXT,
            Self::Varchar => oid::VARCHAR,
            Self::Date => oid::DATE,
            Self::Timestamp => oid::TIMESTAMP,
            Self::TimestampTz => oid::TIMESTAMPTZ,
            Self::Uuid => oid::UUID,
            Self::Jsonb => oid::JSONB,
            Self::Bytea => oid::BYTEA,
            Self::Xid8 => oid::XID8,
            Self::Array(element) => element.array_oid(),
        }
    }

    /// The Arrow type of the column, in the tail, in Parquet files and in the engine.
    pub fn arrow(&self) -> DataType {
        match *self {
            Self::Bool => DataType::Boolean,
            Self::Int2 => DataType::Int16,
            Self::Int4 => DataType::Int32,
            Self::Int8 | Self::Xid8 => DataType::Int64,
            Self::Float4 => DataType::Float32,
            Self::Float8 => DataType::Float64,
            Self::Numeric { precision, scale } => DataType::Decimal128(precision, scale),
            Self::NumericText | Self::Text | Self::Varchar | Self::Uuid | Self::Jsonb => DataType::Utf8View,
            Self::Bytea => DataType::BinaryView,
            Self::Date => DataType::Date32,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC"))),
            Self::Array(element) => DataType::List(Arc::new(Field::new_list_field(element.ty().arrow(), true))),
        }
    }

    /// The Delta schema type of the column.
    pub fn delta(&self) -> DeltaType {
        DeltaType::Primitive(match *self {
            Self::Bool => PrimitiveType::Boolean,
            Self::Int2 => PrimitiveType::Short,
            Self::Int4 => PrimitiveType::Integer,
            Self::Int8 | Self::Xid8 => PrimitiveType::Long,
            Self::Float4 => PrimitiveType::Float,
            Self::Float8 => PrimitiveType::Double,
            Self::Numeric { precision, scale } => {
                // from_pg admits 0 <= scale <= precision <= 38 only, which is what Delta's decimal takes.
                return DeltaType::decimal(precision, scale.unsigned_abs()).unwrap_or(DeltaType::STRING);
            }
            Self::NumericText | Self::Text | Self::Varchar | Self::Uuid | Self::Jsonb => {
                PrimitiveType::String
            }
            Self::Bytea => PrimitiveType::Binary,
            Self::Date => PrimitiveType::Date,
            Self::Timestamp => PrimitiveType::TimestampNtz,
            Self::TimestampTz => PrimitiveType::Timestamp,
            Self::Array(element) => return ArrayType::new(element.ty().delta(), true).into(),
        })
    }

    /// Whether a column of this type can be a table's event time.
    pub fn is_event_time(self) -> bool {
        matches!(self, Self::Date | Self::Timestamp | Self::TimestampTz)
    }
}

/// The type of a numeric with modifier `typmod`: precision in the high half of `typmod - 4`, an 11 bit signed scale in the low
/// half (PostgreSQL 15, `numerictypmodin`).
fn numeric(typmod: i32) -> ColType {
    if typmod < 4 {
        return ColType::NumericText;
    }
    let packed = typmod - 4;
    let precision = (packed >> 16) & 0xffff;
    let scale = ((packed & 0x7ff) ^ 1024) - 1024;
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(p), Ok(s)) if (1..=38).contains(&p) && s >= 0 && s.unsigned_abs() <= p => {
            ColType::Numeric { precision: p, scale: s }
        }
        _ => ColType::NumericText,
    }
}

/// The first day that `_day` names: 0001-01-01. Earlier events are filed under it.
pub const FIRST_DAY: i32 = -719_162;
/// The last day that `_day` names: 9999-12-31. Later events are filed under it.
pub const LAST_DAY: i32 = 2_932_896;

/// The day (days since 1970-01-01) under which an event of `micros` since 1970 is filed: its UTC day, held to the years 1 to 9999,
/// since Delta's partition values know no others. Monotonic in `micros`.
pub fn partition_day(micros: i64) -> i32 {
    // The quotient of an i64 of microseconds by a day always fits an i32.
    partition_day_of_date(micros.div_euclid(DAY_MICROS) as i32)
}

/// The day under which an event of date `days` is filed.
pub fn partition_day_of_date(days: i32) -> i32 {
    days.clamp(FIRST_DAY, LAST_DAY)
}

/// `YYYY-MM-DD` of a day between [`FIRST_DAY`] and [`LAST_DAY`].
pub fn day_text(day: i32) -> String {
    use chrono::Datelike;
    let date =
        chrono::NaiveDate::from_num_days_from_ce_opt(day.clamp(FIRST_DAY, LAST_DAY).saturating_add(719_163))
            // The years 1 to 9999 are all valid in chrono.
            .unwrap_or(chrono::NaiveDate::MIN);
    format!("{:04}-{:02}-{:02}", date.year(), date.month(), date.day())
}

/// The day that `YYYY-MM-DD` names, in days since 1970-01-01.
pub fn parse_day(text: &str) -> Option<i32> {
    use chrono::Datelike;
    let date = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    Some(date.num_days_from_ce() - 719_163)
}

#[cfg(test)]
mod tests;
