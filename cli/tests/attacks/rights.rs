//! Rights and policies are PostgreSQL's, whatever route is asked for and however.

use super::*;

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
