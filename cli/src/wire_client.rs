//! A small PostgreSQL client that keeps answers as the bytes they arrived in, so that two answers can be
//! compared to the byte and timed without decoding. Protocol 3.0 (PostgreSQL documentation, chapter
//! "Frontend/Backend Protocol"), passwords by SCRAM-SHA-256 or in clear. No TLS, no COPY, no pooling.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::Rng;
use rand::distr::Alphanumeric;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::scram;

/// A frame larger than this is no answer to anything asked here.
const MAX_FRAME: usize = 256 << 20;
/// Answers kept whole for comparison: what is asked here returns hundreds of rows.
const MAX_ANSWER: usize = 256 << 20;

/// Where and as whom to log in.
#[derive(Clone, Debug)]
pub struct Target {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: String,
    pub database: String,
}

/// One session.
pub struct Client {
    stream: BufReader<TcpStream>,
}

/// The answer to one statement, undecoded.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Body of RowDescription; empty for a statement without rows.
    pub columns: Vec<u8>,
    /// Bodies of the DataRow frames, in order.
    pub rows: Vec<Vec<u8>>,
    /// Command tags, e.g. `SELECT 8`.
    pub tag: String,
    /// From the first byte sent to the last frame received.
    pub took: Duration,
}

/// An ErrorResponse.
#[derive(Debug)]
pub struct ServerError {
    pub sqlstate: String,
    pub message: String,
    pub hint: Option<String>,
}

impl std::fmt::Display for ServerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.sqlstate)?;
        self.hint.as_deref().map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}

impl std::error::Error for ServerError {}

impl Client {
    pub async fn connect(target: &Target) -> Result<Client> {
        let address = format!("{}:{}", target.host, target.port);
        let stream = TcpStream::connect((target.host.as_str(), target.port))
            .await
            .with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        let mut client = Client { stream: BufReader::with_capacity(64 << 10, stream) };
        client.log_in(target).await.with_context(|| format!("log in to {address} as {}", target.user))?;
        Ok(client)
    }

    async fn log_in(&mut self, target: &Target) -> Result<()> {
        let mut startup = 196_608u32.to_be_bytes().to_vec();
        for text in ["user", &target.user, "database", &target.database, "application_name", "watershed", ""]
        {
            startup.extend_from_slice(text.as_bytes());
            startup.push(0);
        }
        let mut frame = ((startup.len() + 4) as u32).to_be_bytes().to_vec();
        frame.extend_from_slice(&startup);
        self.stream.write_all(&frame).await?;

        let mut login = None;
        let mut proof: Option<scram::ServerProof> = None;
        loop {
            let (tag, body) = self.receive().await?;
            match tag {
                b'R' => match (be_u32(&body)?, body.get(4..).unwrap_or_default()) {
                    (0, _) => {}
                    (3, _) => self.send(b'p', &c_string(&target.password)).await?,
                    (10, mechanisms) => {
                        if !mechanisms.split(|b| *b == 0).any(|name| name == b"SCRAM-SHA-256") {
                            bail!("the server offers no SCRAM-SHA-256");
                        }
                        let nonce: String =
                            rand::rng().sample_iter(Alphanumeric).take(24).map(char::from).collect();
                        let started = scram::Login::new(&target.password, nonce);
                        let first = started.first();
                        let mut body = c_string("SCRAM-SHA-256");
                        body.extend_from_slice(&(first.len() as u32).to_be_bytes());
                        body.extend_from_slice(first.as_bytes());
                        self.send(b'p', &body).await?;
                        login = Some(started);
                    }
                    (11, server_first) => {
                        let (answer, expected) = login
                            .take()
                            .and_then(|started: scram::Login| {
                                started.last(std::str::from_utf8(server_first).ok()?)
                            })
                            .context("the server's SCRAM message does not fit ours")?;
                        self.send(b'p', answer.as_bytes()).await?;
                        proof = Some(expected);
                    }
                    (12, server_final) => {
                        let genuine = std::str::from_utf8(server_final)
                            .is_ok_and(|text| proof.as_ref().is_some_and(|expected| expected.holds(text)));
                        if !genuine {
                            bail!("the server does not know the password it asks for");
                        }
                    }
                    (method, _) => bail!("the server wants login method {method}, which is not spoken here"),
                },
                b'E' => return Err(error_response(&body).into()),
                b'Z' => return Ok(()),
                _ => {}
            }
        }
    }

    /// Runs one statement by the simple protocol (values as text).
    pub async fn simple(&mut self, sql: &str) -> Result<Answer> {
        let start = Instant::now();
        self.send(b'Q', &c_string(sql)).await?;
        self.answer(start).await
    }

    /// Runs one statement without parameters by the extended protocol, asking for binary values.
    pub async fn binary(&mut self, sql: &str) -> Result<Answer> {
        self.extended(sql, &[], true).await
    }

    /// Runs one statement by the extended protocol. Parameters have a type and a value as text, or NULL.
    pub async fn extended(&mut self, sql: &str, parameters: &[(u32, Option<&str>)], binary: bool) -> Result<Answer> {
        let start = Instant::now();
        let count = u16::try_from(parameters.len()).context("too many parameters")?.to_be_bytes();
        let mut out = Vec::with_capacity(sql.len() + 64);
        let mut parse = vec![0];
        parse.extend_from_slice(&c_string(sql));
        parse.extend_from_slice(&count);
        parse.extend(parameters.iter().flat_map(|(oid, _)| oid.to_be_bytes()));
        frame(&mut out, b'P', &parse);
        // Unnamed portal and statement; parameters as text, one format code for all columns.
        let mut bind = vec![0, 0, 0, 0];
        bind.extend_from_slice(&count);
        for (_, value) in parameters {
            let length = value.map_or(-1, |value| value.len() as i32);
            bind.extend_from_slice(&length.to_be_bytes());
            bind.extend_from_slice(value.unwrap_or_default().as_bytes());
        }
        bind.extend_from_slice(&[0, 1, 0, u8::from(binary)]);
        frame(&mut out, b'B', &bind);
        frame(&mut out, b'D', &[b'P', 0]);
        frame(&mut out, b'E', &[0, 0, 0, 0, 0]);
        frame(&mut out, b'S', &[]);
        self.stream.write_all(&out).await?;
        self.answer(start).await
    }

    /// Reads frames up to ReadyForQuery; the first error is the result.
    async fn answer(&mut self, start: Instant) -> Result<Answer> {
        let mut answer = Answer::default();
        let mut failed = None;
        let mut held = 0;
        loop {
            let (tag, body) = self.receive().await?;
            match tag {
                b'T' => answer.columns = body,
                b'D' => {
                    held += body.len();
                    if held > MAX_ANSWER {
                        bail!("the answer is larger than {} MiB", MAX_ANSWER >> 20);
                    }
                    answer.rows.push(body);
                }
                b'C' => {
                    answer.tag =
                        String::from_utf8_lossy(body.strip_suffix(&[0]).unwrap_or(&body)).into_owned();
                }
                b'E' if failed.is_none() => failed = Some(error_response(&body)),
                b'Z' => break,
                _ => {}
            }
        }
        answer.took = start.elapsed();
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(answer),
        }
    }

    async fn send(&mut self, tag: u8, body: &[u8]) -> Result<()> {
        let mut out = Vec::with_capacity(body.len() + 5);
        frame(&mut out, tag, body);
        Ok(self.stream.write_all(&out).await?)
    }

    /// Not cancel safe: a frame read in part is lost with the session.
    async fn receive(&mut self) -> Result<(u8, Vec<u8>)> {
        let tag = self.stream.read_u8().await.context("the server closed the connection")?;
        let length = self.stream.read_u32().await? as usize;
        if !(4..=MAX_FRAME).contains(&length) {
            bail!("a frame of {length} bytes is not PostgreSQL's protocol");
        }
        let mut body = vec![0; length - 4];
        self.stream.read_exact(&mut body).await?;
        Ok((tag, body))
    }
}

impl Answer {
    /// Whether both answers are the same bytes: column names and types, values, order, tag.
    pub fn equals(&self, other: &Answer) -> bool {
        self.columns == other.columns && self.rows == other.rows && self.tag == other.tag
    }

    pub fn column_names(&self) -> Vec<String> {
        self.columns_with_types().into_iter().map(|(name, _)| name).collect()
    }

    /// The columns' names and the OIDs of their types.
    pub fn columns_with_types(&self) -> Vec<(String, u32)> {
        let mut columns = Vec::new();
        let mut rest = self.columns.get(2..).unwrap_or_default();
        while let Some(end) = rest.iter().position(|b| *b == 0) {
            // table oid 4, attribute 2, type oid 4, size 2, typmod 4, format 2
            let type_oid = rest.get(end + 7..).and_then(|after| be_u32(after).ok()).unwrap_or_default();
            columns.push((String::from_utf8_lossy(&rest[..end]).into_owned(), type_oid));
            rest = rest.get(end + 19..).unwrap_or_default();
        }
        columns
    }

    /// Values of text-format rows; None is NULL.
    pub fn text(&self) -> Result<Vec<Vec<Option<String>>>> {
        self.rows.iter().map(|row| text_row(row).context("a DataRow frame is cut short")).collect()
    }
}

fn text_row(row: &[u8]) -> Option<Vec<Option<String>>> {
    let count = u16::from_be_bytes(row.get(..2)?.try_into().ok()?);
    let mut rest = &row[2..];
    let mut values = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let (length, after) = rest.split_first_chunk::<4>()?;
        rest = after;
        match usize::try_from(i32::from_be_bytes(*length)) {
            Err(_) => values.push(None),
            Ok(length) => {
                let (value, after) = rest.split_at_checked(length)?;
                values.push(Some(String::from_utf8_lossy(value).into_owned()));
                rest = after;
            }
        }
    }
    Some(values)
}

fn frame(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    out.push(tag);
    out.extend_from_slice(&((body.len() + 4) as u32).to_be_bytes());
    out.extend_from_slice(body);
}

fn c_string(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

fn be_u32(body: &[u8]) -> Result<u32> {
    body.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes)).context("a frame is cut short")
}

fn error_response(body: &[u8]) -> ServerError {
    let mut error =
        ServerError { sqlstate: "XX000".into(), message: "an error without a message".into(), hint: None };
    for field in body.split(|b| *b == 0) {
        let Some((kind, text)) = field.split_first() else { continue };
        let text = String::from_utf8_lossy(text).into_owned();
        match kind {
            b'C' => error.sqlstate = text,
            b'M' => error.message = text,
            b'H' => error.hint = Some(text),
            _ => {}
        }
    }
    error
}

#[cfg(test)]
mod tests;
