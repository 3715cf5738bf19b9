//! Elements of jsonb arrays and values at the end of a path (`jsonb_array_element`, `get_jsonb_path_all` of PostgreSQL's `jsonfuncs.c`), as
//! slices of the canonical text.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringViewBuilder};

use super::{escape, field, texts, unescape, value_end};
use crate::PgError;

/// The element at `index` of an array, from its end where negative. None if there is none.
fn element(array: &str, index: i64) -> Result<Option<&str>, ()> {
    let bytes = array.as_bytes();
    let mut items = Vec::new();
    let mut at = 1;
    if bytes.get(at) != Some(&b']') {
        loop {
            let end = end_of(bytes, at)?;
            items.push(&array[at..end]);
            match bytes.get(end) {
                Some(b']') => break,
                Some(b',') => at = end + 2,
                _ => return Err(()),
            }
        }
    }
    let index = if index < 0 { items.len() as i64 + index } else { index };
    Ok(usize::try_from(index).ok().and_then(|i| items.get(i).copied()))
}

/// The end of the element that begins at `at`.
fn end_of(bytes: &[u8], at: usize) -> Result<usize, ()> {
    match bytes.get(at) {
        Some(b'{' | b'[' | b'"') => value_end(bytes, at),
        // A number, true, false or null ends before a comma or the array's end.
        Some(_) => {
            bytes[at..].iter().position(|b| matches!(b, b',' | b']')).map(|n| at + n).filter(|end| *end > at).ok_or(())
        }
        None => Err(()),
    }
}

fn give(out: &mut StringViewBuilder, found: Option<&str>, as_text: bool) -> Result<(), PgError> {
    match found {
        None => out.append_null(),
        Some("null") if as_text => out.append_null(),
        Some(found) if as_text && found.starts_with('"') => out.append_value(unescape(found)?),
        Some(found) => out.append_value(found),
    }
    Ok(())
}

fn damaged(_: ()) -> PgError {
    PgError::not_exact("a jsonb value is not canonical")
}

/// `document -> index` or `document ->> index`. NULL where the document is an object or has no such element; a scalar is an array of itself.
pub fn jsonb_element(documents: &dyn Array, index: i32, as_text: bool) -> Result<ArrayRef, PgError> {
    let values = texts(documents)?;
    let mut out = StringViewBuilder::with_capacity(documents.len());
    for row in 0..documents.len() {
        let found = match values.value(row) {
            None => None,
            Some(document) => match document.as_bytes().first() {
                Some(b'{') => None,
                Some(b'[') => element(document, index.into()).map_err(damaged)?,
                _ => (index == 0 || index == -1).then_some(document),
            },
        };
        give(&mut out, found, as_text)?;
    }
    Ok(Arc::new(out.finish()))
}

/// Whether a step of a path means the same here: an index has no spaces before it and few digits.
pub fn is_plain_step(step: &str) -> bool {
    !step.starts_with([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']) && (step.len() < 10 || !step.bytes().any(|b| b.is_ascii_digit()))
}

/// The index that a step is in an array.
fn index_of(step: &str) -> Option<i64> {
    let digits = step.strip_prefix(['-', '+']).unwrap_or(step);
    match !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        true => step.parse().ok(),
        false => None,
    }
}

/// `document #> path` or `document #>> path`, for steps that are plain ([`is_plain_step`]).
pub fn jsonb_path(documents: &dyn Array, path: &[String], as_text: bool) -> Result<ArrayRef, PgError> {
    let values = texts(documents)?;
    let steps: Vec<(String, Option<i64>)> = path.iter().map(|step| (escape(step), index_of(step))).collect();
    let mut out = StringViewBuilder::with_capacity(documents.len());
    for row in 0..documents.len() {
        let mut found = values.value(row);
        for (key, index) in &steps {
            found = match (found, index) {
                (Some(document), _) if document.starts_with('{') => field(document, key).map_err(damaged)?,
                (Some(document), Some(index)) if document.starts_with('[') => {
                    element(document, *index).map_err(damaged)?
                }
                _ => None,
            };
        }
        give(&mut out, found, as_text)?;
    }
    Ok(Arc::new(out.finish()))
}
