//! A mapping made ready for one table: sources resolved, times and constants checked before the first record comes. Knows
//! the table's columns and how to find a value in a record; does not write rows.

use std::borrow::Cow;

use chrono::format::{Item, Parsed, StrftimeItems};

use super::coerce;
use super::mapping::{Cast, ColumnMapping, Mapping, Scalar, Unknown};
use super::origin::Origin;
use super::{Mapper, TIME_ALIASES};
use crate::decode::time::{self, Epoch, Instant};
use crate::decode::{Reason, Record, Value, json};
use crate::target::{Kind, Target};
use crate::{Error, Result};

/// More steps than this are nobody's path.
const MAX_STEPS: usize = 32;
/// More alternatives than this are nobody's list.
const MAX_SOURCES: usize = 32;

/// A mapping for one table.
#[derive(Debug)]
pub struct Plan {
    pub columns: Vec<Declared>,
    pub unknown: Unknown,
}

/// Where one column's values come from.
#[derive(Debug)]
pub struct Declared {
    /// Index of the column in the table.
    pub column: usize,
    kind: Kind,
    sources: Vec<Source>,
    time: Option<TimeFormat>,
    cast: Option<Cast>,
    default: Option<Scalar>,
    constant: Option<Scalar>,
}

#[derive(Debug)]
enum Source {
    Path(Path),
    Key(Option<Path>),
    Topic,
    Partition,
    Offset,
    Timestamp,
    Header(String),
}

/// Steps through objects and lists.
#[derive(Debug)]
struct Path {
    steps: Vec<String>,
    /// The steps come from a name with dots, any of which may be part of a key.
    dotted: bool,
    /// The first n + 1 steps of a dotted path as one key.
    heads: Vec<String>,
}

#[derive(Debug)]
enum TimeFormat {
    Auto,
    Epoch(Epoch),
    Iso,
    Pattern(String, Vec<Item<'static>>),
}

/// A value found in a record, and which part of it was used.
#[derive(Debug)]
pub struct Found<'r> {
    pub value: Value<'r>,
    /// The field, and the way to the value within it; empty if it is the whole field. `None` if the value is of no
    /// field, or cannot be cut out of it.
    pub used: Option<(u32, Vec<String>)>,
}

impl Plan {
    /// Prepares a mapping.
    ///
    /// # Errors
    /// What in it cannot be done, in the words of the settings file.
    pub fn new(target: &Target, mapping: &Mapping) -> Result<Plan> {
        let mut columns = Vec::with_capacity(mapping.columns.len());
        for (name, declared) in &mapping.columns {
            let bad = |what: String| {
                Error::Unmappable(format!("mapping of table {}, column {name}: {what}", target.display()))
            };
            let column = target
                .columns
                .iter()
                .position(|c| c.name == *name)
                .ok_or_else(|| bad("the table has no such column that records may fill".to_owned()))?;
            columns.push(Declared::new(target, column, declared).map_err(bad)?);
        }
        Ok(Plan { columns, unknown: mapping.unknown })
    }
}

impl Declared {
    fn new(target: &Target, column: usize, m: &ColumnMapping) -> Result<Declared, String> {
        let kind = target.columns[column].kind;
        if m.constant.is_some()
            && (!m.from.is_empty() || m.default.is_some() || m.time.is_some() || m.cast.is_some())
        {
            return Err("a constant stands alone".to_owned());
        }
        if m.time.is_some() && m.cast.is_some() {
            return Err("give it `time` or `cast`, not both".to_owned());
        }
        if m.from.len() > MAX_SOURCES {
            return Err(format!("{} alternatives, more than {MAX_SOURCES}", m.from.len()));
        }
        let mut sources = m.from.iter().map(|s| Source::parse(s)).collect::<Result<Vec<_>, _>>()?;
        if sources.is_empty() && m.constant.is_none() {
            sources.push(Source::Path(Path::key(&target.columns[column].name)));
            if column == target.event_time {
                let others = TIME_ALIASES.iter().filter(|a| !target.columns.iter().any(|c| c.name == **a));
                sources.extend(others.map(|a| Source::Path(Path::key(a))));
            }
        }
        let declared = Declared {
            column,
            kind,
            sources,
            time: m.time.as_deref().map(TimeFormat::parse).transpose()?,
            cast: m.cast,
            default: m.default.clone(),
            constant: m.constant.clone(),
        };
        for fixed in declared.default.iter().chain(&declared.constant) {
            let value = fixed.value();
            let fits = if column == target.event_time {
                coerce::event_time(&value).and_then(|at| match at {
                    Instant::At(_) => Ok(()),
                    _ => Err("an event time must be finite".to_owned()),
                })
            } else {
                coerce::push_value(&mut Vec::new(), kind, &value)
            };
            fits.map_err(|reason| format!("its constant or default: {reason}"))?;
        }
        Ok(declared)
    }

    /// The column's value in a record; `None` if there is nothing at all.
    pub fn find<'r>(
        &'r self,
        record: &'r Record<'_>,
        origin: &Origin<'r>,
    ) -> Result<Option<Found<'r>>, Reason> {
        if let Some(constant) = &self.constant {
            return Ok(Some(Found { value: constant.value(), used: None }));
        }
        let mut null = None;
        for source in &self.sources {
            let Some(found) = source.find(record, origin) else { continue };
            if coerce::is_null(&found.value) {
                null = null.or(Some(found));
                continue;
            }
            let Found { value, used } = found;
            let value = match (&self.time, self.cast) {
                (Some(format), _) => format.read(&value)?,
                (None, Some(cast)) => apply(cast, self.kind, value)?,
                (None, None) => value,
            };
            // A cast may find that a blank string is no number.
            if !coerce::is_null(&value) || self.default.is_none() {
                return Ok(Some(Found { value, used }));
            }
            null = Some(Found { value, used });
        }
        Ok(match (&self.default, null) {
            (Some(default), null) => {
                Some(Found { value: default.value(), used: null.and_then(|found| found.used) })
            }
            (None, null) => null,
        })
    }

    /// The sources, for reasons.
    pub fn described(&self) -> String {
        let one = |s: &Source| match s {
            Source::Path(p) if p.dotted => p.steps.join("."),
            Source::Path(p) => format!("/{}", p.steps.join("/")),
            Source::Key(_) => "$key".to_owned(),
            Source::Topic => "$topic".to_owned(),
            Source::Partition => "$partition".to_owned(),
            Source::Offset => "$offset".to_owned(),
            Source::Timestamp => "$timestamp".to_owned(),
            Source::Header(name) => format!("$header.{name}"),
        };
        self.sources.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

impl Source {
    fn parse(text: &str) -> Result<Source, String> {
        let Some(own) = text.strip_prefix('$') else { return Path::parse(text).map(Source::Path) };
        if let Some(rest) = own.strip_prefix("key") {
            if rest.is_empty() {
                return Ok(Source::Key(None));
            }
            if rest.starts_with('/') {
                return Path::parse(rest).map(|p| Source::Key(Some(p)));
            }
        }
        match own {
            "topic" => Ok(Source::Topic),
            "partition" => Ok(Source::Partition),
            "offset" => Ok(Source::Offset),
            "timestamp" => Ok(Source::Timestamp),
            _ => match own.strip_prefix("header.") {
                Some(name) if !name.is_empty() => Ok(Source::Header(name.to_owned())),
                _ => Err(format!(
                    "{text:?} is none of $key, $topic, $partition, $offset, $timestamp, $header.NAME; \
                     a key of that name is written as a pointer: \"/{text}\""
                )),
            },
        }
    }

    fn find<'r>(&'r self, record: &'r Record<'_>, origin: &Origin<'r>) -> Option<Found<'r>> {
        let of_topic = |value: Value<'r>| origin.is_topic().then_some(Found { value, used: None });
        match self {
            Source::Path(path) => path.find(record),
            Source::Key(None) => of_topic(bytes(origin.key?)),
            Source::Key(Some(path)) => {
                let raw = std::str::from_utf8(origin.key?).ok()?;
                of_topic(json_value(walk(raw, &path.steps, path.dotted, &mut Vec::new())?))
            }
            Source::Topic => of_topic(Value::Text(Cow::Borrowed(origin.topic))),
            Source::Partition => of_topic(Value::Int(i64::from(origin.partition))),
            Source::Offset => of_topic(Value::Int(origin.offset)),
            // A producer's clock may say anything; what is no time is none.
            Source::Timestamp => {
                let range = time::MIN_MICROS..=time::MAX_MICROS;
                of_topic(Value::Time(origin.timestamp.filter(|us| range.contains(us))?))
            }
            Source::Header(name) => of_topic(bytes(origin.header(name)?)),
        }
    }
}

/// Text if it is, else PostgreSQL's notation of bytes.
fn bytes(bytes: &[u8]) -> Value<'_> {
    Value::Text(match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(format!("\\x{}", hex::encode(bytes))),
    })
}

fn json_value(raw: &str) -> Value<'_> {
    if raw == "null" { Value::Null } else { Value::Json(Cow::Borrowed(raw)) }
}

impl Path {
    /// One key of the first level, whatever characters it holds.
    fn key(name: &str) -> Path {
        Path { steps: vec![name.to_owned()], dotted: false, heads: vec![name.to_owned()] }
    }

    fn parse(text: &str) -> Result<Path, String> {
        let (steps, dotted): (Vec<String>, bool) = match text.strip_prefix('/') {
            Some(rest) => {
                let mut steps = Vec::new();
                for step in rest.split('/') {
                    let escapes = step.split('~').skip(1).all(|s| s.starts_with(['0', '1']));
                    if !escapes {
                        return Err(format!("{text:?} is no JSON pointer: ~ is written ~0, / is written ~1"));
                    }
                    steps.push(step.replace("~1", "/").replace("~0", "~"));
                }
                (steps, false)
            }
            None if text.is_empty() => return Err("an empty `from`".to_owned()),
            None => (text.split('.').map(str::to_owned).collect(), true),
        };
        if steps.len() > MAX_STEPS {
            return Err(format!("{text:?} has {} steps, more than {MAX_STEPS}", steps.len()));
        }
        let heads = (1..=steps.len()).map(|n| steps[..n].join(".")).collect();
        Ok(Path { steps, dotted, heads })
    }

    fn find<'r>(&self, record: &'r Record<'_>) -> Option<Found<'r>> {
        let field = |name: &str| record.iter().rposition(|f| f.name == name);
        let n = self.steps.len();
        // The longest key first: `host.name` is that key rather than a member of `host`. An envelope may have lifted a
        // value out of its object under such a name, so a pointer finds it there too.
        if let Some(at) = field(&self.heads[n - 1]).filter(|_| self.dotted || n == 1) {
            return Some(Found { value: borrowed(&record[at].value), used: Some((at as u32, Vec::new())) });
        }
        let longest = if self.dotted { n - 1 } else { 1.min(n - 1) };
        for k in (1..=longest).rev() {
            let Some(at) = field(if k == 1 { &self.steps[0] } else { &self.heads[k - 1] }) else { continue };
            let Value::Json(raw) = &record[at].value else { continue };
            let mut trail = Vec::new();
            if let Some(value) = walk(raw, &self.steps[k..], self.dotted, &mut trail) {
                // An element cannot be cut out of a list without moving the others.
                let used = (!trail.is_empty()).then_some((at as u32, trail));
                return Some(Found { value: json_value(value), used });
            }
        }
        let at = field(&self.heads[n - 1]).filter(|_| n > 1)?;
        Some(Found { value: borrowed(&record[at].value), used: Some((at as u32, Vec::new())) })
    }
}

fn borrowed<'r>(value: &'r Value<'_>) -> Value<'r> {
    match value {
        Value::Null => Value::Null,
        Value::Json(raw) => Value::Json(Cow::Borrowed(raw)),
        Value::Text(text) => Value::Text(Cow::Borrowed(text)),
        Value::Int(i) => Value::Int(*i),
        Value::Time(us) => Value::Time(*us),
    }
}

/// The value at the end of a path within a JSON text. `trail` becomes the keys on the way, or empty if it leads through
/// a list.
fn walk<'a>(raw: &'a str, steps: &[String], dotted: bool, trail: &mut Vec<String>) -> Option<&'a str> {
    let Some(first) = steps.first() else { return Some(raw) };
    match raw.as_bytes().first()? {
        b'{' => {
            let members = json::decode(raw).ok()?;
            let longest = if dotted { steps.len() } else { 1 };
            for k in (1..=longest).rev() {
                let key: Cow<'_, str> =
                    if k == 1 { Cow::Borrowed(first) } else { Cow::Owned(steps[..k].join(".")) };
                let Some(member) = members.iter().rfind(|f| f.name == key) else { continue };
                let inner: &'a str = match &member.value {
                    Value::Json(Cow::Borrowed(inner)) => inner,
                    Value::Null => "null",
                    _ => continue,
                };
                let mut further = Vec::new();
                if let Some(found) = walk(inner, &steps[k..], dotted, &mut further) {
                    if steps.len() == k || !further.is_empty() {
                        trail.push(key.into_owned());
                        trail.append(&mut further);
                    }
                    return Some(found);
                }
            }
            None
        }
        b'[' => {
            // RFC 6901: digits without a leading zero.
            if first.len() > 1 && first.starts_with('0') {
                return None;
            }
            let at: usize = first.parse().ok()?;
            let element = json::elements(raw).ok()?.into_iter().nth(at)?;
            walk(element, &steps[1..], dotted, &mut Vec::new())
        }
        _ => None,
    }
}

/// The JSON of an object without the members that were used, or `None` if nothing remains of it.
pub fn without(raw: &str, used: &[&[String]]) -> Option<String> {
    let mut out = Vec::with_capacity(raw.len());
    write_without(&mut out, raw, used);
    // Made of whole strings, so it is UTF-8 and nothing is replaced.
    (!out.is_empty()).then(|| String::from_utf8_lossy(&out).into_owned())
}

/// Depth is that of the paths, which are bounded.
fn write_without(out: &mut Vec<u8>, raw: &str, used: &[&[String]]) {
    let Ok(members) = json::decode(raw) else {
        out.extend_from_slice(raw.as_bytes());
        return;
    };
    let start = out.len();
    for f in &members {
        let here: Vec<&[String]> =
            used.iter().filter(|t| t.first().is_some_and(|k| *k == f.name)).map(|t| &t[1..]).collect();
        if here.iter().any(|t| t.is_empty()) {
            continue;
        }
        let before = out.len();
        out.push(if before == start { b'{' } else { b',' });
        json::write_string(out, &f.name);
        out.push(b':');
        let value = out.len();
        match &f.value {
            Value::Json(inner) if !here.is_empty() => write_without(out, inner, &here),
            other => json::write_value(out, other),
        }
        if out.len() == value {
            out.truncate(before);
        }
    }
    if out.len() > start {
        out.push(b'}');
    }
}

impl TimeFormat {
    fn parse(text: &str) -> Result<TimeFormat, String> {
        Ok(match text {
            "auto" => TimeFormat::Auto,
            "s" => TimeFormat::Epoch(Epoch::Seconds),
            "ms" => TimeFormat::Epoch(Epoch::Millis),
            "us" => TimeFormat::Epoch(Epoch::Micros),
            "ns" => TimeFormat::Epoch(Epoch::Nanos),
            "iso8601" => TimeFormat::Iso,
            pattern if pattern.contains('%') => {
                let items = StrftimeItems::new(pattern)
                    .parse_to_owned()
                    .map_err(|_| format!("time = {pattern:?} is no format of strptime"))?;
                TimeFormat::Pattern(pattern.to_owned(), items)
            }
            other => {
                return Err(format!(
                    "time = {other:?} is none of auto, s, ms, us, ns, iso8601, and no strptime format (%Y-%m-%d ...)"
                ));
            }
        })
    }

    fn read<'r>(&self, value: &Value<'_>) -> Result<Value<'r>, Reason> {
        let text = match value {
            Value::Time(us) => return Ok(Value::Time(*us)),
            Value::Text(text) => Cow::Borrowed(text.as_ref()),
            Value::Int(i) => Cow::Owned(i.to_string()),
            Value::Json(raw) => match raw.as_bytes().first() {
                Some(b'"') => json::unquote(raw)?,
                Some(b'-' | b'0'..=b'9') => Cow::Borrowed(raw.as_ref()),
                _ => return Err("is neither a string nor a number, so no time".to_owned()),
            },
            Value::Null => return Ok(Value::Null),
        };
        let text = text.trim();
        let explain = |e: time::TimeError| format!("{} {e}", json::shown(text));
        let at = match self {
            TimeFormat::Auto => time::parse(text).map_err(explain)?,
            TimeFormat::Epoch(unit) => {
                Instant::At(time::parse_epoch_in(text, Some(*unit)).map_err(|e| match e {
                    time::TimeError::NotATime => format!("{} is no epoch number", json::shown(text)),
                    e => explain(e),
                })?)
            }
            TimeFormat::Iso => Instant::At(time::parse_iso8601(text).map_err(|e| match e {
                time::TimeError::NotATime => format!("{} is no ISO 8601 time", json::shown(text)),
                e => explain(e),
            })?),
            TimeFormat::Pattern(pattern, items) => Instant::At(
                by_pattern(text, items)
                    .ok_or_else(|| format!("{} is not written as {pattern:?}", json::shown(text)))?,
            ),
        };
        Ok(match at {
            Instant::At(us) => Value::Time(us),
            Instant::Infinity => Value::Text(Cow::Borrowed("infinity")),
            Instant::NegInfinity => Value::Text(Cow::Borrowed("-infinity")),
        })
    }
}

/// A time without a zone is UTC, a date alone is its midnight.
fn by_pattern(text: &str, items: &[Item<'static>]) -> Option<i64> {
    let mut parsed = Parsed::new();
    chrono::format::parse(&mut parsed, text, items.iter()).ok()?;
    let us = if let Ok(at) = parsed.to_datetime() {
        at.timestamp_micros()
    } else if let Ok(at) = parsed.to_naive_datetime_with_offset(0) {
        at.and_utc().timestamp_micros()
    } else {
        parsed.to_naive_date().ok()?.and_hms_opt(0, 0, 0)?.and_utc().timestamp_micros()
    };
    (time::MIN_MICROS..=time::MAX_MICROS).contains(&us).then_some(us)
}

impl Scalar {
    fn value(&self) -> Value<'_> {
        match self {
            Scalar::Bool(b) => Value::Json(Cow::Borrowed(if *b { "true" } else { "false" })),
            Scalar::Int(i) => Value::Int(*i),
            Scalar::Float(f) if f.is_finite() => Value::Json(Cow::Owned(f.to_string())),
            Scalar::Float(f) => Value::Text(Cow::Owned(f.to_string())),
            Scalar::Text(text) => Value::Text(Cow::Borrowed(text)),
        }
    }
}

/// The characters of a string or a number; those of a string without its quotes.
fn characters<'v>(value: &'v Value<'_>) -> Result<Option<Cow<'v, str>>, Reason> {
    Ok(match value {
        Value::Text(text) => Some(Cow::Borrowed(text.as_ref())),
        Value::Int(i) => Some(Cow::Owned(i.to_string())),
        Value::Json(raw) if raw.starts_with('"') => Some(json::unquote(raw)?),
        Value::Json(raw) if !raw.starts_with(['{', '[', 'n']) => Some(Cow::Borrowed(raw.as_ref())),
        _ => None,
    })
}

fn apply<'r>(cast: Cast, kind: Kind, value: Value<'r>) -> Result<Value<'r>, Reason> {
    let given = characters(&value)?;
    let needs = |what: &str| given.as_deref().map(str::trim).ok_or_else(|| format!("is no {what}"));
    Ok(match cast {
        Cast::Text => {
            let text = match (&value, &given) {
                (_, Some(text)) => text.to_string(),
                (Value::Time(us), _) => {
                    let mut out = Vec::new();
                    time::write(&mut out, *us, b'T');
                    out.push(b'Z');
                    String::from_utf8(out).map_err(|e| e.to_string())?
                }
                (Value::Json(raw), _) => raw.to_string(),
                _ => return Ok(value.clone()),
            };
            if kind == Kind::Json {
                let mut out = Vec::with_capacity(text.len() + 2);
                json::write_string(&mut out, &text);
                Value::Json(Cow::Owned(String::from_utf8(out).map_err(|e| e.to_string())?))
            } else {
                Value::Text(Cow::Owned(text))
            }
        }
        Cast::Integer => match needs("number")? {
            "" => Value::Null,
            "true" => Value::Int(1),
            "false" => Value::Int(0),
            text => Value::Int(rounded(text)?),
        },
        Cast::Number => match needs("number")? {
            "" => Value::Null,
            "true" => Value::Int(1),
            "false" => Value::Int(0),
            text if json::is_json(text)
                && text.starts_with(['-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']) =>
            {
                Value::Json(Cow::Owned(text.to_owned()))
            }
            text if kind == Kind::Json => return Err(format!("{} is no JSON number", json::shown(text))),
            // The column's own type reads it, or says why not.
            text => Value::Text(Cow::Owned(text.to_owned())),
        },
        Cast::Boolean => {
            let text = needs("boolean")?;
            let truth = match coerce::truth(text) {
                Some(truth) => truth,
                None if text.is_empty() => return Ok(Value::Null),
                None => {
                    let v: f64 = text.parse().map_err(|_| format!("{} is no boolean", json::shown(text)))?;
                    if v.is_nan() {
                        return Err(format!("{} is no boolean", json::shown(text)));
                    }
                    v != 0.0
                }
            };
            Value::Json(Cow::Borrowed(if truth { "true" } else { "false" }))
        }
        Cast::Json => match &value {
            Value::Json(raw) if raw.starts_with('"') => {
                let text = json::unquote(raw)?;
                if !json::is_json(&text) {
                    return Err(format!("{} is not JSON", json::shown(&text)));
                }
                Value::Json(Cow::Owned(text.trim().to_owned()))
            }
            _ => value.clone(),
        },
        Cast::Level => Value::Text(Cow::Owned(level(needs("name of a level")?).to_owned())),
    })
}

/// The nearest integer, halves away from zero, as PostgreSQL's numeric rounds.
fn rounded(text: &str) -> Result<i64, Reason> {
    let out_of_range = || format!("{} is out of range of an integer", json::shown(text));
    let negative = text.starts_with('-');
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (int, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if digits(int) && digits(fraction) && !(int.is_empty() && fraction.is_empty()) {
        let int = int.trim_start_matches('0');
        if int.len() > 19 {
            return Err(out_of_range());
        }
        let v = int.bytes().fold(0i128, |v, b| v * 10 + i128::from(b - b'0'));
        let v = v + i128::from(fraction.as_bytes().first().is_some_and(|b| *b >= b'5'));
        return i64::try_from(if negative { -v } else { v }).map_err(|_| out_of_range());
    }
    // With an exponent; beyond 2^53 a float is no longer exact.
    let plain = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    match text.parse::<f64>() {
        Ok(v) if plain && v.abs() < 9e15 => Ok(v.round() as i64),
        Ok(_) if plain => Err(out_of_range()),
        _ => Err(format!("{} is no number", json::shown(text))),
    }
}

/// One name for each level, from the names and numbers that loggers have for them.
pub fn level(name: &str) -> &str {
    const NAMES: [(&str, &[&str]); 6] = [
        ("TRACE", &["trace", "trc", "verbose", "finest", "finer", "all", "10"]),
        ("DEBUG", &["debug", "dbg", "fine", "20"]),
        ("INFO", &["info", "inf", "information", "informational", "notice", "config", "30"]),
        ("WARN", &["warn", "wrn", "warning", "40"]),
        ("ERROR", &["error", "err", "severe", "50"]),
        ("FATAL", &["fatal", "ftl", "critical", "crit", "alert", "emerg", "emergency", "panic", "60"]),
    ];
    let known = NAMES.iter().find(|(_, spellings)| spellings.iter().any(|s| s.eq_ignore_ascii_case(name)));
    known.map_or(name, |(level, _)| level)
}

impl Mapper {
    /// For this table, with what a mapping says of its columns.
    ///
    /// # Errors
    /// More than 64 columns with defaults, or a mapping that cannot be: a column that does not exist, a broken pointer, a
    /// constant that is none of its column's type.
    pub fn with_mapping(target: Target, mapping: &Mapping) -> Result<Mapper> {
        let plan = if mapping.is_default() { None } else { Some(Plan::new(&target, mapping)?) };
        Ok(Mapper::new(target)?.planned(plan))
    }
}
