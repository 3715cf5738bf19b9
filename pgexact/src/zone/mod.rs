//! Time zones with PostgreSQL's rules for local times.
//!
//! Knows the IANA data that `chrono-tz` carries and how PostgreSQL resolves local times that a change
//! of offset skips or repeats (`DetermineTimeZoneOffset` in its `datetime.c`). Does not know POSIX zone
//! strings, abbreviations or fixed offsets: those are not zones here.
//!
//! # Where the two databases agree
//!
//! PostgreSQL reads its own or the system's copy of the IANA database. The conversions here answer only
//! where every build of that database says the same:
//! - up to the end of 2099, where `chrono-tz` ends (zones whose last change lies before 2038 have no
//!   further rule and are not limited);
//! - from 1970 on for the zones whose older history depends on how the database was built
//!   (`PACKRATDATA=backzone`, as Debian does, see [`DISPUTED_BEFORE_1970`]); from the beginning of
//!   time for all others.
//!
//! Outside, [`OutsideZoneData`] is returned and the statement belongs to PostgreSQL. [`Zone::changes`]
//! lets a caller compare the whole table with a given server.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::{Arc, LazyLock, Mutex};

use chrono::{NaiveDateTime, Offset, TimeZone};

use crate::PgError;

mod disputed;
#[cfg(test)]
mod tests;

pub use disputed::DISPUTED_BEFORE_1970;

const SECOND_US: i64 = 1_000_000;
const DAY_S: i64 = 86_400;
/// Where the search for changes begins: 1800-01-01. No zone changes earlier.
const SEARCH_FROM_S: i64 = -5_364_662_400;
/// The end of what `chrono-tz` knows: 2100-01-01.
const TABLE_END_S: i64 = 4_102_444_800;
/// 2038-01-01: a zone with no change at or after this instant has no recurring rule.
const RULES_S: i64 = 2_145_916_800;

/// An instant for which the zone's data cannot be relied on: the statement belongs to PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the offset of time zone {zone} at {seconds} s since 1970 is not known to agree with PostgreSQL")]
pub struct OutsideZoneData {
    pub zone: String,
    pub seconds: i64,
}

/// An IANA time zone. Cheap to clone.
#[derive(Clone)]
pub struct Zone(Arc<Table>);

struct Table {
    name: String,
    /// Offset before the first change, seconds east of Greenwich.
    first: i32,
    /// Instant (seconds since 1970) of each change and the offset from then on.
    changes: Vec<(i64, i32)>,
    /// Answers are given for instants in `valid_from..valid_to` (seconds).
    valid_from: i64,
    valid_to: i64,
}

impl std::fmt::Debug for Zone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Zone({})", self.0.name)
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}
impl Eq for Zone {}

impl std::hash::Hash for Zone {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

static TABLES: LazyLock<Mutex<HashMap<&'static str, Zone>>> = LazyLock::new(Default::default);

impl Zone {
    /// The zone of a `TimeZone` setting in the spelling in which PostgreSQL reports it. None for
    /// anything that is not an IANA name known here: the statement stays on PostgreSQL.
    pub fn parse(name: &str) -> Option<Zone> {
        let tz = chrono_tz::Tz::from_str(name).ok()?;
        let key = tz.name();
        if key != name || disputed::REFUSED.contains(&name) {
            return None;
        }
        // A panic while the map is locked cannot leave it half changed.
        let mut tables = TABLES.lock().unwrap_or_else(|e| e.into_inner());
        Some(tables.entry(key).or_insert_with(|| Zone(Arc::new(Table::build(tz)))).clone())
    }

    pub fn utc() -> Zone {
        Zone(Arc::new(Table {
            name: "UTC".into(),
            first: 0,
            changes: Vec::new(),
            valid_from: i64::MIN,
            valid_to: i64::MAX,
        }))
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// True if local time is UTC at every instant.
    pub fn is_utc(&self) -> bool {
        self.0.changes.is_empty() && self.0.first == 0
    }

    /// The instants (µs since 1970) for which this zone answers: from, inclusive, to, exclusive.
    pub fn range_us(&self) -> (i64, i64) {
        (self.0.valid_from.saturating_mul(SECOND_US), self.0.valid_to.saturating_mul(SECOND_US))
    }

    /// Every change of offset: (instant in seconds since 1970, offset from then on in seconds east).
    pub fn changes(&self) -> &[(i64, i32)] {
        &self.0.changes
    }

    /// Seconds east of Greenwich at an instant (seconds since 1970).
    pub fn offset_at(&self, seconds: i64) -> Result<i32, OutsideZoneData> {
        Ok(self.span_at(seconds)?.offset)
    }

    /// The stretch of constant offset around an instant, cut to where the data is valid.
    fn span_at(&self, seconds: i64) -> Result<Span, OutsideZoneData> {
        let t = &*self.0;
        if seconds < t.valid_from || seconds >= t.valid_to {
            return Err(OutsideZoneData { zone: t.name.clone(), seconds });
        }
        let next = t.changes.partition_point(|c| c.0 <= seconds);
        let (from, offset) = if next == 0 { (i64::MIN, t.first) } else { t.changes[next - 1] };
        let to = t.changes.get(next).map_or(i64::MAX, |c| c.0);
        Ok(Span { from: from.max(t.valid_from), to: to.min(t.valid_to), offset })
    }

    /// The offset PostgreSQL gives a local time (seconds since 1970 as if local time were UTC).
    ///
    /// A time that a change forward skips takes the offset before the change, one that a change back
    /// repeats takes the offset after it.
    pub fn offset_of_local(&self, local: i64) -> Result<i32, OutsideZoneData> {
        let t = &*self.0;
        let outside = || OutsideZoneData { zone: t.name.clone(), seconds: local };
        let from = local.checked_sub(DAY_S).ok_or_else(outside)?;
        let next = t.changes.partition_point(|c| c.0 <= from);
        let before = if next == 0 { t.first } else { t.changes[next - 1].1 };
        let offset = match t.changes.get(next) {
            None => before,
            Some(&(boundary, after)) => {
                let with_before = local.checked_sub(i64::from(before)).ok_or_else(outside)?;
                let with_after = local.checked_sub(i64::from(after)).ok_or_else(outside)?;
                if with_before < boundary && with_after < boundary {
                    before
                } else if with_before > boundary && with_after >= boundary {
                    after
                } else if with_before > with_after {
                    before
                } else {
                    after
                }
            }
        };
        let instant = local.checked_sub(i64::from(offset)).ok_or_else(outside)?;
        if instant < t.valid_from || instant >= t.valid_to {
            return Err(OutsideZoneData { zone: t.name.clone(), seconds: instant });
        }
        Ok(offset)
    }

    /// The local wall-clock time of an instant, both in µs since 1970. Infinities pass through.
    pub fn local_of(&self, us: i64) -> Result<i64, OutsideZoneData> {
        Cursor::new(self).local_of(us)
    }

    /// The instant PostgreSQL gives a local wall-clock time, both in µs since 1970. Infinities pass through.
    pub fn instant_of(&self, local_us: i64) -> Result<i64, OutsideZoneData> {
        if !crate::calendar::finite(local_us) {
            return Ok(local_us);
        }
        let offset = self.offset_of_local(local_us.div_euclid(SECOND_US))?;
        local_us
            .checked_sub(i64::from(offset) * SECOND_US)
            .ok_or_else(|| OutsideZoneData { zone: self.0.name.clone(), seconds: local_us / SECOND_US })
    }
}

impl From<OutsideZoneData> for PgError {
    /// Not an error PostgreSQL would raise, but one that tells the gateway to fall back: [`PgError::not_exact`].
    fn from(e: OutsideZoneData) -> Self {
        PgError::not_exact(e.to_string())
    }
}

#[derive(Clone, Copy)]
struct Span {
    from: i64,
    to: i64,
    offset: i32,
}

/// Looks up offsets of instants that are mostly close to one another: remembers the last stretch.
pub struct Cursor<'a> {
    zone: &'a Zone,
    from_us: i64,
    to_us: i64,
    offset_us: i64,
}

impl<'a> Cursor<'a> {
    pub fn new(zone: &'a Zone) -> Self {
        Self { zone, from_us: 0, to_us: 0, offset_us: 0 }
    }

    /// Offset in µs east at a finite instant in µs.
    #[inline]
    pub fn offset_us(&mut self, us: i64) -> Result<i64, OutsideZoneData> {
        if us < self.from_us || us >= self.to_us {
            let span = self.zone.span_at(us.div_euclid(SECOND_US))?;
            self.from_us = span.from.saturating_mul(SECOND_US);
            self.to_us = span.to.saturating_mul(SECOND_US);
            self.offset_us = i64::from(span.offset) * SECOND_US;
        }
        Ok(self.offset_us)
    }

    /// The stretch around the last instant in which its offset holds: from, to, in µs.
    #[inline]
    pub fn stretch_us(&self) -> (i64, i64) {
        (self.from_us, self.to_us)
    }

    /// Local time of an instant, both µs; infinities pass through.
    #[inline]
    pub fn local_of(&mut self, us: i64) -> Result<i64, OutsideZoneData> {
        if !crate::calendar::finite(us) {
            return Ok(us);
        }
        let offset = self.offset_us(us)?;
        us.checked_add(offset)
            .ok_or_else(|| OutsideZoneData { zone: self.zone.name().into(), seconds: us / SECOND_US })
    }
}

impl Table {
    /// Reads the changes out of `chrono-tz`, which has no public list of them: offsets are sampled once
    /// a day and each difference is bisected. No zone changes twice within a day.
    fn build(tz: chrono_tz::Tz) -> Table {
        let offset = |s: i64| -> i32 {
            let at = chrono::DateTime::from_timestamp(s, 0).map_or(NaiveDateTime::MIN, |t| t.naive_utc());
            tz.offset_from_utc_datetime(&at).fix().local_minus_utc()
        };
        let first = offset(SEARCH_FROM_S);
        let mut changes = Vec::new();
        let (mut day, mut current) = (SEARCH_FROM_S, first);
        while day < TABLE_END_S {
            let end = day + DAY_S;
            let after = offset(end);
            if after != current {
                let (mut lo, mut hi) = (day, end);
                while hi - lo > 1 {
                    let mid = lo + (hi - lo) / 2;
                    if offset(mid) == current {
                        lo = mid;
                    } else {
                        hi = mid;
                    }
                }
                changes.push((hi, after));
                current = after;
            }
            day = end;
        }
        let recurring = changes.last().is_some_and(|c| c.0 >= RULES_S);
        let disputed = DISPUTED_BEFORE_1970.binary_search(&tz.name()).is_ok();
        Table {
            name: tz.name().to_owned(),
            first,
            changes,
            valid_from: if disputed { 0 } else { i64::MIN },
            valid_to: if recurring { TABLE_END_S } else { i64::MAX },
        }
    }
}
