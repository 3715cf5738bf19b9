//! What every source tells of its batches, under the same names.

use std::collections::BTreeMap;
use std::sync::Once;
use std::time::Instant;

use super::{counter, describe, histogram};
use crate::batch::{Batch, Rejected};

static DESCRIBED: Once = Once::new();

/// Counts a batch whose transaction was committed. `began` is when that transaction was begun, `refused` what PostgreSQL
/// refused of the batch, `bytes` the size of the records as they came, unpacked.
pub fn committed(
    source: &'static str,
    table: &str,
    batch: &Batch,
    refused: &[Rejected],
    bytes: u64,
    began: Instant,
) {
    let mut stages = BTreeMap::new();
    for rejected in batch.rejected.iter().chain(refused) {
        *stages.entry(rejected.stage).or_insert(0) += 1;
    }
    counts(source, table, (batch.rows() - refused.len()) as u64, stages, bytes, began);
}

/// As [`committed`], from numbers: `rejected` by stage.
pub fn counts(
    source: &'static str,
    table: &str,
    rows: u64,
    rejected: impl IntoIterator<Item = (&'static str, u64)>,
    bytes: u64,
    began: Instant,
) {
    DESCRIBED.call_once(|| {
        describe("watershed_ingest_rows_total", "Rows committed to PostgreSQL.");
        describe("watershed_ingest_batches_total", "Batches committed to PostgreSQL.");
        describe("watershed_ingest_bytes_total", "Bytes of the records committed, unpacked.");
        describe("watershed_ingest_rejected_total", "Records put into watershed.dead_letters, by stage.");
        describe("watershed_ingest_commit_seconds", "Time of a batch's transaction, commit included.");
    });
    let labels = [("source", source), ("table", table)];
    counter("watershed_ingest_rows_total", &labels).add(rows);
    counter("watershed_ingest_batches_total", &labels).inc();
    counter("watershed_ingest_bytes_total", &labels).add(bytes);
    for (stage, n) in rejected {
        let labels = [("source", source), ("table", table), ("stage", stage)];
        counter("watershed_ingest_rejected_total", &labels).add(n);
    }
    histogram("watershed_ingest_commit_seconds", &labels).since(began);
}
