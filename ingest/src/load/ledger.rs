//! What is known of contents loaded before, and what follows from it for the content at hand. The decisions are pure; the
//! statements beside them are all that touches `watershed_control.loads`. Knows no formats and no rows.
//!
//! Glossary: a *content* is the unpacked bytes of a source; an *entry* says how far one content was loaded; an entry
//! *fits* a content if its own content is that content or a beginning of it; a *tail* is a last record without a line end.

use sqlx::{PgConnection, Row};

use crate::Result;
use crate::decode::input::Scan;

/// Where a load stands, counted from the beginning of its content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Records dealt with.
    pub rows: u64,
    /// Line ends passed.
    pub lines: u64,
    /// Bytes of content passed.
    pub bytes: u64,
}

/// A last record without its line end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    /// Its length in bytes.
    pub bytes: u64,
    /// True if it became a row.
    pub loaded: bool,
}

/// One row of `watershed_control.loads`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub id: i64,
    pub content_hash: String,
    pub content_bytes: u64,
    pub done: Progress,
    pub rows_loaded: u64,
    pub rows_rejected: u64,
    pub tail: Option<Tail>,
    pub reject_first: bool,
    pub state: Option<String>,
    pub finished: bool,
}

/// What is to be done next for a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing: all of it is loaded.
    Done(Entry),
    /// Go on with this entry up to the end of its content, which may be a beginning of the one at hand.
    Continue(Entry),
    /// Register a new entry that starts after this finished one.
    Extend(Entry),
    /// Register a new entry that starts at the beginning.
    Start,
}

/// Decides by the longest entry that fits.
pub fn next(entries: &[Entry], scan: &Scan) -> Next {
    let fits = |e: &&Entry| {
        if e.content_bytes == scan.bytes {
            e.content_hash == scan.hash
        } else {
            scan.prefixes.get(&e.content_bytes) == Some(&e.content_hash)
        }
    };
    match entries.iter().filter(fits).max_by_key(|e| e.content_bytes) {
        None => Next::Start,
        Some(e) if !e.finished => Next::Continue(e.clone()),
        Some(e) if e.content_bytes == scan.bytes => Next::Done(e.clone()),
        Some(e) => Next::Extend(e.clone()),
    }
}

/// Where a new entry starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Start {
    pub parent: Option<i64>,
    pub done: Progress,
    pub rows_loaded: u64,
    pub rows_rejected: u64,
    pub reject_first: bool,
    pub state: Option<String>,
}

/// Where the load of a grown content starts, given what follows directly after the content of its parent.
///
/// A record that had no line end is complete if a line end follows now: nothing of it is read again. If more of it
/// follows, it is read again; where its first part already became a row, the whole record is refused with that reason,
/// since a row cannot be changed.
pub fn extension(parent: &Entry, following: &[u8]) -> Start {
    let start = Start {
        parent: Some(parent.id),
        done: parent.done,
        rows_loaded: parent.rows_loaded,
        rows_rejected: parent.rows_rejected,
        reject_first: false,
        state: parent.state.clone(),
    };
    let complete = following.starts_with(b"\n") || following.starts_with(b"\r\n");
    match parent.tail {
        Some(tail) if !complete => Start {
            done: Progress {
                rows: start.done.rows.saturating_sub(1),
                lines: start.done.lines,
                bytes: start.done.bytes.saturating_sub(tail.bytes),
            },
            rows_rejected: if tail.loaded {
                start.rows_rejected
            } else {
                start.rows_rejected.saturating_sub(1)
            },
            reject_first: tail.loaded,
            ..start
        },
        _ => start,
    }
}

const COLUMNS: &str = "id, content_hash, content_bytes, rows_done, lines_done, bytes_done, rows_loaded, rows_rejected, \
    tail_bytes, tail_loaded, reject_first, state, finished";

fn entry(row: &sqlx::postgres::PgRow) -> Result<Entry, sqlx::Error> {
    let n = |i: usize| -> Result<u64, sqlx::Error> { Ok(row.try_get::<i64, _>(i)?.max(0) as u64) };
    let tail_bytes = n(8)?;
    Ok(Entry {
        id: row.try_get(0)?,
        content_hash: row.try_get(1)?,
        content_bytes: n(2)?,
        done: Progress { rows: n(3)?, lines: n(4)?, bytes: n(5)? },
        rows_loaded: n(6)?,
        rows_rejected: n(7)?,
        tail: if tail_bytes > 0 { Some(Tail { bytes: tail_bytes, loaded: row.try_get(9)? }) } else { None },
        reject_first: row.try_get(10)?,
        state: row.try_get(11)?,
        finished: row.try_get(12)?,
    })
}

/// Lengths of all contents known for a table and format, up to `max` bytes.
pub async fn lengths(conn: &mut PgConnection, relid: u32, format: &str, max: u64) -> Result<Vec<u64>> {
    let found: Vec<i64> = sqlx::query_scalar(
        "SELECT DISTINCT content_bytes FROM watershed_control.loads \
         WHERE relid = $1::int8::oid AND format = $2 AND content_bytes <= $3",
    )
    .bind(i64::from(relid))
    .bind(format)
    .bind(i64::try_from(max).unwrap_or(i64::MAX))
    .fetch_all(conn)
    .await?;
    Ok(found.into_iter().map(|n| n as u64).collect())
}

/// The entries whose contents have one of these hashes.
pub async fn entries(
    conn: &mut PgConnection,
    relid: u32,
    format: &str,
    hashes: Vec<String>,
) -> Result<Vec<Entry>> {
    let rows = sqlx::query(crate::sink::built(format!(
        "SELECT {COLUMNS} FROM watershed_control.loads \
         WHERE relid = $1::int8::oid AND format = $2 AND content_hash = ANY ($3)"
    )))
    .bind(i64::from(relid))
    .bind(format)
    .bind(hashes)
    .fetch_all(conn)
    .await?;
    Ok(rows.iter().map(entry).collect::<Result<_, _>>()?)
}

/// One entry as it is now.
pub async fn read(conn: &mut PgConnection, id: i64) -> Result<Option<Entry>> {
    let row = sqlx::query(crate::sink::built(format!(
        "SELECT {COLUMNS} FROM watershed_control.loads WHERE id = $1"
    )))
    .bind(id)
    .fetch_optional(conn)
    .await?;
    Ok(row.as_ref().map(entry).transpose()?)
}

/// What identifies a content.
#[derive(Debug, Clone, Copy)]
pub struct Key<'a> {
    pub relid: u32,
    pub format: &'a str,
    pub hash: &'a str,
    pub bytes: u64,
    /// Name of the file, for people.
    pub source: &'a str,
}

/// Writes a new entry.
pub async fn insert(conn: &mut PgConnection, key: Key<'_>, start: &Start) -> Result<Entry> {
    let row = sqlx::query(crate::sink::built(format!(
        "INSERT INTO watershed_control.loads (relid, format, content_hash, content_bytes, source, parent, rows_done, \
         lines_done, bytes_done, rows_loaded, rows_rejected, reject_first, state) \
         VALUES ($1::int8::oid, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) RETURNING {COLUMNS}"
    )))
    .bind(i64::from(key.relid))
    .bind(key.format)
    .bind(key.hash)
    .bind(key.bytes as i64)
    .bind(key.source)
    .bind(start.parent)
    .bind(start.done.rows as i64)
    .bind(start.done.lines as i64)
    .bind(start.done.bytes as i64)
    .bind(start.rows_loaded as i64)
    .bind(start.rows_rejected as i64)
    .bind(start.reject_first)
    .bind(start.state.as_deref())
    .fetch_one(conn)
    .await?;
    Ok(entry(&row)?)
}

/// A step of a load: what its entry becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advance {
    pub to: Progress,
    pub loaded: u64,
    pub rejected: u64,
    pub tail: Option<Tail>,
    pub state: Option<String>,
    pub finished: bool,
}

/// Moves an entry on, guarded by the progress that was read. False if somebody else moved it: roll back.
pub async fn advance(
    conn: &mut PgConnection,
    id: i64,
    from: Progress,
    step: &Advance,
) -> Result<bool, sqlx::Error> {
    let moved = sqlx::query(
        "UPDATE watershed_control.loads SET rows_done = $3, lines_done = $4, bytes_done = $5, \
         rows_loaded = rows_loaded + $6, rows_rejected = rows_rejected + $7, tail_bytes = $8, tail_loaded = $9, \
         state = coalesce($10, state), finished = $11, reject_first = false, updated_at = pg_catalog.now() \
         WHERE id = $1 AND rows_done = $2 AND bytes_done = $12 AND NOT finished",
    )
    .bind(id)
    .bind(from.rows as i64)
    .bind(step.to.rows as i64)
    .bind(step.to.lines as i64)
    .bind(step.to.bytes as i64)
    .bind(step.loaded as i64)
    .bind(step.rejected as i64)
    .bind(step.tail.map_or(0, |t| t.bytes) as i64)
    .bind(step.tail.is_some_and(|t| t.loaded))
    .bind(step.state.as_deref())
    .bind(step.finished)
    .bind(from.bytes as i64)
    .execute(conn)
    .await?;
    Ok(moved.rows_affected() == 1)
}

/// Corrects the counts of the step just taken, after PostgreSQL refused some of its rows.
pub async fn refuse(
    conn: &mut PgConnection,
    id: i64,
    refused: u64,
    tail_refused: bool,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE watershed_control.loads SET rows_loaded = rows_loaded - $2, rows_rejected = rows_rejected + $2, \
         tail_loaded = tail_loaded AND NOT $3 WHERE id = $1",
    )
    .bind(id)
    .bind(refused as i64)
    .bind(tail_refused)
    .execute(conn)
    .await
    .map(|_| ())
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
