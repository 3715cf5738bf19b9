//! Aggregates that see a group's values in an order (`string_agg`, `array_agg`, percentiles, `mode`) and counts of rows of values. They are
//! proven where rows that the order cannot tell apart give the same result. ✗ how values are put together (`pgexact::ordered`).

use super::ir::{Aggregate, Constant, Expr, Kernel, Node, Order};
use super::registry::{self, Rule};
use super::relation::{Scope, descending};
use super::scalar::numeric_name;
use super::{Analyzer, Outcome, Refused, harmless, names, refuse};
use lake::types::{ColType, Element};
use pgexact::ordered::Fraction;
use pgtree::oid::{self, Aggregate as Kind};
use pgtree::tree::{self, Aggref, SortGroup, Target};
use pgtree::value::{Numeric, Value};

/// Casts of a literal whose value is known here: of int4 and numeric to float8, and of int4 to numeric.
const TO_FLOAT: [u32; 3] = [316, 1746, 1740];

/// As PostgreSQL sorts where nothing else is said.
const PLAIN: Order = Order { descending: false, nulls_first: false };

impl Analyzer<'_> {
    /// None for aggregates that see no order and count no rows of values.
    pub(super) fn ordered_aggregate<'q>(&mut self, aggref: &'q Aggref, scope: &mut Scope<'q>) -> Outcome<Option<Aggregate>> {
        let known = registry::aggregate(aggref.fnoid);
        if let Some(Rule::Never(reason)) = known.map(|k| k.rule) {
            return refuse(format!("{}: {reason}", names::aggregate(aggref.fnoid)));
        }
        let Some(kind) = known.and_then(|k| k.rule.meaning()) else { return Ok(None) };
        let parts = match (kind, aggref.args.as_slice()) {
            (Kind::Count, [Target { expr: tree::Expr::Row { args: fields, type_oid: oid::RECORD }, junk: false, .. }]) => Some(fields),
            (Kind::StringAgg | Kind::ArrayAgg | Kind::PercentileCont | Kind::PercentileDisc | Kind::Mode, _) => None,
            _ => return Ok(None),
        };
        let in_set = matches!(kind, Kind::PercentileCont | Kind::PercentileDisc | Kind::Mode);
        if aggref.levels_up > 0 || aggref.variadic || aggref.split != 0 || aggref.kind != if in_set { 'o' } else { 'n' } {
            return refuse(names::aggregate(aggref.fnoid));
        }
        let mut call = match (kind, parts) {
            (_, Some(fields)) => self.counted_rows(aggref, fields, scope)?,
            (Kind::StringAgg | Kind::ArrayAgg, _) => self.put_together(kind, aggref, scope)?,
            _ => self.of_a_set(kind, aggref, scope)?,
        };
        if call.ty.type_oid() != aggref.type_oid {
            return refuse(format!("{} with another result type", names::aggregate(aggref.fnoid)));
        }
        if let Some(filter) = &aggref.filter {
            call.filter = Some(self.condition(filter, scope)?);
            // What the filter leaves out is computed all the same.
            if !call.arg.as_ref().is_some_and(harmless::is_harmless) {
                return refuse(format!("{} with FILTER over what may raise an error", names::aggregate(aggref.fnoid)));
            }
        }
        Ok(Some(call))
    }

    /// `count((a, b))` and `count(DISTINCT (a, b))`: a row is never NULL, and rows are equal where their values are equal or both NULL.
    fn counted_rows<'q>(&mut self, aggref: &Aggref, fields: &'q [tree::Expr], scope: &mut Scope<'q>) -> Outcome<Aggregate> {
        if !aggref.order.is_empty() {
            return refuse("count of rows of values with ORDER BY");
        }
        let mut args = Vec::with_capacity(fields.len());
        for field in fields {
            let arg = self.expr(field, scope)?;
            self.hashable(arg.ty, field.collation(), "count of rows of values")?;
            args.push(arg);
        }
        if args.iter().all(super::relation::may_fold) {
            return refuse("count of a constant row");
        }
        let arg = key(vec![PLAIN; args.len()], 0, None, args);
        let distinct = !aggref.distinct.is_empty();
        Ok(Aggregate { kind: Kind::Count, arg: Some(arg), distinct, filter: None, param: None, ty: ColType::Int8 })
    }

    /// `string_agg` and `array_agg`.
    fn put_together<'q>(&mut self, kind: Kind, aggref: &'q Aggref, scope: &mut Scope<'q>) -> Outcome<Aggregate> {
        let name = || names::aggregate(aggref.fnoid);
        let mut given = aggref.args.iter().filter(|t| !t.junk);
        let Some(source) = given.next() else { return refuse(name()) };
        let value = self.expr(&source.expr, scope)?;
        if value.is_constant() {
            return refuse(format!("{} of a constant", name()));
        }
        let (param, ty) = match (kind, given.next(), value.ty) {
            (Kind::StringAgg, Some(separator), ColType::Text) => match self.constant(&separator.expr)? {
                Some((constant, oid::TEXT)) => (Some(constant), ColType::Text),
                _ => return refuse(format!("{} whose delimiter depends on rows", name())),
            },
            (Kind::ArrayAgg, None, ty) => match Element::of(ty) {
                Some(element) => (None, ColType::Array(element)),
                None => return refuse(format!("{} of {}", name(), numeric_name(ty))),
            },
            _ => return refuse(name()),
        };
        let distinct = !aggref.distinct.is_empty();
        // The clauses of DISTINCT begin with those of ORDER BY.
        let clauses = if distinct { &aggref.distinct } else { &aggref.order };
        let (mut orders, mut columns) = (Vec::new(), Vec::new());
        for clause in clauses {
            let target = sorted_by(aggref, clause)?;
            let expr = self.expr(&target.expr, scope)?;
            if expr.is_constant() {
                continue;
            }
            if distinct {
                self.groupable(&expr, &target.expr, clause, "DISTINCT in an aggregate")?;
            }
            orders.push(self.ordered_by(&expr, &target.expr, clause)?);
            columns.push(expr);
        }
        if columns.is_empty() {
            return refuse(format!("{} without ORDER BY", name()));
        }
        // Rows with equal keys have the same value: it is one of them, or computed of them.
        let at = match columns.iter().position(|column| *column == value) {
            Some(at) => at,
            None => {
                let is_key = |number: usize| columns.iter().any(|c| matches!(c.node, Node::Column(n) if n == number));
                let mut told = true;
                value.columns(&mut |number| told &= is_key(number));
                if !told || distinct {
                    return refuse(format!("{} whose ORDER BY may have ties", name()));
                }
                orders.push(PLAIN);
                columns.push(value);
                columns.len() - 1
            }
        };
        let skipped = (kind == Kind::StringAgg).then_some(at);
        Ok(Aggregate { kind, arg: Some(key(orders, at, skipped, columns)), distinct, filter: None, param, ty })
    }

    /// `percentile_cont`, `percentile_disc`, `mode`.
    fn of_a_set<'q>(&mut self, kind: Kind, aggref: &'q Aggref, scope: &mut Scope<'q>) -> Outcome<Aggregate> {
        let name = || names::aggregate(aggref.fnoid);
        let ([target], [clause], true) = (aggref.args.as_slice(), aggref.order.as_slice(), aggref.distinct.is_empty()) else {
            return refuse(name());
        };
        let value = self.expr(&target.expr, scope)?;
        if value.is_constant() {
            return refuse(format!("{} of a constant", name()));
        }
        let order = match value.ty {
            // Looked at by the kernel.
            ColType::Float8 => Order { descending: descending(clause)?, nulls_first: clause.nulls_first },
            _ if kind == Kind::PercentileCont => return refuse(format!("{} of {}", name(), numeric_name(value.ty))),
            _ => self.ordered_by(&value, &target.expr, clause)?,
        };
        let param = match (kind, aggref.direct_args.as_slice()) {
            (Kind::Mode, []) => None,
            (Kind::PercentileCont | Kind::PercentileDisc, [fraction]) => Some(self.fractions(fraction)?),
            _ => return refuse(name()),
        };
        let several = matches!(&param, Some(Constant::Literal(Value::Array { .. })));
        let ty = match (several, Element::of(value.ty)) {
            (false, _) => value.ty,
            (true, Some(element)) => ColType::Array(element),
            (true, None) => return refuse(format!("{} of {}", name(), numeric_name(value.ty))),
        };
        Ok(Aggregate { kind, arg: Some(key(vec![order], 0, Some(0), vec![value])), distinct: false, filter: None, param, ty })
    }

    /// One fraction, or several that are written as an array.
    fn fractions(&mut self, expr: &tree::Expr) -> Outcome<Constant> {
        let elements = match expr {
            tree::Expr::ArrayCoerce { arg, type_oid: oid::FLOAT8_ARRAY, .. } => match &**arg {
                tree::Expr::Array { elements, multidims: false, .. } => elements,
                _ => return refuse("percentiles of an array that is not written out"),
            },
            tree::Expr::Array { elements, multidims: false, element_oid: oid::FLOAT8, .. } => elements,
            other => return self.fraction(other),
        };
        let mut all = Vec::with_capacity(elements.len());
        for element in elements {
            match self.fraction(element)? {
                Constant::Literal(value) => all.push(value),
                _ => return refuse("percentiles of an array that is not written out"),
            }
        }
        Ok(Constant::Literal(Value::Array { element: oid::FLOAT8, elements: all }))
    }

    /// The fraction of a percentile; of a literal it is known not to raise an error.
    fn fraction(&mut self, expr: &tree::Expr) -> Outcome<Constant> {
        let literal = |expr: &tree::Expr| match expr {
            tree::Expr::Const(c) => pgtree::value::from_datum(c.type_oid, c.datum.as_deref()).ok(),
            _ => None,
        };
        let cast = match expr {
            tree::Expr::Func(call) if TO_FLOAT.contains(&call.func) => call.args.first().and_then(literal),
            other => literal(other),
        };
        let known = match cast {
            Some(Value::Float8(v)) => Some(v),
            Some(Value::Int4(v)) => Some(f64::from(v)),
            Some(Value::Null) => return Ok(Constant::Literal(Value::Null)),
            // As PostgreSQL does: the digits, read again.
            Some(Value::Numeric(n @ Numeric::Finite { .. })) => n.to_string().parse().ok(),
            _ => None,
        };
        match (known, self.constant(expr)?) {
            (Some(v), _) if Fraction::new(v).is_none() => refuse("a percentile beyond 0 and 1"),
            (Some(v), _) => Ok(Constant::Literal(Value::Float8(v))),
            (None, Some((constant, oid::FLOAT8))) => Ok(constant),
            _ => refuse("a percentile that depends on rows"),
        }
    }

    fn ordered_by(&mut self, expr: &Expr, source: &tree::Expr, clause: &SortGroup) -> Outcome<Order> {
        if expr.ty == ColType::NumericText {
            return refuse("an aggregate ordered by a numeric without fixed scale");
        }
        self.orderable(expr.ty, source, "an aggregate's ORDER BY")?;
        Ok(Order { descending: descending(clause)?, nulls_first: clause.nulls_first })
    }
}

fn key(orders: Vec<Order>, value: usize, skipped: Option<usize>, args: Vec<Expr>) -> Expr {
    Expr { node: Node::Call(Kernel::Key { orders, value, skipped }, args), ty: ColType::Bytea }
}

/// What a clause of an aggregate sorts by.
fn sorted_by<'q>(aggref: &'q Aggref, clause: &SortGroup) -> Outcome<&'q Target> {
    let found = aggref.args.iter().find(|t| t.sort_group_ref == clause.target && clause.target != 0);
    found.ok_or_else(|| Refused("an aggregate's ORDER BY without target".into()))
}
