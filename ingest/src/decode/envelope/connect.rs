//! Kafka Connect's JSON converter: `{"schema": ..., "payload": ...}`, and the changes that Debezium writes in it or bare.
//! Values of logical types become what they mean; a change is the row after it. Knows no columns.
//!
//! - `org.apache.kafka.connect.data.Timestamp`, `Date`, `Time`, `Decimal` and Debezium's relatives of them, on every level;
//! - `bytes` of no logical type, which JSON carries in Base64, become PostgreSQL's `\x...`;
//! - a change with `op` `c` or `r` is the row `after`; what surrounds it (`source`, `ts_ms`) is not kept. Updates, deletes and
//!   truncations are refused: rows of a tiered table are only ever added.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use base64::Engine;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::time::{self, DAY};
use super::super::{Field, Reason, Record, Value, json};

/// One node of a schema.
#[derive(Debug, Deserialize)]
struct Schema {
    #[serde(default, rename = "type")]
    kind: String,
    /// Name of the member, inside a struct.
    #[serde(default)]
    field: Option<String>,
    /// Name of the logical type.
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    parameters: Option<Parameters>,
    #[serde(default)]
    fields: Vec<Schema>,
    #[serde(default)]
    items: Option<Box<Schema>>,
    /// Of a map.
    #[serde(default)]
    values: Option<Box<Schema>>,
    #[serde(skip)]
    what: Logical,
    /// True if a value below is not written as it is meant.
    #[serde(skip)]
    converts: bool,
}

#[derive(Debug, Deserialize)]
struct Parameters {
    #[serde(default)]
    scale: Option<String>,
}

/// What the characters of a value mean.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Logical {
    /// Themselves.
    #[default]
    Plain,
    /// A number of these since 1970.
    Instant(Unit),
    /// Days since 1970.
    Date,
    /// A number of these since midnight.
    TimeOfDay(Unit),
    /// Base64 of an unscaled big-endian number in two's complement.
    Decimal(i32),
    /// `{"scale": n, "value": Base64}`.
    VariableDecimal,
    /// Base64.
    Bytes,
    /// A string that holds JSON.
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Milli,
    Micro,
    Nano,
}

impl Unit {
    fn micros(self, v: i64) -> Option<i64> {
        match self {
            Unit::Milli => v.checked_mul(1000),
            Unit::Micro => Some(v),
            Unit::Nano => Some(v.div_euclid(1000)),
        }
    }
}

impl Schema {
    fn parse(raw: &str) -> Result<Schema, Reason> {
        let mut schema: Schema =
            serde_json::from_str(raw).map_err(|e| format!("the schema of the Connect envelope: {e}"))?;
        schema.settle()?;
        Ok(schema)
    }

    /// Works out what each node means. serde_json bounds the depth of what it reads, so this is bounded too.
    fn settle(&mut self) -> Result<(), Reason> {
        self.what = match self.name.as_deref() {
            Some("org.apache.kafka.connect.data.Timestamp" | "io.debezium.time.Timestamp") => {
                Logical::Instant(Unit::Milli)
            }
            Some("io.debezium.time.MicroTimestamp") => Logical::Instant(Unit::Micro),
            Some("io.debezium.time.NanoTimestamp") => Logical::Instant(Unit::Nano),
            Some("org.apache.kafka.connect.data.Date" | "io.debezium.time.Date") => Logical::Date,
            Some("org.apache.kafka.connect.data.Time" | "io.debezium.time.Time") => {
                Logical::TimeOfDay(Unit::Milli)
            }
            Some("io.debezium.time.MicroTime") => Logical::TimeOfDay(Unit::Micro),
            Some("io.debezium.time.NanoTime") => Logical::TimeOfDay(Unit::Nano),
            Some("org.apache.kafka.connect.data.Decimal") => {
                let scale = self.parameters.as_ref().and_then(|p| p.scale.as_deref()).unwrap_or("0");
                let scale = scale.parse().ok().filter(|s| (-MAX_SCALE..=MAX_SCALE).contains(s));
                Logical::Decimal(scale.ok_or("the schema has a Decimal whose scale is no number in reason")?)
            }
            Some("io.debezium.data.VariableScaleDecimal") => Logical::VariableDecimal,
            Some("io.debezium.data.Json") => Logical::Json,
            _ if self.kind == "bytes" => Logical::Bytes,
            _ => Logical::Plain,
        };
        self.converts = self.what != Logical::Plain;
        let children = self.fields.iter_mut();
        for child in children.chain(self.items.as_deref_mut()).chain(self.values.as_deref_mut()) {
            child.settle()?;
            self.converts |= child.converts;
        }
        Ok(())
    }

    fn member(&self, name: &str) -> Option<&Schema> {
        self.fields.iter().find(|f| f.field.as_deref() == Some(name))
    }
}

/// Schemas read last: a topic repeats a few of them in every value.
const REMEMBERED: usize = 8;
/// Longer schemas are read each time.
const REMEMBERED_BYTES: usize = 256 * 1024;

thread_local! {
    static SCHEMAS: RefCell<VecDeque<(Box<str>, Rc<Schema>)>> = const { RefCell::new(VecDeque::new()) };
}

fn schema_of(raw: &str) -> Result<Rc<Schema>, Reason> {
    let known = SCHEMAS.with_borrow_mut(|known| {
        let at = known.iter().position(|(text, _)| **text == *raw)?;
        known.swap(0, at);
        known.front().map(|(_, schema)| schema.clone())
    });
    if let Some(schema) = known {
        return Ok(schema);
    }
    let schema = Rc::new(Schema::parse(raw)?);
    if raw.len() <= REMEMBERED_BYTES {
        SCHEMAS.with_borrow_mut(|known| {
            known.truncate(REMEMBERED - 1);
            known.push_front((raw.into(), schema.clone()));
        });
    }
    Ok(schema)
}

/// The record inside a Connect value.
///
/// # Errors
/// A payload that is no object, a change that is no insertion, or a value that is not of the type its schema names.
pub fn unwrap(record: Record<'_>) -> Result<Record<'_>, Reason> {
    let enveloped = record.len() == 2
        && record.iter().any(|f| f.name == "payload")
        && record.iter().any(|f| f.name == "schema");
    let (mut inner, schema) = if enveloped {
        let mut schema = None;
        let mut payload = None;
        for field in record {
            match field.value {
                Value::Json(Cow::Borrowed(raw)) if field.name == "payload" => payload = Some(raw),
                Value::Json(raw) if field.name == "schema" => schema = Some(schema_of(&raw)?),
                _ => {}
            }
        }
        let payload =
            payload.ok_or("the payload is null: a tombstone of the Connect envelope holds no row")?;
        if !payload.starts_with('{') {
            return Err("the payload of the Connect envelope is no object".to_owned());
        }
        (json::decode(payload)?, schema)
    } else {
        (record, None)
    };
    let mut row_schema: Option<&Schema> = schema.as_deref();
    if is_change(&inner) {
        row_schema = row_schema.and_then(|s| s.member("after"));
        inner = after(inner)?;
    }
    if inner.iter().any(|f| f.name == "__deleted" && string(&f.value).as_deref() == Some("true")) {
        return Err(append_only("delete"));
    }
    let Some(schema) = row_schema.filter(|s| s.converts) else { return Ok(inner) };
    for field in &mut inner {
        let Some(kind) = schema.member(&field.name).filter(|s| s.converts) else { continue };
        let value = std::mem::replace(&mut field.value, Value::Null);
        field.value = convert(kind, value).map_err(|reason| format!("field {:?}: {reason}", field.name))?;
    }
    Ok(inner)
}

/// `before` or `after`, and `op`: what Debezium writes of a change.
fn is_change(record: &Record<'_>) -> bool {
    let has = |name: &str| record.iter().any(|f| f.name == name);
    has("op") && (has("after") || has("before")) && (has("source") || has("ts_ms"))
}

fn append_only(what: &str) -> Reason {
    format!("a Debezium {what}: rows of a tiered table are only ever added")
}

fn after(record: Record<'_>) -> Result<Record<'_>, Reason> {
    let op = record.iter().rfind(|f| f.name == "op").and_then(|f| string(&f.value));
    match op.as_deref() {
        Some("c" | "r") => {}
        Some("u") => return Err(append_only("update (op u)")),
        Some("d") => return Err(append_only("delete (op d)")),
        Some("t") => return Err(append_only("truncate (op t)")),
        Some(other) => return Err(format!("a Debezium change with op {other:?}, which holds no row")),
        None => return Err("a Debezium change whose op is no string".to_owned()),
    }
    let after = record.into_iter().rfind(|f| f.name == "after");
    match after.map(|f: Field<'_>| f.value) {
        Some(Value::Json(Cow::Borrowed(raw))) if raw.starts_with('{') => json::decode(raw),
        _ => Err("a Debezium change without a row in \"after\"".to_owned()),
    }
}

fn string<'a>(value: &'a Value<'_>) -> Option<Cow<'a, str>> {
    match value {
        Value::Text(s) => Some(Cow::Borrowed(s)),
        Value::Json(raw) if raw.starts_with('"') => json::unquote(raw).ok(),
        _ => None,
    }
}

/// The value that a member of the first level means.
fn convert<'a>(schema: &Schema, value: Value<'a>) -> Result<Value<'a>, Reason> {
    let Value::Json(raw) = value else { return Ok(value) };
    Ok(match schema.what {
        Logical::Instant(unit) => Value::Time(instant(&raw, unit)?),
        Logical::Bytes => Value::Text(Cow::Owned(format!("\\x{}", hex::encode(bytes(&raw)?)))),
        // Not a JSON string that holds JSON, but the JSON itself.
        Logical::Json => Value::Text(Cow::Owned(json::unquote(&raw)?.into_owned())),
        Logical::Date => Value::Text(Cow::Owned(date(&raw)?)),
        Logical::TimeOfDay(unit) => Value::Text(Cow::Owned(time_of_day(&raw, unit)?)),
        Logical::Decimal(_) | Logical::VariableDecimal | Logical::Plain => {
            let mut out = Vec::with_capacity(raw.len() + 16);
            rewrite(schema, &raw, &mut out)?;
            // Written from whole strings and ASCII.
            Value::Json(Cow::Owned(String::from_utf8(out).map_err(|e| e.to_string())?))
        }
    })
}

/// Appends a value with everything in it turned into what it means, as JSON. Follows the schema, whose depth is bounded.
fn rewrite(schema: &Schema, raw: &str, out: &mut Vec<u8>) -> Result<(), Reason> {
    if raw == "null" || !schema.converts {
        out.extend_from_slice(raw.as_bytes());
        return Ok(());
    }
    match schema.what {
        Logical::Plain => {}
        Logical::Instant(unit) => {
            json::write_value(out, &Value::Time(instant(raw, unit)?));
            return Ok(());
        }
        Logical::Date => {
            json::write_string(out, &date(raw)?);
            return Ok(());
        }
        Logical::TimeOfDay(unit) => {
            json::write_string(out, &time_of_day(raw, unit)?);
            return Ok(());
        }
        Logical::Decimal(scale) => {
            out.extend_from_slice(decimal(&bytes(raw)?, scale)?.as_bytes());
            return Ok(());
        }
        Logical::VariableDecimal => {
            #[derive(Deserialize)]
            struct Variable<'a> {
                scale: i32,
                #[serde(borrow)]
                value: &'a RawValue,
            }
            let v: Variable<'_> =
                serde_json::from_str(raw).map_err(|_| "is no decimal of variable scale".to_owned())?;
            let scale = Some(v.scale).filter(|s| (-MAX_SCALE..=MAX_SCALE).contains(s));
            let scale = scale.ok_or("is a decimal whose scale is no number in reason")?;
            out.extend_from_slice(decimal(&bytes(v.value.get())?, scale)?.as_bytes());
            return Ok(());
        }
        Logical::Bytes => {
            json::write_string(out, &format!("\\x{}", hex::encode(bytes(raw)?)));
            return Ok(());
        }
        Logical::Json => {
            let text = json::unquote(raw)?;
            if !json::is_json(&text) {
                return Err("is no JSON, though its schema says so".to_owned());
            }
            out.extend_from_slice(text.as_bytes());
            return Ok(());
        }
    }
    match (raw.as_bytes().first(), &schema.items, &schema.values) {
        (Some(b'{'), _, values) => {
            out.push(b'{');
            for (i, f) in json::decode(raw)?.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                json::write_string(out, &f.name);
                out.push(b':');
                match (schema.member(&f.name).or(values.as_deref()), &f.value) {
                    (Some(inner), Value::Json(raw)) => rewrite(inner, raw, out)?,
                    (_, value) => json::write_value(out, value),
                }
            }
            out.push(b'}');
        }
        (Some(b'['), Some(items), _) => {
            out.push(b'[');
            for (i, raw) in json::elements(raw)?.into_iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                rewrite(items, raw, out)?;
            }
            out.push(b']');
        }
        // A map whose keys are no strings is a list of pairs: it stays as it is.
        _ => out.extend_from_slice(raw.as_bytes()),
    }
    Ok(())
}

fn integer(raw: &str) -> Result<i64, Reason> {
    raw.parse().map_err(|_| format!("{} is no integer, though its schema says so", json::shown(raw)))
}

fn instant(raw: &str, unit: Unit) -> Result<i64, Reason> {
    let us = unit.micros(integer(raw)?);
    us.filter(|us| (time::MIN_MICROS..=time::MAX_MICROS).contains(us))
        .ok_or_else(|| format!("{} {}", json::shown(raw), time::TimeError::OutOfRange))
}

fn date(raw: &str) -> Result<String, Reason> {
    let days = integer(raw)?;
    let known = days
        .checked_mul(DAY)
        .filter(|us| (time::MIN_MICROS..=time::MAX_MICROS).contains(us))
        .ok_or_else(|| format!("{} {}", json::shown(raw), time::TimeError::OutOfRange))?;
    let mut out = Vec::with_capacity(10);
    time::write_date(&mut out, known.div_euclid(DAY));
    String::from_utf8(out).map_err(|e| e.to_string())
}

fn time_of_day(raw: &str, unit: Unit) -> Result<String, Reason> {
    let us = unit.micros(integer(raw)?).filter(|us| (0..=DAY).contains(us));
    let us = us.ok_or_else(|| format!("{} is no time of a day", json::shown(raw)))?;
    let (s, f) = (us / time::SECOND, us % time::SECOND);
    Ok(format!("{:02}:{:02}:{:02}.{f:06}", s / 3600, s / 60 % 60, s % 60))
}

fn bytes(raw: &str) -> Result<Vec<u8>, Reason> {
    if !raw.starts_with('"') {
        return Err("is no Base64 string, though its schema says so".to_owned());
    }
    let text = json::unquote(raw)?;
    base64::engine::general_purpose::STANDARD
        .decode(text.as_bytes())
        .map_err(|_| format!("{} is no Base64", json::shown(&text)))
}

/// Scales beyond this are nobody's.
const MAX_SCALE: i32 = 16_383;
/// Bytes of an unscaled number; PostgreSQL's numeric holds 131,072 digits before the point.
const MAX_DECIMAL_BYTES: usize = 4096;

/// An unscaled number, big-endian in two's complement, with its point set.
fn decimal(unscaled: &[u8], scale: i32) -> Result<String, Reason> {
    if unscaled.len() > MAX_DECIMAL_BYTES {
        return Err(format!("is a decimal of {} bytes, more than {MAX_DECIMAL_BYTES}", unscaled.len()));
    }
    let negative = unscaled.first().is_some_and(|b| b & 0x80 != 0);
    let mut magnitude = unscaled.to_vec();
    if negative {
        let mut carry = true;
        for b in magnitude.iter_mut().rev() {
            let (v, c) = (!*b).overflowing_add(u8::from(carry));
            (*b, carry) = (v, c);
        }
    }
    // Long division by 10^9 over 32-bit digits, the most significant first.
    let mut limbs: Vec<u32> = Vec::with_capacity(magnitude.len() / 4 + 1);
    let head = magnitude.len() % 4;
    let word = |bytes: &[u8]| bytes.iter().fold(0u32, |v, b| v << 8 | u32::from(*b));
    limbs.extend((head > 0).then(|| word(&magnitude[..head])));
    limbs.extend(magnitude[head..].chunks_exact(4).map(word));
    let mut groups: Vec<u32> = Vec::new();
    let mut from = 0;
    while from < limbs.len() {
        if limbs[from] == 0 {
            from += 1;
            continue;
        }
        let mut rest = 0u64;
        for limb in &mut limbs[from..] {
            let v = rest << 32 | u64::from(*limb);
            (*limb, rest) = ((v / 1_000_000_000) as u32, v % 1_000_000_000);
        }
        groups.push(rest as u32);
    }
    let mut digits = String::with_capacity(groups.len() * 9);
    for (i, group) in groups.iter().rev().enumerate() {
        digits += &if i == 0 { group.to_string() } else { format!("{group:09}") };
    }
    if digits.is_empty() {
        digits.push('0');
    }
    if scale > 0 {
        let scale = scale as usize;
        if digits.len() <= scale {
            digits.insert_str(0, &"0".repeat(scale + 1 - digits.len()));
        }
        digits.insert(digits.len() - scale, '.');
    } else if digits != "0" {
        digits.push_str(&"0".repeat(scale.unsigned_abs() as usize));
    }
    if negative {
        digits.insert(0, '-');
    }
    Ok(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact() {
        for v in [0i128, 1, -1, 127, 128, -128, -129, 255, 256, 123_456_789_012_345_678, i128::MAX, i128::MIN]
        {
            let full = v.to_be_bytes();
            assert_eq!(decimal(&full, 0).unwrap(), v.to_string());
            // Shortest form, as Java's BigInteger writes it.
            let mut from = 0;
            while from < 15
                && (full[from] == 0 && full[from + 1] < 0x80 || full[from] == 0xff && full[from + 1] >= 0x80)
            {
                from += 1;
            }
            assert_eq!(decimal(&full[from..], 0).unwrap(), v.to_string());
        }
        for (v, scale, want) in [
            (12345i32, 2, "123.45"),
            (-5, 3, "-0.005"),
            (0, 2, "0.00"),
            (7, -2, "700"),
            (0, -2, "0"),
            (100, 2, "1.00"),
        ] {
            assert_eq!(decimal(&v.to_be_bytes(), scale).unwrap(), want);
        }
        assert_eq!(decimal(&[], 0).unwrap(), "0");
        assert!(decimal(&vec![1; MAX_DECIMAL_BYTES + 1], 0).is_err());
    }
}
