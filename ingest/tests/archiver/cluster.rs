//! A private PostgreSQL cluster for tests: started when the first test needs it, stopped when the last one lets go of it.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};

use sqlx::{Connection, Executor, PgConnection};

/// The cluster's superuser.
const ADMIN: &str = "watershed_admin";

pub struct Cluster {
    dir: tempfile::TempDir,
    bin: PathBuf,
    /// PostgreSQL refuses to run as root: then it runs as this user.
    user: Option<String>,
}

/// A database with the project's migrations in it.
pub struct Database {
    pub cluster: Arc<Cluster>,
    pub name: String,
}

static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
static NEXT: AtomicU32 = AtomicU32::new(0);

fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        versions.map(|v| v.path().join("bin")).filter(|b| b.join("initdb").exists()).collect();
    found.sort();
    if let Some(bin) = found.pop() {
        return bin;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .find(|d| d.join("initdb").exists())
        .expect("these tests need PostgreSQL 15 or newer (initdb on PATH or below /usr/lib/postgresql)")
}

impl Cluster {
    /// The cluster that all tests of this process share.
    pub fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap();
        if let Some(cluster) = shared.upgrade() {
            return cluster;
        }
        let cluster = Arc::new(Self::start_new());
        *shared = Arc::downgrade(&cluster);
        cluster
    }

    /// A cluster of one's own, to be stopped and started.
    pub fn start_new() -> Self {
        let dir = tempfile::Builder::new().prefix("watershed-pg-").tempdir_in("/tmp").unwrap();
        let root = Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout == b"0\n");
        let cluster = Self { dir, bin: programs(), user: root.then(|| "postgres".into()) };
        if let Some(user) = &cluster.user {
            run(Command::new("chown").arg(format!("{user}:")).arg(cluster.dir.path()));
        }
        let data = cluster.data();
        run(cluster
            .command("initdb")
            .args(["-U", ADMIN, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-D"])
            .arg(&data));
        let settings = format!(
            "listen_addresses = ''\nunix_socket_directories = '{}'\nmax_prepared_transactions = 50\nmax_connections = 200\n\
             max_locks_per_transaction = 256\nwal_writer_delay = '10s'\nlog_min_messages = fatal\n",
            cluster.dir.path().display()
        );
        let conf = data.join("postgresql.auto.conf");
        std::fs::write(&conf, settings).unwrap();
        cluster.start();
        cluster
    }

    /// A copy made by pg_basebackup, not started: a standby of this server if `standby`, else the copy itself, to be started as it is or
    /// with settings of its own.
    pub fn base_backup(&self, standby: bool) -> Self {
        let dir = tempfile::Builder::new().prefix("watershed-pg-").tempdir_in("/tmp").unwrap();
        let copy = Self { dir, bin: self.bin.clone(), user: self.user.clone() };
        if let Some(user) = &copy.user {
            run(Command::new("chown").arg(format!("{user}:")).arg(copy.dir.path()));
        }
        let mut command = self.command("pg_basebackup");
        command.args(["-c", "fast", "-X", "stream", "-U", ADMIN, "-h"]).arg(self.dir.path());
        command.arg("-D").arg(copy.data());
        if standby {
            command.arg("-R");
        }
        run(&mut command);
        copy.set(&format!("unix_socket_directories = '{}'\n", copy.dir.path().display()));
        copy
    }

    /// Appends to the settings of a server that is not running.
    pub fn set(&self, lines: &str) {
        use std::io::Write;
        let conf = self.data().join("postgresql.auto.conf");
        std::fs::OpenOptions::new().append(true).open(conf).unwrap().write_all(lines.as_bytes()).unwrap();
    }

    /// Makes the next start a recovery to a place in the log that `wal` holds, and a promotion there.
    pub fn recover_until(&self, wal: &Path, lsn: &str) {
        self.set(&format!(
            "restore_command = 'cp {}/%f %p'\nrecovery_target_lsn = '{lsn}'\nrecovery_target_action = 'promote'\n",
            wal.display()
        ));
        std::fs::write(self.data().join("recovery.signal"), "").unwrap();
        if let Some(user) = &self.user {
            run(Command::new("chown").arg(format!("{user}:")).arg(self.data().join("recovery.signal")));
        }
    }

    pub fn promote(&self) {
        run(self.command("pg_ctl").args(["-w", "-D"]).arg(self.data()).arg("promote"));
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let program = self.bin.join(program);
        let mut command = match &self.user {
            Some(user) => {
                let mut c = Command::new("setpriv");
                c.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"])
                    .arg(program);
                c
            }
            None => Command::new(program),
        };
        command.current_dir("/tmp").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// The server's process.
    pub fn postmaster(&self) -> u32 {
        let file = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        file.lines().next().unwrap().trim().parse().unwrap()
    }

    pub fn start(&self) {
        run(self
            .command("pg_ctl")
            .args(["-w", "-t", "60", "-l"])
            .arg(self.dir.path().join("log"))
            .arg("-D")
            .arg(self.data())
            .arg("start"));
    }

    /// `mode`: fast, or immediate, which is what a crash of the server looks like.
    pub fn stop(&self, mode: &str) {
        run(self.command("pg_ctl").args(["-w", "-m", mode, "-D"]).arg(self.data()).arg("stop"));
    }

    pub fn url(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}@localhost/{database}?host={}", self.dir.path().display())
    }

    /// A new database with the migrations.
    pub async fn database(self: &Arc<Self>) -> Database {
        let name = format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut admin = PgConnection::connect(&self.url(ADMIN, "postgres")).await.unwrap();
        admin.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
        // Roles are of the whole cluster: two databases must not make them at the same moment.
        admin.execute("SELECT pg_advisory_lock(1)").await.unwrap();
        let mut conn = PgConnection::connect(&self.url(ADMIN, &name)).await.unwrap();
        let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sql/migrations");
        sqlx::migrate::Migrator::new(migrations).await.unwrap().run(&mut conn).await.unwrap();
        admin.close().await.unwrap();
        Database { cluster: self.clone(), name }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self
            .command("pg_ctl")
            .args(["-w", "-m", "immediate", "-D"])
            .arg(self.data())
            .arg("stop")
            .status();
    }
}

impl Database {
    pub fn url(&self, role: &str) -> String {
        self.cluster.url(role, &self.name)
    }

    /// A connection as the superuser.
    pub async fn admin(&self) -> PgConnection {
        PgConnection::connect(&self.url(ADMIN)).await.unwrap()
    }
}

fn run(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}
