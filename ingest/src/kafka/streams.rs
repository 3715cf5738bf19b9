//! Streams and positions in PostgreSQL: registering a partition, moving positions, reporting gaps, telling the status.
//! Each function is one step of a transaction that its caller opened, or one of its own where it says so.
//!
//! A *position* is the next offset to be read of a stream. It moves only in the transaction that inserts the rows before
//! it, and only from the value that the writer expects; so it is true after any crash, and two writers cannot both move it.

use sqlx::{PgConnection, Row};

use super::place::{Gap, Held, Log, Step, decide};
use crate::sink::{rollback, run};
use crate::{Error, Result};

/// A partition that may be read: its stream and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opened {
    pub stream: i32,
    pub next: i64,
    /// Leader epoch of the last record read; -1 where it is not known.
    pub epoch: i32,
    pub topic_id: Option<String>,
    /// What was done, for the log; None for nothing worth a line.
    pub report: Option<String>,
    /// Something is missing: worth a warning.
    pub news: bool,
}

/// Finds or registers the stream of a partition and its position, and reports what the log no longer has, in one
/// transaction of its own. None if the log seems to have been cut, and the caller is not sure of it: nothing is changed
/// then.
///
/// # Errors
/// PostgreSQL's; among them 23505 if another process registered it at the same moment.
pub(super) async fn open(
    conn: &mut PgConnection,
    relid: u32,
    topic: &str,
    partition: i32,
    log: &Log,
    sure: bool,
) -> Result<Option<Opened>> {
    run(conn, "BEGIN").await?;
    match open_in(conn, relid, topic, partition, log, sure).await {
        Ok(opened) => {
            run(conn, "COMMIT").await?;
            Ok(opened)
        }
        Err(e) => {
            rollback(conn).await;
            Err(e)
        }
    }
}

async fn open_in(
    conn: &mut PgConnection,
    relid: u32,
    topic: &str,
    partition: i32,
    log: &Log,
    sure: bool,
) -> Result<Option<Opened>> {
    // The position is locked, so that what is decided here holds until it is written.
    let row = sqlx::query(
        "SELECT s.id, s.topic_id, coalesce(s.leader_epoch, -1), p.next_offset, st.end_offset \
         FROM watershed_control.streams s \
         JOIN watershed_control.positions p ON p.stream = s.id \
         LEFT JOIN watershed_control.stream_status st ON st.stream = s.id \
         WHERE s.kind = 'kafka' AND s.relid = $1::int8::oid AND s.topic = $2 AND s.partition = $3 \
           AND s.ended_at IS NULL FOR UPDATE OF p",
    )
    .bind(i64::from(relid))
    .bind(topic)
    .bind(partition)
    .fetch_optional(&mut *conn)
    .await?;
    let Some(row) = row else {
        let Step::Begin { at } = decide(None, log) else {
            return Err(Error::Internal("a partition without a stream must begin".to_owned()));
        };
        let stream = register(conn, relid, topic, partition, log.topic_id.as_deref(), at).await?;
        let report = Some(format!("stream {stream} begins at offset {at}"));
        return Ok(Some(Opened {
            stream,
            next: at,
            epoch: -1,
            topic_id: log.topic_id.clone(),
            report,
            news: false,
        }));
    };
    let stream: i32 = row.try_get(0)?;
    let held = Held { topic_id: row.try_get(1)?, next: row.try_get(3)?, end_seen: row.try_get(4)? };
    let epoch: i32 = row.try_get(2)?;
    let topic_id = log.topic_id.clone().or_else(|| held.topic_id.clone());
    match decide(Some(&held), log) {
        Step::Resume | Step::Begin { .. } => {
            if held.topic_id.is_none() && log.topic_id.is_some() {
                sqlx::query("UPDATE watershed_control.streams SET topic_id = $2 WHERE id = $1")
                    .bind(stream)
                    .bind(&log.topic_id)
                    .execute(&mut *conn)
                    .await?;
            }
            Ok(Some(Opened { stream, next: held.next, epoch, topic_id, report: None, news: false }))
        }
        Step::Skip(gap) => {
            let to = gap.to.unwrap_or(gap.from);
            // Moved from what was read under the lock.
            sqlx::query(
                "UPDATE watershed_control.positions SET next_offset = $3 WHERE stream = $1 AND next_offset = $2",
            )
            .bind(stream)
            .bind(gap.from)
            .bind(to)
            .execute(&mut *conn)
            .await?;
            write_gap(conn, stream, &gap).await?;
            let report = Some(format!("offsets {} to {} {}", gap.from, to - 1, gap.reason));
            Ok(Some(Opened { stream, next: to, epoch: -1, topic_id, report, news: true }))
        }
        Step::Replace { .. } if !sure && same(&held, log) => Ok(None),
        Step::Replace { reason, lost, at, missing } => {
            sqlx::query(
                "UPDATE watershed_control.streams SET ended_at = pg_catalog.now(), end_reason = $2 WHERE id = $1",
            )
            .bind(stream)
            .bind(&reason)
            .execute(&mut *conn)
            .await?;
            write_gap(conn, stream, &lost).await?;
            let fresh = register(conn, relid, topic, partition, topic_id.as_deref(), at).await?;
            if let Some(gap) = missing {
                write_gap(conn, fresh, &gap).await?;
            }
            let report = Some(format!(
                "{reason}; stream {stream} ended at offset {}, stream {fresh} begins at offset {at}",
                held.next
            ));
            Ok(Some(Opened { stream: fresh, next: at, epoch: -1, topic_id, report, news: true }))
        }
    }
}

/// True unless the ids say that it is another topic.
fn same(held: &Held, log: &Log) -> bool {
    held.topic_id.is_none() || log.topic_id.is_none() || held.topic_id == log.topic_id
}

async fn register(
    conn: &mut PgConnection,
    relid: u32,
    topic: &str,
    partition: i32,
    topic_id: Option<&str>,
    at: i64,
) -> Result<i32> {
    let stream: i32 = sqlx::query_scalar(
        "WITH fresh AS (INSERT INTO watershed_control.streams (kind, relid, topic, topic_id, partition, start_offset) \
         VALUES ('kafka', $1::int8::oid, $2, $3, $4, $5) RETURNING id) SELECT id FROM fresh",
    )
    .bind(i64::from(relid))
    .bind(topic)
    .bind(topic_id)
    .bind(partition)
    .bind(at)
    .fetch_one(&mut *conn)
    .await?;
    sqlx::query("INSERT INTO watershed_control.positions (stream, next_offset) VALUES ($1, $2)")
        .bind(stream)
        .bind(at)
        .execute(&mut *conn)
        .await?;
    Ok(stream)
}

async fn write_gap(conn: &mut PgConnection, stream: i32, gap: &Gap) -> Result<()> {
    sqlx::query(
        "INSERT INTO watershed_control.stream_gaps (stream, from_offset, to_offset, reason) VALUES ($1, $2, $3, $4)",
    )
    .bind(stream)
    .bind(gap.from)
    .bind(gap.to)
    .bind(&gap.reason)
    .execute(&mut *conn)
    .await?;
    crate::metrics::counter("watershed_kafka_gaps_total", &[]).inc();
    Ok(())
}

/// One stream's move: from the expected position to the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Move {
    pub stream: i32,
    pub from: i64,
    pub to: i64,
}

/// What the first statement of a batch found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moved {
    /// All positions were as expected, and are moved.
    pub all: bool,
    /// The table's schema epoch.
    pub schema_epoch: i32,
    /// The table is of this cluster's present lineage.
    pub lineage: bool,
}

/// Positions are locked in stream order, so that two processes with an overlap wait for one another and cannot deadlock;
/// whoever waited looks at the position again.
const MOVE: &str = "\
    WITH wanted AS (SELECT w.stream, w.expected, w.fresh \
                    FROM ROWS FROM (pg_catalog.unnest($1::int4[]), pg_catalog.unnest($2::int8[]), \
                                    pg_catalog.unnest($3::int8[])) AS w(stream, expected, fresh)), \
    held AS MATERIALIZED (SELECT p.stream FROM watershed_control.positions p JOIN wanted w ON p.stream = w.stream \
                          WHERE p.next_offset = w.expected ORDER BY p.stream FOR UPDATE OF p), \
    moved AS (UPDATE watershed_control.positions p SET next_offset = w.fresh FROM wanted w, held h \
              WHERE p.stream = w.stream AND h.stream = w.stream AND p.next_offset = w.expected RETURNING p.stream) \
    SELECT (SELECT pg_catalog.count(*) FROM moved), t.schema_epoch, \
           t.lineage = watershed_control.current_lineage() \
    FROM watershed_control.tables t WHERE t.relid = $4::int8::oid";

/// Moves the positions of a batch, first in its transaction, and looks at the table's fence in the same statement. None
/// if the table is no longer tiered.
pub(super) async fn move_positions(
    conn: &mut PgConnection,
    relid: u32,
    moves: &[Move],
) -> Result<Option<Moved>, sqlx::Error> {
    let streams: Vec<i32> = moves.iter().map(|m| m.stream).collect();
    let from: Vec<i64> = moves.iter().map(|m| m.from).collect();
    let to: Vec<i64> = moves.iter().map(|m| m.to).collect();
    let row = sqlx::query(MOVE)
        .bind(streams)
        .bind(from)
        .bind(to)
        .bind(i64::from(relid))
        .fetch_optional(&mut *conn)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let count: i64 = row.try_get(0)?;
    Ok(Some(Moved {
        all: count == moves.len() as i64,
        schema_epoch: row.try_get(1)?,
        lineage: row.try_get(2)?,
    }))
}

/// Positions as they are now: (stream, next offset).
pub(super) async fn positions(
    conn: &mut PgConnection,
    streams: &[i32],
) -> Result<Vec<(i32, i64)>, sqlx::Error> {
    let rows =
        sqlx::query("SELECT stream, next_offset FROM watershed_control.positions WHERE stream = ANY($1)")
            .bind(streams.to_vec())
            .fetch_all(&mut *conn)
            .await?;
    rows.iter().map(|r| Ok((r.try_get(0)?, r.try_get(1)?))).collect()
}

/// Notes the leader epochs that records of a batch carried, in its transaction.
pub(super) async fn note_epochs(conn: &mut PgConnection, epochs: &[(i32, i32)]) -> Result<(), sqlx::Error> {
    if epochs.is_empty() {
        return Ok(());
    }
    let (streams, epochs): (Vec<i32>, Vec<i32>) = epochs.iter().copied().unzip();
    sqlx::query(
        "UPDATE watershed_control.streams s SET leader_epoch = e.epoch \
         FROM ROWS FROM (pg_catalog.unnest($1::int4[]), pg_catalog.unnest($2::int4[])) AS e(stream, epoch) \
         WHERE s.id = e.stream",
    )
    .bind(streams)
    .bind(epochs)
    .execute(&mut *conn)
    .await
    .map(|_| ())
}

/// What the owner of a stream says of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Status {
    pub stream: i32,
    pub state: String,
    pub end: Option<i64>,
    pub lag_records: Option<i64>,
    pub lag_seconds: Option<f64>,
}

/// Writes the status of streams.
pub(super) async fn tell(conn: &mut PgConnection, owner: &str, all: &[Status]) -> Result<(), sqlx::Error> {
    let streams: Vec<i32> = all.iter().map(|s| s.stream).collect();
    let states: Vec<&str> = all.iter().map(|s| s.state.as_str()).collect();
    let ends: Vec<Option<i64>> = all.iter().map(|s| s.end).collect();
    let records: Vec<Option<i64>> = all.iter().map(|s| s.lag_records).collect();
    let seconds: Vec<Option<f64>> = all.iter().map(|s| s.lag_seconds).collect();
    // In stream order: two processes may both believe that they own a stream for a moment.
    sqlx::query(
        "INSERT INTO watershed_control.stream_status AS st (stream, owner, state, end_offset, lag_records, lag_seconds, updated_at) \
         SELECT u.stream, $6, u.state, u.ends, u.records, u.seconds, pg_catalog.now() \
         FROM ROWS FROM (pg_catalog.unnest($1::int4[]), pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::int8[]), \
                         pg_catalog.unnest($4::int8[]), pg_catalog.unnest($5::float8[])) AS u(stream, state, ends, records, seconds) \
         ORDER BY u.stream \
         ON CONFLICT (stream) DO UPDATE SET owner = excluded.owner, state = excluded.state, \
             end_offset = coalesce(excluded.end_offset, st.end_offset), lag_records = excluded.lag_records, \
             lag_seconds = excluded.lag_seconds, updated_at = excluded.updated_at",
    )
    .bind(streams)
    .bind(states)
    .bind(ends)
    .bind(records)
    .bind(seconds)
    .bind(owner)
    .execute(&mut *conn)
    .await
    .map(|_| ())
}

/// Says that these streams are no longer read by this owner.
pub(super) async fn leave(conn: &mut PgConnection, owner: &str, streams: &[i32]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE watershed_control.stream_status SET state = 'unattended', updated_at = pg_catalog.now() \
         WHERE stream = ANY($1) AND owner = $2",
    )
    .bind(streams.to_vec())
    .bind(owner)
    .execute(&mut *conn)
    .await
    .map(|_| ())
}

/// Ends sessions of this source, of whichever process, that stand still in the middle of a transaction because their client
/// does: a process that was stopped or cut off while it sent rows holds its positions' locks for as long, and no timeout of
/// PostgreSQL's ends that. Whoever is ended by mistake finds out from the positions, and tries again.
pub(super) async fn end_sleepers(conn: &mut PgConnection, application: &str) -> Result<u64, sqlx::Error> {
    sqlx::query(
        "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
         WHERE usename = current_user AND datname = pg_catalog.current_database() AND application_name = $1 \
           AND pid <> pg_catalog.pg_backend_pid() AND wait_event = 'ClientRead' AND xact_start IS NOT NULL \
           AND state_change < pg_catalog.clock_timestamp() - interval '10 seconds'",
    )
    .bind(application)
    .execute(&mut *conn)
    .await
    .map(|done| done.rows_affected())
}
