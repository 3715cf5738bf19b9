//! What a condition on a cut time says about the time itself: `date_trunc('day', ts) = X` and `ts::date = X` hold only
//! for `ts` within some hours of X, by which files can be left out. Pure and conservative: the condition itself is
//! evaluated as ever.
//!
//! Cutting to hours or less never changes the offset from UTC, so bounds are exact. Cutting to days or more resolves the
//! local midnight anew: the offset of the time and of the result may differ where the zone's offset changes nearby, and
//! the bounds give way by exactly the difference of the offsets in force there.

use crate::analyze::ir::{Compare, Expr, Kernel, Node};
use crate::plan::Value;
use datafusion::arrow::array::TimestampMicrosecondArray;
use lake::types::DAY_MICROS;
use pgexact::datetime::{Unit, date_trunc_timestamp};
use pgexact::Zone;

const SECOND_US: i64 = 1_000_000;

/// Bounds (inclusive, µs since 1970) of the time in `argument` of a condition `cut(argument) compare value`; None: no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Implied {
    pub low: Option<i64>,
    pub high: Option<i64>,
}

/// A function of a time that stays near it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cut {
    /// date_trunc of a timestamp.
    Local(Unit),
    /// date_trunc of a timestamptz, in that zone.
    Zoned(Unit, Zone),
    /// The date of a timestamp.
    LocalDate,
    /// The date of a timestamptz, in that zone.
    ZonedDate(Zone),
}

/// The cut and its argument, if `expr` is one. `session` is the zone where none is named.
pub fn cut_of<'e>(expr: &'e Expr, session: &Zone) -> Option<(Cut, &'e Expr)> {
    let Node::Call(kernel, args) = &expr.node else { return None };
    let [argument] = args.as_slice() else { return None };
    let cut = match kernel {
        Kernel::DateTrunc(unit) => Cut::Local(*unit),
        Kernel::DateTruncTz(unit, None) => Cut::Zoned(*unit, session.clone()),
        Kernel::DateTruncTz(unit, Some(name)) => Cut::Zoned(*unit, Zone::parse(name)?),
        Kernel::TimestampToDate => Cut::LocalDate,
        Kernel::TimestampTzToDate => Cut::ZonedDate(session.clone()),
        _ => return None,
    };
    Some((cut, argument))
}

/// What `cut(x) compare value` implies about x.
pub fn implied(cut: &Cut, compare: Compare, value: &Value) -> Implied {
    let (at_least, at_most) = match compare {
        Compare::Eq => (true, true),
        Compare::Ge | Compare::Gt => (true, false),
        Compare::Le | Compare::Lt => (false, true),
        Compare::Ne => (false, false),
    };
    let bounds = match (cut, value) {
        (Cut::Local(unit), Value::Timestamp(us)) if is_finite(*us) => local(*unit, *us),
        (Cut::Zoned(unit, zone), Value::TimestampTz(us)) if is_finite(*us) => zoned(*unit, zone, *us),
        (Cut::LocalDate, Value::Date(day)) if is_finite_day(*day) => date(*day, (0, 0)),
        (Cut::ZonedDate(zone), Value::Date(day)) if is_finite_day(*day) => {
            let start = i64::from(*day).saturating_mul(DAY_MICROS);
            offsets(zone, start, DAY_MICROS).and_then(|o| date(*day, o))
        }
        _ => None,
    };
    match bounds {
        Some((low, high)) => Implied { low: at_least.then_some(low), high: at_most.then_some(high) },
        None => Implied { low: None, high: None },
    }
}

fn is_finite(us: i64) -> bool {
    us != i64::MIN && us != i64::MAX
}

fn is_finite_day(day: i32) -> bool {
    day != i32::MIN && day != i32::MAX
}

/// More than the unit, and less than two of it; None for units whose cut needs no local time.
fn about(unit: Unit) -> (i64, bool) {
    let days = |n: i64| (n * DAY_MICROS, true);
    match unit {
        Unit::Microsecond => (1, false),
        Unit::Millisecond => (1_000, false),
        Unit::Second => (SECOND_US, false),
        Unit::Minute => (60 * SECOND_US, false),
        Unit::Hour => (3600 * SECOND_US, false),
        Unit::Day => days(1),
        Unit::Week => days(7),
        Unit::Month => days(31),
        Unit::Quarter => days(92),
        Unit::Year => days(366),
        Unit::Decade => days(3_653),
        Unit::Century => days(36_525),
        Unit::Millennium => days(365_250),
    }
}

fn truncated(unit: Unit, us: i64) -> Option<i64> {
    let one = TimestampMicrosecondArray::from(vec![us]);
    Some(date_trunc_timestamp(unit, &one).ok()?.value(0))
}

/// The first local time of the unit after the one that holds `us`.
fn next(unit: Unit, us: i64) -> Option<i64> {
    truncated(unit, truncated(unit, us)?.checked_add(about(unit).0)?)
}

/// Bounds of a local time whose cut is `us`: from, and the last.
fn local(unit: Unit, us: i64) -> Option<(i64, i64)> {
    Some((us, next(unit, us)?.checked_sub(1)?))
}

fn zoned(unit: Unit, zone: &Zone, us: i64) -> Option<(i64, i64)> {
    let (length, resolves) = about(unit);
    if !resolves {
        return Some((us, us.checked_add(length - 1)?));
    }
    let (least, greatest) = offsets(zone, us, length)?;
    let low = us.checked_sub(greatest - least)?;
    let high = next(unit, us.checked_add(greatest)?)?.checked_sub(least)?.checked_sub(1)?;
    Some((low, high))
}

fn date(day: i32, (least, greatest): (i64, i64)) -> Option<(i64, i64)> {
    let start = i64::from(day).checked_mul(DAY_MICROS)?;
    let end = start.checked_add(DAY_MICROS - 1)?;
    Some((start.checked_sub(greatest)?, end.checked_sub(least)?))
}

/// The least and the greatest offset (µs east) in force from well before `us` to well after `us + length`.
fn offsets(zone: &Zone, us: i64, length: i64) -> Option<(i64, i64)> {
    // Offsets are within a day of UTC, and a local time is resolved by the changes within a day.
    let margin = 3 * DAY_MICROS / SECOND_US;
    let from = us.div_euclid(SECOND_US).checked_sub(margin)?;
    let to = us.checked_add(length)?.div_euclid(SECOND_US).checked_add(margin)?;
    let changes = zone.changes();
    let first = zone.offset_at(from).ok()?;
    let begin = changes.partition_point(|c| c.0 <= from);
    let end = changes.partition_point(|c| c.0 <= to);
    let within = changes.get(begin..end)?.iter().map(|c| c.1).chain([first]);
    let (least, greatest) = within.fold((i32::MAX, i32::MIN), |(l, g), o| (l.min(o), g.max(o)));
    Some((i64::from(least) * SECOND_US, i64::from(greatest) * SECOND_US))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgexact::datetime::{date_trunc_timestamptz, timestamptz_to_timestamp};
    use proptest::prelude::*;

    const UNITS: [Unit; 13] = [
        Unit::Microsecond,
        Unit::Millisecond,
        Unit::Second,
        Unit::Minute,
        Unit::Hour,
        Unit::Day,
        Unit::Week,
        Unit::Month,
        Unit::Quarter,
        Unit::Year,
        Unit::Decade,
        Unit::Century,
        Unit::Millennium,
    ];
    /// Among them zones that go back at midnight, skip a day, or change by half an hour.
    const ZONES: [&str; 8] = [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "America/Havana",
        "Pacific/Apia",
        "Australia/Lord_Howe",
        "Asia/Kolkata",
        "America/Sao_Paulo",
    ];

    fn at(text: &str) -> i64 {
        chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
    }

    fn cut(cut: &Cut, us: i64) -> Option<Value> {
        let one = TimestampMicrosecondArray::from(vec![us]);
        let day = |us: i64| Value::Date(us.div_euclid(DAY_MICROS) as i32);
        Some(match cut {
            Cut::Local(unit) => Value::Timestamp(date_trunc_timestamp(*unit, &one).ok()?.value(0)),
            Cut::Zoned(unit, zone) => Value::TimestampTz(date_trunc_timestamptz(*unit, &one, zone).ok()?.value(0)),
            Cut::LocalDate => day(us),
            Cut::ZonedDate(zone) => day(timestamptz_to_timestamp(&one, zone).ok()?.value(0)),
        })
    }

    fn number(value: &Value) -> i64 {
        match value {
            Value::Timestamp(v) | Value::TimestampTz(v) => *v,
            Value::Date(v) => i64::from(*v),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn days_are_exact_away_from_changes() {
        let berlin = Zone::parse("Europe/Berlin").unwrap();
        let day = at("2026-01-14T23:00:00Z");
        let zoned = Cut::Zoned(Unit::Day, berlin.clone());
        let bounds = implied(&zoned, Compare::Eq, &Value::TimestampTz(day));
        assert_eq!(bounds, Implied { low: Some(day), high: Some(day + DAY_MICROS - 1) });
        let bounds = implied(&zoned, Compare::Ge, &Value::TimestampTz(day));
        assert_eq!(bounds, Implied { low: Some(day), high: None });
        let date = Value::Date(20_468); // 2026-01-15
        let bounds = implied(&Cut::ZonedDate(berlin), Compare::Eq, &date);
        assert_eq!(bounds, Implied { low: Some(day), high: Some(day + DAY_MICROS - 1) });
    }

    #[test]
    fn a_month_ends_where_the_next_begins() {
        let february = at("2026-02-01T00:00:00Z");
        let bounds = implied(&Cut::Local(Unit::Month), Compare::Eq, &Value::Timestamp(february));
        assert_eq!(bounds.high, Some(at("2026-03-01T00:00:00Z") - 1));
        let none = implied(&Cut::Local(Unit::Month), Compare::Ne, &Value::Timestamp(february));
        assert_eq!(none, Implied { low: None, high: None });
        let infinite = implied(&Cut::Local(Unit::Month), Compare::Eq, &Value::Timestamp(i64::MAX));
        assert_eq!(infinite, Implied { low: None, high: None });
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

        /// No time whose cut fulfils the condition is outside of the bounds.
        #[test]
        fn bounds_leave_nothing_out(
            unit in 0..UNITS.len(),
            zone in 0..ZONES.len(),
            kind in 0..4,
            // Half of the times near a change of offset.
            near in any::<prop::sample::Index>(),
            by_change in any::<bool>(),
            away in -200_000i64..200_000,
            spread in -4_000_000_000i64..4_000_000_000,
            other in -400_000i64..400_000,
        ) {
            let zone = Zone::parse(ZONES[zone]).unwrap();
            let recent: Vec<i64> = zone.changes().iter().map(|c| c.0).filter(|s| (0..4_000_000_000).contains(s)).collect();
            let seconds = match recent.is_empty() || !by_change {
                true => spread.rem_euclid(4_000_000_000),
                false => recent[near.index(recent.len())],
            };
            let us = (seconds + away) * SECOND_US + away.rem_euclid(1000);
            let kind = match kind {
                0 => Cut::Local(UNITS[unit]),
                1 => Cut::Zoned(UNITS[unit], zone),
                2 => Cut::LocalDate,
                _ => Cut::ZonedDate(zone),
            };
            let (Some(own), Some(others)) = (cut(&kind, us), cut(&kind, us + other * SECOND_US)) else { return Ok(()) };
            for value in [own.clone(), others] {
                let (own, value_number) = (number(&own), number(&value));
                for (compare, holds) in [
                    (Compare::Eq, own == value_number),
                    (Compare::Ge, own >= value_number),
                    (Compare::Gt, own > value_number),
                    (Compare::Le, own <= value_number),
                    (Compare::Lt, own < value_number),
                ] {
                    let bounds = implied(&kind, compare, &value);
                    if holds {
                        prop_assert!(bounds.low.is_none_or(|low| low <= us), "{:?} {:?} {:?}", kind, compare, bounds);
                        prop_assert!(bounds.high.is_none_or(|high| us <= high), "{:?} {:?} {:?}", kind, compare, bounds);
                    }
                }
            }
        }
    }
}
