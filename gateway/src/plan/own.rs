//! Aggregates of `pgexact` as DataFusion's: those that see a group's values in an order, and sums of numerics of any scale. The memory that
//! they hold is counted; a group beyond its bound is an error that gives the statement back to PostgreSQL. ✗ computing anything.

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Expr, Signature, Volatility};
use pgexact::PgError;
use pgexact::numeric::{Numeric, Total};
use pgexact::ordered::{Collected, Finish, Layout};
use std::sync::Arc;

/// What an aggregate computes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Own {
    /// Of keys.
    Ordered { layout: Layout, finish: Finish, distinct: bool },
    /// The sum or average of numerics as text.
    Total { average: bool },
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct PgAggregate {
    own: Own,
    returns: DataType,
    signature: Signature,
}

/// A call over `arg`, of the rows that `filter` keeps.
pub(super) fn call(own: Own, arg: Expr, filter: Option<Box<Expr>>, returns: DataType) -> Expr {
    let signature = Signature::any(1, Volatility::Immutable);
    let function = Arc::new(AggregateUDF::new_from_impl(PgAggregate { own, returns, signature }));
    Expr::AggregateFunction(AggregateFunction::new_udf(function, vec![arg], false, filter, vec![], None))
}

impl AggregateUDFImpl for PgAggregate {
    fn name(&self) -> &str {
        match self.own {
            Own::Ordered { .. } => "pg_ordered",
            Own::Total { .. } => "pg_total",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.returns.clone())
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(match &self.own {
            Own::Ordered { layout, finish, distinct } => Box::new(Ordered {
                collected: Collected::default(),
                layout: layout.clone(),
                finish: finish.clone(),
                distinct: *distinct,
                returns: self.returns.clone(),
            }),
            Own::Total { average } => Box::new(Totals { total: Total::default(), average: *average }),
        })
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format_state_name(args.name, "state"), DataType::LargeBinary, true))])
    }
}

fn failed(e: PgError) -> DataFusionError {
    DataFusionError::External(Box::new(e))
}

fn misused() -> DataFusionError {
    DataFusionError::Internal("an aggregate over another type".into())
}

fn states(arrays: &[ArrayRef]) -> Result<impl Iterator<Item = &[u8]>> {
    let states = arrays.first().and_then(|a| a.as_binary_opt::<i64>()).ok_or_else(misused)?;
    Ok(states.iter().flatten())
}

#[derive(Debug)]
struct Ordered {
    collected: Collected,
    layout: Layout,
    finish: Finish,
    distinct: bool,
    returns: DataType,
}

impl Accumulator for Ordered {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let keys = values.first().and_then(|a| a.as_binary_view_opt()).ok_or_else(misused)?;
        for key in keys.iter().flatten() {
            self.collected.add(key, self.distinct).map_err(failed)?;
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let value = self.collected.finish(&self.layout, &self.finish, self.distinct).map_err(failed)?;
        match *value.data_type() == self.returns {
            true => ScalarValue::try_from_array(&value, 0),
            false => Err(misused()),
        }
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.collected.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::LargeBinary(Some(self.collected.state().to_vec()))])
    }

    fn merge_batch(&mut self, arrays: &[ArrayRef]) -> Result<()> {
        states(arrays)?.try_for_each(|state| self.collected.merge(state, self.distinct).map_err(failed))
    }
}

#[derive(Debug)]
struct Totals {
    total: Total,
    average: bool,
}

impl Accumulator for Totals {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let texts = values.first().and_then(|a| a.as_string_view_opt()).ok_or_else(misused)?;
        for text in texts.iter().flatten() {
            let value: Numeric = text.parse().map_err(failed)?;
            self.total.add(&value).map_err(failed)?;
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Utf8View(self.total.finish(self.average).map_err(failed)?))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::LargeBinary(Some(self.total.state()))])
    }

    fn merge_batch(&mut self, arrays: &[ArrayRef]) -> Result<()> {
        states(arrays)?.try_for_each(|state| self.total.merge(state).map_err(failed))
    }
}
