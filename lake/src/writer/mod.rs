//! Batches, sorted by event time -> one Parquet file of one day, with its statistics. Knows no log and no queries.
//!
//! A file can be seen only once it is whole, and is durable before [`FileWriter::close`] returns. What a crash leaves behind is never
//! named by the log.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Date32Type, SchemaRef, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use futures::future::BoxFuture;
use object_store::ObjectStoreExt;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use parquet::arrow::AsyncArrowWriter;
use parquet::arrow::async_writer::AsyncFileWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{BloomFilterPosition, EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

use crate::log::{LakeFile, LakeTable, NewFile, Place};
use crate::spec::TableSpec;
use crate::stats::Collector;
use crate::types::{self, ColType};
use crate::{Error, Result, crash, store};

/// Parts that a store has not taken yet; more wait in nobody's memory.
const PARTS_ON_THEIR_WAY: usize = 4;

/// How files are written.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// 1 to 22.
    pub zstd_level: i32,
    /// A row group ends at this many rows,
    pub row_group_rows: usize,
    /// or at about this many bytes, which also bounds the memory of a writer.
    pub row_group_bytes: usize,
    /// Rows of a page: the unit of skipping.
    pub page_rows: usize,
    /// Lake names of columns that get a bloom filter, beside the table's keys.
    pub bloom: Vec<String>,
    /// Bytes gathered before a part is sent to the store.
    pub part_bytes: usize,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            zstd_level: 3,
            row_group_rows: 1 << 20,
            row_group_bytes: 128 << 20,
            page_rows: 20_000,
            bloom: Vec::new(),
            part_bytes: 10 << 20,
        }
    }
}

/// How often a bloom filter may say perhaps where the value is not: a lookup reads a needless row group one time in a hundred.
const BLOOM_FALSE: f64 = 0.01;

/// Writes one file of one day. Dropping it without [`Self::close`] or [`Self::abort`] may leave an unfinished upload behind.
pub struct FileWriter {
    inner: AsyncArrowWriter<Upload>,
    schema: SchemaRef,
    stats: Collector,
    table: String,
    path: String,
    location: Path,
    dir: Option<std::path::PathBuf>,
    store: Arc<dyn object_store::ObjectStore>,
    day: i32,
    event: usize,
    event_name: String,
    /// The greatest event time so far.
    last: Option<i64>,
    rows: u64,
}

impl FileWriter {
    /// A writer of a new file of `day` (days since 1970) in `table`, for batches of the table's `spec().arrow_schema()`.
    pub async fn create(table: &LakeTable, day: i32, options: &WriterOptions) -> Result<Self> {
        Self::create_in(&table.place(), day, options)
    }

    /// [`Self::create`] without the log at hand.
    pub fn create_in(place: &Place, day: i32, options: &WriterOptions) -> Result<Self> {
        let spec = &*place.spec;
        let event_column = spec.event_column()?;
        let event = spec.index_of(&event_column.lake_name).unwrap_or_default();
        let path = format!("{}={}/part-{}.zstd.parquet", types::DAY, types::day_text(day), Uuid::new_v4());
        let location: Path = place.prefix.parts().chain(Path::from(path.as_str()).parts()).collect();
        let schema = spec.arrow_schema();
        let buffer =
            BufWriter::with_capacity(place.store.clone(), location.clone(), options.part_bytes.max(5 << 20))
                .with_max_concurrency(PARTS_ON_THEIR_WAY);
        let inner =
            AsyncArrowWriter::try_new(Upload { buffer, over: false }, schema.clone(), Some(properties(spec, event, options)?))?;
        Ok(Self {
            inner,
            stats: Collector::new(spec.columns.iter().map(|c| (c.lake_name.as_str(), c.ty))),
            schema,
            table: spec.qualified(),
            path,
            location,
            dir: store::local_dir(&place.url),
            store: place.store.clone(),
            day,
            event,
            event_name: event_column.lake_name.clone(),
            last: None,
            rows: 0,
        })
    }

    /// Writes rows, which must ascend by event time within the batch and from batch to batch, and be of the writer's day.
    ///
    /// Errors: [`Error::Schema`] for rows that are not; the file must then be aborted.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.check(batch)?;
        self.stats.add(batch)?;
        self.rows += batch.num_rows() as u64;
        self.inner.write(batch).await?;
        Ok(())
    }

    /// Rows so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// About how many bytes the file would have if it were closed now.
    pub fn bytes(&self) -> u64 {
        (self.inner.bytes_written() + self.inner.in_progress_size()) as u64
    }

    /// Bytes of memory that the open row group takes.
    pub fn memory(&self) -> usize {
        self.inner.memory_size()
    }

    /// Ends the file, makes it visible and durable.
    ///
    /// Errors: those of the store; nothing can be seen then, or a whole file that no log names.
    pub async fn close(mut self) -> Result<NewFile> {
        crash::point("lake.file.before_close");
        if let Err(e) = self.inner.finish().await {
            let error = e.into();
            self.abort().await;
            return Err(error);
        }
        crash::point("lake.file.closed");
        store::make_durable(self.dir.clone(), &self.path).await?;
        crash::point("lake.file.durable");
        let meta = self.store.head(&self.location).await?;
        let (stats, delta_stats) = self.stats.finish()?;
        Ok(NewFile {
            file: LakeFile {
                path: self.path,
                location: self.location,
                size: meta.size,
                rows: self.rows,
                day: self.day,
                modification_ms: meta.last_modified.timestamp_millis(),
                sorted: true,
                stats,
            },
            delta_stats,
        })
    }

    /// Gives the file up and cleans up what was sent of it.
    pub async fn abort(self) {
        let mut upload = self.inner.into_inner();
        // Once it was told to end, it has cleaned up after itself, and panics if asked again.
        if upload.over {
            return;
        }
        if let Err(error) = upload.buffer.abort().await {
            tracing::debug!(path = %self.path, %error, "an unfinished file was left behind");
        }
    }

    /// Sees to it that the rows are of this schema and day, and in order.
    fn check(&mut self, batch: &RecordBatch) -> Result<()> {
        let refuse = |what: String| Error::Schema { table: self.table.clone(), what };
        if batch.schema().fields() != self.schema.fields() {
            return Err(refuse("a batch of another schema was to be written".into()));
        }
        let column = batch.column(self.event);
        if column.null_count() > 0 {
            return Err(refuse(format!("{} is NULL in a row", self.event_name)));
        }
        let mut last = self.last.unwrap_or(i64::MIN);
        let mut ascends = |v: i64| {
            let fine = v >= last;
            last = v;
            fine
        };
        let (ordered, first_day, last_day) = if let Some(days) = column.as_primitive_opt::<Date32Type>() {
            let values = days.values();
            (
                values.iter().all(|v| ascends(i64::from(*v))),
                types::partition_day_of_date(values[0]),
                types::partition_day_of_date(values[values.len() - 1]),
            )
        } else if let Some(times) = column.as_primitive_opt::<TimestampMicrosecondType>() {
            let values = times.values();
            (
                values.iter().all(|v| ascends(*v)),
                types::partition_day(values[0]),
                types::partition_day(values[values.len() - 1]),
            )
        } else {
            return Err(refuse(format!("{} is not a time", self.event_name)));
        };
        if !ordered {
            return Err(refuse(format!("rows are not in the order of {}", self.event_name)));
        }
        if first_day != self.day || last_day != self.day {
            return Err(refuse(format!("rows of another day than {}", types::day_text(self.day))));
        }
        self.last = Some(last);
        Ok(())
    }
}

/// The upload of a file, which knows whether it was told to end or has failed: asking it anything after that is a panic.
struct Upload {
    buffer: BufWriter,
    over: bool,
}

impl AsyncFileWriter for Upload {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, parquet::errors::Result<()>> {
        Box::pin(async move {
            if self.over {
                return Err(ParquetError::General("the upload has ended".into()));
            }
            self.buffer.put(bytes).await.map_err(|e| ParquetError::External(Box::new(e)))
        })
    }

    fn complete(&mut self) -> BoxFuture<'_, parquet::errors::Result<()>> {
        Box::pin(async move {
            if std::mem::replace(&mut self.over, true) {
                return Err(ParquetError::General("the upload has ended".into()));
            }
            self.buffer.shutdown().await.map_err(|e| ParquetError::External(Box::new(e)))
        })
    }
}

fn properties(spec: &TableSpec, event: usize, options: &WriterOptions) -> Result<WriterProperties> {
    let mut builder = WriterProperties::builder()
        .set_created_by(concat!("watershed ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(options.zstd_level)?))
        .set_max_row_group_row_count(Some(options.row_group_rows.max(1)))
        .set_max_row_group_bytes(Some(options.row_group_bytes.max(1 << 20)))
        .set_data_page_row_count_limit(options.page_rows.max(1))
        .set_write_batch_size(options.page_rows.clamp(1, 8192))
        .set_statistics_enabled(EnabledStatistics::Page)
        // At the end, in one piece: a reader that looks for one value fetches them together.
        .set_bloom_filter_position(BloomFilterPosition::End)
        .set_statistics_truncate_length(Some(64))
        .set_column_index_truncate_length(Some(64))
        .set_sorting_columns(Some(vec![SortingColumn {
            // Columns are flat, so leaves are columns.
            column_idx: i32::try_from(event).unwrap_or(i32::MAX),
            descending: false,
            nulls_first: false,
        }]));
    for (index, column) in spec.columns.iter().enumerate() {
        let path = ColumnPath::from(column.lake_name.as_str());
        match column.ty {
            // Parquet's bounds know no NaN, and PostgreSQL puts it above everything: pruning by them would lose rows.
            ColType::Float4 | ColType::Float8 => {
                builder = builder.set_column_statistics_enabled(path.clone(), EnabledStatistics::None);
            }
            // Their order means nothing to a query.
            ColType::Jsonb | ColType::Bytea | ColType::NumericText => {
                builder = builder.set_column_statistics_enabled(path.clone(), EnabledStatistics::None);
            }
            _ => {}
        }
        if index == event || column.lake_name == types::OFFSET {
            // Values that ascend and hardly repeat: differences are small, a dictionary is not.
            builder = builder
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path.clone(), Encoding::DELTA_BINARY_PACKED);
        }
        if options.bloom.contains(&column.lake_name) || spec.keys.contains(&column.lake_name) {
            // Sized for a row group of different values, and folded to what it turns out to hold.
            builder = builder
                .set_column_bloom_filter_enabled(path.clone(), true)
                .set_column_bloom_filter_fpp(path.clone(), BLOOM_FALSE)
                .set_column_bloom_filter_max_ndv(path, options.row_group_rows.max(1) as u64);
        }
    }
    Ok(builder.build())
}

#[cfg(test)]
mod tests;
