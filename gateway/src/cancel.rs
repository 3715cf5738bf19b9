//! CancelRequest: which session a (process id, secret key) pair belongs to, and how to stop what it does.
//! The keys are PostgreSQL's own. ✗ sessions' sockets.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What BackendKeyData carried.
pub type Key = (i32, Vec<u8>);

/// The lake work of one session that a cancel request may stop.
#[derive(Debug, Default)]
pub struct Handle {
    work: Mutex<Option<CancellationToken>>,
}

impl Handle {
    /// Lake work begins: the token that a cancel request will trip.
    pub fn begin(&self) -> CancellationToken {
        let token = CancellationToken::new();
        *self.work.lock() = Some(token.clone());
        token
    }

    /// Lake work ended: requests go to PostgreSQL again.
    pub fn end(&self) {
        *self.work.lock() = None;
    }

    /// Stops lake work, if any is under way.
    fn cancel(&self) -> bool {
        match &*self.work.lock() {
            Some(token) => {
                token.cancel();
                true
            }
            None => false,
        }
    }
}

/// Outcome of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// Lake work was told to stop.
    Stopped,
    /// The session is PostgreSQL's for the moment: forward the request.
    Forward,
    /// No such session: as PostgreSQL does, say nothing.
    Unknown,
}

/// All sessions of a gateway.
#[derive(Debug, Default, Clone)]
pub struct Registry(Arc<Mutex<HashMap<Key, Arc<Handle>>>>);

impl Registry {
    /// Registers a session until the guard drops.
    pub fn register(&self, key: Key) -> Guard {
        let handle = Arc::new(Handle::default());
        self.0.lock().insert(key.clone(), handle.clone());
        Guard { registry: self.clone(), key, handle }
    }

    /// Serves a cancel request.
    pub fn request(&self, key: &Key) -> Request {
        match self.0.lock().get(key) {
            None => Request::Unknown,
            Some(h) if h.cancel() => Request::Stopped,
            Some(_) => Request::Forward,
        }
    }
}

/// A session's registration.
#[derive(Debug)]
pub struct Guard {
    registry: Registry,
    pub key: Key,
    pub handle: Arc<Handle>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.registry.0.lock().remove(&self.key);
    }
}
