//! Leadership of one table: an advisory lock that ends with its connection, and a fence that outlives it. Knows no rows.

use std::time::Duration;

use lake::boundary::Boundary;
use lake::spec::TableSpec;
use sqlx::postgres::types::Oid;
use sqlx::{Connection, PgConnection};
use tokio_util::sync::CancellationToken;

use super::{Error, Result, connect, jittered};

/// What to do while another process leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Return [`Error::Busy`].
    No,
    /// Wait until it is done.
    ForTurn,
}

/// The lead of a table's archiver. The lock goes with the connection; a leader that lost it without noticing is stopped by its fence.
pub(super) struct Leader {
    conn: PgConnection,
    spec: TableSpec,
    pub(super) fence: i64,
}

/// The advisory lock of a table's archiver; `$1` is the table.
pub(crate) const LOCK: &str = "SELECT pg_try_advisory_lock(hashtext('watershed/archiver')::int, $1::oid::int)";

/// Boundaries are kept this long after they were replaced. A reader pins a version, reads its tail at once, and needs the boundary no
/// longer; the rest is for people who look into what happened.
const KEEP_ARCHIVES_HOURS: i32 = 24;

impl Leader {
    /// Takes the lead, with a fence above every one before, also above `lake_fence`, the greatest that the lake has seen.
    pub(super) async fn take(
        url: &str,
        spec: &TableSpec,
        lake_fence: i64,
        wait: Wait,
        shutdown: &CancellationToken,
    ) -> Result<Self> {
        let mut conn = connect(url).await?;
        while !sqlx::query_scalar::<_, bool>(LOCK).bind(Oid(spec.relid)).fetch_one(&mut conn).await? {
            if wait == Wait::No {
                return Err(Error::Busy(spec.qualified()));
            }
            tokio::select! {
                () = shutdown.cancelled() => return Err(Error::Cancelled),
                () = tokio::time::sleep(jittered(Duration::from_millis(200))) => {}
            }
        }
        let fence = sqlx::query_scalar(
            "INSERT INTO watershed_control.leaders AS l (relid, kind, fence, taken_at) VALUES ($1, 'archiver', $2 + 1, now())
             ON CONFLICT (relid, kind) DO UPDATE SET fence = greatest(l.fence, $2) + 1, taken_at = now()
             RETURNING fence",
        )
        .bind(Oid(spec.relid))
        .bind(lake_fence)
        .fetch_one(&mut conn)
        .await?;
        Ok(Self { conn, spec: spec.clone(), fence })
    }

    /// Commits `boundary` under a new number, above every number before and above `lake_archive`. The commit is synchronous: when it
    /// returns, all that the boundary saw is durable, since it was in the log before.
    pub(super) async fn number(&mut self, boundary: &Boundary, lake_archive: i64) -> Result<i64> {
        let mut tx = self.conn.begin().await?;
        sqlx::query("SET LOCAL synchronous_commit = on").execute(&mut *tx).await?;
        let fence: i64 = sqlx::query_scalar(
            "SELECT fence FROM watershed_control.leaders WHERE relid = $1 AND kind = 'archiver' FOR UPDATE",
        )
        .bind(Oid(self.spec.relid))
        .fetch_one(&mut *tx)
        .await?;
        if fence != self.fence {
            return Err(Error::LostLead(self.spec.qualified()));
        }
        let number = sqlx::query_scalar(
            "INSERT INTO watershed_control.archives (relid, number, boundary, lineage, fence)
             SELECT $1, greatest(coalesce(max(number), 0), $2) + 1, $3, $4, $5
             FROM watershed_control.archives WHERE relid = $1
             RETURNING number",
        )
        .bind(Oid(self.spec.relid))
        .bind(lake_archive)
        .bind(boundary.to_string())
        .bind(&self.spec.lineage)
        .bind(self.fence)
        .fetch_one(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(number)
    }

    /// Deletes the boundaries of archives that nobody can name any more: below the one that the lake holds, and followed by another for
    /// so long that every reader who pinned a version of it is done. Returns how many there were.
    pub(super) async fn forget_archives(&mut self, lake_archive: i64) -> Result<u64> {
        let deleted = sqlx::query(
            "DELETE FROM watershed_control.archives
             WHERE relid = $1 AND number < (SELECT max(a.number) FROM watershed_control.archives a
                 WHERE a.relid = $1 AND a.number <= $2 AND a.created_at < now() - make_interval(hours => $3))",
        )
        .bind(Oid(self.spec.relid))
        .bind(lake_archive)
        .bind(KEEP_ARCHIVES_HOURS)
        .execute(&mut self.conn)
        .await?;
        Ok(deleted.rows_affected())
    }

    /// Sees to it that the lead is still ours. What the answer leaves open, the lake's compare of fences closes.
    pub(super) async fn still_leads(&mut self) -> Result<()> {
        let fence: i64 = sqlx::query_scalar(
            "SELECT fence FROM watershed_control.leaders WHERE relid = $1 AND kind = 'archiver'",
        )
        .bind(Oid(self.spec.relid))
        .fetch_one(&mut self.conn)
        .await?;
        if fence == self.fence { Ok(()) } else { Err(Error::LostLead(self.spec.qualified())) }
    }

    /// Gives the lead back.
    pub(super) async fn resign(self) {
        if let Err(error) = self.conn.close().await {
            tracing::debug!(%error, "the leader's connection had ended");
        }
    }
}
