use std::sync::Arc;

use arrow::array::TimestampMicrosecondArray;

use super::*;

#[test]
fn days_are_cut_where_they_change() {
    let day = types::DAY_MICROS;
    let times = vec![-day, -1, 0, 1, day - 1, day, 5 * day, 5 * day + 1];
    let array = TimestampMicrosecondArray::from(times);
    let batch = RecordBatch::try_from_iter([("ts", Arc::new(array) as _)]).unwrap();
    let parts: Vec<(i32, usize)> = by_day(&batch, 0).into_iter().map(|(d, b)| (d, b.num_rows())).collect();
    assert_eq!(parts, vec![(-1, 2), (0, 3), (1, 1), (5, 2)]);
    assert!(by_day(&batch.slice(0, 0), 0).is_empty());
}
