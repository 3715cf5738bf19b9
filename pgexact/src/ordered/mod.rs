//! Aggregates that see the values of a group in an order: `string_agg`, `array_agg`, `percentile_cont`, `percentile_disc`, `mode` (PostgreSQL's
//! `orderedsetaggs.c`, `array_userfuncs.c`, `varlena.c`). A value travels as a key, bytes whose order is the order asked for and from which the
//! value can be had back; a group is the keys it has. ✗ which orders leave nothing open: whoever plans says that.
//!
//! Floats are PostgreSQL's only where all that compares equal is the same: 0 beside -0, NaNs of different bits, and a NaN with a sign, which
//! sorts elsewhere here, are refused.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryViewBuilder, Float64Array, ListArray, StringViewArray, new_empty_array, new_null_array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{SortOptions, concat};
use arrow::datatypes::{DataType, Field, Float64Type};
use arrow::row::{RowConverter, SortField};

use crate::PgError;
use crate::scalar::misused;

#[cfg(test)]
mod tests;

/// Bytes of one group's keys.
const MAX_BYTES: usize = 256 << 20;
/// Values that are taken out of their keys at once.
const AT_ONCE: usize = 8192;

/// How a column of a key sorts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Order {
    pub descending: bool,
    pub nulls_first: bool,
}

impl Order {
    fn options(self) -> SortOptions {
        SortOptions { descending: self.descending, nulls_first: self.nulls_first }
    }
}

/// The columns of a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Layout {
    pub columns: Vec<(DataType, Order)>,
    /// Which of them is the value.
    pub value: usize,
}

/// Of a quotient between 0 and 1, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fraction(u64);

impl Fraction {
    /// None where PostgreSQL raises an error.
    pub fn new(value: f64) -> Option<Fraction> {
        (0.0..=1.0).contains(&value).then_some(Fraction(value.to_bits()))
    }

    fn value(self) -> f64 {
        f64::from_bits(self.0)
    }
}

/// What becomes of a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Finish {
    /// With what stands between the values.
    StringAgg(String),
    ArrayAgg,
    /// None is NULL.
    Continuous(Option<Fraction>),
    Discrete(Option<Fraction>),
    /// Several at once, as an array.
    Continuously(Vec<Option<Fraction>>),
    Discretely(Vec<Option<Fraction>>),
    Mode,
}

/// The keys of rows (BinaryView). Rows whose column `skipped` is NULL have none.
pub fn keys(orders: &[Order], skipped: Option<usize>, columns: &[ArrayRef]) -> Result<ArrayRef, PgError> {
    let (Some(first), true) = (columns.first(), orders.len() == columns.len()) else { return Err(misused()) };
    for column in columns {
        if let Some(floats) = column.as_primitive_opt::<Float64Type>()
            && floats.iter().flatten().any(|v| v.is_nan() && v.is_sign_negative())
        {
            return Err(PgError::not_exact("a NaN with a sign"));
        }
    }
    let fields = columns.iter().zip(orders).map(|(c, o)| SortField::new_with_options(c.data_type().clone(), o.options()));
    let converter = RowConverter::new(fields.collect()).map_err(unsorted)?;
    let rows = converter.convert_columns(columns).map_err(unsorted)?;
    let skipped = match skipped {
        Some(number) => columns.get(number).ok_or_else(misused)?.nulls(),
        None => None,
    };
    let mut out = BinaryViewBuilder::with_capacity(first.len());
    for (number, row) in rows.iter().enumerate() {
        match skipped.is_some_and(|nulls| nulls.is_null(number)) {
            true => out.append_null(),
            false => out.append_value(row.data()),
        }
    }
    Ok(Arc::new(out.finish()))
}

fn unsorted(e: arrow::error::ArrowError) -> PgError {
    PgError::not_exact(e.to_string())
}

/// The keys of one group, in any order.
#[derive(Debug, Default)]
pub struct Collected {
    /// Each behind its length.
    bytes: Vec<u8>,
    /// How many bytes there were when repeated keys were last left out.
    told_apart: usize,
}

impl Collected {
    /// Adds a key. Of a `distinct` group, repeated keys are left out now and then.
    pub fn add(&mut self, key: &[u8], distinct: bool) -> Result<(), PgError> {
        let length = u32::try_from(key.len()).map_err(|_| too_large())?;
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(key);
        if distinct && self.bytes.len() > 2 * self.told_apart.max(1 << 16) {
            self.tell_apart()?;
        }
        self.bounded()
    }

    /// Adds what [`Self::state`] gave.
    pub fn merge(&mut self, state: &[u8], distinct: bool) -> Result<(), PgError> {
        self.bytes.extend_from_slice(state);
        if distinct && self.bytes.len() > 2 * self.told_apart.max(1 << 16) {
            self.tell_apart()?;
        }
        self.bounded()
    }

    pub fn state(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes in memory, with what a result takes beside them.
    pub fn size(&self) -> usize {
        3 * self.bytes.capacity()
    }

    fn bounded(&self) -> Result<(), PgError> {
        if self.bytes.len() > MAX_BYTES { Err(too_large()) } else { Ok(()) }
    }

    fn tell_apart(&mut self) -> Result<(), PgError> {
        let mut keys = self.keys()?;
        keys.sort_unstable();
        keys.dedup();
        let mut kept = Vec::with_capacity(self.bytes.len());
        for key in keys {
            // It was a key before.
            kept.extend_from_slice(&(key.len() as u32).to_le_bytes());
            kept.extend_from_slice(key);
        }
        self.told_apart = kept.len();
        self.bytes = kept;
        Ok(())
    }

    fn keys(&self) -> Result<Vec<&[u8]>, PgError> {
        let mut keys = Vec::new();
        let mut rest = self.bytes.as_slice();
        while let Some((length, behind)) = rest.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            let Some((key, behind)) = behind.split_at_checked(length) else { return Err(misused()) };
            keys.push(key);
            rest = behind;
        }
        if rest.is_empty() { Ok(keys) } else { Err(misused()) }
    }

    /// The aggregate's value, as an array of one, of the type that `layout` and `finish` give. Keys are sorted, and of a `distinct` group each is
    /// taken once. A group without keys is NULL.
    pub fn finish(&self, layout: &Layout, finish: &Finish, distinct: bool) -> Result<ArrayRef, PgError> {
        let mut keys = self.keys()?;
        keys.sort_unstable();
        if distinct {
            keys.dedup();
        }
        let nothing = || -> Result<ArrayRef, PgError> { Ok(new_null_array(&finish.result(&layout.value_type()?), 1)) };
        if keys.is_empty() {
            return nothing();
        }
        match finish {
            Finish::StringAgg(separator) => {
                let mut all = String::new();
                for (chunk, keys) in keys.chunks(AT_ONCE).enumerate() {
                    let values = layout.values(keys)?;
                    let values = values.as_string_view_opt().ok_or_else(misused)?;
                    for (number, value) in values.iter().enumerate() {
                        if chunk + number > 0 {
                            all.push_str(separator);
                        }
                        all.push_str(value.ok_or_else(misused)?);
                    }
                    if all.len() > MAX_BYTES {
                        return Err(too_large());
                    }
                }
                Ok(Arc::new(StringViewArray::from(vec![all])))
            }
            Finish::ArrayAgg => list(layout.values(&keys)?),
            Finish::Continuous(fraction) => layout.continuous(&keys, *fraction),
            Finish::Discrete(fraction) => layout.discrete(&keys, *fraction),
            Finish::Continuously(fractions) => listed(fractions, &layout.value_type()?, &|f| layout.continuous(&keys, f)),
            Finish::Discretely(fractions) => listed(fractions, &layout.value_type()?, &|f| layout.discrete(&keys, f)),
            Finish::Mode => {
                layout.told_apart(&keys)?;
                let (mut most, mut mode) = (0, 0);
                let mut start = 0;
                for run in keys.chunk_by(|a, b| a == b) {
                    // The first in order among the most frequent.
                    if run.len() > most {
                        (most, mode) = (run.len(), start);
                    }
                    start += run.len();
                }
                layout.values(&keys[mode..=mode])
            }
        }
    }
}

impl Finish {
    /// The type of the result over values of that type.
    pub fn result(&self, value: &DataType) -> DataType {
        match self {
            Finish::ArrayAgg | Finish::Continuously(_) | Finish::Discretely(_) => {
                DataType::List(Arc::new(Field::new_list_field(value.clone(), true)))
            }
            _ => value.clone(),
        }
    }
}

impl Layout {
    pub fn value_type(&self) -> Result<DataType, PgError> {
        self.columns.get(self.value).map(|(ty, _)| ty.clone()).ok_or_else(misused)
    }

    /// The values of keys.
    fn values(&self, keys: &[&[u8]]) -> Result<ArrayRef, PgError> {
        let fields = self.columns.iter().map(|(ty, order)| SortField::new_with_options(ty.clone(), order.options()));
        let converter = RowConverter::new(fields.collect()).map_err(unsorted)?;
        let parser = converter.parser();
        let mut columns = converter.convert_rows(keys.iter().map(|key| parser.parse(key))).map_err(unsorted)?;
        if self.value < columns.len() { Ok(columns.swap_remove(self.value)) } else { Err(misused()) }
    }

    /// As `percentile_cont_final_common` counts.
    fn continuous(&self, keys: &[&[u8]], fraction: Option<Fraction>) -> Result<ArrayRef, PgError> {
        let Some(fraction) = fraction else { return Ok(new_null_array(&DataType::Float64, 1)) };
        let place = fraction.value() * (keys.len() as i64 - 1) as f64;
        let (first, second) = (place.floor(), place.ceil());
        let low = self.float(keys, first as usize)?;
        if first == second {
            return Ok(Arc::new(Float64Array::from(vec![low])));
        }
        let high = self.float(keys, second as usize)?;
        Ok(Arc::new(Float64Array::from(vec![between(low, high, place - first)?])))
    }

    fn discrete(&self, keys: &[&[u8]], fraction: Option<Fraction>) -> Result<ArrayRef, PgError> {
        let Some(fraction) = fraction else { return Ok(new_null_array(&self.value_type()?, 1)) };
        let row = (fraction.value() * keys.len() as f64).ceil() as usize;
        self.settled(keys, row.saturating_sub(1))
    }

    /// The value at `row`, which is the only one that compares equal to it.
    fn settled(&self, keys: &[&[u8]], row: usize) -> Result<ArrayRef, PgError> {
        let value = self.values(keys.get(row..=row).ok_or_else(misused)?)?;
        if let Some(float) = value.as_primitive_opt::<Float64Type>()
            && (float.value(0) == 0.0 || float.value(0).is_nan())
        {
            self.told_apart(keys)?;
        }
        Ok(value)
    }

    fn float(&self, keys: &[&[u8]], row: usize) -> Result<f64, PgError> {
        Ok(self.settled(keys, row)?.as_primitive_opt::<Float64Type>().ok_or_else(misused)?.value(0))
    }

    /// Refuses floats that compare equal and are not the same.
    fn told_apart(&self, keys: &[&[u8]]) -> Result<(), PgError> {
        if self.value_type()? != DataType::Float64 {
            return Ok(());
        }
        let mut last: Option<f64> = None;
        for keys in keys.chunks(AT_ONCE) {
            let values = self.values(keys)?;
            for value in values.as_primitive_opt::<Float64Type>().ok_or_else(misused)?.iter().flatten() {
                let same = |other: f64| value == other || (value.is_nan() && other.is_nan());
                if last.is_some_and(|other| same(other) && other.to_bits() != value.to_bits()) {
                    return Err(PgError::not_exact("floats that are equal and look different"));
                }
                last = Some(value);
            }
        }
        Ok(())
    }
}

/// What `of` gives for each fraction, as one array.
fn listed(
    fractions: &[Option<Fraction>],
    ty: &DataType,
    of: &dyn Fn(Option<Fraction>) -> Result<ArrayRef, PgError>,
) -> Result<ArrayRef, PgError> {
    let mut all = vec![new_empty_array(ty)];
    for fraction in fractions {
        all.push(of(*fraction)?);
    }
    let all: Vec<&dyn Array> = all.iter().map(|a| a.as_ref()).collect();
    list(concat(&all).map_err(unsorted)?)
}

/// An array of one list.
fn list(values: ArrayRef) -> Result<ArrayRef, PgError> {
    let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths([values.len()]);
    Ok(Arc::new(ListArray::try_new(field, offsets, values, None).map_err(unsorted)?))
}

/// `float8_lerp`. Refused where what is not a number comes of it, whose bits are the processor's, and where a compiler that fuses
/// multiplication and addition would have it otherwise.
fn between(low: f64, high: f64, proportion: f64) -> Result<f64, PgError> {
    let apart = high - low;
    let value = low + proportion * apart;
    let fused = !cfg!(target_arch = "x86_64") && proportion.mul_add(apart, low).to_bits() != value.to_bits();
    if value.is_nan() || fused {
        return Err(PgError::not_exact("an interpolation that depends on the processor"));
    }
    Ok(value)
}

fn too_large() -> PgError {
    PgError::not_exact("a group is too large to be put together")
}
