//! The private PostgreSQL cluster of a data directory: found programs (`install`), the user that runs it
//! (`account`), its settings (`settings`), its making and its process (here and in `supervise`).
//! Knows nothing of databases, roles or tables inside it.

mod account;
mod install;
mod settings;
mod supervise;

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sha2::{Digest, Sha256};
use tokio::process::Child;

pub use account::Account;
pub use install::Installation;
pub use settings::Settings;
pub use supervise::{Supervised, supervise};

use crate::datadir::DataDir;
use crate::exit::{self, Failure};

/// Name of the bootstrap superuser.
pub const ADMIN: &str = "watershed_admin";
/// Crash recovery replays at most `max_wal_size` of log; this is far beyond it.
const START_DEADLINE: Duration = Duration::from_secs(600);
/// How long a fast shutdown may take (it writes a checkpoint) before PostgreSQL is stopped at once.
const STOP_DEADLINE: Duration = Duration::from_secs(120);
/// sockaddr_un holds 108 bytes with its zero on Linux, 104 on the BSDs and macOS.
const MAX_SOCKET_PATH: usize = 103;

/// A cluster that exists and is ours to run.
#[derive(Clone, Debug)]
pub struct Cluster {
    dir: PathBuf,
    log: PathBuf,
    install: Installation,
    account: Option<Account>,
    pub socket_dir: PathBuf,
    pub port: u16,
    settings: Settings,
}

impl Cluster {
    /// Finds PostgreSQL, makes the cluster if there is none, and settles a leftover server of a killed run.
    /// `port`: the one of the last run, kept if it is still free.
    pub async fn prepare(
        data: &DataDir,
        bin: Option<&Path>,
        port: Option<u16>,
        admin_password: &str,
        settings: Settings,
    ) -> Result<Cluster> {
        let dir = data.cluster();
        let existing = existing_major(&dir)?;
        let install = Installation::find(bin, existing)?;
        let account = Account::for_server()?;
        if let Some(account) = &account {
            account.check_can_enter(data.root())?;
        }
        let socket_dir = make_socket_dir(data.root(), account.as_ref())?;
        let mut cluster =
            Cluster { dir, log: data.cluster_log(), install, account, socket_dir, port: 0, settings };
        if existing.is_some() {
            cluster.settle_leftover().await?;
        } else {
            cluster.initialise(admin_password)?;
        }
        cluster.settings.lz4 = cluster.knows_lz4();
        cluster.port = match port {
            Some(port) if is_free(port) => port,
            _ => free_port()?,
        };
        Ok(cluster)
    }

    /// Starts the server and waits until it accepts connections. A port taken by another program between
    /// choosing and binding it is replaced, and processes of a killed server get time to end.
    pub async fn start(&mut self) -> Result<Server> {
        const TRIES: u32 = 10;
        for attempt in 1.. {
            let log_start = fs::metadata(&self.log).map_or(0, |meta| meta.len());
            match self.start_once().await {
                Ok(server) => return Ok(server),
                Err(error) => {
                    let said = self.log_since(log_start);
                    if exit::says_disk_full(&said) {
                        return Err(Failure::environment(
                            format!(
                                "PostgreSQL cannot start: no space left on the disk of {}",
                                self.dir.display()
                            ),
                            "free some space there and start again; nothing committed was lost",
                        )
                        .into());
                    }
                    let port_taken =
                        said.contains("could not bind") || said.contains("Address already in use");
                    let still_ending = said.contains("pre-existing shared memory block")
                        || said.contains("lock file \"postmaster.pid\" already exists");
                    if attempt == TRIES || !(port_taken || still_ending) {
                        return Err(error.context(format!(
                            "PostgreSQL did not start; {} ends with:\n{}",
                            self.log.display(),
                            last_lines(&said, 8)
                        )));
                    }
                    if port_taken {
                        self.port = free_port()?;
                    }
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        }
        unreachable!("the last try returns")
    }

    async fn start_once(&self) -> Result<Server> {
        self.write_settings()?;
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.log)?;
        let mut command = self.command("postgres");
        // Its own process group: ctrl-C in the terminal reaches us alone, and we stop it when we are done.
        command.arg("-D").arg(&self.dir).process_group(0);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = tokio::process::Command::from(command)
            .spawn()
            .with_context(|| format!("run {}", self.install.program("postgres").display()))?;
        let mut server = Server { child };
        let pid = server.child.id();
        let start = Instant::now();
        loop {
            if let Some(status) = server.child.try_wait()? {
                bail!("PostgreSQL ended with {status}");
            }
            if let Some(state) = PidFile::read(&self.dir).filter(|file| Some(file.pid) == pid) {
                if state.status == "ready" {
                    return Ok(server);
                }
            }
            if start.elapsed() > START_DEADLINE {
                bail!("PostgreSQL was not ready after {} s", START_DEADLINE.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Makes the cluster beside its place and moves it there whole, so that a crash leaves none or all of it.
    fn initialise(&self, admin_password: &str) -> Result<()> {
        let fresh = self.dir.with_extension("new");
        if fresh.exists() {
            fs::remove_dir_all(&fresh).with_context(|| format!("remove {}", fresh.display()))?;
        }
        fs::create_dir(&fresh).with_context(|| format!("make {}", fresh.display()))?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o700))?;
        self.give(&fresh)?;

        let password = PasswordFile::write(&self.dir.with_extension("password"), admin_password)?;
        self.give(&password.0)?;
        let output = self
            .command("initdb")
            .args(["--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums", "--no-instructions"])
            .args(self.settings.icu_locale.iter().flat_map(|l| ["--locale-provider=icu".to_owned(), format!("--icu-locale={l}")]))
            .args(["--auth-local=scram-sha-256", "--auth-host=scram-sha-256"])
            .arg(format!("--username={ADMIN}"))
            .arg("--pwfile")
            .arg(&password.0)
            .arg("-D")
            .arg(&fresh)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("run {}", self.install.program("initdb").display()))?;
        drop(password);
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let _ = fs::remove_dir_all(&fresh);
            if exit::says_disk_full(&said) {
                return Err(Failure::environment(
                    format!("no space left on the disk of {} while making the cluster", self.dir.display()),
                    "free some space there, or name a directory on another disk with --data-dir",
                )
                .into());
            }
            if said.contains("invalid locale") {
                return Err(Failure::environment(
                    "this system lacks the locale C.UTF-8",
                    "install it (Debian: apt-get install libc-bin, Fedora: dnf install glibc-langpack-en) and start again",
                )
                .into());
            }
            bail!("initdb ended with {}:\n{}", output.status, last_lines(&said, 8));
        }
        let mut main = OpenOptions::new().append(true).open(fresh.join("postgresql.conf"))?;
        writeln!(
            main,
            "\n# Written anew at each start of watershed; ALTER SYSTEM wins over it.\ninclude 'watershed.conf'"
        )?;
        main.sync_all()?;
        fs::write(fresh.join("watershed.conf"), "")?;
        self.give(&fresh.join("watershed.conf"))?;
        fs::rename(&fresh, &self.dir)?;
        if let Some(parent) = self.dir.parent() {
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    }

    fn write_settings(&self) -> Result<()> {
        let path = self.dir.join("watershed.conf");
        let fresh = self.dir.join("watershed.conf.new");
        fs::write(&fresh, self.settings.print(self.port, &self.socket_dir))?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))?;
        self.give(&fresh)?;
        fs::rename(&fresh, &path).with_context(|| format!("write {}", path.display()))
    }

    /// Whether the server takes `wal_compression = lz4`: asked of its program, for it depends on how that was built.
    fn knows_lz4(&self) -> bool {
        let asked = self
            .command("postgres")
            .arg("-D")
            .arg(&self.dir)
            .args(["-c", "wal_compression=lz4", "-C", "wal_compression"])
            .stdin(Stdio::null())
            .output();
        asked.is_ok_and(|output| output.status.success() && output.stdout.trim_ascii() == b"lz4")
    }

    /// A server that outlived a killed run is ours: it is stopped cleanly, so that nothing holds the cluster.
    async fn settle_leftover(&self) -> Result<()> {
        let Some(file) = PidFile::read(&self.dir) else { return Ok(()) };
        if !serves(file.pid, &self.dir) {
            return Ok(()); // a stale file: PostgreSQL itself removes it
        }
        tracing::info!(pid = file.pid, "stopping the PostgreSQL server that a killed run left behind");
        stop_process(Pid::from_raw(file.pid as i32), || !serves(file.pid, &self.dir)).await
    }

    /// One of PostgreSQL's programs, as the user that runs the server and without its environment variables.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.install.program(program));
        for (key, _) in std::env::vars_os() {
            if key
                .to_str()
                .is_some_and(|key| key.starts_with("PG") || key.starts_with("LC_") || key == "LANGUAGE")
            {
                command.env_remove(key);
            }
        }
        command.env("LANG", "C").current_dir("/");
        if let Some(account) = &self.account {
            account.apply(&mut command);
        }
        command
    }

    /// Makes a file the server account's, where we are root.
    fn give(&self, path: &Path) -> Result<()> {
        self.account.as_ref().map_or(Ok(()), |account| account.give(path))
    }

    fn log_since(&self, start: u64) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(&self.log)?;
            file.seek(SeekFrom::Start(start))?;
            let mut bytes = Vec::new();
            file.take(1 << 20).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_default()
    }
}

/// The server's process. Dropping it asks for a fast shutdown without waiting for it.
#[derive(Debug)]
pub struct Server {
    child: Child,
}

impl Server {
    /// None once it has ended and been waited for.
    fn pid(&self) -> Option<Pid> {
        self.child.id().map(|pid| Pid::from_raw(pid as i32))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            let _ = kill(pid, Signal::SIGINT);
        }
    }
}

/// Asks for a fast shutdown (open transactions end, a checkpoint is written), and insists after a while.
async fn stop_process(pid: Pid, gone: impl Fn() -> bool) -> Result<()> {
    let start = Instant::now();
    let mut insisted = false;
    let _ = kill(pid, Signal::SIGINT);
    while !gone() {
        if start.elapsed() > STOP_DEADLINE && !insisted {
            tracing::warn!(%pid, "PostgreSQL does not stop; stopping it at once, it will recover at its next start");
            let _ = kill(pid, Signal::SIGQUIT);
            insisted = true;
        }
        if start.elapsed() > STOP_DEADLINE + Duration::from_secs(30) {
            bail!("PostgreSQL (pid {pid}) does not stop");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// `postmaster.pid` (PostgreSQL source: src/include/utils/pidfile.h): line 1 the pid, line 8 the status.
struct PidFile {
    pid: u32,
    status: String,
}

impl PidFile {
    fn read(cluster: &Path) -> Option<PidFile> {
        let text = fs::read_to_string(cluster.join("postmaster.pid")).ok()?;
        let mut lines = text.lines();
        let pid = lines.next()?.trim().parse().ok()?;
        Some(PidFile { pid, status: lines.nth(6).unwrap_or_default().trim().to_owned() })
    }
}

/// Whether a process is a server of this cluster: a pid alone may have been given to another program since.
fn serves(pid: u32, cluster: &Path) -> bool {
    if kill(Pid::from_raw(pid as i32), None) == Err(nix::errno::Errno::ESRCH) {
        return false;
    }
    match fs::read_link(format!("/proc/{pid}/cwd")) {
        Ok(cwd) => cwd == fs::canonicalize(cluster).unwrap_or_else(|_| cluster.to_owned()),
        // Without /proc the pid in the file has to do; with it, a process without a directory is a zombie.
        Err(_) => !Path::new("/proc/self").exists(),
    }
}

/// Major version of the cluster in a directory; None if there is none yet.
fn existing_major(dir: &Path) -> Result<Option<u32>> {
    match fs::read_to_string(dir.join("PG_VERSION")) {
        Ok(text) => text.trim().parse().map(Some).with_context(|| {
            format!("{} does not name a PostgreSQL version", dir.join("PG_VERSION").display())
        }),
        Err(error) if error.kind() == ErrorKind::NotFound && !dir.exists() => Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Failure::environment(
            format!("{} exists but is no PostgreSQL cluster", dir.display()),
            "move it away, or name another directory with --data-dir",
        )
        .into()),
        Err(error) => Err(Failure::environment(
            format!("cannot read the cluster in {}: {error}", dir.display()),
            "run watershed as the user that made it",
        )
        .into()),
    }
}

/// `DIR/sock`, or a short directory under the temporary one where that path would be too long for a socket.
fn make_socket_dir(root: &Path, account: Option<&Account>) -> Result<PathBuf> {
    let mut dir = root.join("sock");
    if dir.as_os_str().len() + "/.s.PGSQL.65535.lock".len() > MAX_SOCKET_PATH {
        let name = hex::encode(&Sha256::digest(root.as_os_str().as_encoded_bytes())[..8]);
        dir = std::env::temp_dir().join(format!("watershed-{name}"));
    }
    match fs::create_dir(&dir) {
        Ok(()) => {
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
            account.map_or(Ok(()), |account| account.give(&dir))?;
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let meta = fs::symlink_metadata(&dir)?;
            let ours = account.map_or(nix::unistd::geteuid().as_raw(), Account::uid);
            if !meta.is_dir() || (meta.uid() != ours && meta.uid() != nix::unistd::geteuid().as_raw()) {
                return Err(Failure::environment(
                    format!("{} belongs to someone else", dir.display()),
                    "remove it, or name another directory with --data-dir",
                )
                .into());
            }
            account.map_or(Ok(()), |account| account.give(&dir))?;
        }
        Err(error) => return Err(error).with_context(|| format!("make {}", dir.display())),
    }
    Ok(dir)
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// A loopback port that nobody listens on now.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free loopback port")?;
    Ok(listener.local_addr()?.port())
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].iter().map(|line| format!("  {line}\n")).collect()
}

/// A password on disk for as long as initdb needs it.
struct PasswordFile(PathBuf);

impl PasswordFile {
    fn write(path: &Path, password: &str) -> Result<PasswordFile> {
        let _ = fs::remove_file(path);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(password.as_bytes())?;
        Ok(PasswordFile(path.to_owned()))
    }
}

impl Drop for PasswordFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests;
