//! What the end-to-end tests share: a wire client that sees every byte, a running product, and the comparison of answers.
//! Nothing here depends on the product's own code: it is used as a user would, by its binary and its sockets.
#![allow(dead_code)] // each test binary uses a part of it

pub mod browser;
pub mod compare;
pub mod drivers;
pub mod hdfs;
pub mod instance;
pub mod kafka;
pub mod proxy;
pub mod s3;
pub mod scram;
pub mod wire;

use std::time::{Duration, Instant};

/// How long a condition may take to become true; only a hang reaches it.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// Waits until `condition` gives a value, or panics with what was waited for.
#[track_caller]
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(started.elapsed() < PATIENCE, "still waiting for {what} after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits for the next day (UTC) if this one is nearly over: what counts days from `now()` twice must not see it change in between.
pub fn well_before_midnight() {
    const ROOM: u64 = 300;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let left = 86_400 - now % 86_400;
    if left < ROOM {
        std::thread::sleep(Duration::from_secs(left + 1));
    }
}

/// A sequence of numbers that is the same in every run (SplitMix64; Steele, Lea, Flood 2014).
pub struct Sequence(pub u64);

impl Sequence {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
