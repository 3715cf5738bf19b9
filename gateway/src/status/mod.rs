//! The status page: what the product does, live, in a browser. One page without outside resources, a stream of events, and a box for
//! statements that only read. Everything it shows it asks of the gateway itself, over the wire, as the user who logged in with a password
//! of PostgreSQL's: it sees what that user sees, in virtual tables only. ✗ routing, what the figures mean (that is the page's own code).
//!
//! - [`client`] is a session over the wire; [`sessions`] who is logged in; [`feed`] the stream; [`ask`] the box.
//! - A request that changes something or runs something carries a token that no other site can know (and comes from this page, where the
//!   browser says so); the cookie is for this site only, and no script reads it.
//! - The policy of the page lets nothing run or load but its own script and style, by their digests; texts are never markup.

mod ask;
mod client;
mod feed;
mod page;
pub mod sessions;

#[cfg(test)]
mod tests;

use crate::query::log::Onlookers;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use client::{Client, ClientError};
use serde::Deserialize;
use serde_json::{Value, json};
use sessions::{Limits, Sessions, Stream, WebSession};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// The header of the token against forged requests.
const CSRF: &str = "x-watershed-csrf";
/// Logins under way at once.
const LOGINS: usize = 4;
/// A statement longer than this is no question for a box.
const MAX_BODY: usize = 256 << 10;

/// How the page is served.
#[derive(Debug, Clone)]
pub struct Config {
    /// The gateway, from this machine.
    pub gateway: SocketAddr,
    pub database: String,
    /// Users who need no password elsewhere, and so have nothing to show here.
    pub trusted_users: Vec<String>,
    /// Passwords may come in the clear from other machines: where the page's address is this machine's own, or that was allowed.
    pub in_the_clear: bool,
    /// Whose statements are not logged: shared with the gateway.
    pub onlookers: Onlookers,
    pub limits: Limits,
    /// Of one statement of the box.
    pub statement_timeout: Duration,
    /// Between two looks of a stream at the statements.
    pub pace: Duration,
}

impl Config {
    pub fn new(gateway: SocketAddr, database: &str, onlookers: Onlookers) -> Config {
        Config {
            gateway,
            database: database.to_owned(),
            trusted_users: Vec::new(),
            in_the_clear: true,
            onlookers,
            limits: Limits::default(),
            statement_timeout: Duration::from_secs(30),
            pace: Duration::from_secs(1),
        }
    }
}

struct Page {
    config: Config,
    sessions: Sessions,
    logins: Semaphore,
    /// The cookie's name: cookies do not tell ports apart.
    cookie: String,
    stop: CancellationToken,
}

/// The routes: the page at `/status`, and what it asks below. Sessions and streams end with `stop`.
pub fn router(config: Config, port: u16, stop: CancellationToken) -> Router {
    let page = Arc::new(Page {
        sessions: Sessions::new(config.limits.clone()),
        logins: Semaphore::new(LOGINS),
        cookie: format!("watershed_{port}"),
        config,
        stop: stop.clone(),
    });
    let upkeep = Arc::downgrade(&page);
    tokio::spawn(async move {
        loop {
            let stopped = tokio::time::timeout(Duration::from_secs(10), stop.cancelled()).await.is_ok();
            let Some(page) = upkeep.upgrade() else { return };
            if stopped {
                return page.sessions.clear();
            }
            page.sessions.sweep();
        }
    });
    Router::new()
        .route("/status", get(page::show))
        .route("/status/session", get(session))
        .route("/status/login", post(login))
        .route("/status/logout", post(logout))
        .route("/status/events", get(events))
        .route("/status/query", post(query))
        .route("/status/compare", post(compare))
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY))
        .with_state(page)
}

/// An answer in JSON that nobody keeps.
fn told(status: StatusCode, body: Value) -> Response {
    let mut response = (status, Json(body)).into_response();
    guard(response.headers_mut());
    response
}

/// Headers of every answer.
fn guard(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

fn refused(status: StatusCode, why: impl Into<String>) -> Response {
    told(status, json!({ "error": why.into() }))
}

fn failed(error: &ClientError) -> Value {
    match error {
        ClientError::Server { sqlstate, message, detail, hint } => {
            json!({ "sqlstate": sqlstate, "message": message, "detail": detail, "hint": hint })
        }
        ClientError::Broken(message) => json!({ "message": message }),
    }
}

/// The value of a cookie.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    all.flat_map(|v| v.split(';')).find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

/// The request comes from this page, as far as the browser says where from.
fn is_own(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let site = text("sec-fetch-site").is_none_or(|site| site == "same-origin" || site == "none");
    let origin = match (text("origin"), text("host")) {
        (None, _) => true,
        (Some(origin), Some(host)) => origin.split_once("://").is_some_and(|(_, of)| of.eq_ignore_ascii_case(host)),
        (Some(_), None) => false,
    };
    site && origin
}

/// Said by a proxy that ended TLS.
fn is_encrypted(headers: &HeaderMap) -> bool {
    headers.get("x-forwarded-proto").is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"https"))
}

impl Page {
    /// Who asks. An error is the answer.
    fn who(&self, headers: &HeaderMap) -> Result<Arc<WebSession>, Box<Response>> {
        let found = cookie(headers, &self.cookie).and_then(|token| self.sessions.get(token));
        found.ok_or_else(|| Box::new(refused(StatusCode::UNAUTHORIZED, "log in")))
    }

    /// As [`Page::who`], of a request that does something.
    fn who_means_it(&self, headers: &HeaderMap) -> Result<Arc<WebSession>, Box<Response>> {
        let session = self.who(headers)?;
        let token = headers.get(CSRF).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if !is_own(headers) || !sessions::same(token, &session.csrf) {
            return Err(Box::new(refused(StatusCode::FORBIDDEN, "the request does not come from this page")));
        }
        Ok(session)
    }

    async fn open(&self, user: &str, password: &str) -> Result<WebSession, ClientError> {
        let timeout = self.config.statement_timeout.as_millis().to_string();
        let common = [("client_encoding", "UTF8"), ("DateStyle", "ISO"), ("TimeZone", "UTC"), ("default_transaction_read_only", "on")];
        let connect = async |name: &'static str, timeout: &str, more: &[(&str, &str)]| {
            let settings: Vec<(&str, &str)> =
                common.iter().chain(more).copied().chain([("application_name", name), ("statement_timeout", timeout)]).collect();
            Client::connect(self.config.gateway, user, password, &self.config.database, &settings).await
        };
        let eyes = connect("watershed status page", "10000", &[("IntervalStyle", "postgres")]).await?;
        let onlooker = self.config.onlookers.add(eyes.pid);
        let hand = connect("watershed query box", &timeout, &[("idle_in_transaction_session_timeout", "60000")]).await?;
        Ok(WebSession::new(user, eyes, hand, onlooker))
    }

    fn cookie_line(&self, headers: &HeaderMap, value: &str, age: u64) -> Option<HeaderValue> {
        let secure = if is_encrypted(headers) { "; Secure" } else { "" };
        HeaderValue::from_str(&format!("{}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={age}{secure}", self.cookie)).ok()
    }
}

#[derive(Deserialize)]
struct Login {
    user: String,
    password: String,
}

async fn login(State(page): State<Arc<Page>>, headers: HeaderMap, body: Result<Json<Login>, JsonRejection>) -> Response {
    let Ok(Json(Login { user, password })) = body else { return refused(StatusCode::BAD_REQUEST, "user and password are wanted") };
    if !is_own(&headers) {
        return refused(StatusCode::FORBIDDEN, "the request does not come from this page");
    }
    if !page.config.in_the_clear && !is_encrypted(&headers) {
        return refused(
            StatusCode::FORBIDDEN,
            "a password would go over the network in the clear: put a proxy in front that ends TLS and says so (X-Forwarded-Proto: https)",
        );
    }
    if user.is_empty() || page.config.trusted_users.contains(&user) {
        return refused(StatusCode::FORBIDDEN, "this user cannot log in here: PostgreSQL asks for no password");
    }
    if !page.sessions.may_try() {
        let mut response = refused(StatusCode::TOO_MANY_REQUESTS, "too many logins failed; wait a little");
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        return response;
    }
    if !page.sessions.has_room() {
        return refused(StatusCode::SERVICE_UNAVAILABLE, "too many are logged in already");
    }
    let Ok(_turn) = page.logins.try_acquire() else {
        return refused(StatusCode::SERVICE_UNAVAILABLE, "too many logins at once; try again");
    };
    let session = match page.open(&user, &password).await {
        Ok(session) => Arc::new(session),
        Err(error) => {
            page.sessions.failed(&error);
            tracing::info!(user, sqlstate = error.sqlstate(), "login to the status page refused");
            let status = if error.sqlstate() == Some("53300") { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::FORBIDDEN };
            return refused(status, error.to_string());
        }
    };
    let (user, csrf) = (session.user.clone(), session.csrf.clone());
    let Some(token) = page.sessions.add(session) else {
        return refused(StatusCode::SERVICE_UNAVAILABLE, "too many are logged in already");
    };
    // A session of before is not left behind.
    if let Some(old) = cookie(&headers, &page.cookie) {
        page.sessions.remove(old);
    }
    let mut response = told(StatusCode::OK, json!({ "user": user, "csrf": csrf }));
    if let Some(line) = page.cookie_line(&headers, &token, page.config.limits.age.as_secs()) {
        response.headers_mut().insert(header::SET_COOKIE, line);
    }
    response
}

/// Who is logged in, for a page that is loaded again.
async fn session(State(page): State<Arc<Page>>, headers: HeaderMap) -> Response {
    match page.who(&headers) {
        Ok(session) if is_own(&headers) => told(StatusCode::OK, json!({ "user": session.user, "csrf": session.csrf })),
        Ok(_) => refused(StatusCode::FORBIDDEN, "the request does not come from this page"),
        Err(answer) => *answer,
    }
}

async fn logout(State(page): State<Arc<Page>>, headers: HeaderMap) -> Response {
    if let Err(answer) = page.who_means_it(&headers) {
        return *answer;
    }
    if let Some(token) = cookie(&headers, &page.cookie) {
        page.sessions.remove(token);
    }
    let mut response = told(StatusCode::OK, json!({}));
    if let Some(line) = page.cookie_line(&headers, "", 0) {
        response.headers_mut().insert(header::SET_COOKIE, line);
    }
    response
}

#[derive(Deserialize)]
struct Since {
    since: Option<i64>,
}

async fn events(State(page): State<Arc<Page>>, headers: HeaderMap, Query(Since { since }): Query<Since>) -> Response {
    let session = match page.who(&headers) {
        Ok(session) if is_own(&headers) => session,
        Ok(_) => return refused(StatusCode::FORBIDDEN, "the request does not come from this page"),
        Err(answer) => return *answer,
    };
    let Some(stream) = Stream::open(&session, page.config.limits.streams) else {
        return refused(StatusCode::TOO_MANY_REQUESTS, "this page is open too often");
    };
    // The browser says itself what it had last, when it comes again.
    let last = headers.get("last-event-id").and_then(|v| v.to_str().ok()?.parse().ok()).or(since);
    feed::stream(stream, last, page.config.pace, page.stop.clone())
}

#[derive(Deserialize)]
struct Statement {
    sql: String,
}

async fn query(State(page): State<Arc<Page>>, headers: HeaderMap, body: Result<Json<Statement>, JsonRejection>) -> Response {
    run(page, headers, body, false).await
}

async fn compare(State(page): State<Arc<Page>>, headers: HeaderMap, body: Result<Json<Statement>, JsonRejection>) -> Response {
    run(page, headers, body, true).await
}

async fn run(page: Arc<Page>, headers: HeaderMap, body: Result<Json<Statement>, JsonRejection>, both: bool) -> Response {
    let session = match page.who_means_it(&headers) {
        Ok(session) => session,
        Err(answer) => return *answer,
    };
    let Ok(Json(Statement { sql })) = body else { return refused(StatusCode::BAD_REQUEST, "a statement is wanted") };
    if !ask::only_reads(&sql) {
        return refused(StatusCode::BAD_REQUEST, "only statements that read: SELECT, WITH, VALUES, TABLE, SHOW, EXPLAIN");
    }
    // To its end, even if the browser has gone: the session is whole only then. `statement_timeout` bounds it.
    let asked = tokio::spawn(async move {
        let Ok(mut hand) = session.hand.try_lock() else {
            return refused(StatusCode::CONFLICT, "a statement of this session is running");
        };
        if !hand.is_whole() {
            return refused(StatusCode::GONE, "the session has ended; log in again");
        }
        let told_of = if both { ask::compare(&mut hand, &session, &sql).await } else { ask::query(&mut hand, &session, &sql).await };
        match told_of {
            Ok(answer) => told(StatusCode::OK, answer),
            Err(error) => refused(StatusCode::GONE, format!("the session has ended ({error}); log in again")),
        }
    });
    asked.await.unwrap_or_else(|_| refused(StatusCode::INTERNAL_SERVER_ERROR, "the statement was given up"))
}
