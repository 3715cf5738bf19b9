//! The proof of exactly once: producers with known content run while everything they depend on is killed, stopped, cut off and
//! slowed down; after each round both stores hold each of their rows once, at its place in its source, and nothing else. While it
//! runs, a client sees aggregates that never go backwards and always hold what was acknowledged before.
//!
//! WATERSHED_CHAOS_ROUNDS is the number of rounds (6), WATERSHED_CHAOS_SEED makes the same plan again, WATERSHED_CHAOS_SECONDS is
//! how long producers run at least in a round (2). `scripts/chaos.sh` runs many rounds. A failure keeps all folders and says where.

mod chaos;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chaos::compare::{self, Differences, Row};
use chaos::faults::{self, SESSION_TIMEOUT, World};
use chaos::ledger::{Fate, Home, Ledger, Place};
use chaos::processes::Ingest;
use chaos::producers::{self, Session, Stream, Work};
use support::Sequence;
use support::instance::{Instance, Options, argument, shown};
use support::kafka::{Broker, BrokerOptions, Read, lasting_port};
use support::proxy::Proxy;
use support::wire::{Client, Host, Target};

const TOPICS: [&str; 2] = ["logs.raw", "events.raw"];
/// How long the stores may take to hold what the sources hold, once all is well again.
const CATCHING_UP: Duration = Duration::from_secs(240);
/// Processes of `watershed ingest` beside the `up`, which takes part as well.
const PROCESSES: usize = 2;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a whole number"))
}

/// The crash points in the code, by the folder walk that `crash.rs` does too.
fn crash_points() -> BTreeSet<String> {
    fn walk(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).expect("a source folder") {
            let path = entry.expect("a source file").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                for (at, call) in text.match_indices("crash::point(\"") {
                    let name = text[at + call.len()..].split('"').next().unwrap_or_default();
                    found.insert(name.to_owned());
                }
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut found = BTreeSet::new();
    for part in ["lake", "ingest", "compactor"] {
        walk(&root.join(part).join("src"), &mut found);
    }
    found
}

/// A settings file: a stopped process loses its partitions soon, and rows are committed in small batches.
fn settings_file(folder: &Path) -> PathBuf {
    let path = folder.join("chaos.toml");
    let text = format!(
        "[kafka]\nbatch_rows = 500\nbatch_delay = \"50ms\"\n\n[kafka.properties]\n\"session.timeout.ms\" = \"{}\"\n\"heartbeat.interval.ms\" = \"500\"\n\"reconnect.backoff.max.ms\" = \"1000\"\n",
        SESSION_TIMEOUT.as_millis()
    );
    fs::write(&path, text).expect("a settings file");
    path
}

/// `up` that archives and compacts all the time, and takes part in reading Kafka, through the proxy.
fn options(kafka: &Proxy, settings: &Path) -> Options {
    Options::busy()
        .with("WATERSHED_KAFKA_BROKERS", &format!("127.0.0.1:{}", kafka.port()))
        .with("WATERSHED_CONFIG", argument(settings))
}

fn postgres_port(url: &str) -> u16 {
    match Target::from_url(url).host {
        Host::Tcp(_, port) | Host::Unix(_, port) => port,
    }
}

/// The other processes that share the topics with `up`: they reach PostgreSQL and the broker through the proxies, have an HTTP
/// door each, and would archive if `up` did not.
fn ingests(
    instance: &Instance,
    kafka: &Proxy,
    postgres: &Proxy,
    doors: &[u16],
    settings: &Path,
) -> Vec<Ingest> {
    let folder = instance.dir().with_file_name("ingest");
    fs::create_dir_all(&folder).expect("a folder for logs");
    let through_proxy = |key: &str| {
        let url = instance.secret(key);
        let port = postgres_port(&url);
        url.replace(&format!("127.0.0.1:{port}/"), &format!("127.0.0.1:{}/", postgres.port()))
    };
    doors
        .iter()
        .enumerate()
        .map(|(n, door)| {
            let lake = format!("file://{}/", instance.dir().join("lake").display());
            let kafka = format!("127.0.0.1:{}", kafka.port());
            let door = format!("127.0.0.1:{door}");
            let arguments = [
                "ingest",
                "--config",
                argument(settings),
                "--lake",
                &lake,
                "--kafka-brokers",
                &kafka,
                "--http",
                &door,
                "--archive-interval",
                "300ms",
                "--archive-min-rows",
                "1",
                "--drain-timeout",
                "10s",
            ];
            // URLs hold passwords, which no command line should show.
            let environment = ["WATERSHED_INGEST_URL", "WATERSHED_ARCHIVER_URL"]
                .map(|key| (key.to_owned(), through_proxy(key)));
            let arguments = arguments.map(str::to_owned).to_vec();
            Ingest::new(&format!("ingest{n}"), &folder, arguments, environment.to_vec())
        })
        .collect()
}

/// Points that no round can reach: of commands that it does not run, and of work done once or once a week.
fn reachable(point: &str) -> bool {
    !["load.", "compact.vacuum.", "forward.", "letters.", "rebase.", "replay."]
        .iter()
        .any(|prefix| point.starts_with(prefix))
        && point != "lake.create.after"
}

/// The totals of a round as a store gives them: rows, names, and the length of all names.
type Totals = BTreeMap<String, Vec<Option<String>>>;

fn totals(client: &mut Client) -> Totals {
    let mut totals = BTreeMap::new();
    for (table, tag, name) in [("logs", "host", "message"), ("events", "session_id", "event_type")] {
        let sql = format!(
            "SELECT {tag}, count(*), count(DISTINCT {name}), sum(length({name})), min({name}), max({name}), sum(_offset) FROM {table} GROUP BY {tag}"
        );
        for mut row in client.run(&sql).rows() {
            let tag = row.remove(0).unwrap_or_default();
            totals.insert(format!("{table} {tag}"), row);
        }
    }
    totals
}

struct Chaos<'a> {
    world: World<'a>,
    seed: u64,
    ingest_points: Vec<String>,
    up_points: Vec<String>,
    gateway: Target,
    /// Ports of all HTTP doors.
    doors: Vec<u16>,
    /// Where the rows of the next round begin in each topic.
    ends: BTreeMap<String, BTreeMap<i32, i64>>,
    before: Totals,
    rows: u64,
    answers: u64,
}

impl Chaos<'_> {
    /// The gateway, asked to answer from the lake; PostgreSQL itself otherwise.
    fn client(&self, lake: bool) -> Client {
        if !lake {
            return Client::connect(&self.world.instance.direct());
        }
        let mut client = Client::connect(&self.gateway);
        client.run("SET watershed.route = 'lake'");
        client
    }

    /// One round: producers, faults, peace, comparison. Gives what it did in words.
    fn round(&mut self, round: u64) -> String {
        let started = Instant::now();
        let mut random = Sequence(self.seed ^ round.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let plan = faults::plan(
            &mut random,
            round,
            self.before.is_empty(),
            &self.ingest_points,
            &self.up_points,
            PROCESSES,
        );
        let ledger = Ledger::new(round);
        let stop = AtomicBool::new(false);
        let complaints = Mutex::new(Vec::new());
        let complain = |text: String| complaints.lock().expect("no complaint panics").push(text);
        let work = Work { ledger: &ledger, stop: &stop, complain: &complain };

        let direct = self.world.broker.bootstrap();
        let through_proxy = format!("127.0.0.1:{}", self.world.kafka_proxy.port());
        let doors: Vec<u16> = self.doors.clone();
        let gateway = self.gateway.clone();
        let mut next_seed = || Sequence(random.next());
        let seeds: [Sequence; 8] = std::array::from_fn(|_| next_seed());
        let least = Duration::from_secs(setting("WATERSHED_CHAOS_SECONDS", 2));
        thread::scope(|scope| {
            let [k1, k2, k3, h1, h2, s1, s2, c1] = seeds;
            let (work, doors, gateway) = (&work, &doors, &gateway);
            let (direct, through_proxy) = (&direct, &through_proxy);
            scope.spawn(move || {
                let stream = Stream { source: "k1", topic: TOPICS[0], home: Home::Logs };
                producers::idempotent(work, &stream, direct, k1);
            });
            scope.spawn(move || {
                let stream = Stream { source: "k2", topic: TOPICS[1], home: Home::Events };
                producers::idempotent(work, &stream, through_proxy, k2);
            });
            scope.spawn(move || {
                let streams = [
                    Stream { source: "k3", topic: TOPICS[0], home: Home::Logs },
                    Stream { source: "k4", topic: TOPICS[1], home: Home::Events },
                ];
                producers::transactional(work, &streams, direct, k3);
            });
            scope.spawn(move || producers::http(work, "h1", doors, h1));
            scope.spawn(move || producers::http(work, "h2", doors, h2));
            scope.spawn(move || producers::copy(work, "s1", gateway, s1));
            scope.spawn(move || producers::transactions(work, "s2", gateway, s2));
            let watching =
                scope.spawn(move || producers::watch(work, "c1", &["h1", "h2", "s1", "s2"], gateway, c1));

            let outcome = catch_unwind(AssertUnwindSafe(|| {
                for fault in &plan {
                    thread::sleep(Duration::from_millis(random.below(700)));
                    self.world.hurt(fault, &mut random);
                }
                thread::sleep(least.saturating_sub(started.elapsed()));
                self.world.heal();
            }));
            stop.store(true, Ordering::SeqCst);
            if let Err(panic) = outcome {
                resume_unwind(panic);
            }
            self.answers += watching.join().expect("the watching client");
        });
        let hurt = started.elapsed();

        let mut differences = Differences::default();
        for complaint in complaints.into_inner().expect("no complaint panics") {
            differences.add(complaint);
        }
        let rows = self.compare(&ledger, &mut differences);
        self.rows += rows;
        let steps: Vec<String> = plan.iter().map(ToString::to_string).collect();
        let line = format!(
            "round {round} seed {}: {rows} rows, {:.1} s of {:.1} s hurt: {}",
            self.seed,
            hurt.as_secs_f64(),
            started.elapsed().as_secs_f64(),
            steps.join(", ")
        );
        assert!(differences.is_empty(), "{line}\n{}", differences.text());
        line
    }

    /// Waits until the positions are at the ends of the topics, and compares. Gives the number of rows.
    fn compare(&mut self, ledger: &Ledger, differences: &mut Differences) -> u64 {
        let broker = self.world.broker;
        let none = BTreeMap::new();
        let read: BTreeMap<String, _> = TOPICS
            .iter()
            .map(|topic| ((*topic).to_owned(), broker.read(topic, self.ends.get(*topic).unwrap_or(&none))))
            .collect();
        for topic in TOPICS {
            self.ends.insert(topic.to_owned(), broker.end_offsets(topic));
        }
        let places = compare::log(ledger, &read, differences);
        self.catch_up(&places, differences);

        let tag = ledger.tag();
        let streams = self.streams();
        let direct = compare::rows(&mut self.client(false), &tag);
        compare::store("PostgreSQL", ledger, &places, &streams, &direct, differences);
        let letters = compare::letters(&mut Client::connect(&self.world.instance.admin()), &tag);
        self.compare_letters(ledger, &places, &letters, differences);
        // Every second round leaves a tail in PostgreSQL.
        if ledger.round % 2 == 0 {
            let output = self.world.instance.output(&["archive", "--now"]);
            if !output.status.success() {
                differences.add(format!("archive failed: {}", shown(&output)));
            }
        }
        let lake = compare::rows(&mut self.client(true), &tag);
        compare::store("the lake with its tail", ledger, &places, &streams, &lake, differences);

        let output = self.world.instance.output(&["verify"]);
        if !output.status.success() {
            differences.add(format!("verify: {}", shown(&output)));
        }
        // The rounds before are as they were, in both stores.
        let (now, in_lake) = (totals(&mut self.client(false)), totals(&mut self.client(true)));
        for (what, totals) in [("PostgreSQL", &now), ("the lake with its tail", &in_lake)] {
            for (group, before) in &self.before {
                if totals.get(group) != Some(before) {
                    differences.add(format!("{what}: {group} was {before:?} and is {:?}", totals.get(group)));
                }
            }
        }
        if now != in_lake {
            differences.add("the totals of the two stores differ".into());
        }
        self.before = now;
        direct.values().map(|rows| rows.len() as u64).sum()
    }

    fn streams(&self) -> BTreeMap<i64, (String, i32)> {
        let mut admin = Client::connect(&self.world.instance.admin());
        let sql = "SELECT id, topic, partition FROM watershed_control.streams WHERE kind = 'kafka'";
        let rows = admin.run(sql).rows();
        rows.into_iter()
            .map(|row| {
                let text = |n: usize| row[n].clone().expect("no NULL");
                let partition = text(2).parse().expect("a partition");
                (text(0).parse().expect("a stream"), (text(1), partition))
            })
            .collect()
    }

    /// Waits until each partition's position is past its last record.
    fn catch_up(&self, places: &BTreeMap<String, Place>, differences: &mut Differences) {
        let mut last: BTreeMap<(String, i32), i64> = BTreeMap::new();
        for place in places.values() {
            let end = last.entry((place.topic.clone(), place.partition)).or_default();
            *end = (*end).max(place.offset + 1);
        }
        let target = self.world.instance.admin();
        let mut session = Session::new(&target);
        let sql = "SELECT s.topic, s.partition, p.next_offset FROM watershed_control.streams s \
                   JOIN watershed_control.positions p ON p.stream = s.id WHERE s.kind = 'kafka' AND s.ended_at IS NULL";
        let started = Instant::now();
        loop {
            let rows = session.ask(sql).filter(|reply| reply.error().is_none()).map(|reply| reply.rows());
            let positions: BTreeMap<(String, i32), i64> = rows
                .unwrap_or_default()
                .into_iter()
                .map(|row| {
                    let text = |n: usize| row[n].clone().expect("no NULL");
                    ((text(0), text(1).parse().expect("a partition")), text(2).parse().expect("an offset"))
                })
                .collect();
            let behind: Vec<String> = last
                .iter()
                .filter(|(partition, end)| positions.get(partition).is_none_or(|at| at < end))
                .map(|(partition, end)| {
                    format!("{partition:?} ends at {end}, read to {:?}", positions.get(partition))
                })
                .collect();
            if behind.is_empty() {
                return;
            }
            if started.elapsed() > CATCHING_UP {
                differences.add(format!("not read after {CATCHING_UP:?}: {behind:?}"));
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn compare_letters(
        &self,
        ledger: &Ledger,
        places: &BTreeMap<String, Place>,
        letters: &[(String, String)],
        differences: &mut Differences,
    ) {
        let mut seen = BTreeSet::new();
        for (name, position) in letters {
            if !seen.insert(name.as_str()) {
                differences.add(format!("the dead letters have {name} twice"));
            }
            let place = places.get(name).map(|at| format!("{}/{}/{}", at.topic, at.partition, at.offset));
            if place.as_ref() != Some(position) {
                differences
                    .add(format!("dead letter {name} is at {position}; the broker has it at {place:?}"));
            }
        }
        let entries = ledger.entries();
        let present = |name: &str| seen.contains(name);
        compare::absent("dead letters", &entries, &present, &[Home::Letters], differences);
    }
}

#[test]
fn nothing_is_lost_and_nothing_counts_twice() {
    let rounds = setting("WATERSHED_CHAOS_ROUNDS", 6);
    let first = setting("WATERSHED_CHAOS_FIRST", 1);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970");
    let seed = setting("WATERSHED_CHAOS_SEED", u64::from(now.subsec_nanos()) * 1000 + now.as_secs() % 1000);
    println!("WATERSHED_CHAOS_SEED={seed} WATERSHED_CHAOS_ROUNDS={rounds} WATERSHED_CHAOS_FIRST={first}");

    let points = crash_points().into_iter().filter(|point| reachable(point));
    let (ingest_points, up_points): (Vec<String>, Vec<String>) =
        points.partition(|point| point.starts_with("kafka."));
    let kafka_proxy = Proxy::unconnected();
    let broker =
        Broker::with(BrokerOptions { advertised: Some(kafka_proxy.port()), ..BrokerOptions::default() });
    kafka_proxy.point_to(broker.proxied_port());
    broker.create_topic(TOPICS[0], 6, &[]);
    broker.create_topic(TOPICS[1], 3, &[]);
    let settings = settings_file(broker.dir());
    let instance = Instance::start(options(&kafka_proxy, &settings));
    let postgres_proxy = Proxy::start(postgres_port(&instance.secret("WATERSHED_INGEST_URL")));
    let doors: Vec<u16> = (0..PROCESSES).map(|_| lasting_port()).collect();
    let ingests = ingests(&instance, &kafka_proxy, &postgres_proxy, &doors, &settings);
    let world = World {
        instance: &instance,
        broker: &broker,
        postgres_proxy: &postgres_proxy,
        kafka_proxy: &kafka_proxy,
        ingests,
        topics: &TOPICS,
        done: BTreeMap::new(),
        reached: BTreeMap::new(),
        surprises: Vec::new(),
    };
    let gateway = instance.gateway();
    let mut chaos = Chaos {
        world,
        seed,
        ingest_points,
        up_points,
        gateway,
        doors: doors.into_iter().chain([instance.http_port()]).collect(),
        ends: BTreeMap::new(),
        before: Totals::new(),
        rows: 0,
        answers: 0,
    };
    for ingest in &mut chaos.world.ingests {
        ingest.launch(None);
    }
    let started = Instant::now();
    for round in first..first + rounds {
        match catch_unwind(AssertUnwindSafe(|| chaos.round(round))) {
            Ok(line) => println!("{line}"),
            Err(panic) => {
                instance.keep();
                broker.keep();
                println!(
                    "round {round} of seed {seed} failed; kept: {} and {}",
                    instance.dir().display(),
                    broker.dir().display()
                );
                resume_unwind(panic);
            }
        }
    }
    println!(
        "{rounds} rounds of seed {seed} in {:.0} s: {} rows, {} answers of aggregates, no difference",
        started.elapsed().as_secs_f64(),
        chaos.rows,
        chaos.answers
    );
    println!("faults: {:?}", chaos.world.done);
    println!("crash points: {:?}", chaos.world.reached);
    for surprise in &chaos.world.surprises {
        println!("surprise: {surprise}");
    }
    // The watching client did watch, and the crash points are still where they are looked for.
    assert!(chaos.answers > rounds, "only {} answers", chaos.answers);
    assert!(
        !chaos.world.reached.keys().all(|point| point.contains("not reached")),
        "no crash point was reached"
    );
}

/// What the proof leans on: the comparison sees each way in which a store can be wrong.
#[test]
fn the_comparison_sees_what_is_wrong() {
    let ledger = Ledger::new(3);
    let name = |n| ledger.name("k1", n);
    let place = |offset| Place { topic: "logs.raw".into(), partition: 1, offset };
    for n in 0..4 {
        ledger.open(&[name(n)], Home::Logs, true);
        ledger.settle(&[name(n)], &if n == 3 { Fate::Out } else { Fate::In });
        ledger.place(&name(n), Some(place(n as i64 + 10)));
    }
    let whole = [ledger.name("s1", 0), ledger.name("s1", 1)];
    ledger.open(&whole, Home::Logs, false);
    let record = |n: u64| Read {
        partition: 1,
        offset: n as i64 + 10,
        key: None,
        payload: Some(format!(r#"{{"message":"{}"}}"#, name(n)).into_bytes()),
    };
    let in_log = |records: Vec<Read>| {
        let mut differences = Differences::default();
        compare::log(&ledger, &BTreeMap::from([("logs.raw".to_owned(), records)]), &mut differences);
        differences.lines.len()
    };
    assert_eq!(in_log((0..3).map(record).collect()), 0);
    assert_eq!(in_log((0..2).map(record).collect()), 1, "one that the broker lost");
    assert_eq!(in_log((0..4).map(record).collect()), 1, "one that was aborted");
    assert_eq!(in_log([0, 1, 2, 2].map(record).to_vec()), 1, "one that the broker has twice");
    let mut moved = record(2);
    moved.offset = 99;
    assert_eq!(in_log(vec![record(0), record(1), moved]), 1, "one that is not where it was acknowledged");

    let places: BTreeMap<String, Place> = (0..3).map(|n| (name(n), place(n as i64 + 10))).collect();
    let streams = BTreeMap::from([(5, ("logs.raw".to_owned(), 1))]);
    let row = |name: String, stream, offset| Row { name, stream, offset };
    let good = || (0..3).map(|n| row(name(n), 5, n as i64 + 10)).collect::<Vec<Row>>();
    let in_store = |home, rows: Vec<Row>| {
        let mut differences = Differences::default();
        let rows = BTreeMap::from([(home, rows)]);
        compare::store("a store", &ledger, &places, &streams, &rows, &mut differences);
        differences.lines.len()
    };
    let with = |more: Vec<Row>| [good(), more].concat();
    assert_eq!(in_store(Home::Logs, good()), 0);
    assert_eq!(in_store(Home::Logs, good()[1..].to_vec()), 1, "a lost row");
    assert_eq!(in_store(Home::Logs, with(vec![row(name(1), 5, 11)])), 2, "a doubled row and a doubled place");
    assert_eq!(in_store(Home::Logs, with(vec![row(name(3), 5, 13)])), 2, "an aborted row, at no place");
    assert_eq!(in_store(Home::Logs, with(vec![row(ledger.name("k1", 8), 0, 0)])), 1, "a row of nobody");
    assert_eq!(
        in_store(Home::Logs, [good()[..2].to_vec(), vec![row(name(2), 5, 40)]].concat()),
        1,
        "a wrong place"
    );
    assert_eq!(in_store(Home::Events, good()), 3, "the wrong table");
    assert_eq!(in_store(Home::Logs, with(vec![row(whole[0].clone(), 0, 0)])), 1, "half a transaction");
    assert_eq!(in_store(Home::Logs, with(whole.iter().map(|name| row(name.clone(), 0, 0)).collect())), 0);
}
