//! `watershed bench relay` on a small scale: every way is measured, and what is told is whole. How fast anything is, it does not judge.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use support::instance::binary;

/// As short as pgbench can.
const BRIEFLY: [&str; 6] = ["--rows", "3000", "--rounds", "1", "--seconds", "1"];

fn relay(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("WATERSHED_") || name.starts_with("PG")) {
            command.env_remove(name);
        }
    }
    command.args(["bench", "relay", "--dir"]).arg(dir.join("work")).args(arguments);
    command.current_dir(dir).stdin(Stdio::null()).output().expect("watershed can be run")
}

/// A folder that PostgreSQL's user can pass through when we are root.
fn folder() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("watershed-test-")
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir()
        .expect("a temporary directory")
}

#[track_caller]
fn measured(dir: &Path, arguments: &[&str]) -> (String, serde_json::Value) {
    let output = relay(dir, &[&BRIEFLY, arguments, &["--json", "figures.json"]].concat());
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}\n{complained}");
    assert!(!dir.join("work").exists(), "the benchmark's folder was left behind");
    let figures = fs::read_to_string(dir.join("figures.json")).expect("its figures");
    (said.into_owned(), serde_json::from_str(&figures).expect("JSON"))
}

#[test]
fn every_way_is_measured_in_every_cell() {
    let dir = folder();
    let (said, figures) = measured(
        dir.path(),
        &["--copy-rows", "2000", "--clients", "4,1", "--modes", "simple,prepared", "--strace", "--markdown"],
    );
    let cells = figures["lookups"].as_array().expect("lookups");
    let named: Vec<(&str, u64)> =
        cells.iter().filter_map(|cell| Some((cell["mode"].as_str()?, cell["clients"].as_u64()?))).collect();
    assert_eq!(named, [("simple", 1), ("simple", 4), ("prepared", 1), ("prepared", 4)]);
    for cell in cells {
        for way in ["direct", "pgbouncer", "gateway"] {
            let figures = &cell["ways"][way];
            assert_eq!(figures["rounds"].as_array().map(Vec::len), Some(1), "{cell}");
            let of = |name: &str| figures[name].as_f64().unwrap_or_default();
            assert!(of("tps") > 0.0 && of("p50_ms") > 0.0 && of("p99_ms") >= of("p50_ms"), "{way} in {cell}");
            // Nobody stands between on the direct way; on the others somebody waits for each statement.
            match way {
                "direct" => assert!(figures["waits_per_statement"].is_null()),
                _ => assert!(of("waits_per_statement") > 0.0, "{way} in {cell}"),
            }
        }
        let line = format!("| {} | {} |", cell["mode"].as_str().unwrap_or_default(), cell["clients"]);
        assert!(said.matches(&line).count() >= 3, "{line} is missing in\n{said}");
    }
    let copied = figures["copy"].as_array().expect("copies");
    assert_eq!(copied.iter().filter_map(|c| c["format"].as_str()).collect::<Vec<_>>(), ["text", "binary"]);
    for copy in copied {
        assert!(copy["bytes"].as_u64() > Some(100 * 2000), "{copy}");
        assert!(
            ["direct", "pgbouncer", "gateway"]
                .iter()
                .all(|way| copy["ways"][way]["seconds"].as_f64() > Some(0.0)),
            "{copy}"
        );
    }
    assert!(
        figures["route"].as_str().is_some_and(|route| route.starts_with("postgres")),
        "{}",
        figures["route"]
    );
    for peak in figures["peak_bytes"].as_array().expect("peaks") {
        assert!(peak["ways"]["direct"].is_null() && peak["ways"]["pgbouncer"].as_u64() > Some(0), "{peak}");
        assert!(peak["ways"]["gateway"].as_u64() > Some(0), "{peak}");
    }
    // Where the system lets nobody look at another process, the reason stands there instead.
    let traced = figures["system_calls"].as_array().expect("system calls");
    match figures["system_calls_left_out"].as_str() {
        Some(why) => assert!(said.contains(why), "{said}"),
        None => assert_eq!(traced.len(), 8, "two processes, two modes, the fewest and the most clients"),
    }
    for run in traced {
        let statements = run["statements"].as_u64().expect("statements");
        let calls = run["calls"].as_object().expect("calls");
        let all: u64 = calls.values().filter_map(|call| call["count"].as_u64()).sum();
        // Question in and out, answer in and out: no fewer, unless several wait at once and travel together.
        assert!(statements > 0 && all >= statements, "{run}");
    }
    let missed = figures["missed"].as_array().expect("missed");
    assert_eq!(missed.len(), said.matches("MISSED").count(), "{said}");
}

#[test]
fn an_ordinary_table_and_no_copy() {
    let dir = folder();
    let (said, figures) = measured(
        dir.path(),
        &["--table", "plain", "--copy-rows", "0", "--clients", "2", "--modes", "extended"],
    );
    assert_eq!(figures["asked"]["table"], "plain");
    assert!(
        figures["copy"].as_array().is_some_and(Vec::is_empty) && !said.contains("COPY of 0 rows out"),
        "{said}"
    );
    assert!(said.contains("left out; --strace counts them"), "{said}");
}

#[test]
fn without_pgbouncer_it_says_what_to_install_and_makes_nothing() {
    let dir = folder();
    let output = relay(dir.path(), &["--pgbouncer", "/nonexistent/pgbouncer"]);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{complained}");
    assert!(
        complained.contains("PgBouncer was not found") && complained.contains("apt-get install pgbouncer"),
        "{complained}"
    );
    assert!(!dir.path().join("work").exists());
}
