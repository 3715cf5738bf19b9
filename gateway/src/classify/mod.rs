//! Is this text one statement that could concern a tiered or virtual table, and of a shape that the lake may be
//! better at? Pure and conservative: it only decides whether to probe, PostgreSQL decides what the text means.
//! ✗ catalogs, network, session.

mod cache;
pub(crate) mod copy;
mod shape;

pub use cache::Cache;
pub use copy::CopyHead;

use crate::query::fingerprint;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, Whitespace};
use std::collections::HashMap;
use std::sync::Arc;

/// Longer texts go to PostgreSQL unread.
pub const MAX_TEXT: usize = 256 * 1024;

/// What an unqualified name may stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameKind {
    /// A tiered table.
    Tiered,
    /// A virtual table, or a view that depends on one or on a tiered table.
    View,
}

/// Relation names that make a statement a candidate, lower and mixed case as stored.
pub type Names = HashMap<String, NameKind>;

/// The store a hint or setting asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Override {
    Auto,
    Postgres,
    /// Or an error.
    Lake,
    /// Where all of a statement is proven equal, whatever it costs there; PostgreSQL else.
    PreferLake,
    /// Where all of a statement is proven equal, both answer, and what PostgreSQL answers is the client's.
    Compare,
}

impl Override {
    /// Asks for the lake where it may answer.
    pub fn wants_lake(self) -> bool {
        matches!(self, Override::Lake | Override::PreferLake | Override::Compare)
    }

    /// Reads a value of `watershed.route` or of a comment hint.
    pub fn parse(s: &str) -> Option<Self> {
        match s.trim().to_ascii_lowercase().as_str() {
            "auto" | "" => Some(Override::Auto),
            "postgres" => Some(Override::Postgres),
            "lake" => Some(Override::Lake),
            "prefer_lake" => Some(Override::PreferLake),
            "compare" => Some(Override::Compare),
            _ => None,
        }
    }
}

/// What to do with a text before anything is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// PostgreSQL's, for this reason.
    Relay(&'static str),
    /// PostgreSQL's too, for this reason, unless cold rows may be needed or the route is overridden.
    Keyed(&'static str),
    /// To be probed.
    Candidate,
    /// EXPLAIN in text format of a candidate: the inner statement.
    Explain(Arc<str>),
    /// `COPY name FROM` without columns: PostgreSQL's, with a list if it says that the table is tiered.
    Copy(Arc<CopyHead>),
}

/// The outcome for one text.
#[derive(Debug)]
pub struct Classified {
    pub sql: Arc<str>,
    /// What it has in common with all texts that differ from it in literals only.
    pub shape: Arc<Shape>,
}

impl std::ops::Deref for Classified {
    type Target = Shape;

    fn deref(&self) -> &Shape {
        &self.shape
    }
}

/// What is known of a text and of all that differ from it in literals only.
#[derive(Debug, PartialEq, Eq)]
pub struct Shape {
    pub kind: Kind,
    /// Of a leading comment `/* watershed: lake */`.
    pub hint: Option<Override>,
    /// Sets or resets `watershed.route`, or may: from then on keyed statements are probed as well.
    pub touches_route: bool,
    /// May change client_min_messages, below which level nothing may be probed.
    pub touches_level: bool,
    /// Only reads: may be stopped when its client is gone.
    pub reads: bool,
    /// Speaks of cursors: FETCH, MOVE, DECLARE.
    pub cursors: bool,
    /// FETCH or MOVE.
    pub fetches: bool,
    /// May have a prepared statement executed, and so analyzed anew.
    pub executes: bool,
    /// May forget or replace prepared statements.
    pub deallocates: bool,
    /// Its names as PostgreSQL folds them, of statements that `cursors` or `deallocates`.
    pub words: Vec<Box<str>>,
    /// May create, change or drop relations: the gateway looks at the catalog again afterwards.
    pub ddl: bool,
    /// Text with its literals hidden.
    pub masked: Arc<str>,
    pub fingerprint: Arc<str>,
}

impl Shape {
    /// Holds nothing of the text itself but its literals hidden.
    fn is_general(&self) -> bool {
        !matches!(self.kind, Kind::Explain(_) | Kind::Copy(_))
    }
}

/// See the module.
pub fn classify(sql: &str, names: &Names) -> Classified {
    let shape = Arc::new(shape_of(sql, names));
    let sql = if sql.len() > MAX_TEXT { shape.masked.clone() } else { sql.into() };
    Classified { sql, shape }
}

fn shape_of(sql: &str, names: &Names) -> Shape {
    if sql.len() > MAX_TEXT {
        let masked: Arc<str> = format!("<statement of {} bytes>", sql.len()).into();
        return Shape {
            kind: Kind::Relay("the text is too long to look at"),
            hint: None,
            touches_route: true,
            touches_level: true,
            reads: false,
            cursors: false,
            fetches: false,
            executes: true,
            deallocates: false,
            words: Vec::new(),
            ddl: true,
            fingerprint: fingerprint::fingerprint(&masked).into(),
            masked,
        };
    }
    let tokens = fingerprint::tokens(sql);
    let masked = fingerprint::mask(tokens.as_deref(), false);
    let folded = fingerprint::mask(tokens.as_deref(), true);
    let lower = sql.to_ascii_lowercase();
    let begins_with = |all: &[&str]| tokens.as_deref().is_some_and(|t| begins_with(t, all));
    let fetches = begins_with(&["fetch", "move"]);
    let cursors = fetches || begins_with(&["declare"]);
    let deallocates = begins_with(&["deallocate", "discard", "prepare"]);
    Shape {
        cursors,
        fetches,
        deallocates,
        executes: lower.contains("execute"),
        words: if cursors || deallocates { tokens.as_deref().map_or_else(Vec::new, words) } else { Vec::new() },
        kind: tokens.as_deref().map_or(Kind::Relay("the text does not parse here"), |t| kind(sql, t, names)),
        hint: tokens.as_deref().and_then(hint),
        touches_route: lower.contains("watershed.route") || lower.contains("reset all") || lower.contains("discard"),
        touches_level: ["client_min_messages", "reset", "discard"].iter().any(|w| lower.contains(w)),
        reads: tokens.as_deref().is_some_and(reads),
        ddl: tokens.as_deref().is_none_or(may_be_ddl),
        fingerprint: fingerprint::fingerprint(&folded).into(),
        masked: masked.into(),
    }
}

/// Whether one of the text's statements begins with one of these words.
fn begins_with(tokens: &[Token], all: &[&str]) -> bool {
    let mut first = true;
    solid(tokens).into_iter().any(|t| {
        let beginning = std::mem::replace(&mut first, matches!(t, Token::SemiColon));
        beginning
            && matches!(t, Token::Word(w) if w.quote_style.is_none() && all.iter().any(|a| w.value.eq_ignore_ascii_case(a)))
    })
}

/// Every word, folded as names are.
fn words(tokens: &[Token]) -> Vec<Box<str>> {
    let folded = |t: &Token| match t {
        Token::Word(w) if w.quote_style.is_none() => Some(w.value.to_lowercase().into_boxed_str()),
        Token::Word(w) => Some(w.value.as_str().into()),
        _ => None,
    };
    tokens.iter().filter_map(folded).collect()
}

/// Words and signs without spaces and comments.
fn solid(tokens: &[Token]) -> Vec<&Token> {
    tokens.iter().filter(|t| !matches!(t, Token::Whitespace(_) | Token::EOF)).collect()
}

fn keyword(t: &Token) -> Keyword {
    match t {
        Token::Word(w) if w.quote_style.is_none() => w.keyword,
        _ => Keyword::NoKeyword,
    }
}

fn kind(sql: &str, tokens: &[Token], names: &Names) -> Kind {
    let mut words = solid(tokens);
    while words.last().is_some_and(|t| matches!(t, Token::SemiColon)) {
        words.pop();
    }
    if words.iter().any(|t| matches!(t, Token::SemiColon)) {
        return Kind::Relay("several statements in one text");
    }
    let first = words.iter().find(|t| !matches!(t, Token::LParen)).map_or(Keyword::NoKeyword, |t| keyword(t));
    match first {
        Keyword::EXPLAIN => explain(sql, tokens, names),
        Keyword::SELECT | Keyword::WITH | Keyword::TABLE | Keyword::VALUES => select(&words, names),
        Keyword::COPY => match copy::head(sql) {
            Some(head) => Kind::Copy(head.into()),
            None => Kind::Relay("not a SELECT"),
        },
        _ => Kind::Relay("not a SELECT"),
    }
}

fn select(words: &[&Token], names: &Names) -> Kind {
    let mut found = None;
    for t in words {
        let Token::Word(w) = t else { continue };
        let hit = match w.quote_style {
            None => names.get(&w.value.to_lowercase()),
            Some(_) => names.get(&w.value),
        };
        match hit {
            Some(NameKind::View) => found = Some(NameKind::View),
            Some(NameKind::Tiered) if found.is_none() => found = Some(NameKind::Tiered),
            _ => {}
        }
    }
    let Some(found) = found else { return Kind::Relay("reads no tiered or virtual table") };
    let has = |k: Keyword| words.iter().any(|t| keyword(t) == k);
    if has(Keyword::INTO) {
        return Kind::Relay("SELECT INTO writes");
    }
    if words.windows(2).any(|w| {
        keyword(w[0]) == Keyword::FOR && matches!(keyword(w[1]), Keyword::UPDATE | Keyword::SHARE | Keyword::NO | Keyword::KEY)
    }) {
        return Kind::Keyed("locks rows");
    }
    let aggregates = has(Keyword::GROUP)
        || has(Keyword::HAVING)
        || has(Keyword::DISTINCT)
        || has(Keyword::OVER)
        || has(Keyword::INTERSECT)
        || has(Keyword::EXCEPT)
        || words.windows(2).any(|w| keyword(w[0]) == Keyword::UNION && keyword(w[1]) != Keyword::ALL)
        || words.windows(2).any(|w| matches!((w[0], w[1]), (Token::Word(f), Token::LParen) if is_aggregate(&f.value)));
    if found == NameKind::View || aggregates {
        return Kind::Candidate;
    }
    let limited = has(Keyword::LIMIT) || has(Keyword::FETCH);
    Kind::Keyed(match (limited, has(Keyword::ORDER), has(Keyword::WHERE)) {
        (true, true, _) => "ORDER BY with LIMIT and no aggregate",
        (true, false, _) => "LIMIT and no aggregate",
        (_, _, true) => "a lookup without aggregate",
        _ => "a scan without aggregate",
    })
}

/// Aggregates whose statements are worth a probe. Others are PostgreSQL's anyway.
fn is_aggregate(name: &str) -> bool {
    const NAMES: [&str; 17] = [
        "count", "sum", "avg", "min", "max", "bool_and", "bool_or", "every", "bit_and", "bit_or", "bit_xor", "stddev", "stddev_pop", "stddev_samp",
        "variance", "var_pop", "var_samp",
    ];
    NAMES.iter().any(|n| name.eq_ignore_ascii_case(n))
}

/// `EXPLAIN [ANALYZE] [VERBOSE] stmt` or `EXPLAIN (options) stmt`, in text format.
fn explain(sql: &str, tokens: &[Token], names: &Names) -> Kind {
    const RELAY: Kind = Kind::Relay("EXPLAIN of a statement that reads no tiered or virtual table");
    // The inner statement starts at a SELECT, WITH, TABLE or VALUES that stands first outside the option list. (That of an
    // INSERT, DECLARE or CREATE TABLE AS is only a part of what is explained.)
    let mut depth = 0usize;
    let mut started = false;
    let mut offset = 0usize;
    for t in tokens {
        let here = offset;
        offset += t.to_string().len();
        match t {
            Token::Whitespace(_) => {}
            Token::LParen if started => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            _ => match keyword(t) {
                Keyword::EXPLAIN if !started => started = true,
                Keyword::FORMAT if depth > 0 => {
                    let rest: String = sql.get(here..).unwrap_or("").chars().take(32).collect();
                    if !rest.to_ascii_lowercase().contains("text") {
                        return Kind::Relay("EXPLAIN in a format other than text");
                    }
                }
                Keyword::SELECT | Keyword::WITH | Keyword::TABLE | Keyword::VALUES if depth == 0 => {
                    // Only where the tokens print as they were read is the offset true.
                    let Some(inner) = sql.get(here..) else { return RELAY };
                    if !inner.get(..4).is_some_and(|h| t.to_string().to_ascii_lowercase().starts_with(&h.to_ascii_lowercase())) {
                        return RELAY;
                    }
                    let Some(tokens) = fingerprint::tokens(inner) else { return RELAY };
                    return match kind(inner, &tokens, names) {
                        Kind::Candidate | Kind::Keyed(_) => Kind::Explain(inner.trim_end().trim_end_matches(';').into()),
                        _ => RELAY,
                    };
                }
                Keyword::ANALYZE | Keyword::VERBOSE => {}
                _ if depth == 0 && !matches!(t, Token::Word(w) if w.value.eq_ignore_ascii_case("analyse")) => return RELAY,
                _ => {}
            },
        }
    }
    RELAY
}

fn hint(tokens: &[Token]) -> Option<Override> {
    for t in tokens {
        match t {
            Token::Whitespace(Whitespace::MultiLineComment(c)) => {
                if let Some(value) = c.trim().strip_prefix("watershed:") {
                    return Override::parse(value);
                }
            }
            Token::Whitespace(_) => {}
            _ => return None,
        }
    }
    None
}

/// One statement that begins with a word of reading.
fn reads(tokens: &[Token]) -> bool {
    let words = solid(tokens);
    let first = words.iter().find(|t| !matches!(t, Token::LParen)).map_or(Keyword::NoKeyword, |t| keyword(t));
    matches!(first, Keyword::SELECT | Keyword::TABLE | Keyword::VALUES | Keyword::EXPLAIN | Keyword::SHOW)
        && !words.iter().rev().skip_while(|t| matches!(t, Token::SemiColon)).any(|t| matches!(t, Token::SemiColon))
}

fn may_be_ddl(tokens: &[Token]) -> bool {
    solid(tokens).iter().any(|t| {
        matches!(keyword(t), Keyword::CREATE | Keyword::ALTER | Keyword::DROP | Keyword::DO | Keyword::CALL)
            || matches!(t, Token::Word(w) if w.value.eq_ignore_ascii_case("attach_table"))
    })
}

#[cfg(test)]
mod tests;
