//! The Kafka source: partitions to rows, exactly once.

mod client;
#[allow(dead_code)] // until the source is here
mod raw;

pub use client::client;
pub use rdkafka::ClientConfig;
