//! What the door does not evaluate itself, PostgreSQL does, over rows that it is handed: conditions on a batch of rows, and whole queries
//! over temporary tables of them. Its connection is the gateway's own and reads no table; what it is asked about was vetted.
//! ✗ where rows come from.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use lake::spec::quote;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgConnection, Row};
use tokio::sync::OwnedSemaphorePermit;

use super::Door;
use super::fence::{Column, unreadable};
use super::sql;
use crate::wire::message::{self, ErrorReport};

/// How long one may wait for a connection among those that the door keeps for this.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most of what temporary tables of one query may hold, in bytes of text.
const SPOOL_LIMIT: usize = 1 << 30;

/// The names that PostgreSQL's own immutable functions have, and its volatile ones have not.
const FUNCTIONS: &str = "\
SELECT proname::text FROM pg_catalog.pg_proc
WHERE pronamespace = 'pg_catalog'::pg_catalog.regnamespace AND oid < 16384
GROUP BY proname HAVING pg_catalog.bool_or(provolatile = 'i') AND NOT pg_catalog.bool_or(provolatile = 'v')";

/// As postgres_fdw has its remote session.
const SETTINGS: &str = "\
SET search_path = pg_catalog; SET timezone = 'UTC'; SET datestyle = ISO; SET intervalstyle = postgres; SET extra_float_digits = 3; \
SET jit = off; SET statement_timeout = '15min'";

/// A connection that judges.
pub struct Judge {
    conn: PgConnection,
    functions: Arc<HashSet<String>>,
    _place: OwnedSemaphorePermit,
}

/// Values by column, as text.
pub type Texts = Vec<Vec<Option<String>>>;

impl Judge {
    pub async fn connect(door: &Door) -> Result<Judge, ErrorReport> {
        let place = tokio::time::timeout(PATIENCE, door.judges.clone().acquire_owned()).await;
        let Ok(Ok(place)) = place else {
            return Err(ErrorReport::error("53300", "too many statements have PostgreSQL judge cold rows")
                .hint("Run the statement again."));
        };
        let mut conn = door.options.connect().await.map_err(|e| unreadable(&e))?;
        sqlx::raw_sql(SETTINGS).execute(&mut conn).await.map_err(|e| unreadable(&e))?;
        let known = door.functions.lock().clone();
        let functions = match known {
            Some(functions) => functions,
            None => {
                let names: Vec<String> =
                    sqlx::query_scalar(FUNCTIONS).fetch_all(&mut conn).await.map_err(|e| unreadable(&e))?;
                door.functions.lock().insert(Arc::new(names.into_iter().collect())).clone()
            }
        };
        Ok(Judge { conn, functions, _place: place })
    }

    fn vet(&self, text: &str, columns: &HashSet<String>) -> Result<(), ErrorReport> {
        sql::vet(text, &self.functions, columns).map_err(|what| {
            ErrorReport::error("0A000", "the door to cold rows does not serve this")
                .detail(format!("It holds {what}."))
        })
    }

    /// Which rows fulfil the conditions; `texts` has the values of `columns`.
    pub async fn keep(
        &mut self,
        conditions: &[String],
        columns: &[Column],
        texts: Texts,
        rows: usize,
    ) -> Result<Vec<bool>, ErrorReport> {
        let names = columns.iter().map(|c| c.name.clone()).collect();
        for condition in conditions {
            self.vet(condition, &names)?;
        }
        let outputs: Vec<String> = columns
            .iter()
            .enumerate()
            .map(|(i, c)| format!("{} AS {}", typed(i, c), quote(&c.name)))
            .collect();
        let inputs: Vec<String> =
            (1..=columns.len()).map(|i| format!("pg_catalog.unnest(${i}::pg_catalog.text[])")).collect();
        let aliases: String = (0..columns.len()).map(|i| format!("v{i}, ")).collect();
        // A condition that names no column holds for all rows or for none: they are counted by a column of nothing.
        let (inputs, aliases) = match inputs.is_empty() {
            true => (format!("pg_catalog.generate_series(1, {rows})"), "v, ".to_owned()),
            false => (inputs.join(", "), aliases),
        };
        let text = format!(
            "SELECT \"watershed row\" FROM (SELECT {}u.\"watershed row\" FROM ROWS FROM ({inputs}) WITH ORDINALITY AS u({aliases}\"watershed row\")) r WHERE {}",
            outputs.iter().map(|o| format!("{o}, ")).collect::<String>(),
            conditions.join(" AND ")
        );
        let mut query = sqlx::query_scalar::<_, i64>(AssertSqlSafe(text));
        for column in texts {
            query = query.bind(column);
        }
        let kept = query.fetch_all(&mut self.conn).await.map_err(|e| told(e))?;
        let mut mask = vec![false; rows];
        for row in kept {
            if let Some(place) = usize::try_from(row - 1).ok().and_then(|i| mask.get_mut(i)) {
                *place = true;
            }
        }
        Ok(mask)
    }
}

/// Value `v{i}` in the type of the column.
fn typed(i: usize, column: &Column) -> String {
    let collation = column.collation.as_ref().map(|c| format!(" COLLATE {c}")).unwrap_or_default();
    format!("(u.v{i}::{}{collation})", column.type_name)
}

/// A query over temporary tables, its answer fetched by and by.
pub struct Spool {
    judge: Judge,
    bytes: usize,
}

impl Spool {
    pub async fn new(door: &Door) -> Result<Spool, ErrorReport> {
        let mut judge = Judge::connect(door).await?;
        judge.conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.map_err(|e| told(e))?;
        Ok(Spool { judge, bytes: 0 })
    }

    /// What a relation of the door is called here.
    pub fn name(relid: u32) -> String {
        format!("pg_temp.cold_{relid}")
    }

    pub async fn make(&mut self, relid: u32, columns: &[Column]) -> Result<(), ErrorReport> {
        let columns: Vec<String> = columns
            .iter()
            .map(|c| {
                format!(
                    "{} {}{}",
                    quote(&c.name),
                    c.type_name,
                    c.collation.as_ref().map(|c| format!(" COLLATE {c}")).unwrap_or_default()
                )
            })
            .collect();
        let text = format!("CREATE TEMPORARY TABLE cold_{relid} ({}) ON COMMIT DROP", columns.join(", "));
        self.judge.conn.execute(AssertSqlSafe(text)).await.map_err(|e| told(e))?;
        Ok(())
    }

    pub async fn add(&mut self, relid: u32, columns: &[Column], texts: Texts) -> Result<(), ErrorReport> {
        self.bytes += texts.iter().flatten().flatten().map(String::len).sum::<usize>();
        if self.bytes > SPOOL_LIMIT {
            return Err(ErrorReport::error("53400", "a statement needs too many cold rows at once")
                .detail("PostgreSQL had the door sort, join or aggregate them, which needs all of them in a temporary table.")
                .hint("Restrict the event time, or SET enable_partitionwise_join and enable_partitionwise_aggregate to off."));
        }
        let outputs: Vec<String> = columns.iter().enumerate().map(|(i, c)| typed(i, c)).collect();
        let inputs: Vec<String> =
            (1..=columns.len()).map(|i| format!("pg_catalog.unnest(${i}::pg_catalog.text[])")).collect();
        let aliases: Vec<String> = (0..columns.len()).map(|i| format!("v{i}")).collect();
        let text = format!(
            "INSERT INTO {} SELECT {} FROM ROWS FROM ({}) AS u({})",
            Spool::name(relid),
            outputs.join(", "),
            inputs.join(", "),
            aliases.join(", ")
        );
        let mut query = sqlx::query(AssertSqlSafe(text));
        for column in texts {
            query = query.bind(column);
        }
        query.execute(&mut self.judge.conn).await.map_err(|e| told(e))?;
        Ok(())
    }

    /// Opens the query, in which relations have their names here.
    pub async fn open(
        &mut self,
        query: &str,
        asked: &str,
        columns: &HashSet<String>,
    ) -> Result<(), ErrorReport> {
        self.judge.vet(asked, columns)?;
        let text = format!("DECLARE answer SCROLL CURSOR FOR {query}");
        self.judge.conn.execute(AssertSqlSafe(text)).await.map_err(|e| told(e))?;
        Ok(())
    }

    /// Appends up to `rows` rows; gives their number and that of columns.
    pub async fn fetch(&mut self, rows: usize, out: &mut BytesMut) -> Result<(usize, usize), ErrorReport> {
        let text = format!("FETCH {rows} FROM answer");
        let fetched: Vec<PgRow> =
            sqlx::raw_sql(AssertSqlSafe(text)).fetch_all(&mut self.judge.conn).await.map_err(|e| told(e))?;
        let columns = fetched.first().map_or(0, PgRow::len);
        for row in &fetched {
            let mut failed = None;
            message::frame(out, b'D', |b| {
                b.put_u16(columns as u16);
                for i in 0..columns {
                    match row.try_get_raw(i).map(|v| v.as_str().map(str::to_owned).ok()) {
                        Ok(Some(value)) => {
                            b.put_i32(value.len() as i32);
                            b.put_slice(value.as_bytes());
                        }
                        Ok(None) => b.put_i32(-1),
                        Err(e) => failed = Some(e),
                    }
                }
            });
            if let Some(e) = failed {
                return Err(unreadable(&e));
            }
        }
        Ok((fetched.len(), columns))
    }

    pub async fn rewind(&mut self) -> Result<(), ErrorReport> {
        self.judge.conn.execute("MOVE BACKWARD ALL IN answer").await.map_err(|e| told(e))?;
        Ok(())
    }
}

/// PostgreSQL's own error is the statement's.
fn told(e: sqlx::Error) -> ErrorReport {
    match &e {
        sqlx::Error::Database(d) => {
            let code = d.code().unwrap_or_else(|| "XX000".into()).into_owned();
            let report = ErrorReport::error(&code, d.message());
            match d.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() {
                Some(pg) => {
                    let report = match pg.detail() {
                        Some(detail) => report.detail(detail),
                        None => report,
                    };
                    match pg.hint() {
                        Some(hint) => report.hint(hint),
                        None => report,
                    }
                }
                None => report,
            }
        }
        _ => unreadable(&e),
    }
}
