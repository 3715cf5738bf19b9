//! What the engines of this process are doing right now: gauges for `/metrics`, and for tests that prove that stopped work has
//! ended. ✗ what a query is.

use std::sync::atomic::{AtomicU64, Ordering};

static QUERIES: AtomicU64 = AtomicU64::new(0);
static READS: AtomicU64 = AtomicU64::new(0);

/// Queries whose batches are being made.
pub fn running_queries() -> u64 {
    QUERIES.load(Ordering::SeqCst)
}

/// Requests to the lake's store that running queries wait for.
pub fn running_reads() -> u64 {
    READS.load(Ordering::SeqCst)
}

pub(super) fn query_began() {
    QUERIES.fetch_add(1, Ordering::SeqCst);
}

pub(super) fn query_ended() {
    QUERIES.fetch_sub(1, Ordering::SeqCst);
}

/// One request under way, until dropped.
pub(super) struct Read(());

impl Read {
    pub(super) fn began() -> Read {
        READS.fetch_add(1, Ordering::SeqCst);
        Read(())
    }
}

impl Drop for Read {
    fn drop(&mut self) {
        READS.fetch_sub(1, Ordering::SeqCst);
    }
}
