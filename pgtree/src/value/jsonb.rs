//! A jsonb datum as PostgreSQL prints it. Sources: `jsonb.h` (`JsonbContainer`, `JEntry`), `jsonb_util.c` (offsets), `jsonb.c` (`JsonbToCString`),
//! `json.c` (`escape_json`) of PostgreSQL 15.

use super::datum;
use std::fmt::Write as _;

const COUNT: u32 = 0x0fff_ffff;
const SCALAR: u32 = 0x1000_0000;
const OBJECT: u32 = 0x2000_0000;
const ARRAY: u32 = 0x4000_0000;
const OFFSET_OR_LENGTH: u32 = 0x0fff_ffff;
const HAS_OFFSET: u32 = 0x8000_0000;
/// Bytes of a text, and levels: a constant of a statement stays far below.
const MAX_DEPTH: usize = 200;

/// The text of a container that begins with `bytes`. None where the bytes are no jsonb.
pub(super) fn text(bytes: &[u8]) -> Option<String> {
    let mut out = String::new();
    container(bytes, 0, &mut out)?;
    Some(out)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

fn container(bytes: &[u8], depth: usize, out: &mut String) -> Option<()> {
    if depth > MAX_DEPTH {
        return None;
    }
    let header = word(bytes, 0)?;
    let count = (header & COUNT) as usize;
    let is_object = header & OBJECT != 0;
    if !is_object && header & ARRAY == 0 {
        return None;
    }
    // Keys of an object stand before its values.
    let children = if is_object { count.checked_mul(2)? } else { count };
    let base = children.checked_mul(4)?.checked_add(4)?;
    let data = bytes.get(base..)?;
    let mut starts = Vec::with_capacity(children + 1);
    let mut start = 0usize;
    for index in 0..children {
        starts.push(start);
        let entry = word(bytes, 4 + 4 * index)?;
        let field = (entry & OFFSET_OR_LENGTH) as usize;
        start = if entry & HAS_OFFSET != 0 { field } else { start.checked_add(field)? };
    }
    starts.push(start);
    let child = |index: usize, out: &mut String| -> Option<()> {
        let entry = word(bytes, 4 + 4 * index)?;
        value(entry, data, *starts.get(index)?, *starts.get(index + 1)?, depth, out)
    };
    if header & SCALAR != 0 {
        return if count == 1 && !is_object { child(0, out) } else { None };
    }
    out.push(if is_object { '{' } else { '[' });
    for index in 0..count {
        if index > 0 {
            out.push_str(", ");
        }
        child(index, out)?;
        if is_object {
            out.push_str(": ");
            child(count + index, out)?;
        }
    }
    out.push(if is_object { '}' } else { ']' });
    Some(())
}

fn value(entry: u32, data: &[u8], start: usize, end: usize, depth: usize, out: &mut String) -> Option<()> {
    // Numbers and containers are aligned, the bytes before them part of their length.
    let aligned = || data.get(start.next_multiple_of(4)..end);
    match (entry >> 28) & 7 {
        0 => quoted(std::str::from_utf8(data.get(start..end)?).ok()?, out),
        1 => out.push_str(&datum::numeric_datum(aligned()?)?.to_string()),
        2 => out.push_str("false"),
        3 => out.push_str("true"),
        4 => out.push_str("null"),
        5 => container(aligned()?, depth + 1, out)?,
        _ => return None,
    }
    Some(())
}

fn quoted(text: &str, out: &mut String) {
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
            c if c < ' ' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
