//! The broker's side of a forward: a page of messages, sent and acknowledged by all replicas. Knows no rows.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};

use super::{Error, Result};

/// One message on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) key: Option<Vec<u8>>,
    pub(super) payload: Vec<u8>,
    pub(super) headers: Vec<(String, Vec<u8>)>,
}

impl Message {
    /// Bytes, about.
    pub(super) fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(k, v)| k.len() + v.len() + 16).sum();
        self.payload.len() + self.key.as_ref().map_or(0, Vec::len) + headers + 64
    }

    /// The message with at most `most` bytes of its value, and how many it had as a header.
    fn cut(&self, most: usize) -> Message {
        let mut cut = self.clone();
        cut.payload.truncate(most);
        cut.headers.push(("truncated".into(), self.payload.len().to_string().into_bytes()));
        cut
    }
}

/// What decides over loss and order, whatever the properties say; then what they may change.
const FIXED: [(&str, &str); 2] = [("enable.idempotence", "true"), ("acks", "all")];
const DEFAULTS: [(&str, &str); 5] = [
    ("linger.ms", "5"),
    ("compression.type", "lz4"),
    ("partitioner", "murmur2_random"),
    // A broker that does not answer for so long is away; the rows stay in PostgreSQL.
    ("message.timeout.ms", "30000"),
    // The largest record that ingest takes, and its headers. What the broker takes is the broker's business.
    ("message.max.bytes", "18874368"),
];
/// A message that is too large for the broker is cut to these sizes, one after the other.
const CUTS: [usize; 2] = [256 << 10, 0];
/// Messages handed over and not yet acknowledged.
const IN_FLIGHT: usize = 10_000;
const METADATA: Duration = Duration::from_secs(10);

/// Passes librdkafka's lines on; what fails is told by each message.
#[derive(Clone)]
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, "{reason}");
    }
}

/// A producer for one topic.
pub(super) struct Sender {
    producer: FutureProducer<Quiet>,
    topic: String,
}

impl Sender {
    /// Connects, and asks for the topic: a round begins only when there is a broker to take what it reads.
    pub(super) async fn connect(client: &ClientConfig, topic: &str) -> Result<Sender> {
        let mut config = client.clone();
        for (name, value) in DEFAULTS {
            if config.get(name).is_none() {
                config.set(name, value);
            }
        }
        for (name, value) in FIXED {
            config.set(name, value);
        }
        let producer: FutureProducer<Quiet> = config.create_with_context(Quiet).map_err(kafka)?;
        let (asked, name) = (producer.clone(), topic.to_owned());
        let known = tokio::task::spawn_blocking(move || {
            asked.client().fetch_metadata(Some(&name), METADATA).map(|_| ())
        });
        let sender = Sender { producer, topic: topic.to_owned() };
        match known.await {
            Ok(Ok(())) => Ok(sender),
            Ok(Err(error)) => {
                sender.close().await;
                Err(kafka(error))
            }
            Err(error) => Err(Error::Internal(error.to_string())),
        }
    }

    /// Ends the producer: what it still has is thrown away, and its end is waited for where that disturbs nobody.
    pub(super) async fn close(self) {
        // A panic there would be librdkafka's; there is nothing left to do for it.
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }

    /// Sends messages and waits until each is acknowledged.
    ///
    /// # Errors
    /// One was not. Which of the others were is not told: all are to be sent again.
    pub(super) async fn send(&self, messages: Vec<Message>) -> Result<()> {
        let mut waiting = FuturesUnordered::new();
        let mut large = Vec::new();
        for (i, message) in messages.iter().enumerate() {
            loop {
                if waiting.len() < IN_FLIGHT {
                    match self.hand_over(message) {
                        Ok(delivery) => {
                            waiting.push(async move { (i, delivery.await) });
                            break;
                        }
                        Err(KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge)) => {
                            large.push(i);
                            break;
                        }
                        Err(KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) => {}
                        Err(error) => return Err(kafka(error)),
                    }
                }
                match waiting.next().await {
                    Some((i, outcome)) => large.extend(acknowledged(outcome)?.then_some(i)),
                    // Full of what others sent: there are none, so it is about to be empty.
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        }
        while let Some((i, outcome)) = waiting.next().await {
            large.extend(acknowledged(outcome)?.then_some(i));
        }
        for i in large {
            self.send_large(&messages[i]).await?;
        }
        Ok(())
    }

    fn hand_over(&self, message: &Message) -> Result<DeliveryFuture, KafkaError> {
        let mut headers = OwnedHeaders::new_with_capacity(message.headers.len());
        for (key, value) in &message.headers {
            headers = headers.insert(Header { key, value: Some(value.as_slice()) });
        }
        let mut record =
            FutureRecord::<[u8], [u8]>::to(&self.topic).payload(&message.payload).headers(headers);
        if let Some(key) = &message.key {
            record = record.key(key);
        }
        self.producer.send_result(record).map_err(|(error, _)| error)
    }

    /// A message that was too large in company is tried alone, then cut: one large row must not stop all that follow.
    async fn send_large(&self, message: &Message) -> Result<()> {
        let tries = std::iter::once(message.clone())
            .chain(CUTS.iter().filter(|most| message.payload.len() > **most).map(|most| message.cut(*most)));
        for message in tries {
            let too_large = match self.hand_over(&message) {
                Ok(delivery) => acknowledged(delivery.await)?,
                Err(KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge)) => true,
                Err(error) => return Err(kafka(error)),
            };
            if !too_large {
                return Ok(());
            }
        }
        Err(Error::Kafka(format!("topic {} takes no message of even the smallest size", self.topic)))
    }
}

type Outcome =
    Result<rdkafka::producer::future_producer::OwnedDeliveryResult, futures::channel::oneshot::Canceled>;

/// False if the broker has it, true if it is too large for it.
fn acknowledged(outcome: Outcome) -> Result<bool> {
    match outcome {
        Ok(Ok(_)) => Ok(false),
        Ok(Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), _))) => Ok(true),
        Ok(Err((error, _))) => Err(kafka(error)),
        Err(_) => Err(Error::Kafka("the producer ended before its messages were acknowledged".into())),
    }
}

fn kafka(error: KafkaError) -> Error {
    Error::Kafka(error.to_string())
}
