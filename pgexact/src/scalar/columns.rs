//! Columns by what functions want of them, and the column that a function writes.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, BooleanBuilder, Int16Array, Int16Builder, Int32Array,
    Int32Builder, Int64Array, Int64Builder, StringViewBuilder,
};
use arrow::datatypes::{DataType, Int16Type, Int32Type, Int64Type};

use super::{MAX_BYTES, misused};
use crate::PgError;
use crate::fixed::Texts;

/// A column whose type is known.
pub(crate) enum Column<'a> {
    Text(Texts<'a>),
    Bool(&'a BooleanArray),
    Int16(&'a Int16Array),
    Int32(&'a Int32Array),
    Int64(&'a Int64Array),
}

impl<'a> Column<'a> {
    pub(crate) fn of(array: &'a dyn Array) -> Result<Self, PgError> {
        Ok(match array.data_type() {
            DataType::Boolean => Column::Bool(array.as_boolean()),
            DataType::Int16 => Column::Int16(array.as_primitive::<Int16Type>()),
            DataType::Int32 => Column::Int32(array.as_primitive::<Int32Type>()),
            DataType::Int64 => Column::Int64(array.as_primitive::<Int64Type>()),
            other => Column::Text(
                Texts::of(array)
                    .ok_or_else(|| PgError::not_exact(format!("no scalar kernel for {other}")))?,
            ),
        })
    }

    /// The text of a row that is not NULL.
    pub(crate) fn text(&self, row: usize) -> Result<&'a str, PgError> {
        match self {
            Column::Text(texts) => texts.value(row).ok_or_else(misused),
            _ => Err(misused()),
        }
    }

    /// The text of a row, or NULL.
    pub(crate) fn maybe_text(&self, row: usize) -> Result<Option<&'a str>, PgError> {
        match self {
            Column::Text(texts) => Ok(texts.value(row)),
            _ => Err(misused()),
        }
    }

    /// The integer of a row that is not NULL.
    pub(crate) fn int(&self, row: usize) -> Result<i64, PgError> {
        Ok(match self {
            Column::Int16(a) => a.value(row).into(),
            Column::Int32(a) => a.value(row).into(),
            Column::Int64(a) => a.value(row),
            _ => return Err(misused()),
        })
    }

    /// The boolean of a row that is not NULL.
    pub(crate) fn bool(&self, row: usize) -> Result<bool, PgError> {
        match self {
            Column::Bool(a) => Ok(a.value(row)),
            _ => Err(misused()),
        }
    }
}

enum Builder {
    Text(StringViewBuilder, usize),
    Bool(BooleanBuilder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
}

/// The column that is written, one row after another.
pub(crate) struct Output(Builder);

impl Output {
    pub(crate) fn new(returns: &DataType, rows: usize) -> Result<Self, PgError> {
        Ok(Output(match returns {
            DataType::Utf8View => Builder::Text(StringViewBuilder::with_capacity(rows), 0),
            DataType::Boolean => Builder::Bool(BooleanBuilder::with_capacity(rows)),
            DataType::Int16 => Builder::Int16(Int16Builder::with_capacity(rows)),
            DataType::Int32 => Builder::Int32(Int32Builder::with_capacity(rows)),
            DataType::Int64 => Builder::Int64(Int64Builder::with_capacity(rows)),
            other => return Err(PgError::not_exact(format!("no scalar kernel gives {other}"))),
        }))
    }

    pub(crate) fn null(&mut self) {
        match &mut self.0 {
            Builder::Text(b, _) => b.append_null(),
            Builder::Bool(b) => b.append_null(),
            Builder::Int16(b) => b.append_null(),
            Builder::Int32(b) => b.append_null(),
            Builder::Int64(b) => b.append_null(),
        }
    }

    pub(crate) fn text(&mut self, value: Option<Cow<'_, str>>) -> Result<(), PgError> {
        let Builder::Text(builder, bytes) = &mut self.0 else { return Err(misused()) };
        match value {
            Some(value) => {
                *bytes += value.len();
                if *bytes > MAX_BYTES {
                    return Err(PgError::not_exact("the texts of a batch are too long"));
                }
                builder.append_value(value);
            }
            None => builder.append_null(),
        }
        Ok(())
    }

    pub(crate) fn bool(&mut self, value: bool) -> Result<(), PgError> {
        let Builder::Bool(builder) = &mut self.0 else { return Err(misused()) };
        builder.append_value(value);
        Ok(())
    }

    /// An integer that its type holds.
    pub(crate) fn int(&mut self, value: i64) -> Result<(), PgError> {
        match &mut self.0 {
            Builder::Int16(b) => b.append_value(value.try_into().map_err(|_| misused())?),
            Builder::Int32(b) => b.append_value(value.try_into().map_err(|_| misused())?),
            Builder::Int64(b) => b.append_value(value),
            _ => return Err(misused()),
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> ArrayRef {
        match self.0 {
            Builder::Text(mut b, _) => Arc::new(b.finish()),
            Builder::Bool(mut b) => Arc::new(b.finish()),
            Builder::Int16(mut b) => Arc::new(b.finish()),
            Builder::Int32(mut b) => Arc::new(b.finish()),
            Builder::Int64(mut b) => Arc::new(b.finish()),
        }
    }
}
