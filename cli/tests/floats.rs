//! Floats: they compare, sort and are counted by PostgreSQL's order whatever they are; where one stands for several (groups, extremes), only a column
//! without NaN and -0 is the lake's, as its files and its tail say. Rows with either arrive in the tail, in files, and are compacted.

mod support;

use support::compare::difference;
use support::instance::{Instance, Options};
use support::wait_for;
use support::wire::{Client, Format};

fn start() -> (Instance, Client, Client) {
    let instance = Instance::start(Options::on_demand());
    let mut owner = Client::connect(&instance.gateway());
    owner.run("CREATE TABLE readings (ts timestamptz NOT NULL, id int8 NOT NULL, g int4, f8 float8, f4 float4, wild float8)");
    owner.run("SELECT watershed.attach_table('public.readings', event_time => 'ts')");
    for part in 0..3 {
        owner.run(&rows(part * 300 + 1, part * 300 + 300));
        instance.archive();
    }
    owner.run(&rows(901, 960));
    let mut gateway = Client::connect(&instance.gateway());
    gateway.run("SET watershed.route = 'prefer_lake'");
    let direct = Client::connect(&instance.direct());
    (instance, direct, gateway)
}

/// `f8` and `f4` are tame, with infinities and zero; `wild` has everything.
fn rows(from: i32, to: i32) -> String {
    format!(
        "INSERT INTO readings SELECT timestamptz '2024-03-10 00:00:00+00' + k * interval '3 minutes', k, k % 9, \
           CASE WHEN k % 7 = 0 THEN NULL WHEN k % 50 = 1 THEN 'Infinity' WHEN k % 50 = 2 THEN '-Infinity' ELSE (k % 40 - 20) / 8.0 END, \
           CASE WHEN k % 11 = 0 THEN NULL ELSE (k % 30) / 10.0 END, \
           CASE WHEN k % 5 = 0 THEN NULL ELSE (ARRAY['NaN', 'Infinity', '-Infinity', '-0', '0', '0.1', '1e-300', '1e300'])[1 + k % 8]::float8 END \
         FROM generate_series({from}, {to}) k"
    )
}

/// Right, and answered by the store; what it was there is told.
#[track_caller]
fn answered(instance: &Instance, direct: &mut Client, gateway: &mut Client, sql: &str, store: &str) -> String {
    let mut told = String::new();
    for mode in 0..3 {
        let ask = |client: &mut Client| match mode {
            0 => client.query(sql),
            1 => client.pipelined(sql, Format::Text, &[], Format::Binary),
            _ => client.prepared("floats", sql, Format::Binary, &[], Format::Text),
        };
        let (right, got) = (ask(direct), ask(gateway));
        assert_eq!(difference(&right, &got, sql.contains("ORDER BY")), None, "{sql} ({mode})");
        let (route, reasons) = instance.route(gateway, sql);
        assert_eq!(route, store, "{sql} ({mode}): {reasons}");
        told = reasons;
    }
    told
}

const GROUPED: &str = "SELECT f8, count(*) FROM readings GROUP BY f8 ORDER BY f8 DESC NULLS LAST";
/// Where values of `f8` and `f4` stand for others.
const SHOWN: &[&str] = &[
    GROUPED,
    "SELECT min(f8), max(f8), min(f4), max(f4) FROM readings",
    "SELECT g, max(f8) AS top, min(f4) FROM readings WHERE f8 < 'Infinity' GROUP BY g ORDER BY top, g",
    "SELECT DISTINCT f4, g FROM readings ORDER BY f4, g",
    "SELECT f4, f8, count(*) FROM readings GROUP BY ROLLUP (f4, f8) ORDER BY f4 NULLS FIRST, f8 NULLS FIRST, 3",
];
/// Where equal ones are as good as the same.
const COMPARED: &[&str] = &[
    "SELECT count(*), sum(id) FROM readings WHERE wild = 0",
    "SELECT count(*) FROM readings WHERE wild = 'NaN' OR wild > '1e299'",
    "SELECT count(*) FROM readings WHERE NOT wild < 'Infinity'",
    "SELECT count(*) FROM readings WHERE wild IN (0, 'NaN', 7) AND f4 > 0.1 AND f4 <= 2.5",
    "SELECT count(*) FROM readings WHERE f4 = 0.1 OR f4 = 0.5 OR f4 = 0.1::float4",
    "SELECT count(DISTINCT wild), count(DISTINCT f4) FROM readings",
    "SELECT count(*) FROM readings a JOIN readings b ON a.wild = b.wild AND a.id = b.id",
    "SELECT a.g, count(*) FROM readings a JOIN readings b ON a.wild = b.f8 WHERE b.id < 60 GROUP BY a.g ORDER BY a.g",
    "SELECT id, wild FROM readings ORDER BY wild, id",
    "SELECT id, wild FROM readings ORDER BY wild DESC NULLS LAST, f4 DESC, id LIMIT 200 OFFSET 100",
    "SELECT g, count(*) FILTER (WHERE wild >= '-0') FROM readings GROUP BY g ORDER BY g",
    "SELECT count(*) FROM readings WHERE wild IS DISTINCT FROM '-0' AND wild NOT BETWEEN -1 AND 1",
];

#[test]
fn floats_stand_for_others_only_where_they_are_the_same() {
    let (instance, mut direct, mut gateway) = start();
    let mut at = |gateway: &mut Client, sql: &str, store: &str| answered(&instance, &mut direct, gateway, sql, store);
    for sql in SHOWN.iter().chain(COMPARED) {
        at(&mut gateway, sql, "lake");
    }
    let reasons = at(&mut gateway, "SELECT wild, count(*) FROM readings WHERE wild > 0 GROUP BY wild ORDER BY wild", "postgres");
    assert_eq!(reasons, "\"wild\" of public.readings has NaN or -0 in the lake, or files from before that was looked at");
    let lines = gateway.run("EXPLAIN SELECT max(wild) FROM readings").column();
    assert!(lines[0].ends_with("postgres") && lines[1].contains("has NaN or -0 in the lake"), "{lines:?}");

    // Among the rows of a transaction of its own, which then go away.
    gateway.run("BEGIN");
    gateway.run("INSERT INTO readings (ts, id, f8) VALUES (now(), -1, '-0')");
    gateway.run(GROUPED);
    let (route, reasons) = instance.route(&gateway, GROUPED);
    assert_eq!(route, "postgres");
    assert!(reasons.ends_with("fell back: \"f8\" of public.readings has NaN or -0 among the rows that are not yet in the lake"), "{reasons}");
    gateway.run("ROLLBACK");
    at(&mut gateway, GROUPED, "lake");

    // In the tail, then in a file: of that column alone.
    gateway.run("INSERT INTO readings (ts, id, g, f8) VALUES (now(), 10001, 3, 'NaN'), (now(), 10002, 3, '-0'), (now(), 10003, 3, 'NaN')");
    let reasons = at(&mut gateway, GROUPED, "postgres");
    assert!(reasons.contains("fell back") && reasons.contains("not yet in the lake"), "{reasons}");
    at(&mut gateway, SHOWN[3], "lake");
    instance.archive();
    wait_for("the gateway to see the file", || {
        let reasons = at(&mut gateway, GROUPED, "postgres");
        (reasons == "\"f8\" of public.readings has NaN or -0 in the lake, or files from before that was looked at").then_some(())
    });
    at(&mut gateway, SHOWN[3], "lake");
    at(&mut gateway, "SELECT count(DISTINCT f8) FROM readings", "lake");
    instance.run(&["compact"]);
    at(&mut gateway, GROUPED, "postgres");
    for sql in COMPARED.iter().chain(&SHOWN[3..4]) {
        at(&mut gateway, sql, "lake");
    }
}

#[test]
fn compacted_files_and_those_without_the_column_keep_the_fact() {
    let (instance, mut direct, mut gateway) = start();
    let mut at = |gateway: &mut Client, sql: &str, store: &str| answered(&instance, &mut direct, gateway, sql, store);
    instance.archive();
    instance.run(&["compact"]);
    for sql in SHOWN {
        at(&mut gateway, sql, "lake");
    }
    gateway.run("ALTER TABLE readings ADD COLUMN late float8");
    gateway.run("INSERT INTO readings (ts, id, late) SELECT now(), 20000 + k, k / 4.0 FROM generate_series(0, 20) k");
    let late = "SELECT late, count(*) FROM readings GROUP BY late ORDER BY late";
    wait_for("the gateway to know the column", || {
        let (right, got) = (direct.query(late), gateway.query(late));
        assert_eq!(difference(&right, &got, true), None);
        (instance.route(&gateway, late).0 == "lake").then_some(())
    });
    instance.archive();
    let mut at = |gateway: &mut Client, sql: &str, store: &str| answered(&instance, &mut direct, gateway, sql, store);
    at(&mut gateway, late, "lake");
    instance.run(&["compact"]);
    at(&mut gateway, late, "lake");
    at(&mut gateway, "SELECT max(late), min(f8) FROM readings", "lake");
}
