//! Who is logged in to the page: sessions by the digest of their cookie, each with its two connections, a token against forged requests,
//! and an end. ✗ HTTP, what is asked.

use super::client::{Client, ClientError};
use crate::query::log::Onlooker;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How many there may be, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    pub sessions: usize,
    /// Without a request or an open stream.
    pub idle: Duration,
    /// Whatever it does.
    pub age: Duration,
    /// Open streams of one session.
    pub streams: usize,
    /// Logins that failed: so many at once, and one more after each pause.
    pub failures: u32,
    pub pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            sessions: 16,
            idle: Duration::from_secs(30 * 60),
            age: Duration::from_secs(12 * 3600),
            streams: 4,
            failures: 10,
            pause: Duration::from_secs(3),
        }
    }
}

/// A random secret, as text.
pub fn secret() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

/// Compares without telling where two texts differ: their digests are compared.
pub fn same(a: &str, b: &str) -> bool {
    Sha256::digest(a) == Sha256::digest(b)
}

/// One login.
#[derive(Debug)]
pub struct WebSession {
    pub user: String,
    /// Against forged requests: sent back in a header, which no other site can set.
    pub csrf: String,
    /// Looks at the virtual tables; what it asks is not logged.
    pub eyes: tokio::sync::Mutex<Client>,
    /// Runs the user's own statements.
    pub hand: tokio::sync::Mutex<Client>,
    pub streams: AtomicUsize,
    began: Instant,
    used: Mutex<Instant>,
    ended: tokio_util::sync::CancellationToken,
    _unlogged: Onlooker,
}

impl WebSession {
    pub fn new(user: &str, eyes: Client, hand: Client, unlogged: Onlooker) -> WebSession {
        let now = Instant::now();
        WebSession {
            user: user.to_owned(),
            csrf: secret(),
            eyes: eyes.into(),
            hand: hand.into(),
            streams: AtomicUsize::new(0),
            began: now,
            used: Mutex::new(now),
            ended: tokio_util::sync::CancellationToken::new(),
            _unlogged: unlogged,
        }
    }

    /// It is in use.
    pub fn touch(&self) {
        *self.used.lock() = Instant::now();
    }

    /// Trips when it is over.
    pub fn ended(&self) -> tokio_util::sync::CancellationToken {
        self.ended.clone()
    }
}

/// A place for a stream of a session, given back on drop.
#[derive(Debug)]
pub struct Stream(pub Arc<WebSession>);

impl Stream {
    pub fn open(session: &Arc<WebSession>, limit: usize) -> Option<Stream> {
        if session.streams.fetch_add(1, Ordering::Relaxed) >= limit {
            session.streams.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Stream(session.clone()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
        self.0.touch();
    }
}

/// Whether a session of this age, used so long ago, is over.
pub fn is_over(limits: &Limits, age: Duration, unused: Duration, streams: usize) -> bool {
    age >= limits.age || (streams == 0 && unused >= limits.idle)
}

/// All of them.
#[derive(Debug)]
pub struct Sessions {
    limits: Limits,
    all: Mutex<HashMap<[u8; 32], Arc<WebSession>>>,
    /// Failed logins that are still borne, and since when that is so.
    bucket: Mutex<(f64, Instant)>,
}

impl Sessions {
    pub fn new(limits: Limits) -> Sessions {
        let bucket = Mutex::new((f64::from(limits.failures), Instant::now()));
        Sessions { limits, all: Mutex::default(), bucket }
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether there is room for one more, after those that are over have gone.
    pub fn has_room(&self) -> bool {
        self.sweep();
        self.all.lock().len() < self.limits.sessions
    }

    /// Keeps a session; returns the secret for its cookie. None: there is no room.
    pub fn add(&self, session: Arc<WebSession>) -> Option<String> {
        let token = secret();
        let mut all = self.all.lock();
        if all.len() >= self.limits.sessions {
            return None;
        }
        all.insert(Sha256::digest(&token).into(), session);
        Some(token)
    }

    /// The session of a cookie, which is in use by that.
    pub fn get(&self, token: &str) -> Option<Arc<WebSession>> {
        self.sweep();
        let key: [u8; 32] = Sha256::digest(token).into();
        let session = self.all.lock().get(&key).cloned()?;
        session.touch();
        Some(session)
    }

    /// Ends one, and its streams.
    pub fn remove(&self, token: &str) {
        let key: [u8; 32] = Sha256::digest(token).into();
        if let Some(session) = self.all.lock().remove(&key) {
            session.ended.cancel();
        }
    }

    /// Ends all.
    pub fn clear(&self) {
        for (_, session) in self.all.lock().drain() {
            session.ended.cancel();
        }
    }

    /// Ends those that are over.
    pub fn sweep(&self) {
        self.all.lock().retain(|_, session| {
            let unused = session.used.lock().elapsed();
            let over = is_over(&self.limits, session.began.elapsed(), unused, session.streams.load(Ordering::Relaxed));
            if over {
                session.ended.cancel();
            }
            !over
        });
    }

    /// Whether one more login may be tried now.
    pub fn may_try(&self) -> bool {
        self.refill(Instant::now()) >= 1.0
    }

    /// A login was refused.
    pub fn failed(&self, error: &ClientError) {
        // What is PostgreSQL's own trouble says nothing about who asked.
        if error.sqlstate().is_some_and(|s| s.starts_with("28")) || matches!(error, ClientError::Broken(_)) {
            self.refill(Instant::now());
            self.bucket.lock().0 -= 1.0;
        }
    }

    fn refill(&self, now: Instant) -> f64 {
        let mut bucket = self.bucket.lock();
        let passed = now.saturating_duration_since(bucket.1).as_secs_f64() / self.limits.pause.as_secs_f64().max(0.001);
        *bucket = ((bucket.0 + passed).min(f64::from(self.limits.failures)), now);
        bucket.0
    }
}
