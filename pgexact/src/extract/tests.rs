//! Every field against PostgreSQL itself, of dates, timestamps and timestamptz in several zones.

use super::*;
use crate::testpg::{Random, cluster};
use arrow::array::{Date32Array, TimestampMicrosecondArray};

const NAMES: [&str; 23] = [
    "microseconds",
    "milliseconds",
    "second",
    "minute",
    "hour",
    "day",
    "month",
    "quarter",
    "week",
    "year",
    "decade",
    "century",
    "millennium",
    "isoyear",
    "dow",
    "isodow",
    "doy",
    "epoch",
    "timezone",
    "timezone_hour",
    "timezone_minute",
    "YEARS",
    "mon",
];

/// Instants around changes of offset, eras, years and days, infinities among them.
fn instants() -> Vec<i64> {
    let mut random = Random(0x5eed_0020);
    let mut all = vec![
        0,
        -1,
        1,
        i64::MAX,
        i64::MIN,
        951_782_400_000_000,
        1_710_054_000_000_000 - 1,
        1_730_001_600_123_456,
    ];
    for _ in 0..220 {
        all.push(random.within(0, 4_000_000_000) * 1_000_000 + random.within(0, 999_999));
    }
    // Years 4713 BC to 9999.
    (0..120).for_each(|_| {
        all.push(random.within(-210_000_000_000, 253_000_000_000) * 1_000_000 + random.within(0, 3) * 1000)
    });
    all
}

fn list(values: &[i64]) -> String {
    let literal = |us: &i64| match *us {
        i64::MAX => "'infinity'".into(),
        i64::MIN => "'-infinity'".into(),
        us => format!("timestamptz '1970-01-01 00:00+00' + '{us} microseconds'::interval"),
    };
    values.iter().map(literal).collect::<Vec<_>>().join(", ")
}

fn check(array: &dyn Array, source: Source, zone: &str, expression: &str, values: &[i64]) {
    let parsed = Zone::parse(zone).expect("a zone");
    for name in NAMES {
        let Some(field) = Field::parse(name, source) else { continue };
        let (precision, scale) = field.digits(source);
        let query = format!(
            "SELECT extract({name} FROM v)::text, date_part('{name}', v)::text FROM (SELECT {expression} FROM unnest(ARRAY[{}]::timestamptz[]) WITH ORDINALITY u(ts, n) ORDER BY n) x(v)",
            list(values)
        );
        let rows = cluster().copy_text(&[("TimeZone", zone)], "", &query);
        let finite: Vec<bool> = values.iter().map(|us| crate::calendar::finite(*us)).collect();
        assert_eq!(rows.len(), array.len());
        for (row, want) in rows.iter().enumerate() {
            let one = array.slice(row, 1);
            let exact = extract(field, &one, &parsed, &DataType::Decimal128(precision, scale));
            let float = extract(field, &one, &parsed, &DataType::Float64);
            if !finite[row] && field.grows() {
                assert!(exact.expect_err("infinite").is_not_exact() && float.is_err());
                continue;
            }
            let (exact, float) = match (exact, float) {
                (Err(e), _) | (_, Err(e)) => {
                    assert!(e.is_not_exact(), "{e}");
                    continue;
                }
                (Ok(exact), Ok(float)) => (exact, float),
            };
            let exact = crate::numeric::to_text(&exact).expect("decimals");
            let shown = (!exact.is_null(0)).then(|| exact.as_string_view().value(0).to_owned());
            assert_eq!(shown, want[0], "{name} of {} in {zone}", values[row]);
            let float = float.as_primitive::<arrow::datatypes::Float64Type>();
            let wanted = want[1].as_ref().map(|t| t.parse::<f64>().expect("a float").to_bits());
            assert_eq!(
                (!float.is_null(0)).then(|| float.value(0).to_bits()),
                wanted,
                "{name} of {} in {zone}",
                values[row]
            );
        }
    }
}

#[test]
fn fields_are_postgres() {
    let values = instants();
    let plain = TimestampMicrosecondArray::from(values.clone());
    check(&plain, Source::Timestamp, "UTC", "ts AT TIME ZONE 'UTC'", &values);
    let days = Date32Array::from_iter_values(values.iter().map(|us| match *us {
        i64::MAX => i32::MAX,
        i64::MIN => i32::MIN,
        us => us.div_euclid(DAY_US) as i32,
    }));
    check(&days, Source::Date, "UTC", "(ts AT TIME ZONE 'UTC')::date", &values);
    for zone in ["America/New_York", "Asia/Kolkata", "Europe/Berlin"] {
        check(&plain.clone().with_timezone("UTC"), Source::TimestampTz, zone, "ts", &values);
    }
}

#[test]
fn seconds_between_are_postgres() {
    let values: Vec<i64> = instants().into_iter().filter(|us| crate::calendar::finite(*us)).collect();
    let (a, b): (Vec<i64>, Vec<i64>) = values.chunks_exact(2).map(|p| (p[0], p[1])).unzip();
    let query = format!(
        "SELECT extract(epoch FROM x - y)::text, date_part('epoch', x - y)::text FROM unnest(ARRAY[{}], ARRAY[{}]) WITH ORDINALITY u(x, y, n) ORDER BY n",
        list(&a),
        list(&b)
    );
    let rows = cluster().copy_text(&[], "", &query);
    let (a, b) = (TimestampMicrosecondArray::from(a), TimestampMicrosecondArray::from(b));
    let exact =
        crate::numeric::to_text(&epoch_between(&a, &b, &DataType::Decimal128(20, 6)).expect("seconds"))
            .expect("texts");
    let float = epoch_between(&a, &b, &DataType::Float64).expect("seconds");
    for (row, want) in rows.iter().enumerate() {
        assert_eq!(Some(exact.as_string_view().value(row)), want[0].as_deref());
        let float = float.as_primitive::<arrow::datatypes::Float64Type>().value(row);
        assert_eq!(
            float.to_bits(),
            want[1].as_ref().expect("a float").parse::<f64>().expect("a float").to_bits()
        );
    }
    let infinite = TimestampMicrosecondArray::from(vec![i64::MAX]);
    let e = epoch_between(&infinite, &infinite, &DataType::Float64).expect_err("infinite");
    assert_eq!((e.sqlstate, e.message.as_str()), ("22008", "cannot subtract infinite timestamps"));
}
