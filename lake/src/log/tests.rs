use arrow::array::*;
use arrow::record_batch::RecordBatch;
use object_store::ObjectStoreExt;

use crate::fault::{Fault, Faulty};
use super::*;
use crate::spec::Column;
use crate::stats::Bound;
use crate::types::{self, ColType};
use crate::writer::{FileWriter, WriterOptions};

pub(crate) fn column(attnum: i16, name: &str, ty: ColType) -> Column {
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

pub(crate) fn spec() -> TableSpec {
    TableSpec {
        relid: 1,
        schema: "public".into(),
        name: "logs".into(),
        event_time: 1,
        columns: vec![
            column(1, "ts", ColType::TimestampTz),
            column(2, "level", ColType::Text),
            column(3, "amount", ColType::Numeric { precision: 20, scale: 2 }),
            column(4, types::XID, ColType::Xid8),
            column(5, types::STREAM, ColType::Int4),
            column(6, types::OFFSET, ColType::Int8),
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

fn rows(spec: &TableSpec, from: i64, n: i64) -> RecordBatch {
    let values = || from..from + n;
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from_iter_values(values()).with_timezone("UTC")),
        Arc::new(StringViewArray::from_iter(values().map(|i| (i % 3 != 0).then(|| format!("level {i}"))))),
        Arc::new(
            Decimal128Array::from_iter_values(values().map(|i| i128::from(i) * 100_000_000_000_007))
                .with_precision_and_scale(20, 2)
                .unwrap(),
        ),
        Arc::new(Int64Array::from_iter_values(values().map(|_| 700))),
        Arc::new(Int32Array::from_iter_values(values().map(|_| 1))),
        Arc::new(Int64Array::from_iter_values(values())),
    ];
    for c in &spec.columns[columns.len()..] {
        columns.push(new_null_array(&c.ty.arrow(), n as usize));
    }
    RecordBatch::try_new(spec.arrow_schema(), columns).unwrap()
}

async fn file(table: &LakeTable, from: i64, n: i64) -> NewFile {
    let mut w =
        FileWriter::create(table, types::partition_day(from), &WriterOptions::default()).await.unwrap();
    w.write(&rows(table.spec(), from, n)).await.unwrap();
    w.close().await.unwrap()
}

fn root() -> (tempfile::TempDir, Url) {
    let dir = tempfile::tempdir().unwrap();
    let url = Url::from_directory_path(dir.path()).unwrap();
    (dir, url)
}

#[tokio::test]
async fn a_table_from_nothing() {
    let (_dir, root) = root();
    assert!(LakeTable::open(&root, &spec()).await.unwrap().is_none());
    let table = LakeTable::open_or_create(&root, &spec()).await.unwrap();
    let v = table.current();
    assert_eq!((v.version, v.archive, v.rows, v.files.len()), (0, 0, 0, 0));
    let again = LakeTable::open_or_create(&root, &spec()).await.unwrap();
    assert_eq!(again.current().version, 0);
}

#[tokio::test]
async fn appends_are_followed_and_loaded_alike() {
    let (_dir, root) = root();
    let mut writer = LakeTable::open_or_create(&root, &spec()).await.unwrap();
    let mut reader = LakeTable::open(&root, &spec()).await.unwrap().unwrap();
    let f1 = file(&writer, 1_700_000_000_000_000, 10).await;
    let v = writer.commit_append(vec![f1], 3, 0, 1).await.unwrap();
    assert_eq!((v.version, v.archive, v.rows), (1, 3, 10));
    let f2 = file(&writer, 0, 5).await;
    let f3 = file(&writer, 1_700_000_000_000_100, 7).await;
    let v = writer.commit_append(vec![f3, f2], 4, 3, 1).await.unwrap();
    assert_eq!((v.version, v.archive, v.rows, v.files.len()), (2, 4, 22, 3));
    assert!(v.files.iter().zip(v.files.iter().skip(1)).all(|(a, b)| a.day <= b.day));

    let followed = reader.refresh().await.unwrap();
    let loaded = LakeTable::open(&root, &spec()).await.unwrap().unwrap();
    assert_eq!(followed.files, v.files);
    assert_eq!(loaded.current().files, v.files);
    assert_eq!(loaded.current().archive, 4);
    assert_eq!(loaded.fence(APP_ARCHIVER_FENCE), 1);

    let first = &v.files[0];
    assert!(first.sorted);
    assert_eq!(first.column("ts").unwrap().min, Some(Bound::Int(0)));
    assert_eq!(first.column("amount").unwrap().max, Some(Bound::Decimal(4 * 100_000_000_000_007)));
    assert_eq!(first.column("level").unwrap().nulls, 2);
    assert!(first.column("absent").is_none());
    assert!(loaded.store().head(&first.location).await.is_ok());
}

#[tokio::test]
async fn a_checkpoint_keeps_everything() {
    let (_dir, root) = root();
    let mut table = LakeTable::open_or_create(&root, &spec()).await.unwrap();
    for i in 1..=5 {
        let f = file(&table, i * types::DAY_MICROS, 3).await;
        table.commit_append(vec![f], i, i - 1, i).await.unwrap();
        assert_eq!(table.checkpoint_if_due(5).await.unwrap(), i == 5);
    }
    assert!(!table.checkpoint_if_due(5).await.unwrap());
    let before = table.current();
    // Without the entries, only the checkpoint can tell.
    let log = table.store();
    for v in 0..5 {
        let path: Path =
            table.prefix().parts().chain(Path::from(format!("_delta_log/{v:020}.json")).parts()).collect();
        log.delete(&path).await.unwrap();
    }
    let loaded = LakeTable::open(&root, &spec()).await.unwrap().unwrap();
    assert_eq!(loaded.current().files, before.files);
    assert_eq!((loaded.current().version, loaded.current().archive), (5, 5));
    assert_eq!(loaded.fence(APP_ARCHIVER_FENCE), 5);
}

#[tokio::test]
async fn the_log_is_as_long_as_its_last_week() {
    let (dir, root) = root();
    let mut table = LakeTable::open_or_create(&root, &spec()).await.unwrap();
    let log = dir.path().join("public.logs/_delta_log");
    let entries = || std::fs::read_dir(&log).unwrap().flatten().filter(|e| e.path().extension().is_some_and(|x| x == "json")).count();
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(8 * 24 * 3600);
    for i in 1..=9 {
        let f = file(&table, i * types::DAY_MICROS, 3).await;
        table.commit_archive(vec![f], i, i - 1, i, &[end(4, i * 10, "{}")]).await.unwrap();
        if i == 5 {
            assert!(table.checkpoint_if_due(1).await.unwrap());
            assert_eq!(entries(), 6);
            for e in std::fs::read_dir(&log).unwrap().flatten() {
                std::fs::File::options().write(true).open(e.path()).unwrap().set_modified(old).unwrap();
            }
        }
    }
    let mut behind = LakeTable::open(&root, &spec()).await.unwrap().unwrap();
    // The entries of the last week stay, and the checkpoint that they follow.
    assert!(table.checkpoint_if_due(1).await.unwrap());
    assert!((5..=6).contains(&entries()), "{}", entries());
    let loaded = LakeTable::open(&root, &spec()).await.unwrap().unwrap();
    assert_eq!(loaded.current().files, table.current().files);
    assert_eq!((loaded.current().archive, loaded.streams()), (9, vec![end(4, 90, "{}")]));
    assert_eq!(behind.refresh().await.unwrap().archive, 9);
}

#[tokio::test]
async fn archives_and_fences_are_compared() {
    let (_dir, root) = root();
    let mut a = LakeTable::open_or_create(&root, &spec()).await.unwrap();
    let mut b = LakeTable::open(&root, &spec()).await.unwrap().unwrap();
    let (fa, fb) = (file(&a, 0, 3).await, file(&b, 0, 3).await);
    b.commit_append(vec![fb.clone()], 2, 0, 8).await.unwrap();
    let e = a.commit_append(vec![fa.clone()], 1, 0, 7).await.unwrap_err();
    assert!(matches!(e, Error::Fenced { ours: 7, theirs: 8, .. }), "{e}");
    let e = a.commit_append(vec![fa.clone()], 3, 0, 9).await.unwrap_err();
    assert!(matches!(e, Error::UnexpectedArchive { expected: 0, found: 2, .. }), "{e}");
    // The same commit again is done already.
    let v = b.commit_append(vec![fb], 2, 0, 8).await.unwrap();
    assert_eq!((v.version, v.rows), (1, 3));
    a.commit_append(vec![fa], 3, 2, 9).await.unwrap();
    assert_eq!(a.current().rows, 6);
}

fn end(id: i32, next_offset: i64, about: &str) -> StreamEnd {
    StreamEnd { id, next_offset, about: about.into() }
}

#[tokio::test]
async fn end_offsets_survive_rewrites_checkpoints_and_new_columns() {
    let (_dir, root) = root();
    let mut table = LakeTable::open_or_create(&root, &spec()).await.unwrap();
    assert!(table.streams().is_empty());
    let f = file(&table, 0, 3).await;
    let first = [end(1, 7, "{\"kind\": \"loads\"}"), end(12, 1 << 40, "{\"topic\": \"a \\\"b\\\"\"}")];
    table.commit_archive(vec![f], 1, 0, 1, &first).await.unwrap();
    assert_eq!(table.streams(), first);
    let f = file(&table, 10, 3).await;
    let second = [end(1, 9, "{\"kind\": \"loads\"}"), end(12, 1 << 40, "{\"ended\": true}"), end(13, 0, "")];
    table.commit_archive(vec![f], 2, 1, 1, &second).await.unwrap();
    assert_eq!(table.streams(), second);
    // A rewrite, a new column and a lower position change none of it.
    let mut wider = spec();
    wider.columns.push(column(7, "seen", ColType::Timestamp));
    table.ensure_schema(&wider).await.unwrap();
    let old = table.current();
    let mut w = FileWriter::create(&table, 0, &WriterOptions::default()).await.unwrap();
    w.write(&rows(&wider, 0, 6)).await.unwrap();
    let merged = w.close().await.unwrap();
    table.commit_rewrite(&old.files, vec![merged], 1).await.unwrap();
    table.commit_archive(Vec::new(), 3, 2, 1, &[end(1, 8, "{\"kind\": \"loads\"}")]).await.unwrap();
    assert_eq!(table.streams(), second);
    assert_eq!(LakeTable::open(&root, &wider).await.unwrap().unwrap().streams(), second);
    // Nor does a checkpoint, without the entries that it holds, and with entries after it.
    assert!(table.checkpoint_if_due(1).await.unwrap());
    let last = table.current().version;
    for v in 0..last {
        let path: Path =
            table.prefix().parts().chain(Path::from(format!("_delta_log/{v:020}.json")).parts()).collect();
        table.store().delete(&path).await.unwrap();
    }
    let mut loaded = LakeTable::open(&root, &wider).await.unwrap().unwrap();
    assert_eq!((loaded.streams(), loaded.current().archive), (second.to_vec(), 3));
    loaded.commit_archive(Vec::new(), 4, 3, 2, &[end(13, 5, "")]).await.unwrap();
    let again = LakeTable::open(&root, &wider).await.unwrap().unwrap();
    assert_eq!((again.streams()[2].next_offset, again.fence(APP_ARCHIVER_FENCE)), (5, 2));
}

#[tokio::test]
async fn raised_fences_keep_old_leaders_out() {
    let (_dir, root) = root();
    let mut old = LakeTable::open_or_create(&root, &spec()).await.unwrap();
    let mut new = LakeTable::open(&root, &spec()).await.unwrap().unwrap();
    let f = file(&old, 0, 3).await;
    new.commit_fences(1 << 32, 1 << 33).await.unwrap();
    assert_eq!(new.commit_fences(1 << 32, 1 << 33).await.unwrap().version, 1);
    assert!(matches!(old.commit_append(vec![f], 1, 0, 5).await, Err(Error::Fenced { .. })));
    assert!(matches!(old.commit_rewrite(&[], Vec::new(), 5).await, Err(Error::Fenced { .. })));
    assert!(matches!(old.commit_fences(1 << 31, 1 << 34).await, Err(Error::Fenced { .. })));
    // A commit without files is told from another's by its fence.
    new.commit_archive(Vec::new(), 1, 0, 1 << 32, &[]).await.unwrap();
    assert!(new.commit_archive(Vec::new(), 1, 0, 1 << 32, &[]).await.is_ok());
    assert!(matches!(
        new.commit_archive(Vec::new(), 1, 0, (1 << 32) + 1, &[]).await,
        Err(Error::UnexpectedArchive { .. })
    ));
}

#[tokio::test]
async fn a_rewrite_keeps_the_rows_and_the_archive() {
    let (_dir, root) = root();
    let mut table = LakeTable::open_or_create(&root, &spec()).await.unwrap();
    for i in 1..=2 {
        let f = file(&table, i * 100, 10).await;
        table.commit_append(vec![f], i, i - 1, 1).await.unwrap();
    }
    let mut other = LakeTable::open(&root, &spec()).await.unwrap().unwrap();
    let old = table.current();
    let mut w = FileWriter::create(&table, 0, &WriterOptions::default()).await.unwrap();
    w.write(&rows(&spec(), 100, 10)).await.unwrap();
    w.write(&rows(&spec(), 200, 10)).await.unwrap();
    let merged = w.close().await.unwrap();
    // An append in between is no obstacle.
    let f = file(&other, 300, 4).await;
    other.commit_append(vec![f], 3, 2, 1).await.unwrap();
    let CommitOutcome::Done(v) = table.commit_rewrite(&old.files, vec![merged.clone()], 1).await.unwrap()
    else {
        panic!("lost");
    };
    assert_eq!((v.rows, v.files.len(), v.archive), (24, 2, 3));
    assert_eq!(other.refresh().await.unwrap().files, v.files);
    assert_eq!(LakeTable::open(&root, &spec()).await.unwrap().unwrap().current().files, v.files);
    // Again the same commit: done. Another one over the same files: lost.
    assert!(matches!(
        table.commit_rewrite(&old.files, vec![merged], 1).await.unwrap(),
        CommitOutcome::Done(_)
    ));
    let again = file(&other, 100, 20).await;
    assert!(matches!(other.commit_rewrite(&old.files, vec![again], 1).await.unwrap(), CommitOutcome::Lost));
    // Rows may not be lost on the way.
    let fewer = file(&other, 100, 3).await;
    assert!(other.commit_rewrite(&v.files, vec![fewer], 1).await.is_err());
}

#[tokio::test]
async fn a_column_is_added() {
    let (_dir, root) = root();
    let mut table = LakeTable::open_or_create(&root, &spec()).await.unwrap();
    let f = file(&table, 0, 3).await;
    table.commit_append(vec![f], 1, 0, 1).await.unwrap();
    let mut wider = spec();
    wider.columns.push(column(7, "seen", ColType::Timestamp));
    let v = table.ensure_schema(&wider).await.unwrap();
    assert_eq!(v.version, 2);
    assert_eq!(table.ensure_schema(&wider).await.unwrap().version, 2);
    let f = file(&table, 10, 3).await;
    table.commit_append(vec![f], 2, 1, 1).await.unwrap();
    let loaded = LakeTable::open(&root, &wider).await.unwrap().unwrap();
    assert_eq!(loaded.current().files, table.current().files);
    assert!(table.current().files[0].column("seen").is_none());
    assert_eq!(table.current().files[1].column("seen").unwrap().nulls, 3);
    // A type that changed is refused.
    let mut changed = spec();
    changed.columns[1].ty = ColType::Int4;
    assert!(matches!(table.ensure_schema(&changed).await, Err(Error::Schema { .. })));
}

#[tokio::test]
async fn rows_out_of_order_or_day_are_refused() {
    let (_dir, root) = root();
    let table = LakeTable::open_or_create(&root, &spec()).await.unwrap();
    let mut w = FileWriter::create(&table, 0, &WriterOptions::default()).await.unwrap();
    w.write(&rows(&spec(), 100, 5)).await.unwrap();
    assert!(w.write(&rows(&spec(), 50, 5)).await.is_err());
    w.abort().await;
    let mut w = FileWriter::create(&table, 1, &WriterOptions::default()).await.unwrap();
    assert!(w.write(&rows(&spec(), 100, 5)).await.is_err());
    w.abort().await;
    // Nothing is left of either.
    use futures::TryStreamExt;
    let left: Vec<_> = table.store().list(Some(table.prefix())).try_collect().await.unwrap();
    assert!(left.iter().all(|m| m.location.as_ref().contains("_delta_log")), "{left:?}");
}

#[tokio::test]
async fn concurrent_appenders_never_both_win() {
    let (_dir, root) = root();
    let table = LakeTable::open_or_create(&root, &spec()).await.unwrap();
    let mut tasks = Vec::new();
    for i in 0..8 {
        let mut t = LakeTable::open(&root, &spec()).await.unwrap().unwrap();
        let f = file(&table, i * 10, 2).await;
        tasks.push(tokio::spawn(async move { t.commit_append(vec![f], i + 1, 0, 1).await.is_ok() }));
    }
    let mut won = 0;
    for t in tasks {
        won += u32::from(t.await.unwrap());
    }
    assert_eq!(won, 1);
    let v = LakeTable::open(&root, &spec()).await.unwrap().unwrap().current();
    assert_eq!((v.version, v.rows), (1, 2));
}

#[tokio::test]
async fn a_failed_put_is_looked_at_again() {
    let (_dir, root) = root();
    LakeTable::open_or_create(&root, &spec()).await.unwrap();
    let faulty = Arc::new(Faulty::new(store::open(&root).unwrap()));
    let mut table = LakeTable::open_in(faulty.clone(), &root, &spec()).await.unwrap().unwrap();

    // It did not land: the error says so by the file not being there, and the same commit works afterwards.
    let f = file(&table, 0, 3).await;
    faulty.arm(Fault::Before);
    let e = table.commit_append(vec![f.clone()], 1, 0, 1).await.unwrap_err();
    assert!(matches!(e, Error::Ambiguous { .. }) && e.is_transient(), "{e}");
    assert_eq!(table.commit_append(vec![f], 1, 0, 1).await.unwrap().rows, 3);

    // It did land, whatever the answer was.
    for (i, fault) in [Fault::After, Fault::AfterAsExisting].into_iter().enumerate() {
        let archive = 2 + i as i64;
        let f = file(&table, 0, 3).await;
        faulty.arm(fault);
        let v = table.commit_append(vec![f], archive, archive - 1, 1).await.unwrap();
        assert_eq!((v.version, v.archive, v.rows), (archive, archive, 3 * archive as u64));
    }

    // Nobody knows: the same call finds out, and does not commit twice.
    let f = file(&table, 0, 3).await;
    faulty.arm(Fault::AfterAndBlind);
    let e = table.commit_append(vec![f.clone()], 4, 3, 1).await.unwrap_err();
    assert!(matches!(e, Error::Ambiguous { .. }), "{e}");
    let v = table.commit_append(vec![f], 4, 3, 1).await.unwrap();
    assert_eq!((v.version, v.archive, v.rows), (4, 4, 12));

    // The same for a rewrite.
    let old = table.current();
    let merged = {
        let mut w = FileWriter::create(&table, 0, &WriterOptions::default()).await.unwrap();
        w.write(&rows(&spec(), 0, 12)).await.unwrap();
        w.close().await.unwrap()
    };
    faulty.arm(Fault::After);
    let CommitOutcome::Done(v) = table.commit_rewrite(&old.files, vec![merged], 1).await.unwrap() else {
        panic!("lost");
    };
    assert_eq!((v.files.len(), v.rows, v.archive), (1, 12, 4));
    assert_eq!(LakeTable::open(&root, &spec()).await.unwrap().unwrap().current().files, v.files);
}
