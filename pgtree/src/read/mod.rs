//! The generic reader of `nodeToString` text. Knows the grammar of `outfuncs.c` and `print.c`; knows no node by name.
//!
//! Source of the grammar: `src/backend/nodes/{outfuncs,read,print}.c` of PostgreSQL 15. A token ends at white space or at one of
//! `( ) { }`; a backslash takes the next byte literally; `<>` is NULL. `format_node_dump` breaks the text into lines of 78 bytes at
//! blanks; where a line holds no blank it breaks inside a token, and such a text cannot be read back with certainty: it is refused.

#[cfg(test)]
mod tests;

use std::borrow::Cow;

/// Bounds of one text. Every limit is an error, never a truncation.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the whole text.
    pub bytes: usize,
    /// Nesting of nodes and lists together.
    pub depth: usize,
    /// Values of every kind: nodes, lists, tokens and datums.
    pub values: usize,
}

impl Default for Limits {
    /// Four MiB, 200 levels and a million values: an IN list of some ten thousand elements still fits.
    fn default() -> Self {
        Limits { bytes: 4 << 20, depth: 200, values: 1_000_000 }
    }
}

/// Why a text is not a node tree that may be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("the tree has {0} bytes, more than the limit")]
    TooLong(usize),
    #[error("the tree is nested too deeply")]
    TooDeep,
    #[error("the tree holds too many values")]
    TooMany,
    #[error("the tree ends too early")]
    Truncated,
    #[error("unexpected {found:?} at byte {at}")]
    Unexpected { found: String, at: usize },
    #[error("a token is broken across lines near byte {0}")]
    BrokenToken(usize),
    #[error("field {0} of {1} is missing or has another form")]
    Field(&'static str, String),
}

/// One value of a tree, borrowing from its text.
#[derive(Debug, Clone, PartialEq)]
pub enum Item<'a> {
    /// `<>`
    Null,
    /// A bare or quoted token, still escaped; [`Item::text`] gives it unescaped.
    Token(&'a str),
    Node(Node<'a>),
    /// `( ... )`: a list of values; `(i ..)`, `(o ..)` and `(b ..)` keep their letter as [`ListKind`].
    List(ListKind, Vec<Item<'a>>),
    /// `length [ bytes ]`: the bytes of a datum; for types passed by value always eight.
    Datum(usize, Vec<u8>),
}

/// What a parenthesised list holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListKind {
    Values,
    Ints,
    Oids,
    Xids,
    /// A `Bitmapset`; its members are ascending integers.
    Bits,
}

/// `{NAME :field value ...}`
#[derive(Debug, Clone, PartialEq)]
pub struct Node<'a> {
    pub name: &'a str,
    fields: Vec<(&'a str, Item<'a>)>,
}

/// Reads one whole text.
///
/// # Errors
/// [`ReadError`] for anything that is not exactly one value followed by white space, or exceeds the limits.
pub fn read(text: &str, limits: Limits) -> Result<Item<'_>, ReadError> {
    if text.len() > limits.bytes {
        return Err(ReadError::TooLong(text.len()));
    }
    refuse_broken_tokens(text)?;
    let mut reader = Reader { text, at: 0, left: limits.values, limits };
    let item = reader.item(0)?;
    match reader.peek()? {
        None => Ok(item),
        Some(token) => Err(reader.unexpected(token)),
    }
}

/// A full line without a blank after its first byte was cut inside a token (`format_node_dump`, LINELEN 78).
fn refuse_broken_tokens(text: &str) -> Result<(), ReadError> {
    const LINE: usize = 78;
    let mut start = 0;
    for line in text.split('\n') {
        if line.len() >= LINE && start + line.len() < text.len() {
            let head = line.as_bytes().iter().skip(1);
            if !head.clone().any(|b| *b == b' ') && line.len() == LINE {
                return Err(ReadError::BrokenToken(start + line.len()));
            }
        }
        start += line.len() + 1;
    }
    Ok(())
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    left: usize,
    limits: Limits,
}

impl<'a> Reader<'a> {
    /// The next token without taking it, and where it ends.
    fn token_at(&self) -> Result<Option<(usize, usize)>, ReadError> {
        let bytes = self.text.as_bytes();
        let mut start = self.at;
        while start < bytes.len() && matches!(bytes[start], b' ' | b'\n' | b'\t') {
            start += 1;
        }
        if start == bytes.len() {
            return Ok(None);
        }
        let mut end = start;
        if matches!(bytes[end], b'(' | b')' | b'{' | b'}') {
            return Ok(Some((start, end + 1)));
        }
        while end < bytes.len() {
            match bytes[end] {
                b' ' | b'\n' | b'\t' | b'(' | b')' | b'{' | b'}' => break,
                b'\\' => {
                    // The escaped character may be of several bytes: step over all of it.
                    let next = self.text[end + 1..].chars().next().ok_or(ReadError::Truncated)?;
                    end += 1 + next.len_utf8();
                }
                _ => end += 1,
            }
        }
        Ok(Some((start, end)))
    }

    fn peek(&self) -> Result<Option<&'a str>, ReadError> {
        Ok(self.token_at()?.map(|(start, end)| &self.text[start..end]))
    }

    fn next(&mut self) -> Result<&'a str, ReadError> {
        let (start, end) = self.token_at()?.ok_or(ReadError::Truncated)?;
        self.at = end;
        Ok(&self.text[start..end])
    }

    fn unexpected(&self, token: &str) -> ReadError {
        ReadError::Unexpected { found: token.chars().take(40).collect(), at: self.at }
    }

    fn count(&mut self) -> Result<(), ReadError> {
        self.left = self.left.checked_sub(1).ok_or(ReadError::TooMany)?;
        Ok(())
    }

    fn item(&mut self, depth: usize) -> Result<Item<'a>, ReadError> {
        if depth > self.limits.depth {
            return Err(ReadError::TooDeep);
        }
        self.count()?;
        let token = self.next()?;
        match token {
            "{" => self.node(depth),
            "(" => self.list(depth),
            ")" | "}" => Err(self.unexpected(token)),
            "<>" => Ok(Item::Null),
            _ => Ok(Item::Token(token)),
        }
    }

    fn node(&mut self, depth: usize) -> Result<Item<'a>, ReadError> {
        let name = self.next()?;
        if !name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_') {
            return Err(self.unexpected(name));
        }
        let mut fields = Vec::with_capacity(12);
        loop {
            let token = self.next()?;
            if token == "}" {
                break;
            }
            let Some(field) = token.strip_prefix(':') else { return Err(self.unexpected(token)) };
            if field.is_empty() {
                return Err(self.unexpected(token));
            }
            let value = match self.item(depth + 1)? {
                // A datum: its length, then its bytes in brackets.
                Item::Token(length) if self.peek()? == Some("[") => self.datum(length)?,
                other => other,
            };
            fields.push((field, value));
        }
        Ok(Item::Node(Node { name, fields }))
    }

    fn datum(&mut self, length: &str) -> Result<Item<'a>, ReadError> {
        let declared: usize = length.parse().map_err(|_| self.unexpected(length))?;
        let open = self.next()?;
        if open != "[" {
            return Err(self.unexpected(open));
        }
        let mut bytes = Vec::new();
        loop {
            let token = self.next()?;
            if token == "]" {
                break;
            }
            // Printed as C `char`: signed on most machines, unsigned on some.
            let value: i16 = token.parse().map_err(|_| self.unexpected(token))?;
            if !(-128..=255).contains(&value) {
                return Err(self.unexpected(token));
            }
            bytes.push((value & 0xff) as u8);
        }
        // By value: a whole Datum of eight bytes whatever the type's own length.
        if bytes.len() != declared && !(bytes.len() == 8 && declared <= 8) {
            return Err(self.unexpected(length));
        }
        Ok(Item::Datum(declared, bytes))
    }

    fn list(&mut self, depth: usize) -> Result<Item<'a>, ReadError> {
        let kind = match self.peek()? {
            Some("i") => ListKind::Ints,
            Some("o") => ListKind::Oids,
            Some("x") => ListKind::Xids,
            Some("b") => ListKind::Bits,
            _ => ListKind::Values,
        };
        if kind != ListKind::Values {
            self.next()?;
        }
        let mut items = Vec::new();
        loop {
            match self.peek()? {
                None => return Err(ReadError::Truncated),
                Some(")") => {
                    self.next()?;
                    break;
                }
                Some(_) if kind == ListKind::Values => items.push(self.item(depth + 1)?),
                Some(token) => {
                    self.count()?;
                    self.next()?;
                    if token.parse::<i64>().is_err() {
                        return Err(self.unexpected(token));
                    }
                    items.push(Item::Token(token));
                }
            }
        }
        Ok(Item::List(kind, items))
    }
}

impl<'a> Item<'a> {
    /// The text of a token without its escapes, and without the quotes of a string value. None for other kinds.
    pub fn text(&self) -> Option<Cow<'a, str>> {
        let Item::Token(raw) = *self else { return None };
        let raw = match raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(inner) => inner,
            None => raw,
        };
        if !raw.contains('\\') {
            return Some(Cow::Borrowed(raw));
        }
        let mut out = String::with_capacity(raw.len());
        let mut chars = raw.chars();
        while let Some(c) = chars.next() {
            match c {
                '\\' => out.extend(chars.next()),
                c => out.push(c),
            }
        }
        Some(Cow::Owned(out))
    }

    pub fn as_node(&self) -> Option<&Node<'a>> {
        match self {
            Item::Node(node) => Some(node),
            _ => None,
        }
    }
}

impl<'a> Node<'a> {
    /// The value of the first field of that name.
    pub fn get(&self, field: &str) -> Option<&Item<'a>> {
        self.fields.iter().find(|(name, _)| *name == field).map(|(_, item)| item)
    }

    pub fn fields(&self) -> impl Iterator<Item = (&'a str, &Item<'a>)> {
        self.fields.iter().map(|(name, item)| (*name, item))
    }

    fn wrong(&self, field: &'static str) -> ReadError {
        ReadError::Field(field, self.name.to_owned())
    }

    fn parsed<T: std::str::FromStr>(&self, field: &'static str) -> Result<T, ReadError> {
        match self.get(field) {
            Some(Item::Token(token)) => token.parse().map_err(|_| self.wrong(field)),
            _ => Err(self.wrong(field)),
        }
    }

    /// A number field that must be present.
    pub fn int(&self, field: &'static str) -> Result<i64, ReadError> {
        self.parsed(field)
    }

    /// A 16-bit number field that must be present.
    pub fn int2(&self, field: &'static str) -> Result<i16, ReadError> {
        self.parsed(field)
    }

    /// A 32-bit number field that must be present.
    pub fn int4(&self, field: &'static str) -> Result<i32, ReadError> {
        self.parsed(field)
    }

    /// An OID or other unsigned field that must be present.
    pub fn oid(&self, field: &'static str) -> Result<u32, ReadError> {
        self.parsed(field)
    }

    /// A boolean field that must be present.
    pub fn bool(&self, field: &'static str) -> Result<bool, ReadError> {
        match self.get(field) {
            Some(Item::Token("true")) => Ok(true),
            Some(Item::Token("false")) => Ok(false),
            _ => Err(self.wrong(field)),
        }
    }

    /// One character that C prints with `%c`.
    pub fn char(&self, field: &'static str) -> Result<char, ReadError> {
        match self.get(field).and_then(Item::text) {
            Some(text) if text.chars().count() == 1 => Ok(text.chars().next().unwrap_or('\0')),
            _ => Err(self.wrong(field)),
        }
    }

    /// A text field; None where it is NULL.
    pub fn name(&self, field: &'static str) -> Result<Option<String>, ReadError> {
        match self.get(field) {
            Some(Item::Null) => Ok(None),
            Some(item) => item.text().map(|t| Some(t.into_owned())).ok_or_else(|| self.wrong(field)),
            None => Err(self.wrong(field)),
        }
    }

    /// A list of values, empty where it is NULL.
    pub fn list(&self, field: &'static str) -> Result<&[Item<'a>], ReadError> {
        match self.get(field) {
            Some(Item::Null) => Ok(&[]),
            Some(Item::List(ListKind::Values, items)) => Ok(items),
            _ => Err(self.wrong(field)),
        }
    }

    /// A list of integers, OIDs or the members of a bitmap set, empty where it is NULL.
    pub fn numbers(&self, field: &'static str) -> Result<Vec<i64>, ReadError> {
        match self.get(field) {
            Some(Item::Null) => Ok(Vec::new()),
            Some(Item::List(kind, items)) if *kind != ListKind::Values || items.is_empty() => items
                .iter()
                .map(|item| item.text().and_then(|t| t.parse().ok()).ok_or_else(|| self.wrong(field)))
                .collect(),
            _ => Err(self.wrong(field)),
        }
    }

    /// Whether a field is present and neither NULL nor an empty list.
    pub fn has(&self, field: &str) -> bool {
        match self.get(field) {
            None | Some(Item::Null) => false,
            Some(Item::List(_, items)) => !items.is_empty(),
            Some(_) => true,
        }
    }
}
