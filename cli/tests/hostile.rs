//! Clients that mean no good, or are broken: messages that never end, floods, who does not read, who vanishes, garbage. Nobody panics,
//! memory stays within bounds that are told here, others get their answers meanwhile, and PostgreSQL keeps no process for who is gone.
//!
//! What such clients are answered is the business of the transcripts and of `fuzz.rs`.

#[allow(dead_code, reason = "tls.rs uses the rest")]
mod secured;
mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use std::{fs, thread};

use secured::{Certificates, rest, socket, socket_from};
use support::instance::{Instance, Options, wait_for_value};
use support::scram::Scram;
use support::wait_for;
use support::wire::{Client, Format, Target, frontend};

/// Rows of the table `crowd`: some in the lake, some not.
const ROWS: &str = "20000";
/// A message as long as nobody sends them; PostgreSQL takes up to a GiB, and makes room for all of it at once.
const LONGEST: u32 = 1 << 28;
/// Sessions at a time, in most tests.
const MANY: usize = 20;

/// The product with a table, and room in it for one test at a time: they look at the memory of its process.
struct Stage {
    instance: Instance,
    certificates: Certificates,
    turn: Mutex<()>,
}

/// A test's turn: a session that behaves, and an administrator.
struct Turn {
    stage: &'static Stage,
    good: Client,
    admin: Client,
    _turn: MutexGuard<'static, ()>,
}

fn turn() -> Turn {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    let stage = STAGE.get_or_init(|| {
        let certificates = Certificates::new();
        certificates.authority("authority");
        certificates.server("server", "authority", "ec -pkeyopt ec_paramgen_curve:P-256");
        let settings = format!(
            "[gateway]\nmemory_limit = \"256MiB\"\n[gateway.tls]\ncert = \"{}\"\nkey = \"{}\"\n[ingest.pressure]\nmin_free = \"64MiB\"\nmin_free_percent = 0.1\n",
            certificates.text("server.crt"),
            certificates.text("server.key")
        );
        fs::write(certificates.path("settings.toml"), settings).expect("settings");
        let options = Options::on_demand().with("WATERSHED_CONFIG", &certificates.text("settings.toml"));
        let instance = Instance::start(options);
        let mut owner = Client::connect(&instance.gateway());
        owner.run("CREATE TABLE crowd (ts timestamptz NOT NULL, a int4, t text)");
        owner.run("SELECT watershed.attach_table('public.crowd', event_time => 'ts')");
        let rows = |from, to| {
            format!(
                "INSERT INTO crowd SELECT '2026-03-01 00:00Z'::timestamptz + g * interval '1 s', g, repeat(md5(g::text), 40)
                 FROM generate_series({from}, {to}) g"
            )
        };
        owner.run(&rows(1, 19_000));
        instance.run(&["archive", "--now", "public.crowd"]);
        owner.run(&rows(19_001, 20_000));
        wait_for("the gateway to know the table", || {
            let routed = owner.run("EXPLAIN SELECT count(*) FROM crowd");
            routed.column().iter().any(|line| line.contains("lake")).then_some(())
        });
        Stage { instance, certificates, turn: Mutex::new(()) }
    });
    let held = stage.turn.lock().unwrap_or_else(PoisonError::into_inner);
    let mut turn = Turn {
        stage,
        good: Client::connect(&stage.instance.gateway()),
        admin: Client::connect(&stage.instance.admin()),
        _turn: held,
    };
    // What is allocated once for good is not counted.
    turn.is_served();
    turn.rests();
    turn
}

impl Turn {
    fn target(&self) -> Target {
        self.stage.instance.gateway()
    }

    fn client(&self) -> Client {
        Client::connect(&self.target())
    }

    fn port(&self) -> u16 {
        self.stage.instance.port()
    }

    /// The session that behaves gets its answers, from both stores.
    #[track_caller]
    fn is_served(&mut self) {
        assert_eq!(self.good.value("SELECT count(*) FROM crowd"), ROWS);
        assert_eq!(self.good.value("SELECT a FROM crowd WHERE ts = '2026-03-01 00:00:07Z'"), "7");
    }

    /// PostgreSQL has no process left but that of the session that behaves.
    fn rests(&mut self) {
        let left = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename = 'watershed'";
        wait_for_value(&mut self.admin, left, "1");
    }

    fn status(&self, name: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.stage.instance.pid())).expect("the status of up");
        let line = text.lines().find_map(|l| l.strip_prefix(name)).expect("a line of the status");
        line.trim_start_matches(':').trim().trim_end_matches(" kB").trim().parse().expect("a number")
    }

    /// The most memory that the process holds while `attack` goes on, beyond what it held before, must be below `bound`, in MiB.
    /// At the end others are served, nothing has panicked, and PostgreSQL is rid of who did it.
    #[track_caller]
    fn bounded(&mut self, what: &str, bound: u64, attack: impl FnOnce(&mut Turn)) {
        fs::write(format!("/proc/{}/clear_refs", self.stage.instance.pid()), "5").expect("the high-water mark is forgotten");
        let before = self.status("VmRSS");
        attack(self);
        self.is_served();
        let grown = self.status("VmHWM").saturating_sub(before) / 1024;
        println!("{what}: the process grew by {grown} MiB");
        assert!(grown < bound, "{what}: the process grew by {grown} MiB");
        self.rests();
        assert!(self.stage.instance.alive());
        let log = self.stage.instance.log();
        assert!(!log.contains("panicked"), "{what}: {log}");
    }
}

fn raw(tag: u8, length: u32, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

/// A statement that PostgreSQL answers, and one of the lake, each with far more than sockets hold.
const HUGE: [&str; 2] = [
    "SELECT repeat('x', 1000) FROM generate_series(1, 1000000)",
    "SELECT a, t, count(*) FROM crowd GROUP BY a, t",
];

#[test]
fn messages_that_never_end_take_no_room() {
    let mut turn = turn();
    // Announced, and begun: none of it may be made room for ahead of time. (What is looked at is at most a MiB, whole.)
    turn.bounded("giant lengths", 48, |turn| {
        let mut held = Vec::new();
        for tag in *b"QPBdFQPBdF" {
            let mut client = turn.client();
            if tag == b'd' {
                client.run("CREATE TEMP TABLE taken (t text)");
                client.send(&frontend::query("COPY taken FROM STDIN"));
                assert_eq!(client.frame().tag, b'G');
            }
            client.send(&raw(tag, LONGEST, &vec![b'x'; 100_000]));
            held.push(client);
        }
        // One byte at a time, in all of them.
        for _ in 0..200 {
            for client in &mut held {
                client.send(b"y");
            }
        }
        turn.is_served();
        held.into_iter().for_each(Client::drop_connection);
    });
    // Of those that are looked at, each just short of its end.
    turn.bounded("messages of a MiB that do not end", 2 * MANY as u64 + 32, |turn| {
        let mut held = Vec::new();
        for n in 0..MANY {
            let mut client = turn.client();
            client.send(&raw(b"QPB"[n % 3], (1 << 20) - 1, &vec![b'x'; (1 << 20) - 100]));
            held.push(client);
        }
        turn.is_served();
        held.into_iter().for_each(Client::drop_connection);
    });
}

#[test]
fn who_never_reads_waits_alone() {
    let mut turn = turn();
    // Less than a MiB each where PostgreSQL answers; what the lake may take for all its queries (some may be refused), where it does.
    for (sql, many, bound) in [(HUGE[0], MANY, 64), (HUGE[1], MANY / 4, 256)] {
        turn.bounded(&format!("{many} that never read {sql}"), bound, |turn| {
            let mut held = Vec::new();
            for _ in 0..many {
                let mut client = turn.client();
                client.send(&frontend::query(sql));
                held.push(client);
            }
            for client in &mut held {
                let first = client.frame();
                assert!(first.tag == b'T' || first.fields().get(&'C').is_some_and(|code| code == "53200"), "{first:?}");
            }
            for _ in 0..5 {
                turn.is_served();
            }
            held.into_iter().for_each(Client::drop_connection);
        });
    }
    // Nor do their own statements pile up: what one may send ahead is bounded by what it takes back.
    turn.bounded("statements ahead of answers that nobody reads", 200, |turn| {
        let mut writers = Vec::new();
        let mut held = Vec::new();
        let bind = |sql: &str| [frontend::parse("", sql, &[]), frontend::bind("", "", Format::Text, &[], Format::Text)].concat();
        let (relayed, lakes) = (bind("SELECT repeat('x', 1000)"), bind("SELECT count(*) FROM crowd"));
        let (execute, sync, flush) = (frontend::execute("", 0), frontend::sync(), frontend::flush());
        let ahead: [(&[u8], Vec<u8>); 6] = [
            (&[], [&relayed[..], &execute, &sync].concat()),
            (&[], [&lakes[..], &execute, &sync].concat()),
            (&[], [&relayed[..], &execute, &flush].concat()),
            // The shortest messages of which much is remembered, and the shortest of all.
            (&relayed, execute.clone()),
            (&relayed, frontend::describe(b'P', "")),
            (&[], sync.clone()),
        ];
        for (first, pipeline) in ahead {
            let mut client = turn.client();
            client.send(first);
            let mut write = client.try_writer();
            held.push(client);
            let pipeline = pipeline.repeat(64_000 / pipeline.len());
            // Until it is cut off.
            writers.push(thread::spawn(move || (0..4_000).all(|_| write(&pipeline).is_ok())));
        }
        for _ in 0..20 {
            turn.is_served();
        }
        held.into_iter().for_each(Client::drop_connection);
        for writer in writers {
            assert!(!writer.join().expect("a writer"), "all was taken, though nothing was read");
        }
    });
}

#[test]
fn floods_of_names_are_forgotten() {
    let mut turn = turn();
    let padding = "x".repeat(4_000);
    let flood = |turn: &mut Turn, what: &str, bound: u64, before: &str, count: usize, message: &dyn Fn(usize) -> Vec<u8>| {
        turn.bounded(&format!("{count} {what}"), bound, |turn| {
            let mut client = turn.client();
            client.run(before);
            for from in (0..count).step_by(500) {
                let mut bytes: Vec<u8> = (from..(from + 500).min(count)).flat_map(message).collect();
                bytes.extend(frontend::sync());
                client.send(&bytes);
                client.reply().ok();
                if from % 2_000 == 0 {
                    turn.is_served();
                }
            }
            // It is served as before.
            assert_eq!(client.value("SELECT count(*) FROM crowd"), ROWS);
            client.drop_connection();
        });
    };
    // A session remembers 16 MiB of texts; the texts that were classified are remembered for all.
    flood(&mut turn, "named statements of PostgreSQL's", 96, "SELECT 1", 8_000, &|n| {
        frontend::parse(&format!("s{n}"), &format!("SELECT {n} /* {padding} */"), &[])
    });
    flood(&mut turn, "named statements of the lake's", 96, "SELECT 1", 2_000, &|n| {
        frontend::parse(&format!("s{n}"), &format!("SELECT count(*) FROM crowd WHERE a < {n}"), &[])
    });
    let parse = |sql: &str| frontend::parse("", sql, &[]);
    let bind = |n: usize| frontend::bind(&format!("p{n}"), "", Format::Text, &[], Format::Text);
    flood(&mut turn, "portals of PostgreSQL's", 64, "BEGIN", 20_000, &|n| {
        [if n % 500 == 0 { parse("SELECT 1") } else { Vec::new() }, bind(n)].concat()
    });
    flood(&mut turn, "portals of the lake's", 160, "BEGIN", 1_500, &|n| {
        [if n % 500 == 0 { parse("SELECT count(*) FROM crowd") } else { Vec::new() }, bind(n)].concat()
    });
    // Names of their own for what is not there.
    turn.bounded("20000 Binds before any Parse", 32, |turn| {
        let mut client = turn.client();
        for n in 0..20_000 {
            let bytes = [frontend::bind("", &format!("never{n}"), Format::Text, &[], Format::Text), frontend::sync()];
            client.send(&bytes.concat());
            if n % 100 == 99 {
                for _ in 0..100 {
                    assert_eq!(client.reply().sqlstate(), "26000");
                }
            }
        }
        client.drop_connection();
    });
}

#[test]
fn who_vanishes_leaves_nothing_behind() {
    let mut turn = turn();
    turn.bounded("clients that vanish", 200, |turn| {
        let copy = |turn: &Turn, sql: &str| {
            let mut client = turn.client();
            client.send(&frontend::query(sql));
            assert_eq!(client.frame().tag, b'G');
            client.send(&frontend::copy_data(b"2026-03-02 00:00Z\t-1\tlost\n"));
            client
        };
        for n in 0..MANY {
            // In the middle of COPY data, between two pieces, and within one.
            let mut client = copy(turn, "COPY crowd (ts, a, t) FROM STDIN");
            if n % 2 == 0 {
                client.send(&raw(b'd', 5_000, b"2026-03-02 00:00Z\t-2\t"));
            }
            client.drop_connection();
            // In the middle of an answer.
            for sql in HUGE.iter().copied().chain(["COPY (SELECT repeat('x', 1000) FROM generate_series(1, 1000000)) TO STDOUT"]) {
                let mut client = turn.client();
                client.send(&frontend::query(sql));
                client.frame();
                client.drop_connection();
            }
            // Before the first row, while both stores are at work.
            for sql in ["SELECT pg_sleep(1000) FROM crowd LIMIT 1", "SELECT count(*) FROM crowd c, generate_series(1, 100000)", HUGE[1]] {
                let mut client = turn.client();
                client.send(&frontend::query(sql));
                client.drop_connection();
            }
            // Within a message, and within the login.
            let mut client = turn.client();
            client.send(&frontend::query("SELECT count(*) FROM crowd")[..12]);
            client.drop_connection();
            let startup = frontend::startup(196_608, &turn.target(), &[]);
            let mut socket = socket(turn.port());
            socket.write_all(&startup[..startup.len() - n % 8]).expect("a part of a login");
            drop(socket);
        }
    });
    assert_eq!(turn.good.value("SELECT count(*) FROM crowd WHERE a < 0"), "0");
}

#[test]
fn floods_of_connections_pass_others_by() {
    let mut turn = turn();
    // Each address may fill half of the places of those on their way: these are of another one.
    let port = turn.port();
    let elsewhere = move || socket_from(Ipv4Addr::new(127, 0, 0, 2), port);
    turn.bounded("floods of connections", 96, |turn| {
        let startup = frontend::startup(196_608, &turn.target(), &[]);
        for round in 0..3 {
            let mut held: Vec<TcpStream> = Vec::new();
            for n in 0..250 {
                let mut socket = elsewhere();
                // Nothing, a part, a whole startup packet, or garbage. Some are turned away meanwhile.
                let said: &[u8] = match n % 4 {
                    0 => &[],
                    1 => &startup[..startup.len() / 2],
                    2 => &startup,
                    _ => b"\0\0\0\x10garbage, and more of it",
                };
                let _ = socket.write_all(said);
                held.push(socket);
            }
            turn.is_served();
            // Another one comes in, unless the logins of the flood hold all the places for a moment.
            wait_for("another session", || match Client::try_connect(&turn.target(), &[]) {
                Ok(mut client) => Some(assert_eq!(client.value("SELECT count(*) FROM crowd"), ROWS)),
                Err(_) => {
                    held.truncate(held.len().saturating_sub(20));
                    None
                }
            });
            println!("round {round}: {} of 250 connections were held", held.len());
        }
        // Who logs in, and is gone, again and again.
        for _ in 0..100 {
            turn.client().drop_connection();
        }
    });
}

#[test]
fn garbage_under_tls_ends_that_session_only() {
    let mut turn = turn();
    let authority = turn.stage.certificates.path("authority.crt");
    turn.bounded("garbage after a handshake", 48, |turn| {
        let target = turn.target();
        for n in 0..MANY as u8 {
            // In the place of a startup packet.
            let mut stream = secured::encrypted(turn.port(), &authority);
            stream.write_all(&[0xff ^ n; 600]).expect("garbage sent");
            assert_eq!(rest(&mut stream), b"");
            // A second request for encryption within it.
            let mut stream = secured::encrypted(turn.port(), &authority);
            stream.write_all(&frontend::untagged(secured::SSL_REQUEST, &[])).expect("a request sent");
            let said = rest(&mut stream);
            assert!(String::from_utf8_lossy(&said).contains("unsupported frontend protocol 1234.5679"), "{said:?}");
            // Records that are none, before and after the login.
            for logged_in in [false, true] {
                let mut stream = secured::encrypted(turn.port(), &authority);
                if logged_in {
                    log_in(&mut stream, &target);
                    stream.write_all(&frontend::query("SELECT pg_sleep(1000)")).expect("a query sent");
                }
                stream.sock.write_all(&[0x17, 3, 3, 0, 32 + n, 1, 2, 3]).expect("garbage sent");
                stream.sock.write_all(&[n; 300]).expect("garbage sent");
                let mut said = Vec::new();
                // An alert, and the end: nothing in the clear.
                let _ = stream.sock.read_to_end(&mut said);
                assert!(!said.windows(5).any(|w| w == b"FATAL"), "{said:?}");
            }
            // Half a record, and gone.
            let mut stream = secured::encrypted(turn.port(), &authority);
            log_in(&mut stream, &target);
            stream.sock.write_all(&[0x17, 3, 3, 1]).expect("half a record sent");
        }
    });
}

/// Logs in as the wire client does, up to ReadyForQuery.
fn log_in(stream: &mut secured::Tls, target: &Target) {
    stream.write_all(&frontend::startup(196_608, target, &[])).expect("startup sent");
    let mut scram = Scram::new(&target.password);
    loop {
        let next = secured::frame(stream).expect("a frame");
        let answer = match (next.tag, next.body.get(3)) {
            (b'R', Some(10)) => scram.first(),
            (b'R', Some(11)) => scram.last(&next.body[4..]),
            (b'E', _) => panic!("{next:?}"),
            (b'Z', _) => return,
            _ => continue,
        };
        let length = u32::try_from(answer.len()).expect("a small message") + 4;
        stream.write_all(&raw(b'p', length, &answer)).expect("an answer sent");
    }
}

/// Keys to cancel are the gateway's own: PostgreSQL does not know them, and the gateway does not know PostgreSQL's.
#[test]
fn keys_work_where_they_were_given_out() {
    let mut turn = turn();
    let (gateway, direct) = (turn.target(), turn.stage.instance.direct());
    let asleep = |turn: &mut Turn, pid: i32| {
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'PgSleep'");
        wait_for_value(&mut turn.admin, &sql, "1");
    };
    let mut client = Client::connect(&gateway);
    assert_eq!(client.value("SELECT pg_backend_pid()"), client.pid.to_string());
    let mut behind = Client::connect(&direct);
    for sleeping in [&mut client, &mut behind] {
        sleeping.send(&frontend::query("SELECT pg_sleep(1000)"));
    }
    asleep(&mut turn, client.pid);
    asleep(&mut turn, behind.pid);
    // A key of the gateway's at PostgreSQL, one of PostgreSQL's at the gateway, and near misses. PostgreSQL signals before it closes,
    // and so does the gateway: what would have been hit is hit by now, but for the signal's own way.
    client.cancel_key().at(&direct.host).cancel();
    behind.cancel_key().at(&gateway.host).cancel();
    for flip in [0, 31] {
        client.cancel_key().with_bit(flip).cancel();
    }
    thread::sleep(Duration::from_millis(200));
    asleep(&mut turn, client.pid);
    asleep(&mut turn, behind.pid);
    for sleeping in [&mut client, &mut behind] {
        sleeping.cancel_key().cancel();
        let reply = sleeping.reply();
        assert_eq!((reply.sqlstate().as_str(), reply.status()), ("57014", 'I'));
    }
    // In other databases, while COPY reads, and of walsenders.
    let elsewhere = gateway.database("postgres");
    let mut other = Client::connect(&elsewhere);
    assert_eq!(other.value("SELECT pg_backend_pid()"), other.pid.to_string());
    other.send(&frontend::query("SELECT pg_sleep(1000)"));
    asleep(&mut turn, other.pid);
    other.cancel_key().cancel();
    assert_eq!(other.reply().sqlstate(), "57014");
    client.run("CREATE TEMP TABLE taken (t text)");
    client.send(&frontend::query("COPY taken FROM STDIN"));
    assert_eq!(client.frame().tag, b'G');
    client.cancel_key().cancel();
    // PostgreSQL looks up from a COPY when data arrives. (Were the request's connection closed before PostgreSQL has got it, this data
    // would be taken, and whatever came next be hit.)
    client.send(&frontend::copy_data(b"x\n"));
    assert_eq!(client.reply().sqlstate(), "57014");
    let admin = turn.stage.instance.admin_through_gateway();
    let mut sender = match Client::try_connect(&admin, &[("replication", "database")]) {
        Ok(client) => client,
        Err(e) => panic!("no walsender: {e:?}"),
    };
    assert_eq!(sender.value("SELECT pg_backend_pid()"), sender.pid.to_string());
    sender.send(&frontend::query("SELECT pg_sleep(1000)"));
    asleep(&mut turn, sender.pid);
    sender.cancel_key().cancel();
    assert_eq!(sender.reply().sqlstate(), "57014");
    // After the end of a session its key is nobody's.
    let old = client.cancel_key();
    drop((client, behind, other, sender));
    turn.rests();
    old.cancel();
    turn.is_served();
}
