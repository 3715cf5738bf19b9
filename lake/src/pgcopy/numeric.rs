//! PostgreSQL's binary numeric: to a scaled integer, or to PostgreSQL's text. Pure.
//!
//! The form (`numeric_send`): count of digits, weight of the first, sign, display scale, then digits of base 10000; the value is the
//! sum of digit[i] * 10000^(weight - i).

use super::value::Refusal;

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const POSITIVE_INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;
/// The largest display scale that PostgreSQL stores.
const MAX_DSCALE: u16 = 0x3FFF;

/// The parts of a numeric on the wire, checked.
pub(super) struct Numeric<'a> {
    digits: &'a [u8],
    weight: i32,
    sign: u16,
    dscale: usize,
}

fn word(b: &[u8], i: usize) -> Option<u16> {
    b.get(2 * i..)?.first_chunk::<2>().map(|w| u16::from_be_bytes(*w))
}

impl<'a> Numeric<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let (Some(count), Some(weight), Some(sign), Some(dscale)) =
            (word(bytes, 0), word(bytes, 1), word(bytes, 2), word(bytes, 3))
        else {
            return Err(Refusal::malformed("a numeric of less than 8 bytes"));
        };
        let digits = bytes.get(8..).unwrap_or_default();
        if digits.len() != usize::from(count) * 2 {
            return Err(Refusal::malformed("a numeric whose digits are not as many as it says"));
        }
        if !matches!(sign, 0 | NEGATIVE | NAN | POSITIVE_INFINITY | NEGATIVE_INFINITY) {
            return Err(Refusal::malformed("a numeric with an unknown sign"));
        }
        if sign & 0x8000 != 0 && count != 0 {
            return Err(Refusal::malformed("digits in a numeric that is not finite"));
        }
        if dscale > MAX_DSCALE {
            return Err(Refusal::malformed("a numeric's display scale"));
        }
        let number = Self { digits, weight: i32::from(weight as i16), sign, dscale: usize::from(dscale) };
        if number.iter().any(|d| d > 9999) {
            return Err(Refusal::malformed("a numeric digit above 9999"));
        }
        Ok(number)
    }

    fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.digits.chunks_exact(2).map(|d| u16::from_be_bytes([d[0], d[1]]))
    }

    fn special(&self) -> Option<&'static str> {
        match self.sign {
            NAN => Some("NaN"),
            POSITIVE_INFINITY => Some("Infinity"),
            NEGATIVE_INFINITY => Some("-Infinity"),
            _ => None,
        }
    }

    /// The value times 10^scale, if that is a whole number of at most `precision` digits (precision <= 38).
    pub(super) fn scaled(&self, precision: u8, scale: i8) -> Result<i128, Refusal> {
        if let Some(text) = self.special() {
            return Err(Refusal::Unkeepable(text.into()));
        }
        let unfit = || Refusal::Unkeepable(format!("{} as numeric({precision},{scale})", self.text()));
        let mut value: i128 = 0;
        // Decimal places between the end of what `value` holds and the wanted scale.
        let mut places = 4 * (self.weight + 1) + i32::from(scale);
        for digit in self.iter() {
            places -= 4;
            let digit = i128::from(digit);
            value = match places {
                0.. => value.checked_mul(10_000).and_then(|v| v.checked_add(digit)),
                // The scale ends within this digit: what is cut off must be zeros.
                -3..=-1 => {
                    let cut = 10_i128.pow(places.unsigned_abs());
                    (digit % cut == 0)
                        .then(|| value.checked_mul(10_000 / cut)?.checked_add(digit / cut))
                        .flatten()
                }
                _ => (digit == 0).then_some(value),
            }
            .ok_or_else(unfit)?;
        }
        if places > 0 && value != 0 {
            value = 10_i128
                .checked_pow(places.unsigned_abs())
                .and_then(|p| value.checked_mul(p))
                .ok_or_else(unfit)?;
        }
        if value >= 10_i128.pow(u32::from(precision.min(38))) {
            return Err(unfit());
        }
        Ok(if self.sign == NEGATIVE { -value } else { value })
    }

    /// PostgreSQL's text (`numeric_out`): exactly as many fraction digits as the display scale says.
    pub(super) fn text(&self) -> String {
        if let Some(text) = self.special() {
            return text.into();
        }
        let digits: Vec<u16> = self.iter().collect();
        let digit = |i: i32| usize::try_from(i).ok().and_then(|i| digits.get(i)).copied().unwrap_or(0);
        let mut out = String::with_capacity(digits.len() * 4 + self.dscale + 3);
        if self.sign == NEGATIVE {
            out.push('-');
        }
        if self.weight < 0 {
            out.push('0');
        }
        for i in 0..=self.weight {
            let d = digit(i);
            let text = if i == 0 { d.to_string() } else { format!("{d:04}") };
            out.push_str(&text);
        }
        if self.dscale > 0 {
            out.push('.');
            let mut left = self.dscale;
            let mut i = self.weight + 1;
            while left > 0 {
                let text = format!("{:04}", digit(i));
                let take = left.min(4);
                // Four ASCII digits.
                out.push_str(&text[..take]);
                left -= take;
                i += 1;
            }
        }
        out
    }
}
