//! ORDER BY a column LIMIT n without reading what cannot be among the first n. ✗ sorting, which stays DataFusion's.
//!
//! Statistics know, of files and of pages, how many rows they hold and the bound of the column's values. From these
//! follows a value that at least n rows reach: with the condition `column >= value` (or `<=`) the scan leaves out all
//! files, row groups and pages beyond it. That holds where nothing is filtered between scan and sort. Where something
//! is, the files are at least read in the order of the sort, so that the filter of a running top-k leaves out the rest.

use std::any::Any;
use std::sync::Arc;

use datafusion::catalog::default_table_source::DefaultTableSource;
use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::datasource::provider_as_source;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, TableScan};

use super::optimizer::computes;
use super::provider::TieredProvider;

/// The order in which a scan's rows are wanted first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    /// By name in the provider's schema.
    pub(super) column: String,
    pub(super) descending: bool,
}

/// What a top-n asks of the scan below it.
struct Wanted {
    order: Order,
    rows: usize,
    /// Nothing between scan and sort drops rows.
    unfiltered: bool,
}

/// Tells the scan below a top-n what it may leave out. Any other plan stays as it is.
pub(super) async fn narrow(plan: LogicalPlan) -> Result<LogicalPlan> {
    let Some((wanted, provider)) = find(&plan).filter(|_| !computes(&plan)) else { return Ok(plan) };
    let reached = match wanted.unfiltered {
        true => provider.reached(&wanted.order, wanted.rows).await?,
        false => None,
    };
    let ordered = Arc::new(provider.in_order(wanted.order.clone()));
    plan.transform_up(|node| match node {
        LogicalPlan::TableScan(mut scan) if provider_of(&scan).is_some() => {
            scan.source = provider_as_source(ordered.clone());
            if let Some(value) = &reached {
                let name = wanted.order.column.clone();
                let column = Expr::Column(Column::new(Some(scan.table_name.clone()), name));
                let value = Expr::Literal(value.clone(), None);
                scan.filters.push(match wanted.order.descending {
                    true => column.gt_eq(value),
                    false => column.lt_eq(value),
                });
            }
            Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
        }
        other => Ok(Transformed::no(other)),
    })
    .data()
}

/// The one top-n over a scan of a tiered table, if the plan has one.
fn find(plan: &LogicalPlan) -> Option<(Wanted, TieredProvider)> {
    if let LogicalPlan::Sort(sort) = plan
        && let (Some(rows), Some(key)) = (sort.fetch, sort.expr.first())
        && let Some(found) = follow(&sort.input, &key.expr, !key.asc, rows)
    {
        return Some(found);
    }
    match plan.inputs().as_slice() {
        [input] => find(input),
        _ => None,
    }
}

/// Follows a sort key down to the column of a scan.
fn follow(plan: &LogicalPlan, key: &Expr, descending: bool, rows: usize) -> Option<(Wanted, TieredProvider)> {
    let Expr::Column(column) = key else { return None };
    match plan {
        LogicalPlan::Projection(projection) => {
            let index = projection.schema.maybe_index_of_column(column)?;
            let mut below = projection.expr.get(index)?;
            while let Expr::Alias(alias) = below {
                below = &alias.expr;
            }
            follow(&projection.input, below, descending, rows)
        }
        LogicalPlan::Filter(filter) => {
            let (wanted, provider) = follow(&filter.input, key, descending, rows)?;
            Some((Wanted { unfiltered: false, ..wanted }, provider))
        }
        LogicalPlan::TableScan(scan) => {
            let provider = provider_of(scan)?.clone();
            let order = Order { column: column.name.clone(), descending };
            let unfiltered = scan.filters.is_empty() && scan.fetch.is_none();
            Some((Wanted { order, rows, unfiltered }, provider))
        }
        _ => None,
    }
}

fn provider_of(scan: &TableScan) -> Option<&TieredProvider> {
    let source: &dyn Any = scan.source.as_ref();
    let provider: &dyn Any = source.downcast_ref::<DefaultTableSource>()?.table_provider.as_ref();
    provider.downcast_ref::<TieredProvider>()
}

/// Rows of which a bound is known: of a descending order the least value, of an ascending one the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) bound: i64,
    pub(super) rows: u64,
}

/// The value farthest in the order that at least `rows` rows reach: theirs are at or before it. None: not as many are known.
pub(super) fn reached(mut known: Vec<Known>, rows: u64, descending: bool) -> Option<i64> {
    known.sort_unstable_by_key(|k| k.bound);
    if descending {
        known.reverse();
    }
    let mut sum = 0u64;
    known.into_iter().find_map(|k| {
        sum = sum.saturating_add(k.rows);
        (sum >= rows).then_some(k.bound)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn enough_rows_reach_it() {
        let known = |bound, rows| Known { bound, rows };
        let parts = vec![known(10, 5), known(30, 2), known(20, 4)];
        assert_eq!(reached(parts.clone(), 2, true), Some(30));
        assert_eq!(reached(parts.clone(), 3, true), Some(20));
        assert_eq!(reached(parts.clone(), 11, true), Some(10));
        assert_eq!(reached(parts.clone(), 12, true), None);
        assert_eq!(reached(parts, 6, false), Some(20));
        assert_eq!(reached(Vec::new(), 1, true), None);
    }

    proptest! {
        /// Whatever the parts, the first n rows in the order pass the condition.
        #[test]
        fn the_first_rows_pass(
            parts in prop::collection::vec(prop::collection::vec(-50i64..50, 1..8), 0..10),
            rows in 1u64..40,
            descending in any::<bool>(),
        ) {
            let known = parts.iter().map(|p| Known {
                bound: if descending { *p.iter().min().unwrap() } else { *p.iter().max().unwrap() },
                rows: p.len() as u64,
            });
            let mut all: Vec<i64> = parts.iter().flatten().copied().collect();
            all.sort_unstable();
            if descending {
                all.reverse();
            }
            match reached(known.collect(), rows, descending) {
                None => prop_assert!((all.len() as u64) < rows),
                Some(value) => {
                    let last = all[rows as usize - 1];
                    let passes = if descending { last >= value } else { last <= value };
                    prop_assert!(passes);
                }
            }
        }
    }
}
