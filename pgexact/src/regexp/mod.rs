//! Whether a text matches a regular expression, for expressions that mean the same to PostgreSQL's engine (`regcomp.c`, `regexec.c`) and to the
//! `regex` crate: literals, `.`, `^`, `$`, groups, alternatives, sets of ASCII characters, `\d`, `\s`, `\w`, `*`, `+`, `?` and bounds. Everything
//! else is refused when it is parsed, what PostgreSQL would raise an error for included. ✗ what matched, and where.

use arrow::array::{Array, BooleanArray, BooleanBuilder};
use regex::{Regex, RegexBuilder};

use crate::PgError;
use crate::fixed::Texts;
use crate::scalar::misused;

#[cfg(test)]
mod tests;

/// Characters of an expression.
const MAX_LENGTH: usize = 1000;
/// Groups in groups.
const MAX_DEPTH: usize = 20;
/// The highest bound (`DUPMAX`).
const MAX_REPEAT: u32 = 255;

/// An expression made ready for many texts.
#[derive(Debug, Clone)]
pub struct Pattern {
    regex: Regex,
    /// Only ASCII texts are matched: which other letters and spaces there are is the locale's.
    ascii_only: bool,
}

impl Pattern {
    /// Reads an expression; `insensitive` for `~*`, where letters are the ASCII ones. None if it is not one of those above.
    pub fn parse(pattern: &str, insensitive: bool) -> Option<Pattern> {
        if pattern.is_empty() || pattern.chars().count() > MAX_LENGTH {
            return None;
        }
        let mut reader = Reader { rest: pattern, out: String::from("(?s:"), insensitive, ascii_only: false };
        reader.alternatives(0)?;
        if !reader.rest.is_empty() {
            return None;
        }
        reader.out.push(')');
        let regex = RegexBuilder::new(&reader.out).size_limit(1 << 20).build().ok()?;
        Some(Pattern { regex, ascii_only: reader.ascii_only })
    }

    /// Whether the expression matches anywhere in the text.
    pub fn matches(&self, text: &str) -> Result<bool, PgError> {
        if self.ascii_only && !text.is_ascii() {
            return Err(PgError::not_exact("letters and spaces beyond ASCII are the locale's"));
        }
        Ok(self.regex.is_match(text))
    }
}

struct Reader<'p> {
    rest: &'p str,
    out: String,
    insensitive: bool,
    ascii_only: bool,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let c = chars.next()?;
        self.rest = chars.as_str();
        Some(c)
    }

    fn take(&mut self, prefix: &str) -> bool {
        match self.rest.strip_prefix(prefix) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Branches between bars, none of them empty, up to the end or a closing parenthesis.
    fn alternatives(&mut self, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        loop {
            let mut pieces = 0;
            while !self.rest.is_empty() && !self.rest.starts_with(['|', ')']) {
                self.piece(depth)?;
                pieces += 1;
            }
            if pieces == 0 {
                return None;
            }
            if !self.take("|") {
                return Some(());
            }
            self.out.push('|');
        }
    }

    /// An atom with its quantifier, or an anchor, which has none.
    fn piece(&mut self, depth: usize) -> Option<()> {
        match self.next()? {
            c @ ('^' | '$') => {
                self.out.push(c);
                return if self.rest.starts_with(['*', '+', '?', '{']) { None } else { Some(()) };
            }
            '(' => {
                if self.rest.starts_with('?') && !self.take("?:") {
                    return None;
                }
                self.out.push_str("(?:");
                self.alternatives(depth + 1)?;
                if !self.take(")") {
                    return None;
                }
                self.out.push(')');
            }
            '.' => self.out.push('.'),
            '[' => self.set()?,
            '\\' => self.escape()?,
            '*' | '+' | '?' | '{' | '}' | ')' | ']' | '|' => return None,
            c => self.literal(c)?,
        }
        self.quantifier()
    }

    fn quantifier(&mut self) -> Option<()> {
        match self.rest.chars().next() {
            Some(c @ ('*' | '+' | '?')) => {
                self.next();
                self.out.push(c);
            }
            Some('{') => {
                let end = self.rest.find('}')?;
                let bounds = &self.rest[1..end];
                let (least, most) = bounds.split_once(',').unwrap_or((bounds, bounds));
                let number = |text: &str| match text.len() {
                    1..=3 if text.bytes().all(|b| b.is_ascii_digit()) => {
                        text.parse::<u32>().ok().filter(|n| *n <= MAX_REPEAT)
                    }
                    _ => None,
                };
                let least = number(least)?;
                if !most.is_empty() && number(most)? < least {
                    return None;
                }
                self.out.push_str(&self.rest[..=end]);
                self.rest = &self.rest[end + 1..];
            }
            _ => return Some(()),
        }
        // No second quantifier, nor one that prefers less.
        if self.rest.starts_with(['*', '+', '?', '{']) { None } else { Some(()) }
    }

    fn literal(&mut self, c: char) -> Option<()> {
        if self.insensitive {
            if !c.is_ascii() {
                return None;
            }
            if c.is_ascii_alphabetic() {
                self.out.extend(['[', c.to_ascii_lowercase(), c.to_ascii_uppercase(), ']']);
                return Some(());
            }
        }
        self.out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
        Some(())
    }

    fn escape(&mut self) -> Option<()> {
        match self.next()? {
            // As `iswdigit` has it in every locale.
            'd' => self.out.push_str("[0-9]"),
            'D' => self.out.push_str("[^0-9]"),
            c @ ('s' | 'S' | 'w' | 'W') => {
                self.ascii_only = true;
                self.out.push_str(match c {
                    's' => r"[ \t\n\v\f\r]",
                    'S' => r"[^ \t\n\v\f\r]",
                    'w' => "[A-Za-z0-9_]",
                    _ => "[^A-Za-z0-9_]",
                });
            }
            'n' => self.out.push_str(r"\n"),
            't' => self.out.push_str(r"\t"),
            'r' => self.out.push_str(r"\r"),
            c if c.is_ascii_punctuation() => self.out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
            _ => return None,
        }
        Some(())
    }

    /// `[...]` of ASCII characters and of ranges of letters or digits.
    fn set(&mut self) -> Option<()> {
        let negated = self.take("^");
        let mut members: Vec<char> = Vec::new();
        while !self.take("]") {
            let first = self.next()?;
            // What opens classes, escapes, stands first to mean itself, or is no plain character.
            if !(first.is_ascii_graphic() || first == ' ') || matches!(first, '[' | '\\' | '-' | '^') {
                return None;
            }
            if self.rest.starts_with('-') && !self.rest.starts_with("-]") {
                self.next();
                let last = self.next()?;
                let kind = |c: char| (c.is_ascii_digit(), c.is_ascii_lowercase(), c.is_ascii_uppercase());
                if kind(first) == (false, false, false) || kind(first) != kind(last) || last < first {
                    return None;
                }
                members.extend(first..=last);
            } else {
                members.push(first);
                if self.take("-]") {
                    members.push('-');
                    break;
                }
            }
        }
        if members.is_empty() {
            return None;
        }
        if self.insensitive {
            let other: Vec<char> = members
                .iter()
                .filter(|c| c.is_ascii_alphabetic())
                .map(|c| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() })
                .collect();
            members.extend(other);
        }
        self.out.push_str(if negated { "[^" } else { "[" });
        for member in members {
            self.out.push_str(&format!("\\x{:02x}", u32::from(member)));
        }
        self.out.push(']');
        Some(())
    }
}

/// `text ~ pattern`, or `!~`, row by row; NULL where the text is.
pub fn matches(array: &dyn Array, pattern: &Pattern, negated: bool) -> Result<BooleanArray, PgError> {
    let texts = Texts::of(array).ok_or_else(misused)?;
    let mut out = BooleanBuilder::with_capacity(array.len());
    for row in 0..array.len() {
        match texts.value(row) {
            Some(text) => out.append_value(pattern.matches(text)? != negated),
            None => out.append_null(),
        }
    }
    Ok(out.finish())
}
