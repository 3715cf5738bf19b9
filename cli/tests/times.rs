//! Times at the edges of what PostgreSQL knows, and literals that were read under another zone than the session's of now.

mod support;

use support::compare::difference;
use support::instance::{Instance, Options};
use support::wait_for;
use support::wire::{Client, Format, Reply, frontend};

/// Rows of ordinary days in one file, those at the edges in another, and a tail.
fn start() -> (Instance, Client, Client) {
    let instance = Instance::start(Options::on_demand());
    let mut owner = Client::connect(&instance.gateway());
    owner.run("CREATE TABLE moments (ts timestamptz NOT NULL, id int8 NOT NULL, d date)");
    owner.run("SELECT watershed.attach_table('public.moments', event_time => 'ts')");
    owner.run("INSERT INTO moments SELECT timestamptz '2024-03-01 00:00:00+00' + k * interval '1 hour', k, date '2024-03-01' + k FROM generate_series(1, 500) k");
    instance.archive();
    owner.run("INSERT INTO moments VALUES ('4714-11-24 00:00:00+00 BC', 1001, '5874897-12-31'), ('2024-05-01 00:00:00+00', 1002, '294277-01-01')");
    instance.archive();
    owner.run("INSERT INTO moments SELECT timestamptz '2024-04-01 00:00:00+00' + k * interval '1 hour', 2000 + k, 'infinity' FROM generate_series(1, 20) k");
    wait_for("the gateway to know the table", || {
        owner.run("SELECT count(*) FROM moments");
        (instance.route(&owner, "SELECT count(*) FROM moments").0 == "lake").then_some(())
    });
    let mut gateway = Client::connect(&instance.gateway());
    gateway.run("SET watershed.route = 'prefer_lake'");
    let direct = Client::connect(&instance.direct());
    (instance, direct, gateway)
}

#[test]
fn times_that_cannot_be_rounded_or_cast_raise_what_postgresql_raises() {
    let (_instance, mut direct, mut gateway) = start();
    for zone in ["UTC", "America/New_York", "Asia/Tokyo"] {
        for client in [&mut direct, &mut gateway] {
            client.run(&format!("SET TimeZone = '{zone}'"));
        }
        for sql in [
            "SELECT count(*) FROM moments WHERE date_trunc('month', ts) = '2024-03-01'",
            "SELECT count(*) FROM moments WHERE date_trunc('month', ts) > '2024-03-01'",
            "SELECT count(*) FROM moments WHERE date_trunc('week', ts) = '2024-03-04'",
            "SELECT count(*) FROM moments WHERE date_trunc('year', ts) >= '2024-03-01' AND id = 1",
            "SELECT count(*) FROM moments WHERE date_trunc('day', ts, 'Europe/Berlin') = '2024-03-04'",
            "SELECT count(*) FROM moments WHERE date_trunc('month', ts) = '2024-03-01' AND ts > '2024-01-01'",
            "SELECT date_part('year', d) FROM moments WHERE d > '200000-01-01' AND d < 'infinity' ORDER BY 1",
            "SELECT date_part('dow', d), count(*) FROM moments GROUP BY 1 ORDER BY 1",
            "SELECT date_part('month', d), count(*) FROM moments WHERE id < 1000 GROUP BY 1 ORDER BY 1",
            "SELECT extract(month FROM d), count(*) FROM moments GROUP BY 1 ORDER BY 1",
            "WITH a AS MATERIALIZED (SELECT date_part('year', d) x, id FROM moments) SELECT count(id) FROM a",
        ] {
            let (right, got) = (direct.query(sql), gateway.query(sql));
            assert_eq!(difference(&right, &got, true), None, "{sql} ({zone})");
        }
    }
}

fn bound(client: &mut Client, name: &str, parameters: &[Option<Vec<u8>>]) -> Reply {
    let bind = frontend::bind("", name, Format::Text, parameters, Format::Text);
    client.send(&[bind, frontend::describe(b'P', ""), frontend::execute("", 0), frontend::sync()].concat());
    client.reply()
}

#[test]
fn a_prepared_literal_keeps_the_zone_it_was_read_in() {
    let (instance, mut direct, mut gateway) = start();
    for (name, sql) in [
        ("early", "SELECT count(*), max(ts) FROM moments WHERE ts < '2024-03-12'"),
        ("late", "SELECT count(*) FROM moments WHERE ts > $1 AND ts < date '2024-03-12'"),
    ] {
        let parameters = if name == "late" { vec![Some(b"2024-03-02 00:00:00+00".to_vec())] } else { Vec::new() };
        for client in [&mut direct, &mut gateway] {
            client.run("SET TimeZone = 'UTC'");
            client.send(&[frontend::parse(name, sql, &[]), frontend::sync()].concat());
            assert_eq!(client.reply().error(), None);
        }
        for step in ["SET TimeZone = 'Asia/Tokyo'", "SET DateStyle = 'ISO, DMY'", "SET extra_float_digits = 3", "SET TimeZone = 'America/New_York'"] {
            for _ in 0..3 {
                let (right, got) = (bound(&mut direct, name, &parameters), bound(&mut gateway, name, &parameters));
                assert_eq!(difference(&right, &got, true), None, "{sql} before {step}");
            }
            let (route, reasons) = instance.route(&gateway, sql);
            assert_eq!(route, "lake", "{sql} before {step}: {reasons}");
            for client in [&mut direct, &mut gateway] {
                client.run(step);
            }
        }
    }
}
