//! What becomes of every kind of record, and of dead letters that are tried again, against a real PostgreSQL.

mod common;

use std::process::{Command, Stdio};

use common::{Database, connect};
use ingest::batch::{Batch, Rejected};
use ingest::decode::envelope::Envelope;
use ingest::error::is_rows_fault;
use ingest::letters::replay::{self, Options, Report, Routes};
use ingest::letters::{self, Filter};
use ingest::load;
use ingest::map::{Mapper, Mapping, Origin};
use ingest::sink::{self, Care, LetterSource, Numbering, Session};
use ingest::target::Target;
use ingest::topics::{TableRoute, TopicRoute};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tokio_util::sync::CancellationToken;

const FATES: &str = "CREATE TABLE fates (ts timestamptz NOT NULL, i2 int2, i4 int4, i8 int8, f4 float4, f8 float8, n numeric, \
    n2 numeric(10,2), b bool, t text, v varchar(5), j jsonb, u uuid, y bytea, d date, rest jsonb)";

async fn fates() -> Database {
    let db = Database::new().await;
    db.run(FATES).await;
    db.run("SELECT watershed.attach_table('fates', event_time => 'ts', overflow => 'rest')").await;
    db
}

async fn session(db: &Database) -> Session {
    Session::connect(sink::connect_options(&db.url(), "test").unwrap()).await.unwrap()
}

async fn mapper(session: &mut Session, table: &str, mapping: &str) -> Mapper {
    let target = Target::find(session.conn(), table).await.unwrap();
    Mapper::with_mapping(target, &serde_json::from_str(mapping).unwrap()).unwrap()
}

/// Takes values the way a source does: opened, mapped, copied, the refused ones to the dead letters, in one commit.
async fn take(db: &Database, mapping: &str, values: &[Vec<u8>]) {
    let mut session = session(db).await;
    let mut mapper = mapper(&mut session, "fates", mapping).await;
    let mut batch = Batch::default();
    for (i, value) in values.iter().enumerate() {
        mapper.map_value(Envelope::Auto, value, &Origin::NONE, &mut batch, i as u64);
    }
    let from = LetterSource { table: "public.fates", source: "test", envelope: "auto", context: None };
    let mut care = Care::None;
    loop {
        let conn = session.conn();
        sink::run(conn, "BEGIN").await.unwrap();
        match sink::copy_batch(conn, &mapper, &batch, Numbering::Plain, care).await {
            Ok(refused) => {
                for rejected in [&batch.rejected, &refused] {
                    sink::letters(conn, &from, rejected, |_| None).await.unwrap();
                }
                sink::run(conn, "COMMIT").await.unwrap();
                return;
            }
            Err(e) if is_rows_fault(&e) && care == Care::None => {
                sink::rollback(conn).await;
                care = Care::Bisect;
            }
            Err(e) => panic!("{e}"),
        }
    }
}

enum Fate {
    /// A row of which this is true.
    Row(&'static str),
    /// A dead letter of this stage, whose reason contains this.
    Letter(&'static str, &'static str),
}
use Fate::{Letter, Row};

#[tokio::test(flavor = "multi_thread")]
async fn every_record_has_its_fate() {
    let db = fates().await;
    let nested = |levels: usize| format!("{{\"ts\":0,\"x\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    let objects =
        |levels: usize| format!("{{\"ts\":0,\"x\":{}1{}}}", "{\"a\":".repeat(levels), "}".repeat(levels));
    let megabyte = format!("{{\"ts\":0,\"t\":\"{}\"}}", "\u{e4}\\n".repeat(300_000));
    let text = |s: &str| s.as_bytes().to_vec();
    let cases: Vec<(Vec<u8>, Fate)> = vec![
        // Numbers out of range, and those that are none.
        (text(r#"{"ts":0,"i2":32768}"#), Letter("map", "column i2: \"32768\" is out of range")),
        (text(r#"{"ts":0,"i4":-2147483649}"#), Letter("map", "out of range")),
        (text(r#"{"ts":0,"i8":9223372036854775808}"#), Letter("map", "out of range")),
        (text(r#"{"ts":0,"i8":9223372036854775807}"#), Row("i8 = 9223372036854775807")),
        (text(r#"{"ts":0,"i4":1.5}"#), Letter("map", "no integer")),
        (text(r#"{"ts":0,"f4":1e39}"#), Letter("map", "out of range")),
        (text(r#"{"ts":0,"f8":1e309}"#), Letter("map", "out of range")),
        (text(r#"{"ts":0,"f8":"NaN"}"#), Row("f8 = 'NaN'")),
        (text(r#"{"ts":0,"f8":"-Infinity"}"#), Row("f8 = '-Infinity'")),
        (text(r#"{"ts":0,"f8":NaN}"#), Letter("decode", "expected value")),
        (text(r#"{"ts":0,"f8":Infinity}"#), Letter("decode", "expected value")),
        (
            text(r#"{"ts":0,"n":123456789012345678901234567890.123456789}"#),
            Row("n = 123456789012345678901234567890.123456789"),
        ),
        (text(r#"{"ts":0,"n":1e200000}"#), Letter("postgres", "22")),
        (text(r#"{"ts":0,"n2":123456789.99}"#), Letter("postgres", "22003")),
        (text(r#"{"ts":0,"n2":"NaN"}"#), Letter("postgres", "23514")),
        (text(r#"{"ts":0,"x":1e400000}"#), Letter("postgres", "22")),
        (text(r#"{"ts":0,"x":1.500}"#), Row("rest::text = '{\"x\": 1.500}'")),
        // Times.
        (text(r#"{"ts":"9999-12-31T23:59:59.999999Z"}"#), Row("ts = '9999-12-31 23:59:59.999999+00'")),
        (text(r#"{"ts":"10000-01-01T00:00:00Z"}"#), Letter("map", "column ts")),
        (text(r#"{"ts":"2023-02-29"}"#), Letter("map", "does not exist")),
        (text(r#"{"ts":"infinity"}"#), Letter("map", "finite")),
        (text(r#"{"ts":1709251200.123456789}"#), Row("ts = '2024-03-01 00:00:00.123457+00'")),
        (text(r#"{"ts":1709251200123456789}"#), Row("ts = '2024-03-01 00:00:00.123456+00'")),
        (text(r#"{"ts":-62135596801}"#), Letter("map", "out of range")),
        (text(r#"{"ts":0,"d":"infinity"}"#), Row("d = 'infinity'")),
        // Characters that PostgreSQL cannot hold.
        (b"{\"ts\":0,\"t\":\"\xff\xfe\"}".to_vec(), Letter("decode", "invalid UTF-8 at byte 13")),
        (b"{\"ts\":0,\"t\":\"\xed\xa0\x80\"}".to_vec(), Letter("decode", "invalid UTF-8")),
        (b"{\"ts\":0,\"t\":\"a\0b\"}".to_vec(), Letter("decode", "control character")),
        (text(r#"{"ts":0,"t":"a\u0000b"}"#), Letter("decode", "NUL")),
        (text(r#"{"ts":0,"x":{"y":["\u0000"]}}"#), Letter("decode", "NUL")),
        (text(r#"{"ts":0,"a\u0000":1}"#), Letter("decode", "NUL")),
        (text(r#"{"ts":0,"t":"\ud800"}"#), Letter("decode", "half a surrogate")),
        (text(r#"{"ts":0,"x":"\udc00\ud800"}"#), Letter("decode", "half a surrogate")),
        (text(r#"{"ts":0,"t":"\ud83d\ude00 \u007f"}"#), Row("t = U&'\\+01F600 ' || chr(127)")),
        (text(r#"{"ts":0,"x":"\\u0000"}"#), Row("rest->>'x' = '\\u0000'")),
        // Size and depth.
        (megabyte.into_bytes(), Row("length(t) = 600000 AND octet_length(t) = 900000")),
        (text(&nested(1_000)), Row("length(rest->>'x') = 2000")),
        (text(&objects(1_000)), Row("rest->'x'->'a'->'a' IS NOT NULL")),
        (text(&nested(100_000)), Letter("postgres", "54001")),
        (text(&objects(100_000)), Letter("postgres", "54001")),
        (text(&objects(100_000).replace("\"x\"", "\"i4\"")), Letter("map", "column i4")),
        (text(&nested(100_000).replace("\"x\"", "\"t\"")), Row("length(t) = 200000")),
        // Shapes.
        (text(r#"{"ts":0,"t":"a","t":"b"}"#), Row("t = 'b'")),
        (text(r#"{"ts":0,"x":1,"x":2,"":3}"#), Row("rest = '{\"x\": 2, \"\": 3}'")),
        (text("{}"), Letter("map", "no event time")),
        (text(r#"{"ts":0}"#), Row("rest IS NULL AND t IS NULL")),
        (text(r#"{"ts":0,"rest":{}}"#), Row("rest = '{}'")),
        (text(r#"[{"ts":0}]"#), Letter("decode", "neither a JSON object")),
        (text(r#"{"ts":0,"i4":[1]}"#), Letter("map", "column i4")),
        (text(r#"{"ts":0,"t":[1, 2]}"#), Row("t = '[1, 2]'")),
        (text(r#"{"ts":0,"t":{}}"#), Row("t = '{}'")),
        (text(r#"{"ts":0,"j":[]}"#), Row("j = '[]'")),
        (text(r#"{"ts":{}}"#), Letter("map", "no time")),
        (text(r#"{"ts":0,"v":"123456"}"#), Letter("postgres", "22001")),
        (text(r#"{"ts":0,"u":"x"}"#), Letter("map", "no UUID")),
        (text(r#"{"ts":0,"y":"\\xf"}"#), Letter("map", "no hexadecimal")),
        (text(r#"{"ts":0,"b":"maybe"}"#), Letter("map", "no boolean")),
        // What is no object, or no JSON.
        (text(""), Letter("decode", "empty")),
        (text(" \r\n"), Letter("decode", "empty")),
        (text("\u{feff}{\"ts\":0,\"t\":\"bom\"}"), Row("t = 'bom'")),
        (text("\u{feff}"), Letter("decode", "empty")),
        (text("null"), Letter("decode", "neither")),
        (text("hello"), Letter("decode", "neither")),
        (text(r#"{"ts":0"#), Letter("decode", "EOF")),
        (text(r#"{"ts":0} {"ts":0}"#), Letter("decode", "trailing")),
        (
            text(r#"10.0.0.1 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 5 "-" "curl""#),
            Row("ts = '2015-05-17 10:05:03+00' AND rest->>'status' = '200'"),
        ),
        (text("<13>1 2024-03-01T00:00:00Z h app - - - hi"), Row("rest->>'message' = 'hi'")),
    ];
    let values: Vec<Vec<u8>> = cases.iter().map(|(value, _)| value.clone()).collect();
    take(&db, "{}", &values).await;
    let mut rows = 0;
    for (i, (value, fate)) in cases.iter().enumerate() {
        let shown = String::from_utf8_lossy(&value[..value.len().min(80)]).into_owned();
        let found = db
            .texts(&format!(
                "SELECT stage || '|' || reason FROM watershed.dead_letters WHERE position = 'line {i}'"
            ))
            .await;
        match fate {
            Row(condition) => {
                rows += 1;
                assert_eq!(found, Vec::<String>::new(), "{shown}");
                assert!(
                    db.count(&format!("SELECT count(*) FROM fates WHERE {condition}")).await >= 1,
                    "{shown}: {condition}"
                );
            }
            Letter(stage, why) => {
                assert_eq!(found.len(), 1, "{shown}");
                assert!(
                    found[0].starts_with(&format!("{stage}|")) && found[0].contains(why),
                    "{shown}: {found:?}"
                );
            }
        }
    }
    assert_eq!(db.count("SELECT count(*) FROM fates").await, rows);
    assert_eq!(db.count("SELECT count(*) FROM watershed.dead_letters").await, cases.len() as i64 - rows);
    // The bytes of each are there as they came.
    let mut admin = db.admin().await;
    let kept: Vec<(String, Vec<u8>)> = sqlx::query_as("SELECT position, raw FROM watershed.dead_letters")
        .fetch_all(&mut admin)
        .await
        .unwrap();
    for (position, raw) in kept {
        let at: usize = position.trim_start_matches("line ").parse().unwrap();
        assert!(raw == values[at], "{position}");
    }
}

/// What COPY is given is what PostgreSQL reads back, for text and JSON of every kind.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_what_is_read_back() {
    let db = fates().await;
    let mut runner = TestRunner::deterministic();
    let text = prop_oneof![
        any::<String>(),
        "[\\\\\t\n\r\"'\u{1}-\u{1f}\u{7f}\\.N]{0,30}",
        Just("\\N".to_owned()),
        Just("\\.".to_owned()),
    ]
    .prop_map(|s| s.replace('\0', ""));
    let values = (text.clone(), text, any::<i64>(), any::<f64>());
    let mut given = Vec::new();
    let mut records = Vec::new();
    for i in 0..600i64 {
        let (a, b, c, d) = values.new_tree(&mut runner).unwrap().current();
        let d = if d.is_finite() { d } else { 0.5 };
        let record = serde_json::json!({ "ts": i, "i4": i, "t": a, "i8": c, "f8": d, "j": { b.clone(): [a.clone(), c, null] }, "extra": b.clone() });
        records.push(record.to_string().into_bytes());
        given.push((a, b, c, d));
    }
    take(&db, "{}", &records).await;
    assert_eq!(db.texts("SELECT reason FROM watershed.dead_letters").await, Vec::<String>::new());
    let mut admin = db.admin().await;
    let rows: Vec<(i32, String, i64, f64, String, String)> =
        sqlx::query_as("SELECT i4, t, i8, f8, j::text, rest->>'extra' FROM fates ORDER BY i4")
            .fetch_all(&mut admin)
            .await
            .unwrap();
    assert_eq!(rows.len(), given.len());
    for (row, (a, b, c, d)) in rows.iter().zip(&given) {
        assert_eq!((&row.1, row.2, &row.5), (a, *c, b));
        assert_eq!(row.3.to_bits(), d.to_bits(), "{d}");
        let j: serde_json::Value = serde_json::from_str(&row.4).unwrap();
        assert_eq!(j, serde_json::json!({ b.clone(): [a, c, null] }));
    }
}

fn routes(mapping: &str) -> Routes {
    Routes {
        topics: vec![TopicRoute {
            topic: "shop".into(),
            table: "public.fates".into(),
            envelope: Envelope::Auto,
            mapping: serde_json::from_str(mapping).unwrap(),
            headers: None,
        }],
        tables: Vec::new(),
    }
}

/// Puts a record of topic `shop` among the dead letters.
async fn letter(db: &Database, offset: i64, value: &[u8]) {
    let mut session = session(db).await;
    let headers: [(&str, Option<&[u8]>); 2] = [("h", Some(b"hv")), ("bin", Some(b"\xff"))];
    let origin = Origin {
        topic: "shop",
        partition: 2,
        offset,
        timestamp: Some(1_709_251_200_000_000),
        key: Some(b"k1"),
        headers: &headers,
    };
    let rejected =
        [Rejected { line: offset as u64, stage: "map", reason: "then".into(), raw: value.to_vec() }];
    let from = LetterSource { table: "public.fates", source: "kafka", envelope: "auto", context: None };
    sink::letters(session.conn(), &from, &rejected, |_| Some(origin)).await.unwrap();
    session.close().await;
}

async fn run(options: Options) -> Report {
    replay::run(options, &|_| {}, CancellationToken::new()).await.unwrap()
}

fn all(db: &Database, mapping: &str) -> Options {
    Options::new(&db.url(), routes(mapping), Filter::default())
}

const WHEN: &str = r#"{"columns":{"ts":{"from":["when","$timestamp"],"time":"ms"},"t":{"from":"$key"},"v":{"from":"$header.h"},"i8":{"from":"$offset"},"y":{"from":"$header.bin"}}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn letters_become_rows_once_with_the_mapping_of_today() {
    let db = fates().await;
    letter(&db, 41, br#"{"when":1709251200000,"i4":5,"x":1}"#).await;
    letter(&db, 42, br#"{"when":1709251200000,"i4":"many"}"#).await;
    letter(&db, 43, br#"{"when":1709251200000,"v":"x","n2":999999999999}"#).await;
    letter(&db, 44, br#"{"i4":7}"#).await;
    assert_eq!(
        db.texts("SELECT concat_ws(' ', position, topic, partition, kafka_offset, record_time AT TIME ZONE 'UTC', encode(key, 'escape'), headers, envelope) FROM watershed.dead_letters ORDER BY id LIMIT 1").await,
        ["shop/2/41 shop 2 41 2024-03-01 00:00:00 k1 [{\"name\": \"h\", \"value\": \"hv\"}, {\"hex\": \"ff\", \"name\": \"bin\"}] auto"]
    );
    // Without the mapping all of them fail, and say why now; what was said first stays.
    let report = run(all(&db, "{}")).await;
    assert_eq!((report.total, report.seen, report.replayed, report.failed), (4, 4, 0, 4));
    assert_eq!(db.count("SELECT count(*) FROM fates").await, 0);
    assert_eq!(db.count("SELECT count(*) FROM watershed.dead_letters WHERE reason = 'then' AND tried_reason LIKE 'no event time%' AND attempts = 1 AND tried_at IS NOT NULL AND replayed_at IS NULL").await, 4);
    // A dry run tells and changes nothing.
    let report = run(Options { dry_run: true, ..all(&db, WHEN) }).await;
    assert_eq!((report.replayed, report.rows, report.failed), (2, 2, 2));
    assert_eq!(db.count("SELECT count(*) FROM fates").await, 0);
    assert_eq!(db.count("SELECT sum(attempts)::bigint FROM watershed.dead_letters").await, 4);
    // With it: what can be a row is one, with its own number in the table's stream; PostgreSQL's refusal costs only its letter.
    let before = db.count("SELECT next_offset FROM watershed_control.positions JOIN watershed_control.streams ON id = stream WHERE kind = 'loads' AND relid = 'fates'::regclass").await;
    let report = run(all(&db, WHEN)).await;
    assert_eq!((report.total, report.seen, report.replayed, report.rows, report.failed), (4, 4, 2, 2, 2));
    let why: Vec<(i64, bool)> = report
        .failures
        .iter()
        .map(|f| (f.id, f.reason.contains("no integer") || f.reason.contains("22003")))
        .collect();
    assert_eq!(why, [(2, true), (3, true)]);
    assert_eq!(
        db.texts(&format!("SELECT concat_ws(' ', i4, t, v, i8, encode(y, 'hex'), rest, _offset - {before}, ts AT TIME ZONE 'UTC') FROM fates ORDER BY i4")).await,
        [
            "5 k1 hv 41 ff {\"x\": 1} 0 2024-03-01 00:00:00",
            // No `when`: the record's own timestamp.
            "7 k1 hv 44 ff 1 2024-03-01 00:00:00"
        ]
    );
    assert_eq!(db.count("SELECT count(*) FROM fates WHERE _stream = (SELECT id FROM watershed_control.streams WHERE kind = 'loads' AND relid = 'fates'::regclass)").await, 2);
    assert_eq!(db.texts("SELECT id || ' ' || replayed_rows FROM watershed.dead_letters WHERE replayed_at IS NOT NULL ORDER BY id").await, ["1 1", "4 1"]);
    // Again: only those that wait, and they fail again.
    let report = run(all(&db, WHEN)).await;
    assert_eq!((report.total, report.replayed, report.failed), (2, 0, 2));
    // Asked for by number, a replayed one is not taken either.
    let filter = Filter { ids: Some(vec![1, 4]), ..Filter::default() };
    assert_eq!(run(Options::new(&db.url(), routes(WHEN), filter)).await, Report::default());
    assert_eq!(db.count("SELECT count(*) FROM fates").await, 2);
    // A topic that now goes to a table without the trouble.
    let mut elsewhere = routes(r#"{"columns":{"ts":{"from":"when"}}}"#);
    elsewhere.topics[0].table = "logs".into();
    let report = run(Options::new(&db.url(), elsewhere, Filter::default())).await;
    assert_eq!((report.replayed, report.failed), (2, 0));
    assert_eq!(
        db.texts("SELECT metadata::text FROM logs ORDER BY _offset").await,
        ["{\"i4\": \"many\"}", "{\"v\": \"x\", \"n2\": 999999999999}"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_listed_counted_and_dropped_by_filter() {
    let db = fates().await;
    for i in 0..5 {
        letter(&db, i, format!("{{\"i4\":{i}}}").as_bytes()).await;
    }
    db.run(
        "UPDATE watershed.dead_letters SET received_at = '2020-01-01', stage = 'decode' WHERE id <= 2; \
            UPDATE watershed.dead_letters SET topic = 'other', table_name = 'public.logs' WHERE id = 5",
    )
    .await;
    let mut conn = connect(&db.url()).await;
    let ids = async |filter: &Filter, conn: &mut sqlx::PgConnection| {
        letters::list(conn, filter, 100).await.unwrap().iter().map(|l| l.id).collect::<Vec<_>>()
    };
    let some = |s: &str| Some(s.to_owned());
    for (filter, want) in [
        (Filter::default(), vec![5, 4, 3, 2, 1]),
        (Filter { table: some("fates"), ..Filter::default() }, vec![4, 3, 2, 1]),
        (Filter { table: some("public.logs"), ..Filter::default() }, vec![5]),
        (Filter { topic: some("shop"), stage: some("map"), ..Filter::default() }, vec![4, 3]),
        (Filter { since: some("2021-01-01 00:00:00+00"), ..Filter::default() }, vec![5, 4, 3]),
        (Filter { ids: Some(vec![2, 9]), ..Filter::default() }, vec![2]),
        (Filter { replayed: Some(true), ..Filter::default() }, vec![]),
    ] {
        assert_eq!(ids(&filter, &mut conn).await, want, "{filter:?}");
        assert_eq!(letters::count(&mut conn, &filter).await.unwrap().0, want.len() as i64);
    }
    let one = letters::get(&mut conn, 1).await.unwrap().unwrap();
    assert_eq!((one.raw.as_slice(), one.kafka_offset, one.headers.len()), (&b"{\"i4\":0}"[..], Some(0), 2));
    assert_eq!(one.summary.received_at, "2020-01-01T00:00:00.000000Z");
    assert_eq!(one.record_time, Some(1_709_251_200_000_000));
    assert!(letters::get(&mut conn, 99).await.unwrap().is_none());
    let decoded = Filter { stage: some("decode"), ..Filter::default() };
    assert_eq!(letters::drop_letters(&mut conn, &decoded).await.unwrap(), 2);
    assert_eq!(ids(&Filter::default(), &mut conn).await, [5, 4, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_of_files_are_read_as_the_file_was() {
    let db = fates().await;
    let dir = tempfile::tempdir().unwrap();
    let load = async |table: &str, name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        let options = load::Options {
            database_url: db.url(),
            table: table.into(),
            files: vec![path],
            year: Some(2019),
            max_record_bytes: 200,
            ..load::Options::default()
        };
        load::run(options, CancellationToken::new()).await.unwrap().pop().unwrap()
    };
    assert_eq!(load("fates", "a.csv", "ts;v;t\n0;123456;ä\n1;12;b\n").await.rejected, 1);
    assert_eq!(
        load(
            "fates",
            "b.ndjson",
            &format!("{{\"ts\":0,\"v\":\"1234567\"}}\n{{\"ts\":0,\"t\":\"{}\"}}\n", "x".repeat(300))
        )
        .await
        .rejected,
        2
    );
    assert_eq!(
        load(
            "logs",
            "c.log",
            "Mar  1 00:00:00 h a[1]: one\nMar 33 00:00:00 h a[1]: two\nMar  2 00:00:00 h a[1]: three\n"
        )
        .await
        .rejected,
        1
    );
    assert_eq!(
        db.texts("SELECT concat_ws('|', stage, envelope, context, complete) FROM watershed.dead_letters ORDER BY id").await,
        [
            r#"postgres|csv|{"names": ["ts", "v", "t"], "delimiter": ";"}|t"#,
            "size|ndjson|f",
            "postgres|ndjson|t",
            r#"decode|syslog|{"year": 2019}|t"#
        ]
    );
    let mut options = all(&db, "{}");
    assert_eq!(run(options.clone()).await.failed, 4);
    assert_eq!(
        db.count("SELECT count(*) FROM watershed.dead_letters WHERE tried_reason LIKE '%only the head%'")
            .await,
        1
    );
    assert_eq!(
        db.count("SELECT count(*) FROM watershed.dead_letters WHERE tried_reason LIKE '%22001%'").await,
        2
    );
    // The table's mapping of today leaves the column out.
    options.routes.tables = vec![TableRoute {
        table: "fates".into(),
        envelope: Envelope::Plain,
        mapping: serde_json::from_str::<Mapping>(r#"{"columns":{"v":{"from":"none"}}}"#).unwrap(),
    }];
    // And somebody has put the record right that was broken.
    db.run("UPDATE watershed.dead_letters SET raw = 'Mar  3 00:00:00 h a[1]: two' WHERE stage = 'decode'")
        .await;
    let report = run(options).await;
    assert_eq!((report.replayed, report.failed), (3, 1));
    assert_eq!(
        db.texts("SELECT concat_ws(' ', t, rest) FROM fates WHERE rest IS NOT NULL ORDER BY _offset").await,
        [r#"ä {"v": "123456"}"#, r#"{"v": "1234567"}"#]
    );
    assert_eq!(
        db.count("SELECT count(*) FROM logs WHERE message = 'two' AND ts = '2019-03-03 00:00:00+00'").await,
        1
    );
}

/// A file whose table has an envelope and a mapping of its own.
#[tokio::test(flavor = "multi_thread")]
async fn files_are_read_with_the_mapping_of_their_table() {
    let db = fates().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("otel.json");
    let record = |n: u32, body: &str| format!(r#"{{"timeUnixNano":"{n}000000000","body":{{"{body}"}}}}"#);
    let one = format!(
        r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{},{},5]}}]}}]}}"#,
        record(1, r#"stringValue":"a"#),
        record(2, r#"stringValue":"b"#)
    );
    std::fs::write(&path, format!("{one}\n{{\"resourceLogs\":[]}}\n")).unwrap();
    let options = load::Options {
        database_url: db.url(),
        table: "fates".into(),
        files: vec![path],
        routes: vec![TableRoute {
            table: "public.fates".into(),
            envelope: Envelope::Auto,
            mapping: serde_json::from_str(r#"{"columns":{"t":{"from":"message"}}}"#).unwrap(),
        }],
        ..load::Options::default()
    };
    let summary = load::run(options.clone(), CancellationToken::new()).await.unwrap().pop().unwrap();
    assert_eq!((summary.loaded, summary.rejected), (2, 1));
    assert_eq!(db.texts("SELECT t FROM fates ORDER BY ts").await, ["a", "b"]);
    let letter = db.texts("SELECT convert_from(raw, 'UTF8') FROM watershed.dead_letters").await;
    assert_eq!(letter, [r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[5]}]}]}"#]);
    let again = load::run(options, CancellationToken::new()).await.unwrap().pop().unwrap();
    assert_eq!((again.loaded, again.already_present), (0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn replays_at_once_make_each_row_once() {
    let db = fates().await;
    db.run("INSERT INTO watershed.dead_letters (table_name, topic, partition, kafka_offset, position, stage, reason, raw) \
            SELECT 'public.fates', 'shop', 0, i, 'shop/0/' || i, 'map', 'then', convert_to(format('{\"ts\":0,\"i4\":%s}', i), 'UTF8') \
            FROM generate_series(1, 3000) i")
        .await;
    let options = Options { batch_letters: 100, ..all(&db, "{}") };
    let tasks: Vec<_> = (0..3).map(|_| tokio::spawn(run(options.clone()))).collect();
    let mut replayed = 0;
    for task in tasks {
        let report = task.await.unwrap();
        assert_eq!(report.failed, 0);
        replayed += report.replayed;
    }
    assert_eq!(replayed, 3000);
    assert_eq!(
        db.texts("SELECT count(*) || ' ' || count(DISTINCT i4) || ' ' || count(DISTINCT _offset) FROM fates")
            .await,
        ["3000 3000 3000"]
    );
}

/// Not a test of its own: `a_replay_killed_at_any_step_goes_on` runs it in processes that die.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_dies() {
    let Ok(url) = std::env::var("INGEST_TEST_URL") else { return };
    let options = Options { batch_letters: 100, ..Options::new(&url, routes("{}"), Filter::default()) };
    run(options).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_killed_at_any_step_goes_on() {
    let db = fates().await;
    db.run("INSERT INTO watershed.dead_letters (table_name, topic, partition, kafka_offset, position, stage, reason, raw) \
            SELECT 'public.fates', 'shop', 0, i, 'shop/0/' || i, 'map', 'then', \
                convert_to(CASE WHEN i % 50 = 7 THEN 'what is this' ELSE format('{\"ts\":0,\"i4\":%s}', i) END, 'UTF8') \
            FROM generate_series(1, 1000) i")
        .await;
    for point in ["letters.copied", "letters.before_commit", "letters.committed", "letters.committed"] {
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_dies", "--test-threads=1"])
            .env("INGEST_TEST_URL", db.url())
            .env("WATERSHED_CRASH_AT", point)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(!status.success(), "{point}");
        assert_eq!(
            db.count("SELECT count(*) FROM fates").await,
            db.count("SELECT count(*) FROM watershed.dead_letters WHERE replayed_at IS NOT NULL").await,
            "after {point}"
        );
    }
    // Of the first hundred 98 are rows; the two that failed are tried again, before 98 new ones, two of which fail.
    assert_eq!(db.count("SELECT count(*) FROM fates").await, 98 + 96);
    let report = run(Options { batch_letters: 100, ..all(&db, "{}") }).await;
    assert_eq!((report.replayed, report.failed), (980 - 98 - 96, 20));
    assert_eq!(db.texts("SELECT count(*) || ' ' || count(DISTINCT i4) FROM fates").await, ["980 980"]);
    assert_eq!(db.count("SELECT count(*) FROM watershed.dead_letters WHERE replayed_at IS NULL").await, 20);
}
