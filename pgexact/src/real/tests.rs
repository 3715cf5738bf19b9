//! Float arithmetic against PostgreSQL itself, to the last bit.

use super::*;
use crate::testpg::{Random, cluster};
use arrow::array::{Decimal128Array, StringViewArray};
use arrow::datatypes::TimestampMicrosecondType;

const TRY: &str = "CREATE FUNCTION pg_temp.attempt(q text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE r text; BEGIN EXECUTE q INTO r; RETURN 'is ' || coalesce(r, 'NULL');
EXCEPTION WHEN OTHERS THEN RETURN 'raises ' || SQLSTATE || ' ' || SQLERRM; END $$;";

fn postgres(expressions: &[String]) -> Vec<String> {
    let values: Vec<String> = expressions
        .iter()
        .enumerate()
        .map(|(n, e)| format!("({n}, '{}')", format!("SELECT ({e})::text").replace('\'', "''")))
        .collect();
    let query = format!("SELECT pg_temp.attempt(q) FROM (VALUES {}) v(n, q) ORDER BY n", values.join(", "));
    cluster().copy_text(&[], TRY, &query).into_iter().map(|mut r| r.remove(0).expect("a text")).collect()
}

fn shown(result: Result<ArrayRef, PgError>) -> Option<String> {
    match result {
        Ok(array) => Some(match array.data_type() {
            DataType::Float64 => {
                let mut out = bytes::BytesMut::new();
                crate::float::write_f64(array.as_primitive::<Float64Type>().value(0), &mut out);
                format!("is {}", String::from_utf8_lossy(&out))
            }
            DataType::Timestamp(..) => {
                format!("is {}", array.as_primitive::<TimestampMicrosecondType>().value(0))
            }
            _ => {
                let text = crate::cast::to_text(&array, &crate::Zone::utc()).expect("a text");
                format!("is {}", text.as_string_view().value(0))
            }
        }),
        Err(e) if e.is_not_exact() => None,
        Err(e) => Some(format!("raises {} {}", e.sqlstate, e.message)),
    }
}

fn float(random: &mut Random) -> f64 {
    match random.below(12) {
        0 => 0.0,
        1 => -0.0,
        2 => f64::INFINITY,
        3 => 1e300 * random.within(-9, 9) as f64,
        4 => 1e-200 * random.within(-9, 9) as f64,
        5 => f64::MIN_POSITIVE,
        6 => random.within(-50, 50) as f64 / 2.0,
        7 => random.within(-5_000_000_000, 5_000_000_000) as f64 + 0.5,
        8 => 9_223_372_036_854_775_807i64 as f64,
        _ => random.within(-1_000_000_000_000, 1_000_000_000_000) as f64 / 997.0,
    }
}

#[test]
fn floats_are_postgres() {
    let mut random = Random(0x5eed_0060);
    let one = |v: f64| -> ArrayRef { Arc::new(Float64Array::from(vec![v])) };
    let literal = |v: f64| {
        let text = if v.is_infinite() { "Infinity".to_owned() } else { format!("{v:e}") };
        format!("'{text}'::float8")
    };
    let (mut expressions, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..500 {
        let (a, b) = (float(&mut random), float(&mut random));
        for (op, symbol) in [
            (BinaryOp::Add, "+"),
            (BinaryOp::Subtract, "-"),
            (BinaryOp::Multiply, "*"),
            (BinaryOp::Divide, "/"),
        ] {
            expressions.push(format!("{} {symbol} {}", literal(a), literal(b)));
            ours.push(shown(binary(op, &one(a), &one(b))));
        }
        for (function, name) in [
            (Unary::Negate, "-"),
            (Unary::Abs, "abs"),
            (Unary::Floor, "floor"),
            (Unary::Ceil, "ceil"),
            (Unary::Trunc, "trunc"),
            (Unary::Round, "round"),
        ] {
            expressions.push(format!("{name}({})", literal(a)));
            ours.push(shown(unary(function, &one(a))));
        }
        for (name, returns) in
            [("int2", DataType::Int16), ("int4", DataType::Int32), ("int8", DataType::Int64)]
        {
            expressions.push(format!("{}::{name}", literal(a)));
            ours.push(shown(to_int(&one(a), &returns)));
        }
        let (integer, mantissa) =
            (random.within(i64::MIN, i64::MAX), i128::from(random.within(i64::MIN, i64::MAX)));
        expressions.push(format!("'{integer}'::int8::float8"));
        ours.push(shown(from_number(&arrow::array::Int64Array::from(vec![integer]))));
        let scale = random.below(20) as i8;
        let decimal =
            Decimal128Array::from(vec![mantissa]).with_precision_and_scale(38, scale).expect("fits");
        expressions
            .push(format!("{}::numeric::float8", crate::numeric::Decimal::from_i128(mantissa, scale as u16)));
        ours.push(shown(from_number(&decimal)));
        let seconds =
            random.within(-60_000_000_000, 60_000_000_000) as f64 + random.below(1_000_000) as f64 / 1e6;
        expressions.push(format!("(extract(epoch FROM to_timestamp({})) * 1000000)::int8", literal(seconds)));
        ours.push(shown(to_timestamp(&one(seconds))));
    }
    let wanted = postgres(&expressions);
    let mut refused = 0;
    for ((expression, ours), want) in expressions.iter().zip(ours).zip(wanted) {
        match ours {
            Some(ours) => assert_eq!(ours, want, "{expression}"),
            None => refused += 1,
        }
    }
    assert!(refused * 10 < expressions.len(), "{refused} of {}", expressions.len());
}

#[test]
fn what_is_no_number_is_refused() {
    let nan = Float64Array::from(vec![f64::NAN]);
    assert!(unary(Unary::Abs, &nan).expect_err("NaN").is_not_exact());
    assert!(binary(BinaryOp::Add, &nan, &nan).expect_err("NaN").is_not_exact());
    let far = StringViewArray::from(vec!["1".to_owned() + &"0".repeat(400)]);
    assert!(from_number(&far).expect_err("too large").is_not_exact());
    assert!(to_int(&nan, &DataType::Int32).is_err());
}
