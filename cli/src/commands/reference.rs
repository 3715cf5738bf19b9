//! The statements that the demo and the benchmarks time.

/// Name and text of each reference query. All sort by everything that tells rows apart, so that each has one
/// right answer. `{ts}` is the time of a row that exists, `{since}` a time in the middle.
pub const QUERIES: [(&str, &str); 8] = [
    ("COUNT(*)", "SELECT count(*) FROM logs"),
    ("GROUP BY level", "SELECT level, count(*) FROM logs GROUP BY level ORDER BY level"),
    (
        "GROUP BY service, level",
        "SELECT service, level, count(*), min(ts), max(ts) FROM logs GROUP BY service, level ORDER BY service, level",
    ),
    (
        "WHERE + GROUP BY",
        "SELECT service, count(*) FROM logs WHERE level = 'ERROR' AND ts >= '{since}' GROUP BY service ORDER BY service",
    ),
    (
        "hourly with FILTER",
        "SELECT date_trunc('hour', ts) AS hour, count(*), count(*) FILTER (WHERE level = 'ERROR') AS errors \
         FROM logs GROUP BY 1 ORDER BY 1",
    ),
    ("count(DISTINCT host)", "SELECT count(DISTINCT host) FROM logs"),
    (
        "point lookup",
        "SELECT ts, level, service, host, message, metadata FROM logs WHERE ts = '{ts}' ORDER BY service, host, level, message",
    ),
    (
        "ORDER BY ts DESC LIMIT 100",
        "SELECT ts, level, service, host, message FROM logs ORDER BY ts DESC, service, host, level, message LIMIT 100",
    ),
];
