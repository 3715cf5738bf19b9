//! Which text columns of a table a plan would rather read as codes: those that it groups by, or compares with
//! constants on the way to a grouping. Pure. ✗ whether their values repeat enough for it (`engine::provider`).
//!
//! A column qualifies if every use of it can work on codes; one that is printed, sorted by or computed with
//! row by row is better read as text at once.

use crate::analyze::ir::{Expr, Node, Rel};
use lake::types::ColType;
use pgtree::oid::Aggregate as Kind;
use std::collections::BTreeSet;

/// Sets of columns (attnums of `relid`), each to be read as codes together or not at all. A column may be in several.
pub fn wishes(plan: &Rel, relid: u32) -> Vec<Vec<i16>> {
    let mut uses = Uses::default();
    let outputs = uses.walk(plan, relid);
    // What reaches the client row by row is printed.
    uses.as_text.extend(outputs.into_iter().flatten());
    let Uses { sets, compared, as_text, grouped } = uses;
    if !grouped {
        return Vec::new();
    }
    let all = sets.into_iter().chain(compared.into_iter().map(|c| vec![c]));
    all.filter(|set| !set.is_empty() && set.iter().all(|c| !as_text.contains(c))).collect()
}

#[derive(Default)]
struct Uses {
    sets: Vec<Vec<i16>>,
    compared: BTreeSet<i16>,
    as_text: BTreeSet<i16>,
    /// Something is grouped at all.
    grouped: bool,
}

type Outputs = Vec<Option<i16>>;

impl Uses {
    /// The text column of the table behind each output.
    fn walk(&mut self, rel: &Rel, relid: u32) -> Outputs {
        match rel {
            Rel::OneRow => Vec::new(),
            Rel::Values { types, .. } => vec![None; types.len()],
            Rel::Series { .. } => vec![None],
            Rel::Scan { source, columns, width } => {
                let mut outputs = vec![None; *width];
                for column in columns.iter().filter(|_| *source == relid) {
                    if matches!(column.ty, ColType::Text | ColType::Varchar) {
                        outputs[column.output] = Some(column.attnum);
                    }
                }
                outputs
            }
            Rel::Filter { input, predicate } => {
                let outputs = self.walk(input, relid);
                self.expr(predicate, &outputs);
                outputs
            }
            Rel::Project { input, outputs: exprs, width } => {
                let below = self.walk(input, relid);
                let mut outputs = vec![None; *width];
                for (number, expr) in exprs {
                    outputs[*number] = self.passed(expr, &below);
                }
                outputs
            }
            Rel::Aggregate { input, groups, aggregates } => {
                let below = self.walk(input, relid);
                let mut distinct = None;
                for aggregate in aggregates {
                    if let Some(arg) = &aggregate.arg {
                        let column = column(arg, &below);
                        match aggregate.kind {
                            // Counted by grouping, if it is the only one.
                            Kind::Count if aggregate.distinct => match column {
                                Some(c) if aggregates.len() == 1 && aggregate.filter.is_none() => distinct = Some(c),
                                _ => self.as_text(arg, &below),
                            },
                            Kind::Count if column.is_some() => {}
                            _ => self.expr(arg, &below),
                        }
                    }
                    if let Some(filter) = &aggregate.filter {
                        self.expr(filter, &below);
                    }
                }
                let keys: Vec<Option<i16>> = groups.iter().map(|g| self.passed(g, &below)).collect();
                let numbered = |(group, key): (&Expr, &Option<i16>)| key.is_some() || is_numbered(group.ty);
                let texts: Vec<i16> = keys.iter().flatten().copied().chain(distinct).collect();
                if groups.iter().zip(&keys).all(numbered) {
                    self.group(texts);
                } else {
                    self.as_text.extend(texts);
                }
                // Groups are few: above, they may become text at will.
                vec![None; rel.width()]
            }
            Rel::Distinct { input } => {
                let below = self.walk(input, relid);
                let types = input.types();
                let numbered = |(number, ty): (usize, &ColType)| {
                    below.get(number).copied().flatten().is_some() || is_numbered(*ty)
                };
                let texts: Vec<i16> = below.iter().flatten().copied().collect();
                if types.len() == below.len() && types.iter().enumerate().all(numbered) {
                    self.group(texts);
                } else {
                    self.as_text.extend(texts);
                }
                vec![None; below.len()]
            }
            Rel::Sort { input, keys } => {
                let outputs = self.walk(input, relid);
                for key in keys {
                    self.as_text.extend(column(&key.expr, &outputs));
                    self.expr(&key.expr, &outputs);
                }
                outputs
            }
            Rel::Limit { input, .. } => self.walk(input, relid),
            Rel::After { first, then } => {
                for rel in first {
                    let outputs = self.walk(rel, relid);
                    self.as_text.extend(outputs.into_iter().flatten());
                }
                self.walk(then, relid)
            }
            // Codes of one scan say nothing of another's.
            Rel::Join { .. }
            | Rel::SetOp { .. }
            | Rel::Attach { .. }
            | Rel::Single { .. }
            | Rel::Window { .. }
            | Rel::DistinctOn { .. } => {
                for side in rel.inputs() {
                    let outputs = self.walk(side, relid);
                    self.as_text.extend(outputs.into_iter().flatten());
                }
                vec![None; rel.width()]
            }
        }
    }

    fn group(&mut self, columns: Vec<i16>) {
        self.grouped |= !columns.is_empty();
        self.sets.push(columns);
    }

    fn passed(&mut self, expr: &Expr, below: &Outputs) -> Option<i16> {
        let passed = column(expr, below);
        if passed.is_none() {
            self.expr(expr, below);
        }
        passed
    }

    /// Notes what an expression does with columns: comparing with constants works on codes, all else on texts.
    fn expr(&mut self, expr: &Expr, below: &Outputs) {
        match &expr.node {
            Node::And(items) | Node::Or(items) => items.iter().for_each(|e| self.expr(e, below)),
            Node::Not(a) | Node::BoolTest(a, _) => self.expr(a, below),
            Node::Compare(_, a, b) if a.as_constant().is_some() || b.as_constant().is_some() => {
                for side in [a, b] {
                    match column(side, below) {
                        Some(c) => {
                            self.compared.insert(c);
                        }
                        None => self.expr(side, below),
                    }
                }
            }
            Node::InList { arg, .. } | Node::IsNull(arg) | Node::IsNotNull(arg) => match column(arg, below) {
                Some(c) => {
                    self.compared.insert(c);
                }
                None => self.expr(arg, below),
            },
            _ => self.as_text(expr, below),
        }
    }

    fn as_text(&mut self, expr: &Expr, below: &Outputs) {
        expr.columns(&mut |number| self.as_text.extend(below.get(number).copied().flatten()));
    }
}

fn column(expr: &Expr, below: &Outputs) -> Option<i16> {
    match expr.node {
        Node::Column(number) => below.get(number).copied().flatten(),
        _ => None,
    }
}

/// Types that `engine::coded` numbers beside codes.
fn is_numbered(ty: ColType) -> bool {
    matches!(
        ty,
        ColType::Bool
            | ColType::Int2
            | ColType::Int4
            | ColType::Int8
            | ColType::Xid8
            | ColType::Date
            | ColType::Timestamp
            | ColType::TimestampTz
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::ir::{Aggregate, Compare, Constant, ScanColumn};
    use pgtree::value::Value;

    fn scan() -> Rel {
        let column = |output: usize, ty| ScanColumn { output, name: format!("c{output}"), attnum: output as i16 + 1, ty };
        let columns = vec![
            column(0, ColType::TimestampTz),
            column(1, ColType::Text),
            column(2, ColType::Text),
            column(3, ColType::Float8),
        ];
        Rel::Scan { source: 7, columns, width: 4 }
    }

    fn text(number: usize) -> Expr {
        Expr::column(number, ColType::Text)
    }

    fn equals(number: usize) -> Expr {
        let constant = Expr { node: Node::Constant(Constant::Literal(Value::Text("x".into()))), ty: ColType::Text };
        Expr::boolean(Node::Compare(Compare::Eq, Box::new(text(number)), Box::new(constant)))
    }

    fn aggregate(input: Rel, groups: Vec<Expr>, aggregates: Vec<Aggregate>) -> Rel {
        Rel::Aggregate { input: Box::new(input), groups, aggregates }
    }

    fn call(kind: Kind, arg: Option<Expr>, distinct: bool) -> Aggregate {
        Aggregate { kind, arg, distinct, filter: None, param: None, ty: ColType::Int8 }
    }

    #[test]
    fn groups_and_their_filters_are_wished_for() {
        let filtered = Rel::Filter { input: Box::new(scan()), predicate: equals(1) };
        let plan = aggregate(filtered, vec![text(2)], vec![call(Kind::CountStar, None, false)]);
        assert_eq!(wishes(&plan, 7), [vec![3], vec![2]]);
        assert_eq!(wishes(&plan, 8), Vec::<Vec<i16>>::new(), "another table");
    }

    #[test]
    fn keys_go_together() {
        let plan = aggregate(scan(), vec![text(1), Expr::column(0, ColType::TimestampTz), text(2)], vec![]);
        assert_eq!(wishes(&plan, 7), [vec![2, 3]]);
        let plan = aggregate(scan(), vec![text(1), Expr::column(3, ColType::Float8)], vec![]);
        assert_eq!(wishes(&plan, 7), Vec::<Vec<i16>>::new(), "floats have no codes");
    }

    #[test]
    fn what_needs_the_text_is_left_alone() {
        let most = call(Kind::Max, Some(text(1)), false);
        assert_eq!(wishes(&aggregate(scan(), vec![text(1)], vec![most]), 7), Vec::<Vec<i16>>::new());
        let filtered = Rel::Filter { input: Box::new(scan()), predicate: equals(1) };
        assert_eq!(wishes(&filtered, 7), Vec::<Vec<i16>>::new(), "printed row by row");
        let count = call(Kind::Count, Some(text(1)), true);
        assert_eq!(wishes(&aggregate(scan(), vec![], vec![count.clone()]), 7), [vec![2]]);
        let two = aggregate(scan(), vec![], vec![count.clone(), count]);
        assert_eq!(wishes(&two, 7), Vec::<Vec<i16>>::new());
    }
}
