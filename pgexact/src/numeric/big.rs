//! Division of decimal digit strings of any length. Knows digits; does not know scales or signs.

const BASE: u64 = 1_000_000_000;

/// Quotient of two numbers given by their decimal digits (0-9, most significant first), rounded half up,
/// without leading zeros; empty for zero. The divisor is not zero and has no leading zeros.
pub(super) fn divide_half_up(numerator: &[u8], divisor: &[u8]) -> Vec<u8> {
    let mut u = limbs(numerator);
    let v = limbs(divisor);
    let mut quotient = if v.len() == 1 { divide_short(&mut u, v[0]) } else { divide_long(&mut u, v.clone()) };
    // `u` is now the remainder: round up if twice the remainder reaches the divisor.
    let mut twice = Vec::with_capacity(u.len() + 1);
    let mut carry = 0;
    for limb in &u {
        let sum = limb * 2 + carry;
        twice.push(sum % BASE);
        carry = sum / BASE;
    }
    twice.push(carry);
    if compare(&twice, &v).is_ge() {
        for limb in quotient.iter_mut() {
            *limb += 1;
            if *limb < BASE {
                carry = 0;
                break;
            }
            *limb = 0;
            carry = 1;
        }
        if quotient.iter().all(|l| *l == 0) {
            // All limbs overflowed, or the quotient was zero.
            quotient.push(1);
        } else {
            debug_assert_eq!(carry, 0);
        }
    }
    digits(&quotient)
}

/// Base 10^9, least significant first, without leading zero limbs.
fn limbs(digits: &[u8]) -> Vec<u64> {
    let mut out: Vec<u64> =
        digits.rchunks(9).map(|chunk| chunk.iter().fold(0, |n, d| n * 10 + u64::from(*d))).collect();
    trim(&mut out);
    out
}

fn trim(limbs: &mut Vec<u64>) {
    while limbs.last() == Some(&0) {
        limbs.pop();
    }
}

fn digits(limbs: &[u64]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(limbs.len() * 9);
    for limb in limbs.iter().rev() {
        let mut power = BASE / 10;
        while power > 0 {
            out.push((limb / power % 10) as u8);
            power /= 10;
        }
    }
    let start = out.iter().position(|d| *d != 0).unwrap_or(out.len());
    out.split_off(start)
}

fn compare(a: &[u64], b: &[u64]) -> std::cmp::Ordering {
    let longer = a.len().max(b.len());
    let at = |l: &[u64], i: usize| l.get(i).copied().unwrap_or(0);
    (0..longer)
        .rev()
        .map(|i| at(a, i).cmp(&at(b, i)))
        .find(|o| o.is_ne())
        .unwrap_or(std::cmp::Ordering::Equal)
}

/// Divides in place, leaving the remainder in `u`.
fn divide_short(u: &mut Vec<u64>, v: u64) -> Vec<u64> {
    let mut quotient = vec![0; u.len()];
    let mut rest = 0;
    for i in (0..u.len()).rev() {
        let current = rest * BASE + u[i];
        quotient[i] = current / v;
        rest = current % v;
    }
    *u = vec![rest];
    quotient
}

/// Knuth, The Art of Computer Programming 2, 4.3.1, algorithm D, leaving the remainder in `u`.
/// `v` has at least two limbs.
fn divide_long(u: &mut Vec<u64>, mut v: Vec<u64>) -> Vec<u64> {
    let n = v.len();
    if u.len() < n {
        return Vec::new();
    }
    let shift = BASE / (v[n - 1] + 1);
    scale(&mut v, shift);
    v.truncate(n);
    scale(u, shift);
    let m = u.len() - n - 1;
    let mut quotient = vec![0; m + 1];
    for j in (0..=m).rev() {
        let top = u[j + n] * BASE + u[j + n - 1];
        let (mut guess, mut rest) = (top / v[n - 1], top % v[n - 1]);
        while guess >= BASE || guess * v[n - 2] > rest * BASE + u[j + n - 2] {
            guess -= 1;
            rest += v[n - 1];
            if rest >= BASE {
                break;
            }
        }
        let mut borrow = 0i64;
        let mut carry = 0;
        for i in 0..n {
            let product = guess * v[i] + carry;
            carry = product / BASE;
            let difference = u[j + i] as i64 - (product % BASE) as i64 - borrow;
            borrow = i64::from(difference < 0);
            u[j + i] = (difference + borrow * BASE as i64) as u64;
        }
        let difference = u[j + n] as i64 - carry as i64 - borrow;
        if difference < 0 {
            guess -= 1;
            let mut carry = 0;
            for i in 0..n {
                let sum = u[j + i] + v[i] + carry;
                carry = sum / BASE;
                u[j + i] = sum % BASE;
            }
            u[j + n] = (difference + carry as i64) as u64;
        } else {
            u[j + n] = difference as u64;
        }
        quotient[j] = guess;
    }
    let mut rest = 0;
    for limb in u.iter_mut().rev() {
        let current = rest * BASE + *limb;
        *limb = current / shift;
        rest = current % shift;
    }
    quotient
}

/// Multiplies by a single limb, adding one limb for the carry.
fn scale(limbs: &mut Vec<u64>, by: u64) {
    let mut carry = 0;
    for limb in limbs.iter_mut() {
        let product = *limb * by + carry;
        *limb = product % BASE;
        carry = product / BASE;
    }
    limbs.push(carry);
}
