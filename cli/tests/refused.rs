//! Every way to ask the lake for what PostgreSQL would refuse or show only in part: each is asked directly and through the gateway, and both must say
//! the same, to the byte: the same rows, the same SQLSTATE, the same message, the same notices. Where the lake is demanded, it may also say 0A000.

mod support;

use support::compare::difference;
use support::instance::Instance;
use support::wait_for;
use support::wire::{Client, Format, Reply, Target, frontend};

fn instance() -> &'static Instance {
    Instance::shared()
}

/// The owner, past the gateway.
fn owner() -> Client {
    Client::connect(&instance().direct())
}

fn admin() -> Client {
    Client::connect(&instance().admin())
}

/// One user's sessions, directly and through the gateway.
struct Both {
    direct: Client,
    gateway: Client,
}

impl Both {
    /// A new role.
    fn of(name: &str) -> Both {
        admin().run(&format!("CREATE ROLE {name} LOGIN PASSWORD 'of-{name}'"));
        Both::login(name)
    }

    fn login(name: &str) -> Both {
        let password = format!("of-{name}");
        Both::sessions(&instance().direct().login(name, &password), &instance().gateway().login(name, &password))
    }

    fn admin() -> Both {
        Both::sessions(&instance().admin(), &instance().admin_through_gateway())
    }

    fn owner() -> Both {
        Both::sessions(&instance().direct(), &instance().gateway())
    }

    fn sessions(direct: &Target, gateway: &Target) -> Both {
        let mut both = Both { direct: Client::connect(direct), gateway: Client::connect(gateway) };
        // Errors of parallel workers have a context, and whether some come is luck.
        both.tell("SET max_parallel_workers_per_gather = 0");
        both
    }

    fn frames(&mut self, what: &str, bytes: &[u8]) -> Reply {
        self.direct.send(bytes);
        self.gateway.send(bytes);
        same(what, self.direct.reply(), &self.gateway.reply())
    }

    /// As a simple query and in the extended protocol, and with the lake demanded; PostgreSQL's own answer.
    #[track_caller]
    fn ask(&mut self, sql: &str) -> Reply {
        let expected = self.tell(sql);
        let mut bytes = frontend::parse("", sql, &[]);
        bytes.extend(frontend::bind("", "", Format::Text, &[], Format::Binary));
        bytes.extend(frontend::describe(b'P', ""));
        bytes.extend(frontend::execute("", 0));
        bytes.extend(frontend::sync());
        self.frames(&format!("{sql}, extended"), &bytes);
        self.gateway.run("SET watershed.route = 'lake'");
        let forced = self.gateway.query(sql);
        self.gateway.run("RESET watershed.route");
        if forced.sqlstate() != "0A000" {
            same(&format!("{sql}, the lake demanded"), expected.clone(), &forced);
        }
        expected
    }

    /// Once, as a simple query.
    #[track_caller]
    fn tell(&mut self, sql: &str) -> Reply {
        same(sql, self.direct.query(sql), &self.gateway.query(sql))
    }

    #[track_caller]
    fn refused(&mut self, statements: &[&str]) {
        for sql in statements {
            let reply = self.ask(sql);
            assert_eq!(reply.sqlstate(), "42501", "{sql}: {reply:?}");
        }
    }

    #[track_caller]
    fn allowed(&mut self, statements: &[&str]) {
        for sql in statements {
            let reply = self.ask(sql);
            assert_eq!(reply.sqlstate(), "00000", "{sql}: {reply:?}");
        }
    }

    #[track_caller]
    fn prepare(&mut self, name: &str, sql: &str) {
        let bytes = [frontend::parse(name, sql, &[]), frontend::sync()].concat();
        self.frames(sql, &bytes).ok();
    }

    /// Bind and Execute of a prepared statement.
    #[track_caller]
    fn execute(&mut self, when: &str, name: &str) -> Reply {
        let mut bytes = frontend::bind("", name, Format::Text, &[], Format::Text);
        bytes.extend(frontend::execute("", 0));
        bytes.extend(frontend::sync());
        self.frames(when, &bytes)
    }

    /// Who answered `sql` when it was last asked through the gateway.
    fn route(&self, sql: &str) -> String {
        instance().route(&self.gateway, sql).0
    }
}

#[track_caller]
fn same(what: &str, expected: Reply, actual: &Reply) -> Reply {
    if let Some(difference) = difference(&expected, actual, true) {
        panic!("{what}: {difference}\n  directly:\n{expected:?}  through the gateway:\n{actual:?}");
    }
    expected
}

/// A tiered table `name(ts, a, t)`: 90 rows in the lake and 10 in the tail, `a` from 0 to 99. Nobody but its owner may read it.
fn table(name: &str) {
    let mut owner = owner();
    owner.run(&format!("CREATE TABLE {name} (ts timestamptz NOT NULL, a int4, t text)"));
    owner.run(&format!("SELECT watershed.attach_table('public.{name}', event_time => 'ts')"));
    owner.run(&format!("REVOKE ALL ON {name} FROM PUBLIC"));
    let insert = |from: i32, to: i32| {
        format!(
            "INSERT INTO {name} (ts, a, t) SELECT timestamptz '2024-03-10 00:00:00+00' + g * interval '7 hours', g, 'text ' || g % 7 FROM generate_series({from}, {to}) g"
        )
    };
    owner.run(&insert(0, 89));
    instance().run(&["archive", "--now", &format!("public.{name}")]);
    owner.run(&insert(90, 99));
    let sql = format!("SELECT count(*) FROM {name}");
    let mut gateway = Client::connect(&instance().gateway());
    wait_for(&format!("the gateway to know {name}"), || {
        gateway.run(&sql);
        (instance().route(&gateway, &sql).0 == "lake").then_some(())
    });
}

#[test]
fn tables_that_one_may_not_read_in_every_place_of_a_statement() {
    table("locked");
    table("opened");
    let mut user = Both::of("locked_reader");
    owner().run("GRANT SELECT ON opened TO locked_reader");
    user.allowed(&["SELECT count(*), sum(a) FROM opened"]);
    assert_eq!(user.route("SELECT count(*), sum(a) FROM opened"), "lake");
    user.refused(&[
        "SELECT count(*) FROM locked",
        "SELECT sum(a) FROM locked GROUP BY t ORDER BY 1",
        "SELECT 1 FROM locked HAVING true",
        "TABLE locked",
        "SELECT count(*) FROM opened o JOIN locked l USING (a)",
        "SELECT count(*) FROM opened o LEFT JOIN locked l ON false",
        "SELECT count(*) FROM opened o NATURAL JOIN locked l",
        "SELECT count(*) FROM opened, locked",
        "SELECT count(*) FROM opened WHERE a IN (SELECT a FROM locked)",
        "SELECT count(*) FROM opened WHERE a NOT IN (SELECT a FROM locked)",
        "SELECT count(*) FROM opened o WHERE EXISTS (SELECT FROM locked l WHERE l.a = o.a)",
        "SELECT count(*) FROM opened WHERE a > (SELECT max(a) FROM locked)",
        "SELECT count(*), (SELECT max(a) FROM locked) FROM opened",
        "SELECT count(*) FROM opened HAVING count(*) > (SELECT count(*) FROM locked)",
        "SELECT count(*) FROM (SELECT DISTINCT t FROM locked) s",
        "SELECT a FROM opened EXCEPT SELECT a FROM locked ORDER BY 1",
        "SELECT a FROM opened UNION ALL SELECT count(*)::int4 FROM locked",
        "SELECT a FROM locked INTERSECT SELECT a FROM opened",
        "WITH l AS (SELECT a FROM locked) SELECT count(*) FROM opened JOIN l USING (a)",
        "WITH l AS MATERIALIZED (SELECT count(*) AS n FROM locked) SELECT n, count(*) FROM opened, l GROUP BY n",
        "SELECT t, sum(count(*)) OVER (ORDER BY t) FROM locked GROUP BY t",
        "SELECT t, a, count(*) FROM locked GROUP BY GROUPING SETS ((t), (a), ()) ORDER BY 1, 2",
        "SELECT DISTINCT ON (t) t, a FROM locked ORDER BY t, a",
        "SELECT count(*) FROM opened o, LATERAL (SELECT max(a) FROM locked l WHERE l.a < o.a) m",
        "SELECT count(*) FROM opened LIMIT (SELECT count(*) FROM locked)",
        "EXPLAIN SELECT count(*) FROM locked",
        "EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off) SELECT count(*) FROM locked",
        "COPY (SELECT count(*) FROM locked) TO STDOUT",
    ]);
    // Whether PostgreSQL looks at what nothing reads of is its own affair.
    for unread in [
        "WITH l AS (SELECT a FROM locked) SELECT count(*) FROM opened",
        "WITH l AS MATERIALIZED (SELECT a FROM locked) SELECT count(*) FROM opened",
        "SELECT count(*) FROM (SELECT a, (SELECT max(a) FROM locked) AS m FROM opened) s",
        "SELECT count(*) FROM opened WHERE false AND EXISTS (SELECT FROM locked)",
        "SELECT count(*) FROM opened o LEFT JOIN (SELECT 1 FROM locked LIMIT 1) l ON true",
    ] {
        user.ask(unread);
    }
    for (begin, end) in [("BEGIN", "ROLLBACK"), ("BEGIN ISOLATION LEVEL REPEATABLE READ", "COMMIT")] {
        user.tell(begin);
        assert_eq!(user.tell("SELECT count(*) FROM locked").sqlstate(), "42501");
        assert_eq!(user.tell("SELECT count(*) FROM opened").sqlstate(), "25P02");
        user.tell(end);
    }
    user.tell("BEGIN");
    user.tell("DECLARE c CURSOR FOR SELECT count(*) FROM opened");
    user.tell("FETCH c");
    assert_eq!(user.tell("DECLARE d CURSOR FOR SELECT count(*) FROM locked").sqlstate(), "42501");
    user.tell("ROLLBACK");
    user.tell("PREPARE p AS SELECT count(*) FROM locked");
    assert_eq!(user.tell("EXECUTE p").sqlstate(), "42501");
    assert_eq!(user.tell("DO $$ BEGIN PERFORM count(*) FROM public.locked; END $$").sqlstate(), "42501");
}

#[test]
fn columns_that_one_may_not_read_in_every_place_of_a_statement() {
    table("columned");
    let mut user = Both::of("column_reader");
    let mut owner = owner();
    owner.run("GRANT SELECT (ts, a, _xid, _stream, _offset) ON columned TO column_reader");
    owner.run("CREATE TABLE column_notes (a int4, note text, hidden text)");
    owner.run("INSERT INTO column_notes SELECT i, 'n', 'h' FROM generate_series(0, 50) i");
    owner.run("REVOKE ALL ON column_notes FROM PUBLIC; GRANT SELECT (a, note) ON column_notes TO column_reader");
    user.allowed(&[
        "SELECT count(*) FROM columned",
        "SELECT count(a), max(ts) FROM columned",
        "SELECT a % 10, count(*) FROM columned GROUP BY 1 ORDER BY 1",
        "SELECT n.note, count(*) FROM columned c JOIN column_notes n USING (a) GROUP BY 1",
    ]);
    user.refused(&[
        "SELECT count(t) FROM columned",
        "SELECT count(*) FROM columned WHERE t IS NULL",
        "SELECT count(*) FILTER (WHERE t = 'text 1') FROM columned",
        "SELECT count(*) FROM columned HAVING max(t) > ''",
        "SELECT count(*) FROM columned GROUP BY t",
        "SELECT a FROM columned GROUP BY a, t ORDER BY 1",
        "SELECT count(*) FROM columned c GROUP BY GROUPING SETS ((a), (t))",
        "SELECT count(DISTINCT t) FROM columned",
        "SELECT DISTINCT ON (t) a FROM columned",
        "SELECT a, rank() OVER (ORDER BY t) FROM columned",
        "SELECT a, sum(a) OVER (PARTITION BY t) FROM columned",
        "SELECT a FROM columned ORDER BY t LIMIT 1",
        "SELECT c FROM columned c",
        "SELECT count(c) FROM columned c",
        "SELECT count(c.*) FROM columned c",
        "SELECT max(row_to_json(c)::text) FROM columned c",
        "SELECT count(*) FROM columned c WHERE c IS NOT NULL",
        "SELECT * FROM columned",
        "TABLE columned",
        "SELECT count(*) FROM columned a JOIN columned b USING (t)",
        "SELECT count(*) FROM columned a NATURAL JOIN columned b",
        "SELECT count(*) FROM columned WHERE a IN (SELECT a FROM columned WHERE t < 'x')",
        "SELECT count(*) FROM columned o WHERE EXISTS (SELECT FROM columned i WHERE i.t = o.t)",
        "SELECT a FROM columned EXCEPT SELECT length(t) FROM columned",
        "SELECT count(*), (SELECT max(t) FROM columned) FROM columned",
        "WITH w AS MATERIALIZED (SELECT a, t FROM columned) SELECT count(*) FROM w",
        "SELECT count(tableoid) FROM columned",
        "SELECT count(*) FROM columned c JOIN column_notes n ON n.hidden = c.a::text",
        "SELECT count(n) FROM columned c JOIN column_notes n USING (a)",
        "SELECT max(n.hidden) FROM columned c JOIN column_notes n USING (a)",
        "SELECT count(*) FROM columned c WHERE c.a IN (SELECT a FROM column_notes WHERE hidden = 'h')",
    ]);
}

#[test]
fn views_are_read_with_the_rights_of_their_owners() {
    table("viewed");
    let mut reader = Both::of("view_reader");
    let mut stranger = Both::of("view_stranger");
    let mut admin = admin();
    admin.run("CREATE ROLE view_maker; GRANT CREATE, USAGE ON SCHEMA public TO view_maker");
    admin.run("GRANT SELECT ON viewed TO view_maker, view_reader");
    admin.run(
        "SET ROLE view_maker;
         CREATE VIEW made AS SELECT a, t FROM viewed WHERE a < 50;
         CREATE VIEW made_invoker WITH (security_invoker) AS SELECT a, t FROM viewed WHERE a < 50;
         CREATE VIEW made_twice AS SELECT t, count(*) AS n FROM made GROUP BY t;
         CREATE VIEW made_over_invoker AS SELECT count(*) AS n FROM made_invoker;
         CREATE VIEW made_barrier WITH (security_barrier) AS SELECT a, t FROM viewed WHERE a < 50;
         REVOKE ALL ON made, made_invoker, made_twice, made_over_invoker, made_barrier FROM PUBLIC;
         RESET ROLE",
    );
    let names = ["made", "made_invoker", "made_twice", "made_over_invoker", "made_barrier"];
    let statements: Vec<String> = names
        .iter()
        .map(|name| format!("SELECT count(*), max(v::text) FROM {name} v"))
        .chain(names.iter().map(|name| format!("SELECT count(*) FROM {name}")))
        .chain(names.iter().map(|name| format!("SELECT count(*) FROM viewed JOIN {name} v ON true")))
        .collect();
    let all = |reader: &mut Both, stranger: &mut Both| -> Vec<String> {
        let mut states = Vec::new();
        for sql in &statements {
            for user in [&mut *reader, &mut *stranger] {
                states.push(user.ask(sql).sqlstate());
            }
        }
        states
    };
    // Nobody may read the views.
    assert!(all(&mut reader, &mut stranger).iter().all(|state| state == "42501"));
    // Both may, the stranger not what is under them.
    admin.run("GRANT SELECT ON made, made_invoker, made_twice, made_over_invoker, made_barrier TO view_reader, view_stranger");
    let states = all(&mut reader, &mut stranger);
    assert!(states.iter().any(|s| s == "00000") && states.iter().any(|s| s == "42501"), "{states:?}");
    stranger.allowed(&["SELECT count(*) FROM made", "SELECT t, n FROM made_twice ORDER BY t", "SELECT count(*) FROM made_barrier"]);
    stranger.refused(&["SELECT count(*) FROM made_invoker", "SELECT count(*) FROM viewed"]);
    // Their owner loses the right.
    admin.run("REVOKE SELECT ON viewed FROM view_maker");
    all(&mut reader, &mut stranger);
    reader.refused(&["SELECT count(*) FROM made", "SELECT t, n FROM made_twice ORDER BY t"]);
    reader.allowed(&["SELECT count(*) FROM made_invoker"]);
    // The views change hands.
    for name in names {
        admin.run(&format!("ALTER VIEW {name} OWNER TO watershed_admin"));
    }
    all(&mut reader, &mut stranger);
    // Nor does a view of a user's own open anything.
    admin.run("GRANT CREATE ON SCHEMA public TO view_stranger");
    stranger.direct.run("CREATE VIEW own_view AS SELECT a FROM viewed");
    stranger.refused(&["SELECT count(*) FROM own_view"]);
}

#[test]
fn a_barrier_holds_back_leaky_functions() {
    table("barred");
    let mut user = Both::of("barrier_reader");
    let mut owner = owner();
    owner.run("CREATE VIEW barred_view WITH (security_barrier) AS SELECT a, t FROM barred WHERE a < 3");
    owner.run("CREATE TABLE barred_keys (a int4, secret text); INSERT INTO barred_keys SELECT i, 'secret ' || i FROM generate_series(0, 20) i");
    owner.run("CREATE VIEW barred_keys_view WITH (security_barrier) AS SELECT a, secret FROM barred_keys WHERE a < 3");
    owner.run("REVOKE ALL ON barred_view, barred_keys_view FROM PUBLIC; GRANT SELECT ON barred_view, barred_keys_view TO barrier_reader");
    owner.run(
        "CREATE FUNCTION leak(text) RETURNS bool LANGUAGE plpgsql COST 0.0000001 AS $$ BEGIN RAISE NOTICE 'seen: %', $1; RETURN true; END $$",
    );
    user.allowed(&[
        "SELECT count(*) FROM barred_view WHERE leak(t)",
        "SELECT count(*) FROM barred_view WHERE t::text <> 'x'",
        "SELECT count(*) FROM barred_view v JOIN barred_keys_view k USING (a) WHERE leak(k.secret)",
        "SELECT k.secret, count(*) FROM barred_view v JOIN barred_keys_view k USING (a) GROUP BY 1 ORDER BY 1",
    ]);
    // An error instead of a notice: only what may be seen can raise it.
    user.ask("SELECT count(*) FROM barred_view WHERE 1 / (a - 50) < 1");
    user.ask("SELECT count(*) FROM barred_view WHERE t::int4 > 0");
    user.ask("SELECT count(*) FROM barred_keys_view k, barred_view v WHERE k.secret::int4 > 0");
    // Who may read both is not shown more either.
    owner.run("GRANT SELECT ON barred, barred_keys TO barrier_reader");
    user.ask("SELECT count(*) FROM barred_view WHERE leak(t)");
    user.ask("SELECT count(*) FROM barred_keys_view k JOIN barred b USING (a) WHERE leak(k.secret)");
    user.ask("SELECT count(*) FROM barred_view WHERE 1 / (a - 50) < 1");
}

#[test]
fn policies_decide_who_sees_which_rows() {
    table("facts");
    let mut admin = admin();
    let mut owner = owner();
    owner.run("CREATE TABLE policed (a int4, who text, amount numeric(8, 2))");
    owner.run("INSERT INTO policed SELECT i, CASE i % 3 WHEN 0 THEN 'policy_one' WHEN 1 THEN 'policy_two' ELSE 'nobody' END, i FROM generate_series(0, 60) i");
    owner.run("CREATE VIEW policed_view AS SELECT * FROM policed");
    owner.run("CREATE VIEW policed_invoker WITH (security_invoker) AS SELECT * FROM policed");
    let mut users = [Both::of("policy_one"), Both::of("policy_two"), Both::of("policy_bypass")];
    admin.run("ALTER ROLE policy_bypass BYPASSRLS");
    owner.run("GRANT SELECT ON facts, policed, policed_view, policed_invoker TO policy_one, policy_two, policy_bypass");
    let statements = [
        "SELECT count(*), sum(p.amount) FROM facts f JOIN policed p USING (a)",
        "SELECT p.who, count(*) FROM facts f JOIN policed p USING (a) GROUP BY 1 ORDER BY 1",
        "SELECT count(*) FROM facts WHERE a IN (SELECT a FROM policed)",
        "SELECT count(*) FROM facts WHERE a NOT IN (SELECT a FROM policed)",
        "SELECT count(*) FROM facts f WHERE NOT EXISTS (SELECT FROM policed p WHERE p.a = f.a)",
        "SELECT count(*), (SELECT max(amount) FROM policed) FROM facts",
        "SELECT a FROM facts EXCEPT SELECT a FROM policed ORDER BY 1",
        "SELECT count(*) FROM facts f JOIN policed_view p USING (a)",
        "SELECT count(*) FROM facts f JOIN policed_invoker p USING (a)",
        "SELECT count(*) FROM facts f LEFT JOIN policed p ON p.a = f.a AND 1 / (p.a - 2) < 5",
        "SELECT count(*) FROM facts f JOIN policed p ON p.a = f.a WHERE p.who::int4 > 1",
        "SELECT count(*) FROM policed",
    ];
    let mut owners = Both::owner();
    let all = |users: &mut [Both; 3], owners: &mut Both| {
        for sql in statements {
            for user in users.iter_mut().chain([&mut *owners]) {
                user.ask(sql);
            }
        }
    };
    all(&mut users, &mut owners);
    let count = |users: &mut [Both; 3]| users.each_mut().map(|user| user.tell(statements[0]).rows()[0][0].clone().expect("a number"));
    assert_eq!(count(&mut users), ["61", "61", "61"]);
    // Without a policy nobody but owner and those beyond the law sees a row.
    owner.run("ALTER TABLE policed ENABLE ROW LEVEL SECURITY");
    all(&mut users, &mut owners);
    assert_eq!(count(&mut users), ["0", "0", "61"]);
    owner.run("CREATE POLICY own ON policed USING (who = current_user)");
    all(&mut users, &mut owners);
    assert_eq!(count(&mut users), ["21", "20", "61"]);
    owner.run("CREATE POLICY small ON policed AS RESTRICTIVE TO policy_one USING (amount < (SELECT 30))");
    all(&mut users, &mut owners);
    assert_eq!(count(&mut users), ["10", "20", "61"]);
    owner.run("ALTER TABLE policed FORCE ROW LEVEL SECURITY");
    all(&mut users, &mut owners);
    assert_eq!(owners.tell(statements[0]).rows()[0][0].as_deref(), Some("0"), "the owner too");
    // Who says that he wants all or nothing gets nothing.
    for user in &mut users[..2] {
        user.tell("SET row_security = off");
        for sql in &statements[..7] {
            assert_eq!(user.ask(sql).sqlstate(), "42501", "{sql}");
        }
        user.tell("RESET row_security");
    }
    // A policy of a function that tells what it sees.
    owner.run("CREATE FUNCTION policy_tells(int4) RETURNS bool LANGUAGE plpgsql STABLE AS $$ BEGIN RAISE NOTICE 'policy %', $1; RETURN $1 < 3; END $$");
    owner.run("DROP POLICY own ON policed; CREATE POLICY told ON policed USING (a < 5 AND policy_tells(a))");
    for user in &mut users {
        for sql in &statements[..2] {
            let (expected, actual) = (user.direct.query(sql), user.gateway.query(sql));
            assert_eq!(expected.rows(), actual.rows(), "{sql}");
        }
    }
    // What PostgreSQL has not got as a table of its own is the lake's only without policies.
    let enabled = owner.query("ALTER TABLE facts ENABLE ROW LEVEL SECURITY").sqlstate();
    owner.query("CREATE POLICY few ON facts USING (a < 5)");
    for user in &mut users {
        let reply = user.ask("SELECT count(*), sum(a) FROM facts");
        if enabled == "00000" {
            assert_ne!(user.route("SELECT count(*), sum(a) FROM facts"), "lake", "{reply:?}");
        }
    }
}

/// A policy for a group, whose member stops being one: with the statement prepared before, and executed in between.
#[test]
fn who_leaves_a_group_leaves_its_policies() {
    table("grouped_facts");
    let (mut admin, mut owner) = (admin(), owner());
    owner.run("CREATE TABLE grouped_keys (a int4, name text)");
    owner.run("INSERT INTO grouped_keys SELECT i, 'name ' || i FROM generate_series(0, 60) i");
    let mut user = Both::of("group_member");
    admin.run("CREATE ROLE group_of_few; GRANT group_of_few TO group_member");
    owner.run("GRANT SELECT ON grouped_facts, grouped_keys TO group_member");
    owner.run("CREATE POLICY few ON grouped_keys TO group_of_few USING (a < 7); ALTER TABLE grouped_keys ENABLE ROW LEVEL SECURITY");
    let sql = "SELECT count(*), count(DISTINCT k.name) FROM grouped_facts f JOIN grouped_keys k USING (a)";
    let counted = |user: &mut Both| user.ask(sql).rows()[0][1].clone().expect("a number");
    let execute = || {
        let mut bytes = frontend::bind("", "counted", Format::Text, &[], Format::Text);
        bytes.extend(frontend::execute("", 0));
        bytes.extend(frontend::sync());
        bytes
    };
    let mut prepare = frontend::parse("counted", sql, &[]);
    prepare.extend(frontend::sync());
    user.frames("prepared", &prepare);
    admin.run("REVOKE group_of_few FROM group_member");
    user.frames("bound once the group is left", &execute());
    admin.run("GRANT group_of_few TO group_member");
    let mut prepare = frontend::close(b'S', "counted");
    prepare.extend(frontend::parse("counted", sql, &[]));
    prepare.extend(execute());
    user.frames("prepared and executed at once", &prepare);
    assert_eq!(counted(&mut user), "7");
    user.gateway.run("SET watershed.route = 'lake'");
    assert_eq!(user.gateway.run(sql).rows()[0][1].as_deref(), Some("7"), "of the lake as well, the first time");
    user.gateway.run("RESET watershed.route");
    admin.run("REVOKE group_of_few FROM group_member");
    user.frames("after the group is left", &execute());
    assert_eq!(counted(&mut user), "0");
    user.frames("after it was asked anew", &execute());
    admin.run("GRANT group_of_few TO group_member");
    user.frames("after the group is joined again", &execute());
    assert_eq!(counted(&mut user), "7");
    // A plan that was made for another is not his.
    user.tell("SET ROLE group_of_few");
    user.frames("as the group, which may not read", &execute());
    user.tell("RESET ROLE");
    user.frames("as himself again", &execute());
}

#[test]
fn a_role_that_is_put_on_is_the_one_that_asks() {
    table("worn");
    let mut user = Both::of("worn_user");
    let mut admin = admin();
    admin.run("ALTER ROLE worn_user NOINHERIT; CREATE ROLE worn_reader; CREATE ROLE worn_nobody; GRANT worn_reader, worn_nobody TO worn_user");
    admin.run("GRANT SELECT ON worn TO worn_reader");
    let count = "SELECT count(*), sum(a) FROM worn";
    user.prepare("worn", count);
    let expect = |user: &mut Both, change: &str, state: &str| {
        user.tell(change);
        assert_eq!(user.ask(count).sqlstate(), state, "{change}");
        assert_eq!(user.execute(change, "worn").sqlstate(), state, "{change}, prepared");
    };
    expect(&mut user, "SELECT 1", "42501");
    expect(&mut user, "SET ROLE worn_reader", "00000");
    assert_eq!(user.route(count), "lake");
    expect(&mut user, "SET ROLE worn_nobody", "42501");
    expect(&mut user, "SET ROLE worn_reader", "00000");
    expect(&mut user, "RESET ROLE", "42501");
    expect(&mut user, "SET SESSION AUTHORIZATION worn_reader", "42501"); // which is refused itself
    expect(&mut user, "SELECT set_config('role', 'worn_reader', false)", "00000");
    expect(&mut user, "SELECT set_config('role', 'none', false)", "42501");
    // Within a transaction, and back with it.
    let mut user = Both::login("worn_user");
    user.tell("BEGIN; SET LOCAL ROLE worn_reader");
    user.tell(count).ok();
    user.tell("SAVEPOINT s; SET LOCAL ROLE worn_nobody");
    assert_eq!(user.tell(count).sqlstate(), "42501");
    user.tell("ROLLBACK TO s");
    user.tell(count).ok();
    user.tell("COMMIT");
    assert_eq!(user.tell(count).sqlstate(), "42501");
    // A superuser who puts on less.
    let mut root = Both::admin();
    root.prepare("worn", count);
    for (change, state) in [
        ("SET SESSION AUTHORIZATION worn_reader", "00000"),
        ("SET ROLE worn_nobody", "42501"),
        ("SET SESSION AUTHORIZATION worn_nobody", "42501"),
        ("RESET SESSION AUTHORIZATION", "00000"),
    ] {
        root.tell(change);
        let expected = root.tell(count).sqlstate();
        assert!(change == "SET ROLE worn_nobody" || expected == state, "{change}: {expected}");
        assert_eq!(root.execute(change, "worn").sqlstate(), expected, "{change}");
    }
}

#[test]
fn functions_of_others_lend_no_rights_beyond_themselves() {
    table("lent");
    let mut user = Both::of("lent_user");
    let mut owner = owner();
    owner.run("CREATE FUNCTION lent_count() RETURNS int8 LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public AS 'SELECT count(*) FROM lent'");
    owner.run("CREATE FUNCTION lent_max() RETURNS int4 LANGUAGE plpgsql STABLE SECURITY DEFINER AS 'BEGIN RETURN (SELECT max(a) FROM public.lent); END'");
    owner.run("CREATE FUNCTION lent_plain() RETURNS int8 LANGUAGE sql STABLE AS 'SELECT count(*) FROM public.lent'");
    owner.run("CREATE FUNCTION lent_body(x int4) RETURNS int4 LANGUAGE sql IMMUTABLE RETURN x + 1");
    owner.run("CREATE FUNCTION lent_private(x int4) RETURNS int4 LANGUAGE sql IMMUTABLE RETURN x + 1");
    owner.run("CREATE FUNCTION lent_rows() RETURNS SETOF int4 LANGUAGE sql STABLE SECURITY DEFINER AS 'SELECT a FROM public.lent'");
    owner.run("REVOKE EXECUTE ON FUNCTION lent_private FROM PUBLIC");
    user.allowed(&["SELECT lent_count()", "SELECT lent_max()", "SELECT count(*) FROM lent_rows()"]);
    user.refused(&[
        "SELECT lent_plain()",
        "SELECT lent_private(1)",
        "SELECT count(*) FROM lent WHERE a < lent_max()",
        "SELECT lent_count(), count(*) FROM lent",
        "SELECT count(*) FROM lent_rows() r(a) JOIN lent USING (a)",
    ]);
    owner.run("GRANT SELECT ON lent TO lent_user");
    user.allowed(&[
        "SELECT lent_plain()",
        "SELECT count(*) FROM lent WHERE a < lent_max()",
        "SELECT sum(lent_body(a)) FROM lent",
        "SELECT lent_body(a % 3) AS k, count(*) FROM lent GROUP BY 1 ORDER BY 1",
    ]);
    user.refused(&["SELECT sum(lent_private(a)) FROM lent", "SELECT count(*) FROM lent WHERE lent_private(a) > 3"]);
    // A function that is replaced, under a statement that calls it.
    user.prepare("body", "SELECT sum(lent_body(a)) FROM lent");
    assert_eq!(user.execute("as it was", "body").value(), "5050");
    owner.run("CREATE OR REPLACE FUNCTION lent_body(x int4) RETURNS int4 LANGUAGE sql IMMUTABLE RETURN x + 2");
    assert_eq!(user.execute("replaced", "body").value(), "5150");
    owner.run("REVOKE EXECUTE ON FUNCTION lent_body FROM PUBLIC");
    assert_eq!(user.execute("revoked", "body").sqlstate(), "42501");
    // One of PostgreSQL's own, which an administrator has taken from everybody.
    let mut admin = admin();
    let statements = ["SELECT sum(abs(a)) FROM lent", "SELECT bool_and(a >= 0) FROM lent"];
    user.allowed(&statements);
    assert_eq!(user.route(statements[0]), "lake");
    user.prepare("own", statements[0]);
    user.execute("as it was", "own").ok();
    admin.run("REVOKE EXECUTE ON FUNCTION pg_catalog.abs(int4), pg_catalog.bool_and(bool) FROM PUBLIC");
    let refused = statements.map(|sql| user.ask(sql).sqlstate());
    // What the gateway asks of PostgreSQL beside the statement needs neither.
    assert_eq!(user.ask("SELECT count(*), max(a) FROM lent").sqlstate(), "00000");
    let prepared = user.execute("revoked", "own").sqlstate();
    admin.run("GRANT EXECUTE ON FUNCTION pg_catalog.abs(int4), pg_catalog.bool_and(bool) TO PUBLIC");
    assert_eq!((refused, prepared), (["42501".to_owned(), "42501".to_owned()], "42501".to_owned()));
}

#[test]
fn names_that_shadow_mean_what_postgresql_says() {
    table("shadowed");
    let mut user = Both::of("shadow_user");
    let mut owner = owner();
    owner.run("GRANT SELECT ON shadowed TO shadow_user");
    admin().run("GRANT CREATE ON DATABASE watershed TO shadow_user");
    let count = "SELECT count(*), sum(a), max(t) FROM shadowed";
    let text = "SELECT lower(t), count(*) FROM shadowed WHERE a = 3 OR a < 2 GROUP BY 1 ORDER BY 1";
    let names = "SELECT count(*) FROM shadowed WHERE t LIKE 'text 1%' AND a + 1 > 5 AND a::text <> '7'";
    let statements = [count, text, names, "SELECT count(*)::int4 FROM shadowed WHERE ts > now() - interval '900 years'"];
    for (name, sql) in [("count", count), ("text", text), ("names", names)] {
        user.prepare(name, sql);
    }
    let all = |user: &mut Both, what: &str| {
        for sql in statements {
            user.ask(sql);
        }
        for name in ["count", "text", "names"] {
            user.execute(what, name);
        }
    };
    all(&mut user, "nothing shadows");
    assert_eq!(user.route(count), "lake");
    user.direct.run(
        "CREATE SCHEMA mine;
         CREATE FUNCTION mine.lower(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'mine' $$;
         CREATE FUNCTION mine.now() RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$ SELECT timestamptz '3000-01-01' $$;
         CREATE FUNCTION mine.always(int4, int4) RETURNS bool LANGUAGE sql IMMUTABLE AS $$ SELECT true $$;
         CREATE FUNCTION mine.never(text, text) RETURNS bool LANGUAGE sql IMMUTABLE AS $$ SELECT false $$;
         CREATE FUNCTION mine.minus(int4, int4) RETURNS int4 LANGUAGE sql IMMUTABLE AS $$ SELECT $1 - $2 $$;
         CREATE OPERATOR mine.= (LEFTARG = int4, RIGHTARG = int4, FUNCTION = mine.always);
         CREATE OPERATOR mine.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = mine.never);
         CREATE OPERATOR mine.~~ (LEFTARG = text, RIGHTARG = text, FUNCTION = mine.never);
         CREATE OPERATOR mine.+ (LEFTARG = int4, RIGHTARG = int4, FUNCTION = mine.minus);
         CREATE AGGREGATE mine.max(text) (SFUNC = text_smaller, STYPE = text);
         CREATE AGGREGATE mine.sum(int4) (SFUNC = int4smaller, STYPE = int4);
         CREATE DOMAIN mine.int4 AS text; CREATE DOMAIN mine.text AS varchar",
    );
    for path in ["mine, pg_catalog, public", "public, pg_catalog, mine", "mine, public", "pg_catalog, mine, public", "public"] {
        user.tell(&format!("SET search_path = {path}"));
        all(&mut user, path);
    }
    user.tell("SET search_path = mine, pg_catalog, public");
    user.tell(count);
    assert_ne!(user.route(count), "lake", "aggregates of the user's own");
    // Tables and views: of a schema before, and temporary ones before everything.
    user.direct.run("CREATE TABLE mine.shadowed (ts timestamptz, a int4, t pg_catalog.text)");
    user.tell("SET search_path = mine, public");
    all(&mut user, "a table of another schema");
    user.tell("SET search_path = public");
    for create in [
        "CREATE TEMP TABLE shadowed AS SELECT now() AS ts, 1 AS a, 'temporary'::text AS t",
        "CREATE TEMP VIEW shadowed AS SELECT ts, -a AS a, 'of a view'::text AS t FROM public.shadowed",
        "CREATE TEMP TABLE opened_late (LIKE public.shadowed)",
    ] {
        user.tell(create);
        all(&mut user, create);
        user.tell("DROP TABLE IF EXISTS pg_temp.opened_late");
        user.tell(if create.contains("VIEW") { "DROP VIEW IF EXISTS pg_temp.shadowed" } else { "DROP TABLE IF EXISTS pg_temp.shadowed" });
        all(&mut user, "dropped again");
    }
    // Functions in the temporary schema are never found by name alone; types are.
    user.tell("CREATE FUNCTION pg_temp.lower(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'temporary' $$");
    user.tell("CREATE DOMAIN pg_temp.int4 AS numeric");
    all(&mut user, "temporary functions and types");
    assert_eq!(user.route(text), "lake");
    // What the gateway's own questions name stays PostgreSQL's.
    user.direct.run("CREATE FUNCTION mine.current_setting(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'mine' $$");
    user.direct.run("CREATE FUNCTION mine.pg_visible_in_snapshot(xid8, pg_snapshot) RETURNS bool LANGUAGE sql IMMUTABLE AS $$ SELECT true $$");
    user.direct.run("CREATE FUNCTION mine.has_table_privilege(oid, text) RETURNS bool LANGUAGE sql IMMUTABLE AS $$ SELECT true $$");
    user.tell("SET search_path = mine, pg_catalog, public");
    user.ask("SELECT count(*) FROM public.shadowed");
    user.ask("SELECT count(ts) FROM public.shadowed WHERE ts >= timestamptz '2024-03-12 00:00:00+00'");
}

#[test]
fn what_was_prepared_before_a_right_was_taken_is_refused() {
    table("taken");
    let mut user = Both::of("taken_user");
    let mut admin = admin();
    let mut owner = owner();
    admin.run("CREATE ROLE taken_group; GRANT taken_group TO taken_user");
    owner.run("CREATE TABLE taken_keys (a int4, who text); INSERT INTO taken_keys SELECT i, CASE WHEN i < 30 THEN 'taken_user' ELSE 'x' END FROM generate_series(0, 60) i");
    owner.run("REVOKE ALL ON taken_keys FROM PUBLIC");
    owner.run("CREATE VIEW taken_view AS SELECT a FROM taken; REVOKE ALL ON taken_view FROM PUBLIC");
    let statements = [
        ("facts", "SELECT count(*), sum(a) FROM taken"),
        ("column", "SELECT max(t) FROM taken"),
        ("keys", "SELECT count(*) FROM taken JOIN taken_keys k USING (a)"),
        ("view", "SELECT count(*) FROM taken_view"),
    ];
    owner.run("GRANT SELECT ON taken, taken_keys, taken_view TO taken_user");
    for (name, sql) in statements {
        user.prepare(name, sql);
        user.tell(&format!("PREPARE sql_{name} AS {sql}"));
    }
    let states = |user: &mut Both, when: &str| -> Vec<String> {
        let mut states = Vec::new();
        // More often than PostgreSQL needs for a generic plan.
        for round in 0..3 {
            states.clear();
            for (name, _) in statements {
                states.push(user.execute(&format!("{when}, {name}, round {round}"), name).sqlstate());
                user.tell(&format!("EXECUTE sql_{name}"));
            }
        }
        states
    };
    const ALL: [&str; 4] = ["00000"; 4];
    assert_eq!(states(&mut user, "granted"), ALL);
    assert_eq!(states(&mut user, "granted"), ALL);
    owner.run("REVOKE SELECT ON taken FROM taken_user");
    assert_eq!(states(&mut user, "table revoked"), ["42501", "42501", "42501", "00000"]);
    owner.run("GRANT SELECT (ts, a, _xid) ON taken TO taken_user");
    assert_eq!(states(&mut user, "columns"), ["00000", "42501", "00000", "00000"]);
    owner.run("GRANT SELECT ON taken TO taken_group");
    assert_eq!(states(&mut user, "through a group"), ALL);
    admin.run("REVOKE taken_group FROM taken_user; REVOKE SELECT (ts, a, _xid) ON taken FROM taken_user");
    assert_eq!(states(&mut user, "no longer of the group"), ["42501", "42501", "42501", "00000"]);
    owner.run("GRANT SELECT ON taken TO taken_user; REVOKE SELECT ON taken_keys, taken_view FROM taken_user");
    assert_eq!(states(&mut user, "other relations"), ["00000", "00000", "42501", "42501"]);
    owner.run("GRANT SELECT ON taken_keys, taken_view TO taken_user");

    // Policies that come, change and go.
    let rows = |user: &mut Both, when: &str| user.execute(when, "keys").rows()[0][0].clone().expect("a number");
    assert_eq!(rows(&mut user, "no policies"), "61");
    owner.run("ALTER TABLE taken_keys ENABLE ROW LEVEL SECURITY");
    assert_eq!(rows(&mut user, "no policy"), "0");
    owner.run("CREATE POLICY p ON taken_keys USING (who = current_user)");
    assert_eq!(rows(&mut user, "a policy"), "30");
    owner.run("ALTER POLICY p ON taken_keys USING (a = 7)");
    assert_eq!(rows(&mut user, "another"), "1");
    owner.run("ALTER POLICY p ON taken_keys TO taken_group");
    assert_eq!(rows(&mut user, "not for this one"), "0");
    admin.run("ALTER ROLE taken_user BYPASSRLS");
    user.execute("who is above policies", "keys");
    admin.run("ALTER ROLE taken_user NOBYPASSRLS");
    user.execute("and no longer", "keys");
    owner.run("DROP POLICY p ON taken_keys; ALTER TABLE taken_keys DISABLE ROW LEVEL SECURITY");
    assert_eq!(rows(&mut user, "gone"), "61");

    // A portal that is bound keeps what it was allowed. So does, with what PostgreSQL has not looked at again, the transaction.
    let bind = |name: &str| frontend::bind(name, "facts", Format::Text, &[], Format::Text);
    user.tell("BEGIN");
    user.frames("bound", &[bind("p"), frontend::sync()].concat());
    owner.run("REVOKE SELECT ON taken FROM taken_user");
    user.frames("executed after", &[frontend::execute("p", 0), frontend::sync()].concat());
    user.frames("bound after", &[bind("q"), frontend::execute("q", 0), frontend::sync()].concat());
    user.tell("ROLLBACK");
    assert_eq!(user.execute("in the next one", "facts").sqlstate(), "42501");
    // The role itself goes, under its sessions: the gateway's own question who asks fails first, with another error.
    admin.run("DROP OWNED BY taken_user; DROP ROLE taken_user");
    for (name, sql) in statements {
        let bytes = [frontend::bind("", name, Format::Text, &[], Format::Text), frontend::execute("", 0), frontend::sync()].concat();
        for client in [&mut user.direct, &mut user.gateway] {
            client.send(&bytes);
            let reply = client.reply();
            assert!(reply.error().is_some() && reply.rows().is_empty(), "{sql}: {reply:?}");
        }
    }
}

/// Tables beside the lake are read by the gateway's own SQL: whatever they are called, and whatever stands in them.
#[test]
fn tables_beside_the_lake_are_read_by_name_and_nothing_else() {
    table("hub");
    let mut user = Both::of("hub_user");
    let mut owner = owner();
    owner.run("GRANT SELECT ON hub TO hub_user");
    owner.run(r#"CREATE TABLE "x"" ; DROP TABLE hub; --" (a int4, "t"" , secret" text, secret text)"#);
    owner.run(r#"INSERT INTO "x"" ; DROP TABLE hub; --" SELECT i, 'v', 'hidden' FROM generate_series(0, 9) i"#);
    owner.run(r#"GRANT SELECT (a, "t"" , secret") ON "x"" ; DROP TABLE hub; --" TO hub_user"#);
    user.allowed(&[
        r#"SELECT n."t"" , secret", count(*) FROM hub h JOIN "x"" ; DROP TABLE hub; --" n USING (a) GROUP BY 1"#,
        r#"SELECT count(*) FROM hub h JOIN "x"" ; DROP TABLE hub; --" n USING (a) WHERE n."t"" , secret" = 'v'' OR true --'"#,
    ]);
    user.refused(&[r#"SELECT max(n.secret) FROM hub h JOIN "x"" ; DROP TABLE hub; --" n USING (a)"#]);
    // Children are read with their parent's rights, alone only with their own.
    owner.run("CREATE TABLE hub_parent (a int4, t text); CREATE TABLE hub_child () INHERITS (hub_parent); INSERT INTO hub_child VALUES (1, 'c')");
    owner.run("REVOKE ALL ON hub_parent, hub_child FROM PUBLIC; GRANT SELECT ON hub_parent TO hub_user");
    user.allowed(&["SELECT count(*) FROM hub JOIN hub_parent p USING (a)", "SELECT count(*) FROM hub JOIN ONLY hub_parent p USING (a)"]);
    user.refused(&["SELECT count(*) FROM hub JOIN hub_child p USING (a)"]);
    // A schema that is closed later closes what is in it, but not to what was prepared.
    owner.run("CREATE SCHEMA hub_schema; CREATE TABLE hub_schema.keys AS SELECT 1 AS a; GRANT SELECT ON hub_schema.keys TO hub_user");
    let keys = "SELECT count(*) FROM hub JOIN hub_schema.keys k USING (a)";
    user.refused(&[keys]);
    owner.run("GRANT USAGE ON SCHEMA hub_schema TO hub_user");
    user.allowed(&[keys]);
    user.prepare("keys", keys);
    user.execute("open", "keys").ok();
    owner.run("REVOKE USAGE ON SCHEMA hub_schema FROM hub_user");
    user.execute("closed", "keys");
    user.refused(&[keys]);
    assert_eq!(owner.value("SELECT count(*) FROM hub"), "100");
}

/// Nobody learns from the gateway's own tables what others asked, nor what an error of theirs quoted.
#[test]
fn the_gateways_own_tables_tell_nothing_of_others() {
    table("quiet");
    let mut owner = Both::owner();
    const SECRET: &str = "sesame-0815";
    owner.direct.run(&format!("INSERT INTO quiet (ts, a, t) VALUES (now(), 4711, 'row-{SECRET}')"));
    // Of a statement, of its error by PostgreSQL, and of rows that an error of the lake's quotes.
    for sql in [
        format!("SELECT count(*) FROM quiet WHERE t = '{SECRET}'"),
        format!("SELECT count(*) FROM quiet WHERE a = '{SECRET}'"),
        "SELECT sum(t::int4) FROM quiet WHERE a = 4711".to_owned(),
        format!("SELECT 1 /* {SECRET} */ FROM quiet HAVING count(*) > 0"),
    ] {
        owner.ask(&sql);
    }
    owner.gateway.run(&format!("EXPLAIN SELECT count(*) FROM quiet WHERE t = '{SECRET}'"));
    let mut other = Both::of("quiet_other").gateway;
    let columns = |client: &mut Client, name: &str| {
        client.run(&format!("SELECT column_name FROM information_schema.columns WHERE table_schema = 'watershed' AND table_name = '{name}'")).column()
    };
    for name in ["queries", "route_stats", "files", "functions", "comparisons", "compactions", "streams", "tables", "dead_letters"] {
        for column in columns(&mut other, name) {
            let reply = other.query(&format!("SELECT {column} FROM watershed.{name}"));
            for row in reply.rows() {
                let shown = row[0].clone().unwrap_or_default();
                assert!(!shown.contains(SECRET), "watershed.{name}.{column} shows {shown}");
                assert!(name != "files" || !shown.contains("quiet"), "watershed.files shows {shown} of a table that is not his to read");
            }
        }
        let whole = other.query(&format!("SELECT count(*), max(v::text) FROM watershed.{name} v"));
        assert!(!format!("{whole:?}").contains(SECRET), "watershed.{name}: {whole:?}");
    }
    // But the owner sees his own, errors that quote rows too.
    let reasons = owner.gateway.run("SELECT reasons FROM watershed.queries").column();
    assert!(reasons.iter().any(|r| r.contains("fell back") && r.contains(SECRET)), "{reasons:?}");
    let mine = owner.gateway.run("SELECT sql FROM watershed.queries").column();
    assert!(mine.iter().any(|sql| sql.contains(SECRET)), "{mine:?}");
    // Nor does EXPLAIN say of a table what may not be read of it.
    let mut stranger = Both::login("quiet_other");
    stranger.refused(&["EXPLAIN SELECT count(*), sum(a) FROM quiet", "EXPLAIN SELECT max(t) FROM quiet WHERE a > 3"]);
    // The schemas behind: as closed as they are directly.
    for sql in [
        "SELECT count(*) FROM watershed_control.archives",
        "SELECT count(*) FROM watershed_control.leases",
        "SELECT watershed_control.hush('x', 'y')",
        "SELECT count(*) FROM watershed_control.virtual_queries()",
    ] {
        let (expected, actual) = (stranger.direct.query(sql), stranger.gateway.query(sql));
        assert!(expected.sqlstate() == actual.sqlstate() || expected.sqlstate() == "0A000", "{sql}: {expected:?} {actual:?}");
    }
}
