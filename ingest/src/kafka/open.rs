//! Before a partition is read, and before what was read is committed: which topic is it, and where does its log stand?

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rdkafka::consumer::Consumer;

use super::chunk::Chunk;
use super::place::Log;
use super::raw::{Place, TopicState, topic_states};
use super::source::{LaneState, Note, Shared};
use super::streams::{self, Opened};
use super::worker::Decoder;
use super::writer::{connect, find_schema};
use crate::error::sqlstate;
use crate::{Error, Result};

/// Longest wait for an answer of the brokers.
const ASK: Duration = Duration::from_secs(10);
/// A position beyond the end of the log is looked at this often, this far apart, before the stream is ended: a leader that
/// has just begun may not know its own end yet.
const LOOKS: u32 = 4;
const BETWEEN: Duration = Duration::from_millis(1500);

/// A partition to be opened.
pub(super) struct Wanted {
    pub partition: i32,
    pub generation: u64,
    /// Where its log was cut, if the leader epochs showed it.
    pub cut: Option<i64>,
}

/// Opens partitions of one topic, and tells the poller of each.
pub(super) async fn open(shared: Arc<Shared>, lanes: Vec<Arc<LaneState>>, wanted: Vec<Wanted>) {
    let topic = lanes[0].route.topic.clone();
    let note = |w: &Wanted, opened| {
        let place = (topic.clone(), w.partition);
        shared.note(Note::Opened { place, generation: w.generation, opened });
    };
    let (relid, mut conn) = match table(&shared, &lanes).await {
        Ok(found) => found,
        Err(e) => {
            shared.config.pressure.note(&e);
            wanted.iter().for_each(|w| note(w, Err(e.to_string())));
            return;
        }
    };
    let places: Vec<(Place, Option<i64>)> =
        wanted.iter().map(|w| ((topic.clone(), w.partition), w.cut)).collect();
    let logs = match look_at(&shared, places.clone()).await {
        Ok(logs) => logs,
        Err(why) => {
            wanted.iter().for_each(|w| note(w, Err(why.clone())));
            return;
        }
    };
    for ((w, (place, _)), log) in wanted.iter().zip(&places).zip(logs) {
        if shared.abort.is_cancelled() {
            return;
        }
        let opened = match log {
            Ok(log) => open_one(&shared, &mut conn, relid, place, log).await,
            Err(why) => Err(why),
        };
        note(w, opened);
    }
}

/// The table that the topic goes to, as it is now, for all lanes; and the connection that found it.
async fn table(shared: &Shared, lanes: &[Arc<LaneState>]) -> Result<(u32, sqlx::PgConnection)> {
    let mut conn = connect(shared).await?;
    let route = &lanes[0].route;
    let schema = Arc::new(find_schema(&mut conn, &route.table).await?);
    // A mapping that does not fit the table is said before anything is read.
    Decoder::new(route.clone(), schema.clone())?;
    for lane in lanes {
        lane.set_schema(schema.clone());
    }
    Ok((schema.target.relid, conn))
}

async fn open_one(
    shared: &Arc<Shared>,
    conn: &mut sqlx::PgConnection,
    relid: u32,
    place: &Place,
    mut log: Log,
) -> Result<Opened, String> {
    for look in 1..=LOOKS {
        let sure = log.cut.is_some() || look == LOOKS;
        match streams::open(conn, relid, &place.0, place.1, &log, sure).await {
            Ok(Some(opened)) => return Ok(opened),
            Ok(None) => tokio::time::sleep(BETWEEN).await,
            // Another process registered it at the same moment: it is there now.
            Err(Error::Postgres(e)) if look < LOOKS && sqlstate(&e).as_deref() == Some("23505") => {}
            Err(e) => {
                shared.config.pressure.note(&e);
                return Err(e.to_string());
            }
        }
        let again = look_at(shared, vec![(place.clone(), log.cut)]).await?;
        log = again.into_iter().next().unwrap_or_else(|| Err("no answer".to_owned()))?;
    }
    Err("another process registers the same partition".to_owned())
}

/// Asks the brokers about the logs of some partitions of one topic, and where each was cut, if that is known.
async fn look_at(
    shared: &Arc<Shared>,
    places: Vec<(Place, Option<i64>)>,
) -> Result<Vec<Result<Log, String>>, String> {
    let shared = shared.clone();
    let asked = tokio::task::spawn_blocking(move || {
        let client = shared.consumer.client();
        let Some(((topic, _), _)) = places.first() else { return Ok(Vec::new()) };
        let before = topic_id(&shared, topic)?;
        let mut logs = Vec::with_capacity(places.len());
        for ((topic, partition), cut) in &places {
            if shared.abort.is_cancelled() {
                return Err("stopping".to_owned());
            }
            let marks = client.fetch_watermarks(topic, *partition, ASK);
            let log = marks.map(|(low, high)| Log { topic_id: before.clone(), low, high, cut: *cut });
            logs.push(log.map_err(|e| format!("its offsets: {e}")));
        }
        // The watermarks are those of the topic with this id only if it was the same before and after.
        if before != topic_id(&shared, topic)? {
            return Err("the topic is being made anew".to_owned());
        }
        Ok(logs)
    });
    asked.await.map_err(|e| e.to_string())?
}

/// Asks for topics: the broker that answered last, else the one that answers first. Blocks up to twice `timeout`.
///
/// # Errors
/// Nobody answered.
pub(super) fn ask(
    shared: &Shared,
    topics: &[&str],
    timeout: Duration,
) -> Result<HashMap<String, TopicState>, String> {
    let client = shared.consumer.client();
    let mut broker = shared.broker.load(Ordering::Relaxed);
    if broker < 0 {
        let found = client.fetch_metadata(topics.first().copied(), timeout).map_err(|e| e.to_string())?;
        broker = found.orig_broker_id();
        shared.broker.store(broker, Ordering::Relaxed);
    }
    let answer = topic_states(client, broker, topics, timeout);
    if answer.is_err() {
        shared.broker.store(-1, Ordering::Relaxed);
    }
    answer
}

fn topic_id(shared: &Shared, topic: &str) -> Result<Option<String>, String> {
    match ask(shared, &[topic], ASK)?.remove(topic) {
        Some(TopicState::Known(id)) => Ok(id),
        Some(TopicState::Missing) | None => Err("there is no such topic (yet); waiting for it".to_owned()),
        Some(TopicState::Unclear(why)) => Err(why),
    }
}

/// Makes sure that the records of a chunk are of the topic that their streams read: a topic that is deleted and made anew
/// while we read goes on under the same name, with other records under the same offsets. Its id cannot come back, so if it
/// is the same after the last record was fetched, all are of it. Closes the partitions for which it is not. Blocks while
/// no broker answers.
pub(super) fn verify(shared: &Shared, topic: &str, chunk: &Chunk) {
    let known = |p: &&super::chunk::Part| p.partition.topic_id.is_some() && !p.partition.is_closed();
    while chunk.parts.iter().any(|p| known(&p)) && !shared.abort.is_cancelled() {
        let now = match ask(shared, &[topic], ASK) {
            Ok(mut states) => states.remove(topic),
            Err(why) => {
                tracing::debug!(topic, why, "kafka: which topic is it?");
                std::thread::sleep(Duration::from_millis(200));
                continue;
            }
        };
        match now {
            Some(TopicState::Known(Some(id))) => {
                for part in chunk.parts.iter().filter(known) {
                    if part.partition.topic_id.as_ref() != Some(&id) {
                        shared.close(&part.partition, "the topic was deleted and made anew".to_owned());
                    }
                }
                return;
            }
            // Deleted: what was fetched is of the one that was there.
            Some(TopicState::Missing) => return,
            Some(TopicState::Known(None)) | None => return,
            Some(TopicState::Unclear(why)) => {
                tracing::debug!(topic, why, "kafka: which topic is it?");
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    }
}
