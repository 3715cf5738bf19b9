//! COPY into a tiered table without a list of columns, through the gateway: the same rows, the same answers and the same
//! errors as PostgreSQL gives for a COPY with a list, in every shape that clients use. Also: what a full disk does to a
//! load and to the HTTP door.

mod support;

use std::process::{Command, Stdio};

use support::instance::{Instance, Options, shown};
use support::wire::{Client, Format, Host, Reply, frontend};
use support::wait_for;

const LIST: &str = "(ts, a, t)";

fn make(instance: &Instance, name: &str) {
    let mut owner = Client::connect(&instance.gateway());
    owner.run(&format!("CREATE TABLE {name} (ts timestamptz NOT NULL, a int4, t text)"));
    owner.run(&format!("SELECT watershed.attach_table('{}', event_time => 'ts')", name.replace('\'', "''")));
}

/// Sends a COPY and its data; gives everything up to ReadyForQuery.
fn copy(client: &mut Client, sql: &str, data: &str) -> Reply {
    client.send(&frontend::query(sql));
    let mut reply = client.until(b"GZ");
    if reply.frames.last().is_some_and(|f| f.tag == b'G') {
        client.send(&[frontend::copy_data(data.as_bytes()), frontend::copy_done()].concat());
        reply.frames.extend(client.reply().frames);
    }
    reply
}

/// An error's fields as far as they do not name a place in PostgreSQL's source.
fn told(reply: &Reply) -> Vec<(char, String)> {
    let error = reply.error().unwrap_or_else(|| panic!("an error was expected: {reply:?}"));
    error.into_iter().filter(|(code, _)| !matches!(code, 'F' | 'L' | 'R')).collect()
}

#[test]
fn copies_without_a_list_are_those_with_one() {
    let instance = Instance::shared();
    make(instance, "public.plain");
    make(instance, "public.\"Odd \"\"name\"");
    let mut direct = Client::connect(&instance.direct());
    let mut gateway = Client::connect(&instance.gateway());
    // PostgreSQL would have all columns filled, which users may not.
    assert_eq!(direct.query("COPY plain FROM STDIN").sqlstate(), "42501");

    let tabs = "2024-05-05 00:00:00+00\t1\tone\n2024-05-06 00:00:00+00\t\\N\ttwo\n";
    let csv = "ts;a;t\n2024-05-05 00:00:00+00;3;\"x;y\"\n";
    for (head, rest, data) in [
        ("COPY plain", " FROM STDIN", tabs),
        ("copy public.plain", " from stdin;", tabs),
        ("/* a */ COPY -- b\n \"public\" . plain", "/*c*/FROM STDIN", tabs),
        ("COPY plain", " FROM STDIN WITH (FORMAT csv, HEADER match, DELIMITER ';')", csv),
        ("COPY plain", " FROM STDIN WITH (FORMAT csv, HEADER, DELIMITER ';', FORCE_NOT_NULL (t)) WHERE a > 2", csv),
        ("COPY plain", " FROM STDIN DELIMITER AS ';' CSV HEADER QUOTE '\"'", csv),
        ("COPY \"Odd \"\"name\"", "FROM STDIN", tabs),
    ] {
        let expected = copy(&mut direct, &format!("{head} {LIST} {rest}"), data);
        let actual = copy(&mut gateway, &format!("{head}{rest}"), data);
        assert_eq!(actual.shape(), expected.shape(), "{head}{rest}\n{actual:?}\n{expected:?}");
        assert_eq!(actual.tags(), expected.tags(), "{head}{rest}");
        assert!(expected.error().is_none(), "{expected:?}");
    }
    // Each row is there twice: once of each.
    let once = "SELECT count(*) FROM (SELECT ts, a, t, count(*) AS n FROM plain GROUP BY ts, a, t) g WHERE n % 2 <> 0";
    assert_eq!(direct.value(once), "0");
    assert_eq!(direct.value("SELECT count(*) FROM plain"), "18");
    assert_eq!(direct.value("SELECT count(*) FROM \"Odd \"\"name\""), "4");

    // What goes wrong is told in the client's own text.
    for (head, rest, data) in [
        ("COPY plain", " FROM STDIN (FORMAT nothing)", ""),
        ("COPY plain", " FROM STDIN (FORMAT csv, FORMAT csv)", ""),
        ("COPY plain", " FROM STDIN WITH (FORMAT csv", ""),
        ("COPY plain", " FROM STDIN frobnicate", ""),
        ("COPY plain", " FROM STDIN WHERE nothere > 1", ""),
        ("COPY plain", " FROM STDIN", "2024-05-05\tno number\tx\n"),
        ("COPY plain", " FROM STDIN", "2024-05-05\t1\n"),
        ("COPY plain", " FROM STDIN", "\\N\t1\tx\n"),
        ("COPY plain", " FROM '/no/such/file'", ""),
    ] {
        let (listed, short) = (format!("{head} {LIST} {rest}"), format!("{head}{rest}"));
        let mut expected = told(&copy(&mut direct, &listed, data));
        let actual = told(&copy(&mut gateway, &short, data));
        for (code, value) in &mut expected {
            if *code == 'P' {
                let position: usize = value.parse().unwrap();
                *value = (position - (listed.len() - short.len())).to_string();
            }
            // The failing row's number of transaction.
            if *code == 'D' {
                *value = actual.iter().find(|(c, _)| *c == 'D').map(|(_, v)| v.clone()).unwrap_or_default();
            }
        }
        assert_eq!(actual, expected, "{short}");
    }
    // Tables that are none of ours, names that mean nothing, and texts of several statements stay as they are.
    gateway.run("CREATE TABLE simple (a int4)");
    assert_eq!(copy(&mut gateway, "COPY simple FROM STDIN", "1\n").ok().tags(), ["COPY 1"]);
    for sql in [
        "COPY nothere FROM STDIN",
        "COPY nothere.plain FROM STDIN",
        "COPY plain FROM STDIN; SELECT 1",
        "COPY plain TO STDOUT",
        "COPY plain",
        "COPY postgres.public.plain FROM STDIN",
    ] {
        assert_eq!(told(&gateway.query(sql)), told(&direct.query(sql)), "{sql}");
    }
    // A temporary table of the same name comes first.
    gateway.run("CREATE TEMP TABLE plain (a int4)");
    assert_eq!(copy(&mut gateway, "COPY plain FROM STDIN", "1\n").ok().tags(), ["COPY 1"]);
    assert_eq!(gateway.value("SELECT count(*) FROM pg_temp.plain"), "1");
    gateway.run("DROP TABLE pg_temp.plain");
    // By the search path, and not by it.
    gateway.run("SET search_path = pg_catalog");
    assert_eq!(copy(&mut gateway, "COPY plain FROM STDIN", "").sqlstate(), "42P01");
    assert_eq!(copy(&mut gateway, "COPY public.plain FROM STDIN", tabs).ok().tags(), ["COPY 2"]);
    gateway.run("RESET search_path");

    // A role without rights is told so, and its transaction is as PostgreSQL would leave it.
    Client::connect(&instance.admin()).run("CREATE ROLE copier LOGIN PASSWORD 'of-copier'");
    let mut poor = Client::connect(&instance.gateway().login("copier", "of-copier"));
    let mut poor_direct = Client::connect(&instance.direct().login("copier", "of-copier"));
    let listed = copy(&mut poor_direct, &format!("COPY plain {LIST} FROM STDIN"), "");
    assert_eq!(told(&copy(&mut poor, "COPY plain FROM STDIN", "")), told(&listed));
    assert_eq!(poor.value("SELECT 1"), "1");
}

#[test]
fn copies_in_transactions_land_in_both_stores_once() {
    let instance = Instance::shared();
    make(instance, "public.shaped");
    let mut gateway = Client::connect(&instance.gateway());
    let line = |a: u32| format!("2024-05-05 00:00:00+00\t{a}\trow {a}\n");
    gateway.run("BEGIN");
    copy(&mut gateway, "COPY shaped FROM STDIN", &line(1)).ok();
    gateway.run("SAVEPOINT one");
    copy(&mut gateway, "COPY shaped FROM STDIN", &line(100)).ok();
    gateway.run("ROLLBACK TO one");
    assert_eq!(copy(&mut gateway, "COPY shaped FROM STDIN", "bad\n").sqlstate(), "22007");
    gateway.run("ROLLBACK TO one");
    copy(&mut gateway, "COPY shaped FROM STDIN", &line(2)).ok();
    assert_eq!(gateway.value("SELECT count(*) FROM shaped"), "2");
    gateway.run("COMMIT");
    gateway.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    copy(&mut gateway, "COPY shaped FROM STDIN", &line(3)).ok();
    gateway.run("ROLLBACK");
    gateway.run("BEGIN ISOLATION LEVEL SERIALIZABLE");
    copy(&mut gateway, "COPY shaped FROM STDIN", &line(4)).ok();
    gateway.run("COMMIT");
    // In a failed transaction it is refused like anything.
    gateway.run("BEGIN");
    assert_eq!(gateway.query("SELECT 1/0").sqlstate(), "22012");
    assert_eq!(copy(&mut gateway, "COPY shaped FROM STDIN", "").sqlstate(), "25P02");
    gateway.run("ROLLBACK");
    // The extended protocol, as drivers send it: unnamed, and prepared and used twice.
    let data = [frontend::copy_data(line(5).as_bytes()), frontend::copy_done(), frontend::sync()].concat();
    for (name, parse) in [("", true), ("kept", true), ("kept", false)] {
        let mut frames = Vec::new();
        if parse {
            frames.push(frontend::parse(name, "COPY shaped FROM STDIN (FORMAT text)", &[]));
        }
        frames.push(frontend::bind("", name, Format::Text, &[], Format::Text));
        frames.push(frontend::execute("", 0));
        frames.push(frontend::sync());
        gateway.send(&frames.concat());
        let mut reply = gateway.until(b"GZ");
        assert_eq!(reply.frames.last().map(|f| f.tag), Some(b'G'), "{reply:?}");
        gateway.send(&data);
        reply.frames.extend(gateway.reply().frames);
        assert_eq!(reply.ok().tags(), ["COPY 1"]);
    }
    let bad = gateway.pipelined("COPY shaped FROM STDIN (FORMAT nothing)", Format::Text, &[], Format::Text);
    let position = told(&bad).into_iter().find(|(code, _)| *code == 'P');
    let expected = "COPY shaped FROM STDIN (".len() + 1;
    assert_eq!(position, Some(('P', expected.to_string())), "{bad:?}");

    instance.run(&["archive", "--now", "public.shaped"]);
    copy(&mut gateway, "COPY shaped FROM STDIN", &line(6)).ok();
    assert_eq!(gateway.value("SELECT string_agg(a::text, ' ' ORDER BY a) FROM shaped"), "1 2 4 5 5 5 6");
    assert_eq!(gateway.value("/* watershed: lake */ SELECT sum(a) FROM shaped"), "28");
    instance.run(&["verify", "public.shaped"]);

    // Rows are never changed, and the refusal says what to do.
    for sql in ["UPDATE shaped SET a = 1", "DELETE FROM shaped", "TRUNCATE shaped"] {
        let error = told(&gateway.query(sql));
        assert!(error.contains(&('C', "0A000".to_owned())), "{sql}: {error:?}");
        assert!(error.iter().any(|(code, hint)| *code == 'H' && !hint.is_empty()), "{sql}: {error:?}");
    }
    assert_eq!(gateway.value("SELECT count(*) FROM shaped"), "7");
}

#[test]
fn psql_copies_a_file() {
    let instance = Instance::shared();
    make(instance, "public.filed");
    let rows: String = (0..2000).map(|n| format!("2024-05-05 00:00:{:02}+00,{n},\"row, {n}\"\n", n % 60)).collect();
    let file = instance.file("rows.csv", format!("ts,a,t\n{rows}"));
    let target = instance.gateway();
    let Host::Tcp(host, port) = &target.host else { panic!("the gateway listens on TCP") };
    let script = format!(
        "\\copy filed from '{}' with (format csv, header)\nBEGIN;\n\\copy public.filed from '{}' csv header\nCOMMIT;\n",
        file.display(),
        file.display()
    );
    let mut psql = Command::new("psql");
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", host, "-p", &port.to_string()])
        .args(["-U", &target.user, "-d", &target.database])
        .env("PGPASSWORD", &target.password)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = psql.spawn().expect("psql");
    std::io::Write::write_all(&mut child.stdin.take().expect("its input"), script.as_bytes()).expect("psql reads");
    let output = child.wait_with_output().expect("psql ends");
    assert!(output.status.success(), "{}", shown(&output));
    let mut client = Client::connect(&target);
    assert_eq!(client.value("SELECT count(*) FROM filed"), "4000");
    assert_eq!(client.value("SELECT count(DISTINCT (a, t)) FROM filed"), "2000");
    instance.run(&["archive", "--now", "public.filed"]);
    instance.run(&["verify", "public.filed"]);
}

/// Only root may mount a small file system; elsewhere the injected probe of the library's tests stands for it.
#[test]
fn a_full_disk_stops_taking_in_and_room_lets_it_go_on() {
    let home = tempfile::Builder::new().prefix("watershed-full-").tempdir().expect("a temporary directory");
    let disk = home.path().join("disk");
    std::fs::create_dir(&disk).expect("a folder");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"])
        .arg(&disk)
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        eprintln!("not run: a tmpfs cannot be mounted here");
        return;
    }
    struct Unmount(std::path::PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
    let _unmount = Unmount(disk.clone());
    let settings = home.path().join("watershed.toml");
    // In bytes, so that only the small disk counts, whatever the machine has free.
    let text = format!("[ingest.pressure]\ninterval = \"100ms\"\nmin_free = \"6MiB\"\nmin_free_percent = 0.0\ndirectories = [\"{}\"]\n", disk.display());
    std::fs::write(&settings, text).expect("the settings");
    let instance =
        Instance::start(Options::on_demand().with("WATERSHED_CONFIG", settings.to_str().expect("a path")));
    let post = || {
        let output = Command::new("curl")
            .args(["-s", "-i", "-d", "{\"ts\":1,\"message\":\"m\"}"])
            .arg(format!("http://127.0.0.1:{}/v1/ingest/logs", instance.http_port()))
            .output()
            .expect("curl");
        String::from_utf8_lossy(&output.stdout).to_lowercase()
    };
    assert!(post().starts_with("http/1.1 200"), "{}", post());
    let filler = disk.join("filler");
    std::fs::write(&filler, vec![1u8; 60 << 20]).expect("room for the filler");
    wait_for("the door to close", || post().starts_with("http/1.1 503").then_some(()));
    let refused = post();
    assert!(refused.contains("retry-after: 10") && refused.contains("is nearly full"), "{refused}");
    // Reading goes on, and so does SQL.
    let mut client = Client::connect(&instance.gateway());
    let before: u32 = client.value("SELECT count(*) FROM logs").parse().expect("a number");
    // A load waits and says so.
    let file = instance.file("lines.ndjson", "{\"ts\":1,\"message\":\"loaded\"}\n");
    let log = home.path().join("load.log");
    let mut load = instance
        .command(&["load", "--config", settings.to_str().expect("a path"), "logs", file.to_str().expect("a path")])
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).expect("a log"))
        .spawn()
        .expect("watershed load");
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    wait_for("the load to say that it waits", || said().contains("waits until there is room").then_some(()));
    assert!(load.try_wait().expect("the load").is_none(), "{}", said());
    assert_eq!(client.value("SELECT count(*) FROM logs"), before.to_string());
    std::fs::remove_file(&filler).expect("the filler");
    assert!(load.wait().expect("the load").success(), "{}", said());
    wait_for("the door to open", || post().starts_with("http/1.1 200").then_some(()));
    assert_eq!(client.value("SELECT count(*) FROM logs WHERE message = 'loaded'"), "1");
    assert!(instance.log().contains("nothing more is taken in until there is room"), "{}", instance.log());
    assert!(instance.log().contains("taking in goes on"), "{}", instance.log());
}
