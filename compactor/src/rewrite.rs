//! One job: its files, merged by event time, become new files that hold the same rows. Knows no policy and commits nothing.
//!
//! Sorted files are merged, streaming, where their read buffers fit the memory; else their rows are sorted with spilling. Either way
//! the rows are summed up (count and order-free checksum over every column) as they leave the old files, and again as they are read
//! back from the new ones. Reading, writing and reading back go on at the same time, each in a task of its own.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::compute::SortOptions;
use arrow::datatypes::{Date32Type, SchemaRef, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use datafusion::prelude::SessionConfig;
use futures::StreamExt;
use lake::checksum::Checksum;
use lake::log::{LakeFile, NewFile, Place};
use lake::types::day_text;
use lake::writer::{FileWriter, WriterOptions};
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::plan::Job;
use crate::read::Source;
use crate::{Error, Result};

/// Rows of a batch while merging: small, for one is held of every file.
const MERGE_BATCH_ROWS: usize = 2048;
/// Rows of a batch while sorting.
const SORT_BATCH_ROWS: usize = 8192;
/// A row group is read whole, compressed, and none is larger.
const ROW_GROUP_BYTES: u64 = 128 << 20;
/// What an open file takes beside that: decoded pages and the batch at hand.
const OPEN_FILE_BYTES: u64 = 4 << 20;

/// What rewriting may use, for all jobs of a compactor.
pub(crate) struct Resources {
    runtime: Arc<RuntimeEnv>,
    merge_bytes: u64,
}

impl Resources {
    /// Half of `memory_bytes` is for reading and sorting, in `jobs` jobs at once; the rest is for the writers' open row groups.
    ///
    /// Errors: [`Error::Io`] if the spill directory cannot be made.
    pub fn new(memory_bytes: usize, spill_dir: Option<PathBuf>, jobs: usize) -> Result<Self> {
        let half = (memory_bytes / 2).max(32 << 20);
        let mode = match spill_dir {
            Some(dir) => {
                std::fs::create_dir_all(&dir).map_err(|source| Error::Io {
                    action: "create",
                    path: dir.display().to_string(),
                    source,
                })?;
                DiskManagerMode::Directories(vec![dir])
            }
            None => DiskManagerMode::OsTmpDirectory,
        };
        let pool = TrackConsumersPool::new(FairSpillPool::new(half), NonZeroUsize::MIN);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(pool))
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(mode))
            .build_arc()?;
        Ok(Self { runtime, merge_bytes: (half / jobs.max(1)) as u64 })
    }

    fn context(&self, batch_rows: usize) -> Arc<TaskContext> {
        let mut config = SessionConfig::new().with_target_partitions(1).with_batch_size(batch_rows);
        // Of the pool, for merging what was spilled; the default would not fit a small pool.
        config = config.with_sort_spill_reservation_bytes((self.merge_bytes as usize / 8).min(10 << 20));
        Arc::new(TaskContext::default().with_session_config(config).with_runtime(self.runtime.clone()))
    }
}

/// Files read one after another, summed up on the way.
struct Chain {
    source: Source,
    files: Vec<Arc<LakeFile>>,
    sum: Arc<Mutex<Checksum>>,
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.files.iter().map(|file| &file.path)).finish()
    }
}

impl PartitionStream for Chain {
    fn schema(&self) -> &SchemaRef {
        &self.source.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let sum = self.sum.clone();
        let stream = self.source.files(self.files.clone()).map(move |batch| {
            let batch = batch.map_err(external)?;
            let mut part = Checksum::default();
            part.add_batch(&batch).map_err(external)?;
            sum.lock().merge(&part);
            Ok(batch)
        });
        Box::pin(RecordBatchStreamAdapter::new(self.source.schema.clone(), stream))
    }
}

fn external(e: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
    DataFusionError::External(Box::new(e))
}

/// Our own error, where DataFusion carried it through.
fn internal(e: DataFusionError) -> Error {
    match e {
        DataFusionError::External(inner) => match inner.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(other) => Error::Merge(DataFusionError::External(other)),
        },
        DataFusionError::Context(_, inner) => internal(*inner),
        other => Error::Merge(other),
    }
}

/// Sorted files in as few sequences as possible, each ascending from file to file.
fn chains(files: &[Arc<LakeFile>], event: &str) -> Vec<Vec<Arc<LakeFile>>> {
    let mut ordered: Vec<_> = files.iter().map(|f| (f.range(event), f)).collect();
    ordered.sort_by_key(|(range, _)| *range);
    let mut chains: Vec<(i64, Vec<Arc<LakeFile>>)> = Vec::new();
    for ((first, last), file) in ordered {
        // The chain that ended last before this file begins: the tightest fit keeps the others free for earlier files.
        let fit = chains.iter_mut().filter(|(end, _)| *end <= first).max_by_key(|(end, _)| *end);
        match fit {
            Some((end, chain)) => {
                *end = last;
                chain.push(file.clone());
            }
            None => chains.push((last, vec![file.clone()])),
        }
    }
    chains.into_iter().map(|(_, chain)| chain).collect()
}

fn reading_bytes(chains: &[Vec<Arc<LakeFile>>]) -> u64 {
    let open = |file: &Arc<LakeFile>| file.size.min(ROW_GROUP_BYTES) + OPEN_FILE_BYTES;
    chains.iter().map(|chain| chain.iter().map(open).max().unwrap_or(0)).sum()
}

/// The job's rows by event time, and what they sum up to once the stream has ended.
fn ordered_rows(
    place: &Place,
    job: &Job,
    resources: &Resources,
) -> Result<(SendableRecordBatchStream, Arc<Mutex<Checksum>>)> {
    let schema = place.spec.arrow_schema();
    let event = &place.spec.event_column()?.lake_name;
    let position = schema.index_of(event).map_err(|e| Error::Lake(e.into()))?;
    let by_event = LexOrdering::from([PhysicalSortExpr::new(
        Arc::new(Column::new(event, position)),
        SortOptions { descending: false, nulls_first: false },
    )]);
    let chains = chains(&job.files, event);
    let merge = job.files.iter().all(|f| f.sorted) && reading_bytes(&chains) <= resources.merge_bytes;
    let batch_rows = if merge { MERGE_BATCH_ROWS } else { SORT_BATCH_ROWS };
    let source = Source { store: place.store.clone(), schema: schema.clone(), batch_rows };
    let sum = Arc::new(Mutex::new(Checksum::default()));
    let partition = |files| -> Arc<dyn PartitionStream> {
        Arc::new(Chain { source: source.clone(), files, sum: sum.clone() })
    };
    let (partitions, order): (Vec<_>, _) = if merge {
        (chains.into_iter().map(partition).collect(), Some(by_event.clone()))
    } else {
        (vec![partition(job.files.clone())], None)
    };
    let input: Arc<dyn ExecutionPlan> =
        Arc::new(StreamingTableExec::try_new(schema, partitions, None, order, false, None)?);
    let plan: Arc<dyn ExecutionPlan> = if merge {
        Arc::new(SortPreservingMergeExec::new(by_event, input))
    } else {
        Arc::new(SortExec::new(by_event, input))
    };
    Ok((plan.execute(0, resources.context(SORT_BATCH_ROWS))?, sum))
}

/// Merged batches that wait for the writer.
const BATCHES_AHEAD: usize = 4;

/// Writes the job's rows into new files and compares what they hold with what was read. `seen` is told of rows as they are written.
///
/// On an error nothing is left behind of what could be removed.
pub(crate) async fn rewrite(
    place: &Place,
    job: &Job,
    resources: &Resources,
    options: &WriterOptions,
    stop: &CancellationToken,
    seen: &(dyn Fn(u64) + Send + Sync),
) -> Result<Vec<NewFile>> {
    let mut written = Vec::new();
    let outcome = async {
        let mut checks = Checks::default();
        let read = write(place, job, resources, options, stop, seen, &mut written, &mut checks).await?;
        lake::crash::point("compact.written");
        let wrote = checks.all(place, job, stop).await?;
        compare(place, job, &read, &wrote)
    }
    .await;
    match outcome {
        Ok(()) => Ok(written),
        Err(error) => {
            discard(&place.store, &written).await;
            Err(error)
        }
    }
}

#[allow(clippy::too_many_arguments)] // One loop, split from its clean-up.
async fn write(
    place: &Place,
    job: &Job,
    resources: &Resources,
    options: &WriterOptions,
    stop: &CancellationToken,
    seen: &(dyn Fn(u64) + Send + Sync),
    written: &mut Vec<NewFile>,
    checks: &mut Checks,
) -> Result<Checksum> {
    let (mut rows, sum) = ordered_rows(place, job, resources)?;
    let (send, mut batches) = tokio::sync::mpsc::channel(BATCHES_AHEAD);
    // Ends with the set, which ends with this function.
    let mut reader = JoinSet::new();
    reader.spawn(async move {
        while let Some(batch) = rows.next().await {
            let failed = batch.is_err();
            if send.send(batch).await.is_err() || failed {
                break;
            }
        }
    });
    let rows_per_file = job.rows().div_ceil(job.outputs.max(1) as u64).max(1);
    let mut open: Option<FileWriter> = None;
    let mut closed = |file: NewFile| {
        checks.start(place, &file);
        written.push(file);
    };
    let filled =
        fill(place, job.day, &mut batches, rows_per_file, options, stop, seen, &mut open, &mut closed).await;
    // Whatever happened, a file is either closed or given up.
    match (filled, open) {
        (Ok(()), Some(writer)) => closed(writer.close().await?),
        (Ok(()), None) => {}
        (Err(error), writer) => {
            if let Some(writer) = writer {
                writer.abort().await;
            }
            return Err(error);
        }
    }
    // A reader that ended without saying why would look like the end of the rows; their number is compared below in any case.
    if let Some(Err(error)) = reader.join_next().await
        && error.is_panic()
    {
        return Err(Error::ThreadLost);
    }
    let sum = *sum.lock();
    Ok(sum)
}

#[allow(clippy::too_many_arguments)]
async fn fill(
    place: &Place,
    day: i32,
    batches: &mut tokio::sync::mpsc::Receiver<Result<RecordBatch, DataFusionError>>,
    rows_per_file: u64,
    options: &WriterOptions,
    stop: &CancellationToken,
    seen: &(dyn Fn(u64) + Send + Sync),
    open: &mut Option<FileWriter>,
    closed: &mut (dyn FnMut(NewFile) + Send),
) -> Result<()> {
    loop {
        let next = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(Error::Cancelled),
            next = batches.recv() => next,
        };
        let Some(batch) = next else { return Ok(()) };
        let mut batch = batch.map_err(internal)?;
        seen(batch.num_rows() as u64);
        while batch.num_rows() > 0 {
            let mut writer = match open.take() {
                Some(writer) => writer,
                None => FileWriter::create_in(place, day, options)?,
            };
            let room =
                usize::try_from(rows_per_file - writer.rows()).unwrap_or(usize::MAX).min(batch.num_rows());
            let outcome = writer.write(&batch.slice(0, room)).await;
            batch = batch.slice(room, batch.num_rows() - room);
            let full = writer.rows() >= rows_per_file;
            *open = Some(writer);
            outcome?;
            if full && let Some(writer) = open.take() {
                closed(writer.close().await?);
                lake::crash::point("compact.file.written");
            }
        }
    }
}

/// What a file holds, as read back.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    sum: Checksum,
    /// First and last event time, where the rows ascend.
    range: Option<(i64, i64)>,
    ordered: bool,
}

/// New files being read back, one after another, beside whatever is written meanwhile.
#[derive(Default)]
struct Checks {
    tasks: JoinSet<(usize, Result<Held>)>,
    started: usize,
    /// One at a time: a file's row group is in memory while it is read.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Checks {
    fn start(&mut self, place: &Place, file: &NewFile) {
        let (number, place, file, turn) =
            (self.started, place.clone(), Arc::new(file.file.clone()), self.turn.clone());
        self.started += 1;
        self.tasks.spawn(async move {
            let _turn = turn.lock().await;
            (number, held(&place, file).await)
        });
    }

    /// Waits for all; what they hold together, if each follows the one before.
    async fn all(mut self, place: &Place, job: &Job, stop: &CancellationToken) -> Result<Checksum> {
        let mut found = vec![Held::default(); self.started];
        loop {
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => return Err(Error::Cancelled),
                next = self.tasks.join_next() => next,
            };
            match next {
                None => break,
                Some(Ok((number, held))) => found[number] = held?,
                Some(Err(_)) => return Err(Error::ThreadLost),
            }
        }
        let mut all = Checksum::default();
        let mut last = i64::MIN;
        for held in &found {
            let follows = held.range.is_none_or(|(first, _)| first >= last);
            if !held.ordered || !follows {
                return Err(differs(place, job, &all, "rows out of order".into()));
            }
            last = held.range.map_or(last, |(_, end)| end);
            all.merge(&held.sum);
        }
        Ok(all)
    }
}

/// Reads a file from its first row to its last.
async fn held(place: &Place, file: Arc<LakeFile>) -> Result<Held> {
    let schema = place.spec.arrow_schema();
    let event = place.spec.index_of(&place.spec.event_column()?.lake_name).unwrap_or_default();
    let source = Source { store: place.store.clone(), schema, batch_rows: SORT_BATCH_ROWS };
    let mut rows = source.file(file).await?;
    let mut held = Held { ordered: true, ..Held::default() };
    let mut last = i64::MIN;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        let before = last;
        held.ordered &= ascends(&batch, event, &mut last);
        if batch.num_rows() > 0 && held.ordered {
            let first = match held.range {
                Some((first, _)) => first,
                // The first of an ascending batch.
                None => first_of(&batch, event).unwrap_or(before),
            };
            held.range = Some((first, last));
        }
        held.sum.add_batch(&batch)?;
    }
    Ok(held)
}

/// Compares the number of rows and every value.
fn compare(place: &Place, job: &Job, read: &Checksum, wrote: &Checksum) -> Result<()> {
    if read.rows != job.rows() {
        return Err(differs(place, job, read, format!("{} rows, as the log says", job.rows())));
    }
    if wrote != read {
        return Err(differs(place, job, read, wrote.to_string()));
    }
    lake::crash::point("compact.verified");
    Ok(())
}

fn differs(place: &Place, job: &Job, read: &Checksum, wrote: String) -> Error {
    Error::Rows { table: place.spec.qualified(), day: day_text(job.day), read: read.to_string(), wrote }
}

/// The event time of the first row.
fn first_of(batch: &RecordBatch, event: usize) -> Option<i64> {
    let column = batch.column(event);
    if let Some(days) = column.as_primitive_opt::<Date32Type>() {
        return days.values().first().map(|v| i64::from(*v));
    }
    column.as_primitive_opt::<TimestampMicrosecondType>()?.values().first().copied()
}

/// Whether the event times of `batch` ascend from `last` on, which is moved to the last of them.
fn ascends(batch: &RecordBatch, event: usize, last: &mut i64) -> bool {
    let mut next = |v: i64| {
        let fine = v >= *last;
        *last = v;
        fine
    };
    let column = batch.column(event);
    if column.null_count() > 0 {
        return false;
    }
    if let Some(days) = column.as_primitive_opt::<Date32Type>() {
        return days.values().iter().all(|v| next(i64::from(*v)));
    }
    column.as_primitive_opt::<TimestampMicrosecondType>().is_some_and(|t| t.values().iter().all(|v| next(*v)))
}

/// Deletes files that no version names. One that cannot be deleted is left to vacuum.
pub(crate) async fn discard(store: &Arc<dyn ObjectStore>, files: &[NewFile]) {
    for file in files {
        if let Err(error) = store.delete(&file.file.location).await {
            tracing::debug!(path = %file.file.path, %error, "a file that is not needed was left behind");
        }
    }
}

#[cfg(test)]
mod tests;
