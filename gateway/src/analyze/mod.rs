//! What a statement means and what it needs, from PostgreSQL's analyzed tree: pure. Gives a plan in our own terms ([`ir`]) whose every node is
//! proven to compute what PostgreSQL computes, or the reasons why not. ✗ I/O, Arrow, DataFusion, privileges, routing.
//!
//! The set of proven nodes is an allow-list by OID (`pgtree::oid`): what is not on it goes to PostgreSQL with its name in the reason.

mod bounds;
mod fold;
pub mod ir;
mod names;
mod prune;
mod relation;
mod scalar;
pub mod tail;
#[cfg(test)]
mod tests;

use lake::spec::TableSpec;
use lake::types::ColType;
use pgtree::tree::{Command, Query};
use pgtree::value::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// The relations that concern the gateway, as of one look at the database.
#[derive(Debug, Default)]
pub struct Catalog {
    pub tiered: HashMap<u32, Arc<TableSpec>>,
    /// Keyed by the OID of the stub's set-returning function.
    pub virtual_functions: HashMap<u32, Arc<VirtualTable>>,
    /// The database's collation is C, POSIX or C.UTF-8.
    pub default_collation_is_c: bool,
}

/// A relation that exists in the gateway alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualTable {
    pub name: String,
    /// Name and type OID, in the order of the provider's schema.
    pub columns: Vec<(String, u32)>,
}

impl From<&crate::virtual_tables::Definition> for VirtualTable {
    fn from(d: &crate::virtual_tables::Definition) -> Self {
        VirtualTable {
            name: d.name.into(),
            columns: d.columns.iter().map(|(n, o)| (n.to_string(), *o)).collect(),
        }
    }
}

/// What of the session a statement's meaning depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The `TimeZone` setting as PostgreSQL reports it.
    pub timezone: String,
}

/// A column of RowDescription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    pub name: String,
    pub type_oid: u32,
    pub typmod: i32,
}

/// What kind of work a statement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Aggregates, groups or de-duplicates.
    Aggregate,
    /// Some column equals a constant.
    PointLookup,
    /// ORDER BY with LIMIT.
    OrderLimit,
    Scan,
}

/// A tiered table and the columns that are read of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableUse {
    pub relid: u32,
    /// Ascending, without duplicates, may be empty (count(*)).
    pub attnums: Vec<i16>,
}

/// What a role must be allowed to read of a relation: PostgreSQL's own check at the start of execution, for when that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    pub relid: u32,
    /// 0 is the current user; else the owner of the view it is read through.
    pub role: u32,
    /// 0 is the whole row, system columns are negative; none: any column will do.
    pub attnums: Vec<i32>,
}

/// A bound parameter whose value is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamUse {
    /// n of $n
    pub number: i64,
    pub type_oid: u32,
}

/// A sub-expression that does not depend on rows and that PostgreSQL computes, in the statement's own transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fold {
    /// Text of one expression that no search_path can change; parameters stand in it as $n.
    pub sql: String,
    pub type_oid: u32,
}

/// What a proven statement needs, and how to compute it.
#[derive(Debug)]
pub struct Analysis {
    /// At most one: one tiered table, read once.
    pub tables: Vec<TableUse>,
    pub params: Vec<ParamUse>,
    pub folds: Vec<Fold>,
    pub shape: Shape,
    /// Lower bound (inclusive, µs since 1970) of the event time that every needed row has, where constants imply one.
    pub time_from_us: Option<i64>,
    /// The table's event time.
    pub event: Option<(u32, i16)>,
    /// Reads through WITH, which PostgreSQL may compute whole before it filters.
    pub with: bool,
    pub rights: Vec<Right>,
    /// The computation; its outputs are the columns of RowDescription, in order.
    pub plan: ir::Rel,
    /// Their types.
    pub outputs: Vec<ColType>,
}

impl Analysis {
    /// [`Self::time_from_us`], with the values of parameters and folds known too.
    pub fn time_from<'v>(&'v self, params: &'v [Value], folded: &'v [Value]) -> Option<i64> {
        let (relid, event_time) = self.event?;
        bounds::lower_bound(&self.plan, relid, event_time, &|c| match c {
            ir::Constant::Literal(value) => Some(value),
            ir::Constant::Param(i) => params.get(*i),
            ir::Constant::Fold(i) => folded.get(*i),
        })
    }
}

/// Who may answer, as far as meaning goes.
#[derive(Debug)]
pub enum Verdict {
    /// All of it is proven equal over tiered tables.
    Lake(Analysis),
    /// Reads virtual tables only.
    Virtual(Analysis),
    /// Not proven; each reason names one thing.
    Postgres(Vec<String>),
}

/// Reads the tree of one statement and decides.
///
/// `tree` is the text that `debug_print_rewritten` gave; `row` is the statement's RowDescription, whose types the plan's outputs must have.
pub fn analyze(tree: &str, catalog: &Catalog, settings: &Settings, row: &[Field]) -> Verdict {
    let query = match pgtree::tree::parse(tree, pgtree::Limits::default()) {
        Ok(query) => query,
        Err(e) => return Verdict::Postgres(vec![format!("the statement's tree cannot be read: {e}")]),
    };
    if query.command != Command::Select {
        return Verdict::Postgres(vec!["not a SELECT".into()]);
    }
    let mut analyzer = Analyzer::new(catalog, settings);
    let plan = match analyzer.statement(&query, row) {
        Ok(plan) if analyzer.reasons.is_empty() => plan,
        Ok(_) => return Verdict::Postgres(analyzer.reasons()),
        Err(Refused(reason)) => {
            analyzer.note(reason);
            return Verdict::Postgres(analyzer.reasons());
        }
    };
    analyzer.verdict(plan)
}

/// One thing that is not proven.
#[derive(Debug)]
pub(crate) struct Refused(pub String);

type Outcome<T> = Result<T, Refused>;

fn refuse<T>(reason: impl Into<String>) -> Outcome<T> {
    Err(Refused(reason.into()))
}

/// Reasons kept for one statement.
const MAX_REASONS: usize = 8;
/// Levels of sub-selects and expressions together: both engines and we recurse.
const MAX_LEVELS: usize = 60;
/// Conditions of one AND or OR: optimizers make chains of them, and recurse along these.
const MAX_CONDITIONS: usize = 150;
/// Nodes of an expression that the planner may have to write several times (in COALESCE, NULLIF, CASE operand WHEN): nested, their number doubles
/// at each level.
const MAX_REPEATED: usize = 12;

struct Analyzer<'a> {
    catalog: &'a Catalog,
    settings: &'a Settings,
    reasons: Vec<String>,
    params: Vec<ParamUse>,
    folds: Vec<Fold>,
    tiered: BTreeMap<u32, usize>,
    virtuals: BTreeSet<u32>,
    /// Enclosing CASE and COALESCE: what stands in them may never be computed by PostgreSQL.
    guarded: usize,
    levels: usize,
    /// The operands of the enclosing `CASE operand WHEN`.
    case_args: Vec<ir::Expr>,
    aggregated: bool,
    with: bool,
    rights: Vec<Right>,
}

impl<'a> Analyzer<'a> {
    fn new(catalog: &'a Catalog, settings: &'a Settings) -> Self {
        Analyzer {
            catalog,
            settings,
            reasons: Vec::new(),
            params: Vec::new(),
            folds: Vec::new(),
            tiered: BTreeMap::new(),
            virtuals: BTreeSet::new(),
            guarded: 0,
            levels: 0,
            case_args: Vec::new(),
            aggregated: false,
            with: false,
            rights: Vec::new(),
        }
    }

    fn note(&mut self, reason: String) {
        if !self.reasons.contains(&reason) && self.reasons.len() < MAX_REASONS {
            self.reasons.push(reason);
        }
    }

    fn reasons(self) -> Vec<String> {
        self.reasons
    }

    /// The whole statement: its outputs must be what RowDescription says.
    fn statement(&mut self, query: &Query, row: &[Field]) -> Outcome<ir::Rel> {
        let plan = self.query(query, &[])?;
        let targets: Vec<_> = query.targets.iter().filter(|t| !t.junk).collect();
        if targets.len() != row.len() {
            return refuse("the tree's columns are not those of the row description");
        }
        for (target, field) in targets.iter().zip(row) {
            if (target.expr.type_oid(), target.expr.typmod()) != (field.type_oid, field.typmod) {
                return refuse(format!(
                    "column \"{}\" of the tree is not the one of the row description",
                    field.name
                ));
            }
        }
        let types = plan.types();
        for (ty, field) in types.iter().zip(row) {
            if ty.type_oid() != field.type_oid {
                return refuse(format!("column \"{}\" has another type in the plan", field.name));
            }
        }
        if types.is_empty() {
            return refuse("a SELECT without columns");
        }
        Ok(plan)
    }

    fn verdict(mut self, mut plan: ir::Rel) -> Verdict {
        let outputs = plan.types();
        let mut attnums = BTreeMap::new();
        prune::prune(&mut plan, &(0..outputs.len()).collect(), &mut attnums);
        let tables: Vec<_> = self
            .tiered
            .keys()
            .map(|relid| TableUse {
                relid: *relid,
                attnums: attnums.remove(relid).unwrap_or_default().into_iter().collect(),
            })
            .collect();
        let mixed = !tables.is_empty() && !self.virtuals.is_empty();
        if mixed {
            self.note("joins a virtual table with a tiered one".into());
        } else if tables.len() > 1 || self.tiered.values().any(|uses| *uses > 1) {
            self.note("join of tiered tables".into());
        } else if tables.is_empty() && self.virtuals.is_empty() {
            self.note("reads no tiered or virtual table".into());
        }
        if !self.reasons.is_empty() {
            return Verdict::Postgres(self.reasons());
        }
        let shape = if self.aggregated {
            Shape::Aggregate
        } else if bounds::looks_up(&plan) {
            Shape::PointLookup
        } else if bounds::orders_and_limits(&plan) {
            Shape::OrderLimit
        } else {
            Shape::Scan
        };
        let is_virtual = tables.is_empty();
        let event =
            tables.first().and_then(|t| self.catalog.tiered.get(&t.relid)).map(|s| (s.relid, s.event_time));
        let mut analysis = Analysis {
            tables,
            params: self.params,
            folds: self.folds,
            shape,
            time_from_us: None,
            event,
            with: self.with,
            rights: self.rights,
            plan,
            outputs,
        };
        analysis.time_from_us = analysis.time_from(&[], &[]);
        if is_virtual { Verdict::Virtual(analysis) } else { Verdict::Lake(analysis) }
    }
}
