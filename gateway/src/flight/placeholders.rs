//! `?` for parameters, as JDBC and Python's DB-API write them, where PostgreSQL wants `$1`, `$2`, ... ✗ types, statements.
//!
//! PostgreSQL has operators of that character (`jsonb ? text`, `?|`, `?&`), which stand behind an operand. A `?` is a parameter where an
//! operand must begin; `??` is always the operator `?`. Texts that have a `$1` of their own are left alone.

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::tokenizer::{Token, Tokenizer};
use std::borrow::Cow;

/// Words behind which an operand begins; every other word is one, or a name.
const BEFORE_OPERAND: [&str; 47] = [
    "select", "distinct", "all", "where", "and", "or", "not", "on", "having", "limit", "offset", "in", "between", "like", "ilike", "similar",
    "to", "when", "then", "else", "case", "values", "set", "returning", "by", "any", "some", "from", "interval", "timestamp", "timestamptz",
    "date", "time", "using", "escape", "as", "is", "zone", "fetch", "first", "next", "for", "with", "union", "except", "intersect", "default",
];

/// The text with `$n` for its parameters.
pub fn numbered(sql: &str) -> Cow<'_, str> {
    if !sql.contains('?') {
        return Cow::Borrowed(sql);
    }
    // What does not parse here is PostgreSQL's to judge as it is.
    let Ok(tokens) = Tokenizer::new(&PostgreSqlDialect {}, sql).with_unescape(false).tokenize_with_location() else {
        return Cow::Borrowed(sql);
    };
    if tokens.iter().any(|t| matches!(&t.token, Token::Placeholder(p) if p.starts_with('$'))) {
        return Cow::Borrowed(sql);
    }
    let lines: Vec<usize> = std::iter::once(0).chain(sql.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let mut out = String::with_capacity(sql.len() + 16);
    let (mut copied, mut number) = (0, 0);
    let mut operand_before = false;
    for t in &tokens {
        match &t.token {
            Token::Whitespace(_) => continue,
            Token::Question | Token::Placeholder(_) if !operand_before => {
                // Columns count characters from 1.
                let Some(at) = position(sql, &lines, t.span.start.line, t.span.start.column) else { return Cow::Borrowed(sql) };
                if !sql[at..].starts_with('?') || sql[at..].starts_with("??") {
                    return Cow::Borrowed(sql);
                }
                number += 1;
                out.push_str(&sql[copied..at]);
                out.push_str(&format!("${number}"));
                copied = at + 1;
                operand_before = true;
            }
            Token::Word(w) => {
                operand_before = w.quote_style.is_some() || !BEFORE_OPERAND.iter().any(|k| w.value.eq_ignore_ascii_case(k));
            }
            Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::DollarQuotedString(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::HexStringLiteral(_)
            | Token::SingleQuotedByteStringLiteral(_)
            | Token::RParen
            | Token::RBracket => operand_before = true,
            _ => operand_before = false,
        }
    }
    out.push_str(&sql[copied..]);
    Cow::Owned(out)
}

/// The byte at which a line's character begins.
fn position(sql: &str, lines: &[usize], line: u64, column: u64) -> Option<usize> {
    let from = *lines.get(usize::try_from(line).ok()?.checked_sub(1)?)?;
    let skip = usize::try_from(column).ok()?.checked_sub(1)?;
    sql[from..].char_indices().nth(skip).map(|(at, _)| from + at)
}

#[cfg(test)]
mod tests {
    use super::numbered;

    #[test]
    fn operands_are_parameters_and_operators_stay() {
        for (text, expected) in [
            ("SELECT ?", "SELECT $1"),
            ("SELECT ?, ?::int", "SELECT $1, $2::int"),
            ("SELECT * FROM t WHERE a = ? AND b IN (?, ?)", "SELECT * FROM t WHERE a = $1 AND b IN ($2, $3)"),
            ("INSERT INTO t VALUES (?, 'a?b', ?) -- ?", "INSERT INTO t VALUES ($1, 'a?b', $2) -- ?"),
            ("SELECT \"ü\", j\nFROM t WHERE ä = ? LIMIT ?", "SELECT \"ü\", j\nFROM t WHERE ä = $1 LIMIT $2"),
            ("SELECT j ? 'key' FROM t", "SELECT j ? 'key' FROM t"),
            ("SELECT j ? ? FROM t", "SELECT j ? $1 FROM t"),
            ("SELECT '{}'::jsonb ? 'a'", "SELECT '{}'::jsonb ? 'a'"),
            ("SELECT $1, j ? 'a'", "SELECT $1, j ? 'a'"),
            ("UPDATE t SET a = ? WHERE b > ? + 1", "UPDATE t SET a = $1 WHERE b > $2 + 1"),
            ("SELECT ? + ?", "SELECT $1 + $2"),
        ] {
            assert_eq!(numbered(text), expected);
        }
    }
}
