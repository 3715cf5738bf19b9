//! PostgreSQL's `numeric`: exact division and average, text, wire format and order.
//!
//! Knows decimals of any size as sign, decimal digits and display scale, and Arrow's Decimal128,
//! Decimal256 and text arrays. Does not know which expressions produce them.
//!
//! The scale of a quotient follows `select_div_scale` of PostgreSQL's `numeric.c`: at least 16
//! significant digits, at least the scales of both operands, at most 1000 digits after the point.

mod array;
mod big;
mod total;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use arrow::datatypes::i256;

use crate::PgError;
use crate::arith::BinaryOp;
pub use total::Total;
pub use array::{Comparison, arith, average, compare, divide, rescale, sort_keys, to_decimal256, to_text};

/// Significant digits a quotient has at least (`NUMERIC_MIN_SIG_DIGITS`).
const MIN_SIGNIFICANT: i64 = 16;
/// Digits after the point a numeric has at most (`NUMERIC_MAX_DISPLAY_SCALE`).
const MAX_DISPLAY_SCALE: i64 = 1000;
/// The largest scale stored in the wire format.
const MAX_WIRE_SCALE: usize = 0x3fff;

/// One numeric value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Numeric {
    NegInfinity,
    Finite(Decimal),
    Infinity,
    NaN,
}

/// A finite numeric: `digits` × 10^-`scale`, printed with exactly `scale` digits after the point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decimal {
    /// Never set for zero.
    negative: bool,
    /// Decimal digits 0-9, most significant first, without leading zeros; empty for zero.
    digits: Vec<u8>,
    scale: usize,
}

impl Decimal {
    pub fn from_i128(mantissa: i128, scale: u16) -> Self {
        Self::from_parts(
            mantissa < 0,
            itoa::Buffer::new().format(mantissa.unsigned_abs()).as_bytes(),
            scale.into(),
        )
    }

    pub fn from_i256(mantissa: i256, scale: u16) -> Self {
        let text = mantissa.to_string();
        let digits = text.strip_prefix('-').unwrap_or(&text);
        Self::from_parts(text.starts_with('-'), digits.as_bytes(), scale.into())
    }

    /// From ASCII digits.
    fn from_parts(negative: bool, ascii: &[u8], scale: usize) -> Self {
        let start = ascii.iter().position(|&d| d != b'0').unwrap_or(ascii.len());
        let digits: Vec<u8> = ascii[start..].iter().map(|d| d - b'0').collect();
        Self { negative: negative && !digits.is_empty(), digits, scale }
    }

    pub fn is_zero(&self) -> bool {
        self.digits.is_empty()
    }

    /// The digits without the point, of a value that is not negative.
    pub(crate) fn mantissa_text(&self) -> String {
        match self.digits.is_empty() {
            true => "0".into(),
            false => self.digits.iter().map(|d| char::from(b'0' + d)).collect(),
        }
    }

    /// Digits after the decimal point.
    pub fn scale(&self) -> usize {
        self.scale
    }

    /// Power of ten of the first significant digit; meaningless for zero.
    fn exponent(&self) -> i64 {
        self.digits.len() as i64 - 1 - self.scale as i64
    }

    /// PostgreSQL's normalized weight and first digit, both in base 10000; 0 and 0 for zero.
    fn weight_and_first(&self) -> (i64, u32) {
        if self.is_zero() {
            return (0, 0);
        }
        let weight = self.exponent().div_euclid(4);
        let leading = (self.exponent() - 4 * weight + 1) as usize;
        let first = (0..leading).fold(0, |n, i| n * 10 + u32::from(self.digits.get(i).copied().unwrap_or(0)));
        (weight, first)
    }

    /// `self / divisor` as PostgreSQL computes it. 22012 if the divisor is zero.
    pub fn divide(&self, divisor: &Decimal) -> Result<Decimal, PgError> {
        if divisor.is_zero() {
            return Err(PgError::division_by_zero());
        }
        let (weight, first) = self.weight_and_first();
        let (divisor_weight, divisor_first) = divisor.weight_and_first();
        let quotient_weight = weight - divisor_weight - i64::from(first <= divisor_first);
        let scale = quotient_scale(quotient_weight, self.scale, divisor.scale);
        // The integer quotient at `scale` digits is self.digits * 10^(scale + divisor.scale - self.scale)
        // / divisor.digits; scale >= self.scale, so the power is never negative.
        let mut numerator = self.digits.clone();
        numerator
            .resize(if self.is_zero() { 0 } else { numerator.len() + scale + divisor.scale - self.scale }, 0);
        let digits = big::divide_half_up(&numerator, &divisor.digits);
        Ok(Decimal { negative: self.negative != divisor.negative && !digits.is_empty(), digits, scale })
    }

    /// The mantissa, if it has at most 76 digits.
    fn to_i256(&self) -> Option<i256> {
        if self.digits.len() > 76 {
            return None;
        }
        let ten = i256::from_i128(10);
        let magnitude = self.digits.iter().fold(i256::ZERO, |n, d| {
            n.wrapping_mul(ten).wrapping_add(i256::from_i128((*d).into()))
        });
        Some(if self.negative { magnitude.wrapping_neg() } else { magnitude })
    }

    /// Sum, difference, product or quotient with the scale that PostgreSQL gives it.
    fn arith(&self, op: BinaryOp, other: &Decimal) -> Result<Decimal, PgError> {
        if op == BinaryOp::Divide {
            return self.divide(other);
        }
        let wide = || PgError::not_exact("numeric arithmetic beyond 76 digits");
        let (a, b) = (self.to_i256().ok_or_else(wide)?, other.to_i256().ok_or_else(wide)?);
        let scale = match op {
            BinaryOp::Multiply => self.scale + other.scale,
            _ => self.scale.max(other.scale),
        };
        let grown = |value: i256, from: usize| {
            (from..scale).try_fold(value, |v, _| v.checked_mul(i256::from_i128(10)))
        };
        let result = match op {
            BinaryOp::Multiply => a.checked_mul(b),
            BinaryOp::Add | BinaryOp::Subtract => {
                grown(a, self.scale).zip(grown(b, other.scale)).and_then(|(a, b)| match op {
                    BinaryOp::Add => a.checked_add(b),
                    _ => a.checked_sub(b),
                })
            }
            BinaryOp::Divide | BinaryOp::Modulo => None,
        };
        let scale = u16::try_from(scale).map_err(|_| wide())?;
        Ok(Decimal::from_i256(result.ok_or_else(wide)?, scale))
    }

    fn cmp_magnitude(&self, other: &Decimal) -> Ordering {
        match (self.is_zero(), other.is_zero()) {
            (true, true) => return Ordering::Equal,
            (true, false) => return Ordering::Less,
            (false, true) => return Ordering::Greater,
            (false, false) => {}
        }
        self.exponent().cmp(&other.exponent()).then_with(|| {
            let longer = self.digits.len().max(other.digits.len());
            let at = |d: &[u8], i: usize| d.get(i).copied().unwrap_or(0);
            (0..longer)
                .map(|i| at(&self.digits, i).cmp(&at(&other.digits, i)))
                .find(|o| o.is_ne())
                .unwrap_or(Ordering::Equal)
        })
    }
}

/// `select_div_scale`: the display scale of a quotient whose weight is estimated as given.
fn quotient_scale(quotient_weight: i64, scale: usize, divisor_scale: usize) -> usize {
    let wanted = (MIN_SIGNIFICANT - 4 * quotient_weight).max(scale as i64).max(divisor_scale as i64).max(0);
    wanted.min(MAX_DISPLAY_SCALE).max(scale as i64) as usize
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = Vec::with_capacity(self.digits.len() + 4);
        let ascii: Vec<u8> = self.digits.iter().map(|d| d + b'0').collect();
        write_decimal(self.negative, &ascii, self.scale, &mut out);
        // Only ASCII was written.
        f.write_str(&String::from_utf8_lossy(&out))
    }
}

impl fmt::Display for Numeric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Numeric::NegInfinity => f.write_str("-Infinity"),
            Numeric::Finite(d) => d.fmt(f),
            Numeric::Infinity => f.write_str("Infinity"),
            Numeric::NaN => f.write_str("NaN"),
        }
    }
}

/// Writes ASCII digits (no leading zeros) with `scale` of them after the point.
pub(crate) fn write_decimal(negative: bool, ascii: &[u8], scale: usize, out: &mut impl Extend<u8>) {
    if negative {
        out.extend([b'-']);
    }
    let whole = ascii.len().saturating_sub(scale);
    if whole == 0 {
        out.extend([b'0']);
    } else {
        out.extend(ascii[..whole].iter().copied());
    }
    if scale > 0 {
        out.extend([b'.']);
        out.extend(std::iter::repeat_n(b'0', scale - (ascii.len() - whole)));
        out.extend(ascii[whole..].iter().copied());
    }
}

impl FromStr for Numeric {
    type Err = PgError;

    /// Reads what PostgreSQL prints: an optional sign, digits, an optional fraction; `NaN`, `Infinity`,
    /// `-Infinity`. Anything else is 22P02.
    fn from_str(text: &str) -> Result<Self, PgError> {
        let invalid = || PgError::new("22P02", format!("invalid input syntax for type numeric: \"{text}\""));
        match text {
            "NaN" => return Ok(Numeric::NaN),
            "Infinity" => return Ok(Numeric::Infinity),
            "-Infinity" => return Ok(Numeric::NegInfinity),
            _ => {}
        }
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = match rest.split_once('.') {
            Some((_, "")) => return Err(invalid()),
            Some((whole, fraction)) => (whole, fraction),
            None => (rest, ""),
        };
        let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) || fraction.len() > MAX_WIRE_SCALE
        {
            return Err(invalid());
        }
        let mut ascii = Vec::with_capacity(whole.len() + fraction.len());
        ascii.extend_from_slice(whole.as_bytes());
        ascii.extend_from_slice(fraction.as_bytes());
        Ok(Numeric::Finite(Decimal::from_parts(negative, &ascii, fraction.len())))
    }
}

impl PartialOrd for Numeric {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Numeric {
    /// PostgreSQL's order by value, whatever the scales: -Infinity, finite values, Infinity, NaN. Note
    /// that `==` compares the scale as well, this does not.
    fn cmp(&self, other: &Self) -> Ordering {
        use Numeric::*;
        let rank = |n: &Numeric| match n {
            NegInfinity => 0,
            Finite(_) => 1,
            Infinity => 2,
            NaN => 3,
        };
        match (self, other) {
            (Finite(a), Finite(b)) => match (a.negative, b.negative) {
                (false, false) => a.cmp_magnitude(b),
                (true, true) => b.cmp_magnitude(a),
                (true, false) => Ordering::Less,
                (false, true) => Ordering::Greater,
            },
            _ => rank(self).cmp(&rank(other)),
        }
    }
}

/// `a / b` for values mantissa × 10^-scale, as PostgreSQL's text. 22012 if b is zero.
pub fn divide_text(a: i256, a_scale: u8, b: i256, b_scale: u8) -> Result<String, PgError> {
    if let (Some(a), Some(b)) = (a.to_i128(), b.to_i128())
        && let Some(text) = divide_small(a, a_scale, b, b_scale)?
    {
        return Ok(text);
    }
    Ok(Decimal::from_i256(a, a_scale.into()).divide(&Decimal::from_i256(b, b_scale.into()))?.to_string())
}

/// `avg` over integers (scale 0) or numeric(p, scale): exact sum divided by the count. `count` > 0.
pub fn average_text(sum: i256, scale: u8, count: i64) -> Result<String, PgError> {
    divide_text(sum, scale, i256::from_i128(count.into()), 0)
}

/// The division of [`divide_text`] where everything fits 128 bits; None if it does not.
fn divide_small(a: i128, a_scale: u8, b: i128, b_scale: u8) -> Result<Option<String>, PgError> {
    let Some((negative, quotient, scale)) = quotient_small(a, a_scale.into(), b, b_scale.into())? else {
        return Ok(None);
    };
    let mut buffer = itoa::Buffer::new();
    let ascii = if quotient == 0 { "" } else { buffer.format(quotient) };
    let mut out = Vec::with_capacity(ascii.len() + scale + 3);
    write_decimal(negative, ascii.as_bytes(), scale, &mut out);
    // Only ASCII was written.
    Ok(Some(String::from_utf8(out).unwrap_or_default()))
}

/// The quotient of a division that fits 128 bits: whether it is negative, its magnitude, its scale.
fn quotient_small(a: i128, a_scale: usize, b: i128, b_scale: usize) -> Result<Option<(bool, u128, usize)>, PgError> {
    if b == 0 {
        return Err(PgError::division_by_zero());
    }
    let (weight, first) = small_weight(a.unsigned_abs(), a_scale);
    let (b_weight, b_first) = small_weight(b.unsigned_abs(), b_scale);
    let scale = quotient_scale(weight - b_weight - i64::from(first <= b_first), a_scale, b_scale);
    let shift = scale + b_scale - a_scale;
    let Some(numerator) = u32::try_from(shift)
        .ok()
        .and_then(|shift| 10u128.checked_pow(shift))
        .and_then(|power| power.checked_mul(a.unsigned_abs()))
    else {
        return Ok(None);
    };
    let divisor = b.unsigned_abs();
    let (mut quotient, rest) = (numerator / divisor, numerator % divisor);
    // Half away from zero; `rest < divisor`, so the subtraction cannot overflow.
    if rest >= divisor - rest {
        quotient += 1;
    }
    Ok(Some(((a < 0) != (b < 0) && quotient != 0, quotient, scale)))
}

/// `a / b` of mantissas and scales as mantissa and scale. 22012 if b is zero; [`PgError::not_exact`] beyond 38 digits.
pub(crate) fn quotient(a: i128, a_scale: i32, b: i128, b_scale: i32) -> Result<(i128, i32), PgError> {
    let wide = || PgError::not_exact("a quotient is wider than 38 digits");
    let (Ok(a_size), Ok(b_size)) = (usize::try_from(a_scale), usize::try_from(b_scale)) else { return Err(wide()) };
    if a_size > 1000 || b_size > 1000 {
        return Err(wide());
    }
    if let Some((negative, quotient, scale)) = quotient_small(a, a_size, b, b_size)? {
        let magnitude = i128::try_from(quotient).map_err(|_| wide())?;
        return Ok((if negative { -magnitude } else { magnitude }, scale as i32));
    }
    // Scales were bounded above.
    let quotient = Decimal::from_i128(a, a_size as u16).divide(&Decimal::from_i128(b, b_size as u16))?;
    let magnitude = quotient.digits.iter().try_fold(0i128, |n, d| n.checked_mul(10)?.checked_add((*d).into()));
    let magnitude = magnitude.ok_or_else(wide)?;
    Ok((if quotient.negative { -magnitude } else { magnitude }, quotient.scale as i32))
}

/// Normalized weight and first digit in base 10000 of mantissa × 10^-scale; 0 and 0 for zero.
fn small_weight(mantissa: u128, scale: usize) -> (i64, u32) {
    if mantissa == 0 {
        return (0, 0);
    }
    let length = i64::from(mantissa.ilog10()) + 1;
    let exponent = length - 1 - scale as i64;
    let weight = exponent.div_euclid(4);
    let leading = exponent - 4 * weight + 1;
    let first = if length >= leading {
        mantissa / 10u128.pow((length - leading) as u32)
    } else {
        mantissa * 10u128.pow((leading - length) as u32)
    };
    (weight, first as u32)
}

const SIGN_POSITIVE: u16 = 0x0000;
const SIGN_NEGATIVE: u16 = 0x4000;
const SIGN_NAN: u16 = 0xC000;
const SIGN_INFINITY: u16 = 0xD000;
const SIGN_NEG_INFINITY: u16 = 0xF000;

impl Numeric {
    /// Appends `numeric_send`'s format: number of base-10000 digits, weight, sign, display scale, digits.
    pub fn write_wire(&self, out: &mut impl Extend<u8>) {
        match self {
            Numeric::NaN => put(out, &[0, 0, SIGN_NAN, 0]),
            // PostgreSQL reads the display scale of an infinity out of bits that mean its sign.
            Numeric::Infinity => put(out, &[0, 0, SIGN_INFINITY, 32]),
            Numeric::NegInfinity => put(out, &[0, 0, SIGN_NEG_INFINITY, 32]),
            Numeric::Finite(d) => write_wire(d.negative, &d.digits, d.scale, out),
        }
    }

    /// Reads `numeric_send`'s format. 22P03 if it is not a numeric.
    pub fn from_wire(bytes: &[u8]) -> Result<Numeric, PgError> {
        let bad = |what: &str| PgError::new("22P03", format!("{what} in external \"numeric\" value"));
        let word = |i: usize| bytes.get(2 * i..2 * i + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
        let (Some(count), Some(weight), Some(sign), Some(scale)) = (word(0), word(1), word(2), word(3))
        else {
            return Err(bad("invalid length"));
        };
        let (count, weight, scale) = (usize::from(count), i64::from(weight as i16), usize::from(scale));
        if bytes.len() != 8 + 2 * count {
            return Err(bad("invalid length"));
        }
        let negative = match sign {
            SIGN_POSITIVE => false,
            SIGN_NEGATIVE => true,
            SIGN_NAN => return Ok(Numeric::NaN),
            SIGN_INFINITY => return Ok(Numeric::Infinity),
            SIGN_NEG_INFINITY => return Ok(Numeric::NegInfinity),
            _ => return Err(bad("invalid sign")),
        };
        if scale > MAX_WIRE_SCALE {
            return Err(bad("invalid scale"));
        }
        let mut ascii = Vec::with_capacity(4 * count);
        for i in 0..count {
            let digit = word(4 + i).filter(|d| *d < 10_000).ok_or_else(|| bad("invalid digit"))?;
            ascii.extend(
                [digit / 1000, digit / 100 % 10, digit / 10 % 10, digit % 10].map(|d| d as u8 + b'0'),
            );
        }
        // The last of the `count` digits has weight `weight - count + 1`, in powers of 10000.
        let fraction = 4 * (count as i64 - 1 - weight);
        let wanted = scale as i64;
        if fraction < wanted {
            if count > 0 {
                ascii.resize(ascii.len() + (wanted - fraction) as usize, b'0');
            }
        } else {
            // Digits below the display scale are cut, as `numeric_recv` does.
            ascii.truncate(ascii.len().saturating_sub((fraction - wanted) as usize));
        }
        Ok(Numeric::Finite(Decimal::from_parts(negative, &ascii, scale)))
    }

    /// Bytes whose order is the order of the values, equal exactly where PostgreSQL says `=`.
    pub fn sort_key(&self) -> Vec<u8> {
        match self {
            Numeric::NegInfinity => vec![0],
            Numeric::Infinity => vec![4],
            Numeric::NaN => vec![5],
            Numeric::Finite(d) if d.is_zero() => vec![2],
            Numeric::Finite(d) => {
                let mut key = Vec::with_capacity(d.digits.len() + 10);
                key.push(if d.negative { 1 } else { 3 });
                key.extend(((d.exponent() as u64) ^ (1 << 63)).to_be_bytes());
                let significant = d.digits.iter().rposition(|&d| d != 0).map_or(0, |i| i + 1);
                key.extend(d.digits[..significant].iter().map(|d| d + 1));
                if d.negative {
                    key[1..].iter_mut().for_each(|b| *b = !*b);
                    // A shorter negative is larger than one it is a prefix of.
                    key.push(0xFF);
                }
                key
            }
        }
    }
}

fn put(out: &mut impl Extend<u8>, words: &[u16]) {
    words.iter().for_each(|w| out.extend(w.to_be_bytes()));
}

/// `numeric_send` of a finite value given by its digits (0-9, no leading zeros).
pub(crate) fn write_wire(negative: bool, digits: &[u8], scale: usize, out: &mut impl Extend<u8>) {
    if digits.is_empty() {
        put(out, &[0, 0, SIGN_POSITIVE, scale as u16]);
        return;
    }
    let exponent = digits.len() as i64 - 1 - scale as i64;
    let weight = exponent.div_euclid(4);
    // Digit i (of 10^(exponent - i)) stands at `lead + i` of the groups of four that begin with `weight`.
    let lead = (4 * weight + 3 - exponent) as usize;
    let significant = digits.iter().rposition(|&d| d != 0).map_or(0, |i| i + 1);
    let groups = (lead + significant).div_ceil(4);
    let sign = if negative { SIGN_NEGATIVE } else { SIGN_POSITIVE };
    put(out, &[groups as u16, weight as i16 as u16, sign, scale as u16]);
    for group in 0..groups {
        let value = (4 * group..4 * group + 4).fold(0u16, |n, at| {
            let digit = at.checked_sub(lead).filter(|i| *i < significant).map_or(0, |i| digits[i]);
            n * 10 + u16::from(digit)
        });
        put(out, &[value]);
    }
}
