use super::fingerprint::{fingerprint, mask, tokens};
use super::log::{KEPT, QueryLog};
use super::record::{Path, Record, Who};
use crate::classify::{Names, classify};
use std::sync::Arc;

fn masked(sql: &str) -> String {
    mask(tokens(sql).as_deref(), true)
}

#[test]
fn literals_spacing_comments_and_case_do_not_matter() {
    let a = masked("SELECT count(*) FROM logs  WHERE level = 'ERROR' AND n > 5;");
    let b = masked("select COUNT(*) /* now */ from logs\nwhere level='secret' and n > 1e9");
    assert_eq!(a.replace(' ', ""), b.replace(' ', ""));
    assert!(!a.contains("ERROR") && a.contains('?'));
    assert_ne!(fingerprint(&a), fingerprint(&masked("SELECT count(*) FROM events")));
}

#[test]
fn no_kind_of_literal_survives() {
    for sql in ["SELECT $$hidden$$", "SELECT E'hid\\nden hidden'", "SELECT U&'hidden'", "SELECT $tag$hidden$tag$", "SELECT B'1' , x'hidden0'"] {
        assert!(!masked(sql).contains("hidden"), "{sql} became {}", masked(sql));
    }
    assert_eq!(masked("SELECT 'unterminated secret"), "<unreadable statement>");
    assert_eq!(masked("SELECT \"Column\", $1"), "select \"Column\", $1");
}

#[test]
fn the_log_is_bounded_and_counts_by_route() {
    let log = Arc::new(QueryLog::default());
    let who = Arc::new(Who { pid: 1, usename: "u".into(), datname: "d".into() });
    let statement = Arc::new(classify("SELECT 1", &Names::new()));
    for i in 0..KEPT + 10 {
        let mut r = Record::open(&log, &who, "simple", &statement);
        r.entry.path = if i % 2 == 0 { Path::Lake } else { Path::Postgres };
        r.entry.lake_plan = (i > 700).then(|| format!("plan of {i}").into());
        r.row(3);
    }
    Record::open(&log, &who, "simple", &statement).discard();
    let recent = log.recent();
    assert_eq!(recent.len(), KEPT);
    assert!(recent.last().unwrap().lake_plan.is_some());
    assert_eq!(recent.iter().filter(|e| e.lake_plan.is_some()).count(), 500, "plans are kept of the newest");
    assert_eq!(recent.last().unwrap().id, (KEPT + 10) as i64);
    let stats = log.stats();
    assert_eq!(stats.len(), 2);
    assert_eq!(stats.iter().map(|s| s.calls).sum::<i64>(), (KEPT + 10) as i64);
    for s in &stats {
        assert_eq!(s.rows, s.calls);
        assert!(s.min_us <= s.quantile_us(0.5) && s.quantile_us(0.5) <= s.quantile_us(0.99) && s.quantile_us(0.99) <= s.max_us);
    }
}
