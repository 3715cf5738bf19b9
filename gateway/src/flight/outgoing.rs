//! Batches of the lake's in the types that [`super::types`] gives to the answer's columns. Most columns are of these already, or are
//! only named otherwise; the rest goes through the rows that PostgreSQL would have sent. ✗ where batches go.

use super::decode::{Rows, Unfit, infinite};
use super::types::{Column, Kind};
use arrow::array::*;
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use bytes::BytesMut;
use pgexact::Zone;
use pgexact::encode::{EncodeError, Format, RowEncoder, Target};
use std::sync::Arc;
use thiserror::Error;

/// Why a batch cannot leave.
#[derive(Debug, Error)]
pub enum OutgoingError {
    #[error("{0}")]
    Unfit(Unfit),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

impl From<Unfit> for OutgoingError {
    fn from(e: Unfit) -> Self {
        OutgoingError::Unfit(e)
    }
}

/// See the module.
pub struct Outgoing {
    columns: Vec<Column>,
    ways: Vec<Way>,
    schema: SchemaRef,
    /// Of the columns that go through rows.
    encoder: RowEncoder,
    through_rows: Vec<usize>,
}

/// What becomes of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    AsItIs,
    /// Texts out of views of them.
    Text,
    /// Without loss, whatever the value.
    Cast,
    Date,
    Timestamp,
    /// A decimal of the same scale.
    Decimal,
    Rows,
}

impl Outgoing {
    /// For batches of `schema`, as columns of these types, with `names` for fields.
    pub fn try_new(columns: Vec<Column>, names: &[String], schema: &Schema, zone: &Zone) -> Result<Outgoing, EncodeError> {
        if columns.len() != schema.fields().len() {
            return Err(EncodeError::Columns { columns: schema.fields().len(), targets: columns.len() });
        }
        let ways: Vec<Way> = columns.iter().zip(schema.fields()).map(|(c, f)| way(&c.kind, f.data_type())).collect();
        let through_rows: Vec<usize> = (0..ways.len()).filter(|n| ways[*n] == Way::Rows).collect();
        let targets: Vec<Target> = through_rows
            .iter()
            .map(|n| {
                let Column { type_oid, typmod, .. } = columns[*n];
                let format = if columns[*n].format() == 1 { Format::Binary } else { Format::Text };
                Target { type_oid, typmod, format }
            })
            .collect();
        let of_rows = Schema::new(through_rows.iter().map(|n| schema.field(*n).clone()).collect::<Vec<_>>());
        let encoder = RowEncoder::try_new(&targets, &of_rows, zone)?;
        let fields: Vec<_> = columns.iter().zip(names).map(|(c, name)| c.field(name)).collect();
        Ok(Outgoing { columns, ways, schema: Arc::new(Schema::new(fields)), encoder, through_rows })
    }

    /// One batch.
    pub fn batch(&self, batch: &RecordBatch) -> Result<RecordBatch, OutgoingError> {
        let mut by_rows = self.by_rows(batch)?.into_iter();
        let mut arrays = Vec::with_capacity(self.columns.len());
        for ((column, way), array) in self.columns.iter().zip(&self.ways).zip(batch.columns()) {
            let wanted = column.kind.data_type();
            arrays.push(match way {
                Way::AsItIs => array.clone(),
                Way::Text => text_of(array.as_string_view())?,
                Way::Cast => cast_with_options(array, &wanted, &CastOptions { safe: false, ..Default::default() })?,
                Way::Date => {
                    let days = array.as_primitive::<arrow::datatypes::Date32Type>();
                    if days.iter().flatten().any(|d| matches!(d, i32::MIN | i32::MAX)) {
                        return Err(infinite("date").into());
                    }
                    array.clone()
                }
                Way::Timestamp => {
                    let times = array.as_primitive::<TimestampMicrosecondType>();
                    let is_infinite = |us: i64| us == i64::MIN || us == i64::MAX;
                    // Where a value is missing anything may stand. The first look is over all of them, without a branch.
                    let some = times.values().iter().fold(false, |found, us| found | is_infinite(*us));
                    if some && times.iter().flatten().any(is_infinite) {
                        return Err(infinite("timestamp").into());
                    }
                    Arc::new(times.clone().with_data_type(wanted)) as ArrayRef
                }
                Way::Decimal => {
                    let cast = cast_with_options(array, &wanted, &CastOptions { safe: false, ..Default::default() })?;
                    match cast.as_primitive_opt::<arrow::datatypes::Decimal128Type>() {
                        Some(decimals) => {
                            // At most 38 digits, which 128 bits hold.
                            let limit = 10i128.pow(decimals.precision().into());
                            let some = decimals.values().iter().fold(false, |found, v| found | (*v >= limit) | (*v <= -limit));
                            if some {
                                decimals.validate_decimal_precision(decimals.precision())?;
                            }
                        }
                        None => {
                            let decimals = cast.as_primitive::<arrow::datatypes::Decimal256Type>();
                            decimals.validate_decimal_precision(decimals.precision())?;
                        }
                    }
                    cast
                }
                // One for each such column.
                Way::Rows => by_rows.next().unwrap_or_else(|| array.clone()),
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)?)
    }

    fn by_rows(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>, OutgoingError> {
        if self.through_rows.is_empty() {
            return Ok(Vec::new());
        }
        let columns: Vec<Column> = self.through_rows.iter().map(|n| self.columns[*n].clone()).collect();
        let fields: Vec<_> = self.through_rows.iter().map(|n| self.schema.field(*n).clone()).collect();
        let mut rows = Rows::new(&columns, Arc::new(Schema::new(fields)));
        let mut sent = BytesMut::new();
        self.encoder.encode_batch(&batch.project(&self.through_rows)?, 0, batch.num_rows(), &mut sent)?;
        let mut rest = &sent[..];
        while let Ok(Some(f)) = crate::wire::frame::whole(rest) {
            rows.add(crate::wire::frame::body(f))?;
            rest = &rest[f.len()..];
        }
        Ok(rows.take_arrays())
    }
}

/// The texts one after the other. Several times as fast as the cast, which appends them one by one.
fn text_of(views: &StringViewArray) -> Result<ArrayRef, ArrowError> {
    /// Bytes of a text that stand in its view, behind its length.
    const INLINE: usize = 12;
    let nulls = views.nulls().filter(|n| n.null_count() > 0);
    let is_null = |row: usize| nulls.is_some_and(|n| n.is_null(row));
    let length = |row: usize, view: u128| if is_null(row) { 0 } else { view as u32 as usize };
    let total: usize = views.views().iter().enumerate().map(|(row, view)| length(row, *view)).sum();
    if i32::try_from(total).is_err() {
        return Err(ArrowError::OffsetOverflowError(total));
    }
    // Short texts are copied in one piece of fixed size, of which what was too much is taken back. Memory that must be zero first would
    // be given to the system and back.
    let mut bytes: Vec<u8> = Vec::with_capacity(total + INLINE);
    let mut ends = Vec::with_capacity(views.len() + 1);
    ends.push(0i32);
    for (row, view) in views.views().iter().enumerate() {
        let length = length(row, *view);
        if length <= INLINE {
            let end = bytes.len() + length;
            bytes.extend_from_slice(&view.to_le_bytes()[4..]);
            bytes.truncate(end);
        } else {
            bytes.extend_from_slice(views.value(row).as_bytes());
        }
        ends.push(bytes.len() as i32);
    }
    let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
    Ok(Arc::new(StringArray::try_new(offsets, Buffer::from_vec(bytes), views.nulls().cloned())?))
}

fn way(kind: &Kind, data_type: &DataType) -> Way {
    use DataType::*;
    match (kind, data_type) {
        (Kind::Bool, Boolean)
        | (Kind::Int2, Int16)
        | (Kind::Int4, Int32)
        | (Kind::Int8, Int64)
        | (Kind::Float4, Float32)
        | (Kind::Float8, Float64)
        | (Kind::Text | Kind::Jsonb, Utf8)
        | (Kind::Bytea, Binary)
        | (Kind::Uuid, FixedSizeBinary(16)) => Way::AsItIs,
        (Kind::Text | Kind::Jsonb, Utf8View) => Way::Text,
        (Kind::Int4, Int16)
        | (Kind::Int8, Int16 | Int32)
        | (Kind::Float8, Float32)
        | (Kind::Text | Kind::Jsonb, LargeUtf8)
        | (Kind::Bytea, BinaryView | LargeBinary) => Way::Cast,
        (Kind::Date, Date32) => Way::Date,
        (Kind::Timestamp, Timestamp(TimeUnit::Microsecond, None)) | (Kind::TimestampTz, Timestamp(TimeUnit::Microsecond, Some(_))) => {
            Way::Timestamp
        }
        (Kind::Decimal128(_, s), Decimal128(_, t)) | (Kind::Decimal256(_, s), Decimal128(_, t) | Decimal256(_, t)) if s == t => Way::Decimal,
        _ => Way::Rows,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn texts_are_those_of_the_views(texts in prop::collection::vec(prop::option::of("\\PC{0,20}"), 0..60), from in 0usize..60, many in 0usize..60) {
            let views = StringViewArray::from_iter(texts.iter());
            let from = from.min(views.len());
            let views = views.slice(from, many.min(views.len() - from));
            let found = text_of(&views).unwrap();
            let wanted = arrow::compute::cast(&views, &DataType::Utf8).unwrap();
            prop_assert_eq!(&found, &wanted);
        }
    }
}
