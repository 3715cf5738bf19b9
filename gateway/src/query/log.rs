//! The last ten thousand records and the statistics by fingerprint and route, in bounded memory.
//! ✗ SQL, Arrow.

use super::record::{Entry, Path};
use crate::telemetry;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Records kept.
pub const KEPT: usize = 10_000;
/// Plans kept: of the newest records that have one.
const PLANS: usize = 500;
/// Distinct (fingerprint, route) pairs kept; further ones are counted together under `other`.
pub const FINGERPRINTS: usize = 5_000;

/// PostgreSQL processes whose sessions only look at this log and at what else the gateway tells: the status page's, which would push out
/// what they are there to show. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Onlookers(Arc<(AtomicU64, Mutex<HashSet<i32>>)>);

impl Onlookers {
    /// From here on what `pid` asks is not kept, until the guard drops.
    pub fn add(&self, pid: i32) -> Onlooker {
        if self.0.1.lock().insert(pid) {
            self.0.0.fetch_add(1, Ordering::Relaxed);
        }
        Onlooker { all: self.clone(), pid }
    }

    fn has(&self, pid: i32) -> bool {
        self.0.0.load(Ordering::Relaxed) > 0 && self.0.1.lock().contains(&pid)
    }
}

/// One of [`Onlookers`].
#[derive(Debug)]
pub struct Onlooker {
    all: Onlookers,
    pid: i32,
}

impl Drop for Onlooker {
    fn drop(&mut self) {
        if self.all.0.1.lock().remove(&self.pid) {
            self.all.0.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Shared by all sessions of a gateway.
#[derive(Debug, Default)]
pub struct QueryLog {
    /// Whose statements are not kept.
    pub onlookers: Onlookers,
    next: AtomicI64,
    /// Statements that the lake gave up before their first row and PostgreSQL answered.
    pub fallbacks: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    recent: VecDeque<Entry>,
    /// Records that have one.
    plans: usize,
    stats: HashMap<(Arc<str>, Path), Stats>,
}

/// Times in microseconds of one fingerprint on one route.
#[derive(Debug, Clone)]
pub struct Stats {
    pub fingerprint: Arc<str>,
    pub path: Path,
    pub sample_sql: Arc<str>,
    pub calls: i64,
    pub rows: i64,
    pub total_us: i64,
    pub min_us: i64,
    pub max_us: i64,
    histogram: Histogram,
}

impl Stats {
    /// Mean time.
    pub fn mean_us(&self) -> i64 {
        self.total_us / self.calls.max(1)
    }

    /// The time that the given share of calls did not exceed, to within 3 %.
    pub fn quantile_us(&self, q: f64) -> i64 {
        self.histogram.quantile(q).clamp(self.min_us, self.max_us)
    }
}

impl QueryLog {
    /// Empty; what `onlookers` ask is not kept.
    pub fn new(onlookers: Onlookers) -> QueryLog {
        QueryLog { onlookers, ..QueryLog::default() }
    }

    /// Takes a finished record.
    pub fn finish(&self, mut entry: Entry) {
        if self.onlookers.has(entry.who.pid) {
            return;
        }
        entry.id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        if entry.fell_back {
            self.fallbacks.fetch_add(1, Ordering::Relaxed);
        }
        telemetry::finished(&entry);
        let mut inner = self.inner.lock();
        let mut key = (entry.statement.fingerprint.clone(), entry.path);
        let full = inner.stats.len() >= FINGERPRINTS;
        if full && !inner.stats.contains_key(&key) {
            key.0 = "other".into();
        }
        let s = inner.stats.entry(key.clone()).or_insert_with(|| Stats {
            fingerprint: key.0.clone(),
            path: key.1,
            sample_sql: if &*key.0 == "other" { "".into() } else { entry.statement.masked.clone() },
            calls: 0,
            rows: 0,
            total_us: 0,
            min_us: i64::MAX,
            max_us: 0,
            histogram: Histogram::default(),
        });
        s.calls += 1;
        s.rows += entry.rows;
        s.total_us += entry.total_us;
        s.min_us = s.min_us.min(entry.total_us);
        s.max_us = s.max_us.max(entry.total_us);
        s.histogram.add(entry.total_us);
        if inner.recent.len() == KEPT {
            let oldest = inner.recent.pop_front();
            inner.plans -= usize::from(oldest.is_some_and(|e| e.lake_plan.is_some()));
        }
        inner.plans += usize::from(entry.lake_plan.is_some());
        if inner.plans > PLANS
            && let Some(oldest) = inner.recent.iter_mut().find(|e| e.lake_plan.is_some())
        {
            oldest.lake_plan = None;
            inner.plans -= 1;
        }
        inner.recent.push_back(entry);
    }

    /// The kept records, oldest first.
    pub fn recent(&self) -> Vec<Entry> {
        self.inner.lock().recent.iter().cloned().collect()
    }

    /// All statistics, most calls first.
    pub fn stats(&self) -> Vec<Stats> {
        let mut all: Vec<_> = self.inner.lock().stats.values().cloned().collect();
        all.sort_by(|a, b| b.calls.cmp(&a.calls).then_with(|| a.fingerprint.cmp(&b.fingerprint)));
        all
    }
}

/// Counts by logarithm, 32 buckets a doubling: a quantile is off by 3 % at most.
#[derive(Debug, Clone, Default)]
struct Histogram(std::collections::BTreeMap<u16, u32>);

impl Histogram {
    fn add(&mut self, us: i64) {
        let bucket = ((us.max(1) as f64).log2() * 32.0) as u16;
        *self.0.entry(bucket).or_default() += 1;
    }

    fn quantile(&self, q: f64) -> i64 {
        let total: u64 = self.0.values().map(|c| u64::from(*c)).sum();
        let wanted = (q * total as f64).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in &self.0 {
            seen += u64::from(*count);
            if seen >= wanted {
                return ((f64::from(*bucket) + 0.5) / 32.0).exp2() as i64;
            }
        }
        0
    }
}
