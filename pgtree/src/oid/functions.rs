//! What functions and aggregates of `pg_proc` mean, for those that a second executor may know. Which OIDs they have, and under what
//! condition they may be used, is the executor's own table.

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
    ILike,
    NotILike,
    /// `~`, `!~`, `~*`, `!~*`
    Regex,
    NotRegex,
    IRegex,
    NotIRegex,
    TextConcat,
    /// Characters of a text.
    TextLength,
    JsonbFieldText,
    JsonbField,
    JsonbElementText,
    JsonbElement,
    JsonbPathText,
    JsonbPath,
    Lower,
    Upper,
    Concat,
    ConcatWs,
    /// As numeric.
    Extract,
    /// As float8.
    DatePart,
    /// Of an interval, which is the difference of two timestamps.
    ExtractInterval,
    ToChar,
    /// timestamptz to the local time of a zone, the session's where none is named.
    ToLocal,
    /// Local time of a zone to timestamptz.
    ToInstant,
    /// date to timestamp
    DateToTimestamp,
    /// date to timestamptz
    DateToInstant,
    /// Dates and timestamps, and an interval, in any order.
    PlusInterval,
    MinusInterval,
    /// A date and a number of days, in any order.
    PlusDays,
    MinusDays,
    DaysBetween,
    Floor,
    Ceil,
    Trunc,
    Sign,
    NumericToInt,
    /// Of float8.
    FloatArith(Arith),
    FloatNegate,
    FloatAbs,
    FloatFloor,
    FloatCeil,
    FloatTrunc,
    FloatRound,
    FloatToInt,
    /// Integer or numeric to float8.
    ToFloat,
    /// Seconds since 1970 to timestamptz.
    EpochToInstant,
    /// A set of rows.
    GenerateSeries,
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
    BitAnd,
    BitOr,
    BitXor,
    VarPop,
    VarSamp,
    StddevPop,
    StddevSamp,
    StringAgg,
    ArrayAgg,
    PercentileCont,
    PercentileDisc,
    Mode,
}
