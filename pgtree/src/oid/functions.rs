//! Functions and aggregates of `pg_proc` that a second executor may know, by meaning. Recorded from PostgreSQL 15.

use super::*;

/// A binary arithmetic operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arith {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
}

/// What a function does, for functions known by OID. Argument and result types are the tree's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Function {
    /// Integer or numeric arithmetic over the widened arguments.
    Arith(Arith),
    Negate,
    /// Unary plus: the value itself.
    Identity,
    Abs,
    /// Integer to integer.
    IntCast,
    /// Integer to numeric of scale 0.
    IntToNumeric,
    /// `numeric(numeric, typmod)`
    NumericTypmod,
    /// `round(numeric)` and `round(numeric, int4)`
    RoundNumeric,
    DateTruncTimestamp,
    DateTruncTimestampTz,
    /// With the zone as third argument.
    DateTruncTimestampTzZone,
    DateBin,
    /// timestamptz to date in the session's zone.
    TimestampTzToDate,
    TimestampToDate,
    Like,
    NotLike,
    TextConcat,
    /// Characters of a text.
    TextLength,
    JsonbFieldText,
    JsonbField,
    Lower,
    Upper,
}

/// The meaning of a `pg_proc` OID, if it is known.
pub fn function(func: u32) -> Option<Function> {
    use super::Arith::*;
    use Function::{Arith as Binary, *};
    Some(match func {
        // int2, int4, int8 and their mixtures; numeric
        176 | 177 | 178 | 179 | 463 | 837 | 841 | 1274 | 1278 | 1724 => Binary(Add),
        180 | 181 | 182 | 183 | 464 | 838 | 942 | 1275 | 1279 | 1725 => Binary(Sub),
        152 | 141 | 170 | 171 | 465 | 839 | 943 | 1276 | 1280 | 1726 => Binary(Mul),
        153 | 154 | 172 | 173 | 466 | 840 | 948 | 1277 | 1281 | 1727 => Binary(Div),
        155 | 156 | 945 | 940 | 941 | 947 | 1728 | 1729 => Binary(Mod),
        212 | 213 | 462 | 1771 => Negate,
        1910 | 1911 | 1912 | 1915 => Identity,
        1396 | 1397 | 1398 | 1705 | 1230 | 1251 | 1253 | 1704 => Abs,
        313 | 314 | 480 | 481 | 714 | 754 => IntCast,
        1740 | 1781 | 1782 => IntToNumeric,
        1703 => NumericTypmod,
        1707 | 1708 => RoundNumeric,
        2020 => DateTruncTimestamp,
        1217 => DateTruncTimestampTz,
        1284 => DateTruncTimestampTzZone,
        6177 | 6178 => DateBin,
        1178 => TimestampTzToDate,
        2029 => TimestampToDate,
        850 | 1569 => Like,
        851 | 1570 => NotLike,
        1258 => TextConcat,
        1317 | 1381 => TextLength,
        3214 => JsonbFieldText,
        3478 => JsonbField,
        870 => Lower,
        871 => Upper,
        _ => return None,
    })
}

/// What an aggregate does, for aggregates known by OID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Aggregate {
    CountStar,
    Count,
    Sum,
    Avg,
    Min,
    Max,
    BoolAnd,
    BoolOr,
}

/// The meaning and argument type of an aggregate's `pg_proc` OID; the type is 0 for `count`.
pub fn aggregate(func: u32) -> Option<(Aggregate, u32)> {
    use Aggregate::*;
    Some(match func {
        2803 => (CountStar, 0),
        2147 => (Count, 0),
        2107 => (Sum, INT8),
        2108 => (Sum, INT4),
        2109 => (Sum, INT2),
        2110 => (Sum, FLOAT4),
        2111 => (Sum, FLOAT8),
        2114 => (Sum, NUMERIC),
        2100 => (Avg, INT8),
        2101 => (Avg, INT4),
        2102 => (Avg, INT2),
        2103 => (Avg, NUMERIC),
        2104 => (Avg, FLOAT4),
        2105 => (Avg, FLOAT8),
        2115 => (Max, INT8),
        2116 => (Max, INT4),
        2117 => (Max, INT2),
        2119 => (Max, FLOAT4),
        2120 => (Max, FLOAT8),
        2122 => (Max, DATE),
        2126 => (Max, TIMESTAMP),
        2127 => (Max, TIMESTAMPTZ),
        2129 => (Max, TEXT),
        2130 => (Max, NUMERIC),
        2131 => (Min, INT8),
        2132 => (Min, INT4),
        2133 => (Min, INT2),
        2135 => (Min, FLOAT4),
        2136 => (Min, FLOAT8),
        2138 => (Min, DATE),
        2142 => (Min, TIMESTAMP),
        2143 => (Min, TIMESTAMPTZ),
        2145 => (Min, TEXT),
        2146 => (Min, NUMERIC),
        2517 | 2519 => (BoolAnd, BOOL),
        2518 => (BoolOr, BOOL),
        _ => return None,
    })
}
