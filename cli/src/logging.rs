//! The log: one event, one line on standard error, as text or (`--log-format json`, `WATERSHED_LOG_FORMAT=json`) as JSON. What a client
//! can cause again and again is said a few times and then counted: each place in the code that logs has a bucket of its own.
//! Knows no service; what is worth an event is said where it happens.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::time::Instant;

use clap::ValueEnum;
use tracing::callsite::Identifier;
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt};

/// How events are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Events of one place at once, and how many a second after that.
const BURST: f64 = 50.0;
const A_SECOND: f64 = 5.0;

/// `WATERSHED_LOG` (or `RUST_LOG`) filters.
pub fn start(format: Format) {
    let filter = std::env::var("WATERSHED_LOG")
        .or_else(|_| std::env::var("RUST_LOG"))
        .unwrap_or_else(|_| "warn,watershed=info,hdfs_native=error,opentelemetry=error".into());
    let filter = EnvFilter::try_new(&filter).unwrap_or_else(|_| EnvFilter::new("warn"));
    let ansi = io::stderr().is_terminal();
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        Format::Text => Box::new(fmt::layer().with_ansi(ansi).with_writer(|| OneLine(io::stderr()))),
        Format::Json => Box::new(fmt::layer().json().flatten_event(true).with_writer(|| OneLine(io::stderr()))),
    };
    tracing_subscriber::registry().with(lines).with(Limited { json: format == Format::Json, ..Limited::default() }).with(filter).init();
}

/// An event is written by one call, with one line end: any other would let a client write lines of its own into the log.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.write_all(&one_line(event))?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn one_line(event: &[u8]) -> Vec<u8> {
    let (body, end) = match event.strip_suffix(b"\n") {
        Some(body) => (body, true),
        None => (event, false),
    };
    let mut out = Vec::with_capacity(event.len() + 1);
    for byte in body {
        match byte {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            // The colours of a terminal are the formatter's own, which escapes those of others.
            byte => out.push(*byte),
        }
    }
    if end {
        out.push(b'\n');
    }
    out
}

/// Keeps back what one place says too often.
#[derive(Default)]
struct Limited {
    json: bool,
    /// As many as there are places that log.
    places: Mutex<HashMap<Identifier, Bucket>>,
}

/// Tokens, and what they were at.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
    kept_back: u64,
}

impl Bucket {
    fn new(now: Instant) -> Bucket {
        Bucket { left: BURST, at: now, kept_back: 0 }
    }

    /// Whether one more may be said now, and how many were not since the last.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * A_SECOND).min(BURST);
        self.at = now;
        if self.left < 1.0 {
            self.kept_back += 1;
            return None;
        }
        self.left -= 1.0;
        Some(std::mem::take(&mut self.kept_back))
    }
}

impl<S: Subscriber> Layer<S> for Limited {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        let taken = {
            // A panic elsewhere must not end the log.
            let mut places = self.places.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            places.entry(metadata.callsite()).or_insert_with(|| Bucket::new(Instant::now())).take(Instant::now())
        };
        match taken {
            Some(0) => true,
            Some(kept_back) => {
                // Not through the log itself, which is at work on this event.
                let line = match self.json {
                    true => format!("{{\"level\":\"WARN\",\"message\":\"more like the next line were not written\",\"events\":{kept_back}}}\n"),
                    false => format!("{kept_back} more like the next line were not written\n"),
                };
                // Nobody to tell that it cannot be written.
                let _ = io::stderr().lock().write_all(line.as_bytes());
                true
            }
            None => {
                gauges::describe("watershed_log_suppressed_total", "Events that were not written to the log, since the same place said too many.");
                gauges::counter("watershed_log_suppressed_total", &[]).inc();
                false
            }
        }
    }
}

#[cfg(test)]
mod tests;
