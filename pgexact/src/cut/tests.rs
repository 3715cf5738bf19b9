//! Cuts, quotients and casts against PostgreSQL itself.

use super::*;
use crate::testpg::{Random, cluster};
use arrow::array::{AsArray, Decimal128Array, StringViewArray};

const TRY: &str = "CREATE FUNCTION pg_temp.attempt(q text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE r text; BEGIN EXECUTE q INTO r; RETURN 'is ' || coalesce(r, 'NULL');
EXCEPTION WHEN OTHERS THEN RETURN 'raises ' || SQLSTATE || ' ' || SQLERRM; END $$;";

fn postgres(expressions: &[String]) -> Vec<String> {
    let values: Vec<String> =
        expressions.iter().enumerate().map(|(n, e)| format!("({n}, 'SELECT ({e})::text')")).collect();
    let query = format!("SELECT pg_temp.attempt(q) FROM (VALUES {}) v(n, q) ORDER BY n", values.join(", "));
    cluster().copy_text(&[], TRY, &query).into_iter().map(|mut r| r.remove(0).expect("a text")).collect()
}

fn shown(result: Result<ArrayRef, PgError>) -> Option<String> {
    match result {
        Ok(array) => {
            let text = crate::cast::to_text(&array, &crate::Zone::utc()).expect("a text");
            Some(format!("is {}", text.as_string_view().value(0)))
        }
        Err(e) if e.is_not_exact() => None,
        Err(e) => Some(format!("raises {} {}", e.sqlstate, e.message)),
    }
}

/// A mantissa and a scale, often near a boundary of digits.
fn number(random: &mut Random) -> (i128, i8) {
    let scale = random.below(11) as i8;
    let value = match random.below(6) {
        0 => i128::from(random.within(-20, 20)) * 10i128.pow(random.below(10) as u32),
        1 => 10i128.pow(random.below(20) as u32) * 5 * if random.below(2) == 0 { 1 } else { -1 },
        2 => 10i128.pow(random.below(20) as u32) - 1,
        3 => i128::from(random.within(i64::MIN, i64::MAX)) * 7919,
        _ => i128::from(random.within(-10_000_000_000, 10_000_000_000)),
    };
    (value, scale)
}

fn literal((value, scale): (i128, i8)) -> String {
    format!("({}::numeric)", crate::numeric::Decimal::from_i128(value, scale as u16))
}

fn decimal((value, scale): (i128, i8)) -> ArrayRef {
    Arc::new(Decimal128Array::from(vec![value]).with_precision_and_scale(38, scale).expect("fits"))
}

#[test]
fn cuts_are_postgres() {
    let mut random = Random(0x5eed_0050);
    let mut expressions = Vec::new();
    let mut ours = Vec::new();
    for _ in 0..500 {
        let (a, b) = (number(&mut random), number(&mut random));
        let digits = random.within(-3, 8) as i32;
        let to = |digits: i32| DataType::Decimal128(38, digits.max(0) as i8);
        let text: ArrayRef = Arc::new(StringViewArray::from(vec![
            crate::numeric::Decimal::from_i128(a.0, a.1 as u16).to_string(),
        ]));
        for array in [decimal(a), text] {
            for (function, kind) in
                [("floor", Cut::Floor), ("ceil", Cut::Ceil), ("trunc", Cut::Trunc), ("round", Cut::Round)]
            {
                expressions.push(format!("{function}({})", literal(a)));
                ours.push(shown(cut(kind, &array, 0, &to(0))));
            }
            for (function, kind) in [("trunc", Cut::Trunc), ("round", Cut::Round)] {
                expressions.push(format!("{function}({}, {digits})", literal(a)));
                ours.push(shown(cut(kind, &array, digits, &to(digits))));
            }
            for (name, returns) in
                [("int2", DataType::Int16), ("int4", DataType::Int32), ("int8", DataType::Int64)]
            {
                expressions.push(format!("{}::{name}", literal(a)));
                ours.push(shown(to_int(&array, &returns)));
            }
            expressions.push(format!("sign({})", literal(a)));
            ours.push(shown(sign(&array, &to(0))));
        }
        for (function, kind) in
            [("floor", Cut::Floor), ("ceil", Cut::Ceil), ("trunc", Cut::Trunc), ("round", Cut::Round)]
        {
            let whole = matches!(kind, Cut::Floor | Cut::Ceil);
            let more = if whole { String::new() } else { format!(", {digits}") };
            expressions.push(format!("{function}({} / {}{more})", literal(a), literal(b)));
            let digits = if whole { 0 } else { digits };
            ours.push(shown(cut_quotient(kind, &decimal(a), &decimal(b), digits, &to(digits))));
        }
    }
    let wanted = postgres(&expressions);
    let mut refused = 0;
    for ((expression, ours), want) in expressions.iter().zip(ours).zip(wanted) {
        match ours {
            Some(ours) => assert_eq!(ours, want, "{expression}"),
            None => refused += 1,
        }
    }
    assert!(refused * 5 < expressions.len(), "{refused} of {}", expressions.len());
}

#[test]
fn special_values_are_refused() {
    for text in ["NaN", "Infinity", "-Infinity", "", "-", "1.5x", "+1"] {
        let array = StringViewArray::from(vec![text]);
        let e = cut(Cut::Floor, &array, 0, &DataType::Decimal128(38, 0)).expect_err(text);
        assert!(e.is_not_exact());
    }
}
