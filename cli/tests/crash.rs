//! Nothing acknowledged is lost and nothing counts twice: the product dies at every step it has, and at moments of nobody's
//! choosing, and afterwards both stores hold each row once.
//!
//! A step is a crash point in the code (`crash::point("...")`), where the process ends as if by kill -9 if WATERSHED_CRASH_AT
//! names it. One test reads the sources and sees to it that no crash point is left out.

mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use support::compare::difference;
use support::instance::{Instance, Options, argument, kill_child, shown};
use support::wire::{Client, Frame, Reply};
use support::{Sequence, wait_for};

const LOAD: [&str; 4] = ["load.position", "load.copied", "load.before_commit", "load.committed"];
const HTTP: [&str; 4] = ["http.key", "http.copied", "http.before_commit", "http.committed"];
const ARCHIVE: [&str; 13] = [
    "archive.leading",
    "archive.snapshot",
    "archive.number",
    "archive.rows",
    "archive.file",
    "lake.file.before_close",
    "lake.file.closed",
    "lake.file.durable",
    "archive.files",
    "lake.commit.before",
    "lake.commit.after",
    "lake.commit.durable",
    "archive.committed",
];
/// Reached on the first archive of a table, or only every so many commits.
const ARCHIVE_SELDOM: [&str; 2] = ["lake.create.after", "lake.checkpoint.written"];
const COMPACT: [&str; 12] = [
    "compact.leader.taken",
    "compact.file.written",
    "compact.written",
    "compact.verified",
    "compact.job",
    "lake.file.before_close",
    "lake.file.closed",
    "lake.file.durable",
    "lake.commit.before",
    "lake.commit.after",
    "lake.commit.durable",
    "compact.committed",
];
/// Vacuum deletes nothing before its grace period, which no end-to-end test waits for; the compactor's own tests cover it.
const ELSEWHERE: [&str; 2] = ["compact.vacuum.delete", "compact.vacuum.done"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a source folder") {
        let path = entry.expect("a source file").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_crash_point_of_the_code_is_tried() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut files = Vec::new();
    for part in ["lake", "ingest", "compactor", "gateway", "cli"] {
        sources(&root.join(part).join("src"), &mut files);
    }
    let mut in_code = BTreeSet::new();
    for file in &files {
        let text = fs::read_to_string(file).expect("a source file");
        for (at, call) in text.match_indices("crash::point(\"") {
            in_code.insert(text[at + call.len()..].split('"').next().unwrap_or_default().to_owned());
        }
    }
    // Those of other tests stand there by name; those of the Kafka source are all tried by exactly_once.rs, which reads the sources too.
    let mut elsewhere = String::new();
    for part in ["cli", "ingest", "compactor"] {
        let mut files = Vec::new();
        sources(&root.join(part).join("tests"), &mut files);
        for file in files.iter().filter(|file| !file.ends_with("cli/tests/crash.rs")) {
            elsewhere += &fs::read_to_string(file).expect("a test's source");
        }
    }
    let named_elsewhere =
        |point: &&String| point.starts_with("kafka.") || elsewhere.contains(&format!("\"{point}\""));
    let lists: [&[&str]; 6] = [&LOAD, &HTTP, &ARCHIVE, &ARCHIVE_SELDOM, &COMPACT, &ELSEWHERE];
    let mut tried: BTreeSet<String> = lists.into_iter().flatten().map(|point| (*point).to_owned()).collect();
    tried.extend(in_code.iter().filter(named_elsewhere).cloned());
    assert_eq!(in_code, tried, "the crash points in the code, and those that a test tries");
}

/// Log rows of one service, numbered in their messages.
fn ndjson(service: &str, from: u64, to: u64) -> String {
    let mut out = String::new();
    for n in from..to {
        let (day, hour) = (n % 5 + 1, n / 5 % 24);
        let _ = writeln!(
            out,
            r#"{{"ts":"2023-06-{day:02}T{hour:02}:00:00.{:06}Z","level":"INFO","service":"{service}","host":"h{}","message":"{service} {n}"}}"#,
            n % 1_000_000,
            n % 9
        ); // writing to a String cannot fail
    }
    out
}

/// The rows of a service are there once each, in PostgreSQL and, asked of the lake, in both stores together.
#[track_caller]
fn assert_exact(instance: &Instance, service: &str, expected: u64) {
    let sql = format!("SELECT count(*), count(DISTINCT message) FROM logs WHERE service = '{service}'");
    let expected = [[Some(expected.to_string()), Some(expected.to_string())]];
    let mut direct = Client::connect(&instance.direct());
    assert_eq!(direct.run(&sql).rows(), expected, "in PostgreSQL: {sql}");
    let mut gateway = Client::connect(&instance.gateway());
    gateway.run("SET watershed.route = 'lake'");
    assert_eq!(gateway.run(&sql).rows(), expected, "in the lake and the tail: {sql}");
}

#[track_caller]
fn verify(instance: &Instance) {
    let output = instance.output(&["verify"]);
    assert!(output.status.success(), "the stores differ: {}", shown(&output));
}

/// Runs a subcommand that must die at `point`.
#[track_caller]
fn die_at(instance: &Instance, point: &str, arguments: &[&str]) {
    let output =
        instance.command(arguments).env("WATERSHED_CRASH_AT", point).output().expect("the binary starts");
    assert!(output.status.code().is_none(), "{arguments:?} did not die at {point}: {}", shown(&output));
}

#[test]
fn a_load_killed_at_any_step_goes_on_where_it_was() {
    let instance = Instance::start(Options::on_demand());
    const ROWS: u64 = 45_000;
    for point in LOAD {
        let file = instance.file(&format!("{point}.ndjson"), ndjson(point, 0, ROWS));
        let load = ["load", "logs", argument(&file)];
        die_at(&instance, point, &load);
        die_at(&instance, point, &load);
        if point == "load.committed" {
            instance.archive(); // part of the file may go to the lake before the rest is loaded
        }
        let output = instance.output(&load);
        assert!(output.status.success(), "{point}: {}", shown(&output));
        assert_exact(&instance, point, ROWS);
        // Loaded again, and grown and loaded again.
        instance.run(&load);
        assert_exact(&instance, point, ROWS);
        let file = instance.file(&format!("{point}.ndjson"), ndjson(point, 0, ROWS + 777));
        die_at(&instance, point, &["load", "logs", argument(&file)]);
        instance.run(&["load", "logs", argument(&file)]);
        assert_exact(&instance, point, ROWS + 777);
    }
    instance.archive();
    for point in LOAD {
        assert_exact(&instance, point, ROWS + 777);
    }
    verify(&instance);
}

/// POSTs a body; `None` if the connection died before an answer.
fn post(instance: &Instance, key: &str, body: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", instance.http_port())).ok()?;
    let head = format!(
        "POST /v1/ingest/logs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nIdempotency-Key: {key}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    (!answer.is_empty()).then_some(answer)
}

#[test]
fn a_request_killed_at_any_step_can_be_repeated() {
    let instance = Instance::start(Options::on_demand());
    for point in HTTP {
        instance.terminate();
        instance.launch(&[("WATERSHED_CRASH_AT", point)]);
        instance.wait_until_ready();
        let body = ndjson(point, 0, 300);
        assert_eq!(
            post(&instance, point, &body),
            None,
            "{point}: an answer came from a process that was to die"
        );
        wait_for("the end of up", || (!instance.alive()).then_some(()));
        instance.restart();
        for _ in 0..2 {
            let answer = post(&instance, point, &body).expect("an answer");
            assert!(answer.starts_with("HTTP/1.1 200"), "{point}: {answer}");
        }
        assert_exact(&instance, point, 300);
    }
    verify(&instance);
}

#[test]
fn an_archiver_killed_at_any_step_ships_each_row_once() {
    let instance = Instance::start(Options::on_demand());
    let mut total = 0;
    let mut load = |instance: &Instance, rows: u64| {
        let file = instance.file("rows.ndjson", ndjson("archived", total, total + rows));
        instance.run(&["load", "logs", argument(&file)]);
        total += rows;
        total
    };
    let archive = ["archive", "--now", "logs"];

    // The very first archive of a table makes its log.
    load(&instance, 500);
    die_at(&instance, "lake.create.after", &archive);
    assert_exact(&instance, "archived", 500);
    for point in ARCHIVE {
        let expected = load(&instance, 400);
        die_at(&instance, point, &archive);
        assert_exact(&instance, "archived", expected);
        // A second death at the same step, with more rows in between; then it succeeds.
        let expected = load(&instance, 100);
        let output =
            instance.command(&archive).env("WATERSHED_CRASH_AT", point).output().expect("the binary starts");
        assert!(output.status.code().is_none() || output.status.success(), "{point}: {}", shown(&output));
        assert_exact(&instance, "archived", expected);
        instance.run(&archive);
        assert_exact(&instance, "archived", expected);
    }
    verify(&instance);

    // A checkpoint of the log is written every so many commits: archive until one dies there.
    let mut died = false;
    for _ in 0..60 {
        load(&instance, 3);
        let output = instance.command(&archive).env("WATERSHED_CRASH_AT", "lake.checkpoint.written").output();
        let output = output.expect("the binary starts");
        died = output.status.code().is_none();
        if died {
            break;
        }
        assert!(output.status.success(), "{}", shown(&output));
    }
    assert!(died, "no checkpoint was written in 60 archives");
    let expected = load(&instance, 10);
    instance.run(&archive);
    assert_exact(&instance, "archived", expected);
    instance.terminate();
    instance.restart();
    assert_exact(&instance, "archived", expected);
    verify(&instance);
}

#[test]
fn a_compactor_killed_at_any_step_keeps_every_row() {
    let instance = Instance::start(Options::on_demand());
    let mut total = 0;
    for point in COMPACT {
        for _ in 0..4 {
            let file = instance.file("rows.ndjson", ndjson("compacted", total, total + 150));
            instance.run(&["load", "logs", argument(&file)]);
            instance.run(&["archive", "--now", "logs"]);
            total += 150;
        }
        die_at(&instance, point, &["compact", "logs"]);
        assert_exact(&instance, "compacted", total);
        instance.run(&["compact", "logs"]);
        assert_exact(&instance, "compacted", total);
    }
    verify(&instance);
}

/// kill -9 of everything at random moments while a file is loaded, archived and compacted.
#[test]
fn up_killed_while_loading_loses_nothing() {
    let instance = Instance::start(Options::busy());
    const ROWS: u64 = 300_000;
    let file = instance.file("large.ndjson", ndjson("killed", 0, ROWS));
    let mut random = Sequence(20_240_310);
    for round in 0..5 {
        let mut load = instance.command(&["load", "logs", argument(&file)]);
        let mut load = load.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary starts");
        let mut direct = Client::connect(&instance.direct());
        let enough = round * ROWS / 8 + random.below(ROWS / 8);
        let sql = "SELECT count(*) FROM logs WHERE service = 'killed'";
        wait_for("some rows", || {
            let rows: u64 = direct.value(sql).parse().expect("a number");
            (rows >= enough || load.try_wait().expect("the load's state").is_some()).then_some(())
        });
        thread::sleep(Duration::from_millis(random.below(300)));
        instance.kill(round % 2 == 0);
        kill_child(&mut load);
        instance.restart();
        let mut direct = Client::connect(&instance.direct());
        let rows = direct.value(sql).parse().expect("a number");
        assert!(rows <= ROWS);
        assert_exact(&instance, "killed", rows);
    }
    instance.run(&["load", "logs", argument(&file)]);
    assert_exact(&instance, "killed", ROWS);
    instance.archive();
    instance.run(&["compact"]);
    assert_exact(&instance, "killed", ROWS);
    verify(&instance);
}

/// Rows that were visible but not yet durable vanish when PostgreSQL stops at once, and their transaction numbers are used
/// again: neither may show in the lake.
#[test]
fn asynchronous_commits_lost_in_a_crash_are_lost_in_both_stores() {
    let instance = Instance::start(Options::busy());
    for round in 0..4u64 {
        let target = instance.direct();
        let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            for writer in 0..3 {
                let (stop, written, target) = (&stop, &written, &target);
                scope.spawn(move || {
                    let mut client = Client::connect(target);
                    client.run("SET synchronous_commit = off");
                    for n in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let sql = format!(
                            "INSERT INTO logs (ts, level, service, message) SELECT now() - g * interval '1 hour', 'INFO', 'lost', 'lost {round}.{writer}.{n}.' || g FROM generate_series(1, 4) g"
                        );
                        match client.try_query(&sql) {
                            Ok(reply) if reply.error().is_none() => written.fetch_add(1, Ordering::Relaxed),
                            _ => break,
                        };
                    }
                });
            }
            wait_for("some writing", || (written.load(Ordering::Relaxed) > 300).then_some(()));
            instance.archive(); // and the archiver of up goes on all the time
            let so_far = written.load(Ordering::Relaxed);
            wait_for("more writing", || (written.load(Ordering::Relaxed) > so_far + 50).then_some(()));
            if round % 2 == 0 {
                instance.stop_cluster_immediately();
            } else {
                instance.kill_cluster();
            }
            stop.store(true, Ordering::Relaxed);
            instance.kill(true);
        });
        instance.restart();
        let mut direct = Client::connect(&instance.direct());
        let sql = "SELECT count(*), count(DISTINCT message), count(*) % 4, count(DISTINCT _xid::text) * 4 = count(*) FROM logs WHERE service = 'lost'";
        let row = direct.run(sql).rows().remove(0);
        assert_eq!(row[0], row[1], "each row once: {row:?}");
        assert_eq!(row[2].as_deref(), Some("0"), "whole transactions: {row:?}");
        let rows = row[0].as_deref().and_then(|text| text.parse().ok()).expect("a number");
        assert_exact(&instance, "lost", rows);
        verify(&instance);
        // The numbers that the lost transactions had are given to new ones: those must not be lost.
        for n in 0..40 {
            direct.run(&format!(
                "INSERT INTO logs (ts, level, service, message) SELECT now(), 'INFO', 'lost', 'after {round}.{n}.' || g FROM generate_series(1, 4) g"
            ));
        }
        assert_exact(&instance, "lost", rows + 160);
        instance.archive();
        assert_exact(&instance, "lost", rows + 160);
        verify(&instance);
    }
}

/// PostgreSQL alone dies; the product must say so and go on, or end, but never answer wrongly.
#[test]
fn a_cluster_that_dies_comes_back() {
    let instance = Instance::start(Options::on_demand());
    let file = instance.file("rows.ndjson", ndjson("alone", 0, 1000));
    instance.run(&["load", "logs", argument(&file)]);
    instance.archive();
    let mut gateway = Client::connect(&instance.gateway());
    gateway.run("BEGIN");
    gateway.run("INSERT INTO logs (ts, service, message) VALUES (now(), 'alone', 'uncommitted')");
    instance.kill_cluster();
    assert!(
        gateway
            .try_query("SELECT count(*) FROM logs WHERE service = 'alone'")
            .map_or(true, |r| r.error().is_some())
    );
    wait_for("the cluster to come back, or up to end", || {
        if !instance.alive() {
            instance.restart();
        }
        let mut client = Client::try_connect(&instance.gateway(), &[]).ok()?;
        let reply = client.try_query("SELECT count(*) FROM logs WHERE service = 'alone'").ok()?;
        (reply.error().is_none()).then_some(())
    });
    assert_exact(&instance, "alone", 1000);
    verify(&instance);
}

/// SIGTERM ends everything cleanly: the cluster needs no recovery and a start finds all.
#[test]
fn a_clean_stop_is_clean() {
    let instance = Instance::start(Options::on_demand());
    let file = instance.file("rows.ndjson", ndjson("clean", 0, 1000));
    instance.run(&["load", "logs", argument(&file)]);
    instance.terminate();
    assert!(!instance.dir().join("pg/postmaster.pid").exists(), "the cluster was left running or unclean");
    instance.restart();
    assert_exact(&instance, "clean", 1000);
    verify(&instance);
}

/// A lake that cannot be read costs time, not answers: before the first row was sent, PostgreSQL answers instead, and it shows.
#[test]
fn a_lake_that_cannot_be_read_is_stood_in_for() {
    let instance = Instance::start(Options::on_demand());
    let file = instance.file("rows.ndjson", ndjson("unread", 0, 2000));
    instance.run(&["load", "logs", argument(&file)]);
    instance.archive();
    assert_exact(&instance, "unread", 2000);
    let sql = "SELECT service, count(*), count(DISTINCT host), max(message) FROM logs GROUP BY service";
    let mut gateway = Client::connect(&instance.gateway());
    let expected = gateway.run(sql);
    let route = |gateway: &mut Client| {
        let sql = format!(
            "SELECT route, fell_back FROM watershed.queries WHERE pid = {} AND sql = '{sql}' ORDER BY id DESC LIMIT 1",
            gateway.pid
        );
        gateway.run(&sql).rows().remove(0)
    };
    assert_eq!(route(&mut gateway), [Some("lake".to_owned()), Some("f".to_owned())]);

    // Every data file gone, then every data file full of nonsense.
    let lake = instance.dir().join("lake");
    let away = instance.dir().join("lake-away");
    let mut files = Vec::new();
    data_files(&lake, &mut files);
    assert!(!files.is_empty(), "no data files below {}", lake.display());
    fs::create_dir(&away).expect("a place for the files");
    let hidden: Vec<PathBuf> = (0..files.len()).map(|n| away.join(n.to_string())).collect();
    for (file, hidden) in files.iter().zip(&hidden) {
        fs::rename(file, hidden).expect("a file moved away");
    }
    // A fresh start forgets what was cached of the files.
    instance.terminate();
    instance.restart();
    let mut gateway = Client::connect(&instance.gateway());
    assert_eq!(gateway.run(sql), expected, "with the files gone");
    assert_eq!(route(&mut gateway), [Some("postgres".to_owned()), Some("t".to_owned())]);
    for file in &files {
        fs::write(file, "this is no Parquet file").expect("nonsense written");
    }
    assert_eq!(gateway.run(sql), expected, "with the files broken");
    assert_eq!(route(&mut gateway), [Some("postgres".to_owned()), Some("t".to_owned())]);
    // In a transaction, too, the failure is not the client's.
    gateway.run("BEGIN");
    assert_eq!(gateway.run(sql), Reply { frames: with_status(&expected, b'T') });
    gateway.run("COMMIT");
    let output = instance.output(&["verify", "logs"]);
    assert!(!output.status.success(), "verify must not pass over broken files: {}", shown(&output));
    for (file, hidden) in files.iter().zip(&hidden) {
        fs::rename(hidden, file).expect("a file moved back");
    }
    instance.terminate();
    instance.restart();
    let mut gateway = Client::connect(&instance.gateway());
    assert_eq!(gateway.run(sql), expected);
    assert_eq!(route(&mut gateway), [Some("lake".to_owned()), Some("f".to_owned())]);
    verify(&instance);
}

fn data_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the lake") {
        let path = entry.expect("a file of the lake").path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "_delta_log") {
            data_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            found.push(path);
        }
    }
}

fn with_status(reply: &Reply, status: u8) -> Vec<Frame> {
    let mut frames = reply.frames.clone();
    for frame in frames.iter_mut().filter(|frame| frame.tag == b'Z') {
        frame.body = vec![status];
    }
    frames
}

/// With hardly any memory for the lake, answers may come from the disk or from PostgreSQL, but they are the same.
#[test]
fn little_memory_changes_no_answer() {
    let instance = Instance::start(Options::on_demand().with("WATERSHED_MEMORY_LIMIT", "48MiB"));
    let file = instance.file("rows.ndjson", ndjson("little", 0, 400_000));
    instance.run(&["load", "logs", argument(&file)]);
    instance.archive();
    let (mut direct, mut gateway) =
        (Client::connect(&instance.direct()), Client::connect(&instance.gateway()));
    for sql in [
        "SELECT message, count(*) FROM logs GROUP BY message ORDER BY message",
        "SELECT count(DISTINCT message), count(DISTINCT ts) FROM logs",
        "SELECT message, ts, host, count(*), min(service) FROM logs GROUP BY message, ts, host ORDER BY ts DESC, message, host LIMIT 1000",
    ] {
        let (expected, actual) = (direct.run(sql), gateway.run(sql));
        if let Some(difference) = difference(&expected, &actual, true) {
            panic!("{sql}: {difference}");
        }
        let route = gateway.run(&format!(
            "SELECT route, fell_back, reasons FROM watershed.queries WHERE pid = {} AND sql = '{sql}'",
            gateway.pid
        ));
        println!("{sql}: {:?}", route.rows());
    }
    verify(&instance);
}

/// What all of this leans on: `verify` does see a row that one store lacks, and a row that both have twice.
#[test]
fn verify_finds_what_is_wrong() {
    let instance = Instance::start(Options::on_demand());
    let file = instance.file("rows.ndjson", ndjson("verified", 0, 500));
    instance.run(&["load", "logs", argument(&file)]);
    instance.archive();
    verify(&instance);
    // A row of a transaction that the boundary has passed, put in behind its back.
    let mut admin = Client::connect(&instance.admin());
    admin.run("SET watershed.maintenance = 'on'");
    admin.run("INSERT INTO logs (ts, level, service, message, _xid) SELECT now(), 'INFO', 'smuggled', 'behind the boundary', min(_xid::text::int8)::text::xid8 FROM logs");
    let output = instance.output(&["verify", "logs"]);
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert!(
        shown(&output).contains("behind the boundary"),
        "the first difference is named: {}",
        shown(&output)
    );
}
