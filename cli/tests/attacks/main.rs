//! What clients may do to the gateway, by accident or on purpose, and what must hold all the same: the answer, the rights, the
//! session's settings and its transaction are those of PostgreSQL. Each rule that an attack taught has its test here.
//!
//! Most tests run one script on PostgreSQL directly and through the gateway and compare every frame.

#[path = "../support/mod.rs"]
mod support;

mod rights;
mod sessions;
mod settings;
mod statements;
mod stopping;
mod transactions;
mod trees;

use std::time::Duration;

use support::compare::difference;
use support::instance::{Instance, breathe, wait_for_value};
use support::wire::{Client, Format, LoginError, Reply, Target, frontend};
use support::{Sequence, wait_for};

fn instance() -> &'static Instance {
    Instance::shared()
}

fn owner() -> Client {
    Client::connect(&instance().gateway())
}

fn direct() -> Client {
    Client::connect(&instance().direct())
}

fn admin() -> Client {
    Client::connect(&instance().admin())
}

/// A role of the test's own: its login through the gateway and directly.
fn role(name: &str) -> (Target, Target) {
    admin().run(&format!("CREATE ROLE {name} LOGIN PASSWORD 'of-{name}'"));
    let password = format!("of-{name}");
    (instance().gateway().login(name, &password), instance().direct().login(name, &password))
}

/// A tiered table `name(ts, a, t)` with 90 rows in the lake and 10 in the tail: `a` runs from 0 to 99.
fn table(name: &str) {
    let mut owner = owner();
    owner.run(&format!("CREATE TABLE {name} (ts timestamptz NOT NULL, a int4, t text)"));
    let full = if name.contains('.') { name.to_owned() } else { format!("public.{name}") };
    owner.run(&format!("SELECT watershed.attach_table('{full}', event_time => 'ts')"));
    let insert = |from: i32, to: i32| {
        format!(
            "INSERT INTO {name} (ts, a, t) SELECT timestamptz '2024-03-10 00:00:00+00' + g * interval '7 hours', g, 'text ' || g % 7 FROM generate_series({from}, {to}) g"
        )
    };
    owner.run(&insert(0, 89));
    instance().run(&["archive", "--now", &full]);
    owner.run(&insert(90, 99));
    known(name);
}

/// Waits until the gateway has noticed the table: it looks at the catalog every few seconds, and until then answers from
/// PostgreSQL.
fn known(name: &str) {
    let mut owner = owner();
    let sql = format!("SELECT count(*) FROM {name}");
    wait_for(&format!("the gateway to know {name}"), || {
        owner.run(&sql);
        (instance().route(&owner, &sql).0 == "lake").then_some(())
    });
}

#[track_caller]
fn assert_route(client: &Client, sql: &str, expected: &str) {
    let (route, reasons) = instance().route(client, sql);
    assert_eq!(route, expected, "{sql}: {reasons}");
}

#[track_caller]
fn assert_same(what: &str, expected: &Reply, actual: &Reply) {
    if let Some(difference) = difference(expected, actual, true) {
        panic!("{what}: {difference}\n  directly:\n{expected:?}  through the gateway:\n{actual:?}");
    }
}

/// Runs statements one by one in a session on each side and compares each answer.
#[track_caller]
fn same_script(direct: &mut Client, gateway: &mut Client, script: &[&str]) {
    for sql in script {
        let (expected, actual) = (direct.query(sql), gateway.query(sql));
        assert_same(sql, &expected, &actual);
    }
}

/// Sends the same frames on each side and compares what comes back until `syncs` times ReadyForQuery.
#[track_caller]
fn same_frames(
    direct: &mut Client,
    gateway: &mut Client,
    what: &str,
    frames: &[Vec<u8>],
    syncs: usize,
) -> Reply {
    let bytes: Vec<u8> = frames.concat();
    let ask = |client: &mut Client| {
        client.send(&bytes);
        let mut all = Reply { frames: Vec::new() };
        for _ in 0..syncs {
            all.frames.extend(client.reply().frames);
        }
        all
    };
    let (expected, actual) = (ask(direct), ask(gateway));
    assert_same(what, &expected, &actual);
    actual
}

/// Parse, Bind, Describe, Execute of the unnamed statement, without Sync.
fn extended(sql: &str) -> Vec<u8> {
    let mut bytes = frontend::parse("", sql, &[]);
    bytes.extend(frontend::bind("", "", Format::Text, &[], Format::Text));
    bytes.extend(frontend::describe(b'P', ""));
    bytes.extend(frontend::execute("", 0));
    bytes
}

fn bind_execute(portal: &str, statement: &str) -> Vec<u8> {
    let mut bytes = frontend::bind(portal, statement, Format::Text, &[], Format::Text);
    bytes.extend(frontend::execute(portal, 0));
    bytes
}

/// The analyzed tree that PostgreSQL prints for a statement.
fn printed_tree(sql: &str) -> String {
    let mut client = direct();
    client.run("SET client_min_messages = log; SET debug_print_rewritten = on; SET debug_pretty_print = off");
    let mut bytes = frontend::parse("", sql, &[]);
    bytes.extend(frontend::sync());
    client.send(&bytes);
    let notices = client.reply().ok().notices();
    let tree = notices.iter().find(|fields| fields[&'M'] == "rewritten parse tree:").expect("a printed tree");
    tree[&'D'].clone()
}
