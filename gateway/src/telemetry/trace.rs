//! Traces: one span a statement and one a stage, sent by OTLP (HTTP, protobuf) where that is configured. Spans are made from finished
//! records by a task of their own: a session hands its record over without waiting, and where the collector is slow, records are left out
//! and counted. What is sent has no literals: the statement is masked, of an error there is the SQLSTATE.
//! ✗ metrics, logs, retrying for long.
//!
//! - A record has the length of each stage, not its beginning; the stages are laid behind each other in the order in which they go on.
//! - A statement that carries a `traceparent` (W3C Trace Context, in a comment, as sqlcommenter writes it) is a part of that trace, and
//!   sampled as it says.

use super::why::Why;
use crate::query::record::{Entry, Path};
use gauges::{counter, describe};
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Protocol, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use std::borrow::Cow;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Records that may wait to be sent.
const WAITING: usize = 4096;
/// Spans sent at once, and how long the first of them waits for others.
const BATCH: usize = 512;
const DELAY: Duration = Duration::from_millis(500);
/// How long sending once may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Characters of a statement that are sent.
const TOLD: usize = 2048;

/// Where traces go.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The collector, e.g. `http://127.0.0.1:4318`; `/v1/traces` is added.
    pub endpoint: String,
    pub service_name: String,
    /// The part of the statements that are traced, of those that do not say themselves.
    pub sample: f64,
}

/// Why traces cannot be sent.
#[derive(Debug, Error)]
pub enum TraceError {
    #[error("the exporter of traces cannot be made: {0}")]
    Exporter(String),
    #[error("traces are sent already")]
    Twice,
}

struct Sender {
    records: mpsc::Sender<Box<(Entry, Origin)>>,
    sample: f64,
}

static SENDER: OnceLock<Sender> = OnceLock::new();

/// The trace that a statement belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    pub trace: TraceId,
    /// Invalid: the statement begins the trace.
    pub parent: SpanId,
}

/// Sends traces of the statements of this process until `stop`, and then those that wait.
///
/// Errors: the endpoint is no URL; traces are sent already.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), TraceError> {
    let endpoint = format!("{}/v1/traces", config.endpoint.trim_end_matches('/'));
    let mut exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(endpoint)
        .with_timeout(PATIENCE)
        .build()
        .map_err(|e| TraceError::Exporter(e.to_string()))?;
    let service = KeyValue::new("service.name", config.service_name.clone());
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    exporter.set_resource(&Resource::builder_empty().with_attributes([service, version]).build());
    let (records, mut waiting) = mpsc::channel(WAITING);
    SENDER.set(Sender { records, sample: config.sample }).map_err(|_| TraceError::Twice)?;
    describe("watershed_traces_sent_total", "Statements whose trace was sent.");
    describe("watershed_traces_dropped_total", "Statements whose trace was not, since too many waited or the collector did not take it.");
    let (sent, dropped) = (counter("watershed_traces_sent_total", &[]), counter("watershed_traces_dropped_total", &[]));
    tracing::info!(endpoint = config.endpoint, sample = config.sample, "sending traces");
    let mut failing = false;
    loop {
        let mut batch = Vec::new();
        let stopped = tokio::select! {
            _ = waiting.recv_many(&mut batch, BATCH) => false,
            () = stop.cancelled() => true,
        };
        if !stopped && batch.len() < BATCH {
            let more = async { while batch.len() < BATCH && waiting.recv_many(&mut batch, BATCH).await > 0 {} };
            tokio::select! {
                _ = tokio::time::timeout(DELAY, more) => {}
                () = stop.cancelled() => {}
            }
        }
        while let Ok(record) = waiting.try_recv() {
            batch.push(record);
        }
        if !batch.is_empty() {
            let spans = batch.iter().flat_map(|record| spans(&record.0, record.1)).collect();
            let statements = batch.len() as u64;
            match exporter.export(spans).await {
                Ok(()) => {
                    sent.add(statements);
                    failing = false;
                }
                Err(error) => {
                    dropped.add(statements);
                    // Once, until it works again.
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "traces are not taken by the collector");
                    }
                }
            }
        }
        if stopped {
            return Ok(());
        }
    }
}

/// A statement is finished: hands its record over if it is to be traced.
pub(super) fn finished(entry: &Entry) {
    let Some(sender) = SENDER.get() else { return };
    let origin = match traceparent(&entry.statement.sql) {
        Some((origin, true)) => origin,
        Some((_, false)) => return,
        None if rand::random::<f64>() < sender.sample => Origin { trace: new_trace(), parent: SpanId::INVALID },
        None => return,
    };
    if sender.records.try_send(Box::new((entry.clone(), origin))).is_err() {
        counter("watershed_traces_dropped_total", &[]).inc();
    }
}

fn new_trace() -> TraceId {
    TraceId::from_bytes(rand::random())
}

/// What a comment says of the client's trace: `traceparent='00-TRACE-SPAN-FLAGS'`, and whether it is sampled.
pub(super) fn traceparent(sql: &str) -> Option<(Origin, bool)> {
    let (_, rest) = sql.split_once("traceparent='")?;
    let mut parts = rest.get(..55)?.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let origin = Origin { trace: TraceId::from_hex(trace).ok()?, parent: SpanId::from_hex(span).ok()? };
    let valid = version == "00" && origin.trace != TraceId::INVALID && origin.parent != SpanId::INVALID;
    let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
    valid.then_some((origin, sampled))
}

/// The spans of a statement: itself, and its stages.
pub(super) fn spans(entry: &Entry, origin: Origin) -> Vec<SpanData> {
    let statement = SpanId::from_bytes(rand::random());
    let after = |us: i64| entry.started_at + Duration::from_micros(us.clamp(0, entry.total_us.max(0)).unsigned_abs());
    let mut spans = vec![SpanData {
        attributes: attributes(entry),
        status: match &entry.sqlstate {
            Some(sqlstate) => Status::error(format!("SQLSTATE {sqlstate}")),
            None => Status::Unset,
        },
        parent_span_is_remote: origin.parent != SpanId::INVALID,
        ..span(origin, statement, origin.parent, SpanKind::Server, entry.path.name(), (entry.started_at, after(entry.total_us)))
    }];
    let mut at = 0;
    let mut stage = |name: &'static str, us: i64| {
        if us > 0 {
            let id = SpanId::from_bytes(rand::random());
            let (from, to) = (after(at), after(at + us));
            spans.push(span(origin, id, statement, SpanKind::Internal, name, (from, to)));
            at += us;
        }
        at
    };
    stage("classify", entry.classify_us);
    stage("probe", entry.probe_us);
    stage("tail", entry.tail_us);
    let begun = stage("plan", entry.plan_us);
    let first_row = entry.first_row_us.unwrap_or(entry.total_us);
    let begun = stage("first row", first_row - begun);
    stage("rows", entry.total_us - begun);
    spans
}

fn span(origin: Origin, id: SpanId, parent: SpanId, kind: SpanKind, name: &'static str, (from, to): (SystemTime, SystemTime)) -> SpanData {
    SpanData {
        span_context: SpanContext::new(origin.trace, id, TraceFlags::SAMPLED, false, TraceState::default()),
        parent_span_id: parent,
        parent_span_is_remote: false,
        span_kind: kind,
        name: Cow::Borrowed(name),
        start_time: from,
        end_time: to,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: Default::default(),
        links: Default::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::builder("watershed.gateway").build(),
    }
}

/// Of a statement, by OpenTelemetry's conventions for databases, and its own.
fn attributes(entry: &Entry) -> Vec<KeyValue> {
    let told: String = entry.statement.masked.chars().take(TOLD).collect();
    let mut all = vec![
        KeyValue::new("db.system.name", "postgresql"),
        KeyValue::new("db.namespace", entry.who.datname.clone()),
        KeyValue::new("db.query.text", told),
        KeyValue::new("watershed.fingerprint", entry.statement.fingerprint.to_string()),
        KeyValue::new("watershed.route", entry.path.name()),
        KeyValue::new("watershed.protocol", entry.protocol),
        KeyValue::new("watershed.rows", entry.rows),
        KeyValue::new("watershed.bytes", entry.bytes),
    ];
    match entry.path {
        Path::Postgres => all.push(KeyValue::new("watershed.reason", Why::of(entry).name())),
        Path::Lake | Path::Virtual => all.extend([
            KeyValue::new("watershed.tail_rows", entry.tail_rows),
            KeyValue::new("watershed.lake_files", entry.lake_files),
            KeyValue::new("watershed.lake_row_groups", entry.lake_row_groups),
            KeyValue::new("watershed.lake_bytes", entry.lake_bytes),
        ]),
    }
    all.extend(entry.lake_version.map(|version| KeyValue::new("watershed.lake_version", version)));
    all.extend(entry.sqlstate.clone().map(|sqlstate| KeyValue::new("db.response.status_code", sqlstate)));
    all
}
