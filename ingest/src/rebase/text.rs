//! Rows of the lake as lines of PostgreSQL's COPY in text form, under the settings that the archiver's connections pin (ISO dates,
//! UTC). Pure.

use std::fmt::Write as _;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use arrow::record_batch::RecordBatch;
use lake::types::{ColType, DAY_MICROS};

/// Appends row `row` of `batch`, whose columns are of `types`, as one line.
///
/// Errors: the type that has no text, which none of the type table's is.
pub(super) fn line(batch: &RecordBatch, types: &[ColType], row: usize, out: &mut String) -> Result<(), String> {
    for (i, (column, ty)) in batch.columns().iter().zip(types).enumerate() {
        if i > 0 {
            out.push('\t');
        }
        if column.is_null(row) {
            out.push_str("\\N");
        } else {
            value(column.as_ref(), *ty, row, out)?;
        }
    }
    out.push('\n');
    Ok(())
}

fn value(column: &dyn Array, ty: ColType, row: usize, out: &mut String) -> Result<(), String> {
    // Writing to a String cannot fail.
    let _ = match column.data_type() {
        DataType::Boolean => write!(out, "{}", if column.as_boolean().value(row) { 't' } else { 'f' }),
        DataType::Int16 => write!(out, "{}", column.as_primitive::<Int16Type>().value(row)),
        DataType::Int32 => write!(out, "{}", column.as_primitive::<Int32Type>().value(row)),
        // Transaction numbers have 64 bits and no sign.
        DataType::Int64 if ty == ColType::Xid8 => {
            write!(out, "{}", column.as_primitive::<Int64Type>().value(row) as u64)
        }
        DataType::Int64 => write!(out, "{}", column.as_primitive::<Int64Type>().value(row)),
        // The shortest digits that read back as the same value.
        DataType::Float32 => write!(out, "{}", column.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => write!(out, "{}", column.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(..) => {
            out.push_str(&column.as_primitive::<Decimal128Type>().value_as_string(row));
            Ok(())
        }
        DataType::Date32 => {
            date(column.as_primitive::<Date32Type>().value(row), out);
            Ok(())
        }
        DataType::Timestamp(..) => {
            timestamp(column.as_primitive::<TimestampMicrosecondType>().value(row), out);
            Ok(())
        }
        DataType::Utf8View => {
            escaped(column.as_string_view().value(row), out);
            Ok(())
        }
        DataType::BinaryView => {
            // The backslash of bytea's form is itself escaped.
            out.push_str("\\\\x");
            out.push_str(&hex::encode(column.as_binary_view().value(row)));
            Ok(())
        }
        other => return Err(other.to_string()),
    };
    Ok(())
}

fn escaped(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c => out.push(c),
        }
    }
}

/// Year, month and day of days since 1970 in the proleptic Gregorian calendar. Eras of 400 years begin on 1 March, so that the leap day
/// is a year's last.
fn civil(days: i64) -> (i64, u32, u32) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month as u32, day as u32)
}

fn day(days: i64, out: &mut String) -> &'static str {
    let (year, month, day) = civil(days);
    // There is no year 0: 1 BC comes before 1.
    let (shown, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    let _ = write!(out, "{shown:04}-{month:02}-{day:02}");
    era
}

fn date(days: i32, out: &mut String) {
    match days {
        i32::MAX => out.push_str("infinity"),
        i32::MIN => out.push_str("-infinity"),
        days => {
            let era = day(i64::from(days), out);
            out.push_str(era);
        }
    }
}

fn timestamp(micros: i64, out: &mut String) {
    match micros {
        i64::MAX => out.push_str("infinity"),
        i64::MIN => out.push_str("-infinity"),
        micros => {
            let era = day(micros.div_euclid(DAY_MICROS), out);
            let rest = micros.rem_euclid(DAY_MICROS);
            let (seconds, fraction) = (rest / 1_000_000, rest % 1_000_000);
            let _ = write!(
                out,
                " {:02}:{:02}:{:02}.{fraction:06}+00{era}",
                seconds / 3600,
                seconds / 60 % 60,
                seconds % 60
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(micros: i64) -> String {
        let mut out = String::new();
        timestamp(micros, &mut out);
        out
    }

    #[test]
    fn times_of_every_age() {
        assert_eq!(shown(0), "1970-01-01 00:00:00.000000+00");
        assert_eq!(shown(-1), "1969-12-31 23:59:59.999999+00");
        assert_eq!(shown(951_782_400_000_000), "2000-02-29 00:00:00.000000+00");
        assert_eq!(shown(-62_135_596_800_000_000), "0001-01-01 00:00:00.000000+00");
        assert_eq!(shown(-62_135_596_800_000_001), "0001-12-31 23:59:59.999999+00 BC");
        assert_eq!(shown(i64::MAX), "infinity");
        let mut out = String::new();
        date(-2_440_588 + 1, &mut out);
        assert_eq!(out, "4714-11-25 BC");
    }

    #[test]
    fn days_follow_one_another() {
        let mut last = civil(-800_000);
        for days in -799_999..3_000_000 {
            let now = civil(days);
            let next_day = now.0 == last.0 && now.1 == last.1 && now.2 == last.2 + 1;
            let next_month = now.2 == 1 && (now.1 == last.1 + 1 && now.0 == last.0);
            let next_year = now.2 == 1 && now.1 == 1 && last.1 == 12 && now.0 == last.0 + 1;
            assert!(next_day || next_month || next_year, "{last:?} {now:?}");
            last = now;
        }
    }
}
