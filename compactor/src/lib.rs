//! Keeps the lake made of few, large, sorted files.
//!
//! A file's life here: *plan* (pure: what the version holds -> jobs with reasons), *rewrite* (merge by event time, write, read back and
//! compare the rows), *commit* (the same rows in other files; the boundary stays), *vacuum* (delete what no version needs any more).
//! One compactor works on a table at a time: an advisory lock keeps others out, and a fence number that only grows, compared in the
//! commit, stops one that lost the lock without noticing.
//!
//! Knows no queries and no ingest, and never changes which rows the lake holds.

mod error;
mod lead;
mod meters;
#[cfg(test)]
mod measure;
#[cfg(test)]
mod model;
pub mod plan;
mod read;
mod rewrite;
mod run;
mod turn;
pub mod vacuum;

pub use error::{Error, Result};
pub use lead::Leader;
pub use plan::{Job, Plan, Policy, Reason, Why, plan};
pub use run::{
    CompactReport, Config, Preview, Progress, ProgressSink, Request, compact_now, compact_now_with, preview, run,
};
