use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Int32Array, Int64Array, StringArray, StringViewArray,
};
use arrow::datatypes::{Decimal256Type, i256};
use proptest::prelude::*;

use super::*;
use crate::testpg::{Random, cluster, take};

/// Decimal texts with many lengths and scales, among them powers of ten and their neighbours.
fn texts(random: &mut Random, count: usize, digits: u64, scale: u64) -> Vec<String> {
    (0..count)
        .map(|_| {
            let length = 1 + random.below(digits) as usize;
            let mut ascii: Vec<u8> = match random.below(4) {
                0 => {
                    let mut power = vec![b'0'; length];
                    power[0] = b'1' + random.below(9) as u8;
                    power
                }
                1 => vec![b'9'; length],
                _ => (0..length).map(|_| b'0' + random.below(10) as u8).collect(),
            };
            if random.below(20) == 0 {
                ascii.fill(b'0');
            }
            let scale = random.below(scale + 1) as usize;
            let d = Decimal::from_parts(random.below(2) == 0, &ascii, scale);
            d.to_string()
        })
        .collect()
}

/// Mantissa and scale of a text that fits 38 digits.
fn mantissa(text: &str) -> (i128, u8) {
    let scale = text.split_once('.').map_or(0, |(_, f)| f.len());
    (text.replace('.', "").parse().unwrap(), scale as u8)
}

fn ask(columns: &str, rows: &[Vec<String>], query: &str) -> Vec<Vec<Option<String>>> {
    let file = cluster().file(rows.iter().map(|r| r.join("\t") + "\n").collect::<String>().as_bytes());
    let prelude = format!(
        "CREATE TEMP TABLE t (n serial, {columns});\n\\copy t ({}) FROM '{}'",
        columns.split(',').map(|c| c.trim().split(' ').next().unwrap()).collect::<Vec<_>>().join(","),
        file.display()
    );
    let out = cluster().copy_text(&[], &prelude, query);
    take(&file);
    out
}

#[test]
fn division_equals_postgres() {
    let mut random = Random(21);
    let a = texts(&mut random, 20_000, 38, 20);
    let b = texts(&mut random, 20_000, 38, 20);
    let rows: Vec<_> = a.iter().zip(&b).map(|(a, b)| vec![a.clone(), b.clone()]).collect();
    let theirs =
        ask("a numeric, b numeric", &rows, "SELECT CASE WHEN b <> 0 THEN a / b END FROM t ORDER BY n");
    assert_eq!(theirs.len(), rows.len());
    for (row, theirs) in rows.iter().zip(theirs) {
        let ((a, sa), (b, sb)) = (mantissa(&row[0]), mantissa(&row[1]));
        let ours = divide_text(i256::from_i128(a), sa, i256::from_i128(b), sb);
        match &theirs[0] {
            None => assert_eq!(ours, Err(PgError::division_by_zero())),
            Some(theirs) => {
                assert_eq!(ours.as_ref(), Ok(theirs), "{row:?}");
                // The long way must agree with the short one.
                let long =
                    Decimal::from_i128(a, sa.into()).divide(&Decimal::from_i128(b, sb.into())).unwrap();
                assert_eq!(long.to_string(), *theirs, "{row:?}");
            }
        }
    }
}

#[test]
fn division_of_wide_values_equals_postgres() {
    let mut random = Random(22);
    let a = texts(&mut random, 5_000, 300, 120);
    let b = texts(&mut random, 5_000, 200, 120);
    let rows: Vec<_> = a
        .iter()
        .zip(&b)
        .filter(|(_, b)| b.contains(['1', '2', '3', '4', '5', '6', '7', '8', '9']))
        .map(|(a, b)| vec![a.clone(), b.clone()])
        .collect();
    let theirs = ask("a numeric, b numeric", &rows, "SELECT a / b FROM t ORDER BY n");
    for (row, theirs) in rows.iter().zip(theirs) {
        let (Numeric::Finite(a), Numeric::Finite(b)) = (row[0].parse().unwrap(), row[1].parse().unwrap())
        else {
            panic!("finite")
        };
        assert_eq!(Some(a.divide(&b).unwrap().to_string()), theirs[0], "{row:?}");
    }
}

#[test]
fn averages_equal_postgres() {
    let mut random = Random(23);
    let mut rows = Vec::new();
    for group in 0..600u64 {
        for _ in 0..1 + random.below(12) {
            let bits = 1 + random.below(62);
            let n = random.within(-(1 << bits), 1 << bits);
            rows.push(vec![group.to_string(), n.to_string(), Decimal::from_i128(n.into(), 4).to_string()]);
        }
    }
    let theirs = ask(
        "g int, i int8, d numeric",
        &rows,
        "SELECT g, sum(i), count(i), avg(i), avg(d), sum(d) FROM t GROUP BY g ORDER BY g",
    );
    let text = |t: &Option<String>| t.clone().unwrap();
    let sums: ArrayRef = Arc::new(
        Decimal128Array::from_iter_values(theirs.iter().map(|r| text(&r[1]).parse::<i128>().unwrap()))
            .with_precision_and_scale(38, 0)
            .unwrap(),
    );
    let decimals: ArrayRef = Arc::new(
        Decimal128Array::from_iter_values(theirs.iter().map(|r| mantissa(&text(&r[5])).0))
            .with_precision_and_scale(38, 4)
            .unwrap(),
    );
    let counts = Int64Array::from_iter_values(theirs.iter().map(|r| text(&r[2]).parse::<i64>().unwrap()));
    let (of_ints, of_decimals) = (average(&sums, &counts).unwrap(), average(&decimals, &counts).unwrap());
    for (i, row) in theirs.iter().enumerate() {
        assert_eq!(of_ints.as_string_view().value(i), text(&row[3]));
        assert_eq!(of_decimals.as_string_view().value(i), text(&row[4]));
    }
    let none = average(&Int64Array::from(vec![Some(1), None]), &Int64Array::from(vec![0, 3])).unwrap();
    assert_eq!(none.null_count(), 2);
}

#[test]
fn order_equals_postgres() {
    let mut random = Random(24);
    let mut values = texts(&mut random, 3_000, 40, 30);
    values.extend(
        ["NaN", "Infinity", "-Infinity", "0", "0.000", "-1", "1", "1.0", "1.00", "10", "0.1", "-0.1"]
            .map(String::from),
    );
    let rows: Vec<_> = values.iter().map(|v| vec![v.clone()]).collect();
    let theirs = ask("a numeric", &rows, "SELECT a, dense_rank() OVER (ORDER BY a) FROM t ORDER BY a, n");
    let sorted: StringArray = theirs.iter().map(|r| r[0].clone()).collect();
    let keys = sort_keys(&sorted).unwrap();
    let keys = keys.as_binary::<i32>();
    for i in 1..theirs.len() {
        let same = theirs[i - 1][1] == theirs[i][1];
        assert_eq!(keys.value(i - 1) == keys.value(i), same, "{:?} {:?}", theirs[i - 1], theirs[i]);
        assert!(keys.value(i - 1) <= keys.value(i), "{:?} {:?}", theirs[i - 1], theirs[i]);
        let (a, b): (Numeric, Numeric) =
            (sorted.value(i - 1).parse().unwrap(), sorted.value(i).parse().unwrap());
        assert_eq!(a.cmp(&b), if same { Ordering::Equal } else { Ordering::Less });
    }
}

#[test]
fn comparisons_of_any_representation() {
    let texts: ArrayRef = Arc::new(StringViewArray::from(vec![Some("2.50"), Some("NaN"), None, Some("-3")]));
    let ints = Int32Array::from(vec![2, 7, 7, -3]);
    assert_eq!(
        compare(Comparison::Gt, &texts, &ints).unwrap().iter().collect::<Vec<_>>(),
        [Some(true), Some(true), None, Some(false)]
    );
    let constant = Decimal128Array::from_iter_values([25]).with_precision_and_scale(3, 1).unwrap();
    assert_eq!(
        compare(Comparison::Eq, &texts, &constant).unwrap().iter().collect::<Vec<_>>(),
        [Some(true), Some(false), None, Some(false)]
    );
    assert!(compare(Comparison::Eq, &texts, &Int32Array::from(vec![1, 2])).is_err());
}

#[test]
fn decimal256_is_exact_or_refused() {
    let texts = StringArray::from(vec![Some("-12.3400"), None, Some("0.00000")]);
    let decimals = to_decimal256(&texts, 2).unwrap();
    let decimals = decimals.as_primitive::<Decimal256Type>();
    assert_eq!(
        (decimals.value(0), decimals.is_null(1), decimals.value(2)),
        (i256::from_i128(-1234), true, i256::ZERO)
    );
    for bad in ["0.001", "NaN", "Infinity", &"9".repeat(75)] {
        assert!(to_decimal256(&StringArray::from(vec![bad]), 2).is_err(), "{bad}");
    }
    let widest = "9".repeat(36) + "." + &"9".repeat(40);
    let out = to_decimal256(&StringArray::from(vec![widest.as_str()]), 40).unwrap();
    assert_eq!(out.as_primitive::<Decimal256Type>().value(0).to_string(), "9".repeat(76));
}

#[test]
fn only_postgres_texts_are_read() {
    for bad in ["", "-", ".5", "5.", "1e5", " 1", "+1", "nan", "inf", "--1", "1.2.3", "١"] {
        assert_eq!(bad.parse::<Numeric>().unwrap_err().sqlstate, "22P02", "{bad}");
    }
}

#[test]
fn malformed_wire_values_are_refused() {
    for bad in [
        &[][..],
        &[0; 7],
        &[0, 1, 0, 0, 0, 0, 0, 0],
        &[0, 0, 0, 0, 0x12, 0, 0, 0],
        &[0, 1, 0, 0, 0, 0, 0, 0, 0x27, 0x10],
        &[0, 0, 0, 0, 0, 0, 0x7f, 0],
    ] {
        assert_eq!(Numeric::from_wire(bad).unwrap_err().sqlstate, "22P03", "{bad:?}");
    }
}

proptest! {
    #[test]
    fn wire_and_text_and_key_round_trip(m in any::<i128>(), scale in 0u16..60) {
        let value = Numeric::Finite(Decimal::from_i128(m, scale));
        let mut wire = Vec::new();
        value.write_wire(&mut wire);
        prop_assert_eq!(&Numeric::from_wire(&wire).unwrap(), &value);
        prop_assert_eq!(&value.to_string().parse::<Numeric>().unwrap(), &value);
    }

    #[test]
    fn keys_order_as_values(a in any::<i64>(), sa in 0u16..30, b in any::<i64>(), sb in 0u16..30) {
        let (a, b) = (Numeric::Finite(Decimal::from_i128(a.into(), sa)), Numeric::Finite(Decimal::from_i128(b.into(), sb)));
        prop_assert_eq!(a.sort_key().cmp(&b.sort_key()), a.cmp(&b));
    }

    #[test]
    fn quotient_times_divisor_is_within_half_a_unit(a in any::<i64>(), b in any::<i64>().prop_filter("zero", |b| *b != 0)) {
        let q = Decimal::from_i128(a.into(), 0).divide(&Decimal::from_i128(b.into(), 0)).unwrap();
        let m = i256::from_string(&q.to_string().replace('.', "")).unwrap();
        let unit = i256::from_i128(10).wrapping_pow(q.scale() as u32);
        let error = m.wrapping_mul(i256::from_i128(b.into())).wrapping_sub(i256::from_i128(a.into()).wrapping_mul(unit));
        let twice = if error.is_negative() { error.wrapping_neg() } else { error }.wrapping_mul(i256::from_i128(2));
        prop_assert!(twice <= i256::from_i128(i128::from(b).abs()));
    }
}

/// Arithmetic over texts of any scale against PostgreSQL itself.
#[test]
fn arithmetic_of_texts_is_postgres() {
    use crate::arith::BinaryOp;
    use crate::testpg::{Random, cluster};
    let mut random = Random(0x5eed_00b0);
    let mut number = || {
        let digits = random.below(22) + 1;
        let whole: String = (0..digits).map(|_| char::from(b'0' + random.below(10) as u8)).collect();
        let fraction: String = (0..random.below(14)).map(|_| char::from(b'0' + random.below(10) as u8)).collect();
        let text = format!("{}{whole}.{fraction}0", if random.below(2) == 0 { "-" } else { "" });
        text.parse::<Numeric>().map_or_else(|_| "0.50".to_owned(), |n| n.to_string())
    };
    let pairs: Vec<(String, String)> = (0..400).map(|_| (number(), number())).collect();
    let list: Vec<String> =
        pairs.iter().enumerate().map(|(n, (a, b))| format!("({n}, '{a}'::numeric, '{b}'::numeric)")).collect();
    let query = format!("SELECT a + b, a - b, a * b, a / nullif(b, 0) FROM (VALUES {}) v(n, a, b) ORDER BY n", list.join(", "));
    let rows = cluster().copy_text(&[], "", &query);
    for ((a, b), want) in pairs.iter().zip(rows) {
        let one = |t: &str| arrow::array::StringViewArray::from(vec![t]);
        for (op, want) in
            [BinaryOp::Add, BinaryOp::Subtract, BinaryOp::Multiply, BinaryOp::Divide].into_iter().zip(want)
        {
            use arrow::array::AsArray;
            let Some(want) = want else { continue };
            let got = arith(op, &one(a), &one(b)).expect("finite");
            assert_eq!(got.as_string_view().value(0), want, "{a} {op:?} {b}");
        }
    }
    let nan = arrow::array::StringViewArray::from(vec!["NaN"]);
    assert!(arith(BinaryOp::Add, &nan, &nan).expect_err("NaN").is_not_exact());
}

#[test]
fn totals_of_any_scale_are_postgres() {
    let mut random = Random(0x5eed_0111);
    let (mut sql, mut got) = (Vec::new(), Vec::new());
    for number in 0..1500 {
        let count = random.below(9) as usize;
        let mut values = texts(&mut random, count, 30, 25);
        for value in values.iter_mut() {
            if random.below(40) == 0 {
                *value = random.pick(&["NaN", "Infinity", "-Infinity", "0", "0.000"]).to_string();
            }
        }
        let (mut one, mut other) = (Total::default(), Total::default());
        for (n, value) in values.iter().enumerate() {
            let value: Numeric = value.parse().expect("a numeric");
            if n % 3 == 0 { one.add(&value) } else { other.add(&value) }.expect("fits");
        }
        one.merge(&other.state()).expect("fits");
        got.push([one.finish(false).expect("a sum"), one.finish(true).expect("an average")]);
        let list: Vec<String> = values.iter().map(|v| format!("'{v}'")).collect();
        sql.push(format!("SELECT {number} AS n, sum(x) AS a, avg(x) AS b FROM unnest(ARRAY[{}]::numeric[]) x", list.join(", ")));
    }
    let rows: Vec<_> = sql
        .chunks(250)
        .flat_map(|sql| cluster().copy_text(&[], "", &format!("SELECT a, b FROM ({}) s ORDER BY n", sql.join(" UNION ALL "))))
        .collect();
    assert_eq!(rows.len(), got.len());
    for ((got, sql), want) in got.iter().zip(&sql).zip(rows) {
        assert_eq!(got.as_slice(), want, "{sql}");
    }
    // What does not fit is given back.
    let mut total = Total::default();
    total.add(&format!("1{}", "0".repeat(70)).parse().expect("a numeric")).expect("fits");
    assert!(total.add(&"0.0000000001".parse().expect("a numeric")).expect_err("too wide").is_not_exact());
}
