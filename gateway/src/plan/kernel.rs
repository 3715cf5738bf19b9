//! The kernels of `pgexact` as DataFusion functions. Knows how arguments and results travel; computes nothing. ✗ planning.

use super::{PlanError, Result};
use crate::analyze::ir::{Arith, Compare, Kernel};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, Date32Array};
use datafusion::arrow::datatypes::{DataType, TimestampMicrosecondType};
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use pgexact::arith::{BinaryOp, UnaryOp};
use pgexact::{PgError, Zone, arith, datetime, fixed, like, numeric, text};
use std::sync::Arc;

/// What a function computes. Two functions are the same if these and their result types are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Function {
    Kernel(Kernel),
    /// date_trunc and casts in a zone.
    Zoned(Kernel, Zone),
    DateBin(datetime::Interval, i64),
    /// Numerics in any representation.
    NumericCompare(Compare),
    /// Bytes that sort as numerics do.
    NumericKey,
    /// Sum and count to PostgreSQL's text of the average.
    Average,
    Like {
        pattern: String,
        negated: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct PgFunction {
    function: Function,
    returns: DataType,
    signature: Signature,
}

/// Calls a kernel.
pub(super) fn call(function: Function, args: Vec<Expr>, returns: DataType) -> Expr {
    let signature = Signature::any(args.len(), Volatility::Immutable);
    ScalarUDF::new_from_impl(PgFunction { function, returns, signature }).call(args)
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
                Kernel::JsonbField { .. } => "pg_jsonb_field",
            },
            Function::DateBin(..) => "pg_date_bin",
            Function::NumericCompare(_) => "pg_numeric_compare",
            Function::NumericKey => "pg_numeric_key",
            Function::Average => "pg_average",
            Function::Like { .. } => "pg_like",
        }
    }

    /// The parameters of a kernel are no arguments: two calls that differ in them alone must not share a name.
    fn schema_name(&self, args: &[Expr]) -> datafusion::common::Result<String> {
        let args: Vec<String> = args.iter().map(|a| a.schema_name().to_string()).collect();
        Ok(format!("{}<{:?} {:?}>({})", self.name(), self.function, self.returns, args.join(",")))
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
            Kernel::JsonbField { key, as_text } => text::jsonb_field(first, key, *as_text),
            Kernel::DateTruncTz(..) | Kernel::TimestampTzToDate => Err(misused()),
        },
        Function::Zoned(Kernel::DateTruncTz(unit, _), zone) => {
            Ok(Arc::new(datetime::date_trunc_timestamptz(*unit, instants()?, zone)?))
        }
        Function::Zoned(Kernel::TimestampTzToDate, zone) => {
            Ok(dates(&datetime::timestamptz_to_timestamp(instants()?, zone)?))
        }
        Function::Zoned(..) => Err(misused()),
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
        Function::Like { pattern, negated } => {
            Ok(Arc::new(like::like(first, &like::Pattern::new(pattern), *negated)?))
        }
    }
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
pub(super) fn interval(value: &super::Value) -> Result<datetime::Interval> {
    match value {
        super::Value::Interval { months, days, micros } => {
            Ok(datetime::Interval { months: *months, days: *days, microseconds: *micros })
        }
        _ => Err(PlanError::Internal("a stride that is no interval".into())),
    }
}
