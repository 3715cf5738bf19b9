//! Back-pressure from the disk: nothing more is taken in when PostgreSQL's disk is nearly full, and again when there is
//! room. A disk that fills up wholly takes PostgreSQL down (its write-ahead log cannot go on), and the lake's disk with
//! it: so the door closes while both still work. Knows no sources; they ask [`Pressure`].
//!
//! - What is measured: the free space of directories of this machine ([`Space`]), the size of a database that is not
//!   ([`DatabaseSize`]), and what writers were told by PostgreSQL itself (SQLSTATE 53100, [`Pressure::note`]).
//! - Two marks: closed below one, open above a higher one, so that it does not swing at the edge.
//! - What cannot be measured keeps the state it had, and is logged.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::error::sqlstate;

mod lookout;
mod monitor;
mod probe;

pub use lookout::Lookout;
pub use monitor::{Config, Monitor};
pub use probe::{DatabaseSize, Probe, Reading, Space};

/// Whether rows are taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// There is room.
    Open,
    /// There is not; the reason names what is full and how far.
    Closed { reason: String },
}

impl State {
    /// True if rows are taken in.
    pub fn is_open(&self) -> bool {
        matches!(self, State::Open)
    }
}

/// What every source asks before it takes rows. Cheap to clone; each clone sees each change.
#[derive(Debug, Clone)]
pub struct Pressure {
    shared: Arc<Shared>,
    seen: watch::Receiver<State>,
}

#[derive(Debug)]
struct Shared {
    /// Kept here too, so that a receiver never sees it closed.
    state: watch::Sender<State>,
    /// What PostgreSQL said when it was out of space, until the monitor has taken it.
    refused: Mutex<Option<String>>,
    wake: Notify,
}

impl Pressure {
    fn new() -> Pressure {
        let (state, seen) = watch::channel(State::Open);
        let shared = Shared { state, refused: Mutex::new(None), wake: Notify::new() };
        Pressure { shared: Arc::new(shared), seen }
    }

    /// For what is not measured: open for ever.
    pub fn always_open() -> Pressure {
        Pressure::new()
    }

    /// The state now.
    pub fn state(&self) -> State {
        self.seen.borrow().clone()
    }

    /// True if rows are taken in now.
    pub fn is_open(&self) -> bool {
        self.seen.borrow().is_open()
    }

    /// Waits for a change since the state that this clone last waited for. Cancel safe.
    pub async fn changed(&mut self) {
        if self.seen.changed().await.is_err() {
            // Cannot be: the sender lives as long as this value.
            std::future::pending::<()>().await;
        }
    }

    /// Waits until rows are taken in; at once if they are. Cancel safe.
    pub async fn opened(&mut self) {
        if self.seen.wait_for(State::is_open).await.is_err() {
            std::future::pending::<()>().await; // as above
        }
    }

    /// Tells what a writer got from PostgreSQL: if it was out of space (53100), the door closes at once.
    pub fn note(&self, error: &crate::Error) {
        if let crate::Error::Postgres(e) = error {
            self.note_postgres(e);
        }
    }

    /// As [`Pressure::note`], for the database's own error.
    pub fn note_postgres(&self, error: &sqlx::Error) {
        if sqlstate(error).as_deref() == Some("53100") {
            *self.shared.refused.lock() = Some(format!("PostgreSQL ran out of space: {error}"));
            self.shared.wake.notify_one();
        }
    }
}

/// What to watch.
#[derive(Debug, Clone, Default)]
pub struct Watched {
    /// Directories of this machine whose file systems must keep room.
    pub directories: Vec<PathBuf>,
    /// URL of a database and the size that it must not exceed.
    pub database: Option<(String, u64)>,
}

impl Watched {
    /// The probes of what is to be watched.
    ///
    /// # Errors
    /// The database URL is none.
    pub fn probes(&self) -> crate::Result<Vec<Box<dyn Probe>>> {
        let mut probes: Vec<Box<dyn Probe>> = Vec::new();
        for directory in &self.directories {
            probes.push(Box::new(Space::of(directory.clone())));
        }
        if let Some((url, max)) = &self.database {
            probes.push(Box::new(DatabaseSize::of(url, *max)?));
        }
        Ok(probes)
    }
}

#[cfg(test)]
mod tests;
