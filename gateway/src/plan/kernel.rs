//! The kernels of `pgexact` as DataFusion functions. Knows how arguments and results travel; computes nothing. ✗ planning.

use super::{PlanError, Result};
use crate::analyze::ir::{Arith, Compare, Kernel};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, Date32Array, Int64Array};
use datafusion::arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use pgexact::arith::{BinaryOp, UnaryOp};
use pgexact::{PgError, Zone, arith, cast, cut, datetime, deviation, extract, extreme, interval, real, regexp, tochar, fixed, like, numeric, ordered, text};
use std::sync::Arc;

/// What a function computes. Two functions are the same if these and their result types are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Function {
    Kernel(Kernel),
    /// date_trunc and casts in a zone.
    Zoned(Kernel, Zone),
    DateBin(datetime::Interval, i64),
    AddInterval(datetime::Interval, Zone),
    /// The template is one that is known.
    ToChar(String, Zone),
    /// Numerics in any representation.
    NumericCompare(Compare),
    /// Bytes that sort as numerics do.
    NumericKey,
    /// Sum and count to PostgreSQL's text of the average.
    Average,
    /// A count and a value: the value, where the count is at most one.
    Single,
    /// In 76 digits.
    Squares,
    /// Of sum, sum of squares and count.
    Deviation(deviation::Deviation),
    Like {
        pattern: String,
        negated: bool,
    },
    ILike {
        pattern: String,
        negated: bool,
        usual: bool,
    },
    Regex {
        pattern: Parsed,
        negated: bool,
    },
}

/// A regular expression, made ready once: two are the same if their texts are.
#[derive(Debug, Clone)]
pub(super) struct Parsed {
    pub text: String,
    pub insensitive: bool,
    pub parsed: regexp::Pattern,
}

impl PartialEq for Parsed {
    fn eq(&self, other: &Self) -> bool {
        (&self.text, self.insensitive) == (&other.text, other.insensitive)
    }
}

impl Eq for Parsed {}

impl std::hash::Hash for Parsed {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (&self.text, self.insensitive).hash(state);
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct PgFunction {
    function: Function,
    returns: DataType,
    signature: Signature,
    /// See [`step_of`].
    step: Option<u64>,
}

/// Calls a kernel.
pub(super) fn call(function: Function, args: Vec<Expr>, returns: DataType) -> Expr {
    call_step(function, args, returns, None)
}

/// Calls a kernel, as a step of this name if there is one.
pub(super) fn call_step(function: Function, args: Vec<Expr>, returns: DataType, step: Option<u64>) -> Expr {
    let signature = Signature::any(args.len(), Volatility::Immutable);
    ScalarUDF::new_from_impl(PgFunction { function, returns, signature, step }).call(args)
}

/// The name of a step that may raise an error, of which an optimized plan must have lost none: steps that the analysis sees to be the same have
/// the same name.
pub(crate) fn step_of(function: &ScalarUDF) -> Option<u64> {
    function.inner().downcast_ref::<PgFunction>().and_then(|f| f.step)
}

impl ScalarUDFImpl for PgFunction {
    fn name(&self) -> &str {
        match &self.function {
            Function::Kernel(kernel) | Function::Zoned(kernel, _) => match kernel {
                Kernel::IntArith(_) => "pg_int_arith",
                Kernel::IntNegate => "pg_int_negate",
                Kernel::IntAbs => "pg_int_abs",
                Kernel::IntCast => "pg_int_cast",
                Kernel::NumericArith(_) => "pg_numeric_arith",
                Kernel::TextArith(_) => "pg_numeric_arith",
                Kernel::NumericDivide => "pg_numeric_divide",
                Kernel::NumericNegate => "pg_numeric_negate",
                Kernel::NumericAbs => "pg_numeric_abs",
                Kernel::NumericCast => "pg_numeric_cast",
                Kernel::NumericRound(_) => "pg_numeric_round",
                Kernel::DateTrunc(_) => "pg_date_trunc",
                Kernel::DateTruncTz(..) => "pg_date_trunc_tz",
                Kernel::TimestampTzToDate => "pg_timestamptz_date",
                Kernel::TimestampToDate => "pg_timestamp_date",
                Kernel::TextConcat => "pg_text_concat",
                Kernel::TextLength => "pg_text_length",
                Kernel::Scalar(_) => "pg_scalar",
                Kernel::ToText => "pg_to_text",
                Kernel::TextToInt => "pg_text_int",
                Kernel::Extract(_) | Kernel::EpochBetween => "pg_extract",
                Kernel::ToChar(_) => "pg_to_char",
                Kernel::JsonbElement { .. } => "pg_jsonb_element",
                Kernel::JsonbPath { .. } => "pg_jsonb_path",
                Kernel::NumericToText => "pg_numeric_text",
                Kernel::Rescale => "pg_rescale",
                Kernel::Extreme { .. } => "pg_extreme",
                Kernel::Key { .. } => "pg_key",
                Kernel::OnlyOne => "pg_only_one",
                Kernel::ILike { .. } => "pg_ilike",
                Kernel::Regex { .. } => "pg_regex",
                Kernel::ToLocal(_) => "pg_timestamp",
                Kernel::ToInstant(_) => "pg_timestamptz",
                Kernel::DateToTimestamp => "pg_date_timestamp",
                Kernel::AddInterval { .. } => "pg_add_interval",
                Kernel::AddDays { .. } => "pg_add_days",
                Kernel::DaysBetween => "pg_days_between",
                Kernel::DateTruncBy(_) => "pg_date_trunc",
                Kernel::Cut(..) | Kernel::CutQuotient(..) => "pg_cut",
                Kernel::Sign => "pg_sign",
                Kernel::NumericToInt => "pg_numeric_int",
                Kernel::FloatArith(_) | Kernel::Float(_) => "pg_float",
                Kernel::FloatToInt => "pg_float_int",
                Kernel::ToFloat => "pg_to_float",
                Kernel::FloatPlace => "pg_float_place",
                Kernel::EpochToInstant => "pg_to_timestamp",
                Kernel::TextToNumeric => "pg_text_numeric",
                Kernel::JsonbField { .. } => "pg_jsonb_field",
            },
            Function::ToChar(..) => "pg_to_char",
            Function::AddInterval(..) => "pg_add_interval",
            Function::DateBin(..) => "pg_date_bin",
            Function::NumericCompare(_) => "pg_numeric_compare",
            Function::NumericKey => "pg_numeric_key",
            Function::Average => "pg_average",
            Function::Single => "pg_single",
            Function::Squares => "pg_squares",
            Function::Deviation(_) => "pg_deviation",
            Function::Like { .. } => "pg_like",
            Function::ILike { .. } => "pg_ilike",
            Function::Regex { .. } => "pg_regex",
        }
    }

    /// The parameters of a kernel are no arguments: two calls that differ in them alone must not share a name.
    fn schema_name(&self, args: &[Expr]) -> datafusion::common::Result<String> {
        let parameters = match &self.function {
            Function::Regex { pattern, negated } => format!("{:?} {} {negated}", pattern.text, pattern.insensitive),
            other => format!("{other:?}"),
        };
        let args: Vec<String> = args.iter().map(|a| a.schema_name().to_string()).collect();
        Ok(format!("{}<{parameters} {:?}>({})", self.name(), self.returns, args.join(",")))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> datafusion::common::Result<DataType> {
        Ok(self.returns.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> datafusion::common::Result<ColumnarValue> {
        let constant = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let arrays = args
            .args
            .into_iter()
            .map(|a| a.into_array(rows))
            .collect::<datafusion::common::Result<Vec<_>>>()?;
        let result = compute(&self.function, &arrays, &self.returns)
            .map_err(|e| DataFusionError::External(Box::new(e)))?;
        if *result.data_type() != self.returns {
            return Err(DataFusionError::Internal(format!(
                "{} gave {} for {}",
                self.name(),
                result.data_type(),
                self.returns
            )));
        }
        if constant {
            Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?))
        } else {
            Ok(ColumnarValue::Array(result))
        }
    }
}

fn compute(
    function: &Function,
    args: &[ArrayRef],
    returns: &DataType,
) -> std::result::Result<ArrayRef, PgError> {
    let misused = || PgError::new("XX000", "a kernel with other arguments");
    let first = args.first().ok_or_else(misused)?;
    let second = || args.get(1).ok_or_else(misused);
    let decimal = || match returns {
        DataType::Decimal128(precision, scale) => Ok((*precision, *scale)),
        _ => Err(misused()),
    };
    let instants = || first.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(misused);
    match function {
        Function::Kernel(kernel) => match kernel {
            Kernel::IntArith(op) => arith::binary(int_op(*op), first, second()?),
            Kernel::IntNegate => arith::unary(UnaryOp::Negate, first),
            Kernel::IntAbs => arith::unary(UnaryOp::Abs, first),
            Kernel::IntCast => arith::cast(first, returns),
            Kernel::NumericArith(op) => {
                let op = match op {
                    Arith::Add => fixed::Op::Add,
                    Arith::Sub => fixed::Op::Subtract,
                    Arith::Mul => fixed::Op::Multiply,
                    Arith::Mod => fixed::Op::Modulo,
                    Arith::Div => return Err(misused()),
                };
                fixed::binary(op, first, second()?, decimal()?)
            }
            Kernel::TextArith(op) => numeric::arith(int_op(*op), first, second()?),
            Kernel::NumericDivide => numeric::divide(first, second()?),
            Kernel::NumericNegate => fixed::negate(first),
            Kernel::NumericAbs => fixed::abs(first),
            Kernel::NumericCast => fixed::cast(first, decimal()?),
            Kernel::NumericRound(digits) => match returns {
                DataType::Decimal128(precision, scale) => fixed::round(first, *digits, (*precision, *scale)),
                _ => fixed::round_texts(first, *digits),
            },
            Kernel::DateTrunc(unit) => Ok(Arc::new(datetime::date_trunc_timestamp(*unit, instants()?)?)),
            Kernel::TimestampToDate => Ok(dates(first.as_primitive_opt().ok_or_else(misused)?)),
            Kernel::TextConcat => text::concat(first, second()?),
            Kernel::TextLength => text::length(first),
            Kernel::Scalar(scalar) => pgexact::scalar::compute(*scalar, args, returns),
            Kernel::TextToInt => cast::text_to_int(first, returns),
            Kernel::JsonbElement { index, as_text } => text::jsonb_element(first, *index, *as_text),
            Kernel::JsonbPath { path, as_text } => text::jsonb_path(first, path, *as_text),
            Kernel::NumericToText => numeric::to_text(first),
            Kernel::Rescale => numeric::rescale(first, second()?, args.get(2).map(|a| a.as_ref())),
            Kernel::Extreme { greatest } => extreme::extreme(*greatest, args),
            Kernel::OnlyOne => match counts(first)?.iter().flatten().any(|n| n > 1) {
                true => Err(PgError::not_exact("several rows for one value")),
                false => Ok(second()?.clone()),
            },
            Kernel::Key { orders, skipped, .. } => ordered::keys(orders, *skipped, args),
            Kernel::EpochBetween => extract::epoch_between(first, second()?, returns),
            Kernel::DateToTimestamp => Ok(Arc::new(interval::date_to_timestamp(first)?)),
            Kernel::AddDays { subtract } => interval::add_days(first, second()?, *subtract),
            Kernel::DaysBetween => interval::days_between(first, second()?),
            Kernel::Cut(kind, digits) => cut::cut(*kind, first, *digits, returns),
            Kernel::CutQuotient(kind, digits) => cut::cut_quotient(*kind, first, second()?, *digits, returns),
            Kernel::Sign => cut::sign(first, returns),
            Kernel::NumericToInt => cut::to_int(first, returns),
            Kernel::FloatArith(op) => real::binary(int_op(*op), first, second()?),
            Kernel::Float(function) => real::unary(*function, first),
            Kernel::FloatToInt => real::to_int(first, returns),
            Kernel::ToFloat => real::from_number(first),
            Kernel::FloatPlace => real::order::places(first),
            Kernel::EpochToInstant => real::to_timestamp(first),
            Kernel::TextToNumeric => cast::text_to_numeric(first),
            Kernel::JsonbField { key, as_text } => text::jsonb_field(first, key, *as_text),
            Kernel::DateTruncTz(..)
            | Kernel::DateTruncBy(_)
            | Kernel::TimestampTzToDate
            | Kernel::ToText
            | Kernel::Extract(_)
            | Kernel::ToChar(_)
            | Kernel::ILike { .. }
            | Kernel::Regex { .. }
            | Kernel::ToLocal(_)
            | Kernel::ToInstant(_)
            | Kernel::AddInterval { .. } => Err(misused()),
        },
        Function::Zoned(Kernel::DateTruncTz(unit, _), zone) => {
            Ok(Arc::new(datetime::date_trunc_timestamptz(*unit, instants()?, zone)?))
        }
        Function::Zoned(Kernel::TimestampTzToDate, zone) => {
            Ok(dates(&datetime::timestamptz_to_timestamp(instants()?, zone)?))
        }
        Function::Zoned(Kernel::ToText, zone) => cast::to_text(first, zone),
        Function::Zoned(Kernel::Extract(field), zone) => extract::extract(*field, first, zone, returns),
        Function::Zoned(Kernel::ToLocal(_), zone) => {
            Ok(Arc::new(datetime::timestamptz_to_timestamp(instants()?, zone)?))
        }
        Function::Zoned(Kernel::ToInstant(_), zone) => {
            Ok(Arc::new(datetime::timestamp_to_timestamptz(instants()?, zone)?))
        }
        Function::Zoned(..) => Err(misused()),
        Function::AddInterval(span, zone) => interval::add(instants()?, *span, zone),
        Function::ToChar(template, zone) => {
            let template = tochar::Template::parse(template).ok_or_else(misused)?;
            tochar::to_char(instants()?, &template, zone)
        }
        Function::DateBin(stride, origin) => Ok(Arc::new(datetime::date_bin(*stride, instants()?, *origin)?)),
        Function::NumericCompare(compare) => {
            let op = match compare {
                Compare::Eq => numeric::Comparison::Eq,
                Compare::Ne => numeric::Comparison::NotEq,
                Compare::Lt => numeric::Comparison::Lt,
                Compare::Le => numeric::Comparison::LtEq,
                Compare::Gt => numeric::Comparison::Gt,
                Compare::Ge => numeric::Comparison::GtEq,
            };
            Ok(Arc::new(numeric::compare(op, first, second()?)?))
        }
        Function::NumericKey => numeric::sort_keys(first),
        Function::Average => numeric::average(first, second()?),
        Function::Single => {
            match counts(first)?.iter().flatten().any(|n| n > 1) {
                true => Err(PgError::new("21000", "more than one row returned by a subquery used as an expression")),
                false => Ok(second()?.clone()),
            }
        }
        Function::Squares => deviation::squares(first, returns),
        Function::Deviation(kind) => {
            deviation::finish(*kind, first, second()?, args.get(2).ok_or_else(misused)?)
        }
        Function::ILike { pattern, negated, usual } => {
            Ok(Arc::new(like::ilike(first, pattern, *negated, *usual)?))
        }
        Function::Regex { pattern, negated } => Ok(Arc::new(regexp::matches(first, &pattern.parsed, *negated)?)),
        Function::Like { pattern, negated } => {
            Ok(Arc::new(like::like(first, &like::Pattern::new(pattern), *negated)?))
        }
    }
}

fn counts(array: &ArrayRef) -> std::result::Result<&Int64Array, PgError> {
    array.as_primitive_opt::<Int64Type>().ok_or_else(|| PgError::new("XX000", "a count that is none"))
}

fn int_op(op: Arith) -> BinaryOp {
    match op {
        Arith::Add => BinaryOp::Add,
        Arith::Sub => BinaryOp::Subtract,
        Arith::Mul => BinaryOp::Multiply,
        Arith::Div => BinaryOp::Divide,
        Arith::Mod => BinaryOp::Modulo,
    }
}

/// The days of local times; infinities stay infinite.
fn dates(local: &datafusion::arrow::array::TimestampMicrosecondArray) -> ArrayRef {
    let day = |us: i64| match us {
        i64::MAX => i32::MAX,
        i64::MIN => i32::MIN,
        // A timestamp's days fit 32 bits many times over.
        finite => finite.div_euclid(lake::types::DAY_MICROS) as i32,
    };
    let days: Date32Array = local.unary(day);
    Arc::new(days)
}

/// An interval for `date_bin`.
pub(super) fn interval_of(value: &super::Value) -> Result<datetime::Interval> {
    match value {
        super::Value::Interval { months, days, micros } => {
            Ok(datetime::Interval { months: *months, days: *days, microseconds: *micros })
        }
        _ => Err(PlanError::Internal("a stride that is no interval".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::lost_a_step;
    use datafusion::arrow::datatypes::{Field, Schema};
    use datafusion::logical_expr::{LogicalPlanBuilder, col, lit, table_scan};
    use datafusion::prelude::SessionContext;

    #[test]
    fn steps_that_the_optimizer_drops_are_missed() {
        let rows = || table_scan(Some("t"), &Schema::new(vec![Field::new("n", DataType::Int64, true)]), None).unwrap();
        let step = |name| call_step(Function::Kernel(Kernel::IntNegate), vec![col("n")], DataType::Int64, Some(name));
        let lost = |builder: LogicalPlanBuilder| {
            let plan = builder.build().unwrap();
            lost_a_step(&plan, &SessionContext::new().state().optimize(&plan).unwrap()).unwrap()
        };
        assert!(!lost(rows().filter(col("n").gt(lit(1i64))).unwrap()));
        assert!(!lost(rows().filter(col("n").gt(lit(1i64))).unwrap().project([step(1).alias("a"), step(1).alias("b")]).unwrap()));
        assert!(!lost(rows().filter(step(1).gt(lit(1i64)).and(step(2).lt(lit(9i64)))).unwrap()));
        assert!(lost(rows().filter(lit(false)).unwrap().project([step(1).alias("a")]).unwrap()));
        assert!(lost(rows().filter(step(1).in_list(vec![lit(ScalarValue::Int64(None))], false)).unwrap()));
        let unread = rows().project([step(1).alias("a"), step(2).alias("b")]).unwrap().project([col("b")]).unwrap();
        assert!(lost(unread));
    }
}
