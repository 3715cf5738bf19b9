//! Instants as text and numbers to microseconds since 1970-01-01 00:00 UTC and back; the Gregorian calendar, proleptic,
//! years 1 to 9999. Knows no time zones but fixed offsets, and no records.
//!
//! Day arithmetic is the era method (400-year cycles beginning on 1 March) described by Howard Hinnant in
//! "chrono-Compatible Low-Level Date Algorithms".

use std::fmt;

/// Microseconds a second.
pub const SECOND: i64 = 1_000_000;
/// Microseconds a day.
pub const DAY: i64 = 86_400 * SECOND;
/// 0001-01-01 00:00:00 UTC.
pub const MIN_MICROS: i64 = -62_135_596_800 * SECOND;
/// 9999-12-31 23:59:59.999999 UTC.
pub const MAX_MICROS: i64 = 253_402_300_800 * SECOND - 1;

/// An instant as read from a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instant {
    /// Microseconds since 1970, UTC.
    At(i64),
    /// PostgreSQL's `infinity`.
    Infinity,
    /// PostgreSQL's `-infinity`.
    NegInfinity,
}

/// Why a value is not an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeError {
    /// Neither ISO 8601 nor a number of seconds, milliseconds, microseconds or nanoseconds.
    NotATime,
    /// A field is out of its range, or the year is not 1 to 9999.
    OutOfRange,
}

impl fmt::Display for TimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TimeError::NotATime => "is neither an ISO 8601 time nor an epoch number",
            TimeError::OutOfRange => "is a time that does not exist or is out of range (years 1 to 9999)",
        })
    }
}

/// Days since 1970-01-01 of a civil date; the date must exist (see [`days_in_month`]).
pub fn days_from_civil(year: i32, month: u32, day: u32) -> i64 {
    let y = i64::from(year) - i64::from(month <= 2);
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let mp = (i64::from(month) + 9) % 12;
    let doy = (153 * mp + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

/// Year, month and day of a number of days since 1970-01-01.
pub fn civil_from_days(days: i64) -> (i32, u32, u32) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = (doy - (153 * mp + 2) / 5 + 1) as u32;
    let month = if mp < 10 { mp + 3 } else { mp - 9 } as u32;
    ((yoe + era * 400) as i32 + i32::from(month <= 2), month, day)
}

/// Days of a month.
pub fn days_in_month(year: i32, month: u32) -> u32 {
    match month {
        2 if (year % 4 == 0 && year % 100 != 0) || year % 400 == 0 => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Microseconds of a civil date and time of day at an offset east of UTC in seconds. Second 60 and 24:00:00 mean the
/// next minute and day, as PostgreSQL reads them.
pub fn micros(
    (year, month, day): (i32, u32, u32),
    (hour, minute, second, fraction): (u32, u32, u32, i64),
    offset_seconds: i32,
) -> Result<i64, TimeError> {
    let date_ok = (1..=9999).contains(&year)
        && (1..=12).contains(&month)
        && day >= 1
        && day <= days_in_month(year, month);
    let time_ok = minute <= 59
        && second <= 60
        && (hour <= 23 || (hour == 24 && minute == 0 && second == 0 && fraction == 0));
    if !date_ok || !time_ok {
        return Err(TimeError::OutOfRange);
    }
    let seconds = days_from_civil(year, month, day) * 86_400
        + i64::from(hour) * 3600
        + i64::from(minute) * 60
        + i64::from(second)
        - i64::from(offset_seconds);
    in_range(seconds * SECOND + fraction)
}

fn in_range(us: i64) -> Result<i64, TimeError> {
    if (MIN_MICROS..=MAX_MICROS).contains(&us) { Ok(us) } else { Err(TimeError::OutOfRange) }
}

/// A cursor over ASCII digits and signs.
struct Cursor<'a> {
    s: &'a [u8],
}

impl Cursor<'_> {
    fn digits(&mut self, min: usize, max: usize) -> Option<u32> {
        let n = self.s.iter().take(max).take_while(|b| b.is_ascii_digit()).count();
        if n < min {
            return None;
        }
        let v = self.s[..n].iter().fold(0u32, |v, b| v * 10 + u32::from(b - b'0'));
        self.s = &self.s[n..];
        Some(v)
    }

    fn eat(&mut self, set: &[u8]) -> Option<u8> {
        let b = *self.s.first()?;
        set.contains(&b).then(|| {
            self.s = &self.s[1..];
            b
        })
    }

    /// Digits after the decimal sign as microseconds, rounded half to even at the sixth.
    fn fraction(&mut self) -> Option<i64> {
        let n = self.s.iter().take_while(|b| b.is_ascii_digit()).count();
        if n == 0 {
            return None;
        }
        let us = fraction_micros(&self.s[..n]);
        self.s = &self.s[n..];
        Some(us)
    }
}

/// Fraction digits as microseconds, rounded half to even; may be 1,000,000.
fn fraction_micros(digits: &[u8]) -> i64 {
    let mut us = 0i64;
    for i in 0..6 {
        us = us * 10 + digits.get(i).map_or(0, |b| i64::from(b - b'0'));
    }
    let rest = digits.get(6..).unwrap_or(&[]);
    let up = match rest.first() {
        Some(b'6'..=b'9') => true,
        Some(b'5') => rest[1..].iter().any(|&b| b != b'0') || us % 2 == 1,
        _ => false,
    };
    us + i64::from(up)
}

/// Reads a time as text: ISO 8601 (`2015-05-17T10:05:03.123456+02:00`; a blank for the `T`, a comma in the fraction, a
/// missing zone meaning UTC, a date alone), an epoch number, or `infinity`.
pub fn parse(text: &str) -> Result<Instant, TimeError> {
    let t = text.trim_matches(|c: char| c.is_ascii_whitespace());
    let s = t.as_bytes();
    // Four digits and a dash begin a date; every other digit string is a number.
    if s.len() >= 8 && s[4] == b'-' && s[..4].iter().all(u8::is_ascii_digit) {
        return parse_iso(s).map(Instant::At);
    }
    if t.eq_ignore_ascii_case("infinity") || t.eq_ignore_ascii_case("+infinity") {
        return Ok(Instant::Infinity);
    }
    if t.eq_ignore_ascii_case("-infinity") {
        return Ok(Instant::NegInfinity);
    }
    parse_epoch(t).map(Instant::At)
}

fn parse_iso(s: &[u8]) -> Result<i64, TimeError> {
    let bad = TimeError::NotATime;
    let mut c = Cursor { s };
    let year = c.digits(4, 4).ok_or(bad)? as i32;
    c.eat(b"-").ok_or(bad)?;
    let month = c.digits(1, 2).ok_or(bad)?;
    c.eat(b"-").ok_or(bad)?;
    let day = c.digits(1, 2).ok_or(bad)?;
    let (mut hour, mut minute, mut second, mut fraction) = (0, 0, 0, 0);
    if c.eat(b"Tt ").is_some() {
        hour = c.digits(1, 2).ok_or(bad)?;
        c.eat(b":").ok_or(bad)?;
        minute = c.digits(2, 2).ok_or(bad)?;
        if c.eat(b":").is_some() {
            second = c.digits(2, 2).ok_or(bad)?;
            if c.eat(b".,").is_some() {
                fraction = c.fraction().ok_or(bad)?;
            }
        }
    }
    c.eat(b" ");
    let offset = parse_offset(&mut c)?;
    if !c.s.is_empty() {
        return Err(bad);
    }
    micros((year, month, day), (hour, minute, second, fraction), offset)
}

/// `Z`, `+hh`, `+hhmm`, `+hh:mm`, `+hh:mm:ss` or nothing, as seconds east of UTC.
fn parse_offset(c: &mut Cursor<'_>) -> Result<i32, TimeError> {
    let bad = TimeError::NotATime;
    let Some(sign) = c.eat(b"Zz+-") else {
        return Ok(0);
    };
    if matches!(sign, b'Z' | b'z') {
        return Ok(0);
    }
    let h = c.digits(2, 2).ok_or(bad)?;
    let (mut m, mut s) = (0, 0);
    let colon = c.eat(b":").is_some();
    if colon || !c.s.is_empty() {
        m = c.digits(2, 2).ok_or(bad)?;
        if c.eat(b":").is_some() {
            s = c.digits(2, 2).ok_or(bad)?;
        }
    }
    if h > 15 || m > 59 || s > 59 {
        return Err(TimeError::OutOfRange);
    }
    let v = (h * 3600 + m * 60 + s) as i32;
    Ok(if sign == b'-' { -v } else { v })
}

/// `+0000`-like offset of web logs, in seconds east of UTC.
pub fn offset(text: &str) -> Option<i32> {
    let mut c = Cursor { s: text.as_bytes() };
    let v = parse_offset(&mut c).ok()?;
    c.s.is_empty().then_some(v)
}

/// What an epoch number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Epoch {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Millis,
    /// Microseconds.
    Micros,
    /// Nanoseconds.
    Nanos,
}

/// Below this, a number counts seconds (until the year 5138),
const SECONDS_BELOW: i128 = 100_000_000_000;
/// below this milliseconds (those before 1973 are taken for seconds),
const MILLIS_BELOW: i128 = 100_000_000_000_000;
/// below this microseconds, else nanoseconds.
const MICROS_BELOW: i128 = 100_000_000_000_000_000;

impl Epoch {
    /// The unit that follows from the magnitude of a number: below 10^11 seconds, below 10^14 milliseconds, below 10^17
    /// microseconds, else nanoseconds. An instant from 1973-03-03 to 5138-11-16 is read rightly in each of them.
    fn of_magnitude(value: i128) -> Epoch {
        match value {
            v if v < SECONDS_BELOW => Epoch::Seconds,
            v if v < MILLIS_BELOW => Epoch::Millis,
            v if v < MICROS_BELOW => Epoch::Micros,
            _ => Epoch::Nanos,
        }
    }
}

/// Reads an epoch number written in decimal, whose unit follows from its magnitude. Exact: no floating point unless the
/// number has an exponent.
pub fn parse_epoch(text: &str) -> Result<i64, TimeError> {
    parse_epoch_in(text, None)
}

/// As [`parse_epoch`], of a known unit if there is one.
pub fn parse_epoch_in(text: &str, unit: Option<Epoch>) -> Result<i64, TimeError> {
    let (negative, digits) = match text.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let int_len = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    let (int, rest) = digits.split_at(int_len);
    let fraction: &[u8] = match rest {
        [] => &[],
        [b'.', f @ ..] if !f.is_empty() && f.iter().all(u8::is_ascii_digit) => f,
        _ => return parse_epoch_float(text, unit),
    };
    if int.is_empty() {
        return Err(TimeError::NotATime);
    }
    let int = &int[int.iter().take_while(|&&b| b == b'0').count()..];
    if int.len() > 20 {
        return Err(TimeError::OutOfRange);
    }
    let value = int.iter().fold(0i128, |v, b| v * 10 + i128::from(b - b'0'));
    let us = match unit.unwrap_or_else(|| Epoch::of_magnitude(value)) {
        Epoch::Seconds => value * 1_000_000 + i128::from(fraction_micros(fraction)),
        // A fraction of a millisecond: its digits from the fourth on are below a microsecond.
        Epoch::Millis => value * 1_000 + i128::from(fraction_micros(fraction) / 1_000),
        Epoch::Micros => value,
        Epoch::Nanos => value / 1_000,
    };
    let us = i64::try_from(us).map_err(|_| TimeError::OutOfRange)?;
    in_range(if negative { -us } else { us })
}

fn parse_epoch_float(text: &str, unit: Option<Epoch>) -> Result<i64, TimeError> {
    // Rust reads "inf" and "nan" as floats; as times they are neither.
    if !text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-')) {
        return Err(TimeError::NotATime);
    }
    // Digits on both sides of the point, as JSON has it.
    let b = text.as_bytes();
    let point_ok = b
        .iter()
        .position(|c| *c == b'.')
        .is_none_or(|i| i > 0 && b[i - 1].is_ascii_digit() && b.get(i + 1).is_some_and(u8::is_ascii_digit));
    let v: f64 = text.parse().map_err(|_| TimeError::NotATime)?;
    if !point_ok {
        return Err(TimeError::NotATime);
    }
    // Beyond 10^18 all are nanoseconds, and a float that large fits an i128 or is cut off at its end.
    let scale = match unit.unwrap_or_else(|| Epoch::of_magnitude(v.abs() as i128)) {
        Epoch::Seconds => 1e6,
        Epoch::Millis => 1e3,
        Epoch::Micros => 1.0,
        Epoch::Nanos => 1e-3,
    };
    let us = (v * scale).round();
    if !us.is_finite() || us.abs() > 1e18 {
        return Err(TimeError::OutOfRange);
    }
    in_range(us as i64)
}

/// Reads ISO 8601 only, as [`parse`] does.
pub fn parse_iso8601(text: &str) -> Result<i64, TimeError> {
    let s = text.trim_matches(|c: char| c.is_ascii_whitespace()).as_bytes();
    if s.len() >= 8 && s[4] == b'-' { parse_iso(s) } else { Err(TimeError::NotATime) }
}

/// English month abbreviation, 1 to 12.
pub fn month(name: &[u8]) -> Option<u32> {
    const NAMES: [&[u8; 3]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    NAMES.iter().position(|n| n.eq_ignore_ascii_case(name)).map(|i| i as u32 + 1)
}

fn push2(out: &mut Vec<u8>, v: u32) {
    out.push(b'0' + (v / 10 % 10) as u8);
    out.push(b'0' + (v % 10) as u8);
}

fn push_date(out: &mut Vec<u8>, days: i64) {
    let (year, month, day) = civil_from_days(days);
    push2(out, year as u32 / 100);
    push2(out, year as u32 % 100);
    out.push(b'-');
    push2(out, month);
    out.push(b'-');
    push2(out, day);
}

/// Appends `YYYY-MM-DD`; days since 1970 of the years 1 to 9999.
pub fn write_date(out: &mut Vec<u8>, days: i64) {
    push_date(out, days);
}

/// Appends `YYYY-MM-DD{separator}HH:MM:SS[.ffffff]`; microseconds since 1970 within the years 1 to 9999.
pub fn write(out: &mut Vec<u8>, us: i64, separator: u8) {
    push_date(out, us.div_euclid(DAY));
    out.push(separator);
    let of_day = us.rem_euclid(DAY);
    let s = (of_day / SECOND) as u32;
    push2(out, s / 3600);
    out.push(b':');
    push2(out, s / 60 % 60);
    out.push(b':');
    push2(out, s % 60);
    let f = (of_day % SECOND) as u32;
    if f != 0 {
        out.push(b'.');
        push2(out, f / 10_000);
        push2(out, f / 100 % 100);
        push2(out, f % 100);
    }
}

#[cfg(test)]
#[path = "time_tests.rs"]
mod tests;
