//! Records to Kafka: an idempotent producer that waits for all replicas, fills large batches and packs them. Calls block
//! while the producer's buffer is full, so memory stays bounded whatever the broker does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use tokio_util::sync::CancellationToken;

use super::mix::Pace;
use super::{Counts, Error, Kind, Mix, Result, Spec};

/// What suits a sender of very many small messages, where the user's properties say nothing else.
const DEFAULTS: [(&str, &str); 10] = [
    ("enable.idempotence", "true"),
    ("acks", "all"),
    ("compression.type", "lz4"),
    ("linger.ms", "20"),
    ("batch.num.messages", "20000"),
    ("queue.buffering.max.messages", "400000"),
    ("queue.buffering.max.kbytes", "131072"),
    ("message.timeout.ms", "120000"),
    // As Java's clients place keys, so that all writers of a key meet in one partition.
    ("partitioner", "murmur2_random"),
    // A report for each message would cost more than the message.
    ("delivery.report.only.error", "true"),
];
/// Messages between two looks at the producer's events and at the clock.
const LOOK: u64 = 512;

/// What became of the messages that failed.
#[derive(Debug, Default)]
struct Reports {
    failed: AtomicU64,
    last: Mutex<Option<String>>,
}

impl ClientContext for Reports {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        *self.last.lock() = Some(format!("{error}: {reason}"));
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.failed.fetch_add(1, Ordering::Relaxed);
            *self.last.lock() = Some(error.to_string());
        }
    }
}

/// A producer of generated records.
pub struct Sink {
    producer: BaseProducer<Reports>,
    /// In place of the tables' own.
    topic: Option<String>,
    since_look: u64,
}

impl Sink {
    /// A producer over `client` ([`crate::kafka::client`]); does not connect yet. `topic`: one for all records, in place
    /// of `logs.raw` and `events.raw`.
    ///
    /// # Errors
    /// A property that librdkafka refuses.
    pub fn new(client: &ClientConfig, topic: Option<String>) -> Result<Sink> {
        let mut config = client.clone();
        for (name, value) in DEFAULTS {
            if config.get(name).is_none() {
                config.set(name, value);
            }
        }
        let producer = config.create_with_context(Reports::default()).map_err(kafka)?;
        Ok(Sink { producer, topic, since_look: 0 })
    }

    /// Hands a message over, waiting up to `patience` for room.
    ///
    /// # Errors
    /// No room in time (the broker is away), or a message that cannot be sent at all.
    pub fn send(&mut self, kind: Kind, key: &[u8], bytes: &[u8], patience: Duration) -> Result<()> {
        let topic = self.topic.as_deref().unwrap_or(kind.topic());
        let mut record = BaseRecord::to(topic).key(key).payload(bytes);
        let mut deadline = None;
        self.since_look += 1;
        if self.since_look >= LOOK {
            self.since_look = 0;
            self.producer.poll(Duration::ZERO);
        }
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    let deadline = *deadline.get_or_insert_with(|| Instant::now() + patience);
                    if Instant::now() > deadline {
                        let last = self.producer.context().last.lock().clone();
                        let why = last.unwrap_or_else(|| "the broker takes nothing".into());
                        return Err(Error::Kafka(why));
                    }
                    self.producer.poll(Duration::from_millis(5));
                }
                Err((error, _)) => return Err(Error::Kafka(format!("topic {topic}: {error}"))),
            }
        }
    }

    /// Waits until every message was acknowledged or given up.
    ///
    /// # Errors
    /// Some were given up, or not answered in time.
    pub fn flush(&self, patience: Duration) -> Result<()> {
        let flushed = self.producer.flush(patience);
        let reports = self.producer.context();
        let failed = reports.failed.swap(0, Ordering::Relaxed);
        if failed > 0 || flushed.is_err() {
            let last = reports.last.lock().take();
            let why = last.unwrap_or_else(|| "the broker does not answer".into());
            return Err(Error::Undelivered {
                failed,
                waiting: self.producer.in_flight_count().max(0) as u64,
                why,
            });
        }
        Ok(())
    }
}

fn kafka(error: KafkaError) -> Error {
    Error::Kafka(error.to_string())
}

/// Sends all records of `specs`, at most `rate` a second, and waits until all are acknowledged. Blocks.
///
/// # Errors
/// The broker takes nothing for two minutes, or gives messages up; [`Error::Cancelled`].
pub fn send_all(
    client: &ClientConfig,
    topic: Option<String>,
    specs: &[Spec],
    rate: Option<u64>,
    stop: &CancellationToken,
) -> Result<Counts> {
    const PATIENCE: Duration = Duration::from_secs(120);
    let mut sink = Sink::new(client, topic)?;
    let mut mix = Mix::new(specs);
    let pace = Pace::new(rate);
    let mut sent = 0u64;
    while let Some((kind, line)) = mix.next_line() {
        sink.send(kind, line.key, line.bytes, PATIENCE)?;
        sent += 1;
        if sent % 64 == 0 {
            if stop.is_cancelled() {
                sink.flush(PATIENCE)?;
                return Err(Error::Cancelled(mix.counts()));
            }
            if let Some(ahead) = pace.ahead(sent) {
                std::thread::sleep(ahead);
            }
        }
    }
    sink.flush(PATIENCE)?;
    Ok(mix.counts())
}
