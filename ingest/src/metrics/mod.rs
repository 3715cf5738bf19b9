//! The metrics of this process (the crate `gauges`), and what every source tells of its batches.

pub use gauges::*;

pub mod taken;
