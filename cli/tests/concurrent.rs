//! Writers of every kind, the archiver, the compactor and readers at the same time: every answer of the lake is exact at every
//! moment.
//!
//! What PostgreSQL would have answered at that very moment is not known to a second session, so the writers keep to rules that
//! hold in every snapshot: each transaction adds rows whose amounts sum to zero, in pairs, one of each kind. An answer that
//! misses a row or counts one twice breaks a rule. Where the snapshot is fixed, both stores are asked in it and compared.

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::instance::{Instance, Options, shown};
use support::wire::{Client, Format, Target, frontend};
use support::{Sequence, wait_for};

/// How long the storm lasts. Nothing depends on how much happens in it.
const STORM: Duration = Duration::from_secs(40);

/// What holds in every snapshot of `pairs`: as many rows of one kind as of the other, amounts that sum to zero, every pair whole.
const INVARIANT: &str = "SELECT sum(amount), count(*) FILTER (WHERE kind = 'debit') = count(*) FILTER (WHERE kind = 'credit'), count(*) = 2 * count(DISTINCT pair), count(*) FROM pairs";

fn make_tables(instance: &Instance) {
    let mut owner = Client::connect(&instance.gateway());
    owner.run("CREATE TABLE pairs (ts timestamptz NOT NULL, kind text NOT NULL, pair text NOT NULL, amount numeric(12,2) NOT NULL, writer int4 NOT NULL)");
    owner.run("SELECT watershed.attach_table('public.pairs', event_time => 'ts')");
}

/// One pair, its halves years, days or nothing apart in event time.
fn pair(random: &mut Sequence, writer: u64, id: &str) -> String {
    let amount = format!("{}.{:02}", random.below(100_000), random.below(100));
    let mut time = || match random.below(4) {
        0 => format!("now() - interval '{} days'", random.below(30) * 97),
        1 => format!("now() + interval '{} hours'", random.below(100)),
        2 => format!("timestamptz '2024-03-10 00:00:00+00' + interval '{} minutes'", random.below(2000)),
        _ => "now()".to_owned(),
    };
    let (first, second) = (time(), time());
    format!(
        "INSERT INTO pairs (ts, kind, pair, amount, writer) VALUES ({first}, 'debit', '{id}', -{amount}, {writer}), ({second}, 'credit', '{id}', {amount}, {writer})"
    )
}

struct Storm<'a> {
    instance: &'a Instance,
    over: AtomicBool,
    committed: AtomicU64,
    answers: AtomicU64,
    lake_answers: AtomicU64,
}

impl Storm<'_> {
    fn over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn committed(&self, pairs: u64) {
        self.committed.fetch_add(pairs, Ordering::Relaxed);
    }

    /// Short transactions, some rolled back, some with savepoints of which some are rolled back.
    fn write(&self, writer: u64, target: &Target) {
        let mut random = Sequence(writer);
        let mut client = Client::connect(target);
        for n in 0u64.. {
            if self.over() {
                break;
            }
            let mut sql = |part: u64| pair(&mut random, writer, &format!("{writer}.{n}.{part}"));
            match n % 6 {
                0 => {
                    client.run(&sql(0));
                    self.committed(1);
                }
                1 => {
                    client.run("BEGIN");
                    client.run(&sql(0));
                    client.run(&sql(1));
                    client.run("ROLLBACK");
                }
                2 => {
                    client.run("BEGIN");
                    client.run(&sql(0));
                    client.run("SAVEPOINT one");
                    client.run(&sql(1));
                    client.run("ROLLBACK TO one");
                    client.run(&sql(2));
                    client.run("RELEASE one");
                    client.run("COMMIT");
                    self.committed(2);
                }
                3 => {
                    // An error undoes the second pair only.
                    client.run("BEGIN");
                    client.run(&sql(0));
                    client.run("SAVEPOINT two");
                    client.run(&sql(1));
                    assert_eq!(client.query("SELECT 1 / 0").sqlstate(), "22012");
                    client.run("ROLLBACK TO two");
                    client.run("COMMIT");
                    self.committed(1);
                }
                4 => {
                    client.run("BEGIN");
                    for part in 0..10 {
                        client.run(&sql(part));
                    }
                    client.run("COMMIT");
                    self.committed(10);
                }
                _ => {
                    // Half a pair is never committed.
                    client.run("BEGIN");
                    client.run(&format!("INSERT INTO pairs (ts, kind, pair, amount, writer) VALUES (now(), 'debit', '{writer}.{n}', -5, {writer})"));
                    thread::sleep(Duration::from_millis(5));
                    client.run("ROLLBACK");
                }
            }
        }
    }

    /// A transaction that stays open over several archives, then commits or does not.
    fn write_long(&self, writer: u64, target: &Target) {
        let mut random = Sequence(writer);
        let mut client = Client::connect(target);
        for n in 0u64.. {
            if self.over() {
                break;
            }
            client.run("BEGIN");
            for part in 0..8 {
                client.run(&pair(&mut random, writer, &format!("{writer}.{n}.{part}")));
                thread::sleep(Duration::from_millis(250));
            }
            if n % 3 == 2 {
                client.run("ROLLBACK");
            } else {
                client.run("COMMIT");
                self.committed(8);
            }
        }
    }

    /// Two-phase commits: prepared, left for a while, then committed or rolled back by another session.
    fn write_prepared(&self, writer: u64, target: &Target) {
        let mut random = Sequence(writer);
        let (mut client, mut other) = (Client::connect(target), Client::connect(target));
        for n in 0u64.. {
            if self.over() {
                break;
            }
            client.run("BEGIN");
            client.run(&pair(&mut random, writer, &format!("{writer}.{n}")));
            client.run(&format!("PREPARE TRANSACTION 'storm {writer}.{n}'"));
            thread::sleep(Duration::from_millis(random.below(900)));
            if n % 3 == 2 {
                other.run(&format!("ROLLBACK PREPARED 'storm {writer}.{n}'"));
            } else {
                other.run(&format!("COMMIT PREPARED 'storm {writer}.{n}'"));
                self.committed(1);
            }
        }
    }

    /// COPY through the gateway, both halves of each pair in one COPY.
    fn copy(&self, writer: u64, target: &Target) {
        let mut random = Sequence(writer);
        let mut client = Client::connect(target);
        for n in 0u64.. {
            if self.over() {
                break;
            }
            let list = if n % 2 == 0 { " (ts, kind, pair, amount, writer)" } else { "" };
            client.send(&frontend::query(&format!("COPY pairs{list} FROM STDIN")));
            assert_eq!(client.frame().tag, b'G');
            let pairs = 1 + random.below(50);
            for part in 0..pairs {
                let amount = random.below(1000);
                let lines = format!(
                    "2024-06-0{}\tdebit\t{writer}.{n}.{part}\t-{amount}\t{writer}\n2024-06-0{}\tcredit\t{writer}.{n}.{part}\t{amount}\t{writer}\n",
                    1 + random.below(9),
                    1 + random.below(9)
                );
                client.send(&frontend::copy_data(lines.as_bytes()));
            }
            if n % 4 == 3 {
                client.send(&frontend::copy_fail("changed my mind"));
                assert_eq!(client.reply().sqlstate(), "57014");
            } else {
                client.send(&frontend::copy_done());
                client.reply().ok();
                self.committed(pairs);
            }
        }
    }

    /// A transaction in another database holds a number of its own open: it delays nothing and confuses nothing.
    fn write_elsewhere(&self, target: &Target) {
        let mut client = Client::connect(target);
        client.run("CREATE TABLE IF NOT EXISTS elsewhere (n int4)");
        while !self.over() {
            client.run("BEGIN; INSERT INTO elsewhere VALUES (1)");
            thread::sleep(Duration::from_millis(1500));
            client.run("COMMIT");
        }
    }

    fn check(&self, client: &mut Client, what: &str) {
        let reply = client.run(INVARIANT);
        let rows = reply.rows();
        let sum = rows[0][0].as_deref().unwrap_or("0.00");
        assert!(
            sum == "0.00" && rows[0][1].as_deref() == Some("t") && rows[0][2].as_deref() == Some("t"),
            "{what}: {reply:?}"
        );
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    /// Statements of the simple and the extended protocol, the lake forced.
    fn read(&self, target: &Target) {
        let mut client = Client::connect(target);
        client.run("SET watershed.route = 'lake'");
        let mut before = 0u64;
        while !self.over() {
            self.check(&mut client, "forced to the lake");
            let reply = client.prepared("st", INVARIANT, Format::Text, &[], Format::Text).ok();
            let rows = reply.rows();
            assert_eq!(rows[0][1..3], [Some("t".to_owned()), Some("t".to_owned())], "{reply:?}");
            // Committed rows never go away.
            let count: u64 = rows[0][3].as_deref().and_then(|text| text.parse().ok()).expect("a number");
            assert!(count >= before, "{before} rows, then {count}: {reply:?}");
            before = count;
            let reply = client
                .run("SELECT date_trunc('day', ts), sum(amount), count(*) FROM pairs GROUP BY 1 ORDER BY 1");
            assert!(reply.error().is_none());
        }
        self.count_routes(&client);
    }

    /// Both stores in one snapshot, frame by frame.
    fn read_in_one_snapshot(&self, target: &Target) {
        let mut client = Client::connect(target);
        let statements = [
            INVARIANT,
            "SELECT kind, count(*), sum(amount), avg(amount), min(ts), max(ts) FROM pairs GROUP BY kind ORDER BY kind",
            "SELECT writer, count(*), count(DISTINCT pair), max(amount) FROM pairs GROUP BY writer ORDER BY writer",
            "SELECT date_trunc('month', ts), kind, count(*) FROM pairs GROUP BY 1, 2 ORDER BY 1, 2",
        ];
        while !self.over() {
            client.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
            for sql in statements {
                let by_gateway = client.run(sql);
                let by_postgres = client.run(&format!("/* watershed: postgres */ {sql}"));
                assert_eq!(by_gateway, by_postgres, "{sql}");
                thread::sleep(Duration::from_millis(20));
                assert_eq!(client.run(sql), by_postgres, "asked again in the same snapshot: {sql}");
                self.answers.fetch_add(2, Ordering::Relaxed);
            }
            client.run("COMMIT");
        }
        self.count_routes(&client);
    }

    /// Own rows are seen inside a transaction, before and after others commit.
    fn read_own_rows(&self, writer: u64, target: &Target) {
        let mut random = Sequence(writer);
        let mut client = Client::connect(target);
        let own = format!("SELECT count(*), sum(amount) FROM pairs WHERE writer = {writer}");
        let mut kept = 0u64;
        for n in 0u64.. {
            if self.over() {
                break;
            }
            client.run("BEGIN");
            for part in 0..4u64 {
                client.run(&pair(&mut random, writer, &format!("{writer}.{n}.{part}")));
                let reply = client.run(&own);
                let expected = [Some((2 * (kept + part + 1)).to_string()), Some("0.00".to_owned())];
                assert_eq!(reply.rows(), [expected], "own rows in a transaction");
                self.check(&mut client, "inside a transaction that wrote");
            }
            client.run(if n % 2 == 0 { "COMMIT" } else { "ROLLBACK" });
            if n % 2 == 0 {
                kept += 4;
                self.committed(4);
            }
            if kept > 0 {
                assert_eq!(
                    client.run(&own).rows()[0][0].as_deref(),
                    Some((2 * kept).to_string().as_str()),
                    "own rows afterwards"
                );
            }
        }
        self.count_routes(&client);
    }

    fn count_routes(&self, client: &Client) {
        let mut reader = Client::connect(&self.instance.admin_through_gateway());
        let sql = format!(
            "SELECT count(*) FROM watershed.queries WHERE pid = {} AND route = 'lake' AND NOT fell_back",
            client.pid
        );
        self.lake_answers.fetch_add(reader.value(&sql).parse().expect("a number"), Ordering::Relaxed);
    }

    /// The archiver and the compactor as people call them, beside those of `up`.
    fn tend(&self) {
        while !self.over() {
            for arguments in [&["archive", "--now", "pairs"][..], &["compact", "pairs"]] {
                let output = self.instance.output(arguments);
                assert!(output.status.success(), "{arguments:?}: {}", shown(&output));
            }
        }
    }
}

#[test]
fn every_answer_is_exact_while_everything_goes_on() {
    let instance = Instance::start(Options::busy());
    make_tables(&instance);
    let (gateway, direct) = (instance.gateway(), instance.direct());
    let mut admin = Client::connect(&instance.admin());
    admin.run("CREATE DATABASE elsewhere OWNER watershed");
    let elsewhere = direct.database("elsewhere");
    let storm = Storm {
        instance: &instance,
        over: AtomicBool::new(false),
        committed: AtomicU64::new(0),
        answers: AtomicU64::new(0),
        lake_answers: AtomicU64::new(0),
    };
    thread::scope(|scope| {
        let mut threads = vec![
            scope.spawn(|| storm.write(1, &gateway)),
            scope.spawn(|| storm.write(2, &direct)),
            scope.spawn(|| storm.write_long(3, &gateway)),
            scope.spawn(|| storm.write_long(4, &direct)),
            scope.spawn(|| storm.write_prepared(5, &direct)),
            scope.spawn(|| storm.write_prepared(6, &gateway)),
            scope.spawn(|| storm.copy(7, &gateway)),
            scope.spawn(|| storm.write_elsewhere(&elsewhere)),
            scope.spawn(|| storm.read(&gateway)),
            scope.spawn(|| storm.read_in_one_snapshot(&gateway)),
            scope.spawn(|| storm.read_own_rows(8, &gateway)),
            scope.spawn(|| storm.tend()),
        ];
        let started = Instant::now();
        while started.elapsed() < STORM && threads.iter().all(|thread| !thread.is_finished()) {
            thread::sleep(Duration::from_millis(50));
        }
        storm.over.store(true, Ordering::Relaxed);
        // The first failure is the one to read.
        for thread in threads.drain(..) {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });

    let committed = storm.committed.load(Ordering::Relaxed);
    let (answers, by_lake) =
        (storm.answers.load(Ordering::Relaxed), storm.lake_answers.load(Ordering::Relaxed));
    println!(
        "{committed} pairs committed, {answers} answers checked, {by_lake} statements answered by the lake"
    );
    let expected = [[
        Some("0.00".to_owned()),
        Some("t".to_owned()),
        Some("t".to_owned()),
        Some((2 * committed).to_string()),
    ]];
    let mut client = Client::connect(&direct);
    assert_eq!(client.run(INVARIANT).rows(), expected, "in PostgreSQL");
    let mut client = Client::connect(&gateway);
    client.run("SET watershed.route = 'lake'");
    assert_eq!(client.run(INVARIANT).rows(), expected, "in the lake and the tail");
    instance.run(&["archive", "--now", "pairs"]);
    instance.run(&["compact", "pairs"]);
    assert_eq!(client.run(INVARIANT).rows(), expected, "in the lake");
    let output = instance.output(&["verify"]);
    assert!(output.status.success(), "{}", shown(&output));
    assert!(by_lake > 10, "only {by_lake} statements were answered by the lake");
}

/// A transaction that is open for longer than the archiver cares delays nothing, and its rows appear when it ends.
#[test]
fn an_open_transaction_delays_nothing_and_loses_nothing() {
    let instance = Instance::start(Options::on_demand());
    make_tables(&instance);
    let mut gateway = Client::connect(&instance.gateway());
    gateway.run("SET watershed.route = 'lake'");
    let count = |client: &mut Client| -> u64 {
        client.value("SELECT count(*) FROM pairs").parse().expect("a number")
    };
    let mut random = Sequence(77);
    let mut insert = |client: &mut Client, id: &str| client.run(&pair(&mut random, 9, id));

    let mut open = Client::connect(&instance.direct());
    open.run("BEGIN");
    insert(&mut open, "open 1");
    let mut prepared = Client::connect(&instance.direct());
    prepared.run("BEGIN");
    insert(&mut prepared, "prepared");
    prepared.run("PREPARE TRANSACTION 'open'");
    let mut idle = Client::connect(
        &instance.direct().database("postgres").login(&instance.admin().user, &instance.admin().password),
    );
    idle.run("BEGIN; CREATE TEMP TABLE held (n int4)");

    let mut writer = Client::connect(&instance.direct());
    let mut expected = 0;
    for n in 0..10 {
        insert(&mut writer, &format!("closed {n}"));
        expected += 2;
        insert(&mut open, &format!("open more {n}"));
        instance.archive();
        assert_eq!(count(&mut gateway), expected, "round {n}");
        // The lake holds them although other transactions are open (the gateway may use an older version for a moment).
        wait_for("an empty tail", || {
            assert_eq!(count(&mut gateway), expected, "round {n}");
            let sql = format!(
                "SELECT tail_rows FROM watershed.queries WHERE pid = {} AND sql = 'SELECT count(*) FROM pairs' ORDER BY id DESC LIMIT 1",
                gateway.pid
            );
            (gateway.value(&sql) == "0").then_some(())
        });
    }
    open.run("COMMIT");
    expected += 22;
    assert_eq!(count(&mut gateway), expected, "after the open transaction's end");
    instance.archive();
    assert_eq!(count(&mut gateway), expected, "and shipped");
    instance.terminate();
    instance.restart();
    let mut gateway = Client::connect(&instance.gateway());
    gateway.run("SET watershed.route = 'lake'");
    assert_eq!(count(&mut gateway), expected, "after a restart");
    let mut writer = Client::connect(&instance.direct());
    writer.run("COMMIT PREPARED 'open'");
    expected += 2;
    assert_eq!(count(&mut gateway), expected, "after the prepared transaction's end");
    instance.archive();
    instance.run(&["compact"]);
    assert_eq!(count(&mut gateway), expected);
    let output = instance.output(&["verify"]);
    assert!(output.status.success(), "{}", shown(&output));
    wait_for("a second look", || (count(&mut gateway) == expected).then_some(()));
}
