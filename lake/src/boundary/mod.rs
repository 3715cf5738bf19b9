//! The algebra of boundaries: which rows a lake version holds, which are its tail, whom it may serve. Pure; no I/O.
//!
//! A boundary is a PostgreSQL snapshot as `pg_current_snapshot()` prints it, `xmin:xmax:xip,...`: every transaction below `xmin` had
//! ended, none from `xmax` on had begun to be visible, and of those between, the listed ones were still running.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// A PostgreSQL snapshot of top-level transactions, with 64 bit ids.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Boundary {
    /// Every transaction below was over.
    pub xmin: u64,
    /// No transaction from here on is seen.
    pub xmax: u64,
    /// The running ones in `xmin..xmax`: ascending, each once.
    pub xip: Vec<u64>,
}

impl Boundary {
    /// The boundary of a table of which nothing was archived: it sees no row and may serve every snapshot.
    pub const NOTHING: Self = Self { xmin: 0, xmax: 0, xip: Vec::new() };

    /// Whether the effects of `xid`, if it committed before the snapshot was taken, are inside (`pg_visible_in_snapshot`).
    pub fn sees(&self, xid: u64) -> bool {
        xid < self.xmin || (xid < self.xmax && self.xip.binary_search(&xid).is_err())
    }

    /// The SQL condition for rows that are *not* inside, in a form that an index on the column serves: rows of transactions that
    /// are visible now and were not then. `column` is pasted as it is: quote and qualify it. Safe under any `search_path`.
    pub fn tail_predicate(&self, column: &str) -> String {
        let later = format!("{column} OPERATOR(pg_catalog.>=) '{}'::pg_catalog.xid8", self.xmax);
        if self.xip.is_empty() {
            return format!("({later})");
        }
        let running = self.xip.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        format!("({later} OR {column} OPERATOR(pg_catalog.=) ANY ('{{{running}}}'::pg_catalog.xid8[]))")
    }

    /// Whether a lake version with this boundary may answer a statement whose snapshot is `snapshot`: whatever the boundary sees,
    /// the snapshot must see as well.
    pub fn serves(&self, snapshot: &Self) -> bool {
        self.xmax <= snapshot.xmax
            && snapshot.xip.iter().take_while(|x| **x < self.xmax).all(|x| self.xip.binary_search(x).is_ok())
    }
}

impl fmt::Display for Boundary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.xmin, self.xmax)?;
        for (i, x) in self.xip.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{x}")?;
        }
        Ok(())
    }
}

impl FromStr for Boundary {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        parse(s).ok_or_else(|| Error::Boundary(s.chars().take(200).collect()))
    }
}

fn parse(s: &str) -> Option<Boundary> {
    let number = |t: &str| -> Option<u64> {
        // u64::from_str takes a leading plus, PostgreSQL never writes one.
        t.starts_with(|c: char| c.is_ascii_digit()).then(|| t.parse().ok())?
    };
    let mut parts = s.split(':');
    let (xmin, xmax) = (number(parts.next()?)?, number(parts.next()?)?);
    let list = parts.next()?;
    if parts.next().is_some() || xmin > xmax {
        return None;
    }
    let mut xip = Vec::new();
    if !list.is_empty() {
        for item in list.split(',') {
            let x = number(item)?;
            if x < xmin || x >= xmax {
                return None;
            }
            match xip.last() {
                // A prepared transaction may stand in the list twice.
                Some(&last) if last == x => {}
                Some(&last) if last > x => return None,
                _ => xip.push(x),
            }
        }
    }
    Some(Boundary { xmin, xmax, xip })
}

#[cfg(test)]
mod tests;
