//! What PostgreSQL still owes the client, as a queue of expected replies. Pure: fed with the tags that pass in
//! both directions, it knows when nothing is owed, when a failed pipeline is skipped until Sync, and which
//! transaction state the last ReadyForQuery named. ✗ I/O, clock, frame bodies.

use crate::query::record::Record;
use bytes::Bytes;
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
}

/// A relayed statement under way: its record, and the lines to put before its first row.
#[derive(Debug)]
pub struct Running {
    pub record: Record,
    /// For EXPLAIN: route and reasons.
    pub lines: Vec<String>,
    /// A RowDescription that goes to the client when PostgreSQL begins to answer, not before: who has it may
    /// rely on the statement running.
    pub prefix: Option<Bytes>,
    /// What was added to the client's text: positions in errors are told without it.
    pub added: Option<Added>,
}

impl Running {
    /// A statement that PostgreSQL answers as it came.
    pub fn relayed(record: Record) -> Self {
        Running { record, lines: Vec::new(), prefix: None, added: None }
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
    /// PostgreSQL reads CopyData from the client.
    copy_in: bool,
    status: TxStatus,
}

impl Default for State {
    fn default() -> Self {
        State { owed: VecDeque::new(), skipping: false, copy_in: false, status: TxStatus::Idle }
    }
}

impl State {
    /// A frame was forwarded to PostgreSQL and will be answered.
    pub fn sent(&mut self, expect: Expect) {
        if self.copy_in {
            // Sync and Flush are swallowed by a server that reads COPY data.
            return;
        }
        match expect {
            Expect::Sync => {
                self.skipping = false;
                self.owed.push_back(Expect::Sync);
            }
            _ if self.skipping => {}
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

    /// The client owes CopyData.
    pub fn copy_in(&self) -> bool {
        self.copy_in
    }

    /// The client ended its COPY data.
    pub fn copy_ended(&mut self) {
        self.copy_in = false;
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
        match tag {
            b'1' => self.pop(|e| matches!(e, Expect::Parse(_))),
            b'2' => self.pop(|e| matches!(e, Expect::Bind(_))),
            b'3' => self.pop(|e| matches!(e, Expect::Close)),
            b'n' | b'T' => self.pop(|e| matches!(e, Expect::Describe)),
            b'C' | b'I' | b's' => {
                self.copy_in = false;
                if matches!(self.owed.front(), Some(Expect::Execute(_))) {
                    return ended(self.owed.pop_front());
                }
            }
            b'G' | b'W' => {
                self.copy_in = true;
                // What was pipelined behind it (a Sync, as a rule) is swallowed by the copy.
                self.owed.truncate(1);
            }
            _ => {}
        }
        None
    }

    /// An ErrorResponse came. Returns the statement it ended, if any.
    pub fn failed(&mut self) -> Option<Box<Running>> {
        self.copy_in = false;
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

    /// ReadyForQuery came with this status byte. Returns the statement it ended, if any.
    pub fn ready(&mut self, status: u8) -> Option<Box<Running>> {
        self.status = match status {
            b'T' => TxStatus::Open,
            b'E' => TxStatus::Failed,
            _ => TxStatus::Idle,
        };
        self.copy_in = false;
        self.skipping = false;
        let mut last = None;
        while let Some(e) = self.owed.pop_front() {
            let done = matches!(e, Expect::Sync | Expect::Query(_) | Expect::FunctionCall);
            last = ended(Some(e)).or(last);
            if done {
                break;
            }
        }
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
