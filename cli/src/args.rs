//! The command line: every flag, its environment variable, its help. No defaults that a file may change
//! (those stand in `config`), no work.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::units::{Bytes, Door, Period};

const EXIT_CODES: &str = "Exit codes: 0 done; 1 done, but the stores differ, lines were rejected, letters failed again or answers were unequal; \
2 wrong arguments or configuration; 3 the machine is not ready (port in use, directory held, no PostgreSQL, disk full, nothing running); 4 failed.";

/// A SQL gateway that speaks PostgreSQL's protocol over two stores of the same rows.
#[derive(Debug, Parser)]
#[command(name = "watershed", version, propagate_version = true, after_help = EXIT_CODES)]
pub struct Cli {
    /// How the log on standard error is written
    #[arg(long, global = true, env = "WATERSHED_LOG_FORMAT", value_enum, default_value = "text", hide_possible_values = true)]
    pub log_format: crate::logging::Format,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything: PostgreSQL, gateway, ingest, archiver and compactor, in one data directory
    #[command(
        after_help = "Examples:\n  watershed up\n  watershed up --data-dir /var/lib/watershed --listen 0.0.0.0:6432 --tls-cert server.crt --tls-key server.key\n\n\
Stops on ctrl-C or SIGTERM after open sessions have ended or the drain time is over; a second signal stops at once.\n\
On SIGHUP it reads certificates and keys again."
    )]
    Up(UpArgs),
    /// Take in records beside a running `watershed up`: Kafka, HTTP door and archiver in a process of their own
    #[command(
        after_help = "Examples:\n  watershed ingest --kafka-brokers 10.0.0.1:9092\n  watershed ingest --no-http --no-archiver \\\n    \
--postgres-url postgres://watershed_ingest:...@10.0.0.2:5432/watershed --kafka-brokers 10.0.0.1:9092\n\n\
Any number of these share the partitions of the topics; the archiver of each table runs in one of them at a time.\n\
On SIGTERM the batch in flight is committed and the group is left."
    )]
    Ingest(IngestArgs),
    /// Load files into a table; a file loaded before adds nothing, a grown one adds what is new
    #[command(
        after_help = "Examples:\n  watershed load logs /var/log/nginx/access.log /var/log/nginx/access.log.1.gz\n  \
watershed load logs --format syslog --year 2024 auth.log\n  zcat events.ndjson.gz | watershed load events --format ndjson -\n\n\
Exit code 1 means that some lines were rejected; they stand in watershed.dead_letters."
    )]
    Load(LoadArgs),
    /// Ship what PostgreSQL holds beyond the lake's boundary to the lake
    #[command(after_help = "Examples:\n  watershed archive --now\n  watershed archive logs --now")]
    Archive(ArchiveArgs),
    /// Merge the small files of each day in the lake into large sorted ones
    #[command(after_help = "Examples:\n  watershed compact\n  watershed compact logs --plan\n  watershed compact logs --full\n\n\
Runs once and ends, for cron or a scheduler: exit code 0 when nothing is left to do, 4 if it failed\n\
(running it again is safe). A running `watershed up` compacts by itself; the two take turns.")]
    Compact(CompactArgs),
    /// Compare both stores row for row at one boundary; exit code 1 names the first difference
    #[command(after_help = "Examples:\n  watershed verify\n  watershed verify logs")]
    Verify(TableArgs),
    /// Bring table and lake together after a failover, a point-in-time recovery or a restore of PostgreSQL
    #[command(
        after_help = "Examples:\n  watershed rebase --dry-run\n  watershed rebase\n  watershed rebase logs\n\n\
Safe to run at any time and again: a table whose server has lost nothing is told so and left alone."
    )]
    Rebase(RebaseArgs),
    /// Let old days leave PostgreSQL and the lake, as each table's windows say; --plan only says what would be done, and why
    #[command(after_help = "Examples:\n  watershed retain --plan\n  watershed retain\n  watershed retain logs --notice 0s\n\n\
The windows: SELECT watershed.set_retention('public.logs', hot_days => 30, lake_days => 400). A running `watershed up` keeps them by \
itself. Exit code 1 means that something that should leave cannot yet; the reason is printed.")]
    Retain(RetainArgs),
    /// Make realistic log lines and user events, the same for the same seed: to a file, Kafka or HTTP
    #[command(after_help = "Examples:\n  watershed generate --rows 100000 > logs.ndjson\n  \
watershed generate --table events --rows 1000 --seed 7 | watershed load events --format ndjson -\n  \
watershed generate --table both --rows 1000000 --kafka 127.0.0.1:9092 --rate 20000\n  \
watershed generate --http http://127.0.0.1:8432 --duplicates 0.01 --bad 0.001\n\n\
A running `watershed up` has a generator of its own: POST /v1/generator/start, /v1/generator/stop, GET /v1/generator/status.")]
    Generate(GenerateArgs),
    /// Show the whole path on generated rows: up, load, archive, compact, query on both paths, keep serving
    #[command(
        after_help = "Examples:\n  watershed demo\n  watershed demo --rows 200000 --exit --data-dir /tmp/watershed-demo"
    )]
    Demo(DemoArgs),
    /// Show the statements that the gateway answered last, or what each kind of statement costs
    #[command(after_help = "Examples:\n  watershed queries\n  watershed queries --stats --limit 50")]
    Queries(QueriesArgs),
    /// Print what the lake may answer, as the page docs/compatibility.md
    #[command(after_help = "Examples:\n  watershed compatibility > docs/compatibility.md\n\n\
The same rows, for any client: SELECT * FROM watershed.functions.")]
    Compatibility,
    /// List, show, replay or drop records that could not become rows
    #[command(
        name = "dead-letters",
        after_help = "Examples:\n  watershed dead-letters list --table logs --since 2h\n  watershed dead-letters show 42\n  \
watershed dead-letters replay --topic logs.raw --dry-run\n  watershed dead-letters drop --replayed --yes\n\n\
A replay decodes with the mapping of today and adds new rows; each letter becomes rows once. Exit code 1 means that\n\
some letters failed again; they stay, with the new reason."
    )]
    DeadLetters(DeadLettersArgs),
    /// Measure what a unit of PostgreSQL's cost and a value of the lake take on this machine: by that the faster store is chosen
    #[command(after_help = "Examples:\n  watershed calibrate\n  watershed calibrate --rows 5000000\n\n\
Makes a table of its own, public.watershed_calibration, and removes it. What was measured holds from the next statement on.")]
    Calibrate(CalibrateArgs),
    /// Ask random statements of PostgreSQL and of the gateway while rows move, and compare the answers to the byte
    #[command(after_help = "Examples:\n  watershed difftest --queries 2000\n  watershed difftest --seed 7 --first 1234 --queries 1\n\n\
Exit code 1 means that an answer differed, or that the lake answered too few.")]
    Difftest(DifftestArgs),
    /// Measure this product beside what you would use instead, on this machine
    #[command(subcommand)]
    Bench(BenchCommand),
}

/// Which running `watershed up` a command talks to.
#[derive(Args, Clone, Debug)]
pub struct Running {
    /// Data directory of the running `watershed up` [default: the one that PG* in the environment leads to,
    /// else ./watershed-data]
    #[arg(long, env = "WATERSHED_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

#[derive(Args, Clone, Debug, Default)]
pub struct UpArgs {
    /// Where everything is kept [default: ./watershed-data]
    #[arg(long, env = "WATERSHED_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address of the gateway, for PostgreSQL clients [default: 127.0.0.1:6432]
    #[arg(long, env = "WATERSHED_LISTEN", value_name = "HOST:PORT")]
    pub listen: Option<SocketAddr>,
    /// The gateway's TLS certificate, PEM, with those that lead to its authority behind it
    #[arg(long, env = "WATERSHED_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Key of the certificate, PEM, readable by nobody else
    #[arg(long, env = "WATERSHED_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Address of the HTTP door: POST /v1/ingest/TABLE [default: 127.0.0.1:8432]
    #[arg(long, env = "WATERSHED_HTTP", value_name = "HOST:PORT")]
    pub http: Option<SocketAddr>,
    /// Address of the Arrow Flight SQL door, or "off" [default: 127.0.0.1:8815]
    #[arg(long, env = "WATERSHED_FLIGHT", value_name = "HOST:PORT")]
    pub flight: Option<Door>,
    /// Collector that traces are sent to, by OTLP over HTTP, e.g. http://127.0.0.1:4318 [default: none]
    #[arg(long, env = "WATERSHED_TRACES", value_name = "URL")]
    pub traces: Option<url::Url>,
    /// Where the lake is: file://, hdfs://, viewfs:// or s3:// [default: below the data directory]
    #[arg(long, env = "WATERSHED_LAKE", value_name = "URL")]
    pub lake: Option<url::Url>,
    /// Directory of core-site.xml and hdfs-site.xml, for a lake on HDFS
    #[arg(long, env = "HADOOP_CONF_DIR", value_name = "DIR")]
    pub hadoop_conf_dir: Option<PathBuf>,
    /// Settings file [default: ./watershed.toml, if there is one]
    #[arg(long, env = "WATERSHED_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Memory for queries over the lake [default: a quarter of the machine's]
    #[arg(long, env = "WATERSHED_MEMORY_LIMIT", value_name = "SIZE")]
    pub memory_limit: Option<Bytes>,
    /// Rows reach the lake at the latest after this time [default: 5m]
    #[arg(long, env = "WATERSHED_ARCHIVE_INTERVAL", value_name = "TIME")]
    pub archive_interval: Option<Period>,
    /// ... or as soon as this many rows of a table wait [default: 1000000]
    #[arg(long, env = "WATERSHED_ARCHIVE_MIN_ROWS", value_name = "ROWS")]
    pub archive_min_rows: Option<u64>,
    /// How often the lake is looked over for files to merge [default: 5m]
    #[arg(long, env = "WATERSHED_COMPACT_INTERVAL", value_name = "TIME")]
    pub compact_interval: Option<Period>,
    /// Whether the store that is expected to be faster answers, where both may; else whatever aggregates goes to the lake [default: true]
    #[arg(long, env = "WATERSHED_ROUTE_BY_COST", value_name = "BOOL")]
    pub route_by_cost: Option<bool>,
    /// Directory of PostgreSQL's programs [default: the newest on PATH or below /usr/lib/postgresql]
    #[arg(long, env = "WATERSHED_PG_BIN", value_name = "DIR")]
    pub pg_bin: Option<PathBuf>,
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// How long open sessions may go on after the first signal to stop [default: 30s]
    #[arg(long, env = "WATERSHED_DRAIN_TIMEOUT", value_name = "TIME")]
    pub drain_timeout: Option<Period>,
}

#[derive(Args, Clone, Debug, Default)]
pub struct IngestArgs {
    /// Data directory whose secrets say where the stores are [default: the one that PG* in the environment leads to,
    /// else ./watershed-data]
    #[arg(long, env = "WATERSHED_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// PostgreSQL as watershed_ingest, in place of a data directory
    #[arg(long, env = "WATERSHED_INGEST_URL", value_name = "URL", hide_env_values = true)]
    pub postgres_url: Option<String>,
    /// PostgreSQL as watershed_archiver; without it and --postgres-url given, nothing is archived here
    #[arg(long, env = "WATERSHED_ARCHIVER_URL", value_name = "URL", hide_env_values = true)]
    pub archiver_url: Option<String>,
    /// URL of the lake, for stores that --postgres-url names: file://, hdfs://, viewfs:// or s3://
    #[arg(long, env = "WATERSHED_LAKE", value_name = "URL")]
    pub lake: Option<url::Url>,
    /// Directory of core-site.xml and hdfs-site.xml, for a lake on HDFS
    #[arg(long, env = "HADOOP_CONF_DIR", value_name = "DIR")]
    pub hadoop_conf_dir: Option<PathBuf>,
    /// Settings file [default: ./watershed.toml, if there is one]
    #[arg(long, env = "WATERSHED_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// Address of the HTTP door of this process [default: 127.0.0.1:8433]
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "no_http")]
    pub http: Option<SocketAddr>,
    /// Rows reach the lake at the latest after this time [default: 5m]
    #[arg(long, env = "WATERSHED_ARCHIVE_INTERVAL", value_name = "TIME")]
    pub archive_interval: Option<Period>,
    /// ... or as soon as this many rows of a table wait [default: 1000000]
    #[arg(long, env = "WATERSHED_ARCHIVE_MIN_ROWS", value_name = "ROWS")]
    pub archive_min_rows: Option<u64>,
    /// Read no topics
    #[arg(long)]
    pub no_kafka: bool,
    /// Open no HTTP door
    #[arg(long)]
    pub no_http: bool,
    /// Ship nothing to the lake
    #[arg(long)]
    pub no_archiver: bool,
    /// How long stopping may take [default: 30s]
    #[arg(long, env = "WATERSHED_DRAIN_TIMEOUT", value_name = "TIME")]
    pub drain_timeout: Option<Period>,
}

/// Which brokers, and how they are spoken to.
#[derive(Args, Clone, Debug, Default)]
pub struct KafkaArgs {
    /// Kafka's brokers; without them nothing is read from Kafka
    #[arg(long, env = "WATERSHED_KAFKA_BROKERS", value_name = "HOST:PORT,...")]
    pub kafka_brokers: Option<String>,
    /// A property of librdkafka, such as security.protocol=ssl; may be repeated
    #[arg(long = "kafka-property", value_name = "NAME=VALUE", value_parser = kafka_property)]
    pub kafka_properties: Vec<(String, String)>,
}

fn kafka_property(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as name=value")?;
    Ok((name.trim().to_owned(), value.to_owned()))
}

#[derive(Args, Debug)]
pub struct LoadArgs {
    #[command(flatten)]
    pub running: Running,
    /// Tiered table, e.g. logs or public.logs
    pub table: String,
    /// Files, also .gz and .zst; - is standard input
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// What the files hold [default: detected]
    #[arg(long, value_enum)]
    pub format: Option<LoadFormat>,
    /// Year of syslog lines, which carry none [default: from the file's modification time]
    #[arg(long, value_parser = clap::value_parser!(i32).range(1970..=9999))]
    pub year: Option<i32>,
    /// Settings file with the mapping of the table [default: ./watershed.toml, if there is one]
    #[arg(long, env = "WATERSHED_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LoadFormat {
    /// Apache or nginx access log, combined format
    Combined,
    /// One JSON object a line
    Ndjson,
    /// One JSON array of objects
    Json,
    /// CSV with a header line
    Csv,
    /// Syslog lines as in auth.log
    Syslog,
}

#[derive(Args, Debug)]
pub struct TableArgs {
    #[command(flatten)]
    pub running: Running,
    /// One tiered table [default: all]
    pub table: Option<String>,
}

#[derive(Args, Debug)]
pub struct CompactArgs {
    #[command(flatten)]
    pub target: TableArgs,
    /// Only print what would be done, and why
    #[arg(long)]
    pub plan: bool,
    /// Also rewrite large files for the few late rows that overlap them, whatever it costs
    #[arg(long)]
    pub full: bool,
    /// Memory for merging and writing [default: compactor.memory_limit of the settings file, else 1GiB]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<crate::units::Bytes>,
    /// Threads [default: compactor.threads of the settings file, else one for each processor]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Settings file [default: ./watershed.toml, if there is one]
    #[arg(long, env = "WATERSHED_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct RetainArgs {
    #[command(flatten)]
    pub target: TableArgs,
    /// Say what would be done, and why, and change nothing
    #[arg(long, visible_alias = "dry-run")]
    pub plan: bool,
    /// How long a new floor is announced before it comes into force [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub notice: Option<Period>,
    /// Settings file [default: ./watershed.toml, if there is one]
    #[arg(long, env = "WATERSHED_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct RebaseArgs {
    #[command(flatten)]
    pub target: TableArgs,
    /// Only compare, and say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Args, Debug)]
pub struct ArchiveArgs {
    #[command(flatten)]
    pub target: TableArgs,
    /// Ship now, however few rows wait (the running archiver ships on its own schedule)
    #[arg(long, required = true)]
    pub now: bool,
}

#[derive(Args, Debug)]
pub struct GenerateArgs {
    /// Standard table to make records for; both: three log lines to an event, to Kafka or HTTP only
    #[arg(long, default_value = "logs", value_parser = ["logs", "events", "both"])]
    pub table: String,
    /// Number of records
    #[arg(long, default_value_t = 1_000_000)]
    pub rows: u64,
    /// The same seed, end, number of records and rates give the same bytes
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Days of event time that the records spread over
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,
    /// Event time of the newest record, RFC 3339 [default: now]
    #[arg(long, value_name = "TIME")]
    pub end: Option<chrono::DateTime<chrono::Utc>>,
    /// Share of records that come late, by an hour to two days
    #[arg(long, value_name = "SHARE", default_value = "0.01", value_parser = share)]
    pub late: u32,
    /// Share of records that repeat an earlier one
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = share)]
    pub duplicates: u32,
    /// Share of records that no table can take: broken JSON, no time, wrong types, NULs, huge lines, no UTF-8
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = share)]
    pub bad: u32,
    /// Records a second at most
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: Option<u64>,
    /// File to write [default: standard output]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kafka", "http"])]
    pub out: Option<PathBuf>,
    /// Kafka's brokers: send to logs.raw (key: service) and events.raw (key: user)
    #[arg(long, value_name = "HOST:PORT,...", conflicts_with = "http")]
    pub kafka: Option<String>,
    /// Topic to send to, in place of the table's own
    #[arg(long, requires = "kafka")]
    pub topic: Option<String>,
    /// A property of librdkafka, such as security.protocol=ssl
    #[arg(long = "property", value_name = "NAME=VALUE", requires = "kafka", value_parser = property)]
    pub properties: Vec<(String, String)>,
    /// URL of a watershed's HTTP door, such as http://127.0.0.1:8432
    #[arg(long, value_name = "URL")]
    pub http: Option<String>,
    /// Token that the HTTP door asks for
    #[arg(long, env = "WATERSHED_HTTP_TOKEN", hide_env_values = true, requires = "http")]
    pub token: Option<String>,
    /// Records of one HTTP request
    #[arg(long, value_name = "ROWS", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub batch: u32,
}

/// A share from 0 to 1, in a million.
fn share(text: &str) -> Result<u32, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok((share * 1e6).round() as u32),
        _ => Err("give a share from 0 to 1, such as 0.01".into()),
    }
}

fn property(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as name=value")?;
    Ok((name.trim().to_owned(), value.to_owned()))
}

#[derive(Args, Debug)]
pub struct DemoArgs {
    #[command(flatten)]
    pub up: UpArgs,
    /// Rows to generate
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub rows: u64,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Runs of each query on each path; the table shows the median
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// Stop after the table instead of serving on
    #[arg(long)]
    pub exit: bool,
}

#[derive(Args, Debug)]
pub struct QueriesArgs {
    #[command(flatten)]
    pub running: Running,
    /// Times by kind of statement and route instead of single statements
    #[arg(long)]
    pub stats: bool,
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
}

#[derive(Args, Debug)]
pub struct DeadLettersArgs {
    /// Data directory of the running `watershed up` [default: the one that PG* in the environment leads to,
    /// else ./watershed-data]
    #[arg(long, env = "WATERSHED_DATA_DIR", value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,
    #[command(subcommand)]
    pub action: LettersAction,
}

#[derive(Debug, Subcommand)]
pub enum LettersAction {
    /// Show the newest letters, a line each
    List(LettersListArgs),
    /// Show one letter: its reason, where it came from, and the record with the offending place
    Show(LettersShowArgs),
    /// Decode letters again with the mapping of today, and add them as new rows
    Replay(LettersReplayArgs),
    /// Delete letters for good
    Drop(LettersDropArgs),
}

/// Which letters.
#[derive(Args, Clone, Debug, Default)]
pub struct LetterFilter {
    /// Meant for this table
    #[arg(long, value_name = "TABLE")]
    pub table: Option<String>,
    /// From this topic
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
    /// Refused since then: a time like 2026-01-31T12:00:00Z, or a period like 2h
    #[arg(long, value_name = "TIME")]
    pub since: Option<Since>,
    /// Refused at this stage
    #[arg(long, value_parser = ["frame", "size", "decode", "map", "postgres"])]
    pub stage: Option<String>,
}

impl LetterFilter {
    pub fn is_empty(&self) -> bool {
        self.table.is_none() && self.topic.is_none() && self.since.is_none() && self.stage.is_none()
    }
}

/// A time, or a period before now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since(chrono::DateTime<chrono::Utc>);

impl std::str::FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(period) = text.parse::<Period>() {
            let start = chrono::Utc::now().checked_sub_signed(
                chrono::TimeDelta::from_std(period.0).map_err(|_| format!("`{text}` is too long"))?,
            );
            return start.map(Since).ok_or_else(|| format!("`{text}` is too long"));
        }
        let us = ingest::decode::time::parse_iso8601(text).map_err(|_| {
            format!("`{text}` is neither a time like 2026-01-31T12:00:00Z nor a period like 2h")
        })?;
        chrono::DateTime::from_timestamp_micros(us)
            .map(Since)
            .ok_or_else(|| format!("`{text}` is out of range"))
    }
}

impl std::fmt::Display for Since {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.format("%Y-%m-%d %H:%M:%S%.6f+00"))
    }
}

#[derive(Args, Debug)]
pub struct LettersListArgs {
    #[command(flatten)]
    pub filter: LetterFilter,
    /// Also those that were replayed
    #[arg(long)]
    pub all: bool,
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub limit: u32,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct LettersShowArgs {
    /// Number of the letter
    pub id: i64,
    /// Only the record's own bytes
    #[arg(long)]
    pub raw: bool,
    /// Settings file with the mappings of today [default: ./watershed.toml, if there is one]
    #[arg(long, env = "WATERSHED_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct LettersReplayArgs {
    /// Numbers of letters
    #[arg(value_name = "ID")]
    pub ids: Vec<i64>,
    #[command(flatten)]
    pub filter: LetterFilter,
    /// All letters that the other choices do not exclude
    #[arg(long)]
    pub all: bool,
    /// Do everything, then roll it back: tells which letters would become rows
    #[arg(long)]
    pub dry_run: bool,
    /// Settings file with the mappings of today [default: ./watershed.toml, if there is one]
    #[arg(long, env = "WATERSHED_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct LettersDropArgs {
    /// Numbers of letters
    #[arg(value_name = "ID")]
    pub ids: Vec<i64>,
    #[command(flatten)]
    pub filter: LetterFilter,
    /// All letters that the other choices do not exclude
    #[arg(long)]
    pub all: bool,
    /// Only those that were replayed
    #[arg(long)]
    pub replayed: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Kafka to both stores, beside psql \copy and a Python consumer; then a sustained rate with delays and memory
    #[command(
        after_help = "Examples:\n  watershed bench ingest --brokers 127.0.0.1:9092\n  \
watershed bench ingest --brokers 127.0.0.1:9092 --rows 500000 --duration 30s --json ingest.json\n\n\
Exit code 1 means that the rate was not sustained, the lake fell behind or memory grew."
    )]
    Ingest(BenchIngestArgs),
    /// Reference queries over many small files and after compaction, beside DuckDB, PySpark and PostgreSQL
    #[command(
        after_help = "Examples:\n  watershed bench lake --python venv/bin/python\n  \
watershed bench lake --rows 1000000 --files 250 --hdfs hdfs://127.0.0.1:9000/ --json lake.json\n\n\
DuckDB and PySpark are measured if that Python can import them. Exit code 1 means that a goal was not reached."
    )]
    Lake(BenchLakeArgs),
    /// Rows of the lake into a Python program: over Arrow Flight SQL, psycopg, COPY BINARY, and DuckDB on the Parquet files themselves
    #[command(
        after_help = "Examples:\n  watershed bench flight --python venv/bin/python\n  watershed bench flight --rows 1000000 --rounds 5 --json flight.json\n\n\
That Python must have adbc-driver-flightsql, pyarrow, pandas, psycopg and duckdb (deploy/local/drivers/drivers.sh flight is one).\n\
Exit code 1 means that a goal was not reached."
    )]
    Flight(BenchFlightArgs),
    /// What the gateway costs a statement that it hands on: pgbench and COPY directly, through PgBouncer, through the gateway
    #[command(
        after_help = "Examples:\n  watershed bench relay --strace\n  \
watershed bench relay --table plain --modes prepared --clients 16 --rounds 3 --json relay.json\n\n\
All three in turns, in one run, over the same PostgreSQL. Needs pgbench, psql and PgBouncer; works as root and as any other\n\
user. Goals that are missed are named; the exit code is 0 all the same."
    )]
    Relay(BenchRelayArgs),
    /// CPU time that a running `watershed up` takes while nobody asks it anything
    #[command(after_help = "Examples:\n  watershed bench idle\n  watershed bench idle --data-dir /var/lib/watershed --duration 5m")]
    Idle(BenchIdleArgs),
    /// A mixed workload always on PostgreSQL, always on the lake where it may answer, and as the gateway chooses: what choosing costs
    #[command(after_help = "Examples:\n  watershed bench route\n  watershed bench route --rows 200000 --rounds 3 --json route.json\n\n\
Regret is what a statement took more than on the better of the two ways.")]
    Route(BenchRouteArgs),
    /// What sessions cost the gateway: many that rest, and some at work, for a while
    #[command(after_help = "Examples:\n  watershed bench sessions\n  watershed bench sessions --idle 100 --active 20 --duration 10s\n\n\
Exit code 1 means that a statement of a session failed, or that something was left of sessions that had ended.")]
    Sessions(BenchSessionsArgs),
}

#[derive(Args, Debug)]
pub struct CalibrateArgs {
    #[command(flatten)]
    pub running: Running,
    /// Rows of the table that is measured
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(10_000..=100_000_000))]
    pub rows: u64,
    /// Each statement is asked so often; the median counts
    #[arg(long, default_value_t = 7, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Only print what was measured
    #[arg(long)]
    pub dry_run: bool,
}

/// What `bench route` asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Workload {
    Mixed,
    Bi,
}

#[derive(Args, Debug)]
pub struct BenchRouteArgs {
    /// Rows of the table
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(10_000..=100_000_000))]
    pub rows: u64,
    /// Runs of each statement on each way; the median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// What is asked: a mix of small and large, or a hundred statements of business intelligence tools
    #[arg(long, value_enum, default_value_t = Workload::Mixed)]
    pub workload: Workload,
    /// Use the constants that are built in, and do not measure this machine's first
    #[arg(long)]
    pub uncalibrated: bool,
    /// Python that has duckdb: time the statements there as well, over the files of the lake
    #[arg(long, value_name = "PROGRAM")]
    pub duckdb: Option<PathBuf>,
    /// Folder for PostgreSQL and the lake; must not exist [default: ./watershed-bench-PID]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Leave the folder there
    #[arg(long)]
    pub keep: bool,
    /// Write every figure there
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct DifftestArgs {
    /// What is asked depends on this and on the statement's number only
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Statements
    #[arg(long, default_value_t = 2_000, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub queries: u64,
    /// Number of the first one
    #[arg(long, default_value_t = 0, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(..=1_000_000_000))]
    pub first: u64,
    /// Pairs of sessions that ask at a time
    #[arg(long, default_value_t = 2, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=16))]
    pub jobs: u32,
    /// Rows of the larger table; the other one has half as many
    #[arg(long, default_value_t = 900, value_parser = clap::value_parser!(u32).range(12..=1_000_000))]
    pub rows: u32,
    /// Ask the gateway over Arrow Flight SQL; values and errors must be PostgreSQL's
    #[arg(long)]
    pub flight: bool,
    /// Fail if fewer of a hundred statements are answered by the lake
    #[arg(long, default_value_t = 0, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(..=100))]
    pub least_lake: u32,
    /// The language that texts are sorted by, as ICU names it, such as en-US [default: none, by code points]
    #[arg(long, value_name = "LOCALE")]
    pub icu_locale: Option<String>,
    /// Folder for PostgreSQL and the lake; must not exist [default: ./watershed-bench-PID]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Leave the folder there
    #[arg(long)]
    pub keep: bool,
    /// Write every figure and difference there
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct BenchFlightArgs {
    /// Rows of the table, all of them fetched
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(10_000..=100_000_000))]
    pub rows: u64,
    /// Runs of each way, five times as many of those into Arrow; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Python that has the clients
    #[arg(long, default_value = "python3", value_name = "PROGRAM")]
    pub python: PathBuf,
    /// Folder for PostgreSQL and the lake; must not exist [default: ./watershed-bench-PID]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Leave the folder there
    #[arg(long)]
    pub keep: bool,
    /// Write every figure there
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct BenchSessionsArgs {
    /// Sessions that rest
    #[arg(long, default_value_t = 500, value_name = "COUNT")]
    pub idle: usize,
    /// Sessions at work besides
    #[arg(long, default_value_t = 100, value_name = "COUNT")]
    pub active: usize,
    /// How long these are at work
    #[arg(long, default_value = "1m", value_name = "TIME")]
    pub duration: Period,
    /// Rows of the table
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1_000..=80_000_000))]
    pub rows: u64,
    /// Folder for PostgreSQL and the lake; must not exist [default: ./watershed-bench-PID]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Leave the folder there
    #[arg(long)]
    pub keep: bool,
    /// Write every figure there
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct BenchIdleArgs {
    #[command(flatten)]
    pub running: Running,
    /// How long to look
    #[arg(long, value_name = "TIME", default_value = "1m")]
    pub duration: Period,
}

#[derive(Args, Debug)]
pub struct BenchLakeArgs {
    /// Rows of the table
    #[arg(long, default_value_t = 20_000_000, value_parser = clap::value_parser!(u64).range(10_000..))]
    pub rows: u64,
    /// Small files before compaction
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub files: u64,
    /// Folder for PostgreSQL and the lake; must not exist [default: ./watershed-bench-PID]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Leave the folder there
    #[arg(long)]
    pub keep: bool,
    /// Warm runs of each query; the median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// HDFS folder to measure in as well; what is copied there stays
    #[arg(long, value_name = "URL")]
    pub hdfs: Option<url::Url>,
    /// Memory for queries over the lake [default: a quarter of the machine's]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Bytes>,
    /// Python that may have duckdb and pyspark
    #[arg(long, default_value = "python3", value_name = "PROGRAM")]
    pub python: PathBuf,
    /// Write every figure there
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct BenchIngestArgs {
    /// Kafka brokers, HOST:PORT,...; the topics that are made there are deleted at the end
    #[arg(long, env = "WATERSHED_KAFKA_BROKERS", value_name = "HOST:PORT")]
    pub brokers: String,
    /// Folder for PostgreSQL and the lake; must not exist [default: ./watershed-bench-PID]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Leave the folder there
    #[arg(long)]
    pub keep: bool,
    /// Rows of each comparison
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(10_000..))]
    pub rows: u64,
    /// Runs of \copy; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    pub rounds: u32,
    /// Rows a second of the sustained run
    #[arg(long, default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(100..))]
    pub rate: u64,
    /// How long it is sustained
    #[arg(long, default_value = "10m", value_name = "TIME")]
    pub duration: Period,
    /// Partitions of the topics
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..=1000))]
    pub partitions: i32,
    /// Python that has kafka-python and psycopg
    #[arg(long, default_value = "python3", value_name = "PROGRAM")]
    pub python: PathBuf,
    /// Write every figure and every second's sample there
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct BenchRelayArgs {
    /// Rows that are looked up, one at a time, by the time that is their key
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=8_000_000))]
    pub rows: u64,
    /// Rows of each COPY; 0 leaves it out
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(0..=8_000_000))]
    pub copy_rows: u64,
    /// Which table: the tiered one makes each statement one that the lake could answer
    #[arg(long, value_enum, default_value_t = RelayTable::Tiered)]
    pub table: RelayTable,
    /// pgbench's query modes
    #[arg(long, value_enum, value_delimiter = ',', default_value = "simple,extended,prepared", value_name = "MODE,...")]
    pub modes: Vec<QueryMode>,
    /// Numbers of clients
    #[arg(long, value_delimiter = ',', default_value = "1,16,64", value_name = "N,...",
        value_parser = clap::value_parser!(u32).range(1..=400))]
    pub clients: Vec<u32>,
    /// pgbench's threads [default: the processors, but no more than clients]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=400))]
    pub jobs: Option<u32>,
    /// Runs of each cell; the median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Seconds of each run
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: u32,
    /// The program [default: pgbouncer on PATH or in /usr/sbin]
    #[arg(long, value_name = "PROGRAM")]
    pub pgbouncer: Option<PathBuf>,
    /// Count system calls as well, in runs of their own
    #[arg(long)]
    pub strace: bool,
    /// Folder for PostgreSQL and the lake; must not exist [default: ./watershed-bench-PID]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Leave the folder there
    #[arg(long)]
    pub keep: bool,
    /// Print the tables as Markdown
    #[arg(long)]
    pub markdown: bool,
    /// Write every figure there
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RelayTable {
    /// One that has rows in the lake
    Tiered,
    /// An ordinary table of the same rows
    Plain,
}

/// How pgbench sends statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum QueryMode {
    Simple,
    Extended,
    Prepared,
}
