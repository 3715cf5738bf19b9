//! The two stores side by side: checksums by day first, rows of the days that differ second. Reads both, and writes what was decided;
//! decides nothing itself ([`super::decide`]).

use std::collections::{BTreeMap, HashMap, HashSet};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use futures::TryStreamExt;
use lake::boundary::Boundary;
use lake::checksum::row_hashes;
use lake::log::{LakeTable, LakeVersion};
use lake::pgcopy::CopyDecoder;
use lake::reader::FileReader;
use lake::spec::{PRESENT, TableSpec, quote};
use lake::types::{self, ColType};
use sqlx::postgres::types::Oid;
use sqlx::{Connection, Executor, PgConnection, Row as _};

use super::decide::{Fate, Row, Side, content_key, decide, kafka_key};
use super::spill::Heaps;
use super::{Config, RebaseReport, Say, Work, text};
use crate::archiver::{Error, Result, connect, xid_column};
use crate::verify::{Days, Shape, days_of, scan};

/// Rows of one batch.
const BATCH_ROWS: usize = 8192;
/// Bytes that are sent to PostgreSQL at once.
const CHUNK: usize = 1 << 20;

/// What was read before anyone was kept out.
pub(super) struct Prepared {
    lake: Days,
    postgres: Days,
    /// The snapshot that `postgres` was read in.
    snapshot: Boundary,
}

/// Sums of both stores by day, PostgreSQL's in a snapshot of its own: rows once written stay as they are, so only what comes after the
/// snapshot has to be added later.
pub(super) async fn prepare(
    cfg: &Config,
    spec: &TableSpec,
    lake: &LakeTable,
    version: &LakeVersion,
    say: Say<'_>,
) -> Result<Prepared> {
    let shape = Shape::of(spec)?;
    let mut lake_days = Days::new();
    for file in version.files.iter() {
        let mut reader = FileReader::open(lake, file, spec.arrow_schema(), BATCH_ROWS).await?;
        while let Some(batch) = reader.next().await? {
            shape.add(&batch, &mut lake_days)?;
        }
    }
    let mut conn = connect(&cfg.database_url).await?;
    let snapshot = still_snapshot(&mut conn, spec).await?;
    let mut postgres = Days::new();
    scan(&mut conn, spec, "true", |batch| shape.add(batch, &mut postgres)).await?;
    conn.close().await?;
    let differ = differing(&lake_days, &postgres).len();
    say(&format!("{}: {differ} of {} days differ", spec.qualified(), days_of(&lake_days, &postgres).count()));
    Ok(Prepared { lake: lake_days, postgres, snapshot })
}

/// Begins a transaction that sees one state of the table.
async fn still_snapshot(conn: &mut PgConnection, spec: &TableSpec) -> Result<Boundary> {
    conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let lock = format!("LOCK TABLE {} IN ACCESS SHARE MODE", spec.sql_name());
    conn.execute(sqlx::AssertSqlSafe(lock)).await?;
    let snapshot: String =
        sqlx::query_scalar("SELECT pg_current_snapshot()::text").fetch_one(&mut *conn).await?;
    Ok(snapshot.parse()?)
}

fn differing(lake: &Days, postgres: &Days) -> HashSet<i32> {
    days_of(lake, postgres).filter(|d| lake.get(d) != postgres.get(d)).collect()
}

/// Counts what a rebase would do, in a snapshot, and moves nothing.
pub(super) async fn look_only(
    cfg: &Config,
    spec: &TableSpec,
    lake: &LakeTable,
    version: &LakeVersion,
    mark: i64,
    report: &mut RebaseReport,
    say: Say<'_>,
) -> Result<()> {
    let prepared = prepare(cfg, spec, lake, version, say).await?;
    let days = differing(&prepared.lake, &prepared.postgres);
    let mut conn = connect(&cfg.database_url).await?;
    still_snapshot(&mut conn, spec).await?;
    sort_out(cfg, &mut conn, spec, lake, version, mark, &days, report).await?;
    conn.close().await?;
    Ok(())
}

/// In the transaction that holds the lock: compares what is left to compare, and moves rows.
pub(super) async fn settle(
    cfg: &Config,
    conn: &mut PgConnection,
    spec: &TableSpec,
    work: Work<'_>,
    report: &mut RebaseReport,
    say: Say<'_>,
) -> Result<()> {
    let Work { lake, version, mark, mut prepared } = work;
    let shape = Shape::of(spec)?;
    let later = prepared.snapshot.tail_predicate(&xid_column(spec)?);
    scan(conn, spec, &later, |batch| shape.add(batch, &mut prepared.postgres)).await?;
    let days = differing(&prepared.lake, &prepared.postgres);
    if days.is_empty() {
        return Ok(());
    }
    let moves = sort_out(cfg, conn, spec, lake, version, mark, &days, report).await?;
    say(&format!(
        "{}: {} rows come back from the lake, {} written again are replaced, {} stay as new rows",
        spec.qualified(),
        report.restored,
        report.replaced,
        report.kept
    ));
    apply(conn, spec, lake, version, &moves).await
}

/// Which rows move where.
#[derive(Default)]
struct Moves {
    /// Rows of PostgreSQL that go: partition, page, item.
    gone: Vec<(u32, u32, u16)>,
    /// Rows of PostgreSQL that become rows of the rebase.
    stay: Vec<(u32, u32, u16)>,
    /// Rows of the lake that come: by file, ascending.
    back: BTreeMap<u32, Vec<u32>>,
}

/// Compares the rows of `days`, counts in `report`, and says what is to move.
#[allow(clippy::too_many_arguments, reason = "both stores, and how to compare them")]
async fn sort_out(
    cfg: &Config,
    conn: &mut PgConnection,
    spec: &TableSpec,
    lake: &LakeTable,
    version: &LakeVersion,
    mark: i64,
    days: &HashSet<i32>,
    report: &mut RebaseReport,
) -> Result<Moves> {
    let keys = Keys::read(conn, spec, lake).await?;
    let spill = cfg.spill_dir.as_deref();
    // As many again for PostgreSQL's side.
    let expected: u64 = version.files.iter().filter(|f| days.contains(&f.day)).map(|f| f.rows * 2).sum();
    let mut heaps = Heaps::new(expected, spill)?;
    let mut rows = Vec::with_capacity(BATCH_ROWS);
    for (number, file) in version.files.iter().enumerate() {
        // Every row of a file is of the file's day.
        if !days.contains(&file.day) {
            continue;
        }
        let file_number = u32::try_from(number).map_err(|_| Error::Internal("too many files".into()))?;
        let mut reader = FileReader::open(lake, file, spec.arrow_schema(), BATCH_ROWS).await?;
        let mut at: u32 = 0;
        while let Some(batch) = reader.next().await? {
            let times = keys.shape.event_micros(&batch);
            let first = at;
            keys.rows(&batch, false, &mut rows, |i| Side::Lake {
                file: file_number,
                row: first + i as u32,
                below_floor: spec.floor_us.is_some_and(|floor| times[i] < floor),
            })?;
            at += batch.num_rows() as u32;
            for row in &rows {
                heaps.add(row)?;
            }
        }
    }
    each_postgres_row(conn, spec, days, |batch, places| {
        let times = keys.shape.event_micros(batch);
        let xids = batch.column(keys.shape.xid).as_primitive::<Int64Type>();
        keys.rows(batch, true, &mut rows, |i| {
            let (part, block, item) = places[i];
            Side::Postgres { part, block, item, xid: xids.value(i) as u64 }
        })?;
        for (row, time) in rows.iter().zip(times) {
            if days.contains(&types::partition_day(time)) {
                heaps.add(row)?;
            }
        }
        Ok(())
    })
    .await?;

    let mut moves = Moves::default();
    let mark = mark as u64;
    for i in 0..heaps.len() {
        let rows = heaps.read(i)?;
        for group in rows.chunk_by(|a, b| a.key == b.key) {
            decide(group, mark, |row, fate| match (row.side, fate) {
                (Side::Lake { file, row, .. }, _) => {
                    match fate {
                        Fate::Restore => report.restored += 1,
                        _ => report.replaced += 1,
                    }
                    moves.back.entry(file).or_default().push(row);
                }
                (Side::Postgres { part, block, item, xid }, fate) => match fate {
                    Fate::Drop => moves.gone.push((part, block, item)),
                    _ => {
                        report.surplus += u64::from(fate == Fate::Surplus);
                        if xid < mark {
                            report.kept += 1;
                            moves.stay.push((part, block, item));
                        }
                    }
                },
            });
        }
    }
    for rows in moves.back.values_mut() {
        rows.sort_unstable();
    }
    Ok(moves)
}

/// How rows are told apart.
struct Keys<'a> {
    shape: Shape<'a>,
    /// Columns by position: all but `_xid`, and those that another reading of the same record does not fill anew.
    content: Vec<usize>,
    essence: Vec<usize>,
    /// Kafka's streams, by number in each store: the number that both have for the same source.
    lake_kafka: HashMap<i32, i64>,
    postgres_kafka: HashMap<i32, i64>,
    loads: HashSet<i32>,
}

/// What makes two streams of Kafka the same: topic, topic id, partition, first offset.
type Source = (Option<String>, Option<String>, Option<i64>, Option<i64>);

fn source(about: &serde_json::Value) -> Source {
    let text = |key: &str| about.get(key).and_then(|v| v.as_str()).map(str::to_owned);
    let number = |key: &str| about.get(key).and_then(serde_json::Value::as_i64);
    (text("topic"), text("topic_id"), number("partition"), number("start_offset"))
}

impl<'a> Keys<'a> {
    async fn read(conn: &mut PgConnection, spec: &'a TableSpec, lake: &LakeTable) -> Result<Self> {
        let shape = Shape::of(spec)?;
        // A default that calls something gives another value each time.
        let volatile: Vec<i16> = sqlx::query_scalar(
            "SELECT adnum FROM pg_attrdef WHERE adrelid = $1
             AND (pg_get_expr(adbin, adrelid) ~ '[(]' OR pg_get_expr(adbin, adrelid) ~* 'current_|localtime')",
        )
        .bind(Oid(spec.relid))
        .fetch_all(&mut *conn)
        .await?;
        let content: Vec<usize> = (0..spec.columns.len()).filter(|i| *i != shape.xid).collect();
        let essence: Vec<usize> =
            content.iter().copied().filter(|i| !volatile.contains(&spec.columns[*i].attnum)).collect();

        let mut loads = HashSet::new();
        let mut lake_kafka = HashMap::new();
        let mut known: HashMap<Source, i32> = HashMap::new();
        for end in lake.streams() {
            let about = serde_json::from_str(&end.about).unwrap_or(serde_json::Value::Null);
            match about.get("kind").and_then(|k| k.as_str()) {
                Some("kafka") => {
                    lake_kafka.insert(end.id, i64::from(end.id));
                    known.insert(source(&about), end.id);
                }
                Some(_) => {
                    loads.insert(end.id);
                }
                None => {}
            }
        }
        let mut postgres_kafka = HashMap::new();
        let streams = sqlx::query("SELECT id, kind, to_jsonb(s)::text AS about FROM watershed_control.streams s WHERE relid = $1")
            .bind(Oid(spec.relid))
            .fetch_all(&mut *conn)
            .await?;
        for row in streams {
            let id: i32 = row.try_get("id")?;
            if row.try_get::<String, _>("kind")? != "kafka" {
                loads.insert(id);
                continue;
            }
            let about: serde_json::Value =
                serde_json::from_str(row.try_get("about")?).unwrap_or(serde_json::Value::Null);
            let canonical = match known.get(&source(&about)) {
                Some(same) => i64::from(*same),
                // The lake has the number for another source: this one gets a number that the lake cannot have.
                None if lake_kafka.contains_key(&id) => -i64::from(id),
                None => {
                    // Archived before the lake was told of streams: the number is all there is.
                    lake_kafka.entry(id).or_insert(i64::from(id));
                    i64::from(id)
                }
            };
            postgres_kafka.insert(id, canonical);
        }
        Ok(Self { shape, content, essence, lake_kafka, postgres_kafka, loads })
    }

    /// The rows of a batch, to be compared.
    fn rows(
        &self,
        batch: &RecordBatch,
        of_postgres: bool,
        out: &mut Vec<Row>,
        side: impl Fn(usize) -> Side,
    ) -> Result<()> {
        out.clear();
        let project =
            |columns: &[usize]| -> Result<Vec<u128>> { Ok(row_hashes(&batch.project(columns).map_err(lake::Error::from)?)?) };
        let full = row_hashes(batch)?;
        let (content, essence) = (project(&self.content)?, project(&self.essence)?);
        let streams = batch.column(self.shape.identity[0]).as_primitive::<Int32Type>();
        let offsets = batch.column(self.shape.identity[1]).as_primitive::<Int64Type>();
        let kafka = if of_postgres { &self.postgres_kafka } else { &self.lake_kafka };
        for i in 0..batch.num_rows() {
            let stream = streams.value(i);
            let key = match kafka.get(&stream) {
                Some(canonical) => kafka_key(*canonical, offsets.value(i)),
                // The number is part of the content; so what a load read again is the same if number and essence are.
                None if self.loads.contains(&stream) => content_key(essence[i]),
                None => content_key(content[i]),
            };
            out.push(Row { key, full: full[i], essence: essence[i] as u64, side: side(i) });
        }
        Ok(())
    }
}

/// The rows of PostgreSQL that may be of `days`, with the place of each: partition, page, item.
async fn each_postgres_row(
    conn: &mut PgConnection,
    spec: &TableSpec,
    days: &HashSet<i32>,
    mut each: impl FnMut(&RecordBatch, &[(u32, u32, u16)]) -> Result<()>,
) -> Result<()> {
    let event = spec.event_column()?;
    let bound = |day: i32| match event.ty {
        ColType::TimestampTz => format!("'{} 00:00:00+00'", types::day_text(day)),
        _ => format!("'{}'", types::day_text(day)),
    };
    // The first and last partition of the lake hold everything before and after, too.
    let mut range = String::from("true");
    if let (Some(first), Some(last)) = (days.iter().min(), days.iter().max()) {
        let column = format!("t.{}", quote(&event.name));
        if *first > types::FIRST_DAY {
            range = format!("{range} AND {column} >= {}", bound(*first));
        }
        if *last < types::LAST_DAY {
            range = format!("{range} AND {column} < {}", bound(*last + 1));
        }
    }
    let columns: Vec<String> = spec.columns.iter().map(|c| format!("t.{}", quote(&c.name))).collect();
    let sql = format!(
        "COPY (SELECT t.tableoid::int8, t.ctid::text, {} FROM {} t WHERE {range} AND {PRESENT}) TO STDOUT (FORMAT binary)",
        columns.join(", "),
        spec.sql_name()
    );
    let mut types = vec![ColType::Int8, ColType::Text];
    types.extend(spec.types());
    let mut fields: Vec<_> = [("part", ColType::Int8), ("place", ColType::Text)]
        .map(|(name, ty)| std::sync::Arc::new(arrow::datatypes::Field::new(name, ty.arrow(), true)))
        .to_vec();
    fields.extend(spec.arrow_schema().fields().iter().cloned());
    let schema = std::sync::Arc::new(arrow::datatypes::Schema::new(fields));
    let mut decoder = CopyDecoder::new(&types, schema, BATCH_ROWS)?;
    let rest: Vec<usize> = (2..types.len()).collect();
    let mut places = Vec::with_capacity(BATCH_ROWS);
    let mut take = |batch: RecordBatch| -> Result<()> {
        let parts = batch.column(0).as_primitive::<Int64Type>();
        let texts = batch.column(1).as_string_view();
        places.clear();
        for i in 0..batch.num_rows() {
            let part = u32::try_from(parts.value(i)).ok();
            let place = part.zip(place(texts.value(i)));
            let (part, (block, item)) = place.ok_or_else(|| Error::Internal("a row without a place".into()))?;
            places.push((part, block, item));
        }
        each(&batch.project(&rest).map_err(lake::Error::from)?, &places)
    };
    let mut stream = conn.copy_out_raw(&sql).await?;
    while let Some(chunk) = stream.try_next().await? {
        decoder.push(&chunk)?;
        while let Some(batch) = decoder.next_batch() {
            take(batch)?;
        }
    }
    drop(stream);
    if let Some(batch) = decoder.finish()? {
        take(batch)?;
    }
    Ok(())
}

/// Page and item of a tid as PostgreSQL prints it: `(page,item)`.
fn place(text: &str) -> Option<(u32, u16)> {
    let (block, item) = text.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
    Some((block.parse().ok()?, item.parse().ok()?))
}

/// Brings the moves to PostgreSQL, and has them made there.
async fn apply(
    conn: &mut PgConnection,
    spec: &TableSpec,
    lake: &LakeTable,
    version: &LakeVersion,
    moves: &Moves,
) -> Result<()> {
    conn.execute("CREATE TEMP TABLE rebase_gone (part oid, tid tid) ON COMMIT DROP").await?;
    conn.execute("CREATE TEMP TABLE rebase_stay (part oid, tid tid) ON COMMIT DROP").await?;
    let like = format!("CREATE TEMP TABLE rebase_back (LIKE {}) ON COMMIT DROP", spec.sql_name());
    conn.execute(sqlx::AssertSqlSafe(like)).await?;
    for (name, places) in [("rebase_gone", &moves.gone), ("rebase_stay", &moves.stay)] {
        let mut copy = conn.copy_in_raw(&format!("COPY pg_temp.{name} FROM STDIN")).await?;
        for some in places.chunks(10_000) {
            let lines: String = some.iter().map(|(part, block, item)| format!("{part}\t({block},{item})\n")).collect();
            copy.send(lines.into_bytes()).await?;
        }
        copy.finish().await?;
    }
    let columns: Vec<String> = spec.columns.iter().map(|c| quote(&c.name)).collect();
    let types = spec.types();
    let mut copy =
        conn.copy_in_raw(&format!("COPY pg_temp.rebase_back ({}) FROM STDIN", columns.join(", "))).await?;
    let mut lines = String::new();
    for (number, rows) in &moves.back {
        let Some(file) = version.files.get(*number as usize) else { continue };
        let mut reader = FileReader::open(lake, file, spec.arrow_schema(), BATCH_ROWS).await?;
        let (mut at, mut next) = (0, rows.iter().peekable());
        while let Some(batch) = reader.next().await? {
            let end = at + batch.num_rows() as u32;
            while let Some(row) = next.next_if(|row| **row < end) {
                text::line(&batch, &types, (row - at) as usize, &mut lines)
                    .map_err(|ty| Error::Internal(format!("a column of type {ty} has no text")))?;
                if lines.len() >= CHUNK {
                    copy.send(std::mem::take(&mut lines).into_bytes()).await?;
                }
            }
            at = end;
        }
    }
    copy.send(lines.into_bytes()).await?;
    copy.finish().await?;
    sqlx::query("SELECT watershed_control.rebase_rows($1)").bind(Oid(spec.relid)).execute(conn).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        assert_eq!(place("(4294967294,291)"), Some((u32::MAX - 1, 291)));
        assert_eq!((place("(1)"), place("1,2"), place("(1,70000)")), (None, None, None));
    }
}
