//! `LIKE` on UTF-8 text with `\` as the escape, in deterministic collations.
//!
//! Knows patterns and strings. Follows `MatchText` of PostgreSQL's `like_match.c`, including when it
//! raises 22025: only if matching reaches a trailing escape.

use arrow::array::{Array, AsArray, BooleanArray, BooleanBuilder};
use arrow::datatypes::DataType;

use crate::PgError;

#[cfg(test)]
mod tests;

/// A pattern made ready for many strings.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: Vec<u8>,
    shape: Shape,
}

/// The common patterns, for which plain string search is enough. Their bytes have the escapes removed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Shape {
    Equals(Vec<u8>),
    StartsWith(Vec<u8>),
    EndsWith(Vec<u8>),
    Contains(String),
    Anything,
    General,
}

fn trailing_escape() -> PgError {
    PgError::new("22025", "LIKE pattern must not end with escape character")
}

impl Pattern {
    pub fn new(pattern: &str) -> Pattern {
        Pattern { text: pattern.as_bytes().to_vec(), shape: Shape::of(pattern) }
    }

    /// Whether a string is LIKE the pattern.
    #[inline]
    pub fn matches(&self, text: &str) -> Result<bool, PgError> {
        Ok(match &self.shape {
            Shape::Equals(s) => text.as_bytes() == s,
            Shape::StartsWith(s) => text.as_bytes().starts_with(s),
            Shape::EndsWith(s) => text.as_bytes().ends_with(s),
            Shape::Contains(s) => text.contains(s.as_str()),
            Shape::Anything => true,
            Shape::General => run(text.as_bytes(), &self.text)? == Outcome::Match,
        })
    }
}

impl Shape {
    fn of(pattern: &str) -> Shape {
        let mut bytes = pattern.bytes().peekable();
        let mut literal = Vec::new();
        let leading = bytes.next_if_eq(&b'%').is_some();
        while bytes.next_if_eq(&b'%').is_some() {}
        let mut trailing = false;
        while let Some(byte) = bytes.next() {
            match byte {
                b'_' => return Shape::General,
                // An escape at the end raises an error, but only where it is reached.
                b'\\' => match bytes.next() {
                    Some(byte) if !trailing => literal.push(byte),
                    _ => return Shape::General,
                },
                b'%' => trailing = true,
                _ if trailing => return Shape::General,
                byte => literal.push(byte),
            }
        }
        match (leading, trailing) {
            (true, _) if literal.is_empty() => Shape::Anything,
            (false, true) if literal.is_empty() => Shape::Anything,
            (false, false) => Shape::Equals(literal),
            (false, true) => Shape::StartsWith(literal),
            (true, false) => Shape::EndsWith(literal),
            // Removing whole ASCII characters from valid UTF-8 leaves valid UTF-8.
            (true, true) => String::from_utf8(literal).map_or(Shape::General, Shape::Contains),
        }
    }
}

#[derive(PartialEq, Eq, Clone, Copy)]
enum Outcome {
    Match,
    Mismatch,
    /// The text ended before the pattern: no later start of an enclosing search can match either.
    Abort,
}

/// The bytes after the first character of `text`.
fn skip_char(text: &[u8]) -> &[u8] {
    let end = text[1..].iter().position(|b| b & 0xC0 != 0x80).map_or(text.len(), |i| i + 1);
    &text[end..]
}

fn run(mut text: &[u8], mut pattern: &[u8]) -> Result<Outcome, PgError> {
    while let (Some(&t), Some(&p)) = (text.first(), pattern.first()) {
        match p {
            b'\\' => {
                pattern = &pattern[1..];
                if *pattern.first().ok_or_else(trailing_escape)? != t {
                    return Ok(Outcome::Mismatch);
                }
            }
            b'%' => return run_any(text, &pattern[1..]),
            b'_' => {
                text = skip_char(text);
                pattern = &pattern[1..];
                continue;
            }
            p if p != t => return Ok(Outcome::Mismatch),
            _ => {}
        }
        text = &text[1..];
        pattern = &pattern[1..];
    }
    if !text.is_empty() {
        return Ok(Outcome::Mismatch);
    }
    let rest_matches_nothing = pattern.iter().all(|p| *p == b'%');
    Ok(if rest_matches_nothing { Outcome::Match } else { Outcome::Abort })
}

/// Matches what follows a `%`: looks for a place in `text` from where the rest of the pattern matches.
fn run_any(mut text: &[u8], mut pattern: &[u8]) -> Result<Outcome, PgError> {
    loop {
        match pattern.first() {
            None => return Ok(Outcome::Match),
            Some(b'%') => {}
            Some(b'_') if text.is_empty() => return Ok(Outcome::Abort),
            Some(b'_') => text = skip_char(text),
            Some(_) => break,
        }
        pattern = &pattern[1..];
    }
    let first = match pattern {
        [b'\\'] => return Err(trailing_escape()),
        [b'\\', next, ..] => *next,
        _ => pattern[0],
    };
    while !text.is_empty() {
        if text[0] == first {
            let outcome = run(text, pattern)?;
            if outcome != Outcome::Mismatch {
                return Ok(outcome);
            }
        }
        text = skip_char(text);
    }
    Ok(Outcome::Abort)
}

fn each<'a>(
    array: &'a dyn Array,
    mut f: impl FnMut(usize, Option<&'a str>) -> Result<(), PgError>,
) -> Result<(), PgError> {
    macro_rules! rows {
        ($strings:expr) => {{
            let strings = $strings;
            (0..strings.len()).try_for_each(|i| f(i, (!strings.is_null(i)).then(|| strings.value(i))))
        }};
    }
    match array.data_type() {
        DataType::Utf8 => rows!(array.as_string::<i32>()),
        DataType::LargeUtf8 => rows!(array.as_string::<i64>()),
        DataType::Utf8View => rows!(array.as_string_view()),
        other => Err(PgError::not_exact(format!("LIKE over {other}"))),
    }
}

/// `array LIKE pattern`, or `NOT LIKE`, over Utf8, LargeUtf8 or Utf8View; NULL where the text is.
pub fn like(array: &dyn Array, pattern: &Pattern, negated: bool) -> Result<BooleanArray, PgError> {
    let mut out = BooleanBuilder::with_capacity(array.len());
    each(array, |_, text| {
        match text {
            Some(text) => out.append_value(pattern.matches(text)? != negated),
            None => out.append_null(),
        }
        Ok(())
    })?;
    Ok(out.finish())
}

/// `array LIKE patterns` row by row; NULL where either is.
pub fn like_rows(array: &dyn Array, patterns: &dyn Array, negated: bool) -> Result<BooleanArray, PgError> {
    if array.len() != patterns.len() {
        return Err(PgError::not_exact(format!("arrays of {} and {} rows", array.len(), patterns.len())));
    }
    let mut compiled: Vec<Option<&str>> = Vec::with_capacity(patterns.len());
    each(patterns, |_, pattern| {
        compiled.push(pattern);
        Ok(())
    })?;
    let mut out = BooleanBuilder::with_capacity(array.len());
    each(array, |i, text| {
        match text.zip(compiled[i]) {
            Some((text, pattern)) => {
                let outcome = run(text.as_bytes(), pattern.as_bytes())?;
                out.append_value((outcome == Outcome::Match) != negated);
            }
            None => out.append_null(),
        }
        Ok(())
    })?;
    Ok(out.finish())
}

/// `text ILIKE pattern` or, `negated`, NOT ILIKE: both in lower case first (`Generic_Text_IC_like`). Where letters are more than the ASCII
/// ones (`usual`), the pattern must be ASCII: letters beyond have lower cases beyond, which it does not hold, but for two.
pub fn ilike(texts: &dyn Array, pattern: &str, negated: bool, usual: bool) -> Result<BooleanArray, PgError> {
    if usual && !pattern.is_ascii() {
        return Err(PgError::not_exact("a pattern beyond ASCII: its lower case is the locale's"));
    }
    let pattern = Pattern::new(&pattern.to_ascii_lowercase());
    let texts = crate::fixed::Texts::of(texts).ok_or_else(|| PgError::not_exact("ILIKE over no text"))?;
    let rows = texts.len();
    let mut out = BooleanBuilder::with_capacity(rows);
    let mut lower = String::new();
    for row in 0..rows {
        let Some(text) = texts.value(row) else {
            out.append_null();
            continue;
        };
        // The capital I with a dot and the sign for Kelvin.
        if usual && !text.is_ascii() && text.contains(['\u{130}', '\u{212a}']) {
            return Err(PgError::not_exact("a letter whose lower case is ASCII"));
        }
        lower.clear();
        lower.push_str(text);
        lower.make_ascii_lowercase();
        out.append_value(pattern.matches(&lower)? != negated);
    }
    Ok(out.finish())
}
