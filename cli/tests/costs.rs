//! Of two stores that may answer, the one answers that is expected to be faster: by PostgreSQL's own estimate, what the lake would read, and
//! what both mean on a machine. The answer is the same; EXPLAIN and the log tell the estimate; lookups stay where they are.

mod support;

use support::compare::difference;
use support::instance::{Instance, Options};
use support::wait_for;
use support::wire::{Client, Format};

const STATEMENTS: &[&str] = &[
    "SELECT count(*), sum(n), min(t) FROM m",
    "SELECT g, count(*) FROM m GROUP BY g ORDER BY g",
    "SELECT count(*) FROM m WHERE ts >= now() - interval '30 days'",
    "SELECT a.g, count(*) FROM m a JOIN m b ON a.id = b.id GROUP BY a.g ORDER BY a.g",
];
const PARAMETRIC: &str = "SELECT count(*) FROM m WHERE ts >= $1::timestamptz AND n < $2::int8";

fn start() -> (Instance, Client) {
    let instance = Instance::start(Options::on_demand().with("WATERSHED_ROUTE_BY_COST", "true"));
    let mut client = Client::connect(&instance.gateway());
    client.run("CREATE TABLE m (id int8, ts timestamptz NOT NULL, g int4, n int8, t text)");
    client.run("SELECT watershed.attach_table('public.m', event_time => 'ts')");
    let rows = |from: u32, to: u32| {
        format!(
            "INSERT INTO m SELECT i, date_trunc('day', now(), 'UTC') - i % 5 * interval '1 day' + i * interval '1 ms', i % 7, i * 3, 'text ' || i % 11 \
             FROM generate_series({from}, {to}) i"
        )
    };
    client.run(&rows(1, 20_000));
    instance.archive();
    client.run(&rows(20_001, 20_100));
    client.run("ANALYZE m");
    (instance, client)
}

/// Has estimates mean this; waits until the gateway knows.
fn calibrate(instance: &Instance, client: &mut Client, postgres_unit_us: f64, lake_base_us: f64, expected: &str) {
    let mut admin = Client::connect(&instance.admin());
    // One text is one transaction: the gateway sees the old constants or the new ones, never none of them.
    admin.run(&format!(
        "DELETE FROM watershed_control.calibration; \
         INSERT INTO watershed_control.calibration (postgres_base_us, postgres_unit_us, lake_base_us, lake_file_us, lake_value_us) \
         VALUES (1, {postgres_unit_us}, {lake_base_us}, 1, 0.001)"
    ));
    // Each try is another statement to the gateway, so that nothing is remembered of it. One that was not weighed says nothing of the
    // constants: before the lake's files are known to the gateway the lake answers without an estimate.
    let mut tries = 0;
    wait_for("the gateway to know the new constants", || {
        tries += 1;
        let sql = format!("SELECT count(*) AS \"try {expected} {tries}\" FROM m");
        client.run(&sql);
        let (route, reasons) = instance.route(client, &sql);
        (route == expected && reasons.contains("estimated ")).then_some(())
    });
}

#[test]
fn the_faster_store_answers_and_the_answer_is_the_same() {
    let (instance, mut client) = start();
    let mut direct = Client::connect(&instance.direct());
    for (unit, base, store) in [(1_000.0, 1.0, "lake"), (0.001, 900_000_000.0, "postgres"), (1_000.0, 1.0, "lake")] {
        calibrate(&instance, &mut client, unit, base, store);
        for sql in STATEMENTS {
            let (right, got) = (direct.query(sql), client.query(sql));
            assert_eq!(difference(&right, &got, true), None, "{sql}");
            let (route, reasons) = instance.route(&client, sql);
            assert_eq!(route, store, "{sql}: {reasons}");
            assert!(reasons.contains("estimated ") && reasons.contains(" in PostgreSQL, "), "{sql}: {reasons}");
        }
        for format in [Format::Text, Format::Binary] {
            let parameters = [Some(b"2001-01-01".to_vec()), Some(b"30000".to_vec())];
            let ask = |client: &mut Client| client.pipelined(PARAMETRIC, Format::Text, &parameters, format);
            let (right, got) = (ask(&mut direct), ask(&mut client));
            assert_eq!(difference(&right, &got, true), None);
            assert_eq!(instance.route(&client, PARAMETRIC).0, store);
        }
        // Inside of a transaction, with its own rows.
        for client in [&mut client, &mut direct] {
            client.run("BEGIN");
            client.run("INSERT INTO m VALUES (-1, now(), 1, 1, 'own')");
        }
        let (right, got) = (direct.query(STATEMENTS[0]), client.query(STATEMENTS[0]));
        assert_eq!(difference(&right, &got, true), None);
        client.run("ROLLBACK");
        direct.run("ROLLBACK");
    }
    // What was asked for counts for more than what it costs.
    calibrate(&instance, &mut client, 0.001, 900_000_000.0, "postgres");
    for route in ["lake", "prefer_lake"] {
        client.run(&format!("SET watershed.route = '{route}'"));
        client.run(STATEMENTS[1]);
        assert_eq!(instance.route(&client, STATEMENTS[1]).0, "lake");
    }
    client.run("SET watershed.route = 'prefer_lake'");
    client.run("SELECT stddev(n::float8) FROM m");
    client.run("RESET watershed.route");
    calibrate(&instance, &mut client, 1_000.0, 1.0, "lake");
    let lookup = "SELECT t FROM m WHERE id = 7";
    client.run(lookup);
    assert_eq!(instance.route(&client, lookup).0, "postgres");
}

#[test]
fn a_machine_can_be_measured() {
    let (instance, mut client) = start();
    let output = instance.command(&["calibrate", "--rows", "20000", "--rounds", "3"]).output().expect("watershed runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("kept"), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let mut admin = Client::connect(&instance.admin());
    assert_eq!(admin.value("SELECT count(*) FROM watershed_control.calibration WHERE postgres_unit_us > 0 AND lake_value_us > 0"), "1");
    assert_eq!(admin.value("SELECT count(*) FROM pg_class WHERE relname = 'watershed_calibration'"), "0");
    assert_eq!(client.value("SELECT count(*) FROM m"), "20100");
    // Nobody else may say what statements cost.
    admin.run("CREATE ROLE visitor; GRANT visitor TO watershed");
    client.run("SET ROLE visitor");
    assert_eq!(client.query("DELETE FROM watershed_control.calibration").sqlstate(), "42501");
}
