//! `watershed compact [TABLE] [--plan]`

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use compactor::{CompactReport, Preview, Progress, Request};
use indicatif::{ProgressBar, ProgressStyle};

use crate::args::CompactArgs;
use crate::console::say;
use crate::exit::Code;
use crate::text_table::{Align, grouped, layout};
use crate::units::Bytes;
use crate::{commands, config, discover, services};

/// What a run of its own may use, where nothing else is said.
const MEMORY: u64 = 1 << 30;

pub async fn run(args: CompactArgs) -> Result<Code> {
    let stores = discover::stores(&args.target.running).await?;
    let mut settings = config::compactor(args.config.as_deref())?;
    settings.memory_limit = args.memory.map(|size| size.0).or(settings.memory_limit).or(Some(MEMORY));
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    settings.threads = Some(args.threads.or(settings.threads).unwrap_or_else(processors).max(1));
    let config = services::compactor_config(&settings, &stores);
    let request = Request { table: args.target.table, full: args.full };
    if args.plan {
        for line in shown(&compactor::preview(config, request).await?) {
            say(line);
        }
        return Ok(Code::Done);
    }
    let bar = bar();
    let shown = bar.clone();
    let progress = Arc::new(move |now: &Progress| {
        shown.set_length(now.rows_total);
        shown.set_position(now.rows);
        shown.set_message(format!("{} {}: {}", now.table, now.day, now.reason));
    });
    let reports =
        compactor::compact_now_with(config, request, progress, commands::stop_on_signal()?).await;
    bar.finish_and_clear();
    for report in reports? {
        say(describe(&report));
    }
    Ok(Code::Done)
}

/// Drawn on standard error, if that is a terminal.
fn bar() -> ProgressBar {
    let style =
        ProgressStyle::with_template("{bar:30} {human_pos}/{human_len} rows  {per_sec}  {eta} left  {wide_msg}");
    // The template is a constant that the library accepts; with another one it would draw its own.
    let bar = ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

pub fn describe(report: &CompactReport) -> String {
    let mut text = if report.jobs == 0 {
        format!("{}: nothing to merge in {} files", report.table, report.files_after)
    } else {
        format!(
            "{}: {} files became {}; {} rows, {} written as {}, in {:.1} s",
            report.table,
            report.files_before,
            report.files_after,
            grouped(report.rows),
            Bytes(report.bytes),
            Bytes(report.bytes_written),
            report.seconds,
        )
    };
    if report.deleted_files > 0 {
        text.push_str(&format!(
            "; {} unneeded files deleted ({})",
            report.deleted_files,
            Bytes(report.deleted_bytes)
        ));
    }
    text
}

/// What would be done, as lines of text: a table of jobs, then each table's state.
fn shown(previews: &[Preview]) -> Vec<String> {
    let heading = [
        ("table", Align::Left),
        ("day", Align::Left),
        ("files", Align::Right),
        ("become", Align::Right),
        ("rows", Align::Right),
        ("size", Align::Right),
        ("why", Align::Left),
    ];
    let rows: Vec<Vec<String>> = previews
        .iter()
        .flat_map(|preview| {
            preview.plan.jobs.iter().map(|job| {
                vec![
                    preview.table.clone(),
                    lake::types::day_text(job.day),
                    grouped(job.files.len() as u64),
                    grouped(job.outputs as u64),
                    grouped(job.rows()),
                    Bytes(job.bytes()).to_string(),
                    job.reason.to_string(),
                ]
            })
        })
        .collect();
    let mut lines: Vec<String> = Vec::new();
    if !rows.is_empty() {
        lines.extend(layout(&heading, &rows).lines().map(str::to_owned));
        lines.push(String::new());
    }
    for preview in previews {
        let mut line = format!(
            "{}: {} files, {} rows, {} at version {}; ",
            preview.table,
            grouped(preview.files as u64),
            grouped(preview.rows),
            Bytes(preview.bytes),
            preview.version
        );
        line.push_str(&match preview.plan.jobs.len() {
            0 => "nothing to merge".to_owned(),
            1 => "1 job".to_owned(),
            n => format!("{} jobs", grouped(n as u64)),
        });
        if preview.unneeded_files > 0 {
            line.push_str(&format!(
                "; {} unneeded files to delete ({})",
                grouped(preview.unneeded_files as u64),
                Bytes(preview.unneeded_bytes)
            ));
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use compactor::{Job, Plan, Reason, Why};

    use super::*;

    #[test]
    fn a_plan_is_a_table_of_jobs() {
        let job = |day, why| Job {
            day,
            files: Vec::new(),
            outputs: 1,
            reason: Reason { small: 12, overlapped: 0, unsorted: 0, why },
        };
        let preview = |table: &str, jobs| Preview {
            table: table.into(),
            version: 7,
            files: 1234,
            rows: 5_000_000,
            bytes: 1 << 30,
            plan: Plan { jobs, next_ms: None },
            unneeded_files: 0,
            unneeded_bytes: 0,
        };
        let lines = shown(&[
            preview("public.logs", vec![job(20_000, Why::Many), job(20_001, Why::Quiet)]),
            Preview { unneeded_files: 3, unneeded_bytes: 2 << 20, ..preview("public.events", vec![]) },
        ]);
        assert_eq!(
            lines,
            [
                "table        day         files  become  rows  size  why",
                "-----------  ----------  -----  ------  ----  ----  ---------------------------------------",
                "public.logs  2024-10-04      0       1     0    0B  12 small: many small files",
                "public.logs  2024-10-05      0       1     0    0B  12 small: nothing was added for a while",
                "",
                "public.logs: 1,234 files, 5,000,000 rows, 1GiB at version 7; 2 jobs",
                "public.events: 1,234 files, 5,000,000 rows, 1GiB at version 7; nothing to merge; 3 unneeded files to delete (2MiB)",
            ]
        );
    }
}
