//! A local S3 server for tests, by `deploy/local/s3`: started, killed, cleaned up. What it holds ends with it.
//!
//! It knows the script's command line and how a bucket is made. It depends on nothing else here: other test binaries may include it
//! by its path.
#![allow(dead_code)] // each test binary uses a part of it

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);

/// Runs the server, and kills it when its standard input ends: the test process is then gone, for whatever reason.
const KEEPER: &str = r#"
"$@" >/dev/null 2>&1 </dev/null &
cat >/dev/null
kill -KILL $! 2>/dev/null
wait
"#;

/// A server on a port of its own.
pub struct S3 {
    port: u16,
    keeper: Child,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/local/s3/s3.sh")
}

/// Below those that the system gives to outgoing connections, one of which might take it before the server does.
fn free_port() -> u16 {
    let own = std::process::id() % 9_000;
    (0..9_000)
        .map(|n| 10_000 + ((own * 37 + n * 7) % 9_000) as u16)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a port")
}

impl S3 {
    pub fn start() -> S3 {
        let output = Command::new(script()).arg("setup").output().expect("bash starts");
        assert!(output.status.success(), "no S3: {}", String::from_utf8_lossy(&output.stderr));
        let port = free_port();
        let mut command = Command::new("sh");
        command.args(["-c", KEEPER, "keeper"]).arg(script()).args(["run", "--port", &port.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let s3 = S3 { port, keeper: command.spawn().expect("sh starts") };
        let started = Instant::now();
        while s3.ask("GET / HTTP/1.0\r\n\r\n").is_none() {
            assert!(started.elapsed() < PATIENCE, "the S3 server does not answer");
            thread::sleep(Duration::from_millis(100));
        }
        s3
    }

    /// One request, and the answer with its head.
    pub fn ask(&self, request: &str) -> Option<String> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        socket.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
        socket.write_all(request.as_bytes()).ok()?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).ok()?;
        Some(String::from_utf8_lossy(&answer).into_owned())
    }

    #[track_caller]
    pub fn make_bucket(&self, name: &str) {
        let answer =
            self.ask(&format!("PUT /{name} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n"));
        let answer = answer.expect("an answer of the S3 server");
        assert!(answer.lines().next().is_some_and(|line| line.contains(" 200 ")), "{answer}");
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait(); // it cleans up by itself
    }
}
