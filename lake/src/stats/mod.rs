//! Statistics of a file: collected while it is written, put into the log in two forms, read back. Pure.
//!
//! - Delta's own form, for any reader of the lake: it must never make a reader leave out a row, whatever the reader rounds. Timestamps
//!   are written to the microsecond, the upper bound raised to a whole millisecond (readers may cut to milliseconds); decimals of more
//!   than fifteen digits, infinities and years outside 1 to 9999 are left out.
//! - Our own, in the tag [`TAG`]: what the product plans with. Bounds are exact values of the column unless `exact` is false, which
//!   only long texts are. Texts are ordered by their bytes.
//!
//! Of floats ours tells whether any is NaN or -0: what PostgreSQL takes for equal though it looks different, so that the product must know.
//! Neither has bounds for floats (NaN is above everything in PostgreSQL and nowhere in Parquet), jsonb, bytea and numerics kept as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;

mod columns;
mod distinct;

use arrow::array::{Array, AsArray};
use arrow::compute::{max, max_boolean, max_string_view, min, min_boolean, min_string_view};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::types::{self, ColType};
use crate::{Error, Result};

pub use columns::{Columns, Names};
use distinct::Distinct;

/// The tag of an `add` action that holds our own form.
pub const TAG: &str = "watershed.stats";

/// Texts up to this many bytes are bounds as they are; longer ones are cut to it.
pub const EXACT_TEXT: usize = 64;

/// A bound of a column's values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bound {
    #[serde(rename = "b")]
    Bool(bool),
    /// int2, int4, int8, xid8; days of a date; microseconds of a timestamp. Infinite times are the extremes.
    #[serde(rename = "i")]
    Int(i64),
    /// The unscaled value of a numeric(p, s).
    #[serde(rename = "d", with = "unscaled")]
    Decimal(i128),
    #[serde(rename = "t")]
    Text(String),
}

mod unscaled {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(v: &i128, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(v)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<i128, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What is known of one column of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnStats {
    /// Rows in which it is NULL.
    #[serde(rename = "n")]
    pub nulls: u64,
    /// No value is below. `None`: unknown, or there is no value.
    #[serde(rename = "lo", default, skip_serializing_if = "Option::is_none")]
    pub min: Option<Bound>,
    /// No value is above. `None`: unknown, or there is no value.
    #[serde(rename = "hi", default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Bound>,
    /// Whether the bounds are values of the column.
    #[serde(rename = "x", default = "yes", skip_serializing_if = "is_yes")]
    pub exact: bool,
    /// How many different values a text column has in one file, if they are few; of several files, the most that one has. A hint.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub distinct: Option<u32>,
    /// Of floats: none is NaN, and none is -0. False: one is, or it is not known, as of files that were written before this was kept.
    #[serde(rename = "p", default, skip_serializing_if = "is_no")]
    pub plain: bool,
}

impl ColumnStats {
    /// Of a column that is NULL in all of `rows` rows.
    fn nulls_only(rows: u64) -> Self {
        Self { nulls: rows, min: None, max: None, exact: true, distinct: Some(0), plain: true }
    }

    /// Becomes the statistics of its own `rows` rows and the `other_rows` rows of `other`.
    fn merge(&mut self, rows: u64, other: &Self, other_rows: u64) {
        self.plain = (self.plain || self.nulls == rows) && (other.plain || other.nulls == other_rows);
        if self.nulls == rows {
            // Without values, whatever the other knows is all there is to know.
            self.min = other.min.clone();
            self.max = other.max.clone();
            self.exact = other.exact;
        } else if other.nulls != other_rows {
            wider(&mut self.min, other.min.as_ref(), std::cmp::Ordering::Less);
            wider(&mut self.max, other.max.as_ref(), std::cmp::Ordering::Greater);
            self.exact &= other.exact;
        }
        self.nulls += other.nulls;
        self.distinct = self.distinct.zip(other.distinct).map(|(a, b)| a.max(b));
    }
}

/// Takes over the other bound if it lies in direction `side`; unknown, if one of them is.
fn wider(bound: &mut Option<Bound>, other: Option<&Bound>, side: std::cmp::Ordering) {
    match (bound.as_ref(), other) {
        (Some(mine), Some(theirs)) => match theirs.partial_cmp(mine) {
            Some(order) if order == side => *bound = Some(theirs.clone()),
            Some(_) => {}
            None => *bound = None,
        },
        _ => *bound = None,
    }
}

fn yes() -> bool {
    true
}

fn is_no(b: &bool) -> bool {
    !*b
}

fn is_yes(b: &bool) -> bool {
    *b
}

/// What is known of a file: rows, and its columns by lake name. A column that is not listed is not in the file: it was added to the
/// table later, and is NULL in every row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStats {
    pub rows: u64,
    pub columns: Columns,
}

impl FileStats {
    /// The text of the tag [`TAG`].
    pub fn to_tag(&self) -> Result<String> {
        serde_json::to_string(self).map_err(unreadable)
    }

    /// Reads the tag back.
    pub fn from_tag(tag: &str) -> Result<Self> {
        serde_json::from_str(tag).map_err(unreadable)
    }

    /// Becomes the statistics of the rows of both: what holds for each file of a set holds for the set. A bound that one of them does
    /// not know is unknown. Starting from [`FileStats::default`], this sums up any number of files.
    pub fn merge(&mut self, other: &Self) {
        let (rows, other_rows) = (self.rows, other.rows);
        if !self.columns.same_names(&other.columns) {
            for (name, _) in other.columns.iter() {
                if self.columns.get(name).is_none() {
                    self.columns.insert(name.to_owned(), ColumnStats::nulls_only(rows));
                }
            }
        }
        if self.columns.same_names(&other.columns) {
            for (mine, theirs) in self.columns.stats_mut().zip(other.columns.stats()) {
                mine.merge(rows, theirs, other_rows);
            }
        } else {
            let absent = ColumnStats::nulls_only(other_rows);
            for (name, mine) in self.columns.iter_mut() {
                mine.merge(rows, other.columns.get(name).unwrap_or(&absent), other_rows);
            }
        }
        self.rows += other_rows;
    }
}

fn unreadable(e: serde_json::Error) -> Error {
    Error::Unsupported { table: "statistics".into(), what: e.to_string() }
}

/// Collects the statistics of the batches of one file.
#[derive(Debug)]
pub struct Collector {
    columns: Vec<(String, ColType, ColumnStats, Distinct)>,
    rows: u64,
}

impl Collector {
    /// A collector for batches with the given columns (lake name and type), in their order.
    pub fn new<'a>(columns: impl IntoIterator<Item = (&'a str, ColType)>) -> Self {
        let none = ColumnStats { nulls: 0, min: None, max: None, exact: true, distinct: None, plain: false };
        let empty = |ty| ColumnStats { plain: matches!(ty, ColType::Float4 | ColType::Float8), ..none.clone() };
        let columns = columns.into_iter().map(|(name, ty)| (name.to_owned(), ty, empty(ty), Distinct::of(ty)));
        Self { columns: columns.collect(), rows: 0 }
    }

    /// Adds a batch, whose columns must be the collector's.
    pub fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_columns() != self.columns.len() {
            return Err(Error::Arrow(arrow::error::ArrowError::SchemaError(format!(
                "{} columns, expected {}",
                batch.num_columns(),
                self.columns.len()
            ))));
        }
        self.rows += batch.num_rows() as u64;
        for ((_, ty, stats, distinct), array) in self.columns.iter_mut().zip(batch.columns()) {
            distinct.add(array.as_ref());
            stats.nulls += array.null_count() as u64;
            stats.plain = stats.plain && is_plain(array.as_ref());
            let (low, high) = bounds(*ty, array.as_ref());
            widen(&mut stats.min, low, |new, old| new < old);
            widen(&mut stats.max, high, |new, old| new > old);
        }
        Ok(())
    }

    /// The statistics in both forms: ours, and the JSON text of Delta's.
    pub fn finish(self) -> Result<(FileStats, String)> {
        let mut columns = Vec::with_capacity(self.columns.len());
        let mut delta = Delta { num_records: self.rows, ..Delta::default() };
        for (name, ty, mut stats, distinct) in self.columns {
            cut(&mut stats);
            stats.distinct = distinct.count();
            delta.null_count.insert(name.clone(), stats.nulls);
            if let Some(min) = stats.min.as_ref().and_then(|b| delta_value(ty, b, Side::Low)) {
                delta.min_values.insert(name.clone(), min);
            }
            if let Some(max) = stats.max.as_ref().and_then(|b| delta_value(ty, b, Side::High)) {
                delta.max_values.insert(name.clone(), max);
            }
            columns.push((name, stats));
        }
        let json = serde_json::to_string(&delta).map_err(unreadable)?;
        Ok((FileStats { rows: self.rows, columns: columns.into_iter().collect() }, json))
    }
}

fn widen(bound: &mut Option<Bound>, new: Option<Bound>, wider: impl Fn(&Bound, &Bound) -> bool) {
    if let Some(new) = new
        && bound.as_ref().is_none_or(|old| wider(&new, old))
    {
        *bound = Some(new);
    }
}

impl PartialOrd for Bound {
    /// Bounds of one column are of one kind; those of different kinds are not ordered.
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.partial_cmp(b),
            (Self::Int(a), Self::Int(b)) => a.partial_cmp(b),
            (Self::Decimal(a), Self::Decimal(b)) => a.partial_cmp(b),
            (Self::Text(a), Self::Text(b)) => a.as_bytes().partial_cmp(b.as_bytes()),
            _ => None,
        }
    }
}

/// Whether an array of floats has neither NaN nor -0. What looks different and is equal in PostgreSQL stands in no other.
pub fn is_plain(array: &dyn Array) -> bool {
    match array.data_type() {
        DataType::Float32 => array.as_primitive::<Float32Type>().iter().flatten().all(|v| !v.is_nan() && v.to_bits() != (-0.0f32).to_bits()),
        DataType::Float64 => array.as_primitive::<Float64Type>().iter().flatten().all(|v| !v.is_nan() && v.to_bits() != (-0.0f64).to_bits()),
        _ => false,
    }
}

/// The extremes of an array, for the types that have bounds.
fn bounds(ty: ColType, array: &dyn Array) -> (Option<Bound>, Option<Bound>) {
    fn of<T: ArrowPrimitiveType>(
        array: &dyn Array,
        wrap: impl Fn(T::Native) -> Bound,
    ) -> (Option<Bound>, Option<Bound>) {
        let array = array.as_primitive::<T>();
        (min(array).map(&wrap), max(array).map(&wrap))
    }
    match (ty, array.data_type()) {
        (ColType::Bool, DataType::Boolean) => {
            let a = array.as_boolean();
            (min_boolean(a).map(Bound::Bool), max_boolean(a).map(Bound::Bool))
        }
        (ColType::Int2, DataType::Int16) => of::<Int16Type>(array, |v| Bound::Int(v.into())),
        (ColType::Int4, DataType::Int32) => of::<Int32Type>(array, |v| Bound::Int(v.into())),
        (ColType::Int8 | ColType::Xid8, DataType::Int64) => of::<Int64Type>(array, Bound::Int),
        (ColType::Date, DataType::Date32) => of::<Date32Type>(array, |v| Bound::Int(v.into())),
        (
            ColType::Timestamp | ColType::TimestampTz,
            DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, _),
        ) => of::<TimestampMicrosecondType>(array, Bound::Int),
        (ColType::Numeric { .. }, DataType::Decimal128(..)) => of::<Decimal128Type>(array, Bound::Decimal),
        (ColType::Text | ColType::Varchar | ColType::Uuid, DataType::Utf8View) => {
            let a = array.as_string_view();
            (
                min_string_view(a).map(|s| Bound::Text(s.to_owned())),
                max_string_view(a).map(|s| Bound::Text(s.to_owned())),
            )
        }
        _ => (None, None),
    }
}

/// Shortens text bounds: a prefix is below, a prefix with its last character raised is above.
fn cut(stats: &mut ColumnStats) {
    if let Some(Bound::Text(t)) = &mut stats.min
        && t.len() > EXACT_TEXT
    {
        let at = t.floor_char_boundary(EXACT_TEXT);
        t.truncate(at);
        stats.exact = false;
    }
    if let Some(Bound::Text(t)) = &mut stats.max
        && t.len() > EXACT_TEXT
    {
        stats.exact = false;
        stats.max = raised(&t[..t.floor_char_boundary(EXACT_TEXT)]).map(Bound::Text);
    }
}

/// A short text above every text that begins with `prefix`, in byte order.
fn raised(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // UTF-8 orders texts by code point; the surrogates between U+D7FF and U+E000 are no characters.
        let next = match last {
            '\u{D7FF}' => Some('\u{E000}'),
            c => char::from_u32(u32::from(c) + 1),
        };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Delta {
    num_records: u64,
    min_values: BTreeMap<String, Box<RawValue>>,
    max_values: BTreeMap<String, Box<RawValue>>,
    null_count: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Low,
    High,
}

/// A bound as Delta writes it; `None`: left out, because some reader could take it for less than it is.
fn delta_value(ty: ColType, bound: &Bound, side: Side) -> Option<Box<RawValue>> {
    let json = match (ty, bound) {
        (ColType::Int2 | ColType::Int4 | ColType::Int8 | ColType::Xid8, Bound::Int(v)) => v.to_string(),
        (ColType::Date, Bound::Int(v)) => {
            let day = i32::try_from(*v).ok().filter(|d| (types::FIRST_DAY..=types::LAST_DAY).contains(d))?;
            format!("\"{}\"", types::day_text(day))
        }
        (ColType::Timestamp, Bound::Int(v)) => format!("\"{}\"", time_text(*v, side)?),
        (ColType::TimestampTz, Bound::Int(v)) => format!("\"{}Z\"", time_text(*v, side)?),
        (ColType::Numeric { scale, .. }, Bound::Decimal(v)) => {
            // Fifteen digits survive a reader that goes through a double.
            (v.unsigned_abs() < 1_000_000_000_000_000).then(|| decimal_text(*v, scale))?
        }
        (ColType::Text | ColType::Varchar | ColType::Uuid, Bound::Text(t)) => {
            serde_json::to_string(t).ok()?
        }
        _ => return None,
    };
    RawValue::from_string(json).ok()
}

/// `YYYY-MM-DDTHH:MM:SS.ffffff`; an upper bound is raised to a whole millisecond.
fn time_text(micros: i64, side: Side) -> Option<String> {
    let micros = match side {
        Side::Low => micros,
        Side::High => match micros.rem_euclid(1000) {
            0 => micros,
            over => micros.checked_add(1000 - over)?,
        },
    };
    let day = i32::try_from(micros.div_euclid(types::DAY_MICROS))
        .ok()
        .filter(|d| (types::FIRST_DAY..=types::LAST_DAY).contains(d))?;
    let rest = micros.rem_euclid(types::DAY_MICROS);
    let (seconds, fraction) = (rest / 1_000_000, rest % 1_000_000);
    Some(format!(
        "{}T{:02}:{:02}:{:02}.{fraction:06}",
        types::day_text(day),
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
    ))
}

/// The plain decimal text of `unscaled` / 10^scale.
fn decimal_text(unscaled: i128, scale: i8) -> String {
    let scale = usize::from(scale.unsigned_abs());
    let digits = format!("{:0>width$}", unscaled.unsigned_abs().to_string(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let mut text = String::new();
    if unscaled < 0 {
        text.push('-');
    }
    text.push_str(whole);
    if !fraction.is_empty() {
        // Writing to a String cannot fail.
        let _ = write!(text, ".{fraction}");
    }
    text
}

#[cfg(test)]
mod tests;
