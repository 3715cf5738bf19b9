//! The statements that PostgreSQL and the gateway must answer alike, with the store that must answer each.
//! Knows SQL only; how they are run and compared stands in `equality.rs`.

mod ordered;
mod relations;
mod scalars;

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// In the proven-equal set: the lake, chosen or forced.
    Lake,
    /// Proven, but cheap in PostgreSQL: the choice is free, forced it is the lake.
    Lookup,
    /// Outside the proven-equal set: PostgreSQL; forced to the lake an error.
    Postgres,
    /// Not settled here: either store, as long as the answer is right.
    Free,
    /// Fails in the same way wherever it is asked.
    Error,
}

/// A parameter's type and its text, or NULL.
pub type Parameter = (&'static str, Option<&'static str>);

pub struct Case {
    pub sql: &'static str,
    pub expect: Expect,
    /// False if SQL leaves the order of the rows open.
    pub ordered: bool,
    pub parameters: &'static [Parameter],
    /// The values are no valid binary of their type: always send them as text.
    pub text_parameters: bool,
}

const fn case(expect: Expect, sql: &'static str) -> Case {
    Case { sql, expect, ordered: true, parameters: &[], text_parameters: false }
}

const fn lake(sql: &'static str) -> Case {
    case(Expect::Lake, sql)
}

const fn lookup(sql: &'static str) -> Case {
    case(Expect::Lookup, sql)
}

const fn postgres(sql: &'static str) -> Case {
    case(Expect::Postgres, sql)
}

const fn free(sql: &'static str) -> Case {
    case(Expect::Free, sql)
}

const fn error(sql: &'static str) -> Case {
    case(Expect::Error, sql)
}

impl Case {
    const fn any_order(mut self) -> Case {
        self.ordered = false;
        self
    }

    const fn with(mut self, parameters: &'static [Parameter]) -> Case {
        self.parameters = parameters;
        self
    }

    const fn as_text(mut self) -> Case {
        self.text_parameters = true;
        self
    }
}

/// The whole corpus.
pub fn all() -> impl Iterator<Item = &'static Case> {
    [AGGREGATES, GROUPS, FILTERS, SHAPES, ROWS, FAR, PARAMETERS, VIEWS, LOGS, OTHERS, ERRORS, relations::JOINS, scalars::SCALARS, ordered::ORDERED]
        .into_iter()
        .flatten()
}

const AGGREGATES: &[Case] = &[
    lake("SELECT count(*) FROM zoo"),
    lake("SELECT count(*), count(*) FROM zoo"),
    lake("SELECT count(1) FROM zoo"),
    lake(
        "SELECT count(i2), count(i4), count(i8), count(n), count(nb), count(b), count(t), count(v) FROM zoo",
    ),
    lake("SELECT count(d), count(tm), count(tz), count(u), count(j), count(\"Odd Name\") FROM zoo"),
    lake("SELECT count(nu), count(f8), count(by) FROM zoo"),
    lake("SELECT count(DISTINCT i2), count(DISTINCT i4), count(DISTINCT i8) FROM zoo"),
    lake("SELECT count(DISTINCT t), count(DISTINCT v), count(DISTINCT \"Odd Name\") FROM zoo"),
    lake("SELECT count(DISTINCT d), count(DISTINCT tm), count(DISTINCT tz), count(DISTINCT ts) FROM zoo"),
    lake("SELECT count(DISTINCT u), count(DISTINCT b) FROM zoo"),
    lake("SELECT sum(i2), sum(i4), sum(i8) FROM zoo"),
    lake("SELECT sum(n), sum(nb) FROM zoo"),
    lake("SELECT avg(i2), avg(i4), avg(i8) FROM zoo"),
    lake("SELECT avg(n), avg(nb) FROM zoo"),
    lake("SELECT avg(id), avg(g) FROM zoo WHERE id < 3"),
    lake("SELECT min(i2), max(i2), min(i4), max(i4), min(i8), max(i8) FROM zoo"),
    lake("SELECT min(n), max(n), min(nb), max(nb) FROM zoo"),
    lake("SELECT min(d), max(d), min(tm), max(tm) FROM zoo"),
    lake("SELECT min(tz), max(tz), min(ts), max(ts) FROM zoo"),
    lake("SELECT min(d), max(d), min(tm), max(tm), min(tz), max(tz) FROM zoo WHERE g < 20"),
    lake("SELECT min(t), max(t) FROM zoo"),
    lake("SELECT min(v), max(v) FROM zoo"),
    lake("SELECT sum(i4), avg(i4), min(t), max(ts), count(*) FROM zoo WHERE id < 0"),
    lake("SELECT sum(DISTINCT i4), avg(DISTINCT i2) FROM zoo"),
    lake("SELECT sum(i4) AS total, avg(n) AS \"Mean Amount\" FROM zoo"),
    lake(
        "SELECT count(*) FILTER (WHERE b), count(*) FILTER (WHERE NOT b), count(*) FILTER (WHERE b IS NULL) FROM zoo",
    ),
    lake(
        "SELECT sum(n) FILTER (WHERE i4 > 0), avg(i8) FILTER (WHERE t = 'a'), min(ts) FILTER (WHERE g = 3) FROM zoo",
    ),
    lake("SELECT count(DISTINCT t) FILTER (WHERE g BETWEEN 2 AND 5) FROM zoo"),
    lake("SELECT count(*) FILTER (WHERE false), sum(i4) FILTER (WHERE NULL) FROM zoo"),
    lake("SELECT 'all' AS what, count(*) FROM zoo"),
    lake("SELECT count(*) AS n, 1 AS one, NULL::int4 AS nothing, 'x'::text AS x FROM zoo"),
    free("SELECT count(*) + 1 FROM zoo"),
    free("SELECT sum(i4) + sum(i2), sum(n) * 2, -sum(i8) FROM zoo"),
    free("SELECT sum(n) / count(*) FROM zoo"),
    free("SELECT round(avg(n), 2), round(sum(nb), 3) FROM zoo"),
    free("SELECT max(ts) - min(ts) FROM zoo"),
    free("SELECT coalesce(sum(i4), 0) FROM zoo WHERE id < 0"),
    free("SELECT bool_and(b), bool_or(b) FROM zoo"),
    free("SELECT sum(i4 + i2), avg(i8 / 1000) FROM zoo"),
    free("SELECT sum(length(t)), max(length(v)) FROM zoo"),
    free("SELECT sum(CASE WHEN b THEN 1 ELSE 0 END) FROM zoo"),
    free("SELECT count(DISTINCT n) FROM zoo"),
    free("SELECT count(nullif(t, '')) FROM zoo"),
    postgres("SELECT sum(f8), avg(f8) FROM zoo WHERE f8 BETWEEN -1 AND 1"),
    postgres("SELECT sum(nu), min(nu), max(nu) FROM zoo WHERE nu < 100"),
    postgres("SELECT rank(3) WITHIN GROUP (ORDER BY i4) FROM zoo"),
    postgres("SELECT count(DISTINCT j) FROM zoo"),
    postgres("SELECT jsonb_agg(g ORDER BY id) FROM zoo WHERE id < 30"),
    postgres("SELECT corr(i4, i2) FROM zoo WHERE id < 40"),
];

const GROUPS: &[Case] = &[
    lake("SELECT g, count(*) FROM zoo GROUP BY g ORDER BY g"),
    lake("SELECT g, count(*) FROM zoo GROUP BY g").any_order(),
    lake("SELECT t, count(*) FROM zoo GROUP BY t ORDER BY t"),
    lake("SELECT t, count(*) FROM zoo GROUP BY t ORDER BY t DESC"),
    lake("SELECT t, count(*) FROM zoo GROUP BY t ORDER BY t NULLS FIRST"),
    lake("SELECT t, count(*) FROM zoo GROUP BY t ORDER BY t DESC NULLS LAST"),
    lake("SELECT v, count(*), sum(n) FROM zoo GROUP BY v ORDER BY v"),
    lake("SELECT b, count(*), avg(n) FROM zoo GROUP BY b ORDER BY b"),
    lake("SELECT d, count(*) FROM zoo GROUP BY d ORDER BY d"),
    lake("SELECT tm, count(*) FROM zoo GROUP BY tm ORDER BY tm LIMIT 50"),
    lake("SELECT tz, count(*) FROM zoo GROUP BY tz ORDER BY tz"),
    lake("SELECT u, count(*) FROM zoo GROUP BY u ORDER BY u"),
    lake("SELECT i2, count(*) FROM zoo GROUP BY i2 ORDER BY i2"),
    lake("SELECT i8, max(n) FROM zoo GROUP BY i8 ORDER BY i8 DESC LIMIT 30"),
    lake("SELECT n, count(*) FROM zoo GROUP BY n ORDER BY count(*) DESC, n LIMIT 20"),
    lake("SELECT \"Odd Name\", count(*) FROM zoo GROUP BY \"Odd Name\" ORDER BY 1"),
    lake("SELECT g, t, count(*) FROM zoo GROUP BY g, t ORDER BY g, t"),
    lake("SELECT g, t, b, count(*), sum(i8) FROM zoo GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"),
    lake("SELECT g AS kind, count(*) AS n FROM zoo GROUP BY kind ORDER BY n DESC, kind"),
    lake("SELECT count(*) FROM zoo GROUP BY g ORDER BY g"),
    lake("SELECT count(*), g FROM zoo GROUP BY 2 ORDER BY 1, 2"),
    lake("SELECT date_trunc('hour', ts), count(*) FROM zoo GROUP BY 1 ORDER BY 1"),
    lake("SELECT date_trunc('day', ts), count(*) FROM zoo GROUP BY 1 ORDER BY 1"),
    lake("SELECT date_trunc('week', ts), count(*) FROM zoo GROUP BY 1 ORDER BY 1"),
    lake("SELECT date_trunc('month', ts) AS month, count(*), avg(n) FROM zoo GROUP BY month ORDER BY month"),
    lake("SELECT date_trunc('quarter', ts), count(*) FROM zoo GROUP BY 1 ORDER BY 1"),
    lake("SELECT date_trunc('year', ts), count(*) FROM zoo GROUP BY 1 ORDER BY 1 DESC"),
    lake("SELECT date_trunc('minute', ts), count(*) FROM zoo WHERE g = 4 GROUP BY 1 ORDER BY 1"),
    lake("SELECT date_trunc('second', ts), count(*) FROM zoo WHERE g = 5 GROUP BY 1 ORDER BY 1"),
    lake(
        "SELECT date_trunc('hour', tz), count(*) FROM zoo WHERE tz > '2024-01-01' AND tz < '2025-01-01' GROUP BY 1 ORDER BY 1",
    ),
    lake(
        "SELECT date_trunc('day', tm), count(*) FROM zoo WHERE tm > '2024-01-01' AND tm < '2025-01-01' GROUP BY 1 ORDER BY 1",
    ),
    lake("SELECT date_trunc('hour', tm), count(*) FROM zoo WHERE tm < '2024-03-12' GROUP BY 1 ORDER BY 1"),
    lake(
        "SELECT date_bin('15 minutes', ts, '2000-01-01 00:00:00+00'), count(*) FROM zoo GROUP BY 1 ORDER BY 1",
    ),
    lake(
        "SELECT date_bin('1 day', ts, timestamptz '2001-01-01 03:30:00+00') AS bin, sum(i4) FROM zoo GROUP BY bin ORDER BY bin",
    ),
    lake(
        "SELECT date_bin('7 minutes 30 seconds', tm, timestamp '2024-01-01'), count(*) FROM zoo WHERE tm < '2024-03-12' GROUP BY 1 ORDER BY 1",
    ),
    lake(
        "SELECT date_trunc('hour', ts) AS hour, count(*) FILTER (WHERE t = 'a') AS a, count(*) FILTER (WHERE t LIKE 'z%') AS z FROM zoo GROUP BY hour ORDER BY hour",
    ),
    lake("SELECT date_trunc('day', ts) AS day, g, count(*) FROM zoo GROUP BY day, g ORDER BY day DESC, g"),
    lake("SELECT date_trunc('day', ts) FROM zoo GROUP BY 1 ORDER BY 1"),
    lake("SELECT g, count(*) FROM zoo GROUP BY g HAVING count(*) > 150 ORDER BY g"),
    lake("SELECT t, avg(n) FROM zoo GROUP BY t HAVING avg(n) > 100 AND t IS NOT NULL ORDER BY t"),
    lake("SELECT t FROM zoo GROUP BY t HAVING min(i4) < 0 OR max(i4) IS NULL ORDER BY t"),
    lake("SELECT count(*) FROM zoo HAVING count(*) > 5"),
    lake("SELECT count(*) FROM zoo HAVING count(*) < 5"),
    lake("SELECT sum(i4) FROM zoo WHERE id < 0 GROUP BY g"),
    lake("SELECT g, sum(n), avg(n), min(n), max(n), count(n) FROM zoo GROUP BY g ORDER BY g"),
    lake("SELECT g, sum(nb), avg(nb), min(nb), max(nb) FROM zoo GROUP BY g ORDER BY g"),
    lake("SELECT g, avg(i2), avg(i4), avg(i8) FROM zoo GROUP BY g ORDER BY g"),
    lake("SELECT g, min(t), max(t), min(ts), max(ts), min(d), max(d) FROM zoo GROUP BY g ORDER BY g"),
    lake("SELECT g, count(DISTINCT t), count(DISTINCT u), count(DISTINCT i4) FROM zoo GROUP BY g ORDER BY g"),
    lake("SELECT b, count(DISTINCT t) FILTER (WHERE i4 > 0), count(*) FROM zoo GROUP BY b ORDER BY b"),
    lake("SELECT id, count(*) FROM zoo GROUP BY id ORDER BY id LIMIT 25 OFFSET 40"),
    free("SELECT date_trunc('decade', ts), count(*) FROM zoo GROUP BY 1 ORDER BY 1"),
    free("SELECT date_trunc('hours', ts), count(*) FROM zoo GROUP BY 1 ORDER BY 1"),
    free("SELECT date_trunc('day', ts, 'Australia/Lord_Howe'), count(*) FROM zoo GROUP BY 1 ORDER BY 1"),
    free("SELECT date_trunc('hour', tz), count(*) FROM zoo GROUP BY 1 ORDER BY 1"),
    free("SELECT date_trunc('day', d), count(*) FROM zoo GROUP BY 1 ORDER BY 1"),
    free("SELECT extract(year FROM ts), count(*) FROM zoo GROUP BY 1 ORDER BY 1"),
    free("SELECT extract(hour FROM ts) AS hour, count(*) FROM zoo GROUP BY hour ORDER BY hour"),
    free("SELECT ts::date, count(*) FROM zoo GROUP BY 1 ORDER BY 1"),
    free("SELECT i4 % 3, count(*) FROM zoo GROUP BY 1 ORDER BY 1"),
    free("SELECT lower(t), count(*) FROM zoo GROUP BY 1 ORDER BY 1"),
    free("SELECT length(t), count(*) FROM zoo GROUP BY 1 ORDER BY 1"),
    free(
        "SELECT CASE WHEN i4 < 0 THEN 'minus' WHEN i4 > 0 THEN 'plus' END, count(*) FROM zoo GROUP BY 1 ORDER BY 1",
    ),
    free("SELECT coalesce(t, 'none'), count(*) FROM zoo GROUP BY 1 ORDER BY 1"),
    free("SELECT j ->> 'k' IS NULL, count(*) FROM zoo GROUP BY 1 ORDER BY 1"),
    free("SELECT g, b, count(*) FROM zoo GROUP BY ROLLUP (g, b) ORDER BY g, b, count(*)"),
    free("SELECT g, b, count(*) FROM zoo GROUP BY GROUPING SETS ((g), (b), ()) ORDER BY g, b, count(*)"),
    postgres("SELECT j, count(*) FROM zoo WHERE id < 200 GROUP BY j ORDER BY count(*), j::text"),
    postgres("SELECT f8, count(*) FROM zoo GROUP BY f8 ORDER BY f8"),
    postgres("SELECT own_add(g, 1), count(*) FROM zoo GROUP BY 1 ORDER BY 1"),
];

const FILTERS: &[Case] = &[
    // What PostgreSQL never looks at raises no error.
    free("SELECT count(*) FROM zoo WHERE '2024-01-01'::date <> CASE WHEN true THEN '2024-01-01'::date ELSE '2024-03-10'::date + (-2147483648) END"),
    free("SELECT count(*) FROM zoo WHERE d > CASE WHEN b THEN '2024-01-01'::date ELSE coalesce(d, '2024-03-10'::date + (-2147483648)) END"),
    free("SELECT count(*) FROM zoo WHERE false AND d > '2024-03-10'::date + (-2147483648)"),
    free("SELECT count(*) FROM zoo WHERE true OR ts > timestamptz '2024-03-10' + interval '178000000 years'"),
    free("SELECT count(*) FROM zoo WHERE ts > CASE WHEN true THEN timestamptz '2024-01-01' ELSE date_trunc('fortnight', timestamptz '2024-01-01') END"),
    free("SELECT count(*) FROM zoo WHERE ts < '5000000-01-01'::date"),
    free("SELECT count(*) FROM zoo WHERE ts > CASE WHEN true THEN ts ELSE '5000000-01-01'::date END"),
    free("SELECT count(*) FROM zoo WHERE CASE WHEN true THEN true ELSE ts > '2024-03-10'::date + 2147483647 END"),
    error("SELECT count(*) FROM zoo WHERE d > '2024-03-10'::date + (-2147483648)"),
    free("SELECT sum('0'::int2), count('0'::int2), min('0'::int2), max('0'::int4) FROM zoo WHERE true < b"),
    free("SELECT sum(i2), count(DISTINCT i2) FROM (SELECT 0::int2 AS i2 FROM zoo WHERE true < b) s"),
    free("SELECT count(*) FROM zoo WHERE (NULL::int4 IS NOT NULL OR false) AND d > '2024-03-10'::date + (-2147483648)"),
    free("SELECT count(*) FROM zoo WHERE CASE WHEN true THEN false ELSE b END AND d > '2024-03-10'::date + (-2147483648)"),
    free("SELECT count(*) FROM zoo WHERE (b OR true) OR d > '2024-03-10'::date + (-2147483648)"),
    free("SELECT count(*) FROM zoo WHERE NOT (b OR true) AND d > '2024-03-10'::date + (-2147483648)"),
    free("SELECT count(*) FROM zoo WHERE (b AND false OR false) AND d > '2024-03-10'::date + (-2147483648)"),
    lake("SELECT count(*) FROM zoo WHERE 1 = 1 AND i4 > (SELECT min(i4) FROM zoo)"),
    // An optional condition, as those write who have one statement for several questions.
    lake("SELECT count(*) FROM zoo WHERE ($1::int4 IS NULL OR g = $1) AND i4 > (SELECT min(i4) FROM zoo)").with(&[("int4", Some("3"))]),
    lake("SELECT count(*) FROM zoo WHERE ($1::int4 IS NULL OR g = $1) AND i4 > (SELECT min(i4) FROM zoo)").with(&[("int4", None)]),
    lake("SELECT count(*) FROM zoo WHERE d > CASE WHEN b THEN '2024-01-01'::date ELSE '2024-03-10'::date - 30 END"),
    lake("SELECT count(*) FROM zoo WHERE ts > CASE WHEN b THEN timestamptz '2024-01-01' ELSE date_trunc('month', timestamptz '2024-03-10' - interval '1 year') END"),
    lake("SELECT count(*) FROM zoo WHERE i2 = 5"),
    lake("SELECT count(*) FROM zoo WHERE i2 = -32768 OR i2 = 32767"),
    lake("SELECT count(*) FROM zoo WHERE i4 <> 17"),
    lake("SELECT count(*) FROM zoo WHERE i4 = 2147483647"),
    lake("SELECT count(*) FROM zoo WHERE i8 >= 9223372036854775807"),
    lake("SELECT count(*) FROM zoo WHERE i8 <= -9223372036854775808"),
    lake("SELECT count(*) FROM zoo WHERE 100 < i4"),
    lake("SELECT count(*) FROM zoo WHERE i4 BETWEEN -100 AND 100"),
    lake("SELECT count(*) FROM zoo WHERE i4 NOT BETWEEN -100 AND 100"),
    lake("SELECT count(*) FROM zoo WHERE g IN (1, 3, 5)"),
    lake("SELECT count(*) FROM zoo WHERE g NOT IN (1, 3, 5)"),
    lake("SELECT count(*) FROM zoo WHERE i4 NOT IN (1, NULL)"),
    lake("SELECT count(*) FROM zoo WHERE t IN ('a', 'ä', '日本語')"),
    lake("SELECT count(*) FROM zoo WHERE n = 0"),
    lake("SELECT count(*) FROM zoo WHERE n > 12.345"),
    lake("SELECT count(*) FROM zoo WHERE n IN (0.00, 99999999.99, 1.5)"),
    lake("SELECT count(*) FROM zoo WHERE n >= -99999999.99 AND n < 0"),
    lake("SELECT count(*) FROM zoo WHERE nb = 999999999999999999.9999999999"),
    lake("SELECT count(*) FROM zoo WHERE b"),
    lake("SELECT count(*) FROM zoo WHERE NOT b"),
    lake("SELECT count(*) FROM zoo WHERE b = true OR b IS NULL"),
    lake("SELECT count(*) FROM zoo WHERE b IS NOT NULL"),
    lake("SELECT count(*) FROM zoo WHERE t = ''"),
    lake("SELECT count(*) FROM zoo WHERE t = 'a '"),
    lake("SELECT count(*) FROM zoo WHERE t < 'a'"),
    lake("SELECT count(*) FROM zoo WHERE t >= 'Ω' AND t <= '🙂'"),
    lake("SELECT count(*) FROM zoo WHERE v = 'v'"),
    lake("SELECT count(*) FROM zoo WHERE v > 'vc' AND v < 'vd'"),
    lake("SELECT count(*) FROM zoo WHERE t LIKE 'a%'"),
    lake("SELECT count(*) FROM zoo WHERE t LIKE '%e%'"),
    lake("SELECT count(*) FROM zoo WHERE t LIKE '_'"),
    lake("SELECT count(*) FROM zoo WHERE t LIKE '__語'"),
    lake("SELECT count(*) FROM zoo WHERE t NOT LIKE '%a%'"),
    lake(r"SELECT count(*) FROM zoo WHERE t LIKE '%\%%'"),
    lake(r"SELECT count(*) FROM zoo WHERE t LIKE 'per\%cent\_under'"),
    lake(r"SELECT count(*) FROM zoo WHERE t LIKE 'back\\%'"),
    lake("SELECT count(*) FROM zoo WHERE t LIKE ''"),
    lake("SELECT count(*) FROM zoo WHERE v LIKE 'v%3%'"),
    lake("SELECT count(*) FROM zoo WHERE \"Odd Name\" = 'Odd'"),
    lake("SELECT count(*) FROM zoo WHERE d = '2024-02-29'"),
    lake("SELECT count(*) FROM zoo WHERE d < '2024-01-10' AND d > '-infinity'"),
    lake("SELECT count(*) FROM zoo WHERE d = 'infinity' OR d = '0044-03-15 BC'"),
    lake("SELECT count(*) FROM zoo WHERE tm >= '2024-03-10 02:00:00' AND tm < '2024-03-10 03:00:00'"),
    lake("SELECT count(*) FROM zoo WHERE tz = 'infinity'"),
    lake("SELECT count(*) FROM zoo WHERE tz > '-infinity' AND tz < 'infinity'"),
    lake("SELECT count(*) FROM zoo WHERE ts >= '2024-03-10' AND ts < '2024-03-11'"),
    lake("SELECT count(*) FROM zoo WHERE ts >= '2024-03-10 00:00:00+00' AND ts < '2024-03-10 12:00:00+00'"),
    lake("SELECT count(*) FROM zoo WHERE ts BETWEEN '2024-11-03 01:30:00' AND '2024-11-03 02:30:00'"),
    lake("SELECT count(*) FROM zoo WHERE ts = '1999-12-31 23:59:59.999999+00'"),
    lake(
        "SELECT count(*) FROM zoo WHERE ts > now() - interval '30 days' AND ts < now() + interval '30 days'",
    ),
    lake("SELECT count(*) FROM zoo WHERE ts < now() - interval '3 years 2 months'"),
    lake("SELECT count(*) FROM zoo WHERE ts >= date_trunc('day', now()) - interval '2 days'"),
    lake("SELECT count(*) FROM zoo WHERE d >= current_date"),
    lake("SELECT count(*) FROM zoo WHERE u = '00000000-0000-0000-0000-000000000000'"),
    lake("SELECT count(*) FROM zoo WHERE u = '{C4CA4238-A0B9-2382-0DCC-509A6F75849B}'"),
    lake("SELECT count(*) FROM zoo WHERE u > '80000000-0000-0000-0000-000000000000'"),
    lake("SELECT count(*) FROM zoo WHERE j IS NULL"),
    lake("SELECT count(*) FROM zoo WHERE nu IS NULL AND f8 IS NOT NULL"),
    lake(
        "SELECT count(*) FROM zoo WHERE (g = 1 AND b) OR (g = 2 AND NOT b) OR (t IS NULL AND i4 IS NOT NULL)",
    ),
    lake("SELECT count(*) FROM zoo WHERE NOT (g = 1 OR t = 'a')"),
    lake("SELECT count(*) FROM zoo WHERE NOT (i4 > 0 AND t IS NULL)"),
    lake("SELECT count(*) FROM zoo WHERE i4 = NULL"),
    lake("SELECT count(*) FROM zoo WHERE true"),
    lake("SELECT count(*) FROM zoo WHERE 1 = 0"),
    lake("SELECT count(*) FROM zoo WHERE g = ANY ('{1,2,NULL}'::int4[])"),
    lake("SELECT count(*) FROM zoo WHERE i2 = i4"),
    lake("SELECT count(*) FROM zoo WHERE i4 < i8 AND t <> v"),
    lake("SELECT count(*) FROM zoo WHERE tz > ts"),
    lake("SELECT count(*) FROM zoo WHERE i2 = 5::int8 OR i8 = 5::int2"),
    lake("SELECT sum(n) FROM zoo WHERE ts < '2020-01-01' AND t LIKE 'z%' AND g IN (0, 1, 2, 3)"),
    lake("SELECT count(*) FROM zoo AS z WHERE z.g = 1 AND z.b IS NULL"),
    lake("SELECT count(*) FROM public.zoo WHERE public.zoo.g = 1"),
    free("SELECT count(*) FROM zoo WHERE b IS TRUE OR b IS UNKNOWN"),
    free("SELECT count(*) FROM zoo WHERE b IS NOT FALSE"),
    free("SELECT count(*) FROM zoo WHERE i4 IS DISTINCT FROM 17"),
    free("SELECT count(*) FROM zoo WHERE t IS NOT DISTINCT FROM NULL"),
    free("SELECT count(*) FROM zoo WHERE t LIKE 'a!%' ESCAPE '!'"),
    free("SELECT count(*) FROM zoo WHERE t ILIKE 'A%'"),
    free("SELECT count(*) FROM zoo WHERE t ~ '^[ab]'"),
    free("SELECT count(*) FROM zoo WHERE i4 + 1 > 100"),
    free("SELECT count(*) FROM zoo WHERE i4 % 7 = 3"),
    free("SELECT count(*) FROM zoo WHERE ts::date = '2024-03-10'"),
    free("SELECT count(*) FROM zoo WHERE date_trunc('month', ts) = '2024-03-01'"),
    free("SELECT count(*) FROM zoo WHERE (g, t) = (5, 'a')"),
    free("SELECT count(*) FROM zoo WHERE (g, id) < (3, 100)"),
    free("SELECT count(*) FROM zoo WHERE g = ALL ('{1}'::int4[])"),
    free("SELECT count(*) FROM zoo WHERE ts < d"),
    free("SELECT count(*) FROM zoo WHERE ts > tm"),
    free("SELECT count(*) FROM zoo WHERE i4 > n"),
    free("SELECT count(*) FROM zoo WHERE n > 1.5::float8"),
    postgres("SELECT count(*) FROM zoo WHERE ts::time BETWEEN '10:00' AND '11:00'"),
    postgres("SELECT count(*) FROM zoo WHERE j @> '{\"b\": 1.1}'"),
    free("SELECT count(*) FROM zoo WHERE nu = 0.1"),
    free("SELECT count(*) FROM zoo WHERE nu = 'NaN' OR nu > 1e39 OR nu = '-Infinity'"),
    free(
        "SELECT count(*) FROM zoo WHERE nu IN (0.1, 1e40, 12345678901234567890123456789012345678901234567890.5)",
    ),
    postgres("SELECT count(*) FROM zoo WHERE random() >= 0"),
    postgres("SELECT count(*) FROM zoo WHERE own_add(id, 1) > 100"),
    postgres("SELECT count(*) FROM zoo WHERE own_slow(id) > 100"),
];

const SHAPES: &[Case] = &[
    lake("SELECT DISTINCT g FROM zoo ORDER BY g"),
    lake("SELECT DISTINCT t FROM zoo ORDER BY t"),
    lake("SELECT DISTINCT t FROM zoo").any_order(),
    lake("SELECT DISTINCT g, b FROM zoo ORDER BY g, b"),
    lake("SELECT DISTINCT d FROM zoo ORDER BY d DESC LIMIT 10"),
    lake("SELECT DISTINCT date_trunc('month', ts) AS m FROM zoo ORDER BY m"),
    lake("SELECT DISTINCT count(*) FROM zoo GROUP BY g ORDER BY 1"),
    lake("SELECT g, count(*) FROM zoo GROUP BY g ORDER BY count(*) DESC, g DESC LIMIT 3"),
    lake("SELECT g, count(*) FROM zoo GROUP BY g ORDER BY g LIMIT 0"),
    lake("SELECT g, count(*) FROM zoo GROUP BY g ORDER BY g OFFSET 5"),
    lake("SELECT g, count(*) FROM zoo GROUP BY g ORDER BY g LIMIT 4 OFFSET 2"),
    lake("SELECT g, count(*) FROM zoo GROUP BY g ORDER BY g FETCH FIRST 2 ROWS ONLY"),
    lake("SELECT g, count(*) FROM zoo GROUP BY g ORDER BY g LIMIT NULL OFFSET NULL"),
    lake("SELECT g, count(*) FROM zoo GROUP BY g ORDER BY g OFFSET 1000"),
    lake("SELECT g FROM zoo GROUP BY g ORDER BY avg(n), g"),
    lake("SELECT g, avg(n) AS a FROM zoo GROUP BY g ORDER BY a DESC NULLS LAST, g"),
    lake("SELECT g, max(t) FROM zoo GROUP BY g ORDER BY max(t) COLLATE \"C\", g"),
    lake("/* a comment; with a semicolon */ SELECT count(*) FROM zoo -- and one more"),
    lake("SELECT count(*) FROM zoo;"),
    lake("select COUNT(*) from ZOO"),
    lake("SELECT x.c FROM (SELECT g, count(*) AS c FROM zoo GROUP BY g) x ORDER BY x.c, x.g"),
    lake("SELECT count(*), max(c) FROM (SELECT g, count(*) AS c FROM zoo GROUP BY g) x"),
    lake(
        "SELECT kind, count(*) FROM (SELECT g AS kind, t FROM zoo WHERE b) s WHERE t IS NOT NULL GROUP BY kind ORDER BY kind",
    ),
    lake("SELECT sum(n) FROM (SELECT n FROM zoo WHERE g = 1) s"),
    free("SELECT count(*) FROM (SELECT id FROM zoo ORDER BY id LIMIT 10) s"),
    free("SELECT DISTINCT ON (g) g, id FROM zoo ORDER BY g, id"),
    free("SELECT g, count(*), sum(count(*)) OVER (ORDER BY g) FROM zoo GROUP BY g ORDER BY g"),
    free("SELECT count(*) FROM zoo UNION ALL SELECT count(*) FROM zoo WHERE b").any_order(),
    free("SELECT (SELECT count(*) FROM zoo), 1"),
    free("SELECT g FROM zoo GROUP BY g HAVING count(*) > (SELECT 10) ORDER BY g"),
    free("WITH c AS (SELECT g, count(*) AS n FROM zoo GROUP BY g) SELECT max(n), min(n) FROM c"),
    free("WITH c AS MATERIALIZED (SELECT g FROM zoo) SELECT count(*) FROM c"),
    lake("SELECT k.name, count(*) FROM zoo JOIN kinds k USING (g) GROUP BY k.name ORDER BY k.name"),
    lookup("SELECT k.name, (SELECT count(*) FROM zoo z WHERE z.g = k.g) FROM kinds k ORDER BY k.g LIMIT 3"),
    lake("SELECT count(*) FROM zoo WHERE g IN (SELECT g FROM kinds WHERE name LIKE '%1%')"),
    lake("SELECT count(*) FROM zoo WHERE EXISTS (SELECT FROM kinds k WHERE k.g = zoo.g)"),
    postgres("SELECT count(*) FROM zoo, LATERAL (SELECT zoo.g + 1) x(y)"),
    postgres("SELECT id, row_number() OVER (PARTITION BY g ORDER BY id) FROM zoo WHERE id < 40 ORDER BY id"),
    postgres("SELECT count(*) FROM zoo TABLESAMPLE SYSTEM (100)"),
    postgres(
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT n, (SELECT count(*) FROM zoo) FROM r ORDER BY n",
    ),
    postgres("SELECT g, generate_series(1, 2) FROM zoo WHERE id < 5 ORDER BY 1, 2"),
    postgres("SELECT count(tableoid) FROM zoo"),
    postgres("SELECT count(*), pg_backend_pid() > 0 FROM zoo"),
];

/// Single rows and their values as they are: every type, in text and in binary.
const ROWS: &[Case] = &[
    lookup("SELECT id, i2, i4, i8 FROM zoo ORDER BY id"),
    lookup("SELECT id, n, nb FROM zoo ORDER BY id"),
    lookup("SELECT id, b, t, v, \"Odd Name\" FROM zoo ORDER BY id"),
    lookup("SELECT id, d FROM zoo ORDER BY id"),
    lookup("SELECT id, tm FROM zoo ORDER BY id"),
    lookup("SELECT id, tz, ts FROM zoo ORDER BY id"),
    lookup("SELECT id, u, j FROM zoo ORDER BY id"),
    free("SELECT id, nu FROM zoo ORDER BY id"),
    free("SELECT id, f8, by FROM zoo ORDER BY id"),
    free("SELECT * FROM zoo ORDER BY id").any_order(),
    lookup("SELECT id, t FROM zoo WHERE g = 5 AND t IS NOT NULL").any_order(),
    lookup("SELECT ts, id FROM zoo ORDER BY ts DESC, id LIMIT 100"),
    lookup("SELECT id, ts, t FROM zoo WHERE id = 77"),
    lookup("SELECT id, ts, j FROM zoo WHERE ts >= '2024-03-10' AND ts < '2024-03-11' ORDER BY ts, id"),
    lookup("SELECT t, id FROM zoo WHERE i4 > 4000 ORDER BY t, id"),
    lookup("SELECT t, id FROM zoo WHERE i4 > 4000 ORDER BY t DESC NULLS FIRST, id DESC"),
    lookup("SELECT n, id FROM zoo ORDER BY n NULLS FIRST, id LIMIT 200"),
    lookup("SELECT nb, id FROM zoo ORDER BY nb DESC, id LIMIT 200"),
    lookup("SELECT u, id FROM zoo ORDER BY u, id LIMIT 100"),
    lookup("SELECT tz, id FROM zoo ORDER BY tz, id LIMIT 100"),
    lookup("SELECT d, id FROM zoo ORDER BY d DESC, id LIMIT 100"),
    lookup("SELECT id FROM zoo WHERE id < 0"),
    lookup("SELECT id, date_trunc('day', ts) FROM zoo ORDER BY id LIMIT 50"),
    lookup("SELECT id AS a, id AS a, id FROM zoo WHERE id <= 3 ORDER BY 1"),
    free("SELECT id::text, i4::int8, n::text, b::text FROM zoo ORDER BY id"),
    free("SELECT id, j -> 'deep', j ->> 'k' FROM zoo ORDER BY id"),
    free("SELECT z FROM zoo z WHERE id < 10 ORDER BY id"),
    free("SELECT id, t || '-' || v FROM zoo WHERE id < 60 ORDER BY id"),
    postgres("SELECT id FROM zoo WHERE id < 5 ORDER BY id FOR SHARE"),
    postgres("SELECT id, ctid FROM zoo WHERE id < 5 ORDER BY id"),
];
/// Times of other ages, where the lake may have to give up, but never wrongly.
const FAR: &[Case] = &[
    lake("SELECT count(*) FROM far"),
    lake("SELECT count(*) FROM far WHERE ts > '2100-01-01 00:00:00+00'"),
    lake("SELECT count(*) FROM far WHERE ts < '0001-06-01 00:00:00+00'"),
    lake("SELECT count(*) FROM far WHERE tz < '0044-03-16 00:00:00+00 BC' OR tm = '-infinity'"),
    free("SELECT min(ts), max(ts), min(tz), max(tz), min(tm), max(tm) FROM far"),
    free("SELECT date_trunc('day', ts), count(*) FROM far GROUP BY 1 ORDER BY 1"),
    free("SELECT date_trunc('month', tm), count(*) FROM far WHERE tm > '-infinity' GROUP BY 1 ORDER BY 1"),
    free("SELECT date_trunc('year', ts), count(*) FROM far GROUP BY 1 ORDER BY 1"),
    free("SELECT date_trunc('week', ts), count(*) FROM far WHERE id < 6 GROUP BY 1 ORDER BY 1"),
    free(
        "SELECT date_bin('1 hour', ts, '2000-01-01 00:00:00+00'), count(*) FROM far WHERE id < 3 GROUP BY 1 ORDER BY 1",
    ),
    free("SELECT date_trunc('day', tz), count(*) FROM far GROUP BY 1 ORDER BY 1"),
    free("SELECT id, ts, tz, tm FROM far ORDER BY ts"),
    free("SELECT count(*) FROM far WHERE ts >= date_trunc('day', timestamptz '2150-06-15 12:00:00+00')"),
];

const PARAMETERS: &[Case] = &[
    lake("SELECT count(*) FROM zoo WHERE i4 = $1").with(&[("int4", Some("17"))]),
    lake("SELECT count(*) FROM zoo WHERE i4 > $1 AND i2 < $2")
        .with(&[("int4", Some("-5")), ("int2", Some("500"))]),
    lake("SELECT count(*) FROM zoo WHERE i8 >= $1").with(&[("int8", Some("9223372036854775807"))]),
    lake("SELECT count(*) FROM zoo WHERE i4 = $1").with(&[("int4", None)]),
    lake("SELECT count(*) FROM zoo WHERE t = $1").with(&[("text", Some("日本語"))]),
    lake("SELECT count(*) FROM zoo WHERE t LIKE $1").with(&[("text", Some("a%"))]),
    lake("SELECT count(*) FROM zoo WHERE n > $1").with(&[("numeric", Some("12.345"))]),
    lake("SELECT count(*) FROM zoo WHERE nb < $1").with(&[("numeric", Some("-0.0000000001"))]),
    lake("SELECT count(*) FROM zoo WHERE b = $1").with(&[("bool", Some("true"))]),
    lake("SELECT count(*) FROM zoo WHERE d = $1").with(&[("date", Some("2024-02-29"))]),
    // What might raise an error is computed ahead only of parameters for which it raises none: PostgreSQL computes it of rows, of which there may be none.
    lake("SELECT count(*) FROM zoo WHERE ts < $1::date + 1").with(&[("date", Some("2024-03-10"))]),
    lake("SELECT count(*) FROM zoo WHERE ts > now() - $1::interval").with(&[("interval", Some("40 years 3 days"))]),
    lake("SELECT count(*) FROM zoo WHERE ts < $1::varchar::timestamptz").with(&[("varchar", Some("2024-03-10T12:30:00.25+01:00"))]),
    lake("SELECT count(*) FROM zoo WHERE ts < $1::text::timestamptz").with(&[("text", None)]),
    lake("SELECT count(*) FROM zoo WHERE ts > now() - 40 * interval '1 year' AND tm < (now() AT TIME ZONE 'Europe/Berlin')"),
    free("SELECT count(*) FROM zoo WHERE ts < $1::text::timestamptz").with(&[("text", Some("10 March 2024"))]),
    free("SELECT g, $1::text::date, count(*) FROM zoo WHERE id < -99 GROUP BY 1").with(&[("text", Some("2024-02-30"))]),
    free("SELECT g, now() + $1::interval FROM zoo WHERE id < -99 GROUP BY g").with(&[("interval", Some("1000000 years"))]),
    free("SELECT count(*) FROM zoo WHERE ts < $1").with(&[("date", Some("5874897-12-31"))]),
    free("SELECT count(*) FROM zoo WHERE ts BETWEEN $1 AND $2").with(&[("date", Some("2024-01-01")), ("date", Some("300000-01-01"))]),
    free("SELECT count(*) FROM zoo WHERE ts < $1").with(&[("timestamp", Some("294276-12-31 23:59:59"))]),
    free("SELECT count(*) FROM zoo WHERE ts > $1").with(&[("timestamp", Some("4714-11-24 00:00:00 BC"))]),
    free("SELECT count(*) FROM zoo WHERE id < -99 AND ts > '2024-01-01'::date + 1000000000"),
    free("SELECT g, '2024-13-01'::text::date, count(*) FROM zoo WHERE id < -99 GROUP BY 1"),
    free("SELECT g, now() + interval '1000000 years', count(*) FROM zoo WHERE id < -99 GROUP BY 1"),
    free("SELECT g, date_trunc('bogus', now()), count(*) FROM zoo WHERE id < -99 GROUP BY 1"),
    free("SELECT g, now() AT TIME ZONE 'bogus', count(*) FROM zoo WHERE id < -99 GROUP BY 1"),
    free("SELECT count(*) FILTER (WHERE ts > now() + interval '1000000 years') FROM zoo WHERE id < -99"),
    free("SELECT g, interval '1000000 years' + timestamptz '2024-01-01 00:00+00', count(*) FROM zoo WHERE id < -99 GROUP BY 1"),
    free("SELECT g, CURRENT_DATE - 'infinity'::date, count(*) FROM zoo WHERE id < -99 GROUP BY 1"),
    free("SELECT g, to_timestamp('2024-03-10T12:00', 'YYYY-MM-DD HH24:MI'), count(*) FROM zoo WHERE id < -99 GROUP BY 1"),
    lake("SELECT count(*) FROM zoo WHERE ts >= to_timestamp('2024-03-10 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')"),
    free("SELECT nb, (n::numeric(20,2))::numeric(30,2) FROM zoo GROUP BY ROLLUP (nb, (n::numeric(20,2))) ORDER BY 1, 2"),
    lake("SELECT count(*) FROM zoo WHERE tm >= $1").with(&[("timestamp", Some("2024-03-10 02:00:00.5"))]),
    lake("SELECT count(*) FROM zoo WHERE ts >= $1 AND ts < $2")
        .with(&[("timestamptz", Some("2024-03-10")), ("timestamptz", Some("2024-03-11 00:00:00+00"))]),
    lake("SELECT count(*) FROM zoo WHERE tz = $1").with(&[("timestamptz", Some("infinity"))]),
    lake("SELECT count(*) FROM zoo WHERE u = $1")
        .with(&[("uuid", Some("c4ca4238-a0b9-2382-0dcc-509a6f75849b"))]),
    lake("SELECT count(*) FROM zoo WHERE v = $1::varchar").with(&[("varchar", Some("v"))]),
    lake("SELECT t, count(*) FROM zoo WHERE g = $1 GROUP BY t ORDER BY t LIMIT $2")
        .with(&[("int4", Some("3")), ("int8", Some("5"))]),
    lake("SELECT t, count(*) FROM zoo GROUP BY t HAVING count(*) > $1 ORDER BY t OFFSET $2")
        .with(&[("int8", Some("20")), ("int8", Some("1"))]),
    lake("SELECT count(*) FILTER (WHERE g = $1) FROM zoo").with(&[("int4", Some("2"))]),
    lake("SELECT count(*) FROM zoo WHERE g IN ($1, $2, $3)").with(&[
        ("int4", Some("1")),
        ("int4", Some("2")),
        ("int4", None),
    ]),
    lake("SELECT count(*) FROM zoo WHERE g = $1 OR id = $1").with(&[("int4", Some("5"))]),
    free("SELECT count(*) FROM zoo WHERE g = ANY ($1)").with(&[("int4[]", Some("{1,2,3}"))]),
    free("SELECT date_trunc($1, ts), count(*) FROM zoo GROUP BY 1 ORDER BY 1")
        .with(&[("text", Some("month"))]),
    free("SELECT $1::text, count(*) FROM zoo").with(&[("text", Some("label"))]),
    free("SELECT count(*) FROM zoo WHERE ts > now() - $1::interval").with(&[("interval", Some("2000 days"))]),
    lookup("SELECT id, t, ts FROM zoo WHERE id = $1").with(&[("int8", Some("77"))]),
    error("SELECT count(*) FROM zoo WHERE i4 = $1").with(&[("int4", Some("not a number"))]).as_text(),
    error("SELECT count(*) FROM zoo WHERE i2 = $1").with(&[("int2", Some("40000"))]).as_text(),
    error("SELECT t, count(*) FROM zoo GROUP BY t ORDER BY t LIMIT $1").with(&[("int8", Some("-1"))]),
    error("SELECT count(*) FROM zoo WHERE ts > $1").with(&[("timestamptz", Some("2024-02-30"))]).as_text(),
    error("SELECT count(*) FROM zoo WHERE i4 = $1 AND t = $2").with(&[("int4", Some("1"))]),
];
const VIEWS: &[Case] = &[
    lake("SELECT count(*) FROM zoo_view"),
    lake("SELECT kind, count(*), sum(amount) FROM zoo_view GROUP BY kind ORDER BY kind"),
    lake(
        "SELECT date_trunc('month', at), count(*) FROM zoo_view WHERE label LIKE 'a%' GROUP BY 1 ORDER BY 1",
    ),
    lake("SELECT kind, rows, amount FROM zoo_by_kind ORDER BY kind"),
    lake("SELECT max(rows) FROM zoo_by_kind"),
    lookup("SELECT id, label FROM zoo_view ORDER BY id LIMIT 20"),
];
/// Real logs where they are at hand.
const LOGS: &[Case] = &[
    lake("SELECT count(*) FROM logs"),
    lake("SELECT level, count(*) FROM logs GROUP BY level ORDER BY level"),
    lake(
        "SELECT service, level, count(*), min(ts), max(ts) FROM logs GROUP BY service, level ORDER BY service, level",
    ),
    lake(
        "SELECT service, count(*) FROM logs WHERE level = 'ERROR' AND ts >= '2015-05-18' GROUP BY service ORDER BY count(*) DESC, service LIMIT 10",
    ),
    lake(
        "SELECT date_trunc('hour', ts) AS hour, count(*) AS all, count(*) FILTER (WHERE level = 'ERROR') AS errors FROM logs GROUP BY hour ORDER BY hour",
    ),
    lake("SELECT count(DISTINCT host) FROM logs"),
    lake("SELECT host, count(*) FROM logs GROUP BY host ORDER BY count(*) DESC, host LIMIT 20"),
    lake("SELECT count(*) FROM logs WHERE message LIKE '%kibana%'"),
    lake("SELECT count(*) FROM logs WHERE message LIKE 'GET /%'"),
    lake("SELECT date_trunc('day', ts), service, count(*) FROM logs GROUP BY 1, 2 ORDER BY 1, 2"),
    lake(
        "SELECT date_bin('6 hours', ts, '2015-05-17 00:00:00+00') AS bin, level, count(*) FROM logs GROUP BY bin, level ORDER BY bin, level",
    ),
    lake("SELECT min(ts), max(ts), min(message), max(message) FROM logs"),
    lake(
        "SELECT count(*), count(level), count(service), count(host), count(message), count(metadata), count(ingested_at) FROM logs",
    ),
    lake(
        "SELECT level, count(DISTINCT service), count(DISTINCT message) FROM logs GROUP BY level ORDER BY level",
    ),
    lake("SELECT service FROM logs GROUP BY service HAVING count(*) > 100 ORDER BY service"),
    lake("SELECT DISTINCT level FROM logs ORDER BY level"),
    lookup("SELECT ts, level, service, host, message, metadata FROM logs ORDER BY ts, message, host LIMIT 0"),
    lookup(
        "SELECT ts, level, service, host, message FROM logs WHERE ts < '2015-05-17 12:00:00+00' ORDER BY ts, host, message",
    ),
    lookup("SELECT metadata FROM logs WHERE ts < '2015-05-17 14:00:00+00'").any_order(),
    lookup("SELECT host, message FROM logs WHERE host = '83.149.9.216' OR host = '10.0.1.5'").any_order(),
    free("SELECT metadata ->> 'status', count(*) FROM logs GROUP BY 1 ORDER BY 1"),
    free("SELECT sum((metadata ->> 'bytes')::int8) FROM logs WHERE metadata ->> 'bytes' ~ '^[0-9]+$'"),
    free("SELECT ts, message FROM logs ORDER BY ts DESC, message, host LIMIT 100"),
];
/// Statements that are not the lake's business at all.
const OTHERS: &[Case] = &[
    // A plan that knows a type more narrowly than the statement: RowDescription tells the plan's, in a simple Query.
    free("SELECT '1'::numeric AS a FROM zoo WHERE false UNION ALL SELECT nb FROM zoo WHERE id < 9 ORDER BY 1"),
    free("SELECT ''::text AS a FROM zoo WHERE false UNION ALL SELECT v FROM zoo WHERE id < 9").any_order(),
    free("SELECT 1 AS one, 'two' AS two"),
    free("SHOW TimeZone"),
    free("SELECT current_user, current_database(), current_setting('TimeZone')"),
    free(
        "SELECT relname FROM pg_class WHERE relname IN ('zoo', 'logs', 'events') AND relnamespace = 'public'::regnamespace ORDER BY 1",
    ),
    free(
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'zoo' ORDER BY ordinal_position",
    ),
    free("SELECT name FROM kinds ORDER BY g"),
    free("TABLE kinds"),
    free("VALUES (1, 'a'), (2, 'b')"),
    free(""),
    free("; ;"),
    free("SELECT 'zoo' AS not_a_table"),
    free("DO $$ BEGIN PERFORM count(*) FROM zoo; END $$"),
    free("SELECT count(*) FROM pg_attribute WHERE attrelid = 'zoo'::regclass"),
];
const ERRORS: &[Case] = &[
    error("SELEC count(*) FROM zoo"),
    error("SELECT count(*) FROM zoo WHERE"),
    error("SELECT count(*) FROM no_such_table"),
    error("SELECT no_such_column, count(*) FROM zoo GROUP BY 1"),
    error("SELECT t, count(*) FROM zoo"),
    error("SELECT sum(t) FROM zoo"),
    error("SELECT count(*) FROM zoo GROUP BY 5"),
    error("SELECT no_such_function(i4), count(*) FROM zoo GROUP BY 1"),
    error("SELECT count(*) FROM zoo WHERE i4 = 'abc'"),
    error("SELECT count(*) FROM zoo WHERE ts > '2024-13-01'"),
    error("SELECT count(*) FROM zoo WHERE i2 = 5 AND count(*) > 1"),
    error("SELECT count(*) FROM zoo WHERE t > 5"),
    error("SELECT g, count(*) FROM zoo GROUP BY g ORDER BY g LIMIT -1"),
    error("SELECT g, count(*) FROM zoo GROUP BY g ORDER BY g OFFSET -1"),
    error("SELECT 1 / 0, count(*) FROM zoo"),
    error("SELECT count(*) FROM zoo WHERE g / (g - g) = 1"),
    error("SELECT sum(i4) / 0 FROM zoo"),
    error("SELECT date_trunc('fortnight', ts), count(*) FROM zoo GROUP BY 1"),
    error("SELECT date_bin('1 month', ts, '2000-01-01'), count(*) FROM zoo GROUP BY 1"),
    error("SELECT date_bin('0 seconds', ts, '2000-01-01'), count(*) FROM zoo GROUP BY 1"),
    error("SELECT sum(i4 + 2147483647) FROM zoo"),
    error("SELECT i8 * 2, count(*) FROM zoo GROUP BY 1"),
    error("SELECT count(*) FROM zoo WHERE id = 'x'::int8"),
    // What is compared is computed, though the values to compare it with decide.
    error("SELECT count(*) FROM zoo WHERE i8::numeric(8,1) IN (0.0000000001, NULL)"),
    error("SELECT count(*) FROM zoo WHERE i8::numeric(8,1) NOT IN (0.0000000001, NULL)"),
    error("SELECT count(*) FROM zoo WHERE i8::numeric(8,1) IS DISTINCT FROM 0.0000000001"),
    error("SELECT count(*) FROM zoo WHERE i8::numeric(8,1) = 0.0000000001"),
    error("SELECT count(*) FROM zoo WHERE i8 * 2 IN (NULL, NULL)"),
    error("SELECT count(*) FROM zoo WHERE i8 * 2 = ANY ($1)").with(&[("int8[]", None)]),
    error("SELECT count(*) FROM zoo WHERE i8 * 2 = ANY ($1)").with(&[("int8[]", Some("{}"))]),
    error("SELECT count(*) FROM zoo WHERE i8 * 2 <> ALL ($1)").with(&[("int8[]", Some("{NULL}"))]),
    // What is skipped is computed, of a single row too,
    error("SELECT - bit_and('-2147483648'::int4) FROM zoo ORDER BY 1 LIMIT 1 OFFSET 7"),
    error("SELECT - bit_and('-2147483648'::int4) FROM zoo LIMIT 1 OFFSET 7"),
    error("SELECT b, - min(i8) FROM zoo WHERE b GROUP BY b ORDER BY b LIMIT 3 OFFSET 2"),
    // and before a comparison that no value passes,
    error("SELECT 1 FROM zoo WHERE t LIKE '_%' GROUP BY g HAVING mod(max(1), 0) = 0.0000000001"),
    // and of rows without a partner, where it is compared with a sub-select above.
    error(
        "SELECT 1 FROM (SELECT z.b, z.i8::int4 AS o FROM zoo z JOIN generate_series(5, 1) s(n) ON z.g = s.n GROUP BY 1, 2) d \
         WHERE d.o > (SELECT min(g) FROM ant)",
    ),
    error("SELECT count(*) FROM zoo WHERE (id + 1) % 7 = 99 AND g > 10 / (SELECT (0 * count(*))::int FROM ant)"),
    error("UPDATE zoo SET t = 'x' WHERE id = 1"),
    error("DELETE FROM zoo"),
    error("INSERT INTO zoo (ts, id, g, _xid) VALUES (now(), 1, 1, '5')"),
];
