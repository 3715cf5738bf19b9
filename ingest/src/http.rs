//! HTTP ingest: `POST /v1/ingest/{table}`, `GET /healthz`, `GET /readyz`. One request is one transaction: it is answered
//! after its commit, so what was acknowledged is durable. Knows no files and no load history.
//!
//! - The body is NDJSON, a JSON array, one JSON object, or any other format of `decode` that its first lines show;
//!   `Content-Encoding: gzip` and `zstd` are unpacked. Body and unpacked body are bounded (413).
//! - Every request adds its rows, with `_stream` 0 and `_offset` 0. An `Idempotency-Key` is remembered in the transaction
//!   of the rows, with the answer: the same key and body get the same answer and add nothing (header
//!   `Idempotency-Replayed: true`); the same key with another body is refused (422).
//! - Records that are no rows go to `watershed.dead_letters` and are listed in the answer by line; the others are in.
//! - PostgreSQL away, or too many requests at once: 503 with `Retry-After`. A client that has no key and lost the answer
//!   cannot know whether its rows are in.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::StreamExt;
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{Connection, PgConnection, Row};
use tokio::sync::Semaphore;

use crate::batch::{Batch, Rejected};
use crate::decode::csv::{self, Header};
use crate::decode::frame::{Frames, Framing, Shape};
use crate::decode::input::Compression;
use crate::decode::syslog::Years;
use crate::decode::{Decoder, Format, detect, time};
use crate::error::is_rows_fault;
use crate::load::now_micros;
use crate::load::produce::fit_header;
use crate::map::Mapper;
use crate::sink::{self, Care, Numbering};
use crate::target::Target;
use crate::{Error, Result};

/// Limits and address of PostgreSQL.
#[derive(Debug, Clone)]
pub struct Config {
    /// URL of PostgreSQL, as role `watershed_ingest`.
    pub database_url: String,
    /// Bound of a body as sent.
    pub max_body_bytes: usize,
    /// Bound of a body once unpacked.
    pub max_unpacked_bytes: usize,
    /// A longer record is rejected.
    pub max_record_bytes: usize,
    /// Requests worked on at the same time, each with a connection; more of them wait.
    pub concurrency: usize,
    /// How long a request waits for its turn or for a connection before it is told to come again.
    pub patience: Duration,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// How long idempotency keys are remembered.
    pub key_retention: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            database_url: String::new(),
            max_body_bytes: 32 << 20,
            max_unpacked_bytes: 128 << 20,
            max_record_bytes: 16 << 20,
            concurrency: 8,
            patience: Duration::from_secs(5),
            body_timeout: Duration::from_secs(60),
            key_retention: Duration::from_secs(30 * 86_400),
        }
    }
}

#[derive(Debug)]
struct Service {
    config: Config,
    pool: PgPool,
    turns: Semaphore,
    keyed: AtomicU64,
}

/// The routes. Connects when the first request comes.
///
/// # Errors
/// The database URL is none.
pub fn router(config: Config) -> Result<Router> {
    let options = sink::connect_options(&config.database_url, "watershed ingest")?;
    let pool = PgPoolOptions::new()
        .max_connections(config.concurrency.clamp(1, 1000) as u32 + 1)
        .min_connections(0)
        .acquire_timeout(config.patience)
        .idle_timeout(Duration::from_secs(60))
        .after_connect(|conn, _| Box::pin(sink::prepare(conn)))
        .connect_lazy_with(options);
    let turns = Semaphore::new(config.concurrency.max(1));
    let service = Arc::new(Service { config, pool, turns, keyed: AtomicU64::new(0) });
    Ok(Router::new()
        .route("/v1/ingest/{table}", post(ingest))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(service))
}

async fn ready(State(service): State<Arc<Service>>) -> Response {
    let asked = async {
        let mut conn = service.pool.acquire().await?;
        sqlx::query("SELECT 1 FROM watershed_control.tables LIMIT 1").fetch_optional(&mut *conn).await
    };
    match tokio::time::timeout(Duration::from_secs(2), asked).await {
        Ok(Ok(_)) => "ready\n".into_response(),
        Ok(Err(e)) => {
            tracing::debug!(error = %e, "not ready");
            away("PostgreSQL does not answer")
        }
        Err(_) => away("PostgreSQL does not answer in time"),
    }
}

fn problem(status: StatusCode, message: impl Into<String>) -> Response {
    (status, Json(json!({ "error": message.into() }))).into_response()
}

/// 503, and when to come again.
fn away(message: &str) -> Response {
    let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, message);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    response
}

fn refusal(error: Error) -> Response {
    if error.is_transient() {
        tracing::warn!(error = %error, "ingest request not taken");
        return away("PostgreSQL is not available; nothing of this request is known to be stored");
    }
    match error {
        Error::UnknownTable(_) => problem(StatusCode::NOT_FOUND, error.to_string()),
        Error::KeyReused(_) => problem(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
        Error::UnknownFormat(_) => problem(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the body is none of the known formats: NDJSON, a JSON array, CSV with a header, access log, syslog",
        ),
        Error::Unmappable(m) => problem(StatusCode::UNPROCESSABLE_ENTITY, m),
        e => {
            tracing::error!(error = %e, "ingest request failed");
            problem(StatusCode::INTERNAL_SERVER_ERROR, "the request failed; the server's log says why")
        }
    }
}

async fn ingest(
    State(service): State<Arc<Service>>,
    Path(table): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let key = match idempotency_key(&headers) {
        Ok(k) => k,
        Err(why) => return problem(StatusCode::BAD_REQUEST, why),
    };
    let max = service.config.max_body_bytes;
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|n| n > max as u64) {
        return too_large(max);
    }
    // The turn is taken before the body is read: this bounds the memory of all requests together.
    let turn = match tokio::time::timeout(service.config.patience, service.turns.acquire()).await {
        Ok(Ok(turn)) => turn,
        _ => return away("too many requests at once"),
    };
    let bytes = match tokio::time::timeout(service.config.body_timeout, collect(body, max)).await {
        Ok(Ok(Some(bytes))) => bytes,
        Ok(Ok(None)) => return too_large(max),
        Ok(Err(e)) => return problem(StatusCode::BAD_REQUEST, format!("the body broke off: {e}")),
        Err(_) => return problem(StatusCode::REQUEST_TIMEOUT, "the body took too long to arrive"),
    };
    let encoding = headers.get(header::CONTENT_ENCODING).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let request = Request { table, key, bytes, encoding, content_type };
    // On a task of its own: a client that goes away must not leave half a transaction behind.
    let worker = service.clone();
    let answer = tokio::spawn(async move { worker.answer(request).await }).await;
    drop(turn);
    match answer {
        Ok(response) => response,
        Err(e) => {
            tracing::error!(error = %e, "ingest request ended unexpectedly");
            problem(StatusCode::INTERNAL_SERVER_ERROR, "the request failed; the server's log says why")
        }
    }
}

fn too_large(max: usize) -> Response {
    problem(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {max} bytes; send it in parts"))
}

/// The body, or `None` if it is larger than `max`.
async fn collect(body: Body, max: usize) -> Result<Option<Vec<u8>>, axum::Error> {
    let mut stream = body.into_data_stream();
    let mut all = Vec::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        if all.len() + chunk.len() > max {
            return Ok(None);
        }
        all.extend_from_slice(&chunk);
    }
    Ok(Some(all))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, &'static str> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let key = value.to_str().map_err(|_| "Idempotency-Key must be printable ASCII")?.trim();
    if key.is_empty() || key.len() > 255 {
        return Err("Idempotency-Key must have 1 to 255 characters");
    }
    Ok(Some(key.to_owned()))
}

struct Request {
    table: String,
    key: Option<String>,
    bytes: Vec<u8>,
    encoding: Option<String>,
    content_type: Option<String>,
}

/// An answer as it is remembered.
struct Answer {
    status: u16,
    body: String,
    replayed: bool,
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        let mut response = (status, self.body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.replayed {
            headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
        }
        response
    }
}

/// What decoding gives back to the async side.
struct Decoded {
    mapper: Mapper,
    batch: Batch,
}

impl Service {
    async fn answer(&self, request: Request) -> Response {
        let Request { table, key, bytes, encoding, content_type } = request;
        let max = self.config.max_unpacked_bytes;
        let unpacked = tokio::task::spawn_blocking(move || unpack(bytes, encoding.as_deref(), max)).await;
        let body = match unpacked {
            Ok(Ok(Some(body))) => body,
            Ok(Ok(None)) => return too_large(max),
            Ok(Err(why)) => return problem(why.0, why.1),
            Err(e) => return refusal(Error::Internal(e.to_string())),
        };
        match self.store(&table, key, body, content_type).await {
            Ok(answer) => answer.into_response(),
            Err(e) => refusal(e),
        }
    }

    async fn store(
        &self,
        table: &str,
        key: Option<String>,
        body: Vec<u8>,
        content_type: Option<String>,
    ) -> Result<Answer> {
        let mut conn = self.pool.acquire().await?;
        let target = Target::find(&mut conn, table).await?;
        let relid = target.relid;
        let key = key.map(|k| (k, hex::encode(Sha256::digest(&body))));
        if let Some((key, hash)) = &key
            && let Some(answer) = remembered(&mut conn, relid, key, hash).await?
        {
            return Ok(answer);
        }
        let display = target.display();
        let max_record = self.config.max_record_bytes;
        let decoded =
            tokio::task::spawn_blocking(move || decode(&body, content_type.as_deref(), target, max_record));
        let decoded = decoded.await.map_err(|e| Error::Internal(e.to_string()))??;
        let source = key.as_ref().map_or_else(|| "http".to_owned(), |(k, _)| format!("http, key {k}"));
        let mut care = Care::None;
        loop {
            let stored = self.transaction(&mut conn, &decoded, relid, &key, &display, &source, care).await;
            match stored {
                Err(Error::Postgres(e)) if care == Care::None && is_rows_fault(&e) => care = Care::Bisect,
                other => return other,
            }
        }
    }

    #[allow(clippy::too_many_arguments)] // one transaction, and all that it writes
    async fn transaction(
        &self,
        conn: &mut PgConnection,
        decoded: &Decoded,
        relid: u32,
        key: &Option<(String, String)>,
        table: &str,
        source: &str,
        care: Care,
    ) -> Result<Answer> {
        // Rolls back when it is dropped on an error.
        let mut tx = conn.begin().await?;
        if let Some((key, hash)) = key {
            let taken = sqlx::query(
                "INSERT INTO watershed_control.requests (relid, key, body_hash) VALUES ($1::int8::oid, $2, $3) \
                 ON CONFLICT (relid, key) DO NOTHING",
            )
            .bind(i64::from(relid))
            .bind(key)
            .bind(hash)
            .execute(&mut *tx)
            .await?;
            if taken.rows_affected() == 0 {
                // Another request with this key committed between the first look and now.
                let answer = remembered(&mut tx, relid, key, hash).await?;
                return answer.ok_or_else(|| Error::Fenced(format!("Idempotency-Key {key:?}")));
            }
        }
        lake::crash::point("http.key");
        let Decoded { mapper, batch } = decoded;
        let refused = sink::copy_batch(&mut tx, mapper, batch, Numbering::Plain, care).await?;
        lake::crash::point("http.copied");
        sink::dead_letters(&mut tx, table, source, &batch.rejected).await?;
        sink::dead_letters(&mut tx, table, source, &refused).await?;
        let body = report(table, batch, &refused);
        if let Some((key, _)) = key {
            sqlx::query(
                "UPDATE watershed_control.requests SET status = 200, response = $3::json \
                 WHERE relid = $1::int8::oid AND key = $2",
            )
            .bind(i64::from(relid))
            .bind(key)
            .bind(&body)
            .execute(&mut *tx)
            .await?;
            self.forget(&mut tx).await?;
        }
        lake::crash::point("http.before_commit");
        tx.commit().await?;
        lake::crash::point("http.committed");
        Ok(Answer { status: 200, body, replayed: false })
    }

    /// Now and then, forgets keys beyond their retention; never waits for another request that does the same.
    async fn forget(&self, conn: &mut PgConnection) -> Result<()> {
        if self.keyed.fetch_add(1, Ordering::Relaxed) % 1000 != 999 {
            return Ok(());
        }
        sqlx::query(
            "DELETE FROM watershed_control.requests WHERE (relid, key) IN (SELECT relid, key \
             FROM watershed_control.requests WHERE created_at < pg_catalog.now() - pg_catalog.make_interval(secs => $1) \
             ORDER BY created_at LIMIT 10000 FOR UPDATE SKIP LOCKED)",
        )
        .bind(self.config.key_retention.as_secs_f64())
        .execute(conn)
        .await?;
        Ok(())
    }
}

/// The stored answer of a key, if it was used with the same body.
async fn remembered(conn: &mut PgConnection, relid: u32, key: &str, hash: &str) -> Result<Option<Answer>> {
    let row = sqlx::query(
        "SELECT body_hash, status, response::text FROM watershed_control.requests \
         WHERE relid = $1::int8::oid AND key = $2",
    )
    .bind(i64::from(relid))
    .bind(key)
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    if row.try_get::<String, _>(0)? != hash {
        return Err(Error::KeyReused(key.to_owned()));
    }
    let status: i32 = row.try_get(1)?;
    let body: Option<String> = row.try_get(2)?;
    Ok(Some(Answer { status: status as u16, body: body.unwrap_or_default(), replayed: true }))
}

/// At most this many rejected records are listed in an answer; all of them are in the dead letters.
const LISTED: usize = 100;

fn report(table: &str, batch: &Batch, refused: &[Rejected]) -> String {
    let mut all: Vec<&Rejected> = batch.rejected.iter().chain(refused).collect();
    all.sort_by_key(|r| r.line);
    let errors: Vec<_> = all
        .iter()
        .take(LISTED)
        .map(|r| json!({ "line": r.line, "stage": r.stage, "reason": r.reason }))
        .collect();
    json!({
        "table": table,
        "accepted": batch.rows() - refused.len(),
        "rejected": all.len(),
        "errors": errors,
    })
    .to_string()
}

/// The body itself, or `None` if it is larger than `max` once unpacked.
fn unpack(
    bytes: Vec<u8>,
    encoding: Option<&str>,
    max: usize,
) -> Result<Option<Vec<u8>>, (StatusCode, String)> {
    let compression = match encoding.map(|e| e.trim().to_ascii_lowercase()).as_deref() {
        None | Some("" | "identity") => return Ok(Some(bytes)),
        Some("gzip" | "x-gzip") => Compression::Gzip,
        Some("zstd") => Compression::Zstd,
        Some(other) => {
            return Err((
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                format!("Content-Encoding {other:?} is not known; use gzip or zstd"),
            ));
        }
    };
    let broken = |e: std::io::Error| (StatusCode::BAD_REQUEST, format!("the body cannot be unpacked: {e}"));
    let mut out = Vec::new();
    let reader = compression.decoder(std::io::Cursor::new(bytes)).map_err(broken)?;
    reader.take(max as u64 + 1).read_to_end(&mut out).map_err(broken)?;
    Ok((out.len() <= max).then_some(out))
}

/// The format that the content type names; everything else is told by the body.
fn format_of(content_type: Option<&str>, body: &[u8], mapper: &Mapper) -> Result<Format> {
    let kind = content_type.and_then(|c| c.split(';').next()).map(|c| c.trim().to_ascii_lowercase());
    let first = body.iter().find(|b| !b.is_ascii_whitespace());
    match kind.as_deref() {
        Some("text/csv") => return Ok(Format::Csv),
        Some(
            "application/json"
            | "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl"
            | "application/x-jsonlines",
        ) => {
            return Ok(if first == Some(&b'[') { Format::JsonArray } else { Format::Ndjson });
        }
        _ => {}
    }
    let head = &body[..body.len().min(detect::SNIFF_BYTES)];
    detect::detect(head, head.len() == body.len(), &|n| mapper.knows(n))
        .ok_or_else(|| Error::UnknownFormat("the body".to_owned()))
}

fn decode(body: &[u8], content_type: Option<&str>, target: Target, max_record: usize) -> Result<Decoded> {
    let mut mapper = Mapper::new(target)?;
    let mut batch = Batch::default();
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Decoded { mapper, batch });
    }
    let format = format_of(content_type, body, &mapper)?;
    // One JSON object over several lines is one record.
    if format == Format::Ndjson && body.len() <= max_record && memchr::memchr(b'\n', body).is_some() {
        let whole = std::str::from_utf8(body).ok().and_then(|t| crate::decode::json::decode(t).ok());
        if let Some(record) = whole {
            if let Err(reason) = mapper.map(&record, &mut batch, 1, body) {
                batch.rejected.push(Rejected { line: 1, stage: "map", reason, raw: body.to_vec() });
            }
            return Ok(Decoded { mapper, batch });
        }
    }
    let mut frames = Frames::new(body, Decoder::framing(format, b','), max_record, 1);
    let mut decoder = match format {
        Format::Web => Decoder::Web,
        Format::Ndjson | Format::JsonArray => Decoder::Json,
        Format::Syslog => {
            let (year, ..) = time::civil_from_days(now_micros().div_euclid(time::DAY));
            Decoder::Syslog(Years::starting(year))
        }
        Format::Csv => {
            let header = csv_header(&mut frames, &mapper)?;
            frames.set_framing(Framing::Csv { delimiter: header.delimiter });
            Decoder::Csv(header)
        }
    };
    // Reading from memory cannot fail.
    while let Some(frame) = frames.next_frame().map_err(|e| Error::Internal(e.to_string()))? {
        let raw = frames.bytes(&frame);
        let result = match frame.shape {
            Shape::Whole | Shape::Unterminated => match decoder.decode(raw) {
                Ok(record) => mapper.map(&record, &mut batch, frame.line, raw).map_err(|r| ("map", r)),
                Err(reason) => Err(("decode", reason)),
            },
            Shape::Oversized(n) => Err(("frame", format!("{n} bytes, more than the bound of {max_record}"))),
            Shape::Broken(why) => Err(("frame", why.to_owned())),
        };
        if let Err((stage, reason)) = result {
            batch.rejected.push(Rejected { line: frame.line, stage, reason, raw: raw.to_vec() });
        }
    }
    Ok(Decoded { mapper, batch })
}

fn csv_header(frames: &mut Frames<&[u8]>, mapper: &Mapper) -> Result<Header> {
    let bad = |why: &str| Error::Unmappable(format!("CSV header: {why}"));
    let frame = frames.next_frame().map_err(|e| bad(&e.to_string()))?.ok_or_else(|| bad("missing"))?;
    let text = std::str::from_utf8(frames.bytes(&frame)).map_err(|_| bad("not UTF-8"))?;
    let mut header = Header::parse(text, csv::guess_delimiter(text)).map_err(|r| bad(&r))?;
    fit_header(&mut header, mapper, "the body")?;
    Ok(header)
}
