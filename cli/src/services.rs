//! The one place where this program's settings become the services' own: what each is configured with, and how
//! it is run as a task. Everything a service promises about its work is said in its own crate.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use gateway::tls::Tls;
use ingest::generate;
use ingest::http::{Indices, Tokens};
use ingest::pressure::{Monitor, Pressure, Watched};
use ingest::vitals::{self, Health};
use tokio::net::TcpListener;

use crate::bootstrap::{self, Secrets};
use crate::config::{self, Config, Http};
use crate::datadir::{DataDir, new_password};
use crate::discover::Stores;
use crate::exit::Failure;
use crate::tasks::Tasks;
use crate::up::reachable;

/// The services of one data directory, configured.
pub struct Services {
    gateway: gateway::Config,
    http: ingest::http::Config,
    /// The page for people, before it is known where the gateway listens; None: there is none.
    page: Option<gateway::status::Config>,
    /// With which this process posts to its own door, if that asks for a token.
    own_token: Option<String>,
    /// Finds out whether there is room for more, until it is started.
    monitor: Mutex<Option<Monitor>>,
    pub archiver: ingest::archiver::Config,
    pub compactor: compactor::Config,
    /// What is asked of PostgreSQL, and who is told what is wrong.
    vitals: Vitals,
    /// Where traces go, if anywhere.
    traces: Option<gateway::telemetry::trace::Config>,
    /// False: merging is left to runs of `watershed compact`.
    pub compacts: bool,
    retention: ingest::retention::Config,
    /// What is sent to Kafka, if anything is.
    forwarder: Option<ingest::forward::Config>,
    /// The brokers' client, if there are brokers.
    brokers: Option<ingest::kafka::ClientConfig>,
    kafka: Option<ingest::kafka::Config>,
    pub stores: Stores,
}

impl Services {
    pub fn new(
        config: &Config,
        data: &DataDir,
        secrets: &Secrets,
        socket_dir: &Path,
        tls: Option<Arc<Tls>>,
    ) -> Result<Services> {
        let lake_root = secrets.lake.clone();
        let stores = Stores {
            ingest_url: secrets.url("watershed_ingest", bootstrap::DATABASE),
            archiver_url: secrets.url("watershed_archiver", bootstrap::DATABASE),
            lake_root: lake_root.clone(),
            spill_dir: Some(data.spill()),
            data_dir: Some(data.root().to_owned()),
        };
        let onlookers = gateway::query::log::Onlookers::default();
        let gateway = gateway::Config {
            onlookers: onlookers.clone(),
            upstream_socket_dir: Some(socket_dir.to_owned()),
            upstream_host: "127.0.0.1".into(),
            upstream_port: secrets.port.context("the cluster has no port yet")?,
            control_url: secrets.url("watershed_gateway", bootstrap::DATABASE),
            lake_root,
            probe_secret: Some(secrets.probe_secret.clone()),
            spill_dir: data.spill(),
            memory_limit_bytes: usize::try_from(config.gateway.memory_limit).unwrap_or(usize::MAX),
            max_sessions: config.gateway.max_sessions,
            route_by_cost: config.gateway.route_by_cost,
            tls,
            allow_plaintext: config.gateway.allow_plaintext,
            trusted_users: config.gateway.trusted_users.clone(),
            startup_timeout: config.gateway.startup_timeout,
            login_timeout: config.gateway.login_timeout,
            connection_rate: config.gateway.connection_rate,
            busy_wait: config.gateway.busy_wait,
            lease_after: config.gateway.lease_after,
            flight: gateway::flight::Lifetimes { idle: config.gateway.flight_idle, absolute: config.gateway.flight_lifetime },
            // Only the account of the cluster may enter this directory.
            cold_door: config.retention.cold.then(|| socket_dir.to_owned()),
            drain_timeout: config.drain_timeout,
        };
        let brokers = config.kafka.brokers.as_deref();
        let brokers = brokers.map(|brokers| ingest::kafka::client(brokers, &config.kafka.properties));
        let (pressure, monitor) = watched(&config.pressure, &stores)?;
        let vitals = Vitals::new(config, &stores, &pressure);
        let mut http = http_config(config, &stores, &pressure)?;
        http.health = vitals.health.clone();
        let own_token = (!http.tokens.is_empty()).then(new_password);
        if let Some(token) = &own_token {
            http.tokens = http.tokens.and(Tokens::parse([token.as_str()], true).map_err(anyhow::Error::msg)?);
        }
        let page = config.http.page.then(|| gateway::status::Config {
            trusted_users: config.gateway.trusted_users.clone(),
            in_the_clear: config.http.listen.ip().to_canonical().is_loopback() || config.gateway.allow_plaintext,
            ..gateway::status::Config::new(config.gateway.listen, bootstrap::DATABASE, onlookers)
        });
        Ok(Services {
            page,
            gateway,
            forwarder: forwarder_config(config, &stores),
            brokers,
            kafka: kafka_config(config, &stores, &pressure),
            http,
            own_token,
            monitor: Mutex::new(Some(monitor)),
            vitals,
            traces: traces(&config.telemetry),
            archiver: archiver_config(config, &stores),
            compactor: compactor_config(&config.compactor, &stores),
            compacts: config.compactor.enabled,
            retention: retention_config(&config.retention, &config.pressure, &stores),
            stores,
        })
    }

    /// Whether there is a page for people.
    pub fn has_page(&self) -> bool {
        self.page.is_some()
    }

    /// Reads again what may have changed while everything runs: certificates and keys.
    pub fn reload(&self) {
        let Some(tls) = &self.gateway.tls else {
            tracing::info!("nothing to read again: there is no TLS");
            return;
        };
        match tls.reload() {
            Ok(()) => tracing::info!(cert = %tls.settings().cert.display(), "read the certificate again"),
            Err(error) => tracing::error!(%error, "the files of TLS are wrong; going on with those of before"),
        }
    }

    /// Says what is wrong with settings that only PostgreSQL can judge.
    pub async fn check(&self) -> Result<()> {
        let Some(forwarder) = &self.forwarder else { return Ok(()) };
        ingest::forward::check(forwarder).await.map_err(|error| match error {
            error @ (ingest::forward::Error::Postgres(_) | ingest::forward::Error::Internal(_)) => error.into(),
            wrong => Failure::usage(wrong.to_string(), "correct [kafka.alerts] in watershed.toml").into(),
        })
    }

    pub fn serve(
        &self,
        tasks: &mut Tasks,
        gateway_socket: TcpListener,
        flight_socket: Option<TcpListener>,
        http_socket: TcpListener,
    ) -> Result<()> {
        let stop = tasks.stop_token();
        let (gateway_at, http_at) = (reachable(gateway_socket.local_addr()?), reachable(http_socket.local_addr()?));
        tasks.serve("gateway", gateway::run(self.gateway.clone(), gateway_socket, flight_socket, stop.clone()));
        let more = generate::control::routes(generate::control::Config {
            kafka: self.brokers.clone(),
            url: format!("http://{http_at}"),
            token: self.own_token.clone(),
            stop: stop.clone(),
        });
        let mut http = self.http.clone();
        if let Some(page) = self.page.clone() {
            let page = gateway::status::Config { gateway: gateway_at, ..page };
            http.open = Some(gateway::status::router(page, http_at.port(), stop.clone()));
        }
        tasks.serve("http", ingest::http::run(http, http_socket, more, stop.clone()));
        if let Some(monitor) = self.monitor.lock().unwrap_or_else(PoisonError::into_inner).take() {
            keep_watch(tasks, monitor);
        }
        Ok(())
    }

    pub fn keep_up(&self, tasks: &mut Tasks) {
        let stop = tasks.stop_token();
        let (config, token) = (self.archiver.clone(), stop.clone());
        tasks.keep_up("archiver", move || ingest::archiver::run(config.clone(), token.clone()));
        if let Some(config) = self.forwarder.clone() {
            keep_forwarding(tasks, config);
        }
        self.vitals.clone().keep_up(tasks);
        if let Some(config) = self.traces.clone() {
            let token = stop.clone();
            tasks.serve("traces", gateway::telemetry::trace::run(config, token));
        }
        let (config, token) = (self.retention.clone(), stop.clone());
        tasks.keep_up("retention", move || ingest::retention::run(config.clone(), token.clone()));
        if self.compacts {
            let (config, token) = (self.compactor.clone(), stop);
            tasks.keep_up("compactor", move || compactor::run(config.clone(), token.clone()));
        }
        if let Some(config) = &self.kafka {
            keep_kafka(tasks, config.clone());
        }
    }
}

/// The parts of `watershed ingest`, configured; None is switched off.
pub struct Ingest {
    pub http: Option<(ingest::http::Config, TcpListener)>,
    pub archiver: Option<ingest::archiver::Config>,
    /// Goes with the archiver: what that has shipped is what may leave, and both read as the same role.
    retention: Option<ingest::retention::Config>,
    pub kafka: Option<ingest::kafka::Config>,
    monitor: Monitor,
    /// None: that role's URL is not known either.
    vitals: Option<Vitals>,
    /// Sends if no other process does; reads as the archiver, so it needs that role's URL.
    pub forwarder: Option<ingest::forward::Config>,
}

impl Ingest {
    pub fn new(config: &Config, stores: &Stores, http: Option<TcpListener>, archive: bool) -> Result<Ingest> {
        let (pressure, monitor) = watched(&config.pressure, stores)?;
        let vitals = (!stores.archiver_url.is_empty()).then(|| Vitals::new(config, stores, &pressure));
        let http = match http {
            Some(socket) => {
                let health = vitals.as_ref().map(|vitals| vitals.health.clone()).unwrap_or_default();
                Some((ingest::http::Config { health, ..http_config(config, stores, &pressure)? }, socket))
            }
            None => None,
        };
        Ok(Ingest {
            http,
            archiver: archive.then(|| archiver_config(config, stores)),
            retention: archive.then(|| retention_config(&config.retention, &config.pressure, stores)),
            kafka: kafka_config(config, stores, &pressure),
            monitor,
            vitals,
            forwarder: forwarder_config(config, stores),
        })
    }

    pub fn start(self, serving: &mut Tasks, upkeep: &mut Tasks) {
        let stop = serving.stop_token();
        if let Some((config, socket)) = self.http {
            serving.serve("http", ingest::http::run(config, socket, axum::Router::new(), stop.clone()));
        }
        keep_watch(serving, self.monitor);
        if let Some(vitals) = self.vitals {
            vitals.keep_up(upkeep);
        }
        if let Some(config) = self.archiver {
            let token = upkeep.stop_token();
            upkeep.keep_up("archiver", move || ingest::archiver::run(config.clone(), token.clone()));
        }
        if let Some(config) = self.retention {
            let token = upkeep.stop_token();
            upkeep.keep_up("retention", move || ingest::retention::run(config.clone(), token.clone()));
        }
        if let Some(config) = self.kafka {
            keep_kafka(upkeep, config);
        }
        if let Some(config) = self.forwarder {
            keep_forwarding(upkeep, config);
        }
    }
}

/// How both stores are: asked by one task, told by the HTTP door.
#[derive(Clone)]
struct Vitals {
    config: vitals::Config,
    health: Health,
    pressure: Pressure,
}

impl Vitals {
    fn new(config: &Config, stores: &Stores, pressure: &Pressure) -> Vitals {
        let mut limits = config.telemetry.limits.clone();
        // An archiver that comes seldom is not late before its second turn.
        limits.boundary = limits.boundary.max(2 * config.archiver.interval);
        let config = vitals::Config { interval: config.telemetry.vitals, limits, ..vitals::Config::new(&stores.archiver_url) };
        Vitals { config, health: Health::default(), pressure: pressure.clone() }
    }

    fn keep_up(self, tasks: &mut Tasks) {
        let stop = tasks.stop_token();
        tasks.keep_up("vitals", move || {
            vitals::run(self.config.clone(), self.health.clone(), self.pressure.clone(), stop.clone())
        });
    }
}

fn traces(config: &config::Telemetry) -> Option<gateway::telemetry::trace::Config> {
    Some(gateway::telemetry::trace::Config {
        endpoint: config.traces.as_ref()?.to_string(),
        service_name: config.service_name.clone(),
        sample: config.sample,
    })
}

fn keep_watch(tasks: &mut Tasks, monitor: Monitor) {
    let stop = tasks.stop_token();
    tasks.serve("pressure", async move {
        monitor.run(stop).await;
        Ok::<(), ingest::Error>(())
    });
}

fn keep_kafka(tasks: &mut Tasks, config: ingest::kafka::Config) {
    let token = tasks.stop_token();
    tasks.keep_up("kafka", move || ingest::kafka::run(config.clone(), token.clone()));
}

fn keep_forwarding(tasks: &mut Tasks, config: ingest::forward::Config) {
    let token = tasks.stop_token();
    tasks.keep_up("forwarder", move || ingest::forward::run(config.clone(), token.clone()));
}

/// None without brokers, without anything to send, or without the role that reads.
fn forwarder_config(config: &Config, stores: &Stores) -> Option<ingest::forward::Config> {
    let brokers = config.kafka.brokers.as_deref()?;
    if config.kafka.forwards.is_empty() || stores.archiver_url.is_empty() {
        return None;
    }
    let client = ingest::kafka::client(brokers, &config.kafka.properties);
    Some(ingest::forward::Config::new(&stores.archiver_url, client, config.kafka.forwards.clone()))
}

/// None without brokers.
fn kafka_config(config: &Config, stores: &Stores, pressure: &Pressure) -> Option<ingest::kafka::Config> {
    let brokers = config.kafka.brokers.as_deref()?;
    Some(ingest::kafka::Config {
        properties: config.kafka.properties.clone(),
        group: config.kafka.group.clone(),
        topics: config.kafka.topics.clone(),
        writers: config.kafka.writers,
        batch_rows: config.kafka.batch_rows,
        batch_delay: config.kafka.batch_delay,
        // Within the drain time, with some left for the others.
        stop_patience: config.drain_timeout / 2,
        pressure: pressure.clone(),
        ..ingest::kafka::Config::new(brokers, &stores.ingest_url)
    })
}

fn http_config(
    config: &Config,
    stores: &Stores,
    pressure: &Pressure,
) -> Result<ingest::http::Config> {
    let body = usize::try_from(config.http.max_body).unwrap_or(usize::MAX);
    let patterns = config.http.indices.iter().map(|(pattern, table)| (pattern.clone(), table.clone()));
    Ok(ingest::http::Config {
        database_url: stores.ingest_url.clone(),
        max_body_bytes: body,
        // Logs pack about tenfold; this leaves room for that and bounds what a small body can make of memory.
        max_unpacked_bytes: body.saturating_mul(4),
        key_retention: config.http.key_retention,
        tokens: tokens(&config.http)?,
        open_metrics: config.http.open_metrics,
        pressure: pressure.clone(),
        indices: Indices::new(patterns),
        routes: config.tables.clone(),
        ..Default::default()
    })
}

/// The tokens of the HTTP door. Refuses a door that strangers reach and that asks for none.
pub fn tokens(config: &Http) -> Result<Tokens> {
    let wrong = |why: String| {
        let advice = "deploy/watershed.toml shows how tokens are given";
        Failure::usage(format!("the tokens of the HTTP door are wrong: {why}"), advice)
    };
    let mut tokens = Tokens::parse(config.tokens.iter().map(String::as_str), false).map_err(wrong)?;
    if let Some(file) = &config.token_file {
        tokens = tokens.and(Tokens::read(file).map_err(wrong)?);
    }
    if !config.allow_open && !ingest::http::is_guarded(config.listen, &tokens) {
        return Err(Failure::usage(
            format!("others could add rows: {} (--http) is reachable from outside and asks for no token", config.listen),
            "set http.tokens or http.token_file in watershed.toml, listen on 127.0.0.1, or set http.allow_open = true",
        )
        .into());
    }
    Ok(tokens)
}

/// The files of TLS, read.
pub fn tls(config: &config::Gateway) -> Result<Option<Arc<Tls>>> {
    let load = |settings: &config::Tls| {
        Tls::load(settings.clone()).map(Arc::new).map_err(|error| {
            let advice = "correct [gateway.tls] in watershed.toml (or --tls-cert, --tls-key), or the files";
            Failure::usage(format!("TLS cannot be offered: {error}"), advice).into()
        })
    };
    config.tls.as_ref().map(load).transpose()
}

/// What must keep room, and how much.
fn places(config: &config::Pressure, stores: &Stores) -> (Watched, ingest::pressure::Config) {
    let mut directories = config.directories.clone();
    directories.extend(stores.data_dir.clone());
    let watched = Watched {
        directories,
        database: config.max_database_size.map(|max| (stores.ingest_url.clone(), max)),
    };
    let marks = ingest::pressure::Config {
        interval: config.interval,
        min_free_bytes: config.min_free,
        min_free_ratio: config.min_free_percent / 100.0,
        ..Default::default()
    };
    (watched, marks)
}

pub fn retention_config(config: &config::Retention, pressure: &config::Pressure, stores: &Stores) -> ingest::retention::Config {
    ingest::retention::Config {
        interval: config.interval,
        notice: config.notice,
        watched: config.early.then(|| places(pressure, stores)),
        keep_days: config.keep_days,
        ..ingest::retention::Config::new(&stores.archiver_url, stores.lake_root.clone())
    }
}

/// Who says whether there is room, and who finds it out.
pub fn watched(config: &config::Pressure, stores: &Stores) -> Result<(Pressure, Monitor)> {
    let (watched, marks) = places(config, stores);
    Ok(Monitor::new(marks, watched.probes().context("watch the database's size")?))
}

fn archiver_config(config: &Config, stores: &Stores) -> ingest::archiver::Config {
    ingest::archiver::Config {
        interval: config.archiver.interval,
        // Looking costs one query a table; a short interval asks for a quicker eye.
        poll: config.archiver.interval.min(Duration::from_secs(10)),
        min_rows: config.archiver.min_rows,
        max_rows_per_file: config.archiver.max_rows_per_file,
        ..stores.archiver()
    }
}

/// Memory and threads are as the compactor has them beside other services, where nothing is said.
pub fn compactor_config(config: &config::Compactor, stores: &Stores) -> compactor::Config {
    let beside = stores.compactor();
    compactor::Config {
        interval: config.interval,
        target_file_bytes: config.target_file_size,
        grace: config.grace,
        memory_limit_bytes: config
            .memory_limit
            .map_or(beside.memory_limit_bytes, |size| usize::try_from(size).unwrap_or(usize::MAX)),
        threads: config.threads.unwrap_or(beside.threads),
        ..beside
    }
}
