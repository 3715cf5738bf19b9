//! The tables that statements are made over, and their rows: values that two engines may see differently, many of them more than once.
//! Every value is a function of the row's number. ✗ who stores them where.

use super::expr::{Expr, Leaves, Ty};

/// A table and the columns that statements know.
pub struct Table {
    pub name: &'static str,
    columns: &'static [(&'static str, Ty)],
}

/// Two that are tiered, one that is PostgreSQL's alone.
pub const TABLES: &[Table] = &[
    Table {
        name: "facts",
        columns: &[
            ("id", Ty::Int4),
            ("ts", Ty::TimestampTz),
            ("g", Ty::Int4),
            ("i2", Ty::Int2),
            ("i4", Ty::Int4),
            ("i8", Ty::Int8),
            ("n", Ty::Numeric),
            ("nb", Ty::Numeric),
            ("nu", Ty::Loose),
            ("b", Ty::Bool),
            ("t", Ty::Text),
            ("a", Ty::Text),
            ("v", Ty::Varchar),
            ("d", Ty::Date),
            ("tm", Ty::Timestamp),
            ("tz", Ty::TimestampTz),
            ("u", Ty::Uuid),
            ("j", Ty::Jsonb),
            ("f8", Ty::Float8),
        ],
    },
    Table {
        name: "visits",
        columns: &[
            ("id", Ty::Int4),
            ("ts", Ty::TimestampTz),
            ("fact", Ty::Int4),
            ("g", Ty::Int4),
            ("kind", Ty::Text),
            ("amount", Ty::Numeric),
            ("n8", Ty::Int8),
            ("ok", Ty::Bool),
            ("d", Ty::Date),
        ],
    },
    Table { name: "kinds", columns: &[("id", Ty::Int4), ("g", Ty::Int4), ("name", Ty::Text), ("weight", Ty::Numeric), ("since", Ty::TimestampTz)] },
];

impl Table {
    pub fn leaves(&self, alias: &str) -> Leaves {
        self.columns.iter().map(|(name, ty)| Expr::Column { alias: alias.into(), name: (*name).into(), ty: *ty }).collect()
    }
}

/// Makes the tables.
pub const SCHEMA: &[&str] = &[
    "CREATE TABLE public.facts (id int4 NOT NULL, ts timestamptz NOT NULL, g int4, i2 int2, i4 int4, i8 int8, n numeric(10,2), nb numeric(28,10), \
     nu numeric, b bool, t text, a text, v varchar(24), d date, tm timestamp, tz timestamptz, u uuid, j jsonb, f8 float8)",
    "CREATE TABLE public.visits (id int4 NOT NULL, ts timestamptz NOT NULL, fact int4, g int4, kind text, amount numeric(12,3), n8 int8, ok bool, d date)",
    "CREATE TABLE public.kinds (id int4 PRIMARY KEY, g int4, name text, weight numeric(6,2), since timestamptz)",
    "CREATE FUNCTION public.f_sum(a int4, b int4) RETURNS int4 LANGUAGE sql IMMUTABLE RETURN a + b",
    "CREATE FUNCTION public.f_kind(a text, b text) RETURNS text LANGUAGE sql RETURN CASE WHEN a = b THEN 'same' ELSE coalesce(b, a, 'none') END",
    "CREATE FUNCTION public.f_ratio(a numeric, b numeric) RETURNS numeric LANGUAGE sql STRICT RETURN a / b",
    "CREATE FUNCTION public.f_part(a timestamptz) RETURNS int4 LANGUAGE sql STABLE STRICT RETURN date_part('hour', a)::int4",
    "CREATE INDEX ON public.facts (ts)",
    "CREATE INDEX ON public.facts (id)",
    "SELECT watershed.attach_table('public.facts', event_time => 'ts')",
    "SELECT watershed.attach_table('public.visits', event_time => 'ts')",
    "INSERT INTO public.kinds SELECT g, nullif(g, 11), 'kind ' || g, g * 1.25, timestamptz '2024-03-10 00:00+00' + g * interval '7 hours' \
     FROM pg_catalog.generate_series(0, 14) g",
];

/// Inserts the rows with numbers from `from` to `to`, both included: one statement a table.
pub fn insert(from: u32, to: u32) -> [String; 2] {
    let facts = format!(
        "INSERT INTO public.facts SELECT k, \
         CASE k % 7 \
           WHEN 0 THEN timestamptz '2024-03-09 22:00:00+00' + (k * 7919 % 172800) * interval '1 second' \
           WHEN 1 THEN timestamptz '2024-11-02 22:00:00+00' + (k * 6151 % 172800) * interval '1 second' \
           WHEN 2 THEN timestamptz '2015-05-17 10:05:03.123456+00' + (k * 104729::int8 % 400000) * interval '1 second' \
           WHEN 3 THEN timestamptz '1999-12-31 23:59:59.999998+00' + (k % 5) * interval '1 microsecond' \
           WHEN 4 THEN pg_catalog.date_trunc('day', now(), 'UTC') + interval '5 hours' - (k % 4) * interval '1 day' + (k * 31 % 3600) * interval '1.000001 seconds' \
           WHEN 5 THEN timestamptz '2031-01-01 00:00:00+00' + (k % 9) * interval '17 hours' \
           ELSE timestamptz '2024-07-01 00:00:00+00' + (k % 7) * interval '1 day' END, \
         nullif(k % 13, 12), \
         CASE WHEN k % 11 = 0 THEN NULL WHEN k % 97 = 0 THEN 32767 WHEN k % 89 = 0 THEN -32768 ELSE h % 100 END, \
         CASE WHEN k % 13 = 0 THEN NULL WHEN k % 101 = 0 THEN 2147483647 WHEN k % 103 = 0 THEN -2147483648 ELSE h % 500 END, \
         CASE WHEN k % 17 = 0 THEN NULL WHEN k % 107 = 0 THEN 9223372036854775807 WHEN k % 109 = 0 THEN -9223372036854775808 ELSE h::int8 * 1000003 END, \
         CASE WHEN k % 19 = 0 THEN NULL WHEN k % 113 = 0 THEN 99999999.99 WHEN k % 127 = 0 THEN -99999999.99 WHEN k % 7 = 0 THEN 0.00 ELSE (h % 10000) / 100.0 END, \
         CASE WHEN k % 23 = 0 THEN NULL WHEN k % 131 = 0 THEN 999999999999999999.9999999999 WHEN k % 137 = 0 THEN -999999999999999999.9999999999 ELSE h / 1024.0 END, \
         CASE WHEN k % 5 = 0 THEN NULL ELSE (ARRAY['NaN', 'Infinity', '-Infinity', '0.10', '0.100', '1e40', '-0', '12345678901234567890123456789.5'])[1 + k % 8]::numeric END, \
         CASE k % 3 WHEN 0 THEN true WHEN 1 THEN false END, \
         CASE WHEN k % 29 = 0 THEN 'row ' || k % 20 \
           ELSE (ARRAY['', 'a', 'A', 'ä', 'z', 'Ω', '日本語', '🙂', E'tab\\there', 'quote''s \"double\"', 'per%cent_under', E'back\\\\slash', NULL, 'a ', E'new\\nline', 'NULL', 'ab', 'aB', 'b', 'zz'])[1 + k % 20] END, \
         CASE WHEN k % 9 = 0 THEN NULL ELSE (ARRAY['', '7', '-12', 'abc', 'Abc', 'x1', 'row 7', '  pad ', '10.50', 'a-b-c'])[1 + h % 10] END, \
         CASE WHEN k % 31 = 0 THEN NULL ELSE pg_catalog.left('v' || pg_catalog.md5((k % 40)::text), 1 + k % 24) END, \
         CASE WHEN k % 37 = 0 THEN NULL WHEN k % 211 = 0 THEN 'infinity' WHEN k % 41 = 0 THEN date '0044-03-15 BC' ELSE date '2024-01-01' + k % 400 END, \
         CASE WHEN k % 47 = 0 THEN NULL WHEN k % 223 = 0 THEN '-infinity' WHEN k % 53 = 0 THEN timestamp '0001-01-01 00:00:00' ELSE timestamp '2024-03-10 01:30:00' + (k * 911 % 86400) * interval '1 second' END, \
         CASE WHEN k % 61 = 0 THEN NULL WHEN k % 227 = 0 THEN 'infinity' WHEN k % 73 = 0 THEN '4713-01-01 00:00:00+00 BC' ELSE timestamptz '2024-11-03 04:30:00+00' + (k * 13 % 7200) * interval '1.5 seconds' END, \
         CASE WHEN k % 79 = 0 THEN NULL WHEN k % 83 = 0 THEN '00000000-0000-0000-0000-000000000000' ELSE pg_catalog.md5((k % 50)::text)::uuid END, \
         (ARRAY[NULL, 'null', '{{}}', '[]', '{{\"b\": 1.10, \"a\": [1e5, null, true], \"a\": 2}}', '\"text with \\\"quotes\\\" and ünïcode\"', '-0.0', \
           '{{\"k\": ' || k || ', \"deep\": {{\"er\": [\"x\", {{\"y\": \"日本\"}}]}}}}', '[1, 2, [3, {{\"z\": 1e-7}}]]'])[1 + k % 9]::jsonb, \
         CASE WHEN k % 5 = 0 THEN NULL ELSE (ARRAY['NaN', 'Infinity', '-Infinity', '-0', '0.1', '1e-300', '1e300', '0.30000000000000004'])[1 + k % 8]::float8 END \
         FROM (SELECT k, pg_catalog.abs(('x' || pg_catalog.left(pg_catalog.md5(k::text), 7))::bit(28)::int4) AS h FROM pg_catalog.generate_series({from}, {to}) k) numbers"
    );
    let events = format!(
        "INSERT INTO public.visits SELECT k, timestamptz '2024-03-10 00:00:00+00' + (k * 997 % 100000) * interval '1.5 seconds', \
         nullif(k * 37 % 500, 3), nullif(k % 13, 5), (ARRAY['open', 'close', 'Open', '', NULL, 'k 7', 'a'])[1 + k % 7], \
         CASE WHEN k % 19 = 0 THEN NULL ELSE (k * 7919 % 100000) / 1000.0 - 20 END, CASE WHEN k % 23 = 0 THEN NULL ELSE k::int8 * 1000000007 END, \
         CASE k % 4 WHEN 0 THEN NULL WHEN 1 THEN false ELSE true END, date '2024-02-25' + k % 20 \
         FROM pg_catalog.generate_series({from}, {to}) k WHERE k % 2 = 0"
    );
    [facts, events]
}
