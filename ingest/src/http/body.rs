//! Bodies of requests: read and unpacked within bounds of size, time and memory. Knows no formats.
//!
//! A body is read before its request gets a turn, so that slow senders hold no turn. What all bodies under way hold
//! together is bounded: each takes room as it grows, and one that finds none in time is told to come again.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Config, away, problem};
use crate::decode::input::Compression;

/// Room is given in pieces of this many bytes.
const PIECE: usize = 64 * 1024;

/// The room for all bodies, and how long one may wait for it.
#[derive(Debug)]
pub struct Room {
    pieces: Arc<Semaphore>,
    readers: Arc<Semaphore>,
    patience: Duration,
    timeout: Duration,
    max: usize,
}

/// A whole body. Its room is free again when it is dropped.
#[derive(Debug)]
pub struct Packed {
    bytes: Vec<u8>,
    encoding: Option<String>,
    _held: Vec<OwnedSemaphorePermit>,
}

impl Room {
    pub fn new(config: &Config) -> Room {
        let bodies = config.concurrency.max(1) + 1;
        let pieces = config.max_body_bytes.div_ceil(PIECE).saturating_add(1).saturating_mul(bodies);
        Room {
            pieces: Arc::new(Semaphore::new(pieces.min(Semaphore::MAX_PERMITS))),
            readers: Arc::new(Semaphore::new(config.max_readers.clamp(1, Semaphore::MAX_PERMITS))),
            patience: config.patience,
            timeout: config.body_timeout,
            max: config.max_body_bytes,
        }
    }

    /// Reads the body of a request.
    ///
    /// # Errors
    /// The answer to give: too large, too slow, broken off, or no room now.
    pub async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Packed, Response> {
        let announced =
            headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|n| n > self.max as u64) {
            return Err(too_large(self.max));
        }
        let busy = || away("too many requests at once");
        let reader = tokio::time::timeout(self.patience, self.readers.clone().acquire_owned()).await;
        // Held while reading; the semaphore is never closed.
        let Ok(Ok(_reader)) = reader else { return Err(busy()) };
        let encoding = headers.get(header::CONTENT_ENCODING).and_then(|v| v.to_str().ok()).map(str::to_owned);
        match tokio::time::timeout(self.timeout, self.collect(body)).await {
            Ok(Ok((bytes, held))) => Ok(Packed { bytes, encoding, _held: held }),
            Ok(Err(answer)) => Err(answer),
            Err(_) => Err(problem(StatusCode::REQUEST_TIMEOUT, "the body took too long to arrive")),
        }
    }

    async fn collect(&self, body: Body) -> Result<(Vec<u8>, Vec<OwnedSemaphorePermit>), Response> {
        let mut stream = body.into_data_stream();
        let (mut all, mut held, mut pieces) = (Vec::new(), Vec::new(), 0);
        while let Some(chunk) = stream.next().await {
            let chunk =
                chunk.map_err(|e| problem(StatusCode::BAD_REQUEST, format!("the body broke off: {e}")))?;
            if all.len() + chunk.len() > self.max {
                return Err(too_large(self.max));
            }
            let wanted = (all.len() + chunk.len()).div_ceil(PIECE);
            if wanted > pieces {
                let more = (wanted - pieces) as u32; // at most the body's bound in pieces
                let room = self.pieces.clone().acquire_many_owned(more);
                match tokio::time::timeout(self.patience, room).await {
                    Ok(Ok(permit)) => held.push(permit),
                    _ => return Err(away("too much is being sent at once")),
                }
                pieces = wanted;
            }
            all.extend_from_slice(&chunk);
        }
        Ok((all, held))
    }
}

pub fn too_large(max: usize) -> Response {
    problem(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {max} bytes; send it in parts"))
}

impl Packed {
    /// The body itself. Unpacking stops at `max` bytes, whatever the body would make. Blocks.
    ///
    /// # Errors
    /// The answer to give: larger than `max`, broken, or packed in an unknown way.
    pub fn unpack(self, max: usize) -> Result<Vec<u8>, Box<Response>> {
        let compression = match self.encoding.as_deref().map(|e| e.trim().to_ascii_lowercase()).as_deref() {
            None | Some("" | "identity") => return Ok(self.bytes),
            Some("gzip" | "x-gzip") => Compression::Gzip,
            Some("zstd") => Compression::Zstd,
            Some("deflate") => return inflate(&self.bytes, max),
            Some(other) => {
                return Err(Box::new(problem(
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    format!("Content-Encoding {other:?} is not known; use gzip, zstd or deflate"),
                )));
            }
        };
        let reader = compression.decoder(std::io::Cursor::new(self.bytes)).map_err(broken)?;
        bounded(reader, max)
    }
}

fn broken(e: std::io::Error) -> Box<Response> {
    Box::new(problem(StatusCode::BAD_REQUEST, format!("the body cannot be unpacked: {e}")))
}

fn bounded(reader: impl Read, max: usize) -> Result<Vec<u8>, Box<Response>> {
    let mut out = Vec::new();
    reader.take(max as u64 + 1).read_to_end(&mut out).map_err(broken)?;
    if out.len() > max { Err(Box::new(too_large(max))) } else { Ok(out) }
}

/// `deflate` means the zlib format; some send the bare one.
fn inflate(bytes: &[u8], max: usize) -> Result<Vec<u8>, Box<Response>> {
    // A zlib header: method 8, and a checksum over both bytes.
    let zlib = matches!(bytes, [a, b, ..] if a & 0x0f == 8 && (u16::from(*a) << 8 | u16::from(*b)) % 31 == 0);
    if zlib {
        bounded(flate2::read::ZlibDecoder::new(bytes), max)
    } else {
        bounded(flate2::read::DeflateDecoder::new(bytes), max)
    }
}
