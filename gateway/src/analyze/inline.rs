//! Calls of users' functions in SQL, in whose place their bodies are put where PostgreSQL's planner does, by its own rules (`inline_function` in
//! `clauses.c`). Pure. ✗ where bodies come from (`catalog`), whether they are still these when the statement runs (`session::tails`).
//!
//! A body counts that the catalog holds as a tree (RETURN, BEGIN ATOMIC) and that is one small expression of its parameters and of PostgreSQL's
//! own functions. What PostgreSQL calls all the same is PostgreSQL's: what is declared to be less volatile than its body, or STRICT with a body
//! that is not, or is given twice what costs something to compute. Beyond these rules:
//!
//! - What is VOLATILE is put in place, but not before PostgreSQL has decided by it which sub-selects are computed apart: so only in the
//!   statement's own clauses, without sub-selects.
//! - Which group an expression belongs to is decided before as well: no grouping sets.
//! - What reads no parameter is computed when the statement is planned, or when the plan is kept: no such part, and no call of constants alone.
//! - A body has the collations of its creation. So does the call: the default one.

use super::Catalog;
use super::dimension::FIRST_USER_OID;
use pgtree::oid;
use pgtree::tree::{self, Call, Command, Expr, FromItem, Param, Query, RteKind};
use std::collections::{BTreeMap, HashMap};

/// Longest text of a body's tree, in bytes.
pub const MAX_BODY: i32 = 64 << 10;
/// `PARAM_EXTERN`
const EXTERN: i64 = 0;
/// Casts between integers, and to numeric, that never fail: of a literal it does not matter when they are computed (`pg_proc.dat`).
const WIDENING: [u32; 6] = [313, 481, 754, 1740, 1781, 1782];

/// Nesting of a body's tree as text.
const MAX_DEPTH: usize = 60;
/// Nodes of what stands in the place of a call: bodies in bodies would grow without end, and everything here recurses.
const MAX_NODES: usize = 100;

/// A function in SQL, as `pg_proc` has it.
#[derive(Debug, Clone, PartialEq)]
pub struct SqlFunction {
    pub name: String,
    /// `xmin` of its row: another with every change.
    pub version: String,
    args: Vec<u32>,
    strict: bool,
    volatility: Volatility,
    body: Result<Body, &'static str>,
}

#[derive(Debug, Clone, PartialEq)]
struct Body {
    expr: Expr,
    /// How often each parameter is read.
    reads: Vec<usize>,
    /// PostgreSQL's own functions that it calls.
    calls: Vec<u32>,
    /// It has nodes that may give something else than NULL for NULL.
    lenient: bool,
    /// It goes through texts, by functions that are not named.
    casts: bool,
}

/// `provolatile`, the calmest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Volatility {
    Immutable,
    Stable,
    Volatile,
}

impl Volatility {
    pub fn of(provolatile: &str) -> Volatility {
        match provolatile {
            "i" => Volatility::Immutable,
            "s" => Volatility::Stable,
            _ => Volatility::Volatile,
        }
    }
}

impl SqlFunction {
    /// `tree` is `prosqlbody`, where the function has one and is of the plain kind: not SECURITY DEFINER, without settings, support function, variadic
    /// or OUT arguments, and of one row.
    pub fn new(name: String, version: String, args: Vec<u32>, result: u32, strict: bool, volatility: Volatility, tree: Option<&str>) -> SqlFunction {
        let body = match tree {
            Some(tree) => body(tree, &args, result),
            None => Err("its body is a text, or it is of a kind that is called"),
        };
        SqlFunction { name, version, args, strict, volatility, body }
    }

    /// PostgreSQL's own functions that the body calls.
    pub fn calls(&self) -> &[u32] {
        self.body.as_ref().map_or(&[], |body| &body.calls)
    }

    /// Decides by what the functions of [`Self::calls`] are (volatility, STRICT) whether PostgreSQL puts the body in place.
    pub fn judge(&mut self, known: &HashMap<u32, (Volatility, bool)>) {
        let Ok(body) = &self.body else { return };
        let calm = |func: &u32| known.get(func).is_some_and(|(volatility, _)| *volatility <= self.volatility);
        let strict = |func: &u32| known.get(func).is_some_and(|(_, strict)| *strict);
        if !body.calls.iter().all(calm) || (body.casts && self.volatility != Volatility::Volatile) {
            self.body = Err("its body is more volatile than it is declared to be");
        } else if self.strict && (body.lenient || !body.calls.iter().all(strict) || body.reads.contains(&0)) {
            self.body = Err("it is STRICT, and its body is not");
        }
    }

    /// What stands in the place of a call.
    fn in_place(&self, call: &Call) -> Result<Expr, &'static str> {
        let body = self.body.as_ref().map_err(|reason| *reason)?;
        let known = [0, oid::COLLATION_DEFAULT];
        if !known.contains(&call.collation) || !known.contains(&call.input_collation) {
            return Err("it is called with another collation than the default one");
        }
        if call.retset || call.variadic || call.args.iter().map(Expr::type_oid).ne(self.args.iter().copied()) {
            return Err("it is called with other arguments than it has");
        }
        let size = nodes(&body.expr) + call.args.iter().zip(&body.reads).map(|(arg, reads)| nodes(arg) * reads).sum::<usize>();
        if size > MAX_NODES {
            return Err("with its body the expression is too large");
        }
        if !call.args.iter().any(|arg| holds(arg, &|e| matches!(e, Expr::Var(_)))) {
            return Err("it is called with constants alone");
        }
        for (arg, reads) in call.args.iter().zip(&body.reads) {
            if *reads > 1 && !is_simple(arg) {
                return Err("an argument is computed, and its body reads it twice");
            }
            if *reads == 0 && holds(arg, &|e| !is_calm(e)) {
                return Err("an argument that its body does not read calls a function");
            }
            if holds(arg, &|e| matches!(e, Expr::CaseTest { .. } | Expr::SubLink(_))) {
                return Err("an argument is a sub-select, or depends on where it stands");
            }
        }
        let mut expr = body.expr.clone();
        tree::rewrite_expr(&mut expr, &mut |e| {
            if let Expr::Param(Param { id, .. }) = e
                && let Some(arg) = usize::try_from(*id - 1).ok().and_then(|n| call.args.get(n))
            {
                *e = arg.clone();
            }
        });
        Ok(expr)
    }
}

/// What was put in place, and why other calls were not.
#[derive(Default)]
pub(super) struct Inlined {
    /// The functions and their versions.
    pub functions: BTreeMap<u32, String>,
    pub refused: Vec<String>,
}

/// Puts bodies in the place of calls.
pub(super) fn inline(query: &mut Query, catalog: &Catalog) -> Inlined {
    let mut done = Inlined::default();
    if catalog.functions.is_empty() {
        return done;
    }
    let mut sets = false;
    tree::walk(query, &mut |part| sets |= matches!(part, tree::Part::Query(query) if !query.grouping_sets.is_empty()));
    let mut place = |e: &mut Expr, own: bool| {
        let Expr::Func(call) = e else { return };
        let Some(function) = catalog.functions.get(&call.func) else { return };
        if function.volatility == Volatility::Volatile && !own {
            return;
        }
        match function.in_place(call) {
            Ok(_) if sets => done.refused.push(format!("{} is called, not put in place: the statement has grouping sets", function.name)),
            Ok(expr) => {
                done.functions.insert(call.func, function.version.clone());
                *e = expr;
            }
            Err(reason) => done.refused.push(format!("{} is called, not put in place: {reason}", function.name)),
        }
    };
    tree::rewrite(query, &mut |e| place(e, false));
    for own in own_clauses(query) {
        if !holds(own, &|e| matches!(e, Expr::SubLink(_))) {
            tree::rewrite_expr(own, &mut |e| place(e, true));
        }
    }
    tree::walk(query, &mut |part| {
        if let tree::Part::Expr(Expr::Func(call)) = part
            && let Some(function) = catalog.functions.get(&call.func).filter(|f| f.volatility == Volatility::Volatile && f.body.is_ok())
        {
            done.refused.push(format!("{} is VOLATILE, and called in a sub-select or beside one", function.name));
        }
    });
    done.refused.dedup();
    done
}

/// The expressions that stand in a query itself.
fn own_clauses(query: &mut Query) -> Vec<&mut Expr> {
    fn of_joins<'q>(item: &'q mut FromItem, found: &mut Vec<&'q mut Expr>) {
        if let FromItem::Join { left, right, quals, .. } = item {
            of_joins(left, found);
            of_joins(right, found);
            found.extend(quals);
        }
    }
    let mut found: Vec<&mut Expr> = query.targets.iter_mut().map(|t| &mut t.expr).collect();
    found.extend(query.quals.iter_mut().chain(&mut query.having));
    query.from.iter_mut().for_each(|item| of_joins(item, &mut found));
    // What is grouped by (18 and newer).
    found.extend(query.rtable.iter_mut().flat_map(|rte| match &mut rte.kind {
        RteKind::Group { exprs } => exprs.iter_mut().collect(),
        _ => Vec::new(),
    }));
    found
}

/// The one expression that a body consists of.
fn body(text: &str, args: &[u32], result: u32) -> Result<Body, &'static str> {
    const SEVERAL: &str = "its body is more than one expression";
    // BEGIN ATOMIC is a list of what each of its statements was rewritten to.
    let text = text.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or(text);
    let limits = pgtree::Limits { depth: MAX_DEPTH, ..pgtree::Limits::default() };
    let query = tree::parse(text, limits).map_err(|_| "its body is more than one expression, or a large one")?;
    let plain = query.command == Command::Select
        && query.ctes.is_empty()
        && query.rtable.is_empty()
        && query.from.is_empty()
        && query.group.is_empty()
        && query.grouping_sets.is_empty()
        && query.windows.is_empty()
        && query.distinct.is_empty()
        && query.sort.is_empty()
        && query.row_marks.is_empty()
        && query.set_operations.is_none()
        && [&query.quals, &query.having, &query.limit_offset, &query.limit_count].into_iter().all(Option::is_none);
    let [target] = query.targets.as_slice() else { return Err(SEVERAL) };
    if !plain || query.has_aggs || query.has_window_funcs || query.has_target_srfs || query.has_sublinks {
        return Err(SEVERAL);
    }
    let expr = target.expr.clone();
    if expr.type_oid() != result {
        return Err("its body is cast to its result");
    }
    let mut found = Body { expr: Expr::Dropped, reads: vec![0; args.len()], calls: Vec::new(), lenient: false, casts: false };
    let mut known = true;
    tree::walk_expr(&expr, &mut |part| known &= matches!(part, tree::Part::Expr(e) if look(e, args, &mut found)));
    match known {
        true => Ok(Body { expr, ..found }),
        false => Err("its body has parts that are not understood, or that read no argument"),
    }
}

/// Whether a node of a body is understood; notes what it means for the whole.
fn look(e: &Expr, args: &[u32], body: &mut Body) -> bool {
    let reads = |e: &Expr| holds(e, &|inner| matches!(inner, Expr::Param(_) | Expr::CaseTest { .. }));
    let mut own = |func: u32| {
        body.calls.push(func);
        func < FIRST_USER_OID
    };
    match e {
        Expr::Const(_) | Expr::CaseTest { .. } => true,
        Expr::Param(Param { kind: EXTERN, id, type_oid, .. }) => match usize::try_from(*id - 1).ok().and_then(|n| Some((n, args.get(n)?))) {
            Some((n, arg)) if arg == type_oid => {
                body.reads[n] += 1;
                true
            }
            _ => false,
        },
        Expr::Func(call) | Expr::Op(call) => own(call.func) && !call.retset && !call.variadic && (reads(e) || WIDENING.contains(&call.func)),
        Expr::Distinct(call) | Expr::NullIf(call) => {
            let known = own(call.func);
            body.lenient = true;
            known && reads(e)
        }
        Expr::ScalarArray { func, .. } => {
            let known = own(*func);
            body.lenient = true;
            known && reads(e)
        }
        Expr::CoerceViaIo { .. } => {
            body.casts = true;
            reads(e)
        }
        Expr::Relabel { .. } => reads(e),
        Expr::NullTest { row: false, .. } | Expr::BooleanTest { .. } | Expr::MinMax { .. } | Expr::Case { .. } | Expr::Coalesce { .. } | Expr::Bool(..) => {
            body.lenient = true;
            reads(e)
        }
        _ => false,
    }
}

/// Nodes of an expression.
fn nodes(expr: &Expr) -> usize {
    let mut count = 0;
    tree::walk_expr(expr, &mut |part| count += usize::from(matches!(part, tree::Part::Expr(_))));
    count
}

/// A column or a constant: computing it fails never, and costs nothing.
fn is_simple(arg: &Expr) -> bool {
    match arg {
        Expr::Var(_) | Expr::Const(_) | Expr::Param(Param { kind: EXTERN, .. }) => true,
        Expr::Relabel { arg, .. } => is_simple(arg),
        _ => false,
    }
}

/// Nothing that may be VOLATILE, which counts for PostgreSQL before it leaves the argument out.
fn is_calm(e: &Expr) -> bool {
    match e {
        Expr::Var(_) | Expr::Const(_) | Expr::Param(_) | Expr::Relabel { .. } => true,
        Expr::Op(call) => call.func < FIRST_USER_OID,
        _ => false,
    }
}

/// Whether an expression, or one in it, is like that.
fn holds(expr: &Expr, like: &dyn Fn(&Expr) -> bool) -> bool {
    let mut found = false;
    tree::walk_expr(expr, &mut |part| found |= matches!(part, tree::Part::Expr(e) if like(e)));
    found
}
