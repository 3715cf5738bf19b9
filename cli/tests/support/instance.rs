//! A product under test: `watershed up` in a directory of its own, started, found ready, killed, restarted and cleaned up.
//!
//! It knows the command line, `connection.env` and `secrets`. It does not look into the stores.
//! With WATERSHED_TEST_DATA_DIR set, [`Instance::shared`] uses the `up` that already runs there (for work on the tests themselves).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use super::kafka::lasting_port;
use super::wait_for;
use super::wire::{Client, Host, Target};

/// Stops and cleans up when its standard input ends, that is, when the test process is gone for whatever reason:
/// first `up`, then a cluster that a killed `up` may have left, then the directory.
const KEEPER: &str = r#"
log=$1; pidfile=$2; dir=$3; keep=$4; shift 4
"$@" >>"$log" 2>&1 </dev/null &
echo $! >"$pidfile.new"; mv "$pidfile.new" "$pidfile"
cat >/dev/null
kill -TERM "$(cat "$pidfile")" 2>/dev/null
wait
if [ -f "$keep" ]; then exit 0; fi
if [ -f "$dir/pg/postmaster.pid" ]; then kill -QUIT "$(head -1 "$dir/pg/postmaster.pid")" 2>/dev/null; sleep 1; fi
rm -rf "$(dirname "$dir")"
"#;

/// Where a test has no settings of its own: a machine whose disk is rather full must not make days leave early.
const SETTINGS: &str = "[ingest.pressure]\nmin_free = \"64MiB\"\nmin_free_percent = 0.1\n";

/// How the background services of `up` behave; what is not named has the product's own default.
#[derive(Clone, Debug)]
pub struct Options {
    /// Environment variables of `up`.
    pub environment: Vec<(String, String)>,
}

impl Options {
    /// Archives and compacts only when a test asks for it.
    pub fn on_demand() -> Options {
        Options::default().with("WATERSHED_ARCHIVE_INTERVAL", "24h").with("WATERSHED_COMPACT_INTERVAL", "24h")
    }

    /// Archives and compacts all the time.
    pub fn busy() -> Options {
        Options::default()
            .with("WATERSHED_ARCHIVE_INTERVAL", "300ms")
            .with("WATERSHED_ARCHIVE_MIN_ROWS", "1")
            .with("WATERSHED_COMPACT_INTERVAL", "1s")
    }

    pub fn with(mut self, name: &str, value: &str) -> Options {
        self.environment.retain(|(other, _)| other != name);
        self.environment.push((name.into(), value.into()));
        self
    }
}

impl Default for Options {
    fn default() -> Options {
        let mut options = Options { environment: vec![("WATERSHED_DRAIN_TIMEOUT".into(), "2s".into())] };
        // The one setting of the caller's that counts: which PostgreSQL is tested against (deploy/local/majors/server.sh has others).
        if let Ok(bin) = std::env::var("WATERSHED_PG_BIN") {
            options = options.with("WATERSHED_PG_BIN", &bin);
        }
        options
    }
}

struct Running {
    keeper: Child,
    pid: i32,
}

/// One data directory and, most of the time, the `up` that runs on it.
pub struct Instance {
    /// The parent of the data directory, ours alone.
    home: PathBuf,
    dir: PathBuf,
    listen: u16,
    http: u16,
    options: Options,
    running: Mutex<Option<Running>>,
}

/// The program under test: WATERSHED_TEST_BINARY, else the one that was built with the tests.
pub fn binary() -> PathBuf {
    std::env::var_os("WATERSHED_TEST_BINARY")
        .map_or_else(|| env!("CARGO_BIN_EXE_watershed").into(), PathBuf::from)
}

impl Instance {
    /// Starts `up` on a new directory and waits until it says that it is ready.
    pub fn start(options: Options) -> Instance {
        let home = tempfile::Builder::new()
            .prefix("watershed-test-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()
            .expect("a temporary directory")
            .keep();
        let instance = Instance {
            dir: home.join("data"),
            home,
            listen: lasting_port(),
            http: lasting_port(),
            options,
            running: Mutex::new(None),
        };
        instance.restart();
        instance
    }

    /// The one instance of this test binary, archiving only on demand.
    pub fn shared() -> &'static Instance {
        static SHARED: OnceLock<Instance> = OnceLock::new();
        SHARED.get_or_init(|| match std::env::var_os("WATERSHED_TEST_DATA_DIR") {
            None => Instance::start(Options::on_demand()),
            Some(dir) => {
                let dir = PathBuf::from(dir);
                let running = Mutex::new(None);
                Instance { home: dir.clone(), dir, listen: 0, http: 0, options: Options::default(), running }
            }
        })
    }

    /// Starts `up` again on the same directory and ports.
    pub fn restart(&self) {
        self.launch(&[]);
        self.wait_until_ready();
    }

    /// Starts `up` with more environment, without waiting for anything.
    pub fn launch(&self, environment: &[(&str, &str)]) {
        let mut running = self.running.lock().expect("no test panicked while starting");
        self.release(running.take());
        let log = self.log_path();
        fs::write(&log, "").expect("a log file");
        let pid_file = self.home.join("pid");
        let _ = fs::remove_file(&pid_file); // absent at the first start
        let _ = fs::remove_file(self.keep_file());
        let mut command = Command::new("sh");
        command.args(["-c", KEEPER, "keeper"]);
        command.args([&log, &pid_file, &self.dir, &self.keep_file()]);
        command.arg(binary()).args(["up", "--data-dir"]).arg(&self.dir);
        command.args(["--listen", &format!("127.0.0.1:{}", self.listen)]);
        command.args(["--http", &format!("127.0.0.1:{}", self.http), "--flight", "127.0.0.1:0"]);
        scrub(&mut command);
        command.env("WATERSHED_CONFIG", self.file("settings.toml", SETTINGS));
        // Tests are about small tables, which PostgreSQL alone would answer.
        command.env("WATERSHED_ROUTE_BY_COST", "false");
        command.envs(self.options.environment.iter().map(|(name, value)| (name, value)));
        command.envs(environment.iter().copied());
        command.current_dir(&self.home).stdin(Stdio::piped()).stdout(Stdio::null());
        command.stderr(File::options().append(true).create(true).open(&log).expect("the log"));
        let keeper = command.spawn().expect("sh starts");
        let pid = wait_for("the pid of up", || fs::read_to_string(&pid_file).ok()?.trim().parse().ok());
        *running = Some(Running { keeper, pid });
    }

    /// Ends a keeper without cleaning up after it: `up` is dead or is about to be replaced.
    fn release(&self, running: Option<Running>) {
        if let Some(mut running) = running {
            fs::write(self.keep_file(), "").expect("the keep file");
            drop(running.keeper.stdin.take());
            running.keeper.wait().expect("the keeper ends");
        }
    }

    fn keep_file(&self) -> PathBuf {
        self.home.join("keep")
    }

    fn log_path(&self) -> PathBuf {
        self.home.join("up.log")
    }

    /// What `up` has printed since its last start.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub fn wait_until_ready(&self) {
        wait_for("\"ready\" from up", || {
            let log = self.log();
            if log.lines().any(|line| line == "ready") && self.env().is_some() {
                return Some(());
            }
            assert!(self.alive(), "up ended before it was ready:\n{log}");
            None
        });
    }

    /// True while `up` runs.
    pub fn alive(&self) -> bool {
        let running = self.running.lock().expect("no test panicked while starting");
        running.as_ref().is_some_and(|running| alive(running.pid))
    }

    pub fn pid(&self) -> i32 {
        self.running.lock().expect("no test panicked while starting").as_ref().expect("up was started").pid
    }

    /// kill -9 of `up` and, since a machine that dies takes both, of the cluster behind it if `cluster`.
    pub fn kill(&self, cluster: bool) {
        let pid = self.pid();
        signal("KILL", pid);
        wait_for("the end of up", || (!alive(pid)).then_some(()));
        if cluster {
            self.kill_cluster();
        }
    }

    /// kill -9 of the postmaster; its children end by themselves.
    pub fn kill_cluster(&self) {
        if let Some(pid) = self.postmaster() {
            signal("KILL", pid);
            wait_for("the end of the postmaster", || (!alive(pid)).then_some(()));
        }
    }

    /// `pg_ctl stop -m immediate`: the cluster ends without a checkpoint.
    pub fn stop_cluster_immediately(&self) {
        if let Some(pid) = self.postmaster() {
            signal("QUIT", pid);
            wait_for("the end of the postmaster", || (!alive(pid)).then_some(()));
        }
    }

    fn postmaster(&self) -> Option<i32> {
        let text = fs::read_to_string(self.dir.join("pg/postmaster.pid")).ok()?;
        let pid = text.lines().next()?.trim().parse().ok()?;
        alive(pid).then_some(pid)
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&self) {
        let pid = self.pid();
        signal("TERM", pid);
        wait_for("the end of up after SIGTERM", || (!alive(pid)).then_some(()));
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Leaves the directory where it is when this value goes.
    pub fn keep(&self) {
        fs::write(self.keep_file(), "").expect("the keep file");
    }

    /// A place for files of the test.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.home.join(name);
        fs::write(&path, content).expect("a file of the test");
        path
    }

    fn env(&self) -> Option<BTreeMap<String, String>> {
        let pairs = pairs(&self.dir.join("connection.env"))?;
        pairs.contains_key("PGPASSWORD").then_some(pairs)
    }

    /// A value of `connection.env`.
    #[track_caller]
    pub fn connection(&self, key: &str) -> String {
        let pairs = self.env().expect("connection.env");
        pairs.get(key).unwrap_or_else(|| panic!("no {key} in connection.env: {:?}", pairs.keys())).clone()
    }

    /// A value of `secrets`.
    #[track_caller]
    pub fn secret(&self, key: &str) -> String {
        let pairs = pairs(&self.dir.join("secrets")).expect("secrets");
        pairs.get(key).unwrap_or_else(|| panic!("no {key} in secrets: {:?}", pairs.keys())).clone()
    }

    /// The owner, through the gateway.
    pub fn gateway(&self) -> Target {
        Target {
            host: Host::Tcp(self.connection("PGHOST"), self.connection("PGPORT").parse().expect("a port")),
            user: self.connection("PGUSER"),
            password: self.connection("PGPASSWORD"),
            database: self.connection("PGDATABASE"),
        }
    }

    /// The owner, on PostgreSQL itself.
    pub fn direct(&self) -> Target {
        let behind = Target::from_url(&self.connection("WATERSHED_POSTGRES_URL"));
        behind.login(&self.connection("PGUSER"), &self.connection("PGPASSWORD"))
    }

    /// The superuser, on PostgreSQL itself.
    pub fn admin(&self) -> Target {
        Target::from_url(&self.secret("WATERSHED_ADMIN_URL"))
    }

    /// The superuser's login, through the gateway.
    pub fn admin_through_gateway(&self) -> Target {
        let admin = self.admin();
        self.gateway().login(&admin.user, &admin.password)
    }

    /// Where the session's latest run of `sql` was answered, and why.
    #[track_caller]
    pub fn route(&self, client: &Client, sql: &str) -> (String, String) {
        let mut reader = Client::connect(&self.admin_through_gateway());
        let reply = reader.run(&format!(
            "SELECT route, reasons FROM watershed.queries WHERE pid = {} AND sql = $sql${sql}$sql$ ORDER BY id DESC LIMIT 1",
            client.pid
        ));
        let rows = reply.rows();
        let row = rows.first().unwrap_or_else(|| panic!("watershed.queries does not know {sql}"));
        (row[0].clone().unwrap_or_default(), row[1].clone().unwrap_or_default())
    }

    pub fn port(&self) -> u16 {
        self.listen
    }

    pub fn http_port(&self) -> u16 {
        self.http
    }

    /// A subcommand of the binary, `--data-dir` added.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.arg(arguments[0]).arg("--data-dir").arg(&self.dir).args(&arguments[1..]);
        scrub(&mut command);
        command.current_dir(&self.home).stdin(Stdio::null());
        command
    }

    pub fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the binary starts")
    }

    /// A subcommand that must succeed; gives what it printed.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(output.status.success(), "watershed {} failed: {}", arguments.join(" "), shown(&output));
        shown(&output)
    }

    /// Ships everything committed so far to the lake.
    #[track_caller]
    pub fn archive(&self) {
        self.run(&["archive", "--now"]);
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Ok(mut running) = self.running.lock()
            && let Some(mut running) = running.take()
        {
            drop(running.keeper.stdin.take());
            let _ = running.keeper.wait(); // it cleans up by itself
        }
    }
}

/// No setting of the caller's own environment may reach the product.
pub fn scrub(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let foreign = ["PG", "HADOOP_", "AWS_", "KRB5"].iter().any(|prefix| text.starts_with(prefix));
        if foreign || (text.starts_with("WATERSHED_") && text != "WATERSHED_SAMPLE_DATA") {
            command.env_remove(&name);
        }
    }
}

pub fn alive(pid: i32) -> bool {
    // A zombie has ended: its parent only has not looked yet.
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}

pub fn signal(name: &str, pid: i32) {
    let status = Command::new("kill").args(["-s", name, &pid.to_string()]).stderr(Stdio::null()).status();
    status.expect("kill starts");
}

/// `KEY=VALUE` lines, values optionally in single quotes.
fn pairs(path: &Path) -> Option<BTreeMap<String, String>> {
    let text = fs::read_to_string(path).ok()?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Some(
        lines
            .filter_map(|line| line.strip_prefix("export ").unwrap_or(line).split_once('='))
            .map(|(key, value)| (key.trim().to_owned(), value.trim().trim_matches('\'').to_owned()))
            .collect(),
    )
}

/// Both streams of an ended command.
pub fn shown(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Ends a child and gives it time to be reaped.
pub fn kill_child(child: &mut Child) {
    let _ = child.kill(); // it may have ended
    let _ = child.wait();
}

/// The path of a file as an argument.
pub fn argument(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Waits until `sql` on `client` gives `expected`; NULL and no row at all are other values.
#[track_caller]
pub fn wait_for_value(client: &mut Client, sql: &str, expected: &str) {
    wait_for(&format!("{expected} from {sql}"), || (client.run(sql).rows() == [[Some(expected.to_owned())]]).then_some(()));
}

/// A short pause where only the order of two threads matters.
pub fn breathe() {
    std::thread::sleep(Duration::from_millis(30));
}

/// True if a program stands on PATH.
pub fn on_path(program: impl AsRef<OsStr>) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|directory| directory.join(program.as_ref()).is_file())
}
