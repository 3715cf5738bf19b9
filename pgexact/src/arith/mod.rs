//! Checked integer arithmetic with PostgreSQL's widths and errors.
//!
//! Knows smallint, integer and bigint operators. Operands have one type: the planner widens them first,
//! as the operator PostgreSQL chose says. Rows where an operand is NULL are NULL and never raise.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::compute::{try_binary, try_unary};
use arrow::datatypes::{DataType, Int16Type, Int32Type, Int64Type};
use arrow::error::ArrowError;

use crate::PgError;

#[cfg(test)]
mod tests;

/// A binary operator on two integers of one width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    Add,
    Subtract,
    Multiply,
    /// Truncates toward zero.
    Divide,
    /// Takes the sign of the dividend.
    Modulo,
}

/// A unary operator or function on an integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnaryOp {
    Negate,
    Abs,
}

/// An integer type's checked operations.
pub trait Integer: Copy {
    /// PostgreSQL's name of the type, as its errors say it.
    const NAME: &'static str;
    fn binary(self, op: BinaryOp, other: Self) -> Result<Self, PgError>;
    fn unary(self, op: UnaryOp) -> Result<Self, PgError>;
}

macro_rules! integer {
    ($native:ty, $name:literal) => {
        impl Integer for $native {
            const NAME: &'static str = $name;

            #[inline]
            fn binary(self, op: BinaryOp, other: Self) -> Result<Self, PgError> {
                let result = match op {
                    BinaryOp::Add => self.checked_add(other),
                    BinaryOp::Subtract => self.checked_sub(other),
                    BinaryOp::Multiply => self.checked_mul(other),
                    BinaryOp::Divide | BinaryOp::Modulo if other == 0 => {
                        return Err(PgError::division_by_zero());
                    }
                    BinaryOp::Divide => self.checked_div(other),
                    // The smallest value modulo -1 is 0, though its quotient overflows.
                    BinaryOp::Modulo => Some(self.wrapping_rem(other)),
                };
                result.ok_or_else(out_of_range::<Self>)
            }

            #[inline]
            fn unary(self, op: UnaryOp) -> Result<Self, PgError> {
                match op {
                    UnaryOp::Negate => self.checked_neg(),
                    UnaryOp::Abs => self.checked_abs(),
                }
                .ok_or_else(out_of_range::<Self>)
            }
        }
    };
}
integer!(i16, "smallint");
integer!(i32, "integer");
integer!(i64, "bigint");

#[cold]
fn out_of_range<T: Integer>() -> PgError {
    PgError::new("22003", format!("{} out of range", T::NAME))
}

/// Carries a [`PgError`] through Arrow's kernels, which want their own error type.
fn wrap(e: PgError) -> ArrowError {
    ArrowError::ExternalError(Box::new(e))
}

fn unwrap(e: ArrowError) -> PgError {
    match e {
        ArrowError::ExternalError(e) => match e.downcast::<PgError>() {
            Ok(e) => *e,
            Err(e) => PgError::not_exact(e.to_string()),
        },
        e => PgError::not_exact(e.to_string()),
    }
}

fn binary_typed<T>(op: BinaryOp, a: &dyn Array, b: &dyn Array) -> Result<ArrayRef, PgError>
where
    T: ArrowPrimitiveType,
    T::Native: Integer,
{
    let (a, b) = (a.as_primitive::<T>(), b.as_primitive::<T>());
    let result: PrimitiveArray<T> = match (a.len(), b.len()) {
        (n, 1) if n != 1 => {
            if b.is_null(0) {
                PrimitiveArray::new_null(n)
            } else {
                let y = b.value(0);
                try_unary(a, |x| x.binary(op, y).map_err(wrap)).map_err(unwrap)?
            }
        }
        (1, n) if n != 1 => {
            if a.is_null(0) {
                PrimitiveArray::new_null(n)
            } else {
                let x = a.value(0);
                try_unary(b, |y| x.binary(op, y).map_err(wrap)).map_err(unwrap)?
            }
        }
        _ => try_binary(a, b, |x, y| x.binary(op, y).map_err(wrap)).map_err(unwrap)?,
    };
    Ok(Arc::new(result))
}

/// `a op b` over two Int16, Int32 or Int64 arrays of the same type; an array of one row is a constant.
/// 22003 "… out of range", 22012 "division by zero", [`PgError::not_exact`] for other types.
pub fn binary(op: BinaryOp, a: &dyn Array, b: &dyn Array) -> Result<ArrayRef, PgError> {
    match (a.data_type(), b.data_type()) {
        (DataType::Int16, DataType::Int16) => binary_typed::<Int16Type>(op, a, b),
        (DataType::Int32, DataType::Int32) => binary_typed::<Int32Type>(op, a, b),
        (DataType::Int64, DataType::Int64) => binary_typed::<Int64Type>(op, a, b),
        (a, b) => Err(PgError::not_exact(format!("no integer operator for {a} and {b}"))),
    }
}

fn unary_typed<T>(op: UnaryOp, a: &dyn Array) -> Result<ArrayRef, PgError>
where
    T: ArrowPrimitiveType,
    T::Native: Integer,
{
    let result: PrimitiveArray<T> =
        try_unary(a.as_primitive::<T>(), |x| x.unary(op).map_err(wrap)).map_err(unwrap)?;
    Ok(Arc::new(result))
}

/// `- a` or `abs(a)` over an Int16, Int32 or Int64 array. 22003 for the smallest value.
pub fn unary(op: UnaryOp, a: &dyn Array) -> Result<ArrayRef, PgError> {
    match a.data_type() {
        DataType::Int16 => unary_typed::<Int16Type>(op, a),
        DataType::Int32 => unary_typed::<Int32Type>(op, a),
        DataType::Int64 => unary_typed::<Int64Type>(op, a),
        other => Err(PgError::not_exact(format!("no integer operator for {other}"))),
    }
}

fn narrow_typed<F, T>(a: &dyn Array) -> Result<ArrayRef, PgError>
where
    F: ArrowPrimitiveType,
    T: ArrowPrimitiveType,
    F::Native: Into<i64>,
    T::Native: TryFrom<i64> + Integer,
{
    let result: PrimitiveArray<T> = try_unary(a.as_primitive::<F>(), |x| {
        T::Native::try_from(x.into()).map_err(|_| wrap(out_of_range::<T::Native>()))
    })
    .map_err(unwrap)?;
    Ok(Arc::new(result))
}

/// Integer casts in either direction, as `int8::int4` and the like. 22003 if a value does not fit.
pub fn cast(a: &dyn Array, to: &DataType) -> Result<ArrayRef, PgError> {
    use DataType::{Int16, Int32, Int64};
    match (a.data_type(), to) {
        (Int16, Int16) => narrow_typed::<Int16Type, Int16Type>(a),
        (Int16, Int32) => narrow_typed::<Int16Type, Int32Type>(a),
        (Int16, Int64) => narrow_typed::<Int16Type, Int64Type>(a),
        (Int32, Int16) => narrow_typed::<Int32Type, Int16Type>(a),
        (Int32, Int32) => narrow_typed::<Int32Type, Int32Type>(a),
        (Int32, Int64) => narrow_typed::<Int32Type, Int64Type>(a),
        (Int64, Int16) => narrow_typed::<Int64Type, Int16Type>(a),
        (Int64, Int32) => narrow_typed::<Int64Type, Int32Type>(a),
        (Int64, Int64) => narrow_typed::<Int64Type, Int64Type>(a),
        (from, to) => Err(PgError::not_exact(format!("no integer cast from {from} to {to}"))),
    }
}
