//! What following and pruning a table of a hundred thousand files costs. Measured, not judged: `cargo test -p lake --test snapshot --
//! --ignored --nocapture`; `WATERSHED_FILES` is the number of files.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::*;
use lake::log::{LakeFile, LakeTable, NewFile};
use lake::spec::{Column, TableSpec};
use lake::stats::{Bound, Collector, FileStats};
use lake::types::{self, ColType};
use url::Url;

fn spec() -> TableSpec {
    let names = [
        ("ts", ColType::TimestampTz),
        ("level", ColType::Text),
        ("service", ColType::Text),
        ("host", ColType::Text),
        ("message", ColType::Text),
        (types::XID, ColType::Xid8),
        (types::STREAM, ColType::Int4),
        (types::OFFSET, ColType::Int8),
    ];
    let columns = names.iter().enumerate().map(|(i, (name, ty))| Column {
        attnum: i as i16 + 1,
        name: (*name).into(),
        lake_name: (*name).into(),
        type_oid: ty.type_oid(),
        typmod: -1,
        collation: 0,
        not_null: false,
        ty: *ty,
    });
    TableSpec {
        relid: 1,
        schema: "public".into(),
        name: "logs".into(),
        event_time: 1,
        columns: columns.collect(),
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

/// File `n`, which exists in the log only: six minutes of logs.
fn file(table: &LakeTable, n: i64) -> NewFile {
    let first = 1_700_006_400_000_000 + n * 360_000_000;
    let text = |a: String, b: String| Arc::new(StringViewArray::from(vec![a, b])) as ArrayRef;
    let batch = RecordBatch::try_new(
        table.spec().arrow_schema(),
        vec![
            Arc::new(TimestampMicrosecondArray::from(vec![first, first + 359_000_000]).with_timezone("UTC")),
            text("DEBUG".into(), "WARN".into()),
            text("auth".into(), "web".into()),
            text(format!("host-{}", n % 50), format!("host-{}", 50 + n % 50)),
            text(format!("Connection {n} was closed by peer"), format!("user {n} signed in from a new address")),
            Arc::new(Int64Array::from(vec![1000 + n, 1001 + n])),
            Arc::new(Int32Array::from(vec![1, 1])),
            Arc::new(Int64Array::from(vec![n * 1000, n * 1000 + 999])),
        ],
    )
    .unwrap();
    let mut collector = Collector::new(table.spec().columns.iter().map(|c| (c.lake_name.as_str(), c.ty)));
    collector.add(&batch).unwrap();
    let (stats, delta_stats) = collector.finish().unwrap();
    let day = types::partition_day(first);
    let path = format!("{}={}/part-{n:032x}.zstd.parquet", types::DAY, types::day_text(day));
    let location = table.prefix().parts().chain(object_store::path::Path::from(path.as_str()).parts()).collect();
    let modification_ms = chrono::Utc::now().timestamp_millis();
    let (rows, size) = (stats.rows, 1 << 20);
    NewFile { file: LakeFile { path, location, size, rows, day, modification_ms, sorted: true, stats }, delta_stats }
}

fn show(what: &str, milliseconds: f64) {
    println!("{what:<60} {milliseconds:>10.3} ms");
}

fn since(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1000.0
}

/// The median of some runs.
fn shown(what: &str, times: usize, mut work: impl FnMut()) {
    let mut all: Vec<f64> = (0..times)
        .map(|_| {
            let began = Instant::now();
            work();
            since(began)
        })
        .collect();
    all.sort_by(f64::total_cmp);
    show(what, all[times / 2]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn a_hundred_thousand_files() {
    const PIECE: i64 = 5000;
    let files: i64 = std::env::var("WATERSHED_FILES").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let dir = tempfile::tempdir().unwrap();
    let root = Url::from_directory_path(dir.path()).unwrap();
    let spec = spec();
    let mut table = LakeTable::open_or_create(&root, &spec).await.unwrap();
    for archive in 1..=files / PIECE {
        let new = (0..PIECE).map(|i| file(&table, (archive - 1) * PIECE + i)).collect();
        table.commit_append(new, archive, archive - 1, 1).await.unwrap();
    }
    let began = Instant::now();
    assert!(table.checkpoint_if_due(1).await.unwrap());
    show("a checkpoint is written", since(began));
    let mut opens = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        let opened = LakeTable::open(&root, &spec).await.unwrap().unwrap();
        opens.push(since(began));
        assert_eq!(opened.current().files, table.current().files);
    }
    opens.sort_by(f64::total_cmp);
    show(&format!("opened with {files} files"), opens[2]);

    let mut reader = LakeTable::open(&root, &spec).await.unwrap().unwrap();
    let mut follows = Vec::new();
    for i in 0..21 {
        let (new, before) = (vec![file(&table, files + i)], table.current().archive);
        table.commit_append(new, before + 1, before, 1).await.unwrap();
        let began = Instant::now();
        reader.refresh().await.unwrap();
        follows.push(since(began));
    }
    follows.sort_by(f64::total_cmp);
    show("a version with one more file is followed", follows[10]);
    let began = Instant::now();
    for _ in 0..1000 {
        reader.refresh().await.unwrap();
    }
    show("a look that finds nothing new", since(began) / 1000.0);

    let version = reader.current();
    shown("a version is held", 1001, || drop(std::hint::black_box(version.files.clone())));
    let began = Instant::now();
    assert_eq!(version.files.summary().rows, version.rows);
    show("exact statistics of all columns, the first time", since(began));
    shown("exact statistics of all columns, again", 101, || drop(version.files.summary()));
    let low = 1_700_006_400_000_000 + files / 2 * 360_000_000;
    let (low, high) = (low, low + 3_600_000_000 - 1);
    assert_eq!(version.files.between(low, high).len(), 10);
    shown("the files of one hour, by event time", 101, || drop(version.files.between(low, high)));
    let may = |stats: &FileStats, column: &str, low: &Bound, high: &Bound| {
        stats.columns.get(column).is_some_and(|c| {
            c.min.as_ref().is_none_or(|b| b <= high) && c.max.as_ref().is_none_or(|b| b >= low)
        })
    };
    let (from, to) = (Bound::Int(low), Bound::Int(high));
    assert_eq!(version.files.prune(|s| may(s, "ts", &from, &to)).len(), 10);
    shown("the same by the statistics of parts and files", 101, || {
        drop(version.files.prune(|s| may(s, "ts", &from, &to)));
    });
    let host = Bound::Text("host-99".into());
    shown("a condition that does not follow the time: every file asked", 21, || {
        drop(version.files.prune(|s| may(s, "host", &host, &host)));
    });
}
