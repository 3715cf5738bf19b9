//! The three ways to one PostgreSQL, and PgBouncer, which is one of them. Knows no statement that is measured.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::process::{Child, Command};
use url::Url;

use super::super::instance::Instance;
use super::super::process::Look;
use super::super::programs;
use crate::bootstrap;
use crate::exit::Failure;
use crate::postgres::{Account, free_port};
use crate::wire_client::{Client, Target};

/// How a client reaches PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Direct,
    PgBouncer,
    Gateway,
}

impl Way {
    pub const ALL: [Way; 3] = [Way::Direct, Way::PgBouncer, Way::Gateway];

    pub fn name(self) -> &'static str {
        match self {
            Way::Direct => "direct",
            Way::PgBouncer => "PgBouncer",
            Way::Gateway => "gateway",
        }
    }

    /// All three, each first once in three rounds: what goes before and after leaves its traces on nobody alone.
    pub fn in_turn(round: u32) -> [Way; 3] {
        let mut order = Way::ALL;
        order.rotate_left(round as usize % Way::ALL.len());
        order
    }
}

/// Where each way begins, and which process stands in it.
pub struct Ways {
    direct: Target,
    gateway: Target,
    gateway_pid: u32,
    pgbouncer: PgBouncer,
}

impl Ways {
    pub async fn open(instance: &Instance, program: &Path, dir: &Path, sessions: u32) -> Result<Ways> {
        let url = Url::parse(&instance.admin_url).context("read the cluster's URL")?;
        let direct = Target {
            host: url.host_str().context("the cluster's URL has no host")?.to_owned(),
            port: url.port().context("the cluster's URL has no port")?,
            ..instance.target.clone()
        };
        let gateway_pid = instance.pid().context("watershed up has ended")?;
        let pgbouncer = PgBouncer::start(program, dir, &instance.admin_url, &direct, sessions).await?;
        Ok(Ways { direct, gateway: instance.target.clone(), gateway_pid, pgbouncer })
    }

    pub fn target(&self, way: Way) -> &Target {
        match way {
            Way::Direct => &self.direct,
            Way::PgBouncer => &self.pgbouncer.target,
            Way::Gateway => &self.gateway,
        }
    }

    /// The process between client and server.
    pub fn pid(&self, way: Way) -> Option<u32> {
        match way {
            Way::Direct => None,
            Way::PgBouncer => self.pgbouncer.child.id(),
            Way::Gateway => Some(self.gateway_pid),
        }
    }

    pub fn look(&self, way: Way) -> Option<Look> {
        self.pid(way).and_then(Look::at)
    }

    pub async fn close(self) -> Result<()> {
        self.pgbouncer.stop().await
    }
}

/// The program that was named, or the one of the system, and its version.
pub async fn find_pgbouncer(named: Option<&Path>) -> Result<(PathBuf, String)> {
    let places = match named {
        Some(program) => vec![program.to_owned()],
        // Debian has it where only root's PATH looks.
        None => vec!["pgbouncer".into(), "/usr/sbin/pgbouncer".into()],
    };
    for place in places {
        if let Some(version) = programs::version(&place).await {
            return Ok((place, version));
        }
    }
    let named = named.map(|program| format!(" as {}", program.display())).unwrap_or_default();
    Err(Failure::environment(
        format!("PgBouncer was not found{named}"),
        "install it (apt-get install pgbouncer; its own service is not needed), or name the program with --pgbouncer",
    )
    .into())
}

/// A PgBouncer of the benchmark's own. Session pooling; it opens server connections one after another, which takes long where
/// many clients come at once, so it may keep them all from the warm-up on, and whoever is measured has them beside it.
struct PgBouncer {
    child: Child,
    target: Target,
}

/// Another program may take a port between its choice and its use.
const TRIES: u32 = 5;
const START: Duration = Duration::from_secs(30);

impl PgBouncer {
    async fn start(
        program: &Path,
        dir: &Path,
        admin_url: &str,
        server: &Target,
        sessions: u32,
    ) -> Result<PgBouncer> {
        let mut admin = bootstrap::connect(admin_url).await?;
        let socket_dir: String =
            sqlx::query_scalar("SELECT pg_catalog.current_setting('unix_socket_directories')")
                .fetch_one(&mut admin)
                .await?;
        // What the server keeps of the password: with it PgBouncer proves and checks logins on both sides, and needs no password.
        let verifier: String =
            sqlx::query_scalar("SELECT rolpassword FROM pg_catalog.pg_authid WHERE rolname = $1")
                .bind(&server.user)
                .fetch_one(&mut admin)
                .await?;
        // PgBouncer refuses to run as root, and the socket is open to PostgreSQL's user only.
        let account = Account::for_server()?;
        let users = dir.join("pgbouncer-users.txt");
        private(&users, &format!("\"{}\" \"{verifier}\"\n", server.user), account.as_ref())?;
        for attempt in 1.. {
            let target = Target { host: "127.0.0.1".into(), port: free_port()?, ..server.clone() };
            let settings = format!(
                "[databases]\n{database} = host='{socket_dir}' port={server_port} dbname={database}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
                 listen_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {users}\npool_mode = session\n\
                 max_client_conn = {sessions}\ndefault_pool_size = {sessions}\nserver_idle_timeout = 0\nserver_lifetime = 604800\n",
                database = server.database,
                server_port = server.port,
                port = target.port,
                users = users.display(),
            );
            let file = dir.join("pgbouncer.ini");
            private(&file, &settings, account.as_ref())?;
            let log = dir.join("pgbouncer.log");
            let out = std::fs::OpenOptions::new().create(true).append(true).open(&log)?;
            let mut command = std::process::Command::new(program);
            command.arg(&file).current_dir("/").stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
            if let Some(account) = &account {
                account.apply(&mut command);
            }
            let child = Command::from(command)
                .kill_on_drop(true)
                .spawn()
                .with_context(|| format!("run {}", program.display()))?;
            let mut started = PgBouncer { child, target };
            match started.answers().await {
                Ok(()) => return Ok(started),
                Err(error) if attempt == TRIES => return Err(error.context(format!("see {}", log.display()))),
                Err(error) => tracing::info!(%error, "PgBouncer did not start; trying once more"),
            }
        }
        unreachable!("the last try returns")
    }

    async fn answers(&mut self) -> Result<()> {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("PgBouncer ended with {status}");
            }
            let asked = async { Client::connect(&self.target).await?.simple("SELECT 1").await };
            match tokio::time::timeout(START, asked)
                .await
                .context("PgBouncer does not answer")
                .and_then(|r| r)
            {
                Ok(_) => return Ok(()),
                Err(error) if since.elapsed() > START => {
                    return Err(error.context("PgBouncer does not answer"));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn stop(mut self) -> Result<()> {
        if let Some(pid) = self.child.id() {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
            // At once: nobody is connected any more.
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
        }
        tokio::time::timeout(START, self.child.wait()).await.context("PgBouncer does not stop")??;
        Ok(())
    }
}

/// A file for nobody else to read but whoever runs the server.
fn private(path: &Path, text: &str, account: Option<&Account>) -> Result<()> {
    let write = || -> std::io::Result<()> {
        use std::io::Write;
        if path.exists() {
            std::fs::remove_file(path)?;
        }
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?
            .write_all(text.as_bytes())
    };
    write().with_context(|| format!("write {}", path.display()))?;
    account.map_or(Ok(()), |account| account.give(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_first_once_in_three_rounds() {
        let first: Vec<Way> = (0..3).map(|round| Way::in_turn(round)[0]).collect();
        assert_eq!(first, Way::ALL);
        assert_eq!(Way::in_turn(4), [Way::PgBouncer, Way::Gateway, Way::Direct]);
    }
}
