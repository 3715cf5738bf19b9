//! Realistic records from a seed: log lines of fifteen services ([`logs`]) and the sessions of many users ([`events`]), with
//! late, duplicated and bad ones at a rate. Knows no tables; where records go is the business of the sinks below.
//!
//! Record i depends only on the seed, the shape of the whole ([`Spec`]) and i, so any part can be made again, and the bytes
//! are the same whatever the sink and however many are asked for at once. What records have in common (a session, a burst,
//! an incident) is planned for a block of [`BLOCK`] records at a time.

mod bad;
pub mod control;
mod events;
pub mod http;
pub mod kafka;
mod logs;
mod mix;
mod random;
mod rhythm;

use std::borrow::Cow;
use std::io::{self, Write};

use sha2::{Digest, Sha256};

use crate::decode::time::{self, DAY, SECOND};
use crate::decode::{EVENT_TIME, Field, Record, Value};
use crate::sink::push_decimal;
use events::Event;
use logs::Log;
pub use mix::Mix;
use random::{For, Random};
use rhythm::Rhythm;

/// Result of the sinks.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why generated records did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The producer cannot be made, or a message not be sent.
    #[error("Kafka: {0}")]
    Kafka(String),
    /// Messages that the broker did not take.
    #[error("Kafka: {failed} messages were given up and {waiting} are not acknowledged; last: {why}")]
    Undelivered { failed: u64, waiting: u64, why: String },
    /// The HTTP door refuses, or is away.
    #[error("HTTP: {0}")]
    Http(String),
    /// Asked to stop, after these records.
    #[error("interrupted after {} records", .0.records())]
    Cancelled(Counts),
}

/// Records that are planned together. A power of two.
const BLOCK: u64 = 4096;

/// Which standard table the records are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Logs,
    Events,
}

impl Kind {
    /// The table's name without its schema.
    pub fn table(self) -> &'static str {
        match self {
            Kind::Logs => "logs",
            Kind::Events => "events",
        }
    }

    /// The topic that feeds the table by default.
    pub fn topic(self) -> &'static str {
        match self {
            Kind::Logs => "logs.raw",
            Kind::Events => "events.raw",
        }
    }
}

/// What to generate.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    pub kind: Kind,
    pub seed: u64,
    /// Number of records, duplicated and bad ones among them.
    pub rows: u64,
    /// Days of event time, up to `end`.
    pub days: u32,
    /// Newest event time, microseconds since 1970. Not part of the identity.
    pub end: i64,
    /// How many in a million come late, by an hour to two days; of events, whole sessions.
    pub late: u32,
    /// How many in a million repeat an earlier record, byte for byte.
    pub duplicates: u32,
    /// How many in a million are no rows of the table.
    pub bad: u32,
}

impl Spec {
    /// Logs of the last three days, one in a hundred late, none duplicated or bad.
    pub fn logs(rows: u64) -> Spec {
        let end = crate::load::now_micros();
        Spec { kind: Kind::Logs, seed: 1, rows, days: 3, end, late: 10_000, duplicates: 0, bad: 0 }
    }

    /// Events of the last three days, one session in a hundred late, none duplicated or bad.
    pub fn events(rows: u64) -> Spec {
        Spec { kind: Kind::Events, ..Spec::logs(rows) }
    }

    /// Names these records apart from their place in time.
    pub fn identity(&self) -> String {
        let Spec { kind, seed, rows, days, late, duplicates, bad, end: _ } = self;
        hex::encode(Sha256::digest(format!(
            "watershed generated rows 2: {kind:?} {seed} {rows} {days} {late} {duplicates} {bad}"
        )))
    }
}

/// How a record relates to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// A row that was not there before.
    Fresh,
    /// The bytes of an earlier record.
    Duplicate,
    /// No row: whoever takes it in must refuse it.
    Bad,
}

/// How many records of each sort were made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub fresh: u64,
    pub duplicates: u64,
    pub bad: u64,
    /// Of the fresh ones.
    pub late: u64,
}

impl Counts {
    /// All records.
    pub fn records(&self) -> u64 {
        self.fresh + self.duplicates + self.bad
    }

    /// Records that become rows.
    pub fn good(&self) -> u64 {
        self.fresh + self.duplicates
    }
}

/// One record as a line of NDJSON, without the line end.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    pub bytes: &'a [u8],
    /// The key of its Kafka message: the service, or the user.
    pub key: &'a [u8],
    pub sort: Sort,
}

/// What event times come from.
#[derive(Debug)]
enum Clock {
    /// The rows fill a span; what was made can be made again.
    Span(Rhythm),
    /// Rows happen now: the time of the next one.
    Live(i64),
}

/// Generated records, one after another. Buffers are used again for each.
#[derive(Debug)]
pub struct Rows {
    spec: Spec,
    next: u64,
    clock: Clock,
    /// The block that the plans below are of.
    block: Option<u64>,
    /// Its first and last time, and its number of records.
    times: (i64, i64),
    len: u64,
    logs: logs::Plan,
    events: events::Plan,
    log: Log,
    event: Event,
    line: Vec<u8>,
    /// The last fresh record and its key, while live: what happens now cannot be made again.
    kept: (Vec<u8>, Vec<u8>),
    counts: Counts,
}

/// Where a record comes from.
#[derive(Debug, Clone, Copy)]
enum Slot {
    Fresh,
    Bad,
    /// The same as the record with this number.
    Repeats(u64),
    /// The same as the last fresh one.
    RepeatsLast,
}

impl Rows {
    /// Rows from this number (counted from 0) on.
    pub fn starting_at(spec: &Spec, row: u64) -> Rows {
        let start = spec.end - i64::from(spec.days.max(1)) * DAY;
        let clock = Clock::Span(Rhythm::new(start, spec.end, spec.rows));
        Rows::new(spec, row, clock)
    }

    /// Rows without end that happen while they are made: [`Rows::set_now`] moves the clock. `rows`, `days` and `end` of
    /// the spec do not matter.
    pub fn live(spec: &Spec) -> Rows {
        Rows::new(&Spec { rows: u64::MAX, ..spec.clone() }, 0, Clock::Live(spec.end))
    }

    fn new(spec: &Spec, next: u64, clock: Clock) -> Rows {
        Rows {
            spec: spec.clone(),
            next,
            clock,
            block: None,
            times: (0, 0),
            len: 0,
            logs: logs::Plan::default(),
            events: events::Plan::default(),
            log: Log::default(),
            event: Event::default(),
            line: Vec::new(),
            kept: (Vec::new(), Vec::new()),
            counts: Counts::default(),
        }
    }

    /// The time of the next live row, microseconds since 1970.
    pub fn set_now(&mut self, now: i64) {
        if let Clock::Live(time) = &mut self.clock {
            *time = now.max(*time);
        }
    }

    /// What [`Rows::next_line`] has made so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The next row as named fields, or `None` after the last. Bad records exist as lines only: in their place stand the
    /// rows that they were made of.
    pub fn next_record(&mut self) -> Option<Record<'_>> {
        let row = self.take()?;
        match self.slot(row) {
            Slot::Repeats(of) => self.make(of),
            Slot::Fresh | Slot::Bad | Slot::RepeatsLast => self.make(row),
        };
        Some(self.fields())
    }

    /// The next record as a line, or `None` after the last.
    pub fn next_line(&mut self) -> Option<Line<'_>> {
        let row = self.take()?;
        let slot = self.slot(row);
        if let Slot::RepeatsLast = slot {
            self.counts.duplicates += 1;
            return Some(Line { bytes: &self.kept.0, key: &self.kept.1, sort: Sort::Duplicate });
        }
        let (of, sort) = match slot {
            Slot::Repeats(of) => (of, Sort::Duplicate),
            Slot::Bad => (row, Sort::Bad),
            _ => (row, Sort::Fresh),
        };
        let late = self.make(of);
        self.line.clear();
        self.write();
        match sort {
            Sort::Fresh => {
                self.counts.fresh += 1;
                self.counts.late += u64::from(late);
            }
            Sort::Duplicate => self.counts.duplicates += 1,
            Sort::Bad => {
                self.counts.bad += 1;
                let mut r = Random::of(For::Slot, self.spec.seed.wrapping_add(1), row);
                bad::spoil(&mut self.line, 0, &mut r);
            }
        }
        if sort == Sort::Fresh && self.spec.duplicates > 0 && matches!(self.clock, Clock::Live(_)) {
            self.kept.0.clone_from(&self.line);
            self.kept.1 = self.key().to_vec();
        }
        Some(Line { bytes: &self.line, key: self.key(), sort })
    }

    fn key(&self) -> &[u8] {
        match self.spec.kind {
            Kind::Logs => self.log.service.as_bytes(),
            Kind::Events => &self.event.user,
        }
    }

    /// The number of the next record, with its block planned.
    fn take(&mut self) -> Option<u64> {
        if self.next >= self.spec.rows {
            return None;
        }
        let row = self.next;
        self.next += 1;
        let block = row / BLOCK;
        if self.block != Some(block) {
            self.plan(block);
        }
        Some(row)
    }

    fn plan(&mut self, block: u64) {
        let Spec { seed, rows, late, .. } = self.spec;
        let first = block * BLOCK;
        self.len = BLOCK.min(rows - first);
        self.times = match &self.clock {
            Clock::Span(rhythm) => (rhythm.at(first), rhythm.at(first + self.len)),
            // Only the order matters.
            Clock::Live(_) => (0, 600 * SECOND),
        };
        match self.spec.kind {
            Kind::Logs => self.logs.make(seed, block),
            Kind::Events => self.events.make(seed, block, self.len as usize, self.times, late),
        }
        self.block = Some(block);
    }

    /// What a record is, apart from what others are.
    fn drawn(&self, row: u64) -> Slot {
        let Spec { seed, duplicates, bad, .. } = self.spec;
        if duplicates == 0 && bad == 0 {
            return Slot::Fresh;
        }
        let mut r = Random::of(For::Slot, seed, row);
        if r.chance(bad) {
            Slot::Bad
        } else if r.chance(duplicates) {
            Slot::Repeats(row.saturating_sub(1 + r.below(1000)))
        } else {
            Slot::Fresh
        }
    }

    fn slot(&self, row: u64) -> Slot {
        match (self.drawn(row), &self.clock) {
            (Slot::Repeats(_), Clock::Live(_)) if self.kept.0.is_empty() => Slot::Fresh,
            (Slot::Repeats(_), Clock::Live(_)) => Slot::RepeatsLast,
            (Slot::Repeats(of), Clock::Span(_)) => {
                // Of the same block, whose plan is at hand; without a fresh one there, it is fresh itself.
                let first = row / BLOCK * BLOCK;
                (first..=of.max(first))
                    .rev()
                    .find(|of| *of < row && matches!(self.drawn(*of), Slot::Fresh))
                    .map_or(Slot::Fresh, Slot::Repeats)
            }
            (slot, _) => slot,
        }
    }

    /// Makes a row of the present block; true if it is late.
    fn make(&mut self, row: u64) -> bool {
        let Spec { seed, late, .. } = self.spec;
        let mut r = Random::of(For::Row, seed, row);
        let at = row % BLOCK;
        let now = match &mut self.clock {
            Clock::Live(now) => {
                *now += 1;
                Some(*now)
            }
            Clock::Span(_) => None,
        };
        match self.spec.kind {
            Kind::Logs => {
                let at = at * BLOCK / self.len;
                let ts = now.unwrap_or_else(|| {
                    let (from, to) = self.times;
                    let part = i128::from(to - from) * i128::from(self.logs.moment(at));
                    // Clocks and ways differ by some seconds.
                    from + (part / i128::from(BLOCK)) as i64 - r.below(4 * SECOND as u64) as i64
                });
                self.log.make(&mut r, &self.logs, at, ts, late);
                self.log.ts < ts
            }
            Kind::Events => {
                let ts = now.unwrap_or_else(|| self.events.time(at as usize));
                self.event.make(&mut r, seed, &self.events, at as usize, ts);
                self.event.ts < ts
            }
        }
    }

    fn fields(&self) -> Record<'_> {
        match self.spec.kind {
            Kind::Logs => {
                let Log { ts, level, service, host, message, metadata } = &self.log;
                vec![
                    field(EVENT_TIME, Value::Time(*ts)),
                    field("level", Value::Text(Cow::Borrowed(level))),
                    field("service", Value::Text(Cow::Borrowed(service))),
                    field("host", Value::Text(ascii(host))),
                    field("message", Value::Text(ascii(message))),
                    field("metadata", Value::Json(ascii(metadata))),
                ]
            }
            Kind::Events => {
                let Event { ts, id, user, session, kind, data, device } = &self.event;
                vec![
                    field(EVENT_TIME, Value::Time(*ts)),
                    field("event_id", Value::Text(ascii(id))),
                    field("user_id", Value::Text(ascii(user))),
                    field("session_id", Value::Text(ascii(session))),
                    field("event_type", Value::Text(Cow::Borrowed(kind))),
                    field("event_data", Value::Json(ascii(data))),
                    field("device", Value::Json(ascii(device))),
                ]
            }
        }
    }

    /// Writes the row as JSON. No text of ours holds what JSON would have to escape.
    fn write(&mut self) {
        let out = &mut self.line;
        let ts = match self.spec.kind {
            Kind::Logs => self.log.ts,
            Kind::Events => self.event.ts,
        };
        text(out, "{\"ts\":\"");
        time::write(out, ts, b'T');
        match self.spec.kind {
            Kind::Logs => {
                let Log { level, service, host, message, metadata, .. } = &self.log;
                for (name, value) in [
                    ("Z\",\"level\":\"", level.as_bytes()),
                    ("\",\"service\":\"", service.as_bytes()),
                    ("\",\"host\":\"", host),
                    ("\",\"message\":\"", message),
                    ("\",\"metadata\":", metadata),
                ] {
                    text(out, name);
                    out.extend_from_slice(value);
                }
            }
            Kind::Events => {
                let Event { id, user, session, kind, data, device, .. } = &self.event;
                for (name, value) in [
                    ("Z\",\"event_id\":\"", id.as_slice()),
                    ("\",\"user_id\":\"", user),
                    ("\",\"session_id\":\"", session),
                    ("\",\"event_type\":\"", kind.as_bytes()),
                    ("\",\"event_data\":", data),
                    (",\"device\":", device),
                ] {
                    text(out, name);
                    out.extend_from_slice(value);
                }
            }
        }
        out.push(b'}');
    }
}

fn field<'a>(name: &'static str, value: Value<'a>) -> Field<'a> {
    Field { name: Cow::Borrowed(name), value }
}

/// Texts are made of ASCII only, so nothing is ever replaced.
fn ascii(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn text(out: &mut Vec<u8>, s: &str) {
    out.extend_from_slice(s.as_bytes());
}

fn number(out: &mut Vec<u8>, n: u64) {
    push_decimal(out, n as i64);
}

/// The last `digits` digits.
fn hex(out: &mut Vec<u8>, n: u64, digits: u32) {
    for i in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(n >> (4 * i)) as usize & 15]);
    }
}

/// Thousandths as `12.345`.
fn thousandths(out: &mut Vec<u8>, n: u64) {
    number(out, n / 1000);
    out.push(b'.');
    for d in [100, 10, 1] {
        out.push(b'0' + (n / d % 10) as u8);
    }
}

/// An hour to two days.
fn late_by(r: &mut Random) -> i64 {
    3600 * SECOND + r.below(2 * DAY as u64) as i64
}

/// Writes all records as NDJSON, at most `rate` a second; says how many of each sort there were.
///
/// # Errors
/// Whatever the writer reports.
pub fn write_all(spec: &Spec, rate: Option<u64>, mut out: impl Write) -> io::Result<Counts> {
    const PIECE: usize = 256 * 1024;
    let mut rows = Rows::starting_at(spec, 0);
    let pace = mix::Pace::new(rate);
    let mut buffer = Vec::with_capacity(PIECE + 1024);
    let mut written = 0u64;
    while let Some(line) = rows.next_line() {
        buffer.extend_from_slice(line.bytes);
        buffer.push(b'\n');
        written += 1;
        if buffer.len() >= PIECE {
            out.write_all(&buffer)?;
            buffer.clear();
        }
        if written % 64 == 0
            && let Some(ahead) = pace.ahead(written)
        {
            // Whoever reads sees what is there so far.
            out.write_all(&buffer)?;
            out.flush()?;
            buffer.clear();
            std::thread::sleep(ahead);
        }
    }
    out.write_all(&buffer)?;
    out.flush()?;
    Ok(rows.counts())
}

#[cfg(test)]
mod tests;
