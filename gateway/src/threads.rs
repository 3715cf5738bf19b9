//! The threads that sessions live on. A session stays on one thread from its first byte to its last: a statement that is only
//! handed on wakes nobody else, and its bytes stay in one processor's cache. What takes long is done elsewhere (the engine has
//! threads of its own). ✗ what a session does.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Bytes of stack of every thread that analyzes, plans or optimizes statements: as deep as the bounds on nesting let one be, several
/// times over. Only what was once used of it is memory.
pub(crate) const STACK: usize = 16 << 20;

/// See the module. The threads end when this is dropped, and with them what still runs there.
pub struct Threads {
    threads: Vec<Thread>,
    sessions: TaskTracker,
}

struct Thread {
    runtime: Handle,
    sessions: Arc<AtomicUsize>,
    _stop: DropGuard,
}

/// Counts a session of a thread until it drops.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Threads {
    /// Starts as many as asked for.
    pub fn start(number: usize) -> io::Result<Threads> {
        let mut threads = Vec::new();
        for n in 0..number.max(1) {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            let stop = CancellationToken::new();
            let stopped = stop.clone();
            std::thread::Builder::new()
                .name(format!("session-{n}"))
                .stack_size(STACK)
                .spawn(move || runtime.block_on(stopped.cancelled()))?;
            threads.push(Thread { runtime: handle, sessions: Arc::default(), _stop: stop.drop_guard() });
        }
        Ok(Threads { threads, sessions: TaskTracker::new() })
    }

    /// Runs a session on the thread that has the fewest. It is made there, so that its sockets are that thread's.
    pub fn spawn<F>(&self, session: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // There is at least one.
        let Some(thread) = self.threads.iter().min_by_key(|t| t.sessions.load(Ordering::Relaxed)) else { return };
        thread.sessions.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(thread.sessions.clone());
        let session = async move {
            let _counted = counted;
            session().await;
        };
        self.sessions.spawn_on(session, &thread.runtime);
    }

    /// Sessions that have not ended.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Waits until all sessions have ended. No more may be spawned.
    pub async fn wait(&self) {
        self.sessions.close();
        self.sessions.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use tokio::sync::{mpsc, oneshot};

    #[tokio::test]
    async fn sessions_are_spread_and_stay() {
        let threads = Threads::start(3).unwrap();
        let (tell, mut told) = mpsc::channel(100);
        let mut ends = Vec::new();
        for _ in 0..9 {
            let (end, ended) = oneshot::channel::<()>();
            ends.push(end);
            let tell = tell.clone();
            threads.spawn(move || async move {
                let here = std::thread::current().id();
                tell.send(here).await.unwrap();
                let _ = ended.await;
                assert_eq!(std::thread::current().id(), here);
            });
        }
        let mut on: HashMap<_, usize> = HashMap::new();
        for _ in 0..9 {
            *on.entry(told.recv().await.unwrap()).or_default() += 1;
        }
        assert_eq!(on.into_values().collect::<Vec<_>>(), [3, 3, 3]);
        assert_eq!(threads.sessions(), 9);
        drop(ends);
        threads.wait().await;
        assert_eq!(threads.sessions(), 0);
    }

    #[tokio::test]
    async fn a_session_that_panics_ends_alone() {
        let threads = Threads::start(1).unwrap();
        let (tell, mut told) = mpsc::channel(1);
        threads.spawn(|| async { panic!("on purpose") });
        threads.spawn(move || async move { tell.send(()).await.unwrap() });
        assert_eq!(told.recv().await, Some(()));
        threads.wait().await;
    }
}
