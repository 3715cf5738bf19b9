//! HTTP ingest over a real socket, against a real PostgreSQL.

mod common;

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use common::Database;
use ingest::http::{Config, router};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn serve(config: Config) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = router(config).unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    fn counts(&self) -> (u16, u64, u64) {
        let j = self.json();
        (self.status, j["accepted"].as_u64().unwrap(), j["rejected"].as_u64().unwrap())
    }
}

async fn ask(address: SocketAddr, request: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let mut head = format!("{request} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
    if !headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("content-length")) {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    for (n, v) in headers {
        head += &format!("{n}: {v}\r\n");
    }
    socket.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
    // A server that has refused already may not read the body.
    let _ = socket.write_all(body).await;
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

async fn post(address: SocketAddr, table: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    ask(address, &format!("POST /v1/ingest/{table}"), headers, body.as_bytes()).await
}

fn config(db: &Database) -> Config {
    Config { database_url: db.url(), ..Config::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_become_rows() {
    let db = Database::new().await;
    let at = serve(config(&db)).await;
    let ndjson = "{\"ts\":1,\"message\":\"a\"}\n\n{\"ts\":2,\"message\":\"b\",\"x\":1.50}\n";
    assert_eq!(
        post(at, "logs", &[("Content-Type", "application/x-ndjson")], ndjson).await.counts(),
        (200, 2, 0)
    );
    assert_eq!(
        post(at, "public.logs", &[], "[{\"ts\":3,\"message\":\"c\"},\n{\"ts\":4,\"message\":\"d\"}]")
            .await
            .counts(),
        (200, 2, 0)
    );
    let pretty = "{\n  \"ts\": 5,\n  \"message\": \"e\"\n}\n";
    assert_eq!(
        post(at, "logs", &[("Content-Type", "application/json; charset=utf-8")], pretty).await.counts(),
        (200, 1, 0)
    );
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(ndjson.as_bytes()).unwrap();
    let gz = gz.finish().unwrap();
    assert_eq!(
        ask(at, "POST /v1/ingest/logs", &[("Content-Encoding", "gzip")], &gz).await.counts(),
        (200, 2, 0)
    );
    let zst = zstd::encode_all(ndjson.as_bytes(), 1).unwrap();
    assert_eq!(
        ask(at, "POST /v1/ingest/logs", &[("Content-Encoding", "zstd")], &zst).await.counts(),
        (200, 2, 0)
    );
    let csv = "ts,message\n2024-01-01,f\n2024-01-01,g\n";
    assert_eq!(post(at, "logs", &[("Content-Type", "text/csv")], csv).await.counts(), (200, 2, 0));
    let web = "1.2.3.4 - - [17/May/2015:10:05:03 +0000] \"GET /h HTTP/1.1\" 200 1 \"-\" \"-\"\n";
    assert_eq!(post(at, "logs", &[("Content-Type", "text/plain")], web).await.counts(), (200, 1, 0));
    assert_eq!(post(at, "logs", &[], "").await.counts(), (200, 0, 0));
    // Without a key every request counts, and rows have no source identity.
    assert_eq!(db.count("SELECT count(*) FROM logs WHERE _stream = 0 AND _offset = 0").await, 12);
    assert_eq!(db.count("SELECT count(*) FROM logs WHERE message = 'a'").await, 3);
    assert_eq!(
        db.texts("SELECT metadata::text FROM logs WHERE message = 'b' LIMIT 1").await,
        ["{\"x\": 1.50}"]
    );
    assert_eq!(ask(at, "GET /healthz", &[], b"").await.status, 200);
    assert_eq!(ask(at, "GET /readyz", &[], b"").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_records_are_listed_and_the_others_are_in() {
    let db = Database::new().await;
    let at = serve(config(&db)).await;
    let body = "{\"ts\":1}\nnope\n{\"ts\":2,\"n\":1e200000}\n{\"message\":\"x\"}\n{\"ts\":3}\n";
    let answer = post(at, "logs", &[], body).await;
    assert_eq!(answer.counts(), (200, 2, 3));
    let errors = answer.json()["errors"].clone();
    assert_eq!(
        errors.as_array().unwrap().iter().map(|e| e["line"].as_u64().unwrap()).collect::<Vec<_>>(),
        [2, 3, 4]
    );
    assert_eq!(
        [&errors[0]["stage"], &errors[1]["stage"], &errors[2]["stage"]],
        ["decode", "postgres", "map"]
    );
    assert_eq!(db.count("SELECT count(*) FROM logs").await, 2);
    assert_eq!(
        db.count(
            "SELECT count(*) FROM watershed.dead_letters WHERE table_name = 'public.logs' AND source = 'http'"
        )
        .await,
        3
    );
    // An array that breaks off: what was whole is in.
    assert_eq!(post(at, "logs", &[], "[{\"ts\":1},{\"ts\":2},{\"ts\"").await.counts(), (200, 2, 1));
    assert_eq!(post(at, "logs", &[], "[1,[],null]").await.status, 415);
    assert_eq!(
        post(at, "logs", &[("Content-Type", "application/json")], "[1,[],null]").await.counts(),
        (200, 0, 3)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_makes_a_repeated_request_a_no_op() {
    let db = Database::new().await;
    let at = serve(config(&db)).await;
    let key = [("Idempotency-Key", "k-1")];
    let body = "{\"ts\":1}\n{\"ts\":2}\nbad\n";
    let first = post(at, "logs", &key, body).await;
    assert_eq!(first.counts(), (200, 2, 1));
    assert!(!first.head.contains("idempotency-replayed"));
    let again = post(at, "logs", &key, body).await;
    assert_eq!((again.status, &again.body), (200, &first.body));
    assert!(again.head.contains("idempotency-replayed: true"));
    assert_eq!(db.count("SELECT count(*) FROM logs").await, 2);
    assert_eq!(db.count("SELECT count(*) FROM watershed.dead_letters").await, 1);
    let other = post(at, "logs", &key, "{\"ts\":3}\n").await;
    assert_eq!(other.status, 422, "{}", other.body);
    // A key belongs to a table; other keys are other requests.
    assert_eq!(post(at, "events", &key, body).await.counts(), (200, 2, 1));
    assert_eq!(post(at, "logs", &[("Idempotency-Key", "k-2")], body).await.counts(), (200, 2, 1));
    assert_eq!(post(at, "logs", &[("Idempotency-Key", " ")], body).await.status, 400);
    // The same key from many clients at once: one of them adds the rows, all get the same answer.
    let body: String = (0..500).map(|i| format!("{{\"ts\":{i},\"host\":\"many\"}}\n")).collect();
    let tasks: Vec<_> = (0..12)
        .map(|_| {
            let body = body.clone();
            tokio::spawn(async move { post(at, "logs", &[("Idempotency-Key", "many")], &body).await })
        })
        .collect();
    let mut fresh = 0;
    for t in tasks {
        let a = t.await.unwrap();
        assert_eq!(a.counts(), (200, 500, 0));
        fresh += u32::from(!a.head.contains("idempotency-replayed"));
    }
    assert_eq!(fresh, 1);
    assert_eq!(db.count("SELECT count(*) FROM logs WHERE host = 'many'").await, 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_and_refusals() {
    let db = Database::new().await;
    let at = serve(Config {
        max_body_bytes: 10_000,
        max_unpacked_bytes: 20_000,
        max_record_bytes: 5_000,
        concurrency: 2,
        patience: Duration::from_millis(300),
        ..config(&db)
    })
    .await;
    assert_eq!(post(at, "nothere", &[], "{\"ts\":1}").await.status, 404);
    assert_eq!(post(at, "pg_class", &[], "{\"ts\":1}").await.status, 404);
    assert_eq!(post(at, "logs%3B%20DROP", &[], "{\"ts\":1}").await.status, 404);
    assert_eq!(post(at, "logs", &[], &" ".repeat(10_001)).await.status, 413);
    // Small when packed, large when not.
    let bomb = zstd::encode_all(&vec![b' '; 1_000_000][..], 1).unwrap();
    assert_eq!(ask(at, "POST /v1/ingest/logs", &[("Content-Encoding", "zstd")], &bomb).await.status, 413);
    assert_eq!(
        ask(at, "POST /v1/ingest/logs", &[("Content-Encoding", "gzip")], b"nonsense").await.status,
        400
    );
    assert_eq!(ask(at, "POST /v1/ingest/logs", &[("Content-Encoding", "br")], b"x").await.status, 415);
    assert_eq!(post(at, "logs", &[], "what is this\n").await.status, 415);
    assert_eq!(ask(at, "GET /v1/ingest/logs", &[], b"").await.status, 405);
    let long = format!("{{\"ts\":1,\"message\":\"{}\"}}\n{{\"ts\":2}}", "x".repeat(6000));
    assert_eq!(post(at, "logs", &[], &long).await.counts(), (200, 1, 1));
    // Both turns are taken by requests whose bodies do not come: the third is told to come again.
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut s = TcpStream::connect(at).await.unwrap();
        s.write_all(b"POST /v1/ingest/logs HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"ts\"")
            .await
            .unwrap();
        slow.push(s);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let busy = post(at, "logs", &[], "{\"ts\":1}").await;
    assert_eq!(busy.status, 503);
    assert!(busy.head.contains("retry-after: "));
    drop(slow);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(post(at, "logs", &[], "{\"ts\":1}").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgresql_clients_are_told_to_come_again() {
    let at = serve(Config {
        database_url: "postgres://nobody@127.0.0.1:1/none".into(),
        patience: Duration::from_millis(500),
        ..Config::default()
    })
    .await;
    let answer = post(at, "logs", &[], "{\"ts\":1}").await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.head.contains("retry-after: "));
    assert_eq!(ask(at, "GET /readyz", &[], b"").await.status, 503);
    assert_eq!(ask(at, "GET /healthz", &[], b"").await.status, 200);
    assert!(router(Config { database_url: "no url".into(), ..Config::default() }).is_err());

    // Connections that die under it are replaced, and a request either is in whole or not at all.
    let db = Database::new().await;
    let at = serve(config(&db)).await;
    let mut admin = db.admin().await;
    let body: String = (0..3000).map(|i| format!("{{\"ts\":{i}}}\n")).collect();
    let mut taken = 0;
    for i in 0..20 {
        let body = body.clone();
        let key = format!("k{i}");
        let task =
            tokio::spawn(async move { post(at, "logs", &[("Idempotency-Key", &key)], &body).await.status });
        tokio::time::sleep(Duration::from_millis(i * 3)).await;
        common::run(&mut admin, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'watershed_ingest' AND datname = current_database()").await;
        match task.await.unwrap() {
            200 => taken += 1,
            503 => {}
            other => panic!("{other}"),
        }
        assert_eq!(db.count("SELECT count(*) FROM logs").await % 3000, 0);
    }
    for i in 0..20 {
        let a = post(at, "logs", &[("Idempotency-Key", &format!("k{i}"))], &body).await;
        assert_eq!(a.counts(), (200, 3000, 0));
    }
    assert_eq!(db.count("SELECT count(*) FROM logs").await, 60_000);
    assert!(taken < 20);
}
