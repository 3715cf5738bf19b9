//! PostgreSQL's COPY BINARY, decoded into Arrow. Knows the wire form of each type; touches no connection.
//!
//! Sources: PostgreSQL's documentation of COPY (binary format), and the `*_send` functions of `src/backend/utils/adt` for the values.
//! Every byte that is not what they say is an error; no input can make this panic.

mod numeric;
mod value;

use std::collections::VecDeque;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use crate::types::ColType;
use crate::{Error, Result};
use value::ColumnBuilder;

/// What a COPY BINARY stream begins with.
const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
/// Signature, flags, length of the header extension.
const HEADER: usize = 19;
/// A header extension beyond this is not PostgreSQL's.
const MAX_EXTENSION: usize = 1 << 20;
/// PostgreSQL holds no field above 1 GB.
const MAX_FIELD: usize = 1 << 30;
/// And sends no row of more in one message; a row that grows beyond is malformed.
const MAX_ROW: usize = (1 << 30) + (1 << 20);
/// A batch is cut at this many bytes of input, however few its rows.
const BATCH_BYTES: usize = 32 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    Rows,
    /// The trailer was seen.
    Done,
    /// An error was returned: a row may be half in the builders.
    Failed,
}

/// Decodes one COPY BINARY stream, cut into chunks anywhere, to record batches.
///
/// Rows go straight from the chunk into Arrow builders; bytes are copied aside only where a chunk ends within a row.
#[derive(Debug)]
pub struct CopyDecoder {
    schema: SchemaRef,
    columns: Vec<ColumnBuilder>,
    batch_rows: usize,
    state: State,
    /// The beginning of a row whose end has not come yet.
    rest: Vec<u8>,
    /// Rows and input bytes in the builders.
    open_rows: usize,
    open_bytes: usize,
    ready: VecDeque<RecordBatch>,
    ready_bytes: usize,
}

impl CopyDecoder {
    /// A decoder for rows of `types`, giving batches of `schema` (the types' Arrow types, in the same order) with up to
    /// `batch_rows` rows each.
    ///
    /// Errors: [`Error::Copy`] if types and schema differ.
    pub fn new(types: &[ColType], schema: SchemaRef, batch_rows: usize) -> Result<Self> {
        let fields = schema.fields();
        if fields.len() != types.len() {
            return Err(Error::Copy(format!("{} types for {} fields", types.len(), fields.len())));
        }
        for (ty, field) in types.iter().zip(fields) {
            if matches!(ty, ColType::Array(_)) {
                return Err(Error::Copy(format!("column {} is an array", field.name())));
            }
            if ty.arrow() != *field.data_type() {
                return Err(Error::Copy(format!(
                    "column {} is {:?}, its field {}",
                    field.name(),
                    ty,
                    field.data_type()
                )));
            }
        }
        let batch_rows = batch_rows.max(1);
        Ok(Self {
            columns: types.iter().map(|t| ColumnBuilder::new(*t, batch_rows.min(8192))).collect(),
            schema,
            batch_rows,
            state: State::Header,
            rest: Vec::new(),
            open_rows: 0,
            open_bytes: 0,
            ready: VecDeque::new(),
            ready_bytes: 0,
        })
    }

    /// Takes the next bytes of the stream.
    ///
    /// Errors: [`Error::Copy`] for malformed bytes, [`Error::Unkeepable`] for a value that Arrow's type cannot hold (`NaN` in a
    /// numeric(p, s), a timestamp above year 294246). After an error the decoder refuses everything but [`Self::next_batch`].
    pub fn push(&mut self, chunk: &[u8]) -> Result<()> {
        let outcome = self.consume(chunk);
        if outcome.is_err() {
            self.state = State::Failed;
            self.rest = Vec::new();
        }
        outcome
    }

    /// The next full batch, oldest first.
    pub fn next_batch(&mut self) -> Option<RecordBatch> {
        let batch = self.ready.pop_front()?;
        self.ready_bytes = self.ready_bytes.saturating_sub(batch.get_array_memory_size());
        Some(batch)
    }

    /// Ends the stream: the rows not yet taken by [`Self::next_batch`], in one batch, or `None` if there are none.
    ///
    /// Errors: [`Error::Copy`] if the stream's trailer has not come (the rows before are not all of them).
    pub fn finish(mut self) -> Result<Option<RecordBatch>> {
        match self.state {
            State::Done => {}
            State::Failed => return Err(malformed("an earlier error ended the stream")),
            State::Header | State::Rows => return Err(malformed("the stream ended before its trailer")),
        }
        self.cut()?;
        match self.ready.len() {
            0 => Ok(None),
            1 => Ok(self.ready.pop_front()),
            _ => {
                let all: Vec<_> = self.ready.into();
                Ok(Some(arrow::compute::concat_batches(&self.schema, &all)?))
            }
        }
    }

    /// Whether the trailer was seen: no more bytes may come.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// About how much memory the decoder holds, in bytes.
    pub fn bytes(&self) -> usize {
        self.ready_bytes + self.open_bytes + self.rest.capacity()
    }

    fn consume(&mut self, chunk: &[u8]) -> Result<()> {
        if self.rest.is_empty() {
            let used = self.parse(chunk)?;
            // `parse` never takes more than it was given.
            self.rest.extend_from_slice(chunk.get(used..).unwrap_or_default());
            return Ok(());
        }
        let mut held = std::mem::take(&mut self.rest);
        held.extend_from_slice(chunk);
        let used = self.parse(&held)?;
        held.drain(..used);
        if held.len() > MAX_ROW {
            return Err(malformed("a row of more than 1 GB"));
        }
        self.rest = held;
        Ok(())
    }

    /// Takes header, whole rows and trailer from the front of `buf`; returns how many bytes that were.
    fn parse(&mut self, buf: &[u8]) -> Result<usize> {
        let mut at = 0;
        loop {
            let left = buf.get(at..).unwrap_or_default();
            let used = match self.state {
                State::Header => header(left)?,
                State::Rows => self.row(left)?,
                State::Done if left.is_empty() => 0,
                State::Done => return Err(malformed("bytes after the trailer")),
                State::Failed => return Err(malformed("an earlier error ended the stream")),
            };
            if used == 0 {
                return Ok(at);
            }
            if self.state == State::Header {
                self.state = State::Rows;
            }
            at += used;
        }
    }

    /// Takes one row or the trailer; 0: more bytes are needed.
    fn row(&mut self, buf: &[u8]) -> Result<usize> {
        let Some(head) = buf.first_chunk::<2>() else {
            return Ok(0);
        };
        let fields = i16::from_be_bytes(*head);
        if fields == -1 {
            self.state = State::Done;
            return Ok(2);
        }
        if usize::try_from(fields).ok() != Some(self.columns.len()) {
            return Err(malformed(format!("a row of {fields} fields, expected {}", self.columns.len())));
        }
        // First see that the whole row is there, so that no row is ever half in the builders.
        let mut end = 2;
        for _ in 0..fields {
            let Some(len) = buf.get(end..).and_then(|b| b.first_chunk::<4>()) else {
                return Ok(0);
            };
            let len = i32::from_be_bytes(*len);
            end += 4;
            if len != -1 {
                match usize::try_from(len) {
                    Ok(len) if len <= MAX_FIELD => end += len,
                    _ => return Err(malformed(format!("a field of {len} bytes"))),
                }
            }
        }
        let Some(row) = buf.get(2..end) else {
            return Ok(0);
        };
        let mut at = 0;
        for (i, column) in self.columns.iter_mut().enumerate() {
            // The loop above has seen that every length and every field lies within `row`.
            let (len, rest) = row[at..].split_first_chunk::<4>().ok_or_else(|| malformed("a cut row"))?;
            let len = i32::from_be_bytes(*len);
            at += 4;
            let value = match usize::try_from(len) {
                Ok(len) => {
                    at += len;
                    Some(&rest[..len])
                }
                Err(_) => None,
            };
            column.append(value).map_err(|e| e.of_column(self.schema.field(i).name()))?;
        }
        self.open_rows += 1;
        self.open_bytes += end;
        if self.open_rows >= self.batch_rows || self.open_bytes >= BATCH_BYTES {
            self.cut()?;
        }
        Ok(end)
    }

    /// Moves the rows in the builders to a batch of their own.
    fn cut(&mut self) -> Result<()> {
        if self.open_rows == 0 {
            return Ok(());
        }
        let arrays = self.columns.iter_mut().map(ColumnBuilder::finish).collect();
        // A row count of its own: there may be no columns.
        let options = RecordBatchOptions::new().with_row_count(Some(self.open_rows));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)?;
        self.ready_bytes += batch.get_array_memory_size();
        self.ready.push_back(batch);
        self.open_rows = 0;
        self.open_bytes = 0;
        Ok(())
    }
}

/// The length of the header at the front of `buf`; 0: more bytes are needed.
fn header(buf: &[u8]) -> Result<usize> {
    let known = buf.len().min(SIGNATURE.len());
    if buf[..known] != SIGNATURE[..known] {
        return Err(malformed("it does not begin with COPY's binary signature"));
    }
    let (Some(flags), Some(extension)) =
        (buf.get(11..).and_then(|b| b.first_chunk::<4>()), buf.get(15..).and_then(|b| b.first_chunk::<4>()))
    else {
        return Ok(0);
    };
    // The high half holds what a reader must know; the one flag defined there, OIDs, is gone since PostgreSQL 12.
    let flags = u32::from_be_bytes(*flags);
    if flags >> 16 != 0 {
        return Err(malformed(format!("unknown flags {flags:#x}")));
    }
    match usize::try_from(i32::from_be_bytes(*extension)) {
        Ok(n) if n <= MAX_EXTENSION => {
            let end = HEADER + n;
            Ok(if buf.len() >= end { end } else { 0 })
        }
        _ => Err(malformed("the length of the header extension")),
    }
}

fn malformed(what: impl Into<String>) -> Error {
    Error::Copy(what.into())
}

#[cfg(test)]
mod tests;
