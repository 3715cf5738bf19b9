//! Trees that are not the statement's own, and names that the gateway uses itself.

use super::*;

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
