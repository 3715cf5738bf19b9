//! Casts against PostgreSQL itself. What timestamps look like is tested with the wire formats.

use super::*;
use crate::testpg::{Random, cluster, escaped};
use arrow::array::{Date32Array, Decimal128Array, Int64Array, StringViewArray, TimestampMicrosecondArray};

const TRY: &str = "CREATE FUNCTION pg_temp.attempt(q text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE r text; BEGIN EXECUTE q INTO r; RETURN 'is ' || r;
EXCEPTION WHEN OTHERS THEN RETURN 'raises ' || SQLSTATE || ' ' || SQLERRM; END $$;";

fn texts_of_numbers() -> Vec<String> {
    let mut random = Random(0x5eed_0010);
    let mut all: Vec<String> = [
        "",
        " ",
        "0",
        "-0",
        "+7",
        " 42 ",
        "\t42\u{b}",
        "4 2",
        "4a",
        "a4",
        "--4",
        "+-4",
        "-",
        "+",
        "1.",
        ".5",
        "-.5",
        ".",
        "1.50",
        "-0.00",
        "007",
        "00.70",
        "32767",
        "32768",
        "-32768",
        "-32769",
        "2147483647",
        "2147483648",
        "-2147483648",
        "-2147483649",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "-9223372036854775809",
        "99999999999999999999x",
        "1e5",
        "NaN",
        "infinity",
        "1_000",
        "0x1f",
        "１",
        "1,5",
        "123456789012345678901234567890.123456789012345678901234567890",
        "é",
    ]
    .into_iter()
    .map(str::to_owned)
    .collect();
    for _ in 0..300 {
        let length = random.below(7) + 1;
        all.push((0..length).map(|_| *random.pick(&['0', '1', '9', '5', '.', '-', ' ', '7'])).collect());
    }
    all
}

#[test]
fn numbers_are_read_as_postgres_reads_them() {
    let texts = texts_of_numbers();
    for (name, returns) in [
        ("int2", Some(DataType::Int16)),
        ("int4", Some(DataType::Int32)),
        ("int8", Some(DataType::Int64)),
        ("numeric", None),
    ] {
        let values: Vec<String> = texts
            .iter()
            .enumerate()
            .map(|(n, t)| format!("({n}, 'SELECT (U&''{}''::text::{name})::text')", escaped(t)))
            .collect();
        let query =
            format!("SELECT pg_temp.attempt(q) FROM (VALUES {}) x(n, q) ORDER BY n", values.join(", "));
        let rows = cluster().copy_text(&[], TRY, &query);
        let mut refused = 0;
        for (text, row) in texts.iter().zip(rows) {
            let want = row[0].clone().expect("a text");
            let array = StringViewArray::from(vec![text.as_str()]);
            let got = match &returns {
                Some(returns) => text_to_int(&array, returns).and_then(|a| to_text(&a, &Zone::utc())),
                None => text_to_numeric(&array),
            };
            match got {
                Ok(array) => {
                    assert_eq!(format!("is {}", array.as_string_view().value(0)), want, "{text:?} as {name}")
                }
                Err(e) if e.is_not_exact() => refused += 1,
                Err(e) => {
                    assert_eq!(format!("raises {} {}", e.sqlstate, e.message), want, "{text:?} as {name}")
                }
            }
        }
        assert!(refused < 20, "{name}: {refused}");
    }
}

#[test]
fn values_are_written_as_postgres_writes_them() {
    let berlin = Zone::parse("Europe/Berlin").expect("a zone");
    let instants =
        [0i64, -1, 1_720_000_000_123_450, -62_200_000_000_000_000, i64::MAX, i64::MIN, 4_000_000_000_000_000];
    let list = |f: &dyn Fn(i64) -> String| instants.iter().map(|us| f(*us)).collect::<Vec<_>>().join(", ");
    let literal = |us: i64| match us {
        i64::MAX => "'infinity'::timestamptz".into(),
        i64::MIN => "'-infinity'::timestamptz".into(),
        us => format!("'1970-01-01 00:00+00'::timestamptz + '{us} microseconds'::interval"),
    };
    let query = format!(
        "SELECT v::text, (v AT TIME ZONE 'UTC')::text, (v AT TIME ZONE 'UTC')::date::text FROM unnest(ARRAY[{}]) v",
        list(&literal)
    );
    let rows = cluster().copy_text(&[("TimeZone", "Europe/Berlin")], "", &query);
    let zoned = TimestampMicrosecondArray::from(instants.to_vec()).with_timezone("UTC");
    let plain = TimestampMicrosecondArray::from(instants.to_vec());
    let days = Date32Array::from_iter_values(instants.iter().map(|us| match *us {
        i64::MAX => i32::MAX,
        i64::MIN => i32::MIN,
        us => us.div_euclid(crate::calendar::DAY_US) as i32,
    }));
    for (column, array) in [&zoned as &dyn Array, &plain, &days].into_iter().enumerate() {
        let ours = to_text(array, &berlin).expect("texts");
        for (row, want) in rows.iter().enumerate() {
            assert_eq!(Some(ours.as_string_view().value(row)), want[column].as_deref());
        }
    }
    let decimals = Decimal128Array::from(vec![Some(-5), None, Some(12345)])
        .with_precision_and_scale(9, 3)
        .expect("fits");
    let ours = to_text(&decimals, &berlin).expect("texts");
    assert_eq!(ours.as_string_view().iter().collect::<Vec<_>>(), [Some("-0.005"), None, Some("12.345")]);
    let ints = to_text(&Int64Array::from(vec![i64::MIN, 0]), &berlin).expect("texts");
    assert_eq!(ints.as_string_view().iter().flatten().collect::<Vec<_>>(), ["-9223372036854775808", "0"]);
}
