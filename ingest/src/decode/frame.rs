//! Cuts a byte stream into records of bounded size: lines, CSV records (which may hold newlines inside quotes), the
//! elements of one JSON array. Knows where each record stands (bytes, lines); does not know what it means.

use std::io::{self, Read};
use std::ops::Range;

use memchr::{memchr, memchr_iter, memchr2};

/// How records are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// One record a line; `\n` or `\r\n`.
    Lines,
    /// RFC 4180: a record ends at a newline outside double quotes.
    Csv {
        /// Between cells.
        delimiter: u8,
    },
    /// The elements of one JSON array, across lines.
    JsonArray,
}

/// How much of an oversized record is kept for its dead letter.
pub const OVERSIZED_HEAD: usize = 64 * 1024;

/// What was found at the reader's position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A whole record.
    Whole,
    /// A last record without its terminator; more may follow when the file grows.
    Unterminated,
    /// Longer than the bound: only its head is kept. Holds the full length in bytes.
    Oversized(u64),
    /// The framing itself is broken here; says how.
    Broken(&'static str),
}

/// One framed record. Its bytes are read with [`Frames::bytes`] until the next call of [`Frames::next_frame`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Shape of the record.
    pub shape: Shape,
    /// Line (from 1) on which it begins.
    pub line: u64,
    /// Content bytes from the end of the record before to the end of this one, terminator and blank lines included.
    pub consumed: u64,
    range: Range<usize>,
}

/// The reader. Holds at most the record bound and one block in memory.
pub struct Frames<R> {
    source: R,
    framing: Framing,
    max: usize,
    buf: Vec<u8>,
    pos: usize,
    filled: usize,
    eof: bool,
    line: u64,
    consumed: u64,
    array_open: bool,
    array_done: bool,
}

const BLOCK: usize = 256 * 1024;

enum End {
    /// Record is `start..end`, then skip to `next`.
    At {
        end: usize,
        next: usize,
    },
    /// The stream ended first.
    Eof,
    /// More than the bound.
    TooLong,
    Broken(&'static str),
}

impl<R: Read> Frames<R> {
    /// `line` is the number (from 1) of the line that the stream begins on; `max_record_bytes` bounds a record.
    pub fn new(source: R, framing: Framing, max_record_bytes: usize, line: u64) -> Self {
        Frames {
            source,
            framing,
            max: max_record_bytes.max(1),
            buf: vec![0; BLOCK],
            pos: 0,
            filled: 0,
            eof: false,
            line,
            consumed: 0,
            array_open: false,
            array_done: false,
        }
    }

    /// Changes how the rest is cut; the header line of a CSV file tells its delimiter.
    pub fn set_framing(&mut self, framing: Framing) {
        self.framing = framing;
    }

    /// The number of the line that the next record begins on, or an earlier one if blank lines come first.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The bytes of a frame just returned.
    pub fn bytes(&self, frame: &Frame) -> &[u8] {
        &self.buf[frame.range.clone()]
    }

    /// Reads more; returns false at the end of the stream.
    fn fill(&mut self) -> io::Result<bool> {
        if self.eof {
            return Ok(false);
        }
        if self.pos > 0 && (self.filled == self.buf.len() || self.pos == self.filled) {
            self.buf.copy_within(self.pos..self.filled, 0);
            self.filled -= self.pos;
            self.pos = 0;
        }
        if self.filled == self.buf.len() {
            let grown = (self.buf.len() * 2).min(self.max + BLOCK).max(self.buf.len() + BLOCK);
            self.buf.resize(grown, 0);
        }
        loop {
            match self.source.read(&mut self.buf[self.filled..]) {
                Ok(0) => {
                    self.eof = true;
                    return Ok(false);
                }
                Ok(n) => {
                    self.filled += n;
                    return Ok(true);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Consumes `n` bytes of the buffer, counting lines.
    fn advance(&mut self, n: usize) {
        self.line += memchr_iter(b'\n', &self.buf[self.pos..self.pos + n]).count() as u64;
        self.skip(n);
    }

    fn skip(&mut self, n: usize) {
        self.pos += n;
        self.consumed += n as u64;
    }

    /// The next record, or `None` at the end. Blank lines are not records.
    ///
    /// # Errors
    /// Whatever the source reports, for instance a damaged compressed stream.
    pub fn next_frame(&mut self) -> io::Result<Option<Frame>> {
        self.consumed = 0;
        if !self.skip_blank()? {
            return Ok(None);
        }
        let line = self.line;
        let end = match self.framing {
            Framing::Lines => self.find_newline()?,
            Framing::Csv { delimiter } => self.find_csv_end(delimiter)?,
            Framing::JsonArray => self.find_element_end()?,
        };
        let start = self.pos;
        let (shape, range) = match end {
            End::At { end, next } => {
                let len = trim_cr(&self.buf[start..start + end]);
                if self.framing == Framing::Lines {
                    self.line += 1;
                    self.skip(next);
                } else {
                    self.advance(next);
                }
                (Shape::Whole, start..start + len)
            }
            End::Eof => {
                let len = self.filled - self.pos;
                self.advance(len);
                (Shape::Unterminated, start..start + trim_cr(&self.buf[start..start + len]))
            }
            End::Broken(why) => {
                // One bad quote must not swallow its neighbours: only the first line of it is given up. Inside a JSON
                // array nothing that follows can be told apart any more.
                let skip = if self.framing == Framing::JsonArray { Skip::Everything } else { Skip::Line };
                return self.give_up(line, Some(why), skip).map(Some);
            }
            End::TooLong => {
                let skip = match self.framing {
                    Framing::Lines => Skip::Line,
                    Framing::Csv { delimiter } => {
                        Skip::Csv { state: CsvState::default(), delimiter, left: self.max }
                    }
                    Framing::JsonArray => Skip::Element { depth: 0, in_string: false, escaped: false },
                };
                return self.give_up(line, None, skip).map(Some);
            }
        };
        Ok(Some(Frame { shape, line, consumed: self.consumed, range }))
    }

    /// Skips what separates records; false at the end of the stream.
    fn skip_blank(&mut self) -> io::Result<bool> {
        loop {
            while self.pos < self.filled {
                let b = self.buf[self.pos];
                let blank = match self.framing {
                    Framing::Lines => matches!(b, b'\n' | b'\r' | b' ' | b'\t'),
                    Framing::Csv { .. } => matches!(b, b'\n' | b'\r'),
                    Framing::JsonArray => match b {
                        b'\n' | b'\r' | b' ' | b'\t' => true,
                        b'[' if !self.array_open => {
                            self.array_open = true;
                            true
                        }
                        b',' if self.array_open && !self.array_done => true,
                        b']' if self.array_open && !self.array_done => {
                            self.array_done = true;
                            true
                        }
                        _ => false,
                    },
                };
                if !blank {
                    return Ok(true);
                }
                self.advance(1);
            }
            if !self.fill()? {
                return Ok(false);
            }
        }
    }

    fn find_newline(&mut self) -> io::Result<End> {
        let mut from = 0;
        loop {
            let have = &self.buf[self.pos..self.filled];
            if let Some(i) = memchr(b'\n', &have[from..]) {
                let end = from + i;
                return Ok(if end > self.max { End::TooLong } else { End::At { end, next: end + 1 } });
            }
            from = have.len();
            if from > self.max {
                return Ok(End::TooLong);
            }
            if !self.fill()? {
                return Ok(End::Eof);
            }
        }
    }

    fn find_csv_end(&mut self, delimiter: u8) -> io::Result<End> {
        let mut i = 0;
        let mut state = CsvState::default();
        loop {
            let have = &self.buf[self.pos..self.filled];
            let end = state.scan(have, &mut i, delimiter, self.max);
            if i > self.max {
                return Ok(if state.quoted {
                    End::Broken("a quoted cell is not closed within the record bound")
                } else {
                    End::TooLong
                });
            }
            if end {
                return Ok(End::At { end: i, next: i + 1 });
            }
            if !self.fill()? {
                return Ok(if state.quoted { End::Broken("a quoted cell is not closed") } else { End::Eof });
            }
        }
    }

    fn find_element_end(&mut self) -> io::Result<End> {
        if !self.array_open {
            return Ok(End::Broken("not a JSON array"));
        }
        if self.array_done {
            return Ok(End::Broken("something follows the end of the JSON array"));
        }
        let mut i = 0;
        let mut depth = 0u32;
        let mut in_string = false;
        loop {
            let have = &self.buf[self.pos..self.filled];
            while i < have.len() && i <= self.max {
                if in_string {
                    match memchr2(b'"', b'\\', &have[i..]) {
                        None => i = have.len(),
                        Some(n) if have[i + n] == b'\\' => {
                            // The escaped byte may not have been read yet: come back to the backslash then.
                            if i + n + 1 >= have.len() {
                                i += n;
                                break;
                            }
                            i += n + 2;
                        }
                        Some(n) => {
                            in_string = false;
                            i += n + 1;
                        }
                    }
                    continue;
                }
                match have[i] {
                    b'"' => in_string = true,
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' if depth > 0 => depth -= 1,
                    // The separator stays for skip_blank, which knows the end of the array.
                    b',' | b']' if depth == 0 => {
                        return Ok(End::At { end: trim_end(&have[..i]), next: i });
                    }
                    b'}' => return Ok(End::Broken("unbalanced braces in a JSON array")),
                    _ => {}
                }
                i += 1;
            }
            if i > self.max {
                return Ok(End::TooLong);
            }
            if !self.fill()? {
                return Ok(End::Broken("the JSON array is not closed"));
            }
        }
    }

    /// Passes a record that is too long or broken, keeping no more of it than its head.
    fn give_up(&mut self, line: u64, broken: Option<&'static str>, mut skip: Skip) -> io::Result<Frame> {
        let mut head = Vec::new();
        let before = self.consumed;
        loop {
            let have = &self.buf[self.pos..self.filled];
            let (n, ended) = skip.scan(have);
            let room = OVERSIZED_HEAD - head.len();
            head.extend_from_slice(&have[..n.min(room)]);
            self.advance(n);
            if ended || !self.fill()? {
                break;
            }
        }
        if matches!(skip, Skip::Everything) {
            self.array_done = true;
        }
        let length = self.consumed - before;
        while head.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
            head.pop();
        }
        // Park the head in front of the unread bytes.
        if self.pos < head.len() {
            let unread = self.filled - self.pos;
            let need = head.len() + unread;
            if self.buf.len() < need {
                self.buf.resize(need, 0);
            }
            self.buf.copy_within(self.pos..self.filled, head.len());
            self.pos = head.len();
            self.filled = need;
        }
        let at = self.pos - head.len();
        self.buf[at..self.pos].copy_from_slice(&head);
        let shape = broken.map_or(Shape::Oversized(length), Shape::Broken);
        Ok(Frame { shape, line, consumed: self.consumed, range: at..at + head.len() })
    }
}

/// Where in a CSV record we are. A quote opens a quoted cell only where a cell begins; inside one, `""` is a quote.
struct CsvState {
    cell_start: bool,
    quoted: bool,
    just_closed: bool,
}

impl Default for CsvState {
    fn default() -> Self {
        CsvState { cell_start: true, quoted: false, just_closed: false }
    }
}

impl CsvState {
    /// Moves `i` on to the newline that ends the record (true), to just beyond `max`, or to the end of `have`.
    fn scan(&mut self, have: &[u8], i: &mut usize, delimiter: u8, max: usize) -> bool {
        while *i < have.len() && *i <= max {
            if self.quoted {
                match memchr(b'"', &have[*i..]) {
                    None => *i = have.len(),
                    Some(n) if *i + n > max => *i = max + 1,
                    Some(n) => {
                        *i += n + 1;
                        // A doubled quote closes here and opens again at its second half.
                        self.quoted = false;
                        self.just_closed = true;
                    }
                }
                continue;
            }
            let b = have[*i];
            match b {
                b'\n' => return true,
                b'"' if self.cell_start || self.just_closed => self.quoted = true,
                _ => {}
            }
            self.cell_start = b == delimiter;
            self.just_closed = false;
            *i += 1;
        }
        false
    }
}

/// Finds the end of a record that is given up, block by block, holding no bytes of it.
enum Skip {
    /// To the end of the line.
    Line,
    /// To the end of the CSV record; quotes count for the first `left` bytes only, so that one that is never closed
    /// does not swallow the rest of the file.
    Csv { state: CsvState, delimiter: u8, left: usize },
    /// To the end of the array element.
    Element { depth: u32, in_string: bool, escaped: bool },
    /// To the end of the stream.
    Everything,
}

impl Skip {
    /// Bytes of `have` that belong to the record, and whether it ends there.
    fn scan(&mut self, have: &[u8]) -> (usize, bool) {
        match self {
            Skip::Everything => (have.len(), false),
            Skip::Line => to_newline(have, 0),
            Skip::Csv { state, delimiter, left } => {
                let mut i = 0;
                if *left > 0 {
                    let max = *left - 1;
                    if state.scan(&have[..have.len().min(*left)], &mut i, *delimiter, max) {
                        return (i + 1, true);
                    }
                    let passed = i.min(*left).min(have.len());
                    *left -= passed;
                    if *left > 0 {
                        return (have.len(), false);
                    }
                    i = passed;
                }
                to_newline(have, i)
            }
            Skip::Element { depth, in_string, escaped } => {
                for (i, &b) in have.iter().enumerate() {
                    if *escaped {
                        *escaped = false;
                    } else if *in_string {
                        match b {
                            b'\\' => *escaped = true,
                            b'"' => *in_string = false,
                            _ => {}
                        }
                    } else {
                        match b {
                            b'"' => *in_string = true,
                            b'{' | b'[' => *depth += 1,
                            b'}' | b']' if *depth > 0 => *depth -= 1,
                            // The separator stays for skip_blank, which knows the end of the array.
                            b',' | b']' => return (i, true),
                            _ => {}
                        }
                    }
                }
                (have.len(), false)
            }
        }
    }
}

fn to_newline(have: &[u8], from: usize) -> (usize, bool) {
    match memchr(b'\n', &have[from..]) {
        Some(i) => (from + i + 1, true),
        None => (have.len(), false),
    }
}

fn trim_cr(s: &[u8]) -> usize {
    if s.last() == Some(&b'\r') { s.len() - 1 } else { s.len() }
}

fn trim_end(s: &[u8]) -> usize {
    s.len() - s.iter().rev().take_while(|b| b.is_ascii_whitespace()).count()
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
