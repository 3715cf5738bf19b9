//! What the producers know of their own rows: what was acknowledged, what was given up, what nobody can know. It believes
//! nobody but those who got an acknowledgement; it never looks into the stores.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where a row must end up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Home {
    Logs,
    Events,
    /// A record that is no row: in `watershed.dead_letters`, once.
    Letters,
}

/// What is known of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Acknowledged: it is there, once.
    In,
    /// Refused, aborted or rolled back: it is not there.
    Out,
    /// The answer was lost: all rows of the batch are there once, or none.
    Whole(u64),
}

/// A place in a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub home: Home,
    pub fate: Fate,
    /// True if it went through Kafka, so that it has a place.
    pub kafka: bool,
    /// Where the broker said that it put it.
    pub place: Option<Place>,
}

/// The record of one round, by the rows' own names.
#[derive(Default)]
pub struct Ledger {
    pub round: u64,
    entries: Mutex<BTreeMap<String, Entry>>,
    next: AtomicU64,
}

impl Ledger {
    pub fn new(round: u64) -> Ledger {
        Ledger { round, ..Ledger::default() }
    }

    /// What the rows of this round carry beside their names.
    pub fn tag(&self) -> String {
        format!("r{}", self.round)
    }

    /// A row's name, the same nowhere else: source, round, number.
    pub fn name(&self, source: &str, number: u64) -> String {
        format!("{source}-{}-{number:06}", self.round)
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rows that are about to be sent together; nothing is known of them until [`Ledger::settle`].
    pub fn open(&self, names: &[String], home: Home, kafka: bool) {
        let batch = self.next.fetch_add(1, Ordering::SeqCst);
        let mut entries = self.locked();
        for name in names {
            let entry = Entry { home, fate: Fate::Whole(batch), kafka, place: None };
            assert!(entries.insert(name.clone(), entry).is_none(), "{name} was given twice");
        }
    }

    pub fn settle(&self, names: &[String], fate: &Fate) {
        let mut entries = self.locked();
        for name in names {
            entries.get_mut(name).expect("a row that was opened").fate = fate.clone();
        }
    }

    /// Makes one batch of rows that were opened apart: all of them are there, or none.
    pub fn join(&self, names: &[String]) {
        self.settle(names, &Fate::Whole(self.next.fetch_add(1, Ordering::SeqCst)));
    }

    /// The broker acknowledged a record; that alone does not make it visible if it is part of a transaction.
    pub fn place(&self, name: &str, place: Option<Place>) {
        self.locked().get_mut(name).expect("a row that was opened").place = place;
    }

    /// Rows of a source that are certainly there, and those that may be.
    pub fn counts(&self, source: &str) -> (u64, u64) {
        let prefix = format!("{source}-");
        let entries = self.locked();
        let mut counts = (0, 0);
        for (_, entry) in entries.range(prefix.clone()..).take_while(|(name, _)| name.starts_with(&prefix)) {
            match entry.fate {
                Fate::In => counts.0 += 1,
                Fate::Whole(_) => counts.1 += 1,
                Fate::Out => {}
            }
        }
        counts
    }

    pub fn entries(&self) -> BTreeMap<String, Entry> {
        self.locked().clone()
    }
}
