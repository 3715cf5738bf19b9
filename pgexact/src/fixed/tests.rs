use super::*;
use arrow::array::{Int32Array, StringViewArray};

fn decimals(values: &[Option<i128>], precision: u8, scale: i8) -> ArrayRef {
    Arc::new(
        Decimal128Array::from(values.to_vec()).with_precision_and_scale(precision, scale).expect("decimal"),
    )
}

fn shown(array: &ArrayRef) -> Vec<Option<String>> {
    let a = array.as_primitive::<Decimal128Type>();
    (0..a.len()).map(|i| (!a.is_null(i)).then(|| a.value_as_string(i))).collect()
}

fn some(texts: &[&str]) -> Vec<Option<String>> {
    texts.iter().map(|t| Some((*t).to_owned())).collect()
}

#[test]
fn arithmetic_has_postgres_scale() {
    let a = decimals(&[Some(150), Some(-725), None], 10, 2);
    let b = decimals(&[Some(5), Some(2), Some(1)], 5, 1);
    let add = binary(Op::Add, &a, &b, (12, 2)).expect("sum");
    assert_eq!(shown(&add), vec![Some("2.00".into()), Some("-7.05".into()), None]);
    let mul = binary(Op::Multiply, &a, &b, (15, 3)).expect("product");
    assert_eq!(shown(&mul)[..2], some(&["0.750", "-1.450"]));
    // select 1.50 % 0.5, -7.25 % 0.2
    let rem = binary(Op::Modulo, &a, &b, (10, 2)).expect("remainder");
    assert_eq!(shown(&rem)[..2], some(&["0.00", "-0.05"]));
    let zero = decimals(&[Some(0)], 5, 1);
    let one = decimals(&[Some(1)], 5, 1);
    assert_eq!(binary(Op::Modulo, &one, &zero, (5, 1)).expect_err("zero").sqlstate, "22012");
    let wide = decimals(&[Some(10i128.pow(37))], 38, 0);
    assert!(binary(Op::Multiply, &wide, &wide, (38, 0)).is_err());
}

#[test]
fn rounding_is_half_away_from_zero() {
    let a = decimals(&[Some(125), Some(-125), Some(124), Some(5), Some(-4), Some(9999)], 10, 2);
    assert_eq!(
        shown(&round(&a, 1, (10, 1)).expect("round")),
        some(&["1.3", "-1.3", "1.2", "0.1", "0.0", "100.0"])
    );
    assert_eq!(shown(&round(&a, -1, (12, 0)).expect("round"))[5..], some(&["100"]));
    assert_eq!(shown(&round(&a, 3, (12, 3)).expect("round"))[..1], some(&["1.250"]));
}

#[test]
fn casts_check_the_whole_digits() {
    let ints: ArrayRef = Arc::new(Int32Array::from(vec![Some(7), None, Some(-120)]));
    assert_eq!(
        shown(&cast(&ints, (5, 2)).expect("cast")),
        vec![Some("7.00".into()), None, Some("-120.00".into())]
    );
    assert_eq!(cast(&ints, (4, 2)).expect_err("overflow").sqlstate, "22003");
    let texts: ArrayRef = Arc::new(StringViewArray::from(vec!["3306.9366666666666667", "-0.005", "1"]));
    assert_eq!(shown(&cast(&texts, (6, 2)).expect("cast")), some(&["3306.94", "-0.01", "1.00"]));
    let nan: ArrayRef = Arc::new(StringViewArray::from(vec!["NaN"]));
    assert_eq!(cast(&nan, (6, 2)).expect_err("no decimal").sqlstate, "XX000");
}

#[test]
fn texts_round_as_postgres_rounds() {
    let cases = [
        ("1.2345", 2, "1.23"),
        ("1.235", 2, "1.24"),
        ("-1.235", 2, "-1.24"),
        ("0.004", 2, "0.00"),
        ("-0.004", 2, "0.00"),
        ("9.999", 2, "10.00"),
        ("99.5", 0, "100"),
        ("0.5", 0, "1"),
        ("0.4", 0, "0"),
        ("1234.5", -2, "1200"),
        ("1250", -2, "1300"),
        ("49", -2, "0"),
        ("50", -2, "100"),
        ("5", -3, "0"),
        ("3", 2, "3.00"),
        ("NaN", 2, "NaN"),
        ("66.6666666666666667", 2, "66.67"),
    ];
    for (text, digits, expected) in cases {
        assert_eq!(round_text(text, digits).expect("rounds"), expected, "round({text}, {digits})");
    }
}
