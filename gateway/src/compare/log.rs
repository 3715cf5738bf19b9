//! What was compared, the last thousand, and the statements that are PostgreSQL's since an answer of the lake's differed, in bounded memory.
//! ✗ who compares, SQL.

use super::{Side, Verdict, compare};
use crate::classify::Classified;
use crate::query::record::Who;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Instant, SystemTime};
use tokio::sync::Notify;

/// Comparisons kept.
pub const KEPT: usize = 1_000;
/// Statements that may wait for their quarantine to be written down; what comes beyond is found again.
const WAITING: usize = 1_000;

static COMPARED: AtomicU64 = AtomicU64::new(0);
static DIFFERENT: AtomicU64 = AtomicU64::new(0);

/// Comparisons that told something, since this process began.
pub fn compared() -> u64 {
    COMPARED.load(Ordering::Relaxed)
}

/// And those that found a difference.
pub fn different() -> u64 {
    DIFFERENT.load(Ordering::Relaxed)
}

/// One row of `watershed.comparisons`; times in microseconds.
#[derive(Debug, Clone)]
pub struct Entry {
    pub id: i64,
    pub compared_at: SystemTime,
    pub who: Arc<Who>,
    pub statement: Arc<Classified>,
    pub verdict: Verdict,
    pub lake_us: i64,
    pub postgres_us: i64,
    pub rows: i64,
}

/// Shared by all sessions of a gateway.
#[derive(Debug, Default)]
pub struct Comparisons {
    next: AtomicI64,
    recent: Mutex<VecDeque<Entry>>,
    /// Fingerprints to be quarantined that no other gateway knows of yet, and the statements without their literals.
    fresh: Mutex<HashMap<Arc<str>, Arc<str>>>,
    /// There is one.
    pub wanted: Notify,
}

impl Comparisons {
    /// The kept ones, oldest first.
    pub fn recent(&self) -> Vec<Entry> {
        self.recent.lock().iter().cloned().collect()
    }

    /// An answer of this statement differed, and it is not written down yet.
    pub fn suspects(&self, fingerprint: &str) -> bool {
        self.fresh.lock().contains_key(fingerprint)
    }

    /// What is to be written down.
    pub fn fresh(&self) -> Vec<(Arc<str>, Arc<str>)> {
        self.fresh.lock().iter().map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// It is written down.
    pub fn written(&self, fingerprint: &str) {
        self.fresh.lock().remove(fingerprint);
    }

    fn finish(&self, mut entry: Entry) {
        entry.id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        if !matches!(entry.verdict, Verdict::Open(_)) {
            COMPARED.fetch_add(1, Ordering::Relaxed);
        }
        if let Verdict::Differs(_) = &entry.verdict {
            DIFFERENT.fetch_add(1, Ordering::Relaxed);
            let fingerprint = &entry.statement.fingerprint;
            // Rows are not the log's business; watershed.comparisons has them.
            tracing::error!(%fingerprint, comparison = entry.id, "the lake's answer differs from PostgreSQL's: the statement is PostgreSQL's from now on");
            let mut fresh = self.fresh.lock();
            if fresh.len() < WAITING {
                fresh.insert(fingerprint.clone(), entry.statement.masked.clone());
            }
            self.wanted.notify_one();
        }
        let mut recent = self.recent.lock();
        if recent.len() == KEPT {
            recent.pop_front();
        }
        recent.push_back(entry);
    }
}

/// A comparison under way, finished when it drops. What PostgreSQL answers is taken as it passes.
#[derive(Debug)]
pub struct Comparison {
    log: Arc<Comparisons>,
    who: Arc<Who>,
    statement: Arc<Classified>,
    lake: Side,
    postgres: Side,
    /// Why nothing can be told.
    open: Option<String>,
    lake_us: i64,
    began: Instant,
    /// PostgreSQL's answer was read to its end, or is this error.
    complete: bool,
    error: Option<String>,
}

impl Comparison {
    /// The lake has answered, or has not (`lake` is then the reason); PostgreSQL is asked now.
    pub fn begin(
        log: &Arc<Comparisons>,
        who: &Arc<Who>,
        statement: &Arc<Classified>,
        lake: Result<Side, String>,
        order: &super::Order,
        lake_us: i64,
    ) -> Comparison {
        let (lake, open) = match lake {
            Ok(side) => (side, None),
            Err(why) => (Side::new(order), Some(why)),
        };
        Comparison {
            log: log.clone(),
            who: who.clone(),
            statement: statement.clone(),
            lake,
            postgres: Side::new(order),
            open,
            lake_us,
            began: Instant::now(),
            complete: false,
            error: None,
        }
    }

    /// PostgreSQL's next row: the body of its DataRow.
    pub fn row(&mut self, body: &[u8]) {
        self.postgres.row(body);
    }

    /// A row was too long to look at.
    pub fn unseen_row(&mut self) {
        self.open.get_or_insert_with(|| "a row was too long to compare".into());
    }

    /// PostgreSQL has given its last row.
    pub fn complete(&mut self) {
        self.complete = true;
    }

    /// PostgreSQL raised an error. Of another class than these, it is an answer, which the lake should have given too.
    pub fn failed(&mut self, sqlstate: &str) {
        match sqlstate.get(..2) {
            Some("57" | "53" | "40" | "08" | "55" | "58") | None => {
                self.open.get_or_insert_with(|| format!("PostgreSQL was stopped ({sqlstate})"));
            }
            Some(_) => self.error = Some(sqlstate.to_owned()),
        }
    }
}

impl Drop for Comparison {
    fn drop(&mut self) {
        let verdict = match self.open.take() {
            Some(why) => Verdict::Open(why),
            None if self.error.is_some() => {
                let sqlstate = self.error.take().unwrap_or_default();
                Verdict::Differs(format!("PostgreSQL raises an error ({sqlstate}), the lake has {} rows", self.lake.rows))
            }
            None if !self.complete => Verdict::Open("it was not read to its end".into()),
            None => compare(&self.postgres, &self.lake),
        };
        self.log.finish(Entry {
            id: 0,
            compared_at: SystemTime::now(),
            who: self.who.clone(),
            statement: self.statement.clone(),
            verdict,
            lake_us: self.lake_us,
            postgres_us: self.began.elapsed().as_micros() as i64,
            rows: self.postgres.rows as i64,
        });
    }
}
