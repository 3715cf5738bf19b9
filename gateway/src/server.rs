//! Accepts connections, admits as many as configured, and drains on shutdown. ✗ SQL, frame contents.

use crate::Config;
use crate::cancel::Registry;
use crate::catalog::Catalog;
use crate::classify::Cache;
use crate::engine::Engine;
use crate::query::log::QueryLog;
use crate::session::link::{Side, UpstreamAddress};
use crate::session::login::{self, LoginEnd, Policy};
use crate::session::{Session, SessionEnd};
use crate::wire::message::{self, ErrorReport};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a client may take to log in.
const LOGIN_LIMIT: Duration = Duration::from_secs(60);

/// What every session of a gateway shares.
pub struct Shared {
    pub config: Config,
    pub upstream: UpstreamAddress,
    pub cancels: Registry,
    pub catalog: Catalog,
    pub classified: Cache,
    pub log: Arc<QueryLog>,
    pub engine: Arc<Engine>,
    pub policy: Policy,
}

/// Serves until `shutdown`, then drains.
pub async fn serve(shared: Arc<Shared>, listener: TcpListener, shutdown: CancellationToken) {
    let places = Arc::new(Semaphore::new(shared.config.max_sessions));
    let sessions = TaskTracker::new();
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
        let (shared, shutdown, now) = (shared.clone(), shutdown.clone(), now.clone());
        let place = places.clone().try_acquire_owned().ok();
        sessions.spawn(async move {
            let full = place.is_none();
            tokio::select! {
                () = connection(shared, stream, shutdown, full) => {}
                () = now.cancelled() => {}
            }
            drop(place);
        });
    }
    drop(listener);
    sessions.close();
    if tokio::time::timeout(shared.config.drain_timeout, sessions.wait()).await.is_err() {
        tracing::warn!(sessions = sessions.len(), "closing sessions that are still inside a transaction");
        now.cancel();
        sessions.wait().await;
    }
}

async fn connection(shared: Arc<Shared>, stream: TcpStream, shutdown: CancellationToken, full: bool) {
    let peer = stream.peer_addr().ok();
    let client = Side::tcp(stream);
    let login = login::login(client, &shared.upstream, &shared.cancels, &shared.policy);
    let logged_in = match tokio::time::timeout(LOGIN_LIMIT, login).await {
        Ok(Ok(l)) => l,
        Ok(Err(LoginEnd::Closed)) | Err(_) => return,
        Ok(Err(e)) => {
            tracing::info!(?peer, reason = %e, "login refused");
            return;
        }
    };
    if full {
        let mut logged_in = logged_in;
        let e = ErrorReport::fatal("53300", "sorry, too many clients already")
            .hint("Close idle sessions, or raise max_sessions of the gateway.");
        message::put_error(&mut logged_in.link.client.output, &e);
        logged_in.link.client.finish().await;
        return;
    }
    match Session::new(shared, logged_in).run(shutdown).await {
        SessionEnd::Client | SessionEnd::Upstream | SessionEnd::Shutdown => {}
        SessionEnd::Io(e) if is_ordinary(&e) => {}
        end => tracing::warn!(?peer, reason = %end, "session ended"),
    }
}

/// A client that vanished is not worth a line.
fn is_ordinary(e: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(e.kind(), ConnectionReset | BrokenPipe | ConnectionAborted | UnexpectedEof)
}
