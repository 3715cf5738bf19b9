//! Trees of every node that a SELECT can hold (`nodes.sql`, captured by `scripts/trees.sh nodes` from PostgreSQL 15, 17 and 18): each is read whole.

mod audit;

use pgtree::Limits;
use pgtree::tree::{self, Expr, Part, Query, RteKind};
use std::collections::{BTreeMap, BTreeSet};

/// Name, text and tree of everything captured from one version.
fn captured(folder: &str) -> BTreeMap<String, (String, Query)> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("a file");
        let tree = text.split_once('\n').expect("a statement, then its tree").1.to_owned();
        let query = tree::parse(&tree, Limits::default()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        (name, (tree, query))
    };
    std::fs::read_dir(folder).expect("captured trees").map(read).collect()
}

const FOLDERS: [&str; 3] = ["trees", "trees-17", "trees-18"];

#[test]
fn the_walk_finds_what_the_text_holds() {
    for folder in FOLDERS {
        let all = captured(folder);
        assert!(all.len() >= 37, "{folder} holds {}", all.len());
        for (name, (text, query)) in all {
            assert_eq!(audit::unknown(&query), Vec::<String>::new(), "{folder}/{name}");
            assert_eq!(audit::missed(&text, &query), BTreeMap::new(), "{folder}/{name}");
        }
    }
}

/// The test above would notice: with a node's name changed the walk no longer reaches what is below it.
#[test]
fn what_is_not_known_is_missed() {
    let (text, _) = &captured("trees")["row"];
    let damaged = text.replace("{ROWEXPR", "{NEWEXPR");
    let query = tree::parse(&damaged, Limits::default()).expect("still a tree");
    assert_eq!(audit::unknown(&query), ["NEWEXPR", "NEWEXPR"]);
    assert_eq!(audit::missed(&damaged, &query).into_keys().collect::<Vec<_>>(), ["column 1.1 of 0", "column 1.2 of 0"]);
}

/// What is rewritten is what is walked over, and stays as it is if nothing is changed.
#[test]
fn a_rewrite_reaches_every_expression() {
    for folder in FOLDERS {
        for (name, (_, query)) in captured(folder) {
            let (mut seen, mut reached) = (0, 0);
            tree::walk(&query, &mut |part| seen += usize::from(matches!(part, Part::Expr(_))));
            let mut same = query.clone();
            tree::rewrite(&mut same, &mut |_| reached += 1);
            assert_eq!((reached, same), (seen, query), "{folder}/{name}");
        }
    }
}

/// The variants of an expression that captured trees hold, by the names that they are printed with.
fn variants(all: &BTreeMap<String, (String, Query)>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (_, query) in all.values() {
        tree::walk(query, &mut |part| match part {
            Part::Expr(expr) => {
                let text = format!("{expr:?}");
                names.insert(text.split([' ', '(']).next().unwrap_or_default().to_owned());
            }
            Part::Entry(rte) => {
                let text = format!("{:?}", rte.kind);
                names.insert(format!("entry {}", text.split([' ', '(']).next().unwrap_or_default()));
            }
            _ => {}
        });
    }
    names
}

#[test]
fn every_node_was_captured() {
    let of_15 = [
        "Aggref", "Array", "ArrayCoerce", "Bool", "BooleanTest", "Case", "CaseTest", "Coalesce", "CoerceToDomain", "CoerceViaIo", "Collate", "Const",
        "ConvertRowtype", "Distinct", "Field", "Func", "Grouping", "MinMax", "NamedArg", "NullIf", "NullTest", "Op", "Param", "Relabel", "Row",
        "RowCompare", "ScalarArray", "SqlValue", "SubLink", "Subscript", "Var", "Window", "Xml", "entry Cte", "entry Function", "entry Join",
        "entry Relation", "entry Subquery", "entry TableFunction", "entry Values",
    ];
    // Not among them: what only INSERT, UPDATE, domains and triggers have (SetToDefault, NextValue, CurrentOf, DomainValue, NamedTuplestore), and
    // Result, which planning makes.
    let found = variants(&captured("trees"));
    assert_eq!(of_15.iter().filter(|n| !found.contains(**n)).collect::<Vec<_>>(), Vec::<&&str>::new());
    assert!(variants(&captured("trees-17")).contains("Json"));
    assert!(variants(&captured("trees-18")).contains("entry Group"));
}

/// What a statement's tree says, as far as versions agree on it: its columns, and each function and operator in it with how often.
fn meaning(query: &Query) -> (Vec<(Option<String>, u32, i32, u32)>, BTreeMap<String, usize>) {
    let columns = query.targets.iter().filter(|t| !t.junk);
    let columns = columns.map(|t| (t.name.clone(), t.expr.type_oid(), t.expr.typmod(), t.expr.collation())).collect();
    let mut calls = BTreeMap::new();
    tree::walk(query, &mut |part| {
        let call = match part {
            Part::Expr(Expr::Func(c)) => format!("function {}", c.func),
            Part::Expr(Expr::Op(c) | Expr::Distinct(c) | Expr::NullIf(c)) => format!("operator {} {}", c.op, c.func),
            Part::Expr(Expr::Aggref(a)) => format!("aggregate {}", a.fnoid),
            Part::Expr(Expr::Window(w)) => format!("window {}", w.call.fnoid),
            Part::Entry(rte) if matches!(rte.kind, RteKind::Relation { .. }) && rte.required_perms != 0 => {
                format!("right {} of {} to {:?}", rte.required_perms, rte.check_as_user, rte.selected_cols)
            }
            _ => return,
        };
        *calls.entry(call).or_default() += 1;
    });
    (columns, calls)
}

#[test]
fn other_versions_say_the_same() {
    let ours = captured("trees");
    for folder in &FOLDERS[1..] {
        let mut compared = 0;
        for (name, (_, query)) in captured(folder) {
            // Where a view's own rights stand is another matter; 18 groups in an entry of its own, and names no function twice.
            let Some((_, own)) = ours.get(&name).filter(|_| !["views", "joins", "grouped_by", "grouped_outside"].contains(&name.as_str()))
            else {
                continue;
            };
            assert_eq!(meaning(&query), meaning(own), "{folder}/{name}");
            compared += 1;
        }
        assert!(compared >= 28, "{folder}: {compared}");
    }
}

/// Rights that stand in a list of their own are those that the entries held before: of a view, its base tables and a table of policies.
#[test]
fn rights_are_found_in_every_version() {
    let rights = |folder: &str, name: &str| {
        let mut found = BTreeMap::new();
        tree::walk(&captured(folder)[name].1, &mut |part| {
            if let Part::Entry(rte) = part
                && rte.required_perms != 0
            {
                let relid = rte.kind.relid().expect("of a relation");
                *found.entry((relid, rte.required_perms, rte.check_as_user, rte.selected_cols.clone())).or_insert(0) += 1;
            }
        });
        found
    };
    for name in ["views", "joins", "row_security_alone", "sub_selects", "with"] {
        let ours = rights("trees", name);
        assert!(!ours.is_empty());
        for folder in &FOLDERS[1..] {
            assert_eq!(rights(folder, name), ours, "{folder}/{name}");
        }
    }
}
