//! One JSON object to fields. Values stay the text they were, so that numbers keep every digit; only what PostgreSQL's
//! jsonb cannot hold is refused. Knows no columns.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Field, Reason, Record, Value};

/// A borrowed string where the JSON string has no escapes, an owned one where it has.
struct Str<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Str<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Str<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E: serde::de::Error>(self, v: &'de str) -> Result<Str<'de>, E> {
                Ok(Str(Cow::Borrowed(v)))
            }
            fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<Str<'de>, E> {
                Ok(Str(Cow::Owned(v.to_owned())))
            }
            fn visit_string<E: serde::de::Error>(self, v: String) -> Result<Str<'de>, E> {
                Ok(Str(Cow::Owned(v)))
            }
        }
        d.deserialize_str(V)
    }
}

struct Object;

impl<'de> Visitor<'de> for Object {
    type Value = Record<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Record<'de>, A::Error> {
        let mut record = Vec::with_capacity(12);
        while let Some(Str(name)) = map.next_key::<Str<'de>>()? {
            let raw = map.next_value::<&'de RawValue>()?.get();
            if name.contains('\0') {
                return Err(A::Error::custom("a key holds a NUL character, which PostgreSQL cannot store"));
            }
            check_escapes(raw).map_err(A::Error::custom)?;
            let value = if raw == "null" { Value::Null } else { Value::Json(Cow::Borrowed(raw)) };
            record.push(Field { name, value });
        }
        Ok(record)
    }
}

/// The fields of one JSON object.
///
/// # Errors
/// Not an object, not JSON, or with a NUL character or half a surrogate pair in a string.
pub fn decode(text: &str) -> Result<Record<'_>, Reason> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut de = serde_json::Deserializer::from_str(text);
    let record = de.deserialize_map(Object).map_err(reason)?;
    de.end().map_err(reason)?;
    Ok(record)
}

/// serde's messages say "line 1" of a record that has its own line; the column is what helps.
pub fn reason(e: serde_json::Error) -> Reason {
    let text = e.to_string();
    let message = text.rfind(" at line ").map_or(text.as_str(), |i| &text[..i]);
    if e.is_data() && message.starts_with("invalid type") {
        return "not a JSON object".to_owned();
    }
    if e.column() == 0 { message.to_owned() } else { format!("{message} at column {}", e.column()) }
}

/// Refuses the escapes that PostgreSQL's jsonb refuses: `\u0000` and unpaired surrogates.
pub fn check_escapes(raw: &str) -> Result<(), &'static str> {
    bad_escape(raw).map_or(Ok(()), |(_, why)| Err(why))
}

/// Where the first escape stands that PostgreSQL's jsonb refuses, and why.
pub fn bad_escape(raw: &str) -> Option<(usize, &'static str)> {
    let mut rest = raw.as_bytes();
    while let Some(i) = memchr::memchr(b'\\', rest) {
        if rest.get(i + 1) != Some(&b'u') {
            rest = &rest[(i + 2).min(rest.len())..];
            continue;
        }
        let at = raw.len() - rest.len() + i;
        let Some(first) = hex4(&rest[i + 2..]) else { return Some((at, "a bad \\u escape")) };
        rest = &rest[i + 6..];
        match first {
            0 => {
                return Some((at, "a string holds a NUL character (\\u0000), which PostgreSQL cannot store"));
            }
            0xD800..=0xDBFF => {
                let second = rest.strip_prefix(b"\\u").and_then(hex4);
                if !matches!(second, Some(0xDC00..=0xDFFF)) {
                    return Some((at, "a string holds half a surrogate pair"));
                }
                rest = &rest[6..];
            }
            0xDC00..=0xDFFF => return Some((at, "a string holds half a surrogate pair")),
            _ => {}
        }
    }
    None
}

fn hex4(s: &[u8]) -> Option<u32> {
    let s = std::str::from_utf8(s.get(..4)?).ok()?;
    if s.bytes().all(|b| b.is_ascii_hexdigit()) { u32::from_str_radix(s, 16).ok() } else { None }
}

/// The string that a JSON string means.
pub fn unquote(raw: &str) -> Result<Cow<'_, str>, Reason> {
    serde_json::from_str::<Str<'_>>(raw).map(|s| s.0).map_err(reason)
}

/// True if the text is one well-formed JSON value that jsonb can hold as far as strings go.
pub fn is_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok() && check_escapes(text).is_ok()
}

/// True if the value is a JSON object.
pub fn is_object(value: &Value<'_>) -> bool {
    matches!(value, Value::Json(raw) if raw.starts_with('{'))
}

/// True if the value is a JSON array.
pub fn is_array(value: &Value<'_>) -> bool {
    matches!(value, Value::Json(raw) if raw.starts_with('['))
}

/// The elements of a JSON array, as they are written.
///
/// # Errors
/// The text is no array.
pub fn elements(raw: &str) -> Result<Vec<&str>, Reason> {
    let list: Vec<&RawValue> = serde_json::from_str(raw).map_err(|_| format!("{} is no list", shown(raw)))?;
    Ok(list.into_iter().map(RawValue::get).collect())
}

/// The head of a text in quotes, for reasons.
pub fn shown(s: &str) -> String {
    let cut = s.char_indices().nth(60).map_or(s.len(), |(i, _)| i);
    if cut < s.len() { format!("{:?}...", &s[..cut]) } else { format!("{s:?}") }
}

/// Appends a JSON string.
pub fn write_string(out: &mut Vec<u8>, s: &str) {
    out.push(b'"');
    let mut from = 0;
    let bytes = s.as_bytes();
    for (i, &b) in bytes.iter().enumerate() {
        if b >= 0x20 && b != b'"' && b != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[from..i]);
        from = i + 1;
        match b {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(b >> 4)]);
                out.push(HEX[usize::from(b & 15)]);
            }
        }
    }
    out.extend_from_slice(&bytes[from..]);
    out.push(b'"');
}

/// Appends a value as JSON; a time as an ISO 8601 string.
pub fn write_value(out: &mut Vec<u8>, value: &Value<'_>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Json(raw) => out.extend_from_slice(raw.as_bytes()),
        Value::Text(s) => write_string(out, s),
        Value::Int(i) => out.extend_from_slice(i.to_string().as_bytes()),
        Value::Time(us) => {
            out.push(b'"');
            super::time::write(out, *us, b'T');
            out.extend_from_slice(b"Z\"");
        }
    }
}
