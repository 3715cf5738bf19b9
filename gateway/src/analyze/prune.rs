//! Leaves out the outputs that nothing needs, so that scans and the tail carry only what is read. Pure.

use super::ir::{Expr, Rel, SetOp};
use std::collections::{BTreeMap, BTreeSet};

/// Keeps of `rel` what `needed` outputs need; adds the attribute numbers that each scan keeps to `attnums`.
pub fn prune(rel: &mut Rel, needed: &BTreeSet<usize>, attnums: &mut BTreeMap<u32, BTreeSet<i16>>) {
    match rel {
        Rel::OneRow | Rel::Values { .. } | Rel::Series { .. } => {}
        Rel::Scan { source, columns, .. } => {
            columns.retain(|c| needed.contains(&c.output));
            attnums.entry(*source).or_default().extend(columns.iter().map(|c| c.attnum));
        }
        Rel::Filter { input, predicate } => prune(input, &with(needed, [&*predicate]), attnums),
        Rel::Project { input, outputs, .. } => {
            outputs.retain(|(number, _)| needed.contains(number));
            let below = with(&BTreeSet::new(), outputs.iter().map(|(_, e)| e));
            prune(input, &below, attnums);
        }
        Rel::Aggregate { input, groups, aggregates } => {
            let read = groups.iter().chain(aggregates.iter().flat_map(|a| a.arg.iter().chain(&a.filter)));
            let below = with(&BTreeSet::new(), read);
            prune(input, &below, attnums);
        }
        Rel::Distinct { input } => {
            let all = (0..input.width()).collect();
            prune(input, &all, attnums);
        }
        Rel::Sort { input, keys } => prune(input, &with(needed, keys.iter().map(|k| &k.expr)), attnums),
        Rel::Limit { input, .. } => prune(input, needed, attnums),
        Rel::SetOp { op, left, right } => {
            // Rows are told apart by all columns.
            let all = (0..left.width()).collect();
            let needed = if *op == SetOp::UnionAll { needed } else { &all };
            prune(left, needed, attnums);
            prune(right, needed, attnums);
        }
        Rel::Attach { input, value } => {
            let width = input.width();
            prune(input, &needed.iter().filter(|n| **n < width).copied().collect(), attnums);
            prune(value, &[0].into(), attnums);
        }
        Rel::Window { input, calls } => {
            let width = input.width();
            let below = needed.iter().filter(|n| **n < width).copied().collect();
            prune(input, &with(&below, calls.iter().flat_map(|c| c.reads())), attnums);
        }
        Rel::DistinctOn { input, keys, sort } => {
            let mut all = with(needed, sort.iter().map(|k| &k.expr));
            all.extend(keys.iter().copied());
            prune(input, &all, attnums);
        }
        Rel::Single { input } => prune(input, &[0].into(), attnums),
        Rel::After { first, then } => {
            // All of it is computed for its errors.
            first.iter_mut().for_each(|rel| prune(rel, &(0..rel.width()).collect(), attnums));
            prune(then, needed, attnums);
        }
        Rel::Join { kind, left, right, on } => {
            let split = left.width();
            let shown = |n: &&usize| kind.shows_right() || **n < split;
            let needed = with(&needed.iter().filter(shown).copied().collect(), on.iter());
            let (of_left, of_right): (Vec<usize>, Vec<usize>) = needed.iter().partition(|n| **n < split);
            prune(left, &of_left.into_iter().collect(), attnums);
            prune(right, &of_right.into_iter().map(|n| n - split).collect(), attnums);
        }
    }
}

fn with<'e>(needed: &BTreeSet<usize>, exprs: impl IntoIterator<Item = &'e Expr>) -> BTreeSet<usize> {
    let mut all = needed.clone();
    for expr in exprs {
        expr.columns(&mut |number| {
            all.insert(number);
        });
    }
    all
}
