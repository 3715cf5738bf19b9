//! What a statement would take in either store, in microseconds: PostgreSQL's own estimate and the size of what the lake would read, weighed
//! by constants of this machine, and corrected by what came of the same statement before. Pure, but for its memory. ✗ routes' other reasons.
//!
//! Estimates decide about speed only; what may answer at all is decided elsewhere.

use crate::query::record::Path;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// Statements (by fingerprint) whose history is remembered.
const REMEMBERED: usize = 5_000;
/// History moves an estimate by no more than this factor: a statement can be far from what it was the last time.
const MOST: f64 = 8.0;
/// How much of a correction the newest observation makes.
const NEWEST: f64 = 0.3;
/// The lake has to be this much slower before a statement that aggregates is left to PostgreSQL: its estimate is the surer one.
const BENEFIT: f64 = 1.25;

/// How this machine turns estimates into time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Constants {
    /// Of any statement: microseconds.
    pub postgres_base_us: f64,
    /// A unit of PostgreSQL's cost.
    pub postgres_unit_us: f64,
    pub lake_base_us: f64,
    /// A file that is opened.
    pub lake_file_us: f64,
    /// A value that is read: a row of a column.
    pub lake_value_us: f64,
}

impl Default for Constants {
    /// As measured by `watershed calibrate` on two cores (docs/measurements.md), for machines where nobody has.
    fn default() -> Self {
        Constants { postgres_base_us: 300.0, postgres_unit_us: 3.5, lake_base_us: 6_000.0, lake_file_us: 150.0, lake_value_us: 0.004 }
    }
}

/// What the lake would read.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Extent {
    pub files: u64,
    pub rows: u64,
    /// Columns of each row, at least one.
    pub columns: u64,
}

/// Times of the two stores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    pub postgres_us: f64,
    pub lake_us: f64,
    /// Before the statement's own history was minded: what observations are compared with.
    plain: (f64, f64),
}

impl Estimate {
    /// The store that is to answer.
    pub fn path(&self) -> Path {
        if self.lake_us > BENEFIT * self.postgres_us { Path::Postgres } else { Path::Lake }
    }

    /// For EXPLAIN and the log.
    pub fn reason(&self) -> String {
        format!("estimated {} in PostgreSQL, {} in the lake", human(self.postgres_us), human(self.lake_us))
    }
}

fn human(us: f64) -> String {
    match us {
        ..10_000.0 => format!("{:.1} ms", us / 1e3),
        ..1_000_000.0 => format!("{:.0} ms", us / 1e3),
        _ => format!("{:.1} s", us / 1e6),
    }
}

/// How far off the estimates of one statement were, as factors.
#[derive(Debug, Clone, Copy)]
struct History {
    postgres: f64,
    lake: f64,
}

/// Shared by all sessions.
#[derive(Debug, Default)]
pub struct Costs {
    histories: Mutex<HashMap<Arc<str>, History>>,
}

impl Costs {
    /// `cost` is PostgreSQL's, of the whole plan.
    pub fn estimate(&self, c: &Constants, fingerprint: &str, cost: f64, extent: &[Extent]) -> Estimate {
        let postgres = c.postgres_base_us + cost.max(0.0) * c.postgres_unit_us;
        let lake = c.lake_base_us
            + extent
                .iter()
                .map(|e| e.files as f64 * c.lake_file_us + (e.rows * e.columns.max(1)) as f64 * c.lake_value_us)
                .sum::<f64>();
        let history = self.histories.lock().get(fingerprint).copied().unwrap_or(History { postgres: 1.0, lake: 1.0 });
        Estimate { postgres_us: postgres * history.postgres, lake_us: lake * history.lake, plain: (postgres, lake) }
    }

    /// A statement with that estimate took so long.
    pub fn observe(&self, fingerprint: &Arc<str>, estimate: &Estimate, path: Path, took_us: f64) {
        let mut histories = self.histories.lock();
        if histories.len() >= REMEMBERED && !histories.contains_key(fingerprint) {
            // Whoever comes again is remembered again.
            histories.clear();
        }
        let history = histories.entry(fingerprint.clone()).or_insert(History { postgres: 1.0, lake: 1.0 });
        let (factor, plain) = match path {
            Path::Postgres => (&mut history.postgres, estimate.plain.0),
            Path::Lake => (&mut history.lake, estimate.plain.1),
            Path::Virtual => return,
        };
        let seen = (took_us.max(1.0) / plain.max(1.0)).clamp(1.0 / MOST, MOST);
        // Factors are averaged as such: twice and half make one.
        *factor = (factor.ln() * (1.0 - NEWEST) + seen.ln() * NEWEST).exp().clamp(1.0 / MOST, MOST);
    }
}

/// PostgreSQL's estimate out of the first line of EXPLAIN: `Aggregate  (cost=1.20..3.45 rows=1 width=8)`.
pub fn total_cost(line: &str) -> Option<f64> {
    let rest = &line[line.find("(cost=")? + 6..];
    let (_, rest) = rest.split_once("..")?;
    rest.split([' ', ')']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: Extent = Extent { files: 4, rows: 10_000_000, columns: 2 };

    #[test]
    fn the_first_line_of_explain_is_read() {
        assert_eq!(total_cost("Finalize Aggregate  (cost=10.25..20.50 rows=1 width=8)"), Some(20.5));
        assert_eq!(total_cost("GroupAggregate  (cost=0.00..1234567.89 rows=1 width=8)"), Some(1_234_567.89));
        assert_eq!(total_cost("Result"), None);
        assert_eq!(total_cost("(cost=a..b rows=1)"), None);
    }

    #[test]
    fn little_work_is_postgresqls_and_much_is_the_lakes() {
        let costs = Costs::default();
        assert_eq!(costs.estimate(&Constants::default(), "a", 40.0, &[Extent { files: 1, rows: 10_000_000, columns: 1 }]).path(), Path::Postgres);
        assert_eq!(costs.estimate(&Constants::default(), "a", 250_000.0, &[WIDE]).path(), Path::Lake);
    }

    #[test]
    fn what_was_seen_moves_the_estimate_within_bounds() {
        let costs = Costs::default();
        let fingerprint: Arc<str> = "f".into();
        let first = costs.estimate(&Constants::default(), &fingerprint, 10_000.0, &[WIDE]);
        for _ in 0..100 {
            let estimate = costs.estimate(&Constants::default(), &fingerprint, 10_000.0, &[WIDE]);
            costs.observe(&fingerprint, &estimate, Path::Lake, 1e12);
            costs.observe(&fingerprint, &estimate, Path::Postgres, 1.0);
        }
        let then = costs.estimate(&Constants::default(), &fingerprint, 10_000.0, &[WIDE]);
        assert!(then.lake_us > 7.9 * first.lake_us && then.lake_us < 8.1 * first.lake_us, "{then:?}");
        assert!(then.postgres_us < first.postgres_us / 7.9, "{then:?}");
        // Others are not touched.
        assert_eq!(costs.estimate(&Constants::default(), "g", 10_000.0, &[WIDE]).lake_us, first.lake_us);
        // And back again.
        for _ in 0..100 {
            costs.observe(&fingerprint, &then, Path::Lake, first.lake_us);
        }
        let back = costs.estimate(&Constants::default(), &fingerprint, 10_000.0, &[WIDE]).lake_us;
        assert!((back / first.lake_us - 1.0).abs() < 0.01, "{back}");
    }

    #[test]
    fn memory_is_bounded() {
        let costs = Costs::default();
        let estimate = costs.estimate(&Constants::default(), "x", 1.0, &[]);
        for n in 0..3 * REMEMBERED {
            costs.observe(&format!("{n}").into(), &estimate, Path::Lake, 5.0);
        }
        assert!(costs.histories.lock().len() <= REMEMBERED);
    }
}
