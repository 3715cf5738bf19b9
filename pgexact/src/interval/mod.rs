//! Dates and timestamps moved by a constant interval or by days, and from one kind to another: `timestamp_pl_interval`,
//! `timestamptz_pl_interval` (`timestamp.c`), `date_pli`, `date_mi` (`date.c`). Knows the calendar and local time. ✗ intervals that are columns.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Date32Array, Int32Array, TimestampMicrosecondArray};
use arrow::datatypes::{Date32Type, Int32Type};

use crate::calendar::{self, DAY_US, EPOCH_SHIFT_DAYS, MIN_TIMESTAMP_US, finite};
use crate::datetime::Interval;
use crate::scalar::misused;
use crate::{PgError, Zone};

#[cfg(test)]
mod tests;

/// The last day of a date, 5874897-12-31, and the first, 4714-11-24 BC, since 1970.
const DATES: (i64, i64) =
    (-2_451_545 + EPOCH_SHIFT_DAYS as i64, 2_147_483_493 - 2_451_545 + EPOCH_SHIFT_DAYS as i64);

fn days_in(year: i64, month: u32) -> u32 {
    let (next_year, next) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    // Between 28 and 31.
    (calendar::days(next_year, next, 1) - calendar::days(year, month, 1)) as u32
}

/// A local time moved by months: the day of the month is held to the month's last.
fn add_months(local: i64, months: i64) -> Option<i64> {
    let (year, month, day) = calendar::civil(local.div_euclid(DAY_US));
    let count = year * 12 + i64::from(month) - 1 + months;
    let (year, month) = (count.div_euclid(12), count.rem_euclid(12) as u32 + 1);
    let day = calendar::days(year, month, day.min(days_in(year, month)));
    day.checked_mul(DAY_US)?.checked_add(local.rem_euclid(DAY_US))
}

/// One time of [`add`], of a timestamptz where there is a zone.
pub(crate) fn moved(us: i64, interval: Interval, zone: Option<&Zone>) -> Result<i64, PgError> {
    if !finite(us) {
        return Ok(us);
    }
    let out_of_range = || PgError::not_exact("a timestamp out of range");
    let local_of = |us: i64| zone.map_or(Ok(us), |z| z.local_of(us));
    let instant_of = |us: i64| zone.map_or(Ok(us), |z| z.instant_of(us));
    let mut us = us;
    if interval.months != 0 {
        us = instant_of(add_months(local_of(us)?, interval.months.into()).ok_or_else(out_of_range)?)?;
    }
    if interval.days != 0 {
        let moved = i64::from(interval.days).checked_mul(DAY_US).and_then(|d| local_of(us).ok()?.checked_add(d));
        us = instant_of(moved.ok_or_else(out_of_range)?)?;
    }
    us = us.checked_add(interval.microseconds).ok_or_else(out_of_range)?;
    if us < MIN_TIMESTAMP_US || !finite(us) { Err(out_of_range()) } else { Ok(us) }
}

/// `array + interval` for timestamps, and in `zone` for timestamptz: months, then days, in local time each, then the rest. Infinities stay.
/// What PostgreSQL may find out of range is refused.
pub fn add(array: &TimestampMicrosecondArray, interval: Interval, zone: &Zone) -> Result<ArrayRef, PgError> {
    let zone = array.timezone().map(|_| zone);
    let mut values = Vec::with_capacity(array.len());
    for (i, &us) in array.values().iter().enumerate() {
        values.push(if array.is_null(i) { us } else { moved(us, interval, zone)? });
    }
    let timezone = array.timezone().map(str::to_owned);
    let moved =
        TimestampMicrosecondArray::new(values.into(), array.nulls().cloned()).with_timezone_opt(timezone);
    Ok(Arc::new(moved))
}

/// The midnights of dates, as timestamps without time zone.
pub fn date_to_timestamp(array: &dyn Array) -> Result<TimestampMicrosecondArray, PgError> {
    let dates = array.as_primitive_opt::<Date32Type>().ok_or_else(misused)?;
    dates
        .iter()
        .map(|day| match day {
            None => Ok(None),
            Some(i32::MAX) => Ok(Some(i64::MAX)),
            Some(i32::MIN) => Ok(Some(i64::MIN)),
            Some(day) => match i64::from(day).checked_mul(DAY_US).filter(|us| *us >= MIN_TIMESTAMP_US) {
                Some(us) => Ok(Some(us)),
                None => Err(PgError::not_exact("a date out of range for timestamp")),
            },
        })
        .collect()
}

/// `date + days`, or `date - days`. Infinities stay. 22008 beyond the dates there are.
pub fn add_days(dates: &dyn Array, days: &dyn Array, subtract: bool) -> Result<ArrayRef, PgError> {
    let (Some(dates), Some(days)) =
        (dates.as_primitive_opt::<Date32Type>(), days.as_primitive_opt::<Int32Type>())
    else {
        return Err(misused());
    };
    let moved: Date32Array = dates
        .iter()
        .zip(days.iter())
        .map(|pair| match pair {
            (Some(date @ (i32::MAX | i32::MIN)), Some(_)) => Ok(Some(date)),
            (Some(date), Some(days)) => {
                let moved = i64::from(date) + if subtract { -i64::from(days) } else { days.into() };
                match i32::try_from(moved) {
                    Ok(day) if (DATES.0..=DATES.1).contains(&moved) => Ok(Some(day)),
                    _ => Err(PgError::new("22008", "date out of range")),
                }
            }
            _ => Ok(None),
        })
        .collect::<Result<_, PgError>>()?;
    Ok(Arc::new(moved))
}

/// `a - b` of dates, in days. 22008 for infinities.
pub fn days_between(a: &dyn Array, b: &dyn Array) -> Result<ArrayRef, PgError> {
    let (Some(a), Some(b)) = (a.as_primitive_opt::<Date32Type>(), b.as_primitive_opt::<Date32Type>()) else {
        return Err(misused());
    };
    let infinite = |day: i32| day == i32::MAX || day == i32::MIN;
    let days: Int32Array = a
        .iter()
        .zip(b.iter())
        .map(|pair| match pair {
            (Some(a), Some(b)) if infinite(a) || infinite(b) => {
                Err(PgError::new("22008", "cannot subtract infinite dates"))
            }
            (Some(a), Some(b)) => Ok(Some(a.wrapping_sub(b))),
            _ => Ok(None),
        })
        .collect::<Result<_, PgError>>()?;
    Ok(Arc::new(days))
}
