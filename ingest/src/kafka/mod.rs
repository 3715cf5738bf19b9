//! The Kafka source: partitions to rows, exactly once.
//!
//! ```text
//! brokers -> polling thread        source: assignment, chunks, pausing
//!         -> decoding thread       worker: envelope, mapping, COPY rows     (one a lane)
//!         -> writing task          writer: positions + rows, one commit     (one a lane)
//! ```
//!
//! A *lane* is a writer's share of a topic's partitions; each stage works on one batch while the next is made. Positions
//! live in PostgreSQL with the rows ([`streams`]); what Kafka keeps of them is for lag tools. Where a partition is read from,
//! and what is reported as missing, is one pure decision ([`place`]). What every batch relies on:
//!
//! - its positions are moved first in its transaction, from the values it was made for, or nothing is written at all;
//! - all its records are of the topic whose id the streams carry ([`open::verify`]);
//! - a partition is given back only when no transaction that holds records of it is open.
//!
//! Knows no SQL of users and no lake.

mod chunk;
mod client;
mod open;
mod place;
mod raw;
mod source;
mod status;
mod streams;
mod worker;
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::BaseConsumer;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

pub use client::client;
pub use rdkafka::ClientConfig;

use crate::pressure::Pressure;
use crate::sink::connect_options;
use crate::topics::TopicRoute;
use crate::{Error, Result};

/// What the source runs with.
#[derive(Debug, Clone)]
pub struct Config {
    /// `host:port,host:port`.
    pub brokers: String,
    /// librdkafka's own properties; may hold secrets.
    pub properties: BTreeMap<String, String>,
    /// The consumer group that shares the partitions.
    pub group: String,
    /// Topics and their tables.
    pub topics: Vec<TopicRoute>,
    /// PostgreSQL as `watershed_ingest`.
    pub database_url: String,
    pub pressure: Pressure,
    /// Connections that write, a topic. More than one helps where one core of PostgreSQL is not enough.
    pub writers: usize,
    /// A batch is closed at this many records,
    pub batch_rows: usize,
    /// or this many bytes of them,
    pub batch_bytes: usize,
    /// or when its first record has waited this long.
    pub batch_delay: Duration,
    /// How often lag is told.
    pub status_interval: Duration,
    /// How long giving partitions back waits for a transaction that holds records of them.
    pub revoke_patience: Duration,
    /// How long stopping waits for what was taken to be committed.
    pub stop_patience: Duration,
    /// What this process is called in `watershed.streams`.
    pub owner: String,
}

impl Config {
    /// With the default topics and bounds.
    pub fn new(brokers: &str, database_url: &str) -> Config {
        Config {
            brokers: brokers.to_owned(),
            properties: BTreeMap::new(),
            group: "watershed".to_owned(),
            topics: crate::topics::defaults(),
            database_url: database_url.to_owned(),
            pressure: Pressure::always_open(),
            writers: 1,
            batch_rows: 20_000,
            batch_bytes: 8 << 20,
            batch_delay: Duration::from_millis(200),
            status_interval: Duration::from_secs(3),
            revoke_patience: Duration::from_secs(20),
            stop_patience: Duration::from_secs(15),
            owner: owner(),
        }
    }
}

/// `host/pid`.
fn owner() -> String {
    let host = nix::sys::utsname::uname().map(|u| u.nodename().to_string_lossy().into_owned());
    format!("{}/{}", host.unwrap_or_else(|_| "localhost".to_owned()), std::process::id())
}

/// Reads the topics until it is told to stop; then commits what it has taken, and leaves the group. Not cancel safe: a
/// future that is dropped stops the source all the same, but nobody waits for it.
///
/// # Errors
/// Settings that librdkafka refuses, and what makes its client useless. What passes is waited for.
pub async fn run(config: Config, stop: CancellationToken) -> Result<()> {
    if config.topics.is_empty() {
        return Err(Error::Kafka("no topics are configured".to_owned()));
    }
    for (i, route) in config.topics.iter().enumerate() {
        if config.topics[..i].iter().any(|r| r.topic == route.topic) {
            return Err(Error::Kafka(format!("topic {} is configured twice", route.topic)));
        }
    }
    let options = connect_options(&config.database_url, writer::APPLICATION)?;
    let client =
        client::consumer(&config.brokers, &config.properties, &config.group).map_err(Error::Kafka)?;
    let consumer: BaseConsumer<source::Context> =
        client.create_with_context(source::Context).map_err(|e| Error::Kafka(e.to_string()))?;
    tracing::info!(brokers = config.brokers, group = config.group, "kafka: reading");
    let ours = stop.child_token();
    let _dropped = ours.clone().drop_guard();
    let source = source::Source::new(config, options, Arc::new(consumer), Handle::current(), ours);
    let shared = source.shared().clone();
    let status = tokio::spawn(status::run(shared));
    // A thread of its own: it polls for as long as the source runs, and dropping the consumer blocks.
    let (ended, end) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("kafka".to_owned()).spawn(move || {
        let _ = ended.send(source.run());
    });
    thread.map_err(|e| Error::Internal(format!("start a thread: {e}")))?;
    let result = end.await;
    // Ends by itself once the source has.
    let _ = status.await;
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => Err(Error::Kafka(why)),
        Err(_) => Err(Error::Internal("the polling thread died".to_owned())),
    }
}
