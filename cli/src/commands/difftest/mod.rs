//! `watershed difftest`: random statements, asked of PostgreSQL directly and through the gateway in one snapshot, while rows are added,
//! archived and compacted; answers compared to the byte. In the spirit of SQLsmith (Seltenreich) and SQLancer (Rigger and Su). What
//! differs is made smaller until nothing can be left out, and printed.
//!
//! A statement is a function of seed and number: `--first N --queries 1` asks it again.

mod aggregates;
mod expr;
mod moves;
mod over_flight;
mod play;
mod random;
mod rows;
mod statement;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::bench::instance::{Instance, Workplace};
use crate::args::DifftestArgs;
use crate::console::{complain, say};
use crate::exit::Code;
use crate::text_table::{Align, grouped, layout};
use crate::wire_client::Target;
use play::{Mode, Outcome, Pair, Setting};
use random::Random;
use statement::Select;

/// Statements of one snapshot, at most.
const BLOCK: u64 = 20;
/// Rows move after so many statements.
const MOVE_EVERY: u64 = 300;
/// Tries at making a statement smaller.
const TRIES: usize = 400;
/// Differences that are made smaller; of more the run is no wiser.
const SHRUNK: usize = 25;
/// Reasons of PostgreSQL's statements that are shown.
const REASONS: usize = 25;

/// A difference, made as small as it gets.
struct Difference {
    number: u64,
    mode: Mode,
    setting: Setting,
    sql: String,
    what: String,
    /// As it was found.
    original: String,
}

#[derive(Default)]
struct Tally {
    equal: u64,
    errors: u64,
    messages: BTreeMap<String, u64>,
    timed_out: u64,
    not_in_arrow: u64,
    by_route: BTreeMap<String, u64>,
    fell_back: u64,
    reasons: BTreeMap<String, u64>,
    differences: Vec<Difference>,
    more_differences: u64,
}

struct Run {
    args: DifftestArgs,
    direct: Target,
    gateway: Target,
    /// Statements go there in place of the wire.
    flight: Option<String>,
    next: AtomicU64,
    tally: Mutex<Tally>,
    told: Arc<Notify>,
    bar: ProgressBar,
}

pub async fn run(args: DifftestArgs) -> Result<Code> {
    let work = Workplace::new(args.dir.as_deref(), args.keep)?;
    let locale = args.icu_locale.as_deref().map(|l| format!("[postgres]\nicu_locale = \"{l}\"\n")).unwrap_or_default();
    let settings = format!(
        "{locale}[gateway]\nmax_sessions = 40\n[archiver]\ninterval = \"1d\"\nmin_rows = 100000000000\n[compactor]\nenabled = false\n[retention]\nearly = false\n"
    );
    let instance = Instance::start(&work.path, &settings).await?;
    say(format_args!("rows: {} of facts and visits, in several files and the tail", grouped(u64::from(args.rows))));
    moves::load(&instance.target, &work.path, args.rows).await.context("make the tables")?;
    let run = Arc::new(Run {
        direct: direct(&instance)?,
        gateway: instance.target.clone(),
        flight: args.flight.then(|| instance.flight_url.clone()),
        next: AtomicU64::new(args.first),
        tally: Mutex::default(),
        told: Arc::new(Notify::new()),
        bar: bar(args.queries),
        args,
    });
    let stop = CancellationToken::new();
    let mover = tokio::spawn(moves::keep_moving(
        instance.target.clone(),
        work.path.clone(),
        run.args.rows + 1,
        run.told.clone(),
        stop.clone(),
    ));
    let started = Instant::now();
    let jobs: Vec<_> = (0..run.args.jobs).map(|_| tokio::spawn(work_through(run.clone()))).collect();
    let mut failed = None;
    for job in jobs {
        failed = job.await?.err().or(failed);
    }
    let took = started.elapsed();
    stop.cancel();
    let rounds = mover.await??;
    run.bar.finish_and_clear();
    if let Some(e) = failed {
        return Err(e.context("the statements could not all be asked"));
    }
    instance.stop().await?;
    let tally = run.tally.lock().await;
    print(&run.args, &tally, took, rounds);
    if let Some(file) = &run.args.json {
        std::fs::write(file, serde_json::to_string_pretty(&as_json(&run.args, &tally, took))? + "\n")
            .with_context(|| format!("write {}", file.display()))?;
    }
    let few = tally.by_route.get("lake").copied().unwrap_or(0) * 100 < run.args.queries * u64::from(run.args.least_lake);
    if few {
        complain(format_args!("fewer than {} % of the statements were answered by the lake", run.args.least_lake));
    }
    Ok(if tally.differences.is_empty() && !few { Code::Done } else { Code::Found })
}

/// Past the gateway, as the same user.
fn direct(instance: &Instance) -> Result<Target> {
    let url = Url::parse(&instance.admin_url).context("read the cluster's URL")?;
    Ok(Target {
        host: url.host_str().context("the cluster's URL has no host")?.to_owned(),
        port: url.port().context("the cluster's URL has no port")?,
        ..instance.target.clone()
    })
}

fn bar(queries: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {human_pos}/{human_len} statements  {per_sec}  {msg}");
    // The template is a constant that is right.
    ProgressBar::new(queries).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Blocks of statements, until there are no more.
async fn work_through(run: Arc<Run>) -> Result<()> {
    let mut pair = Pair::connect(&run.direct, &run.gateway, run.flight.as_deref()).await?;
    let end = run.args.first + run.args.queries;
    loop {
        let first = run.next.fetch_add(BLOCK, Ordering::Relaxed);
        if first >= end {
            return Ok(());
        }
        let last = (first + BLOCK).min(end);
        if first / MOVE_EVERY != last / MOVE_EVERY {
            run.told.notify_one();
        }
        let setting = Setting::pick(&mut Random::new(run.args.seed, u64::MAX - first / BLOCK));
        let mut fresh = true;
        for number in first..last {
            if std::mem::take(&mut fresh) {
                pair.begin(&setting).await?;
            }
            let mut random = Random::new(run.args.seed, number);
            let mode = *random.pick(&Mode::ALL);
            let select = statement::statement(random);
            let outcome = match pair.play(&select, mode).await {
                Ok(outcome) => outcome,
                Err(e) => return Err(e.context(format!("statement {number} ({mode:?}): {}", select.sql(None)))),
            };
            fresh = !matches!(outcome, Outcome::Equal);
            match outcome {
                Outcome::Equal => run.tally.lock().await.equal += 1,
                Outcome::BothFailed(message) => {
                    let mut tally = run.tally.lock().await;
                    tally.errors += 1;
                    *tally.messages.entry(message).or_default() += 1;
                }
                Outcome::TimedOut => run.tally.lock().await.timed_out += 1,
                Outcome::NotInArrow => run.tally.lock().await.not_in_arrow += 1,
                Outcome::Differs(what) => {
                    // What the log has so far is the statements' own; making it smaller asks many more.
                    note(&run, &mut pair).await?;
                    differs(&run, &mut pair, number, mode, &setting, select, what).await?;
                    pair.logged().await?;
                    fresh = true;
                }
            }
            run.bar.inc(1);
        }
        note(&run, &mut pair).await?;
    }
}

/// Who answered.
async fn note(run: &Run, pair: &mut Pair) -> Result<()> {
    let logged = pair.logged().await?;
    let mut tally = run.tally.lock().await;
    for entry in logged {
        if entry.fell_back {
            tally.fell_back += 1;
        }
        if entry.route == "postgres" {
            for reason in entry.reasons.split("; ") {
                *tally.reasons.entry(reason.to_owned()).or_default() += 1;
            }
        }
        *tally.by_route.entry(entry.route).or_default() += 1;
    }
    Ok(())
}

async fn differs(run: &Run, pair: &mut Pair, number: u64, mode: Mode, setting: &Setting, select: Select, what: String) -> Result<()> {
    let original = select.sql(None);
    {
        let mut tally = run.tally.lock().await;
        if tally.differences.len() >= SHRUNK {
            tally.more_differences += 1;
            return Ok(());
        }
    }
    let (select, what) = shrink(pair, mode, setting, select, what).await?;
    let sql = select.sql(None);
    run.bar.suspend(|| complain(format_args!("statement {number} differs: {sql}\n  {what}")));
    run.tally.lock().await.differences.push(Difference { number, mode, setting: setting.clone(), sql, what, original });
    Ok(())
}

/// Takes the first simpler statement that differs too, again and again.
async fn shrink(pair: &mut Pair, mode: Mode, setting: &Setting, mut select: Select, mut what: String) -> Result<(Select, String)> {
    let mut tries = 0;
    'smaller: loop {
        for less in select.simpler() {
            tries += 1;
            if tries > TRIES {
                return Ok((select, what));
            }
            pair.begin(setting).await?;
            if let Outcome::Differs(now) = pair.play(&less, mode).await? {
                (select, what) = (less, now);
                continue 'smaller;
            }
        }
        return Ok((select, what));
    }
}

fn print(args: &DifftestArgs, tally: &Tally, took: Duration, rounds: u32) {
    let asked = tally.equal + tally.errors + tally.timed_out + tally.not_in_arrow + tally.differences.len() as u64 + tally.more_differences;
    let share = |n: u64| format!("{:.1} %", 100.0 * n as f64 / asked.max(1) as f64);
    let rate = asked as f64 / took.as_secs_f64().max(0.001);
    say(format_args!(
        "seed {}: {} statements in {:.0} s ({rate:.0} a second, {} at a time); rows were moved {} times meanwhile",
        args.seed,
        grouped(asked),
        took.as_secs_f64(),
        args.jobs,
        grouped(u64::from(rounds))
    ));
    let mut rows = Vec::new();
    let differing = tally.differences.len() as u64 + tally.more_differences;
    for (what, n) in [("equal answers", tally.equal), ("equal errors", tally.errors), ("cut off by time", tally.timed_out), ("different", differing)] {
        rows.push(vec![what.into(), grouped(n), share(n)]);
    }
    if args.flight {
        rows.push(vec!["not in Arrow, and told".into(), grouped(tally.not_in_arrow), share(tally.not_in_arrow)]);
    }
    for (route, n) in &tally.by_route {
        rows.push(vec![format!("answered by {route}"), grouped(*n), share(*n)]);
    }
    rows.push(vec!["begun by lake, answered by postgres".into(), grouped(tally.fell_back), share(tally.fell_back)]);
    say(layout(&[("", Align::Left), ("statements", Align::Right), ("share", Align::Right)], &rows));
    let mut reasons: Vec<_> = tally.reasons.iter().collect();
    reasons.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let rows: Vec<_> = reasons.into_iter().take(REASONS).map(|(why, n)| vec![why.chars().take(110).collect(), grouped(*n)]).collect();
    if !rows.is_empty() {
        say(layout(&[("why PostgreSQL", Align::Left), ("statements", Align::Right)], &rows));
    }
    for difference in &tally.differences {
        let Difference { number, mode, setting, sql, what, original } = difference;
        say(format_args!(
            "\nstatement {number} ({mode:?}, {}{}): {what}\n  SET TimeZone = '{}';\n  {sql};\n  found as: {original}\n  again: watershed difftest --seed {}{} --first {number} --queries 1",
            setting.zone,
            if setting.prefer_lake { ", prefer_lake" } else { "" },
            setting.zone,
            args.seed,
            if args.flight { " --flight" } else { "" }
        ));
    }
    if tally.more_differences > 0 {
        say(format_args!("and {} more", grouped(tally.more_differences)));
    }
}

fn as_json(args: &DifftestArgs, tally: &Tally, took: Duration) -> serde_json::Value {
    let differences: Vec<_> = tally
        .differences
        .iter()
        .map(|d| json!({ "number": d.number, "mode": format!("{:?}", d.mode), "zone": d.setting.zone, "sql": d.sql, "what": d.what, "original": d.original }))
        .collect();
    json!({
        "seed": args.seed,
        "queries": args.queries,
        "seconds": took.as_secs_f64(),
        "equal": tally.equal,
        "errors": tally.errors,
        "messages": tally.messages,
        "timed_out": tally.timed_out,
        "flight": args.flight,
        "not_in_arrow": tally.not_in_arrow,
        "routes": tally.by_route,
        "fell_back": tally.fell_back,
        "reasons": tally.reasons,
        "differences": differences,
        "more_differences": tally.more_differences,
    })
}
