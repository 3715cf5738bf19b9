use super::*;
use crate::flight::types::Column;
use arrow::datatypes::Schema;
use bytes::{BufMut, BytesMut};
use proptest::prelude::*;

fn wire(number: &str) -> Vec<u8> {
    let mut out = BytesMut::new();
    number.parse::<Numeric>().unwrap().write_wire(&mut out);
    out.to_vec()
}

fn row(values: &[Option<&[u8]>]) -> Vec<u8> {
    let mut out = BytesMut::new();
    out.put_i16(values.len() as i16);
    for value in values {
        match value {
            None => out.put_i32(-1),
            Some(v) => {
                out.put_i32(v.len() as i32);
                out.put_slice(v);
            }
        }
    }
    out.to_vec()
}

fn one(type_oid: u32, value: &[u8]) -> Result<RecordBatch, Unfit> {
    let columns = [Column::new(type_oid, -1)];
    let schema = Arc::new(Schema::new(vec![columns[0].field("v")]));
    let mut rows = Rows::new(&columns, schema);
    rows.add(&row(&[Some(value)]))?;
    rows.add(&row(&[None]))?;
    Ok(rows.take())
}

#[test]
fn decimals_keep_every_digit() {
    for (text, scale, expected) in [
        ("0", 2, 0i128),
        ("0.00", 2, 0),
        ("1", 2, 100),
        ("12345.67", 2, 1_234_567),
        ("-0.01", 2, -1),
        ("100000000", 0, 100_000_000),
        ("100000000", 3, 100_000_000_000),
        ("0.0001", 4, 1),
        ("0.00010", 5, 10),
        ("99999999999999999999999999999999999999", 0, 99_999_999_999_999_999_999_999_999_999_999_999_999),
    ] {
        assert_eq!(decimal::<i128>(&wire(text), scale, 38), Ok(expected), "{text}");
    }
    assert!(decimal::<i128>(&wire("0.001"), 2, 38).is_err());
    assert!(decimal::<i128>(&wire("100"), 0, 2).is_err());
    assert!(decimal::<i128>(&wire("NaN"), 0, 2).is_err());
}

proptest! {
    #[test]
    fn decimals_are_what_was_sent(mantissa in any::<i64>(), scale in 0i8..18) {
        let text = pgexact::numeric::Decimal::from_i128(mantissa.into(), scale as u16).to_string();
        prop_assert_eq!(decimal::<i128>(&wire(&text), scale, 38), Ok(i128::from(mantissa)));
        prop_assert_eq!(decimal::<i256>(&wire(&text), scale, 76), Ok(i256::from_i128(mantissa.into())));
    }
}

#[test]
fn what_arrow_cannot_hold_is_an_error_with_a_hint() {
    let eight = |v: i64| v.to_be_bytes().to_vec();
    for (type_oid, value) in [
        (1082, i32::MAX.to_be_bytes().to_vec()),
        (1082, i32::MIN.to_be_bytes().to_vec()),
        (1114, eight(i64::MAX)),
        (1184, eight(i64::MIN)),
        (1184, eight(i64::MAX - 1)),
        (1083, eight(DAY_US)),
        (1186, [eight(i64::MAX), vec![0; 8]].concat()),
    ] {
        let e = one(type_oid, &value).unwrap_err();
        assert!(!e.hint.is_empty() && e.sqlstate.starts_with("22"), "{type_oid}: {e:?}");
    }
}

#[test]
fn an_array_is_a_list_or_an_error() {
    let array = |dimensions: &[(i32, i32)], items: &[Option<i32>]| {
        let mut out = BytesMut::new();
        out.put_i32(dimensions.len() as i32);
        out.put_i32(0);
        out.put_i32(23);
        for (length, from) in dimensions {
            out.put_i32(*length);
            out.put_i32(*from);
        }
        for item in items {
            match item {
                None => out.put_i32(-1),
                Some(v) => {
                    out.put_i32(4);
                    out.put_i32(*v);
                }
            }
        }
        out.to_vec()
    };
    let batch = one(1007, &array(&[(3, 1)], &[Some(1), None, Some(3)])).unwrap();
    let list = batch.column(0).as_list::<i32>();
    assert_eq!(list.value(0).as_primitive::<arrow::datatypes::Int32Type>(), &Int32Array::from(vec![Some(1), None, Some(3)]));
    assert!(list.is_null(1));
    assert_eq!(one(1007, &array(&[], &[])).unwrap().column(0).as_list::<i32>().value(0).len(), 0);
    assert!(one(1007, &array(&[(1, 0)], &[Some(1)])).is_err());
    assert!(one(1007, &array(&[(1, 1), (1, 1)], &[Some(1)])).is_err());
    assert!(one(1016, &array(&[(1, 1)], &[Some(1)])).is_err(), "elements of another type");
}

#[test]
fn a_batch_begins_anew_after_it_was_taken() {
    let columns = [Column::new(1007, -1), Column::new(25, -1)];
    let schema = Arc::new(Schema::new(vec![columns[0].field("a"), columns[1].field("t")]));
    let mut rows = Rows::new(&columns, schema);
    for n in 0..3 {
        rows.add(&row(&[None, Some(b"x")])).unwrap();
        assert_eq!(rows.take().num_rows(), 1, "{n}");
        assert!(rows.is_empty());
    }
}

#[test]
fn rows_that_are_cut_off_are_refused() {
    let whole = row(&[Some(b"abc")]);
    for end in 0..whole.len() {
        let columns = [Column::new(25, -1)];
        let mut rows = Rows::new(&columns, Arc::new(Schema::new(vec![columns[0].field("t")])));
        assert!(rows.add(&whole[..end]).is_err(), "{end}");
    }
}
