//! Forwards against a real PostgreSQL and the mock cluster that comes with librdkafka: every committed matching row arrives
//! at least once, whatever dies between two steps, and nothing else ever does.

#[path = "../archiver/cluster.rs"]
mod cluster;

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::{Cluster, Database};
use ingest::forward::{self, Alerts, Config, Error, Forward, Start, What};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PARTITIONS: i32 = 3;
const PATIENCE: Duration = Duration::from_secs(60);

struct Stage {
    db: Database,
    mock: MockCluster<'static, DefaultProducerContext>,
}

#[derive(Debug, Clone, PartialEq)]
struct Got {
    key: Option<String>,
    value: Vec<u8>,
    headers: BTreeMap<String, String>,
}

impl Got {
    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.value).unwrap()
    }

    fn message(&self) -> String {
        self.json()["message"].as_str().unwrap().to_owned()
    }
}

impl Stage {
    async fn new() -> Stage {
        let db = Cluster::shared().database().await;
        let mock = MockCluster::new(1).unwrap();
        for topic in ["alerts", "letters"] {
            mock.create_topic(topic, PARTITIONS, 1).unwrap();
        }
        Stage { db, mock }
    }

    fn client(&self) -> ClientConfig {
        ingest::kafka::client(&self.mock.bootstrap_servers(), &BTreeMap::new())
    }

    fn config(&self, forwards: Vec<Forward>) -> Config {
        let poll = Duration::from_millis(20);
        Config { poll, ..Config::new(self.db.url("watershed_archiver"), self.client(), forwards) }
    }

    /// Everything that is in a topic, by partition, once `enough` says so.
    async fn read(&self, topic: &str, enough: impl Fn(&[Got]) -> bool + Send + 'static) -> Vec<Got> {
        let (client, topic) = (self.client(), topic.to_owned());
        tokio::task::spawn_blocking(move || read(client, &topic, enough)).await.unwrap()
    }

    /// The messages (a column) of all rows in the topic, once there are these and whatever came with them.
    async fn until(&self, wanted: &BTreeSet<String>) -> Vec<String> {
        let expected = wanted.clone();
        let enough = move |got: &[Got]| {
            let seen: BTreeSet<String> = got.iter().map(Got::message).collect();
            expected.is_subset(&seen)
        };
        self.read("alerts", enough).await.iter().map(Got::message).collect()
    }

    async fn standing(&self, conn: &mut PgConnection, name: &str) -> Option<(String, i64)> {
        sqlx::query_as("SELECT boundary, sent FROM watershed_control.forwards WHERE name = $1")
            .bind(name)
            .fetch_optional(conn)
            .await
            .unwrap()
    }

    /// Runs forwards until the first has a position.
    async fn start(&self, forwards: Vec<Forward>) -> Running {
        let name = forwards[0].name.clone();
        let running = Running::of(self.config(forwards));
        let mut conn = self.db.admin().await;
        let began = Instant::now();
        while self.standing(&mut conn, &name).await.is_none() {
            assert!(began.elapsed() < PATIENCE, "the forward did not begin");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        running
    }
}

struct Running {
    stop: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
}

impl Running {
    fn of(config: Config) -> Running {
        let stop = CancellationToken::new();
        let task = tokio::spawn(forward::run(config, stop.clone()));
        Running { stop, task }
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

fn read(client: ClientConfig, topic: &str, enough: impl Fn(&[Got]) -> bool) -> Vec<Got> {
    let mut config = client;
    config.set("group.id", "reader").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut all = TopicPartitionList::new();
    for p in 0..PARTITIONS {
        all.add_partition_offset(topic, p, Offset::Beginning).unwrap();
    }
    consumer.assign(&all).unwrap();
    let mut got = Vec::new();
    let began = Instant::now();
    loop {
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            // Only when nothing more comes for a moment: then whatever came too much is there as well.
            if enough(&got) {
                return got;
            }
            assert!(began.elapsed() < PATIENCE, "only {} messages of {topic} came", got.len());
            continue;
        };
        let Ok(message) = message else { continue };
        let mut headers = BTreeMap::new();
        for header in message.headers().into_iter().flat_map(|h| h.iter()) {
            let value = String::from_utf8(header.value.unwrap_or_default().to_vec()).unwrap();
            headers.insert(header.key.to_owned(), value);
        }
        got.push(Got {
            key: message.key().map(|k| String::from_utf8(k.to_vec()).unwrap()),
            value: message.payload().expect("no tombstones").to_vec(),
            headers,
        });
    }
}

fn alerts() -> Vec<Forward> {
    vec![Alerts::default().into()]
}

async fn run(conn: &mut PgConnection, sql: &str) {
    conn.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
}

async fn insert(conn: &mut PgConnection, level: &str, message: &str) {
    run(
        conn,
        &format!("INSERT INTO public.logs (ts, level, service, message) VALUES (now(), '{level}', 'auth', '{message}')"),
    )
    .await;
}

fn set(messages: &[&str]) -> BTreeSet<String> {
    messages.iter().map(|m| (*m).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_matching_rows_and_nothing_else() {
    let s = Stage::new().await;
    let (mut one, mut two, mut three) = (s.db.admin().await, s.db.admin().await, s.db.admin().await);
    insert(&mut one, "ERROR", "history").await;
    // Writes before everything else, and commits after it: seen by no snapshot in between.
    run(&mut two, "BEGIN").await;
    insert(&mut two, "ERROR", "slow").await;
    run(&mut three, "BEGIN").await;
    insert(&mut three, "ERROR", "undone").await;
    let running = s.start(alerts()).await;
    insert(&mut one, "INFO", "calm").await;
    run(
        &mut one,
        "INSERT INTO public.logs (ts, level, service, message, metadata) \
         VALUES ('2026-01-02 03:04:05.000006+00', 'ERROR', 'billing', 'prompt', '{\"a\": [1.50, null]}')",
    )
    .await;
    let seen = s.until(&set(&["prompt"])).await;
    assert_eq!(seen, ["prompt"], "before the others committed");
    run(&mut three, "ROLLBACK").await;
    run(&mut two, "COMMIT").await;
    insert(&mut one, "ERROR", "last").await;
    let seen = s.until(&set(&["prompt", "slow", "last"])).await;
    assert_eq!(seen.iter().cloned().collect::<BTreeSet<_>>(), set(&["prompt", "slow", "last"]));
    assert_eq!(seen.len(), 3, "nothing failed, so nothing was sent twice");
    running.end().await;

    let got = s.read("alerts", |got| got.len() >= 3).await;
    let prompt = got.iter().find(|g| g.message() == "prompt").unwrap();
    assert_eq!(prompt.key.as_deref(), Some("billing"));
    assert_eq!(prompt.headers["table"], "public.logs");
    assert_eq!((prompt.headers["stream"].as_str(), prompt.headers["offset"].as_str()), ("0", "0"));
    let value = prompt.json();
    assert_eq!(value["ts"], "2026-01-02T03:04:05.000006+00:00");
    assert!(std::str::from_utf8(&prompt.value).unwrap().contains("[1.50, null]"));
    assert!(value.get("_xid").is_none() && value.get("_offset").is_none() && value.get("_stream").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_beginning_in_pages_with_any_condition() {
    let s = Stage::new().await;
    let mut conn = s.db.admin().await;
    run(
        &mut conn,
        "INSERT INTO public.logs (ts, level, service, message) SELECT now() - g * interval '1 minute', \
         CASE WHEN g % 3 = 0 THEN 'ERROR' ELSE 'INFO' END, 'service-' || g % 5, 'row ' || g FROM generate_series(1, 9000) g",
    )
    .await;
    run(&mut conn, "CREATE TABLE public.orders (at timestamptz NOT NULL, id bigint, paid bool)").await;
    run(&mut conn, "SELECT watershed.attach_table('public.orders', event_time => 'at')").await;
    run(&mut conn, "INSERT INTO public.orders SELECT now(), g, g % 2 = 0 FROM generate_series(1, 100) g")
        .await;
    let rows = |name: &str, table: &str, condition: &str, key: Option<&str>, topic: &str| Forward {
        name: name.into(),
        what: What::Rows { table: table.into(), condition: condition.into(), key: key.map(Into::into) },
        topic: topic.into(),
        from: Start::Beginning,
    };
    let forwards = vec![
        // A condition that is no single term, ends in a comment, and reaches for more than the tail.
        rows(
            "errors",
            "logs",
            "level = 'ERROR' OR t.message = 'row 1') OR (service = 'none' -- and so on",
            None,
            "alerts",
        ),
        rows("unpaid", "orders", "NOT paid", Some("id"), "letters"),
    ];
    forward::check(&s.config(forwards.clone())).await.unwrap();
    let running = s.start(forwards).await;
    let wanted: BTreeSet<String> =
        (1..=9000).filter(|g| g % 3 == 0 || *g == 1).map(|g| format!("row {g}")).collect();
    let seen = s.until(&wanted).await;
    assert_eq!(seen.len(), wanted.len());
    let unpaid = s.read("letters", |got| got.len() >= 50).await;
    assert!(unpaid.iter().all(|g| g.key == Some(g.json()["id"].to_string()) && g.json()["paid"] == false));
    // Only what is new comes from here on.
    insert(&mut conn, "ERROR", "row 0").await;
    let seen = s.until(&set(&["row 0"])).await;
    assert_eq!(seen.len(), wanted.len() + 1);
    running.end().await;
}

/// Not a test of its own: what the crash test runs in a process of its own.
#[tokio::test(flavor = "multi_thread")]
async fn child_forwards() {
    let (Ok(url), Ok(brokers)) =
        (std::env::var("WATERSHED_TEST_CHILD_URL"), std::env::var("WATERSHED_TEST_CHILD_BROKERS"))
    else {
        return;
    };
    let client = ingest::kafka::client(&brokers, &BTreeMap::new());
    let config = Config { poll: Duration::from_millis(20), ..Config::new(url, client, alerts()) };
    forward::run(config, CancellationToken::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_step_loses_nothing() {
    let s = Stage::new().await;
    let mut conn = s.db.admin().await;
    s.start(alerts()).await.end().await;
    let mut wanted = BTreeSet::new();
    for (round, point) in
        ["forward.snapshot", "forward.sent", "forward.stored", "forward.sent", "forward.snapshot"]
            .iter()
            .enumerate()
    {
        let before = s.standing(&mut conn, "alerts").await.unwrap();
        let mut undone = s.db.admin().await;
        run(&mut undone, "BEGIN").await;
        insert(&mut undone, "ERROR", "never").await;
        for i in 0..20 {
            let message = format!("{round}.{i}");
            insert(&mut conn, "ERROR", &message).await;
            wanted.insert(message);
        }
        let (program, url) = (std::env::current_exe().unwrap(), s.db.url("watershed_archiver"));
        let (brokers, point_name) = (s.mock.bootstrap_servers(), (*point).to_owned());
        let status = tokio::task::spawn_blocking(move || {
            Command::new(program)
                .args(["--exact", "child_forwards", "--nocapture"])
                .env("WATERSHED_CRASH_AT", point_name)
                .env("WATERSHED_TEST_CHILD_URL", url)
                .env("WATERSHED_TEST_CHILD_BROKERS", brokers)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .unwrap()
        })
        .await
        .unwrap();
        assert!(!status.success(), "{point}: {status}");
        let after = s.standing(&mut conn, "alerts").await.unwrap();
        assert_eq!(before != after, *point == "forward.stored", "{point}");
        run(&mut undone, "ROLLBACK").await;
    }
    let running = Running::of(s.config(alerts()));
    let seen = s.until(&wanted).await;
    running.end().await;
    assert_eq!(seen.iter().cloned().collect::<BTreeSet<_>>(), wanted);
    // The rounds that died after sending sent again.
    assert!(seen.len() > wanted.len(), "{} of {}", seen.len(), wanted.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_and_a_server_that_go_away_only_delay() {
    let db = Arc::new(Cluster::start_new()).database().await;
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("alerts", PARTITIONS, 1).unwrap();
    let s = Stage { db, mock };
    let mut conn = s.db.admin().await;
    let running = s.start(alerts()).await;
    s.mock.broker_down(1).unwrap();
    insert(&mut conn, "ERROR", "while the broker is away").await;
    // The forward has noticed: it keeps its place.
    let began = Instant::now();
    let pending = "SELECT count(*) FROM watershed_control.forwards WHERE pending IS NOT NULL";
    while sqlx::query_scalar::<_, i64>(pending).fetch_one(&mut conn).await.unwrap() == 0 {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    s.mock.broker_up(1).unwrap();
    let mut wanted = set(&["while the broker is away"]);
    s.until(&wanted).await;
    drop(conn);
    let cluster = s.db.cluster.clone();
    tokio::task::spawn_blocking(move || {
        cluster.stop("immediate");
        cluster.start();
    })
    .await
    .unwrap();
    let mut conn = s.db.admin().await;
    insert(&mut conn, "ERROR", "after the server crashed").await;
    wanted.insert("after the server crashed".into());
    s.until(&wanted).await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_processes_sends() {
    let s = Stage::new().await;
    let mut conn = s.db.admin().await;
    let first = s.start(alerts()).await;
    let second = Running::of(s.config(alerts()));
    let mut wanted = BTreeSet::new();
    for i in 0..40 {
        insert(&mut conn, "ERROR", &format!("both {i}")).await;
        wanted.insert(format!("both {i}"));
    }
    assert_eq!(s.until(&wanted).await.len(), 40);
    first.end().await;
    insert(&mut conn, "ERROR", "handed over").await;
    wanted.insert("handed over".into());
    assert_eq!(s.until(&wanted).await.len(), 41);
    second.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_keep_their_bytes() {
    let s = Stage::new().await;
    let mut conn = s.db.admin().await;
    let letter =
        "INSERT INTO watershed.dead_letters (table_name, source, position, stage, reason, raw) VALUES";
    run(&mut conn, &format!("{letter} ('public.logs', 'old', '1', 'map', 'history', 'old')")).await;
    let forward = Forward {
        name: "dead letters".into(),
        what: What::DeadLetters,
        topic: "letters".into(),
        from: Start::Now,
    };
    let running = s.start(vec![forward.clone()]).await;
    let keyed = letter.replace("raw)", "raw, key)");
    run(&mut conn, &format!(r"{keyed} ('public.logs', 'logs.raw', 'logs.raw/0/7', 'decode', 'it''s broken', '\x7b00ff', 'auth')"))
        .await;
    run(&mut conn, &format!("{letter} (NULL, NULL, NULL, NULL, 'no bytes', NULL)")).await;
    run(&mut conn, &format!("BEGIN; {letter} ('x', 'x', 'x', 'x', 'undone', 'x'); ROLLBACK")).await;
    let got = s.read("letters", |got| got.len() >= 2).await;
    let by_reason = |reason: &str| got.iter().find(|g| g.headers["reason"] == reason).unwrap();
    let broken = by_reason("it's broken");
    assert_eq!((broken.value.as_slice(), broken.key.as_deref()), (b"{\x00\xff".as_slice(), Some("auth")));
    for (name, value) in
        [("stage", "decode"), ("table", "public.logs"), ("source", "logs.raw"), ("position", "logs.raw/0/7")]
    {
        assert_eq!(broken.headers[name], value);
    }
    assert!(by_reason("no bytes").value.is_empty() && !by_reason("no bytes").headers.contains_key("stage"));
    assert_eq!(got.len(), 2);
    running.end().await;
    // Those that were there before the column are found by whoever begins at the beginning.
    let all = Forward { name: "all".into(), from: Start::Beginning, topic: "alerts".into(), ..forward };
    let running = s.start(vec![all]).await;
    assert_eq!(s.read("alerts", |got| got.len() >= 3).await.len(), 3);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_row_is_cut_and_stops_nobody() {
    let s = Stage::new().await;
    let mut conn = s.db.admin().await;
    let mut config = s.config(alerts());
    config.kafka.set("message.max.bytes", "2000");
    s.start(alerts()).await.end().await;
    run(
        &mut conn,
        "INSERT INTO public.logs (ts, level, message) VALUES (now(), 'ERROR', 'small'), (now(), 'ERROR', repeat('x', 100000)), \
         (now(), 'ERROR', 'small too')",
    )
    .await;
    let running = Running::of(config);
    let got = s.read("alerts", |got| got.len() >= 3).await;
    running.end().await;
    let (cut, whole): (Vec<_>, Vec<_>) = got.iter().partition(|g| g.headers.contains_key("truncated"));
    assert_eq!((cut.len(), whole.len()), (1, 2));
    assert!(cut[0].value.is_empty() && cut[0].headers["truncated"].parse::<usize>().unwrap() > 100_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_condition_fails_on_stops_nobody() {
    let s = Stage::new().await;
    let mut conn = s.db.admin().await;
    let condition =
        "(metadata->>'n')::int / (metadata->>'d')::int > 5 AND message <> E'it\\'s \\\\ done' -- slow";
    let running = s.start(vec![Alerts { condition: condition.into(), ..Alerts::default() }.into()]).await;
    let mut wanted = BTreeSet::new();
    for round in 0..3 {
        run(
            &mut conn,
            &format!(
                "INSERT INTO public.logs (ts, message, metadata) VALUES (now(), 'yes {round}', '{{\"n\": 60, \"d\": 2}}'), \
                 (now(), 'text', '{{\"n\": \"many\", \"d\": 2}}'), (now(), 'zero', '{{\"n\": 60, \"d\": 0}}'), \
                 (now(), E'it\\'s \\\\ done', '{{\"n\": 60, \"d\": 2}}'), (now(), 'no', '{{\"n\": 6, \"d\": 2}}'), (now(), 'none', NULL)"
            ),
        )
        .await;
        wanted.insert(format!("yes {round}"));
        let seen = s.until(&wanted).await;
        assert_eq!(seen.iter().cloned().collect::<BTreeSet<_>>(), wanted);
        assert_eq!(seen.len(), wanted.len());
    }
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_at_the_start() {
    let s = Stage::new().await;
    let check = async |alerts: Alerts| {
        forward::check(&s.config(vec![alerts.into()])).await.map_err(|e| (e.to_string(), e))
    };
    let of = |condition: &str| Alerts { condition: condition.into(), ..Alerts::default() };
    for (condition, says) in [
        ("levle = 'ERROR'", "levle"),
        ("level = ", "syntax error"),
        ("message", "boolean"),
        ("true); DELETE FROM public.logs; SELECT (true", "cannot insert multiple commands"),
        ("(SELECT count(*) FROM pg_authid) > 0", "permission denied"),
        ("1/0 = 1", "division by zero"),
    ] {
        let (text, error) = check(of(condition)).await.unwrap_err();
        assert!(matches!(error, Error::Condition { .. }) && text.contains(says), "{condition}: {text}");
        assert!(text.contains("alerts") && text.contains("public.logs"), "{text}");
    }
    // A condition that writes meets a transaction that only reads.
    check(of("true")).await.unwrap();
    let (text, _) = check(Alerts { key: Some("colour".into()), ..Alerts::default() }).await.unwrap_err();
    assert!(text.contains("colour"), "{text}");
    let (text, _) = check(Alerts { topic: "no such name!".into(), ..Alerts::default() }).await.unwrap_err();
    assert!(text.contains("topic"), "{text}");
    // A table may come later.
    check(Alerts { table: "public.later".into(), ..Alerts::default() }).await.unwrap();
    let twice = s.config(vec![Alerts::default().into(), Alerts::default().into()]);
    assert!(forward::check(&twice).await.unwrap_err().to_string().contains("two forwards"));
}
