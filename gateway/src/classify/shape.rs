//! Statements that differ only in their literals are classified once: a key that such texts share, made in one pass over
//! the bytes and without reading what they mean. ✗ tokens, names.
//!
//! Two texts with one key have the same tokens but for the values of numbers and strings, which no classification looks at.
//! Where that is not plain to see (comments, backslashes, dollar quotes, settings named in strings) there is no key.

/// Texts longer than this have no key.
const LONGEST: usize = 16 * 1024;
/// What stands for a number and for the inside of a string: bytes that no text with a key contains.
const NUMBER: u8 = 1;
const STRING: u8 = 2;
/// Words that classification looks for in strings too.
const TELLING: [&[u8]; 6] = [b"watershed", b"reset", b"discard", b"client_min", b"attach_table", b"execute"];

/// The key of a text into `key`, which is emptied first. False if there is none: nothing was hidden, or it is not plain what to hide.
pub fn key(sql: &str, key: &mut Vec<u8>) -> bool {
    key.clear();
    let text = sql.as_bytes();
    if text.len() > LONGEST {
        return false;
    }
    let mut hidden = false;
    let mut at = 0;
    // What came before, for deciding whether digits are a number of their own.
    let mut joined = false;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'\'' => {
                let Some(length) = quoted(&text[at + 1..], b'\'') else { return false };
                let inside = &text[at + 1..at + 1 + length];
                if TELLING.iter().any(|word| contains(inside, word)) {
                    return false;
                }
                key.extend_from_slice(&[b'\'', STRING, b'\'']);
                hidden = true;
                at += length + 2;
                joined = true;
            }
            b'"' => {
                let Some(length) = quoted(&text[at + 1..], b'"') else { return false };
                key.extend_from_slice(&text[at..at + length + 2]);
                at += length + 2;
                joined = true;
            }
            b'0'..=b'9' if !joined => {
                let length = text[at..].iter().take_while(|b| b.is_ascii_digit()).count();
                let after = text.get(at + length).copied();
                if after.is_some_and(is_joining) {
                    key.extend_from_slice(&text[at..at + length]);
                } else {
                    key.push(NUMBER);
                    hidden = true;
                }
                at += length;
                joined = true;
            }
            // Backslashes may be escapes, a dollar may begin a quote, and comments may hold hints.
            b'\\' | 0..9 => return false,
            b'$' if !text.get(at + 1).is_some_and(u8::is_ascii_digit) => return false,
            b'-' if text.get(at + 1) == Some(&b'-') => return false,
            b'/' if text.get(at + 1) == Some(&b'*') => return false,
            _ => {
                key.push(byte);
                joined = is_joining(byte);
                at += 1;
            }
        }
    }
    hidden
}

/// Next to a digit it makes another token than a number, or a longer number.
fn is_joining(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'.' | b'\'' | b'"' | 0x80..)
}

/// The length of what stands before the closing quote; doubled quotes are part of it. `None` if it is not closed.
fn quoted(rest: &[u8], quote: u8) -> Option<usize> {
    let mut at = 0;
    loop {
        match *rest.get(at)? {
            b'\\' | 0 => return None,
            b if b == quote => {
                if rest.get(at + 1) != Some(&quote) {
                    return Some(at);
                }
                at += 2;
            }
            _ => at += 1,
        }
    }
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|w| w.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::{NameKind, Names, classify};
    use proptest::prelude::*;

    fn of(sql: &str) -> Option<Vec<u8>> {
        let mut k = Vec::new();
        key(sql, &mut k).then_some(k)
    }

    #[test]
    fn literals_are_hidden_and_nothing_else() {
        assert_eq!(of("SELECT * FROM logs WHERE id = 17"), of("SELECT * FROM logs WHERE id = 4"));
        assert_eq!(of("SELECT 'a', 1"), of("SELECT 'it''s', 22"));
        for (a, b) in [
            ("SELECT 1 FROM t1", "SELECT 1 FROM t2"),
            ("SELECT 1 FROM \"t 1\"", "SELECT 1 FROM \"t 2\""),
            ("SELECT 1, $1", "SELECT 1, $2"),
            ("SELECT 1, 'a'", "SELECT 1, 'a' 'b'"),
            ("SELECT 1, 2", "SELECT 1, 'b'"),
            ("SELECT 1 FROM tä1", "SELECT 1 FROM tä2"),
        ] {
            assert!(of(a).is_some() && of(b).is_some());
            assert_ne!(of(a), of(b), "{a} / {b}");
        }
        for none in [
            "SELECT a FROM t",
            "SELECT 1 -- 2",
            "/* watershed: lake */ SELECT 1",
            "SELECT E'\\'', 1",
            "SELECT $$1$$",
            "SELECT $a$1$a$",
            "SELECT 'a",
            "SELECT 1, set_config('watershed.route', 'lake', false)",
            "SELECT 1, set_config('Client_Min_messages', 'log', false)",
            "SELECT 1, runs('EXECUTE st')",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
    }

    fn piece() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("SELECT ".to_string()),
            Just(" FROM logs ".to_string()),
            Just(" FROM \"logs 1\" ".to_string()),
            Just("count(*)".to_string()),
            Just(" WHERE a = ".to_string()),
            Just(" ORDER BY 1 LIMIT ".to_string()),
            Just(" FOR UPDATE".to_string()),
            Just("; ".to_string()),
            Just("DEALLOCATE a".to_string()),
            Just("EXPLAIN ".to_string()),
            Just("COPY logs FROM STDIN".to_string()),
            Just("E".to_string()),
            Just("--".to_string()),
            Just("/*".to_string()),
            Just("\\".to_string()),
            Just("$".to_string()),
            Just("'".to_string()),
            Just("\"".to_string()),
            Just("reset all".to_string()),
            Just("execute".to_string()),
            "[0-9]{1,3}",
            "'[a-z0-9 ']{0,5}'",
            "[a-z0-9_.$]{1,4}",
            " ",
        ]
    }

    proptest! {
        /// Whatever two texts share a key are classified alike.
        #[test]
        fn one_key_one_classification(
            pieces in prop::collection::vec(piece(), 1..12),
            number in "[0-9]{1,4}",
            string in "[a-z0-9 ]{0,6}",
        ) {
            let names: Names = [("logs".to_string(), NameKind::Tiered), ("logs 1".to_string(), NameKind::Tiered)].into();
            let sql = pieces.concat();
            let Some(k) = of(&sql) else { return Ok(()) };
            // Another text with that key.
            let mut other = String::new();
            for c in String::from_utf8(k.clone()).expect("text").chars() {
                match c {
                    '\u{1}' => other.push_str(&number),
                    '\u{2}' => other.push_str(&string),
                    c => other.push(c),
                }
            }
            prop_assert_eq!(of(&other), Some(k), "{}", other);
            let (a, b) = (classify(&sql, &names), classify(&other, &names));
            let (a, b) = (&*a.shape, &*b.shape);
            prop_assert_eq!(&a.masked, &b.masked);
            if a.is_general() {
                prop_assert_eq!(a, b, "{} / {}", sql, other);
            } else {
                prop_assert!(!b.is_general());
            }
        }
    }
}
