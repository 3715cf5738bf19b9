//! Bytes to records: a record is a list of named fields. Knows the formats; knows no tables and no COPY.
//!
//! Decoding never stops at a bad record: it gives the reason, and the caller goes on with the next.

pub mod csv;
pub mod detect;
pub mod envelope;
pub mod frame;
pub mod input;
pub mod json;
pub mod syslog;
pub mod time;
pub mod web;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use self::csv::Header;
use self::frame::Framing;
use self::syslog::Years;

/// A value of a record, borrowed from the record's own bytes where possible.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// No value.
    Null,
    /// One well-formed JSON value, as it was written: numbers keep their digits.
    Json(Cow<'a, str>),
    /// A string.
    Text(Cow<'a, str>),
    /// An integer.
    Int(i64),
    /// Microseconds since 1970, UTC.
    Time(i64),
}

/// A named value of a record.
#[derive(Debug, Clone, PartialEq)]
pub struct Field<'a> {
    /// The record's own name for it.
    pub name: Cow<'a, str>,
    /// Its value.
    pub value: Value<'a>,
}

/// What a record says, in its own order. Where a name comes twice, the last one counts, as in jsonb.
pub type Record<'a> = Vec<Field<'a>>;

/// The name under which web and syslog records carry their time: the mapping gives it to the event-time column.
pub const EVENT_TIME: &str = "@timestamp";

/// File formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Apache and nginx access logs: common, combined, with or without a leading virtual host.
    Web,
    /// One JSON object a line.
    Ndjson,
    /// One JSON array of objects.
    JsonArray,
    /// CSV whose first record names the columns.
    Csv,
    /// RFC 3164 (with or without a year), RFC 5424, and the ISO-time form of rsyslog.
    Syslog,
}

impl Format {
    /// The name that `--format` takes and the load history keeps.
    pub fn name(self) -> &'static str {
        match self {
            Format::Web => "combined",
            Format::Ndjson => "ndjson",
            Format::JsonArray => "json",
            Format::Csv => "csv",
            Format::Syslog => "syslog",
        }
    }

    /// Names of the fields that every record of the format carries, if the format fixes them.
    pub fn fixed_fields(self) -> bool {
        matches!(self, Format::Web | Format::Syslog)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Ok(match s.to_ascii_lowercase().as_str() {
            "combined" | "common" | "apache" | "nginx" | "web" => Format::Web,
            "ndjson" | "jsonl" | "jsonlines" => Format::Ndjson,
            "json" | "json-array" => Format::JsonArray,
            "csv" => Format::Csv,
            "syslog" => Format::Syslog,
            _ => return Err(format!("unknown format {s:?}; known: combined, ndjson, json, csv, syslog")),
        })
    }
}

/// Why a record was not decoded; shown to people in `watershed.dead_letters`.
pub type Reason = String;

/// Decodes one framed record after another; holds what a format remembers between records.
#[derive(Debug, Clone)]
pub enum Decoder {
    /// See [`web`].
    Web,
    /// See [`json`]; for NDJSON and JSON arrays.
    Json,
    /// See [`csv`].
    Csv(Header),
    /// See [`syslog`].
    Syslog(Years),
}

impl Decoder {
    /// How this format's records are cut.
    pub fn framing(format: Format, delimiter: u8) -> Framing {
        match format {
            Format::Web | Format::Ndjson | Format::Syslog => Framing::Lines,
            Format::JsonArray => Framing::JsonArray,
            Format::Csv => Framing::Csv { delimiter },
        }
    }

    /// The fields of one record.
    ///
    /// # Errors
    /// The reason why it is none.
    pub fn decode<'a>(&'a mut self, raw: &'a [u8]) -> Result<Record<'a>, Reason> {
        let text = std::str::from_utf8(raw)
            .map_err(|e| format!("invalid UTF-8 at byte {} of the record", e.valid_up_to()))?;
        match self {
            Decoder::Web => web::decode(text),
            Decoder::Json => json::decode(text),
            Decoder::Csv(header) => csv::decode(text, header),
            Decoder::Syslog(years) => syslog::decode(text, years),
        }
    }

    /// What must be kept so that another process can go on at the next record.
    pub fn state(&self) -> Option<Years> {
        match self {
            Decoder::Syslog(years) => Some(*years),
            _ => None,
        }
    }
}

fn field<'a>(name: &'static str, value: Value<'a>) -> Field<'a> {
    Field { name: Cow::Borrowed(name), value }
}

fn text<'a>(name: &'static str, value: &'a str) -> Field<'a> {
    field(name, Value::Text(Cow::Borrowed(value)))
}

#[cfg(test)]
mod tests;
