//! Both stores answer, in one snapshot, and the gateway compares: `watershed.route = 'compare'`, where the client waits for both, and
//! `watershed.compare_sample`, where it does not. A lake that gives a wrong answer (rows are changed behind its back) is found out, and the
//! statement is PostgreSQL's from then on.

mod support;

use support::compare::difference;
use support::instance::{Instance, Options};
use support::wait_for;
use support::wire::{Client, Format, frontend};

const GROUPED: &str = "SELECT g, count(*), sum(n), min(t) FROM m GROUP BY g ORDER BY g";
const TIES: &str = "SELECT g, count(*) FROM m WHERE id <= 700 GROUP BY g ORDER BY count(*)";
const BOUND: &str = "SELECT g, sum(n) FROM m WHERE n < $1::int8 GROUP BY g";

fn start() -> (Instance, Client) {
    let instance = Instance::start(Options::on_demand());
    let mut client = Client::connect(&instance.gateway());
    client.run("CREATE TABLE m (id int8, ts timestamptz NOT NULL, g int4, n int8, t text)");
    client.run("SELECT watershed.attach_table('public.m', event_time => 'ts')");
    client.run("INSERT INTO m SELECT i, now() + i * interval '1 ms', i % 7, i * 3, 'text ' || i % 11 FROM generate_series(1, 7000) i");
    instance.archive();
    // With an older version the rows come from PostgreSQL's tail, where a change behind the lake's back is seen.
    wait_for("the gateway's look at the lake", || {
        (client.value("SELECT coalesce(sum(rows), 0) FROM watershed.files WHERE table_name = 'm'") == "7000").then_some(())
    });
    client.run("INSERT INTO m SELECT i, now() + i * interval '1 ms', i % 7, i * 3, 'text ' || i % 11 FROM generate_series(7001, 7100) i");
    (instance, client)
}

/// Changes a row that the lake has, as nobody can who goes by the rules.
fn falsify(instance: &Instance) {
    let mut admin = Client::connect(&instance.admin());
    admin.run("BEGIN");
    admin.run("SET LOCAL session_replication_role = replica");
    admin.run("SET LOCAL watershed.maintenance = 'on'");
    admin.run("UPDATE m SET n = n + 1 WHERE id = 7");
    admin.run("COMMIT");
}

/// Verdicts and details of what was compared of this statement, oldest first.
fn verdicts(client: &mut Client, sql: &str) -> Vec<(String, String)> {
    let quoted = sql.replace('\'', "''");
    let answer = client.query(&format!(
        "SELECT verdict || '|' || coalesce(detail, '') FROM watershed.comparisons WHERE sql = '{quoted}' ORDER BY id"
    ));
    let split = |line: String| line.split_once('|').map(|(a, b)| (a.to_string(), b.to_string())).expect("two parts");
    answer.column().into_iter().map(split).collect()
}

#[test]
fn both_answer_and_what_differs_is_quarantined() {
    let (instance, mut client) = start();
    let mut direct = Client::connect(&instance.direct());
    client.run("SET watershed.route = 'compare'");
    for sql in [GROUPED, TIES, "SELECT count(*) FROM m WHERE t LIKE 'text 1%'"] {
        let (right, got) = (direct.query(sql), client.query(sql));
        assert_eq!(difference(&right, &got, true), None, "{sql}");
        let (route, reasons) = instance.route(&client, sql);
        assert!(route == "postgres" && reasons.ends_with("; compared"), "{sql}: {route}, {reasons}");
        let all = verdicts(&mut client, sql);
        assert!(all.len() == 1 && matches!(all[0].0.as_str(), "equal" | "ties"), "{sql}: {all:?}");
    }
    for format in [Format::Text, Format::Binary] {
        let parameters = [Some(b"9000".to_vec())];
        let ask = |client: &mut Client| client.pipelined(BOUND, Format::Text, &parameters, format);
        let (right, got) = (ask(&mut direct), ask(&mut client));
        assert_eq!(difference(&right, &got, false), None);
    }
    assert_eq!(verdicts(&mut client, BOUND), [("equal".to_string(), String::new()), ("equal".to_string(), String::new())]);
    // With rows of the transaction's own; and what only PostgreSQL may answer is not compared.
    client.run("BEGIN");
    client.run("INSERT INTO m VALUES (-1, now(), 1, 1, 'own')");
    client.run("SELECT count(*), sum(id) FROM m");
    client.run("ROLLBACK");
    assert_eq!(verdicts(&mut client, "SELECT count(*), sum(id) FROM m"), [("equal".to_string(), String::new())]);
    client.run("SELECT string_agg(t, ',') FROM m");
    assert_eq!(verdicts(&mut client, "SELECT string_agg(t, ',') FROM m"), []);

    falsify(&instance);
    let (right, got) = (direct.query(GROUPED), client.query(GROUPED));
    assert_eq!(difference(&right, &got, true), None, "PostgreSQL's answer is the client's");
    let all = verdicts(&mut client, GROUPED);
    let (verdict, detail) = all.last().expect("it was compared");
    assert_eq!(verdict, "differs");
    assert!(detail.contains("PostgreSQL has ('0', '1014',") && detail.contains(", the lake ('0', '1014',"), "{detail}");
    // From now on it is PostgreSQL's, whoever asks; other statements are not.
    let mut other = Client::connect(&instance.gateway());
    let (right, got) = (direct.query(GROUPED), other.query(GROUPED));
    assert_eq!(difference(&right, &got, true), None);
    let (route, reasons) = instance.route(&other, GROUPED);
    assert!(route == "postgres" && reasons.contains("quarantined"), "{route}, {reasons}");
    other.run("SELECT count(*) FROM m");
    assert_eq!(instance.route(&other, "SELECT count(*) FROM m").0, "lake");
    // It is written down, for other gateways and the next start; deleting its row has the lake answer again.
    let mut admin = Client::connect(&instance.admin());
    wait_for("the statement to be written down", || {
        (admin.run("SELECT count(*) FROM watershed_control.quarantined").column() == ["1"]).then_some(())
    });
    wait_for("the lake to answer again", || {
        admin.run("DELETE FROM watershed_control.quarantined");
        other.run(GROUPED);
        (instance.route(&other, GROUPED).0 == "lake").then_some(())
    });
    // Details quote rows: they are their reader's and superusers'.
    admin.run("CREATE ROLE stranger LOGIN PASSWORD 'strange'");
    let mut stranger = Client::connect(&instance.gateway().login("stranger", "strange"));
    let shown = stranger.query("SELECT DISTINCT detail FROM watershed.comparisons WHERE verdict = 'differs'");
    assert_eq!(shown.column(), ["<hidden>"]);
}

#[test]
fn a_sample_is_compared_while_the_client_thinks() {
    let (instance, mut client) = start();
    client.run("SET watershed.compare_sample = '1'");
    let mut direct = Client::connect(&instance.direct());
    let mut reader = Client::connect(&instance.gateway());
    let mut compared = |sql: &str, wanted: usize| {
        wait_for("the comparison", || {
            let all = verdicts(&mut reader, sql);
            (all.len() >= wanted).then_some(all)
        })
    };
    let (right, got) = (direct.query(GROUPED), client.query(GROUPED));
    assert_eq!(difference(&right, &got, true), None);
    assert_eq!(compared(GROUPED, 1), [("equal".to_string(), String::new())]);
    assert_eq!(instance.route(&client, GROUPED).0, "lake");
    let parameters = [Some(b"9000".to_vec())];
    let ask = |client: &mut Client| client.pipelined(BOUND, Format::Text, &parameters, Format::Binary);
    let (right, got) = (ask(&mut direct), ask(&mut client));
    assert_eq!(difference(&right, &got, false), None);
    assert_eq!(compared(BOUND, 1), [("equal".to_string(), String::new())]);

    // Who goes on is not held up: PostgreSQL, which would take long, is stopped.
    let slow = "SELECT count(*), sum(a.n) FROM m a JOIN m b ON a.g = b.g";
    client.run("SET watershed.route = 'prefer_lake'");
    for _ in 0..3 {
        client.run(slow);
        assert_eq!(client.run("SELECT 1").column(), ["1"]);
    }
    let all = compared(slow, 3);
    assert!(all.iter().all(|(verdict, _)| verdict == "equal" || verdict == "open"), "{all:?}");
    // Not inside of a transaction, whose end is its own.
    client.run("BEGIN");
    client.run("SELECT count(*), max(id) FROM m");
    client.run("COMMIT");
    assert_eq!(verdicts(&mut client, "SELECT count(*), max(id) FROM m"), []);
    client.run("SET watershed.route = 'auto'");
    // What else a pipeline does is done when the client hears that it is.
    let pipeline = [
        frontend::parse("", "SET TimeZone = 'Asia/Kolkata'", &[]),
        frontend::bind("", "", Format::Text, &[], Format::Text),
        frontend::execute("", 0),
        frontend::parse("", "SELECT count(*), min(id) FROM m", &[]),
        frontend::bind("", "", Format::Text, &[], Format::Text),
        frontend::execute("", 0),
        frontend::sync(),
    ];
    client.send(&pipeline.concat());
    assert_eq!(client.reply().ok().tags(), ["SET", "SELECT 1"]);
    assert_eq!(client.value("SHOW TimeZone"), "Asia/Kolkata");
    assert_eq!(verdicts(&mut client, "SELECT count(*), min(id) FROM m"), []);

    falsify(&instance);
    client.run(GROUPED);
    let all = compared(GROUPED, 2);
    assert_eq!(all[1].0, "differs", "{all:?}");
    client.run(GROUPED);
    assert!(instance.route(&client, GROUPED).1.contains("quarantined"));
    client.run("SET watershed.compare_sample = '2'");
    assert_eq!(client.query("SELECT count(*) FROM m").sqlstate(), "22023");
    client.run("RESET watershed.compare_sample");
    client.run("SET watershed.log_plan = 'sometimes'");
    assert_eq!(client.query("SELECT count(*) FROM m").sqlstate(), "22023");
}
