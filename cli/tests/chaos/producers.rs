//! The clients of a round: producers to Kafka (idempotent and transactional), HTTP with keys and retries, COPY and
//! transactions through the gateway, and the one that watches. Each writes what it knows into the [`Ledger`].

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::ledger::{Fate, Home, Ledger, Place};
use crate::support::Sequence;
use crate::support::kafka::{Ended, Producer};
use crate::support::wire::{Client, Reply, Target, frontend};

/// What all producers of a round share.
pub struct Work<'a> {
    pub ledger: &'a Ledger,
    /// Set when the round is over: finish what is begun.
    pub stop: &'a AtomicBool,
    /// What was found wrong while the round ran.
    pub complain: &'a (dyn Fn(String) + Sync),
}

impl Work<'_> {
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

fn pause(random: &mut Sequence, most_ms: u64) {
    thread::sleep(Duration::from_millis(random.below(most_ms) + 1));
}

/// Waits between batches: the longer, the more was sent, so that a long round is no larger than a short one.
fn pace(random: &mut Sequence, most_ms: u64, sent: u64) {
    const PLENTY: u64 = 1500;
    pause(random, most_ms * (1 + 10 * (sent / PLENTY)));
}

/// An event time within a week of now, some of it late: whole microseconds, as text.
fn time(random: &mut Sequence) -> String {
    let now = chrono::Utc::now();
    let back = if random.below(10) == 0 { random.below(7 * 86_400) } else { random.below(3600) };
    let time = now - chrono::Duration::seconds(i64::try_from(back).unwrap_or(0));
    time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

fn log_json(work: &Work<'_>, random: &mut Sequence, source: &str, name: &str) -> String {
    format!(
        r#"{{"ts":"{}","level":"INFO","service":"{source}","host":"{}","message":"{name}","n":{}}}"#,
        time(random),
        work.ledger.tag(),
        random.below(1000)
    )
}

fn event_json(work: &Work<'_>, random: &mut Sequence, source: &str, name: &str) -> String {
    format!(
        r#"{{"ts":"{}","user_id":"{source}","session_id":"{}","event_type":"{name}","event_id":"{}","price":{}}}"#,
        time(random),
        work.ledger.tag(),
        uuid(random),
        random.below(1000)
    )
}

fn uuid(random: &mut Sequence) -> String {
    let text = format!("{:016x}{:016x}", random.next(), random.next());
    format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
}

/// Where a producer of Kafka writes to.
pub struct Stream {
    pub source: &'static str,
    pub topic: &'static str,
    pub home: Home,
}

impl Stream {
    fn payload(&self, work: &Work<'_>, random: &mut Sequence, name: &str) -> String {
        match self.home {
            Home::Events => event_json(work, random, self.source, name),
            _ => log_json(work, random, self.source, name),
        }
    }
}

/// Sends until the round ends; one in a hundred records is no JSON and belongs to the dead letters.
pub fn idempotent(work: &Work<'_>, stream: &Stream, bootstrap: &str, mut random: Sequence) {
    let producer = Producer::new(bootstrap, &[]);
    let mut names = Vec::new();
    while !work.stopped() {
        for _ in 0..random.below(24) + 1 {
            let number = names.len() as u64;
            let name = work.ledger.name(stream.source, number);
            let bad = random.below(100) == 0;
            let payload = if bad {
                format!("no row: {name} {}", work.ledger.tag())
            } else {
                stream.payload(work, &mut random, &name)
            };
            let home = if bad { Home::Letters } else { stream.home };
            work.ledger.open(std::slice::from_ref(&name), home, true);
            names.push(name);
            let key = format!("key {}", random.below(16));
            producer.send(stream.topic, None, Some(&key), Some(payload.as_bytes()), number);
        }
        pace(&mut random, 20, names.len() as u64);
    }
    producer.flush();
    for (number, reason) in producer.failed() {
        (work.complain)(format!(
            "the broker never took {}: {reason}",
            work.ledger.name(stream.source, number)
        ));
    }
    for done in producer.acknowledged() {
        let name = &names[done.number as usize];
        work.ledger.settle(std::slice::from_ref(name), &Fate::In);
        let place = done.offset.map(|offset| Place { topic: done.topic, partition: done.partition, offset });
        work.ledger.place(name, place);
    }
}

/// Writes transactions over both streams; every fifth is aborted.
pub fn transactional(work: &Work<'_>, streams: &[Stream; 2], bootstrap: &str, mut random: Sequence) {
    let id = format!("{}-{}", streams[0].source, work.ledger.round);
    let mut producer = Producer::transactional(bootstrap, &id, &[]);
    let mut next = 0;
    while !work.stopped() {
        let mut names = Vec::new();
        producer.begin();
        for _ in 0..random.below(30) + 1 {
            let stream = &streams[random.below(2) as usize];
            let name = work.ledger.name(stream.source, next);
            work.ledger.open(std::slice::from_ref(&name), stream.home, true);
            let payload = stream.payload(work, &mut random, &name);
            producer.send(stream.topic, None, None, Some(payload.as_bytes()), next);
            next += 1;
            names.push(name);
        }
        let commit = random.below(5) > 0;
        pace(&mut random, 60, next);
        // An abort that overtakes its own records makes the client library give the producer up.
        producer.flush();
        let ended = if commit {
            producer.commit()
        } else if producer.abort() {
            Ended::Aborted
        } else {
            // Nothing but COMMIT makes it visible.
            producer = Producer::transactional(bootstrap, &id, &[]);
            Ended::Aborted
        };
        match ended {
            Ended::Committed => work.ledger.settle(&names, &Fate::In),
            Ended::Aborted => work.ledger.settle(&names, &Fate::Out),
            Ended::Unknown => {
                work.ledger.join(&names);
                producer = Producer::transactional(bootstrap, &id, &[]);
            }
        }
    }
}

/// What an HTTP request came to.
enum Answer {
    Taken,
    /// Known to have changed nothing, or not known at all: to be repeated.
    Again,
    Refused(String),
}

fn post(port: u16, key: &str, body: &str) -> io::Result<Answer> {
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    socket.set_write_timeout(Some(Duration::from_secs(20)))?;
    write!(
        socket,
        "POST /v1/ingest/logs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nIdempotency-Key: {key}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    Ok(match status {
        "200" => Answer::Taken,
        "" | "408" | "429" | "500" | "502" | "503" | "504" => Answer::Again,
        _ => Answer::Refused(answer),
    })
}

/// Posts batches, each until it is acknowledged, at any of the doors.
pub fn http(work: &Work<'_>, source: &str, doors: &[u16], mut random: Sequence) {
    let mut next = 0;
    while !work.stopped() {
        let mut names = Vec::new();
        let mut body = String::new();
        for _ in 0..random.below(60) + 1 {
            let name = work.ledger.name(source, next);
            body += &log_json(work, &mut random, source, &name);
            body.push('\n');
            next += 1;
            names.push(name);
        }
        work.ledger.open(&names, Home::Logs, false);
        let key = names[0].clone();
        for attempt in 0.. {
            // Some clients lose their patience before the answer comes, and ask again.
            if random.below(12) == 0 {
                let door = doors[random.below(doors.len() as u64) as usize];
                if let Ok(mut socket) = TcpStream::connect(("127.0.0.1", door)) {
                    let _ = write!(
                        socket,
                        "POST /v1/ingest/logs HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: {key}\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    ); // the server may be gone
                    let _ = socket.shutdown(Shutdown::Both);
                }
            }
            match post(doors[random.below(doors.len() as u64) as usize], &key, &body) {
                Ok(Answer::Taken) => {
                    work.ledger.settle(&names, &Fate::In);
                    break;
                }
                Ok(Answer::Refused(answer)) => {
                    (work.complain)(format!("HTTP refused {key}: {answer}"));
                    return;
                }
                Ok(Answer::Again) | Err(_) => pause(&mut random, 200),
            }
            if attempt > 2000 {
                (work.complain)(format!("HTTP never took {key}"));
                return;
            }
        }
        pace(&mut random, 60, next);
    }
}

/// A connection that may be lost and is made again.
pub struct Session<'a> {
    target: &'a Target,
    client: Option<Client>,
}

impl<'a> Session<'a> {
    pub fn new(target: &'a Target) -> Session<'a> {
        Session { target, client: None }
    }

    /// The client, connected now if it was not; `None` if nobody answers.
    pub fn client(&mut self) -> Option<&mut Client> {
        if self.client.is_none() {
            self.client = Client::try_connect(self.target, &[]).ok();
        }
        self.client.as_mut()
    }

    pub fn lose(&mut self) {
        self.client = None;
    }

    /// The answer; `None` if the connection was lost, and with it what came of the statement.
    pub fn ask(&mut self, sql: &str) -> Option<Reply> {
        let answer = self.client()?.try_query(sql);
        match answer {
            Ok(reply) => {
                let fatal = reply.error().is_some_and(|error| error.get(&'S').is_some_and(|s| s != "ERROR"));
                if fatal {
                    self.lose();
                }
                Some(reply)
            }
            Err(_) => {
                self.lose();
                None
            }
        }
    }
}

/// What a statement's answer says of the rows that it wrote. An error may hide a commit only if it ended the connection.
fn fate(reply: Option<&Reply>) -> Option<Fate> {
    let Some(error) = reply?.error() else { return Some(Fate::In) };
    let lost = error.get(&'S').is_some_and(|severity| severity != "ERROR")
        || error.get(&'C').is_some_and(|code| code.starts_with("08") || code.starts_with("57"));
    if lost { None } else { Some(Fate::Out) }
}

fn copy_once(client: &mut Client, body: &str) -> io::Result<Reply> {
    client.try_send(&frontend::query("COPY logs (ts, level, service, host, message) FROM STDIN"))?;
    let mut frames = Vec::new();
    loop {
        let frame = client.try_frame()?;
        let tag = frame.tag;
        frames.push(frame);
        match tag {
            b'G' => break,
            b'Z' => return Ok(Reply { frames }),
            _ => {}
        }
    }
    let mut bytes = frontend::copy_data(body.as_bytes());
    bytes.extend(frontend::copy_done());
    client.try_send(&bytes)?;
    client.try_reply()
}

/// COPY of batches, each once: an answer that was lost leaves it open whether they are in.
pub fn copy(work: &Work<'_>, source: &str, target: &Target, mut random: Sequence) {
    let mut session = Session::new(target);
    let mut next = 0;
    while !work.stopped() {
        let Some(client) = session.client() else {
            pause(&mut random, 100);
            continue;
        };
        let mut names = Vec::new();
        let mut body = String::new();
        for _ in 0..random.below(80) + 1 {
            let name = work.ledger.name(source, next);
            let _ = writeln!(body, "{}\tINFO\t{source}\t{}\t{name}", time(&mut random), work.ledger.tag());
            next += 1;
            names.push(name);
        }
        work.ledger.open(&names, Home::Logs, false);
        let reply = copy_once(client, &body).ok();
        if reply.is_none() {
            session.lose();
        }
        if let Some(fate) = fate(reply.as_ref()) {
            if fate == Fate::Out {
                (work.complain)(format!("COPY of {}: {reply:?}", names[0]));
            }
            work.ledger.settle(&names, &fate);
        } else {
            session.lose();
        }
        pace(&mut random, 80, next);
    }
}

/// Transactions of several statements that stay open for a while; some are rolled back, some in part.
pub fn transactions(work: &Work<'_>, source: &str, target: &Target, mut random: Sequence) {
    let mut session = Session::new(target);
    let mut next = 0;
    while !work.stopped() {
        if session.client().is_none() {
            pause(&mut random, 100);
            continue;
        }
        let mut insert = |random: &mut Sequence| {
            let names: Vec<String> =
                (0..random.below(5) + 1).map(|n| work.ledger.name(source, next + n)).collect();
            next += names.len() as u64;
            let rows: Vec<String> = names
                .iter()
                .map(|name| {
                    format!("('{}', 'INFO', '{source}', '{}', '{name}')", time(random), work.ledger.tag())
                })
                .collect();
            work.ledger.open(&names, Home::Logs, false);
            let sql =
                format!("INSERT INTO logs (ts, level, service, host, message) VALUES {}", rows.join(", "));
            (names, sql)
        };
        let (mut kept, first) = insert(&mut random);
        let (undone, second) = insert(&mut random);
        let (third_names, third) = insert(&mut random);
        kept.extend(third_names);
        let commit = random.below(4) > 0;
        let statements = [
            "BEGIN".to_owned(),
            first,
            "SAVEPOINT s".to_owned(),
            second,
            "ROLLBACK TO SAVEPOINT s".to_owned(),
            third,
        ];
        let mut whole = true;
        for sql in statements {
            pause(&mut random, 120);
            whole = session.ask(&sql).is_some_and(|reply| reply.error().is_none());
            if !whole {
                break;
            }
        }
        // Nothing of it is committed before its COMMIT is sent.
        work.ledger.settle(&undone, &Fate::Out);
        if !whole {
            session.lose();
            work.ledger.settle(&kept, &Fate::Out);
            continue;
        }
        // One batch: all of it or nothing, if the answer is lost.
        let answer = session.ask(if commit { "COMMIT" } else { "ROLLBACK" });
        match fate(answer.as_ref()) {
            _ if !commit => work.ledger.settle(&kept, &Fate::Out),
            Some(fate) => work.ledger.settle(&kept, &fate),
            None => {
                work.ledger.join(&kept);
                session.lose();
            }
        }
    }
}

/// Inserts rows of its own through the gateway and asserts after each that aggregates never go backwards and hold all that was
/// acknowledged before they were asked: its own rows exactly, those of the other doors at least. Gives the number of answers.
pub fn watch(work: &Work<'_>, source: &str, others: &[&str], target: &Target, mut random: Sequence) -> u64 {
    let mut session = Session::new(target);
    let (mut next, mut answers) = (0, 0);
    let mut before: Vec<i128> = Vec::new();
    while !work.stopped() {
        if session.client().is_none() {
            pause(&mut random, 100);
            continue;
        }
        let names: Vec<String> =
            (0..random.below(4) + 1).map(|n| work.ledger.name(source, next + n)).collect();
        next += names.len() as u64;
        let rows: Vec<String> = names
            .iter()
            .map(|name| {
                format!("('{}', 'INFO', '{source}', '{}', '{name}')", time(&mut random), work.ledger.tag())
            })
            .collect();
        work.ledger.open(&names, Home::Logs, false);
        let sql = format!("INSERT INTO logs (ts, level, service, host, message) VALUES {}", rows.join(", "));
        let reply = session.ask(&sql);
        match fate(reply.as_ref()) {
            Some(fate) => {
                if fate == Fate::Out {
                    (work.complain)(format!("{sql}: {reply:?}"));
                }
                work.ledger.settle(&names, &fate);
            }
            None => session.lose(),
        }

        let route = ["auto", "auto", "lake", "postgres"][random.below(4) as usize];
        if session.ask(&format!("SET watershed.route = '{route}'")).is_none() {
            continue;
        }
        let sql = "SELECT count(*), coalesce(sum(length(message)), 0), coalesce(max(_offset), 0) FROM logs";
        if let Some(now) = numbers(work, &mut session, sql) {
            answers += 1;
            if now.len() != 3 || before.iter().zip(&now).any(|(before, now)| before > now) {
                (work.complain)(format!("backwards by route {route}: {before:?}, then {now:?} from {sql}"));
            }
            before = now;
        }
        // What is acknowledged before the question must be in the answer. Only this thread adds rows of `source`.
        let known: Vec<(u64, u64)> =
            std::iter::once(&source).chain(others).map(|source| work.ledger.counts(source)).collect();
        let columns: Vec<String> = std::iter::once(&source)
            .chain(others)
            .map(|source| format!("count(*) FILTER (WHERE service = '{source}')"))
            .collect();
        let sql = format!("SELECT {} FROM logs WHERE host = '{}'", columns.join(", "), work.ledger.tag());
        if let Some(now) = numbers(work, &mut session, &sql) {
            answers += 1;
            for (column, ((least, open), now)) in known.iter().zip(&now).enumerate() {
                let own = column == 0;
                if *now < i128::from(*least) || (own && *now > i128::from(least + open)) {
                    (work.complain)(format!(
                        "route {route}: {now} rows where {least} were acknowledged ({open} more are open), column {column} of {sql}"
                    ));
                }
            }
        }
        pause(&mut random, 60);
    }
    answers
}

/// One row of whole numbers; `None` if the connection was lost or the servers were away.
fn numbers(work: &Work<'_>, session: &mut Session<'_>, sql: &str) -> Option<Vec<i128>> {
    let reply = session.ask(sql)?;
    if let Some(error) = reply.error() {
        let code = error.get(&'C').cloned().unwrap_or_default();
        // Gone servers and lost connections are what this is about; any other error is not an answer.
        if !(code.starts_with("08") || code.starts_with("57")) {
            (work.complain)(format!("{sql}: {error:?}"));
        }
        session.lose();
        return None;
    }
    let row = reply.rows().into_iter().next()?;
    Some(row.into_iter().map(|value| value.and_then(|text| text.parse().ok()).unwrap_or(-1)).collect())
}
