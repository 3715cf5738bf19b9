use lake::types::ColType;
use super::probe::{Facts, Settings, Trees, Window, tail_leg, tails_sql, visible_at};
use super::state::{Expect, State, TxStatus};
use crate::wire::message::Fields;

fn notice<'a>(buffer: &'a mut Vec<u8>, fields: &[(u8, &str)]) -> Fields<'a> {
    buffer.clear();
    for (code, value) in fields {
        buffer.push(*code);
        buffer.extend(value.as_bytes());
        buffer.push(0);
    }
    buffer.push(0);
    Fields::read(buffer).unwrap()
}

const TREE: [(u8, &str); 5] =
    [(b'V', "LOG"), (b'M', "rewritten parse tree:"), (b'D', "({QUERY})"), (b'F', "print.c"), (b'R', "elog_node_display")];

fn window(notices: &[&[(u8, &str)]]) -> Trees {
    let mut w = Window::default();
    let mut buffer = Vec::new();
    for n in notices {
        w.notice(&notice(&mut buffer, n));
    }
    w.close()
}

#[test]
fn one_genuine_tree_is_accepted() {
    assert_eq!(window(&[&TREE]), Trees::One("({QUERY})".into()));
    assert_eq!(window(&[&[(b'V', "NOTICE"), (b'M', "hello")], &TREE]), Trees::One("({QUERY})".into()));
    assert_eq!(window(&[]), Trees::None);
}

#[test]
fn anything_else_is_doubtful() {
    let mut with_context = TREE.to_vec();
    with_context.push((b'W', "SQL function \"f\""));
    let forged: &[(u8, &str)] = &[
        (b'V', "LOG"),
        (b'M', "rewritten parse tree:"),
        (b'D', "({QUERY})"),
        (b'F', "pl_exec.c"),
        (b'R', "exec_stmt_raise"),
    ];
    assert_eq!(window(&[&with_context]), Trees::Doubtful);
    assert_eq!(window(&[forged]), Trees::Doubtful);
    assert_eq!(window(&[forged, &TREE]), Trees::Doubtful);
    assert_eq!(window(&[&TREE, forged]), Trees::Doubtful);
    assert_eq!(window(&[&TREE, &TREE]), Trees::Doubtful);
    assert_eq!(window(&[&TREE, &[(b'V', "NOTICE"), (b'M', "after")]]), Trees::Doubtful);
}

#[test]
fn notices_keep_the_clients_level() {
    assert!(visible_at("notice", "NOTICE") && !visible_at("warning", "NOTICE"));
    assert!(visible_at("warning", "WARNING") && !visible_at("error", "WARNING"));
    assert!(visible_at("error", "INFO") && !visible_at("notice", "LOG"));
}

#[test]
fn timeouts_are_read_as_postgresql_prints_them() {
    let of = |s: &str| Settings { statement_timeout: s.into(), ..Settings::default() }.timeout_ms();
    assert_eq!(of("0"), None);
    assert_eq!(of("250ms"), Some(250));
    assert_eq!(of("5s"), Some(5_000));
    assert_eq!(of("2min"), Some(120_000));
}

#[test]
fn a_pipeline_is_answered_in_order() {
    let mut s = State::default();
    for e in [Expect::Parse(None), Expect::Bind(None), Expect::Describe, Expect::Execute(None), Expect::Sync] {
        s.sent(e);
    }
    for tag in [b'1', b'2', b'T', b'D', b'C'] {
        assert!(!s.settled());
        drop(s.received(tag));
    }
    drop(s.ready(b'T'));
    assert!(s.settled());
    assert_eq!(s.status(), TxStatus::Open);
}

#[test]
fn an_error_skips_to_sync() {
    let mut s = State::default();
    s.sent(Expect::Parse(None));
    s.sent(Expect::Bind(None));
    drop(s.failed(false));
    assert!(s.settled() && s.skipping());
    s.sent(Expect::Execute(None));
    assert!(s.settled(), "what is skipped is not answered");
    s.sent(Expect::Sync);
    assert!(!s.settled() && !s.skipping());
    drop(s.ready(b'E'));
    assert_eq!(s.status(), TxStatus::Failed);
}

#[test]
fn an_error_before_a_sent_sync_leaves_the_sync() {
    let mut s = State::default();
    for e in [Expect::Parse(None), Expect::Sync, Expect::Parse(None), Expect::Sync] {
        s.sent(e);
    }
    drop(s.failed(false));
    assert!(!s.skipping());
    drop(s.ready(b'I'));
    drop(s.received(b'1'));
    drop(s.ready(b'I'));
    assert!(s.settled());
}

#[test]
fn copy_in_swallows_a_pipelined_sync() {
    let mut s = State::default();
    s.sent(Expect::Execute(None));
    s.sent(Expect::Sync);
    drop(s.received(b'G'));
    assert!(s.copy_in());
    s.sent(Expect::CopyEnd);
    assert!(!s.copy_in());
    s.sent(Expect::Sync);
    drop(s.received(b'C'));
    assert!(!s.settled(), "the Sync behind the data is answered");
    drop(s.ready(b'I'));
    assert!(s.settled());
}

#[test]
fn copy_data_ahead_of_its_copy_leaves_what_follows() {
    let mut s = State::default();
    for e in [Expect::Query(None), Expect::CopyEnd, Expect::Query(None), Expect::CopyEnd, Expect::Query(None)] {
        s.sent(e);
    }
    for _ in 0..2 {
        drop(s.received(b'G'));
        assert!(!s.copy_in(), "its end was sent already");
        drop(s.received(b'C'));
        drop(s.ready(b'I'));
        assert!(!s.settled());
    }
    drop(s.received(b'C'));
    drop(s.ready(b'I'));
    assert!(s.settled());
}

#[test]
fn a_message_that_breaks_a_copy_is_not_answered_itself() {
    let mut s = State::default();
    s.sent(Expect::Query(None));
    drop(s.received(b'G'));
    s.sent(Expect::Query(None));
    assert!(!s.copy_in());
    drop(s.failed(true));
    drop(s.ready(b'I'));
    s.sent(Expect::CopyEnd);
    assert!(s.settled());
    // Where the data was wrong, the next statement was read as one.
    s.sent(Expect::Query(None));
    drop(s.received(b'G'));
    s.sent(Expect::Query(None));
    drop(s.failed(false));
    drop(s.ready(b'I'));
    assert!(!s.settled());
    drop(s.ready(b'I'));
    assert!(s.settled());
}

#[test]
fn the_end_of_data_that_nobody_reads_is_forgotten() {
    let mut s = State::default();
    s.sent(Expect::CopyEnd);
    assert!(s.settled());
    for e in [Expect::Parse(None), Expect::CopyEnd, Expect::Bind(None), Expect::CopyEnd, Expect::Sync] {
        s.sent(e);
    }
    drop(s.received(b'1'));
    drop(s.received(b'2'));
    drop(s.ready(b'I'));
    assert!(s.settled());
}

#[test]
fn a_query_is_owed_until_ready() {
    let mut s = State::default();
    s.sent(Expect::Query(None));
    for tag in [b'T', b'D', b'C', b'T', b'C'] {
        drop(s.received(tag));
        assert!(!s.settled());
    }
    drop(s.failed(false));
    assert!(!s.settled() && !s.skipping());
    drop(s.ready(b'I'));
    assert!(s.settled());
}

#[test]
fn names_of_the_tail_are_told_apart_by_their_quotes() {
    let text = |s: &str| Some(s.as_bytes().to_vec());
    let columns = "ts, \"a, b\", \"say \"\"x, y\"\"\", level";
    let facts = Facts::read(&[text("public.logs"), text(columns), text("t"), text("f"), text("ts")]).unwrap();
    let names: Vec<_> = (0..5).map(|i| facts.column(i)).collect();
    assert_eq!(names, [Some("ts"), Some("\"a, b\""), Some("\"say \"\"x, y\"\"\""), Some("level"), None]);
    let none = Facts { columns: String::new(), ..facts.clone() };
    assert_eq!(none.column(0), None);

    let tests = ["t.ts > 'x'".to_owned(), "t.level = 'y'".to_owned()];
    let held: lake::boundary::Boundary = "10:10:".parse().unwrap();
    let both = tail_leg(0, 7, &facts, Some((3, &held)), &tests, &[], &[]);
    assert!(both.contains(" AND t.ts > 'x' AND t.level = 'y') t ON true") && both.contains("_xid"), "{both}");
    let one = |tests| tail_leg(0, 7, &facts, None, tests, &[], &[]);
    assert!(one(&tests[..1]).contains("OPERATOR(pg_catalog.=) 0 AND t.ts > 'x') t ON true"));
    assert!(one(&[]).contains("FROM public.logs t WHERE watershed_control.cold_slot(t._stream, 0)"));

    // In the place of another table's columns stand NULLs of their types.
    let second = tail_leg(1, 8, &facts, None, &[], &[ColType::Int4, ColType::Uuid], &[ColType::NumericText]);
    assert!(second.starts_with("SELECT 1::pg_catalog.int4, "), "{second}");
    let nulls = "SELECT true, NULL::pg_catalog.\"int4\", NULL::pg_catalog.\"uuid\", ts, ";
    assert!(second.contains(nulls) && second.contains("level, NULL::pg_catalog.\"numeric\" FROM public.logs t"), "{second}");
    assert_eq!(tails_sql(&["a".into(), "b".into()]), "COPY (a UNION ALL b) TO STDOUT (FORMAT BINARY)");
}
