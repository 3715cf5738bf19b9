//! HTTP ingest over a real socket, against a real PostgreSQL.

mod common;

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use common::Database;
use ingest::http::{Config, Indices, Tokens, router};
use ingest::pressure::{self, Probe, Reading};
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

/// Whole lines of a body that is not whole are no rows: its sender sends them again.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_gives_no_rows() {
    let db = Database::new().await;
    let at = serve(config(&db)).await;
    let line = "{\"ts\":1,\"message\":\"torn\"}\n";
    let chunk = format!("{:x}\r\n{line}\r\n", line.len());
    for (n, (framing, sent)) in [("Content-Length: 1000", line), ("Transfer-Encoding: chunked", &chunk)].into_iter().enumerate() {
        let mut socket = TcpStream::connect(at).await.unwrap();
        let head = format!("POST /v1/ingest/logs HTTP/1.1\r\nHost: test\r\nIdempotency-Key: torn-{n}\r\n{framing}\r\n\r\n");
        socket.write_all(format!("{head}{sent}").as_bytes()).await.unwrap();
        socket.shutdown().await.unwrap();
        // It is over when the server closes, whatever it says.
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        assert_eq!(db.count("SELECT count(*) FROM logs").await, n as i64, "{framing}");
        let key = format!("torn-{n}");
        assert_eq!(post(at, "logs", &[("Idempotency-Key", &key)], line).await.counts(), (200, 1, 0));
    }
    for (encoding, packed) in [("zstd", zstd::encode_all(line.repeat(1000).as_bytes(), 1).unwrap()), ("gzip", {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(line.repeat(1000).as_bytes()).unwrap();
        gz.finish().unwrap()
    })] {
        let torn = &packed[..packed.len() - 6];
        let answer = ask(at, "POST /v1/ingest/logs", &[("Content-Encoding", encoding)], torn).await;
        assert_eq!(answer.status, 400, "{encoding}: {}", answer.body);
    }
    assert_eq!(db.count("SELECT count(*) FROM logs").await, 2);
    assert_eq!(db.count("SELECT count(*) FROM watershed.dead_letters").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_and_refusals() {
    let db = Database::new().await;
    let at = serve(Config {
        max_body_bytes: 10_000,
        max_unpacked_bytes: 20_000,
        max_record_bytes: 5_000,
        concurrency: 2,
        max_readers: 4,
        patience: Duration::from_secs(3),
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
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    zlib.write_all(&vec![b' '; 1_000_000]).unwrap();
    let bomb = zlib.finish().unwrap();
    assert_eq!(ask(at, "POST /v1/ingest/logs", &[("Content-Encoding", "deflate")], &bomb).await.status, 413);
    assert_eq!(ask(at, "POST /v1/ingest/logs", &[("Content-Encoding", "br")], b"x").await.status, 415);
    assert_eq!(post(at, "logs", &[], "what is this\n").await.status, 415);
    assert_eq!(ask(at, "GET /v1/ingest/logs", &[], b"").await.status, 405);
    let long = format!("{{\"ts\":1,\"message\":\"{}\"}}\n{{\"ts\":2}}", "x".repeat(6000));
    assert_eq!(post(at, "logs", &[], &long).await.counts(), (200, 1, 1));
    // Bodies that do not come hold no turn, as long as there are not too many of them.
    let mut slow = Vec::new();
    for n in 0..4 {
        let mut s = TcpStream::connect(at).await.unwrap();
        s.write_all(b"POST /v1/ingest/logs HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"ts\"")
            .await
            .unwrap();
        slow.push(s);
        if n == 2 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(post(at, "logs", &[], "{\"ts\":1}").await.status, 200);
        }
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

const SECRET: &str = "correct horse battery staple";

fn bearer(secret: &str) -> String {
    format!("Bearer {}", secret.replace(' ', "-"))
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tokens_only_their_bearers_post() {
    let db = Database::new().await;
    let plain = SECRET.replace(' ', "-");
    let tokens = Tokens::parse([plain.as_str(), "another-long-secret events"], true).unwrap();
    let at = serve(Config { tokens: tokens.clone(), ..config(&db) }).await;
    let body = "{\"ts\":1}\n";
    let refused = post(at, "logs", &[], body).await;
    assert_eq!(refused.status, 401, "{}", refused.body);
    assert!(refused.head.contains("www-authenticate: bearer realm=\"watershed\""), "{}", refused.head);
    assert_eq!(post(at, "logs", &[("Authorization", &bearer("wrong horse"))], body).await.status, 401);
    assert_eq!(post(at, "logs", &[("Authorization", &bearer(SECRET))], body).await.status, 200);
    // A token for one table: no other, and no word about whether another is there.
    let narrow = bearer("another-long-secret");
    assert_eq!(post(at, "events", &[("Authorization", &narrow)], body).await.status, 200);
    assert_eq!(post(at, "logs", &[("Authorization", &narrow)], body).await.status, 403);
    assert_eq!(post(at, "nothere", &[("Authorization", &narrow)], body).await.status, 403);
    assert_eq!(post(at, "nothere", &[("Authorization", &bearer(SECRET))], body).await.status, 404);
    let bulk =
        "{\"index\":{\"_index\":\"logs\"}}\n{\"ts\":1}\n{\"index\":{\"_index\":\"events\"}}\n{\"ts\":1}\n";
    let answer = ask(at, "POST /_bulk", &[("Authorization", &narrow)], bulk.as_bytes()).await.json();
    assert_eq!(statuses(&answer), [403, 201]);
    assert_eq!(ask(at, "POST /_bulk", &[], bulk.as_bytes()).await.status, 401);
    assert_eq!(db.count("SELECT count(*) FROM logs").await, 1);
    // Probes of health need none; metrics do, unless told otherwise.
    assert_eq!(ask(at, "GET /healthz", &[], b"").await.status, 200);
    assert_eq!(ask(at, "GET /readyz", &[], b"").await.status, 200);
    assert_eq!(ask(at, "GET /metrics", &[], b"").await.status, 401);
    assert_eq!(ask(at, "GET /metrics", &[("Authorization", &narrow)], b"").await.status, 200);
    let at = serve(Config { tokens, open_metrics: true, ..config(&db) }).await;
    assert_eq!(ask(at, "GET /metrics", &[], b"").await.status, 200);
    assert_eq!(post(at, "logs", &[], body).await.status, 401);
}

/// The statuses of the items of a bulk answer.
fn statuses(answer: &Value) -> Vec<u64> {
    let items = answer["items"].as_array().unwrap_or_else(|| panic!("no items: {answer}"));
    items
        .iter()
        .map(|i| i.as_object().unwrap().values().next().unwrap()["status"].as_u64().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_requests_become_rows() {
    let db = Database::new().await;
    let at = serve(config(&db)).await;
    let body = concat!(
        "{\"index\":{\"_index\":\"filebeat-8.1\",\"_id\":\"one\"}}\n{\"@timestamp\":\"2026-01-02T03:04:05Z\",\"message\":\"a\"}\n",
        "{\"create\":{\"_index\":\"logs\"}}\n{\"ts\":2,\"message\":\"b\"}\n",
        "{\"index\":{\"_index\":\"events\"}}\n{\"ts\":3}\n",
        "{\"index\":{\"_index\":\"nothere\"}}\n{\"ts\":4}\n",
        "{\"index\":{\"_index\":\"logs\"}}\nno json\n",
        "{\"index\":{\"_index\":\"logs\"}}\n{\"message\":\"no time\"}\n",
        "{\"index\":{\"_index\":\"logs\"}}\n{\"ts\":5,\"n\":1e200000}\n",
        "{\"update\":{\"_index\":\"logs\",\"_id\":\"one\"}}\n{\"doc\":{}}\n",
        "{\"delete\":{\"_index\":\"logs\",\"_id\":\"one\"}}\n",
    );
    let answer = ask(at, "POST /_bulk", &[("Content-Type", "application/x-ndjson")], body.as_bytes()).await;
    assert!(answer.head.contains("x-elastic-product: elasticsearch"), "{}", answer.head);
    let json = answer.json();
    assert_eq!(statuses(&json), [201, 201, 201, 404, 400, 400, 400, 400, 400], "{json}");
    assert_eq!(json["errors"], true);
    assert!(json["took"].is_u64());
    assert_eq!(json["items"][0]["index"]["_id"], "one");
    assert_eq!(json["items"][0]["index"]["result"], "created");
    assert_eq!(json["items"][3]["index"]["error"]["type"], "index_not_found_exception");
    for at in 4..7 {
        assert_eq!(json["items"][at]["index"]["error"]["type"], "mapper_parsing_exception");
    }
    assert!(json["items"][8]["delete"]["error"]["reason"].as_str().unwrap().contains("append-only"));
    assert_eq!(db.count("SELECT count(*) FROM logs").await, 2);
    assert_eq!(db.count("SELECT count(*) FROM events").await, 1);
    assert_eq!(db.texts("SELECT metadata->>'_id' FROM logs WHERE message = 'a'").await, ["one"]);
    assert_eq!(
        db.texts(
            "SELECT position || ' ' || stage FROM watershed.dead_letters WHERE source = 'bulk' ORDER BY 1"
        )
        .await,
        ["line 10 decode", "line 12 map", "line 14 postgres"]
    );

    // The index of the address, short answers, and PUT.
    let two = "{\"create\":{}}\n{\"ts\":1}\n{\"create\":{}}\n{}\n";
    let short = "PUT /logs-nginx-default/_bulk?filter_path=errors,items.*.error,items.*.status";
    let answer = ask(at, short, &[], two.as_bytes()).await.json();
    assert_eq!(statuses(&answer), [201, 400]);
    assert_eq!(answer["items"][0].to_string(), "{\"create\":{\"status\":201}}");
    // Malformed: nothing is in.
    let before = db.count("SELECT count(*) FROM logs").await;
    for bad in ["", "{\"index\":{}}\n{\"ts\":1}\n", "{\"create\":{\"_index\":\"logs\"}}\n{\"ts\":1}\nx\n"] {
        let answer = ask(at, "POST /_bulk", &[], bad.as_bytes()).await;
        assert_eq!(answer.status, 400, "{}", answer.body);
        assert_eq!(answer.json()["error"]["type"], "illegal_argument_exception");
    }
    assert_eq!(db.count("SELECT count(*) FROM logs").await, before);
    // A repeated request with a key adds nothing; another index in the address is another request.
    let key = [("Idempotency-Key", "b-1")];
    let first = ask(at, "POST /logs/_bulk", &key, two.as_bytes()).await;
    let again = ask(at, "POST /logs/_bulk", &key, two.as_bytes()).await;
    assert_eq!(first.body, again.body);
    assert!(again.head.contains("idempotency-replayed: true") && again.head.contains("x-elastic-product"));
    assert_eq!(db.count("SELECT count(*) FROM logs").await, before + 1);
    assert_eq!(ask(at, "POST /logs-a/_bulk", &key, two.as_bytes()).await.status, 422);
    // One document.
    let answer = ask(at, "POST /logs/_doc/n-7", &[], b"{\"ts\":1,\"message\":\"single\"}").await;
    assert_eq!((answer.status, &answer.json()["_id"]), (201, &Value::from("n-7")), "{}", answer.body);
    assert_eq!(ask(at, "POST /logs/_doc", &[], b"{}").await.status, 400);
    assert_eq!(ask(at, "POST /nothere/_doc", &[], b"{\"ts\":1}").await.status, 404);
    assert_eq!(db.count("SELECT count(*) FROM logs WHERE message = 'single'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_name_needs_quotes_is_an_index_too() {
    let db = Database::new().await;
    db.run(
        "CREATE TABLE public.\"web-1\" (ts timestamptz NOT NULL, path text); \
         SELECT watershed.attach_table('public.\"web-1\"', event_time => 'ts')",
    )
    .await;
    let at =
        serve(Config { indices: Indices::new([("shop-*".to_owned(), "events".to_owned())]), ..config(&db) })
            .await;
    let body = "{\"index\":{\"_index\":\"web-1\",\"_id\":\"7\"}}\n{\"ts\":1,\"path\":\"/\"}\n\
                {\"index\":{\"_index\":\"shop-eu\"}}\n{\"ts\":1}\n";
    assert_eq!(statuses(&ask(at, "POST /_bulk", &[], body.as_bytes()).await.json()), [201, 201]);
    assert_eq!(db.count("SELECT count(*) FROM public.\"web-1\"").await, 1);
    assert_eq!(db.count("SELECT count(*) FROM events").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_shippers_ask_first() {
    let db = Database::new().await;
    let at = serve(config(&db)).await;
    let about = ask(at, "GET /", &[], b"").await;
    assert!(about.head.contains("x-elastic-product: elasticsearch"));
    assert_eq!(about.json()["version"]["build_flavor"], "default");
    assert_eq!(about.json()["tagline"], "You Know, for Search");
    for (request, status) in [
        ("HEAD /", 200),
        ("GET /_license", 200),
        ("GET /_xpack", 200),
        ("GET /_nodes/http", 200),
        ("HEAD /_index_template/filebeat", 404),
        ("PUT /_index_template/filebeat", 200),
        ("PUT /_ilm/policy/filebeat", 200),
        ("GET /_ingest/pipeline/x", 404),
        ("HEAD /logs-any-thing", 200),
        ("HEAD /nothere", 404),
        ("PUT /logs", 200),
        ("PUT /nothere", 404),
        ("DELETE /logs", 400),
        ("POST /logs/_refresh", 200),
    ] {
        assert_eq!(ask(at, request, &[], b"").await.status, status, "{request}");
    }
    assert_eq!(ask(at, "GET /_cluster/health", &[], b"").await.json()["status"], "green");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_what_was_taken() {
    let db = Database::new().await;
    let table = "measured";
    db.run(
        "CREATE TABLE measured (ts timestamptz NOT NULL, n int CHECK (n < 10)); \
         SELECT watershed.attach_table('measured', event_time => 'ts')",
    )
    .await;
    let at = serve(config(&db)).await;
    let body = "{\"ts\":1,\"n\":1}\n{\"ts\":1,\"n\":99}\nbad\n{\"ts\":2}\n";
    assert_eq!(
        post(at, table, &[("Content-Type", "application/x-ndjson")], body).await.counts(),
        (200, 2, 2)
    );
    let answer = ask(at, "GET /metrics", &[], b"").await;
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
    let labels = "{source=\"http\",table=\"public.measured\"}";
    for line in [
        format!("watershed_ingest_rows_total{labels} 2"),
        format!("watershed_ingest_batches_total{labels} 1"),
        format!("watershed_ingest_bytes_total{labels} {}", body.len()),
        "watershed_ingest_rejected_total{source=\"http\",stage=\"decode\",table=\"public.measured\"} 1"
            .to_owned(),
        "watershed_ingest_rejected_total{source=\"http\",stage=\"postgres\",table=\"public.measured\"} 1"
            .to_owned(),
    ] {
        assert!(answer.body.lines().any(|l| l == line), "{line} is missing in\n{}", answer.body);
    }
    assert!(answer.body.contains("\nprocess_resident_memory_bytes "));
    // Names that are no tables make no series.
    assert_eq!(post(at, "no-such-table-for-metrics", &[], body).await.status, 404);
    assert!(!ask(at, "GET /metrics", &[], b"").await.body.contains("no-such-table-for-metrics"));
}

/// Room that a test fills and empties.
struct Tank(std::sync::Arc<std::sync::atomic::AtomicU64>);

impl Probe for Tank {
    fn place(&self) -> &str {
        "the test disk"
    }

    fn read(&mut self) -> futures::future::BoxFuture<'_, Result<Reading, String>> {
        let free = self.0.load(std::sync::atomic::Ordering::SeqCst);
        Box::pin(async move { Ok(Reading { free, total: 1 << 40 }) })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_closes_the_door_and_room_opens_it() {
    let db = Database::new().await;
    let free = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(1 << 39));
    let quick = pressure::Config { interval: Duration::from_millis(10), ..pressure::Config::default() };
    let (mut pressure, monitor) = pressure::Monitor::new(quick, vec![Box::new(Tank(free.clone()))]);
    tokio::spawn(monitor.run(tokio_util::sync::CancellationToken::new()));
    let at = serve(Config { pressure: pressure.clone(), ..config(&db) }).await;
    assert_eq!(post(at, "logs", &[], "{\"ts\":1}").await.status, 200);
    free.store(1 << 20, std::sync::atomic::Ordering::SeqCst);
    pressure.changed().await;
    let bulk = "{\"index\":{\"_index\":\"logs\"}}\n{\"ts\":1}\n";
    for (request, body) in [("POST /v1/ingest/logs", "{\"ts\":1}"), ("POST /_bulk", bulk)] {
        let answer = ask(at, request, &[], body.as_bytes()).await;
        assert_eq!(answer.status, 503);
        assert!(answer.head.contains("retry-after: 10"), "{}", answer.head);
        assert!(answer.body.contains("the test disk is nearly full"), "{}", answer.body);
    }
    assert_eq!(ask(at, "GET /readyz", &[], b"").await.status, 503);
    assert_eq!(ask(at, "GET /_cluster/health", &[], b"").await.json()["status"], "red");
    assert_eq!(db.count("SELECT count(*) FROM logs").await, 1);
    free.store(1 << 39, std::sync::atomic::Ordering::SeqCst);
    pressure.opened().await;
    assert_eq!(post(at, "logs", &[], "{\"ts\":1}").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_keys_are_forgotten_in_the_background() {
    let db = Database::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let config = Config { key_retention: Duration::from_secs(10), ..config(&db) };
    let serving = tokio::spawn(ingest::http::run(config, listener, axum::Router::new(), stop.clone()));
    assert_eq!(post(at, "logs", &[("Idempotency-Key", "short")], "{\"ts\":1}").await.status, 200);
    assert!(post(at, "logs", &[("Idempotency-Key", "short")], "{\"ts\":1}").await.head.contains("replayed"));
    while db.count("SELECT count(*) FROM watershed_control.requests").await > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The window is over: the same request counts again.
    assert_eq!(post(at, "logs", &[("Idempotency-Key", "short")], "{\"ts\":1}").await.status, 200);
    assert_eq!(db.count("SELECT count(*) FROM logs").await, 2);
    stop.cancel();
    serving.await.unwrap().unwrap();
}
