//! `docs/compatibility.md`: the registry as a page, made by `watershed compatibility`. ✗ judging.

use super::{Entry, entries};
use std::fmt::Write as _;

const HEAD: &str = "\
# What the lake may answer

Made by `watershed compatibility` from the table in `gateway/src/analyze/registry`, which decides; `SELECT * FROM watershed.functions` shows the same.
Whatever is not listed here is PostgreSQL's, and everything on this page is too: the lake only answers where the answer is the same to
the byte. A statement is the lake's if all of it is. `EXPLAIN` and `watershed.queries` name what kept a statement from it.

- **same**: always the same value, or the same error.
- **same if**: under the condition named; else PostgreSQL answers.
- **never**: PostgreSQL answers, for the reason named.
";

/// The page.
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    let all = entries();
    for (kind, title) in [
        ("operator", "Operators"),
        ("function", "Functions"),
        ("aggregate", "Aggregates"),
        ("cast", "Casts through text"),
    ] {
        let mut rows: Vec<&Entry> = all.iter().filter(|e| e.kind == kind).collect();
        rows.sort_by(|a, b| (&a.name, &a.signature, a.oid).cmp(&(&b.name, &b.signature, b.oid)));
        // Writing to a String cannot fail.
        let _ = writeln!(page, "\n## {title}\n\n| {kind} | gives | lake | |\n| --- | --- | --- | --- |");
        for row in rows {
            let signature = row.signature.replace('|', "\\|");
            let _ = writeln!(page, "| `{signature}` | {} | {} | {} |", row.result, row.lake, row.reason);
        }
    }
    page
}
