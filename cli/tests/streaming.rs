//! What is large streams through the gateway: rows, COPY data in both directions, and messages, without being held whole; who does
//! not read holds up who writes, in both directions. What a session costs is measured and printed.

mod support;

use std::time::Duration;

use support::instance::{Instance, Options};
use support::wait_for;
use support::wire::{Client, Format, frontend};

/// What a stream may add to the process, in MiB: buffers, and what the allocator keeps for a while.
const SLACK: u64 = 96;

/// A line of /proc/PID/status, in KiB.
fn status(instance: &Instance, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", instance.pid())).expect("the status of up");
    let line = text.lines().find_map(|l| l.strip_prefix(name)).expect("a line of the status");
    line.trim_start_matches(':').trim().trim_end_matches(" kB").trim().parse().expect("a number")
}

/// The most memory that the process holds while `what` happens, beyond what it held before, in MiB.
fn grows_by(instance: &Instance, what: impl FnOnce()) -> u64 {
    std::fs::write(format!("/proc/{}/clear_refs", instance.pid()), "5").expect("the high-water mark is forgotten");
    let before = status(instance, "VmRSS");
    what();
    status(instance, "VmHWM").saturating_sub(before) / 1024
}

/// Reads and forgets what comes until ReadyForQuery; gives the bytes of bodies.
fn swallow(client: &mut Client) -> usize {
    let mut bytes = 0;
    loop {
        let frame = client.frame();
        assert_ne!(frame.tag, b'E', "{frame:?}");
        bytes += frame.body.len();
        if frame.tag == b'Z' {
            return bytes;
        }
    }
}

#[test]
fn large_things_stream_through() {
    let instance = Instance::start(Options::on_demand());
    let mut owner = Client::connect(&instance.gateway());
    owner.run("CREATE TABLE long (ts timestamptz NOT NULL, a int4, t text)");
    owner.run("SELECT watershed.attach_table('public.long', event_time => 'ts')");
    owner.run("INSERT INTO long SELECT now(), g, repeat(md5(g::text), 8000) FROM generate_series(1, 800) g");
    instance.run(&["archive", "--now", "public.long"]);
    wait_for("the gateway to know the table", || {
        owner.run("SELECT count(*) FROM long");
        let sql = format!("SELECT count(*) FROM watershed.queries WHERE pid = {} AND route = 'lake'", owner.pid);
        (Client::connect(&instance.admin_through_gateway()).value(&sql) != "0").then_some(())
    });
    let mut client = Client::connect(&instance.gateway());
    let mut check = |what: &str, least: usize, run: &mut dyn FnMut(&mut Client) -> usize| {
        let mut bytes = 0;
        let grown = grows_by(&instance, || bytes = run(&mut client));
        println!("{what}: {} MiB, the process grew by {grown} MiB", bytes >> 20);
        assert!(bytes >= least, "{what}: only {bytes} bytes");
        assert!(grown < SLACK, "{what}: the process grew by {grown} MiB");
    };
    // Once, for what is allocated for good.
    check("a warm-up", 1, &mut |c| {
        c.send(&frontend::query("SELECT repeat('x', 1000000)"));
        swallow(c)
    });
    check("one row", 200 << 20, &mut |c| {
        c.send(&frontend::query("SELECT repeat('x', 220000000)"));
        swallow(c)
    });
    check("many rows", 200 << 20, &mut |c| {
        c.send(&frontend::query("SELECT repeat('x', 100000) FROM generate_series(1, 2200)"));
        swallow(c)
    });
    check("a notice", 100 << 20, &mut |c| {
        c.send(&frontend::query("DO $$ BEGIN RAISE NOTICE '%', repeat('x', 120000000); END $$"));
        swallow(c)
    });
    check("COPY out", 200 << 20, &mut |c| {
        c.send(&frontend::query("COPY (SELECT repeat('x', 100000) FROM generate_series(1, 2200)) TO STDOUT"));
        swallow(c)
    });
    check("COPY in", 200 << 20, &mut |c| {
        c.run("CREATE TEMP TABLE taken (t text)");
        c.send(&frontend::query("COPY taken FROM STDIN"));
        assert_eq!(c.frame().tag, b'G');
        let line = [&vec![b'x'; 999_999][..], b"\n"].concat();
        for _ in 0..220 {
            c.send(&frontend::copy_data(&line));
        }
        c.send(&frontend::copy_done());
        assert_eq!(c.reply().ok().tags(), ["COPY 220"]);
        220 * line.len()
    });
    check("a long statement", 100 << 20, &mut |c| {
        let sql = format!("SELECT length('{}')", "x".repeat(120_000_000));
        assert_eq!(c.value(&sql), "120000000");
        sql.len()
    });
    check("a long parameter", 100 << 20, &mut |c| {
        let value = vec![b'x'; 120_000_000];
        let bytes = [
            frontend::parse("", "SELECT length($1)", &[25]),
            frontend::bind("", "", Format::Text, &[Some(value)], Format::Text),
            frontend::execute("", 0),
            frontend::sync(),
        ];
        c.send(&bytes.concat());
        assert_eq!(c.reply().ok().rows(), [[Some("120000000".to_owned())]]);
        120_000_000
    });
    // An error's head is read, its body is not kept.
    let grown = grows_by(&instance, || {
        let reply = client.query("DO $$ BEGIN RAISE EXCEPTION '%', repeat('x', 120000000); END $$");
        assert_eq!((reply.sqlstate().as_str(), reply.status()), ("P0001", 'I'));
        assert!(reply.error().expect("an error")[&'M'].len() == 120_000_000);
    });
    println!("an error: 114 MiB, the process grew by {grown} MiB");
    assert!(grown < SLACK, "an error: the process grew by {grown} MiB");
    assert_eq!(client.value("SELECT count(*) FROM long"), "800");

    // Rows of the lake: 800 of 256,000 bytes, held up by a client that reads slowly.
    let grown = grows_by(&instance, || {
        client.send(&frontend::query("SELECT a, t, count(*) FROM long GROUP BY a, t"));
        assert_eq!(client.frame().tag, b'T');
        std::thread::sleep(Duration::from_secs(1));
        assert!(swallow(&mut client) > 190 << 20);
    });
    // The groups themselves are the engine's memory, which has a limit of its own.
    println!("rows of the lake: 195 MiB of groups, the process grew by {grown} MiB");
}

/// PostgreSQL does not read: neither does the gateway, for long.
#[test]
fn who_does_not_read_holds_up_who_writes() {
    let instance = Instance::start(Options::on_demand());
    let mut owner = Client::connect(&instance.gateway());
    owner.run("CREATE TABLE taken (t text)");
    let mut locker = Client::connect(&instance.direct());
    locker.run("BEGIN; LOCK TABLE taken IN ACCESS EXCLUSIVE MODE");
    let mut client = Client::connect(&instance.gateway());
    client.send(&frontend::query("COPY taken FROM STDIN"));
    let mut write = client.writer();
    let sent = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let line = [&vec![b'x'; 99_999][..], b"\n"].concat();
            for _ in 0..1000 {
                write(&frontend::copy_data(&line));
                sent.fetch_add(line.len(), std::sync::atomic::Ordering::SeqCst);
            }
            write(&frontend::copy_done());
        });
        let grown = grows_by(&instance, || {
            let mut last = 0;
            wait_for("the writer to be held up", || {
                std::thread::sleep(Duration::from_millis(500));
                let now = sent.load(std::sync::atomic::Ordering::SeqCst);
                assert!(now < 100_000_000, "all was taken: {:?}", client.frame());
                (std::mem::replace(&mut last, now) == now && now > 0).then_some(())
            });
        });
        let taken = sent.load(std::sync::atomic::Ordering::SeqCst);
        println!("COPY into a locked table: {} KiB were taken, the process grew by {grown} MiB", taken >> 10);
        assert!(taken < 64 << 20, "{taken} bytes were taken");
        assert!(grown < SLACK);
        locker.run("ROLLBACK");
        assert_eq!(client.reply().ok().tags(), ["COPY 1000"]);
    });

    // And the client does not read: PostgreSQL is held up.
    client.send(&frontend::query("SELECT repeat('x', 100000) FROM generate_series(1, 3000)"));
    assert_eq!(client.frame().tag, b'T');
    let grown = grows_by(&instance, || {
        let sql = format!("SELECT wait_event = 'ClientWrite' FROM pg_stat_activity WHERE pid = {}", client.pid);
        wait_for("PostgreSQL to be held up", || {
            (Client::connect(&instance.admin()).run(&sql).column() == ["t"]).then_some(())
        });
    });
    println!("a client that does not read 286 MiB: the process grew by {grown} MiB");
    assert!(grown < SLACK);
    assert_eq!(client.reply().ok().tags(), ["SELECT 3000"]);
}

/// What an idle session costs in the gateway.
#[test]
fn idle_sessions_are_cheap() {
    const SESSIONS: usize = 80;
    let instance = Instance::start(Options::on_demand());
    let connect = || {
        let mut client = Client::connect(&instance.gateway());
        client.run("SELECT 1");
        // An answer that leaves large buffers behind.
        client.run("SELECT repeat('x', 3000000)");
        client
    };
    drop((0..10).map(|_| connect()).collect::<Vec<_>>());
    let before = status(&instance, "VmRSS");
    let sessions: Vec<Client> = (0..SESSIONS).map(|_| connect()).collect();
    std::thread::sleep(Duration::from_secs(3));
    let each = status(&instance, "VmRSS").saturating_sub(before) as f64 / SESSIONS as f64;
    println!("an idle session: {each:.0} KiB");
    assert!(each < 1024.0, "an idle session takes {each:.0} KiB");
    drop(sessions);
}
