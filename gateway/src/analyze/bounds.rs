//! What a plan's filters say about the rows it needs: event-time bounds and equality with constants. Pure and conservative: what is not seen
//! here means "any row".

use super::ir::{Compare, Constant, Expr, List, Node, Rel};
use super::pushed;
use lake::types::{ColType, DAY_MICROS};
use pgtree::value::Value;

/// The largest instant (inclusive, µs since 1970) known to be at or below the event time of every row the plan needs of the tables whose
/// event times `event_time` gives. `value_of` gives what a constant stands for, where that is known. Only filters that reach the scan count
/// which PostgreSQL's pruning sees as well.
pub fn lower_bound(
    plan: &Rel,
    event_time: &dyn Fn(u32) -> Option<i16>,
    value_of: &dyn Fn(&Constant) -> Option<Value>,
) -> Option<i64> {
    // Of all scans the least; a scan without bound: None.
    let mut least: Option<Option<i64>> = None;
    pushed::each_scan(plan, &mut |scan, conditions| {
        let Rel::Scan { source, .. } = scan else { return };
        let Some(event) = event_time(*source) else { return };
        let plain = conditions.iter().filter(|(_, plain)| *plain);
        let own = plain.filter_map(|(c, _)| lower_of(c, scan, event, value_of)).max();
        least = Some(match (least, own) {
            (None, own) => own,
            (Some(Some(a)), Some(b)) => Some(a.min(b)),
            _ => None,
        });
    });
    least.flatten()
}

/// Whether some column of a scan must equal a constant.
pub fn looks_up(plan: &Rel) -> bool {
    let mut found = false;
    pushed::each_scan(plan, &mut |scan, conditions| {
        for (condition, _) in conditions {
            if let Node::Compare(Compare::Eq, a, b) = &condition.node {
                let (column, constant) = if b.as_constant().is_some() { (a, b) } else { (b, a) };
                found |= constant.as_constant().is_some() && column_of(column, scan).is_some();
            }
        }
    });
    found
}

/// Whether the outermost relations sort and then limit.
pub fn orders_and_limits(plan: &Rel) -> bool {
    match plan {
        Rel::Project { input, .. } | Rel::After { then: input, .. } => orders_and_limits(input),
        Rel::Limit { input, count: Some(_), .. } => matches!(**input, Rel::Sort { .. }),
        _ => false,
    }
}

fn lower_of(
    expr: &Expr,
    scan: &Rel,
    event_time: i16,
    value_of: &dyn Fn(&Constant) -> Option<Value>,
) -> Option<i64> {
    let below = |e: &Expr| lower_of(e, scan, event_time, value_of);
    let is_event = |e: &Expr| column_of(e, scan) == Some(event_time);
    match &expr.node {
        Node::And(items) => items.iter().filter_map(below).max(),
        Node::Or(items) => items.iter().map(below).collect::<Option<Vec<_>>>()?.into_iter().min(),
        Node::InList { arg, list: List::Items(items), negated: false } if is_event(arg) => {
            let instants = items.iter().map(|c| instant(&value_of(c)?, arg.ty).map(|(at, _)| at));
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
            let (at, step) = instant(&value_of(constant)?, column.ty)?;
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

/// The attribute number of the scan's column that the expression is.
pub fn column_of(expr: &Expr, scan: &Rel) -> Option<i16> {
    match (&expr.node, scan) {
        (Node::Column(number), Rel::Scan { columns, .. }) => {
            columns.iter().find(|c| c.output == *number).map(|c| c.attnum)
        }
        _ => None,
    }
}
