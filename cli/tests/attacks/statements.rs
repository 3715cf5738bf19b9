//! Prepared statements and portals live, see and die as in PostgreSQL.

use super::*;

#[test]
fn a_prepared_statement_sees_rows_added_between_its_executions() {
    table("repeated");
    let (mut gateway, mut writer) = (owner(), direct());
    let sql = "SELECT count(*), sum(a) FROM repeated WHERE a >= $1";
    gateway.send(&[frontend::parse("st", sql, &[]), frontend::sync()].concat());
    gateway.reply().ok();
    for round in 0..14 {
        let expected = writer.run("SELECT count(*), sum(a) FROM repeated WHERE a >= 10").rows();
        for (format, value) in
            [(Format::Text, b"10".to_vec()), (Format::Binary, 10i32.to_be_bytes().to_vec())]
        {
            let bytes = [
                frontend::bind("", "st", format, &[Some(value)], Format::Text),
                frontend::execute("", 0),
                frontend::sync(),
            ];
            gateway.send(&bytes.concat());
            let reply = gateway.reply().ok();
            assert_eq!(reply.rows(), expected, "execution {round}: {reply:?}");
        }
        writer.run(&format!(
            "INSERT INTO repeated (ts, a, t) VALUES (now() - interval '{round} days', {round}, 'new')"
        ));
        if round % 5 == 4 {
            instance().run(&["archive", "--now", "public.repeated"]);
        }
    }
    assert_route(&gateway, sql, "lake");
    gateway.run("DEALLOCATE st");
    gateway.send(&[bind_execute("", "st"), frontend::sync()].concat());
    assert_eq!(gateway.reply().sqlstate(), "26000");
}

#[test]
fn portals_live_and_die_as_in_postgresql() {
    table("portals");
    let sql = "SELECT a, count(*) FROM portals GROUP BY a ORDER BY a";
    let (mut direct, mut gateway) = (direct(), owner());
    let bind = |portal: &str| frontend::bind(portal, "st", Format::Text, &[], Format::Text);
    let cases: Vec<(&str, Vec<Vec<u8>>, usize)> = vec![
        (
            "prepare",
            vec![frontend::parse("st", sql, &[]), frontend::describe(b'S', "st"), frontend::sync()],
            1,
        ),
        ("a name taken", vec![frontend::parse("st", "SELECT 1", &[]), frontend::sync()], 1),
        (
            "in portions",
            vec![
                bind("p"),
                frontend::execute("p", 7),
                frontend::execute("p", 7),
                frontend::execute("p", 0),
                frontend::sync(),
            ],
            1,
        ),
        ("gone after Sync", vec![frontend::execute("p", 1), frontend::sync()], 1),
        (
            "two at once",
            vec![
                bind("p"),
                bind("q"),
                frontend::execute("p", 2),
                frontend::execute("q", 3),
                frontend::execute("p", 2),
                frontend::execute("q", 0),
                frontend::execute("p", 0),
                frontend::sync(),
            ],
            1,
        ),
        ("a portal name taken", vec![bind("p"), bind("p"), frontend::sync()], 1),
        (
            "the unnamed one replaced",
            vec![bind(""), frontend::execute("", 5), bind(""), frontend::execute("", 2), frontend::sync()],
            1,
        ),
        (
            "closed",
            vec![
                bind("p"),
                frontend::execute("p", 2),
                frontend::close(b'P', "p"),
                frontend::execute("p", 2),
                frontend::sync(),
            ],
            1,
        ),
        ("never run", vec![bind("p"), frontend::describe(b'P', "p"), frontend::sync()], 1),
        ("begin", vec![frontend::query("BEGIN")], 1),
        ("suspended in a transaction", vec![bind("p"), frontend::execute("p", 4), frontend::sync()], 1),
        ("while it waits", vec![extended("SELECT 'between'"), frontend::sync()], 1),
        ("another of its kind", vec![extended("SELECT count(*) FROM portals"), frontend::sync()], 1),
        ("goes on", vec![frontend::execute("p", 4), frontend::sync()], 1),
        (
            "its rows are those of its start",
            vec![
                extended("INSERT INTO portals (ts, a, t) VALUES (now(), 5000, 'late')"),
                frontend::execute("p", 0),
                frontend::sync(),
            ],
            1,
        ),
        ("at its end", vec![frontend::execute("p", 0), frontend::sync()], 1),
        (
            "a savepoint",
            vec![
                frontend::query("SAVEPOINT s"),
                bind("q"),
                frontend::execute("q", 1),
                frontend::sync(),
                frontend::query("ROLLBACK TO s"),
                frontend::execute("q", 1),
                frontend::sync(),
            ],
            4,
        ),
        ("the end", vec![frontend::query("ROLLBACK"), frontend::execute("p", 1), frontend::sync()], 2),
        ("a negative limit is none", vec![bind("p"), frontend::execute("p", -1), frontend::sync()], 1),
        ("closed twice", vec![frontend::close(b'S', "st"), frontend::close(b'S', "st"), frontend::sync()], 1),
        (
            "unknown names",
            vec![
                bind("p"),
                frontend::sync(),
                frontend::describe(b'S', "no"),
                frontend::sync(),
                frontend::describe(b'P', "no"),
                frontend::sync(),
            ],
            3,
        ),
        (
            "too few parameters",
            vec![
                frontend::parse("st", "SELECT count(*) FROM portals WHERE a = $1", &[23]),
                bind("p"),
                frontend::sync(),
            ],
            1,
        ),
        (
            "a simple query ends the unnamed portal",
            vec![
                frontend::parse("", sql, &[]),
                frontend::bind("", "", Format::Text, &[], Format::Text),
                frontend::execute("", 2),
                frontend::query("SELECT 1"),
                frontend::execute("", 2),
                frontend::sync(),
            ],
            2,
        ),
        (
            "binary and text",
            vec![
                frontend::parse("", sql, &[]),
                frontend::bind("", "", Format::Text, &[], Format::Binary),
                frontend::describe(b'P', ""),
                frontend::execute("", 2),
                frontend::sync(),
            ],
            1,
        ),
    ];
    for (what, frames, syncs) in &cases {
        same_frames(&mut direct, &mut gateway, what, frames, *syncs);
    }
}

/// Random pipelines of everything the extended protocol has, valid or not, get the same frames back.
#[test]
fn random_pipelines_get_the_frames_that_postgresql_sends() {
    table("fuzzed");
    const ROUNDS: u64 = 400;
    let statements = [
        "SELECT count(*) FROM fuzzed",
        "SELECT t, count(*), avg(a) FROM fuzzed GROUP BY t ORDER BY t",
        "SELECT a, ts FROM fuzzed WHERE a < 9 ORDER BY a",
        "SELECT count(*) FROM fuzzed WHERE a < $1",
        "SELECT stddev(a) FROM fuzzed",
        "SELECT count(*) FROM fuzzed WHERE 1 / (a - a) = 1",
        "SELECT no_such_column FROM fuzzed",
        "SELECT $1::int4 + 1",
        "INSERT INTO own VALUES ($1)",
        "SELECT count(*) FROM own",
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
        "SAVEPOINT s",
        "ROLLBACK TO s",
        "",
        "SELEC",
        "SELECT route FROM watershed.no_such_table",
    ];
    let (names, portals) = (["", "s1", "s2"], ["", "p1", "p2"]);
    for seed in [1, 2, 3] {
        let mut random = Sequence(seed);
        let (mut direct, mut gateway) = (direct(), owner());
        same_script(&mut direct, &mut gateway, &["CREATE TEMP TABLE own (a int4)"]);
        let mut history = Vec::new();
        for round in 0..ROUNDS / 3 {
            let mut frames = Vec::new();
            let mut syncs = 1;
            let mut spoken = Vec::new();
            for _ in 0..=random.below(9) {
                let pick = |random: &mut Sequence, from: &[&'static str]| {
                    from[random.below(from.len() as u64) as usize]
                };
                let (name, portal) = (pick(&mut random, &names), pick(&mut random, &portals));
                let sql = pick(&mut random, &statements);
                let limit = [0, 0, 1, 3][random.below(4) as usize];
                let kind = [b'S', b'P'][random.below(2) as usize];
                let formats = [Format::Text, Format::Binary];
                let (format, results) =
                    (formats[random.below(2) as usize], formats[random.below(2) as usize]);
                let value = if format == Format::Text { b"7".to_vec() } else { 7i32.to_be_bytes().to_vec() };
                let values: &[Option<Vec<u8>>] = if random.below(3) == 0 { &[Some(value)] } else { &[] };
                let (text, bytes) = match random.below(12) {
                    0..=2 => (format!("Parse {name:?} {sql}"), frontend::parse(name, sql, &[])),
                    3..=4 => {
                        let bytes = frontend::bind(portal, name, format, values, results);
                        (
                            format!(
                                "Bind {portal:?} {name:?} {} values, {format:?} to {results:?}",
                                values.len()
                            ),
                            bytes,
                        )
                    }
                    5..=6 => (format!("Execute {portal:?} {limit}"), frontend::execute(portal, limit)),
                    7 => {
                        let name = if kind == b'S' { name } else { portal };
                        (format!("Describe {} {name:?}", char::from(kind)), frontend::describe(kind, name))
                    }
                    8 => {
                        let name = if kind == b'S' { name } else { portal };
                        (format!("Close {} {name:?}", char::from(kind)), frontend::close(kind, name))
                    }
                    9 => (format!("all of {sql}"), extended(sql)),
                    10 => {
                        syncs += 1;
                        ("Sync".into(), frontend::sync())
                    }
                    _ => ("Flush".into(), frontend::flush()),
                };
                spoken.push(text);
                frames.push(bytes);
            }
            if random.below(5) == 0 {
                let sql = statements[random.below(statements.len() as u64) as usize];
                frames.push(frontend::sync());
                frames.push(frontend::query(sql));
                spoken.push(format!("Sync, Query {sql}"));
                syncs += 1;
            } else {
                frames.push(frontend::sync());
                spoken.push("Sync".into());
            }
            history.push(spoken.join("\n      "));
            let from = history.len().saturating_sub(4);
            let what = format!(
                "seed {seed}, round {round}, the last ones being\n      {}\n ",
                history[from..].join("\n    --\n      ")
            );
            same_frames(&mut direct, &mut gateway, &what, &frames, syncs);
        }
    }
}
