//! ORDER BY of a whole statement over texts whose collation is not C's: only PostgreSQL knows their order. The lake computes the rows, PostgreSQL
//! ranks the texts among them, and the rows are sorted by ranks in the place of texts. ✗ asking PostgreSQL; texts compared anywhere below.

use super::ir::{Expr, Rel, ScanColumn, SortKey};
use super::relation::{descending, project, referenced};
use super::{Analyzer, Outcome, refuse};
use lake::types::ColType;
use pgtree::oid;
use pgtree::tree::Query;

/// What [`Arranged::plan`] reads: the rows of the analysis's own plan, and ranks beside them.
pub const ROWS: u32 = u32::MAX;

/// What is left to do when the rows are there.
#[derive(Debug, Clone, PartialEq)]
pub struct Arranged {
    /// Sorts, limits and shows.
    pub plan: Rel,
    /// The columns of ranks behind those of the rows, in their order.
    pub ranked: Vec<Ranked>,
}

/// Texts that PostgreSQL is to rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranked {
    /// The rows' column that has them.
    pub output: usize,
    /// OID of the collation.
    pub collation: u32,
    /// Under it, texts that are not the same are not equal either.
    pub deterministic: bool,
}

/// The name of a column of [`ROWS`].
pub fn column_name(number: usize) -> String {
    format!("row{number}")
}

impl Analyzer<'_> {
    /// The end of a whole statement, if it sorts by such texts. `rel` has the outputs that are sorted; `all` of the targets, or those that are shown.
    pub(super) fn arranged(&mut self, query: &Query, rel: &Rel, all: bool) -> Outcome<Option<Arranged>> {
        let types = rel.types();
        let mut ranked: Vec<Ranked> = Vec::new();
        let mut keys = Vec::with_capacity(query.sort.len());
        for clause in &query.sort {
            let target = referenced(query, clause.target)?;
            let index = query.targets.iter().position(|t| std::ptr::eq(t, target)).unwrap_or_default();
            let collation = target.expr.collation();
            let texts = matches!(types.get(index), Some(ColType::Text | ColType::Varchar));
            if !texts || collation == 0 || self.bytewise(collation, "ORDER BY").is_ok() {
                keys.push(self.plain_key(query, clause, &types, Some(rel))?);
                continue;
            }
            // There are other orders of texts than the collation's.
            if oid::comparison_operator(clause.sortop).is_none_or(|c| c.left != oid::TEXT) {
                return refuse(format!("ORDER BY with operator {}", clause.sortop));
            }
            let deterministic = self.deterministic(collation, "ORDER BY").is_ok();
            let one = Ranked { output: index, collation, deterministic };
            let number = ranked.iter().position(|r| *r == one).unwrap_or(ranked.len());
            if number == ranked.len() {
                ranked.push(one);
            }
            let rank = Expr::column(types.len() + number, ColType::Int8);
            keys.push(SortKey { expr: rank, descending: descending(clause)?, nulls_first: clause.nulls_first });
        }
        if ranked.is_empty() {
            return Ok(None);
        }
        let widened: Vec<ColType> = types.iter().copied().chain(ranked.iter().map(|_| ColType::Int8)).collect();
        let column = |(output, ty): (usize, &ColType)| ScanColumn { output, name: column_name(output), attnum: 0, ty: *ty };
        let rows = Rel::Scan { source: ROWS, columns: widened.iter().enumerate().map(column).collect(), width: widened.len() };
        let mut plan = Rel::Sort { input: Box::new(rows), keys };
        let offset = self.row_count(query.limit_offset.as_ref())?;
        let count = self.row_count(query.limit_count.as_ref())?;
        if offset.is_some() || count.is_some() {
            plan = Rel::Limit { input: Box::new(plan), offset, count };
        }
        let shown = (0..types.len()).filter(|index| !all || !query.targets[*index].junk);
        let shown = shown.map(|index| Expr::column(index, types[index])).collect();
        Ok(Some(Arranged { plan: project(plan, shown), ranked }))
    }
}
