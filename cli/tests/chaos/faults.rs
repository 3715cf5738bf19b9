//! What is done to the product in a round: a plan, made from a seed, and how each step of it is carried out. Every fault is healed
//! before the round is compared; between the steps of a plan, what was slowed down stays slow.

use std::collections::BTreeMap;
use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use super::processes::Ingest;
use crate::support::Sequence;
use crate::support::instance::Instance;
use crate::support::kafka::Broker;
use crate::support::proxy::Proxy;

/// How long an armed process may take to reach its crash point; some are reached seldom.
const ARMED: Duration = Duration::from_secs(12);
/// How long a process may take to end after SIGTERM.
const ENDING: Duration = Duration::from_secs(30);
/// Longer than the session timeout of the consumer group, so that a stopped process loses its partitions.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(3);
/// Partitions that a topic may grow to.
const MOST_PARTITIONS: i32 = 8;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    KillIngest(usize),
    /// Killed and started to die at the crash point.
    CrashIngest(usize, String),
    /// SIGTERM, and started again: two rebalances.
    LeaveGroup(usize),
    /// Stopped where it is until others have its partitions; then it goes on.
    Zombie(usize),
    KillUp,
    /// `up` and its PostgreSQL at once, as when a machine dies.
    KillMachine,
    CrashUp(String),
    StopUp,
    PostgresImmediate,
    PostgresKill,
    BrokerKill,
    BrokerStop,
    BrokerFreeze,
    CutPostgres,
    CutKafka,
    SlowPostgres,
    SlowKafka,
    StallPostgres,
    StallKafka,
    DelayAll,
    RefusePostgres,
    RefuseKafka,
    AddPartition,
}

impl Fault {
    /// The name that kinds are counted under.
    pub fn kind(&self) -> String {
        match self {
            Fault::CrashIngest(..) => "crash-ingest".into(),
            Fault::CrashUp(_) => "crash-up".into(),
            other => {
                let text = format!("{other:?}");
                text.split('(').next().unwrap_or_default().to_owned()
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::CrashIngest(n, point) => write!(f, "ingest{n} dies at {point}"),
            Fault::CrashUp(point) => write!(f, "up dies at {point}"),
            other => write!(f, "{other:?}"),
        }
    }
}

/// Steps that a round goes through: a crash point in turn, and others at random. The first round tries all of the ingest's.
pub fn plan(
    random: &mut Sequence,
    round: u64,
    first: bool,
    ingest_points: &[String],
    up_points: &[String],
    processes: usize,
) -> Vec<Fault> {
    let mut steps = Vec::new();
    if first {
        // A short run, too, tries each step of the Kafka source.
        steps.extend(
            ingest_points
                .iter()
                .enumerate()
                .map(|(n, point)| Fault::CrashIngest(n % processes, point.clone())),
        );
        return steps;
    }
    let total = (ingest_points.len() + up_points.len()) as u64;
    let some = |random: &mut Sequence| random.below(processes.max(1) as u64) as usize;
    if total > 0 {
        // Every point in turn, in an order that mixes both lists; the step has no common factor with any total below it.
        let at = (round * 7919 % total) as usize;
        steps.push(match ingest_points.get(at) {
            Some(point) if processes > 0 => Fault::CrashIngest(some(random), point.clone()),
            Some(point) => Fault::CrashUp(point.clone()),
            None => Fault::CrashUp(up_points[at - ingest_points.len()].clone()),
        });
    }
    for _ in 0..2 + random.below(2) {
        let process = some(random);
        steps.push(match random.below(32) {
            0..=4 if processes > 0 => Fault::KillIngest(process),
            5..=6 if processes > 0 => Fault::LeaveGroup(process),
            7..=9 if processes > 0 => Fault::Zombie(process),
            10..=11 => Fault::KillUp,
            12 => Fault::KillMachine,
            13 => Fault::StopUp,
            14..=15 => Fault::PostgresImmediate,
            16 => Fault::PostgresKill,
            17..=18 => Fault::BrokerKill,
            19 => Fault::BrokerStop,
            20 => Fault::BrokerFreeze,
            21 => Fault::CutPostgres,
            22 => Fault::CutKafka,
            23 => Fault::SlowPostgres,
            24 => Fault::SlowKafka,
            25 => Fault::StallPostgres,
            26 => Fault::StallKafka,
            27 => Fault::DelayAll,
            28 => Fault::RefusePostgres,
            29 => Fault::RefuseKafka,
            30 => Fault::AddPartition,
            _ => Fault::CutPostgres,
        });
    }
    for n in (1..steps.len()).rev() {
        steps.swap(n, random.below(n as u64 + 1) as usize);
    }
    steps
}

/// Everything that can be hurt.
pub struct World<'a> {
    pub instance: &'a Instance,
    pub broker: &'a Broker,
    pub postgres_proxy: &'a Proxy,
    pub kafka_proxy: &'a Proxy,
    pub ingests: Vec<Ingest>,
    pub topics: &'a [&'a str],
    /// How often each kind of fault was done, over all rounds.
    pub done: BTreeMap<String, u64>,
    /// Crash points that were reached, and how often.
    pub reached: BTreeMap<String, u64>,
    /// Processes that ended though nobody ended them.
    pub surprises: Vec<String>,
}

fn pause(random: &mut Sequence, most_ms: u64) {
    thread::sleep(Duration::from_millis(random.below(most_ms)));
}

impl World<'_> {
    /// Carries out one step. What it leaves broken, [`World::heal`] mends.
    pub fn hurt(&mut self, fault: &Fault, random: &mut Sequence) {
        *self.done.entry(fault.kind()).or_default() += 1;
        match fault {
            Fault::KillIngest(n) => {
                self.ingests[*n].kill9();
                pause(random, 800);
                self.ingests[*n].launch(None);
            }
            Fault::CrashIngest(n, point) => {
                // Partitions are given back when another process joins.
                let joins = point.starts_with("kafka.revoke").then_some((n + 1) % self.ingests.len());
                if let Some(other) = joins {
                    self.ingests[other].kill9();
                }
                self.ingests[*n].launch(Some(point));
                if let Some(other) = joins {
                    // The one that was killed is a member until its session ends; only then has the other one partitions to give back.
                    thread::sleep(SESSION_TIMEOUT * 2);
                    self.ingests[other].launch(None);
                }
                let started = Instant::now();
                while self.ingests[*n].alive() && started.elapsed() < ARMED {
                    thread::sleep(Duration::from_millis(20));
                }
                self.note_reached(point, !self.ingests[*n].alive());
                self.ingests[*n].launch(None);
            }
            Fault::LeaveGroup(n) => {
                if !self.ingests[*n].terminate(ENDING) {
                    let name = &self.ingests[*n].name;
                    self.surprises.push(format!("{name} did not end within {ENDING:?} of SIGTERM"));
                }
                pause(random, 1500);
                self.ingests[*n].launch(None);
            }
            Fault::Zombie(n) => {
                self.ingests[*n].freeze(true);
                thread::sleep(SESSION_TIMEOUT + Duration::from_millis(500 + random.below(2500)));
                self.ingests[*n].freeze(false);
            }
            Fault::KillUp => {
                self.instance.kill(false);
                pause(random, 800);
                self.instance.restart();
            }
            Fault::KillMachine => {
                self.instance.kill(true);
                pause(random, 800);
                self.instance.restart();
            }
            Fault::CrashUp(point) => {
                // It must be the one that archives: the others go for so long.
                let archives = point.starts_with("archive.") || point.starts_with("lake.");
                if archives {
                    for ingest in &mut self.ingests {
                        ingest.kill9();
                    }
                }
                self.instance.kill(false);
                self.instance.launch(&[("WATERSHED_CRASH_AT", point)]);
                let started = Instant::now();
                while self.instance.alive() && started.elapsed() < ARMED {
                    thread::sleep(Duration::from_millis(20));
                }
                self.note_reached(point, !self.instance.alive());
                if self.instance.alive() {
                    self.instance.kill(false);
                }
                self.instance.restart();
                if archives {
                    for ingest in &mut self.ingests {
                        ingest.launch(None);
                    }
                }
            }
            Fault::StopUp => {
                self.instance.terminate();
                pause(random, 500);
                self.instance.restart();
            }
            Fault::PostgresImmediate => self.instance.stop_cluster_immediately(),
            Fault::PostgresKill => self.instance.kill_cluster(),
            Fault::BrokerKill => {
                self.broker.kill9();
                pause(random, 1500);
                self.broker.restart();
            }
            Fault::BrokerStop => {
                self.broker.terminate();
                self.broker.restart();
            }
            Fault::BrokerFreeze => {
                self.broker.freeze(true);
                pause(random, 5000);
                self.broker.freeze(false);
            }
            Fault::CutPostgres => {
                for _ in 0..4 {
                    self.postgres_proxy.cut();
                    pause(random, 400);
                }
            }
            Fault::CutKafka => {
                for _ in 0..4 {
                    self.kafka_proxy.cut();
                    pause(random, 400);
                }
            }
            Fault::SlowPostgres => self.postgres_proxy.limit(Some(20_000 + random.below(80_000))),
            Fault::SlowKafka => self.kafka_proxy.limit(Some(20_000 + random.below(80_000))),
            Fault::StallPostgres => {
                self.postgres_proxy.stall(true);
                pause(random, 4000);
                self.postgres_proxy.stall(false);
            }
            Fault::StallKafka => {
                self.kafka_proxy.stall(true);
                pause(random, 6000);
                self.kafka_proxy.stall(false);
            }
            Fault::DelayAll => {
                self.postgres_proxy.delay(Duration::from_millis(random.below(60)));
                self.kafka_proxy.delay(Duration::from_millis(random.below(60)));
            }
            Fault::RefusePostgres => {
                self.postgres_proxy.refuse(true);
                self.postgres_proxy.cut();
                pause(random, 2500);
                self.postgres_proxy.refuse(false);
            }
            Fault::RefuseKafka => {
                self.kafka_proxy.refuse(true);
                self.kafka_proxy.cut();
                pause(random, 2500);
                self.kafka_proxy.refuse(false);
            }
            Fault::AddPartition => {
                let topic = self.topics[random.below(self.topics.len() as u64) as usize];
                let now = self.broker.partitions(topic);
                if now < MOST_PARTITIONS {
                    self.broker.add_partitions(topic, now + 1);
                }
            }
        }
    }

    fn note_reached(&mut self, point: &str, reached: bool) {
        let name = if reached { point.to_owned() } else { format!("{point} (not reached)") };
        *self.reached.entry(name).or_default() += 1;
    }

    /// Everything runs again, unarmed and at full speed.
    pub fn heal(&mut self) {
        self.postgres_proxy.heal();
        self.kafka_proxy.heal();
        if !self.broker.alive() {
            self.broker.restart();
        }
        if !self.instance.alive() {
            // After PostgreSQL died, `up` may come back by itself or end: both are allowed.
            self.instance.restart();
        }
        for ingest in &mut self.ingests {
            ingest.freeze(false);
            if !ingest.alive() {
                self.surprises.push(format!("{} ended by itself:\n{}", ingest.name, ingest.said()));
                ingest.launch(None);
            }
        }
    }
}
