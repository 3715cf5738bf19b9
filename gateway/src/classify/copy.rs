//! The head of a `COPY table FROM` that names no columns. Pure.
//!
//! PostgreSQL would fill all columns then, the provenance of a tiered table among them, which users have no right to. So
//! the gateway names the others. Only what stands before FROM is read here, by PostgreSQL's own rules of names and
//! comments; whatever is read in any other way is left to PostgreSQL as it is.

/// A COPY whose column list is to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyHead {
    /// As PostgreSQL stores it.
    pub schema: Option<String>,
    pub name: String,
    /// Where the list goes: the byte behind the table's name.
    pub at: usize,
}

/// PostgreSQL cuts longer names; where it would, nothing is done.
const MAX_NAME: usize = 63;

/// Reads the head of one statement.
pub fn head(sql: &str) -> Option<CopyHead> {
    let mut reader = Reader { sql, at: 0 };
    reader.keyword("copy")?;
    reader.skip()?;
    // COPY BINARY is the oldest way to ask for the binary format.
    let begin = reader.at;
    if reader.keyword("binary").is_some() {
        reader.skip()?;
        if reader.rest().starts_with('.') {
            reader.at = begin;
        }
    }
    let mut name = reader.name()?;
    let mut at = reader.at;
    reader.skip()?;
    let mut schema = None;
    if reader.rest().starts_with('.') {
        reader.at += 1;
        reader.skip()?;
        schema = Some(std::mem::replace(&mut name, reader.name()?));
        at = reader.at;
        reader.skip()?;
    }
    reader.keyword("from")?;
    Some(CopyHead { schema, name, at })
}

struct Reader<'a> {
    sql: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.sql[self.at..]
    }

    /// Passes spaces and comments. `None` if a comment does not end.
    fn skip(&mut self) -> Option<()> {
        loop {
            let rest = self.rest();
            let spaces = rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0c', '\x0b']).len();
            self.at += spaces;
            let rest = self.rest();
            if rest.starts_with("--") {
                self.at += rest.find(['\n', '\r'])?;
            } else if rest.starts_with("/*") {
                self.at += block_comment(rest)?;
            } else if spaces == 0 {
                return Some(());
            }
        }
    }

    /// Passes an unquoted word, if it is this one in any letter case.
    fn keyword(&mut self, word: &str) -> Option<()> {
        self.skip()?;
        let length = word_length(self.rest());
        let given = &self.rest()[..length];
        if !given.eq_ignore_ascii_case(word) {
            return None;
        }
        self.at += length;
        Some(())
    }

    /// Passes a name, and gives it as PostgreSQL stores it.
    fn name(&mut self) -> Option<String> {
        let rest = self.rest();
        let name = match rest.strip_prefix('"') {
            Some(quoted) => {
                let mut name = String::new();
                let mut left = quoted;
                loop {
                    let (part, after) = left.split_once('"')?;
                    name.push_str(part);
                    match after.strip_prefix('"') {
                        Some(more) => {
                            name.push('"');
                            left = more;
                        }
                        None => {
                            self.at = self.sql.len() - after.len();
                            break name;
                        }
                    }
                }
            }
            None => {
                let length = word_length(rest);
                let word = &rest[..length];
                // Letters beyond ASCII fold as the server's locale says; U&"..." is another way to quote.
                if !word.is_ascii() || rest[length..].starts_with('"') || rest[length..].starts_with('&') {
                    return None;
                }
                self.at += length;
                word.to_ascii_lowercase()
            }
        };
        (!name.is_empty() && name.len() <= MAX_NAME && !name.contains('\0')).then_some(name)
    }
}

/// Bytes of the unquoted word that a text begins with.
fn word_length(text: &str) -> usize {
    let mut bytes = text.bytes();
    let starts = |b: u8| b.is_ascii_alphabetic() || b == b'_' || b >= 0x80;
    if !bytes.next().is_some_and(starts) {
        return 0;
    }
    1 + bytes.take_while(|b| starts(*b) || b.is_ascii_digit() || *b == b'$').count()
}

/// Bytes of the comment that a text begins with; comments nest.
pub(crate) fn block_comment(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(sql: &str) -> Option<(Option<String>, String, &str, &str)> {
        head(sql).map(|h| (h.schema, h.name, &sql[..h.at], &sql[h.at..]))
    }

    #[test]
    fn heads_without_a_list() {
        for (sql, schema, name, before) in [
            ("COPY logs FROM STDIN", None, "logs", "COPY logs"),
            ("copy Logs from stdin with (format csv, header true);", None, "logs", "copy Logs"),
            ("COPY public.logs FROM STDIN DELIMITER ';' CSV", Some("public"), "logs", "COPY public.logs"),
            ("copy \"My \"\"S\".\"T x\"from STDIN", Some("My \"S"), "T x", "copy \"My \"\"S\".\"T x\""),
            ("/* a /* b */ */COPY--c\n\t logs /*x*/ FROM 'file'", None, "logs", "/* a /* b */ */COPY--c\n\t logs"),
            ("COPY BINARY logs FROM STDIN", None, "logs", "COPY BINARY logs"),
            ("COPY public . logs FROM STDIN", Some("public"), "logs", "COPY public . logs"),
            ("COPY\"logs\"FROM STDIN", None, "logs", "COPY\"logs\""),
            ("COPY _l$1 FROM STDIN", None, "_l$1", "COPY _l$1"),
        ] {
            let expected = (schema.map(str::to_owned), name.to_owned(), before, &sql[before.len()..]);
            assert_eq!(split(sql), Some(expected), "{sql}");
        }
    }

    #[test]
    fn everything_else_is_left_alone() {
        let long = format!("COPY {} FROM STDIN", "a".repeat(64));
        for sql in [
            "",
            "COPY",
            "COPY logs",
            "COPY logs (ts, message) FROM STDIN",
            "COPY logs(ts) FROM STDIN",
            "COPY (SELECT 1) TO STDOUT",
            "COPY logs TO STDOUT",
            "COPY db.public.logs FROM STDIN",
            "COPY logs * FROM STDIN",
            "COPY U&\"logs\" FROM STDIN",
            "COPY \"\" FROM STDIN",
            "COPY \"logs FROM STDIN",
            "COPY lögs FROM STDIN",
            "COPY 'logs' FROM STDIN",
            "COPY /* logs FROM STDIN",
            "COPY -- logs FROM STDIN",
            "COPYlogs FROM STDIN",
            "COPY logs FROMSTDIN",
            "SELECT 1",
            &long,
        ] {
            assert_eq!(head(sql), None, "{sql}");
        }
    }
}
