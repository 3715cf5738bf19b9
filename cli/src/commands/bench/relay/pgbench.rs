//! Runs of pgbench: how it is called, what it says, what its log holds. Knows nothing of where it is pointed at.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use tokio::process::{Child, Command};

use super::super::report::quantile;
use crate::args::QueryMode;
use crate::wire_client::Target;

/// What a run may take beyond its time: to log in, to end, to write.
const GRACE: Duration = Duration::from_secs(120);

/// How pgbench is to run, the same for every way.
pub struct Pgbench {
    program: PathBuf,
    script: PathBuf,
    /// For its logs, of which nothing stays.
    logs: PathBuf,
    jobs: Option<u32>,
}

/// What is asked for in one cell of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    pub mode: QueryMode,
    pub clients: u32,
}

/// One run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Run {
    /// Transactions a second, the time to connect not counted.
    pub tps: f64,
    pub transactions: u64,
    /// Those of them that ended after the moment that was asked for.
    pub late: u64,
    /// For all clients to log in.
    pub connect_ms: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

impl QueryMode {
    pub fn name(self) -> &'static str {
        match self {
            QueryMode::Simple => "simple",
            QueryMode::Extended => "extended",
            QueryMode::Prepared => "prepared",
        }
    }
}

/// A command for this target and nothing of the caller's environment that could lead it elsewhere.
pub fn client(program: &Path, target: &Target) -> Command {
    let mut command = Command::new(program);
    for (key, _) in std::env::vars_os() {
        if key.to_str().is_some_and(|key| key.starts_with("PG")) {
            command.env_remove(key);
        }
    }
    command
        .env("PGHOST", &target.host)
        .env("PGPORT", target.port.to_string())
        .env("PGUSER", &target.user)
        .env("PGPASSWORD", &target.password)
        .env("PGDATABASE", &target.database)
        // No way has either, and asking costs round trips.
        .env("PGSSLMODE", "disable")
        .env("PGGSSENCMODE", "disable")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

impl Pgbench {
    pub fn new(program: PathBuf, dir: &Path, script: &str, jobs: Option<u32>) -> Result<Pgbench> {
        let (file, logs) = (dir.join("lookup.sql"), dir.join("pgbench"));
        std::fs::write(&file, script).with_context(|| format!("write {}", file.display()))?;
        std::fs::create_dir_all(&logs).with_context(|| format!("make {}", logs.display()))?;
        Ok(Pgbench { program, script: file, logs, jobs })
    }

    /// Threads of pgbench for this many clients.
    pub fn jobs(&self, clients: u32) -> u32 {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        self.jobs.unwrap_or_else(|| u32::try_from(cores).unwrap_or(u32::MAX)).clamp(1, clients.max(1))
    }

    /// `seed`: the same one asks for the same keys.
    pub fn start(&self, target: &Target, load: Load, seconds: u32, seed: u32) -> Result<Running<'_>> {
        self.clear()?;
        let (clients, jobs) = (load.clients.to_string(), self.jobs(load.clients).to_string());
        let mut command = client(&self.program, target);
        command.args(["-n", "-M", load.mode.name(), "-c", &clients, "-j", &jobs]);
        command
            .args(["-T", &seconds.to_string(), "--random-seed", &seed.to_string(), "-f"])
            .arg(&self.script);
        // Every transaction's time is written, for every way alike.
        command.arg("-l").arg("--log-prefix").arg(self.logs.join("log"));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("run pgbench")?;
        Ok(Running { pgbench: self, child, seconds })
    }

    fn files(&self) -> Result<Vec<PathBuf>> {
        let entries =
            std::fs::read_dir(&self.logs).with_context(|| format!("read {}", self.logs.display()))?;
        Ok(entries.collect::<std::io::Result<Vec<_>>>()?.into_iter().map(|entry| entry.path()).collect())
    }

    fn clear(&self) -> Result<()> {
        for file in self.files()? {
            std::fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
        }
        Ok(())
    }
}

/// A pgbench at work. Dropped, it is killed.
pub struct Running<'a> {
    pgbench: &'a Pgbench,
    child: Child,
    seconds: u32,
}

impl Running<'_> {
    pub fn ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Waits for its end. Rate and times are of the transactions that ended after `since`, if there are any.
    pub async fn finish(self, since: SystemTime) -> Result<Run> {
        let limit = GRACE + Duration::from_secs(self.seconds.into());
        let ended = tokio::time::timeout(limit, self.child.wait_with_output()).await;
        let output = ended.context("pgbench does not end")?.context("wait for pgbench")?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            bail!("pgbench ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        let mut run = summary(&said).with_context(|| format!("pgbench said:\n{said}"))?;
        let mut log = Log { since: since.duration_since(UNIX_EPOCH)?.as_micros(), ..Log::default() };
        for file in self.pgbench.files()? {
            let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
            log.take(&text).with_context(|| format!("read {}", file.display()))?;
        }
        self.pgbench.clear()?;
        if let Some(rate) = log.rate() {
            run.tps = rate;
        }
        let times = if log.late.is_empty() { &log.early } else { &log.late };
        run.p50_ms = quantile(times, 0.5) / 1e3;
        run.p99_ms = quantile(times, 0.99) / 1e3;
        run.late = log.late.len() as u64;
        Ok(run)
    }
}

impl Run {
    /// pgbench's clock runs while its clients log in: on a busy machine that may be all they do.
    pub fn is_enough(&self, seconds: u32) -> bool {
        self.transactions > 0 && self.connect_ms <= 500.0 * f64::from(seconds)
    }
}

/// Rate and number of transactions, of what pgbench prints at its end; without any, it names no rate.
fn summary(said: &str) -> Option<Run> {
    let number = |name: &str| -> Option<f64> {
        let line = said.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    };
    let transactions = number("number of transactions actually processed:")? as u64;
    if transactions == 0 {
        return Some(Run::default());
    }
    Some(Run {
        tps: number("tps =")?,
        transactions,
        connect_ms: number("initial connection time =")?,
        ..Run::default()
    })
}

/// What the lines of its logs say: `client transaction time script seconds microseconds`.
#[derive(Default)]
struct Log {
    /// Microseconds of each transaction that ended not after `since`, and of each other one.
    early: Vec<f64>,
    late: Vec<f64>,
    /// Microseconds since 1970.
    since: u128,
    /// When the last one ended.
    last: u128,
}

impl Log {
    fn take(&mut self, text: &str) -> Option<()> {
        for line in text.lines() {
            let mut fields = line.split_ascii_whitespace().skip(2);
            let time = fields.next()?.parse().ok()?;
            let mut end = fields.skip(1);
            let (seconds, micros): (u128, u128) = (end.next()?.parse().ok()?, end.next()?.parse().ok()?);
            let end = seconds * 1_000_000 + micros;
            self.last = self.last.max(end);
            let times = if end > self.since { &mut self.late } else { &mut self.early };
            times.push(time);
        }
        Some(())
    }

    /// Transactions a second after `since`.
    fn rate(&self) -> Option<f64> {
        (self.last > self.since && !self.late.is_empty())
            .then(|| self.late.len() as f64 * 1e6 / (self.last - self.since) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_of_a_run() {
        let said = "pgbench (15.1)\ntransaction type: a.sql\nnumber of clients: 4\n\
            number of transactions actually processed: 1234\nnumber of failed transactions: 0 (0.000%)\n\
            latency average = 0.810 ms\ninitial connection time = 3.1 ms\ntps = 617.25 (without initial connection time)\n";
        let run = summary(said).expect("a summary");
        assert_eq!((run.tps, run.transactions, run.connect_ms), (617.25, 1234, 3.1));
        assert_eq!(summary("tps = 3 (without initial connection time)\n"), None);
        assert_eq!(summary("number of transactions actually processed: 0\n"), Some(Run::default()));
    }

    #[test]
    fn its_log_has_times_and_ends() {
        let mut log = Log { since: 1_790_000_000_000_012, ..Log::default() };
        assert_eq!(log.take("0 1 250 0 1790000000 12\n1 1 1750 0 1790000000 13\n"), Some(()));
        assert_eq!((log.early.as_slice(), log.late.as_slice()), ([250.0].as_slice(), [1750.0].as_slice()));
        assert_eq!(log.rate(), Some(1e6));
        assert_eq!(log.take("0 1\n"), None);
        assert_eq!(log.take("0 1 skipped 0 1 1\n"), None);
    }

    #[test]
    fn a_run_that_was_spent_on_logins_is_not_enough() {
        let run = Run { transactions: 5, connect_ms: 900.0, ..Run::default() };
        assert!(!run.is_enough(1) && run.is_enough(2));
        assert!(!Run::default().is_enough(60));
    }
}
