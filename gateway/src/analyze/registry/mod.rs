//! What the lake may compute: one table of functions, operators, aggregates and casts by OID, each with its verdict and the reason. The analysis
//! refuses what is not listed, and takes its words from here; `watershed.functions` and `docs/compatibility.md` show the same rows. ✗ trees,
//! plans, I/O.
//!
//! Names and signatures are PostgreSQL 15's; a test holds them to a real server's catalog.

mod aggregates;
mod casts;
mod functions;
mod operators;
mod page;
#[cfg(test)]
mod tests;

use super::dimension::FIRST_USER_OID;
use super::names;
pub use casts::{Cast, cast};
pub use page::page;
use pgexact::scalar::Scalar;
use pgtree::oid::{self, Aggregate, Function};

/// Whether the lake may compute something, and by which of our functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule<M> {
    /// Always the same value or the same error.
    Same(M),
    /// The same under the condition named; the analysis tests it, or the values do.
    When(M, &'static str),
    /// PostgreSQL's, for the reason named.
    Never(&'static str),
}

impl<M: Copy> Rule<M> {
    /// How it is computed, if it may be.
    pub fn meaning(self) -> Option<M> {
        match self {
            Rule::Same(m) | Rule::When(m, _) => Some(m),
            Rule::Never(_) => None,
        }
    }

    pub(in crate::analyze) fn verdict(self) -> (&'static str, &'static str) {
        match self {
            Rule::Same(_) => ("same", ""),
            Rule::When(_, condition) => ("same if", condition),
            Rule::Never(reason) => ("never", reason),
        }
    }
}

/// How a function is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// With an analysis of its own.
    Of(Function),
    /// By the kernel of that name: arguments and result have the types of the signature.
    Run(Scalar),
}

/// One row of `pg_proc`, judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Routine<M> {
    pub oid: u32,
    pub name: &'static str,
    pub args: &'static [u32],
    pub result: u32,
    pub rule: Rule<M>,
}

/// The rows as they are written down: OID, name, arguments, result, rule.
type Row<M> = (u32, &'static str, &'static [u32], u32, Rule<M>);

fn routine<M: Copy>(row: &Row<M>) -> Routine<M> {
    Routine { oid: row.0, name: row.1, args: row.2, result: row.3, rule: row.4 }
}

fn find<M: Copy>(rows: &[Row<M>], func: u32) -> Option<Routine<M>> {
    rows.binary_search_by_key(&func, |row| row.0).ok().map(|i| routine(&rows[i]))
}

/// The function with this OID, if it is listed.
pub fn function(func: u32) -> Option<Routine<Meaning>> {
    find(functions::FUNCTIONS, func)
}

/// The aggregate with this OID, if it is listed.
pub fn aggregate(func: u32) -> Option<Routine<Aggregate>> {
    find(aggregates::AGGREGATES, func)
}

/// One thing that a statement may contain, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `function`, `operator`, `aggregate` or `cast`.
    pub kind: &'static str,
    /// In `pg_proc` or `pg_operator`; 0 for casts through text.
    pub oid: u32,
    /// A function's name, an operator's symbol, a cast's types.
    pub name: String,
    /// With the types of its arguments, as one would write it.
    pub signature: String,
    pub result: &'static str,
    /// `same`, `same if` or `never`.
    pub lake: &'static str,
    /// The condition of `same if`, the reason of `never`.
    pub reason: String,
}

fn type_name(type_oid: u32) -> &'static str {
    match type_oid {
        18 => "\"char\"",
        19 => "name",
        26 => "oid",
        27 => "tid",
        28 => "xid",
        114 => "json",
        142 => "xml",
        650 => "cidr",
        774 => "macaddr8",
        790 => "money",
        829 => "macaddr",
        869 => "inet",
        1009 => "text[]",
        1022 => "float8[]",
        1042 => "char(n)",
        1083 => "time",
        1187 => "interval[]",
        1266 => "timetz",
        1560 => "bit",
        1562 => "varbit",
        2205 => "regclass",
        2249 => "record",
        2276 => "any",
        2278 => "void",
        2277 => "anyarray",
        2283 => "anyelement",
        2776 => "anynonarray",
        3220 => "pg_lsn",
        3500 => "anyenum",
        3614 => "tsvector",
        3831 => "anyrange",
        5077 => "anycompatible",
        5078 => "anycompatiblearray",
        4072 => "jsonpath",
        4537 => "anymultirange",
        _ => oid::type_name(type_oid).unwrap_or("?"),
    }
}

fn list(args: &[u32]) -> String {
    args.iter().map(|a| type_name(*a)).collect::<Vec<_>>().join(", ")
}

fn entry<M: Copy>(kind: &'static str, routine: &Routine<M>) -> Entry {
    let (lake, reason) = routine.rule.verdict();
    Entry {
        kind,
        oid: routine.oid,
        name: routine.name.into(),
        signature: format!("{}({})", routine.name, list(routine.args)),
        result: type_name(routine.result),
        lake,
        reason: reason.into(),
    }
}

/// Everything that is judged: operators with their functions' verdicts, then functions that are no operator's, aggregates, casts.
pub fn entries() -> Vec<Entry> {
    let mut all = Vec::new();
    let mut behind = std::collections::BTreeSet::new();
    for (op, symbol, func, left, right) in operators::OPERATORS {
        let Some(routine) = function(*func) else { continue };
        behind.insert(*func);
        let signature = match *left {
            0 => format!("{symbol} {}", type_name(*right)),
            left => format!("{} {symbol} {}", type_name(left), type_name(*right)),
        };
        all.push(Entry {
            kind: "operator",
            oid: *op,
            name: symbol.to_string(),
            signature,
            ..entry("", &routine)
        });
    }
    for (op, c) in oid::comparisons() {
        let (lake, reason) = comparison(&c).map_or_else(
            |reason| ("never", reason),
            |condition| match condition {
                "" => ("same", ""),
                condition => ("same if", condition),
            },
        );
        all.push(Entry {
            kind: "operator",
            oid: op,
            name: c.compare.symbol().into(),
            signature: format!("{} {} {}", type_name(c.left), c.compare.symbol(), type_name(c.right)),
            result: "bool",
            lake,
            reason: reason.into(),
        });
    }
    all.extend(
        functions::FUNCTIONS
            .iter()
            .map(routine)
            .filter(|r| !behind.contains(&r.oid))
            .map(|r| entry("function", &r)),
    );
    all.extend(aggregates::AGGREGATES.iter().map(|row| entry("aggregate", &routine(row))));
    all.extend(casts::entries());
    all
}

/// The condition under which a comparison is the same (empty: always), or why it never is.
pub fn comparison(c: &oid::Comparison) -> Result<&'static str, &'static str> {
    use oid::{Compare, DATE, TEXT, TIMESTAMP, TIMESTAMPTZ};
    match (c.left, c.right) {
        (TEXT, TEXT) if matches!(c.compare, Compare::Eq | Compare::Ne) => {
            Ok("the collation is deterministic")
        }
        (TEXT, TEXT) => Ok("the collation is C, POSIX or C.UTF-8"),
        (TIMESTAMPTZ, DATE | TIMESTAMP)
        | (TIMESTAMP, DATE)
        | (DATE | TIMESTAMP, TIMESTAMPTZ)
        | (DATE, TIMESTAMP) => Ok("the narrower side does not depend on rows"),
        _ => Ok(""),
    }
}

/// Why a function is not the lake's: the reason of the table, or that it is not in it.
pub fn refusal(func: u32) -> String {
    match function(func) {
        Some(Routine { rule: Rule::Never(reason), .. }) => {
            format!("{} is not proven equal: {reason}", names::function(func))
        }
        Some(Routine { rule: Rule::When(_, condition), .. }) => {
            format!("{} is not proven equal but if {condition}", names::function(func))
        }
        // One in SQL whose body counts is gone by now: `inline`.
        _ if func >= FIRST_USER_OID => format!("{} is a user's own", names::function(func)),
        _ => format!("{} is not proven equal", names::function(func)),
    }
}
