//! How much is read, and in which form: codes, top-n, bloom filters, groups that outgrow memory.

use super::*;
use crate::engine::coded::coded_type;
use datafusion::functions_aggregate::expr_fn::count_distinct;
use std::collections::HashSet;

/// The constant as it stands beside a coded column.
fn code(text: Option<&str>) -> Expr {
    let text = ScalarValue::Utf8(text.map(str::to_owned));
    Expr::Literal(ScalarValue::Dictionary(Box::new(DataType::Int32), Box::new(text)), None)
}

fn text(text: Option<&str>) -> Expr {
    Expr::Literal(ScalarValue::Utf8View(text.map(str::to_owned)), None)
}

impl Fixture {
    fn tail(&self, attnums: &[i16], tail: &[RecordBatch]) -> Vec<RecordBatch> {
        let picked: Vec<usize> = attnums
            .iter()
            .map(|a| self.table.spec().columns.iter().position(|c| c.attnum == *a).unwrap())
            .collect();
        tail.iter().map(|b| b.project(&picked).unwrap()).collect()
    }

    /// As `provider`, with `level` as codes.
    fn coded(&self, tail: &[RecordBatch]) -> Arc<dyn TableProvider> {
        let attnums = all_attnums();
        let tail = self.tail(&attnums, tail);
        TieredProvider::with_codes(self.pin(), &attnums, tail, &HashSet::from([2])).unwrap()
    }

    /// Archives batches as one file each, in one row group with many pages and bloom filters on `level`.
    async fn archive_large(&mut self, batches: &[RecordBatch], row_group_rows: usize) {
        let options = WriterOptions { row_group_rows, page_rows: 64, bloom: vec!["level".into()], ..Default::default() };
        let mut files = Vec::new();
        for batch in batches {
            let times = batch.column(0).as_primitive::<datafusion::arrow::datatypes::TimestampMicrosecondType>();
            let day = types::partition_day(times.value(0));
            let mut writer = FileWriter::create(&self.table, day, &options).await.unwrap();
            writer.write(batch).await.unwrap();
            files.push(writer.close().await.unwrap());
        }
        self.table.commit_append(files, self.archive + 1, self.archive, 1).await.unwrap();
        self.archive += 1;
    }
}

/// `rows`, with a text for each row.
fn labelled(day: i64, count: usize, random: &mut StdRng, label: impl Fn(usize) -> Option<String>) -> RecordBatch {
    let batch = rows(&spec(), day, count, random);
    let mut columns = batch.columns().to_vec();
    columns[1] = Arc::new((0..count).map(label).collect::<StringViewArray>());
    RecordBatch::try_new(batch.schema(), columns).unwrap()
}

#[tokio::test]
async fn codes_answer_as_texts_do() {
    let mut random = StdRng::seed_from_u64(21);
    let mut fixture = Fixture::new().await;
    // Few labels with NULLs, one label, NULLs only, and so many that Parquet gives up its dictionary.
    let few = |i: usize| (i % 5 != 4).then(|| format!("level-{}", i % 7));
    let batches = [
        labelled(19_000, 3000, &mut random, few),
        labelled(19_001, 500, &mut random, |_| Some("level-3".into())),
        labelled(19_002, 300, &mut random, |_| None),
        labelled(19_003, 9000, &mut random, |i| Some(format!("{:0>200}-{i}", "long"))),
        labelled(19_004, 700, &mut random, |i| Some(format!("level-{}", i % 9))),
        rows(&spec(), 19_005, 400, &mut random),
    ];
    fixture.archive_large(&batches[..4], 4096).await;
    fixture.archive(&batches[4..5]).await;
    let whole = concat_batches(&spec().arrow_schema(), &batches).unwrap();
    let tail = &batches[5..];
    type Query = (&'static str, fn(LogicalPlanBuilder, fn(Option<&str>) -> Expr) -> LogicalPlanBuilder);
    let queries: [Query; 12] = [
        ("group", |t, _| t.aggregate(vec![col("level")], vec![count(lit(1i64))]).unwrap()),
        ("group, no aggregate", |t, _| t.aggregate(vec![col("level")], Vec::<Expr>::new()).unwrap()),
        ("distinct", |t, _| t.project(vec![col("level")]).unwrap().distinct().unwrap()),
        ("count distinct", |t, _| t.aggregate(Vec::<Expr>::new(), vec![count_distinct(col("level"))]).unwrap()),
        ("count distinct by day", |t, _| t.aggregate(vec![col("flag")], vec![count_distinct(col("level"))]).unwrap()),
        ("several keys", |t, _| {
            t.aggregate(vec![col("flag"), col("level"), col("n"), col("day")], vec![count(col("b")), min(col("ts"))]).unwrap()
        }),
        ("states of all kinds", |t, _| {
            // Not of floats: DataFusion's extremes depend on where a NaN comes (the analysis lets none pass).
            let calls = vec![count(lit(1i64)), count(col("n")), sum(col("n")), min(col("ts")), max(col("amount"))];
            t.aggregate(vec![col("level")], calls).unwrap()
        }),
        ("filter", |t, c| {
            t.filter(col("level").eq(c(Some("level-3")))).unwrap().aggregate(vec![col("flag")], vec![count(lit(1i64))]).unwrap()
        }),
        ("order", |t, c| {
            t.filter(col("level").gt(c(Some("level-3")))).unwrap().aggregate(vec![col("level")], vec![count(lit(1i64))]).unwrap()
        }),
        ("list with NULL", |t, c| {
            let list = vec![c(Some("level-1")), c(None), c(Some("level-5")), c(Some("nowhere"))];
            t.filter(col("level").in_list(list, false)).unwrap().aggregate(vec![col("level")], vec![count(lit(1i64))]).unwrap()
        }),
        ("not in a list", |t, c| {
            let list = (0..30).map(|i| c(Some(&format!("level-{i}")))).collect();
            t.filter(col("level").in_list(list, true)).unwrap().aggregate(vec![col("level")], vec![count(lit(1i64))]).unwrap()
        }),
        ("NULLs", |t, _| {
            t.filter(col("level").is_null()).unwrap().aggregate(vec![col("level"), col("flag")], vec![count(lit(1i64))]).unwrap()
        }),
    ];
    for (name, query) in queries {
        let memory = scan(memory_provider(whole.schema(), vec![whole.clone()]).unwrap());
        let (expected, ..) = fixture.run(query(memory, text).build().unwrap()).await.unwrap();
        let (found, _, plan) = fixture.run(query(scan(fixture.coded(tail)), code).build().unwrap()).await.unwrap();
        assert_eq!(show(&found), show(&expected), "{name}\n{plan}");
        let grouped = !name.starts_with("filter");
        assert_eq!(plan.contains("CodedAggregateExec"), grouped, "{name}\n{plan}");
    }
}

/// Files within the range are read without the column that it is about; the others and the tail are filtered row by row.
#[tokio::test]
async fn ranges_of_the_event_time_are_decided_by_files_where_they_can_be() {
    let mut random = StdRng::seed_from_u64(23);
    let mut fixture = Fixture::new().await;
    let few = |i: usize| (i % 5 != 4).then(|| format!("level-{}", i % 7));
    let batches: Vec<RecordBatch> = (0..6).map(|d| labelled(19_000 + d, 700, &mut random, few)).collect();
    fixture.archive_large(&batches[..5], 4096).await;
    let whole = concat_batches(&spec().arrow_schema(), &batches).unwrap();
    let tail = &batches[5..];
    let day = |day: i64, part: i64| {
        let us = day * DAY_US + part * DAY_US / 4;
        Expr::Literal(ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into())), None)
    };
    let first = Expr::Literal(ScalarValue::try_from_array(whole.column(0), 700).unwrap(), None);
    type Query = fn(LogicalPlanBuilder) -> LogicalPlanBuilder;
    let queries: [(&str, Query); 6] = [
        ("count", |t| t.aggregate(Vec::<Expr>::new(), vec![count(lit(1i64))]).unwrap()),
        ("group", |t| t.aggregate(vec![col("level")], vec![count(lit(1i64)), sum(col("n"))]).unwrap()),
        ("group by the time", |t| t.aggregate(vec![col("ts")], vec![count(col("level"))]).unwrap()),
        ("selective", |t| {
            t.filter(col("n").eq(lit(3))).unwrap().aggregate(vec![col("flag")], vec![count(lit(1i64))]).unwrap()
        }),
        ("rows", |t| t.project(vec![col("level"), col("n"), col("ts")]).unwrap()),
        ("top", |t| {
            let order = vec![col("ts").sort(false, false)];
            t.sort_with_limit(order, Some(9)).unwrap().project(vec![col("n"), col("flag")]).unwrap()
        }),
    ];
    // How many of the files lie within each range.
    let ranges = [
        (col("ts").gt_eq(day(19_001, 2)).and(col("ts").lt(day(19_004, 1))), 2),
        (col("ts").gt(day(19_002, 0)), 3),
        (col("ts").between(day(19_000, 0), day(19_005, 0)), 5),
        (col("ts").lt_eq(first), 1),
        (col("ts").gt_eq(day(19_005, 2)), 0),
    ];
    for (range, inside) in ranges {
        for (name, query) in queries {
            let memory = scan(memory_provider(whole.schema(), vec![whole.clone()]).unwrap());
            let within = |t: LogicalPlanBuilder| query(t.filter(range.clone()).unwrap()).build().unwrap();
            let (expected, ..) = fixture.run(within(memory)).await.unwrap();
            for provider in [fixture.provider(&all_attnums(), tail), fixture.coded(tail)] {
                let (found, stats, plan) = fixture.run(within(scan(provider))).await.unwrap();
                assert_eq!(show(&found), show(&expected), "{range} {name}\n{plan}");
                if name == "group" {
                    let without = plan.lines().filter(|l| l.contains("DataSourceExec") && !l.contains("ts")).count();
                    assert_eq!(without, usize::from(inside > 0), "{range}\n{plan}");
                }
                if name == "count" && inside > 0 {
                    assert!(stats.files <= 5 - inside, "{range}: {} files\n{plan}", stats.files);
                }
            }
        }
    }
}

/// Times that were cut come in runs; NULLs, FILTER and other keys among them.
#[tokio::test]
async fn groups_of_times_that_were_cut() {
    use datafusion::functions::expr_fn::date_trunc;
    use datafusion::logical_expr::ExprFunctionExt;
    let mut random = StdRng::seed_from_u64(24);
    let mut fixture = Fixture::new().await;
    let few = |i: usize| (i % 5 != 4).then(|| format!("level-{}", i % 7));
    let batches: Vec<RecordBatch> = (0..4).map(|d| labelled(19_000 + d, 9_000, &mut random, few)).collect();
    fixture.archive_large(&batches[..3], 4096).await;
    let whole = concat_batches(&spec().arrow_schema(), &batches).unwrap();
    let cut = |unit: &str| date_trunc(lit(unit), col("ts"));
    let some = || count(lit(1i64)).filter(col("flag")).build().unwrap();
    for (keys, calls) in [
        (vec![cut("hour")], vec![count(lit(1i64))]),
        (vec![cut("minute")], vec![count(lit(1i64)), some(), sum(col("n"))]),
        (vec![cut("hour"), col("level")], vec![count(lit(1i64)), some()]),
        (vec![cut("day"), col("n")], vec![count(col("level")), max(col("ts"))]),
    ] {
        let query = |provider| {
            scan(provider).aggregate(keys.clone(), calls.clone()).unwrap().build().unwrap()
        };
        let (expected, ..) = fixture.run(query(memory_provider(whole.schema(), vec![whole.clone()]).unwrap())).await.unwrap();
        for provider in [fixture.provider(&all_attnums(), &batches[3..]), fixture.coded(&batches[3..])] {
            let (found, _, plan) = fixture.run(query(provider)).await.unwrap();
            assert_eq!(show(&found), show(&expected), "{keys:?}\n{plan}");
        }
    }
    let query = |provider| scan(provider).aggregate(vec![cut("hour")], vec![count(lit(1i64))]).unwrap().build().unwrap();
    let (_, _, plan) = fixture.run(query(fixture.provider(&all_attnums(), &[]))).await.unwrap();
    assert!(plan.contains("CodedAggregateExec"), "{plan}");
    let query = |provider| scan(provider).aggregate(vec![col("ts")], vec![count(lit(1i64))]).unwrap().build().unwrap();
    let (_, _, plan) = fixture.run(query(fixture.provider(&all_attnums(), &[]))).await.unwrap();
    assert!(!plan.contains("CodedAggregateExec"), "{plan}");
}

/// With FILTER, on one thread, under a limit that the groups outgrow.
#[tokio::test]
async fn coded_groups_are_handed_on_when_memory_ends() {
    let mut random = StdRng::seed_from_u64(22);
    let config = EngineConfig { memory_limit_bytes: 3 << 20, ..EngineConfig::default() };
    let mut fixture = Fixture::with(config).await;
    let batches: Vec<RecordBatch> = (0..3)
        .map(|d| labelled(19_000 + d, 20_000, &mut random, |i| Some(format!("{:0>90}", i % 4000))))
        .collect();
    fixture.archive_large(&batches, 1 << 20).await;
    let whole = concat_batches(&spec().arrow_schema(), &batches).unwrap();
    let query = |provider| {
        let some = count(lit(1i64)).filter(col("flag")).build().unwrap();
        let calls = vec![count(lit(1i64)), some, sum(col("n"))];
        scan(provider).aggregate(vec![col("level"), col("day")], calls).unwrap().build().unwrap()
    };
    use datafusion::logical_expr::ExprFunctionExt;
    let (_dir, roomy) = plain_engine(EngineConfig { target_partitions: 1, ..EngineConfig::default() });
    let (expected, ..) = run(&roomy, query(memory_provider(whole.schema(), vec![whole.clone()]).unwrap())).await.unwrap();
    let (found, _, plan) = match fixture.run(query(fixture.coded(&[]))).await {
        Ok(found) => found,
        // The final stage may find no room at all under such a limit; what it may not do is answer wrongly.
        Err(EngineError::Refused(_)) => return,
        Err(e) => panic!("{e}"),
    };
    assert_eq!(show(&found), show(&expected), "{plan}");
}

#[tokio::test]
async fn columns_are_coded_where_their_values_repeat() {
    let mut random = StdRng::seed_from_u64(23);
    let mut fixture = Fixture::new().await;
    let attnums = all_attnums();
    let level = |provider: &Arc<dyn TableProvider>| provider.schema().field(1).data_type().clone();
    let few = |i: usize| Some(format!("level-{}", i % 7));
    fixture.archive_large(&[labelled(19_000, 5000, &mut random, few)], 1 << 20).await;
    let wishes = [vec![2]];
    let provider = TieredProvider::prepare(fixture.pin(), &attnums, Vec::new(), &wishes).await.unwrap();
    assert_eq!(level(&provider), coded_type());
    let provider = TieredProvider::prepare(fixture.pin(), &attnums, Vec::new(), &[]).await.unwrap();
    assert_eq!(level(&provider), DataType::Utf8View, "nobody wished for it");
    // A number is never coded, and what goes together with it then is not either.
    let provider = TieredProvider::prepare(fixture.pin(), &attnums, Vec::new(), &[vec![2, 99]]).await.unwrap();
    assert_eq!(level(&provider), DataType::Utf8View);
    let many = |i: usize| Some(format!("{i:0>40}"));
    fixture.archive_large(&[labelled(19_001, 9000, &mut random, many)], 1 << 20).await;
    let provider = TieredProvider::prepare(fixture.pin(), &attnums, Vec::new(), &wishes).await.unwrap();
    assert_eq!(level(&provider), DataType::Utf8View, "values of the largest file do not repeat");
}

#[tokio::test]
async fn a_top_n_reads_the_last_pages_only() {
    let mut random = StdRng::seed_from_u64(24);
    let mut fixture = Fixture::new().await;
    let batches: Vec<RecordBatch> = (0..6).map(|i| rows(&spec(), 19_000 + i, 2000, &mut random)).collect();
    fixture.archive_large(&batches[..5], 1000).await;
    for (tail, files, groups) in [(&batches[5..], 0, 0), (&[][..], 1, 1)] {
        let all = if tail.is_empty() { &batches[..5] } else { &batches[..] };
        let whole = concat_batches(&spec().arrow_schema(), all).unwrap();
        for (ascending, limit) in [(false, 20), (true, 20), (false, 1990), (true, 2500)] {
            let query = |provider| {
                let order = vec![col("ts").sort(ascending, !ascending), col("level").sort(true, false)];
                let named = vec![col("ts"), col("level"), col("n").alias("other")];
                scan(provider).project(named).unwrap().sort(order).unwrap().limit(0, Some(limit)).unwrap().build().unwrap()
            };
            let (expected, ..) =
                fixture.run(query(memory_provider(whole.schema(), vec![whole.clone()]).unwrap())).await.unwrap();
            let (found, stats, plan) =
                fixture.run(query(fixture.provider(&all_attnums(), tail))).await.unwrap();
            assert_eq!(show(&found), show(&expected), "{ascending} {limit}\n{plan}");
            if limit == 20 && !ascending {
                assert_eq!((stats.files, stats.row_groups), (files, groups), "{plan}");
                assert!(stats.rows <= 2000, "{stats:?}");
            } else if limit == 20 {
                assert_eq!((stats.files, stats.row_groups), (1, 1), "{plan}");
                assert!(stats.rows < 2200, "a page or two of the file, and the tail: {stats:?}");
            }
        }
    }
}

/// Behind a filter nothing is known beforehand, but the newest file comes first and the others are left out.
#[tokio::test]
async fn a_filtered_top_n_stops_early() {
    let mut random = StdRng::seed_from_u64(25);
    let mut fixture = Fixture::with(EngineConfig { target_partitions: 1, ..EngineConfig::default() }).await;
    // Filtered rows reach the sort in batches of 8192.
    let batches: Vec<RecordBatch> = (0..8).map(|i| rows(&spec(), 19_000 + i, 20_000, &mut random)).collect();
    fixture.archive_large(&batches, 1 << 20).await;
    let whole = concat_batches(&spec().arrow_schema(), &batches).unwrap();
    for ascending in [false, true] {
        let query = |provider| {
            let order = vec![col("ts").sort(ascending, !ascending)];
            let filtered = scan(provider).filter(col("n").is_not_null()).unwrap();
            filtered.sort(order).unwrap().limit(0, Some(15)).unwrap().build().unwrap()
        };
        let (expected, ..) =
            fixture.run(query(memory_provider(whole.schema(), vec![whole.clone()]).unwrap())).await.unwrap();
        let (found, stats, plan) = fixture.run(query(fixture.provider(&all_attnums(), &[]))).await.unwrap();
        assert_eq!(show(&found), show(&expected), "{plan}");
        // One in each of the two groups, and those that were opened before the first were through.
        assert!(stats.files <= 6, "{stats:?}\n{plan}");
    }
}

/// `WHERE key = ...` over months of files: bounds of random keys exclude nothing, bloom filters nearly everything.
#[tokio::test]
async fn a_cold_lookup_touches_one_row_group() {
    let mut random = StdRng::seed_from_u64(26);
    let mut fixture = Fixture::new().await;
    let key = |day: i64, i: usize| {
        let mut hash = StdRng::seed_from_u64(day as u64 * 1_000_003 + i as u64);
        format!("{:032x}", hash.random::<u128>())
    };
    let batches: Vec<RecordBatch> =
        (0..30).map(|d| labelled(19_000 + d, 600, &mut random, |i| Some(key(d, i)))).collect();
    fixture.archive_large(&batches, 200).await;
    let mut groups = 0;
    for (day, row) in [(3, 7), (17, 450), (29, 599), (0, 0)] {
        let wanted = key(day, row);
        let found = scan(fixture.provider(&all_attnums(), &[])).filter(col("level").eq(text(Some(&wanted)))).unwrap();
        let (found, stats, plan) = fixture.run(found.build().unwrap()).await.unwrap();
        assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), 1, "{plan}");
        assert!(stats.files >= 1 && stats.files <= 3, "{stats:?}");
        groups += stats.row_groups;
    }
    // 90 row groups a lookup; a filter is wrong about one in a hundred.
    assert!(groups <= 12, "{groups}");
    let absent = scan(fixture.provider(&all_attnums(), &[])).filter(col("level").eq(text(Some("nobody")))).unwrap();
    let (found, stats, _) = fixture.run(absent.build().unwrap()).await.unwrap();
    assert_eq!((found.iter().map(RecordBatch::num_rows).sum::<usize>(), stats.row_groups, stats.bytes_scanned > 0), (0, 0, false));
}

/// `groups` groups under a limit of memory: the answer is whole, and something went to disk.
async fn many_groups(groups: i64, limit: usize) -> (u64, Duration) {
    const BATCH: i64 = 8192;
    let (_dir, engine) =
        plain_engine(EngineConfig { memory_limit_bytes: limit, target_partitions: 2, ..EngineConfig::default() });
    // Each value twice, in different batches.
    let batches = usize::try_from((2 * groups + BATCH - 1) / BATCH).unwrap();
    let key = (col("v") % lit(groups)).alias("k");
    let plan = scan(numbers(batches, BATCH))
        .aggregate(vec![key], vec![count(lit(1i64)).alias("c"), sum(col("v")).alias("s")])
        .unwrap()
        .aggregate(Vec::<Expr>::new(), vec![count(lit(1i64)), sum(col("c"))])
        .unwrap();
    let clock = Instant::now();
    let mut stream = engine.execute(plan.build().unwrap(), CancellationToken::new()).await.unwrap();
    let mut answer = Vec::new();
    while let Some(batch) = stream.next().await {
        answer.push(batch.unwrap());
    }
    let took = clock.elapsed();
    assert_eq!(show(&answer), [format!("{groups}|{}", batches as i64 * BATCH)]);
    fn spilled(plan: &dyn ExecutionPlan) -> u64 {
        let own = plan.metrics().and_then(|m| m.spill_count()).unwrap_or(0) as u64;
        own + plan.children().into_iter().map(|c| spilled(c.as_ref())).sum::<u64>()
    }
    (spilled(stream.plan.as_ref()), took)
}

#[tokio::test]
async fn groups_that_outgrow_memory_go_to_disk() {
    let (spills, _) = many_groups(600_000, 24 << 20).await;
    assert!(spills > 0);
}

/// `cargo test -p gateway --lib -- --ignored --nocapture twenty_million`
#[tokio::test]
#[ignore = "takes minutes, and must run alone: it looks at the memory of its process"]
async fn twenty_million_groups_fit_a_gibibyte() {
    let (spills, took) = many_groups(20_000_000, 1 << 30).await;
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap_or_default();
    let peak_kb: u64 = peak.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a figure");
    assert!(spills > 0, "so many groups cannot have had room");
    assert!(peak_kb < (1 << 20) * 3 / 2, "{peak}: a GiB, the rows (320 MB), and little else");
    println!("20 million groups of 40 million rows: {took:?}, {spills} spills, {peak} (the rows themselves are 320 MB of it)");
}
