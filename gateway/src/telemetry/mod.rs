//! What is counted and traced of the gateway's work. Every record of a statement passes here once, when it is finished; what has no
//! record (connections, relayed bytes, gifts of the engine) is counted where it happens. ✗ deciding, what the figures mean to anybody.
//!
//! - Labels are closed sets: routes, results, stages and the kinds of [`why`]; never texts, users or statements.
//! - Counting takes no lock: the series are looked up once, at the first statement.

pub mod trace;
pub mod why;

#[cfg(test)]
mod tests;

use crate::query::record::{Entry, Path};
use gauges::{Counter, Histogram, counter, describe, histogram_in};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use why::{FellBack, Why};

/// Upper bounds of the buckets of a statement's times, in seconds: a look at a text to a long scan.
const BUCKETS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

const ROUTES: [Path; 3] = [Path::Postgres, Path::Lake, Path::Virtual];
const RESULTS: [&str; 3] = ["ok", "error", "cancelled"];
const STAGES: [&str; 6] = ["classify", "probe", "plan", "tail", "first_row", "total"];

/// Classes of SQLSTATE (PostgreSQL's documentation, appendix A); user code may raise others, which are counted together.
const CLASSES: [&str; 43] = [
    "00", "01", "02", "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "10", "20", "21", "22", "23", "24", "25", "26", "27", "28",
    "2B", "2D", "2F", "34", "38", "39", "3B", "3D", "3F", "40", "42", "44", "53", "54", "55", "57", "58", "72", "F0", "HV", "XX",
];

/// One route's series.
struct OfRoute {
    results: [Counter; RESULTS.len()],
    stages: [Histogram; STAGES.len()],
    rows: Counter,
    bytes: Counter,
}

/// The series of finished statements.
struct Meters {
    routes: [OfRoute; ROUTES.len()],
    /// By [`Why`].
    to_postgres: Vec<Counter>,
    tail_rows: Counter,
}

fn meters() -> &'static Meters {
    static METERS: OnceLock<Meters> = OnceLock::new();
    METERS.get_or_init(|| {
        describe("watershed_statements_total", "Finished statements, by the store that answered and how they ended.");
        describe(
            "watershed_statement_seconds",
            "Time of a statement: its stages, to its first row and to its end, both since it arrived.",
        );
        describe("watershed_statement_rows_total", "Rows sent to clients.");
        describe("watershed_statement_bytes_total", "Bytes of these rows as messages.");
        describe("watershed_errors_total", "Statements that ended in an error, by class of SQLSTATE.");
        describe("watershed_to_postgres_total", "Statements that PostgreSQL answered, by the kind of reason.");
        describe("watershed_fallbacks_total", "Statements that the lake began and PostgreSQL answered, by the kind of reason.");
        describe("watershed_tail_read_rows_total", "Rows not yet in the lake that statements read beside it.");
        describe("watershed_tail_read_bytes_total", "Bytes in memory of these rows.");
        Meters {
            routes: ROUTES.map(|route| OfRoute {
                results: RESULTS.map(|result| counter("watershed_statements_total", &[("route", route.name()), ("result", result)])),
                stages: STAGES.map(|stage| {
                    histogram_in("watershed_statement_seconds", &[("route", route.name()), ("stage", stage)], BUCKETS)
                }),
                rows: counter("watershed_statement_rows_total", &[("route", route.name())]),
                bytes: counter("watershed_statement_bytes_total", &[("route", route.name())]),
            }),
            to_postgres: Why::ALL.iter().map(|why| counter("watershed_to_postgres_total", &[("reason", why.name())])).collect(),
            tail_rows: counter("watershed_tail_read_rows_total", &[]),
        }
    })
}

/// A statement's record is finished.
pub fn finished(entry: &Entry) {
    let meters = meters();
    let route = ROUTES.iter().position(|r| *r == entry.path).unwrap_or_default();
    let of = &meters.routes[route];
    let result = match entry.sqlstate.as_deref() {
        None => 0,
        Some("57014") => 2,
        Some(_) => 1,
    };
    of.results[result].inc();
    let seconds = |us: i64| us.max(0) as f64 / 1e6;
    // A stage that was not is no stage of no time.
    let stages = [
        Some(entry.classify_us),
        Some(entry.probe_us).filter(|us| *us > 0),
        Some(entry.plan_us).filter(|us| *us > 0),
        Some(entry.tail_us).filter(|us| *us > 0),
        entry.first_row_us,
        Some(entry.total_us),
    ];
    for (histogram, us) in of.stages.iter().zip(stages) {
        if let Some(us) = us {
            histogram.observe(seconds(us));
        }
    }
    of.rows.add(entry.rows.unsigned_abs());
    of.bytes.add(entry.bytes.unsigned_abs());
    meters.tail_rows.add(entry.tail_rows.unsigned_abs());
    if let Some(sqlstate) = &entry.sqlstate {
        let class = CLASSES.iter().find(|class| sqlstate.starts_with(**class)).unwrap_or(&"other");
        counter("watershed_errors_total", &[("class", class)]).inc();
    }
    if entry.path == Path::Postgres
        && !entry.fell_back
        && let Some(counter) = meters.to_postgres.get(Why::of(entry) as usize)
    {
        counter.inc();
    }
    trace::finished(entry);
}

/// The lake gave a statement back.
pub fn fell_back(why: FellBack) {
    meters();
    counter("watershed_fallbacks_total", &[("reason", why.name())]).inc();
}

/// The rows of a tail, as they are held for a statement.
pub fn tail_read(bytes: usize) {
    meters();
    counter("watershed_tail_read_bytes_total", &[]).add(bytes as u64);
}

/// What became of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    Session,
    /// It did not log in.
    Refused,
    /// There was no place, or too many came at once.
    TurnedAway,
    Cancel,
}

/// Counts a connection once it is known what it is.
pub fn connection(what: Connection) {
    describe("watershed_connections_total", "Connections of PostgreSQL clients, by what became of them.");
    let result = match what {
        Connection::Session => "session",
        Connection::Refused => "refused",
        Connection::TurnedAway => "turned_away",
        Connection::Cancel => "cancel_request",
    };
    counter("watershed_connections_total", &[("result", result)]).inc();
}

static FROM_CLIENTS: AtomicU64 = AtomicU64::new(0);
static FROM_POSTGRES: AtomicU64 = AtomicU64::new(0);

/// What came in on a session's two sockets, handed in when it rests, ends, or much has come: sessions are on different processors, and
/// one number for all would go from one to the other.
#[derive(Debug, Default)]
pub struct Moved {
    pub from_client: u64,
    pub from_postgres: u64,
}

impl Moved {
    /// As much may come before it is handed in.
    const MUCH: u64 = 1 << 20;

    pub fn hand_in_if_much(&mut self) {
        if self.from_client + self.from_postgres > Self::MUCH {
            self.hand_in();
        }
    }

    pub fn hand_in(&mut self) {
        for (moved, all) in [(&mut self.from_client, &FROM_CLIENTS), (&mut self.from_postgres, &FROM_POSTGRES)] {
            if *moved > 0 {
                all.fetch_add(std::mem::take(moved), Ordering::Relaxed);
            }
        }
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        self.hand_in();
    }
}

/// Has the page of metrics ask the gateway for what it knows anyway.
pub(crate) fn watch(shared: &std::sync::Arc<crate::server::Shared>) {
    for (name, help) in [
        ("watershed_sessions", "Sessions that have a place, those that log in included."),
        ("watershed_sessions_limit", "Places for sessions."),
        ("watershed_relay_bytes_total", "Bytes that came from clients and from PostgreSQL."),
        ("watershed_lake_queries_running", "Queries over the lake whose rows are being made."),
        ("watershed_lake_queries_waiting", "Queries over the lake that wait for their turn."),
        ("watershed_lake_queries_limit", "Queries over the lake that may run at once."),
        ("watershed_lake_reads_running", "Requests to the lake's store that queries wait for."),
        ("watershed_lake_memory_bytes", "Memory that queries over the lake hold together."),
        ("watershed_lake_memory_limit_bytes", "Memory that they may hold before they spill."),
        ("watershed_lake_spill_bytes", "Bytes that queries over the lake have on disk at present."),
        ("watershed_lake_spills_total", "Files that queries over the lake have spilled to disk."),
        ("watershed_lake_spilled_bytes_total", "Bytes that they have spilled."),
        ("watershed_lake_scanned_bytes_total", "Bytes of pages that queries read from the lake's files."),
        ("watershed_lake_files_read_total", "Files of the lake of which queries read rows."),
        ("watershed_lake_files_pruned_total", "Files that statistics ruled out."),
        ("watershed_lake_row_groups_read_total", "Row groups of which queries read rows."),
        ("watershed_lake_row_groups_pruned_total", "Row groups of opened files that were ruled out, or not needed any more."),
        ("watershed_comparisons_total", "Statements that both stores answered and whose answers were compared."),
        ("watershed_comparisons_different_total", "Of these, those whose answers differed; their statements are PostgreSQL's since."),
    ] {
        describe(name, help);
    }
    let shared = std::sync::Arc::downgrade(shared);
    gauges::collector("gateway", move || {
        use crate::engine::activity;
        use gauges::{gauge, total};
        let Some(shared) = shared.upgrade() else { return };
        let limit = shared.config.max_sessions;
        gauge("watershed_sessions", &[]).set(limit.saturating_sub(shared.places.available_permits()) as f64);
        gauge("watershed_sessions_limit", &[]).set(limit as f64);
        let load = shared.engine.load();
        for (name, value) in [
            ("watershed_lake_queries_running", activity::running_queries()),
            ("watershed_lake_reads_running", activity::running_reads()),
            ("watershed_lake_queries_waiting", load.waiting as u64),
            ("watershed_lake_queries_limit", load.running_limit as u64),
            ("watershed_lake_memory_bytes", load.memory_bytes as u64),
            ("watershed_lake_memory_limit_bytes", shared.config.memory_limit_bytes as u64),
            ("watershed_lake_spill_bytes", load.spill_bytes),
        ] {
            gauge(name, &[]).set(value as f64);
        }
        let read = activity::read();
        for (name, value) in [
            ("watershed_lake_spills_total", read.spills),
            ("watershed_lake_spilled_bytes_total", read.spilled_bytes),
            ("watershed_lake_scanned_bytes_total", read.bytes),
            ("watershed_lake_files_read_total", read.files),
            ("watershed_lake_files_pruned_total", read.files_pruned),
            ("watershed_lake_row_groups_read_total", read.row_groups),
            ("watershed_lake_row_groups_pruned_total", read.row_groups_pruned),
            ("watershed_comparisons_total", crate::compare::log::compared()),
            ("watershed_comparisons_different_total", crate::compare::log::different()),
        ] {
            total(name, &[]).set(value as f64);
        }
        for (from, all) in [("client", &FROM_CLIENTS), ("postgres", &FROM_POSTGRES)] {
            total("watershed_relay_bytes_total", &[("from", from)]).set(all.load(Ordering::Relaxed) as f64);
        }
    });
    // The series are there before the first statement: a rate that begins at nothing is missed.
    meters();
    for why in FellBack::ALL {
        counter("watershed_fallbacks_total", &[("reason", why.name())]);
    }
}
