//! The gateway: any PostgreSQL client in, PostgreSQL or the lake behind. A query's life is told in
//! ARCHITECTURE.md. ✗ arguments, signals, ingest, compaction.

pub mod analyze;
pub mod cancel;
pub mod catalog;
pub mod classify;
pub mod compare;
mod cold_door;
pub mod engine;
pub mod flight;
mod limits;
pub mod plan;
pub mod query;
pub mod route;
pub mod server;
pub mod session;
pub mod status;
pub mod cost;
pub mod telemetry;
mod threads;
pub mod tls;
mod verifiers;
pub mod virtual_tables;
pub mod wire;

use engine::{Engine, EngineConfig};
use session::link::UpstreamAddress;
use session::login::Policy;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use url::Url;

/// How a gateway runs.
#[derive(Clone)]
pub struct Config {
    /// Directory of PostgreSQL's Unix socket; TCP to `upstream_host` if absent.
    pub upstream_socket_dir: Option<PathBuf>,
    pub upstream_host: String,
    pub upstream_port: u16,
    /// URL of a connection as `watershed_gateway`, to the database whose tables are tiered.
    pub control_url: String,
    /// Directory of all lake tables.
    pub lake_root: Url,
    /// Opens `watershed_control.hush`; without it the analyzed trees go to PostgreSQL's log.
    pub probe_secret: Option<String>,
    /// Where sorts and hash tables that outgrow memory go.
    pub spill_dir: PathBuf,
    /// For lake queries, all together; a quarter of it bounds the tail of one statement.
    pub memory_limit_bytes: usize,
    pub max_sessions: usize,
    /// Of two stores that may answer, the one answers that is expected to be faster (see [`cost`]); else the kind of statement decides.
    pub route_by_cost: bool,
    /// With what TLS is offered; None: it is refused. Whoever holds it may have its files read again at any time.
    pub tls: Option<Arc<tls::Tls>>,
    /// Clients of other machines may speak in the clear.
    pub allow_plaintext: bool,
    /// Users whom PostgreSQL lets in without asking for proof, and who may come in all the same.
    pub trusted_users: Vec<String>,
    /// How long a client may take to say who it is, and to log in, both from the first byte on.
    pub startup_timeout: Duration,
    pub login_timeout: Duration,
    /// New connections a second from one address; None: any number.
    pub connection_rate: Option<u32>,
    /// How long a session that just had a short wait waits for the next bytes before its thread sleeps; zero: not at all.
    pub busy_wait: Duration,
    /// A statement that reads an old version for longer keeps its files from vacuum; far below vacuum's grace period.
    pub lease_after: Duration,
    /// How long what Flight's tokens stand for lives.
    pub flight: flight::Lifetimes,
    /// Where the door to cold rows has its socket, so that PostgreSQL itself answers what the lake cannot; None: it is closed.
    pub cold_door: Option<PathBuf>,
    /// Sessions that only look on.
    pub onlookers: query::log::Onlookers,
    /// How long sessions inside a transaction or a statement may go on after shutdown was asked.
    pub drain_timeout: Duration,
}

impl Config {
    /// The largest tail one statement may hold, in bytes.
    pub fn tail_limit_bytes(&self) -> usize {
        self.memory_limit_bytes / 4
    }
}

/// Why a gateway cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    #[error("the control tables cannot be read: {0}")]
    Control(#[from] lake::Error),
    #[error("the query engine cannot start: {0}")]
    Engine(#[from] engine::EngineError),
    #[error("the door to cold rows cannot be opened or closed: {0}")]
    Door(#[from] cold_door::DoorError),
    #[error("the sessions' threads or sockets cannot be started: {0}")]
    Threads(std::io::Error),
    #[error("the control connection is not described by a URL: {0}")]
    ControlUrl(sqlx::Error),
}

/// Runs a gateway on `listener` until `shutdown`, then drains; beside it, if there is a second one, Arrow Flight SQL.
pub async fn run(
    config: Config,
    listener: TcpListener,
    flight: Option<TcpListener>,
    shutdown: CancellationToken,
) -> Result<(), StartError> {
    let catalog = catalog::Catalog::open(&config.control_url).await?;
    let engine = Engine::new(EngineConfig {
        memory_limit_bytes: config.memory_limit_bytes,
        spill_dir: config.spill_dir.clone(),
        control_url: config.control_url.clone(),
        lake_root: config.lake_root.clone(),
        lease_after: config.lease_after,
        ..EngineConfig::default()
    })?;
    let upstream = match &config.upstream_socket_dir {
        Some(dir) => UpstreamAddress::Unix(dir.join(format!(".s.PGSQL.{}", config.upstream_port))),
        None => UpstreamAddress::Tcp(config.upstream_host.clone(), config.upstream_port),
    };
    let shared = Arc::new(server::Shared {
        upstream,
        cancels: cancel::Registry::default(),
        catalog,
        classified: classify::Cache::default(),
        log: Arc::new(query::log::QueryLog::new(config.onlookers.clone())),
        costs: Arc::default(),
        comparisons: Arc::default(),
        replays: Arc::new(tokio::sync::Semaphore::new(session::replay::AT_ONCE)),
        engine,
        policy: Policy { trusted_users: config.trusted_users.clone() },
        verifiers: verifiers::Verifiers::new(&config.control_url).map_err(StartError::ControlUrl)?,
        places: Arc::new(tokio::sync::Semaphore::new(config.max_sessions)),
        config,
    });
    telemetry::watch(&shared);
    let upkeep = shutdown.child_token();
    let close = CancellationToken::new();
    let follower = {
        let (shared, upkeep) = (shared.clone(), upkeep.clone());
        tokio::spawn(async move {
            tokio::join!(
                shared.catalog.follow(upkeep.clone()),
                shared.catalog.follow_comparisons(&shared.comparisons, upkeep),
            );
        })
    };
    // Beside the sessions, whose statements may need it until they end.
    let mut door = {
        let (engine, control, dir) = (shared.engine.clone(), shared.config.control_url.clone(), shared.config.cold_door.clone());
        let close = close.clone();
        tokio::spawn(async move {
            cold_door::run(engine, &control, dir, close.clone()).await?;
            close.cancelled().await;
            Ok::<_, cold_door::DoorError>(())
        })
    };
    let doors = async {
        let flight = async {
            match flight {
                Some(listener) => flight::serve(shared.clone(), listener, shutdown.clone()).await,
                None => Ok(()),
            }
        };
        // If one cannot be served, neither is.
        tokio::try_join!(server::serve(shared.clone(), listener, shutdown.clone()), flight)
    };
    let ended = tokio::select! {
        served = doors => {
            served.map_err(StartError::Threads)?;
            None
        }
        ended = &mut door => Some(ended),
    };
    close.cancel();
    upkeep.cancel();
    let ended = match ended {
        Some(ended) => ended,
        None => door.await,
    };
    if let Err(e) = follower.await {
        tracing::error!(error = %e, "the catalog's follower failed");
    }
    match ended {
        Ok(ended) => Ok(ended?),
        Err(e) => Err(StartError::Engine(engine::EngineError::Internal(format!("the door to cold rows failed: {e}")))),
    }
}
