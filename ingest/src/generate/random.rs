//! Random numbers that are the same in every version of this program: SplitMix64 (Steele, Lea, Flood, "Fast Splittable
//! Pseudorandom Number Generators", 2014), small and seekable. Whole numbers only, so that no machine rounds differently.

/// SplitMix64.
#[derive(Debug, Clone, Copy)]
pub(super) struct Random(u64);

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

pub(super) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// What a number is drawn for: draws for different ends never depend on one another.
#[derive(Debug, Clone, Copy)]
pub(super) enum For {
    Row = 0,
    Slot = 1,
    Block = 2,
    User = 3,
}

impl Random {
    pub(super) fn of(what: For, seed: u64, number: u64) -> Random {
        Random(mix(mix(seed.wrapping_add(GOLDEN.wrapping_mul(1 + what as u64))).wrapping_add(number)))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// Below `n`, without bias that anyone could see.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// True this often in a million.
    pub(super) fn chance(&mut self, per_million: u32) -> bool {
        per_million > 0 && self.below(1_000_000) < u64::from(per_million)
    }

    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// Skewed towards small values: most durations are short, a few are long.
    pub(super) fn skewed(&mut self, max: u64) -> u64 {
        let (a, b, c) = (self.below(1 << 20), self.below(1 << 20), self.below(1 << 20));
        ((u128::from(a) * u128::from(b) * u128::from(c) * u128::from(max)) >> 60) as u64
    }

    /// From 1 to below 2^bits, the number k about as often as 1/k says (Zipf's law with exponent 1, in steps).
    pub(super) fn zipf(&mut self, bits: u32) -> u64 {
        let magnitude = self.below(u64::from(bits));
        (1 << magnitude) + self.below(1 << magnitude)
    }

    /// An index, as often as its weight in a total of 1000 says.
    pub(super) fn weighted(&mut self, weights: impl Iterator<Item = u32>) -> usize {
        let mut at = self.below(1000) as u32;
        let mut last = 0;
        for (i, w) in weights.enumerate() {
            if at < w {
                return i;
            }
            at -= w;
            last = i;
        }
        last
    }
}
