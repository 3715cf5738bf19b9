//! What every PostgreSQL type is in Arrow: the one table, for answers of PostgreSQL and of the lake alike, for the schemas of tables
//! and for parameters. Decided by type and modifier alone, so that a schema is known before any row, whichever store answers.
//! ✗ rows, sockets.
//!
//! Nothing is ever rounded, cut or wrapped. Where a type has values that Arrow's has not (infinity, NaN of numeric(p,s), 24:00, arrays
//! of several dimensions), these values are errors with a hint. Types without an equal travel as PostgreSQL prints them.

use crate::wire::message::Field as Described;
use arrow::datatypes::{DataType, Field, IntervalUnit, Schema, SchemaRef, TimeUnit};
use std::collections::HashMap;
use std::sync::Arc;

/// Where a field says which PostgreSQL type it is of.
pub const TYPE_KEY: &str = "watershed.type_oid";
/// Arrow's own key for canonical extension types.
const EXTENSION: &str = "ARROW:extension:name";
const EXTENSION_METADATA: &str = "ARROW:extension:metadata";
/// The most digits that Arrow's decimals have.
const DIGITS_128: i32 = 38;
const DIGITS_256: i32 = 76;

/// How values of a column are read, and what they become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Int2,
    Int4,
    Int8,
    /// oid, xid, cid.
    Unsigned4,
    Xid8,
    Float4,
    Float8,
    /// text and its like, json.
    Text,
    Jsonb,
    Bytea,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Interval,
    /// numeric(p,s): digits, and digits after the point.
    Decimal128(u8, i8),
    Decimal256(u8, i8),
    /// numeric without a modifier has no scale that all values share, so it is text.
    Numeric,
    Uuid,
    List(Box<Kind>),
    /// What has no equal: as PostgreSQL prints it.
    Printed,
}

/// One column of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub kind: Kind,
    pub type_oid: u32,
    pub typmod: i32,
}

impl Column {
    pub fn new(type_oid: u32, typmod: i32) -> Column {
        Column { kind: Kind::of(type_oid, typmod), type_oid, typmod }
    }

    /// The columns of a RowDescription.
    pub fn all(described: &[Described]) -> Vec<Column> {
        described.iter().map(|f| Column::new(f.type_oid, f.typmod)).collect()
    }

    /// The format in which PostgreSQL is asked for it.
    pub fn format(&self) -> i16 {
        i16::from(!matches!(self.kind, Kind::Printed | Kind::Numeric))
    }

    /// As a field named `name`.
    pub fn field(&self, name: &str) -> Field {
        let metadata = self.kind.extension().into_iter().flat_map(|name| {
            [(EXTENSION.to_owned(), name.to_owned()), (EXTENSION_METADATA.to_owned(), String::new())]
        });
        let of_type = std::iter::once((TYPE_KEY.to_owned(), self.type_oid.to_string()));
        Field::new(name, self.kind.data_type(), true).with_metadata(metadata.chain(of_type).collect::<HashMap<_, _>>())
    }
}

/// The schema of an answer.
pub fn schema(described: &[Described]) -> SchemaRef {
    let field = |f: &Described| Column::new(f.type_oid, f.typmod).field(&String::from_utf8_lossy(&f.name));
    Arc::new(Schema::new(described.iter().map(field).collect::<Vec<_>>()))
}

impl Kind {
    pub fn of(type_oid: u32, typmod: i32) -> Kind {
        match type_oid {
            16 => Kind::Bool,
            21 => Kind::Int2,
            23 => Kind::Int4,
            20 => Kind::Int8,
            26 | 28 | 29 => Kind::Unsigned4,
            5069 => Kind::Xid8,
            700 => Kind::Float4,
            701 => Kind::Float8,
            // name, text, json, unknown, bpchar, varchar
            19 | 25 | 114 | 705 | 1042 | 1043 => Kind::Text,
            3802 => Kind::Jsonb,
            17 => Kind::Bytea,
            1082 => Kind::Date,
            1083 => Kind::Time,
            1114 => Kind::Timestamp,
            1184 => Kind::TimestampTz,
            1186 => Kind::Interval,
            1700 => numeric(typmod),
            2950 => Kind::Uuid,
            array => match element(array).map(|item| Kind::of(item, typmod)) {
                None | Some(Kind::Printed) => Kind::Printed,
                Some(item) => Kind::List(Box::new(item)),
            },
        }
    }

    pub fn data_type(&self) -> DataType {
        match self {
            Kind::Bool => DataType::Boolean,
            Kind::Int2 => DataType::Int16,
            Kind::Int4 => DataType::Int32,
            Kind::Int8 => DataType::Int64,
            Kind::Unsigned4 => DataType::UInt32,
            Kind::Xid8 => DataType::UInt64,
            Kind::Float4 => DataType::Float32,
            Kind::Float8 => DataType::Float64,
            Kind::Text | Kind::Jsonb | Kind::Numeric | Kind::Printed => DataType::Utf8,
            Kind::Bytea => DataType::Binary,
            Kind::Date => DataType::Date32,
            Kind::Time => DataType::Time64(TimeUnit::Microsecond),
            Kind::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Kind::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Kind::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
            Kind::Decimal128(p, s) => DataType::Decimal128(*p, *s),
            Kind::Decimal256(p, s) => DataType::Decimal256(*p, *s),
            Kind::Uuid => DataType::FixedSizeBinary(16),
            Kind::List(item) => DataType::List(Arc::new(item.item_field())),
        }
    }

    /// The field of a list's items.
    pub fn item_field(&self) -> Field {
        let field = Field::new("item", self.data_type(), true);
        match self.extension() {
            None => field,
            Some(name) => field.with_metadata(HashMap::from([
                (EXTENSION.to_owned(), name.to_owned()),
                (EXTENSION_METADATA.to_owned(), String::new()),
            ])),
        }
    }

    fn extension(&self) -> Option<&'static str> {
        match self {
            Kind::Jsonb => Some("arrow.json"),
            Kind::Uuid => Some("arrow.uuid"),
            _ => None,
        }
    }
}

/// numeric by its modifier: digits in the upper half, digits after the point in the low 11 bits, signed.
fn numeric(typmod: i32) -> Kind {
    if typmod < 4 {
        return Kind::Numeric;
    }
    let digits = ((typmod - 4) >> 16) & 0xffff;
    let scale = (((typmod - 4) & 0x7ff) ^ 1024) - 1024;
    // A scale below zero rounds to tens and so on: whole numbers of more digits. One above all digits has zeros after the point.
    let (digits, scale) = if scale < 0 { (digits - scale, 0) } else { (digits.max(scale), scale) };
    match digits {
        1..=DIGITS_128 => Kind::Decimal128(digits as u8, scale as i8),
        1..=DIGITS_256 => Kind::Decimal256(digits as u8, scale as i8),
        _ => Kind::Numeric,
    }
}

/// The element type of PostgreSQL's own array types (`pg_type.dat`), of which binary elements are read here.
pub fn element(array_oid: u32) -> Option<u32> {
    Some(match array_oid {
        199 => 114,
        271 => 5069,
        1000 => 16,
        1001 => 17,
        1003 => 19,
        1005 => 21,
        1007 => 23,
        1009 => 25,
        1011 => 28,
        1014 => 1042,
        1015 => 1043,
        1016 => 20,
        1021 => 700,
        1022 => 701,
        1028 => 26,
        1115 => 1114,
        1182 => 1082,
        1183 => 1083,
        1185 => 1184,
        1187 => 1186,
        1231 => 1700,
        2951 => 2950,
        3807 => 3802,
        _ => return None,
    })
}

/// The type of a column that holds values of an Arrow type, for tables that are made to hold them. None: there is none.
pub fn sql_type(data_type: &DataType, metadata: &HashMap<String, String>) -> Option<String> {
    let extension = metadata.get(EXTENSION).map(String::as_str);
    Some(match data_type {
        DataType::FixedSizeBinary(16) if extension == Some("arrow.uuid") => "uuid".into(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View if extension == Some("arrow.json") => "jsonb".into(),
        DataType::Boolean => "boolean".into(),
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "smallint".into(),
        DataType::Int32 | DataType::UInt16 => "integer".into(),
        DataType::Int64 | DataType::UInt32 => "bigint".into(),
        DataType::UInt64 => "numeric(20,0)".into(),
        DataType::Float16 | DataType::Float32 => "real".into(),
        DataType::Float64 => "double precision".into(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => "text".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => "bytea".into(),
        DataType::Date32 | DataType::Date64 => "date".into(),
        DataType::Time32(_) | DataType::Time64(_) => "time".into(),
        DataType::Timestamp(_, None) => "timestamp".into(),
        DataType::Timestamp(_, Some(_)) => "timestamptz".into(),
        DataType::Interval(_) | DataType::Duration(_) => "interval".into(),
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) | DataType::Decimal256(p, s) => {
            format!("numeric({p},{s})")
        }
        DataType::Dictionary(_, values) => return sql_type(values, metadata),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => match item.data_type() {
            DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => return None,
            item_type => format!("{}[]", sql_type(item_type, item.metadata())?),
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numeric_has_the_digits_of_its_modifier() {
        let typmod = |p: i32, s: i32| ((p << 16) | (s & 0x7ff)) + 4;
        assert_eq!(numeric(-1), Kind::Numeric);
        assert_eq!(numeric(typmod(10, 2)), Kind::Decimal128(10, 2));
        assert_eq!(numeric(typmod(38, 38)), Kind::Decimal128(38, 38));
        assert_eq!(numeric(typmod(39, 0)), Kind::Decimal256(39, 0));
        assert_eq!(numeric(typmod(77, 0)), Kind::Numeric);
        assert_eq!(numeric(typmod(3, -2)), Kind::Decimal128(5, 0));
        assert_eq!(numeric(typmod(3, 5)), Kind::Decimal128(5, 5));
        assert_eq!(numeric(typmod(1000, 1000)), Kind::Numeric);
    }

    #[test]
    fn arrays_of_what_is_only_printed_are_printed() {
        assert_eq!(Kind::of(1041, -1), Kind::Printed); // inet[]
        assert_eq!(Kind::of(1007, -1), Kind::List(Box::new(Kind::Int4)));
    }
}
