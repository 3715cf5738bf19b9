//! Real Kafka brokers for tests, by `deploy/local/kafka`: started, killed, restarted, cleaned up; and what tests ask of them.
//!
//! It knows the broker's command line and rdkafka's administration. It knows nothing of the product. It depends on nothing else
//! here: other test binaries may include it by its path.
#![allow(dead_code)] // each test binary uses a part of it

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientContext, Statistics};

/// How long a broker or a request may take; only a hang or a very busy machine reaches it.
const PATIENCE: Duration = Duration::from_secs(240);
/// Brokers on this machine at once, over all test processes: each takes about 400 MB.
const MOST_BROKERS: usize = 4;

/// Runs the broker, and kills it when its standard input ends: the test process is then gone, for whatever reason.
const KEEPER: &str = r#"
log=$1; pidfile=$2; dir=$3; keep=$4; shift 4
"$@" >>"$log" 2>&1 </dev/null &
echo $! >"$pidfile.new"; mv "$pidfile.new" "$pidfile"
cat >/dev/null
kill -KILL "$(cat "$pidfile")" 2>/dev/null
wait
if [ ! -f "$keep" ]; then rm -rf "$dir"; fi
"#;

/// A port that nobody listens on, below those that the system gives to outgoing connections: nobody takes it while its server is
/// down for a moment.
pub fn lasting_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    let ports = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ports");
    fs::create_dir_all(&ports).expect("a folder for the ports that are taken");
    let seed = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap_or(0);
    for _ in 0..COUNT {
        // Processes begin at different places, and step by a number that has no common factor with COUNT.
        let step = NEXT.fetch_add(1, Ordering::SeqCst);
        let port = FIRST + ((u32::from(seed) * 37 + u32::from(step) * 7) % u32::from(COUNT)) as u16;
        // Free now, and not another test program's while its server is away.
        let file = File::create(ports.join(port.to_string())).expect("a file for the port");
        if file.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            std::mem::forget(file);
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}

/// How a broker is to be; what is not named is as `kafka.sh` has it.
#[derive(Clone, Debug, Default)]
pub struct BrokerOptions {
    /// Broker settings.
    pub settings: Vec<(String, String)>,
    /// A second listener that sends its clients to this port, where a proxy listens.
    pub advertised: Option<u16>,
}

struct Running {
    keeper: Child,
    pid: i32,
}

/// A broker in a folder of its own. It dies with this value, and with the test process.
pub struct Broker {
    dir: PathBuf,
    port: u16,
    controller_port: u16,
    /// Port of the second listener, and the port that it tells its clients.
    proxied: Option<(u16, u16)>,
    settings: Vec<(String, String)>,
    running: Mutex<Option<Running>>,
    /// One of [`MOST_BROKERS`] on this machine.
    _slot: Option<File>,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/local/kafka/kafka.sh")
}

/// A lock on one of the numbered files; none if all stay taken for long, so that nothing waits for ever.
fn slot() -> Option<File> {
    let folder = std::env::temp_dir().join("watershed-test-brokers");
    fs::create_dir_all(&folder).expect("a folder for locks");
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        for n in 0..MOST_BROKERS {
            let file = File::options().create(true).append(true).open(folder.join(n.to_string()));
            let file = file.expect("a lock file");
            if file.try_lock().is_ok() {
                return Some(file);
            }
        }
        thread::sleep(Duration::from_millis(200));
    }
    None
}

impl Broker {
    pub fn start() -> Broker {
        Broker::with(BrokerOptions::default())
    }

    pub fn with(options: BrokerOptions) -> Broker {
        let slot = slot();
        // Fetched before the clock of a start runs.
        let output = Command::new(script()).arg("setup").output().expect("bash starts");
        assert!(output.status.success(), "no Kafka: {}", String::from_utf8_lossy(&output.stderr));
        let dir =
            tempfile::Builder::new().prefix("watershed-kafka-").tempdir().expect("a temporary folder").keep();
        let broker = Broker {
            dir,
            port: lasting_port(),
            controller_port: lasting_port(),
            proxied: options.advertised.map(|advertised| (lasting_port(), advertised)),
            settings: options.settings,
            running: Mutex::new(None),
            _slot: slot,
        };
        broker.restart();
        broker
    }

    /// The one broker of this test binary; never killed.
    pub fn shared() -> &'static Broker {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        SHARED.get_or_init(Broker::start)
    }

    /// `host:port` where clients bootstrap.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port behind the proxy: what the proxy must point to.
    pub fn proxied_port(&self) -> u16 {
        self.proxied.expect("a broker with a second listener").0
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn locked(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it on the same folder and ports, and waits until it serves. Kills it first if it runs.
    pub fn restart(&self) {
        self.launch();
        self.wait_until_ready();
    }

    /// Starts it without waiting.
    pub fn launch(&self) {
        self.kill9();
        let mut running = self.locked();
        self.release(running.take());
        let (log, pid_file) = (self.dir.join("broker.log"), self.dir.join("keeper.pid"));
        let _ = fs::rename(&log, self.dir.join("broker.log.before")); // absent at the first start
        let _ = fs::remove_file(&pid_file);
        let _ = fs::remove_file(self.keep_file());
        let _ = fs::remove_file(self.dir.join("set")); // the settings are given again
        let mut command = Command::new("sh");
        command.args(["-c", KEEPER, "keeper"]).args([&log, &pid_file, &self.dir, &self.keep_file()]);
        command.arg(script()).arg("run").arg(&self.dir).args(["--heap", "384m"]);
        command.args(["--port", &self.port.to_string()]);
        command.args(["--controller-port", &self.controller_port.to_string()]);
        if let Some((listen, advertised)) = self.proxied {
            command.args(["--proxied", &format!("{listen}:{advertised}")]);
        }
        for (key, value) in &self.settings {
            command.args(["--set", &format!("{key}={value}")]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let keeper = command.spawn().expect("sh starts");
        let pid = wait("the broker's process", || fs::read_to_string(&pid_file).ok()?.trim().parse().ok());
        *running = Some(Running { keeper, pid });
    }

    pub fn wait_until_ready(&self) {
        wait("the broker to serve", || {
            if self.log().contains("Kafka Server started") {
                return Some(());
            }
            assert!(self.alive(), "the broker ended before it served:\n{}", self.log());
            None
        });
        wait("the broker's answer", || self.consumer(&[]).fetch_metadata(None, Duration::from_secs(5)).ok());
    }

    /// Lets the keeper of a dead broker go, without cleaning up after it.
    fn release(&self, running: Option<Running>) {
        if let Some(mut running) = running {
            fs::write(self.keep_file(), "").expect("the keep file");
            drop(running.keeper.stdin.take());
            running.keeper.wait().expect("the keeper ends");
        }
    }

    fn keep_file(&self) -> PathBuf {
        self.dir.join("keep")
    }

    /// Leaves the folder where it is when this value goes.
    pub fn keep(&self) {
        fs::write(self.keep_file(), "").expect("the keep file");
    }

    /// What it has said since its last start.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("broker.log")).unwrap_or_default()
    }

    fn pid(&self) -> Option<i32> {
        self.locked().as_ref().map(|running| running.pid)
    }

    pub fn alive(&self) -> bool {
        self.pid().is_some_and(alive)
    }

    /// kill -9; what was acknowledged is in the system's page cache and stays.
    pub fn kill9(&self) {
        self.end_by("KILL");
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&self) {
        self.end_by("TERM");
    }

    fn end_by(&self, name: &str) {
        if let Some(pid) = self.pid().filter(|pid| alive(*pid)) {
            signal(name, pid);
            wait("the broker's end", || (!alive(pid)).then_some(()));
        }
    }

    /// Stops the process where it is, or lets it go on.
    pub fn freeze(&self, freeze: bool) {
        if let Some(pid) = self.pid() {
            signal(if freeze { "STOP" } else { "CONT" }, pid);
        }
    }

    fn config(&self) -> ClientConfig {
        client(&self.bootstrap())
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config().create().expect("an administration client")
    }

    fn options() -> AdminOptions {
        AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE))
    }

    /// Makes a topic with one replica, e.g. `create_topic("t", 3, &[("cleanup.policy", "compact")])`.
    #[track_caller]
    pub fn create_topic(&self, name: &str, partitions: i32, config: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (key, value) in config {
            topic = topic.set(key, value);
        }
        let results = block_on(self.admin().create_topics([&topic], &Broker::options())).expect("an answer");
        assert_eq!(results, [Ok(name.to_owned())], "the topic {name}");
        self.await_partitions(name, partitions);
    }

    /// Deletes a topic and waits until it is gone, so that its name can be used again.
    #[track_caller]
    pub fn delete_topic(&self, name: &str) {
        let results = block_on(self.admin().delete_topics(&[name], &Broker::options())).expect("an answer");
        assert_eq!(results, [Ok(name.to_owned())], "deleting the topic {name}");
        let consumer = self.consumer(&[]);
        wait("the end of a topic", || self.partitions_seen(&consumer, name).is_none().then_some(()));
    }

    /// Makes the topic have `total` partitions.
    #[track_caller]
    pub fn add_partitions(&self, name: &str, total: i32) {
        let more = NewPartitions::new(name, usize::try_from(total).expect("a positive number"));
        let results =
            block_on(self.admin().create_partitions([&more], &Broker::options())).expect("an answer");
        assert_eq!(results, [Ok(name.to_owned())], "more partitions of {name}");
        self.await_partitions(name, total);
    }

    /// Deletes the records of a partition below `before`, as retention would.
    #[track_caller]
    pub fn delete_records(&self, name: &str, partition: i32, before: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(name, partition, Offset::Offset(before)).expect("an offset");
        let done = block_on(self.admin().delete_records(&list, &Broker::options())).expect("records deleted");
        for element in done.elements() {
            element.error().unwrap_or_else(|error| panic!("records of {name}/{partition}: {error}"));
        }
    }

    fn await_partitions(&self, name: &str, partitions: i32) {
        let consumer = self.consumer(&[]);
        wait("a topic with all its leaders", || {
            self.partitions_seen(&consumer, name).filter(|found| *found == partitions)
        });
    }

    /// Partitions that have a leader; `None` if there is no such topic.
    fn partitions_seen(&self, consumer: &BaseConsumer, name: &str) -> Option<i32> {
        let metadata = consumer.fetch_metadata(None, Duration::from_secs(10)).ok()?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == name)?;
        let led = topic.partitions().iter().filter(|partition| partition.leader() >= 0).count();
        i32::try_from(led).ok()
    }

    /// Number of partitions of a topic.
    pub fn partitions(&self, name: &str) -> i32 {
        let consumer = self.consumer(&[]);
        wait("the partitions of a topic", || self.partitions_seen(&consumer, name))
    }

    /// First and next offset of a partition.
    pub fn watermarks(&self, name: &str, partition: i32) -> (i64, i64) {
        let consumer = self.consumer(&[]);
        wait("the watermarks", || consumer.fetch_watermarks(name, partition, Duration::from_secs(10)).ok())
    }

    /// Next offset of each partition of a topic.
    pub fn end_offsets(&self, name: &str) -> BTreeMap<i32, i64> {
        (0..self.partitions(name)).map(|partition| (partition, self.watermarks(name, partition).1)).collect()
    }

    /// A consumer that belongs to no group.
    pub fn consumer(&self, properties: &[(&str, &str)]) -> BaseConsumer {
        let mut config = self.config();
        config.set("enable.auto.commit", "false").set("auto.offset.reset", "error").set("group.id", "none");
        for (key, value) in properties {
            config.set(*key, *value);
        }
        config.create().expect("a consumer")
    }

    /// Everything committed that a topic holds from the given offsets (of the start, where none is given) to its end now.
    pub fn read(&self, name: &str, from: &BTreeMap<i32, i64>) -> Vec<Read> {
        let consumer =
            self.consumer(&[("isolation.level", "read_committed"), ("enable.partition.eof", "true")]);
        let mut assignment = TopicPartitionList::new();
        let mut left = 0;
        for partition in 0..self.partitions(name) {
            let (low, high) = self.watermarks(name, partition);
            let start = from.get(&partition).copied().unwrap_or(low).max(low);
            if start < high {
                left += 1;
                assignment.add_partition_offset(name, partition, Offset::Offset(start)).expect("an offset");
            }
        }
        let mut found = Vec::new();
        if left == 0 {
            return found;
        }
        consumer.assign(&assignment).expect("an assignment");
        let mut last = Instant::now();
        while left > 0 {
            match consumer.poll(Duration::from_millis(200)) {
                None => assert!(last.elapsed() < PATIENCE, "the broker gives no more records of {name}"),
                Some(Err(KafkaError::PartitionEOF(_))) => left -= 1,
                Some(Err(error)) => assert!(last.elapsed() < PATIENCE, "reading {name}: {error}"),
                Some(Ok(message)) => {
                    last = Instant::now();
                    found.push(Read {
                        partition: message.partition(),
                        offset: message.offset(),
                        key: message.key().map(<[u8]>::to_vec),
                        payload: message.payload().map(<[u8]>::to_vec),
                    });
                }
            }
        }
        found
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut running) = self.locked().take() {
            if alive(running.pid) {
                signal("CONT", running.pid); // a frozen process does not die of a closed pipe
            }
            drop(running.keeper.stdin.take());
            let _ = running.keeper.wait(); // it cleans up by itself
        }
    }
}

/// One record of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
}

/// Settings of a client that comes back quickly after its broker was away.
pub fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "500")
        .set("topic.metadata.refresh.fast.interval.ms", "100");
    config
}

/// What a producer knows of a record that the broker acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    pub topic: String,
    pub partition: i32,
    /// `None` if the broker only said that it already had it.
    pub offset: Option<i64>,
    /// As given to [`Producer::send`].
    pub number: u64,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Committed,
    /// Nothing of it was ever visible.
    Aborted,
    /// All of it is visible, or nothing.
    Unknown,
}

#[derive(Default)]
struct Record {
    acknowledged: Vec<Acknowledged>,
    /// Numbers that were not acknowledged, and why; they may be in the log all the same.
    failed: Vec<(u64, String)>,
}

/// Keeps what the broker said of each record.
#[derive(Clone, Default)]
pub struct Recorder {
    record: Arc<Mutex<Record>>,
    done: Arc<AtomicU64>,
}

impl Recorder {
    fn locked(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Recorder {
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {
        // A broker that is killed on purpose makes noise that says nothing.
    }
    fn error(&self, _: KafkaError, _: &str) {}
    fn stats(&self, _: Statistics) {}
}

impl ProducerContext for Recorder {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let mut record = self.locked();
        match result {
            Ok(message) => record.acknowledged.push(Acknowledged {
                topic: message.topic().to_owned(),
                partition: message.partition(),
                offset: Some(message.offset()).filter(|offset| *offset >= 0),
                number: number as u64,
            }),
            Err((error, _)) => record.failed.push((number as u64, error.to_string())),
        }
        self.done.fetch_add(1, Ordering::SeqCst);
    }
}

/// A producer that keeps its own record of what was acknowledged. Idempotent, so that the broker has each record once.
pub struct Producer {
    inner: ThreadedProducer<Recorder>,
    recorder: Recorder,
}

impl Producer {
    pub fn new(bootstrap: &str, properties: &[(&str, &str)]) -> Producer {
        let mut config = client(bootstrap);
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "5")
            // Longer than any broker is away: a record whose fate is unknown would weaken the proof.
            .set("message.timeout.ms", "600000")
            .set("socket.timeout.ms", "5000");
        for (key, value) in properties {
            config.set(*key, *value);
        }
        let recorder = Recorder::default();
        let inner = ThreadedProducer::from_config_and_context(&config, recorder.clone());
        Producer { inner: inner.expect("a producer"), recorder }
    }

    /// One that writes in transactions: [`Producer::begin`], sends, [`Producer::commit`] or [`Producer::abort`].
    pub fn transactional(bootstrap: &str, id: &str, properties: &[(&str, &str)]) -> Producer {
        let mut all = vec![
            ("transactional.id", id),
            ("transaction.timeout.ms", "60000"),
            ("message.timeout.ms", "60000"),
        ];
        all.extend_from_slice(properties);
        let producer = Producer::new(bootstrap, &all);
        wait("the transactional producer", || producer.inner.init_transactions(Duration::from_secs(10)).ok());
        producer
    }

    /// Gives a record to the producer; waits while its queue is full. Key and headers where given; no payload is a tombstone.
    pub fn send(
        &self,
        topic: &str,
        partition: Option<i32>,
        key: Option<&str>,
        payload: Option<&[u8]>,
        number: u64,
    ) {
        self.send_with_headers(topic, partition, key, payload, &[], number);
    }

    pub fn send_with_headers(
        &self,
        topic: &str,
        partition: Option<i32>,
        key: Option<&str>,
        payload: Option<&[u8]>,
        headers: &[(&str, &[u8])],
        number: u64,
    ) {
        let mut record = BaseRecord::<str, [u8], usize>::with_opaque_to(topic, number as usize);
        if let Some(partition) = partition {
            record = record.partition(partition);
        }
        if let Some(key) = key {
            record = record.key(key);
        }
        if let Some(payload) = payload {
            record = record.payload(payload);
        }
        if !headers.is_empty() {
            let mut all = OwnedHeaders::new();
            for (key, value) in headers {
                all = all.insert(Header { key, value: Some(*value) });
            }
            record = record.headers(all);
        }
        let started = Instant::now();
        loop {
            match self.inner.send(record) {
                Ok(()) => return,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), same))
                    if started.elapsed() < PATIENCE =>
                {
                    record = same;
                    thread::sleep(Duration::from_millis(5));
                }
                Err((error, _)) => panic!("a record for {topic} could not be queued: {error}"),
            }
        }
    }

    /// Waits until everything sent was acknowledged or given up.
    pub fn flush(&self) {
        wait("the producer's flush", || self.inner.flush(Duration::from_secs(5)).ok());
    }

    /// Records sent and neither acknowledged nor given up.
    pub fn in_flight(&self) -> i32 {
        self.inner.in_flight_count()
    }

    pub fn begin(&self) {
        self.inner.begin_transaction().expect("a transaction");
    }

    /// What came of the transaction. After [`Ended::Unknown`], as after an abort that failed, the producer is of no more use: one
    /// of the same id that is made in its place ends what it left open.
    pub fn commit(&self) -> Ended {
        let started = Instant::now();
        loop {
            match self.inner.commit_transaction(Duration::from_secs(10)) {
                Ok(()) => return Ended::Committed,
                Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => {
                    return if self.abort() { Ended::Aborted } else { Ended::Unknown };
                }
                Err(KafkaError::Transaction(error))
                    if error.is_retriable() && started.elapsed() < PATIENCE =>
                {
                    thread::sleep(Duration::from_millis(50));
                }
                Err(_) => return Ended::Unknown,
            }
        }
    }

    /// False if the producer is of no more use.
    pub fn abort(&self) -> bool {
        let started = Instant::now();
        loop {
            match self.inner.abort_transaction(Duration::from_secs(10)) {
                Ok(()) => return true,
                Err(KafkaError::Transaction(error))
                    if error.is_retriable() && started.elapsed() < PATIENCE =>
                {
                    thread::sleep(Duration::from_millis(50));
                }
                Err(_) => return false,
            }
        }
    }

    /// Takes what was acknowledged since the last call.
    pub fn acknowledged(&self) -> Vec<Acknowledged> {
        std::mem::take(&mut self.recorder.locked().acknowledged)
    }

    /// Takes what failed since the last call: number and reason.
    pub fn failed(&self) -> Vec<(u64, String)> {
        std::mem::take(&mut self.recorder.locked().failed)
    }
}

#[track_caller]
fn wait<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(started.elapsed() < PATIENCE, "still waiting for {what} after {PATIENCE:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn alive(pid: i32) -> bool {
    // A zombie has ended: its parent only has not looked yet.
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}

fn signal(name: &str, pid: i32) {
    let status = Command::new("kill").args(["-s", name, &pid.to_string()]).stderr(Stdio::null()).status();
    status.expect("kill starts");
}
