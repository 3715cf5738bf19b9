//! Blocks in bounded memory, kept by the rule S3-FIFO (Yang et al., SOSP 2023): new blocks pass through a small queue, and only those
//! asked for again move to the main one, so that a scan of more than fits does not drive out what is hot. Pure.

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::Bytes;

type Key = (u64, u64);

/// Uses that are counted.
const MOST_USES: u8 = 3;

struct Slot {
    bytes: Bytes,
    uses: u8,
    is_main: bool,
}

/// See the module.
pub(super) struct Ring {
    capacity: u64,
    slots: HashMap<Key, Slot>,
    small: VecDeque<Key>,
    main: VecDeque<Key>,
    small_bytes: u64,
    main_bytes: u64,
    /// Blocks that left the small queue unasked for: if they come again, they are hot after all.
    ghosts: VecDeque<Key>,
    is_ghost: HashSet<Key>,
}

impl Ring {
    /// For up to `capacity` bytes.
    pub(super) fn new(capacity: u64) -> Self {
        Self {
            capacity,
            slots: HashMap::new(),
            small: VecDeque::new(),
            main: VecDeque::new(),
            small_bytes: 0,
            main_bytes: 0,
            ghosts: VecDeque::new(),
            is_ghost: HashSet::new(),
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.small_bytes + self.main_bytes
    }

    pub(super) fn get(&mut self, key: Key) -> Option<Bytes> {
        let slot = self.slots.get_mut(&key)?;
        slot.uses = (slot.uses + 1).min(MOST_USES);
        Some(slot.bytes.clone())
    }

    pub(super) fn put(&mut self, key: Key, bytes: Bytes) {
        let size = bytes.len() as u64;
        if size > self.capacity / 4 || self.slots.contains_key(&key) {
            return;
        }
        while self.bytes() + size > self.capacity {
            self.evict();
        }
        let is_main = self.is_ghost.remove(&key);
        if is_main {
            self.main.push_back(key);
            self.main_bytes += size;
        } else {
            self.small.push_back(key);
            self.small_bytes += size;
        }
        self.slots.insert(key, Slot { bytes, uses: 0, is_main });
    }

    /// Lets one block go.
    fn evict(&mut self) {
        loop {
            let from_small = self.small_bytes > self.capacity / 10 || self.main.is_empty();
            let queue = if from_small { &mut self.small } else { &mut self.main };
            let Some(key) = queue.pop_front() else { return };
            let Some(slot) = self.slots.get_mut(&key) else { continue };
            let size = slot.bytes.len() as u64;
            if from_small {
                self.small_bytes -= size;
                if slot.uses > 0 {
                    slot.uses = 0;
                    slot.is_main = true;
                    self.main.push_back(key);
                    self.main_bytes += size;
                    continue;
                }
                self.remember(key);
            } else {
                if slot.uses > 0 {
                    slot.uses -= 1;
                    self.main.push_back(key);
                    continue;
                }
                self.main_bytes -= size;
            }
            self.slots.remove(&key);
            return;
        }
    }

    /// As many ghosts as there are blocks, and a few more while there are few.
    fn remember(&mut self, key: Key) {
        if self.is_ghost.insert(key) {
            self.ghosts.push_back(key);
        }
        while self.ghosts.len() > self.slots.len().max(1024) {
            if let Some(oldest) = self.ghosts.pop_front() {
                self.is_ghost.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block(size: usize) -> Bytes {
        Bytes::from(vec![7; size])
    }

    #[test]
    fn a_scan_does_not_drive_out_what_is_hot() {
        let mut ring = Ring::new(1000);
        for n in 0..50 {
            ring.put((1, n), block(10));
        }
        for _ in 0..2 {
            assert!((0..50).all(|n| ring.get((1, n)).is_some()));
        }
        for n in 0..10_000 {
            ring.put((2, n), block(10));
        }
        assert_eq!((0..50).filter(|n| ring.get((1, *n)).is_some()).count(), 50);
    }

    #[test]
    fn what_comes_again_after_it_left_is_kept_longer() {
        let mut ring = Ring::new(100);
        ring.put((1, 0), block(10));
        for n in 0..20 {
            ring.put((2, n), block(10));
        }
        assert!(ring.get((1, 0)).is_none());
        ring.put((1, 0), block(10));
        for n in 20..28 {
            ring.put((2, n), block(10));
        }
        assert!(ring.get((1, 0)).is_some());
    }

    #[test]
    fn a_block_that_is_too_large_is_not_kept() {
        let mut ring = Ring::new(100);
        ring.put((1, 0), block(26));
        assert!(ring.get((1, 0)).is_none());
        Ring::new(0).put((1, 0), block(1));
    }

    proptest! {
        #[test]
        fn the_bound_holds_and_bytes_are_those_put(
            steps in prop::collection::vec((0u64..3, 0u64..40, 1usize..30, any::<bool>()), 1..400),
            capacity in 1u64..300,
        ) {
            let mut ring = Ring::new(capacity);
            for (file, n, size, put) in steps {
                if put {
                    ring.put((file, n), Bytes::from(vec![(file * 40 + n) as u8; size]));
                } else if let Some(found) = ring.get((file, n)) {
                    prop_assert!(found.iter().all(|b| *b == (file * 40 + n) as u8));
                }
                prop_assert!(ring.bytes() <= capacity);
                let held: usize = ring.slots.values().map(|s| s.bytes.len()).sum();
                prop_assert_eq!(held as u64, ring.bytes());
                prop_assert_eq!(ring.slots.len(), ring.small.len() + ring.main.len());
                prop_assert!(ring.is_ghost.len() <= ring.ghosts.len());
            }
        }
    }
}
