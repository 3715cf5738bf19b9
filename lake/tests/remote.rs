//! The stores of the lake against the real things: HDFS and an S3 server. Each test has a folder of its own in one cluster, but for
//! those that break it.

#[path = "../../cli/tests/support/hdfs.rs"]
mod hdfs;
#[path = "../../cli/tests/support/s3.rs"]
mod s3;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::TryStreamExt;
use hdfs::Hdfs;
use lake::Url;
use lake::store::{self, ObjectStoreExt, Settings};
use object_store::path::Path;
use object_store::{Error, MultipartUpload, ObjectStore, PutMode};
use s3::S3;

/// The cluster and the server of this binary, and the settings that all its stores have.
struct Remotes {
    hdfs: Hdfs,
    _s3: S3,
}

fn remotes() -> MutexGuard<'static, Remotes> {
    static REMOTES: OnceLock<Mutex<Remotes>> = OnceLock::new();
    // One test at a time: some of them stop what the others would read from.
    let remotes = REMOTES.get_or_init(|| {
        let (hdfs, s3) = (Hdfs::start(), S3::start());
        s3.make_bucket("bucket");
        store::configure(Settings {
            cache_bytes: 32 << 20,
            read_timeout: Duration::from_secs(1),
            write_timeout: Duration::from_secs(5),
            metadata_timeout: Duration::from_secs(5),
            hadoop_conf_dir: Some(hdfs.conf_dir()),
            s3: store::S3 {
                endpoint: Some(s3.endpoint()),
                region: Some("us-east-1".into()),
                allow_http: Some(true),
                access_key_id: Some("id".into()),
                secret_access_key: Some("secret".into()),
                ..store::S3::default()
            },
            ..Settings::default()
        });
        Mutex::new(Remotes { hdfs, _s3: s3 })
    });
    remotes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Remotes {
    fn stores(&self) -> [Arc<dyn ObjectStore>; 2] {
        let open = |url: &str| store::open(&Url::parse(url).unwrap()).unwrap();
        [open(&format!("{}/", self.hdfs.url())), open("s3://bucket/")]
    }
}

fn content(length: usize) -> Bytes {
    (0..length).map(|n| (n * 31 + n / 251) as u8).collect()
}

async fn names(store: &Arc<dyn ObjectStore>, below: &str) -> Vec<String> {
    let mut found: Vec<String> = store
        .list(Some(&Path::from(below)))
        .map_ok(|meta| meta.location.to_string())
        .try_collect()
        .await
        .unwrap();
    found.sort();
    found
}

#[tokio::test]
async fn a_cluster_has_one_store_in_a_process() {
    let remotes = remotes();
    let open =
        |path: &str| store::open(&Url::parse(&format!("{}{path}", remotes.hdfs.url())).unwrap()).unwrap();
    assert!(Arc::ptr_eq(&open("/a"), &open("/b/c/")));
    assert!(matches!(store::open(&Url::parse("hdfs:///x").unwrap()), Err(lake::Error::Location { .. })));
    assert!(matches!(store::open(&Url::parse("ftp://x/y").unwrap()), Err(lake::Error::Location { .. })));
}

#[tokio::test]
async fn what_was_put_is_read_in_any_part() {
    let remotes = remotes();
    for store in remotes.stores() {
        let path = Path::from("parts/t/dt=2026-01-01/part-1.zstd.parquet");
        let bytes = content(3_000_000);
        store.put(&path, bytes.clone().into()).await.unwrap();
        for _ in 0..2 {
            assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), bytes);
            let ranges = [0..1, 5..1_500_000, 2_999_999..3_000_000];
            let found = store.get_ranges(&path, &ranges).await.unwrap();
            for (range, found) in ranges.iter().zip(found) {
                assert_eq!(found, bytes[range.start as usize..range.end as usize]);
            }
            let meta = store.head(&path).await.unwrap();
            assert_eq!(meta.size, 3_000_000);
            assert!(chrono::Utc::now().signed_duration_since(meta.last_modified).num_minutes().abs() < 10);
        }
        assert!(store.get_range(&path, 3_000_000..3_000_001).await.is_err());
        assert_eq!(names(&store, "parts").await, [path.to_string()]);
        assert_eq!(names(&store, "nothing/here").await, Vec::<String>::new());
        store.delete(&path).await.unwrap();
        assert!(matches!(store.head(&path).await, Err(Error::NotFound { .. })));
        assert!(matches!(store.get(&path).await, Err(Error::NotFound { .. })));
        assert_eq!(names(&store, "parts").await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn of_many_who_commit_the_same_version_one_does() {
    let remotes = remotes();
    for store in remotes.stores() {
        for version in 0..4 {
            let entry = Path::from(format!("race/_delta_log/{version:020}.json"));
            let tries: Vec<_> = (0..8)
                .map(|n| {
                    let (store, entry) = (store.clone(), entry.clone());
                    let bytes = format!("{{\"by\":{n}}}");
                    tokio::spawn(async move {
                        (store.put_opts(&entry, bytes.clone().into(), PutMode::Create.into()).await, bytes)
                    })
                })
                .collect();
            let mut winners = Vec::new();
            for one in tries {
                match one.await.unwrap() {
                    (Ok(_), bytes) => winners.push(bytes),
                    (Err(Error::AlreadyExists { .. }), _) => {}
                    (Err(e), _) => panic!("{store}: {e}"),
                }
            }
            assert_eq!(winners.len(), 1, "{store}");
            assert_eq!(store.get(&entry).await.unwrap().bytes().await.unwrap(), winners[0]);
        }
        // Nothing but the entries is left, whoever lost.
        assert_eq!(names(&store, "race").await.len(), 4, "{:?}", names(&store, "race").await);
    }
}

#[tokio::test]
async fn parts_come_in_their_order_and_a_file_is_seen_whole_or_not_at_all() {
    let remotes = remotes();
    for store in remotes.stores() {
        let path = Path::from("multi/part-2.zstd.parquet");
        let part = content(5 << 20);
        let mut upload = store.put_multipart(&path).await.unwrap();
        let parts: Vec<_> = (0..5).map(|_| tokio::spawn(upload.put_part(part.clone().into()))).collect();
        for one in parts {
            one.await.unwrap().unwrap();
        }
        assert!(matches!(store.head(&path).await, Err(Error::NotFound { .. })), "{store}");
        upload.complete().await.unwrap();
        let whole = store.get(&path).await.unwrap().bytes().await.unwrap();
        assert_eq!(whole.len(), 5 * part.len());
        assert!(whole.chunks(part.len()).all(|chunk| chunk == part));

        let mut given_up = store.put_multipart(&Path::from("multi/part-3.zstd.parquet")).await.unwrap();
        given_up.put_part(part.clone().into()).await.unwrap();
        given_up.abort().await.unwrap();
        assert_eq!(names(&store, "multi").await, [path.to_string()], "{store}");
    }
}

#[tokio::test]
async fn an_upload_that_lost_a_part_is_no_file() {
    let remotes = remotes();
    let [store, _] = remotes.stores();
    let path = Path::from("gap/part-1.zstd.parquet");
    let mut upload = store.put_multipart(&path).await.unwrap();
    drop(upload.put_part(content(100).into()));
    assert!(upload.put_part(content(100).into()).await.is_err());
    assert!(upload.complete().await.is_err());
    upload.abort().await.unwrap();
    assert_eq!(names(&store, "gap").await, Vec::<String>::new());
    // And one that nobody ended is swept by its writer.
    let mut upload = store.put_multipart(&path).await.unwrap();
    upload.put_part(content(100).into()).await.unwrap();
    assert_eq!(names(&store, "gap").await.len(), 1);
    assert!(store::is_temporary(&Path::from(names(&store, "gap").await[0].as_str())));
    drop(upload);
    let started = Instant::now();
    while !names(&store, "gap").await.is_empty() {
        assert!(started.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_datanode_that_hangs_or_dies_costs_time_and_nothing_else() {
    let remotes = remotes();
    let [store, _] = remotes.stores();
    let bytes = content(2_500_000);
    let paths: Vec<Path> = (0..6).map(|n| Path::from(format!("hang/part-{n}.zstd.parquet"))).collect();
    for path in &paths {
        store.put(path, bytes.clone().into()).await.unwrap();
    }
    remotes.hdfs.freeze("datanode1", true);
    for path in &paths {
        assert_eq!(store.get_range(path, 100..2_400_000).await.unwrap(), bytes[100..2_400_000]);
    }
    // A write finds the other one, and the missing replicas come when both are back.
    store.put(&Path::from("hang/written.parquet"), bytes.clone().into()).await.unwrap();
    remotes.hdfs.freeze("datanode1", false);
    remotes.hdfs.wait_for_live(2);
    remotes.hdfs.kill9("datanode2");
    // While the NameNode still takes it for alive.
    store.put(&Path::from("hang/killed.parquet"), bytes.clone().into()).await.unwrap();
    assert_eq!(store.get_range(&Path::from("hang/killed.parquet"), 0..2_500_000).await.unwrap(), bytes);
    remotes.hdfs.restart();
    remotes.hdfs.wait_for_full_replication();
    let report = remotes.hdfs.fsck(&["/hang"]);
    assert!(report.contains("is HEALTHY") && !report.contains("replicas is 1"), "{report}");
}

#[tokio::test]
async fn all_datanodes_standing_still_is_an_error_in_time() {
    let remotes = remotes();
    let [store, _] = remotes.stores();
    let path = Path::from("still/part-1.zstd.parquet");
    store.put(&path, content(1000).into()).await.unwrap();
    for who in ["datanode1", "datanode2"] {
        remotes.hdfs.freeze(who, true);
    }
    let outcome = tokio::time::timeout(Duration::from_secs(60), store.get_range(&path, 0..1000)).await;
    for who in ["datanode1", "datanode2"] {
        remotes.hdfs.freeze(who, false);
    }
    let error = outcome.expect("an answer in time").unwrap_err().to_string();
    assert!(error.contains("HDFS stalls"), "{error}");
    remotes.hdfs.wait_for_live(2);
    assert_eq!(store.get_range(&path, 0..1000).await.unwrap(), content(1000));
}

#[tokio::test]
async fn a_namenode_that_hangs_is_an_error_in_time_and_is_asked_again() {
    let remotes = remotes();
    let [store, _] = remotes.stores();
    let path = Path::from("asked/_delta_log/00000000000000000000.json");
    remotes.hdfs.freeze("namenode", true);
    let outcome = tokio::time::timeout(Duration::from_secs(60), store.put(&path, "{}".into())).await;
    remotes.hdfs.freeze("namenode", false);
    let error = outcome.expect("an answer in time").unwrap_err().to_string();
    assert!(error.contains("HDFS stalls"), "{error}");
    store.put(&path, "{}".into()).await.unwrap();
    remotes.hdfs.kill9("namenode");
    let error = store.head(&path).await.unwrap_err().to_string();
    assert!(error.contains("cannot be reached"), "{error}");
    remotes.hdfs.restart();
    assert_eq!(store.head(&path).await.unwrap().size, 2);
}

#[tokio::test]
async fn safe_mode_and_a_full_directory_say_what_they_are() {
    let remotes = remotes();
    let [store, _] = remotes.stores();
    let path = |name: &str| Path::from(format!("refused/{name}"));
    store.put(&path("there"), "x".into()).await.unwrap();
    remotes.hdfs.safe_mode(true);
    let error = store.put(&path("not"), "y".into()).await.unwrap_err().to_string();
    let read = store.get(&path("there")).await.unwrap().bytes().await;
    remotes.hdfs.safe_mode(false);
    assert!(error.contains("safe mode") && !error.contains('\n'), "{error}");
    assert_eq!(read.unwrap(), "x");
    remotes.hdfs.space_quota("/refused", Some(1 << 20));
    let error = store.put(&path("not"), content(4 << 20).into()).await.unwrap_err().to_string();
    remotes.hdfs.space_quota("/refused", None);
    assert!(error.contains("no room") && !error.contains('\n'), "{error}");
    assert_eq!(names(&store, "refused").await, ["refused/there"]);
    store.put(&path("now"), content(4 << 20).into()).await.unwrap();
}
