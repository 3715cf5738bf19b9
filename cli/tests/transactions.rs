//! Transactions through the gateway: what drivers do that send BEGIN first, every isolation level, savepoints, aborted blocks, two
//! phases, and statements that were prepared once while tables, search paths and roles change. Each script runs on PostgreSQL
//! directly and through the gateway and must get the same frames; `watershed.queries` tells which store answered.

mod support;

use support::compare::difference;
use support::instance::Instance;
use support::wire::{Client, Format, Reply, frontend};
use support::wait_for;

fn instance() -> &'static Instance {
    Instance::shared()
}

/// A session on PostgreSQL itself and one through the gateway, which do the same things one after the other.
struct Pair {
    direct: Client,
    gateway: Client,
}

impl Pair {
    fn owner() -> Pair {
        Pair { direct: Client::connect(&instance().direct()), gateway: Client::connect(&instance().gateway()) }
    }

    fn admin() -> Pair {
        let gateway = Client::connect(&instance().admin_through_gateway());
        Pair { direct: Client::connect(&instance().admin()), gateway }
    }

    /// Sends the same frames on both sides and compares what comes back until `syncs` times ReadyForQuery.
    #[track_caller]
    fn send(&mut self, what: &str, frames: &[Vec<u8>], syncs: usize) -> Reply {
        let bytes = frames.concat();
        let ask = |client: &mut Client| {
            client.send(&bytes);
            let mut all = Reply { frames: Vec::new() };
            for _ in 0..syncs {
                all.frames.extend(client.reply().frames);
            }
            all
        };
        let (expected, actual) = (ask(&mut self.direct), ask(&mut self.gateway));
        if let Some(difference) = difference(&expected, &actual, true) {
            panic!("{what}: {difference}\n  directly:\n{expected:?}  through the gateway:\n{actual:?}");
        }
        actual
    }

    #[track_caller]
    fn query(&mut self, sql: &str) -> Reply {
        self.send(sql, &[frontend::query(sql)], 1)
    }

    #[track_caller]
    fn script(&mut self, script: &[&str]) {
        for sql in script {
            self.query(sql);
        }
    }

    /// Binds and executes a prepared statement, and names what both answered.
    #[track_caller]
    fn execute(&mut self, what: &str, statement: &str) -> Reply {
        self.send(what, &[bind("", statement), frontend::execute("", 0), frontend::sync()], 1)
    }

    /// As a simple Query and as an extended one: the same answer, from that store.
    #[track_caller]
    fn query_at(&mut self, sql: &str, store: &str) -> Reply {
        self.send(sql, &[extended(sql), frontend::sync()], 1);
        assert_eq!(self.route(sql), store, "{sql}, extended");
        let reply = self.query(sql);
        assert_eq!(self.route(sql), store, "{sql}");
        reply
    }

    /// Where the gateway's session had its latest run of `sql` answered.
    #[track_caller]
    fn route(&self, sql: &str) -> String {
        instance().route(&self.gateway, sql).0
    }
}

/// Parse, Bind, Describe, Execute of the unnamed statement, without Sync.
fn extended(sql: &str) -> Vec<u8> {
    [frontend::parse("", sql, &[]), bind("", ""), frontend::describe(b'P', ""), frontend::execute("", 0)].concat()
}

fn bind(portal: &str, statement: &str) -> Vec<u8> {
    frontend::bind(portal, statement, Format::Text, &[], Format::Text)
}

/// A tiered table `name(ts, a, t)` with 90 rows in the lake and 10 in the tail: `a` runs from 0 to 99.
fn table(name: &str) {
    let mut owner = Client::connect(&instance().gateway());
    let full = if name.contains('.') { name.to_owned() } else { format!("public.{name}") };
    owner.run(&format!("CREATE TABLE {full} (ts timestamptz NOT NULL, a int4, t text)"));
    owner.run(&format!("SELECT watershed.attach_table('{full}', event_time => 'ts')"));
    owner.run(&rows(&full, 0, 89));
    archive(&full);
    owner.run(&rows(&full, 90, 99));
    known(&full);
}

fn rows(name: &str, from: i32, to: i32) -> String {
    format!(
        "INSERT INTO {name} (ts, a, t) SELECT timestamptz '2024-03-10 00:00:00+00' + g * interval '7 hours', g, 'text ' || g % 7 FROM generate_series({from}, {to}) g"
    )
}

fn archive(name: &str) {
    let full = if name.contains('.') { name.to_owned() } else { format!("public.{name}") };
    instance().run(&["archive", "--now", &full]);
}

/// Waits until the gateway has noticed a table or view.
fn known(name: &str) {
    let mut owner = Client::connect(&instance().gateway());
    let sql = format!("SELECT count(*) FROM {name}");
    wait_for(&format!("the gateway to know {name}"), || {
        owner.run(&sql);
        (instance().route(&owner, &sql).0 == "lake").then_some(())
    });
}

/// Waits until the gateway reads what was archived last: of the table, nothing is tail any more.
fn caught_up(name: &str) {
    let mut owner = Client::connect(&instance().gateway());
    let sql = format!("SELECT count(*) AS caught_up FROM {name}");
    wait_for(&format!("the gateway to see what was archived of {name}"), || {
        owner.run(&sql);
        let mut reader = Client::connect(&instance().admin_through_gateway());
        let tail = reader.value(&format!(
            "SELECT tail_rows FROM watershed.queries WHERE pid = {} AND sql = $sql${sql}$sql$ ORDER BY id DESC LIMIT 1",
            owner.pid
        ));
        (tail == "0").then_some(())
    });
}

// ---- BEGIN first ----------------------------------------------------------------------------------------------------------

/// psycopg2 and everything with autocommit off: BEGIN in front of whatever comes first.
#[test]
fn reads_behind_begin_go_to_the_lake_with_the_transactions_own_rows() {
    table("begun");
    let mut pair = Pair::owner();
    let sums = "SELECT count(*), sum(a), min(t), max(t) FROM begun";
    let groups = "SELECT t, count(*) FROM begun WHERE a > 80 GROUP BY t ORDER BY t";
    for begin in ["BEGIN", "BEGIN READ WRITE", "START TRANSACTION ISOLATION LEVEL READ COMMITTED", "BEGIN ISOLATION LEVEL READ UNCOMMITTED"] {
        for end in ["ROLLBACK", "COMMIT"] {
            pair.query(begin);
            pair.query_at(sums, "lake");
            // Each side its own row, of the same values: rolled back, or taken out of the way below.
            pair.query("SAVEPOINT mine");
            pair.query("INSERT INTO begun (ts, a, t) VALUES ('2024-03-20', 1000, 'own'), ('1990-01-01', 1001, 'own too')");
            assert!(pair.query_at(sums, "lake").rows()[0][0].as_deref() == Some("102"));
            pair.query_at(groups, "lake");
            pair.query("ROLLBACK TO mine");
            assert!(pair.query_at(sums, "lake").rows()[0][0].as_deref() == Some("100"));
            pair.query("INSERT INTO begun (ts, a, t) VALUES ('2024-03-21', 2000, 'again')");
            pair.query_at(groups, "lake");
            pair.query("ROLLBACK TO mine");
            pair.query(end);
        }
    }
    // pgjdbc with autocommit off: BEGIN in the same pipeline, named statements from the fifth execution on, binary then.
    let sql = "SELECT count(*), sum(a) FROM begun WHERE a >= $1";
    pair.send("prepare", &[frontend::parse("S_1", "BEGIN", &[]), frontend::parse("S_2", sql, &[23]), frontend::sync()], 1);
    for round in 0..7u8 {
        let results = if round < 4 { Format::Text } else { Format::Binary };
        let frames = [
            bind("", "S_1"),
            frontend::execute("", 0),
            frontend::bind("", "S_2", Format::Binary, &[Some(10i32.to_be_bytes().to_vec())], results),
            frontend::describe(b'P', ""),
            frontend::execute("", 0),
            frontend::sync(),
        ];
        let reply = pair.send("with BEGIN in front", &frames, 1);
        assert_eq!(reply.status(), 'T');
        assert_eq!(pair.route(sql), "lake", "round {round}");
        pair.query("INSERT INTO begun (ts, a, t) VALUES ('2024-03-20', 1000, 'own')");
        pair.send("again", &frames[2..], 1);
        assert_eq!(pair.route(sql), "lake", "round {round}");
        pair.query("ROLLBACK");
    }
}

/// A portal answers from the moment at which it was bound, whenever it is executed.
#[test]
fn a_portal_gives_the_rows_of_the_moment_it_was_bound() {
    table("bound");
    let sql = "SELECT count(*), max(a) FROM bound";
    let insert = "INSERT INTO bound (ts, a, t) VALUES ('2024-03-20', 700, 'own')";
    let (execute, sync) = (frontend::execute, frontend::sync);
    let mut pair = Pair::owner();
    let count = |reply: &Reply| reply.rows()[0][0].clone().unwrap_or_default();
    pair.send("prepare", &[frontend::parse("st", sql, &[]), sync()], 1);
    pair.query("BEGIN");
    // Own rows in between, in one pipeline.
    let reply = pair.send("one pipeline", &[bind("p", "st"), extended(insert), execute("p", 0), sync()], 1);
    assert_eq!(count(&reply), "100");
    // Across a Sync; two portals of different moments; executed in the other order.
    pair.send("before", &[bind("early", "st"), sync()], 1);
    pair.query(insert);
    pair.send("between", &[bind("late", "st"), sync()], 1);
    pair.query(insert);
    let reply = pair.send("both", &[execute("late", 0), execute("early", 0), sync()], 1);
    assert_eq!(reply.rows().iter().map(|r| r[0].clone().unwrap_or_default()).collect::<Vec<_>>(), ["102", "101"]);
    assert_eq!(pair.route(sql), "lake");
    pair.query("ROLLBACK");
    // Rows of others, committed meanwhile: they are for whoever binds from then on.
    pair.query("BEGIN");
    pair.send("before", &[bind("p", "st"), sync()], 1);
    Client::connect(&instance().direct()).run(insert);
    let reply = pair.send("others' rows", &[execute("p", 0), sync()], 1);
    assert_eq!(count(&reply), "100");
    assert_eq!(pair.route(sql), "lake");
    let reply = pair.execute("afterwards", "st");
    assert_eq!(count(&reply), "101");
    // Flush instead of Sync.
    for client in [&mut pair.direct, &mut pair.gateway] {
        client.send(&[bind("f", "st"), frontend::flush()].concat());
        assert_eq!(client.until(b"2E").shape(), "2");
    }
    Client::connect(&instance().direct()).run(insert);
    let reply = pair.send("after a Flush", &[execute("f", 0), sync()], 1);
    assert_eq!(count(&reply), "101");
    pair.query("COMMIT");
}

// ---- Isolation ------------------------------------------------------------------------------------------------------------

/// One snapshot from the first statement on: the lake serves it as long as one of its versions holds nothing that the snapshot does
/// not see, however far the archiver has gone on.
#[test]
fn a_fixed_snapshot_is_served_by_a_version_of_the_lake_that_it_covers() {
    table("covered");
    let sql = "SELECT count(*), sum(a), max(t) FROM covered";
    let mut writer = Client::connect(&instance().direct());
    for level in ["BEGIN ISOLATION LEVEL REPEATABLE READ", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"] {
        let mut pair = Pair::owner();
        pair.query(level);
        let before = pair.query_at(sql, "lake").rows();
        writer.run(&rows("covered", 100, 104));
        assert_eq!(pair.query_at(sql, "lake").rows(), before, "rows that came later");
        archive("covered");
        caught_up("covered");
        assert_eq!(pair.query_at(sql, "lake").rows(), before, "{level}: the version of before still serves it");
        instance().run(&["compact", "public.covered"]);
        assert_eq!(pair.query_at(sql, "lake").rows(), before, "after the compactor");
        pair.query("COMMIT");
        assert_ne!(pair.query_at(sql, "lake").rows(), before);
    }
    // The snapshot is older than the first statement over the table, and older than what was archived meanwhile.
    let mut pair = Pair::owner();
    pair.script(&["BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT 1"]);
    writer.run(&rows("covered", 105, 106));
    archive("covered");
    caught_up("covered");
    let expected = pair.query(sql).rows();
    assert_ne!(expected, writer.run(sql).rows());
    pair.query("COMMIT");
    // Own rows are seen, under a fixed snapshot too.
    pair.script(&["BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT 1"]);
    pair.query("INSERT INTO covered (ts, a, t) VALUES ('2024-03-20', 3000, 'zz')");
    pair.query_at(sql, "lake");
    pair.script(&["SAVEPOINT s", "INSERT INTO covered (ts, a, t) VALUES ('2024-03-20', 3001, 'zzz')"]);
    pair.query_at(sql, "lake");
    pair.query("ROLLBACK TO s");
    pair.query_at(sql, "lake");
    pair.query("ROLLBACK");
}

/// A transaction that was open when the snapshot was taken, and has committed and is archived since, is not in the snapshot.
#[test]
fn a_writer_that_was_running_stays_unseen_by_a_fixed_snapshot() {
    table("running");
    let sql = "SELECT count(*), sum(a) FROM running";
    let mut writer = Client::connect(&instance().direct());
    writer.run("BEGIN");
    writer.run(&rows("running", 100, 109));
    // Numbers above the writer's are given out and committed, so that its own lies inside of the snapshots.
    Client::connect(&instance().direct()).run(&rows("running", 110, 111));
    let mut pair = Pair::owner();
    pair.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
    let before = pair.query_at(sql, "lake").rows();
    writer.run("COMMIT");
    assert_eq!(pair.query_at(sql, "lake").rows(), before);
    archive("running");
    caught_up("running");
    assert_eq!(pair.query(sql).rows(), before);
    pair.query("COMMIT");
    assert_eq!(pair.query_at(sql, "lake").rows()[0][0].as_deref(), Some("112"));
}

#[test]
fn serializable_transactions_stay_on_postgresql() {
    table("serial");
    let sql = "SELECT count(*), sum(a) FROM serial";
    let mut pair = Pair::owner();
    for begin in ["BEGIN ISOLATION LEVEL SERIALIZABLE", "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE"] {
        pair.query(begin);
        pair.query_at(sql, "postgres");
        pair.query("COMMIT");
    }
    pair.query("SET default_transaction_isolation = 'serializable'");
    pair.query_at(sql, "postgres");
    pair.query("RESET default_transaction_isolation");
    pair.query_at(sql, "lake");
    pair.script(&["BEGIN", "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"]);
    pair.query_at(sql, "postgres");
    pair.query("ROLLBACK");
    pair.query("BEGIN");
    pair.query_at(sql, "lake");
    // Too late, after a query: whoever answered it.
    assert_eq!(pair.query("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE").sqlstate(), "25001");
    pair.query("ROLLBACK");
    // Write skew over a tiered table: one of the two fails, as PostgreSQL has it.
    let mut one = Client::connect(&instance().gateway());
    let mut two = Client::connect(&instance().gateway());
    for client in [&mut one, &mut two] {
        client.run("BEGIN ISOLATION LEVEL SERIALIZABLE");
        client.run(sql);
    }
    for client in [&mut one, &mut two] {
        client.run("INSERT INTO serial (ts, a, t) SELECT '2024-03-20', count(*), 'skew' FROM serial");
    }
    one.run("COMMIT");
    assert_eq!(two.query("COMMIT").sqlstate(), "40001");
}

// ---- Blocks ---------------------------------------------------------------------------------------------------------------

#[test]
fn savepoints_and_aborted_blocks_are_those_of_postgresql() {
    table("saved");
    let sql = "SELECT count(*), sum(a) FROM saved";
    let fails = "SELECT count(*) FROM saved WHERE 1 / (a - a) > 0";
    let mut pair = Pair::owner();
    pair.send("prepare", &[frontend::parse("st", sql, &[]), frontend::parse("bad", fails, &[]), frontend::sync()], 1);
    pair.script(&["BEGIN", "SAVEPOINT a", "INSERT INTO saved (ts, a, t) VALUES ('2024-03-20', 500, 'a')", "SAVEPOINT b"]);
    pair.query_at(sql, "lake");
    pair.script(&["INSERT INTO saved (ts, a, t) VALUES ('2024-03-20', 501, 'b')"]);
    pair.execute("prepared", "st");
    // The lake's own error aborts the block; everything is refused until it is rolled back, prepared or not.
    assert_eq!(pair.execute("an error of the lake", "bad").sqlstate(), "22012");
    for round in 0..3 {
        assert_eq!(pair.execute("aborted", "st").sqlstate(), "25P02", "round {round}");
        assert_eq!(pair.query(sql).sqlstate(), "25P02");
        assert_eq!(pair.send("parse", &[extended(sql), frontend::sync()], 1).sqlstate(), "25P02");
        assert_eq!(pair.query("SAVEPOINT c").sqlstate(), "25P02");
        pair.send("what is allowed", &[extended("ROLLBACK TO b"), frontend::sync()], 1);
        assert_eq!(pair.query_at(sql, "lake").rows()[0][0].as_deref(), Some("101"));
        pair.execute("prepared", "st");
        assert_eq!(pair.query(fails).sqlstate(), "22012");
    }
    pair.script(&["ROLLBACK TO a", "RELEASE a"]);
    assert_eq!(pair.query_at(sql, "lake").rows()[0][0].as_deref(), Some("100"));
    pair.query(fails);
    // COMMIT of an aborted block is a ROLLBACK.
    assert_eq!(pair.query("COMMIT").tags(), ["ROLLBACK"]);
    pair.query_at(sql, "lake");
    // Chains keep the level; a statement outside of blocks warns.
    pair.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
    pair.query_at(sql, "lake");
    pair.query("COMMIT AND CHAIN");
    pair.query_at(sql, "lake");
    assert_eq!(pair.query("SHOW transaction_isolation").value(), "repeatable read");
    pair.query("ROLLBACK AND CHAIN");
    pair.query_at(sql, "lake");
    pair.script(&["COMMIT", "COMMIT", "ROLLBACK", "SAVEPOINT nowhere", "BEGIN", "BEGIN", "ROLLBACK"]);
    // READ ONLY: reading goes to the lake, writing fails.
    for begin in ["BEGIN READ ONLY", "BEGIN; SET TRANSACTION READ ONLY"] {
        pair.query(begin);
        pair.query_at(sql, "lake");
        assert_eq!(pair.query("INSERT INTO saved (ts, a, t) VALUES (now(), 1, 'no')").sqlstate(), "25006");
        assert_eq!(pair.execute("aborted", "st").sqlstate(), "25P02");
        pair.query("ROLLBACK");
    }
}

/// Rows of a prepared transaction are nobody's until COMMIT PREPARED, and then everybody's, even where the archiver passed meanwhile.
#[test]
fn prepared_transactions_keep_their_rows_until_they_are_committed() {
    table("phased");
    let sql = "SELECT count(*), sum(a) FROM phased";
    let mut pair = Pair::owner();
    let counted = |pair: &mut Pair| pair.query_at(sql, "lake").rows()[0][0].clone().unwrap_or_default();
    // The names of prepared transactions are the cluster's: one session prepares, both look.
    let mut writer = Client::connect(&instance().gateway());
    writer.run("BEGIN");
    writer.run(sql);
    writer.run(&rows("phased", 100, 104));
    assert_eq!(writer.run(sql).rows()[0][0].as_deref(), Some("105"));
    assert_eq!(instance().route(&writer, sql).0, "lake");
    assert_eq!(writer.run("PREPARE TRANSACTION 'phased one'").tags(), ["PREPARE TRANSACTION"]);
    assert_eq!(writer.run(sql).rows()[0][0].as_deref(), Some("100"));
    assert_eq!(counted(&mut pair), "100");
    // Archived around it.
    Client::connect(&instance().direct()).run(&rows("phased", 105, 106));
    archive("phased");
    caught_up("phased");
    assert_eq!(counted(&mut pair), "102");
    writer.run("COMMIT PREPARED 'phased one'");
    assert_eq!(counted(&mut pair), "107");
    archive("phased");
    caught_up("phased");
    assert_eq!(counted(&mut pair), "107");
    // The other end, and what PostgreSQL refuses.
    writer.run("BEGIN");
    writer.run(&rows("phased", 200, 204));
    writer.run("PREPARE TRANSACTION 'phased two'");
    archive("phased");
    writer.run("ROLLBACK PREPARED 'phased two'");
    assert_eq!(counted(&mut pair), "107");
    assert_eq!(writer.query("COMMIT PREPARED 'phased two'").sqlstate(), "42704");
    writer.run("BEGIN");
    writer.run(sql);
    assert_eq!(writer.query("SELECT count(*) FROM phased WHERE 1 / (a - a) > 0").sqlstate(), "22012");
    assert_eq!(writer.query("PREPARE TRANSACTION 'phased three'").tags(), ["ROLLBACK"]);
    assert_eq!(writer.query("COMMIT PREPARED 'phased three'").sqlstate(), "42704");
}

// ---- Prepared once, executed many times -----------------------------------------------------------------------------------

/// Before each change a statement is executed often enough that drivers and PostgreSQL have settled on it.
#[track_caller]
fn settle(pair: &mut Pair, statement: &str, sql: &str) {
    for _ in 0..7 {
        pair.execute(sql, statement);
    }
    assert_eq!(pair.route(sql), "lake", "{sql}");
}

#[test]
fn ddl_under_a_prepared_statement() {
    table("altered");
    let mut owner = Client::connect(&instance().direct());
    owner.run("CREATE VIEW altered_view AS SELECT count(*) AS n, max(a) AS m FROM altered");
    known("altered_view");
    let mut pair = Pair::owner();
    let statements = [
        ("star", "SELECT DISTINCT * FROM altered WHERE a < 3 ORDER BY a"),
        ("named", "SELECT a, count(*) FROM altered WHERE a < 3 GROUP BY a ORDER BY a"),
        ("through", "SELECT * FROM altered_view"),
        ("whole", "SELECT count(*) FROM altered"),
    ];
    for (name, sql) in statements {
        pair.send(sql, &[frontend::parse(name, sql, &[]), frontend::describe(b'S', name), frontend::sync()], 1);
    }
    for (name, sql) in statements {
        settle(&mut pair, name, sql);
    }
    owner.run("ALTER TABLE altered ADD COLUMN extra int4");
    let refused = pair.execute("another column", "star");
    assert_eq!(refused.sqlstate(), "0A000");
    assert_eq!(refused.error().expect("an error")[&'M'], "cached plan must not change result type");
    for (name, sql) in &statements[1..] {
        pair.execute(sql, name);
    }
    // In a block the refusal aborts it.
    pair.query("BEGIN");
    pair.execute("whole", "whole");
    assert_eq!(pair.execute("star", "star").sqlstate(), "0A000");
    assert_eq!(pair.execute("whole", "whole").sqlstate(), "25P02");
    pair.query("ROLLBACK");
    // A view of another shape, then of the same shape and another meaning.
    owner.run("CREATE OR REPLACE VIEW altered_view AS SELECT count(*) AS n, max(a) AS m, min(a) AS least FROM altered");
    for _ in 0..3 {
        let refused = pair.execute("a view of another shape", "through");
        assert_eq!(refused.error().expect("an error")[&'M'], "cached plan must not change result type");
    }
    owner.run("DROP VIEW altered_view; CREATE VIEW altered_view AS SELECT count(*) * 2 AS n, min(a) AS m FROM altered");
    for _ in 0..3 {
        let reply = pair.execute("a view of another meaning", "through");
        assert_eq!(reply.rows(), [[Some("200".to_owned()), Some("0".to_owned())]]);
    }
    // Columns keep their numbers under other names; the text of the statement means the name.
    owner.run("ALTER TABLE altered RENAME COLUMN a TO b");
    for _ in 0..3 {
        assert_eq!(pair.execute("a renamed column", "named").sqlstate(), "42703");
        pair.execute("whole", "whole");
    }
    owner.run("ALTER TABLE altered RENAME COLUMN b TO a");
    pair.execute("named again", "named");
    owner.run("ALTER TABLE altered RENAME TO altered_away");
    assert_eq!(pair.execute("a renamed table", "whole").sqlstate(), "42P01");
    owner.run("CREATE TABLE altered (a int8)");
    let reply = pair.execute("another table of that name", "whole");
    assert_eq!(reply.value(), "0");
    assert_eq!(pair.execute("of another type", "named").error().expect("an error")[&'M'], "cached plan must not change result type");
    owner.run("DROP TABLE altered; ALTER TABLE altered_away RENAME TO altered");
    assert_eq!(pair.execute("back again", "whole").value(), "100");
    owner.run("DROP VIEW altered_view; SELECT watershed.drop_table('altered')");
    for (name, _) in statements {
        assert_eq!(pair.execute("a dropped table", name).sqlstate(), "42P01", "{name}");
    }
}

#[test]
fn search_paths_and_temporary_tables_under_a_prepared_statement() {
    let mut owner = Client::connect(&instance().direct());
    owner.run("CREATE SCHEMA here; CREATE SCHEMA there; CREATE SCHEMA elsewhere");
    table("here.pathed");
    table("there.pathed");
    owner.run("INSERT INTO there.pathed (ts, a, t) VALUES ('2024-03-20', 1, 'there')");
    owner.run("CREATE TABLE elsewhere.pathed (a int8, t text)");
    owner.run("INSERT INTO elsewhere.pathed VALUES (1, 'elsewhere')");
    let mut pair = Pair::owner();
    let (count, sum) = ("SELECT count(*), max(t) FROM pathed", "SELECT max(a) FROM pathed");
    pair.query("SET search_path = here");
    for (name, sql) in [("count", count), ("max", sum)] {
        pair.send(sql, &[frontend::parse(name, sql, &[]), frontend::sync()], 1);
        settle(&mut pair, name, sql);
    }
    let mut after = |change: &str, expected: &str, of_max: &str| {
        pair.query(change);
        for _ in 0..3 {
            let reply = pair.execute(change, "count");
            assert_eq!(reply.error().map_or_else(|| reply.rows()[0][0].clone().unwrap_or_default(), |e| e[&'C'].clone()), expected, "{change}");
            let reply = pair.execute(change, "max");
            assert_eq!(reply.sqlstate(), of_max, "{change}");
        }
        pair.route(count)
    };
    assert_eq!(after("SET search_path = there", "101", "00000"), "lake");
    assert_eq!(after("SET search_path = elsewhere", "1", "0A000"), "postgres");
    assert_eq!(after("SET search_path = here", "100", "00000"), "lake");
    after("SET search_path = nowhere", "42P01", "42P01");
    after("SET search_path = nowhere, there, here", "101", "00000");
    after("BEGIN; SET LOCAL search_path = here", "100", "00000");
    after("COMMIT", "101", "00000");
    // Temporary tables come first.
    after("CREATE TEMP TABLE pathed (a int4, t text)", "0", "00000");
    after("INSERT INTO pg_temp.pathed VALUES (5, 'temporary')", "1", "00000");
    after("DROP TABLE pg_temp.pathed", "101", "00000");
    // (Another one PostgreSQL notices only if something else has it look again: the session has a schema for them already.)
    assert_eq!(after("SELECT 1", "101", "00000"), "lake");
    // In one pipeline, before the statement and between two of its executions.
    let frames = [
        extended("SET search_path = here"),
        bind("", "count"),
        frontend::execute("", 0),
        extended("SET search_path = elsewhere"),
        bind("", "count"),
        frontend::execute("", 0),
        extended("SET search_path = there"),
        bind("", "count"),
        frontend::execute("", 0),
        frontend::sync(),
    ];
    let reply = pair.send("a pipeline of paths", &frames, 1);
    let counts: Vec<_> = reply.rows().iter().map(|r| r[0].clone().unwrap_or_default()).collect();
    assert_eq!(counts, ["100", "1", "101"]);
}

/// PostgreSQL says only once that it has analyzed a statement anew: whoever makes it do so, the next Bind must not rely on what was
/// known before.
#[test]
fn analyses_that_nobody_saw() {
    let mut owner = Client::connect(&instance().direct());
    owner.run("CREATE SCHEMA seen; CREATE SCHEMA unseen");
    table("seen.looked");
    table("unseen.looked");
    owner.run("INSERT INTO unseen.looked (ts, a, t) VALUES ('2024-03-20', 1000, 'unseen')");
    let sql = "SELECT count(*), max(a) FROM looked WHERE a >= $1";
    let mut pair = Pair::owner();
    pair.query("CREATE FUNCTION pg_temp.runs(text) RETURNS int8 LANGUAGE plpgsql AS 'DECLARE n int8; BEGIN EXECUTE $1 INTO n; RETURN n; END'");
    pair.query("SET search_path = seen");
    pair.send("prepare", &[frontend::parse("st", sql, &[23]), frontend::describe(b'S', "st"), frontend::sync()], 1);
    let run = |pair: &mut Pair, value: &str| {
        let value = Some(value.as_bytes().to_vec());
        let bind = frontend::bind("", "st", Format::Text, &[value], Format::Text);
        let reply = pair.send("execute", &[bind, frontend::execute("", 0), frontend::sync()], 1);
        reply.rows().first().and_then(|row| row[0].clone())
    };
    let ways: [(&str, Vec<Vec<u8>>); 6] = [
        ("a Describe", vec![frontend::describe(b'S', "st"), frontend::sync()]),
        ("EXECUTE", vec![frontend::query("EXECUTE st (0)")]),
        ("EXPLAIN of it", vec![frontend::query("EXPLAIN (COSTS OFF) EXECUTE st (0)")]),
        // The word stands in two pieces, as a function might hold it.
        ("out of a function", vec![frontend::query("SELECT pg_temp.runs('EXE' || 'CUTE st (0)')")]),
        (
            "a Bind that fails",
            vec![frontend::bind("", "st", Format::Text, &[Some(b"x".to_vec())], Format::Text), frontend::sync()],
        ),
        ("DISCARD PLANS", vec![frontend::query("DISCARD PLANS")]),
    ];
    for (what, frames) in &ways {
        for _ in 0..3 {
            assert_eq!(run(&mut pair, "0").as_deref(), Some("100"), "before {what}");
        }
        // It means again what it is known to mean.
        assert_eq!(pair.route(sql), "lake", "before {what}");
        pair.query("SET search_path = unseen");
        pair.send(what, frames, 1);
        for _ in 0..3 {
            assert_eq!(run(&mut pair, "0").as_deref(), Some("101"), "after {what}");
        }
        pair.query("SET search_path = seen");
        pair.send(what, frames, 1);
    }
    // A transaction that is rolled back takes its search path with it, and no analysis.
    pair.script(&["BEGIN", "SET LOCAL search_path = unseen"]);
    assert_eq!(run(&mut pair, "0").as_deref(), Some("101"));
    pair.query("ROLLBACK");
    assert_eq!(run(&mut pair, "0").as_deref(), Some("100"));
    assert_eq!(run(&mut pair, "0").as_deref(), Some("100"));
}

#[test]
fn roles_under_a_prepared_statement() {
    table("played");
    let mut admin = Client::connect(&instance().admin());
    admin.run("CREATE ROLE played_reader; CREATE ROLE played_nobody; CREATE ROLE played_columns");
    admin.run("GRANT SELECT ON played TO played_reader; GRANT SELECT (a) ON played TO played_columns");
    let mut pair = Pair::admin();
    let sql = "SELECT count(a), max(a), current_user FROM played GROUP BY 3";
    let plain = "SELECT count(a), max(a) FROM played";
    for (name, sql) in [("named", sql), ("plain", plain)] {
        pair.send(sql, &[frontend::parse(name, sql, &[]), frontend::sync()], 1);
        for _ in 0..7 {
            pair.execute(sql, name);
        }
    }
    let mut under = |change: &str, state: &str, store: &str| {
        pair.query(change);
        for _ in 0..3 {
            assert_eq!(pair.execute(change, "named").sqlstate(), state, "{change}");
            assert_eq!(pair.execute(change, "plain").sqlstate(), state, "{change}");
        }
        assert_eq!(pair.route(plain), store, "{change}");
    };
    under("SELECT 1", "00000", "lake");
    under("SET ROLE played_reader", "00000", "lake");
    under("SET ROLE played_columns", "00000", "postgres");
    under("SET ROLE played_nobody", "42501", "postgres");
    under("RESET ROLE", "00000", "lake");
    under("SET SESSION AUTHORIZATION played_reader", "00000", "lake");
    under("RESET SESSION AUTHORIZATION", "00000", "lake");
    pair.query("BEGIN");
    pair.query("SET LOCAL ROLE played_nobody");
    assert_eq!(pair.execute("in a block", "plain").sqlstate(), "42501");
    assert_eq!(pair.execute("aborted", "plain").sqlstate(), "25P02");
    pair.query("ROLLBACK");
    pair.execute("afterwards", "plain");
    assert_eq!(pair.route(plain), "lake");
}
