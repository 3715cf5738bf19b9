use super::*;
use crate::read::Limits;
use crate::tree::Expr;
use proptest::prelude::*;
use std::cmp::Ordering;

fn constants() -> Vec<Value> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trees/constants.tree");
    let text = std::fs::read_to_string(path).expect("captured");
    let query =
        crate::tree::parse(text.split_once('\n').expect("two parts").1, Limits::default()).expect("tree");
    query
        .targets
        .iter()
        .map(|t| match &t.expr {
            Expr::Const(c) => from_datum(c.type_oid, c.datum.as_deref()).expect("a value"),
            _ => Value::Bool(false),
        })
        .collect()
}

fn number(text: &str) -> Value {
    Value::Numeric(Numeric::parse(text).expect("numeric"))
}

fn array(element: u32, elements: Vec<Value>) -> Value {
    Value::Array { element, elements }
}

const UUID: [u8; 16] =
    [0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];

#[test]
fn constants_as_the_server_held_them() {
    let text = |s: &str| Value::Text(s.into());
    let got = constants();
    let day = 19_782; // 2024-02-29
    let noon = i64::from(day) * 86_400_000_000 + 45_296_789_000; // 12:34:56.789
    let expected = [
        (0, Value::Bool(true)),
        (2, Value::Int4(1)),
        (3, Value::Int8(2_147_483_648)),
        (5, number("1.50")),
        (6, number("0.000")),
        (7, number("123456789012345678901234567890.123456789")),
        (8, Value::Numeric(Numeric::NaN)),
        (9, Value::Numeric(Numeric::Infinity)),
        (10, Value::Numeric(Numeric::NegInfinity)),
        (11, number("0.00001")),
        (12, text("text")),
        (14, text("héé")),
        (15, Value::Date(day)),
        (16, Value::Date(i32::MAX)),
        (17, Value::Timestamp(noon)),
        (18, Value::Timestamp(i64::MIN)),
        (19, Value::TimestampTz(noon)),
        (20, Value::Interval { months: 1, days: 2, micros: 11_045_600_000 }),
        (21, Value::Uuid(UUID)),
        (24, Value::Null),
        (25, Value::Bytea(vec![0xde, 0xad])),
        (26, array(oid::INT4, vec![Value::Int4(1), Value::Null, Value::Int4(3)])),
        (27, array(oid::INT8, vec![])),
        (28, array(oid::INT8, vec![Value::Int8(9), Value::Int8(-9)])),
        (29, array(oid::TEXT, vec![text("a"), Value::Null, text("bcd"), text("")])),
        (30, array(oid::VARCHAR, vec![text("x"), text("yy")])),
        (31, array(oid::NUMERIC, vec![number("1.5"), Value::Null, number("-2")])),
        (32, array(oid::UUID, vec![Value::Uuid(UUID)])),
        (
            33,
            array(
                oid::TIMESTAMPTZ,
                vec![Value::TimestampTz(1_704_067_200_000_000), Value::Null, Value::TimestampTz(i64::MAX)],
            ),
        ),
        (34, array(oid::INT2, (1..=4).map(Value::Int2).collect())),
        (35, array(oid::DATE, vec![Value::Date(19_723)])),
        (36, array(oid::BOOL, vec![Value::Bool(true), Value::Bool(false), Value::Null])),
        (38, Value::Xid8(5)),
    ];
    for (index, value) in expected {
        assert_eq!(got[index], value, "constant {index}");
    }
}

#[test]
fn jsonb_as_the_server_held_it() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trees/jsonb.tree");
    let text = std::fs::read_to_string(path).expect("captured");
    let query = crate::tree::parse(text.split_once('\n').expect("two parts").1, Limits::default()).expect("tree");
    let values: Vec<_> = query
        .targets
        .iter()
        .filter_map(|t| match &t.expr {
            Expr::Const(c) => Some(from_datum(c.type_oid, c.datum.as_deref()).expect("a value")),
            _ => None,
        })
        .collect();
    // What psql shows of the same statement.
    let shown = [
        r#"{"": false, "b": [1, 2.50, "x\"é\n\u0001", null, true, {"k": {}}], "n": -10000000000, "aa": []}"#,
        "1.0",
        r#""text""#,
        "null",
        r#"[[1], "2", []]"#,
        "{}",
    ];
    assert_eq!(values, shown.map(|text| Value::Jsonb(text.into())));
}

#[test]
fn uuids_print_in_lower_case() {
    assert_eq!(uuid_text(&UUID), "00112233-4455-6677-8899-aabbccddeeff");
}

#[test]
fn toasted_and_short_values_are_refused() {
    assert_eq!(from_datum(oid::TEXT, Some(&[0x01, 18, 0, 0])), Err(ValueError::Toasted(oid::TEXT)));
    assert_eq!(
        from_datum(oid::TEXT, Some(&[0x22, 0, 0, 0, 1, 2, 3, 4])),
        Err(ValueError::Toasted(oid::TEXT))
    );
    assert_eq!(from_datum(oid::INT8, Some(&[1, 2])), Err(ValueError::Length(oid::INT8, 2)));
    assert_eq!(from_datum(oid::JSONB, Some(&[20, 0, 0, 0, 1])), Err(ValueError::Malformed(oid::JSONB)));
    assert_eq!(from_datum(oid::TEXT, Some(&[7, b'a', b'b'])), Ok(Value::Text("ab".into())), "short header");
}

#[test]
fn numerics_compare_by_value() {
    let n = |t: &str| Numeric::parse(t).expect("numeric");
    let order = [
        "-Infinity",
        "-100.5",
        "-1.50",
        "-0.02",
        "0.000",
        "0.0199",
        "0.02",
        "1",
        "1.01",
        "99",
        "100",
        "Infinity",
        "NaN",
    ];
    for (i, a) in order.iter().enumerate() {
        for (j, b) in order.iter().enumerate() {
            assert_eq!(n(a).compare(&n(b)), i.cmp(&j), "{a} {b}");
        }
    }
    assert_eq!(n("1.0").compare(&n("1.000")), Ordering::Equal);
}

#[test]
fn rounding_down_to_a_scale() {
    let n = |t: &str, s| Numeric::parse(t).expect("numeric").floor_to(s);
    assert_eq!(n("1.25", 1), Some((12, false)));
    assert_eq!(n("-1.25", 1), Some((-13, false)));
    assert_eq!(n("-1.20", 1), Some((-12, true)));
    assert_eq!(n("1.2", 3), Some((1200, true)));
    assert_eq!(n("0.001", 2), Some((0, false)));
    assert_eq!(n("-0.001", 2), Some((-1, false)));
    assert_eq!(n("NaN", 2), None);
    assert_eq!(n("99999999999999999999999999999999999999", 1), None);
}

proptest! {
    #[test]
    fn numeric_text_round_trips(negative: bool, whole in "0|[1-9][0-9]{0,30}", fraction in "[0-9]{0,20}") {
        let zero = whole == "0" && fraction.bytes().all(|b| b == b'0');
        let text = format!("{}{whole}{}{fraction}", if negative && !zero { "-" } else { "" }, if fraction.is_empty() { "" } else { "." });
        prop_assert_eq!(Numeric::parse(&text).expect("numeric").to_string(), text);
    }

    #[test]
    fn garbage_is_no_value(kind in 0usize..18, bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let types = [16, 17, 20, 21, 23, 25, 700, 701, 1043, 1082, 1114, 1184, 1186, 1700, 2950, 3802, 1231, 3807];
        let _ = from_datum(types[kind], Some(&bytes));
        let _ = from_pg_binary(types[kind], Some(&bytes));
        for array in [1000, 1005, 1007, 1009, 1016, 1231, 2951] {
            let _ = from_datum(array, Some(&bytes));
            let _ = from_pg_binary(array, Some(&bytes));
            let mut whole = ((bytes.len() as u32 + 4) << 2).to_le_bytes().to_vec();
            whole.extend(&bytes);
            let _ = from_datum(array, Some(&whole));
        }
    }
}
