//! Who compacts a table: one session's advisory lock, and a fence number that only grows. Knows no files.

use lake::spec::TableSpec;
use sqlx::{Connection, PgConnection};

use crate::{Error, Result};

/// The right to compact one table, for as long as the connection lives.
pub(crate) struct Leader {
    conn: PgConnection,
    relid: u32,
    table: String,
    pub fence: i64,
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
        Ok(Some(Self { conn, relid: spec.relid, table: spec.qualified(), fence }))
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
    pub async fn release(self) {
        // A connection that cannot be closed properly is gone all the same, and the lock with it.
        if let Err(error) = self.conn.close().await {
            tracing::debug!(table = %self.table, %error, "the leader's connection ended unexpectedly");
        }
    }
}
