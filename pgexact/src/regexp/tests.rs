//! Random expressions over random texts against PostgreSQL itself: what is not refused matches alike.

use super::*;
use crate::testpg::{Random, cluster, escaped};

const PIECES: &[&str] = &[
    "a",
    "b",
    "A",
    "B",
    "1",
    "9",
    " ",
    "-",
    "é",
    "日",
    ".",
    "^",
    "$",
    "(",
    ")",
    "(?:",
    "|",
    "*",
    "+",
    "?",
    "{2}",
    "{1,}",
    "{0,2}",
    "{3,1}",
    "[ab]",
    "[^a]",
    "[a-c]",
    "[0-9]",
    "[A-Z_.]",
    "[-a]",
    "[a-]",
    "[]a]",
    "[[:alpha:]]",
    "[^ ]",
    "[a-Z]",
    "\\d",
    "\\D",
    "\\s",
    "\\w",
    "\\W",
    "\\S",
    "\\.",
    "\\\\",
    "\\n",
    "\\y",
    "\\1",
    "\\",
    "{",
    "}",
    "(?i)",
    "***=",
    "k",
    "K",
    "\\m",
    "[\\d]",
    "&&",
    "~~",
    "[a&&b]",
    "#",
    "x",
    "(a|b)",
    "(?:ab)+",
    "()",
    "a*?",
    "ß",
    "i",
    "I",
];
const TEXTS: &[&str] = &[
    "",
    "a",
    "b",
    "ab",
    "abab",
    "AB",
    "aB1",
    "a b",
    "a\nb",
    "\n",
    "1",
    "19",
    "a.b",
    "a\\b",
    "é",
    "日本",
    "xéx",
    "-",
    "a-b",
    "_",
    "\t",
    " ",
    "K",
    "k",
    "\u{212a}",
    "İ",
    "i",
    "I",
    "ı",
    "ß",
    "ẞ",
    "aaaa",
    "b1a",
    "{2}",
    "a{2}",
    "()",
    "^$",
    "&&",
    "~~",
    "#x",
    "[a]",
    "ÀB",
    "xyz 12-ab",
];

#[test]
fn expressions_are_postgres() {
    let mut random = Random(0x5eed_0070);
    let mut patterns: Vec<String> = [
        "^a+$",
        "error|warn",
        "^(GET|POST) /",
        "[0-9]{1,3}\\.[0-9]{1,3}",
        "^$",
        "a.b",
        "(a|b)*x?",
        "\\d+-\\w+",
    ]
    .map(str::to_owned)
    .to_vec();
    while patterns.len() < 1500 {
        patterns.push((0..random.below(6) + 1).map(|_| *random.pick::<&str>(PIECES)).collect());
    }
    let known: Vec<(String, bool, Pattern)> = patterns
        .into_iter()
        .flat_map(|p| [false, true].map(|insensitive| (p.clone(), insensitive)))
        .filter_map(|(p, insensitive)| Pattern::parse(&p, insensitive).map(|parsed| (p, insensitive, parsed)))
        .collect();
    assert!(known.len() > 300, "{}", known.len());
    let values: Vec<String> = known
        .iter()
        .enumerate()
        .map(|(n, (p, insensitive, _))| format!("({n}, U&'{}', {insensitive})", escaped(p)))
        .collect();
    let texts: Vec<String> = TEXTS.iter().map(|t| format!("U&'{}'", escaped(t))).collect();
    let prelude = format!(
        "CREATE TEMP TABLE p AS SELECT * FROM (VALUES {}) v(n, p, i); CREATE TEMP TABLE t AS SELECT * FROM unnest(ARRAY[{}]) WITH ORDINALITY u(t, m);",
        values.join(", "),
        texts.join(", ")
    );
    for collation in ["default", "C"] {
        let query = format!(
            "SELECT string_agg(CASE WHEN CASE WHEN i THEN t COLLATE \"{collation}\" ~* p ELSE t COLLATE \"{collation}\" ~ p END THEN '1' ELSE '0' END, '' ORDER BY m) FROM p, t GROUP BY n ORDER BY n"
        );
        let rows = cluster().copy_text(&[], &prelude, &query);
        for ((pattern, insensitive, ours), row) in known.iter().zip(rows) {
            let want = row[0].as_deref().expect("a text");
            for (text, want) in TEXTS.iter().zip(want.chars()) {
                if let Ok(got) = ours.matches(text) {
                    assert_eq!(got, want == '1', "{text:?} ~ {pattern:?} ({insensitive}) under {collation}");
                }
            }
        }
    }
}

#[test]
fn what_is_not_known_is_refused() {
    for pattern in [
        "",
        "(",
        ")",
        "*a",
        "a**",
        "a*?",
        "^*",
        "a|",
        "|a",
        "()",
        "(?=a)",
        "(?i)a",
        "***=a",
        "\\bx",
        "\\1",
        "[[:digit:]]",
        "[\\d]",
        "a{2,1}",
        "a{256}",
        "a{",
        "[]",
        "[b-a]",
        "[a-",
        "\\",
    ] {
        assert!(Pattern::parse(pattern, false).is_none(), "{pattern}");
    }
    assert!(Pattern::parse("é", true).is_none() && Pattern::parse("é", false).is_some());
    assert!(Pattern::parse(&"(".repeat(30), false).is_none());
    let words = Pattern::parse("\\w", false).expect("known");
    assert!(words.matches("é").expect_err("the locale's").is_not_exact());
}
