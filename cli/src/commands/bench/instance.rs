//! A `watershed up` of the benchmark's own, as a child process, so that its cost can be told from the benchmark's.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lake::log::LakeTable;
use lake::spec::load_specs;
use sqlx::Connection;
use tokio::process::{Child, Command};

use super::process::{Cost, Processes};
use crate::bootstrap;
use crate::datadir::{DataDir, Pairs};
use crate::wire_client::Target;

/// A running instance. Dropped without [`Instance::stop`], it is stopped all the same.
pub struct Instance {
    child: Child,
    data: DataDir,
    pub target: Target,
    /// Where Arrow Flight SQL is spoken.
    pub flight_url: String,
    /// URL of the cluster as its administrator, past the gateway.
    pub admin_url: String,
    pub archiver_url: String,
    pub lake_root: url::Url,
}

/// What the processes of an instance have cost since they began.
#[derive(Clone, Copy, Debug, Default)]
pub struct Costs {
    pub watershed: Cost,
    pub postgres: Cost,
}

/// Settings with which nothing moves by itself: rows stay where they are, also while the disk fills up, and files as they are.
pub const AT_REST: &str =
    "[archiver]\ninterval = \"1d\"\nmin_rows = 100000000000\n[compactor]\nenabled = false\n[retention]\nearly = false\n";
const START: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(120);

impl Instance {
    /// A tiered table's files as they are now.
    pub async fn lake_table(&self, name: &str) -> Result<LakeTable> {
        let mut conn = bootstrap::connect(&self.archiver_url).await?;
        let specs = load_specs(&mut conn).await?;
        conn.close().await?;
        let spec = specs.iter().find(|s| s.qualified() == name).with_context(|| format!("{name} is not tiered"))?;
        LakeTable::open(&self.lake_root, spec).await?.context("nothing was archived")
    }

    /// Starts `watershed up` in `dir` with these settings and waits until it answers.
    pub async fn start(dir: &Path, settings: &str) -> Result<Instance> {
        let data = DataDir::at(dir)?;
        data.create()?;
        let file = dir.join("bench.toml");
        std::fs::write(&file, settings).with_context(|| format!("write {}", file.display()))?;
        let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("up.log"))?;
        let _ = std::fs::remove_file(data.connection_env());
        let mut child = Command::new(std::env::current_exe()?)
            .args(["up", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--flight", "127.0.0.1:0", "--data-dir"])
            .arg(dir)
            .arg("--config")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("start watershed up")?;
        let started = tokio::time::timeout(START, ready(&mut child, &data)).await;
        let (connection, secrets) = started
            .with_context(|| format!("watershed up was not ready within {} s", START.as_secs()))
            .and_then(|r| r)
            .with_context(|| format!("see {}", dir.join("up.log").display()))?;
        let value = |pairs: &Pairs, key: &str| {
            pairs.get(key).map(str::to_owned).with_context(|| format!("{key} is missing in {}", dir.display()))
        };
        Ok(Instance {
            child,
            target: Target {
                host: value(&connection, "PGHOST")?,
                port: value(&connection, "PGPORT")?.parse().context("read the gateway's port")?,
                user: value(&connection, "PGUSER")?,
                password: value(&connection, "PGPASSWORD")?,
                database: value(&connection, "PGDATABASE")?,
            },
            flight_url: value(&connection, "WATERSHED_FLIGHT_URL")?,
            admin_url: value(&secrets, "WATERSHED_ADMIN_URL")?,
            archiver_url: value(&secrets, "WATERSHED_ARCHIVER_URL")?,
            lake_root: url::Url::parse(&value(&secrets, "WATERSHED_LAKE")?).context("read WATERSHED_LAKE")?,
            data,
        })
    }

    pub fn costs(&self) -> Costs {
        let all = Processes::now();
        let postmaster = std::fs::read_to_string(self.data.cluster().join("postmaster.pid"));
        let postmaster = postmaster.ok().and_then(|text| text.lines().next()?.trim().parse().ok());
        Costs {
            watershed: self.child.id().map(|pid| all.alone(pid)).unwrap_or_default(),
            postgres: postmaster.map(|pid| all.family(pid)).unwrap_or_default(),
        }
    }

    /// Its process; `None` once it has ended.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// The most memory its process has held, in bytes.
    pub fn peak_bytes(&self) -> u64 {
        self.child.id().and_then(super::process::peak_bytes).unwrap_or_default()
    }

    /// Stops it and starts it anew with these settings. `moved`: the lake was copied to where they say, which `up` would refuse.
    pub async fn restart(&mut self, dir: &Path, settings: &str, moved: bool) -> Result<()> {
        self.end().await?;
        if moved {
            let secrets = self.data.secrets();
            let kept = std::fs::read_to_string(&secrets).with_context(|| format!("read {}", secrets.display()))?;
            let lines: Vec<&str> = kept.lines().filter(|line| !line.starts_with("WATERSHED_LAKE=")).collect();
            std::fs::write(&secrets, lines.join("\n") + "\n").with_context(|| format!("write {}", secrets.display()))?;
        }
        *self = Instance::start(dir, settings).await?;
        Ok(())
    }

    /// Stops it as SIGTERM does.
    pub async fn stop(mut self) -> Result<()> {
        self.end().await
    }

    async fn end(&mut self) -> Result<()> {
        if let Some(pid) = self.child.id() {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
        }
        let ended = tokio::time::timeout(STOP, self.child.wait()).await;
        let status = ended.context("watershed up did not stop within two minutes")??;
        if !status.success() {
            bail!("watershed up ended with {status}; see {}", self.data.root().join("up.log").display());
        }
        Ok(())
    }
}

/// A benchmark that fails leaves no PostgreSQL behind: `up` is asked to stop it, and given time; killed at once it could not.
impl Drop for Instance {
    fn drop(&mut self) {
        let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) else { return };
        if nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).is_err() {
            return;
        }
        let since = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if since.elapsed() > STOP {
                tracing::warn!(pid, "watershed up did not stop; it is killed, and its PostgreSQL may be left");
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Waits for the files that `up` writes, then for a first answer.
async fn ready(child: &mut Child, data: &DataDir) -> Result<(Pairs, Pairs)> {
    loop {
        if let Some(status) = child.try_wait()? {
            bail!("watershed up ended with {status}");
        }
        // The second is complete once the first is there; a first query has then been tried against the gateway.
        if let (Some(connection), Some(secrets)) = (Pairs::read(&data.connection_env())?, Pairs::read(&data.secrets())?)
            && answers(&connection).await
        {
            return Ok((connection, secrets));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn answers(connection: &Pairs) -> bool {
    let (Some(host), Some(port)) = (connection.get("PGHOST"), connection.get("PGPORT")) else { return false };
    let target = Target {
        host: host.into(),
        port: port.parse().unwrap_or_default(),
        user: connection.get("PGUSER").unwrap_or_default().into(),
        password: connection.get("PGPASSWORD").unwrap_or_default().into(),
        database: connection.get("PGDATABASE").unwrap_or_default().into(),
    };
    match crate::wire_client::Client::connect(&target).await {
        Ok(mut client) => client.simple("SELECT count(*) FROM public.logs WHERE ts > pg_catalog.now()").await.is_ok(),
        Err(_) => false,
    }
}

/// Runs a command of ours against the instance in `dir`; the most memory it held.
pub async fn watershed(dir: &Path, arguments: &[&str]) -> Result<u64> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(arguments)
        .arg("--data-dir")
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start watershed {}", arguments.join(" ")))?;
    let pid = child.id();
    let mut peak = 0;
    let status = loop {
        // The figure is the kernel's own high-water mark: a look now and then misses only the very end.
        peak = peak.max(pid.and_then(super::process::peak_bytes).unwrap_or_default());
        tokio::select! {
            status = child.wait() => break status?,
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
    };
    if !status.success() {
        bail!("watershed {} ended with {status}", arguments.join(" "));
    }
    Ok(peak)
}

/// Where a benchmark keeps its data: a folder of its own, removed at the end unless it is to be kept.
pub struct Workplace {
    pub path: PathBuf,
    keep: bool,
}

impl Workplace {
    pub fn new(named: Option<&Path>, keep: bool) -> Result<Workplace> {
        let path = match named {
            // Not every program that is started begins in this directory.
            Some(path) => std::path::absolute(path).with_context(|| format!("resolve {}", path.display()))?,
            None => std::env::current_dir()?.join(format!("watershed-bench-{}", std::process::id())),
        };
        if path.exists() {
            return Err(crate::exit::Failure::usage(
                format!("{} exists already", path.display()),
                "name a folder that does not exist yet with --dir: it is made, and removed at the end",
            )
            .into());
        }
        std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        // PostgreSQL's own user must pass through when we are root.
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o711))?;
        Ok(Workplace { path, keep })
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the benchmark's folder was left behind");
        }
    }
}

/// Paths of the files that a table consists of.
pub fn local_files(table: &LakeTable) -> Result<Vec<String>> {
    let dir = table.url().to_file_path().ok().context("the lake is not on this machine")?;
    Ok(table.current().files.iter().map(|f| dir.join(&f.path).display().to_string()).collect())
}
