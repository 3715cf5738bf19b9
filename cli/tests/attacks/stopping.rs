//! What stops a statement stops the lake's work and PostgreSQL's.

use super::*;

/// A result far larger than what sockets hold, so that a client who does not read keeps the statement running.
fn large_table() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let mut owner = owner();
        owner.run("CREATE TABLE large (ts timestamptz NOT NULL, a int4, t text)");
        owner.run("SELECT watershed.attach_table('public.large', event_time => 'ts')");
        owner.run(
            "INSERT INTO large SELECT now(), g, repeat(md5(g::text), 40) FROM generate_series(1, 50000) g",
        );
        instance().run(&["archive", "--now", "public.large"]);
    });
}

const LARGE: &str = "SELECT a, t, count(*) FROM large GROUP BY a, t";

#[test]
fn cancel_request_stops_both_kinds_of_work() {
    large_table();
    let mut gateway = owner();
    let key = gateway.cancel_key();
    for (sql, route) in [(LARGE, "lake"), ("SELECT a, t, row_number() OVER () FROM large", "postgres")] {
        gateway.send(&frontend::query(sql));
        let first = gateway.frame();
        assert_eq!(first.tag, b'T', "{first:?}");
        key.cancel();
        let reply = gateway.reply();
        assert_eq!(reply.sqlstate(), "57014", "{sql}: {:?} rows, {:?}", reply.rows().len(), reply.tags());
        assert_eq!(reply.error().expect("an error")[&'M'], "canceling statement due to user request");
        assert_eq!(reply.status(), 'I');
        assert_eq!(gateway.value("SELECT 'alive'"), "alive");
        assert_route(&gateway, sql, route);
    }
    // Waiting for a lock, and asleep.
    let mut locker = admin();
    locker.run("BEGIN; LOCK TABLE large IN ACCESS EXCLUSIVE MODE");
    gateway.send(&frontend::query("SELECT count(*) FROM large"));
    wait_for_value(
        &mut admin(),
        &format!("SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = {}", gateway.pid),
        "t",
    );
    key.cancel();
    assert_eq!(gateway.reply().sqlstate(), "57014");
    locker.run("ROLLBACK");
    gateway.send(&frontend::query("SELECT pg_sleep(100)"));
    wait_for_value(
        &mut admin(),
        &format!("SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = {}", gateway.pid),
        "t",
    );
    key.cancel();
    assert_eq!(gateway.reply().sqlstate(), "57014");
    // In a transaction the error aborts it; savepoints bring it back; a cancel without work is nothing.
    gateway.run("BEGIN; SAVEPOINT s");
    gateway.send(&frontend::query(LARGE));
    gateway.frame();
    key.cancel();
    let reply = gateway.reply();
    assert_eq!((reply.sqlstate().as_str(), reply.status()), ("57014", 'E'));
    assert_eq!(gateway.query("SELECT count(*) FROM large").sqlstate(), "25P02");
    gateway.run("ROLLBACK TO s");
    assert_eq!(gateway.value("SELECT count(*) FROM large"), "50000");
    gateway.run("COMMIT");
    key.cancel();
    breathe();
    gateway.query("SELECT 1"); // PostgreSQL, too, lets a late cancel hit the next statement
    assert_eq!(gateway.value("SELECT count(*) FROM large"), "50000");
}

#[test]
fn statement_timeout_holds_for_the_lake() {
    large_table();
    let mut gateway = owner();
    gateway.run("SET statement_timeout = '6s'");
    gateway.send(&frontend::query(LARGE));
    assert_eq!(gateway.frame().tag, b'T');
    std::thread::sleep(Duration::from_secs(7));
    let reply = gateway.reply();
    assert_eq!(reply.sqlstate(), "57014", "{:?}", reply.tags());
    assert_eq!(reply.error().expect("an error")[&'M'], "canceling statement due to statement timeout");
    gateway.run("RESET statement_timeout");
    assert_eq!(gateway.value("SELECT count(*) FROM large"), "50000");
    assert_route(&gateway, LARGE, "lake");
}

/// A client that dies in the middle of an answer leaves nothing running behind it.
#[test]
fn a_dropped_connection_stops_the_work() {
    large_table();
    for sql in [LARGE, "SELECT pg_sleep(1000)"] {
        let mut gateway = owner();
        let pid = gateway.pid;
        gateway.send(&frontend::query(sql));
        if sql == LARGE {
            gateway.frame();
        } else {
            breathe();
        }
        gateway.drop_connection();
        wait_for_value(
            &mut admin(),
            &format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"),
            "0",
        );
    }
}

#[test]
fn an_administrators_termination_reaches_the_client() {
    let mut gateway = owner();
    gateway.run("SELECT 1");
    admin().run(&format!("SELECT pg_terminate_backend({})", gateway.pid));
    let frame = gateway.frame();
    assert_eq!((frame.tag, frame.fields()[&'C'].as_str()), (b'E', "57P01"), "{frame:?}");
    assert!(gateway.try_frame().is_err(), "the connection ends");
}
