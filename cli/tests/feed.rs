//! What `watershed up` sends to a real broker: alerts and dead letters, whatever door the rows came through and whenever it
//! died, and the records of its generator.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;

use support::instance::{Instance, Options};
use support::kafka::Broker;
use support::wait_for;
use support::wire::Client;

/// One HTTP request; gives status and body, or `None` if the connection died before an answer.
fn ask(instance: &Instance, method: &str, path: &str, body: &str) -> Option<(u16, serde_json::Value)> {
    let mut stream = TcpStream::connect(("127.0.0.1", instance.http_port())).ok()?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, serde_json::from_str(body).ok()?))
}

/// The values of a topic, read from its beginning.
fn values(broker: &Broker, topic: &str) -> Vec<Vec<u8>> {
    broker.read(topic, &BTreeMap::new()).into_iter().map(|r| r.payload.expect("no tombstones")).collect()
}

fn messages(broker: &Broker, topic: &str) -> BTreeSet<String> {
    let message = |value: &Vec<u8>| {
        let row: serde_json::Value = serde_json::from_slice(value).expect("JSON");
        row["message"].as_str().expect("a message").to_owned()
    };
    values(broker, topic).iter().map(message).collect()
}

#[test]
fn alerts_letters_and_generated_records_reach_the_broker() {
    let broker = Broker::start();
    for topic in ["alerts", "letters", "logs.raw", "events.raw"] {
        broker.create_topic(topic, 3, &[]);
    }
    let home = tempfile::tempdir().expect("a folder");
    let settings = home.path().join("watershed.toml");
    let text = format!(
        "[kafka]\nbrokers = \"{}\"\n[kafka.alerts]\ncondition = \"level IN ('ERROR', 'FATAL')\"\n[kafka.dead_letters]\ntopic = \"letters\"\n",
        broker.bootstrap()
    );
    std::fs::write(&settings, text).expect("the settings");
    let instance =
        Instance::start(Options::on_demand().with("WATERSHED_CONFIG", &settings.display().to_string()));
    let forwards = || {
        let mut admin = Client::connect(&instance.admin());
        let begun = admin.query("SELECT count(*) FROM watershed_control.forwards").ok().value();
        (begun == "2").then_some(())
    };
    wait_for("both forwards", forwards);

    let mut wanted = BTreeSet::new();
    let mut add = |level: &str, message: String| {
        if level == "ERROR" {
            wanted.insert(message.clone());
        }
        format!(
            "{{\"ts\":\"2026-01-01T00:00:00Z\",\"level\":\"{level}\",\"service\":\"s\",\"message\":\"{message}\"}}\n"
        )
    };
    // Each door, with a row that matches, one that does not, and where it can be a record that is none.
    let body = add("ERROR", "by http".into()) + &add("INFO", "calm".into()) + "{\"ts\":\n";
    let (status, answer) = ask(&instance, "POST", "/v1/ingest/logs", &body).expect("an answer");
    assert_eq!((status, &answer["accepted"], &answer["rejected"]), (200, &2.into(), &1.into()), "{answer}");
    let file = instance.file("rows.ndjson", add("ERROR", "by load".into()));
    instance.run(&["load", "logs", &file.display().to_string()]);
    add("ERROR", "by sql".into());
    let mut owner = Client::connect(&instance.gateway());
    owner.query("INSERT INTO logs (ts, level, message) VALUES (now(), 'ERROR', 'by sql')").ok();
    owner.query("BEGIN").ok();
    owner.query("INSERT INTO logs (ts, level, message) VALUES (now(), 'ERROR', 'never')").ok();
    owner.query("ROLLBACK").ok();
    wait_for("alerts from every door", || (messages(&broker, "alerts") == wanted).then_some(()));
    wait_for("the letter", || (values(&broker, "letters") == [b"{\"ts\":".to_vec()]).then_some(()));

    // Dying between any two steps costs nothing; a broker that is away only delays.
    for (round, point) in ["forward.snapshot", "forward.sent", "forward.stored"].into_iter().enumerate() {
        // What was sent and is not stored is sent again by the next start, which would die of that before it is ready.
        let pending = "SELECT count(*) FROM watershed_control.forwards WHERE pending IS NOT NULL";
        let mut admin = Client::connect(&instance.admin());
        wait_for("what was sent to be stored", || (admin.value(pending) == "0").then_some(()));
        drop(admin);
        instance.terminate();
        instance.launch(&[("WATERSHED_CRASH_AT", point)]);
        instance.wait_until_ready();
        let message = format!("round {round}");
        wanted.insert(message.clone());
        let mut direct = Client::connect(&instance.direct());
        direct
            .query(&format!("INSERT INTO logs (ts, level, message) VALUES (now(), 'FATAL', '{message}')"))
            .ok();
        wait_for("the end of up", || (!instance.alive()).then_some(()));
        broker.kill9();
        instance.restart();
        let mut direct = Client::connect(&instance.direct());
        direct
            .query(&format!("INSERT INTO logs (ts, level, message) VALUES (now(), 'FATAL', 'away {round}')"))
            .ok();
        wanted.insert(format!("away {round}"));
        broker.restart();
        wait_for("all alerts", || (messages(&broker, "alerts") == wanted).then_some(()));
    }

    let start = "/v1/generator/start?batch_size=50&log_interval=0.05&event_interval=0.05&seed=5";
    let (status, answer) = ask(&instance, "POST", start, "").expect("an answer");
    assert_eq!((status, &answer["sink"]), (200, &"kafka".into()), "{answer}");
    assert_eq!(ask(&instance, "POST", start, "").expect("an answer").0, 409);
    wait_for("generated records", || {
        let (_, status) = ask(&instance, "GET", "/v1/generator/status", "")?;
        (status["sent"]["logs"].as_u64()? >= 300 && status["sent"]["events"].as_u64()? >= 300).then_some(())
    });
    let (_, answer) = ask(&instance, "POST", "/v1/generator/stop", "").expect("an answer");
    assert_eq!((&answer["running"], &answer["errors"]), (&false.into(), &0.into()), "{answer}");
    for (topic, table) in [("logs.raw", "logs"), ("events.raw", "events")] {
        assert_eq!(Some(values(&broker, topic).len() as u64), answer["sent"][table].as_u64(), "{topic}");
    }
}

#[test]
fn a_condition_that_postgresql_refuses_is_said_at_the_start() {
    let instance = Instance::start(Options::on_demand());
    let home = tempfile::tempdir().expect("a folder");
    let settings = home.path().join("watershed.toml");
    std::fs::write(
        &settings,
        "[kafka]\nbrokers = \"127.0.0.1:1\"\n[kafka.alerts]\ncondition = \"levle = 'ERROR'\"\n",
    )
    .expect("the settings");
    instance.terminate();
    instance.launch(&[("WATERSHED_CONFIG", &settings.display().to_string())]);
    wait_for("the end of up", || (!instance.alive()).then_some(()));
    let log = instance.log();
    assert!(log.contains("levle") && log.contains("[kafka.alerts]"), "{log}");
}
