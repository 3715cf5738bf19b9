//! The lake's files under random interleavings, against a model of the rows: two archivers and two compactors of which one each may be a
//! zombie, retention, checkpoints, vacuum, readers that hold versions, time, crashes at any operation, and a store that fails by chance.
//!
//! The model knows which rows each archive number stands for and what was expired, both from what was meant, not from files. Every
//! version that a reader holds must have exactly those rows, for as long as a lease or the grace period says so.
//!
//! One run is one seed. `WATERSHED_MODEL_SEEDS` (how many, or `from-to`) and `WATERSHED_MODEL_STEPS` make long runs; a failure names its seed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arrow::array::*;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use lake::fault::{Faulty, Odds};
use lake::log::{Clock, LakeTable, LakeVersion, NewFile};
use lake::spec::{Column, TableSpec};
use lake::types::{self, ColType};
use lake::writer::{FileWriter, WriterOptions};
use object_store::path::Path;
use object_store::*;
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::plan::{Job, Policy, plan};
use crate::rewrite::{Resources, rewrite};
use crate::turn::finish;
use crate::vacuum::{Periods, Scope, sweep};

const SEEDS: u64 = 12;
/// A reader of the log that failed half way, and then committed behind what it had not compared with, stored rows twice.
const FOUND: u64 = 102;
const STEPS: usize = 220;
const MINUTE_MS: i64 = 60_000;
const GRACE: Duration = Duration::from_secs(3600);
const ORPHAN: Duration = Duration::from_secs(24 * 3600);
/// Days that events are of.
const DAYS: i64 = 6;

/// A store in memory whose files are as old as the model's clock says.
#[derive(Debug)]
struct Dated {
    inner: memory::InMemory,
    times: Mutex<HashMap<Path, i64>>,
    now: Arc<AtomicI64>,
}

impl Dated {
    fn dated(&self, mut meta: ObjectMeta) -> ObjectMeta {
        if let Some(ms) = self.times.lock().get(&meta.location) {
            meta.last_modified = chrono::DateTime::from_timestamp_millis(*ms).unwrap();
        }
        meta
    }
}

impl fmt::Display for Dated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("dated memory")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Dated {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let done = self.inner.put_opts(location, payload, opts).await?;
        self.times.lock().insert(location.clone(), self.now.load(Ordering::Relaxed));
        Ok(done)
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.times.lock().insert(location.clone(), self.now.load(Ordering::Relaxed));
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mut found = self.inner.get_opts(location, options).await?;
        found.meta = self.dated(found.meta);
        Ok(found)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let times = self.times.lock().clone();
        let dated = move |mut meta: ObjectMeta| {
            if let Some(ms) = times.get(&meta.location) {
                meta.last_modified = chrono::DateTime::from_timestamp_millis(*ms).unwrap();
            }
            meta
        };
        self.inner.list(prefix).map_ok(dated).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

fn spec() -> TableSpec {
    let column = |attnum, name: &str, ty: ColType| Column {
        attnum,
        name: name.into(),
        lake_name: name.into(),
        type_oid: ty.type_oid(),
        typmod: -1,
        collation: 0,
        not_null: false,
        ty,
    };
    TableSpec {
        relid: 1,
        schema: "public".into(),
        name: "t".into(),
        event_time: 1,
        columns: vec![
            column(1, "ts", ColType::TimestampTz),
            column(2, "level", ColType::Text),
            column(3, types::XID, ColType::Xid8),
            column(4, types::STREAM, ColType::Int4),
            column(5, types::OFFSET, ColType::Int8),
        ],
        lake_path: "public.t".into(),
        schema_epoch: 1,
        lineage: "1/1".into(),
        min_archive: 0,
        floor_us: None,
        keys: vec!["level".into()],
        warned_us: None,
        lake_floor_us: None,
    }
}

/// When row `id` happened: mostly in the order of the ids, now and then late.
fn time_of(id: i64) -> i64 {
    let mixed = (id as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let day = if mixed % 5 == 0 { (mixed >> 8) as i64 & 0xffff } else { id / 150 } % DAYS;
    day * types::DAY_MICROS + ((mixed >> 24) as i64 & 0xffff_ffff) % types::DAY_MICROS
}

fn day_of(id: i64) -> i32 {
    types::partition_day(time_of(id))
}

fn batch(spec: &TableSpec, ids: &[i64]) -> RecordBatch {
    let n = ids.len();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from_iter_values(ids.iter().map(|i| time_of(*i))).with_timezone("UTC")),
        Arc::new(StringViewArray::from_iter(ids.iter().map(|i| (i % 7 != 0).then(|| format!("level {}", i % 9))))),
        Arc::new(Int64Array::from(vec![7; n])),
        Arc::new(Int32Array::from(vec![1; n])),
        Arc::new(Int64Array::from(ids.to_vec())),
    ];
    RecordBatch::try_new(spec.arrow_schema(), columns).unwrap()
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) ^ (self.0 >> 11)) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A process: what it remembers, and the store as it sees it.
struct Process {
    handle: Arc<Faulty>,
    table: Option<LakeTable>,
    fence: i64,
    /// An archive written and not committed: its number, the one before, its files.
    archive: Option<(i64, i64, Vec<NewFile>)>,
    /// A rewrite done and not committed.
    rewritten: Vec<(Job, Vec<NewFile>)>,
}

struct Held {
    version: Arc<LakeVersion>,
    since_ms: i64,
    leased: bool,
}

struct World {
    spec: TableSpec,
    root: Url,
    store: Arc<Dated>,
    now: Arc<AtomicI64>,
    random: Random,
    odds: Odds,
    archivers: Vec<Process>,
    compactors: Vec<Process>,
    readers: Vec<Process>,
    held: Vec<Held>,
    resources: Resources,
    /// Rows that exist: 0..rows.
    rows: i64,
    /// Which rows each archive number stands for: all below.
    upto: BTreeMap<i64, i64>,
    fences: [i64; 2],
    /// What the log's entries said when they were written, by version.
    archive_at: Vec<i64>,
    expired: Vec<(usize, i32)>,
    counts: BTreeMap<&'static str, usize>,
}

type Outcome = std::result::Result<(), String>;

impl World {
    async fn new(seed: u64) -> Self {
        let now = Arc::new(AtomicI64::new(1_700_000_000_000));
        let store =
            Arc::new(Dated { inner: memory::InMemory::new(), times: Mutex::default(), now: now.clone() });
        let (spec, root) = (spec(), Url::parse("memory:///lake/").unwrap());
        LakeTable::open_or_create_in(store.clone(), &root, &spec).await.unwrap();
        let mut world = Self {
            spec,
            root,
            store,
            now,
            random: Random(seed.wrapping_mul(0x9e37_79b9).wrapping_add(17)),
            odds: Odds { before: 40, after: 40, existing: 30, list: 25, stall: 60, stall_ms: 3 },
            archivers: Vec::new(),
            compactors: Vec::new(),
            readers: Vec::new(),
            held: Vec::new(),
            resources: Resources::new(64 << 20, None, 1).unwrap(),
            rows: 0,
            upto: BTreeMap::from([(0, 0)]),
            fences: [0, 0],
            archive_at: Vec::new(),
            expired: Vec::new(),
            counts: BTreeMap::new(),
        };
        for _ in 0..2 {
            let (a, c, r) = (world.process(), world.process(), world.process());
            world.archivers.push(a);
            world.compactors.push(c);
            world.readers.push(r);
        }
        world
    }

    fn process(&mut self) -> Process {
        let handle = Arc::new(Faulty::chance(self.store.clone(), self.random.below(u64::MAX >> 1), self.odds));
        Process { handle, table: None, fence: 0, archive: None, rewritten: Vec::new() }
    }

    fn clock(&self) -> Clock {
        let now = self.now.clone();
        Arc::new(move || now.load(Ordering::Relaxed))
    }

    fn now_ms(&self) -> i64 {
        self.now.load(Ordering::Relaxed)
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Opens the process's table if it has none, sometimes takes the lead, and looks at the log.
    async fn ready(&mut self, process: &mut Process, role: Option<usize>, upkeep: bool) -> std::result::Result<(), String> {
        if process.table.is_none() {
            let (store, root, spec) = (process.handle.clone(), &self.root, &self.spec);
            let opened = match upkeep {
                true => LakeTable::open_for_upkeep(store, root, spec).await,
                false => LakeTable::open_in(store, root, spec).await,
            };
            let mut table = opened.map_err(|e| e.to_string())?.ok_or("there is no table")?;
            table.set_clock(self.clock());
            process.table = Some(table);
        }
        if let Some(role) = role
            && (process.fence == 0 || self.random.one_in(3))
        {
            self.fences[role] += 1;
            process.fence = self.fences[role];
        }
        process.table.as_mut().unwrap().refresh().await.map(drop).map_err(|e| e.to_string())
    }

    /// After a step of a process: a process that died is begun anew, one that saw an error may forget what it knew.
    fn aftermath(&mut self, process: &mut Process, outcome: Outcome) {
        if process.handle.is_gone() {
            self.count("crashes");
            *process = self.process();
        } else if outcome.is_err() {
            self.count("errors");
            if self.random.one_in(2) {
                process.table = None;
            }
        }
    }

    async fn archive(&mut self, process: &mut Process) -> Outcome {
        if process.archive.is_some() && process.table.is_some() && !self.random.one_in(4) {
            let (number, before, files) = process.archive.clone().unwrap();
            let table = process.table.as_mut().unwrap();
            return match table.commit_append(files, number, before, process.fence).await {
                Ok(_) => {
                    process.archive = None;
                    self.count("archives");
                    Ok(())
                }
                // It may be there; trying again finds out, and so does beginning anew.
                Err(e @ lake::Error::Ambiguous { .. }) => Err(e.to_string()),
                Err(e) => {
                    process.archive = None;
                    Err(e.to_string())
                }
            };
        }
        process.archive = None;
        self.ready(process, Some(0), false).await?;
        let table = process.table.as_ref().unwrap();
        let before = table.current().archive;
        let number = self.upto.keys().last().unwrap() + 1;
        let (from, to) = (self.upto[&before], self.rows);
        self.upto.insert(number, to);
        let mut days: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
        for id in from..to {
            days.entry(day_of(id)).or_default().push(id);
        }
        let mut files = Vec::new();
        for (day, mut ids) in days {
            ids.sort_by_key(|i| (time_of(*i), *i));
            let mut writer = FileWriter::create(table, day, &options()).await.map_err(|e| e.to_string())?;
            writer.write(&batch(&self.spec, &ids)).await.map_err(|e| e.to_string())?;
            files.push(writer.close().await.map_err(|e| e.to_string())?);
        }
        process.archive = Some((number, before, files));
        Ok(())
    }

    async fn compact(&mut self, process: &mut Process) -> Outcome {
        if process.table.is_some()
            && !self.random.one_in(4)
            && let Some((job, files)) = process.rewritten.pop()
        {
            let table = process.table.as_mut().unwrap();
            let done = finish(table, &job, files, process.fence).await.map_err(|e| e.to_string())?;
            self.count(if matches!(done, crate::turn::Finished::Done { .. }) { "rewrites" } else { "lost" });
            return Ok(());
        }
        self.ready(process, Some(1), true).await?;
        let table = process.table.as_ref().unwrap();
        let target = [2_000, 20_000, 1 << 20][self.random.below(3) as usize];
        let policy = Policy { min_files: 2, eager: self.random.one_in(2), full: self.random.one_in(3), ..Policy::new(target) };
        let jobs = plan(&table.current(), "ts", &policy, self.now_ms()).jobs;
        for job in jobs.into_iter().take(2) {
            let stop = CancellationToken::new();
            let files = rewrite(&table.place(), &job, &self.resources, &options(), &stop, &|_| {}).await;
            process.rewritten.push((job, files.map_err(|e| e.to_string())?));
        }
        Ok(())
    }

    async fn expire(&mut self, process: &mut Process) -> Outcome {
        self.ready(process, Some(1), true).await?;
        let day = self.random.below(DAYS as u64 / 2 + 1) as i32;
        let table = process.table.as_mut().unwrap();
        let expired = table.commit_expire(day, process.fence).await.map_err(|e| e.to_string())?;
        if expired.files > 0 {
            self.count("expirations");
        }
        Ok(())
    }

    async fn checkpoint(&mut self, process: &mut Process) -> Outcome {
        self.ready(process, None, true).await?;
        let every = 1 + self.random.below(10);
        if process.table.as_mut().unwrap().checkpoint_if_due(every).await.map_err(|e| e.to_string())? {
            self.count("checkpoints");
        }
        Ok(())
    }

    async fn vacuum(&mut self, process: &mut Process) -> Outcome {
        self.ready(process, Some(1), true).await?;
        // The lead is asked for right before.
        if process.fence != self.fences[1] {
            return Ok(());
        }
        let scope = if self.random.one_in(2) { Scope::Everything } else { Scope::Removed };
        let leased = self.held.iter().filter(|h| h.leased).map(|h| h.version.version).min();
        let (periods, now) = (Periods { grace: GRACE, orphan: ORPHAN }, self.now_ms());
        let table = process.table.as_mut().unwrap();
        let swept = sweep(table, scope, leased, &periods, now).await.map_err(|e| e.to_string())?;
        if swept.swept.files > 0 {
            self.count("vacuums");
        }
        Ok(())
    }

    async fn pin(&mut self, process: &mut Process) -> Outcome {
        self.ready(process, None, false).await?;
        let version = process.table.as_ref().unwrap().current();
        let leased = self.random.one_in(2);
        self.held.push(Held { version, since_ms: self.now_ms(), leased });
        self.count("pins");
        Ok(())
    }

    /// Reads a version that is held, which must work and be right.
    async fn query(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let at = self.random.below(self.held.len() as u64) as usize;
        if self.random.one_in(2) {
            let Held { version, .. } = &self.held[at];
            let (version, what) = (version.clone(), "a version that is held");
            self.check(&version, what).await;
            self.count("queries");
        } else {
            self.held.swap_remove(at);
        }
    }

    /// The rows that a version must have, from what was meant.
    fn expected(&self, version: i64) -> BTreeSet<i64> {
        let version = usize::try_from(version).unwrap();
        let upto = |v: usize| self.upto[&self.archive_at[v]];
        (0..upto(version))
            .filter(|id| {
                !self.expired.iter().any(|(at, day)| *at <= version && day_of(*id) < *day && *id < upto(*at))
            })
            .collect()
    }

    /// Says what the log did with files of the row's day.
    async fn tell(&self, id: i64) {
        let day = format!("_day={}", types::day_text(day_of(id)));
        for (number, upto) in &self.upto {
            eprintln!("archive {number}: below {upto}");
        }
        let all: Vec<ObjectMeta> = self.store.list(Some(&Path::from("lake/public.t/_delta_log"))).try_collect().await.unwrap();
        eprintln!("0: log {:?}", all.iter().filter_map(|m| m.location.filename()).collect::<Vec<_>>());
        for version in 0..self.archive_at.len() {
            let path = Path::from(format!("lake/public.t/_delta_log/{version:020}.json"));
            let Ok(entry) = self.store.get(&path).await else { continue };
            let text = String::from_utf8(entry.bytes().await.unwrap().to_vec()).unwrap();
            for line in text.lines() {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                for action in ["add", "remove"] {
                    let Some(path) = line[action]["path"].as_str().filter(|p| p.contains(&day)) else { continue };
                    let location = Path::from(format!("lake/public.t/{path}"));
                    let holds = match self.store.get(&location).await {
                        Ok(found) => ParquetRecordBatchReaderBuilder::try_new(found.bytes().await.unwrap())
                            .unwrap()
                            .build()
                            .unwrap()
                            .any(|rows| {
                                let rows = rows.unwrap();
                                let ids = rows.column_by_name(types::OFFSET).unwrap().as_primitive::<Int64Type>();
                                ids.values().contains(&id)
                            }),
                        Err(_) => false,
                    };
                    eprintln!("{version}: {action} {path} {} {} {}", line[action]["size"], line[action]["stats"].as_str().unwrap_or_default().chars().take(220).collect::<String>(), if holds { "holds it" } else { "" });
                }
                for action in ["txn", "commitInfo"] {
                    if !line[action].is_null() {
                        eprintln!("{version}: {action} {}", line[action]);
                    }
                }
            }
        }
    }

    async fn check(&self, version: &LakeVersion, what: &str) {
        let expected = self.expected(version.version);
        let mut found = BTreeSet::new();
        for file in &version.files {
            let bytes = match self.store.get(&file.location).await {
                Ok(found) => found.bytes().await.unwrap(),
                Err(e) => panic!("{what}, version {}: {e}", version.version),
            };
            assert_eq!(bytes.len() as u64, file.size);
            let mut last = i64::MIN;
            for rows in ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap() {
                let rows = rows.unwrap();
                let ids = rows.column_by_name(types::OFFSET).unwrap().as_primitive::<Int64Type>();
                let times = rows.column_by_name("ts").unwrap().as_primitive::<TimestampMicrosecondType>();
                for (id, time) in ids.values().iter().zip(times.values()) {
                    if !found.insert(*id) {
                        for f in version.files.iter().filter(|f| f.day == file.day) {
                            eprintln!("0: file {} of {} rows", f.path, f.rows);
                        }
                        self.tell(*id).await;
                        panic!("row {id} is twice in {what}, version {}", version.version);
                    }
                    assert_eq!((*time, file.day), (time_of(*id), day_of(*id)), "row {id}");
                    assert!(*time >= last, "{} is out of order", file.path);
                    last = *time;
                }
            }
        }
        assert!(found == expected, "{what}, version {}: {:?}", version.version, found.symmetric_difference(&expected));
        assert_eq!(version.rows, expected.len() as u64, "rows of {what}, version {}", version.version);
        assert_eq!(version.files.summary().rows, version.rows);
    }

    /// Takes down what new entries of the log mean.
    async fn follow(&mut self) {
        loop {
            let next = self.archive_at.len();
            let path = Path::from(format!("lake/public.t/_delta_log/{next:020}.json"));
            let Ok(entry) = self.store.get(&path).await else { return };
            let text = entry.bytes().await.unwrap();
            let mut archive = self.archive_at.last().copied().unwrap_or(0);
            for line in text.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
                let line: serde_json::Value = serde_json::from_slice(line).unwrap();
                if line["txn"]["appId"] == lake::log::APP_ARCHIVE {
                    archive = line["txn"]["version"].as_i64().unwrap();
                }
                if line["commitInfo"]["operation"] == "DELETE" {
                    let predicate = line["commitInfo"]["operationParameters"]["predicate"].as_str().unwrap();
                    let day = predicate.split('\'').nth(1).and_then(types::parse_day).unwrap();
                    self.expired.push((next, day));
                }
            }
            self.archive_at.push(archive);
        }
    }

    async fn step(&mut self) {
        let choice = self.random.below(100);
        let pick = self.random.below(2) as usize;
        let group: fn(&mut Self) -> &mut Vec<Process> = match choice {
            0..30 => |w| &mut w.archivers,
            30..67 => |w| &mut w.compactors,
            _ => |w| &mut w.readers,
        };
        match choice {
            0..67 | 75..82 => {
                let placeholder = self.process();
                let mut process = std::mem::replace(&mut group(self)[pick], placeholder);
                if self.random.one_in(12) {
                    let operations = 1 + self.random.below(25);
                    process.handle.crash_in(operations);
                }
                let outcome = match choice {
                    0..30 => {
                        self.rows += self.random.below(40) as i64;
                        self.archive(&mut process).await
                    }
                    30..52 => self.compact(&mut process).await,
                    52..55 => self.expire(&mut process).await,
                    55..59 => self.checkpoint(&mut process).await,
                    59..67 => self.vacuum(&mut process).await,
                    _ => self.pin(&mut process).await,
                };
                self.aftermath(&mut process, outcome);
                group(self)[pick] = process;
            }
            67..75 => {
                let minutes = [1, 5, 30, 90, 400, 1000][self.random.below(6) as usize];
                self.now.fetch_add(minutes * MINUTE_MS, Ordering::Relaxed);
                // Who holds no lease ends within the grace period.
                let limit = self.now_ms() - GRACE.as_millis() as i64;
                self.held.retain(|h| h.leased || h.since_ms > limit);
            }
            82..97 => self.query().await,
            _ => {
                // What a client of HDFS leaves behind.
                let place = ["_delta_log/.00000000000000000003.json", "_day=1970-01-02/.part-1.zstd.parquet"][pick];
                let path = Path::from(format!("lake/public.t/{place}.tmp.{}", self.random.below(1000)));
                self.store.put(&path, PutPayload::from_static(b"half")).await.unwrap();
            }
        }
        self.follow().await;
    }

    /// After the storm: everything arrives, everything is tidied up, and nothing is left over.
    async fn settle(&mut self) {
        self.held.clear();
        let mut process = Process { handle: Arc::new(Faulty::new(self.store.clone())), ..self.process() };
        for _ in 0..2 {
            process.archive = None;
            self.ready(&mut process, None, true).await.unwrap();
            self.fences = [self.fences[0] + 1, self.fences[1] + 1];
            process.fence = self.fences[0].max(self.fences[1]);
            self.fences = [process.fence; 2];
            let mut last = self.archive(&mut process).await;
            while process.archive.is_some() {
                last = self.archive(&mut process).await;
            }
            last.unwrap();
        }
        self.follow().await;
        let table = process.table.as_mut().unwrap();
        for _ in 0..8 {
            for job in plan(&*table.refresh().await.unwrap(), "ts", &Policy::new(1 << 20).fully(), 0).jobs {
                let stop = CancellationToken::new();
                let files = rewrite(&table.place(), &job, &self.resources, &options(), &stop, &|_| {}).await.unwrap();
                finish(table, &job, files, process.fence).await.unwrap();
            }
        }
        self.now.fetch_add(10 * 24 * 60 * MINUTE_MS, Ordering::Relaxed);
        let (periods, now) = (Periods { grace: GRACE, orphan: ORPHAN }, self.now_ms());
        let mut keeper = LakeTable::open_for_upkeep(self.store.clone(), &self.root, &self.spec).await.unwrap().unwrap();
        keeper.set_clock(self.clock());
        sweep(&mut keeper, Scope::Everything, None, &periods, now).await.unwrap();
        self.follow().await;
        let last = keeper.refresh().await.unwrap();
        self.check(&last, "the last version").await;
        assert_eq!(self.upto[&last.archive], self.rows);
        let all: Vec<ObjectMeta> = self.store.list(None).try_collect().await.unwrap();
        let left: Vec<&str> = all.iter().map(|m| m.location.as_ref()).filter(|p| !p.contains("_delta_log/0")).collect();
        assert_eq!(left.iter().filter(|p| p.contains("_day=")).count(), last.files.len(), "{left:?}");
        assert!(left.iter().all(|p| !p.contains(".tmp.")), "{left:?}");
    }
}

fn options() -> WriterOptions {
    WriterOptions { zstd_level: 1, row_group_rows: 64, page_rows: 16, ..WriterOptions::default() }
}

/// What the environment asks for: the seeds, and the steps of each.
fn asked() -> (Range<u64>, usize) {
    let steps = std::env::var("WATERSHED_MODEL_STEPS").ok().and_then(|s| s.parse().ok()).unwrap_or(STEPS);
    let seeds = match std::env::var("WATERSHED_MODEL_SEEDS") {
        Ok(text) => match text.split_once('-') {
            Some((from, to)) => from.parse().unwrap()..to.parse::<u64>().unwrap() + 1,
            None => 0..text.parse().unwrap(),
        },
        Err(_) => 0..SEEDS,
    };
    (seeds, steps)
}

/// Tells which seed it was if a run fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("it was seed {0}: WATERSHED_MODEL_SEEDS={0}-{0} repeats it", self.0);
        }
    }
}

#[tokio::test]
async fn rows_are_neither_lost_nor_doubled_whatever_happens() {
    let (seeds, steps) = asked();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in seeds.clone().chain((seeds.end <= FOUND).then_some(FOUND)) {
        let _seed = Seed(seed);
        let mut world = World::new(seed).await;
        world.follow().await;
        for _ in 0..steps {
            world.step().await;
        }
        world.settle().await;
        for (what, n) in world.counts {
            *counts.entry(what).or_default() += n;
        }
    }
    println!("seeds {seeds:?}, {steps} steps each: {counts:?}");
    // A model that does nothing proves nothing.
    if seeds.end - seeds.start >= SEEDS && steps >= STEPS {
        for what in ["archives", "rewrites", "lost", "expirations", "checkpoints", "vacuums", "queries", "crashes", "errors"] {
            assert!(counts.get(what).is_some_and(|n| *n > 0), "no {what}: {counts:?}");
        }
    }
}
