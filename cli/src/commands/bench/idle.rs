//! `watershed bench idle`: CPU time that a running `watershed up` and its PostgreSQL take while nobody asks them anything.

use std::fs;

use anyhow::{Context, Result};

use super::process::Processes;
use crate::args::BenchIdleArgs;
use crate::console::say;
use crate::discover;
use crate::exit::Code;

pub async fn run(args: BenchIdleArgs) -> Result<Code> {
    let data = discover::data_dir(&args.running).await?;
    let holder = data.holder().and_then(|pid| pid.parse().ok());
    let up: u32 = holder.context("the data directory does not say which process it belongs to")?;
    let file = data.cluster().join("postmaster.pid");
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let server: u32 = text.lines().next().and_then(|line| line.trim().parse().ok()).context("PostgreSQL's pid")?;
    let before = Processes::now();
    tokio::time::sleep(args.duration.0).await;
    let after = Processes::now();
    let seconds = args.duration.0.as_secs_f64();
    let mut all = 0.0;
    for (name, from, to) in [
        ("watershed up", before.alone(up), after.alone(up)),
        // Its sessions with it, those that came and went too.
        ("PostgreSQL", before.family(server), after.family(server)),
    ] {
        let cpu = to.cpu.saturating_sub(from.cpu).as_secs_f64();
        all += cpu;
        say(format!("{name}: {cpu:.2} s of CPU in {seconds:.0} s, {:.2} % of a processor", 100.0 * cpu / seconds));
    }
    say(format!("both: {all:.2} s, {:.2} %", 100.0 * all / seconds));
    Ok(Code::Done)
}
