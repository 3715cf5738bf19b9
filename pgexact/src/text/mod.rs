//! Text functions: length, concatenation, and the fields of jsonb values kept as PostgreSQL's canonical text. Knows that text's grammar
//! (`jsonb_out`): keys are unique, strings are escaped by `escape_json`, one space after each colon and comma. No other text may be given.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int32Builder, StringViewBuilder};

use crate::PgError;
use crate::fixed::Texts;

mod path;
#[cfg(test)]
mod tests;

pub use path::{is_plain_step, jsonb_element, jsonb_path};

fn texts(array: &dyn Array) -> Result<Texts<'_>, PgError> {
    Texts::of(array).ok_or_else(|| PgError::not_exact(format!("no text kernel for {}", array.data_type())))
}

/// `length(text)`: characters.
pub fn length(a: &dyn Array) -> Result<ArrayRef, PgError> {
    let values = texts(a)?;
    let mut out = Int32Builder::with_capacity(a.len());
    for i in 0..a.len() {
        // A text has at most 2^30 bytes.
        out.append_option(values.value(i).map(|t| t.chars().count() as i32));
    }
    Ok(Arc::new(out.finish()))
}

/// `a || b` row by row; NULL if either is.
pub fn concat(a: &dyn Array, b: &dyn Array) -> Result<ArrayRef, PgError> {
    let (x, y) = (texts(a)?, texts(b)?);
    let mut out = StringViewBuilder::with_capacity(a.len());
    let mut buffer = String::new();
    for i in 0..a.len() {
        match (x.value(i), y.value(i)) {
            (Some(x), Some(y)) => {
                buffer.clear();
                buffer.push_str(x);
                buffer.push_str(y);
                out.append_value(&buffer);
            }
            _ => out.append_null(),
        }
    }
    Ok(Arc::new(out.finish()))
}

/// `document -> key` (`as_text` false) or `document ->> key`: the field of an object. NULL where the document is no object or lacks the key;
/// `->>` gives NULL for a JSON null.
pub fn jsonb_field(documents: &dyn Array, key: &str, as_text: bool) -> Result<ArrayRef, PgError> {
    let values = texts(documents)?;
    let quoted = escape(key);
    let mut out = StringViewBuilder::with_capacity(documents.len());
    for i in 0..documents.len() {
        let Some(document) = values.value(i) else {
            out.append_null();
            continue;
        };
        match field(document, &quoted).map_err(|()| PgError::not_exact("a jsonb value is not canonical"))? {
            None => out.append_null(),
            Some("null") if as_text => out.append_null(),
            Some(found) if as_text && found.starts_with('"') => out.append_value(unescape(found)?),
            Some(found) => out.append_value(found),
        }
    }
    Ok(Arc::new(out.finish()))
}

/// A string as `escape_json` writes it.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The reverse of [`escape`].
fn unescape(quoted: &str) -> Result<String, PgError> {
    let malformed = || PgError::not_exact("a jsonb value is not canonical");
    let inner = quoted.strip_prefix('"').and_then(|t| t.strip_suffix('"')).ok_or_else(malformed)?;
    if !inner.contains('\\') {
        return Ok(inner.to_owned());
    }
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        out.push(match chars.next() {
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some(c @ ('"' | '\\')) => c,
            Some('u') => {
                let hex: String = chars.by_ref().take(4).collect();
                u32::from_str_radix(&hex, 16).ok().and_then(char::from_u32).ok_or_else(malformed)?
            }
            _ => return Err(malformed()),
        });
    }
    Ok(out)
}

/// The text of the value under `key` (quoted) in a canonical document.
fn field<'a>(document: &'a str, key: &str) -> Result<Option<&'a str>, ()> {
    let bytes = document.as_bytes();
    if bytes.first() != Some(&b'{') {
        return Ok(None);
    }
    let mut at = 1;
    if bytes.get(at) == Some(&b'}') {
        return Ok(None);
    }
    loop {
        let name_end = string_end(bytes, at)?;
        let name = &document[at..name_end];
        let value_start = name_end + 2;
        if bytes.get(name_end..value_start) != Some(b": ") {
            return Err(());
        }
        let value_end = value_end(bytes, value_start)?;
        if name == key {
            return Ok(Some(&document[value_start..value_end]));
        }
        match bytes.get(value_end) {
            Some(b'}') => return Ok(None),
            Some(b',') => at = value_end + 2,
            _ => return Err(()),
        }
    }
}

/// The end of the string that begins at `at`.
fn string_end(bytes: &[u8], at: usize) -> Result<usize, ()> {
    if bytes.get(at) != Some(&b'"') {
        return Err(());
    }
    let mut end = at + 1;
    loop {
        match bytes.get(end).ok_or(())? {
            b'"' => return Ok(end + 1),
            b'\\' => end += 2,
            _ => end += 1,
        }
    }
}

/// The end of the value that begins at `at`.
fn value_end(bytes: &[u8], at: usize) -> Result<usize, ()> {
    let mut depth = 0usize;
    let mut end = at;
    loop {
        match bytes.get(end).ok_or(())? {
            b'"' => end = string_end(bytes, end)?,
            b'{' | b'[' => {
                depth += 1;
                end += 1;
            }
            b'}' | b']' if depth > 0 => {
                depth -= 1;
                end += 1;
            }
            b'}' | b',' if depth == 0 => return Ok(end),
            _ => {
                end += 1;
                continue;
            }
        }
        if depth == 0 {
            return Ok(end);
        }
    }
}
