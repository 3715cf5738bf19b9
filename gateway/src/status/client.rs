//! A session of the gateway itself, over its own wire: one statement at a time by the extended protocol, values as text, as many rows as
//! are wanted. Whoever logs in so has shown a password: a server that asks for none is not believed.
//! ✗ pages, what is asked.

use crate::wire::message::{self, Fields};
use crate::wire::scram::{self, ServerFirst, hmac, salted_password};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Buf, BytesMut};
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A longer message is no answer to anything asked here.
const MAX_FRAME: usize = 64 << 20;
/// More iterations than any sane server asks for.
const MAX_ITERATIONS: u32 = 1_000_000;
/// How long a login may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum ClientError {
    /// PostgreSQL's error, or the gateway's.
    #[error("{message}")]
    Server { sqlstate: String, message: String, detail: Option<String>, hint: Option<String> },
    /// The session is over.
    #[error("{0}")]
    Broken(String),
}

impl ClientError {
    /// The error's SQLSTATE, if it has one.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            ClientError::Server { sqlstate, .. } => Some(sqlstate),
            ClientError::Broken(_) => None,
        }
    }
}

fn broken(e: impl ToString) -> ClientError {
    ClientError::Broken(e.to_string())
}

/// What is kept of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Rows that are asked for; 0: all.
    pub rows: u32,
    /// Bytes that are kept of them.
    pub bytes: usize,
}

/// An answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Names and type OIDs.
    pub columns: Vec<(String, u32)>,
    pub rows: Vec<Vec<Option<String>>>,
    pub tag: String,
    /// There is more than is here.
    pub more: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    input: BytesMut,
    /// PostgreSQL's process.
    pub pid: i32,
    /// A question is under way: whoever asked it has not heard the end.
    busy: bool,
}

impl Client {
    /// Logs in. `settings` go into the startup packet.
    ///
    /// Errors: the gateway's or PostgreSQL's refusal; the server asks for no password.
    pub async fn connect(
        at: SocketAddr,
        user: &str,
        password: &str,
        database: &str,
        settings: &[(&str, &str)],
    ) -> Result<Client, ClientError> {
        let connected = async {
            let stream = TcpStream::connect(at).await.map_err(broken)?;
            let _ = stream.set_nodelay(true);
            let mut client = Client { stream, input: BytesMut::new(), pid: 0, busy: false };
            client.log_in(user, password, database, settings).await?;
            Ok(client)
        };
        tokio::time::timeout(PATIENCE, connected).await.map_err(|_| broken("the login took too long"))?
    }

    async fn log_in(&mut self, user: &str, password: &str, database: &str, settings: &[(&str, &str)]) -> Result<(), ClientError> {
        let mut startup = 196_608u32.to_be_bytes().to_vec();
        for (name, value) in [("user", user), ("database", database)].iter().chain(settings) {
            if name.contains('\0') || value.contains('\0') {
                return Err(broken("a name has a NUL in it"));
            }
            startup.extend_from_slice(name.as_bytes());
            startup.push(0);
            startup.extend_from_slice(value.as_bytes());
            startup.push(0);
        }
        startup.push(0);
        let mut out = BytesMut::new();
        out.extend_from_slice(&(startup.len() as u32 + 4).to_be_bytes());
        out.extend_from_slice(&startup);
        self.send(&out).await?;
        let mut exchange: Option<Exchange> = None;
        let mut proven = false;
        loop {
            let (tag, body) = self.frame().await?;
            match tag {
                b'R' => {
                    let method = body.first_chunk::<4>().map(|b| u32::from_be_bytes(*b));
                    let rest = body.get(4..).unwrap_or_default();
                    match method {
                        Some(0) if proven => {}
                        Some(0) => return Err(broken("the server asked for no password")),
                        Some(3) => {
                            // In the clear, within this machine: as PostgreSQL wants it.
                            let mut answer = password.as_bytes().to_vec();
                            answer.push(0);
                            self.password(&answer).await?;
                            proven = true;
                        }
                        Some(10) if rest.split(|b| *b == 0).any(|name| name == scram::SCRAM.as_bytes()) => {
                            let begun = Exchange::new(password);
                            let first = format!("n,,{}", begun.first);
                            let mut answer = scram::SCRAM.as_bytes().to_vec();
                            answer.push(0);
                            answer.extend_from_slice(&(first.len() as u32).to_be_bytes());
                            answer.extend_from_slice(first.as_bytes());
                            self.password(&answer).await?;
                            exchange = Some(begun);
                        }
                        Some(11) => {
                            let text = std::str::from_utf8(rest).map_err(broken)?;
                            let begun = exchange.as_mut().ok_or_else(|| broken("a SCRAM message out of turn"))?;
                            let last = begun.last(text).ok_or_else(|| broken("the server's SCRAM message does not fit"))?;
                            self.password(last.as_bytes()).await?;
                        }
                        Some(12) => {
                            let signed = exchange.as_ref().is_some_and(|e| !e.expected.is_empty() && rest == e.expected.as_bytes());
                            if !signed {
                                return Err(broken("the server does not know the password that it asks for"));
                            }
                            proven = true;
                        }
                        _ => return Err(broken("the server wants a kind of login that is not spoken here")),
                    }
                }
                b'K' => self.pid = body.first_chunk::<4>().map_or(0, |b| i32::from_be_bytes(*b)),
                b'E' => return Err(server_error(&body)),
                b'Z' => return Ok(()),
                _ => {}
            }
        }
    }

    async fn password(&mut self, answer: &[u8]) -> Result<(), ClientError> {
        let mut out = BytesMut::new();
        message::frame(&mut out, b'p', |out| out.extend_from_slice(answer));
        self.send(&out).await
    }

    /// Asks one statement. Not cancel safe: a client whose question was dropped answers no other.
    ///
    /// Errors: the server's, after which the session goes on; or the session's end.
    pub async fn ask(&mut self, sql: &str, bounds: Bounds) -> Result<Answer, ClientError> {
        if std::mem::replace(&mut self.busy, true) {
            return Err(broken("the session was left in the middle of a question"));
        }
        if sql.contains('\0') {
            self.busy = false;
            return Err(ClientError::Server {
                sqlstate: "22021".into(),
                message: "a statement has no NUL in it".into(),
                detail: None,
                hint: None,
            });
        }
        let mut out = BytesMut::new();
        message::put_parse(&mut out, b"", sql.as_bytes(), &[]);
        message::put_bind(&mut out, b"", b"", &[], &[], &[]);
        message::put_describe(&mut out, b'P', b"");
        message::put_execute(&mut out, b"", bounds.rows.min(i32::MAX as u32) as i32);
        message::put_close(&mut out, b'P', b"");
        message::put_sync(&mut out);
        self.send(&out).await?;
        let (mut answer, mut failed, mut kept) = (Answer::default(), None, 0);
        loop {
            let (tag, body) = self.frame().await?;
            match tag {
                b'T' => {
                    let fields = message::row_description(&body).map_err(broken)?;
                    answer.columns = fields.iter().map(|f| (String::from_utf8_lossy(&f.name).into_owned(), f.type_oid)).collect();
                }
                b'D' => {
                    kept += body.len();
                    if kept > bounds.bytes {
                        answer.more = true;
                        continue;
                    }
                    let values = message::data_row(&body).map_err(broken)?;
                    answer.rows.push(values.into_iter().map(|v| v.map(|v| String::from_utf8_lossy(v).into_owned())).collect());
                }
                b'C' => answer.tag = String::from_utf8_lossy(body.strip_suffix(&[0]).unwrap_or(&body)).into_owned(),
                b's' => answer.more = true,
                b'E' => {
                    failed.get_or_insert_with(|| server_error(&body));
                }
                // Nothing can be copied here.
                b'G' | b'W' => {
                    let mut out = BytesMut::new();
                    message::frame(&mut out, b'f', |out| out.extend_from_slice(b"no data\0"));
                    message::put_sync(&mut out);
                    self.send(&out).await?;
                }
                b'Z' => break,
                _ => {}
            }
        }
        self.busy = false;
        failed.map_or(Ok(answer), Err)
    }

    /// Whether another question may be asked.
    pub fn is_whole(&self) -> bool {
        !self.busy
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.stream.write_all(bytes).await.map_err(broken)
    }

    async fn frame(&mut self) -> Result<(u8, BytesMut), ClientError> {
        loop {
            if let Some(head) = self.input.first_chunk::<5>() {
                let (tag, length) = (head[0], u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize);
                if !(4..=MAX_FRAME).contains(&length) {
                    return Err(broken("a message that is too long"));
                }
                if self.input.len() > length {
                    let mut whole = self.input.split_to(length + 1);
                    whole.advance(5);
                    return Ok((tag, whole));
                }
            }
            if self.stream.read_buf(&mut self.input).await.map_err(broken)? == 0 {
                return Err(broken("the gateway closed the session"));
            }
        }
    }
}

/// The client's half of SCRAM-SHA-256 (RFC 5802), without channel binding: there is no channel but this machine.
struct Exchange {
    password: String,
    nonce: String,
    /// The first message without its header.
    first: String,
    /// What the server must answer in the end.
    expected: String,
}

impl Exchange {
    fn new(password: &str) -> Exchange {
        let nonce = BASE64.encode(rand::random::<[u8; 18]>());
        // PostgreSQL takes the user from the startup packet.
        Exchange { password: password.to_owned(), first: format!("n=,r={nonce}"), nonce, expected: String::new() }
    }

    fn last(&mut self, server_first: &str) -> Option<String> {
        let read = ServerFirst::read(server_first)?;
        let salt = BASE64.decode(read.salt).ok()?;
        if !read.nonce.starts_with(&self.nonce) || read.nonce.len() == self.nonce.len() || read.iterations > MAX_ITERATIONS {
            return None;
        }
        let without_proof = format!("c=biws,r={}", read.nonce);
        let message = format!("{},{server_first},{without_proof}", self.first);
        let salted = salted_password(&self.password, &salt, read.iterations);
        let client_key = hmac(&salted, b"Client Key");
        let signature = hmac(&Sha256::digest(client_key), message.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, sign)| key ^ sign).collect();
        self.expected = format!("v={}", scram::encoded(&hmac(&hmac(&salted, b"Server Key"), message.as_bytes())));
        Some(format!("{without_proof},p={}", scram::encoded(&proof)))
    }
}

fn server_error(body: &[u8]) -> ClientError {
    match Fields::read(body) {
        Ok(fields) => {
            let some = |code: u8| Some(fields.text(code)).filter(|text| !text.is_empty()).map(str::to_owned);
            ClientError::Server {
                sqlstate: fields.text(b'C').to_owned(),
                message: fields.text(b'M').to_owned(),
                detail: some(b'D'),
                hint: some(b'H'),
            }
        }
        Err(e) => broken(e),
    }
}
