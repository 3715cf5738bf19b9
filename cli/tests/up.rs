//! `watershed up` as its users meet it: started, refused, stopped, killed and started again. Through the program
//! and its files only.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Nothing here takes this long; it turns a hang into a failure.
const PATIENCE: Duration = Duration::from_secs(240);

/// A directory that the unprivileged user of PostgreSQL can reach when the tests run as root.
fn scratch() -> TempDir {
    tempfile::Builder::new()
        .prefix("watershed-up-")
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir()
        .unwrap()
}

fn watershed(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_watershed"));
    command.args(args).current_dir("/").stdin(Stdio::null());
    for (key, _) in std::env::vars() {
        if key.starts_with("PG") || (key.starts_with("WATERSHED_") && key != "WATERSHED_PG_BIN") {
            command.env_remove(key);
        }
    }
    command
}

fn up(dir: &Path) -> Command {
    watershed(&[
        "up",
        "--data-dir",
        dir.to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
        "--flight",
        "127.0.0.1:0",
    ])
}

/// A running `watershed up`; killed if a test ends early.
struct Running {
    child: Child,
    dir: PathBuf,
}

impl Running {
    fn start(dir: &Path) -> Running {
        let mut child = up(dir).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let (said, says) = mpsc::channel();
        std::thread::spawn(move || {
            let mut lines = String::new();
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                lines += &line;
                lines += "\n";
                if line == "ready" {
                    let _ = said.send(Ok(()));
                }
            }
            let _ = said.send(Err(lines));
        });
        // The pipe is emptied all the time, or the program would wait for it.
        let (complained, complaints) = mpsc::channel();
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            let _ = complained.send(String::from_utf8_lossy(&text).into_owned());
        });
        let running = Running { child, dir: dir.to_owned() };
        match says.recv_timeout(PATIENCE) {
            Ok(Ok(())) => running,
            Ok(Err(lines)) => {
                panic!(
                    "up ended before it was ready:\n{lines}{}",
                    complaints.recv_timeout(PATIENCE).unwrap_or_default()
                )
            }
            Err(_) => panic!("up was not ready after {PATIENCE:?}; {}", log_tail(dir)),
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    fn connection(&self, key: &str) -> String {
        let text = fs::read_to_string(self.dir.join("connection.env")).unwrap();
        let prefix = format!("{key}=");
        text.lines()
            .find_map(|line| line.strip_prefix(&prefix))
            .unwrap_or_else(|| panic!("no {key} in\n{text}"))
            .to_owned()
    }

    fn client(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config
            .host(self.connection("PGHOST"))
            .port(self.connection("PGPORT").parse().unwrap())
            .user(self.connection("PGUSER"))
            .password(self.connection("PGPASSWORD"))
            .dbname(self.connection("PGDATABASE"));
        config
    }

    fn stop(mut self, signal: Signal) -> ExitStatus {
        kill(self.pid(), signal).unwrap();
        let start = Instant::now();
        loop {
            match self.child.try_wait().unwrap() {
                Some(status) => return status,
                None => assert!(
                    start.elapsed() < PATIENCE,
                    "up does not end after {signal}; {}",
                    log_tail(&self.dir)
                ),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill(self.pid(), Signal::SIGINT);
            let _ = self.child.wait();
        }
    }
}

fn log_tail(dir: &Path) -> String {
    let text = fs::read_to_string(dir.join("pg.log")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!("PostgreSQL said:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"))
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// First value of the first row, as text, or the error.
async fn ask(config: &tokio_postgres::Config, sql: &str) -> Result<String, tokio_postgres::Error> {
    let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    for message in client.simple_query(sql).await? {
        if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
            return Ok(row.get(0).unwrap_or("NULL").to_owned());
        }
    }
    Ok(String::new())
}

fn postmaster(dir: &Path) -> Option<Pid> {
    let text = fs::read_to_string(dir.join("pg/postmaster.pid")).ok()?;
    text.lines().next()?.trim().parse().ok().map(Pid::from_raw)
}

fn is_alive(pid: Pid) -> bool {
    // A zombie has ended too; its parent has not looked yet.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !matches!(stat.rsplit(") ").next().and_then(|rest| rest.chars().next()), None | Some('Z' | 'X'))
}

fn cluster_state(dir: &Path) -> String {
    let mut programs: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin/pg_controldata"))
        .filter(|program| program.exists())
        .collect();
    programs.sort();
    let program = programs.pop().unwrap_or_else(|| "pg_controldata".into());
    let output = Command::new(program).env("LC_ALL", "C").arg(dir.join("pg")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("Database cluster state:"));
    line.unwrap_or_else(|| panic!("pg_controldata said: {text}")).trim().to_owned()
}

fn refused(mut command: Command) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command.output().unwrap();
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode()
        & 0o777
}

#[test]
fn starts_serves_refuses_a_second_start_and_stops_cleanly() {
    let scratch = scratch();
    let dir = scratch.path().join("data");
    let running = Running::start(&dir);
    let config = running.client();

    for file in ["connection.env", "secrets"] {
        assert_eq!(mode(&dir.join(file)), 0o600, "{file}");
    }
    assert_eq!(mode(&dir.join("pg")), 0o700);
    assert!(!dir.join("pg.password").exists());
    assert!(running.connection("WATERSHED_POSTGRES_URL").starts_with("postgres://watershed:"));
    let secrets = fs::read_to_string(dir.join("secrets")).unwrap();
    for key in [
        "WATERSHED_ADMIN_URL",
        "WATERSHED_INGEST_URL",
        "WATERSHED_ARCHIVER_URL",
        "WATERSHED_GATEWAY_URL",
        "WATERSHED_ANALYST_PASSWORD",
        "WATERSHED_PROBE_SECRET",
        "WATERSHED_LAKE",
        "WATERSHED_HTTP",
    ] {
        assert!(secrets.lines().any(|line| line.starts_with(&format!("{key}="))), "{key} is missing");
    }

    for (sql, expected) in [
        ("SELECT current_user", "watershed"),
        ("SELECT count(*) FROM logs", "0"),
        ("SHOW data_checksums", "on"),
        ("SHOW fsync", "on"),
        ("SHOW server_encoding", "UTF8"),
        ("SELECT datcollate FROM pg_database WHERE datname = current_database()", "C.UTF-8"),
        ("SELECT current_setting('max_prepared_transactions')::int > 0", "t"),
        ("SELECT rolsuper FROM pg_roles WHERE rolname = current_user", "f"),
        ("SELECT current_setting('watershed.data_dir')", dir.to_str().unwrap()),
    ] {
        assert_eq!(block_on(ask(&config, sql)).unwrap(), expected, "{sql}");
    }
    let mut wrong = config.clone();
    wrong.password("wrong");
    let error = block_on(ask(&wrong, "SELECT 1")).unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("28P01"), "{error}");

    let (code, said) = refused(up(&dir));
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains(&format!("pid {}", running.pid())), "{said}");

    let server = postmaster(&dir).unwrap();
    assert_eq!(running.stop(Signal::SIGTERM).code(), Some(0));
    assert!(!is_alive(server));
    assert_eq!(cluster_state(&dir), "shut down");

    let (code, said) = refused(watershed(&["verify", "--data-dir", dir.to_str().unwrap()]));
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("watershed up"), "{said}");

    // Again, with the same passwords and port; ctrl-C this time.
    let again = Running::start(&dir);
    assert_eq!(again.client().get_password(), config.get_password());
    assert_eq!(block_on(ask(&again.client(), "SELECT count(*) FROM events")).unwrap(), "0");
    assert_eq!(again.stop(Signal::SIGINT).code(), Some(0));
    assert_eq!(cluster_state(&dir), "shut down");
}

#[test]
fn a_session_open_at_the_signal_may_end_its_transaction() {
    let scratch = scratch();
    let dir = scratch.path().join("data");
    let running = Running::start(&dir);
    let config = running.client();
    block_on(async {
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        client
            .batch_execute("BEGIN; INSERT INTO logs (ts, message) VALUES (now(), 'drained')")
            .await
            .unwrap();
        kill(running.pid(), Signal::SIGTERM).unwrap();
        // The gateway takes no new clients once it drains.
        let start = Instant::now();
        while config.connect(tokio_postgres::NoTls).await.is_ok() {
            assert!(start.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        client.batch_execute("COMMIT").await.unwrap();
        drop(client);
        let _ = connection.await;
    });
    let mut running = running;
    assert_eq!(running.child.wait().unwrap().code(), Some(0));
    assert_eq!(cluster_state(&dir), "shut down");
    let again = Running::start(&dir);
    assert_eq!(
        block_on(ask(&again.client(), "SELECT count(*) FROM logs WHERE message = 'drained'")).unwrap(),
        "1"
    );
    assert_eq!(again.stop(Signal::SIGTERM).code(), Some(0));
}

#[test]
fn killed_at_once_it_starts_again_and_lost_nothing() {
    let scratch = scratch();
    let dir = scratch.path().join("data");
    let insert = "INSERT INTO logs (ts, message) VALUES (now(), 'kept')";

    // PostgreSQL outlives the kill: the next start takes over what is left.
    let running = Running::start(&dir);
    block_on(ask(&running.client(), insert)).unwrap();
    let left_behind = postmaster(&dir).unwrap();
    running.stop(Signal::SIGKILL);
    assert!(is_alive(left_behind));
    let running = Running::start(&dir);
    assert!(!is_alive(left_behind));
    assert_eq!(block_on(ask(&running.client(), "SELECT count(*) FROM logs")).unwrap(), "1");

    // Both die: the next start recovers from the log.
    block_on(ask(&running.client(), insert)).unwrap();
    let server = postmaster(&dir).unwrap();
    running.stop(Signal::SIGKILL);
    kill(server, Signal::SIGKILL).unwrap();
    let running = Running::start(&dir);
    assert_eq!(block_on(ask(&running.client(), "SELECT count(*) FROM logs")).unwrap(), "2");
    assert_eq!(running.stop(Signal::SIGTERM).code(), Some(0));
    assert_eq!(cluster_state(&dir), "shut down");
}

#[test]
fn a_postgresql_that_dies_is_started_again() {
    let scratch = scratch();
    let dir = scratch.path().join("data");
    let running = Running::start(&dir);
    let config = running.client();
    block_on(ask(&config, "INSERT INTO logs (ts, message) VALUES (now(), 'kept')")).unwrap();
    let server = postmaster(&dir).unwrap();
    kill(server, Signal::SIGKILL).unwrap();
    let start = Instant::now();
    let count = loop {
        match block_on(ask(&config, "SELECT count(*) FROM logs")) {
            Ok(count) if postmaster(&dir).is_some_and(|pid| pid != server) => break count,
            answer => assert!(start.elapsed() < PATIENCE, "{answer:?}; {}", log_tail(&dir)),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(count, "1");
    assert_eq!(running.stop(Signal::SIGTERM).code(), Some(0));
    assert_eq!(cluster_state(&dir), "shut down");
}

#[test]
fn an_address_in_use_is_named_with_what_to_do() {
    let scratch = scratch();
    let dir = scratch.path().join("data");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let flags = ["--listen", "--http", "--flight"];
    for flag in flags {
        let mut arguments = vec!["up", "--data-dir", dir.to_str().unwrap(), flag, &address];
        for other in flags.into_iter().filter(|other| *other != flag) {
            arguments.extend([other, "127.0.0.1:0"]);
        }
        let (code, said) = refused(watershed(&arguments));
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains(&address) && said.contains("in use") && said.contains(flag), "{said}");
    }
}

#[test]
fn a_missing_or_old_postgresql_is_named_with_what_to_do() {
    let scratch = scratch();
    let dir = scratch.path().join("data");
    let (code, said) = refused({
        let mut command = up(&dir);
        command.env("WATERSHED_PG_BIN", scratch.path().join("none"));
        command
    });
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("no PostgreSQL") && said.contains("apt-get install"), "{said}");

    let old = scratch.path().join("old");
    fs::create_dir(&old).unwrap();
    for program in ["postgres", "initdb"] {
        fs::write(old.join(program), "#!/bin/sh\necho 'postgres (PostgreSQL) 13.4'\n").unwrap();
        fs::set_permissions(old.join(program), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let (code, said) = refused({
        let mut command = up(&dir);
        command.args(["--pg-bin", old.to_str().unwrap()]);
        command
    });
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("PostgreSQL 13") && said.contains("too old"), "{said}");
}

#[test]
fn a_directory_that_cannot_be_used_is_named_with_what_to_do() {
    let scratch = scratch();
    let file = scratch.path().join("file");
    fs::write(&file, "").unwrap();
    let (code, said) = refused(up(&file.join("data")));
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("file") && said.contains("--data-dir"), "{said}");

    if nix::unistd::geteuid().is_root() {
        // PostgreSQL's own user cannot pass through a directory that is closed to it.
        let closed = scratch.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        let (code, said) = refused(up(&closed.join("data")));
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains(&format!("may not enter {}", closed.display())), "{said}");
    }
}

#[test]
fn a_full_disk_is_named_with_what_to_do() {
    let scratch = scratch();
    let disk = scratch.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=16m,mode=755", "tmpfs"])
        .arg(&disk)
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        eprintln!("a small disk cannot be mounted here; not tested");
        return;
    }
    let (code, said) = refused(up(&disk.join("data")));
    let unmounted = Command::new("umount").arg(&disk).status().unwrap();
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("MiB free") && said.contains("--data-dir"), "{said}");
    assert!(unmounted.success());
}

#[test]
fn wrong_settings_are_refused_before_anything_starts() {
    let scratch = scratch();
    let dir = scratch.path().join("data");
    let file = scratch.path().join("watershed.toml");
    fs::write(&file, "[gateway]\nlisten_on = \"127.0.0.1:0\"\n").unwrap();
    let (code, said) = refused({
        let mut command = up(&dir);
        command.args(["--config", file.to_str().unwrap()]);
        command
    });
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("listen_on"), "{said}");
    assert!(!dir.exists());
}
