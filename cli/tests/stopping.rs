//! Work that is stopped really ends, in PostgreSQL and in the lake, whoever stops it: a CancelRequest, a timeout, a client that
//! is gone, an administrator, a gateway that drains. How long it takes is measured and printed; only a hang fails.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::instance::{Instance, Options, signal};
use support::wait_for;
use support::wire::{Client, Format, frontend};

/// Far more than any stop should take, on a machine that is busy with other things.
const BOUND: Duration = Duration::from_secs(20);

/// Rows far larger than what sockets hold, and an aggregate that keeps the engine at work for long.
fn tables(instance: &Instance) {
    let mut owner = Client::connect(&instance.gateway());
    for table in ["large (ts timestamptz NOT NULL, a int4, t text)", "heavy (ts timestamptz NOT NULL, a int4)"] {
        let name = table.split(' ').next().expect("a name");
        owner.run(&format!("CREATE TABLE {table}"));
        owner.run(&format!("SELECT watershed.attach_table('public.{name}', event_time => 'ts')"));
    }
    owner.run("INSERT INTO large SELECT now(), g, repeat(md5(g::text), 40) FROM generate_series(1, 50000) g");
    owner.run("INSERT INTO heavy SELECT now(), g FROM generate_series(1, 300000) g");
    for table in ["public.large", "public.heavy"] {
        instance.run(&["archive", "--now", table]);
    }
    owner.run("ANALYZE large; ANALYZE heavy");
    wait_for("the gateway to know the tables", || {
        let mut client = Client::connect(&instance.gateway());
        client.run("SELECT count(*) FROM large");
        client.run("SELECT count(*) FROM heavy");
        let mut reader = Client::connect(&instance.admin_through_gateway());
        let sql = format!("SELECT count(*) FROM watershed.queries WHERE pid = {} AND route = 'lake'", client.pid);
        (reader.value(&sql) == "2").then_some(())
    });
}

const LARGE: &str = "SELECT a, t, count(*) FROM large GROUP BY a, t";

/// Minutes of divisions.
fn heavy() -> String {
    let terms: Vec<String> =
        (1..=240).map(|n| format!("count(a::numeric(10, 0) / (a::numeric(10, 0) + {n}.7))")).collect();
    format!("SELECT {} FROM heavy", terms.join(", "))
}

/// A gauge of the process.
fn gauge(instance: &Instance, name: &str) -> u64 {
    let mut socket = TcpStream::connect(("127.0.0.1", instance.http_port())).expect("the HTTP door");
    socket.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("a request");
    let mut page = String::new();
    socket.read_to_string(&mut page).expect("a page");
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
    value.unwrap_or_else(|| panic!("no {name} in\n{page}")) as u64
}

fn at_work(instance: &Instance) -> u64 {
    gauge(instance, "watershed_lake_queries_running")
}

/// Ticks of processor time that the engine's threads have used.
fn engine_ticks(instance: &Instance) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", instance.pid())).expect("the threads of up");
    let mut ticks = 0;
    for task in tasks.flatten() {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let Some((head, rest)) = stat.rsplit_once(") ") else { continue };
        if head.contains("watershed-engi") {
            let fields: Vec<&str> = rest.split(' ').collect();
            ticks += fields[11].parse::<u64>().unwrap_or(0) + fields[12].parse::<u64>().unwrap_or(0);
        }
    }
    ticks
}

/// Waits until the lake does nothing any more, and proves that its threads rest. Returns how long after `since` it said so.
fn lake_rests(instance: &Instance, since: Instant) -> Duration {
    wait_for("the engine's queries to end", || (at_work(instance) == 0).then_some(()));
    let took = since.elapsed();
    assert_eq!(gauge(instance, "watershed_lake_reads_running"), 0, "reads without a query");
    wait_for("the engine's threads to rest", || {
        let before = engine_ticks(instance);
        std::thread::sleep(Duration::from_millis(300));
        (engine_ticks(instance) - before <= 2).then_some(())
    });
    took
}

/// What the backend of a session does, as PostgreSQL sees it; empty if it is gone.
fn backend(instance: &Instance, pid: i32) -> String {
    let sql = format!("SELECT state FROM pg_stat_activity WHERE pid = {pid}");
    Client::connect(&instance.admin()).run(&sql).column().pop().unwrap_or_default()
}

/// Waits until the lake is at work on the statement that was just sent.
fn busy(instance: &Instance) {
    wait_for("the lake to be at work", || (at_work(instance) > 0).then_some(()));
}

struct Delays(Vec<(String, Duration)>);

impl Delays {
    fn note(&mut self, what: &str, delay: Duration) {
        println!("{what}: {:.1} ms", delay.as_secs_f64() * 1e3);
        assert!(delay < BOUND, "{what} took {delay:?}");
        self.0.push((what.to_owned(), delay));
    }
}

#[track_caller]
fn stopped(client: &mut Client, text: &str, status: char) {
    let reply = client.reply();
    let error = reply.error().unwrap_or_else(|| panic!("an error was expected: {:?}", reply.tags()));
    assert_eq!((error[&'C'].as_str(), error[&'M'].as_str()), ("57014", text), "{error:?}");
    assert_eq!(reply.status(), status);
}

const BY_REQUEST: &str = "canceling statement due to user request";
const BY_TIMEOUT: &str = "canceling statement due to statement timeout";

#[test]
fn what_is_stopped_ends_in_both_stores() {
    let instance = Instance::shared();
    tables(instance);
    let mut delays = Delays(Vec::new());
    let heavy = heavy();
    let mut client = Client::connect(&instance.gateway());
    let key = client.cancel_key();

    // CancelRequest: before the first row, within the rows, in a portal that goes on, in PostgreSQL.
    for round in 0..3 {
        client.send(&frontend::query(&heavy));
        busy(instance);
        let since = Instant::now();
        key.cancel();
        stopped(&mut client, BY_REQUEST, 'I');
        delays.note(&format!("CancelRequest, aggregate of the lake ({round})"), since.elapsed());
        let rest = lake_rests(instance, since);
        delays.note("    the lake is at rest", rest);
        assert_eq!(backend(instance, client.pid), "idle");
    }
    client.send(&frontend::query(LARGE));
    assert_eq!(client.frame().tag, b'T');
    let since = Instant::now();
    key.cancel();
    stopped(&mut client, BY_REQUEST, 'I');
    delays.note("CancelRequest, rows of the lake", since.elapsed());
    let rest = lake_rests(instance, since);
    delays.note("    the lake is at rest", rest);

    client.run("BEGIN");
    let bytes = [
        frontend::parse("s", LARGE, &[]),
        frontend::bind("p", "s", Format::Text, &[], Format::Text),
        frontend::execute("p", 10),
        frontend::sync(),
    ];
    client.send(&bytes.concat());
    assert_eq!(client.reply().ok().rows().len(), 10);
    client.send(&[frontend::execute("p", 0), frontend::sync()].concat());
    assert_eq!(client.frame().tag, b'D');
    let since = Instant::now();
    key.cancel();
    stopped(&mut client, BY_REQUEST, 'E');
    delays.note("CancelRequest, a portal of the lake that goes on", since.elapsed());
    client.run("ROLLBACK");
    lake_rests(instance, since);

    // Before the lake begins: PostgreSQL waits for a lock on the gateway's behalf.
    let mut locker = Client::connect(&instance.admin());
    locker.run("BEGIN; LOCK TABLE large IN ACCESS EXCLUSIVE MODE");
    for extended in [false, true] {
        let bytes = if extended {
            [frontend::parse("", "SELECT count(*) FROM large", &[]), frontend::sync()].concat()
        } else {
            frontend::query("SELECT count(*) FROM large")
        };
        client.send(&bytes);
        wait_for("the wait for a lock", || {
            let sql = format!("SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = {}", client.pid);
            (Client::connect(&instance.admin()).run(&sql).column() == ["t"]).then_some(())
        });
        let since = Instant::now();
        key.cancel();
        stopped(&mut client, BY_REQUEST, 'I');
        delays.note("CancelRequest, a probe that waits for a lock", since.elapsed());
        assert_eq!(backend(instance, client.pid), "idle");
    }
    locker.run("ROLLBACK");
    client.send(&frontend::query("SELECT pg_sleep(600)"));
    wait_for("PostgreSQL to sleep", || (backend(instance, client.pid) == "active").then_some(()));
    let since = Instant::now();
    key.cancel();
    stopped(&mut client, BY_REQUEST, 'I');
    delays.note("CancelRequest, PostgreSQL", since.elapsed());

    // statement_timeout, in both protocols and in a transaction.
    client.run("SET statement_timeout = '3s'");
    for extended in [false, true] {
        client.run("BEGIN");
        let since = Instant::now();
        let bytes = if extended {
            [
                frontend::parse("", &heavy, &[]),
                frontend::bind("", "", Format::Text, &[], Format::Text),
                frontend::execute("", 0),
                frontend::sync(),
            ]
            .concat()
        } else {
            frontend::query(&heavy)
        };
        client.send(&bytes);
        stopped(&mut client, BY_TIMEOUT, 'E');
        delays.note("statement_timeout of 3 s, the lake", since.elapsed());
        lake_rests(instance, since);
        client.run("ROLLBACK");
    }
    client.run("RESET statement_timeout");

    // A socket that closes without a word.
    for sql in [heavy.as_str(), LARGE, "SELECT pg_sleep(600)"] {
        let mut lost = Client::connect(&instance.gateway());
        let pid = lost.pid;
        lost.send(&frontend::query(sql));
        if sql == LARGE {
            lost.frame();
        } else {
            wait_for("somebody at work", || (at_work(instance) > 0 || backend(instance, pid) == "active").then_some(()));
        }
        let since = Instant::now();
        lost.drop_connection();
        wait_for("the backend to end", || backend(instance, pid).is_empty().then_some(()));
        delays.note(&format!("a closed socket, {:.20}", sql), since.elapsed());
        lake_rests(instance, since);
    }

    // An administrator's word is told in the middle of the lake's work, and ends it.
    let mut ended = Client::connect(&instance.gateway());
    ended.send(&frontend::query(&heavy));
    busy(instance);
    let since = Instant::now();
    Client::connect(&instance.admin()).run(&format!("SELECT pg_terminate_backend({})", ended.pid));
    let frame = ended.frame();
    assert_eq!((frame.tag, frame.fields()[&'C'].as_str()), (b'E', "57P01"), "{frame:?}");
    assert!(ended.try_frame().is_err(), "the connection ends");
    delays.note("pg_terminate_backend, the lake", since.elapsed());
    lake_rests(instance, since);

    // Too long idle in a transaction, a portal half read.
    let mut idle = Client::connect(&instance.gateway());
    idle.run("SET idle_in_transaction_session_timeout = '3s'");
    idle.run("BEGIN");
    idle.send(&bytes.concat());
    assert_eq!(idle.reply().ok().rows().len(), 10);
    let since = Instant::now();
    let frame = idle.frame();
    assert_eq!((frame.tag, frame.fields()[&'C'].as_str()), (b'E', "25P03"), "{frame:?}");
    assert!(idle.try_frame().is_err(), "the connection ends");
    delays.note("idle_in_transaction_session_timeout of 3 s", since.elapsed());
    lake_rests(instance, since);
    assert_eq!(client.value("SELECT count(*) FROM large"), "50000");
    // What was stopped was the lake's indeed.
    let mut reader = Client::connect(&instance.admin_through_gateway());
    let stopped = "SELECT count(*) FROM watershed.queries WHERE sql LIKE 'SELECT count(a::%' AND error LIKE 'canceling%'";
    assert_eq!(reader.value(stopped), "5");
    assert_eq!(reader.value(&format!("{stopped} AND route = 'lake'")), "5");
}

/// Clients that have rows waiting, or do not read what they asked for, keep nobody else from the lake.
#[test]
fn portals_that_rest_and_clients_that_do_not_read_keep_nobody_waiting() {
    let instance = Instance::start(Options::on_demand());
    tables(&instance);
    let mut resting = Vec::new();
    for n in 0..24 {
        let mut client = Client::connect(&instance.gateway());
        if n % 2 == 0 {
            client.run("BEGIN");
            let bytes = [
                frontend::parse("s", LARGE, &[]),
                frontend::bind("p", "s", Format::Text, &[], Format::Text),
                frontend::execute("p", 3),
                frontend::sync(),
            ];
            client.send(&bytes.concat());
            assert_eq!(client.reply().ok().rows().len(), 3);
        } else {
            client.send(&frontend::query(LARGE));
            assert_eq!(client.frame().tag, b'T');
        }
        resting.push(client);
    }
    assert!(at_work(&instance) > 8, "most of them have rows to come: {}", at_work(&instance));
    let mut other = Client::connect(&instance.gateway());
    assert_eq!(other.value("SELECT count(DISTINCT a) FROM large"), "50000");
    // They go on where they were.
    for (n, client) in resting.iter_mut().enumerate() {
        let expected = if n % 2 == 0 {
            client.send(&[frontend::execute("p", 0), frontend::sync()].concat());
            49_997
        } else {
            50_000
        };
        let reply = client.reply().ok();
        assert_eq!(reply.frames.iter().filter(|f| f.tag == b'D').count(), expected, "client {n}");
    }
    drop(resting);
    lake_rests(&instance, Instant::now());
}

/// SIGTERM: idle sessions go at once, the others when the drain time is over; each is told, and nothing goes on behind them.
#[test]
fn a_drain_tells_everybody_and_stops_what_is_left() {
    let instance = Instance::start(Options::default().with("WATERSHED_DRAIN_TIMEOUT", "3s"));
    tables(&instance);
    let connect = || Client::connect(&instance.gateway());
    let (mut idle, mut elsewhere, mut open, mut sleeping, mut aggregating) =
        (connect(), Client::connect(&instance.admin_through_gateway().database("postgres")), connect(), connect(), connect());
    idle.run("SELECT 1");
    elsewhere.run("SELECT 1");
    open.run("BEGIN");
    open.run("SELECT count(*) FROM large");
    sleeping.send(&frontend::query("SELECT pg_sleep(600)"));
    aggregating.send(&frontend::query(&heavy()));
    busy(&instance);
    wait_for("PostgreSQL to sleep", || (backend(&instance, sleeping.pid) == "active").then_some(()));
    let since = Instant::now();
    let pid = instance.pid();
    signal("TERM", pid);
    for (client, what) in [(&mut idle, "idle"), (&mut elsewhere, "idle in another database")] {
        let frame = client.frame();
        assert_eq!((frame.tag, frame.fields()[&'C'].as_str()), (b'E', "57P01"), "{what}: {frame:?}");
        println!("drain, {what}: told after {:?}", since.elapsed());
    }
    // A session inside a transaction may go on until the time is over.
    assert_eq!(open.value("SELECT count(*) FROM large"), "50000");
    for (client, what) in [(&mut open, "in a transaction"), (&mut sleeping, "in PostgreSQL"), (&mut aggregating, "in the lake")] {
        let frame = client.frame();
        assert_eq!((frame.tag, frame.fields()[&'C'].as_str()), (b'E', "57P01"), "{what}: {frame:?}");
        println!("drain of 3 s, {what}: told after {:?}", since.elapsed());
        assert!(client.try_frame().is_err(), "{what}: the connection ends");
    }
    wait_for("the end of up", || (!support::instance::alive(pid)).then_some(()));
    println!("drain of 3 s: over after {:?}", since.elapsed());
    assert!(since.elapsed() < BOUND + Duration::from_secs(3));
}
