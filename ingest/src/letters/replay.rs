//! `watershed dead-letters replay`: letters decoded again with the mapping of today, and inserted as new rows.
//!
//! A letter becomes rows exactly once: its rows, the numbers they get in the table's `loads` stream, and the mark that it
//! was replayed are one transaction, and only a letter without the mark is taken, under a row lock. A letter that fails
//! again stays, with the reason of this try; of a letter that makes several rows, all go in or none. The same call again
//! continues where it stopped.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::Row;
use tokio_util::sync::CancellationToken;

use super::write::{Context, TOO_LARGE};
use super::{Filter, Letter, MATCHES, SUMMARY, filtered};
use crate::batch::Batch;
use crate::decode::csv::Header;
use crate::decode::envelope::Envelope;
use crate::decode::syslog::Years;
use crate::decode::{Decoder, Format, Reason, time};
use crate::error::is_rows_fault;
use crate::map::{Mapper, Mapping, Origin};
use crate::sink::{self, Care, Numbering, Session};
use crate::target::{Target, quote_ident};
use crate::topics::{self, TableRoute, TopicRoute};
use crate::{Error, Result};

/// The routes that letters are decoded with.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    /// By topic.
    pub topics: Vec<TopicRoute>,
    /// By table, for what came by HTTP or from files.
    pub tables: Vec<TableRoute>,
}

/// What to replay and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// URL of PostgreSQL, as role `watershed_ingest`.
    pub database_url: String,
    /// The routes of today.
    pub routes: Routes,
    /// Which letters; those replayed before are never meant.
    pub filter: Filter,
    /// Everything as if, then rolled back.
    pub dry_run: bool,
    /// Letters a transaction, at most.
    pub batch_letters: usize,
    /// Bytes of letters a transaction, roughly.
    pub batch_bytes: usize,
    /// How long to wait for a PostgreSQL that went away.
    pub patience: Duration,
}

impl Options {
    /// With the usual bounds.
    pub fn new(database_url: &str, routes: Routes, filter: Filter) -> Options {
        Options {
            database_url: database_url.to_owned(),
            routes,
            filter,
            dry_run: false,
            batch_letters: 1000,
            batch_bytes: 8 << 20,
            patience: Duration::from_secs(60),
        }
    }
}

/// A letter that failed again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    pub id: i64,
    pub reason: Reason,
}

/// What a replay did so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Letters meant when it began.
    pub total: u64,
    /// Letters looked at.
    pub seen: u64,
    /// Letters that became rows.
    pub replayed: u64,
    /// Rows they became.
    pub rows: u64,
    /// Letters that failed again.
    pub failed: u64,
    /// The first of these.
    pub failures: Vec<Failed>,
}

/// At most this many failures are listed; the letters have all of them.
const LISTED: usize = 20;
/// How often one transaction is tried again while PostgreSQL comes and goes.
const RETRIES: u32 = 10;

/// Replays the letters meant. `progress` is told after each transaction.
///
/// # Errors
/// PostgreSQL's, or that it was asked to stop; what was committed stays.
pub async fn run(
    options: Options,
    progress: &(dyn Fn(&Report) + Sync),
    shutdown: CancellationToken,
) -> Result<Report> {
    let connect = sink::connect_options(&options.database_url, "watershed dead-letters")?;
    let mut filter = options.filter.clone();
    filter.replayed = Some(false);
    let mut work = Work {
        session: Session::connect(connect).await?,
        options,
        filter,
        mappers: HashMap::new(),
        report: Report::default(),
    };
    let (total, _) = super::count(work.session.conn(), &work.filter).await?;
    work.report.total = total as u64;
    // Letters that arrive meanwhile are for another time.
    let last: Option<i64> = sqlx::query_scalar("SELECT max(id) FROM watershed.dead_letters")
        .fetch_one(work.session.conn())
        .await?;
    let mut after = 0;
    while let Some(ids) = work.choose(after, last.unwrap_or(0)).await? {
        if shutdown.is_cancelled() {
            return Err(Error::Cancelled);
        }
        after = ids.last().copied().unwrap_or(after);
        let step = work.step(&ids).await?;
        work.report.seen += ids.len() as u64;
        work.report.replayed += step.replayed;
        work.report.rows += step.rows;
        work.report.failed += step.failed.len() as u64;
        let room = LISTED.saturating_sub(work.report.failures.len());
        work.report.failures.extend(step.failed.into_iter().take(room));
        progress(&work.report);
    }
    let report = work.report;
    work.session.close().await;
    Ok(report)
}

struct Work {
    session: Session,
    options: Options,
    filter: Filter,
    /// By topic and table.
    mappers: HashMap<(Option<String>, String), Ready>,
    report: Report,
}

/// How letters of one topic and table are read.
#[derive(Debug)]
struct Ready {
    /// Or why there is none.
    mapper: Result<Mapper, Reason>,
    envelope: Option<Envelope>,
}

#[derive(Debug, Default)]
struct Step {
    replayed: u64,
    rows: u64,
    failed: Vec<Failed>,
}

impl Work {
    /// The next letters for one transaction.
    async fn choose(&mut self, after: i64, last: i64) -> Result<Option<Vec<i64>>> {
        let limit = self.options.batch_letters.clamp(1, 10_000);
        let sql = format!(
            "SELECT id, coalesce(octet_length(raw), 0)::bigint FROM watershed.dead_letters \
             WHERE {MATCHES} AND id > {after} AND id <= {last} ORDER BY id LIMIT {limit}"
        );
        let rows = filtered!(self.filter, sql).fetch_all(self.session.conn()).await?;
        let mut ids = Vec::with_capacity(rows.len());
        let mut bytes = 0;
        for row in rows {
            bytes += row.try_get::<i64, _>(1)?;
            if !ids.is_empty() && bytes > self.options.batch_bytes as i64 {
                break;
            }
            ids.push(row.try_get(0)?);
        }
        Ok((!ids.is_empty()).then_some(ids))
    }

    /// One transaction, whatever it takes. If the connection breaks, the marks tell what had been committed.
    async fn step(&mut self, ids: &[i64]) -> Result<Step> {
        let mut refused = HashMap::new();
        let mut attempts = 0;
        loop {
            let error = match self.transaction(ids, &mut refused).await {
                Ok(Some(step)) => return Ok(step),
                // Rows of some letters were refused: again without them.
                Ok(None) => {
                    sink::rollback(self.session.conn()).await;
                    continue;
                }
                Err(e) => e,
            };
            attempts += 1;
            if !error.is_transient() || attempts > RETRIES {
                sink::rollback(self.session.conn()).await;
                return Err(error);
            }
            tracing::warn!(error = %error, "a replay did not commit, trying again");
            tokio::time::sleep(Duration::from_millis(100 * u64::from(attempts))).await;
            self.session.reconnect(self.options.patience).await?;
        }
    }

    /// `None` if PostgreSQL refused rows; their letters are in `refused` then, with the reasons.
    async fn transaction(&mut self, ids: &[i64], refused: &mut HashMap<i64, Reason>) -> Result<Option<Step>> {
        sink::run(self.session.conn(), "BEGIN").await?;
        let sql = format!(
            "SELECT {SUMMARY}{} FROM watershed.dead_letters WHERE id = ANY ($1) AND replayed_at IS NULL \
             ORDER BY id FOR UPDATE",
            super::LETTER
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(ids).fetch_all(self.session.conn()).await?;
        let letters = rows.iter().map(super::letter).collect::<Result<Vec<_>, _>>()?;
        drop(rows);
        let mut failed: Vec<Failed> = Vec::new();
        let mut batches: HashMap<(Option<String>, String), Batch> = HashMap::new();
        let mut rows_of: Vec<(i64, i32)> = Vec::with_capacity(letters.len());
        for letter in &letters {
            let id = letter.summary.id;
            let result = match refused.get(&id) {
                Some(reason) => Err(reason.clone()),
                None => {
                    let key = self.ready(letter).await?;
                    // Made by the call before.
                    match self.mappers.get_mut(&key) {
                        Some(ready) => append(ready, letter, batches.entry(key).or_default()),
                        None => Err("no route".to_owned()),
                    }
                }
            };
            match result {
                Ok(rows) => rows_of.push((id, rows as i32)),
                Err(reason) => failed.push(Failed { id, reason }),
            }
        }
        for (key, batch) in batches.iter().filter(|(_, batch)| batch.rows() > 0) {
            let Some(Ready { mapper: Ok(mapper), .. }) = self.mappers.get(key) else { continue };
            let conn = self.session.conn();
            let first = sink::allot(conn, mapper.target().stream, batch.rows()).await?;
            let numbering = Numbering::Stream { stream: mapper.target().stream, first };
            sink::run(conn, "SAVEPOINT watershed_letters").await?;
            match sink::copy_batch(conn, mapper, batch, numbering, Care::None).await {
                Ok(_) => {}
                Err(e) if is_rows_fault(&e) => {
                    sink::run(conn, "ROLLBACK TO SAVEPOINT watershed_letters").await?;
                    let bad = sink::copy_batch(conn, mapper, batch, numbering, Care::Bisect).await?;
                    if bad.is_empty() {
                        continue; // what refused it the first time is gone
                    }
                    // A row's line is its letter's number here.
                    refused.extend(bad.into_iter().map(|r| (r.line as i64, r.reason)));
                    return Ok(None);
                }
                Err(e) => return Err(e.into()),
            }
        }
        lake::crash::point("letters.copied");
        let step = Step {
            replayed: rows_of.len() as u64,
            rows: rows_of.iter().map(|(_, n)| *n as u64).sum(),
            failed,
        };
        if self.options.dry_run {
            sink::run(self.session.conn(), "ROLLBACK").await?;
            return Ok(Some(step));
        }
        self.mark(&rows_of, &step.failed).await?;
        lake::crash::point("letters.before_commit");
        sink::run(self.session.conn(), "COMMIT").await?;
        lake::crash::point("letters.committed");
        Ok(Some(step))
    }

    async fn mark(&mut self, replayed: &[(i64, i32)], failed: &[Failed]) -> Result<()> {
        let (ids, rows): (Vec<i64>, Vec<i32>) = replayed.iter().copied().unzip();
        sqlx::query(
            "UPDATE watershed.dead_letters d SET replayed_at = pg_catalog.now(), tried_at = pg_catalog.now(), \
                 replayed_rows = u.n, attempts = attempts + 1, tried_reason = NULL \
             FROM ROWS FROM (pg_catalog.unnest($1::bigint[]), pg_catalog.unnest($2::int[])) AS u(id, n) WHERE d.id = u.id",
        )
        .bind(ids)
        .bind(rows)
        .execute(self.session.conn())
        .await?;
        sqlx::query(
            "UPDATE watershed.dead_letters d SET tried_at = pg_catalog.now(), tried_reason = u.r, attempts = attempts + 1 \
             FROM ROWS FROM (pg_catalog.unnest($1::bigint[]), pg_catalog.unnest($2::text[])) AS u(id, r) WHERE d.id = u.id",
        )
        .bind(failed.iter().map(|f| f.id).collect::<Vec<_>>())
        .bind(failed.iter().map(|f| f.reason.replace('\0', "\u{fffd}")).collect::<Vec<_>>())
        .execute(self.session.conn())
        .await?;
        Ok(())
    }

    /// Makes the mapper of a letter's topic and table, if it is not there yet; gives its key.
    async fn ready(&mut self, letter: &Letter) -> Result<(Option<String>, String)> {
        let written = letter.summary.table.clone().unwrap_or_default();
        let key = (letter.topic.clone(), written);
        if !self.mappers.contains_key(&key) {
            let ready = prepare(&mut self.session, &self.options.routes, letter).await?;
            self.mappers.insert(key.clone(), ready);
        }
        Ok(key)
    }
}

async fn prepare(session: &mut Session, routes: &Routes, letter: &Letter) -> Result<Ready> {
    let written = letter.summary.table.as_deref();
    let route = letter.topic.as_deref().and_then(|topic| {
        let of_topic = || routes.topics.iter().filter(move |r| r.topic == topic);
        let same = of_topic().find(|r| Some(r.table.as_str()) == written);
        same.or_else(|| of_topic().next())
    });
    let failing = |reason: String| Ready { mapper: Err(reason), envelope: None };
    let name = match (route, written) {
        (Some(route), _) => route.table.clone(),
        (None, Some(written)) => match quoted_name(session, written).await? {
            Some(name) => name,
            None => return Ok(failing(Error::UnknownTable(written.to_owned()).to_string())),
        },
        (None, None) => {
            return Ok(failing("the letter names no table, and its topic has no route".to_owned()));
        }
    };
    let target = match Target::find(session.conn(), &name).await {
        Ok(target) => target,
        Err(e @ (Error::UnknownTable(_) | Error::Target { .. })) => return Ok(failing(e.to_string())),
        Err(e) => return Err(e),
    };
    let of_table = topics::of_table(&routes.tables, &target.schema, &target.name);
    let (envelope, mapping) = match (route, of_table) {
        (Some(route), _) => (Some(route.envelope), route.mapping.clone()),
        (None, Some(route)) if letter.topic.is_none() => (Some(route.envelope), route.mapping.clone()),
        _ => (None, Mapping::default()),
    };
    Ok(Ready { mapper: Mapper::with_mapping(target, &mapping).map_err(|e| e.to_string()), envelope })
}

/// The name as SQL has it of a table that a letter has as `schema.name`.
async fn quoted_name(session: &mut Session, written: &str) -> Result<Option<String>> {
    let found = sqlx::query(
        "SELECT n.nspname::text, c.relname::text FROM watershed_control.tables t \
         JOIN pg_catalog.pg_class c ON c.oid = t.relid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname || '.' || c.relname = $1",
    )
    .bind(written)
    .fetch_optional(session.conn())
    .await?;
    Ok(match found {
        Some(row) => {
            let (schema, name): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            Some(format!("{}.{}", quote_ident(&schema), quote_ident(&name)))
        }
        None => None,
    })
}

/// Appends the rows of a letter, all or none; their line is the letter's number.
fn append(ready: &mut Ready, letter: &Letter, batch: &mut Batch) -> Result<usize, Reason> {
    let mapper = ready.mapper.as_mut().map_err(|reason| reason.clone())?;
    if !letter.summary.complete || letter.summary.stage.as_deref() == Some(TOO_LARGE) {
        return Err("only the head of the record was kept: it was larger than the bound".to_owned());
    }
    let mut tried = Batch::default();
    read(mapper, ready.envelope, letter, &mut tried)?;
    if let Some(rejected) = tried.rejected.into_iter().next() {
        return Err(rejected.reason);
    }
    drop(tried.segments);
    // Now for good, among the rows of the others.
    let before = batch.rows();
    read(mapper, ready.envelope, letter, batch)?;
    Ok(batch.rows() - before)
}

/// Decodes and maps a letter the way it came.
fn read(
    mapper: &mut Mapper,
    route: Option<Envelope>,
    letter: &Letter,
    batch: &mut Batch,
) -> Result<(), Reason> {
    let raw = letter.raw.as_slice();
    let line = letter.summary.id as u64;
    let written = letter.summary.envelope.as_deref();
    let format = written.and_then(|name| name.parse::<Format>().ok());
    let context = letter.context.as_ref();
    let mut decoder = match format {
        Some(Format::Web) => Decoder::Web,
        Some(Format::Csv) => Decoder::Csv(header(context)?),
        Some(Format::Syslog) => Decoder::Syslog(Years::starting(year(letter))),
        // JSON in one of its envelopes, or a line whose format it shows itself.
        Some(Format::Ndjson | Format::JsonArray) | None => {
            let of_letter = written.and_then(|name| name.parse::<Envelope>().ok());
            let default = if format.is_some() { Envelope::Plain } else { Envelope::Auto };
            // A door may read more than one JSON object as it stands where the route asks for no more.
            let route =
                route.filter(|r| letter.topic.is_some() || *r != Envelope::Plain || of_letter.is_none());
            let envelope = route.or(of_letter).unwrap_or(default);
            let headers: Vec<(&str, Option<&[u8]>)> =
                letter.headers.iter().map(|(n, v)| (n.as_str(), v.as_deref())).collect();
            let origin = Origin {
                topic: letter.topic.as_deref().unwrap_or_default(),
                partition: letter.partition.unwrap_or_default(),
                offset: letter.kafka_offset.unwrap_or_default(),
                timestamp: letter.record_time,
                key: letter.key.as_deref(),
                headers: &headers,
            };
            mapper.map_value(envelope, raw, &origin, batch, line);
            return Ok(());
        }
    };
    let record = decoder.decode(raw)?;
    mapper.map(&record, batch, line, raw)
}

fn header(context: Option<&Context>) -> Result<Header, Reason> {
    let known = context.filter(|c| !c.names.is_empty());
    let context = known.ok_or("a CSV record whose header was not kept with it")?;
    let delimiter = context.delimiter.and_then(|d| u8::try_from(d).ok()).unwrap_or(b',');
    Ok(Header { names: context.names.clone(), delimiter })
}

fn year(letter: &Letter) -> i32 {
    let kept = letter.context.as_ref().and_then(|c| c.year);
    kept.unwrap_or_else(|| {
        let received = time::parse_iso8601(&letter.summary.received_at).unwrap_or_default();
        time::civil_from_days(received.div_euclid(time::DAY)).0
    })
}

/// Why a letter would fail now; `None` if nothing but PostgreSQL could refuse it.
///
/// # Errors
/// PostgreSQL's.
pub async fn check(session: &mut Session, routes: &Routes, letter: &Letter) -> Result<Option<Reason>> {
    let mut ready = prepare(session, routes, letter).await?;
    Ok(append(&mut ready, letter, &mut Batch::default()).err())
}
