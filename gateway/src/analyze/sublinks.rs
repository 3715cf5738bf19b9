//! Sub-selects in expressions. A value that does not depend on the row is computed once and put beside every row; IN and EXISTS among the
//! conditions of WHERE become joins that keep or drop rows: what NULLs mean to them is written out here. Anything else is not proven.

use super::ir::{Aggregate, Compare, Constant, Expr, JoinKind, Node, Rel};
use super::joins::equates;
use super::relation::{ATTACHED, Beside, INNER, OUTER, Outer, Scope, attach};
use super::scalar::may_decide;
use super::{Analyzer, Outcome, Refused, refuse};
use lake::types::ColType;
use pgtree::oid;
use pgtree::tree::{self, BoolOp, Query, SubLink, SubLinkKind};
use pgtree::value::Value;

const UNPROVEN: &str = "a sub-select in an expression";

/// A condition that keeps the rows for which some row (`Semi`) or no row (`Anti`) of `right` fulfils `on`.
struct Partner {
    kind: JoinKind,
    right: Rel,
    /// Over the rows being read, and over those of the right as `INNER` and following.
    on: Expr,
}

impl<'a> Analyzer<'a> {
    /// WHERE over `rel`.
    pub(super) fn selection<'q>(
        &mut self,
        quals: &'q tree::Expr,
        mut rel: Rel,
        scope: &mut Scope<'q>,
    ) -> Outcome<Rel> {
        let (conditions, correlated) = self.conditions(quals, &mut rel, scope)?;
        if !correlated.is_empty() {
            return refuse("a correlated sub-select");
        }
        Ok(conditions.map_or(rel.clone(), |predicate| Rel::Filter { input: Box::new(rel), predicate }))
    }

    /// Translates conditions over `rel`, which joins what they ask of other relations. Gives those that are left to test, and those that
    /// refer to the query around.
    pub(super) fn conditions<'q>(
        &mut self,
        quals: &'q tree::Expr,
        rel: &mut Rel,
        scope: &mut Scope<'q>,
    ) -> Outcome<(Option<Expr>, Vec<Expr>)> {
        let mut flat = Vec::new();
        conjuncts(quals, &mut flat);
        let mut partners = Vec::new();
        let mut own = Vec::new();
        let mut plain = Vec::new();
        for qual in flat {
            let may_be_left = usize::from(plain.iter().any(|condition| may_decide(condition, false)));
            self.guarded += may_be_left;
            let outcome = match partner_of(qual) {
                Some((link, positive)) => self.partner(link, positive, scope).map(|(more, partner)| {
                    own.extend(more);
                    partners.extend(partner);
                }),
                None => self.condition(qual, scope).map(|condition| plain.push(condition)),
            };
            self.guarded -= may_be_left;
            if let Err(Refused(reason)) = outcome {
                self.note(reason);
            }
        }
        let is_correlated = |e: &Expr| {
            let mut outer = false;
            e.columns(&mut |n| outer |= (OUTER..INNER).contains(&n));
            outer
        };
        let (correlated, local): (Vec<_>, Vec<_>) = plain.into_iter().partition(is_correlated);
        let mut predicate = match local.len() {
            0 => None,
            _ => Some(all(local)),
        };
        let mut taken = std::mem::replace(rel, Rel::OneRow);
        // What is tested without any other relation comes first.
        let attached = !scope.below.is_empty();
        if !attached && let Some(predicate) = predicate.take() {
            taken = Rel::Filter { input: Box::new(taken), predicate };
        }
        let read = predicate.iter_mut().chain(&mut own).chain(partners.iter_mut().map(|p| &mut p.on));
        taken = attach(taken, &mut scope.below, read);
        if let Some(predicate) = predicate {
            taken = Rel::Filter { input: Box::new(taken), predicate };
        }
        if correlated.iter().any(|e| beyond(e)) || own.iter().any(|e| is_correlated(e)) {
            return refuse(UNPROVEN);
        }
        for Partner { kind, right, mut on } in partners {
            if is_correlated(&on) {
                return refuse("a sub-select that is correlated over two levels");
            }
            let width = taken.width();
            on.renumber(&mut |n| {
                if *n >= INNER {
                    *n = *n - INNER + width;
                }
            });
            taken = Rel::Join { kind, left: Box::new(taken), right: Box::new(right), on: Some(on) };
        }
        *rel = taken;
        Ok(((!own.is_empty()).then(|| all(own)), correlated))
    }

    /// IN, NOT IN, EXISTS or NOT EXISTS: conditions to test, and a join.
    fn partner<'q>(
        &mut self,
        link: &'q SubLink,
        positive: bool,
        scope: &mut Scope<'q>,
    ) -> Outcome<(Vec<Expr>, Option<Partner>)> {
        match link.kind {
            SubLinkKind::Exists => self.exists(link, positive, scope),
            _ => self.is_in(link, positive, scope),
        }
    }

    fn is_in<'q>(
        &mut self,
        link: &'q SubLink,
        positive: bool,
        scope: &mut Scope<'q>,
    ) -> Outcome<(Vec<Expr>, Option<Partner>)> {
        let right = self.query(&link.query, &scope.stack.clone())?;
        let types = right.types();
        let Some(test) = &link.test else { return refuse(UNPROVEN) };
        scope.compared = Some(types.clone());
        let on = self.condition(test, scope);
        scope.compared = None;
        let mut on = on?;
        // NOT IN comes as NOT (= ANY), or as <> ALL.
        if link.kind == SubLinkKind::All {
            match &mut on.node {
                Node::Compare(compare @ Compare::Ne, ..) => *compare = Compare::Eq,
                _ => return refuse("ALL over a sub-select"),
            }
        }
        let sides = |a: &Expr, b: &Expr| !reads_inner(a) && if positive { is_of_inner(b) } else { is_inner(b) };
        let equality = |e: &Expr| matches!(&e.node, Node::Compare(Compare::Eq, a, b) if sides(a, b));
        if !on.conjuncts().iter().all(equality) {
            return refuse("ANY over a sub-select");
        }
        if positive {
            return Ok((Vec::new(), Some(Partner { kind: JoinKind::Semi, right, on })));
        }
        let (Node::Compare(_, value, _), [_]) = (&on.node, types.as_slice()) else {
            return refuse("NOT IN over several columns");
        };
        // True if there is nothing to be in, or if neither the value nor anything there is NULL and nothing there is equal.
        let count = |kind, arg: Option<Expr>| Aggregate { kind, arg, distinct: false, filter: None, param: None, ty: ColType::Int8 };
        let counted = Rel::Aggregate {
            input: Box::new(right.clone()),
            groups: Vec::new(),
            aggregates: vec![
                count(oid::Aggregate::CountStar, None),
                count(oid::Aggregate::Count, Some(Expr::column(0, types[0]))),
            ],
        };
        let number = |n| Expr::column(n, ColType::Int8);
        let zero = || Box::new(constant(Value::Int8(0), ColType::Int8));
        let nothing = Expr::boolean(Node::Compare(Compare::Eq, Box::new(number(0)), zero()));
        let no_null = Expr::boolean(Node::Compare(Compare::Eq, Box::new(number(0)), Box::new(number(1))));
        let project = |expr: Expr| Rel::Project { input: Box::new(counted.clone()), outputs: vec![(0, expr)], width: 1 };
        let nothing = self.attached(project(nothing), scope);
        let no_null = self.attached(project(no_null), scope);
        let known = Expr::boolean(Node::IsNotNull(value.clone()));
        let may = Expr::boolean(Node::Or(vec![nothing, Expr::boolean(Node::And(vec![known, no_null]))]));
        Ok((vec![may], Some(Partner { kind: JoinKind::Anti, right, on })))
    }

    /// The scope of a sub-select that may read the row around it.
    pub(super) fn inside<'q>(&mut self, sub: &'q Query, scope: &Scope<'q>) -> Scope<'q> {
        self.refuse_clauses(sub);
        self.note_rights(sub);
        let mut stack = scope.stack.clone();
        stack.push(sub);
        let mut inner = Scope::new(sub, stack);
        inner.outer = Some(Outer { query: scope.query, offsets: scope.offsets.clone(), types: scope.types.clone() });
        inner
    }

    fn exists<'q>(
        &mut self,
        link: &'q SubLink,
        positive: bool,
        scope: &mut Scope<'q>,
    ) -> Outcome<(Vec<Expr>, Option<Partner>)> {
        let sub = &link.query;
        if !is_plain(sub) {
            let found = self.is_there(sub, scope)?;
            return Ok((vec![if positive { found } else { Expr::boolean(Node::Not(Box::new(found))) }], None));
        }
        if scope.outer.is_some() {
            return refuse("EXISTS inside EXISTS");
        }
        let mut inner = self.inside(sub, scope);
        let mut right = self.from(sub, &mut inner)?;
        let correlated = match &sub.quals {
            None => Vec::new(),
            Some(quals) => {
                let (rest, correlated) = self.conditions(quals, &mut right, &mut inner)?;
                if let Some(predicate) = rest {
                    right = Rel::Filter { input: Box::new(right), predicate };
                }
                correlated
            }
        };
        if correlated.is_empty() {
            let found = self.found(right, scope);
            return Ok((vec![if positive { found } else { Expr::boolean(Node::Not(Box::new(found))) }], None));
        }
        let mut on = all(correlated);
        on.renumber(&mut |n| *n = if *n >= OUTER { *n - OUTER } else { *n + INNER });
        if !equates(&on, INNER) {
            return refuse("EXISTS without an equality with the query around it");
        }
        let kind = if positive { JoinKind::Semi } else { JoinKind::Anti };
        Ok((Vec::new(), Some(Partner { kind, right, on })))
    }

    /// A sub-select anywhere in an expression.
    pub(super) fn sub_link<'q>(&mut self, link: &'q SubLink, scope: &mut Scope<'q>) -> Outcome<Expr> {
        // PostgreSQL may never compute it.
        if self.guarded > 0 {
            return refuse("a sub-select inside CASE or COALESCE, or behind a condition that may decide");
        }
        match link.kind {
            SubLinkKind::Exists => self.is_there(&link.query, scope),
            SubLinkKind::Scalar if depends(&link.query) => self.correlated(link, scope),
            SubLinkKind::Scalar => {
                let rel = self.query(&link.query, &scope.stack.clone())?;
                if rel.width() != 1 {
                    return refuse(UNPROVEN);
                }
                let rel = if is_one_row(&rel) { rel } else { Rel::Single { input: Box::new(rel) } };
                Ok(self.attached(rel, scope))
            }
            _ => refuse("IN, ANY, ALL or ARRAY over a sub-select inside an expression"),
        }
    }

    fn is_there<'q>(&mut self, sub: &'q Query, scope: &mut Scope<'q>) -> Outcome<Expr> {
        let rel = self.query(sub, &scope.stack.clone())?;
        Ok(self.found(rel, scope))
    }

    /// Whether the relation, which does not depend on the row, has a row.
    fn found(&mut self, rel: Rel, scope: &mut Scope<'_>) -> Expr {
        let one = Constant::Literal(Value::Int8(1));
        let first = Rel::Limit { input: Box::new(rel), offset: None, count: Some(one) };
        let kind = oid::Aggregate::CountStar;
        let count = Aggregate { kind, arg: None, distinct: false, filter: None, param: None, ty: ColType::Int8 };
        let counted = Rel::Aggregate { input: Box::new(first), groups: Vec::new(), aggregates: vec![count] };
        let some = Node::Compare(
            Compare::Gt,
            Box::new(Expr::column(0, ColType::Int8)),
            Box::new(constant(Value::Int8(0), ColType::Int8)),
        );
        let outputs = vec![(0, Expr::boolean(some))];
        self.attached(Rel::Project { input: Box::new(counted), outputs, width: 1 }, scope)
    }

    /// The value of a relation of one row, beside every row.
    fn attached(&mut self, value: Rel, scope: &mut Scope<'_>) -> Expr {
        let ty = value.types()[0];
        let beside = if scope.grouping.is_some() { &mut scope.above } else { &mut scope.below };
        let number = beside.iter().map(Beside::width).sum::<usize>();
        beside.push(Beside::Value(value));
        Expr::column(ATTACHED + number, ty)
    }
}

fn constant(value: Value, ty: ColType) -> Expr {
    Expr { node: Node::Constant(Constant::Literal(value)), ty }
}

fn all(mut conditions: Vec<Expr>) -> Expr {
    match conditions.len() {
        1 => conditions.remove(0),
        _ => {
            let flat = conditions.into_iter().flat_map(|c| match c.node {
                Node::And(items) => items,
                _ => vec![c],
            });
            Expr::boolean(Node::And(flat.collect()))
        }
    }
}

fn conjuncts<'q>(quals: &'q tree::Expr, flat: &mut Vec<&'q tree::Expr>) {
    match quals {
        tree::Expr::Bool(BoolOp::And, args) => args.iter().for_each(|arg| conjuncts(arg, flat)),
        other => flat.push(other),
    }
}

/// IN, EXISTS and their negations, as conditions of their own.
fn partner_of(qual: &tree::Expr) -> Option<(&SubLink, bool)> {
    match qual {
        tree::Expr::SubLink(link) => match link.kind {
            SubLinkKind::Exists | SubLinkKind::Any => Some((link, true)),
            SubLinkKind::All => Some((link, false)),
            _ => None,
        },
        tree::Expr::Bool(BoolOp::Not, args) => match args.as_slice() {
            [tree::Expr::SubLink(link)] => match link.kind {
                SubLinkKind::Exists | SubLinkKind::Any => Some((link, false)),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

/// Whether a row of FROM that fulfils WHERE is all it takes for EXISTS.
pub(super) fn is_plain(sub: &Query) -> bool {
    !sub.has_aggs
        && sub.group.is_empty()
        && sub.grouping_sets.is_empty()
        && sub.having.is_none()
        && sub.windows.is_empty()
        && sub.set_operations.is_none()
        && sub.limit_count.is_none()
        && sub.limit_offset.is_none()
        && !sub.has_target_srfs
        && !sub.has_distinct_on
}

/// Whether it has one row, whatever the data.
fn is_one_row(rel: &Rel) -> bool {
    match rel {
        Rel::OneRow => true,
        Rel::Aggregate { groups, .. } => groups.is_empty(),
        Rel::Project { input, .. } | Rel::Sort { input, .. } | Rel::Attach { input, .. } => is_one_row(input),
        _ => false,
    }
}

fn is_inner(expr: &Expr) -> bool {
    matches!(expr.node, Node::Column(n) if n >= INNER)
}

/// Whether it reads columns of the sub-select and no others.
fn is_of_inner(expr: &Expr) -> bool {
    let (mut inner, mut other) = (false, false);
    expr.columns(&mut |n| if n >= INNER { inner = true } else { other = true });
    inner && !other
}

fn reads_inner(expr: &Expr) -> bool {
    let mut inner = false;
    expr.columns(&mut |n| inner |= n >= INNER);
    inner
}

/// Whether it reads a value that is put beside the rows.
fn beyond(expr: &Expr) -> bool {
    let mut attached = false;
    expr.columns(&mut |n| attached |= (ATTACHED..OUTER).contains(&n));
    attached
}

/// Whether conditions of WHERE read the query around.
fn depends(sub: &Query) -> bool {
    let mut flat = Vec::new();
    if let Some(quals) = &sub.quals {
        conjuncts(quals, &mut flat);
    }
    let outer = |e: &tree::Expr| reads_level(e, 1);
    flat.into_iter().any(|qual| matches!(qual, tree::Expr::Op(call) if call.args.iter().any(outer)))
}

/// Whether it is a column of the query that many levels up, maybe under a cast.
fn reads_level(expr: &tree::Expr, level: u32) -> bool {
    match expr {
        tree::Expr::Var(var) => var.levels_up == level,
        tree::Expr::Relabel { arg, .. } | tree::Expr::CoerceViaIo { arg, .. } | tree::Expr::Collate { arg, .. } => reads_level(arg, level),
        tree::Expr::Func(call) | tree::Expr::Op(call) => call.args.iter().any(|arg| reads_level(arg, level)),
        _ => false,
    }
}
