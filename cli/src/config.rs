//! The settings of `watershed up`: one typed tree, from flags and environment (which clap merges), then
//! `watershed.toml`, then the defaults here. Reads one file; starts nothing.
//! `deploy/watershed.toml` documents every setting and is held to these defaults by a test.

mod lake;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::marker::PhantomData;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, fs};

use anyhow::Result;
use ingest::forward::{Alerts, DeadLetters, Forward};
use ingest::letters::replay::Routes;
use ingest::topics::{TableRoute, TopicRoute};
use ingest::vitals::Limits;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

pub use self::lake::{Lake, check as check_lake};
use crate::args::UpArgs;
use crate::exit::Failure;
use crate::units::{Bytes, Door, Period};

/// What `watershed up` runs with.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub data_dir: PathBuf,
    pub lake: Lake,
    pub gateway: Gateway,
    pub http: Http,
    pub pressure: Pressure,
    pub archiver: Archiver,
    pub compactor: Compactor,
    pub retention: Retention,
    pub postgres: Postgres,
    pub kafka: Kafka,
    pub telemetry: Telemetry,
    pub drain_timeout: Duration,
    /// Envelopes and mappings of what comes by HTTP or from files.
    pub tables: Vec<TableRoute>,
}

/// The brokers, what is read from them, and what goes to them.
#[derive(Clone, PartialEq)]
pub struct Kafka {
    /// None: no Kafka.
    pub brokers: Option<String>,
    /// librdkafka's own settings, secrets among them.
    pub properties: BTreeMap<String, String>,
    pub group: String,
    pub topics: Vec<TopicRoute>,
    /// Connections that write, a topic.
    pub writers: usize,
    /// A batch is closed at this many records, or when its first has waited this long.
    pub batch_rows: usize,
    pub batch_delay: Duration,
    /// What is sent to the brokers.
    pub forwards: Vec<Forward>,
}

impl fmt::Debug for Kafka {
    // The values of properties may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kafka")
            .field("brokers", &self.brokers)
            .field("properties", &self.properties.keys())
            .field("group", &self.group)
            .field("topics", &self.topics)
            .field("forwards", &self.forwards)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Gateway {
    pub listen: SocketAddr,
    /// Where Arrow Flight SQL is spoken; None: nowhere.
    pub flight: Option<SocketAddr>,
    /// How long a Flight session lives without a call, and in any case.
    pub flight_idle: Duration,
    pub flight_lifetime: Duration,
    /// Bytes that queries over the lake may hold together before they spill.
    pub memory_limit: u64,
    pub max_sessions: usize,
    /// Of two stores that may answer, the one answers that is expected to be faster; else the kind of statement decides.
    pub route_by_cost: bool,
    /// A statement that reads an old version for longer keeps that version's files from vacuum.
    pub lease_after: Duration,
    /// None: TLS is refused.
    pub tls: Option<Tls>,
    /// Clients of other machines may speak in the clear.
    pub allow_plaintext: bool,
    /// Users whom PostgreSQL lets in without asking for proof, and the gateway too.
    pub trusted_users: Vec<String>,
    /// How long a client may take for its startup packet, and to log in.
    pub startup_timeout: Duration,
    pub login_timeout: Duration,
    /// New connections a second from one address. None: any number.
    pub connection_rate: Option<u32>,
    /// How long a session waits awake for its next bytes. Zero: it sleeps at once.
    pub busy_wait: Duration,
}

/// Where the files of TLS stand.
pub type Tls = gateway::tls::Settings;

#[derive(Clone, Debug, PartialEq)]
pub struct Http {
    pub listen: SocketAddr,
    /// Bytes of one request body as sent; unpacked it may be four times as large.
    pub max_body: u64,
    /// Digests of bearer tokens,
    pub tokens: Vec<String>,
    /// and a private file of tokens.
    pub token_file: Option<PathBuf>,
    /// Others than this machine may post without a token.
    pub allow_open: bool,
    pub open_metrics: bool,
    /// The status page is at `/`.
    pub page: bool,
    pub key_retention: Duration,
    /// Patterns of `_bulk`'s index names, and their tables.
    pub indices: BTreeMap<String, String>,
}

/// Where traces go, and from where on /healthz says that something is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Telemetry {
    /// None: nowhere.
    pub traces: Option<url::Url>,
    pub service_name: String,
    /// The part of the statements that are traced.
    pub sample: f64,
    pub vitals: Duration,
    pub limits: Limits,
}

/// When taking in stops because a disk is nearly full.
#[derive(Clone, Debug, PartialEq)]
pub struct Pressure {
    pub interval: Duration,
    pub min_free: u64,
    pub min_free_percent: f64,
    /// Watched beside the data directory.
    pub directories: Vec<PathBuf>,
    /// None: the database may fill its disk.
    pub max_database_size: Option<u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Archiver {
    /// Rows are shipped at the latest this long after those before,
    pub interval: Duration,
    /// or as soon as this many wait.
    pub min_rows: u64,
    pub max_rows_per_file: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Compactor {
    /// False: only runs of `watershed compact` do it.
    pub enabled: bool,
    pub interval: Duration,
    pub target_file_size: u64,
    /// Files that a commit removed stay for this long.
    pub grace: Duration,
    /// What merging may use. None: less beside other services than in a run of its own.
    pub memory_limit: Option<u64>,
    pub threads: Option<usize>,
}

/// How old days leave. Which, each table says itself: `watershed.set_retention`.
#[derive(Clone, Debug, PartialEq)]
pub struct Retention {
    pub interval: Duration,
    /// A floor is announced this long before it comes into force.
    pub notice: Duration,
    /// Days leave PostgreSQL early when its disk fills up,
    pub early: bool,
    /// but not those of this many days before today.
    pub keep_days: i32,
    /// PostgreSQL itself answers over rows that left it what the lake cannot, through a door of the gateway.
    pub cold: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Postgres {
    pub bin: Option<PathBuf>,
    /// None: an eighth of the machine's memory.
    pub shared_buffers: Option<u64>,
    /// Of a cluster that is made. None: texts are sorted by code points.
    pub icu_locale: Option<String>,
}

/// `watershed.toml`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    data_dir: Option<PathBuf>,
    drain_timeout: Option<Period>,
    lake: lake::LakeFile,
    gateway: GatewayFile,
    http: HttpFile,
    ingest: IngestFile,
    archiver: ArchiverFile,
    compactor: CompactorFile,
    retention: RetentionFile,
    postgres: PostgresFile,
    tables: Vec<TableRoute>,
    kafka: KafkaFile,
    telemetry: TelemetryFile,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct GatewayFile {
    listen: Option<SocketAddr>,
    flight: Option<Door>,
    flight_idle: Option<Period>,
    flight_lifetime: Option<Period>,
    memory_limit: Option<Bytes>,
    max_sessions: Option<usize>,
    route_by_cost: Option<bool>,
    lease_after: Option<Period>,
    allow_plaintext: bool,
    trusted_users: Vec<String>,
    startup_timeout: Option<Period>,
    login_timeout: Option<Period>,
    connection_rate: Option<u32>,
    busy_wait_us: Option<u32>,
    tls: TlsFile,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct TlsFile {
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    client_ca: Option<PathBuf>,
    client_certificate: ClientCertificate,
}

/// What is asked of clients once there are authorities of client certificates.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum ClientCertificate {
    #[default]
    Required,
    Optional,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct TelemetryFile {
    traces: Option<url::Url>,
    service_name: Option<String>,
    sample: Option<f64>,
    vitals: Option<Period>,
    long_writer: Option<Period>,
    boundary_age: Option<Period>,
    lag: Option<Period>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct HttpFile {
    listen: Option<SocketAddr>,
    max_body: Option<Bytes>,
    tokens: Vec<String>,
    token_file: Option<PathBuf>,
    allow_open: bool,
    open_metrics: bool,
    page: Option<bool>,
    key_retention: Option<Period>,
    indices: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct IngestFile {
    pressure: PressureFile,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct PressureFile {
    interval: Option<Period>,
    min_free: Option<Bytes>,
    min_free_percent: Option<f64>,
    directories: Vec<PathBuf>,
    max_database_size: Option<Bytes>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct ArchiverFile {
    interval: Option<Period>,
    min_rows: Option<u64>,
    max_rows_per_file: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct CompactorFile {
    enabled: Option<bool>,
    interval: Option<Period>,
    target_file_size: Option<Bytes>,
    grace: Option<Period>,
    memory_limit: Option<Bytes>,
    threads: Option<usize>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct RetentionFile {
    interval: Option<Period>,
    notice: Option<Period>,
    early: Option<bool>,
    keep_days: Option<i32>,
    cold: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct PostgresFile {
    bin: Option<PathBuf>,
    shared_buffers: Option<Bytes>,
    icu_locale: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct KafkaFile {
    brokers: Option<String>,
    properties: BTreeMap<String, String>,
    group: Option<String>,
    topics: Option<Vec<TopicRoute>>,
    writers: Option<usize>,
    batch_rows: Option<usize>,
    batch_delay: Option<Period>,
    alerts: OneOrMore<Alerts>,
    dead_letters: Option<DeadLetters>,
}

/// A table of settings, or an array of them.
#[derive(Clone, Debug, PartialEq)]
struct OneOrMore<T>(Vec<T>);

impl<T> Default for OneOrMore<T> {
    fn default() -> Self {
        OneOrMore(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMore<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = Vec<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of settings, or several")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|one| vec![one])
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Vec<T>, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq))
            }
        }
        from.deserialize_any(Either(PhantomData)).map(OneOrMore)
    }
}

pub const DEFAULT_DATA_DIR: &str = "watershed-data";
const DEFAULT_FILE: &str = "watershed.toml";

impl Config {
    /// Flags and environment over the file over the defaults.
    pub fn resolve(args: &UpArgs) -> Result<Config> {
        Config::merge(args, read_file(args.config.as_deref())?, machine_memory())
    }

    fn merge(args: &UpArgs, file: File, memory: u64) -> Result<Config> {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let period = |arg: Option<Period>, file: Option<Period>, default_secs: u64| {
            arg.or(file).map_or(Duration::from_secs(default_secs), |p| p.0)
        };
        let config = Config {
            data_dir: args.data_dir.clone().or(file.data_dir).unwrap_or_else(|| DEFAULT_DATA_DIR.into()),
            lake: file.lake.settled(args.lake.clone(), args.hadoop_conf_dir.clone()),
            gateway: file.gateway.settled(args, memory)?,
            http: Http {
                listen: args.http.or(file.http.listen).unwrap_or_else(|| local(8432)),
                max_body: file.http.max_body.map_or(32 << 20, |size| size.0),
                tokens: file.http.tokens,
                token_file: file.http.token_file,
                allow_open: file.http.allow_open,
                open_metrics: file.http.open_metrics,
                page: file.http.page.unwrap_or(true),
                key_retention: period(None, file.http.key_retention, 30 * 86_400),
                indices: file.http.indices,
            },
            pressure: file.ingest.pressure.settled(),
            archiver: Archiver {
                interval: period(args.archive_interval, file.archiver.interval, 300),
                min_rows: args.archive_min_rows.or(file.archiver.min_rows).unwrap_or(1_000_000),
                max_rows_per_file: file.archiver.max_rows_per_file.unwrap_or(8_000_000),
            },
            compactor: file.compactor.settled(args.compact_interval),
            retention: file.retention.settled(),
            postgres: Postgres {
                bin: args.pg_bin.clone().or(file.postgres.bin),
                shared_buffers: file.postgres.shared_buffers.map(|size| size.0),
                icu_locale: file.postgres.icu_locale,
            },
            drain_timeout: period(args.drain_timeout, file.drain_timeout, 30),
            kafka: Kafka {
                brokers: args.kafka.kafka_brokers.clone().or(file.kafka.brokers).filter(|b| !b.trim().is_empty()),
                properties: file.kafka.properties.into_iter().chain(args.kafka.kafka_properties.iter().cloned()).collect(),
                group: file.kafka.group.unwrap_or_else(|| "watershed".to_owned()),
                topics: file.kafka.topics.unwrap_or_else(ingest::topics::defaults),
                writers: file.kafka.writers.unwrap_or(1),
                batch_rows: file.kafka.batch_rows.unwrap_or(20_000),
                batch_delay: file.kafka.batch_delay.map_or(Duration::from_millis(200), |p| p.0),
                forwards: (file.kafka.alerts.0.into_iter().map(Forward::from))
                    .chain(file.kafka.dead_letters.map(Forward::from))
                    .collect(),
            },
            telemetry: file.telemetry.settled(args.traces.clone()),
            tables: file.tables,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        if self.kafka.brokers.is_none() && !self.kafka.forwards.is_empty() {
            return Err(Failure::usage(
                "alerts and dead letters are to go to Kafka, and there are no brokers",
                "set brokers = \"host:port\" in the section [kafka] of watershed.toml",
            )
            .into());
        }
        let least = Duration::from_millis(100);
        self.gateway.check()?;
        let wrong = [
            (self.lake.store.read_timeout < least, "lake.read_timeout", "at least 100ms"),
            (self.lake.store.write_timeout < least, "lake.write_timeout", "at least 100ms"),
            (self.lake.store.metadata_timeout < least, "lake.metadata_timeout", "at least 100ms"),
            (self.http.max_body < 1024, "http.max_body", "at least 1KiB"),
            (self.http.key_retention < Duration::from_secs(1), "http.key_retention", "at least 1s"),
            (self.pressure.interval < least, "ingest.pressure.interval", "at least 100ms"),
            (
                !(0.0..=50.0).contains(&self.pressure.min_free_percent),
                "ingest.pressure.min_free_percent",
                "0 to 50",
            ),
            (self.archiver.interval < least, "archiver.interval", "at least 100ms"),
            (self.archiver.max_rows_per_file < 1000, "archiver.max_rows_per_file", "at least 1000"),
            (
                self.compactor.grace < 2 * self.gateway.lease_after,
                "compactor.grace",
                "at least twice gateway.lease_after, so that a lease is there before the files it keeps are gone",
            ),
            (self.retention.interval < least, "retention.interval", "at least 100ms"),
            // Gateways look at the floors every three seconds; one that has not heard refuses what it cannot prove whole.
            (self.retention.notice < Duration::from_secs(4), "retention.notice", "at least 4s"),
            (self.retention.notice > Duration::from_secs(3600), "retention.notice", "at most 1h"),
            (!(1..=100_000).contains(&self.retention.keep_days), "retention.keep_days", "1 to 100000"),
            (!(0.0..=1.0).contains(&self.telemetry.sample), "telemetry.sample", "0 to 1"),
            (self.telemetry.vitals < least, "telemetry.vitals", "at least 100ms"),
            (
                self.telemetry.traces.as_ref().is_some_and(|url| !matches!(url.scheme(), "http" | "https")),
                "telemetry.traces",
                "a URL that begins with http:// or https://",
            ),
            (self.kafka.group.is_empty(), "kafka.group", "a name"),
            (!(1..=16).contains(&self.kafka.writers), "kafka.writers", "1 to 16"),
            (!(1..=1_000_000).contains(&self.kafka.batch_rows), "kafka.batch_rows", "1 to 1000000"),
            (self.kafka.batch_delay > Duration::from_secs(60), "kafka.batch_delay", "at most 1m"),
            (
                self.postgres.shared_buffers.is_some_and(|size| size < 16 << 20),
                "postgres.shared_buffers",
                "at least 16MiB",
            ),
        ];
        refuse_first(&wrong)?;
        self.compactor.check()
    }
}

/// Says which setting is wrong, the first if several are: whether it is, its name, and what it may be.
fn refuse_first(settings: &[(bool, &str, &str)]) -> Result<()> {
    match settings.iter().find(|(bad, _, _)| *bad) {
        None => Ok(()),
        Some((_, name, allowed)) => Err(Failure::usage(
            format!("the setting {name} is out of range"),
            format!("give it {allowed}, by flag, environment or watershed.toml"),
        )
        .into()),
    }
}

/// Which topics and tables are read how, for commands that decode records.
pub fn routes(named: Option<&Path>) -> Result<Routes> {
    let file = read_file(named)?;
    Ok(Routes { topics: file.kafka.topics.unwrap_or_else(ingest::topics::defaults), tables: file.tables })
}

impl GatewayFile {
    fn settled(self, args: &UpArgs, memory: u64) -> Result<Gateway> {
        let period = |given: Option<Period>, secs| given.map_or(Duration::from_secs(secs), |p| p.0);
        let listen = args.listen.or(self.listen).unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 6432)));
        // Only where others than this machine can come there is somebody to hold back.
        let usual_rate = (!listen.ip().is_loopback()).then_some(100);
        Ok(Gateway {
            listen,
            flight: match args.flight.or(self.flight) {
                Some(Door::Off) => None,
                Some(Door::At(address)) => Some(address),
                None => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 8815))),
            },
            flight_idle: period(self.flight_idle, 30 * 60),
            flight_lifetime: period(self.flight_lifetime, 24 * 3600),
            memory_limit: args.memory_limit.or(self.memory_limit).map_or((memory / 4).max(256 << 20), |size| size.0),
            max_sessions: self.max_sessions.unwrap_or(100),
            route_by_cost: args.route_by_cost.or(self.route_by_cost).unwrap_or(true),
            lease_after: period(self.lease_after, 60),
            tls: self.tls.settled(args)?,
            allow_plaintext: self.allow_plaintext,
            trusted_users: self.trusted_users,
            startup_timeout: period(self.startup_timeout, 10),
            login_timeout: period(self.login_timeout, 60),
            connection_rate: self.connection_rate.or(usual_rate).filter(|rate| *rate > 0),
            busy_wait: match self.busy_wait_us.unwrap_or(150) {
                us @ 0..=1000 => Duration::from_micros(us.into()),
                us => anyhow::bail!("busy_wait_us = {us}: at most 1000; a session that waits for longer sleeps"),
            },
        })
    }
}

impl TlsFile {
    fn settled(self, args: &UpArgs) -> Result<Option<Tls>> {
        let cert = args.tls_cert.clone().or(self.cert);
        let key = args.tls_key.clone().or(self.key);
        match (cert, key) {
            (Some(cert), Some(key)) => Ok(Some(Tls {
                cert,
                key,
                client_ca: self.client_ca,
                client_certificate_optional: self.client_certificate == ClientCertificate::Optional,
            })),
            (None, None) if self.client_ca.is_none() => Ok(None),
            _ => Err(Failure::usage(
                "TLS needs a certificate and its key",
                "give both: cert and key in the section [gateway.tls] of watershed.toml, or --tls-cert and --tls-key",
            )
            .into()),
        }
    }
}

impl Gateway {
    fn check(&self) -> Result<()> {
        for (flag, address) in [("--listen", Some(self.listen)), ("--flight", self.flight)] {
            let Some(address) = address.filter(|a| !a.ip().is_loopback()) else { continue };
            if self.tls.is_none() && !self.allow_plaintext {
                return Err(Failure::usage(
                    format!("others could read along: {address} ({flag}) is reachable from outside, and there is no TLS"),
                    "name a certificate and its key (--tls-cert, --tls-key), listen on 127.0.0.1, or set gateway.allow_plaintext = true",
                )
                .into());
            }
        }
        let least = Duration::from_millis(100);
        refuse_first(&[
            (self.memory_limit < 16 << 20, "memory_limit", "at least 16MiB"),
            (!(1..=10_000).contains(&self.max_sessions), "gateway.max_sessions", "1 to 10000"),
            (self.lease_after < least, "gateway.lease_after", "at least 100ms"),
            (self.flight_idle < least, "gateway.flight_idle", "at least 100ms"),
            (self.flight_lifetime < least, "gateway.flight_lifetime", "at least 100ms"),
            (self.startup_timeout < least, "gateway.startup_timeout", "at least 100ms"),
            (self.login_timeout < least, "gateway.login_timeout", "at least 100ms"),
        ])
    }
}

impl TelemetryFile {
    fn settled(self, traces: Option<url::Url>) -> Telemetry {
        let usual = Limits::default();
        Telemetry {
            traces: traces.or(self.traces),
            service_name: self.service_name.unwrap_or_else(|| "watershed".to_owned()),
            sample: self.sample.unwrap_or(1.0),
            vitals: self.vitals.map_or(Duration::from_secs(15), |p| p.0),
            limits: Limits {
                writer: self.long_writer.map_or(usual.writer, |p| p.0),
                boundary: self.boundary_age.map_or(usual.boundary, |p| p.0),
                lag: self.lag.map_or(usual.lag, |p| p.0),
            },
        }
    }
}

impl PressureFile {
    fn settled(self) -> Pressure {
        Pressure {
            interval: self.interval.map_or(Duration::from_secs(1), |p| p.0),
            min_free: self.min_free.map_or(1 << 30, |size| size.0),
            min_free_percent: self.min_free_percent.unwrap_or(2.0),
            directories: self.directories,
            max_database_size: self.max_database_size.map(|size| size.0),
        }
    }
}

impl CompactorFile {
    fn settled(self, interval: Option<Period>) -> Compactor {
        let period = |given: Option<Period>, secs| given.map_or(Duration::from_secs(secs), |p| p.0);
        Compactor {
            enabled: self.enabled.unwrap_or(true),
            interval: period(interval.or(self.interval), 300),
            target_file_size: self.target_file_size.map_or(256 << 20, |size| size.0),
            grace: period(self.grace, 3600),
            memory_limit: self.memory_limit.map(|size| size.0),
            threads: self.threads,
        }
    }
}

impl Compactor {
    fn check(&self) -> Result<()> {
        refuse_first(&[
            (self.interval < Duration::from_millis(100), "compactor.interval", "at least 100ms"),
            (self.target_file_size < 1 << 20, "compactor.target_file_size", "at least 1MiB"),
            (self.memory_limit.is_some_and(|size| size < 64 << 20), "compactor.memory_limit", "at least 64MiB"),
            (self.threads.is_some_and(|n| !(1..=1024).contains(&n)), "compactor.threads", "1 to 1024"),
        ])
    }
}

impl RetentionFile {
    fn settled(self) -> Retention {
        Retention {
            interval: self.interval.map_or(Duration::from_secs(60), |p| p.0),
            notice: self.notice.map_or(Duration::from_secs(10), |p| p.0),
            early: self.early.unwrap_or(true),
            keep_days: self.keep_days.unwrap_or(3),
            cold: self.cold.unwrap_or(false),
        }
    }
}

/// How files are merged, for commands beside `up`.
pub fn compactor(named: Option<&Path>) -> Result<Compactor> {
    let file = read_file(named)?;
    let compactor = file.compactor.settled(None);
    compactor.check()?;
    Ok(compactor)
}

/// How old days leave, for commands beside `up`.
pub fn retention(named: Option<&Path>) -> Result<Retention> {
    Ok(read_file(named)?.retention.settled())
}

/// How the lake is reached, for commands beside `up`.
pub fn lake_store(named: Option<&Path>) -> Result<::lake::store::Settings> {
    let from = std::env::var_os("HADOOP_CONF_DIR").map(PathBuf::from);
    Ok(read_file(named)?.lake.settled(None, from).store)
}

/// When taking in stops, for commands beside `up`.
pub fn pressure(named: Option<&Path>) -> Result<Pressure> {
    Ok(read_file(named)?.ingest.pressure.settled())
}

fn read_file(named: Option<&Path>) -> Result<File> {
    let path = named.unwrap_or(Path::new(DEFAULT_FILE));
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if named.is_none() && error.kind() == ErrorKind::NotFound => return Ok(File::default()),
        Err(error) => {
            return Err(Failure::usage(
                format!("cannot read the settings file {}: {error}", path.display()),
                "name an existing file with --config, or leave the flag out",
            )
            .into());
        }
    };
    parse_file(&text).map_err(|message| {
        Failure::usage(
            format!("{} is wrong: {message}", path.display()),
            "deploy/watershed.toml shows every setting with its default",
        )
        .into()
    })
}

fn parse_file(text: &str) -> Result<File, String> {
    toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())
}

/// Bytes of memory this process may use: the machine's, or less where a control group says so.
pub fn machine_memory() -> u64 {
    let total = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
    });
    let group = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok())
        .min();
    // Four GiB where the system does not say.
    let total = total.unwrap_or(4 << 30);
    group.map_or(total, |limit| total.min(limit))
}

#[cfg(test)]
mod tests;
