//! `watershed up` as a value: everything of one data directory started in order, then drained in the opposite
//! one. The order is the content of [`Up::start`]; each step's work is elsewhere. Prints what it is doing.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::bootstrap::{self, DATABASE, OWNER, Secrets};
use crate::config::{Config, Tls, check_lake, machine_memory};
use crate::datadir::{DataDir, Held, Pairs, replace_private};
use crate::exit::Failure;
use crate::postgres::{Cluster, Settings, Supervised, supervise};
use crate::services;
use crate::tasks::Tasks;
use crate::wire_client::{Client, Target};

/// How long closing sessions may take once the drain time is over.
const CLOSING: Duration = Duration::from_secs(5);

/// Everything that runs. Dropping it ends the tasks; PostgreSQL is stopped by [`Up::stop`] only.
pub struct Up {
    pub data: DataDir,
    pub secrets: Secrets,
    pub target: Target,
    pub http: SocketAddr,
    /// Where Flight is spoken.
    pub flight: Option<SocketAddr>,
    pub services: services::Services,
    serving: Tasks,
    upkeep: Tasks,
    postgres: Supervised,
    drain_timeout: Duration,
    // Last, so that the directory is free only when all else has ended.
    _held: Held,
}

/// ctrl-C, SIGTERM and SIGHUP.
pub struct Stops {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    /// Started so as to survive its terminal (nohup).
    outlives_terminal: bool,
    had_terminal: bool,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    Stop,
    /// Read again what may have changed.
    Reload,
}

impl Stops {
    pub fn listen() -> Result<Stops> {
        let outlives_terminal = hang_up_is_ignored();
        Ok(Stops {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            outlives_terminal,
            had_terminal: has_terminal(),
        })
    }

    /// The next request to stop, for programs that have nothing to read again. Cancel safe.
    pub async fn next(&mut self) {
        while self.take().await == SignalKind::hangup() && self.outlives_terminal {}
    }

    /// The next request; SIGHUP asks to reload unless it was the terminal that went. Cancel safe.
    pub async fn request(&mut self) -> Request {
        loop {
            if self.take().await != SignalKind::hangup() {
                return Request::Stop;
            }
            match (self.had_terminal && !has_terminal(), self.outlives_terminal) {
                (false, _) => return Request::Reload,
                (true, false) => return Request::Stop,
                (true, true) => self.had_terminal = false,
            }
        }
    }

    /// The next request to stop, for programs that could reload but not now. Cancel safe.
    pub async fn stop_request(&mut self) {
        while self.request().await == Request::Reload {}
    }

    async fn take(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.hang_up.recv() => SignalKind::hangup(),
        }
    }
}

fn has_terminal() -> bool {
    fs::File::open("/dev/tty").is_ok()
}

fn hang_up_is_ignored() -> bool {
    let ignored = fs::read_to_string("/proc/self/status").ok().and_then(|text| {
        let mask = text.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    });
    ignored.is_some_and(|mask| mask & 1 != 0)
}

impl Up {
    /// Starts everything and returns when a query works. `say` is told of each step that takes time.
    pub async fn start(config: &Config, say: &dyn Fn(&str)) -> Result<Up> {
        let data = DataDir::at(&config.data_dir)?;
        data.create()?;
        let held = data.hold()?;
        // Before anything is made or opened.
        services::tokens(&config.http)?;
        let tls = services::tls(&config.gateway)?;
        lake::store::configure(config.lake.store.clone());
        if let Some(url) = &config.lake.url {
            check_lake(url)?;
        }
        let gateway_socket = bind("--listen", config.gateway.listen).await?;
        let http_socket = bind("--http", config.http.listen).await?;
        let flight_socket = match config.gateway.flight {
            Some(address) => Some(bind("--flight", address).await?),
            None => None,
        };
        let flight = flight_socket.as_ref().map(TcpListener::local_addr).transpose()?.map(reachable);

        let mut secrets = Secrets::read_or_make(&data, &config.lake)?;
        if !data.cluster().exists() {
            say("making a PostgreSQL cluster");
        }
        let settings = Settings {
            memory: machine_memory(),
            sessions: config.gateway.max_sessions,
            shared_buffers: config.postgres.shared_buffers,
            icu_locale: config.postgres.icu_locale.clone(),
            data_dir: data.root().display().to_string(),
            small_shm: Settings::shm_is_small(),
            lz4: false, // asked of the server once it is found
        };
        let password = secrets.password(crate::postgres::ADMIN).to_owned();
        let mut cluster =
            Cluster::prepare(&data, config.postgres.bin.as_deref(), secrets.port, &password, settings)
                .await?;
        say("starting PostgreSQL");
        let child = cluster.start().await?;
        let (port, socket_dir) = (cluster.port, cluster.socket_dir.clone());
        let postgres = supervise(cluster, child);

        let mut serving = Tasks::new();
        let mut upkeep = Tasks::new();
        let started = async {
            secrets.port = Some(port);
            let http = http_socket.local_addr()?;
            secrets.write(&data, Some(&reachable(http).to_string()))?;
            bootstrap::bring_up(&secrets).await?;
            let target = Target {
                host: reachable(gateway_socket.local_addr()?).ip().to_string(),
                port: gateway_socket.local_addr()?.port(),
                user: OWNER.into(),
                password: secrets.password(OWNER).into(),
                database: DATABASE.into(),
            };
            write_connection(&data, &secrets, &target, flight, config.gateway.tls.as_ref())?;
            let services = services::Services::new(config, &data, &secrets, &socket_dir, tls)?;
            services.check().await?;
            services.serve(&mut serving, gateway_socket, flight_socket, http_socket)?;
            services.keep_up(&mut upkeep);
            tokio::select! {
                answered = first_answer(&target) => answered?,
                error = serving.failure() => return Err(error),
            }
            Ok((target, http, services))
        }
        .await;
        match started {
            Ok((target, http, services)) => Ok(Up {
                data,
                secrets,
                target,
                http,
                flight,
                services,
                serving,
                upkeep,
                postgres,
                drain_timeout: config.drain_timeout,
                _held: held,
            }),
            Err(error) => {
                let hurry = CancellationToken::new();
                serving.drain(Duration::from_secs(5), &hurry).await;
                upkeep.drain(Duration::from_secs(5), &hurry).await;
                postgres.stop();
                let _ = postgres.task.await;
                Err(error)
            }
        }
    }

    /// Waits until something that must not end does. Cancel safe.
    pub async fn failure(&mut self) -> anyhow::Error {
        tokio::select! {
            error = self.serving.failure() => error,
            error = self.upkeep.failure() => error,
            ended = &mut self.postgres.task => match ended {
                Ok(Err(error)) => error,
                Ok(Ok(())) => anyhow::anyhow!("PostgreSQL was stopped"),
                Err(panic) => panic.into(),
            },
        }
    }

    /// Drains: no new sessions, open ones may end; then upkeep; then PostgreSQL. A further signal ends the waits.
    pub async fn stop(mut self, stops: &mut Stops, say: &dyn Fn(&str)) -> Result<()> {
        let hurry = CancellationToken::new();
        let drained = async {
            say("draining; a second signal stops at once");
            // The gateway keeps to the drain time itself, then closes its sessions in order.
            self.serving.drain(self.drain_timeout + CLOSING, &hurry).await;
            self.upkeep.drain(self.drain_timeout, &hurry).await;
        };
        tokio::pin!(drained);
        loop {
            tokio::select! {
                () = &mut drained => break,
                () = stops.stop_request() => hurry.cancel(),
            }
        }
        say("stopping PostgreSQL");
        self.postgres.stop();
        if self.postgres.task.is_finished() {
            return Ok(()); // it was given up, and said so
        }
        loop {
            tokio::select! {
                ended = &mut self.postgres.task => return ended.context("stop PostgreSQL")?,
                () = stops.stop_request() => self.postgres.stop_now(),
            }
        }
    }

    /// The command that opens psql on the gateway.
    pub fn psql_line(&self) -> String {
        let path = self.data.connection_env();
        let shown = std::env::current_dir()
            .ok()
            .and_then(|here| path.strip_prefix(here).ok().map(|below| format!("./{}", below.display())))
            .unwrap_or_else(|| path.display().to_string());
        format!("(set -a; . '{}'; psql)", shown.replace('\'', r"'\''"))
    }
}

/// Takes an address, or says who to ask for another.
pub async fn bind(flag: &str, address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let next = SocketAddr::new(address.ip(), address.port().saturating_add(1));
        let (problem, advice) = match error.kind() {
            ErrorKind::AddrInUse => (
                format!("the address {address} ({flag}) is in use by another program"),
                format!("stop that program, or choose another address: {flag} {next}"),
            ),
            ErrorKind::PermissionDenied => (
                format!("this user may not listen on {address} ({flag})"),
                format!("choose a port above 1023: {flag} {}:6432", address.ip()),
            ),
            _ => (
                format!("cannot listen on {address} ({flag}): {error}"),
                format!("choose an address of this machine: {flag} 127.0.0.1:{}", address.port()),
            ),
        };
        Failure::environment(problem, advice).into()
    })
}

/// Where a client on this machine reaches a listener: an unspecified address stands for all of them.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn write_connection(
    data: &DataDir,
    secrets: &Secrets,
    target: &Target,
    flight: Option<SocketAddr>,
    tls: Option<&Tls>,
) -> Result<()> {
    let mut pairs = Pairs::default();
    pairs.set("PGHOST", &target.host);
    pairs.set("PGPORT", target.port.to_string());
    pairs.set("PGUSER", &target.user);
    pairs.set("PGPASSWORD", &target.password);
    pairs.set("PGDATABASE", &target.database);
    if let Some(address) = flight {
        let scheme = if tls.is_some() { "grpc+tls" } else { "grpc" };
        pairs.set("WATERSHED_FLIGHT_URL", format!("{scheme}://{address}"));
    }
    // libpq tries TLS first, and whoever sources this has no client certificate to show.
    if tls.is_some_and(|tls| tls.client_ca.is_some() && !tls.client_certificate_optional) {
        pairs.set("PGSSLMODE", "disable");
    }
    pairs.set("WATERSHED_POSTGRES_URL", secrets.url(OWNER, DATABASE));
    replace_private(
        &data.connection_env(),
        &pairs.print("how to reach watershed: `set -a; . THIS_FILE; psql`. WATERSHED_POSTGRES_URL leads past the gateway."),
    )
}

/// Asks the gateway until it answers as a client would see it, or says why it does not.
async fn first_answer(target: &Target) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(60);
    let ask = async {
        let mut client = Client::connect(target).await?;
        client.simple("SELECT 1").await?;
        client.simple("SELECT count(*) FROM public.logs WHERE ts > pg_catalog.now()").await
    };
    let asked = tokio::time::timeout(PATIENCE, ask).await.context("no answer within a minute");
    asked.and_then(|answer| answer).map(|_| ()).context("the gateway does not answer a first query")
}

#[cfg(test)]
mod tests;
