//! Leaves out the outputs that nothing needs, so that scans and the tail carry only what is read. Pure.

use super::ir::{Expr, Rel};
use std::collections::{BTreeMap, BTreeSet};

/// Keeps of `rel` what `needed` outputs need; adds the attribute numbers that each scan keeps to `attnums`.
pub fn prune(rel: &mut Rel, needed: &BTreeSet<usize>, attnums: &mut BTreeMap<u32, BTreeSet<i16>>) {
    match rel {
        Rel::OneRow => {}
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
        Rel::Join { left, right, on, .. } => {
            let needed = with(needed, on.iter());
            let split = left.width();
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
