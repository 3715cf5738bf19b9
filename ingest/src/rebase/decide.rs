//! Which rows of both stores are the same, and what becomes of each: the algebra of a rebase. Pure.
//!
//! Rows are compared by groups that share a key. A key is what makes two rows the same record: stream and offset for Kafka, whose
//! numbers the broker gives; number and content for loads, whose numbers PostgreSQL gives and gives again after it lost some; the
//! content for rows without a source. Rows of one group are then matched: first those that are equal to the last column, then one of the
//! lake with one of PostgreSQL's.

/// One row, reduced to what the decision needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    /// Rows with equal keys are the same record.
    pub key: u128,
    /// Hash of all columns.
    pub full: u128,
    /// Hash of all columns but those that another reading of the same record fills anew.
    pub essence: u64,
    pub side: Side,
}

/// Where a row stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Lake {
        file: u32,
        row: u32,
        /// Whether PostgreSQL keeps rows of its time no longer.
        below_floor: bool,
    },
    Postgres { part: u32, block: u32, item: u16, xid: u64 },
}

/// What becomes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// A row of the lake that PostgreSQL has lost: it is written there, as it is in the lake.
    Restore,
    /// A row of the lake that comes in the place of one that is [`Fate::Drop`]ped.
    Replace,
    /// A row of PostgreSQL that a row of the lake replaces.
    Drop,
    /// A row that the lake lacks, with a number below the mark: it becomes a row of the rebase's transaction.
    Stamp,
    /// The same, of a Kafka record of which the lake holds other rows.
    Surplus,
}

/// Sets apart the keys of Kafka's records, whose second row may be none of another reading.
const KAFKA: u128 = 1 << 127;

/// The key of a record of Kafka: its stream, under the number that the lake has for it, and its offset.
pub(super) fn kafka_key(stream: i64, offset: i64) -> u128 {
    // Streams have 33 bits with their sign, offsets 64.
    KAFKA | (u128::from(stream as u64 & 0x1_ffff_ffff) << 64) | u128::from(offset as u64)
}

/// The key of any other row.
pub(super) fn content_key(hash: u128) -> u128 {
    hash & !KAFKA
}

/// Decides on the rows of one group. `mark`: every number of the lake is below, and no transaction below it can come any more.
/// Rows that stay as they are get no fate.
pub(super) fn decide(group: &[Row], mark: u64, mut fate: impl FnMut(&Row, Fate)) {
    let (mut lake, mut postgres): (Vec<&Row>, Vec<&Row>) =
        group.iter().partition(|r| matches!(r.side, Side::Lake { .. }));
    let known: Vec<u64> = lake.iter().map(|r| r.essence).collect();
    // Equal to the last column, transaction included: the same row.
    lake.sort_unstable_by_key(|r| r.full);
    postgres.sort_unstable_by_key(|r| r.full);
    let (mut l, mut p) = (0, 0);
    let (mut only_lake, mut only_postgres) = (Vec::new(), Vec::new());
    while l < lake.len() || p < postgres.len() {
        match (lake.get(l), postgres.get(p)) {
            (Some(a), Some(b)) if a.full == b.full => {
                l += 1;
                p += 1;
            }
            (Some(a), Some(b)) if a.full < b.full => {
                only_lake.push(*a);
                l += 1;
            }
            (Some(a), None) => {
                only_lake.push(*a);
                l += 1;
            }
            (_, Some(b)) => {
                only_postgres.push(*b);
                p += 1;
            }
            (None, None) => break,
        }
    }
    // The same record, read again: the lake's row stays.
    only_lake.sort_by_key(|r| r.essence);
    only_postgres.sort_by_key(|r| r.essence);
    let pairs = only_lake.len().min(only_postgres.len());
    for row in only_lake.drain(..pairs) {
        fate(row, Fate::Replace);
    }
    for row in only_postgres.drain(..pairs) {
        fate(row, Fate::Drop);
    }
    for row in only_lake {
        // What retention has dropped stays dropped.
        if let Side::Lake { below_floor: false, .. } = row.side {
            fate(row, Fate::Restore);
        }
    }
    for row in only_postgres {
        let Side::Postgres { xid, .. } = row.side else { continue };
        let of_kafka = row.key & KAFKA != 0;
        if of_kafka && known.contains(&row.essence) {
            // A copy of a row that the lake holds.
            fate(row, Fate::Drop);
        } else if of_kafka && !known.is_empty() {
            fate(row, Fate::Surplus);
        } else if xid < mark {
            fate(row, Fate::Stamp);
        }
    }
}

#[cfg(test)]
mod tests;
