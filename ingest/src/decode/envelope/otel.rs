//! OpenTelemetry logs as OTLP's JSON: one record a log record, with the resource and scope it stands under. Follows
//! `opentelemetry/proto/logs/v1/logs.proto` in the JSON encoding of the OTLP specification. Knows no columns.
//!
//! | key of the record | from |
//! | --- | --- |
//! | `@timestamp` | `timeUnixNano`, else `observedTimeUnixNano` (microseconds are kept) |
//! | `level` | `severityText`, else the name of `severityNumber`'s range |
//! | `message` | `body`: a string as it is, any other value as JSON |
//! | `service`, `host` | resource attributes `service.name`, `host.name` |
//! | `trace_id`, `span_id`, `severity_number` | the same |
//! | `attributes`, `resource`, `scope` | objects of what remains |
//!
//! Other members of a log record keep their own names.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::{EVENT_TIME, Field, Reason, Record, Value, json, time};

#[derive(Debug, Deserialize)]
struct Document<'a> {
    #[serde(borrow, rename = "resourceLogs", default)]
    resource_logs: Vec<ResourceLogs<'a>>,
}

#[derive(Debug, Deserialize)]
struct ResourceLogs<'a> {
    #[serde(borrow, default)]
    resource: Option<&'a RawValue>,
    #[serde(borrow, rename = "scopeLogs", default)]
    scope_logs: Vec<ScopeLogs<'a>>,
}

#[derive(Debug, Deserialize)]
struct ScopeLogs<'a> {
    #[serde(borrow, default)]
    scope: Option<&'a RawValue>,
    #[serde(borrow, rename = "logRecords", default)]
    log_records: Vec<&'a RawValue>,
}

/// Values nested deeper than this are nobody's attributes.
const MAX_DEPTH: usize = 64;

/// The log records of one document.
#[derive(Debug)]
pub struct Logs<'a> {
    document: Document<'a>,
    /// Resource, scope and log record that come next.
    next: (usize, usize, usize),
    /// Those of the record given last.
    given: Option<(usize, usize, usize)>,
    /// What the present resource and scope add to each record, and which they are.
    shared: Option<((usize, usize), Record<'a>)>,
}

impl<'a> Logs<'a> {
    /// Reads a document.
    ///
    /// # Errors
    /// Not JSON, or of another shape.
    pub fn parse(text: &'a str) -> Result<Logs<'a>, Reason> {
        let document: Document<'a> = serde_json::from_str(text).map_err(json::reason)?;
        Ok(Logs { document, next: (0, 0, 0), given: None, shared: None })
    }

    /// Moves on to the next log record.
    fn advance(&mut self) -> Option<(usize, usize, usize)> {
        let (mut r, mut s, mut l) = self.next;
        loop {
            let resource = self.document.resource_logs.get(r)?;
            match resource.scope_logs.get(s) {
                None => (r, s, l) = (r + 1, 0, 0),
                Some(scope) if l >= scope.log_records.len() => (s, l) = (s + 1, 0),
                Some(_) => {
                    self.next = (r, s, l + 1);
                    return Some((r, s, l));
                }
            }
        }
    }

    /// A document that holds only the record given last.
    pub fn raw(&self) -> Option<Vec<u8>> {
        let (r, s, l) = self.given?;
        let resource = &self.document.resource_logs[r];
        let scope = &resource.scope_logs[s];
        let mut out = br#"{"resourceLogs":[{"#.to_vec();
        let mut member = |name: &[u8], value: Option<&RawValue>| {
            if let Some(value) = value {
                out.extend_from_slice(name);
                out.extend_from_slice(value.get().as_bytes());
                out.push(b',');
            }
        };
        member(br#""resource":"#, resource.resource);
        out.extend_from_slice(br#""scopeLogs":[{"#);
        if let Some(scope) = scope.scope {
            out.extend_from_slice(br#""scope":"#);
            out.extend_from_slice(scope.get().as_bytes());
            out.push(b',');
        }
        out.extend_from_slice(br#""logRecords":["#);
        out.extend_from_slice(scope.log_records[l].get().as_bytes());
        out.extend_from_slice(b"]}]}]}");
        Some(out)
    }

    fn shared(&mut self, r: usize, s: usize) -> Result<&Record<'a>, Reason> {
        if self.shared.as_ref().is_none_or(|(of, _)| *of != (r, s)) {
            let resource = &self.document.resource_logs[r];
            let mut record = Vec::with_capacity(4);
            if let Some(raw) = resource.resource.map(RawValue::get).filter(|raw| raw.starts_with('{')) {
                let mut attributes = Attributes::of(raw)?;
                for (name, own) in [("service.name", "service"), ("host.name", "host")] {
                    if let Some(value) = attributes.take(name) {
                        record.push(Field { name: Cow::Borrowed(own), value });
                    }
                }
                attributes.put(&mut record, "resource");
            }
            if let Some(raw) = resource.scope_logs[s].scope.map(RawValue::get).filter(|r| r.starts_with('{'))
            {
                let mut scope = Attributes::of(raw)?;
                for f in json::decode(raw)?.into_iter().filter(|f| f.name != "attributes") {
                    // An unnamed scope says nothing.
                    if !matches!(&f.value, Value::Json(raw) if raw == "\"\"") {
                        scope.members.push(f);
                    }
                }
                scope.put(&mut record, "scope");
            }
            self.shared = Some(((r, s), record));
        }
        // Filled in above.
        self.shared.as_ref().map(|(_, record)| record).ok_or_else(|| "no resource".to_owned())
    }

    fn record(&mut self, (r, s, l): (usize, usize, usize)) -> Result<Record<'a>, Reason> {
        let raw: &'a str = self.document.resource_logs[r].scope_logs[s].log_records[l].get();
        if !raw.starts_with('{') {
            return Err("a log record that is no object".to_owned());
        }
        let members = json::decode(raw)?;
        let mut record: Record<'a> = Vec::with_capacity(members.len() + 4);
        let named = |name: &str| members.iter().rfind(|f| f.name == name).map(|f| &f.value);
        let at = ["timeUnixNano", "observedTimeUnixNano"].iter().find_map(|n| nanos(named(n)).transpose());
        if let Some(at) = at {
            record.push(field(EVENT_TIME, Value::Time(at?)));
        }
        if let Some(level) = level(named("severityText"), named("severityNumber")) {
            record.push(field("level", level));
        }
        for f in members {
            let value = match f.name.as_ref() {
                "timeUnixNano" | "observedTimeUnixNano" | "severityText" => continue,
                "severityNumber" => {
                    record.push(field("severity_number", f.value));
                    continue;
                }
                "body" => {
                    if let Value::Json(Cow::Borrowed(raw)) = f.value {
                        record.push(field("message", any_value(raw)?));
                    }
                    continue;
                }
                "attributes" => {
                    if let Value::Json(Cow::Borrowed(raw)) = f.value {
                        Attributes::list(raw)?.put(&mut record, "attributes");
                    }
                    continue;
                }
                "traceId" => ("trace_id", f.value),
                "spanId" => ("span_id", f.value),
                _ => {
                    record.push(f);
                    continue;
                }
            };
            // No trace: the specification has the empty string for it.
            if !matches!(&value.1, Value::Json(raw) if raw == "\"\"") {
                record.push(field(value.0, value.1));
            }
        }
        let shared = self.shared(r, s)?;
        record.extend(shared.iter().cloned());
        Ok(record)
    }
}

impl<'a> Iterator for Logs<'a> {
    type Item = Result<Record<'a>, Reason>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.advance()?;
        self.given = Some(at);
        Some(self.record(at))
    }
}

fn field<'a>(name: &'static str, value: Value<'a>) -> Field<'a> {
    Field { name: Cow::Borrowed(name), value }
}

/// Nanoseconds since 1970, as a string of digits or a number; 0 is none.
fn nanos(value: Option<&Value<'_>>) -> Result<Option<i64>, Reason> {
    let Some(Value::Json(raw)) = value else { return Ok(None) };
    let text = if raw.starts_with('"') { json::unquote(raw)? } else { Cow::Borrowed(raw.as_ref()) };
    if text.is_empty() || text == "0" {
        return Ok(None);
    }
    let ns: u64 = text.parse().map_err(|_| format!("{} is no number of nanoseconds", json::shown(&text)))?;
    let us = (ns / 1000) as i64;
    if us > time::MAX_MICROS { Err(format!("{text} {}", time::TimeError::OutOfRange)) } else { Ok(Some(us)) }
}

fn level<'a>(text: Option<&Value<'a>>, number: Option<&Value<'a>>) -> Option<Value<'a>> {
    if let Some(Value::Json(raw)) = text
        && raw.starts_with('"')
        && raw != "\"\""
    {
        return Some(Value::Json(raw.clone()));
    }
    let Some(Value::Json(raw)) = number else { return None };
    // The JSON encoding of an enum is its number, or the name of its value.
    let name = match raw.parse::<u32>() {
        Ok(n) => match n {
            1..=4 => "TRACE",
            5..=8 => "DEBUG",
            9..=12 => "INFO",
            13..=16 => "WARN",
            17..=20 => "ERROR",
            21..=24 => "FATAL",
            _ => return None,
        },
        Err(_) => {
            let named =
                raw.trim_matches('"').strip_prefix("SEVERITY_NUMBER_")?.trim_end_matches(char::is_numeric);
            ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"].into_iter().find(|n| *n == named)?
        }
    };
    Some(Value::Text(Cow::Borrowed(name)))
}

/// Named values, to become one object.
struct Attributes<'a> {
    members: Record<'a>,
}

impl<'a> Attributes<'a> {
    /// The attributes of a resource or scope.
    fn of(raw: &'a str) -> Result<Attributes<'a>, Reason> {
        let members = json::decode(raw)?;
        match members.into_iter().rfind(|f| f.name == "attributes").map(|f| f.value) {
            Some(Value::Json(Cow::Borrowed(list))) => Attributes::list(list),
            _ => Ok(Attributes { members: Vec::new() }),
        }
    }

    /// A list of `{"key": ..., "value": AnyValue}`.
    fn list(raw: &'a str) -> Result<Attributes<'a>, Reason> {
        let mut members = Vec::new();
        for raw in json::elements(raw)? {
            let (key, value) = key_value(raw)?;
            members.push(Field { name: key, value: value.map_or(Ok(Value::Null), any_value)? });
        }
        Ok(Attributes { members })
    }

    /// Takes a value out, if it is one that a column can hold.
    fn take(&mut self, name: &str) -> Option<Value<'a>> {
        let at = self.members.iter().rposition(|f| f.name == name && !matches!(f.value, Value::Null))?;
        Some(self.members.remove(at).value)
    }

    /// Adds the object to the record, unless it is empty.
    fn put(&self, record: &mut Record<'a>, name: &'static str) {
        if self.members.is_empty() {
            return;
        }
        let mut out = Vec::with_capacity(64);
        for f in &self.members {
            out.push(if out.is_empty() { b'{' } else { b',' });
            json::write_string(&mut out, &f.name);
            out.push(b':');
            json::write_value(&mut out, &f.value);
        }
        out.push(b'}');
        // Made of whole strings, so it is UTF-8 and nothing is replaced.
        let text = String::from_utf8_lossy(&out).into_owned();
        record.push(field(name, Value::Json(Cow::Owned(text))));
    }
}

/// Key and value of an attribute.
fn key_value(raw: &str) -> Result<(Cow<'_, str>, Option<&str>), Reason> {
    let bad = || "an attribute that is no object with a key".to_owned();
    if !raw.starts_with('{') {
        return Err(bad());
    }
    let (mut key, mut value) = (None, None);
    for f in json::decode(raw)? {
        match (f.name.as_ref(), f.value) {
            ("key", Value::Json(Cow::Borrowed(raw))) if raw.starts_with('"') => {
                key = Some(json::unquote(raw)?)
            }
            ("value", Value::Json(Cow::Borrowed(raw))) => value = Some(raw),
            _ => {}
        }
    }
    Ok((key.ok_or_else(bad)?, value))
}

/// An AnyValue: its JSON, borrowed where that is how it was written.
fn any_value(raw: &str) -> Result<Value<'_>, Reason> {
    if let Some(simple) = simple_value(raw)? {
        return Ok(simple);
    }
    let mut out = Vec::with_capacity(raw.len());
    write_any_value(raw, &mut out, 0)?;
    // Made of whole strings, so it is UTF-8 and nothing is replaced.
    Ok(Value::Json(Cow::Owned(String::from_utf8_lossy(&out).into_owned())))
}

fn members(raw: &str) -> Result<Record<'_>, Reason> {
    if !raw.starts_with('{') {
        return Err("a value that is no AnyValue object".to_owned());
    }
    json::decode(raw)
}

/// An AnyValue that is no list and no map.
fn simple_value(raw: &str) -> Result<Option<Value<'_>>, Reason> {
    let Some(f) = members(raw)?.into_iter().next_back() else { return Ok(Some(Value::Null)) };
    Ok(match (f.name.as_ref(), f.value) {
        ("arrayValue" | "kvlistValue", _) => None,
        // 64-bit integers are strings in the JSON encoding.
        ("intValue", Value::Json(Cow::Borrowed(raw))) if raw.starts_with('"') => {
            let digits = json::unquote(raw)?;
            let v: i64 =
                digits.parse().map_err(|_| format!("{} is no integer of 64 bits", json::shown(&digits)))?;
            Some(Value::Int(v))
        }
        (_, value) => Some(value),
    })
}

fn write_any_value(raw: &str, out: &mut Vec<u8>, depth: usize) -> Result<(), Reason> {
    if depth > MAX_DEPTH {
        return Err(format!("a value nested deeper than {MAX_DEPTH}"));
    }
    if let Some(simple) = simple_value(raw)? {
        json::write_value(out, &simple);
        return Ok(());
    }
    let Some(f) = members(raw)?.into_iter().next_back() else { return Ok(()) };
    let values = match f.value {
        Value::Json(Cow::Borrowed(raw)) if raw.starts_with('{') => {
            json::decode(raw)?.into_iter().rfind(|f| f.name == "values").map(|f| f.value)
        }
        _ => None,
    };
    let list = match values {
        Some(Value::Json(Cow::Borrowed(raw))) => json::elements(raw)?,
        _ => Vec::new(),
    };
    let map = f.name == "kvlistValue";
    out.push(if map { b'{' } else { b'[' });
    for (i, raw) in list.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        if !map {
            write_any_value(raw, out, depth + 1)?;
            continue;
        }
        let (key, value) = key_value(raw)?;
        json::write_string(out, &key);
        out.push(b':');
        match value {
            Some(value) => write_any_value(value, out, depth + 1)?,
            None => out.extend_from_slice(b"null"),
        }
    }
    out.push(if map { b'}' } else { b']' });
    Ok(())
}
