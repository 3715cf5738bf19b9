//! Numerics of several fixed scales in one place (`CASE WHEN b THEN n ELSE 0 END`): each value keeps the scale it has, so the result has none that
//! is fixed; and sums and averages over such, whose scale is the largest that was summed. Also GREATEST and LEAST.

use super::ir::{self, Expr, Kernel, Node};
use super::registry;
use super::relation::Scope;
use super::{Analyzer, Outcome, names, refuse};
use lake::types::ColType;
use pgtree::oid::Aggregate as Kind;
use pgtree::tree;

/// Digits whose sums cannot outgrow a decimal of 38: ten digits of rows remain.
const MAX_SUMMED: i16 = 28;

/// The value as its text, whatever its scale.
pub(super) fn unscaled(expr: Expr) -> Expr {
    match expr.ty {
        ColType::Numeric { .. } => {
            Expr { node: Node::Call(Kernel::NumericToText, vec![expr]), ty: ColType::NumericText }
        }
        _ => Expr { ty: ColType::NumericText, ..expr },
    }
}

/// Precision and scale that hold every value of the branches; None unless `expr` has branches and each of them has a fixed scale.
fn widest(expr: &Expr) -> Option<(i16, i16)> {
    let mut widest: Option<(i16, i16)> = None;
    each_branch(expr, &mut |branch| {
        let (whole, scale) = match &branch.node {
            Node::Call(Kernel::NumericToText, args) => match args.first().map(|a| a.ty) {
                Some(ColType::Numeric { precision, scale }) => {
                    (i16::from(precision) - i16::from(scale), i16::from(scale))
                }
                _ => return false,
            },
            Node::Constant(ir::Constant::Literal(pgtree::value::Value::Null)) => (0, 0),
            _ => return false,
        };
        widest = Some(widest.map_or((whole, scale), |(w, s)| (w.max(whole), s.max(scale))));
        true
    })?;
    widest
        .map(|(whole, scale)| (whole + scale, scale))
        .filter(|(precision, _)| (1..=MAX_SUMMED).contains(precision))
}

/// Calls `f` with each result of a CASE or COALESCE; None if it is neither, or `f` says no.
fn each_branch(expr: &Expr, f: &mut dyn FnMut(&Expr) -> bool) -> Option<()> {
    let all = match &expr.node {
        Node::Case { whens, default } => {
            whens.iter().map(|(_, result)| result).chain(default.as_deref()).all(&mut *f)
        }
        Node::Coalesce(items) => items.iter().all(&mut *f),
        _ => return None,
    };
    all.then_some(())
}

/// `expr` with `f` of each branch in its place.
fn with_branches(expr: &Expr, ty: ColType, f: &dyn Fn(&Expr) -> Expr) -> Expr {
    let node = match &expr.node {
        Node::Case { whens, default } => Node::Case {
            whens: whens.iter().map(|(condition, result)| (condition.clone(), f(result))).collect(),
            default: default.as_deref().map(|d| Box::new(f(d))),
        },
        Node::Coalesce(items) => Node::Coalesce(items.iter().map(f).collect()),
        other => other.clone(),
    };
    Expr { node, ty }
}

impl Analyzer<'_> {
    /// `sum` and `avg` of numerics of several scales: sums, scales and counts apart, put together above. None for any other aggregate.
    pub(super) fn mixed_aggregate<'q>(
        &mut self,
        aggref: &'q tree::Aggref,
        scope: &mut Scope<'q>,
    ) -> Outcome<Option<(Kernel, Vec<ir::Aggregate>)>> {
        let kind = registry::aggregate(aggref.fnoid).and_then(|a| a.rule.meaning());
        let (Some(kind @ (Kind::Sum | Kind::Avg)), [one]) = (kind, aggref.args.as_slice()) else {
            return Ok(None);
        };
        let plain = aggref.levels_up == 0
            && aggref.kind == 'n'
            && aggref.order.is_empty()
            && aggref.distinct.is_empty();
        if !plain || one.junk || !matches!(one.expr, tree::Expr::Case { .. } | tree::Expr::Coalesce { .. }) {
            return Ok(None);
        }
        let arg = self.expr(&one.expr, scope)?;
        let Some((precision, scale)) = widest(&arg).filter(|_| arg.ty == ColType::NumericText) else {
            return Ok(None);
        };
        let filter = match &aggref.filter {
            Some(filter) => Some(self.condition(filter, scope)?),
            None => None,
        };
        // At most 28 digits.
        let to = ColType::Numeric { precision: precision as u8, scale: scale as i8 };
        let inner = |branch: &Expr| match &branch.node {
            Node::Call(Kernel::NumericToText, args) => args.first().cloned(),
            _ => None,
        };
        let null = |ty| Expr { node: Node::Constant(ir::Constant::Literal(pgtree::value::Value::Null)), ty };
        let values = with_branches(&arg, to, &|branch| match inner(branch) {
            Some(value) => Expr { node: Node::Call(Kernel::NumericCast, vec![value]), ty: to },
            None => null(to),
        });
        let scales = with_branches(&arg, ColType::Int4, &|branch| match inner(branch) {
            Some(value) => {
                let scale = match value.ty {
                    ColType::Numeric { scale, .. } => i32::from(scale),
                    _ => 0,
                };
                let scale = ir::Constant::Literal(pgtree::value::Value::Int4(scale));
                let scale = Expr { node: Node::Constant(scale), ty: ColType::Int4 };
                let there = Expr::boolean(Node::IsNotNull(Box::new(value)));
                Expr { node: Node::Case { whens: vec![(there, scale)], default: None }, ty: ColType::Int4 }
            }
            None => null(ColType::Int4),
        });
        let made = |kind, arg: Expr, ty| ir::Aggregate {
            kind,
            arg: Some(arg),
            distinct: false,
            filter: filter.clone(),
            param: None,
            ty,
        };
        let sum = ColType::Numeric { precision: precision as u8 + 10, scale: scale as i8 };
        let mut parts = vec![made(Kind::Sum, values.clone(), sum), made(Kind::Max, scales, ColType::Int4)];
        if kind == Kind::Avg {
            parts.push(made(Kind::Count, values, ColType::Int8));
        }
        Ok(Some((Kernel::Rescale, parts)))
    }

    /// GREATEST and LEAST over one type whose order is the engine's.
    pub(super) fn extreme<'q>(
        &mut self,
        greatest: bool,
        args: &'q [tree::Expr],
        collation: u32,
        scope: &mut Scope<'q>,
    ) -> Outcome<Expr> {
        use ColType::*;
        let place = if greatest { "GREATEST" } else { "LEAST" };
        let mut items = Vec::with_capacity(args.len());
        for arg in args {
            items.push(self.expr(arg, scope)?);
        }
        let ty = super::scalar::unify(items.iter_mut().collect(), place)?;
        match ty {
            Bool | Int2 | Int4 | Int8 | Numeric { .. } | Date | Timestamp | TimestampTz => {}
            Text => self.bytewise(collation, place)?,
            NumericText => return refuse(format!("{place} over numerics of different scales")),
            other => return refuse(format!("{place} of {}", names::type_name(other.type_oid()))),
        }
        Ok(Expr { node: Node::Call(Kernel::Extreme { greatest }, items), ty })
    }
}
