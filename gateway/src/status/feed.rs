//! The stream of events: new statements every second, and every few seconds how both stores are. All of it is asked of the virtual tables
//! with the user's own session; what may not be asked, or failed, is left out and told. ✗ drawing.

use super::ask::{keep, objects};
use super::client::{Bounds, ClientError};
use super::sessions::{Stream, WebSession};
use super::{failed, guard};
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Statements of the past that a new page gets, and how many at once later.
const PAST: u32 = 1500;
const AT_ONCE: u32 = 500;
/// Between two looks at the stores.
const STATE_EVERY: Duration = Duration::from_secs(4);
/// Events that may wait for a browser.
const WAITING: usize = 8;

/// What is asked of the stores: name of the event's part, and statement.
const STATE: &[(&str, &str)] = &[
    (
        "tables",
        "SELECT table_name, hot_days, lake_days, floor, lake_floor, retention_note, archived_at, first_day, days, postgres_bytes, late_bytes, \
         extract(epoch FROM now() - archived_at)::int8 AS boundary_age FROM watershed.tables ORDER BY table_name",
    ),
    (
        "streams",
        "SELECT table_name, kind, topic, partition, next_offset, lag_records, lag_seconds, gaps, state FROM watershed.streams \
         WHERE kind = 'kafka' AND ended_at IS NULL ORDER BY lag_records DESC NULLS LAST, table_name, topic, partition LIMIT 50",
    ),
    (
        "files",
        "SELECT table_schema, table_name, day, rows, bytes, sorted, first_event, last_event, written_at FROM watershed.files \
         ORDER BY table_schema, table_name, day, bytes DESC LIMIT 2000",
    ),
    (
        "compactions",
        "SELECT id, table_name, day, reason, outcome, finished_at, files_before, files_after, rows, bytes_before, bytes_after, error \
         FROM watershed.compactions WHERE kind = 'rewrite' ORDER BY id DESC LIMIT 12",
    ),
    (
        "comparisons",
        "SELECT id, compared_at, sql, verdict, lake_us, postgres_us, rows, detail FROM watershed.comparisons ORDER BY id DESC LIMIT 12",
    ),
    (
        "pairs",
        "SELECT fingerprint, route, sample_sql, calls, p50_us, p95_us FROM watershed.route_stats \
         WHERE route IN ('postgres', 'lake') AND fingerprint <> 'other' ORDER BY calls DESC LIMIT 400",
    ),
    (
        "letters",
        "SELECT stage, reason, count(*) AS records, max(received_at) AS last FROM watershed.dead_letters \
         WHERE received_at > now() - interval '1 hour' GROUP BY stage, reason ORDER BY max(received_at) DESC LIMIT 10",
    ),
    (
        "metrics",
        "SELECT name, labels, value FROM watershed.metrics WHERE name IN ('watershed_ingest_rows_total', 'watershed_ingest_rejected_total', \
         'watershed_archiver_tail_rows', 'watershed_archiver_rows_total', 'watershed_problem', 'watershed_pressure_closed', \
         'watershed_lake_memory_bytes', 'watershed_lake_memory_limit_bytes', 'watershed_lake_queries_running', \
         'watershed_lake_queries_waiting', 'watershed_sessions', 'watershed_sessions_limit', 'watershed_oldest_writer_seconds', \
         'watershed_compactor_debt_files', 'watershed_boundary_age_seconds', 'watershed_fallbacks_total', 'watershed_kafka_lag_records')",
    ),
];

/// The answer to a browser that listens from `last` on.
pub(super) fn stream(of: Stream, last: Option<i64>, pace: Duration, stop: CancellationToken) -> Response {
    let (send, receive) = mpsc::channel::<Bytes>(WAITING);
    tokio::spawn(async move {
        let ended = of.0.ended();
        // The task ends between two questions, never in one: the session stays whole for others.
        let mut feed = Feed { session: &of.0, last, send };
        let mut looked: Option<Instant> = None;
        loop {
            if stop.is_cancelled() || ended.is_cancelled() {
                feed.tell("ended", None, &json!({})).await;
                return;
            }
            let due = looked.is_none_or(|at| at.elapsed() >= STATE_EVERY);
            let told = async {
                feed.statements().await?;
                if due { feed.state().await } else { Ok(true) }
            };
            match told.await {
                Ok(true) => {}
                // Nobody listens any more.
                Ok(false) => return,
                Err(error) => {
                    feed.tell("ended", None, &failed(&error)).await;
                    return;
                }
            }
            if due {
                looked = Some(Instant::now());
            }
            tokio::select! {
                () = tokio::time::sleep(pace) => {}
                () = feed.send.closed() => return,
                () = stop.cancelled() => {}
                () = ended.cancelled() => {}
            }
        }
    });
    let events = stream::unfold(receive, |mut receive| async move {
        let event = receive.recv().await?;
        Some((Ok::<_, Infallible>(event), receive))
    });
    let mut response = Body::from_stream(events).into_response();
    guard(response.headers_mut());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

struct Feed<'a> {
    session: &'a WebSession,
    /// The last statement that was told.
    last: Option<i64>,
    send: mpsc::Sender<Bytes>,
}

impl Feed<'_> {
    /// Statements since the last look. False: nobody listens.
    async fn statements(&mut self) -> Result<bool, ClientError> {
        let (from, limit) = match self.last {
            None => (String::new(), PAST),
            Some(last) => (format!("WHERE id > {last} "), AT_ONCE),
        };
        let sql = format!(
            "SELECT id, started_at, usename, sql, fingerprint, route, reasons, classify_us, probe_us, plan_us, tail_us, first_row_us, total_us, \
             rows, lake_files, lake_bytes, tail_rows, fell_back, sqlstate, error FROM watershed.queries {from}ORDER BY id DESC LIMIT {limit}"
        );
        let asked = {
            let mut eyes = self.session.eyes.lock().await;
            keep(eyes.ask(&sql, Bounds { rows: limit, bytes: 4 << 20 }).await)?
        };
        match asked {
            Ok(answer) => {
                let mut rows = objects(&answer);
                rows.reverse();
                let newest = rows.last().and_then(|row| row["id"].as_str()?.parse().ok());
                // The log's numbers begin anew with the gateway.
                if newest.is_none() && !rows.is_empty() {
                    return Ok(true);
                }
                for row in &mut rows {
                    shorten(row, "sql", 400);
                    shorten(row, "reasons", 400);
                    shorten(row, "error", 400);
                }
                let first = self.last.is_none();
                self.last = newest.or(self.last).or(Some(0));
                if rows.is_empty() && !first {
                    // Something must come now and then, or a browser that is gone is not noticed.
                    return Ok(self.send.send(Bytes::from_static(b":\n\n")).await.is_ok());
                }
                Ok(self.tell("statements", self.last, &Value::Array(rows)).await)
            }
            Err(error) => Ok(self.tell("trouble", None, &failed(&error)).await),
        }
    }

    /// How the stores are. False: nobody listens.
    async fn state(&mut self) -> Result<bool, ClientError> {
        let mut state = serde_json::Map::new();
        for (name, sql) in STATE {
            let asked = {
                let mut eyes = self.session.eyes.lock().await;
                keep(eyes.ask(sql, Bounds { rows: 2000, bytes: 1 << 20 }).await)?
            };
            let part = match asked {
                Ok(answer) => Value::Array(objects(&answer)),
                // A right that is missing is no trouble: that part is not shown.
                Err(error) => json!({ "error": failed(&error) }),
            };
            state.insert((*name).to_owned(), part);
        }
        Ok(self.tell("state", None, &Value::Object(state)).await)
    }

    /// Sends one event. JSON has no line ends, so that one line is all of it. False: nobody listens.
    async fn tell(&mut self, event: &str, id: Option<i64>, data: &Value) -> bool {
        let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
        self.send.send(format!("event: {event}\n{id}data: {data}\n\n").into()).await.is_ok()
    }
}

fn shorten(row: &mut Value, key: &str, most: usize) {
    if let Some(text) = row[key].as_str()
        && let Some((at, _)) = text.char_indices().nth(most)
    {
        row[key] = format!("{}…", &text[..at]).into();
    }
}
