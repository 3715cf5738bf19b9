use super::*;

const HOUR_MS: i64 = 3_600_000;

fn periods() -> Periods {
    Periods { grace: Duration::from_secs(3600), orphan: Duration::from_secs(24 * 3600) }
}

fn listed(path: &str, modified_ms: i64) -> Listed {
    Listed { path: path.into(), modified_ms, size: 1 }
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
        listed("being written", now - HOUR_MS / 2),
        listed("slow writer", now - 23 * HOUR_MS),
        listed("orphan", now - 25 * HOUR_MS),
        listed("from the future", now + HOUR_MS),
        listed("removed, yet live", 0),
    ];
    let live = HashSet::from(["live and ancient", "removed, yet live"]);
    let removed = HashMap::from([
        ("removed just now".to_owned(), now),
        ("removed within grace".to_owned(), now - HOUR_MS),
        ("removed before grace".to_owned(), now - HOUR_MS - 1),
        ("removed, yet live".to_owned(), 0),
    ]);
    let gone: Vec<_> =
        deletable(&files, &live, &removed, &periods(), now).iter().map(|f| f.path.as_str()).collect();
    assert_eq!(gone, ["removed long ago", "removed before grace", "orphan"]);
}

#[test]
fn orphans_never_go_before_the_grace_period() {
    let odd = Periods { grace: Duration::from_secs(3600), orphan: Duration::ZERO };
    let files = [listed("young", 10 * HOUR_MS), listed("old", 8 * HOUR_MS)];
    let gone = deletable(&files, &HashSet::new(), &HashMap::new(), &odd, 10 * HOUR_MS);
    assert_eq!(gone, [&files[1]]);
}

#[test]
fn removals_of_an_entry() {
    let entry = br#"{"add":{"path":"_day=2026-01-01/part-1.zstd.parquet","size":5}}
{"remove":{"path":"_day=2026-01-01/part-2.zstd.parquet","deletionTimestamp":77,"dataChange":false}}
{"remove":{"path":"b","dataChange":false}}
{"txn":{"appId":"watershed","version":3}}
{"commitInfo":{"operation":"OPTIMIZE"}}
"#;
    assert_eq!(
        parse(entry, 50).unwrap(),
        [("_day=2026-01-01/part-2.zstd.parquet".to_owned(), 77), ("b".to_owned(), 50)]
    );
    assert_eq!(parse(entry, 100).unwrap()[0].1, 100);
    assert!(parse(b"{", 0).is_err());
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
    let none = sweep_unfinished(dir.path().into(), Duration::from_secs(60)).await.unwrap();
    assert_eq!(none, Swept::default());
    tokio::time::sleep(Duration::from_millis(20)).await;
    let two = sweep_unfinished(dir.path().into(), Duration::ZERO).await.unwrap();
    assert_eq!(two, Swept { files: 2, bytes: 10 });
    let mut left: Vec<_> =
        std::fs::read_dir(&day).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["a.zstd.parquet", "c.parquet#x", "d.txt#1"]);
}
