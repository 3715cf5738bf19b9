//! The sessions behind the tokens: each one session of the gateway's own, with the statements that Flight's clients know by handles.
//! Idle ones end, and old ones; their number is bounded. ✗ gRPC, what statements mean.

use super::client::{Client, Described};
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
use std::collections::{HashMap, VecDeque};
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
    /// It only reads: it waits until somebody reads its rows, and stops when nobody does.
    pub reads: bool,
    /// It may be read in parts.
    pub tickets: usize,
    /// Parameters that were bound last.
    pub bound: Mutex<Vec<RecordBatch>>,
    pub run: Mutex<Option<Arc<Run>>>,
}

impl Statement {
    pub fn new(name: String, described: Described, reads: bool, tickets: usize) -> Statement {
        let fields = described.fields.as_deref().unwrap_or_default();
        let (columns, schema) = (Column::all(fields), super::types::schema(fields));
        Statement { name, columns, schema, described, reads, tickets, bound: Mutex::default(), run: Mutex::default() }
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

    /// The wire session, for this call alone.
    pub async fn client(&self) -> Result<OwnedMutexGuard<Client>, Failure> {
        let _waits = self.waiting.join();
        match tokio::time::timeout(PATIENCE, self.client.clone().lock_owned()).await {
            Ok(client) if client.is_lost() => Err(Failure::lost()),
            Ok(client) => Ok(client),
            Err(_) => Err(Failure::new("55006", "the session is at work for another call, whose rows nobody fetches")
                .hint("Read results to their end, cancel them, or log in once more for work beside them.")),
        }
    }

    /// Prepares a statement for its tickets, or under a handle of its own. Gives the handle.
    pub async fn prepare(&self, sql: &str, own: bool, statement: impl FnOnce(String, Described) -> Statement) -> Result<(String, Arc<Statement>), Failure> {
        if own && self.prepared.lock().len() >= PREPARED {
            return Err(Failure::new("53400", "too many prepared statements").hint("Close those that are not used any more."));
        }
        let handle = random_id();
        let name = format!("flight_{handle}");
        let mut client = self.client().await?;
        let forgotten = std::mem::take(&mut *self.forgotten.lock());
        let described = client.prepare(&name, sql, &forgotten).await?;
        drop(client);
        let statement = Arc::new(statement(name, described));
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
                run.stop.cancel();
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

    fn is_at_work(&self) -> bool {
        self.client.try_lock().is_err()
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

/// A handle that nobody guesses, and that is a name in SQL.
pub fn random_id() -> String {
    let mut id = [0; 12];
    rand::rng().fill_bytes(&mut id);
    hex::encode(id)
}
