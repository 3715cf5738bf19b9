//! What a statement means and what it needs, from PostgreSQL's analyzed tree: pure. Gives a plan in our own terms ([`ir`]) whose every node is
//! proven to compute what PostgreSQL computes, or the reasons why not. ✗ I/O, Arrow, DataFusion, privileges, routing.
//!
//! The set of proven nodes is an allow-list by OID (`pgtree::oid`): what is not on it goes to PostgreSQL with its name in the reason.

pub mod arranged;
mod bounds;
mod calls;
mod correlated;
pub mod floats;
pub mod dimension;
mod first;
mod fold;
pub(crate) mod harmless;
mod grouping;
pub mod inline;
pub mod ir;
mod joins;
mod lists;
mod mixed;
pub(crate) mod moments;
mod names;
mod numbers;
mod ordered;
mod patterns;
mod prune;
mod pushed;
pub mod registry;
pub(crate) mod relation;
mod scalar;
mod series;
mod sets;
mod sublinks;
pub mod tail;
#[cfg(test)]
mod tests;
mod window;

use lake::spec::TableSpec;
use lake::types::ColType;
use pgtree::tree::{Command, Query};
use pgtree::value::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// The relations that concern the gateway, as of one look at the database.
#[derive(Debug, Default)]
pub struct Catalog {
    pub tiered: HashMap<u32, Arc<TableSpec>>,
    /// Keyed by the OID of the stub's set-returning function.
    pub virtual_functions: HashMap<u32, Arc<VirtualTable>>,
    /// The database's collation is C, POSIX or C.UTF-8.
    pub default_collation_is_c: bool,
    pub default_letters: Letters,
    /// OIDs of collations of the database in which only identical texts are equal.
    pub deterministic: HashSet<u32>,
    /// Users' functions in SQL.
    pub functions: HashMap<u32, inline::SqlFunction>,
    /// The server's major version.
    pub major: u32,
}

/// Versions whose trees were compared with PostgreSQL 15's (`pgtree/tests/whole.rs`). A newer one may give a field of a known node a meaning
/// that is not read here, and then the tree reads as well as ever.
const KNOWN_MAJORS: std::ops::RangeInclusive<u32> = 15..=18;

/// What upper and lower case are under the database's own collation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Letters {
    /// Of the ASCII letters alone, as in the locale C.
    Ascii,
    /// Of the ASCII letters the usual ones; beyond, the locale's.
    Usual,
    /// Not known here.
    #[default]
    Unknown,
}

impl Letters {
    /// Of a locale by its provider (libc, ICU) and name, as `pg_database` has them.
    pub fn of(provider: &str, name: &str) -> Letters {
        // Turkish and a few others have an i of their own.
        const USUAL: [&str; 16] =
            ["cs", "da", "de", "en", "es", "fi", "fr", "it", "ja", "ko", "nl", "pl", "pt", "ru", "sv", "zh"];
        let language = name.split(['_', '-', '@', '.']).next().unwrap_or_default();
        match (provider, name) {
            ("c", "C" | "POSIX") => Letters::Ascii,
            ("c", "C.UTF-8" | "C.utf8") => Letters::Usual,
            ("c", _) if name.contains('_') && USUAL.contains(&language) => Letters::Usual,
            // As ICU says of no language.
            ("i", _) if language == "und" || USUAL.contains(&language) => Letters::Usual,
            _ => Letters::Unknown,
        }
    }
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

/// A table that only PostgreSQL holds, and the columns that are read of it: its rows come from there, as the user, in the tails' own snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dimension {
    pub relid: u32,
    /// Ascending, without duplicates, never empty.
    pub columns: Vec<(i16, ColType)>,
    /// Row-level security is active for the user: PostgreSQL applies it when the table is read.
    pub secured: bool,
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
    /// A time, if it is one, is far from the first and the last.
    pub moderate: bool,
}

/// What a proven statement needs, and how to compute it.
#[derive(Debug)]
pub struct Analysis {
    /// Each once, however often it is read.
    pub tables: Vec<TableUse>,
    pub dimensions: Vec<Dimension>,
    pub params: Vec<ParamUse>,
    pub folds: Vec<Fold>,
    /// Conditions on parameters, in SQL, under which computing `folds` raises no error: where one does not hold, PostgreSQL answers.
    pub sure: Vec<String>,
    pub shape: Shape,
    /// Lower bound (inclusive, µs since 1970) of the event time that every needed row of every table has, where constants imply one.
    pub time_from_us: Option<i64>,
    /// What must be neither NaN nor -0, in any row of it.
    pub plain: Vec<floats::Source>,
    /// The tables' event times, by relid.
    pub events: Vec<(u32, i16)>,
    /// Reads through WITH, which PostgreSQL may compute whole before it filters.
    pub with: bool,
    pub rights: Vec<Right>,
    /// Every function, operator's function and aggregate that the statement calls: the current user must be allowed to execute them.
    pub functions: Vec<u32>,
    /// Functions in SQL whose bodies stand in the plan, and the versions (`xmin`) of these: both must still be so when it runs.
    pub inlined: Vec<(u32, String)>,
    /// The computation; its outputs are the columns of RowDescription, in order, unless it is `arranged`.
    pub plan: ir::Rel,
    /// Their types.
    pub outputs: Vec<ColType>,
    /// What is left to do with its rows when PostgreSQL has ranked texts of them; then has the columns of RowDescription.
    pub arranged: Option<arranged::Arranged>,
}

impl Analysis {
    /// Some rows of a table are left out: an index may find the others.
    pub fn narrows(&self) -> bool {
        pushed::predicates(&self.plan).into_iter().next().is_some()
    }

    /// [`Self::time_from_us`], with the values of parameters and folds known too.
    pub fn time_from(&self, params: &[Value], folded: &[Value]) -> Option<i64> {
        let event_time = |relid| self.events.iter().find(|(r, _)| *r == relid).map(|(_, event)| *event);
        bounds::lower_bound(&self.plan, &event_time, &|c| match c {
            ir::Constant::Literal(value) => Some(value.clone()),
            ir::Constant::Param(i) => params.get(*i).cloned(),
            ir::Constant::Fold(i) => folded.get(*i).cloned(),
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
    if !KNOWN_MAJORS.contains(&catalog.major) {
        return Verdict::Postgres(vec![format!("the trees of PostgreSQL {} are not known here", catalog.major)]);
    }
    let mut query = match pgtree::tree::parse(tree, pgtree::Limits::default()) {
        Ok(query) => query,
        Err(e) => return Verdict::Postgres(vec![format!("the statement's tree cannot be read: {e}")]),
    };
    if query.command != Command::Select {
        return Verdict::Postgres(vec!["not a SELECT".into()]);
    }
    let mut analyzer = Analyzer::new(catalog, settings);
    analyzer.functions = called(&query);
    let inlined = inline::inline(&mut query, catalog);
    if !inlined.functions.is_empty() {
        analyzer.functions.append(&mut called(&query));
        analyzer.inlined = inlined.functions.into_iter().collect();
    }
    inlined.refused.into_iter().for_each(|reason| analyzer.note(reason));
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

/// Every function that a statement may call, wherever it stands.
fn called(query: &Query) -> BTreeSet<u32> {
    use pgtree::tree::{Expr, Part};
    let mut found = BTreeSet::new();
    pgtree::tree::walk(query, &mut |part| {
        found.insert(match part {
            Part::Expr(Expr::Func(c) | Expr::Op(c) | Expr::Distinct(c) | Expr::NullIf(c)) => c.func,
            Part::Expr(Expr::ScalarArray { func, .. }) => *func,
            Part::Expr(Expr::Aggref(a)) => a.fnoid,
            Part::Expr(Expr::Window(w)) => w.call.fnoid,
            _ => return,
        });
    });
    found.remove(&0);
    found
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
/// Relations of one statement, those of a WITH query counted where it is read: each is a scan, and joins of many take long to plan.
const MAX_RELATIONS: usize = 24;
/// Nodes of an expression that the planner may have to write several times (in COALESCE, NULLIF, CASE operand WHEN): nested, their number doubles
/// at each level.
const MAX_REPEATED: usize = 12;

struct Analyzer<'a> {
    catalog: &'a Catalog,
    settings: &'a Settings,
    reasons: Vec<String>,
    params: Vec<ParamUse>,
    folds: Vec<Fold>,
    tiered: BTreeSet<u32>,
    relations: usize,
    virtuals: BTreeSet<u32>,
    dimensions: BTreeMap<u32, dimension::Found>,
    /// PostgreSQL has put policies into the tree.
    row_security: bool,
    /// Enclosing CASE and COALESCE: what stands in them may never be computed by PostgreSQL.
    guarded: usize,
    /// See [`Analysis::sure`].
    sure: Vec<String>,
    /// Queries that enclose what is read, and it.
    depth: usize,
    levels: usize,
    /// The operands of the enclosing `CASE operand WHEN`.
    case_args: Vec<ir::Expr>,
    aggregated: bool,
    with: bool,
    rights: Vec<Right>,
    functions: BTreeSet<u32>,
    inlined: Vec<(u32, String)>,
    /// What PostgreSQL computes whole, and the plan need not.
    first: Vec<ir::Rel>,
    arranged: Option<arranged::Arranged>,
}

impl<'a> Analyzer<'a> {
    fn new(catalog: &'a Catalog, settings: &'a Settings) -> Self {
        Analyzer {
            catalog,
            settings,
            reasons: Vec::new(),
            params: Vec::new(),
            folds: Vec::new(),
            tiered: BTreeSet::new(),
            relations: 0,
            virtuals: BTreeSet::new(),
            dimensions: BTreeMap::new(),
            row_security: false,
            guarded: 0,
            sure: Vec::new(),
            depth: 0,
            levels: 0,
            case_args: Vec::new(),
            aggregated: false,
            with: false,
            rights: Vec::new(),
            functions: BTreeSet::new(),
            inlined: Vec::new(),
            first: Vec::new(),
            arranged: None,
        }
    }

    /// Has a relation computed whole, as PostgreSQL does, whatever the plan reads of it: see [`first`].
    fn whole(&mut self, rel: &ir::Rel) {
        if !harmless::is_harmless_rel(rel) {
            first::add(&mut self.first, rel.clone());
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
        let types = self.arranged.as_ref().map_or(&plan, |a| &a.plan).types();
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

    fn with_first(&mut self, plan: ir::Rel) -> Outcome<ir::Rel> {
        let mut all = std::mem::take(&mut self.first);
        for rel in first::of_conditions(&plan, &mut self.folds)? {
            first::add(&mut all, rel);
        }
        first::after(all, plan)
    }

    fn verdict(mut self, mut plan: ir::Rel) -> Verdict {
        let outputs = plan.types();
        // Nobody else answers from virtual tables: nothing to compare with.
        if !self.tiered.is_empty() {
            plan = match self.with_first(plan) {
                Ok(plan) => plan,
                Err(Refused(reason)) => {
                    self.note(reason);
                    return Verdict::Postgres(self.reasons());
                }
            };
        }
        let mut attnums = BTreeMap::new();
        prune::prune(&mut plan, &(0..outputs.len()).collect(), &mut attnums);
        let tables: Vec<_> = self
            .tiered
            .iter()
            .map(|relid| TableUse {
                relid: *relid,
                attnums: attnums.remove(relid).unwrap_or_default().into_iter().collect(),
            })
            .collect();
        let dimensions = self.dimensions(&mut plan, &mut attnums);
        if !tables.is_empty() && !self.virtuals.is_empty() {
            self.note("joins a virtual table with a tiered one".into());
        } else if !dimensions.is_empty() && !self.virtuals.is_empty() {
            self.note("joins a virtual table with one of PostgreSQL's".into());
        } else if tables.is_empty() && self.virtuals.is_empty() {
            self.note("reads no tiered or virtual table".into());
        } else if tables.is_empty() && !self.inlined.is_empty() {
            self.note("functions in SQL over virtual tables".into());
        }
        if lists::meet(&plan) {
            self.note("several lists that one expression is compared with".into());
        }
        if !self.reasons.is_empty() {
            return Verdict::Postgres(self.reasons());
        }
        let plain = match floats::facts(&plan) {
            Ok(plain) => plain,
            Err(reason) => return Verdict::Postgres(vec![reason]),
        };
        if plain.iter().any(|source| matches!(source, floats::Source::Column(relid, _) if !self.tiered.contains(relid))) {
            return Verdict::Postgres(vec!["floats of a table that is not tiered, grouped or as extremes".into()]);
        }
        let shape = if self.aggregated {
            Shape::Aggregate
        } else if bounds::looks_up(&plan) {
            Shape::PointLookup
        } else if bounds::orders_and_limits(self.arranged.as_ref().map_or(&plan, |a| &a.plan)) {
            Shape::OrderLimit
        } else {
            Shape::Scan
        };
        let is_virtual = tables.is_empty();
        let specs = tables.iter().filter_map(|t| self.catalog.tiered.get(&t.relid));
        let events = specs.map(|s| (s.relid, s.event_time)).collect();
        let mut analysis = Analysis {
            tables,
            dimensions,
            params: self.params,
            folds: self.folds,
            sure: self.sure,
            shape,
            time_from_us: None,
            plain,
            events,
            with: self.with,
            rights: self.rights,
            functions: self.functions.into_iter().collect(),
            inlined: self.inlined,
            plan,
            outputs,
            arranged: self.arranged,
        };
        analysis.time_from_us = analysis.time_from(&[], &[]);
        if is_virtual { Verdict::Virtual(analysis) } else { Verdict::Lake(analysis) }
    }
}
