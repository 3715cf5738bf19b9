//! What is computed before the answer is begun, because PostgreSQL may compute it of rows that the lake's plan leaves out: if it raises an error
//! there, PostgreSQL answers. Pure. ✗ values, how it is computed (`plan`).
//!
//! PostgreSQL tests a condition as early as it can: of every row of a relation that passes the conditions which it holds to be cheaper, whether the row
//! finds a partner in a join or not, whether there is another side at all. It computes sub-selects that it cannot dissolve as a whole. The lake
//! leaves out files by any condition, does not read a side whose other side is empty, and drops what nobody reads. Of what may raise an error
//! therefore all is computed first that PostgreSQL might: more is right too, since an error only gives the statement back. The order of conditions
//! is `order_qual_clauses` of PostgreSQL's `createplan.c`: by cost, then as written.

use super::harmless::{is_harmless, is_harmless_rel, may_fail};
use super::ir::{Compare, Constant, Expr, JoinKind, Kernel, List, Node, Rel};
use super::relation::ATTACHED;
use super::{Fold, Outcome, refuse};
use lake::types::ColType;
use pgtree::value::Value;

/// Relations computed first, of one statement.
const MOST: usize = 8;
/// Nodes of a condition after expressions of sub-selects were put into it.
const MAX_NODES: usize = 200;
/// Rounding a time within these (µs since 1970: the years 1000 and 192,000) to any unit, in any zone, gives a time.
const SAFE_TIMES: (i64, i64) = (-30_610_224_000_000_000, 6_000_000_000_000_000_000);

/// What to compute first of a whole plan for its conditions.
pub(super) fn of_conditions(plan: &Rel, folds: &mut Vec<Fold>) -> Outcome<Vec<Rel>> {
    let mut first = First { found: Vec::new(), folds };
    first.walk(plan, false)?;
    Ok(first.found)
}

/// `then`, after `first`; refused where that is too much.
pub(super) fn after(first: Vec<Rel>, then: Rel) -> Outcome<Rel> {
    if first.is_empty() {
        return Ok(then);
    }
    if first.len() > MOST {
        return refuse(format!("more than {MOST} relations that may raise an error where PostgreSQL computes them and the lake need not"));
    }
    if !first.iter().all(is_closed) {
        return refuse("what may raise an error in a sub-select that reads the row around it");
    }
    Ok(Rel::After { first, then: Box::new(then) })
}

/// Adds a relation that is to be computed whole.
pub(super) fn add(found: &mut Vec<Rel>, rel: Rel) {
    let Rel::Project { input, outputs, .. } = &rel else {
        if !found.contains(&rel) {
            found.push(rel);
        }
        return;
    };
    // Several expressions over one relation.
    for other in found.iter_mut() {
        if let Rel::Project { input: same, outputs: all, width } = other
            && same == input
        {
            for (_, expr) in outputs {
                if !all.iter().any(|(_, e)| e == expr) {
                    all.push((*width, expr.clone()));
                    *width += 1;
                }
            }
            return;
        }
    }
    found.push(rel);
}

/// A condition on its way down to the rows that it is about.
#[derive(Clone)]
struct Demand {
    expr: Expr,
    /// Conditions that stand beside it.
    beside: Vec<Expr>,
    /// Rows may be left out below for other reasons than conditions: it passed a join.
    apart: bool,
    /// A condition that stood beside it was left behind.
    lost: bool,
    /// A part of a condition of a join, which is tested after all conditions on one side.
    late: bool,
}

impl Demand {
    /// Leaves these conditions behind.
    fn lose(&mut self, which: impl Fn(&Expr) -> bool) {
        let before = self.beside.len();
        self.beside.retain(|e| !which(e));
        self.lost |= self.beside.len() < before;
    }
}

struct First<'f> {
    found: Vec<Rel>,
    folds: &'f mut Vec<Fold>,
}

impl First<'_> {
    fn walk(&mut self, rel: &Rel, under: bool) -> Outcome<()> {
        let mut below = under;
        match rel {
            Rel::Filter { input, predicate } => {
                self.conditions(input, predicate, under)?;
                below |= !is_harmless_rel(input) && !tells_rows_apart(predicate, input);
            }
            Rel::Join { on, .. } => {
                if let Some(on) = on {
                    self.conditions(rel, on, under)?;
                }
                below = true;
            }
            Rel::Project { input, outputs, .. } if under => {
                for (_, expr) in outputs.iter().filter(|(_, e)| !is_harmless(e)) {
                    self.demand(input, Demand { expr: expr.clone(), beside: Vec::new(), apart: true, lost: false, late: true })?;
                }
            }
            Rel::Aggregate { .. }
            | Rel::Distinct { .. }
            | Rel::DistinctOn { .. }
            | Rel::Window { .. }
            | Rel::SetOp { .. }
            | Rel::Sort { .. }
            | Rel::Limit { .. }
            | Rel::Single { .. }
                if under && !is_harmless_rel(rel) =>
            {
                add(&mut self.found, rel.clone());
                below = false;
            }
            _ => {}
        }
        rel.inputs().into_iter().try_for_each(|input| self.walk(input, below))
    }

    /// The conditions of a filter over `rel`, or of the join that `rel` is.
    fn conditions(&mut self, rel: &Rel, predicate: &Expr, under: bool) -> Outcome<()> {
        if is_harmless(predicate) && is_harmless_rel(rel) {
            return Ok(());
        }
        let all = predicate.conjuncts();
        for (number, expr) in all.iter().enumerate() {
            let beside = all.iter().enumerate().filter(|(n, _)| *n != number).map(|(_, e)| e.clone()).collect();
            self.demand(rel, Demand { expr: expr.clone(), beside, apart: under, lost: false, late: false })?;
        }
        Ok(())
    }

    /// A condition of which one step that may fail reads both sides of a join: tested of the same pairs by both where nothing but equalities of
    /// columns, which PostgreSQL tests before, decides on them.
    fn across(&self, rel: &Rel, demand: &Demand) -> Outcome<()> {
        let Rel::Join { left, right, on, .. } = rel else { return Ok(()) };
        let width = left.width();
        let decided = demand.beside.iter().chain(on.iter().flat_map(Expr::conjuncts));
        let others = decided.filter(|e| **e != demand.expr && both(e, width)).all(equates_columns);
        if demand.apart || demand.lost || joins(left) + joins(right) > 0 || !others {
            return refuse("a condition over several relations that may raise an error, beside others");
        }
        Ok(())
    }

    fn demand(&mut self, rel: &Rel, mut demand: Demand) -> Outcome<()> {
        match rel {
            Rel::Filter { input, predicate } => {
                demand.beside.extend(predicate.conjuncts().iter().cloned());
                self.demand(input, demand)
            }
            Rel::Project { input, outputs, .. } => {
                let of = |number: usize| outputs.iter().find(|(n, _)| *n == number).map(|(_, e)| e);
                match replaced(demand, &of)? {
                    Some(demand) => self.demand(input, demand),
                    None => refuse("a condition on an output that is not there"),
                }
            }
            Rel::Aggregate { input, groups, .. } => match replaced(demand.clone(), &|number| groups.get(number))? {
                Some(demand) => self.demand(input, demand),
                None => self.leaf(rel, demand),
            },
            Rel::Distinct { input } | Rel::Sort { input, .. } => self.demand(input, demand),
            Rel::DistinctOn { input, .. } => {
                demand.lose(|_| true);
                self.demand(input, demand)
            }
            Rel::Window { input, .. } if reads_below(&demand.expr, input.width()) => {
                demand.lose(|_| true);
                self.demand(input, demand)
            }
            Rel::Attach { input, .. } if reads_below(&demand.expr, input.width()) => {
                let width = input.width();
                demand.lose(|e| !reads_below(e, width));
                self.demand(input, demand)
            }
            Rel::Attach { input, .. } if joins(input) > 0 && !is_harmless(&demand.expr) => {
                refuse("a condition with a sub-select, over several relations, that may raise an error")
            }
            // What it reads of the rows may turn out to be computed of others, below.
            Rel::Attach { input, .. } if fails_below(&demand.expr, input.width()) => {
                let width = input.width();
                demand.lose(|e| !reads_below(e, width));
                let mut below = Vec::new();
                sides(&demand.expr, width, &mut below);
                below.into_iter().try_for_each(|expr| self.demand(input, Demand { expr, ..demand.clone() }))
            }
            Rel::SetOp { left, right, .. } => {
                self.demand(left, demand.clone())?;
                self.demand(right, demand)
            }
            // Outputs of either side that may fail are looked at on their own.
            Rel::Join { .. } if is_harmless(&demand.expr) => Ok(()),
            Rel::Join { kind, left, right, on } => {
                let width = left.width();
                if spans(&demand.expr, width) {
                    self.across(rel, &demand)?;
                }
                let (mut of_left, mut of_right) = (Vec::new(), Vec::new());
                parts(&demand.expr, width, &mut of_left, &mut of_right);
                let (keeps_left, keeps_right) = match kind {
                    JoinKind::Inner => (true, true),
                    JoinKind::Left | JoinKind::Semi | JoinKind::Anti => (true, false),
                    JoinKind::Right => (false, true),
                    JoinKind::Full => (false, false),
                };
                let inner = matches!(kind, JoinKind::Inner);
                let own = on.iter().flat_map(Expr::conjuncts).filter(|_| inner);
                let beside: Vec<&Expr> = demand.beside.iter().chain(own).collect();
                let late = demand.late || both(&demand.expr, width);
                for expr in of_left {
                    let beside = beside.iter().filter(|e| keeps_left && reads_below(e, width)).map(|e| (*e).clone()).collect();
                    self.demand(left, Demand { expr, beside, apart: true, lost: demand.lost, late })?;
                }
                for expr in of_right {
                    let here = beside.iter().filter(|e| keeps_right && reads_from(e, width)).map(|e| shifted((*e).clone(), width));
                    let demand = Demand { expr: shifted(expr, width), beside: here.collect(), apart: true, lost: demand.lost, late };
                    self.demand(right, demand)?;
                }
                Ok(())
            }
            _ => self.leaf(rel, demand),
        }
    }

    /// Rows as they come.
    fn leaf(&mut self, rel: &Rel, demand: Demand) -> Outcome<()> {
        if is_harmless(&demand.expr) {
            return Ok(());
        }
        // As cheap as those beside it, it may be tested before them.
        let cheap = demand.late || operators(&demand.expr) > 1;
        let last = !demand.lost && demand.beside.iter().all(|e| cheap && is_cheap(e));
        // Of a condition on a rounded time the lake leaves out files.
        if last && !demand.apart && time_of(&demand.expr).is_none() {
            return Ok(());
        }
        let mut kept: Vec<Expr> = Vec::new();
        for condition in demand.beside.into_iter().filter(|_| cheap) {
            if let Some(condition) = self.certain(condition, rel) {
                kept.push(condition);
            }
        }
        if let Some(column) = time_of(&demand.expr) {
            kept.push(unsafe_time(column));
        }
        let mut input = Box::new(rel.clone());
        if let Some(last) = kept.pop() {
            let predicate = if kept.is_empty() { last } else { Expr::boolean(Node::And([kept, vec![last]].concat())) };
            input = Box::new(Rel::Filter { input, predicate });
        }
        add(&mut self.found, Rel::Project { input, outputs: vec![(0, demand.expr)], width: 1 });
        Ok(())
    }

    /// What PostgreSQL surely tests before: the condition itself, or a wider one.
    fn certain(&mut self, condition: Expr, rel: &Rel) -> Option<Expr> {
        if is_cheap(&condition) {
            return Some(condition);
        }
        // By a range of times that is computed when it begins, PostgreSQL leaves out partitions, which are of a day; within them it may be late.
        let Node::Compare(compare, a, b) = &condition.node else { return None };
        let (compare, column, constant) = match (&a.node, &b.node) {
            (Node::Column(_), Node::Constant(Constant::Fold(fold))) => (*compare, a, *fold),
            (Node::Constant(Constant::Fold(fold)), Node::Column(_)) => (compare.swap(), b, *fold),
            _ => return None,
        };
        let operator = match compare {
            Compare::Ge | Compare::Gt => "-",
            Compare::Le | Compare::Lt => "+",
            _ => return None,
        };
        if column.ty != ColType::TimestampTz || !matches!(rel, Rel::Scan { .. }) {
            return None;
        }
        // Two days around it there are times as well.
        let fold = self.folds.get(constant).filter(|f| f.type_oid == lake::types::oid::TIMESTAMPTZ && f.moderate)?;
        let sql = format!("(({}) OPERATOR(pg_catalog.{operator}) '2 days'::pg_catalog.interval)", fold.sql);
        let wider = Fold { sql, ..fold.clone() };
        let number = self.folds.iter().position(|f| *f == wider).unwrap_or_else(|| {
            self.folds.push(wider);
            self.folds.len() - 1
        });
        let constant = Expr { node: Node::Constant(Constant::Fold(number)), ty: ColType::TimestampTz };
        Some(Expr::boolean(Node::Compare(compare, column.clone(), Box::new(constant))))
    }
}

/// Whether no optimizer can see that the condition holds of no row: then the engine does not read any, where PostgreSQL may. So a condition that
/// compares columns, each once, with others of their types or with values that rows may have.
fn tells_rows_apart(predicate: &Expr, rel: &Rel) -> bool {
    fn plain(expr: &Expr, rel: &Rel, seen: &mut Vec<usize>) -> bool {
        match &expr.node {
            Node::Column(n) => {
                let first = !seen.contains(n);
                seen.push(*n);
                first && !shows_a_constant(rel, *n)
            }
            Node::Compare(_, a, b) if a.ty == b.ty => match (is_ordinary(a), is_ordinary(b)) {
                (false, true) => plain(a, rel, seen),
                (true, false) => plain(b, rel, seen),
                (false, false) => plain(a, rel, seen) && plain(b, rel, seen),
                (true, true) => false,
            },
            Node::Not(a) if matches!(a.node, Node::Column(_) | Node::Compare(..)) => plain(a, rel, seen),
            Node::And(items) | Node::Or(items) => items.iter().all(|item| plain(item, rel, seen)),
            _ => false,
        }
    }
    plain(predicate, rel, &mut Vec::new())
}

/// A literal with greater and smaller ones of its type.
fn is_ordinary(expr: &Expr) -> bool {
    let Node::Constant(Constant::Literal(value)) = &expr.node else { return false };
    match value {
        Value::Int2(n) => n.unsigned_abs() < i16::MAX as u16,
        Value::Int4(n) => n.unsigned_abs() < i32::MAX as u32,
        Value::Int8(n) => n.unsigned_abs() < i64::MAX as u64,
        Value::Text(text) => !text.is_empty(),
        _ => false,
    }
}

/// An output that is the same for all rows, and stands there as such.
fn shows_a_constant(rel: &Rel, output: usize) -> bool {
    match rel {
        Rel::Project { input, outputs, .. } => match outputs.iter().find(|(n, _)| *n == output).map(|(_, e)| e) {
            Some(Expr { node: Node::Column(n), .. }) => shows_a_constant(input, *n),
            Some(expr) => super::relation::may_fold(expr),
            None => true,
        },
        Rel::Filter { input, .. } | Rel::Sort { input, .. } | Rel::Limit { input, .. } | Rel::Distinct { input } => shows_a_constant(input, output),
        Rel::Aggregate { input, groups, .. } => match groups.get(output) {
            Some(Expr { node: Node::Column(n), .. }) => shows_a_constant(input, *n),
            Some(expr) => super::relation::may_fold(expr),
            None => false,
        },
        Rel::Scan { .. } => false,
        _ => true,
    }
}

/// In terms of what the outputs are made of; None if one of those that the condition reads is not.
fn replaced<'e>(mut demand: Demand, of: &dyn Fn(usize) -> Option<&'e Expr>) -> Outcome<Option<Demand>> {
    let mut known = true;
    demand.expr.columns(&mut |n| known &= of(n).is_some());
    if !known {
        return Ok(None);
    }
    replace(&mut demand.expr, of);
    if !demand.expr.is_small(MAX_NODES) {
        return refuse("a condition of too many steps that may raise an error");
    }
    let mut beside = Vec::with_capacity(demand.beside.len());
    for mut condition in demand.beside {
        let mut known = true;
        condition.columns(&mut |n| known &= of(n).is_some());
        if known {
            replace(&mut condition, of);
        }
        // More rows are right as well.
        match known && condition.is_small(MAX_NODES) {
            true => beside.push(condition),
            false => demand.lost = true,
        }
    }
    Ok(Some(Demand { beside, ..demand }))
}

fn replace<'e>(expr: &mut Expr, of: &dyn Fn(usize) -> Option<&'e Expr>) {
    if let Node::Column(number) = &expr.node {
        if let Some(below) = of(*number) {
            *expr = below.clone();
        }
        return;
    }
    expr.children_mut().into_iter().for_each(|child| replace(child, of));
}

/// The largest parts of `expr` that may fail and read one side only.
fn parts(expr: &Expr, width: usize, left: &mut Vec<Expr>, right: &mut Vec<Expr>) {
    if is_harmless(expr) {
        return;
    }
    if reads_below(expr, width) {
        left.push(expr.clone());
    } else if reads_from(expr, width) {
        right.push(expr.clone());
    } else {
        expr.children().into_iter().for_each(|child| parts(child, width, left, right));
    }
}

/// Whether every step that may fail reads the left side only.
fn fails_below(expr: &Expr, width: usize) -> bool {
    (!may_fail(expr) || reads_below(expr, width)) && expr.children().into_iter().all(|child| fails_below(child, width))
}

/// The largest parts of `expr` that read the left side only.
fn sides(expr: &Expr, width: usize, left: &mut Vec<Expr>) {
    if reads_below(expr, width) {
        left.push(expr.clone());
    } else {
        expr.children().into_iter().for_each(|child| sides(child, width, left));
    }
}

/// Whether a step that may fail reads both sides.
fn spans(expr: &Expr, width: usize) -> bool {
    !is_harmless(expr) && both(expr, width) && (may_fail(expr) || expr.children().into_iter().any(|child| spans(child, width)))
}

fn both(expr: &Expr, width: usize) -> bool {
    !reads_below(expr, width) && !reads_from(expr, width)
}

fn reads_below(expr: &Expr, width: usize) -> bool {
    let mut all = true;
    expr.columns(&mut |n| all &= n < width);
    all
}

fn reads_from(expr: &Expr, width: usize) -> bool {
    let mut all = true;
    expr.columns(&mut |n| all &= n >= width);
    all
}

fn shifted(mut expr: Expr, by: usize) -> Expr {
    expr.renumber(&mut |n| *n -= by);
    expr
}

fn equates_columns(expr: &Expr) -> bool {
    matches!(&expr.node, Node::Compare(Compare::Eq, a, b) if matches!((&a.node, &b.node), (Node::Column(_), Node::Column(_))))
}

/// Joins that PostgreSQL may put into any order, with what is around them.
fn joins(rel: &Rel) -> usize {
    match rel {
        Rel::Join { left, right, .. } => 1 + joins(left) + joins(right),
        Rel::Filter { input, .. } | Rel::Project { input, .. } | Rel::Attach { input, .. } => joins(input),
        _ => 0,
    }
}

/// Operators and functions, each of which costs PostgreSQL the same.
fn operators(expr: &Expr) -> usize {
    let own = matches!(expr.node, Node::Compare(..) | Node::Distinct(..) | Node::Call(..) | Node::Like { .. } | Node::InList { .. } | Node::DateBin { .. });
    usize::from(own) + expr.children().into_iter().map(operators).sum::<usize>()
}

/// At most one operator, and nothing that is computed when the statement runs: PostgreSQL tests it before what has two.
fn is_cheap(expr: &Expr) -> bool {
    let column = |e: &Expr| matches!(e.node, Node::Column(_));
    let known = |e: &Expr| matches!(e.node, Node::Constant(Constant::Literal(_) | Constant::Param(_)));
    match &expr.node {
        Node::Column(_) => true,
        Node::IsNull(a) | Node::IsNotNull(a) | Node::Not(a) | Node::BoolTest(a, _) => column(a),
        Node::Compare(_, a, b) => (column(a) && known(b)) || (known(a) && column(b)),
        // PostgreSQL expects to look at half of the list.
        Node::InList { arg, list: List::Items(items), .. } => column(arg) && items.len() <= 2,
        _ => false,
    }
}

/// The one column, a time, of an expression in which nothing fails but rounding it.
fn time_of(expr: &Expr) -> Option<&Expr> {
    let mut found = None;
    fn look<'e>(expr: &'e Expr, found: &mut Option<&'e Expr>) -> bool {
        if is_harmless(expr) {
            return true;
        }
        let rounds = matches!(&expr.node, Node::Call(Kernel::DateTrunc(_) | Kernel::DateTruncTz(..), _));
        if rounds && let Some(column) = expr.children().into_iter().find(|e| matches!(e.node, Node::Column(_))) {
            let same = found.is_none_or(|other| *other == *column);
            *found = Some(column);
            return same && matches!(column.ty, ColType::Timestamp | ColType::TimestampTz);
        }
        !may_fail(expr) && expr.children().into_iter().all(|child| look(child, found))
    }
    look(expr, &mut found).then_some(found).flatten()
}

fn unsafe_time(column: &Expr) -> Expr {
    let at = |us: i64| {
        let value = if column.ty == ColType::Timestamp { Value::Timestamp(us) } else { Value::TimestampTz(us) };
        Box::new(Expr { node: Node::Constant(Constant::Literal(value)), ty: column.ty })
    };
    let compare = |compare, us| Expr::boolean(Node::Compare(compare, Box::new(column.clone()), at(us)));
    Expr::boolean(Node::Or(vec![compare(Compare::Lt, SAFE_TIMES.0), compare(Compare::Gt, SAFE_TIMES.1)]))
}

/// Whether the relation reads nothing but itself.
fn is_closed(rel: &Rel) -> bool {
    rel.expressions().into_iter().all(|e| reads_below(e, ATTACHED)) && rel.inputs().into_iter().all(is_closed)
}
