use arrow::array::{Int16Array, Int32Array, Int64Array};

use super::*;
use crate::testpg::{Random, cluster};

const OPS: &[(BinaryOp, &str)] = &[
    (BinaryOp::Add, "+"),
    (BinaryOp::Subtract, "-"),
    (BinaryOp::Multiply, "*"),
    (BinaryOp::Divide, "/"),
    (BinaryOp::Modulo, "%"),
];

/// Values near the limits of a width and random ones of every size.
fn values(low: i64, high: i64, random: &mut Random) -> Vec<i64> {
    let mut out = vec![low, low + 1, -2, -1, 0, 1, 2, high - 1, high];
    out.extend((0..9).map(|_| random.within(low, high)));
    out.extend((0..9).map(|_| random.within(low, high) >> random.below(48)));
    out
}

fn show(result: Result<ArrayRef, PgError>) -> String {
    match result {
        Err(e) => format!("{} {}", e.sqlstate, e.message),
        Ok(a) => match a.data_type() {
            DataType::Int16 => a.as_primitive::<Int16Type>().value(0).to_string(),
            DataType::Int32 => a.as_primitive::<Int32Type>().value(0).to_string(),
            _ => a.as_primitive::<Int64Type>().value(0).to_string(),
        },
    }
}

fn one(width: u32, v: i64) -> ArrayRef {
    match width {
        2 => Arc::new(Int16Array::from(vec![v as i16])),
        4 => Arc::new(Int32Array::from(vec![v as i32])),
        _ => Arc::new(Int64Array::from(vec![v])),
    }
}

#[test]
fn operators_equal_postgres() {
    cluster().run(
        &[],
        "CREATE OR REPLACE FUNCTION try_expr(e text) RETURNS text LANGUAGE plpgsql AS $$
        DECLARE r text; BEGIN EXECUTE 'SELECT ' || e INTO r; RETURN r;
        EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE || ' ' || SQLERRM; END $$;",
    );
    let mut random = Random(51);
    let (mut exprs, mut ours) = (Vec::new(), Vec::new());
    for (width, low, high) in [
        (2, i16::MIN.into(), i16::MAX.into()),
        (4, i32::MIN.into(), i32::MAX.into()),
        (8, i64::MIN, i64::MAX),
    ] {
        let values = values(low, high, &mut random);
        for &a in &values {
            for &b in &values {
                for (op, sign) in OPS {
                    exprs.push(format!("(''{a}''::int{width}) {sign} (''{b}''::int{width})"));
                    ours.push(show(binary(*op, &one(width, a), &one(width, b))));
                }
            }
            for (op, call) in [(UnaryOp::Negate, "- "), (UnaryOp::Abs, "abs")] {
                exprs.push(format!("{call}(''{a}''::int{width})"));
                ours.push(show(unary(op, &one(width, a))));
            }
            for to in [2, 4, 8] {
                exprs.push(format!("(''{a}''::int{width})::int{to}"));
                ours.push(show(cast(&one(width, a), one(to, 0).data_type())));
            }
        }
    }
    let rows: Vec<String> = exprs.iter().enumerate().map(|(i, e)| format!("({i}, '{e}')")).collect();
    let theirs = cluster()
        .run(&[], &format!("SELECT try_expr(e) FROM (VALUES {}) v(n, e) ORDER BY n;", rows.join(",\n")));
    let theirs: Vec<&str> = theirs.lines().collect();
    assert_eq!(theirs.len(), ours.len());
    for ((expr, ours), theirs) in exprs.iter().zip(ours).zip(theirs) {
        assert_eq!(ours, theirs, "{expr}");
    }
}

#[test]
fn nulls_never_raise() {
    let a = Int32Array::from(vec![Some(i32::MAX), None, Some(7)]);
    let b = Int32Array::from(vec![None, Some(0), Some(2)]);
    let out = binary(BinaryOp::Divide, &a, &b).unwrap();
    assert_eq!(out.as_primitive::<Int32Type>().iter().collect::<Vec<_>>(), [None, None, Some(3)]);
    // What stands behind a NULL does not count.
    let hidden = Int32Array::new(vec![i32::MIN, 3].into(), Some(vec![false, true].into()));
    let out = unary(UnaryOp::Negate, &hidden).unwrap();
    assert_eq!(out.as_primitive::<Int32Type>().iter().collect::<Vec<_>>(), [None, Some(-3)]);
}

#[test]
fn constants_spread_over_rows() {
    let a = Int64Array::from(vec![Some(10), None, Some(-7)]);
    let two = Int64Array::from(vec![2]);
    let none = Int64Array::from(vec![None]);
    let values =
        |r: Result<ArrayRef, PgError>| r.unwrap().as_primitive::<Int64Type>().iter().collect::<Vec<_>>();
    assert_eq!(values(binary(BinaryOp::Modulo, &a, &two)), [Some(0), None, Some(-1)]);
    assert_eq!(values(binary(BinaryOp::Subtract, &two, &a)), [Some(-8), None, Some(9)]);
    assert_eq!(values(binary(BinaryOp::Add, &a, &none)), [None, None, None]);
    assert_eq!(values(binary(BinaryOp::Add, &none, &a)), [None, None, None]);
    assert!(binary(BinaryOp::Add, &a, &Int64Array::from(vec![1, 2])).is_err());
    assert_eq!(binary(BinaryOp::Add, &a, &Int32Array::from(vec![1])).unwrap_err().sqlstate, "XX000");
}
