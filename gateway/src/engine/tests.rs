use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use datafusion::arrow::array::*;
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::datasource::object_store::ObjectStoreUrl;
use datafusion::datasource::provider_as_source;
use datafusion::functions_aggregate::expr_fn::{count, max, min, sum};
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlanBuilder, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility, cast, col, lit,
};
use datafusion::scalar::ScalarValue;
use lake::log::{LakeFile, LakeTable};
use lake::spec::{Column, TableSpec};
use lake::stats::Bound;
use lake::types::{self, ColType};
use lake::writer::{FileWriter, WriterOptions};
use pgexact::PgError;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

use super::provider::Source;
use super::prune::Test;
use super::*;

mod scans;

const DAY_US: i64 = 86_400_000_000;

fn column(attnum: i16, name: &str, ty: ColType) -> Column {
    Column {
        attnum,
        name: name.into(),
        lake_name: name.into(),
        type_oid: ty.type_oid(),
        typmod: -1,
        collation: 0,
        not_null: false,
        ty,
    }
}

/// ts, level, n, b, amount, flag, day, score, and the provenance columns.
fn spec() -> TableSpec {
    TableSpec {
        relid: 1,
        schema: "public".into(),
        name: "logs".into(),
        event_time: 1,
        columns: vec![
            column(1, "ts", ColType::TimestampTz),
            column(2, "level", ColType::Text),
            column(3, "n", ColType::Int4),
            column(4, "b", ColType::Int8),
            column(5, "amount", ColType::Numeric { precision: 20, scale: 2 }),
            column(6, "flag", ColType::Bool),
            column(7, "day", ColType::Date),
            column(8, "score", ColType::Float8),
            column(9, types::XID, ColType::Xid8),
            column(10, types::STREAM, ColType::Int4),
            column(11, types::OFFSET, ColType::Int8),
        ],
        lake_path: "public.logs".into(),
        schema_epoch: 1,
        lineage: "1/1".into(),
        min_archive: 0,
        floor_us: None,
        keys: Vec::new(),
        warned_us: None,
        lake_floor_us: None,
    }
}

/// Random rows of one day, ascending by time, NULLs and extremes among them.
fn rows(spec: &TableSpec, day: i64, count: usize, random: &mut StdRng) -> RecordBatch {
    let mut times: Vec<i64> = (0..count).map(|_| day * DAY_US + random.random_range(0..DAY_US)).collect();
    times.sort_unstable();
    // Each file has a range of its own within the whole, so that pruning has something to do.
    let base = random.random_range(-1_000..1_000i64);
    let mut value = |spread: i64| -> Option<i64> {
        (random.random_range(0..6) != 0).then(|| base + random.random_range(-spread..=spread))
    };
    let mut ints = |spread: i64| -> Vec<Option<i64>> { (0..count).map(|_| value(spread)).collect() };
    let columns: Vec<ArrayRef> = spec
        .columns
        .iter()
        .map(|c| -> ArrayRef {
            match c.ty {
                ColType::TimestampTz => {
                    Arc::new(TimestampMicrosecondArray::from(times.clone()).with_timezone("UTC"))
                }
                ColType::Text => Arc::new(StringViewArray::from_iter(
                    ints(20)
                        .into_iter()
                        .map(|v| v.map(|v| format!("level-{}-{v}", "é".repeat((v & 63) as usize)))),
                )),
                ColType::Int4 => {
                    Arc::new(Int32Array::from_iter(ints(30).into_iter().map(|v| v.map(|v| v as i32))))
                }
                ColType::Int8 | ColType::Xid8 => Arc::new(Int64Array::from_iter(
                    ints(9).into_iter().map(|v| v.map(|v| if v % 17 == 0 { i64::MAX } else { v })),
                )),
                ColType::Numeric { precision, scale } => Arc::new(
                    Decimal128Array::from_iter(
                        ints(50).into_iter().map(|v| v.map(|v| i128::from(v) * 12_345_678_901_234_567)),
                    )
                    .with_precision_and_scale(precision, scale)
                    .unwrap(),
                ),
                ColType::Bool => {
                    Arc::new(BooleanArray::from_iter(ints(1).into_iter().map(|v| v.map(|v| v & 1 == 0))))
                }
                ColType::Date => Arc::new(Date32Array::from_iter(
                    ints(3).into_iter().map(|v| v.map(|v| if v % 11 == 0 { i32::MAX } else { v as i32 })),
                )),
                ColType::Float8 => Arc::new(Float64Array::from_iter(
                    ints(3).into_iter().map(|v| v.map(|v| if v % 5 == 0 { f64::NAN } else { v as f64 })),
                )),
                other => panic!("{other:?}"),
            }
        })
        .collect();
    RecordBatch::try_new(spec.arrow_schema(), columns).unwrap()
}

struct Fixture {
    dir: TempDir,
    engine: Arc<Engine>,
    table: LakeTable,
    archive: i64,
}

impl Fixture {
    async fn new() -> Self {
        Self::with(EngineConfig::default()).await
    }

    async fn with(config: EngineConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Url::from_directory_path(dir.path().join("lake")).unwrap();
        std::fs::create_dir_all(dir.path().join("lake")).unwrap();
        let engine = Engine::new(EngineConfig {
            spill_dir: dir.path().join("spill"),
            lake_root: root.clone(),
            target_partitions: 2,
            ..config
        })
        .unwrap();
        let table = LakeTable::open_or_create(&root, &spec()).await.unwrap();
        Fixture { dir, engine, table, archive: 0 }
    }

    /// Archives batches, each as one file with small row groups and pages.
    async fn archive(&mut self, batches: &[RecordBatch]) {
        let options = WriterOptions { row_group_rows: 64, page_rows: 16, ..WriterOptions::default() };
        let mut files = Vec::new();
        for batch in batches {
            let first = batch
                .column(0)
                .as_primitive::<datafusion::arrow::datatypes::TimestampMicrosecondType>()
                .value(0);
            let mut writer =
                FileWriter::create(&self.table, types::partition_day(first), &options).await.unwrap();
            writer.write(batch).await.unwrap();
            files.push(writer.close().await.unwrap());
        }
        self.table.commit_append(files, self.archive + 1, self.archive, 1).await.unwrap();
        self.archive += 1;
    }

    fn pin(&self) -> Pin {
        let footers = self.engine.state.runtime_env().cache_manager.get_file_metadata_cache();
        Pin {
            spec: Arc::new(self.table.spec().clone()),
            version: self.table.current(),
            whole: self.table.current(),
            boundary: None,
            source: Some(Source {
                store: self.table.store(),
                url: ObjectStoreUrl::local_filesystem(),
                footers,
            }),
        }
    }

    fn provider(&self, attnums: &[i16], tail: &[RecordBatch]) -> Arc<dyn TableProvider> {
        let picked: Vec<usize> = attnums
            .iter()
            .map(|a| self.table.spec().columns.iter().position(|c| c.attnum == *a).unwrap())
            .collect();
        let tail = tail.iter().map(|b| b.project(&picked).unwrap()).collect();
        TieredProvider::try_new(self.pin(), attnums, tail).unwrap()
    }

    async fn run(&self, plan: LogicalPlan) -> Result<(Vec<RecordBatch>, Stats, String), EngineError> {
        run(&self.engine, plan).await
    }
}

async fn run(
    engine: &Arc<Engine>,
    plan: LogicalPlan,
) -> Result<(Vec<RecordBatch>, Stats, String), EngineError> {
    let mut stream = engine.execute(plan, CancellationToken::new()).await?;
    let mut batches = Vec::new();
    while let Some(batch) = stream.next().await {
        batches.push(batch?);
    }
    Ok((batches, stream.stats(), stream.plan_text()))
}

fn scan(provider: Arc<dyn TableProvider>) -> LogicalPlanBuilder {
    LogicalPlanBuilder::scan("t", provider_as_source(provider), None).unwrap()
}

/// Rows as texts, in no order.
fn show(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<_> =
            batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options).unwrap()).collect();
        rows.extend(
            (0..batch.num_rows())
                .map(|i| columns.iter().map(|c| c.value(i).to_string()).collect::<Vec<_>>().join("|")),
        );
    }
    rows.sort();
    rows
}

fn all_attnums() -> Vec<i16> {
    spec().columns.iter().map(|c| c.attnum).collect()
}

/// A constant as it may stand beside a column: mostly a value of the column, sometimes near one.
fn constant(data: &RecordBatch, column: usize, random: &mut StdRng) -> ScalarValue {
    loop {
        let row = random.random_range(0..data.num_rows());
        let value = ScalarValue::try_from_array(data.column(column), row).unwrap();
        if !value.is_null() {
            return value;
        }
    }
}

fn predicate(data: &RecordBatch, depth: u32, random: &mut StdRng) -> Expr {
    let schema = data.schema();
    if depth > 0 && random.random_range(0..2) == 0 {
        let (a, b) = (predicate(data, depth - 1, random), predicate(data, depth - 1, random));
        return match random.random_range(0..5) {
            0 => a.or(b),
            1 => Expr::Not(Box::new(a)),
            _ => a.and(b),
        };
    }
    let column = random.random_range(0..data.num_columns());
    let left = col(schema.field(column).name().as_str());
    let value = |random: &mut StdRng| Expr::Literal(constant(data, column, random), None);
    match random.random_range(0..12) {
        0 => left.is_null(),
        1 => left.is_not_null(),
        2 => {
            let list = (0..random.random_range(1..5)).map(|_| value(random)).collect();
            left.in_list(list, random.random_range(0..4) == 0)
        }
        3 => left.between(value(random), value(random)),
        n => {
            let op =
                [Operator::Eq, Operator::NotEq, Operator::Lt, Operator::LtEq, Operator::Gt, Operator::GtEq]
                    [n % 6];
            if random.random_range(0..5) == 0 {
                datafusion::logical_expr::binary_expr(value(random), op, left)
            } else {
                datafusion::logical_expr::binary_expr(left, op, value(random))
            }
        }
    }
}

#[tokio::test]
async fn files_and_tail_answer_as_one_table_in_memory() {
    let mut random = StdRng::seed_from_u64(1);
    let mut fixture = Fixture::new().await;
    let batches: Vec<RecordBatch> =
        (0..9).map(|i| rows(&spec(), 19_000 + i % 4, 40 + 30 * i as usize, &mut random)).collect();
    fixture.archive(&batches[..4]).await;
    fixture.archive(&batches[4..7]).await;
    let tail = &batches[7..];
    let whole = concat_batches(&spec().arrow_schema(), &batches).unwrap();
    let memory = || memory_provider(whole.schema(), vec![whole.clone()]).unwrap();
    let (mut pruned, mut empty) = (0, 0);
    for round in 0..250 {
        let filter = predicate(&whole, 3, &mut random);
        let query = |provider| {
            let table = scan(provider).filter(filter.clone()).unwrap();
            if round % 3 == 0 {
                table.build()
            } else {
                table
                    .aggregate(vec![col("level")], vec![count(lit(1i64)), max(col("ts")), sum(col("n"))])
                    .unwrap()
                    .build()
            }
            .unwrap()
        };
        let (expected, ..) = fixture.run(query(memory())).await.unwrap();
        let (found, stats, plan) = fixture.run(query(fixture.provider(&all_attnums(), tail))).await.unwrap();
        assert_eq!(show(&found), show(&expected), "{filter}\n{plan}");
        pruned += usize::from(stats.files < 7);
        empty += usize::from(stats.files == 0);
    }
    // The test would be worth little if nothing was ever left out.
    assert!(pruned > 40 && empty < 200, "{pruned} {empty}");
}

#[tokio::test]
async fn top_k_agrees_with_a_table_in_memory() {
    let mut random = StdRng::seed_from_u64(2);
    let mut fixture = Fixture::new().await;
    let batches: Vec<RecordBatch> = (0..6).map(|i| rows(&spec(), 19_000 + i, 300, &mut random)).collect();
    fixture.archive(&batches[..5]).await;
    let whole = concat_batches(&spec().arrow_schema(), &batches).unwrap();
    for name in ["ts", "level", "n", "b", "amount", "flag", "day", "score", "_offset"] {
        for (ascending, nulls_first) in [(true, false), (true, true), (false, true), (false, false)] {
            // Ties are broken by the time, which has none.
            let order = vec![col(name).sort(ascending, nulls_first), col("ts").sort(true, false)];
            let query =
                |provider| scan(provider).sort_with_limit(order.clone(), Some(17)).unwrap().build().unwrap();
            let (expected, ..) = fixture
                .run(query(memory_provider(whole.schema(), vec![whole.clone()]).unwrap()))
                .await
                .unwrap();
            let (found, ..) =
                fixture.run(query(fixture.provider(&all_attnums(), &batches[5..]))).await.unwrap();
            assert_eq!(show(&found), show(&expected), "{name} {ascending} {nulls_first}");
            assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), 17);
        }
    }
}

#[tokio::test]
async fn plain_aggregates_come_from_statistics() {
    let mut random = StdRng::seed_from_u64(3);
    let mut fixture = Fixture::new().await;
    let batches: Vec<RecordBatch> = (0..5).map(|i| rows(&spec(), 19_000 + i, 200, &mut random)).collect();
    fixture.archive(&batches[..4]).await;
    let whole = concat_batches(&spec().arrow_schema(), &batches).unwrap();
    let aggregates = |names: &[&str]| {
        let mut out = vec![count(lit(1i64)).alias("rows")];
        for name in names {
            out.push(count(col(*name)).alias(format!("count_{name}")));
            out.push(min(col(*name)).alias(format!("min_{name}")));
            out.push(max(col(*name)).alias(format!("max_{name}")));
        }
        out
    };
    let exact = ["ts", "n", "b", "amount", "day", "_offset"];
    for (names, from_statistics) in [(&exact[..], true), (&["score"][..], false), (&["level"][..], false)] {
        let query = |p| scan(p).aggregate(Vec::<Expr>::new(), aggregates(names)).unwrap().build().unwrap();
        let (expected, ..) =
            fixture.run(query(memory_provider(whole.schema(), vec![whole.clone()]).unwrap())).await.unwrap();
        for tail in [&batches[4..], &[]] {
            let (found, stats, plan) =
                fixture.run(query(fixture.provider(&all_attnums(), tail))).await.unwrap();
            if !tail.is_empty() {
                assert_eq!(show(&found), show(&expected), "{plan}");
            }
            assert_eq!(plan.contains("PlaceholderRowExec"), from_statistics, "{plan}");
            assert_eq!(stats.row_groups == 0, from_statistics);
        }
    }
    // A filter, even one that keeps everything, or FILTER, must look at the rows.
    let table = scan(fixture.provider(&all_attnums(), &batches[4..]));
    let plan = table
        .filter(col("n").is_not_null())
        .unwrap()
        .aggregate(Vec::<Expr>::new(), vec![count(lit(1i64))])
        .unwrap();
    let (found, stats, _) = fixture.run(plan.build().unwrap()).await.unwrap();
    assert_eq!(show(&found), [(1000 - whole.column(2).null_count()).to_string()]);
    assert!(
        stats.row_groups >= 16 && stats.bytes_scanned > 0 && stats.files == 4 && stats.rows == 1000,
        "{stats:?}"
    );
}

#[tokio::test]
async fn parts_may_be_empty() {
    let mut random = StdRng::seed_from_u64(4);
    let mut fixture = Fixture::new().await;
    let batch = rows(&spec(), 19_000, 100, &mut random);
    let counted = |p| {
        scan(p)
            .aggregate(Vec::<Expr>::new(), vec![count(lit(1i64)), max(lit(3i64))])
            .unwrap()
            .build()
            .unwrap()
    };
    let none = batch.slice(0, 0);
    for (tail, rows) in
        [(vec![], 0), (vec![none.clone()], 0), (vec![batch.clone()], 100), (vec![none, batch.clone()], 100)]
    {
        for attnums in [vec![], vec![3], all_attnums()] {
            let (found, ..) = fixture.run(counted(fixture.provider(&attnums, &tail))).await.unwrap();
            assert_eq!(show(&found)[0].split('|').next().unwrap(), rows.to_string(), "{attnums:?}");
        }
        let (found, ..) = fixture.run(scan(fixture.provider(&[3], &tail)).build().unwrap()).await.unwrap();
        assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), rows);
    }
    fixture.archive(std::slice::from_ref(&batch)).await;
    for attnums in [vec![], vec![3], all_attnums()] {
        let (found, ..) = fixture.run(counted(fixture.provider(&attnums, &[]))).await.unwrap();
        assert_eq!(show(&found)[0].split('|').next().unwrap(), "100", "{attnums:?}");
        let (found, ..) =
            fixture.run(counted(fixture.provider(&attnums, std::slice::from_ref(&batch)))).await.unwrap();
        assert_eq!(show(&found)[0].split('|').next().unwrap(), "200", "{attnums:?}");
        // Rows without columns are rows.
        let (found, ..) = fixture
            .run(scan(fixture.provider(&attnums, std::slice::from_ref(&batch))).build().unwrap())
            .await
            .unwrap();
        assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), 200, "{attnums:?}");
    }
    // No column of the two that are there is asked for.
    let plan =
        LogicalPlanBuilder::scan("t", provider_as_source(fixture.provider(&[2, 3], &[batch])), Some(vec![]))
            .unwrap()
            .limit(0, Some(150))
            .unwrap();
    let (found, ..) = fixture.run(plan.build().unwrap()).await.unwrap();
    assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), 150);
}

#[tokio::test]
async fn a_column_added_later_is_null_in_older_files() {
    let mut random = StdRng::seed_from_u64(5);
    let mut fixture = Fixture::new().await;
    fixture.archive(&[rows(&spec(), 19_000, 100, &mut random)]).await;
    let mut wider = spec();
    wider.columns.push(column(12, "added", ColType::Int4));
    wider.columns.push(column(13, "note", ColType::Text));
    fixture.table.ensure_schema(&wider).await.unwrap();
    let newer = rows(&wider, 19_001, 100, &mut random);
    fixture.archive(std::slice::from_ref(&newer)).await;
    let filled = 100 - newer.column(11).null_count();
    let one = |filter: Expr| {
        let plan = scan(fixture.provider(&[13, 12, 1], std::slice::from_ref(&newer)))
            .filter(filter)
            .unwrap()
            .aggregate(Vec::<Expr>::new(), vec![count(lit(1i64))])
            .unwrap();
        fixture.run(plan.build().unwrap())
    };
    assert_eq!(show(&one(col("added").is_null()).await.unwrap().0), [(300 - 2 * filled).to_string()]);
    let (found, stats, _) = one(col("added").is_not_null()).await.unwrap();
    assert_eq!((show(&found), stats.files), (vec![(2 * filled).to_string()], 1));
    let (found, ..) = one(col("added").gt_eq(lit(i32::MIN)).or(col("added").is_null())).await.unwrap();
    assert_eq!(show(&found), ["300"]);
    let plan = scan(fixture.provider(&[13, 12], &[]))
        .aggregate(Vec::<Expr>::new(), vec![count(col("added")), count(col("note"))])
        .unwrap();
    let notes = 100 - newer.column(12).null_count();
    assert_eq!(show(&fixture.run(plan.build().unwrap()).await.unwrap().0), [format!("{filled}|{notes}")]);
}

#[tokio::test]
async fn nan_and_casts_are_not_pruned() {
    let mut random = StdRng::seed_from_u64(6);
    let mut fixture = Fixture::new().await;
    let batches: Vec<RecordBatch> = (0..5).map(|i| rows(&spec(), 19_000 + i, 500, &mut random)).collect();
    fixture.archive(&batches).await;
    let whole = concat_batches(&spec().arrow_schema(), &batches).unwrap();
    let time = |h: i64| lit(ScalarValue::Time64Microsecond(Some(h * 3_600_000_000)));
    let as_time = || {
        cast(
            cast(col("ts"), DataType::Timestamp(TimeUnit::Microsecond, None)),
            DataType::Time64(TimeUnit::Microsecond),
        )
    };
    for filter in [
        col("score").gt(lit(1e9)),
        col("score").eq(lit(f64::NAN)),
        Expr::Not(Box::new(col("score").lt(lit(1e9)))),
        as_time().between(time(11), time(13)),
        cast(col("n"), DataType::Utf8View).gt(lit("99")),
        cast(col("ts"), DataType::Date32).eq(lit(ScalarValue::Date32(Some(19_002)))),
    ] {
        let query = |p| {
            scan(p)
                .filter(filter.clone())
                .unwrap()
                .aggregate(Vec::<Expr>::new(), vec![count(lit(1i64))])
                .unwrap()
                .build()
                .unwrap()
        };
        let (expected, ..) =
            fixture.run(query(memory_provider(whole.schema(), vec![whole.clone()]).unwrap())).await.unwrap();
        let (found, ..) = fixture.run(query(fixture.provider(&all_attnums(), &[]))).await.unwrap();
        assert_ne!(show(&expected), ["0"], "{filter}");
        assert_eq!(show(&found), show(&expected), "{filter}");
    }
}

#[tokio::test]
async fn a_point_lookup_reads_little() {
    let mut random = StdRng::seed_from_u64(7);
    let mut fixture = Fixture::new().await;
    let batches: Vec<RecordBatch> = (0..4).map(|i| rows(&spec(), 19_000 + i, 640, &mut random)).collect();
    fixture.archive(&batches).await;
    let at = ScalarValue::try_from_array(batches[2].column(0), 333).unwrap();
    let plan =
        scan(fixture.provider(&all_attnums(), &[])).filter(col("ts").eq(Expr::Literal(at, None))).unwrap();
    let (found, stats, _) = fixture.run(plan.build().unwrap()).await.unwrap();
    assert_eq!(show(&found).len(), 1);
    assert_eq!((stats.files, stats.row_groups), (1, 1));
}

#[tokio::test]
async fn a_missing_or_damaged_file_is_an_error_of_the_lake() {
    let mut random = StdRng::seed_from_u64(8);
    let mut fixture = Fixture::new().await;
    fixture
        .archive(&[rows(&spec(), 19_000, 100, &mut random), rows(&spec(), 19_001, 100, &mut random)])
        .await;
    let query = || scan(fixture.provider(&[2, 3], &[])).build().unwrap();
    let file = fixture.table.current().files[1].clone();
    let path = fixture.dir.path().join("lake/public.logs").join(&file.path);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert!(matches!(fixture.run(query()).await, Err(EngineError::Lake(_))));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(fixture.run(query()).await, Err(EngineError::Lake(_))));
    std::fs::write(&path, &bytes).unwrap();
    assert!(fixture.run(query()).await.is_ok());
}

/// A function that does what its name says for values above 5.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Misbehaving {
    how: &'static str,
    signature: Signature,
}

impl Misbehaving {
    fn call(how: &'static str, arg: Expr) -> Expr {
        let udf = ScalarUDF::from(Misbehaving {
            how,
            signature: Signature::exact(vec![DataType::Int64], Volatility::Immutable),
        });
        udf.call(vec![arg])
    }
}

impl ScalarUDFImpl for Misbehaving {
    fn name(&self) -> &str {
        self.how
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> datafusion::error::Result<DataType> {
        Ok(DataType::Int64)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> datafusion::error::Result<ColumnarValue> {
        match self.how {
            "raise" => Err(DataFusionError::External(Box::new(PgError::division_by_zero()))),
            "panic" => panic!("on purpose"),
            _ => {
                std::thread::sleep(Duration::from_millis(5));
                Ok(args.args[0].clone())
            }
        }
    }
}

fn numbers(batches: usize, rows: i64) -> Arc<dyn TableProvider> {
    let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, true)]));
    let batch = |i: usize| {
        let values = (0..rows).map(|r| i as i64 * rows + r);
        RecordBatch::try_new(schema.clone(), vec![Arc::new(Int64Array::from_iter_values(values)) as ArrayRef])
            .unwrap()
    };
    memory_provider(schema.clone(), (0..batches).map(batch).collect()).unwrap()
}

fn plain_engine(config: EngineConfig) -> (TempDir, Arc<Engine>) {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::new(EngineConfig { spill_dir: dir.path().to_owned(), ..config }).unwrap();
    (dir, engine)
}

#[tokio::test]
async fn errors_of_kernels_keep_their_sqlstate() {
    let (_dir, engine) = plain_engine(EngineConfig::default());
    for plan in [
        scan(numbers(3, 10)).project(vec![Misbehaving::call("raise", col("v"))]).unwrap(),
        scan(numbers(3, 10))
            .aggregate(vec![Misbehaving::call("raise", col("v"))], vec![count(lit(1i64))])
            .unwrap(),
        scan(numbers(3, 10))
            .filter(Misbehaving::call("raise", col("v")).gt(lit(1i64)))
            .unwrap()
            .sort(vec![col("v").sort(true, false)])
            .unwrap(),
    ] {
        match run(&engine, plan.build().unwrap()).await {
            Err(EngineError::Postgres { sqlstate, message }) => {
                assert_eq!((sqlstate.as_str(), message.as_str()), ("22012", "division by zero"))
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_panic_is_never_a_short_answer() {
    let (_dir, engine) = plain_engine(EngineConfig { max_concurrent: 1, ..EngineConfig::default() });
    for _ in 0..3 {
        let plan = scan(numbers(3, 10)).project(vec![Misbehaving::call("panic", col("v"))]).unwrap();
        assert!(matches!(run(&engine, plan.build().unwrap()).await, Err(EngineError::Internal(_))));
        let plan = scan(numbers(3, 10))
            .aggregate(vec![Misbehaving::call("panic", col("v"))], vec![count(lit(1i64))])
            .unwrap();
        assert!(matches!(run(&engine, plan.build().unwrap()).await, Err(EngineError::Internal(_))));
    }
    assert!(run(&engine, scan(numbers(3, 10)).build().unwrap()).await.is_ok());
}

/// Hours of work in thousands of small steps.
fn slow() -> LogicalPlan {
    let left =
        scan(numbers(200, 1000)).project(vec![Misbehaving::call("dawdle", col("v")).alias("a")]).unwrap();
    let right = scan(numbers(200, 1000)).project(vec![col("v").alias("b")]).unwrap().build().unwrap();
    left.cross_join(right)
        .unwrap()
        .aggregate(Vec::<Expr>::new(), vec![sum(Misbehaving::call("dawdle", col("a") + col("b")))])
        .unwrap()
        .build()
        .unwrap()
}

#[tokio::test]
async fn cancelling_stops_at_once_and_makes_room() {
    let (_dir, engine) = plain_engine(EngineConfig { max_concurrent: 1, ..EngineConfig::default() });
    let cancel = CancellationToken::new();
    let mut stream = engine.execute(slow(), cancel.clone()).await.unwrap();
    let clock = Instant::now();
    let stop = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        cancel.cancel();
    };
    let (next, ()) = tokio::join!(stream.next(), stop);
    assert!(matches!(next, Some(Err(EngineError::Cancelled))));
    assert!(stream.next().await.is_none());
    assert!(clock.elapsed() < Duration::from_secs(60), "{:?}", clock.elapsed());
    // Dropping does the same.
    drop(engine.execute(slow(), CancellationToken::new()).await.unwrap());
    let plan = scan(numbers(1, 10)).build().unwrap();
    tokio::time::timeout(Duration::from_secs(60), run(&engine, plan)).await.unwrap().unwrap();
    assert!(matches!(engine.execute(slow(), cancel).await, Err(EngineError::Cancelled)));
}

#[tokio::test]
async fn only_so_many_run_and_wait() {
    let (_dir, engine) = plain_engine(EngineConfig { max_concurrent: 1, ..EngineConfig::default() });
    let running = engine.execute(slow(), CancellationToken::new()).await.unwrap();
    let plan = || scan(numbers(1, 10)).build().unwrap();
    let waiting: Vec<_> = (0..WAITING_PER_RUNNING)
        .map(|_| {
            let (engine, plan) = (engine.clone(), plan());
            tokio::spawn(async move { run(&engine, plan).await.map(|r| r.0.len()) })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(matches!(run(&engine, plan()).await, Err(EngineError::Refused(_))));
    // One that gives up leaves the queue.
    let cancel = CancellationToken::new();
    cancel.cancel();
    waiting[0].abort();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(matches!(engine.execute(plan(), cancel).await, Err(EngineError::Cancelled)));
    drop(running);
    for task in waiting.into_iter().skip(1) {
        assert_eq!(task.await.unwrap().unwrap(), 1);
    }
}

#[tokio::test]
async fn a_slow_reader_holds_the_query_back() {
    let (_dir, engine) = plain_engine(EngineConfig::default());
    let mut stream =
        engine.execute(scan(numbers(500, 8192)).build().unwrap(), CancellationToken::new()).await.unwrap();
    stream.next().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(stream.batches.len() <= BATCHES_AHEAD);
    let mut seen = BTreeSet::new();
    while let Some(batch) = stream.next().await {
        seen.insert(
            batch.unwrap().column(0).as_primitive::<datafusion::arrow::datatypes::Int64Type>().value(0),
        );
    }
    assert_eq!(seen.len(), 499);
}

#[tokio::test]
async fn who_rests_keeps_nobody_waiting() {
    let (_dir, engine) = plain_engine(EngineConfig { max_concurrent: 1, ..EngineConfig::default() });
    let plan = || scan(numbers(500, 8192)).build().unwrap();
    let mut resting = engine.execute(plan(), CancellationToken::new()).await.unwrap();
    let mut rows = resting.next().await.unwrap().unwrap().num_rows();
    let patience = Duration::from_millis(300);
    assert!(tokio::time::timeout(patience, engine.execute(plan(), CancellationToken::new())).await.is_err());
    resting.rest();
    let other = engine.execute(plan(), CancellationToken::new()).await.unwrap();
    // The place is the other's now.
    assert!(tokio::time::timeout(patience, resting.resume()).await.is_err());
    drop(other);
    resting.resume().await;
    resting.resume().await;
    assert!(tokio::time::timeout(patience, engine.execute(plan(), CancellationToken::new())).await.is_err());
    while let Some(batch) = resting.next().await {
        rows += batch.unwrap().num_rows();
    }
    assert_eq!(rows, 500 * 8192);
    // All is made: there is nothing to wait for, and nothing held.
    let other = engine.execute(plan(), CancellationToken::new()).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), resting.resume()).await.unwrap();
    drop((other, resting));
}

#[tokio::test]
async fn what_outgrows_memory_spills_and_what_cannot_is_refused() {
    let config =
        || EngineConfig { memory_limit_bytes: 48 << 20, target_partitions: 1, ..EngineConfig::default() };
    let (dir, engine) = plain_engine(config());
    let sorted = scan(numbers(600, 8192)).sort(vec![col("v").sort(false, false)]).unwrap();
    let mut stream = engine.execute(sorted.build().unwrap(), CancellationToken::new()).await.unwrap();
    let mut rows = 0;
    while let Some(batch) = stream.next().await {
        rows += batch.unwrap().num_rows();
    }
    assert_eq!(rows, 600 * 8192);
    let spilled = stream.plan.metrics().and_then(|m| m.spill_count());
    assert!(spilled > Some(0), "{spilled:?} {}", stream.plan_text());
    let own: Vec<_> = std::fs::read_dir(dir.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(own.len(), 1, "{own:?}");
    drop((stream, engine));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);

    let (_dir, engine) =
        plain_engine(EngineConfig { memory_limit_bytes: 1 << 20, ..EngineConfig::default() });
    let keys = vec![(col("v") % lit(7919i64)).sort(true, false), col("v").sort(true, false)];
    let sorted = scan(numbers(200, 8192)).sort(keys).unwrap().build().unwrap();
    let outcome = run(&engine, sorted).await;
    assert!(matches!(outcome, Err(EngineError::Refused(_))), "{:?}", outcome.map(|r| r.1));
}

#[test]
fn spill_directories_of_the_dead_are_removed() {
    let base = tempfile::tempdir().unwrap();
    let dead = base.path().join(format!("watershed-spill-{}-0", u32::MAX));
    let stranger = base.path().join("watershed-spill-notes");
    std::fs::create_dir_all(dead.join("x")).unwrap();
    std::fs::create_dir_all(&stranger).unwrap();
    let ours = own_spill_dir(base.path()).unwrap();
    let other = own_spill_dir(base.path()).unwrap();
    assert!(ours.exists() && other.exists() && ours != other && stranger.exists() && !dead.exists());
}

#[tokio::test]
async fn joins_of_virtual_tables_run() {
    let (_dir, engine) = plain_engine(EngineConfig::default());
    let side = |name: &str| {
        LogicalPlanBuilder::scan(name, provider_as_source(numbers(2, 50)), None)
            .unwrap()
            .project(vec![col("v").alias(format!("{name}_v"))])
            .unwrap()
    };
    let right = side("r").filter(col("r_v").lt(lit(10i64))).unwrap().build().unwrap();
    for (kind, rows) in
        [(datafusion::logical_expr::JoinType::Inner, 10), (datafusion::logical_expr::JoinType::Left, 100)]
    {
        let plan =
            side("l").join_on(right.clone(), kind, [col("l_v").eq(col("r_v"))]).unwrap().build().unwrap();
        let (found, ..) = run(&engine, plan).await.unwrap();
        assert_eq!(show(&found).len(), rows);
    }
}

#[test]
fn provider_refuses_what_does_not_fit() {
    let nothing =
        Arc::new(lake::log::LakeVersion { version: -1, archive: 0, files: Default::default(), rows: 0, bytes: 0 });
    let pin = || Pin {
        spec: Arc::new(spec()),
        version: nothing.clone(),
        whole: nothing.clone(),
        boundary: None,
        source: None,
    };
    let wrong = |attnums: &[i16], tail: Vec<RecordBatch>| {
        assert!(matches!(TieredProvider::try_new(pin(), attnums, tail), Err(EngineError::Internal(_))));
    };
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
    let batch = RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(vec![1])) as ArrayRef]).unwrap();
    wrong(&[99], vec![]);
    wrong(&[3], vec![batch.clone()]);
    wrong(&[], vec![batch]);
}

mod pruning {
    use super::*;

    fn file(nulls: u64, min: Option<Bound>, max: Option<Bound>) -> LakeFile {
        let mut stats = lake::stats::FileStats { rows: 10, ..Default::default() };
        stats.columns.insert("n".into(), lake::stats::ColumnStats { nulls, min, max, exact: true, distinct: None, plain: false });
        LakeFile {
            path: "f".into(),
            location: "f".into(),
            size: 1,
            rows: 10,
            day: 0,
            modification_ms: 0,
            sorted: true,
            stats,
        }
    }

    fn schema() -> Schema {
        Schema::new(vec![
            Field::new("n", DataType::Int32, true),
            Field::new("gone", DataType::Int32, true),
            Field::new("t", DataType::Utf8View, true),
            Field::new("f", DataType::Float64, true),
            Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        ])
    }

    fn may(expr: Expr, file: &LakeFile) -> bool {
        Test::read(&expr, &schema()).expect("a proven predicate").may_match(&file.stats)
    }

    #[test]
    fn what_holds_for_every_row_is_told_by_bounds_without_nulls() {
        let must = |expr: Expr, file: &LakeFile| {
            Test::read(&expr, &schema()).expect("a proven predicate").must_match(&file.stats)
        };
        let (full, holed) = (
            file(0, Some(Bound::Int(10)), Some(Bound::Int(20))),
            file(1, Some(Bound::Int(10)), Some(Bound::Int(20))),
        );
        let n = || col("n");
        for (expr, expected) in [
            (n().lt(lit(20)), false),
            (n().lt(lit(21)), true),
            (n().lt_eq(lit(20)), true),
            (n().lt_eq(lit(19)), false),
            (n().gt(lit(10)), false),
            (n().gt(lit(9)), true),
            (n().gt_eq(lit(10)), true),
            (n().gt_eq(lit(11)), false),
            (lit(9).lt(n()), true),
            (n().eq(lit(10)), false),
            (n().not_eq(lit(30)), false),
            (n().is_not_null(), false),
            (n().between(lit(10), lit(20)), true),
            (n().between(lit(10), lit(19)), false),
            (n().gt(lit(9)).or(n().lt(lit(0))), true),
            (col("gone").lt(lit(5)), false),
        ] {
            assert_eq!(must(expr.clone(), &full), expected, "{expr}");
            // NULL fulfils nothing.
            assert!(!must(expr.clone(), &holed), "{expr}");
        }
        let unknown = file(0, None, None);
        assert!(!must(n().lt(lit(100)), &unknown) && !must(n().gt(lit(-100)), &unknown));
        for (expr, expected) in [
            (n().lt(lit(5)), true),
            (n().between(lit(5), lit(6)), true),
            (n().eq(lit(5)), false),
            (n().lt(lit(5)).or(n().gt(lit(7))), false),
            (col("gone").lt(lit(5)), false),
        ] {
            assert_eq!(Test::read(&expr, &schema()).unwrap().is_range_of("n"), expected, "{expr}");
        }
    }

    #[test]
    fn bounds_rule_files_out() {
        let f = file(2, Some(Bound::Int(10)), Some(Bound::Int(20)));
        let n = || col("n");
        for (expr, expected) in [
            (n().eq(lit(9)), false),
            (n().eq(lit(10)), true),
            (n().eq(lit(20)), true),
            (n().eq(lit(21)), false),
            (n().lt(lit(10)), false),
            (n().lt_eq(lit(10)), true),
            (n().gt(lit(20)), false),
            (n().gt_eq(lit(20)), true),
            (lit(20).lt(n()), false),
            (lit(10).gt(n()), false),
            (n().not_eq(lit(10)), true),
            (n().is_null(), true),
            (n().is_not_null(), true),
            (n().in_list(vec![lit(1), lit(30)], false), false),
            (n().in_list(vec![lit(1), lit(15)], false), true),
            (n().between(lit(21), lit(30)), false),
            (n().between(lit(0), lit(10)), true),
            (n().eq(lit(1)).or(n().eq(lit(15))), true),
            (n().eq(lit(15)).and(n().gt(lit(20))), false),
            (col("gone").eq(lit(1)), false),
            (col("gone").is_null(), true),
            (col("gone").is_not_null(), false),
        ] {
            assert_eq!(may(expr.clone(), &f), expected, "{expr}");
        }
        assert!(!may(n().not_eq(lit(7)), &file(2, Some(Bound::Int(7)), Some(Bound::Int(7)))));
    }

    #[test]
    fn what_is_unknown_is_kept() {
        let n = || col("n");
        for f in [file(0, None, None), file(0, Some(Bound::Text("x".into())), Some(Bound::Text("y".into())))]
        {
            for expr in [n().eq(lit(1)), n().lt(lit(1)), n().gt(lit(1)), n().not_eq(lit(1))] {
                assert!(may(expr, &f));
            }
        }
        let all_null = file(10, None, None);
        assert!(
            !may(n().eq(lit(1)), &all_null)
                && !may(n().is_not_null(), &all_null)
                && may(n().is_null(), &all_null)
        );
        assert!(!may(n().is_null(), &file(0, None, None)));
        // Only a lower bound is known: long texts lose the upper one.
        let half = file(0, Some(Bound::Int(5)), None);
        assert!(may(n().gt(lit(1000)), &half) && !may(n().lt(lit(5)), &half));
    }

    #[test]
    fn only_proven_predicates_are_read() {
        let ts = ScalarValue::TimestampMicrosecond(Some(1), None);
        for expr in [
            col("f").gt(lit(1.0)),
            col("n").gt(lit(1i64)),
            col("n").gt(lit(ScalarValue::Int32(None))),
            col("n").gt(col("gone")),
            cast(col("n"), DataType::Int64).gt(lit(1i64)),
            Expr::Not(Box::new(col("n").gt(lit(1)))),
            col("n").in_list(vec![lit(1)], true),
            col("n").in_list(vec![lit(1), lit(ScalarValue::Int32(None))], false),
            col("n").not_between(lit(1), lit(2)),
            col("t").like(lit("a%")),
            col("ts").gt(lit(ts)),
            col("missing").gt(lit(1)),
            col("n").gt(lit(1)).and(col("f").gt(lit(1.0))),
            col("n").gt(lit(1)).or(col("f").gt(lit(1.0))),
            lit(true),
        ] {
            assert_eq!(Test::read(&expr, &schema()), None, "{expr}");
        }
        assert!(Test::read(&col("t").gt(lit("a")), &schema()).is_some());
    }
}

#[test]
fn what_kernels_cannot_do_exactly_is_no_error_of_postgres() {
    let kind = |e: PgError| EngineError::from(DataFusionError::External(Box::new(e)).context("while running"));
    assert!(matches!(kind(PgError::not_exact("a zone")), EngineError::Internal(_)));
    assert!(matches!(kind(PgError::division_by_zero()), EngineError::Postgres { .. }));
    let arrow = datafusion::arrow::error::ArrowError::ExternalError(Box::new(PgError::division_by_zero()));
    assert!(matches!(EngineError::from(DataFusionError::from(arrow)), EngineError::Postgres { .. }));
}
