//! `watershed load TABLE FILE...`

use std::io::IsTerminal;

use anyhow::Result;
use ingest::decode::Format;
use ingest::load::{LoadSummary, Options};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::args::{LoadArgs, LoadFormat};
use crate::console::say;
use crate::exit::Code;
use crate::text_table::grouped;
use crate::{commands, config, discover, services};

pub async fn run(args: LoadArgs) -> Result<Code> {
    let stores = discover::stores(&args.running).await?;
    let (pressure, mut monitor) = services::watched(&config::pressure(args.config.as_deref())?, &stores)?;
    monitor.check().await;
    let watching = AbortOnDropHandle::new(tokio::spawn(monitor.run(CancellationToken::new())));
    let options = Options {
        database_url: stores.ingest_url,
        table: args.table,
        files: args.files,
        format: args.format.map(format),
        year: args.year,
        progress: std::io::stderr().is_terminal(),
        routes: config::routes(args.config.as_deref())?.tables,
        pressure,
        ..Options::default()
    };
    let outcome = ingest::load::run(options, commands::stop_on_signal()?).await;
    drop(watching);
    let (summaries, failure) = match outcome {
        Ok(summaries) => (summaries, None),
        Err(ingest::Error::File { file, completed, source }) => {
            (completed, Some(anyhow::Error::from(*source).context(format!("load {}", file.display()))))
        }
        Err(error) => (Vec::new(), Some(error.into())),
    };
    for summary in &summaries {
        say(describe(summary));
    }
    if let Some(error) = failure {
        return Err(error);
    }
    if summaries.iter().any(|summary| summary.rejected > 0) {
        say("rejected lines stand in watershed.dead_letters with their reasons: watershed dead-letters list");
        return Ok(Code::Found);
    }
    Ok(Code::Done)
}

pub fn describe(summary: &LoadSummary) -> String {
    let per_second = if summary.seconds > 0.0 { summary.loaded as f64 / summary.seconds } else { 0.0 };
    format!(
        "{} into {} ({}): {} loaded, {} already present, {} rejected in {:.1} s ({} rows/s)",
        summary.source,
        summary.table,
        summary.format,
        grouped(summary.loaded),
        grouped(summary.already_present),
        grouped(summary.rejected),
        summary.seconds,
        grouped(per_second as u64),
    )
}

fn format(format: LoadFormat) -> Format {
    match format {
        LoadFormat::Combined => Format::Web,
        LoadFormat::Ndjson => Format::Ndjson,
        LoadFormat::Json => Format::JsonArray,
        LoadFormat::Csv => Format::Csv,
        LoadFormat::Syslog => Format::Syslog,
    }
}
