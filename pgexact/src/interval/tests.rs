//! Moved dates and times against PostgreSQL itself.

use super::*;
use crate::testpg::{Random, cluster};
use arrow::datatypes::TimestampMicrosecondType;

#[test]
fn moved_times_are_postgres() {
    let mut random = Random(0x5eed_0040);
    let intervals: Vec<(i32, i32, i64)> = [
        (0, 1, 0),
        (0, -1, 0),
        (1, 0, 0),
        (-1, 0, 0),
        (12, 0, 0),
        (13, -40, 3_600_000_000),
        (0, 0, -1),
        (-25, 3, 5),
    ]
    .into_iter()
    .chain((0..30).map(|_| {
        (
            random.within(-30, 30) as i32,
            random.within(-400, 400) as i32,
            random.within(-90_000_000_000, 90_000_000_000),
        )
    }))
    .collect();
    for zone in ["UTC", "America/New_York", "Europe/Berlin", "America/Havana", "Australia/Lord_Howe"] {
        let parsed = Zone::parse(zone).expect("a zone");
        let mut values = vec![i64::MAX, i64::MIN];
        for change in parsed.changes().iter().filter(|c| (1_500_000_000..1_800_000_000).contains(&c.0)) {
            // Days around changes of offset, so that landing in gaps and repeated hours is frequent.
            (0..3).for_each(|_| {
                values.push((change.0 + random.within(-90_000, 90_000)) * 1_000_000 + random.within(0, 9))
            });
            values.push((change.0 - 86_400 + random.within(-3_700, 3_700)) * 1_000_000);
        }
        (0..60).for_each(|_| values.push(random.within(0, 2_000_000_000) * 1_000_000));
        let literal = |us: &i64| match *us {
            i64::MAX => "'infinity'".into(),
            i64::MIN => "'-infinity'".into(),
            us => format!("timestamptz '1970-01-01 00:00+00' + '{us} microseconds'::interval"),
        };
        let list = values.iter().map(literal).collect::<Vec<_>>().join(", ");
        let instants = TimestampMicrosecondArray::from(values.clone()).with_timezone("UTC");
        let plain = TimestampMicrosecondArray::from(values.clone());
        for (months, days, microseconds) in &intervals {
            let interval = Interval { months: *months, days: *days, microseconds: *microseconds };
            let sql = format!("'{months} mons {days} days {microseconds} microseconds'::interval");
            let query = format!(
                "SELECT CASE WHEN isfinite(ts) THEN (extract(epoch FROM ts + {sql}) * 1000000)::int8::text ELSE ts::text END, CASE WHEN isfinite(ts) THEN (extract(epoch FROM (ts AT TIME ZONE 'UTC') + {sql}) * 1000000)::int8::text ELSE ts::text END FROM unnest(ARRAY[{list}]::timestamptz[]) WITH ORDINALITY u(ts, n) ORDER BY n"
            );
            let rows = cluster().copy_text(&[("TimeZone", zone)], "", &query);
            for (column, array) in [&instants, &plain].into_iter().enumerate() {
                let moved = add(array, interval, &parsed).expect("in range");
                let moved = moved.as_primitive::<TimestampMicrosecondType>();
                for (row, want) in rows.iter().enumerate() {
                    let got = match moved.value(row) {
                        i64::MAX => "infinity".into(),
                        i64::MIN => "-infinity".into(),
                        us => us.to_string(),
                    };
                    assert_eq!(Some(got), want[column], "{} + {interval:?} in {zone}", values[row]);
                }
            }
        }
    }
}

#[test]
fn dates_move_and_differ() {
    let dates = Date32Array::from(vec![Some(0), Some(i32::MAX), None, Some(19_782), Some(-2_440_588)]);
    let days = Int32Array::from(vec![Some(5), Some(5), Some(5), None, Some(0)]);
    let moved = add_days(&dates, &days, false).expect("in range");
    let moved: Vec<_> = moved.as_primitive::<Date32Type>().iter().collect();
    assert_eq!(moved, [Some(5), Some(i32::MAX), None, None, Some(-2_440_588)]);
    let first = Date32Array::from(vec![DATES.0 as i32]);
    let one = Int32Array::from(vec![1]);
    let e = add_days(&first, &one, true).expect_err("before the first date");
    assert_eq!((e.sqlstate, e.message.as_str()), ("22008", "date out of range"));
    let last = Date32Array::from(vec![DATES.1 as i32]);
    assert!(add_days(&last, &one, false).is_err());
    assert_eq!(
        days_between(&last, &first).expect("days").as_primitive::<Int32Type>().value(0),
        (DATES.1 - DATES.0) as i32
    );
    let rows = cluster().copy_text(
        &[],
        "",
        "SELECT '5874897-12-31'::date - '1970-01-01'::date, '4714-11-24 BC'::date - '1970-01-01'::date",
    );
    assert_eq!(rows[0], [Some(DATES.1.to_string()), Some(DATES.0.to_string())]);
    let e = days_between(&dates, &dates).expect_err("infinite");
    assert_eq!((e.sqlstate, e.message.as_str()), ("22008", "cannot subtract infinite dates"));
}
