//! Arrow Flight SQL: another door to the same sessions. A client logs in as ever (its password goes through PostgreSQL's own exchange)
//! and gets a token; behind it stands one session of the gateway's, the same as on the wire, whose client is this module.
//! So everything that decides about a statement (classify, probe, route, plan, fallback, limits, cancel, records, privileges) is the very
//! same code; only the rows of the lake take another way out ([`crate::session::outlet`]). ✗ SQL.
//!
//! | file | knows |
//! | --- | --- |
//! | [`types`], [`decode`], [`outgoing`], [`incoming`] | PostgreSQL's types in Arrow, both ways: pure |
//! | [`client`], [`sessions`], [`run`] | one session from inside, all of them by token, one execution of a statement |
//! | [`effects`] | whether a statement surely only reads |
//! | [`service`], [`metadata`], [`messages`], [`failure`], [`placeholders`] | the protocol |

pub mod client;
pub mod decode;
mod effects;
pub mod failure;
pub mod incoming;
mod ingest;
mod listener;
mod messages;
mod metadata;
pub mod outgoing;
mod placeholders;
mod run;
mod service;
mod sessions;
pub mod types;

pub use sessions::Lifetimes;

use crate::limits::Admission;
use crate::server::Shared;
use crate::threads::Threads;
use axum::http::Request;
use client::Ground;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use service::{Door, Service};
use sessions::Sessions;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::util::MapRequestLayer;

/// How often sessions whose time is over are looked for.
const SWEEP: Duration = Duration::from_secs(5);
/// The longest message of a client, in bytes: a batch to be ingested.
const MAX_MESSAGE: usize = 256 << 20;
/// What may be on its way to a client that has not taken it, in bytes: of one stream, of a connection.
const WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// Calls under way on one connection.
const STREAMS: u32 = 256;

/// A statement that the door asks for its own sake.
pub(crate) fn is_own(sql: &str) -> bool {
    sql == effects::EFFECTS
}

/// A request whose client calls it off is torn, and says so where it is read: tonic takes that for the end of what a client sends, and half
/// of the rows of an ingestion for all of them.
fn torn(request: Request<Body>) -> Request<Body> {
    request.map(|body| Body::new(body.map_err(|e| io::Error::new(io::ErrorKind::ConnectionAborted, format!("the call was broken off: {}", e.message())))))
}

/// Serves until `shutdown`, then lets sessions drain.
pub async fn serve(shared: Arc<Shared>, listener: TcpListener, shutdown: CancellationToken) -> io::Result<()> {
    let now = CancellationToken::new();
    let threads = Threads::start(std::thread::available_parallelism().map_or(1, usize::from))?;
    let config = &shared.config;
    let sessions = Sessions::new(config.flight, config.max_sessions);
    let admission = Mutex::new(Admission::new(config.max_sessions, config.connection_rate));
    let drain = config.drain_timeout;
    let ground = Ground { shared: shared.clone(), threads, shutdown: shutdown.clone(), now: now.clone() };
    let door = Arc::new(Door { ground, sessions, admission });
    let service = arrow_flight::flight_service_server::FlightServiceServer::new(Service(door.clone()))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(usize::MAX);
    let sweeping = {
        let (door, shutdown) = (door.clone(), shutdown.clone());
        tokio::spawn(async move {
            while tokio::time::timeout(SWEEP, shutdown.cancelled()).await.is_err() {
                door.sweep().await;
            }
        })
    };
    let stopped = shutdown.clone();
    let served = tonic::transport::Server::builder()
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(Some(STREAMS))
        .http2_keepalive_interval(Some(Duration::from_secs(60)))
        .tcp_nodelay(true)
        .layer(MapRequestLayer::new(torn))
        .add_service(service)
        .serve_with_incoming_shutdown(listener::incoming(shared, listener), async move { stopped.cancelled().await });
    // A stream that is still read has as long as any session.
    let ended = tokio::select! {
        served = served => served,
        () = async {
            shutdown.cancelled().await;
            tokio::time::sleep(drain).await;
        } => Ok(()),
    };
    now.cancel();
    door.sessions.clear();
    sweeping.abort();
    ended.map_err(io::Error::other)
}
