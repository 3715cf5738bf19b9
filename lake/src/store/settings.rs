//! How the lake's stores are reached, and the one store that a process has for each of them. Reads no file and no environment of
//! its own: what is left out here, the clients take from the Hadoop configuration directory and from AWS_* in the environment.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use object_store::ObjectStore;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Runtime};
use url::Url;

use super::cache::{CacheStats, Cached};
use super::hdfs::Hdfs;
use super::{delta, s3};
use crate::{Error, Result};

/// How stores are reached.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Bytes of data files that are kept in memory, for each store; 0: none.
    pub cache_bytes: u64,
    /// A read from which nothing comes for this long is begun anew from other replicas, three times; then it fails.
    pub read_timeout: Duration,
    /// A write that does not move for this long fails.
    pub write_timeout: Duration,
    /// A question about files (status, listing, rename, deletion) that is not answered within this time fails.
    pub metadata_timeout: Duration,
    /// Directory of `core-site.xml` and `hdfs-site.xml`; None: `$HADOOP_CONF_DIR`, else `$HADOOP_HOME/etc/hadoop`, else none.
    pub hadoop_conf_dir: Option<PathBuf>,
    /// Hadoop's own properties, over those of the files.
    pub hadoop: BTreeMap<String, String>,
    pub s3: S3,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cache_bytes: 1 << 30,
            read_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(60),
            metadata_timeout: Duration::from_secs(15),
            hadoop_conf_dir: None,
            hadoop: BTreeMap::new(),
            s3: S3::default(),
        }
    }
}

impl fmt::Debug for Settings {
    // A property may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("cache_bytes", &self.cache_bytes)
            .field("read_timeout", &self.read_timeout)
            .field("write_timeout", &self.write_timeout)
            .field("metadata_timeout", &self.metadata_timeout)
            .field("hadoop_conf_dir", &self.hadoop_conf_dir)
            .field("hadoop", &self.hadoop.keys())
            .field("s3", &self.s3)
            .finish()
    }
}

/// Object storage that speaks S3; what is None comes from AWS_* in the environment.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct S3 {
    pub endpoint: Option<String>,
    pub region: Option<String>,
    /// Plain HTTP is refused without it.
    pub allow_http: Option<bool>,
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<String>,
    pub session_token: Option<String>,
    /// The bucket stands in the host's name, not in the path.
    pub virtual_hosted: Option<bool>,
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("allow_http", &self.allow_http)
            .field("keys", &self.secret_access_key.is_some())
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Registry {
    settings: Arc<Settings>,
    /// By scheme and authority.
    stores: HashMap<String, Opened>,
}

#[derive(Clone)]
struct Opened {
    store: Arc<dyn ObjectStore>,
    cache: Option<Arc<Cached>>,
}

static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(Mutex::default);

/// What remote stores run on: their connections outlive the runtime of whoever opened them, and their work must not wait for queries.
static RUNTIME: LazyLock<std::io::Result<Runtime>> = LazyLock::new(|| {
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8));
    Builder::new_multi_thread().worker_threads(threads).thread_name("watershed-store").enable_all().build()
});

/// Takes the settings for all stores that are opened from here on; stores that are held already keep theirs.
pub fn configure(settings: Settings) {
    let mut registry = REGISTRY.lock();
    registry.settings = Arc::new(settings);
    registry.stores.clear();
}

/// See [`super::open`]. One client and one cache in a process for each cluster or bucket.
pub(super) fn remote(url: &Url) -> Result<Arc<dyn ObjectStore>> {
    let scheme = if url.scheme() == "s3a" { "s3" } else { url.scheme() };
    if url.authority().is_empty() {
        return Err(Error::Location {
            url: url.to_string(),
            what: "it names no cluster and no bucket".into(),
            advice: "write it like hdfs://nameservice/path, hdfs://namenode:8020/path or s3://bucket/path",
        });
    }
    let key = format!("{scheme}://{}", url.authority());
    let mut registry = REGISTRY.lock();
    if let Some(known) = registry.stores.get(&key) {
        return Ok(known.store.clone());
    }
    let settings = registry.settings.clone();
    let runtime = RUNTIME.as_ref().map_err(|e| Error::Durability {
        action: "start the threads for",
        path: key.clone(),
        source: std::io::Error::new(e.kind(), e.to_string()),
    })?;
    let store: Arc<dyn ObjectStore> = match scheme {
        "s3" => Arc::new(s3::connect(url, &settings, runtime.handle())?),
        _ => Arc::new(Hdfs::connect(&key, settings.clone(), runtime.handle().clone())?),
    };
    let opened = if settings.cache_bytes == 0 {
        Opened { store, cache: None }
    } else {
        let cache = Arc::new(Cached::new(store, settings.cache_bytes, runtime.handle().clone()));
        Opened { store: cache.clone(), cache: Some(cache) }
    };
    delta::register();
    registry.stores.insert(key, opened.clone());
    Ok(opened.store)
}

/// What each store's cache did so far in this process.
pub fn cache_stats() -> Vec<(String, CacheStats)> {
    let registry = REGISTRY.lock();
    let mut stats: Vec<_> = registry
        .stores
        .iter()
        .filter_map(|(key, opened)| Some((key.clone(), opened.cache.as_ref()?.stats())))
        .collect();
    stats.sort_by(|a, b| a.0.cmp(&b.0));
    stats
}
