//! HTTP control of a generator inside a running process: `POST /v1/generator/start?batch_size=&log_interval=&event_interval=`,
//! `POST /v1/generator/stop`, `GET /v1/generator/status`. One runs at a time. Its records go to Kafka if there are brokers,
//! else to the process's own HTTP door, and so the way that everyone's records go.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use parking_lot::Mutex;
use rdkafka::ClientConfig;
use serde_json::json;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::{Kind, Result, Rows, Sort, Spec, http, kafka};
use crate::decode::time;
use crate::load::now_micros;

/// Where generated records go, and when to end.
#[derive(Clone)]
pub struct Config {
    /// Brokers, if there are any.
    pub kafka: Option<ClientConfig>,
    /// URL of the process's own HTTP door.
    pub url: String,
    /// The token that the door asks for.
    pub token: Option<String>,
    /// Ends a running generator with the process.
    pub stop: CancellationToken,
}

impl std::fmt::Debug for Config {
    // The client's properties and the token are secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("kafka", &self.kafka.is_some())
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// The routes, for the HTTP door's router.
pub fn routes(config: Config) -> Router {
    let control = Arc::new(Control { config, last: Mutex::new(None) });
    Router::new()
        .route("/v1/generator/start", post(start))
        .route("/v1/generator/stop", post(stop))
        .route("/v1/generator/status", get(status))
        .with_state(control)
}

struct Control {
    config: Config,
    /// The generator that was started last, running or not.
    last: Mutex<Option<Run>>,
}

struct Run {
    shared: Arc<Shared>,
    stop: CancellationToken,
    // Ends with the control.
    _task: AbortOnDropHandle<()>,
}

impl Run {
    fn is_running(&self) -> bool {
        self.shared.ended.lock().is_none()
    }
}

/// What a start asks for.
#[derive(Debug, Clone, PartialEq)]
struct Params {
    batch_size: u64,
    log_interval: Duration,
    event_interval: Duration,
    seed: u64,
    /// In a million.
    late: u32,
    duplicates: u32,
    bad: u32,
}

const NAMES: &str = "batch_size, log_interval, event_interval, seed, late, duplicates, bad";

impl Params {
    fn read(given: &HashMap<String, String>) -> Result<Params, String> {
        let mut params = Params {
            batch_size: 100,
            log_interval: Duration::from_secs(1),
            event_interval: Duration::from_secs(1),
            // Another seed at each start, so that rows of two runs differ.
            seed: now_micros().unsigned_abs(),
            late: 10_000,
            duplicates: 0,
            bad: 0,
        };
        for (name, value) in given {
            match name.as_str() {
                "batch_size" => {
                    let size = value.parse().ok().filter(|n| (1..=100_000).contains(n));
                    params.batch_size = size.ok_or("batch_size must be a number of records, 1 to 100000")?;
                }
                "log_interval" => params.log_interval = seconds(name, value)?,
                "event_interval" => params.event_interval = seconds(name, value)?,
                "seed" => {
                    params.seed =
                        value.parse().map_err(|_| "seed must be a whole number from 0".to_owned())?;
                }
                "late" => params.late = rate(name, value)?,
                "duplicates" => params.duplicates = rate(name, value)?,
                "bad" => params.bad = rate(name, value)?,
                _ => {
                    let name: String = name.chars().take(40).collect();
                    return Err(format!("unknown parameter {name:?}; known are {NAMES}"));
                }
            }
        }
        Ok(params)
    }

    fn spec(&self, kind: Kind) -> Spec {
        let base = match kind {
            Kind::Logs => Spec::logs(0),
            Kind::Events => Spec::events(0),
        };
        Spec { seed: self.seed, late: self.late, duplicates: self.duplicates, bad: self.bad, ..base }
    }
}

fn seconds(name: &str, value: &str) -> Result<Duration, String> {
    let seconds = value.parse::<f64>().ok().filter(|s| (0.01..=3600.0).contains(s));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("{name} must be a number of seconds, 0.01 to 3600"))
}

/// A share from 0 to 1, in a million.
fn rate(name: &str, value: &str) -> Result<u32, String> {
    let share = value.parse::<f64>().ok().filter(|s| (0.0..=1.0).contains(s));
    share
        .map(|s| (s * 1e6).round() as u32)
        .ok_or_else(|| format!("{name} must be a share from 0 to 1, such as 0.01"))
}

/// What a running generator tells.
#[derive(Debug)]
struct Shared {
    params: Params,
    sink: &'static str,
    since: i64,
    logs: AtomicU64,
    events: AtomicU64,
    bad: AtomicU64,
    errors: AtomicU64,
    last_error: Mutex<Option<String>>,
    /// Records sent at the last few moments, for the present rate.
    recent: Mutex<VecDeque<(Instant, u64)>>,
    ended: Mutex<Option<i64>>,
    /// Cancelled when it has ended.
    done: CancellationToken,
}

/// Says that the generator has ended, however it did.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        *self.0.ended.lock() = Some(now_micros());
        self.0.done.cancel();
    }
}

impl Shared {
    fn sent(&self) -> u64 {
        self.logs.load(Ordering::Relaxed) + self.events.load(Ordering::Relaxed)
    }

    fn note(&self) {
        let mut recent = self.recent.lock();
        recent.push_back((Instant::now(), self.sent()));
        while recent.len() > 2 && recent.front().is_some_and(|(t, _)| t.elapsed() > Duration::from_secs(10)) {
            recent.pop_front();
        }
    }

    fn fail(&self, error: &super::Error) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        let text = error.to_string();
        let mut last = self.last_error.lock();
        if last.as_ref() != Some(&text) {
            tracing::warn!(error = text, "generated records were not taken");
        }
        *last = Some(text);
    }

    fn describe(&self) -> serde_json::Value {
        let ended = *self.ended.lock();
        let rate = {
            let recent = self.recent.lock();
            match (recent.front(), recent.back()) {
                (Some((from, a)), Some((_, b))) if ended.is_none() && b > a => {
                    (b - a) as f64 / from.elapsed().as_secs_f64().max(0.001)
                }
                _ => 0.0,
            }
        };
        let Params { batch_size, log_interval, event_interval, seed, late, duplicates, bad } = &self.params;
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        json!({
            "running": ended.is_none(),
            "since": iso(self.since),
            "ended": ended.map(iso),
            "sink": self.sink,
            "batch_size": batch_size,
            "log_interval": log_interval.as_secs_f64(),
            "event_interval": event_interval.as_secs_f64(),
            "seed": seed,
            "late": f64::from(*late) / 1e6,
            "duplicates": f64::from(*duplicates) / 1e6,
            "bad": f64::from(*bad) / 1e6,
            "sent": { "logs": load(&self.logs), "events": load(&self.events), "bad": load(&self.bad) },
            "rate": (rate * 10.0).round() / 10.0,
            "errors": load(&self.errors),
            "last_error": self.last_error.lock().clone(),
        })
    }
}

fn iso(us: i64) -> String {
    let mut text = Vec::with_capacity(27);
    time::write(&mut text, us, b'T');
    text.push(b'Z');
    String::from_utf8(text).unwrap_or_default() // digits and signs only
}

fn problem(status: StatusCode, message: impl Into<String>) -> Response {
    (status, Json(json!({ "error": message.into() }))).into_response()
}

async fn start(
    State(control): State<Arc<Control>>,
    Query(given): Query<HashMap<String, String>>,
) -> Response {
    let params = match Params::read(&given) {
        Ok(params) => params,
        Err(why) => return problem(StatusCode::BAD_REQUEST, why),
    };
    let (sinks, name) = match control.sinks() {
        Ok(sinks) => sinks,
        Err(error) => return problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let mut last = control.last.lock();
    if last.as_ref().is_some_and(Run::is_running) {
        return problem(StatusCode::CONFLICT, "a generator is running; POST /v1/generator/stop ends it");
    }
    let shared = Arc::new(Shared {
        params,
        sink: name,
        since: now_micros(),
        logs: AtomicU64::new(0),
        events: AtomicU64::new(0),
        bad: AtomicU64::new(0),
        errors: AtomicU64::new(0),
        last_error: Mutex::new(None),
        recent: Mutex::new(VecDeque::from([(Instant::now(), 0)])),
        ended: Mutex::new(None),
        done: CancellationToken::new(),
    });
    let stop = control.config.stop.child_token();
    let task = tokio::spawn(run(shared.clone(), sinks, stop.clone()));
    let body = shared.describe();
    *last = Some(Run { shared, stop, _task: AbortOnDropHandle::new(task) });
    (StatusCode::OK, Json(body)).into_response()
}

async fn stop(State(control): State<Arc<Control>>) -> Response {
    let shared = match &*control.last.lock() {
        Some(run) if run.is_running() => {
            run.stop.cancel();
            run.shared.clone()
        }
        _ => return problem(StatusCode::CONFLICT, "no generator is running"),
    };
    // What was begun is sent to its end, so that the numbers told are final.
    if tokio::time::timeout(Duration::from_secs(10), shared.done.cancelled()).await.is_err() {
        return problem(StatusCode::ACCEPTED, "stopping; the last batch is still on its way");
    }
    (StatusCode::OK, Json(shared.describe())).into_response()
}

async fn status(State(control): State<Arc<Control>>) -> Response {
    let body = match &*control.last.lock() {
        Some(run) => run.shared.describe(),
        None => json!({ "running": false }),
    };
    (StatusCode::OK, Json(body)).into_response()
}

/// Where batches go.
enum Sink {
    Kafka(kafka::Sink),
    Http(http::Sink),
}

impl Control {
    fn sinks(&self) -> Result<([Sink; 2], &'static str)> {
        let Config { kafka, url, token, .. } = &self.config;
        if let Some(client) = kafka {
            let sink = || kafka::Sink::new(client, None).map(Sink::Kafka);
            return Ok(([sink()?, sink()?], "kafka"));
        }
        let sink = || http::Sink::new(url, token.clone()).map(Sink::Http);
        Ok(([sink()?, sink()?], "http"))
    }
}

/// The work of a table: its rows, and the batch that is being sent.
struct Work {
    kind: Kind,
    rows: Rows,
    number: u64,
}

/// Both tables side by side, each with a sink of its own: a slow one must not hold up the other.
async fn run(shared: Arc<Shared>, sinks: [Sink; 2], stop: CancellationToken) {
    let _ending = Ending(shared.clone());
    let Params { log_interval, event_interval, .. } = shared.params;
    let [logs, events] = sinks;
    tokio::join!(
        feed(&shared, logs, Kind::Logs, log_interval, &stop),
        feed(&shared, events, Kind::Events, event_interval, &stop)
    );
}

async fn feed(shared: &Arc<Shared>, sink: Sink, kind: Kind, every: Duration, stop: &CancellationToken) {
    let mut ticks = tokio::time::interval(every);
    // A slow sink gets fewer batches, never a flood of those it missed.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut work = Work { kind, rows: Rows::live(&shared.params.spec(kind)), number: 0 };
    let mut sink = Some(sink);
    while let Some(held) = sink.take() {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        sink = batch(shared, held, &mut work).await;
        shared.note();
    }
}

/// Makes and sends one batch. Gives the sink back, unless the step itself died.
async fn batch(shared: &Arc<Shared>, sink: Sink, work: &mut Work) -> Option<Sink> {
    work.rows.set_now(now_micros());
    let mut body = Vec::new();
    let mut ends = Vec::with_capacity(shared.params.batch_size as usize);
    let mut keys = Vec::new();
    let mut bad = 0;
    for _ in 0..shared.params.batch_size {
        let Some(line) = work.rows.next_line() else { break };
        body.extend_from_slice(line.bytes);
        body.push(b'\n');
        keys.extend_from_slice(line.key);
        ends.push((body.len(), keys.len()));
        bad += u64::from(line.sort == Sort::Bad);
    }
    let (kind, count) = (work.kind, ends.len() as u64);
    work.number += 1;
    let (sink, sent) = match sink {
        Sink::Http(door) => {
            let key =
                format!("generator-{}-{}-{}-{}", shared.since, shared.params.seed, kind.table(), work.number);
            let sent = door.send(kind, &key, Bytes::from(body)).await.map(|_| ());
            (Sink::Http(door), sent)
        }
        Sink::Kafka(mut producer) => {
            let sending = tokio::task::spawn_blocking(move || {
                let sent = produce(&mut producer, kind, &body, &keys, &ends);
                (producer, sent)
            });
            let (producer, sent) = sending.await.ok()?;
            (Sink::Kafka(producer), sent)
        }
    };
    match sent {
        Ok(()) => {
            let table = match kind {
                Kind::Logs => &shared.logs,
                Kind::Events => &shared.events,
            };
            table.fetch_add(count, Ordering::Relaxed);
            shared.bad.fetch_add(bad, Ordering::Relaxed);
        }
        Err(error) => shared.fail(&error),
    }
    Some(sink)
}

fn produce(
    producer: &mut kafka::Sink,
    kind: Kind,
    body: &[u8],
    keys: &[u8],
    ends: &[(usize, usize)],
) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(30);
    let (mut from, mut key_from) = (0, 0);
    for &(end, key_end) in ends {
        producer.send(kind, &keys[key_from..key_end], &body[from..end - 1], PATIENCE)?;
        (from, key_from) = (end, key_end);
    }
    producer.flush(PATIENCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(given: &[(&str, &str)]) -> Result<Params, String> {
        Params::read(&given.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn parameters_have_bounds_and_names() {
        let given =
            [("batch_size", "500"), ("log_interval", "0.25"), ("event_interval", "2"), ("bad", "0.01")];
        let params = read(&given).unwrap();
        assert_eq!((params.batch_size, params.bad, params.late), (500, 10_000, 10_000));
        assert_eq!(params.log_interval, Duration::from_millis(250));
        for (name, value) in [
            ("batch_size", "0"),
            ("batch_size", "100001"),
            ("batch_size", "many"),
            ("log_interval", "0"),
            ("log_interval", "NaN"),
            ("event_interval", "3601"),
            ("event_interval", "-1"),
            ("seed", "-1"),
            ("late", "1.5"),
            ("duplicates", "x"),
            ("bad", "inf"),
            ("batchsize", "1"),
        ] {
            let why = read(&[(name, value)]).unwrap_err();
            assert!(why.contains(name), "{why}");
        }
    }
}
