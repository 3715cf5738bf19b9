//! `to_char` of timestamps by the templates that reports use: `parse_format` and `DCH_to_char` of PostgreSQL's `formatting.c`. A template
//! with anything else is refused when it is parsed. Knows the calendar and local time. ✗ numbers, localized names (TM), time zones' names.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringViewBuilder, TimestampMicrosecondArray};

use crate::calendar::{self, DAY_US, finite};
use crate::zone::Cursor;
use crate::{PgError, Zone};

#[cfg(test)]
mod tests;

/// What a keyword of a template writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Year,
    /// The last three, two, one digits.
    YearEnd(u32),
    IsoYear,
    Month,
    MonthName(Case),
    MonthShort(Case),
    Day,
    DayOfYear,
    DayOfWeek,
    IsoDayOfWeek,
    DayName(Case),
    DayShort(Case),
    Week,
    IsoWeek,
    WeekOfMonth,
    Quarter,
    Hour24,
    Hour12,
    Minute,
    Second,
    SecondOfDay,
    /// So many digits of the fraction of a second.
    Fraction(usize),
    /// With points, and in upper case.
    Noon(bool, bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Upper,
    Title,
    Lower,
}

use Case::{Lower, Title, Upper};

/// PostgreSQL's keywords in its order, in which the first that fits is taken; None for those that are not written here.
#[rustfmt::skip]
const KEYWORDS: &[(&str, Option<Key>)] = &[
    ("A.D.", None), ("A.M.", Some(Key::Noon(true, true))), ("AD", None), ("AM", Some(Key::Noon(false, true))),
    ("B.C.", None), ("BC", None), ("CC", None),
    ("DAY", Some(Key::DayName(Upper))), ("DDD", Some(Key::DayOfYear)), ("DD", Some(Key::Day)), ("DY", Some(Key::DayShort(Upper))),
    ("Day", Some(Key::DayName(Title))), ("Dy", Some(Key::DayShort(Title))), ("D", Some(Key::DayOfWeek)),
    ("FF1", Some(Key::Fraction(1))), ("FF2", Some(Key::Fraction(2))), ("FF3", Some(Key::Fraction(3))),
    ("FF4", Some(Key::Fraction(4))), ("FF5", Some(Key::Fraction(5))), ("FF6", Some(Key::Fraction(6))), ("FX", None),
    ("HH24", Some(Key::Hour24)), ("HH12", Some(Key::Hour12)), ("HH", Some(Key::Hour12)),
    ("IDDD", None), ("ID", Some(Key::IsoDayOfWeek)), ("IW", Some(Key::IsoWeek)), ("IYYY", Some(Key::IsoYear)), ("IYY", None),
    ("IY", None), ("I", None), ("J", None),
    ("MI", Some(Key::Minute)), ("MM", Some(Key::Month)), ("MONTH", Some(Key::MonthName(Upper))), ("MON", Some(Key::MonthShort(Upper))),
    ("MS", Some(Key::Fraction(3))), ("Month", Some(Key::MonthName(Title))), ("Mon", Some(Key::MonthShort(Title))),
    ("OF", None), ("P.M.", Some(Key::Noon(true, true))), ("PM", Some(Key::Noon(false, true))), ("Q", Some(Key::Quarter)), ("RM", None),
    ("SSSSS", Some(Key::SecondOfDay)), ("SSSS", Some(Key::SecondOfDay)), ("SS", Some(Key::Second)),
    ("TZH", None), ("TZM", None), ("TZ", None), ("US", Some(Key::Fraction(6))),
    ("WW", Some(Key::Week)), ("W", Some(Key::WeekOfMonth)),
    ("Y,YYY", None), ("YYYY", Some(Key::Year)), ("YYY", Some(Key::YearEnd(3))), ("YY", Some(Key::YearEnd(2))), ("Y", Some(Key::YearEnd(1))),
    ("a.d.", None), ("a.m.", Some(Key::Noon(true, false))), ("ad", None), ("am", Some(Key::Noon(false, false))),
    ("b.c.", None), ("bc", None), ("cc", None),
    ("day", Some(Key::DayName(Lower))), ("ddd", Some(Key::DayOfYear)), ("dd", Some(Key::Day)), ("dy", Some(Key::DayShort(Lower))),
    ("d", Some(Key::DayOfWeek)),
    ("ff1", Some(Key::Fraction(1))), ("ff2", Some(Key::Fraction(2))), ("ff3", Some(Key::Fraction(3))),
    ("ff4", Some(Key::Fraction(4))), ("ff5", Some(Key::Fraction(5))), ("ff6", Some(Key::Fraction(6))), ("fx", None),
    ("hh24", Some(Key::Hour24)), ("hh12", Some(Key::Hour12)), ("hh", Some(Key::Hour12)),
    ("iddd", None), ("id", Some(Key::IsoDayOfWeek)), ("iw", Some(Key::IsoWeek)), ("iyyy", Some(Key::IsoYear)), ("iyy", None),
    ("iy", None), ("i", None), ("j", None),
    ("mi", Some(Key::Minute)), ("mm", Some(Key::Month)), ("month", Some(Key::MonthName(Lower))), ("mon", Some(Key::MonthShort(Lower))),
    ("ms", Some(Key::Fraction(3))), ("of", None), ("p.m.", Some(Key::Noon(true, false))), ("pm", Some(Key::Noon(false, false))),
    ("q", Some(Key::Quarter)), ("rm", None),
    ("sssss", Some(Key::SecondOfDay)), ("ssss", Some(Key::SecondOfDay)), ("ss", Some(Key::Second)),
    ("tzh", None), ("tzm", None), ("tz", None), ("us", Some(Key::Fraction(6))),
    ("ww", Some(Key::Week)), ("w", Some(Key::WeekOfMonth)),
    ("y,yyy", None), ("yyyy", Some(Key::Year)), ("yyy", Some(Key::YearEnd(3))), ("yy", Some(Key::YearEnd(2))), ("y", Some(Key::YearEnd(1))),
];

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    /// A keyword, and whether FM stands before it.
    Key(Key, bool),
    Literal(char),
}

/// A template that is known whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

impl Template {
    /// Reads a template. None if something in it is not written here.
    pub fn parse(template: &str) -> Option<Template> {
        let mut pieces = Vec::new();
        let mut rest = template;
        while !rest.is_empty() {
            if ["TM", "tm"].iter().any(|p| rest.starts_with(p)) {
                return None;
            }
            let fill = ["FM", "fm"].iter().any(|p| rest.starts_with(p));
            if fill {
                rest = &rest[2..];
            }
            if let Some((name, key)) = KEYWORDS.iter().find(|(name, _)| rest.starts_with(name)) {
                pieces.push(Piece::Key((*key)?, fill));
                rest = &rest[name.len()..];
                // Ordinals, and what spells numbers out.
                if ["TH", "th", "SP"].iter().any(|p| rest.starts_with(p)) {
                    return None;
                }
                continue;
            }
            let mut chars = rest.chars();
            match chars.next() {
                None => {}
                Some('"') => loop {
                    match chars.next() {
                        None | Some('"') => break,
                        // Before the end it stands for itself.
                        Some('\\') => pieces.push(Piece::Literal(chars.next().unwrap_or('\\'))),
                        Some(c) => pieces.push(Piece::Literal(c)),
                    }
                },
                Some('\\') if chars.as_str().starts_with('"') => {
                    chars.next();
                    pieces.push(Piece::Literal('"'));
                }
                Some(c) => pieces.push(Piece::Literal(c)),
            }
            rest = chars.as_str();
        }
        // A template that writes nothing gives an empty text; only an empty template gives NULL.
        if pieces.is_empty() && !template.is_empty() {
            return None;
        }
        Some(Template(pieces))
    }

    fn write(&self, local: i64, out: &mut String) {
        let (day, time) = (local.div_euclid(DAY_US), local.rem_euclid(DAY_US));
        let (year, month, of_month) = calendar::civil(day);
        let weekday = (day + 4).rem_euclid(7) as usize;
        let of_year = day - calendar::days(year, 1, 1) + 1;
        let hour = time / 3_600_000_000;
        let thursday = calendar::monday(day) + 3;
        let iso_year = calendar::civil(thursday).0;
        // Years before Christ are shown without their era.
        let shown = |year: i64| if year <= 0 { 1 - year } else { year };
        for piece in &self.0 {
            let (key, fill) = match piece {
                Piece::Literal(c) => {
                    out.push(*c);
                    continue;
                }
                Piece::Key(key, fill) => (*key, *fill),
            };
            let mut number = |value: i64, width: usize| {
                // Writing to a String cannot fail.
                let _ = write!(out, "{value:0width$}", width = if fill { 0 } else { width });
            };
            match key {
                Key::Year => number(shown(year), 4),
                Key::IsoYear => number(shown(iso_year), 4),
                Key::YearEnd(digits) => number(shown(year) % 10i64.pow(digits), digits as usize),
                Key::Month => number(month.into(), 2),
                Key::Day => number(of_month.into(), 2),
                Key::DayOfYear => number(of_year, 3),
                Key::DayOfWeek => number(weekday as i64 + 1, 1),
                Key::IsoDayOfWeek => number(if weekday == 0 { 7 } else { weekday as i64 }, 1),
                Key::Week => number((of_year - 1) / 7 + 1, 2),
                Key::IsoWeek => number((thursday - calendar::days(iso_year, 1, 1)) / 7 + 1, 2),
                Key::WeekOfMonth => number(i64::from((of_month - 1) / 7 + 1), 1),
                Key::Quarter => number(i64::from((month - 1) / 3 + 1), 1),
                Key::Hour24 => number(hour, 2),
                Key::Hour12 => number(if hour % 12 == 0 { 12 } else { hour % 12 }, 2),
                Key::Minute => number(time / 60_000_000 % 60, 2),
                Key::Second => number(time / 1_000_000 % 60, 2),
                Key::SecondOfDay => number(time / 1_000_000, 1),
                // FM does not concern them.
                Key::Fraction(digits) => {
                    let fraction = time % 1_000_000 / 10i64.pow(6 - digits as u32);
                    let _ = write!(out, "{fraction:0digits$}");
                }
                Key::MonthName(case) => name(MONTHS[month as usize - 1], case, if fill { 0 } else { 9 }, out),
                Key::MonthShort(case) => name(&MONTHS[month as usize - 1][..3], case, 0, out),
                Key::DayName(case) => name(DAYS[weekday], case, if fill { 0 } else { 9 }, out),
                Key::DayShort(case) => name(&DAYS[weekday][..3], case, 0, out),
                Key::Noon(points, upper) => {
                    let text = match (hour >= 12, points) {
                        (false, false) => "am",
                        (true, false) => "pm",
                        (false, true) => "a.m.",
                        (true, true) => "p.m.",
                    };
                    name(text, if upper { Upper } else { Lower }, 0, out);
                }
            }
        }
    }
}

fn name(name: &str, case: Case, width: usize, out: &mut String) {
    let start = out.len();
    match case {
        Upper => out.push_str(&name.to_ascii_uppercase()),
        Title => out.push_str(name),
        Lower => out.push_str(&name.to_ascii_lowercase()),
    }
    while out.len() < start + width {
        out.push(' ');
    }
}

/// `to_char(array, template)`; timestamptz in `zone`. NULL for infinities and for an empty template.
pub fn to_char(
    array: &TimestampMicrosecondArray,
    template: &Template,
    zone: &Zone,
) -> Result<ArrayRef, PgError> {
    let mut out = StringViewBuilder::with_capacity(array.len());
    let mut cursor = Cursor::new(zone);
    let mut text = String::new();
    for us in array.iter() {
        match us {
            Some(us) if finite(us) && !template.0.is_empty() => {
                let offset = if array.timezone().is_some() { cursor.offset_us(us)? } else { 0 };
                text.clear();
                template
                    .write(us.checked_add(offset).ok_or_else(PgError::timestamp_out_of_range)?, &mut text);
                out.append_value(&text);
            }
            _ => out.append_null(),
        }
    }
    Ok(Arc::new(out.finish()))
}
