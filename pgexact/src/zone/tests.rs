use super::*;
use crate::testpg::{Random, cluster, copy_binary, take};

/// Zones whose tables PostgreSQL and we both have.
fn common_zones() -> Vec<Zone> {
    let known = cluster().run(&[], "SELECT name FROM pg_timezone_names ORDER BY 1");
    let known: Vec<&str> = known.lines().collect();
    chrono_tz::TZ_VARIANTS
        .iter()
        .map(|tz| tz.name())
        .filter(|n| known.contains(n))
        .filter_map(Zone::parse)
        .collect()
}

/// Instants around every change of a zone and some more, in seconds.
fn instants(zone: &Zone, random: &mut Random) -> Vec<i64> {
    let mut out: Vec<i64> = zone
        .changes()
        .iter()
        .flat_map(|c| {
            [-90_000, -86_400, -7_200, -3_601, -3_600, -1, 0, 1, 1_800, 3_600, 7_200, 86_400, 90_000]
                .map(|d| c.0 + d)
        })
        .collect();
    out.extend((0..60).map(|_| random.within(-2_208_988_800, 4_102_444_799)));
    out.extend([-210_866_600_000, -62_135_596_800, -5_364_662_400, -1, 0, 4_102_444_799, 253_402_300_799]);
    out
}

fn pg_us(seconds: i64) -> Vec<u8> {
    (seconds * SECOND_US - crate::calendar::EPOCH_SHIFT_US).to_be_bytes().to_vec()
}

/// Asks PostgreSQL about (zone, argument, our answer), gives its differing answers.
fn differences(expression: &str, rows: Vec<(String, i64, i64)>) -> Vec<String> {
    let tuples: Vec<_> = rows
        .iter()
        .map(|(z, a, b)| vec![Some(z.clone().into_bytes()), Some(pg_us(*a)), Some(pg_us(*b))])
        .collect();
    let file = cluster().file(&copy_binary(&tuples));
    let out = cluster().run(
        &[("timezone", "UTC")],
        &format!(
            "CREATE TEMP TABLE t (zone text, i timestamp, o timestamp);\n\\copy t FROM '{}' (FORMAT binary)\n\
             SELECT zone, i, {expression}, o FROM t WHERE {expression} IS DISTINCT FROM o ORDER BY 1, 2;",
            file.display()
        ),
    );
    take(&file);
    out.lines().map(str::to_owned).collect()
}

#[test]
fn every_zone_agrees_with_postgres_on_every_change() {
    let mut random = Random(11);
    let (mut forward, mut back) = (Vec::new(), Vec::new());
    let mut zones = 0;
    for zone in common_zones() {
        zones += 1;
        for s in instants(&zone, &mut random) {
            if let Ok(offset) = zone.offset_at(s) {
                forward.push((zone.name().to_owned(), s, s + i64::from(offset)));
            }
            // The same number, read as a local time.
            for local in [s, s + i64::from(zone.offset_at(s).unwrap_or(0))] {
                if let Ok(offset) = zone.offset_of_local(local) {
                    back.push((zone.name().to_owned(), local, local - i64::from(offset)));
                }
            }
        }
    }
    assert!(zones > 400, "{zones}");
    let wrong = differences("(i AT TIME ZONE 'UTC' AT TIME ZONE zone)", forward);
    let mut names: Vec<&str> = wrong.iter().map(|l| l.split('|').next().unwrap()).collect();
    names.dedup();
    assert!(wrong.is_empty(), "{} instants of {names:?}: {:#?}", wrong.len(), &wrong[..wrong.len().min(40)]);
    let wrong = differences("(i AT TIME ZONE zone AT TIME ZONE 'UTC')", back);
    assert!(wrong.is_empty(), "{} local times: {:#?}", wrong.len(), &wrong[..wrong.len().min(40)]);
}

#[test]
fn only_iana_names_in_their_own_spelling() {
    for known in ["UTC", "GMT", "Etc/UTC", "America/New_York", "Europe/Berlin", "US/Eastern"] {
        assert_eq!(Zone::parse(known).map(|z| z.name().to_owned()).as_deref(), Some(known));
    }
    for unknown in [
        "utc",
        "EST5EDT4",
        "<+03>-03",
        "+02",
        "America/new_york",
        "",
        "posix/UTC",
        "localtime",
        "Nowhere/City",
        "EST",
        "CET",
    ] {
        assert_eq!(Zone::parse(unknown), None, "{unknown}");
    }
}

#[test]
fn limits() {
    let berlin = Zone::parse("Europe/Berlin").unwrap();
    assert_eq!(berlin.offset_at(TABLE_END_S - 1), Ok(3600));
    assert!(berlin.offset_at(TABLE_END_S).is_err());
    assert!(berlin.local_of(TABLE_END_S * SECOND_US).is_err());
    assert_eq!(berlin.local_of(i64::MAX), Ok(i64::MAX));
    assert_eq!(berlin.instant_of(i64::MIN), Ok(i64::MIN));
    let kolkata = Zone::parse("Asia/Kolkata").unwrap();
    assert_eq!(kolkata.offset_at(TABLE_END_S * 100), Ok(19_800));
    assert_eq!(Zone::utc().range_us(), (i64::MIN, i64::MAX));
    assert!(Zone::utc().is_utc() && Zone::parse("Etc/UTC").unwrap().is_utc() && !berlin.is_utc());
}

#[test]
fn gaps_and_overlaps() {
    let zone = Zone::parse("America/New_York").unwrap();
    let at = |text: &str| chrono::NaiveDateTime::parse_from_str(text, "%F %T").unwrap().and_utc().timestamp();
    // Skipped: 02:30 is read with the offset before; repeated: 01:30 with the offset after.
    assert_eq!(zone.offset_of_local(at("2024-03-10 02:30:00")), Ok(-5 * 3600));
    assert_eq!(zone.offset_of_local(at("2024-11-03 01:30:00")), Ok(-5 * 3600));
}
