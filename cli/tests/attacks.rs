//! What clients may do to the gateway, by accident or on purpose, and what must hold all the same: the answer, the rights, the
//! session's settings and its transaction are those of PostgreSQL. Each rule that an attack taught has its test here.
//!
//! Most tests run one script on PostgreSQL directly and through the gateway and compare every frame.

mod support;

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

// ---- Trees that are not the statement's own -------------------------------------------------------------------------------

/// A domain's CHECK runs while the statement is analyzed, and says whatever it likes in the log.
#[test]
fn a_forged_tree_from_a_domain_check_is_not_believed() {
    table("forged");
    let tree = printed_tree("SELECT count(*) FROM forged WHERE a = ANY ('{1}'::int4[])");
    let mut owner = owner();
    owner.run("CREATE TABLE forged_trees (tree text)");
    owner.run(&format!("INSERT INTO forged_trees VALUES ($tree${tree}$tree$)"));
    owner.run(
        "CREATE FUNCTION forge(int4) RETURNS bool LANGUAGE plpgsql AS $$
         BEGIN RAISE LOG 'rewritten parse tree:' USING DETAIL = (SELECT tree FROM forged_trees); RETURN true; END $$",
    );
    owner.run("CREATE DOMAIN forging AS int4 CHECK (forge(VALUE))");
    // The same, but as a notice, which the client must see exactly as often as PostgreSQL raises it.
    owner.run(
        "CREATE FUNCTION announce(int4) RETURNS bool LANGUAGE plpgsql AS $$
         BEGIN RAISE NOTICE 'rewritten parse tree:' USING DETAIL = (SELECT tree FROM forged_trees); RETURN true; END $$",
    );
    owner.run("CREATE DOMAIN announcing AS int4 CHECK (announce(VALUE))");
    let (mut direct, mut gateway) = (direct(), self::owner());
    for domain in ["forging", "announcing"] {
        for sql in [
            format!("SELECT count(*) FROM forged WHERE a = ANY ('{{1,2,3}}'::{domain}[]::int4[])"),
            format!("SELECT count(*) FROM forged WHERE a <> ALL ('{{1,2,3}}'::{domain}[]::int4[])"),
            format!("SELECT count(*), '{{7}}'::{domain}[] FROM forged"),
        ] {
            same_script(&mut direct, &mut gateway, &[&sql, &format!("/* again */ {sql}")]);
            assert_route(&gateway, &sql, "postgres");
            let mut bytes = extended(&sql);
            bytes.extend(frontend::sync());
            same_frames(&mut direct, &mut gateway, &sql, &[bytes], 1);
        }
    }
    // The session is as before: a clean statement still goes to the lake.
    same_script(&mut direct, &mut gateway, &["SELECT count(*) FROM forged", "SHOW client_min_messages"]);
    assert_route(&gateway, "SELECT count(*) FROM forged", "lake");
}

/// PostgreSQL prints the bodies of SQL functions that it inlines in the same form as the statement's own tree.
#[test]
fn trees_of_inlined_functions_are_not_believed() {
    table("inlined");
    owner().run("CREATE FUNCTION inl_large(int4) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1 > 50'");
    owner().run("CREATE FUNCTION inl_count() RETURNS int8 LANGUAGE sql STABLE AS 'SELECT count(*) FROM inlined WHERE a < 20'");
    owner().run(
        "CREATE FUNCTION inl_rows(int4) RETURNS TABLE (a int4) LANGUAGE sql STABLE AS 'SELECT a FROM inlined WHERE a < $1'",
    );
    let (mut direct, mut gateway) = (direct(), owner());
    for sql in [
        "SELECT count(*) FROM inlined WHERE inl_large(a)",
        "SELECT inl_large(a), count(*) FROM inlined GROUP BY 1 ORDER BY 1",
        "SELECT inl_count()",
        "SELECT inl_count(), count(*) FROM inlined",
        "SELECT count(*) FROM inl_rows(30)",
        "SELECT count(*), inl_large(60) FROM inlined",
    ] {
        same_script(&mut direct, &mut gateway, &[sql]);
        let frames = [
            frontend::parse("st", sql, &[]),
            bind_execute("", "st"),
            bind_execute("", "st"),
            frontend::sync(),
        ];
        same_frames(&mut direct, &mut gateway, sql, &frames, 1);
        let frames = [frontend::close(b'S', "st"), frontend::sync()];
        same_frames(&mut direct, &mut gateway, sql, &frames, 1);
        assert_route(&gateway, sql, "postgres");
    }
}

#[test]
fn a_search_path_changed_between_parse_and_bind_is_followed() {
    let mut maker = owner();
    maker.run("CREATE SCHEMA path_one; CREATE SCHEMA path_two; CREATE SCHEMA path_plain");
    table("path_one.paths");
    table("path_two.paths");
    maker.run(
        "INSERT INTO path_two.paths (ts, a, t) SELECT now(), 1000 + g, 'more' FROM generate_series(1, 11) g",
    );
    maker.run("CREATE TABLE path_plain.paths (ts timestamptz, a int4, t text); INSERT INTO path_plain.paths VALUES (now(), 1, 'x')");
    let sql = "SELECT count(*), max(a) FROM paths";
    let (mut direct, mut gateway) = (direct(), owner());
    same_script(&mut direct, &mut gateway, &["SET search_path = path_one"]);
    let frames = [frontend::parse("st", sql, &[]), frontend::describe(b'S', "st"), frontend::sync()];
    same_frames(&mut direct, &mut gateway, "Parse", &frames, 1);
    for schema in ["path_two", "path_plain", "path_one", "path_plain, path_two", "path_two, path_one"] {
        // In a message of its own, then within the very pipeline that binds.
        same_script(&mut direct, &mut gateway, &[&format!("SET search_path = {schema}")]);
        let reply =
            same_frames(&mut direct, &mut gateway, schema, &[bind_execute("", "st"), frontend::sync()], 1);
        let other = if schema.starts_with("path_two") { "path_one" } else { "path_two" };
        let frames = [
            extended(&format!("SET search_path = {other}")),
            bind_execute("", "st"),
            extended(&format!("SET search_path = {schema}")),
            bind_execute("", "st"),
            frontend::sync(),
        ];
        same_frames(&mut direct, &mut gateway, schema, &frames, 1);
        assert!(reply.error().is_none(), "{reply:?}");
    }
    // A function of the same name, earlier on the path, is another function.
    maker.run("CREATE FUNCTION path_plain.date_trunc(text, timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS 'SELECT timestamptz ''2000-01-01 00:00:00+00'''");
    maker.run("CREATE FUNCTION path_plain.is_more(int4, int4) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT false'");
    maker
        .run("CREATE OPERATOR path_plain.> (LEFTARG = int4, RIGHTARG = int4, FUNCTION = path_plain.is_more)");
    same_script(
        &mut direct,
        &mut gateway,
        &[
            "SET search_path = path_plain, pg_catalog, path_one",
            "SELECT date_trunc('day', ts), count(*) FROM path_one.paths GROUP BY 1 ORDER BY 1",
            "SELECT count(*) FROM path_one.paths WHERE a > 50",
            "SET search_path = pg_catalog, path_one",
            "SELECT count(*) FROM paths WHERE a > 50",
        ],
    );
    assert_route(&gateway, "SELECT count(*) FROM path_one.paths WHERE a > 50", "postgres");
    assert_route(&gateway, "SELECT count(*) FROM paths WHERE a > 50", "lake");
}

#[test]
fn a_tree_that_ddl_made_stale_is_not_used() {
    table("stale");
    let mut other = self::direct();
    other.run("CREATE VIEW stale_view AS SELECT a, t FROM stale WHERE a < 50");
    let (mut direct, mut gateway) = (direct(), owner());
    let statements = [
        "SELECT count(*) FROM stale_view",
        "SELECT t, count(*) FROM stale GROUP BY t ORDER BY t",
        "SELECT * FROM stale",
    ];
    for (at, sql) in statements.iter().enumerate() {
        let name = format!("st{at}");
        let frames = [frontend::parse(&name, sql, &[]), frontend::describe(b'S', &name), frontend::sync()];
        same_frames(&mut direct, &mut gateway, sql, &frames, 1);
    }
    let mut execute_all = |change: &str| {
        for (at, sql) in statements.iter().enumerate() {
            let what = format!("{sql}, after {change}");
            let bytes = [bind_execute("", &format!("st{at}")), frontend::sync()];
            let sent: Vec<u8> = bytes.concat();
            let ask = |client: &mut Client| {
                client.send(&sent);
                client.reply()
            };
            let (expected, actual) = (ask(&mut direct), ask(&mut gateway));
            let ordered = at != 2;
            if let Some(difference) = difference(&expected, &actual, ordered) {
                panic!("{what}: {difference}\n{expected:?}\n{actual:?}");
            }
        }
    };
    execute_all("nothing");
    other.run("CREATE OR REPLACE VIEW stale_view AS SELECT a, t FROM stale WHERE a < 10");
    execute_all("another view of the same name");
    other.run("ALTER TABLE stale ADD COLUMN extra text");
    execute_all("a new column");
    other.run("INSERT INTO stale (ts, a, t, extra) VALUES (now(), 5, 'new', 'x')");
    execute_all("a row with the new column");
    other.run("ALTER TABLE stale RENAME COLUMN extra TO renamed");
    execute_all("a renamed column");
    instance().run(&["archive", "--now", "public.stale"]);
    execute_all("the new column in the lake");
    other.run(
        "DROP VIEW stale_view; CREATE VIEW stale_view AS SELECT a, t FROM stale WHERE a < 10 AND t <> 'new'",
    );
    execute_all("a new view of the same name");
    other.run("DROP VIEW stale_view; CREATE TABLE stale_view (a int4, t text)");
    execute_all("a table in the view's place");
    other.run("DROP TABLE stale_view");
    execute_all("nothing in its place");
    let mut fresh = owner();
    same_script(
        &mut self::direct(),
        &mut fresh,
        &["SELECT renamed, count(*) FROM stale GROUP BY renamed ORDER BY renamed"],
    );
    assert_route(&fresh, "SELECT renamed, count(*) FROM stale GROUP BY renamed ORDER BY renamed", "lake");
}

#[test]
fn a_temporary_table_shadows_the_tiered_one() {
    table("shadowed");
    let (mut direct, mut gateway) = (direct(), owner());
    let sql = "SELECT count(*) FROM shadowed";
    let frames = [frontend::parse("st", sql, &[]), bind_execute("", "st"), frontend::sync()];
    same_frames(&mut direct, &mut gateway, sql, &frames, 1);
    assert_route(&gateway, sql, "lake");
    same_script(
        &mut direct,
        &mut gateway,
        &[
            "CREATE TEMP TABLE shadowed (ts timestamptz, a int4, t text)",
            "INSERT INTO shadowed VALUES (now(), 1, 'only')",
            sql,
        ],
    );
    assert_route(&gateway, sql, "postgres");
    same_frames(&mut direct, &mut gateway, sql, &[bind_execute("", "st"), frontend::sync()], 1);
    same_script(
        &mut direct,
        &mut gateway,
        &["SELECT count(*) FROM public.shadowed", "DROP TABLE pg_temp.shadowed", sql],
    );
    assert_route(&gateway, sql, "lake");
    same_frames(&mut direct, &mut gateway, sql, &[bind_execute("", "st"), frontend::sync()], 1);
}

// ---- Names that the gateway uses itself -----------------------------------------------------------------------------------

#[test]
fn reserved_names_in_a_clients_hands_change_no_answer() {
    table("reserved");
    let mut gateway = owner();
    let count = |gateway: &mut Client| assert_eq!(gateway.value("SELECT count(*) FROM reserved"), "100");
    let names = ["_watershed_helper", "_watershed_query", "_watershed_explained"];
    for name in names {
        let frames = [
            frontend::parse(name, "SELECT 'from the client'", &[]),
            frontend::bind(name, name, Format::Text, &[], Format::Text),
            frontend::sync(),
        ];
        gateway.send(&frames.concat());
        gateway.reply();
        count(&mut gateway);
        gateway.send(&[bind_execute("", name), frontend::sync()].concat());
        let reply = gateway.reply();
        assert!(reply.error().is_some(), "{name} is the gateway's own: {reply:?}");
        // Closed, deallocated, prepared in SQL, declared as a cursor: the next probe works all the same.
        let frames = [frontend::close(b'S', name), frontend::close(b'P', name), frontend::sync()];
        gateway.send(&frames.concat());
        gateway.reply();
        count(&mut gateway);
        gateway.query(&format!("DEALLOCATE {name}"));
        count(&mut gateway);
        gateway.query(&format!("PREPARE {name} AS SELECT 1"));
        count(&mut gateway);
        gateway.run("BEGIN");
        gateway.query(&format!("DECLARE {name} CURSOR FOR SELECT generate_series(1, 3)"));
        count(&mut gateway);
        gateway.query(&format!("CLOSE {name}"));
        gateway.query("ROLLBACK");
        count(&mut gateway);
    }
    for sql in ["DEALLOCATE ALL", "DISCARD ALL", "DISCARD PLANS", "RESET ALL", "CLOSE ALL"] {
        gateway.run(sql);
        count(&mut gateway);
        assert_route(&gateway, "SELECT count(*) FROM reserved", "lake");
    }
    // What the gateway keeps on the server can be overwritten by clients without harm to their own session.
    gateway.run("SELECT set_config('watershed.p_client', 'nonsense', false), set_config('watershed.p_print', 'nonsense', false)");
    count(&mut gateway);
    assert_eq!(gateway.value("SHOW client_min_messages"), "notice");
}

#[test]
fn only_the_gateway_can_hide_statements_from_the_log() {
    table("audited");
    let mut gateway = owner();
    gateway.run("SELECT count(*) FROM audited");
    assert_route(&gateway, "SELECT count(*) FROM audited", "lake");
    // (Other tests have trees printed directly on PostgreSQL.)
    let relid = gateway.value("SELECT 'audited'::regclass::oid");
    let log = std::fs::read_to_string(instance().dir().join("pg.log")).expect("the server log");
    assert!(!log.contains(&format!(":relid {relid} ")), "trees are in the server log");
    assert_eq!(gateway.value("SELECT watershed_control.hush('guess', 'fatal')"), "f");
    assert_eq!(gateway.value("SELECT watershed_control.hush(NULL, 'fatal') IS TRUE"), "f");
    assert_eq!(gateway.value("SHOW log_min_messages"), "warning");
    let reply = gateway.query("SELECT watershed_control.set_probe_secret(repeat('x', 40))");
    assert_eq!(reply.sqlstate(), "42501", "{reply:?}");
    assert_eq!(gateway.query("SET log_min_messages = fatal").sqlstate(), "42501");
    // The secret travels as a parameter: the statements that a client can see do not hold it.
    let secret = instance().secret("WATERSHED_PROBE_SECRET");
    let seen = gateway
        .run("SELECT statement FROM pg_prepared_statements UNION ALL SELECT query FROM pg_stat_activity");
    assert!(seen.column().iter().all(|text| !text.contains(&secret)), "{seen:?}");
}

// ---- Notices and settings -------------------------------------------------------------------------------------------------

#[test]
fn notices_come_at_the_clients_own_level() {
    table("noisy");
    owner().run(
        "CREATE FUNCTION noise(int4) RETURNS bool LANGUAGE plpgsql VOLATILE AS $$ BEGIN
           RAISE DEBUG 'noise debug %', $1; RAISE LOG 'noise log %', $1; RAISE INFO 'noise info %', $1;
           RAISE NOTICE 'noise notice %', $1; RAISE WARNING 'noise warning %', $1; RETURN true; END $$",
    );
    owner().run("CREATE DOMAIN noisy_value AS int4 CHECK (noise(VALUE))");
    let statements = [
        "SELECT count(*) FROM noisy WHERE a < 3 AND noise(a)",
        "SELECT count(*) FROM noisy WHERE a = ANY ('{1,2}'::noisy_value[]::int4[])",
        "SELECT count(*) FROM noisy",
        "SELECT noise(1)",
        "SELECT count(*) FROM noisy WHERE no_such_column",
    ];
    for level in ["debug5", "debug1", "log", "notice", "warning", "error"] {
        let (mut direct, mut gateway) = (direct(), owner());
        same_script(&mut direct, &mut gateway, &[&format!("SET client_min_messages = {level}")]);
        // PostgreSQL's own debugging chatter is not the same twice.
        let own = |reply: Reply| Reply {
            frames: reply
                .frames
                .into_iter()
                .filter(|frame| frame.tag != b'N' || frame.fields()[&'M'].starts_with("noise"))
                .collect(),
        };
        for sql in statements {
            let (expected, actual) = (own(direct.query(sql)), own(gateway.query(sql)));
            assert_same(&format!("{sql} at {level}"), &expected, &actual);
            let bytes = [extended(sql), frontend::sync()].concat();
            direct.send(&bytes);
            gateway.send(&bytes);
            let (expected, actual) = (own(direct.reply()), own(gateway.reply()));
            assert_same(&format!("{sql} at {level}, extended"), &expected, &actual);
        }
        let (expected, actual) =
            (direct.value("SHOW client_min_messages"), gateway.value("SHOW client_min_messages"));
        assert_eq!(expected, actual);
    }
}

#[test]
fn a_probe_leaves_no_setting_changed() {
    table("settled");
    let show = "SELECT current_setting('client_min_messages'), current_setting('log_min_messages'), current_setting('debug_print_rewritten'), current_setting('debug_pretty_print'), current_setting('debug_print_parse'), current_setting('TimeZone'), current_setting('search_path'), current_setting('statement_timeout'), current_setting('transaction_isolation'), current_user, session_user";
    let lake = "SELECT count(*) FROM settled";
    let unproven = "SELECT jsonb_agg(a) FROM settled";
    let broken = "SELECT count(*) FROM settled WHERE no_such_column = 1";
    let fails_late = "SELECT count(*) FROM settled WHERE a / (a - a) = 1";
    let script = [
        show,
        lake,
        show,
        unproven,
        show,
        broken,
        show,
        fails_late,
        show,
        "SET client_min_messages = warning",
        show,
        lake,
        show,
        "BEGIN",
        show,
        lake,
        show,
        "SET LOCAL client_min_messages = error",
        lake,
        show,
        broken,
        show,
        "ROLLBACK",
        show,
        "BEGIN",
        "SAVEPOINT one",
        lake,
        broken,
        "ROLLBACK TO one",
        show,
        lake,
        show,
        "SET LOCAL debug_pretty_print = off",
        lake,
        show,
        "COMMIT",
        show,
        "BEGIN",
        fails_late,
        show,
        "COMMIT",
        show,
        lake,
        show,
        "BEGIN",
        unproven,
        show,
        "SAVEPOINT two",
        fails_late,
        "ROLLBACK TO two",
        show,
        lake,
        show,
        "RELEASE two",
        show,
        "COMMIT",
        show,
        "SET debug_print_rewritten = off",
        "RESET client_min_messages",
        lake,
        show,
        "BEGIN",
        "SET client_min_messages = warning",
        lake,
        "ROLLBACK",
        show,
        "BEGIN",
        "SET client_min_messages = warning",
        lake,
        "COMMIT",
        show,
        "RESET ALL",
        show,
    ];
    same_script(&mut direct(), &mut owner(), &script);

    // A superuser may change what the gateway has to lower and restore itself.
    let (mut direct, mut gateway) = (admin(), Client::connect(&instance().admin_through_gateway()));
    let log_level = "SHOW log_min_messages";
    same_script(
        &mut direct,
        &mut gateway,
        &[
            lake,
            log_level,
            "SET log_min_messages = error",
            lake,
            log_level,
            "BEGIN",
            log_level,
            lake,
            log_level,
            "SET LOCAL log_min_messages = notice",
            lake,
            log_level,
            "COMMIT",
            log_level,
            lake,
            log_level,
            "RESET log_min_messages",
            log_level,
        ],
    );
}

#[test]
fn odd_output_settings_are_obeyed() {
    table("styled");
    let sql = "SELECT date_trunc('day', ts), count(*), avg(a) FROM styled GROUP BY 1 ORDER BY 1 LIMIT 5";
    let (mut direct, mut gateway) = (direct(), owner());
    for setting in [
        "SET DateStyle = 'SQL, DMY'",
        "SET DateStyle = 'German'",
        "SET DateStyle = 'Postgres'",
        "RESET DateStyle",
        "SET client_encoding = 'LATIN1'",
        "SET client_encoding = 'UTF8'",
        "SET TimeZone = 'Australia/Lord_Howe'",
        "SET TimeZone = '+03:30'",
        "SET TimeZone = 'posix/America/Havana'",
        "SET TimeZone = 'EST5EDT'",
        "SET TimeZone = '<WAT>-7'",
        "SET IntervalStyle = 'iso_8601'",
        "SET transform_null_equals = on",
        "SET row_security = off",
        "SET default_transaction_isolation = 'serializable'",
        "SET default_transaction_read_only = on",
        "SET standard_conforming_strings = off",
        "SET enable_partition_pruning = off",
        "SET plan_cache_mode = force_generic_plan",
        "SET quote_all_identifiers = on",
        "SET array_nulls = off",
        "SET backslash_quote = on",
        "SET extra_float_digits = -3",
    ] {
        same_script(&mut direct, &mut gateway, &[setting, sql, "SELECT count(*) FROM styled WHERE t = NULL"]);
        let frames = [extended(sql), frontend::sync()];
        same_frames(&mut direct, &mut gateway, setting, &frames, 1);
    }
}

// ---- Transactions ---------------------------------------------------------------------------------------------------------

#[test]
fn pipelines_that_hold_begin_are_one_transaction() {
    table("piped");
    let (mut direct, mut gateway) = (direct(), owner());
    let count = "SELECT count(*) FROM piped";
    let insert = "INSERT INTO piped (ts, a, t) VALUES (now(), 500, 'piped')";
    let pipelines: [(&str, Vec<Vec<u8>>); 9] = [
        (
            "begin, count, commit",
            vec![extended("BEGIN"), extended(count), extended("COMMIT"), frontend::sync()],
        ),
        ("begin, count", vec![extended("BEGIN"), extended(count), frontend::sync()]),
        ("still in it", vec![extended(count), extended("ROLLBACK"), frontend::sync()]),
        (
            "begin, insert, count, rollback",
            vec![
                extended("BEGIN"),
                extended(insert),
                extended(count),
                extended("ROLLBACK"),
                frontend::sync(),
            ],
        ),
        (
            "begin, count, insert, count, rollback, count",
            vec![
                extended("BEGIN"),
                extended(count),
                extended(insert),
                extended(count),
                extended("ROLLBACK"),
                extended(count),
                frontend::sync(),
            ],
        ),
        (
            "an error in the middle",
            vec![
                extended("BEGIN"),
                extended(count),
                extended("SELECT 1 / 0"),
                extended(count),
                frontend::sync(),
            ],
        ),
        ("an aborted transaction", vec![extended(count), frontend::sync()]),
        ("its end", vec![extended("ROLLBACK"), frontend::sync()]),
        (
            "implicit, undone by an error",
            vec![extended(insert), extended(count), extended("SELECT 1 / 0"), frontend::sync()],
        ),
    ];
    for (what, frames) in &pipelines {
        same_frames(&mut direct, &mut gateway, what, frames, 1);
    }
    assert_route(&gateway, count, "lake");
    // Several Syncs on the way at once, and simple queries behind extended ones.
    let frames = [
        extended(count),
        frontend::sync(),
        extended("BEGIN"),
        frontend::sync(),
        extended(count),
        frontend::sync(),
        frontend::query(count),
        frontend::query("ROLLBACK"),
        extended(count),
        frontend::sync(),
    ];
    same_frames(&mut direct, &mut gateway, "many at once", &frames, 6);
    // Flush instead of Sync: the answer comes although the transaction stays open.
    let bytes = [extended(count), frontend::flush()].concat();
    for client in [&mut direct, &mut gateway] {
        client.send(&bytes);
        let reply = client.until(b"CE");
        assert_eq!(reply.rows(), [[Some("100".to_owned())]], "{reply:?}");
        client.send(&frontend::sync());
        client.reply();
    }
    same_script(
        &mut direct,
        &mut gateway,
        &[
            "SELECT count(*) FROM piped; SELECT count(*) FROM piped",
            "BEGIN; SELECT count(*) FROM piped; COMMIT",
            "SELECT count(*) FROM piped; SELECT 1 / 0; SELECT count(*) FROM piped",
        ],
    );
}

#[test]
fn a_transaction_sees_its_own_rows() {
    table("owned");
    let script = [
        "BEGIN",
        "SELECT count(*), sum(a) FROM owned",
        "INSERT INTO owned (ts, a, t) SELECT now(), 1000 + g, 'own' FROM generate_series(1, 25) g",
        "SELECT count(*), sum(a) FROM owned",
        "SAVEPOINT one",
        "INSERT INTO owned (ts, a, t) VALUES ('1999-01-01', 1, 'own'), ('2050-01-01', 2, 'own')",
        "SELECT t, count(*), sum(a) FROM owned GROUP BY t ORDER BY t",
        "ROLLBACK TO one",
        "SELECT t, count(*), sum(a) FROM owned GROUP BY t ORDER BY t",
        "INSERT INTO owned (ts, a, t) VALUES (now(), 7, 'after')",
        "SELECT count(*), min(t), max(a) FROM owned",
        "SELECT count(*) FROM owned WHERE no_such_column",
        "SELECT count(*) FROM owned",
        "SAVEPOINT late",
        "ROLLBACK TO one",
        "SELECT count(*), sum(a) FROM owned",
        "SELECT count(*) FROM owned WHERE 1 / (a - a) > 0",
        "SELECT count(*) FROM owned",
        "COMMIT",
        "SELECT count(*), sum(a) FROM owned",
    ];
    let mut gateway = owner();
    same_script(&mut direct(), &mut gateway, &script);
    assert_route(&gateway, "SELECT t, count(*), sum(a) FROM owned GROUP BY t ORDER BY t", "lake");
    // COPY into it, then read it, in one transaction.
    let mut counts = Vec::new();
    for mut client in [direct(), owner()] {
        client.run("BEGIN");
        client.send(&frontend::query("COPY owned (ts, a, t) FROM STDIN"));
        assert_eq!(client.until(b"GE").shape(), "G");
        client.send(
            &[
                frontend::copy_data(
                    b"2024-05-05 00:00:00+00\t3\tcopied\n2001-05-05 00:00:00+00\t4\tcopied\n",
                ),
                frontend::copy_done(),
            ]
            .concat(),
        );
        assert_eq!(client.reply().ok().tags(), ["COPY 2"]);
        counts.push(client.value("SELECT count(*) FROM owned"));
        client.run("ROLLBACK");
    }
    assert_eq!(counts, ["102", "102"]);
}

#[test]
fn a_fixed_snapshot_stays_fixed() {
    table("fixed");
    let (mut gateway, mut writer) = (owner(), direct());
    let sql = "SELECT count(*), sum(a) FROM fixed";
    let count = |client: &mut Client| client.run(sql).rows();
    for level in ["REPEATABLE READ", "SERIALIZABLE", "REPEATABLE READ, READ ONLY"] {
        gateway.run(&format!("BEGIN ISOLATION LEVEL {level}"));
        let before = count(&mut gateway);
        writer.run("INSERT INTO fixed (ts, a, t) SELECT now() - g * interval '1 day', g, 'later' FROM generate_series(1, 5) g");
        assert_eq!(count(&mut gateway), before, "{level}");
        instance().run(&["archive", "--now", "public.fixed"]);
        assert_eq!(count(&mut gateway), before, "{level}, after the archiver");
        instance().run(&["compact", "public.fixed"]);
        assert_eq!(count(&mut gateway), before, "{level}, after the compactor");
        gateway.run("COMMIT");
        let after = count(&mut gateway);
        assert_eq!(after, count(&mut writer), "{level}, afterwards");
        assert_ne!(after, before);
    }
    // A version that fits the snapshot serves it: nothing was archived since.
    gateway.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    count(&mut gateway);
    gateway.run("COMMIT");
    assert_route(&gateway, sql, "lake");
    gateway.run("BEGIN ISOLATION LEVEL SERIALIZABLE");
    count(&mut gateway);
    gateway.run("COMMIT");
    assert_route(&gateway, sql, "postgres");
}

#[test]
fn an_aborted_transaction_refuses_everything() {
    table("aborted");
    let (mut direct, mut gateway) = (direct(), owner());
    let count = "SELECT count(*) FROM aborted";
    same_script(
        &mut direct,
        &mut gateway,
        &[
            "BEGIN",
            "SELECT 1 / 0",
            count,
            "EXPLAIN SELECT count(*) FROM aborted",
            "SELECT route FROM watershed.queries",
        ],
    );
    same_frames(&mut direct, &mut gateway, "extended", &[extended(count), frontend::sync()], 1);
    let reply = gateway.query(count);
    assert_eq!((reply.sqlstate().as_str(), reply.status()), ("25P02", 'E'), "{reply:?}");
    same_script(&mut direct, &mut gateway, &["ROLLBACK", count]);
}

// ---- Rights ---------------------------------------------------------------------------------------------------------------

#[test]
fn rights_are_those_of_postgresql() {
    table("guarded");
    let mut owner = self::direct();
    owner.run("CREATE VIEW guarded_view AS SELECT a, t FROM guarded WHERE a < 50");
    owner.run(
        "CREATE VIEW guarded_invoker WITH (security_invoker = true) AS SELECT a, t FROM guarded WHERE a < 50",
    );
    owner.run(
        "CREATE VIEW guarded_barrier WITH (security_barrier = true) AS SELECT a, t FROM guarded WHERE a < 50",
    );
    owner.run("CREATE FUNCTION guarded_double(int4) RETURNS int4 LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2'; REVOKE EXECUTE ON FUNCTION guarded_double FROM PUBLIC");
    owner.run("CREATE FUNCTION guarded_definer() RETURNS int8 LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM public.guarded'");
    let roles =
        ["guard_none", "guard_table", "guard_columns", "guard_without_xid", "guard_view", "guard_all_views"];
    let logins: Vec<_> = roles.iter().map(|name| role(name)).collect();
    owner.run("GRANT SELECT ON guarded TO guard_table");
    owner.run("GRANT SELECT (a) ON guarded TO guard_columns");
    owner.run("GRANT SELECT (ts, a, t) ON guarded TO guard_without_xid");
    owner.run("GRANT SELECT ON guarded_view TO guard_view");
    owner.run("GRANT SELECT ON guarded_view, guarded_invoker, guarded_barrier TO guard_all_views");
    owner.run("GRANT SELECT ON guarded_view, guarded_invoker TO guard_table; GRANT SELECT (ts, a, t) ON guarded TO guard_all_views");
    let statements = [
        "SELECT count(*) FROM guarded",
        "SELECT count(a), sum(a) FROM guarded",
        "SELECT t, count(*) FROM guarded GROUP BY t ORDER BY t",
        "SELECT count(*) FROM guarded WHERE t = 'text 1'",
        "SELECT max(_xid::text) IS NULL FROM guarded",
        "SELECT count(*) FROM guarded_view",
        "SELECT t, count(*) FROM guarded_view GROUP BY t ORDER BY t",
        "SELECT count(*) FROM guarded_invoker",
        "SELECT count(*) FROM guarded_barrier WHERE a < 5",
        "SELECT guarded_double(a), count(*) FROM guarded GROUP BY 1 ORDER BY 1 LIMIT 3",
        "SELECT count(*) FROM guarded WHERE guarded_double(a) > 5",
        "SELECT guarded_definer()",
        "SELECT count(*) FROM watershed_parts.no_such_partition",
        "SELECT count(*) FROM watershed_control.archives",
    ];
    for (name, (through_gateway, directly)) in roles.iter().zip(&logins) {
        let (mut direct, mut gateway) = (Client::connect(directly), Client::connect(through_gateway));
        for sql in statements {
            let (expected, actual) = (direct.query(sql), gateway.query(sql));
            assert_same(&format!("{sql} as {name}"), &expected, &actual);
            let bytes = [extended(sql), frontend::sync()].concat();
            direct.send(&bytes);
            gateway.send(&bytes);
            assert_same(&format!("{sql} as {name}, extended"), &direct.reply(), &gateway.reply());
            if sql == statements[0] || sql == statements[1] {
                let expected = if *name == "guard_table" { "lake" } else { "postgres" };
                assert_route(&gateway, sql, expected);
            }
            // Forced to the lake nobody reads more than PostgreSQL shows him.
            gateway.run("SET watershed.route = 'lake'");
            let forced = gateway.query(sql);
            gateway.run("RESET watershed.route");
            if expected.error().is_some() {
                assert!(forced.error().is_some(), "{sql} as {name}, lake forced: {forced:?}");
            } else if forced.error().is_none() {
                assert_same(&format!("{sql} as {name}, lake forced"), &expected, &forced);
            }
        }
    }
    let analyst = instance().secret("WATERSHED_ANALYST_PASSWORD");
    let mut analyst = Client::connect(&instance().gateway().login("watershed_analyst", &analyst));
    analyst.run("SELECT count(*) FROM logs");
    assert_route(&analyst, "SELECT count(*) FROM logs", "lake");
    assert_eq!(analyst.query("INSERT INTO logs (ts) VALUES (now())").sqlstate(), "42501");

    // SET ROLE, SESSION AUTHORIZATION and REVOKE take effect at once, also for what is already prepared.
    let (mut direct, mut gateway) =
        (Client::connect(&instance().admin()), Client::connect(&instance().admin_through_gateway()));
    let count = "SELECT count(*) FROM guarded";
    let frames = [frontend::parse("st", count, &[]), bind_execute("", "st"), frontend::sync()];
    same_frames(&mut direct, &mut gateway, count, &frames, 1);
    for change in [
        "SET ROLE guard_none",
        "SET ROLE guard_table",
        "SET ROLE guard_columns",
        "RESET ROLE",
        "SET SESSION AUTHORIZATION guard_none",
        "RESET SESSION AUTHORIZATION",
    ] {
        same_script(&mut direct, &mut gateway, &[change, count]);
        same_frames(&mut direct, &mut gateway, change, &[bind_execute("", "st"), frontend::sync()], 1);
    }
    let (through_gateway, directly) = &logins[1];
    let (mut direct, mut gateway) = (Client::connect(directly), Client::connect(through_gateway));
    same_frames(&mut direct, &mut gateway, count, &frames, 1);
    owner.run("REVOKE SELECT ON guarded FROM guard_table");
    same_frames(&mut direct, &mut gateway, "after REVOKE", &[bind_execute("", "st"), frontend::sync()], 1);
    owner.run("GRANT SELECT ON guarded TO guard_table");
    same_frames(&mut direct, &mut gateway, "after GRANT", &[bind_execute("", "st"), frontend::sync()], 1);
    // In one pipeline that changes who one is.
    let mut superuser =
        (Client::connect(&instance().admin()), Client::connect(&instance().admin_through_gateway()));
    let frames = [
        extended("SET ROLE guard_none"),
        extended(count),
        frontend::sync(),
        extended("RESET ROLE"),
        frontend::sync(),
    ];
    same_frames(&mut superuser.0, &mut superuser.1, "SET ROLE in a pipeline", &frames, 2);
}

/// Row-level security is refused on tiered tables, or obeyed.
#[test]
fn row_level_security_is_never_passed_by() {
    table("rowed");
    let (through_gateway, directly) = role("rowed_reader");
    let mut owner = direct();
    owner.run("GRANT SELECT ON rowed TO rowed_reader");
    for sql in [
        "CREATE POLICY few ON rowed FOR SELECT USING (a < 5)",
        "ALTER TABLE rowed ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE rowed FORCE ROW LEVEL SECURITY",
    ] {
        owner.query(sql); // refused or not: below counts what is seen
    }
    let (mut direct, mut gateway) = (Client::connect(&directly), Client::connect(&through_gateway));
    same_script(
        &mut direct,
        &mut gateway,
        &["SELECT count(*) FROM rowed", "SET row_security = off", "SELECT count(*) FROM rowed"],
    );
    same_script(&mut owner, &mut self::owner(), &["SELECT count(*) FROM rowed"]);
}

// ---- Routes ---------------------------------------------------------------------------------------------------------------

#[test]
fn the_route_can_be_chosen_and_never_buys_a_wrong_answer() {
    table("routed");
    let count = "SELECT count(*) FROM routed";
    let unproven = "SELECT jsonb_agg(a) FROM routed";
    let mut gateway = owner();
    let mut expect = |setup: &str, sql: &str, route: &str| {
        gateway.run(setup);
        gateway.run(sql);
        assert_route(&gateway, sql, route);
    };
    expect("SHOW watershed.route", count, "lake");
    expect("SET watershed.route = 'postgres'", count, "postgres");
    expect("SET watershed.route TO lake", count, "lake");
    expect("SET SESSION \"watershed.route\" = 'postgres'", count, "postgres");
    expect("RESET watershed.route", count, "lake");
    expect("SELECT set_config('watershed.route', 'postgres', false)", count, "postgres");
    expect("SET watershed.route TO DEFAULT", count, "lake");
    expect("BEGIN; SET LOCAL watershed.route = 'postgres'", count, "postgres");
    expect("COMMIT", count, "lake");
    expect("BEGIN; SET watershed.route = 'postgres'", count, "postgres");
    expect("ROLLBACK", count, "lake");
    expect("SET watershed.route = 'auto'", count, "lake");
    expect("SELECT 1", "/* watershed: postgres */ SELECT count(*) FROM routed", "postgres");
    expect("SET watershed.route = 'postgres'", "/* watershed: lake */ SELECT count(*) FROM routed", "lake");
    expect("RESET ALL", count, "lake");
    expect("SET watershed.route = 'lake'", "SELECT a, ts FROM routed WHERE a = 17", "lake");
    expect("SET watershed.route = 'lake'", "SELECT a FROM routed ORDER BY ts DESC LIMIT 3", "lake");
    expect("SET watershed.route = 'lake'", "SELECT 1 AS untouched", "postgres");
    expect("RESET watershed.route", "SELECT a FROM routed ORDER BY ts DESC LIMIT 3", "postgres");

    // An unproven statement cannot be forced, and says why; outside and inside of a transaction.
    gateway.run("SET watershed.route = 'lake'");
    let reply = gateway.query(unproven);
    assert_eq!((reply.sqlstate().as_str(), reply.status()), ("0A000", 'I'), "{reply:?}");
    let fields = reply.error().expect("an error");
    let said = fields.values().cloned().collect::<Vec<_>>().join(" ");
    assert!(said.contains("jsonb_agg"), "the reason is missing: {fields:?}");
    gateway.run("BEGIN");
    assert_eq!(gateway.query(unproven).status(), 'E');
    assert_eq!(gateway.query(count).sqlstate(), "25P02");
    gateway.run("ROLLBACK");
    gateway.send(
        &[extended(unproven), extended(count), frontend::sync(), extended(count), frontend::sync()].concat(),
    );
    let reply = gateway.reply();
    assert_eq!(reply.sqlstate(), "0A000", "{reply:?}");
    assert!(reply.rows().is_empty(), "after an error the pipeline is skipped to Sync: {reply:?}");
    assert_eq!(gateway.reply().ok().rows(), [[Some("100".to_owned())]]);
    // Values that are no route are refused or ignored, but never break the session.
    gateway.run("RESET watershed.route");
    for value in ["sideways", "compare", ""] {
        gateway.query(&format!("SET watershed.route = '{value}'"));
        let reply = gateway.query(count);
        assert!(
            reply.sqlstate() == "22023" || reply.clone().ok().value() == "100",
            "with route {value:?}: {reply:?}"
        );
        gateway.run("RESET watershed.route");
    }
    assert_eq!(gateway.value(count), "100");

    // At login, for a role.
    let options = [("options", "-c watershed.route=postgres")];
    let client = Client::try_connect(&instance().gateway(), &options);
    let mut client = client.unwrap_or_else(|error| panic!("{error:?}"));
    client.run(count);
    assert_route(&client, count, "postgres");
}

#[test]
fn explain_and_prepare_in_sql_work() {
    table("explained");
    let (mut direct, mut gateway) = (direct(), owner());
    same_script(
        &mut direct,
        &mut gateway,
        &[
            "PREPARE pr (int4) AS SELECT count(*) FROM explained WHERE a < $1",
            "EXECUTE pr (50)",
            "EXECUTE pr (500)",
            "DEALLOCATE pr",
            "EXECUTE pr (50)",
            "BEGIN",
            "DECLARE cu CURSOR FOR SELECT a FROM explained ORDER BY a",
            "FETCH 3 FROM cu",
            "MOVE 10 IN cu",
            "FETCH 2 FROM cu",
            "COMMIT",
            "SELECT count(*) FROM explained \\;",
            "CREATE TEMP TABLE copied AS SELECT count(*) AS n FROM explained",
            "SELECT n + 0 FROM copied",
            "SELECT count(*) INTO TEMP copied_too FROM explained",
            "WITH moved AS (INSERT INTO copied VALUES (1) RETURNING n) SELECT count(*) FROM explained, moved",
        ],
    );
    for sql in [
        "EXPLAIN SELECT count(*) FROM explained",
        "EXPLAIN (ANALYZE, TIMING OFF) SELECT count(*) FROM explained",
        "EXPLAIN (FORMAT JSON) SELECT count(*) FROM explained",
        "EXPLAIN VERBOSE SELECT stddev(a) FROM explained",
    ] {
        let reply = gateway.run(sql);
        assert!(!reply.rows().is_empty(), "{sql}: {reply:?}");
        let mut bytes = extended(sql);
        bytes.extend(frontend::sync());
        gateway.send(&bytes);
        assert!(!gateway.reply().ok().rows().is_empty(), "{sql}");
    }
    same_script(
        &mut direct,
        &mut gateway,
        &["EXPLAIN SELECT no_such_column FROM explained", "EXPLAIN SELEC"],
    );
}

// ---- Prepared statements and portals --------------------------------------------------------------------------------------

#[test]
fn a_prepared_statement_sees_rows_added_between_its_executions() {
    table("repeated");
    let (mut gateway, mut writer) = (owner(), direct());
    let sql = "SELECT count(*), sum(a) FROM repeated WHERE a >= $1";
    gateway.send(&[frontend::parse("st", sql, &[]), frontend::sync()].concat());
    gateway.reply().ok();
    for round in 0..14 {
        let expected = writer.run("SELECT count(*), sum(a) FROM repeated WHERE a >= 10").rows();
        for (format, value) in
            [(Format::Text, b"10".to_vec()), (Format::Binary, 10i32.to_be_bytes().to_vec())]
        {
            let bytes = [
                frontend::bind("", "st", format, &[Some(value)], Format::Text),
                frontend::execute("", 0),
                frontend::sync(),
            ];
            gateway.send(&bytes.concat());
            let reply = gateway.reply().ok();
            assert_eq!(reply.rows(), expected, "execution {round}: {reply:?}");
        }
        writer.run(&format!(
            "INSERT INTO repeated (ts, a, t) VALUES (now() - interval '{round} days', {round}, 'new')"
        ));
        if round % 5 == 4 {
            instance().run(&["archive", "--now", "public.repeated"]);
        }
    }
    assert_route(&gateway, sql, "lake");
    gateway.run("DEALLOCATE st");
    gateway.send(&[bind_execute("", "st"), frontend::sync()].concat());
    assert_eq!(gateway.reply().sqlstate(), "26000");
}

#[test]
fn portals_live_and_die_as_in_postgresql() {
    table("portals");
    let sql = "SELECT a, count(*) FROM portals GROUP BY a ORDER BY a";
    let (mut direct, mut gateway) = (direct(), owner());
    let bind = |portal: &str| frontend::bind(portal, "st", Format::Text, &[], Format::Text);
    let cases: Vec<(&str, Vec<Vec<u8>>, usize)> = vec![
        (
            "prepare",
            vec![frontend::parse("st", sql, &[]), frontend::describe(b'S', "st"), frontend::sync()],
            1,
        ),
        ("a name taken", vec![frontend::parse("st", "SELECT 1", &[]), frontend::sync()], 1),
        (
            "in portions",
            vec![
                bind("p"),
                frontend::execute("p", 7),
                frontend::execute("p", 7),
                frontend::execute("p", 0),
                frontend::sync(),
            ],
            1,
        ),
        ("gone after Sync", vec![frontend::execute("p", 1), frontend::sync()], 1),
        (
            "two at once",
            vec![
                bind("p"),
                bind("q"),
                frontend::execute("p", 2),
                frontend::execute("q", 3),
                frontend::execute("p", 2),
                frontend::execute("q", 0),
                frontend::execute("p", 0),
                frontend::sync(),
            ],
            1,
        ),
        ("a portal name taken", vec![bind("p"), bind("p"), frontend::sync()], 1),
        (
            "the unnamed one replaced",
            vec![bind(""), frontend::execute("", 5), bind(""), frontend::execute("", 2), frontend::sync()],
            1,
        ),
        (
            "closed",
            vec![
                bind("p"),
                frontend::execute("p", 2),
                frontend::close(b'P', "p"),
                frontend::execute("p", 2),
                frontend::sync(),
            ],
            1,
        ),
        ("never run", vec![bind("p"), frontend::describe(b'P', "p"), frontend::sync()], 1),
        ("begin", vec![frontend::query("BEGIN")], 1),
        ("suspended in a transaction", vec![bind("p"), frontend::execute("p", 4), frontend::sync()], 1),
        ("while it waits", vec![extended("SELECT 'between'"), frontend::sync()], 1),
        ("another of its kind", vec![extended("SELECT count(*) FROM portals"), frontend::sync()], 1),
        ("goes on", vec![frontend::execute("p", 4), frontend::sync()], 1),
        (
            "its rows are those of its start",
            vec![
                extended("INSERT INTO portals (ts, a, t) VALUES (now(), 5000, 'late')"),
                frontend::execute("p", 0),
                frontend::sync(),
            ],
            1,
        ),
        ("at its end", vec![frontend::execute("p", 0), frontend::sync()], 1),
        (
            "a savepoint",
            vec![
                frontend::query("SAVEPOINT s"),
                bind("q"),
                frontend::execute("q", 1),
                frontend::sync(),
                frontend::query("ROLLBACK TO s"),
                frontend::execute("q", 1),
                frontend::sync(),
            ],
            4,
        ),
        ("the end", vec![frontend::query("ROLLBACK"), frontend::execute("p", 1), frontend::sync()], 2),
        ("a negative limit is none", vec![bind("p"), frontend::execute("p", -1), frontend::sync()], 1),
        ("closed twice", vec![frontend::close(b'S', "st"), frontend::close(b'S', "st"), frontend::sync()], 1),
        (
            "unknown names",
            vec![
                bind("p"),
                frontend::sync(),
                frontend::describe(b'S', "no"),
                frontend::sync(),
                frontend::describe(b'P', "no"),
                frontend::sync(),
            ],
            3,
        ),
        (
            "too few parameters",
            vec![
                frontend::parse("st", "SELECT count(*) FROM portals WHERE a = $1", &[23]),
                bind("p"),
                frontend::sync(),
            ],
            1,
        ),
        (
            "a simple query ends the unnamed portal",
            vec![
                frontend::parse("", sql, &[]),
                frontend::bind("", "", Format::Text, &[], Format::Text),
                frontend::execute("", 2),
                frontend::query("SELECT 1"),
                frontend::execute("", 2),
                frontend::sync(),
            ],
            2,
        ),
        (
            "binary and text",
            vec![
                frontend::parse("", sql, &[]),
                frontend::bind("", "", Format::Text, &[], Format::Binary),
                frontend::describe(b'P', ""),
                frontend::execute("", 2),
                frontend::sync(),
            ],
            1,
        ),
    ];
    for (what, frames, syncs) in &cases {
        same_frames(&mut direct, &mut gateway, what, frames, *syncs);
    }
}

/// Random pipelines of everything the extended protocol has, valid or not, get the same frames back.
#[test]
fn random_pipelines_get_the_frames_that_postgresql_sends() {
    table("fuzzed");
    const ROUNDS: u64 = 400;
    let statements = [
        "SELECT count(*) FROM fuzzed",
        "SELECT t, count(*), avg(a) FROM fuzzed GROUP BY t ORDER BY t",
        "SELECT a, ts FROM fuzzed WHERE a < 9 ORDER BY a",
        "SELECT count(*) FROM fuzzed WHERE a < $1",
        "SELECT stddev(a) FROM fuzzed",
        "SELECT count(*) FROM fuzzed WHERE 1 / (a - a) = 1",
        "SELECT no_such_column FROM fuzzed",
        "SELECT $1::int4 + 1",
        "INSERT INTO own VALUES ($1)",
        "SELECT count(*) FROM own",
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
        "SAVEPOINT s",
        "ROLLBACK TO s",
        "",
        "SELEC",
        "SELECT route FROM watershed.no_such_table",
    ];
    let (names, portals) = (["", "s1", "s2"], ["", "p1", "p2"]);
    for seed in [1, 2, 3] {
        let mut random = Sequence(seed);
        let (mut direct, mut gateway) = (direct(), owner());
        same_script(&mut direct, &mut gateway, &["CREATE TEMP TABLE own (a int4)"]);
        let mut history = Vec::new();
        for round in 0..ROUNDS / 3 {
            let mut frames = Vec::new();
            let mut syncs = 1;
            let mut spoken = Vec::new();
            for _ in 0..=random.below(9) {
                let pick = |random: &mut Sequence, from: &[&'static str]| {
                    from[random.below(from.len() as u64) as usize]
                };
                let (name, portal) = (pick(&mut random, &names), pick(&mut random, &portals));
                let sql = pick(&mut random, &statements);
                let limit = [0, 0, 1, 3][random.below(4) as usize];
                let kind = [b'S', b'P'][random.below(2) as usize];
                let formats = [Format::Text, Format::Binary];
                let (format, results) =
                    (formats[random.below(2) as usize], formats[random.below(2) as usize]);
                let value = if format == Format::Text { b"7".to_vec() } else { 7i32.to_be_bytes().to_vec() };
                let values: &[Option<Vec<u8>>] = if random.below(3) == 0 { &[Some(value)] } else { &[] };
                let (text, bytes) = match random.below(12) {
                    0..=2 => (format!("Parse {name:?} {sql}"), frontend::parse(name, sql, &[])),
                    3..=4 => {
                        let bytes = frontend::bind(portal, name, format, values, results);
                        (
                            format!(
                                "Bind {portal:?} {name:?} {} values, {format:?} to {results:?}",
                                values.len()
                            ),
                            bytes,
                        )
                    }
                    5..=6 => (format!("Execute {portal:?} {limit}"), frontend::execute(portal, limit)),
                    7 => {
                        let name = if kind == b'S' { name } else { portal };
                        (format!("Describe {} {name:?}", char::from(kind)), frontend::describe(kind, name))
                    }
                    8 => {
                        let name = if kind == b'S' { name } else { portal };
                        (format!("Close {} {name:?}", char::from(kind)), frontend::close(kind, name))
                    }
                    9 => (format!("all of {sql}"), extended(sql)),
                    10 => {
                        syncs += 1;
                        ("Sync".into(), frontend::sync())
                    }
                    _ => ("Flush".into(), frontend::flush()),
                };
                spoken.push(text);
                frames.push(bytes);
            }
            if random.below(5) == 0 {
                let sql = statements[random.below(statements.len() as u64) as usize];
                frames.push(frontend::sync());
                frames.push(frontend::query(sql));
                spoken.push(format!("Sync, Query {sql}"));
                syncs += 1;
            } else {
                frames.push(frontend::sync());
                spoken.push("Sync".into());
            }
            history.push(spoken.join("\n      "));
            let from = history.len().saturating_sub(4);
            let what = format!(
                "seed {seed}, round {round}, the last ones being\n      {}\n ",
                history[from..].join("\n    --\n      ")
            );
            same_frames(&mut direct, &mut gateway, &what, &frames, syncs);
        }
    }
}

// ---- Stopping -------------------------------------------------------------------------------------------------------------

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

// ---- Login ----------------------------------------------------------------------------------------------------------------

#[test]
fn login_failures_are_those_of_postgresql() {
    let refused = |target: &Target, options: &[(&str, &str)]| match Client::try_connect(target, options) {
        Err(LoginError::Refused(frame)) => Reply { frames: vec![frame] },
        Err(LoginError::Io(error)) => panic!("{error}"),
        Ok(_) => panic!("{} was let in", target.user),
    };
    let (gateway, direct) = (instance().gateway(), instance().direct());
    let cases: [(&str, fn(&Target) -> Target, &[(&str, &str)]); 5] = [
        ("a wrong password", |t| t.login(&t.user, "wrong"), &[]),
        ("an empty password", |t| t.login(&t.user, ""), &[]),
        ("an unknown user", |t| t.login("nobody_known", "x"), &[]),
        ("an unknown database", |t| t.database("no_such_database"), &[]),
        ("an unknown parameter", |t| t.clone(), &[("no_such_parameter", "1")]),
    ];
    for (what, change, options) in cases {
        let (expected, actual) = (refused(&change(&direct), options), refused(&change(&gateway), options));
        assert_same(what, &expected, &actual);
    }
    // What is reported at login is PostgreSQL's own word.
    let options = [
        ("application_name", "the test"),
        ("TimeZone", "Asia/Tokyo"),
        ("DateStyle", "ISO, DMY"),
        ("options", "-c search_path=pg_catalog"),
    ];
    let connect =
        |target: &Target| Client::try_connect(target, &options).unwrap_or_else(|error| panic!("{error:?}"));
    let (mut direct, mut gateway) = (connect(&direct), connect(&gateway));
    assert_eq!(direct.parameters, gateway.parameters);
    same_script(
        &mut direct,
        &mut gateway,
        &[
            "SHOW application_name",
            "SHOW search_path",
            "SELECT current_user, session_user, current_database()",
        ],
    );
    // Other databases behind the same gateway are relayed as they are.
    let mut elsewhere = Client::connect(&instance().admin_through_gateway().database("postgres"));
    assert_eq!(elsewhere.value("SELECT current_database()"), "postgres");
}

// ---- Writing --------------------------------------------------------------------------------------------------------------

#[test]
fn writes_through_the_gateway_obey_the_table() {
    table("written");
    let (mut direct, mut gateway) = (direct(), owner());
    same_script(
        &mut direct,
        &mut gateway,
        &[
            "UPDATE written SET a = 1",
            "DELETE FROM written",
            "TRUNCATE written",
            "INSERT INTO written (ts, a, _xid) VALUES (now(), 1, '1')",
            "INSERT INTO written (ts, a, _stream, _offset) VALUES (now(), 1, 1, 1)",
            "INSERT INTO written VALUES (now(), 1, 'x', '1', 0, 0)",
            "ALTER TABLE written DROP COLUMN a",
            "ALTER TABLE written ALTER COLUMN a TYPE int8",
            "DROP TABLE written",
            "COPY written (ts, a, t, _xid) FROM STDIN",
            "SELECT count(*) FROM written FOR UPDATE",
            "LOCK TABLE written IN SHARE MODE",
            "INSERT INTO written (ts, a, t) VALUES ('2024-01-01', 1000, 'x') RETURNING a, t",
            "MERGE INTO written w USING (SELECT 1) s ON false WHEN NOT MATCHED THEN INSERT (ts, a) VALUES (now(), 3)",
            "SELECT count(*) FROM written",
        ],
    );
    // (The details of these errors hold a transaction's number.)
    for value in ["NULL", "'infinity'", "'-infinity'"] {
        let sql = format!("INSERT INTO written (ts, a) VALUES ({value}, 1)");
        let (expected, actual) = (direct.query(&sql).sqlstate(), gateway.query(&sql).sqlstate());
        assert_eq!(expected, actual, "{sql}");
        assert!(matches!(expected.as_str(), "23502" | "23514"), "{sql}: {expected}");
    }
    // A COPY without a list of columns would fill the provenance columns too: PostgreSQL refuses it, the gateway adds a list.
    assert_eq!(direct.query("COPY written FROM STDIN").sqlstate(), "42501");
    gateway.send(&frontend::query("COPY written (ts, a, t) FROM STDIN"));
    let reply = gateway.until(b"GZ");
    assert_eq!(reply.frames[0].tag, b'G', "{reply:?}");
    gateway.send(
        &[
            frontend::copy_data(b"2024-05-05 00:00:00+00\t3\tcop"),
            frontend::copy_data(b"ied\n"),
            frontend::copy_done(),
        ]
        .concat(),
    );
    assert_eq!(gateway.reply().ok().tags(), ["COPY 1"]);
    gateway.send(&frontend::query("COPY written (ts, a, t) FROM STDIN WITH (FORMAT csv)"));
    assert_eq!(gateway.frame().tag, b'G');
    gateway.send(&[frontend::copy_data(b"2024-05-05,not a number,x\n"), frontend::copy_done()].concat());
    assert_eq!(gateway.reply().sqlstate(), "22P02");
    gateway.send(&frontend::query("COPY written (ts, a, t) FROM STDIN"));
    assert_eq!(gateway.frame().tag, b'G');
    gateway.send(&[frontend::copy_data(b"2024-05-05\t1\tx\n"), frontend::copy_fail("no more")].concat());
    assert_eq!(gateway.reply().sqlstate(), "57014");
    let copied = "COPY (SELECT a, t FROM written WHERE a >= 1000 ORDER BY a) TO STDOUT";
    same_script(
        &mut direct,
        &mut gateway,
        &[
            "SELECT t, count(*) FROM written GROUP BY t ORDER BY t",
            copied,
            "COPY written (a, t) TO STDOUT WITH (FORMAT binary)",
        ],
    );
    assert_eq!(gateway.value("SELECT count(*) FROM written"), "105");
}

#[test]
fn the_rest_of_the_protocol_is_relayed() {
    table("relayed");
    let (mut direct, mut gateway) = (direct(), owner());
    // Notifications arrive between statements.
    gateway.run("LISTEN channel");
    direct.run("NOTIFY channel, 'hello'");
    let frame = gateway.frame();
    assert_eq!(frame.tag, b'A', "{frame:?}");
    assert!(String::from_utf8_lossy(&frame.body).contains("hello"));
    gateway.run("UNLISTEN *");
    // Statements larger than what the gateway looks at.
    let numbers: Vec<String> = (0..300_000).map(|n| (n % 50).to_string()).collect();
    let long = format!("SELECT count(*) FROM relayed WHERE a IN ({})", numbers.join(","));
    let reply = gateway.run(&long);
    assert_eq!(reply.value(), "50");
    let huge = format!("SELECT length('{}')", "x".repeat(20_000_000));
    assert_eq!(gateway.value(&huge), "20000000");
    assert_eq!(gateway.value("SELECT length(repeat('x', 50000000))"), "50000000");
    // Large values and many rows, byte for byte.
    same_script(
        &mut direct,
        &mut gateway,
        &[
            "SELECT repeat('ab', 3000000)",
            "SELECT g, md5(g::text) FROM generate_series(1, 20000) g",
            "SELECT a, repeat(t, 1000) FROM relayed ORDER BY a",
        ],
    );
    // Text that looks like the table but is not, and the table in disguise.
    same_script(
        &mut direct,
        &mut gateway,
        &[
            "SELECT 'FROM relayed' AS x",
            "SELECT count(*) FROM \"relayed\"",
            "SELECT count(*) FROM \"Relayed\"",
            "SELECT count(*) FROM U&\"r\\0065layed\"",
            "SELECT/**/count(*)/*;*/FROM/* -- */relayed",
            "SELECT count(*) FROM relayed -- ; DROP TABLE relayed",
            "(((SELECT count(*) FROM relayed)))",
            "TABLE relayed LIMIT 0",
            "SELECT count(*) FROM ONLY relayed",
            "SELECT count(*) FROM relayed *",
            "SELECT count(*) FROM watershed.relayed",
            "SELECT count(relayed) FROM relayed",
            "SELECT count(relayed.*) FROM relayed",
            "SELECT count((relayed).a) FROM relayed",
        ],
    );
    wait_for("the gateway to be idle", || (gateway.value("SELECT 1") == "1").then_some(()));
}

/// psql shows the same through the gateway, down to what its backslash commands ask of the catalog.
#[test]
fn psql_sees_postgresql() {
    if !support::instance::on_path("psql") {
        println!("psql is not installed: nothing to see");
        return;
    }
    table("shown");
    let psql = |target: &Target, arguments: &[&str]| {
        let support::wire::Host::Tcp(host, port) = &target.host else { panic!("the owner connects by TCP") };
        let mut command = std::process::Command::new("psql");
        command.args(["-X", "-v", "VERBOSITY=verbose"]).args(arguments);
        command.env("PGHOST", host).env("PGPORT", port.to_string()).env("PGUSER", &target.user);
        command.env("PGPASSWORD", &target.password).env("PGDATABASE", &target.database);
        let output = command.output().expect("psql starts");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (direct, gateway) = (instance().direct(), instance().gateway());
    for arguments in [
        &["-c", "\\d shown"][..],
        &["-c", "\\d+ logs"],
        &["-c", "\\dt"],
        &["-c", "\\dv watershed.*"],
        &["-c", "\\df watershed.*"],
        &["-c", "\\du"],
        &["-c", "\\dn+"],
        &["-c", "\\l"],
        &["-c", "SELECT t, count(*), avg(a) FROM shown GROUP BY t ORDER BY t"],
        &[
            "-c",
            "SELECT count(*) FROM shown",
            "-c",
            "SELECT sum(a) FROM shown",
            "-c",
            "SELECT nothing FROM shown",
        ],
        &["-c", "\\copy (SELECT a, t FROM shown ORDER BY a) TO STDOUT WITH (FORMAT csv, HEADER)"],
        &["-v", "FETCH_COUNT=7", "-c", "SELECT a, count(*) FROM shown GROUP BY a ORDER BY a"],
        &["-At", "-c", "SELECT count(*) FROM shown \\gdesc"],
        &["-1", "-c", "SELECT count(*) FROM shown", "-c", "SELECT 1 / 0", "-c", "SELECT count(*) FROM shown"],
        &["-c", "\\sv watershed.queries"],
    ] {
        loop {
            let (expected, actual) = (psql(&direct, arguments), psql(&gateway, arguments));
            if expected == actual {
                break;
            }
            // Other tests make tables and roles meanwhile: a difference counts if PostgreSQL still says the same.
            if psql(&direct, arguments) == expected {
                assert_eq!(expected, actual, "psql {arguments:?}");
            }
        }
    }
}

/// Before and during login: requests for encryption, other versions of the protocol, unknown options, and nonsense.
#[test]
fn odd_beginnings_get_postgresqls_answer() {
    let (gateway, direct) = (instance().gateway(), instance().direct());
    // Encryption is not offered; the login goes on in the clear on the same connection.
    for code in [80_877_103, 80_877_104] {
        let mut client = Client::unspoken(&gateway).expect("a connection");
        client.send(&frontend::untagged(code, &[]));
        assert_eq!(client.byte().expect("an answer"), b'N', "request {code}");
        client.send(&frontend::startup(196_608, &gateway, &[]));
        assert_eq!(client.frame().tag, b'R', "request {code}");
    }
    // Newer minor versions and protocol options are negotiated down, newer major ones refused.
    let cases: [(i32, &[(&str, &str)]); 4] = [
        (196_610, &[]),
        (196_608, &[("_pq_.unknown", "1")]),
        (196_611, &[("_pq_.unknown", "1"), ("_pq_.other", "x")]),
        (262_144, &[]),
    ];
    for (version, options) in cases {
        let ask = |target: &Target| {
            let mut client = Client::unspoken(target).expect("a connection");
            client.send(&frontend::startup(version, target, options));
            let mut frames = vec![client.frame()];
            if frames[0].tag == b'v' {
                frames.push(client.frame());
            }
            Reply { frames }
        };
        assert_same(&format!("version {version}, {options:?}"), &ask(&direct), &ask(&gateway));
    }
    // Nonsense ends that connection and no other.
    for nonsense in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        &[0; 64],
        &[0xff; 64],
        &[0, 0, 0, 4],
        b"\0\0\0\x08\x04\xd2\x16\x2f",
        b"x",
    ] {
        let mut client = Client::unspoken(&gateway).expect("a connection");
        client.send(nonsense);
        client.drop_connection();
    }
    let mut client = owner();
    // In the middle of a session a message that does not exist ends it, as in PostgreSQL.
    client.send(b"\x01\0\0\0\x04");
    let frame = client.frame();
    assert_eq!((frame.tag, frame.fields()[&'C'].as_str()), (b'E', "08P01"), "{frame:?}");
    assert_eq!(owner().value("SELECT 1"), "1");
}

#[test]
fn other_encodings_and_the_old_function_call_are_relayed() {
    table("encoded");
    let options = [("client_encoding", "LATIN1")];
    let connect =
        |target: &Target| Client::try_connect(target, &options).unwrap_or_else(|error| panic!("{error:?}"));
    let (mut direct, mut gateway) = (connect(&instance().direct()), connect(&instance().gateway()));
    for sql in [
        &b"SELECT '\xe9\xe8' AS \"\xe4\", count(*) FROM encoded"[..],
        b"SELECT count(*) FROM encoded WHERE t <> '\xe9'",
        b"SELECT '\xff'",
    ] {
        same_frames(&mut direct, &mut gateway, "LATIN1", &[frontend::query_bytes(sql)], 1);
    }
    let (mut direct, mut gateway) = (self::direct(), owner());
    same_frames(
        &mut direct,
        &mut gateway,
        "no UTF-8",
        &[frontend::query_bytes(b"SELECT '\xe9', count(*) FROM encoded")],
        1,
    );
    // int4abs, and a function that is not there.
    for call in [
        frontend::function_call(1251, &["-5"]),
        frontend::function_call(1251, &["x"]),
        frontend::function_call(1, &[]),
    ] {
        same_frames(&mut direct, &mut gateway, "FunctionCall", &[call], 1);
    }
    // COPY in the extended protocol: what is sent before the server asks for it is the data.
    let copy = [extended("COPY encoded (ts, a, t) FROM STDIN")];
    let bytes = copy.concat();
    let mut replies = Vec::new();
    for client in [&mut direct, &mut gateway] {
        client.run("BEGIN");
        client.send(&bytes);
        client.send(&frontend::flush());
        let mut reply = client.until(b"GE");
        client.send(
            &[
                frontend::copy_data(b"2024-05-05\t1\tx\n"),
                frontend::flush(),
                frontend::copy_data(b"2024-05-06\t2\ty\n"),
                frontend::copy_done(),
                frontend::sync(),
            ]
            .concat(),
        );
        reply.frames.extend(client.reply().frames);
        reply.frames.extend(client.query("SELECT count(*) FROM encoded").frames);
        client.run("ROLLBACK");
        replies.push(reply);
    }
    assert_same("COPY in the extended protocol", &replies[0], &replies[1]);
}

/// Hundreds of requests sent before the first answer is read, and dozens of sessions at once.
#[test]
fn a_crowd_of_requests_is_answered_in_order() {
    table("crowded");
    let (mut direct, mut gateway) = (direct(), owner());
    let mut frames = vec![frontend::parse("st", "SELECT count(*) FROM crowded WHERE a < $1", &[23])];
    for n in 0..300i32 {
        frames.push(frontend::bind(
            "",
            "st",
            Format::Binary,
            &[Some(n.to_be_bytes().to_vec())],
            Format::Text,
        ));
        frames.push(frontend::execute("", 0));
        if n % 50 == 49 {
            frames.push(frontend::sync());
        }
    }
    same_frames(&mut direct, &mut gateway, "one pipeline", &frames, 6);
    let simple: Vec<Vec<u8>> = (0..100)
        .map(|n| frontend::query(&format!("SELECT {n}, count(*) FROM crowded WHERE a <> {n}")))
        .collect();
    same_frames(&mut direct, &mut gateway, "simple queries", &simple, 100);

    std::thread::scope(|scope| {
        for session in 0..32 {
            scope.spawn(move || {
                let mut client = owner();
                for round in 0..6 {
                    let sql = format!(
                        "SELECT count(*), sum(a), min(ts), max(t) FROM crowded WHERE a >= {}",
                        (session + round) % 90
                    );
                    let expected = (100 - (session + round) % 90).to_string();
                    assert_eq!(client.run(&sql).rows()[0][0].as_deref(), Some(expected.as_str()), "{sql}");
                }
            });
        }
    });
    // More prepared statements than anybody remembers.
    let mut frames = Vec::new();
    for n in 0..4500 {
        frames.push(frontend::parse(
            &format!("st{n}"),
            if n % 100 == 0 { "SELECT count(*) FROM crowded" } else { "SELECT 1" },
            &[],
        ));
    }
    frames.push(frontend::sync());
    gateway.send(&frames.concat());
    gateway.reply().ok();
    for n in [0, 100, 4000, 4100, 4400] {
        gateway.send(&[bind_execute("", &format!("st{n}")), frontend::sync()].concat());
        assert_eq!(gateway.reply().ok().rows(), [[Some("100".to_owned())]], "st{n}");
    }
}
