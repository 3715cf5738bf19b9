//! Records to the HTTP door: batches of NDJSON, each under an Idempotency-Key, so that a batch whose answer was lost is
//! sent again and adds nothing the second time.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Client, StatusCode, Url, header};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::mix::Pace;
use super::{Counts, Error, Kind, Mix, Result, Spec};

/// A batch is sent at this size even if it has fewer records than asked for.
const BATCH_BYTES: usize = 4 << 20;
/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long a batch is tried again while the server is away or has too much to do.
const PATIENCE: Duration = Duration::from_secs(120);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// What the server did with the records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Answered {
    pub accepted: u64,
    pub rejected: u64,
    /// Requests that were sent again.
    pub retries: u64,
}

impl std::ops::AddAssign for Answered {
    fn add_assign(&mut self, other: Answered) {
        self.accepted += other.accepted;
        self.rejected += other.rejected;
        self.retries += other.retries;
    }
}

/// A client of one HTTP door.
pub struct Sink {
    client: Client,
    base: Url,
    token: Option<String>,
}

impl Sink {
    /// A client of the door at `base`, such as `http://127.0.0.1:8432`.
    ///
    /// # Errors
    /// No such URL.
    pub fn new(base: &str, token: Option<String>) -> Result<Sink> {
        let wrong = || Error::Http(format!("{base} is no URL such as http://127.0.0.1:8432"));
        let mut base_url = Url::parse(base).map_err(|_| wrong())?;
        if !["http", "https"].contains(&base_url.scheme()) || base_url.cannot_be_a_base() {
            return Err(wrong());
        }
        if !base_url.path().ends_with('/') {
            base_url.set_path(&format!("{}/", base_url.path()));
        }
        let client = Client::builder().timeout(TIMEOUT).build().map_err(http)?;
        Ok(Sink { client, base: base_url, token })
    }

    /// Sends one batch until it is answered for good.
    ///
    /// # Errors
    /// The server refuses the request as such, or is away for longer than two minutes.
    pub async fn send(&self, kind: Kind, key: &str, body: Bytes) -> Result<Answered> {
        let url =
            self.base.join(&format!("v1/ingest/{}", kind.table())).map_err(|e| Error::Http(e.to_string()))?;
        let deadline = Instant::now() + PATIENCE;
        let mut pause = Duration::from_millis(100);
        let mut retries = 0;
        loop {
            let mut request = self
                .client
                .post(url.clone())
                .header(header::CONTENT_TYPE, "application/x-ndjson")
                .header("idempotency-key", key)
                .body(body.clone());
            if let Some(token) = &self.token {
                request = request.bearer_auth(token);
            }
            let (why, wait) = match request.send().await {
                Ok(response) => match answer(response).await? {
                    Ok(answered) => return Ok(Answered { retries, ..answered }),
                    Err(again) => again,
                },
                Err(error) => (describe(&error), None),
            };
            if Instant::now() > deadline {
                return Err(Error::Http(why));
            }
            tracing::debug!(why, "a batch is sent again");
            retries += 1;
            tokio::time::sleep(wait.unwrap_or(pause).min(MAX_PAUSE)).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }
}

type Again = (String, Option<Duration>);

/// An answer for good, or why and when to come again.
async fn answer(response: reqwest::Response) -> Result<std::result::Result<Answered, Again>> {
    let status = response.status();
    let wait = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|v| v.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    let text = match response.text().await {
        Ok(text) => text,
        // The answer broke off: the key tells the next try apart.
        Err(error) => return Ok(Err((describe(&error), None))),
    };
    let body: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    let said = |name: &str| body.as_ref().and_then(|b| b[name].as_u64());
    if status.is_success() {
        let (Some(accepted), Some(rejected)) = (said("accepted"), said("rejected")) else {
            return Err(Error::Http(format!("an answer that is none of the HTTP door: {}", head(&text))));
        };
        return Ok(Ok(Answered { accepted, rejected, retries: 0 }));
    }
    let why = body.as_ref().and_then(|b| b["error"].as_str()).unwrap_or(&text);
    let why = format!("{status}: {}", head(why));
    let later = status.is_server_error()
        || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT, StatusCode::CONFLICT]
            .contains(&status);
    if later { Ok(Err((why, wait))) } else { Err(Error::Http(why)) }
}

fn head(text: &str) -> String {
    text.chars().take(300).collect()
}

/// reqwest's own text leaves the cause to be asked for.
fn describe(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(e) = cause {
        text = format!("{text}: {e}");
        cause = e.source();
    }
    text
}

fn http(error: reqwest::Error) -> Error {
    Error::Http(describe(&error))
}

/// Records of one table on their way to be a request.
#[derive(Default)]
struct Batch {
    body: Vec<u8>,
    records: usize,
    /// Batches sent before.
    number: u64,
}

/// Sends all records of `specs` in batches of `batch` records, at most `rate` records a second. The same specs and batch
/// size give the same keys, so that the same call again adds nothing while the server remembers them.
///
/// # Errors
/// As [`Sink::send`]; [`Error::Cancelled`].
pub async fn send_all(
    sink: &Sink,
    specs: &[Spec],
    batch: usize,
    rate: Option<u64>,
    stop: &CancellationToken,
) -> Result<(Counts, Answered)> {
    let mut named = Sha256::new();
    for spec in specs {
        named.update(format!("{} {} ", spec.identity(), spec.end));
    }
    named.update(batch.to_string());
    let run = hex::encode(&named.finalize()[..12]);
    let mut mix = Mix::new(specs);
    let pace = Pace::new(rate);
    let (mut logs, mut events) = (Batch::default(), Batch::default());
    let mut answered = Answered::default();
    let mut sent = 0u64;
    loop {
        let Some((kind, line)) = mix.next_line() else { break };
        let open = match kind {
            Kind::Logs => &mut logs,
            Kind::Events => &mut events,
        };
        open.body.extend_from_slice(line.bytes);
        open.body.push(b'\n');
        open.records += 1;
        sent += 1;
        if open.records >= batch || open.body.len() >= BATCH_BYTES {
            answered += deliver(sink, kind, &run, open).await?;
            if stop.is_cancelled() {
                return Err(Error::Cancelled(mix.counts()));
            }
            if let Some(ahead) = pace.ahead(sent) {
                tokio::time::sleep(ahead).await;
            }
        }
    }
    for (kind, open) in [(Kind::Logs, &mut logs), (Kind::Events, &mut events)] {
        if open.records > 0 {
            answered += deliver(sink, kind, &run, open).await?;
        }
    }
    Ok((mix.counts(), answered))
}

async fn deliver(sink: &Sink, kind: Kind, run: &str, batch: &mut Batch) -> Result<Answered> {
    let key = format!("generate-{run}-{}-{}", kind.table(), batch.number);
    let size = batch.body.len();
    let body = std::mem::replace(&mut batch.body, Vec::with_capacity(size));
    batch.records = 0;
    batch.number += 1;
    sink.send(kind, &key, Bytes::from(body)).await
}
