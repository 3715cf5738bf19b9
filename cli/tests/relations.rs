//! Several tables in one statement. While rows come in and are archived, both lake versions and both tails are of one snapshot; and what only
//! PostgreSQL holds is read as the user, with the user's rights, policies and own writes.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use support::compare::difference;
use support::instance::{Instance, Options};
use support::wire::{Client, Format};

/// Rows that one side has and the other lacks, and all: in every snapshot there are none of the former.
const ALONE: &str = "SELECT count(*) FILTER (WHERE a.id IS NULL OR b.id IS NULL), count(*) FROM sent a FULL JOIN received b USING (id)";
/// Statements that join, each asked again and again.
const ASKED: usize = 40;

#[test]
fn tables_of_one_statement_are_of_one_snapshot() {
    let instance = Instance::start(Options::on_demand());
    let mut owner = Client::connect(&instance.gateway());
    for table in ["sent", "received"] {
        owner.run(&format!("CREATE TABLE {table} (ts timestamptz NOT NULL, id int8 NOT NULL)"));
        owner.run(&format!("SELECT watershed.attach_table('public.{table}', event_time => 'ts')"));
    }
    let insert = |table: &str, from: u64, to: u64| {
        format!("INSERT INTO {table} (ts, id) SELECT now() - interval '1 day' * (i % 5), i FROM generate_series({from}, {to}) i")
    };
    owner.run("BEGIN");
    owner.run(&insert("sent", 1, 100));
    owner.run(&insert("received", 1, 100));
    owner.run("COMMIT");
    instance.archive();

    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let (over, instance) = (&over, &instance);
        scope.spawn(move || {
            let mut writer = Client::connect(&instance.direct());
            for n in 0u64.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                // Now one table is first, now the other.
                let (first, second) = if n % 2 == 0 { ("sent", "received") } else { ("received", "sent") };
                writer.run("BEGIN");
                writer.run(&insert(first, 1000 + n * 3, 1002 + n * 3));
                writer.run(&insert(second, 1000 + n * 3, 1002 + n * 3));
                writer.run("COMMIT");
            }
        });
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                instance.archive();
            }
        });
        let asked = thread::Builder::new().spawn_scoped(scope, move || {
            let mut reader = Client::connect(&instance.gateway());
            let mut rows = 100;
            for _ in 0..ASKED {
                let answer = reader.run(ALONE).rows().remove(0);
                let number = |i: usize| answer[i].as_deref().and_then(|n| n.parse::<u64>().ok()).expect("a number");
                assert_eq!(number(0), 0, "{answer:?}");
                assert!(number(1) >= rows, "{answer:?} after {rows}");
                rows = number(1);
            }
            let (route, reasons) = instance.route(&reader, ALONE);
            assert_eq!(route, "lake", "{reasons}");

            // In a fixed snapshot, both stores say the same; what is written meanwhile is in none of the tables.
            let mut both = 0;
            for _ in 0..ASKED / 4 {
                reader.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
                let by_lake = reader.query(ALONE);
                let by_postgres = reader.query(&format!("/* watershed: postgres */ {ALONE}"));
                assert_eq!(difference(&by_postgres, &by_lake, true), None);
                assert_eq!(by_lake.rows()[0][0].as_deref(), Some("0"));
                reader.run("COMMIT");
                both += usize::from(instance.route(&reader, ALONE).0 == "lake");
            }
            assert!(both > 0, "the lake never answered in a fixed snapshot");
        });
        let outcome = asked.expect("a thread").join();
        over.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// Asked through the gateway and directly, as the same user; the route of the former, or the error of both.
#[track_caller]
fn asked_twice(instance: &Instance, gateway: &mut Client, direct: &mut Client, sql: &str) -> String {
    let (expected, actual) = (direct.query(sql), gateway.query(sql));
    assert_eq!(difference(&expected, &actual, true), None, "{sql}");
    match actual.error() {
        Some(fields) => fields[&'C'].clone(),
        None => instance.route(gateway, sql).0,
    }
}

#[test]
fn tables_beside_the_lake_are_read_as_the_user() {
    let instance = Instance::start(Options::on_demand());
    let mut owner = Client::connect(&instance.gateway());
    owner.run("CREATE TABLE sales (ts timestamptz NOT NULL, shop int4, amount numeric(10,2))");
    owner.run("SELECT watershed.attach_table('public.sales', event_time => 'ts')");
    owner.run("INSERT INTO sales SELECT now() - interval '1 hour' * (i % 60), i % 5, i / 10.0 FROM generate_series(1, 1000) i");
    instance.archive();
    owner.run("INSERT INTO sales SELECT now(), i % 7, i FROM generate_series(1, 50) i");
    owner.run("CREATE TABLE shops (shop int4 PRIMARY KEY, town text, keeper text)");
    owner.run("INSERT INTO shops VALUES (0, 'Ulm', 'watershed_analyst'), (1, 'Ulm', 'x'), (2, 'Köln', 'watershed_analyst'), (3, NULL, 'x')");
    owner.run("CREATE VIEW towns AS SELECT shop, town FROM shops");
    // The standard analyst may read what the owner makes, unless told otherwise.
    owner.run("GRANT SELECT ON sales TO watershed_analyst");
    owner.run("REVOKE ALL ON shops, towns FROM watershed_analyst, watershed_readonly");
    let by_town = "SELECT s.town, count(*), sum(f.amount) FROM sales f JOIN shops s USING (shop) GROUP BY s.town ORDER BY 1";
    let by_view = "SELECT s.town, count(*), sum(f.amount) FROM sales f JOIN towns s USING (shop) GROUP BY s.town ORDER BY 1";
    let mut direct = Client::connect(&instance.direct());
    assert_eq!(asked_twice(&instance, &mut owner, &mut direct, by_town), "lake");
    assert_eq!(asked_twice(&instance, &mut owner, &mut direct, by_view), "lake");

    // A transaction's own writes, and in a fixed snapshot nobody else's.
    let both = |owner: &mut Client| {
        let by_postgres = owner.query(&format!("/* watershed: postgres */ {by_town}"));
        let by_lake = owner.query(by_town);
        assert_eq!(difference(&by_postgres, &by_lake, true), None);
        by_lake.rows()
    };
    let before = both(&mut owner);
    owner.run("BEGIN");
    owner.run("UPDATE shops SET town = 'Bonn' WHERE shop = 1");
    let own = both(&mut owner);
    assert_eq!(instance.route(&owner, by_town).0, "lake");
    assert_ne!(own, before);
    owner.run("ROLLBACK");
    owner.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    assert_eq!(both(&mut owner), before);
    direct.run("UPDATE shops SET town = 'Bonn' WHERE shop = 1");
    assert_eq!(both(&mut owner), before);
    owner.run("COMMIT");
    assert_eq!(both(&mut owner), own);

    // Rights, of the table and of its columns, also where the statement was prepared before they were taken.
    let password = instance.secret("WATERSHED_ANALYST_PASSWORD");
    let mut analyst = Client::connect(&instance.gateway().login("watershed_analyst", &password));
    let mut analyst_direct = Client::connect(&instance.direct().login("watershed_analyst", &password));
    let mut as_analyst = |sql: &str| asked_twice(&instance, &mut analyst, &mut analyst_direct, sql);
    assert_eq!(as_analyst(by_town), "42501");
    owner.run("GRANT SELECT (shop) ON shops TO watershed_analyst");
    assert_eq!(as_analyst(by_town), "42501");
    assert_eq!(as_analyst("SELECT s.shop, count(*) FROM sales f JOIN shops s USING (shop) GROUP BY 1 ORDER BY 1"), "lake");
    owner.run("GRANT SELECT ON towns TO watershed_analyst");
    assert_eq!(as_analyst(by_view), "postgres", "what only the view's owner may read");
    owner.run("GRANT SELECT ON shops TO watershed_analyst");
    assert_eq!(as_analyst(by_town), "lake");
    assert_eq!(as_analyst(by_view), "lake");

    // Policies: those of the user where the user reads, those of the owner behind a view.
    owner.run("ALTER TABLE shops ENABLE ROW LEVEL SECURITY");
    owner.run("CREATE POLICY mine ON shops USING (keeper = current_user)");
    assert_eq!(as_analyst(by_town), "lake");
    assert_eq!(as_analyst(by_view), "postgres", "the view's owner sees all");
    assert_eq!(as_analyst("SELECT count(*) FROM sales WHERE shop NOT IN (SELECT shop FROM shops)"), "lake");
    assert_eq!(asked_twice(&instance, &mut owner, &mut direct, by_town), "postgres");
    use support::wire::frontend;
    let bound = |client: &mut Client, prepare: bool| {
        let mut bytes = if prepare { frontend::parse("by_town", by_town, &[]) } else { Vec::new() };
        bytes.extend(frontend::bind("", "by_town", Format::Text, &[], Format::Text));
        bytes.extend(frontend::execute("", 0));
        bytes.extend(frontend::sync());
        client.send(&bytes);
        client.reply()
    };
    let (mut analyst, mut analyst_direct) = (
        Client::connect(&instance.gateway().login("watershed_analyst", &password)),
        Client::connect(&instance.direct().login("watershed_analyst", &password)),
    );
    assert_eq!(difference(&bound(&mut analyst_direct, true), &bound(&mut analyst, true), true), None);
    owner.run("REVOKE SELECT ON shops FROM watershed_analyst");
    let refused = bound(&mut analyst, false);
    assert_eq!(refused.sqlstate(), "42501");
    assert_eq!(difference(&bound(&mut analyst_direct, false), &refused, true), None);

    // More rows than are borne: PostgreSQL joins.
    owner.run("CREATE TABLE crowd AS SELECT i AS shop FROM generate_series(1, 500001) i");
    let crowded = "SELECT count(*) FROM sales f JOIN crowd c USING (shop)";
    assert_eq!(asked_twice(&instance, &mut owner, &mut direct, crowded), "postgres");
    assert!(instance.route(&owner, crowded).1.contains("more than 500000 rows"));
    let few = "SELECT count(*) FROM sales f JOIN crowd c USING (shop) WHERE c.shop < 3";
    assert_eq!(asked_twice(&instance, &mut owner, &mut direct, few), "lake", "the condition is PostgreSQL's to test");
}

/// What a join holds is bounded: beyond it PostgreSQL answers, before a row was sent.
#[test]
fn joins_beyond_memory_change_no_answer() {
    let instance = Instance::start(Options::on_demand().with("WATERSHED_MEMORY_LIMIT", "16MiB"));
    let mut gateway = Client::connect(&instance.gateway());
    let mut direct = Client::connect(&instance.direct());
    gateway.run("CREATE TABLE wide (ts timestamptz NOT NULL, id int8, label text)");
    gateway.run("SELECT watershed.attach_table('public.wide', event_time => 'ts')");
    gateway.run("INSERT INTO wide SELECT now() - interval '1 hour' * (i % 50), i, repeat(md5(i::text), 3) FROM generate_series(1, 200000) i");
    instance.archive();
    let joined = "SELECT count(*), min(a.id), max(b.label) FROM wide a JOIN wide b ON a.label = b.label AND a.id = b.id";
    let (expected, actual) = (direct.query(joined), gateway.query(joined));
    assert_eq!(difference(&expected, &actual, true), None);
    let (route, reasons) = instance.route(&gateway, joined);
    assert_eq!(route, "postgres", "{reasons}");
    assert!(reasons.contains("fell back"), "{reasons}");
    // What fits is the lake's, before and after.
    let few = "SELECT count(*), max(b.label) FROM wide a JOIN wide b ON a.id = b.id WHERE a.id < 100 AND b.id < 100";
    assert_eq!(asked_twice(&instance, &mut gateway, &mut direct, few), "lake");
    assert!(instance.alive());
}
