//! The proleptic Gregorian calendar on day numbers since 1970-01-01, for any year PostgreSQL knows.
//! Knows days, months and ISO weeks; does not know time zones. Year 0 is 1 BC, as inside PostgreSQL.
//!
//! Day numbers and civil dates convert by the era method of Howard Hinnant's "chrono-compatible
//! low-level date algorithms".

/// Microseconds in a day.
pub(crate) const DAY_US: i64 = 86_400_000_000;
/// Microseconds from 1970-01-01 to PostgreSQL's epoch, 2000-01-01.
pub(crate) const EPOCH_SHIFT_US: i64 = 946_684_800_000_000;
/// Days from 1970-01-01 to PostgreSQL's epoch, 2000-01-01.
pub(crate) const EPOCH_SHIFT_DAYS: i32 = 10_957;
/// The first instant a PostgreSQL timestamp can hold (4714-11-24 00:00 BC), since 1970.
pub(crate) const MIN_TIMESTAMP_US: i64 = -211_813_488_000_000_000 + EPOCH_SHIFT_US;
/// `-infinity` and `infinity` of timestamps.
pub(crate) const NEG_INFINITY: i64 = i64::MIN;
pub(crate) const POS_INFINITY: i64 = i64::MAX;

/// True for a value that is neither `infinity` nor `-infinity`.
#[inline]
pub(crate) fn finite(us: i64) -> bool {
    us != POS_INFINITY && us != NEG_INFINITY
}

/// (year, month 1-12, day 1-31) of a day number since 1970-01-01.
#[inline]
pub(crate) fn civil(day: i64) -> (i64, u32, u32) {
    let z = day + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let d = (doy - (153 * mp + 2) / 5 + 1) as u32;
    let m = if mp < 10 { mp + 3 } else { mp - 9 } as u32;
    (yoe + era * 400 + i64::from(m <= 2), m, d)
}

/// The day number since 1970-01-01 of a civil date.
#[inline]
pub(crate) fn days(year: i64, month: u32, day: u32) -> i64 {
    let y = year - i64::from(month <= 2);
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let m = i64::from(month);
    let doy = (153 * (if m > 2 { m - 3 } else { m + 9 }) + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

/// The Monday that begins the ISO week of a day, as a day number.
#[inline]
pub(crate) fn monday(day: i64) -> i64 {
    // 1970-01-01 was a Thursday.
    day - (day + 3).rem_euclid(7)
}
