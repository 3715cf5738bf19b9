use super::trace::{self, Config, Origin, spans, traceparent};
use super::why::{FellBack, Why};
use super::*;
use crate::classify::{Kind, NameKind, Names, classify};
use crate::query::log::QueryLog;
use crate::query::record::{Record, Who};
use crate::session::probe::Settings;
use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

fn entry(sql: &str, reasons: &str) -> Entry {
    let log = Arc::new(QueryLog::default());
    let who = Arc::new(Who { pid: 1, usename: "u".into(), datname: "d".into() });
    let record = Record::open(&log, &who, "simple", &Arc::new(classify(sql, &Names::new())));
    let mut entry = record.entry.clone();
    record.discard();
    entry.reasons = reasons.to_string().into();
    entry
}

fn why(reasons: &str) -> Why {
    Why::of(&entry("SELECT 1", reasons))
}

/// Every reason of the first look at a text has a kind of its own, and is not taken for something unproven.
#[test]
fn reasons_of_the_first_look_have_kinds() {
    let names: Names = [("logs".to_string(), NameKind::Tiered)].into_iter().collect();
    let seen = |sql: &str| match &classify(sql, &names).kind {
        Kind::Relay(reason) | Kind::Keyed(reason) => why(reason),
        other => panic!("{sql}: {other:?}"),
    };
    for (sql, expected) in [
        ("INSERT INTO logs VALUES (1)", Why::OtherStatement),
        ("SELECT 1; SELECT 2", Why::OtherStatement),
        ("SELECT count(*) INTO x FROM logs", Why::OtherStatement),
        ("SELECT $$", Why::OtherStatement),
        ("SELECT count(*) FROM other", Why::OtherTables),
        ("EXPLAIN SELECT 1", Why::Explain),
        ("EXPLAIN (FORMAT JSON) SELECT count(*) FROM logs", Why::Explain),
        ("SELECT * FROM logs FOR UPDATE", Why::Shape),
        ("SELECT * FROM logs ORDER BY ts LIMIT 1", Why::Shape),
        ("SELECT * FROM logs LIMIT 1", Why::Shape),
        ("SELECT * FROM logs WHERE id = 1", Why::Shape),
        ("SELECT * FROM logs", Why::Shape),
    ] {
        assert_eq!(seen(sql), expected, "{sql}");
    }
    assert_eq!(why(""), Why::Unseen);
    assert_eq!(why("function now() is not proven"), Why::Unproven);
    assert_eq!(why("aggregates; all of it is proven equal; estimated 1.0 ms in PostgreSQL, 2.0 ms in the lake"), Why::Faster);
    assert_eq!(why("asks for both; compared"), Why::Compared);
}

/// And so has every setting that speaks against the lake.
#[test]
fn objections_of_settings_have_a_kind() {
    let good = Settings {
        client_min_messages: "notice".into(),
        debug_print_rewritten: "off".into(),
        client_encoding: "UTF8".into(),
        datestyle: "ISO, MDY".into(),
        intervalstyle: "postgres".into(),
        extra_float_digits: "1".into(),
        bytea_output: "hex".into(),
        transform_null_equals: "off".into(),
        transaction_isolation: "read committed".into(),
        ..Settings::default()
    };
    assert_eq!(good.objection(), None);
    let bad = [
        Settings { client_min_messages: "debug1".into(), ..good.clone() },
        Settings { debug_print_rewritten: "on".into(), ..good.clone() },
        Settings { client_encoding: "LATIN1".into(), ..good.clone() },
        Settings { datestyle: "German".into(), ..good.clone() },
        Settings { intervalstyle: "iso_8601".into(), ..good.clone() },
        Settings { extra_float_digits: "0".into(), ..good.clone() },
        Settings { bytea_output: "escape".into(), ..good.clone() },
        Settings { transform_null_equals: "on".into(), ..good.clone() },
    ];
    for settings in bad {
        let objection = settings.objection().unwrap();
        assert_eq!(why(&objection), Why::Setting, "{objection}");
    }
    let serializable = Settings { transaction_isolation: "serializable".into(), ..good }.objection().unwrap();
    assert_eq!(why(&serializable), Why::Transaction);
}

#[test]
fn the_kinds_have_the_numbers_of_their_series() {
    for (number, why) in Why::ALL.iter().enumerate() {
        assert_eq!(*why as usize, number);
    }
    let mut names: Vec<_> = Why::ALL.iter().map(|w| w.name()).chain(FellBack::ALL.iter().map(|w| w.name())).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Why::ALL.len() + FellBack::ALL.len());
}

/// A finished statement is on the page: by route, result, stage and the class of its error.
#[test]
fn a_statement_is_counted_once() {
    let value = |line: &str| -> f64 {
        let page = gauges::render();
        let found = page.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok());
        found.unwrap_or(0.0)
    };
    let lines = [
        "watershed_statements_total{result=\"error\",route=\"virtual\"}",
        "watershed_statement_seconds_count{route=\"virtual\",stage=\"classify\"}",
        "watershed_statement_seconds_count{route=\"virtual\",stage=\"probe\"}",
        "watershed_errors_total{class=\"22\"}",
        "watershed_errors_total{class=\"other\"}",
    ];
    let before = lines.map(value);
    let mut e = entry("SELECT 1", "");
    e.path = Path::Virtual;
    e.sqlstate = Some("22012".into());
    e.total_us = 1500;
    finished(&e);
    e.sqlstate = Some("WS001".into());
    finished(&e);
    let after = lines.map(value);
    let grown: Vec<f64> = after.iter().zip(before).map(|(a, b)| a - b).collect();
    // Other tests use the same class, but not this route.
    assert_eq!(&grown[..3], &[2.0, 2.0, 0.0]);
    assert!(grown[3] >= 1.0 && grown[4] >= 1.0, "{grown:?}");
    assert!(!gauges::render().contains("WS001"));
}

#[test]
fn a_clients_trace_is_read_from_its_comment() {
    let sql = "SELECT 1 /*app='x',traceparent='00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'*/";
    let (origin, sampled) = traceparent(sql).unwrap();
    assert_eq!(origin.trace.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(origin.parent.to_string(), "00f067aa0ba902b7");
    assert!(sampled);
    assert!(!traceparent(&sql.replace("-01'", "-00'")).unwrap().1);
    for bad in [
        "SELECT 1",
        "traceparent='00-4bf9",
        "traceparent='00-00000000000000000000000000000000-00f067aa0ba902b7-01'",
        "traceparent='00-4bf92f3577b34da6a3ce929d0e0e47zz-00f067aa0ba902b7-01'",
        "traceparent='é0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'",
    ] {
        assert_eq!(traceparent(bad), None, "{bad}");
    }
}

#[test]
fn stages_lie_within_their_statement() {
    let mut e = entry("SELECT 'secret'", "");
    (e.classify_us, e.probe_us, e.tail_us, e.plan_us, e.first_row_us, e.total_us) = (10, 20, 30, 40, Some(150), 200);
    let all = spans(&e, Origin { trace: TraceId::from_bytes([1; 16]), parent: SpanId::INVALID });
    let names: Vec<_> = all.iter().map(|s| s.name.to_string()).collect();
    assert_eq!(names, ["postgres", "classify", "probe", "tail", "plan", "first row", "rows"]);
    for pair in all[1..].windows(2) {
        assert_eq!(pair[0].end_time, pair[1].start_time);
    }
    assert_eq!(all[1].start_time, all[0].start_time);
    assert_eq!(all[6].end_time, all[0].end_time);
    assert!(all[1..].iter().all(|s| s.parent_span_id == all[0].span_context.span_id()));
    assert!(!format!("{all:?}").contains("secret"));
    // Measured apart from each other, stages may be longer than the whole.
    (e.first_row_us, e.total_us) = (Some(60), 60);
    let all = spans(&e, Origin { trace: TraceId::from_bytes([1; 16]), parent: SpanId::INVALID });
    assert!(all.iter().all(|s| s.start_time <= s.end_time && s.end_time <= all[0].end_time));
}

/// What a collector gets, in its own words.
#[tokio::test]
async fn a_collector_gets_spans() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (requests, mut received) = mpsc::channel(4);
    let app = axum::Router::new().route(
        "/v1/traces",
        axum::routing::post(move |headers: axum::http::HeaderMap, body: axum::body::Bytes| {
            let requests = requests.clone();
            async move {
                let kind = headers.get("content-type").map(|v| v.to_str().unwrap_or_default().to_owned());
                requests.send((kind, body)).await.unwrap();
            }
        }),
    );
    tokio::spawn(async move { axum::serve(listener, app).await });
    let stop = CancellationToken::new();
    let config = Config { endpoint, service_name: "test".into(), sample: 1.0 };
    let running = tokio::spawn(trace::run(config, stop.clone()));
    let parent = "4bf92f3577b34da6a3ce929d0e0e4736";
    let mine = format!("SELECT 'a secret' /*traceparent='00-{parent}-00f067aa0ba902b7-01'*/");
    let mut e = entry(&mine, "not a SELECT");
    (e.classify_us, e.total_us, e.sqlstate) = (5, 50, Some("22012".into()));
    // Other tests of this process may finish statements too: those are in other traces.
    let found = loop {
        trace::finished(&e);
        let Ok(Some((kind, body))) = tokio::time::timeout(std::time::Duration::from_secs(2), received.recv()).await else { continue };
        assert_eq!(kind.as_deref(), Some("application/x-protobuf"));
        let request = ExportTraceServiceRequest::decode(body.clone()).unwrap();
        assert!(!String::from_utf8_lossy(&body).contains("a secret"));
        let resource = request.resource_spans[0].resource.clone().unwrap();
        assert!(resource.attributes.iter().any(|a| a.key == "service.name"));
        let spans = request.resource_spans.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans);
        let mine: Vec<_> = spans.filter(|s| hex::encode(&s.trace_id) == parent).collect();
        if !mine.is_empty() {
            break mine;
        }
    };
    assert_eq!(found.iter().filter(|s| s.name == "classify").count(), found.iter().filter(|s| s.name == "postgres").count());
    let statement = found.iter().find(|s| s.name == "postgres").unwrap();
    assert_eq!(hex::encode(&statement.parent_span_id), "00f067aa0ba902b7");
    assert_eq!(statement.status.as_ref().unwrap().message, "SQLSTATE 22012");
    assert!(statement.attributes.iter().any(|a| a.key == "watershed.reason"));
    stop.cancel();
    running.await.unwrap().unwrap();
}
