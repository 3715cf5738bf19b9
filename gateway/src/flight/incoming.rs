//! Values of Arrow arrays as PostgreSQL reads them: parameters of statements, and rows of COPY. All go as text, which the target
//! type's own input function reads. ✗ sockets, statements.

use super::decode::Unfit;
use arrow::array::*;
use arrow::datatypes::*;
use arrow::temporal_conversions::{time32ms_to_time, time32s_to_time, time64us_to_time};
use chrono::{DateTime, Datelike, NaiveDate, NaiveTime};
use std::fmt::Write;
use std::sync::Arc;

const DAY_MS: i64 = 86_400_000;

/// Whether there is no value.
pub fn is_null(array: &ArrayRef, row: usize) -> bool {
    match array.data_type() {
        DataType::Null => true,
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            array.is_null(row) || dictionary.values().is_null(dictionary.normalized_keys()[row])
        }
        _ => array.is_null(row),
    }
}

/// Whether a column is of uuids: sixteen bytes that say so.
pub fn is_uuid(field: &Field) -> bool {
    *field.data_type() == DataType::FixedSizeBinary(16)
        && field.metadata().get("ARROW:extension:name").is_some_and(|name| name == "arrow.uuid")
}

/// Appends the value in `row`, which is not null. `uuid`: sixteen bytes are one.
pub fn put(array: &ArrayRef, row: usize, uuid: bool, out: &mut String) -> Result<(), Unfit> {
    macro_rules! shown {
        ($t:ty) => {
            write!(out, "{}", array.as_primitive::<$t>().value(row))
        };
    }
    // Writing into a String does not fail.
    let _ = match array.data_type() {
        DataType::Boolean => out.write_str(if array.as_boolean().value(row) { "t" } else { "f" }),
        DataType::Int8 => shown!(Int8Type),
        DataType::Int16 => shown!(Int16Type),
        DataType::Int32 => shown!(Int32Type),
        DataType::Int64 => shown!(Int64Type),
        DataType::UInt8 => shown!(UInt8Type),
        DataType::UInt16 => shown!(UInt16Type),
        DataType::UInt32 => shown!(UInt32Type),
        DataType::UInt64 => shown!(UInt64Type),
        DataType::Float16 => float(array.as_primitive::<Float16Type>().value(row).to_f64(), out),
        DataType::Float32 => {
            let value = array.as_primitive::<Float32Type>().value(row);
            if value.is_finite() { write!(out, "{value}") } else { float(value.into(), out) }
        }
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(row), out),
        DataType::Utf8 => text(array.as_string::<i32>().value(row), out)?,
        DataType::LargeUtf8 => text(array.as_string::<i64>().value(row), out)?,
        DataType::Utf8View => text(array.as_string_view().value(row), out)?,
        DataType::Binary => bytes(array.as_binary::<i32>().value(row), out),
        DataType::LargeBinary => bytes(array.as_binary::<i64>().value(row), out),
        DataType::BinaryView => bytes(array.as_binary_view().value(row), out),
        DataType::FixedSizeBinary(16) if uuid => out.write_str(&hex::encode(array.as_fixed_size_binary().value(row))),
        DataType::FixedSizeBinary(_) => bytes(array.as_fixed_size_binary().value(row), out),
        DataType::Date32 => date(array.as_primitive::<Date32Type>().value(row).into(), out)?,
        DataType::Date64 => match array.as_primitive::<Date64Type>().value(row) {
            ms if ms % DAY_MS == 0 => date(ms / DAY_MS, out)?,
            _ => return Err(unfit("22008", "a date with a time of day", "Send it as a timestamp.")),
        },
        DataType::Time32(TimeUnit::Second) => time(time32s_to_time(array.as_primitive::<Time32SecondType>().value(row)), out)?,
        DataType::Time32(_) => time(time32ms_to_time(array.as_primitive::<Time32MillisecondType>().value(row)), out)?,
        DataType::Time64(TimeUnit::Microsecond) => {
            time(time64us_to_time(array.as_primitive::<Time64MicrosecondType>().value(row)), out)?
        }
        DataType::Time64(_) => {
            time(time64us_to_time(whole_us(array.as_primitive::<Time64NanosecondType>().value(row))?), out)?
        }
        DataType::Timestamp(unit, zone) => {
            let us = match unit {
                TimeUnit::Second => array.as_primitive::<TimestampSecondType>().value(row).checked_mul(1_000_000),
                TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().value(row).checked_mul(1_000),
                TimeUnit::Microsecond => Some(array.as_primitive::<TimestampMicrosecondType>().value(row)),
                TimeUnit::Nanosecond => Some(whole_us(array.as_primitive::<TimestampNanosecondType>().value(row))?),
            };
            let at = us.and_then(DateTime::from_timestamp_micros).ok_or_else(|| out_of_range("timestamp"))?.naive_utc();
            let bc = day(at.date(), out);
            let zone = if zone.is_some() { "+00" } else { "" };
            write!(out, " {}{zone}{}", at.time().format("%H:%M:%S%.6f"), if bc { " BC" } else { "" })
        }
        DataType::Decimal32(..) => write!(out, "{}", array.as_primitive::<Decimal32Type>().value_as_string(row)),
        DataType::Decimal64(..) => write!(out, "{}", array.as_primitive::<Decimal64Type>().value_as_string(row)),
        DataType::Decimal128(..) => write!(out, "{}", array.as_primitive::<Decimal128Type>().value_as_string(row)),
        DataType::Decimal256(..) => write!(out, "{}", array.as_primitive::<Decimal256Type>().value_as_string(row)),
        DataType::Interval(IntervalUnit::YearMonth) => {
            write!(out, "{} mons", array.as_primitive::<IntervalYearMonthType>().value(row))
        }
        DataType::Interval(IntervalUnit::DayTime) => {
            let value = array.as_primitive::<IntervalDayTimeType>().value(row);
            write!(out, "{:+} days {:+} milliseconds", value.days, value.milliseconds)
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let value = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
            // Every sign is written: under some IntervalStyle a first one counts for all that have none.
            write!(out, "{:+} mons {:+} days {:+} microseconds", value.months, value.days, whole_us(value.nanoseconds)?)
        }
        DataType::Duration(unit) => match unit {
            TimeUnit::Second => write!(out, "{} seconds", array.as_primitive::<DurationSecondType>().value(row)),
            TimeUnit::Millisecond => write!(out, "{} milliseconds", array.as_primitive::<DurationMillisecondType>().value(row)),
            TimeUnit::Microsecond => write!(out, "{} microseconds", array.as_primitive::<DurationMicrosecondType>().value(row)),
            TimeUnit::Nanosecond => {
                write!(out, "{} microseconds", whole_us(array.as_primitive::<DurationNanosecondType>().value(row))?)
            }
        },
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            return put(dictionary.values(), dictionary.normalized_keys()[row], uuid, out);
        }
        DataType::List(item) => return list(&array.as_list::<i32>().value(row), is_uuid(item) || uuid, out),
        DataType::LargeList(item) => return list(&array.as_list::<i64>().value(row), is_uuid(item) || uuid, out),
        DataType::FixedSizeList(item, _) => return list(&array.as_fixed_size_list().value(row), is_uuid(item) || uuid, out),
        other => {
            return Err(Unfit {
                sqlstate: "0A000",
                message: format!("values of Arrow's type {other} have no equal in PostgreSQL"),
                hint: "Cast the column to another type, or to text.",
            });
        }
    };
    Ok(())
}

/// Appends a value, or `\N`, as COPY reads it in text.
pub fn put_copy(array: &ArrayRef, row: usize, uuid: bool, scratch: &mut String, out: &mut Vec<u8>) -> Result<(), Unfit> {
    if is_null(array, row) {
        out.extend_from_slice(b"\\N");
        return Ok(());
    }
    scratch.clear();
    put(array, row, uuid, scratch)?;
    for byte in scratch.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            byte => out.push(byte),
        }
    }
    Ok(())
}

/// What NULL in a list needs in order not to be read as a word: a client may have turned it off.
pub const NULLS_IN_LISTS: &str = "SET array_nulls = on";

/// Whether rows of this schema hold lists.
pub fn has_lists(schema: &Schema) -> bool {
    schema.fields().iter().any(|f| is_list(f.data_type()))
}

fn is_list(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => true,
        DataType::Dictionary(_, values) => is_list(values),
        _ => false,
    }
}

fn list(items: &ArrayRef, uuid: bool, out: &mut String) -> Result<(), Unfit> {
    let nested = is_list(items.data_type());
    out.push('{');
    let mut item = String::new();
    for row in 0..items.len() {
        if row > 0 {
            out.push(',');
        }
        if is_null(items, row) {
            out.push_str("NULL");
            continue;
        }
        item.clear();
        put(items, row, uuid, &mut item)?;
        if nested {
            out.push_str(&item);
            continue;
        }
        out.push('"');
        for c in item.chars() {
            if matches!(c, '"' | '\\') {
                out.push('\\');
            }
            out.push(c);
        }
        out.push('"');
    }
    out.push('}');
    Ok(())
}

fn unfit(sqlstate: &'static str, message: &str, hint: &'static str) -> Unfit {
    Unfit { sqlstate, message: message.into(), hint }
}

fn out_of_range(what: &str) -> Unfit {
    unfit("22008", &format!("{what} out of range"), "Send it as text.")
}

fn float(value: f64, out: &mut String) -> std::fmt::Result {
    match value {
        v if v.is_nan() => out.write_str("NaN"),
        f64::INFINITY => out.write_str("Infinity"),
        f64::NEG_INFINITY => out.write_str("-Infinity"),
        v => write!(out, "{v}"),
    }
}

fn text(value: &str, out: &mut String) -> Result<std::fmt::Result, Unfit> {
    if value.contains('\0') {
        return Err(unfit("22021", "invalid byte sequence for encoding \"UTF8\": 0x00", "PostgreSQL's text has no zero bytes."));
    }
    Ok(out.write_str(value))
}

fn bytes(value: &[u8], out: &mut String) -> std::fmt::Result {
    out.write_str("\\x")?;
    out.write_str(&hex::encode(value))
}

/// PostgreSQL knows microseconds.
fn whole_us(ns: i64) -> Result<i64, Unfit> {
    match ns % 1000 {
        0 => Ok(ns / 1000),
        _ => Err(unfit("22008", "a time with nanoseconds, of which PostgreSQL has none", "Cast the column to microseconds.")),
    }
}

fn date(days: i64, out: &mut String) -> Result<std::fmt::Result, Unfit> {
    const EPOCH_FROM_CE: i64 = 719_163;
    let known = i32::try_from(days + EPOCH_FROM_CE).ok().and_then(NaiveDate::from_num_days_from_ce_opt);
    let bc = day(known.ok_or_else(|| out_of_range("date"))?, out);
    Ok(out.write_str(if bc { " BC" } else { "" }))
}

/// Appends a day without its era. True: it is before Christ.
fn day(date: NaiveDate, out: &mut String) -> bool {
    let bc = date.year() <= 0;
    let year = if bc { 1 - date.year() } else { date.year() };
    let _ = write!(out, "{year:04}-{:02}-{:02}", date.month(), date.day());
    bc
}

fn time(time: Option<NaiveTime>, out: &mut String) -> Result<std::fmt::Result, Unfit> {
    let time = time.ok_or_else(|| out_of_range("time"))?;
    Ok(write!(out, "{}", time.format("%H:%M:%S%.6f")))
}

/// One row of parameters, as Bind takes them.
pub fn parameters(batch: &RecordBatch, row: usize, types: &[u32]) -> Result<Vec<Option<Vec<u8>>>, Unfit> {
    let schema = batch.schema();
    batch
        .columns()
        .iter()
        .enumerate()
        .map(|(n, array)| {
            if is_null(array, row) {
                return Ok(None);
            }
            let mut value = String::new();
            // Sixteen bytes for a parameter of type uuid are one.
            let uuid = is_uuid(schema.field(n)) || matches!(types.get(n), Some(2950 | 2951));
            put(array, row, uuid, &mut value)?;
            Ok(Some(value.into_bytes()))
        })
        .collect()
}

/// No rows of no columns.
pub fn nothing() -> RecordBatch {
    RecordBatch::new_empty(Arc::new(Schema::empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(array: impl Array + 'static) -> Vec<String> {
        let array: ArrayRef = Arc::new(array);
        (0..array.len())
            .map(|row| {
                let mut out = String::new();
                put(&array, row, false, &mut out).unwrap();
                out
            })
            .collect()
    }

    #[test]
    fn values_are_what_postgres_reads() {
        assert_eq!(shown(Int64Array::from(vec![i64::MIN])), ["-9223372036854775808"]);
        assert_eq!(shown(Float64Array::from(vec![0.1, f64::NAN, f64::NEG_INFINITY])), ["0.1", "NaN", "-Infinity"]);
        assert_eq!(shown(Float32Array::from(vec![0.1])), ["0.1"]);
        assert_eq!(shown(Date32Array::from(vec![0, -719_162, -719_163])), ["1970-01-01", "0001-01-01", "0001-12-31 BC"]);
        assert_eq!(shown(TimestampMicrosecondArray::from(vec![1])), ["1970-01-01 00:00:00.000001"]);
        assert_eq!(shown(TimestampMicrosecondArray::from(vec![0]).with_timezone("UTC")), ["1970-01-01 00:00:00.000000+00"]);
        assert_eq!(shown(BinaryArray::from(vec![&b"\x00\xff"[..]])), ["\\x00ff"]);
        assert_eq!(shown(Decimal128Array::from(vec![-5]).with_precision_and_scale(4, 2).unwrap()), ["-0.05"]);
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None])]);
        assert_eq!(shown(lists), ["{\"1\",NULL}"]);
        let mixed = IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano::new(-1, 2, 3000)]);
        assert_eq!(shown(mixed), ["-1 mons +2 days +3 microseconds"]);
    }

    #[test]
    fn nothing_is_rounded() {
        let array: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![1]));
        assert!(put(&array, 0, false, &mut String::new()).is_err());
    }

    #[test]
    fn copy_escapes_what_would_end_a_field_or_a_row() {
        let array: ArrayRef = Arc::new(StringArray::from(vec![Some("a\tb\\\n\r"), None]));
        let mut out = Vec::new();
        put_copy(&array, 0, false, &mut String::new(), &mut out).unwrap();
        out.push(b'|');
        put_copy(&array, 1, false, &mut String::new(), &mut out).unwrap();
        assert_eq!(out, b"a\\tb\\\\\\n\\r|\\N");
    }
}
