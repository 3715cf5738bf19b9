//! HTTP ingest: `POST /v1/ingest/{table}`, Elasticsearch's `_bulk` ([`bulk`]), `GET /metrics`, `/healthz`, `/readyz`. One
//! request is one transaction: it is answered after its commit, so what was acknowledged is durable. Knows no files and
//! no load history.
//!
//! - The body is NDJSON, a JSON array, one JSON object, or any other format of `decode` that its first lines show;
//!   `Content-Encoding: gzip`, `zstd` and `deflate` are unpacked. Body and unpacked body are bounded (413).
//! - Every request adds its rows, with `_stream` 0 and `_offset` 0. An `Idempotency-Key` is remembered in the transaction
//!   of the rows, with the answer: the same key and body get the same answer and add nothing (header
//!   `Idempotency-Replayed: true`); the same key with another body is refused (422). Keys are forgotten after a while.
//! - Records that are no rows go to `watershed.dead_letters` and are listed in the answer by line; the others are in.
//! - PostgreSQL away, its disk nearly full, or too many requests at once: 503 with `Retry-After`. A client that has no key
//!   and lost the answer cannot know whether its rows are in.
//! - Where tokens are configured ([`auth`]), everything but `/healthz` and `/readyz` asks for one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

use crate::batch::{Batch, Rejected};
use crate::pressure::{self, Pressure};
use crate::target::Target;
use crate::topics::{self, TableRoute};
use crate::vitals::Health;
use crate::{Error, Result, metrics, sink};

pub mod auth;
mod body;
pub mod bulk;
mod listen;
mod records;
mod store;

pub use auth::Tokens;
pub use bulk::Indices;
pub use listen::is_guarded;

use auth::Grant;
use body::{Packed, Room};
use store::{Answer, Job, Key};

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
    /// Bodies read at the same time; more of them wait. What they hold together is bounded by `concurrency` bodies.
    pub max_readers: usize,
    /// Connections at the same time; more of them wait.
    pub max_connections: usize,
    /// How long a connection may say nothing.
    pub silence: Duration,
    /// How long a request waits for its turn or for a connection before it is told to come again.
    pub patience: Duration,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// How long idempotency keys are remembered.
    pub key_retention: Duration,
    /// Who may post; nobody is asked if there are none.
    pub tokens: Tokens,
    /// `/metrics` asks for no token, whatever the others do.
    pub open_metrics: bool,
    /// What is wrong elsewhere, for `/healthz` and `/readyz`.
    pub health: Health,
    /// Routes of others on the same door that know themselves who may come in: no token is asked for them. What a browser finds at `/` is
    /// their `/status`; Elasticsearch's clients, which look there too, ask for no page.
    pub open: Option<Router>,
    /// Whether there is room for more.
    pub pressure: Pressure,
    /// Which table an index name of `_bulk` means.
    pub indices: Indices,
    /// Envelopes and mappings by table, as configured.
    pub routes: Vec<TableRoute>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            database_url: String::new(),
            max_body_bytes: 32 << 20,
            max_unpacked_bytes: 128 << 20,
            max_record_bytes: 16 << 20,
            concurrency: 8,
            max_readers: 256,
            max_connections: 1024,
            silence: Duration::from_secs(300),
            patience: Duration::from_secs(5),
            body_timeout: Duration::from_secs(60),
            key_retention: Duration::from_secs(30 * 86_400),
            tokens: Tokens::default(),
            open_metrics: false,
            health: Health::default(),
            open: None,
            pressure: Pressure::always_open(),
            indices: Indices::default(),
            routes: Vec::new(),
        }
    }
}

#[derive(Debug)]
struct Service {
    config: Config,
    pool: PgPool,
    room: Room,
    turns: Semaphore,
}

impl Service {
    fn new(config: Config) -> Result<Arc<Service>> {
        let options = sink::connect_options(&config.database_url, "watershed ingest")?;
        let pool = PgPoolOptions::new()
            .max_connections(config.concurrency.clamp(1, 1000) as u32 + 1)
            .min_connections(0)
            .acquire_timeout(config.patience)
            .idle_timeout(Duration::from_secs(60))
            .after_connect(|conn, _| Box::pin(sink::prepare(conn)))
            .connect_lazy_with(options);
        metrics::describe("watershed_lake_cache_hits_total", "Blocks of lake files that were in memory.");
        metrics::describe("watershed_lake_cache_misses_total", "Blocks of lake files that had to be read.");
        metrics::describe("watershed_lake_cache_given_bytes_total", "Bytes of lake files given to readers.");
        metrics::describe("watershed_lake_cache_read_bytes_total", "Bytes read from the lake's store.");
        metrics::describe("watershed_lake_cache_held_bytes", "Bytes of lake files in memory.");
        metrics::describe("watershed_lake_read_failures_total", "Reads from the lake's store that failed.");
        metrics::describe("watershed_http_requests_total", "Answered requests that add rows.");
        metrics::describe("watershed_http_request_seconds", "Time from a request's head to its answer.");
        let turns = Semaphore::new(config.concurrency.max(1));
        Ok(Arc::new(Service { room: Room::new(&config), config, pool, turns }))
    }

    fn router(self: &Arc<Service>) -> Router {
        let guarded = Router::new()
            .route("/v1/ingest/{table}", post(ingest))
            .merge(bulk::routes())
            .layer(middleware::from_fn_with_state(self.clone(), admit));
        let mut metrics = Router::new().route("/metrics", get(show_metrics));
        if !self.config.open_metrics {
            metrics = metrics.layer(middleware::from_fn_with_state(self.clone(), admit));
        }
        Router::new()
            .merge(guarded)
            .merge(metrics)
            .route("/healthz", get(alive))
            .route("/readyz", get(ready))
            .with_state(self.clone())
    }
}

/// The routes. Connects when the first request comes.
///
/// # Errors
/// The database URL is none.
pub fn router(config: Config) -> Result<Router> {
    Ok(Service::new(config)?.router())
}

/// Serves until told to stop, and forgets old keys meanwhile. `more` are routes of others on the same door, behind the
/// same tokens.
///
/// # Errors
/// The database URL is none, or the listener fails.
pub async fn run(config: Config, listener: TcpListener, more: Router, stop: CancellationToken) -> Result<()> {
    let service = Service::new(config)?;
    let more = more.layer(middleware::from_fn_with_state(service.clone(), admit));
    let mut router = service.router().merge(more);
    if let Some(open) = &service.config.open {
        router = router.merge(open.clone()).layer(middleware::from_fn_with_state(open.clone(), for_people));
    }
    let bounded = listen::Bounded::new(listener, service.config.max_connections, service.config.silence);
    let serving = axum::serve(bounded, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    tokio::select! {
        served = serving => served.map_err(|e| Error::Internal(format!("the HTTP door: {e}"))),
        () = forgetting(&service) => Ok(()), // never ends
    }
}

async fn forgetting(service: &Service) {
    let retention = service.config.key_retention;
    let every = (retention / 20).clamp(Duration::from_secs(1), Duration::from_secs(600));
    loop {
        tokio::time::sleep(every).await;
        let forgotten = async {
            let mut conn = service.pool.acquire().await?;
            store::forget(&mut conn, retention).await
        };
        match forgotten.await {
            Ok(keys) if keys > 0 => tracing::debug!(keys, "idempotency keys forgotten"),
            Ok(_) => {}
            Err(e) => tracing::debug!(error = %e, "idempotency keys could not be forgotten"),
        }
    }
}

/// Shows a browser the page for people.
async fn for_people(State(mut open): State<Router>, mut request: Request, next: Next) -> Response {
    let accepts = |v: &HeaderValue| v.to_str().is_ok_and(|v| v.contains("text/html"));
    let page = request.uri().path() == "/" && request.method().is_safe() && request.headers().get(header::ACCEPT).is_some_and(accepts);
    if !page {
        return next.run(request).await;
    }
    *request.uri_mut() = Uri::from_static("/status");
    match open.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Lets in who has a token, and says what it may do.
async fn admit(State(service): State<Arc<Service>>, mut request: Request, next: Next) -> Response {
    match service.config.tokens.grant(request.headers()) {
        Some(grant) => {
            request.extensions_mut().insert(grant);
            next.run(request).await
        }
        None => {
            let mut response =
                problem(StatusCode::UNAUTHORIZED, "a token is needed: Authorization: Bearer TOKEN");
            for way in ["Bearer realm=\"watershed\"", "Basic realm=\"watershed\""] {
                response.headers_mut().append(header::WWW_AUTHENTICATE, HeaderValue::from_static(way));
            }
            response
        }
    }
}

async fn show_metrics() -> Response {
    for (store, stats) in lake::store::cache_stats() {
        let set = |name, value: u64| metrics::total(name, &[("store", &store)]).set(value as f64);
        set("watershed_lake_cache_hits_total", stats.hits);
        set("watershed_lake_cache_misses_total", stats.misses);
        set("watershed_lake_cache_given_bytes_total", stats.bytes_given);
        set("watershed_lake_cache_read_bytes_total", stats.bytes_read);
        set("watershed_lake_read_failures_total", stats.failures);
        metrics::gauge("watershed_lake_cache_held_bytes", &[("store", &store)]).set(stats.bytes_held as f64);
    }
    ([(header::CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE))], metrics::render())
        .into_response()
}

/// This process lives, whatever else is wrong: a restart mends none of that, so it is told and is no failure.
async fn alive(State(service): State<Arc<Service>>) -> Response {
    told(&service, "ok")
}

/// `word`, and below it what is wrong, a line each.
fn told(service: &Service, word: &str) -> Response {
    let mut out = format!("{word}\n");
    for problem in service.config.health.problems() {
        out.push_str(&format!("{}: {}\n", problem.kind.name(), problem.what.replace(['\n', '\r'], " ")));
    }
    out.into_response()
}

async fn ready(State(service): State<Arc<Service>>) -> Response {
    if let Some(full) = service.full() {
        return full;
    }
    match service.asks_postgres().await {
        Ok(()) => told(&service, "ready"),
        Err(why) => away(why),
    }
}

impl Service {
    /// 503 if there is no room for rows.
    fn full(&self) -> Option<Response> {
        match self.config.pressure.state() {
            pressure::State::Open => None,
            pressure::State::Closed { reason } => Some(later(
                &format!("nothing is taken in at present: {reason}"),
                HeaderValue::from_static("10"),
            )),
        }
    }

    async fn asks_postgres(&self) -> Result<(), &'static str> {
        let asked = async {
            let mut conn = self.pool.acquire().await?;
            sqlx::query("SELECT 1 FROM watershed_control.tables LIMIT 1").fetch_optional(&mut *conn).await
        };
        match tokio::time::timeout(Duration::from_secs(2), asked).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => {
                tracing::debug!(error = %e, "not ready");
                Err("PostgreSQL does not answer")
            }
            Err(_) => Err("PostgreSQL does not answer in time"),
        }
    }

    async fn turn(&self) -> Result<SemaphorePermit<'_>, Response> {
        match tokio::time::timeout(self.config.patience, self.turns.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(away("too many requests at once")),
        }
    }

    /// The body, unpacked within its bound, off the threads that serve.
    async fn unpack(&self, packed: Packed) -> Result<Vec<u8>, Response> {
        let max = self.config.max_unpacked_bytes;
        match tokio::task::spawn_blocking(move || packed.unpack(max)).await {
            Ok(unpacked) => unpacked.map_err(|answer| *answer),
            Err(e) => Err(self.refusal(Error::Internal(e.to_string()))),
        }
    }

    fn refusal(&self, error: Error) -> Response {
        let (status, message) = self.explain(error);
        if status == StatusCode::SERVICE_UNAVAILABLE { away(&message) } else { problem(status, message) }
    }

    /// What to tell of an error; logs what clients are not told.
    fn explain(&self, error: Error) -> (StatusCode, String) {
        self.config.pressure.note(&error);
        if error.is_transient() || matches!(error, Error::Fenced(_)) {
            tracing::warn!(error = %error, "ingest request not taken");
            let message = "PostgreSQL is not available; nothing of this request is known to be stored";
            return (StatusCode::SERVICE_UNAVAILABLE, message.to_owned());
        }
        match error {
            Error::UnknownTable(_) => (StatusCode::NOT_FOUND, error.to_string()),
            Error::KeyReused(_) => (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
            Error::UnknownFormat(_) => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body is none of the known formats: NDJSON, a JSON array, CSV with a header, access log, syslog"
                    .to_owned(),
            ),
            Error::Unmappable(m) => (StatusCode::UNPROCESSABLE_ENTITY, m),
            e => {
                tracing::error!(error = %e, "ingest request failed");
                (StatusCode::INTERNAL_SERVER_ERROR, "the request failed; the server's log says why".to_owned())
            }
        }
    }
}

fn problem(status: StatusCode, message: impl Into<String>) -> Response {
    (status, Json(json!({ "error": message.into() }))).into_response()
}

/// 503, and when to come again.
fn away(message: &str) -> Response {
    later(message, HeaderValue::from_static("2"))
}

fn later(message: &str, seconds: HeaderValue) -> Response {
    let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, message);
    response.headers_mut().insert(header::RETRY_AFTER, seconds);
    response
}

async fn ingest(
    State(service): State<Arc<Service>>,
    Extension(grant): Extension<Grant>,
    Path(table): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let began = Instant::now();
    let answer = service.take(table, grant, headers, body).await;
    observe("ingest", &answer, began);
    answer
}

/// Counts an answered request.
fn observe(door: &'static str, answer: &Response, began: Instant) {
    let status = answer.status();
    metrics::counter("watershed_http_requests_total", &[("door", door), ("status", status.as_str())]).inc();
    metrics::histogram("watershed_http_request_seconds", &[("door", door)]).since(began);
}

impl Service {
    async fn take(
        self: &Arc<Service>,
        table: String,
        grant: Grant,
        headers: HeaderMap,
        body: Body,
    ) -> Response {
        let key = match idempotency_key(&headers) {
            Ok(k) => k,
            Err(why) => return problem(StatusCode::BAD_REQUEST, why),
        };
        if let Some(full) = self.full() {
            return full;
        }
        let packed = match self.room.read(&headers, body).await {
            Ok(packed) => packed,
            Err(answer) => return answer,
        };
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).map(str::to_owned);
        // On a task of its own: a client that goes away must not leave half a transaction behind.
        let service = self.clone();
        let answer = tokio::spawn(async move {
            let _turn = service.turn().await?;
            let body = service.unpack(packed).await?;
            match service.store(&table, &grant, key, body, content_type).await {
                Ok(Some(answer)) => Ok(answer.into_response()),
                Ok(None) => Err(problem(StatusCode::FORBIDDEN, "this token may not add to this table")),
                Err(e) => Err(service.refusal(e)),
            }
        });
        whole(answer.await)
    }

    /// `None` if the token is not for this table.
    async fn store(
        &self,
        table: &str,
        grant: &Grant,
        key: Option<String>,
        body: Vec<u8>,
        content_type: Option<String>,
    ) -> Result<Option<Answer>> {
        let mut conn = self.pool.acquire().await?;
        let target = match Target::find(&mut conn, table).await {
            Ok(target) if grant.allows(&target.display()) => target,
            // What it may not add to, it may not look for either.
            Err(Error::UnknownTable(_)) | Ok(_) if *grant != Grant::default() => return Ok(None),
            other => other?,
        };
        let key = key.map(|key| Key { relid: target.relid, key, hash: hex::encode(Sha256::digest(&body)) });
        if let Some(answer) = remembered(&key, &mut conn).await? {
            return Ok(Some(answer));
        }
        let (table, bytes) = (target.display(), body.len() as u64);
        let max_record = self.config.max_record_bytes;
        let route = topics::of_table(&self.config.routes, &target.schema, &target.name).cloned();
        let decoding =
            move || records::decode(&body, content_type.as_deref(), target, route.as_ref(), max_record);
        let decoded = tokio::task::spawn_blocking(decoding).await;
        let part = decoded.map_err(|e| Error::Internal(e.to_string()))??;
        let answer = |refused: &[Vec<Rejected>]| report(&table, &part.batch, &refused[0]);
        let parts = std::slice::from_ref(&part);
        let job = Job { parts, key: key.as_ref(), door: "http", bytes, answer: &answer };
        job.store(&mut conn).await.map(Some)
    }
}

async fn remembered(key: &Option<Key>, conn: &mut PgConnection) -> Result<Option<Answer>> {
    match key {
        Some(key) => key.remembered(conn).await,
        None => Ok(None),
    }
}

/// The answer of a task, also of one that died.
fn whole(ended: Result<Result<Response, Response>, tokio::task::JoinError>) -> Response {
    match ended {
        Ok(Ok(response) | Err(response)) => response,
        Err(e) => {
            tracing::error!(error = %e, "ingest request ended unexpectedly");
            problem(StatusCode::INTERNAL_SERVER_ERROR, "the request failed; the server's log says why")
        }
    }
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
