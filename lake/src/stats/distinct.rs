//! How many different values a column of texts has, as long as they are few. Pure.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use arrow::array::{Array, StringViewArray};

use crate::types::ColType;

/// More than this many are not counted.
pub(super) const FEW: usize = 1024;

/// Texts by their views; long ones by two hashes of their bytes, which makes the count a good guess rather than a proof.
#[derive(Debug)]
pub(super) struct Distinct(Option<HashSet<u128, BuildHasherDefault<Fold>>>);

impl Distinct {
    /// Counts columns of a text type only.
    pub fn of(ty: ColType) -> Self {
        Self(matches!(ty, ColType::Text | ColType::Varchar).then(HashSet::default))
    }

    pub fn add(&mut self, array: &dyn Array) {
        let Some(seen) = &mut self.0 else { return };
        let Some(texts) = array.as_any().downcast_ref::<StringViewArray>() else {
            self.0 = None;
            return;
        };
        let mut last = None;
        for (i, view) in texts.views().iter().enumerate() {
            if texts.is_null(i) {
                continue;
            }
            // The low half of a view is the length; up to twelve bytes stand in the view itself.
            let key = if *view as u32 <= 12 { *view } else { long(texts.value(i).as_bytes()) };
            if last == Some(key) {
                continue;
            }
            last = Some(key);
            if seen.insert(key) && seen.len() > FEW {
                self.0 = None;
                return;
            }
        }
    }

    /// `None`: many, or not a text.
    pub fn count(&self) -> Option<u32> {
        self.0.as_ref().and_then(|seen| u32::try_from(seen.len()).ok())
    }
}

fn long(bytes: &[u8]) -> u128 {
    let (mut a, mut b) = (bytes.len() as u64, 0x9e37_79b9_7f4a_7c15_u64);
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        let word = u64::from_le_bytes(word);
        a = (a ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(31);
        b = (b.rotate_left(27) ^ word).wrapping_mul(0xc4ce_b9fe_1a85_ec53).wrapping_add(a);
    }
    (u128::from(a) << 64) | u128::from(b)
}

/// For keys that are views or hashes already.
#[derive(Debug, Default)]
struct Fold(u64);

impl Hasher for Fold {
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.0 = (self.0 ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn write_u128(&mut self, key: u128) {
        let mixed = (key as u64 ^ (key >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
