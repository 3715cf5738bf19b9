//! Whether the typed tree holds all that a text holds: what a walk over the generic nodes counts, less what the typed walk shows. Shared by the
//! tests and the example that reads a server's log.

use pgtree::Limits;
use pgtree::read::{self, Item, Node};
use pgtree::tree::{self, Expr, FromItem, Part, Query, RteKind, SetOp, SubLinkKind};
use std::collections::BTreeMap;

type Counts = BTreeMap<String, i64>;

/// What stands in the text of one SELECT and is not found in its tree, or the other way round (then less than nothing). WITH queries that are not
/// SELECTs are left out.
pub fn missed(text: &str, query: &Query) -> Counts {
    let mut counts = Counts::new();
    let item = read::read(text, Limits::default()).expect("it was read before");
    of_text(&item, &mut counts);
    tree::walk(query, &mut |part| of_tree(part, &mut |what| *counts.entry(what).or_default() -= 1));
    counts.retain(|_, count| *count != 0);
    counts
}

/// Names of what the tree knows no more than by name.
pub fn unknown(query: &Query) -> Vec<String> {
    let mut names = Vec::new();
    tree::walk(query, &mut |part| match part {
        Part::Expr(Expr::Unknown(name)) | Part::From(FromItem::Unknown(name)) => names.push(name.clone()),
        Part::From(FromItem::Join { kind: tree::JoinKind::Other(kind), .. }) => names.push(format!("join of kind {kind}")),
        Part::Entry(rte) => {
            if let RteKind::Unknown(kind) = rte.kind {
                names.push(format!("range table entry of kind {kind}"));
            }
        }
        Part::Sets(node) => {
            if let SetOp::Other(op) = node.op {
                names.push(format!("set operation {op}"));
            }
        }
        _ => {}
    });
    names
}

fn number(node: &Node<'_>, field: &str) -> String {
    node.get(field).and_then(Item::text).unwrap_or_default().into_owned()
}

fn of_text(item: &Item<'_>, counts: &mut Counts) {
    let node = match item {
        Item::List(_, items) => return items.iter().for_each(|item| of_text(item, counts)),
        Item::Node(node) => node,
        _ => return,
    };
    let n = |field: &str| number(node, field);
    let mut found = |what: String| *counts.entry(what).or_default() += 1;
    match node.name {
        "QUERY" if n("commandType") != "1" => return,
        "QUERY" => found("query".into()),
        "RANGETBLENTRY" => {
            if !["", "0"].contains(&n("relid").as_str()) {
                found(format!("relation {}", n("relid")));
            }
            if !["", "0"].contains(&n("requiredPerms").as_str()) {
                found(format!("right {} of {}", n("requiredPerms"), n("checkAsUser")));
            }
        }
        "RTEPERMISSIONINFO" if n("requiredPerms") != "0" => {
            found(format!("right {} of {}", n("requiredPerms"), n("checkAsUser")))
        }
        "VAR" => found(format!("column {}.{} of {}", n("varno"), n("varattno"), n("varlevelsup"))),
        "CONST" => found(format!("constant of {}", n("consttype"))),
        "PARAM" => found(format!("parameter {}.{}", n("paramkind"), n("paramid"))),
        "FUNCEXPR" => found(format!("function {}", n("funcid"))),
        "AGGREF" => found(format!("function {}", n("aggfnoid"))),
        "WINDOWFUNC" => found(format!("function {}", n("winfnoid"))),
        "TABLESAMPLECLAUSE" => found(format!("function {}", n("tsmhandler"))),
        "OPEXPR" | "DISTINCTEXPR" | "NULLIFEXPR" | "SCALARARRAYOPEXPR" => found(format!("operator {} {}", n("opno"), n("opfuncid"))),
        "ROWCOMPAREEXPR" | "ROWCOMPARE" => {
            node.numbers("opnos").expect("operators").into_iter().for_each(|op| found(format!("operator {op}")));
        }
        "CTECYCLECLAUSE" => found(format!("operator {}", n("cycle_mark_neop"))),
        "SORTGROUPCLAUSE" => found(format!("sorted by {} {}", n("eqop"), n("sortop"))),
        "WINDOWCLAUSE" => {
            for field in ["startInRangeFunc", "endInRangeFunc"] {
                if n(field) != "0" {
                    found(format!("function {}", n(field)));
                }
            }
        }
        "NEXTVALUEEXPR" => found(format!("sequence {}", n("seqid"))),
        "ROWMARKCLAUSE" => found("lock".into()),
        "SUBLINK" => found(format!("sub-select {}", n("subLinkType"))),
        _ => {}
    }
    // The call of a COPY or CALL before its analysis stands beside the analyzed one.
    node.fields().for_each(|(_, item)| of_text(item, counts));
}

fn of_tree(part: Part<'_>, found: &mut dyn FnMut(String)) {
    match part {
        Part::Query(query) => {
            found("query".into());
            query.row_marks.iter().for_each(|_| found("lock".into()));
            query.ctes.iter().filter_map(|c| c.cycle.as_ref()).for_each(|c| found(format!("operator {}", c.operator)));
        }
        Part::Entry(rte) => {
            if let Some(relid) = rte.kind.relid() {
                found(format!("relation {relid}"));
            }
            if rte.required_perms != 0 {
                found(format!("right {} of {}", rte.required_perms, rte.check_as_user));
            }
        }
        Part::Sort(sort) => found(format!("sorted by {} {}", sort.eqop, sort.sortop)),
        Part::Sample(sample) => found(format!("function {}", sample.handler)),
        Part::Window(window) => window.in_range.iter().filter(|f| **f != 0).for_each(|f| found(format!("function {f}"))),
        Part::From(_) | Part::Sets(_) => {}
        Part::Expr(expr) => match expr {
            Expr::Var(v) => found(format!("column {}.{} of {}", v.varno, v.attno, v.levels_up)),
            Expr::Const(c) => found(format!("constant of {}", c.type_oid)),
            Expr::Param(p) => found(format!("parameter {}.{}", p.kind, p.id)),
            Expr::Func(call) => found(format!("function {}", call.func)),
            Expr::Aggref(call) => found(format!("function {}", call.fnoid)),
            Expr::Window(call) => found(format!("function {}", call.call.fnoid)),
            Expr::Op(call) | Expr::Distinct(call) | Expr::NullIf(call) => found(format!("operator {} {}", call.op, call.func)),
            Expr::ScalarArray { op, func, .. } => found(format!("operator {op} {func}")),
            Expr::RowCompare { ops, .. } => ops.iter().for_each(|op| found(format!("operator {op}"))),
            Expr::NextValue { sequence, .. } => found(format!("sequence {sequence}")),
            Expr::SubLink(link) => {
                use SubLinkKind::*;
                let order = [Exists, All, Any, RowCompare, Scalar, MultiExpr, Array, Cte];
                let kind = order.iter().position(|kind| *kind == link.kind).expect("a kind");
                found(format!("sub-select {kind}"));
            }
            _ => {}
        },
    }
}
