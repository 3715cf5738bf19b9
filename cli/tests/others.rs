//! Others read the lake while it is written and compacted: `deltalake`, Polars, DuckDB and PySpark with delta-spark find the rows
//! that the gateway counts at the same version.
//!
//! An answer of the gateway is a version of the lake and a tail; its record in `watershed.queries` names the version and how
//! many rows were tail. What is left of count(*) is what every reader must find in that version.

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use support::instance::{Instance, Options, kill_child};
use support::wait_for;
use support::wire::Client;

/// Versions that are read while the lake changes.
const LOOKS: usize = 5;

struct Readers {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Drop for Readers {
    fn drop(&mut self) {
        kill_child(&mut self.child);
    }
}

/// What a reader found.
#[derive(Debug, PartialEq, serde::Deserialize)]
struct Found {
    rows: u64,
    sum: i64,
    kinds: BTreeMap<String, u64>,
    least: Option<String>,
    greatest: Option<String>,
}

impl Readers {
    fn start() -> Readers {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/local/readers/readers.sh");
        // Fetched before anything waits for it.
        let output = Command::new(&script).arg("setup").output().expect("bash starts");
        assert!(output.status.success(), "no readers: {}", String::from_utf8_lossy(&output.stderr));
        let mut child = Command::new(&script)
            .args(["python", "-c", include_str!("others/readers.py")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("bash starts");
        let ask = child.stdin.take().expect("a standard input");
        let answers = BufReader::new(child.stdout.take().expect("a standard output"));
        Readers { child, ask, answers }
    }

    fn read(&mut self, reader: &str, path: &str, version: i64) -> Found {
        let job = serde_json::json!({ "reader": reader, "path": path, "version": version });
        writeln!(self.ask, "{job}").expect("the readers run");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the readers answer");
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("{reader}, version {version}: {line}"))
    }
}

const READERS: [&str; 4] = ["deltalake", "polars", "duckdb", "spark"];

/// Spark takes ten times as long as the others together, so it reads only some versions.
fn readers(spark: bool) -> &'static [&'static str] {
    if spark { &READERS } else { &READERS[..3] }
}

/// Lake version and rows of it, as one answer of the gateway has them.
fn look(client: &mut Client) -> Option<(i64, u64)> {
    let rows: u64 =
        client.value("/* watershed: lake */ SELECT count(*) FROM readings").parse().expect("a count");
    let record = client.run(
        "SELECT lake_version, tail_rows FROM watershed.queries WHERE sql LIKE '%SELECT count(*) FROM readings' ORDER BY id DESC LIMIT 1",
    );
    let record = record.rows().into_iter().next()?;
    let number = |at: usize| record.get(at).and_then(|v| v.as_deref()).and_then(|v| v.parse::<i64>().ok());
    let version = number(0).filter(|v| *v >= 0)?;
    Some((version, rows - number(1)?.unsigned_abs()))
}

/// Ends the writer, also where an assertion fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn other_readers_find_the_same_rows_at_the_same_version() {
    let instance = Instance::start(Options::busy());
    let mut owner = Client::connect(&instance.gateway());
    owner.run("CREATE TABLE readings (ts timestamptz NOT NULL, kind text NOT NULL, n int8, note text)");
    owner.run("SELECT watershed.attach_table('public.readings', event_time => 'ts')");
    let mut others = Readers::start();
    let over = AtomicBool::new(false);
    let mut seen = Vec::new();
    thread::scope(|scope| {
        let stop = Over(&over);
        let writing = scope.spawn(|| {
            let mut client = Client::connect(&instance.gateway());
            let mut written = 0u64;
            while !over.load(Ordering::Relaxed) {
                // Three days, the same over and over, so that there is something to merge.
                client.run(&format!(
                    "INSERT INTO readings (ts, kind, n, note) SELECT timestamptz '2026-03-01 00:00:00+00' + (g % 3) * interval '1 day' \
                     + g * interval '7 milliseconds', 'kind ' || g % 4, g, repeat('x', (g % 50)::int) FROM generate_series({written}::int8, {}::int8) g",
                    written + 499
                ));
                written += 500;
                thread::sleep(Duration::from_millis(100));
            }
            written
        });
        let (_, path) = wait_for("a first version of the lake", || {
            let (version, rows) = look(&mut owner)?;
            let path = format!("{}/lake/public.readings", instance.dir().display());
            (version >= 0 && rows > 0).then_some((version, path))
        });
        while seen.len() < LOOKS {
            let (version, rows) = wait_for("a newer version", || {
                look(&mut owner).filter(|(v, _)| seen.last().is_none_or(|(last, _)| v > last))
            });
            for reader in readers(seen.is_empty() || seen.len() == LOOKS - 1) {
                let found = others.read(reader, &path, version);
                assert_eq!(found.rows, rows, "{reader} at version {version}");
                let kinds: u64 = found.kinds.values().sum();
                assert_eq!(kinds, rows, "{reader} at version {version}");
            }
            seen.push((version, rows));
        }
        drop(stop);
        let written = writing.join().expect("the writer does not fail");
        // Everything shipped: now all values are compared, not only how many.
        let (version, rows) =
            wait_for("the last rows in the lake", || look(&mut owner).filter(|(_, rows)| *rows == written));
        owner.run("SET TimeZone = 'UTC'");
        let iso = "'YYYY-MM-DD\"T\"HH24:MI:SS.US\"+00:00\"'";
        let row = owner.run(&format!(
            "SELECT sum(n)::int8, to_char(min(ts), {iso}), to_char(max(ts), {iso}) FROM readings"
        ));
        let row = row.rows().into_iter().next().expect("a row");
        let kinds = owner.run("SELECT kind, count(*) FROM readings GROUP BY kind ORDER BY kind").rows();
        let expected = Found {
            rows,
            sum: row[0].as_deref().and_then(|v| v.parse().ok()).expect("a sum"),
            kinds: kinds
                .into_iter()
                .map(|k| {
                    (
                        k[0].clone().expect("a kind"),
                        k[1].as_deref().and_then(|n| n.parse().ok()).expect("a count"),
                    )
                })
                .collect(),
            least: row[1].clone(),
            greatest: row[2].clone(),
        };
        for reader in readers(true) {
            assert_eq!(others.read(reader, &path, version), expected, "{reader} at version {version}");
        }
    });
    // Older versions stay as they were, although their files were merged since.
    let path = format!("{}/lake/public.readings", instance.dir().display());
    for (at, (version, rows)) in seen.iter().enumerate() {
        for reader in readers(at == 1) {
            assert_eq!(others.read(reader, &path, *version).rows, *rows, "{reader} at version {version}");
        }
    }
    // The test would be worth little had nothing been merged meanwhile.
    let log = std::fs::read_dir(format!("{path}/_delta_log")).expect("a log");
    let merged = log.flatten().any(|entry| {
        entry.path().extension().is_some_and(|e| e == "json")
            && std::fs::read_to_string(entry.path()).is_ok_and(|text| text.contains("\"remove\""))
    });
    assert!(merged, "no compaction ran");
}
