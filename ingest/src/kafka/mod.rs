//! The Kafka source: partitions to rows, exactly once.

mod client;

pub use client::client;
