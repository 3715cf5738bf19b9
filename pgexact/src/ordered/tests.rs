//! Groups of random values against PostgreSQL itself.

use super::*;
use crate::testpg::{Random, cluster};
use arrow::array::{Int32Array, StringViewArray};

fn collected(orders: &[Order], skipped: Option<usize>, columns: &[ArrayRef], distinct: bool) -> Collected {
    let keys = keys(orders, skipped, columns).expect("keys");
    // In two parts, as two threads would have them.
    let (mut one, mut other) = (Collected::default(), Collected::default());
    for (number, key) in keys.as_binary_view().iter().enumerate() {
        if let Some(key) = key {
            if number % 2 == 0 { one.add(key, distinct) } else { other.add(key, distinct) }.expect("fits");
        }
    }
    one.merge(other.state(), distinct).expect("fits");
    one
}

fn order(random: &mut Random) -> Order {
    Order { descending: random.below(2) == 0, nulls_first: random.below(2) == 0 }
}

fn words(order: Order) -> String {
    let direction = if order.descending { "DESC" } else { "ASC" };
    format!("{direction} NULLS {}", if order.nulls_first { "FIRST" } else { "LAST" })
}

fn quoted(value: &Option<&str>) -> String {
    value.map_or("NULL".into(), |v| format!("'{}'", v.replace('\'', "''")))
}

const TEXTS: [Option<&str>; 9] = [Some("a"), Some("A"), Some("ä"), Some(""), Some("a b"), Some("z\"'\\,"), Some("NULL"), None, Some("aa")];

#[test]
fn texts_are_postgres() {
    let mut random = Random(0x5eed_0101);
    let (mut sql, mut got) = (Vec::new(), Vec::new());
    for number in 0..300 {
        let values: Vec<Option<&str>> = (0..random.below(12)).map(|_| *random.pick(&TEXTS)).collect();
        let (order, distinct) = (order(&mut random), random.below(2) == 0);
        let separator = *random.pick(&[",", "", " | "]);
        let column: ArrayRef = Arc::new(StringViewArray::from(values.clone()));
        let layout = Layout { columns: vec![(DataType::Utf8View, order)], value: 0 };
        let group = collected(&[order], Some(0), &[column], distinct);
        let string = |finish: Finish| {
            let value = group.finish(&layout, &finish, distinct).expect("a value");
            (!value.is_null(0)).then(|| value.as_string_view().value(0).to_owned())
        };
        let half = Fraction::new(0.5);
        got.push((string(Finish::StringAgg(separator.into())), string(Finish::Mode), string(Finish::Discrete(half))));
        let list: Vec<String> = values.iter().map(quoted).collect();
        let (d, o) = (if distinct { "DISTINCT " } else { "" }, words(order));
        let from = format!("unnest(ARRAY[{}]::text[] COLLATE \"C\") x", list.join(", "));
        // Ordered-set aggregates know no DISTINCT.
        let set = if distinct { format!("(SELECT DISTINCT x FROM {from}) s") } else { from.clone() };
        sql.push(format!(
            "SELECT {number} AS n, (SELECT string_agg({d}x, '{separator}' ORDER BY x {o}) FROM {from}) AS a, \
             (SELECT mode() WITHIN GROUP (ORDER BY x {o}) FROM {set}) AS b, \
             (SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY x {o}) FROM {set}) AS c"
        ));
    }
    let rows = cluster().copy_text(&[], "", &format!("SELECT a, b, c FROM ({}) s ORDER BY n", sql.join(" UNION ALL ")));
    for ((got, sql), want) in got.iter().zip(&sql).zip(rows) {
        assert_eq!([&got.0, &got.1, &got.2], [&want[0], &want[1], &want[2]], "{sql}");
    }
}

#[test]
fn arrays_are_postgres() {
    let mut random = Random(0x5eed_0102);
    let (mut sql, mut got) = (Vec::new(), Vec::new());
    for number in 0..200 {
        let rows: Vec<(Option<i32>, Option<&str>)> = (0..random.below(10))
            .map(|_| ((random.below(4) > 0).then(|| random.within(-3, 3) as i32), *random.pick(&TEXTS)))
            .collect();
        let (first, second) = (order(&mut random), order(&mut random));
        let layout = Layout { columns: vec![(DataType::Int32, first), (DataType::Utf8View, second)], value: 0 };
        let numbers: ArrayRef = Arc::new(Int32Array::from_iter(rows.iter().map(|r| r.0)));
        let texts: ArrayRef = Arc::new(StringViewArray::from_iter(rows.iter().map(|r| r.1)));
        let group = collected(&[first, second], None, &[numbers, texts], false);
        let value = group.finish(&layout, &Finish::ArrayAgg, false).expect("a value");
        got.push((!value.is_null(0)).then(|| {
            let values = value.as_list::<i32>().value(0);
            let values = values.as_primitive::<arrow::datatypes::Int32Type>();
            let shown: Vec<String> = values.iter().map(|v| v.map_or("NULL".into(), |v| v.to_string())).collect();
            format!("{{{}}}", shown.join(","))
        }));
        let list: Vec<String> = rows
            .iter()
            .map(|(n, t)| format!("({}::int4, {}::text)", n.map_or("NULL".into(), |n| n.to_string()), quoted(t)))
            .collect();
        let from = match list.is_empty() {
            true => "(SELECT 1::int4 AS x, ''::text AS t WHERE false) v(x, t)".into(),
            false => format!("(VALUES {}) v(x, t)", list.join(", ")),
        };
        let (first, second) = (words(first), words(second));
        sql.push(format!("SELECT {number} AS n, (SELECT array_agg(x ORDER BY x {first}, t COLLATE \"C\" {second}) FROM {from})::text AS a"));
    }
    let rows = cluster().copy_text(&[], "", &format!("SELECT a FROM ({}) s ORDER BY n", sql.join(" UNION ALL ")));
    for ((got, sql), want) in got.iter().zip(&sql).zip(rows) {
        assert_eq!(*got, want[0], "{sql}");
    }
}

#[test]
fn percentiles_are_postgres() {
    let mut random = Random(0x5eed_0103);
    let (mut sql, mut got) = (Vec::new(), Vec::new());
    let nasty = [0.1, -0.0, 0.0, 1e300, -1e300, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1.0 / 3.0, 5e-324, 123456.789];
    for number in 0..1500 {
        let plain = random.below(3) > 0;
        let values: Vec<Option<f64>> = (0..random.below(9))
            .map(|_| match random.below(8) {
                0 => None,
                n if n < 3 && !plain => Some(*random.pick(&nasty)),
                _ => Some(random.within(-100_000, 100_000) as f64 / 7.0),
            })
            .collect();
        let order = order(&mut random);
        let fraction = *random.pick(&[0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0, 1.0 / 3.0]);
        let layout = Layout { columns: vec![(DataType::Float64, order)], value: 0 };
        let column: ArrayRef = Arc::new(Float64Array::from(values.clone()));
        let group = collected(&[order], Some(0), &[column], false);
        let of = |finish: Finish| match group.finish(&layout, &finish, false) {
            Ok(value) => Some(match value.is_null(0) {
                true => None,
                false => {
                    let mut text = bytes::BytesMut::new();
                    crate::float::write_f64(value.as_primitive::<Float64Type>().value(0), &mut text);
                    Some(String::from_utf8(text.to_vec()).expect("digits"))
                }
            }),
            Err(e) => {
                assert!(e.is_not_exact(), "{e}");
                None
            }
        };
        let p = Fraction::new(fraction);
        got.push([of(Finish::Continuous(p)), of(Finish::Discrete(p)), of(Finish::Mode)]);
        let list: Vec<String> = values.iter().map(|v| v.map_or("NULL".into(), |v| format!("'{v:?}'"))).collect();
        let (from, o) = (format!("unnest(ARRAY[{}]::float8[]) x", list.join(", ")), words(order));
        sql.push(format!(
            "SELECT {number} AS n, (SELECT percentile_cont({fraction:?}) WITHIN GROUP (ORDER BY x {o}) FROM {from}) AS a, \
             (SELECT percentile_disc({fraction:?}) WITHIN GROUP (ORDER BY x {o}) FROM {from}) AS b, \
             (SELECT mode() WITHIN GROUP (ORDER BY x {o}) FROM {from}) AS c"
        ));
    }
    let rows: Vec<_> = sql
        .chunks(250)
        .flat_map(|sql| cluster().copy_text(&[], "", &format!("SELECT a, b, c FROM ({}) s ORDER BY n", sql.join(" UNION ALL "))))
        .collect();
    let mut compared = 0;
    for ((got, sql), want) in got.iter().zip(&sql).zip(rows) {
        for (got, want) in got.iter().zip(&want) {
            if let Some(got) = got {
                assert_eq!(got, want, "{sql}");
                compared += 1;
            }
        }
    }
    assert!(compared > 4200, "{compared}");
}

#[test]
fn a_group_is_bounded_and_distinct_ones_stay_small() {
    let mut group = Collected::default();
    let key = vec![7u8; 1 << 20];
    let filled = (0..300).find_map(|_| group.add(&key, false).err()).expect("a bound");
    assert!(filled.is_not_exact() && group.state().len() < MAX_BYTES + (2 << 20));
    let mut group = Collected::default();
    for _ in 0..300 {
        group.add(&key, true).expect("one key");
    }
    assert!(group.state().len() < 4 << 20, "{}", group.state().len());
    assert!(group.merge(&[1, 0, 0], false).is_ok() && group.finish(&Layout { columns: vec![], value: 0 }, &Finish::Mode, false).is_err());
}
