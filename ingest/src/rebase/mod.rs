//! `watershed rebase`: brings a table and its lake together after PostgreSQL has lost transactions that the lake holds (a failover with
//! loss, a point-in-time recovery, a restore), and opens the new lineage. Knows both stores; knows no source and no schedule.
//!
//! Transaction numbers mean something in one lineage only. A server that lost transactions gives their numbers again, so the lake's
//! boundary no longer says which rows it holds. A rebase of one table, each step resting on those before:
//!
//! 1. lead archiver and compactor, with fences far above every one that a lost timeline can have given, in PostgreSQL and in the log:
//!    from here on nobody else commits to the lake, and version V is fixed;
//! 2. if PostgreSQL still has, physically, the row of V's archive, then it has everything that the archive's boundary sees and gives
//!    none of its numbers again: nothing was lost that the lake holds, the boundary is taken over as it is, and steps 3 to 5 fall away;
//! 3. use up transaction numbers until the next one is above every `_xid` in V: that number is the mark. Wait until no transaction below
//!    it runs. So no new row can have a number of the lake's;
//! 4. compare V with PostgreSQL day by day by checksum, all columns included, without keeping anyone out; then lock writers out, add
//!    what was written meanwhile, and compare the days that differ row by row ([`decide`]);
//! 5. in that transaction, rows that PostgreSQL lost come back with the lake's values, rows that were written again are replaced by
//!    the lake's, rows that the lake lacks and whose number is below the mark become rows of this transaction;
//! 6. in the same transaction: positions move to the lake's end offsets where those are further, lost streams are registered again, and
//!    a new archive number, lineage and epoch are written. Its boundary is `mark:mark:`: it sees every row of V and no other;
//! 7. a Delta commit without files carries that number.
//!
//! A crash before step 6 ends leaves PostgreSQL as it was. After it, the lake's number is below `min_archive`, so nobody answers from it
//! and nobody archives; running the rebase again finds the number and does step 7.

mod compare;
mod decide;
mod spill;
mod text;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use lake::boundary::Boundary;
use lake::log::{APP_ARCHIVER_FENCE, APP_COMPACTOR_FENCE, LakeTable, LakeVersion};
use lake::spec::{TableSpec, load_specs};
use lake::stats::Bound;
use lake::types;
use lake::{Url, crash};
use sqlx::postgres::types::Oid;
use sqlx::{Connection, Executor, PgConnection, Row};

use crate::archiver::{ARCHIVER_LOCK, Error, Result, chosen, connect};

/// Where the two stores are, and how to go about it.
#[derive(Clone)]
pub struct Config {
    /// URL of the database as role `watershed_archiver`.
    pub database_url: String,
    /// The directory that holds the lake tables.
    pub lake_root: Url,
    /// Where rows are set aside while they are compared; `None`: the system's temporary directory.
    pub spill_dir: Option<PathBuf>,
    /// Only look, and say what would be done.
    pub dry_run: bool,
    /// How long to wait for leads, for old transactions and for the table.
    pub patience: Duration,
}

impl Config {
    /// The defaults: half an hour of patience.
    pub fn new(database_url: impl Into<String>, lake_root: Url) -> Self {
        Self {
            database_url: database_url.into(),
            lake_root,
            spill_dir: None,
            dry_run: false,
            patience: Duration::from_secs(1800),
        }
    }
}

impl std::fmt::Debug for Config {
    // The URL holds a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("lake_root", &self.lake_root.as_str())
            .field("dry_run", &self.dry_run)
            .finish_non_exhaustive()
    }
}

/// How a table stood, and so what its rebase came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The lake's archive is known in the server's own lineage: nothing to do.
    Current,
    /// Nothing was ever archived: the lineage changes, no row does.
    NothingArchived,
    /// Everything that the lake holds is in PostgreSQL: the boundary is taken over.
    Unbroken,
    /// PostgreSQL lacks the lake's archive: the rows were compared.
    Broken,
    /// An earlier rebase was cut off before its commit to the lake: it was finished.
    Unfinished,
}

/// What a rebase of one table found and did, or would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RebaseReport {
    /// `schema.table`.
    pub table: String,
    pub found: Found,
    pub old_lineage: String,
    pub new_lineage: String,
    /// The archive that opened the new lineage; 0: none was needed, or this was a dry run.
    pub archive: i64,
    /// Rows that PostgreSQL had lost and the lake gave back.
    pub restored: u64,
    /// Rows that had been written again, and were replaced by the lake's.
    pub replaced: u64,
    /// Rows of PostgreSQL that the lake lacks and that became rows of the rebase.
    pub kept: u64,
    /// Of Kafka's records of which the lake holds other rows: rows that are no copy of one. They stay; somebody should look.
    pub surplus: u64,
    /// Streams that were registered again or whose position moved forward.
    pub streams: u64,
    pub elapsed: Duration,
}

/// Told what is being done, in words for a person.
pub type Say<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// A lead is asked for again after this long.
const PAUSE: Duration = Duration::from_millis(200);
/// Writers wait no longer than this behind a lock that is itself waiting.
const LOCK_TIMEOUT: &str = "5s";
/// Transaction numbers that are used up in one statement.
const BURN: i64 = 20_000;
/// More than this are not used up: PostgreSQL would come close to the end of its 32 bits first.
const BURN_AT_MOST: i64 = 1_000_000_000;

const COMPACTOR_LOCK: &str = "SELECT pg_try_advisory_lock(hashtext('watershed/compactor')::int, $1::oid::int)";

/// Rebases every tiered table, or the one named (`schema.table`, or `table` if that is unambiguous). Safe to run at any time and any
/// number of times.
///
/// Errors: the first table's; tables before it are done.
pub async fn rebase(cfg: Config, table: Option<&str>, say: Say<'_>) -> Result<Vec<RebaseReport>> {
    let chosen = chosen(&cfg.database_url, table).await?;
    let mut reports = Vec::with_capacity(chosen.len());
    for spec in &chosen {
        reports.push(one(&cfg, spec, say).await?);
    }
    Ok(reports)
}

/// What PostgreSQL says of a table and of the archive that its lake holds.
struct Standing {
    spec: TableSpec,
    /// The server's lineage now.
    lineage: String,
    found: Found,
    /// The boundary of the lake's archive, where [`Found::Unbroken`].
    boundary: Option<Boundary>,
    /// The number to be committed, where [`Found::Unfinished`].
    pending: i64,
}

async fn one(cfg: &Config, spec: &TableSpec, say: Say<'_>) -> Result<RebaseReport> {
    let started = Instant::now();
    let mut lead = connect(&cfg.database_url).await?;
    let mut lake = if cfg.dry_run {
        LakeTable::open(&cfg.lake_root, spec).await?
    } else {
        take_leads(cfg, &mut lead, spec, say).await?;
        Some(LakeTable::open_or_create(&cfg.lake_root, spec).await?)
    };
    let mut standing = look(&mut lead, spec, lake.as_ref()).await?;
    let mut report = RebaseReport {
        table: spec.qualified(),
        found: standing.found,
        old_lineage: standing.spec.lineage.clone(),
        new_lineage: standing.lineage.clone(),
        archive: 0,
        restored: 0,
        replaced: 0,
        kept: 0,
        surplus: 0,
        streams: 0,
        elapsed: Duration::ZERO,
    };
    if standing.found != Found::Current {
        if let (Some(lake), false) = (&mut lake, cfg.dry_run) {
            let fences = raise_fences(&mut lead, spec, lake).await?;
            // Whoever led before may have committed until this moment, and never again.
            standing = look(&mut lead, spec, Some(lake)).await?;
            report.found = standing.found;
            report.archive = match standing.found {
                Found::Current => 0,
                Found::Unfinished => standing.pending,
                Found::NothingArchived => {
                    finish(&mut lead, cfg, &standing, 0, None, fences, &mut report, say, None).await?
                }
                Found::Unbroken => {
                    let boundary = standing.boundary.clone();
                    finish(&mut lead, cfg, &standing, lake.current().archive, boundary, fences, &mut report, say, None)
                        .await?
                }
                Found::Broken => broken(cfg, &mut lead, &standing, lake, fences, &mut report, say).await?,
            };
            if report.archive > 0 {
                let held = lake.refresh().await?.archive;
                lake.commit_archive(Vec::new(), report.archive, held, fences, &[]).await?;
                crash::point("rebase.done");
            }
        } else if standing.found == Found::Broken
            && let Some(lake) = &lake
        {
            let version = lake.current();
            let mark = mark_of(&standing.spec, &version)?;
            compare::look_only(cfg, &standing.spec, lake, &version, mark, &mut report, say).await?;
        }
    }
    lead.close().await?;
    report.elapsed = started.elapsed();
    Ok(report)
}

/// Becomes the only archiver and compactor of the table.
async fn take_leads(cfg: &Config, lead: &mut PgConnection, spec: &TableSpec, say: Say<'_>) -> Result<()> {
    let since = Instant::now();
    for (lock, who) in [(ARCHIVER_LOCK, "archiver"), (COMPACTOR_LOCK, "compactor")] {
        let mut said = false;
        while !sqlx::query_scalar::<_, bool>(lock).bind(Oid(spec.relid)).fetch_one(&mut *lead).await? {
            if !said {
                say(&format!("{}: waiting for the {who} to finish its turn", spec.qualified()));
                said = true;
            }
            if since.elapsed() > cfg.patience {
                return Err(blocked(spec, format!("its {who} did not finish its turn")));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    crash::point("rebase.leading");
    Ok(())
}

fn blocked(spec: &TableSpec, what: String) -> Error {
    Error::RebaseBlocked { table: spec.qualified(), what }
}

/// Gives both leads a fence above all others, here and in the log. Returns the archiver's.
async fn raise_fences(lead: &mut PgConnection, spec: &TableSpec, lake: &mut LakeTable) -> Result<i64> {
    lake.refresh().await?;
    let row = sqlx::query("SELECT archiver_fence, compactor_fence FROM watershed_control.rebase_fences($1, $2, $3)")
        .bind(Oid(spec.relid))
        .bind(lake.fence(APP_ARCHIVER_FENCE))
        .bind(lake.fence(APP_COMPACTOR_FENCE))
        .fetch_one(lead)
        .await?;
    let archiver = row.try_get("archiver_fence")?;
    lake.commit_fences(archiver, row.try_get("compactor_fence")?).await?;
    crash::point("rebase.fenced");
    Ok(archiver)
}

/// How the table stands to its lake.
async fn look(conn: &mut PgConnection, spec: &TableSpec, lake: Option<&LakeTable>) -> Result<Standing> {
    let version = lake.map(LakeTable::current);
    let archive = version.as_ref().map_or(0, |v| v.archive);
    conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let lineage: String =
        sqlx::query_scalar("SELECT watershed_control.current_lineage()").fetch_one(&mut *conn).await?;
    let spec = load_specs(&mut *conn)
        .await?
        .into_iter()
        .find(|s| s.relid == spec.relid)
        .ok_or_else(|| Error::UnknownTable(spec.qualified()))?;
    // A row that a dump brought has another xmin than the transaction it names.
    let known = sqlx::query(
        "SELECT boundary, lineage, rebased_from,
                coalesce(xmin::text::numeric = written_by::text::numeric % 4294967296, false) AS physical,
                pg_snapshot_xmax(pg_current_snapshot())::text::int8 AS next
         FROM watershed_control.archives WHERE relid = $1 AND number = $2",
    )
    .bind(Oid(spec.relid))
    .bind(archive)
    .fetch_optional(&mut *conn)
    .await?;
    // A rebase that got as far as its own commit: the number that the lake has yet to get.
    let pending: Option<i64> = sqlx::query_scalar(
        "SELECT number FROM watershed_control.archives
         WHERE relid = $1 AND rebased_from = $2 AND number = $3 AND lineage = $4 AND lineage = $5",
    )
    .bind(Oid(spec.relid))
    .bind(archive)
    .bind(spec.min_archive)
    .bind(&spec.lineage)
    .bind(&lineage)
    .fetch_optional(&mut *conn)
    .await?;
    conn.execute("COMMIT").await?;

    let mut standing = Standing { lineage, found: Found::Broken, boundary: None, pending: 0, spec };
    if archive == 0 && version.is_none_or(|v| v.files.is_empty()) {
        let same = standing.spec.lineage == standing.lineage;
        standing.found = if same { Found::Current } else { Found::NothingArchived };
        return Ok(standing);
    }
    if let Some(pending) = pending.filter(|p| *p > archive) {
        standing.pending = pending;
        standing.found = Found::Unfinished;
        return Ok(standing);
    }
    let Some(known) = known else {
        return Ok(standing);
    };
    let of: String = known.try_get("lineage")?;
    if of == standing.lineage && standing.spec.lineage == standing.lineage {
        standing.found = Found::Current;
    } else if of == standing.spec.lineage && known.try_get::<bool, _>("physical")? {
        let boundary: Boundary = known.try_get::<String, _>("boundary")?.parse()?;
        let next = u64::try_from(known.try_get::<i64, _>("next")?).unwrap_or(0);
        if boundary.xmax <= next {
            standing.found = Found::Unbroken;
            standing.boundary = Some(boundary);
        }
    }
    Ok(standing)
}

/// One above every `_xid` of a lake version, from the statistics of its files.
fn mark_of(spec: &TableSpec, version: &LakeVersion) -> Result<i64> {
    let mut mark = 0;
    for file in version.files.iter().filter(|f| f.rows > 0) {
        match file.column(types::XID).and_then(|c| c.max.as_ref()) {
            Some(Bound::Int(v)) => mark = mark.max(v.saturating_add(1)),
            _ => {
                return Err(Error::Lake(lake::Error::Unsupported {
                    table: spec.qualified(),
                    what: format!("file {} does not say which transactions it holds", file.path),
                }));
            }
        }
    }
    Ok(mark)
}

/// Compares and moves rows, and ends with the new lineage. Returns the new archive's number.
async fn broken(
    cfg: &Config,
    lead: &mut PgConnection,
    standing: &Standing,
    lake: &mut LakeTable,
    fence: i64,
    report: &mut RebaseReport,
    say: Say<'_>,
) -> Result<i64> {
    let spec = &standing.spec;
    // A column that PostgreSQL has lost with the rest would be lost in the rows that come back.
    let version = lake.ensure_schema(spec).await?;
    let mark = mark_of(spec, &version)?;
    say(&format!(
        "{}: PostgreSQL does not know archive {}, which the lake holds; comparing {} rows",
        spec.qualified(),
        version.archive,
        version.rows
    ));
    burn(cfg, spec, mark, say).await?;
    crash::point("rebase.burned");
    outlive(cfg, lead, spec, mark, say).await?;
    let prepared = compare::prepare(cfg, spec, lake, &version, say).await?;
    crash::point("rebase.prepared");
    let boundary = Boundary { xmin: mark as u64, xmax: mark as u64, xip: Vec::new() };
    let work = Work { lake, version: &version, mark, prepared };
    finish(lead, cfg, standing, version.archive, Some(boundary), fence, report, say, Some(work)).await
}

/// What [`finish`] needs to move rows.
struct Work<'a> {
    lake: &'a LakeTable,
    version: &'a LakeVersion,
    mark: i64,
    prepared: compare::Prepared,
}

/// Uses up transaction numbers until every one to come is `mark` or above.
async fn burn(cfg: &Config, spec: &TableSpec, mark: i64, say: Say<'_>) -> Result<()> {
    let mut conn = connect(&cfg.database_url).await?;
    conn.execute("SET synchronous_commit = off").await?;
    let mut said = false;
    loop {
        let server: i64 =
            sqlx::query_scalar("SELECT pg_current_xact_id()::text::int8").fetch_one(&mut conn).await?;
        let missing = mark - 1 - server;
        if missing <= 0 {
            break;
        }
        if missing > BURN_AT_MOST {
            return Err(Error::TooFar { table: spec.qualified(), lake: mark - 1, server, missing });
        }
        if !said || missing > 10 * BURN {
            say(&format!("{}: using up {missing} transaction numbers that the lake holds", spec.qualified()));
            said = true;
        }
        let block = format!(
            "DO $$ BEGIN FOR i IN 1..{} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$",
            missing.min(BURN)
        );
        conn.execute(sqlx::AssertSqlSafe(block)).await?;
    }
    conn.close().await?;
    Ok(())
}

/// Waits until no transaction below `mark` runs.
async fn outlive(cfg: &Config, conn: &mut PgConnection, spec: &TableSpec, mark: i64, say: Say<'_>) -> Result<()> {
    let since = Instant::now();
    let mut said = String::new();
    loop {
        let running: Vec<i64> = sqlx::query_scalar(
            "SELECT x::text::int8 FROM pg_snapshot_xip(pg_current_snapshot()) x WHERE x < $1::text::xid8 ORDER BY x",
        )
        .bind(mark.to_string())
        .fetch_all(&mut *conn)
        .await?;
        if running.is_empty() {
            return Ok(());
        }
        let prepared: Vec<String> =
            sqlx::query_scalar("SELECT gid FROM pg_prepared_xacts ORDER BY prepared LIMIT 5").fetch_all(&mut *conn).await?;
        let mut what = format!("waiting for {} older transactions ({running:?})", running.len());
        if !prepared.is_empty() {
            what = format!("{what}; prepared and neither committed nor rolled back: {}", prepared.join(", "));
        }
        if since.elapsed() > cfg.patience {
            return Err(blocked(spec, format!("gave up {what}")));
        }
        if what != said {
            say(&format!("{}: {what}", spec.qualified()));
            said = what;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The transaction that opens the new lineage, with the rows that it moves if there are any to. Returns the archive's number.
#[allow(clippy::too_many_arguments, reason = "each is a step's own fact; a struct would be made for this call only")]
async fn finish(
    conn: &mut PgConnection,
    cfg: &Config,
    standing: &Standing,
    lake_archive: i64,
    boundary: Option<Boundary>,
    fence: i64,
    report: &mut RebaseReport,
    say: Say<'_>,
    work: Option<Work<'_>>,
) -> Result<i64> {
    let spec = &standing.spec;
    lock(cfg, conn, spec, say).await?;
    let compared = work.is_some();
    let streams = work.as_ref().map(|w| w.lake.streams()).unwrap_or_default();
    if let Some(work) = work {
        compare::settle(cfg, conn, spec, work, report, say).await?;
        crash::point("rebase.moved");
    }
    for end in &streams {
        if end.about.is_empty() {
            continue;
        }
        let done: String = sqlx::query_scalar("SELECT watershed_control.rebase_stream($1, $2, $3::text::jsonb, $4)")
            .bind(Oid(spec.relid))
            .bind(end.id)
            .bind(&end.about)
            .bind(end.next_offset)
            .fetch_one(&mut *conn)
            .await?;
        match done.as_str() {
            "same" => {}
            "taken" => say(&format!(
                "{}: stream {} of the lake has its number no longer; its rows keep it, another source has it now",
                spec.qualified(),
                end.id
            )),
            done => {
                report.streams += 1;
                say(&format!("{}: stream {}: {done}, next offset {}", spec.qualified(), end.id, end.next_offset));
            }
        }
    }
    let number: i64 = sqlx::query_scalar("SELECT watershed_control.rebase_finish($1, $2, $3, $4)")
        .bind(Oid(spec.relid))
        .bind(lake_archive)
        .bind(boundary.map(|b| b.to_string()))
        .bind(fence)
        .fetch_one(&mut *conn)
        .await?;
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    sqlx::query(
        "INSERT INTO watershed_control.rebases
             (relid, old_lineage, new_lineage, archive, compared, restored, replaced, kept, surplus, streams)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(Oid(spec.relid))
    .bind(&standing.spec.lineage)
    .bind(&standing.lineage)
    .bind(number)
    .bind(compared)
    .bind(count(report.restored))
    .bind(count(report.replaced))
    .bind(count(report.kept))
    .bind(count(report.surplus))
    .bind(i32::try_from(report.streams).unwrap_or(i32::MAX))
    .execute(&mut *conn)
    .await?;
    crash::point("rebase.before_commit");
    conn.execute("COMMIT").await?;
    crash::point("rebase.committed");
    Ok(number)
}

/// Begins the transaction and locks writers out, never making them queue for long.
async fn lock(cfg: &Config, conn: &mut PgConnection, spec: &TableSpec, say: Say<'_>) -> Result<()> {
    let since = Instant::now();
    let mut said = false;
    loop {
        conn.execute("BEGIN").await?;
        let timeout = format!("SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'");
        conn.execute(sqlx::AssertSqlSafe(timeout)).await?;
        let locked = sqlx::query("SELECT watershed_control.rebase_lock($1)").bind(Oid(spec.relid)).execute(&mut *conn).await;
        match locked {
            Ok(_) => {
                conn.execute("SET LOCAL lock_timeout = 0").await?;
                return Ok(());
            }
            // A lock that did not come in time, or a deadlock with a writer that went first.
            Err(sqlx::Error::Database(e)) if matches!(e.code().as_deref(), Some("55P03" | "40P01")) => {
                conn.execute("ROLLBACK").await?;
                if !said {
                    say(&format!("{}: waiting for open transactions that write to it", spec.qualified()));
                    said = true;
                }
                if since.elapsed() > cfg.patience {
                    return Err(blocked(spec, "open transactions that write to it did not end".into()));
                }
                tokio::time::sleep(PAUSE).await;
            }
            Err(e) => return Err(e.into()),
        }
    }
}
