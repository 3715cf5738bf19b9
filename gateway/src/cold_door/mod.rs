//! The door to cold rows: a Unix socket where postgres_fdw reads, for PostgreSQL itself, the lake's rows below a table's floor
//! (`watershed_cold.<table>`, migration 0092). It serves what postgres_fdw sends and nothing else, reads files only, and sends no
//! statement back. Why its answers are whole is told in ARCHITECTURE.md ("A day's life"). ✗ statements of clients, routes, retention.
//!
//! - [`sql`] reads statements; - [`fence`] says which rows a statement gets; - [`scan`] reads them; - [`judge`] has PostgreSQL evaluate what
//!   is not proven; - [`session`] speaks the protocol; - [`scram`] is the login.
//!
//! The process at the other end of the socket is the backend: the kernel says its number, which no setting can forge.

mod fence;
mod judge;
mod scan;
mod scram;
mod session;
mod sql;

pub(crate) use sql::quoted;

use std::collections::HashSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicI32;
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::ConnectOptions;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use thiserror::Error;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cancel::Registry;
use crate::engine::Engine;

/// The number in the name of the socket. It is no port of the machine, and no server's in the same directory.
const PORT: u16 = 1;
/// Connections at once: one for each session of PostgreSQL that has asked for cold rows.
const MAX_CONNECTIONS: usize = 1024;
/// Connections at once on which PostgreSQL judges for the door.
const MAX_JUDGES: usize = 16;
/// How often roles and tables are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long statements may wait behind the lock under which a table gets its door.
const LAY_TIMEOUT_MS: u32 = 500;

/// Why the door cannot be opened.
#[derive(Debug, Error)]
pub enum DoorError {
    #[error("the socket {0} cannot be made: {1}")]
    Socket(PathBuf, std::io::Error),
    #[error(transparent)]
    Control(#[from] sqlx::Error),
}

/// What all connections share.
pub(crate) struct Door {
    engine: Arc<Engine>,
    /// As `watershed_gateway`; a statement on it waits for no lock for long.
    control: PgPool,
    options: PgConnectOptions,
    cancels: Registry,
    connections: Arc<Semaphore>,
    judges: Arc<Semaphore>,
    functions: Mutex<Option<Arc<HashSet<String>>>>,
    next: AtomicI32,
}

/// Opens the door in directory `dir`, or closes it where there is none, and keeps PostgreSQL's side in step until `shutdown`.
pub async fn run(
    engine: Arc<Engine>,
    control_url: &str,
    dir: Option<PathBuf>,
    shutdown: CancellationToken,
) -> Result<(), DoorError> {
    let options = PgConnectOptions::from_str(control_url)?
        .application_name("watershed door")
        .disable_statement_logging();
    let patient = options.clone().options([("lock_timeout", "2s"), ("statement_timeout", "60s")]);
    let control = PgPoolOptions::new()
        .max_connections(4)
        .idle_timeout(Duration::from_secs(60))
        .connect_lazy_with(patient);
    let Some(dir) = dir else {
        let opened: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM watershed_control.cold_door) OR EXISTS (
                SELECT FROM watershed_control.partitions p WHERE p.kind = 'gone' AND watershed_control.is_door(p.part_relid))")
            .fetch_one(&control)
            .await?;
        if opened {
            sqlx::query("SELECT watershed_control.cold_switch(NULL, NULL)").execute(&control).await?;
            keep_in_step(&control, true, &shutdown).await;
        }
        return Ok(());
    };
    let path = dir.join(format!(".s.PGSQL.{PORT}"));
    let listener = listen(&path).map_err(|e| DoorError::Socket(path.clone(), e))?;
    sqlx::query("SELECT watershed_control.cold_switch($1, $2)")
        .bind(dir.to_string_lossy())
        .bind(i32::from(PORT))
        .execute(&control)
        .await?;
    let door = Arc::new(Door {
        engine,
        control,
        options,
        cancels: Registry::default(),
        connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        judges: Arc::new(Semaphore::new(MAX_JUDGES)),
        functions: Mutex::new(None),
        next: AtomicI32::new(1),
    });
    let sessions = TaskTracker::new();
    let accept = async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (door, shutdown) = (door.clone(), shutdown.clone());
                    sessions.spawn(async move {
                        tokio::select! {
                            () = session::serve(door, stream) => {}
                            () = shutdown.cancelled() => {}
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection to the door of cold rows could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    };
    tokio::select! {
        () = accept => {}
        () = keep_in_step(&door.control, false, &shutdown) => {}
        () = shutdown.cancelled() => {}
    }
    sessions.close();
    sessions.wait().await;
    // A statement that comes now is told that nobody listens.
    let _ = fs::remove_file(&path);
    Ok(())
}

/// The socket, in place of one that a killed process left. Whoever may enter the directory may knock.
fn listen(path: &Path) -> std::io::Result<UnixListener> {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Gives each table the door, or its tripwire back, and each role that may read one its secret; `once`: until all tables have.
async fn keep_in_step(control: &PgPool, once: bool, shutdown: &CancellationToken) {
    let mut failing = false;
    loop {
        let left = tokio::select! {
            left = in_step(control) => left,
            () = shutdown.cancelled() => return,
        };
        match left {
            Ok(0) if once => return,
            Ok(_) if failing => {
                failing = false;
                tracing::info!("tables and roles have their doors to cold rows again");
            }
            Ok(_) => {}
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(%error, "tables and roles may lack their doors to cold rows; they are looked at again");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// One look; how many tables could not be had for a moment.
async fn in_step(control: &PgPool) -> Result<usize, sqlx::Error> {
    sqlx::query("SELECT watershed_control.cold_sync()").execute(control).await?;
    let relids: Vec<Oid> = sqlx::query_scalar(
        "SELECT p.relid FROM watershed_control.partitions p
         WHERE p.kind = 'gone' AND watershed_control.is_door(p.part_relid) <> EXISTS (SELECT FROM watershed_control.cold_door)",
    )
    .fetch_all(control)
    .await?;
    let mut left = 0;
    for relid in relids {
        let mut tx = control.begin().await?;
        let timeout = format!("SET LOCAL lock_timeout = {LAY_TIMEOUT_MS}");
        sqlx::query(sqlx::AssertSqlSafe(timeout)).execute(&mut *tx).await?;
        match sqlx::query("SELECT watershed_control.cold_lay($1)").bind(relid).execute(&mut *tx).await {
            Ok(_) => {
                tx.commit().await?;
                tracing::info!(relid = relid.0, "what stands for rows that left PostgreSQL was replaced");
            }
            // In use: at the next look.
            Err(sqlx::Error::Database(e)) if matches!(e.code().as_deref(), Some("55P03" | "40P01")) => {
                left += 1
            }
            Err(e) => return Err(e),
        }
    }
    Ok(left)
}
