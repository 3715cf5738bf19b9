//! `sum` and `avg` over numerics of any scale: `NumericAggState` of PostgreSQL's `numeric.c`. A sum is shown at the largest scale that was
//! summed. ✗ groups.

use arrow::datatypes::i256;

use super::{Decimal, Numeric, divide_text};
use crate::PgError;
use crate::scalar::misused;

/// What was summed so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Total {
    sum: i256,
    scale: usize,
    rows: i64,
    nans: bool,
    infinite: bool,
    minus_infinite: bool,
}

fn wide() -> PgError {
    PgError::not_exact("a sum of numerics beyond 76 digits")
}

/// The mantissa at a larger scale.
fn grown(value: i256, by: usize) -> Result<i256, PgError> {
    if value == i256::ZERO {
        return Ok(value);
    }
    let power = u32::try_from(by).ok().filter(|by| *by <= 76).ok_or_else(wide)?;
    let power = i256::from_i128(10).checked_pow(power).ok_or_else(wide)?;
    value.checked_mul(power).ok_or_else(wide)
}

impl Total {
    pub fn add(&mut self, value: &Numeric) -> Result<(), PgError> {
        match value {
            Numeric::NaN => self.nans = true,
            Numeric::Infinity => self.infinite = true,
            Numeric::NegInfinity => self.minus_infinite = true,
            Numeric::Finite(decimal) => {
                self.put(decimal.to_i256().ok_or_else(wide)?, decimal.scale)?;
                self.rows += 1;
            }
        }
        Ok(())
    }

    fn put(&mut self, value: i256, scale: usize) -> Result<(), PgError> {
        let shown = self.scale.max(scale);
        let (sum, value) = (grown(self.sum, shown - self.scale)?, grown(value, shown - scale)?);
        self.sum = sum.checked_add(value).ok_or_else(wide)?;
        self.scale = shown;
        Ok(())
    }

    /// As bytes, for [`Self::merge`].
    pub fn state(&self) -> Vec<u8> {
        let flags = u8::from(self.nans) | u8::from(self.infinite) << 1 | u8::from(self.minus_infinite) << 2;
        let mut out = vec![flags];
        out.extend(self.rows.to_le_bytes());
        out.extend((self.scale as u64).to_le_bytes());
        out.extend(self.sum.to_le_bytes());
        out
    }

    pub fn merge(&mut self, state: &[u8]) -> Result<(), PgError> {
        let Some((flags, rest)) = state.split_first() else { return Err(misused()) };
        let Some((rows, rest)) = rest.split_first_chunk::<8>() else { return Err(misused()) };
        let Some((scale, rest)) = rest.split_first_chunk::<8>() else { return Err(misused()) };
        let sum = rest.try_into().map_err(|_| misused())?;
        self.nans |= flags & 1 != 0;
        self.infinite |= flags & 2 != 0;
        self.minus_infinite |= flags & 4 != 0;
        self.rows += i64::from_le_bytes(*rows);
        self.put(i256::from_le_bytes(sum), u64::from_le_bytes(*scale) as usize)
    }

    /// The sum or the average as PostgreSQL's text; None of no values.
    pub fn finish(&self, average: bool) -> Result<Option<String>, PgError> {
        let special = self.nans || self.infinite || self.minus_infinite;
        if self.rows == 0 && !special {
            return Ok(None);
        }
        Ok(Some(match (self.infinite, self.minus_infinite) {
            _ if self.nans => Numeric::NaN.to_string(),
            (true, true) => Numeric::NaN.to_string(),
            (true, false) => Numeric::Infinity.to_string(),
            (false, true) => Numeric::NegInfinity.to_string(),
            (false, false) => {
                // Scales of what fits 76 digits may still be larger: of zeros.
                let sum = Decimal::from_i256(self.sum, u16::try_from(self.scale).map_err(|_| wide())?);
                match (average, u8::try_from(self.scale)) {
                    (false, _) => sum.to_string(),
                    (true, Ok(scale)) => divide_text(self.sum, scale, i256::from_i128(self.rows.into()), 0)?,
                    (true, Err(_)) => sum.divide(&Decimal::from_i128(self.rows.into(), 0))?.to_string(),
                }
            }
        }))
    }
}
