//! Logins, writes and whatever else a session may hold: relayed as it is.

use super::*;

#[test]
fn login_failures_are_those_of_postgresql() {
    let refused = |target: &Target, options: &[(&str, &str)]| match Client::try_connect(target, options) {
        Err(LoginError::Refused(frame)) => Reply { frames: vec![frame] },
        Err(LoginError::Io(error)) => panic!("{error}"),
        Ok(_) => panic!("{} was let in", target.user),
    };
    let (gateway, direct) = (instance().gateway(), instance().direct());
    let cases: [(&str, fn(&Target) -> Target, &[(&str, &str)]); 5] = [
        ("a wrong password", |t| t.login(&t.user, "wrong"), &[]),
        ("an empty password", |t| t.login(&t.user, ""), &[]),
        ("an unknown user", |t| t.login("nobody_known", "x"), &[]),
        ("an unknown database", |t| t.database("no_such_database"), &[]),
        ("an unknown parameter", |t| t.clone(), &[("no_such_parameter", "1")]),
    ];
    for (what, change, options) in cases {
        let (expected, actual) = (refused(&change(&direct), options), refused(&change(&gateway), options));
        assert_same(what, &expected, &actual);
    }
    // What is reported at login is PostgreSQL's own word.
    let options = [
        ("application_name", "the test"),
        ("TimeZone", "Asia/Tokyo"),
        ("DateStyle", "ISO, DMY"),
        ("options", "-c search_path=pg_catalog"),
    ];
    let connect =
        |target: &Target| Client::try_connect(target, &options).unwrap_or_else(|error| panic!("{error:?}"));
    let (mut direct, mut gateway) = (connect(&direct), connect(&gateway));
    assert_eq!(direct.parameters, gateway.parameters);
    same_script(
        &mut direct,
        &mut gateway,
        &[
            "SHOW application_name",
            "SHOW search_path",
            "SELECT current_user, session_user, current_database()",
        ],
    );
    // Other databases behind the same gateway are relayed as they are.
    let mut elsewhere = Client::connect(&instance().admin_through_gateway().database("postgres"));
    assert_eq!(elsewhere.value("SELECT current_database()"), "postgres");
}

#[test]
fn writes_through_the_gateway_obey_the_table() {
    table("written");
    let (mut direct, mut gateway) = (direct(), owner());
    same_script(
        &mut direct,
        &mut gateway,
        &[
            "UPDATE written SET a = 1",
            "DELETE FROM written",
            "TRUNCATE written",
            "INSERT INTO written (ts, a, _xid) VALUES (now(), 1, '1')",
            "INSERT INTO written (ts, a, _stream, _offset) VALUES (now(), 1, 1, 1)",
            "INSERT INTO written VALUES (now(), 1, 'x', '1', 0, 0)",
            "ALTER TABLE written DROP COLUMN a",
            "ALTER TABLE written ALTER COLUMN a TYPE int8",
            "DROP TABLE written",
            "COPY written (ts, a, t, _xid) FROM STDIN",
            "SELECT count(*) FROM written FOR UPDATE",
            "LOCK TABLE written IN SHARE MODE",
            "INSERT INTO written (ts, a, t) VALUES ('2024-01-01', 1000, 'x') RETURNING a, t",
            "MERGE INTO written w USING (SELECT 1) s ON false WHEN NOT MATCHED THEN INSERT (ts, a) VALUES (now(), 3)",
            "SELECT count(*) FROM written",
        ],
    );
    // (The details of these errors hold a transaction's number.)
    for value in ["NULL", "'infinity'", "'-infinity'"] {
        let sql = format!("INSERT INTO written (ts, a) VALUES ({value}, 1)");
        let (expected, actual) = (direct.query(&sql).sqlstate(), gateway.query(&sql).sqlstate());
        assert_eq!(expected, actual, "{sql}");
        assert!(matches!(expected.as_str(), "23502" | "23514"), "{sql}: {expected}");
    }
    // A COPY without a list of columns would fill the provenance columns too: PostgreSQL refuses it, the gateway adds a list.
    assert_eq!(direct.query("COPY written FROM STDIN").sqlstate(), "42501");
    gateway.send(&frontend::query("COPY written (ts, a, t) FROM STDIN"));
    let reply = gateway.until(b"GZ");
    assert_eq!(reply.frames[0].tag, b'G', "{reply:?}");
    gateway.send(
        &[
            frontend::copy_data(b"2024-05-05 00:00:00+00\t3\tcop"),
            frontend::copy_data(b"ied\n"),
            frontend::copy_done(),
        ]
        .concat(),
    );
    assert_eq!(gateway.reply().ok().tags(), ["COPY 1"]);
    gateway.send(&frontend::query("COPY written (ts, a, t) FROM STDIN WITH (FORMAT csv)"));
    assert_eq!(gateway.frame().tag, b'G');
    gateway.send(&[frontend::copy_data(b"2024-05-05,not a number,x\n"), frontend::copy_done()].concat());
    assert_eq!(gateway.reply().sqlstate(), "22P02");
    gateway.send(&frontend::query("COPY written (ts, a, t) FROM STDIN"));
    assert_eq!(gateway.frame().tag, b'G');
    gateway.send(&[frontend::copy_data(b"2024-05-05\t1\tx\n"), frontend::copy_fail("no more")].concat());
    assert_eq!(gateway.reply().sqlstate(), "57014");
    let copied = "COPY (SELECT a, t FROM written WHERE a >= 1000 ORDER BY a) TO STDOUT";
    same_script(
        &mut direct,
        &mut gateway,
        &[
            "SELECT t, count(*) FROM written GROUP BY t ORDER BY t",
            copied,
            "COPY written (a, t) TO STDOUT WITH (FORMAT binary)",
        ],
    );
    assert_eq!(gateway.value("SELECT count(*) FROM written"), "105");
}

#[test]
fn the_rest_of_the_protocol_is_relayed() {
    table("relayed");
    let (mut direct, mut gateway) = (direct(), owner());
    // Notifications arrive between statements.
    gateway.run("LISTEN channel");
    direct.run("NOTIFY channel, 'hello'");
    let frame = gateway.frame();
    assert_eq!(frame.tag, b'A', "{frame:?}");
    assert!(String::from_utf8_lossy(&frame.body).contains("hello"));
    gateway.run("UNLISTEN *");
    // Statements larger than what the gateway looks at.
    let numbers: Vec<String> = (0..300_000).map(|n| (n % 50).to_string()).collect();
    let long = format!("SELECT count(*) FROM relayed WHERE a IN ({})", numbers.join(","));
    let reply = gateway.run(&long);
    assert_eq!(reply.value(), "50");
    let huge = format!("SELECT length('{}')", "x".repeat(20_000_000));
    assert_eq!(gateway.value(&huge), "20000000");
    assert_eq!(gateway.value("SELECT length(repeat('x', 50000000))"), "50000000");
    // Large values and many rows, byte for byte.
    same_script(
        &mut direct,
        &mut gateway,
        &[
            "SELECT repeat('ab', 3000000)",
            "SELECT g, md5(g::text) FROM generate_series(1, 20000) g",
            "SELECT a, repeat(t, 1000) FROM relayed ORDER BY a",
        ],
    );
    // Text that looks like the table but is not, and the table in disguise.
    same_script(
        &mut direct,
        &mut gateway,
        &[
            "SELECT 'FROM relayed' AS x",
            "SELECT count(*) FROM \"relayed\"",
            "SELECT count(*) FROM \"Relayed\"",
            "SELECT count(*) FROM U&\"r\\0065layed\"",
            "SELECT/**/count(*)/*;*/FROM/* -- */relayed",
            "SELECT count(*) FROM relayed -- ; DROP TABLE relayed",
            "(((SELECT count(*) FROM relayed)))",
            "TABLE relayed LIMIT 0",
            "SELECT count(*) FROM ONLY relayed",
            "SELECT count(*) FROM relayed *",
            "SELECT count(*) FROM watershed.relayed",
            "SELECT count(relayed) FROM relayed",
            "SELECT count(relayed.*) FROM relayed",
            "SELECT count((relayed).a) FROM relayed",
        ],
    );
    wait_for("the gateway to be idle", || (gateway.value("SELECT 1") == "1").then_some(()));
}

/// psql shows the same through the gateway, down to what its backslash commands ask of the catalog.
#[test]
fn psql_sees_postgresql() {
    if !support::instance::on_path("psql") {
        println!("psql is not installed: nothing to see");
        return;
    }
    table("shown");
    let psql = |target: &Target, arguments: &[&str]| {
        let support::wire::Host::Tcp(host, port) = &target.host else { panic!("the owner connects by TCP") };
        let mut command = std::process::Command::new("psql");
        command.args(["-X", "-v", "VERBOSITY=verbose"]).args(arguments);
        command.env("PGHOST", host).env("PGPORT", port.to_string()).env("PGUSER", &target.user);
        command.env("PGPASSWORD", &target.password).env("PGDATABASE", &target.database);
        let output = command.output().expect("psql starts");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (direct, gateway) = (instance().direct(), instance().gateway());
    for arguments in [
        &["-c", "\\d shown"][..],
        &["-c", "\\d+ logs"],
        &["-c", "\\dt"],
        &["-c", "\\dv watershed.*"],
        &["-c", "\\df watershed.*"],
        &["-c", "\\du"],
        &["-c", "\\dn+"],
        &["-c", "\\l"],
        &["-c", "SELECT t, count(*), avg(a) FROM shown GROUP BY t ORDER BY t"],
        &[
            "-c",
            "SELECT count(*) FROM shown",
            "-c",
            "SELECT sum(a) FROM shown",
            "-c",
            "SELECT nothing FROM shown",
        ],
        &["-c", "\\copy (SELECT a, t FROM shown ORDER BY a) TO STDOUT WITH (FORMAT csv, HEADER)"],
        &["-v", "FETCH_COUNT=7", "-c", "SELECT a, count(*) FROM shown GROUP BY a ORDER BY a"],
        &["-At", "-c", "SELECT count(*) FROM shown \\gdesc"],
        &["-1", "-c", "SELECT count(*) FROM shown", "-c", "SELECT 1 / 0", "-c", "SELECT count(*) FROM shown"],
        &["-c", "\\sv watershed.queries"],
    ] {
        loop {
            let (expected, actual) = (psql(&direct, arguments), psql(&gateway, arguments));
            if expected == actual {
                break;
            }
            // Other tests make tables and roles meanwhile: a difference counts if PostgreSQL still says the same.
            if psql(&direct, arguments) == expected {
                assert_eq!(expected, actual, "psql {arguments:?}");
            }
        }
    }
}

/// Before and during login: requests for encryption, other versions of the protocol, unknown options, and nonsense.
#[test]
fn odd_beginnings_get_postgresqls_answer() {
    let (gateway, direct) = (instance().gateway(), instance().direct());
    // Encryption is not offered; the login goes on in the clear on the same connection.
    for code in [80_877_103, 80_877_104] {
        let mut client = Client::unspoken(&gateway).expect("a connection");
        client.send(&frontend::untagged(code, &[]));
        assert_eq!(client.byte().expect("an answer"), b'N', "request {code}");
        client.send(&frontend::startup(196_608, &gateway, &[]));
        assert_eq!(client.frame().tag, b'R', "request {code}");
    }
    // Newer minor versions and protocol options are negotiated down, newer major ones refused.
    let cases: [(i32, &[(&str, &str)]); 4] = [
        (196_610, &[]),
        (196_608, &[("_pq_.unknown", "1")]),
        (196_611, &[("_pq_.unknown", "1"), ("_pq_.other", "x")]),
        (262_144, &[]),
    ];
    for (version, options) in cases {
        let ask = |target: &Target| {
            let mut client = Client::unspoken(target).expect("a connection");
            client.send(&frontend::startup(version, target, options));
            let mut frames = vec![client.frame()];
            if frames[0].tag == b'v' {
                frames.push(client.frame());
            }
            Reply { frames }
        };
        assert_same(&format!("version {version}, {options:?}"), &ask(&direct), &ask(&gateway));
    }
    // Nonsense ends that connection and no other.
    for nonsense in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        &[0; 64],
        &[0xff; 64],
        &[0, 0, 0, 4],
        b"\0\0\0\x08\x04\xd2\x16\x2f",
        b"x",
    ] {
        let mut client = Client::unspoken(&gateway).expect("a connection");
        client.send(nonsense);
        client.drop_connection();
    }
    let mut client = owner();
    // In the middle of a session a message that does not exist ends it, as in PostgreSQL.
    client.send(b"\x01\0\0\0\x04");
    let frame = client.frame();
    assert_eq!((frame.tag, frame.fields()[&'C'].as_str()), (b'E', "08P01"), "{frame:?}");
    assert_eq!(owner().value("SELECT 1"), "1");
}

#[test]
fn other_encodings_and_the_old_function_call_are_relayed() {
    table("encoded");
    let options = [("client_encoding", "LATIN1")];
    let connect =
        |target: &Target| Client::try_connect(target, &options).unwrap_or_else(|error| panic!("{error:?}"));
    let (mut direct, mut gateway) = (connect(&instance().direct()), connect(&instance().gateway()));
    for sql in [
        &b"SELECT '\xe9\xe8' AS \"\xe4\", count(*) FROM encoded"[..],
        b"SELECT count(*) FROM encoded WHERE t <> '\xe9'",
        b"SELECT '\xff'",
    ] {
        same_frames(&mut direct, &mut gateway, "LATIN1", &[frontend::query_bytes(sql)], 1);
    }
    let (mut direct, mut gateway) = (self::direct(), owner());
    same_frames(
        &mut direct,
        &mut gateway,
        "no UTF-8",
        &[frontend::query_bytes(b"SELECT '\xe9', count(*) FROM encoded")],
        1,
    );
    // int4abs, and a function that is not there.
    for call in [
        frontend::function_call(1251, &["-5"]),
        frontend::function_call(1251, &["x"]),
        frontend::function_call(1, &[]),
    ] {
        same_frames(&mut direct, &mut gateway, "FunctionCall", &[call], 1);
    }
    // COPY in the extended protocol: what is sent before the server asks for it is the data.
    let copy = [extended("COPY encoded (ts, a, t) FROM STDIN")];
    let bytes = copy.concat();
    let mut replies = Vec::new();
    for client in [&mut direct, &mut gateway] {
        client.run("BEGIN");
        client.send(&bytes);
        client.send(&frontend::flush());
        let mut reply = client.until(b"GE");
        client.send(
            &[
                frontend::copy_data(b"2024-05-05\t1\tx\n"),
                frontend::flush(),
                frontend::copy_data(b"2024-05-06\t2\ty\n"),
                frontend::copy_done(),
                frontend::sync(),
            ]
            .concat(),
        );
        reply.frames.extend(client.reply().frames);
        reply.frames.extend(client.query("SELECT count(*) FROM encoded").frames);
        client.run("ROLLBACK");
        replies.push(reply);
    }
    assert_same("COPY in the extended protocol", &replies[0], &replies[1]);
}

/// Hundreds of requests sent before the first answer is read, and dozens of sessions at once.
#[test]
fn a_crowd_of_requests_is_answered_in_order() {
    table("crowded");
    let (mut direct, mut gateway) = (direct(), owner());
    let mut frames = vec![frontend::parse("st", "SELECT count(*) FROM crowded WHERE a < $1", &[23])];
    for n in 0..300i32 {
        frames.push(frontend::bind(
            "",
            "st",
            Format::Binary,
            &[Some(n.to_be_bytes().to_vec())],
            Format::Text,
        ));
        frames.push(frontend::execute("", 0));
        if n % 50 == 49 {
            frames.push(frontend::sync());
        }
    }
    same_frames(&mut direct, &mut gateway, "one pipeline", &frames, 6);
    let simple: Vec<Vec<u8>> = (0..100)
        .map(|n| frontend::query(&format!("SELECT {n}, count(*) FROM crowded WHERE a <> {n}")))
        .collect();
    same_frames(&mut direct, &mut gateway, "simple queries", &simple, 100);

    std::thread::scope(|scope| {
        for session in 0..32 {
            scope.spawn(move || {
                let mut client = owner();
                for round in 0..6 {
                    let sql = format!(
                        "SELECT count(*), sum(a), min(ts), max(t) FROM crowded WHERE a >= {}",
                        (session + round) % 90
                    );
                    let expected = (100 - (session + round) % 90).to_string();
                    assert_eq!(client.run(&sql).rows()[0][0].as_deref(), Some(expected.as_str()), "{sql}");
                }
            });
        }
    });
    // More prepared statements than anybody remembers.
    let mut frames = Vec::new();
    for n in 0..4500 {
        frames.push(frontend::parse(
            &format!("st{n}"),
            if n % 100 == 0 { "SELECT count(*) FROM crowded" } else { "SELECT 1" },
            &[],
        ));
    }
    frames.push(frontend::sync());
    gateway.send(&frames.concat());
    gateway.reply().ok();
    for n in [0, 100, 4000, 4100, 4400] {
        gateway.send(&[bind_execute("", &format!("st{n}")), frontend::sync()].concat());
        assert_eq!(gateway.reply().ok().rows(), [[Some("100".to_owned())]], "st{n}");
    }
}
