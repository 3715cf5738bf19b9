use std::sync::atomic::AtomicUsize;

use object_store::memory::InMemory;
use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::*;

/// Counts reads, and lets them wait or fail.
#[derive(Debug)]
struct Watched {
    inner: InMemory,
    gate: Semaphore,
    gets: AtomicUsize,
    heads: AtomicUsize,
    failing: AtomicUsize,
}

impl Watched {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: InMemory::new(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            gets: AtomicUsize::new(0),
            heads: AtomicUsize::new(0),
            failing: AtomicUsize::new(0),
        })
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("watched")
    }
}

#[async_trait]
impl ObjectStore for Watched {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, opts).await
    }
    async fn put_multipart_opts(
        &self,
        at: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, opts).await
    }
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if options.head {
            self.heads.fetch_add(1, Ordering::SeqCst);
            return self.inner.get_opts(location, options).await;
        }
        self.gets.fetch_add(1, Ordering::SeqCst);
        let _pass = self.gate.acquire().await;
        if self.failing.load(Ordering::SeqCst) > 0 {
            self.failing.fetch_sub(1, Ordering::SeqCst);
            return Err(Error::Generic { store: "watched", source: "it broke".into() });
        }
        self.inner.get_opts(location, options).await
    }
    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 31 + n / 251) as u8).collect()
}

async fn cached(length: usize, capacity: u64) -> (Arc<Watched>, Cached, Path, Vec<u8>) {
    let store = Watched::new();
    let (path, bytes) = (Path::from("lake/t/dt=2026-01-01/part-1.zstd.parquet"), content(length));
    store.put(&path, bytes.clone().into()).await.unwrap();
    let cached = Cached::new(store.clone(), capacity, Handle::current());
    (store, cached, path, bytes)
}

#[tokio::test]
async fn what_was_read_once_is_not_asked_for_again() {
    let (store, cached, path, bytes) = cached(3_500_000, 64 << 20).await;
    for _ in 0..3 {
        assert_eq!(cached.get(&path).await.unwrap().bytes().await.unwrap(), bytes);
        assert_eq!(cached.get_range(&path, 3_400_000..3_500_000).await.unwrap(), bytes[3_400_000..]);
        let two = cached.get_ranges(&path, &[5..7, 1_000_000..2_500_000]).await.unwrap();
        assert_eq!((&two[0][..], &two[1][..]), (&bytes[5..7], &bytes[1_000_000..2_500_000]));
        assert_eq!(cached.head(&path).await.unwrap().size, 3_500_000);
    }
    assert_eq!((store.gets.load(Ordering::SeqCst), store.heads.load(Ordering::SeqCst)), (1, 1));
    let stats = cached.stats();
    assert_eq!((stats.misses, stats.bytes_read, stats.bytes_held), (4, 3_500_000, 3_500_000));
}

#[tokio::test]
async fn readers_who_miss_the_same_at_once_read_it_once() {
    let (store, cached, path, bytes) = cached(2_000_000, 64 << 20).await;
    let cached = Arc::new(cached);
    cached.head(&path).await.unwrap();
    store.gate.forget_permits(Semaphore::MAX_PERMITS);
    let readers: Vec<_> = (0..10)
        .map(|n| {
            let (cached, path) = (cached.clone(), path.clone());
            tokio::spawn(async move { cached.get_range(&path, n * 10..1_500_000).await })
        })
        .collect();
    // One that asks and goes away leaves the others what it asked for.
    let gone = {
        let (cached, path) = (cached.clone(), path.clone());
        tokio::spawn(async move { cached.get_range(&path, 0..10).await })
    };
    while cached.stats().hits < 19 {
        tokio::task::yield_now().await;
    }
    gone.abort();
    store.gate.add_permits(100);
    for (n, reader) in readers.into_iter().enumerate() {
        assert_eq!(reader.await.unwrap().unwrap(), bytes[n * 10..1_500_000]);
    }
    assert_eq!(store.gets.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_failure_reaches_all_who_wait_and_is_not_kept() {
    let (store, cached, path, bytes) = cached(1000, 64 << 20).await;
    store.failing.store(1, Ordering::SeqCst);
    let (a, b) = tokio::join!(cached.get_range(&path, 0..10), cached.get_range(&path, 5..10));
    assert!(
        a.unwrap_err().to_string().contains("it broke") && b.unwrap_err().to_string().contains("it broke")
    );
    assert_eq!(cached.get_range(&path, 0..10).await.unwrap(), bytes[..10]);
    assert_eq!(cached.stats().failures, 1);
    let nothing = cached.get_range(&Path::from("lake/t/none.parquet"), 0..10).await;
    assert!(matches!(nothing, Err(Error::NotFound { .. })));
    let nothing = cached.get_ranges(&Path::from("lake/t/none.parquet"), &[0..10]).await;
    assert!(matches!(nothing, Err(Error::NotFound { .. })));
    assert!(cached.get_ranges(&path, &[0..2000]).await.is_err());
}

#[tokio::test]
async fn what_may_change_is_asked_for_each_time() {
    let store = Watched::new();
    let cached = Cached::new(store.clone(), 64 << 20, Handle::current());
    for name in [
        "lake/t/_delta_log/_last_checkpoint",
        "lake/t/_delta_log/00000000000000000003.json",
        "lake/t/_delta_log/00000000000000000003.checkpoint.parquet",
    ] {
        let path = Path::from(name);
        assert!(matches!(cached.get(&path).await, Err(Error::NotFound { .. })));
        for content in ["one", "another"] {
            cached.put(&path, content.into()).await.unwrap();
            assert_eq!(cached.get(&path).await.unwrap().bytes().await.unwrap(), content);
            assert_eq!(cached.head(&path).await.unwrap().size, content.len() as u64);
        }
        cached.delete(&path).await.unwrap();
        assert!(matches!(cached.head(&path).await, Err(Error::NotFound { .. })));
    }
}

#[tokio::test]
async fn a_deleted_file_is_gone() {
    let (_, cached, path, bytes) = cached(100, 64 << 20).await;
    assert_eq!(cached.get_range(&path, 0..100).await.unwrap(), bytes);
    cached.delete(&path).await.unwrap();
    assert!(matches!(cached.get_range(&path, 0..100).await, Err(Error::NotFound { .. })));
    assert!(matches!(cached.head(&path).await, Err(Error::NotFound { .. })));
}

#[test]
fn neighbours_are_read_together() {
    assert_eq!(runs(&[]), []);
    assert_eq!(runs(&[0, 1, 2, 5, 7, 8]), [0..3, 5..6, 7..9]);
    assert_eq!(runs(&(0..20).collect::<Vec<_>>()), [0..8, 8..16, 16..20]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_ranges_are_those_of_the_file(
        length in 1usize..5_000_000,
        capacity in prop::sample::select(vec![0u64, 3 << 20, 64 << 20]),
        picks in prop::collection::vec((0.0f64..1.0, 0.0f64..1.0), 1..20),
    ) {
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {
            let (_, cached, path, bytes) = cached(length, capacity).await;
            let ranges: Vec<Range<u64>> = picks.iter().map(|(a, b)| {
                let start = (a * (length - 1) as f64) as u64;
                start..start + 1 + (b * (length as u64 - start - 1) as f64) as u64
            }).collect();
            for some in ranges.chunks(4) {
                let found = cached.get_ranges(&path, some).await.unwrap();
                for (range, found) in some.iter().zip(found) {
                    assert_eq!(found, bytes[range.start as usize..range.end as usize]);
                }
                let one = cached.get_range(&path, some[0].clone()).await.unwrap();
                assert_eq!(one, bytes[some[0].start as usize..some[0].end as usize]);
            }
        });
    }
}
