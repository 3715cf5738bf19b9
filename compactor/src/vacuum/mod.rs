//! Which files no version needs any more, and their deletion. The decision is pure; the rest lists, reads the log's newest entries and
//! deletes. Never changes the log.
//!
//! - A file that a commit removed goes once the commit is older than the grace period: whoever still reads an older version began
//!   before that.
//! - A file that no commit ever named (a crash left it, or a writer has not committed yet) goes once it is itself older than the
//!   orphan period, which must be longer than any archive or rewrite takes.
//!
//! The table's files are listed before the log is read, so a file committed in between is seen as needed.

use std::collections::{HashMap, HashSet};
use std::path::{Path as FsPath, PathBuf};
use std::time::Duration;

use futures::TryStreamExt;
use lake::log::LakeTable;
use lake::{crash, store};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use serde::Deserialize;

use crate::{Error, Result};

/// Entries of the log are named and dated by the store; its clock and ours may differ by this much.
const CLOCK_SLACK_MS: i64 = 10 * 60 * 1000;

/// How long files outlive their use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Periods {
    /// After the commit that removed them.
    pub grace: Duration,
    /// After they were last written, where no commit names them. Never shorter than `grace`.
    pub orphan: Duration,
}

/// A file below the table's directory, outside the log.
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

/// The files of `listed` that may go: not `live`, and either in `removed` (path -> time of the commit that removed it, milliseconds
/// since 1970) for longer than the grace period, or in neither and older than the orphan period. `removed` must hold all removals
/// of the orphan period.
pub fn deletable<'a>(
    listed: &'a [Listed],
    live: &HashSet<&str>,
    removed: &HashMap<String, i64>,
    periods: &Periods,
    now_ms: i64,
) -> Vec<&'a Listed> {
    let ms = |d: Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
    let older = |since: i64, period: i64| now_ms.saturating_sub(since) > period;
    let (grace, orphan) = (ms(periods.grace), ms(periods.orphan.max(periods.grace)));
    listed
        .iter()
        .filter(|file| !live.contains(file.path.as_str()))
        .filter(|file| match removed.get(&file.path) {
            Some(at) => older(*at, grace),
            // Removed long ago, or never committed: its own age is all that is known.
            None => older(file.modified_ms, orphan),
        })
        .collect()
}

/// Removals that the log's newest entries tell of, kept from one vacuum of a table to the next: entries never change.
#[derive(Debug, Default)]
pub struct Removals {
    entries: HashMap<Path, Vec<(String, i64)>>,
}

/// The parts of a log entry's lines that matter here.
#[derive(Deserialize)]
struct Line {
    remove: Option<Remove>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Remove {
    path: String,
    deletion_timestamp: Option<i64>,
}

impl Removals {
    /// Reads the entries that are younger than `since_ms`, and forgets the others.
    async fn refresh(&mut self, table: &LakeTable, since_ms: i64) -> Result<HashMap<String, i64>> {
        let log = table.prefix().clone().join("_delta_log");
        let store = table.store();
        let young: Vec<ObjectMeta> = store
            .list(Some(&log))
            .try_filter(|m| {
                let fits = m.location.extension() == Some("json")
                    && m.last_modified.timestamp_millis() >= since_ms.saturating_sub(CLOCK_SLACK_MS);
                async move { fits }
            })
            .try_collect()
            .await?;
        let present: HashSet<&Path> = young.iter().map(|m| &m.location).collect();
        self.entries.retain(|path, _| present.contains(path));
        for meta in &young {
            if self.entries.contains_key(&meta.location) {
                continue;
            }
            let text = store.get(&meta.location).await?.bytes().await?;
            let removed = parse(&text, meta.last_modified.timestamp_millis()).map_err(|e| Error::File {
                path: meta.location.to_string(),
                what: format!("a log entry that cannot be read: {e}"),
            })?;
            self.entries.insert(meta.location.clone(), removed);
        }
        let mut all = HashMap::new();
        for (path, at) in self.entries.values().flatten() {
            all.entry(path.clone()).and_modify(|t: &mut i64| *t = (*t).max(*at)).or_insert(*at);
        }
        Ok(all)
    }
}

/// The removals of one entry, each at the later of its own time and the entry's.
fn parse(entry: &[u8], entry_ms: i64) -> serde_json::Result<Vec<(String, i64)>> {
    let mut removed = Vec::new();
    for line in entry.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        if let Some(remove) = serde_json::from_slice::<Line>(line)?.remove {
            removed.push((remove.path, remove.deletion_timestamp.unwrap_or(entry_ms).max(entry_ms)));
        }
    }
    Ok(removed)
}

/// Deletes what may go. To be called by the table's leading compactor only.
pub async fn sweep(
    table: &mut LakeTable,
    removals: &mut Removals,
    periods: &Periods,
    now_ms: i64,
) -> Result<Swept> {
    let store = table.store();
    let prefix = table.prefix().clone();
    let listed = list(store.as_ref(), &prefix).await?;
    let orphan_ms = i64::try_from(periods.orphan.max(periods.grace).as_millis()).unwrap_or(i64::MAX);
    let removed = removals.refresh(table, now_ms.saturating_sub(orphan_ms)).await?;
    let version = table.refresh().await?;
    let live: HashSet<&str> = version.files.iter().map(|f| f.path.as_str()).collect();
    let mut swept = Swept::default();
    for file in deletable(&listed, &live, &removed, periods, now_ms) {
        crash::point("compact.vacuum.delete");
        let location: Path = prefix.parts().chain(Path::from(file.path.as_str()).parts()).collect();
        match store.delete(&location).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(e) => return Err(e.into()),
        }
        swept.files += 1;
        swept.bytes += file.size;
    }
    if let Some(dir) = store::local_dir(table.url()) {
        let unfinished = sweep_unfinished(dir, periods.orphan.max(periods.grace)).await?;
        swept.files += unfinished.files;
        swept.bytes += unfinished.bytes;
    }
    crash::point("compact.vacuum.done");
    Ok(swept)
}

/// Data files below the table's directory, committed or not.
async fn list(store: &dyn ObjectStore, prefix: &Path) -> Result<Vec<Listed>> {
    let metas: Vec<ObjectMeta> = store.list(Some(prefix)).try_collect().await?;
    Ok(metas
        .into_iter()
        .filter_map(|meta| {
            let relative: Vec<_> = meta.location.prefix_match(prefix)?.collect();
            let first = relative.first()?;
            // Only what our writer may have made: a file in the folder of a day.
            let ours = relative.len() == 2
                && first.as_ref().starts_with(lake::types::DAY)
                && meta.location.extension() == Some("parquet");
            ours.then(|| Listed {
                path: relative.iter().map(|p| p.as_ref()).collect::<Vec<_>>().join("/"),
                modified_ms: meta.last_modified.timestamp_millis(),
                size: meta.size,
            })
        })
        .collect())
}

/// Uploads that a crash interrupted: on a local disk they stand beside the file they would have become, as `name#number`, and no
/// listing of the store shows them.
async fn sweep_unfinished(dir: PathBuf, period: Duration) -> Result<Swept> {
    tokio::task::spawn_blocking(move || {
        let mut swept = Swept::default();
        for day in read_dir(&dir)? {
            let name = day.file_name();
            if !name.to_string_lossy().starts_with(lake::types::DAY) || !day.path().is_dir() {
                continue;
            }
            for file in read_dir(&day.path())? {
                let name = file.file_name();
                let Some((_, number)) = name.to_str().and_then(|n| n.rsplit_once(".parquet#")) else {
                    continue;
                };
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
