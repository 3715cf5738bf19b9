//! Files of the lake as streams of batches in the table's present schema. Knows no order and no jobs.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::new_null_array;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use lake::log::LakeFile;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use crate::{Error, Result};

/// Ranges of one immutable object.
struct ObjectReader {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
}

fn external(e: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(e))
}

impl AsyncFileReader for ObjectReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        Box::pin(async move { self.store.get_range(&self.path, range).await.map_err(external) })
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        Box::pin(async move { self.store.get_ranges(&self.path, &ranges).await.map_err(external) })
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        Box::pin(async move {
            let size = self.size;
            let metadata = ParquetMetaDataReader::new()
                .with_arrow_reader_options(options)
                .with_prefetch_hint(Some(64 << 10))
                .load_and_finish(self, size)
                .await?;
            Ok(Arc::new(metadata))
        })
    }
}

/// What is read of the lake, and how much at a time.
#[derive(Clone)]
pub(crate) struct Source {
    pub store: Arc<dyn ObjectStore>,
    pub schema: SchemaRef,
    pub batch_rows: usize,
}

impl Source {
    /// The rows of one file, in its order. Columns that it lacks are NULL.
    ///
    /// Errors: [`Error::File`] if it has a column that the schema lacks, or of another type, or another number of rows than the log says.
    pub async fn file(&self, file: Arc<LakeFile>) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let parquet = {
            let path = file.path.clone();
            move |source| Error::Parquet { path: path.clone(), source }
        };
        let reader = ObjectReader { store: self.store.clone(), path: file.location.clone(), size: file.size };
        let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(&parquet)?;
        let refuse = |what: String| Error::File { path: file.path.clone(), what };
        let have = builder.schema().clone();
        if let Some(unknown) = have.fields().iter().find(|f| self.schema.index_of(f.name()).is_err()) {
            return Err(refuse(format!("column {} is unknown to the table", unknown.name())));
        }
        let rows = builder.metadata().file_metadata().num_rows();
        if u64::try_from(rows) != Ok(file.rows) {
            return Err(refuse(format!("{rows} rows, where the log says {}", file.rows)));
        }
        let mut positions = Vec::with_capacity(self.schema.fields().len());
        for field in self.schema.fields() {
            let position = have.index_of(field.name()).ok();
            if let Some(found) =
                position.map(|p| have.field(p).data_type()).filter(|t| *t != field.data_type())
            {
                return Err(refuse(format!(
                    "column {} is {found}, where the table has {}",
                    field.name(),
                    field.data_type()
                )));
            }
            positions.push(position);
        }
        let schema = self.schema.clone();
        let stream = builder.with_batch_size(self.batch_rows).build().map_err(&parquet)?;
        Ok(stream
            .map(move |batch| {
                let batch = batch.map_err(&parquet)?;
                let columns = positions
                    .iter()
                    .zip(schema.fields())
                    .map(|(position, field)| match position {
                        Some(p) => batch.column(*p).clone(),
                        None => new_null_array(field.data_type(), batch.num_rows()),
                    })
                    .collect();
                RecordBatch::try_new(schema.clone(), columns).map_err(|e| Error::Lake(e.into()))
            })
            .boxed())
    }

    /// The rows of several files, one after another; at most one is open at a time.
    pub fn files(&self, files: Vec<Arc<LakeFile>>) -> BoxStream<'static, Result<RecordBatch>> {
        let source = self.clone();
        futures::stream::iter(files)
            .then(move |file| {
                let source = source.clone();
                async move { source.file(file).await }
            })
            .try_flatten()
            .boxed()
    }
}
