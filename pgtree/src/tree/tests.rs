use super::*;
use crate::read::Limits;
use proptest::prelude::*;

/// (name, statement, tree) of everything captured from PostgreSQL 15.
pub(crate) fn captured() -> Vec<(String, String, String)> {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trees");
    let mut all: Vec<_> = std::fs::read_dir(directory)
        .expect("captured trees")
        .map(|entry| {
            let path = entry.expect("entry").path();
            let text = std::fs::read_to_string(&path).expect("file");
            let (statement, tree) = text.split_once('\n').expect("two parts");
            let name = path.file_stem().expect("name").to_string_lossy().into_owned();
            (name, statement.trim_start_matches("-- ").to_owned(), tree.to_owned())
        })
        .collect();
    all.sort();
    all
}

fn tree(name: &str) -> Query {
    let (_, _, text) = captured().into_iter().find(|(n, ..)| n == name).expect("captured");
    parse(&text, Limits::default()).expect("a query")
}

#[test]
fn every_captured_tree_reads() {
    let all = captured();
    assert!(all.len() >= 17);
    for (name, statement, text) in all {
        let query = parse(&text, Limits::default()).unwrap_or_else(|e| panic!("{name}: {e}\n{statement}"));
        assert_eq!(query.command, Command::Select, "{name}");
    }
}

#[test]
fn a_grouped_statement() {
    let q = tree("group_filter");
    assert!(q.has_aggs && !q.has_sublinks && !q.has_row_security && !q.with_ties);
    let RteKind::Relation { relkind: 'p', sample: None, .. } = q.rtable[0].kind else { panic!() };
    assert_eq!(q.rtable[0].name, "logs");
    assert_eq!(q.rtable[0].required_perms, 2);
    assert_eq!(q.rtable[0].selected_cols, vec![1, 2, 3]);
    assert_eq!(q.from, vec![FromItem::Ref(1)]);
    assert_eq!(q.group, vec![SortGroup { target: 2, eqop: 98, sortop: 664, nulls_first: false }]);
    assert_eq!(q.sort, vec![SortGroup { target: 1, eqop: 410, sortop: 413, nulls_first: false }]);
    let Expr::Aggref(count) = &q.targets[1].expr else { panic!() };
    assert!(count.star && count.fnoid == 2803 && count.filter.is_some() && count.kind == 'n');
    let Some(Expr::Bool(BoolOp::And, parts)) = &q.quals else { panic!() };
    assert!(matches!(parts[1], Expr::ScalarArray { op: 98, func: 67, use_or: true, .. }));
    let Some(Expr::Func(limit)) = &q.limit_count else { panic!() };
    assert_eq!((limit.func, limit.type_oid), (481, crate::oid::INT8));
}

#[test]
fn views_are_subqueries_that_name_their_owner() {
    let q = tree("view_date_trunc");
    let RteKind::Subquery { query, security_barrier: false, .. } = &q.rtable[0].kind else { panic!() };
    // Entries OLD and NEW of the rule come first; the table itself is the one in FROM.
    let FromItem::Ref(index) = query.from[0] else { panic!() };
    assert_ne!(query.rtable[index - 1].check_as_user, 0);
    let barrier = tree("security_barrier");
    assert!(matches!(barrier.rtable[0].kind, RteKind::Subquery { security_barrier: true, .. }));
}

#[test]
fn parameters_and_types() {
    let q = tree("params");
    fn params(expr: &Expr, found: &mut Vec<(i64, u32, i64)>) {
        match expr {
            Expr::Param(p) => found.push((p.id, p.type_oid, p.kind)),
            Expr::Op(call) => call.args.iter().for_each(|e| params(e, found)),
            Expr::Bool(_, args) | Expr::ScalarArray { args, .. } => {
                args.iter().for_each(|e| params(e, found))
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    params(q.quals.as_ref().expect("quals"), &mut found);
    assert_eq!(found, vec![(1, 25, 0), (2, 1184, 0), (3, 1184, 0), (4, 1016, 0)]);
    assert!(matches!(&q.limit_count, Some(Expr::Param(p)) if p.type_oid == 20));
}

#[test]
fn type_modifiers_follow_expr_typmod() {
    let q = tree("expressions");
    let by_index: Vec<_> = q.targets.iter().map(|t| (t.expr.type_oid(), t.expr.typmod())).collect();
    assert_eq!(by_index[0], (1043, -1), "CASE of text and varchar(20)");
    assert_eq!(by_index[8], (1082, -1), "CURRENT_DATE");
    assert_eq!(by_index[17], (1043, 11), "t::varchar(7)");
    assert_eq!(by_index[18], (1700, (5 << 16 | 1) + 4), "numeric(5,1)");
    assert!(q.targets.iter().all(|t| !matches!(t.expr, Expr::Unknown(_))));
}

#[test]
fn rows_sub_selects_and_other_clauses() {
    let q = tree("rowcompare");
    let Some(Expr::Bool(BoolOp::And, parts)) = &q.quals else { panic!() };
    assert!(matches!(&parts[0], Expr::RowCompare { ops, left, right, .. } if ops.len() == left.len() && left.len() == right.len()));
    let q = tree("subqueries");
    assert!(q.has_sublinks && q.has_window_funcs && !q.windows.is_empty());
    assert!(q.ctes.len() == 1 && q.ctes[0].query.is_some());
    assert!(matches!(q.targets[0].expr, Expr::SubLink(_)));
    assert!(matches!(q.targets[2].expr, Expr::Window(_)));
    let two_rows = |r: &Rte| matches!(&r.kind, RteKind::Values { rows } if rows.len() == 2);
    assert!(q.rtable.iter().any(|r| two_rows(r)
        || matches!(&r.kind, RteKind::Subquery { query, .. } if query.rtable.iter().any(two_rows))));
    assert!(q.rtable.iter().any(|r| r.lateral));
    assert!(tree("set_operation").set_operations.is_some());
    assert!(!tree("for_update").row_marks.is_empty() && tree("for_update").has_for_update);
    assert!(!tree("grouping_sets").grouping_sets.is_empty());
    assert!(tree("distinct_on").has_distinct_on && tree("distinct_on").with_ties);
    assert!(tree("recursive").has_recursive);
    assert!(tree("srf").has_target_srfs);
}

#[test]
fn names_of_any_characters() {
    let q = tree("names");
    let names: Vec<_> = q.targets.iter().map(|t| t.name.clone().expect("name")).collect();
    assert_eq!(names, ["a b", "({})", "\\", "<>", "\"q\"", "12", ":resno", "new\nline\tтаб"]);
    assert_eq!(q.rtable[0].name, "t ( x");
}

#[test]
fn fields_of_another_version_do_no_harm() {
    for (name, _, text) in captured() {
        let plain = parse(&text, Limits::default()).expect("tree");
        let extended = text
            .replace(":commandType ", ":futureField {NEW :a (1 2) :b <>} :commandType ")
            .replace(":varno ", ":varnullingrels (b 3) :varno ")
            .replace(":rtekind ", ":perminfoindex 1 :rtekind ");
        assert_eq!(parse(&extended, Limits::default()).expect("tree"), plain, "{name}");
    }
}

#[test]
fn statements_rewritten_to_none_or_several() {
    assert_eq!(parse("<>", Limits::default()), Err(TreeError::NotQuery("value".into())));
    assert_eq!(parse("()", Limits::default()), Err(TreeError::NotOne(0)));
    let (_, _, text) = captured().remove(0);
    let inner = text.trim().trim_start_matches('(').trim_end_matches(')');
    assert_eq!(parse(&format!("({inner} {inner})"), Limits::default()), Err(TreeError::NotOne(2)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    /// A captured tree with bytes changed, removed or doubled: an error or a tree, never a panic.
    #[test]
    fn damaged_trees_do_no_harm(which in 0usize..64, at in 0.0f64..1.0, length in 0usize..40, with in "[ (){}\\[\\]:<>0-9a-zA-Z\\\\\"-]{0,6}") {
        let all = captured();
        let text = &all[which % all.len()].2;
        let mut start = (text.len() as f64 * at) as usize;
        while !text.is_char_boundary(start) { start -= 1; }
        let mut end = (start + length).min(text.len());
        while !text.is_char_boundary(end) { end -= 1; }
        let damaged = format!("{}{}{}", &text[..start], with, &text[end..]);
        if let Ok(query) = parse(&damaged, Limits::default()) {
            for target in &query.targets {
                let _ = (target.expr.type_oid(), target.expr.typmod(), target.expr.collation());
                if let Expr::Const(c) = &target.expr {
                    let _ = crate::value::from_datum(c.type_oid, c.datum.as_deref());
                }
            }
        }
    }
}
