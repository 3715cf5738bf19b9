//! Days leave PostgreSQL, and no client notices but by the time it takes: what may need rows below the floor comes from the lake, whatever
//! its shape, or is refused by name; never a part of the rows. A plain table beside the tiered one holds the same rows and says what is right.

mod support;

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use support::Sequence;
use support::compare::table_difference as difference;
use support::instance::{Instance, Options, shown};
use support::wire::{Client, Format, Reply, frontend};

/// Days of rows before today.
const DAYS: i32 = 12;

/// A settings file that leaves retention to `watershed retain`.
fn settings() -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(b"[retention]\ninterval = \"24h\"\nearly = false\n").expect("written");
    file
}

fn start(settings: &tempfile::NamedTempFile) -> Instance {
    support::well_before_midnight();
    let path = settings.path().to_str().expect("a path of text");
    Instance::start(Options::on_demand().with("WATERSHED_CONFIG", path))
}

/// `t` is tiered, `twin` an ordinary table with the same rows.
/// The product's own: where it is less than a gateway's look takes on a busy machine, statements are refused that a look later are answered.
const NOTICE: &str = "10s";

fn make_tables(instance: &Instance) -> Client {
    let mut owner = Client::connect(&instance.gateway());
    for name in ["t", "twin"] {
        owner.run(&format!("CREATE TABLE {name} (id int8, ts timestamptz NOT NULL, kind text, amount numeric(12,2), note jsonb)"));
    }
    owner.run(&format!(
        "SELECT watershed.attach_table('public.t', event_time => 'ts', first_day => (now() AT TIME ZONE 'UTC')::date - {})",
        DAYS - 2
    ));
    owner.run(&format!(
        "INSERT INTO twin SELECT i, date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' - (i % {DAYS}) * interval '1 day' + i * interval '7 seconds',
         'kind ' || i % 5, i * 1.25, jsonb_build_object('n', i) FROM generate_series(1, 1200) i"
    ));
    owner.run("INSERT INTO t SELECT * FROM twin");
    instance.archive();
    // Some rows of every day are tail.
    owner.run(&format!("INSERT INTO twin SELECT 5000 + i, now() - (i % {DAYS}) * interval '1 day', 'kind ' || i % 3, 1, NULL FROM generate_series(1, 60) i"));
    owner.run("INSERT INTO t SELECT * FROM twin WHERE id > 5000");
    owner
}

fn retain(instance: &Instance, hot_days: i32) -> String {
    let mut owner = Client::connect(&instance.gateway());
    owner.run(&format!("SELECT watershed.set_retention('public.t', hot_days => {hot_days})"));
    let output = instance.output(&["retain", "t", "--notice", NOTICE]);
    assert!(output.status.success(), "{}", shown(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs the statement; where it was answered, and why.
fn route_of(client: &mut Client, sql: &str) -> (String, String) {
    client.run(sql);
    let pid = client.value("SELECT pg_backend_pid()");
    let asked = format!("SELECT route, reasons FROM watershed.queries WHERE pid = {pid} AND sql = $sql${sql}$sql$ ORDER BY id DESC LIMIT 1");
    let rows = client.run(&asked).rows();
    let text = |i: usize| rows[0][i].clone().unwrap_or_default();
    (text(0), text(1))
}

/// Statements over `FROM`, and whether their rows come in an order.
const STATEMENTS: [(&str, bool); 16] = [
    ("SELECT count(*), sum(amount), min(ts), max(ts) FROM TABLE", true),
    ("SELECT kind, count(*), sum(id) FROM TABLE GROUP BY kind ORDER BY kind", true),
    ("SELECT count(*) FROM TABLE WHERE ts >= now() - interval '3 days'", true),
    ("SELECT count(*) FROM TABLE WHERE ts < now() - interval '6 days'", true),
    ("SELECT id, kind, amount FROM TABLE WHERE id = 3", false),
    ("SELECT id, kind, amount FROM TABLE WHERE id = 11", false),
    ("SELECT id, note, kind FROM TABLE WHERE id = 5003", false),
    ("SELECT id, ts FROM TABLE ORDER BY ts DESC, id LIMIT 7", true),
    ("SELECT id, ts FROM TABLE ORDER BY ts, id LIMIT 7", true),
    ("SELECT id FROM TABLE WHERE ts >= now() - interval '2 days' ORDER BY id LIMIT 5", true),
    ("SELECT id FROM TABLE WHERE kind = 'kind 2' AND ts > now() - interval '9 days'", false),
    ("SELECT DISTINCT kind FROM TABLE", false),
    ("SELECT id, ts FROM TABLE WHERE ts BETWEEN now() - interval '8 days' AND now() - interval '7 days'", false),
    ("WITH recent AS (SELECT * FROM TABLE) SELECT id FROM recent WHERE ts > now() - interval '1 day'", false),
    ("SELECT id FROM TABLE LIMIT 0", true),
    ("SELECT id FROM TABLE WHERE id = -1", true),
];

/// Both tables are asked the same in one transaction, so that `now()` is one.
#[track_caller]
fn assert_same(client: &mut Client, statement: &str, in_order: bool) {
    client.run("BEGIN");
    let right = client.query(&statement.replace("TABLE", "twin"));
    let got = client.query(&statement.replace("TABLE", "t"));
    client.run("COMMIT");
    assert!(right.error().is_none(), "{statement}\n{right:?}");
    if let Some(what) = difference(&right, &got, in_order) {
        panic!("{statement}: {what}\n{got:?}");
    }
}

#[test]
fn what_left_postgresql_is_answered_by_the_lake() {
    let settings = settings();
    let instance = start(&settings);
    let mut client = make_tables(&instance);
    let plan = instance.run(&["retain", "--plan"]);
    assert!(plan.contains("public.t: PostgreSQL keeps everything") && plan.contains("nothing to do"), "{plan}");
    client.run("SELECT watershed.set_retention('public.t', hot_days => 5)");
    let plan = instance.run(&["retain", "t", "--dry-run"]);
    assert!(plan.contains("because: PostgreSQL keeps 5 days") && plan.contains("would be done"), "{plan}");
    assert_eq!(client.value("SELECT count(*) FROM watershed.tables WHERE isfinite(floor)"), "0");
    let report = retain(&instance, 5);
    assert!(report.contains("done, "), "{report}");
    assert_eq!(
        client.value("SELECT (now() AT TIME ZONE 'UTC')::date - (floor AT TIME ZONE 'UTC')::date FROM watershed.tables WHERE table_name = 'public.t'"),
        "5"
    );

    for (statement, in_order) in STATEMENTS {
        assert_same(&mut client, statement, in_order);
    }
    // By itself, not in a transaction, and by the extended protocol in both formats.
    assert_eq!(client.value("SELECT count(*) FROM t"), "1260");
    for results in [Format::Text, Format::Binary] {
        for id in ["3", "11", "5003", "-4"] {
            let values = [Some(id.as_bytes().to_vec())];
            let ask = |client: &mut Client, table: &str| {
                client.prepared("s", &format!("SELECT id, ts, amount, note FROM {table} WHERE id = $1"), Format::Text, &values, results)
            };
            let (right, got) = (ask(&mut client, "twin"), ask(&mut client, "t"));
            assert_eq!(difference(&right.ok(), &got.ok(), true), None, "id {id}");
            let pipelined = |client: &mut Client, table: &str| {
                client.pipelined(&format!("SELECT id, ts, amount, note FROM {table} WHERE id = $1"), Format::Text, &values, results)
            };
            let (right, got) = (pipelined(&mut client, "twin"), pipelined(&mut client, "t"));
            assert_eq!(difference(&right.ok(), &got.ok(), true), None, "id {id}");
        }
    }
    // Where each was answered.
    assert_eq!(route_of(&mut client, "SELECT id FROM t WHERE id = 3").0, "lake");
    let (route, reasons) = route_of(&mut client, "SELECT id FROM t WHERE id = 3 AND ts > now() - interval '1 day'");
    assert!(route == "postgres" && reasons.contains("needs no rows"), "{route}: {reasons}");
    assert_eq!(route_of(&mut client, "SELECT id FROM t WHERE id = 3 AND ts > '2999-01-01'").0, "postgres");

    // A statement that was prepared while it was hot, and is not any more.
    let since = client.value("SELECT (now() - interval '4 days 12 hours')::timestamptz(0)");
    let named = |table: &str, name: &str| frontend::parse(name, &format!("SELECT id FROM {table} WHERE ts >= '{since}' AND id < 20 ORDER BY id"), &[]);
    for (table, name) in [("t", "early"), ("twin", "twin_early")] {
        client.send(&[named(table, name), frontend::sync()].concat());
        client.reply().ok();
    }
    let mut execute = |name: &str| {
        client.send(&[frontend::bind("", name, Format::Text, &[], Format::Text), frontend::execute("", 0), frontend::sync()].concat());
        client.reply().ok()
    };
    assert_eq!(execute("early").rows(), execute("twin_early").rows());
    retain(&instance, 2);
    assert_eq!(execute("early").rows(), execute("twin_early").rows());
    for (statement, in_order) in STATEMENTS {
        assert_same(&mut client, statement, in_order);
    }
    let report = instance.run(&["verify", "t"]);
    assert!(report.contains("public.t"), "{report}");
}

#[track_caller]
fn refused(reply: &Reply, words: &str) {
    let e = reply.error().unwrap_or_else(|| panic!("an error was expected:\n{reply:?}"));
    assert_eq!(e[&'C'], "0A000", "{reply:?}");
    assert!(e[&'M'].contains("rows of public.t before 20") && e.contains_key(&'H'), "{reply:?}");
    assert!(e[&'D'].contains(words), "{words}:\n{reply:?}");
}

#[test]
fn nobody_gets_a_part_of_the_rows_at_any_door() {
    let settings = settings();
    let instance = start(&settings);
    let mut client = make_tables(&instance);
    client.run("CREATE FUNCTION counted() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM t); END'");
    client.run("CREATE FUNCTION summed() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM t'");
    client.run("PREPARE everything AS SELECT count(*) FROM t");
    client.run("PREPARE since(timestamptz) AS SELECT count(*) FROM t WHERE ts >= $1");
    client.run("SET plan_cache_mode = force_generic_plan");
    retain(&instance, 5);
    for (door, words) in [
        ("SELECT counted()", ""),
        ("SELECT summed()", ""),
        ("DO 'DECLARE c bigint; BEGIN SELECT count(*) INTO c FROM t; END'", ""),
        ("COPY (SELECT count(*) FROM t) TO STDOUT", ""),
        ("EXECUTE everything", ""),
        ("EXECUTE since('2000-01-01')", ""),
        ("CREATE TABLE copied AS SELECT * FROM t", ""),
        ("SELECT count(*) FROM t; SELECT 1", "several statements"),
        ("SELECT string_agg(kind, ',') FROM t", "string_agg"),
        ("SELECT jsonb_agg(kind) FROM t", "jsonb_agg"),
        ("SELECT id, row_number() OVER (ORDER BY ts) FROM t", "window"),
        ("/* watershed: postgres */ SELECT count(*) FROM t", "asks for PostgreSQL"),
        ("SELECT id FROM t WHERE id = 3 FOR UPDATE", ""),
        // What the lake meets PostgreSQL might not, and what nobody reads PostgreSQL may compute: only it knows.
        ("SELECT 1 / (id - id) FROM t", "division by zero"),
        ("SELECT count(*) FROM t WHERE 1 / (id - id) > 0 OR kind = 'kind 1'", "division by zero"),
        ("WITH a AS MATERIALIZED (SELECT kind, 1 / (id - id) AS r FROM t) SELECT count(*) FROM a", "division by zero"),
        ("SELECT max(lower(kind || 'Ü')) FROM t", "upper and lower case"),
    ] {
        let reply = client.query(door);
        refused(&reply, words);
        assert_eq!(reply.status(), 'I', "{door}");
    }
    // As any error of PostgreSQL's, it ends the transaction, and a savepoint saves it.
    client.run("BEGIN");
    client.run("SAVEPOINT s");
    refused(&client.query("DECLARE c CURSOR FOR SELECT id FROM t"), "");
    assert_eq!(client.query("SELECT 1").sqlstate(), "25P02");
    client.run("ROLLBACK TO s");
    refused(&client.pipelined("SELECT string_agg(kind, ',') FROM t", Format::Text, &[], Format::Text), "string_agg");
    client.run("ROLLBACK TO s");
    // A cursor above the floor, and a plan that prunes when it runs.
    client.run("DECLARE c CURSOR FOR SELECT id FROM t WHERE ts > now() - interval '1 day'");
    client.run("COMMIT");
    let right = client.value("SELECT count(*) FROM twin WHERE ts >= now()::date");
    assert_eq!(client.value("EXECUTE since(now()::date)"), right);
    client.run("SET watershed.route = 'postgres'");
    refused(&client.query("SELECT count(*) FROM t"), "asks for PostgreSQL");
    client.run("RESET watershed.route");
    // PostgreSQL itself, without the gateway.
    let mut direct = Client::connect(&instance.admin());
    for door in ["SELECT count(*) FROM t", "SELECT counted()", "COPY (SELECT id FROM t) TO STDOUT", "SELECT id FROM t WHERE id = 3"] {
        let e = direct.query(door).error().expect(door);
        assert_eq!(e[&'C'], "58P01", "{door}");
        assert!(e[&'M'].contains("ask through the gateway"), "{}", e[&'M']);
    }
    assert_eq!(direct.value("SELECT count(*) FROM t WHERE ts >= now()::date"), right);
}

#[test]
fn a_cold_statement_is_a_statement_like_any() {
    let settings = settings();
    let instance = start(&settings);
    let mut client = make_tables(&instance);
    client.run("CREATE VIEW seen AS SELECT id, kind FROM t; CREATE TABLE hidden (id int8, ts timestamptz NOT NULL)");
    client.run("SELECT watershed.attach_table('public.hidden', event_time => 'ts')");
    retain(&instance, 5);

    // In a transaction it ends nothing, and the transaction's own rows are there.
    client.run("BEGIN");
    client.run("INSERT INTO t VALUES (9001, now() - interval '300 days', 'own', 1, NULL)");
    assert_eq!(client.value("SELECT count(*) FROM t"), "1261");
    assert_eq!(client.value("SELECT kind FROM t WHERE id = 9001"), "own");
    assert_eq!(client.value("SELECT kind FROM t WHERE id = 3"), "kind 3");
    client.run("ROLLBACK");
    assert_eq!(client.value("SELECT count(*) FROM t"), "1260");
    client.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    assert_eq!(client.value("SELECT count(*) FROM t"), "1260");
    client.run("COMMIT");

    // A snapshot that is older than a drop: what it needs is nowhere for it, and nobody answers short.
    let mut old = Client::connect(&instance.gateway());
    old.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    old.run("SELECT 1 FROM twin");
    client.run("INSERT INTO t VALUES (9002, now() - interval '4 days 12 hours', 'not archived', 1, NULL)");
    let mut older = Client::connect(&instance.gateway());
    older.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    older.run("SELECT 1 FROM twin");
    retain(&instance, 3);
    for (session, right) in [(&mut old, "1260"), (&mut older, "1261")] {
        let hot = session.value("SELECT count(*) FROM t WHERE ts > now() - interval '2 days'");
        assert_eq!(hot, session.value("SELECT count(*) FROM twin WHERE ts > now() - interval '2 days'"));
        let reply = session.query("SELECT count(*) FROM t");
        match reply.sqlstate().as_str() {
            "40001" => assert!(reply.error().unwrap().contains_key(&'H')),
            _ => assert_eq!(reply.ok().value(), right),
        }
        session.run("ROLLBACK");
        assert_eq!(session.value("SELECT count(*) FROM t"), "1261");
    }

    // Portals: described as PostgreSQL would, in parts, and gone with their transaction.
    let sql = "SELECT id, ts, amount FROM t WHERE id <= 30 ORDER BY id LIMIT 20";
    let fetch = |client: &mut Client, sql: &str, results: Format| {
        client.run("BEGIN");
        let mut bytes = frontend::parse("", sql, &[]);
        bytes.extend(frontend::bind("p", "", Format::Text, &[], results));
        bytes.extend(frontend::describe(b'P', "p"));
        for rows in [3, 4, 0] {
            bytes.extend(frontend::execute("p", rows));
        }
        bytes.extend(frontend::sync());
        client.send(&bytes);
        let reply = client.reply();
        client.run("COMMIT");
        reply.ok()
    };
    for results in [Format::Text, Format::Binary] {
        let right = fetch(&mut client, &sql.replace("FROM t", "FROM twin"), results);
        let got = fetch(&mut client, sql, results);
        assert_eq!(got.shape(), right.shape());
        assert_eq!(difference(&right, &got, true), None);
    }
    client.run("BEGIN");
    client.send(&[frontend::parse("", sql, &[]), frontend::bind("p", "", Format::Text, &[], Format::Text), frontend::flush()].concat());
    client.until(b"2");
    refused_fetch(&client.query("FETCH ALL FROM p"));
    client.run("ROLLBACK");
    client.send(&[frontend::execute("p", 0), frontend::sync()].concat());
    assert_eq!(client.reply().sqlstate(), "34000");

    // Parameters are converted as by PostgreSQL.
    let wrong = |client: &mut Client, table: &str| {
        client.pipelined(&format!("SELECT kind FROM {table} WHERE id = $1"), Format::Text, &[Some(b"three".to_vec())], Format::Text)
    };
    let (right, got) = (wrong(&mut client, "twin").error().unwrap(), wrong(&mut client, "t").error().unwrap());
    assert_eq!((&right[&'C'], &right[&'M']), (&got[&'C'], &got[&'M']));

    // Rights are PostgreSQL's, in its own words, for the table, its columns and through views.
    let mut owner = Client::connect(&instance.gateway());
    Client::connect(&instance.admin()).run("CREATE ROLE nobody_at_all; GRANT nobody_at_all TO watershed");
    let as_nobody = |client: &mut Client, sql: &str| {
        client.run("SET ROLE nobody_at_all");
        let reply = client.query(sql);
        client.run("RESET ROLE");
        reply.error().map(|e| (e[&'C'].clone(), e[&'M'].clone()))
    };
    let denied = |kind: &str, name: &str| Some(("42501".to_owned(), format!("permission denied for {kind} {name}")));
    assert_eq!(as_nobody(&mut owner, "SELECT count(*) FROM t"), denied("table", "t"));
    assert_eq!(as_nobody(&mut owner, "SELECT kind FROM t WHERE id = 3"), denied("table", "t"));
    assert_eq!(as_nobody(&mut owner, "SELECT count(*) FROM seen"), denied("view", "seen"));
    owner.run("GRANT SELECT (id) ON t TO nobody_at_all");
    assert_eq!(as_nobody(&mut owner, "SELECT kind FROM t WHERE id = 3"), denied("table", "t"));
    let e = as_nobody(&mut owner, "SELECT id FROM t WHERE id = 3").expect("the tail cannot be read");
    assert_eq!(e.0, "0A000", "{e:?}");
    owner.run("GRANT SELECT ON t TO nobody_at_all");
    assert_eq!(as_nobody(&mut owner, "SELECT kind FROM t WHERE id = 3"), None);
    assert_eq!(as_nobody(&mut owner, "SELECT count(*) FROM seen"), denied("view", "seen"));
    owner.run("GRANT SELECT ON seen TO nobody_at_all");
    assert_eq!(as_nobody(&mut owner, "SELECT count(*) FROM seen"), None);
    // The owner of a view may read what its reader may not; the tail is read as the reader, so nobody answers.
    owner.run("REVOKE ALL ON t FROM nobody_at_all");
    let e = as_nobody(&mut owner, "SELECT count(*) FROM seen").expect("the tail cannot be read");
    assert_eq!(e.0, "0A000", "{e:?}");

    // Another table has no floor: nothing changes for it.
    assert_eq!(client.value("SELECT count(*) FROM hidden"), "0");
}

#[track_caller]
fn refused_fetch(reply: &Reply) {
    let e = reply.error().unwrap_or_else(|| panic!("an error was expected:\n{reply:?}"));
    assert!(e[&'C'] == "0A000" && e[&'M'].contains("answered by the lake"), "{reply:?}");
}

#[test]
fn without_its_lake_a_cold_statement_is_an_error_and_a_hot_one_is_not() {
    let settings = settings();
    let instance = start(&settings);
    let mut client = make_tables(&instance);
    retain(&instance, 5);
    let lake = instance.dir().join("lake");
    let away = instance.dir().join("lake-away");
    std::fs::rename(&lake, &away).expect("renamed");
    for cold in ["SELECT count(*) FROM t WHERE kind = 'kind 1'", "SELECT amount FROM t WHERE id = 11", "SELECT sum(amount), kind FROM t GROUP BY kind"] {
        let state = client.query(cold).sqlstate();
        assert!(state.starts_with("58"), "{cold}: {state}");
    }
    let hot = "SELECT count(*), sum(amount) FROM TABLE WHERE ts >= now() - interval '2 days'";
    assert_same(&mut client, hot, true);
    let prepared = |client: &mut Client, table: &str| {
        client.prepared("h", &hot.replace("TABLE", table), Format::Text, &[], Format::Binary).ok().rows().len()
    };
    assert_eq!(prepared(&mut client, "t"), 1);
    std::fs::rename(&away, &lake).expect("renamed back");
    support::wait_for("the lake's return", || (client.query("SELECT count(*) FROM t").rows() == [[Some("1260".to_owned())]]).then_some(()));
}

#[test]
fn rows_beyond_the_lakes_window_are_gone_at_once_for_every_reader() {
    let settings = settings();
    let instance = start(&settings);
    let mut client = make_tables(&instance);
    client.run("SELECT watershed.set_retention('public.t', hot_days => 5, lake_days => 8)");
    instance.run(&["retain", "t", "--notice", NOTICE]);
    client.run("DELETE FROM twin WHERE ts < ((now() AT TIME ZONE 'UTC')::date - 8) AT TIME ZONE 'UTC'");
    for round in 0..3 {
        for (statement, in_order) in STATEMENTS {
            assert_same(&mut client, statement, in_order);
        }
        match round {
            // A row from before is taken in, and nobody sees it.
            0 => drop(client.run("INSERT INTO t VALUES (9999, now() - interval '100 days', 'old', 0, NULL)")),
            1 => {
                instance.archive();
                instance.run(&["compact", "t"]);
                let log = std::fs::read_dir(instance.dir().join("lake/public.t/_delta_log")).expect("the log");
                let expired = log.flatten().any(|e| std::fs::read_to_string(e.path()).is_ok_and(|t| t.contains("watershed/expired")));
                assert!(expired, "no commit removed the days that nobody sees");
                instance.run(&["retain", "t", "--notice", "0s"]);
            }
            _ => {}
        }
    }
}

/// A raise that dies at any step is a raise that was done or was not; the next run does the rest.
#[test]
fn retention_killed_at_any_step_keeps_every_row() {
    let settings = settings();
    let instance = start(&settings);
    let mut client = make_tables(&instance);
    let check = |client: &mut Client| {
        for (statement, in_order) in STATEMENTS {
            assert_same(client, statement, in_order);
        }
    };
    let days = ["retention.compared", "retention.before_commit", "retention.committed"];
    for (point, hot_days) in days.into_iter().zip([9, 7, 5]) {
        // Rows of a day that leaves, and of one that left, none of them archived.
        let id = 20_000 + hot_days;
        client.run(&format!("INSERT INTO twin SELECT {id}, now() - d * interval '1 day', 'late', 1, NULL FROM generate_series({hot_days}, 13) d"));
        client.run(&format!("INSERT INTO t SELECT * FROM twin WHERE id = {id}"));
        client.run(&format!("SELECT watershed.set_retention('public.t', hot_days => {hot_days})"));
        let floor = "SELECT (now() AT TIME ZONE 'UTC')::date - (floor AT TIME ZONE 'UTC')::date FROM watershed.tables WHERE table_name = 'public.t' AND isfinite(floor)";
        let before = client.run(floor).rows();
        let mut retain = instance.command(&["retain", "t", "--notice", NOTICE]);
        let output = retain.env("WATERSHED_CRASH_AT", point).output().expect("the binary starts");
        assert!(output.status.code().is_none(), "it did not die at {point}: {}", shown(&output));
        // Days leave one by one: it may have died between two of them.
        let after = client.run(floor).rows();
        let number = |rows: &Vec<Vec<Option<String>>>| rows.first().and_then(|r| r[0].as_ref()?.parse::<i32>().ok());
        let moved = number(&after) != number(&before);
        let asked_for = |n: i32| n >= hot_days && number(&before).is_none_or(|before| n < before);
        assert!(!moved || number(&after).is_some_and(asked_for), "{point}: a floor that nobody asked for");
        assert!(moved || point != "retention.committed", "{point}: what was committed is not there");
        check(&mut client);
        let output = instance.output(&["retain", "t", "--notice", NOTICE]);
        assert!(output.status.success(), "{point}: {}", shown(&output));
        assert_eq!(client.run(floor).rows(), [[Some(hot_days.to_string())]], "{point}");
        check(&mut client);
        instance.archive();
        check(&mut client);
    }
    let output = instance.output(&["verify", "t"]);
    assert!(output.status.success(), "{}", shown(&output));

    // The lake's window.
    client.run("SELECT watershed.set_retention('public.t', hot_days => 5, lake_days => 8)");
    let mut retain = instance.command(&["retain", "t", "--notice", NOTICE]);
    let output = retain.env("WATERSHED_CRASH_AT", "retention.lake_floor").output().expect("the binary starts");
    assert!(output.status.code().is_none(), "it did not die: {}", shown(&output));
    check(&mut client); // nothing was committed: all rows are there
    let output = instance.output(&["retain", "t", "--notice", NOTICE]);
    assert!(output.status.success(), "{}", shown(&output));
    client.run("DELETE FROM twin WHERE ts < ((now() AT TIME ZONE 'UTC')::date - 8) AT TIME ZONE 'UTC'");
    check(&mut client);
}

/// The same rows; or none at all, from a gateway that was not told of a floor in time or has no version for a transaction's old snapshot.
#[track_caller]
fn assert_whole(right: &Reply, got: &Reply, in_order: bool, statement: &str) {
    if got.rows().is_empty() {
        match got.sqlstate().as_str() {
            "0A000" => return refused(got, ""),
            "40001" => return,
            // Nor does a machine under load answer in part.
            "58030" if got.error().is_some_and(|e| e[&'D'].contains("does not answer")) => return,
            _ => {}
        }
    }
    assert_eq!(difference(right, got, in_order), None, "{statement}\n{got:?}");
}

/// Random predicates, random floors, rows that keep coming, and days that leave while statements run.
#[test]
fn every_answer_has_all_rows_while_days_leave() {
    let settings = settings();
    let instance = start(&settings);
    make_tables(&instance);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (instance, over) = (&instance, &over);
        for seed in 0..2 {
            scope.spawn(move || {
                let mut random = Sequence(seed);
                let mut client = Client::connect(&instance.gateway());
                let mut asked = 0;
                while !over.load(Ordering::Relaxed) || asked < 60 {
                    let day = |random: &mut Sequence| format!("(now() - interval '{} hours')", random.below(24 * 14));
                    let predicate = match random.below(6) {
                        0 => "true".to_owned(),
                        1 => format!("ts >= {}", day(&mut random)),
                        2 => format!("ts < {}", day(&mut random)),
                        3 => format!("ts > {} AND kind = 'kind {}'", day(&mut random), random.below(5)),
                        4 => format!("(ts > {} OR id < {})", day(&mut random), random.below(50)),
                        _ => format!("id = {}", random.below(1400)),
                    };
                    let statement = match random.below(4) {
                        0 => format!("SELECT count(*), sum(id), sum(amount) FROM TABLE WHERE {predicate}"),
                        1 => format!("SELECT kind, count(*) FROM TABLE WHERE {predicate} GROUP BY kind ORDER BY kind"),
                        2 => format!("SELECT id, ts, kind, amount FROM TABLE WHERE {predicate} ORDER BY id LIMIT {}", random.below(40)),
                        _ => format!("SELECT id, amount FROM TABLE WHERE {predicate}"),
                    };
                    let in_order = !statement.starts_with("SELECT id, amount");
                    match random.below(3) {
                        0 => {
                            let isolation = if random.below(2) == 0 { "" } else { " ISOLATION LEVEL REPEATABLE READ" };
                            client.run(&format!("BEGIN{isolation}"));
                            let right = client.run(&statement.replace("TABLE", "twin"));
                            let got = client.query(&statement.replace("TABLE", "t"));
                            client.run("COMMIT");
                            assert_whole(&right, &got, in_order, &statement);
                        }
                        1 => {
                            client.run("BEGIN");
                            let right = client.pipelined(&statement.replace("TABLE", "twin"), Format::Text, &[], Format::Binary).ok();
                            let got = client.pipelined(&statement.replace("TABLE", "t"), Format::Text, &[], Format::Binary);
                            client.run("COMMIT");
                            assert_whole(&right, &got, in_order, &statement);
                        }
                        // By itself; the tables' rows do not change.
                        _ if !statement.contains("now()") => {
                            let right = client.run(&statement.replace("TABLE", "twin"));
                            let got = client.query(&statement.replace("TABLE", "t"));
                            assert_whole(&right, &got, in_order, &statement);
                        }
                        _ => {}
                    }
                    asked += 1;
                }
            });
        }
        for hot_days in [11, 9, 7, 5, 4, 3, 2, 1] {
            let mut owner = Client::connect(&instance.gateway());
            owner.run(&format!("SELECT watershed.set_retention('public.t', hot_days => {hot_days})"));
            // Without notice: gateways that have not heard must not answer short either.
            let notice = if hot_days % 2 == 0 { "0s" } else { NOTICE };
            loop {
                let output = instance.output(&["retain", "t", "--notice", notice]);
                match output.status.code() {
                    Some(0) => break,
                    Some(1) if shown(&output).contains("in use") => {}
                    _ => panic!("{}", shown(&output)),
                }
            }
            instance.archive();
            instance.run(&["compact", "t"]);
        }
        over.store(true, Ordering::Relaxed);
    });
}
