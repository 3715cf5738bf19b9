use super::*;
use crate::testpg::{Random, cluster, copy_binary, take};
use crate::zone::DISPUTED_BEFORE_1970;

const ZONES: &[&str] = &[
    "UTC",
    "America/New_York",
    "Asia/Kolkata",
    "Europe/Berlin",
    "America/Havana",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Africa/Casablanca",
    "Europe/Amsterdam",
    "Pacific/Apia",
];

const UNITS: &[&str] = &[
    "microseconds",
    "milliseconds",
    "second",
    "minute",
    "hour",
    "day",
    "week",
    "month",
    "quarter",
    "year",
    "decade",
    "century",
    "millennium",
];

fn array(values: Vec<i64>) -> TimestampMicrosecondArray {
    TimestampMicrosecondArray::from(values).with_timezone("UTC")
}

fn wire(us: i64) -> Vec<u8> {
    if finite(us) {
        (us - calendar::EPOCH_SHIFT_US).to_be_bytes().to_vec()
    } else {
        us.to_be_bytes().to_vec()
    }
}

/// Instants around the zone's changes and local midnights near them, over all of history, and infinite ones.
fn instants(zone: &Zone, random: &mut Random) -> Vec<i64> {
    let mut out = vec![i64::MAX, i64::MIN, 0, -1];
    for (at, _) in zone.changes() {
        for d in [-86_400, -3_600, -1, 0, 1, 1_799, 3_600, 43_200, 86_400] {
            out.push((at + d) * SECOND_US + random.within(0, 999_999));
        }
    }
    for (low, high) in
        [(-150_000_000_000, 253_402_300_799), (-70_000_000_000, -58_000_000_000), (0, 4_102_400_000)]
    {
        out.extend((0..400).map(|_| random.within(low, high) * SECOND_US + random.within(0, 999_999)));
    }
    let (from, to) = zone.range_us();
    out.retain(|us| !finite(*us) || (*us - 3_660 * DAY_US >= from && *us < to));
    if DISPUTED_BEFORE_1970.contains(&zone.name()) {
        // Cutting to a century leads before 1970, where nothing is answered.
        out.retain(|us| *us == i64::MAX || *us == i64::MIN);
    }
    out
}

/// Loads (argument, our answer) as timestamps of the given kind, gives the rows for which PostgreSQL differs.
fn differences(settings: &[(&str, &str)], kind: &str, expression: &str, rows: &[(i64, i64)]) -> String {
    let tuples: Vec<_> = rows.iter().map(|(a, b)| vec![Some(wire(*a)), Some(wire(*b))]).collect();
    let file = cluster().file(&copy_binary(&tuples));
    let out = cluster().run(
        settings,
        &format!(
            "CREATE TEMP TABLE t (i {kind}, o {kind});\n\\copy t FROM '{}' (FORMAT binary)\n\
             SELECT i, {expression}, o FROM t WHERE {expression} IS DISTINCT FROM o LIMIT 10;",
            file.display()
        ),
    );
    take(&file);
    out
}

#[test]
fn date_trunc_of_instants_equals_postgres() {
    let mut random = Random(31);
    for name in ZONES {
        let zone = Zone::parse(name).unwrap();
        let mut input = instants(&zone, &mut random);
        // Long runs that share their hour, or their day, over changes of the offset among others.
        let near = |us: &i64| us.checked_sub(2 * HOUR_US).filter(|us| calendar::finite(*us) && *us < 250_000_000_000_000_000);
        let runs: Vec<i64> =
            input.iter().step_by(37).filter_map(near).flat_map(|us| (0..130).map(move |n| us + n * 151_000_003)).collect();
        input.extend(runs);
        for unit in UNITS {
            let parsed = Unit::parse(unit, Kind::TimestampTz).unwrap();
            let ours = date_trunc_timestamptz(parsed, &array(input.clone()), &zone).unwrap();
            let rows: Vec<_> = input.iter().copied().zip(ours.values().iter().copied()).collect();
            let wrong =
                differences(&[("timezone", name)], "timestamptz", &format!("date_trunc('{unit}', i)"), &rows);
            assert_eq!(wrong, "", "{unit} in {name}");
        }
    }
}

#[test]
fn date_trunc_of_local_times_equals_postgres() {
    let input = instants(&Zone::parse("Europe/Berlin").unwrap(), &mut Random(32));
    let far: Vec<i64> = (0..500).map(|i| 253_402_300_800_000_000 + i * 17_000_000_000_000_001).collect();
    let input = [input, far].concat();
    for unit in UNITS {
        let parsed = Unit::parse(unit, Kind::Timestamp).unwrap();
        let ours = date_trunc_timestamp(parsed, &TimestampMicrosecondArray::from(input.clone())).unwrap();
        let rows: Vec<_> = input.iter().copied().zip(ours.values().iter().copied()).collect();
        assert_eq!(differences(&[], "timestamp", &format!("date_trunc('{unit}', i)"), &rows), "", "{unit}");
    }
}

#[test]
fn units_equal_postgres() {
    let names = [
        "us",
        "usec",
        "usecs",
        "usecond",
        "useconds",
        "microsecon",
        "microsecond",
        "microsecondsandmore",
        "micro",
        "ms",
        "msec",
        "msecs",
        "mseconds",
        "msecond",
        "millisecond",
        "MilliSeconds",
        "s",
        "S",
        "sec",
        "secs",
        "second",
        "seconds",
        "secondss",
        "m",
        "min",
        "mins",
        "minute",
        "minutes",
        "h",
        "hr",
        "hrs",
        "hour",
        "hours",
        "d",
        "day",
        "days",
        "dayz",
        "w",
        "week",
        "weeks",
        "mon",
        "mons",
        "month",
        "months",
        "qtr",
        "quarter",
        "quarters",
        "y",
        "yr",
        "yrs",
        "year",
        "years",
        "dec",
        "decs",
        "decade",
        "decades",
        "c",
        "cent",
        "century",
        "centuries",
        "centuryx",
        "mil",
        "mils",
        "millennia",
        "millennium",
        "millenniums",
        "timezone",
        "timezone_hour",
        "timezone_minute",
        "tz",
        "dow",
        "epoch",
        "ago",
        "@",
        "",
        " day",
        "day ",
        "isoyear",
        "julian",
        "foo",
        "DAY",
        "ÄON",
        "a_very_long_unit_name_that_goes_well_beyond_the_limit_of_an_identifier_in_postgresql",
    ];
    cluster().run(
        &[],
        "CREATE OR REPLACE FUNCTION try_trunc(u text, tz bool) RETURNS text LANGUAGE plpgsql AS $$
        BEGIN
            RETURN CASE WHEN tz THEN date_trunc(u, timestamptz '2001-05-23 13:14:15.123456+00')::text
                        ELSE date_trunc(u, timestamp '2001-05-23 13:14:15.123456')::text || '+00' END;
        EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE || ' ' || SQLERRM; END $$;",
    );
    let at =
        chrono::NaiveDate::from_ymd_opt(2001, 5, 23).unwrap().and_hms_micro_opt(13, 14, 15, 123_456).unwrap();
    for kind in [Kind::Timestamp, Kind::TimestampTz] {
        for name in names {
            let theirs = cluster().run(
                &[("timezone", "UTC")],
                &format!("SELECT try_trunc('{name}', {});", kind == Kind::TimestampTz),
            );
            let ours = match Unit::parse(name, kind) {
                Ok(unit) => {
                    let us = date_trunc_timestamp(unit, &array(vec![at.and_utc().timestamp_micros()]))
                        .unwrap()
                        .value(0);
                    let text =
                        chrono::DateTime::from_timestamp_micros(us).unwrap().format("%F %T%.6f").to_string();
                    format!(
                        "{}+00",
                        text.trim_end_matches('0')
                            .trim_end_matches('.')
                            .replace(" 00:00:", " 00:00:00")
                            .replace("00:00:0000", "00:00:00")
                    )
                }
                Err(e) => format!("{} {}", e.sqlstate, e.message),
            };
            let tidy = |s: &str| s.trim_end_matches("+00").trim_end_matches(['0', ':', '.']).to_owned();
            assert_eq!(tidy(&ours), tidy(theirs.trim_end_matches('\n')), "{name:?} {kind:?}");
        }
    }
}

#[test]
fn cutting_before_the_first_timestamp() {
    let us = MIN_TIMESTAMP_US + 5;
    assert_eq!(date_trunc_timestamp(Unit::Day, &array(vec![us])).unwrap().value(0), MIN_TIMESTAMP_US);
    let e = date_trunc_timestamp(Unit::Year, &array(vec![us])).unwrap_err();
    assert_eq!((e.sqlstate, e.message.as_str()), ("22008", "timestamp out of range"));
    let theirs =
        cluster().copy_text(&[], "", "SELECT date_trunc('day', timestamp '4714-11-24 00:00:00.000005 BC')");
    assert_eq!(theirs[0][0].as_deref(), Some("4714-11-24 00:00:00 BC"));
    let zone = Zone::parse("America/New_York").unwrap();
    let zoned = date_trunc_timestamptz(Unit::Week, &array(vec![us + DAY_US]), &zone);
    cluster().run(
        &[],
        "CREATE OR REPLACE FUNCTION try_week() RETURNS text LANGUAGE plpgsql AS $$
        BEGIN RETURN date_trunc('week', timestamptz '4714-11-25 00:00:00.000005+00 BC', 'America/New_York');
        EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE || ' ' || SQLERRM; END $$;",
    );
    let theirs = cluster().run(&[("timezone", "UTC")], "SELECT try_week();");
    match zoned {
        Ok(a) => assert!(theirs.contains("BC"), "{theirs} {}", a.value(0)),
        Err(e) => assert_eq!(theirs.trim(), format!("{} {}", e.sqlstate, e.message)),
    }
}

#[test]
fn date_bin_equals_postgres() {
    let mut random = Random(33);
    for round in 0..60 {
        let stride = match round % 4 {
            0 => random.within(1, 1_000),
            1 => random.within(1, 86_400) * SECOND_US,
            2 => *random.pick(&[1, SECOND_US, MINUTE_US, 15 * MINUTE_US, HOUR_US, DAY_US, 7 * DAY_US]),
            _ => random.within(1, i64::MAX / 4),
        };
        let origin = random.within(-60_000_000_000, 250_000_000_000) * SECOND_US + random.within(0, 999_999);
        let mut input = vec![i64::MAX, i64::MIN, origin, origin - 1, origin + 1];
        for k in -5..=5i64 {
            if let Some(edge) = stride.checked_mul(k).and_then(|d| origin.checked_add(d)) {
                input.extend([edge - 1, edge, edge + 1]);
            }
        }
        input.extend((0..100).map(|_| random.within(-200_000_000_000, 250_000_000_000) * SECOND_US));
        input.retain(|us| !finite(*us) || (*us > MIN_TIMESTAMP_US && *us < 8_000_000_000_000_000_000));
        // A bin's begin may lie before the first timestamp: an error, tested below.
        let bin = |us: i64| {
            date_bin(Interval { months: 0, days: 0, microseconds: stride }, &array(vec![us]), origin)
                .map(|a| a.value(0))
        };
        let rows: Vec<_> = input.iter().filter_map(|us| Some((*us, bin(*us).ok()?))).collect();
        let origin_pg = origin - calendar::EPOCH_SHIFT_US;
        let origin_sql = format!(
            "(timestamp '2000-01-01' + interval '1 day' * ({origin_pg} / 86400000000) + interval '1 microsecond' * ({origin_pg} % 86400000000))"
        );
        let stride_sql = format!(
            "(interval '1 hour' * ({stride} / 3600000000) + interval '1 microsecond' * ({stride} % 3600000000))"
        );
        let wrong = differences(&[], "timestamp", &format!("date_bin({stride_sql}, i, {origin_sql})"), &rows);
        assert_eq!(wrong, "", "stride {stride} origin {origin}");
    }
}

#[test]
fn errors_of_date_bin() {
    let day = Interval { months: 0, days: 1, microseconds: 0 };
    let cases = [
        (
            Interval { months: 1, ..day },
            0,
            "0A000",
            "timestamps cannot be binned into intervals containing months or years",
            "1 month 1 day",
            "1970-01-01",
        ),
        (Interval { days: 0, ..day }, 0, "22008", "stride must be greater than zero", "0", "1970-01-01"),
        (
            Interval { days: -1, ..day },
            0,
            "22008",
            "stride must be greater than zero",
            "-1 day",
            "1970-01-01",
        ),
        (day, i64::MAX, "22008", "origin out of range", "1 day", "infinity"),
    ];
    cluster().run(&[], "CREATE OR REPLACE FUNCTION try_bin(s interval, t timestamp, o timestamp) RETURNS text LANGUAGE plpgsql AS $$
        BEGIN RETURN date_bin(s, t, o); EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE || ' ' || SQLERRM; END $$;");
    for (stride, origin, sqlstate, message, stride_text, origin_text) in cases {
        let e = date_bin(stride, &array(vec![1]), origin).unwrap_err();
        assert_eq!((e.sqlstate, e.message.as_str()), (sqlstate, message));
        let theirs = cluster().run(
            &[],
            &format!("SELECT try_bin('{stride_text}', '1970-01-01 00:00:00.000001', '{origin_text}');"),
        );
        assert_eq!(theirs.trim(), format!("{sqlstate} {message}"));
        // Nothing is raised where only infinite or NULL sources are met.
        let quiet = TimestampMicrosecondArray::from(vec![Some(i64::MAX), None, Some(i64::MIN)]);
        assert_eq!(date_bin(stride, &quiet, origin).unwrap(), quiet);
        let theirs =
            cluster().run(&[], &format!("SELECT try_bin('{stride_text}', 'infinity', '{origin_text}');"));
        assert_eq!(theirs.trim(), "infinity");
    }
    assert_eq!(
        Interval::from_wire(&[0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 2, 0xFF, 0xFF, 0xFF, 0xFF]),
        Some(Interval { months: -1, days: 2, microseconds: 5 })
    );
    assert_eq!(Interval::from_wire(&[0; 15]), None);
}

#[test]
fn an_unknown_unit_is_quiet_over_infinities_in_postgres() {
    let theirs = cluster().copy_text(
        &[],
        "",
        "SELECT date_trunc('foo', 'infinity'::timestamptz), date_trunc('foo', '-infinity'::timestamp)",
    );
    assert_eq!(theirs[0], [Some("infinity".to_owned()), Some("-infinity".to_owned())]);
}

#[test]
fn conversions_pass_null_and_infinity() {
    let zone = Zone::parse("America/Havana").unwrap();
    let input = TimestampMicrosecondArray::from(vec![None, Some(i64::MAX), Some(i64::MIN), Some(0)]);
    let local = timestamptz_to_timestamp(&input.clone().with_timezone("UTC"), &zone).unwrap();
    assert_eq!(local.iter().collect::<Vec<_>>(), [None, Some(i64::MAX), Some(i64::MIN), Some(-5 * HOUR_US)]);
    assert_eq!(local.timezone(), None);
    let back = timestamp_to_timestamptz(&local, &zone).unwrap();
    assert_eq!(back.iter().collect::<Vec<_>>(), input.iter().collect::<Vec<_>>());
    assert_eq!(back.timezone(), Some("UTC"));
}
