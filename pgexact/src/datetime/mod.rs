//! `date_trunc` and `date_bin` on µs timestamps, with PostgreSQL's units, zones and errors.
//!
//! Knows the calendar and, through [`Zone`], local time. Does not know literals: unit names, strides and
//! origins arrive as values. Follows `timestamp_trunc`, `timestamptz_trunc` and `timestamp_bin` of
//! PostgreSQL's `timestamp.c` (`date_bin` as corrected in 15.7, where a timestamp on a bin's edge before
//! the origin stays in its own bin).

use arrow::array::{Array, TimestampMicrosecondArray};

use crate::calendar::{self, DAY_US, MIN_TIMESTAMP_US, finite};
use crate::zone::Cursor;
use crate::{PgError, Zone};

#[cfg(test)]
mod tests;

const SECOND_US: i64 = 1_000_000;
const MINUTE_US: i64 = 60 * SECOND_US;
const HOUR_US: i64 = 60 * MINUTE_US;

/// What `date_trunc` cuts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unit {
    Microsecond,
    Millisecond,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
    Decade,
    Century,
    Millennium,
}

/// The argument type of `date_trunc`, for its error texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Timestamp,
    TimestampTz,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Timestamp => "timestamp without time zone",
            Kind::TimestampTz => "timestamp with time zone",
        }
    }
}

/// Why a unit name is no unit of `date_trunc`.
enum NoUnit {
    Unknown,
    Unsupported,
}

impl Unit {
    /// Reads a unit name in every spelling PostgreSQL accepts. The error is 22023 for an unknown name,
    /// 0A000 for one that names a field but no unit (`timezone`). PostgreSQL raises it only when it meets
    /// a finite value, so a caller raises it per row (see [`date_trunc`]) or refuses the statement.
    pub fn parse(name: &str, kind: Kind) -> Result<Unit, PgError> {
        let lower = identifier(name);
        lookup(&lower).map_err(|no| match no {
            NoUnit::Unknown => {
                PgError::new("22023", format!("unit \"{lower}\" not recognized for type {}", kind.name()))
            }
            NoUnit::Unsupported => {
                PgError::new("0A000", format!("unit \"{lower}\" not supported for type {}", kind.name()))
            }
        })
    }
}

/// `downcase_truncate_identifier`: ASCII letters to lower case, at most 63 bytes of whole characters.
fn identifier(name: &str) -> String {
    let end = (0..=name.len().min(63)).rev().find(|i| name.is_char_boundary(*i)).unwrap_or(0);
    name[..end].to_ascii_lowercase()
}

/// The delta-token table of `datetime.c`. Its tokens hold ten characters, and longer input is compared
/// by its first ten only.
fn lookup(lower: &str) -> Result<Unit, NoUnit> {
    use Unit::*;
    let token = lower.as_bytes().get(..10).unwrap_or(lower.as_bytes());
    Ok(match token {
        b"us" | b"usec" | b"usecond" | b"useconds" | b"usecs" | b"microsecon" => Microsecond,
        b"ms" | b"msec" | b"msecond" | b"mseconds" | b"msecs" | b"millisecon" => Millisecond,
        b"s" | b"sec" | b"second" | b"seconds" | b"secs" => Second,
        b"m" | b"min" | b"mins" | b"minute" | b"minutes" => Minute,
        b"h" | b"hour" | b"hours" | b"hr" | b"hrs" => Hour,
        b"d" | b"day" | b"days" => Day,
        b"w" | b"week" | b"weeks" => Week,
        b"mon" | b"mons" | b"month" | b"months" => Month,
        b"qtr" | b"quarter" => Quarter,
        b"y" | b"year" | b"years" | b"yr" | b"yrs" => Year,
        b"dec" | b"decs" | b"decade" | b"decades" => Decade,
        b"c" | b"cent" | b"centuries" | b"century" => Century,
        b"mil" | b"mils" | b"millennia" | b"millennium" => Millennium,
        b"timezone" | b"timezone_h" | b"timezone_m" => return Err(NoUnit::Unsupported),
        _ => return Err(NoUnit::Unknown),
    })
}

/// The unit of that name, in any of its spellings.
pub(crate) fn unit_of(name: &str) -> Option<Unit> {
    lookup(&identifier(name)).ok()
}

/// The length of a unit below a day, else a day, in µs.
fn step_of(unit: Unit) -> i64 {
    match unit {
        Unit::Microsecond => 1,
        Unit::Millisecond => 1_000,
        Unit::Second => SECOND_US,
        Unit::Minute => MINUTE_US,
        Unit::Hour => HOUR_US,
        _ => DAY_US,
    }
}

/// Cuts a finite local time (µs) to `unit`. The result may lie before PostgreSQL's first timestamp.
fn truncate_local(unit: Unit, us: i64) -> i64 {
    match step_of(unit) {
        DAY_US => truncate_day(unit, us.div_euclid(DAY_US)).saturating_mul(DAY_US),
        step => us - us.rem_euclid(step),
    }
}

/// Cuts a day number to a unit of a day or more.
fn truncate_day(unit: Unit, day: i64) -> i64 {
    let (year, month, _) = calendar::civil(day);
    let first_of = |year: i64| calendar::days(year, 1, 1);
    match unit {
        Unit::Week => calendar::monday(day),
        Unit::Month => calendar::days(year, month, 1),
        Unit::Quarter => calendar::days(year, (month - 1) / 3 * 3 + 1, 1),
        Unit::Year => first_of(year),
        // Decades begin at years divisible by ten (year 0 is 1 BC), centuries and millennia one later.
        Unit::Decade => first_of(year.div_euclid(10) * 10),
        Unit::Century => first_of((year - 1).div_euclid(100) * 100 + 1),
        Unit::Millennium => first_of((year - 1).div_euclid(1000) * 1000 + 1),
        _ => day,
    }
}

fn in_range(us: i64) -> Result<i64, PgError> {
    if us < MIN_TIMESTAMP_US { Err(PgError::timestamp_out_of_range()) } else { Ok(us) }
}

/// Applies `f` to every finite value; NULLs and infinities stay. Keeps the array's time zone label.
fn map(
    array: &TimestampMicrosecondArray,
    mut f: impl FnMut(i64) -> Result<i64, PgError>,
) -> Result<TimestampMicrosecondArray, PgError> {
    let mut values = Vec::with_capacity(array.len());
    for (i, &us) in array.values().iter().enumerate() {
        values.push(if array.is_null(i) || !finite(us) { us } else { f(us)? });
    }
    let timezone = array.timezone().map(str::to_owned);
    Ok(TimestampMicrosecondArray::new(values.into(), array.nulls().cloned()).with_timezone_opt(timezone))
}

/// Instants in `from..to` that have one result.
struct Stretch {
    from: i64,
    to: i64,
    result: i64,
}

/// Values looked at together by [`map_stretches`].
const TOGETHER: usize = 64;

/// As [`map`], for an `f` that tells which instants around the one given have its result: in a file sorted by time these come in
/// long runs, and are not computed one by one.
fn map_stretches(
    array: &TimestampMicrosecondArray,
    mut f: impl FnMut(i64) -> Result<Stretch, PgError>,
) -> Result<TimestampMicrosecondArray, PgError> {
    let mut values = Vec::with_capacity(array.len());
    let nulls = array.nulls().filter(|n| n.null_count() > 0);
    let mut last = Stretch { from: 0, to: 0, result: 0 };
    for (n, some) in array.values().chunks(TOGETHER).enumerate() {
        // Infinities lie in no stretch.
        if nulls.is_none() && some.iter().fold(true, |all, us| all & (*us >= last.from) & (*us < last.to)) {
            values.resize(values.len() + some.len(), last.result);
            continue;
        }
        for (i, &us) in some.iter().enumerate() {
            if !finite(us) || nulls.is_some_and(|nulls| nulls.is_null(n * TOGETHER + i)) {
                values.push(us);
                continue;
            }
            if us < last.from || us >= last.to {
                last = f(us)?;
            }
            values.push(last.result);
        }
    }
    let timezone = array.timezone().map(str::to_owned);
    Ok(TimestampMicrosecondArray::new(values.into(), array.nulls().cloned()).with_timezone_opt(timezone))
}

/// `date_trunc(unit, timestamp)`; µs since 1970. Infinities pass through. 22008 if the result lies before
/// the first timestamp.
pub fn date_trunc_timestamp(
    unit: Unit,
    array: &TimestampMicrosecondArray,
) -> Result<TimestampMicrosecondArray, PgError> {
    map(array, |us| in_range(truncate_local(unit, us)))
}

/// `date_trunc(unit, timestamptz)` in a zone: the session's, or the one of the three-argument form.
///
/// Units below a day keep the offset of the value itself, others take the offset PostgreSQL gives the cut
/// local time. Infinities pass through. 22008 as above; [`PgError::not_exact`] where the zone's data cannot be relied on.
pub fn date_trunc_timestamptz(
    unit: Unit,
    array: &TimestampMicrosecondArray,
    zone: &Zone,
) -> Result<TimestampMicrosecondArray, PgError> {
    let mut cursor = Cursor::new(zone);
    // Within as much local time, and while the offset holds, all instants have one result.
    let step = step_of(unit);
    map_stretches(array, |us| {
        let offset = cursor.offset_us(us)?;
        let local = us.checked_add(offset).ok_or_else(PgError::timestamp_out_of_range)?;
        let begin = local - local.rem_euclid(step);
        let result = match step == DAY_US {
            false => begin - offset,
            true => {
                let day = truncate_day(unit, begin / DAY_US);
                zone.instant_of(day.checked_mul(DAY_US).ok_or_else(PgError::timestamp_out_of_range)?)?
            }
        };
        let (from, to) = cursor.stretch_us();
        Ok(Stretch {
            from: from.max(begin.saturating_sub(offset)),
            to: to.min(begin.saturating_add(step).saturating_sub(offset)),
            result: in_range(result)?,
        })
    })
}

/// A constant interval as PostgreSQL stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Interval {
    pub months: i32,
    pub days: i32,
    pub microseconds: i64,
}

impl Interval {
    /// With every field's sign changed, as subtraction does it. None if a field has no such counterpart.
    pub fn negated(self) -> Option<Interval> {
        Some(Interval {
            months: self.months.checked_neg()?,
            days: self.days.checked_neg()?,
            microseconds: self.microseconds.checked_neg()?,
        })
    }

    /// Reads `interval_send`'s 16 bytes: microseconds, days, months. None for another length.
    pub fn from_wire(bytes: &[u8]) -> Option<Interval> {
        let bytes: [u8; 16] = bytes.try_into().ok()?;
        let (time, rest) = bytes.split_at(8);
        let (days, months) = rest.split_at(4);
        // The slices have the lengths the arrays need.
        Some(Interval {
            microseconds: i64::from_be_bytes(time.try_into().ok()?),
            days: i32::from_be_bytes(days.try_into().ok()?),
            months: i32::from_be_bytes(months.try_into().ok()?),
        })
    }
}

/// `date_bin(stride, source, origin)` for timestamp and timestamptz alike; µs since 1970.
///
/// Infinite sources pass through. Raised only if a finite source is met, as PostgreSQL does: 22008
/// "origin out of range" for an infinite origin, 0A000 for a stride with months, 22008 for a stride that
/// is not positive or where the arithmetic overflows.
pub fn date_bin(
    stride: Interval,
    array: &TimestampMicrosecondArray,
    origin_us: i64,
) -> Result<TimestampMicrosecondArray, PgError> {
    let interval_out_of_range = || PgError::new("22008", "interval out of range");
    let check = || -> Result<i64, PgError> {
        if !finite(origin_us) {
            return Err(PgError::new("22008", "origin out of range"));
        }
        if stride.months != 0 {
            return Err(PgError::new(
                "0A000",
                "timestamps cannot be binned into intervals containing months or years",
            ));
        }
        let us = i64::from(stride.days)
            .checked_mul(DAY_US)
            .and_then(|us| us.checked_add(stride.microseconds))
            .ok_or_else(interval_out_of_range)?;
        if us <= 0 {
            return Err(PgError::new("22008", "stride must be greater than zero"));
        }
        Ok(us)
    };
    let checked = check();
    map(array, |us| {
        let stride = checked.clone()?;
        let difference = us.checked_sub(origin_us).ok_or_else(interval_out_of_range)?;
        let modulo = difference % stride;
        let mut delta = difference - modulo;
        if modulo < 0 {
            delta = delta.checked_sub(stride).ok_or_else(interval_out_of_range)?;
        }
        in_range(origin_us.checked_add(delta).ok_or_else(PgError::timestamp_out_of_range)?)
    })
}

/// The instants of local times (`timestamp AT TIME ZONE zone`, `timestamp::timestamptz`); µs since 1970.
pub fn timestamp_to_timestamptz(
    array: &TimestampMicrosecondArray,
    zone: &Zone,
) -> Result<TimestampMicrosecondArray, PgError> {
    Ok(map(array, |us| in_range(zone.instant_of(us)?))?.with_timezone("UTC"))
}

/// The local times of instants (`timestamptz AT TIME ZONE zone`, `timestamptz::timestamp`); µs since 1970.
pub fn timestamptz_to_timestamp(
    array: &TimestampMicrosecondArray,
    zone: &Zone,
) -> Result<TimestampMicrosecondArray, PgError> {
    let mut cursor = Cursor::new(zone);
    Ok(map(array, |us| in_range(cursor.local_of(us)?))?.with_timezone_opt(None::<std::sync::Arc<str>>))
}
