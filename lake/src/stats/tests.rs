use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::{Field, Schema};
use proptest::prelude::*;

use super::*;

fn collect(ty: ColType, arrays: Vec<ArrayRef>) -> (ColumnStats, serde_json::Value) {
    let schema = Arc::new(Schema::new(vec![Field::new("c", ty.arrow(), true)]));
    let mut c = Collector::new([("c", ty)]);
    for a in arrays {
        c.add(&RecordBatch::try_new(schema.clone(), vec![a]).unwrap()).unwrap();
    }
    let (file, delta) = c.finish().unwrap();
    assert_eq!(FileStats::from_tag(&file.to_tag().unwrap()).unwrap(), file);
    (file.columns.get("c").unwrap().clone(), serde_json::from_str(&delta).unwrap())
}

fn micros(values: Vec<Option<i64>>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"))
}

#[test]
fn integers_over_batches() {
    let (c, d) = collect(
        ColType::Int4,
        vec![
            Arc::new(Int32Array::from(vec![Some(5), None])),
            Arc::new(Int32Array::from(vec![Some(-7), Some(i32::MAX)])),
        ],
    );
    assert_eq!(
        (c.nulls, c.min, c.max, c.exact),
        (1, Some(Bound::Int(-7)), Some(Bound::Int(i32::MAX.into())), true)
    );
    assert_eq!(d["numRecords"], 4);
    assert_eq!(d["minValues"]["c"], -7);
    assert_eq!(d["nullCount"]["c"], 1);
}

#[test]
fn times_are_safe_for_readers_that_cut_to_milliseconds() {
    let (c, d) = collect(
        ColType::TimestampTz,
        vec![micros(vec![Some(1_700_000_000_123_456), Some(1_700_000_001_000_001)])],
    );
    assert_eq!(c.min, Some(Bound::Int(1_700_000_000_123_456)));
    assert_eq!(c.max, Some(Bound::Int(1_700_000_001_000_001)));
    assert_eq!(d["minValues"]["c"], "2023-11-14T22:13:20.123456Z");
    assert_eq!(d["maxValues"]["c"], "2023-11-14T22:13:21.001000Z");
    let (_, d) = collect(ColType::TimestampTz, vec![micros(vec![Some(-1)])]);
    assert_eq!(d["minValues"]["c"], "1969-12-31T23:59:59.999999Z");
    assert_eq!(d["maxValues"]["c"], "1970-01-01T00:00:00.000000Z");
}

#[test]
fn infinities_are_left_out_of_deltas_form_only() {
    let (c, d) = collect(ColType::TimestampTz, vec![micros(vec![Some(i64::MAX), Some(i64::MIN), Some(0)])]);
    assert_eq!((c.min, c.max), (Some(Bound::Int(i64::MIN)), Some(Bound::Int(i64::MAX))));
    assert!(d["minValues"].get("c").is_none() && d["maxValues"].get("c").is_none());
    let (_, d) = collect(ColType::Date, vec![Arc::new(Date32Array::from(vec![i32::MIN, 0]))]);
    assert!(d["minValues"].get("c").is_none());
    assert_eq!(d["maxValues"]["c"], "1970-01-01");
}

#[test]
fn decimals_keep_all_digits_or_are_left_out() {
    let ty = ColType::Numeric { precision: 38, scale: 3 };
    let array = |v: Vec<i128>| -> ArrayRef { Arc::new(Decimal128Array::from(v).with_data_type(ty.arrow())) };
    let (c, d) = collect(ty, vec![array(vec![-5, 123_456])]);
    assert_eq!((c.min, c.max), (Some(Bound::Decimal(-5)), Some(Bound::Decimal(123_456))));
    assert_eq!(d["minValues"]["c"].to_string(), "-0.005");
    assert_eq!(d["maxValues"]["c"].to_string(), "123.456");
    let (c, d) = collect(ty, vec![array(vec![0, 10_i128.pow(37) + 1])]);
    assert_eq!(c.max, Some(Bound::Decimal(10_i128.pow(37) + 1)));
    assert!(d["maxValues"].get("c").is_none());
}

#[test]
fn floats_have_counts_only() {
    let (c, d) =
        collect(ColType::Float8, vec![Arc::new(Float64Array::from(vec![Some(1.0), Some(f64::NAN), None]))]);
    assert_eq!((c.nulls, c.min, c.max), (1, None, None));
    assert_eq!(d["nullCount"]["c"], 1);
    assert!(d["minValues"].get("c").is_none());
}

#[test]
fn floats_tell_whether_any_is_nan_or_minus_zero() {
    let plain = |arrays: Vec<Vec<Option<f64>>>| {
        collect(ColType::Float8, arrays.into_iter().map(|a| Arc::new(Float64Array::from(a)) as ArrayRef).collect()).0.plain
    };
    assert!(plain(vec![vec![Some(0.0), None, Some(f64::INFINITY)], vec![Some(-1e-300)]]));
    assert!(plain(vec![vec![None]]) && plain(vec![]));
    assert!(!plain(vec![vec![Some(1.0)], vec![Some(-0.0)]]));
    assert!(!plain(vec![vec![Some(-f64::NAN)], vec![Some(1.0)]]));
    // What stands below a NULL does not count.
    let hidden = Float64Array::new(vec![f64::NAN, 2.0].into(), Some(vec![false, true].into()));
    assert!(collect(ColType::Float8, vec![Arc::new(hidden)]).0.plain);
    assert!(collect(ColType::Float4, vec![Arc::new(Float32Array::from(vec![1.5f32]))]).0.plain);
    assert!(!collect(ColType::Float4, vec![Arc::new(Float32Array::from(vec![-0.0f32]))]).0.plain);
    assert!(!collect(ColType::Int4, vec![Arc::new(Int32Array::from(vec![1]))]).0.plain, "nobody asks");
    // A file from before this was kept.
    let old = FileStats::from_tag(r#"{"rows":3,"columns":{"c":{"n":0}}}"#).unwrap();
    assert!(!old.columns.get("c").unwrap().plain);
    let none = FileStats::from_tag(r#"{"rows":3,"columns":{"c":{"n":3}}}"#).unwrap();
    let mut both = FileStats::default();
    both.merge(&none);
    assert!(both.columns.get("c").unwrap().plain, "NULLs are no floats");
    both.merge(&old);
    assert!(!both.columns.get("c").unwrap().plain);
}

#[test]
fn all_null() {
    let (c, d) = collect(ColType::Text, vec![Arc::new(StringViewArray::from(vec![None::<&str>, None]))]);
    assert_eq!((c.nulls, c.min, c.max), (2, None, None));
    assert_eq!(d["nullCount"]["c"], 2);
}

proptest! {
    #[test]
    fn text_bounds_hold(texts in prop::collection::vec("[a-z\\x{7f}-\\x{10ffff}]{0,80}", 1..8)) {
        let array: ArrayRef = Arc::new(StringViewArray::from_iter_values(&texts));
        let (c, d) = collect(ColType::Text, vec![array]);
        let low = texts.iter().map(|t| t.as_bytes()).min().unwrap();
        let high = texts.iter().map(|t| t.as_bytes()).max().unwrap();
        let Some(Bound::Text(min)) = c.min else { panic!() };
        prop_assert!(min.as_bytes() <= low && min.len() <= EXACT_TEXT);
        match c.max {
            Some(Bound::Text(max)) => {
                prop_assert!(max.as_bytes() >= high);
                if c.exact {
                    prop_assert_eq!(max.as_bytes(), high);
                }
                prop_assert_eq!(&d["maxValues"]["c"], &max);
            }
            _ => prop_assert!(!c.exact),
        }
        if c.exact {
            prop_assert_eq!(min.as_bytes(), low);
        }
        prop_assert_eq!(&d["minValues"]["c"], &min);
    }

    #[test]
    fn plain_sums_up(files in prop::collection::vec(prop::collection::vec(prop::option::of(prop_oneof![
        Just(f64::NAN), Just(-0.0), Just(0.0), Just(f64::NEG_INFINITY), any::<f64>()
    ]), 0..4), 0..6)) {
        let is_plain = |v: &f64| !v.is_nan() && v.to_bits() != (-0.0f64).to_bits();
        let mut all = FileStats::default();
        for file in &files {
            let mut c = Collector::new([("c", ColType::Float8)]);
            let schema = Arc::new(Schema::new(vec![Field::new("c", ColType::Float8.arrow(), true)]));
            c.add(&RecordBatch::try_new(schema, vec![Arc::new(Float64Array::from(file.clone()))]).unwrap()).unwrap();
            let (stats, _) = c.finish().unwrap();
            prop_assert_eq!(stats.columns.get("c").unwrap().plain, file.iter().flatten().all(is_plain));
            all.merge(&stats);
        }
        // A file that does not have the column.
        all.merge(&FileStats { rows: 2, ..FileStats::default() });
        if let Some(c) = all.columns.get("c") {
            prop_assert_eq!(c.plain, files.iter().flatten().flatten().all(is_plain));
        }
    }

    #[test]
    fn decimal_texts(v in any::<i64>(), scale in 0_i8..20) {
        let text = decimal_text(v.into(), scale);
        let (sign, digits) = text.strip_prefix('-').map_or((1, text.as_str()), |d| (-1, d));
        let fraction = digits.split_once('.').map_or("", |(_, f)| f);
        prop_assert_eq!(fraction.len(), scale as usize);
        let back: i128 = digits.replace('.', "").parse::<i128>().unwrap() * sign;
        prop_assert_eq!(back, i128::from(v));
    }
}
