//! SCRAM that cannot be relayed: the client binds its proof to its TLS channel, which ends here, while PostgreSQL
//! is reached over another. So two exchanges run side by side. PostgreSQL's own salt and iteration count go to
//! the client; the client's proof is verified against the verifier that PostgreSQL keeps, and gives the client's
//! key, with which the gateway then proves to PostgreSQL that the client knows the password. The verifier alone
//! would not do for that. ✗ passwords, how verifiers are looked up.
//!
//! The client's key is a secret of this one login: it is never kept, and would be of use only together with a
//! verifier made from the same salt.

use super::link::{Link, Turn};
use super::login::{LoginEnd, protocol};
use super::opening::refuse;
use crate::verifiers::Verifiers;
use crate::wire::frame;
use crate::wire::message::{self, ErrorReport, Reader};
use crate::wire::scram::{self, ClientLast, SCRAM, SCRAM_PLUS, ServerFirst, Verifier};
use bytes::{Buf, BufMut, BytesMut};
use rand::Rng;
use rand::distr::Alphanumeric;

/// PostgreSQL's own bound on what a client sends while it logs in, in bytes.
pub(super) const MAX_RESPONSE: usize = 65_535;

/// AuthenticationSASL, ...Continue and ...Final.
pub(super) const SASL: i32 = 10;
const CONTINUE: i32 = 11;
const FINAL: i32 = 12;

/// Serves PostgreSQL's offer of mechanisms (the whole frame, at the front of the upstream's input) to a client whose
/// TLS channel has this end point. When this returns, either the proof is done on both sides, or the client chose what
/// can be relayed and its answer is on its way.
pub(super) async fn offer(
    link: &mut Link,
    user: &str,
    end_point: &[u8],
    verifiers: &Verifiers,
) -> Result<(), LoginEnd> {
    let offered = next_from_upstream(link).await?;
    let mechanisms = frame::body(&offered).get(4..).unwrap_or(&[]);
    if !mechanisms.split(|byte| *byte == 0).any(|name| name == SCRAM.as_bytes()) {
        link.client.output.extend_from_slice(&offered);
        return Ok(());
    }
    authentication(&mut link.client.output, SASL, |out| {
        out.put_slice(SCRAM_PLUS.as_bytes());
        out.put_u8(0);
        out.put_slice(mechanisms);
    });
    let answer = next_from_client(link).await?;
    let (mechanism, first) = initial_response(frame::body(&answer)).map_err(protocol)?;
    let binds = mechanism == SCRAM_PLUS.as_bytes();
    if !binds && mechanism != SCRAM.as_bytes() {
        link.upstream.output.extend_from_slice(&answer);
        return Ok(());
    }
    let first = match first {
        Some(first) => first.to_vec(),
        None => {
            authentication(&mut link.client.output, CONTINUE, |_| {});
            frame::body(&next_from_client(link).await?).to_vec()
        }
    };
    if binds {
        return bound(link, user, end_point, verifiers, &first).await;
    }
    // A client that could bind and saw no offer of it: somebody took the offer away.
    if first.starts_with(b"y") {
        let e = ErrorReport::fatal("28000", "SCRAM channel binding negotiation error").detail(
            "The client supports SCRAM channel binding but thinks the server does not.  However, this server does support channel binding.",
        );
        return Err(refuse(&mut link.client, e).await);
    }
    begin(&mut link.upstream.output, &first);
    Ok(())
}

/// SASLInitialResponse (F) for SCRAM without binding.
fn begin(out: &mut BytesMut, first: &[u8]) {
    message::frame(out, b'p', |out| {
        out.put_slice(SCRAM.as_bytes());
        out.put_u8(0);
        out.put_i32(first.len() as i32);
        out.put_slice(first);
    });
}

async fn bound(
    link: &mut Link,
    user: &str,
    end_point: &[u8],
    verifiers: &Verifiers,
    client_first: &[u8],
) -> Result<(), LoginEnd> {
    let (bare, client_nonce) = match begun(client_first) {
        Ok(begun) => begun,
        Err(e) => return Err(refuse(&mut link.client, e).await),
    };

    // PostgreSQL's salt, for a role that is not there too.
    let own_bare = format!("n=,r={}", nonce());
    begin(&mut link.upstream.output, format!("n,,{own_bare}").as_bytes());
    let upstream_first = sasl_from_upstream(link, CONTINUE).await?;
    let Some(upstream) = ServerFirst::read(&upstream_first) else { return Err(unproven(link).await) };

    let shared_nonce = format!("{client_nonce}{}", nonce());
    let server_first = format!("r={shared_nonce},s={},i={}", upstream.salt, upstream.iterations);
    authentication(&mut link.client.output, CONTINUE, |out| out.put_slice(server_first.as_bytes()));

    let client_last = next_from_client(link).await?;
    let Some(last) = std::str::from_utf8(frame::body(&client_last)).ok().and_then(ClientLast::read) else {
        return Err(refuse(&mut link.client, malformed()).await);
    };
    if last.binding != scram::binding(end_point) {
        return Err(refuse(
            &mut link.client,
            ErrorReport::fatal("28000", "SCRAM channel binding check failed"),
        )
        .await);
    }
    if last.nonce != shared_nonce {
        let e = ErrorReport::fatal("08P01", "invalid SCRAM response").detail("Nonce does not match.");
        return Err(refuse(&mut link.client, e).await);
    }
    let verifier = match verifiers.of(user).await {
        Ok(verifier) => verifier.filter(|verifier| verifier.is_of(&upstream)),
        Err(e) => {
            tracing::error!(error = %e, "a stored verifier cannot be looked up");
            let e =
                ErrorReport::fatal("08006", "the gateway cannot look up the stored verifier of this login")
                    .hint("Connect again; channel_binding=disable does without it.");
            return Err(refuse(&mut link.client, e).await);
        }
    };
    let message = format!("{bare},{server_first},{}", last.without_proof);
    let known = verifier.and_then(|verifier| {
        let client_key = verifier.client_key(&message, &last.proof)?;
        Some((verifier, client_key))
    });

    let own_last = format!("c=biws,r={}", upstream.nonce);
    let own_message = format!("{own_bare},{upstream_first},{own_last}");
    // Without the key PostgreSQL is told something, so that it is PostgreSQL that refuses, and has it in its log.
    let proof = match &known {
        Some((verifier, client_key)) => verifier.proof(client_key, &own_message),
        None => rand::rng().random(),
    };
    message::frame(&mut link.upstream.output, b'p', |out| {
        out.put_slice(format!("{own_last},p={}", scram::encoded(&proof)).as_bytes());
    });
    let upstream_last = sasl_from_upstream(link, FINAL).await?;
    let genuine = |verifier: &Verifier| {
        upstream_last.strip_prefix("v=")
            == Some(scram::encoded(&verifier.server_signature(&own_message)).as_str())
    };
    match known {
        Some((verifier, _)) if genuine(&verifier) => {
            let signature = scram::encoded(&verifier.server_signature(&message));
            authentication(&mut link.client.output, FINAL, |out| {
                out.put_slice(format!("v={signature}").as_bytes())
            });
            Ok(())
        }
        _ => Err(unproven(link).await),
    }
}

fn nonce() -> String {
    rand::rng().sample_iter(Alphanumeric).take(24).map(char::from).collect()
}

/// Mechanism and, if it came with it, the client's first message.
fn initial_response(body: &[u8]) -> Result<(&[u8], Option<&[u8]>), message::Malformed> {
    let mut r = Reader::new(body, "SASLInitialResponse");
    let answer = (r.cstr()?, r.value()?);
    r.end()?;
    Ok(answer)
}

fn authentication(out: &mut BytesMut, code: i32, put: impl FnOnce(&mut BytesMut)) {
    message::frame(out, b'R', |out| {
        out.put_i32(code);
        put(out);
    });
}

/// The client's first message behind its header, and the nonce in it; or what PostgreSQL would say of it.
fn begun(client_first: &[u8]) -> Result<(&str, &str), ErrorReport> {
    let text = std::str::from_utf8(client_first).map_err(|_| malformed())?;
    let mut parts = text.splitn(3, ',');
    let (flag, identity) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let bare = parts.next().ok_or_else(malformed)?;
    match flag.strip_prefix("p=") {
        Some("tls-server-end-point") => {}
        Some(other) => {
            let e = format!("unsupported SCRAM channel-binding type \"{other}\"");
            return Err(ErrorReport::fatal("08P01", e));
        }
        None if flag == "n" || flag == "y" => {
            return Err(malformed().detail(format!(
                "The client selected {SCRAM_PLUS}, but the SCRAM message does not include channel binding data."
            )));
        }
        None => return Err(malformed()),
    }
    if identity.starts_with('a') {
        let e = "client uses authorization identity, but it is not supported";
        return Err(ErrorReport::fatal("0A000", e));
    }
    if bare.starts_with('m') {
        return Err(ErrorReport::fatal("0A000", "client requires an unsupported SCRAM extension"));
    }
    let nonce = scram::client_nonce(bare).filter(|_| identity.is_empty()).ok_or_else(malformed)?;
    if !nonce.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) {
        return Err(ErrorReport::fatal("08P01", "non-printable characters in SCRAM nonce"));
    }
    Ok((bare, nonce))
}

fn malformed() -> ErrorReport {
    ErrorReport::fatal("08P01", "malformed SCRAM message")
}

async fn unproven(link: &mut Link) -> LoginEnd {
    let e = ErrorReport::fatal("08006", "PostgreSQL does not prove to the gateway that it knows this login");
    refuse(&mut link.client, e).await
}

/// The text of the next message of the exchange, which must be of this kind.
async fn sasl_from_upstream(link: &mut Link, code: i32) -> Result<String, LoginEnd> {
    let f = next_from_upstream(link).await?;
    let mut body = frame::body(&f);
    if f[0] != b'R' || body.len() < 4 || body.get_i32() != code {
        return Err(unproven(link).await);
    }
    String::from_utf8(body.to_vec()).map_err(protocol)
}

/// The next whole frame from PostgreSQL. Its error is the client's answer, and the end.
async fn next_from_upstream(link: &mut Link) -> Result<BytesMut, LoginEnd> {
    loop {
        if let Some(f) = frame::whole(&link.upstream.input).map_err(protocol)? {
            let (tag, len) = (f[0], f.len());
            let f = link.upstream.input.split_to(len);
            if tag == b'E' {
                link.client.output.extend_from_slice(&f);
                link.client.finish().await;
                return Err(LoginEnd::Closed);
            }
            return Ok(f);
        }
        turn(link).await?;
    }
}

/// The client's next answer.
async fn next_from_client(link: &mut Link) -> Result<BytesMut, LoginEnd> {
    loop {
        if let Some(len) = response_len(link).await? {
            return Ok(link.client.input.split_to(len));
        }
        // PostgreSQL's patience may end while the client thinks.
        if frame::whole(&link.upstream.input).map_err(protocol)?.is_some_and(|f| f[0] == b'E') {
            next_from_upstream(link).await?;
        }
        turn(link).await?;
    }
}

/// The length of the answer at the front of the client's input, once it is whole.
pub(super) async fn response_len(link: &mut Link) -> Result<Option<usize>, LoginEnd> {
    let h = match frame::peek(&link.client.input) {
        Ok(Some(h)) => h,
        Ok(None) => return Ok(None),
        Err(_) => {
            return Err(refuse(&mut link.client, ErrorReport::fatal("08P01", "invalid message length")).await);
        }
    };
    if h.tag != b'p' {
        let e = ErrorReport::fatal("08P01", format!("expected SASL response, got message type {}", h.tag));
        return Err(refuse(&mut link.client, e).await);
    }
    if h.len > MAX_RESPONSE {
        return Err(refuse(&mut link.client, ErrorReport::fatal("08P01", "invalid message length")).await);
    }
    Ok((link.client.input.len() >= h.len).then_some(h.len))
}

/// One turn; either end is the end, once what PostgreSQL said before it was read.
pub(super) async fn turn(link: &mut Link) -> Result<(), LoginEnd> {
    if link.upstream.closed && frame::whole(&link.upstream.input).map_err(protocol)?.is_none() {
        let e = ErrorReport::fatal("08006", "PostgreSQL closed the connection during the login");
        return Err(refuse(&mut link.client, e).await);
    }
    match link.turn().await? {
        Turn::ClientClosed => {
            link.upstream.finish().await;
            Err(LoginEnd::Closed)
        }
        _ => Ok(()),
    }
}
