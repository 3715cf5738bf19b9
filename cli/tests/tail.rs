//! What the tail costs: rows and blocks that PostgreSQL touches for an answer of the lake are those that the lake does not have,
//! however many the hot table holds.

mod support;

use support::instance::{Instance, Options};
use support::wait_for;
use support::wire::Client;

/// What PostgreSQL has touched of the table's parts so far.
#[derive(Clone, Copy, Debug)]
struct Touched {
    /// Rows that scans fetched.
    rows: i64,
    /// Blocks of tables and indexes.
    blocks: i64,
}

fn touched(admin: &mut Client) -> Touched {
    let found = admin.run(
        "SELECT sum(t.seq_tup_read + coalesce(t.idx_tup_fetch, 0))::int8,
                sum(b.heap_blks_read + b.heap_blks_hit + coalesce(b.idx_blks_read + b.idx_blks_hit, 0))::int8
         FROM pg_stat_user_tables t JOIN pg_statio_user_tables b USING (relid)
         WHERE t.relid IN (SELECT relid FROM pg_partition_tree('public.readings'))",
    );
    let row = found.rows().into_iter().next().expect("a row");
    let number = |at: usize| row[at].as_deref().and_then(|n| n.parse().ok()).expect("a number");
    Touched { rows: number(0), blocks: number(1) }
}

/// What one answer of the lake touches in PostgreSQL: the least of three, since the archiver of `up` looks at the table every few seconds,
/// and is counted as well.
#[track_caller]
fn cost(instance: &Instance, admin: &mut Client, sql: &str, expected: i64) -> Touched {
    let all = [(); 3].map(|()| cost_once(instance, admin, sql, expected));
    let least = |of: fn(&Touched) -> i64| all.iter().map(of).min().expect("three");
    Touched { rows: least(|t| t.rows), blocks: least(|t| t.blocks) }
}

/// What one answer touched. Counters are complete once the session that counted is gone.
#[track_caller]
fn cost_once(instance: &Instance, admin: &mut Client, sql: &str, expected: i64) -> Touched {
    let before = touched(admin);
    let mut client = Client::connect(&instance.gateway());
    let pid = client.value("SELECT pg_backend_pid()");
    assert_eq!(client.value(&format!("/* watershed: lake */ {sql}")), expected.to_string());
    drop(client);
    wait_for("the session's end", || {
        let here = admin.value(&format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"));
        (here == "0").then_some(())
    });
    wait_for("the session's counters", || {
        let now = touched(admin);
        (now.rows > before.rows)
            .then_some(Touched { rows: now.rows - before.rows, blocks: now.blocks - before.blocks })
    })
}

/// Rows that wait for the archiver at each look.
const TAIL: i64 = 150;

#[test]
fn the_tail_costs_what_it_holds() {
    let instance = Instance::start(Options::on_demand());
    let mut owner = Client::connect(&instance.gateway());
    let mut watcher = Client::connect(&instance.gateway());
    let mut admin = Client::connect(&instance.admin());
    owner.run("CREATE TABLE readings (ts timestamptz NOT NULL, kind text NOT NULL, n int8)");
    owner.run("SELECT watershed.attach_table('public.readings', event_time => 'ts')");
    // Ten times the hot rows, the same tail. All are of one day, so that none of it is pruned.
    let (mut rows, mut ones) = (0, 0);
    let mut costs = Vec::new();
    for more in [20_000, 180_000] {
        let mut add = |count: i64, rows: &mut i64, ones: &mut i64| {
            owner.run(&format!(
                "INSERT INTO readings (ts, kind, n) SELECT date_trunc('day', now(), 'UTC') + g * interval '100 milliseconds', 'kind ' || g % 4, g \
                 FROM generate_series(1, {count}) g"
            ));
            *rows += count;
            *ones += (count + 3) / 4;
        };
        add(more, &mut rows, &mut ones);
        instance.archive();
        // Until the gateway looks, its older version is exact as well, with a longer tail.
        wait_for("the gateway's look at the lake", || {
            let seen = watcher.run("SELECT sum(rows) FROM watershed.files WHERE table_name = 'readings'");
            (seen.rows() == [[Some(rows.to_string())]]).then_some(())
        });
        // As autovacuum leaves it: what the planner then knows must not lead it to read everything.
        admin.run("VACUUM (ANALYZE) readings");
        add(TAIL, &mut rows, &mut ones);
        let all = cost(&instance, &mut admin, "SELECT count(*) FROM readings", rows);
        // A condition on a column travels with the tail.
        let some = cost(&instance, &mut admin, "SELECT count(*) FROM readings WHERE kind = 'kind 1'", ones);
        println!("{rows} rows: {all:?}; with a condition: {some:?}");
        costs.push((all, some));
    }
    let [(small, small_some), (large, large_some)] = costs[..] else { panic!("two sizes: {costs:?}") };
    for (small, large) in [(small, large), (small_some, large_some)] {
        assert!(large.rows >= TAIL, "the counters count: {large:?}");
        // The second tail stands behind the first one, which was archived meanwhile: a block more or less.
        assert!(large.rows <= small.rows + TAIL && large.rows < 4 * TAIL, "{small:?}, then {large:?}");
        assert!(large.blocks <= small.blocks + 50, "{small:?}, then {large:?}");
    }
}
