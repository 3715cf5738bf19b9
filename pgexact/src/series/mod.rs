//! `generate_series` of integers, timestamps and timestamptz (PostgreSQL's `int.c`, `int8.c`, `timestamp.c`), as far as it is not long. What
//! PostgreSQL raises an error for, and what is longer, is refused. ✗ plans.

use crate::datetime::Interval;
use crate::interval::moved;
use crate::{PgError, Zone};

#[cfg(test)]
mod tests;

/// Values of one series.
pub const MAX_ROWS: usize = 100_000;

fn long() -> PgError {
    PgError::not_exact(format!("a series of more than {MAX_ROWS} rows"))
}

fn still() -> PgError {
    PgError::not_exact("a series whose step is zero")
}

/// Integers no larger than `max` (that of their type) from `start` to `stop`.
pub fn integers(start: i64, stop: i64, step: i64, max: i64) -> Result<Vec<i64>, PgError> {
    if step == 0 {
        return Err(still());
    }
    let mut all = Vec::new();
    let mut current = start;
    while if step > 0 { current <= stop } else { current >= stop } {
        if all.len() == MAX_ROWS {
            return Err(long());
        }
        all.push(current);
        // What the type cannot hold ends the series.
        match current.checked_add(step) {
            Some(next) if (-max - 1..=max).contains(&next) => current = next,
            _ => break,
        }
    }
    Ok(all)
}

/// Timestamps, or in `zone` timestamptz, from `start` to `stop`: each is the one before plus `step`.
pub fn instants(start: i64, stop: i64, step: Interval, zone: Option<&Zone>) -> Result<Vec<i64>, PgError> {
    // As intervals are compared: by months of thirty days.
    let days = i128::from(step.months) * 30 + i128::from(step.days);
    let sign = days * i128::from(crate::calendar::DAY_US) + i128::from(step.microseconds);
    if sign == 0 {
        return Err(still());
    }
    let mut all = Vec::new();
    let mut current = start;
    while if sign > 0 { current <= stop } else { current >= stop } {
        if all.len() == MAX_ROWS {
            return Err(long());
        }
        all.push(current);
        current = moved(current, step, zone)?;
    }
    Ok(all)
}
