use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::*;
use futures::TryStreamExt;
use lake::log::{CommitOutcome, LakeTable, LakeVersion};
use lake::spec::{Column as SpecColumn, TableSpec};
use lake::types::{self, ColType};
use rand_like::Lcg;
use url::Url;

use super::*;
use crate::plan::{Policy, plan};

/// A small seeded generator: tests must not differ from run to run.
mod rand_like {
    pub(super) struct Lcg(pub u64);

    impl Lcg {
        pub(super) fn below(&mut self, n: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % n
        }
    }
}

fn column(attnum: i16, name: &str, ty: ColType) -> SpecColumn {
    SpecColumn {
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

fn spec(event: ColType) -> TableSpec {
    TableSpec {
        relid: 1,
        schema: "public".into(),
        name: "logs".into(),
        event_time: 2,
        columns: vec![
            column(1, "level", ColType::Text),
            column(2, "ts", event),
            column(3, "amount", ColType::Numeric { precision: 20, scale: 2 }),
            column(4, "f", ColType::Float8),
            column(5, "raw", ColType::Bytea),
            column(6, "ok", ColType::Bool),
            column(7, "id", ColType::Uuid),
            column(8, types::XID, ColType::Xid8),
            column(9, types::STREAM, ColType::Int4),
            column(10, types::OFFSET, ColType::Int8),
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

/// `n` rows of day 0 with random times, sorted; `base` makes their offsets unique.
fn rows(spec: &TableSpec, random: &mut Lcg, base: i64, n: usize) -> RecordBatch {
    let mut times: Vec<i64> = (0..n).map(|_| random.below(86_400_000_000) as i64).collect();
    times.sort_unstable();
    let mut pick = || random.below(1000) as i64;
    let event: ArrayRef = match spec.column(2).unwrap().ty {
        ColType::Date => Arc::new(Date32Array::from(vec![0; n])),
        ColType::Timestamp => Arc::new(TimestampMicrosecondArray::from(times)),
        _ => Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")),
    };
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(StringViewArray::from_iter((0..n).map(|_| match pick() {
            0..100 => None,
            i if i % 2 == 0 => Some(format!("level {i}, which is longer than what a view holds inline")),
            i => Some(format!("l{i}")),
        }))),
        event,
        Arc::new(
            Decimal128Array::from_iter_values((0..n).map(|_| i128::from(pick()) * 100_000_000_000_007))
                .with_precision_and_scale(20, 2)
                .unwrap(),
        ),
        Arc::new(Float64Array::from_iter((0..n).map(|_| match pick() {
            0..50 => None,
            50..100 => Some(f64::NAN),
            100..150 => Some(-0.0),
            i => Some(i as f64 / 3.0),
        }))),
        Arc::new(BinaryViewArray::from_iter(
            (0..n).map(|_| (pick() > 10).then(|| vec![7u8; pick() as usize % 40])),
        )),
        Arc::new(BooleanArray::from_iter((0..n).map(|_| match pick() {
            0..300 => None,
            i => Some(i > 600),
        }))),
        Arc::new(StringViewArray::from_iter_values((0..n).map(|_| format!("{:036}", pick())))),
        Arc::new(Int64Array::from_iter_values((0..n).map(|_| 700 + pick() % 3))),
        Arc::new(Int32Array::from_iter_values((0..n).map(|_| 1))),
        Arc::new(Int64Array::from_iter_values(base..base + n as i64)),
    ];
    for c in &spec.columns[columns.len()..] {
        columns.push(new_null_array(&c.ty.arrow(), n));
    }
    RecordBatch::try_new(spec.arrow_schema(), columns).unwrap()
}

struct Lake {
    _dir: tempfile::TempDir,
    root: Url,
    table: LakeTable,
    random: Lcg,
    archive: i64,
    base: i64,
}

impl Lake {
    async fn new(spec: &TableSpec) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Url::from_directory_path(dir.path()).unwrap();
        let table = LakeTable::open_or_create(&root, spec).await.unwrap();
        Self { _dir: dir, root, table, random: Lcg(42), archive: 0, base: 0 }
    }

    async fn append(&mut self, n: usize) -> RecordBatch {
        let batch = rows(self.table.spec(), &mut self.random, self.base, n);
        let mut w = FileWriter::create(&self.table, 0, &WriterOptions::default()).await.unwrap();
        w.write(&batch).await.unwrap();
        let file = w.close().await.unwrap();
        self.table.commit_append(vec![file], self.archive + 1, self.archive, 1).await.unwrap();
        self.archive += 1;
        self.base += n as i64;
        batch
    }

    async fn checksum(&self, version: &LakeVersion) -> Checksum {
        let source =
            Source { store: self.table.store(), schema: self.table.spec().arrow_schema(), batch_rows: 1000 };
        let mut sum = Checksum::default();
        for batch in source.files(version.files.iter().cloned().collect()).try_collect::<Vec<_>>().await.unwrap() {
            sum.add_batch(&batch).unwrap();
        }
        sum
    }

    fn job(&self) -> Job {
        let jobs = plan(&self.table.current(), "ts", &Policy::new(64 << 20).eagerly(), 0).jobs;
        assert_eq!(jobs.len(), 1);
        jobs.into_iter().next().unwrap()
    }

    async fn data_files(&self) -> usize {
        let all: Vec<_> = self.table.store().list(Some(self.table.prefix())).try_collect().await.unwrap();
        all.iter().filter(|m| m.location.extension() == Some("parquet")).count()
    }
}

fn memory(bytes: usize) -> Resources {
    Resources::new(bytes, None, 1).unwrap()
}

async fn rewritten(lake: &mut Lake, resources: &Resources, outputs: usize) {
    let before = lake.table.current();
    let sum = lake.checksum(&before).await;
    let mut job = lake.job();
    job.outputs = outputs;
    let seen = AtomicU64::new(0);
    let files =
        rewrite(&lake.table.place(), &job, resources, &WriterOptions::default(), &CancellationToken::new(), &|n| {
            seen.fetch_add(n, Ordering::Relaxed);
        })
        .await
        .unwrap();
    assert_eq!(files.len(), outputs);
    assert_eq!(seen.load(Ordering::Relaxed), before.rows);
    let CommitOutcome::Done(after) = lake.table.commit_rewrite(&job.files, files, 1).await.unwrap() else {
        panic!("lost");
    };
    assert_eq!((after.rows, after.files.len(), after.archive), (before.rows, outputs, before.archive));
    assert_eq!(lake.checksum(&after).await, sum);
    assert!(after.files.iter().all(|f| f.sorted));
    for (a, b) in after.files.iter().zip(after.files.iter().skip(1)) {
        assert!(a.range("ts").1 <= b.range("ts").0);
    }
    assert_eq!(plan(&after, "ts", &Policy::new(1).fully(), 0).jobs, []);
}

#[tokio::test]
async fn files_are_merged() {
    for event in [ColType::TimestampTz, ColType::Timestamp, ColType::Date] {
        let mut lake = Lake::new(&spec(event)).await;
        for n in [1000, 1, 5000, 300] {
            lake.append(n).await;
        }
        rewritten(&mut lake, &memory(256 << 20), 1).await;
    }
}

#[tokio::test]
async fn outputs_are_cut_by_rows() {
    let mut lake = Lake::new(&spec(ColType::TimestampTz)).await;
    for _ in 0..5 {
        lake.append(3001).await;
    }
    rewritten(&mut lake, &memory(256 << 20), 4).await;
}

/// More files than their buffers would fit: sorted, with what little memory there is, so it spills.
#[tokio::test]
async fn rows_are_sorted_where_merging_would_take_too_much() {
    let mut lake = Lake::new(&spec(ColType::TimestampTz)).await;
    for _ in 0..20 {
        lake.append(40_000).await;
    }
    let resources = memory(0);
    assert!(reading_bytes(&chains(&lake.job().files, "ts")) > resources.merge_bytes);
    rewritten(&mut lake, &resources, 2).await;
    assert!(resources.runtime.disk_manager.used_disk_space() == 0);
}

#[tokio::test]
async fn a_file_written_before_a_column_was_added() {
    let mut lake = Lake::new(&spec(ColType::TimestampTz)).await;
    lake.append(100).await;
    let mut wider = spec(ColType::TimestampTz);
    wider.columns.push(column(11, "seen", ColType::TimestampTz));
    lake.table.ensure_schema(&wider).await.unwrap();
    lake.append(100).await;
    // Who still has the old columns must not rewrite: the new one would be lost.
    let old = LakeTable::open(&lake.root, &spec(ColType::TimestampTz)).await.unwrap().unwrap();
    let job = lake.job();
    let outcome = rewrite(
        &old.place(),
        &job,
        &memory(256 << 20),
        &WriterOptions::default(),
        &CancellationToken::new(),
        &|_| {},
    )
    .await;
    assert!(matches!(outcome, Err(Error::File { .. })), "{outcome:?}");
    assert_eq!(lake.data_files().await, 2);
    rewritten(&mut lake, &memory(256 << 20), 1).await;
}

#[tokio::test]
async fn what_is_given_up_leaves_nothing() {
    let mut lake = Lake::new(&spec(ColType::TimestampTz)).await;
    lake.append(20_000).await;
    lake.append(20_000).await;
    let mut job = lake.job();
    job.outputs = 4;
    let stop = CancellationToken::new();
    let outcome =
        rewrite(&lake.table.place(), &job, &memory(256 << 20), &WriterOptions::default(), &stop, &|_| stop.cancel())
            .await;
    assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
    assert_eq!(lake.data_files().await, 2);

    // A file whose log entry lies about its rows.
    let mut lying = (*job.files[0]).clone();
    lying.rows += 1;
    job.files[0] = Arc::new(lying);
    let outcome = rewrite(
        &lake.table.place(),
        &job,
        &memory(256 << 20),
        &WriterOptions::default(),
        &CancellationToken::new(),
        &|_| {},
    )
    .await;
    assert!(matches!(outcome, Err(Error::File { .. })), "{outcome:?}");
    assert_eq!(lake.data_files().await, 2);
}

/// Reads files back as a rewrite does.
async fn verify(
    table: &LakeTable,
    job: &Job,
    written: &[NewFile],
    read: &Checksum,
    stop: &CancellationToken,
) -> Result<()> {
    let mut checks = Checks::default();
    for file in written {
        checks.start(&table.place(), file);
    }
    compare(&table.place(), job, read, &checks.all(&table.place(), job, stop).await?)
}

/// What would have been committed if a row had changed on the way.
#[tokio::test]
async fn changed_rows_are_noticed() {
    let mut lake = Lake::new(&spec(ColType::TimestampTz)).await;
    lake.append(500).await;
    lake.append(500).await;
    let job = lake.job();
    let stop = CancellationToken::new();
    let mut written = Vec::new();
    let place = lake.table.place();
    let mut checks = Checks::default();
    let (resources, options) = (memory(256 << 20), WriterOptions::default());
    let read = write(&place, &job, &resources, &options, &stop, &|_| {}, &mut written, &mut checks).await.unwrap();
    verify(&lake.table, &job, &written, &read, &stop).await.unwrap();
    for wrong in [
        Checksum { rows: read.rows + 1, ..read },
        Checksum { sum: read.sum ^ 1, ..read },
        Checksum { xor: read.xor ^ 1, ..read },
    ] {
        let outcome = verify(&lake.table, &job, &written, &wrong, &stop).await;
        assert!(matches!(outcome, Err(Error::Rows { .. })), "{outcome:?}");
    }
    // Another file in the place of what was written.
    let other = rows(lake.table.spec(), &mut Lcg(7), 0, 1000);
    let mut w = FileWriter::create(&lake.table, 0, &WriterOptions::default()).await.unwrap();
    w.write(&other).await.unwrap();
    let outcome = verify(&lake.table, &job, &[w.close().await.unwrap()], &read, &stop).await;
    assert!(matches!(outcome, Err(Error::Rows { .. })), "{outcome:?}");
}

#[test]
fn chains_are_few_and_ascend() {
    let file = |first, last| {
        use lake::stats::{Bound, ColumnStats, FileStats};
        let bounds =
            ColumnStats { nulls: 0, min: Some(Bound::Int(first)), max: Some(Bound::Int(last)), exact: true, distinct: None, plain: false };
        Arc::new(LakeFile {
            path: format!("{first}-{last}"),
            location: Default::default(),
            size: 1,
            rows: 1,
            day: 0,
            modification_ms: 0,
            sorted: true,
            stats: FileStats { rows: 1, columns: [("ts".to_owned(), bounds)].into_iter().collect() },
        })
    };
    let files = [file(0, 5), file(5, 9), file(3, 4), file(9, 9), file(4, 20), file(21, 30)];
    let found = chains(&files, "ts");
    assert_eq!(found.len(), 2);
    for chain in &found {
        assert!(chain.windows(2).all(|w| w[0].range("ts").1 <= w[1].range("ts").0));
    }
    assert_eq!(found.iter().map(Vec::len).sum::<usize>(), 6);
}
