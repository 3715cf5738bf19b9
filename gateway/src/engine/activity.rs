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

/// What queries have read and spilled since this process began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub files: u64,
    /// Ruled out by their statistics.
    pub files_pruned: u64,
    pub row_groups: u64,
    /// Of opened files, those of which nothing was read.
    pub row_groups_pruned: u64,
    pub bytes: u64,
    pub spills: u64,
    pub spilled_bytes: u64,
}

static TOTALS: [AtomicU64; 7] = [const { AtomicU64::new(0) }; 7];

/// See [`Totals`].
pub fn read() -> Totals {
    let [files, files_pruned, row_groups, row_groups_pruned, bytes, spills, spilled_bytes] =
        std::array::from_fn(|n| TOTALS[n].load(Ordering::Relaxed));
    Totals { files, files_pruned, row_groups, row_groups_pruned, bytes, spills, spilled_bytes }
}

pub(super) fn add(more: &Totals) {
    let more = [
        more.files,
        more.files_pruned,
        more.row_groups,
        more.row_groups_pruned,
        more.bytes,
        more.spills,
        more.spilled_bytes,
    ];
    for (total, more) in TOTALS.iter().zip(more) {
        if more > 0 {
            total.fetch_add(more, Ordering::Relaxed);
        }
    }
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
