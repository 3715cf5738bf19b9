//! What PostgreSQL still owes the client, as a queue of expected replies. Pure: fed with the tags that pass in
//! both directions, it knows when nothing is owed, when a failed pipeline is skipped until Sync, and which
//! transaction state the last ReadyForQuery named. ✗ I/O, clock, frame bodies.

use crate::query::record::Record;
use std::collections::VecDeque;

/// Transaction status of the last ReadyForQuery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxStatus {
    Idle,
    Open,
    Failed,
}

/// One reply owed for a frame that was forwarded.
#[derive(Debug)]
pub enum Expect {
    /// With the record that is kept only if it fails.
    Parse(Option<Box<Running>>),
    /// As for Parse.
    Bind(Option<Box<Running>>),
    Describe,
    Close,
    /// Of the gateway's own: its CloseComplete is not the client's.
    OwnClose,
    Execute(Option<Box<Running>>),
    Query(Option<Box<Running>>),
    Sync,
    FunctionCall,
    /// The client's CopyData, one or more, CopyDone and CopyFail: never answered, but they tell what a COPY before them has read.
    CopyData,
    CopyEnd,
    /// A Flush that is malformed: nothing but an error, unless a COPY reads it.
    BrokenFlush,
}

impl Expect {
    /// What is owed for a frame with this tag of which nothing else is known.
    pub fn plain(tag: u8) -> Option<Expect> {
        Some(match tag {
            b'Q' => Expect::Query(None),
            b'P' => Expect::Parse(None),
            b'B' => Expect::Bind(None),
            b'D' => Expect::Describe,
            b'E' => Expect::Execute(None),
            b'C' => Expect::Close,
            b'F' => Expect::FunctionCall,
            b'S' => Expect::Sync,
            b'd' => Expect::CopyData,
            b'c' | b'f' => Expect::CopyEnd,
            _ => return None,
        })
    }
}

/// A relayed statement under way: its record, and the lines to put before its first row.
#[derive(Debug)]
pub struct Running {
    pub record: Record,
    /// For EXPLAIN: route and reasons.
    pub lines: Vec<String>,
    /// What was added to the client's text: positions in errors are told without it.
    pub added: Option<Added>,
}

impl Running {
    /// A statement that PostgreSQL answers as it came.
    pub fn relayed(record: Record) -> Self {
        Running { record, lines: Vec::new(), added: None }
    }
}

/// Text that was added to a statement, in characters as positions count them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Added {
    /// Characters before it.
    pub at: usize,
    pub length: usize,
}

impl Added {
    /// The position (from 1) in the client's own text.
    pub fn own(self, position: usize) -> usize {
        if position <= self.at { position } else { position.saturating_sub(self.length).max(self.at) }
    }
}

/// See the module.
#[derive(Debug)]
pub struct State {
    owed: VecDeque<Expect>,
    /// An error was answered; PostgreSQL skips until Sync.
    skipping: bool,
    /// PostgreSQL has asked for CopyData and has not said yet how the COPY ended. Everything behind the front of `owed` is read by
    /// the COPY first: it swallows Sync, ends with CopyDone or CopyFail, and fails at anything else.
    copying: bool,
    /// What is owed cannot be told any more.
    lost: bool,
    status: TxStatus,
    /// Something besides the gateway's own work was sent since the last ReadyForQuery that may have an effect.
    touched: bool,
}

impl Default for State {
    fn default() -> Self {
        State { owed: VecDeque::new(), skipping: false, copying: false, lost: false, status: TxStatus::Idle, touched: false }
    }
}

impl State {
    /// A frame was forwarded to PostgreSQL and will be answered.
    pub fn sent(&mut self, expect: Expect) {
        self.touched |= !matches!(expect, Expect::Sync | Expect::Describe | Expect::Close | Expect::OwnClose);
        match expect {
            _ if self.lost => forget(Some(expect)),
            Expect::Sync => {
                self.skipping = false;
                self.owed.push_back(Expect::Sync);
            }
            _ if self.skipping => {}
            // Outside of a COPY it is ignored.
            Expect::CopyData | Expect::CopyEnd if self.owed.is_empty() => {}
            Expect::CopyData if matches!(self.owed.back(), Some(Expect::CopyData)) => {}
            other => self.owed.push_back(other),
        }
    }

    /// Nothing is owed, or nothing will be before the next Sync.
    pub fn settled(&self) -> bool {
        self.owed.is_empty()
    }

    /// PostgreSQL ignores everything until Sync.
    pub fn skipping(&self) -> bool {
        self.skipping
    }

    /// The client owes CopyData: PostgreSQL says nothing before it has got the end of it, or something wrong.
    pub fn copy_in(&self) -> bool {
        self.copying && !self.owed.iter().skip(1).any(|e| !matches!(e, Expect::Sync | Expect::CopyData | Expect::BrokenFlush))
    }

    /// The transaction, if ReadyForQuery ends it, is more than what the gateway itself did in it.
    pub fn touched(&self) -> bool {
        self.touched
    }

    /// Nothing that is said here counts any more, but for the status: the rest of the session is PostgreSQL's, unread.
    pub fn lost(&self) -> bool {
        self.lost
    }

    /// As of the last ReadyForQuery.
    pub fn status(&self) -> TxStatus {
        self.status
    }

    /// The statement whose rows are arriving.
    pub fn running(&mut self) -> Option<&mut Running> {
        match self.owed.front_mut() {
            Some(Expect::Execute(r) | Expect::Query(r)) => r.as_deref_mut(),
            _ => None,
        }
    }

    /// The next reply with this tag is the gateway's own: not to be forwarded.
    pub fn take_own(&mut self, tag: u8) -> bool {
        let own = tag == b'3' && matches!(self.owed.front(), Some(Expect::OwnClose));
        if own {
            self.owed.pop_front();
        }
        own
    }

    /// A frame with this tag came from PostgreSQL. Returns the statement it ended, if any.
    pub fn received(&mut self, tag: u8) -> Option<Box<Running>> {
        let mut over = None;
        match tag {
            b'1' => self.pop(|e| matches!(e, Expect::Parse(_))),
            b'2' => self.pop(|e| matches!(e, Expect::Bind(_))),
            b'3' => self.pop(|e| matches!(e, Expect::Close)),
            b'n' | b'T' => self.pop(|e| matches!(e, Expect::Describe)),
            b'C' | b'I' | b's' => {
                self.copied();
                if matches!(self.owed.front(), Some(Expect::Execute(_))) {
                    over = ended(self.owed.pop_front());
                }
            }
            b'G' | b'W' => self.copying = !self.lost,
            _ => {}
        }
        self.trim();
        over
    }

    /// An ErrorResponse came; `unexpected` if it complains of a message that has no place in a COPY. Returns the statement it
    /// ended, if any.
    pub fn failed(&mut self, unexpected: bool) -> Option<Box<Running>> {
        self.copy_failed(unexpected);
        if self.lost {
            return ended(self.owed.pop_front());
        }
        match self.owed.front() {
            // Of a simple Query, ReadyForQuery follows by itself.
            Some(Expect::Query(_)) => match self.owed.front_mut() {
                Some(Expect::Query(r)) => r.take(),
                _ => None,
            },
            Some(Expect::FunctionCall) => None,
            _ => {
                if matches!(self.owed.front(), Some(Expect::Sync)) {
                    return None;
                }
                let failed = ended(self.owed.pop_front());
                // What stood behind it is skipped: it never ran.
                while let Some(e) = self.owed.front() {
                    if matches!(e, Expect::Sync) {
                        return failed;
                    }
                    forget(self.owed.pop_front());
                }
                self.skipping = true;
                failed
            }
        }
    }

    /// The COPY at the front succeeded: what stands up to its end was read by it.
    fn copied(&mut self) {
        if !std::mem::take(&mut self.copying) {
            return;
        }
        while let Some(Expect::Sync | Expect::CopyData | Expect::CopyEnd | Expect::BrokenFlush) = self.owed.get(1) {
            if matches!(self.owed.remove(1), Some(Expect::CopyEnd)) {
                return;
            }
        }
    }

    /// The COPY at the front failed: what it has read is owed no more. A Sync ahead of all data was read by it (drivers that pipeline
    /// send one there). Whether one behind wrong data was read nobody can tell, since PostgreSQL may see only later what is wrong
    /// with it, and so whether it will be answered: then all is lost.
    fn copy_failed(&mut self, unexpected: bool) {
        if !std::mem::take(&mut self.copying) {
            return;
        }
        let mut data = false;
        while let Some(e) = self.owed.get(1) {
            match e {
                Expect::Sync | Expect::BrokenFlush if data && !unexpected => return self.lose(),
                Expect::Sync | Expect::BrokenFlush => drop(self.owed.remove(1)),
                Expect::CopyData => {
                    data = true;
                    self.owed.remove(1);
                }
                Expect::CopyEnd if unexpected => drop(self.owed.remove(1)),
                Expect::CopyEnd => {
                    self.owed.remove(1);
                    return;
                }
                _ => {
                    if unexpected {
                        forget(self.owed.remove(1));
                    }
                    return;
                }
            }
        }
    }

    fn lose(&mut self) {
        self.lost = true;
        self.skipping = false;
        // The statement that failed is still the caller's.
        for skipped in self.owed.drain(1..) {
            forget(Some(skipped));
        }
    }

    /// The end of COPY data that nobody reads.
    fn trim(&mut self) {
        while matches!(self.owed.front(), Some(Expect::CopyData | Expect::CopyEnd)) {
            self.owed.pop_front();
        }
    }

    /// ReadyForQuery came with this status byte. Returns the statement it ended, if any.
    pub fn ready(&mut self, status: u8) -> Option<Box<Running>> {
        self.status = match status {
            b'T' => TxStatus::Open,
            b'E' => TxStatus::Failed,
            _ => TxStatus::Idle,
        };
        self.copying = false;
        self.skipping = false;
        self.touched = false;
        let mut last = None;
        while let Some(e) = self.owed.pop_front() {
            let done = matches!(e, Expect::Sync | Expect::Query(_) | Expect::FunctionCall);
            last = ended(Some(e)).or(last);
            if done {
                break;
            }
        }
        self.trim();
        last
    }

    fn pop(&mut self, is: impl Fn(&Expect) -> bool) {
        if self.owed.front().is_some_and(is) {
            forget(self.owed.pop_front());
        }
    }
}

fn ended(e: Option<Expect>) -> Option<Box<Running>> {
    match e {
        Some(Expect::Parse(r) | Expect::Bind(r) | Expect::Execute(r) | Expect::Query(r)) => r,
        _ => None,
    }
}

/// Drops an expectation without a trace in the query log.
fn forget(e: Option<Expect>) {
    if let Some(running) = ended(e) {
        running.record.discard();
    }
}
