//! Data files kept in memory in front of a remote store: their status, footers and hot ranges. ✗ how a store is reached.
//!
//! Only what never changes is kept ([`is_immutable`]): data files have names that are given once. A log's entries are not kept, though
//! nobody changes one: that an entry is gone tells a reader that the log was cleaned past it. Checkpoints may be written twice.
//!
//! A file is kept in blocks of [`BLOCK`] bytes, which are also the least that is read: the blocks that several readers miss at once
//! are read once, neighbouring ones with one request. What a query reads goes on being read when the query is gone: the next one
//! asks for it again.

mod ring;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::future::{BoxFuture, Shared};
use futures::stream::{self, BoxStream, FuturesUnordered};
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    RenameOptions, Result,
};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use self::ring::Ring;
use super::is_immutable;
use super::lru::Lru;

/// Bytes of a block: a footer with its page index, or a few milliseconds of a DataNode's disk.
pub(super) const BLOCK: u64 = 1 << 20;
/// Blocks of one request.
const RUN: u64 = 8;
/// Requests to the store at a time.
const AT_ONCE: usize = 16;
/// A read of more than this is a copy, not a query, and passes by.
const LARGEST: u64 = 64 << 20;
/// Files whose status is remembered.
const FILES: usize = 131_072;

/// What a cache did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Blocks that were there, or on their way;
    pub hits: u64,
    /// and that had to be read.
    pub misses: u64,
    /// Bytes that readers were given,
    pub bytes_given: u64,
    /// and that were read from the store.
    pub bytes_read: u64,
    /// Bytes held now.
    pub bytes_held: u64,
    /// Reads from the store that failed.
    pub failures: u64,
}

#[derive(Default)]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    given: AtomicU64,
    read: AtomicU64,
    failures: AtomicU64,
}

/// See the module.
pub(crate) struct Cached {
    inner: Arc<dyn ObjectStore>,
    runtime: Handle,
    held: Arc<Mutex<Held>>,
    reading: Arc<Semaphore>,
    counters: Arc<Counters>,
}

struct Held {
    files: Lru<Path, File>,
    next_id: u64,
    blocks: Ring,
    /// Blocks that are being read.
    coming: HashMap<(u64, u64), Coming>,
}

/// What is known of a file. Blocks are kept under its number, so that forgetting the number forgets them.
#[derive(Clone)]
struct File {
    id: u64,
    meta: Option<ObjectMeta>,
}

/// Consecutive blocks of one request.
#[derive(Clone)]
struct Coming {
    first: u64,
    blocks: Shared<BoxFuture<'static, Fetched>>,
}

type Fetched = std::result::Result<Arc<[Bytes]>, Arc<Error>>;

impl Held {
    fn file(&mut self, location: &Path) -> File {
        if let Some(known) = self.files.get(location) {
            return known.clone();
        }
        self.next_id += 1;
        let file = File { id: self.next_id, meta: None };
        self.files.put(location.clone(), file.clone());
        file
    }
}

impl Cached {
    /// Keeps up to `capacity` bytes of what `inner` holds; reads on `runtime`.
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, capacity: u64, runtime: Handle) -> Self {
        let held =
            Held { files: Lru::new(FILES), next_id: 0, blocks: Ring::new(capacity), coming: HashMap::new() };
        Self {
            inner,
            runtime,
            held: Arc::new(Mutex::new(held)),
            reading: Arc::new(Semaphore::new(AT_ONCE)),
            counters: Arc::default(),
        }
    }

    pub(crate) fn stats(&self) -> CacheStats {
        let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
        CacheStats {
            hits: read(&self.counters.hits),
            misses: read(&self.counters.misses),
            bytes_given: read(&self.counters.given),
            bytes_read: read(&self.counters.read),
            bytes_held: self.held.lock().blocks.bytes(),
            failures: read(&self.counters.failures),
        }
    }

    fn forget(&self, location: &Path) {
        self.held.lock().files.remove(location);
    }

    async fn meta(&self, location: &Path) -> Result<ObjectMeta> {
        if let Some(meta) = self.held.lock().file(location).meta {
            return Ok(meta);
        }
        let meta = self.inner.head(location).await?;
        let mut held = self.held.lock();
        let id = held.file(location).id;
        held.files.put(location.clone(), File { id, meta: Some(meta.clone()) });
        Ok(meta)
    }

    /// The bytes of `ranges`, none of which is empty or reversed.
    async fn ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let mut wanted: Vec<u64> =
            ranges.iter().flat_map(|r| r.start / BLOCK..=(r.end - 1) / BLOCK).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut blocks: BTreeMap<u64, Bytes> = BTreeMap::new();
        let mut coming: Vec<(Vec<u64>, Coming)> = Vec::new();
        {
            let mut guard = self.held.lock();
            let held = &mut *guard;
            let id = held.file(location).id;
            let mut missing: Vec<u64> = Vec::new();
            for block in wanted {
                if let Some(bytes) = held.blocks.get((id, block)) {
                    blocks.insert(block, bytes);
                } else if let Some(on_its_way) = held.coming.get(&(id, block)) {
                    match coming.last_mut() {
                        Some((waiting, run)) if run.first == on_its_way.first => waiting.push(block),
                        _ => coming.push((vec![block], on_its_way.clone())),
                    }
                } else {
                    missing.push(block);
                }
            }
            let there = blocks.len() + coming.iter().map(|(waiting, _)| waiting.len()).sum::<usize>();
            self.counters.hits.fetch_add(there as u64, Ordering::Relaxed);
            self.counters.misses.fetch_add(missing.len() as u64, Ordering::Relaxed);
            for run in runs(&missing) {
                let reading = self.begin(location.clone(), id, run.clone());
                for block in run.clone() {
                    held.coming.insert((id, block), reading.clone());
                }
                coming.push((run.collect(), reading));
            }
        }
        let mut arriving: FuturesUnordered<_> = coming
            .into_iter()
            .map(|(waiting, run)| async move { (waiting, run.first, run.blocks.await) })
            .collect();
        while let Some((waiting, first, fetched)) = arriving.next().await {
            let fetched = fetched.map_err(|error| again(&error))?;
            for block in waiting {
                if let Some(bytes) = usize::try_from(block - first).ok().and_then(|at| fetched.get(at)) {
                    blocks.insert(block, bytes.clone());
                }
            }
        }
        ranges.iter().map(|range| self.cut(location, range, &blocks)).collect()
    }

    /// Begins to read blocks; nobody need wait for them.
    fn begin(&self, location: Path, id: u64, run: Range<u64>) -> Coming {
        let (inner, held, counters) = (self.inner.clone(), self.held.clone(), self.counters.clone());
        let (blocks, at_once) = (run.clone(), self.reading.clone());
        let reading = self.runtime.spawn(async move {
            // Never closed.
            let _turn = at_once.acquire().await;
            let fetched = inner.get_range(&location, blocks.start * BLOCK..blocks.end * BLOCK).await;
            let mut held = held.lock();
            for block in blocks.clone() {
                held.coming.remove(&(id, block));
            }
            match fetched {
                Ok(bytes) => {
                    counters.read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    // Each in memory of its own: a block that stays must not keep its neighbours.
                    let cut: Arc<[Bytes]> =
                        bytes.chunks(BLOCK as usize).map(Bytes::copy_from_slice).collect();
                    for (block, bytes) in blocks.zip(cut.iter()) {
                        held.blocks.put((id, block), bytes.clone());
                    }
                    Ok(cut)
                }
                Err(error) => {
                    counters.failures.fetch_add(1, Ordering::Relaxed);
                    Err(Arc::new(error))
                }
            }
        });
        let blocks = async move {
            reading.await.unwrap_or_else(|ended| {
                Err(Arc::new(Error::Generic { store: "cache", source: Box::new(ended) }))
            })
        };
        Coming { first: run.start, blocks: blocks.boxed().shared() }
    }

    /// `range` out of the blocks that hold it.
    fn cut(&self, location: &Path, range: &Range<u64>, blocks: &BTreeMap<u64, Bytes>) -> Result<Bytes> {
        let short = || Error::Generic {
            store: "cache",
            source: format!("{location} ends before {}, {range:?} was asked for", range.end).into(),
        };
        self.counters.given.fetch_add(range.end - range.start, Ordering::Relaxed);
        let (first, last) = (range.start / BLOCK, (range.end - 1) / BLOCK);
        let within = |block: u64| -> Result<Bytes> {
            let bytes = blocks.get(&block).ok_or_else(short)?;
            let from = range.start.saturating_sub(block * BLOCK) as usize;
            let to = (range.end - block * BLOCK).min(BLOCK) as usize;
            if to > bytes.len() || from > to {
                return Err(short());
            }
            Ok(bytes.slice(from..to))
        };
        if first == last {
            return within(first);
        }
        let mut all = BytesMut::with_capacity((range.end - range.start) as usize);
        for block in first..=last {
            all.extend_from_slice(&within(block)?);
        }
        Ok(all.freeze())
    }
}

/// Neighbours together, up to [`RUN`] of them.
fn runs(blocks: &[u64]) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for &block in blocks {
        match runs.last_mut() {
            Some(run) if run.end == block && run.end - run.start < RUN => run.end += 1,
            _ => runs.push(block..block + 1),
        }
    }
    runs
}

/// One error for all who waited.
fn again(error: &Arc<Error>) -> Error {
    match &**error {
        Error::NotFound { path, source } => {
            Error::NotFound { path: path.clone(), source: source.to_string().into() }
        }
        Error::PermissionDenied { path, source } => {
            Error::PermissionDenied { path: path.clone(), source: source.to_string().into() }
        }
        _ => Error::Generic { store: "cache", source: Box::new(error.clone()) },
    }
}

/// Whether the request asks for bytes and nothing else.
fn is_plain(options: &GetOptions) -> bool {
    options.if_match.is_none()
        && options.if_none_match.is_none()
        && options.if_modified_since.is_none()
        && options.if_unmodified_since.is_none()
        && options.version.is_none()
}

impl fmt::Debug for Cached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached").field("inner", &self.inner.to_string()).finish_non_exhaustive()
    }
}

impl fmt::Display for Cached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with a cache", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Cached {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.forget(location);
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.forget(location);
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if !is_immutable(location) || !is_plain(&options) {
            return self.inner.get_opts(location, options).await;
        }
        let meta = self.meta(location).await?;
        if options.head {
            let payload = GetResultPayload::Stream(stream::empty().boxed());
            return Ok(GetResult { payload, meta, range: 0..0, attributes: Default::default() });
        }
        let whole = options.range.is_none();
        let range = match &options.range {
            Some(range) => range
                .as_range(meta.size)
                .map_err(|e| Error::Generic { store: "cache", source: e.to_string().into() })?,
            None => 0..meta.size,
        };
        if range.end - range.start > LARGEST {
            let range = (!whole).then(|| GetRange::Bounded(range));
            return self.inner.get_opts(location, GetOptions { range, ..options }).await;
        }
        let bytes = if range.is_empty() {
            Bytes::new()
        } else {
            let mut found = self.ranges(location, std::slice::from_ref(&range)).await?;
            found.pop().unwrap_or_default()
        };
        let payload = GetResultPayload::Stream(stream::once(async move { Ok(bytes) }).boxed());
        Ok(GetResult { payload, meta, range, attributes: Default::default() })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        if !is_immutable(location) || ranges.iter().any(|r| r.start >= r.end) {
            return self.inner.get_ranges(location, ranges).await;
        }
        self.ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let held = self.held.clone();
        self.inner.delete_stream(
            locations
                .inspect(move |location| {
                    if let Ok(location) = location {
                        held.lock().files.remove(location);
                    }
                })
                .boxed(),
        )
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.forget(to);
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.forget(from);
        self.forget(to);
        self.inner.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests;
