//! Window functions. Proven where the result does not depend on the order of rows that the window's own order leaves open: because that order
//! tells all rows apart (groups are told apart by what they are grouped by), or because the function treats such rows alike.

use super::ir::{Bound, Constant, Expr, Frame, FrameUnits, Node, Rel, SortKey, WindowCall, WindowFunction};
use super::relation::{Scope, WINDOWED, referenced};
use super::{Analyzer, Outcome, names, refuse};
use lake::types::ColType;
use pgtree::oid::Aggregate as Kind;
use pgtree::tree::{self, WindowClause};
use pgtree::value::Value;

/// `FRAMEOPTION_*` of `parsenodes.h`.
mod option {
    pub const RANGE: i64 = 0x2;
    pub const ROWS: i64 = 0x4;
    pub const GROUPS: i64 = 0x8;
    pub const START_FIRST: i64 = 0x20;
    pub const END_LAST: i64 = 0x100;
    pub const START_CURRENT: i64 = 0x200;
    pub const END_CURRENT: i64 = 0x400;
    pub const START_PRECEDING: i64 = 0x800;
    pub const END_PRECEDING: i64 = 0x1000;
    pub const START_FOLLOWING: i64 = 0x2000;
    pub const END_FOLLOWING: i64 = 0x4000;
    pub const EXCLUDE: i64 = 0x8000 | 0x1_0000 | 0x2_0000;
}

/// Rows that a frame or lag may reach: engines count them in 64 bits, nobody needs more.
const MAX_ROWS: u64 = 1 << 40;

impl<'a> Analyzer<'a> {
    pub(super) fn window<'q>(&mut self, window: &'q tree::WindowFunc, scope: &mut Scope<'q>) -> Outcome<Expr> {
        // PostgreSQL computes windows whether a CASE needs them or not.
        if let Some(index) = scope.windows.iter().position(|(other, _)| *other == window) {
            return Ok(Expr::column(WINDOWED + index, scope.windows[index].1.ty));
        }
        let query = scope.query;
        let Some(clause) = query.windows.iter().find(|c| c.number == window.window) else {
            return refuse("a window that is not there");
        };
        let mut partition = Vec::with_capacity(clause.partition.len());
        for group in &clause.partition {
            let target = referenced(query, group.target)?;
            let expr = self.expr(&target.expr, scope)?;
            self.groupable(&expr, &target.expr, group, "PARTITION BY")?;
            partition.push(expr);
        }
        let mut order = Vec::with_capacity(clause.order.len());
        for sort in &clause.order {
            let target = referenced(query, sort.target)?;
            let expr = self.expr(&target.expr, scope)?;
            order.push(self.sort_key(sort, expr, &target.expr)?);
        }
        let frame = self.frame(clause)?;
        let mut call = self.called(window, scope)?;
        if matches!(call.function, WindowFunction::Aggregate(Kind::BoolAnd | Kind::BoolOr)) && frame.start != Bound::First {
            return refuse("bool_and or bool_or over a frame that moves");
        }
        call.partition = partition;
        call.order = order;
        call.frame = frame;
        if call.ty.type_oid() != window.call.type_oid {
            return refuse(format!("{} as a window function with another result type", name(window)));
        }
        let ty = call.ty;
        scope.windows.push((window, call));
        Ok(Expr::column(WINDOWED + scope.windows.len() - 1, ty))
    }

    /// The function and its arguments.
    fn called<'q>(&mut self, window: &'q tree::WindowFunc, scope: &mut Scope<'q>) -> Outcome<WindowCall> {
        let plain = |function, args: Vec<Expr>, ty| WindowCall {
            function,
            args,
            filter: None,
            partition: Vec::new(),
            order: Vec::new(),
            frame: Frame { units: FrameUnits::Range, start: Bound::First, end: Bound::Current },
            ty,
        };
        if window.is_aggregate {
            let aggregate = self.aggregate_call(&window.call, scope)?;
            use Kind::*;
            if !matches!(aggregate.kind, CountStar | Count | Sum | Avg | Min | Max | BoolAnd | BoolOr) {
                return refuse(format!("{} as a window function", names::aggregate(window.call.fnoid)));
            }
            if aggregate.arg.as_ref().is_some_and(|a| super::floats::is_float(a.ty)) && matches!(aggregate.kind, Min | Max) {
                return refuse(format!("{} of floats as a window function", names::aggregate(window.call.fnoid)));
            }
            if matches!(aggregate.kind, Sum | Avg) && aggregate.arg.as_ref().is_some_and(|a| a.ty == ColType::NumericText) {
                return refuse(format!("{} of a numeric without fixed scale as a window function", names::aggregate(window.call.fnoid)));
            }
            let function = WindowFunction::Aggregate(aggregate.kind);
            let call = plain(function, aggregate.arg.into_iter().collect(), aggregate.ty);
            return Ok(WindowCall { filter: aggregate.filter, ..call });
        }
        let args = &window.call.args;
        let arg = |at: usize| args.get(at).map(|t| &t.expr).ok_or_else(|| super::Refused(name(window)));
        Ok(match window.call.fnoid {
            3100 => plain(WindowFunction::RowNumber, Vec::new(), ColType::Int8),
            3101 => plain(WindowFunction::Rank, Vec::new(), ColType::Int8),
            3102 => plain(WindowFunction::DenseRank, Vec::new(), ColType::Int8),
            func @ 3106..=3111 => {
                let value = self.expr(arg(0)?, scope)?;
                let distance = match args.get(1) {
                    None => 1,
                    Some(distance) => match self.constant(&distance.expr)? {
                        Some((Constant::Literal(Value::Int4(n)), _)) => i64::from(n),
                        _ => return refuse("lag or lead by something that is not a literal"),
                    },
                };
                let ty = value.ty;
                let mut given = vec![value];
                if let Some(default) = args.get(2) {
                    let mut default = self.expr(&default.expr, scope)?;
                    match &default.node {
                        Node::Constant(Constant::Literal(Value::Null)) => default.ty = ty,
                        Node::Constant(_) if default.ty == ty => {}
                        _ => return refuse("lag or lead whose default is not a constant of the same type"),
                    }
                    given.push(default);
                }
                plain(WindowFunction::Lag(if func <= 3108 { distance } else { -distance }), given, ty)
            }
            func @ (3112 | 3113) => {
                let value = self.expr(arg(0)?, scope)?;
                let ty = value.ty;
                let function = if func == 3112 { WindowFunction::FirstValue } else { WindowFunction::LastValue };
                plain(function, vec![value], ty)
            }
            _ => return refuse(format!("{} as a window function", name(window))),
        })
    }

    fn frame(&mut self, clause: &WindowClause) -> Outcome<Frame> {
        let has = |bits: i64| clause.frame & bits != 0;
        if has(option::EXCLUDE) {
            return refuse("EXCLUDE in a window's frame");
        }
        let units = if has(option::ROWS) {
            FrameUnits::Rows
        } else if has(option::RANGE) || has(option::GROUPS) {
            // By unlimited bounds and the current row's peers, both mean the same.
            FrameUnits::Range
        } else {
            return refuse("a window's frame of another kind");
        };
        let mut rows = |offset: &Option<tree::Expr>| -> Outcome<u64> {
            if units != FrameUnits::Rows {
                return refuse("RANGE or GROUPS with an offset");
            }
            let constant = offset.as_ref().map(|e| self.constant(e)).transpose()?.flatten();
            match constant {
                Some((Constant::Literal(Value::Int8(n)), _)) => match u64::try_from(n) {
                    Ok(n) if n <= MAX_ROWS => Ok(n),
                    _ => refuse("a window's frame of so many rows"),
                },
                _ => refuse("a window's frame whose offset is not a literal"),
            }
        };
        let start = match () {
            () if has(option::START_FIRST) => Bound::First,
            () if has(option::START_CURRENT) => Bound::Current,
            () if has(option::START_PRECEDING) => Bound::Preceding(rows(&clause.start)?),
            () if has(option::START_FOLLOWING) => Bound::Following(rows(&clause.start)?),
            () => return refuse("a window's frame of another kind"),
        };
        let end = match () {
            () if has(option::END_LAST) => Bound::Last,
            () if has(option::END_CURRENT) => Bound::Current,
            () if has(option::END_PRECEDING) => Bound::Preceding(rows(&clause.end)?),
            () if has(option::END_FOLLOWING) => Bound::Following(rows(&clause.end)?),
            () => return refuse("a window's frame of another kind"),
        };
        let backwards = match (start, end) {
            (Bound::Preceding(a), Bound::Preceding(b)) => a < b,
            (Bound::Following(a), Bound::Following(b)) => a > b,
            _ => false,
        };
        if backwards {
            return refuse("a window's frame that ends before it begins");
        }
        Ok(Frame { units, start, end })
    }

    /// Computes the windows met so far over `rel`, and puts the numbers of their results into the outputs.
    pub(super) fn windowed(&mut self, rel: Rel, scope: &mut Scope<'_>, outputs: &mut [Expr]) -> Outcome<Rel> {
        let calls: Vec<WindowCall> = scope.windows.drain(..).map(|(_, call)| call).collect();
        if calls.is_empty() {
            return Ok(rel);
        }
        self.aggregated = true;
        let keys = unique_keys(&rel);
        for call in &calls {
            if !is_settled(call, &keys) {
                return refuse("a window function whose result depends on the order of ties");
            }
        }
        let width = rel.width();
        for expr in outputs {
            expr.renumber(&mut |n| {
                if *n >= WINDOWED {
                    *n = *n - WINDOWED + width;
                }
            });
        }
        Ok(Rel::Window { input: Box::new(rel), calls })
    }
}

fn name(window: &tree::WindowFunc) -> String {
    match window.call.fnoid {
        3103 => "percent_rank".into(),
        3104 => "cume_dist".into(),
        3105 => "ntile".into(),
        3114 => "nth_value".into(),
        other => names::function(other),
    }
}

/// Sets of outputs of which no two rows have the same values.
fn unique_keys(rel: &Rel) -> Vec<Vec<usize>> {
    match rel {
        Rel::OneRow | Rel::Single { .. } => vec![Vec::new()],
        Rel::Aggregate { groups, .. } => vec![(0..groups.len()).collect()],
        Rel::Distinct { input } => {
            let mut keys = unique_keys(input);
            keys.push((0..input.width()).collect());
            keys
        }
        Rel::DistinctOn { keys, .. } => vec![keys.clone()],
        Rel::Filter { input, .. }
        | Rel::Sort { input, .. }
        | Rel::Limit { input, .. }
        | Rel::Attach { input, .. }
        | Rel::After { then: input, .. }
        | Rel::Window { input, .. } => unique_keys(input),
        Rel::Project { input, outputs, .. } => {
            let shown = |below: &usize| {
                let is = |e: &Expr| matches!(e.node, Node::Column(n) if n == *below);
                outputs.iter().find(|(_, e)| is(e)).map(|(number, _)| *number)
            };
            unique_keys(input).iter().filter_map(|key| key.iter().map(shown).collect()).collect()
        }
        Rel::Scan { .. } | Rel::Values { .. } | Rel::Series { .. } | Rel::Join { .. } | Rel::SetOp { .. } => Vec::new(),
    }
}

/// Whether the result is the same however rows that are equal in the window's order follow each other.
fn is_settled(call: &WindowCall, keys: &[Vec<usize>]) -> bool {
    let by = |number: &usize| {
        let is = |e: &Expr| matches!(e.node, Node::Column(n) if n == *number);
        call.partition.iter().any(is) || call.order.iter().any(|k: &SortKey| is(&k.expr))
    };
    if keys.iter().any(|key| key.iter().all(by)) {
        return true;
    }
    let whole = call.frame.start == Bound::First && call.frame.end == Bound::Last;
    match call.function {
        WindowFunction::Rank | WindowFunction::DenseRank => true,
        WindowFunction::Aggregate(_) => whole || call.frame.units == FrameUnits::Range,
        WindowFunction::RowNumber
        | WindowFunction::Lag(_)
        | WindowFunction::FirstValue
        | WindowFunction::LastValue => false,
    }
}
