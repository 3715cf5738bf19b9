//! Tables that only PostgreSQL holds, beside tiered ones: what is read of them, by the types that the tree gives their columns. Their rows, and
//! the policies on them, are PostgreSQL's own affair (`session::tails`). ✗ views and functions, which the tree has long replaced or which are not proven.

use super::ir::{Rel, ScanColumn};
use super::{Analyzer, Dimension, Outcome, names, refuse};
use lake::types::ColType;
use pgtree::tree::{Rte, Var};
use std::collections::{BTreeMap, BTreeSet};

/// First OID of what users make (`FirstNormalObjectId`).
pub(crate) const FIRST_USER_OID: u32 = 16_384;
/// Such tables of one statement.
const MAX_DIMENSIONS: usize = 8;

/// A table as found in the tree.
#[derive(Debug)]
pub(super) struct Found {
    name: String,
    secured: bool,
    columns: BTreeMap<i16, ColType>,
}

impl<'a> Analyzer<'a> {
    pub(super) fn dimension(&mut self, rte: &Rte, relid: u32, relkind: char, tablesample: bool) -> Outcome<Rel> {
        let name = &rte.name;
        if relid < FIRST_USER_OID || !matches!(relkind, 'r' | 'p') {
            return refuse(format!("relation \"{name}\" is not a table of rows that can be read beside the lake"));
        }
        if tablesample {
            return refuse("TABLESAMPLE");
        }
        if !rte.inh {
            return refuse("ONLY");
        }
        // Read as the user, a view's owner has no say.
        if !rte.security_quals.is_empty() && rte.check_as_user != 0 {
            return refuse(format!("row-level security of \"{name}\" behind a view"));
        }
        let secured = !rte.security_quals.is_empty();
        let found = self.dimensions.entry(relid).or_insert_with(|| Found {
            name: name.clone(),
            secured,
            columns: BTreeMap::new(),
        });
        if found.secured != secured {
            return refuse(format!("row-level security of \"{name}\" that is not everywhere the same"));
        }
        if self.dimensions.len() > MAX_DIMENSIONS {
            return refuse(format!("more than {MAX_DIMENSIONS} tables that are not tiered"));
        }
        self.count_relation()?;
        // Types are known where columns are read; the others are left out in the end.
        let column = |output: usize| {
            let attnum = output as i16 + 1;
            ScanColumn { output, name: column_name(attnum), attnum, ty: ColType::Bool }
        };
        let width = rte.column_count.min(i16::MAX as usize);
        Ok(Rel::Scan { source: relid, width, columns: (0..width).map(column).collect() })
    }

    /// The type of a column that is read, and its place among the outputs.
    pub(super) fn dimension_column(&mut self, relid: u32, var: &Var, name: &str) -> Outcome<(ColType, usize)> {
        let Some(ty) = ColType::from_pg(var.type_oid, var.typmod) else {
            return refuse(format!("a column of \"{name}\" of type {}", names::type_name(var.type_oid)));
        };
        let Some(found) = self.dimensions.get_mut(&relid) else {
            return refuse(format!("relation \"{name}\" is not in FROM"));
        };
        if *found.columns.entry(var.attno).or_insert(ty) != ty {
            return refuse(format!("a column of \"{name}\" with another type"));
        }
        match usize::try_from(var.attno).ok().and_then(|n| n.checked_sub(1)) {
            Some(index) => Ok((ty, index)),
            None => refuse("a system column"),
        }
    }

    /// What is read of each, and the types of that in the plan.
    pub(super) fn dimensions(
        &mut self,
        plan: &mut Rel,
        attnums: &mut BTreeMap<u32, BTreeSet<i16>>,
    ) -> Vec<Dimension> {
        let found = std::mem::take(&mut self.dimensions);
        if self.row_security && !found.values().any(|f| f.secured) {
            self.note("row-level security".into());
        }
        type_scans(plan, &found);
        let mut all = Vec::with_capacity(found.len());
        for (relid, table) in found {
            let read = attnums.remove(&relid).unwrap_or_default();
            let columns: Vec<_> = read.iter().filter_map(|n| Some((*n, *table.columns.get(n)?))).collect();
            // Whether the user may read it cannot be told without a column.
            if columns.is_empty() || columns.len() < read.len() {
                self.note(format!("\"{}\" is not tiered, and no column of it is read", table.name));
            }
            all.push(Dimension { relid, columns, secured: table.secured });
        }
        all
    }
}

/// The name of a column in the provider's schema.
pub fn column_name(attnum: i16) -> String {
    format!("a{attnum}")
}

fn type_scans(rel: &mut Rel, found: &BTreeMap<u32, Found>) {
    if let Rel::Scan { source, columns, .. } = rel
        && let Some(table) = found.get(source)
    {
        for column in columns {
            if let Some(ty) = table.columns.get(&column.attnum) {
                column.ty = *ty;
            }
        }
    }
    rel.inputs_mut().into_iter().for_each(|input| type_scans(input, found));
}
