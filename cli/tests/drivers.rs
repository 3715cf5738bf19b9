//! Real drivers at both doors: each program under `drivers/` runs the same contract directly on PostgreSQL and through the
//! gateway, prints every result as a line, and the lines must be equal. What it marks must have been answered by the lake.
//!
//! `deploy/local/drivers` installs the drivers. One that cannot be had is skipped with the reason printed; in CI that fails.

#[path = "drivers/rust.rs"]
mod rust;
mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use support::drivers::{self, has, wait_until_known};
use support::instance::Instance;
use support::wait_for;
use support::wire::{Client, Target};

/// A running product with the tables of `drivers/tables.sql`, and the doors to them.
struct Doors {
    instance: &'static Instance,
    direct: Target,
    gateway: Target,
}

fn doors() -> &'static Doors {
    static DOORS: OnceLock<Doors> = OnceLock::new();
    DOORS.get_or_init(|| {
        let instance = Instance::shared();
        let mut owner = Client::connect(&instance.gateway());
        let rows = |from: i32, to: i32| {
            include_str!("drivers/rows.sql").replace(":from", &from.to_string()).replace(":to", &to.to_string())
        };
        // They are there already where the tests themselves are worked on, on an instance that stays.
        if owner.value("SELECT to_regclass('notes') IS NOT NULL") == "t" {
            return Doors { instance, direct: instance.direct(), gateway: instance.gateway() };
        }
        owner.run(include_str!("drivers/tables.sql"));
        owner.run(&rows(1, 600));
        owner.run("INSERT INTO heavy SELECT timestamptz '2024-05-01 00:00:00+00', g FROM generate_series(1, 200000) g");
        // Rows that nobody asks for, so that this table has files too.
        owner.run("INSERT INTO journal (who, n) SELECT 'nobody', g FROM generate_series(1, 100) g");
        instance.archive();
        owner.run(&rows(601, 900));
        instance.archive();
        owner.run(&rows(901, 1000));
        owner.run("ANALYZE");
        wait_until_known(instance, &mut owner, &["samples", "journal", "heavy", "logs", "events", "sample_kinds"]);
        Doors { instance, direct: instance.direct(), gateway: instance.gateway() }
    })
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers")
}

/// A program at one door, in a zone of its own: some drivers set the session's from it.
fn program(kind: &str, target: &Target, arguments: &[&str]) -> Command {
    let mut command = drivers::program(kind, target, "drivers", arguments);
    command.env("TZ", "America/New_York");
    command
}

#[track_caller]
fn lines(what: &str, output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.ends_with("done\n"),
        "{what}: {}\n{}\n{said}",
        output.status,
        tail(&text)
    );
    // A temporary table of another driver, which runs at the same time, is a type as well.
    let of_others = |line: &&str| line.starts_with("types: own ") || line.starts_with("types: _own ");
    text.lines().filter(|line| !of_others(line)).map(same_for_both).collect()
}

/// A line without what differs from row to row: the number of the transaction that tried to write it, the time, a process.
fn same_for_both(line: &str) -> String {
    if let Some((head, _)) = line.split_once(" received from server process with PID ") {
        return head.to_owned();
    }
    match line.split_once("Failing row contains (") {
        Some((head, rest)) => {
            format!("{head}Failing row contains (...{}", rest.find(").").map_or(rest, |at| &rest[at..]))
        }
        None => line.to_owned(),
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// Fails with the first lines that differ.
#[track_caller]
fn same(what: &str, direct: &[String], gateway: &[String]) {
    let mut faults = Vec::new();
    for (n, (right, got)) in direct.iter().zip(gateway).enumerate() {
        if right != got {
            faults.push(format!("line {}:\n  PostgreSQL {right}\n  gateway    {got}", n + 1));
        }
    }
    if direct.len() != gateway.len() {
        faults.push(format!("{} lines from PostgreSQL, {} through the gateway", direct.len(), gateway.len()));
    }
    faults.truncate(12);
    assert!(faults.is_empty(), "{what}:\n{}", faults.join("\n"));
}

/// The marked statements of a driver, as the gateway wrote them down: all from the lake, and at least so many.
#[track_caller]
fn from_the_lake(mark: &str, at_least: usize) {
    let mut reader = Client::connect(&doors().instance.admin_through_gateway());
    let sql = format!(
        "SELECT route, fell_back, coalesce(sqlstate, ''), reasons, sql FROM watershed.queries WHERE sql LIKE '%{mark}%' AND sql NOT LIKE '%watershed.queries%'"
    );
    let rows = reader.run(&sql).rows();
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let mut elsewhere: Vec<String> = Vec::new();
    let mut lake = 0;
    for row in &rows {
        match (text(&row[0]).as_str(), text(&row[1]).as_str()) {
            ("lake", "f") => lake += 1,
            // What comes in an aborted transaction, or is cancelled while it is analyzed, was never routed.
            // Several statements in one text are PostgreSQL's by design.
            _ if matches!(
                text(&row[3]).as_str(),
                "the transaction is aborted" | "several statements in one text"
            ) || matches!(text(&row[2]).as_str(), "25P02" | "57014") => {}
            _ => elsewhere.push(row.iter().map(text).collect::<Vec<_>>().join(" | ")),
        }
    }
    elsewhere.truncate(8);
    assert!(elsewhere.is_empty(), "not from the lake:\n{}", elsewhere.join("\n"));
    assert!(lake >= at_least, "{lake} statements of {mark} from the lake, {at_least} expected");
    println!("{mark}: {lake} statements from the lake");
}

/// Runs a program at both doors and compares.
#[track_caller]
fn contract(driver: &str, kind: &str, arguments: &[&str], at_least: usize) {
    if !has(kind) {
        return;
    }
    let doors = doors();
    let mark = format!("on_lake_{driver}_{}", std::process::id());
    let run = |target: &Target, door: &str| {
        let key = format!("{driver}_{door}_{}", std::process::id());
        let arguments: Vec<&str> = arguments.iter().copied().chain([key.as_str(), mark.as_str()]).collect();
        program(kind, target, &arguments).output().expect("timeout starts")
    };
    let direct = lines(&format!("{driver} on PostgreSQL"), &run(&doors.direct, "at_postgresql"));
    let gateway = lines(&format!("{driver} through the gateway"), &run(&doors.gateway, "at_the_gatewa"));
    println!("{driver}: {} lines", direct.len());
    same(driver, &direct, &gateway);
    from_the_lake(&mark, at_least);
}

#[test]
fn psycopg_3() {
    contract("psycopg3", "python", &["with_psycopg3.py"], 100);
}

#[test]
fn psycopg_2() {
    contract("psycopg2", "python", &["with_psycopg2.py"], 50);
}

#[test]
fn asyncpg() {
    contract("asyncpg", "python", &["with_asyncpg.py"], 100);
}

#[test]
fn sqlalchemy() {
    contract("sqlalchemy", "python", &["with_sqlalchemy.py"], 25);
}

#[test]
fn pgjdbc() {
    contract("pgjdbc", "java", &["WithPgjdbc.java"], 300);
}

#[test]
fn node_postgres() {
    contract("node", "node", &["with_pg.js"], 100);
}

#[test]
fn pgx() {
    contract("pgx", "go", &[folder().join("go").to_str().expect("a path in UTF-8")], 200);
}

#[test]
fn tokio_postgres() {
    let doors = doors();
    let mark = format!("on_lake_tokio_{}", std::process::id());
    let run = |target: &Target, door: &str| {
        rust::contract(target, &format!("tokio_{door}_{}", std::process::id()), &mark)
    };
    let direct = run(&doors.direct, "at_postgresql");
    let gateway = run(&doors.gateway, "at_the_gatewa");
    println!("tokio-postgres: {} lines", direct.len());
    let lines = |lines: Vec<String>| lines.iter().map(|line| same_for_both(line)).collect::<Vec<_>>();
    same("tokio-postgres", &lines(direct), &lines(gateway));
    from_the_lake(&mark, 120);
}

fn psql(target: &Target, arguments: &[&str]) -> Command {
    let mut command = program("psql", target, arguments);
    command.env("PSQL_HISTORY", "/dev/null").env("PAGER", "cat");
    command
}

/// psql: what people type, its own commands (which ask catalogs), cursors by FETCH_COUNT, COPY, and Ctrl-C.
#[test]
fn psql_itself() {
    if !has("psql") {
        return;
    }
    let doors = doors();
    let mark = format!("on_lake_psql_{}", std::process::id());
    let run = |target: &Target, door: &str| {
        let key = format!("key=psql_{door}_{}", std::process::id());
        let marked = format!("mark={mark}");
        // For statements that only make others.
        let reversed = format!("kram={}", mark.chars().rev().collect::<String>());
        let output = psql(target, &["-X", "-v", &key, "-v", &marked, "-v", &reversed, "-f", "script.psql"])
            .stderr(Stdio::piped())
            .output()
            .expect("psql starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let mut lines = lines(&format!("psql at {door}"), &output);
        lines.extend(said.lines().map(same_for_both));
        lines.into_iter().map(|line| line.replace(&key[4..], "KEY")).collect::<Vec<_>>()
    };
    let (direct, gateway) = (run(&doors.direct, "at_postgresql"), run(&doors.gateway, "at_the_gatewa"));
    println!("psql: {} lines", direct.len());
    same("psql", &direct, &gateway);
    from_the_lake(&mark, 12);

    // Ctrl-C, again until it has ended: the first may come before the statement runs.
    let terms: Vec<String> =
        (1..=60).map(|n| format!("count(*) FILTER (WHERE a / (a + {n}.7) > 0.3)")).collect();
    let heavy = format!("SELECT {} FROM heavy", terms.join(", "));
    for target in [&doors.direct, &doors.gateway] {
        for sql in ["SELECT pg_sleep(300)", heavy.as_str()] {
            let ready = doors.instance.file("psql.ready", "");
            std::fs::remove_file(&ready).expect("just written");
            let mark = format!("\\! touch {}", ready.display());
            let mut command =
                psql(target, &["-X", "-q", "-A", "-t", "-c", "SELECT 'before'", "-c", &mark, "-c", sql]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            let child = command.spawn().expect("psql starts");
            wait_for("psql to be ready", || ready.exists().then_some(()));
            let pid = child.id() as i32;
            let (ended, still) = std::sync::mpsc::channel::<()>();
            let stopper = thread::spawn(move || {
                while still.recv_timeout(Duration::from_millis(500))
                    == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
                {
                    // timeout(1) passes it on.
                    support::instance::signal("INT", pid);
                }
            });
            let output = child.wait_with_output().expect("psql ends");
            drop(ended);
            stopper.join().expect("the stopper ends");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(said.contains("ERROR:  canceling statement due to user request"), "{said}");
        }
    }
}

/// pgbench in each of its modes, with scripts that compare what came with what must come.
#[test]
fn pgbench() {
    if !has("pgbench") {
        return;
    }
    let doors = doors();
    let mark = format!("on_lake_pgbench_{}", std::process::id());
    // pgbench makes columns into variables; each answer is checked by an error where it is not right.
    let plain = format!(
        "\\set id random(1, 900)\n\
         SELECT i2 IS NULL AS missing, id AS found FROM samples WHERE id = :id \\gset\n\
         SELECT 1 / (:found = :id)::int;\n\
         SELECT count(*) AS {mark}, max(id) AS most FROM samples WHERE id <= :id \\gset\n\
         SELECT 1 / (:{mark} = :id AND :most = :id)::int;\n\
         BEGIN;\n\
         INSERT INTO journal (who, n) VALUES ('pgbench', :id);\n\
         SELECT count(*) AS {mark}_own FROM journal WHERE who = 'pgbench' \\gset\n\
         SELECT 1 / (:{mark}_own >= 1)::int;\n\
         ROLLBACK;\n"
    );
    let pipelined = format!(
        "\\set id random(1, 900)\n\\startpipeline\n\
         SELECT t FROM samples WHERE id = :id;\n\
         SELECT count(*) AS {mark} FROM samples WHERE id <= :id;\n\
         SELECT kind, count(*) AS {mark} FROM samples GROUP BY kind;\n\
         SELECT n FROM samples WHERE id = :id;\n\\endpipeline\n"
    );
    let plain = doors.instance.file("plain.pgbench", plain);
    let pipelined = doors.instance.file("pipelined.pgbench", pipelined);
    for mode in ["simple", "extended", "prepared"] {
        for (script, name) in [(&plain, "plain"), (&pipelined, "pipelined")] {
            if mode == "simple" && name == "pipelined" {
                continue; // pgbench itself has no pipelines of simple queries
            }
            let run = |target: &Target| {
                let script = script.to_str().expect("a path in UTF-8");
                let output =
                    program("pgbench", target, &["-n", "-M", mode, "-c", "2", "-t", "12", "-f", script])
                        .output()
                        .expect("pgbench starts");
                let text = support::instance::shown(&output);
                assert!(output.status.success(), "{mode}, {name}: {text}");
                let kept = ["query mode", "number of transactions actually", "number of failed"];
                let lines: Vec<String> = text
                    .lines()
                    .filter(|line| kept.iter().any(|start| line.starts_with(start)))
                    .map(str::to_owned)
                    .collect();
                assert!(lines.iter().any(|line| line.ends_with("24/24")), "{mode}, {name}: {text}");
                lines
            };
            same(&format!("pgbench, {mode}, {name}"), &run(&doors.direct), &run(&doors.gateway));
        }
    }
    from_the_lake(&mark, 3 * 24 * 2 + 2 * 24 * 2);
}
