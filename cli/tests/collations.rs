//! Texts sorted in a database whose collation is ICU's, and by collations of columns and clauses: the lake computes the rows, PostgreSQL ranks
//! the texts on the client's own connection. Whatever the client has done to names, rights and its transaction, the answer is PostgreSQL's.

mod support;

use std::sync::OnceLock;

use support::compare::difference;
use support::instance::{Instance, Options};
use support::wait_for;
use support::wire::{Client, Format, frontend};

/// An instance whose database sorts as ICU does, with a table in several files and the tail.
fn instance() -> &'static Instance {
    static INSTANCE: OnceLock<Instance> = OnceLock::new();
    INSTANCE.get_or_init(|| {
        let settings = std::env::temp_dir().join(format!("watershed-collations-{}.toml", std::process::id()));
        std::fs::write(
            &settings,
            "[postgres]\nicu_locale = \"en-US\"\n[ingest.pressure]\nmin_free = \"64MiB\"\nmin_free_percent = 0.1\n",
        )
        .expect("a file of settings");
        let options = Options::on_demand().with("WATERSHED_CONFIG", settings.to_str().expect("a path"));
        let instance = Instance::start(options);
        std::fs::remove_file(&settings).expect("it was read");
        let mut owner = Client::connect(&instance.gateway());
        owner.run(
            "CREATE TABLE words (ts timestamptz NOT NULL, id int8 NOT NULL, t text, v varchar(20), de text COLLATE \"de-x-icu\", c text COLLATE \"C\", g int4, n numeric(8,2))",
        );
        owner.run("SELECT watershed.attach_table('public.words', event_time => 'ts')");
        for part in 0..3 {
            owner.run(&rows(part * 400 + 1, part * 400 + 400));
            instance.archive();
        }
        owner.run(&rows(1201, 1300));
        owner.run("CREATE TABLE names (g int4 PRIMARY KEY, name text COLLATE \"sv-x-icu\")");
        owner.run("INSERT INTO names SELECT g, (ARRAY['ö', 'z', 'å', 'Ä', 'a'])[1 + g % 5] || g FROM generate_series(0, 12) g");
        instance
    })
}

/// Texts of several cases, accents (composed and not), scripts and lengths; every one of them several times.
fn rows(from: i32, to: i32) -> String {
    format!(
        "INSERT INTO words SELECT timestamptz '2024-03-10 00:00:00+00' + k * interval '7 minutes', k, \
           (ARRAY['a', 'A', 'á', E'a\\u0301', 'B', 'b', 'Z', 'z', 'co-op', 'coop', 'CO-OP', '', NULL, 'straße', 'strasse', 'ı', 'i', 'I', 'İ', '日本', '🙂', ' a', 'a ', '10', '9', \
                  E'tab\\t', 'Ω', 'ω', 'æ', 'ae', repeat('long ', 30)])[1 + k % 31], \
           CASE WHEN k % 7 = 0 THEN NULL ELSE (ARRAY['v', 'V', 'w', 'É', 'e'])[1 + k % 5] || k % 9 END, \
           (ARRAY['ä', 'a', 'z', 'Ö', 'o', NULL])[1 + k % 6], (ARRAY['b', 'B', 'ä'])[1 + k % 3], k % 13, k / 7.0 \
         FROM generate_series({from}, {to}) k"
    )
}

fn pair() -> (Client, Client) {
    let instance = instance();
    let mut gateway = Client::connect(&instance.gateway());
    gateway.run("SET watershed.route = 'lake'");
    (Client::connect(&instance.direct()), gateway)
}

/// Statements whose order is total, unless they have no ORDER BY.
const SORTED: &[&str] = &[
    "SELECT t, count(*) FROM words GROUP BY t ORDER BY t",
    "SELECT t, count(*) FROM words GROUP BY t ORDER BY t DESC",
    "SELECT t, count(*) FROM words GROUP BY t ORDER BY t NULLS FIRST LIMIT 7 OFFSET 3",
    "SELECT t, count(*) AS n FROM words GROUP BY t ORDER BY n DESC, t LIMIT 10",
    "SELECT DISTINCT v FROM words ORDER BY v DESC NULLS LAST",
    "SELECT v, t, id FROM words ORDER BY v, t, id",
    "SELECT id, de, c FROM words ORDER BY de, c DESC, id LIMIT 300",
    "SELECT de, c, sum(n), max(ts) FROM words GROUP BY de, c ORDER BY 1, 2",
    "SELECT id FROM words ORDER BY t COLLATE \"sv-x-icu\" DESC, v COLLATE \"C\", n, id OFFSET 1000",
    "SELECT t || '-' || g AS pair, count(*) FROM words GROUP BY pair ORDER BY pair",
    "SELECT date_trunc('day', ts) AS day, t, count(*) FROM words GROUP BY 1, 2 ORDER BY 1 DESC, 2 LIMIT 40",
    "SELECT w.t, k.name, count(*) FROM words w JOIN names k USING (g) GROUP BY 1, 2 ORDER BY k.name, w.t",
    "SELECT t FROM words UNION SELECT v FROM words ORDER BY 1 DESC",
    "WITH s AS (SELECT t, g FROM words WHERE id > 300) SELECT t, count(DISTINCT g) FROM s GROUP BY t HAVING count(*) > 3 ORDER BY t",
    "SELECT CASE WHEN t LIKE 'a%' THEN t ELSE v END AS x, count(*) FROM words GROUP BY 1 ORDER BY 1",
    "SELECT t, count(*) FROM words WHERE id < 0 GROUP BY t ORDER BY t",
    "SELECT t, g, count(*) FROM words GROUP BY ROLLUP (t, g) ORDER BY t NULLS FIRST, g NULLS FIRST, 3",
    "SELECT upper(c COLLATE \"default\") AS u, lower(c COLLATE \"default\"), count(*) FROM words WHERE c < 'c' GROUP BY 1, 2 ORDER BY u, 2",
    "SELECT DISTINCT t, v FROM words",
    "SELECT count(*), count(DISTINCT t) FROM words WHERE de = 'Ö' OR de IN ('a', 'z')",
];

#[test]
fn sorted_texts_are_postgresqls() {
    let (mut direct, mut gateway) = pair();
    for sql in SORTED {
        for mode in 0..3 {
            let ask = |client: &mut Client| match mode {
                0 => client.query(sql),
                1 => client.pipelined(sql, Format::Text, &[], Format::Text),
                _ => client.prepared("sorted", sql, Format::Binary, &[], Format::Binary),
            };
            let (right, got) = (ask(&mut direct), ask(&mut gateway));
            assert_eq!(difference(&right, &got, sql.contains("ORDER BY")), None, "{sql} ({mode})");
            let (route, reasons) = instance().route(&gateway, sql);
            assert_eq!(route, "lake", "{sql} ({mode}): {reasons}");
            assert!(!reasons.contains("fell back"), "{sql} ({mode}): {reasons}");
        }
    }
    // With parameters, in their own formats.
    let sql = "SELECT t, count(*) FROM words WHERE g < $1::int4 GROUP BY t ORDER BY t LIMIT $2 OFFSET $3";
    let values = [Some(b"9".to_vec()), Some(b"12".to_vec()), Some(b"2".to_vec())];
    let ask = |client: &mut Client| client.pipelined(sql, Format::Text, &values, Format::Binary);
    assert_eq!(difference(&ask(&mut direct), &ask(&mut gateway), true), None, "{sql}");
    let (route, reasons) = instance().route(&gateway, sql);
    assert_eq!(route, "lake", "{reasons}");
    // What is compared below the last sort stays PostgreSQL's, and says so.
    for sql in [
        "SELECT max(t) FROM words",
        "SELECT count(*) FROM words WHERE t < 'b'",
        "SELECT t FROM (SELECT DISTINCT t FROM words ORDER BY t LIMIT 3) s",
        "SELECT DISTINCT ON (t) t, id FROM words ORDER BY t, id",
        "SELECT count(*) FROM words WHERE t < de COLLATE \"C\" ORDER BY t < de COLLATE \"sv-x-icu\"",
    ] {
        let got = gateway.query(sql);
        assert!(got.error().is_some(), "{sql}: {got:?}");
    }
}

#[test]
fn portals_of_sorted_texts_give_the_same_portions() {
    let (mut direct, mut gateway) = pair();
    let mut replies = Vec::new();
    for client in [&mut direct, &mut gateway] {
        let mut bytes = frontend::parse("portions", SORTED[0], &[]);
        bytes.extend(frontend::bind("p", "portions", Format::Text, &[], Format::Text));
        bytes.extend(frontend::describe(b'P', "p"));
        for rows in [4, 1, 7, 0, 0] {
            bytes.extend(frontend::execute("p", rows));
        }
        // Two at a time, and one of them thrown away.
        bytes.extend(frontend::bind("a", "portions", Format::Text, &[], Format::Binary));
        bytes.extend(frontend::bind("b", "portions", Format::Text, &[], Format::Text));
        for (portal, rows) in [("a", 3), ("b", 5), ("a", 2), ("b", 0)] {
            bytes.extend(frontend::execute(portal, rows));
        }
        bytes.extend(frontend::close(b'P', "a"));
        bytes.extend(frontend::sync());
        client.send(&bytes);
        replies.push(client.reply());
    }
    assert_eq!(difference(&replies[0], &replies[1], true), None, "{replies:?}");
    assert_eq!(instance().route(&gateway, SORTED[0]).0, "lake");
}

#[test]
fn transactions_are_left_as_they_are() {
    let (mut direct, mut gateway) = pair();
    let mut same = |sql: &str| {
        let (right, got) = (direct.query(sql), gateway.query(sql));
        assert_eq!(difference(&right, &got, true), None, "{sql}");
    };
    let sorted = "SELECT t, count(*) FROM words GROUP BY t ORDER BY t";
    for isolation in ["READ COMMITTED", "REPEATABLE READ"] {
        same(&format!("BEGIN ISOLATION LEVEL {isolation}"));
        same(sorted);
        same("SELECT pg_current_xact_id_if_assigned() IS NULL");
        same("SAVEPOINT s");
        // Rows of its own, which nobody else sees.
        same("INSERT INTO words (ts, id, t) VALUES (now(), -1, 'åäö'), (now(), -2, 'Own')");
        same(sorted);
        same("SELECT t, id FROM words WHERE id < 5 ORDER BY de, t, id");
        same("ROLLBACK TO s");
        same(sorted);
        same("SELECT 1 / 0");
        same(sorted);
        same("ROLLBACK");
        same(sorted);
    }
    // The gateway's own names are reserved, and seen.
    same("SELECT name, statement FROM pg_prepared_statements WHERE name NOT LIKE '\\_watershed\\_%'");
    same("SELECT name FROM pg_cursors WHERE name NOT LIKE '\\_watershed\\_%'");
    same("SHOW search_path");
    assert_eq!(instance().route(&gateway, sorted).0, "lake");
}

/// Everything that the ranking names exists again, before PostgreSQL's own in the search path, and gives the wrong order.
#[test]
fn shadowing_names_change_no_order() {
    let (mut direct, mut gateway) = pair();
    let mut owner = Client::connect(&instance().direct());
    owner.run("CREATE SCHEMA evil");
    for function in [
        "unnest(text[]) RETURNS SETOF text LANGUAGE sql AS 'SELECT ''stolen''::text'",
        "unnest(anyarray) RETURNS SETOF anyelement LANGUAGE sql AS 'SELECT $1[1]'",
        "dense_rank() RETURNS int8 LANGUAGE sql AS 'SELECT 1::int8'",
        "pg_collation_for(text) RETURNS text LANGUAGE sql AS 'SELECT ''x''::text'",
        "text_less(text, text) RETURNS bool LANGUAGE sql AS 'SELECT $1 OPERATOR(pg_catalog.>) $2'",
    ] {
        owner.run(&format!("CREATE FUNCTION evil.{function}"));
    }
    owner.run("CREATE AGGREGATE evil.array_agg(int8) (SFUNC = pg_catalog.int8larger, STYPE = int8)");
    owner.run("CREATE OPERATOR evil.< (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.text_less)");
    owner.run("CREATE COLLATION evil.\"default\" (provider = icu, locale = 'sv-u-kf-upper')");
    owner.run("CREATE COLLATION evil.\"de-x-icu\" (provider = icu, locale = 'sv-u-kf-upper')");
    owner.run("CREATE COLLATION evil.\"; DROP TABLE words; --\"\"\" (provider = icu, locale = 'sv-u-kf-upper')");
    owner.run("CREATE DOMAIN evil.text AS varchar");
    owner.run("CREATE DOMAIN evil.regcollation AS pg_catalog.text");
    let statements = [
        "SELECT t, pg_catalog.count(*) FROM public.words GROUP BY t ORDER BY t",
        "SELECT de, pg_catalog.count(*) FROM public.words GROUP BY de ORDER BY de",
        "SELECT t, id FROM public.words ORDER BY t COLLATE \"de-x-icu\", id",
        "SELECT t, id FROM public.words ORDER BY t COLLATE \"; DROP TABLE words; --\"\"\", id",
        "SELECT t, id FROM public.words ORDER BY t COLLATE evil.\"default\" DESC, id",
    ];
    for path in ["evil, pg_catalog, public", "evil", "pg_catalog, evil", "public"] {
        for client in [&mut direct, &mut gateway] {
            client.run(&format!("SET search_path = {path}"));
        }
        for sql in statements.iter().filter(|sql| path.contains("evil") || !sql.contains("DROP")) {
            let (right, got) = (direct.query(sql), gateway.query(sql));
            assert_eq!(difference(&right, &got, true), None, "{path}: {sql}");
            let (route, reasons) = instance().route(&gateway, sql);
            assert_eq!((route.as_str(), reasons.contains("fell back")), ("lake", false), "{path}: {sql}: {reasons}");
        }
    }
}

/// A collation that the user may not name is no error: PostgreSQL does not ask for its name either.
#[test]
fn a_collation_out_of_reach_is_no_error() {
    let mut owner = Client::connect(&instance().direct());
    owner.run("CREATE SCHEMA hidden");
    owner.run("CREATE COLLATION hidden.own (provider = icu, locale = 'sv')");
    owner.run("CREATE VIEW by_hidden AS SELECT t COLLATE hidden.own AS t, id FROM words");
    owner.run("GRANT SELECT ON by_hidden, words TO watershed_analyst");
    owner.run("REVOKE ALL ON SCHEMA hidden FROM PUBLIC");
    let login = |target: support::wire::Target| target.login("watershed_analyst", &instance().secret("WATERSHED_ANALYST_PASSWORD"));
    let (mut direct, mut gateway) = (Client::connect(&login(instance().direct())), Client::connect(&login(instance().gateway())));
    let sql = "SELECT t, id FROM by_hidden ORDER BY t, id LIMIT 50";
    gateway.run("SET watershed.route = 'prefer_lake'");
    wait_for("the gateway to know the view", || {
        let (right, got) = (direct.query(sql), gateway.query(sql));
        assert_eq!(difference(&right, &got, true), None);
        let (route, reasons) = instance().route(&gateway, sql);
        (route == "postgres" && reasons.contains("cannot name the collation")).then_some(())
    });
    gateway.run("BEGIN");
    let (right, got) = (direct.query(sql), gateway.query(sql));
    assert_eq!(right.rows(), got.rows());
    assert_eq!(got.status(), 'T', "the transaction goes on");
    gateway.run("COMMIT");
    // Renamed under its user's hands: asked for anew each time.
    owner.run("GRANT USAGE ON SCHEMA hidden TO watershed_analyst");
    owner.run("ALTER COLLATION hidden.own RENAME TO \"An other name\"");
    owner.run("CREATE COLLATION hidden.own (provider = icu, locale = 'en-u-kf-upper')");
    let (right, got) = (direct.query(sql), gateway.query(sql));
    assert_eq!(difference(&right, &got, true), None);
    let (route, reasons) = instance().route(&gateway, sql);
    assert_eq!(route, "lake", "{reasons}");
}

#[test]
fn more_than_may_be_sorted_is_given_back() {
    let mut owner = Client::connect(&instance().gateway());
    owner.run("CREATE TABLE crowd (ts timestamptz NOT NULL, t text)");
    owner.run("SELECT watershed.attach_table('public.crowd', event_time => 'ts')");
    owner.run("INSERT INTO crowd SELECT timestamptz '2024-01-01' + g * interval '1 ms', 'name ' || g FROM generate_series(1, 120000) g");
    instance().run(&["archive", "--now", "public.crowd"]);
    let (mut direct, mut gateway) = pair();
    let many = "SELECT t, count(*) FROM crowd GROUP BY t ORDER BY t";
    let fewer = "SELECT t, count(*) FROM crowd WHERE ts < '2024-01-01 00:01:30' GROUP BY t ORDER BY t DESC";
    for (sql, store) in [(many, "postgres"), (fewer, "lake")] {
        wait_for("the gateway to know the table", || {
            let (right, got) = (direct.query(sql), gateway.query(sql));
            assert_eq!(difference(&right, &got, true), None, "{sql}");
            let (route, reasons) = instance().route(&gateway, sql);
            let known = route == store && (store == "lake" || reasons.contains("fell back: more than 100000 rows"));
            known.then_some(())
        });
    }
    // Stopped while the rows are computed or ranked.
    let key = gateway.cancel_key();
    gateway.run("BEGIN; SAVEPOINT s");
    for pause in [0, 20, 60, 150] {
        gateway.send(&frontend::query(fewer));
        std::thread::sleep(std::time::Duration::from_millis(pause));
        key.cancel();
        let reply = gateway.reply();
        // It may have been faster.
        if reply.error().is_some() {
            assert_eq!((reply.sqlstate().as_str(), reply.status()), ("57014", 'E'), "after {pause} ms");
            gateway.run("ROLLBACK TO s");
        }
        // One that came when the statement was done stops nothing: it was sent on before `cancel` came back.
        if gateway.query("SELECT 1").error().is_some() {
            gateway.run("ROLLBACK TO s");
        }
    }
    gateway.run("COMMIT");
    let (right, got) = (direct.query(fewer), gateway.query(fewer));
    assert_eq!(difference(&right, &got, true), None);
    // The end of the transaction takes the setting back, which holds for a RESET as well.
    gateway.run("BEGIN");
    gateway.run("SET LOCAL statement_timeout = '3ms'");
    assert_eq!(gateway.query(fewer).sqlstate(), "57014");
    gateway.run("ROLLBACK");
    assert_eq!(difference(&direct.query(fewer), &gateway.query(fewer), true), None);
}

#[test]
fn explain_and_compare_know_of_it() {
    let (mut direct, mut gateway) = pair();
    gateway.run("RESET watershed.route");
    let lines = gateway.run("EXPLAIN SELECT t, count(*) FROM words GROUP BY t ORDER BY t").column();
    assert_eq!(lines[0], "Watershed route: lake");
    assert!(lines.iter().any(|l| l == "  because: PostgreSQL ranks the texts that it is sorted by"), "{lines:?}");
    let lookup = "SELECT t FROM words WHERE id = 7 ORDER BY t";
    gateway.run(lookup);
    assert_eq!(instance().route(&gateway, lookup).0, "postgres", "no aggregate");
    gateway.run("SET watershed.route = 'compare'");
    for sql in SORTED {
        assert_eq!(difference(&direct.query(sql), &gateway.query(sql), sql.contains("ORDER BY")), None, "{sql}");
    }
    let verdicts = gateway.run("SELECT verdict, count(*) FROM watershed.comparisons GROUP BY verdict ORDER BY count(*) DESC");
    assert_eq!(verdicts.rows().first().and_then(|row| row[0].clone()).as_deref(), Some("equal"), "{verdicts:?}");
    assert!(verdicts.rows().iter().all(|row| row[0].as_deref() != Some("differs")), "{verdicts:?}");
}
