//! Scripted exchanges of frames, played on PostgreSQL and through the gateway; `transcripts/README.md` has the format.
//!
//! The files say what must come back; the same script on PostgreSQL itself proves that they are right, and gives the bytes
//! with which the gateway's are compared where a script says `exact`.

mod support;
#[path = "transcripts/script.rs"]
mod script;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use script::{Action, Line, Place, Script};
use support::instance::Instance;
use support::wire::{Client, Frame, frontend};
use support::{Sequence, wait_for};

/// At least so many scripts, or somebody has lost some.
const SCRIPTS: usize = 80;
/// How long a frame may take, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(30);
/// While recording: a server that has said nothing for so long has said all.
const QUIET: Duration = Duration::from_millis(300);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts")
}

/// Tables that no script changes (but in transactions that are rolled back): `hundred(ts, a, t)`, 90 rows in the lake and 10 in the
/// tail, `a` from 0 to 99; `wide(ts, id, body)`, rows of some KiB.
fn tables(instance: &Instance) {
    let mut owner = Client::connect(&instance.gateway());
    owner.run("CREATE TABLE hundred (ts timestamptz NOT NULL, a int4, t text)");
    owner.run("SELECT watershed.attach_table('public.hundred', event_time => 'ts')");
    let insert = |from: i32, to: i32| {
        format!(
            "INSERT INTO hundred (ts, a, t) SELECT timestamptz '2024-03-10 00:00:00+00' + g * interval '7 hours', g, 'text ' || g % 7 FROM generate_series({from}, {to}) g"
        )
    };
    owner.run(&insert(0, 89));
    owner.run("CREATE TABLE wide (ts timestamptz NOT NULL, id int4, body text)");
    owner.run("SELECT watershed.attach_table('public.wide', event_time => 'ts')");
    owner.run("INSERT INTO wide (ts, id, body) SELECT now(), g, repeat(md5(g::text), 100) FROM generate_series(1, 20000) g");
    owner.run("CREATE VIEW hundred_low AS SELECT a, t FROM hundred WHERE a < 50");
    owner.run("CREATE TABLE plain (n int4 PRIMARY KEY, s text)");
    owner.run("INSERT INTO plain SELECT g, 'row ' || g FROM generate_series(1, 5) g");
    for table in ["public.hundred", "public.wide"] {
        instance.run(&["archive", "--now", table]);
    }
    owner.run(&insert(90, 99));
    owner.run("ANALYZE hundred; ANALYZE wide; ANALYZE plain");
    for table in ["hundred", "wide", "hundred_low"] {
        known(instance, table);
    }
}

/// Waits until the gateway has noticed a table.
fn known(instance: &Instance, table: &str) {
    let mut owner = Client::connect(&instance.gateway());
    let sql = format!("SELECT count(*) FROM {table}");
    let mut reader = Client::connect(&instance.admin_through_gateway());
    let routes = format!("SELECT count(*) FROM watershed.queries WHERE pid = {} AND route = 'lake'", owner.pid);
    wait_for(&format!("the gateway to know {table}"), || {
        owner.run(&sql);
        (reader.value(&routes) != "0").then_some(())
    });
}

/// What one run of a script saw.
struct Run {
    /// The frames of each session in order.
    frames: BTreeMap<String, Vec<Frame>>,
    /// Differences from the file.
    faults: Vec<String>,
    /// Statements that the lake answered.
    by_lake: Option<usize>,
}

/// Plays scripts in one place.
struct Player<'a> {
    instance: &'a Instance,
    place: Place,
    sessions: BTreeMap<String, Client>,
    /// What each session is about to send.
    collected: BTreeMap<String, Vec<u8>>,
    run: Run,
    random: Sequence,
    /// What was read ahead of what expects it; `None` for the end of the connection.
    ahead: BTreeMap<String, VecDeque<Option<Frame>>>,
}

impl<'a> Player<'a> {
    fn play(instance: &'a Instance, script: &Script, place: Place) -> Run {
        for (admin, sql) in &script.setup {
            let target = if *admin { instance.admin() } else { instance.direct() };
            Client::connect(&target).run(sql);
        }
        let mut player = Player {
            instance,
            place,
            sessions: BTreeMap::new(),
            collected: BTreeMap::new(),
            run: Run { frames: BTreeMap::new(), faults: Vec::new(), by_lake: None },
            random: Sequence(script.title.len() as u64),
            ahead: BTreeMap::new(),
        };
        for line in &script.lines {
            if !player.line(line) {
                break;
            }
        }
        player.end();
        player.run
    }

    fn client(&mut self, session: &str) -> &mut Client {
        if !self.sessions.contains_key(session) {
            let mut options: Vec<(&str, &str)> = Vec::new();
            if self.place == Place::Lake {
                options.push(("options", "-c watershed.route=lake"));
            }
            let target = self.target();
            let client = Client::try_connect(&target, &options).unwrap_or_else(|error| panic!("{error:?}"));
            self.sessions.insert(session.to_owned(), client);
        }
        self.sessions.get_mut(session).expect("just opened")
    }

    fn target(&self) -> support::wire::Target {
        match self.place {
            Place::Direct => self.instance.direct(),
            _ => self.instance.gateway(),
        }
    }

    /// Plays one line; false ends the script.
    fn line(&mut self, line: &Line) -> bool {
        match line {
            Line::Comment => true,
            Line::Send { session, bytes } => {
                // Sessions take their turns in the order of the script.
                if self.collected.keys().any(|other| other != session) {
                    self.send();
                }
                self.client(session);
                self.collected.entry(session.clone()).or_default().extend_from_slice(bytes);
                true
            }
            Line::Do { session, action } => {
                self.send();
                self.act(session, action)
            }
            Line::Expect { session, places, pattern, number } => {
                self.send();
                if !places.is_empty() && !places.contains(&self.place) {
                    return true;
                }
                self.expect(session, pattern, *number)
            }
        }
    }

    /// Sends what was collected: in one piece, or in many.
    fn send(&mut self) {
        for (session, bytes) in std::mem::take(&mut self.collected) {
            if self.place == Place::Steps {
                self.send_in_steps(&session, &bytes);
                continue;
            }
            let pieces = self.place == Place::Pieces;
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                // Small messages in single bytes and odd pieces, long data in larger ones.
                let most = if rest.len() > 4_096 { 4_096 } else { 11 };
                let n = if pieces { (1 + self.random.below(most) as usize).min(rest.len()) } else { rest.len() };
                let (now, later) = rest.split_at(n);
                if self.client(&session).try_send(now).is_err() {
                    break; // the server has closed: what it said before is still to be read
                }
                rest = later;
                if pieces && self.random.below(4) == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
    }

    /// Sends up to each Query, Sync or FunctionCall, and waits for what it brings.
    fn send_in_steps(&mut self, session: &str, bytes: &[u8]) {
        let mut rest = bytes;
        let mut at = 0;
        while !rest.is_empty() {
            let tag = rest.get(at).copied();
            let length = rest.get(at + 1..at + 5).map(|l| u32::from_be_bytes(l.try_into().expect("four bytes")) as usize);
            let whole = length.map(|l| at + 1 + l).filter(|end| *end <= rest.len());
            // What is no whole message goes out with all that is left.
            let end = whole.unwrap_or(rest.len());
            at = end;
            if !matches!(tag, Some(b'Q' | b'S' | b'F')) && whole.is_some() && end < rest.len() {
                continue;
            }
            let (now, later) = rest.split_at(end);
            if self.client(session).try_send(now).is_err() {
                return;
            }
            (rest, at) = (later, 0);
            while !rest.is_empty() {
                let next = self.client(session).frame_within(Duration::from_secs(1));
                let tag = match &next {
                    Ok(None) => break, // it is skipped, or swallowed by a COPY
                    Ok(Some(frame)) => Some(frame.tag),
                    Err(_) => None,
                };
                self.ahead.entry(session.into()).or_default().push_back(next.ok().flatten());
                if matches!(tag, None | Some(b'Z' | b'G')) {
                    break;
                }
            }
        }
    }

    /// The next frame of a session; `None` if none comes, an error at the end of the connection.
    fn next_frame(&mut self, session: &str) -> std::io::Result<Option<Frame>> {
        match self.ahead.get_mut(session).and_then(VecDeque::pop_front) {
            Some(Some(frame)) => Ok(Some(frame)),
            Some(None) => Err(std::io::ErrorKind::UnexpectedEof.into()),
            None => self.client(session).frame_within(PATIENCE),
        }
    }

    fn act(&mut self, session: &str, action: &Action) -> bool {
        match action {
            Action::Connect { version, options } => {
                let (marks, options): (Vec<_>, Vec<_>) = options.iter().partition(|(n, _)| n == "as");
                let target = match (marks.is_empty(), self.place) {
                    (true, _) => self.target(),
                    (false, Place::Direct) => self.instance.admin().database(&self.target().database),
                    (false, _) => self.instance.admin_through_gateway(),
                };
                let mut options: Vec<(&str, &str)> = options.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                if self.place == Place::Lake && !options.iter().any(|(n, _)| *n == "options") {
                    options.push(("options", "-c watershed.route=lake"));
                }
                match Client::open(&target, *version, &options) {
                    Ok(client) => drop(self.sessions.insert(session.to_owned(), client)),
                    Err(e) => self.run.faults.push(format!("the connection failed: {e}")),
                }
            }
            Action::Cancel => self.client(session).cancel_key().cancel(),
            Action::Close => {
                if let Some(client) = self.sessions.remove(session) {
                    client.drop_connection();
                }
            }
            Action::Sent => {}
            Action::Until { sql, value } => {
                let sql = sql.replace("$pid", &self.client(session).pid.to_string());
                let mut admin = Client::connect(&self.instance.admin());
                let since = Instant::now();
                while admin.query(&sql).rows().first().and_then(|r| r[0].clone()).as_ref() != Some(value) {
                    if since.elapsed() > PATIENCE {
                        self.run.faults.push(format!("{sql} does not become {value}"));
                        return false;
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            Action::Admin(sql) => {
                let sql = sql.replace("$pid", &self.client(session).pid.to_string());
                Client::connect(&self.instance.admin()).run(&sql);
            }
            Action::Archive(table) => {
                self.instance.run(&["archive", "--now", table]);
                // The gateway looks for new tables every few seconds.
                known(self.instance, table);
            }
        }
        true
    }

    fn expect(&mut self, session: &str, pattern: &str, number: usize) -> bool {
        if let Some(count) = pattern.strip_prefix("rows ") {
            let count: usize = count.trim().parse().expect("a number of rows");
            let mut rows = Vec::with_capacity(count);
            for _ in 0..count {
                match self.next_frame(session) {
                    Ok(Some(f)) if f.tag == b'D' => rows.push(f),
                    other => {
                        let got = other.map_or_else(|e| e.to_string(), |f| f.map_or("nothing".into(), |f| script::rendered(&f)));
                        self.run.faults.push(format!("line {number}: {} rows of {count}, then {got}", rows.len()));
                        return false;
                    }
                }
            }
            rows.sort();
            self.run.frames.entry(session.into()).or_default().extend(rows);
            return true;
        }
        let got = match self.next_frame(session) {
            Ok(Some(frame)) => {
                let text = script::rendered(&frame);
                self.run.frames.entry(session.into()).or_default().push(frame);
                text
            }
            Ok(None) => "nothing".into(),
            Err(_) => "closed".into(),
        };
        if script::matches(pattern, &got) {
            return true;
        }
        self.run.faults.push(format!("line {number}:\n        expected {pattern}\n        came     {got}"));
        false
    }

    /// Says goodbye everywhere: nothing may have been left unsaid.
    fn end(&mut self) {
        self.send();
        let clean = self.run.faults.is_empty();
        let pids: Vec<String> = self.sessions.values().map(|c| c.pid.to_string()).collect();
        for (session, mut client) in std::mem::take(&mut self.sessions) {
            // The server may have closed already.
            let _ = client.try_send(&frontend::terminate());
            let mut left = Vec::new();
            for frame in self.ahead.remove(&session).unwrap_or_default().into_iter().flatten() {
                left.push(script::rendered(&frame));
            }
            while clean && let Ok(Some(frame)) = client.frame_within(PATIENCE) {
                left.push(script::rendered(&frame));
            }
            if !left.is_empty() {
                self.run.faults.push(format!("session {session:?} was told more: {}", left.join(" | ")));
            }
        }
        if self.place != Place::Direct && !pids.is_empty() && clean {
            let mut reader = Client::connect(&self.instance.admin_through_gateway());
            let sql = format!(
                "SELECT count(*) FROM watershed.queries WHERE pid IN ({}) AND route = 'lake' AND NOT fell_back AND sqlstate IS NULL",
                pids.join(", ")
            );
            self.run.by_lake = reader.value(&sql).parse().ok();
        }
    }

    /// Plays the sending lines of a script that has no answers yet, and writes down what comes.
    fn record(instance: &'a Instance, script: &Script) -> Vec<String> {
        for (admin, sql) in &script.setup {
            let target = if *admin { instance.admin() } else { instance.direct() };
            Client::connect(&target).run(sql);
        }
        let mut player = Player {
            instance,
            place: Place::Direct,
            sessions: BTreeMap::new(),
            collected: BTreeMap::new(),
            run: Run { frames: BTreeMap::new(), faults: Vec::new(), by_lake: None },
            random: Sequence(1),
            ahead: BTreeMap::new(),
        };
        let mut out = Vec::new();
        let mut over = BTreeSet::new();
        for (at, line) in script.lines.iter().enumerate() {
            let last_of_group = match (line, script.lines.get(at + 1)) {
                (Line::Send { session, .. }, Some(Line::Send { session: next, .. })) => session != next,
                (Line::Send { .. } | Line::Do { .. }, _) => true,
                _ => false,
            };
            match line {
                Line::Comment => {}
                other => {
                    player.line(other);
                }
            }
            out.push(script.source[at].clone());
            if last_of_group {
                player.send();
                let names: Vec<String> = player.sessions.keys().cloned().collect();
                for name in names {
                    while !over.contains(&name) {
                        match player.client(&name).frame_within(QUIET) {
                            Ok(Some(frame)) => out.push(format!("{name}< {}", script::rendered(&frame))),
                            Ok(None) => break,
                            Err(_) => {
                                out.push(format!("{name}< closed"));
                                over.insert(name.clone());
                            }
                        }
                    }
                }
            }
        }
        out
    }
}

fn load() -> Vec<(PathBuf, Vec<Script>)> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder())
        .expect("the folder of transcripts")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "txt"))
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a transcript");
            let scripts = script::read(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            (path, scripts)
        })
        .collect()
}

/// Writes PostgreSQL's answers into the files whose scripts have none.
fn record(instance: &Instance) {
    for (path, scripts) in load() {
        let mut text = String::new();
        for script in &scripts {
            text.push_str(&script.head);
            let answered = script.lines.iter().any(|l| matches!(l, Line::Expect { .. }));
            let lines = if answered { script.source.clone() } else { Player::record(instance, script) };
            for line in lines {
                let _ = writeln!(text, "{line}"); // writing to a String cannot fail
            }
        }
        fs::write(&path, text).expect("the recorded transcript");
    }
}

#[test]
fn every_transcript_is_played_alike() {
    let instance = Instance::shared();
    tables(instance);
    if std::env::var_os("WATERSHED_RECORD").is_some() {
        record(instance);
    }
    let wanted = std::env::var("WATERSHED_TRANSCRIPT").unwrap_or_default();
    let (mut scripts, mut runs, mut by_lake) = (0, 0, 0);
    let mut titles = BTreeSet::new();
    let mut failures = String::new();
    for (path, all) in load() {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for script in all {
            scripts += 1;
            if std::env::var_os("WATERSHED_RECORD").is_none() {
                let answered = script.lines.iter().any(|l| matches!(l, Line::Expect { .. }));
                if !answered {
                    let _ = writeln!(failures, "{file}: {:?} expects nothing", script.title); // writing to a String cannot fail
                }
            }
            assert!(titles.insert(script.title.clone()), "two scripts are called {:?}", script.title);
            if !script.title.contains(&wanted) && !file.contains(&wanted) {
                continue;
            }
            let mut direct: Option<Run> = None;
            for place in [Place::Direct, Place::Auto, Place::Lake, Place::Pieces, Place::Steps] {
                if !script.runs.contains(&place) {
                    continue;
                }
                runs += 1;
                let started = Instant::now();
                let mut run = Player::play(instance, &script, place);
                let expected = match place {
                    Place::Lake => script.by_lake,
                    Place::Auto | Place::Pieces | Place::Steps => script.by_auto,
                    Place::Direct => None,
                };
                if run.faults.is_empty()
                    && let Some(expected) = expected
                    && run.by_lake != Some(expected)
                {
                    run.faults.push(format!("the lake answered {:?} statements, not {expected}", run.by_lake));
                }
                by_lake += run.by_lake.unwrap_or_default();
                if std::env::var_os("WATERSHED_SHOW").is_some() {
                    println!("{file}: {:?}, {place:?}: {:?} by the lake, after {:?}", script.title, run.by_lake, started.elapsed());
                }
                if let Some(direct) = &direct
                    && run.faults.is_empty()
                {
                    run.faults.extend(script::compared(&script, &direct.frames, &run.frames));
                }
                for fault in &run.faults {
                    // Told at once: the next script may take long.
                    println!("{file}: {:?}, {place:?}\n    {fault}", script.title);
                    let _ = writeln!(failures, "{file}: {:?}, {place:?}\n    {fault}", script.title); // writing to a String cannot fail
                }
                if place == Place::Direct {
                    direct = Some(run);
                }
            }
        }
    }
    println!("{scripts} scripts, {runs} runs, {by_lake} statements answered by the lake");
    assert!(failures.is_empty(), "\n{failures}");
    assert!(scripts >= SCRIPTS, "only {scripts} scripts");
}
