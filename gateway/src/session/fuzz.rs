//! [`super::state`] against a model of PostgreSQL: random messages of a client, in any order and with any outcome, are read by the
//! model at one pace and its replies arrive at another. Whenever the model has said everything, the session must know that nothing is
//! owed; whenever the session believes that, the model must have nothing left to say.
//!
//! The model is PostgreSQL's own loop (src/backend/tcop/postgres.c, commands/copyfromparse.c) reduced to tags.

use super::state::{Expect, State, TxStatus};
use proptest::prelude::*;
use std::collections::VecDeque;

/// How one statement goes.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    Rows(u8),
    /// Only of Execute: max_rows was reached.
    Suspended(u8),
    Empty,
    CopyIn,
    CopyOut(u8),
    /// After so many rows.
    Failed(u8),
}

#[derive(Clone, Debug)]
enum Message {
    Query(Vec<Outcome>, u8),
    Parse(bool),
    Bind(bool),
    /// Whether it succeeds, of a statement (else of a portal), and whether that returns rows.
    Describe(bool, bool, bool),
    Close,
    Execute(Outcome),
    Sync(u8),
    /// Whether it is one, or malformed.
    Flush(bool),
    FunctionCall(bool, u8),
    /// Whether the COPY that reads it takes it.
    CopyData(bool),
    CopyDone,
    CopyFail,
}

impl Message {
    fn tag(&self) -> u8 {
        match self {
            Message::Query(..) => b'Q',
            Message::Parse(_) => b'P',
            Message::Bind(_) => b'B',
            Message::Describe(..) => b'D',
            Message::Close => b'C',
            Message::Execute(_) => b'E',
            Message::Sync(_) => b'S',
            Message::Flush(_) => b'H',
            Message::FunctionCall(..) => b'F',
            Message::CopyData(_) => b'd',
            Message::CopyDone => b'c',
            Message::CopyFail => b'f',
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Reply {
    Tag(u8),
    /// Whether it complains of a message that has no place in a COPY.
    Error(bool),
    Ready(u8),
}

/// A COPY that reads.
#[derive(Clone, Debug)]
struct Copying {
    /// What stands behind it in its Query, and the status at its end; None: of Execute.
    query: Option<(Vec<Outcome>, u8)>,
}

#[derive(Clone, Debug, Default)]
struct Server {
    inbox: VecDeque<Message>,
    outbox: VecDeque<Reply>,
    skipping: bool,
    copying: Option<Copying>,
    status: u8,
    /// It has closed the connection.
    gone: bool,
}

impl Server {
    fn say(&mut self, tags: &[u8]) {
        self.outbox.extend(tags.iter().map(|tag| Reply::Tag(*tag)));
    }

    fn ready(&mut self, status: u8) {
        self.status = status;
        self.outbox.push_back(Reply::Ready(status));
    }

    /// An error in a message of the extended protocol.
    fn fail(&mut self) {
        self.outbox.push_back(Reply::Error(false));
        self.skipping = true;
    }

    /// Reads one message.
    fn read(&mut self) {
        let Some(message) = self.inbox.pop_front() else { return };
        if self.gone {
            return;
        }
        if let Some(copying) = self.copying.take() {
            return self.read_copy(copying, message);
        }
        if let Message::Sync(status) = message {
            self.skipping = false;
            return self.ready(status);
        }
        if self.skipping {
            return;
        }
        match message {
            Message::Query(statements, status) => self.run(statements, status),
            Message::Parse(true) => self.say(b"1"),
            Message::Bind(true) => self.say(b"2"),
            Message::Close => self.say(b"3"),
            Message::Describe(true, statement, rows) => {
                if statement {
                    self.say(b"t");
                }
                self.say(if rows { b"T" } else { b"n" });
            }
            Message::Parse(false) | Message::Bind(false) | Message::Describe(false, ..) | Message::Flush(false) => self.fail(),
            Message::Execute(outcome) => match outcome {
                Outcome::CopyIn => {
                    self.say(b"G");
                    self.copying = Some(Copying { query: None });
                }
                Outcome::Failed(rows) => {
                    self.say(&vec![b'D'; rows.into()]);
                    self.fail();
                }
                other => self.answer(other),
            },
            Message::FunctionCall(succeeds, status) => {
                self.outbox.push_back(if succeeds { Reply::Tag(b'V') } else { Reply::Error(false) });
                self.ready(status);
            }
            // Ignored: they may still be under way to a COPY that failed.
            Message::CopyData(_) | Message::CopyDone | Message::CopyFail | Message::Flush(true) | Message::Sync(_) => {}
        }
    }

    /// What a statement answers that neither fails nor reads.
    fn answer(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Rows(n) => {
                self.say(&vec![b'D'; n.into()]);
                self.say(b"C");
            }
            Outcome::Suspended(n) => {
                self.say(&vec![b'D'; n.into()]);
                self.say(b"s");
            }
            Outcome::CopyOut(n) => {
                self.say(b"H");
                self.say(&vec![b'd'; n.into()]);
                self.say(b"cC");
            }
            Outcome::Empty => self.say(b"I"),
            Outcome::CopyIn | Outcome::Failed(_) => unreachable!("told apart by the caller"),
        }
    }

    fn run(&mut self, mut statements: Vec<Outcome>, status: u8) {
        while !statements.is_empty() {
            match statements.remove(0) {
                Outcome::CopyIn => {
                    self.say(b"G");
                    self.copying = Some(Copying { query: Some((statements, status)) });
                    return;
                }
                Outcome::Failed(rows) => {
                    self.say(b"T");
                    self.say(&vec![b'D'; rows.into()]);
                    self.outbox.push_back(Reply::Error(false));
                    return self.ready(status);
                }
                Outcome::Rows(n) | Outcome::Suspended(n) => {
                    self.say(b"T");
                    self.answer(Outcome::Rows(n));
                }
                other => self.answer(other),
            }
        }
        self.ready(status);
    }

    fn read_copy(&mut self, copying: Copying, message: Message) {
        match message {
            Message::CopyData(true) | Message::Flush(_) | Message::Sync(_) => self.copying = Some(copying),
            Message::CopyDone => {
                self.say(b"C");
                if let Some((statements, status)) = copying.query {
                    self.run(statements, status);
                }
            }
            Message::CopyFail | Message::CopyData(false) => {
                self.outbox.push_back(Reply::Error(false));
                match copying.query {
                    Some((_, status)) => self.ready(status),
                    None => self.skipping = true,
                }
            }
            // The rest of the message is unread, so nothing behind it can be: the connection ends.
            _ => {
                self.outbox.extend([Reply::Error(true), Reply::Error(false)]);
                self.gone = true;
            }
        }
    }

    fn read_all(&mut self) {
        while !self.inbox.is_empty() {
            self.read();
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    Send(Message),
    /// The server reads so many messages.
    Work(u8),
    /// So many replies arrive.
    Arrive(u8),
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        4 => (0..3u8).prop_map(Outcome::Rows),
        1 => (1..3u8).prop_map(Outcome::Suspended),
        1 => Just(Outcome::Empty),
        3 => Just(Outcome::CopyIn),
        1 => (0..3u8).prop_map(Outcome::CopyOut),
        2 => (0..2u8).prop_map(Outcome::Failed),
    ]
}

fn status() -> impl Strategy<Value = u8> {
    prop_oneof![Just(b'I'), Just(b'T'), Just(b'E')]
}

fn likely() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.8)
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        2 => (prop::collection::vec(outcome(), 0..4), status()).prop_map(|(s, status)| Message::Query(s, status)),
        3 => likely().prop_map(Message::Parse),
        3 => likely().prop_map(Message::Bind),
        2 => (likely(), any::<bool>(), any::<bool>()).prop_map(|(ok, s, rows)| Message::Describe(ok, s, rows)),
        1 => Just(Message::Close),
        4 => outcome().prop_map(Message::Execute),
        3 => status().prop_map(Message::Sync),
        1 => likely().prop_map(Message::Flush),
        1 => (likely(), status()).prop_map(|(ok, status)| Message::FunctionCall(ok, status)),
        3 => likely().prop_map(Message::CopyData),
        2 => Just(Message::CopyDone),
        1 => Just(Message::CopyFail),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => message().prop_map(Event::Send),
        2 => (1..6u8).prop_map(Event::Work),
        2 => (1..8u8).prop_map(Event::Arrive),
    ]
}

/// Both sides, and what they must agree on.
struct Both {
    server: Server,
    state: State,
    /// A Sync, or a Flush that is malformed, was sent behind CopyData, with neither CopyDone nor CopyFail between.
    data_then_sync: bool,
    data: bool,
}

impl Both {
    fn new() -> Both {
        Both { server: Server { status: b'I', ..Server::default() }, state: State::default(), data_then_sync: false, data: false }
    }

    fn take(&mut self, event: &Event) {
        match event {
            Event::Send(message) => {
                // As a session does.
                if let Some(expect) = Expect::plain(message.tag()) {
                    self.state.sent(expect);
                } else if let Message::Flush(false) = message {
                    self.state.sent(Expect::BrokenFlush);
                }
                match message {
                    Message::CopyData(_) => self.data = true,
                    Message::CopyDone | Message::CopyFail => self.data = false,
                    Message::Sync(_) | Message::Flush(false) => self.data_then_sync |= self.data,
                    _ => {}
                }
                self.server.inbox.push_back(message.clone());
            }
            Event::Work(n) => (0..*n).for_each(|_| self.server.read()),
            Event::Arrive(n) => (0..*n).for_each(|_| self.arrive()),
        }
    }

    fn arrive(&mut self) {
        match self.server.outbox.pop_front() {
            Some(Reply::Tag(tag)) => drop(self.state.received(tag)),
            Some(Reply::Error(unexpected)) => drop(self.state.failed(unexpected)),
            Some(Reply::Ready(status)) => drop(self.state.ready(status)),
            None => {}
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        // What the server will have said of all that it was sent.
        let mut later = self.server.clone();
        later.read_all();
        if later.gone {
            return Ok(());
        }
        if self.state.lost() {
            prop_assert!(self.data_then_sync, "lost without need");
            return Ok(());
        }
        if self.state.settled() {
            prop_assert!(later.outbox.is_empty(), "settled, and yet to come: {:?}", later.outbox);
            prop_assert!(later.copying.is_none(), "settled, and a COPY reads");
            prop_assert_eq!(self.state.skipping(), later.skipping, "whether it skips");
        }
        // Who believes that it skips does not count what it sends.
        prop_assert!(!self.state.skipping() || later.skipping, "not skipping");
        if self.server.inbox.is_empty() && self.server.outbox.is_empty() {
            let status = match self.server.status {
                b'T' => TxStatus::Open,
                b'E' => TxStatus::Failed,
                _ => TxStatus::Idle,
            };
            prop_assert_eq!(self.state.status(), status);
            prop_assert_eq!(self.state.copy_in(), self.server.copying.is_some(), "whether a COPY reads");
            prop_assert_eq!(self.state.settled(), self.server.copying.is_none(), "whether something is owed");
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn what_is_owed_is_known(events in prop::collection::vec(event(), 1..60)) {
        let mut both = Both::new();
        for event in &events {
            both.take(event);
            both.check()?;
        }
        // In the end everything arrives.
        both.server.read_all();
        while !both.server.outbox.is_empty() {
            both.arrive();
            both.check()?;
        }
    }
}
