//! What is sent inside of transactions is one transaction, and sees what PostgreSQL's would.

use super::*;

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
