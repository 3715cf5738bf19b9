//! The table against a real server's catalog, and the page against the table.

use super::*;
use crate::plan::tests::client;
use crate::plan::tests::pg::Answer;
use std::collections::{BTreeMap, BTreeSet};

fn text(value: Option<Vec<u8>>) -> String {
    String::from_utf8(value.expect("a value")).expect("text")
}

fn rows(sql: &str) -> Vec<Vec<String>> {
    let rows = client().query(sql).expect("an answer").rows;
    rows.iter().map(|r| Answer::values(r).into_iter().map(text).collect()).collect()
}

/// Name, argument types, result type of a row, as the catalog has them.
fn signature<M>(row: &Row<M>) -> (String, String, String) {
    let args: Vec<String> = row.2.iter().map(u32::to_string).collect();
    (row.1.to_owned(), args.join(" "), row.3.to_string())
}

#[test]
fn names_and_signatures_are_those_of_the_server() {
    let catalog: BTreeMap<u32, (String, Vec<String>)> =
        rows("SELECT oid, prokind::text, proname::text, proargtypes::text, prorettype::text FROM pg_proc WHERE oid < 10000")
            .into_iter()
            .map(|mut r| {
                let rest = r.split_off(2);
                (r[0].parse().expect("an oid"), (r[1].clone(), rest))
            })
            .collect();
    let mut checked = 0;
    let mut check = |oid: u32, kind: &str, (name, args, result): (String, String, String)| {
        let (found_kind, found) =
            catalog.get(&oid).unwrap_or_else(|| panic!("{oid} {name} is not in pg_proc"));
        assert_eq!((found_kind.as_str(), found), (kind, &vec![name, args, result]), "{oid}");
        checked += 1;
    };
    functions::FUNCTIONS.iter().for_each(|row| check(row.0, "f", signature(row)));
    aggregates::AGGREGATES.iter().for_each(|row| check(row.0, "a", signature(row)));
    assert!(checked > 350, "{checked}");
}

#[test]
fn operators_are_those_of_the_server() {
    let catalog: BTreeMap<u32, Vec<String>> =
        rows("SELECT oid, oprname::text, oprcode::oid::text, oprleft::text, oprright::text FROM pg_operator WHERE oid < 10000")
            .into_iter()
            .map(|mut r| {
                let rest = r.split_off(1);
                (r[0].parse().expect("an oid"), rest)
            })
            .collect();
    for (op, symbol, func, left, right) in operators::OPERATORS {
        let ours = vec![symbol.to_string(), func.to_string(), left.to_string(), right.to_string()];
        assert_eq!(catalog.get(op), Some(&ours), "{op}");
        assert!(
            function(*func).is_some_and(|f| f.args.len() == if *left == 0 { 1 } else { 2 }),
            "{op} {symbol}"
        );
    }
    for (op, c) in oid::comparisons() {
        let row = catalog.get(&op).expect("a comparison");
        assert_eq!(
            (row[0].as_str(), row[2].as_str(), row[3].as_str()),
            (c.compare.symbol(), c.left.to_string().as_str(), c.right.to_string().as_str())
        );
    }
}

/// Volatile functions may not be computed; what is stable depends on the session, and says so.
#[test]
fn what_is_computed_does_not_change_by_itself() {
    let volatility: BTreeMap<u32, String> =
        rows("SELECT oid, provolatile::text FROM pg_proc WHERE oid < 10000")
            .into_iter()
            .map(|r| (r[0].parse().expect("an oid"), r[1].clone()))
            .collect();
    for routine in functions::FUNCTIONS.iter().map(routine) {
        match (routine.rule, volatility[&routine.oid].as_str()) {
            (Rule::Never(_), _) | (_, "i") | (Rule::When(..), "s") => {}
            (_, other) => panic!("{} ({}) is {other}", routine.name, routine.oid),
        }
    }
}

#[test]
fn rows_are_sorted_and_casts_are_through_text() {
    assert!(functions::FUNCTIONS.is_sorted_by(|a, b| a.0 < b.0));
    assert!(aggregates::AGGREGATES.is_sorted_by(|a, b| a.0 < b.0));
    assert!(operators::OPERATORS.is_sorted_by(|a, b| a.0 < b.0));
    let with_function: BTreeSet<(u32, u32)> =
        rows("SELECT castsource::text, casttarget::text FROM pg_cast WHERE castfunc <> 0")
            .into_iter()
            .map(|r| (r[0].parse().expect("an oid"), r[1].parse().expect("an oid")))
            .collect();
    for pair in casts::pairs() {
        assert!(!with_function.contains(&pair), "{pair:?} has a function of its own");
    }
    assert!(entries().len() > 400);
    assert!(
        entries().iter().all(|e| e.lake == "same" || !e.reason.is_empty()),
        "every verdict has its reason"
    );
    let nameless: Vec<_> =
        entries().into_iter().filter(|e| e.signature.contains('?') || e.result == "?").collect();
    assert!(nameless.is_empty(), "{nameless:?}");
}

#[test]
fn the_page_is_the_tables() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/compatibility.md");
    let written = std::fs::read_to_string(path).expect("docs/compatibility.md");
    // How the page is made where the program cannot be built: WATERSHED_WRITE_PAGE=1 runs this test to write it.
    if std::env::var_os("WATERSHED_WRITE_PAGE").is_some() {
        std::fs::write(path, page()).expect("the page");
        return;
    }
    assert!(written == page(), "docs/compatibility.md is not what `watershed compatibility` makes");
}
