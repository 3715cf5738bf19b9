//! `watershed generate`: records as text, or sent to Kafka or to an HTTP door; needs nothing of its own running.

use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::time::Instant;

use anyhow::{Context, Result};
use ingest::generate::{self, Counts, Spec, http, kafka, write_all};

use crate::args::GenerateArgs;
use crate::commands::stop_on_signal;
use crate::console::complain;
use crate::exit::{Code, Failure};
use crate::text_table::grouped;

pub async fn run(args: GenerateArgs) -> Result<Code> {
    let specs = specs(&args);
    let began = Instant::now();
    let outcome = if let Some(brokers) = &args.kafka {
        if args.topic.is_some() && specs.len() > 1 {
            return Err(
                Failure::usage("--topic is for one table", "leave out --topic, or name --table").into()
            );
        }
        let client = ingest::kafka::client(brokers, &args.properties.iter().cloned().collect());
        let (topic, rate, stop) = (args.topic.clone(), args.rate, stop_on_signal()?);
        tokio::task::spawn_blocking(move || kafka::send_all(&client, topic, &specs, rate, &stop)).await?
    } else if let Some(url) = &args.http {
        let sink = http::Sink::new(url, args.token.clone())?;
        let batch = args.batch as usize;
        http::send_all(&sink, &specs, batch, args.rate, &stop_on_signal()?).await.map(|(counts, answered)| {
            complain(format_args!(
                "answers: {} accepted, {} rejected, {} requests sent again",
                grouped(answered.accepted),
                grouped(answered.rejected),
                grouped(answered.retries)
            ));
            counts
        })
    } else {
        return to_file(&args, &specs);
    };
    match outcome {
        Ok(counts) => {
            report(counts, began);
            Ok(Code::Done)
        }
        Err(generate::Error::Cancelled(counts)) => {
            report(counts, began);
            Err(anyhow::anyhow!("interrupted before all records were sent"))
        }
        Err(error) => Err(error.into()),
    }
}

fn specs(args: &GenerateArgs) -> Vec<Spec> {
    let spec = |base: Spec| Spec {
        seed: args.seed,
        days: args.days,
        end: args.end.map_or(base.end, |end| end.timestamp_micros()),
        late: args.late,
        duplicates: args.duplicates,
        bad: args.bad,
        ..base
    };
    let rows = args.rows;
    match args.table.as_str() {
        "events" => vec![spec(Spec::events(rows))],
        "both" => vec![spec(Spec::logs(rows - rows / 4)), spec(Spec::events(rows / 4))],
        _ => vec![spec(Spec::logs(rows))],
    }
}

fn to_file(args: &GenerateArgs, specs: &[Spec]) -> Result<Code> {
    let [spec] = specs else {
        return Err(Failure::usage(
            "a file holds the rows of one table",
            "name --table logs or --table events, or send both with --kafka or --http",
        )
        .into());
    };
    let out: Box<dyn Write> = match &args.out {
        Some(path) => Box::new(File::create(path).with_context(|| format!("write {}", path.display()))?),
        None => Box::new(std::io::stdout().lock()),
    };
    match write_all(spec, args.rate, BufWriter::with_capacity(1 << 20, out)) {
        // The reader had enough (`| head`).
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Code::Done),
        Err(error) => Err(error).context("write the records"),
        Ok(_) => Ok(Code::Done),
    }
}

fn report(counts: Counts, began: Instant) {
    let seconds = began.elapsed().as_secs_f64();
    complain(format_args!(
        "{} records in {seconds:.1} s, {} a second: {} fresh ({} of them late), {} duplicates, {} bad; {:.1} s of processor time",
        grouped(counts.records()),
        grouped((counts.records() as f64 / seconds.max(0.001)) as u64),
        grouped(counts.fresh),
        grouped(counts.late),
        grouped(counts.duplicates),
        grouped(counts.bad),
        processor_time().unwrap_or(0.0),
    ));
}

/// Seconds of processor time that this process has used.
fn processor_time() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    // Linux counts in hundredths of a second, whatever the kernel's own clock.
    Some(ticks as f64 / 100.0)
}
