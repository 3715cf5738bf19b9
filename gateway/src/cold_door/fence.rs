//! Which rows a statement of PostgreSQL gets from the door: the lake version, and the fence in the snapshot that the statement has.
//! ARCHITECTURE.md ("A day's life") has the argument. ✗ SQL of the statement, rows.

use std::time::Duration;

use lake::boundary::Boundary;
use serde::Deserialize;
use sqlx::postgres::types::Oid;

use super::Door;
use crate::engine::Pin;
use crate::wire::message::ErrorReport;

/// A column as the catalog has it while the statement holds its locks.
#[derive(Debug, Clone, Deserialize)]
pub struct Column {
    pub attnum: i16,
    pub name: String,
    #[serde(rename = "type")]
    pub type_name: String,
    /// Qualified and quoted; None: the database's own, or none.
    pub collation: Option<String>,
    /// Values that are equal are the same to the byte, as far as the collation goes.
    pub equal_is_same: bool,
    /// Texts are ordered by their bytes.
    pub byte_order: bool,
}

#[derive(Debug, Deserialize)]
struct Answer {
    floor_us: Option<i64>,
    lake_floor_us: Option<i64>,
    min_archive: i64,
    min_boundary: Option<String>,
    schema_epoch: i32,
    fits: bool,
    in_statement: bool,
    sees_fence: bool,
    may_read: bool,
    both_have: bool,
    expired: bool,
    columns: Vec<Column>,
}

/// What the door answers from: rows of `pin`'s version whose transaction `boundary` sees, from the lake's floor up to the floor.
pub struct Admitted {
    pub pin: Pin,
    pub floor_us: i64,
    pub lake_floor_us: Option<i64>,
    pub boundary: Boundary,
    pub columns: Vec<Column>,
}

/// How often a newer version is looked for before the lake is said to be behind.
const TRIES: u32 = 20;

/// Finds what a statement of backend `pid`, as role `role`, may be answered from; the error is its answer.
pub async fn admit(door: &Door, relid: u32, pid: i32, role: u32) -> Result<Admitted, ErrorReport> {
    let mut behind = String::new();
    for attempt in 0..TRIES {
        if attempt > 1 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // The version first: a file that the lake's floor lets go leaves the log only after the floor was raised, so that a version pinned
        // before the fence is read has every file from that fence's floor on.
        let pin = door.engine.pin(relid, attempt > 0).await.map_err(|e| unreadable(&e))?;
        let boundary = pin.boundary.as_ref().map(ToString::to_string).unwrap_or_default();
        let answer: Option<String> =
            sqlx::query_scalar("SELECT watershed_control.cold_fence($1, $2, $3, $4, $5)::text")
                .bind(Oid(relid))
                .bind(pid)
                .bind(Oid(role))
                .bind(pin.version.archive)
                .bind(boundary)
                .fetch_one(&door.control)
                .await
                .map_err(|e| unreadable(&e))?;
        let Some(answer) = answer else {
            return Err(ErrorReport::error("42P01", format!("relation {relid} is not a tiered table")));
        };
        let answer: Answer = serde_json::from_str(&answer)
            .map_err(|e| ErrorReport::error("XX000", format!("the fence cannot be read: {e}")))?;
        let table = pin.spec.qualified();
        if !answer.may_read {
            return Err(ErrorReport::error(
                "42501",
                format!("permission denied for table {}", pin.spec.name),
            ));
        }
        if !answer.in_statement {
            return Err(ErrorReport::error(
                "55000",
                "the door to cold rows is open to statements of PostgreSQL only",
            )
            .hint(format!("SELECT from {table} itself.")));
        }
        if pin.version.archive < answer.min_archive
            || answer.schema_epoch != pin.spec.schema_epoch
            || !answer.fits
        {
            behind = format!(
                "version {} holds archive {}, archive {} is wanted",
                pin.version.version, pin.version.archive, answer.min_archive
            );
            continue;
        }
        if !answer.sees_fence {
            return Err(ErrorReport::error("40001", format!("could not serialize access to rows of {table} that only the lake has"))
                .detail("Rows left PostgreSQL after the statement's snapshot was taken, or while a transaction was running that is running still.")
                .hint("Run the transaction again."));
        }
        if answer.both_have || answer.expired {
            return Err(ErrorReport::error(
                "55000",
                format!("late rows of {table} wait to be deleted from PostgreSQL"),
            )
            .detail(if answer.expired {
                "They are before the lake's floor, and nobody sees them."
            } else {
                "The lake has them as well."
            })
            .hint("Retention does so at its next look; `watershed retain` does so at once."));
        }
        let Some(floor_us) = answer.floor_us else {
            return Err(ErrorReport::error("55000", format!("PostgreSQL holds all rows of {table}")));
        };
        let boundary = answer.min_boundary.as_deref().map(str::parse::<Boundary>);
        let Some(Ok(boundary)) = boundary else {
            return Err(ErrorReport::error(
                "55000",
                format!("it is not known under which boundary rows of {table} left PostgreSQL"),
            )
            .hint("It will be when the next day leaves: `watershed retain`."));
        };
        return Ok(Admitted {
            pin,
            floor_us,
            lake_floor_us: answer.lake_floor_us,
            boundary,
            columns: answer.columns,
        });
    }
    Err(ErrorReport::error("58030", "the lake is behind what PostgreSQL let go").detail(behind))
}

/// The lake or the control tables cannot be read.
pub fn unreadable(e: &dyn std::fmt::Display) -> ErrorReport {
    ErrorReport::error("58030", "the lake could not be read")
        .detail(e.to_string())
        .hint("Run the statement again when the lake's storage answers. What PostgreSQL holds above the floor it answers meanwhile.")
}
