//! Text of float4 and float8 as PostgreSQL prints it with `extra_float_digits` above 0.
//!
//! Knows PostgreSQL's choice among shortest digits (`STRICTLY_SHORTEST 0` in its `ryu_common.h`: never the
//! exact midpoint between two floats, whose reading depends on the reader's rounding) and its notation.

use bytes::{BufMut, BytesMut};

#[cfg(test)]
mod tests;

/// A binary float as Ryū sees it.
trait Float: Copy {
    /// Fixed notation up to this power of ten, exclusive.
    const FIXED_BELOW: i32;
    const DIGITS: usize;
    const MANTISSA_BITS: u32;
    /// The exponent of [`Float::parts`] that the smallest normal and all subnormal values have.
    const LEAST_EXPONENT: i32;
    /// With this many significant digits, correctly rounded, as `d.ddde-7`.
    fn scientific(self, digits: usize) -> String;
    /// Mantissa and power of two: the value is mantissa × 2^exponent, exactly. Of the magnitude.
    fn parts(self) -> (u64, i32);
    fn parses_to(text: &str, this: Self) -> bool;
}

macro_rules! float {
    ($float:ty, $fixed:literal, $digits:literal) => {
        impl Float for $float {
            const FIXED_BELOW: i32 = $fixed;
            const DIGITS: usize = $digits;
            const MANTISSA_BITS: u32 = <$float>::MANTISSA_DIGITS - 1;
            const LEAST_EXPONENT: i32 = 2 - <$float>::MAX_EXP - Self::MANTISSA_BITS as i32;

            fn scientific(self, digits: usize) -> String {
                format!("{:.*e}", digits - 1, self)
            }
            fn parts(self) -> (u64, i32) {
                let bits = u64::from(self.abs().to_bits());
                let fraction = bits & ((1 << Self::MANTISSA_BITS) - 1);
                let exponent = (bits >> Self::MANTISSA_BITS) as i32;
                let bias = <$float>::MAX_EXP - 1 + Self::MANTISSA_BITS as i32;
                if exponent == 0 {
                    (fraction, 1 - bias)
                } else {
                    (fraction | 1 << Self::MANTISSA_BITS, exponent - bias)
                }
            }
            fn parses_to(text: &str, this: Self) -> bool {
                text.parse::<$float>().is_ok_and(|x| x.to_bits() == this.to_bits())
            }
        }
    };
}
float!(f32, 6, 9);
float!(f64, 15, 17);

pub(crate) fn write_f64(value: f64, out: &mut BytesMut) {
    if !special(value.is_nan(), value.is_infinite(), value == 0.0, value.is_sign_negative(), out) {
        if value.is_sign_negative() {
            out.put_u8(b'-');
        }
        finite(value.abs(), ryu::Buffer::new().format_finite(value.abs()), out);
    }
}

pub(crate) fn write_f32(value: f32, out: &mut BytesMut) {
    if !special(value.is_nan(), value.is_infinite(), value == 0.0, value.is_sign_negative(), out) {
        if value.is_sign_negative() {
            out.put_u8(b'-');
        }
        finite(value.abs(), ryu::Buffer::new().format_finite(value.abs()), out);
    }
}

fn special(nan: bool, infinite: bool, zero: bool, negative: bool, out: &mut BytesMut) -> bool {
    let text: &[u8] = match (nan, infinite, zero, negative) {
        (true, ..) => b"NaN",
        (_, true, _, false) => b"Infinity",
        (_, true, _, true) => b"-Infinity",
        (_, _, true, false) => b"0",
        (_, _, true, true) => b"-0",
        _ => return false,
    };
    out.put_slice(text);
    true
}

/// Significant digits (without trailing zeros) and the power of ten of the first one.
struct Digits {
    buffer: [u8; 32],
    length: usize,
    exponent: i32,
}

impl Digits {
    /// From any decimal text with an optional point and an optional exponent.
    fn read(text: &str) -> Digits {
        let (body, exponent) = match text.split_once('e') {
            // The exponents come from formatters of this program: short integers.
            Some((body, e)) => (body, e.parse::<i32>().unwrap_or(0)),
            None => (text, 0),
        };
        let mut digits = Digits { buffer: [0; 32], length: 0, exponent: 0 };
        // Power of ten of the next digit relative to the point.
        let mut place = body.find('.').unwrap_or(body.len()) as i32 - 1;
        for byte in body.bytes().filter(u8::is_ascii_digit) {
            if digits.length == 0 && byte == b'0' {
                place -= 1;
                continue;
            }
            if digits.length == 0 {
                digits.exponent = place + exponent;
            }
            if let Some(slot) = digits.buffer.get_mut(digits.length) {
                *slot = byte;
                digits.length += 1;
            }
            place -= 1;
        }
        while digits.length > 1 && digits.buffer[digits.length - 1] == b'0' {
            digits.length -= 1;
        }
        digits
    }

    fn ascii(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

/// True if decimal × 10^power is exactly halfway between `value` and a neighbour.
fn is_midpoint<F: Float>(value: F, digits: &Digits) -> bool {
    let decimal = digits.ascii().iter().fold(0u128, |n, d| n * 10 + u128::from(d - b'0'));
    let power = digits.exponent - (digits.length as i32 - 1);
    let five = match 5u128.checked_pow(power.unsigned_abs()) {
        // Beyond 5^27 neither case below can hold: mantissas have at most 55 bits, decimals 17 digits.
        Some(five) if power.abs() <= 27 => five,
        _ => return false,
    };
    let (mut odd, mut two) = if power >= 0 {
        match decimal.checked_mul(five) {
            Some(n) => (n, power),
            None => return false,
        }
    } else if decimal % five == 0 {
        (decimal / five, power)
    } else {
        return false;
    };
    two += odd.trailing_zeros() as i32;
    odd >>= odd.trailing_zeros();
    let (mantissa, exponent) = value.parts();
    let mantissa = u128::from(mantissa);
    let above = (2 * mantissa + 1, exponent - 1);
    // Below a power of two the neighbour is half as far away, unless it is subnormal.
    let lopsided = mantissa == 1 << F::MANTISSA_BITS && exponent > F::LEAST_EXPONENT;
    let below = if lopsided { (4 * mantissa - 1, exponent - 2) } else { (2 * mantissa - 1, exponent - 1) };
    (odd, two) == above || (odd, two) == below
}

/// The shortest digits that read back as `value` without lying on a midpoint, closest to it.
fn avoiding_midpoints<F: Float>(value: F) -> Option<Digits> {
    (1..=F::DIGITS).find_map(|length| {
        let nearest = value.scientific(length);
        let digits = Digits::read(&nearest);
        if F::parses_to(&nearest, value) && !is_midpoint(value, &digits) {
            return Some(digits);
        }
        // The nearest may lie outside the (lopsided) interval while the next one up lies inside.
        let (body, exponent) = nearest.split_once('e')?;
        let mut up: Vec<u8> = body.bytes().collect();
        for byte in up.iter_mut().rev().filter(|b| **b != b'.') {
            if *byte < b'9' {
                *byte += 1;
                break;
            }
            *byte = b'0';
        }
        let text = format!("{}e{exponent}", String::from_utf8(up).ok()?);
        let digits = Digits::read(&text);
        (F::parses_to(&text, value) && !is_midpoint(value, &digits)).then_some(digits)
    })
}

fn finite<F: Float>(value: F, shortest: &str, out: &mut BytesMut) {
    let mut digits = Digits::read(shortest);
    if is_midpoint(value, &digits)
        && let Some(other) = avoiding_midpoints(value)
    {
        digits = other;
    }
    let (ascii, exponent) = (digits.ascii(), digits.exponent);
    if (-4..F::FIXED_BELOW).contains(&exponent) {
        if exponent < 0 {
            out.put_slice(b"0.");
            out.put_bytes(b'0', (-exponent - 1) as usize);
            out.put_slice(ascii);
        } else {
            let whole = exponent as usize + 1;
            if ascii.len() <= whole {
                out.put_slice(ascii);
                out.put_bytes(b'0', whole - ascii.len());
            } else {
                out.put_slice(&ascii[..whole]);
                out.put_u8(b'.');
                out.put_slice(&ascii[whole..]);
            }
        }
        return;
    }
    out.put_u8(ascii[0]);
    if ascii.len() > 1 {
        out.put_u8(b'.');
        out.put_slice(&ascii[1..]);
    }
    out.put_u8(b'e');
    out.put_u8(if exponent < 0 { b'-' } else { b'+' });
    if exponent.abs() < 10 {
        out.put_u8(b'0');
    }
    out.put_slice(itoa::Buffer::new().format(exponent.unsigned_abs()).as_bytes());
}
