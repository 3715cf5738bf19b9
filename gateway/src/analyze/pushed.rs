//! What filters and join conditions say of the rows of each scan. Pure and conservative: a condition may be lost on the way down, never made up.

use super::ir::{Expr, JoinKind, Node, Rel, SetOp};

/// A condition that rows of a relation must fulfil to matter to the plan.
#[derive(Debug, Clone)]
struct Pushed {
    /// Over the outputs of the relation.
    condition: Expr,
    /// On its way it met nothing but filters, projections and joins, through which PostgreSQL pushes it as well.
    plain: bool,
}

/// Calls `f` with every scan of the plan, and the conditions over its outputs that the rows which matter fulfil; `true` stands beside those
/// that PostgreSQL's own pruning sees as well.
pub fn each_scan<'p>(plan: &'p Rel, f: &mut dyn FnMut(&'p Rel, &[(Expr, bool)])) {
    descend(plan, Vec::new(), f);
}

/// Every condition that decides which rows are kept or joined.
pub fn predicates(plan: &Rel) -> Vec<&Expr> {
    let mut all: Vec<&Expr> = plan.inputs().into_iter().flat_map(predicates).collect();
    match plan {
        Rel::Filter { predicate, .. } => all.push(predicate),
        Rel::Join { on: Some(on), .. } => all.push(on),
        _ => {}
    }
    all
}

fn descend<'p>(rel: &'p Rel, mut pushed: Vec<Pushed>, f: &mut dyn FnMut(&'p Rel, &[(Expr, bool)])) {
    match rel {
        Rel::OneRow | Rel::Values { .. } | Rel::Series { .. } => {}
        Rel::Scan { .. } => {
            let conditions: Vec<_> = pushed.into_iter().map(|p| (p.condition, p.plain)).collect();
            f(rel, &conditions);
        }
        Rel::Filter { input, predicate } => {
            let own = predicate.conjuncts().iter().map(|c| Pushed { condition: c.clone(), plain: true });
            pushed.extend(own);
            descend(input, pushed, f);
        }
        Rel::Project { input, outputs, .. } => {
            let of = |number: usize| outputs.iter().find(|(n, _)| *n == number).map(|(_, e)| e);
            descend(input, renamed(pushed, &of), f);
        }
        Rel::Aggregate { input, groups, .. } => {
            let pushed = renamed(pushed, &|number| groups.get(number));
            descend(input, pushed.into_iter().map(|p| Pushed { plain: false, ..p }).collect(), f);
        }
        Rel::Distinct { input } | Rel::Sort { input, .. } => {
            descend(input, pushed.into_iter().map(|p| Pushed { plain: false, ..p }).collect(), f);
        }
        // LIMIT chooses among all rows before the filter sees them.
        Rel::Limit { input, .. } => descend(input, Vec::new(), f),
        Rel::Join { kind, left, right, on } => {
            let split = left.width();
            let (mut to_left, mut to_right) = (Vec::new(), Vec::new());
            // Of what stands above: it sees the rows of a side as they are, or not at all where the side is filled up with NULLs.
            let (keeps_left, keeps_right) = match kind {
                JoinKind::Inner => (true, true),
                JoinKind::Left | JoinKind::Semi | JoinKind::Anti => (true, false),
                JoinKind::Right => (false, true),
                JoinKind::Full => (false, false),
            };
            for p in pushed {
                match side(&p.condition, split) {
                    Some(true) if keeps_left => to_left.push(p),
                    Some(false) if keeps_right => to_right.push(shifted(p, split)),
                    _ => {}
                }
            }
            // The join's own condition: rows that do not fulfil it are lost where nobody keeps them.
            let (drops_left, drops_right) = match kind {
                JoinKind::Inner | JoinKind::Semi => (true, true),
                JoinKind::Left | JoinKind::Anti => (false, true),
                JoinKind::Right => (true, false),
                JoinKind::Full => (false, false),
            };
            for condition in on.iter().flat_map(Expr::conjuncts) {
                let p = Pushed { condition: condition.clone(), plain: true };
                match side(condition, split) {
                    Some(true) if drops_left => to_left.push(p),
                    Some(false) if drops_right => to_right.push(shifted(p, split)),
                    _ => {}
                }
            }
            descend(left, to_left, f);
            descend(right, to_right, f);
        }
        // Outputs of both sides have the same numbers; what EXCEPT takes away matters only where it would have been kept.
        Rel::SetOp { op, left, right } => {
            let plain = *op == SetOp::UnionAll;
            let pushed: Vec<_> = pushed.into_iter().map(|p| Pushed { plain: p.plain && plain, ..p }).collect();
            descend(left, pushed.clone(), f);
            descend(right, pushed, f);
        }
        Rel::Attach { input, value } => {
            let width = input.width();
            pushed.retain(|p| side(&p.condition, width) == Some(true));
            descend(input, pushed, f);
            descend(value, Vec::new(), f);
        }
        // A window sees the rows that the filter drops, but no row of another partition.
        Rel::Window { input, calls } => {
            let is_part = |number: usize| {
                let same = |e: &Expr| matches!(e.node, Node::Column(n) if n == number);
                calls.iter().all(|c| c.partition.iter().any(same))
            };
            pushed.retain(|p| {
                let mut parts = true;
                p.condition.columns(&mut |n| parts &= is_part(n));
                parts
            });
            descend(input, pushed.into_iter().map(|p| Pushed { plain: false, ..p }).collect(), f);
        }
        Rel::DistinctOn { input, keys, .. } => {
            pushed.retain(|p| {
                let mut of_keys = true;
                p.condition.columns(&mut |n| of_keys &= keys.contains(&n));
                of_keys
            });
            descend(input, pushed.into_iter().map(|p| Pushed { plain: false, ..p }).collect(), f);
        }
        Rel::Single { input } => descend(input, Vec::new(), f),
        Rel::After { first, then } => {
            first.iter().for_each(|rel| descend(rel, Vec::new(), f));
            descend(then, pushed, f);
        }
    }
}

/// The conditions in terms of what the outputs are made of, where these are columns.
fn renamed<'e>(pushed: Vec<Pushed>, of: &dyn Fn(usize) -> Option<&'e Expr>) -> Vec<Pushed> {
    let rename = |mut p: Pushed| {
        let mut known = true;
        p.condition.renumber(&mut |number| match of(*number).map(|e| &e.node) {
            Some(Node::Column(below)) => *number = *below,
            _ => known = false,
        });
        known.then_some(p)
    };
    pushed.into_iter().filter_map(rename).collect()
}

/// True: the condition reads columns of the left only; false: of the right only.
fn side(condition: &Expr, split: usize) -> Option<bool> {
    let (mut left, mut right) = (false, false);
    condition.columns(&mut |n| if n < split { left = true } else { right = true });
    (left != right).then_some(left)
}

fn shifted(mut p: Pushed, by: usize) -> Pushed {
    p.condition.renumber(&mut |n| *n -= by);
    p
}
