//! `watershed ingest`: the parts that take rows in, in a process of their own.

use anyhow::Result;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::args::{IngestArgs, Running, UpArgs};
use crate::config::{Config, Lake};
use crate::console::{complain, say};
use crate::discover::{self, Stores};
use crate::exit::{Code, Failure};
use crate::services::Ingest;
use crate::tasks::Tasks;
use crate::up::{Stops, bind};

pub async fn run(args: IngestArgs) -> Result<Code> {
    let mut config = Config::resolve(&as_up(&args))?;
    if args.no_kafka {
        config.kafka.brokers = None;
    }
    let (stores, may_archive) = stores(&args, &config.lake).await?;
    let archive = may_archive && !args.no_archiver;
    if config.kafka.brokers.is_none() && args.no_http && !archive {
        return Err(Failure::usage(
            "there is nothing to do: no brokers, no HTTP door, no archiver",
            "name the brokers with --kafka-brokers, or leave out a flag that switches something off",
        )
        .into());
    }
    let mut stops = Stops::listen()?;
    let http = match args.no_http {
        true => None,
        false => Some(bind("--http", config.http.listen).await?),
    };
    let address = http.as_ref().map(|socket| socket.local_addr()).transpose()?;
    let (mut serving, mut upkeep) = (Tasks::new(), Tasks::new());
    Ingest::new(&config, &stores, http, archive)?.start(&mut serving, &mut upkeep);
    if let Some(brokers) = &config.kafka.brokers {
        for route in &config.kafka.topics {
            say(format_args!("  Kafka  {brokers} {} -> {}", route.topic, route.table));
        }
    }
    if let Some(address) = address {
        say(format_args!("  HTTP   http://{address}/v1/ingest/TABLE"));
    }
    if archive {
        say(format_args!("  lake   {}", stores.lake_root));
    }
    say("ready");
    let failure = tokio::select! {
        () = stops.next() => None,
        error = serving.failure() => Some(error),
        error = upkeep.failure() => Some(error),
    };
    if let Some(error) = &failure {
        complain(format_args!("watershed: {error:#}"));
    }
    say("stopping; a second signal stops at once");
    let hurry = CancellationToken::new();
    let drained = async {
        tokio::join!(serving.drain(config.drain_timeout, &hurry), upkeep.drain(config.drain_timeout, &hurry));
    };
    tokio::pin!(drained);
    loop {
        tokio::select! {
            () = &mut drained => break,
            () = stops.next() => hurry.cancel(),
        }
    }
    match failure {
        Some(error) => Err(error),
        None => {
            say("stopped");
            Ok(Code::Done)
        }
    }
}

/// The settings that both commands share are resolved in one way. Its own door has its own port.
fn as_up(args: &IngestArgs) -> UpArgs {
    UpArgs {
        http: args.http.or_else(|| "127.0.0.1:8433".parse().ok()),
        config: args.config.clone(),
        lake: args.lake.clone(),
        hadoop_conf_dir: args.hadoop_conf_dir.clone(),
        kafka: args.kafka.clone(),
        archive_interval: args.archive_interval,
        archive_min_rows: args.archive_min_rows,
        drain_timeout: args.drain_timeout,
        ..UpArgs::default()
    }
}

/// Where the stores are, and whether enough is known to archive.
async fn stores(args: &IngestArgs, lake: &Lake) -> Result<(Stores, bool)> {
    let Some(url) = &args.postgres_url else {
        let running = Running { data_dir: args.data_dir.clone() };
        return Ok((discover::stores(&running).await?, true));
    };
    let known = args.archiver_url.is_some() && lake.url.is_some();
    let nowhere = || Url::parse("file:///nonexistent/").map_err(anyhow::Error::from);
    let stores = Stores {
        ingest_url: url.clone(),
        archiver_url: args.archiver_url.clone().unwrap_or_default(),
        lake_root: lake.url.clone().map_or_else(nowhere, Ok)?,
        spill_dir: None,
        data_dir: None,
    };
    if known {
        discover::reach_lake(&lake.store, &stores.lake_root)?;
    }
    Ok((stores, known))
}
