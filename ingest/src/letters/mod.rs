//! Dead letters: records that are no rows, with the reason and everything needed to try again. [`write`] puts them down in
//! the transaction that goes past them, [`replay`] tries them again, [`place`] finds where in the bytes the trouble is.
//! Knows `watershed.dead_letters`; knows no sources. Nothing is ever removed here but by [`drop_letters`].

pub mod place;
pub mod replay;
pub mod write;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::Result;

/// Which letters are meant. What is not given does not matter.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Numbers of letters.
    pub ids: Option<Vec<i64>>,
    /// The table they were meant for: `public.logs`, or `logs`.
    pub table: Option<String>,
    /// Name of the topic.
    pub topic: Option<String>,
    /// Refused at this time or later; as PostgreSQL reads a timestamp.
    pub since: Option<String>,
    /// `frame`, `decode`, `map` or `postgres`.
    pub stage: Option<String>,
    /// Those that became rows already: only them (true), only the others (false), or all.
    pub replayed: Option<bool>,
}

impl Filter {
    /// True if it names no letter in particular: all of them are meant.
    pub fn is_everything(&self) -> bool {
        self.ids.is_none()
            && self.table.is_none()
            && self.topic.is_none()
            && self.since.is_none()
            && self.stage.is_none()
    }
}

/// The condition of a filter, over parameters $1 to $6.
const MATCHES: &str = "($1::bigint[] IS NULL OR id = ANY ($1)) \
    AND ($2::text IS NULL OR table_name = $2 OR table_name = 'public.' || $2) \
    AND ($3::text IS NULL OR topic = $3) \
    AND ($4::text IS NULL OR received_at >= $4::timestamptz) \
    AND ($5::text IS NULL OR stage = $5) \
    AND ($6::bool IS NULL OR (replayed_at IS NOT NULL) = $6)";

macro_rules! filtered {
    ($filter:expr, $sql:expr) => {
        sqlx::query(sqlx::AssertSqlSafe($sql))
            .bind($filter.ids.clone())
            .bind($filter.table.clone())
            .bind($filter.topic.clone())
            .bind($filter.since.clone())
            .bind($filter.stage.clone())
            .bind($filter.replayed)
    };
}
pub(crate) use filtered;

/// A letter without its bytes.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Summary {
    pub id: i64,
    /// ISO 8601, UTC.
    pub received_at: String,
    pub table: Option<String>,
    pub source: Option<String>,
    /// `line 7`, or `topic/partition/offset`.
    pub position: Option<String>,
    pub stage: Option<String>,
    pub reason: String,
    /// Length of what is kept of the record.
    pub bytes: i64,
    pub envelope: Option<String>,
    /// False if only the head of the record is kept.
    pub complete: bool,
    pub attempts: i32,
    pub tried_at: Option<String>,
    /// Why the last try failed.
    pub tried_reason: Option<String>,
    pub replayed_at: Option<String>,
    pub replayed_rows: Option<i32>,
}

/// A time as ISO 8601 in UTC, whatever the session's settings are.
macro_rules! iso {
    ($column:literal) => {
        concat!("pg_catalog.to_char(", $column, " AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
    };
}

const SUMMARY: &str = concat!(
    "id, ",
    iso!("received_at"),
    ", table_name, source, position, stage, reason, coalesce(octet_length(raw), 0)::bigint, envelope, complete, attempts, ",
    iso!("tried_at"),
    ", tried_reason, ",
    iso!("replayed_at"),
    ", replayed_rows"
);
/// Columns of [`SUMMARY`].
const SUMMARY_COLUMNS: usize = 15;

fn summary(row: &PgRow) -> Result<Summary, sqlx::Error> {
    Ok(Summary {
        id: row.try_get(0)?,
        received_at: row.try_get(1)?,
        table: row.try_get(2)?,
        source: row.try_get(3)?,
        position: row.try_get(4)?,
        stage: row.try_get(5)?,
        reason: row.try_get(6)?,
        bytes: row.try_get(7)?,
        envelope: row.try_get(8)?,
        complete: row.try_get(9)?,
        attempts: row.try_get(10)?,
        tried_at: row.try_get(11)?,
        tried_reason: row.try_get(12)?,
        replayed_at: row.try_get(13)?,
        replayed_rows: row.try_get(14)?,
    })
}

/// The newest letters, newest first.
pub async fn list(conn: &mut PgConnection, filter: &Filter, limit: i64) -> Result<Vec<Summary>> {
    let sql = format!(
        "SELECT {SUMMARY} FROM watershed.dead_letters WHERE {MATCHES} ORDER BY id DESC LIMIT {limit}"
    );
    let rows = filtered!(filter, sql).fetch_all(conn).await?;
    Ok(rows.iter().map(summary).collect::<Result<_, _>>()?)
}

/// Number and bytes of the letters meant.
pub async fn count(conn: &mut PgConnection, filter: &Filter) -> Result<(i64, i64)> {
    let sql = format!(
        "SELECT count(*), coalesce(sum(octet_length(raw)), 0)::bigint FROM watershed.dead_letters WHERE {MATCHES}"
    );
    let row = filtered!(filter, sql).fetch_one(conn).await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// Deletes the letters meant; gives their number.
pub async fn drop_letters(conn: &mut PgConnection, filter: &Filter) -> Result<u64> {
    let sql = format!("DELETE FROM watershed.dead_letters WHERE {MATCHES}");
    Ok(filtered!(filter, sql).execute(conn).await?.rows_affected())
}

/// A letter with all that is known of it.
#[derive(Debug, Clone)]
pub struct Letter {
    pub summary: Summary,
    pub raw: Vec<u8>,
    pub topic: Option<String>,
    pub partition: Option<i32>,
    pub kafka_offset: Option<i64>,
    /// Microseconds since 1970.
    pub record_time: Option<i64>,
    pub key: Option<Vec<u8>>,
    /// In order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// See [`write::Context`].
    pub context: Option<write::Context>,
}

const LETTER: &str = ", raw, topic, partition, kafka_offset, \
    (extract(epoch FROM record_time) * 1000000)::bigint, key, headers::text, context::text";

fn letter(row: &PgRow) -> Result<Letter, sqlx::Error> {
    let at = SUMMARY_COLUMNS;
    let headers: Option<String> = row.try_get(at + 6)?;
    let context: Option<String> = row.try_get(at + 7)?;
    Ok(Letter {
        summary: summary(row)?,
        raw: row.try_get::<Option<Vec<u8>>, _>(at)?.unwrap_or_default(),
        topic: row.try_get(at + 1)?,
        partition: row.try_get(at + 2)?,
        kafka_offset: row.try_get(at + 3)?,
        record_time: row.try_get(at + 4)?,
        key: row.try_get(at + 5)?,
        headers: headers.map_or_else(Vec::new, |text| write::headers_of(&text)),
        // Written by us; a context that no longer reads is as good as none.
        context: context.and_then(|text| serde_json::from_str(&text).ok()),
    })
}

/// One letter.
pub async fn get(conn: &mut PgConnection, id: i64) -> Result<Option<Letter>> {
    let sql = format!("SELECT {SUMMARY}{LETTER} FROM watershed.dead_letters WHERE id = $1");
    let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id).fetch_optional(conn).await?;
    Ok(row.as_ref().map(letter).transpose()?)
}
