//! The PostgreSQL side of a forward: who leads, where it stands, and the rows between two snapshots. Knows no broker.

use lake::boundary::Boundary;
use lake::spec::{PRESENT, TableSpec, load_specs, quote};
use lake::types;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use super::send::Message;
use super::{Error, Forward, Result, Start, What};
use crate::archiver::pinned;

/// Bytes of rows that one page should have.
const PAGE_BYTES: usize = 4 << 20;
/// Rows of the first page, whose size nobody knows: each may have sixteen megabytes.
const FIRST_PAGE: usize = 16;
const MAX_PAGE: usize = 10_000;

/// One forward's connections, and what it reads.
pub(super) struct Follower {
    forward: Forward,
    /// Holds the lock, and writes.
    leader: PgConnection,
    /// Reads, in one snapshot at a time.
    reader: PgConnection,
    relation: String,
    /// Its OID, unless it is the letters.
    relid: Option<u32>,
    xid: String,
    select: Select,
    leading: bool,
    /// Ask about each row apart: the condition has failed on one. For one round.
    careful: bool,
    /// Known while leading: nobody else moves it.
    boundary: Option<Boundary>,
}

/// What is read of a row, and which rows.
enum Select {
    Rows { columns: String, condition: String, table: String },
    Letters { columns: String },
}

/// What lies between two snapshots, on its way.
pub(super) struct Tail {
    old: Boundary,
    new: Boundary,
    ask: usize,
    settled: bool,
}

/// Some messages of a tail.
pub(super) struct Page {
    pub(super) messages: Vec<Message>,
    /// Rows that the condition fails on, and why the first of them: they count as not matching.
    pub(super) undecided: (u64, String),
    /// The tail ends here, and the reader's transaction has ended.
    pub(super) last: bool,
}

fn built(sql: String) -> sqlx::query::Query<'static, sqlx::Postgres, sqlx::postgres::PgArguments> {
    // Built here, from quoted names, numbers and the operator's condition; each text is used once.
    sqlx::query(AssertSqlSafe(sql)).persistent(false)
}

impl Follower {
    /// Connects and finds out what is to be read. Asks PostgreSQL whether it understands the condition.
    ///
    /// # Errors
    /// [`Error::UnknownTable`], [`Error::UnknownKey`], [`Error::Condition`], and PostgreSQL's.
    pub(super) async fn connect(url: &str, forward: &Forward) -> Result<Follower> {
        let mut leader = pinned(url, "watershed forwarder").await?;
        let reader = pinned(url, "watershed forwarder").await?;
        let (relation, relid, xid, select) = match &forward.what {
            What::Rows { table, condition, key } => {
                let spec = find(&mut leader, &forward.name, table).await?;
                let columns = row_columns(&spec, &forward.name, key.as_deref())?;
                let select = Select::Rows { columns, condition: condition.clone(), table: spec.qualified() };
                (spec.sql_name(), Some(spec.relid), column(&spec, types::XID)?, select)
            }
            What::DeadLetters => {
                let columns = letter_columns(&mut leader).await?;
                ("watershed.dead_letters".to_owned(), None, "t._xid".to_owned(), Select::Letters { columns })
            }
        };
        let mut follower = Follower {
            forward: forward.clone(),
            leader,
            reader,
            relation,
            relid,
            xid,
            select,
            leading: false,
            careful: false,
            boundary: None,
        };
        let tried = format!("{} LIMIT 0", follower.statement(&Boundary::NOTHING));
        match built(tried).fetch_optional(&mut follower.reader).await {
            Ok(_) => {}
            Err(sqlx::Error::Database(e)) if is_refusal(e.code().as_deref()) => {
                return Err(match &follower.select {
                    Select::Rows { condition, table, .. } => Error::Condition {
                        name: forward.name.clone(),
                        condition: condition.clone(),
                        table: table.clone(),
                        why: e.message().to_owned(),
                    },
                    Select::Letters { .. } => sqlx::Error::Database(e).into(),
                });
            }
            Err(e) => return Err(e.into()),
        }
        Ok(follower)
    }

    pub(super) async fn close(self) {
        // Whatever the goodbyes say, the sockets are gone after them.
        let _ = self.leader.close().await;
        let _ = self.reader.close().await;
    }

    /// Whether this process sends; takes the lead if nobody has it. The lock goes with the connection.
    pub(super) async fn leads(&mut self) -> Result<bool> {
        if !self.leading {
            self.leading = sqlx::query_scalar(
                "SELECT pg_try_advisory_lock(hashtext('watershed/forward'), hashtext($1))",
            )
            .bind(&self.forward.name)
            .fetch_one(&mut self.leader)
            .await?;
        }
        Ok(self.leading)
    }

    /// Where the forward stands; a new one begins here.
    async fn standing(&mut self) -> Result<Boundary> {
        if let Some(boundary) = &self.boundary {
            return Ok(boundary.clone());
        }
        sqlx::query(
            // The table's number keeps retention from dropping what was not sent yet.
            "INSERT INTO watershed_control.forwards AS f (name, boundary, relid)
             VALUES ($1, CASE WHEN $2 THEN '0:0:' ELSE pg_current_snapshot()::text END, $3)
             ON CONFLICT (name) DO UPDATE SET relid = excluded.relid WHERE f.relid IS DISTINCT FROM excluded.relid",
        )
        .bind(&self.forward.name)
        .bind(self.forward.from == Start::Beginning)
        .bind(self.relid.map(sqlx::postgres::types::Oid))
        .execute(&mut self.leader)
        .await?;
        let text: String =
            sqlx::query_scalar("SELECT boundary FROM watershed_control.forwards WHERE name = $1")
                .bind(&self.forward.name)
                .fetch_one(&mut self.leader)
                .await?;
        let boundary: Boundary = text.parse().map_err(|e| Error::Boundary(self.forward.name.clone(), e))?;
        self.boundary = Some(boundary.clone());
        Ok(boundary)
    }

    /// Takes a snapshot and looks whether the table has rows that it sees and the boundary does not. If so, a transaction
    /// of the reader is open until the last page was read.
    pub(super) async fn look(&mut self) -> Result<Option<Tail>> {
        let old = self.standing().await?;
        built("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY".into()).execute(&mut self.reader).await?;
        // Lock, then snapshot: a snapshot does not cover what DDL does.
        built(format!("LOCK TABLE {} IN ACCESS SHARE MODE", self.relation)).execute(&mut self.reader).await?;
        let some = format!(
            "SELECT pg_current_snapshot()::text, EXISTS (SELECT FROM {} t WHERE {})",
            self.relation,
            self.beyond(&old)
        );
        let row = built(some).fetch_one(&mut self.reader).await?;
        let new: Boundary = row
            .try_get::<String, _>(0)?
            .parse()
            .map_err(|e| Error::Boundary(self.forward.name.clone(), e))?;
        if !old.serves(&new) {
            return Err(Error::BoundaryAhead {
                name: self.forward.name.clone(),
                boundary: old.to_string(),
                snapshot: new.to_string(),
            });
        }
        if !row.try_get::<bool, _>(1)? {
            self.end().await?;
            return Ok(None);
        }
        let cursor = format!("DECLARE tail NO SCROLL CURSOR FOR {}", self.statement(&old));
        built(cursor).execute(&mut self.reader).await?;
        Ok(Some(Tail { old, new, ask: FIRST_PAGE, settled: false }))
    }

    /// The next page. With the last one the transaction ends, so that no lock is held while the broker takes its time.
    pub(super) async fn page(&mut self, tail: &mut Tail) -> Result<Page> {
        let rows = built(format!("FETCH {} FROM tail", tail.ask)).fetch_all(&mut self.reader).await;
        let rows = match rows {
            Err(sqlx::Error::Database(e)) if !self.careful && is_rows_fault(e.code().as_deref()) => {
                // The next look finds the same rows and asks about them one by one.
                self.end().await?;
                self.careful = true;
                return Err(Error::Undecided(self.forward.name.clone(), e.message().to_owned()));
            }
            rows => rows?,
        };
        let last = rows.len() < tail.ask;
        if last {
            self.end().await?;
        }
        let letters = matches!(self.select, Select::Letters { .. });
        let mut bytes = 0;
        let mut messages = Vec::with_capacity(rows.len());
        let mut undecided = (0, String::new());
        for row in &rows {
            if !letters && self.careful {
                let why: String = row.try_get(4)?;
                if !why.is_empty() {
                    undecided.0 += 1;
                    if undecided.1.is_empty() {
                        undecided.1 = why;
                    }
                    continue;
                }
            }
            let message = if letters { letter(row)? } else { self.message(row)? };
            bytes += message.size();
            messages.push(message);
        }
        let each = bytes / rows.len().max(1) + 1;
        tail.ask = (PAGE_BYTES / each).clamp(1, (tail.ask * 4).min(MAX_PAGE));
        Ok(Page { messages, undecided, last })
    }

    /// Makes durable what the tail's snapshot saw: the commit record of everything visible stands in the log before this
    /// one, which is flushed. Must come before anything of the tail is told to anyone.
    pub(super) async fn settle(&mut self, tail: &mut Tail) -> Result<()> {
        if tail.settled {
            return Ok(());
        }
        let noted = sqlx::query(
            "UPDATE watershed_control.forwards SET pending = $3 WHERE name = $1 AND boundary = $2",
        )
        .bind(&self.forward.name)
        .bind(tail.old.to_string())
        .bind(tail.new.to_string())
        .execute(&mut self.leader)
        .await?;
        if noted.rows_affected() != 1 {
            return Err(Error::Moved(self.forward.name.clone()));
        }
        tail.settled = true;
        Ok(())
    }

    /// Everything of the tail is acknowledged: the next one begins where it ends.
    pub(super) async fn advance(&mut self, tail: Tail, sent: u64) -> Result<()> {
        let moved = sqlx::query(
            "UPDATE watershed_control.forwards SET boundary = $3, pending = NULL, sent = sent + $4, updated_at = now()
             WHERE name = $1 AND boundary = $2",
        )
        .bind(&self.forward.name)
        .bind(tail.old.to_string())
        .bind(tail.new.to_string())
        .bind(sent as i64)
        .execute(&mut self.leader)
        .await?;
        if moved.rows_affected() != 1 {
            return Err(Error::Moved(self.forward.name.clone()));
        }
        self.boundary = Some(tail.new);
        self.careful = false;
        Ok(())
    }

    async fn end(&mut self) -> Result<()> {
        built("ROLLBACK".into()).execute(&mut self.reader).await?;
        Ok(())
    }

    /// The condition for rows that `old` does not see.
    fn beyond(&self, old: &Boundary) -> String {
        let beyond = old.tail_predicate(&self.xid);
        match self.select {
            Select::Rows { .. } => format!("{beyond} AND {PRESENT}"),
            Select::Letters { .. } => beyond,
        }
    }

    /// The rows beyond `old`, and of those the ones that match. The tail is fenced off, so that the condition, whatever
    /// it says, decides over rows of the tail only, and is asked about no others.
    fn statement(&self, old: &Boundary) -> String {
        let tail =
            format!("(SELECT * FROM {} t WHERE {} OFFSET 0) t", self.relation, self.beyond(old));
        match &self.select {
            Select::Rows { columns, condition, .. } if self.careful => format!(
                "SELECT {columns}, j.verdict FROM (SELECT t AS r FROM {} t WHERE {} OFFSET 0) x, LATERAL (SELECT (x.r).*) t, \
                 LATERAL (SELECT watershed_control.judge({}, x.r) AS verdict OFFSET 0) j WHERE j.verdict IS NOT NULL",
                self.relation,
                self.beyond(old),
                literal(condition)
            ),
            // On lines of its own: a comment at its end must not take the parenthesis along.
            Select::Rows { columns, condition, .. } => {
                format!("SELECT {columns} FROM {tail} WHERE (\n{condition}\n)")
            }
            Select::Letters { columns } => format!("SELECT {columns} FROM {tail}"),
        }
    }

    fn message(&self, row: &PgRow) -> Result<Message> {
        let Select::Rows { table, .. } = &self.select else {
            return Err(Error::Internal("a letter among rows".into()));
        };
        let (stream, offset): (i32, i64) = (row.try_get(2)?, row.try_get(3)?);
        Ok(Message {
            payload: row.try_get::<String, _>(0)?.into_bytes(),
            key: row.try_get::<Option<String>, _>(1)?.map(String::into_bytes),
            headers: vec![
                ("table".into(), table.clone().into_bytes()),
                ("stream".into(), stream.to_string().into_bytes()),
                ("offset".into(), offset.to_string().into_bytes()),
            ],
        })
    }
}

/// A dead letter: its raw bytes, the key it came with, and whatever else is known of it as headers. What columns there are
/// is the table's business.
fn letter(row: &PgRow) -> Result<Message> {
    let known: String = row.try_get(1)?;
    let known: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&known).map_err(|e| Error::Internal(format!("a letter's fields: {e}")))?;
    let mut key = None;
    let mut headers = Vec::with_capacity(known.len());
    for (name, value) in known {
        let text = match value {
            serde_json::Value::Null => continue,
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        match name.as_str() {
            "key" => key = Some(unhex(&text).unwrap_or_else(|| text.into_bytes())),
            "table_name" => headers.push(("table".into(), text.into_bytes())),
            _ => headers.push((name, text.into_bytes())),
        }
    }
    let payload: Option<Vec<u8>> = row.try_get(0)?;
    // Empty, not absent: without a value it would be a tombstone.
    Ok(Message { payload: payload.unwrap_or_default(), key, headers })
}

/// The bytes of a bytea as JSON has them, `\x` and digits.
fn unhex(text: &str) -> Option<Vec<u8>> {
    hex::decode(text.strip_prefix("\\x")?).ok()
}

/// What PostgreSQL says of a row's values: data exceptions, and what a function raises by itself.
fn is_rows_fault(code: Option<&str>) -> bool {
    code.is_some_and(|c| c.starts_with("22") || c == "P0001")
}

/// What PostgreSQL says of a statement itself, rather than of its own state: syntax, names, rights, types, values.
fn is_refusal(code: Option<&str>) -> bool {
    code.is_some_and(|c| ["42", "22", "0A", "21", "2F", "P0"].iter().any(|class| c.starts_with(class)))
}

async fn find(conn: &mut PgConnection, forward: &str, table: &str) -> Result<TableSpec> {
    let unknown = || Error::UnknownTable { name: forward.to_owned(), table: table.to_owned() };
    let specs = load_specs(conn).await.map_err(|e| match e {
        lake::Error::Postgres(e) => Error::Postgres(e),
        other => Error::Internal(other.to_string()),
    })?;
    let mut named = specs.into_iter().filter(|s| s.qualified() == table || s.name == table);
    match (named.next(), named.next()) {
        (Some(spec), None) => Ok(spec),
        (Some(_), Some(_)) => Err(Error::Settings(format!(
            "forward {forward}: several tiered tables are named {table}; name the schema too"
        ))),
        (None, _) => Err(unknown()),
    }
}

/// The column with a lake name, under the alias `t`.
fn column(spec: &TableSpec, lake_name: &str) -> Result<String> {
    let index = spec
        .index_of(lake_name)
        .ok_or_else(|| Error::Internal(format!("{} lacks the column {lake_name}", spec.qualified())))?;
    Ok(format!("t.{}", quote(&spec.columns[index].name)))
}

fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// The row as JSON without its provenance, its key, and its provenance.
fn row_columns(spec: &TableSpec, forward: &str, key: Option<&str>) -> Result<String> {
    let own = [types::XID, types::STREAM, types::OFFSET];
    let mut without = "to_jsonb(t)".to_owned();
    for name in own {
        let index = spec.index_of(name).map(|i| spec.columns[i].name.as_str()).unwrap_or(name);
        without = format!("{without} OPERATOR(pg_catalog.-) {}::text", literal(index));
    }
    let has =
        |name: &str| spec.columns.iter().any(|c| c.name == name && !own.contains(&c.lake_name.as_str()));
    let key = match key {
        Some(key) if has(key) => Some(key),
        Some(key) => {
            return Err(Error::UnknownKey {
                name: forward.to_owned(),
                table: spec.qualified(),
                column: key.to_owned(),
            });
        }
        None => ["service", "user_id"].into_iter().find(|name| has(name)),
    };
    let key = key.map_or("NULL::text".to_owned(), |key| format!("t.{}::text", quote(key)));
    Ok(format!(
        "({without})::text, {key}, {}, {}",
        column(spec, types::STREAM)?,
        column(spec, types::OFFSET)?
    ))
}

/// The raw bytes, and all other columns as JSON.
async fn letter_columns(conn: &mut PgConnection) -> Result<String> {
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT attname::text FROM pg_attribute WHERE attrelid = 'watershed.dead_letters'::regclass AND attnum > 0
         AND NOT attisdropped AND attname NOT IN ('raw', '_xid') ORDER BY attnum",
    )
    .fetch_all(conn)
    .await?;
    let names: Vec<String> = names.iter().map(|n| format!("t.{}", quote(n))).collect();
    // Built from the columns, since `to_jsonb(t)` would print the raw bytes as well, at twice their size.
    Ok(format!("t.raw, to_jsonb((SELECT l FROM (SELECT {}) l))::text", names.join(", ")))
}
