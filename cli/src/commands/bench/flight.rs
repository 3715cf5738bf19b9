//! `watershed bench flight`: all rows of a table of the lake into a Python program, in one run: over Arrow Flight SQL, by psycopg and
//! `COPY BINARY` over the wire, and by DuckDB from the Parquet files themselves.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::instance::{AT_REST, Instance, Workplace, local_files, watershed};
use super::{python, report};
use crate::args::BenchFlightArgs;
use crate::bootstrap;
use crate::console::{complain, say};
use crate::exit::Code;
use crate::text_table::{Align, grouped, layout};

const SQL: &str = "SELECT ts, id, who, amount, value, flag FROM flown";
/// The goals: so many times as fast as psycopg into pandas, and at most so many times what DuckDB takes into Arrow.
const PSYCOPG: f64 = 10.0;
const DUCKDB: f64 = 1.5;

pub async fn run(args: BenchFlightArgs) -> Result<Code> {
    let work = Workplace::new(args.dir.as_deref(), args.keep)?;
    say(format_args!("[1/2] rows: {} into PostgreSQL, then archived", grouped(args.rows)));
    let instance = Instance::start(&work.path, AT_REST).await?;
    fill(&instance, args.rows).await?;
    watershed(&work.path, &["archive", "public.flown", "--now"]).await?;
    say(format_args!("[2/2] fetched in turns, {} rounds", args.rounds));
    let measured = measure(&instance, &args).await;
    instance.stop().await?;
    let measured = measured?;
    ensure!(measured["rows"].as_u64() == Some(args.rows), "{} rows were fetched of {}", measured["rows"], args.rows);
    let median = |way: &str| -> Result<f64> {
        let runs = measured["seconds"][way].as_array().with_context(|| format!("{way} was not measured"))?;
        Ok(report::median(&runs.iter().filter_map(Value::as_f64).collect::<Vec<_>>()))
    };
    // Whichever of the two clients: what is measured is the server.
    let flight = median("flight_arrow")?.min(median("pyarrow_flight_arrow")?);
    let ways = [
        ("Flight into Arrow, ADBC", "flight_arrow"),
        ("Flight into Arrow, pyarrow.flight", "pyarrow_flight_arrow"),
        ("the same client, Arrow's server, from memory", "memory_arrow"),
        ("Flight into pandas, Arrow's types", "flight_pandas"),
        ("Flight into pandas, its own types", "flight_pandas_objects"),
        ("psycopg into pandas", "psycopg_pandas"),
        ("COPY BINARY, bytes alone", "copy_binary"),
        ("DuckDB on the files into Arrow", "duckdb_arrow"),
        ("DuckDB on the files into pandas", "duckdb_pandas"),
    ];
    let mut lines = Vec::new();
    for (name, way) in ways {
        let seconds = median(way)?;
        let rate = grouped((args.rows as f64 / seconds) as u64);
        lines.push(vec![name.into(), format!("{seconds:.2}"), rate, format!("{:.2}", seconds / flight)]);
    }
    let heading = [("way", Align::Left), ("s", Align::Right), ("rows/s", Align::Right), ("of the faster Flight into Arrow", Align::Right)];
    say(layout(&heading, &lines));
    if let Some(path) = &args.json {
        write(path, &args, &measured)?;
    }
    let (psycopg, duckdb) = (median("psycopg_pandas")? / median("flight_pandas")?, flight / median("duckdb_arrow")?);
    say(format_args!("pandas: {psycopg:.1} times as fast as psycopg; Arrow: {duckdb:.2} times DuckDB's time"));
    let missed = [(psycopg >= PSYCOPG, "ten times psycopg"), (duckdb <= DUCKDB, "half as long again as DuckDB")];
    for (_, goal) in missed.iter().filter(|(reached, _)| !reached) {
        complain(format_args!("not reached: {goal}"));
    }
    Ok(if missed.iter().all(|(reached, _)| *reached) { Code::Done } else { Code::Found })
}

fn write(path: &Path, args: &BenchFlightArgs, measured: &Value) -> Result<()> {
    let all = json!({ "rows": args.rows, "rounds": args.rounds, "measured": measured });
    std::fs::write(path, serde_json::to_string_pretty(&all)? + "\n").with_context(|| format!("write {}", path.display()))
}

async fn fill(instance: &Instance, rows: u64) -> Result<()> {
    let mut admin = bootstrap::connect(&instance.admin_url).await?;
    let sql = format!(
        "SET search_path = public; \
         CREATE TABLE flown (ts timestamptz NOT NULL, id int8 NOT NULL, who text, amount numeric(12,2), value float8, flag bool); \
         ALTER TABLE flown OWNER TO {owner}; \
         SELECT watershed.attach_table('public.flown', event_time => 'ts'); \
         INSERT INTO flown SELECT timestamptz '2024-05-01 00:00:00+00' + g * interval '0.1 seconds', g, 'user-' || g % 1000, g / 100.0, \
         g * 0.5, g % 3 = 0 FROM generate_series(1, {rows}) g; \
         ANALYZE flown",
        owner = instance.target.user,
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut admin).await.context("fill the table")?;
    Ok(())
}

async fn measure(instance: &Instance, args: &BenchFlightArgs) -> Result<Value> {
    let target = &instance.target;
    let job = json!({
        "rounds": args.rounds,
        "rows": args.rows,
        "sql": SQL,
        "flight": instance.flight_url,
        "user": target.user,
        "password": target.password,
        "postgres": format!(
            "host={} port={} user={} password={} dbname={}", target.host, target.port, target.user, target.password, target.database
        ),
        "files": local_files(&instance.lake_table("public.flown").await?)?,
    });
    python::ask(&args.python, python::FLIGHT, &job).await.context("the program needs adbc-driver-flightsql, pyarrow, pandas, psycopg and duckdb")
}
