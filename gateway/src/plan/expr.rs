//! Expressions of the analysis as DataFusion's. ✗ relations, kernels' insides.
//!
//! A constant compared with a column is brought to the column's own type, without loss: where the type cannot hold it the comparison is decided
//! for every value that is not NULL (`int4 < 3000000000`), and a numeric between two values of the column's scale moves to the lower one.

use super::kernel::{self, Function};
use super::times;
use super::{PlanError, PlanInputs, Result, Value};
use crate::analyze::harmless::{is_harmless, may_fail};
use crate::analyze::relation::reads_nothing;
use crate::analyze::ir::{self, BoolTest, Compare, Constant, Kernel, List, Node, Span, Word};
use crate::analyze::moments::named_zone;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{InList, Like};
use datafusion::logical_expr::{Case, Cast, Expr, Operator, binary_expr};
use lake::types::ColType;
use pgexact::datetime::{Interval, Kind, Unit};
use pgexact::real;
use pgexact::tochar::Template;
use pgtree::value::{Numeric, uuid_text};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

pub(super) struct Expressions<'b> {
    pub inputs: &'b PlanInputs,
    pub built: &'b super::Built,
}

fn boolean(value: Option<bool>) -> Expr {
    Expr::Literal(ScalarValue::Boolean(value), None)
}

fn operator(compare: Compare) -> Operator {
    match compare {
        Compare::Lt => Operator::Lt,
        Compare::Le => Operator::LtEq,
        Compare::Eq => Operator::Eq,
        Compare::Ge => Operator::GtEq,
        Compare::Gt => Operator::Gt,
        Compare::Ne => Operator::NotEq,
    }
}

/// Where a constant stands among the values of a column's type.
enum Place {
    /// One of them.
    At(ScalarValue),
    /// Between this one and the next.
    Above(ScalarValue),
    BelowAll,
    AboveAll,
}

impl Expressions<'_> {
    /// PostgreSQL computes what it compares, and raises its errors, though the outcome is known without: then it is PostgreSQL's.
    fn needs_no_value(&self, expr: &ir::Expr) -> Result<()> {
        match self.inputs.alone || is_harmless(expr) {
            true => Ok(()),
            false => Err(PlanError::Unproven("a comparison that is decided without a value that may raise an error".into())),
        }
    }

    /// A comparison whose outcome is the same for every value: NULL where `expr`, which is `value` there, is NULL. DataFusion makes AND and OR of it,
    /// and tests the NULL of that before anything is computed.
    fn decided(&self, expr: &ir::Expr, value: Expr, outcome: bool) -> Result<Expr> {
        self.needs_no_value(expr)?;
        Ok(Expr::Case(Case::new(None, vec![(Box::new(value.is_not_null()), Box::new(boolean(Some(outcome))))], None)))
    }

    /// The name of a step that may raise an error of the rows: see [`kernel::step_of`].
    fn step(&self, expr: &ir::Expr) -> Option<u64> {
        if self.inputs.alone || !may_fail(expr) || reads_nothing(expr) {
            return None;
        }
        let mut hasher = std::hash::DefaultHasher::new();
        format!("{expr:?}").hash(&mut hasher);
        Some(hasher.finish())
    }

    pub(super) fn expr(&self, expr: &ir::Expr) -> Result<Expr> {
        Ok(match &expr.node {
            Node::Column(number) => self.built.column(*number)?,
            Node::Constant(constant) => Expr::Literal(scalar(self.inputs.value(constant)?, expr.ty)?, None),
            Node::Compare(compare, a, b) => self.compare(*compare, a, b)?,
            Node::Distinct(a, b) => self.is_distinct(a, b)?,
            Node::InList { arg, list, negated } => self.in_list(arg, list, *negated)?,
            Node::And(items) => self.all(items, Operator::And)?.unwrap_or_else(|| boolean(Some(true))),
            Node::Or(items) => self.all(items, Operator::Or)?.unwrap_or_else(|| boolean(Some(false))),
            Node::Not(inner) => Expr::Not(Box::new(self.expr(inner)?)),
            Node::IsNull(inner) => self.coded_or_not(inner)?.0.is_null(),
            Node::IsNotNull(inner) => self.coded_or_not(inner)?.0.is_not_null(),
            Node::BoolTest(inner, test) => {
                let inner = Box::new(self.expr(inner)?);
                match test {
                    BoolTest::IsTrue => Expr::IsTrue(inner),
                    BoolTest::IsNotTrue => Expr::IsNotTrue(inner),
                    BoolTest::IsFalse => Expr::IsFalse(inner),
                    BoolTest::IsNotFalse => Expr::IsNotFalse(inner),
                    BoolTest::IsUnknown => Expr::IsUnknown(inner),
                    BoolTest::IsNotUnknown => Expr::IsNotUnknown(inner),
                }
            }
            Node::Like { arg, pattern, negated } => self.like(arg, pattern, *negated)?,
            Node::DateBin { arg, stride, origin } => {
                let source = self.expr(arg)?;
                let stride = self.inputs.value(stride)?;
                match (stride, self.inputs.value(origin)?) {
                    (Value::Null, _) | (_, Value::Null) => Expr::Literal(null(expr.ty)?, None),
                    (_, Value::Timestamp(origin) | Value::TimestampTz(origin)) => kernel::call_step(
                        Function::DateBin(kernel::interval_of(stride)?, *origin),
                        vec![source],
                        expr.ty.arrow(),
                        self.step(expr),
                    ),
                    _ => return Err(PlanError::Internal("an origin that is no timestamp".into())),
                }
            }
            Node::Case { whens, default } => {
                let mut arms = Vec::with_capacity(whens.len());
                for (condition, result) in whens {
                    arms.push((Box::new(self.expr(condition)?), Box::new(self.expr(result)?)));
                }
                let default = match default {
                    Some(default) => self.expr(default)?,
                    None => Expr::Literal(null(expr.ty)?, None),
                };
                Expr::Case(Case::new(None, arms, Some(Box::new(default))))
            }
            Node::Coalesce(items) => {
                let mut items = items.iter().map(|e| self.expr(e)).collect::<Result<Vec<_>>>()?;
                let last = items.pop().ok_or_else(|| PlanError::Internal("COALESCE of nothing".into()))?;
                let arms = items
                    .into_iter()
                    .map(|e| (Box::new(e.clone().is_not_null()), Box::new(e)))
                    .collect::<Vec<_>>();
                if arms.is_empty() { last } else { Expr::Case(Case::new(None, arms, Some(Box::new(last)))) }
            }
            Node::NullIf(a, b) => {
                let equal = self.compare(Compare::Eq, a, b)?;
                let arms = vec![(Box::new(equal), Box::new(Expr::Literal(null(expr.ty)?, None)))];
                Expr::Case(Case::new(None, arms, Some(Box::new(self.expr(a)?))))
            }
            Node::Call(kernel, args) => self.call(kernel, args, expr.ty, self.step(expr))?,
        })
    }

    /// A predicate, with the bounds that its conditions on cut times imply for the times themselves: those can
    /// leave files out.
    pub(super) fn filter(&self, predicate: &ir::Expr) -> Result<Expr> {
        let conditions = match &predicate.node {
            Node::And(items) => items.as_slice(),
            _ => std::slice::from_ref(predicate),
        };
        let mut filter = self.expr(predicate)?;
        for condition in conditions {
            let Node::Compare(compare, a, b) = &condition.node else { continue };
            let (compare, cut, constant) = match (a.as_constant(), b.as_constant()) {
                (None, Some(constant)) => (*compare, a, constant),
                (Some(constant), None) => (compare.swap(), b, constant),
                _ => continue,
            };
            let Some((cut, argument)) = times::cut_of(cut, &self.inputs.zone) else { continue };
            let value = |us: i64| match argument.ty {
                ColType::Timestamp => Some(Value::Timestamp(us)),
                ColType::TimestampTz => Some(Value::TimestampTz(us)),
                _ => None,
            };
            let bounds = times::implied(&cut, compare, self.inputs.value(constant)?);
            for (op, bound) in [(Operator::GtEq, bounds.low), (Operator::LtEq, bounds.high)] {
                if let Some(value) = bound.and_then(value)
                    && matches!(argument.node, Node::Column(_))
                {
                    let bound = Expr::Literal(scalar(&value, argument.ty)?, None);
                    filter = binary_expr(filter, Operator::And, binary_expr(self.expr(argument)?, op, bound));
                }
            }
        }
        Ok(filter)
    }

    /// A column as it is, which may be codes (true then); any other expression as ever.
    pub(super) fn coded_or_not(&self, expr: &ir::Expr) -> Result<(Expr, bool)> {
        match expr.node {
            Node::Column(number) => Ok((self.built.as_it_is(number)?, self.built.coded.contains(&number))),
            _ => Ok((self.expr(expr)?, false)),
        }
    }

    /// Conditions joined in a balanced tree: what walks it recurses by the logarithm of their number.
    fn all(&self, items: &[ir::Expr], op: Operator) -> Result<Option<Expr>> {
        let mut level = items.iter().map(|item| self.expr(item)).collect::<Result<Vec<_>>>()?;
        while level.len() > 1 {
            let mut next = Vec::with_capacity(level.len().div_ceil(2));
            let mut items = level.into_iter();
            while let Some(left) = items.next() {
                next.push(match items.next() {
                    Some(right) => binary_expr(left, op, right),
                    None => left,
                });
            }
            level = next;
        }
        Ok(level.pop())
    }

    fn call(&self, kernel: &Kernel, args: &[ir::Expr], ty: ColType, step: Option<u64>) -> Result<Expr> {
        let mut exprs = args.iter().map(|e| self.expr(e)).collect::<Result<Vec<_>>>()?;
        let function = match kernel {
            Kernel::IntCast if int_range(ty).is_some() && widens(args, ty) => {
                let arg = exprs.pop().ok_or_else(|| PlanError::Internal("a cast of nothing".into()))?;
                return Ok(Expr::Cast(Cast::new(Box::new(arg), ty.arrow())));
            }
            Kernel::DateTruncTz(_, Some(name)) => {
                let zone = pgexact::Zone::parse(name)
                    .ok_or_else(|| PlanError::Unproven(format!("time zone {name}")))?;
                Function::Zoned(kernel.clone(), zone)
            }
            Kernel::DateTruncBy(word) => {
                let Some(unit) = self.word(word)? else { return Ok(Expr::Literal(null(ty)?, None)) };
                let zoned = ty == ColType::TimestampTz;
                let kind = if zoned { Kind::TimestampTz } else { Kind::Timestamp };
                // What is no unit raises an error, if there are rows.
                let unit = Unit::parse(&unit, kind).map_err(|e| PlanError::Unproven(e.message))?;
                match zoned {
                    true => Function::Zoned(Kernel::DateTruncTz(unit, None), self.inputs.zone.clone()),
                    false => Function::Kernel(Kernel::DateTrunc(unit)),
                }
            }
            Kernel::ILike { pattern, negated, usual } => {
                let Some(pattern) = self.word(pattern)? else { return Ok(boolean(None)) };
                Function::ILike { pattern, negated: *negated, usual: *usual }
            }
            Kernel::Regex { pattern, insensitive, negated } => {
                let Some(pattern) = self.word(pattern)? else { return Ok(boolean(None)) };
                match pgexact::regexp::Pattern::parse(&pattern, *insensitive) {
                    Some(parsed) => Function::Regex {
                        pattern: kernel::Parsed { text: pattern, insensitive: *insensitive, parsed },
                        negated: *negated,
                    },
                    None => return Err(PlanError::Unproven(format!("the regular expression \"{pattern}\""))),
                }
            }
            Kernel::ToChar(word) => {
                let Some(template) = self.word(word)? else { return Ok(Expr::Literal(null(ty)?, None)) };
                if Template::parse(&template).is_none() {
                    return Err(PlanError::Unproven(format!("to_char with template \"{template}\"")));
                }
                Function::ToChar(template, self.inputs.zone.clone())
            }
            Kernel::ToLocal(Some(word)) | Kernel::ToInstant(Some(word)) => {
                let Some(name) = self.word(word)? else { return Ok(Expr::Literal(null(ty)?, None)) };
                let zone = named_zone(&name)
                    .ok_or_else(|| PlanError::Unproven(format!("AT TIME ZONE \"{name}\"")))?;
                Function::Zoned(kernel.clone(), zone)
            }
            Kernel::AddInterval { span, subtract } => {
                let interval = match span {
                    Span::Literal(interval) => Some(*interval),
                    Span::Param(n) => self.span(&Constant::Param(*n))?,
                    Span::Fold(n) => self.span(&Constant::Fold(*n))?,
                };
                let Some(interval) = interval else { return Ok(Expr::Literal(null(ty)?, None)) };
                let interval = match subtract {
                    false => Some(interval),
                    true => interval.negated(),
                };
                let interval = interval.ok_or_else(|| PlanError::Unproven("an enormous interval".into()))?;
                Function::AddInterval(interval, self.inputs.zone.clone())
            }
            Kernel::DateTruncTz(_, None)
            | Kernel::TimestampTzToDate
            | Kernel::ToText
            | Kernel::Extract(_)
            | Kernel::ToLocal(None)
            | Kernel::ToInstant(None) => {
                Function::Zoned(kernel.clone(), self.inputs.zone.clone())
            }
            other => Function::Kernel(other.clone()),
        };
        Ok(kernel::call_step(function, exprs, ty.arrow(), step))
    }

    /// A text that does not depend on rows; None if it is NULL.
    fn word(&self, word: &Word) -> Result<Option<String>> {
        let constant = match word {
            Word::Literal(text) => return Ok(Some(text.clone())),
            Word::Param(n) => Constant::Param(*n),
            Word::Fold(n) => Constant::Fold(*n),
        };
        match self.inputs.value(&constant)? {
            Value::Null => Ok(None),
            Value::Text(text) => Ok(Some(text.clone())),
            _ => Err(PlanError::Internal("a word that is no text".into())),
        }
    }

    fn span(&self, constant: &Constant) -> Result<Option<Interval>> {
        match self.inputs.value(constant)? {
            Value::Null => Ok(None),
            value => kernel::interval_of(value).map(Some),
        }
    }

    /// The place of a float in PostgreSQL's order.
    pub(super) fn float_place(&self, float: &ir::Expr) -> Result<Expr> {
        Ok(kernel::call(Function::Kernel(Kernel::FloatPlace), vec![self.expr(float)?], DataType::Int64))
    }

    fn compare(&self, compare: Compare, a: &ir::Expr, b: &ir::Expr) -> Result<Expr> {
        if is_float(a.ty) && is_float(b.ty) {
            return Ok(binary_expr(self.float_place(a)?, operator(compare), self.float_place(b)?));
        }
        match (a.as_constant(), b.as_constant()) {
            (None, Some(constant)) => self.compare_constant(compare, a, self.inputs.value(constant)?),
            (Some(constant), None) => self.compare_constant(compare.swap(), b, self.inputs.value(constant)?),
            _ => {
                let (left, right) = (self.expr(a)?, self.expr(b)?);
                Ok(match (a.ty, b.ty) {
                    (x, y) if x.arrow() == y.arrow() && x != ColType::NumericText => {
                        binary_expr(left, operator(compare), right)
                    }
                    (x, y) if int_range(x).is_some() && int_range(y).is_some() => {
                        let wide = |e| Expr::Cast(Cast::new(Box::new(e), ColType::Int8.arrow()));
                        binary_expr(wide(left), operator(compare), wide(right))
                    }
                    (
                        ColType::Numeric { .. } | ColType::NumericText,
                        ColType::Numeric { .. } | ColType::NumericText,
                    ) => numeric_compare(compare, left, right),
                    _ => return Err(PlanError::Internal("a comparison of different types".into())),
                })
            }
        }
    }

    fn compare_constant(&self, compare: Compare, expr: &ir::Expr, value: &Value) -> Result<Expr> {
        let (left, codes) = self.coded_or_not(expr)?;
        if value.is_null() {
            return Ok(boolean(None));
        }
        if codes {
            let text = coded(scalar(value, expr.ty)?)?;
            return Ok(binary_expr(left, operator(compare), Expr::Literal(text, None)));
        }
        if expr.ty == ColType::NumericText {
            let text = Expr::Literal(scalar(value, ColType::NumericText)?, None);
            return Ok(numeric_compare(compare, left, text));
        }
        Ok(match place(value, expr.ty)? {
            Place::At(value) => binary_expr(left, operator(compare), Expr::Literal(value, None)),
            Place::Above(value) => match compare {
                Compare::Eq => self.decided(expr, left, false)?,
                Compare::Ne => self.decided(expr, left, true)?,
                Compare::Lt | Compare::Le => binary_expr(left, Operator::LtEq, Expr::Literal(value, None)),
                Compare::Gt | Compare::Ge => binary_expr(left, Operator::Gt, Expr::Literal(value, None)),
            },
            Place::AboveAll => self.decided(expr, left, matches!(compare, Compare::Lt | Compare::Le | Compare::Ne))?,
            Place::BelowAll => self.decided(expr, left, matches!(compare, Compare::Gt | Compare::Ge | Compare::Ne))?,
        })
    }

    fn is_distinct(&self, a: &ir::Expr, b: &ir::Expr) -> Result<Expr> {
        if is_float(a.ty) && is_float(b.ty) {
            return Ok(binary_expr(self.float_place(a)?, Operator::IsDistinctFrom, self.float_place(b)?));
        }
        let (expr, value) = match (a.as_constant(), b.as_constant()) {
            (None, Some(constant)) => (a, self.inputs.value(constant)?),
            (Some(constant), None) => (b, self.inputs.value(constant)?),
            _ if a.ty.arrow() == b.ty.arrow() => {
                return Ok(binary_expr(self.expr(a)?, Operator::IsDistinctFrom, self.expr(b)?));
            }
            _ => return Err(PlanError::Unproven("IS DISTINCT FROM over different types".into())),
        };
        let left = self.expr(expr)?;
        if value.is_null() {
            return Ok(left.is_not_null());
        }
        Ok(match place(value, expr.ty)? {
            Place::At(value) => binary_expr(left, Operator::IsDistinctFrom, Expr::Literal(value, None)),
            _ => {
                self.needs_no_value(expr)?;
                boolean(Some(true))
            }
        })
    }

    fn in_list(&self, arg: &ir::Expr, list: &List, negated: bool) -> Result<Expr> {
        let values: Vec<&Value> = match list {
            List::Items(items) => items.iter().map(|c| self.inputs.value(c)).collect::<Result<_>>()?,
            List::Array(constant) => match self.inputs.value(constant)? {
                Value::Null => {
                    self.needs_no_value(arg)?;
                    return Ok(boolean(None));
                }
                Value::Array { elements, .. } => elements.iter().collect(),
                _ => return Err(PlanError::Internal("a list that is no array".into())),
            },
        };
        if values.iter().all(|v| v.is_null()) {
            self.needs_no_value(arg)?;
        }
        // Of an empty array, not even NULL makes the answer NULL.
        if values.is_empty() {
            return Ok(boolean(Some(negated)));
        }
        if is_float(arg.ty) {
            let place = |v: &&Value| match v {
                Value::Null => Ok(Expr::Literal(ScalarValue::Int64(None), None)),
                Value::Float4(v) => Ok(Expr::Literal(ScalarValue::Int64(Some(real::order::place(f64::from(*v)))), None)),
                Value::Float8(v) => Ok(Expr::Literal(ScalarValue::Int64(Some(real::order::place(*v))), None)),
                _ => Err(PlanError::Internal("a list of floats with something else".into())),
            };
            let places = values.iter().map(place).collect::<Result<Vec<_>>>()?;
            return Ok(Expr::InList(InList::new(Box::new(self.float_place(arg)?), places, negated)));
        }
        let (left, codes) = self.coded_or_not(arg)?;
        if codes {
            let literal = |v: &&Value| Ok(Expr::Literal(coded(scalar(v, arg.ty)?)?, None));
            let literals = values.iter().map(literal).collect::<Result<Vec<_>>>()?;
            return Ok(Expr::InList(InList::new(Box::new(left), literals, negated)));
        }
        if arg.ty == ColType::NumericText {
            const MOST: usize = 200;
            if values.len() > MOST {
                return Err(PlanError::Unproven("a long list of numerics without fixed scale".into()));
            }
            let equal = values
                .iter()
                .map(|v| self.compare_constant(Compare::Eq, arg, v))
                .collect::<Result<Vec<_>>>()?;
            let any = equal
                .into_iter()
                .reduce(|a, b| binary_expr(a, Operator::Or, b))
                .unwrap_or_else(|| boolean(Some(false)));
            return Ok(if negated { Expr::Not(Box::new(any)) } else { any });
        }
        let mut literals = Vec::with_capacity(values.len());
        for value in values {
            if value.is_null() {
                literals.push(Expr::Literal(null(arg.ty)?, None));
            } else if let Place::At(value) = place(value, arg.ty)? {
                literals.push(Expr::Literal(value, None));
            }
        }
        if literals.is_empty() {
            return self.decided(arg, left, negated);
        }
        // DataFusion makes NULL of a list of NULLs.
        if literals.iter().all(|l| matches!(l, Expr::Literal(value, _) if value.is_null())) {
            self.needs_no_value(arg)?;
        }
        Ok(Expr::InList(InList::new(Box::new(left), literals, negated)))
    }

    fn like(&self, arg: &ir::Expr, pattern: &Constant, negated: bool) -> Result<Expr> {
        let text = self.expr(arg)?;
        let pattern = match self.inputs.value(pattern)? {
            Value::Null => return Ok(boolean(None)),
            Value::Text(pattern) => pattern,
            _ => return Err(PlanError::Internal("a pattern that is no text".into())),
        };
        if pattern.contains('\\') {
            let function = Function::Like { pattern: pattern.clone(), negated };
            return Ok(kernel::call(function, vec![text], ColType::Bool.arrow()));
        }
        let pattern = Box::new(Expr::Literal(ScalarValue::Utf8View(Some(pattern.clone())), None));
        Ok(Expr::Like(Like::new(negated, Box::new(text), pattern, None, false)))
    }
}

/// A text as a constant to compare codes with.
fn coded(text: ScalarValue) -> Result<ScalarValue> {
    let text = text.cast_to(&DataType::Utf8).map_err(|e| PlanError::Internal(e.to_string()))?;
    Ok(ScalarValue::Dictionary(Box::new(DataType::Int32), Box::new(text)))
}

fn is_float(ty: ColType) -> bool {
    matches!(ty, ColType::Float4 | ColType::Float8)
}

fn numeric_compare(compare: Compare, a: Expr, b: Expr) -> Expr {
    kernel::call(Function::NumericCompare(compare), vec![a, b], ColType::Bool.arrow())
}

/// The smallest and largest value of an integer type.
fn int_range(ty: ColType) -> Option<(i64, i64)> {
    match ty {
        ColType::Int2 => Some((i16::MIN.into(), i16::MAX.into())),
        ColType::Int4 => Some((i32::MIN.into(), i32::MAX.into())),
        ColType::Int8 => Some((i64::MIN, i64::MAX)),
        _ => None,
    }
}

fn widens(args: &[ir::Expr], ty: ColType) -> bool {
    matches!((args, int_range(ty)), ([arg], Some(to)) if int_range(arg.ty).is_some_and(|from| from.1 <= to.1))
}

fn place(value: &Value, ty: ColType) -> Result<Place> {
    let number = match value {
        Value::Int2(v) => Some(i64::from(*v)),
        Value::Int4(v) => Some(i64::from(*v)),
        Value::Int8(v) => Some(*v),
        _ => None,
    };
    match (number, int_range(ty), value, ty) {
        (Some(v), Some((low, _)), ..) if v < low => Ok(Place::BelowAll),
        (Some(v), Some((_, high)), ..) if v > high => Ok(Place::AboveAll),
        (Some(v), Some(_), _, ty) => Ok(Place::At(match ty {
            // In range: both conversions are exact.
            ColType::Int2 => ScalarValue::Int16(Some(v as i16)),
            ColType::Int4 => ScalarValue::Int32(Some(v as i32)),
            _ => ScalarValue::Int64(Some(v)),
        })),
        (_, _, Value::Numeric(n), ColType::Numeric { precision, scale }) => {
            Ok(place_numeric(n, precision, scale))
        }
        (_, _, Value::Xid8(v), ColType::Xid8) => Ok(match i64::try_from(*v) {
            Ok(v) => Place::At(ScalarValue::Int64(Some(v))),
            Err(_) => Place::AboveAll,
        }),
        _ => Ok(Place::At(scalar(value, ty)?)),
    }
}

fn place_numeric(n: &Numeric, precision: u8, scale: i8) -> Place {
    let by_sign = |negative: bool| if negative { Place::BelowAll } else { Place::AboveAll };
    match n {
        Numeric::NaN | Numeric::Infinity => Place::AboveAll,
        Numeric::NegInfinity => Place::BelowAll,
        Numeric::Finite { negative, .. } => {
            // Scales of columns are not negative.
            let Some((floor, exact)) = n.floor_to(scale.unsigned_abs().into()) else {
                return by_sign(*negative);
            };
            let limit = 10i128.checked_pow(precision.into()).unwrap_or(i128::MAX);
            if floor >= limit {
                return Place::AboveAll;
            }
            if floor <= -limit {
                return Place::BelowAll;
            }
            let value = ScalarValue::Decimal128(Some(floor), precision, scale);
            if exact { Place::At(value) } else { Place::Above(value) }
        }
    }
}

fn null(ty: ColType) -> Result<ScalarValue> {
    ScalarValue::try_from(&ty.arrow()).map_err(|e| PlanError::Internal(e.to_string()))
}

/// A value as a literal of exactly the Arrow type of `ty`.
pub(super) fn scalar(value: &Value, ty: ColType) -> Result<ScalarValue> {
    let utc = || Some(Arc::from("UTC"));
    Ok(match (value, ty) {
        (Value::Null, _) => null(ty)?,
        (Value::Bool(v), ColType::Bool) => ScalarValue::Boolean(Some(*v)),
        (Value::Int2(v), ColType::Int2) => ScalarValue::Int16(Some(*v)),
        (Value::Int4(v), ColType::Int4) => ScalarValue::Int32(Some(*v)),
        (Value::Int8(v), ColType::Int8) => ScalarValue::Int64(Some(*v)),
        (Value::Float4(v), ColType::Float4) => ScalarValue::Float32(Some(*v)),
        (Value::Float8(v), ColType::Float8) => ScalarValue::Float64(Some(*v)),
        (Value::Numeric(n), ColType::NumericText) => ScalarValue::Utf8View(Some(n.to_string())),
        (Value::Numeric(n), ColType::Numeric { precision, scale }) => match n.unscaled() {
            Some((unscaled, own)) if i32::from(own) == i32::from(scale) => {
                ScalarValue::Decimal128(Some(unscaled), precision, scale)
            }
            _ => return Err(PlanError::Internal("a numeric of another scale".into())),
        },
        (Value::Text(v), ColType::Text | ColType::Varchar) | (Value::Jsonb(v), ColType::Jsonb) => {
            ScalarValue::Utf8View(Some(v.clone()))
        }
        (Value::Date(v), ColType::Date) => ScalarValue::Date32(Some(*v)),
        (Value::Timestamp(v), ColType::Timestamp) => ScalarValue::TimestampMicrosecond(Some(*v), None),
        (Value::TimestampTz(v), ColType::TimestampTz) => ScalarValue::TimestampMicrosecond(Some(*v), utc()),
        (Value::Uuid(v), ColType::Uuid) => ScalarValue::Utf8View(Some(uuid_text(v))),
        (Value::Bytea(v), ColType::Bytea) => ScalarValue::BinaryView(Some(v.clone())),
        (Value::Xid8(v), ColType::Xid8) => match i64::try_from(*v) {
            Ok(v) => ScalarValue::Int64(Some(v)),
            Err(_) => return Err(PlanError::Unproven("a transaction id beyond 2^63".into())),
        },
        _ => return Err(PlanError::Internal(format!("a value that is no {ty:?}"))),
    })
}
