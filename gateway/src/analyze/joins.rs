//! FROM: joins of relations. USING and NATURAL arrive as conditions, and their merged columns as PostgreSQL's own alias expressions.
//! ✗ what a relation is (`relation`), what an expression means (`scalar`).

use super::ir::{Compare, Constant, Expr, JoinKind, Node, Rel};
use super::relation::{ATTACHED, Scope};
use super::{Analyzer, Outcome, refuse};
use pgtree::tree::{self, FromItem, Query};
use pgtree::value::Value;

impl<'a> Analyzer<'a> {
    pub(super) fn from_item<'q>(
        &mut self,
        item: &'q FromItem,
        stack: &[&'q Query],
        scope: &mut Scope<'q>,
    ) -> Outcome<Rel> {
        self.levels += 1;
        if self.levels > super::MAX_LEVELS {
            return refuse("joins nested too deeply");
        }
        let outcome = self.from_item_inner(item, stack, scope);
        self.levels -= 1;
        outcome
    }

    fn from_item_inner<'q>(
        &mut self,
        item: &'q FromItem,
        stack: &[&'q Query],
        scope: &mut Scope<'q>,
    ) -> Outcome<Rel> {
        match item {
            FromItem::Ref(index) => {
                let Some(rte) = index.checked_sub(1).and_then(|i| scope.query.rtable.get(i)) else {
                    return refuse("a range table reference that leads nowhere");
                };
                let rel = self.entry(rte, stack)?;
                scope.offsets[index - 1] = Some(scope.types.len());
                scope.types.extend(rel.types());
                Ok(rel)
            }
            FromItem::Join { kind, left, right, quals, .. } => {
                let kind = match kind {
                    tree::JoinKind::Inner => JoinKind::Inner,
                    tree::JoinKind::Left => JoinKind::Left,
                    tree::JoinKind::Right => JoinKind::Right,
                    tree::JoinKind::Full => JoinKind::Full,
                    tree::JoinKind::Other(_) => return refuse("a join of another kind"),
                };
                let start = scope.types.len();
                let left = self.from_item(left, stack, scope)?;
                let right = self.from_item(right, stack, scope)?;
                let on = match quals {
                    None => None,
                    Some(quals) => {
                        let mut on = self.condition(quals, scope)?;
                        shift(&mut on, start)?;
                        let mut kept: Vec<Expr> = on.conjuncts().iter().filter(|c| !is_true(c)).cloned().collect();
                        match kept.len() {
                            0 => None,
                            1 => kept.pop(),
                            _ => Some(Expr::boolean(Node::And(kept))),
                        }
                    }
                };
                // PostgreSQL has no way to compute others, and says so.
                if kind == JoinKind::Full && !on.as_ref().is_some_and(|on| equates(on, left.width())) {
                    return refuse("FULL JOIN without an equality of both sides");
                }
                Ok(Rel::Join { kind, left: Box::new(left), right: Box::new(right), on })
            }
            FromItem::Unknown(name) => refuse(format!("{name} in FROM")),
        }
    }
}

/// ON true.
fn is_true(condition: &Expr) -> bool {
    matches!(condition.node, Node::Constant(Constant::Literal(Value::Bool(true))))
}

/// Whether one of the conditions is an equality of something of the left with something of the right.
pub(super) fn equates(on: &Expr, split: usize) -> bool {
    let side = |e: &Expr| {
        let (mut left, mut right) = (false, false);
        e.columns(&mut |n| if n < split { left = true } else { right = true });
        (left != right).then_some(left)
    };
    on.conjuncts().iter().any(|condition| match &condition.node {
        Node::Compare(Compare::Eq, a, b) => matches!((side(a), side(b)), (Some(x), Some(y)) if x != y),
        _ => false,
    })
}

/// Renumbers the columns of a join condition, translated against all of FROM so far, to those of the join itself.
fn shift(on: &mut Expr, start: usize) -> Outcome<()> {
    let mut beyond = false;
    on.renumber(&mut |number| match number.checked_sub(start) {
        Some(shifted) if *number < ATTACHED => *number = shifted,
        _ => beyond = true,
    });
    match beyond {
        true => refuse("a join condition that reads beyond its join, or a sub-select in it"),
        false => Ok(()),
    }
}
