//! Realistic rows from a seed: logs of fifteen services over a few days, and events of their users. Row i depends only on
//! the seed and i, so any part can be made again. Knows no tables and no connection.
//!
//! Random numbers are SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014): small,
//! seekable, and the same in every version of this program.

use std::borrow::Cow;
use std::io::{self, Write};

use sha2::{Digest, Sha256};

use crate::decode::time::{DAY, SECOND};
use crate::decode::{EVENT_TIME, Field, Record, Value, json};
use crate::sink::push_decimal;

/// Which standard table the rows are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Logs,
    Events,
}

/// What to generate.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    pub kind: Kind,
    pub seed: u64,
    /// Number of rows.
    pub rows: u64,
    /// Days of event time, up to `end`.
    pub days: u32,
    /// Newest event time, microseconds since 1970. Not part of the identity.
    pub end: i64,
    /// Rows in ten thousand that come late, by an hour to two days.
    pub late: u32,
}

impl Spec {
    /// Logs of the last three days, one in a hundred late.
    pub fn logs(rows: u64) -> Spec {
        Spec { kind: Kind::Logs, seed: 1, rows, days: 3, end: crate::load::now_micros(), late: 100 }
    }

    /// Events of the last three days, one in a hundred late.
    pub fn events(rows: u64) -> Spec {
        Spec { kind: Kind::Events, ..Spec::logs(rows) }
    }

    /// Names these rows apart from their place in time.
    pub fn identity(&self) -> String {
        let Spec { kind, seed, rows, days, late, end: _ } = self;
        hex::encode(Sha256::digest(format!(
            "watershed generated rows 1: {kind:?} {seed} {rows} {days} {late}"
        )))
    }
}

/// SplitMix64.
#[derive(Debug, Clone, Copy)]
struct Random(u64);

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Random {
    fn of(seed: u64, row: u64) -> Random {
        Random(mix(mix(seed.wrapping_add(GOLDEN)).wrapping_add(row)))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// Below `n`, without bias that anyone could see.
    fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len() as u64) as usize]
    }

    /// Skewed towards small values: most durations are short, a few are long.
    fn skewed(&mut self, max: u64) -> u64 {
        let a = self.below(1 << 20);
        let b = self.below(1 << 20);
        let c = self.below(1 << 20);
        ((u128::from(a) * u128::from(b) * u128::from(c) * u128::from(max)) >> 60) as u64
    }
}

struct Service {
    name: &'static str,
    hosts: u64,
    /// In a thousand.
    weight: u32,
    /// Multiplies warnings and errors.
    trouble: u32,
    paths: &'static [&'static str],
}

const SERVICES: [Service; 15] = [
    Service {
        name: "api-gateway",
        hosts: 12,
        weight: 220,
        trouble: 1,
        paths: &["/v1/orders", "/v1/cart", "/v1/search", "/v1/users/me"],
    },
    Service {
        name: "web-frontend",
        hosts: 10,
        weight: 170,
        trouble: 1,
        paths: &["/", "/product", "/category", "/checkout"],
    },
    Service {
        name: "auth",
        hosts: 6,
        weight: 110,
        trouble: 2,
        paths: &["/login", "/token", "/logout", "/introspect"],
    },
    Service { name: "search", hosts: 8, weight: 90, trouble: 1, paths: &["/query", "/suggest", "/facets"] },
    Service {
        name: "orders",
        hosts: 6,
        weight: 80,
        trouble: 2,
        paths: &["/orders", "/orders/status", "/orders/cancel"],
    },
    Service {
        name: "payments",
        hosts: 4,
        weight: 55,
        trouble: 3,
        paths: &["/charge", "/refund", "/webhook"],
    },
    Service {
        name: "inventory",
        hosts: 5,
        weight: 55,
        trouble: 1,
        paths: &["/stock", "/reserve", "/release"],
    },
    Service { name: "catalog", hosts: 5, weight: 50, trouble: 1, paths: &["/items", "/prices", "/images"] },
    Service { name: "recommendations", hosts: 4, weight: 45, trouble: 1, paths: &["/similar", "/trending"] },
    Service { name: "notifications", hosts: 3, weight: 35, trouble: 2, paths: &["/mail", "/push", "/sms"] },
    Service { name: "shipping", hosts: 3, weight: 30, trouble: 2, paths: &["/quote", "/label", "/track"] },
    Service { name: "analytics", hosts: 3, weight: 25, trouble: 1, paths: &["/collect", "/batch"] },
    Service { name: "billing", hosts: 2, weight: 15, trouble: 3, paths: &["/invoice", "/dunning"] },
    Service { name: "media-encoder", hosts: 2, weight: 12, trouble: 2, paths: &["/jobs", "/thumbnails"] },
    Service { name: "scheduler", hosts: 1, weight: 8, trouble: 1, paths: &["/tick", "/lease"] },
];

const REGIONS: [&str; 4] = ["eu-west-1", "eu-central-1", "us-east-1", "ap-south-1"];
const METHODS: [&str; 6] = ["GET", "GET", "GET", "POST", "PUT", "DELETE"];
const EVENT_TYPES: [(&str, u32); 8] = [
    ("page_view", 520),
    ("click", 210),
    ("search", 100),
    ("add_to_cart", 70),
    ("login", 45),
    ("checkout", 25),
    ("purchase", 20),
    ("signup", 10),
];
const BROWSERS: [&str; 4] = ["Chrome", "Firefox", "Safari", "Edge"];
const SYSTEMS: [&str; 5] = ["Android", "iOS", "Windows", "macOS", "Linux"];
const PAGES: [&str; 6] = ["/", "/product", "/category", "/cart", "/checkout", "/account"];

/// Generated rows, one after another.
#[derive(Debug)]
pub struct Rows {
    spec: Spec,
    next: u64,
    host: String,
    message: String,
    first: String,
    second: String,
}

fn push_number(s: &mut String, n: u64) {
    let mut digits = Vec::with_capacity(20);
    push_decimal(&mut digits, n as i64);
    s.extend(digits.iter().map(|b| char::from(*b)));
}

fn push_hex(s: &mut String, n: u64, digits: u32) {
    for i in (0..digits).rev() {
        s.push(char::from(b"0123456789abcdef"[(n >> (4 * i)) as usize & 15]));
    }
}

/// Thousandths as `12.345`.
fn push_thousandths(s: &mut String, n: u64) {
    push_number(s, n / 1000);
    s.push('.');
    for d in [100, 10, 1] {
        s.push(char::from(b'0' + (n / d % 10) as u8));
    }
}

fn weighted(r: &mut Random, weights: impl Iterator<Item = u32>, total: u32) -> usize {
    let mut at = r.below(u64::from(total)) as u32;
    let mut last = 0;
    for (i, w) in weights.enumerate() {
        if at < w {
            return i;
        }
        at -= w;
        last = i;
    }
    last
}

impl Rows {
    /// Rows from this number (counted from 0) on.
    pub fn starting_at(spec: &Spec, row: u64) -> Rows {
        Rows {
            spec: spec.clone(),
            next: row,
            host: String::new(),
            message: String::new(),
            first: String::new(),
            second: String::new(),
        }
    }

    /// The next row as named fields, or `None` after the last.
    pub fn next_record(&mut self) -> Option<Record<'_>> {
        if self.next >= self.spec.rows {
            return None;
        }
        let i = self.next;
        self.next += 1;
        for s in [&mut self.host, &mut self.message, &mut self.first, &mut self.second] {
            s.clear();
        }
        let mut r = Random::of(self.spec.seed, i);
        let ts = self.event_time(i, &mut r);
        Some(match self.spec.kind {
            Kind::Logs => self.log(ts, &mut r),
            Kind::Events => self.event(ts, &mut r),
        })
    }

    /// Appends the next row as one line of NDJSON; false after the last.
    pub fn write_ndjson(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(record) = self.next_record() else {
            return false;
        };
        for (i, f) in record.iter().enumerate() {
            out.push(if i == 0 { b'{' } else { b',' });
            let name = if f.name == EVENT_TIME { "ts" } else { f.name.as_ref() };
            json::write_string(out, name);
            out.push(b':');
            json::write_value(out, &f.value);
        }
        out.extend_from_slice(b"}\n");
        true
    }

    /// Time goes on evenly, with some jitter; late rows lie an hour to two days back.
    fn event_time(&self, i: u64, r: &mut Random) -> i64 {
        let span = i64::from(self.spec.days.max(1)) * DAY;
        let step = (i128::from(span) * i128::from(i) / i128::from(self.spec.rows)) as i64;
        let jitter = r.below(4 * SECOND as u64) as i64;
        let late = r.below(10_000) < u64::from(self.spec.late);
        let back = if late { 3600 * SECOND + r.below(2 * DAY as u64) as i64 } else { 0 };
        self.spec.end - span + step - jitter - back
    }

    fn log(&mut self, ts: i64, r: &mut Random) -> Record<'_> {
        let service = &SERVICES[weighted(r, SERVICES.iter().map(|s| s.weight), 1000)];
        let trouble = service.trouble;
        let (warn, error, fatal) = (50 * trouble, 15 * trouble, trouble);
        let level = match r.below(1000) as u32 {
            n if n < fatal => "FATAL",
            n if n < fatal + error => "ERROR",
            n if n < fatal + error + warn => "WARN",
            n if n < fatal + error + warn + 120 => "DEBUG",
            _ => "INFO",
        };
        let h = &mut self.host;
        h.push_str(service.name);
        h.push('-');
        push_number(h, r.below(service.hosts) + 1);
        h.push_str(".prod");

        let duration = r.skewed(30_000_000) + 300;
        let request = r.next();
        let user = r.skewed(200_000) + 1;
        let method = r.pick(&METHODS);
        let path = r.pick(service.paths);
        let m = &mut self.message;
        let mut status = 200;
        match level {
            "INFO" => {
                status = [200, 200, 200, 201, 204, 304][r.below(6) as usize];
                m.push_str(method);
                m.push(' ');
                m.push_str(path);
                m.push_str(" completed with ");
                push_number(m, status);
                m.push_str(" in ");
                push_thousandths(m, duration);
                m.push_str(" ms");
            }
            "DEBUG" => {
                m.push_str(r.pick(&[
                    "cache hit for key ",
                    "cache miss for key ",
                    "released connection ",
                    "scheduled retry of ",
                ]));
                push_hex(m, request, 8);
            }
            "WARN" => {
                status = [400, 401, 403, 404, 409, 429][r.below(6) as usize];
                m.push_str(r.pick(&[
                    "slow response from ",
                    "retrying call to ",
                    "rate limit near for ",
                    "deprecated call of ",
                ]));
                m.push_str(path);
                m.push_str(", attempt ");
                push_number(m, r.below(4) + 1);
            }
            _ => {
                status = [500, 502, 503, 504][r.below(4) as usize];
                m.push_str(r.pick(&[
                    "connection refused by upstream ",
                    "timeout while waiting for ",
                    "unhandled exception in ",
                    "could not commit transaction for ",
                ]));
                m.push_str(path);
                m.push_str(": request ");
                push_hex(m, request, 8);
            }
        }
        let d = &mut self.first;
        d.push_str("{\"request_id\":\"");
        push_hex(d, request, 16);
        d.push_str("\",\"method\":\"");
        d.push_str(method);
        d.push_str("\",\"path\":\"");
        d.push_str(path);
        d.push_str("\",\"status\":");
        push_number(d, status);
        d.push_str(",\"duration_ms\":");
        push_thousandths(d, duration);
        d.push_str(",\"region\":\"");
        d.push_str(r.pick(&REGIONS));
        d.push_str("\",\"user_id\":");
        push_number(d, user);
        d.push('}');
        vec![
            field(EVENT_TIME, Value::Time(ts)),
            field("level", Value::Text(Cow::Borrowed(level))),
            field("service", Value::Text(Cow::Borrowed(service.name))),
            field("host", Value::Text(Cow::Borrowed(&self.host))),
            field("message", Value::Text(Cow::Borrowed(&self.message))),
            field("metadata", Value::Json(Cow::Borrowed(&self.first))),
        ]
    }

    fn event(&mut self, ts: i64, r: &mut Random) -> Record<'_> {
        let kind = EVENT_TYPES[weighted(r, EVENT_TYPES.iter().map(|e| e.1), 1000)].0;
        // A version 4 UUID made of the row's own random bits.
        let (a, b) = (r.next(), r.next());
        let id = uuid::Uuid::from_u64_pair((a & !0xf000) | 0x4000, (b & !(3 << 62)) | (2 << 62));
        let id = id.as_hyphenated().to_string();
        let user = r.skewed(200_000) + 1;
        self.host.push_str("user-");
        push_number(&mut self.host, user);
        self.message.push_str("s-");
        push_hex(&mut self.message, mix(user ^ (ts as u64 >> 31)), 12);
        let d = &mut self.first;
        d.push_str("{\"page\":\"");
        d.push_str(r.pick(&PAGES));
        d.push_str("\",\"duration_ms\":");
        push_number(d, r.skewed(60_000));
        match kind {
            "purchase" | "checkout" | "add_to_cart" => {
                d.push_str(",\"amount\":");
                let cents = r.skewed(90_000) + 99;
                push_number(d, cents / 100);
                d.push('.');
                d.push(char::from(b'0' + (cents / 10 % 10) as u8));
                d.push(char::from(b'0' + (cents % 10) as u8));
                d.push_str(",\"currency\":\"EUR\",\"items\":");
                push_number(d, r.below(5) + 1);
            }
            "search" => {
                d.push_str(",\"query\":\"q");
                push_number(d, r.skewed(5000));
                d.push('"');
            }
            _ => {}
        }
        d.push('}');
        let v = &mut self.second;
        v.push_str("{\"browser\":\"");
        v.push_str(r.pick(&BROWSERS));
        v.push_str("\",\"os\":\"");
        v.push_str(r.pick(&SYSTEMS));
        v.push_str("\",\"mobile\":");
        v.push_str(if r.below(100) < 58 { "true" } else { "false" });
        v.push('}');
        vec![
            field("event_id", Value::Text(Cow::Owned(id))),
            field(EVENT_TIME, Value::Time(ts)),
            field("user_id", Value::Text(Cow::Borrowed(&self.host))),
            field("session_id", Value::Text(Cow::Borrowed(&self.message))),
            field("event_type", Value::Text(Cow::Borrowed(kind))),
            field("event_data", Value::Json(Cow::Borrowed(&self.first))),
            field("device", Value::Json(Cow::Borrowed(&self.second))),
        ]
    }
}

fn field<'a>(name: &'static str, value: Value<'a>) -> Field<'a> {
    Field { name: Cow::Borrowed(name), value }
}

/// Writes all rows as NDJSON; gives their number.
///
/// # Errors
/// Whatever the writer reports.
pub fn write_all(spec: &Spec, mut out: impl Write) -> io::Result<u64> {
    let mut rows = Rows::starting_at(spec, 0);
    let mut buffer = Vec::with_capacity(256 * 1024 + 1024);
    let mut count = 0;
    loop {
        let more = rows.write_ndjson(&mut buffer);
        count += u64::from(more);
        if !more || buffer.len() >= 256 * 1024 {
            out.write_all(&buffer)?;
            buffer.clear();
        }
        if !more {
            out.flush()?;
            return Ok(count);
        }
    }
}

#[cfg(test)]
mod tests;
