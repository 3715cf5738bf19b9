//! `watershed archive [TABLE] --now`

use anyhow::Result;
use ingest::archiver::{ArchiveReport, archive_now};

use crate::args::ArchiveArgs;
use crate::console::say;
use crate::discover;
use crate::exit::Code;
use crate::text_table::grouped;
use crate::units::Bytes;

pub async fn run(args: ArchiveArgs) -> Result<Code> {
    let config = discover::stores(&args.target.running).await?.archiver();
    // A signal ends the process: what an archive cut short leaves is what a crash leaves, and the next one goes on.
    for report in archive_now(config, args.target.table.as_deref()).await? {
        say(describe(&report));
    }
    Ok(Code::Done)
}

pub fn describe(report: &ArchiveReport) -> String {
    match report.archive {
        None => format!("{}: nothing new to ship (lake version {})", report.table, report.version),
        Some(_) => format!(
            "{}: {} rows in {} files ({}) in {:.1} s, lake version {}",
            report.table,
            grouped(report.rows),
            report.files,
            Bytes(report.bytes),
            report.elapsed.as_secs_f64(),
            report.version,
        ),
    }
}
