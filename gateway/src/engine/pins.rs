//! Which version of a table's lake a statement reads, and the boundary that version holds. ✗ plans, the tail.
//!
//! Every tiered table's log is followed in the background, so that pinning a version costs nothing. A version
//! that is not the newest is exact as well, only with a longer tail; what it may lack, the fence that the tail
//! is read with tells, and the caller then asks for a newer one. Specifications are read again at every look:
//! the fence has the epoch they must agree with.
//!
//! A statement holds its version for as long as it runs. What an old one needs the compactor deletes after a grace period; where a
//! statement may take longer, a *lease* in the control schema names the oldest version held here, and vacuum spares its files.

use std::collections::{HashMap, VecDeque};
use std::str::FromStr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use datafusion::datasource::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use lake::boundary::Boundary;
use lake::log::{LakeFile, LakeTable, LakeVersion, Watch};
use lake::spec::{TableSpec, load_specs};
use parking_lot::{Mutex, RwLock};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use url::Url;

use super::error::EngineError;
use super::provider::Source;

/// How often logs and specifications are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A version not looked at for this long is not handed out without a look of its own.
const STALE: Duration = Duration::from_secs(10);
/// The longest wait for the control connection.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest wait for one look at a log: a store that does not answer must not hold up those who can do with the version at hand.
const LOOK_TIMEOUT: Duration = Duration::from_secs(20);
/// A lease holds for this long,
const LEASE_SECONDS: f64 = 1200.0;
/// and is renewed this often.
const LEASE_EVERY: Duration = Duration::from_secs(120);
/// Versions remembered of a table that are no longer the newest: so many, and no longer than until they would need a lease.
const REMEMBERED: usize = 8;
/// Boundaries remembered; they never change, only those of the newest versions are asked for.
const BOUNDARIES: usize = 4096;

/// A version of a table's lake, for one statement.
#[derive(Debug, Clone)]
pub struct Pin {
    pub spec: Arc<TableSpec>,
    pub version: Arc<LakeVersion>,
    /// The version with the files below the lake's floor: whoever holds it can have it pinned again.
    pub whole: Arc<LakeVersion>,
    /// None: nothing was archived, every row is tail.
    pub boundary: Option<Boundary>,
    pub(super) source: Option<Source>,
}

/// Which version is wanted.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// The one at hand.
    AtHand,
    /// The newest, after a look at specifications and log.
    Newest,
    /// This one ([`Pin::whole`], read under that specification), under the present specification.
    Again(Arc<TableSpec>, Arc<LakeVersion>),
    /// The newest of those that are remembered which holds nothing that a transaction with this snapshot does not see.
    Serving(Boundary),
}

/// One table as last looked at.
struct Entry {
    spec: RwLock<Arc<TableSpec>>,
    /// None until the archiver has made it.
    lake: tokio::sync::Mutex<Option<LakeTable>>,
    held: RwLock<Option<Held>>,
    /// Version and lake floor, and what of the version lies at or after the floor.
    since_floor: Mutex<Option<(i64, i32, Arc<LakeVersion>)>>,
    /// Versions that were handed out and are no longer the newest: number, since when, and whether somebody still has them.
    older: Mutex<Vec<(i64, Instant, Watch)>>,
    /// The last of those, newest last, and since when they are not the newest, for transactions whose snapshot the newest does not fit.
    remembered: Mutex<VecDeque<(Held, Instant)>>,
}

impl Entry {
    /// The version without the files whose rows nobody sees any more. Floors are midnights, and a file is of one day.
    fn since_floor(&self, version: Arc<LakeVersion>, lake_floor_us: Option<i64>) -> Arc<LakeVersion> {
        let Some(floor) = lake_floor_us.map(lake::types::partition_day) else { return version };
        // By day: the first is the oldest.
        if version.files.first().is_none_or(|f| f.day >= floor) {
            return version;
        }
        let mut kept = self.since_floor.lock();
        if let Some((of, at, kept)) = &*kept
            && (*of, *at) == (version.version, floor)
        {
            return kept.clone();
        }
        let files = version.files.since(floor);
        let trimmed = Arc::new(LakeVersion {
            rows: files.summary().rows,
            bytes: files.bytes(),
            files,
            ..LakeVersion::clone(&version)
        });
        *kept = Some((version.version, floor, trimmed.clone()));
        trimmed
    }
}

/// A file of a lake's newest version, for the virtual table.
#[derive(Debug, Clone)]
pub struct FileRow {
    pub spec: Arc<TableSpec>,
    pub file: Arc<LakeFile>,
    pub version: i64,
}

#[derive(Clone)]
struct Held {
    version: Arc<LakeVersion>,
    source: Option<Source>,
    looked: Instant,
}

/// See the module.
pub(super) struct LakeCatalog {
    control: PgConnectOptions,
    root: Url,
    runtime: Arc<RuntimeEnv>,
    tables: RwLock<HashMap<u32, Arc<Entry>>>,
    boundaries: Mutex<HashMap<(String, i64), Boundary>>,
    /// What this process is called among the holders of leases.
    holder: String,
    /// A version is leased once it has not been the newest for this long.
    lease_after: Duration,
    /// Leases written last: version by table, and when.
    leased: Mutex<(HashMap<u32, i64>, Option<Instant>)>,
    /// At rest between uses; a use that is cut short drops it, and the next one connects anew.
    connection: Mutex<Option<PgConnection>>,
}

impl LakeCatalog {
    pub(super) fn new(
        control_url: &str,
        root: Url,
        runtime: Arc<RuntimeEnv>,
        lease_after: Duration,
    ) -> Result<Arc<Self>, EngineError> {
        let control = PgConnectOptions::from_str(control_url)
            .map_err(|e| EngineError::Internal(format!("the control URL: {e}")))?
            .application_name("watershed engine")
            .disable_statement_logging();
        Ok(Arc::new(LakeCatalog {
            control,
            root,
            runtime,
            tables: RwLock::default(),
            boundaries: Mutex::default(),
            holder: format!("gateway {} {}", std::process::id(), uuid::Uuid::new_v4()),
            lease_after,
            leased: Mutex::default(),
            connection: Mutex::default(),
        }))
    }

    /// Looks at everything every [`LOOK_EVERY`] for as long as somebody holds the catalog.
    pub(super) async fn follow(catalog: Weak<Self>) {
        let mut failing = false;
        loop {
            {
                let Some(this) = catalog.upgrade() else { return };
                match this.look().await {
                    Ok(()) if failing => {
                        failing = false;
                        tracing::info!("the lake can be followed again");
                    }
                    Ok(()) => {}
                    Err(error) if !failing => {
                        failing = true;
                        tracing::warn!(%error, "the lake cannot be followed");
                    }
                    Err(_) => {}
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn look(&self) -> Result<(), EngineError> {
        self.reload().await?;
        let entries: Vec<Arc<Entry>> = self.tables.read().values().cloned().collect();
        let mut result = Ok(());
        for entry in entries {
            // One table's trouble is not another's.
            if let Err(e) = self.refresh(&entry).await {
                result = Err(e);
            }
        }
        self.lease().await?;
        result
    }

    /// Tells the compactor which old versions are still read, if any are or were.
    async fn lease(&self) -> Result<(), EngineError> {
        let mut oldest: HashMap<u32, i64> = HashMap::new();
        for (relid, entry) in self.tables.read().iter() {
            entry.remembered.lock().retain(|(_, since)| since.elapsed() < self.lease_after);
            let mut older = entry.older.lock();
            older.retain(|(_, _, watch)| watch.is_held());
            let long = older.iter().filter(|(_, since, _)| since.elapsed() >= self.lease_after);
            if let Some(version) = long.map(|(version, ..)| *version).min() {
                oldest.insert(*relid, version);
            }
        }
        {
            let leased = self.leased.lock();
            let fresh = leased.1.is_some_and(|at| at.elapsed() < LEASE_EVERY);
            if leased.0 == oldest && (oldest.is_empty() || fresh) {
                return Ok(());
            }
        }
        let (relids, versions): (Vec<i64>, Vec<i64>) =
            oldest.iter().map(|(relid, version)| (i64::from(*relid), *version)).unzip();
        self.with_connection(async |conn| {
            let mut tx = conn.begin().await?;
            sqlx::query("DELETE FROM watershed_control.leases WHERE holder = $1").bind(&self.holder).execute(&mut *tx).await?;
            sqlx::query(
                "INSERT INTO watershed_control.leases (holder, relid, version, until)
                 SELECT $1, u.relid::pg_catalog.oid, u.version, pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => $4)
                 FROM ROWS FROM (pg_catalog.unnest($2::pg_catalog.int8[]), pg_catalog.unnest($3::pg_catalog.int8[])) AS u (relid, version)
                 JOIN watershed_control.tables t ON t.relid = u.relid::pg_catalog.oid",
            )
            .bind(&self.holder)
            .bind(&relids)
            .bind(&versions)
            .bind(LEASE_SECONDS)
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(())
        })
        .await?;
        *self.leased.lock() = (oldest, Some(Instant::now()));
        Ok(())
    }

    /// The files of the newest versions at hand, of the tables that `user` may read.
    pub(super) async fn files(&self, user: &str) -> Result<Vec<FileRow>, EngineError> {
        let readable: Vec<(i64,)> = self
            .with_connection(async |conn| {
                Ok(sqlx::query_as(
                    "SELECT t.relid::pg_catalog.int8 FROM watershed_control.tables t
                     WHERE pg_catalog.has_table_privilege($1::pg_catalog.name, t.relid, 'SELECT')",
                )
                .bind(user)
                .fetch_all(conn)
                .await?)
            })
            .await?;
        let mut tables: Vec<(Arc<TableSpec>, Held)> = Vec::new();
        for (relid, entry) in self.tables.read().iter() {
            if readable.iter().any(|(r,)| *r == i64::from(*relid))
                && let Some(held) = entry.held.read().clone()
            {
                tables.push((entry.spec.read().clone(), held));
            }
        }
        tables.sort_by(|(a, _), (b, _)| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
        let row = |spec: &Arc<TableSpec>, file: &Arc<LakeFile>, version| FileRow {
            spec: spec.clone(),
            file: file.clone(),
            version,
        };
        let files = tables.iter().flat_map(|(spec, held)| {
            held.version.files.iter().map(|file| row(spec, file, held.version.version)).collect::<Vec<_>>()
        });
        Ok(files.collect())
    }

    /// See [`super::Engine::at_hand`].
    pub(super) fn at_hand(&self, relid: u32) -> Option<Arc<LakeVersion>> {
        let held = self.tables.read().get(&relid)?.held.read().clone()?;
        Some(held.version)
    }

    /// A version of the table; None if none that is remembered is as wanted.
    pub(super) async fn pin(&self, relid: u32, wanted: &Wanted) -> Result<Option<Pin>, EngineError> {
        if !matches!(wanted, Wanted::AtHand) || !self.tables.read().contains_key(&relid) {
            self.reload().await?;
        }
        let entry = self
            .tables
            .read()
            .get(&relid)
            .cloned()
            .ok_or_else(|| EngineError::Internal(format!("relation {relid} is not a tiered table")))?;
        let newest = matches!(wanted, Wanted::Newest);
        let held = entry.held.read().clone().filter(|h| !newest && h.looked.elapsed() < STALE);
        let mut held = match held {
            Some(held) => held,
            None => self.refresh(&entry).await?,
        };
        let spec = entry.spec.read().clone();
        let boundary = match wanted {
            Wanted::AtHand | Wanted::Newest => self.boundary(&spec, held.version.archive).await?,
            Wanted::Again(read_as, _) if !same_in_lake(read_as, &spec) => return Ok(None),
            Wanted::Again(_, version) => {
                held.version = version.clone();
                self.boundary(&spec, version.archive).await?
            }
            Wanted::Serving(snapshot) => match self.serving(&entry, &spec, snapshot).await? {
                Some((found, boundary)) => {
                    held = found;
                    Some(boundary)
                }
                None => return Ok(None),
            },
        };
        let whole = held.version.clone();
        let version = entry.since_floor(held.version, spec.lake_floor_us);
        Ok(Some(Pin { spec, version, whole, boundary, source: held.source }))
    }

    /// The newest remembered version whose boundary serves `snapshot`.
    async fn serving(
        &self,
        entry: &Entry,
        spec: &TableSpec,
        snapshot: &Boundary,
    ) -> Result<Option<(Held, Boundary)>, EngineError> {
        let all: Vec<Held> = entry.remembered.lock().iter().rev().map(|(held, _)| held.clone()).collect();
        for held in all {
            // What left PostgreSQL after a version's archive is not in its tail.
            if held.version.archive == 0 || held.version.archive < spec.min_archive {
                continue;
            }
            if let Some(boundary) = self.boundary(spec, held.version.archive).await?
                && boundary.serves(snapshot)
            {
                return Ok(Some((held, boundary)));
            }
        }
        Ok(None)
    }

    /// Reads the specifications, and replaces the entries of tables that are no longer the same.
    async fn reload(&self) -> Result<(), EngineError> {
        let specs = self
            .with_connection(async |conn| {
                let mut tx = conn.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
                let specs = load_specs(&mut tx).await?;
                tx.commit().await?;
                Ok(specs)
            })
            .await?;
        let mut tables = self.tables.write();
        tables.retain(|relid, _| specs.iter().any(|s| s.relid == *relid));
        for spec in specs {
            match tables.get(&spec.relid) {
                Some(entry) if **entry.spec.read() == spec => {}
                // The log is read with the types of the columns; the rest of a specification is not its concern.
                Some(entry) if same_in_lake(&entry.spec.read(), &spec) => {
                    *entry.spec.write() = Arc::new(spec)
                }
                _ => {
                    let entry = Entry {
                        spec: RwLock::new(Arc::new(spec.clone())),
                        lake: tokio::sync::Mutex::default(),
                        held: RwLock::default(),
                        since_floor: Mutex::default(),
                        older: Mutex::default(),
                        remembered: Mutex::default(),
                    };
                    tables.insert(spec.relid, Arc::new(entry));
                }
            }
        }
        Ok(())
    }

    /// Looks at the log of one table.
    async fn refresh(&self, entry: &Entry) -> Result<Held, EngineError> {
        let look = tokio::time::timeout(LOOK_TIMEOUT, self.look_at(entry)).await;
        look.map_err(|_| EngineError::Lake("the lake's log does not answer".into()))?
    }

    async fn look_at(&self, entry: &Entry) -> Result<Held, EngineError> {
        let mut lake = entry.lake.lock().await;
        let spec = entry.spec.read().clone();
        let (version, source) = match lake.as_mut() {
            Some(table) => match table.refresh().await {
                Ok(version) => (version, self.source(table)?),
                Err(e) => {
                    // What it followed may be gone for good: begin anew with the next look.
                    *lake = None;
                    return Err(e.into());
                }
            },
            None => match LakeTable::open(&self.root, &spec).await? {
                Some(table) => {
                    let source = self.source(&table)?;
                    let url: &Url = source.url.as_ref();
                    self.runtime.register_object_store(url, source.store.clone());
                    let version = table.current();
                    *lake = Some(table);
                    (version, source)
                }
                None => {
                    let nothing =
                        LakeVersion { version: -1, archive: 0, files: Default::default(), rows: 0, bytes: 0 };
                    let held = Held { version: Arc::new(nothing), source: None, looked: Instant::now() };
                    *entry.held.write() = Some(held.clone());
                    return Ok(held);
                }
            },
        };
        let held = Held { version, source: Some(source), looked: Instant::now() };
        let before = entry.held.write().replace(held.clone());
        if let Some(before) = before.filter(|b| b.version.version != held.version.version && b.version.version >= 0) {
            let mut older = entry.older.lock();
            older.push((before.version.version, Instant::now(), before.version.files.watch()));
            let mut remembered = entry.remembered.lock();
            if remembered.len() == REMEMBERED {
                remembered.pop_front();
            }
            remembered.push_back((before, Instant::now()));
            // Statements may hold what was left of it above the floor; this process itself does no longer.
            if let Some((of, _, kept)) = entry.since_floor.lock().take() {
                older.push((of, Instant::now(), kept.files.watch()));
            }
        }
        Ok(held)
    }

    fn source(&self, table: &LakeTable) -> Result<Source, EngineError> {
        let url = table.url();
        let base = match url.scheme() {
            "file" => Ok(ObjectStoreUrl::local_filesystem()),
            scheme => ObjectStoreUrl::parse(format!("{scheme}://{}", url.authority())),
        };
        Ok(Source {
            store: table.store(),
            url: base?,
            footers: self.runtime.cache_manager.get_file_metadata_cache(),
        })
    }

    /// The boundary of an archive of the table's present lineage; None for archive 0.
    async fn boundary(&self, spec: &TableSpec, archive: i64) -> Result<Option<Boundary>, EngineError> {
        if archive == 0 {
            return Ok(None);
        }
        // A folder is never given to two tables, and an archive's row never changes.
        let key = (spec.lake_path.clone(), archive);
        if let Some(known) = self.boundaries.lock().get(&key) {
            return Ok(Some(known.clone()));
        }
        let relid = sqlx::postgres::types::Oid(spec.relid);
        let row: Option<(String, String)> = self
            .with_connection(async |conn| {
                Ok(sqlx::query_as("SELECT boundary, lineage FROM watershed_control.archives WHERE relid = $1 AND number = $2")
                    .bind(relid)
                    .bind(archive)
                    .fetch_optional(conn)
                    .await?)
            })
            .await?;
        let (boundary, lineage) = row.ok_or_else(|| {
            EngineError::Lake(format!(
                "{}: the lake holds archive {archive}, PostgreSQL does not know it",
                spec.qualified()
            ))
        })?;
        if lineage != spec.lineage {
            return Err(EngineError::Lake(format!(
                "{}: archive {archive} is of lineage {lineage}, the table of {}",
                spec.qualified(),
                spec.lineage
            )));
        }
        let boundary: Boundary = boundary.parse()?;
        let mut boundaries = self.boundaries.lock();
        if boundaries.len() >= BOUNDARIES {
            boundaries.clear();
        }
        boundaries.insert(key, boundary.clone());
        Ok(Some(boundary))
    }

    /// Runs `work` on the control connection, connecting if there is none. Two at once use two connections,
    /// of which one is kept. Dropping the future drops the connection with it.
    async fn with_connection<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, lake::Error>,
    ) -> Result<T, EngineError> {
        let resting = self.connection.lock().take();
        let task = async {
            let mut conn = match resting {
                Some(conn) => conn,
                None => self.control.connect().await.map_err(lake::Error::from)?,
            };
            let result = work(&mut conn).await?;
            Ok::<_, lake::Error>((result, conn))
        };
        let (result, conn) = tokio::time::timeout(CONTROL_TIMEOUT, task)
            .await
            .map_err(|_| EngineError::Lake("the control connection does not answer".into()))??;
        *self.connection.lock() = Some(conn);
        Ok(result)
    }
}

/// Whether two specifications of a table read its log alike.
fn same_in_lake(a: &TableSpec, b: &TableSpec) -> bool {
    a.lake_path == b.lake_path
        && a.event_time == b.event_time
        && a.columns.len() == b.columns.len()
        && a.columns
            .iter()
            .zip(&b.columns)
            .all(|(x, y)| (x.attnum, &x.lake_name, x.ty) == (y.attnum, &y.lake_name, y.ty))
}
