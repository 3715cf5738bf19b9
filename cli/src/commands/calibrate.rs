//! `watershed calibrate`: what estimates mean in time on this machine. Asks a table of its own, in both stores through the gateway, for
//! little and for much, and keeps the slopes and the rests in `watershed_control.calibration`. ✗ how routes are chosen by it.

use anyhow::{Context, Result, ensure};
use gateway::cost::{Constants, total_cost};
use sqlx::{ConnectOptions, Connection};
use std::str::FromStr;

use crate::args::CalibrateArgs;
use crate::console::say;
use crate::discover;
use crate::exit::Code;
use crate::text_table::{Align, grouped, layout};
use crate::wire_client::Client;

const TABLE: &str = "public.watershed_calibration";
/// Rows of a day: so many files.
const DAYS: u64 = 20;
/// Slopes that were measured as nothing, or less, by a machine busy with other things.
const LEAST_UNIT_US: f64 = 0.01;
const LEAST_VALUE_US: f64 = 0.000_01;

pub async fn run(args: CalibrateArgs) -> Result<Code> {
    let mut client = Client::connect(&discover::gateway(&args.running).await?).await?;
    let stores = discover::stores(&args.running).await?;
    let pid = backend(&mut client).await?;
    say(format_args!("making {TABLE} with {} rows", grouped(args.rows)));
    let measured = match make(&mut client, &stores, args.rows).await {
        Ok(()) => measure(&mut client, pid, &args).await,
        Err(e) => Err(e),
    };
    let removed = client.simple(&format!("SELECT watershed.drop_table('{TABLE}')")).await;
    let constants = measured?;
    removed.with_context(|| format!("remove {TABLE}"))?;
    let rows = [
        ("a statement of PostgreSQL's", constants.postgres_base_us),
        ("a unit of its cost", constants.postgres_unit_us),
        ("a statement of the lake's", constants.lake_base_us),
        ("a file of it", constants.lake_file_us),
        ("a million values of it", constants.lake_value_us * 1e6),
    ];
    let rows: Vec<_> = rows.iter().map(|(what, us)| vec![(*what).to_owned(), format!("{us:.2}")]).collect();
    say(layout(&[("", Align::Left), ("microseconds", Align::Right)], &rows));
    if args.dry_run {
        say("nothing was kept (--dry-run)");
        return Ok(Code::Done);
    }
    keep(&stores.archiver_url, &constants).await?;
    say("kept; routes are chosen by it from now on");
    Ok(Code::Done)
}

async fn backend(client: &mut Client) -> Result<String> {
    let answer = client.simple("SELECT pg_catalog.pg_backend_pid()").await?;
    answer.text()?.into_iter().flatten().flatten().next().context("the gateway gave no process id")
}

async fn make(client: &mut Client, stores: &discover::Stores, rows: u64) -> Result<()> {
    client.simple(&format!("CREATE TABLE {TABLE} (ts timestamptz NOT NULL, a int8, b int8, c int8, d int4)")).await?;
    client.simple(&format!("CREATE INDEX ON {TABLE} (ts)")).await?;
    client.simple(&format!("SELECT watershed.attach_table('{TABLE}', event_time => 'ts')")).await?;
    let step = 86_400_000_000 * DAYS / rows;
    client
        .simple(&format!(
            "INSERT INTO {TABLE} SELECT timestamptz '2020-01-01 00:00Z' + g * interval '{step} us', g, g * 7 % 1000, g * 13 % 77, g % 50 \
             FROM pg_catalog.generate_series(0::int8, {} - 1) g",
            rows
        ))
        .await?;
    ingest::archiver::archive_now(stores.archiver(), Some("public.watershed_calibration")).await?;
    client.simple(&format!("VACUUM ANALYZE {TABLE}")).await?;
    Ok(())
}

/// Little and much of each store.
async fn measure(client: &mut Client, pid: String, args: &CalibrateArgs) -> Result<Constants> {
    let one_day = "WHERE ts >= '2020-01-20 12:00Z'";
    let mut ask = Ask { client, pid, rounds: args.rounds };
    let (small_cost, small) = ask.postgres(&format!("SELECT count(a) FROM {TABLE} WHERE ts = '2020-01-05 00:00Z'")).await?;
    let (large_cost, large) = ask.postgres(&format!("SELECT count(a) FROM {TABLE}")).await?;
    ensure!(large_cost > small_cost, "PostgreSQL expects a whole table to cost no more than a row");
    let postgres_unit_us = ((large - small) / (large_cost - small_cost)).max(LEAST_UNIT_US);
    let postgres_base_us = (small - small_cost * postgres_unit_us).max(0.0);
    let last_day = ask.lake(&format!("SELECT count(a) FROM {TABLE} {one_day}")).await?;
    let one_column = ask.lake(&format!("SELECT max(a) FROM {TABLE} WHERE a >= 0")).await?;
    let four_columns = ask.lake(&format!("SELECT max(a), max(b), max(c), max(d) FROM {TABLE} WHERE a >= 0")).await?;
    let rows = args.rows as f64;
    let lake_value_us = ((four_columns - one_column) / (3.0 * rows)).max(LEAST_VALUE_US);
    let files = DAYS as f64;
    let lake_file_us = ((one_column - last_day - lake_value_us * rows) / (files - 1.0)).max(0.0);
    let lake_base_us = (last_day - lake_file_us - lake_value_us * rows / files).max(0.0);
    Ok(Constants { postgres_base_us, postgres_unit_us, lake_base_us, lake_file_us, lake_value_us })
}

struct Ask<'a> {
    client: &'a mut Client,
    pid: String,
    rounds: u32,
}

impl Ask<'_> {
    /// PostgreSQL's cost and the median time, in microseconds.
    async fn postgres(&mut self, sql: &str) -> Result<(f64, f64)> {
        let plan = self.client.simple(&format!("/* watershed: postgres */ EXPLAIN {sql}")).await?;
        let lines = plan.text()?.into_iter().flatten().flatten();
        let cost = lines.into_iter().find_map(|line| total_cost(&line)).context("EXPLAIN told no cost")?;
        Ok((cost, self.median("postgres", sql).await?))
    }

    async fn lake(&mut self, sql: &str) -> Result<f64> {
        self.median("lake", sql).await
    }

    /// The times are the gateway's own, without what choosing took.
    async fn median(&mut self, route: &str, sql: &str) -> Result<f64> {
        let sql = format!("/* watershed: {route} */ {sql}");
        for _ in 0..self.rounds + 1 {
            self.client.simple(&sql).await?;
        }
        // The first one found caches cold.
        let log = format!(
            "SELECT total_us - classify_us - probe_us FROM watershed.queries WHERE pid = {} AND route = '{route}' ORDER BY id DESC LIMIT {}",
            self.pid, self.rounds
        );
        let mut times = Vec::new();
        for time in self.client.simple(&log).await?.text()?.into_iter().flatten().flatten() {
            times.push(time.parse::<f64>().context("read a time")?);
        }
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied().with_context(|| format!("the gateway's log has no time for: {sql}"))
    }
}

async fn keep(url: &str, c: &Constants) -> Result<()> {
    let mut conn = sqlx::postgres::PgConnectOptions::from_str(url)?.disable_statement_logging().connect().await?;
    sqlx::query(
        "INSERT INTO watershed_control.calibration (postgres_base_us, postgres_unit_us, lake_base_us, lake_file_us, lake_value_us) \
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (one) DO UPDATE SET (postgres_base_us, postgres_unit_us, lake_base_us, lake_file_us, lake_value_us, \
         measured_at) = (EXCLUDED.postgres_base_us, EXCLUDED.postgres_unit_us, EXCLUDED.lake_base_us, EXCLUDED.lake_file_us, EXCLUDED.lake_value_us, now())",
    )
    .bind(c.postgres_base_us)
    .bind(c.postgres_unit_us)
    .bind(c.lake_base_us)
    .bind(c.lake_file_us)
    .bind(c.lake_value_us)
    .execute(&mut conn)
    .await
    .context("keep the constants")?;
    conn.close().await?;
    Ok(())
}
