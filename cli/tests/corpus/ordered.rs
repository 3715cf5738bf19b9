//! Aggregates that see an order, counts of rows of values, sums of any scale, calendars.

use super::{Case, lake, lookup, postgres};

pub(super) const ORDERED: &[Case] = &[
    lake("SELECT count(DISTINCT (g, t)), count(DISTINCT (b, d, i2)), count((b, v)) FROM zoo"),
    lake("SELECT g, count(DISTINCT (u, v)) FROM zoo GROUP BY g ORDER BY g"),
    lake("SELECT g, string_agg(DISTINCT t, ', ') FROM zoo GROUP BY g ORDER BY g"),
    lake("SELECT string_agg(v, '' ORDER BY v DESC NULLS LAST), string_agg(DISTINCT v, ' | ' ORDER BY v DESC) FROM zoo WHERE id < 400"),
    lake("SELECT t, string_agg(id::text, ',' ORDER BY id) FROM zoo WHERE id < 300 GROUP BY t ORDER BY t"),
    lookup("SELECT string_agg(t, $1 ORDER BY t) FROM zoo WHERE g = 3").with(&[("text", Some(";"))]),
    lake("SELECT g, array_agg(DISTINCT t), array_agg(DISTINCT b), array_agg(i2 ORDER BY i2) FROM zoo WHERE id < 500 GROUP BY g ORDER BY g"),
    lake("SELECT array_agg(i4 ORDER BY i4), array_agg(DISTINCT i8), array_agg(n ORDER BY n DESC), array_agg(DISTINCT nb) FROM zoo WHERE id < 200"),
    lake("SELECT array_agg(d ORDER BY d), array_agg(tm ORDER BY tm), array_agg(ts ORDER BY ts), array_agg(DISTINCT u), array_agg(DISTINCT v) FROM zoo WHERE id < 200"),
    lake("SELECT g, percentile_cont(0.5) WITHIN GROUP (ORDER BY i4), percentile_cont(0.99) WITHIN GROUP (ORDER BY n) FROM zoo GROUP BY g ORDER BY g"),
    lake("SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY t), percentile_disc(0.9) WITHIN GROUP (ORDER BY ts DESC), percentile_disc(0.1) WITHIN GROUP (ORDER BY n) FROM zoo"),
    lake("SELECT percentile_cont($1) WITHIN GROUP (ORDER BY i8) FROM zoo").with(&[("float8", Some("0.9"))]),
    lake("SELECT date_trunc('month', ts), percentile_cont(0.95) WITHIN GROUP (ORDER BY i2) FILTER (WHERE b) FROM zoo GROUP BY 1 ORDER BY 1"),
    lake("SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY f8) FROM zoo WHERE id % 8 IN (4, 7)"),
    lake("SELECT mode() WITHIN GROUP (ORDER BY g), mode() WITHIN GROUP (ORDER BY t DESC), mode() WITHIN GROUP (ORDER BY b) FROM zoo"),
    lake("SELECT g, sum(nu), avg(nu) FROM zoo GROUP BY g ORDER BY g"),
    lake("SELECT sum(nu), avg(nu) FROM zoo WHERE nu BETWEEN 0 AND 1"),
    lake("SELECT day, count(z.id), sum(z.n) FROM generate_series('2024-03-08 00:00+00'::timestamptz, '2024-03-14 00:00+00', '1 day') day LEFT JOIN zoo z ON date_trunc('day', z.ts) = day GROUP BY day ORDER BY day"),
    lake("SELECT h, coalesce(x.n, 0) AS n FROM generate_series(0, 23) h LEFT JOIN (SELECT extract(hour FROM ts)::int AS hour, count(*) AS n FROM zoo GROUP BY 1) x ON x.hour = h ORDER BY h"),
    lake("SELECT g, percentile_cont(ARRAY[0.5, 0.9]) WITHIN GROUP (ORDER BY i4), percentile_disc(ARRAY[0.1, 0.9]) WITHIN GROUP (ORDER BY t) FROM zoo GROUP BY g ORDER BY g"),
    lookup("SELECT a.id, (SELECT count(*) FROM zoo z WHERE z.g = a.g), (SELECT max(z.t) FROM zoo z WHERE z.g = a.g AND z.b) FROM ant a WHERE a.id < 60 ORDER BY a.id"),
    lookup("SELECT a.id, (SELECT k.name FROM kinds k WHERE k.g = a.g) FROM ant a WHERE a.id < 60 ORDER BY a.id"),
    lake("SELECT count(*), sum(z.id) FROM zoo z WHERE z.n > (SELECT avg(y.n) FROM zoo y WHERE y.g = z.g)"),
    postgres("SELECT string_agg(t, ',') FROM zoo WHERE id = 5"),
    postgres("SELECT array_agg(j ORDER BY id) FROM zoo WHERE id < 30"),
];
