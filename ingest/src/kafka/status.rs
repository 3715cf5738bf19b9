//! How far each partition is behind, told every few seconds: to `watershed.streams`, and to the metrics.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::consumer::Consumer;
use sqlx::PgConnection;

use super::chunk::Partition;
use super::raw::{Place, TopicState, cached_watermarks};
use super::source::{LaneState, Note, Shared};
use super::streams::{self, Status};
use super::writer::connect;
use crate::metrics;

/// How often topics are asked for their ids, so that one that was made anew is noticed though nobody writes to it.
const IDS: u32 = 4;
const ASK: Duration = Duration::from_secs(3);

/// Until the source ends.
pub(super) async fn run(shared: Arc<Shared>) {
    describe();
    let mut conn: Option<PgConnection> = None;
    for round in 0u32.. {
        tokio::select! {
            () = tokio::time::sleep(shared.config.status_interval) => {}
            () = shared.abort.cancelled() => return,
        }
        let board: Vec<(Arc<Partition>, Arc<LaneState>)> = shared.board.lock().values().cloned().collect();
        let mut all = Vec::with_capacity(board.len());
        for (partition, lane) in &board {
            all.push(status(&shared, partition, lane).await);
        }
        if round % IDS == 0 {
            watch_ids(&shared, &board).await;
        }
        if all.is_empty() {
            continue;
        }
        if conn.is_none() {
            conn = connect(&shared).await.ok();
        }
        let Some(c) = &mut conn else { continue };
        let told = tokio::time::timeout(ASK * 3, tell(&shared, c, all)).await;
        if !matches!(told, Ok(Ok(()))) {
            // A hint for people; the writers say what is wrong with PostgreSQL.
            conn = None;
        }
    }
}

/// Tells what is still ours: `leave` has the last word of a stream that is given up meanwhile.
async fn tell(shared: &Shared, conn: &mut PgConnection, mut all: Vec<Status>) -> Result<(), sqlx::Error> {
    let _turn = shared.telling.lock().await;
    let ours: HashSet<i32> = shared.board.lock().values().map(|(p, _)| p.stream).collect();
    all.retain(|status| ours.contains(&status.stream));
    streams::tell(conn, &shared.owner, &all).await
}

fn describe() {
    metrics::describe(
        "watershed_kafka_lag_records",
        "Offsets between the log's end and what PostgreSQL holds",
    );
    metrics::describe(
        "watershed_kafka_lag_seconds",
        "Age of the oldest record that is not in PostgreSQL yet; 0 if all are",
    );
    metrics::describe(
        "watershed_kafka_records_total",
        "Records taken from Kafka and committed, whatever became of them",
    );
    metrics::describe("watershed_kafka_rows_total", "Rows made of them");
    metrics::describe(
        "watershed_kafka_dead_letters_total",
        "Records, or parts of them, that became dead letters",
    );
    metrics::describe("watershed_kafka_tombstones_total", "Records without a value");
    metrics::describe("watershed_kafka_commit_seconds", "From a decoded batch to its commit, waits included");
    metrics::describe(
        "watershed_kafka_fenced_total",
        "Batches refused because another process had moved a position",
    );
    metrics::describe("watershed_kafka_gaps_total", "Gaps reported");
}

async fn status(shared: &Arc<Shared>, partition: &Arc<Partition>, lane: &LaneState) -> Status {
    let waits = match shared.config.pressure.state() {
        crate::pressure::State::Closed { reason } => Some(format!("paused: {reason}")),
        crate::pressure::State::Open => lane.waits(),
    };
    let mut end = cached_watermarks(&shared.consumer, &partition.place).map(|(_, high)| high);
    if waits.is_some() || end.is_none() {
        // Nothing is fetched, so nothing is learnt on the way.
        let (shared, place) = (shared.clone(), partition.place.clone());
        let asked = tokio::task::spawn_blocking(move || {
            shared.consumer.client().fetch_watermarks(&place.0, place.1, ASK).ok().map(|(_, high)| high)
        });
        end = asked.await.ok().flatten().or(end);
    }
    let next = partition.committed();
    let lag_records = end.map(|end| (end - next).max(0));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
    let lag_seconds = match lag_records {
        Some(0) => Some(0.0),
        // The oldest unread record is not older than the last one read.
        Some(_) => partition.committed_at().map(|at| (now - at).max(0) as f64 / 1000.0),
        None => None,
    };
    let number = partition.place.1.to_string();
    let labels: metrics::Labels<'_> = &[("topic", &partition.place.0), ("partition", &number)];
    if let Some(records) = lag_records {
        metrics::gauge("watershed_kafka_lag_records", labels).set(records as f64);
    }
    if let Some(seconds) = lag_seconds {
        metrics::gauge("watershed_kafka_lag_seconds", labels).set(seconds);
    }
    let state = waits.unwrap_or_else(|| "reading".to_owned());
    Status { stream: partition.stream, state, end, lag_records, lag_seconds }
}

/// Forgets the metrics of a partition that is no longer ours.
pub(super) fn forget(place: &Place) {
    let number = place.1.to_string();
    let labels: metrics::Labels<'_> = &[("topic", &place.0), ("partition", &number)];
    metrics::remove("watershed_kafka_lag_records", labels);
    metrics::remove("watershed_kafka_lag_seconds", labels);
}

async fn watch_ids(shared: &Arc<Shared>, board: &[(Arc<Partition>, Arc<LaneState>)]) {
    let mut topics: Vec<String> = board.iter().map(|(p, _)| p.place.0.clone()).collect();
    topics.sort_unstable();
    topics.dedup();
    if topics.is_empty() {
        return;
    }
    let asker = shared.clone();
    let asked = tokio::task::spawn_blocking(move || {
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        super::open::ask(&asker, &names, ASK)
    });
    let Ok(Ok(states)) = asked.await else { return };
    for (partition, _) in board {
        if let (Some(old), Some(TopicState::Known(Some(new)))) =
            (&partition.topic_id, states.get(&partition.place.0))
            && old != new
        {
            shared.note(Note::Changed { place: partition.place.clone() });
        }
    }
}

/// Says that streams are no longer ours, if PostgreSQL listens. They are off the board before.
pub(super) async fn leave(shared: Arc<Shared>, streams: Vec<i32>) {
    if streams.is_empty() {
        return;
    }
    let _turn = shared.telling.lock().await;
    if let Ok(mut conn) = connect(&shared).await
        && let Err(e) = streams::leave(&mut conn, &shared.owner, &streams).await
    {
        tracing::debug!(error = %e, "kafka: status");
    }
}
