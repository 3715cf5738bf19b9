//! `extract` and `date_part` of dates and timestamps: `timestamp_part_common`, `timestamptz_part_common` and `extract_date` of PostgreSQL's
//! `timestamp.c` and `date.c`. Knows the calendar and, through [`Zone`], local time. ✗ intervals, but the seconds between two timestamps.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Builder, Float64Builder};
use arrow::datatypes::{DataType, Date32Type, TimeUnit, TimestampMicrosecondType};

use crate::calendar::{self, DAY_US, finite};
use crate::datetime::{Unit, unit_of};
use crate::scalar::misused;
use crate::zone::Cursor;
use crate::{PgError, Zone};

#[cfg(test)]
mod tests;

/// What is extracted. Julian days are PostgreSQL's, but of dates: their fraction has a scale that depends on the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    Unit(Unit),
    IsoYear,
    Dow,
    IsoDow,
    Doy,
    Epoch,
    Julian,
    Timezone,
    TimezoneHour,
    TimezoneMinute,
}

/// What it is extracted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    Date,
    Timestamp,
    TimestampTz,
}

impl Field {
    /// The field of that name, where extracting it raises no error and is computed here.
    pub fn parse(name: &str, source: Source) -> Option<Field> {
        let field = match name.to_ascii_lowercase().as_str() {
            "isoyear" => Field::IsoYear,
            "dow" => Field::Dow,
            "isodow" => Field::IsoDow,
            "doy" => Field::Doy,
            "epoch" => Field::Epoch,
            "julian" => Field::Julian,
            "timezone" => Field::Timezone,
            "timezone_hour" => Field::TimezoneHour,
            "timezone_minute" => Field::TimezoneMinute,
            other => Field::Unit(unit_of(other)?),
        };
        let known = match (field, source) {
            (Field::Timezone | Field::TimezoneHour | Field::TimezoneMinute, source) => {
                source == Source::TimestampTz
            }
            (Field::Julian, source) => source == Source::Date,
            (Field::Unit(unit), Source::Date) => !matches!(
                unit,
                Unit::Microsecond | Unit::Millisecond | Unit::Second | Unit::Minute | Unit::Hour
            ),
            _ => true,
        };
        known.then_some(field)
    }

    /// Digits and scale of the numeric.
    pub fn digits(self, source: Source) -> (u8, i8) {
        match (self, source) {
            (Field::Epoch, Source::Date) => (19, 0),
            (Field::Epoch, _) => (20, 6),
            (Field::Unit(Unit::Second), _) => (8, 6),
            (Field::Unit(Unit::Millisecond), _) => (8, 3),
            _ => (10, 0),
        }
    }

    /// Whether infinity has the field (it is infinite then).
    fn grows(self) -> bool {
        matches!(
            self,
            Field::Unit(Unit::Year | Unit::Decade | Unit::Century | Unit::Millennium)
                | Field::IsoYear
                | Field::Epoch
                | Field::Julian
        )
    }

    /// The field of a local time, at the scale of [`Field::digits`]. `us` is the instant; `offset` is in seconds east.
    fn of(self, us: i128, day: i64, time: i64, offset: i64) -> i128 {
        let (year, month, of_month) = calendar::civil(day);
        let first = || calendar::days(year, 1, 1);
        // There is no year 0; it is 1 BC inside.
        let no_zero = |year: i64| if year > 0 { year } else { year - 1 };
        i128::from(match self {
            Field::Epoch => return us,
            Field::Julian => day + 2_440_588,
            Field::Timezone => offset,
            Field::TimezoneHour => offset / 3600,
            Field::TimezoneMinute => offset / 60 % 60,
            Field::Dow => (day + 4).rem_euclid(7),
            Field::IsoDow => (day + 3).rem_euclid(7) + 1,
            Field::Doy => day - first() + 1,
            Field::IsoYear => no_zero(calendar::civil(calendar::monday(day) + 3).0),
            Field::Unit(unit) => match unit {
                // At their scales all three are the microseconds of the minute.
                Unit::Microsecond | Unit::Millisecond | Unit::Second => time % 60_000_000,
                Unit::Minute => time / 60_000_000 % 60,
                Unit::Hour => time / 3_600_000_000,
                Unit::Day => of_month.into(),
                Unit::Week => {
                    let thursday = calendar::monday(day) + 3;
                    (thursday - calendar::days(calendar::civil(thursday).0, 1, 1)) / 7 + 1
                }
                Unit::Month => month.into(),
                Unit::Quarter => i64::from((month - 1) / 3 + 1),
                Unit::Year => no_zero(year),
                Unit::Decade if year >= 0 => year / 10,
                Unit::Decade => -((8 - (year - 1)) / 10),
                Unit::Century if year > 0 => (year + 99) / 100,
                Unit::Century => -((99 - (year - 1)) / 100),
                Unit::Millennium if year > 0 => (year + 999) / 1000,
                Unit::Millennium => -((999 - (year - 1)) / 1000),
            },
        })
    }

    /// As [`Field::of`], as `date_part` gives it.
    fn float(self, us: i128, day: i64, time: i64, offset: i64) -> f64 {
        let (second, fraction) = ((time / 1_000_000 % 60) as f64, (time % 1_000_000) as f64);
        match self {
            Field::Epoch => us as f64 / 1_000_000.0,
            Field::Unit(Unit::Second) => second + fraction / 1_000_000.0,
            Field::Unit(Unit::Millisecond) => second * 1000.0 + fraction / 1000.0,
            other => other.of(us, day, time, offset) as f64,
        }
    }
}

enum Out {
    Numeric(Decimal128Builder),
    Float(Float64Builder),
}

impl Out {
    fn new(returns: &DataType, rows: usize) -> Result<Out, PgError> {
        Ok(match returns {
            DataType::Float64 => Out::Float(Float64Builder::with_capacity(rows)),
            DataType::Decimal128(precision, scale) => Out::Numeric(
                Decimal128Builder::with_capacity(rows)
                    .with_precision_and_scale(*precision, *scale)
                    .map_err(|e| PgError::not_exact(e.to_string()))?,
            ),
            _ => return Err(misused()),
        })
    }

    fn put(&mut self, field: Field, us: i128, day: i64, time: i64, offset: i64) {
        match self {
            Out::Numeric(b) => b.append_value(field.of(us, day, time, offset)),
            Out::Float(b) => b.append_value(field.float(us, day, time, offset)),
        }
    }

    fn null(&mut self) {
        match self {
            Out::Numeric(b) => b.append_null(),
            Out::Float(b) => b.append_null(),
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Out::Numeric(mut b) => Arc::new(b.finish()),
            Out::Float(mut b) => Arc::new(b.finish()),
        }
    }
}

/// `extract(field FROM array)`, a decimal with the digits of [`Field::digits`], or `date_part(field, array)`, a Float64, as `returns` says.
/// `zone` is the session's, for timestamptz. [`PgError::not_exact`] for infinities whose field is infinite.
pub fn extract(
    field: Field,
    array: &dyn Array,
    zone: &Zone,
    returns: &DataType,
) -> Result<ArrayRef, PgError> {
    let mut out = Out::new(returns, array.len())?;
    let infinite = |out: &mut Out| match field.grows() {
        true => Err(PgError::not_exact("a field of infinity")),
        false => {
            out.null();
            Ok(())
        }
    };
    match array.data_type() {
        DataType::Date32 => {
            // The epoch of a date is of scale 0, in seconds; date_part takes it as a timestamp.
            let unit = if matches!(returns, DataType::Float64) { i128::from(DAY_US) } else { 86_400 };
            for day in array.as_primitive::<Date32Type>() {
                match day {
                    None => out.null(),
                    Some(i32::MAX | i32::MIN) => infinite(&mut out)?,
                    Some(day) => out.put(field, i128::from(day) * unit, day.into(), 0, 0),
                }
            }
        }
        DataType::Timestamp(TimeUnit::Microsecond, label) => {
            let mut cursor = Cursor::new(zone);
            for us in array.as_primitive::<TimestampMicrosecondType>() {
                match us {
                    None => out.null(),
                    Some(us) if !finite(us) => infinite(&mut out)?,
                    Some(us) => {
                        let offset = if label.is_some() { cursor.offset_us(us)? } else { 0 };
                        let local = us.checked_add(offset).ok_or_else(PgError::timestamp_out_of_range)?;
                        let (day, time) = (local.div_euclid(DAY_US), local.rem_euclid(DAY_US));
                        out.put(field, us.into(), day, time, offset / 1_000_000);
                    }
                }
            }
        }
        _ => return Err(misused()),
    }
    Ok(out.finish())
}

/// `extract(epoch FROM a - b)` of two timestamps or two timestamptz (`timestamp_mi`, `interval_part_common`): days of 24 hours and the rest.
pub fn epoch_between(a: &dyn Array, b: &dyn Array, returns: &DataType) -> Result<ArrayRef, PgError> {
    let (Some(a), Some(b)) =
        (a.as_primitive_opt::<TimestampMicrosecondType>(), b.as_primitive_opt::<TimestampMicrosecondType>())
    else {
        return Err(misused());
    };
    let mut out = Out::new(returns, a.len())?;
    for pair in a.iter().zip(b.iter()) {
        let (Some(a), Some(b)) = pair else {
            out.null();
            continue;
        };
        if !finite(a) || !finite(b) {
            return Err(PgError::new("22008", "cannot subtract infinite timestamps"));
        }
        let difference = a.checked_sub(b).ok_or_else(|| PgError::not_exact("a very long interval"))?;
        match &mut out {
            Out::Numeric(builder) => builder.append_value(difference.into()),
            Out::Float(builder) => {
                let (days, rest) = (difference / DAY_US, difference % DAY_US);
                builder.append_value(rest as f64 / 1_000_000.0 + 86_400.0 * days as f64);
            }
        }
    }
    Ok(out.finish())
}
