//! URL -> object store, and what a local disk needs beyond it: that a file named in the log survives a machine's crash.
//! Knows no Delta actions and no rows.
//!
//! Remote stores (`hdfs://`, `viewfs://`, `s3://`) are opened once in a process, with a cache of data files in front ([`Settings`]).
//! The local disk has the system's cache and gets none.

mod cache;
mod delta;
mod hdfs;
mod lru;
mod s3;
mod settings;

use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
pub use object_store::ObjectStoreExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use url::Url;

use crate::{Error, Result};

pub use cache::CacheStats;
pub use settings::{S3, Settings, cache_stats, configure};

/// The store that `url` lies in, rooted where the URL's scheme and authority are: paths in it are the URL's whole path.
/// A remote one is the same for every URL of its scheme and authority.
///
/// Errors: [`Error::Location`] for a URL or settings that lead nowhere; whether the store answers is not asked.
pub fn open(url: &Url) -> Result<Arc<dyn ObjectStore>> {
    match url.scheme() {
        "file" => Ok(Arc::new(LocalFileSystem::new())),
        "hdfs" | "viewfs" | "s3" | "s3a" => settings::remote(url),
        "memory" => Ok(Arc::from(object_store::parse_url(url)?.0)),
        scheme => Err(Error::Location {
            url: url.to_string(),
            what: format!("{scheme} is no kind of store"),
            advice: "a lake is kept at file://, hdfs://, viewfs:// or s3://",
        }),
    }
}

/// Whether a file never changes while it has its name: data files, which are named once.
pub fn is_immutable(location: &Path) -> bool {
    location.as_ref().ends_with(".parquet") && !location.parts().any(|part| part.as_ref() == "_delta_log")
}

/// Whether a file is one that its writer has not finished, or never will.
pub fn is_temporary(location: &Path) -> bool {
    location.filename().is_some_and(|name| name.starts_with('.') && name.contains(".tmp."))
}

/// The URL of the table directory `lake_path` (one or more segments) below `root`, without a slash at its end.
///
/// Errors: [`Error::Schema`] if the root is no base or a segment is empty, `.` or `..`.
pub fn table_url(root: &Url, lake_path: &str) -> Result<Url> {
    let bad = || Error::Schema { table: lake_path.into(), what: format!("cannot be placed below {root}") };
    let mut url = root.clone();
    {
        let mut segments = url.path_segments_mut().map_err(|()| bad())?;
        segments.pop_if_empty();
        for segment in lake_path.split('/') {
            if matches!(segment, "" | "." | "..") {
                return Err(bad());
            }
            segments.push(segment);
        }
    }
    Ok(url)
}

/// The path of `url` within the store that [`open`] gives.
pub fn path(url: &Url) -> Result<Path> {
    Ok(Path::from_url_path(url.path()).map_err(object_store::Error::from)?)
}

/// The directory of a `file://` URL.
pub fn local_dir(url: &Url) -> Option<PathBuf> {
    (url.scheme() == "file").then(|| url.to_file_path().ok()).flatten()
}

/// Makes the local file `relative` below `dir` durable: its bytes, and the names that lead to it from `dir` on.
/// Other stores are durable when they say a write is done.
pub async fn make_durable(dir: Option<PathBuf>, relative: &str) -> Result<()> {
    let Some(dir) = dir else {
        return Ok(());
    };
    let relative = relative.to_owned();
    tokio::task::spawn_blocking(move || {
        let file = dir.join(&relative);
        sync(&file)?;
        let mut at = file.parent();
        while let Some(parent) = at.filter(|p| p.starts_with(&dir)) {
            sync(parent)?;
            at = parent.parent();
        }
        Ok(())
    })
    .await
    .map_err(|e| Error::Durability {
        action: "sync",
        path: "in the background".into(),
        source: std::io::Error::other(e),
    })?
}

/// Makes the directory of a new table durable: the names from the lake's root down to it.
pub async fn make_directory_durable(root: &Url, table: &Url) -> Result<()> {
    let (Some(root), Some(table)) = (local_dir(root), local_dir(table)) else {
        return Ok(());
    };
    tokio::task::spawn_blocking(move || {
        let mut at = Some(table.as_path());
        while let Some(dir) = at.filter(|p| p.starts_with(&root)) {
            sync(dir)?;
            at = dir.parent();
        }
        Ok(())
    })
    .await
    .map_err(|e| Error::Durability {
        action: "sync",
        path: "in the background".into(),
        source: std::io::Error::other(e),
    })?
}

fn sync(path: &FsPath) -> Result<()> {
    std::fs::File::open(path).and_then(|f| f.sync_all()).map_err(|source| Error::Durability {
        action: "sync",
        path: path.display().to_string(),
        source,
    })
}
