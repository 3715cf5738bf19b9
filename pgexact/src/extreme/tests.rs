use super::*;
use crate::testpg::{Random, cluster};
use arrow::array::{AsArray, Int32Array, StringViewArray};
use arrow::datatypes::Int32Type;
use std::sync::Arc;

#[test]
fn extremes_are_postgres() {
    let mut random = Random(0x5eed_00a0);
    let rows: Vec<[Option<i32>; 3]> = (0..200)
        .map(|_| [0; 3].map(|_| (random.below(3) > 0).then(|| random.within(-2, 2) as i32)))
        .collect();
    let value = |v: Option<i32>| v.map_or("NULL".into(), |v| v.to_string());
    let list: Vec<String> = rows
        .iter()
        .enumerate()
        .map(|(n, r)| format!("({n}, {}::int, {}::int, {}::int)", value(r[0]), value(r[1]), value(r[2])))
        .collect();
    let query = format!(
        "SELECT greatest(a, b, c), least(a, b, c), greatest('x' || a, 'x' || b, 'x' || c) FROM (VALUES {}) v(n, a, b, c) ORDER BY n",
        list.join(", ")
    );
    let wanted = cluster().copy_text(&[], "", &query);
    let column = |i: usize| -> ArrayRef { Arc::new(Int32Array::from_iter(rows.iter().map(|r| r[i]))) };
    let texts = |i: usize| -> ArrayRef {
        Arc::new(StringViewArray::from_iter(rows.iter().map(|r| r[i].map(|v| format!("x{v}")))))
    };
    let numbers = [column(0), column(1), column(2)];
    let greatest = extreme(true, &numbers).expect("numbers");
    let least = extreme(false, &numbers).expect("numbers");
    let words = extreme(true, &[texts(0), texts(1), texts(2)]).expect("texts");
    for (row, want) in wanted.iter().enumerate() {
        let number =
            |a: &ArrayRef| (!a.is_null(row)).then(|| a.as_primitive::<Int32Type>().value(row).to_string());
        assert_eq!(number(&greatest), want[0]);
        assert_eq!(number(&least), want[1]);
        assert_eq!((!words.is_null(row)).then(|| words.as_string_view().value(row).to_owned()), want[2]);
    }
    assert!(extreme(true, &[column(0), texts(0)]).is_err());
}
