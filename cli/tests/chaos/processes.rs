//! Processes of `watershed ingest` beside an `up`: started, killed, stopped where they are, and armed with a crash point.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::instance::{alive, binary, scrub, signal};
use crate::support::wait_for;

/// Runs a program and kills it when its own standard input ends, that is, when the test process is gone.
const KEEPER: &str = r#"
log=$1; pidfile=$2; shift 2
"$@" >>"$log" 2>&1 </dev/null &
echo $! >"$pidfile.new"; mv "$pidfile.new" "$pidfile"
cat >/dev/null
kill -KILL "$(cat "$pidfile")" 2>/dev/null
wait
"#;

struct Running {
    keeper: Child,
    pid: i32,
}

/// One process of `watershed ingest`, most of the time running.
pub struct Ingest {
    pub name: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    log: PathBuf,
    pid_file: PathBuf,
    running: Option<Running>,
}

impl Ingest {
    pub fn new(
        name: &str,
        folder: &Path,
        arguments: Vec<String>,
        environment: Vec<(String, String)>,
    ) -> Ingest {
        Ingest {
            name: name.to_owned(),
            arguments,
            environment,
            log: folder.join(format!("{name}.log")),
            pid_file: folder.join(format!("{name}.pid")),
            running: None,
        }
    }

    /// Starts it; with `crash`, to die there.
    pub fn launch(&mut self, crash: Option<&str>) {
        self.kill9();
        let _ = fs::remove_file(&self.pid_file); // absent at the first start
        let mut command = Command::new("sh");
        command.args(["-c", KEEPER, "keeper"]).arg(&self.log).arg(&self.pid_file);
        command.arg(binary()).args(&self.arguments);
        scrub(&mut command);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(point) = crash {
            command.env("WATERSHED_CRASH_AT", point);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        command.stderr(File::options().append(true).create(true).open(&self.log).expect("the log"));
        let keeper = command.spawn().expect("sh starts");
        let pid_file = &self.pid_file;
        let pid = wait_for("the pid of an ingest process", || {
            fs::read_to_string(pid_file).ok()?.trim().parse().ok()
        });
        self.running = Some(Running { keeper, pid });
    }

    pub fn alive(&self) -> bool {
        self.running.as_ref().is_some_and(|running| alive(running.pid))
    }

    /// kill -9, also of a stopped process.
    pub fn kill9(&mut self) {
        if let Some(mut running) = self.running.take() {
            drop(running.keeper.stdin.take());
            let _ = running.keeper.wait(); // it kills and reaps
        }
    }

    /// SIGTERM; false if it had not ended after `patience` and was killed.
    pub fn terminate(&mut self, patience: Duration) -> bool {
        let Some(pid) = self.running.as_ref().map(|running| running.pid) else { return true };
        signal("TERM", pid);
        let started = Instant::now();
        while alive(pid) && started.elapsed() < patience {
            thread::sleep(Duration::from_millis(20));
        }
        let ended = !alive(pid);
        self.kill9();
        ended
    }

    /// Stops it where it is, or lets it go on.
    pub fn freeze(&self, freeze: bool) {
        if let Some(running) = &self.running {
            signal(if freeze { "STOP" } else { "CONT" }, running.pid);
        }
    }

    /// The last lines it said.
    pub fn said(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        self.kill9();
    }
}
