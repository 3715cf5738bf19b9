//! CSV records to fields, RFC 4180 with PostgreSQL's reading of emptiness: an empty cell without quotes is NULL, `""` is
//! the empty string. Knows the header's names; knows no columns.

use std::borrow::Cow;

use super::{Field, Reason, Record, Value};

/// The first record of a CSV file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// One name a cell, in order.
    pub names: Vec<String>,
    /// Between cells.
    pub delimiter: u8,
}

/// Delimiters that are looked for, the usual one first.
pub const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// The delimiter that occurs most often outside quotes in a header line.
pub fn guess_delimiter(line: &str) -> u8 {
    let mut counts = [0usize; 4];
    let mut quoted = false;
    for b in line.bytes() {
        if b == b'"' {
            quoted = !quoted;
        } else if !quoted && let Some(i) = DELIMITERS.iter().position(|&d| d == b) {
            counts[i] += 1;
        }
    }
    let best = (0..4).rev().max_by_key(|&i| counts[i]).unwrap_or(0);
    DELIMITERS[best]
}

impl Header {
    /// Reads the header record.
    ///
    /// # Errors
    /// A name is empty or comes twice, or the quoting is broken.
    pub fn parse(line: &str, delimiter: u8) -> Result<Header, Reason> {
        let line = line.strip_prefix('\u{feff}').unwrap_or(line);
        let mut names: Vec<String> = Vec::new();
        for cell in (Cells { rest: Some(line), delimiter }) {
            let name = cell?.0.trim().to_owned();
            if name.is_empty() {
                return Err(format!("column {} of the CSV header has no name", names.len() + 1));
            }
            if names.contains(&name) {
                return Err(format!("the CSV header names {name:?} twice"));
            }
            names.push(name);
        }
        Ok(Header { names, delimiter })
    }
}

/// Cells of one record: the text, and whether it was quoted.
struct Cells<'a> {
    rest: Option<&'a str>,
    delimiter: u8,
}

impl<'a> Iterator for Cells<'a> {
    type Item = Result<(Cow<'a, str>, bool), Reason>;

    fn next(&mut self) -> Option<Self::Item> {
        let s = self.rest?;
        let Some(inner) = s.strip_prefix('"') else {
            let (cell, rest) = match memchr::memchr(self.delimiter, s.as_bytes()) {
                Some(i) => (&s[..i], Some(&s[i + 1..])),
                None => (s, None),
            };
            self.rest = rest;
            return Some(Ok((Cow::Borrowed(cell), false)));
        };
        let bytes = inner.as_bytes();
        let mut from = 0;
        let mut doubled = false;
        loop {
            match memchr::memchr(b'"', &bytes[from..]) {
                None => {
                    self.rest = None;
                    return Some(Err("a quoted cell is not closed".to_owned()));
                }
                Some(n) if bytes.get(from + n + 1) == Some(&b'"') => {
                    doubled = true;
                    from += n + 2;
                }
                Some(n) => {
                    let end = from + n;
                    let cell = &inner[..end];
                    self.rest = match bytes.get(end + 1) {
                        None => None,
                        Some(b) if *b == self.delimiter => Some(&inner[end + 2..]),
                        Some(_) => {
                            self.rest = None;
                            return Some(Err("text follows a quoted cell".to_owned()));
                        }
                    };
                    let cell =
                        if doubled { Cow::Owned(cell.replace("\"\"", "\"")) } else { Cow::Borrowed(cell) };
                    return Some(Ok((cell, true)));
                }
            }
        }
    }
}

/// The fields of one record, named by the header.
///
/// # Errors
/// Broken quoting, or more or fewer cells than the header.
pub fn decode<'a>(text: &'a str, header: &'a Header) -> Result<Record<'a>, Reason> {
    let mut record = Vec::with_capacity(header.names.len());
    let mut cells = 0;
    for cell in (Cells { rest: Some(text), delimiter: header.delimiter }) {
        let (cell, quoted) = cell?;
        if let Some(name) = header.names.get(cells) {
            let value = if cell.is_empty() && !quoted { Value::Null } else { Value::Text(cell) };
            record.push(Field { name: Cow::Borrowed(name.as_str()), value });
        }
        cells += 1;
    }
    if cells != header.names.len() {
        return Err(format!("{cells} cells where the header has {}", header.names.len()));
    }
    Ok(record)
}
