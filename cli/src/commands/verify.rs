//! `watershed verify [TABLE]`

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use ingest::verify::{Config, Progress, VerifyReport, verify_with};

use crate::args::TableArgs;
use crate::console::say;
use crate::discover;
use crate::exit::Code;
use crate::text_table::grouped;

pub async fn run(args: TableArgs) -> Result<Code> {
    let stores = discover::stores(&args.running).await?;
    let config = Config { database_url: stores.archiver_url, lake_root: stores.lake_root };
    let bar = bar();
    let progress = |now: Progress<'_>| {
        // Both stores are read once; the bar counts the rows of both.
        bar.set_length(now.lake_total * 2);
        bar.set_position(now.lake_rows + now.postgres_rows);
        bar.set_message(now.table.to_owned());
    };
    let reports = verify_with(config, args.table.as_deref(), &progress).await;
    bar.finish_and_clear();
    let mut same = true;
    for report in reports? {
        same &= report.ok;
        say(describe(&report));
        if let Some(rebased) = &report.rebased {
            say(format!("{}: rebased at {rebased}", report.table));
        }
    }
    Ok(if same { Code::Done } else { Code::Found })
}

/// Drawn on standard error, if that is a terminal.
fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {human_pos}/{human_len} rows  {msg}");
    // The template is a constant that the library accepts; with another one it would draw its own.
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn describe(report: &VerifyReport) -> String {
    let compared = format!(
        "{}: {} rows in the lake, {} in PostgreSQL, {} in the tail (lake version {}, archive {})",
        report.table,
        grouped(report.lake.rows),
        grouped(report.postgres.rows),
        grouped(report.tail_rows),
        report.version,
        report.archive,
    );
    match (&report.difference, report.ok) {
        (_, true) => format!("{compared}: the same in {:.1} s", report.elapsed.as_secs_f64()),
        (Some(difference), false) => format!("{compared}: DIFFERENT: {difference}"),
        (None, false) => format!("{compared}: DIFFERENT"),
    }
}
