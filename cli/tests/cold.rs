//! With the door to cold rows open, PostgreSQL itself answers over rows that left it: at every door of its own, whatever the statement, and
//! to the byte what a plain table beside it answers. What would not be whole is refused by name.

mod support;

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use support::Sequence;
use support::compare::table_difference as difference;
use support::instance::{Instance, Options, shown};
use support::wire::{Client, Format, Reply, frontend};

/// Days of rows before today.
const DAYS: i32 = 12;

fn settings(cold: bool) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    let text = format!("[retention]\ninterval = \"24h\"\nearly = false\ncold = {cold}\n");
    file.write_all(text.as_bytes()).expect("written");
    file
}

fn start(settings: &tempfile::NamedTempFile) -> Instance {
    support::well_before_midnight();
    let path = settings.path().to_str().expect("a path of text");
    Instance::start(Options::on_demand().with("WATERSHED_CONFIG", path))
}

/// Every type that a tiered table can have.
const COLUMNS: &str = "id int8, ts timestamptz NOT NULL, kind text, amount numeric(12,2), note jsonb, small int2, n int4, single float4, double float8, \
    free numeric, short varchar(10), day date, at timestamp, who uuid, raw bytea, flag bool, plain text COLLATE \"C\", \"Odd \"\"name\" text";

/// Their names: a tiered table has more columns, of its rows' origin.
const ALL: &str = "id, ts, kind, amount, note, small, n, single, double, free, short, day, at, who, raw, flag, plain, \"Odd \"\"name\"";

/// Rows by number: values that repeat, NULLs, ends of ranges, signs that need quoting.
fn rows(from: i32, to: i32, ts: &str) -> String {
    format!(
        "SELECT i, {ts}, 'kind ' || i % 5, i * 1.25, CASE WHEN i % 7 > 0 THEN jsonb_build_object('n', i, 'x', 'a''b\\' || i % 3) END, (i % 300)::int2,
         CASE WHEN i % 11 > 0 THEN i - 600 END, (i / 3.0)::float4, CASE i % 50 WHEN 1 THEN 'NaN' WHEN 2 THEN 'Infinity' ELSE i / 7.0 END::float8,
         CASE i % 40 WHEN 3 THEN 'NaN' ELSE (i % 13)::numeric / 4 * 10 ^ (i % 9) END, left('sh\"ort' || i, 10),
         CASE i % 60 WHEN 5 THEN 'infinity' ELSE date '2020-02-28' + i END, timestamp '1999-12-31 23:59:59.123456' + i * interval '1 hour',
         CASE WHEN i % 9 > 0 THEN md5(i::text)::uuid END, decode(md5((i % 20)::text), 'hex'), CASE i % 3 WHEN 0 THEN true WHEN 1 THEN false END,
         CASE WHEN i % 2 = 0 THEN 'Ä' ELSE 'z' END || chr(97 + i % 26), 'it''s \\ ' || i % 4
         FROM generate_series({from}, {to}) i"
    )
}

/// `t` is tiered, `twin` an ordinary table with the same rows.
fn make_tables(instance: &Instance) -> Client {
    let mut owner = Client::connect(&instance.gateway());
    for name in ["t", "twin"] {
        owner.run(&format!("CREATE TABLE {name} ({COLUMNS})"));
    }
    owner.run(&format!(
        "SELECT watershed.attach_table('public.t', event_time => 'ts', first_day => (now() AT TIME ZONE 'UTC')::date - {})",
        DAYS - 2
    ));
    let day = format!("date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' - (i % {DAYS}) * interval '1 day' + i * interval '7 seconds'");
    add(&mut owner, &rows(1, 1200, &day));
    instance.archive();
    // Some rows of every day are tail.
    add(&mut owner, &rows(5001, 5060, &format!("now() - (i % {DAYS}) * interval '1 day'")));
    owner
}

/// The same rows in both tables, at once.
fn add(client: &mut Client, rows: &str) {
    client.run("BEGIN");
    client.run("CREATE TEMP TABLE fresh (LIKE twin) ON COMMIT DROP");
    client.run(&format!("INSERT INTO fresh {rows}"));
    client.run("INSERT INTO twin SELECT * FROM fresh");
    client.run("INSERT INTO t SELECT * FROM fresh");
    client.run("COMMIT");
}

fn retain(instance: &Instance, hot_days: i32) -> String {
    let mut owner = Client::connect(&instance.gateway());
    owner.run(&format!("SELECT watershed.set_retention('public.t', hot_days => {hot_days})"));
    let output = instance.output(&["retain", "t", "--notice", "0s"]);
    assert!(output.status.success(), "{}", shown(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A reply's beginning and end.
fn brief(reply: &Reply) -> (String, Option<std::collections::BTreeMap<char, String>>) {
    (format!("{:?}", reply.rows()).chars().take(400).collect(), reply.error())
}

/// Both tables are asked the same in one transaction, so that `now()` is one.
#[track_caller]
fn assert_same(client: &mut Client, statement: &str, in_order: bool) {
    let statement = &statement.replace("SELECT * FROM TABLE", &format!("SELECT {ALL} FROM TABLE"));
    client.run("BEGIN");
    let right = client.query(&statement.replace("TABLE", "twin"));
    if right.error().is_some() {
        client.run("ROLLBACK; BEGIN");
    }
    let got = client.query(&statement.replace("TABLE", "t"));
    client.run("ROLLBACK");
    // An error of a row may come after rows, or before them.
    if let Some(e) = right.error() {
        let got = got.error().unwrap_or_else(|| panic!("{statement}: no error"));
        return assert_eq!((&got[&'C'], &got[&'M']), (&e[&'C'], &e[&'M']), "{statement}");
    }
    if let Some(what) = difference(&right, &got, in_order) {
        panic!("{statement}: {what}\n{:?}\n{:?}", brief(&got), brief(&right));
    }
}

/// Statements over `TABLE` that the lake does not answer, and whether their rows come in an order.
const STATEMENTS: [(&str, bool); 43] = [
    ("SELECT string_agg(kind, ',' ORDER BY id) FROM TABLE", true),
    ("SELECT a.id, b.kind FROM TABLE a JOIN TABLE b USING (id) WHERE a.n > 300", false),
    ("SELECT id, row_number() OVER (ORDER BY ts, id) FROM TABLE", false),
    ("SELECT count(*) FROM TABLE a, TABLE b WHERE a.n = b.n AND a.kind = 'kind 3'", true),
    ("SELECT * FROM TABLE", false),
    ("SELECT array_agg(id ORDER BY id) FROM TABLE", true),
    ("SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY amount) FROM TABLE", true),
    ("SELECT id FROM TABLE WHERE kind ~ '[13]$'", false),
    ("SELECT id FROM TABLE WHERE kind ~~* 'KIND 2' AND flag", false),
    ("SELECT id FROM TABLE WHERE note @> '{\"x\": \"a''b\\\\1\"}'", false),
    ("SELECT id, note ->> 'x' FROM TABLE WHERE note ? 'n' AND (note ->> 'n')::int % 5 = 0", false),
    ("SELECT id FROM TABLE WHERE amount BETWEEN 10.5 AND 100 AND free <> 'NaN'", false),
    ("SELECT id FROM TABLE WHERE free = 'NaN' OR double = 'NaN'", false),
    ("SELECT id FROM TABLE WHERE double > 1e300 OR single < -1", false),
    ("SELECT id FROM TABLE WHERE single = 1.0 OR double = 5", false),
    ("SELECT id FROM TABLE WHERE day = 'infinity'", false),
    ("SELECT id FROM TABLE WHERE day < '2020-04-01' AND abs(n) % 2 = 0", false),
    ("SELECT id FROM TABLE WHERE at > '2000-01-05 10:00' AND id::text LIKE '1%'", false),
    ("SELECT id FROM TABLE WHERE who = 'c4ca4238-a0b9-2382-0dcc-509a6f75849b' OR who IS NULL AND length(kind) = 6", false),
    ("SELECT id, encode(raw, 'hex') FROM TABLE WHERE raw = '\\xc4ca4238a0b923820dcc509a6f75849b'", false),
    ("SELECT id FROM TABLE WHERE flag IS NOT TRUE AND md5(kind) > '8'", false),
    ("SELECT id FROM TABLE WHERE flag IS UNKNOWN AND NOT (n > 3 AND small < 100)", false),
    ("SELECT id FROM TABLE WHERE plain < 'm' AND reverse(plain) <> ''", false),
    ("SELECT id FROM TABLE WHERE lower(kind) = 'kind 1' AND substr(short, 2, 1) = 'h'", false),
    ("SELECT id FROM TABLE WHERE \"Odd \"\"name\" = 'it''s \\ 2' AND position('k' in kind) = 1", false),
    ("SELECT id FROM TABLE WHERE short IN ('sh\"ort1', 'sh\"ort17', 'sh\"ort5002') AND repeat(kind, 2) <> ''", false),
    ("SELECT id FROM TABLE WHERE id = ANY ('{3,11,5003,-4,NULL}') AND lower(kind) <> ''", false),
    ("SELECT id FROM TABLE WHERE CASE WHEN n IS NULL THEN id < 100 WHEN n < 0 THEN id > 500 ELSE kind = 'kind 0' END", false),
    ("SELECT id FROM TABLE WHERE n IS DISTINCT FROM small AND n / 2 = small * 2", false),
    ("SELECT id FROM TABLE WHERE (n, small) > (100, 5) AND kind || plain > 'kind 3'", false),
    ("SELECT id FROM TABLE WHERE ts > '2020-01-01' AND ts < now() - interval '7 days' AND at::date > date '2000-01-10'", false),
    ("SELECT 1 FROM TABLE WHERE 100 / (n + 1) > 3", false),
    ("SELECT id, kind FROM TABLE ORDER BY kind, id LIMIT 9", true),
    ("SELECT id, ts FROM TABLE WHERE reverse(kind) < '3' ORDER BY ts, id LIMIT 7", true),
    ("SELECT plain, count(*), string_agg(short, '|' ORDER BY id) FROM TABLE GROUP BY plain ORDER BY plain", true),
    ("SELECT count(*) FROM TABLE WHERE EXISTS (SELECT FROM TABLE b WHERE b.n = TABLE.small AND b.kind = 'kind 2')", true),
    ("SELECT id FROM TABLE WHERE id IN (SELECT max(id) FROM TABLE b GROUP BY b.kind) AND kind ~ '.'", false),
    ("WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < 3) SELECT r.i, t.kind FROM r JOIN TABLE t ON t.id = r.i", false),
    ("SELECT DISTINCT ON (kind) kind, id FROM TABLE ORDER BY kind, id DESC", true),
    ("SELECT id FROM TABLE WHERE id = 3 FOR SHARE", false),
    ("SELECT count(*) FILTER (WHERE note IS NULL), bit_or(small) FROM TABLE WHERE double < 1e9", true),
    ("SELECT tableoid IS NOT NULL, id FROM TABLE WHERE kind ~ '1'", false),
    ("SELECT (TABLE).kind, TABLE IS NULL FROM TABLE WHERE lower(kind) = 'kind 4'", false),
];


#[track_caller]
fn assert_statements(client: &mut Client) {
    for (statement, in_order) in STATEMENTS {
        assert_same(client, statement, in_order);
    }
}

/// Every role that may read has its secret by now.
fn wait_for_secrets(instance: &Instance) {
    let mut admin = Client::connect(&instance.admin());
    let lacking = "SELECT count(*) FROM pg_roles r WHERE r.rolname !~ '^pg_' AND has_any_column_privilege(r.oid, 'public.t'::regclass, 'SELECT')
        AND NOT EXISTS (SELECT FROM pg_user_mapping m WHERE m.umuser = r.oid)";
    support::wait_for("user mappings", || (admin.value(lacking) == "0").then_some(()));
}

/// Runs the statement; where it was answered, and why.
fn route_of(client: &mut Client, sql: &str) -> (String, String) {
    client.run(sql);
    let pid = client.value("SELECT pg_backend_pid()");
    let asked = format!("SELECT route, reasons FROM watershed.queries WHERE pid = {pid} AND sql = $sql${sql}$sql$ ORDER BY id DESC LIMIT 1");
    let rows = client.run(&asked).rows();
    let text = |i: usize| rows[0][i].clone().unwrap_or_default();
    (text(0), text(1))
}

#[test]
fn postgresql_answers_over_rows_that_left_it() {
    let settings = settings(true);
    let instance = start(&settings);
    let mut client = make_tables(&instance);
    wait_for_secrets(&instance);
    retain(&instance, 5);
    let mut admin = Client::connect(&instance.admin());
    let door = "SELECT count(*) FROM watershed_control.partitions WHERE kind = 'gone' AND watershed_control.is_door(part_relid)";
    assert_eq!(admin.value(door), "1");
    let plan = client.run("EXPLAIN (VERBOSE, COSTS off) SELECT string_agg(kind, ',') FROM t WHERE id = 3").column().join("\n");
    assert!(plan.contains("Remote SQL") && plan.contains("watershed_cold.t_"), "{plan}");

    // Without and with the gateway; and where PostgreSQL has the door do more.
    let mut direct = Client::connect(&instance.direct());
    for client in [&mut direct, &mut client] {
        assert_statements(client);
    }
    direct.run("SET enable_sort = off; SET enable_partitionwise_aggregate = on; SET enable_partitionwise_join = on");
    assert_statements(&mut direct);
    assert_same(&mut direct, "SELECT ts, kind, max(id), count(*) FROM TABLE GROUP BY ts, kind", false);
    direct.run("RESET ALL");
    let (route, reasons) = support::wait_for("the gateway to know the floor", || {
        Some(route_of(&mut client, "SELECT string_agg(kind, ',' ORDER BY id) FROM t")).filter(|(_, reasons)| reasons.contains("the door"))
    });
    assert!(route == "postgres" && reasons.contains("string_agg"), "{route}: {reasons}");
    assert_eq!(route_of(&mut client, "SELECT count(*) FROM t").0, "lake");
    assert_same(&mut client, "/* watershed: postgres */ SELECT count(*), sum(amount), min(ts) FROM TABLE", true);

    // What PostgreSQL ships whole, seen from the foreign table itself.
    let relid = admin.value("SELECT 't'::regclass::oid");
    admin.run(&format!("CREATE VIEW lost AS SELECT w.* FROM twin w WHERE w.ts < (SELECT floor FROM watershed_control.tables WHERE relid = {relid}) AND w.id <= 1200"));
    admin.run("SET enable_sort = off; SET enable_hashagg = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_nestloop = off");
    let mut seen = String::new();
    for shipped in [
        "SELECT kind, count(*), sum(amount), min(plain), max(short) FROM TABLE GROUP BY kind HAVING count(*) > 1 ORDER BY kind",
        "SELECT id, kind FROM TABLE ORDER BY \"Odd \"\"name\" DESC NULLS LAST, plain, id LIMIT 11 OFFSET 2",
        "SELECT a.id, b.plain FROM TABLE a JOIN TABLE b ON a.n = b.small WHERE b.kind = 'kind 3' AND a.flag",
        "SELECT a.id, b.id FROM TABLE a LEFT JOIN TABLE b ON a.id = b.n AND b.flag WHERE a.kind <> 'kind 1'",
        "SELECT count(*) FROM TABLE WHERE id IS NOT NULL",
    ] {
        let right = admin.run(&shipped.replace("TABLE", "lost"));
        let got = admin.run(&shipped.replace("TABLE", "watershed_parts.t_gone"));
        assert!(!right.rows().is_empty());
        assert_eq!(difference(&right, &got, shipped.contains("ORDER")), None, "{shipped}\n{:?}\n{:?}", brief(&got), brief(&right));
        let explained = admin.run(&format!("EXPLAIN (VERBOSE, COSTS off) {}", shipped.replace("TABLE", "watershed_parts.t_gone"))).column();
        seen.extend(explained.into_iter().filter(|l| l.contains("Remote SQL")));
    }
    for whole in ["GROUP BY", "ORDER BY", "LIMIT", "INNER JOIN", "LEFT JOIN"] {
        assert!(seen.contains(whole), "{whole} was not shipped:\n{seen}");
    }
    admin.run("RESET ALL");
    for writing in ["DELETE FROM t WHERE id = 3", "UPDATE t SET kind = 'x'", "INSERT INTO watershed_parts.t_gone SELECT * FROM watershed_parts.t_gone LIMIT 1"] {
        let e = admin.query(writing).error().unwrap_or_else(|| panic!("{writing} was allowed"));
        assert!(["0A000", "42501", "55000", "23514"].contains(&e[&'C'].as_str()), "{writing}: {e:?}");
    }
    admin.run("ANALYZE t; ANALYZE watershed_parts.t_gone");
    assert_ne!(admin.value("SELECT reltuples::int FROM pg_class WHERE oid = 'watershed_parts.t_gone'::regclass"), "-1");
    assert_statements(&mut direct);

    // Columns that come and are renamed, and files that lack them.
    client.run("ALTER TABLE t ADD COLUMN more text; ALTER TABLE twin ADD COLUMN more text");
    client.run("ALTER TABLE t RENAME COLUMN short TO shorter; ALTER TABLE twin RENAME COLUMN short TO shorter");
    assert_same(&mut direct, "SELECT id, more, shorter FROM TABLE WHERE more IS NULL AND left(shorter, 1) = 's'", false);
    client.run("ALTER TABLE t RENAME TO renamed");
    assert_eq!(direct.value("SELECT string_agg(kind, ',' ORDER BY id) FROM renamed"), direct.value("SELECT string_agg(kind, ',' ORDER BY id) FROM twin"));
}

#[test]
fn every_door_of_postgresql_has_all_rows() {
    let settings = settings(true);
    let instance = start(&settings);
    let mut client = make_tables(&instance);
    wait_for_secrets(&instance);
    for table in ["t", "twin"] {
        client.run(&format!(
            "CREATE FUNCTION counted_{table}(since timestamptz) RETURNS text LANGUAGE plpgsql AS
             'BEGIN RETURN (SELECT string_agg(id::text, '','' ORDER BY id) FROM {table} WHERE ts >= since); END';
             CREATE FUNCTION summed_{table}() RETURNS numeric LANGUAGE sql STABLE AS 'SELECT sum(amount) FROM {table}';
             CREATE FUNCTION each_{table}() RETURNS SETOF int8 LANGUAGE plpgsql AS
             'DECLARE r record; BEGIN FOR r IN SELECT id FROM {table} ORDER BY kind, id LOOP RETURN NEXT r.id; END LOOP; END';
             CREATE FUNCTION caught_{table}() RETURNS int8 LANGUAGE plpgsql AS
             'DECLARE n int8; BEGIN BEGIN SELECT count(*) INTO n FROM {table}; PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN NULL; END;
              RETURN n + (SELECT count(*) FROM {table} WHERE flag); END';
             CREATE VIEW seen_{table} AS SELECT id, kind, ts FROM {table} WHERE kind <> 'kind 4'"
        ));
    }
    retain(&instance, 5);
    let mut direct = Client::connect(&instance.direct());
    for client in [&mut client, &mut direct] {
        client.run("SET plan_cache_mode = force_generic_plan");
        for table in ["t", "twin"] {
            client.run(&format!("PREPARE p_{table}(timestamptz, text) AS SELECT id FROM {table} WHERE ts >= $1 AND kind = $2 AND lower(kind) = $2 ORDER BY id"));
        }
        for (door, in_order) in [
            ("SELECT counted_TABLE('2000-01-01') AS x", true),
            ("SELECT counted_TABLE(now() - interval '1 day') AS x", true),
            ("SELECT summed_TABLE() AS x", true),
            ("SELECT each_TABLE() AS x", true),
            ("SELECT caught_TABLE() AS x", true),
            ("SELECT count(*), string_agg(id::text, ',' ORDER BY id) FROM seen_TABLE", true),
            ("EXECUTE p_TABLE('2000-01-01', 'kind 2')", true),
            ("EXECUTE p_TABLE(now() - interval '6 days', 'kind 2')", true),
            ("EXECUTE p_TABLE(now() - interval '6 days', NULL)", true),
            ("COPY (SELECT * FROM TABLE) TO STDOUT", false),
            ("COPY (SELECT id, raw, note FROM TABLE ORDER BY id) TO STDOUT (FORMAT binary)", true),
            ("SELECT 1; SELECT string_agg(kind, ',' ORDER BY id) FROM TABLE", true),
            ("DECLARE c_TABLE SCROLL CURSOR FOR SELECT id, kind FROM TABLE ORDER BY id; FETCH 5 FROM c_TABLE; FETCH ALL FROM c_TABLE; FETCH BACKWARD 7 FROM c_TABLE", true),
            ("DECLARE c_TABLE CURSOR FOR SELECT id FROM TABLE; SAVEPOINT s; FETCH 0 FROM c_TABLE; ROLLBACK TO s; FETCH ALL FROM c_TABLE", false),
            ("SAVEPOINT s; DECLARE c_TABLE CURSOR FOR SELECT id FROM TABLE; MOVE 3000 FROM c_TABLE; ROLLBACK TO s; SELECT count(*) FROM TABLE a, TABLE b WHERE a.id = b.id", true),
            ("SELECT id, note INTO TEMP copied_TABLE FROM TABLE; SELECT count(*), sum(id), bit_xor(hashtext(note::text)) FROM copied_TABLE", true),
            ("SELECT g, (SELECT count(*) FROM TABLE WHERE n < g AND lower(kind) > '') FROM generate_series(-600, 600, 300) g", true),
        ] {
            assert_same(client, door, in_order);
        }
        // Parameters of the extended protocol, in both formats.
        for results in [Format::Text, Format::Binary] {
            for id in ["3", "11", "5003", "-4"] {
                let values = [Some(id.as_bytes().to_vec())];
                let sql = |table: &str| format!("SELECT {ALL} FROM {table} WHERE id = $1 AND reverse(kind) <> ''");
                let right = client.pipelined(&sql("twin"), Format::Text, &values, results).ok();
                let got = client.pipelined(&sql("t"), Format::Text, &values, results).ok();
                assert_eq!(difference(&right, &got, true), None, "id {id}");
            }
        }
    }
    client.run("DO 'DECLARE a int8; b int8; BEGIN SELECT count(*) INTO a FROM t; SELECT count(*) INTO b FROM twin; IF a <> b OR a <> 1260 THEN RAISE ''% and %'', a, b; END IF; END'");
    // WITH HOLD outlives its transaction.
    for client in [&mut client, &mut direct] {
        for table in ["t", "twin"] {
            client.run(&format!("BEGIN; DECLARE h_{table} CURSOR WITH HOLD FOR SELECT id, kind FROM {table} ORDER BY id; FETCH 10 FROM h_{table}; COMMIT"));
        }
        let (right, got) = (client.run("FETCH ALL FROM h_twin"), client.run("FETCH ALL FROM h_t"));
        assert_eq!(difference(&right, &got, true), None);
    }
    // A statement that is cancelled takes nothing with it.
    let mut direct = Client::connect(&instance.direct());
    direct.send(&frontend::query("SELECT count(*) FROM t a, t b, t c WHERE a.n + b.n + c.n = 1 AND reverse(a.kind) <> ''"));
    let mut admin = Client::connect(&instance.admin());
    let runs = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND state = 'active' AND query LIKE 'SELECT count(*) FROM t a%'", direct.pid);
    support::wait_for("the statement", || (admin.value(&runs) == "1").then_some(()));
    direct.cancel_key().cancel();
    assert_eq!(direct.reply().sqlstate(), "57014");
    assert_same(&mut direct, "SELECT string_agg(kind, ',' ORDER BY id) FROM TABLE", true);

    // pg_dump of every part, in one snapshot.
    let admin = instance.admin();
    let support::wire::Host::Tcp(host, port) = &admin.host else { panic!("the cluster listens on TCP") };
    let mut dump = std::process::Command::new(program("pg_dump"));
    dump.args(["--data-only", "--include-foreign-data=watershed_cold", "--table=watershed_parts.t_*", "-h", host, "-p", &port.to_string()]);
    let output = dump.args(["-U", &admin.user, &admin.database]).env("PGPASSWORD", &admin.password).output().expect("pg_dump runs");
    assert!(output.status.success(), "{}", shown(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    let ids: std::collections::BTreeSet<&str> = text.lines().filter(|l| l.contains('\t')).filter_map(|l| l.split('\t').next()).collect();
    let rows = text.lines().filter(|l| l.contains('\t')).count();
    assert_eq!((rows, ids.len()), (1260, 1260));
}

/// One of PostgreSQL's own programs.
fn program(name: &str) -> std::path::PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<_> = versions.map(|v| v.path().join("bin").join(name)).filter(|p| p.is_file()).collect();
    found.sort();
    found.pop().unwrap_or_else(|| name.into())
}

#[test]
fn a_snapshot_from_before_rows_left_is_refused_and_never_answered_short() {
    let settings = settings(true);
    let instance = start(&settings);
    let mut client = make_tables(&instance);
    wait_for_secrets(&instance);
    retain(&instance, 8);
    let sql = "SELECT count(*), string_agg(kind, ',' ORDER BY id) FROM TABLE";
    let right = |client: &mut Client| client.run(&sql.replace("TABLE", "twin")).rows();
    // Snapshots of before: of a transaction, and of a statement whose function asks later.
    let mut old = Client::connect(&instance.direct());
    old.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    old.run("SELECT 1 FROM twin");
    let mut through = Client::connect(&instance.gateway());
    through.run("BEGIN ISOLATION LEVEL SERIALIZABLE");
    through.run("SELECT 1 FROM twin");
    client.run("SELECT pg_advisory_lock(42)");
    let mut functions = Vec::new();
    for kind in ["STABLE", "VOLATILE"] {
        client.run(&format!(
            "CREATE FUNCTION later_{kind}() RETURNS int8 LANGUAGE plpgsql {kind} AS
             'BEGIN PERFORM pg_advisory_lock_shared(42); PERFORM pg_advisory_unlock_shared(42); RETURN (SELECT count(*) FROM t); END'"
        ));
        let mut session = Client::connect(&instance.direct());
        session.send(&frontend::query(&format!("SELECT later_{kind}()")));
        functions.push(session);
    }
    let mut admin = Client::connect(&instance.admin());
    support::wait_for("two that wait", || {
        (admin.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted") == "2").then_some(())
    });
    // A statement that has begun keeps the days that it may read.
    let mut reading = Client::connect(&instance.direct());
    reading.run("BEGIN");
    reading.run("DECLARE c CURSOR FOR SELECT id FROM t WHERE reverse(kind) <> ''");
    assert_eq!(reading.run("FETCH 3 FROM c").rows().len(), 3);
    client.run("SELECT watershed.set_retention('public.t', hot_days => 5)");
    let output = instance.output(&["retain", "t", "--notice", "0s"]);
    assert!(shown(&output).contains("in use"), "{}", shown(&output));
    assert_eq!(reading.run("FETCH ALL FROM c").rows().len(), 1257);
    reading.run("COMMIT");
    add(&mut client, &rows(6001, 6020, "now() - (i % 12) * interval '1 day'"));
    instance.archive();
    retain(&instance, 5);
    for session in [&mut old, &mut through] {
        let hot = "SELECT string_agg(kind, ',' ORDER BY id) FROM TABLE WHERE ts >= now() - interval '2 days'";
        assert_eq!(session.value(&hot.replace("TABLE", "t")), session.value(&hot.replace("TABLE", "twin")));
        let e = session.query(&sql.replace("TABLE", "t")).error().expect("an older snapshot");
        assert!(e[&'C'] == "40001" && e[&'M'].contains("public.t") && e.contains_key(&'H'), "{e:?}");
        session.run("ROLLBACK");
        assert_eq!(session.run(&sql.replace("TABLE", "t")).rows(), right(session));
    }
    client.run("SELECT pg_advisory_unlock(42)");
    for session in &mut functions {
        let reply = session.reply();
        assert_eq!(reply.sqlstate(), "40001", "{reply:?}");
    }
    // A transaction that has written and began before rows left keeps them from leaving, for a while; where they leave all the same, its
    // kind is refused as long as it runs, and everybody knows why.
    let mut writer = Client::connect(&instance.direct());
    writer.run("BEGIN");
    writer.run("INSERT INTO twin SELECT * FROM twin WHERE false");
    writer.run("SELECT pg_current_xact_id()");
    client.run("SELECT watershed.set_retention('public.t', hot_days => 4)");
    let output = instance.output(&["retain", "t", "--notice", "0s"]);
    assert!(shown(&output).contains("open for long"), "{}", shown(&output));
    assert_eq!(client.run(&sql.replace("TABLE", "t")).rows(), right(&mut client));
    admin.run("UPDATE watershed_control.tables SET fence_xid = pg_current_xact_id()");
    assert_eq!(client.query(&sql.replace("TABLE", "t")).sqlstate(), "40001");
    assert_eq!(client.value("SELECT count(*) FROM t"), "1280", "the lake answers what is proven");
    writer.run("COMMIT");
    assert_eq!(client.run(&sql.replace("TABLE", "t")).rows(), right(&mut client));
    // Late rows that the lake has as well, which no raise let go: they are not counted twice.
    admin.run("SET watershed.maintenance = on");
    admin.run(
        "INSERT INTO watershed_parts.t_late SELECT g.* FROM watershed_parts.t_gone g JOIN watershed_parts.t_gone o ON o.id = 11 AND o._xid = g._xid
         WHERE (g.ts AT TIME ZONE 'UTC')::date = (o.ts AT TIME ZONE 'UTC')::date",
    );
    let e = client.query(&sql.replace("TABLE", "t")).error().expect("a row in both stores");
    assert!(e[&'C'] == "55000" && e[&'D'].contains("lake has them as well"), "{e:?}");
    retain(&instance, 4);
    assert_eq!(client.run(&sql.replace("TABLE", "t")).rows(), right(&mut client));
}

#[test]
fn only_who_may_read_reads() {
    let settings = settings(true);
    let instance = start(&settings);
    let mut client = make_tables(&instance);
    wait_for_secrets(&instance);
    retain(&instance, 5);
    let mut admin = Client::connect(&instance.admin());
    let sql = "SELECT string_agg(kind, ',' ORDER BY id) FROM t";
    let right = client.value(&sql.replace("FROM t", "FROM twin"));
    admin.run("CREATE ROLE stranger LOGIN PASSWORD 'stranger'; CREATE ROLE reader; CREATE ROLE member LOGIN PASSWORD 'member' IN ROLE reader; CREATE ROLE partly");
    admin.run("GRANT stranger, partly TO watershed");
    client.run("CREATE VIEW seen AS SELECT id, kind FROM t");
    client.run("CREATE FUNCTION lent() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT string_agg(kind, '','' ORDER BY id) FROM t'");
    let login = |user: &str| Client::connect(&instance.gateway().login(user, user));
    let mut stranger = login("stranger");
    let denied = |client: &mut Client, sql: &str| client.query(sql).error().map(|e| (e[&'C'].clone(), e[&'M'].clone()));
    assert_eq!(denied(&mut stranger, sql), Some(("42501".into(), "permission denied for table t".into())));
    assert_eq!(denied(&mut stranger, "SELECT string_agg(kind, ',' ORDER BY id) FROM seen"), Some(("42501".into(), "permission denied for view seen".into())));
    // As the function's owner, and as the view's.
    assert_eq!(stranger.value("SELECT lent()"), right);
    client.run("GRANT SELECT ON seen TO stranger; GRANT SELECT ON t TO reader; GRANT SELECT (id, kind) ON t TO partly");
    assert_eq!(stranger.value("SELECT string_agg(kind, ',' ORDER BY id) FROM seen"), right);
    wait_for_secrets(&instance);
    assert_eq!(login("member").value(sql), right);
    client.run("SET ROLE partly");
    assert_eq!(client.value(sql), right);
    assert_eq!(client.query("SELECT string_agg(plain, ',' ORDER BY id) FROM t").sqlstate(), "42501");
    // The gateway cannot read the tail of such a role; PostgreSQL can answer now.
    assert_eq!(client.value("SELECT count(*) FROM t WHERE kind = 'kind 1'"), client.value("RESET ROLE; SELECT count(*) FROM twin WHERE kind = 'kind 1'"));
    client.run("SET ROLE stranger");
    assert_eq!(client.query(sql).sqlstate(), "42501");
    client.run("RESET ROLE");
    // Nobody sees a secret: neither a role its own, nor anybody a log.
    for session in [&mut client, &mut stranger] {
        assert_eq!(session.value("SELECT count(*) FROM pg_user_mappings WHERE umoptions IS NOT NULL"), "0");
        assert_eq!(session.query("SELECT umoptions FROM pg_user_mapping").sqlstate(), "42501");
        assert_eq!(session.query("SELECT watershed_control.cold_secret(10)").sqlstate(), "42501");
        assert_eq!(session.query("SELECT watershed_control.cold_switch(NULL, NULL)").sqlstate(), "42501");
        assert_eq!(session.query("CREATE FOREIGN TABLE mine (id int8) SERVER watershed_cold").sqlstate(), "42501");
        assert_eq!(session.query("CREATE USER MAPPING FOR CURRENT_USER SERVER watershed_cold").sqlstate(), "42501");
    }
    let secrets = admin.run("SELECT umuser::text, split_part(array_to_string(umoptions, ' '), 'password=', 2) FROM pg_user_mapping").rows();
    assert!(secrets.len() > 4);
    let log = std::fs::read_to_string(instance.dir().join("pg.log")).expect("PostgreSQL's log") + &instance.log();
    for row in &secrets {
        let secret = row[1].as_deref().expect("a secret");
        assert!(secret.len() >= 64 && !log.contains(secret));
        assert_eq!(secrets.iter().filter(|r| r[1] == row[1]).count(), 1, "each has its own");
    }
    // Those who knock themselves.
    let dir = admin.value("SELECT socket_dir FROM watershed_control.cold_door");
    let owner = admin.value("SELECT oid FROM pg_roles WHERE rolname = 'watershed'");
    let relation = format!("watershed_cold.t_{}", admin.value("SELECT 't'::regclass::oid"));
    let secret_of = |oid: &str| secrets.iter().find(|r| r[0].as_deref() == Some(oid)).and_then(|r| r[1].clone()).expect("a secret");
    let knock = |user: &str, password: &str| {
        let target = instance.admin().login(user, password).database("watershed");
        Client::try_connect(&support::wire::Target { host: support::wire::Host::Unix(dir.clone().into(), 1), ..target }, &[])
    };
    let other = secrets.iter().map(|r| r[0].clone().expect("a role")).find(|oid| *oid != owner).expect("another role");
    for (user, password) in [(owner.as_str(), "guessed"), (&owner, &secret_of(&other)), ("watershed", &secret_of(&owner)), ("99999999", "x")] {
        assert!(knock(user, password).is_err(), "{user}");
    }
    // Even with the secret: a process that is no backend has no statement.
    let mut knocking = knock(&owner, &secret_of(&owner)).expect("the secret is right");
    for foreign in ["SELECT 1", "SET ROLE postgres", "COPY (SELECT 1) TO STDOUT", "BEGIN", &format!("SELECT * FROM {relation}")] {
        assert_eq!(knocking.query(foreign).sqlstate(), "0A000", "{foreign}");
    }
    knocking.run("START TRANSACTION ISOLATION LEVEL REPEATABLE READ");
    assert_eq!(knocking.query(&format!("DECLARE c1 CURSOR FOR SELECT id FROM {relation}")).sqlstate(), "55000");
    assert_eq!(knocking.query("CLOSE c1").sqlstate(), "25P02");
    knocking.run("ABORT TRANSACTION");
    // Rights that end take the secret with them.
    client.run("REVOKE SELECT ON t FROM reader; REVOKE SELECT (id, kind) ON t FROM partly");
    let left = "SELECT count(*) FROM pg_user_mapping m JOIN pg_roles r ON r.oid = m.umuser WHERE r.rolname IN ('reader', 'member', 'partly')";
    support::wait_for("the end of mappings", || (admin.value(left) == "0").then_some(()));
    admin.run("DROP ROLE member, reader");
}

#[test]
fn switched_off_it_is_as_before_and_out_of_order_it_says_so() {
    let settings = settings(true);
    let instance = start(&settings);
    let mut client = make_tables(&instance);
    wait_for_secrets(&instance);
    retain(&instance, 5);
    let sql = "SELECT string_agg(kind, ',' ORDER BY id) FROM t";
    let right = client.value(&sql.replace("FROM t", "FROM twin"));
    assert_eq!(client.value(sql), right);
    let mut admin = Client::connect(&instance.admin());
    admin.run("ALTER SERVER watershed_cold OPTIONS (SET port '2')");
    let e = Client::connect(&instance.gateway()).query(sql).error().expect("nobody listens");
    assert!(e[&'C'] == "08001" && e[&'H'].contains("gateway"), "{e:?}");
    // The files are away.
    admin.run("ALTER SERVER watershed_cold OPTIONS (SET port '1')");
    let (lake, away) = (instance.dir().join("lake"), instance.dir().join("lake-away"));
    std::fs::rename(&lake, &away).expect("renamed");
    let state = Client::connect(&instance.direct()).query(sql).sqlstate();
    assert!(state.starts_with("58"), "{state}");
    std::fs::rename(&away, &lake).expect("renamed back");
    support::wait_for("the lake's return", || (client.query(sql).rows() == [[Some(right.clone())]]).then_some(()));

    let switch = |cold: &str| {
        std::fs::write(settings.path(), format!("[retention]\ninterval = \"24h\"\nearly = false\ncold = {cold}\n")).expect("written");
        instance.terminate();
        instance.restart();
    };
    switch("false");
    let mut admin = Client::connect(&instance.admin());
    let door = "SELECT count(*) FROM watershed_control.partitions WHERE kind = 'gone' AND watershed_control.is_door(part_relid)";
    support::wait_for("the tripwire", || (admin.value(door) == "0").then_some(()));
    let e = Client::connect(&instance.direct()).query(sql).error().expect("the tripwire");
    assert!(e[&'C'] == "58P01" && e[&'M'].contains("ask through the gateway"), "{e:?}");
    let mut client = Client::connect(&instance.gateway());
    let e = client.query(sql).error().expect("0A000");
    assert!(e[&'C'] == "0A000" && e[&'D'].contains("string_agg"), "{e:?}");
    assert_eq!(client.value("SELECT count(*) FROM t"), "1260");
    // Nobody but the lake can answer. Who may not call a function is refused all the same: one in SQL, put in place, and one of PostgreSQL's.
    client.run("CREATE FUNCTION doubled(n int8) RETURNS int8 LANGUAGE sql STABLE RETURN n * 2");
    let calls = ["SELECT sum(doubled(id)) FROM t", "SELECT count(upper(kind)) FROM t"];
    let known = support::wait_for("the function to be known", || client.query(calls[0]).rows().into_iter().next());
    assert_eq!(known[0], Some(client.value("SELECT sum(id) * 2 FROM twin")));
    admin.run("CREATE ROLE caller; GRANT caller TO watershed; REVOKE EXECUTE ON FUNCTION pg_catalog.upper(text) FROM public");
    client.run("GRANT SELECT ON t TO caller; SET ROLE caller");
    assert_eq!(client.query(calls[0]).rows(), [known]);
    admin.run("REVOKE EXECUTE ON FUNCTION doubled(int8) FROM public");
    for sql in calls {
        let e = client.query(sql).error().expect("refused");
        assert!(e[&'C'] == "0A000" && e[&'D'].contains("a function in it may not be executed by the current user"), "{sql}: {e:?}");
    }
    client.run("RESET ROLE");
    admin.run("GRANT EXECUTE ON FUNCTION pg_catalog.upper(text) TO public; REVOKE SELECT ON t FROM caller");
    support::wait_for("the end of mappings", || (admin.value("SELECT count(*) FROM pg_user_mapping") == "0").then_some(()));
    // A floor that rises while it is off, and is found when it is on again.
    retain(&instance, 3);
    switch("true");
    let mut admin = Client::connect(&instance.admin());
    support::wait_for("the door", || (admin.value(door) == "1").then_some(()));
    wait_for_secrets(&instance);
    assert_eq!(Client::connect(&instance.gateway()).value(sql), right);
    assert_eq!(Client::connect(&instance.direct()).value(sql), right);
}

/// A condition that PostgreSQL ships, or keeps; on any column, and on several.
fn predicate(random: &mut Sequence, depth: u32) -> String {
    let day = |random: &mut Sequence| format!("(now() - interval '{} hours')", random.below(24 * 14));
    let at = |random: &mut Sequence| format!("'2026-{:02}-{:02} {:02}:00:00+0{}'", 1 + random.below(12), 1 + random.below(28), random.below(24), random.below(9));
    let op = |random: &mut Sequence| ["=", "<>", "<", "<=", ">", ">="][random.below(6) as usize];
    match random.below(if depth > 0 { 22 } else { 18 }) {
        0 => format!("id {} {}", op(random), random.below(1400) as i64 - 100),
        1 => format!("ts {} {}", op(random), day(random)),
        2 => format!("ts {} {}", op(random), at(random)),
        3 => format!("kind {} 'kind {}'", op(random), random.below(6)),
        4 => format!("amount {} {}.25", op(random), random.below(1500)),
        5 => format!("n {} {}", op(random), random.below(1300) as i64 - 650),
        6 => format!("small + n {} {}", op(random), random.below(1300) as i64 - 650),
        7 => format!("single {} {}", op(random), random.below(400)),
        8 => format!("double {} '{}'", op(random), ["NaN", "Infinity", "-Infinity", "0.14285714285714285", "1e2"][random.below(5) as usize]),
        9 => format!("free {} {}e{}", op(random), random.below(13), random.below(8)),
        10 => format!("short {} 'sh\"ort{}'", op(random), random.below(1300)),
        11 => format!("day {} date '2020-02-28' + {}", op(random), random.below(1300)),
        12 => format!("at {} '2000-01-{:02} 01:02:03.{}'", op(random), 1 + random.below(31), random.below(1_000_000)),
        13 => format!("who {} '{:08x}-0000-0000-0000-00000000000{}'", op(random), random.below(1 << 32), random.below(10)),
        14 => format!("plain {} '{}{}'", op(random), ["Ä", "z", "a"][random.below(3) as usize], (b'a' + random.below(26) as u8) as char),
        15 => ["flag", "NOT flag", "flag IS NULL", "note IS NULL", "who IS NOT NULL", "n IS DISTINCT FROM small"][random.below(6) as usize].to_owned(),
        16 => format!("note @> '{{\"n\": {}}}'", random.below(1300)),
        17 => format!("lower(kind) LIKE '%{}' ESCAPE '!'", random.below(6)),
        18 | 19 => format!("({} OR {})", predicate(random, depth - 1), predicate(random, depth - 1)),
        20 => format!("NOT ({})", predicate(random, depth - 1)),
        _ => format!("({} AND {})", predicate(random, depth - 1), predicate(random, depth - 1)),
    }
}

#[test]
fn random_conditions_keep_the_same_rows() {
    let settings = settings(true);
    let instance = start(&settings);
    make_tables(&instance);
    wait_for_secrets(&instance);
    retain(&instance, 4);
    let mut direct = Client::connect(&instance.direct());
    let mut random = Sequence(std::env::var("WATERSHED_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(7));
    let mut kept = 0;
    for _ in 0..200 {
        let predicate = predicate(&mut random, 3);
        direct.run("BEGIN");
        let right = direct.query(&format!("SELECT {ALL} FROM twin WHERE {predicate}"));
        let got = direct.query(&format!("SELECT {ALL} FROM t WHERE {predicate}"));
        direct.run("ROLLBACK");
        assert!(right.error().is_none(), "{predicate}\n{right:?}");
        assert_eq!(difference(&right, &got, false), None, "{predicate}\n{:?}", got.error());
        kept += usize::from(!right.rows().is_empty());
    }
    assert!(kept > 100, "{kept}");
}

/// Rows that come at any time of any day, archives, raises and late rows that leave, while statements run in old snapshots and new ones.
#[test]
fn every_row_is_there_once_while_rows_come_and_leave() {
    let settings = settings(true);
    let instance = start(&settings);
    make_tables(&instance);
    wait_for_secrets(&instance);
    let over = AtomicBool::new(false);
    let answered: usize = std::thread::scope(|scope| {
        let (instance, over) = (&instance, &over);
        scope.spawn(move || {
            let mut client = Client::connect(&instance.gateway());
            let mut next = 10_000;
            while !over.load(Ordering::Relaxed) {
                add(&mut client, &rows(next, next + 5, &format!("now() - (i % {DAYS}) * interval '1 day'")));
                next += 6;
                std::thread::sleep(std::time::Duration::from_millis(120));
            }
        });
        let readers: Vec<_> = (0..2)
            .map(|seed| {
                scope.spawn(move || {
                    let mut random = Sequence(seed);
                    let target = if seed == 0 { instance.gateway() } else { instance.direct() };
                    let mut client = Client::connect(&target);
                    let (mut answered, mut refused) = (0_usize, 0_usize);
                    while !over.load(Ordering::Relaxed) || answered < 20 {
                        let predicate = predicate(&mut random, 2);
                        // Both tables in one statement, and so in one snapshot.
                        let list = |table: &str| format!("(SELECT string_agg(id::text, ',' ORDER BY id) FROM {table} WHERE {predicate})");
                        let sql = format!("SELECT {} IS NOT DISTINCT FROM {}", list("twin"), list("t"));
                        let old = random.below(3) == 0;
                        client.run(if old { "BEGIN ISOLATION LEVEL REPEATABLE READ" } else { "BEGIN" });
                        if old {
                            client.run("SELECT 1 FROM twin LIMIT 1");
                            std::thread::sleep(std::time::Duration::from_millis(random.below(400)));
                        }
                        let reply = client.query(&sql);
                        client.run("ROLLBACK");
                        match reply.sqlstate().as_str() {
                            "" | "00000" => {
                                assert_eq!(reply.value(), "t", "{sql}");
                                answered += 1;
                            }
                            "40001" | "55000" => refused += 1,
                            // A machine under load.
                            "58030" if reply.error().is_some_and(|e| e[&'D'].contains("does not answer")) => refused += 1,
                            other => panic!("{other}: {sql}\n{reply:?}"),
                        }
                    }
                    assert!(answered > refused, "{answered} answered, {refused} refused");
                    answered
                })
            })
            .collect();
        for hot_days in [11, 8, 7, 7, 5, 4, 4, 2] {
            let mut owner = Client::connect(&instance.gateway());
            owner.run(&format!("SELECT watershed.set_retention('public.t', hot_days => {hot_days})"));
            instance.archive();
            for _ in 0..20 {
                let output = instance.output(&["retain", "t", "--notice", "0s"]);
                match output.status.code() {
                    Some(0) => break,
                    Some(1) if ["in use", "open for long", "has changed since"].iter().any(|w| shown(&output).contains(w)) => {}
                    _ => panic!("{}", shown(&output)),
                }
            }
        }
        over.store(true, Ordering::Relaxed);
        readers.into_iter().map(|r| r.join().expect("a reader")).sum()
    });
    assert!(answered >= 40);
    let mut client = Client::connect(&instance.gateway());
    assert_statements(&mut client);
}
