//! Parquet files as the engine reads them: footers from one cache, and a count of what is really read.
//! ✗ which files and rows a query needs.
//!
//! A file or a row group counts once bytes of its pages are fetched; footers, page indexes and bloom filters,
//! which only say what need not be fetched, do not count.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::error::Result;
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::arrow::parquet_to_arrow_schema;
use datafusion::parquet::basic::Encoding;
use datafusion::parquet::errors::Result as ParquetResult;
use datafusion::parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder};
use futures::FutureExt;
use futures::future::BoxFuture;
use lake::log::LakeFile;
use object_store::ObjectMeta;
use object_store::path::Path;
use parking_lot::Mutex;

use super::activity::{self, Read};
use super::coded::coded_type;
use super::provider::Source;

/// Names of the metrics that count files and row groups.
pub(super) const FILES_READ: &str = "watershed_files_read";
pub(super) const ROW_GROUPS_READ: &str = "watershed_row_groups_read";

/// Bytes read from the end of a file whose footer is not cached: footer and page index in one request.
pub(super) const FOOTER_HINT: usize = 256 << 10;

/// A column is read as codes if its dictionary takes at most this part of a byte for each row (compressed).
const DICTIONARY_BYTES_A_ROW: f64 = 0.5;

/// What the store is asked about a file.
pub(super) fn object(file: &LakeFile) -> Result<ObjectMeta> {
    let modified = chrono::DateTime::from_timestamp_millis(file.modification_ms).ok_or_else(|| {
        datafusion::error::DataFusionError::Internal(format!("{}: modified at {} ms", file.path, file.modification_ms))
    })?;
    Ok(ObjectMeta {
        location: file.location.clone(),
        last_modified: modified,
        size: file.size,
        e_tag: None,
        version: None,
    })
}

/// The footer of a file, with its page index if `pages`, from the cache or into it.
pub(super) async fn footer(source: &Source, file: &LakeFile, pages: bool) -> Result<Arc<ParquetMetaData>> {
    let object = object(file)?;
    DFParquetMetadata::new(&source.store, &object)
        .with_file_metadata_cache(Some(source.footers.clone()))
        .with_metadata_size_hint(Some(FOOTER_HINT))
        .with_page_index_policy(Some(if pages { PageIndexPolicy::Optional } else { PageIndexPolicy::Skip }))
        .fetch_metadata()
        .await
}

/// The schema in which a file's columns are read: as written, but those in `coded` as codes.
pub(super) fn schema_of(footer: &ParquetMetaData, coded: &HashSet<String>) -> Result<SchemaRef> {
    let metadata = footer.file_metadata();
    let written = parquet_to_arrow_schema(metadata.schema_descr(), metadata.key_value_metadata())?;
    let fields = written.fields().iter().map(|field| match coded.contains(field.name().as_str()) {
        true => Arc::new(Field::new(field.name(), coded_type(), field.is_nullable())),
        false => field.clone(),
    });
    Ok(Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), written.metadata().clone())))
}

/// Whether a text column repeats its values so much, in every row group, that reading codes pays. A file without it does not object.
pub(super) fn repeats(footer: &ParquetMetaData, column: &str) -> bool {
    footer.row_groups().iter().all(|group| {
        let Some(chunk) = group.columns().iter().find(|c| c.column_path().parts() == [column]) else { return true };
        let Some(dictionary) = chunk.dictionary_page_offset() else { return false };
        let only_codes = chunk.page_encoding_stats_mask().is_some_and(|mask| {
            mask.is_only(Encoding::RLE_DICTIONARY) || mask.is_only(Encoding::PLAIN_DICTIONARY)
        });
        let bytes = chunk.data_page_offset().saturating_sub(dictionary);
        only_codes && bytes as f64 <= DICTIONARY_BYTES_A_ROW * group.num_rows() as f64
    })
}

/// Readers of the files of one scan.
#[derive(Debug)]
pub(super) struct Readers {
    inner: CachedParquetFileReaderFactory,
    seen: Arc<Mutex<Seen>>,
}

impl Drop for Seen {
    /// The scan is over: what was opened and not read, its footers ruled out.
    fn drop(&mut self) {
        let groups: usize = self.footers.values().map(|footer| footer.num_row_groups()).sum();
        let row_groups_pruned = groups.saturating_sub(self.groups.len()) as u64;
        activity::add(&activity::Totals { row_groups_pruned, ..Default::default() });
    }
}

#[derive(Debug, Default)]
struct Seen {
    footers: HashMap<Path, Arc<ParquetMetaData>>,
    files: HashSet<Path>,
    groups: HashSet<(Path, usize)>,
}

impl Readers {
    pub(super) fn new(source: &Source) -> Self {
        let inner = CachedParquetFileReaderFactory::new(source.store.clone(), source.footers.clone());
        Readers { inner, seen: Arc::default() }
    }
}

impl ParquetFileReaderFactory for Readers {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        Ok(Box::new(Reader {
            path: file.object_meta.location.clone(),
            inner: self.inner.create_reader(partition, file, hint, metrics)?,
            seen: self.seen.clone(),
            files: MetricBuilder::new(metrics).counter(FILES_READ, partition),
            groups: MetricBuilder::new(metrics).counter(ROW_GROUPS_READ, partition),
        }))
    }
}

struct Reader {
    path: Path,
    inner: Box<dyn AsyncFileReader + Send>,
    seen: Arc<Mutex<Seen>>,
    files: Count,
    groups: Count,
}

impl Reader {
    fn count(&self, ranges: &[Range<u64>]) {
        let mut seen = self.seen.lock();
        let Some(footer) = seen.footers.get(&self.path).cloned() else { return };
        for range in ranges {
            let Some(group) = group_at(&footer, range.start) else { continue };
            if seen.groups.insert((self.path.clone(), group)) {
                self.groups.add(1);
            }
            if seen.files.insert(self.path.clone()) {
                self.files.add(1);
            }
        }
    }
}

/// The row group in one of whose column chunks the byte is.
fn group_at(footer: &ParquetMetaData, byte: u64) -> Option<usize> {
    footer.row_groups().iter().position(|group| {
        group.columns().iter().any(|chunk| {
            let (start, length) = chunk.byte_range();
            (start..start.saturating_add(length)).contains(&byte)
        })
    })
}

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        self.count(std::slice::from_ref(&range));
        let fetched = self.inner.get_bytes(range);
        async move {
            let _read = Read::began();
            fetched.await
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        self.count(&ranges);
        let fetched = self.inner.get_byte_ranges(ranges);
        async move {
            let _read = Read::began();
            fetched.await
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        async move {
            let footer = self.inner.get_metadata(options).await?;
            self.seen.lock().footers.insert(self.path.clone(), footer.clone());
            Ok(footer)
        }
        .boxed()
    }
}
