//! Predicates that a file's statistics can answer: comparisons of a column with a constant of its own type,
//! and what AND, OR, IN, BETWEEN and IS NULL make of them. ✗ anything with a cast, a function or a float.
//!
//! Only these reach the files: whole ones are left out here, row groups and pages by the Parquet reader. They
//! are evaluated again on the rows, so pruning is about speed as long as it leaves nothing out; only ranges of the event time
//! are not, in files of which [`Test::must_match`] says that all rows are within.

use std::cmp::Ordering;

use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use lake::stats::{Bound, ColumnStats, FileStats};

use super::coded::coded_type;

/// A predicate over columns, by name.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Test {
    All(Vec<Test>),
    Any(Vec<Test>),
    Compare { column: String, op: Operator, value: Bound },
    IsNull(String),
    IsNotNull(String),
}

impl Test {
    /// Reads a predicate; None if any part of it is not proven.
    pub(super) fn read(expr: &Expr, schema: &Schema) -> Option<Test> {
        match expr {
            Expr::Alias(alias) => Test::read(&alias.expr, schema),
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
                Some(Test::All(vec![Test::read(left, schema)?, Test::read(right, schema)?]))
            }
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
                Some(Test::Any(vec![Test::read(left, schema)?, Test::read(right, schema)?]))
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                compare(left, *op, right, schema).or_else(|| compare(right, op.swap()?, left, schema))
            }
            Expr::IsNull(inner) => Some(Test::IsNull(column(inner, schema)?.0)),
            Expr::IsNotNull(inner) => Some(Test::IsNotNull(column(inner, schema)?.0)),
            Expr::InList(list) if !list.negated => {
                let tests = list.list.iter().map(|v| compare(&list.expr, Operator::Eq, v, schema));
                Some(Test::Any(tests.collect::<Option<_>>()?))
            }
            Expr::Between(between) if !between.negated => Some(Test::All(vec![
                compare(&between.expr, Operator::GtEq, &between.low, schema)?,
                compare(&between.expr, Operator::LtEq, &between.high, schema)?,
            ])),
            _ => None,
        }
    }

    /// Whether the predicate asks for few rows, as far as its shape tells: an equality.
    pub(super) fn is_selective(&self) -> bool {
        match self {
            Test::All(tests) => tests.iter().any(Test::is_selective),
            Test::Any(tests) => tests.iter().all(Test::is_selective),
            Test::Compare { op, value, .. } => *op == Operator::Eq && !matches!(value, Bound::Bool(_)),
            Test::IsNull(_) | Test::IsNotNull(_) => false,
        }
    }

    /// Whether the predicate is a range of this column, of times or integers.
    pub(super) fn is_range_of(&self, event: &str) -> bool {
        match self {
            Test::All(tests) => tests.iter().all(|t| t.is_range_of(event)),
            Test::Compare { column, op, value: Bound::Int(_) } => {
                column == event && matches!(op, Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq)
            }
            _ => false,
        }
    }

    /// True only if the predicate holds for every row of the file.
    pub(super) fn must_match(&self, file: &FileStats) -> bool {
        match self {
            Test::All(tests) => tests.iter().all(|t| t.must_match(file)),
            Test::Any(tests) => tests.iter().any(|t| t.must_match(file)),
            Test::IsNull(_) | Test::IsNotNull(_) => false,
            Test::Compare { column, op, value } => {
                file.columns.get(column).is_some_and(|c| c.nulls == 0 && must_hold(c, *op, value))
            }
        }
    }

    /// False only if the predicate holds for no row of the file, or of the files, that `file` sums up.
    pub(super) fn may_match(&self, file: &FileStats) -> bool {
        match self {
            Test::All(tests) => tests.iter().all(|t| t.may_match(file)),
            Test::Any(tests) => tests.iter().any(|t| t.may_match(file)),
            // A file without the column holds NULL in every row.
            Test::IsNull(column) => file.columns.get(column).is_none_or(|c| c.nulls > 0),
            Test::IsNotNull(column) => file.columns.get(column).is_some_and(|c| c.nulls < file.rows),
            Test::Compare { column, op, value } => {
                file.columns.get(column).is_some_and(|c| c.nulls < file.rows && may_hold(c, *op, value))
            }
        }
    }
}

/// True only if every value within the bounds compares so.
fn must_hold(stats: &ColumnStats, op: Operator, value: &Bound) -> bool {
    let low = stats.min.as_ref().and_then(|min| min.partial_cmp(value));
    let high = stats.max.as_ref().and_then(|max| max.partial_cmp(value));
    match op {
        Operator::Lt => high.is_some_and(Ordering::is_lt),
        Operator::LtEq => high.is_some_and(Ordering::is_le),
        Operator::Gt => low.is_some_and(Ordering::is_gt),
        Operator::GtEq => low.is_some_and(Ordering::is_ge),
        _ => false,
    }
}

/// False only if no value within the bounds compares so. Bounds of another kind than the value say nothing.
fn may_hold(stats: &ColumnStats, op: Operator, value: &Bound) -> bool {
    let low = stats.min.as_ref().and_then(|min| min.partial_cmp(value));
    let high = stats.max.as_ref().and_then(|max| max.partial_cmp(value));
    match op {
        Operator::Eq => low != Some(Ordering::Greater) && high != Some(Ordering::Less),
        Operator::NotEq => !(low == Some(Ordering::Equal) && high == Some(Ordering::Equal)),
        Operator::Lt => low.is_none_or(Ordering::is_lt),
        Operator::LtEq => low.is_none_or(Ordering::is_le),
        Operator::Gt => high.is_none_or(Ordering::is_gt),
        Operator::GtEq => high.is_none_or(Ordering::is_ge),
        _ => true,
    }
}

fn column<'a>(expr: &Expr, schema: &'a Schema) -> Option<(String, &'a DataType)> {
    let Expr::Column(c) = expr else { return None };
    let field = schema.field_with_name(&c.name).ok()?;
    Some((c.name.clone(), field.data_type()))
}

fn compare(left: &Expr, op: Operator, right: &Expr, schema: &Schema) -> Option<Test> {
    use Operator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    if !matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq) {
        return None;
    }
    let (column, data_type) = column(left, schema)?;
    let Expr::Literal(value, _) = right else { return None };
    Some(Test::Compare { column, op, value: bound(value, data_type)? })
}

/// A constant as a bound of a column of exactly its type; None for NULL and for types without order here.
fn bound(value: &ScalarValue, data_type: &DataType) -> Option<Bound> {
    if value.data_type() != *data_type {
        // One representation of text is as good as another.
        let texts = [DataType::Utf8, DataType::Utf8View, DataType::LargeUtf8, coded_type()];
        if !(texts.contains(data_type) && texts.contains(&value.data_type())) {
            return None;
        }
    }
    match value {
        ScalarValue::Dictionary(_, text) => bound(text, &text.data_type()),
        ScalarValue::Boolean(v) => v.map(Bound::Bool),
        ScalarValue::Int16(v) => v.map(|v| Bound::Int(v.into())),
        ScalarValue::Int32(v) | ScalarValue::Date32(v) => v.map(|v| Bound::Int(v.into())),
        ScalarValue::Int64(v) | ScalarValue::TimestampMicrosecond(v, _) => v.map(Bound::Int),
        ScalarValue::Decimal128(v, ..) => v.map(Bound::Decimal),
        ScalarValue::Utf8(v) | ScalarValue::Utf8View(v) | ScalarValue::LargeUtf8(v) => {
            v.clone().map(Bound::Text)
        }
        _ => None,
    }
}

/// The value of a column that a bound stands for.
pub(super) fn scalar(bound: &Bound, data_type: &DataType) -> Option<ScalarValue> {
    Some(match (bound, data_type) {
        (Bound::Bool(v), DataType::Boolean) => ScalarValue::Boolean(Some(*v)),
        (Bound::Int(v), DataType::Int16) => ScalarValue::Int16(Some(i16::try_from(*v).ok()?)),
        (Bound::Int(v), DataType::Int32) => ScalarValue::Int32(Some(i32::try_from(*v).ok()?)),
        (Bound::Int(v), DataType::Date32) => ScalarValue::Date32(Some(i32::try_from(*v).ok()?)),
        (Bound::Int(v), DataType::Int64) => ScalarValue::Int64(Some(*v)),
        (Bound::Int(v), DataType::Timestamp(datafusion::arrow::datatypes::TimeUnit::Microsecond, tz)) => {
            ScalarValue::TimestampMicrosecond(Some(*v), tz.clone())
        }
        (Bound::Decimal(v), DataType::Decimal128(p, s)) => ScalarValue::Decimal128(Some(*v), *p, *s),
        (Bound::Text(v), DataType::Utf8View) => ScalarValue::Utf8View(Some(v.clone())),
        (Bound::Text(v), ty) if *ty == coded_type() => {
            ScalarValue::Dictionary(Box::new(DataType::Int32), Box::new(ScalarValue::Utf8(Some(v.clone()))))
        }
        _ => return None,
    })
}
