//! Who compacts a table: one session's advisory lock, and a fence number that only grows; and what that session reads and writes about
//! the table: leases and history. Knows no files.

use lake::spec::TableSpec;
use sqlx::{Connection, PgConnection};

use crate::{Error, Result};

/// History is kept this long.
const TRIM: &str = "DELETE FROM watershed_control.compactions
    WHERE relid = $1::pg_catalog.oid AND started_at < pg_catalog.now() - interval '90 days'";

/// The right to compact one table, for as long as the connection lives.
pub struct Leader {
    conn: PgConnection,
    relid: u32,
    table: String,
    pub fence: i64,
    /// Whether history was written.
    noted: bool,
}

/// One piece of work as history tells of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Note {
    pub kind: &'static str,
    /// Days since 1970-01-01.
    pub day: Option<i32>,
    pub reason: String,
    pub files_before: usize,
    pub rows: u64,
    pub bytes_before: u64,
}

/// How it ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ended {
    /// done, lost or failed.
    pub outcome: &'static str,
    pub files_after: Option<usize>,
    pub bytes_after: Option<u64>,
    pub version: Option<i64>,
    pub error: Option<String>,
}

/// A connection as the service sees itself in `pg_stat_activity`.
pub(crate) async fn connect(url: &str) -> Result<PgConnection> {
    let mut conn = PgConnection::connect(url).await?;
    sqlx::query("SET application_name = 'watershed compactor'").execute(&mut conn).await?;
    Ok(conn)
}

impl Leader {
    /// Takes the lead of the table of `spec` with a fence above every other, `least` included; `None` if another session leads.
    pub async fn try_take(url: &str, spec: &TableSpec, least: i64) -> Result<Option<Self>> {
        let mut conn = connect(url).await?;
        let relid = i64::from(spec.relid);
        let (taken,): (bool,) = sqlx::query_as(
            "SELECT pg_catalog.pg_try_advisory_lock(pg_catalog.hashtext('watershed/compactor'), $1::pg_catalog.oid::pg_catalog.int4)",
        )
        .bind(relid)
        .fetch_one(&mut conn)
        .await?;
        if !taken {
            conn.close().await?;
            return Ok(None);
        }
        // Not to be lost in a crash: the number must never be given twice.
        sqlx::query("SET synchronous_commit = on").execute(&mut conn).await?;
        let (fence,): (i64,) = sqlx::query_as(
            "INSERT INTO watershed_control.leaders (relid, kind, fence) VALUES ($1::pg_catalog.oid, 'compactor', $2 + 1)
             ON CONFLICT (relid, kind) DO UPDATE SET fence = greatest(leaders.fence, $2) + 1, taken_at = pg_catalog.now()
             RETURNING fence",
        )
        .bind(relid)
        .bind(least)
        .fetch_one(&mut conn)
        .await?;
        lake::crash::point("compact.leader.taken");
        // History is no reason to wait for a disk.
        sqlx::query("SET synchronous_commit = off").execute(&mut conn).await?;
        let mut leader = Self { conn, relid: spec.relid, table: spec.qualified(), fence, noted: false };
        leader.close_interrupted().await?;
        Ok(Some(leader))
    }

    /// Whoever led before and did not say how its work ended is gone.
    async fn close_interrupted(&mut self) -> Result<()> {
        sqlx::query(
            "UPDATE watershed_control.compactions SET outcome = 'interrupted', finished_at = pg_catalog.clock_timestamp()
             WHERE relid = $1::pg_catalog.oid AND outcome = 'running'",
        )
        .bind(i64::from(self.relid))
        .execute(&mut self.conn)
        .await?;
        Ok(())
    }

    /// The oldest version of the table that somebody still reads; `None`: nobody holds a lease. Leases that ran out are removed.
    pub(crate) async fn oldest_read(&mut self) -> Result<Option<i64>> {
        let relid = i64::from(self.relid);
        sqlx::query(
            "DELETE FROM watershed_control.leases WHERE relid = $1::pg_catalog.oid AND until < pg_catalog.clock_timestamp()",
        )
        .bind(relid)
        .execute(&mut self.conn)
        .await?;
        let (oldest,): (Option<i64>,) = sqlx::query_as(
            "SELECT pg_catalog.min(version) FROM watershed_control.leases WHERE relid = $1::pg_catalog.oid",
        )
        .bind(relid)
        .fetch_one(&mut self.conn)
        .await?;
        Ok(oldest)
    }

    /// Writes that work begins; its number.
    pub(crate) async fn begin(&mut self, note: &Note) -> Result<i64> {
        self.noted = true;
        let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        let whole = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let (id,): (i64,) = sqlx::query_as(
            "INSERT INTO watershed_control.compactions (relid, table_name, kind, day, reason, files_before, rows, bytes_before)
             VALUES ($1::pg_catalog.oid, $2, $3, '1970-01-01'::pg_catalog.date OPERATOR(pg_catalog.+) $4, $5, $6, $7, $8) RETURNING id",
        )
        .bind(i64::from(self.relid))
        .bind(&self.table)
        .bind(note.kind)
        .bind(note.day)
        .bind(&note.reason)
        .bind(count(note.files_before))
        .bind(whole(note.rows))
        .bind(whole(note.bytes_before))
        .fetch_one(&mut self.conn)
        .await?;
        Ok(id)
    }

    /// Writes how work ended.
    pub(crate) async fn end(&mut self, id: i64, ended: &Ended) -> Result<()> {
        sqlx::query(
            "UPDATE watershed_control.compactions SET outcome = $2, finished_at = pg_catalog.clock_timestamp(),
                 files_after = $3, bytes_after = $4, version = $5, error = $6 WHERE id = $1",
        )
        .bind(id)
        .bind(ended.outcome)
        .bind(ended.files_after.map(|n| i32::try_from(n).unwrap_or(i32::MAX)))
        .bind(ended.bytes_after.map(|n| i64::try_from(n).unwrap_or(i64::MAX)))
        .bind(ended.version)
        .bind(ended.error.as_deref().map(|e| e.chars().take(1000).collect::<String>()))
        .execute(&mut self.conn)
        .await?;
        Ok(())
    }

    /// Errors: [`Error::Superseded`], or PostgreSQL's, if this is no longer the leader.
    pub async fn check(&mut self) -> Result<()> {
        let fence: Option<(i64,)> = sqlx::query_as(
            "SELECT fence FROM watershed_control.leaders WHERE relid = $1::pg_catalog.oid AND kind = 'compactor'",
        )
        .bind(i64::from(self.relid))
        .fetch_optional(&mut self.conn)
        .await?;
        if fence == Some((self.fence,)) { Ok(()) } else { Err(Error::Superseded(self.table.clone())) }
    }

    /// Lets go of the table.
    pub async fn release(mut self) {
        if self.noted {
            if let Err(error) = sqlx::query(TRIM).bind(i64::from(self.relid)).execute(&mut self.conn).await {
                tracing::debug!(table = %self.table, %error, "old history was not removed");
            }
        }
        // A connection that cannot be closed properly is gone all the same, and the lock with it.
        if let Err(error) = self.conn.close().await {
            tracing::debug!(table = %self.table, %error, "the leader's connection ended unexpectedly");
        }
    }
}
