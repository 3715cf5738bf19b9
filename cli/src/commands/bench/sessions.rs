//! `watershed bench sessions`: what sessions cost the gateway. Many that rest and some that are at work, at once, for a while: memory
//! for each, file descriptors, CPU time, and whether every statement of every session was answered, and rightly.
//!
//! ```text
//! 1 rows      generated into PostgreSQL, most of them archived
//! 2 idle      sessions that have only logged in; then each has asked both stores once, and rests again
//! 3 active    others ask point lookups and aggregates, one statement after the other, while the idle ones rest
//! 4 after     the idle sessions still answer; when all are gone, so are their descriptors and PostgreSQL's processes
//! ```

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;

use super::instance::{AT_REST, Instance, Workplace, watershed};
use super::process::{Use, in_use};
use super::report::{cores, quantile};
use crate::args::BenchSessionsArgs;
use crate::console::{complain, say};
use crate::exit::Code;
use crate::text_table::grouped;
use crate::units::Bytes;
use crate::wire_client::{Client, Target};

const TABLE: &str = "public.logs";
/// When the first row is from: after it there is one each millisecond.
const DAY: &str = "timestamptz '2026-01-01 00:00Z'";
/// Logins at a time.
const LOGINS: usize = 8;
/// Of so many statements of an active session one is an aggregate.
const AGGREGATE_EVERY: u64 = 10;
/// How long what was freed may take to be given back, and closed sessions to be gone.
const SETTLING: Duration = Duration::from_secs(3);
const GONE: Duration = Duration::from_secs(60);

pub async fn run(args: BenchSessionsArgs) -> Result<Code> {
    let work = Workplace::new(args.dir.as_deref(), args.keep)?;
    let settings = format!("[gateway]\nmax_sessions = {}\n{AT_REST}", args.idle + args.active + 10);
    say(format_args!("[1/4] rows: {} generated into PostgreSQL and archived", grouped(args.rows)));
    let instance = Instance::start(&work.path, &settings).await?;
    let outcome = measure(&instance, &work.path, &args).await?;
    instance.stop().await?;
    outcome.print(&args);
    if let Some(file) = &args.json {
        std::fs::write(file, serde_json::to_string_pretty(&outcome.json(&args))? + "\n")
            .with_context(|| format!("write {}", file.display()))?;
    }
    for failure in &outcome.failures {
        complain(format_args!("failed: {failure}"));
    }
    Ok(if outcome.failures.is_empty() { Code::Done } else { Code::Found })
}

#[derive(Default)]
struct Outcome {
    empty: Use,
    fresh: Use,
    rested: Use,
    /// One a second while sessions are at work.
    active: Vec<Use>,
    passed: Duration,
    /// CPU time of the gateway's process and of PostgreSQL while sessions are at work.
    gateway_cpu: Duration,
    postgres_cpu: Duration,
    lookups: u64,
    aggregates: u64,
    after: Use,
    failures: Vec<String>,
}

/// What each session that is at work counts in.
#[derive(Default)]
struct Counts {
    lookups: AtomicU64,
    aggregates: AtomicU64,
}

async fn measure(instance: &Instance, dir: &Path, args: &BenchSessionsArgs) -> Result<Outcome> {
    let mut control = Client::connect(&instance.target).await?;
    load(&mut control, dir, args.rows).await?;
    let mut outcome = Outcome::default();
    let used = || instance.pid().map(in_use).context("watershed up has ended");
    // What the first of its kind allocates is nobody's share.
    for _ in 0..3 {
        try_both(&mut control, args.rows).await?;
    }
    tokio::time::sleep(SETTLING).await;
    outcome.empty = used()?;

    say(format_args!("[2/4] idle: {} sessions", args.idle));
    let mut idle = sessions(&instance.target, args.idle).await?;
    tokio::time::sleep(SETTLING).await;
    outcome.fresh = used()?;
    for client in &mut idle {
        try_both(client, args.rows).await?;
    }
    tokio::time::sleep(SETTLING).await;
    outcome.rested = used()?;

    say(format_args!("[3/4] active: {} sessions for {} s", args.active, args.duration.0.as_secs()));
    let active = sessions(&instance.target, args.active).await?;
    let counts = Arc::new(Counts::default());
    let before = instance.costs();
    let began = Instant::now();
    let until = began + args.duration.0;
    let workers: Vec<_> = active
        .into_iter()
        .zip(0..)
        .map(|(client, seed)| tokio::spawn(at_work(client, seed, args.rows, until, counts.clone())))
        .collect();
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.tick().await;
    while Instant::now() + Duration::from_secs(1) < until {
        ticks.tick().await;
        outcome.active.push(used()?);
    }
    let mut left = Vec::new();
    for worker in workers {
        match worker.await? {
            Ok(client) => left.push(client),
            Err(e) => outcome.failures.push(format!("{e:#}")),
        }
    }
    outcome.passed = began.elapsed();
    let after = instance.costs();
    outcome.gateway_cpu = after.watershed.cpu.saturating_sub(before.watershed.cpu);
    outcome.postgres_cpu = after.postgres.cpu.saturating_sub(before.postgres.cpu);
    outcome.lookups = counts.lookups.load(Ordering::Relaxed);
    outcome.aggregates = counts.aggregates.load(Ordering::Relaxed);

    say("[4/4] after");
    for client in &mut idle {
        if let Err(e) = try_both(client, args.rows).await {
            outcome.failures.push(format!("a session that had rested: {e:#}"));
        }
    }
    drop((idle, left));
    let began = Instant::now();
    loop {
        let sessions = backends(&mut control).await?;
        outcome.after = used()?;
        if sessions == 1 && outcome.after.files <= outcome.empty.files + 4 {
            break;
        }
        if began.elapsed() > GONE {
            outcome.failures.push(format!(
                "{} s after the end of all sessions PostgreSQL has {} processes for them and the gateway {} descriptors more than before",
                GONE.as_secs(),
                sessions - 1,
                outcome.after.files.saturating_sub(outcome.empty.files)
            ));
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(outcome)
}

async fn load(control: &mut Client, dir: &Path, rows: u64) -> Result<()> {
    // The event time finds one row; the last hundredth stays PostgreSQL's alone.
    let archived = rows - rows / 100;
    for (from, to) in [(1, archived), (archived + 1, rows)] {
        control
            .simple(&format!(
                "INSERT INTO {TABLE} (ts, level, service, host, message)
                 SELECT {DAY} + g * interval '1 ms',
                        (ARRAY['INFO', 'WARN', 'ERROR'])[1 + g % 3], 'service-' || g % 20, 'host-' || g % 50, 'message ' || g
                 FROM pg_catalog.generate_series({from}, {to}) g"
            ))
            .await
            .context("load the table")?;
        if to == archived {
            watershed(dir, &["archive", TABLE, "--now"]).await?;
        }
    }
    control.simple("ANALYZE public.logs").await?;
    Ok(())
}

async fn sessions(target: &Target, count: usize) -> Result<Vec<Client>> {
    stream::iter((0..count).map(|_| Client::connect(target))).buffer_unordered(LOGINS).try_collect().await
}

/// Processes of PostgreSQL that serve sessions of the gateway.
async fn backends(control: &mut Client) -> Result<i64> {
    let sql = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity
               WHERE backend_type = 'client backend' AND usename = current_user";
    value(control, sql).await?.parse().context("a count")
}

async fn value(client: &mut Client, sql: &str) -> Result<String> {
    let answer = client.simple(sql).await.with_context(|| sql.to_owned())?;
    let rows = answer.text()?;
    match rows.as_slice() {
        [row] => row.first().cloned().flatten().with_context(|| format!("NULL from {sql}")),
        _ => bail!("{} rows from {sql}", rows.len()),
    }
}

/// An aggregate of the lake and a lookup in PostgreSQL, whose answers are known.
async fn try_both(client: &mut Client, rows: u64) -> Result<()> {
    aggregate(client, rows).await?;
    lookup(client, rows / 2).await
}

async fn aggregate(client: &mut Client, rows: u64) -> Result<()> {
    let answer = client.simple("SELECT level, count(*) FROM logs GROUP BY level ORDER BY level").await?.text()?;
    let sum: u64 = answer.iter().filter_map(|row| row.get(1)?.as_deref()?.parse::<u64>().ok()).sum();
    if (answer.len(), sum) == (3, rows) { Ok(()) } else { bail!("the aggregate says {sum} rows in {} groups", answer.len()) }
}

async fn lookup(client: &mut Client, row: u64) -> Result<()> {
    let sql = format!("SELECT message FROM logs WHERE ts = {DAY} + {row} * interval '1 ms'");
    let found = value(client, &sql).await?;
    if found == format!("message {row}") { Ok(()) } else { bail!("the lookup of row {row} found {found}") }
}

async fn at_work(mut client: Client, seed: u64, rows: u64, until: Instant, counts: Arc<Counts>) -> Result<Client> {
    let mut turn = seed;
    while Instant::now() < until {
        turn += 1;
        if turn.is_multiple_of(AGGREGATE_EVERY) {
            aggregate(&mut client, rows).await?;
            counts.aggregates.fetch_add(1, Ordering::Relaxed);
        } else {
            lookup(&mut client, 1 + turn.wrapping_mul(7_919) % rows).await?;
            counts.lookups.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(client)
}

/// The share of each of so many.
fn share(less: u64, more: u64, count: usize) -> u64 {
    more.saturating_sub(less) / count.max(1) as u64
}

impl Outcome {
    fn at_work(&self, part: f64) -> u64 {
        quantile(&self.active.iter().map(|u| u.memory as f64).collect::<Vec<_>>(), part) as u64
    }

    fn print(&self, args: &BenchSessionsArgs) {
        let seconds = self.passed.as_secs_f64();
        say(format_args!("before any session: {}, {} descriptors", Bytes(self.empty.memory), self.empty.files));
        say(format_args!(
            "{} idle sessions that have only logged in: {} each, {:.1} descriptors each",
            args.idle,
            Bytes(share(self.empty.memory, self.fresh.memory, args.idle)),
            self.fresh.files.saturating_sub(self.empty.files) as f64 / args.idle as f64
        ));
        say(format_args!(
            "{} idle sessions that have asked both stores: {} each",
            args.idle,
            Bytes(share(self.empty.memory, self.rested.memory, args.idle))
        ));
        say(format_args!(
            "{} more at work for {seconds:.0} s: {} each (median; {} at the peak), all in all {}",
            args.active,
            Bytes(share(self.rested.memory, self.at_work(0.5), args.active)),
            Bytes(share(self.rested.memory, self.at_work(1.0), args.active)),
            Bytes(self.at_work(1.0))
        ));
        say(format_args!(
            "{} lookups and {} aggregates, {:.0} statements/s; CPU: gateway {:.2} cores, PostgreSQL {:.2}",
            grouped(self.lookups),
            grouped(self.aggregates),
            (self.lookups + self.aggregates) as f64 / seconds,
            cores(self.gateway_cpu, self.passed),
            cores(self.postgres_cpu, self.passed)
        ));
        say(format_args!(
            "after all of them: {}, {} descriptors; sessions that failed: {}",
            Bytes(self.after.memory),
            self.after.files,
            self.failures.len()
        ));
    }

    fn json(&self, args: &BenchSessionsArgs) -> serde_json::Value {
        json!({
            "idle": args.idle,
            "active": args.active,
            "rows": args.rows,
            "seconds": self.passed.as_secs_f64(),
            "bytes_before": self.empty.memory,
            "bytes_idle_fresh": self.fresh.memory,
            "bytes_idle_used": self.rested.memory,
            "bytes_active": self.active.iter().map(|u| u.memory).collect::<Vec<_>>(),
            "bytes_after": self.after.memory,
            "files_before": self.empty.files,
            "files_idle": self.fresh.files,
            "files_active": self.active.iter().map(|u| u.files).max(),
            "files_after": self.after.files,
            "lookups": self.lookups,
            "aggregates": self.aggregates,
            "gateway_cpu_seconds": self.gateway_cpu.as_secs_f64(),
            "postgres_cpu_seconds": self.postgres_cpu.as_secs_f64(),
            "failures": self.failures,
        })
    }
}
