//! Batches to PostgreSQL: COPY into the parent table within a transaction that the caller opened and moved its position
//! in first; a row that PostgreSQL refuses costs only itself. Knows no files, no formats and no HTTP.

use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgDatabaseError};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};

use crate::batch::{Batch, Rejected, Segment};
use crate::error::is_rows_fault;
use crate::map::Mapper;
use crate::{Error, Result};

pub use crate::letters::write::{LetterSource, dead_letters, letters};

/// What every row of a batch gets as its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbering {
    /// Rows of a source stream, numbered from here on.
    Stream { stream: i32, first: i64 },
    /// Rows without a source identity: `_stream` 0 and `_offset` 0.
    Plain,
    /// Rows that carry their identity and line end in their text already (see [`crate::batch::Batch::identify`]).
    Written,
}

/// The settings that rows are written under, whatever the role or the database say.
const SETTINGS: &str = "SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; \
    SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
    SET synchronous_commit = on; SET client_min_messages = warning; SET extra_float_digits = 1";

/// Parses a PostgreSQL URL and names the application in it.
pub fn connect_options(database_url: &str, application: &str) -> Result<PgConnectOptions> {
    Ok(PgConnectOptions::from_str(database_url)?.application_name(application).disable_statement_logging())
}

/// Pins a new connection to the settings that rows are written under.
pub async fn prepare(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(SETTINGS).execute(conn).await.map(|_| ())
}

/// A connection of its own that holds advisory locks, and can be made anew with the same locks.
#[derive(Debug)]
pub struct Session {
    conn: PgConnection,
    options: PgConnectOptions,
    locks: Vec<i64>,
}

impl Session {
    /// Connects.
    pub async fn connect(options: PgConnectOptions) -> Result<Session> {
        let mut conn = PgConnection::connect_with(&options).await?;
        prepare(&mut conn).await?;
        Ok(Session { conn, options, locks: Vec::new() })
    }

    /// The connection.
    pub fn conn(&mut self) -> &mut PgConnection {
        &mut self.conn
    }

    /// Takes a session lock, waiting for whoever holds it. Not cancel safe: drop the session afterwards.
    pub async fn lock(&mut self, key: i64) -> Result<()> {
        sqlx::query("SELECT pg_catalog.pg_advisory_lock($1)").bind(key).execute(&mut self.conn).await?;
        self.locks.push(key);
        Ok(())
    }

    /// Gives a session lock back.
    pub async fn unlock(&mut self, key: i64) -> Result<()> {
        sqlx::query("SELECT pg_catalog.pg_advisory_unlock($1)").bind(key).execute(&mut self.conn).await?;
        self.locks.retain(|k| *k != key);
        Ok(())
    }

    /// Connects again after a failure and takes the same locks, waiting at most `patience` for the server to come back.
    pub async fn reconnect(&mut self, patience: Duration) -> Result<()> {
        let deadline = tokio::time::Instant::now() + patience;
        let mut pause = Duration::from_millis(100);
        loop {
            match self.try_reconnect().await {
                Ok(()) => return Ok(()),
                Err(e) if !e.is_transient() || tokio::time::Instant::now() + pause > deadline => {
                    return Err(e);
                }
                Err(e) => tracing::warn!(error = %e, "waiting for postgresql"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    async fn try_reconnect(&mut self) -> Result<()> {
        let mut conn = PgConnection::connect_with(&self.options).await?;
        prepare(&mut conn).await?;
        for key in &self.locks {
            sqlx::query("SELECT pg_catalog.pg_advisory_lock($1)").bind(key).execute(&mut conn).await?;
        }
        self.conn = conn;
        Ok(())
    }

    /// Closes the connection; its locks go with it.
    pub async fn close(self) {
        // Whatever the goodbye says, the socket is gone after it.
        let _ = self.conn.close().await;
    }
}

/// Runs one fixed statement without parameters.
pub async fn run(conn: &mut PgConnection, sql: &'static str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(sql).execute(conn).await.map(|_| ())
}

/// How far a COPY goes to find the rows that PostgreSQL refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Care {
    /// One COPY a segment; any refusal is an error, and the caller rolls back and comes again with [`Care::Bisect`].
    None,
    /// Under savepoints, splitting what fails until single rows are left.
    Bisect,
}

/// Writes the rows of a batch inside the caller's open transaction. Gives the rows that PostgreSQL refused, which is
/// none unless bisecting.
///
/// # Errors
/// Anything that is no row's fault, and with [`Care::None`] anything at all: the transaction must be rolled back.
pub async fn copy_batch(
    conn: &mut PgConnection,
    mapper: &Mapper,
    batch: &Batch,
    numbering: Numbering,
    care: Care,
) -> Result<Vec<Rejected>, sqlx::Error> {
    let mut refused = Vec::new();
    for segment in batch.segments.iter().filter(|s| !s.is_empty()) {
        let statement = mapper.copy_statement(segment.absent);
        match care {
            Care::None => copy_rows(conn, &statement, segment, 0..segment.len(), numbering).await?,
            Care::Bisect => bisect(conn, &statement, segment, numbering, &mut refused).await?,
        }
    }
    Ok(refused)
}

/// Ranges still to be copied are kept on a stack, the first on top, so that rows keep their order.
async fn bisect(
    conn: &mut PgConnection,
    statement: &str,
    segment: &Segment,
    numbering: Numbering,
    refused: &mut Vec<Rejected>,
) -> Result<(), sqlx::Error> {
    let mut ranges: Vec<Range<usize>> = vec![0..segment.len()];
    while let Some(range) = ranges.pop() {
        if range.is_empty() {
            continue;
        }
        run(conn, "SAVEPOINT watershed_rows").await?;
        let error = match copy_rows(conn, statement, segment, range.clone(), numbering).await {
            Ok(()) => {
                run(conn, "RELEASE SAVEPOINT watershed_rows").await?;
                continue;
            }
            Err(e) if is_rows_fault(&e) => e,
            Err(e) => return Err(e),
        };
        run(conn, "ROLLBACK TO SAVEPOINT watershed_rows; RELEASE SAVEPOINT watershed_rows").await?;
        if range.len() == 1 {
            let row = segment.row(range.start);
            refused.push(Rejected {
                line: row.line,
                stage: "postgres",
                reason: explain(&error),
                raw: row.raw.to_vec(),
            });
            continue;
        }
        match failing_row(&error).filter(|n| *n < range.len()) {
            // PostgreSQL says which line of the COPY it was. If that is wrong, the pieces fail again and get smaller.
            Some(n) => {
                let bad = range.start + n;
                ranges.push(bad + 1..range.end);
                ranges.push(bad..bad + 1);
                ranges.push(range.start..bad);
            }
            None => {
                let middle = range.start + range.len() / 2;
                ranges.push(middle..range.end);
                ranges.push(range.start..middle);
            }
        }
    }
    Ok(())
}

/// Bytes collected before they are sent.
const SEND_BYTES: usize = 256 * 1024;

async fn copy_rows(
    conn: &mut PgConnection,
    statement: &str,
    segment: &Segment,
    range: Range<usize>,
    numbering: Numbering,
) -> Result<(), sqlx::Error> {
    let expected = range.len() as u64;
    let mut copy = conn.copy_in_raw(statement).await?;
    if numbering == Numbering::Written {
        for part in segment.text_of(range).chunks(SEND_BYTES) {
            copy.send(part).await?;
        }
        return copied(copy.finish().await?, expected);
    }
    let mut buffer: Vec<u8> = Vec::with_capacity(SEND_BYTES + 4096);
    for i in range {
        let row = segment.row(i);
        buffer.extend_from_slice(row.text);
        match numbering {
            Numbering::Stream { stream, first } => {
                buffer.push(b'\t');
                push_decimal(&mut buffer, i64::from(stream));
                buffer.push(b'\t');
                push_decimal(&mut buffer, first + i64::from(row.number));
                buffer.push(b'\n');
            }
            Numbering::Plain => buffer.extend_from_slice(b"\t0\t0\n"),
            Numbering::Written => {} // sent above
        }
        if buffer.len() >= SEND_BYTES {
            copy.send(buffer.as_slice()).await?;
            buffer.clear();
        }
    }
    if !buffer.is_empty() {
        copy.send(buffer.as_slice()).await?;
    }
    copied(copy.finish().await?, expected)
}

fn copied(written: u64, expected: u64) -> Result<(), sqlx::Error> {
    if written != expected {
        // A rule or a trigger that swallows rows would break every count downstream.
        return Err(sqlx::Error::Protocol(format!("COPY took {written} of {expected} rows")));
    }
    Ok(())
}

/// Appends a number in decimal.
pub fn push_decimal(out: &mut Vec<u8>, value: i64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

/// The row that `COPY logs, line 12, column ts: "x"` speaks of, counted from 0. The sentence is translated, so only its
/// first number after the comma counts.
fn failing_row(error: &sqlx::Error) -> Option<usize> {
    let sqlx::Error::Database(e) = error else { return None };
    let context = e.try_downcast_ref::<PgDatabaseError>()?.r#where()?;
    line_of_context(context)
}

fn line_of_context(context: &str) -> Option<usize> {
    let after = context.lines().find(|l| l.starts_with("COPY "))?.split_once(", ")?.1;
    let digits: String =
        after.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse::<usize>().ok()?.checked_sub(1)
}

/// Message, SQLSTATE and column of a refusal.
fn explain(error: &sqlx::Error) -> String {
    let sqlx::Error::Database(e) = error else { return error.to_string() };
    let code = e.code().unwrap_or_default();
    match e.try_downcast_ref::<PgDatabaseError>() {
        Some(pg) => {
            let detail = pg.detail().map(|d| format!("; {d}")).unwrap_or_default();
            format!("{} ({code}{detail})", pg.message())
        }
        None => format!("{} ({code})", e.message()),
    }
}

/// Rolls back, if the connection still answers.
pub async fn rollback(conn: &mut PgConnection) {
    if let Err(e) = run(conn, "ROLLBACK").await {
        tracing::debug!(error = %e, "rollback was not answered");
    }
}

/// Allots numbers of a stream to rows of the open transaction: gives the first of them.
///
/// # Errors
/// [`Error::Fenced`] if the stream has no position.
pub async fn allot(conn: &mut PgConnection, stream: i32, rows: usize) -> Result<i64> {
    let next: Option<i64> = sqlx::query_scalar(
        "SELECT next_offset FROM watershed_control.positions WHERE stream = $1 FOR UPDATE",
    )
    .bind(stream)
    .fetch_optional(&mut *conn)
    .await?;
    let first = next.ok_or_else(|| Error::Fenced(format!("stream {stream}")))?;
    let moved = sqlx::query(
        "UPDATE watershed_control.positions SET next_offset = $3 WHERE stream = $1 AND next_offset = $2",
    )
    .bind(stream)
    .bind(first)
    .bind(first + rows as i64)
    .execute(&mut *conn)
    .await?;
    if moved.rows_affected() != 1 {
        return Err(Error::Fenced(format!("stream {stream}")));
    }
    Ok(first)
}

/// The key of an advisory lock, from a name.
pub async fn lock_key(conn: &mut PgConnection, name: &str) -> Result<i64> {
    Ok(sqlx::query_scalar("SELECT pg_catalog.hashtextextended($1, 0)").bind(name).fetch_one(conn).await?)
}

/// A statement that was built here, from quoted names.
pub fn built(sql: String) -> AssertSqlSafe<String> {
    AssertSqlSafe(sql)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_copy_context() {
        assert_eq!(line_of_context("COPY logs, line 12, column ts: \"x\""), Some(11));
        assert_eq!(line_of_context("PL/pgSQL function f() line 3\nCOPY logs, line 7"), Some(6));
        assert_eq!(line_of_context("COPY logs, Zeile 7"), Some(6));
        assert_eq!(line_of_context("something else, line 7"), None);
        assert_eq!(line_of_context("COPY l2, line 0"), None);
    }

    #[test]
    fn decimals() {
        for v in [0, 7, -1, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            push_decimal(&mut out, v);
            assert_eq!(String::from_utf8(out).unwrap(), v.to_string());
        }
    }
}
