//! Which rows of the tail a plan can do without: conditions on single columns that PostgreSQL tests before it sends them. Pure.
//!
//! The plan filters what arrives again, so a condition may be left out, never made up. A filter counts only if it stands where dropping
//! rows drops nothing else (`pushed`), and only if nothing in it can raise an error: a row that is not sent would not raise it.

use super::harmless::is_harmless;
use super::{bounds, pushed};
use super::fold::{literal, quoted};
use super::ir::{Constant, Node, Rel};
use lake::types::ColType;
use pgtree::oid::Compare;
use pgtree::value::Value;

/// Longer constants are not worth sending twice.
const MAX_LITERAL: usize = 1000;

/// A column and what is asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    pub attnum: i16,
    /// Operator and literal, both qualified: to be written after the column.
    pub test: String,
}

/// The conditions that every row of `relid` must fulfil to matter to the plan. `value_of` gives what a constant stands for.
pub fn conditions(
    plan: &Rel,
    relid: u32,
    value_of: &dyn Fn(&Constant) -> Option<Value>,
) -> Vec<Condition> {
    let mut found = Vec::new();
    // Read twice, it has rows that only one of the two can do without.
    if plan.scans_of(relid) != 1 || !pushed::predicates(plan).into_iter().all(is_harmless) {
        return found;
    }
    pushed::each_scan(plan, &mut |scan, all| {
        if !matches!(scan, Rel::Scan { source, .. } if *source == relid) {
            return;
        }
        for (conjunct, _) in all {
            let Node::Compare(compare, a, b) = &conjunct.node else { continue };
            let (compare, column, constant) = match (a.as_constant(), b.as_constant()) {
                (None, Some(c)) => (*compare, a, c),
                (Some(c), None) => (compare.swap(), b, c),
                _ => continue,
            };
            let (Some(attnum), Some(value)) = (bounds::column_of(column, scan), value_of(constant)) else { continue };
            if let Some(test) = test_of(compare, column.ty, &value) {
                found.push(Condition { attnum, test });
            }
        }
    });
    found
}

fn test_of(compare: Compare, column: ColType, value: &Value) -> Option<String> {
    let ty = match (column, value) {
        (ColType::TimestampTz, Value::TimestampTz(_)) => "timestamptz",
        (ColType::Timestamp, Value::Timestamp(_)) => "timestamp",
        (ColType::Date, Value::Date(_)) => "date",
        (ColType::Int2 | ColType::Int4 | ColType::Int8, Value::Int2(_)) => "int2",
        (ColType::Int2 | ColType::Int4 | ColType::Int8, Value::Int4(_)) => "int4",
        (ColType::Int2 | ColType::Int4 | ColType::Int8, Value::Int8(_)) => "int8",
        (ColType::Uuid, Value::Uuid(_)) => "uuid",
        // Equality of text is equality of bytes under every deterministic collation; order is not. The statement travels in
        // the client's encoding, in which only ASCII is sure to mean itself.
        (ColType::Text | ColType::Varchar, Value::Text(s)) if compare == Compare::Eq && s.is_ascii() => "text",
        _ => return None,
    };
    let operator = match compare {
        Compare::Lt => "<",
        Compare::Le => "<=",
        Compare::Eq => "=",
        Compare::Ge => ">=",
        Compare::Gt => ">",
        Compare::Ne => "<>",
    };
    let text = literal(value)??;
    (text.len() <= MAX_LITERAL)
        .then(|| format!("OPERATOR(pg_catalog.{operator}) {}::pg_catalog.{ty}", quoted(&text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::ir::{Expr, Kernel, ScanColumn};

    fn scan() -> Rel {
        let column = |output, attnum, ty| ScanColumn { output, name: format!("c{attnum}"), attnum, ty };
        Rel::Scan {
            source: 7,
            columns: vec![column(0, 1, ColType::TimestampTz), column(1, 2, ColType::Text), column(2, 5, ColType::Int4)],
            width: 3,
        }
    }

    fn compare(compare: Compare, column: usize, ty: ColType, value: Value) -> Expr {
        let constant = Expr { node: Node::Constant(Constant::Literal(value)), ty };
        Expr::boolean(Node::Compare(compare, Box::new(Expr::column(column, ty)), Box::new(constant)))
    }

    fn asked(plan: &Rel) -> Vec<(i16, String)> {
        conditions(plan, 7, &|c| match c {
            Constant::Literal(v) => Some(v.clone()),
            _ => None,
        })
        .into_iter()
        .map(|c| (c.attnum, c.test))
        .collect()
    }

    fn filter(predicate: Expr) -> Rel {
        Rel::Filter { input: Box::new(scan()), predicate }
    }

    #[test]
    fn conjuncts_on_columns_are_asked_for() {
        let service = compare(Compare::Eq, 1, ColType::Text, Value::Text("a'b\\".into()));
        let since = compare(Compare::Ge, 0, ColType::TimestampTz, Value::TimestampTz(0));
        let plan = filter(Expr::boolean(Node::And(vec![service, since])));
        assert_eq!(
            asked(&plan),
            [
                (2, "OPERATOR(pg_catalog.=) E'a''b\\\\'::pg_catalog.text".to_owned()),
                (1, "OPERATOR(pg_catalog.>=) '1970-01-01 00:00:00.000000+00'::pg_catalog.timestamptz".to_owned()),
            ]
        );
    }

    #[test]
    fn what_is_not_sure_is_not_asked_for() {
        let order = compare(Compare::Lt, 1, ColType::Text, Value::Text("a".into()));
        assert_eq!(asked(&filter(order)), [], "text has an order only under a collation");
        let foreign = compare(Compare::Eq, 1, ColType::Text, Value::Text("ä".into()));
        assert_eq!(asked(&filter(foreign)), []);
        let null = compare(Compare::Eq, 2, ColType::Int4, Value::Null);
        assert_eq!(asked(&filter(null)), []);
        let a = compare(Compare::Eq, 2, ColType::Int4, Value::Int4(1));
        assert_eq!(asked(&filter(Expr::boolean(Node::Or(vec![a.clone(), a.clone()])))), []);
        let limited = Rel::Limit { input: Box::new(scan()), offset: None, count: None };
        assert_eq!(asked(&Rel::Filter { input: Box::new(limited), predicate: a }), []);
    }

    #[test]
    fn a_filter_that_may_raise_an_error_keeps_every_row() {
        let a = compare(Compare::Eq, 2, ColType::Int4, Value::Int4(1));
        let sum = Expr {
            node: Node::Call(
                Kernel::IntArith(crate::analyze::ir::Arith::Add),
                vec![Expr::column(2, ColType::Int4), Expr::column(2, ColType::Int4)],
            ),
            ty: ColType::Int4,
        };
        let raises = Expr::boolean(Node::Compare(Compare::Eq, Box::new(sum), Box::new(Expr::column(2, ColType::Int4))));
        assert_eq!(asked(&filter(Expr::boolean(Node::And(vec![a, raises])))), []);
    }
}
