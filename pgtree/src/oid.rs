//! OIDs of PostgreSQL 15's catalog (`pg_type.dat`, `pg_proc.dat`, `pg_operator.dat`, `pg_aggregate.dat`) that decisions are made by.
//! Below 10000 they are assigned by hand and never change for an object; everything here is. Judges nothing.

mod functions;
mod operators;
#[cfg(test)]
mod tests;

pub use functions::{Aggregate, Arith, Function};
pub use operators::{
    Compare, Comparison, Foldable, comparison, comparison_operator, comparisons, foldable_function, foldable_operator,
};

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
pub const INTERVAL: u32 = 1186;
pub const NUMERIC: u32 = 1700;
pub const UUID: u32 = 2950;
pub const JSONB: u32 = 3802;
pub const XID8: u32 = 5069;

// Types that signatures name and that are not kept.
pub const NAME: u32 = 19;
pub const OID: u32 = 26;
pub const JSON: u32 = 114;
pub const TEXT_ARRAY: u32 = 1009;
/// A literal whose type nothing asked for.
pub const UNKNOWN: u32 = 705;
pub const FLOAT8_ARRAY: u32 = 1022;
pub const BPCHAR: u32 = 1042;
pub const TIME: u32 = 1083;
pub const TIMETZ: u32 = 1266;
pub const REGCLASS: u32 = 2205;
pub const RECORD: u32 = 2249;
pub const ANY: u32 = 2276;
pub const ANYARRAY: u32 = 2277;
pub const ANYELEMENT: u32 = 2283;
pub const ANYNONARRAY: u32 = 2776;

/// First OID that `initdb` and users assign: nothing at or above it is known by number.
pub const FIRST_UNPINNED: u32 = 10_000;

pub const COLLATION_DEFAULT: u32 = 100;
pub const COLLATION_C: u32 = 950;
pub const COLLATION_POSIX: u32 = 951;

/// One row of `pg_type`: OID, name, array type, length (0: varlena), alignment.
struct Type(u32, &'static str, u32, usize, usize);

const TYPES: &[Type] = &[
    Type(BOOL, "bool", 1000, 1, 1),
    Type(BYTEA, "bytea", 1001, 0, 4),
    Type(INT8, "int8", 1016, 8, 8),
    Type(INT2, "int2", 1005, 2, 2),
    Type(INT4, "int4", 1007, 4, 4),
    Type(TEXT, "text", 1009, 0, 4),
    Type(FLOAT4, "float4", 1021, 4, 4),
    Type(FLOAT8, "float8", 1022, 8, 8),
    Type(VARCHAR, "varchar", 1015, 0, 4),
    Type(DATE, "date", 1182, 4, 4),
    Type(TIMESTAMP, "timestamp", 1115, 8, 8),
    Type(TIMESTAMPTZ, "timestamptz", 1185, 8, 8),
    Type(INTERVAL, "interval", 1187, 16, 8),
    Type(NUMERIC, "numeric", 1231, 0, 4),
    Type(UUID, "uuid", 2951, 16, 1),
    Type(JSONB, "jsonb", 3807, 0, 4),
    Type(XID8, "xid8", 271, 8, 8),
];

fn by_oid(oid: u32) -> Option<&'static Type> {
    TYPES.iter().find(|t| t.0 == oid)
}

/// The name of a type in `pg_catalog`.
pub fn type_name(oid: u32) -> Option<&'static str> {
    by_oid(oid).map(|t| t.1)
}

/// The element type of an array type.
pub fn array_element(oid: u32) -> Option<u32> {
    TYPES.iter().find(|t| t.2 == oid).map(|t| t.0)
}

/// The array type of an element type.
pub fn array_of(oid: u32) -> Option<u32> {
    by_oid(oid).map(|t| t.2)
}

/// Whether a known type is of variable length.
pub fn is_varlena(oid: u32) -> bool {
    by_oid(oid).is_some_and(|t| t.3 == 0)
}

/// Bytes of a value of a known type of fixed length.
pub fn fixed_length(oid: u32) -> Option<usize> {
    by_oid(oid).map(|t| t.3).filter(|l| *l > 0)
}

/// Alignment in memory of a known type, in bytes.
pub fn alignment(oid: u32) -> Option<usize> {
    by_oid(oid).map(|t| t.4)
}
