//! Rows a second and peak memory of a rewrite, beside DuckDB's rewrite of the same files. Measured, not judged: `scripts/measure-compact.sh`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arrow::array::*;
use lake::log::LakeTable;
use lake::spec::{Column, TableSpec};
use lake::types::{self, ColType};
use lake::writer::{FileWriter, WriterOptions};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::plan::{Policy, plan};
use crate::rewrite::{Resources, rewrite};

fn asked(name: &str, otherwise: i64) -> i64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(otherwise)
}

fn spec() -> TableSpec {
    let names = [
        ("ts", ColType::TimestampTz),
        ("level", ColType::Text),
        ("service", ColType::Text),
        ("host", ColType::Text),
        ("message", ColType::Text),
        ("metadata", ColType::Jsonb),
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

/// `n` rows of file `f` out of `files`, which share the day evenly and overlap their neighbours.
fn rows(spec: &TableSpec, f: i64, files: i64, n: i64) -> RecordBatch {
    let step = types::DAY_MICROS / (files + 1) * 2 / n.max(1);
    let mixed = |i: i64| ((f * n + i) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let text = |make: &dyn Fn(u64) -> String| Arc::new(StringViewArray::from_iter_values((0..n).map(|i| make(mixed(i))))) as ArrayRef;
    RecordBatch::try_new(
        spec.arrow_schema(),
        vec![
            Arc::new(
                TimestampMicrosecondArray::from_iter_values(
                    (0..n).map(|i| f * (types::DAY_MICROS / (files + 1)) + i * step),
                )
                .with_timezone("UTC"),
            ),
            text(&|r| ["DEBUG", "INFO", "WARN", "ERROR"][(r % 10).min(3) as usize].into()),
            text(&|r| format!("service-{}", r % 12)),
            text(&|r| format!("host-{:03}", r % 200)),
            text(&|r| format!("request {} took {} ms for user {}", r % 1_000_003, r % 977, r % 50_021)),
            text(&|r| format!("{{\"trace\": \"{:016x}\", \"status\": {}}}", r, 200 + r % 5)),
            Arc::new(Int64Array::from_iter_values((0..n).map(|i| 1000 + f + i / 1000))),
            Arc::new(Int32Array::from_iter_values((0..n).map(|i| (i % 4) as i32))),
            Arc::new(Int64Array::from_iter_values((0..n).map(|i| f * n + i))),
        ],
    )
    .unwrap()
}

/// The greatest memory of this process so far, in MiB; 0 where the system does not tell.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn rows_a_second() {
    let (total, files) = (asked("WATERSHED_ROWS", 2_000_000), asked("WATERSHED_FILES", 200));
    let kept = std::env::var_os("WATERSHED_MEASURE_DIR").map(std::path::PathBuf::from);
    let temporary = tempfile::tempdir().unwrap();
    let dir = kept.as_deref().unwrap_or(temporary.path());
    let root = Url::from_directory_path(dir).unwrap();
    let mut table = LakeTable::open_or_create(&root, &spec()).await.unwrap();
    let mut new = Vec::new();
    for f in 0..files {
        let mut writer = FileWriter::create(&table, 0, &WriterOptions::default()).await.unwrap();
        writer.write(&rows(table.spec(), f, files, total / files)).await.unwrap();
        new.push(writer.close().await.unwrap());
    }
    table.commit_append(new, 1, 0, 1).await.unwrap();
    let before = peak();
    let jobs = plan(&table.current(), "ts", &Policy::new(256 << 20).eagerly(), 0).jobs;
    assert_eq!(jobs.len(), 1);
    let resources = Resources::new(512 << 20, None, 1).unwrap();
    let seen = AtomicU64::new(0);
    let began = Instant::now();
    let written = rewrite(&table.place(), &jobs[0], &resources, &WriterOptions::default(), &CancellationToken::new(), &|n| {
        seen.fetch_add(n, Ordering::Relaxed);
    })
    .await
    .unwrap();
    let seconds = began.elapsed().as_secs_f64();
    let (rows, bytes) = (jobs[0].rows(), written.iter().map(|f| f.file.size).sum::<u64>());
    println!(
        "watershed: {rows} rows of {files} files ({} MiB) to {} ({} MiB), compared row by row, in {seconds:.2} s: {:.0} rows/s, peak {} MiB ({before} before)",
        jobs[0].bytes() >> 20,
        written.len(),
        bytes >> 20,
        rows as f64 / seconds,
        peak(),
    );
    // The old files stay for whoever rewrites them next.
    crate::rewrite::discard(&table.store(), &written).await;
}
