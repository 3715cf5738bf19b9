//! From the startup packet to the first ReadyForQuery: PostgreSQL is reached, told who asks and from where, and the
//! login exchange is relayed between it and the client.
//! ✗ passwords (they pass through unread), encryption, statements.
//!
//! What is relayed, and what is not: on a connection in the clear PostgreSQL offers SCRAM-SHA-256, and client and
//! PostgreSQL prove themselves to one another through the gateway. Under TLS a server of PostgreSQL's kind also offers
//! SCRAM-SHA-256-PLUS, which binds the proof to the channel; libpq prefers it, demands it with
//! `channel_binding=require`, and where it is missing says so in a flag that a server with TLS refuses. The channel
//! ends at the gateway, so this one exchange is verified here ([`super::proof`]). Every other one is still relayed.

use super::link::{Link, Side, UpstreamAddress};
use super::opening::{Opened, Peer, refuse};
use super::proof;
use crate::cancel::{Guard, Key, MIN_SECRET, Registry, Request};
use crate::verifiers::Verifiers;
use crate::wire::frame;
use crate::wire::message::{self, ErrorReport, Fields, Reader};
use crate::wire::startup::{self, MAX_STARTUP, Startup};
use bytes::Buf;
use rand::Rng;
use std::io;
use std::time::Duration;
use thiserror::Error;
use tokio::time::Instant;

/// The setting that carries the client's address.
const CLIENT_ADDR: &str = "watershed.client_addr";
/// PostgreSQL that is not there is tried again for this long: restarts take seconds.
const RETRY_FOR: Duration = Duration::from_secs(4);
/// The first pause between two tries; each is longer than the one before, and none is as long as another client's.
const FIRST_PAUSE: Duration = Duration::from_millis(40);
const LONGEST_PAUSE: Duration = Duration::from_millis(800);
/// How long PostgreSQL may take to take a connection, in each try.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Why a connection ends before its first statement.
#[derive(Debug, Error)]
pub enum LoginEnd {
    /// Nothing to report: a cancel request, a probe of the port, a client that went away.
    #[error("closed")]
    Closed,
    #[error(transparent)]
    Io(#[from] io::Error),
    /// No TLS came about; its own alert is all that the client is told.
    #[error("TLS handshake failed: {0}")]
    Handshake(String),
    /// The client was told.
    #[error("{}", .0.message)]
    Refused(ErrorReport),
}

/// A session that PostgreSQL has accepted.
pub struct LoggedIn {
    pub link: Link,
    pub startup: Startup,
    /// Under which a CancelRequest finds the session; the client has its key.
    pub cancel: Guard,
}

/// Who may come in without an exchange.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Users whom PostgreSQL accepts by trust or peer and who may use the gateway all the same.
    pub trusted_users: Vec<String>,
}

/// What a login needs of the gateway.
pub struct Desk<'a> {
    pub upstream: &'a UpstreamAddress,
    pub policy: &'a Policy,
    pub verifiers: &'a Verifiers,
    pub cancels: &'a Registry,
    pub deadline: Instant,
}

/// Logs a client in.
pub async fn login(opened: Opened, peer: Peer, desk: &Desk<'_>) -> Result<LoggedIn, LoginEnd> {
    let Opened { mut client, packet, startup, end_point } = opened;
    let packet = match startup::with_setting(&packet, CLIENT_ADDR, &peer.ip.to_string()) {
        Ok(packet) if packet.len() <= MAX_STARTUP => packet,
        _ => {
            return Err(
                refuse(&mut client, ErrorReport::fatal("08P01", "invalid length of startup packet")).await
            );
        }
    };
    let server = match reach(desk.upstream, &packet, desk.deadline).await {
        Ok(server) => server,
        Err(e) => return Err(refuse(&mut client, e).await),
    };
    let mut link = Link::new(client, server);
    let done = exchange(&mut link, &startup, end_point.as_deref(), desk);
    match tokio::time::timeout_at(desk.deadline, done).await {
        Ok(cancel) => Ok(LoggedIn { cancel: cancel?, link, startup }),
        Err(_) => {
            let e = ErrorReport::fatal("57014", "canceling authentication due to timeout");
            Err(refuse(&mut link.client, e).await)
        }
    }
}

/// Serves a CancelRequest: stops the lake's work, or has PostgreSQL stop its own.
pub async fn cancel(upstream: &UpstreamAddress, registry: &Registry, key: &Key) {
    if let Request::Forward(real) = registry.request(key) {
        stop_upstream(upstream, &real).await;
    }
}

/// Asks PostgreSQL to stop what the session with its key `real` does.
pub(super) async fn stop_upstream(upstream: &UpstreamAddress, real: &Key) {
    match upstream.connect().await {
        Ok(mut server) => {
            startup::put_cancel(&mut server.output, real.pid, &real.secret);
            if server.flush().await.is_ok() {
                // PostgreSQL closes when it has sent the signal: the client may rely on that order.
                while matches!(server.fill().await, Ok(n) if n > 0) {}
            }
        }
        Err(e) => tracing::warn!(error = %e, "PostgreSQL could not be asked to stop a statement"),
    }
}

/// Opens a connection to PostgreSQL on which its answer to the startup packet has begun to arrive. Tries again while
/// PostgreSQL is not there, or says that it is just starting or stopping; what it said last is then the answer.
async fn reach(upstream: &UpstreamAddress, packet: &[u8], deadline: Instant) -> Result<Side, ErrorReport> {
    let last_try = (Instant::now() + RETRY_FOR).min(deadline);
    let mut pause = FIRST_PAUSE;
    loop {
        let limit = deadline.min(Instant::now() + CONNECT_LIMIT);
        let tried = tokio::time::timeout_at(limit, attempt(upstream, packet)).await;
        let tried = match tried {
            Ok(Ok((side, true))) => return Ok(side),
            Ok(tried) => tried,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        let pause_now = pause.mul_f64(rand::rng().random_range(0.5..1.5));
        if Instant::now() + pause_now >= last_try {
            return tried.map(|(side, _)| side).map_err(|e| {
                ErrorReport::fatal("08001", "the gateway cannot reach PostgreSQL").detail(e.to_string()).hint(
                    "Check that the PostgreSQL cluster behind the gateway is running, then connect again.",
                )
            });
        }
        tokio::time::sleep(pause_now).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// One connection, and whether PostgreSQL is ready for it.
async fn attempt(upstream: &UpstreamAddress, packet: &[u8]) -> io::Result<(Side, bool)> {
    let mut side = upstream.connect().await?;
    side.output.extend_from_slice(packet);
    side.flush().await?;
    loop {
        if side.fill().await? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "PostgreSQL closed the connection at once",
            ));
        }
        match frame::peek(&side.input) {
            // 57P03: starting up, shutting down, in recovery.
            Ok(Some(h)) if h.tag == b'E' => {
                if let Ok(Some(f)) = frame::whole(&side.input) {
                    let passing = Fields::read(frame::body(f)).is_ok_and(|e| e.text(b'C') == "57P03");
                    return Ok((side, !passing));
                }
            }
            Ok(None) => {}
            _ => return Ok((side, true)),
        }
    }
}

/// Relays frames until ReadyForQuery, which is left in the upstream's input.
async fn exchange(
    link: &mut Link,
    startup: &Startup,
    end_point: Option<&[u8]>,
    desk: &Desk<'_>,
) -> Result<Guard, LoginEnd> {
    let mut asked = false;
    let mut cancel = None;
    loop {
        while let Some(f) = frame::whole(&link.upstream.input).map_err(protocol)? {
            let (tag, len) = (f[0], f.len());
            let body = frame::body(f);
            match tag {
                b'R' => match Reader::new(body, "Authentication").i32().map_err(protocol)? {
                    0 if !asked && !desk.policy.trusted_users.iter().any(|u| u == startup.user()) => {
                        let e = ErrorReport::fatal("28000", format!("login of user \"{}\" refused by the gateway", startup.user()))
                            .detail("PostgreSQL accepts this login without asking for proof, and it sees only the gateway's address.")
                            .hint("Demand scram-sha-256 in pg_hba.conf, or allow the user by name in the gateway's trusted_users.");
                        return Err(refuse(&mut link.client, e).await);
                    }
                    0 => {}
                    code => {
                        asked = true;
                        if let (proof::SASL, Some(end_point)) = (code, end_point) {
                            proof::offer(link, startup.user(), end_point, desk.verifiers).await?;
                            continue;
                        }
                    }
                },
                b'K' => {
                    let pid = Reader::new(body, "BackendKeyData").i32().map_err(protocol)?;
                    let real = Key { pid, secret: body.get(4..).unwrap_or(&[]).to_vec() };
                    // As long as PostgreSQL's: it knows what the client's protocol can carry.
                    let guard = desk.cancels.register(pid, real.secret.len(), Some(real));
                    message::put_key(&mut link.client.output, pid, &guard.key.secret);
                    link.upstream.input.advance(len);
                    cancel = Some(guard);
                    continue;
                }
                // Who was told no key cannot ask.
                b'Z' => return Ok(cancel.unwrap_or_else(|| desk.cancels.register(0, MIN_SECRET, None))),
                b'E' => {
                    let f = link.upstream.input.split_to(len);
                    link.client.output.extend_from_slice(&f);
                    link.client.finish().await;
                    return Err(LoginEnd::Closed);
                }
                _ => {}
            }
            let f = link.upstream.input.split_to(len);
            link.client.output.extend_from_slice(&f);
        }
        // Only the exchange's own messages go through; what is pipelined behind it waits for the session.
        while link.client.input.first() == Some(&b'p') {
            let Some(len) = proof::response_len(link).await? else { break };
            let f = link.client.input.split_to(len);
            link.upstream.output.extend_from_slice(&f);
        }
        proof::turn(link).await?;
    }
}

pub(super) fn protocol(e: impl std::error::Error + Send + Sync + 'static) -> LoginEnd {
    LoginEnd::Io(io::Error::new(io::ErrorKind::InvalidData, e))
}

#[cfg(test)]
mod tests;
