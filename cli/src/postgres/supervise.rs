//! Keeping the server running: restarted with a growing pause when it dies, given up when it keeps dying,
//! stopped cleanly on request. Also keeps its log file bounded.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::sys::signal::{Signal, kill};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Cluster, STOP_DEADLINE, Server};

/// Deaths within [`WINDOW`] after which the server is given up.
const MAX_DEATHS: usize = 5;
const WINDOW: Duration = Duration::from_secs(600);
/// The log is moved aside at this size; one older part is kept.
const MAX_LOG: u64 = 64 << 20;

/// A running server and the task that watches it.
pub struct Supervised {
    /// Ends with an error when the server was given up, without one after a clean stop.
    pub task: JoinHandle<Result<()>>,
    stop: CancellationToken,
    now: CancellationToken,
}

impl Supervised {
    /// Fast shutdown: a checkpoint is written, the cluster is clean.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Immediate shutdown: nothing committed is lost, the next start recovers.
    pub fn stop_now(&self) {
        self.now.cancel();
        self.stop.cancel();
    }
}

/// Watches over a server that is ready.
pub fn supervise(cluster: Cluster, server: Server) -> Supervised {
    let stop = CancellationToken::new();
    let now = CancellationToken::new();
    let task = tokio::spawn(watch(cluster, server, stop.clone(), now.clone()));
    Supervised { task, stop, now }
}

async fn watch(
    mut cluster: Cluster,
    mut server: Server,
    stop: CancellationToken,
    now: CancellationToken,
) -> Result<()> {
    let mut deaths: Vec<Instant> = Vec::new();
    let mut tick = tokio::time::interval(Duration::from_secs(30));
    loop {
        tokio::select! {
            () = stop.cancelled() => return end(server, &now).await,
            _ = tick.tick() => bound_log(&cluster.log),
            status = server.child.wait() => {
                deaths.retain(|death| death.elapsed() < WINDOW);
                deaths.push(Instant::now());
                tracing::error!(status = %status?, deaths = deaths.len(), "the PostgreSQL server died");
                let port = cluster.port;
                server = loop {
                    if deaths.len() >= MAX_DEATHS {
                        bail!(
                            "PostgreSQL died {} times within {} minutes; {} says why",
                            deaths.len(), WINDOW.as_secs() / 60, cluster.log.display()
                        );
                    }
                    // 0.25, 0.5, 1, 2 seconds
                    let pause = Duration::from_millis(250 << (deaths.len() - 1));
                    tokio::select! {
                        () = stop.cancelled() => return Ok(()),
                        () = tokio::time::sleep(pause) => {}
                    }
                    match cluster.start().await {
                        Ok(server) if cluster.port == port => break server,
                        Ok(server) => {
                            end(server, &now).await?;
                            bail!("another program took PostgreSQL's port {port} while it was down; start watershed again");
                        }
                        Err(error) => {
                            tracing::error!("PostgreSQL did not come back: {error:#}");
                            deaths.push(Instant::now());
                        }
                    }
                };
                tracing::info!(pid = server.child.id(), "PostgreSQL is running again");
            }
        }
    }
}

/// Stops the server: fast, or at once when asked to or when fast takes too long.
async fn end(mut server: Server, now: &CancellationToken) -> Result<()> {
    let Some(pid) = server.pid() else { return Ok(()) };
    if !now.is_cancelled() {
        let _ = kill(pid, Signal::SIGINT);
        tokio::select! {
            status = server.child.wait() => {
                let status = status?;
                if !status.success() {
                    bail!("PostgreSQL ended with {status} while stopping");
                }
                return Ok(());
            }
            () = now.cancelled() => {}
            () = tokio::time::sleep(STOP_DEADLINE) => {
                tracing::warn!("PostgreSQL does not stop; stopping it at once, it will recover at its next start");
            }
        }
    }
    let _ = kill(pid, Signal::SIGQUIT);
    match tokio::time::timeout(Duration::from_secs(10), server.child.wait()).await {
        Ok(_) => Ok(()),
        Err(_) => bail!("PostgreSQL (pid {pid}) does not stop"),
    }
}

/// The server keeps its log open in append mode, so the file is copied and emptied rather than renamed.
fn bound_log(log: &Path) {
    if fs::metadata(log).is_ok_and(|meta| meta.len() > MAX_LOG) {
        let older = log.with_extension("log.1");
        let moved = fs::copy(log, &older).and_then(|_| OpenOptions::new().write(true).open(log)?.set_len(0));
        if let Err(error) = moved {
            tracing::warn!(%error, "cannot bound the size of PostgreSQL's log");
        }
    }
}
