//! Expressions: from PostgreSQL's nodes to ours, each checked against the allow-list. ✗ relations, evaluation.

use super::floats;
use super::ir::{Aggregate, Arith, Compare, Constant, Expr, Kernel, List, Node};
use super::numbers::cut_to;
use super::registry::{self, Meaning, Routine, Rule};
use super::relation::{INNER, OUTER, Scope, may_fold};
use super::{Analyzer, MAX_CONDITIONS, MAX_LEVELS, MAX_REPEATED, Outcome, names, refuse};
use lake::types::ColType;
use pgexact::cut::Cut;
use pgexact::datetime::{Kind, Unit};
use pgtree::oid::{self, Function};
use pgtree::tree::{self, BoolOp, Call, RteKind, Var};
use pgtree::value::{Numeric, Value};

/// Digits of a decimal.
const MAX_PRECISION: u8 = 38;
/// Digits of a numeric whose sums cannot outgrow a decimal of 38: ten digits of rows remain.
const MAX_SUMMED: u8 = 28;

impl<'a> Analyzer<'a> {
    /// A boolean expression.
    pub(super) fn condition<'q>(&mut self, expr: &'q tree::Expr, scope: &mut Scope<'q>) -> Outcome<Expr> {
        let translated = self.expr(expr, scope)?;
        match translated.ty {
            ColType::Bool => Ok(translated),
            _ => refuse("a condition that is not boolean"),
        }
    }

    pub(super) fn expr<'q>(&mut self, expr: &'q tree::Expr, scope: &mut Scope<'q>) -> Outcome<Expr> {
        self.levels += 1;
        if self.levels > MAX_LEVELS {
            return refuse("expressions nested too deeply");
        }
        let outcome = self.expr_inner(expr, scope);
        self.levels -= 1;
        outcome
    }

    fn expr_inner<'q>(&mut self, expr: &'q tree::Expr, scope: &mut Scope<'q>) -> Outcome<Expr> {
        if let Some(grouping) = &scope.grouping
            && let Some(index) = grouping.groups.iter().position(|(group, _)| *group == expr)
        {
            return Ok(Expr::column(index, grouping.groups[index].1.ty));
        }
        if let Some((constant, type_oid)) = self.constant(expr)? {
            return typed_constant(constant, type_oid);
        }
        match expr {
            tree::Expr::Var(var) => self.var(var, scope),
            tree::Expr::Aggref(aggref) => self.aggregate(aggref, scope),
            tree::Expr::SubLink(link) => self.sub_link(link, scope),
            tree::Expr::Window(call) => self.window(call, scope),
            tree::Expr::Grouping { refs, levels_up, .. } => self.grouping_call(refs, *levels_up, scope),
            // A column of the sub-select of an IN.
            tree::Expr::Param(p) if p.kind == 2 => {
                let number = usize::try_from(p.id).ok().and_then(|n| n.checked_sub(1));
                match number.and_then(|n| Some((n, *scope.compared.as_ref()?.get(n)?))) {
                    Some((number, ty)) if ty.type_oid() == p.type_oid => Ok(Expr::column(INNER + number, ty)),
                    _ => refuse("a column of a sub-select that is not there"),
                }
            }
            tree::Expr::Func(call) | tree::Expr::Op(call) => self.call(call, scope),
            tree::Expr::Distinct(call) => {
                let (compare, a, b) =
                    self.compared(call.op, call.func, call.input_collation, &call.args, scope)?;
                match compare {
                    Compare::Eq if ![a.ty, b.ty].contains(&ColType::NumericText) => {
                        Ok(Expr::boolean(Node::Distinct(Box::new(a), Box::new(b))))
                    }
                    _ => refuse("IS DISTINCT FROM over these types"),
                }
            }
            tree::Expr::NullIf(call) => {
                let (compare, a, b) =
                    self.compared(call.op, call.func, call.input_collation, &call.args, scope)?;
                if compare != Compare::Eq || a.ty.type_oid() != call.type_oid {
                    return refuse("NULLIF over these types");
                }
                if !a.is_small(MAX_REPEATED) {
                    return refuse("NULLIF of a long expression");
                }
                let ty = a.ty;
                Ok(Expr { node: Node::NullIf(Box::new(a), Box::new(b)), ty })
            }
            tree::Expr::ScalarArray { op, func, use_or, input_collation, args } => {
                self.in_list(*op, *func, *use_or, *input_collation, args, scope)
            }
            tree::Expr::Bool(_, args) if args.len() > MAX_CONDITIONS => {
                refuse(format!("more than {MAX_CONDITIONS} conditions in a row"))
            }
            tree::Expr::Bool(op, args) => {
                let mut items: Vec<Expr> = Vec::with_capacity(args.len());
                for arg in args {
                    let may_be_left = usize::from(items.iter().any(|item| may_decide(item, *op == BoolOp::Or)));
                    self.guarded += may_be_left;
                    let item = self.condition(arg, scope);
                    self.guarded -= may_be_left;
                    match item {
                        Ok(item) => items.push(item),
                        Err(super::Refused(reason)) => self.note(reason),
                    }
                }
                if items.len() < args.len() {
                    // What was refused is noted; all of it is wanted in the reasons.
                    return Ok(Expr::boolean(Node::And(Vec::new())));
                }
                Ok(Expr::boolean(match op {
                    BoolOp::And => match flatten(items) {
                        all if all.len() > MAX_CONDITIONS => {
                            return refuse(format!("more than {MAX_CONDITIONS} conditions in a row"));
                        }
                        all => Node::And(all),
                    },
                    BoolOp::Or => Node::Or(items),
                    BoolOp::Not => match items.pop() {
                        Some(item) if items.is_empty() => Node::Not(Box::new(item)),
                        _ => return refuse("NOT of several conditions"),
                    },
                }))
            }
            tree::Expr::Relabel { arg, type_oid, .. } => {
                let inner = self.expr(arg, scope)?;
                match (inner.ty, *type_oid) {
                    (ColType::Text | ColType::Varchar, oid::TEXT) => Ok(Expr { ty: ColType::Text, ..inner }),
                    (ColType::Text | ColType::Varchar, oid::VARCHAR) => {
                        Ok(Expr { ty: ColType::Varchar, ..inner })
                    }
                    _ => refuse(cast_reason(arg.type_oid(), *type_oid)),
                }
            }
            tree::Expr::CoerceViaIo { arg, type_oid, .. } => self.cast(arg, *type_oid, scope),
            tree::Expr::Collate { arg, .. } => self.expr(arg, scope),
            tree::Expr::NullTest { arg, is_null, row: false } => {
                let inner = Box::new(self.expr(arg, scope)?);
                computed(&inner)?;
                Ok(Expr::boolean(if *is_null { Node::IsNull(inner) } else { Node::IsNotNull(inner) }))
            }
            tree::Expr::NullTest { .. } => refuse("IS NULL of a row"),
            tree::Expr::BooleanTest { arg, test } => {
                let inner = self.condition(arg, scope)?;
                if matches!(test, tree::BoolTest::IsUnknown | tree::BoolTest::IsNotUnknown) {
                    computed(&inner)?;
                }
                Ok(Expr::boolean(Node::BoolTest(Box::new(inner), *test)))
            }
            tree::Expr::Case { arg, whens, default, .. } => {
                self.case(arg.as_deref(), whens, default.as_deref(), scope)
            }
            tree::Expr::CaseTest { .. } => match self.case_args.last() {
                Some(arg) => Ok(arg.clone()),
                None => refuse("a CASE placeholder outside CASE"),
            },
            tree::Expr::Coalesce { args, .. } => {
                let mut items = Vec::with_capacity(args.len());
                for (index, arg) in args.iter().enumerate() {
                    self.guarded += usize::from(index > 0);
                    let item = self.expr(arg, scope);
                    self.guarded -= usize::from(index > 0);
                    items.push(item?);
                }
                // The last one is written once.
                if items.iter().rev().skip(1).any(|item| !item.is_small(MAX_REPEATED)) {
                    return refuse("COALESCE of long expressions");
                }
                let ty = unify(items.iter_mut().collect(), "COALESCE")?;
                Ok(Expr { node: Node::Coalesce(items), ty })
            }
            tree::Expr::MinMax { greatest, args, input_collation, .. } => {
                self.extreme(*greatest, args, *input_collation, scope)
            }
            other => refuse(names::node(other)),
        }
    }

    fn var<'q>(&mut self, var: &Var, scope: &mut Scope<'q>) -> Outcome<Expr> {
        if scope.grouping.is_some() && var.levels_up == 0 && !is_join(scope.query, var) {
            return refuse("a column that is not grouped");
        }
        let (query, offsets, types, start) = match (var.levels_up, &scope.outer) {
            (0, _) => (scope.query, &scope.offsets, &scope.types, 0),
            (1, Some(outer)) => (outer.query, &outer.offsets, &outer.types, OUTER),
            _ => return refuse("a correlated sub-select"),
        };
        let Some(rte) = var.varno.checked_sub(1).and_then(|i| query.rtable.get(i)) else {
            return refuse("a column of a range table entry that is not there");
        };
        if let RteKind::Join { alias_vars, .. } = &rte.kind {
            let alias = usize::try_from(var.attno)
                .ok()
                .and_then(|n| n.checked_sub(1))
                .and_then(|i| alias_vars.get(i));
            return match alias {
                // Its own columns are of that query's level.
                Some(_) if var.levels_up > 0 => refuse("a correlated column of a join"),
                Some(expr) => self.expr(expr, scope),
                None => refuse("a whole row"),
            };
        }
        // Since PostgreSQL 18: what is grouped by, as columns of an entry of its own.
        if let RteKind::Group { exprs } = &rte.kind {
            let grouped = usize::try_from(var.attno).ok().and_then(|n| n.checked_sub(1)).and_then(|i| exprs.get(i));
            return match grouped {
                Some(expr) if var.levels_up == 0 => self.expr(expr, scope),
                _ => refuse("a correlated sub-select over what is grouped by"),
            };
        }
        if var.attno <= 0 {
            return refuse(if var.attno == 0 { "a whole row" } else { "a system column" });
        }
        let Some(offset) = offsets[var.varno - 1] else {
            return refuse("a column of a relation that is not in FROM");
        };
        if let RteKind::Relation { relid, .. } = &rte.kind
            && !self.catalog.tiered.contains_key(relid)
        {
            let (ty, index) = self.dimension_column(*relid, var, &rte.name)?;
            return Ok(Expr::column(start + offset + index, ty));
        }
        let position = match &rte.kind {
            RteKind::Relation { relid, .. } => {
                let spec = self.catalog.tiered.get(relid);
                spec.and_then(|s| {
                    s.columns.iter().position(|c| {
                        c.attnum == var.attno && c.type_oid == var.type_oid && c.typmod == var.typmod
                    })
                })
            }
            _ => usize::try_from(var.attno - 1).ok(),
        };
        let Some((position, ty)) = position.and_then(|p| types.get(offset + p).map(|ty| (p, *ty))) else {
            return refuse(format!("a column of \"{}\" that the lake does not know", rte.name));
        };
        if ty.type_oid() != var.type_oid {
            return refuse(format!("a column of \"{}\" with another type", rte.name));
        }
        Ok(Expr::column(start + offset + position, ty))
    }

    fn aggregate<'q>(&mut self, aggref: &'q tree::Aggref, scope: &mut Scope<'q>) -> Outcome<Expr> {
        let Some(grouping) = scope.grouping.take() else {
            return refuse("an aggregate inside another or outside its query");
        };
        let known = grouping.aggregates.iter().position(|(other, _)| *other == aggref);
        let mixed = self.mixed_aggregate(aggref, scope);
        let outcome = match (known, mixed) {
            (_, Err(refused)) => Err(refused),
            (Some(_), Ok(mixed)) => Ok((mixed.map(|(kernel, parts)| (kernel, parts.len())), Vec::new())),
            (None, Ok(Some((kernel, parts)))) => Ok((Some((kernel, parts.len())), parts)),
            (None, Ok(None)) => match self.ordered_aggregate(aggref, scope) {
                Ok(Some(call)) => Ok((None, vec![call])),
                Ok(None) => self.aggregate_call(aggref, scope).map(|call| (None, vec![call])),
                Err(refused) => Err(refused),
            },
        };
        let grouping = scope.grouping.insert(grouping);
        let (above, calls) = outcome?;
        let index = known.unwrap_or(grouping.aggregates.len());
        grouping.aggregates.extend(calls.into_iter().map(|call| (aggref, call)));
        let part = |index: usize| Expr::column(grouping.groups.len() + index, grouping.aggregates[index].1.ty);
        Ok(match above {
            Some((kernel, parts)) => Expr {
                node: Node::Call(kernel, (index..index + parts).map(part).collect()),
                ty: ColType::NumericText,
            },
            None => part(index),
        })
    }

    pub(super) fn aggregate_call<'q>(&mut self, aggref: &'q tree::Aggref, scope: &mut Scope<'q>) -> Outcome<Aggregate> {
        use oid::Aggregate as Kind;
        let name = || names::aggregate(aggref.fnoid);
        if aggref.levels_up > 0
            || aggref.kind != 'n'
            || !aggref.direct_args.is_empty()
            || aggref.variadic
            || aggref.split != 0
        {
            return refuse(name());
        }
        if !aggref.order.is_empty() {
            return refuse(format!("{} with ORDER BY", name()));
        }
        let (kind, arg_type) = match registry::aggregate(aggref.fnoid) {
            Some(Routine { rule: Rule::Never(reason), .. }) => return refuse(format!("{}: {reason}", name())),
            Some(Routine { rule: Rule::Same(kind) | Rule::When(kind, _), args, .. }) => {
                (kind, args.first().copied().unwrap_or_default())
            }
            None => return refuse(format!("{} is not proven equal", name())),
        };
        let arg = match (kind, aggref.args.as_slice()) {
            (Kind::CountStar, []) if aggref.star => None,
            (Kind::CountStar, _) | (_, []) => return refuse(name()),
            (_, [one]) if !one.junk => Some(self.expr(&one.expr, scope)?),
            _ => return refuse(format!("{} of several arguments", name())),
        };
        let distinct = !aggref.distinct.is_empty();
        // Of floats that are equal, one is as good as another where they are only counted.
        let arg = match arg {
            Some(arg) if distinct && kind == Kind::Count && floats::is_float(arg.ty) && !arg.is_constant() => Some(floats::placed(arg)),
            arg => arg,
        };
        if let (true, Some(arg), [source]) = (distinct, &arg, aggref.args.as_slice()) {
            self.hashable(arg.ty, source.expr.collation(), "DISTINCT in an aggregate")?;
            // DataFusion makes a group of it, and drops groups that are constant: of no rows it then counts one.
            if may_fold(arg) {
                return refuse("DISTINCT of a constant in an aggregate");
            }
        }
        // Summed as texts.
        let arg = match (kind, arg) {
            (Kind::Sum | Kind::Avg, Some(arg)) if !distinct && is_wide(arg.ty) => Some(super::mixed::unscaled(arg)),
            (_, arg) => arg,
        };
        let ty = match (&arg, kind) {
            (None, _) | (_, Kind::Count | Kind::CountStar) => ColType::Int8,
            (Some(arg), _) if arg.ty.type_oid() != arg_type => {
                return refuse(format!("{} of another type", name()));
            }
            (Some(arg), Kind::Sum) => match arg.ty {
                ColType::Int2 | ColType::Int4 => ColType::Int8,
                ColType::Int8 => ColType::Numeric { precision: MAX_PRECISION, scale: 0 },
                ColType::Numeric { precision, scale } if precision <= MAX_SUMMED => {
                    ColType::Numeric { precision: precision + 10, scale }
                }
                ColType::NumericText => ColType::NumericText,
                _ => return refuse(format!("{} of {}", name(), numeric_name(arg.ty))),
            },
            (Some(arg), Kind::Avg) => match arg.ty {
                ColType::Int2 | ColType::Int4 | ColType::Int8 | ColType::NumericText => ColType::NumericText,
                ColType::Numeric { precision, .. } if precision <= MAX_SUMMED => ColType::NumericText,
                _ => return refuse(format!("{} of {}", name(), numeric_name(arg.ty))),
            },
            (Some(arg), Kind::VarPop | Kind::VarSamp | Kind::StddevPop | Kind::StddevSamp) if !distinct => {
                match arg.ty {
                    ColType::Int2 | ColType::Int4 | ColType::Int8 => ColType::NumericText,
                    ColType::Numeric { precision, .. } if precision <= MAX_SUMMED => ColType::NumericText,
                    _ => return refuse(format!("{} of {}", name(), numeric_name(arg.ty))),
                }
            }
            (Some(_), Kind::VarPop | Kind::VarSamp | Kind::StddevPop | Kind::StddevSamp) => {
                return refuse(format!("{} of DISTINCT values", name()));
            }
            (Some(arg), Kind::BitAnd | Kind::BitOr | Kind::BitXor) if is_int(arg.ty.type_oid()) => arg.ty,
            (Some(arg), Kind::BitAnd | Kind::BitOr | Kind::BitXor) => {
                return refuse(format!("{} of {}", name(), numeric_name(arg.ty)));
            }
            (Some(arg), Kind::Min | Kind::Max) => match arg.ty {
                ColType::Int2
                | ColType::Int4
                | ColType::Int8
                | ColType::Numeric { .. }
                | ColType::Date
                | ColType::Timestamp
                | ColType::TimestampTz => arg.ty,
                // See `floats::facts`.
                ColType::Float4 | ColType::Float8 if !distinct => arg.ty,
                ColType::Text => {
                    self.bytewise(aggref.input_collation, "min or max")?;
                    arg.ty
                }
                _ => return refuse(format!("{} of {}", name(), numeric_name(arg.ty))),
            },
            (Some(_), Kind::BoolAnd | Kind::BoolOr) => ColType::Bool,
            // With an analysis of their own, where they are proven.
            (Some(_), Kind::StringAgg | Kind::ArrayAgg | Kind::PercentileCont | Kind::PercentileDisc | Kind::Mode) => {
                return refuse(name());
            }
        };
        if ty.type_oid() != aggref.type_oid {
            return refuse(format!("{} with another result type", name()));
        }
        let filter = match &aggref.filter {
            Some(filter) => Some(self.condition(filter, scope)?),
            None => None,
        };
        Ok(Aggregate { kind, arg, distinct, filter, param: None, ty })
    }

    /// The two sides of a comparison, with types that the planner can compare exactly.
    fn compared<'q>(
        &mut self,
        op: u32,
        func: u32,
        collation: u32,
        args: &'q [tree::Expr],
        scope: &mut Scope<'q>,
    ) -> Outcome<(Compare, Expr, Expr)> {
        let ([left, right], Some(c)) = (args, oid::comparison(op, func)) else {
            return refuse(format!("operator {op}, {} is not proven equal", names::function(func)));
        };
        let place = format!("\"{}\"", c.compare.symbol());
        match (c.left, c.right) {
            (oid::TEXT, oid::TEXT) if matches!(c.compare, Compare::Eq | Compare::Ne) => {
                self.deterministic(collation, &place)?
            }
            (oid::TEXT, oid::TEXT) => self.bytewise(collation, &place)?,
            (oid::FLOAT4 | oid::FLOAT8, oid::FLOAT4 | oid::FLOAT8) => {}
            (a, b) if a == b || (is_int(a) && is_int(b)) => {}
            // PostgreSQL converts the other side in the session's zone; a constant one it converts for us.
            (wide @ oid::TIMESTAMPTZ, oid::DATE | oid::TIMESTAMP) | (wide @ oid::TIMESTAMP, oid::DATE) => {
                let right = typed_constant(self.constant_as(right, wide)?, wide)?;
                return Ok((c.compare, self.expr(left, scope)?, right));
            }
            (oid::DATE | oid::TIMESTAMP, wide @ oid::TIMESTAMPTZ) | (oid::DATE, wide @ oid::TIMESTAMP) => {
                let left = typed_constant(self.constant_as(left, wide)?, wide)?;
                return Ok((c.compare, left, self.expr(right, scope)?));
            }
            (a, b) => {
                return refuse(format!("{place} of {} with {}", names::type_name(a), names::type_name(b)));
            }
        }
        let (left, right) = (self.expr(left, scope)?, self.expr(right, scope)?);
        if left.ty.type_oid() != c.left || right.ty.type_oid() != c.right {
            return refuse(format!("{place} over other types than the tree says"));
        }
        Ok((c.compare, left, right))
    }

    fn in_list<'q>(
        &mut self,
        op: u32,
        func: u32,
        use_or: bool,
        collation: u32,
        args: &'q [tree::Expr],
        scope: &mut Scope<'q>,
    ) -> Outcome<Expr> {
        let ([left, array], Some(c)) = (args, oid::comparison(op, func)) else {
            return refuse(format!("operator {op} with ANY or ALL"));
        };
        let negated = match (c.compare, use_or) {
            (Compare::Eq, true) => false,
            (Compare::Ne, false) => true,
            (compare, _) => return refuse(format!("{} with ANY or ALL", compare.symbol())),
        };
        if c.left != c.right && !(is_int(c.left) && is_int(c.right)) {
            return refuse(format!("IN of {} among {}", names::type_name(c.left), names::type_name(c.right)));
        }
        match c.left {
            oid::TEXT => self.deterministic(collation, "IN")?,
            _ => {}
        }
        let arg = self.expr(left, scope)?;
        if arg.ty.type_oid() != c.left {
            return refuse("IN over other types than the tree says");
        }
        let element =
            |type_oid: u32| type_oid == c.right || (c.right == oid::TEXT && type_oid == oid::VARCHAR);
        let list = match array {
            tree::Expr::Array { elements, multidims: false, element_oid, .. } if element(*element_oid) => {
                let mut items = Vec::with_capacity(elements.len());
                for item in elements {
                    match self.constant(item)? {
                        Some((constant, _)) => items.push(constant),
                        None => return refuse("an IN list that depends on rows"),
                    }
                }
                List::Items(items)
            }
            other => match self.constant(other)? {
                Some((Constant::Literal(Value::Array { element: of, elements }), _)) if element(of) => {
                    List::Items(elements.into_iter().map(Constant::Literal).collect())
                }
                Some((constant @ (Constant::Param(_) | Constant::Fold(_)), type_oid))
                    if oid::array_element(type_oid).is_some_and(element) =>
                {
                    List::Array(constant)
                }
                _ => return refuse("ANY or ALL of something that is not a constant array"),
            },
        };
        Ok(Expr::boolean(Node::InList { arg: Box::new(arg), list, negated }))
    }

    fn case<'q>(
        &mut self,
        arg: Option<&'q tree::Expr>,
        whens: &'q [(tree::Expr, tree::Expr)],
        default: Option<&'q tree::Expr>,
        scope: &mut Scope<'q>,
    ) -> Outcome<Expr> {
        if let Some(arg) = arg {
            let arg = self.expr(arg, scope)?;
            if !arg.is_small(MAX_REPEATED) {
                return refuse("CASE of a long operand");
            }
            self.case_args.push(arg);
        }
        self.guarded += 1;
        let translated = self.case_arms(whens, default, scope);
        self.guarded -= 1;
        if arg.is_some() {
            self.case_args.pop();
        }
        let (mut whens, mut default) = translated?;
        let results = whens.iter_mut().map(|(_, result)| result).chain(default.iter_mut()).collect();
        let ty = unify(results, "CASE")?;
        Ok(Expr { node: Node::Case { whens, default: default.map(Box::new) }, ty })
    }

    #[allow(clippy::type_complexity)] // Conditions with results, and the default.
    fn case_arms<'q>(
        &mut self,
        whens: &'q [(tree::Expr, tree::Expr)],
        default: Option<&'q tree::Expr>,
        scope: &mut Scope<'q>,
    ) -> Outcome<(Vec<(Expr, Expr)>, Option<Expr>)> {
        let mut arms = Vec::with_capacity(whens.len());
        for (condition, result) in whens {
            arms.push((self.condition(condition, scope)?, self.expr(result, scope)?));
        }
        let default = match default {
            Some(default) => Some(self.expr(default, scope)?),
            None => None,
        };
        Ok((arms, default))
    }

    fn call<'q>(&mut self, call: &'q Call, scope: &mut Scope<'q>) -> Outcome<Expr> {
        if call.retset || call.variadic {
            return refuse(names::function(call.func));
        }
        if call.op != 0 && oid::comparison_operator(call.op).is_some() {
            let (compare, a, b) =
                self.compared(call.op, call.func, call.input_collation, &call.args, scope)?;
            return Ok(Expr::boolean(Node::Compare(compare, Box::new(a), Box::new(b))));
        }
        let unproven = || registry::refusal(call.func);
        let function = match registry::function(call.func) {
            Some(known) if known.result == call.type_oid => match known.rule.meaning() {
                Some(Meaning::Of(function)) => function,
                Some(Meaning::Run(scalar)) => return self.run(scalar, known.args, call, scope),
                None => return refuse(unproven()),
            },
            _ => return refuse(unproven()),
        };
        let result = match function {
            Function::Arith(arith) if call.type_oid == oid::NUMERIC => {
                let (a, b) = self.pair(call, scope)?;
                numeric_arith(arith, a, b)?
            }
            Function::Arith(arith) => {
                let ty = int_type(call.type_oid).ok_or_else(|| super::Refused(unproven()))?;
                let (a, b) = self.pair(call, scope)?;
                let args = vec![widened(a, ty)?, widened(b, ty)?];
                Expr { node: Node::Call(Kernel::IntArith(arith), args), ty }
            }
            Function::Negate | Function::Abs => {
                let arg = self.only(call, scope)?;
                let negate = function == Function::Negate;
                let kernel = match arg.ty {
                    ColType::Int2 | ColType::Int4 | ColType::Int8 if negate => Kernel::IntNegate,
                    ColType::Int2 | ColType::Int4 | ColType::Int8 => Kernel::IntAbs,
                    ColType::Numeric { .. } if negate => Kernel::NumericNegate,
                    ColType::Numeric { .. } => Kernel::NumericAbs,
                    _ => return refuse(unproven()),
                };
                Expr { ty: arg.ty, node: Node::Call(kernel, vec![arg]) }
            }
            Function::Identity => self.only(call, scope)?,
            Function::IntCast => {
                let arg = self.only(call, scope)?;
                let ty = int_type(call.type_oid).ok_or_else(|| super::Refused(unproven()))?;
                if !is_int(arg.ty.type_oid()) {
                    return refuse(unproven());
                }
                Expr { node: Node::Call(Kernel::IntCast, vec![arg]), ty }
            }
            Function::IntToNumeric => {
                let arg = self.only(call, scope)?;
                let precision = match arg.ty {
                    ColType::Int2 => 5,
                    ColType::Int4 => 10,
                    ColType::Int8 => 19,
                    _ => return refuse(unproven()),
                };
                Expr {
                    node: Node::Call(Kernel::NumericCast, vec![arg]),
                    ty: ColType::Numeric { precision, scale: 0 },
                }
            }
            Function::NumericTypmod => {
                let [arg, typmod] = call.args.as_slice() else { return refuse(unproven()) };
                let arg = self.expr(arg, scope)?;
                let ty = match self.constant(typmod)? {
                    Some((Constant::Literal(Value::Int4(typmod)), _)) => {
                        ColType::from_pg(oid::NUMERIC, typmod)
                    }
                    _ => None,
                };
                match (ty, arg.ty) {
                    (Some(ty @ ColType::Numeric { .. }), ColType::Numeric { .. } | ColType::NumericText) => {
                        Expr { node: Node::Call(Kernel::NumericCast, vec![arg]), ty }
                    }
                    _ => return refuse("a cast to this numeric"),
                }
            }
            Function::RoundNumeric => self.round(call, scope)?,
            Function::Floor => self.cut(Cut::Floor, call, scope)?,
            Function::Ceil => self.cut(Cut::Ceil, call, scope)?,
            Function::Trunc => self.cut(Cut::Trunc, call, scope)?,
            Function::Extract
            | Function::DatePart
            | Function::ExtractInterval
            | Function::ToChar
            | Function::ToLocal
            | Function::ToInstant
            | Function::DateToTimestamp
            | Function::DateToInstant
            | Function::PlusInterval
            | Function::MinusInterval
            | Function::PlusDays
            | Function::MinusDays
            | Function::DaysBetween
            | Function::EpochToInstant => self.moment(function, call, scope)?,
            Function::Sign
            | Function::NumericToInt
            | Function::FloatArith(_)
            | Function::FloatNegate
            | Function::FloatAbs
            | Function::FloatFloor
            | Function::FloatCeil
            | Function::FloatTrunc
            | Function::FloatRound
            | Function::FloatToInt
            | Function::ToFloat => self.number(function, call, scope)?,
            Function::DateTruncTimestamp
            | Function::DateTruncTimestampTz
            | Function::DateTruncTimestampTzZone => self.date_trunc(function, call, scope)?,
            Function::DateBin => {
                let [stride, source, origin] = call.args.as_slice() else { return refuse(unproven()) };
                let arg = self.expr(source, scope)?;
                if arg.ty.type_oid() != call.type_oid
                    || !matches!(arg.ty, ColType::Timestamp | ColType::TimestampTz)
                {
                    return refuse(unproven());
                }
                match (self.constant(stride)?, self.constant(origin)?) {
                    (Some((stride, oid::INTERVAL)), Some((origin, type_oid)))
                        if type_oid == call.type_oid =>
                    {
                        let ty = arg.ty;
                        Expr { node: Node::DateBin { arg: Box::new(arg), stride, origin }, ty }
                    }
                    _ => return refuse("date_bin whose stride or origin is not a constant"),
                }
            }
            Function::TimestampTzToDate => {
                let arg = self.only(call, scope)?;
                self.session_zone()?;
                match arg.ty {
                    ColType::TimestampTz => {
                        Expr { node: Node::Call(Kernel::TimestampTzToDate, vec![arg]), ty: ColType::Date }
                    }
                    _ => return refuse(unproven()),
                }
            }
            Function::TimestampToDate => {
                let arg = self.only(call, scope)?;
                match arg.ty {
                    ColType::Timestamp => {
                        Expr { node: Node::Call(Kernel::TimestampToDate, vec![arg]), ty: ColType::Date }
                    }
                    _ => return refuse(unproven()),
                }
            }
            Function::Like | Function::NotLike => self.like(call, function == Function::NotLike, scope)?,
            Function::ILike
            | Function::NotILike
            | Function::Regex
            | Function::NotRegex
            | Function::IRegex
            | Function::NotIRegex => self.pattern(function, call, scope)?,
            Function::TextConcat => {
                let (a, b) = self.pair(call, scope)?;
                let args = vec![self.as_text(a)?, self.as_text(b)?];
                Expr { node: Node::Call(Kernel::TextConcat, args), ty: ColType::Text }
            }
            Function::TextLength => {
                let arg = self.only(call, scope)?;
                match arg.ty {
                    ColType::Text => {
                        Expr { node: Node::Call(Kernel::TextLength, vec![arg]), ty: ColType::Int4 }
                    }
                    _ => return refuse(unproven()),
                }
            }
            Function::JsonbElement
            | Function::JsonbElementText
            | Function::JsonbPath
            | Function::JsonbPathText => self.jsonb_inside(function, call, scope)?,
            Function::JsonbField | Function::JsonbFieldText => {
                let [document, key] = call.args.as_slice() else { return refuse(unproven()) };
                let document = self.expr(document, scope)?;
                let as_text = function == Function::JsonbFieldText;
                match (document.ty, self.constant(key)?) {
                    (ColType::Jsonb, Some((Constant::Literal(Value::Text(key)), _))) => Expr {
                        node: Node::Call(Kernel::JsonbField { key, as_text }, vec![document]),
                        ty: if as_text { ColType::Text } else { ColType::Jsonb },
                    },
                    _ => return refuse("a jsonb field whose key is not a literal"),
                }
            }
            Function::Lower | Function::Upper => self.letters(function == Function::Upper, call, scope)?,
            Function::Concat | Function::ConcatWs => self.concat(function == Function::ConcatWs, call, scope)?,
            // Of FROM only.
            Function::GenerateSeries => return refuse(unproven()),
        };
        if result.ty.type_oid() != call.type_oid {
            return refuse(unproven());
        }
        Ok(result)
    }

    pub(super) fn only<'q>(&mut self, call: &'q Call, scope: &mut Scope<'q>) -> Outcome<Expr> {
        match call.args.as_slice() {
            [arg] => self.expr(arg, scope),
            _ => refuse(names::function(call.func)),
        }
    }

    pub(super) fn pair<'q>(&mut self, call: &'q Call, scope: &mut Scope<'q>) -> Outcome<(Expr, Expr)> {
        match call.args.as_slice() {
            [a, b] => Ok((self.expr(a, scope)?, self.expr(b, scope)?)),
            _ => refuse(names::function(call.func)),
        }
    }

    fn round<'q>(&mut self, call: &'q Call, scope: &mut Scope<'q>) -> Outcome<Expr> {
        let digits = match call.args.get(1) {
            None => 0,
            Some(digits) => match self.constant(digits)? {
                Some((Constant::Literal(Value::Int4(k)), _)) => k,
                _ => return refuse("round to a number of digits that is not a literal"),
            },
        };
        let Some(arg) = call.args.first() else { return refuse(names::function(call.func)) };
        let arg = self.expr(arg, scope)?;
        if let Node::Call(Kernel::NumericDivide, _) = &arg.node
            && (-30..=30).contains(&digits)
        {
            return cut_to(Cut::Round, arg, digits).ok_or_else(|| super::Refused(registry::refusal(call.func)));
        }
        if !(-30..=200).contains(&digits) {
            return refuse("round to so many digits");
        }
        let ty = match arg.ty {
            ColType::NumericText => ColType::NumericText,
            ColType::Numeric { precision, scale } => {
                let shown = digits.max(0);
                let whole = i32::from(precision) - i32::from(scale) + 1;
                if whole + shown > i32::from(MAX_PRECISION) {
                    return refuse("round beyond 38 digits");
                }
                ColType::Numeric { precision: (whole + shown) as u8, scale: shown as i8 }
            }
            _ => return refuse(names::function(call.func)),
        };
        Ok(Expr { node: Node::Call(Kernel::NumericRound(digits), vec![arg]), ty })
    }

    fn date_trunc<'q>(&mut self, function: Function, call: &'q Call, scope: &mut Scope<'q>) -> Outcome<Expr> {
        let (Some(unit), Some(source)) = (call.args.first(), call.args.get(1)) else {
            return refuse(names::function(call.func));
        };
        if let Some(cut) = self.date_trunc_by(call, scope)? {
            return Ok(cut);
        }
        let Some((Constant::Literal(Value::Text(unit)), _)) = self.constant(unit)? else {
            return refuse("date_trunc whose unit is not a literal");
        };
        let kind = if function == Function::DateTruncTimestamp { Kind::Timestamp } else { Kind::TimestampTz };
        let Ok(unit) = Unit::parse(&unit, kind) else { return refuse(format!("date_trunc to \"{unit}\"")) };
        let arg = self.expr(source, scope)?;
        let kernel = match (function, arg.ty) {
            (Function::DateTruncTimestamp, ColType::Timestamp) => Kernel::DateTrunc(unit),
            (Function::DateTruncTimestampTz, ColType::TimestampTz) => {
                self.session_zone()?;
                Kernel::DateTruncTz(unit, None)
            }
            (Function::DateTruncTimestampTzZone, ColType::TimestampTz) => {
                let zone = match call.args.get(2) {
                    Some(zone) => self.constant(zone)?,
                    None => None,
                };
                match zone {
                    Some((Constant::Literal(Value::Text(zone)), _))
                        if pgexact::Zone::parse(&zone).is_some() =>
                    {
                        Kernel::DateTruncTz(unit, Some(zone))
                    }
                    _ => return refuse("date_trunc in a zone that is not a literal or not known here"),
                }
            }
            _ => return refuse(names::function(call.func)),
        };
        Ok(Expr { ty: arg.ty, node: Node::Call(kernel, vec![arg]) })
    }

    pub(super) fn session_zone(&self) -> Outcome<()> {
        match pgexact::Zone::parse(&self.settings.timezone) {
            Some(_) => Ok(()),
            None => refuse(format!("time zone {}", self.settings.timezone)),
        }
    }

    fn like<'q>(&mut self, call: &'q Call, negated: bool, scope: &mut Scope<'q>) -> Outcome<Expr> {
        let [text, pattern] = call.args.as_slice() else { return refuse(names::function(call.func)) };
        self.deterministic(call.input_collation, "LIKE")?;
        let arg = self.expr(text, scope)?;
        if arg.ty != ColType::Text {
            return refuse("LIKE over other types than the tree says");
        }
        match self.constant(pattern)? {
            Some((Constant::Literal(Value::Text(p)), _))
                if p.bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1 =>
            {
                refuse("a LIKE pattern that ends with its escape character")
            }
            Some((pattern, oid::TEXT | oid::VARCHAR)) => {
                Ok(Expr::boolean(Node::Like { arg: Box::new(arg), pattern, negated }))
            }
            _ => refuse("a LIKE pattern that is not a constant"),
        }
    }
}

/// Whether it is a column of a join as a whole: its alias stands for others.
fn is_join(query: &tree::Query, var: &Var) -> bool {
    let rte = var.varno.checked_sub(1).and_then(|i| query.rtable.get(i));
    rte.is_some_and(|rte| matches!(rte.kind, RteKind::Join { .. }))
}

/// A decimal whose sums may outgrow a decimal.
fn is_wide(ty: ColType) -> bool {
    matches!(ty, ColType::Numeric { precision, .. } if precision > MAX_SUMMED)
}

fn is_int(type_oid: u32) -> bool {
    matches!(type_oid, oid::INT2 | oid::INT4 | oid::INT8)
}

fn int_type(type_oid: u32) -> Option<ColType> {
    match type_oid {
        oid::INT2 => Some(ColType::Int2),
        oid::INT4 => Some(ColType::Int4),
        oid::INT8 => Some(ColType::Int8),
        _ => None,
    }
}

fn widened(expr: Expr, ty: ColType) -> Outcome<Expr> {
    match expr.ty {
        own if own == ty => Ok(expr),
        ColType::Int2 | ColType::Int4 => Ok(Expr { node: Node::Call(Kernel::IntCast, vec![expr]), ty }),
        _ => refuse("integer arithmetic over other types"),
    }
}

/// A constant with its type; a numeric literal has the precision and scale of its digits.
pub(super) fn typed_constant(constant: Constant, type_oid: u32) -> Outcome<Expr> {
    let Some(mut ty) = ColType::from_pg(type_oid, -1) else {
        return refuse(format!("a value of type {}", names::type_name(type_oid)));
    };
    if let Constant::Literal(Value::Numeric(n @ Numeric::Finite { digits, scale, .. })) = &constant
        && n.unscaled().is_some()
        && *scale <= u16::from(MAX_PRECISION)
    {
        let precision = digits.len().max(usize::from(*scale)).max(1);
        ty = ColType::Numeric { precision: precision as u8, scale: *scale as i8 };
    }
    Ok(Expr { node: Node::Constant(constant), ty })
}

/// Whether a condition that is the same for all rows may turn out to be `outcome`, which decides the AND or OR that it is part of: PostgreSQL then
/// looks at nothing behind it.
pub(super) fn may_decide(condition: &Expr, outcome: bool) -> bool {
    let literal = |e: &Expr| match &e.node {
        Node::Constant(Constant::Literal(value)) if *value != Value::Null => Some(value.clone()),
        _ => None,
    };
    let known = match &condition.node {
        Node::And(items) | Node::Or(items) => {
            // One item decides it, or all of them together.
            let decides = |item| may_decide(item, outcome);
            return match outcome == matches!(condition.node, Node::Or(_)) {
                true => items.iter().any(decides),
                false => items.iter().all(decides),
            };
        }
        Node::Not(item) => return may_decide(item, !outcome),
        Node::Constant(Constant::Literal(Value::Bool(value))) => Some(*value),
        // 1 = 1, as those write who put conditions together.
        Node::Compare(Compare::Eq, a, b) => literal(a).zip(literal(b)).map(|(a, b)| a == b),
        _ => None,
    };
    known.map_or_else(|| may_be_known(condition), |known| known == outcome)
}

/// Whether a planner may find the value, other than NULL, of the expression.
fn may_be_known(expr: &Expr) -> bool {
    match &expr.node {
        Node::Constant(_) => true,
        Node::Column(_) => false,
        Node::And(items) | Node::Or(items) => items.iter().any(may_be_known),
        Node::Case { whens, default } => {
            let mut results = whens.iter().map(|(_, then)| then).chain(default.as_deref());
            whens.iter().any(|(when, _)| may_be_known(when)) || results.all(may_be_known)
        }
        Node::Coalesce(items) => items.first().is_none_or(may_be_known),
        // That something is NULL is known sooner than what it is.
        Node::IsNull(_) | Node::IsNotNull(_) | Node::BoolTest(..) | Node::Distinct(..) => may_fold(expr),
        _ => expr.children().into_iter().all(may_be_known),
    }
}

/// Nested conjunctions as one.
fn flatten(items: Vec<Expr>) -> Vec<Expr> {
    let mut flat = Vec::with_capacity(items.len());
    for item in items {
        match item.node {
            Node::And(inner) => flat.extend(inner),
            node => flat.push(Expr { node, ty: item.ty }),
        }
    }
    flat
}

fn numeric_arith(arith: Arith, a: Expr, b: Expr) -> Outcome<Expr> {
    let any_scale = |a, b| match arith {
        Arith::Mod => refuse("% of numerics without fixed scale, or beyond 38 digits"),
        _ => Ok(Expr { node: Node::Call(Kernel::TextArith(arith), vec![a, b]), ty: ColType::NumericText }),
    };
    let (ColType::Numeric { precision: p1, scale: s1 }, ColType::Numeric { precision: p2, scale: s2 }) =
        (a.ty, b.ty)
    else {
        return match [a.ty, b.ty].iter().all(|ty| matches!(ty, ColType::Numeric { .. } | ColType::NumericText)) {
            true => any_scale(a, b),
            false => refuse("numeric arithmetic over other types"),
        };
    };
    if arith == Arith::Div {
        return Ok(Expr { node: Node::Call(Kernel::NumericDivide, vec![a, b]), ty: ColType::NumericText });
    }
    let (whole1, whole2) = (p1 as i16 - i16::from(s1), p2 as i16 - i16::from(s2));
    let scale = match arith {
        Arith::Mul => i16::from(s1) + i16::from(s2),
        _ => i16::from(s1.max(s2)),
    };
    let whole = match arith {
        Arith::Add | Arith::Sub => whole1.max(whole2) + 1,
        Arith::Mul => whole1 + whole2,
        _ => whole1.max(whole2),
    };
    let precision = (whole + scale).max(1);
    if precision > i16::from(MAX_PRECISION) {
        return any_scale(a, b);
    }
    let ty = ColType::Numeric { precision: precision as u8, scale: scale as i8 };
    Ok(Expr { node: Node::Call(Kernel::NumericArith(arith), vec![a, b]), ty })
}

/// The one type of several branches; NULL literals take it.
pub(super) fn unify(branches: Vec<&mut Expr>, place: &str) -> Outcome<ColType> {
    let null = |e: &Expr| matches!(e.node, Node::Constant(Constant::Literal(Value::Null)));
    let found: Vec<ColType> = branches.iter().filter(|e| !null(e)).map(|e| e.ty).collect();
    let mut types = found.iter().copied();
    let first = types.next().or(branches.first().map(|e| e.ty));
    let Some(ty) = first else { return refuse(format!("{place} without branches")) };
    let scale = |ty: &ColType| match ty {
        ColType::Numeric { precision, scale } => Some((*precision, *scale)),
        _ => None,
    };
    // Of one scale: the widest holds them all.
    if let Some((_, shown)) = scale(&ty)
        && found.iter().all(|other| scale(other).is_some_and(|(_, s)| s == shown))
    {
        let precision = found.iter().filter_map(scale).map(|(p, _)| p).max().unwrap_or(MAX_PRECISION);
        let ty = ColType::Numeric { precision, scale: shown };
        for branch in branches {
            if branch.ty == ty || branch.as_constant().is_some() {
                branch.ty = ty;
                continue;
            }
            let own = std::mem::replace(branch, Expr::column(0, ColType::Bool));
            *branch = Expr { node: Node::Call(Kernel::NumericCast, vec![own]), ty };
        }
        return Ok(ty);
    }
    if types.clone().any(|other| other != ty) {
        let numeric = |ty: &ColType| matches!(ty, ColType::Numeric { .. } | ColType::NumericText);
        if !numeric(&ty) || !types.all(|other| numeric(&other)) {
            return refuse(format!("{place} over different types"));
        }
        // Each value keeps its scale.
        for branch in branches {
            let own = std::mem::replace(branch, Expr::column(0, ColType::Bool));
            *branch = match null(&own) {
                true => Expr { ty: ColType::NumericText, ..own },
                false => super::mixed::unscaled(own),
            };
        }
        return Ok(ColType::NumericText);
    }
    for branch in branches {
        branch.ty = ty;
    }
    Ok(ty)
}

pub(super) fn cast_reason(from: u32, to: u32) -> String {
    format!("cast from {} to {} is not proven equal", names::type_name(from), names::type_name(to))
}

pub(super) fn numeric_name(ty: ColType) -> String {
    match ty {
        ColType::Numeric { precision, scale } => format!("numeric({precision},{scale})"),
        ColType::NumericText => "a numeric without fixed scale".into(),
        other => names::type_name(other.type_oid()),
    }
}

/// Of what is never NULL, the engine knows what a test for NULL gives, and does not compute it; PostgreSQL does, and raises its errors.
fn computed(expr: &Expr) -> Outcome<()> {
    match never_null(expr) && !super::harmless::is_harmless(expr) {
        true => refuse("a test for NULL of what is never NULL and may raise an error"),
        false => Ok(()),
    }
}

fn never_null(expr: &Expr) -> bool {
    match &expr.node {
        Node::IsNull(_) | Node::IsNotNull(_) | Node::BoolTest(..) | Node::Distinct(..) => true,
        Node::Constant(Constant::Literal(value)) => *value != Value::Null,
        Node::Not(a) => never_null(a),
        Node::And(items) | Node::Or(items) => items.iter().all(never_null),
        Node::Coalesce(items) => items.iter().any(never_null),
        Node::Case { whens, default } => whens.iter().all(|(_, then)| never_null(then)) && default.as_deref().is_some_and(never_null),
        _ => false,
    }
}
