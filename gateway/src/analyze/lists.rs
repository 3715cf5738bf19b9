//! Lists that one expression is compared with, several times in one condition. DataFusion makes one list of two: of none in common it makes `false`
//! of `x IN (1) AND x IN (2)`, and `true` of `x NOT IN (1) OR x NOT IN (2)`, where x may be NULL (`inlist_intersection`); it makes lists of
//! `x = 1 OR x = 2` as well. Such conditions are PostgreSQL's. Pure.

use super::grouping::named;
use super::ir::{Compare, Expr, Node, Rel};
use super::relation::reads_nothing;

/// Whether some condition of a plan has two lists for one expression, wherever sub-selects hide them.
pub(super) fn meet(plan: &Rel) -> bool {
    let base = match plan {
        Rel::Join { .. } => plan,
        _ => plan.inputs().first().copied().unwrap_or(plan),
    };
    let mut origins = Vec::new();
    plan.expressions().into_iter().any(|expr| in_one(&named(expr, base, &mut origins))) || plan.inputs().into_iter().any(meet)
}

fn in_one(expr: &Expr) -> bool {
    let (mut lists, mut apart) = (Vec::new(), Vec::new());
    collect(expr, &mut lists, &mut apart);
    (0..lists.len()).any(|i| lists[..i].contains(&lists[i])) || apart.into_iter().any(in_one)
}

/// What lists of one condition are about; and expressions within it that are conditions of their own.
fn collect<'e>(expr: &'e Expr, lists: &mut Vec<&'e Expr>, apart: &mut Vec<&'e Expr>) {
    match &expr.node {
        Node::And(items) => items.iter().for_each(|item| collect(item, lists, apart)),
        Node::Or(items) => {
            let before = lists.len();
            items.iter().for_each(|item| collect(item, lists, apart));
            let mut equal = Vec::new();
            alternatives(expr, &mut equal);
            for (i, arg) in equal.iter().enumerate() {
                // Beside a list of the same OR they become part of it.
                if equal[..i].contains(arg) && !lists[before..].contains(arg) {
                    lists.push(arg);
                }
            }
        }
        Node::Not(arg) => collect(arg, lists, apart),
        Node::InList { arg, .. } => {
            lists.push(arg);
            apart.push(arg);
        }
        _ => apart.extend(expr.children()),
    }
}

/// The expressions that alternatives compare with a constant.
fn alternatives<'e>(expr: &'e Expr, equal: &mut Vec<&'e Expr>) {
    match &expr.node {
        Node::Or(items) => items.iter().for_each(|item| alternatives(item, equal)),
        Node::Compare(Compare::Eq, a, b) if reads_nothing(b) => equal.push(a),
        Node::Compare(Compare::Eq, a, b) if reads_nothing(a) => equal.push(b),
        _ => {}
    }
}
