//! `watershed bench route`: a mixed workload three ways: always PostgreSQL, always the lake where it may answer, and as the gateway
//! chooses. What choosing costs is its regret: what a statement took more than on the better of the first two.
//!
//! ```text
//! 1 rows      log lines of thirty days, archived and compacted, the last hundredth in PostgreSQL alone
//! 2 calibrate the constants of this machine
//! 3 measure   each statement on each way in turns, so often; medians of what the client waits
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::instance::{AT_REST, Instance, Workplace, local_files, watershed};
use super::python;
use super::report::{median, quantile};
use crate::args::{BenchRouteArgs, Workload};
use crate::console::{complain, say};
use crate::exit::Code;
use crate::text_table::{Align, grouped, layout, shorten};
use crate::wire_client::{Answer, Client};

/// The goals: in sum no more than this factor of the best, and of a statement above the time no more than that one.
const SUM: f64 = 1.10;
const EACH: f64 = 2.0;
const EACH_ABOVE_MS: f64 = 10.0;
const DAYS: u64 = 30;

/// Lookups, small and large ranges, groups by few and many, top lists, searches in texts. `:end` is behind the last row.
const WORKLOAD: &[&str] = &[
    "SELECT count(*) FROM logs",
    "SELECT level, count(*) FROM logs GROUP BY level ORDER BY level",
    "SELECT service, level, count(*) FROM logs GROUP BY service, level ORDER BY 1, 2",
    "SELECT date_trunc('day', ts) AS day, count(*) FROM logs GROUP BY day ORDER BY day",
    "SELECT date_trunc('hour', ts) AS hour, count(*) FILTER (WHERE level = 'ERROR') AS errors FROM logs GROUP BY hour ORDER BY hour",
    "SELECT host, count(*) AS n FROM logs WHERE level = 'ERROR' GROUP BY host ORDER BY n DESC, host LIMIT 10",
    "SELECT count(DISTINCT host) FROM logs",
    "SELECT min(ts), max(ts) FROM logs",
    "SELECT service, max(length(message)) FROM logs GROUP BY service ORDER BY service",
    "SELECT count(*) FROM logs WHERE message LIKE '%77%'",
    "SELECT count(*) FROM logs WHERE ts >= timestamptz ':end' - interval '1 day'",
    "SELECT service, count(*) FROM logs WHERE ts >= timestamptz ':end' - interval '7 days' GROUP BY service ORDER BY service",
    "SELECT date_trunc('hour', ts) AS hour, count(*) FROM logs WHERE ts >= timestamptz ':end' - interval '1 day' GROUP BY hour ORDER BY hour",
    "SELECT date_trunc('minute', ts) AS minute, count(*) FROM logs WHERE ts >= timestamptz ':end' - interval '1 hour' GROUP BY minute ORDER BY minute",
    "SELECT count(*) FROM logs WHERE ts >= timestamptz ':end' - interval '5 minutes'",
    "SELECT level, count(*) FROM logs WHERE ts >= timestamptz ':end' - interval '1 minute' GROUP BY level ORDER BY level",
    "SELECT count(*), max(message) FROM logs WHERE ts = timestamptz ':end' - interval '3 days'",
    "SELECT level, count(*) FROM logs WHERE ts BETWEEN timestamptz ':end' - interval '9 days' AND timestamptz ':end' - interval '9 days' + interval '10 seconds' GROUP BY level ORDER BY 1",
    "SELECT host, count(*) FROM logs WHERE service = 'service-3' AND ts >= timestamptz ':end' - interval '2 days' GROUP BY host ORDER BY host",
    "SELECT service, count(*) FROM logs WHERE level IN ('WARN', 'ERROR') GROUP BY service HAVING count(*) > 10 ORDER BY 2 DESC, 1",
    "SELECT message FROM logs WHERE ts = timestamptz ':end' - interval '2 days'",
    "SELECT ts, level, message FROM logs ORDER BY ts DESC LIMIT 20",
    "SELECT ts, message FROM logs WHERE ts >= timestamptz ':end' - interval '10 minutes' AND level = 'ERROR' ORDER BY ts LIMIT 50",
    "SELECT DISTINCT service FROM logs ORDER BY service",
    "SELECT sum(length(message)) FROM logs WHERE level = 'INFO'",
];

/// The statements of business intelligence tools; a week of the thirty days is shown.
fn bi() -> Vec<String> {
    let text: String = include_str!("bi.sql").lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join("\n");
    let statements = text.split(";\n").map(|sql| sql.trim().trim_end_matches(';')).filter(|sql| !sql.is_empty());
    statements.map(|sql| sql.replace(":from", "2026-01-20 00:00:00+00").replace(":to", "2026-01-27 00:00:00+00")).collect()
}

struct Measured {
    sql: String,
    /// Milliseconds on PostgreSQL, the lake where it may answer, and as chosen.
    ms: [f64; 3],
    chosen: String,
    may_lake: bool,
    /// Of PostgreSQL's.
    why: String,
}

impl Measured {
    fn best(&self) -> f64 {
        self.ms[0].min(self.ms[1])
    }
}

pub async fn run(args: BenchRouteArgs) -> Result<Code> {
    let work = Workplace::new(args.dir.as_deref(), args.keep)?;
    let settings = format!("[gateway]\nmax_sessions = 20\n{AT_REST}");
    say(format_args!("[1/3] rows: {} of {DAYS} days", grouped(args.rows)));
    let instance = Instance::start(&work.path, &settings).await?;
    let mut client = Client::connect(&instance.target).await?;
    let end = load(&mut client, &work.path, args.rows).await?;
    if args.uncalibrated {
        say("[2/3] calibrate: the constants that are built in");
    } else {
        say("[2/3] calibrate");
        watershed(&work.path, &["calibrate", "--rows", "500000"]).await?;
        // Another session's catalog is looked at now and then; DDL of one's own has it looked at at once.
        client.simple("CREATE TABLE public.route_bench_looked (x int4)").await?;
        client.simple("SELECT 1").await?;
    }
    let statements = match args.workload {
        Workload::Mixed => WORKLOAD.iter().map(|sql| sql.replace(":end", &end)).collect(),
        Workload::Bi => bi(),
    };
    say(format_args!("[3/3] measure: {} statements, {} rounds", statements.len(), args.rounds));
    let mut all = Vec::new();
    for sql in &statements {
        all.push(measure(&mut client, sql, args.rounds).await.with_context(|| format!("ask: {sql}"))?);
    }
    let duckdb = match &args.duckdb {
        Some(python) => {
            say("DuckDB, over the files");
            Some(on_duckdb(&instance, python, &statements, args.rounds).await.context("ask DuckDB")?)
        }
        None => None,
    };
    instance.stop().await?;
    print(&all);
    if let Some(duckdb) = &duckdb {
        beside_duckdb(&all, duckdb);
    }
    if let Some(file) = &args.json {
        let rows: Vec<_> = all
            .iter()
            .map(|m| json!({ "sql": m.sql, "postgres_ms": m.ms[0], "lake_ms": m.ms[1], "auto_ms": m.ms[2], "chosen": m.chosen, "lake_may": m.may_lake, "why": m.why, "duckdb_ms": duckdb.as_ref().and_then(|d| d.ms.get(&m.sql)) }))
            .collect();
        let text = serde_json::to_string_pretty(&json!({ "rows": args.rows, "statements": rows }))?;
        std::fs::write(file, text + "\n").with_context(|| format!("write {}", file.display()))?;
    }
    Ok(Code::Done)
}

/// Returns the time behind the last row.
async fn load(client: &mut Client, dir: &Path, rows: u64) -> Result<String> {
    let step = DAYS * 86_400_000_000 / rows;
    let archived = rows - rows / 100;
    for (from, to) in [(0, archived), (archived, rows)] {
        client
            .simple(&format!(
                "INSERT INTO public.logs (ts, level, service, host, message, metadata) SELECT timestamptz '2026-01-01 00:00Z' + g * interval '{step} us', \
                 (ARRAY['INFO', 'INFO', 'INFO', 'WARN', 'DEBUG', 'ERROR'])[1 + g * 7919 % 6], 'service-' || g * 31 % 20, 'host-' || g * 17 % 50, \
                 'request ' || pg_catalog.md5(g::text) || ' took ' || g % 977 || ' ms' || CASE WHEN g % 91 = 0 THEN ': connection refused' ELSE '' END, \
                 CASE WHEN g % 3 = 0 THEN pg_catalog.jsonb_build_object('request_id', 'r' || g % 1000, 'bytes', g % 4096) END \
                 FROM pg_catalog.generate_series({from}::int8, {to} - 1) g"
            ))
            .await
            .context("make log lines")?;
        client
            .simple(&format!(
                "INSERT INTO public.events (event_id, ts, user_id, session_id, event_type, event_data, device) \
                 SELECT pg_catalog.md5(g::text)::uuid, timestamptz '2026-01-01 00:00Z' + g * interval '{step} us', 'user-' || g * 31 % 5000, 'session-' || g / 10, \
                 (ARRAY['view', 'view', 'view', 'click', 'click', 'search', 'purchase'])[1 + g * 7919 % 7], \
                 CASE WHEN g * 7919 % 7 = 6 THEN pg_catalog.jsonb_build_object('amount', (g % 20000) / 100.0, 'currency', 'EUR') ELSE '{{}}' END, \
                 pg_catalog.jsonb_build_object('os', (ARRAY['ios', 'android', 'linux', 'windows'])[1 + g % 4]) \
                 FROM pg_catalog.generate_series({from}::int8, {to} - 1, 4) g"
            ))
            .await
            .context("make events")?;
        if to == archived {
            watershed(dir, &["archive", "--now"]).await?;
            watershed(dir, &["compact"]).await?;
        }
    }
    client.simple("VACUUM ANALYZE public.logs").await?;
    client.simple("VACUUM ANALYZE public.events").await?;
    let answer = client.simple("SELECT max(ts) FROM public.logs").await?;
    answer.text()?.into_iter().flatten().flatten().next().context("the table is empty")
}

async fn measure(client: &mut Client, sql: &str, rounds: u32) -> Result<Measured> {
    const WAYS: [&str; 3] = ["postgres", "prefer_lake", "auto"];
    let mut times = [const { Vec::new() }; 3];
    let mut right = None;
    // The first round finds caches cold, and statements that were never seen.
    for round in 0..=rounds {
        for (way, times) in WAYS.iter().zip(&mut times) {
            client.simple(&format!("SET watershed.route = '{way}'")).await?;
            let answer = client.simple(sql).await?;
            if round > 0 {
                times.push(answer.took.as_secs_f64() * 1e3);
            }
            let right = right.get_or_insert_with(|| answer.clone());
            // Rows that ORDER BY cannot tell apart may change places.
            let sorted = |answer: &Answer| {
                let mut rows = answer.rows.clone();
                rows.sort_unstable();
                rows
            };
            let same = answer.columns == right.columns && answer.tag == right.tag && sorted(&answer) == sorted(right);
            ensure!(same || sql.contains("now()"), "the ways give different answers");
        }
    }
    client.simple("SET watershed.route = 'prefer_lake'").await?;
    client.simple(sql).await?;
    client.simple("SET watershed.route = 'auto'").await?;
    client.simple(sql).await?;
    let pid = client.simple("SELECT pg_catalog.pg_backend_pid()").await?.text()?;
    let pid = pid.into_iter().flatten().flatten().next().unwrap_or_default();
    let log = format!(
        "SELECT route, reasons FROM watershed.queries WHERE pid = {pid} AND sql NOT LIKE 'SET%' AND sql NOT LIKE '%watershed.queries%' \
         AND sql NOT LIKE '%pg_backend_pid%' ORDER BY id DESC LIMIT 2"
    );
    let mut logged = client.simple(&log).await?.text()?.into_iter().map(|row| row.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>());
    let chosen = logged.next().and_then(|row| row.into_iter().next()).unwrap_or_default();
    let (may_lake, why) = logged.next().map_or((false, String::new()), |row| (row[0] == "lake", row[1].clone()));
    let ms = times.map(|times| median(&times));
    Ok(Measured { sql: sql.to_owned(), ms, chosen, may_lake, why })
}

/// What DuckDB said.
struct Duckdb {
    version: String,
    /// Medians in milliseconds, by statement.
    ms: BTreeMap<String, f64>,
    /// Statements that it does not know, and what it says of them.
    failed: BTreeMap<String, String>,
}

/// The statements as they stand, over the files that the lake consists of: without the rows that only PostgreSQL has.
async fn on_duckdb(instance: &Instance, python: &Path, statements: &[String], rounds: u32) -> Result<Duckdb> {
    let mut tables = serde_json::Map::new();
    for name in ["public.logs", "public.events"] {
        tables.insert(name.into(), json!(local_files(&instance.lake_table(name).await?)?));
    }
    let job = json!({
        "engine": "duckdb",
        "threads": std::thread::available_parallelism().map_or(1, usize::from),
        "rounds": rounds,
        "tables": tables,
        "json": { "public.logs": ["metadata"], "public.events": ["event_data", "device"] },
        "queries": statements.iter().map(|sql| [sql, sql]).collect::<Vec<_>>(),
    });
    let said = python::ask(python, python::READERS, &job).await?;
    let times = said["milliseconds"].as_object().context("DuckDB's times")?;
    let failed = said["failed"].as_object().context("DuckDB's failures")?;
    Ok(Duckdb {
        version: said["version"].as_str().unwrap_or_default().to_owned(),
        ms: times.iter().map(|(sql, runs)| (sql.clone(), median(&runs.as_array().into_iter().flatten().filter_map(Value::as_f64).collect::<Vec<_>>()))).collect(),
        failed: failed.iter().map(|(sql, why)| (sql.clone(), why.as_str().unwrap_or_default().to_owned())).collect(),
    })
}

fn beside_duckdb(all: &[Measured], duckdb: &Duckdb) {
    let both: Vec<_> = all.iter().filter_map(|m| duckdb.ms.get(&m.sql).map(|ms| (m, *ms))).collect();
    let (ours, lake, theirs) = both.iter().fold((0.0, 0.0, 0.0), |(a, l, d), (m, ms)| (a + m.ms[2], l + m.ms[1], d + ms));
    let ratios: Vec<f64> = both.iter().map(|(m, ms)| m.ms[2] / ms.max(0.001)).collect();
    say(format_args!(
        "DuckDB {} knows {} of {} statements; in sum over these: DuckDB {theirs:.0} ms, as chosen {ours:.0} ms ({:.2} of DuckDB's), the lake where it may {lake:.0} ms",
        duckdb.version,
        both.len(),
        all.len(),
        ours / theirs.max(0.001),
    ));
    say(format_args!("as chosen / DuckDB, by statement: a quarter at most {:.2}, half {:.2}, three quarters {:.2}", quantile(&ratios, 0.25), median(&ratios), quantile(&ratios, 0.75)));
    for (sql, why) in &duckdb.failed {
        say(format_args!("  not DuckDB's SQL: {}\n    {why}", shorten(sql, 110)));
    }
}

fn print(all: &[Measured]) {
    let heading = [
        ("statement", Align::Left),
        ("PostgreSQL ms", Align::Right),
        ("lake ms", Align::Right),
        ("auto ms", Align::Right),
        ("auto/best", Align::Right),
        ("chosen", Align::Left),
    ];
    let mut rows: Vec<Vec<String>> = all
        .iter()
        .map(|m| {
            let times = m.ms.iter().map(|ms| format!("{ms:.2}"));
            let mut row = vec![shorten(&m.sql, 90)];
            row.extend(times);
            row.push(format!("{:.2}", m.ms[2] / m.best().max(0.001)));
            row.push(m.chosen.clone());
            row
        })
        .collect();
    let sum = |f: &dyn Fn(&Measured) -> f64| all.iter().map(f).sum::<f64>();
    let (postgres, lake, auto, best) = (sum(&|m| m.ms[0]), sum(&|m| m.ms[1]), sum(&|m| m.ms[2]), sum(&Measured::best));
    let mut total = vec!["in sum".to_owned()];
    total.extend([postgres, lake, auto].map(|ms| format!("{ms:.2}")));
    total.push(format!("{:.2}", auto / best.max(0.001)));
    total.push(String::new());
    rows.push(total);
    say(layout(&heading, &rows));
    let lake = all.iter().filter(|m| m.may_lake).count();
    say(format_args!("the lake may answer {lake} of {} statements", all.len()));
    for m in all.iter().filter(|m| !m.may_lake) {
        say(format_args!("  PostgreSQL only: {}\n    {}", shorten(&m.sql, 110), m.why));
    }
    say(format_args!("best of each in sum: {best:.2} ms; regret {:.2} ms", auto - best));
    if auto > SUM * best {
        complain(format_args!("not reached: in sum at most {SUM} of the best of each ({:.2})", auto / best));
    }
    for m in all.iter().filter(|m| m.ms[2] > EACH_ABOVE_MS && m.ms[2] > EACH * m.best()) {
        complain(format_args!("not reached: at most {EACH} times the better way ({:.2}): {}", m.ms[2] / m.best(), m.sql));
    }
}
