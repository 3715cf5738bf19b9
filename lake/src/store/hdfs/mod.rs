//! HDFS as an object store, over hdfs-native's client: what the library's own store lacks for files that are read again and again
//! and for commits that must not be in doubt.
//!
//! - Data files never change: their status and block locations are kept, so a read of one asks the NameNode nothing.
//! - Everything that waits for a NameNode or a DataNode does so for a limited time. A read that stalls is begun anew from replicas in
//!   the order that the NameNode gives now; the client library itself waits for ever.
//! - A file appears under its name whole: written beside it under a name of its own, closed (which syncs the last block on the
//!   DataNodes), renamed. See [`write`].
//!
//! ✗ caching of bytes, Delta, retries of whole commits.

mod error;
mod write;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use chrono::DateTime;
use futures::stream::{self, BoxStream, FuturesUnordered};
use futures::{StreamExt, TryStreamExt};
use hdfs_native::client::FileStatus;
use hdfs_native::file::FileReader;
use hdfs_native::{Client, ClientBuilder, HdfsError};
use hdfs_native_object_store::HdfsObjectStore;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::time::timeout;

use self::error::{convert, stalled};
use super::is_immutable;
use super::lru::Lru;
use super::settings::Settings;

/// Files whose status and block locations are remembered; about a KiB each.
const REMEMBERED: usize = 16_384;
/// Blocks move, and the tokens that a secured cluster hands out with their locations expire.
const REMEMBERED_FOR: Duration = Duration::from_secs(1800);
/// Bytes of one request when a whole file is streamed, and requests ahead of the reader.
const WINDOW: u64 = 8 << 20;
const AHEAD: usize = 2;
/// Readers that a stalled read is begun anew with, at once: the NameNode orders equally distant replicas at random, and the client
/// tries them in that order.
const ANEW: usize = 4;
/// How often that is done: of two replicas, all four readers take the one that hangs once in sixteen times.
const ROUNDS: usize = 3;
const DELETES: usize = 10;

/// See the module.
pub(super) struct Hdfs {
    shared: Arc<Shared>,
}

struct Shared {
    url: String,
    settings: Arc<Settings>,
    /// Where writes are cleaned up that nobody waits for any more.
    runtime: Handle,
    connection: RwLock<Arc<Connection>>,
    connections: AtomicU64,
    readers: Mutex<Lru<Path, Arc<Opened>>>,
    writing: write::Writing,
}

/// A client; another takes its place when it did not answer in time, for it waits on its socket for ever.
struct Connection {
    number: u64,
    client: Client,
}

/// A file's status and block locations.
struct Opened {
    meta: ObjectMeta,
    reader: FileReader,
    since: Instant,
}

impl Hdfs {
    /// A store for `url`, a scheme and an authority. Nothing is asked yet; a cluster that is down is none of an error's.
    pub(super) fn connect(url: &str, settings: Arc<Settings>, runtime: Handle) -> crate::Result<Self> {
        let client = build(url, &settings, &runtime, false)?;
        Ok(Self {
            shared: Arc::new(Shared {
                url: url.to_owned(),
                settings,
                runtime,
                connection: RwLock::new(Arc::new(Connection { number: 0, client })),
                connections: AtomicU64::new(0),
                readers: Mutex::new(Lru::new(REMEMBERED)),
                writing: write::Writing::default(),
            }),
        })
    }
}

fn build(url: &str, settings: &Settings, runtime: &Handle, again: bool) -> crate::Result<Client> {
    let location =
        |what: String, advice: &'static str| crate::Error::Location { url: url.into(), what, advice };
    let mut properties = settings.hadoop.clone();
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    if again {
        // The NameNode that hung comes first in the files' order; any order is as good as another.
        properties.insert(format!("dfs.client.failover.random.order.{host}"), "true".into());
    }
    if let Some(dir) = &settings.hadoop_conf_dir
        && !["core-site.xml", "hdfs-site.xml"].iter().any(|name| dir.join(name).is_file())
    {
        return Err(location(
            format!("{} holds neither core-site.xml nor hdfs-site.xml", dir.display()),
            "set lake.hadoop_conf_dir to the directory of the cluster's client configuration",
        ));
    }
    let builder = |url: String| {
        let mut builder = ClientBuilder::new()
            .with_url(url)
            .with_config(properties.clone())
            .with_io_runtime(runtime.clone());
        if let Some(dir) = &settings.hadoop_conf_dir {
            builder = builder.with_config_dir(dir.to_string_lossy());
        }
        builder.build()
    };
    match builder(url.to_owned()) {
        // No nameservice of that name: a host, then, on the port that Hadoop itself takes for one.
        Err(HdfsError::InvalidArgument(what))
            if url.starts_with("hdfs://") && what.contains("No NameNode") =>
        {
            builder(format!("{url}:8020"))
        }
        other => other,
    }
    .map_err(|e| {
        location(
            e.to_string(),
            "lake.hadoop_conf_dir or HADOOP_CONF_DIR must name the cluster's client configuration",
        )
    })
}

impl Shared {
    fn connection(&self) -> Arc<Connection> {
        self.connection.read().clone()
    }

    /// Waits for an answer of the NameNode.
    async fn asked<T>(
        &self,
        what: &'static str,
        path: &str,
        connection: &Connection,
        answer: impl Future<Output = hdfs_native::Result<T>>,
    ) -> Result<T> {
        match timeout(self.settings.metadata_timeout, answer).await {
            Ok(done) => done.map_err(|e| convert(path, e)),
            Err(_) => {
                self.replace(connection.number);
                Err(stalled(what, self.settings.metadata_timeout))
            }
        }
    }

    /// Takes a new client in place of the one with this number.
    fn replace(&self, number: u64) {
        let mut held = self.connection.write();
        if held.number != number {
            return;
        }
        match build(&self.url, &self.settings, &self.runtime, true) {
            Ok(client) => {
                let number = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
                *held = Arc::new(Connection { number, client });
                tracing::debug!(
                    url = self.url,
                    "the NameNode did not answer in time; asked again over a new connection"
                );
            }
            Err(error) => tracing::debug!(url = self.url, %error, "no new client of HDFS"),
        }
    }

    async fn status(&self, location: &Path) -> Result<FileStatus> {
        let (connection, path) = (self.connection(), absolute(location));
        self.asked("the status of a file", &path, &connection, connection.client.get_file_info(&path)).await
    }

    /// Status and block locations as the NameNode has them now.
    async fn open_anew(&self, location: &Path) -> Result<Arc<Opened>> {
        let (connection, path) = (self.connection(), absolute(location));
        let both = async {
            futures::try_join!(connection.client.get_file_info(&path), connection.client.read(&path))
        };
        let (status, reader) = self.asked("the blocks of a file", &path, &connection, both).await?;
        let mut meta = meta(location.clone(), &status)?;
        // Of two answers at different times, the one with the blocks is what is read.
        meta.size = reader.file_length() as u64;
        Ok(Arc::new(Opened { meta, reader, since: Instant::now() }))
    }

    async fn open(&self, location: &Path) -> Result<Arc<Opened>> {
        if !is_immutable(location) {
            return self.open_anew(location).await;
        }
        if let Some(known) = self.readers.lock().get(location).cloned()
            && known.since.elapsed() < REMEMBERED_FOR
        {
            return Ok(known);
        }
        let opened = self.open_anew(location).await?;
        self.readers.lock().put(location.clone(), opened.clone());
        Ok(opened)
    }

    fn forget(&self, location: &Path) {
        self.readers.lock().remove(location);
    }

    /// `range` of a file, which must lie within it.
    async fn fetch(&self, location: &Path, opened: &Arc<Opened>, range: Range<u64>) -> Result<Bytes> {
        let first = match self.read(opened, range.clone()).await {
            Ok(bytes) => return Ok(bytes),
            Err(error) => error,
        };
        // Blocks that moved, tokens that ran out, a DataNode that hangs: ask where they are now, and read from there.
        tracing::debug!(path = %location, error = %first, "a read from HDFS is begun anew");
        self.forget(location);
        let mut last = first;
        for _ in 0..ROUNDS {
            let named = AtomicBool::new(false);
            let mut anew: FuturesUnordered<_> = (0..ANEW)
                .map(|_| async {
                    let opened = self.open_anew(location).await?;
                    named.store(true, Ordering::Relaxed);
                    let bytes = self.read(&opened, range.clone()).await?;
                    Ok::<_, Error>((opened, bytes))
                })
                .collect();
            while let Some(done) = anew.next().await {
                match done {
                    Ok((opened, bytes)) => {
                        if is_immutable(location) {
                            // The replica that answered comes first in it.
                            self.readers.lock().put(location.clone(), opened);
                        }
                        return Ok(bytes);
                    }
                    Err(error @ Error::NotFound { .. }) => return Err(error),
                    Err(error) => last = error,
                }
            }
            // It is the NameNode that does not answer; it was given its time.
            if !named.load(Ordering::Relaxed) {
                break;
            }
        }
        Err(last)
    }

    async fn read(&self, opened: &Opened, range: Range<u64>) -> Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let path = opened.meta.location.as_ref();
        let bounds = (usize::try_from(range.start), usize::try_from(range.end - range.start));
        let (Ok(start), Ok(length)) = bounds else {
            return Err(error::other(format!("{path}: {range:?} is no range of memory")));
        };
        // The client panics on a range that the file does not have.
        if range.end > opened.reader.file_length() as u64 {
            return Err(error::other(format!(
                "{path} ends at {}, {range:?} was asked for",
                opened.reader.file_length()
            )));
        }
        let mut packets = std::pin::pin!(opened.reader.read_range_stream(start, length));
        let mut first: Option<Bytes> = None;
        let mut all = BytesMut::new();
        loop {
            match timeout(self.settings.read_timeout, packets.next()).await {
                Err(_) => return Err(stalled("a DataNode's bytes", self.settings.read_timeout)),
                Ok(Some(Err(e))) => return Err(convert(path, e)),
                Ok(Some(Ok(packet))) => {
                    // A read within one packet is handed on as it is.
                    if first.is_none() && all.is_empty() && packet.len() < length {
                        all.reserve(length);
                    }
                    if packet.len() == length && all.is_empty() {
                        first = Some(packet);
                    } else {
                        all.extend_from_slice(&packet);
                    }
                }
                Ok(None) => break,
            }
        }
        let bytes = first.unwrap_or_else(|| all.freeze());
        if bytes.len() != length {
            return Err(error::other(format!("{path}: {} bytes came of {length}", bytes.len())));
        }
        Ok(bytes)
    }

    /// Deletes a file; false: there was none.
    async fn delete(&self, path: &str) -> Result<bool> {
        let connection = self.connection();
        self.asked("a deletion", path, &connection, connection.client.delete(path, false)).await
    }

    fn listing(
        self: &Arc<Self>,
        prefix: Option<&Path>,
        recursive: bool,
    ) -> BoxStream<'static, Result<FileStatus>> {
        let directory = prefix.map_or_else(|| "/".to_owned(), absolute);
        let (this, connection) = (self.clone(), self.connection());
        let entries = connection.client.list_status_iter(&directory, recursive);
        stream::unfold(Some(entries), move |entries| {
            let (this, connection, directory) = (this.clone(), connection.clone(), directory.clone());
            async move {
                let entries = entries?;
                loop {
                    let next = async { Ok(entries.next().await) };
                    match this.asked("a listing", &directory, &connection, next).await {
                        Err(error) => return Some((Err(error), None)),
                        Ok(None) => return None,
                        // A directory that is not there holds nothing; a file listed by its own name is not in it.
                        Ok(Some(Err(HdfsError::FileNotFound(_)))) => {}
                        Ok(Some(Ok(status))) if status.path == directory => {}
                        Ok(Some(Err(e))) => return Some((Err(convert(&directory, e)), None)),
                        Ok(Some(Ok(status))) => return Some((Ok(status), Some(entries))),
                    }
                }
            }
        })
        // Delta's library polls streams that have ended.
        .fuse()
        .boxed()
    }

    /// The library's own store, for what is rarely asked of a lake.
    fn library(&self) -> HdfsObjectStore {
        HdfsObjectStore::new(self.connection().client.clone())
    }
}

impl fmt::Debug for Hdfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hdfs").field("url", &self.shared.url).finish_non_exhaustive()
    }
}

impl fmt::Display for Hdfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shared.url)
    }
}

#[async_trait]
impl ObjectStore for Hdfs {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let overwrite = match opts.mode {
            PutMode::Create => false,
            PutMode::Overwrite => true,
            PutMode::Update(_) => {
                return Err(Error::NotSupported {
                    source: "HDFS has no versions of files to compare with".into(),
                });
            }
        };
        self.shared.put(location, payload, overwrite).await?;
        self.shared.forget(location);
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Ok(Box::new(write::Upload::new(self.shared.clone(), location.clone())))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if options.head {
            let status = self.shared.status(location).await?;
            let meta = meta(location.clone(), &status)?;
            options.check_preconditions(&meta)?;
            let payload = GetResultPayload::Stream(stream::empty().boxed());
            return Ok(GetResult { payload, meta, range: 0..0, attributes: Default::default() });
        }
        let opened = self.shared.open(location).await?;
        let meta = opened.meta.clone();
        options.check_preconditions(&meta)?;
        let range = match &options.range {
            Some(range) => range.as_range(meta.size).map_err(|e| error::other(e.to_string()))?,
            None => 0..meta.size,
        };
        let (shared, location) = (self.shared.clone(), location.clone());
        let payload = stream::iter(windows(range.clone()))
            .map(move |window| {
                let (shared, location, opened) = (shared.clone(), location.clone(), opened.clone());
                async move { shared.fetch(&location, &opened, window).await }
            })
            .buffered(AHEAD)
            .boxed();
        Ok(GetResult {
            payload: GetResultPayload::Stream(payload),
            meta,
            range,
            attributes: Default::default(),
        })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let shared = self.shared.clone();
        locations
            .map(move |location| {
                let shared = shared.clone();
                async move {
                    let location = location?;
                    shared.delete(&absolute(&location)).await?;
                    shared.forget(&location);
                    Ok(location)
                }
            })
            .buffered(DELETES)
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.shared
            .listing(prefix, true)
            .try_filter_map(|status| async move {
                if status.isdir {
                    return Ok(None);
                }
                Ok(Some(meta(Path::parse(&status.path)?, &status)?))
            })
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut result = ListResult { common_prefixes: Vec::new(), objects: Vec::new() };
        let mut entries = self.shared.listing(prefix, false);
        while let Some(status) = entries.try_next().await? {
            let path = Path::parse(&status.path)?;
            if status.isdir {
                result.common_prefixes.push(path);
            } else {
                result.objects.push(meta(path, &status)?);
            }
        }
        Ok(result)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.shared.forget(to);
        self.shared.library().copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.shared.forget(from);
        self.shared.forget(to);
        self.shared.library().rename_opts(from, to, options).await
    }
}

/// Object stores know paths without the slash before them.
fn absolute(location: &Path) -> String {
    format!("/{location}")
}

fn windows(range: Range<u64>) -> Vec<Range<u64>> {
    let mut windows = Vec::new();
    let mut start = range.start;
    while start < range.end {
        let end = range.end.min(start + WINDOW);
        windows.push(start..end);
        start = end;
    }
    windows
}

fn meta(location: Path, status: &FileStatus) -> Result<ObjectMeta> {
    if status.isdir {
        return Err(Error::NotFound { path: location.to_string(), source: "it is a directory".into() });
    }
    let (time, size) = (status.modification_time, status.length);
    let last_modified = i64::try_from(time).ok().and_then(DateTime::from_timestamp_millis);
    Ok(ObjectMeta {
        location,
        last_modified: last_modified.ok_or_else(|| error::other(format!("a file is of the time {time}")))?,
        size: size as u64,
        e_tag: Some(format!("{time:x}-{size:x}")),
        version: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_a_range_without_gap() {
        for (start, end) in [(0, 0), (0, 1), (5, WINDOW + 5), (7, 3 * WINDOW), (0, 2 * WINDOW)] {
            let windows = windows(start..end);
            let mut at = start;
            for window in &windows {
                assert_eq!(window.start, at);
                assert!(window.end > window.start && window.end - window.start <= WINDOW);
                at = window.end;
            }
            assert_eq!(at, end);
        }
    }
}
