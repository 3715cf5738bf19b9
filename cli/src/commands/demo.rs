//! `watershed demo`: the whole path on generated rows, then every reference query on both paths.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ingest::generate::Spec;
use ingest::load::Options;
use tokio_util::sync::CancellationToken;

use crate::args::DemoArgs;
use crate::bootstrap;
use crate::commands::reference::QUERIES;
use crate::commands::up::announce;
use crate::config::Config;
use crate::console::say;
use crate::exit::Code;
use crate::text_table::{Align, grouped, layout};
use crate::up::{Stops, Up};
use crate::wire_client::{Answer, Client, ServerError, Target};

pub async fn run(args: &DemoArgs) -> Result<Code> {
    let config = Config::resolve(&args.up)?;
    let mut stops = Stops::listen()?;
    let tell = |step: &str| say(format_args!("    {step}"));
    say(format_args!(
        "[1/5] up: PostgreSQL, gateway, ingest, archiver and compactor in {}",
        config.data_dir.display()
    ));
    let started = Instant::now();
    let mut up = tokio::select! {
        started = Up::start(&config, &tell) => started?,
        () = stops.next() => return Ok(Code::Done),
    };
    say(format_args!("    ready after {}", seconds(started.elapsed())));

    let show = Show {
        target: up.target.clone(),
        admin_url: up.secrets.url(crate::postgres::ADMIN, bootstrap::DATABASE),
        ingest_url: up.services.stores.ingest_url.clone(),
        archiver: up.services.archiver.clone(),
        compactor: up.services.compactor.clone(),
        cancel: CancellationToken::new(),
    };
    let shown = tokio::select! {
        shown = show.run(args) => Some(shown),
        error = up.failure() => Some(Err(error)),
        () = stops.next() => None,
    };
    show.cancel.cancel();
    let code = match shown {
        Some(Ok(code)) if !args.exit => {
            announce(&up);
            say("still serving; ctrl-C stops");
            tokio::select! {
                () = stops.next() => Ok(code),
                error = up.failure() => Err(error),
            }
        }
        Some(result) => result,
        None => Ok(Code::Done),
    };
    let stopped = up.stop(&mut stops, &tell).await;
    code.and_then(|code| stopped.map(|()| code))
}

/// What the stages work with.
struct Show {
    target: Target,
    admin_url: String,
    ingest_url: String,
    archiver: ingest::archiver::Config,
    compactor: compactor::Config,
    cancel: CancellationToken,
}

impl Show {
    async fn run(&self, args: &DemoArgs) -> Result<Code> {
        say(format_args!("[2/5] generate and load {} log rows", grouped(args.rows)));
        let options = Options {
            database_url: self.ingest_url.clone(),
            table: "public.logs".into(),
            progress: true,
            ..Options::default()
        };
        let spec = Spec { seed: args.seed, ..Spec::logs(args.rows) };
        let summary = ingest::load::run_generated(options, spec, self.cancel.clone()).await?;
        say(format_args!("    {}", super::load::describe(&summary)));

        say("[3/5] archive: ship the rows to the lake");
        let table = "public.logs";
        timed(async {
            for report in ingest::archiver::archive_now(self.archiver.clone(), Some(table)).await? {
                say(format_args!("    {}", super::archive::describe(&report)));
            }
            Ok(())
        })
        .await?;

        say("[4/5] compact: merge the files of each day");
        timed(async {
            for report in compactor::compact_now(self.compactor.clone(), Some(table.to_owned())).await? {
                say(format_args!("    {}", super::compact::describe(&report)));
            }
            // PostgreSQL's side of the same care: statistics and visibility, so that it competes at its best.
            let mut admin = bootstrap::connect(&self.admin_url).await?;
            sqlx::raw_sql("VACUUM (ANALYZE) public.logs").execute(&mut admin).await.context("vacuum")?;
            Ok(())
        })
        .await?;

        say(format_args!(
            "[5/5] {} reference queries on both paths, median of {} runs each",
            QUERIES.len(),
            args.runs
        ));
        let lines = compare(&self.target, args.runs).await?;
        say("");
        say(table_of(&lines).trim_end());
        if let Some(peak) = peak_memory() {
            say(format_args!("\npeak memory of this process: {peak} MiB"));
        }
        for line in &lines {
            if let Err(why) = &line.lake {
                say(format_args!("{}: the lake path was refused: {why}", line.name));
            }
        }
        let unequal = lines.iter().any(|line| line.equal == Some(false));
        Ok(if unequal { Code::Found } else { Code::Done })
    }
}

async fn timed(work: impl Future<Output = Result<()>>) -> Result<()> {
    let start = Instant::now();
    work.await?;
    say(format_args!("    done in {}", seconds(start.elapsed())));
    Ok(())
}

/// One line of the table.
struct Line {
    name: &'static str,
    postgres: Duration,
    /// Or why the lake may not answer this.
    lake: Result<Duration, String>,
    /// Where the gateway sends the query when nobody tells it.
    route: String,
    /// Whether both answers were the same bytes, as text and in binary; None with one answer only.
    equal: Option<bool>,
}

async fn compare(target: &Target, runs: u32) -> Result<Vec<Line>> {
    let mut client = Client::connect(target).await?;
    let mut lines = Vec::with_capacity(QUERIES.len());
    set_route(&mut client, "postgres").await?;
    let ts = one_value(&mut client, "SELECT ts FROM logs ORDER BY ts DESC OFFSET 1000 LIMIT 1").await?;
    let ts = match ts {
        Some(ts) => Some(ts),
        None => one_value(&mut client, "SELECT max(ts) FROM logs").await?,
    };
    let ts = ts.context("public.logs is empty")?;
    let since = one_value(&mut client, "SELECT min(ts) + (max(ts) - min(ts)) / 2 FROM logs").await?;
    let since = since.context("public.logs is empty")?;
    for (name, sql) in QUERIES {
        let sql = sql.replace("{ts}", &ts).replace("{since}", &since);
        set_route(&mut client, "postgres").await?;
        let (postgres, by_postgres) =
            measure(&mut client, &sql, runs).await.with_context(|| format!("{name} on PostgreSQL"))?;
        let postgres_binary = client.binary(&sql).await?;
        set_route(&mut client, "lake").await?;
        let (lake, equal) = match measure(&mut client, &sql, runs).await {
            Ok((lake, by_lake)) => {
                let lake_binary = client.binary(&sql).await?;
                let equal = by_lake.equals(&by_postgres) && lake_binary.equals(&postgres_binary);
                (Ok(lake), Some(equal))
            }
            Err(error) => match error.downcast_ref::<ServerError>() {
                Some(refused) if refused.sqlstate == "0A000" => (Err(refused.to_string()), None),
                _ => return Err(error.context(format!("{name} on the lake"))),
            },
        };
        set_route(&mut client, "auto").await?;
        client.simple(&sql).await?;
        let route = last_route(&mut client, &sql).await?;
        lines.push(Line { name, postgres, lake, route, equal });
    }
    Ok(lines)
}

/// The median time and the last answer, after one run that warms caches.
async fn measure(client: &mut Client, sql: &str, runs: u32) -> Result<(Duration, Answer)> {
    let mut answer = client.simple(sql).await?;
    let mut times = Vec::with_capacity(runs as usize);
    for _ in 0..runs {
        answer = client.simple(sql).await?;
        times.push(answer.took);
    }
    times.sort_unstable();
    Ok((times[times.len() / 2], answer))
}

async fn set_route(client: &mut Client, route: &str) -> Result<()> {
    client.simple(&format!("SET watershed.route = '{route}'")).await.map(|_| ())
}

async fn one_value(client: &mut Client, sql: &str) -> Result<Option<String>> {
    Ok(client.simple(sql).await?.text()?.into_iter().next().and_then(|row| row.into_iter().next().flatten()))
}

/// The route of the newest statement in `watershed.queries` with this text; this session owns it, so sees it whole.
async fn last_route(client: &mut Client, sql: &str) -> Result<String> {
    let recent =
        client.simple("SELECT sql, route FROM watershed.queries ORDER BY id DESC LIMIT 50").await?.text()?;
    let found = recent.into_iter().find(|row| row.first().and_then(Option::as_deref) == Some(sql));
    Ok(found.and_then(|row| row.into_iter().nth(1).flatten()).unwrap_or_else(|| "not recorded".into()))
}

fn table_of(lines: &[Line]) -> String {
    let heading = [
        ("query", Align::Left),
        ("PostgreSQL ms", Align::Right),
        ("lake ms", Align::Right),
        ("ratio", Align::Right),
        ("route", Align::Left),
        ("equal to the byte", Align::Left),
    ];
    let ms = |time: Duration| format!("{:.2}", time.as_secs_f64() * 1e3);
    let rows: Vec<Vec<String>> = lines
        .iter()
        .map(|line| {
            let (lake, ratio) = match &line.lake {
                Ok(lake) => (ms(*lake), ratio(line.postgres, *lake)),
                Err(_) => ("refused".into(), String::new()),
            };
            let equal = match line.equal {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "",
            };
            vec![line.name.into(), ms(line.postgres), lake, ratio, line.route.clone(), equal.into()]
        })
        .collect();
    layout(&heading, &rows)
}

/// How many times as long PostgreSQL took, to two digits.
fn ratio(postgres: Duration, lake: Duration) -> String {
    let ratio = postgres.as_secs_f64() / lake.as_secs_f64().max(1e-9);
    if ratio < 1.0 { format!("{ratio:.2}x") } else { format!("{ratio:.1}x") }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// The most memory this process has held, in MiB.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib >> 10)
}
