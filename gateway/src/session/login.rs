//! From the first packet to the first ReadyForQuery: negotiation, the startup packet, and the login exchange,
//! relayed between client and PostgreSQL. ✗ passwords (they pass through unread), statements.

use super::link::{Link, Side, Turn, UpstreamAddress};
use crate::cancel::{Key, Registry, Request};
use crate::wire::frame;
use crate::wire::message::{self, ErrorReport, Reader};
use crate::wire::startup::{self, MAX_STARTUP, Opening, Startup};
use bytes::{Buf, BytesMut};
use std::io;
use thiserror::Error;

/// Why a connection ends before its first statement.
#[derive(Debug, Error)]
pub enum LoginEnd {
    /// Nothing to report: a cancel request, a probe of the port, a client that went away.
    #[error("closed")]
    Closed,
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The client was told.
    #[error("{}", .0.message)]
    Refused(ErrorReport),
}

/// A session that PostgreSQL has accepted.
pub struct LoggedIn {
    pub link: Link,
    pub startup: Startup,
    pub key: Key,
}

/// Who may come in without an exchange.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Users whom PostgreSQL accepts by trust or peer and who may use the gateway all the same.
    pub trusted_users: Vec<String>,
}

/// Runs the opening of one connection.
pub async fn login(
    mut client: Side,
    upstream: &UpstreamAddress,
    registry: &Registry,
    policy: &Policy,
) -> Result<LoggedIn, LoginEnd> {
    let (packet, startup) = loop {
        let packet = read_startup_packet(&mut client).await?;
        match startup::read(&packet[4..]) {
            Ok(Opening::Ssl | Opening::Gss) => {
                // Not offered; the client goes on in plain text or leaves. Anything it sent already is suspicious
                // only where encryption begins, and none begins here.
                client.output.extend_from_slice(b"N");
                client.flush().await?;
            }
            Ok(Opening::Cancel { pid, key }) => {
                cancel(upstream, registry, &packet, (pid, key)).await;
                return Err(LoginEnd::Closed);
            }
            Ok(Opening::Start(s)) => break (packet, s),
            Err(e) => return Err(refuse(&mut client, ErrorReport::fatal("08P01", e.to_string())).await),
        }
    };
    if startup.version.0 != 3 {
        let (major, minor) = startup.version;
        let e = ErrorReport::fatal("0A000", format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.0"));
        return Err(refuse(&mut client, e).await);
    }
    let mut server = match upstream.connect().await {
        Ok(s) => s,
        Err(e) => {
            let e = ErrorReport::fatal("08001", "the gateway cannot reach PostgreSQL")
                .detail(e.to_string())
                .hint("Check that the PostgreSQL cluster behind the gateway is running, then connect again.");
            return Err(refuse(&mut client, e).await);
        }
    };
    server.output.extend_from_slice(&packet);
    let mut link = Link { client, upstream: server };
    let key = exchange(&mut link, &startup, policy).await?;
    Ok(LoggedIn { link, startup, key })
}

async fn refuse(client: &mut Side, e: ErrorReport) -> LoginEnd {
    message::put_error(&mut client.output, &e);
    client.finish().await;
    LoginEnd::Refused(e)
}

async fn read_startup_packet(client: &mut Side) -> Result<BytesMut, LoginEnd> {
    loop {
        if client.input.len() >= 4 {
            let len = i32::from_be_bytes([client.input[0], client.input[1], client.input[2], client.input[3]]);
            if len < 8 || len as usize > MAX_STARTUP {
                return Err(refuse(client, ErrorReport::fatal("08P01", "invalid length of startup packet")).await);
            }
            if client.input.len() >= len as usize {
                return Ok(client.input.split_to(len as usize));
            }
        }
        if client.fill().await? == 0 {
            return Err(LoginEnd::Closed);
        }
    }
}

async fn cancel(upstream: &UpstreamAddress, registry: &Registry, packet: &[u8], key: Key) {
    if registry.request(&key) != Request::Forward {
        return;
    }
    match upstream.connect().await {
        Ok(mut server) => {
            server.output.extend_from_slice(packet);
            if server.flush().await.is_ok() {
                // PostgreSQL closes when it has sent the signal: the client may rely on that order.
                while matches!(server.fill().await, Ok(n) if n > 0) {}
            }
        }
        Err(e) => tracing::warn!(error = %e, "cancel request could not be forwarded"),
    }
}

/// Relays frames until ReadyForQuery, which is left in the upstream's input.
async fn exchange(link: &mut Link, startup: &Startup, policy: &Policy) -> Result<Key, LoginEnd> {
    let mut asked = false;
    let mut key = (0, Vec::new());
    loop {
        while let Some(f) = frame::whole(&link.upstream.input).map_err(protocol)? {
            let (tag, len) = (f[0], f.len());
            let body = frame::body(f);
            match tag {
                b'R' => match Reader::new(body, "Authentication").i32().map_err(protocol)? {
                    0 if !asked && !policy.trusted_users.iter().any(|u| u == startup.user()) => {
                        let e = ErrorReport::fatal("28000", format!("login of user \"{}\" refused by the gateway", startup.user()))
                            .detail("PostgreSQL accepts this login without asking for proof, and it sees only the gateway's address.")
                            .hint("Demand scram-sha-256 in pg_hba.conf, or allow the user by name in the gateway's trusted_users.");
                        return Err(refuse(&mut link.client, e).await);
                    }
                    0 => {}
                    _ => asked = true,
                },
                b'K' => {
                    let mut r = Reader::new(body, "BackendKeyData");
                    key = (r.i32().map_err(protocol)?, body.get(4..).unwrap_or(&[]).to_vec());
                }
                b'Z' => return Ok(key),
                b'E' => {
                    link.client.output.extend_from_slice(f);
                    link.upstream.input.advance(len);
                    link.client.finish().await;
                    return Err(LoginEnd::Closed);
                }
                _ => {}
            }
            let f = link.upstream.input.split_to(len);
            link.client.output.extend_from_slice(&f);
        }
        // Only the exchange's own messages go through; what is pipelined behind it waits for the session.
        while let Some(f) = frame::whole(&link.client.input).map_err(protocol)? {
            if f[0] != b'p' {
                break;
            }
            let len = f.len();
            let f = link.client.input.split_to(len);
            link.upstream.output.extend_from_slice(&f);
        }
        match link.turn().await? {
            Turn::ClientClosed => {
                link.upstream.finish().await;
                return Err(LoginEnd::Closed);
            }
            Turn::UpstreamClosed => {
                link.client.finish().await;
                return Err(LoginEnd::Closed);
            }
            _ => {}
        }
    }
}

fn protocol(e: impl std::error::Error + Send + Sync + 'static) -> LoginEnd {
    LoginEnd::Io(io::Error::new(io::ErrorKind::InvalidData, e))
}
