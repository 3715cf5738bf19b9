//! The generator's sinks and its HTTP control, against a real PostgreSQL and the mock cluster that comes with librdkafka.

mod common;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use axum::Router;
use common::Database;
use ingest::generate::{self, Kind, Rows, Sort, Spec, control, http, kafka};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message as _;
use rdkafka::mocking::MockCluster;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const PARTITIONS: i32 = 4;
const PATIENCE: Duration = Duration::from_secs(60);

fn spec(kind: Kind, rows: u64) -> Spec {
    let base = match kind {
        Kind::Logs => Spec::logs(rows),
        Kind::Events => Spec::events(rows),
    };
    Spec { seed: 11, late: 20_000, duplicates: 20_000, bad: 30_000, ..base }
}

/// All records in order, with their sort.
fn lines(spec: &Spec) -> Vec<(Vec<u8>, Vec<u8>, Sort)> {
    let mut rows = Rows::starting_at(spec, 0);
    let mut all = Vec::new();
    while let Some(line) = rows.next_line() {
        all.push((line.key.to_vec(), line.bytes.to_vec(), line.sort));
    }
    all
}

/// A door on a free port, with more routes if asked for.
async fn door(db: &Database, more: impl FnOnce(String) -> Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let config = ingest::http::Config { database_url: db.url(), ..Default::default() };
    let router = ingest::http::router(config).unwrap().merge(more(url.clone()));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

fn kafka_read(client: ClientConfig, topic: &str, wanted: usize) -> Vec<(Vec<u8>, Vec<u8>, i32)> {
    let mut config = client;
    config.set("group.id", "reader").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut all = TopicPartitionList::new();
    for p in 0..PARTITIONS {
        all.add_partition_offset(topic, p, Offset::Beginning).unwrap();
    }
    consumer.assign(&all).unwrap();
    let (mut got, began) = (Vec::new(), Instant::now());
    while got.len() < wanted {
        assert!(began.elapsed() < PATIENCE, "{} of {wanted} messages", got.len());
        if let Some(Ok(m)) = consumer.poll(Duration::from_millis(100)) {
            got.push((m.key().unwrap().to_vec(), m.payload().unwrap().to_vec(), m.partition()));
        }
    }
    got
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_records_are_refused_and_no_others() {
    let db = Database::new().await;
    let url = door(&db, |_| Router::new()).await;
    let sink = http::Sink::new(&url, None).unwrap();
    let stop = CancellationToken::new();
    let specs = [spec(Kind::Logs, 9000), spec(Kind::Events, 3000)];
    let (counts, answered) = http::send_all(&sink, &specs, 700, None, &stop).await.unwrap();
    assert_eq!(counts.records(), 12_000);
    assert!(counts.bad > 250 && counts.duplicates > 150 && counts.late > 100, "{counts:?}");
    assert_eq!((answered.accepted, answered.rejected, answered.retries), (counts.good(), counts.bad, 0));
    let rows = db.count("SELECT (SELECT count(*) FROM logs) + (SELECT count(*) FROM events)").await;
    assert_eq!(rows as u64, counts.good());
    assert_eq!(db.count("SELECT count(*) FROM watershed.dead_letters").await as u64, counts.bad);
    // Every way of being wrong is among them, and each letter holds the record itself.
    assert!(db.count("SELECT count(DISTINCT reason) FROM watershed.dead_letters").await >= 5);
    let fresh = specs.iter().flat_map(lines).filter(|l| l.2 == Sort::Fresh).count();
    let distinct = "SELECT (SELECT count(*) FROM (SELECT DISTINCT ts, host, message, metadata FROM logs) l) \
                    + (SELECT count(DISTINCT event_id) FROM events)";
    assert_eq!(db.count(distinct).await as usize, fresh);
    // The same call again finds its keys and adds nothing.
    let (_, again) = http::send_all(&sink, &specs, 700, None, &stop).await.unwrap();
    assert_eq!((again.accepted, again.rejected), (answered.accepted, answered.rejected));
    assert_eq!(db.count("SELECT (SELECT count(*) FROM logs) + (SELECT count(*) FROM events)").await, rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_gets_the_bytes_that_a_file_gets() {
    let mock = MockCluster::new(1).unwrap();
    for topic in ["logs.raw", "events.raw", "other"] {
        mock.create_topic(topic, PARTITIONS, 1).unwrap();
    }
    let client = ingest::kafka::client(&mock.bootstrap_servers(), &BTreeMap::new());
    let specs = vec![spec(Kind::Logs, 6000), spec(Kind::Events, 2000)];
    let sending = (client.clone(), specs.clone());
    let send = move |topic: Option<String>, specs: Vec<Spec>| {
        let client = sending.0.clone();
        tokio::task::spawn_blocking(move || {
            kafka::send_all(&client, topic, &specs, None, &CancellationToken::new())
        })
    };
    let counts = send(None, specs.clone()).await.unwrap().unwrap();
    assert_eq!(counts.records(), 8000);
    send(Some("other".into()), specs[..1].to_vec()).await.unwrap().unwrap();
    for (topic, spec) in [("logs.raw", &specs[0]), ("events.raw", &specs[1]), ("other", &specs[0])] {
        let (client, count) = (client.clone(), spec.rows as usize);
        let got = tokio::task::spawn_blocking(move || kafka_read(client, topic, count)).await.unwrap();
        let wanted = lines(spec);
        // A key stays in its partition, and its records in their order.
        let mut homes: BTreeMap<&[u8], i32> = BTreeMap::new();
        for (key, _, partition) in &got {
            assert_eq!(homes.entry(key).or_insert(*partition), partition);
        }
        let of_key = |all: Vec<(&Vec<u8>, &Vec<u8>)>| {
            let mut by: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
            for (key, bytes) in all {
                by.entry(key.clone()).or_default().push(bytes.clone());
            }
            by
        };
        let (got, wanted) = (
            of_key(got.iter().map(|g| (&g.0, &g.1)).collect()),
            of_key(wanted.iter().map(|w| (&w.0, &w.1)).collect()),
        );
        assert!(got == wanted, "{topic}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pace_is_kept_and_a_stop_heard() {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("logs.raw", PARTITIONS, 1).unwrap();
    let client = ingest::kafka::client(&mock.bootstrap_servers(), &BTreeMap::new());
    let stop = CancellationToken::new();
    let (token, began) = (stop.clone(), Instant::now());
    let sending = tokio::task::spawn_blocking(move || {
        kafka::send_all(&client, None, &[Spec::logs(u64::from(u32::MAX))], Some(2000), &token)
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.cancel();
    let Err(generate::Error::Cancelled(counts)) = sending.await.unwrap() else { panic!("it was stopped") };
    let most = 2000.0 * began.elapsed().as_secs_f64() + 64.0;
    assert!(counts.records() >= 64 && counts.records() as f64 <= most, "{counts:?} of {most}");
}

struct Door {
    url: String,
    client: reqwest::Client,
}

impl Door {
    async fn ask(&self, method: &str, path: &str) -> (u16, Value) {
        let request =
            self.client.request(method.parse().unwrap(), format!("{}/v1/generator/{path}", self.url));
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_str(&response.text().await.unwrap()).unwrap())
    }

    async fn until(&self, what: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let (status, body) = self.ask("GET", "status").await;
            assert_eq!(status, 200);
            if what(&body) {
                return body;
            }
            assert!(began.elapsed() < PATIENCE, "{body}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn control_over(kafka: Option<ClientConfig>, stop: &CancellationToken) -> impl FnOnce(String) -> Router {
    let stop = stop.clone();
    move |url| control::routes(control::Config { kafka, url, token: None, stop })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generator_is_started_and_stopped_by_http() {
    let db = Database::new().await;
    let stop = CancellationToken::new();
    let url = door(&db, control_over(None, &stop)).await;
    let door = Door { url, client: reqwest::Client::new() };
    assert_eq!(door.ask("GET", "status").await, (200, serde_json::json!({ "running": false })));
    assert_eq!(door.ask("POST", "stop").await.0, 409);
    for wrong in ["batch_size=0", "log_interval=abc", "event_interval=-1", "bad=2", "bach_size=1"] {
        let (status, body) = door.ask("POST", &format!("start?{wrong}")).await;
        assert_eq!(status, 400, "{body}");
        assert!(body["error"].as_str().unwrap().contains(wrong.split('=').next().unwrap()), "{body}");
    }
    let asked = "start?batch_size=50&log_interval=0.02&event_interval=0.05&seed=3&bad=0.1";
    let (status, body) = door.ask("POST", asked).await;
    assert_eq!(
        (status, body["running"].as_bool(), body["sink"].as_str()),
        (200, Some(true), Some("http")),
        "{body}"
    );
    assert_eq!(door.ask("POST", "start").await.0, 409);
    let many =
        |b: &Value| b["sent"]["logs"].as_u64() >= Some(500) && b["sent"]["events"].as_u64() >= Some(200);
    let body = door.until(many).await;
    assert!(body["rate"].as_f64().unwrap() > 0.0 && body["errors"] == 0, "{body}");
    let (status, body) = door.ask("POST", "stop").await;
    assert_eq!((status, body["running"].as_bool()), (200, Some(false)), "{body}");
    let sent = |name: &str| body["sent"][name].as_u64().unwrap();
    let stored = |table: &'static str| {
        let db = &db;
        async move { db.count(&format!("SELECT count(*) FROM {table}")).await as u64 }
    };
    let letters = stored("watershed.dead_letters").await;
    assert_eq!(stored("logs").await + stored("events").await + letters, sent("logs") + sent("events"));
    assert_eq!(letters, sent("bad"));
    assert!(letters > 20);
    // Rows happen now; a stopped generator can be started again.
    assert!(db.count("SELECT count(*) FROM logs WHERE ts > now() - interval '5 minutes'").await > 400);
    assert_eq!(door.ask("POST", "start?log_interval=3600").await.0, 200);
    stop.cancel();
    door.until(|b| b["running"] == false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generator_sends_to_kafka_if_there_are_brokers() {
    let db = Database::new().await;
    let mock = MockCluster::new(1).unwrap();
    for topic in ["logs.raw", "events.raw"] {
        mock.create_topic(topic, PARTITIONS, 1).unwrap();
    }
    // Slower than the intervals below: neither table may wait for the other to have nothing to do.
    mock.broker_round_trip_time(1, Duration::from_millis(60)).unwrap();
    let client = ingest::kafka::client(&mock.bootstrap_servers(), &BTreeMap::new());
    let url = door(&db, control_over(Some(client.clone()), &CancellationToken::new())).await;
    let door = Door { url, client: reqwest::Client::new() };
    let (_, body) = door.ask("POST", "start?batch_size=20&log_interval=0.02&event_interval=0.02").await;
    assert_eq!(body["sink"], "kafka");
    door.until(|b| b["sent"]["logs"].as_u64() >= Some(200) && b["sent"]["events"].as_u64() >= Some(100))
        .await;
    let (_, body) = door.ask("POST", "stop").await;
    for (topic, table) in [("logs.raw", "logs"), ("events.raw", "events")] {
        let (client, sent) = (client.clone(), body["sent"][table].as_u64().unwrap() as usize);
        let got = tokio::task::spawn_blocking(move || kafka_read(client, topic, sent)).await.unwrap();
        assert_eq!(got.len(), sent);
    }
    assert_eq!(db.count("SELECT count(*) FROM logs").await, 0);
}
