//! Typed expressions, grown at random from a table of what PostgreSQL knows, inside and outside of what the lake may answer.
//! ✗ clauses, who answers.

use super::aggregates::{AGGREGATES, Aggregate};
use super::random::Random;

/// Types of values, by what they are called in SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ty {
    Bool,
    Int2,
    Int4,
    Int8,
    /// With a fixed scale or computed.
    Numeric,
    /// Without: equal values may look different.
    Loose,
    Float8,
    Text,
    Varchar,
    Date,
    Timestamp,
    TimestampTz,
    Interval,
    Uuid,
    Jsonb,
    /// int4[]
    Ints,
}

use Ty::*;

impl Ty {
    pub fn sql(self) -> &'static str {
        match self {
            Bool => "bool",
            Int2 => "int2",
            Int4 => "int4",
            Int8 => "int8",
            Numeric | Loose => "numeric",
            Float8 => "float8",
            Text => "text",
            Varchar => "varchar",
            Date => "date",
            Timestamp => "timestamp",
            TimestampTz => "timestamptz",
            Interval => "interval",
            Uuid => "uuid",
            Jsonb => "jsonb",
            Ints => "int4[]",
        }
    }

    /// In pg_type.
    pub fn oid(self) -> u32 {
        match self {
            Bool => 16,
            Int2 => 21,
            Int4 => 23,
            Int8 => 20,
            Numeric | Loose => 1700,
            Float8 => 701,
            Text => 25,
            Varchar => 1043,
            Date => 1082,
            Timestamp => 1114,
            TimestampTz => 1184,
            Interval => 1186,
            Uuid => 2950,
            Jsonb => 3802,
            Ints => 1007,
        }
    }

    const ALL: [Ty; 16] =
        [Bool, Int2, Int4, Int8, Numeric, Loose, Float8, Text, Varchar, Date, Timestamp, TimestampTz, Interval, Uuid, Jsonb, Ints];

    /// Equal values are the same bytes: sorting by all of them leaves nothing open, and a group has one representative.
    pub fn exact(self) -> bool {
        !matches!(self, Loose | Float8 | Jsonb | Interval | Ints)
    }

    /// Values that come up often enough to meet those of the rows, and the extremes.
    fn values(self) -> &'static [&'static str] {
        match self {
            Bool => &["true", "false"],
            Int2 => &["1", "2", "-1", "7", "0", "100", "32767", "-32768"],
            Int4 => &["1", "2", "3", "-1", "5", "7", "0", "10", "100", "-100", "1000", "2147483647", "-2147483648"],
            Int8 => &["1", "2", "-1", "3", "60", "1000", "3600", "9223372036854775807", "-9223372036854775808"],
            Numeric => &["1", "2.5", "-1.5", "10.00", "0.00", "0", "0.1", "2.50", "100", "99999999.99", "-99999999.99", "0.0000000001", "3"],
            Loose => &["0", "1.0", "1.00", "NaN", "Infinity", "-Infinity", "1e40", "-0.5"],
            Float8 => &["0", "1", "-0", "0.1", "NaN", "Infinity", "-Infinity", "1e300", "1e-300"],
            Text => &["", "a", "A", "ä", "ab", "aB", "z", "Ω", "日本語", "🙂", "row 7", "a ", "per%cent_under", "back\\slash", "k", "1", "-12", "x1"],
            Varchar => &["", "v", "va", "vc4", "v1"],
            Date => &["2024-01-01", "2024-02-29", "2024-03-10", "1970-01-01", "2023-12-31", "infinity"],
            Timestamp => &["2024-03-10 01:30:00", "2024-03-10 02:30:00.5", "1970-01-01 00:00:00", "2024-11-03 01:30:00", "infinity"],
            TimestampTz => &[
                "2024-03-10 07:00:00+00",
                "2024-11-03 05:30:00+00",
                "1970-01-01 00:00:00+00",
                "2000-01-01 00:00:00+00",
                "2024-07-01 00:00:00+00",
                "infinity",
            ],
            Interval => &["1 day", "15 minutes", "1 month", "-3 hours", "00:00:00.000001"],
            Uuid => &["00000000-0000-0000-0000-000000000000", "c4ca4238-a0b9-2382-0dcc-509a6f75849b"],
            Ints => &["{}", "{1,NULL}"],
            Jsonb => &["null", "{}", "{\"k\": 1}", "[1, 2]", "\"x\""],
        }
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// `alias.name`
    Column { alias: String, name: String, ty: Ty },
    Literal { ty: Ty, value: Option<&'static str> },
    /// Where the grammar wants these words.
    Words(&'static str),
    /// `{}` stand for the arguments, in order.
    Node { ty: Ty, template: &'static str, args: Vec<Expr> },
    /// A statement in parentheses, already in its final words: uncorrelated or not.
    Query { ty: Ty, sql: String },
}

/// Literals become parameters, of which these were given.
pub type Parameters = Vec<(u32, Option<&'static str>)>;

/// What SQL calls a type of [`Parameters`].
pub fn name_of(oid: u32) -> &'static str {
    Ty::ALL.into_iter().find(|ty| ty.oid() == oid).map_or("text", Ty::sql)
}

impl Expr {
    pub fn ty(&self) -> Ty {
        match self {
            Expr::Column { ty, .. } | Expr::Literal { ty, .. } | Expr::Node { ty, .. } | Expr::Query { ty, .. } => *ty,
            Expr::Words(_) => Text,
        }
    }

    /// As SQL; with `parameters`, literals go there.
    pub fn render(&self, out: &mut String, mut parameters: Option<&mut Parameters>) {
        match self {
            Expr::Column { alias, name, .. } => {
                out.push_str(alias);
                out.push('.');
                out.push_str(name);
            }
            Expr::Words(words) => out.push_str(words),
            Expr::Query { sql, .. } => {
                out.push('(');
                out.push_str(sql);
                out.push(')');
            }
            Expr::Literal { ty, value } => match (parameters, value) {
                (Some(parameters), value) => {
                    parameters.push((ty.oid(), *value));
                    out.push_str(&format!("${}", parameters.len()));
                }
                (None, None) => out.push_str(&format!("NULL::{}", ty.sql())),
                (None, Some(value)) => {
                    let escaped = value.replace('\'', "''");
                    match ty {
                        Int4 if *value != "-2147483648" && !value.starts_with('-') => out.push_str(value),
                        _ => out.push_str(&format!("'{escaped}'::{}", ty.sql())),
                    }
                }
            },
            Expr::Node { template, args, .. } => {
                let mut args = args.iter();
                let mut rest = *template;
                while let Some(at) = rest.find("{}") {
                    out.push_str(&rest[..at]);
                    if let Some(arg) = args.next() {
                        arg.render(out, parameters.as_deref_mut());
                    }
                    rest = &rest[at + 2..];
                }
                out.push_str(rest);
            }
        }
    }

    pub fn mentions_column(&self) -> bool {
        match self {
            Expr::Column { .. } => true,
            Expr::Node { args, .. } => args.iter().any(Expr::mentions_column),
            _ => false,
        }
    }

    /// Simpler ones of the same type, the boldest first.
    pub fn simpler(&self) -> Vec<Expr> {
        let mut simpler = Vec::new();
        let Expr::Node { ty, template, args } = self else {
            if let Expr::Query { ty, .. } = self {
                simpler.push(Expr::Literal { ty: *ty, value: Some(ty.values()[0]) });
            }
            return simpler;
        };
        simpler.extend(args.iter().filter(|arg| arg.ty() == *ty && !matches!(arg, Expr::Words(_))).cloned());
        simpler.push(Expr::Literal { ty: *ty, value: Some(ty.values()[0]) });
        for (n, arg) in args.iter().enumerate() {
            for less in arg.simpler() {
                let mut args = args.clone();
                args[n] = less;
                simpler.push(Expr::Node { ty: *ty, template, args });
            }
        }
        simpler
    }
}

/// What a place in a template takes.
#[derive(Clone, Copy)]
enum Arg {
    Of(Ty),
    /// A constant: the grammar or the plan wants one.
    Constant(Ty),
    OneOf(&'static [&'static str]),
}

use Arg::{Constant, Of, OneOf};

type Production = (Ty, &'static str, &'static [Arg]);

const UNITS: &[&str] = &["'second'", "'minute'", "'hour'", "'day'", "'week'", "'month'", "'quarter'", "'year'"];
const FIELDS: &[&str] = &["year", "month", "day", "hour", "minute", "second", "dow", "doy", "epoch", "week", "quarter", "isodow", "isoyear"];
const ORDERS: &[&str] = &["=", "<>", "<", "<=", ">", ">="];
const PATTERNS: &[&str] = &["'a%'", "'%e%'", "'_'", "'v_4%'", "'%'", "''", "'a\\%%'", "'%🙂'", "'row _'", "'A%'"];
const REGEXES: &[&str] = &["'^a'", "'[0-9]+'", "'z$'", "'(a|b)c?'", "'.'", "'ro+w'"];
const FORMATS: &[&str] = &["'YYYY-MM-DD'", "'YYYY-MM-DD HH24:MI:SS'", "'Mon DD'", "'HH24:MI'", "'YYYY'", "'Day'", "'MM/YY'"];
const STRIDES: &[&str] = &["'15 minutes'::interval", "'1 day'::interval", "'7 minutes 30 seconds'::interval"];
const ZONES: &[&str] = &["'UTC'", "'America/New_York'", "'Asia/Kolkata'"];

/// Functions and operators; where several types are meant, they stand several times.
const PRODUCTIONS: &[Production] = &[
    // comparisons
    (Bool, "({} {} {})", &[Of(Int4), OneOf(ORDERS), Of(Int4)]),
    (Bool, "({} {} {})", &[Of(Int8), OneOf(ORDERS), Of(Int8)]),
    (Bool, "({} {} {})", &[Of(Int2), OneOf(ORDERS), Of(Int4)]),
    (Bool, "({} {} {})", &[Of(Numeric), OneOf(ORDERS), Of(Numeric)]),
    (Bool, "({} {} {})", &[Of(Text), OneOf(ORDERS), Constant(Text)]),
    (Bool, "({} {} {})", &[Of(Text), OneOf(ORDERS), Of(Text)]),
    (Bool, "({} {} {})", &[Of(Varchar), OneOf(ORDERS), Constant(Varchar)]),
    (Bool, "({} {} {})", &[Of(Date), OneOf(ORDERS), Of(Date)]),
    (Bool, "({} {} {})", &[Of(Timestamp), OneOf(ORDERS), Of(Timestamp)]),
    (Bool, "({} {} {})", &[Of(TimestampTz), OneOf(ORDERS), Of(TimestampTz)]),
    (Bool, "({} {} {})", &[Of(TimestampTz), OneOf(ORDERS), Constant(TimestampTz)]),
    (Bool, "({} {} {})", &[Of(TimestampTz), OneOf(ORDERS), Of(Timestamp)]),
    (Bool, "({} {} {})", &[Of(Date), OneOf(ORDERS), Of(TimestampTz)]),
    (Bool, "({} {} {})", &[Of(Float8), OneOf(ORDERS), Constant(Float8)]),
    (Bool, "({} {} {})", &[Of(Loose), OneOf(ORDERS), Constant(Loose)]),
    (Bool, "({} {} {})", &[Of(Int4), OneOf(ORDERS), Of(Numeric)]),
    (Bool, "({} {} {})", &[Of(Uuid), OneOf(ORDERS), Constant(Uuid)]),
    (Bool, "({} {} {})", &[Of(Bool), OneOf(ORDERS), Of(Bool)]),
    (Bool, "({} IS NULL)", &[Of(Text)]),
    (Bool, "({} IS NOT NULL)", &[Of(Int4)]),
    (Bool, "({} IS NULL)", &[Of(Numeric)]),
    (Bool, "({} IS NOT NULL)", &[Of(Jsonb)]),
    (Bool, "({} IS DISTINCT FROM {})", &[Of(Int4), Of(Int4)]),
    (Bool, "({} IS NOT DISTINCT FROM {})", &[Of(Text), Constant(Text)]),
    (Bool, "({} BETWEEN {} AND {})", &[Of(Int4), Constant(Int4), Constant(Int4)]),
    (Bool, "({} NOT BETWEEN {} AND {})", &[Of(TimestampTz), Constant(TimestampTz), Constant(TimestampTz)]),
    (Bool, "({} IN ({}, {}, {}))", &[Of(Int4), Constant(Int4), Constant(Int4), Constant(Int4)]),
    (Bool, "({} NOT IN ({}, {}))", &[Of(Text), Constant(Text), Constant(Text)]),
    (Bool, "({} IN ({}, {}))", &[Of(Numeric), Constant(Numeric), Constant(Numeric)]),
    (Bool, "({} IN ({}, {}, {}))", &[Of(Text), Constant(Text), Constant(Text), Constant(Text)]),
    (Bool, "(({}, {}) = ({}, {}))", &[Of(Int4), Of(Text), Constant(Int4), Constant(Text)]),
    (Bool, "(({}, {}) < ({}, {}))", &[Of(Int4), Of(Int8), Constant(Int4), Constant(Int8)]),
    (Bool, "({} < {})", &[Of(Float8), Of(Float8)]),
    (Bool, "({} >= {})", &[Of(Float8), Constant(Float8)]),
    (Bool, "({} = {})", &[Of(Float8), Of(Float8)]),
    (Bool, "({} IN ({}, {}))", &[Of(Float8), Constant(Float8), Constant(Float8)]),
    (Bool, "({} IS DISTINCT FROM {})", &[Of(Float8), Of(Float8)]),
    // logic
    (Bool, "({} AND {})", &[Of(Bool), Of(Bool)]),
    (Bool, "({} OR {})", &[Of(Bool), Of(Bool)]),
    (Bool, "(NOT {})", &[Of(Bool)]),
    (Bool, "({} IS TRUE)", &[Of(Bool)]),
    (Bool, "({} IS NOT FALSE)", &[Of(Bool)]),
    (Bool, "({} IS UNKNOWN)", &[Of(Bool)]),
    // patterns
    (Bool, "({} LIKE {})", &[Of(Text), OneOf(PATTERNS)]),
    (Bool, "({} NOT LIKE {})", &[Of(Text), OneOf(PATTERNS)]),
    (Bool, "({} ILIKE {})", &[Of(Text), OneOf(PATTERNS)]),
    (Bool, "({} LIKE {})", &[Of(Varchar), OneOf(PATTERNS)]),
    (Bool, "({} ~ {})", &[Of(Text), OneOf(REGEXES)]),
    (Bool, "({} !~ {})", &[Of(Text), OneOf(REGEXES)]),
    (Bool, "({} ~* {})", &[Of(Text), OneOf(REGEXES)]),
    (Bool, "starts_with({}, {})", &[Of(Text), Of(Text)]),
    (Bool, "({} ? {})", &[Of(Jsonb), Constant(Text)]),
    // integers
    (Int4, "({} + {})", &[Of(Int4), Of(Int4)]),
    (Int4, "({} - {})", &[Of(Int4), Of(Int4)]),
    (Int4, "({} * {})", &[Of(Int4), Of(Int4)]),
    (Int4, "({} / {})", &[Of(Int4), Of(Int4)]),
    (Int4, "({} % {})", &[Of(Int4), Of(Int4)]),
    (Int4, "({} + {})", &[Of(Int2), Of(Int4)]),
    (Int4, "(- {})", &[Of(Int4)]),
    (Int4, "abs({})", &[Of(Int4)]),
    (Int4, "({} & {})", &[Of(Int4), Of(Int4)]),
    (Int4, "({} | {})", &[Of(Int4), Of(Int4)]),
    (Int4, "mod({}, {})", &[Of(Int4), Constant(Int4)]),
    (Int4, "length({})", &[Of(Text)]),
    (Int4, "octet_length({})", &[Of(Text)]),
    (Int4, "strpos({}, {})", &[Of(Text), Constant(Text)]),
    (Int4, "position({} in {})", &[Constant(Text), Of(Text)]),
    (Int4, "({} - {})", &[Of(Date), Of(Date)]),
    (Int4, "{}::int4", &[Of(Int8)]),
    (Int4, "{}::int4", &[Of(Numeric)]),
    (Int4, "{}::int4", &[Of(Bool)]),
    (Int4, "({} ->> 'k')::int4", &[Of(Jsonb)]),
    // users' functions
    (Int4, "f_sum({}, {})", &[Of(Int4), Of(Int4)]),
    (Text, "f_kind({}, {})", &[Of(Text), Of(Text)]),
    (Numeric, "f_ratio({}, {})", &[Of(Numeric), Of(Numeric)]),
    (Int4, "f_part({})", &[Of(TimestampTz)]),
    (Int2, "{}::int2", &[Of(Int4)]),
    (Int2, "abs({})", &[Of(Int2)]),
    (Int8, "({} + {})", &[Of(Int8), Of(Int8)]),
    (Int8, "({} - {})", &[Of(Int8), Of(Int4)]),
    (Int8, "({} * {})", &[Of(Int8), Of(Int4)]),
    (Int8, "({} / {})", &[Of(Int8), Of(Int8)]),
    (Int8, "({} % {})", &[Of(Int8), Constant(Int8)]),
    (Int8, "{}::int8", &[Of(Int4)]),
    (Int8, "abs({})", &[Of(Int8)]),
    // numeric
    (Numeric, "({} + {})", &[Of(Numeric), Of(Numeric)]),
    (Numeric, "({} - {})", &[Of(Numeric), Of(Numeric)]),
    (Numeric, "({} * {})", &[Of(Numeric), Of(Numeric)]),
    (Numeric, "({} / {})", &[Of(Numeric), Of(Numeric)]),
    (Numeric, "({} % {})", &[Of(Numeric), Constant(Numeric)]),
    (Numeric, "(- {})", &[Of(Numeric)]),
    (Numeric, "abs({})", &[Of(Numeric)]),
    (Numeric, "round({}, {})", &[Of(Numeric), OneOf(&["0", "1", "2", "5", "-1"])]),
    (Numeric, "round({})", &[Of(Numeric)]),
    (Numeric, "trunc({}, {})", &[Of(Numeric), OneOf(&["0", "1", "-1"])]),
    (Numeric, "ceil({})", &[Of(Numeric)]),
    (Numeric, "floor({})", &[Of(Numeric)]),
    (Numeric, "sign({})", &[Of(Numeric)]),
    (Numeric, "{}::numeric", &[Of(Int4)]),
    (Numeric, "{}::numeric(20,4)", &[Of(Numeric)]),
    (Numeric, "{}::numeric(8,1)", &[Of(Int8)]),
    (Numeric, "extract({} FROM {})", &[OneOf(FIELDS), Of(TimestampTz)]),
    (Numeric, "extract({} FROM {})", &[OneOf(FIELDS), Of(Timestamp)]),
    (Numeric, "extract({} FROM {})", &[OneOf(&["year", "month", "day", "dow", "doy", "epoch", "week"]), Of(Date)]),
    (Numeric, "floor(extract(epoch FROM {}) / {}) * {}", &[Of(TimestampTz), OneOf(&["60", "3600"]), OneOf(&["60", "3600"])]),
    (Float8, "date_part({}, {})", &[OneOf(&["'hour'", "'epoch'", "'dow'"]), Of(TimestampTz)]),
    (Float8, "{}::float8", &[Of(Int4)]),
    (Float8, "({} + {})", &[Of(Float8), Of(Float8)]),
    (Loose, "({} + {})", &[Of(Loose), Of(Numeric)]),
    // text
    (Text, "({} || {})", &[Of(Text), Of(Text)]),
    (Text, "({} || {})", &[Of(Text), Of(Int4)]),
    (Text, "concat({}, {}, {})", &[Of(Text), Of(Int4), Of(Text)]),
    (Text, "concat_ws({}, {}, {})", &[Constant(Text), Of(Text), Of(Text)]),
    (Text, "upper({})", &[Of(Text)]),
    (Text, "lower({})", &[Of(Text)]),
    (Text, "left({}, {})", &[Of(Text), OneOf(&["0", "1", "3", "-1"])]),
    (Text, "right({}, {})", &[Of(Text), OneOf(&["0", "1", "3", "-1"])]),
    (Text, "substr({}, {}, {})", &[Of(Text), OneOf(&["1", "2", "-1", "0"]), OneOf(&["0", "1", "3"])]),
    (Text, "substring({} from {})", &[Of(Text), OneOf(&["1", "2", "5"])]),
    (Text, "replace({}, {}, {})", &[Of(Text), Constant(Text), Constant(Text)]),
    (Text, "translate({}, {}, {})", &[Of(Text), OneOf(&["'abc'", "'äz'"]), OneOf(&["'xy'", "''"])]),
    (Text, "split_part({}, {}, {})", &[Of(Text), OneOf(&["' '", "'a'", "''"]), OneOf(&["1", "2", "-1"])]),
    (Text, "btrim({})", &[Of(Text)]),
    (Text, "ltrim({}, {})", &[Of(Text), OneOf(&["'a'", "' v'"])]),
    (Text, "rtrim({})", &[Of(Text)]),
    (Text, "lpad({}, {}, {})", &[Of(Text), OneOf(&["0", "4", "9"]), OneOf(&["' '", "'xy'", "''"])]),
    (Text, "rpad({}, {})", &[Of(Text), OneOf(&["2", "6"])]),
    (Text, "repeat({}, {})", &[Of(Text), OneOf(&["0", "2", "-1"])]),
    (Text, "reverse({})", &[Of(Text)]),
    (Text, "md5({})", &[Of(Text)]),
    (Text, "initcap({})", &[Of(Text)]),
    (Text, "{}::text", &[Of(Int4)]),
    (Text, "{}::text", &[Of(Numeric)]),
    (Text, "{}::text", &[Of(Date)]),
    (Text, "{}::text", &[Of(Bool)]),
    (Text, "{}::text", &[Of(TimestampTz)]),
    (Text, "{}::text", &[Of(Varchar)]),
    (Text, "to_char({}, {})", &[Of(TimestampTz), OneOf(FORMATS)]),
    (Text, "to_char({}, {})", &[Of(Timestamp), OneOf(FORMATS)]),
    (Text, "({} ->> {})", &[Of(Jsonb), OneOf(&["'k'", "'b'", "0", "1", "-1", "'deep'"])]),
    (Text, "({} #>> {})", &[Of(Jsonb), OneOf(&["'{deep,er,0}'", "'{k}'", "'{2,1,z}'"])]),
    (Jsonb, "({} -> {})", &[Of(Jsonb), OneOf(&["'k'", "'deep'", "0", "'a'"])]),
    (Varchar, "{}::varchar(3)", &[Of(Varchar)]),
    // times
    (TimestampTz, "date_trunc({}, {})", &[OneOf(UNITS), Of(TimestampTz)]),
    (TimestampTz, "date_trunc({}, {}, {})", &[OneOf(UNITS), Of(TimestampTz), OneOf(ZONES)]),
    (Timestamp, "date_trunc({}, {})", &[OneOf(UNITS), Of(Timestamp)]),
    (TimestampTz, "date_bin({}, {}, '2001-01-01 00:00:00+00')", &[OneOf(STRIDES), Of(TimestampTz)]),
    (Timestamp, "date_bin({}, {}, '2001-01-01')", &[OneOf(STRIDES), Of(Timestamp)]),
    (TimestampTz, "({} + {})", &[Of(TimestampTz), Constant(Interval)]),
    (TimestampTz, "({} - {})", &[Of(TimestampTz), Constant(Interval)]),
    (Timestamp, "({} + {})", &[Of(Timestamp), Constant(Interval)]),
    (Timestamp, "({} AT TIME ZONE {})", &[Of(TimestampTz), OneOf(ZONES)]),
    (Timestamp, "{}::timestamp", &[Of(TimestampTz)]),
    (Timestamp, "{}::timestamp", &[Of(Date)]),
    (TimestampTz, "{}::timestamptz", &[Of(Timestamp)]),
    (Date, "{}::date", &[Of(TimestampTz)]),
    (Date, "{}::date", &[Of(Timestamp)]),
    (Date, "({} + {})", &[Of(Date), Of(Int4)]),
    (Interval, "({} - {})", &[Of(TimestampTz), Of(TimestampTz)]),
    (Interval, "age({}, {})", &[Of(Timestamp), Constant(Timestamp)]),
];

/// Of every type alike: `{}` three times for CASE.
const GENERIC: &[&str] = &["CASE WHEN {b} THEN {} ELSE {} END", "CASE WHEN {b} THEN {} END", "coalesce({}, {})", "nullif({}, {})", "greatest({}, {})", "least({}, {})"];

/// Random choices of one statement, among a few of the productions only: what is put together of a few kinds is put together in more ways,
/// and all of it is inside of what the lake may answer more often (Groce and others, "Swarm testing", ISSTA 2012).
#[derive(Clone)]
pub struct Grower {
    random: Random,
    /// What only PostgreSQL answers is left out, as far as it is known.
    pub inside: bool,
    productions: Vec<&'static Production>,
    pub(super) aggregates: Vec<&'static Aggregate>,
}

impl Grower {
    pub fn new(mut random: Random) -> Grower {
        let share = *random.pick(&[8, 15, 30, 100]);
        // Most statements leave out what only PostgreSQL answers: one such thing decides about all of a statement.
        let inside = random.percent(75);
        let may = |template: &str| !inside || !OUTSIDE.iter().any(|part| template.contains(part));
        let alike = |args: &[Arg]| !inside || !args.iter().any(|a| matches!(a, Of(TimestampTz))) || !args.iter().any(|a| matches!(a, Of(Date | Timestamp)));
        let productions = PRODUCTIONS.iter().filter(|(_, template, args)| may(template) && alike(args) && random.percent(share)).collect();
        let aggregates: Vec<_> = AGGREGATES.iter().filter(|(_, template, _)| may(template) && random.percent(share)).collect();
        let aggregates = if aggregates.is_empty() { vec![&AGGREGATES[0]] } else { aggregates };
        Grower { random, inside, productions, aggregates }
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.random.below(bound)
    }

    pub fn percent(&mut self, percent: usize) -> bool {
        self.random.percent(percent)
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        self.random.pick(from)
    }
}

/// What is known to be PostgreSQL's, by a part of its template.
const OUTSIDE: &[&str] = &["({} ? {})", "age(", "initcap", "({}, {}) ", "{}::varchar(3)", "::float8", ")::text"];

/// What stands at the ends of an expression: columns, or what groups and aggregates gave.
pub type Leaves = Vec<Expr>;

/// An expression of the type, at most `depth` levels deep.
pub fn grow(random: &mut Grower, leaves: &Leaves, ty: Ty, depth: usize) -> Expr {
    let of_type: Vec<&Expr> = leaves.iter().filter(|leaf| leaf.ty() == ty).collect();
    if depth == 0 || random.percent(if of_type.is_empty() { 10 } else { 35 }) {
        // A constant of these is PostgreSQL's wherever it stands.
        let wanted = !(random.inside && matches!(ty, Jsonb | Interval));
        return match of_type.is_empty() || (random.percent(12) && wanted) {
            true => literal(random, ty),
            false => (*random.pick(&of_type)).clone(),
        };
    }
    if random.percent(12) {
        let template = random.pick(GENERIC);
        let condition = template.contains("{b}").then(|| grow(random, leaves, Bool, depth - 1));
        let more = template.matches("{}").count();
        let template = match *template {
            "CASE WHEN {b} THEN {} ELSE {} END" => "CASE WHEN {} THEN {} ELSE {} END",
            "CASE WHEN {b} THEN {} END" => "CASE WHEN {} THEN {} END",
            other => other,
        };
        let args = condition.into_iter().chain((0..more).map(|_| grow(random, leaves, ty, depth - 1)).collect::<Vec<_>>());
        return Expr::Node { ty, template, args: args.collect() };
    }
    let fitting: Vec<&Production> = random.productions.iter().copied().filter(|(result, _, _)| *result == ty).collect();
    if fitting.is_empty() {
        return if of_type.is_empty() { literal(random, ty) } else { (*random.pick(&of_type)).clone() };
    }
    let (_, template, wanted) = **random.pick(&fitting);
    let args = wanted.iter().map(|arg| match arg {
        Of(ty) => grow(random, leaves, *ty, depth - 1),
        Constant(ty) => literal(random, *ty),
        OneOf(words) => Expr::Words(*random.pick(*words)),
    });
    Expr::Node { ty, template, args: args.collect() }
}

/// A constant; now and then NULL.
pub fn literal(random: &mut Grower, ty: Ty) -> Expr {
    let values = ty.values();
    // The first ones are tame; the last ones make most of arithmetic overflow.
    let values = if random.percent(80) { &values[..values.len().div_ceil(2)] } else { values };
    let value = (!random.percent(6)).then(|| *random.pick(values));
    Expr::Literal { ty, value }
}
