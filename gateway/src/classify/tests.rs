use super::*;

fn names() -> Names {
    [("logs", NameKind::Tiered), ("Mixed", NameKind::Tiered), ("queries", NameKind::View)]
        .into_iter()
        .map(|(n, k)| (n.to_string(), k))
        .collect()
}

fn kind_of(sql: &str) -> Kind {
    classify(sql, &names()).kind.clone()
}

#[test]
fn aggregates_over_tiered_tables_are_candidates() {
    for sql in [
        "SELECT count(*) FROM logs",
        "select level, Count(*) from public.LOGS group by 1;",
        "SELECT DISTINCT level FROM logs",
        "(SELECT max(ts) FROM logs)",
        "WITH x AS (SELECT * FROM logs) SELECT count(*) FROM x",
        "SELECT sum(n) FROM \"Mixed\"",
        "SELECT * FROM watershed.queries LIMIT 1",
        "/* watershed: lake */ SELECT count(*) FROM logs",
    ] {
        assert_eq!(kind_of(sql), Kind::Candidate, "{sql}");
    }
}

#[test]
fn everything_else_is_relayed() {
    for sql in [
        "SELECT 1",
        "SELECT count(*) FROM other",
        "SELECT count(*) FROM mixed",
        "SELECT 'count(*) FROM logs'",
        "SELECT count(*) FROM logs; SELECT 1",
        "INSERT INTO logs SELECT 1",
        "UPDATE logs SET level = 'x'",
        "COPY logs TO STDOUT",
        "SELECT count(*) INTO t FROM logs",
        "SELECT 'unterminated FROM logs",
        "BEGIN",
        "",
        ";",
    ] {
        assert!(matches!(kind_of(sql), Kind::Relay(_)), "{sql}: {:?}", kind_of(sql));
    }
}

#[test]
fn keyed_shapes_are_told_apart() {
    for (sql, word) in [
        ("SELECT * FROM logs WHERE host = 'a'", "lookup"),
        ("SELECT * FROM logs ORDER BY ts DESC LIMIT 10", "ORDER BY"),
        ("SELECT * FROM logs", "scan"),
        ("SELECT * FROM logs FOR UPDATE", "locks"),
    ] {
        match kind_of(sql) {
            Kind::Keyed(reason) => assert!(reason.contains(word), "{sql}: {reason}"),
            other => panic!("{sql}: {other:?}"),
        }
    }
}

#[test]
fn explain_finds_its_inner_statement() {
    for sql in [
        "EXPLAIN SELECT count(*) FROM logs;",
        "explain analyze select count(*) from logs",
        "explain analyse verbose select count(*) from logs",
        "EXPLAIN (ANALYZE, COSTS OFF) SELECT count(*) FROM logs WHERE level = 'ä'",
        "EXPLAIN (FORMAT TEXT) SELECT count(*) FROM logs",
    ] {
        match kind_of(sql) {
            Kind::Explain(inner) => {
                assert!(inner.to_lowercase().starts_with("select count(*) from logs"), "{sql}: {inner}");
            }
            other => panic!("{sql}: {other:?}"),
        }
    }
    assert!(matches!(kind_of("EXPLAIN (FORMAT JSON) SELECT count(*) FROM logs"), Kind::Relay(_)));
    assert!(matches!(kind_of("EXPLAIN SELECT 1"), Kind::Relay(_)));
    for sql in [
        "EXPLAIN CREATE TABLE t AS SELECT count(*) FROM logs",
        "EXPLAIN (COSTS OFF) CREATE TABLE t AS TABLE logs",
        "EXPLAIN ANALYZE INSERT INTO t SELECT count(*) FROM logs",
        "EXPLAIN DECLARE c CURSOR FOR SELECT count(*) FROM logs",
    ] {
        assert!(matches!(kind_of(sql), Kind::Relay(_)), "{sql}");
    }
}

#[test]
fn hints_count_only_in_front() {
    let hint = |sql: &str| classify(sql, &names()).hint;
    assert_eq!(hint("/* watershed: lake */ SELECT 1"), Some(Override::Lake));
    assert_eq!(hint("-- a\n/* watershed: postgres */ SELECT 1"), Some(Override::Postgres));
    assert_eq!(hint("SELECT 1 /* watershed: lake */"), None);
    assert_eq!(hint("/* other */ SELECT 1"), None);
}

#[test]
fn a_new_catalog_empties_the_cache() {
    let cache = Cache::default();
    assert!(matches!(cache.get("SELECT count(*) FROM late", 1, &names()).kind, Kind::Relay(_)));
    let mut more = names();
    more.insert("late".into(), NameKind::Tiered);
    assert_eq!(cache.get("SELECT count(*) FROM late", 2, &more).kind, Kind::Candidate);
}

proptest::proptest! {
    #[test]
    fn no_text_panics(sql in "\\PC{0,80}") {
        let _ = classify(&sql, &names());
    }

    #[test]
    fn no_sql_like_text_panics(words in proptest::collection::vec(proptest::sample::select(vec![
        "EXPLAIN", "(", ")", "SELECT", "FORMAT", "json", "logs", "'", "$$", "/*", "*/", ";", "WITH", "count", "ä", "\"",
    ]), 0..20)) {
        let _ = classify(&words.join(" "), &names());
    }
}
