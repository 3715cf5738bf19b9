//! Forwards: rows that match a condition, and dead letters, to Kafka topics, at least once, after their commit, whatever
//! door they came through. Knows snapshots and the broker; knows no source, no lake and no query.
//!
//! A forward follows its table as the archiver does, by PostgreSQL's snapshots, so nobody who writes rows has to do
//! anything for it. `watershed_control.forwards` holds the snapshot B up to which everything was sent. One round, in order:
//!
//! 1. lead the forward: an advisory lock, so that several processes do not send everything several times;
//! 2. lock the table (ACCESS SHARE), then take a snapshot A;
//! 3. commit A as pending, synchronously: that makes everything A saw durable, so that no row is told of that a crash of
//!    the server could still take back;
//! 4. read what A sees and B does not, and of that what matches ([`tail`]); send it, and wait until the broker has
//!    acknowledged all of it ([`send`]);
//! 5. put A in the place of B, guarded by B.
//!
//! A crash between any two steps, or a broker that fails, leaves B where it was: the same rows are sent again. B stands in
//! the database that its rows are in, so both go back together when the server does.
//!
//! The condition is SQL, evaluated by PostgreSQL as `watershed_archiver` in a transaction that may only read: that role
//! reads every tiered table whatever row security says, as an alert must, and can write to none. A row that the condition
//! fails on (a cast, a division) does not match, is counted and logged, and stops nobody.

mod send;
mod tail;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use send::Sender;
use tail::Follower;

/// Result of this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a round did not come to its end. Nothing is lost by any of them: what was not acknowledged is sent again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings make no sense.
    #[error("{0}")]
    Settings(String),
    /// PostgreSQL refuses the condition.
    #[error("forward {name}: PostgreSQL refuses the condition {condition:?} over {table}: {why}")]
    Condition { name: String, condition: String, table: String, why: String },
    /// No tiered table has this name, yet.
    #[error("forward {name}: there is no tiered table {table}")]
    UnknownTable { name: String, table: String },
    /// The table has no such column.
    #[error("forward {name}: {table} has no column {column} to take the message's key from")]
    UnknownKey { name: String, table: String, column: String },
    /// PostgreSQL failed or refused.
    #[error("PostgreSQL: {0}")]
    Postgres(#[from] sqlx::Error),
    /// The condition fails on a row; the next round asks about each row apart.
    #[error("forward {0}: the condition fails on a row: {1}")]
    Undecided(String, String),
    /// The boundary sees more than the server does.
    #[error(
        "forward {name}: its boundary {boundary} lies beyond the server's snapshot {snapshot} (the row comes from another server); delete it \
         from watershed_control.forwards to begin at the present"
    )]
    BoundaryAhead { name: String, boundary: String, snapshot: String },
    /// The boundary that is stored is none.
    #[error("forward {0}: {1}")]
    Boundary(String, lake::Error),
    /// Another process moved the boundary.
    #[error("forward {0}: another process has moved its boundary")]
    Moved(String),
    /// The broker is away or refuses.
    #[error("Kafka: {0}")]
    Kafka(String),
    /// A step of our own died.
    #[error("internal: {0}")]
    Internal(String),
}

/// Where a new forward begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// With what is committed from now on: history is not alerted.
    #[default]
    Now,
    /// With everything that PostgreSQL holds.
    Beginning,
}

/// Rows of a table that match a condition: one entry of the settings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Alerts {
    /// What its position is kept under.
    pub name: String,
    /// `schema.table`, or `table` where only one schema has it.
    pub table: String,
    /// SQL over the table's columns; names outside `pg_catalog` are qualified.
    pub condition: String,
    pub topic: String,
    /// Column that the messages' key is taken from. Default: `service`, else `user_id`, else none.
    pub key: Option<String>,
    pub from: Start,
}

impl Default for Alerts {
    fn default() -> Self {
        Alerts {
            name: "alerts".into(),
            table: "public.logs".into(),
            condition: "level = 'ERROR'".into(),
            topic: "alerts".into(),
            key: None,
            from: Start::Now,
        }
    }
}

/// Dead letters: one entry of the settings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadLetters {
    pub topic: String,
    #[serde(default)]
    pub from: Start,
}

/// What a forward follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Rows, as JSON without their provenance.
    Rows { table: String, condition: String, key: Option<String> },
    /// Dead letters: their raw bytes, with everything else as headers.
    DeadLetters,
}

/// One forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    pub name: String,
    pub what: What,
    pub topic: String,
    pub from: Start,
}

impl From<Alerts> for Forward {
    fn from(a: Alerts) -> Forward {
        let Alerts { name, table, condition, topic, key, from } = a;
        Forward { name, what: What::Rows { table, condition, key }, topic, from }
    }
}

impl From<DeadLetters> for Forward {
    fn from(d: DeadLetters) -> Forward {
        Forward { name: "dead letters".into(), what: What::DeadLetters, topic: d.topic, from: d.from }
    }
}

/// What the forwarder needs to know.
#[derive(Clone)]
pub struct Config {
    /// URL of the database as role `watershed_archiver`.
    pub database_url: String,
    /// The brokers: [`crate::kafka::client`].
    pub kafka: ClientConfig,
    pub forwards: Vec<Forward>,
    /// How often the tails are looked at.
    pub poll: Duration,
}

impl std::fmt::Debug for Config {
    // The URL and the client's properties hold passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("forwards", &self.forwards)
            .field("poll", &self.poll)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// Looks once a second.
    pub fn new(database_url: impl Into<String>, kafka: ClientConfig, forwards: Vec<Forward>) -> Self {
        Config { database_url: database_url.into(), kafka, forwards, poll: Duration::from_secs(1) }
    }
}

/// Says what is wrong with the settings, as far as that can be known: names, topics, and whether PostgreSQL understands the
/// conditions. A table that does not exist yet is no error: its forward begins when it does.
pub async fn check(config: &Config) -> Result<()> {
    let mut names: BTreeMap<&str, &Forward> = BTreeMap::new();
    for forward in &config.forwards {
        let Forward { name, topic, .. } = forward;
        if name.is_empty() || name.len() > 200 || name.contains('\0') {
            return Err(Error::Settings(format!("a forward's name has 1 to 200 bytes; {name:?} does not")));
        }
        if names.insert(name, forward).is_some() {
            return Err(Error::Settings(format!(
                "two forwards are named {name:?}; give each a name of its own"
            )));
        }
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if topic.is_empty()
            || topic.len() > 249
            || !topic.bytes().all(legal)
            || [".", ".."].contains(&&**topic)
        {
            return Err(Error::Settings(format!("forward {name}: {topic:?} is no name of a topic")));
        }
        match Follower::connect(&config.database_url, forward).await {
            Ok(follower) => follower.close().await,
            Err(error @ Error::UnknownTable { .. }) => tracing::warn!("{error}; it begins when there is one"),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Forwards until `shutdown`. PostgreSQL or the broker being away only delays.
///
/// Cancel-safe in effect: a round cut short is done again.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<()> {
    use crate::metrics::describe;
    describe("watershed_forwarded_total", "Messages of a forward that the broker has acknowledged.");
    describe(
        "watershed_forward_failures_total",
        "Rounds of a forward that failed; their rows are sent again.",
    );
    describe(
        "watershed_forward_undecided_total",
        "Rows that a forward's condition fails on, taken as not matching.",
    );
    let mut tasks = JoinSet::new();
    for forward in config.forwards.clone() {
        let (config, stop) = (config.clone(), shutdown.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = follow(&config, &forward) => {}
            }
        });
    }
    if tasks.is_empty() {
        shutdown.cancelled().await;
    }
    while let Some(ended) = tasks.join_next().await {
        // Dropping the set ends the others; whoever keeps this running starts all of them again.
        ended.map_err(|e| Error::Internal(e.to_string()))?;
    }
    Ok(())
}

/// A pause between two rounds while there is something to do.
const BUSY: Duration = Duration::from_millis(100);
/// After failures, rounds are tried less and less often, down to this.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// Rounds for ever.
async fn follow(config: &Config, forward: &Forward) {
    let labels: &[(&'static str, &str)] = &[("forward", &forward.name)];
    let sent_total = crate::metrics::counter("watershed_forwarded_total", labels);
    let undecided_total = crate::metrics::counter("watershed_forward_undecided_total", labels);
    let failed_total = crate::metrics::counter("watershed_forward_failures_total", labels);
    let mut state = State::default();
    let (mut said, mut failures) = (String::new(), 0u32);
    loop {
        let pause = match state.round(config, forward).await {
            Ok(Round::Sent { messages, undecided }) => {
                sent_total.add(messages);
                undecided_total.add(undecided);
                if failures > 0 {
                    tracing::info!(forward = forward.name, "forwarding again");
                }
                (said, failures) = (String::new(), 0);
                BUSY.min(config.poll)
            }
            Ok(Round::Quiet) => config.poll,
            Err(Error::Undecided(..)) => Duration::ZERO,
            Err(error) => {
                failed_total.inc();
                failures += 1;
                // Once, however long it lasts.
                let text = error.to_string();
                if text != said {
                    tracing::warn!(
                        forward = forward.name,
                        error = text,
                        "forwarding failed; it will be tried again"
                    );
                    said = text;
                }
                state.give_up().await;
                (config.poll * (1 << failures.min(6))).min(MAX_PAUSE)
            }
        };
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.75..1.25))).await;
    }
}

/// What one round did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    /// Nothing new in the table, or another process leads.
    Quiet,
    /// Something new: messages of it that were acknowledged, and rows that the condition fails on.
    Sent { messages: u64, undecided: u64 },
}

/// Connections, kept from round to round.
#[derive(Default)]
struct State {
    follower: Option<Follower>,
    sender: Option<Sender>,
}

impl State {
    async fn round(&mut self, config: &Config, forward: &Forward) -> Result<Round> {
        let follower = match &mut self.follower {
            Some(follower) => follower,
            none => none.insert(Follower::connect(&config.database_url, forward).await?),
        };
        if !follower.leads().await? {
            return Ok(Round::Quiet);
        }
        let sender = match &mut self.sender {
            Some(sender) => sender,
            none => none.insert(Sender::connect(&config.kafka, &forward.topic).await?),
        };
        let Some(mut tail) = follower.look().await? else { return Ok(Round::Quiet) };
        let (mut sent, mut undecided) = (0, 0);
        loop {
            let page = follower.page(&mut tail).await?;
            if page.undecided.0 > 0 {
                undecided += page.undecided.0;
                let (rows, why) = page.undecided;
                tracing::warn!(
                    forward = forward.name,
                    rows,
                    why,
                    "the condition fails on rows; they count as not matching"
                );
            }
            if !page.messages.is_empty() {
                follower.settle(&mut tail).await?;
                lake::crash::point("forward.snapshot");
                sent += page.messages.len() as u64;
                sender.send(page.messages).await?;
            }
            if page.last {
                break;
            }
        }
        if sent > 0 {
            lake::crash::point("forward.sent");
        }
        follower.advance(tail, sent).await?;
        if sent > 0 {
            lake::crash::point("forward.stored");
        }
        Ok(Round::Sent { messages: sent, undecided })
    }

    /// Lets go of everything: after an error nothing is known about either end.
    async fn give_up(&mut self) {
        self.follower = None;
        if let Some(sender) = self.sender.take() {
            sender.close().await;
        }
    }
}
