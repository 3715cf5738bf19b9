//! One record a statement: opened when the statement arrives, filled by each stage, finished exactly once, on
//! drop at the latest. ✗ rendering.

use super::log::QueryLog;
use crate::classify::Classified;
use crate::compare::log::Comparison;
use crate::cost::{Costs, Estimate};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// Which store answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Path {
    Postgres,
    Lake,
    Virtual,
}

impl Path {
    /// As the virtual tables show it.
    pub fn name(self) -> &'static str {
        match self {
            Path::Postgres => "postgres",
            Path::Lake => "lake",
            Path::Virtual => "virtual",
        }
    }
}

/// The session a statement belongs to.
#[derive(Debug)]
pub struct Who {
    pub pid: i32,
    pub usename: String,
    pub datname: String,
}

/// Everything `watershed.queries` shows of a statement; times in microseconds since its arrival or of a stage.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Ascending in order of finishing.
    pub id: i64,
    pub started_at: SystemTime,
    pub who: Arc<Who>,
    pub protocol: &'static str,
    pub statement: Arc<Classified>,
    pub path: Path,
    pub reasons: Cow<'static, str>,
    pub classify_us: i64,
    pub probe_us: i64,
    pub plan_us: i64,
    pub tail_us: i64,
    pub first_row_us: Option<i64>,
    pub total_us: i64,
    pub rows: i64,
    pub bytes: i64,
    pub lake_version: Option<i64>,
    pub boundary: Option<String>,
    pub lake_files: i64,
    pub lake_row_groups: i64,
    pub lake_bytes: i64,
    pub tail_rows: i64,
    pub fell_back: bool,
    pub sqlstate: Option<String>,
    pub error: Option<String>,
    /// The lake's, with what each step took.
    pub lake_plan: Option<Arc<str>>,
}

impl Entry {
    /// All of it; what is left has no texts.
    fn take(&mut self) -> Entry {
        let take = |text: &mut Option<String>| text.take();
        Entry {
            reasons: std::mem::take(&mut self.reasons),
            boundary: take(&mut self.boundary),
            sqlstate: take(&mut self.sqlstate),
            error: take(&mut self.error),
            lake_plan: self.lake_plan.take(),
            ..self.clone()
        }
    }
}

/// A record under way.
#[derive(Debug)]
pub struct Record {
    pub entry: Entry,
    clock: Instant,
    log: Option<Arc<QueryLog>>,
    /// What it was expected to take, and who learns what it took.
    expected: Option<(Estimate, Arc<Costs>)>,
    comparison: Option<Box<Comparison>>,
}

impl Record {
    /// Opens the record of a statement that has just arrived.
    pub fn open(log: &Arc<QueryLog>, who: &Arc<Who>, protocol: &'static str, statement: &Arc<Classified>) -> Self {
        Record {
            entry: Entry {
                id: 0,
                started_at: SystemTime::now(),
                who: who.clone(),
                protocol,
                statement: statement.clone(),
                path: Path::Postgres,
                reasons: Cow::Borrowed(""),
                classify_us: 0,
                probe_us: 0,
                plan_us: 0,
                tail_us: 0,
                first_row_us: None,
                total_us: 0,
                rows: 0,
                bytes: 0,
                lake_version: None,
                boundary: None,
                lake_files: 0,
                lake_row_groups: 0,
                lake_bytes: 0,
                tail_rows: 0,
                fell_back: false,
                sqlstate: None,
                error: None,
                lake_plan: None,
            },
            clock: Instant::now(),
            log: Some(log.clone()),
            expected: None,
            comparison: None,
        }
    }

    /// Of a statement that is the gateway's own: nobody is told.
    pub fn unlogged(mut self) -> Self {
        self.log = None;
        self
    }

    /// The route was chosen by this.
    pub fn expect(&mut self, estimate: Estimate, costs: &Arc<Costs>) {
        self.expected = Some((estimate, costs.clone()));
    }

    /// Microseconds since the statement arrived.
    pub fn elapsed_us(&self) -> i64 {
        self.clock.elapsed().as_micros() as i64
    }

    /// A row went towards the client.
    pub fn row(&mut self, bytes: usize) {
        if self.entry.first_row_us.is_none() {
            self.entry.first_row_us = Some(self.elapsed_us());
        }
        self.entry.rows += 1;
        self.entry.bytes += bytes as i64;
    }

    /// What PostgreSQL answers is compared.
    pub fn compare(&mut self, comparison: Comparison) {
        self.comparison = Some(Box::new(comparison));
    }

    /// The comparison that the rows belong to as well.
    pub fn comparison(&mut self) -> Option<&mut Comparison> {
        self.comparison.as_deref_mut()
    }

    /// The last row has passed.
    pub fn complete(&mut self) {
        if let Some(c) = &mut self.comparison {
            c.complete();
        }
    }

    /// The statement ended in an error.
    pub fn failed(&mut self, sqlstate: &str, message: &str) {
        if let Some(c) = &mut self.comparison {
            c.failed(sqlstate);
        }
        self.entry.sqlstate = Some(sqlstate.to_string());
        self.entry.error = Some(message.to_string());
    }

    /// Forgets the record: the statement was not one of the client's.
    pub fn discard(mut self) {
        self.log = None;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Some(log) = self.log.take() {
            self.entry.total_us = self.elapsed_us();
            if let Some((estimate, costs)) = self.expected.take()
                && self.entry.sqlstate.is_none()
                && !self.entry.fell_back
            {
                // What choosing took is spent on either.
                let took = self.entry.total_us - self.entry.classify_us - self.entry.probe_us;
                costs.observe(&self.entry.statement.fingerprint, &estimate, self.entry.path, took as f64);
            }
            log.finish(self.entry.take());
        }
    }
}
