//! What a plan's filters say about the rows it needs: event-time bounds and equality with constants. Pure and conservative: what is not seen
//! here means "any row".

use super::ir::{Compare, Constant, Expr, List, Node, Rel};
use lake::types::{ColType, DAY_MICROS};
use pgtree::value::Value;

/// The largest instant (inclusive, µs since 1970) known to be at or below the event time of every row the plan needs. `value_of` gives what
/// a constant stands for, where that is known. Only filters right above the scan count: those PostgreSQL's pruning sees as well.
pub fn lower_bound<'v>(
    plan: &'v Rel,
    relid: u32,
    event_time: i16,
    value_of: &dyn Fn(&'v Constant) -> Option<&'v Value>,
) -> Option<i64> {
    let mut bound: Option<i64> = None;
    each_conjunct(plan, &mut |input, conjunct| {
        if let Some(from) = lower_of(conjunct, input, relid, event_time, value_of) {
            bound = Some(bound.map_or(from, |b| b.max(from)));
        }
    });
    bound
}

/// Whether some column of a scan must equal a constant.
pub fn looks_up(plan: &Rel) -> bool {
    let mut found = false;
    each_conjunct(plan, &mut |input, conjunct| {
        if let Node::Compare(Compare::Eq, a, b) = &conjunct.node {
            let (column, constant) = if b.as_constant().is_some() { (a, b) } else { (b, a) };
            found |= constant.as_constant().is_some() && column_of(column, input).is_some();
        }
    });
    found
}

/// Whether the outermost relations sort and then limit.
pub fn orders_and_limits(plan: &Rel) -> bool {
    match plan {
        Rel::Project { input, .. } => orders_and_limits(input),
        Rel::Limit { input, count: Some(_), .. } => matches!(**input, Rel::Sort { .. }),
        _ => false,
    }
}

/// The predicates of all filters that [`each_conjunct`] visits.
pub fn filters(plan: &Rel) -> Vec<&Expr> {
    match plan {
        Rel::OneRow | Rel::Scan { .. } | Rel::Join { .. } => Vec::new(),
        Rel::Filter { input, predicate } => {
            let mut all = filters(input);
            all.push(predicate);
            all
        }
        Rel::Project { input, .. }
        | Rel::Aggregate { input, .. }
        | Rel::Distinct { input }
        | Rel::Sort { input, .. }
        | Rel::Limit { input, .. } => filters(input),
    }
}

/// Calls `f` with each conjunct of each filter, and the filter's input.
pub fn each_conjunct<'p>(plan: &'p Rel, f: &mut dyn FnMut(&'p Rel, &'p Expr)) {
    match plan {
        Rel::OneRow | Rel::Scan { .. } => {}
        Rel::Filter { input, predicate } => {
            match &predicate.node {
                Node::And(items) => items.iter().for_each(|e| f(input, e)),
                _ => f(input, predicate),
            }
            each_conjunct(input, f);
        }
        Rel::Project { input, .. }
        | Rel::Aggregate { input, .. }
        | Rel::Distinct { input }
        | Rel::Sort { input, .. }
        | Rel::Limit { input, .. } => each_conjunct(input, f),
        // Which side a condition speaks of does not matter here: joins read virtual tables only.
        Rel::Join { .. } => {}
    }
}

fn lower_of<'v>(
    expr: &'v Expr,
    input: &Rel,
    relid: u32,
    event_time: i16,
    value_of: &dyn Fn(&'v Constant) -> Option<&'v Value>,
) -> Option<i64> {
    let below = |e: &'v Expr| lower_of(e, input, relid, event_time, value_of);
    let is_event = |e: &Expr| above_scan(input) && column_of(e, input) == Some((relid, event_time));
    match &expr.node {
        Node::And(items) => items.iter().filter_map(below).max(),
        Node::Or(items) => items.iter().map(below).collect::<Option<Vec<_>>>()?.into_iter().min(),
        Node::InList { arg, list: List::Items(items), negated: false } if is_event(arg) => {
            let instants = items.iter().map(|c| instant(value_of(c)?, arg.ty).map(|(at, _)| at));
            instants.collect::<Option<Vec<_>>>()?.into_iter().min()
        }
        Node::Compare(compare, a, b) => {
            let (compare, column, constant) = match (a.as_constant(), b.as_constant()) {
                (None, Some(c)) => (*compare, a, c),
                (Some(c), None) => (compare.swap(), b, c),
                _ => return None,
            };
            if !is_event(column) {
                return None;
            }
            let (at, step) = instant(value_of(constant)?, column.ty)?;
            match compare {
                Compare::Ge | Compare::Eq => Some(at),
                Compare::Gt => Some(at.saturating_add(step)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The instant that a constant of the column's own type names, and the distance to the next.
fn instant(value: &Value, column: ColType) -> Option<(i64, i64)> {
    match (value, column) {
        (Value::TimestampTz(us), ColType::TimestampTz) | (Value::Timestamp(us), ColType::Timestamp) => Some((*us, 1)),
        (Value::Date(i32::MIN), ColType::Date) => Some((i64::MIN, 0)),
        (Value::Date(i32::MAX), ColType::Date) => Some((i64::MAX, 0)),
        (Value::Date(day), ColType::Date) => Some((i64::from(*day).saturating_mul(DAY_MICROS), DAY_MICROS)),
        _ => None,
    }
}

/// Nothing but filters and projections lies between a relation and its scan.
fn above_scan(rel: &Rel) -> bool {
    match rel {
        Rel::Scan { .. } => true,
        Rel::Filter { input, .. } | Rel::Project { input, .. } => above_scan(input),
        _ => false,
    }
}

/// The scan column behind an expression, if each of its values is that column's and dropping the others drops only rows, not the choice of rows.
pub fn column_of(expr: &Expr, input: &Rel) -> Option<(u32, i16)> {
    let Node::Column(number) = expr.node else { return None };
    match input {
        Rel::Scan { source, columns, .. } => {
            columns.iter().find(|c| c.output == number).map(|c| (*source, c.attnum))
        }
        Rel::Filter { input, .. } | Rel::Distinct { input } | Rel::Sort { input, .. } => {
            column_of(expr, input)
        }
        Rel::Project { input, outputs, .. } => {
            outputs.iter().find(|(n, _)| *n == number).and_then(|(_, e)| column_of(e, input))
        }
        Rel::Aggregate { input, groups, .. } => groups.get(number).and_then(|g| column_of(g, input)),
        // LIMIT chooses among all rows before the filter sees them.
        Rel::OneRow | Rel::Limit { .. } | Rel::Join { .. } => None,
    }
}
