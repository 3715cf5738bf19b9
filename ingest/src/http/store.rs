//! The transaction of a request: its Idempotency-Key, its rows, its dead letters and its remembered answer are committed
//! together or not at all. Knows no HTTP and no formats.
//!
//! Of several requests with one key at the same time, PostgreSQL lets one insert the key; the others wait for its commit
//! and then give its answer, or take its place if it failed.

use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection, Row};

use crate::batch::{Batch, Rejected};
use crate::error::is_rows_fault;
use crate::letters::write::Context;
use crate::map::Mapper;
use crate::metrics::taken;
use crate::sink::{self, Care, LetterSource, Numbering};
use crate::target::Target;
use crate::topics::TableRoute;
use crate::{Error, Result};

/// The rows for one table.
#[derive(Debug)]
pub struct Part {
    pub mapper: Mapper,
    pub batch: Batch,
    /// What the records are, and what else a refused one needs to be tried again.
    pub format: &'static str,
    pub context: Context,
}

impl Part {
    /// Without rows yet.
    ///
    /// # Errors
    /// The route's mapping does not fit the table.
    pub fn of(target: Target, route: Option<&TableRoute>) -> Result<Part> {
        let mapper = match route {
            Some(route) => Mapper::with_mapping(target, &route.mapping)?,
            None => Mapper::new(target)?,
        };
        Ok(Part { mapper, batch: Batch::default(), format: "", context: Context::default() })
    }
}

/// What makes a repeated request known.
#[derive(Debug)]
pub struct Key {
    /// Keys belong to a table; of several, the first of the request.
    pub relid: u32,
    pub key: String,
    pub hash: String,
}

/// Everything that one request stores.
pub struct Job<'a> {
    pub parts: &'a [Part],
    pub key: Option<&'a Key>,
    /// The door, for metrics; and as dead letters name it.
    pub door: &'static str,
    pub bytes: u64,
    /// The answer, given what PostgreSQL refused of each part.
    pub answer: &'a (dyn Fn(&[Vec<Rejected>]) -> String + Sync),
}

/// An answer as it is remembered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
    pub replayed: bool,
}

impl Job<'_> {
    /// Stores it and gives the answer; for a key that was used before, the answer that it got then.
    ///
    /// # Errors
    /// Nothing was stored, unless the connection broke during the commit.
    pub async fn store(&self, conn: &mut PgConnection) -> Result<Answer> {
        let mut care = Care::None;
        loop {
            match self.transaction(conn, care).await {
                Err(Error::Postgres(e)) if care == Care::None && is_rows_fault(&e) => care = Care::Bisect,
                other => return other,
            }
        }
    }

    async fn transaction(&self, conn: &mut PgConnection, care: Care) -> Result<Answer> {
        let began = Instant::now();
        // Rolls back when it is dropped on an error.
        let mut tx = conn.begin().await?;
        if let Some(key) = self.key
            && !key.take(&mut tx).await?
        {
            // Another request with this key committed between the first look and now.
            let answer = key.remembered(&mut tx).await?;
            return answer.ok_or_else(|| Error::Fenced(format!("Idempotency-Key {:?}", key.key)));
        }
        lake::crash::point("http.key");
        let mut refused = Vec::with_capacity(self.parts.len());
        for Part { mapper, batch, .. } in self.parts {
            refused.push(sink::copy_batch(&mut tx, mapper, batch, Numbering::Plain, care).await?);
        }
        lake::crash::point("http.copied");
        let source =
            self.key.map_or_else(|| self.door.to_owned(), |k| format!("{}, key {}", self.door, k.key));
        for (part, refused) in self.parts.iter().zip(&refused) {
            let table = part.mapper.target().display();
            let from = LetterSource {
                table: &table,
                source: &source,
                envelope: part.format,
                context: Some(&part.context),
            };
            sink::letters(&mut tx, &from, &part.batch.rejected, |_| None).await?;
            sink::letters(&mut tx, &from, refused, |_| None).await?;
        }
        let body = (self.answer)(&refused);
        if let Some(key) = self.key {
            key.keep(&mut tx, &body).await?;
        }
        lake::crash::point("http.before_commit");
        tx.commit().await?;
        lake::crash::point("http.committed");
        for (at, (Part { mapper, batch, .. }, refused)) in self.parts.iter().zip(&refused).enumerate() {
            // The body is one: counted with its first table.
            let bytes = if at == 0 { self.bytes } else { 0 };
            taken::committed(self.door, &mapper.target().display(), batch, refused, bytes, began);
        }
        Ok(Answer { status: 200, body, replayed: false })
    }
}

impl Key {
    /// Takes the key for this transaction, waiting for another that has it. False if it is taken for good.
    async fn take(&self, conn: &mut PgConnection) -> Result<bool> {
        let taken = sqlx::query(
            "INSERT INTO watershed_control.requests (relid, key, body_hash) VALUES ($1::int8::oid, $2, $3) \
             ON CONFLICT (relid, key) DO NOTHING",
        )
        .bind(i64::from(self.relid))
        .bind(&self.key)
        .bind(&self.hash)
        .execute(conn)
        .await?;
        Ok(taken.rows_affected() == 1)
    }

    /// The stored answer of a key, if it was used with the same body.
    ///
    /// # Errors
    /// [`Error::KeyReused`] if it was used with another.
    pub async fn remembered(&self, conn: &mut PgConnection) -> Result<Option<Answer>> {
        let row = sqlx::query(
            "SELECT body_hash, status, response::text FROM watershed_control.requests \
             WHERE relid = $1::int8::oid AND key = $2",
        )
        .bind(i64::from(self.relid))
        .bind(&self.key)
        .fetch_optional(conn)
        .await?;
        let Some(row) = row else { return Ok(None) };
        if row.try_get::<String, _>(0)? != self.hash {
            return Err(Error::KeyReused(self.key.clone()));
        }
        let status: i32 = row.try_get(1)?;
        let body: Option<String> = row.try_get(2)?;
        Ok(Some(Answer { status: status as u16, body: body.unwrap_or_default(), replayed: true }))
    }

    async fn keep(&self, conn: &mut PgConnection, body: &str) -> Result<()> {
        sqlx::query(
            "UPDATE watershed_control.requests SET status = 200, response = $3::json \
             WHERE relid = $1::int8::oid AND key = $2",
        )
        .bind(i64::from(self.relid))
        .bind(&self.key)
        .bind(body)
        .execute(conn)
        .await?;
        Ok(())
    }
}

/// Keys forgotten in one statement.
const FORGET: i64 = 10_000;

/// Forgets keys that are older than `retention`, in small transactions; never waits for another process that does the
/// same. Gives their number.
pub async fn forget(conn: &mut PgConnection, retention: Duration) -> Result<u64> {
    let mut all = 0;
    loop {
        let done = sqlx::query(
            "DELETE FROM watershed_control.requests WHERE (relid, key) IN (SELECT relid, key \
             FROM watershed_control.requests WHERE created_at < pg_catalog.now() - pg_catalog.make_interval(secs => $1) \
             ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
        )
        .bind(retention.as_secs_f64())
        .bind(FORGET)
        .execute(&mut *conn)
        .await?;
        all += done.rows_affected();
        if done.rows_affected() < FORGET as u64 {
            return Ok(all);
        }
    }
}
