//! `watershed bench relay`: what the gateway costs a statement that it hands on, beside PgBouncer (which does nothing else) and
//! beside no one between. One PostgreSQL, one run, the three in turns.
//!
//! ```text
//! 1 rows       generated, one for each step of time; in a tiered table, archived, and in an ordinary one
//! 2 answers    every way gives the same bytes
//! 3 lookups    pgbench: one row by its key; mode x clients x way, as many rounds as asked for
//! 4 COPY       psql: many rows out, as text and in binary
//! 5 calls      the system calls of a statement, with strace, in runs of their own
//! ```
//!
//! Clients come by TCP over the loopback, whichever way; PgBouncer and the gateway go on over the Unix socket. Allocations are
//! not counted: the allocator is built without its statistics, which would cost every statement.

mod figures;
mod pgbench;
mod strace;
mod ways;

use std::collections::HashSet;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use sqlx::{AssertSqlSafe, PgConnection};
use tokio::io::AsyncReadExt;

use self::figures::{Cell, Copied, Outcome, Sample, Traced};
use self::pgbench::{Load, Pgbench, Running, client};
use self::strace::Tracer;
use self::ways::{Way, Ways, find_pgbouncer};
use super::instance::{Instance, Workplace, watershed};
use super::process::peak_bytes;
use super::programs;
use crate::args::{BenchRelayArgs, RelayTable};
use crate::bootstrap;
use crate::console::{complain, say};
use crate::exit::Code;
use crate::text_table::grouped;
use crate::up::Stops;
use crate::wire_client::Client;

const TIERED: &str = "public.logs";
const PLAIN: &str = "public.logs_plain";
const COLUMNS: &str = "ts, level, service, host, message, metadata";
/// The rows lie in this much time, so that none is older than the first day of a new table.
const SPAN_S: u64 = 3 * 86_400;
/// Rows whose answers are compared before anything is measured.
const COMPARED: u64 = 5;
/// Connections of the services, and what checks and leftovers need for a moment.
const MORE_SESSIONS: u32 = 40;
/// Seconds that warm each way and mode, at most.
const WARM_UP_S: u32 = 2;
/// Runs of a warm-up, at most.
const WARM_UPS: u32 = 20;
/// Runs of a cell, each twice as long as the one before, until logins do not fill it.
const TRIES: u32 = 6;
/// New server processes learn the table's partitions first, as PgBouncer's, which are kept, did long ago: that much of each run does not
/// count, whichever way.
const SETTLES: Duration = Duration::from_secs(2);
/// How often the server is asked whether all clients are there.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// COPY of one format, to the end; a hang is an error.
const COPY_LIMIT: Duration = Duration::from_secs(600);

pub async fn run(args: BenchRelayArgs) -> Result<Code> {
    let (program, version) = find_pgbouncer(args.pgbouncer.as_deref()).await?;
    let mut stops = Stops::listen()?;
    let work = Workplace::new(args.dir.as_deref(), args.keep)?;
    // What was started is stopped as its owner is dropped.
    let outcome = tokio::select! {
        measured = measure(&args, &work.path, &program, version) => measured?,
        () = stops.next() => bail!("stopped before it was done"),
    };
    say(outcome.text(args.markdown).trim_end());
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(&outcome.json())? + "\n")
            .with_context(|| format!("write {}", path.display()))?;
    }
    for goal in outcome.missed() {
        complain(format_args!("not reached: {goal}"));
    }
    Ok(Code::Done)
}

/// Archiver and compactor wait to be told; there is room for every client.
fn settings(sessions: u32) -> String {
    format!(
        "[gateway]\nmax_sessions = {sessions}\n[archiver]\ninterval = \"1d\"\nmin_rows = 100000000000\n[compactor]\nenabled = false\n"
    )
}

async fn measure(args: &BenchRelayArgs, work: &Path, program: &Path, version: String) -> Result<Outcome> {
    let most = args.clients.iter().copied().max().unwrap_or(1);
    // Beside the clients of another way, PgBouncer keeps the connections of its own.
    let sessions = 2 * most + MORE_SESSIONS;
    say(format_args!(
        "[1/5] rows: {} generated, into {TIERED} (tiered) and {PLAIN}",
        grouped(args.rows.max(args.copy_rows))
    ));
    let instance = Instance::start(work, &settings(sessions)).await?;
    let keys = fill(&instance, work, args.rows.max(args.copy_rows)).await?;
    let ways = Ways::open(&instance, program, work, sessions).await?;
    let mut outcome = Outcome::new(args);
    outcome.describe(&instance, version).await?;
    for line in &outcome.about {
        say(format_args!("    {line}"));
    }

    say("[2/5] answers: the same bytes on every way");
    outcome.route = compare(&ways, &keys, args).await?;
    say(format_args!("    the gateway's route for the lookup: {}", outcome.route));

    say(format_args!(
        "[3/5] lookups in {}: {} rounds of {} s for each cell and way",
        table(args.table),
        args.rounds,
        args.seconds
    ));
    let pgbench = programs::find(&instance.admin_url, "pgbench").await?;
    let pgbench = Pgbench::new(pgbench, work, &keys.script(args), args.jobs)?;
    let admin = bootstrap::connect(&instance.admin_url).await?;
    let mut bench = Bench { ways: &ways, pgbench: &pgbench, admin, seconds: args.seconds };
    lookups(args, &mut bench, &mut outcome).await?;
    outcome.peaks.push(("lookups", peaks(&ways)));

    say(format_args!("[4/5] COPY of {} rows, {} rounds", grouped(args.copy_rows), args.rounds));
    if args.copy_rows > 0 {
        let psql = programs::find(&instance.admin_url, "psql").await?;
        copies(args, &ways, &keys, &psql, &mut outcome).await?;
        outcome.peaks.push(("COPY", peaks(&ways)));
    }

    if args.strace {
        say("[5/5] system calls");
        calls(&mut bench, work, &mut outcome).await?;
    } else {
        say("[5/5] system calls: left out; --strace counts them");
    }
    drop(bench);
    ways.close().await?;
    instance.stop().await?;
    Ok(outcome)
}

fn table(which: RelayTable) -> &'static str {
    match which {
        RelayTable::Tiered => TIERED,
        RelayTable::Plain => PLAIN,
    }
}

/// The keys of the rows: one for each step of time, so that a random number names a row that exists.
struct Keys {
    /// Seconds since 1970 of the first row.
    first: u64,
    /// Seconds from row to row: a power of two, so that a key has few decimals and is exact.
    step: f64,
}

impl Keys {
    fn new(rows: u64, now: u64) -> Keys {
        let widest = SPAN_S as f64 / rows.max(1) as f64;
        Keys { first: now.saturating_sub(SPAN_S), step: widest.log2().floor().min(6.0).exp2() }
    }

    /// Seconds since 1970 of a row.
    fn of(&self, row: u64) -> f64 {
        self.first as f64 + row as f64 * self.step
    }

    /// `to_timestamp` is immutable, so the planner knows the day, in every mode; and pgbench has numbers only.
    fn lookup(&self, table: &str, key: &str) -> String {
        format!("SELECT {COLUMNS} FROM {table} WHERE ts = to_timestamp({key})")
    }

    fn script(&self, args: &BenchRelayArgs) -> String {
        let last = args.rows - 1;
        let lookup = self.lookup(table(args.table), ":at");
        format!("\\set at {} + random(0, {last}) * {}\n{lookup};\n", self.first, self.step)
    }

    fn copy(&self, args: &BenchRelayArgs, format: &str) -> String {
        let (table, end) = (table(args.table), self.of(args.copy_rows));
        format!(
            "COPY (SELECT {COLUMNS} FROM {table} WHERE ts < to_timestamp({end})) TO STDOUT (FORMAT {format})"
        )
    }
}

/// Generated rows with times of ours, in both tables; the tiered one's stand in the lake as well.
async fn fill(instance: &Instance, work: &Path, rows: u64) -> Result<Keys> {
    let spec = ingest::generate::Spec { seed: 1, ..ingest::generate::Spec::logs(rows) };
    let options = ingest::load::Options {
        database_url: instance.admin_url.clone(),
        table: TIERED.into(),
        ..Default::default()
    };
    ingest::load::run_generated(options, spec, Default::default()).await?;
    let keys = Keys::new(rows, SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs());
    let mut admin = bootstrap::connect(&instance.admin_url).await?;
    let (first, step) = (keys.first, keys.step);
    let timed = format!(
        "CREATE TABLE {PLAIN} AS SELECT to_timestamp({first} + (row_number() OVER () - 1) * {step}::float8) AS ts, \
         level, service, host, message, metadata FROM {TIERED}"
    );
    let copied = format!("INSERT INTO {TIERED} ({COLUMNS}) SELECT {COLUMNS} FROM {PLAIN}");
    for sql in [
        timed.as_str(),
        "ALTER TABLE public.logs_plain ADD PRIMARY KEY (ts)",
        "ALTER TABLE public.logs_plain OWNER TO watershed",
        "SELECT watershed.drop_table('public.logs')",
        "CREATE TABLE public.logs (ts timestamptz NOT NULL, level text, service text, host text, message text, metadata jsonb)",
        "CREATE INDEX logs_ts_idx ON public.logs (ts)",
        "ALTER TABLE public.logs OWNER TO watershed",
        "SELECT watershed.attach_table('public.logs', event_time => 'ts', overflow => 'metadata')",
        copied.as_str(),
    ] {
        execute(&mut admin, sql).await?;
    }
    watershed(work, &["archive", TIERED, "--now"]).await?;
    for sql in ["VACUUM (ANALYZE) public.logs", "VACUUM (ANALYZE) public.logs_plain", "CHECKPOINT"] {
        execute(&mut admin, sql).await?;
    }
    let held: i64 =
        sqlx::query_scalar("SELECT count(*) FROM public.logs_plain").fetch_one(&mut admin).await?;
    if held.unsigned_abs() != rows {
        bail!("{held} rows were made, not {rows}");
    }
    Ok(keys)
}

async fn execute(conn: &mut PgConnection, sql: &str) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(conn).await.with_context(|| sql.to_owned())?;
    Ok(())
}

/// One row each, equal to the byte on all ways; where the gateway sends the statement.
async fn compare(ways: &Ways, keys: &Keys, args: &BenchRelayArgs) -> Result<String> {
    let mut direct = Client::connect(ways.target(Way::Direct)).await?;
    let mut statement = String::new();
    for way in [Way::PgBouncer, Way::Gateway] {
        let mut other = Client::connect(ways.target(way)).await?;
        for i in 0..COMPARED {
            let row = i * (args.rows - 1) / (COMPARED - 1);
            statement = keys.lookup(table(args.table), &keys.of(row).to_string());
            for binary in [false, true] {
                let (expected, got) = match binary {
                    false => (direct.simple(&statement).await?, other.simple(&statement).await?),
                    true => (direct.binary(&statement).await?, other.binary(&statement).await?),
                };
                if expected.rows.len() != 1 {
                    bail!("{} rows instead of one: {statement}", expected.rows.len());
                }
                if !got.equals(&expected) {
                    bail!("{} answers otherwise than PostgreSQL: {statement}", way.name());
                }
            }
        }
    }
    let mut session = Client::connect(ways.target(Way::Gateway)).await?;
    session.simple(&statement).await?;
    let log = "SELECT sql, route, reasons FROM watershed.queries ORDER BY id DESC LIMIT 20";
    let rows = session.simple(log).await?.text()?;
    let found =
        rows.into_iter().find(|row| row.first().and_then(Option::as_deref) == Some(statement.as_str()));
    let Some(row) = found else { return Ok("relayed without a look (no tiered table)".into()) };
    let said: Vec<String> = row.into_iter().skip(1).flatten().collect();
    Ok(said.join(", "))
}

/// pgbench on one way at a time, and eyes on the server and on the process between.
struct Bench<'a> {
    ways: &'a Ways,
    pgbench: &'a Pgbench,
    admin: PgConnection,
    seconds: u32,
}

impl Bench<'_> {
    /// One run, long enough that most of it is not logins.
    async fn sample(&mut self, way: Way, load: Load, seed: u32) -> Result<Sample> {
        let mut seconds = self.seconds;
        for _ in 0..TRIES {
            let started = now_s()?;
            let settled = seconds + SETTLES.as_secs() as u32;
            let mut running = self.pgbench.start(self.ways.target(way), load, settled, seed)?;
            let at_work = self.at_work(&mut running, started, load.clients).await?;
            tokio::time::sleep(SETTLES).await;
            let (since, before) = (SystemTime::now(), self.ways.look(way));
            let run = running.finish(since).await?;
            if run.is_enough(seconds) {
                let effort = before.zip(self.ways.look(way)).map(|(before, after)| after.since(&before));
                return Ok(Sample { run, effort: effort.filter(|_| at_work) });
            }
            seconds = seconds.saturating_mul(2);
        }
        bail!("{} logins took most of {} s", load.clients, seconds / 2)
    }

    /// Runs until the server has heard of every client: with PgBouncer, until it has a server connection for each.
    async fn warm_up(&mut self, way: Way, load: Load) -> Result<()> {
        for _ in 0..WARM_UPS {
            let sample = self.sample(way, load, 0).await?;
            if way == Way::Direct || sample.effort.is_some() {
                return Ok(());
            }
        }
        bail!("the server did not hear of {} clients at a time in {WARM_UPS} runs", load.clients)
    }

    /// System calls of the process between in a run like that. The inner error says why they cannot be counted here.
    async fn trace(&mut self, way: Way, load: Load, file: &Path) -> Result<Result<Traced, String>> {
        let pid = self.ways.pid(way).with_context(|| format!("{} has ended", way.name()))?;
        let mut seconds = self.seconds;
        for _ in 0..TRIES {
            let started = now_s()?;
            let mut running = self.pgbench.start(self.ways.target(way), load, seconds, 0)?;
            if self.at_work(&mut running, started, load.clients).await? {
                let tracer = match Tracer::attach(pid, file).await? {
                    Ok(tracer) => tracer,
                    Err(why) => return Ok(Err(why)),
                };
                let run = running.finish(SystemTime::now()).await?;
                let calls = tracer.finish().await?;
                if run.late > 0 {
                    return Ok(Ok(Traced { way, load, statements: run.late, calls }));
                }
            }
            seconds = seconds.saturating_mul(2);
        }
        bail!("no statement came to its end in {} s", seconds / 2)
    }

    /// Waits until all its clients have logged in and asked something: what the process between did until then is no
    /// statement's. False if pgbench came to its end before.
    async fn at_work(&mut self, running: &mut Running<'_>, started: f64, clients: u32) -> Result<bool> {
        let user = &self.ways.target(Way::Direct).user;
        let mut seen: HashSet<i32> = HashSet::new();
        while !running.ended()? {
            let asked: Vec<i32> = sqlx::query_scalar(
                "SELECT pid FROM pg_catalog.pg_stat_activity \
                 WHERE usename = $1 AND query_start > to_timestamp($2) AND query LIKE $3",
            )
            .bind(user)
            .bind(started)
            .bind(format!("SELECT {COLUMNS} FROM%"))
            .fetch_all(&mut self.admin)
            .await?;
            seen.extend(asked);
            if seen.len() >= clients as usize {
                return Ok(true);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(false)
    }
}

/// Seconds since 1970; the server's clock is the same one.
fn now_s() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64())
}

async fn lookups(args: &BenchRelayArgs, bench: &mut Bench<'_>, outcome: &mut Outcome) -> Result<()> {
    let loads: Vec<Load> = outcome
        .modes
        .iter()
        .flat_map(|mode| outcome.clients.iter().map(|n| Load { mode: *mode, clients: *n }))
        .collect();
    let most = outcome.clients.last().copied().unwrap_or(1);
    let warm_up = outcome.modes.len() * Way::ALL.len();
    let bar = bar(warm_up + loads.len() * Way::ALL.len() * args.rounds as usize);
    bench.seconds = args.seconds.min(WARM_UP_S);
    for mode in &outcome.modes {
        for way in Way::ALL {
            bar.set_message(format!("warm-up, {}, {}", mode.name(), way.name()));
            bench.warm_up(way, Load { mode: *mode, clients: most }).await.context(way.name())?;
            bar.inc(1);
        }
    }
    bench.seconds = args.seconds;
    outcome.cells = loads.iter().map(|load| Cell::new(*load, bench.pgbench.jobs(load.clients))).collect();
    for round in 0..args.rounds {
        let started = Instant::now();
        for cell in &mut outcome.cells {
            for way in Way::in_turn(round) {
                let what =
                    format!("{}, {} clients, {}", cell.load.mode.name(), cell.load.clients, way.name());
                bar.set_message(format!("round {}, {what}", round + 1));
                cell.add(way, bench.sample(way, cell.load, round + 1).await.context(what)?);
                bar.inc(1);
            }
        }
        let took = started.elapsed().as_secs();
        bar.suspend(|| say(format_args!("    round {} of {}: {took} s", round + 1, args.rounds)));
    }
    bar.finish_and_clear();
    Ok(())
}

fn bar(length: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("    {bar:30} {pos}/{len} {msg}");
    ProgressBar::new(length as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

async fn copies(
    args: &BenchRelayArgs,
    ways: &Ways,
    keys: &Keys,
    psql: &Path,
    outcome: &mut Outcome,
) -> Result<()> {
    let formats = ["text", "binary"];
    let bar = bar(formats.len() * Way::ALL.len() * (args.rounds as usize + 1));
    for format in formats {
        let sql = keys.copy(args, format);
        let mut bytes = Vec::new();
        for way in Way::ALL {
            bar.set_message(format!("{format}, warm-up, {}", way.name()));
            bytes.push(copy_bytes(psql, ways, way, &sql).await?);
            bar.inc(1);
        }
        if bytes.iter().any(|count| *count != bytes[0]) {
            bail!("COPY gives {bytes:?} bytes, {:?}", Way::ALL.map(Way::name));
        }
        outcome.copied.push(Copied::new(format, bytes[0]));
    }
    for round in 0..args.rounds {
        for copied in &mut outcome.copied {
            let sql = keys.copy(args, copied.format);
            for way in Way::in_turn(round) {
                bar.set_message(format!("{}, round {}, {}", copied.format, round + 1, way.name()));
                let before = ways.look(way);
                let took = copy_time(psql, ways, way, &sql).await?;
                let effort = before.zip(ways.look(way)).map(|(before, after)| after.since(&before));
                copied.add(way, took, effort);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    Ok(())
}

fn psql_copy(psql: &Path, ways: &Ways, way: Way, sql: &str) -> tokio::process::Command {
    let mut command = client(psql, ways.target(way));
    command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql]).stderr(Stdio::piped());
    command
}

/// How many bytes come out, by reading them.
async fn copy_bytes(psql: &Path, ways: &Ways, way: Way, sql: &str) -> Result<u64> {
    let mut child = psql_copy(psql, ways, way, sql).stdout(Stdio::piped()).spawn().context("run psql")?;
    let mut out = child.stdout.take().context("no standard output of psql")?;
    let counted = async {
        let (mut buffer, mut count) = (vec![0; 256 << 10], 0);
        loop {
            match out.read(&mut buffer).await? {
                0 => return Ok::<u64, anyhow::Error>(count),
                n => count += n as u64,
            }
        }
    };
    let count = tokio::time::timeout(COPY_LIMIT, counted).await.context("COPY does not end")??;
    ended(child.wait_with_output().await?, way)?;
    Ok(count)
}

/// How long psql takes to throw them all away.
async fn copy_time(psql: &Path, ways: &Ways, way: Way, sql: &str) -> Result<Duration> {
    let started = Instant::now();
    let child = psql_copy(psql, ways, way, sql).stdout(Stdio::null()).spawn().context("run psql")?;
    let output =
        tokio::time::timeout(COPY_LIMIT, child.wait_with_output()).await.context("COPY does not end")??;
    let took = started.elapsed();
    ended(output, way)?;
    Ok(took)
}

fn ended(output: std::process::Output, way: Way) -> Result<()> {
    if !output.status.success() {
        bail!("psql, {}: {}", way.name(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// System calls of PgBouncer and of the gateway while pgbench runs: with the fewest and with the most clients. How fast these
/// runs are says nothing, for a traced process is slow.
async fn calls(bench: &mut Bench<'_>, work: &Path, outcome: &mut Outcome) -> Result<()> {
    let mut counts: Vec<u32> =
        [outcome.clients.iter().min(), outcome.clients.iter().max()].into_iter().flatten().copied().collect();
    counts.dedup();
    for mode in outcome.modes.clone() {
        for clients in &counts {
            for way in [Way::PgBouncer, Way::Gateway] {
                let load = Load { mode, clients: *clients };
                let traced = bench.trace(way, load, &work.join("strace.txt")).await;
                match traced.with_context(|| format!("traced, {}", way.name()))? {
                    Ok(traced) => outcome.traced.push(traced),
                    Err(why) => {
                        say(format_args!("    left out: {why}"));
                        outcome.untraced = Some(why);
                        return Ok(());
                    }
                }
            }
        }
    }
    Ok(())
}

/// The most memory that each process between has held, in bytes.
fn peaks(ways: &Ways) -> [Option<u64>; 3] {
    Way::ALL.map(|way| ways.pid(way).and_then(peak_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_exact_and_lie_in_the_span() {
        for rows in [1_000, 10_000, 1_000_000, 3_000_000, 8_000_000] {
            let keys = Keys::new(rows, 1_795_000_000);
            let last = keys.of(rows - 1);
            assert!(last < 1_795_000_000.0, "{rows}: {last}");
            // pgbench writes a number with fifteen digits.
            assert!(last.to_string().len() <= 16, "{rows}: {last}");
            assert_eq!(last.fract() % keys.step.min(1.0), 0.0);
        }
        assert_eq!(Keys::new(1_000_000, 1_795_000_000).step, 0.25);
    }
}
