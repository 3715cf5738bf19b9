//! From the first byte to the startup packet: TLS by request or directly, GSS refused, cancel requests told apart.
//! ✗ PostgreSQL, the login exchange.
//!
//! Encryption begins with an empty buffer: whatever arrived in the clear behind a request for it may have been put
//! there by somebody on the way, and would be taken for the client's own words (CVE-2021-23214).

use super::link::Side;
use super::login::LoginEnd;
use crate::cancel::Key;
use crate::tls::{self, Tls};
use crate::wire::message::{self, ErrorReport};
use crate::wire::startup::{self, MAX_STARTUP, MIN_STARTUP, Opening, Startup};
use bytes::{Buf, BytesMut};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

/// First byte of a TLS handshake record; no startup packet is long enough to begin with it.
const HANDSHAKE: u8 = 0x16;

/// How long a client may take to read why there is no TLS.
const PARTING_LIMIT: Duration = Duration::from_secs(1);

/// Who is at the other end, as far as the sockets tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub ip: IpAddr,
    /// A process of this machine: nobody else can read or change what it says.
    pub is_local: bool,
}

impl Peer {
    /// Of an accepted connection.
    pub fn of(stream: &TcpStream) -> io::Result<Peer> {
        let ip = stream.peer_addr()?.ip().to_canonical();
        // What comes from the very address that it went to was never on a wire.
        let is_local = ip.is_loopback() || ip == stream.local_addr()?.ip().to_canonical();
        Ok(Peer { ip, is_local })
    }
}

/// A client that wants a session.
pub struct Opened {
    pub client: Side,
    pub packet: BytesMut,
    pub startup: Startup,
    /// With TLS, what SCRAM can be bound to.
    pub end_point: Option<Vec<u8>>,
}

/// What a connection turned out to be.
pub enum Opener {
    Session(Box<Opened>),
    /// A request to cancel what the session with this key does. Its client takes the end of the connection for the sign that it was
    /// obeyed: what is sent afterwards must not be hit.
    Cancel { key: Key, client: Side },
}

/// Whether, and with what, encryption is offered.
pub struct Terms<'a> {
    pub tls: Option<&'a Tls>,
    /// Others than this machine may speak in the clear.
    pub allow_plaintext: bool,
}

/// Reads the opening of one connection. The caller bounds the time.
pub async fn open(mut stream: TcpStream, peer: Peer, terms: &Terms<'_>) -> Result<Opener, LoginEnd> {
    // Small answers must not wait for a full segment.
    let _ = stream.set_nodelay(true);
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(LoginEnd::Closed);
    }
    if first[0] == HANDSHAKE {
        let Some(tls) = terms.tls else {
            return Err(LoginEnd::Handshake("TLS is not configured".into()));
        };
        let (client, end_point) = encrypt(stream, tls, true).await?;
        return encrypted(client, end_point).await;
    }
    let mut input = BytesMut::with_capacity(1024);
    let (mut asked_tls, mut asked_gss) = (false, false);
    loop {
        let packet = loop {
            match startup_packet(&mut input) {
                Ok(Some(packet)) => break packet,
                Ok(None) => {}
                Err(e) => return Err(e),
            }
            if stream.read_buf(&mut input).await? == 0 {
                return Err(LoginEnd::Closed);
            }
        };
        match startup::read(&packet[4..]) {
            Ok(Opening::Ssl) if !asked_tls => {
                asked_tls = true;
                let Some(tls) = terms.tls else {
                    stream.write_all(b"N").await?;
                    if !input.is_empty() {
                        return Err(refuse(&mut Side::tcp(stream), stuffed("SSL")).await);
                    }
                    continue;
                };
                if !input.is_empty() {
                    return Err(LoginEnd::Handshake("unencrypted data after SSLRequest".into()));
                }
                stream.write_all(b"S").await?;
                let (client, end_point) = encrypt(stream, tls, false).await?;
                return encrypted(client, end_point).await;
            }
            Ok(Opening::Gss) if !asked_gss => {
                asked_gss = true;
                stream.write_all(b"N").await?;
                if !input.is_empty() {
                    return Err(refuse(&mut Side::tcp(stream), stuffed("GSSAPI encryption")).await);
                }
            }
            // A cancel request is an address and a number; libpq sent it in the clear until version 17.
            Ok(Opening::Cancel { pid, key }) => {
                return Ok(Opener::Cancel { key: Key { pid, secret: key }, client: Side::tcp(stream) });
            }
            Ok(Opening::Start(startup)) => {
                let mut client = Side::tcp(stream);
                if !terms.allow_plaintext && !peer.is_local {
                    let e = ErrorReport::fatal("28000", "connections from other machines must use TLS")
                        .hint("Connect with sslmode=verify-full, or at least sslmode=require.");
                    return Err(refuse(&mut client, e).await);
                }
                client.input = input;
                return session(client, packet, startup, None);
            }
            Ok(other) => return Err(refuse_opening(&mut Side::tcp(stream), &other, &packet).await),
            Err(_) => return Err(refuse(&mut Side::tcp(stream), unterminated()).await),
        }
    }
}

/// The TLS handshake. `direct`: without a request for it, which only ALPN tells from another protocol's.
async fn encrypt(stream: TcpStream, tls: &Tls, direct: bool) -> Result<(Side, Option<Vec<u8>>), LoginEnd> {
    let identity = tls.current();
    let stream = match TlsAcceptor::from(Arc::clone(&identity.config)).accept(stream).into_fallible().await {
        Ok(stream) => stream,
        Err((e, stream)) if e.kind() == io::ErrorKind::InvalidData => {
            part(stream).await;
            return Err(LoginEnd::Handshake(e.to_string()));
        }
        Err((e, _)) => return Err(LoginEnd::Io(e)),
    };
    if direct && stream.get_ref().1.alpn_protocol() != Some(tls::ALPN) {
        return Err(LoginEnd::Handshake("direct TLS without the protocol's name (ALPN)".into()));
    }
    Ok((Side::tls(stream), identity.end_point.clone()))
}

/// Closes so that the alert is read: a socket that is dropped with something unread in it is reset.
async fn part(mut stream: TcpStream) {
    let _ = stream.shutdown().await;
    let mut unread = [0; 1024];
    let rest = async { while matches!(stream.read(&mut unread).await, Ok(n) if n > 0) {} };
    let _ = tokio::time::timeout(PARTING_LIMIT, rest).await;
}

/// The first packet behind a handshake.
async fn encrypted(mut client: Side, end_point: Option<Vec<u8>>) -> Result<Opener, LoginEnd> {
    let packet = loop {
        match startup_packet(&mut client.input) {
            Ok(Some(packet)) => break packet,
            Ok(None) => {}
            Err(e) => return Err(e),
        }
        if client.fill().await? == 0 {
            return Err(LoginEnd::Closed);
        }
    };
    match startup::read(&packet[4..]) {
        Ok(Opening::Cancel { pid, key }) => Ok(Opener::Cancel { key: Key { pid, secret: key }, client }),
        Ok(Opening::Start(startup)) => session(client, packet, startup, end_point),
        Ok(other) => Err(refuse_opening(&mut client, &other, &packet).await),
        Err(_) => Err(refuse(&mut client, unterminated()).await),
    }
}

fn session(
    client: Side,
    packet: BytesMut,
    startup: Startup,
    end_point: Option<Vec<u8>>,
) -> Result<Opener, LoginEnd> {
    Ok(Opener::Session(Box::new(Opened { client, packet, startup, end_point })))
}

/// Takes a whole packet out of `input`, if one is there. A length that none has is most likely another protocol's: as PostgreSQL,
/// say nothing.
fn startup_packet(input: &mut BytesMut) -> Result<Option<BytesMut>, LoginEnd> {
    let Some(mut head) = input.get(..4) else { return Ok(None) };
    let len = head.get_i32() as usize;
    if !(MIN_STARTUP..=MAX_STARTUP).contains(&len) {
        return Err(LoginEnd::Io(io::Error::new(io::ErrorKind::InvalidData, "invalid length of startup packet")));
    }
    Ok((input.len() >= len).then(|| input.split_to(len)))
}

fn unterminated() -> ErrorReport {
    ErrorReport::fatal("08P01", "invalid startup packet layout: expected terminator as last byte")
}

fn stuffed(request: &str) -> ErrorReport {
    ErrorReport::fatal("08P01", format!("received unencrypted data after {request} request")).detail(
        "This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.",
    )
}

/// What is no opening here: another protocol's, a second request for encryption, a CancelRequest that is none.
async fn refuse_opening(client: &mut Side, opening: &Opening, packet: &[u8]) -> LoginEnd {
    if matches!(opening, Opening::BrokenCancel) {
        return LoginEnd::Closed;
    }
    let mut code = packet.get(4..8).unwrap_or(&[0; 4]);
    let (major, minor) = (code.get_u16(), code.get_u16());
    let e = ErrorReport::fatal(
        "0A000",
        format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.0"),
    );
    if major >= 3 {
        return refuse(client, e).await;
    }
    // Before protocol 3 an error was a text that ends with a zero.
    client.output.extend_from_slice(format!("EFATAL:  {}\n\0", e.message).as_bytes());
    client.finish().await;
    LoginEnd::Refused(e)
}

/// Tells the client, and ends.
pub(crate) async fn refuse(client: &mut Side, e: ErrorReport) -> LoginEnd {
    message::put_error(&mut client.output, &e);
    client.finish().await;
    LoginEnd::Refused(e)
}

#[cfg(test)]
mod tests;
