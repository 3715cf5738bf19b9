//! What a mapping says, as settings: which keys fill which columns, how they are read, and what becomes of the others.
//! Knows neither tables nor records; [`super::plan`] turns it into something that runs.
//!
//! ```toml
//! [[kafka.topics]]
//! topic = "shop.orders"
//! table = "public.orders"
//! mapping.unknown = "keep"
//! mapping.columns.created_at = { from = ["/meta/created", "ts"], time = "ms" }
//! mapping.columns.customer = { from = ["customer.id", "$key"], cast = "text" }
//! mapping.columns.currency = { default = "EUR" }
//! mapping.columns.source = { constant = "shop" }
//! ```
//!
//! A `from` is one of these, and the first of several that is there and not null counts:
//! - `name`, `a.b.c`: the key of this very name, else the way through nested objects;
//! - `/a/b/0`: a JSON pointer (RFC 6901), from the record's first level;
//! - `$key`, `$key/a/b`, `$topic`, `$partition`, `$offset`, `$timestamp`, `$header.NAME`: of the Kafka record itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// How records become rows, where names alone do not say it. Columns that are not named here are filled by name.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mapping {
    /// What becomes of keys that no column takes.
    pub unknown: Unknown,
    /// By column.
    pub columns: BTreeMap<String, ColumnMapping>,
}

impl Mapping {
    /// True if it says no more than having none.
    pub fn is_default(&self) -> bool {
        *self == Mapping::default()
    }
}

/// What becomes of keys that no column takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unknown {
    /// They are kept in the overflow column; without one, the record is refused.
    #[default]
    Keep,
    /// They are left out.
    Drop,
    /// The record is refused.
    Reject,
}

/// Where the values of one column come from.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ColumnMapping {
    /// Keys, paths, pointers; the column's own name if there is none.
    #[serde(deserialize_with = "one_or_several")]
    pub from: Vec<String>,
    /// How a time is written: `auto`, `s`, `ms`, `us`, `ns`, `iso8601`, or a strptime format such as
    /// `%d/%b/%Y:%H:%M:%S %z`.
    pub time: Option<String>,
    /// What the value is made into before the column's own type.
    pub cast: Option<Cast>,
    /// Where no key is there, or only null.
    pub default: Option<Scalar>,
    /// Always this.
    pub constant: Option<Scalar>,
}

/// What a value is made into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cast {
    /// A string; objects and lists as their JSON.
    Text,
    /// An integer; fractions are rounded half away from zero, true is 1.
    Integer,
    /// A number; a blank string is null.
    Number,
    /// True or false; a number other than 0 is true.
    Boolean,
    /// What a string holds, as JSON.
    Json,
    /// TRACE, DEBUG, INFO, WARN, ERROR or FATAL, from their many spellings; other names stay.
    Level,
}

/// A value in a settings file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
}

fn one_or_several<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        One(String),
        Several(Vec<String>),
    }
    Ok(match Either::deserialize(d)? {
        Either::One(one) => vec![one],
        Either::Several(several) => several,
    })
}
