//! Variances of random samples against PostgreSQL itself.

use super::*;
use crate::testpg::{Random, cluster};
use arrow::array::{Decimal128Array, Int64Array};

#[test]
fn deviations_are_postgres() {
    let mut random = Random(0x5eed_0090);
    let (mut arrays, mut sql) = (Vec::new(), Vec::new());
    for _ in 0..400 {
        let scale = random.below(6) as i8;
        let spread = *random.pick(&[0i64, 1, 5, 1000, 1_000_000_000, i64::MAX / 2]);
        let middle = random.within(-1_000_000_000, 1_000_000_000);
        let values: Vec<i128> = (0..random.below(7))
            .map(|_| i128::from(middle) + i128::from(random.within(-spread, spread)))
            .collect();
        let list: Vec<String> =
            values.iter().map(|v| Decimal::from_i128(*v, scale as u16).to_string()).collect();
        sql.push(format!("ARRAY[{}]::numeric[]", list.join(", ")));
        arrays.push(Decimal128Array::from(values).with_precision_and_scale(28, scale).expect("fits"));
    }
    let cases: Vec<String> = sql
        .iter()
        .enumerate()
        .map(|(n, a)| format!("SELECT {n} AS n, var_pop(x) AS a, var_samp(x) AS b, stddev_pop(x) AS c, stddev_samp(x) AS d FROM unnest({a}) x"))
        .collect();
    let rows = cluster().copy_text(
        &[],
        "",
        &format!("SELECT a, b, c, d FROM ({}) s ORDER BY n", cases.join(" UNION ALL ")),
    );
    let mut compared = 0;
    for ((array, sql), want) in arrays.iter().zip(&sql).zip(rows) {
        let scale = array.scale();
        let sum: i128 = array.values().iter().sum();
        let squared = squares(array, &DataType::Decimal256(66, 2 * scale)).expect("squares");
        let total = squared
            .as_primitive::<Decimal256Type>()
            .iter()
            .flatten()
            .fold(i256::ZERO, |a, b| a.wrapping_add(b));
        let sums = Decimal128Array::from(vec![sum]).with_precision_and_scale(38, scale).expect("fits");
        let totals = arrow::array::Decimal256Array::from(vec![total])
            .with_precision_and_scale(76, 2 * scale)
            .expect("fits");
        let counts = Int64Array::from(vec![array.len() as i64]);
        for (column, (root, sample)) in
            [(false, false), (false, true), (true, false), (true, true)].into_iter().enumerate()
        {
            match finish(Deviation { sample, root }, &sums, &totals, &counts) {
                Ok(got) => {
                    let got = (!got.is_null(0)).then(|| got.as_string_view().value(0).to_owned());
                    assert_eq!(got, want[column], "{sql} {column}");
                    compared += 1;
                }
                Err(e) => assert!(e.is_not_exact(), "{e}"),
            }
        }
    }
    assert!(compared > 1200, "{compared}");
}
