//! `watershed compact [TABLE]`

use std::sync::Arc;

use anyhow::Result;
use compactor::{CompactReport, Progress};
use indicatif::{ProgressBar, ProgressStyle};

use crate::args::TableArgs;
use crate::console::say;
use crate::exit::Code;
use crate::text_table::grouped;
use crate::units::Bytes;
use crate::{commands, discover};

pub async fn run(args: TableArgs) -> Result<Code> {
    let config = discover::stores(&args.running).await?.compactor();
    let bar = bar();
    let shown = bar.clone();
    let progress = Arc::new(move |now: &Progress| {
        shown.set_length(now.rows_total);
        shown.set_position(now.rows);
        shown.set_message(format!("{} {}: {}", now.table, now.day, now.reason));
    });
    let reports =
        compactor::compact_now_with(config, args.table, progress, commands::stop_on_signal()?).await;
    bar.finish_and_clear();
    for report in reports? {
        say(describe(&report));
    }
    Ok(Code::Done)
}

/// Drawn on standard error, if that is a terminal.
fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {human_pos}/{human_len} rows  {msg}");
    // The template is a constant that the library accepts; with another one it would draw its own.
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
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
