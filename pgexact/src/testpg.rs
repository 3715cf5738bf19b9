//! A real PostgreSQL for the tests of this crate: one scratch cluster a test process, on a private socket, that
//! ends with the process and takes its directory along.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub(crate) struct Cluster {
    bin: PathBuf,
    dir: PathBuf,
    // Its end tells the keeper that this process is gone.
    _keeper: std::process::Child,
}

/// PATH first, then the newest version below Debian's directory.
fn binaries() -> PathBuf {
    let on_path = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path)
            .find(|d| ["initdb", "postgres", "psql"].iter().all(|b| d.join(b).exists()))
    });
    on_path.unwrap_or_else(|| {
        let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
            .expect("PostgreSQL is installed")
            .flatten()
            .filter_map(|e| Some((e.file_name().to_str()?.parse().ok()?, e.path().join("bin"))))
            .collect();
        versions.sort();
        versions.pop().expect("PostgreSQL is installed").1
    })
}

/// A shell as a user that may run PostgreSQL.
fn shell() -> Command {
    let root = Command::new("id").arg("-u").output().expect("id").stdout.trim_ascii() == b"0";
    if root {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups", "sh", "-c"]);
        command
    } else {
        let mut command = Command::new("sh");
        command.arg("-c");
        command
    }
}

const KEEPER: &str = r#"
set -e
"$BIN/initdb" -D "$DIR/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 -N >"$DIR/initdb.log" 2>&1
"$BIN/postgres" -D "$DIR/data" -k "$DIR" -c listen_addresses= -c fsync=off -c synchronize_seqscans=off \
    -c max_connections=40 -c unix_socket_permissions=0777 >"$DIR/server.log" 2>&1 &
pid=$!
cat >/dev/null || true
# One signal may come before the server listens to signals.
while kill -INT $pid 2>/dev/null; do sleep 0.1; done
rm -rf "$DIR"
"#;

/// The cluster of this test process.
pub(crate) fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let bin = binaries();
        let dir = std::env::temp_dir().join(format!("pgexact-{}", std::process::id()));
        let made = shell().arg(r#"mkdir -m 0755 "$DIR""#).env("DIR", &dir).status().expect("a shell");
        assert!(made.success());
        let keeper = shell()
            .arg(KEEPER)
            .env("BIN", &bin)
            .env("DIR", &dir)
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let cluster = Cluster { bin, dir, _keeper: keeper };
        let deadline = Instant::now() + Duration::from_secs(60);
        while cluster.psql(&[], "SELECT 1", false).is_err() {
            assert!(Instant::now() < deadline, "PostgreSQL did not start");
            std::thread::sleep(Duration::from_millis(100));
        }
        cluster
    })
}

impl Cluster {
    fn psql(&self, settings: &[(&str, &str)], script: &str, show: bool) -> Result<String, String> {
        let options: Vec<String> =
            settings.iter().map(|(k, v)| format!("-c {k}={}", v.replace(' ', "\\ "))).collect();
        let mut child = Command::new(self.bin.join("psql"))
            .args([
                "-X",
                "-q",
                "-A",
                "-t",
                "-F",
                "|",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                "postgres",
                "-d",
                "postgres",
                "-h",
            ])
            .arg(&self.dir)
            .env("PGOPTIONS", options.join(" "))
            .env("PGCLIENTENCODING", "UTF8")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("psql");
        let mut stdin = child.stdin.take().expect("a pipe");
        let script = script.to_owned();
        let feeder = std::thread::spawn(move || {
            // psql may have stopped at an error.
            let _ = stdin.write_all(script.as_bytes());
        });
        let output = child.wait_with_output().expect("psql ends");
        feeder.join().expect("no panic");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).expect("UTF-8"))
        } else {
            if show {
                eprintln!("{errors}");
            }
            Err(errors)
        }
    }

    /// Runs a script of psql and gives what it prints: rows as lines, columns parted by `|`.
    pub(crate) fn run(&self, settings: &[(&str, &str)], script: &str) -> String {
        self.psql(settings, script, true).expect("the script runs")
    }

    /// A new file that both sides can use, with these contents.
    pub(crate) fn file(&self, contents: &[u8]) -> PathBuf {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let path = std::env::temp_dir().join(format!(
            "pgexact-{}-{}.copy",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        std::fs::write(&path, contents).expect("a file");
        path
    }

    /// COPY of `query` in text format: rows of fields, unescaped.
    pub(crate) fn copy_text(
        &self,
        settings: &[(&str, &str)],
        prelude: &str,
        query: &str,
    ) -> Vec<Vec<Option<String>>> {
        let path = self.file(b"");
        self.run(settings, &format!("{prelude}\n\\copy ({query}) TO '{}'\n", path.display()));
        let text = take(&path);
        let text = String::from_utf8(text).expect("UTF-8");
        text.lines().map(|line| line.split('\t').map(unescape).collect()).collect()
    }
}

/// Reads a file and removes it.
pub(crate) fn take(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).expect("the file");
    std::fs::remove_file(path).expect("the file");
    bytes
}

fn unescape(field: &str) -> Option<String> {
    if field == "\\N" {
        return None;
    }
    let mut out = String::new();
    let mut chars = field.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next().expect("an escape is two characters") {
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'v' => out.push('\u{b}'),
            other => out.push(other),
        }
    }
    Some(out)
}

/// A file of COPY BINARY from tuples of fields.
pub(crate) fn copy_binary(rows: &[Vec<Option<Vec<u8>>>]) -> Vec<u8> {
    let mut out = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    for row in rows {
        out.extend((row.len() as i16).to_be_bytes());
        for field in row {
            match field {
                None => out.extend((-1i32).to_be_bytes()),
                Some(bytes) => {
                    out.extend((bytes.len() as i32).to_be_bytes());
                    out.extend(bytes);
                }
            }
        }
    }
    out.extend((-1i16).to_be_bytes());
    out
}

/// The tuples of a file of COPY BINARY.
pub(crate) fn read_copy_binary(bytes: &[u8]) -> Vec<Vec<Option<Vec<u8>>>> {
    let mut rest = &bytes[19..];
    let mut take = |n: usize| {
        let (head, tail) = rest.split_at(n);
        rest = tail;
        head.to_vec()
    };
    let mut rows = Vec::new();
    loop {
        let columns = i16::from_be_bytes(take(2).try_into().expect("two bytes"));
        if columns < 0 {
            return rows;
        }
        rows.push(
            (0..columns)
                .map(|_| {
                    let length = i32::from_be_bytes(take(4).try_into().expect("four bytes"));
                    usize::try_from(length).ok().map(&mut take)
                })
                .collect(),
        );
    }
}

/// A small reproducible generator (xorshift64*): tests print nothing of it, the seed is in the code.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// In `0..n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(crate) fn within(&mut self, low: i64, high: i64) -> i64 {
        (i128::from(low) + i128::from(self.next()) % (i128::from(high) - i128::from(low) + 1)) as i64
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

/// A text to stand in `U&'...'`: everything but plain ASCII as an escape.
pub(crate) fn escaped(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            c if (c.is_ascii_graphic() || c == ' ') && !matches!(c, '\'' | '\\') => c.to_string(),
            c => format!("\\+{:06x}", u32::from(c)),
        })
        .collect()
}
