//! Whether a statement surely only reads, so that it may wait until somebody reads its rows, be stopped, or be executed once more. By its
//! words, and by what PostgreSQL says of the functions that these may stand for. Where in doubt it does more. ✗ executing it.

use super::client::Client;
use super::failure::Failure;
use crate::query::fingerprint;
use sqlparser::tokenizer::Token;
use std::collections::BTreeSet;

const READING: [&str; 6] = ["select", "table", "values", "with", "show", "explain"];
/// With one of these (FOR UPDATE, SELECT INTO, EXPLAIN ANALYZE among them) it may do more.
const DOING: [&str; 8] = ["insert", "update", "delete", "merge", "into", "share", "analyze", "analyse"];

/// Whether a statement of these words may call what is VOLATILE: by name; through a view, a policy, a default or a domain; through an
/// operator or a cast of somebody's own. Objects of PostgreSQL itself have OIDs below 16384. No search path can change what it means.
pub const EFFECTS: &str = "/* watershed: postgres */ WITH RECURSIVE relation (id) AS ( \
        SELECT c.oid FROM pg_catalog.pg_class c WHERE c.relname OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.name[]) \
        UNION SELECT found[1]::pg_catalog.oid FROM relation \
            CROSS JOIN LATERAL (SELECT r.ev_action::pg_catalog.text FROM pg_catalog.pg_rewrite r \
                    WHERE r.ev_class OPERATOR(pg_catalog.=) relation.id AND relation.id OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid \
                UNION ALL SELECT p.polqual::pg_catalog.text FROM pg_catalog.pg_policy p WHERE p.polrelid OPERATOR(pg_catalog.=) relation.id) t (tree) \
            CROSS JOIN LATERAL pg_catalog.regexp_matches(t.tree, ':relid ([0-9]+)', 'g') found), \
    named (id) AS (SELECT p.oid FROM pg_catalog.pg_proc p WHERE p.proname OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.name[])), \
    t (tree) AS ( \
        SELECT r.ev_action::pg_catalog.text FROM relation JOIN pg_catalog.pg_rewrite r ON r.ev_class OPERATOR(pg_catalog.=) relation.id \
            WHERE relation.id OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid \
        UNION ALL SELECT p.polqual::pg_catalog.text FROM relation JOIN pg_catalog.pg_policy p ON p.polrelid OPERATOR(pg_catalog.=) relation.id \
        UNION ALL SELECT p.proargdefaults::pg_catalog.text FROM named JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) named.id \
        UNION ALL SELECT c.conbin::pg_catalog.text FROM pg_catalog.pg_type d JOIN pg_catalog.pg_constraint c ON c.contypid OPERATOR(pg_catalog.=) d.oid \
            WHERE d.typname OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.name[])), \
    called (id) AS ( \
        SELECT id FROM named \
        UNION SELECT found[1]::pg_catalog.oid FROM t \
            CROSS JOIN LATERAL pg_catalog.regexp_matches(t.tree, ':(?:funcid|opfuncid|aggfnoid|winfnoid) ([0-9]+)', 'g') found \
        UNION SELECT o.oprcode::pg_catalog.oid FROM pg_catalog.pg_operator o WHERE o.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid \
        UNION SELECT c.castfunc FROM pg_catalog.pg_cast c WHERE c.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid) \
    SELECT EXISTS (SELECT FROM called JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) called.id \
            WHERE p.provolatile OPERATOR(pg_catalog.=) 'v'::pg_catalog.\"char\" \
                    AND (p.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid OR p.proname OPERATOR(pg_catalog.<>) ALL ('{random,random_normal,\
                    clock_timestamp,timeofday,pg_sleep,pg_sleep_for,pg_sleep_until,gen_random_uuid,uuidv4,uuidv7,currval,lastval}'::pg_catalog.name[])) \
                OR p.prokind OPERATOR(pg_catalog.=) 'a'::pg_catalog.\"char\" AND p.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid) \
        OR EXISTS (SELECT FROM relation JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) relation.id \
            WHERE c.relkind OPERATOR(pg_catalog.=) 'f'::pg_catalog.\"char\")";

/// The words of a statement that only reads, unless something that it names does more. None: it does.
pub fn words(sql: &str) -> Option<BTreeSet<String>> {
    let tokens = fingerprint::tokens(sql)?;
    let first = tokens.iter().find(|t| !matches!(t, Token::Whitespace(_) | Token::LParen))?;
    let reading = matches!(first, Token::Word(w) if w.quote_style.is_none() && READING.iter().any(|r| w.value.eq_ignore_ascii_case(r)));
    // SHOW names no function, and takes no snapshot: nothing is asked in its place.
    if matches!(first, Token::Word(w) if w.value.eq_ignore_ascii_case("show")) {
        return Some(BTreeSet::new());
    }
    // Names that are spelt by code points are not read here.
    if !reading || sql.to_ascii_lowercase().contains("u&\"") {
        return None;
    }
    let words: BTreeSet<String> = tokens
        .iter()
        .filter_map(|t| match t {
            Token::Word(w) if w.quote_style.is_none() => Some(w.value.to_ascii_lowercase()),
            Token::Word(w) => Some(w.value.replace("\"\"", "\"")),
            _ => None,
        })
        .collect();
    (!DOING.iter().any(|word| words.contains(*word))).then_some(words)
}

/// Nothing that the statement names does more than read.
pub async fn none(client: &mut Client, words: &BTreeSet<String>) -> Result<bool, Failure> {
    if words.is_empty() {
        return Ok(true);
    }
    let escaped = |word: &String| format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""));
    let names = format!("{{{}}}", words.iter().map(escaped).collect::<Vec<_>>().join(","));
    let rows = client.query(EFFECTS, &[Some(names.as_str())]).await?;
    Ok(rows.first().and_then(|row| row.first()).is_some_and(|found| found.as_deref() == Some("f")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_doing_are_seen() {
        for sql in [
            "SELECT 1 INTO t", "SELECT * FROM t FOR UPDATE", "SELECT * FROM t FOR KEY SHARE", "EXPLAIN (ANALYZE) SELECT 1", "INSERT INTO t VALUES (1)",
            "WITH d AS (DELETE FROM t RETURNING a) SELECT a FROM d", "CALL p()", "SELECT U&\"\\0066\"()", "",
        ] {
            assert_eq!(words(sql), None, "{sql}");
        }
        let found = words("(SELECT \"F\"\"\"(a), G(b) FROM t -- update\n WHERE c = 'insert')").unwrap();
        assert!(["F\"", "g", "t"].iter().all(|w| found.contains(*w)), "{found:?}");
    }
}
