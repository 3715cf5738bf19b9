//! The lines of a `_bulk` body: actions and documents, as byte ranges. Pure.

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

/// More items than this are refused as too large, whatever their bytes.
pub const MAX_ITEMS: usize = 200_000;

/// What an item asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Index,
    Create,
    Update,
    Delete,
}

impl Action {
    pub fn name(self) -> &'static str {
        match self {
            Action::Index => "index",
            Action::Create => "create",
            Action::Update => "update",
            Action::Delete => "delete",
        }
    }
}

/// One action with its document.
#[derive(Debug, PartialEq, Eq)]
pub struct Item {
    pub action: Action,
    pub index: String,
    pub id: Option<String>,
    /// Where the document stands in the body; empty for a delete.
    pub document: Range<usize>,
    /// Line of the document (of the action, for a delete), from 1.
    pub line: u64,
    /// It asks for a version or a sequence number of a document that is there.
    pub conditional: bool,
}

/// Why a body is no bulk request.
#[derive(Debug, PartialEq, Eq)]
pub enum Malformed {
    Wrong(String),
    TooMany,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    index: Option<Meta<'a>>,
    #[serde(borrow)]
    create: Option<Meta<'a>>,
    #[serde(borrow)]
    update: Option<Meta<'a>>,
    #[serde(borrow)]
    delete: Option<Meta<'a>>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow, rename = "_index")]
    index: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "_id")]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    version: Option<&'a RawValue>,
    #[serde(borrow)]
    if_seq_no: Option<&'a RawValue>,
    #[serde(borrow)]
    if_primary_term: Option<&'a RawValue>,
}

/// The items of a body. `index` is the one of the address, for actions that name none.
///
/// # Errors
/// The body as a whole is malformed: nothing of it may be stored.
pub fn parse(body: &[u8], index: Option<&str>) -> Result<Vec<Item>, Malformed> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Malformed::Wrong("request body is required".to_owned()));
    }
    if body.last() != Some(&b'\n') {
        // A document that was cut off may still be whole JSON.
        return Err(Malformed::Wrong("The bulk request must be terminated by a newline [\\n]".to_owned()));
    }
    let mut lines = Lines { body, at: 0, line: 0 };
    let mut items = Vec::new();
    while let Some((range, line)) = lines.next() {
        if body[range.clone()].iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let wrong = |why: &str| Malformed::Wrong(format!("Malformed action/metadata line [{line}]: {why}"));
        let parsed: Line<'_> = serde_json::from_slice(&body[range]).map_err(|e| wrong(&e.to_string()))?;
        let mut given = [
            (Action::Index, parsed.index),
            (Action::Create, parsed.create),
            (Action::Update, parsed.update),
            (Action::Delete, parsed.delete),
        ]
        .into_iter()
        .filter_map(|(action, meta)| Some((action, meta?)));
        let (Some((action, meta)), None) = (given.next(), given.next()) else {
            return Err(wrong("expected one of index, create, update and delete"));
        };
        let index = match (meta.index, index) {
            (Some(named), _) => named.into_owned(),
            (None, Some(default)) => default.to_owned(),
            (None, None) => return Err(wrong("index is missing")),
        };
        let (document, line) = match action {
            Action::Delete => (0..0, line),
            _ => lines.next().ok_or_else(|| wrong("its document is missing"))?,
        };
        if items.len() == MAX_ITEMS {
            return Err(Malformed::TooMany);
        }
        let conditional = [meta.version, meta.if_seq_no, meta.if_primary_term].iter().any(Option::is_some);
        items.push(Item { action, index, id: meta.id.and_then(text), document, line, conditional });
    }
    Ok(items)
}

/// An id as text: a number is one too.
fn text(raw: &RawValue) -> Option<String> {
    match raw.get() {
        "null" => None,
        quoted if quoted.starts_with('"') => serde_json::from_str(quoted).ok(),
        other => Some(other.to_owned()),
    }
}

struct Lines<'a> {
    body: &'a [u8],
    at: usize,
    line: u64,
}

impl Lines<'_> {
    /// The next line without its end, and its number.
    fn next(&mut self) -> Option<(Range<usize>, u64)> {
        if self.at >= self.body.len() {
            return None;
        }
        let start = self.at;
        let end = memchr::memchr(b'\n', &self.body[start..]).map_or(self.body.len(), |n| start + n);
        self.at = end + 1;
        self.line += 1;
        let cut = if end > start && self.body[end - 1] == b'\r' { end - 1 } else { end };
        Some((start..cut, self.line))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn actions_and_documents() {
        let body = b"{\"index\":{\"_index\":\"a\",\"_id\":\"x\\u00e9\",\"_type\":\"_doc\"}}\n{\"n\":1}\r\n\n{\"create\":{}}\n\
            {\"n\":2}\n{\"delete\":{\"_index\":\"b\",\"_id\":7}}\n{\"update\":{\"if_seq_no\":3}}\n{\"doc\":{}}\n";
        let items = parse(body, Some("d")).unwrap();
        let seen: Vec<_> = items
            .iter()
            .map(|i| {
                let document = std::str::from_utf8(&body[i.document.clone()]).unwrap();
                (i.action.name(), i.index.as_str(), i.id.as_deref(), document, i.line, i.conditional)
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("index", "a", Some("xé"), "{\"n\":1}", 2, false),
                ("create", "d", None, "{\"n\":2}", 5, false),
                ("delete", "b", Some("7"), "", 6, false),
                ("update", "d", None, "{\"doc\":{}}", 8, true),
            ]
        );
    }

    #[test]
    fn malformed_bodies_are_refused_whole() {
        for body in [
            "",
            " \n",
            "{\"index\":{\"_index\":\"a\"}}\n{\"n\":1}",
            "{\"index\":{\"_index\":\"a\"}}\n",
            "{\"index\":{}}\n{}\n",
            "{\"frob\":{\"_index\":\"a\"}}\n{}\n",
            "{\"index\":{\"_index\":\"a\"},\"create\":{\"_index\":\"a\"}}\n{}\n",
            "{}\n{}\n",
            "nonsense\n{}\n",
        ] {
            assert!(matches!(parse(body.as_bytes(), None), Err(Malformed::Wrong(_))), "{body:?}");
        }
        let many = "{\"delete\":{\"_index\":\"a\"}}\n".repeat(MAX_ITEMS + 1);
        assert_eq!(parse(many.as_bytes(), None), Err(Malformed::TooMany));
    }

    proptest! {
        /// Whatever the bytes: an answer, and documents within the body.
        #[test]
        fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut whole = b"{\"index\":{\"_index\":\"a\"}}\n".to_vec();
            whole.extend(body);
            whole.push(b'\n');
            if let Ok(items) = parse(&whole, None) {
                for item in items {
                    prop_assert!(whole.get(item.document).is_some());
                }
            }
        }
    }
}
