//! Scalar sub-selects that depend on the row by equalities: `(SELECT count(*) FROM b WHERE b.k = a.k)`. The sub-select is grouped by its sides
//! of the equalities and joined to the rows, each of which meets one group or none; of none, counts are 0 and all else is NULL. So is a plain
//! one, `(SELECT b.name FROM b WHERE b.k = a.k)`, which PostgreSQL may have an error for where a row meets several.
//! ✗ sub-selects that do not depend on the row (`sublinks`).

use super::ir::{Aggregate, Compare, Constant, Expr, Kernel, Node, Order, Rel};
use super::relation::{ATTACHED, Beside, Grouping, INNER, OUTER, Scope};
use super::sublinks::is_plain;
use super::{Analyzer, Outcome, harmless, refuse};
use lake::types::ColType;
use pgtree::oid::Aggregate as Kind;
use pgtree::tree::{self, Query, SubLink};
use pgtree::value::Value;

impl Analyzer<'_> {
    /// The value of a sub-select of one aggregation. Its rows are computed for all groups, not only for those that are met: what may raise an
    /// error among them is computed first.
    pub(super) fn correlated<'q>(&mut self, link: &'q SubLink, scope: &mut Scope<'q>) -> Outcome<Expr> {
        const UNPROVEN: &str = "a correlated sub-select";
        let sub = &link.query;
        let (Some(target), false) = (sub.first_target(), scope.grouping.is_some() || scope.outer.is_some()) else {
            return refuse(UNPROVEN);
        };
        let one = is_one(sub);
        if !one && !is_plain_aggregation(sub) {
            return refuse("a correlated sub-select that is neither one aggregation nor plain");
        }
        let mut inner = self.inside(sub, scope);
        self.depth += 1;
        let built = self.correlated_parts(sub, &mut inner);
        self.depth -= 1;
        let (input, correlated) = built?;

        let mut on = Vec::with_capacity(correlated.len());
        let mut groups = Vec::with_capacity(correlated.len());
        for condition in correlated {
            let Node::Compare(Compare::Eq, a, b) = condition.node else { return refuse("a sub-select correlated by more than equalities") };
            let (mut outer, own) = match (reads(&a), reads(&b)) {
                ((true, false), (false, true)) => (*a, *b),
                ((false, true), (true, false)) => (*b, *a),
                _ => return refuse("a sub-select correlated by more than equalities"),
            };
            if !harmless::is_harmless(&outer) {
                return refuse("a correlated sub-select over what may raise an error");
            }
            // What is grouped by must be equal where it is compared as equal.
            if matches!(own.ty, ColType::NumericText | ColType::Float4 | ColType::Float8 | ColType::Jsonb | ColType::Bytea | ColType::Array(_)) {
                return refuse(UNPROVEN);
            }
            outer.renumber(&mut |n| *n -= OUTER);
            on.push(outer);
            groups.push(own);
        }
        if on.is_empty() {
            return refuse(UNPROVEN);
        }

        if one {
            return self.looked_up(target, input, groups, on, inner, scope);
        }
        inner.grouping = Some(Grouping { groups: Vec::new(), aggregates: Vec::new(), calls: Vec::new() });
        let value = self.expr(target, &mut inner);
        let grouping = inner.grouping.take();
        let (mut value, Some(grouping)) = (value?, grouping) else { return refuse(UNPROVEN) };
        let aggregates: Vec<_> = grouping.aggregates.into_iter().map(|(_, a)| a).collect();
        if aggregates.is_empty() || !grouping.calls.is_empty() || !inner.below.is_empty() || !inner.above.is_empty() || !inner.windows.is_empty() {
            return refuse("a correlated sub-select of this form");
        }
        let counts: Vec<bool> = aggregates.iter().map(|a| matches!(a.kind, Kind::Count | Kind::CountStar)).collect();
        let within = |e: &Expr| !reads(e).0;
        if !aggregates.iter().flat_map(|a| a.arg.iter().chain(&a.filter)).all(within) {
            return refuse("a sub-select that aggregates values of the query around it");
        }
        let keys = groups.len();
        let right = Rel::Aggregate { input: Box::new(input), groups, aggregates };
        // PostgreSQL computes it for some of the groups.
        self.whole(&right);
        let first = ATTACHED + scope.below.iter().map(Beside::width).sum::<usize>();
        place(&mut value, first + keys, &counts)?;
        scope.below.push(Beside::Group { right, on });
        Ok(value)
    }

    /// The value of the one row that there is for each of the groups.
    fn looked_up<'q>(
        &mut self,
        target: &'q tree::Expr,
        input: Rel,
        groups: Vec<Expr>,
        on: Vec<Expr>,
        mut inner: Scope<'q>,
        scope: &mut Scope<'q>,
    ) -> Outcome<Expr> {
        let value = self.expr(target, &mut inner)?;
        if value.is_constant() || reads(&value).0 || !inner.below.is_empty() {
            return refuse("a correlated sub-select of this form");
        }
        let (ty, keys) = (value.ty, groups.len());
        let made = |kind, arg, ty| Aggregate { kind, arg, distinct: false, filter: None, param: None, ty };
        // Of one row, the most frequent value is its own.
        let key = Kernel::Key { orders: vec![Order { descending: false, nulls_first: false }], value: 0, skipped: None };
        let key = Expr { node: Node::Call(key, vec![value]), ty: ColType::Bytea };
        let aggregates = vec![made(Kind::CountStar, None, ColType::Int8), made(Kind::Mode, Some(key), ty)];
        let right = Rel::Aggregate { input: Box::new(input), groups, aggregates };
        // PostgreSQL computes it for some of the groups.
        self.whole(&right);
        let first = ATTACHED + scope.below.iter().map(Beside::width).sum::<usize>() + keys;
        scope.below.push(Beside::Group { right, on });
        let parts = vec![Expr::column(first, ColType::Int8), Expr::column(first + 1, ty)];
        Ok(Expr { node: Node::Call(Kernel::OnlyOne, parts), ty })
    }

    /// The rows of the sub-select that do not depend on the row around it, and the conditions that do.
    fn correlated_parts<'q>(&mut self, sub: &'q Query, inner: &mut Scope<'q>) -> Outcome<(Rel, Vec<Expr>)> {
        let mut input = self.from(sub, inner)?;
        let Some(quals) = &sub.quals else { return Ok((input, Vec::new())) };
        let (rest, correlated) = self.conditions(quals, &mut input, inner)?;
        if let Some(predicate) = rest {
            input = Rel::Filter { input: Box::new(input), predicate };
        }
        Ok((input, correlated))
    }
}

/// Whether an expression reads the row around, and the sub-select's own.
fn reads(expr: &Expr) -> (bool, bool) {
    let (mut outer, mut own) = (false, false);
    expr.columns(&mut |n| if (OUTER..INNER).contains(&n) { outer = true } else { own = true });
    (outer, own)
}

/// Moves an expression over the aggregates to where these stand beside the row; a count that is not there is 0.
fn place(value: &mut Expr, first: usize, counts: &[bool]) -> Outcome<()> {
    let mut known = true;
    value.columns(&mut |n| known &= n < counts.len() || (OUTER..INNER).contains(&n));
    if !known {
        return refuse("a correlated sub-select of this form");
    }
    fn walk(expr: &mut Expr, first: usize, counts: &[bool]) {
        if let Node::Column(number) = &mut expr.node {
            match counts.get(*number) {
                Some(count) => {
                    let beside = Expr::column(first + *number, expr.ty);
                    *expr = match count {
                        true => {
                            let zero = Expr { node: Node::Constant(Constant::Literal(Value::Int8(0))), ty: ColType::Int8 };
                            Expr { ty: beside.ty, node: Node::Coalesce(vec![beside, zero]) }
                        }
                        false => beside,
                    };
                }
                None => *number -= OUTER,
            }
            return;
        }
        expr.children_mut().into_iter().for_each(|child| walk(child, first, counts));
    }
    walk(value, first, counts);
    Ok(())
}

/// Rows as they are, of which an expression sees one.
fn is_one(sub: &Query) -> bool {
    is_plain(sub) && sub.distinct.is_empty() && sub.sort.is_empty() && sub.targets.len() == 1
}

/// One group of all rows, whatever these are, and nothing done with it.
fn is_plain_aggregation(sub: &Query) -> bool {
    sub.has_aggs
        && sub.group.is_empty()
        && sub.grouping_sets.is_empty()
        && sub.having.is_none()
        && sub.windows.is_empty()
        && sub.set_operations.is_none()
        && sub.limit_count.is_none()
        && sub.limit_offset.is_none()
        && sub.distinct.is_empty()
        && sub.sort.is_empty()
        && !sub.has_target_srfs
        && sub.targets.len() == 1
}
