//! The sessions behind the tokens: each one session of the gateway's own, with the statements that Flight's clients know by handles.
//! Idle ones end, and old ones; their number is bounded. ✗ gRPC, what statements mean.

use super::client::{Client, Described, given_up, gone};
use super::effects;
use super::failure::Failure;
use super::run::{Run, Waiting};
use super::types::Column;
use crate::cancel::Key;
use crate::server::Shared;
use crate::session::login;
use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use rand::RngCore;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::OwnedMutexGuard;

/// Statements without a handle of their own that are kept for their tickets, a session.
const LOOSE: usize = 64;
/// Prepared statements, a session.
const PREPARED: usize = 1_024;
/// How long a call waits for a session that is at work for another.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long tokens are good for.
#[derive(Debug, Clone, Copy)]
pub struct Lifetimes {
    /// Without a call.
    pub idle: Duration,
    /// In any case.
    pub absolute: Duration,
}

/// All sessions, by token.
pub struct Sessions {
    by_token: Mutex<HashMap<String, Arc<FlightSession>>>,
    lifetimes: Lifetimes,
    most: usize,
}

/// A statement that a client knows.
pub struct Statement {
    /// In PostgreSQL.
    pub name: String,
    pub described: Described,
    pub columns: Vec<Column>,
    pub schema: SchemaRef,
    /// It is COMMIT, ROLLBACK or the like, by which whoever has no handle ends a transaction all the same.
    pub ends: bool,
    /// It surely only reads: it waits until somebody reads its rows, and stops when nobody does.
    pub reads: bool,
    /// It was made for a transaction that began at so many rests: see [`Client::rests`].
    pub within: Option<u64>,
    /// It may be read in parts.
    pub tickets: usize,
    /// Parameters that were bound last.
    pub bound: Mutex<Vec<RecordBatch>>,
    pub run: Mutex<Option<Arc<Run>>>,
}

impl Statement {
    pub fn new(name: String, sql: &str, described: Described, reads: bool, within: Option<u64>, tickets: usize) -> Statement {
        let mut words = sql.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty());
        let ends = words.next().is_some_and(|first| ["commit", "end", "rollback", "abort"].iter().any(|w| first.eq_ignore_ascii_case(w)));
        let fields = described.fields.as_deref().unwrap_or_default();
        let (columns, schema) = (Column::all(fields), super::types::schema(fields));
        Statement { name, columns, schema, described, ends, reads, within, tickets, bound: Mutex::default(), run: Mutex::default() }
    }

    /// The transaction that it was made for, if any, is under way. Asked of the client that executes it.
    pub fn check(&self, session: &FlightSession, client: &Client) -> Result<(), Failure> {
        if self.reads || self.ends { check_within(self.within, client) } else { session.check(self.within, client) }
    }

    /// It gives rows.
    pub fn gives_rows(&self) -> bool {
        self.described.fields.is_some()
    }

    /// The types of its parameters, as far as they are known.
    pub fn parameter_schema(&self) -> Schema {
        let field = |(n, oid): (usize, &u32)| Column::new(*oid, -1).field(&format!("${}", n + 1));
        Schema::new(self.described.parameters.iter().enumerate().map(field).collect::<Vec<_>>())
    }
}

/// What a client chose for its answers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Taste {
    pub compression: Option<arrow_ipc::CompressionType>,
    pub tickets: usize,
}

/// A transaction that Flight began.
#[derive(Debug, Clone, Default)]
pub struct Transaction {
    pub id: String,
    /// See [`Client::rests`].
    pub rests: u64,
    /// Savepoints, by handle.
    pub savepoints: Vec<String>,
}

/// One session.
pub struct FlightSession {
    client: Arc<tokio::sync::Mutex<Client>>,
    pub waiting: Arc<Waiting>,
    key: Key,
    pub database: String,
    began: Instant,
    used: Mutex<Instant>,
    /// By handle.
    prepared: Mutex<HashMap<String, Arc<Statement>>>,
    loose: Mutex<VecDeque<(String, Arc<Statement>)>>,
    /// Names of statements that PostgreSQL may forget.
    forgotten: Mutex<Vec<String>>,
    runs: Mutex<Vec<Weak<Run>>>,
    pub taste: Mutex<Taste>,
    pub transaction: Mutex<Option<Transaction>>,
}

impl FlightSession {
    pub fn new(client: Client, database: String) -> FlightSession {
        FlightSession {
            key: client.key().clone(),
            client: Arc::new(tokio::sync::Mutex::new(client)),
            waiting: Arc::default(),
            database,
            began: Instant::now(),
            used: Mutex::new(Instant::now()),
            prepared: Mutex::default(),
            loose: Mutex::default(),
            forgotten: Mutex::default(),
            runs: Mutex::default(),
            taste: Mutex::default(),
            transaction: Mutex::default(),
        }
    }

    /// The wire session, for this call alone. A call that is given up while it waits does not get it.
    pub async fn client(&self) -> Result<OwnedMutexGuard<Client>, Failure> {
        let _waits = self.waiting.join();
        let locked = tokio::select! {
            biased;
            () = gone() => return Err(given_up()),
            locked = tokio::time::timeout(PATIENCE, self.client.clone().lock_owned()) => locked,
        };
        match locked {
            Ok(client) if client.is_lost() => Err(Failure::lost()),
            Ok(mut client) => {
                client.serve();
                Ok(client)
            }
            Err(_) => Err(Failure::new("55006", "the session is at work for another call, whose rows nobody fetches or sends")
                .hint("Read results to their end, end or cancel what is sent, or log in once more for work beside them.")),
        }
    }

    /// What changes something is of the transaction that it names. One that names none would be committed with its end, and not before
    /// the transaction that is under way.
    pub fn check(&self, within: Option<u64>, client: &Client) -> Result<(), Failure> {
        check_within(within, client)?;
        let under_way = || self.transaction.lock().as_ref().is_some_and(|t| t.rests == client.rests());
        if within.is_none() && under_way() {
            return Err(Failure::new("25001", "a transaction is under way, and the call does not name it")
                .hint("Name it, or end it first; ROLLBACK ends one whose name got lost."));
        }
        Ok(())
    }

    /// Prepares a statement for its tickets, or under a handle of its own. `words`: see [`effects::words`]; `statement` makes it, told whether
    /// it only reads. Gives the handle.
    pub async fn prepare(
        &self,
        sql: &str,
        own: bool,
        words: Option<BTreeSet<String>>,
        statement: impl FnOnce(String, Described, bool) -> Statement,
    ) -> Result<(String, Arc<Statement>), Failure> {
        if own && self.prepared.lock().len() >= PREPARED {
            return Err(Failure::new("53400", "too many prepared statements").hint("Close those that are not used any more."));
        }
        let handle = random_id();
        let name = format!("flight_{handle}");
        let mut client = self.client().await?;
        let forgotten = std::mem::take(&mut *self.forgotten.lock());
        let described = client.prepare(&name, sql, &forgotten).await?;
        let reads = match words {
            Some(words) => match effects::none(&mut client, &words).await {
                Ok(reads) => reads,
                // Who may not ask is not believed.
                Err(_) if client.status() == b'I' && !client.is_lost() => false,
                Err(e) => {
                    self.forgotten.lock().push(name);
                    return Err(e);
                }
            },
            None => false,
        };
        drop(client);
        let statement = Arc::new(statement(name, described, reads));
        if own {
            self.prepared.lock().insert(handle.clone(), statement.clone());
        } else {
            let mut loose = self.loose.lock();
            loose.push_back((handle.clone(), statement.clone()));
            while loose.len() > LOOSE {
                let at_work = |s: &Statement| s.run.lock().as_ref().is_some_and(|r| !r.is_over());
                let Some(oldest) = loose.iter().position(|(_, s)| !at_work(s)) else { break };
                if let Some((_, old)) = loose.remove(oldest) {
                    self.forgotten.lock().push(old.name.clone());
                }
            }
        }
        Ok((handle, statement))
    }

    /// A statement by its handle.
    pub fn statement(&self, handle: &str) -> Result<Arc<Statement>, Failure> {
        let loose = || self.loose.lock().iter().find(|(h, _)| h == handle).map(|(_, s)| s.clone());
        self.prepared.lock().get(handle).cloned().or_else(loose).ok_or_else(|| {
            Failure::new("26000", "the statement does not exist, or no more").hint("Ask for the statement anew.")
        })
    }

    pub fn close_statement(&self, handle: &str) {
        if let Some(old) = self.prepared.lock().remove(handle) {
            if let Some(run) = &*old.run.lock() {
                run.leave();
            }
            self.forgotten.lock().push(old.name.clone());
        }
    }

    /// Remembers what must stop when the session ends.
    pub fn watch(&self, run: &Arc<Run>) {
        let mut runs = self.runs.lock();
        runs.retain(|r| r.strong_count() > 0);
        runs.push(Arc::downgrade(run));
    }

    fn stop(&self) {
        self.runs.lock().iter().filter_map(Weak::upgrade).for_each(|run| run.stop.cancel());
    }

    /// Stops what the session does.
    pub async fn cancel(&self, shared: &Shared) {
        login::cancel(&shared.upstream, &shared.cancels, &self.key).await;
    }

    /// As much as may waits for somebody to read it.
    pub fn is_full(&self) -> bool {
        let runs: Vec<Arc<Run>> = self.runs.lock().iter().filter_map(Weak::upgrade).collect();
        Run::fill(runs.iter())
    }

    fn is_at_work(&self) -> bool {
        self.client.try_lock().is_err() && !self.runs.lock().iter().filter_map(Weak::upgrade).any(|run| run.is_forgotten())
    }

    fn is_over(&self, lifetimes: &Lifetimes, now: Instant) -> bool {
        let lost = self.client.try_lock().is_ok_and(|c| c.is_lost());
        let idle = !self.is_at_work() && now.duration_since(*self.used.lock()) > lifetimes.idle;
        lost || idle || now.duration_since(self.began) > lifetimes.absolute
    }
}

impl Sessions {
    pub fn new(lifetimes: Lifetimes, most: usize) -> Sessions {
        Sessions { by_token: Mutex::default(), lifetimes, most }
    }

    /// There is room for one more.
    pub fn has_room(&self) -> bool {
        self.by_token.lock().len() < self.most
    }

    /// Keeps a session. Gives its token.
    pub fn add(&self, session: FlightSession) -> String {
        let mut secret = [0; 32];
        // Of a cryptographic kind, seeded by the operating system.
        rand::rng().fill_bytes(&mut secret);
        let token = URL_SAFE_NO_PAD.encode(secret);
        self.by_token.lock().insert(token.clone(), Arc::new(session));
        token
    }

    /// The session behind a token, which is used now.
    pub fn get(&self, token: &str) -> Option<Arc<FlightSession>> {
        let session = self.by_token.lock().get(token).cloned()?;
        let now = Instant::now();
        if session.is_over(&self.lifetimes, now) {
            self.close(token);
            return None;
        }
        *session.used.lock() = now;
        Some(session)
    }

    /// Ends a session; what it does for a call is still to be cancelled.
    pub fn close(&self, token: &str) -> Option<Arc<FlightSession>> {
        let session = self.by_token.lock().remove(token)?;
        session.stop();
        Some(session)
    }

    /// Ends those whose time is over.
    #[must_use]
    pub fn sweep(&self) -> Vec<Arc<FlightSession>> {
        let now = Instant::now();
        let over: Vec<String> = {
            let sessions = self.by_token.lock();
            sessions.iter().filter(|(_, s)| s.is_over(&self.lifetimes, now)).map(|(t, _)| t.clone()).collect()
        };
        over.iter().filter_map(|token| self.close(token)).collect()
    }

    /// Ends all.
    pub fn clear(&self) {
        let all = std::mem::take(&mut *self.by_token.lock());
        all.values().for_each(|s| s.stop());
    }
}

/// The transaction that began at so many rests, if one is meant, is the one that is under way: it may have been ended meanwhile.
pub fn check_within(within: Option<u64>, client: &Client) -> Result<(), Failure> {
    if within.is_none_or(|began| began == client.rests()) { Ok(()) } else { Err(ended_by_sql()) }
}

/// Of a transaction whose handle outlived it.
pub fn ended_by_sql() -> Failure {
    Failure::new("25P01", "there is no transaction in progress: a statement has ended it").hint("End it by EndTransaction, not by SQL, and begin another.")
}

/// A handle that nobody guesses, and that is a name in SQL.
pub fn random_id() -> String {
    let mut id = [0; 12];
    rand::rng().fill_bytes(&mut id);
    hex::encode(id)
}
