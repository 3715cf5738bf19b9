//! The table of a tiered relation for one statement: the pinned lake files and the tail, as one relation.
//! ✗ choosing the version, reading the tail, commits.
//!
//! `scan` makes a union of a Parquet scan and the tail's batches. The scan reads the needed columns of the
//! files whose statistics do not rule them out; a file written before a column was added gives NULL for it.
//! Predicates handed to it only prune (see `prune`), the filter above decides row by row. Statistics of both
//! legs are exact where ours are, so that `count(*)`, `count(x)`, `min` and `max` without a filter need no
//! scan at all.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{ColumnStatistics, DFSchema, Statistics};
use datafusion::config::TableParquetOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::object_store::ObjectStoreUrl;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::datasource::{TableProvider, TableType};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, SendableRecordBatchStream,
};
use lake::log::{Files, LakeFile};
use lake::stats::{Bound, Collector, FileStats};
use lake::types::ColType;
use object_store::{ObjectMeta, ObjectStore};

use super::error::EngineError;
use super::pins::Pin;
use super::prune::{self, Test};

/// Bytes read from the end of a file whose footer is not cached: footer and page index in one request.
const FOOTER_HINT: usize = 256 << 10;

/// Where a table's files are read from.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) url: ObjectStoreUrl,
    pub(super) footers: Arc<FileMetadataCache>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({})", self.url.as_str())
    }
}

/// See the module.
#[derive(Debug)]
pub struct TieredProvider {
    schema: SchemaRef,
    files: Files,
    source: Option<Source>,
    tail: Vec<RecordBatch>,
    tail_stats: FileStats,
}

impl TieredProvider {
    /// The relation of `pin`'s version and `tail`, with the columns `attnums` in that order, under their lake
    /// names, all nullable. `tail` has exactly these columns; without columns its batches carry their number
    /// of rows.
    ///
    /// Errors: [`EngineError::Internal`] for a column the table does not have, or a tail of another shape.
    pub fn try_new(
        pin: Pin,
        attnums: &[i16],
        tail: Vec<RecordBatch>,
    ) -> std::result::Result<Arc<dyn TableProvider>, EngineError> {
        let mut fields = Vec::with_capacity(attnums.len());
        let mut types: Vec<(&str, ColType)> = Vec::with_capacity(attnums.len());
        for attnum in attnums {
            let column = pin.spec.column(*attnum).ok_or_else(|| {
                EngineError::Internal(format!("{} has no column {attnum} in the lake", pin.spec.qualified()))
            })?;
            fields.push(Field::new(&column.lake_name, column.ty.arrow(), true));
            types.push((&column.lake_name, column.ty));
        }
        let schema = Arc::new(Schema::new(fields));
        let mut collector = Collector::new(types);
        for batch in &tail {
            let same = batch.num_columns() == schema.fields().len()
                && batch.columns().iter().zip(schema.fields()).all(|(a, f)| a.data_type() == f.data_type());
            if !same {
                return Err(EngineError::Internal("a tail of other columns than the table's".into()));
            }
            collector.add(batch)?;
        }
        let (tail_stats, _) = collector.finish()?;
        if pin.source.is_none() && !pin.version.files.is_empty() {
            return Err(EngineError::Internal("files without a store".into()));
        }
        // A label of our own making on every batch: the tail's may differ in metadata.
        let tail = tail
            .into_iter()
            .filter(|b| b.num_rows() > 0)
            .map(|b| b.with_schema(schema.clone()))
            .collect::<std::result::Result<_, _>>()
            .map_err(|e| EngineError::Internal(e.to_string()))?;
        Ok(Arc::new(TieredProvider {
            schema,
            files: pin.version.files.clone(),
            source: pin.source,
            tail,
            tail_stats,
        }))
    }

    fn lake(
        &self,
        state: &dyn Session,
        files: &[&LakeFile],
        predicate: Option<Arc<dyn PhysicalExpr>>,
        late: bool,
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(source) = &self.source else {
            return Err(DataFusionError::Internal("files without a store".into()));
        };
        let options = TableParquetOptions {
            global: state.config_options().execution.parquet.clone(),
            ..Default::default()
        };
        let mut parquet = ParquetSource::new(TableSchema::from(self.schema.clone()))
            .with_table_parquet_options(options)
            .with_parquet_file_reader_factory(Arc::new(CachedParquetFileReaderFactory::new(
                source.store.clone(),
                source.footers.clone(),
            )))
            .with_metadata_size_hint(FOOTER_HINT)
            .with_pushdown_filters(late);
        if let Some(predicate) = predicate {
            parquet = parquet.with_predicate(predicate);
        }
        let statistics = statistics(&self.schema, files.iter().map(|f| (f.rows, f.size, &f.stats)));
        let config = FileScanConfigBuilder::new(source.url.clone(), Arc::new(parquet))
            .with_file_groups(groups(
                &self.schema,
                files,
                state.config_options().execution.target_partitions,
            )?)
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

/// Files in as many groups as may run at once, of about the same size each.
fn groups(schema: &SchemaRef, files: &[&LakeFile], target: usize) -> Result<Vec<FileGroup>> {
    let target = target.clamp(1, files.len().max(1));
    let mut groups: Vec<(u64, Vec<PartitionedFile>)> = vec![Default::default(); target];
    let mut by_size: Vec<&&LakeFile> = files.iter().collect();
    by_size.sort_by_key(|f| std::cmp::Reverse(f.size));
    for file in by_size {
        let modified = chrono::DateTime::from_timestamp_millis(file.modification_ms).ok_or_else(|| {
            DataFusionError::Internal(format!("{}: modified at {} ms", file.path, file.modification_ms))
        })?;
        let meta = ObjectMeta {
            location: file.location.clone(),
            last_modified: modified,
            size: file.size,
            e_tag: None,
            version: None,
        };
        let stats = statistics(schema, std::iter::once((file.rows, file.size, &file.stats)));
        let file = PartitionedFile::new_from_meta(meta).with_statistics(Arc::new(stats));
        // `target` is at least 1.
        if let Some((size, group)) = groups.iter_mut().min_by_key(|g| g.0) {
            *size += file.object_meta.size;
            group.push(file);
        }
    }
    Ok(groups.into_iter().map(|g| FileGroup::new(g.1)).collect())
}

/// The statistics of a set of files or of the tail, for the columns of `schema`: (rows, bytes, columns).
fn statistics<'a>(
    schema: &Schema,
    parts: impl Iterator<Item = (u64, u64, &'a FileStats)> + Clone,
) -> Statistics {
    let count = |n: u64| usize::try_from(n).map_or(Precision::Absent, Precision::Exact);
    let rows: u64 = parts.clone().map(|p| p.0).sum();
    let bytes: u64 = parts.clone().map(|p| p.1).sum();
    let columns = schema.fields().iter().map(|field| {
        let mut nulls = 0;
        // None: not known for some part. Parts of NULLs only have no say.
        let mut bounds: Option<(Option<&Bound>, Option<&Bound>)> = Some((None, None));
        let mut exact = true;
        for (rows, _, stats) in parts.clone() {
            let Some(column) = stats.columns.get(field.name()) else {
                nulls += rows;
                continue;
            };
            nulls += column.nulls;
            if column.nulls == rows {
                continue;
            }
            exact &= column.exact;
            bounds = match (bounds, &column.min, &column.max) {
                (Some((low, high)), Some(min), Some(max)) => Some((
                    Some(low.filter(|low| *low <= min).unwrap_or(min)),
                    Some(high.filter(|high| *high >= max).unwrap_or(max)),
                )),
                _ => None,
            };
        }
        let (low, high) = bounds.unwrap_or_default();
        let value = |bound: Option<&Bound>| match bound.and_then(|b| prune::scalar(b, field.data_type())) {
            Some(value) if exact => Precision::Exact(value),
            Some(value) => Precision::Inexact(value),
            None => Precision::Absent,
        };
        let mut column = ColumnStatistics::new_unknown();
        column.null_count = count(nulls);
        column.min_value = value(low);
        column.max_value = value(high);
        column
    });
    Statistics {
        num_rows: count(rows),
        total_byte_size: usize::try_from(bytes).map_or(Precision::Absent, Precision::Inexact),
        column_statistics: columns.collect(),
    }
}

#[async_trait]
impl TableProvider for TieredProvider {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(filters
            .iter()
            .map(|f| match Test::read(f, &self.schema) {
                Some(_) => TableProviderFilterPushDown::Inexact,
                None => TableProviderFilterPushDown::Unsupported,
            })
            .collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let proven: Vec<(&Expr, Test)> =
            filters.iter().filter_map(|f| Some((f, Test::read(f, &self.schema)?))).collect();
        let found = self.files.prune(|f| f.rows > 0 && proven.iter().all(|(_, test)| test.may_match(f)));
        let files: Vec<&LakeFile> = found.iter().map(Arc::as_ref).collect();
        let mut legs: Vec<Arc<dyn ExecutionPlan>> = Vec::with_capacity(2);
        if !files.is_empty() {
            let predicate = match conjunction(proven.iter().map(|(f, _)| (*f).clone())) {
                Some(all) => {
                    let unqualified = datafusion::logical_expr::expr_rewriter::unnormalize_col(all);
                    let schema = DFSchema::try_from(self.schema.as_ref().clone())?;
                    Some(state.create_physical_expr(unqualified, &schema)?)
                }
                None => None,
            };
            // Deciding on rows before their other columns are decoded pays for few rows of wide columns.
            let late = proven.iter().any(|(_, test)| test.is_selective());
            // A limit counts rows before the filter above has seen them.
            let limit = limit.filter(|_| filters.is_empty());
            legs.push(self.lake(state, &files, predicate, late, projection, limit)?);
        }
        if !self.tail.is_empty() {
            let bytes = self.tail.iter().map(|b| b.get_array_memory_size() as u64).sum();
            let stats =
                statistics(&self.schema, std::iter::once((self.tail_stats.rows, bytes, &self.tail_stats)));
            legs.push(Arc::new(TailExec::try_new(&self.tail, stats, &self.schema, projection)?));
        }
        match legs.len() {
            0 => {
                let schema = match projection {
                    Some(columns) => Arc::new(self.schema.project(columns)?),
                    None => self.schema.clone(),
                };
                Ok(Arc::new(EmptyExec::new(schema)))
            }
            _ => UnionExec::try_new(legs),
        }
    }
}

/// The tail's batches, with exact statistics.
#[derive(Debug)]
struct TailExec {
    batches: Vec<RecordBatch>,
    statistics: Arc<Statistics>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl TailExec {
    fn try_new(
        batches: &[RecordBatch],
        mut statistics: Statistics,
        schema: &SchemaRef,
        projection: Option<&Vec<usize>>,
    ) -> Result<Self> {
        let (batches, schema) = match projection {
            None => (batches.to_vec(), schema.clone()),
            Some(columns) => {
                statistics.column_statistics =
                    columns.iter().filter_map(|c| statistics.column_statistics.get(*c).cloned()).collect();
                let batches =
                    batches.iter().map(|b| b.project(columns)).collect::<std::result::Result<_, _>>()?;
                (batches, Arc::new(schema.project(columns)?))
            }
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        Ok(TailExec {
            batches,
            statistics: Arc::new(statistics),
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }
}

impl DisplayAs for TailExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TailExec: batches={}", self.batches.len())
    }
}

impl ExecutionPlan for TailExec {
    fn name(&self) -> &str {
        "TailExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = self.batches.iter().map(RecordBatch::num_rows).sum();
        MetricBuilder::new(&self.metrics).output_rows(partition).add(rows);
        Ok(Box::pin(MemoryStream::try_new(self.batches.clone(), self.schema(), None)?))
    }

    fn partition_statistics(&self, _: Option<usize>) -> Result<Arc<Statistics>> {
        Ok(self.statistics.clone())
    }
}
