//! Connections with pinned settings, and the beginning that every reader of a whole table shares: lock, then snapshot.

use std::str::FromStr;

use lake::boundary::Boundary;
use lake::log::StreamEnd;
use lake::spec::{TableSpec, load_specs, quote};
use lake::types;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, Row};

use super::{Error, Result};

/// A connection as [`pinned`] has it.
pub(crate) async fn connect(url: &str) -> Result<PgConnection> {
    Ok(pinned(url, "watershed archiver").await?)
}

/// A connection whose settings no role, database or file can bend: every row is seen, values read the same everywhere, and names mean
/// what they say.
pub(crate) async fn pinned(url: &str, application: &str) -> Result<PgConnection, sqlx::Error> {
    let options = PgConnectOptions::from_str(url)?
        .application_name(application)
        .options([
            ("row_security", "off"),
            ("search_path", "pg_catalog"),
            ("timezone", "UTC"),
            ("datestyle", "ISO, YMD"),
            ("intervalstyle", "postgres"),
            ("bytea_output", "hex"),
            ("extra_float_digits", "1"),
            ("statement_timeout", "0"),
            ("lock_timeout", "0"),
            ("idle_in_transaction_session_timeout", "0"),
            ("synchronous_commit", "on"),
            ("jit", "off"),
        ])
        .disable_statement_logging();
    options.connect().await
}

/// Every tiered table, or the one named (see [`find`]).
pub(crate) async fn chosen(url: &str, table: Option<&str>) -> Result<Vec<TableSpec>> {
    let mut conn = connect(url).await?;
    let specs = load_specs(&mut conn).await?;
    conn.close().await?;
    match table {
        Some(name) => Ok(vec![find(&specs, name)?.clone()]),
        None => Ok(specs),
    }
}

/// The table named `schema.table`, or `table` where only one schema has it.
fn find<'a>(specs: &'a [TableSpec], name: &str) -> Result<&'a TableSpec> {
    if let Some(spec) = specs.iter().find(|s| s.qualified() == name) {
        return Ok(spec);
    }
    let mut named = specs.iter().filter(|s| s.name == name);
    match (named.next(), named.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => Err(Error::AmbiguousTable(name.into())),
        (None, _) => Err(Error::UnknownTable(name.into())),
    }
}

/// `_xid` of the table under its alias `t`, quoted.
pub(crate) fn xid_column(spec: &TableSpec) -> Result<String> {
    column(spec, types::XID)
}

/// The column with a lake name under the table's alias `t`, quoted.
pub(crate) fn column(spec: &TableSpec, lake_name: &str) -> Result<String> {
    let index = spec.index_of(lake_name).ok_or_else(|| lake::Error::Schema {
        table: spec.qualified(),
        what: format!("it lacks the column {lake_name}"),
    })?;
    Ok(format!("t.{}", quote(&spec.columns[index].name)))
}

/// The boundary of archive `number`; 0 is the one that sees nothing.
///
/// Errors: [`Error::UnknownArchive`], [`Error::LineageChanged`] if it was taken in another lineage than the table's.
pub(crate) async fn boundary_of(conn: &mut PgConnection, spec: &TableSpec, number: i64) -> Result<Boundary> {
    if number == 0 {
        return Ok(Boundary::NOTHING);
    }
    let row = sqlx::query(
        "SELECT boundary, lineage FROM watershed_control.archives WHERE relid = $1 AND number = $2",
    )
    .bind(sqlx::postgres::types::Oid(spec.relid))
    .bind(number)
    .fetch_optional(conn)
    .await?
    .ok_or_else(|| Error::UnknownArchive { table: spec.qualified(), archive: number })?;
    let lineage: String = row.try_get("lineage")?;
    if lineage != spec.lineage {
        return Err(Error::LineageChanged {
            table: spec.qualified(),
            archived: lineage,
            current: spec.lineage.clone(),
        });
    }
    Ok(row.try_get::<String, _>("boundary")?.parse::<Boundary>()?)
}

/// How far each source stream of the table has been read, as the connection's snapshot sees it, and what registers it again.
pub(crate) async fn streams(conn: &mut PgConnection, spec: &TableSpec) -> Result<Vec<StreamEnd>> {
    let rows = sqlx::query(
        "SELECT s.id, p.next_offset, (to_jsonb(s) - 'id' - 'relid')::text AS about
         FROM watershed_control.streams s JOIN watershed_control.positions p ON p.stream = s.id
         WHERE s.relid = $1 ORDER BY s.id",
    )
    .bind(sqlx::postgres::types::Oid(spec.relid))
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(StreamEnd {
                id: row.try_get("id")?,
                next_offset: row.try_get("next_offset")?,
                about: row.try_get("about")?,
            })
        })
        .collect()
}

/// In the transaction that this begins on `conn`: locks the table against DDL, then takes a snapshot, in that order, since a snapshot
/// does not cover what DDL does. Returns the snapshot and the table as that snapshot sees it.
///
/// Errors: [`Error::LineageChanged`] if the server is of another lineage than the table, [`Error::UnknownTable`] if it is gone.
pub(crate) async fn lock_and_snapshot(
    conn: &mut PgConnection,
    spec: &TableSpec,
) -> Result<(Boundary, TableSpec)> {
    sqlx::query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").execute(&mut *conn).await?;
    let lock = format!("LOCK TABLE {} IN ACCESS SHARE MODE", spec.sql_name());
    sqlx::query(sqlx::AssertSqlSafe(lock)).execute(&mut *conn).await?;
    let row = sqlx::query(
        "SELECT pg_current_snapshot()::text AS snapshot, watershed_control.current_lineage() AS lineage",
    )
    .fetch_one(&mut *conn)
    .await?;
    let snapshot = row.try_get::<String, _>("snapshot")?.parse::<Boundary>()?;
    let lineage: String = row.try_get("lineage")?;
    let now = load_specs(&mut *conn)
        .await?
        .into_iter()
        // A table that was renamed meanwhile is not the one that was locked.
        .find(|s| s.relid == spec.relid && s.qualified() == spec.qualified())
        .ok_or_else(|| Error::UnknownTable(spec.qualified()))?;
    if now.lineage != lineage {
        return Err(Error::LineageChanged {
            table: now.qualified(),
            archived: now.lineage,
            current: lineage,
        });
    }
    Ok((snapshot, now))
}
