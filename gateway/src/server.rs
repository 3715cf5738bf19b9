//! Accepts connections, admits as many as configured, and drains on shutdown. ✗ SQL, frame contents.
//!
//! A connection goes through three counts: how many are on their way in ([`crate::limits`], which costs an attacker
//! nothing but bounds what it costs us), a session's place once its client has said who it is, before PostgreSQL gets
//! a connection for it, and the deadlines of the start-up packet and of the login.

use crate::compare::log::Comparisons;
use crate::Config;
use crate::cancel::Registry;
use crate::catalog::Catalog;
use crate::classify::Cache;
use crate::engine::Engine;
use crate::limits::{Admission, OnItsWay, Refusal};
use crate::cost::Costs;
use crate::query::log::QueryLog;
use crate::session::link::UpstreamAddress;
use crate::session::login::{self, Desk, LoginEnd, Policy};
use crate::session::opening::{self, Opener, Peer, Terms};
use crate::session::{Session, SessionEnd};
use crate::telemetry::{self, Connection};
use crate::threads::Threads;
use crate::verifiers::Verifiers;
use crate::wire::message::{self, ErrorReport};
use bytes::BytesMut;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// What every session of a gateway shares.
pub struct Shared {
    pub config: Config,
    pub upstream: UpstreamAddress,
    pub cancels: Registry,
    pub catalog: Catalog,
    pub classified: Cache,
    pub log: Arc<QueryLog>,
    pub costs: Arc<Costs>,
    pub comparisons: Arc<Comparisons>,
    /// One for each replay under way.
    pub replays: Arc<Semaphore>,
    pub engine: Arc<Engine>,
    pub policy: Policy,
    pub verifiers: Verifiers,
    /// One for each session and each login that PostgreSQL has a connection for.
    pub places: Arc<Semaphore>,
}

/// Serves until `shutdown`, then drains.
///
/// Errors: no threads for the sessions.
pub async fn serve(shared: Arc<Shared>, listener: TcpListener, shutdown: CancellationToken) -> io::Result<()> {
    let mut admission = Admission::new(shared.config.max_sessions, shared.config.connection_rate);
    let sessions = Threads::start(std::thread::available_parallelism().map_or(1, usize::from))?;
    let now = CancellationToken::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(e) => {
                    // Out of file descriptors, as a rule: give sessions a moment to end.
                    tracing::warn!(error = %e, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = shutdown.cancelled() => break,
        };
        // An error means that the client is gone already.
        let Ok(peer) = Peer::of(&stream) else { continue };
        // As PostgreSQL: a machine that vanished is found out in the end, and its session's place is free again.
        let _ = socket2::SockRef::from(&stream).set_keepalive(true);
        let on_its_way = match admission.admit(peer.ip, Instant::now()) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                telemetry::connection(Connection::TurnedAway);
                turn_away(&stream, refusal);
                continue;
            }
        };
        // The session's thread waits for it, not this one.
        let Ok(stream) = stream.into_std() else { continue };
        // Each its own, since sessions look at them whenever they wake: one for all would go from processor to processor.
        let (shared, shutdown, now) = (shared.clone(), shutdown.child_token(), now.child_token());
        sessions.spawn(move || connection(shared, stream, peer, on_its_way, shutdown, now));
    }
    drop(listener);
    if tokio::time::timeout(shared.config.drain_timeout, sessions.wait()).await.is_err() {
        tracing::warn!(sessions = sessions.sessions(), "closing sessions that are still inside a transaction");
        now.cancel();
        sessions.wait().await;
    }
    Ok(())
}

/// Says why, as far as that costs nothing.
fn turn_away(stream: &TcpStream, refusal: Refusal) {
    let e = match refusal {
        Refusal::Rate => {
            ErrorReport::fatal("53300", "too many connections from this address in a short time")
                .hint("Keep connections open (a pool does), or raise connection_rate of the gateway.")
        }
        Refusal::Crowd | Refusal::Address => too_many(),
    };
    let mut out = BytesMut::new();
    message::put_error(&mut out, &e);
    // The socket's buffer is empty; whoever does not get it sees the connection close.
    let _ = stream.try_write(&out);
}

fn too_many() -> ErrorReport {
    ErrorReport::fatal("53300", "sorry, too many clients already")
        .hint("Close idle sessions, or raise max_sessions of the gateway.")
}

async fn connection(
    shared: Arc<Shared>,
    stream: std::net::TcpStream,
    peer: Peer,
    on_its_way: OnItsWay,
    shutdown: CancellationToken,
    now: CancellationToken,
) {
    let stream = match TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(e) => return tracing::warn!(error = %e, "a connection could not be watched"),
    };
    let logged_in = tokio::select! {
        entered = enter(&shared, stream, peer) => entered,
        () = now.cancelled() => return,
    };
    drop(on_its_way);
    let (logged_in, place) = match logged_in {
        Ok(entered) => entered,
        Err(LoginEnd::Closed) => return,
        Err(LoginEnd::Io(e)) if is_ordinary(&e) => return,
        Err(e) => {
            telemetry::connection(Connection::Refused);
            tracing::info!(peer = %peer.ip, reason = %e, "login refused");
            return;
        }
    };
    telemetry::connection(Connection::Session);
    match Session::new(shared, logged_in).run(shutdown, now).await {
        SessionEnd::Client | SessionEnd::Upstream | SessionEnd::Shutdown => {}
        SessionEnd::Io(e) if is_ordinary(&e) => {}
        end => tracing::warn!(peer = %peer.ip, reason = %end, "session ended"),
    }
    drop(place);
}

/// From accepted to logged in, each step within its time.
async fn enter(
    shared: &Shared,
    stream: TcpStream,
    peer: Peer,
) -> Result<(login::LoggedIn, tokio::sync::OwnedSemaphorePermit), LoginEnd> {
    let config = &shared.config;
    let deadline = tokio::time::Instant::now() + config.login_timeout;
    let terms = Terms { tls: config.tls.as_deref(), allow_plaintext: config.allow_plaintext };
    let opened = opening::open(stream, peer, &terms);
    // As PostgreSQL: who says nothing is told nothing.
    let opened = tokio::time::timeout(config.startup_timeout.min(config.login_timeout), opened)
        .await
        .map_err(|_| LoginEnd::Io(io::Error::new(io::ErrorKind::TimedOut, "no startup packet in time")))??;
    let mut opened = match opened {
        Opener::Session(opened) => opened,
        Opener::Cancel { key, client } => {
            telemetry::connection(Connection::Cancel);
            let cancelled = login::cancel(&shared.upstream, &shared.cancels, &key);
            let _ = tokio::time::timeout_at(deadline, cancelled).await; // nobody hears how it went
            drop(client);
            return Err(LoginEnd::Closed);
        }
    };
    let Ok(place) = shared.places.clone().try_acquire_owned() else {
        return Err(opening::refuse(&mut opened.client, too_many()).await);
    };
    let desk = Desk {
        upstream: &shared.upstream,
        policy: &shared.policy,
        verifiers: &shared.verifiers,
        cancels: &shared.cancels,
        deadline,
    };
    Ok((login::login(*opened, peer, &desk).await?, place))
}

/// A client that vanished is not worth a line.
fn is_ordinary(e: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(e.kind(), ConnectionReset | BrokenPipe | ConnectionAborted | UnexpectedEof)
}
