//! `watershed bench lake`: the reference queries over many small files and after compaction, on the local disk and in
//! HDFS, beside DuckDB and PySpark over the same files and PostgreSQL over the same rows, in one run.
//!
//! ```text
//! 1 rows       generated into PostgreSQL, archiver and compactor at rest
//! 2 files      archived, then cut into as many small files as asked for
//! 3 before     every engine, warm and cold
//! 4 compact    `watershed compact` as a process of its own, and DuckDB's COPY ... ORDER BY of the same files
//! 5 after      every engine, warm and cold
//! 6 HDFS       the same two states of the lake, copied there
//! ```
//!
//! Cold means: first run after a fresh start of every process, with the system's page cache dropped where that is
//! permitted (it says which). What the others answer is not compared here; the gateway's own answers are compared with
//! PostgreSQL's to the byte.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt};
use indicatif::{ProgressBar, ProgressStyle};
use lake::log::{APP_COMPACTOR_FENCE, CommitOutcome, LakeFile, LakeTable, NewFile};
use lake::reader::FileReader;
use lake::writer::{FileWriter, WriterOptions};
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::{Value, json};
use sqlx::PgConnection;
use url::Url;

use super::instance::{AT_REST, Instance, Workplace, local_files, watershed};
use super::python;
use super::report::median;
use crate::args::BenchLakeArgs;
use crate::bootstrap;
use crate::commands::reference::QUERIES;
use crate::console::{complain, say};
use crate::exit::Code;
use crate::text_table::{Align, grouped, layout};
use crate::units::Bytes;
use crate::wire_client::Client;

const TABLE: &str = "public.logs";
/// Runs of a query on PostgreSQL, which takes seconds over this many rows.
const POSTGRES_ROUNDS: u32 = 3;
/// A query of the others that has taken this long in all is not run again, in milliseconds; `readers.py` has the same.
const ENOUGH_MS: f64 = 15_000.0;
/// Requests at once while the lake is copied.
const COPIES_AT_ONCE: usize = 8;
/// What a query may take at most, relative to the others: the goals.
const DUCKDB_GOAL: f64 = 1.0;
const SPARK_GOAL: f64 = 5.0;
const HDFS_GOAL: f64 = 1.5;

pub async fn run(args: BenchLakeArgs) -> Result<Code> {
    let work = Workplace::new(args.dir.as_deref(), args.keep)?;
    let python = Python::find(&args).await;
    say(format_args!(
        "[1/6] rows: {} generated into PostgreSQL ({})",
        grouped(args.rows),
        if drop_caches() { "the page cache can be dropped: cold is cold" } else { "the page cache cannot be dropped: cold is a fresh process" }
    ));
    let mut instance = Instance::start(&work.path, &at_rest(&args, None)).await?;
    load(&instance, &args).await?;
    let queries = queries(&instance).await?;
    let mut outcome = Outcome { rows: args.rows, ..Outcome::default() };
    outcome.postgres_bytes = postgres_bytes(&instance).await?;

    say(format_args!("[2/6] files: archived, then cut into {}", grouped(args.files)));
    watershed(&work.path, &["archive", TABLE, "--now"]).await?;
    let mut table = instance.lake_table(TABLE).await?;
    cut(&mut table, args.files).await?;
    outcome.small = Files::of(&table);
    let small = local_files(&table)?;

    say("[3/6] before compaction");
    let stage = Stage { work: &work.path, args: &args, queries: &queries, python: &python };
    outcome.postgres = stage.postgres(&instance).await?;
    outcome.before = stage.measure(&mut instance, &small, None).await?;
    print_stage("many small files", &outcome.before, &outcome, &queries);
    let hdfs = match &args.hdfs {
        Some(root) => {
            let (before, after) = (folder(root, "before")?, folder(root, "after")?);
            copy_lake(&instance.lake_root, &before).await?;
            Some((before, after))
        }
        None => None,
    };

    say("[4/6] compaction");
    let started = Instant::now();
    let peak = watershed(&work.path, &["compact", TABLE]).await?;
    outcome.compaction = Rewrite { seconds: started.elapsed().as_secs_f64(), peak_bytes: peak };
    table.refresh().await?;
    outcome.large = Files::of(&table);
    let large = local_files(&table)?;
    say(format_args!(
        "    {} rows/s, {} of memory at most; {} files became {}",
        whole(args.rows as f64 / outcome.compaction.seconds),
        Bytes(peak),
        outcome.small.count,
        outcome.large.count
    ));
    outcome.rewrite = stage.rewrite(&small).await;
    equal(&instance, &queries).await?;

    say("[5/6] after compaction");
    outcome.after = stage.measure(&mut instance, &large, None).await?;
    print_stage("after compaction", &outcome.after, &outcome, &queries);
    if let Some((before, after)) = hdfs {
        say("[6/6] HDFS");
        copy_lake(&instance.lake_root, &after).await?;
        for (place, url) in [(&mut outcome.hdfs_before, &before), (&mut outcome.hdfs_after, &after)] {
            match stage.measure(&mut instance, &[], Some(url)).await {
                Ok(measured) => *place = Some(measured),
                Err(error) => complain(format_args!("{url}: {error:#}")),
            }
        }
    } else {
        say("[6/6] HDFS: left out; name one with --hdfs");
    }
    instance.stop().await?;

    print(&outcome, &queries);
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(&outcome.json(&queries))? + "\n")
            .with_context(|| format!("write {}", path.display()))?;
    }
    let missed = outcome.missed(&queries);
    for goal in &missed {
        complain(format_args!("not reached: {goal}"));
    }
    Ok(if missed.is_empty() { Code::Done } else { Code::Found })
}

/// Archiver and compactor wait to be told; the lake is where it is asked for.
fn at_rest(args: &BenchLakeArgs, lake: Option<&Url>) -> String {
    let lake = lake.map(|url| format!("lake = {}\n", Value::from(url.as_str()))).unwrap_or_default();
    let memory = args.memory.map(|bytes| format!("[gateway]\nmemory_limit = \"{}B\"\n", bytes.0)).unwrap_or_default();
    format!("{lake}{memory}{AT_REST}")
}

async fn load(instance: &Instance, args: &BenchLakeArgs) -> Result<()> {
    let bar = bar(args.rows, "rows");
    let shown = bar.clone();
    let spec = ingest::generate::Spec { seed: 1, ..ingest::generate::Spec::logs(args.rows) };
    let options = ingest::load::Options {
        database_url: instance.admin_url.clone(),
        table: TABLE.into(),
        ..Default::default()
    };
    let watching = tokio::spawn({
        let url = instance.admin_url.clone();
        async move {
            let Ok(mut conn) = bootstrap::connect(&url).await else { return };
            loop {
                let sum = "SELECT coalesce(sum(reltuples) FILTER (WHERE reltuples > 0), 0)::int8 FROM pg_catalog.pg_class \
                     WHERE relispartition AND relkind = 'r'";
                if let Ok(rows) = sqlx::query_scalar::<_, i64>(sum).fetch_one(&mut conn).await {
                    shown.set_position(rows.unsigned_abs());
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    });
    let loaded = ingest::load::run_generated(options, spec, Default::default()).await;
    watching.abort();
    bar.finish_and_clear();
    loaded?;
    let mut admin = bootstrap::connect(&instance.admin_url).await?;
    sqlx::raw_sql("VACUUM (ANALYZE) public.logs").execute(&mut admin).await.context("vacuum")?;
    sqlx::raw_sql("CHECKPOINT").execute(&mut admin).await.context("checkpoint")?;
    Ok(())
}

fn bar(length: u64, unit: &str) -> ProgressBar {
    let template = format!("    {{bar:30}} {{human_pos}}/{{human_len}} {unit}");
    let style = ProgressStyle::with_template(&template);
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// The reference queries with times that the rows have.
async fn queries(instance: &Instance) -> Result<Vec<(String, String)>> {
    let mut conn = bootstrap::connect(&instance.admin_url).await?;
    sqlx::raw_sql("SET TimeZone = 'UTC'").execute(&mut conn).await?;
    let ts: String =
        sqlx::query_scalar("SELECT ts::text FROM public.logs ORDER BY ts DESC OFFSET 1000 LIMIT 1").fetch_one(&mut conn).await?;
    let since: String =
        sqlx::query_scalar("SELECT (min(ts) + (max(ts) - min(ts)) / 2)::text FROM public.logs").fetch_one(&mut conn).await?;
    Ok(QUERIES
        .iter()
        .map(|(name, sql)| ((*name).to_owned(), sql.replace("{ts}", &ts).replace("{since}", &since)))
        .collect())
}

async fn postgres_bytes(instance: &Instance) -> Result<u64> {
    let mut conn = bootstrap::connect(&instance.admin_url).await?;
    let sum = "SELECT sum(pg_catalog.pg_total_relation_size(relid))::int8 FROM pg_catalog.pg_partition_tree('public.logs')";
    let bytes: i64 = sqlx::query_scalar(sum).fetch_one(&mut conn).await?;
    Ok(bytes.unsigned_abs())
}

/// Replaces the files of the table by `wanted` smaller ones with the same rows, each a stretch of time, as many short
/// archives would have left them.
async fn cut(table: &mut LakeTable, wanted: u64) -> Result<()> {
    let version = table.current();
    let removed: Vec<Arc<LakeFile>> = version.files.iter().cloned().collect();
    let each = usize::try_from(version.rows.div_ceil(wanted.max(1)))?.max(1);
    let bar = bar(wanted, "files");
    let options = WriterOptions::default();
    let schema = table.spec().arrow_schema();
    let mut added: Vec<NewFile> = Vec::new();
    for file in &removed {
        let mut reader = FileReader::open(table, file, schema.clone(), each.min(64 << 10)).await?;
        let mut writer: Option<FileWriter> = None;
        while let Some(batch) = reader.next().await? {
            let mut at = 0;
            while at < batch.num_rows() {
                let mut open = match writer.take() {
                    Some(open) => open,
                    None => FileWriter::create(table, file.day, &options).await?,
                };
                let room = each.saturating_sub(usize::try_from(open.rows())?).max(1);
                let rows = room.min(batch.num_rows() - at);
                open.write(&batch.slice(at, rows)).await?;
                at += rows;
                if usize::try_from(open.rows())? >= each {
                    added.push(open.close().await?);
                    bar.inc(1);
                } else {
                    writer = Some(open);
                }
            }
        }
        if let Some(rest) = writer {
            added.push(rest.close().await?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let fence = table.fence(APP_COMPACTOR_FENCE);
    match table.commit_rewrite(&removed, added, fence).await? {
        CommitOutcome::Done(_) => Ok(()),
        CommitOutcome::Lost => bail!("somebody else rewrote the files of the benchmark"),
    }
}

fn folder(root: &Url, stage: &str) -> Result<Url> {
    let mut url = root.clone();
    url.path_segments_mut()
        .map_err(|()| anyhow::anyhow!("{root} is no place for a lake"))?
        .pop_if_empty()
        .push(&format!("watershed-bench-{}-{stage}", std::process::id()));
    Ok(url)
}

/// Copies every file of the lake, the logs last, so that no log names a file that is not there.
async fn copy_lake(from: &Url, to: &Url) -> Result<()> {
    let (source, target) = (lake::store::open(from)?, lake::store::open(to)?);
    let (base, prefix) = (lake::store::path(from)?, lake::store::path(to)?);
    let found: Vec<_> = source.list(Some(&base)).try_collect().await?;
    let (logs, data): (Vec<_>, Vec<_>) = found.into_iter().partition(|o| o.location.as_ref().contains("_delta_log"));
    let bar = bar((logs.len() + data.len()) as u64, "files copied");
    for part in [data, logs] {
        futures::stream::iter(part)
            .map(|object| {
                let (source, target, base, prefix, bar) = (&source, &target, &base, &prefix, &bar);
                async move {
                    let rest = object.location.prefix_match(base).into_iter().flatten();
                    let place = prefix.parts().chain(rest).collect();
                    let bytes = source.get(&object.location).await?.bytes().await?;
                    target.put(&place, bytes.into()).await?;
                    bar.inc(1);
                    Ok::<_, anyhow::Error>(())
                }
            })
            .buffer_unordered(COPIES_AT_ONCE)
            .try_collect::<Vec<()>>()
            .await?;
    }
    bar.finish_and_clear();
    Ok(())
}

/// Tells the kernel to forget what it has cached of files. False: not permitted.
fn drop_caches() -> bool {
    std::fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}

/// The gateway's answers from the lake are PostgreSQL's, as text and in binary.
async fn equal(instance: &Instance, queries: &[(String, String)]) -> Result<()> {
    let mut client = Client::connect(&instance.target).await?;
    for (name, sql) in queries {
        let mut answers = Vec::new();
        for route in ["postgres", "lake"] {
            client.simple(&format!("SET watershed.route = '{route}'")).await?;
            answers.push((client.simple(sql).await?, client.binary(sql).await?));
        }
        let [(a, a_binary), (b, b_binary)] = answers.as_slice() else { bail!("two answers were expected") };
        if !a.equals(b) || !a_binary.equals(b_binary) {
            bail!("{name}: the lake's answer is not PostgreSQL's");
        }
    }
    Ok(())
}

/// A Python and what it can import.
struct Python {
    program: PathBuf,
    duckdb: bool,
    spark: bool,
}

impl Python {
    async fn find(args: &BenchLakeArgs) -> Python {
        let program = args.python.clone();
        Python { duckdb: python::has(&program, "duckdb").await, spark: python::has(&program, "pyspark").await, program }
    }

    async fn ask(&self, job: Value) -> Result<Value> {
        python::ask(&self.program, python::READERS, &job).await
    }
}

/// Times of one query.
#[derive(Clone, Debug, Default)]
struct Times {
    /// Median of the warm runs, in milliseconds.
    warm: Option<f64>,
    cold: Option<f64>,
    /// Of the gateway: where a warm run's time goes (whole statement, probe and tail, in milliseconds), and what it read.
    inside: Option<Inside>,
}

#[derive(Clone, Copy, Debug)]
struct Inside {
    probe: f64,
    tail: f64,
    files: i64,
    row_groups: i64,
}

type Timed = BTreeMap<String, Times>;

/// All engines over one state of the lake.
#[derive(Default)]
struct Measured {
    gateway: Timed,
    duckdb: Option<Timed>,
    spark: Option<Timed>,
    /// The most memory the process of the gateway held.
    peak_bytes: u64,
    versions: Vec<String>,
}

struct Rewrite {
    seconds: f64,
    peak_bytes: u64,
}

impl Default for Rewrite {
    fn default() -> Self {
        Rewrite { seconds: f64::NAN, peak_bytes: 0 }
    }
}

#[derive(Default)]
struct Files {
    count: usize,
    bytes: u64,
}

impl Files {
    fn of(table: &LakeTable) -> Files {
        let version = table.current();
        Files { count: version.files.len(), bytes: version.bytes }
    }
}

/// What every stage works with.
struct Stage<'a> {
    work: &'a Path,
    args: &'a BenchLakeArgs,
    queries: &'a [(String, String)],
    python: &'a Python,
}

impl Stage<'_> {
    /// PostgreSQL by itself, past the gateway, warm.
    async fn postgres(&self, instance: &Instance) -> Result<Timed> {
        let mut conn = bootstrap::connect(&instance.admin_url).await?;
        let mut timed = Timed::new();
        for (name, sql) in self.queries {
            raw(&mut conn, sql).await?;
            let mut times = Vec::new();
            for _ in 0..self.args.rounds.min(POSTGRES_ROUNDS) {
                times.push(raw(&mut conn, sql).await?);
                if times.iter().sum::<f64>() > ENOUGH_MS {
                    break;
                }
            }
            timed.insert(name.clone(), Times { warm: Some(median(&times)), ..Times::default() });
        }
        Ok(timed)
    }

    /// Gateway, DuckDB and Spark over the lake of `instance`, or after a restart over the one in `lake`.
    async fn measure(&self, instance: &mut Instance, files: &[String], lake: Option<&Url>) -> Result<Measured> {
        let settings = at_rest(self.args, lake);
        let bar = bar(self.queries.len() as u64 + 1, "queries, cold");
        let mut measured = Measured::default();
        for (name, sql) in self.queries {
            self.restart(instance, &settings, lake).await?;
            drop_caches();
            let cold = self.gateway(instance, sql, 1, false).await?;
            measured.gateway.insert(name.clone(), Times { cold: cold.0.first().copied(), ..Times::default() });
            bar.inc(1);
        }
        self.restart(instance, &settings, lake).await?;
        bar.finish_and_clear();
        for (name, sql) in self.queries {
            let (times, inside) = self.gateway(instance, sql, self.args.rounds, true).await?;
            let entry = measured.gateway.entry(name.clone()).or_default();
            entry.warm = Some(median(&times));
            entry.inside = inside;
        }
        measured.peak_bytes = instance.peak_bytes();
        if files.is_empty() {
            return Ok(measured);
        }
        // One that fails costs its own figures only.
        if self.python.duckdb {
            match self.other("duckdb", files, &mut measured.versions, true).await {
                Ok(timed) => measured.duckdb = Some(timed),
                Err(error) => complain(format_args!("{error:#}")),
            }
        }
        if self.python.spark {
            match self.other("spark", files, &mut measured.versions, false).await {
                Ok(timed) => measured.spark = Some(timed),
                Err(error) => complain(format_args!("{error:#}")),
            }
        }
        Ok(measured)
    }

    async fn restart(&self, instance: &mut Instance, settings: &str, lake: Option<&Url>) -> Result<()> {
        instance.restart(self.work, settings, lake.is_some()).await
    }

    /// Milliseconds of each run on the lake.
    async fn gateway(&self, instance: &Instance, sql: &str, rounds: u32, warm: bool) -> Result<(Vec<f64>, Option<Inside>)> {
        let mut client = Client::connect(&instance.target).await?;
        client.simple("SET TimeZone = 'UTC'").await?;
        client.simple("SET watershed.route = 'lake'").await?;
        if warm {
            client.simple(sql).await?;
        }
        let mut times = Vec::new();
        for _ in 0..rounds {
            times.push(client.simple(sql).await?.took.as_secs_f64() * 1e3);
        }
        let last = format!(
            "SELECT probe_us, tail_us, lake_files, lake_row_groups FROM watershed.queries WHERE route = 'lake' ORDER BY id DESC LIMIT {rounds}"
        );
        let rows = client.simple(&last).await?.text()?;
        let column = |at: usize| -> Vec<f64> {
            rows.iter().filter_map(|r| r.get(at)?.as_deref()?.parse::<f64>().ok()).collect()
        };
        let inside = Inside {
            probe: median(&column(0)) / 1e3,
            tail: median(&column(1)) / 1e3,
            files: median(&column(2)) as i64,
            row_groups: median(&column(3)) as i64,
        };
        Ok((times, Some(inside)))
    }

    /// Another engine over the files: warm in one process, and, if asked, cold with a process for each query.
    async fn other(&self, engine: &str, files: &[String], versions: &mut Vec<String>, cold: bool) -> Result<Timed> {
        let job = |queries: &[(String, String)], rounds: u32, warm: bool| {
            json!({
                "engine": engine, "threads": threads(), "rounds": rounds, "warm": warm,
                "tables": { "logs": files }, "queries": queries,
            })
        };
        let answer = self.python.ask(job(self.queries, self.args.rounds, true)).await.with_context(|| engine.to_owned())?;
        versions.push(format!("{engine} {}", answer["version"].as_str().unwrap_or("?")));
        let mut timed = Timed::new();
        for (name, _) in self.queries {
            let times = milliseconds(&answer, name);
            if let Some(why) = answer["failed"][name.as_str()].as_str() {
                say(format_args!("    {engine}, {name}: {why}"));
            }
            timed.insert(name.clone(), Times { warm: times.as_deref().map(median), ..Times::default() });
        }
        if cold {
            for query in self.queries {
                drop_caches();
                let answer = self.python.ask(job(std::slice::from_ref(query), 1, false)).await?;
                let cold = milliseconds(&answer, &query.0).and_then(|t| t.first().copied());
                timed.entry(query.0.clone()).or_default().cold = cold;
            }
        }
        Ok(timed)
    }

    /// DuckDB's way to the same: one sorted file.
    async fn rewrite(&self, files: &[String]) -> Option<Rewrite> {
        if !self.python.duckdb {
            return None;
        }
        let to = self.work.join("rewritten.parquet");
        let job = json!({
            "engine": "duckdb", "threads": threads(),
            "rewrite": { "from": files, "to": to, "by": "ts", "memory": "4GB" },
        });
        let answer = self.python.ask(job).await;
        let _ = std::fs::remove_file(&to);
        match answer {
            Ok(answer) => Some(Rewrite {
                seconds: answer["seconds"].as_f64()?,
                peak_bytes: answer["peak_bytes"].as_u64().unwrap_or_default(),
            }),
            Err(error) => {
                complain(format_args!("DuckDB's rewrite: {error:#}"));
                None
            }
        }
    }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

fn milliseconds(answer: &Value, name: &str) -> Option<Vec<f64>> {
    answer["milliseconds"][name].as_array().map(|times| times.iter().filter_map(Value::as_f64).collect())
}

/// One statement by itself, in milliseconds.
async fn raw(conn: &mut PgConnection, sql: &str) -> Result<f64> {
    let sql = sql.replace("FROM logs", "FROM public.logs");
    let started = Instant::now();
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).fetch_all(conn).await?;
    Ok(started.elapsed().as_secs_f64() * 1e3)
}

#[derive(Default)]
struct Outcome {
    rows: u64,
    postgres_bytes: u64,
    small: Files,
    large: Files,
    postgres: Timed,
    before: Measured,
    compaction: Rewrite,
    rewrite: Option<Rewrite>,
    after: Measured,
    hdfs_before: Option<Measured>,
    hdfs_after: Option<Measured>,
}

fn warm(timed: Option<&Timed>, name: &str) -> Option<f64> {
    timed?.get(name)?.warm
}

fn cold(timed: Option<&Timed>, name: &str) -> Option<f64> {
    timed?.get(name)?.cold
}

impl Outcome {
    /// Goals that the figures miss.
    fn missed(&self, queries: &[(String, String)]) -> Vec<String> {
        let mut missed = Vec::new();
        for (name, _) in queries {
            let Some(ours) = warm(Some(&self.after.gateway), name) else { continue };
            if let Some(theirs) = warm(self.after.duckdb.as_ref(), name)
                && ours > theirs * DUCKDB_GOAL
            {
                missed.push(format!("{name}: no slower than DuckDB after compaction ({ours:.1} ms, {theirs:.1} ms)"));
            }
            if let Some(theirs) = warm(self.after.spark.as_ref(), name)
                && ours * SPARK_GOAL > theirs
            {
                missed.push(format!("{name}: {SPARK_GOAL} times faster than PySpark ({ours:.1} ms, {theirs:.1} ms)"));
            }
            if let Some(there) = warm(self.hdfs_after.as_ref().map(|m| &m.gateway), name)
                && there > ours * HDFS_GOAL
            {
                missed.push(format!("{name}: HDFS within {HDFS_GOAL} of the local disk ({there:.1} ms, {ours:.1} ms)"));
            }
        }
        missed
    }

    fn json(&self, queries: &[(String, String)]) -> Value {
        let timed = |timed: Option<&Timed>| -> Value {
            let Some(timed) = timed else { return Value::Null };
            let one = |t: &Times| {
                json!({
                    "warm_ms": t.warm, "cold_ms": t.cold,
                    "probe_ms": t.inside.map(|i| i.probe), "tail_ms": t.inside.map(|i| i.tail),
                    "files": t.inside.map(|i| i.files), "row_groups": t.inside.map(|i| i.row_groups),
                })
            };
            timed.iter().map(|(name, t)| (name.clone(), one(t))).collect::<serde_json::Map<_, _>>().into()
        };
        let measured = |m: &Measured| {
            json!({
                "gateway": timed(Some(&m.gateway)), "duckdb": timed(m.duckdb.as_ref()), "spark": timed(m.spark.as_ref()),
                "gateway_peak_bytes": m.peak_bytes, "versions": m.versions,
            })
        };
        json!({
            "rows": self.rows,
            "queries": queries.iter().map(|(name, sql)| json!({ "name": name, "sql": sql })).collect::<Vec<_>>(),
            "small_files": { "files": self.small.count, "bytes": self.small.bytes },
            "large_files": { "files": self.large.count, "bytes": self.large.bytes },
            "postgres_bytes": self.postgres_bytes,
            "postgres": timed(Some(&self.postgres)),
            "before": measured(&self.before),
            "after": measured(&self.after),
            "hdfs_before": self.hdfs_before.as_ref().map(measured),
            "hdfs_after": self.hdfs_after.as_ref().map(measured),
            "compaction": { "seconds": self.compaction.seconds, "peak_bytes": self.compaction.peak_bytes },
            "duckdb_rewrite": self.rewrite.as_ref().map(|r| json!({ "seconds": r.seconds, "peak_bytes": r.peak_bytes })),
        })
    }
}

fn whole(number: f64) -> String {
    grouped(number.max(0.0).round() as u64)
}

fn ms(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), |v| format!("{v:.1}"))
}

fn ratio(over: Option<f64>, under: Option<f64>) -> String {
    match (over, under) {
        (Some(a), Some(b)) if b > 0.0 => format!("{:.2}", a / b),
        _ => "-".into(),
    }
}

/// The figures of one state of the lake, as soon as they are there: what fails later does not take them along.
fn print_stage(title: &str, measured: &Measured, outcome: &Outcome, queries: &[(String, String)]) {
    let right = |name| (name, Align::Right);
    say(format_args!("\n{title}, milliseconds"));
    let heading = [
        ("query", Align::Left),
        right("gateway"),
        right("of it probe"),
        right("tail"),
        right("cold"),
        right("DuckDB"),
        right("cold"),
        right("PySpark"),
        right("PostgreSQL"),
        right("gateway/DuckDB"),
        right("PySpark/gateway"),
        right("files"),
        right("row groups"),
    ];
    let rows: Vec<Vec<String>> = queries
        .iter()
        .map(|(name, _)| {
            let ours = measured.gateway.get(name).cloned().unwrap_or_default();
            let (duck, spark) = (measured.duckdb.as_ref(), measured.spark.as_ref());
            vec![
                name.clone(),
                ms(ours.warm),
                ms(ours.inside.map(|i| i.probe)),
                ms(ours.inside.map(|i| i.tail)),
                ms(ours.cold),
                ms(warm(duck, name)),
                ms(cold(duck, name)),
                ms(warm(spark, name)),
                ms(warm(Some(&outcome.postgres), name)),
                ratio(ours.warm, warm(duck, name)),
                ratio(warm(spark, name), ours.warm),
                ours.inside.map_or_else(String::new, |i| i.files.to_string()),
                ours.inside.map_or_else(String::new, |i| i.row_groups.to_string()),
            ]
        })
        .collect();
    say(layout(&heading, &rows).trim_end());
}

fn print(outcome: &Outcome, queries: &[(String, String)]) {
    let right = |name| (name, Align::Right);
    if let (Some(before), Some(after)) = (&outcome.hdfs_before, &outcome.hdfs_after) {
        say("\nHDFS, milliseconds");
        let heading = [
            ("query", Align::Left),
            right("before"),
            right("cold"),
            right("after"),
            right("cold"),
            right("HDFS/local, after"),
        ];
        let rows: Vec<Vec<String>> = queries
            .iter()
            .map(|(name, _)| {
                let (b, a) = (Some(&before.gateway), Some(&after.gateway));
                let local = warm(Some(&outcome.after.gateway), name);
                vec![
                    name.clone(),
                    ms(warm(b, name)),
                    ms(cold(b, name)),
                    ms(warm(a, name)),
                    ms(cold(a, name)),
                    ratio(warm(a, name), local),
                ]
            })
            .collect();
        say(layout(&heading, &rows).trim_end());
    }
    say("\nwhat compaction gained (before / after, warm)");
    let gained: Vec<Vec<String>> = queries
        .iter()
        .map(|(name, _)| {
            let gain = |b: Option<&Timed>, a: Option<&Timed>| ratio(warm(b, name), warm(a, name));
            vec![
                name.clone(),
                gain(Some(&outcome.before.gateway), Some(&outcome.after.gateway)),
                gain(outcome.before.duckdb.as_ref(), outcome.after.duckdb.as_ref()),
                gain(outcome.before.spark.as_ref(), outcome.after.spark.as_ref()),
            ]
        })
        .collect();
    let heading = [("query", Align::Left), right("gateway"), right("DuckDB"), right("PySpark")];
    say(layout(&heading, &gained).trim_end());
    let rows = outcome.rows as f64;
    let rewritten = |r: &Rewrite| format!("{} rows/s, {} at most", whole(rows / r.seconds), Bytes(r.peak_bytes));
    say(format_args!("\ncompaction: {}", rewritten(&outcome.compaction)));
    if let Some(theirs) = &outcome.rewrite {
        say(format_args!("DuckDB, COPY ... ORDER BY ts of the same files: {}", rewritten(theirs)));
    }
    let a_row = |bytes: u64| bytes as f64 / rows.max(1.0);
    say(format_args!(
        "bytes a row: {:.1} in {} small files, {:.1} in {} after compaction, {:.1} in PostgreSQL with its indexes",
        a_row(outcome.small.bytes),
        outcome.small.count,
        a_row(outcome.large.bytes),
        outcome.large.count,
        a_row(outcome.postgres_bytes)
    ));
    say(format_args!(
        "peak memory of the gateway's process: {} before, {} after",
        Bytes(outcome.before.peak_bytes),
        Bytes(outcome.after.peak_bytes)
    ));
    for version in &outcome.after.versions {
        say(version);
    }
}
