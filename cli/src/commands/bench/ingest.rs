//! `watershed bench ingest`: Kafka to visible in both stores, beside `psql \copy` of the same rows into a table of the same
//! shape and a batch consumer in Python, in one run; then a sustained rate with its delay, its cores and its memory.
//!
//! ```text
//! 1 rows      generated, loaded once, exported for \copy
//! 2 \copy     psql, archiver at rest
//! 3 python    kafka-python + psycopg, if there is a Python that has both
//! 4 drain     the rows wait in a topic: how fast are they in PostgreSQL, and in the lake?
//! 5 sustain   a producer at a fixed rate: do both stores keep up, in flat memory, and when is a row seen?
//! ```

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use lake::log::LakeTable;
use lake::spec::load_specs;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::instance::{Costs, Instance, Workplace};
use super::process::{Cost, Processes};
use super::programs;
use super::report::{bars, cores, median, quantile};
use crate::args::BenchIngestArgs;
use crate::bootstrap;
use crate::console::{complain, say};
use crate::exit::{Code, Failure};
use crate::text_table::{Align, grouped, layout};
use crate::wire_client::Client;

/// The rate below which the run is a failure: 3.6 million rows a minute.
const GATE: f64 = 60_000.0;
/// Service of the rows whose delay is taken.
const PROBE_SERVICE: &str = "watershed-bench-probe";
/// How often such a row is sent.
const PROBE_EVERY: Duration = Duration::from_secs(5);
const COLUMNS: &str = "ts, level, service, host, message, metadata, ingested_at";

pub async fn run(args: BenchIngestArgs) -> Result<Code> {
    let broker = Broker::connect(&args.brokers, args.partitions).await?;
    let work = Workplace::new(args.dir.as_deref(), args.keep)?;
    let mut outcome = Outcome::default();

    say(format_args!("[1/5] rows: {} generated", grouped(args.rows)));
    let export = work.path.join("rows.tsv");
    let instance = Instance::start(&work.path, AT_REST).await?;
    let psql = programs::find(&instance.admin_url, "psql").await?;
    prepare(&instance, &psql, &args, &export).await?;

    say("[2/5] \\copy of these rows into a table of the same shape");
    outcome.copy = copy(&instance, &psql, &args, &export).await?;
    say(format_args!("    {} rows/s, median of {}", whole(median(&outcome.copy)), outcome.copy.len()));
    let _ = std::fs::remove_file(&export);

    let drain = broker.topic("drain").await?;
    generate(&args, &drain, args.rows, None)?.finish().await?;
    say("[3/5] a batch consumer in Python");
    match python(&instance, &args, &drain).await? {
        Some(rate) => {
            say(format_args!("    {} rows/s", whole(rate)));
            outcome.python = Some(rate);
        }
        None => say("    left out: name a Python that has kafka-python and psycopg with --python"),
    }
    instance.stop().await?;

    let steady = broker.topic("steady").await?;
    say("[4/5] drain: the same rows wait in a topic");
    let settings = at_work(&args, &[&drain, &steady]);
    let instance = Instance::start(&work.path, &settings).await?;
    let mut watch = Watch::open(&instance).await?;
    outcome.drain = drained(&instance, &mut watch, args.rows).await?;
    say(format_args!(
        "    {} rows/s into PostgreSQL; all in the lake {:.1} s after the last was in PostgreSQL",
        whole(outcome.drain.rate),
        outcome.drain.lake_after.as_secs_f64()
    ));

    say(format_args!("[5/5] sustain: {} rows/s for {} s", grouped(args.rate), args.duration.0.as_secs()));
    sustain(&instance, &mut watch, &broker, &args, &steady, &mut outcome).await?;
    drop(watch);
    instance.stop().await?;
    broker.drop_topics(&[&drain, &steady]).await;

    print(&outcome, &args);
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(&outcome.json(&args))? + "\n")
            .with_context(|| format!("write {}", path.display()))?;
    }
    let failures = outcome.failures(&args);
    for failure in &failures {
        complain(format_args!("not reached: {failure}"));
    }
    Ok(if failures.is_empty() { Code::Done } else { Code::Found })
}

/// Archiver and compactor at rest: for the comparisons, PostgreSQL has the machine to itself.
const AT_REST: &str = "[archiver]\ninterval = \"1d\"\nmin_rows = 1000000000\n[compactor]\ninterval = \"1d\"\n";

fn at_work(args: &BenchIngestArgs, topics: &[&str]) -> String {
    let mut text = format!(
        "[archiver]\ninterval = \"30s\"\nmin_rows = 1000000\n[kafka]\nbrokers = {}\ngroup = \"watershed-bench-{}\"\n",
        quoted(&args.brokers),
        std::process::id()
    );
    for topic in topics {
        text.push_str(&format!("[[kafka.topics]]\ntopic = {}\ntable = \"public.logs\"\n", quoted(topic)));
    }
    text
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The broker as the benchmark uses it: topics of this run, their ends, a producer.
struct Broker {
    admin: AdminClient<DefaultClientContext>,
    producer: FutureProducer,
    config: rdkafka::ClientConfig,
    partitions: i32,
}

impl Broker {
    async fn connect(brokers: &str, partitions: i32) -> Result<Broker> {
        let config = ingest::kafka::client(brokers, &Default::default());
        let admin: AdminClient<DefaultClientContext> = config.create().context("make a Kafka client")?;
        let producer: FutureProducer = config.create().context("make a Kafka producer")?;
        let asked = config.clone();
        let found = tokio::task::spawn_blocking(move || -> Result<()> {
            let consumer: BaseConsumer = asked.create()?;
            consumer.fetch_metadata(None, Duration::from_secs(10))?;
            Ok(())
        });
        if let Err(error) = found.await? {
            return Err(Failure::environment(
                format!("no Kafka broker answers at {brokers}: {error:#}"),
                "start one (deploy/local/kafka has one that needs no installation) and name it with --brokers",
            )
            .into());
        }
        Ok(Broker { admin, producer, config, partitions })
    }

    async fn topic(&self, purpose: &str) -> Result<String> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        let name = format!("watershed-bench-{purpose}-{since}");
        let topic = NewTopic::new(&name, self.partitions, TopicReplication::Fixed(1));
        for made in self.admin.create_topics(&[topic], &AdminOptions::new()).await? {
            made.map_err(|(name, code)| anyhow::anyhow!("make topic {name}: {code}"))?;
        }
        Ok(name)
    }

    async fn drop_topics(&self, names: &[&str]) {
        if let Err(error) = self.admin.delete_topics(names, &AdminOptions::new()).await {
            tracing::warn!(%error, "the benchmark's topics were left behind");
        }
    }

    /// Records in a topic.
    async fn end(&self, topic: &str) -> Result<u64> {
        let (config, topic, partitions) = (self.config.clone(), topic.to_owned(), self.partitions);
        tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = config.create()?;
            let mut total = 0;
            for partition in 0..partitions {
                let (low, high) = consumer.fetch_watermarks(&topic, partition, Duration::from_secs(10))?;
                total += u64::try_from(high - low).unwrap_or_default();
            }
            Ok(total)
        })
        .await?
    }
}

/// A `watershed generate` that writes to a topic.
struct Producer {
    child: tokio::process::Child,
}

fn generate(args: &BenchIngestArgs, topic: &str, rows: u64, rate: Option<u64>) -> Result<Producer> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["generate", "--table", "logs", "--kafka", &args.brokers, "--topic", topic]);
    command.args(["--rows", &rows.to_string(), "--seed", "1"]);
    if let Some(rate) = rate {
        command.args(["--rate", &rate.to_string()]);
    }
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .context("start watershed generate")?;
    Ok(Producer { child })
}

impl Producer {
    async fn finish(mut self) -> Result<()> {
        let status = self.child.wait().await?;
        if status.success() { Ok(()) } else { bail!("watershed generate ended with {status}") }
    }

    fn ended(&mut self) -> Result<bool> {
        match self.child.try_wait()? {
            None => Ok(false),
            Some(status) if status.success() => Ok(true),
            Some(status) => bail!("watershed generate ended with {status}"),
        }
    }
}

async fn psql(program: &Path, url: &str, command: &str) -> Result<Duration> {
    let started = Instant::now();
    let output = Command::new(program)
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", url, "-c", command])
        .stdin(Stdio::null())
        .output()
        .await
        .context("run psql")?;
    if !output.status.success() {
        bail!("psql: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(started.elapsed())
}

/// Makes the rows, in a file that \copy reads, and the table that it fills.
async fn prepare(instance: &Instance, program: &Path, args: &BenchIngestArgs, export: &Path) -> Result<()> {
    let spec = ingest::generate::Spec { seed: 1, ..ingest::generate::Spec::logs(args.rows) };
    let options = ingest::load::Options {
        database_url: instance.admin_url.clone(),
        table: "public.logs".into(),
        ..Default::default()
    };
    ingest::load::run_generated(options, spec, Default::default()).await?;
    psql(program, &instance.admin_url, &format!("\\copy (SELECT {COLUMNS} FROM public.logs) TO '{}'", export.display())).await?;
    let mut admin = bootstrap::connect(&instance.admin_url).await?;
    // The rows themselves have done their part: what is measured starts with empty tables.
    for sql in [
        "SELECT watershed.drop_table('public.logs')",
        "CREATE TABLE public.logs (ts timestamptz NOT NULL, level text, service text, host text, message text, metadata jsonb, ingested_at timestamptz DEFAULT now())",
        "CREATE INDEX logs_ts_idx ON public.logs (ts)",
        "CREATE TABLE public.logs_copy (LIKE public.logs INCLUDING ALL)",
        "CREATE TABLE public.logs_python (LIKE public.logs INCLUDING ALL)",
        "ALTER TABLE public.logs OWNER TO watershed",
        "SELECT watershed.attach_table('public.logs', event_time => 'ts', overflow => 'metadata')",
        "SELECT watershed.attach_table('public.logs_copy', event_time => 'ts', overflow => 'metadata')",
        "SELECT watershed.attach_table('public.logs_python', event_time => 'ts', overflow => 'metadata')",
        "CHECKPOINT",
    ] {
        sqlx::raw_sql(sql).execute(&mut admin).await.with_context(|| sql.to_owned())?;
    }
    Ok(())
}

/// Rows a second of `\copy`, several times over.
async fn copy(instance: &Instance, program: &Path, args: &BenchIngestArgs, export: &Path) -> Result<Vec<f64>> {
    let mut rates = Vec::new();
    for _ in 0..args.rounds {
        let command = format!("\\copy public.logs_copy ({COLUMNS}) FROM '{}'", export.display());
        let took = psql(program, &instance.admin_url, &command).await?;
        rates.push(args.rows as f64 / took.as_secs_f64());
    }
    Ok(rates)
}

/// What many write first: poll, parse, insert, commit. `None` without a Python that can.
async fn python(instance: &Instance, args: &BenchIngestArgs, topic: &str) -> Result<Option<f64>> {
    let able = Command::new(&args.python)
        .args(["-c", "import kafka, psycopg"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .await;
    if !able.is_ok_and(|status| status.success()) {
        return Ok(None);
    }
    let rows = args.rows.min(500_000);
    let output = Command::new(&args.python)
        .args(["-", &args.brokers, topic, &instance.admin_url, "public.logs_python", &rows.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .context("start the Python consumer")?;
    let mut output = output;
    {
        use tokio::io::AsyncWriteExt;
        let mut stdin = output.stdin.take().context("no standard input of the Python consumer")?;
        stdin.write_all(include_bytes!("consumer.py")).await?;
    }
    let output = output.wait_with_output().await?;
    if !output.status.success() {
        bail!("the Python consumer ended with {}", output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(Some(text.trim().parse().with_context(|| format!("the Python consumer said {text:?}"))?))
}

/// Eyes on both stores, past the gateway.
struct Watch {
    conn: PgConnection,
    lake: Option<LakeTable>,
    lake_root: url::Url,
    archiver_url: String,
}

impl Watch {
    async fn open(instance: &Instance) -> Result<Watch> {
        let conn = bootstrap::connect(&instance.admin_url).await?;
        let (lake_root, archiver_url) = (instance.lake_root.clone(), instance.archiver_url.clone());
        Ok(Watch { conn, lake: None, lake_root, archiver_url })
    }

    /// Records that PostgreSQL has committed, of all topics.
    async fn committed(&mut self) -> Result<u64> {
        let n: i64 = sqlx::query_scalar(
            "SELECT coalesce(sum(p.next_offset - s.start_offset), 0)::int8 FROM watershed_control.positions p \
             JOIN watershed_control.streams s ON s.id = p.stream WHERE s.kind = 'kafka'",
        )
        .fetch_one(&mut self.conn)
        .await?;
        Ok(n.unsigned_abs())
    }

    /// Rows of `public.logs` that the lake holds.
    async fn in_lake(&mut self) -> Result<u64> {
        if self.lake.is_none() {
            let mut conn = bootstrap::connect(&self.archiver_url).await?;
            let specs = load_specs(&mut conn).await?;
            conn.close().await?;
            if let Some(spec) = specs.iter().find(|s| s.qualified() == "public.logs") {
                self.lake = LakeTable::open(&self.lake_root, spec).await?;
            }
        }
        match &mut self.lake {
            Some(lake) => Ok(lake.refresh().await?.rows),
            None => Ok(0),
        }
    }
}

#[derive(Default)]
struct Drained {
    rate: f64,
    lake_after: Duration,
    cost: Costs,
    took: Duration,
}

/// Waits until all rows are in both stores. The rate counts from the first commit that is seen.
async fn drained(instance: &Instance, watch: &mut Watch, rows: u64) -> Result<Drained> {
    const PATIENCE: Duration = Duration::from_secs(120);
    let mut first: Option<(Instant, u64, Costs)> = None;
    let (mut moved, mut seen) = (Instant::now(), 0);
    let (end, took, rate, cost) = loop {
        let now = watch.committed().await?;
        if now > seen {
            (moved, seen) = (Instant::now(), now);
            first.get_or_insert_with(|| (Instant::now(), now, instance.costs()));
        }
        if let (true, Some((since, at_first, before))) = (now >= rows, &first) {
            let took = since.elapsed();
            let rate = (now - at_first) as f64 / took.as_secs_f64().max(0.001);
            break (Instant::now(), took, rate, less(instance.costs(), *before));
        }
        if moved.elapsed() > PATIENCE {
            bail!("nothing was taken from the topic for {} s; {} of {} rows are in", PATIENCE.as_secs(), seen, rows);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    while watch.in_lake().await? < rows {
        if end.elapsed() > PATIENCE {
            bail!("the lake holds {} of {} rows after {} s", watch.in_lake().await?, rows, PATIENCE.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    Ok(Drained { rate, lake_after: end.elapsed(), cost, took })
}

fn less(after: Costs, before: Costs) -> Costs {
    let one = |a: Cost, b: Cost| Cost { cpu: a.cpu.saturating_sub(b.cpu), private: a.private };
    Costs { watershed: one(after.watershed, before.watershed), postgres: one(after.postgres, before.postgres) }
}

/// One second of the sustained run.
#[derive(Clone, Copy, Default)]
struct Sample {
    at: f64,
    produced: u64,
    committed: u64,
    in_lake: u64,
    watershed: Cost,
    postgres: Cost,
}

async fn sustain(
    instance: &Instance,
    watch: &mut Watch,
    broker: &Broker,
    args: &BenchIngestArgs,
    topic: &str,
    outcome: &mut Outcome,
) -> Result<()> {
    let rows = args.rate * args.duration.0.as_secs();
    let base = (watch.committed().await?, watch.in_lake().await?);
    let all = Processes::now();
    let brokers: Vec<u32> = all.with_argument("kafka.Kafka");
    let broker_cpu = |all: &Processes| brokers.iter().map(|pid| all.alone(*pid).cpu).sum::<Duration>();
    let (before, broker_before) = (instance.costs(), broker_cpu(&all));
    let mut producer = generate(args, topic, rows, Some(args.rate))?;
    let producer_pid = producer.child.id();
    let started = Instant::now();
    let stop = CancellationToken::new();
    let _stop_on_error = stop.clone().drop_guard();
    let probes = delays(instance.target.clone(), broker.producer.clone(), topic.to_owned(), stop.clone());
    let probes = tokio::spawn(probes);
    let bar = indicatif::ProgressBar::new(rows);
    bar.set_style(
        indicatif::ProgressStyle::with_template("    {bar:30} {percent:>3} %  {msg}")
            .unwrap_or_else(|_| indicatif::ProgressStyle::default_bar()),
    );
    let mut producer_cpu = Duration::ZERO;
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let ended = producer.ended()?;
        let costs = instance.costs();
        let sample = Sample {
            at: started.elapsed().as_secs_f64(),
            produced: broker.end(topic).await?,
            committed: watch.committed().await?.saturating_sub(base.0),
            in_lake: watch.in_lake().await?.saturating_sub(base.1),
            watershed: costs.watershed,
            postgres: costs.postgres,
        };
        if let Some(pid) = producer_pid {
            producer_cpu = producer_cpu.max(Processes::now().alone(pid).cpu);
        }
        bar.set_position(sample.committed.min(rows));
        bar.set_message(format!(
            "lag {:>8}  beyond the lake {:>9}  {:>4} MiB",
            grouped(sample.produced.saturating_sub(sample.committed)),
            grouped(sample.committed.saturating_sub(sample.in_lake)),
            sample.watershed.private >> 20
        ));
        outcome.samples.push(sample);
        if ended {
            break;
        }
    }
    bar.finish_and_clear();
    let took = started.elapsed();
    let cost = less(instance.costs(), before);
    outcome.cores = [
        ("ingest, archiver, gateway", cores(cost.watershed.cpu, took)),
        ("PostgreSQL", cores(cost.postgres.cpu, took)),
        ("broker", cores(broker_cpu(&Processes::now()).saturating_sub(broker_before), took)),
        ("producer", cores(producer_cpu, took)),
    ]
    .map(|(name, cores)| (name.to_owned(), cores))
    .to_vec();
    outcome.took = took;
    // What the producer could not send in time it sends late: then the rate was not the one asked for.
    outcome.produced_rate = outcome.samples.last().map_or(0.0, |s| s.produced as f64 / took.as_secs_f64());
    stop.cancel();
    outcome.delays = probes.await??;
    let last = broker.end(topic).await?;
    let catching_up = Instant::now();
    while watch.committed().await?.saturating_sub(base.0) < last {
        if catching_up.elapsed() > Duration::from_secs(300) {
            bail!("the rows were not in PostgreSQL five minutes after the producer ended");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    outcome.catch_up = catching_up.elapsed();
    while watch.in_lake().await?.saturating_sub(base.1) < last {
        if catching_up.elapsed() > Duration::from_secs(600) {
            bail!("the rows were not in the lake ten minutes after the producer ended");
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    outcome.lake_catch_up = catching_up.elapsed();
    Ok(())
}

/// Sends a row now and then and asks for it, by an aggregate through the gateway, until it is counted: seconds from the
/// sending to the answer, the query's own time included.
async fn delays(
    target: crate::wire_client::Target,
    producer: FutureProducer,
    topic: String,
    stop: CancellationToken,
) -> Result<Vec<f64>> {
    let mut client = Client::connect(&target).await?;
    let mut taken = Vec::new();
    let run = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    for number in 0.. {
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(PROBE_EVERY) => {}
        }
        let host = format!("{run}-{number}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        let row = json!({ "ts": now, "level": "INFO", "service": PROBE_SERVICE, "host": host, "message": "probe" });
        let (row, sent) = (row.to_string(), Instant::now());
        let record = FutureRecord::to(&topic).key(PROBE_SERVICE).payload(&row);
        producer.send(record, Duration::from_secs(10)).await.map_err(|(error, _)| error).context("send a probe")?;
        let sql = format!(
            "SELECT count(*) FROM public.logs WHERE service = '{PROBE_SERVICE}' AND host = '{host}' AND ts >= pg_catalog.to_timestamp({now} - 1)"
        );
        loop {
            let counted = client.simple(&sql).await?.text()?;
            if counted.first().and_then(|row| row.first()?.as_deref().map(|n| n == "1")) == Some(true) {
                taken.push(sent.elapsed().as_secs_f64());
                break;
            }
            if stop.is_cancelled() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(taken)
}

/// Everything that was measured.
#[derive(Default)]
struct Outcome {
    copy: Vec<f64>,
    python: Option<f64>,
    drain: Drained,
    samples: Vec<Sample>,
    took: Duration,
    produced_rate: f64,
    cores: Vec<(String, f64)>,
    delays: Vec<f64>,
    catch_up: Duration,
    lake_catch_up: Duration,
}

impl Outcome {
    /// Rows a second into PostgreSQL, the time to catch up at the end included.
    fn sustained(&self) -> f64 {
        let Some(last) = self.samples.last() else { return 0.0 };
        last.produced as f64 / (self.took + self.catch_up).as_secs_f64()
    }

    fn greatest(&self, of: impl Fn(&Sample) -> u64) -> u64 {
        self.samples.iter().map(of).max().unwrap_or_default()
    }

    /// Median memory of the second quarter and of the last, in bytes: flat is where they are alike.
    fn memory(&self) -> (f64, f64) {
        let private: Vec<f64> = self.samples.iter().map(|s| s.watershed.private as f64).collect();
        let n = private.len();
        (median(&private[n / 4..n / 2]), median(&private[n * 3 / 4..]))
    }

    /// What was asked for and not reached.
    fn failures(&self, args: &BenchIngestArgs) -> Vec<String> {
        let mut failures = Vec::new();
        // A producer that keeps to the gate exactly is a little below it once the last records' way is counted.
        let gate = GATE.min(args.rate as f64) * 0.99;
        if self.sustained() < gate {
            failures.push(format!("{} rows/s into PostgreSQL, sustained: it was {}", whole(gate), whole(self.sustained())));
        }
        // One archive's worth may be under way, and as much may wait.
        let behind = self.samples.last().map_or(0, |s| s.committed.saturating_sub(s.in_lake));
        let allowed = 3_000_000.max(args.rate * 45);
        if behind > allowed {
            failures.push(format!("the lake keeping up: {} rows were beyond it at the end", grouped(behind)));
        }
        let (early, late) = self.memory();
        if late > early * 1.25 + (64 << 20) as f64 {
            failures.push(format!("flat memory: {} MiB grew to {} MiB", early as u64 >> 20, late as u64 >> 20));
        }
        failures
    }

    fn json(&self, args: &BenchIngestArgs) -> serde_json::Value {
        let (early, late) = self.memory();
        json!({
            "rows": args.rows,
            "copy_rows_per_second": self.copy,
            "python_rows_per_second": self.python,
            "drain": {
                "rows_per_second": self.drain.rate,
                "of_copy": self.drain.rate / median(&self.copy),
                "lake_seconds_after": self.drain.lake_after.as_secs_f64(),
                "watershed_cores": cores(self.drain.cost.watershed.cpu, self.drain.took),
                "postgres_cores": cores(self.drain.cost.postgres.cpu, self.drain.took),
            },
            "sustain": {
                "asked_rows_per_second": args.rate,
                "produced_rows_per_second": self.produced_rate,
                "sustained_rows_per_second": self.sustained(),
                "seconds": self.took.as_secs_f64(),
                "greatest_lag_rows": self.greatest(|s| s.produced.saturating_sub(s.committed)),
                "greatest_rows_beyond_the_lake": self.greatest(|s| s.committed.saturating_sub(s.in_lake)),
                "catch_up_seconds": self.catch_up.as_secs_f64(),
                "lake_catch_up_seconds": self.lake_catch_up.as_secs_f64(),
                "delay_p50_seconds": quantile(&self.delays, 0.5),
                "delay_p99_seconds": quantile(&self.delays, 0.99),
                "delays": self.delays.len(),
                "memory_early_bytes": early,
                "memory_late_bytes": late,
                "memory_peak_bytes": self.greatest(|s| s.watershed.private),
                "cores": self.cores.iter().map(|(name, cores)| json!({ "who": name, "cores": cores })).collect::<Vec<_>>(),
            },
            "samples": self.samples.iter().map(|s| json!({
                "at": s.at, "produced": s.produced, "committed": s.committed, "in_lake": s.in_lake,
                "watershed_bytes": s.watershed.private, "watershed_cpu": s.watershed.cpu.as_secs_f64(),
                "postgres_bytes": s.postgres.private, "postgres_cpu": s.postgres.cpu.as_secs_f64(),
            })).collect::<Vec<_>>(),
        })
    }
}

fn whole(number: f64) -> String {
    grouped(number.max(0.0).round() as u64)
}

fn print(outcome: &Outcome, args: &BenchIngestArgs) {
    let copy = median(&outcome.copy);
    let row = |name: &str, rate: f64| vec![name.to_owned(), whole(rate), format!("{:.2}", rate / copy.max(1.0))];
    let mut rows = vec![row("psql \\copy", copy)];
    rows.extend(outcome.python.map(|rate| row("kafka-python + psycopg (COPY)", rate)));
    rows.push(row("watershed, drain", outcome.drain.rate));
    rows.push(row("watershed, sustained", outcome.sustained()));
    let heading = [("way", Align::Left), ("rows/s", Align::Right), ("of \\copy", Align::Right)];
    say("");
    say(layout(&heading, &rows).trim_end());

    let samples = &outcome.samples;
    let per_second: Vec<f64> = samples
        .windows(2)
        .map(|w| w[1].committed.saturating_sub(w[0].committed) as f64 / (w[1].at - w[0].at).max(0.001))
        .collect();
    let column = |of: &dyn Fn(&Sample) -> f64| samples.iter().map(of).collect::<Vec<f64>>();
    let beyond = column(&|s| s.committed.saturating_sub(s.in_lake) as f64);
    let lag = column(&|s| s.produced.saturating_sub(s.committed) as f64);
    let memory = column(&|s| s.watershed.private as f64);
    let top = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    say(format_args!("\nsustained for {} s at {} rows/s asked", outcome.took.as_secs(), grouped(args.rate)));
    say(format_args!("  rows/s into PostgreSQL  {}  top {}", bars(&per_second, 60), whole(top(&per_second))));
    say(format_args!("  lag in Kafka            {}  top {}", bars(&lag, 60), whole(top(&lag))));
    say(format_args!("  rows beyond the lake    {}  top {}", bars(&beyond, 60), whole(top(&beyond))));
    say(format_args!("  memory                  {}  top {} MiB", bars(&memory, 60), top(&memory) as u64 >> 20));
    say(format_args!(
        "  produced to seen in an aggregate: p50 {:.2} s, p99 {:.2} s ({} rows asked for)",
        quantile(&outcome.delays, 0.5),
        quantile(&outcome.delays, 0.99),
        outcome.delays.len()
    ));
    say(format_args!(
        "  after the last record: in PostgreSQL {:.1} s, in the lake {:.1} s",
        outcome.catch_up.as_secs_f64(),
        outcome.lake_catch_up.as_secs_f64()
    ));
    let busy: Vec<Vec<String>> =
        outcome.cores.iter().map(|(name, cores)| vec![name.clone(), format!("{cores:.2}")]).collect();
    say("");
    say(layout(&[("who", Align::Left), ("cores", Align::Right)], &busy).trim_end());
}
