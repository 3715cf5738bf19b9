//! One name for all statements that differ only in literals, spacing, comments and letter case, and the same
//! text with its literals hidden. Pure. ✗ what a statement means.

use sha2::{Digest, Sha256};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::tokenizer::{Token, Tokenizer};

/// The tokens of a statement, comments and whitespace included; `None` if it cannot be read.
pub fn tokens(sql: &str) -> Option<Vec<Token>> {
    Tokenizer::new(&PostgreSqlDialect {}, sql).with_unescape(false).tokenize().ok()
}

/// The statement with every literal replaced by `?`, without comments and with single spaces; unquoted words in
/// lower case where `fold`. An unreadable statement is hidden whole.
pub fn mask(tokens: Option<&[Token]>, fold: bool) -> String {
    let Some(tokens) = tokens else { return "<unreadable statement>".into() };
    let mut out = String::new();
    let mut space = false;
    for token in tokens {
        let word: std::borrow::Cow<'_, str> = match token {
            Token::Whitespace(_) => {
                space = true;
                continue;
            }
            Token::EOF => continue,
            Token::Word(w) if w.quote_style.is_none() && fold => w.value.to_lowercase().into(),
            Token::Word(w) if w.quote_style.is_none() => w.value.as_str().into(),
            Token::Word(w) => format!("\"{}\"", w.value).into(),
            Token::Placeholder(p) => p.as_str().into(),
            Token::Number(..) => "?".into(),
            t if is_literal(t) => "?".into(),
            other => other.to_string().into(),
        };
        if space && !out.is_empty() {
            out.push(' ');
        }
        space = false;
        out.push_str(&word);
    }
    while out.ends_with(';') || out.ends_with(' ') {
        out.pop();
    }
    out
}

fn is_literal(t: &Token) -> bool {
    matches!(
        t,
        Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::DollarQuotedString(_)
            | Token::NationalStringLiteral(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::HexStringLiteral(_)
            | Token::SingleQuotedByteStringLiteral(_)
            | Token::DoubleQuotedByteStringLiteral(_)
            | Token::TripleSingleQuotedString(_)
            | Token::TripleDoubleQuotedString(_)
    )
}

/// Sixteen hexadecimal digits over the masked and folded text.
pub fn fingerprint(masked: &str) -> String {
    hex::encode(&Sha256::digest(masked.as_bytes())[..8])
}
