//! Functions of one row's values that need no more than the values: strings, bits, hashes. Each is a small pure function with the place in
//! PostgreSQL's source that it follows; [`compute`] walks arrays with them. Knows Arrow arrays. ✗ time zones, collations, plans.
//!
//! All are strict (NULL if any argument is) but `concat` and `concat_ws`.

mod bits;
mod case;
mod columns;
mod md5;
mod strings;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;

use crate::PgError;
pub(crate) use columns::{Column, Output};

/// A function. Arguments and results are those of PostgreSQL's signatures; text is `Utf8View`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scalar {
    OctetLength,
    BitLength,
    Ascii,
    Left,
    Right,
    /// `substr(text, from [, for])`
    Substr,
    /// `position(text, needle)`, `strpos`
    Position,
    BTrim,
    LTrim,
    RTrim,
    LPad,
    RPad,
    Repeat,
    Reverse,
    Replace,
    Translate,
    SplitPart,
    StartsWith,
    Md5,
    /// Of the ASCII letters alone, as under the collation C.
    LowerC,
    UpperC,
    /// Of texts that are ASCII; others are refused.
    LowerAscii,
    UpperAscii,
    Concat,
    ConcatWs,
    BitAnd,
    BitOr,
    BitXor,
    BitNot,
    ShiftLeft,
    ShiftRight,
    /// bool to text
    BoolText,
    /// bool to int4
    BoolInt,
    /// int4 to bool
    IntBool,
}

/// Bytes that the texts of one result may have: beyond, the statement is PostgreSQL's.
pub(crate) const MAX_BYTES: usize = 256 << 20;

/// The function over rows of arguments, as an array of `returns`.
///
/// # Errors
/// PostgreSQL's where it raises one; [`PgError::not_exact`] for arguments of other types and for values that are not computed here.
pub fn compute(function: Scalar, args: &[ArrayRef], returns: &DataType) -> Result<ArrayRef, PgError> {
    use Scalar::*;
    let rows = args.first().map_or(0, |a| a.len());
    let columns = args.iter().map(|a| Column::of(a)).collect::<Result<Vec<_>, _>>()?;
    let mut out = Output::new(returns, rows)?;
    if matches!(function, Concat | ConcatWs) {
        for row in 0..rows {
            out.text(strings::joined(function == ConcatWs, &columns, row)?)?;
        }
        return Ok(out.finish());
    }
    let text = |column: usize, row: usize| columns.get(column).ok_or_else(misused)?.text(row);
    let int = |column: usize, row: usize| columns.get(column).ok_or_else(misused)?.int(row);
    let mut spare = String::new();
    for row in 0..rows {
        if args.iter().any(|a| a.is_null(row)) {
            out.null();
            continue;
        }
        let three = columns.len() > 2;
        match function {
            OctetLength => out.int(text(0, row)?.len() as i64)?,
            BitLength => out.int(8 * text(0, row)?.len() as i64)?,
            Ascii => out.int(text(0, row)?.chars().next().map_or(0, |c| i64::from(u32::from(c))))?,
            Left => out.text(Some(strings::left(text(0, row)?, int(1, row)?).into()))?,
            Right => out.text(Some(strings::right(text(0, row)?, int(1, row)?).into()))?,
            Substr => {
                let length = if three { Some(int(2, row)?) } else { None };
                out.text(Some(strings::substr(text(0, row)?, int(1, row)?, length)?.into()))?;
            }
            Position => out.int(strings::position(text(0, row)?, text(1, row)?))?,
            BTrim | LTrim | RTrim => {
                let set = if columns.len() > 1 { text(1, row)? } else { " " };
                let (left, right) = (function != RTrim, function != LTrim);
                out.text(Some(strings::trim(text(0, row)?, set, left, right).into()))?;
            }
            LPad | RPad => {
                let fill = if three { text(2, row)? } else { " " };
                spare.clear();
                strings::pad(text(0, row)?, int(1, row)?, fill, function == LPad, &mut spare)?;
                out.text(Some(Cow::Borrowed(spare.as_str())))?;
            }
            Repeat => {
                spare.clear();
                strings::repeat(text(0, row)?, int(1, row)?, &mut spare)?;
                out.text(Some(Cow::Borrowed(spare.as_str())))?;
            }
            Reverse => out.text(Some(text(0, row)?.chars().rev().collect::<String>().into()))?,
            Replace => out.text(Some(strings::replace(text(0, row)?, text(1, row)?, text(2, row)?)?))?,
            Translate => {
                out.text(Some(strings::translate(text(0, row)?, text(1, row)?, text(2, row)?).into()))?
            }
            SplitPart => {
                out.text(Some(strings::split_part(text(0, row)?, text(1, row)?, int(2, row)?)?.into()))?
            }
            StartsWith => out.bool(text(0, row)?.starts_with(text(1, row)?))?,
            Md5 => out.text(Some(md5::hex(text(0, row)?.as_bytes()).into()))?,
            LowerC => out.text(Some(text(0, row)?.to_ascii_lowercase().into()))?,
            UpperC => out.text(Some(text(0, row)?.to_ascii_uppercase().into()))?,
            LowerAscii => out.text(Some(case::ascii(text(0, row)?)?.to_ascii_lowercase().into()))?,
            UpperAscii => out.text(Some(case::ascii(text(0, row)?)?.to_ascii_uppercase().into()))?,
            Concat | ConcatWs => return Err(misused()),
            BitAnd => out.int(int(0, row)? & int(1, row)?)?,
            BitOr => out.int(int(0, row)? | int(1, row)?)?,
            BitXor => out.int(int(0, row)? ^ int(1, row)?)?,
            BitNot => out.int(!int(0, row)?)?,
            ShiftLeft | ShiftRight => {
                let width = bits::width(args[0].data_type()).ok_or_else(misused)?;
                out.int(bits::shift(int(0, row)?, int(1, row)?, width, function == ShiftLeft)?)?;
            }
            BoolText => out.text(Some(if columns[0].bool(row)? { "true" } else { "false" }.into()))?,
            BoolInt => out.int(i64::from(columns[0].bool(row)?))?,
            IntBool => out.bool(int(0, row)? != 0)?,
        }
    }
    Ok(out.finish())
}

pub(crate) fn misused() -> PgError {
    PgError::not_exact("a kernel with other arguments")
}
