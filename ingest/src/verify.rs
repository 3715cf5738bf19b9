//! `watershed verify`: are the two stores the same where both hold the rows? Reads both, changes neither; knows no schedule.
//!
//! One lake version and its boundary A are pinned; the rows of PostgreSQL that A sees are compared with the rows of that version, as
//! multisets: counts and order-free checksums over all columns with provenance, day by day, and the same of the source identities
//! (`_stream`, `_offset`). Both sides are hashed from Arrow values of the same types. No row of the lake may be of a transaction that A
//! does not see: it would be in the tail as well. Where days differ, they are read again to find the first row that one side lacks.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Date32Type, Int64Type, TimestampMicrosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;
use lake::Url;
use lake::boundary::Boundary;
use lake::checksum::{Checksum, row_hashes};
use lake::log::{LakeTable, LakeVersion};
use lake::pgcopy::CopyDecoder;
use lake::reader::FileReader;
use lake::spec::{PRESENT, TableSpec, quote};
use lake::types;
use sqlx::{Connection, PgConnection};

use crate::archiver::{Error, Result, boundary_of, chosen, connect, lock_and_snapshot, xid_column};

/// Where the two stores are.
#[derive(Clone)]
pub struct Config {
    /// URL of the database as role `watershed_archiver`.
    pub database_url: String,
    /// The directory that holds the lake tables.
    pub lake_root: Url,
}

impl std::fmt::Debug for Config {
    // The URL holds a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("lake_root", &self.lake_root.as_str()).finish_non_exhaustive()
    }
}

/// What the comparison of one table found.
#[derive(Debug, Clone)]
pub struct VerifyReport {
    /// `schema.table`.
    pub table: String,
    /// The lake version and the archive whose boundary was compared at; 0: nothing was archived yet.
    pub version: i64,
    pub archive: i64,
    /// The boundary, as PostgreSQL prints it; empty if nothing was archived.
    pub boundary: String,
    /// Rows of the lake version, and of PostgreSQL inside the boundary, from the floor on.
    pub lake: Checksum,
    pub postgres: Checksum,
    /// The same of the source identities.
    pub lake_identities: Checksum,
    pub postgres_identities: Checksum,
    /// Rows of PostgreSQL outside the boundary: the tail at the time of the comparison.
    pub tail_rows: u64,
    /// Rows of the lake whose transactions the boundary does not see: they are in both lake and tail. Must be 0.
    pub in_both: u64,
    /// Rows of the lake in another partition than their event time's. Must be 0.
    pub misplaced: u64,
    /// Rows of the lake below the floor, which PostgreSQL may have dropped and nothing compares.
    pub below_floor: u64,
    /// The last change of lineage, in words: what PostgreSQL had lost and got back. `None`: there was none.
    pub rebased: Option<String>,
    /// The first difference, in words.
    pub difference: Option<String>,
    pub ok: bool,
    pub elapsed: Duration,
}

/// How far a comparison has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    pub table: &'a str,
    pub lake_rows: u64,
    /// Rows that the lake version holds in all.
    pub lake_total: u64,
    pub postgres_rows: u64,
}

/// A callback for progress, called about once a batch.
pub type OnProgress<'a> = &'a (dyn Fn(Progress<'_>) + Send + Sync);

/// Compares every tiered table, or the one named (`schema.table`, or `table` if that is unambiguous).
///
/// Errors: what kept the comparison from being made. A difference is no error: see [`VerifyReport::ok`].
pub async fn verify(cfg: Config, table: Option<&str>) -> Result<Vec<VerifyReport>> {
    verify_with(cfg, table, &|_| {}).await
}

/// [`verify`] with progress.
pub async fn verify_with(
    cfg: Config,
    table: Option<&str>,
    progress: OnProgress<'_>,
) -> Result<Vec<VerifyReport>> {
    let chosen = chosen(&cfg.database_url, table).await?;
    let mut reports = Vec::with_capacity(chosen.len());
    for spec in &chosen {
        reports.push(compare(&cfg, spec, progress).await?);
    }
    Ok(reports)
}

/// Rows of one batch.
const BATCH_ROWS: usize = 8192;

/// Rows and identities of one day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    rows: Checksum,
    identities: Checksum,
}

pub(crate) type Days = BTreeMap<i32, Sums>;

/// What both readers of a table need.
pub(crate) struct Shape<'a> {
    pub(crate) spec: &'a TableSpec,
    event: usize,
    pub(crate) xid: usize,
    pub(crate) identity: [usize; 2],
}

impl<'a> Shape<'a> {
    pub(crate) fn of(spec: &'a TableSpec) -> Result<Self> {
        let index = |name: &str| {
            spec.index_of(name).ok_or_else(|| {
                Error::Lake(lake::Error::Schema {
                    table: spec.qualified(),
                    what: format!("it lacks the column {name}"),
                })
            })
        };
        Ok(Self {
            spec,
            event: index(&spec.event_column()?.lake_name)?,
            xid: index(types::XID)?,
            identity: [index(types::STREAM)?, index(types::OFFSET)?],
        })
    }

    /// Event times of a batch in microseconds since 1970.
    pub(crate) fn event_micros(&self, batch: &RecordBatch) -> Vec<i64> {
        let column = batch.column(self.event);
        if let Some(days) = column.as_primitive_opt::<Date32Type>() {
            days.values().iter().map(|d| i64::from(*d).saturating_mul(types::DAY_MICROS)).collect()
        } else if let Some(times) = column.as_primitive_opt::<TimestampMicrosecondType>() {
            times.values().to_vec()
        } else {
            vec![0; batch.num_rows()]
        }
    }

    /// Adds a batch to the sums of its days.
    pub(crate) fn add(&self, batch: &RecordBatch, days: &mut Days) -> Result<()> {
        let rows = row_hashes(batch)?;
        let identities = row_hashes(&batch.project(&self.identity).map_err(lake::Error::from)?)?;
        for ((row, identity), micros) in rows.iter().zip(&identities).zip(self.event_micros(batch)) {
            let sums = days.entry(types::partition_day(micros)).or_default();
            sums.rows.add(*row);
            sums.identities.add(*identity);
        }
        Ok(())
    }
}

async fn compare(cfg: &Config, spec: &TableSpec, progress: OnProgress<'_>) -> Result<VerifyReport> {
    let started = Instant::now();
    // The version first, then the snapshot: the snapshot then sees all that the boundary sees.
    let lake = LakeTable::open(&cfg.lake_root, spec).await?;
    let version = lake.as_ref().map(LakeTable::current);
    let mut conn = connect(&cfg.database_url).await?;
    let (snapshot, spec) = lock_and_snapshot(&mut conn, spec).await?;
    let archive = version.as_ref().map_or(0, |v| v.archive);
    let boundary = boundary_of(&mut conn, &spec, archive).await?;
    let table = spec.qualified();
    if !boundary.serves(&snapshot) {
        return Err(Error::BoundaryAhead {
            table,
            boundary: boundary.to_string(),
            snapshot: snapshot.to_string(),
        });
    }
    let shape = Shape::of(&spec)?;
    let tail = boundary.tail_predicate(&xid_column(&spec)?);
    let above_floor = floor_predicate(&spec)?;
    let inside = format!("NOT {tail} AND {above_floor}");
    let lake_total = version.as_ref().map_or(0, |v| v.rows);

    let mut lake_days = Days::new();
    let (mut in_both, mut misplaced, mut below_floor, mut lake_rows) = (0, 0, 0, 0);
    if let (Some(lake), Some(version)) = (&lake, &version) {
        for file in version.files.iter() {
            let mut reader = FileReader::open(lake, file, spec.arrow_schema(), BATCH_ROWS).await?;
            while let Some(batch) = reader.next().await? {
                lake_rows += batch.num_rows() as u64;
                in_both += unseen(&shape, &batch, &boundary);
                misplaced += shape
                    .event_micros(&batch)
                    .iter()
                    .filter(|t| types::partition_day(**t) != file.day)
                    .count() as u64;
                let kept = from_floor(&shape, &batch, spec.floor_us)?;
                below_floor += (batch.num_rows() - kept.num_rows()) as u64;
                shape.add(&kept, &mut lake_days)?;
                progress(Progress { table: &table, lake_rows, lake_total, postgres_rows: 0 });
            }
        }
    }

    let mut postgres_days = Days::new();
    let mut postgres_rows = 0;
    scan(&mut conn, &spec, &inside, |batch| {
        postgres_rows += batch.num_rows() as u64;
        shape.add(batch, &mut postgres_days)?;
        progress(Progress { table: &table, lake_rows, lake_total, postgres_rows });
        Ok(())
    })
    .await?;

    let differs = days_of(&lake_days, &postgres_days).find(|d| {
        lake_days.get(d).copied().unwrap_or_default() != postgres_days.get(d).copied().unwrap_or_default()
    });
    let mut difference = None;
    if let Some(day) = differs {
        let found =
            first_difference(&mut conn, lake.as_ref(), version.as_deref(), &shape, &inside, day).await?;
        difference = Some(found);
    } else if in_both > 0 {
        difference =
            Some(format!("{in_both} rows of the lake are of transactions outside its boundary {boundary}"));
    } else if misplaced > 0 {
        difference = Some(format!("{misplaced} rows of the lake are in the partition of another day"));
    }
    let tail_rows = count(&mut conn, &spec, &tail).await?;
    let rebased = last_rebase(&mut conn, &spec).await?;
    conn.close().await?;

    let (lake_sums, postgres_sums) = (total(&lake_days), total(&postgres_days));
    Ok(VerifyReport {
        ok: difference.is_none(),
        table,
        version: version.as_ref().map_or(0, |v| v.version),
        archive,
        boundary: if archive == 0 { String::new() } else { boundary.to_string() },
        lake: lake_sums.rows,
        postgres: postgres_sums.rows,
        lake_identities: lake_sums.identities,
        postgres_identities: postgres_sums.identities,
        tail_rows,
        in_both,
        misplaced,
        below_floor,
        rebased,
        difference,
        elapsed: started.elapsed(),
    })
}

/// What the last rebase of the table found.
async fn last_rebase(conn: &mut PgConnection, spec: &TableSpec) -> Result<Option<String>> {
    let sql = "SELECT format('%s: lineage %s -> %s, %s', at::timestamptz(0), old_lineage, new_lineage,
                CASE WHEN compared THEN format('%s rows had been lost and came back from the lake, %s written again were replaced, %s '
                    'that the lake lacked were kept%s', restored, replaced, kept,
                    CASE WHEN surplus > 0 THEN format(', %s of them beside another row of their record', surplus) ELSE '' END)
                ELSE 'nothing that the lake holds had been lost' END)
         FROM watershed_control.rebases WHERE relid = $1 ORDER BY id DESC LIMIT 1";
    Ok(sqlx::query_scalar(sql).bind(sqlx::postgres::types::Oid(spec.relid)).fetch_optional(conn).await?)
}

pub(crate) fn days_of(a: &Days, b: &Days) -> impl Iterator<Item = i32> {
    a.keys().chain(b.keys()).copied().collect::<std::collections::BTreeSet<_>>().into_iter()
}

fn total(days: &Days) -> Sums {
    let mut sums = Sums::default();
    for day in days.values() {
        sums.rows.merge(&day.rows);
        sums.identities.merge(&day.identities);
    }
    sums
}

/// The SQL condition for rows that PostgreSQL must still hold.
fn floor_predicate(spec: &TableSpec) -> Result<String> {
    Ok(match spec.floor_us {
        None => "true".into(),
        Some(us) => format!(
            "t.{} OPERATOR(pg_catalog.>=) (timestamptz '1970-01-01 00:00:00+00' + {} * interval '1 day' + {} * interval '1 microsecond') AT TIME ZONE 'UTC'{}",
            quote(&spec.event_column()?.name),
            us.div_euclid(types::DAY_MICROS),
            us.rem_euclid(types::DAY_MICROS),
            match spec.event_column()?.ty {
                types::ColType::TimestampTz => " AT TIME ZONE 'UTC'",
                _ => "",
            },
        ),
    })
}

/// The rows of a batch at or above the floor.
fn from_floor(shape: &Shape<'_>, batch: &RecordBatch, floor_us: Option<i64>) -> Result<RecordBatch> {
    let Some(floor) = floor_us else {
        return Ok(batch.clone());
    };
    let kept = shape.event_micros(batch).into_iter().map(|t| Some(t >= floor)).collect();
    Ok(filter_record_batch(batch, &kept).map_err(lake::Error::from)?)
}

/// How many rows are of transactions that the boundary does not see.
fn unseen(shape: &Shape<'_>, batch: &RecordBatch, boundary: &Boundary) -> u64 {
    let xids = batch.column(shape.xid).as_primitive::<Int64Type>();
    let mut last = (0, true);
    let mut count = 0;
    for xid in xids {
        let seen = match xid.and_then(|x| u64::try_from(x).ok()) {
            None => false,
            // Rows of one transaction mostly stand together.
            Some(x) if last == (x, true) => true,
            Some(x) => {
                last = (x, boundary.sees(x));
                last.1
            }
        };
        count += u64::from(!seen);
    }
    count
}

async fn count(conn: &mut PgConnection, spec: &TableSpec, condition: &str) -> Result<u64> {
    let sql = format!("SELECT count(*) FROM {} t WHERE {condition} AND {PRESENT}", spec.sql_name());
    let n: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(conn).await?;
    Ok(n.unsigned_abs())
}

/// Streams the rows that PostgreSQL itself has under a condition.
pub(crate) async fn scan(
    conn: &mut PgConnection,
    spec: &TableSpec,
    condition: &str,
    mut each: impl FnMut(&RecordBatch) -> Result<()>,
) -> Result<()> {
    let columns: Vec<String> = spec.columns.iter().map(|c| format!("t.{}", quote(&c.name))).collect();
    let sql = format!(
        "COPY (SELECT {} FROM {} t WHERE {condition} AND {PRESENT}) TO STDOUT (FORMAT binary)",
        columns.join(", "),
        spec.sql_name()
    );
    let mut decoder = CopyDecoder::new(&spec.types(), spec.arrow_schema(), BATCH_ROWS)?;
    let mut stream = conn.copy_out_raw(&sql).await?;
    while let Some(chunk) = stream.try_next().await? {
        decoder.push(&chunk)?;
        while let Some(batch) = decoder.next_batch() {
            each(&batch)?;
        }
    }
    if let Some(batch) = decoder.finish()? {
        each(&batch)?;
    }
    Ok(())
}

/// Rows of a day are told apart by the upper bits of their hashes, in this many heaps, so that only one heap is held at a time.
const HEAPS: usize = 1 << 14;
/// Rows that are held while one heap is searched.
const HELD: usize = 100_000;

fn heap(hash: u128) -> usize {
    (hash >> 114) as usize & (HEAPS - 1)
}

/// Finds a row that only one side has, among those of `day`.
async fn first_difference(
    conn: &mut PgConnection,
    lake: Option<&LakeTable>,
    version: Option<&LakeVersion>,
    shape: &Shape<'_>,
    inside: &str,
    day: i32,
) -> Result<String> {
    let mut heaps = vec![(Checksum::default(), Checksum::default()); HEAPS];
    both_sides(conn, lake, version, shape, inside, day, |batch, hashes, is_lake| {
        let _ = batch;
        for h in hashes {
            let (lake, postgres) = &mut heaps[heap(*h)];
            if is_lake { lake.add(*h) } else { postgres.add(*h) }
        }
        Ok(())
    })
    .await?;
    let Some(chosen) = heaps.iter().position(|(l, p)| l != p) else {
        return Ok(format!(
            "the rows of {} differed when they were first read, and no longer do",
            types::day_text(day)
        ));
    };
    // Hash -> how many more the lake has than PostgreSQL, and the row in words.
    let mut rows: BTreeMap<u128, (i64, String)> = BTreeMap::new();
    both_sides(conn, lake, version, shape, inside, day, |batch, hashes, is_lake| {
        for (i, h) in hashes.iter().enumerate().filter(|(_, h)| heap(**h) == chosen) {
            if rows.len() >= HELD && !rows.contains_key(h) {
                continue;
            }
            let entry = match rows.entry(*h) {
                std::collections::btree_map::Entry::Occupied(e) => e.into_mut(),
                std::collections::btree_map::Entry::Vacant(e) => e.insert((0, describe(batch, i)?)),
            };
            entry.0 += if is_lake { 1 } else { -1 };
        }
        Ok(())
    })
    .await?;
    let sides = |n: i64| if n > 0 { "the lake" } else { "PostgreSQL" };
    Ok(match rows.values().find(|(n, _)| *n != 0) {
        Some((n, row)) => format!(
            "{} has {} more of this row of {} than {}: {row}",
            sides(*n),
            n.unsigned_abs(),
            types::day_text(day),
            sides(-n)
        ),
        None => format!("the rows of {} differ", types::day_text(day)),
    })
}

/// Reads the rows of one day from both sides: batches with the hashes of their rows, and whether they are of the lake.
async fn both_sides(
    conn: &mut PgConnection,
    lake: Option<&LakeTable>,
    version: Option<&LakeVersion>,
    shape: &Shape<'_>,
    inside: &str,
    day: i32,
    mut each: impl FnMut(&RecordBatch, &[u128], bool) -> Result<()>,
) -> Result<()> {
    let of_day = |batch: &RecordBatch| -> Result<RecordBatch> {
        let kept =
            shape.event_micros(batch).into_iter().map(|t| Some(types::partition_day(t) == day)).collect();
        Ok(filter_record_batch(batch, &kept).map_err(lake::Error::from)?)
    };
    if let (Some(lake), Some(version)) = (lake, version) {
        // A row may stand in a file of another day, which is itself a difference: every file is read.
        for file in version.files.iter() {
            let mut reader = FileReader::open(lake, file, shape.spec.arrow_schema(), BATCH_ROWS).await?;
            while let Some(batch) = reader.next().await? {
                let batch = of_day(&from_floor(shape, &batch, shape.spec.floor_us)?)?;
                each(&batch, &row_hashes(&batch)?, true)?;
            }
        }
    }
    scan(conn, shape.spec, inside, |batch| {
        let batch = of_day(batch)?;
        each(&batch, &row_hashes(&batch)?, false)
    })
    .await
}

/// A row in words: its columns by lake name.
fn describe(batch: &RecordBatch, row: usize) -> Result<String> {
    let options = FormatOptions::default().with_null("NULL");
    let mut text = String::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let value = ArrayFormatter::try_new(column.as_ref(), &options).map_err(lake::Error::from)?;
        let shown = value.value(row).to_string();
        let cut: String = shown.chars().take(200).collect();
        let dots = if cut.len() < shown.len() { "..." } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(text, "{}{}={cut}{dots}", if text.is_empty() { "" } else { " " }, field.name());
    }
    Ok(text)
}
