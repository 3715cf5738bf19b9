//! What clients see when PostgreSQL's transaction numbers stop meaning what the lake thinks they mean, until `watershed rebase` has run
//! and after. Servers that really fall back are in ingest's own tests.

mod support;

use support::instance::{Instance, Options};
use support::wait_for;
use support::wire::Client;

const COUNT: &str = "SELECT count(*), sum(n) FROM numbers";

/// The answer, and whether it came from the lake.
fn ask(client: &mut Client) -> (String, bool) {
    let answer = client.run(COUNT).rows();
    let row = answer[0].iter().map(|v| v.clone().unwrap_or_default()).collect::<Vec<_>>().join("|");
    let pid = client.pid;
    let route = client.value(&format!(
        "SELECT CASE WHEN fell_back THEN 'postgres' ELSE route END FROM watershed.queries WHERE pid = {pid} AND sql = '{COUNT}' ORDER BY id DESC LIMIT 1"
    ));
    (row, route == "lake")
}

/// Every answer is right, and soon the lake gives it: the gateway notices a new definition when it meets it.
#[track_caller]
fn soon_from_the_lake(client: &mut Client, expected: &str) {
    wait_for("an answer from the lake", || {
        let (row, lake) = ask(client);
        assert_eq!(row, expected);
        lake.then_some(())
    });
}

#[test]
fn the_lake_answers_only_in_the_servers_own_lineage() {
    let instance = Instance::start(Options::on_demand());
    let mut client = Client::connect(&instance.gateway());
    client.run("CREATE TABLE numbers (ts timestamptz NOT NULL, n int8)");
    client.run("SELECT watershed.attach_table('public.numbers', event_time => 'ts')");
    client.run("INSERT INTO numbers (ts, n) SELECT now(), i FROM generate_series(1, 1000) i");
    instance.archive();
    client.run("INSERT INTO numbers (ts, n) VALUES (now(), 7)");
    soon_from_the_lake(&mut client, "1001|500507");

    // As after a failover: table and archive agree with one another, and not with the server. The gateway knows the boundary by heart.
    let mut admin = Client::connect(&instance.admin());
    admin.run(
        "BEGIN; UPDATE watershed_control.tables SET lineage = '1/1' WHERE table_name = 'numbers';
         UPDATE watershed_control.archives a SET lineage = '1/1' FROM watershed_control.tables t WHERE t.relid = a.relid AND t.table_name = 'numbers'; COMMIT",
    );
    client.run("INSERT INTO numbers (ts, n) VALUES (now(), 8)");
    assert_eq!(ask(&mut client), ("1002|500515".into(), false));
    let refused = instance.output(&["archive", "numbers", "--now"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("watershed rebase public.numbers"));

    let dry = instance.run(&["rebase", "numbers", "--dry-run"]);
    assert!(dry.contains("0 rows that PostgreSQL had lost would be brought back"), "{dry}");
    assert!(!ask(&mut client).1);
    let done = instance.run(&["rebase", "numbers"]);
    assert!(done.contains("lineage 1/1 -> "), "{done}");
    soon_from_the_lake(&mut client, "1002|500515");

    // As after a restore of the same lineage: the archive that the gateway has pinned is unknown, and so are its rows.
    client.run("INSERT INTO numbers (ts, n) SELECT now(), 1 FROM generate_series(1, 100)");
    instance.archive();
    // An older version would still be exact; this is about the newest.
    wait_for("the newest version to be pinned", || {
        soon_from_the_lake(&mut client, "1102|500615");
        let sql = format!("SELECT tail_rows FROM watershed.queries WHERE pid = {} AND sql = '{COUNT}' ORDER BY id DESC LIMIT 1", client.pid);
        (client.value(&sql) == "0").then_some(())
    });
    admin.run("SET watershed.maintenance = 'on'");
    admin.run("DELETE FROM watershed_control.archives WHERE number = (SELECT max(number) FROM watershed_control.archives)");
    admin.run("DELETE FROM numbers WHERE n = 1 AND _xid = (SELECT max(_xid) FROM numbers)");
    assert_eq!(ask(&mut client), ("1002|500515".into(), false));
    let done = instance.run(&["rebase", "numbers"]);
    assert!(done.contains("100 rows that PostgreSQL had lost brought back"), "{done}");
    soon_from_the_lake(&mut client, "1102|500615");
    assert!(instance.run(&["rebase"]).contains("public.numbers: nothing to do"));

    instance.run(&["compact", "numbers"]);
    soon_from_the_lake(&mut client, "1102|500615");
    let same = instance.run(&["verify", "numbers"]);
    assert!(same.contains("the same") && same.contains("100 rows had been lost and came back"), "{same}");
}
