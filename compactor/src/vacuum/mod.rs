//! Which files no version needs any more, and their deletion. The decision is pure; the rest asks the log, lists and deletes. Never
//! changes the log.
//!
//! - A file that a commit removed goes once the commit is older than the grace period and no lease is on a version before it: whoever
//!   still reads an older version began before that, or says so.
//! - A file that no commit names (a crash left it, a writer has not committed yet, or it was removed longer ago than the log tells) goes
//!   once it is itself older than the orphan period, which must be longer than any archive or rewrite takes, and only while there are
//!   no leases at all. So does what an interrupted upload left behind.
//!
//! The folder of a day goes with its last file, where folders are more than parts of names. Nobody is kept out for that: only an empty
//! folder can go, and a file begins with making the folder it does not find and then standing in it, under the name that it has while it
//! is written.
//!
//! What commits removed is known from the log, without listing anything. For the rest the table's files are listed, before the log is
//! read, so that a file committed in between is seen as needed.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path as FsPath, PathBuf};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use lake::log::{LakeTable, Removed};
use lake::{crash, store};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

use crate::{Error, Result};

/// How long files outlive their use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Periods {
    /// After the commit that removed them.
    pub grace: Duration,
    /// After they were last written, where no commit names them. Never shorter than `grace`.
    pub orphan: Duration,
}

impl Periods {
    fn grace_ms(&self) -> i64 {
        i64::try_from(self.grace.as_millis()).unwrap_or(i64::MAX)
    }

    /// The orphan period as it counts.
    pub fn orphan_ms(&self) -> i64 {
        i64::try_from(self.orphan.max(self.grace).as_millis()).unwrap_or(i64::MAX)
    }
}

/// A file below the table's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Relative to the table's directory.
    pub path: String,
    /// Milliseconds since 1970.
    pub modified_ms: i64,
    /// Bytes.
    pub size: u64,
}

/// What a vacuum deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    pub files: usize,
    /// Bytes.
    pub bytes: u64,
}

/// Which part of the work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// What the log tells of.
    Removed,
    /// All of it.
    Everything,
}

/// What a vacuum did, and when there will be more to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sweep {
    pub swept: Swept,
    /// When the next file may go of which the log tells (milliseconds since 1970).
    pub next_ms: Option<i64>,
}

/// What may not be deleted whatever its age: the version at hand, and what older versions need that are still read.
pub struct Needed<'a> {
    /// Whether the newest version has the file.
    pub live: &'a dyn Fn(&str) -> bool,
    /// What the log tells of the file's removal.
    pub removal: &'a dyn Fn(&str) -> Option<Removed>,
    /// The oldest version that somebody holds a lease on.
    pub oldest_read: Option<i64>,
}

impl Needed<'_> {
    /// Whether a file that was removed so may go by now.
    fn lets_go(&self, removed: &Removed, periods: &Periods, now_ms: i64) -> bool {
        now_ms.saturating_sub(removed.at_ms) > periods.grace_ms() && self.unread(removed)
    }

    fn unread(&self, removed: &Removed) -> bool {
        self.oldest_read.is_none_or(|read| u64::try_from(read).is_ok_and(|read| read >= removed.version))
    }
}

/// The files of `listed` that may go.
pub fn deletable<'a>(
    listed: &'a [Listed],
    needed: &Needed<'_>,
    periods: &Periods,
    now_ms: i64,
) -> Vec<&'a Listed> {
    let ours = |file: &Listed| if is_data(&file.path) { !(needed.live)(&file.path) } else { is_unfinished(&file.path) };
    listed
        .iter()
        .filter(|file| ours(file))
        .filter(|file| match (needed.removal)(&file.path) {
            Some(removed) => needed.lets_go(&removed, periods, now_ms),
            // Removed long ago, or never committed: its own age is all that is known.
            None => {
                needed.oldest_read.is_none() && now_ms.saturating_sub(file.modified_ms) > periods.orphan_ms()
            }
        })
        .collect()
}

/// Whether our writer may have made this: a Parquet file in the folder of a day.
fn is_data(path: &str) -> bool {
    path.split_once('/').is_some_and(|(day, name)| {
        is_day(day) && !name.contains('/') && !name.starts_with('.') && name.ends_with(".parquet")
    })
}

/// Whether this is an upload that did not end, by the names that HDFS's client gives: `.name.tmp.x` beside the place of `name`, in the
/// folder of a day or in the log.
fn is_unfinished(path: &str) -> bool {
    path.split_once('/').is_some_and(|(folder, name)| {
        (is_day(folder) || folder == "_delta_log")
            && !name.contains('/')
            && name.starts_with('.')
            && name.rsplit_once(".tmp.").is_some_and(|(_, mark)| {
                !mark.is_empty() && mark.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            })
    })
}

/// The folder of a data file.
fn folder_of(path: &str) -> Option<&str> {
    path.split_once('/').map(|(folder, _)| folder)
}

fn is_day(folder: &str) -> bool {
    folder.strip_prefix(lake::types::DAY).is_some_and(|rest| rest.starts_with('='))
}

/// Deletes what may go. To be called by the table's leading compactor only, with the oldest version that is leased.
pub async fn sweep(
    table: &mut LakeTable,
    scope: Scope,
    oldest_read: Option<i64>,
    periods: &Periods,
    now_ms: i64,
) -> Result<Sweep> {
    let prefix = table.prefix().clone();
    let listed = match scope {
        Scope::Everything => Some(list(table.store().as_ref(), &prefix).await?),
        Scope::Removed => None,
    };
    table.refresh().await?;
    let doomed: Vec<(String, u64)> = {
        let live = |path: &str| table.has_file(path);
        let removal = |path: &str| table.removal_of(path);
        let needed = Needed { live: &live, removal: &removal, oldest_read };
        match &listed {
            Some(listed) => deletable(listed, &needed, periods, now_ms)
                .into_iter()
                .map(|file| (file.path.clone(), file.size))
                .collect(),
            None => table
                .removed()
                .filter(|(path, _)| is_data(path) && !live(path))
                .filter(|(_, removed)| needed.lets_go(removed, periods, now_ms))
                .map(|(path, removed)| (path.to_owned(), removed.size))
                .collect(),
        }
    };
    let mut sweep = Sweep { swept: delete(table, &doomed).await?, next_ms: None };
    // The folders that the newest version has files in, whether or not they are there at the moment.
    let needed: HashSet<String> = match doomed.is_empty() && listed.is_none() {
        true => HashSet::new(),
        false => table.current().files.iter().filter_map(|file| folder_of(&file.path)).map(str::to_owned).collect(),
    };
    let emptied = doomed.iter().filter_map(|(path, _)| folder_of(path)).filter(|day| !needed.contains(*day));
    remove_folders(table, emptied).await;
    if let Some(listed) = &listed {
        // What the listing did not show is gone already.
        let there: std::collections::HashSet<&str> = listed.iter().map(|f| f.path.as_str()).collect();
        let gone: Vec<String> = table
            .removed()
            .filter(|(path, removed)| {
                !there.contains(path) && now_ms.saturating_sub(removed.at_ms) > periods.grace_ms()
            })
            .map(|(path, _)| path.to_owned())
            .collect();
        table.forget_removed(gone);
        if let Some(dir) = store::local_dir(table.url()) {
            let unfinished = sweep_unfinished(dir, needed, periods.orphan.max(periods.grace)).await?;
            sweep.swept.files += unfinished.files;
            sweep.swept.bytes += unfinished.bytes;
        }
    }
    sweep.next_ms = table.removed().map(|(_, removed)| removed.at_ms.saturating_add(periods.grace_ms() + 1)).min();
    crash::point("compact.vacuum.done");
    Ok(sweep)
}

/// How much a vacuum would delete now, and how many bytes; lists and deletes nothing.
pub fn preview(table: &LakeTable, oldest_read: Option<i64>, periods: &Periods, now_ms: i64) -> Swept {
    let needed = Needed { live: &|path| table.has_file(path), removal: &|_| None, oldest_read };
    let mut swept = Swept::default();
    for (_, removed) in table.removed().filter(|(_, removed)| needed.lets_go(removed, periods, now_ms)) {
        swept.files += 1;
        swept.bytes += removed.size;
    }
    swept
}

/// Deletes the files, as many as can be; the first error is told after the others were tried.
async fn delete(table: &mut LakeTable, doomed: &[(String, u64)]) -> Result<Swept> {
    let mut swept = Swept::default();
    let mut failed = None;
    // In pieces, so that one failure hides the fate of few.
    for some in doomed.chunks(100) {
        let prefix = table.prefix();
        let locations: Vec<Path> = some
            .iter()
            .map(|(path, _)| prefix.parts().chain(Path::from(path.as_str()).parts()).collect())
            .collect();
        crash::point("compact.vacuum.delete");
        let stream = futures::stream::iter(locations.into_iter().map(Ok)).boxed();
        let outcome = table.store().delete_stream(stream).filter_map(gone_is_fine).try_for_each(|()| async { Ok(()) });
        match outcome.await {
            Ok(()) => {
                swept.files += some.len();
                swept.bytes += some.iter().map(|(_, size)| size).sum::<u64>();
                table.forget_removed(some.iter().map(|(path, _)| path.clone()));
            }
            Err(e) => failed = failed.or(Some(e)),
        }
    }
    match failed {
        Some(e) => Err(e.into()),
        None => Ok(swept),
    }
}

/// Removes those of these folders that are empty now.
async fn remove_folders<'a>(table: &LakeTable, folders: impl Iterator<Item = &'a str>) {
    let emptied: BTreeSet<&str> = folders.filter(|folder| is_day(folder)).collect();
    let local = store::local_dir(table.url());
    for folder in emptied {
        // Nothing depends on it, and a folder that has got a file meanwhile is not to go: no failure is one of the vacuum's.
        let failed = match &local {
            Some(dir) => std::fs::remove_dir(dir.join(folder)).err().map(|e| e.to_string()),
            // HDFS deletes a folder as a file, unless something is in it. Object storage has none.
            None if matches!(table.url().scheme(), "hdfs" | "viewfs") => {
                let location: Path = table.prefix().parts().chain(Path::from(folder).parts()).collect();
                table.store().delete(&location).await.err().map(|e| e.to_string())
            }
            None => None,
        };
        if let Some(error) = failed {
            tracing::debug!(folder, error, "the folder of a day stays");
        }
    }
}

async fn gone_is_fine(deleted: object_store::Result<Path>) -> Option<object_store::Result<()>> {
    match deleted {
        Ok(_) | Err(object_store::Error::NotFound { .. }) => Some(Ok(())),
        Err(e) => Some(Err(e)),
    }
}

/// Every file below the table's directory.
async fn list(store: &dyn ObjectStore, prefix: &Path) -> Result<Vec<Listed>> {
    let metas: Vec<ObjectMeta> = store.list(Some(prefix)).try_collect().await?;
    Ok(metas
        .into_iter()
        .filter_map(|meta| {
            let relative: Vec<_> = meta.location.prefix_match(prefix)?.collect();
            Some(Listed {
                path: relative.iter().map(|p| p.as_ref()).collect::<Vec<_>>().join("/"),
                modified_ms: meta.last_modified.timestamp_millis(),
                size: meta.size,
            })
        })
        .collect())
}

/// Uploads that a crash interrupted: on a local disk they stand beside the file they would have become, as `name#number`, and no
/// listing of the store shows them. Nor does one show folders that a crash left without files.
async fn sweep_unfinished(dir: PathBuf, needed: HashSet<String>, period: Duration) -> Result<Swept> {
    tokio::task::spawn_blocking(move || {
        let mut swept = Swept::default();
        for folder in read_dir(&dir)? {
            let name = folder.file_name();
            let name = name.to_string_lossy();
            if !(is_day(&name) || name == "_delta_log") || !folder.path().is_dir() {
                continue;
            }
            let files = read_dir(&folder.path())?;
            if files.is_empty() && is_day(&name) && !needed.contains(&*name) {
                if let Err(error) = std::fs::remove_dir(folder.path()) {
                    tracing::debug!(folder = %name, %error, "the folder of a day stays");
                }
                continue;
            }
            for file in files {
                let name = file.file_name();
                let Some((place, number)) = name.to_str().and_then(|n| n.rsplit_once('#')) else {
                    continue;
                };
                if !(place.ends_with(".parquet") || place.ends_with(".json")) {
                    continue;
                }
                let Ok(meta) = file.metadata() else { continue };
                let old = meta.modified().ok().and_then(|t| t.elapsed().ok()).is_some_and(|age| age > period);
                if number.bytes().all(|b| b.is_ascii_digit()) && old {
                    std::fs::remove_file(file.path()).map_err(|source| Error::Io {
                        action: "delete",
                        path: file.path().display().to_string(),
                        source,
                    })?;
                    swept.files += 1;
                    swept.bytes += meta.len();
                }
            }
        }
        Ok(swept)
    })
    .await
    .map_err(|_| Error::ThreadLost)?
}

fn read_dir(dir: &FsPath) -> Result<Vec<std::fs::DirEntry>> {
    let failed = |source| Error::Io { action: "list", path: dir.display().to_string(), source };
    std::fs::read_dir(dir).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}

#[cfg(test)]
mod tests;
