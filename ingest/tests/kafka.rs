//! The Kafka source against a real PostgreSQL: with a mock cluster inside librdkafka, and where a mock cannot do it (topics
//! made anew, records deleted, transactions, compaction) with a real broker.

mod common;
#[path = "../../cli/tests/support/kafka.rs"]
mod real;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::{Database, run};
use ingest::kafka::Config;
use ingest::pressure::Pressure;
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DefaultProducerContext, FutureProducer, FutureRecord};
use real::{Broker, Producer};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(90);

struct Kafka {
    mock: MockCluster<'static, DefaultProducerContext>,
    producer: FutureProducer,
}

impl Kafka {
    fn new(topics: &[(&str, i32)]) -> Kafka {
        let mock = MockCluster::new(1).unwrap();
        for (name, partitions) in topics {
            mock.create_topic(name, *partitions, 1).unwrap();
        }
        let producer =
            ClientConfig::new().set("bootstrap.servers", mock.bootstrap_servers()).create().unwrap();
        Kafka { mock, producer }
    }

    async fn send(&self, topic: &str, partition: i32, value: Option<&[u8]>) -> i64 {
        let mut record = FutureRecord::<[u8], [u8]>::to(topic).partition(partition).key(b"k");
        record.payload = value;
        self.producer.send(record, PATIENCE).await.unwrap().offset
    }

    async fn send_logs(&self, topic: &str, partition: i32, numbers: std::ops::Range<i64>) {
        for n in numbers {
            self.send(topic, partition, Some(log(n).as_bytes())).await;
        }
    }

    fn config(&self, db: &Database) -> Config {
        let properties = [
            ("session.timeout.ms", "6000"),
            ("heartbeat.interval.ms", "500"),
            ("topic.metadata.refresh.interval.ms", "1000"),
        ];
        Config {
            properties: properties.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            batch_delay: Duration::from_millis(50),
            status_interval: Duration::from_millis(300),
            ..Config::new(&self.mock.bootstrap_servers(), &db.url())
        }
    }
}

fn log(n: i64) -> String {
    format!(
        r#"{{"ts":"2026-01-02T03:04:05Z","level":"INFO","service":"s","host":"h","message":"m{n}","n":{n}}}"#
    )
}

struct Running {
    stop: CancellationToken,
    task: JoinHandle<ingest::Result<()>>,
}

impl Running {
    fn start(config: Config) -> Running {
        let stop = CancellationToken::new();
        let token = stop.clone();
        let task = tokio::spawn(async move {
            let ended = ingest::kafka::run(config, token).await;
            if let Err(e) = &ended {
                eprintln!("the source ended: {e}");
            }
            ended
        });
        Running { task, stop }
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("it stops").unwrap().unwrap();
    }
}

async fn wait_for(what: &str, db: &Database, sql: &str, expected: i64) {
    let began = Instant::now();
    let mut got = None;
    while began.elapsed() < PATIENCE {
        let now = db.count(sql).await;
        if now == expected {
            return;
        }
        got = Some(now);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let streams = db.texts("SELECT s::text FROM watershed.streams s WHERE kind = 'kafka'").await;
    panic!("{what}: {got:?} instead of {expected}; streams: {streams:#?}");
}

const ROWS: &str = "SELECT count(*) FROM logs";
const DISTINCT: &str = "SELECT count(DISTINCT (_stream, _offset)) FROM logs";

#[tokio::test(flavor = "multi_thread")]
async fn records_become_rows_with_their_own_offsets_and_are_read_on_where_postgresql_has_them() {
    let (db, kafka) = (Database::new().await, Kafka::new(&[("logs.raw", 2), ("events.raw", 1)]));
    kafka.send_logs("logs.raw", 0, 0..100).await;
    kafka.send_logs("logs.raw", 1, 100..150).await;
    kafka
        .send(
            "events.raw",
            0,
            Some(br#"{"event_id":"7f3b6f57-6a52-4f5e-9d0e-1d1f3d1f0001","ts":1700000000.5,"user_id":"u"}"#),
        )
        .await;
    let first = Running::start(kafka.config(&db));
    wait_for("logs", &db, ROWS, 150).await;
    wait_for("events", &db, "SELECT count(*) FROM events", 1).await;
    first.stop().await;
    // Offsets are Kafka's own, and say which record it was.
    let own = "SELECT count(*) FROM logs l JOIN watershed.streams s ON s.id = l._stream \
               WHERE s.topic = 'logs.raw' AND (l.metadata->>'n')::int = l._offset + 100 * s.partition";
    assert_eq!(db.count(own).await, 150);
    assert_eq!(
        db.count("SELECT next_offset FROM watershed.streams WHERE topic = 'logs.raw' AND partition = 1")
            .await,
        50
    );

    kafka.send_logs("logs.raw", 0, 100..130).await;
    let second = Running::start(kafka.config(&db));
    wait_for("the rest", &db, ROWS, 180).await;
    wait_for("no lag", &db, "SELECT count(*) FROM watershed.streams WHERE kind = 'kafka' AND lag_records = 0 AND state = 'reading' AND lag_seconds = 0", 3).await;
    second.stop().await;
    assert_eq!(db.count(DISTINCT).await, 180);
    assert_eq!(db.count("SELECT count(*) FROM watershed.streams WHERE kind = 'kafka'").await, 3);
    assert_eq!(db.count("SELECT count(*) FROM watershed.streams WHERE state = 'unattended'").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_position_of_postgresql_counts_whatever_kafka_keeps() {
    let (db, kafka) = (Database::new().await, Kafka::new(&[("logs.raw", 1), ("events.raw", 1)]));
    kafka.send_logs("logs.raw", 0, 0..20).await;
    let first = Running::start(kafka.config(&db));
    wait_for("logs", &db, ROWS, 20).await;
    first.stop().await;
    // As after a restore: the rows and the position of an earlier moment, while Kafka remembers 20.
    db.run("SET watershed.maintenance = on; DELETE FROM logs WHERE _offset >= 12; UPDATE watershed_control.positions \
            SET next_offset = 12 WHERE stream = (SELECT id FROM watershed_control.streams WHERE topic = 'logs.raw')").await;
    let second = Running::start(kafka.config(&db));
    wait_for("read again", &db, ROWS, 20).await;
    second.stop().await;
    assert_eq!(db.count(DISTINCT).await, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_records_cost_only_themselves_and_tombstones_give_no_row() {
    let (db, kafka) = (Database::new().await, Kafka::new(&[("logs.raw", 1), ("events.raw", 1)]));
    kafka.send_logs("logs.raw", 0, 0..10).await;
    kafka.send("logs.raw", 0, Some(b"{\"ts\": nonsense")).await;
    kafka.send("logs.raw", 0, None).await;
    kafka.send("logs.raw", 0, Some(b"{\"message\":\"no time\"}")).await;
    kafka.send("logs.raw", 0, Some(b"\xff\xfe{}")).await;
    kafka.send_logs("logs.raw", 0, 14..20).await;
    let source = Running::start(kafka.config(&db));
    wait_for("rows", &db, ROWS, 16).await;
    wait_for("position", &db, &position("logs.raw"), 20).await;
    source.stop().await;
    let letters =
        db.texts("SELECT position || ' ' || stage FROM watershed.dead_letters ORDER BY kafka_offset").await;
    assert_eq!(letters, ["logs.raw/0/10 decode", "logs.raw/0/12 map", "logs.raw/0/13 decode"]);
    assert_eq!(db.texts("SELECT encode(key, 'escape') FROM watershed.dead_letters").await, ["k"; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_postgresql_refuses_is_found_by_halving() {
    let (db, kafka) = (Database::new().await, Kafka::new(&[("orders", 1)]));
    db.run("CREATE TABLE strict (ts timestamptz NOT NULL, message text CHECK (message <> 'forbidden'), metadata jsonb); \
            SELECT watershed.attach_table('strict', event_time => 'ts', overflow => 'metadata')").await;
    for n in 0..40 {
        let message = if n == 17 || n == 31 { "forbidden".to_owned() } else { format!("m{n}") };
        kafka
            .send(
                "orders",
                0,
                Some(format!(r#"{{"ts":"2026-01-01T00:00:00Z","message":"{message}"}}"#).as_bytes()),
            )
            .await;
    }
    let route = serde_json::from_str(r#"{"topic":"orders","table":"strict"}"#).unwrap();
    let source = Running::start(Config { topics: vec![route], ..kafka.config(&db) });
    wait_for("position", &db, &position("orders"), 40).await;
    source.stop().await;
    assert_eq!(db.count("SELECT count(*) FROM strict WHERE message = 'm' || _offset").await, 38);
    let letters =
        db.texts("SELECT position || ' ' || stage FROM watershed.dead_letters ORDER BY kafka_offset").await;
    assert_eq!(letters, ["orders/0/17 postgres", "orders/0/31 postgres"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_share_partitions_and_hand_them_over() {
    let (db, kafka) = (Database::new().await, Kafka::new(&[("logs.raw", 4), ("events.raw", 1)]));
    let config = |name: &str| Config { owner: name.to_owned(), ..kafka.config(&db) };
    let first = Running::start(config("first"));
    wait_for("all with the first", &db, "SELECT count(*) FROM watershed.streams WHERE owner = 'first' AND topic = 'logs.raw' AND state = 'reading'", 4).await;
    for p in 0..4 {
        kafka.send_logs("logs.raw", p, 0..50).await;
    }
    let second = Running::start(config("second"));
    wait_for("shared", &db, "SELECT count(DISTINCT owner) FROM watershed.streams WHERE state = 'reading' AND topic = 'logs.raw'", 2).await;
    for p in 0..4 {
        kafka.send_logs("logs.raw", p, 50..100).await;
    }
    wait_for("rows", &db, ROWS, 400).await;
    first.stop().await;
    for p in 0..4 {
        kafka.send_logs("logs.raw", p, 100..120).await;
    }
    wait_for("all by the second", &db, ROWS, 480).await;
    second.stop().await;
    assert_eq!(db.count(DISTINCT).await, 480);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_what_another_has_moved_past_is_fenced_and_goes_on_behind_it() {
    let (db, kafka) = (Database::new().await, Kafka::new(&[("logs.raw", 1), ("events.raw", 1)]));
    // Two groups read the same topic into the same table: neither knows of the other, and each is the other's zombie.
    let one = Running::start(Config { group: "a".into(), owner: "a".into(), ..kafka.config(&db) });
    let two = Running::start(Config { group: "b".into(), owner: "b".into(), ..kafka.config(&db) });
    for n in 0..10 {
        kafka.send_logs("logs.raw", 0, n * 30..(n + 1) * 30).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    wait_for("rows", &db, ROWS, 300).await;
    one.stop().await;
    two.stop().await;
    assert_eq!(db.count(DISTINCT).await, 300);
    assert_eq!(db.count("SELECT next_offset FROM watershed.streams WHERE topic = 'logs.raw'").await, 300);
    assert_eq!(db.count("SELECT count(*) FROM watershed.streams WHERE topic = 'logs.raw'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_lineage_takes_no_records_until_it_is_rebased() {
    let (db, kafka) = (Database::new().await, Kafka::new(&[("logs.raw", 1), ("events.raw", 1)]));
    db.run("UPDATE watershed_control.tables SET lineage = '1/1' WHERE table_name = 'logs'").await;
    kafka.send_logs("logs.raw", 0, 0..10).await;
    kafka
        .send(
            "events.raw",
            0,
            Some(br#"{"event_id":"7f3b6f57-6a52-4f5e-9d0e-1d1f3d1f0001","ts":1700000000,"user_id":"u"}"#),
        )
        .await;
    let source = Running::start(kafka.config(&db));
    wait_for(
        "said",
        &db,
        "SELECT count(*) FROM watershed.streams WHERE topic = 'logs.raw' AND state LIKE '%rebase%'",
        1,
    )
    .await;
    wait_for("the other table goes on", &db, "SELECT count(*) FROM events", 1).await;
    assert_eq!(db.count(ROWS).await, 0);
    db.run("UPDATE watershed_control.tables SET lineage = watershed_control.current_lineage()").await;
    wait_for("rows", &db, ROWS, 10).await;
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_is_added_is_filled_from_then_on() {
    let (db, kafka) = (Database::new().await, Kafka::new(&[("logs.raw", 1), ("events.raw", 1)]));
    let source = Running::start(kafka.config(&db));
    kafka.send_logs("logs.raw", 0, 0..10).await;
    wait_for("rows", &db, ROWS, 10).await;
    db.run("ALTER TABLE logs ADD COLUMN n int").await;
    kafka.send_logs("logs.raw", 0, 10..20).await;
    wait_for("filled", &db, "SELECT count(*) FROM logs WHERE n = _offset", 10).await;
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_stop_commits_what_was_taken() {
    let (db, kafka) = (Database::new().await, Kafka::new(&[("logs.raw", 1), ("events.raw", 1)]));
    kafka.send_logs("logs.raw", 0, 0..10).await;
    let began = Instant::now();
    let mut patience = Duration::from_millis(500);
    // Only a stop ends such a batch.
    while db.count(ROWS).await < 10 {
        assert!(began.elapsed() < PATIENCE, "a stop never commits what was taken");
        let source =
            Running::start(Config { batch_delay: Duration::from_secs(3600), ..kafka.config(&db) });
        tokio::time::sleep(patience).await;
        source.stop().await;
        patience *= 2;
    }
    assert_eq!(db.count(ROWS).await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_on_the_table_pauses_and_loses_nothing() {
    let (db, kafka) = (Database::new().await, Kafka::new(&[("logs.raw", 2), ("events.raw", 1)]));
    let source = Running::start(Config { batch_rows: 50, ..kafka.config(&db) });
    kafka.send_logs("logs.raw", 0, 0..10).await;
    wait_for("rows", &db, ROWS, 10).await;
    let mut admin = db.admin().await;
    run(&mut admin, "BEGIN; LOCK TABLE logs IN ACCESS EXCLUSIVE MODE").await;
    // More than all stages of the pipeline hold.
    kafka.send_logs("logs.raw", 0, 10..600).await;
    kafka.send_logs("logs.raw", 1, 0..100).await;
    kafka
        .send(
            "events.raw",
            0,
            Some(br#"{"event_id":"7f3b6f57-6a52-4f5e-9d0e-1d1f3d1f0001","ts":1700000000,"user_id":"u"}"#),
        )
        .await;
    wait_for("the other table goes on", &db, "SELECT count(*) FROM events", 1).await;
    run(&mut admin, "ROLLBACK").await;
    wait_for("rows", &db, ROWS, 700).await;
    source.stop().await;
    assert_eq!(db.count(DISTINCT).await, 700);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_are_killed_in_any_moment_double_nothing() {
    let (db, kafka) = (Database::new().await, Kafka::new(&[("logs.raw", 3), ("events.raw", 1)]));
    let source =
        Running::start(Config { batch_rows: 40, batch_delay: Duration::from_millis(5), ..kafka.config(&db) });
    let killer = async {
        for _ in 0..40 {
            db.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'watershed kafka' AND random() < 0.5").await;
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    };
    let sender = async {
        for n in 0..10 {
            for p in 0..3 {
                kafka.send_logs("logs.raw", p, n * 40..(n + 1) * 40).await;
            }
        }
    };
    tokio::join!(killer, sender);
    wait_for("rows", &db, ROWS, 1200).await;
    source.stop().await;
    assert_eq!(db.count(DISTINCT).await, 1200);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_would_lose_records_are_refused() {
    let (db, kafka) = (Database::new().await, Kafka::new(&[("logs.raw", 1)]));
    let properties: BTreeMap<String, String> = [("auto.offset.reset".to_owned(), "latest".to_owned())].into();
    let refused =
        ingest::kafka::run(Config { properties, ..kafka.config(&db) }, CancellationToken::new()).await;
    assert!(refused.unwrap_err().to_string().contains("auto.offset.reset"));
    let none = Config { topics: Vec::new(), pressure: Pressure::always_open(), ..kafka.config(&db) };
    assert!(ingest::kafka::run(none, CancellationToken::new()).await.is_err());
}

/// A source of one topic of the real broker, into `logs`.
fn of_broker(db: &Database, topic: &str) -> Config {
    let route = serde_json::from_value(serde_json::json!({ "topic": topic, "table": "logs" })).unwrap();
    let properties = [("topic.metadata.refresh.interval.ms", "1000"), ("session.timeout.ms", "10000")];
    Config {
        topics: vec![route],
        group: format!("group of {topic}"),
        properties: properties.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        batch_delay: Duration::from_millis(50),
        status_interval: Duration::from_millis(300),
        ..Config::new(&Broker::shared().bootstrap(), &db.url())
    }
}

fn send(producer: &Producer, topic: &str, partition: i32, numbers: std::ops::Range<i64>) {
    for n in numbers {
        producer.send(topic, Some(partition), None, Some(log(n).as_bytes()), n as u64);
    }
    producer.flush();
}

fn position(topic: &str) -> String {
    format!(
        "SELECT coalesce(max(next_offset), -1) FROM watershed.streams WHERE topic = '{topic}' AND ended_at IS NULL"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn aborted_transactions_give_no_rows_and_no_lag() {
    let (db, broker) = (Database::new().await, Broker::shared());
    broker.create_topic("transactions", 1, &[]);
    let producer = Producer::transactional(&broker.bootstrap(), "transactions", &[]);
    for n in 0..6 {
        producer.begin();
        send(&producer, "transactions", 0, n * 10..(n + 1) * 10);
        if n % 2 == 0 {
            assert!(matches!(producer.commit(), real::Ended::Committed));
        } else {
            producer.abort();
        }
    }
    let source = Running::start(of_broker(&db, "transactions"));
    wait_for("rows", &db, ROWS, 30).await;
    // Six times ten records and a marker each: the position passes the last ones too, which give no record.
    wait_for("position", &db, &position("transactions"), 66).await;
    // Unknown (NULL) until the source has told it for the first time.
    let lag = "SELECT coalesce(max(lag_records), -1) FROM watershed.streams WHERE topic = 'transactions'";
    wait_for("no lag", &db, lag, 0).await;
    source.stop().await;
    assert_eq!(db.count("SELECT count(*) FROM logs WHERE ((metadata->>'n')::int / 10) % 2 = 1").await, 0);
    assert_eq!(db.count("SELECT count(*) FROM watershed_control.stream_gaps").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_kept_where_the_route_asks_for_them() {
    let (db, broker) = (Database::new().await, Broker::shared());
    broker.create_topic("headers", 1, &[]);
    let producer = Producer::new(&broker.bootstrap(), &[]);
    let all: [(&str, &[u8]); 2] = [("trace", b"t1"), ("raw", b"\xff")];
    producer.send_with_headers("headers", Some(0), None, Some(log(0).as_bytes()), &all, 0);
    send(&producer, "headers", 0, 1..2);
    let mut config = of_broker(&db, "headers");
    config.topics[0].headers = Some("kafka_headers".to_owned());
    let source = Running::start(config);
    wait_for("rows", &db, ROWS, 2).await;
    source.stop().await;
    let kept = db
        .texts("SELECT coalesce((metadata->'kafka_headers')::text, 'none') FROM logs ORDER BY _offset")
        .await;
    assert_eq!(kept, [r#"{"raw": "\\xff", "trace": "t1"}"#, "none"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_were_deleted_unread_are_a_gap() {
    let (db, broker) = (Database::new().await, Broker::shared());
    broker.create_topic("deleted", 1, &[]);
    let producer = Producer::new(&broker.bootstrap(), &[]);
    send(&producer, "deleted", 0, 0..20);
    let source = Running::start(of_broker(&db, "deleted"));
    wait_for("rows", &db, ROWS, 20).await;
    source.stop().await;
    send(&producer, "deleted", 0, 20..100);
    broker.delete_records("deleted", 0, 50);
    let source = Running::start(of_broker(&db, "deleted"));
    wait_for("rows", &db, ROWS, 70).await;
    source.stop().await;
    let gaps = "SELECT format('%s %s %s', from_offset, to_offset, s.topic) FROM watershed_control.stream_gaps g JOIN watershed_control.streams s ON s.id = g.stream";
    assert_eq!(db.texts(gaps).await, ["20 50 deleted"]);
    assert_eq!(db.count("SELECT missing_records FROM watershed.streams WHERE topic = 'deleted'").await, 30);
    assert_eq!(db.count("SELECT count(*) FROM logs WHERE _offset BETWEEN 20 AND 49").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_are_deleted_while_we_wait_are_a_gap_without_a_restart() {
    let (db, broker) = (Database::new().await, Broker::shared());
    broker.create_topic("deleted-live", 1, &[]);
    let producer = Producer::new(&broker.bootstrap(), &[]);
    send(&producer, "deleted-live", 0, 0..10);
    // Nothing is fetched ahead, so that what is deleted was not taken yet.
    let mut config = of_broker(&db, "deleted-live");
    let fetch = [
        ("fetch.message.max.bytes", "1000"),
        ("queued.min.messages", "1"),
        ("queued.max.messages.kbytes", "1"),
    ];
    config.properties.extend(fetch.map(|(k, v)| (k.to_owned(), v.to_owned())));
    config.batch_rows = 5;
    let source = Running::start(config);
    wait_for("rows", &db, ROWS, 10).await;
    let mut admin = db.admin().await;
    run(&mut admin, "BEGIN; LOCK TABLE logs IN ACCESS EXCLUSIVE MODE").await;
    send(&producer, "deleted-live", 0, 10..2000);
    tokio::time::sleep(Duration::from_secs(2)).await;
    broker.delete_records("deleted-live", 0, 1990);
    run(&mut admin, "ROLLBACK").await;
    wait_for("position", &db, &position("deleted-live"), 2000).await;
    source.stop().await;
    let missing = db
        .count("SELECT sum(missing_records)::int8 FROM watershed.streams WHERE topic = 'deleted-live'")
        .await;
    assert!(missing > 0, "some were deleted before they were taken");
    assert_eq!(db.count(ROWS).await + missing, 2000);
    assert_eq!(db.count(DISTINCT).await + missing, 2000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_made_anew_is_another_stream() {
    let (db, broker) = (Database::new().await, Broker::shared());
    broker.create_topic("anew", 1, &[]);
    let producer = Producer::new(&broker.bootstrap(), &[]);
    send(&producer, "anew", 0, 0..20);
    let source = Running::start(of_broker(&db, "anew"));
    wait_for("rows", &db, ROWS, 20).await;
    // Longer than what was read: the old position would be one of the new log, too.
    broker.delete_topic("anew");
    broker.create_topic("anew", 1, &[]);
    let producer = Producer::new(&broker.bootstrap(), &[]);
    send(&producer, "anew", 0, 1000..1050);
    wait_for("rows", &db, ROWS, 70).await;
    wait_for("position", &db, &position("anew"), 50).await;
    source.stop().await;
    let streams = "SELECT format('%s %s %s %s', state, next_offset, gaps, end_reason) FROM watershed.streams WHERE topic = 'anew' ORDER BY id";
    let streams = db.texts(streams).await;
    assert!(streams[0].starts_with("ended 20 1 the topic was deleted and made anew"), "{streams:?}");
    assert!(streams[1].starts_with("unattended 50 0"), "{streams:?}");
    // Each row is of the stream whose log it came from.
    let sql = "SELECT count(*) FROM logs l JOIN watershed.streams s ON s.id = l._stream \
               WHERE (s.ended_at IS NULL) = ((metadata->>'n')::int >= 1000) AND (metadata->>'n')::int % 1000 = _offset";
    assert_eq!(db.count(sql).await, 70);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_added_and_topics_that_come_later_are_found() {
    let (db, broker) = (Database::new().await, Broker::shared());
    let source = Running::start(of_broker(&db, "later"));
    tokio::time::sleep(Duration::from_secs(2)).await;
    broker.create_topic("later", 1, &[]);
    let producer = Producer::new(&broker.bootstrap(), &[]);
    send(&producer, "later", 0, 0..10);
    wait_for("the topic", &db, ROWS, 10).await;
    broker.add_partitions("later", 3);
    let producer = Producer::new(&broker.bootstrap(), &[]);
    send(&producer, "later", 2, 10..30);
    wait_for("the partition", &db, ROWS, 30).await;
    source.stop().await;
    assert_eq!(db.count("SELECT count(*) FROM watershed.streams WHERE topic = 'later'").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_topic_is_read_past_its_holes() {
    let (db, broker) = (Database::new().await, Broker::shared());
    let settings = [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "1048576"),
        ("segment.ms", "100"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("max.compaction.lag.ms", "100"),
        ("delete.retention.ms", "100"),
    ];
    broker.create_topic("compacted", 1, &settings);
    let producer = Producer::new(&broker.bootstrap(), &[]);
    for n in 0..200i64 {
        let key = format!("k{}", n % 5);
        producer.send("compacted", Some(0), Some(&key), Some(log(n).as_bytes()), n as u64);
    }
    producer.send("compacted", Some(0), Some("k0"), None, 200);
    producer.flush();
    let source = Running::start(of_broker(&db, "compacted"));
    wait_for("position", &db, &position("compacted"), 201).await;
    source.stop().await;
    let rows = db.count(ROWS).await;
    assert!((4..=200).contains(&rows), "{rows}");
    assert_eq!(db.count(DISTINCT).await, rows);
    assert_eq!(db.count("SELECT count(*) FROM logs WHERE (metadata->>'n')::int <> _offset").await, 0);
    assert_eq!(db.count("SELECT count(*) FROM watershed_control.stream_gaps").await, 0);
}
