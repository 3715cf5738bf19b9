//! One archive of one table: from snapshot to Delta commit. Knows no schedule.

use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Date32Type, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use futures::TryStreamExt;
use lake::boundary::Boundary;
use lake::crash;
use lake::log::{APP_ARCHIVER_FENCE, LakeTable, NewFile};
use lake::pgcopy::CopyDecoder;
use lake::spec::{PRESENT, TableSpec, quote};
use lake::types;
use lake::writer::FileWriter;
use sqlx::{Connection, PgConnection};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::leader::{Leader, Wait};
use super::{Config, Error, Result, boundary_of, connect, lock_and_snapshot, session};

/// What one archive did.
#[derive(Debug, Clone, PartialEq)]
pub struct ArchiveReport {
    /// `schema.table`.
    pub table: String,
    /// The archive's number; `None`: there was nothing to ship, and nothing was committed.
    pub archive: Option<i64>,
    /// The lake's version after it.
    pub version: i64,
    /// The snapshot that was shipped, as PostgreSQL prints it.
    pub boundary: String,
    pub rows: u64,
    pub files: usize,
    /// Bytes of the files.
    pub bytes: u64,
    pub elapsed: Duration,
}

/// Rows of one batch.
const BATCH_ROWS: usize = 8192;
/// Batches that may wait for the writer.
const AHEAD: usize = 4;

/// Archives the tail of `spec`, as the module's documentation says. `lake` is the table if it was opened before: then only what the
/// log has won since is read, however old the table is.
pub(super) async fn archive(
    cfg: &Config,
    spec: &TableSpec,
    lake: &mut Option<LakeTable>,
    wait: Wait,
    shutdown: &CancellationToken,
) -> Result<ArchiveReport> {
    let started = Instant::now();
    let table = match lake {
        Some(table) => table,
        None => lake.insert(LakeTable::open_or_create(&cfg.lake_root, spec).await?),
    };
    let mut leader =
        Leader::take(&cfg.database_url, spec, table.fence(APP_ARCHIVER_FENCE), wait, shutdown).await?;
    crash::point("archive.leading");
    let outcome = lead(cfg, spec, table, &mut leader, shutdown).await;
    if let Ok((_, Some(_))) = &outcome
        && let Err(error) = leader.forget_archives(table.current().archive).await
    {
        tracing::warn!(table = spec.qualified(), %error, "old boundaries were not deleted");
    }
    leader.resign().await;
    let (boundary, shipped) = outcome?;
    let mut report = ArchiveReport {
        table: spec.qualified(),
        archive: None,
        version: table.current().version,
        boundary: boundary.to_string(),
        rows: 0,
        files: 0,
        bytes: 0,
        elapsed: started.elapsed(),
    };
    if let Some((number, files)) = shipped {
        report.archive = Some(number);
        report.rows = files.iter().map(|f| f.file.rows).sum();
        report.bytes = files.iter().map(|f| f.file.size).sum();
        report.files = files.len();
        if let Err(error) = table.checkpoint_if_due(cfg.checkpoint_every).await {
            tracing::warn!(table = report.table, %error, "no checkpoint of the Delta log was written");
        }
    }
    report.elapsed = started.elapsed();
    Ok(report)
}

/// Everything between taking and giving back the lead.
async fn lead(
    cfg: &Config,
    spec: &TableSpec,
    table: &mut LakeTable,
    leader: &mut Leader,
    shutdown: &CancellationToken,
) -> Result<(Boundary, Option<(i64, Vec<NewFile>)>)> {
    // The lake is read again under the lock: whoever led before may have committed since.
    let held = table.refresh().await?.archive;
    let mut reader = connect(&cfg.database_url).await?;
    let (snapshot, spec) = lock_and_snapshot(&mut reader, spec).await?;
    crash::point("archive.snapshot");
    let previous = boundary_of(&mut reader, &spec, held).await?;
    if !previous.serves(&snapshot) {
        return Err(Error::BoundaryAhead {
            table: spec.qualified(),
            boundary: previous.to_string(),
            snapshot: snapshot.to_string(),
        });
    }
    let tail = previous.tail_predicate(&session::xid_column(&spec)?);
    if !any(&mut reader, &spec, &tail).await? {
        reader.close().await?;
        return Ok((snapshot, None));
    }
    let streams = session::streams(&mut reader, &spec).await?;
    table.ensure_schema(&spec).await?;
    let number = leader.number(&snapshot, held).await?;
    crash::point("archive.number");

    let mut files = Vec::new();
    let outcome = match write(cfg, &spec, table, reader, &tail, &mut files, shutdown).await {
        Ok(()) => leader.still_leads().await,
        Err(e) => Err(e),
    };
    if let Err(error) = outcome {
        discard(table, &files).await;
        return Err(error);
    }
    crash::point("archive.files");
    // From here on the files are the log's: after an error that leaves anything open, nobody but the sweep may delete them.
    match table.commit_archive(files.clone(), number, held, leader.fence, &streams).await {
        Ok(_) => {}
        Err(error) => {
            // These two say for certain that nothing was committed.
            if matches!(error, lake::Error::Fenced { .. } | lake::Error::UnexpectedArchive { .. }) {
                discard(table, &files).await;
            }
            return Err(error.into());
        }
    }
    crash::point("archive.committed");
    Ok((snapshot, Some((number, files))))
}

async fn any(reader: &mut PgConnection, spec: &TableSpec, tail: &str) -> Result<bool> {
    let sql = format!("SELECT EXISTS (SELECT 1 FROM {} t WHERE {tail} AND {PRESENT})", spec.sql_name());
    Ok(sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(reader).await?)
}

/// Reads the tail in the reader's snapshot, ordered by event time, and writes it to `files`, a day after the other. Reading and
/// decoding go on in a task of their own, a few batches ahead of the writing.
async fn write(
    cfg: &Config,
    spec: &TableSpec,
    table: &LakeTable,
    mut reader: PgConnection,
    tail: &str,
    files: &mut Vec<NewFile>,
    shutdown: &CancellationToken,
) -> Result<()> {
    sqlx::query("SET LOCAL work_mem = '64MB'").execute(&mut reader).await?;
    let columns: Vec<String> = spec.columns.iter().map(|c| format!("t.{}", quote(&c.name))).collect();
    let sql = format!(
        "COPY (SELECT {} FROM {} t WHERE {tail} AND {PRESENT} ORDER BY t.{}) TO STDOUT (FORMAT binary)",
        columns.join(", "),
        spec.sql_name(),
        quote(&spec.event_column()?.name),
    );
    let decoder = CopyDecoder::new(&spec.types(), spec.arrow_schema(), BATCH_ROWS)?;
    let (batches, mut arriving) = tokio::sync::mpsc::channel(AHEAD);
    // Dropped with this call, however it ends: then the connection goes, and with it the COPY.
    let copying = AbortOnDropHandle::new(tokio::spawn(copy(reader, sql, decoder, batches)));
    let mut sink = Sink {
        cfg,
        table,
        spec,
        event: spec.index_of(&spec.event_column()?.lake_name).unwrap_or_default(),
        open: None,
        files,
    };
    let outcome = async {
        // PostgreSQL may sort for long before the first row comes: a stop must not wait for it.
        while let Some(batch) = tokio::select! {
            biased;
            () = shutdown.cancelled() => return Err(Error::Cancelled),
            batch = arriving.recv() => batch,
        } {
            sink.write(&batch).await?;
        }
        // The channel also ends when the reading failed: only the task's own word says that all rows came.
        copying.await.map_err(|e| Error::Internal(e.to_string()))??;
        sink.roll().await
    }
    .await;
    if outcome.is_err() {
        sink.abort().await;
    }
    outcome
}

/// Runs a COPY to its end, sending batches as they fill; then gives the connection back to the server.
async fn copy(
    mut reader: PgConnection,
    sql: String,
    mut decoder: CopyDecoder,
    batches: tokio::sync::mpsc::Sender<RecordBatch>,
) -> Result<()> {
    let mut stream = reader.copy_out_raw(&sql).await?;
    while let Some(chunk) = stream.try_next().await? {
        decoder.push(&chunk)?;
        while let Some(batch) = decoder.next_batch() {
            // Nobody listens any more: the writing has failed, and says why itself.
            if batches.send(batch).await.is_err() {
                return Err(Error::Cancelled);
            }
        }
    }
    drop(stream);
    if let Some(batch) = decoder.finish()?
        && batches.send(batch).await.is_err()
    {
        return Err(Error::Cancelled);
    }
    reader.close().await?;
    Ok(())
}

/// Where sorted rows go: one open file at a time.
struct Sink<'a> {
    cfg: &'a Config,
    table: &'a LakeTable,
    spec: &'a TableSpec,
    /// Index of the event time.
    event: usize,
    open: Option<(i32, FileWriter)>,
    files: &'a mut Vec<NewFile>,
}

impl Sink<'_> {
    async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        for (day, rows) in by_day(batch, self.event) {
            let full = self.open.as_ref().is_some_and(|(open, w)| {
                *open != day
                    || w.bytes() >= self.cfg.target_file_bytes
                    || w.rows() >= self.cfg.max_rows_per_file
            });
            if full {
                self.roll().await?;
            }
            if self.open.is_none() {
                self.open = Some((day, FileWriter::create(self.table, day, &self.cfg.writer).await?));
            }
            if let Some((_, writer)) = &mut self.open {
                writer.write(&rows).await?;
                crash::point("archive.rows");
            }
        }
        Ok(())
    }

    /// Closes the open file.
    async fn roll(&mut self) -> Result<()> {
        if let Some((_, writer)) = self.open.take() {
            self.files.push(writer.close().await?);
            crash::point("archive.file");
        }
        Ok(())
    }

    async fn abort(&mut self) {
        if let Some((day, writer)) = self.open.take() {
            tracing::debug!(table = self.spec.qualified(), day = types::day_text(day), "gave up a file");
            writer.abort().await;
        }
    }
}

/// Deletes files that no log names and never will. What cannot be deleted is the sweep's.
async fn discard(table: &LakeTable, files: &[NewFile]) {
    use lake::store::ObjectStoreExt;
    for new in files {
        if let Err(error) = table.store().delete(&new.file.location).await {
            tracing::debug!(path = new.file.path, %error, "a file was left behind");
        }
    }
}

/// The rows of each day, in order: `batch` ascends by its column `event`.
fn by_day(batch: &RecordBatch, event: usize) -> Vec<(i32, RecordBatch)> {
    let column = batch.column(event);
    let day_at: Box<dyn Fn(usize) -> i32> = if let Some(days) = column.as_primitive_opt::<Date32Type>() {
        Box::new(|i| types::partition_day_of_date(days.value(i)))
    } else if let Some(times) = column.as_primitive_opt::<TimestampMicrosecondType>() {
        Box::new(|i| types::partition_day(times.value(i)))
    } else {
        // The type table has no other event times, and the writer refuses what is none.
        Box::new(|_| 0)
    };
    let mut parts = Vec::new();
    let (mut from, rows) = (0, batch.num_rows());
    while from < rows {
        let day = day_at(from);
        // Days ascend, so the end of this one is found by halving.
        let (mut low, mut high) = (from + 1, rows);
        while low < high {
            let middle = low + (high - low) / 2;
            if day_at(middle) == day {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        parts.push((day, batch.slice(from, low - from)));
        from = low;
    }
    debug_assert_eq!(column.len(), rows);
    parts
}

#[cfg(test)]
mod tests;
