//! Calls of users' functions in SQL, in whose place their bodies are put, as PostgreSQL's planner does where it can (`inline_function` in
//! `clauses.c`). Pure. ✗ where bodies come from (`catalog`), whether they are still these when the statement runs (`session::tails`).
//!
//! A body counts that the catalog holds as a tree (RETURN, BEGIN ATOMIC) and that is one expression of its parameters and of PostgreSQL's own
//! functions. PostgreSQL puts it in place or calls the function, by rules and costs of its own; a call is replaced where both come to the same:
//!
//! - A called function has all its arguments computed. In place, one that the body does not reach is not, and one that it reads twice is computed
//!   twice. So an argument that is more than a column or a constant must be read once, in a body without CASE and its like.
//! - A STRICT function gives NULL for a NULL. In place of it stands a CASE that says so.
//! - What reads no parameter is computed when the statement is planned, or when the plan is kept: no such part, and no call of constants alone.
//! - A body has the collations of its creation. So does the call: the default one.

use super::Catalog;
use super::dimension::FIRST_USER_OID;
use pgtree::oid;
use pgtree::tree::{self, BoolOp, Call, Command, Const, Expr, Param, Query};
use std::collections::BTreeMap;

/// Longest text of a body's tree, in bytes.
pub const MAX_BODY: i32 = 64 << 10;
/// `PARAM_EXTERN`
const EXTERN: i64 = 0;
/// Casts between integers, and to numeric, that never fail: of a literal it does not matter when they are computed (`pg_proc.dat`).
const WIDENING: [u32; 6] = [313, 481, 754, 1740, 1781, 1782];

/// A function in SQL, as `pg_proc` has it.
#[derive(Debug, Clone, PartialEq)]
pub struct SqlFunction {
    pub name: String,
    /// `xmin` of its row: another with every change.
    pub version: String,
    args: Vec<u32>,
    result: u32,
    strict: bool,
    body: Result<Body, &'static str>,
}

#[derive(Debug, Clone, PartialEq)]
struct Body {
    expr: Expr,
    /// How often each parameter is read.
    reads: Vec<usize>,
    /// Parts of it may not be computed.
    conditional: bool,
}

impl SqlFunction {
    /// `tree` is `prosqlbody`, where the function has one and is of the plain kind: not SECURITY DEFINER, without settings, variadic or OUT
    /// arguments, and of one row.
    pub fn new(name: String, version: String, args: Vec<u32>, result: u32, strict: bool, tree: Option<&str>) -> SqlFunction {
        let body = match tree {
            Some(tree) => body(tree, &args, result),
            None => Err("its body is a text, or it is of a kind that is called"),
        };
        SqlFunction { name, version, args, result, strict, body }
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
        if !call.args.iter().any(|arg| holds(arg, &|e| matches!(e, Expr::Var(_)))) {
            return Err("it is called with constants alone");
        }
        for (arg, reads) in call.args.iter().zip(&body.reads) {
            if !is_simple(arg) && (self.strict || body.conditional || *reads != 1) {
                return Err("an argument is computed, which its body may not do, or do twice");
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
        if !self.strict {
            return Ok(expr);
        }
        let is_null = |arg: &Expr| Expr::NullTest { arg: Box::new(arg.clone()), is_null: true, row: false };
        let any = match call.args.as_slice() {
            [arg] => is_null(arg),
            args => Expr::Bool(BoolOp::Or, args.iter().map(is_null).collect()),
        };
        let null = Const { type_oid: self.result, typmod: -1, collation: call.collation, len: -1, by_value: false, datum: None };
        Ok(Expr::Case { arg: None, whens: vec![(any, Expr::Const(null))], default: Some(Box::new(expr)), type_oid: self.result, collation: call.collation })
    }
}

/// Puts bodies in the place of calls. Gives the functions whose bodies were, with their versions, and why others' were not.
pub(super) fn inline(query: &mut Query, catalog: &Catalog) -> (BTreeMap<u32, String>, Vec<String>) {
    let (mut inlined, mut refused) = (BTreeMap::new(), Vec::new());
    if catalog.functions.is_empty() {
        return (inlined, refused);
    }
    tree::rewrite(query, &mut |e| {
        let Expr::Func(call) = e else { return };
        let Some(function) = catalog.functions.get(&call.func) else { return };
        match function.in_place(call) {
            Ok(expr) => {
                inlined.insert(call.func, function.version.clone());
                *e = expr;
            }
            Err(reason) => refused.push(format!("{} is called, not put in place: {reason}", function.name)),
        }
    });
    refused.dedup();
    (inlined, refused)
}

/// The one expression that a body consists of.
fn body(text: &str, args: &[u32], result: u32) -> Result<Body, &'static str> {
    const SEVERAL: &str = "its body is more than one expression";
    // BEGIN ATOMIC is a list of what each of its statements was rewritten to.
    let text = text.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or(text);
    let query = tree::parse(text, pgtree::Limits::default()).map_err(|_| SEVERAL)?;
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
    let mut found = Body { expr: Expr::Dropped, reads: vec![0; args.len()], conditional: false };
    let mut known = true;
    let mut copy = expr.clone();
    tree::rewrite_expr(&mut copy, &mut |e| known &= look(e, args, &mut found));
    match known {
        true => Ok(Body { expr, ..found }),
        false => Err("its body has parts that are not understood, or that read no argument"),
    }
}

/// Whether a node of a body is understood; notes what it means for the whole.
fn look(e: &Expr, args: &[u32], body: &mut Body) -> bool {
    let reads = |e: &Expr| holds(e, &|inner| matches!(inner, Expr::Param(_)));
    match e {
        Expr::Const(_) | Expr::CaseTest { .. } => true,
        Expr::Param(Param { kind: EXTERN, id, type_oid, .. }) => match usize::try_from(*id - 1).ok().and_then(|n| Some((n, args.get(n)?))) {
            Some((n, arg)) if arg == type_oid => {
                body.reads[n] += 1;
                true
            }
            _ => false,
        },
        Expr::Func(call) if WIDENING.contains(&call.func) => true,
        Expr::Func(call) | Expr::Op(call) | Expr::Distinct(call) | Expr::NullIf(call) => {
            call.func < FIRST_USER_OID && !call.retset && !call.variadic && (reads(e) || holds(e, &|inner| matches!(inner, Expr::CaseTest { .. })))
        }
        Expr::ScalarArray { func, .. } => *func < FIRST_USER_OID && reads(e),
        Expr::Relabel { .. } | Expr::CoerceViaIo { .. } | Expr::NullTest { row: false, .. } | Expr::BooleanTest { .. } | Expr::MinMax { .. } => reads(e),
        Expr::Case { .. } | Expr::Coalesce { .. } | Expr::Bool(..) => {
            body.conditional = true;
            reads(e)
        }
        _ => false,
    }
}

/// A column or a constant: computing it fails never, and costs nothing.
fn is_simple(arg: &Expr) -> bool {
    match arg {
        Expr::Var(_) | Expr::Const(_) | Expr::Param(Param { kind: EXTERN, .. }) => true,
        Expr::Relabel { arg, .. } => is_simple(arg),
        _ => false,
    }
}

/// Whether an expression, or one in it, is like that. Sub-selects count as a whole.
fn holds(expr: &Expr, like: &dyn Fn(&Expr) -> bool) -> bool {
    let mut found = false;
    let mut copy = expr.clone();
    tree::rewrite_expr(&mut copy, &mut |e| found |= like(e));
    found
}
