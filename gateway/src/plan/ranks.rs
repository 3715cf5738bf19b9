//! The rows of a statement that is `arranged`: collected within bounds, their texts as PostgreSQL is asked to rank them, and the relation of rows
//! and ranks that the statement's end reads. Pure. ✗ asking.

use super::{PlanError, Result};
use crate::analyze::arranged::{self, Arranged};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::datasource::{MemTable, TableProvider};
use std::collections::HashMap;
use std::sync::Arc;

/// Rows that are held to be sorted, at most, and bytes of them.
pub const MAX_ROWS: usize = 100_000;
pub const MAX_BYTES: usize = 32 << 20;

/// What the end of the statement is computed of.
#[derive(Debug)]
pub struct Rows {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
}

impl Rows {
    /// None yet.
    pub fn new(schema: SchemaRef) -> Rows {
        Rows { schema, batches: Vec::new(), rows: 0, bytes: 0 }
    }

    /// Takes more rows.
    ///
    /// # Errors
    /// [`PlanError::Unproven`] beyond the bounds.
    pub fn push(&mut self, batch: RecordBatch) -> Result<()> {
        self.rows += batch.num_rows();
        if self.rows > MAX_ROWS {
            return Err(PlanError::Unproven(format!("more than {MAX_ROWS} rows are to be sorted by texts that PostgreSQL ranks")));
        }
        let columns: Vec<ArrayRef> = batch.columns().iter().map(own).collect();
        self.bytes += columns.iter().map(|c| c.get_array_memory_size()).sum::<usize>();
        if self.bytes > MAX_BYTES {
            return Err(PlanError::Unproven(format!("more than {MAX_BYTES} bytes are to be sorted by texts that PostgreSQL ranks")));
        }
        self.batches.push(RecordBatch::try_new(batch.schema(), columns).map_err(internal)?);
        Ok(())
    }

    /// The texts of a column, each once; the place of each is where its rank will be.
    ///
    /// # Errors
    /// [`PlanError::Internal`] if it has none.
    pub fn texts(&self, output: usize) -> Result<Vec<&str>> {
        let mut places = HashMap::new();
        let mut texts = Vec::new();
        for batch in &self.batches {
            for text in values(batch, output)?.into_iter().flatten() {
                places.entry(text).or_insert_with(|| texts.push(text));
            }
        }
        Ok(texts)
    }

    /// The relation that [`Arranged::plan`] reads. `ranks` has, for each of [`Arranged::ranked`], those of [`Rows::texts`].
    ///
    /// # Errors
    /// [`PlanError::Internal`] if a text has no rank.
    pub fn ranked(&self, arranged: &Arranged, ranks: &[Vec<i64>]) -> Result<Arc<dyn TableProvider>> {
        let types = self.schema.fields().iter().map(|f| f.data_type().clone()).chain(arranged.ranked.iter().map(|_| DataType::Int64));
        let field = |(number, ty)| Field::new(arranged::column_name(number), ty, true);
        let schema = Arc::new(Schema::new(types.enumerate().map(field).collect::<Vec<_>>()));
        let mut known = Vec::with_capacity(ranks.len());
        for (one, ranks) in arranged.ranked.iter().zip(ranks) {
            let texts = self.texts(one.output)?;
            if texts.len() != ranks.len() {
                return Err(PlanError::Internal(format!("{} texts have {} ranks", texts.len(), ranks.len())));
            }
            known.push(texts.into_iter().zip(ranks.iter().copied()).collect::<HashMap<_, _>>());
        }
        let mut batches = Vec::with_capacity(self.batches.len());
        for batch in &self.batches {
            let mut columns = batch.columns().to_vec();
            for (one, known) in arranged.ranked.iter().zip(&known) {
                let ranks = values(batch, one.output)?.into_iter().map(|text| known.get(text?).copied());
                columns.push(Arc::new(ranks.collect::<Int64Array>()));
            }
            batches.push(RecordBatch::try_new(schema.clone(), columns).map_err(internal)?);
        }
        Ok(Arc::new(MemTable::try_new(schema, vec![batches])?))
    }
}

/// An array of PostgreSQL's type text[], in its binary format.
pub fn text_array(texts: &[&str]) -> Vec<u8> {
    const TEXT: i32 = 25;
    let mut out = Vec::with_capacity(20 + texts.iter().map(|t| t.len() + 4).sum::<usize>());
    // Bounded by MAX_BYTES, far below what the lengths can say.
    let number = |n: usize| (n as i32).to_be_bytes();
    out.extend(number(usize::from(!texts.is_empty())));
    out.extend(0i32.to_be_bytes());
    out.extend(TEXT.to_be_bytes());
    if !texts.is_empty() {
        out.extend(number(texts.len()));
        out.extend(1i32.to_be_bytes());
    }
    for text in texts {
        out.extend(number(text.len()));
        out.extend(text.as_bytes());
    }
    out
}

/// `{3,1,2}`, as PostgreSQL writes an array of numbers.
pub fn numbers(text: &[u8]) -> Option<Vec<i64>> {
    let inside = std::str::from_utf8(text).ok()?.strip_prefix('{')?.strip_suffix('}')?;
    inside.split(',').filter(|n| !n.is_empty()).map(|n| n.parse().ok()).collect()
}

/// The column without what else its buffers hold.
fn own(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Utf8View => Arc::new(column.as_string_view().gc()),
        DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
        _ => column.clone(),
    }
}

fn values(batch: &RecordBatch, output: usize) -> Result<Vec<Option<&str>>> {
    match batch.columns().get(output).map(|c| (c, c.data_type())) {
        Some((c, DataType::Utf8View)) => Ok(c.as_string_view().iter().collect()),
        Some((c, DataType::Utf8)) => Ok(c.as_string::<i32>().iter().collect()),
        Some((c, DataType::LargeUtf8)) => Ok(c.as_string::<i64>().iter().collect()),
        _ => Err(PlanError::Internal("what is to be ranked is no text".into())),
    }
}

fn internal(e: impl std::fmt::Display) -> PlanError {
    PlanError::Internal(e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::arranged::Ranked;
    use crate::analyze::ir::Rel;
    use datafusion::arrow::array::StringViewArray;

    fn batch(texts: &[Option<&str>]) -> RecordBatch {
        let column: ArrayRef = Arc::new(texts.iter().copied().collect::<StringViewArray>());
        RecordBatch::try_from_iter_with_nullable([("c", column, true)]).expect("a batch")
    }

    #[test]
    fn each_text_is_asked_once_and_found_again() {
        let mut rows = Rows::new(batch(&[]).schema());
        rows.push(batch(&[Some("b"), None, Some("a")])).expect("fits");
        rows.push(batch(&[Some("a"), Some("a text that is longer than a view holds"), Some("b")])).expect("fits");
        assert_eq!(rows.texts(0).expect("texts"), ["b", "a", "a text that is longer than a view holds"]);
        assert!(rows.texts(1).is_err());
        let ranked = vec![Ranked { output: 0, collation: 100, deterministic: true }];
        let arranged = Arranged { plan: Rel::OneRow, ranked };
        let table = rows.ranked(&arranged, &[vec![3, 1, 2]]).expect("ranks");
        let names: Vec<String> = table.schema().fields().iter().map(|f| f.name().clone()).collect();
        assert_eq!(names, ["row0", "row1"]);
        assert!(rows.ranked(&arranged, &[vec![1]]).is_err(), "a text without a rank");
        Rows::new(batch(&[]).schema()).ranked(&arranged, &[vec![]]).expect("nothing to rank");
    }

    #[test]
    fn bounds_hold() {
        let none = || Rows::new(batch(&[]).schema());
        let mut rows = none();
        let many: Vec<Option<&str>> = vec![Some("x"); MAX_ROWS];
        rows.push(batch(&many)).expect("as many as may be");
        assert!(matches!(rows.push(batch(&[None])), Err(PlanError::Unproven(m)) if m.contains("rows")));
        let long = "y".repeat(MAX_BYTES);
        assert!(matches!(none().push(batch(&[Some(&long)])), Err(PlanError::Unproven(m)) if m.contains("bytes")));
        // Of a batch that is cut out of a long one, only its own counts.
        let cut = batch(&[Some(&long), Some("short")]).slice(1, 1);
        none().push(cut).expect("fits");
    }

    #[test]
    fn arrays_are_written_and_read() {
        assert_eq!(text_array(&[]), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 25]);
        assert_eq!(text_array(&["é"])[12..], [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0xc3, 0xa9]);
        assert_eq!(numbers(b"{3,1,2}"), Some(vec![3, 1, 2]));
        assert_eq!(numbers(b"{}"), Some(vec![]));
        assert_eq!(numbers(b"3,1"), None);
        assert_eq!(numbers(b"{NULL}"), None);
    }
}
