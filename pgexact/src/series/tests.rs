//! Random series against PostgreSQL itself.

use super::*;
use crate::testpg::{Random, cluster};

#[test]
fn series_of_integers_are_postgres() {
    let mut random = Random(0x5eed_0121);
    let (mut sql, mut got) = (Vec::new(), Vec::new());
    for number in 0..400 {
        let wide = random.below(2) == 0;
        let max = if wide { i64::MAX } else { i32::MAX.into() };
        let near = |random: &mut Random| match random.below(5) {
            0 => max - random.below(20) as i64,
            1 => -max + random.below(20) as i64,
            _ => random.within(-40, 40),
        };
        let start = near(&mut random);
        let stop = if random.below(3) == 0 { near(&mut random) } else { start.saturating_add(random.within(-60, 60)).clamp(-max, max) };
        let step = *random.pick(&[1, -1, 2, 7, -5, 1_000_000_007]);
        let Ok(values) = integers(start, stop, step, max) else { continue };
        got.push(values.iter().map(i64::to_string).collect::<Vec<_>>().join(","));
        let ty = if wide { "int8" } else { "int4" };
        sql.push(format!("SELECT {number} AS n, (SELECT string_agg(x::text, ',') FROM generate_series('{start}'::{ty}, '{stop}'::{ty}, {step}::{ty}) x) AS a"));
    }
    assert!(sql.len() > 200, "{}", sql.len());
    let rows = cluster().copy_text(&[], "", &format!("SELECT coalesce(a, '') FROM ({}) s ORDER BY n", sql.join(" UNION ALL ")));
    for ((got, sql), want) in got.iter().zip(&sql).zip(rows) {
        assert_eq!(Some(got), want[0].as_ref(), "{sql}");
    }
    assert!(integers(1, 2, 0, 100).is_err() && integers(1, 1_000_000, 1, i64::MAX).is_err());
}

#[test]
fn series_of_times_are_postgres() {
    let mut random = Random(0x5eed_0122);
    for zone in ["UTC", "America/New_York", "Asia/Kolkata", "America/Havana", "Europe/Berlin"] {
        let known = Zone::parse(zone).expect("a zone");
        let (mut sql, mut got) = (Vec::new(), Vec::new());
        for number in 0..150 {
            let with_zone = random.below(2) == 0;
            let start = random.within(1_000_000_000, 2_000_000_000) / 1800 * 1800;
            let step = Interval {
                months: if random.below(3) == 0 { random.within(-2, 3) as i32 } else { 0 },
                days: if random.below(2) == 0 { random.within(-3, 9) as i32 } else { 0 },
                microseconds: if random.below(2) == 0 { random.within(-3, 40) * 1_800_000_000 } else { 0 },
            };
            let stop = start + random.within(-20, 200) * 43_200;
            let Ok(values) = instants(start * 1_000_000, stop * 1_000_000, step, with_zone.then_some(&known)) else { continue };
            if values.len() > 2000 {
                continue;
            }
            got.push(values.iter().map(|us| (us / 1_000_000).to_string()).collect::<Vec<_>>().join(","));
            let span = format!("interval '{} mons {} days {} seconds'", step.months, step.days, step.microseconds / 1_000_000);
            let time = |s: i64| match with_zone {
                true => format!("to_timestamp({s})"),
                false => format!("(timestamp '1970-01-01' + {s} * interval '1 second')"),
            };
            let (start, stop) = (time(start), time(stop));
            sql.push(format!("SELECT {number} AS n, (SELECT string_agg(extract(epoch FROM x)::int8::text, ',') FROM generate_series({start}, {stop}, {span}) x) AS a"));
        }
        assert!(sql.len() > 80, "{}", sql.len());
        let rows = cluster().copy_text(&[("timezone", zone)], "", &format!("SELECT coalesce(a, '') FROM ({}) s ORDER BY n", sql.join(" UNION ALL ")));
        for ((got, sql), want) in got.iter().zip(&sql).zip(rows) {
            assert_eq!(Some(got), want[0].as_ref(), "{sql}");
        }
    }
}
