//! A batch: rows in COPY text format without their provenance, the bytes they came from, and the records that were
//! refused. Knows no decoding and no connection.
//!
//! Rows of a batch may differ in which columns with defaults they leave out; each such set is a segment with a COPY of
//! its own. Provenance is appended when a row is sent, so that a row keeps its number however the batch is split; or, for
//! sources whose records have an identity of their own ([`Batch::identify`]), when it is accepted.

/// Where a row of a segment stands.
#[derive(Debug, Clone, Copy)]
struct RowRef {
    end: usize,
    raw_end: usize,
    line: u64,
    /// Number within the batch: the row's `_offset` is the batch's first offset plus this.
    number: u32,
}

/// Rows that name the same columns.
#[derive(Debug, Default)]
pub struct Segment {
    /// Bit i: the i-th column with a default is left out.
    pub absent: u64,
    text: Vec<u8>,
    raw: Vec<u8>,
    rows: Vec<RowRef>,
}

/// One row of a segment.
#[derive(Debug, Clone, Copy)]
pub struct RowView<'a> {
    /// COPY text without provenance and line end.
    pub text: &'a [u8],
    /// The record's own bytes; empty for rows that no record made.
    pub raw: &'a [u8],
    /// Line of the record.
    pub line: u64,
    /// Number within the batch.
    pub number: u32,
}

impl Segment {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True if there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The text of these rows, as it stands in the segment.
    pub fn text_of(&self, rows: std::ops::Range<usize>) -> &[u8] {
        let start = if rows.start == 0 { 0 } else { self.rows[rows.start - 1].end };
        if rows.is_empty() { &[] } else { &self.text[start..self.rows[rows.end - 1].end] }
    }

    /// The i-th row.
    pub fn row(&self, i: usize) -> RowView<'_> {
        let r = self.rows[i];
        let (start, raw_start) =
            if i == 0 { (0, 0) } else { (self.rows[i - 1].end, self.rows[i - 1].raw_end) };
        RowView {
            text: &self.text[start..r.end],
            raw: &self.raw[raw_start..r.raw_end],
            line: r.line,
            number: r.number,
        }
    }

    /// Where the next row's text goes. What is appended must be ended by [`Batch::accept`] or cut off again.
    pub fn text_mut(&mut self) -> &mut Vec<u8> {
        &mut self.text
    }

    /// Bytes of finished rows.
    fn finished(&self) -> usize {
        self.rows.last().map_or(0, |r| r.end)
    }

    /// Cuts off what was appended since the last finished row.
    pub fn abandon(&mut self) {
        self.text.truncate(self.finished());
    }
}

/// A record that did not become a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Line on which the record begins, from 1.
    pub line: u64,
    /// `frame`, `decode`, `map` or `postgres`.
    pub stage: &'static str,
    /// For people.
    pub reason: String,
    /// The record's bytes (the head of them, if it was beyond the bound).
    pub raw: Vec<u8>,
}

/// Rows and refused records of a run of consecutive records.
#[derive(Debug, Default)]
pub struct Batch {
    /// Rows by the columns they name.
    pub segments: Vec<Segment>,
    /// In order.
    pub rejected: Vec<Rejected>,
    rows: u32,
    identity: Option<Identity>,
}

/// `_stream` and `_offset` of rows, as they end a row's COPY text.
#[derive(Debug, Clone, Copy)]
struct Identity {
    text: [u8; 40],
    len: usize,
}

impl Batch {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows as usize
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.segments
            .iter()
            .map(|s| s.text.len() + s.raw.len() + s.rows.len() * size_of::<RowRef>())
            .sum::<usize>()
            + self.rejected.iter().map(|r| r.raw.len() + r.reason.len() + 64).sum::<usize>()
    }

    /// The segment of rows that leave out this set of columns.
    pub fn segment(&mut self, absent: u64) -> (usize, &mut Segment) {
        let i = match self.segments.iter().position(|s| s.absent == absent) {
            Some(i) => i,
            None => {
                self.segments.push(Segment { absent, ..Segment::default() });
                self.segments.len() - 1
            }
        };
        (i, &mut self.segments[i])
    }

    /// Rows accepted from now on carry this identity, with their line end; all of them the same, for one record may make
    /// several rows. They are sent with [`crate::sink::Numbering::Written`].
    pub fn identify(&mut self, stream: i32, offset: i64) {
        // Two tabs, a line end and at most 11 and 20 characters fit.
        let mut identity = Identity { text: [0; 40], len: 0 };
        let mut rest = &mut identity.text[..];
        // Writing to a slice that is long enough cannot fail.
        let _ = std::io::Write::write_fmt(&mut rest, format_args!("\t{stream}\t{offset}\n"));
        identity.len = 40 - rest.len();
        self.identity = Some(identity);
    }

    /// Ends the row just written to a segment.
    pub fn accept(&mut self, segment: usize, line: u64, raw: &[u8]) {
        let number = self.rows;
        let s = &mut self.segments[segment];
        if let Some(identity) = &self.identity {
            s.text.extend_from_slice(&identity.text[..identity.len]);
        }
        s.raw.extend_from_slice(raw);
        s.rows.push(RowRef { end: s.text.len(), raw_end: s.raw.len(), line, number });
        self.rows += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(batch: &mut Batch, absent: u64, text: &str, line: u64) {
        let (i, s) = batch.segment(absent);
        s.text_mut().extend_from_slice(text.as_bytes());
        batch.accept(i, line, b"");
    }

    #[test]
    fn rows_of_one_record_share_its_identity() {
        let mut batch = Batch::default();
        batch.identify(7, 41);
        row(&mut batch, 0, "a", 0);
        row(&mut batch, 1, "b", 0);
        row(&mut batch, 0, "c", 0);
        batch.identify(i32::MAX, i64::MAX);
        row(&mut batch, 0, "d", 1);
        let all = batch.segments[0].text_of(0..3);
        assert_eq!(all, b"a\t7\t41\nc\t7\t41\nd\t2147483647\t9223372036854775807\n");
        assert_eq!(batch.segments[0].text_of(1..2), b"c\t7\t41\n");
        assert_eq!(batch.segments[0].text_of(2..2), b"");
        assert_eq!(batch.segments[1].text_of(0..1), b"b\t7\t41\n");
        assert_eq!(batch.rows(), 4);
    }

    #[test]
    fn an_abandoned_row_leaves_no_identity() {
        let mut batch = Batch::default();
        batch.identify(1, 1);
        let (_, s) = batch.segment(0);
        s.text_mut().extend_from_slice(b"half");
        s.abandon();
        row(&mut batch, 0, "whole", 0);
        assert_eq!(batch.segments[0].text_of(0..1), b"whole\t1\t1\n");
    }
}
