use std::collections::{HashMap, HashSet};

use super::*;

const HOUR_MS: i64 = 3_600_000;

fn periods() -> Periods {
    Periods { grace: Duration::from_secs(3600), orphan: Duration::from_secs(24 * 3600) }
}

fn listed(path: &str, modified_ms: i64) -> Listed {
    Listed { path: path.into(), modified_ms, size: 1 }
}

fn names(files: &[Listed], live: &[&str], removed: &[(&str, i64, u64)], read: Option<i64>, now: i64) -> Vec<String> {
    let path = |name: &str| format!("_day=2026-01-01/{name}.parquet");
    let files: Vec<Listed> = files.iter().map(|f| Listed { path: path(&f.path), ..f.clone() }).collect();
    let live: HashSet<String> = live.iter().map(|n| path(n)).collect();
    let removed: HashMap<String, Removed> =
        removed.iter().map(|(n, at_ms, version)| (path(n), Removed { at_ms: *at_ms, version: *version, size: 1 })).collect();
    let (live, removal) = (|p: &str| live.contains(p), |p: &str| removed.get(p).copied());
    let needed = Needed { live: &live, removal: &removal, oldest_read: read };
    let gone = deletable(&files, &needed, &periods(), now);
    gone.iter().map(|f| f.path["_day=2026-01-01/".len()..].trim_end_matches(".parquet").to_owned()).collect()
}

#[test]
fn what_may_go() {
    let now = 1000 * HOUR_MS;
    let files = [
        listed("live and ancient", 0),
        listed("removed long ago", 0),
        listed("removed just now", 0),
        listed("removed within grace", 0),
        listed("removed before grace", now - 2 * HOUR_MS),
        listed("removed before that", now - 2 * HOUR_MS),
        listed("being written", now - HOUR_MS / 2),
        listed("slow writer", now - 23 * HOUR_MS),
        listed("orphan", now - 25 * HOUR_MS),
        listed("from the future", now + HOUR_MS),
        listed("removed, yet live", 0),
    ];
    let live = ["live and ancient", "removed, yet live"];
    let removed = [
        ("removed just now", now, 9),
        ("removed within grace", now - HOUR_MS, 8),
        ("removed before grace", now - HOUR_MS - 1, 7),
        ("removed before that", now - HOUR_MS - 2, 6),
        ("removed, yet live", 0, 1),
    ];
    let gone = |read| names(&files, &live, &removed, read, now);
    assert_eq!(gone(None), ["removed long ago", "removed before grace", "removed before that", "orphan"]);
    // Readers of older versions keep what those have, and whatever nobody can tell of.
    assert_eq!(gone(Some(7)), ["removed before grace", "removed before that"]);
    assert_eq!(gone(Some(6)), ["removed before that"]);
    assert_eq!(gone(Some(5)), Vec::<String>::new());
}

#[test]
fn orphans_never_go_before_the_grace_period() {
    let odd = Periods { grace: Duration::from_secs(3600), orphan: Duration::ZERO };
    assert_eq!(odd.orphan_ms(), HOUR_MS);
}

#[test]
fn only_what_we_may_have_written() {
    for path in ["_day=2026-01-01/part-1.zstd.parquet", "_day=0001-01-01/x.parquet"] {
        assert!(is_data(path) && !is_unfinished(path), "{path}");
    }
    for path in [
        "_day=2026-01-01/.part-1.zstd.parquet.tmp.0",
        "_delta_log/.00000000000000000007.json.tmp.3",
        "_delta_log/.00000000000000000007.json.tmp.0123456789abcdef0123456789abcdef",
    ] {
        assert!(is_unfinished(path) && !is_data(path), "{path}");
    }
    for path in [
        "part.parquet",
        "other/part.parquet",
        "_day=2026-01-01/deep/part.parquet",
        "_day=2026-01-01/notes.txt",
        "_day=2026-01-01/.hidden.parquet",
        "_day=2026-01-01/.hidden.tmp.",
        "_delta_log/00000000000000000007.json",
        "_delta_log/00000000000000000007.checkpoint.parquet",
        "_delta_log/_last_checkpoint",
        "_days/.x.tmp.1",
    ] {
        assert!(!is_data(path) && !is_unfinished(path), "{path}");
    }
}

#[tokio::test]
async fn unfinished_uploads_are_swept() {
    let dir = tempfile::tempdir().unwrap();
    let day = dir.path().join("_day=2026-01-01");
    std::fs::create_dir_all(dir.path().join("_delta_log")).unwrap();
    std::fs::create_dir(&day).unwrap();
    for name in ["a.zstd.parquet", "a.zstd.parquet#1", "b.zstd.parquet#22", "c.parquet#x", "d.txt#1"] {
        std::fs::write(day.join(name), "12345").unwrap();
    }
    std::fs::write(dir.path().join("_delta_log/00.json#1"), "1").unwrap();
    std::fs::write(dir.path().join("_delta_log/00.json"), "1").unwrap();
    let none = sweep_unfinished(dir.path().into(), HashSet::new(), Duration::from_secs(60)).await.unwrap();
    assert_eq!(none, Swept::default());
    tokio::time::sleep(Duration::from_millis(20)).await;
    let three = sweep_unfinished(dir.path().into(), HashSet::new(), Duration::ZERO).await.unwrap();
    assert_eq!(three, Swept { files: 3, bytes: 11 });
    let mut left: Vec<_> =
        std::fs::read_dir(&day).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["a.zstd.parquet", "c.parquet#x", "d.txt#1"]);
    assert!(dir.path().join("_delta_log/00.json").exists());
}

#[tokio::test]
async fn folders_without_files_are_swept() {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["_day=2026-01-01", "_day=2026-01-02", "_day=2026-01-03", "_delta_log", "mine"] {
        std::fs::create_dir(dir.path().join(folder)).unwrap();
    }
    std::fs::write(dir.path().join("_day=2026-01-02/a.parquet"), "1").unwrap();
    // The third has files by the log, which somebody moved away for a while.
    let needed = HashSet::from(["_day=2026-01-03".to_owned()]);
    sweep_unfinished(dir.path().into(), needed, Duration::ZERO).await.unwrap();
    let mut left: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["_day=2026-01-02", "_day=2026-01-03", "_delta_log", "mine"]);
}

/// What removing a day's folder counts on: a writer that finds none makes it, and one that a file is being written in stays.
#[test]
fn a_file_is_written_though_its_folder_is_removed_all_the_time() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("_day=2026-01-01");
    let over = std::sync::atomic::AtomicBool::new(false);
    let store = object_store::local::LocalFileSystem::new_with_prefix(dir.path()).unwrap();
    let removed = std::thread::scope(|scope| {
        let remover = scope.spawn(|| {
            let mut removed = 0;
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                removed += u32::from(std::fs::remove_dir(&folder).is_ok());
                std::thread::sleep(Duration::from_micros(100));
            }
            removed
        });
        let written = tokio::runtime::Runtime::new().unwrap().block_on(async {
            for n in 0..500 {
                let path = Path::from(format!("_day=2026-01-01/{n}.parquet"));
                store.put(&path, vec![b'x'; 100].into()).await?;
                store.head(&path).await?;
                store.delete(&path).await?;
            }
            Ok::<_, object_store::Error>(())
        });
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        written.unwrap();
        remover.join().unwrap()
    });
    assert!(removed > 0, "nothing was removed meanwhile");
}
