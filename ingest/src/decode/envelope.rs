//! What a value of a topic is wrapped in, and how it is taken out: one value may hold one record or several. Knows the
//! shapes that shippers write; knows no tables and no brokers.
//!
//! | envelope | its shape | what becomes of it |
//! | --- | --- | --- |
//! | plain | one JSON object | its keys are the record's |
//! | filebeat, logstash | ECS keys, nested or dotted | `log.level`, `host.name` and `service.name` become keys of these dotted names, which the mapping gives to the columns `level`, `host` and `service`; the rest stays |
//! | connect | `{"schema": ..., "payload": ...}`, or a Debezium change | the payload (of a change: `after`); logical types become what they mean |
//! | otel | `{"resourceLogs": ...}` | one record a log record |
//! | auto | any of these, or a line of a web log or syslog | told by the names of the first level |

mod connect;
mod ecs;
mod otel;
mod text;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use super::{Reason, Record, json};

/// What the values of a topic are wrapped in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Envelope {
    /// Told by each value itself.
    #[default]
    Auto,
    /// One JSON object, as it stands.
    Plain,
    /// Filebeat's and other Beats' output.
    Filebeat,
    /// Logstash's JSON codec.
    Logstash,
    /// Kafka Connect's JSON converter, with or without schemas; Debezium's changes.
    Connect,
    /// OpenTelemetry logs as OTLP's JSON.
    Otel,
}

impl Envelope {
    /// Every envelope.
    pub const ALL: [Envelope; 6] = [
        Envelope::Auto,
        Envelope::Plain,
        Envelope::Filebeat,
        Envelope::Logstash,
        Envelope::Connect,
        Envelope::Otel,
    ];

    /// The name that settings and dead letters have for it.
    pub fn name(self) -> &'static str {
        match self {
            Envelope::Auto => "auto",
            Envelope::Plain => "plain",
            Envelope::Filebeat => "filebeat",
            Envelope::Logstash => "logstash",
            Envelope::Connect => "connect",
            Envelope::Otel => "otel",
        }
    }
}

impl fmt::Display for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Envelope {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Envelope::ALL.into_iter().find(|e| e.name() == s).ok_or_else(|| {
            format!("unknown envelope {s:?}; known: auto, plain, filebeat, logstash, connect, otel")
        })
    }
}

/// The records of one value, one after another.
#[derive(Debug)]
pub struct Records<'a> {
    value: &'a [u8],
    inner: Inner<'a>,
}

#[derive(Debug)]
enum Inner<'a> {
    One(Option<Record<'a>>),
    Otel(Box<otel::Logs<'a>>),
}

impl<'a> Records<'a> {
    fn one(value: &'a [u8], record: Record<'a>) -> Records<'a> {
        Records { value, inner: Inner::One(Some(record)) }
    }

    /// The bytes that the record given last stands for: the value itself, or where it holds several, a value of the
    /// same envelope that holds only this one.
    pub fn raw(&self) -> Cow<'a, [u8]> {
        match &self.inner {
            Inner::One(_) => Cow::Borrowed(self.value),
            Inner::Otel(logs) => logs.raw().map_or(Cow::Borrowed(self.value), Cow::Owned),
        }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Reason>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.inner {
            Inner::One(record) => record.take().map(Ok),
            Inner::Otel(logs) => logs.next(),
        }
    }
}

/// Takes the records out of a value.
///
/// # Errors
/// Why there are none in it: no JSON, not of this envelope, or a change that no row can stand for.
pub fn open(envelope: Envelope, value: &[u8]) -> Result<Records<'_>, Reason> {
    open_at(envelope, value, None)
}

/// As [`open`]; `now` (microseconds since 1970, else the clock's) places the times of syslog lines, which carry no year.
///
/// # Errors
/// As there.
pub fn open_at(envelope: Envelope, value: &[u8], now: Option<i64>) -> Result<Records<'_>, Reason> {
    let text = std::str::from_utf8(value)
        .map_err(|e| format!("invalid UTF-8 at byte {} of the record", e.valid_up_to()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.bytes().all(|b| b.is_ascii_whitespace()) {
        return Err("the value is empty".to_owned());
    }
    let envelope = match envelope {
        Envelope::Auto => match text.trim_start().as_bytes().first() {
            Some(b'{') => return open_detected(value, text),
            _ => {
                let now = now.unwrap_or_else(crate::load::now_micros);
                return text::decode(text, now).map(|record| Records::one(value, record));
            }
        },
        Envelope::Otel => return otel::Logs::parse(text).map(|logs| Records::of_logs(value, logs)),
        other => other,
    };
    let mut record = json::decode(text)?;
    match envelope {
        Envelope::Filebeat => ecs::lift(&mut record),
        Envelope::Logstash => ecs::lift_logstash(&mut record),
        Envelope::Connect => record = connect::unwrap(record)?,
        Envelope::Auto | Envelope::Plain | Envelope::Otel => {}
    }
    Ok(Records::one(value, record))
}

impl<'a> Records<'a> {
    fn of_logs(value: &'a [u8], logs: otel::Logs<'a>) -> Records<'a> {
        Records { value, inner: Inner::Otel(Box::new(logs)) }
    }
}

fn open_detected<'a>(value: &'a [u8], text: &'a str) -> Result<Records<'a>, Reason> {
    let mut record = json::decode(text)?;
    match detect(&record) {
        Envelope::Filebeat => ecs::lift(&mut record),
        Envelope::Logstash => ecs::lift_logstash(&mut record),
        Envelope::Connect => record = connect::unwrap(record)?,
        Envelope::Otel => return otel::Logs::parse(text).map(|logs| Records::of_logs(value, logs)),
        Envelope::Auto | Envelope::Plain => {}
    }
    Ok(Records::one(value, record))
}

/// The envelope that the names of the first level show; one look at each name.
fn detect(record: &Record<'_>) -> Envelope {
    // A record of another shape must not pay for this: the length of a name tells most of them apart.
    let (mut at_timestamp, mut at_version, mut beat, mut ecs) = (false, false, false, false);
    let (mut payload, mut schema, mut before_or_after, mut op, mut source) =
        (false, false, false, false, false);
    for field in record {
        let name = field.name.as_ref();
        match name.len() {
            2 => op |= name == "op",
            3 => match name {
                "log" => ecs |= json::is_object(&field.value),
                "ecs" => beat |= json::is_object(&field.value),
                _ => {}
            },
            4 => match name {
                "host" => ecs |= json::is_object(&field.value),
                "beat" => beat |= json::is_object(&field.value),
                _ => {}
            },
            5 => match name {
                "agent" => beat |= json::is_object(&field.value),
                "after" => before_or_after = true,
                _ => {}
            },
            6 => match name {
                "schema" => schema |= json::is_object(&field.value) || field.value == super::Value::Null,
                "before" => before_or_after = true,
                "source" => source |= json::is_object(&field.value),
                _ => {}
            },
            7 => match name {
                "payload" => payload = true,
                "service" => ecs |= json::is_object(&field.value),
                _ => {}
            },
            8 => at_version |= name == "@version",
            9 => match name {
                "@metadata" => beat = true,
                "log.level" | "host.name" => ecs = true,
                _ => {}
            },
            10 => match name {
                "@timestamp" => at_timestamp = true,
                "agent.type" => ecs = true,
                _ => {}
            },
            11 => ecs |= name == "ecs.version",
            12 => match name {
                "service.name" => ecs = true,
                "resourceLogs" if json::is_array(&field.value) => return Envelope::Otel,
                _ => {}
            },
            _ => {}
        }
    }
    if payload && schema && record.len() == 2 || before_or_after && op && source {
        Envelope::Connect
    } else if at_timestamp && at_version {
        Envelope::Logstash
    } else if at_timestamp && (beat || ecs) {
        Envelope::Filebeat
    } else {
        Envelope::Plain
    }
}

#[cfg(test)]
mod tests;
