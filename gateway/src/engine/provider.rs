//! The table of a tiered relation for one statement: the pinned lake files and the tail, as one relation.
//! ✗ choosing the version, reading the tail, commits.
//!
//! `scan` makes a union of a Parquet scan and the tail's batches. The scan reads the needed columns of the
//! files whose statistics do not rule them out; a file written before a column was added gives NULL for it.
//! Predicates handed to it only prune (see `prune`), the filter above decides row by row; but ranges of the event time
//! are decided here: files that lie within them whole are read without that column, and the rest is filtered. Statistics
//! of the legs are exact where ours are, so that `count(*)`, `count(x)`, `min` and `max` without a filter need no
//! scan at all.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{Array, AsArray, RecordBatch, RecordBatchOptions};
use datafusion::arrow::compute;
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use datafusion::arrow::error::ArrowError;
use datafusion::catalog::Session;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Column, ColumnStatistics, DFSchema, ScalarValue, Statistics};
use datafusion::config::TableParquetOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::object_store::ObjectStoreUrl;
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
use datafusion::physical_plan::filter::FilterExecBuilder;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, SendableRecordBatchStream,
};
use datafusion::parquet::file::metadata::ParquetMetaData;
use datafusion::parquet::file::page_index::column_index::ColumnIndexMetaData;
use futures::{StreamExt, TryStreamExt};
use lake::log::{Files, LakeFile};
use lake::stats::{Bound, Collector, FileStats};
use lake::types::ColType;
use object_store::ObjectStore;

use super::activity;
use super::coded::coded_type;
use super::error::EngineError;
use super::pins::Pin;
use super::prune::{self, Test};
use super::reads::{self, Readers};
use super::top::{self, Known, Order};

/// Footers of at most this many files are looked at while a statement is planned.
const FOOTERS_PLANNED: usize = 256;
/// Requests at once for footers.
const FOOTERS_AT_ONCE: usize = 16;
/// Files whose footers stand for all when columns are chosen to be read as codes.
const SAMPLE: usize = 2;
/// Files whose pages are looked at for a top-n; where more may hold its rows, files as wholes must do.
const TOP_FILES: usize = 8;

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
#[derive(Debug, Clone)]
pub struct TieredProvider {
    schema: SchemaRef,
    files: Files,
    source: Option<Source>,
    tail: Vec<RecordBatch>,
    tail_stats: FileStats,
    /// The column by which files are sorted and cut.
    event: String,
    /// Which rows are wanted first.
    order: Option<Order>,
}

/// A file to be read, and in which schema; None: as it is written.
struct Chosen {
    file: Arc<LakeFile>,
    schema: Option<SchemaRef>,
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
        Self::with_codes(pin, attnums, tail, &HashSet::new())
    }

    /// As [`Self::try_new`], but text columns of `wishes` (see `plan::coded`) are [`coded_type`] where the files say that
    /// it pays.
    pub async fn prepare(
        pin: Pin,
        attnums: &[i16],
        tail: Vec<RecordBatch>,
        wishes: &[Vec<i16>],
    ) -> std::result::Result<Arc<dyn TableProvider>, EngineError> {
        let coded = coded_columns(&pin, wishes).await;
        Self::with_codes(pin, attnums, tail, &coded)
    }

    /// As [`Self::try_new`], with these text columns as [`coded_type`].
    pub(super) fn with_codes(
        pin: Pin,
        attnums: &[i16],
        tail: Vec<RecordBatch>,
        coded: &HashSet<i16>,
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
        let codes = |(field, attnum): (&Arc<Field>, &i16)| match coded.contains(attnum) {
            true => Arc::new(Field::new(field.name(), coded_type(), true)),
            false => field.clone(),
        };
        let schema = Arc::new(Schema::new(schema.fields().iter().zip(attnums).map(codes).collect::<Vec<_>>()));
        let tail = tail
            .into_iter()
            .filter(|b| b.num_rows() > 0)
            .map(|b| labelled(b, &schema))
            .collect::<std::result::Result<_, _>>()
            .map_err(|e| EngineError::Internal(e.to_string()))?;
        Ok(Arc::new(TieredProvider {
            schema,
            files: pin.version.files.clone(),
            source: pin.source,
            tail,
            tail_stats,
            event: pin.spec.event_column().map(|c| c.lake_name.clone())?,
            order: None,
        }))
    }

    /// The same relation, with the rows that come first in `order` read first.
    pub(super) fn in_order(&self, order: Order) -> Self {
        TieredProvider { order: Some(order), ..self.clone() }
    }

    /// A value of the column that at least `rows` rows of the relation are at or before, in the order; None: nothing is known.
    pub(super) async fn reached(&self, order: &Order, rows: usize) -> Result<Option<ScalarValue>> {
        let Ok(field) = self.schema.field_with_name(&order.column) else { return Ok(None) };
        let rows = rows as u64;
        let (mut known, mut files) = (Vec::new(), Vec::new());
        // NULLs stand at one end of the order: where there are any, nothing is known.
        for file in self.files.iter().filter(|f| f.rows > 0) {
            let Some(column) = file.column(&order.column).filter(|c| c.nulls == 0) else { return Ok(None) };
            let (Some(Bound::Int(min)), Some(Bound::Int(max))) = (&column.min, &column.max) else { return Ok(None) };
            files.push((file, *min, *max));
            known.push(Known { bound: if order.descending { *min } else { *max }, rows: file.rows });
        }
        let Some(mut tail) = self.tail_times(&order.column) else { return Ok(None) };
        if let Ok(most) = usize::try_from(rows)
            && (1..tail.len()).contains(&most)
        {
            let nearer = |a: &i64, b: &i64| if order.descending { b.cmp(a) } else { a.cmp(b) };
            tail.select_nth_unstable_by(most - 1, nearer);
            tail.truncate(most);
        }
        known.extend(tail.iter().map(|v| Known { bound: *v, rows: 1 }));
        let Some(far) = top::reached(known, rows, order.descending) else { return Ok(None) };
        // Pages of the files that may hold rows as near tell more.
        let near: Vec<_> = files
            .iter()
            .filter(|(_, min, max)| if order.descending { *max >= far } else { *min <= far })
            .collect();
        let mut value = far;
        if let Some(source) = self.source.as_ref().filter(|_| near.len() <= TOP_FILES) {
            let mut known: Vec<Known> = tail.into_iter().map(|bound| Known { bound, rows: 1 }).collect();
            for (file, min, max) in near {
                let footer = reads::footer(source, file, true).await?;
                match pages(&footer, order) {
                    Some(pages) => known.extend(pages),
                    None => {
                        known.push(Known { bound: if order.descending { *min } else { *max }, rows: file.rows });
                    }
                }
            }
            if let Some(near) = top::reached(known, rows, order.descending) {
                value = if order.descending { far.max(near) } else { far.min(near) };
            }
        }
        Ok(prune::scalar(&Bound::Int(value), field.data_type()))
    }

    /// The tail's values of a column of times or integers; None if there are others, or a NULL.
    fn tail_times(&self, column: &str) -> Option<Vec<i64>> {
        let mut times = Vec::new();
        for batch in &self.tail {
            let array = batch.column_by_name(column)?;
            if array.null_count() > 0 {
                return None;
            }
            match array.data_type() {
                DataType::Timestamp(TimeUnit::Microsecond, _) => {
                    times.extend_from_slice(array.as_primitive::<TimestampMicrosecondType>().values())
                }
                DataType::Int64 => times.extend_from_slice(array.as_primitive::<Int64Type>().values()),
                DataType::Date32 => {
                    times.extend(array.as_primitive::<Date32Type>().values().iter().map(|v| i64::from(*v)))
                }
                _ => return None,
            }
        }
        Some(times)
    }

    /// In which schemas files are read whose columns are coded.
    async fn choose(&self, files: Vec<Arc<LakeFile>>) -> Result<Vec<Chosen>> {
        let coded = self.schema.fields().iter().filter(|f| *f.data_type() == coded_type());
        let coded: Arc<HashSet<String>> = Arc::new(coded.map(|f| f.name().clone()).collect());
        let Some(source) = self.source.clone().filter(|_| !coded.is_empty() && files.len() <= FOOTERS_PLANNED) else {
            return Ok(files.into_iter().map(|file| Chosen { file, schema: None }).collect());
        };
        let look = move |file: Arc<LakeFile>| {
            let (source, coded) = (source.clone(), coded.clone());
            async move {
                let footer = reads::footer(&source, &file, false).await?;
                let schema = Some(reads::schema_of(&footer, &coded)?);
                Ok(Chosen { file, schema })
            }
        };
        futures::stream::iter(files).map(look).buffered(FOOTERS_AT_ONCE).try_collect().await
    }

    /// Whether rows have texts beside the columns that decide on them.
    fn is_wide(&self, projection: Option<&Vec<usize>>, deciding: &[(&Expr, Test)]) -> bool {
        let deciding: HashSet<&Column> = deciding.iter().flat_map(|(f, _)| f.column_refs()).collect();
        let is_read = |n: usize| projection.is_none_or(|columns| columns.contains(&n));
        self.schema.fields().iter().enumerate().filter(|(n, _)| is_read(*n)).any(|(_, field)| {
            let fixed = field.data_type().primitive_width().is_some() || *field.data_type() == DataType::Boolean;
            let decides = deciding.iter().any(|column| column.name == *field.name());
            !fixed && *field.data_type() != coded_type() && !decides
        })
    }

    /// The conjunction of filters over columns of `schema`.
    fn predicate<'a>(
        &self,
        state: &dyn Session,
        filters: impl Iterator<Item = &'a (&'a Expr, Test)>,
        schema: &SchemaRef,
    ) -> Result<Option<Arc<dyn PhysicalExpr>>> {
        let Some(all) = conjunction(filters.map(|(f, _)| (*f).clone())) else { return Ok(None) };
        let unqualified = datafusion::logical_expr::expr_rewriter::unnormalize_col(all);
        let schema = DFSchema::try_from(schema.as_ref().clone())?;
        Ok(Some(state.create_physical_expr(unqualified, &schema)?))
    }

    /// The rows within the ranges, of the columns that are asked for.
    fn within(
        &self,
        state: &dyn Session,
        rows: Arc<dyn ExecutionPlan>,
        ranges: &[(&Expr, Test)],
        columns: &Columns,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match self.predicate(state, ranges.iter(), &rows.schema())? {
            Some(predicate) => {
                let filter = FilterExecBuilder::new(predicate, rows)
                    .with_batch_size(state.config_options().execution.batch_size.into())
                    .apply_projection(columns.asked.clone())?;
                Ok(Arc::new(filter.build()?))
            }
            None => Ok(rows),
        }
    }

    fn lake(
        &self,
        state: &dyn Session,
        files: &[Chosen],
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
            .with_parquet_file_reader_factory(Arc::new(Readers::new(source)))
            .with_metadata_size_hint(reads::FOOTER_HINT)
            .with_pushdown_filters(late);
        if let Some(predicate) = predicate {
            parquet = parquet.with_predicate(predicate);
        }
        let statistics = statistics(&self.schema, files.iter().map(|f| (f.file.rows, f.file.size, &f.file.stats)));
        let config = FileScanConfigBuilder::new(source.url.clone(), Arc::new(parquet))
            .with_file_groups(groups(
                &self.schema,
                files,
                state.config_options().execution.target_partitions,
                self.order.as_ref(),
            )?)
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

/// Files in as many groups as may run at once, of about the same size each; with an order, each group has files of all
/// parts of it, those that come first in it first.
fn groups(schema: &SchemaRef, files: &[Chosen], target: usize, order: Option<&Order>) -> Result<Vec<FileGroup>> {
    let target = target.clamp(1, files.len().max(1));
    let mut sorted: Vec<&Chosen> = files.iter().collect();
    match order {
        None => sorted.sort_by_key(|f| std::cmp::Reverse(f.file.size)),
        Some(order) => sorted.sort_by(|a, b| {
            let end = |f: &Chosen| {
                let column = f.file.column(&order.column)?;
                if order.descending { column.max.clone() } else { column.min.clone() }
            };
            let ascending = end(a).partial_cmp(&end(b)).unwrap_or(std::cmp::Ordering::Equal);
            if order.descending { ascending.reverse() } else { ascending }
        }),
    }
    let mut groups: Vec<(u64, Vec<PartitionedFile>)> = vec![Default::default(); target];
    for (number, chosen) in sorted.into_iter().enumerate() {
        let stats = statistics(schema, std::iter::once((chosen.file.rows, chosen.file.size, &chosen.file.stats)));
        let mut file =
            PartitionedFile::new_from_meta(reads::object(&chosen.file)?).with_statistics(Arc::new(stats));
        if let Some(schema) = &chosen.schema {
            file = file.with_arrow_schema(schema.clone());
        }
        let next = match order {
            Some(_) => groups.get_mut(number % target),
            None => groups.iter_mut().min_by_key(|g| g.0),
        };
        // `target` is at least 1.
        if let Some((size, group)) = next {
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
                Some(test) if test.is_range_of(&self.event) => TableProviderFilterPushDown::Exact,
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
        let proven = filters.iter().filter_map(|f| Some((f, Test::read(f, &self.schema)?)));
        let (ranges, others): (Vec<(&Expr, Test)>, Vec<_>) = proven.partition(|(_, test)| test.is_range_of(&self.event));
        let mut all = ranges.iter().chain(&others);
        let files = self.files.prune(|f| f.rows > 0 && all.clone().all(|(_, test)| test.may_match(f)));
        let files_pruned = self.files.len().saturating_sub(files.len()) as u64;
        activity::add(&activity::Totals { files_pruned, ..Default::default() });
        // Of files that lie within the range whole, the column it is about need not be read.
        let (inside, across): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|f| ranges.iter().all(|(_, test)| test.must_match(&f.stats)));
        let with_ranges = Columns::with(projection, &ranges, &self.schema);
        // Deciding on rows before their other columns are decoded pays for few rows of wide columns: numbers and codes are decoded
        // faster than passed over.
        let late = all.any(|(_, test)| test.is_selective()) && self.is_wide(projection, &others);
        let mut legs: Vec<Arc<dyn ExecutionPlan>> = Vec::with_capacity(3);
        if !inside.is_empty() {
            let predicate = self.predicate(state, others.iter(), &self.schema)?;
            // A limit counts rows before the filter above has seen them.
            let limit = limit.filter(|_| filters.is_empty());
            let files = self.choose(inside).await?;
            legs.push(self.lake(state, &files, predicate, late, projection, limit)?);
        }
        if !across.is_empty() {
            let predicate = self.predicate(state, ranges.iter().chain(&others), &self.schema)?;
            let files = self.choose(across).await?;
            let rows = self.lake(state, &files, predicate, late, with_ranges.read.as_ref(), None)?;
            legs.push(self.within(state, rows, &ranges, &with_ranges)?);
        }
        if !self.tail.is_empty() {
            let bytes = self.tail.iter().map(|b| b.get_array_memory_size() as u64).sum();
            let stats =
                statistics(&self.schema, std::iter::once((self.tail_stats.rows, bytes, &self.tail_stats)));
            let rows = Arc::new(TailExec::try_new(&self.tail, stats, &self.schema, with_ranges.read.as_ref())?);
            legs.push(self.within(state, rows, &ranges, &with_ranges)?);
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

/// The columns that are asked for, and those that the ranges are about besides.
struct Columns {
    /// None: all.
    read: Option<Vec<usize>>,
    /// Where those that are asked for stand in `read`; None: nothing else is.
    asked: Option<Vec<usize>>,
}

impl Columns {
    fn with(projection: Option<&Vec<usize>>, ranges: &[(&Expr, Test)], schema: &SchemaRef) -> Self {
        let Some(asked) = projection else { return Columns { read: None, asked: None } };
        let mut read = asked.clone();
        for column in ranges.iter().flat_map(|(f, _)| f.column_refs()) {
            if let Ok(at) = schema.index_of(&column.name)
                && !read.contains(&at)
            {
                read.push(at);
            }
        }
        let more = read.len() > asked.len();
        Columns { asked: more.then(|| (0..asked.len()).collect()), read: Some(read) }
    }
}

/// Columns of `wishes` whose values repeat, as far as the largest files show; sets of which one does not are left out.
async fn coded_columns(pin: &Pin, wishes: &[Vec<i16>]) -> HashSet<i16> {
    let mut coded: HashSet<i16> = wishes.iter().flatten().copied().collect();
    let files = &pin.version.files;
    let Some(source) = pin.source.as_ref().filter(|_| !coded.is_empty() && !files.is_empty() && files.len() <= FOOTERS_PLANNED)
    else {
        return HashSet::new();
    };
    let mut sample: Vec<&Arc<LakeFile>> = files.iter().collect();
    sample.sort_by_key(|f| std::cmp::Reverse(f.size));
    for file in sample.into_iter().take(SAMPLE) {
        // The scan meets the same trouble, and reports it.
        let Ok(footer) = reads::footer(source, file, false).await else { return HashSet::new() };
        coded.retain(|attnum| {
            pin.spec.column(*attnum).is_some_and(|column| reads::repeats(&footer, &column.lake_name))
        });
    }
    loop {
        let broken = wishes.iter().find(|set| {
            set.iter().any(|c| coded.contains(c)) && !set.iter().all(|c| coded.contains(c))
        });
        match broken {
            Some(set) => coded.retain(|c| !set.contains(c)),
            None => return coded,
        }
    }
}

/// A batch of the tail under a label of our own making (its own may differ in metadata), with coded columns as codes.
fn labelled(batch: RecordBatch, schema: &SchemaRef) -> std::result::Result<RecordBatch, ArrowError> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
        match column.data_type() == field.data_type() {
            true => Ok(column.clone()),
            false => compute::cast(column, field.data_type()),
        }
    });
    let columns = columns.collect::<std::result::Result<_, _>>()?;
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
}

/// Rows and bounds of all pages of a column of 64 bits; None if they are not known of each.
fn pages(footer: &ParquetMetaData, order: &Order) -> Option<Vec<Known>> {
    let (bounds, offsets) = (footer.column_index()?, footer.offset_index()?);
    let mut known = Vec::new();
    for ((group, bounds), offsets) in footer.row_groups().iter().zip(bounds).zip(offsets) {
        let at = group.columns().iter().position(|c| c.column_path().parts() == [order.column.as_str()])?;
        let ColumnIndexMetaData::INT64(bounds) = bounds.get(at)? else { return None };
        let pages = offsets.get(at)?.page_locations();
        let bounds = if order.descending { bounds.min_values() } else { bounds.max_values() };
        if bounds.len() != pages.len() {
            return None;
        }
        let ends = pages.iter().skip(1).map(|p| p.first_row_index).chain([group.num_rows()]);
        for ((page, end), bound) in pages.iter().zip(ends).zip(bounds) {
            known.push(Known { bound: *bound, rows: u64::try_from(end - page.first_row_index).ok()? });
        }
    }
    Some(known)
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
