//! What postgres_fdw sends, read: the few statements around a cursor, and the shape of a plain scan. Pure. ✗ values of rows, I/O.
//!
//! Nothing here decides what an expression means. A condition is either one of the few whose meaning is a comparison of a column with a
//! constant ([`comparison`]), or a text that PostgreSQL itself is asked about, once [`vet`] has found nothing in it but operators and
//! immutable built-in functions over the table's columns.

use std::collections::HashSet;

/// What a piece of a statement is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// An unquoted word, in lower case.
    Word(String),
    /// An identifier in double quotes, or nothing else.
    Quoted(String),
    /// The value of a string constant.
    Text(String),
    Number,
    Param(usize),
    /// An operator, `::` or a single sign.
    Sign,
}

/// A piece of a statement, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
}

impl Token {
    fn word(&self) -> Option<&str> {
        match &self.kind {
            Kind::Word(w) => Some(w),
            _ => None,
        }
    }

    /// The name, if it may be one.
    fn name(&self) -> Option<&str> {
        match &self.kind {
            Kind::Word(w) | Kind::Quoted(w) => Some(w),
            _ => None,
        }
    }

    fn is(&self, sql: &str, sign: &str) -> bool {
        self.kind == Kind::Sign && &sql[self.start..self.end] == sign
    }
}

const OPERATORS: &[u8] = b"+-*/<>=~!@#%^&|`?";

/// Cuts a statement into its pieces; `None`: it holds something that postgres_fdw does not write (comments, dollar quotes).
pub fn tokens(sql: &str) -> Option<Vec<Token>> {
    let bytes = sql.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    let run = |from: usize, test: &dyn Fn(u8) -> bool| {
        bytes[from..].iter().position(|b| !test(*b)).map_or(bytes.len(), |n| from + n)
    };
    while at < bytes.len() {
        let start = at;
        let b = bytes[at];
        let kind = match b {
            b' ' | b'\t' | b'\n' | b'\r' => {
                at += 1;
                continue;
            }
            b'\'' => {
                let (text, end) = string(sql, at + 1, false)?;
                at = end;
                Kind::Text(text)
            }
            b'E' | b'e' if bytes.get(at + 1) == Some(&b'\'') => {
                let (text, end) = string(sql, at + 2, true)?;
                at = end;
                Kind::Text(text)
            }
            b'"' => {
                let mut name = String::new();
                at += 1;
                loop {
                    let end = at + sql[at..].find('"')?;
                    name.push_str(&sql[at..end]);
                    at = end + 1;
                    if bytes.get(at) != Some(&b'"') {
                        break;
                    }
                    name.push('"');
                    at += 1;
                }
                Kind::Quoted(name)
            }
            b'$' => {
                at = run(at + 1, &|b| b.is_ascii_digit());
                Kind::Param(sql[start + 1..at].parse().ok()?)
            }
            b'0'..=b'9' => {
                at = run(at, &|b| b.is_ascii_digit() || b == b'.');
                if matches!(bytes.get(at), Some(b'e' | b'E')) {
                    let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
                    at = run(at + 1 + sign, &|b| b.is_ascii_digit());
                }
                Kind::Number
            }
            b if b.is_ascii_alphabetic() || b == b'_' || b >= 0x80 => {
                at = run(at, &|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'$' || b >= 0x80);
                Kind::Word(sql[start..at].to_ascii_lowercase())
            }
            b':' if bytes.get(at + 1) == Some(&b':') => {
                at += 2;
                Kind::Sign
            }
            b if OPERATORS.contains(&b) => {
                at = run(at, &|b| OPERATORS.contains(&b));
                if sql[start..at].contains("--") || sql[start..at].contains("/*") {
                    return None;
                }
                Kind::Sign
            }
            b'(' | b')' | b',' | b'.' | b';' | b'[' | b']' | b':' => {
                at += 1;
                Kind::Sign
            }
            _ => return None,
        };
        tokens.push(Token { kind, start, end: at });
    }
    Some(tokens)
}

/// The value of a string constant whose first quote stands before `at`, and where it ends. postgres_fdw doubles quotes and backslashes.
fn string(sql: &str, mut at: usize, escapes: bool) -> Option<(String, usize)> {
    let mut text = String::new();
    loop {
        let rest = sql.get(at..)?;
        let c = rest.chars().next()?;
        at += c.len_utf8();
        match c {
            '\'' if sql[at..].starts_with('\'') => {
                text.push('\'');
                at += 1;
            }
            '\'' => return Some((text, at)),
            '\\' if escapes => {
                if !sql[at..].starts_with('\\') {
                    return None;
                }
                text.push('\\');
                at += 1;
            }
            c => text.push(c),
        }
    }
}

/// A string constant, as postgres_fdw would write it.
pub fn quoted(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') {
        format!("E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}

/// The statement with the values of its parameters in their places. `None`: one is missing.
pub fn with_params(sql: &str, params: &[Option<String>]) -> Option<String> {
    let mut out = String::with_capacity(sql.len());
    let mut from = 0;
    for token in tokens(sql)? {
        if let Kind::Param(n) = token.kind {
            out.push_str(&sql[from..token.start]);
            match params.get(n.checked_sub(1)?)? {
                Some(value) => out.push_str(&quoted(value)),
                None => out.push_str("NULL"),
            }
            from = token.end;
        }
    }
    out.push_str(&sql[from..]);
    Some(out)
}

/// A statement that the door knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    Set,
    Begin,
    Commit,
    Abort,
    Savepoint(String),
    Release(String),
    RollbackTo(String),
    DeallocateAll,
    Declare {
        cursor: String,
        query: String,
    },
    Fetch {
        cursor: String,
        rows: usize,
    },
    Rewind {
        cursor: String,
    },
    Close {
        cursor: String,
    },
    /// How many pages the relation has: ANALYZE.
    Pages {
        relation: String,
    },
}

/// The statements of a text; the error is the first that is not known.
pub fn statements(sql: &str) -> Result<Vec<Statement>, String> {
    let tokens = tokens(sql).ok_or_else(|| sql.to_owned())?;
    let parts = tokens.split(|t| t.is(sql, ";")).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            statement(sql, part).ok_or_else(|| sql[part[0].start..part[part.len() - 1].end].to_owned())
        })
        .collect()
}

fn statement(sql: &str, tokens: &[Token]) -> Option<Statement> {
    let words: Vec<&str> = tokens.iter().map(|t| t.word().unwrap_or("")).collect();
    let cursor = |t: &Token| t.name().map(str::to_owned);
    Some(match (words.as_slice(), tokens) {
        (["set", name, "", ..], [_, _, equals, value]) if equals.is(sql, "=") => {
            let value = match &value.kind {
                Kind::Number => sql[value.start..value.end].to_owned(),
                Kind::Word(v) | Kind::Quoted(v) | Kind::Text(v) => v.to_ascii_lowercase(),
                _ => return None,
            };
            // What is written here is written so; nothing else is promised.
            let wanted: &[&str] = match *name {
                "search_path" => &["pg_catalog"],
                "timezone" => &["utc", "gmt"],
                "datestyle" => &["iso"],
                "intervalstyle" => &["postgres"],
                "extra_float_digits" => &["3"],
                _ => return None,
            };
            wanted.contains(&value.as_str()).then_some(Statement::Set)?
        }
        (["start", "transaction", "isolation", "level", level @ ..], _) => {
            let level: Vec<&str> = level.iter().copied().filter(|w| !w.is_empty()).collect();
            let known = [&["repeatable", "read"][..], &["serializable"]].iter().any(|l| {
                level.strip_prefix(*l).is_some_and(|more| {
                    more.iter().all(|w| ["read", "only", "write", "deferrable", "not"].contains(w))
                })
            });
            known.then_some(Statement::Begin)?
        }
        (["commit"] | ["commit", "transaction"], _) => Statement::Commit,
        (["abort"] | ["abort", "transaction"] | ["rollback"], _) => Statement::Abort,
        (["savepoint", _], [_, name]) => Statement::Savepoint(cursor(name)?),
        (["release", "savepoint", _], [.., name]) => Statement::Release(cursor(name)?),
        (["rollback", "to", "savepoint", _], [.., name]) => Statement::RollbackTo(cursor(name)?),
        (["deallocate", "all"], _) => Statement::DeallocateAll,
        (["declare", _, "cursor", "for", "select", ..], _) => Statement::Declare {
            cursor: cursor(&tokens[1])?,
            query: sql[tokens[4].start..tokens[tokens.len() - 1].end].to_owned(),
        },
        (["fetch", "", "from", _], [_, rows, _, name]) if rows.kind == Kind::Number => {
            Statement::Fetch { cursor: cursor(name)?, rows: sql[rows.start..rows.end].parse().ok()? }
        }
        (["move", "backward", "all", "in", _], [.., name]) => Statement::Rewind { cursor: cursor(name)? },
        (["close", _], [_, name]) => Statement::Close { cursor: cursor(name)? },
        (
            [
                "select",
                "pg_catalog",
                "",
                "pg_relation_size",
                "",
                "",
                "",
                "pg_catalog",
                "",
                "regclass",
                "",
                "",
                "",
            ],
            _,
        ) if tokens[11].is(sql, "/") => {
            let Kind::Text(relation) = &tokens[5].kind else { return None };
            Statement::Pages { relation: relation.clone() }
        }
        _ => return None,
    })
}

/// The schema in which the door's relations stand.
pub const SCHEMA: &str = "watershed_cold";

/// The table that a relation of the door stands for: its number ends the name.
pub fn relid(name: &str) -> Option<u32> {
    name.rsplit_once('_')?.1.parse().ok()
}

/// As `relid`, of a name with its schema, quoted or not.
pub fn qualified_relid(name: &str) -> Option<u32> {
    match tokens(name)?.as_slice() {
        [schema, dot, name_token] if schema.name() == Some(SCHEMA) && dot.is(name, ".") => {
            relid(name_token.name()?)
        }
        _ => None,
    }
}

/// An output of a plain scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Column(String),
    /// `ctid`, which rows of files do not have, or nothing at all.
    Null,
}

/// A column that rows are sorted by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub column: String,
    pub ascending: bool,
    pub nulls_first: bool,
}

/// `SELECT columns FROM relation WHERE condition AND ... ORDER BY column, ...`: what nearly every scan is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    pub relid: u32,
    pub outputs: Vec<Output>,
    /// Each in parentheses.
    pub conditions: Vec<String>,
    pub order: Vec<Key>,
}

/// Where the query's clauses end and its row locks begin, which have no meaning for rows that never change.
fn before_locks<'t>(sql: &str, tokens: &'t [Token]) -> &'t [Token] {
    let mut depth = 0_usize;
    for (i, t) in tokens.iter().enumerate() {
        if t.is(sql, "(") {
            depth += 1;
        } else if t.is(sql, ")") {
            depth = depth.saturating_sub(1);
        } else if depth == 0
            && t.word() == Some("for")
            && tokens.get(i + 1).and_then(Token::word).is_some_and(|w| w == "update" || w == "share")
        {
            return &tokens[..i];
        }
    }
    tokens
}

/// Reads a plain scan; `None`: it is something else.
pub fn scan(sql: &str) -> Option<Scan> {
    let all = tokens(sql)?;
    let tokens = before_locks(sql, &all);
    let (first, mut rest) = tokens.split_first()?;
    if first.word() != Some("select") {
        return None;
    }
    let mut outputs = Vec::new();
    loop {
        let (output, after) = rest.split_first()?;
        outputs.push(match &output.kind {
            Kind::Word(w) if w == "null" || w == "ctid" => Output::Null,
            Kind::Word(w) | Kind::Quoted(w) => Output::Column(w.clone()),
            _ => return None,
        });
        let (next, after) = after.split_first()?;
        rest = after;
        match next.word() {
            Some("from") => break,
            None if next.is(sql, ",") => {}
            _ => return None,
        }
    }
    let [schema, dot, name, rest @ ..] = rest else { return None };
    if schema.name() != Some(SCHEMA) || !dot.is(sql, ".") {
        return None;
    }
    let relid = relid(name.name()?)?;
    let (conditions, rest) = conditions(sql, rest)?;
    let order = match rest.split_first() {
        None => Vec::new(),
        Some((keyword, [by, keys @ ..])) if keyword.word() == Some("order") && by.word() == Some("by") => {
            keys.split(|t| t.is(sql, ",")).map(key).collect::<Option<_>>()?
        }
        Some(_) => return None,
    };
    Some(Scan { relid, outputs, conditions, order })
}

/// The conditions of a WHERE clause, if one begins here, and what follows it.
fn conditions<'t>(sql: &str, tokens: &'t [Token]) -> Option<(Vec<String>, &'t [Token])> {
    let mut found = Vec::new();
    let Some((_, mut rest)) = tokens.split_first().filter(|(t, _)| t.word() == Some("where")) else {
        return Some((found, tokens));
    };
    loop {
        let length = group(sql, rest)?;
        found.push(sql[rest[0].start..rest[length - 1].end].to_owned());
        rest = &rest[length..];
        match rest.split_first() {
            Some((and, after)) if and.word() == Some("and") => rest = after,
            _ => return Some((found, rest)),
        }
    }
}

/// `column ASC NULLS LAST`.
fn key(tokens: &[Token]) -> Option<Key> {
    let [column, direction, nulls, place] = tokens else { return None };
    let column = match &column.kind {
        Kind::Word(name) | Kind::Quoted(name) => name.clone(),
        _ => return None,
    };
    let ascending = match direction.word()? {
        "asc" => true,
        "desc" => false,
        _ => return None,
    };
    let nulls_first = match (nulls.word()?, place.word()?) {
        ("nulls", "first") => true,
        ("nulls", "last") => false,
        _ => return None,
    };
    Some(Key { column, ascending, nulls_first })
}

/// The conditions that every row of the query's only relation must fulfil; none where there are several.
pub fn filters(sql: &str) -> Vec<String> {
    let Some(all) = tokens(sql) else { return Vec::new() };
    let tokens = before_locks(sql, &all);
    let alone = tokens.iter().filter(|t| t.name() == Some(SCHEMA)).count() == 1;
    let mut depth = 0_usize;
    for (i, t) in tokens.iter().enumerate() {
        if t.is(sql, "(") {
            depth += 1;
        } else if t.is(sql, ")") {
            depth = depth.saturating_sub(1);
        } else if alone && depth == 0 && t.word() == Some("where") {
            // Behind `FROM schema.relation` and nothing else.
            let plain =
                i >= 4 && tokens[i - 4].word() == Some("from") && tokens[i - 3].name() == Some(SCHEMA);
            return conditions(sql, &tokens[i..])
                .filter(|_| plain)
                .map(|(found, _)| found)
                .unwrap_or_default();
        }
    }
    Vec::new()
}

/// How many tokens the parenthesis takes that the tokens begin with.
fn group(sql: &str, tokens: &[Token]) -> Option<usize> {
    let mut depth = 0_usize;
    for (i, t) in tokens.iter().enumerate() {
        if t.is(sql, "(") {
            depth += 1;
        } else if t.is(sql, ")") {
            depth = depth.checked_sub(1)?;
        }
        if depth == 0 {
            return (i > 0).then_some(i + 1);
        }
    }
    None
}

/// A condition that compares a column with a constant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    pub column: String,
    pub operator: String,
    /// As text; of the column's own type unless `label` says otherwise.
    pub value: String,
    /// The type that the constant is cast to.
    pub label: Option<String>,
}

/// Reads a condition that is a comparison; `None`: it is something else.
pub fn comparison(condition: &str) -> Option<Comparison> {
    let all = tokens(condition)?;
    let mut tokens = all.as_slice();
    while let [open, inner @ .., close] = tokens {
        if !(open.is(condition, "(")
            && close.is(condition, ")")
            && group(condition, tokens) == Some(tokens.len()))
        {
            break;
        }
        tokens = inner;
    }
    let [column, operator, rest @ ..] = tokens else { return None };
    let sign = &condition[operator.start..operator.end];
    if operator.kind != Kind::Sign || !["=", "<>", "<", "<=", ">", ">="].contains(&sign) {
        return None;
    }
    let (value, rest) = match rest {
        [open, minus, number, close, rest @ ..]
            if open.is(condition, "(")
                && minus.is(condition, "-")
                && number.kind == Kind::Number
                && close.is(condition, ")") =>
        {
            (format!("-{}", &condition[number.start..number.end]), rest)
        }
        [value, rest @ ..] => match &value.kind {
            Kind::Number => (condition[value.start..value.end].to_owned(), rest),
            Kind::Text(text) => (text.clone(), rest),
            _ => return None,
        },
        [] => return None,
    };
    let label = match rest {
        [] => None,
        [cast, first, ..] if cast.is(condition, "::") && rest[1..].iter().all(|t| t.word().is_some()) => {
            Some(condition[first.start..rest[rest.len() - 1].end].to_ascii_lowercase())
        }
        _ => return None,
    };
    Some(Comparison { column: column.name()?.to_owned(), operator: sign.to_owned(), value, label })
}

/// The names in a text that may be columns.
pub fn names(sql: &str) -> HashSet<String> {
    tokens(sql).unwrap_or_default().iter().filter_map(|t| t.name().map(str::to_owned)).collect()
}

/// Words that may stand before a parenthesis and are no function.
const BEFORE_PARENTHESIS: [&str; 33] = [
    "and", "or", "not", "any", "all", "some", "in", "row", "array", "when", "then", "else", "case", "is",
    "from", "where", "select", "on", "join", "by", "having", "operator", "values", "exists", "using",
    "filter", "within", "group", "over", "distinct", "between", "limit", "offset",
];
/// Words that a query of the door does not hold.
const FOREIGN: [&str; 14] = [
    "insert",
    "update",
    "delete",
    "merge",
    "copy",
    "into",
    "create",
    "drop",
    "alter",
    "table",
    "returning",
    "with",
    "lateral",
    "tablesample",
];

/// Says what in a text PostgreSQL may not be asked about on behalf of a statement: functions that are not in `functions`, relations that
/// are not the door's, and everything but queries. postgres_fdw ships immutable built-in functions only, so that this is the second lock.
pub fn vet(sql: &str, functions: &HashSet<String>, columns: &HashSet<String>) -> Result<(), String> {
    let tokens = tokens(sql).ok_or("it cannot be read")?;
    let mut at = 0;
    while let Some(t) = tokens.get(at) {
        at += 1;
        if t.is(sql, ";") {
            return Err("several statements".into());
        }
        if t.is(sql, "::") {
            at = after_type(sql, &tokens, at);
            continue;
        }
        let Some(name) = t.name() else { continue };
        let is_word = t.word().is_some();
        if is_word && FOREIGN.contains(&name) && !columns.contains(name) {
            return Err(format!("the word {name}"));
        }
        let next = tokens.get(at);
        let opens = next.is_some_and(|n| n.is(sql, "("));
        if is_word
            && (name == "from" || name == "join")
            && !(name == "from" && at >= 2 && tokens[at - 2].word() == Some("distinct"))
        {
            let known = next.is_some_and(|n| n.is(sql, "(") || n.name() == Some(SCHEMA));
            if !known {
                return Err("a relation that is not the door's".into());
            }
        }
        if opens
            && !(is_word && BEFORE_PARENTHESIS.contains(&name))
            && !functions.contains(name)
            && !is_alias(&tokens, at - 1)
        {
            return Err(format!("function {name}"));
        }
    }
    Ok(())
}

/// `(...) s1 (c1, c2)`: a name of a subquery, before the names of its columns.
fn is_alias(tokens: &[Token], at: usize) -> bool {
    let numbered = |t: &Token| {
        t.word().is_some_and(|w| {
            w.len() > 1 && w.starts_with(['s', 'r']) && w[1..].bytes().all(|b| b.is_ascii_digit())
        })
    };
    tokens.get(at).is_some_and(numbered)
}

/// The place behind the type that begins at `at`.
fn after_type(sql: &str, tokens: &[Token], mut at: usize) -> usize {
    if tokens.get(at + 1).is_some_and(|t| t.is(sql, ".")) {
        at += 2;
    }
    let first = tokens.get(at).and_then(Token::word).unwrap_or("").to_owned();
    at += 1;
    if ["character", "double", "timestamp", "time", "bit"].contains(&first.as_str()) {
        loop {
            let more = tokens.get(at).and_then(Token::word);
            if more.is_some_and(|w| ["varying", "precision", "with", "without", "time", "zone"].contains(&w))
            {
                at += 1;
            } else if tokens.get(at).is_some_and(|t| t.is(sql, "(")) {
                at += group(sql, &tokens[at..]).unwrap_or(1);
            } else {
                return at;
            }
        }
    }
    if tokens.get(at).is_some_and(|t| t.is(sql, "(")) {
        at += group(sql, &tokens[at..]).unwrap_or(1);
    }
    at
}

/// The relations of the door that a query names, and the query with each of them called what `rename` says, its row locks left out.
pub fn with_relations(sql: &str, rename: &mut dyn FnMut(u32) -> String) -> Option<String> {
    let all = tokens(sql)?;
    let tokens = before_locks(sql, &all);
    let end = tokens.last()?.end;
    let mut out = String::with_capacity(sql.len());
    let mut from = 0;
    for (i, t) in tokens.iter().enumerate() {
        if t.name() == Some(SCHEMA)
            && let (Some(dot), Some(name)) = (tokens.get(i + 1), tokens.get(i + 2))
            && dot.is(sql, ".")
        {
            out.push_str(&sql[from..t.start]);
            out.push_str(&rename(relid(name.name()?)?));
            from = name.end;
        }
    }
    out.push_str(&sql[from..end]);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_postgres_fdw_says_around_a_cursor_is_known() {
        for (sql, expected) in [
            ("SET search_path = pg_catalog", Statement::Set),
            ("SET timezone = 'GMT'", Statement::Set),
            ("SET datestyle = ISO", Statement::Set),
            ("SET extra_float_digits = 3", Statement::Set),
            ("START TRANSACTION ISOLATION LEVEL REPEATABLE READ", Statement::Begin),
            ("START TRANSACTION ISOLATION LEVEL SERIALIZABLE", Statement::Begin),
            ("COMMIT TRANSACTION", Statement::Commit),
            ("ABORT TRANSACTION", Statement::Abort),
            ("SAVEPOINT s2", Statement::Savepoint("s2".into())),
            ("FETCH 100 FROM c1", Statement::Fetch { cursor: "c1".into(), rows: 100 }),
            ("MOVE BACKWARD ALL IN c1", Statement::Rewind { cursor: "c1".into() }),
            ("CLOSE c1", Statement::Close { cursor: "c1".into() }),
            (
                "SELECT pg_catalog.pg_relation_size('watershed_cold.t_5'::pg_catalog.regclass) / 8192",
                Statement::Pages { relation: "watershed_cold.t_5".into() },
            ),
        ] {
            assert_eq!(statements(sql), Ok(vec![expected]), "{sql}");
        }
        let two = statements("ROLLBACK TO SAVEPOINT s2; RELEASE SAVEPOINT s2").unwrap();
        assert_eq!(two, [Statement::RollbackTo("s2".into()), Statement::Release("s2".into())]);
    }

    #[test]
    fn nothing_else_is() {
        for sql in [
            "SELECT 1",
            "SET role = postgres",
            "SET datestyle = German",
            "SET search_path = public",
            "BEGIN",
            "START TRANSACTION ISOLATION LEVEL READ COMMITTED",
            "INSERT INTO watershed_cold.t_5(a) VALUES ($1)",
            "DELETE FROM watershed_cold.t_5",
            "DECLARE c1 CURSOR WITH HOLD FOR SELECT 1",
            "FETCH ALL FROM c1",
            "CLOSE c1; SELECT 1",
            "CLOSE c1 -- really",
            "PREPARE TRANSACTION 'x'",
        ] {
            assert!(statements(sql).is_err(), "{sql}");
        }
    }

    #[test]
    fn a_plain_scan_is_read() {
        let sql = "SELECT id, \"Na\"\"me\", ctid FROM watershed_cold.\"t_16_77\" WHERE ((id = 3)) AND ((kind = 'a'' AND (b'::text)) FOR UPDATE";
        let scan = scan(sql).unwrap();
        assert_eq!(scan.relid, 77);
        assert_eq!(
            scan.outputs,
            [Output::Column("id".into()), Output::Column("Na\"me".into()), Output::Null]
        );
        assert_eq!(scan.conditions, ["((id = 3))", "((kind = 'a'' AND (b'::text))"]);
        let sorted = super::scan("SELECT id FROM watershed_cold.t_7 WHERE ((id < 9)) ORDER BY \"Id\" ASC NULLS LAST, ts DESC NULLS FIRST").unwrap();
        let key = |column: &str, ascending| Key { column: column.into(), ascending, nulls_first: !ascending };
        assert_eq!(
            (sorted.order, sorted.conditions),
            (vec![key("Id", true), key("ts", false)], vec!["((id < 9))".to_owned()])
        );
        for other in [
            "SELECT id FROM watershed_cold.t_7 ORDER BY lower(id) ASC NULLS LAST",
            "SELECT id FROM watershed_cold.t_7 ORDER BY id USING OPERATOR(pg_catalog.<) NULLS LAST",
            "SELECT id FROM watershed_cold.t_7 ORDER BY id ASC NULLS LAST LIMIT 3",
            "SELECT count(*) FROM watershed_cold.t_7",
            "SELECT id FROM watershed_cold.t_7 LIMIT 3::bigint",
            "SELECT r1.id FROM (watershed_cold.t_7 r1 INNER JOIN watershed_cold.t_8 r2 ON (((r1.id = r2.id))))",
            "SELECT id FROM pg_authid",
            "SELECT id FROM watershed_cold.t_7 WHERE (id = 3) OR (id = 4)",
        ] {
            assert_eq!(super::scan(other), None, "{other}");
        }
    }

    #[test]
    fn what_every_row_must_fulfil_is_found() {
        assert_eq!(
            filters("SELECT count(*) FROM watershed_cold.t_7 WHERE ((a = 1)) AND ((b = 2)) GROUP BY 1"),
            ["((a = 1))", "((b = 2))"]
        );
        for none in [
            "SELECT count(*) FROM watershed_cold.t_7",
            "SELECT 1 FROM (watershed_cold.t_7 r1 INNER JOIN watershed_cold.t_7 r2 ON (TRUE)) WHERE ((r1.a = 1))",
            "SELECT c1 FROM (SELECT a FROM watershed_cold.t_7 WHERE ((a = 1))) s1(c1)",
            "SELECT a FROM watershed_cold.t_7 r1 WHERE ((a = 1))",
        ] {
            assert_eq!(filters(none), Vec::<String>::new(), "{none}");
        }
    }

    #[test]
    fn a_comparison_is_read_only_if_it_is_one() {
        let c = comparison("((id >= (-3)))").unwrap();
        assert_eq!(
            (c.column.as_str(), c.operator.as_str(), c.value.as_str(), c.label),
            ("id", ">=", "-3", None)
        );
        let c = comparison("((ts < '2026-01-01 00:00:00+01'::timestamp with time zone))").unwrap();
        assert_eq!(c.label.as_deref(), Some("timestamp with time zone"));
        assert_eq!(comparison("((kind = E'a\\\\b'))").unwrap().value, "a\\b");
        for other in [
            "((id = 3) OR (id = 4))",
            "((id + 1) = 3)",
            "(flag)",
            "((id IS NULL))",
            "((kind ~~ 'a%'))",
            "((id = n))",
            "((lower(kind) = 'a'))",
        ] {
            assert_eq!(comparison(other), None, "{other}");
        }
    }

    #[test]
    fn only_immutable_functions_pass() {
        let functions = HashSet::from(["lower".to_owned(), "count".to_owned()]);
        let columns = HashSet::from(["kind".to_owned(), "table".to_owned()]);
        let vet = |sql: &str| vet(sql, &functions, &columns);
        for fine in [
            "((lower(kind) = 'a'::character varying(3)))",
            "((n = ANY ('{1,2}'::integer[])))",
            "((a IS DISTINCT FROM b))",
            "((kind)::numeric(12,2) > 3)",
            "SELECT count(*) FROM watershed_cold.t_7 r1",
            "SELECT c1 FROM (SELECT kind FROM watershed_cold.t_7) s1(c1)",
            "(\"table\" = 1)",
            "((CASE WHEN (kind = 'a') THEN (1) ELSE 2 END = 2))",
        ] {
            assert_eq!(vet(fine), Ok(()), "{fine}");
        }
        for foul in [
            "((pg_read_file('x') = 'a'))",
            "(\"set_config\"('role', 'x', false) = 'x')",
            "((id = (SELECT 1 FROM pg_authid)))",
            "SELECT 1 FROM watershed_cold.t_7 r1 INNER JOIN pg_authid ON (true)",
            "(true); DROP TABLE x",
            "SELECT 1 INTO x",
        ] {
            assert!(vet(foul).is_err(), "{foul}");
        }
    }

    #[test]
    fn parameters_and_relations_take_their_places() {
        let sql = "SELECT id FROM watershed_cold.t_7 WHERE ((kind = $1::text)) AND ((id = $2::integer)) AND ((x = '$1'))";
        let values = [Some("it's a \\".to_owned()), None];
        let with = with_params(sql, &values).unwrap();
        assert_eq!(
            with,
            "SELECT id FROM watershed_cold.t_7 WHERE ((kind = E'it''s a \\\\'::text)) AND ((id = NULL::integer)) AND ((x = '$1'))"
        );
        assert_eq!(with_params(sql, &values[..1]), None);
        let mut asked = Vec::new();
        let named = with_relations("SELECT a FROM watershed_cold.t_7 ORDER BY a FOR UPDATE", &mut |relid| {
            asked.push(relid);
            "pg_temp.x".into()
        });
        assert_eq!((named.unwrap().as_str(), asked), ("SELECT a FROM pg_temp.x ORDER BY a", vec![7]));
        assert_eq!(qualified_relid("watershed_cold.\"T_9\""), Some(9));
    }
}
