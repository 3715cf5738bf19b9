//! PostgreSQL's order of floats (`float8_cmp_internal` of `float.h`): -0 is 0, NaN is equal to NaN and above everything else, whatever its bits.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Float32Type, Float64Type};

use crate::PgError;
use crate::scalar::misused;

/// A number that compares as the float does.
pub fn place(value: f64) -> i64 {
    if value.is_nan() {
        return i64::MAX;
    }
    // A float's bits grow with its size; of negative ones they fall. Adding 0 makes 0 of -0.
    let bits = (value + 0.0).to_bits() as i64;
    if bits < 0 { bits ^ i64::MAX } else { bits }
}

/// The places of float4 or float8, which is the same order.
pub fn places(array: &dyn Array) -> Result<ArrayRef, PgError> {
    let places: Int64Array = match array.data_type() {
        DataType::Float32 => array.as_primitive::<Float32Type>().unary(|v| place(f64::from(v))),
        DataType::Float64 => array.as_primitive::<Float64Type>().unary(place),
        _ => return Err(misused()),
    };
    Ok(Arc::new(places))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testpg::{Random, cluster};
    use arrow::array::{Float32Array, Float64Array};

    fn values() -> Vec<f64> {
        let mut random = Random(0x5eed_0061);
        let mut values = vec![
            0.0,
            -0.0,
            f64::NAN,
            -f64::NAN,
            f64::from_bits(0x7ff0_0000_0000_0001),
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::MIN,
            f64::MAX,
            f64::MIN_POSITIVE,
            -f64::MIN_POSITIVE,
            5e-324,
            -5e-324,
        ];
        for _ in 0..60 {
            let exponent = random.within(-1022, 1023) as i32;
            values.push(random.within(-1_000_000, 1_000_000) as f64 / 999_983.0 * 2f64.powi(exponent));
            values.push(random.within(-40, 40) as f64 / 4.0);
        }
        values
    }

    #[test]
    fn the_order_is_postgres() {
        let values = values();
        let text = |v: &f64| if v.is_nan() { "NaN".to_owned() } else { format!("{v:e}").replace("inf", "Infinity") };
        let list: Vec<String> = values.iter().enumerate().map(|(n, v)| format!("({n}, '{}'::float8)", text(v))).collect();
        let list = list.join(", ");
        let query = format!(
            "WITH v(n, f) AS (VALUES {list}) SELECT CASE WHEN a.f < b.f THEN -1 WHEN a.f = b.f THEN 0 WHEN a.f > b.f THEN 1 END::text FROM v a, v b ORDER BY a.n, b.n"
        );
        let rows = cluster().copy_text(&[], "", &query);
        let mut rows = rows.into_iter();
        let array = Float64Array::from(values.clone());
        let places = places(&array).expect("places");
        let places = places.as_primitive::<arrow::datatypes::Int64Type>();
        for (a, x) in values.iter().enumerate() {
            for (b, y) in values.iter().enumerate() {
                let wanted = rows.next().expect("a row").remove(0).expect("an order");
                let got = places.value(a).cmp(&places.value(b)) as i32;
                assert_eq!(got.to_string(), wanted, "{x:?} and {y:?}");
            }
        }
    }

    #[test]
    fn float4_has_the_same_places_and_null_none() {
        let array = Float32Array::from(vec![Some(-0.0), None, Some(f32::NAN), Some(1.5), Some(f32::MAX)]);
        let places = places(&array).expect("places");
        let places = places.as_primitive::<arrow::datatypes::Int64Type>();
        let wanted = [Some(place(0.0)), None, Some(i64::MAX), Some(place(1.5)), Some(place(f64::from(f32::MAX)))];
        assert_eq!(places.iter().collect::<Vec<_>>(), wanted);
        assert!(super::places(&Int64Array::from(vec![1])).is_err());
    }
}
