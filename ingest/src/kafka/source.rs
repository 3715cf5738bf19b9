//! The polling thread: takes what the group assigns, opens partitions at the positions that PostgreSQL holds, collects their
//! records into chunks, and gives partitions back only when nothing of them is on its way. Blocks on PostgreSQL nowhere but
//! in giving back, and there for a bounded time, so that the group never takes it for dead.
//!
//! A partition's life here: *opening* (asking brokers and PostgreSQL where to read) → *reading* → *draining* (the log no
//! longer has its next offset; what was taken is committed first) → opening again. Closing ends each of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicI32;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use sqlx::postgres::PgConnectOptions;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Config;
use super::chunk::{Chunk, Partition};
use super::open;
use super::place::cut_in;
use super::raw::{self, Event, Place, Queue};
use super::streams::Opened;
use super::worker::{Decoder, Prepared, Schema};
use super::writer::Writer;
use crate::topics::TopicRoute;

/// Longest wait for an event.
const POLL: Duration = Duration::from_millis(50);
/// Events taken between two looks at the clock.
const BURST: usize = 2000;
/// A lane that takes nothing for this long has its partitions paused, so that the others go on.
const STALL: Duration = Duration::from_millis(500);
/// How long to wait before a partition that was lost or fenced is opened again.
const REOPEN: Duration = Duration::from_millis(500);

/// The consumer's context: librdkafka's own lines become ours.
pub(super) struct Context;

impl ClientContext for Context {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, fac: &str, message: &str) {
        use rdkafka::config::RDKafkaLogLevel as Level;
        match level {
            Level::Emerg | Level::Alert | Level::Critical | Level::Error => {
                tracing::warn!(fac, "librdkafka: {message}");
            }
            _ => tracing::debug!(fac, "librdkafka: {message}"),
        }
    }
}

// Rebalances come as events; this context's callback only runs when the consumer is dropped, and does what is right then.
impl ConsumerContext for Context {}

/// What tasks tell the polling thread.
pub(super) enum Note {
    /// An opening came to an end.
    Opened { place: Place, generation: u64, opened: Result<Opened, String> },
    /// A partition was closed by whoever wrote it.
    Closed { partition: Arc<Partition>, why: String },
    /// The log behind a partition is not what it was.
    Changed { place: Place },
}

/// What the thread and its tasks share.
pub(super) struct Shared {
    pub config: Config,
    pub options: PgConnectOptions,
    pub consumer: Arc<BaseConsumer<Context>>,
    pub owner: String,
    /// Who answered the last question about topics; -1: nobody yet.
    pub broker: AtomicI32,
    notes: Sender<Note>,
    /// Partitions that are read, and the lane of each.
    pub board: Mutex<HashMap<Place, (Arc<Partition>, Arc<LaneState>)>>,
    /// Held by who writes states of streams to PostgreSQL.
    pub telling: tokio::sync::Mutex<()>,
    /// No more waiting: whatever is not committed is left to the next owner.
    pub abort: CancellationToken,
    failure: Mutex<Option<String>>,
}

impl Shared {
    pub fn note(&self, note: Note) {
        // The thread has ended: nobody needs to know any more.
        let _ = self.notes.send(note);
    }

    /// Ends the source with an error.
    pub fn fail(&self, why: String) {
        self.failure.lock().get_or_insert(why);
    }
}

/// What the thread, the decoder and the writer of a lane share.
pub(super) struct LaneState {
    pub route: Arc<TopicRoute>,
    /// Held by the writer while a transaction is open.
    pub gate: tokio::sync::Mutex<()>,
    waits: Mutex<Option<String>>,
    schema: Mutex<Option<Arc<Schema>>>,
}

impl LaneState {
    fn new(route: Arc<TopicRoute>) -> LaneState {
        let (gate, waits, schema) = (tokio::sync::Mutex::new(()), Mutex::new(None), Mutex::new(None));
        LaneState { route, gate, waits, schema }
    }

    /// Sets what the lane waits for. True if it begins to wait now.
    pub fn say(&self, waits: Option<String>) -> bool {
        let begins = waits.is_some();
        std::mem::replace(&mut *self.waits.lock(), waits).is_none() && begins
    }
    pub fn waits(&self) -> Option<String> {
        self.waits.lock().clone()
    }
    pub fn schema(&self) -> Option<Arc<Schema>> {
        self.schema.lock().clone()
    }
    pub fn set_schema(&self, schema: Arc<Schema>) {
        *self.schema.lock() = Some(schema);
    }
}

/// One writer's share of a topic's partitions.
struct Lane {
    state: Arc<LaneState>,
    chunk: Chunk,
    chunks: Option<mpsc::Sender<Chunk>>,
    stalled: Option<Instant>,
    paused: bool,
}

/// A topic: its lanes, and its partitions that are read.
struct Topic {
    route: Arc<TopicRoute>,
    lanes: Vec<Lane>,
    reading: Vec<Option<Arc<Partition>>>,
}

impl Topic {
    fn lane_of(&self, partition: i32) -> usize {
        partition as usize % self.lanes.len()
    }
}

enum State {
    Opening,
    /// To be opened then.
    Waiting(Instant),
    Reading(Arc<Partition>),
    Draining(Arc<Partition>),
}

/// A partition that the group has given to us.
struct Slot {
    state: State,
    generation: u64,
    /// Where its log was cut, if that is known.
    cut: Option<i64>,
    failures: u32,
}

pub(super) struct Source {
    shared: Arc<Shared>,
    handle: Handle,
    notes: Receiver<Note>,
    stop: CancellationToken,
    topics: Vec<Topic>,
    slots: HashMap<Place, Slot>,
    generation: u64,
    tasks: Vec<JoinHandle<()>>,
    /// Back-pressure holds all partitions.
    held: bool,
    told: HashMap<String, String>,
    committed: HashMap<Place, i64>,
    next_commit: Instant,
}

impl Source {
    pub fn new(
        config: Config,
        options: PgConnectOptions,
        consumer: Arc<BaseConsumer<Context>>,
        handle: Handle,
        stop: CancellationToken,
    ) -> Source {
        let (sender, notes) = std::sync::mpsc::channel();
        let owner = config.owner.clone();
        let routes: Vec<Arc<TopicRoute>> = config.topics.iter().cloned().map(Arc::new).collect();
        let writers = config.writers.max(1);
        let shared = Arc::new(Shared {
            config,
            options,
            consumer,
            owner,
            broker: AtomicI32::new(-1),
            notes: sender,
            board: Mutex::default(),
            telling: tokio::sync::Mutex::default(),
            abort: CancellationToken::new(),
            failure: Mutex::default(),
        });
        let mut tasks = Vec::new();
        let topics = routes
            .into_iter()
            .map(|route| {
                let lanes = (0..writers).map(|_| start_lane(&shared, &route, &handle, &mut tasks)).collect();
                Topic { route, lanes, reading: Vec::new() }
            })
            .collect();
        Source {
            shared,
            handle,
            notes,
            stop,
            topics,
            slots: HashMap::new(),
            generation: 0,
            tasks,
            held: false,
            told: HashMap::new(),
            committed: HashMap::new(),
            next_commit: Instant::now(),
        }
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// What makes the client useless; the caller starts anew.
    pub fn run(mut self) -> Result<(), String> {
        let consumer = self.shared.consumer.clone();
        let names: Vec<&str> = self.shared.config.topics.iter().map(|t| t.topic.as_str()).collect();
        consumer.subscribe(&names).map_err(|e| e.to_string())?;
        let queue = Queue::of(&consumer).ok_or("the consumer has no queue")?;
        let ended = loop {
            if self.stop.is_cancelled() {
                break Ok(());
            }
            if let Some(why) = self.shared.failure.lock().take() {
                break Err(why);
            }
            self.look_after();
            if let Err(why) = self.take_events(&queue) {
                break Err(why);
            }
        };
        self.finish(&queue, ended.is_ok());
        ended
    }

    /// Everything that is due and is no event.
    fn look_after(&mut self) {
        while let Ok(note) = self.notes.try_recv() {
            self.heed(note);
        }
        let now = Instant::now();
        self.open_due(now);
        self.drain_due();
        for t in 0..self.topics.len() {
            for l in 0..self.topics[t].lanes.len() {
                self.push_lane(t, l, now);
            }
        }
        let held = !self.shared.config.pressure.is_open();
        if held != self.held {
            self.held = held;
            if held {
                tracing::warn!(state = ?self.shared.config.pressure.state(), "kafka: paused");
            } else {
                tracing::info!("kafka: resumed");
            }
            let all: Vec<Place> = self.reading().map(|(_, p)| p.place.clone()).collect();
            if held {
                self.pause(&all);
            } else {
                let free = |place: &Place| {
                    self.topic(&place.0)
                        .is_none_or(|t| !self.topics[t].lanes[self.topics[t].lane_of(place.1)].paused)
                };
                let all: Vec<Place> = all.into_iter().filter(free).collect();
                self.resume(&all);
            }
        }
        if now >= self.next_commit {
            self.next_commit = now + self.shared.config.status_interval;
            self.tell_kafka();
        }
    }

    /// Takes events until there is none, or a lane is full.
    fn take_events(&mut self, queue: &Queue<'_, Context>) -> Result<(), String> {
        let mut wait = self.patience();
        for _ in 0..BURST {
            if self.topics.iter().any(|t| t.lanes.iter().any(|l| l.stalled.is_some() && !l.paused)) {
                // The next record may be of that lane, and there is no looking past it. Soon there is room, or it is paused.
                std::thread::sleep(Duration::from_millis(1));
                return Ok(());
            }
            let Some(mut polled) = queue.poll(wait) else { return Ok(()) };
            wait = Duration::ZERO;
            match polled.read() {
                Event::Record(record) => self.take(&record),
                Event::End { place, offset } => self.pass(&place, offset),
                Event::Lost { place, text } => self.lost(&place, &text),
                Event::Assign(places) => self.assign(places),
                Event::Revoke(places) => self.revoke(&places),
                Event::Topic { topic, text } => self.tell(topic, text),
                Event::Trouble(text) => tracing::debug!("kafka: {text}"),
                Event::Fatal(text) => return Err(text),
                Event::Nothing => {}
            }
        }
        Ok(())
    }

    /// How long an event may be waited for: until the oldest chunk is due.
    fn patience(&self) -> Duration {
        let delay = self.shared.config.batch_delay;
        let oldest = self.topics.iter().flat_map(|t| &t.lanes).filter(|l| !l.chunk.is_empty());
        oldest.map(|l| delay.saturating_sub(l.chunk.born.elapsed())).min().unwrap_or(POLL).min(POLL)
    }

    fn topic(&self, name: &str) -> Option<usize> {
        self.topics.iter().position(|t| t.route.topic == name)
    }

    fn take(&mut self, record: &raw::Record<'_>) {
        let (name, number) = (record.topic(), record.partition());
        let Some(t) = self.topic(name) else { return };
        let topic = &mut self.topics[t];
        let lane = topic.lane_of(number);
        // A record of a partition that was closed since it was fetched.
        let Some(Some(partition)) = topic.reading.get(number as usize) else { return };
        let lane = &mut topic.lanes[lane];
        lane.chunk.take(partition, record);
        if full(&lane.chunk, &self.shared.config) {
            let now = Instant::now();
            let l = self.topics[t].lane_of(number);
            self.push_lane(t, l, now);
        }
    }

    fn pass(&mut self, place: &Place, offset: i64) {
        let Some(t) = self.topic(&place.0) else { return };
        let topic = &mut self.topics[t];
        let lane = topic.lane_of(place.1);
        if let Some(Some(partition)) = topic.reading.get(place.1 as usize) {
            topic.lanes[lane].chunk.pass(partition, offset);
        }
    }

    /// Hands a lane's chunk on if it is due and there is room; notes a lane that is full, and one that is so for too long.
    fn push_lane(&mut self, t: usize, l: usize, now: Instant) {
        let config = &self.shared.config;
        let lane = &mut self.topics[t].lanes[l];
        let is_full = full(&lane.chunk, config);
        let due =
            !lane.chunk.is_empty() && (is_full || now.duration_since(lane.chunk.born) >= config.batch_delay);
        if !due {
            return;
        }
        let Some(chunks) = &lane.chunks else { return };
        if chunks.capacity() > 0 {
            lake::crash::point("kafka.polled");
            // Nobody else sends here, so there is room.
            if chunks.try_send(std::mem::replace(&mut lane.chunk, Chunk::new())).is_err() {
                self.shared.fail("a decoding thread has ended".to_owned());
                return;
            }
            lane.stalled = None;
            if std::mem::take(&mut lane.paused) && !self.held {
                self.resume(&self.of_lane(t, l));
            }
        } else if is_full {
            let since = *lane.stalled.get_or_insert(now);
            if !lane.paused && now.duration_since(since) >= STALL {
                lane.paused = true;
                tracing::debug!(topic = self.topics[t].route.topic, "kafka: paused, the writer is behind");
                self.pause(&self.of_lane(t, l));
            }
        }
    }

    fn of_lane(&self, t: usize, l: usize) -> Vec<Place> {
        let topic = &self.topics[t];
        let own = topic.reading.iter().flatten().filter(|p| topic.lane_of(p.place.1) == l);
        own.map(|p| p.place.clone()).collect()
    }

    fn reading(&self) -> impl Iterator<Item = (usize, &Arc<Partition>)> {
        self.topics
            .iter()
            .enumerate()
            .flat_map(|(t, topic)| topic.reading.iter().flatten().map(move |p| (t, p)))
    }

    fn pause(&self, places: &[Place]) {
        if !places.is_empty()
            && let Err(e) = self.shared.consumer.pause(&list(places))
        {
            tracing::debug!(error = %e, "kafka: pause");
        }
    }

    fn resume(&self, places: &[Place]) {
        if !places.is_empty()
            && let Err(e) = self.shared.consumer.resume(&list(places))
        {
            tracing::debug!(error = %e, "kafka: resume");
        }
    }

    /// The group gives us partitions: each is opened before it is read.
    fn assign(&mut self, places: Vec<Place>) {
        tracing::debug!(?places, "kafka: assigned");
        // Completes the rebalance; what is to be read is added partition by partition.
        if let Err(e) = self.shared.consumer.incremental_assign(&TopicPartitionList::new()) {
            tracing::warn!(error = %e, "kafka: assign");
        }
        let now = Instant::now();
        for place in places {
            if self.topic(&place.0).is_some() && place.1 >= 0 {
                let slot = Slot { state: State::Waiting(now), generation: 0, cut: None, failures: 0 };
                self.slots.insert(place, slot);
            }
        }
    }

    /// The group takes partitions back: whoever gets them must find nothing of ours on its way.
    fn revoke(&mut self, places: &[Place]) {
        tracing::debug!(?places, "kafka: revoked");
        let mut lanes: Vec<(usize, usize)> = Vec::new();
        let mut streams = Vec::new();
        for place in places {
            if let (Some(t), Some(slot)) = (self.topic(&place.0), self.slots.remove(place)) {
                if let State::Reading(partition) | State::Draining(partition) = slot.state {
                    partition.close();
                    streams.push(partition.stream);
                }
                lanes.push((t, self.topics[t].lane_of(place.1)));
            }
        }
        lake::crash::point("kafka.revoke");
        lanes.sort_unstable();
        lanes.dedup();
        let deadline = tokio::time::Instant::now() + self.shared.config.revoke_patience;
        for (t, l) in lanes {
            let state = self.topics[t].lanes[l].state.clone();
            let waited = self
                .handle
                .block_on(async { tokio::time::timeout_at(deadline, state.gate.lock()).await.is_ok() });
            if !waited {
                // The position's guard refuses that batch if it comes too late.
                tracing::warn!(
                    topic = self.topics[t].route.topic,
                    "kafka: a batch was still open when its partitions were given back"
                );
            }
        }
        let assigned: Vec<Place> = places.iter().filter(|p| self.forget(p)).cloned().collect();
        if let Err(e) = self.shared.consumer.incremental_unassign(&list(&assigned)) {
            tracing::warn!(error = %e, "kafka: unassign");
        }
        self.handle.spawn(super::status::leave(self.shared.clone(), streams));
    }

    /// Takes a partition out of those that are read. True if it was.
    fn forget(&mut self, place: &Place) -> bool {
        self.shared.board.lock().remove(place);
        self.committed.remove(place);
        super::status::forget(place);
        let Some(t) = self.topic(&place.0) else { return false };
        self.topics[t].reading.get_mut(place.1 as usize).is_some_and(|p| p.take().is_some())
    }

    /// Stops reading a partition; what was taken of it stays on its way.
    fn stop_reading(&mut self, place: &Place) {
        if self.forget(place)
            && let Err(e) = self.shared.consumer.incremental_unassign(&list(std::slice::from_ref(place)))
        {
            tracing::debug!(error = %e, "kafka: unassign");
        }
    }

    /// The log has no next offset for a partition, or is another one.
    fn lost(&mut self, place: &Place, text: &str) {
        tracing::info!(topic = place.0, partition = place.1, "kafka: looking again where to read: {text}");
        self.stop_reading(place);
        if let Some(slot) = self.slots.get_mut(place) {
            slot.cut = cut_in(text).or(slot.cut);
            // What was taken is committed first: it may be gone from the log by now.
            slot.state = match std::mem::replace(&mut slot.state, State::Opening) {
                State::Reading(partition) => State::Draining(partition),
                other => other,
            };
        }
    }

    fn heed(&mut self, note: Note) {
        match note {
            Note::Opened { place, generation, opened } => self.opened(place, generation, opened),
            Note::Closed { partition, why } => {
                let place = partition.place.clone();
                let ours = self.slots.get(&place).is_some_and(|s| match &s.state {
                    State::Reading(p) | State::Draining(p) => Arc::ptr_eq(p, &partition),
                    _ => false,
                });
                if ours {
                    tracing::warn!(
                        topic = place.0,
                        partition = place.1,
                        "kafka: {why}; reading its position again"
                    );
                    self.stop_reading(&place);
                    if let Some(slot) = self.slots.get_mut(&place) {
                        slot.state = State::Waiting(Instant::now() + REOPEN);
                    }
                }
            }
            Note::Changed { place } => {
                if matches!(self.slots.get(&place).map(|s| &s.state), Some(State::Reading(_))) {
                    self.lost(&place, "the topic's id has changed");
                }
            }
        }
    }

    fn drain_due(&mut self) {
        let now = Instant::now();
        for slot in self.slots.values_mut() {
            if let State::Draining(p) = &slot.state
                && (p.is_closed() || p.committed() >= p.taken())
            {
                p.close();
                slot.state = State::Waiting(now);
            }
        }
    }

    /// Starts opening what is due, topic by topic.
    fn open_due(&mut self, now: Instant) {
        let due = |s: &Slot| matches!(s.state, State::Waiting(at) if at <= now);
        if !self.slots.values().any(due) {
            return;
        }
        let mut by_topic: HashMap<usize, Vec<open::Wanted>> = HashMap::new();
        for (place, slot) in self.slots.iter_mut().filter(|(_, s)| due(s)) {
            let Some(t) = self.topics.iter().position(|t| t.route.topic == place.0) else { continue };
            self.generation += 1;
            slot.generation = self.generation;
            slot.state = State::Opening;
            let wanted = open::Wanted { partition: place.1, generation: self.generation, cut: slot.cut };
            by_topic.entry(t).or_default().push(wanted);
        }
        for (t, wanted) in by_topic {
            let lanes = self.topics[t].lanes.iter().map(|l| l.state.clone()).collect();
            self.handle.spawn(open::open(self.shared.clone(), lanes, wanted));
        }
    }

    fn opened(&mut self, place: Place, generation: u64, opened: Result<Opened, String>) {
        let Some(slot) = self.slots.get_mut(&place) else { return };
        if slot.generation != generation || !matches!(slot.state, State::Opening) {
            return;
        }
        let opened = match opened {
            Ok(opened) => opened,
            Err(why) => {
                slot.failures += 1;
                let pause = REOPEN * (1 << slot.failures.min(4));
                slot.state = State::Waiting(Instant::now() + pause);
                self.tell(place.0, why);
                return;
            }
        };
        let Some(t) = self.topics.iter().position(|t| t.route.topic == place.0) else { return };
        let partition =
            Partition::new(place.clone(), opened.stream, opened.topic_id, opened.next, opened.epoch);
        let partition = Arc::new(partition);
        slot.state = State::Reading(partition.clone());
        (slot.cut, slot.failures) = (None, 0);
        self.told.remove(&place.0);
        if let Some(report) = opened.report {
            match opened.news {
                true => tracing::warn!(topic = place.0, partition = place.1, "kafka: {report}"),
                false => tracing::info!(topic = place.0, partition = place.1, "kafka: {report}"),
            }
        }
        let mut add = TopicPartitionList::new();
        raw::add_place(&mut add, &place, opened.next, opened.epoch);
        if let Err(e) = self.shared.consumer.incremental_assign(&add) {
            // The partition was taken away meanwhile, which comes as an event, or the client is at its end.
            tracing::warn!(topic = place.0, partition = place.1, error = %e, "kafka: assign");
            slot.state = State::Waiting(Instant::now() + REOPEN);
            return;
        }
        lake::crash::point("kafka.assigned");
        tracing::info!(
            topic = place.0,
            partition = place.1,
            stream = opened.stream,
            offset = opened.next,
            "kafka: reading"
        );
        let topic = &mut self.topics[t];
        let at = place.1 as usize;
        if topic.reading.len() <= at {
            topic.reading.resize(at + 1, None);
        }
        topic.reading[at] = Some(partition.clone());
        let lane = &topic.lanes[topic.lane_of(place.1)];
        let (state, paused) = (lane.state.clone(), lane.paused);
        self.shared.board.lock().insert(place.clone(), (partition, state));
        // librdkafka remembers a pause beyond an unassign: a partition that was taken away or closed while its lane stood
        // still would otherwise never be fetched again.
        match paused || self.held {
            true => self.pause(&[place]),
            false => self.resume(&[place]),
        }
    }

    /// Logs what is wrong with a topic, once until it changes.
    fn tell(&mut self, topic: String, text: String) {
        if self.told.get(&topic) != Some(&text) {
            tracing::warn!(topic, "kafka: {text}");
            self.told.insert(topic, text);
        }
    }

    /// Tells Kafka how far PostgreSQL has it, for lag tools; nothing depends on it.
    fn tell_kafka(&mut self) {
        let mut list = TopicPartitionList::new();
        for (_, partition) in self.topics.iter().flat_map(|t| t.reading.iter().flatten()).map(|p| ((), p)) {
            let at = partition.committed();
            let known = self.committed.entry(partition.place.clone()).or_insert(-1);
            if *known != at {
                *known = at;
                // Only a partition number that Kafka itself gave.
                let _ = list.add_partition_offset(&partition.place.0, partition.place.1, Offset::Offset(at));
            }
        }
        if list.count() > 0
            && let Err(e) = self.shared.consumer.commit(&list, CommitMode::Async)
        {
            tracing::debug!(error = %e, "kafka: commit for lag tools");
        }
    }

    /// Commits what was taken (if all is well), then leaves the group.
    fn finish(&mut self, queue: &Queue<'_, Context>, orderly: bool) {
        let deadline = Instant::now() + self.shared.config.stop_patience;
        if !orderly {
            self.shared.abort.cancel();
        }
        // No more records: only what is here already.
        let all: Vec<Place> = self.reading().map(|(_, p)| p.place.clone()).collect();
        self.pause(&all);
        for topic in &mut self.topics {
            for lane in &mut topic.lanes {
                let Some(chunks) = lane.chunks.take() else { continue };
                let chunk = std::mem::replace(&mut lane.chunk, Chunk::new());
                if orderly && !chunk.is_empty() {
                    let left = deadline.saturating_duration_since(Instant::now());
                    // A timer can be made on the runtime only, and this is a thread of its own.
                    let sent = self.handle.block_on(async { tokio::time::timeout(left, chunks.send(chunk)).await });
                    if !matches!(sent, Ok(Ok(()))) {
                        self.shared.abort.cancel();
                    }
                }
            }
        }
        let tasks = std::mem::take(&mut self.tasks);
        let mut left = tasks;
        while !left.is_empty() {
            // The group must not take us for dead, and what it takes back is given at once.
            if let Some(mut polled) = queue.poll(Duration::from_millis(20))
                && let Event::Revoke(places) = polled.read()
            {
                self.revoke(&places);
            }
            left.retain(|t| !t.is_finished());
            if Instant::now() >= deadline {
                self.shared.abort.cancel();
            }
            if Instant::now() >= deadline + Duration::from_secs(5) {
                for task in &left {
                    task.abort();
                }
                break;
            }
        }
        self.shared.abort.cancel();
        self.tell_kafka();
        let streams: Vec<i32> = self.reading().map(|(_, p)| p.stream).collect();
        for (_, p) in self.reading() {
            p.close();
            super::status::forget(&p.place);
        }
        self.shared.board.lock().clear();
        self.handle.block_on(async {
            let told = super::status::leave(self.shared.clone(), streams);
            let _ = tokio::time::timeout(Duration::from_secs(5), told).await;
        });
        // Leaving takes partitions back; there is nothing left to wait for.
        self.shared.consumer.unsubscribe();
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until {
            match queue.poll(Duration::from_millis(100)) {
                Some(mut polled) => {
                    if let Event::Revoke(places) = polled.read() {
                        self.revoke(&places);
                        break;
                    }
                }
                None if self.slots.is_empty() => break,
                None => {}
            }
        }
    }
}

fn full(chunk: &Chunk, config: &Config) -> bool {
    chunk.len() >= config.batch_rows || chunk.bytes() >= config.batch_bytes
}

fn list(places: &[Place]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(places.len());
    for (topic, partition) in places {
        list.add_partition(topic, *partition);
    }
    list
}

/// A lane: a thread that decodes and a task that writes, each with one batch waiting before it.
fn start_lane(
    shared: &Arc<Shared>,
    route: &Arc<TopicRoute>,
    handle: &Handle,
    tasks: &mut Vec<JoinHandle<()>>,
) -> Lane {
    let state = Arc::new(LaneState::new(route.clone()));
    let (chunks, chunks_in) = mpsc::channel(1);
    let (batches, batches_in) = mpsc::channel(1);
    let (s, l) = (shared.clone(), state.clone());
    tasks.push(handle.spawn_blocking(move || decode(&s, &l, chunks_in, &batches)));
    tasks.push(handle.spawn(Writer::new(shared.clone(), state.clone()).run(batches_in)));
    Lane { state, chunk: Chunk::new(), chunks: Some(chunks), stalled: None, paused: false }
}

/// The decoding thread of a lane.
fn decode(
    shared: &Shared,
    lane: &LaneState,
    mut chunks: mpsc::Receiver<Chunk>,
    batches: &mpsc::Sender<Prepared>,
) {
    let mut decoder: Option<Decoder> = None;
    while let Some(chunk) = chunks.blocking_recv() {
        if shared.abort.is_cancelled() {
            return;
        }
        open::verify(shared, &lane.route.topic, &chunk);
        // Set before the first partition was opened.
        let Some(schema) = lane.schema() else { continue };
        if decoder.as_ref().is_none_or(|d| !Arc::ptr_eq(d.schema(), &schema)) {
            decoder = match Decoder::new(lane.route.clone(), schema) {
                Ok(decoder) => Some(decoder),
                Err(e) => {
                    for part in &chunk.parts {
                        shared.close(&part.partition, e.to_string());
                    }
                    continue;
                }
            };
        }
        let Some(decoder) = &mut decoder else { continue };
        let prepared = decoder.prepare(chunk);
        lake::crash::point("kafka.decoded");
        if batches.blocking_send(prepared).is_err() {
            return;
        }
    }
}
