//! Users' functions in SQL: where their bodies are put in place the lake answers as PostgreSQL does, and follows every change of them; where
//! they are not, PostgreSQL answers.

mod support;

use std::time::{Duration, Instant};

use support::compare::difference;
use support::instance::{Instance, Options, breathe};
use support::wire::{Client, Format};

/// The gateway looks for changes every few seconds; only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

const FUNCTIONS: &str = "\
CREATE FUNCTION twice(a int4) RETURNS int4 LANGUAGE sql STABLE RETURN a * 2;
CREATE FUNCTION wild(a int4) RETURNS int4 LANGUAGE sql RETURN a * 2;
CREATE FUNCTION upto(t timestamptz) RETURNS bool LANGUAGE sql IMMUTABLE RETURN t < date '2024-03-11';
CREATE FUNCTION lenient(a int4) RETURNS text LANGUAGE sql STRICT IMMUTABLE RETURN CASE WHEN a % 3 = 0 THEN 'x' ELSE 'y' END;
CREATE FUNCTION splus(a int4, b int4) RETURNS int4 LANGUAGE sql IMMUTABLE STRICT RETURN a + b;
CREATE FUNCTION through(a int4) RETURNS text LANGUAGE sql IMMUTABLE RETURN a::text;
CREATE FUNCTION less(a numeric) RETURNS int4 LANGUAGE sql IMMUTABLE RETURN trunc(a)::int4 - 1;
CREATE FUNCTION plus(a int4, b int4) RETURNS int4 LANGUAGE sql IMMUTABLE RETURN a + b;
CREATE FUNCTION level_name(t text) RETURNS text LANGUAGE sql STABLE BEGIN ATOMIC SELECT CASE WHEN t = 'ERROR' THEN 'bad' ELSE lower(t) END; END;
CREATE FUNCTION known(t text, other text) RETURNS text LANGUAGE sql STABLE RETURN coalesce(t, other, 'none');
CREATE FUNCTION strictly_first(a int4, b int4) RETURNS int4 LANGUAGE sql STRICT RETURN a;
CREATE FUNCTION bucket(t timestamptz) RETURNS timestamptz LANGUAGE sql STABLE RETURN date_trunc('hour', t);
CREATE FUNCTION cents(n numeric) RETURNS numeric LANGUAGE sql RETURN n * 100;
CREATE FUNCTION kind(a int4) RETURNS text LANGUAGE sql IMMUTABLE RETURN CASE a % 3 WHEN 0 THEN 'x' WHEN 1 THEN 'y' END;
CREATE FUNCTION share(a int4, b int4) RETURNS int4 LANGUAGE sql RETURN a / b;
CREATE FUNCTION part(a int4, b int4) RETURNS int4 LANGUAGE sql STABLE RETURN a / b;
CREATE FUNCTION ignoring(a int4, b int4) RETURNS int4 LANGUAGE sql RETURN a;
CREATE FUNCTION sparing(a int4, b int4) RETURNS int4 LANGUAGE sql STABLE RETURN a;
CREATE FUNCTION squared(a int4) RETURNS int4 LANGUAGE sql RETURN a * a;
CREATE FUNCTION as_text(a int4) RETURNS int4 LANGUAGE sql AS 'SELECT $1 + 1';
CREATE FUNCTION late() RETURNS timestamptz LANGUAGE sql RETURN now();
CREATE FUNCTION since(t timestamptz) RETURNS bool LANGUAGE sql RETURN t < now();
CREATE FUNCTION nested(a int4) RETURNS int4 LANGUAGE sql RETURN twice(a) + 1;
CREATE FUNCTION counted(a int4) RETURNS int8 LANGUAGE sql RETURN (SELECT count(*) FROM readings WHERE g = a);
CREATE FUNCTION wider(a int4) RETURNS int8 LANGUAGE sql RETURN a;
CREATE FUNCTION trusted(a int4) RETURNS int4 LANGUAGE sql SECURITY DEFINER RETURN a + 1;
CREATE FUNCTION settled(a int4) RETURNS int4 LANGUAGE sql SET work_mem = '4MB' RETURN a + 1;
CREATE FUNCTION lengths(VARIADIC a int4[]) RETURNS int4 LANGUAGE sql RETURN a[1];
CREATE FUNCTION next_of(a int4, OUT b int4) LANGUAGE sql RETURN a + 1;
CREATE FUNCTION any_of(a anyelement) RETURNS anyelement LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION steps(a int4) RETURNS int4 LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT a; END";

/// Answered by the lake.
const IN_PLACE: &[&str] = &[
    "SELECT twice(g), count(*) FROM readings GROUP BY 1 ORDER BY 1",
    "SELECT twice(g) FROM readings GROUP BY g ORDER BY 1",
    "SELECT count(*) FROM readings WHERE twice(g) > 7",
    "SELECT sum(plus(g, k)), count(plus(g, NULL)) FROM readings",
    "SELECT plus(g, 5), max(plus(k, g)) FROM readings GROUP BY 1 HAVING max(plus(k, g)) > 100 ORDER BY 1",
    "SELECT plus(plus(g, k), 1), count(*) FROM readings GROUP BY 1 ORDER BY 1",
    "SELECT plus(max(g), min(k)) FROM readings",
    "SELECT level_name(level), count(*) FROM readings GROUP BY 1 ORDER BY 1",
    "SELECT count(*) FROM readings WHERE level_name(level) IS NULL",
    "SELECT known(level, note), count(*) FROM readings GROUP BY 1 ORDER BY 1",
    "SELECT splus(g, k), count(*) FROM readings GROUP BY 1 ORDER BY 1",
    "SELECT wild(g), count(*) FROM readings WHERE wild(k) > 3 GROUP BY 1 HAVING wild(g) > 1 ORDER BY 1",
    "SELECT less(n), count(*) FROM readings GROUP BY 1 ORDER BY 1",
    "SELECT count(ignoring(g, k / g)) FROM readings WHERE g > 0",
    "SELECT known(level || 'x', note), count(*) FROM readings GROUP BY 1 ORDER BY 1",
    "SELECT bucket(ts), count(*) FROM readings GROUP BY 1 ORDER BY 1",
    "SELECT g, sum(cents(n)), max(cents(n)) FROM readings GROUP BY g ORDER BY g",
    "SELECT kind(g), count(*) FROM readings GROUP BY 1 ORDER BY 1",
    "SELECT ignoring(g, k), count(*) FROM readings GROUP BY 1 ORDER BY 1",
    "SELECT a.g, count(*) FROM readings a JOIN readings b ON twice(a.g) = twice(b.g) AND a.k < 20 GROUP BY 1 ORDER BY 1",
    "WITH x AS (SELECT kind(g) AS kind, k FROM readings) SELECT kind, sum(k) FROM x GROUP BY kind ORDER BY kind",
    "SELECT doubled, count(*) FROM doubles GROUP BY doubled ORDER BY doubled",
    "SELECT count(share(k, g)) FROM readings WHERE g > 0",
    "SELECT public.twice(g), count(*) FROM readings GROUP BY 1 ORDER BY 1",
];

/// Answered by PostgreSQL, and why.
const CALLED: &[(&str, &str)] = &[
    ("SELECT as_text(g), count(*) FROM readings GROUP BY 1 ORDER BY 1", "its body is a text"),
    ("SELECT count(*) FROM readings WHERE ts < late()", "read no argument"),
    ("SELECT twice(3), count(*) FROM readings", "constants alone"),
    ("SELECT count(*) FROM readings WHERE since(ts)", "read no argument"),
    ("SELECT nested(g), count(*) FROM readings GROUP BY 1 ORDER BY 1", "not understood"),
    ("SELECT counted(g), count(*) FROM readings GROUP BY g ORDER BY g", "more than one expression"),
    ("SELECT wider(g), count(*) FROM readings GROUP BY 1 ORDER BY 1", "cast to its result"),
    ("SELECT trusted(g), count(*) FROM readings GROUP BY 1 ORDER BY 1", "of a kind that is called"),
    ("SELECT settled(g), count(*) FROM readings GROUP BY 1 ORDER BY 1", "of a kind that is called"),
    ("SELECT lengths(g, k), count(*) FROM readings GROUP BY 1 ORDER BY 1", "of a kind that is called"),
    ("SELECT next_of(g), count(*) FROM readings GROUP BY 1 ORDER BY 1", "of a kind that is called"),
    ("SELECT any_of(g), count(*) FROM readings GROUP BY 1 ORDER BY 1", "its body is a text"),
    ("SELECT steps(g), count(*) FROM readings GROUP BY 1 ORDER BY 1", "more than one expression"),
    ("SELECT squared(g + k), count(*) FROM readings GROUP BY 1 ORDER BY 1", "reads it twice"),
    ("SELECT strictly_first(g, k), count(*) FROM readings GROUP BY 1 ORDER BY 1", "it is STRICT, and its body is not"),
    ("SELECT count(*) FROM (SELECT sparing(g, wild(k)), 10 / g AS x FROM readings WHERE g > 0) s", "calls a function"),
    ("SELECT lenient(g), count(*) FROM readings GROUP BY 1 ORDER BY 1", "it is STRICT, and its body is not"),
    ("SELECT count(*) FROM readings WHERE upto(ts)", "more volatile than it is declared"),
    ("SELECT through(g), count(*) FROM readings GROUP BY 1 ORDER BY 1", "more volatile than it is declared"),
    ("SELECT splus(g, k), g, k, g + k, count(*) FROM readings GROUP BY GROUPING SETS ((g, k), (g + k)) ORDER BY 1, 2, 3, 4", "grouping sets"),
    ("SELECT count(*) FROM (SELECT wild(g) FROM readings) s", "wild is VOLATILE"),
    ("WITH x AS (SELECT wild(g) AS w, g FROM readings) SELECT sum(w) FROM x WHERE g > 0", "wild is VOLATILE"),
    ("SELECT count(*) FROM readings WHERE wild(g) IN (SELECT k FROM readings)", "wild is VOLATILE"),
    ("SELECT squared(squared(squared(g))), count(*) FROM readings GROUP BY 1 ORDER BY 1", "reads it twice"),
    ("SELECT level_name(level COLLATE \"C\"), count(*) FROM readings GROUP BY 1 ORDER BY 1", "another collation"),
];

fn start() -> (Instance, Client) {
    let (instance, mut owner) = with_rows();
    owner.run(FUNCTIONS);
    owner.run("CREATE VIEW doubles AS SELECT twice(g) AS doubled FROM readings");
    // Before a session's next statement the gateway looks at what its own DDL made.
    owner.run("SELECT 1");
    (instance, owner)
}

fn with_rows() -> (Instance, Client) {
    let instance = Instance::start(Options::on_demand());
    let mut owner = Client::connect(&instance.gateway());
    owner.run("CREATE TABLE readings (ts timestamptz NOT NULL, g int4, k int4, level text, note text, n numeric(10,2))");
    owner.run("SELECT watershed.attach_table('public.readings', event_time => 'ts')");
    owner.run(&rows(1, 600));
    instance.archive();
    owner.run(&rows(601, 700));
    (instance, owner)
}

fn rows(from: i32, to: i32) -> String {
    format!(
        "INSERT INTO readings SELECT timestamptz '2024-03-10 00:00:00+00' + i * interval '7 minutes', nullif(i % 9, 8), nullif(i % 40, 39), \
           (ARRAY['ERROR', 'Info', NULL])[1 + i % 3], CASE WHEN i % 4 = 0 THEN 'note ' || i % 5 END, i / 7.0 FROM generate_series({from}, {to}) i"
    )
}

/// Right in every protocol; gives the route and its reasons.
#[track_caller]
fn alike(instance: &Instance, direct: &mut Client, gateway: &mut Client, sql: &str) -> (String, String) {
    for mode in 0..3 {
        let ask = |client: &mut Client| match mode {
            0 => client.query(sql),
            1 => client.pipelined(sql, Format::Text, &[], Format::Binary),
            _ => client.prepared("functions", sql, Format::Binary, &[], Format::Text),
        };
        let (right, got) = (ask(direct), ask(gateway));
        assert_eq!(difference(&right, &got, sql.contains("ORDER BY")), None, "{sql} ({mode})");
    }
    instance.route(gateway, sql)
}

/// Until the gateway has seen what was changed; right all the time.
#[track_caller]
fn until(instance: &Instance, direct: &mut Client, gateway: &mut Client, sql: &str, store: &str) {
    let started = Instant::now();
    loop {
        let (route, reasons) = alike(instance, direct, gateway, sql);
        if route == store && !reasons.contains("fell back") {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "still waiting for {store} to answer {sql}: {route}, {reasons}");
        breathe();
    }
}

fn sessions(instance: &Instance) -> (Client, Client) {
    let mut gateway = Client::connect(&instance.gateway());
    gateway.run("SET watershed.route = 'prefer_lake'");
    (Client::connect(&instance.direct()), gateway)
}

#[test]
fn bodies_are_put_in_place_where_that_changes_nothing() {
    let (instance, _owner) = start();
    let (mut direct, mut gateway) = sessions(&instance);
    until(&instance, &mut direct, &mut gateway, IN_PLACE[0], "lake");
    for sql in IN_PLACE {
        let (route, reasons) = alike(&instance, &mut direct, &mut gateway, sql);
        assert_eq!(route, "lake", "{sql}: {reasons}");
    }
    for (sql, why) in CALLED {
        let (route, reasons) = alike(&instance, &mut direct, &mut gateway, sql);
        assert!(route == "postgres" && reasons.contains(why), "{sql}: {route}, {reasons}");
    }
    // An error is PostgreSQL's, wherever it comes up.
    for sql in [
        "SELECT count(*) FROM (SELECT share(k, g) FROM readings) s",
        "SELECT g FROM (SELECT g, share(k, g) FROM readings) s GROUP BY g",
        "WITH x AS (SELECT g, share(k, g) AS s FROM readings) SELECT sum(s) FROM x WHERE g > 0",
        "SELECT sum(x) FROM (SELECT wild(g) AS w, 10 / g AS x FROM readings) s WHERE w > 0",
        "SELECT count(*) FROM readings WHERE upto(ts) AND k / g > 1",
        "SELECT count(part(k, g)) FROM readings",
        "SELECT count(share(k, g)) FROM readings",
        "SELECT share(k, g), count(*) FROM readings WHERE g >= 0 GROUP BY 1 ORDER BY 1",
    ] {
        let (right, got) = (direct.query(sql), gateway.query(sql));
        assert_eq!(right.sqlstate(), "22012", "{sql}");
        assert_eq!(difference(&right, &got, true), None, "{sql}");
    }
    let explained = gateway.run(&format!("EXPLAIN {}", CALLED[0].0)).column();
    assert!(explained.iter().any(|line| line.contains("as_text is called, not put in place: its body is a text")), "{explained:?}");
}

/// Alone, since whatever others call is asked of the catalog for all of them.
#[test]
fn bodies_that_call_nothing_are_judged_too() {
    let (instance, mut owner) = with_rows();
    owner.run("CREATE FUNCTION strictly_first(a int4, b int4) RETURNS int4 LANGUAGE sql STRICT RETURN a");
    owner.run("CREATE FUNCTION through(a int4) RETURNS text LANGUAGE sql IMMUTABLE RETURN a::text");
    owner.run("CREATE FUNCTION ignoring(a int4, b int4) RETURNS int4 LANGUAGE sql STABLE RETURN a");
    let (mut direct, mut gateway) = sessions(&instance);
    until(&instance, &mut direct, &mut gateway, "SELECT ignoring(g, k), count(*) FROM readings GROUP BY 1 ORDER BY 1", "lake");
    for (sql, why) in CALLED.iter().filter(|(sql, _)| sql.starts_with("SELECT strictly_first") || sql.starts_with("SELECT through")) {
        let (route, reasons) = alike(&instance, &mut direct, &mut gateway, sql);
        assert!(route == "postgres" && reasons.contains(why), "{sql}: {route}, {reasons}");
    }
}

#[test]
fn large_bodies_and_many_calls_in_each_other_stop_nobody() {
    let (instance, mut owner) = start();
    let (mut direct, mut gateway) = sessions(&instance);
    for ones in [10, 60, 300, 1000] {
        owner.run(&format!("CREATE FUNCTION plus_{ones}(a int4) RETURNS int4 LANGUAGE sql IMMUTABLE RETURN a{}", " + 1".repeat(ones)));
    }
    let nested = |ones: i32, times: usize| {
        let name = format!("plus_{ones}(");
        format!("SELECT sum({}g{}) FROM readings", name.repeat(times), ")".repeat(times))
    };
    until(&instance, &mut direct, &mut gateway, &nested(10, 1), "lake");
    for (ones, times) in [(10, 3), (10, 40), (60, 1), (60, 40), (300, 2), (1000, 1)] {
        alike(&instance, &mut direct, &mut gateway, &nested(ones, times));
    }
    let told = gateway.query(&nested(60, 90));
    assert!(told.error().is_none() || told.sqlstate() == "54001", "{}", told.sqlstate());
    assert!(instance.alive());
    // It starts with them as well.
    instance.terminate();
    instance.restart();
    let [through, past] = [instance.gateway(), instance.direct()].map(|door| Client::connect(&door).value(&nested(10, 1)));
    assert_eq!(through, past);
}

#[test]
fn every_change_of_a_function_is_followed() {
    let (instance, mut owner) = start();
    let (mut direct, mut gateway) = sessions(&instance);
    let sql = "SELECT twice(g), count(*) FROM readings GROUP BY 1 ORDER BY 1";
    until(&instance, &mut direct, &mut gateway, sql, "lake");
    gateway.run(&format!("PREPARE kept AS {sql}"));
    direct.run(&format!("PREPARE kept AS {sql}"));

    // Of another session, seen at the very next statement; then looked at, and the lake's again.
    let changes = [
        "CREATE OR REPLACE FUNCTION twice(a int4) RETURNS int4 LANGUAGE sql RETURN a * 3",
        "ALTER FUNCTION twice(int4) STRICT",
        "CREATE OR REPLACE FUNCTION twice(a int4) RETURNS int4 LANGUAGE sql AS 'SELECT $1 * 4'",
        "CREATE OR REPLACE FUNCTION twice(a int4) RETURNS int4 LANGUAGE sql RETURN a - 1",
        "ALTER FUNCTION twice(int4) SECURITY DEFINER",
        "ALTER FUNCTION twice(int4) SECURITY INVOKER",
        "BEGIN; CREATE OR REPLACE FUNCTION twice(a int4) RETURNS int4 LANGUAGE sql RETURN a + 7; CREATE OR REPLACE FUNCTION twice(a int4) RETURNS int4 LANGUAGE sql RETURN a + 8; COMMIT",
    ];
    for change in changes {
        Client::connect(&instance.direct()).run(change);
        alike(&instance, &mut direct, &mut gateway, sql);
        assert_eq!(difference(&direct.query("EXECUTE kept"), &gateway.query("EXECUTE kept"), true), None, "{change}");
        let store = if change.contains("AS '") || change.contains("DEFINER") { "postgres" } else { "lake" };
        until(&instance, &mut direct, &mut gateway, sql, store);
    }

    // Of the own transaction, which nobody else sees.
    gateway.run("BEGIN");
    gateway.run("CREATE OR REPLACE FUNCTION twice(a int4) RETURNS int4 LANGUAGE sql RETURN a * 1000");
    let own = gateway.run(sql).rows();
    assert!(own.iter().any(|row| row[0].as_deref() == Some("7000")), "{own:?}");
    gateway.run("ROLLBACK");
    alike(&instance, &mut direct, &mut gateway, sql);
    owner.run("CREATE OR REPLACE FUNCTION twice(a int4) RETURNS int4 LANGUAGE sql RETURN a + 9");

    // In a snapshot that is fixed, PostgreSQL calls the function as it is now.
    until(&instance, &mut direct, &mut gateway, sql, "lake");
    gateway.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    gateway.run("SELECT count(*) FROM readings");
    gateway.run(sql);
    assert_eq!(instance.route(&gateway, sql).0, "lake");
    owner.run("CREATE OR REPLACE FUNCTION twice(a int4) RETURNS int4 LANGUAGE sql RETURN a * 50");
    let now = gateway.run(sql).rows();
    assert!(now.iter().any(|row| row[0].as_deref() == Some("350")), "{now:?}");
    gateway.run("COMMIT");

    // Gone.
    until(&instance, &mut direct, &mut gateway, sql, "lake");
    owner.run("DROP VIEW doubles; DROP FUNCTION nested(int4); DROP FUNCTION twice(int4)");
    assert_eq!(gateway.query(sql).sqlstate(), "42883");
    assert_eq!(difference(&direct.query("EXECUTE kept"), &gateway.query("EXECUTE kept"), true), None);
}

#[test]
fn who_may_not_call_it_is_refused() {
    let (instance, mut owner) = start();
    let mut admin = Client::connect(&instance.admin());
    let user = owner.value("SELECT current_user");
    admin.run(&format!("CREATE ROLE caller; GRANT caller TO {user}"));
    owner.run("GRANT SELECT ON readings, doubles TO caller");
    let (mut direct, mut gateway) = sessions(&instance);
    let statements = ["SELECT twice(g), count(*) FROM readings GROUP BY 1 ORDER BY 1", "SELECT doubled, count(*) FROM doubles GROUP BY 1 ORDER BY 1"];
    for client in [&mut direct, &mut gateway] {
        client.run("SET ROLE caller");
    }
    for sql in statements {
        until(&instance, &mut direct, &mut gateway, sql, "lake");
        gateway.run(&format!("PREPARE kept AS {sql}"));
        direct.run(&format!("PREPARE kept AS {sql}"));
        owner.run("REVOKE EXECUTE ON FUNCTION twice(int4) FROM public");
        for asked in [sql, "EXECUTE kept"] {
            let (right, got) = (direct.query(asked), gateway.query(asked));
            assert_eq!(right.sqlstate(), "42501", "{sql}");
            assert_eq!(difference(&right, &got, true), None, "{asked}: {sql}");
        }
        // Known by now to be like that: its owner may, and it stays refused to the other.
        let mut own = Client::connect(&instance.gateway());
        own.run("SET watershed.route = 'prefer_lake'");
        let mut past = Client::connect(&instance.direct());
        until(&instance, &mut past, &mut own, sql, "lake");
        assert_eq!(gateway.query(sql).sqlstate(), "42501", "{sql}");
        owner.run("GRANT EXECUTE ON FUNCTION twice(int4) TO public");
        for client in [&mut direct, &mut gateway] {
            client.run("DEALLOCATE kept");
        }
    }
}
