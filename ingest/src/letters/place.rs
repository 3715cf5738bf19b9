//! Where in a record's bytes the trouble is. Pure; made for people, so it guesses where the reason only names a value.

use std::ops::Range;

use serde_json::value::RawValue;

use crate::decode::{Value, json};
use crate::map::TIME_ALIASES;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// The bytes that a reason speaks of.
pub fn find(raw: &[u8], reason: &str) -> Option<Range<usize>> {
    let text = match std::str::from_utf8(raw) {
        Ok(text) => text,
        Err(e) => {
            let at = e.valid_up_to();
            return Some(at..at + e.error_len().unwrap_or(raw.len() - at).max(1));
        }
    };
    let skipped = if raw.starts_with(BOM) { BOM.len() } else { 0 };
    let body = &text[skipped..];
    if body.trim_start().starts_with(['{', '[']) {
        if let Err(e) = serde_json::from_str::<&RawValue>(body) {
            return Some(of_line_and_column(body, e.line(), e.column(), skipped));
        }
        if let Some((at, _)) = json::bad_escape(body) {
            return Some(at + skipped..(at + skipped + 6).min(raw.len()));
        }
    }
    named(body, reason).or_else(|| quoted(body, reason)).map(|r| r.start + skipped..r.end + skipped)
}

/// serde_json counts lines from 1, and bytes of the line up to the one that it stumbled over.
fn of_line_and_column(text: &str, line: usize, column: usize, skipped: usize) -> Range<usize> {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let at = (start + column.saturating_sub(1)).min(text.len().saturating_sub(1));
    skipped + at..skipped + (at + 1).min(text.len())
}

/// `column NAME: ...` and `no column for "NAME"`: the value of that key, or the key.
fn named(text: &str, reason: &str) -> Option<Range<usize>> {
    let name = match reason.strip_prefix("column ") {
        Some(rest) => rest.split_once(": ")?.0.to_owned(),
        None => {
            let rest = reason.strip_prefix("no column for ").or_else(|| reason.strip_prefix("field "))?;
            first_quoted(rest)?
        }
    };
    let record = json::decode(text).ok()?;
    let value_of = |name: &str| {
        let field = record.iter().rfind(|f| f.name == name)?;
        match &field.value {
            Value::Json(std::borrow::Cow::Borrowed(raw)) => within(text, raw),
            _ => None,
        }
    };
    value_of(&name).or_else(|| {
        // The column may have been filled under another name; the value in the reason then tells which.
        let value = quoted(text, reason);
        value.or_else(|| TIME_ALIASES.iter().find_map(|alias| value_of(alias)))
    })
}

/// Where a slice of a text stands in it.
fn within(text: &str, part: &str) -> Option<Range<usize>> {
    let start = (part.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
    (start + part.len() <= text.len()).then(|| start..start + part.len())
}

/// The first quoted value of a reason, as it stands in the text.
fn quoted(text: &str, reason: &str) -> Option<Range<usize>> {
    let value = first_quoted(reason)?;
    let start = text.find(&value)?;
    (!value.is_empty()).then(|| start..start + value.len())
}

fn first_quoted(text: &str) -> Option<String> {
    let start = text.find('"')?;
    let mut stream = serde_json::Deserializer::from_str(&text[start..]).into_iter::<String>();
    match stream.next()? {
        Ok(value) => Some(value),
        // Not quoted as JSON has it: up to the next quote.
        Err(_) => text[start + 1..].split_once('"').map(|(value, _)| value.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(raw: &[u8], reason: &str) -> Option<String> {
        find(raw, reason).map(|r| String::from_utf8_lossy(&raw[r]).into_owned())
    }

    #[test]
    fn the_offending_bytes_are_found() {
        for (raw, reason, want) in [
            (&br#"{"ts":0,"level":[1}"#[..], "", Some("}")),
            (br#"{"ts":0,"message":"a\u0000b"}"#, "", Some("\\u0000")),
            (br#"{"ts":0,"message":"a\ud800b"}"#, "", Some("\\ud800")),
            (br#"{"ts":0,"n":300}"#, "column n: \"300\" is out of range", Some("300")),
            (b"\xef\xbb\xbf{\"ts\":0,\"n\":300}", "column n: \"300\" is out of range", Some("300")),
            (br#"{"time":"soon"}"#, "column ts: \"soon\" is neither", Some("soon")),
            (br#"{"time":true}"#, "column ts: is neither a string", Some("true")),
            (br#"{"ts":0,"k":[1]}"#, "no column for \"k\", and", Some("[1]")),
            (b"a,b,c", "column n: \"b\" is no number", Some("b")),
            (br#"{"ts":0}"#, "no event time", None),
            (b"", "anything", None),
        ] {
            assert_eq!(found(raw, reason).as_deref(), want, "{reason}");
        }
        assert_eq!(find(b"ab\xff\xfecd", "x"), Some(2..3));
        assert_eq!(find(b"ab\xe2\x82", "x"), Some(2..4));
        // The second line of a record of several.
        assert_eq!(found(b"{\"a\":1,\n \"b\":x}", "").as_deref(), Some("x"));
    }
}
