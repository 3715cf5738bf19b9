//! Order-free checksums of rows: equal multisets of rows have equal checksums, whatever their order, batches and files. Pure.
//!
//! A row's hash is 128 bits wide and covers every column by position, type-wide value and NULL. It is made to find accidents, not to
//! stand against someone who wants two rows to collide.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    TimeUnit, TimestampMicrosecondType,
};
use arrow::record_batch::RecordBatch;

use crate::{Error, Result};

/// Count, sum and exclusive or of the row hashes of a multiset of rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checksum {
    pub rows: u64,
    pub sum: u128,
    pub xor: u128,
}

impl Checksum {
    /// Adds one row by its hash.
    pub fn add(&mut self, hash: u128) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(hash);
        self.xor ^= hash;
    }

    /// Adds another multiset.
    pub fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
        self.sum = self.sum.wrapping_add(other.sum);
        self.xor ^= other.xor;
    }

    /// Adds every row of a batch. Errors: see [`row_hashes`].
    pub fn add_batch(&mut self, batch: &RecordBatch) -> Result<()> {
        for hash in row_hashes(batch)? {
            self.add(hash);
        }
        Ok(())
    }
}

impl std::fmt::Display for Checksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} rows, {:032x}/{:032x}", self.rows, self.sum, self.xor)
    }
}

/// The hash of each row of `batch`, over all its columns in their order. String and binary columns hash by their bytes, whether plain
/// or view.
///
/// Errors: [`Error::Copy`] for a column of a type outside the type table.
pub fn row_hashes(batch: &RecordBatch) -> Result<Vec<u128>> {
    let mut lanes = vec![Lanes::START; batch.num_rows()];
    for (index, column) in batch.columns().iter().enumerate() {
        // Columns are told apart by their position.
        let salt = (index as u64 + 1) << 1;
        match column.data_type() {
            DataType::Boolean => each(&mut lanes, salt, column.as_boolean(), |l, a, i| {
                l.word(u64::from(a.value(i)));
            }),
            DataType::Int16 => each(&mut lanes, salt, column.as_primitive::<Int16Type>(), |l, a, i| {
                l.word(i64::from(a.value(i)) as u64);
            }),
            DataType::Int32 => each(&mut lanes, salt, column.as_primitive::<Int32Type>(), |l, a, i| {
                l.word(i64::from(a.value(i)) as u64);
            }),
            DataType::Int64 => each(&mut lanes, salt, column.as_primitive::<Int64Type>(), |l, a, i| {
                l.word(a.value(i) as u64);
            }),
            DataType::Float32 => each(&mut lanes, salt, column.as_primitive::<Float32Type>(), |l, a, i| {
                l.word(u64::from(a.value(i).to_bits()));
            }),
            DataType::Float64 => each(&mut lanes, salt, column.as_primitive::<Float64Type>(), |l, a, i| {
                l.word(a.value(i).to_bits());
            }),
            DataType::Decimal128(..) => {
                each(&mut lanes, salt, column.as_primitive::<Decimal128Type>(), |l, a, i| {
                    let v = a.value(i) as u128;
                    l.word(v as u64);
                    l.word((v >> 64) as u64);
                });
            }
            DataType::Date32 => each(&mut lanes, salt, column.as_primitive::<Date32Type>(), |l, a, i| {
                l.word(i64::from(a.value(i)) as u64);
            }),
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                each(&mut lanes, salt, column.as_primitive::<TimestampMicrosecondType>(), |l, a, i| {
                    l.word(a.value(i) as u64)
                })
            }
            DataType::Utf8 => each(&mut lanes, salt, column.as_string::<i32>(), |l, a, i| {
                l.bytes(a.value(i).as_bytes());
            }),
            DataType::Utf8View => each(&mut lanes, salt, column.as_string_view(), |l, a, i| {
                l.bytes(a.value(i).as_bytes());
            }),
            DataType::Binary => each(&mut lanes, salt, column.as_binary::<i32>(), |l, a, i| {
                l.bytes(a.value(i));
            }),
            DataType::BinaryView => each(&mut lanes, salt, column.as_binary_view(), |l, a, i| {
                l.bytes(a.value(i));
            }),
            other => {
                return Err(Error::Copy(format!("no checksum for a column of type {other}")));
            }
        }
    }
    Ok(lanes.into_iter().map(Lanes::finish).collect())
}

fn each<'a, A: Array>(
    lanes: &mut [Lanes],
    salt: u64,
    array: &'a A,
    value: impl Fn(&mut Lanes, &'a A, usize),
) {
    for (i, lane) in lanes.iter_mut().enumerate() {
        if array.is_null(i) {
            lane.word(salt);
        } else {
            lane.word(salt | 1);
            value(lane, array, i);
        }
    }
}

/// Two 64 bit lanes that every word passes through in different ways.
#[derive(Debug, Clone, Copy)]
struct Lanes(u64, u64);

// Odd constants with about as many ones as zeros: the fractional digits of square roots of small primes.
const A: u64 = 0x6a09_e667_f3bc_c909;
const B: u64 = 0xbb67_ae85_84ca_a73b;
const C: u64 = 0x3c6e_f372_fe94_f82b;
const D: u64 = 0xa54f_f53a_5f1d_36f1;

impl Lanes {
    const START: Self = Self(A, D);

    #[inline]
    fn word(&mut self, w: u64) {
        self.0 = (self.0 ^ w.wrapping_mul(A)).rotate_left(31).wrapping_mul(B);
        // The high half of a full product carries what the low half loses.
        let product = u128::from(self.1 ^ w).wrapping_mul(u128::from(C));
        self.1 = (product as u64 ^ (product >> 64) as u64).rotate_left(29).wrapping_add(self.0);
    }

    #[inline]
    fn bytes(&mut self, b: &[u8]) {
        self.word(b.len() as u64);
        let mut chunks = b.chunks_exact(8);
        for c in &mut chunks {
            let mut w = [0; 8];
            w.copy_from_slice(c);
            self.word(u64::from_le_bytes(w));
        }
        let rest = chunks.remainder();
        if !rest.is_empty() {
            let mut w = [0; 8];
            w[..rest.len()].copy_from_slice(rest);
            self.word(u64::from_le_bytes(w));
        }
    }

    fn finish(self) -> u128 {
        let avalanche = |mut x: u64| {
            x ^= x >> 32;
            x = x.wrapping_mul(B);
            x ^= x >> 29;
            x = x.wrapping_mul(D);
            x ^ (x >> 32)
        };
        let low = avalanche(self.0 ^ self.1.rotate_left(17));
        let high = avalanche(self.1.wrapping_add(low));
        (u128::from(high) << 64) | u128::from(low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int32Array, StringArray, StringViewArray};
    use std::sync::Arc;

    fn batch(columns: Vec<ArrayRef>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(
            columns.into_iter().enumerate().map(|(i, c)| (i.to_string(), c, true)),
        )
        .unwrap()
    }

    fn sum(b: &RecordBatch) -> Checksum {
        let mut c = Checksum::default();
        c.add_batch(b).unwrap();
        c
    }

    #[test]
    fn order_and_batches_do_not_matter() {
        let texts =
            Arc::new(StringViewArray::from(vec![Some("a"), None, Some("a longer text than a view holds")]));
        let numbers = Arc::new(Int32Array::from(vec![Some(1), Some(2), None]));
        let b = batch(vec![texts, numbers]);
        let order = arrow::array::UInt32Array::from(vec![2, 0, 1]);
        let shuffled =
            batch(b.columns().iter().map(|c| arrow::compute::take(c, &order, None).unwrap()).collect());
        assert_eq!(sum(&b), sum(&shuffled));
        let mut parts = sum(&b.slice(0, 1));
        parts.merge(&sum(&b.slice(1, 2)));
        assert_eq!(parts, sum(&b));
    }

    #[test]
    fn plain_and_view_strings_are_the_same() {
        let a = batch(vec![Arc::new(StringArray::from(vec![Some("x"), None, Some("")]))]);
        let b = batch(vec![Arc::new(StringViewArray::from(vec![Some("x"), None, Some("")]))]);
        assert_eq!(sum(&a), sum(&b));
    }

    #[test]
    fn every_change_shows() {
        let base = batch(vec![
            Arc::new(Int32Array::from(vec![Some(1), Some(2)])),
            Arc::new(Int32Array::from(vec![Some(3), None])),
        ]);
        let others = [
            batch(vec![
                Arc::new(Int32Array::from(vec![Some(1), Some(2)])),
                Arc::new(Int32Array::from(vec![Some(3), Some(0)])),
            ]),
            batch(vec![
                Arc::new(Int32Array::from(vec![Some(2), Some(1)])),
                Arc::new(Int32Array::from(vec![Some(3), None])),
            ]),
            batch(vec![
                Arc::new(Int32Array::from(vec![Some(3), None])),
                Arc::new(Int32Array::from(vec![Some(1), Some(2)])),
            ]),
            batch(vec![
                Arc::new(Int32Array::from(vec![Some(1), Some(2)])),
                Arc::new(Int32Array::from(vec![None, Some(3)])),
            ]),
        ];
        for o in others {
            assert_ne!(sum(&base), sum(&o));
        }
    }

    #[test]
    fn a_million_rows_do_not_collide() {
        let b = batch(vec![Arc::new(Int32Array::from_iter_values(0..1_000_000))]);
        let mut hashes = row_hashes(&b).unwrap();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 1_000_000);
        // And each half by itself is as good as 64 bits can be.
        let mut low: Vec<u64> = hashes.iter().map(|h| *h as u64).collect();
        low.sort_unstable();
        low.dedup();
        assert_eq!(low.len(), 1_000_000);
    }
}
