//! `watershed load`: contents into tables, each content once. Knows sources, progress and the order of steps; formats are
//! `decode`'s, rows `map`'s, COPY `sink`'s.
//!
//! A load is remembered by the hash of its unpacked content and the number of records done, not by a file name:
//! - the same content again, whatever it is called or packed with, adds nothing;
//! - an interrupted load continues at the record after the last commit;
//! - a grown file begins with a content that is known: only what follows it is loaded;
//! - two loads of the same content at the same time: the second waits, and then finds it done.
//!
//! Each step is one transaction: the progress of the load, guarded by the expected value; the position of the table's
//! `loads` stream; the rows; the dead letters. Rows are numbered from the stream's position.
//!
//! A last line without a line end is loaded (most such files are simply finished). If the file grows within that line
//! later, the full line goes to the dead letters with that reason, since its first part is a row already; to follow a
//! file that is still being written, load it when its last line is complete.

pub mod ledger;
pub mod produce;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::ledger::{Entry, Key, Next, Start};
use self::produce::{FileJob, Limits, Step};
use crate::decode::envelope::Envelope;
use crate::decode::input::{Content, Scan};
use crate::decode::syslog::YearFinder;
use crate::decode::{Format, detect};
use crate::error::is_rows_fault;
use crate::generate;
use crate::map::{Mapper, Mapping};
use crate::metrics::taken;
use crate::pressure::{Pressure, State};
use crate::sink::{self, Care, LetterSource, Numbering, Session};
use crate::target::Target;
use crate::topics::{self, TableRoute};
use crate::{Error, Result};

/// What to load and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// URL of PostgreSQL, as role `watershed_ingest`.
    pub database_url: String,
    /// As SQL names it.
    pub table: String,
    /// `-` is standard input.
    pub files: Vec<PathBuf>,
    /// Recognised by content if not given.
    pub format: Option<Format>,
    /// Year of the first record, for syslog times without one; by default it follows from the file's modification time.
    pub year: Option<i32>,
    /// Records a transaction.
    pub batch_rows: usize,
    /// Bytes of records a transaction, roughly.
    pub batch_bytes: usize,
    /// A longer record goes to the dead letters.
    pub max_record_bytes: usize,
    /// Draw a progress bar if standard error is a terminal.
    pub progress: bool,
    /// How long to wait for a PostgreSQL that went away.
    pub patience: Duration,
    /// Envelopes and mappings by table, as configured.
    pub routes: Vec<TableRoute>,
    /// Whether there is room for more: waits while there is not.
    pub pressure: Pressure,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            database_url: String::new(),
            table: String::new(),
            files: Vec::new(),
            format: None,
            year: None,
            batch_rows: 20_000,
            batch_bytes: 16 << 20,
            max_record_bytes: 16 << 20,
            progress: false,
            patience: Duration::from_secs(60),
            routes: Vec::new(),
            pressure: Pressure::always_open(),
        }
    }
}

impl Options {
    fn limits(&self) -> Limits {
        Limits {
            batch_rows: self.batch_rows.max(1),
            batch_bytes: self.batch_bytes.max(1),
            max_record_bytes: self.max_record_bytes.clamp(1, 256 << 20),
        }
    }
}

/// What a load did.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct LoadSummary {
    /// The file, `standard input`, or `generated`.
    pub source: String,
    /// Schema and name.
    pub table: String,
    /// Name of the format.
    pub format: String,
    /// Rows added now.
    pub loaded: u64,
    /// Rows of the same content that an earlier load had added.
    pub already_present: u64,
    /// Records refused now; they stand in `watershed.dead_letters`.
    pub rejected: u64,
    /// Wall time.
    pub seconds: f64,
}

/// The exit status of `watershed load`: 0 if every record is loaded or was present, 2 if some were rejected. (A load that
/// failed is an error: 1.)
pub fn exit_code(summaries: &[LoadSummary]) -> u8 {
    if summaries.iter().any(|s| s.rejected > 0) { 2 } else { 0 }
}

/// Loads the files one after another.
///
/// # Errors
/// The first failure; with several files [`Error::File`], which carries the summaries of those before it. What was
/// committed stays, and the same call continues there.
pub async fn run(options: Options, shutdown: CancellationToken) -> Result<Vec<LoadSummary>> {
    let mut done = Vec::with_capacity(options.files.len());
    for file in &options.files {
        // Dropping the work closes its connection: PostgreSQL rolls back what was not committed.
        let result = tokio::select! {
            biased;
            () = shutdown.cancelled() => Err(Error::Cancelled),
            r = load_file(&options, file) => r,
        };
        match result {
            Ok(summary) => done.push(summary),
            Err(e) if options.files.len() == 1 => return Err(e),
            Err(e) => return Err(Error::File { file: file.clone(), completed: done, source: Box::new(e) }),
        }
    }
    Ok(done)
}

/// Loads generated rows; the parameters of `spec` identify them, so that the same call again adds nothing. Only
/// `database_url`, `table`, the batch bounds, `progress` and `patience` of the options count.
pub async fn run_generated(
    options: Options,
    spec: generate::Spec,
    shutdown: CancellationToken,
) -> Result<LoadSummary> {
    tokio::select! {
        biased;
        () = shutdown.cancelled() => Err(Error::Cancelled),
        r = load_generated(&options, spec) => r,
    }
}

/// How often one step is tried again while PostgreSQL comes and goes.
const RETRIES: u32 = 20;

/// Runs blocking work on its own thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::Internal(format!("a reading thread ended: {e}")))
}

struct Work<'a> {
    options: &'a Options,
    session: Session,
    table: String,
    stream: i32,
    source: String,
    bar: Bar,
    loaded: u64,
    rejected: u64,
    format: &'static str,
    envelope: Envelope,
    mapping: Mapping,
}

async fn open<'a>(options: &'a Options, source: &str) -> Result<(Work<'a>, Mapper)> {
    let connect = sink::connect_options(&options.database_url, "watershed load")?;
    let mut session = Session::connect(connect).await?;
    let target = Target::find(session.conn(), &options.table).await?;
    let route = topics::of_table(&options.routes, &target.schema, &target.name);
    let mapping = route.map(|r| r.mapping.clone()).unwrap_or_default();
    let mapper = Mapper::with_mapping(target.clone(), &mapping)?;
    let work = Work {
        options,
        session,
        table: target.display(),
        stream: target.stream,
        source: source.to_owned(),
        bar: Bar::none(),
        loaded: 0,
        rejected: 0,
        format: "",
        envelope: route.map_or(Envelope::Plain, |r| r.envelope),
        mapping,
    };
    Ok((work, mapper))
}

async fn load_file(options: &Options, path: &std::path::Path) -> Result<LoadSummary> {
    let began = Instant::now();
    let file = path.display().to_string();
    let read = |source| Error::Read { file: file.clone(), source };
    let path = path.to_owned();
    let content = Arc::new(blocking(move || Content::open(&path)).await?.map_err(read)?);
    let (mut work, mut mapper) = open(options, &content.name).await?;
    let format = match options.format {
        Some(f) => f,
        None => {
            let c = content.clone();
            let head = blocking(move || c.head(detect::SNIFF_BYTES)).await?.map_err(read)?;
            let complete = head.len() < detect::SNIFF_BYTES;
            if head.iter().all(u8::is_ascii_whitespace) && complete {
                return Ok(work.summary("none", 0, began));
            }
            detect::detect(&head, complete, &|n| mapper.knows(n))
                .ok_or_else(|| Error::UnknownFormat(content.name.clone()))?
        }
    };
    if format.fixed_fields() && mapper.target().overflow.is_none() {
        return Err(Error::Unmappable(format!(
            "table {} has no overflow column to keep all of a {format} record in",
            work.table
        )));
    }
    let relid = mapper.target().relid;
    work.format = format.name();
    work.bar = Bar::new(options.progress, &content.name);
    let mut known = ledger::lengths(work.session.conn(), relid, format.name(), u64::MAX).await?;
    loop {
        let (scan, first_year) = scan(&content, known.clone(), format, options.year).await?.map_err(read)?;
        if scan.bytes == 0 {
            return Ok(work.summary(format.name(), 0, began));
        }
        let key =
            Key { relid, format: format.name(), hash: &scan.hash, bytes: scan.bytes, source: &content.name };
        let own = work.lock(&key, &scan.hash).await?;
        let mut present = None;
        loop {
            let plan = match work.register(&key, &scan, &known, &content).await? {
                Registered::Plan(plan) => plan,
                Registered::Rescan(more) => {
                    known.extend(more);
                    break;
                }
            };
            let entry = match plan {
                Planned::Done(entry) => {
                    let before = present.unwrap_or(entry.rows_loaded);
                    return Ok(work.finish(format.name(), before, began).await);
                }
                Planned::Run(entry) => entry,
            };
            // A beginning of this content that another load left unfinished, or is loading right now.
            let borrowed = if entry.content_hash == scan.hash {
                None
            } else {
                Some(work.lock(&key, &entry.content_hash).await?)
            };
            let entry = ledger::read(work.session.conn(), entry.id)
                .await?
                .ok_or_else(|| Error::Fenced(content.name.clone()))?;
            present.get_or_insert(entry.rows_loaded);
            if !entry.finished {
                let job = FileJob {
                    content: content.clone(),
                    format,
                    entry: entry.clone(),
                    first_year,
                    limits: options.limits(),
                    envelope: work.envelope,
                };
                work.bar.begin(entry.done.bytes, scan.bytes);
                mapper = work.drive(entry, mapper, move |m, tx| produce::file(&job, m, tx)).await?;
            }
            if let Some(lock) = borrowed {
                work.session.unlock(lock).await?;
            }
        }
        work.session.unlock(own).await?;
    }
}

/// Reads the content once: hashes, and the year that its first record belongs to.
async fn scan(
    content: &Arc<Content>,
    known: Vec<u64>,
    format: Format,
    year: Option<i32>,
) -> Result<std::io::Result<(Scan, i32)>> {
    let content = content.clone();
    blocking(move || {
        let mut finder = YearFinder::default();
        let mut look = |line: &[u8]| finder.line(line);
        let find = format == Format::Syslog && year.is_none();
        let scan = content.scan(&known, if find { Some(&mut look) } else { None })?;
        let year = year.unwrap_or_else(|| finder.first_year(content.modified));
        Ok((scan, year))
    })
    .await
}

enum Planned {
    Done(Entry),
    Run(Entry),
}

enum Registered {
    Plan(Planned),
    /// Contents of other lengths became known meanwhile: hash again.
    Rescan(Vec<u64>),
}

impl Work<'_> {
    /// Takes the lock of a content of this table, waiting for another load of it.
    async fn lock(&mut self, key: &Key<'_>, hash: &str) -> Result<i64> {
        let name = format!("watershed/load/{}/{}/{hash}", key.relid, key.format);
        let id = sink::lock_key(self.session.conn(), &name).await?;
        self.session.lock(id).await?;
        Ok(id)
    }

    /// Decides what to do next, and makes the entry for it; one registration a table at a time, so that of two loads
    /// that begin alike one sees the other.
    async fn register(
        &mut self,
        key: &Key<'_>,
        scan: &Scan,
        known: &[u64],
        content: &Arc<Content>,
    ) -> Result<Registered> {
        let name = format!("watershed/load/{}", key.relid);
        let lock = sink::lock_key(self.session.conn(), &name).await?;
        let conn = self.session.conn();
        sink::run(conn, "BEGIN").await?;
        sqlx::query("SELECT pg_catalog.pg_advisory_xact_lock($1)").bind(lock).execute(&mut *conn).await?;
        let lengths = ledger::lengths(conn, key.relid, key.format, scan.bytes).await?;
        let more: Vec<u64> = lengths.into_iter().filter(|n| *n < scan.bytes && !known.contains(n)).collect();
        if !more.is_empty() {
            sink::run(conn, "ROLLBACK").await?;
            return Ok(Registered::Rescan(more));
        }
        let hashes = scan.prefixes.values().chain([&scan.hash]).cloned().collect();
        let entries = ledger::entries(conn, key.relid, key.format, hashes).await?;
        let plan = match ledger::next(&entries, scan) {
            Next::Done(e) => Planned::Done(e),
            Next::Continue(e) => Planned::Run(e),
            Next::Start => Planned::Run(ledger::insert(conn, *key, &Start::default()).await?),
            Next::Extend(parent) => {
                let (c, at) = (content.clone(), parent.content_bytes);
                let following = blocking(move || -> std::io::Result<Vec<u8>> {
                    let mut two = Vec::with_capacity(2);
                    std::io::Read::read_to_end(&mut std::io::Read::take(c.reader_at(at)?, 2), &mut two)?;
                    Ok(two)
                })
                .await?
                .map_err(|source| Error::Read { file: content.name.clone(), source })?;
                Planned::Run(ledger::insert(conn, *key, &ledger::extension(&parent, &following)).await?)
            }
        };
        sink::run(conn, "COMMIT").await?;
        Ok(Registered::Plan(plan))
    }

    /// Runs a producer on its own thread and commits its steps one after another.
    async fn drive(
        &mut self,
        entry: Entry,
        mapper: Mapper,
        produce: impl FnOnce(Mapper, &mpsc::Sender<Step>) -> Result<Mapper> + Send + 'static,
    ) -> Result<Mapper> {
        // Statements are made by a mapper of the same table: the first one is busy on the other thread.
        let writer = Mapper::with_mapping(mapper.target().clone(), &self.mapping)?;
        // One step waits while another is being written: with the one being filled, three in memory.
        let (sender, mut steps) = mpsc::channel::<Step>(1);
        let producer = tokio::task::spawn_blocking(move || produce(mapper, &sender));
        let result = self.consume(&mut steps, &writer, &entry).await;
        // Ends the producer at its next step, if the consumer gave up.
        drop(steps);
        let produced =
            producer.await.map_err(|e| Error::Internal(format!("the decoding thread ended: {e}")))?;
        result?;
        produced
    }

    async fn consume(
        &mut self,
        steps: &mut mpsc::Receiver<Step>,
        writer: &Mapper,
        entry: &Entry,
    ) -> Result<()> {
        let mut entry_loaded = entry.rows_loaded;
        while let Some(step) = steps.recv().await {
            self.wait_for_room().await;
            let refused = self.commit(&step, writer, entry.id, entry_loaded).await?;
            entry_loaded += step.advance.loaded - refused;
            self.loaded += step.advance.loaded - refused;
            self.rejected += step.advance.rejected + refused;
            self.bar.at(step.advance.to.bytes, self.loaded);
        }
        Ok(())
    }

    /// Waits while nothing is taken in, and says so. True if it had to.
    async fn wait_for_room(&self) -> bool {
        let mut pressure = self.options.pressure.clone();
        let State::Closed { reason } = pressure.state() else { return false };
        tracing::warn!(reason, source = %self.source, "the load waits until there is room");
        pressure.opened().await;
        tracing::warn!(source = %self.source, "there is room: the load goes on");
        true
    }

    /// Commits one step, whatever it takes; gives the number of rows that PostgreSQL refused.
    ///
    /// If the connection breaks, the entry tells whether the commit had happened: its progress is either still where
    /// the step began, or where it ends.
    async fn commit(&mut self, step: &Step, writer: &Mapper, id: i64, entry_loaded: u64) -> Result<u64> {
        let mut care = Care::None;
        let mut attempts = 0u32;
        loop {
            let error = match self.transaction(step, writer, id, care).await {
                Ok(refused) => return Ok(refused),
                Err(e) => e,
            };
            attempts += 1;
            match &error {
                Error::Postgres(e) if care == Care::None && is_rows_fault(e) => {
                    sink::rollback(self.session.conn()).await;
                    care = Care::Bisect;
                    continue;
                }
                e if e.is_transient() && attempts <= RETRIES => {
                    self.options.pressure.note(e);
                    tracing::warn!(error = %e, source = %self.source, "a batch did not commit, trying again");
                }
                _ => {
                    sink::rollback(self.session.conn()).await;
                    return Err(error);
                }
            }
            let now = loop {
                tokio::time::sleep(Duration::from_millis(100 * u64::from(attempts.min(20)))).await;
                if self.wait_for_room().await {
                    attempts = 1; // it was not the batch
                }
                self.session.reconnect(self.options.patience).await?;
                match ledger::read(self.session.conn(), id).await {
                    Ok(now) => break now,
                    Err(e) if e.is_transient() && attempts <= RETRIES => attempts += 1,
                    Err(e) => return Err(e),
                }
            };
            let fenced = || Error::Fenced(self.source.clone());
            let now = now.ok_or_else(fenced)?;
            if now.done == step.advance.to && now.finished == step.advance.finished {
                return Ok((entry_loaded + step.advance.loaded).saturating_sub(now.rows_loaded));
            }
            if now.done != step.from || now.finished {
                return Err(fenced());
            }
        }
    }

    async fn transaction(&mut self, step: &Step, writer: &Mapper, id: i64, care: Care) -> Result<u64> {
        let began = Instant::now();
        let conn = self.session.conn();
        sink::run(conn, "BEGIN").await?;
        if !ledger::advance(conn, id, step.from, &step.advance).await? {
            return Err(Error::Fenced(self.source.clone()));
        }
        let rows = step.batch.rows();
        let first = if rows > 0 { sink::allot(conn, self.stream, rows).await? } else { 0 };
        lake::crash::point("load.position");
        let numbering = Numbering::Stream { stream: self.stream, first };
        let refused = sink::copy_batch(conn, writer, &step.batch, numbering, care).await?;
        lake::crash::point("load.copied");
        let from = LetterSource {
            table: &self.table,
            source: &self.source,
            envelope: self.format,
            context: step.context.as_deref(),
        };
        sink::letters(conn, &from, &step.batch.rejected, |_| None).await?;
        if !refused.is_empty() {
            sink::letters(conn, &from, &refused, |_| None).await?;
            let tail = step.tail_line.is_some_and(|line| refused.iter().any(|r| r.line == line));
            ledger::refuse(conn, id, refused.len() as u64, tail).await?;
        }
        lake::crash::point("load.before_commit");
        sink::run(conn, "COMMIT").await?;
        lake::crash::point("load.committed");
        let bytes = step.advance.to.bytes.saturating_sub(step.from.bytes);
        taken::committed("load", &self.table, &step.batch, &refused, bytes, began);
        Ok(refused.len() as u64)
    }

    fn summary(&self, format: &str, already_present: u64, began: Instant) -> LoadSummary {
        LoadSummary {
            source: self.source.clone(),
            table: self.table.clone(),
            format: format.to_owned(),
            loaded: self.loaded,
            already_present,
            rejected: self.rejected,
            seconds: began.elapsed().as_secs_f64(),
        }
    }

    async fn finish(self, format: &str, already_present: u64, began: Instant) -> LoadSummary {
        let summary = self.summary(format, already_present, began);
        self.bar.clear();
        self.session.close().await;
        tracing::info!(
            source = %summary.source, table = %summary.table, loaded = summary.loaded,
            already_present, rejected = summary.rejected, seconds = summary.seconds, "loaded"
        );
        summary
    }
}

async fn load_generated(options: &Options, mut spec: generate::Spec) -> Result<LoadSummary> {
    let began = Instant::now();
    let (mut work, mapper) = open(options, "generated").await?;
    let hash = spec.identity();
    let key = Key {
        relid: mapper.target().relid,
        format: "generated",
        hash: &hash,
        bytes: spec.rows,
        source: "generated",
    };
    work.lock(&key, &hash).await?;
    let known = ledger::entries(work.session.conn(), key.relid, key.format, vec![hash.clone()]).await?;
    let entry = match known.into_iter().next() {
        Some(entry) => entry,
        None => {
            let start = Start { state: Some(spec.end.to_string()), ..Start::default() };
            ledger::insert(work.session.conn(), key, &start).await?
        }
    };
    let present = entry.rows_loaded;
    if !entry.finished {
        // The days that the rows lie in were fixed when the load began.
        if let Some(end) = entry.state.as_deref().and_then(|s| s.parse().ok()) {
            spec.end = end;
        }
        work.bar = Bar::new(options.progress, "generated rows");
        work.bar.begin(entry.done.bytes, spec.rows);
        let limits = options.limits();
        let from = entry.clone();
        work.drive(entry, mapper, move |m, tx| produce::generated(&spec, &from, limits, m, tx)).await?;
    }
    Ok(work.finish("generated", present, began).await)
}

/// A progress bar, or nothing.
#[derive(Debug)]
struct Bar(Option<ProgressBar>);

impl Bar {
    fn none() -> Bar {
        Bar(None)
    }

    fn new(wanted: bool, name: &str) -> Bar {
        if !wanted || !std::io::stderr().is_terminal() {
            return Bar(None);
        }
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(5));
        let style =
            ProgressStyle::with_template("{prefix}  {wide_bar} {percent:>3} %  {msg}  {elapsed_precise}");
        // The template is a literal that parses; the default style is fine if it ever does not.
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(name.to_owned());
        bar.set_message("reading");
        Bar(Some(bar))
    }

    fn begin(&self, from: u64, to: u64) {
        if let Some(bar) = &self.0 {
            bar.set_length(to);
            bar.set_position(from);
            bar.reset_eta();
        }
    }

    fn at(&self, bytes: u64, rows: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(bytes);
            let rate = rows as f64 / bar.elapsed().as_secs_f64().max(0.001);
            bar.set_message(format!("{rows} rows, {rate:.0}/s"));
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Now, in microseconds since 1970: the default end of generated rows.
pub fn now_micros() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
}
