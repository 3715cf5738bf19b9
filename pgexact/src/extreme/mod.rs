//! `GREATEST` and `LEAST` (`ExecEvalMinMax` of PostgreSQL's `execExprInterp.c`): NULLs are left out; of equals the first stays. Knows arrays of
//! one type whose order is PostgreSQL's: integers, decimals, dates, times, booleans, and texts by their bytes.

use arrow::array::{Array, ArrayRef, make_comparator};
use arrow::compute::{SortOptions, interleave};
use arrow::datatypes::DataType;

use crate::PgError;
use crate::scalar::misused;

#[cfg(test)]
mod tests;

/// The greatest or least of each row.
pub fn extreme(greatest: bool, args: &[ArrayRef]) -> Result<ArrayRef, PgError> {
    let first = args.first().ok_or_else(misused)?;
    let ordered = matches!(
        first.data_type(),
        DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Boolean
            | DataType::Decimal128(..)
            | DataType::Date32
            | DataType::Timestamp(..)
            | DataType::Utf8View
    );
    if !ordered || args.iter().any(|a| a.data_type() != first.data_type() || a.len() != first.len()) {
        return Err(misused());
    }
    let wrong = |e: arrow::error::ArrowError| PgError::not_exact(e.to_string());
    let mut comparators = Vec::new();
    for a in args {
        let mut row = Vec::with_capacity(args.len());
        for b in args {
            row.push(make_comparator(a, b, SortOptions::default()).map_err(wrong)?);
        }
        comparators.push(row);
    }
    let picks: Vec<(usize, usize)> = (0..first.len())
        .map(|row| {
            let mut best: Option<usize> = None;
            for (candidate, array) in args.iter().enumerate() {
                if array.is_null(row) {
                    continue;
                }
                let better = match best {
                    None => true,
                    Some(best) => {
                        let order = comparators[candidate][best](row, row);
                        if greatest { order.is_gt() } else { order.is_lt() }
                    }
                };
                if better {
                    best = Some(candidate);
                }
            }
            // Where all are NULL, the first one is.
            (best.unwrap_or(0), row)
        })
        .collect();
    let arrays: Vec<&dyn Array> = args.iter().map(|a| a.as_ref()).collect();
    interleave(&arrays, &picks).map_err(wrong)
}
