//! CancelRequest: which session a (process id, secret key) pair belongs to, and how to stop what it does.
//! ✗ sessions' sockets.
//!
//! The keys that clients get are the gateway's own: PostgreSQL's process id, so that pg_backend_pid() agrees, with a secret made
//! here. PostgreSQL's own secret stays inside: who has it could cancel past the gateway, where the gateway's own questions to
//! PostgreSQL would be hit. Who guesses is held back by the limits on connections ([`crate::limits`]); every guess takes one.
//!
//! From the first question of a probe to the last row of the lake, a request is the session's own to obey: it alone knows whether
//! PostgreSQL or the lake is at work, and passes it on to PostgreSQL where that is so. At any other time PostgreSQL gets it.

use parking_lot::Mutex;
use rand::RngCore;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The shortest secret there is, that of protocol 3.0, in bytes; newer ones have longer ones.
pub const MIN_SECRET: usize = 4;
/// And the longest.
pub const MAX_SECRET: usize = 256;

/// What BackendKeyData and CancelRequest carry.
#[derive(Clone)]
pub struct Key {
    pub pid: i32,
    pub secret: Vec<u8>,
}

impl fmt::Debug for Key {
    /// Without the secret: keys have no place in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key of {} bytes for process {}", self.secret.len(), self.pid)
    }
}

/// Whether two secrets are the same, in a time that does not tell where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differing, (a, b)| std::hint::black_box(differing | (a ^ b))) == 0
}

/// What the gateway itself is at work on for one session, and a cancel request may stop.
#[derive(Debug, Default)]
pub struct Handle {
    work: Mutex<Option<CancellationToken>>,
}

impl Handle {
    /// Work begins: the token that a cancel request will trip.
    pub fn begin(&self) -> CancellationToken {
        let token = CancellationToken::new();
        *self.work.lock() = Some(token.clone());
        token
    }

    /// Work ended: requests go to PostgreSQL again.
    pub fn end(&self) {
        *self.work.lock() = None;
    }

    /// Stops work, if any is under way.
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
#[derive(Debug)]
pub enum Request {
    /// The session was told to stop.
    Stopped,
    /// The session is PostgreSQL's for the moment: ask it, by its own key.
    Forward(Key),
    /// No such session: as PostgreSQL does, say nothing.
    Unknown,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    upstream: Option<Key>,
    handle: Arc<Handle>,
}

/// All sessions of a gateway, by process id. The operating system gives an id anew while the gateway may still be about to end the
/// session that had it before: so one id may stand for several.
#[derive(Debug, Default, Clone)]
pub struct Registry(Arc<Mutex<HashMap<i32, Vec<Entry>>>>);

impl Registry {
    /// Registers a session of the process `pid` under a key that is made for it, with a secret of so many bytes, until the guard
    /// drops. `upstream` is PostgreSQL's own key.
    pub fn register(&self, pid: i32, secret_len: usize, upstream: Option<Key>) -> Guard {
        let mut secret = vec![0; secret_len.clamp(MIN_SECRET, MAX_SECRET)];
        // Of a cryptographic kind, seeded by the operating system.
        rand::rng().fill_bytes(&mut secret);
        let key = Key { pid, secret };
        let handle = Arc::new(Handle::default());
        let entry = Entry { key: key.clone(), upstream: upstream.clone(), handle: handle.clone() };
        self.0.lock().entry(pid).or_default().push(entry);
        Guard { registry: self.clone(), key, upstream, handle }
    }

    /// Serves a cancel request.
    pub fn request(&self, key: &Key) -> Request {
        let sessions = self.0.lock();
        let of_process = sessions.get(&key.pid).map_or(&[][..], Vec::as_slice);
        let Some(entry) = of_process.iter().find(|e| same(&e.key.secret, &key.secret)) else { return Request::Unknown };
        if entry.handle.cancel() {
            return Request::Stopped;
        }
        entry.upstream.clone().map_or(Request::Unknown, Request::Forward)
    }
}

/// A session's registration.
#[derive(Debug)]
pub struct Guard {
    registry: Registry,
    /// The client's.
    pub key: Key,
    /// PostgreSQL's own, never told.
    pub upstream: Option<Key>,
    pub handle: Arc<Handle>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut sessions = self.registry.0.lock();
        if let Some(of_process) = sessions.get_mut(&self.key.pid) {
            of_process.retain(|entry| !Arc::ptr_eq(&entry.handle, &self.handle));
            if of_process.is_empty() {
                sessions.remove(&self.key.pid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(pid: i32, byte: u8, len: usize) -> Key {
        Key { pid, secret: vec![byte; len] }
    }

    /// The first byte of PostgreSQL's secret, if the request is PostgreSQL's to obey.
    fn forwarded(request: Request) -> Option<u8> {
        match request {
            Request::Forward(key) => Some(key.secret[0]),
            _ => None,
        }
    }

    #[test]
    fn requests_find_the_session_and_its_work() {
        let registry = Registry::default();
        let real = [upstream(7, 1, 4), upstream(8, 2, 4), upstream(9, 3, 256)];
        let guards: Vec<Guard> =
            real.iter().map(|key| registry.register(key.pid, key.secret.len(), Some(key.clone()))).collect();
        for (guard, real) in guards.iter().zip(&real) {
            assert_eq!((guard.key.pid, guard.key.secret.len()), (real.pid, real.secret.len()));
            assert_ne!(guard.key.secret, real.secret);
        }
        let token = guards[2].handle.begin();
        assert_eq!(forwarded(registry.request(&guards[0].key)), Some(1));
        assert!(!token.is_cancelled());
        assert!(matches!(registry.request(&guards[2].key), Request::Stopped));
        assert!(token.is_cancelled());
        guards[2].handle.end();
        assert_eq!(forwarded(registry.request(&guards[2].key)), Some(3));
        let own = guards[0].key.secret.clone();
        let mut near = own.clone();
        near[3] ^= 1;
        let wrong = |pid, secret| Key { pid, secret };
        for key in [
            wrong(8, own.clone()),
            wrong(9, own.clone()),
            wrong(6, own.clone()),
            wrong(7, near),
            wrong(7, own[..3].to_vec()),
            wrong(7, [&own[..], &[0]].concat()),
            wrong(7, Vec::new()),
        ] {
            assert!(matches!(registry.request(&key), Request::Unknown), "{key:?}");
        }
        // PostgreSQL's own keys mean nothing here.
        for key in &real {
            assert!(matches!(registry.request(key), Request::Unknown), "{key:?}");
        }
        let old = guards[0].key.clone();
        drop(guards);
        assert!(matches!(registry.request(&old), Request::Unknown));
        assert!(registry.0.lock().is_empty());
    }

    #[test]
    fn a_process_id_that_is_given_anew_is_another_session() {
        let registry = Registry::default();
        let before = registry.register(7, 4, Some(upstream(7, 1, 4)));
        let after = registry.register(7, 4, Some(upstream(7, 2, 4)));
        assert_eq!(forwarded(registry.request(&before.key)), Some(1));
        assert_eq!(forwarded(registry.request(&after.key)), Some(2));
        let old = before.key.clone();
        drop(before);
        assert!(matches!(registry.request(&old), Request::Unknown));
        assert_eq!(forwarded(registry.request(&after.key)), Some(2));
    }

    #[test]
    fn secrets_have_the_length_that_there_is_and_are_not_printed() {
        let registry = Registry::default();
        for (asked, got) in [(0, 4), (4, 4), (32, 32), (256, 256), (300, 256)] {
            assert_eq!(registry.register(1, asked, None).key.secret.len(), got);
        }
        let guard = registry.register(1, 4, Some(Key { pid: 1, secret: vec![222; 4] }));
        assert!(!format!("{guard:?} {registry:?}").contains("222"));
        // Work of a session without an upstream is stopped; there is nobody else to ask.
        let alone = registry.register(2, 4, None);
        assert!(matches!(registry.request(&alone.key), Request::Unknown));
        let token = alone.handle.begin();
        assert!(matches!(registry.request(&alone.key), Request::Stopped));
        assert!(token.is_cancelled());
    }
}
