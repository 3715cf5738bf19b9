//! A real HDFS for tests, by `deploy/local/hdfs`: one NameNode, two DataNodes; killed, stopped where they stand, restarted, filled,
//! cleaned up.
//!
//! It knows the script's command line and what the NameNode tells at its web address. It knows nothing of the product. It depends on
//! nothing else here: other test binaries may include it by its path.
#![allow(dead_code)] // each test binary uses a part of it

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a start or a change of state may take; only a hang or a very busy machine reaches it.
const PATIENCE: Duration = Duration::from_secs(240);
/// Clusters on this machine at once, over all test processes: each takes about 700 MB.
const MOST_CLUSTERS: usize = 2;

/// Starts the cluster, and kills it when its standard input ends: the test process is then gone, for whatever reason.
const KEEPER: &str = r#"
script=$1; dir=$2; state=$3; shift 3
# What ends the tests ends `cat`, and not the cleaning up after them.
trap : INT TERM HUP
if "$script" start "$dir" "$@" >"$state.log" 2>&1 </dev/null; then echo ready >"$state"; else echo failed >"$state"; fi
cat >/dev/null
"$script" kill "$dir"
if [ ! -f "$state.keep" ]; then rm -rf "$dir" "$state" "$state.log"; fi
"#;

/// A cluster in a folder of its own. It dies with this value, and with the test process.
pub struct Hdfs {
    dir: PathBuf,
    state: PathBuf,
    keeper: Child,
    /// One of [`MOST_CLUSTERS`] on this machine.
    _slot: Option<File>,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/local/hdfs/hdfs.sh")
}

/// A lock on one of the numbered files; none if all stay taken for long, so that nothing waits for ever.
fn slot() -> Option<File> {
    let folder = std::env::temp_dir().join("watershed-test-hdfs");
    fs::create_dir_all(&folder).expect("a folder for locks");
    let started = Instant::now();
    while started.elapsed() < 2 * PATIENCE {
        for n in 0..MOST_CLUSTERS {
            let file = File::options().create(true).append(true).open(folder.join(n.to_string()));
            let file = file.expect("a lock file");
            if file.try_lock().is_ok() {
                return Some(file);
            }
        }
        thread::sleep(Duration::from_millis(200));
    }
    None
}

#[track_caller]
fn wait<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(started.elapsed() < PATIENCE, "still waiting for {what} after {PATIENCE:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

impl Hdfs {
    pub fn start() -> Hdfs {
        Hdfs::with(&[])
    }

    /// With more properties of hdfs-site.xml.
    pub fn with(properties: &[(&str, &str)]) -> Hdfs {
        let slot = slot();
        // Fetched before the clock of a start runs.
        let output = Command::new(script()).arg("setup").output().expect("bash starts");
        assert!(output.status.success(), "no Hadoop: {}", String::from_utf8_lossy(&output.stderr));
        let dir =
            tempfile::Builder::new().prefix("watershed-hdfs-").tempdir().expect("a temporary folder").keep();
        let state = dir.with_extension("state");
        let mut command = Command::new("sh");
        command.args(["-c", KEEPER, "keeper"]).arg(script()).args([&dir, &state]).args(["--heap", "192m"]);
        for (key, value) in properties {
            command.args(["--set", &format!("{key}={value}")]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let keeper = command.spawn().expect("sh starts");
        let hdfs = Hdfs { dir, state, keeper, _slot: slot };
        let said = wait("HDFS", || fs::read_to_string(&hdfs.state).ok().filter(|s| s.ends_with('\n')));
        let log = fs::read_to_string(format!("{}.log", hdfs.state.display())).unwrap_or_default();
        assert_eq!(said, "ready\n", "HDFS did not start: {log}");
        hdfs
    }

    #[track_caller]
    fn script(&self, arguments: &[&str]) -> String {
        let (verb, rest) = arguments.split_first().expect("a verb");
        let output =
            Command::new(script()).arg(verb).arg(&self.dir).args(rest).output().expect("bash starts");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "hdfs.sh {arguments:?}: {out}{err}");
        out.into_owned()
    }

    fn option(&self, key: &str) -> String {
        let options = fs::read_to_string(self.dir.join("options")).expect("the options");
        let found = options.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("no {key} in {options}")).to_owned()
    }

    /// `hdfs://host:port`, without a slash at its end.
    pub fn url(&self) -> String {
        format!("hdfs://127.0.0.1:{}", self.option("namenode"))
    }

    /// The client's configuration directory.
    pub fn conf_dir(&self) -> PathBuf {
        self.dir.join("conf")
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Leaves the folder where it is when this value goes.
    pub fn keep(&self) {
        fs::write(format!("{}.keep", self.state.display()), "").expect("the keep file");
    }

    /// Sends a signal to `namenode`, `datanode1` or `datanode2`; KILL waits for the end.
    #[track_caller]
    pub fn signal(&self, who: &str, name: &str) {
        self.script(&["signal", who, name]);
    }

    #[track_caller]
    pub fn kill9(&self, who: &str) {
        self.signal(who, "KILL");
    }

    /// Stops a process where it stands, or lets it go on.
    #[track_caller]
    pub fn freeze(&self, who: &str, freeze: bool) {
        self.signal(who, if freeze { "STOP" } else { "CONT" });
    }

    /// Starts what does not run, and waits until all serve and nothing is in safe mode.
    #[track_caller]
    pub fn restart(&self) {
        self.script(&["start"]);
    }

    /// Starts one process again, without waiting.
    #[track_caller]
    pub fn launch(&self, who: &str) {
        self.script(&["launch", who]);
    }

    /// What the NameNode tells of itself; None while it does not.
    pub fn asked(&self, bean: &str) -> Option<String> {
        let mut socket =
            TcpStream::connect(("127.0.0.1", self.option("namenode_http").parse().ok()?)).ok()?;
        socket.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(socket, "GET /jmx?qry=Hadoop:service=NameNode,name={bean} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    fn number(&self, bean: &str, key: &str) -> Option<u64> {
        let answer = self.asked(bean)?;
        let (_, rest) = answer.split_once(&format!("\"{key}\" :"))?;
        rest.trim_start().split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }

    /// DataNodes that the NameNode takes for alive.
    pub fn live_datanodes(&self) -> Option<u64> {
        self.number("FSNamesystemState", "NumLiveDataNodes")
    }

    /// Blocks with fewer replicas than they should have.
    pub fn under_replicated(&self) -> Option<u64> {
        self.number("FSNamesystemState", "UnderReplicatedBlocks")
    }

    #[track_caller]
    pub fn wait_for_live(&self, datanodes: u64) {
        wait("the number of live DataNodes", || (self.live_datanodes() == Some(datanodes)).then_some(()));
    }

    #[track_caller]
    pub fn wait_for_full_replication(&self) {
        wait("all replicas", || (self.under_replicated() == Some(0)).then_some(()));
    }

    /// Lets the NameNode change nothing, or change again.
    #[track_caller]
    pub fn safe_mode(&self, enter: bool) {
        self.script(&["admin", "-safemode", if enter { "enter" } else { "leave" }]);
    }

    /// Bytes that all replicas below a directory may take; None: as many as there is room for.
    #[track_caller]
    pub fn space_quota(&self, path: &str, bytes: Option<u64>) {
        match bytes {
            Some(bytes) => self.script(&["admin", "-setSpaceQuota", &bytes.to_string(), path]),
            None => self.script(&["admin", "-clrSpaceQuota", path]),
        };
    }

    /// `hdfs dfs`.
    #[track_caller]
    pub fn dfs(&self, arguments: &[&str]) -> String {
        let mut all = vec!["dfs"];
        all.extend(arguments);
        self.script(&all)
    }

    /// `hdfs fsck`.
    #[track_caller]
    pub fn fsck(&self, arguments: &[&str]) -> String {
        let mut all = vec!["fsck"];
        all.extend(arguments);
        self.script(&all)
    }
}

impl Drop for Hdfs {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait(); // it cleans up by itself
    }
}
