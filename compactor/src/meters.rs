//! What the compactor counts: jobs, what they read and wrote, and what is still to be merged. ✗ deciding.

use gauges::{counter, describe, gauge, histogram};

use crate::lead::Ended;
use crate::plan::Job;
use crate::run::CompactReport;

/// One job is over; `None`: it failed.
pub(crate) fn job(table: &str, ended: Option<&Ended>, job: &Job) {
    describe("watershed_compactor_jobs_total", "Rewrites of a day's files, by how they ended.");
    describe("watershed_compactor_rewritten_bytes_total", "Bytes of files that were replaced.");
    describe("watershed_compactor_rewritten_rows_total", "Rows that were written anew.");
    let result = ended.map_or("failed", |ended| ended.outcome);
    counter("watershed_compactor_jobs_total", &[("table", table), ("result", result)]).inc();
    if result == "done" {
        counter("watershed_compactor_rewritten_bytes_total", &[("table", table)]).add(job.bytes());
        counter("watershed_compactor_rewritten_rows_total", &[("table", table)]).add(job.rows());
    }
}

/// What is to be merged, as it was planned last.
pub(crate) fn debt(table: &str, jobs: &[Job]) {
    describe("watershed_compactor_debt_files", "Files that were to be merged when the compactor last looked.");
    describe("watershed_compactor_debt_bytes", "Bytes of these files.");
    let files: usize = jobs.iter().map(|job| job.files.len()).sum();
    gauge("watershed_compactor_debt_files", &[("table", table)]).set(files as f64);
    gauge("watershed_compactor_debt_bytes", &[("table", table)]).set(jobs.iter().map(Job::bytes).sum::<u64>() as f64);
}

/// A turn over a table is over.
pub(crate) fn turn(report: &CompactReport, bytes: u64) {
    describe("watershed_compactor_seconds", "Time of a turn over one table that merged or deleted files.");
    describe("watershed_compactor_deleted_files_total", "Files that no version needed any more.");
    describe("watershed_lake_files", "Files of a table's newest version.");
    describe("watershed_lake_bytes", "Bytes of these files.");
    let labels = [("table", report.table.as_str())];
    if report.jobs > 0 || report.deleted_files > 0 {
        histogram("watershed_compactor_seconds", &labels).observe(report.seconds);
        counter("watershed_compactor_deleted_files_total", &labels).add(report.deleted_files as u64);
    }
    gauge("watershed_lake_files", &labels).set(report.files_after as f64);
    gauge("watershed_lake_bytes", &labels).set(bytes as f64);
    if report.jobs > 0 {
        // What was planned is done; the next look says what is left.
        gauge("watershed_compactor_debt_files", &labels).set(0.0);
        gauge("watershed_compactor_debt_bytes", &labels).set(0.0);
    }
}
