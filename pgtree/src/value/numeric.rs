//! PostgreSQL's numeric as sign, decimal digits and display scale. Does no arithmetic.

use std::cmp::Ordering;
use std::fmt;

/// One numeric value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Numeric {
    NaN,
    Infinity,
    NegInfinity,
    Finite {
        /// Never set for zero.
        negative: bool,
        /// The unscaled value in decimal without leading zeros; empty for zero.
        digits: String,
        /// Digits shown after the point.
        scale: u16,
    },
}

impl Numeric {
    /// From base-10000 digits, most significant first, the first of weight `weight`. None where a digit or the size is impossible.
    pub(super) fn from_base10000(negative: bool, weight: i16, scale: u16, digits: &[u16]) -> Option<Numeric> {
        if digits.iter().any(|d| *d > 9999) || scale > 0x3fff {
            return None;
        }
        // Position of decimal digits: `weight` groups before the point.
        let mut text = String::with_capacity(digits.len() * 4);
        for digit in digits {
            text.push_str(&format!("{digit:04}"));
        }
        let point = (i64::from(weight) + 1) * 4;
        let wanted = point + i64::from(scale);
        if wanted <= 0 {
            return Some(Numeric::finite(negative, String::new(), scale));
        }
        let wanted = usize::try_from(wanted).ok()?;
        if wanted > 200_000 {
            return None;
        }
        if text.len() < wanted {
            text.extend(std::iter::repeat_n('0', wanted - text.len()));
        } else if text.as_bytes()[wanted..].iter().any(|b| *b != b'0') {
            // Digits beyond the display scale: no value PostgreSQL makes has them.
            return None;
        } else {
            text.truncate(wanted);
        }
        Some(Numeric::finite(negative, text, scale))
    }

    fn finite(negative: bool, digits: String, scale: u16) -> Numeric {
        let digits = digits.trim_start_matches('0').to_owned();
        Numeric::Finite { negative: negative && !digits.is_empty(), digits, scale }
    }

    /// Parses PostgreSQL's output text (plain digits, no exponent).
    pub fn parse(text: &str) -> Option<Numeric> {
        match text {
            "NaN" => return Some(Numeric::NaN),
            "Infinity" => return Some(Numeric::Infinity),
            "-Infinity" => return Some(Numeric::NegInfinity),
            _ => {}
        }
        let (negative, body) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = body.split_once('.').unwrap_or((body, ""));
        if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
            return None;
        }
        Some(Numeric::finite(negative, format!("{whole}{fraction}"), u16::try_from(fraction.len()).ok()?))
    }

    /// The display scale of a finite value.
    pub fn scale(&self) -> Option<u16> {
        match self {
            Numeric::Finite { scale, .. } => Some(*scale),
            _ => None,
        }
    }

    /// The value times 10^scale with its own scale, where it has at most 38 digits.
    pub fn unscaled(&self) -> Option<(i128, u16)> {
        match self {
            Numeric::Finite { negative, digits, scale } if digits.len() <= 38 => {
                let magnitude: i128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
                Some((if *negative { -magnitude } else { magnitude }, *scale))
            }
            _ => None,
        }
    }

    /// The largest multiple of 10^-scale that is not above the value, times 10^scale, and whether it is the value itself.
    /// None for values that are not finite or whose result has more than 38 digits.
    pub fn floor_to(&self, scale: u16) -> Option<(i128, bool)> {
        let Numeric::Finite { negative, digits, scale: own } = self else { return None };
        if scale >= *own {
            let zeros = usize::from(scale - own);
            if !digits.is_empty() && digits.len() + zeros > 38 {
                return None;
            }
            let mut text = digits.clone();
            if !text.is_empty() {
                text.extend(std::iter::repeat_n('0', zeros));
            }
            let magnitude: i128 = if text.is_empty() { 0 } else { text.parse().ok()? };
            return Some((if *negative { -magnitude } else { magnitude }, true));
        }
        let dropped = usize::from(own - scale);
        let keep = digits.len().saturating_sub(dropped);
        if keep > 38 {
            return None;
        }
        let (head, rest) = digits.split_at(keep);
        let magnitude: i128 = if head.is_empty() { 0 } else { head.parse().ok()? };
        let exact = rest.bytes().all(|b| b == b'0');
        Some(match (*negative, exact) {
            (false, _) => (magnitude, exact),
            (true, true) => (-magnitude, true),
            (true, false) => (-magnitude - 1, false),
        })
    }

    /// Compares by value as PostgreSQL does: -Infinity < finite < Infinity < NaN, and NaN equals itself.
    pub fn compare(&self, other: &Numeric) -> Ordering {
        let class = |n: &Numeric| match n {
            Numeric::NegInfinity => 0,
            Numeric::Finite { .. } => 1,
            Numeric::Infinity => 2,
            Numeric::NaN => 3,
        };
        let (
            Numeric::Finite { negative: na, digits: da, scale: sa },
            Numeric::Finite { negative: nb, digits: db, scale: sb },
        ) = (self, other)
        else {
            return class(self).cmp(&class(other));
        };
        let sign = |negative: bool, digits: &str| {
            if digits.is_empty() {
                0
            } else if negative {
                -1
            } else {
                1
            }
        };
        let (left, right) = (sign(*na, da), sign(*nb, db));
        if left != right || left == 0 {
            return left.cmp(&right);
        }
        // The first digit's position decides, then the digits.
        let position = |digits: &str, scale: u16| digits.len() as i64 - i64::from(scale);
        let magnitude = position(da, *sa).cmp(&position(db, *sb)).then_with(|| {
            let width = da.len().max(db.len());
            let padded = |d: &str| d.bytes().chain(std::iter::repeat(b'0')).take(width).collect::<Vec<_>>();
            padded(da).cmp(&padded(db))
        });
        if left < 0 { magnitude.reverse() } else { magnitude }
    }
}

impl fmt::Display for Numeric {
    /// PostgreSQL's output text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Numeric::NaN => f.write_str("NaN"),
            Numeric::Infinity => f.write_str("Infinity"),
            Numeric::NegInfinity => f.write_str("-Infinity"),
            Numeric::Finite { negative, digits, scale } => {
                let scale = usize::from(*scale);
                let padded = format!("{digits:0>width$}", width = scale + 1);
                let (whole, fraction) = padded.split_at(padded.len() - scale);
                if *negative {
                    f.write_str("-")?;
                }
                f.write_str(whole)?;
                if scale > 0 {
                    write!(f, ".{fraction}")?;
                }
                Ok(())
            }
        }
    }
}
