//! Random sequences of messages, valid and broken, in random pieces: PostgreSQL itself and the gateway get the same bytes and must
//! give the same frames, down to the end of the connection. Others are served meanwhile.
//!
//! Each case is made from a number alone. WATERSHED_FUZZ_CASES says how many there are, WATERSHED_FUZZ_SEED where they begin. A case
//! that differs is made shorter by trying it with parts left out, and printed with its number.

mod support;

use std::io::ErrorKind;
use std::thread;
use std::time::Duration;

use support::instance::{Instance, Options};
use support::wire::{Client, Format, Frame, Target, frontend};
use support::{Sequence, wait_for};

/// Cases of a usual run.
const CASES: u64 = 250;
/// Runs that making a case shorter may take.
const SHORTER: usize = 300;

/// Statements that answer alike wherever they run. Tables of PostgreSQL's alone are `own`, whose OID is never shown.
const STATEMENTS: [&str; 50] = [
    "SELECT count(*) FROM fuzzed",
    "SELECT t, count(*), sum(a), avg(a) FROM fuzzed GROUP BY t ORDER BY t",
    "SELECT a % 5, min(ts), max(t) FROM fuzzed GROUP BY 1 ORDER BY 1",
    "/* watershed: lake */ SELECT count(DISTINCT t), max(a) FROM fuzzed",
    "SELECT a, t FROM fuzzed WHERE a < 9 ORDER BY a",
    "SELECT a FROM fuzzed WHERE ts = '2026-03-01 00:00:07Z' ORDER BY a",
    "SELECT count(*) FROM fuzzed WHERE a < $1",
    "SELECT count(*), min($2::text) FROM fuzzed WHERE a > $1",
    "SELECT stddev(a) FROM fuzzed",
    "SELECT count(*) FROM fuzzed WHERE 1 / (a - a) = 1",
    "SELECT sum(a * 2000000000) FROM fuzzed",
    "EXECUTE counting",
    "PREPARE counting AS SELECT count(*) FROM fuzzed",
    "DEALLOCATE counting",
    "DEALLOCATE ALL",
    "SELECT no_such_column FROM fuzzed",
    "SELECT $1::int4 + 1",
    "SELECT generate_series(1, 5)",
    "SELECT repeat('x', 20000)",
    "INSERT INTO own VALUES ($1)",
    "INSERT INTO own VALUES (7), (8)",
    "SELECT count(*) FROM own",
    "INSERT INTO fuzzed VALUES ('2026-03-02 00:00Z', 1000, 'new'), ('2026-03-03 00:00Z', 1001, NULL)",
    "BEGIN",
    "BEGIN ISOLATION LEVEL REPEATABLE READ",
    "BEGIN READ ONLY",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT s",
    "ROLLBACK TO s",
    "RELEASE s",
    "",
    "-- nothing",
    "SELEC",
    "SELECT 1; SELECT count(*) FROM fuzzed; SELECT 2",
    "SELECT count(*) FROM fuzzed; SELECT 1 / 0; SELECT 3",
    "COPY own FROM STDIN",
    "COPY fuzzed (ts, a, t) FROM STDIN",
    "SELECT 1; COPY own FROM STDIN; SELECT count(*) FROM own; COPY own FROM STDIN",
    "COPY (SELECT a, t FROM fuzzed WHERE a < 5 ORDER BY a) TO STDOUT",
    "COPY (SELECT count(*) FROM own) TO STDOUT (FORMAT binary)",
    "DO $$ BEGIN RAISE NOTICE 'heard'; END $$",
    "DO $$ BEGIN RAISE EXCEPTION 'thrown'; END $$",
    "SET TimeZone = 'Asia/Kathmandu'",
    "SET LOCAL DateStyle = 'German'",
    "RESET ALL",
    "LISTEN rain",
    "NOTIFY rain, 'drop'",
    "DECLARE c CURSOR FOR SELECT a FROM fuzzed ORDER BY a",
    "FETCH 2 FROM c",
];
const NAMES: [&str; 3] = ["", "s1", "s2"];
const PORTALS: [&str; 3] = ["", "p1", "p2"];

/// One thing that the client sends, and what to call it.
#[derive(Clone)]
struct Item {
    text: String,
    bytes: Vec<u8>,
}

fn item(text: impl Into<String>, bytes: Vec<u8>) -> Item {
    Item { text: text.into(), bytes }
}

fn pick<'a>(random: &mut Sequence, from: &[&'a str]) -> &'a str {
    from[random.below(from.len() as u64) as usize]
}

fn raw(tag: u8, length: u32, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

fn framed(tag: u8, body: &[u8]) -> Vec<u8> {
    raw(tag, body.len() as u32 + 4, body)
}

/// A message that is as it should be.
fn valid(random: &mut Sequence) -> Item {
    let (name, portal, sql) = (pick(random, &NAMES), pick(random, &PORTALS), pick(random, &STATEMENTS));
    match random.below(22) {
        0..=2 => item(format!("Parse {name:?} {sql:?}"), frontend::parse(name, sql, &[])),
        3..=5 => {
            let formats = [Format::Text, Format::Binary];
            let (format, results) = (formats[random.below(2) as usize], formats[random.below(2) as usize]);
            let value = if format == Format::Text { b"7".to_vec() } else { 7i32.to_be_bytes().to_vec() };
            let values: Vec<Option<Vec<u8>>> = match random.below(6) {
                0..=2 => vec![],
                3 => vec![Some(value)],
                4 => vec![None],
                _ => vec![Some(value), Some(b"word".to_vec())],
            };
            let bytes = frontend::bind(portal, name, format, &values, results);
            item(format!("Bind {portal:?} {name:?} {values:?} {format:?} -> {results:?}"), bytes)
        }
        6..=8 => {
            let rows = [0, 0, 0, 1, 3, -1][random.below(6) as usize];
            item(format!("Execute {portal:?} {rows}"), frontend::execute(portal, rows))
        }
        9 => item(format!("Describe S {name:?}"), frontend::describe(b'S', name)),
        10 => item(format!("Describe P {portal:?}"), frontend::describe(b'P', portal)),
        11 => item(format!("Close S {name:?}"), frontend::close(b'S', name)),
        12 => item(format!("Close P {portal:?}"), frontend::close(b'P', portal)),
        13..=14 => item("Sync", frontend::sync()),
        15 => item("Flush", frontend::flush()),
        16..=17 => item(format!("Query {sql:?}"), frontend::query(sql)),
        18 => {
            let data = ["5\n", "6\n7\n", "2026-03-04 00:00Z\t1002\tcopied\n", "rubbish\n", "200\n", "", "\\.\n"];
            let data = pick(random, &data);
            item(format!("CopyData {data:?}"), frontend::copy_data(data.as_bytes()))
        }
        19 => item("CopyDone", frontend::copy_done()),
        20 => item("CopyFail", frontend::copy_fail("enough")),
        // Of int4pl, and of no function.
        _ => {
            let oid = [177u32, 1][random.below(2) as usize];
            let mut body = oid.to_be_bytes().to_vec();
            body.extend(b"\0\x01\0\0\0\x02\0\0\0\x011\0\0\0\x012\0\0");
            item(format!("FunctionCall {oid}"), framed(b'F', &body))
        }
    }
}

/// Parse, Bind, Describe, Execute of one statement, as drivers send it.
fn usual(random: &mut Sequence) -> Vec<Item> {
    let sql = pick(random, &STATEMENTS);
    let rows = [0, 0, 2][random.below(3) as usize];
    vec![
        item(format!("Parse \"\" {sql:?}"), frontend::parse("", sql, &[])),
        item("Bind \"\" \"\"", frontend::bind("", "", Format::Text, &[], Format::Text)),
        item("Describe P \"\"", frontend::describe(b'P', "")),
        item(format!("Execute \"\" {rows}"), frontend::execute("", rows)),
        item("Sync", frontend::sync()),
    ]
}

/// A message that is not as it should be, but whose length is true.
fn malformed(random: &mut Sequence) -> Item {
    let tags = *b"QPBDECFSHcf";
    let tag = tags[random.below(tags.len() as u64) as usize];
    let valid = valid(random);
    let mut body = match random.below(3) {
        // Something of another kind.
        0 => valid.bytes[5..].to_vec(),
        1 => (0..random.below(12)).map(|_| random.next() as u8).collect(),
        _ => vec![random.next() as u8; random.below(300) as usize],
    };
    body.truncate(9_000);
    item(format!("{} with {}", char::from(tag), hex::encode(&body[..body.len().min(40)])), framed(tag, &body))
}

/// A valid message cut short or made longer, its length told accordingly.
fn misshapen(random: &mut Sequence) -> Item {
    let valid = valid(random);
    let (tag, mut body) = (valid.bytes[0], valid.bytes[5..].to_vec());
    if random.below(2) == 0 {
        body.truncate(random.below(body.len() as u64 + 1) as usize);
    } else {
        body.extend((0..=random.below(4)).map(|_| random.next() as u8));
    }
    item(format!("{}, of {} bytes", valid.text, body.len()), framed(tag, &body))
}

/// What ends the connection: no message, or a length that none has. PostgreSQL closes some of these without a word and forgets what
/// it had yet to say, so it is asked for that first.
fn fatal(random: &mut Sequence) -> Vec<Item> {
    let length = [0u32, 3, 0x7fff_ffff, 0xffff_ffff, 0x4000_0005, 20_000][random.below(6) as usize];
    let broken = match random.below(4) {
        0 => item("no message's tag", b"\x01\0\0\0\x04".to_vec()),
        1 => item("another protocol", b"!GET / HTTP/1.1\r\n\r\n".to_vec()),
        2 => item(format!("Sync of {length} bytes"), raw(b'S', length, &[0; 64])),
        _ => {
            let length = if length == 20_000 { 2 } else { length };
            let tags = *b"QPBDECFdcf";
            let tag = tags[random.below(tags.len() as u64) as usize];
            item(format!("{} of {length} bytes", char::from(tag)), raw(tag, length, &[0; 64]))
        }
    };
    vec![item("Flush", frontend::flush()), broken]
}

/// A case: what is sent after the login, all in one go. At its end every COPY is over and every answer asked for.
fn case(seed: u64) -> Vec<Item> {
    let mut random = Sequence(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
    let random = &mut random;
    let mut items = Vec::new();
    let ends_badly = random.below(6) == 0;
    for _ in 0..=random.below(24) {
        match random.below(20) {
            0..=12 => items.push(valid(random)),
            13..=16 => items.extend(usual(random)),
            17 => items.push(misshapen(random)),
            18 => items.push(malformed(random)),
            _ if ends_badly => items.extend(fatal(random)),
            _ => items.push(item("Sync", frontend::sync())),
        }
    }
    items
}

fn ending() -> Vec<Item> {
    vec![
        item("CopyFail", frontend::copy_fail("the end")),
        item("Sync", frontend::sync()),
        item("Query end", frontend::query("SELECT 'end'")),
        item("Terminate", frontend::terminate()),
    ]
}

/// What came back, up to the end of the connection. `pieces` is the case's number.
fn play(target: &Target, items: &[Item], pieces: u64) -> Vec<Frame> {
    let mut client = Client::connect(target);
    client.run("CREATE TEMP TABLE own (a int4 CHECK (a < 100))");
    let bytes: Vec<u8> = items.iter().chain(&ending()).flat_map(|i| i.bytes.clone()).collect();
    let mut write = client.try_writer();
    let writer = thread::spawn(move || {
        let mut random = Sequence(pieces);
        let most = [1 << 20, 1 << 20, 400, 20][random.below(4) as usize];
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(rest.len().min(1 + random.below(most) as usize));
            rest = later;
            // The server may have hung up.
            if write(piece).is_err() {
                return;
            }
            if random.below(4) == 0 {
                thread::sleep(Duration::from_micros(random.below(300)));
            }
        }
    });
    let mut frames = Vec::new();
    let end = loop {
        match client.try_frame() {
            Ok(frame) => frames.push(frame),
            Err(e) => break e,
        }
    };
    assert!(
        !matches!(end.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        "WATERSHED_FUZZ_SEED={pieces}, no end of the connection to {:?} after {frames:#?} of\n{}",
        target.host,
        shown(items)
    );
    writer.join().expect("the writer");
    frames.into_iter().map(comparable).collect()
}

/// Without what differs between two sessions of PostgreSQL itself, and without places in its source.
fn comparable(mut frame: Frame) -> Frame {
    match frame.tag {
        b'E' | b'N' => {
            let fields = frame.body.split(|byte| *byte == 0).filter(|f| !f.is_empty() && !b"FLR".contains(&f[0]));
            frame.body = fields.flat_map(|f| f.iter().copied().chain([0])).chain([0]).collect();
        }
        // The process that notifies.
        b'A' => frame.body[..4].fill(0),
        _ => {}
    }
    frame
}

fn shown(items: &[Item]) -> String {
    items.iter().map(|i| format!("  {}\n", i.text)).collect()
}

fn difference(direct: &[Frame], gateway: &[Frame]) -> Option<String> {
    if direct == gateway {
        return None;
    }
    let at = direct.iter().zip(gateway).take_while(|(a, b)| a == b).count();
    let from = |frames: &[Frame]| format!("{:#?}", &frames[at.min(frames.len())..(at + 4).min(frames.len())]);
    Some(format!(
        "frame {at} of {} and {}: PostgreSQL\n{}\ngateway\n{}",
        direct.len(),
        gateway.len(),
        from(direct),
        from(gateway)
    ))
}

struct Stage {
    instance: Instance,
    admin: Client,
}

impl Stage {
    fn new() -> Stage {
        let instance = Instance::start(Options::on_demand());
        let mut owner = Client::connect(&instance.gateway());
        owner.run("CREATE TABLE fuzzed (ts timestamptz NOT NULL, a int4, t text)");
        owner.run("SELECT watershed.attach_table('public.fuzzed', event_time => 'ts')");
        let rows = |from, to| {
            format!(
                "INSERT INTO fuzzed SELECT '2026-03-01 00:00Z'::timestamptz + g * interval '1 s', g, 't' || g % 3
                 FROM generate_series({from}, {to}) g"
            )
        };
        owner.run(&rows(1, 40));
        instance.run(&["archive", "--now", "public.fuzzed"]);
        // Some of it is in the lake, some is not.
        owner.run(&rows(41, 60));
        wait_for("the gateway to know the table", || {
            let routed = owner.run("EXPLAIN SELECT count(*) FROM fuzzed");
            routed.column().iter().any(|line| line.contains("lake")).then_some(())
        });
        let admin = Client::connect(&instance.admin());
        Stage { instance, admin }
    }

    /// What differs, of a case that is played on both. What it committed is taken away again: the lake never saw it.
    fn differs(&mut self, items: &[Item], pieces: u64) -> Option<String> {
        let direct = self.played(&self.instance.direct(), items, pieces);
        let gateway = self.played(&self.instance.gateway(), items, pieces);
        difference(&direct, &gateway)
    }

    fn played(&mut self, target: &Target, items: &[Item], pieces: u64) -> Vec<Frame> {
        let frames = play(target, items, pieces);
        if items.iter().any(|i| i.text.contains("INTO fuzzed") || i.text.contains("COPY fuzzed")) {
            self.admin.run("BEGIN; SET LOCAL watershed.maintenance = on; DELETE FROM fuzzed WHERE a >= 1000; COMMIT");
        }
        frames
    }

    /// The case with as much left out as can be while the answers still differ.
    fn shorter(&mut self, mut items: Vec<Item>, pieces: u64) -> Vec<Item> {
        let mut runs = 0;
        let mut size = items.len().div_ceil(2);
        while size > 0 && runs < SHORTER {
            let mut at = 0;
            while at < items.len() && runs < SHORTER {
                let mut fewer = items.clone();
                fewer.drain(at..(at + size).min(items.len()));
                runs += 1;
                if self.differs(&fewer, pieces).is_some() {
                    items = fewer;
                } else {
                    at += size;
                }
            }
            size /= 2;
        }
        items
    }
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |n| n.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
fn random_messages_get_the_frames_that_postgresql_sends() {
    let mut stage = Stage::new();
    let mut other = Client::connect(&stage.instance.gateway());
    let (first, cases) = (number("WATERSHED_FUZZ_SEED", 1), number("WATERSHED_FUZZ_CASES", CASES));
    let keep_going = std::env::var_os("WATERSHED_FUZZ_ALL").is_some();
    let (mut frames, mut failures) = (0, 0);
    for seed in first..first + cases {
        let items = case(seed);
        frames += items.len();
        if let Some(found) = stage.differs(&items, seed) {
            let shorter = stage.shorter(items, seed);
            let again = stage.differs(&shorter, seed).unwrap_or_else(|| format!("not always; at first: {found}"));
            let report = format!("WATERSHED_FUZZ_SEED={seed} WATERSHED_FUZZ_CASES=1:\n{}{again}", shown(&shorter));
            failures += 1;
            assert!(keep_going, "{report}");
            println!("{report}\n");
        }
        assert_eq!(other.value("SELECT count(*) FROM fuzzed"), "60", "after case {seed}");
        assert_eq!(other.value("SELECT a FROM fuzzed WHERE ts = '2026-03-01 00:00:07Z'"), "7", "after case {seed}");
    }
    println!("{cases} cases from {first} with {frames} messages");
    assert_eq!(failures, 0);
    assert!(stage.instance.alive());
    assert!(!stage.instance.log().contains("panicked"), "{}", stage.instance.log());
    wait_for("the sessions' end in PostgreSQL", || {
        let left = stage.admin.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND usename = 'watershed'");
        (left == "1").then_some(())
    });
}
