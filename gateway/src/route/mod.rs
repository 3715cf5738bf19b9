//! Which store answers, decided once, with its reasons. Pure. ✗ I/O, execution.

use crate::analyze::{Shape, Verdict};
use crate::classify::Override;
use crate::query::record::Path;
use crate::wire::message::ErrorReport;

/// What is known when a statement is routed.
pub struct Known<'a> {
    pub verdict: &'a Verdict,
    /// Of the session's settings against any lake answer, if any.
    pub objection: Option<String>,
    /// The hint, else the setting.
    pub wanted: Override,
    /// Rows below the floor may be needed: PostgreSQL alone has not all of them.
    pub may_need_cold: bool,
}

/// The decision. It travels with its reasons into EXPLAIN, the query log and the virtual tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub path: Path,
    pub reasons: Vec<String>,
}

/// See the module. The error is the client's answer: no store can answer this exactly, or the one asked for may
/// not.
pub fn decide(known: &Known<'_>) -> Result<Route, ErrorReport> {
    let Known { verdict, objection, wanted, may_need_cold } = known;
    let (analysis, is_virtual) = match verdict {
        Verdict::Postgres(reasons) => return unproven(reasons.clone(), *wanted, *may_need_cold),
        Verdict::Lake(a) => (a, false),
        Verdict::Virtual(a) => (a, true),
    };
    if let Some(o) = objection {
        return unproven(vec![o.clone()], *wanted, *may_need_cold);
    }
    if is_virtual {
        return Ok(Route { path: Path::Virtual, reasons: vec!["reads virtual tables only".into()] });
    }
    let shape = shape(analysis.shape);
    let route = |path, reason: &str| {
        let mut reasons = vec![reason.to_string()];
        if path == Path::Lake && analysis.arranged.is_some() {
            reasons.push("PostgreSQL ranks the texts that it is sorted by".into());
        }
        Ok(Route { path, reasons })
    };
    match (wanted, &analysis.shape) {
        // Its tripwire answers where it lacks rows: what was asked for is not replaced by something else.
        (Override::Postgres, _) => route(Path::Postgres, "watershed.route asks for PostgreSQL"),
        (Override::Compare, _) => route(Path::Lake, "watershed.route asks for both stores, and all of it is proven equal"),
        (Override::Lake | Override::PreferLake, _) => route(Path::Lake, "watershed.route asks for the lake, and all of it is proven equal"),
        _ if *may_need_cold => {
            route(Path::Lake, &format!("{shape}; may need rows that PostgreSQL no longer holds"))
        }
        (_, Shape::Aggregate) => route(Path::Lake, &format!("{shape}; all of it is proven equal")),
        _ => route(Path::Postgres, shape),
    }
}

/// A shape, in words.
pub fn shape(shape: Shape) -> &'static str {
    match shape {
        Shape::Aggregate => "aggregates, groups or de-duplicates a tiered table",
        Shape::PointLookup => "is a lookup by key",
        Shape::OrderLimit => "is an ORDER BY with LIMIT and no aggregate",
        Shape::Scan => "is a scan without aggregate",
    }
}

fn unproven(reasons: Vec<String>, wanted: Override, may_need_cold: bool) -> Result<Route, ErrorReport> {
    let why = reasons.join("; ");
    if may_need_cold {
        return Err(ErrorReport::error("0A000", "this statement may need rows that PostgreSQL no longer holds, and the lake cannot answer it exactly")
            .detail(format!("Not proven equal: {why}."))
            .hint("Restrict the event time to the hot window, or leave out what is not proven."));
    }
    if wanted == Override::Lake {
        return Err(ErrorReport::error("0A000", "the lake cannot answer this statement exactly")
            .detail(format!("Not proven equal: {why}."))
            .hint("SET watershed.route = 'auto' lets PostgreSQL answer it."));
    }
    Ok(Route { path: Path::Postgres, reasons })
}

#[cfg(test)]
mod tests;
