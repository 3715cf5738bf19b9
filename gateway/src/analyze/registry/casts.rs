//! Casts that PostgreSQL makes through a type's text (`CoerceViaIO`). Those with a function of their own stand among the functions.

use super::{Entry, Rule, type_name};
use pgtree::oid::*;

/// How a cast through text is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cast {
    /// The value's text, as PostgreSQL's output function writes it.
    ToText,
    /// The value that an integer type's input function reads.
    ToInt,
    /// The value that numeric's input function reads, without a type modifier.
    ToNumeric,
}

const ZONE: &str = "the session's time zone is known here";

/// From, to, rule.
const CASTS: &[(u32, u32, Rule<Cast>)] = &[
    (INT2, TEXT, Rule::Same(Cast::ToText)),
    (INT4, TEXT, Rule::Same(Cast::ToText)),
    (INT8, TEXT, Rule::Same(Cast::ToText)),
    (NUMERIC, TEXT, Rule::Same(Cast::ToText)),
    (DATE, TEXT, Rule::Same(Cast::ToText)),
    (TIMESTAMP, TEXT, Rule::Same(Cast::ToText)),
    (TIMESTAMPTZ, TEXT, Rule::When(Cast::ToText, ZONE)),
    (UUID, TEXT, Rule::Same(Cast::ToText)),
    (JSONB, TEXT, Rule::Same(Cast::ToText)),
    (TEXT, INT2, Rule::Same(Cast::ToInt)),
    (TEXT, INT4, Rule::Same(Cast::ToInt)),
    (TEXT, INT8, Rule::Same(Cast::ToInt)),
    (TEXT, NUMERIC, Rule::When(Cast::ToNumeric, "the texts are finite numbers")),
    (FLOAT4, TEXT, Rule::Never("it depends on extra_float_digits")),
    (FLOAT8, TEXT, Rule::Never("it depends on extra_float_digits")),
    (BYTEA, TEXT, Rule::Never("it depends on bytea_output")),
    (TEXT, DATE, Rule::Never("what dates may look like depends on settings")),
    (TEXT, TIMESTAMP, Rule::Never("what times may look like depends on settings")),
    (TEXT, TIMESTAMPTZ, Rule::Never("what times may look like depends on settings")),
    (TEXT, BOOL, Rule::Never("not built")),
    (TEXT, FLOAT8, Rule::Never("not built")),
    (TEXT, UUID, Rule::Never("not built")),
    (TEXT, JSONB, Rule::Never("only PostgreSQL makes canonical jsonb")),
];

/// The types that differ in name alone.
fn plain(type_oid: u32) -> u32 {
    if type_oid == VARCHAR { TEXT } else { type_oid }
}

/// The rule for a cast through text.
pub fn cast(from: u32, to: u32) -> Option<Rule<Cast>> {
    CASTS.iter().find(|c| c.0 == plain(from) && c.1 == plain(to)).map(|c| c.2)
}

pub(super) fn entries() -> impl Iterator<Item = Entry> {
    CASTS.iter().map(|(from, to, rule)| {
        let (lake, reason) = rule.verdict();
        Entry {
            kind: "cast",
            oid: 0,
            name: format!("{}::{}", type_name(*from), type_name(*to)),
            signature: format!("{}::{}", type_name(*from), type_name(*to)),
            result: type_name(*to),
            lake,
            reason: reason.into(),
        }
    })
}

#[cfg(test)]
pub(super) fn pairs() -> impl Iterator<Item = (u32, u32)> {
    CASTS.iter().map(|c| (c.0, c.1))
}
