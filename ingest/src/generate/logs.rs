//! Log lines: fifteen services, each with its own hosts, paths and mix of levels; requests with status and latency; stack
//! traces now and then; incidents in which one service floods the log with errors.

use super::random::{For, Random};
use super::{BLOCK, hex, number, text, thousandths};
use crate::decode::time::SECOND;

struct Service {
    name: &'static str,
    hosts: u64,
    /// How often, in a thousand: a few services write most of the lines.
    weight: u32,
    /// DEBUG, WARN, ERROR and FATAL in a thousand; the rest is INFO.
    levels: [u32; 4],
    paths: &'static [&'static str],
}

const fn service(
    name: &'static str,
    hosts: u64,
    weight: u32,
    levels: [u32; 4],
    paths: &'static [&'static str],
) -> Service {
    Service { name, hosts, weight, levels, paths }
}

const SERVICES: [Service; 15] = [
    service(
        "api-gateway",
        12,
        260,
        [40, 50, 14, 1],
        &["/v1/listings", "/v1/search", "/v1/users/me", "/v1/messages"],
    ),
    service("web-frontend", 10, 170, [20, 45, 12, 1], &["/", "/listing", "/category", "/account"]),
    service("search", 8, 120, [180, 40, 12, 1], &["/query", "/suggest", "/facets"]),
    service("auth", 6, 95, [60, 110, 25, 2], &["/login", "/token", "/logout", "/introspect"]),
    service("listings", 6, 75, [120, 70, 25, 2], &["/listings", "/listings/status", "/listings/expire"]),
    service("catalog", 5, 55, [150, 40, 10, 1], &["/items", "/prices", "/images"]),
    service("recommendations", 4, 45, [240, 60, 18, 1], &["/similar", "/trending"]),
    service("messaging", 4, 40, [80, 90, 30, 2], &["/threads", "/send", "/read"]),
    service("payments", 4, 35, [30, 130, 45, 5], &["/charge", "/refund", "/webhook"]),
    service("notifications", 3, 28, [100, 100, 35, 2], &["/mail", "/push", "/sms"]),
    service("analytics", 3, 24, [300, 30, 10, 1], &["/collect", "/batch"]),
    service("moderation", 3, 20, [60, 160, 20, 1], &["/queue", "/verdict"]),
    service("billing", 2, 14, [40, 120, 50, 6], &["/invoice", "/dunning"]),
    service("media-encoder", 2, 11, [90, 110, 60, 8], &["/jobs", "/thumbnails"]),
    service("scheduler", 1, 8, [200, 40, 15, 3], &["/tick", "/lease"]),
];
/// DEBUG, WARN, ERROR and FATAL of a service in trouble.
const IN_TROUBLE: [u32; 4] = [10, 250, 450, 20];

pub(super) const REGIONS: [&str; 4] = ["eu-west-1", "eu-central-1", "us-east-1", "ap-south-1"];
const METHODS: [&str; 6] = ["GET", "GET", "GET", "POST", "PUT", "DELETE"];
/// As JSON strings are written.
const TRACES: [&str; 4] = [
    "java.net.SocketTimeoutException: Read timed out\\n\\tat net.Client.read(Client.java:118)\\n\\tat net.Pool.take(Pool.java:57)\\n\\tat app.Handler.handle(Handler.java:203)",
    "Traceback (most recent call last):\\n  File \\\"app/worker.py\\\", line 88, in run\\n    self.step(job)\\n  File \\\"app/worker.py\\\", line 141, in step\\n    raise TimeoutError(job.id)\\nTimeoutError: job",
    "panic: runtime error: index out of range [4] with length 4\\n\\ngoroutine 71 [running]:\\nmain.(*Server).route(0xc0001a2000)\\n\\t/src/server.go:212 +0x1d4",
    "Error: connect ECONNREFUSED 10.0.3.7:5432\\n    at TCPConnectWrap.afterConnect (node:net:1605:16)\\n    at Pool.acquire (/app/pool.js:44:11)",
];

/// What the rows of a block have in common.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Rows of the block between which a service is in trouble, and which.
    trouble: Option<(u64, u64, usize)>,
    /// The row from which on a quarter of the block comes within a fiftieth of its time.
    burst: Option<u64>,
}

impl Plan {
    pub(super) fn make(&mut self, seed: u64, block: u64) {
        let mut r = Random::of(For::Block, seed, block);
        self.trouble = (r.below(6) == 0).then(|| {
            let from = r.below(BLOCK);
            (from, from + 200 + r.below(1000), r.weighted(SERVICES.iter().map(|s| s.weight)))
        });
        self.burst = (r.below(8) == 0).then(|| r.below(BLOCK * 3 / 4));
    }

    /// Where in the block's time its row stands, in parts of `BLOCK`.
    pub(super) fn moment(&self, row: u64) -> u64 {
        let Some(from) = self.burst else { return row };
        let (rows, time) = (BLOCK / 4, BLOCK / 50);
        let outside = |n: u64| n * (BLOCK - time) / (BLOCK - rows);
        match row.checked_sub(from) {
            None => outside(row),
            Some(n) if n < rows => outside(from) + n * time / rows,
            Some(n) => outside(from) + time + outside(n - rows),
        }
    }
}

/// One log line, as texts that are written over by the next.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) ts: i64,
    pub(super) level: &'static str,
    pub(super) service: &'static str,
    pub(super) host: Vec<u8>,
    pub(super) message: Vec<u8>,
    pub(super) metadata: Vec<u8>,
}

impl Log {
    /// Row `row` of its block; `ts` is the block's time there.
    pub(super) fn make(&mut self, r: &mut Random, plan: &Plan, row: u64, ts: i64, late: u32) {
        self.ts = ts;
        if r.chance(late) {
            self.ts -= super::late_by(r);
        }
        let trouble = plan.trouble.filter(|(from, to, _)| (*from..*to).contains(&row) && r.below(5) < 3);
        let which = trouble.map_or_else(|| r.weighted(SERVICES.iter().map(|s| s.weight)), |(_, _, s)| s);
        let service = &SERVICES[which];
        let levels = if trouble.is_some() { IN_TROUBLE } else { service.levels };
        let info = 1000 - levels.iter().sum::<u32>();
        let names = ["INFO", "DEBUG", "WARN", "ERROR", "FATAL"];
        self.level = names[r.weighted([info].into_iter().chain(levels))];
        self.service = service.name;
        for text in [&mut self.host, &mut self.message, &mut self.metadata] {
            text.clear();
        }
        text(&mut self.host, service.name);
        text(&mut self.host, "-");
        number(&mut self.host, r.below(service.hosts) + 1);
        text(&mut self.host, ".prod");
        self.request(r, service);
    }

    fn request(&mut self, r: &mut Random, service: &Service) {
        let request = r.next();
        let (method, path) = (r.pick(&METHODS), r.pick(service.paths));
        let mut duration = r.skewed(30 * SECOND as u64) + 300;
        let m = &mut self.message;
        let mut status = 200;
        let mut trace = None;
        match self.level {
            "INFO" => {
                status = r.pick(&[200, 200, 200, 201, 204, 304]);
                text(m, method);
                text(m, " ");
                text(m, path);
                text(m, " completed with ");
                number(m, status);
                text(m, " in ");
                thousandths(m, duration);
                text(m, " ms");
            }
            "DEBUG" => {
                text(
                    m,
                    r.pick(&[
                        "cache hit for key ",
                        "cache miss for key ",
                        "released connection ",
                        "scheduled retry of ",
                    ]),
                );
                hex(m, request, 8);
            }
            "WARN" => {
                status = r.pick(&[400, 401, 403, 404, 409, 429]);
                text(
                    m,
                    r.pick(&[
                        "slow response from ",
                        "retrying call to ",
                        "rate limit near for ",
                        "deprecated call of ",
                    ]),
                );
                text(m, path);
                text(m, ", attempt ");
                number(m, r.below(4) + 1);
            }
            _ => {
                status = r.pick(&[500, 502, 503, 504]);
                // What fails has often waited first.
                duration += r.below(20) * SECOND as u64;
                text(
                    m,
                    r.pick(&[
                        "connection refused by upstream ",
                        "timeout while waiting for ",
                        "unhandled exception in ",
                        "could not commit transaction for ",
                    ]),
                );
                text(m, path);
                text(m, ": request ");
                hex(m, request, 8);
                trace = (r.below(5) == 0).then(|| r.pick(&TRACES));
            }
        }
        let d = &mut self.metadata;
        text(d, "{\"request_id\":\"");
        hex(d, request, 16);
        text(d, "\",\"method\":\"");
        text(d, method);
        text(d, "\",\"path\":\"");
        text(d, path);
        text(d, "\",\"status\":");
        number(d, status);
        text(d, ",\"duration_ms\":");
        thousandths(d, duration);
        text(d, ",\"region\":\"");
        text(d, r.pick(&REGIONS));
        text(d, "\",\"user_id\":");
        number(d, r.zipf(super::events::USER_BITS));
        if let Some(trace) = trace {
            text(d, ",\"stack\":\"");
            text(d, trace);
            text(d, "\"");
        }
        text(d, "}");
    }
}
