//! The Delta log of a lake table: create, load, follow, commit. The only writer of the log; knows no Parquet bytes and no queries.
//!
//! A commit is one compare-and-set: the next version's entry is put if it is not there. What must hold for the commit (the archive it
//! builds on, the fence of its leader, the files it removes) is compared with the version right before, so whoever wins the race for
//! an entry has compared with everything committed earlier. After any error the log is read again before anything is concluded, for
//! a put may have landed although it failed.
//!
//! A commit holds, beside files, `txn` actions: the number of the archive ([`APP_ARCHIVE`]), the fences of the leaders, and how far each
//! source stream had been read ([`StreamEnd`]). So one version names files, boundary and positions.

mod action;
mod files;
mod load;
mod streams;
mod txns;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use deltalake_core::kernel::transaction::{CommitData, TransactionError};
use deltalake_core::kernel::{Action, Metadata, MetadataExt, Protocol, Transaction};
use deltalake_core::logstore::{CommitOrBytes, LogStoreRef, StorageConfig, get_actions, logstore_with};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::{DeltaTable, DeltaTableError};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use url::Url;
use uuid::Uuid;

use crate::spec::TableSpec;
use crate::stats::{Bound, ColumnStats, FileStats};
use crate::{Error, Result, crash, store, types};

/// `txn` application whose version is the number of the archive that a version holds.
pub const APP_ARCHIVE: &str = "watershed";
/// `txn` applications whose versions are the fences of the leaders.
pub const APP_ARCHIVER_FENCE: &str = "watershed/fence/archiver";
pub const APP_COMPACTOR_FENCE: &str = "watershed/fence/compactor";
/// `txn` application whose version is the day (days since 1970-01-01) before which every file was removed for good.
pub const APP_EXPIRED: &str = "watershed/expired";
/// The tag of an `add` action that names the column (lake name) by which the file's rows ascend.
pub const TAG_SORTED: &str = "watershed.sorted";

use files::FileSet;
pub use files::{Files, Part, Watch};
pub use streams::StreamEnd;

/// A lost race is run again at once, this many times.
const MAX_TRIES: u32 = 50;
/// Entries of the log stay at least this long: longer than any reader holds a version, and than vacuum looks back.
const LOG_RETENTION_MS: i64 = 7 * 24 * 3600 * 1000;
/// Files that are older are not committed any more. Vacuum leaves files that no commit names alone for twice as long, at least.
pub const UNCOMMITTED_MS: i64 = 12 * 3600 * 1000;
/// How often a quiet log is checked for having been cleaned past the version at hand.
const RECHECK: Duration = Duration::from_secs(30);

/// A file of a lake version.
#[derive(Debug, Clone, PartialEq)]
pub struct LakeFile {
    /// Relative to the table's directory, not URL-encoded.
    pub path: String,
    /// The same in the store that [`LakeTable::store`] gives.
    pub location: Path,
    /// Bytes.
    pub size: u64,
    pub rows: u64,
    /// Its partition: days since 1970-01-01, held to the years 1 to 9999 ([`types::partition_day`]).
    pub day: i32,
    /// Milliseconds since 1970.
    pub modification_ms: i64,
    /// Whether its rows ascend by event time.
    pub sorted: bool,
    pub stats: FileStats,
}

impl LakeFile {
    /// What is known of the column with this lake name. `None`: the file does not have it, and it is NULL in every row.
    pub fn column(&self, lake_name: &str) -> Option<&ColumnStats> {
        self.stats.columns.get(lake_name)
    }

    /// First and last event time, in the unit of its column (`event` is its lake name); everything, where that is not known.
    pub fn range(&self, event: &str) -> (i64, i64) {
        let bound = |b: Option<&Bound>, otherwise| match b {
            Some(Bound::Int(v)) => *v,
            _ => otherwise,
        };
        let column = self.column(event);
        (
            bound(column.and_then(|c| c.min.as_ref()), i64::MIN),
            bound(column.and_then(|c| c.max.as_ref()), i64::MAX),
        )
    }
}

/// A file that is written and not yet committed.
#[derive(Debug, Clone, PartialEq)]
pub struct NewFile {
    pub file: LakeFile,
    /// Delta's form of the statistics.
    pub delta_stats: String,
}

/// An immutable version of a lake table.
#[derive(Debug, Clone)]
pub struct LakeVersion {
    pub version: i64,
    /// The archive whose boundary this version holds; 0: nothing was archived.
    pub archive: i64,
    /// By day, then by least event time, then by path. Whoever holds them keeps the version from being vacuumed away (see [`Files::watch`]).
    pub files: Files,
    pub rows: u64,
    /// Bytes of all files.
    pub bytes: u64,
}

/// What became of a rewrite.
#[derive(Debug, Clone)]
pub enum CommitOutcome {
    /// It is in the log; this is the version that holds it, or a later one.
    Done(Arc<LakeVersion>),
    /// A file to be removed is no longer there: nothing was committed, the new files are the caller's to delete.
    Lost,
}

/// What [`LakeTable::commit_expire`] removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expired {
    pub files: usize,
    pub rows: u64,
    /// Bytes.
    pub bytes: u64,
    /// The version without them.
    pub version: i64,
}

/// A file that a commit removed, and that may still be there for readers of older versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// The first version without the file, or a later one: no version from here on needs it.
    pub version: u64,
    /// Bytes.
    pub size: u64,
}

/// Where a table's files stand and what they are made of: all that reading and writing one needs.
#[derive(Debug, Clone)]
pub struct Place {
    pub spec: Arc<TableSpec>,
    /// The table's directory, without a slash at its end.
    pub url: Url,
    pub store: Arc<dyn ObjectStore>,
    /// The table's directory in the store.
    pub prefix: Path,
}

/// Tells the time in milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// A lake table, followed from version to version.
pub struct LakeTable {
    spec: TableSpec,
    url: Url,
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    log: LogStoreRef,
    state: State,
    current: Arc<LakeVersion>,
    checked: Instant,
    clock: Clock,
}

impl std::fmt::Debug for LakeTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LakeTable")
            .field("url", &self.url.as_str())
            .field("version", &self.current.version)
            .finish_non_exhaustive()
    }
}

/// What the log says at one version.
struct State {
    version: u64,
    files: FileSet,
    txns: HashMap<String, i64>,
    metadata: Metadata,
    protocol: Protocol,
    /// Files that were removed, by path; kept for those who ask for it.
    removed: Option<HashMap<String, Removed>>,
}

/// What one try to write the next entry came to.
enum Try {
    Landed,
    /// Another commit has this version.
    Taken,
}

impl LakeTable {
    /// Opens the table of `spec` below `root`, creating an empty one if there is none. Columns that `spec` has and the lake lacks are
    /// added by [`Self::ensure_schema`], not here.
    pub async fn open_or_create(root: &Url, spec: &TableSpec) -> Result<Self> {
        Self::open_or_create_in(store::open(root)?, root, spec).await
    }

    /// [`Self::open_or_create`] in a store that is there already.
    pub async fn open_or_create_in(
        store: Arc<dyn ObjectStore>,
        root: &Url,
        spec: &TableSpec,
    ) -> Result<Self> {
        if let Some(table) = Self::open_in(store.clone(), root, spec).await? {
            return Ok(table);
        }
        create(store.clone(), root, spec).await?;
        Self::open_in(store, root, spec).await?.ok_or_else(|| Error::Schema {
            table: spec.qualified(),
            what: "its lake table vanished while it was being created".into(),
        })
    }

    /// Opens the table of `spec` below `root`; `None` if there is none.
    pub async fn open(root: &Url, spec: &TableSpec) -> Result<Option<Self>> {
        Self::open_in(store::open(root)?, root, spec).await
    }

    /// [`Self::open`] in a store that is there already: the one that [`store::open`] gives for `root`, or a wrapper of it.
    pub async fn open_in(store: Arc<dyn ObjectStore>, root: &Url, spec: &TableSpec) -> Result<Option<Self>> {
        Self::open_with(store, root, spec, false).await
    }

    /// [`Self::open_in`] for upkeep: with what the log tells of removed files ([`Self::removed`]).
    pub async fn open_for_upkeep(
        store: Arc<dyn ObjectStore>,
        root: &Url,
        spec: &TableSpec,
    ) -> Result<Option<Self>> {
        Self::open_with(store, root, spec, true).await
    }

    async fn open_with(
        store: Arc<dyn ObjectStore>,
        root: &Url,
        spec: &TableSpec,
        removed: bool,
    ) -> Result<Option<Self>> {
        let url = store::table_url(root, &spec.lake_path)?;
        let prefix = store::path(&url)?;
        let log = logstore_with(store.clone(), &url, StorageConfig::default())?;
        if !log.is_delta_table_location().await? {
            return Ok(None);
        }
        let state = load::load(&log, spec, &prefix, removed).await?;
        let current = Arc::new(state.freeze());
        Ok(Some(Self {
            spec: spec.clone(),
            url,
            store,
            prefix,
            log,
            state,
            current,
            checked: Instant::now(),
            clock: Arc::new(|| chrono::Utc::now().timestamp_millis()),
        }))
    }

    /// Takes removals to happen at the time that `clock` tells, instead of the system's.
    pub fn set_clock(&mut self, clock: Clock) {
        self.clock = clock;
    }

    /// Files that commits removed, by path: those of about the last week that the log still tells of and that were not
    /// [forgotten](Self::forget_removed). Empty unless opened for upkeep.
    pub fn removed(&self) -> impl Iterator<Item = (&str, Removed)> {
        self.state.removed.iter().flatten().map(|(path, removed)| (path.as_str(), *removed))
    }

    /// What is known of the removal of the file `path`.
    pub fn removal_of(&self, path: &str) -> Option<Removed> {
        self.state.removed.as_ref()?.get(path).copied()
    }

    /// Drops files from [`Self::removed`]: they are gone.
    pub fn forget_removed(&mut self, paths: impl IntoIterator<Item = String>) {
        if let Some(removed) = &mut self.state.removed {
            for path in paths {
                removed.remove(&path);
            }
        }
    }

    /// Whether the version at hand has the file `path`.
    pub fn has_file(&self, path: &str) -> bool {
        self.state.files.contains(path)
    }

    /// The version at hand.
    pub fn current(&self) -> Arc<LakeVersion> {
        self.current.clone()
    }

    /// The store that [`LakeFile::location`] is a path in.
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        self.store.clone()
    }

    /// The table's directory, without a slash at its end.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The table's directory in [`Self::store`].
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// What files of the table are written and read with.
    pub fn place(&self) -> Place {
        Place {
            spec: Arc::new(self.spec.clone()),
            url: self.url.clone(),
            store: self.store.clone(),
            prefix: self.prefix.clone(),
        }
    }

    /// The specification that the table was opened with.
    pub fn spec(&self) -> &TableSpec {
        &self.spec
    }

    /// The greatest fence that committed for an application ([`APP_ARCHIVER_FENCE`], [`APP_COMPACTOR_FENCE`]); 0: none did.
    pub fn fence(&self, app: &str) -> i64 {
        self.state.txns.get(app).copied().unwrap_or(0)
    }

    /// The newest version. Costs one look at the log where nothing changed, and the new entries where something did.
    pub async fn refresh(&mut self) -> Result<Arc<LakeVersion>> {
        let followed = self.follow().await;
        // Even after an error, or a call that was dropped half way: what is compared before a commit must be what entries are put behind.
        if self.current.version != i64::try_from(self.state.version).unwrap_or(i64::MAX) {
            self.state.files.tidy();
            self.current = Arc::new(self.state.freeze());
        }
        followed.map(|()| self.current())
    }

    /// Reads the entries that are new.
    async fn follow(&mut self) -> Result<()> {
        loop {
            let next = self.state.version + 1;
            match self.log.read_commit_entry(next).await? {
                Some(entry) => {
                    let actions = get_actions(next, &entry)?;
                    self.state.apply(next, actions, &self.spec, &self.prefix)?;
                }
                None => {
                    // Entries are deleted only below a checkpoint that holds them: a missing entry of our own version means that
                    // the log has moved on past the next one.
                    if self.checked.elapsed() >= RECHECK {
                        let own = Path::from(format!("_delta_log/{:020}.json", self.state.version));
                        match self.log.object_store(None).head(&own).await {
                            Ok(_) => {}
                            Err(object_store::Error::NotFound { .. }) => {
                                let removed = self.state.removed.is_some();
                                self.state = load::load(&self.log, &self.spec, &self.prefix, removed).await?;
                            }
                            Err(e) => return Err(e.into()),
                        }
                        self.checked = Instant::now();
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Takes over a newer specification, adding the columns that the lake lacks in one commit of metadata.
    ///
    /// Errors: [`Error::Schema`] if a column of the lake has another type in `spec`, or is gone from it.
    pub async fn ensure_schema(&mut self, spec: &TableSpec) -> Result<Arc<LakeVersion>> {
        for tries in 1..=MAX_TRIES {
            self.refresh().await?;
            let Some(schema) = action::extended_schema(&self.state.metadata, spec)? else {
                self.spec = spec.clone();
                return Ok(self.current());
            };
            let metadata = self.state.metadata.clone().with_schema(&schema)?;
            let mut actions = Vec::new();
            if let Some(protocol) = action::widened_protocol(&self.state.protocol, spec)? {
                actions.push(Action::Protocol(protocol));
            }
            actions.push(Action::Metadata(metadata));
            let operation =
                DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None };
            match self.put(actions, operation).await? {
                Try::Landed => {}
                Try::Taken => pause(tries).await,
            }
        }
        Err(self.contended())
    }

    /// Adds the files of archive `archive`, if the lake holds exactly archive `expected_previous_archive` and no archiver with a
    /// greater fence has committed. A commit that turns out to have landed already is done.
    ///
    /// Errors: [`Error::UnexpectedArchive`], [`Error::Fenced`]: nothing was committed. [`Error::Ambiguous`]: unknown; leave the files.
    pub async fn commit_append(
        &mut self,
        adds: Vec<NewFile>,
        archive: i64,
        expected_previous_archive: i64,
        fence: i64,
    ) -> Result<Arc<LakeVersion>> {
        self.commit_archive(adds, archive, expected_previous_archive, fence, &[]).await
    }

    /// [`Self::commit_append`], with how far each source stream had been read when the archive's snapshot was taken. No files at all are
    /// a commit too: it moves the number and the positions.
    pub async fn commit_archive(
        &mut self,
        adds: Vec<NewFile>,
        archive: i64,
        expected_previous_archive: i64,
        fence: i64,
        streams: &[StreamEnd],
    ) -> Result<Arc<LakeVersion>> {
        if archive <= expected_previous_archive {
            return Err(Error::UnexpectedArchive {
                table: self.spec.qualified(),
                expected: archive.saturating_sub(1),
                found: expected_previous_archive,
            });
        }
        for tries in 1..=MAX_TRIES {
            self.refresh().await?;
            if self.holds(archive, &adds, fence) {
                return Ok(self.current());
            }
            self.compare_fence(APP_ARCHIVER_FENCE, "archiver", fence)?;
            self.compare_age(&adds)?;
            if self.current.archive != expected_previous_archive {
                return Err(Error::UnexpectedArchive {
                    table: self.spec.qualified(),
                    expected: expected_previous_archive,
                    found: self.current.archive,
                });
            }
            let mut actions: Vec<Action> =
                adds.iter().map(|f| Action::Add(action::add(f, &self.spec, true))).collect();
            actions.push(Action::Txn(Transaction::new(APP_ARCHIVE, archive)));
            actions.push(Action::Txn(Transaction::new(APP_ARCHIVER_FENCE, fence)));
            actions.extend(streams::actions(streams, &self.state.txns, &self.state.metadata)?);
            let operation = DeltaOperation::Write {
                mode: SaveMode::Append,
                partition_by: Some(vec![types::DAY.to_owned()]),
                predicate: None,
            };
            match self.put(actions, operation).await? {
                Try::Landed => return Ok(self.current()),
                Try::Taken => pause(tries).await,
            }
        }
        Err(self.contended())
    }

    /// Replaces `removed` by `added`, which hold the same rows (`dataChange` is false, the archive stays). Every removed file must still
    /// be in the version right before, else the outcome is [`CommitOutcome::Lost`].
    ///
    /// Errors: [`Error::Fenced`]: nothing was committed. [`Error::Ambiguous`]: unknown; leave the files.
    pub async fn commit_rewrite<'a>(
        &mut self,
        removed: impl IntoIterator<Item = &'a Arc<LakeFile>> + Clone,
        added: Vec<NewFile>,
        fence: i64,
    ) -> Result<CommitOutcome> {
        let gone: u64 = removed.clone().into_iter().map(|f| f.rows).sum();
        let new: u64 = added.iter().map(|f| f.file.rows).sum();
        if gone != new {
            return Err(Error::Schema {
                table: self.spec.qualified(),
                what: format!("a rewrite of {gone} rows into {new} was refused"),
            });
        }
        for tries in 1..=MAX_TRIES {
            self.refresh().await?;
            if added.first().is_some_and(|f| self.state.files.contains(&f.file.path)) {
                return Ok(CommitOutcome::Done(self.current()));
            }
            self.compare_fence(APP_COMPACTOR_FENCE, "compactor", fence)?;
            self.compare_age(&added)?;
            if !removed.clone().into_iter().all(|f| self.state.files.contains(&f.path)) {
                return Ok(CommitOutcome::Lost);
            }
            let now = (self.clock)();
            let mut actions: Vec<Action> =
                removed.clone().into_iter().map(|f| Action::Remove(action::remove(f, false, now))).collect();
            actions.extend(added.iter().map(|f| Action::Add(action::add(f, &self.spec, false))));
            actions.push(Action::Txn(Transaction::new(APP_COMPACTOR_FENCE, fence)));
            let operation = DeltaOperation::Optimize {
                predicate: None,
                target_size: added.iter().map(|f| f.file.size as i64).max().unwrap_or(0),
            };
            match self.put(actions, operation).await? {
                Try::Landed => return Ok(CommitOutcome::Done(self.current())),
                Try::Taken => pause(tries).await,
            }
        }
        Err(self.contended())
    }

    /// Removes the files of the days before `before_day` (days since 1970-01-01) for good, if there are any. A rewrite of one of them that
    /// is under way is lost. For the leading compactor, whose `fence` guards it.
    ///
    /// Errors: [`Error::Fenced`]: nothing was committed. [`Error::Ambiguous`]: unknown; calling again finds out.
    pub async fn commit_expire(&mut self, before_day: i32, fence: i64) -> Result<Expired> {
        for tries in 1..=MAX_TRIES {
            self.refresh().await?;
            let mut expired = Expired::default();
            let now = (self.clock)();
            let mut actions = Vec::new();
            // Files stand by day.
            for file in self.state.files.iter().take_while(|f| f.day < before_day) {
                expired.files += 1;
                expired.rows += file.rows;
                expired.bytes += file.size;
                actions.push(Action::Remove(action::remove(file, true, now)));
            }
            expired.version = self.current.version;
            if actions.is_empty() {
                return Ok(expired);
            }
            self.compare_fence(APP_COMPACTOR_FENCE, "compactor", fence)?;
            actions.push(Action::Txn(Transaction::new(APP_COMPACTOR_FENCE, fence)));
            let expired_before = self.expired().unwrap_or(before_day).max(before_day);
            actions.push(Action::Txn(Transaction::new(APP_EXPIRED, i64::from(expired_before))));
            let predicate = format!("{} < '{}'", types::DAY, types::day_text(before_day));
            match self.put(actions, DeltaOperation::Delete { predicate: Some(predicate) }).await? {
                Try::Landed => {
                    expired.version = self.current.version;
                    return Ok(expired);
                }
                Try::Taken => pause(tries).await,
            }
        }
        Err(self.contended())
    }

    /// The day before which [`Self::commit_expire`] has removed files; `None`: it never did.
    pub fn expired(&self) -> Option<i32> {
        self.state.txns.get(APP_EXPIRED).and_then(|day| i32::try_from(*day).ok())
    }

    /// Writes a checkpoint of the version at hand if the last one is `every` or more versions old, and deletes entries and checkpoints
    /// that are older than a week and lie before a checkpoint. Whether one was written.
    pub async fn checkpoint_if_due(&mut self, every: u64) -> Result<bool> {
        let last = txns::last_checkpoint(self.log.object_store(None).as_ref()).await?;
        let version = self.state.version;
        if version.saturating_sub(last.unwrap_or(0)) < every.max(1) {
            return Ok(false);
        }
        let mut table = DeltaTable::new(self.log.clone());
        table.load_version(version).await?;
        deltalake_core::checkpoints::create_checkpoint(&table, None).await?;
        crash::point("lake.checkpoint.written");
        let dir = store::local_dir(&self.url);
        store::make_durable(dir.clone(), &format!("_delta_log/{version:020}.checkpoint.parquet")).await?;
        store::make_durable(dir, "_delta_log/_last_checkpoint").await?;
        // What lies before a durable checkpoint nobody needs but readers of old versions.
        let cutoff = (self.clock)() - LOG_RETENTION_MS;
        let gone = deltalake_core::checkpoints::cleanup_expired_logs_for(version, self.log.as_ref(), cutoff, None).await?;
        if gone > 0 {
            tracing::debug!(table = self.spec.qualified(), gone, "old entries of the Delta log were deleted");
        }
        Ok(true)
    }

    /// Raises the fences of archiver and compactor in the log, and nothing else: from here on no leader with a smaller one commits.
    ///
    /// Errors: [`Error::Fenced`] if one of them is higher already.
    pub async fn commit_fences(&mut self, archiver: i64, compactor: i64) -> Result<Arc<LakeVersion>> {
        for tries in 1..=MAX_TRIES {
            self.refresh().await?;
            self.compare_fence(APP_ARCHIVER_FENCE, "archiver", archiver)?;
            self.compare_fence(APP_COMPACTOR_FENCE, "compactor", compactor)?;
            if self.fence(APP_ARCHIVER_FENCE) == archiver && self.fence(APP_COMPACTOR_FENCE) == compactor {
                return Ok(self.current());
            }
            let actions = vec![
                Action::Txn(Transaction::new(APP_ARCHIVER_FENCE, archiver)),
                Action::Txn(Transaction::new(APP_COMPACTOR_FENCE, compactor)),
            ];
            let operation =
                DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None };
            match self.put(actions, operation).await? {
                Try::Landed => return Ok(self.current()),
                Try::Taken => pause(tries).await,
            }
        }
        Err(self.contended())
    }

    /// How far each source stream had been read at the version at hand, by stream.
    pub fn streams(&self) -> Vec<StreamEnd> {
        streams::ends(&self.state.txns, &self.state.metadata)
    }

    fn holds(&self, archive: i64, adds: &[NewFile], fence: i64) -> bool {
        self.current.archive == archive
            && match adds.first() {
                Some(f) => self.state.files.contains(&f.file.path),
                // Without files only the fence tells whose commit it was, and fences are never given twice.
                None => self.fence(APP_ARCHIVER_FENCE) == fence,
            }
    }

    fn compare_fence(&self, app: &str, role: &'static str, ours: i64) -> Result<()> {
        let theirs = self.fence(app);
        if theirs > ours {
            return Err(Error::Fenced { table: self.spec.qualified(), role, ours, theirs });
        }
        Ok(())
    }

    /// Sees to it that nobody can have taken the new files for left-overs of a crash.
    fn compare_age(&self, added: &[NewFile]) -> Result<()> {
        let oldest = (self.clock)().saturating_sub(UNCOMMITTED_MS);
        match added.iter().find(|f| f.file.modification_ms < oldest) {
            Some(f) => Err(Error::Overdue { table: self.spec.qualified(), path: f.file.path.clone() }),
            None => Ok(()),
        }
    }

    fn contended(&self) -> Error {
        Error::Contended { table: self.spec.qualified(), tries: MAX_TRIES }
    }

    /// Tries to make `actions` the next version.
    async fn put(&mut self, actions: Vec<Action>, operation: DeltaOperation) -> Result<Try> {
        let next = self.state.version + 1;
        let note =
            HashMap::from([("watershed".to_owned(), serde_json::Value::String(Uuid::new_v4().to_string()))]);
        let entry = CommitData::new(actions, operation, note, Vec::new())
            .get_bytes()
            .map_err(DeltaTableError::from)?;
        crash::point("lake.commit.before");
        let outcome =
            self.log.write_commit_entry(next, CommitOrBytes::LogBytes(entry.clone()), Uuid::new_v4()).await;
        crash::point("lake.commit.after");
        if let Err(error) = outcome {
            match self.landed(next, &entry).await {
                Ok(Some(true)) => {}
                Ok(Some(false)) => return Ok(Try::Taken),
                Ok(None) if matches!(error, TransactionError::VersionAlreadyExists(_)) => {
                    return Ok(Try::Taken);
                }
                Ok(None) => return Err(self.ambiguous(&error)),
                Err(second) => {
                    tracing::debug!(%second, "the log could not be read after a failed commit");
                    return Err(self.ambiguous(&error));
                }
            }
        }
        store::make_durable(store::local_dir(&self.url), &format!("_delta_log/{next:020}.json")).await?;
        crash::point("lake.commit.durable");
        let actions = get_actions(next, &entry)?;
        self.state.apply(next, actions, &self.spec, &self.prefix)?;
        self.state.files.tidy();
        self.current = Arc::new(self.state.freeze());
        Ok(Try::Landed)
    }

    /// Whether the entry of `version` is ours; `None`: there is none.
    async fn landed(&self, version: u64, ours: &Bytes) -> Result<Option<bool>> {
        Ok(self.log.read_commit_entry(version).await?.map(|found| found == *ours))
    }

    fn ambiguous(&self, reason: &TransactionError) -> Error {
        Error::Ambiguous { table: self.spec.qualified(), reason: reason.to_string() }
    }
}

impl State {
    /// Moves to `version`, whose entry holds `actions`.
    fn apply(&mut self, version: u64, actions: Vec<Action>, spec: &TableSpec, prefix: &Path) -> Result<()> {
        // What may be refused comes before anything is changed.
        let mut files = Vec::new();
        for one in actions {
            match one {
                Action::Add(add) => files.push(Ok(Arc::new(action::file(add, spec, prefix)?))),
                Action::Remove(remove) => files.push(Err(remove)),
                Action::Txn(txn) => {
                    self.txns.insert(txn.app_id, txn.version);
                }
                Action::Metadata(metadata) => self.metadata = metadata,
                Action::Protocol(protocol) => {
                    action::check_protocol(&protocol, spec)?;
                    self.protocol = protocol;
                }
                Action::Cdc(_) | Action::CommitInfo(_) | Action::DomainMetadata(_) => {}
            }
        }
        // A path is never both removed and added again: names are unique.
        for one in files {
            match one {
                Ok(file) => self.files.insert(file),
                Err(remove) => {
                    self.files.remove(&remove.path);
                    if let Some(removed) = &mut self.removed {
                        let at_ms = remove.deletion_timestamp.unwrap_or(0);
                        let size = remove.size.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
                        removed.insert(remove.path, Removed { at_ms, version, size });
                    }
                }
            }
        }
        self.version = version;
        Ok(())
    }

    fn freeze(&self) -> LakeVersion {
        LakeVersion {
            version: self.version as i64,
            archive: self.txns.get(APP_ARCHIVE).copied().unwrap_or(0),
            rows: self.files.rows(),
            bytes: self.files.bytes(),
            files: self.files.freeze(),
        }
    }
}

/// Writes version 0. Someone else's version 0 is as good.
async fn create(store: Arc<dyn ObjectStore>, root: &Url, spec: &TableSpec) -> Result<()> {
    let url = store::table_url(root, &spec.lake_path)?;
    let log = logstore_with(store, &url, StorageConfig::default())?;
    let (protocol, metadata) = action::creation(spec)?;
    let operation = DeltaOperation::Create {
        mode: SaveMode::Ignore,
        location: url.clone(),
        protocol: protocol.clone(),
        metadata: metadata.clone(),
    };
    let entry = CommitData::new(
        vec![Action::Protocol(protocol), Action::Metadata(metadata)],
        operation,
        HashMap::new(),
        Vec::new(),
    )
    .get_bytes()
    .map_err(DeltaTableError::from)?;
    match log.write_commit_entry(0, CommitOrBytes::LogBytes(entry), Uuid::new_v4()).await {
        Ok(()) | Err(TransactionError::VersionAlreadyExists(_)) => {}
        Err(e) => return Err(DeltaTableError::from(e).into()),
    }
    crash::point("lake.create.after");
    store::make_durable(store::local_dir(&url), &format!("_delta_log/{:020}.json", 0)).await?;
    store::make_directory_durable(root, &url).await
}

/// Waits a moment that grows with the tries and differs between competitors.
async fn pause(tries: u32) {
    let jitter = Uuid::new_v4().as_u128() % 16;
    tokio::time::sleep(Duration::from_millis(u64::from(tries.min(20)) * 5 + jitter as u64)).await;
}

#[cfg(test)]
pub(crate) mod tests;
