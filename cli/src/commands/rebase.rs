//! `watershed rebase [TABLE]`

use anyhow::Result;
use ingest::rebase::{Config, Found, RebaseReport, rebase};

use crate::args::RebaseArgs;
use crate::console::{complain, say};
use crate::discover;
use crate::exit::Code;
use crate::text_table::grouped;

pub async fn run(args: RebaseArgs) -> Result<Code> {
    let stores = discover::stores(&args.target.running).await?;
    let mut config = Config::new(stores.archiver_url, stores.lake_root);
    config.spill_dir = stores.spill_dir;
    config.dry_run = args.dry_run;
    // A signal ends the process: what a rebase cut short leaves is what a crash leaves, and the next one goes on.
    let reports = rebase(config, args.target.table.as_deref(), &|step| complain(step)).await?;
    for report in reports {
        say(describe(&report, args.dry_run));
    }
    Ok(Code::Done)
}

fn describe(report: &RebaseReport, dry_run: bool) -> String {
    let table = &report.table;
    let would = if dry_run { "would be " } else { "" };
    let lineages = format!("lineage {} -> {}", report.old_lineage, report.new_lineage);
    let what = match report.found {
        Found::Current => return format!("{table}: nothing to do (lineage {})", report.new_lineage),
        Found::NothingArchived => "nothing was archived yet, no row moves".to_owned(),
        Found::Unbroken => "PostgreSQL has everything that the lake holds, no row moves".to_owned(),
        Found::Unfinished => format!("an earlier rebase {would}finished"),
        Found::Broken => {
            let surplus = match report.surplus {
                0 => String::new(),
                n => format!("; {} rows share a record with the lake's and are no copies: look at them", grouped(n)),
            };
            format!(
                "{} rows that PostgreSQL had lost {would}brought back from the lake, {} that were written again {would}replaced, \
                 {} that the lake lacks {would}kept as new{surplus}",
                grouped(report.restored),
                grouped(report.replaced),
                grouped(report.kept),
            )
        }
    };
    format!("{table}: {lineages}: {what}; {:.1} s", report.elapsed.as_secs_f64())
}
