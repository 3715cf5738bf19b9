//! Records of one or both tables in one order, and at a pace. Knows no sinks.

use std::time::{Duration, Instant};

use super::{Counts, Kind, Line, Rows, Spec};

/// Streams of records, told in proportion to their lengths.
#[derive(Debug)]
pub struct Mix {
    streams: Vec<Stream>,
}

#[derive(Debug)]
struct Stream {
    kind: Kind,
    rows: Rows,
    sent: u64,
    of: u64,
}

impl Mix {
    /// All records of all specs.
    pub fn new(specs: &[Spec]) -> Mix {
        let streams = specs
            .iter()
            .map(|s| Stream { kind: s.kind, rows: Rows::starting_at(s, 0), sent: 0, of: s.rows })
            .collect();
        Mix { streams }
    }

    /// The next record and its table, or `None` after the last. The order depends on the specs only.
    pub fn next_line(&mut self) -> Option<(Kind, Line<'_>)> {
        // The stream that is furthest behind, the first of those that are level.
        let mut chosen: Option<usize> = None;
        for (i, s) in self.streams.iter().enumerate().filter(|(_, s)| s.sent < s.of) {
            let behind = chosen.is_none_or(|c| {
                let c = &self.streams[c];
                u128::from(s.sent) * u128::from(c.of) < u128::from(c.sent) * u128::from(s.of)
            });
            if behind {
                chosen = Some(i);
            }
        }
        let stream = &mut self.streams[chosen?];
        stream.sent += 1;
        Some((stream.kind, stream.rows.next_line()?))
    }

    /// What was made so far of all streams together.
    pub fn counts(&self) -> Counts {
        self.streams.iter().map(|s| s.rows.counts()).fold(Counts::default(), |a, b| Counts {
            fresh: a.fresh + b.fresh,
            duplicates: a.duplicates + b.duplicates,
            bad: a.bad + b.bad,
            late: a.late + b.late,
        })
    }
}

/// Keeps to a number of records a second.
#[derive(Debug)]
pub(super) struct Pace {
    began: Instant,
    per_second: Option<u64>,
}

impl Pace {
    pub(super) fn new(per_second: Option<u64>) -> Pace {
        Pace { began: Instant::now(), per_second }
    }

    /// How long to wait after so many records; nothing while that is short: records in company cost less than one by one.
    pub(super) fn ahead(&self, sent: u64) -> Option<Duration> {
        let due = Duration::from_secs_f64(sent as f64 / self.per_second.filter(|r| *r > 0)? as f64);
        due.checked_sub(self.began.elapsed()).filter(|d| *d >= Duration::from_millis(10))
    }
}
