//! Every function against PostgreSQL itself, row by row: values and errors.

use super::*;
use crate::testpg::{Random, cluster, escaped};
use arrow::array::{
    AsArray, BooleanArray, Int16Array, Int32Array, Int64Array, StringViewArray, new_null_array,
};
use arrow::datatypes::{Int16Type, Int32Type, Int64Type};
use std::sync::Arc;

#[derive(Debug, Clone)]
enum Arg {
    Text(Option<String>),
    Int2(Option<i64>),
    Int4(Option<i64>),
    Int8(Option<i64>),
    Bool(Option<bool>),
}

impl Arg {
    fn sql(&self) -> String {
        let quoted = |t: &str| format!("U&'{}'", escaped(t));
        match self {
            Arg::Text(t) => format!("{}::text", t.as_deref().map_or("NULL".into(), quoted)),
            Arg::Int2(n) => format!("{}::int2", n.map_or("NULL".into(), |n| format!("'{n}'"))),
            Arg::Int4(n) => format!("{}::int4", n.map_or("NULL".into(), |n| format!("'{n}'"))),
            Arg::Int8(n) => format!("{}::int8", n.map_or("NULL".into(), |n| format!("'{n}'"))),
            Arg::Bool(b) => format!("{}::bool", b.map_or("NULL".into(), |b| format!("'{b}'"))),
        }
    }

    fn array(&self) -> ArrayRef {
        match self {
            Arg::Text(t) => Arc::new(StringViewArray::from_iter([t.as_deref()])),
            Arg::Int2(n) => Arc::new(Int16Array::from_iter([n.map(|n| n as i16)])),
            Arg::Int4(n) => Arc::new(Int32Array::from_iter([n.map(|n| n as i32)])),
            Arg::Int8(n) => Arc::new(Int64Array::from_iter([*n])),
            Arg::Bool(b) => Arc::new(BooleanArray::from_iter([*b])),
        }
    }
}

/// A function that gives an expression's text, or its error.
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
    let rows = cluster().copy_text(&[], TRY, &query);
    rows.into_iter().map(|mut r| r.remove(0).expect("a text")).collect()
}

fn shown(result: Result<ArrayRef, PgError>) -> Option<String> {
    let array = match result {
        Ok(array) => array,
        Err(e) if e.is_not_exact() => return None,
        Err(e) => return Some(format!("raises {} {}", e.sqlstate, e.message)),
    };
    let text = match array.data_type() {
        _ if array.is_null(0) => "NULL".into(),
        DataType::Boolean => array.as_boolean().value(0).to_string(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(0).to_string(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(0).to_string(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(0).to_string(),
        _ => array.as_string_view().value(0).to_owned(),
    };
    Some(format!("is {text}"))
}

/// Rows of arguments, with the expression over `$1`, `$2` ...; gives how many rows were refused.
fn check(function: Scalar, expression: &str, returns: &DataType, rows: &[Vec<Arg>]) -> usize {
    let expressions: Vec<String> = rows
        .iter()
        .map(|row| {
            // From the last: $1 stands in $10 otherwise. Texts hold no dollars.
            row.iter()
                .enumerate()
                .rev()
                .fold(expression.to_owned(), |e, (n, arg)| e.replace(&format!("${}", n + 1), &arg.sql()))
        })
        .collect();
    let mut refused = 0;
    for ((row, sql), want) in rows.iter().zip(&expressions).zip(postgres(&expressions)) {
        let arrays: Vec<ArrayRef> = row.iter().map(Arg::array).collect();
        match shown(compute(function, &arrays, returns)) {
            Some(got) => assert_eq!(got, want, "{sql}"),
            None => refused += 1,
        }
    }
    refused
}

const TEXTS: &[&str] = &[
    "",
    "a",
    "ab",
    "abc",
    "aaa",
    "  x  ",
    "a,b,,c",
    ",",
    ",,",
    "héllo wörld",
    "日本語",
    "🙂a🙂",
    "xyxxyx",
    "a\tb\nc",
    "ABCdef",
    "The Quick",
    "l'œuvre",
    "a\\b",
    "%_",
    "äÄöÖ",
    "0123456789012345678901234567890123456789012345678901234567890123456789",
];

fn text(random: &mut Random) -> Arg {
    if random.below(20) == 0 {
        return Arg::Text(None);
    }
    let mut out = (*random.pick::<&str>(TEXTS)).to_owned();
    if random.below(3) == 0 {
        out.push_str(random.pick::<&str>(TEXTS));
    }
    Arg::Text(Some(out))
}

fn number(random: &mut Random) -> Arg {
    Arg::Int4(match random.below(12) {
        0 => None,
        1 => Some(i64::from(i32::MAX)),
        2 => Some(i64::from(i32::MIN)),
        3 => Some(i64::from(i32::MAX) - 2),
        _ => Some(random.within(-9, 12)),
    })
}

fn small(random: &mut Random) -> Arg {
    Arg::Int4(Some(random.within(-5, 40)))
}

#[test]
fn strings_are_postgres() {
    use Scalar::*;
    let mut random = Random(0x5eed_0001);
    let (int4, view, boolean) = (DataType::Int32, DataType::Utf8View, DataType::Boolean);
    type Make = fn(&mut Random) -> Arg;
    let cases: &[(Scalar, &str, &DataType, &[Make])] = &[
        (OctetLength, "octet_length($1)", &int4, &[text]),
        (BitLength, "bit_length($1)", &int4, &[text]),
        (Ascii, "ascii($1)", &int4, &[text]),
        (Left, "left($1, $2)", &view, &[text, number]),
        (Right, "right($1, $2)", &view, &[text, number]),
        (Substr, "substr($1, $2)", &view, &[text, number]),
        (Substr, "substring($1, $2, $3)", &view, &[text, number, number]),
        (Position, "position($2 in $1)", &int4, &[text, text]),
        (BTrim, "btrim($1)", &view, &[text]),
        (BTrim, "btrim($1, $2)", &view, &[text, text]),
        (LTrim, "ltrim($1, $2)", &view, &[text, text]),
        (RTrim, "rtrim($1, $2)", &view, &[text, text]),
        (LPad, "lpad($1, $2)", &view, &[text, small]),
        (LPad, "lpad($1, $2, $3)", &view, &[text, small, text]),
        (RPad, "rpad($1, $2, $3)", &view, &[text, small, text]),
        (Repeat, "repeat($1, $2)", &view, &[text, small]),
        (Reverse, "reverse($1)", &view, &[text]),
        (Replace, "replace($1, $2, $3)", &view, &[text, text, text]),
        (Translate, "translate($1, $2, $3)", &view, &[text, text, text]),
        (SplitPart, "split_part($1, $2, $3)", &view, &[text, text, number]),
        (StartsWith, "starts_with($1, $2)", &boolean, &[text, text]),
        (Md5, "md5($1)", &view, &[text]),
        (LowerC, "lower($1 COLLATE \"C\")", &view, &[text]),
        (UpperC, "upper($1 COLLATE \"C\")", &view, &[text]),
        (Concat, "concat($1, $2, $3)", &view, &[text, text, text]),
        (ConcatWs, "concat_ws($1, $2, $3, $4)", &view, &[text, text, text, text]),
    ];
    for (function, expression, returns, make) in cases {
        let rows: Vec<Vec<Arg>> = (0..250).map(|_| make.iter().map(|m| m(&mut random)).collect()).collect();
        let refused = check(*function, expression, returns, &rows);
        assert!(refused < 60, "{expression}: {refused} refused");
    }
}

#[test]
fn case_beyond_ascii_is_refused() {
    let mut random = Random(0x5eed_0002);
    for (function, expression) in [(Scalar::LowerAscii, "lower($1)"), (Scalar::UpperAscii, "upper($1)")] {
        let rows: Vec<Vec<Arg>> = (0..250).map(|_| vec![text(&mut random)]).collect();
        let refused = check(function, expression, &DataType::Utf8View, &rows);
        assert!((20..200).contains(&refused), "{expression}: {refused}");
    }
}

#[test]
fn digests_of_every_length() {
    let rows: Vec<Vec<Arg>> =
        (0..200).map(|n| vec![Arg::Text(Some("xé".repeat(n)[..].chars().take(n).collect()))]).collect();
    assert_eq!(check(Scalar::Md5, "md5($1)", &DataType::Utf8View, &rows), 0);
}

#[test]
fn bits_are_postgres() {
    use Scalar::*;
    let mut random = Random(0x5eed_0003);
    let value = |random: &mut Random, bits: u32| -> i64 {
        let (low, high) = (-1i64 << (bits - 1), (1i64 << (bits - 1)).wrapping_sub(1));
        match random.below(6) {
            0 => low,
            1 => high,
            2 => random.within(-3, 3),
            _ => random.within(low, high),
        }
    };
    type Wrap = fn(Option<i64>) -> Arg;
    let widths: [(u32, Wrap, DataType); 3] = [
        (16, Arg::Int2, DataType::Int16),
        (32, Arg::Int4, DataType::Int32),
        (64, Arg::Int8, DataType::Int64),
    ];
    for (bits, wrap, returns) in widths {
        for (function, expression) in
            [(BitAnd, "$1 & $2"), (BitOr, "$1 | $2"), (BitXor, "$1 # $2"), (BitNot, "~ $1")]
        {
            let rows: Vec<Vec<Arg>> = (0..100)
                .map(|_| {
                    vec![
                        wrap(Some(value(&mut random, bits))),
                        wrap((random.below(9) > 0).then(|| value(&mut random, bits))),
                    ]
                })
                .map(|mut row| {
                    row.truncate(if function == BitNot { 1 } else { 2 });
                    row
                })
                .collect();
            assert_eq!(check(function, expression, &returns, &rows), 0);
        }
        for (function, expression) in [(ShiftLeft, "$1 << $2"), (ShiftRight, "$1 >> $2")] {
            let rows: Vec<Vec<Arg>> = (0..150)
                .map(|_| vec![wrap(Some(value(&mut random, bits))), Arg::Int4(Some(random.within(-2, 66)))])
                .collect();
            assert!(check(function, expression, &returns, &rows) < 100);
        }
    }
    for value in [Some(true), Some(false), None] {
        let row = [vec![Arg::Bool(value)]];
        check(BoolText, "$1::text", &DataType::Utf8View, &row);
        check(BoolInt, "$1::int", &DataType::Int32, &row);
    }
    let rows: Vec<Vec<Arg>> = [0, 1, -1, 7].into_iter().map(|n| vec![Arg::Int4(Some(n))]).collect();
    check(IntBool, "$1::bool", &DataType::Boolean, &rows);
}

#[test]
fn too_much_text_is_refused() {
    let long: ArrayRef = Arc::new(StringViewArray::from(vec!["x".repeat(1 << 20)]));
    let many: ArrayRef = Arc::new(Int32Array::from(vec![1000]));
    let e =
        compute(Scalar::Repeat, &[long.clone(), many.clone()], &DataType::Utf8View).expect_err("too long");
    assert!(e.is_not_exact());
    let e = compute(Scalar::LPad, &[long, Arc::new(Int32Array::from(vec![i32::MAX]))], &DataType::Utf8View);
    assert!(e.expect_err("too long").is_not_exact());
    let nothing = new_null_array(&DataType::Binary, 1);
    assert!(
        compute(Scalar::Left, &[nothing, many], &DataType::Utf8View).expect_err("no text").is_not_exact()
    );
}
