//! Shifts as `int.c` and `int8.c` make them.

use arrow::datatypes::DataType;

use crate::PgError;

/// Bits of an integer type.
pub(super) fn width(data_type: &DataType) -> Option<u32> {
    match data_type {
        DataType::Int16 => Some(16),
        DataType::Int32 => Some(32),
        DataType::Int64 => Some(64),
        _ => None,
    }
}

/// `value << by` or `value >> by` in a type of `width` bits. C leaves shifts by the width or more to the machine; smallint is shifted as int.
pub(super) fn shift(value: i64, by: i64, width: u32, left: bool) -> Result<i64, PgError> {
    let by = u32::try_from(by).ok().filter(|by| *by < width.max(32));
    let Some(by) = by else { return Err(PgError::not_exact("a shift by more than the width of its type")) };
    // Cut to the width: the casts keep the low bits.
    Ok(match (width, left) {
        (16, true) => i64::from(((value as i32) << by) as i16),
        (16, false) => i64::from(((value as i32) >> by) as i16),
        (32, true) => i64::from((value as i32) << by),
        (32, false) => i64::from((value as i32) >> by),
        (_, true) => value << by,
        (_, false) => value >> by,
    })
}
