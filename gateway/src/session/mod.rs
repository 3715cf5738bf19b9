//! One client session: login, then the loop that moves frames between client and PostgreSQL and, per
//! statement, classifies, probes, routes and answers.
//! ✗ what analysis, planning and execution do inside.
//!
//! The loop is one task over both sockets. A frame that concerns no candidate statement is forwarded unread.
//! A candidate waits until PostgreSQL owes nothing, then the probe has the connection to itself.

pub mod link;
pub mod login;
pub mod probe;
pub mod state;

mod bracket;
mod cold;
mod copy;
mod extended;
mod lake;
mod relay;
mod simple;

use crate::cancel::Guard;
use crate::catalog::Snapshot;
use crate::classify::Classified;
use crate::query::record::{Record, Who};
use crate::server::Shared;
use crate::wire::frame::{self, FrameError};
use crate::wire::message::{self, ErrorReport, Malformed};
use bytes::{BufMut, Bytes, BytesMut};
use lake::LakePortal;
use link::{BUFFER_LIMIT, Link, Turn};
use login::LoggedIn;
use state::{Expect, State, TxStatus};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

/// Frames up to this size are read whole and looked at; longer ones are only forwarded.
const MAX_INSPECTED: usize = 1024 * 1024;
/// Prepared statements and portals whose route is remembered, a session; beyond it they are PostgreSQL's.
const MAX_REMEMBERED: usize = 4_096;

/// Why a session ends.
#[derive(Debug, Error)]
pub enum SessionEnd {
    /// The client went, or said so.
    #[error("the client closed the connection")]
    Client,
    #[error("PostgreSQL closed the connection")]
    Upstream,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("protocol violation: {0}")]
    Protocol(String),
    #[error("shutting down")]
    Shutdown,
}

impl From<FrameError> for SessionEnd {
    fn from(e: FrameError) -> Self {
        SessionEnd::Protocol(e.to_string())
    }
}

impl From<Malformed> for SessionEnd {
    fn from(e: Malformed) -> Self {
        SessionEnd::Protocol(e.to_string())
    }
}

/// A prepared statement of the client.
#[derive(Clone)]
struct Prepared {
    statement: Arc<Classified>,
    /// What the probe at Parse learned; `None` for a statement that was not probed or is PostgreSQL's.
    probed: Option<Arc<bracket::Probed>>,
    /// Why PostgreSQL answers, where it does.
    reasons: String,
    /// EXPLAIN: lines before PostgreSQL's own.
    lines: Vec<String>,
    classify_us: i64,
    probe_us: i64,
    /// What PostgreSQL's text has more than the client's.
    added: Option<state::Added>,
}

/// A portal of the client.
enum Portal {
    Relayed { prepared: Prepared },
    Lake(Box<LakePortal>),
}

/// See the module.
pub struct Session {
    link: Link,
    state: State,
    shared: Arc<Shared>,
    who: Arc<Who>,
    cancel: Guard,
    /// The statements of this database concern tiered tables at all.
    inspected: bool,
    statements: HashMap<Bytes, Prepared>,
    portals: HashMap<Bytes, Portal>,
    /// Bytes of a long frame that are still to be forwarded unread.
    client_remaining: usize,
    upstream_remaining: usize,
    /// Trees may still be printed by a transaction that failed inside a bracket.
    swallow_trees: bool,
    /// The session has named `watershed.route`: keyed statements are probed too.
    route_named: bool,
    /// The session's own log_min_messages, once asked.
    log_level: Option<String>,
    /// client_min_messages is known to be above LOG.
    level_known: bool,
    /// A statement of this session may have changed the catalog: look before the next one is classified.
    catalog_changed: bool,
    /// The gateway has PostgreSQL at work for a probe or a tail.
    probing: bool,
    /// The client sent Terminate.
    said_goodbye: bool,
    /// Messages of user code inside a bracket, until it is known whether the client gets them from there.
    notices: BytesMut,
}

impl Session {
    /// Takes over a connection that PostgreSQL has accepted.
    pub fn new(shared: Arc<Shared>, logged_in: LoggedIn) -> Self {
        let LoggedIn { link, startup, key } = logged_in;
        let who = Arc::new(Who {
            pid: key.0,
            usename: startup.user().to_string(),
            datname: startup.database().to_string(),
        });
        let inspected = !startup.is_replication() && startup.database() == shared.catalog.database();
        Session {
            link,
            state: State::default(),
            cancel: shared.cancels.register(key),
            shared,
            who,
            inspected,
            statements: HashMap::new(),
            portals: HashMap::new(),
            client_remaining: 0,
            upstream_remaining: 0,
            swallow_trees: false,
            // Options at startup, of the role or of the database may have set it.
            route_named: startup.params.iter().any(|(n, v)| n == "watershed.route" || v.contains("watershed.route")),
            log_level: None,
            level_known: false,
            catalog_changed: false,
            probing: false,
            said_goodbye: false,
            notices: BytesMut::new(),
        }
    }

    /// Runs until either side closes or `shutdown` asks an idle session to go.
    pub async fn run(mut self, shutdown: CancellationToken) -> SessionEnd {
        let end = match self.serve(&shutdown).await {
            Ok(()) => SessionEnd::Client,
            Err(e) => e,
        };
        match &end {
            SessionEnd::Client => {
                if self.abandoned() {
                    self.cancel_upstream().await;
                }
                if !self.link.upstream.closed {
                    message::put_terminate(&mut self.link.upstream.output);
                    self.link.upstream.finish().await;
                }
            }
            SessionEnd::Upstream => self.link.client.finish().await,
            SessionEnd::Shutdown => {
                let e = ErrorReport::fatal("57P01", "terminating connection due to administrator command");
                message::put_error(&mut self.link.client.output, &e);
                self.link.client.finish().await;
                message::put_terminate(&mut self.link.upstream.output);
                self.link.upstream.finish().await;
            }
            SessionEnd::Protocol(m) => {
                message::put_error(&mut self.link.client.output, &ErrorReport::fatal("08P01", m.clone()));
                self.link.client.finish().await;
            }
            SessionEnd::Io(_) => {
                if self.abandoned() {
                    self.cancel_upstream().await;
                }
            }
        }
        end
    }

    /// The client is gone without a goodbye while PostgreSQL works for it at something that only reads.
    fn abandoned(&mut self) -> bool {
        !self.said_goodbye
            && (self.probing || self.state.running().is_some_and(|r| r.record.entry.statement.reads))
    }

    /// Asks PostgreSQL to stop what it does for this session.
    async fn cancel_upstream(&mut self) {
        let (pid, key) = &self.cancel.key;
        let mut packet = BytesMut::with_capacity(12 + key.len());
        packet.put_i32(12 + key.len() as i32);
        packet.put_i32(80_877_102);
        packet.put_i32(*pid);
        packet.put_slice(key);
        match self.shared.upstream.connect().await {
            Ok(mut side) => {
                side.output.extend_from_slice(&packet);
                if side.flush().await.is_ok() {
                    while matches!(side.fill().await, Ok(n) if n > 0) {}
                }
            }
            Err(e) => tracing::warn!(error = %e, "work for a client that is gone could not be stopped"),
        }
    }

    async fn serve(&mut self, shutdown: &CancellationToken) -> Result<(), SessionEnd> {
        if !self.inspected {
            return self.copy_both_ways(shutdown).await;
        }
        loop {
            self.relay_upstream()?;
            if self.serve_client().await? {
                return Ok(());
            }
            self.relay_upstream()?;
            let idle = self.state.settled() && self.state.status() == TxStatus::Idle && self.link.client.input.is_empty();
            let whole = self.wants_whole_frame();
            let turn = tokio::select! {
                t = self.link.turn_for(whole) => t?,
                () = shutdown.cancelled(), if idle => return Err(SessionEnd::Shutdown),
            };
            match turn {
                Turn::ClientClosed => return Err(SessionEnd::Client),
                Turn::UpstreamClosed => {
                    self.relay_upstream()?;
                    return Err(SessionEnd::Upstream);
                }
                _ => {}
            }
        }
    }

    /// A frame is being read whole that is longer than the usual buffer.
    fn wants_whole_frame(&self) -> bool {
        self.client_remaining == 0 && self.link.client.input.len() >= BUFFER_LIMIT
    }

    /// Sessions of other databases and walsenders: bytes, not frames.
    async fn copy_both_ways(&mut self, shutdown: &CancellationToken) -> Result<(), SessionEnd> {
        loop {
            let Link { client, upstream } = &mut self.link;
            let (from_client, from_upstream) = (client.input.split(), upstream.input.split());
            upstream.output.extend_from_slice(&from_client);
            client.output.extend_from_slice(&from_upstream);
            tokio::select! {
                t = self.link.turn() => match t? {
                    Turn::ClientClosed => return Err(SessionEnd::Client),
                    Turn::UpstreamClosed => return Err(SessionEnd::Upstream),
                    _ => {}
                },
                () = shutdown.cancelled() => return Err(SessionEnd::Shutdown),
            }
        }
    }

    /// Serves the client's buffered frames. True when the client said goodbye.
    async fn serve_client(&mut self) -> Result<bool, SessionEnd> {
        loop {
            if self.link.upstream.output.len() >= BUFFER_LIMIT {
                return Ok(false);
            }
            if self.client_remaining > 0 {
                let n = self.client_remaining.min(self.link.client.input.len());
                let part = self.link.client.input.split_to(n);
                self.link.upstream.output.extend_from_slice(&part);
                self.client_remaining -= n;
                if self.client_remaining > 0 {
                    return Ok(false);
                }
            }
            let Some(h) = frame::peek(&self.link.client.input)? else { return Ok(false) };
            let inspected = matches!(h.tag, b'Q' | b'P' | b'B' | b'D' | b'E' | b'C') && h.len <= MAX_INSPECTED;
            if inspected && self.link.client.input.len() < h.len {
                return Ok(false);
            }
            match h.tag {
                b'X' => {
                    self.said_goodbye = true;
                    return Ok(true);
                }
                b'S' => {
                    self.forward(h.len);
                    self.state.sent(Expect::Sync);
                }
                b'c' | b'f' => {
                    self.forward(h.len);
                    self.state.copy_ended();
                }
                b'F' => {
                    self.forward(h.len);
                    self.state.sent(Expect::FunctionCall);
                }
                _ if self.state.skipping() || self.state.copy_in() => self.forward(h.len),
                b'Q' | b'P' | b'B' | b'D' | b'E' | b'C' if inspected => {
                    let f = self.link.client.input.split_to(h.len).freeze();
                    match h.tag {
                        b'Q' => self.query(f).await?,
                        b'P' => self.parse(f).await?,
                        b'B' => self.bind(f).await?,
                        b'D' => self.describe(f).await?,
                        b'E' => self.execute(f).await?,
                        _ => self.close(f).await?,
                    }
                }
                b'Q' | b'P' | b'B' => {
                    if !self.long_frame(h)? {
                        return Ok(false);
                    }
                }
                b'D' | b'E' | b'C' => return Err(SessionEnd::Protocol("invalid message length".into())),
                b'd' | b'H' | b'p' => self.forward(h.len),
                other => return Err(SessionEnd::Protocol(format!("invalid frontend message type {other}"))),
            }
        }
    }

    /// A Query, Parse or Bind too long to look at: PostgreSQL's. False until its names have arrived.
    fn long_frame(&mut self, h: frame::Header) -> Result<bool, SessionEnd> {
        const NAMES: usize = 4_096;
        let input = &self.link.client.input;
        if input.len() < NAMES {
            return Ok(false);
        }
        let mut r = message::Reader::new(&input[5..NAMES], "long");
        match h.tag {
            b'Q' => {
                self.forget_unnamed();
                self.state.sent(Expect::Query(None));
            }
            b'P' => {
                let name = Bytes::copy_from_slice(r.cstr()?);
                self.statements.remove(&name);
                self.state.sent(Expect::Parse(None));
            }
            _ => {
                let portal = Bytes::copy_from_slice(r.cstr()?);
                self.portals.remove(&portal);
                self.state.sent(Expect::Bind(None));
            }
        }
        self.forward(h.len);
        Ok(true)
    }

    /// Forwards the frame of `len` bytes at the front of the client's input, as far as it has arrived.
    fn forward(&mut self, len: usize) {
        let n = len.min(self.link.client.input.len());
        let part = self.link.client.input.split_to(n);
        self.link.upstream.output.extend_from_slice(&part);
        self.client_remaining = len - n;
    }

    /// A simple Query destroys the unnamed statement and portal.
    fn forget_unnamed(&mut self) {
        self.statements.remove(&Bytes::new());
        self.portals.remove(&Bytes::new());
    }

    fn classify(&self, sql: &str) -> (Arc<Classified>, Arc<Snapshot>) {
        let catalog = self.shared.catalog.current();
        (self.shared.classified.get(sql, catalog.generation, &catalog.names), catalog)
    }

    fn record(&self, protocol: &'static str, statement: &Arc<Classified>) -> Record {
        Record::open(&self.shared.log, &self.who, protocol, statement)
    }

    /// Notes what a statement may do to what the session and the gateway remember.
    fn note_effects(&mut self, statement: &Classified) {
        if statement.touches_route {
            self.route_named = true;
        }
        if statement.touches_level {
            self.level_known = false;
        }
        if statement.ddl {
            self.catalog_changed = true;
            self.shared.catalog.suspect();
        }
    }

    /// After DDL of its own, a session sees its new tables at once.
    async fn look_again(&mut self) {
        if self.catalog_changed && self.state.settled() && self.state.status() == TxStatus::Idle {
            self.catalog_changed = false;
            self.shared.catalog.look_now().await;
        }
    }

    /// Waits until PostgreSQL owes nothing. False if the pipeline failed meanwhile: skip until Sync.
    async fn settle(&mut self) -> Result<bool, SessionEnd> {
        self.relay_upstream()?;
        if !self.state.settled() {
            message::put_flush(&mut self.link.upstream.output);
        }
        while !self.state.settled() {
            self.turn().await?;
            self.relay_upstream()?;
        }
        Ok(!self.state.skipping())
    }

    /// One turn in which the client's end ends the session.
    async fn turn(&mut self) -> Result<(), SessionEnd> {
        match self.link.turn().await? {
            Turn::ClientClosed => Err(SessionEnd::Client),
            Turn::UpstreamClosed => {
                // What arrived before the end (a FATAL error, as a rule) is the client's.
                self.relay_rest();
                Err(SessionEnd::Upstream)
            }
            _ => Ok(()),
        }
    }

    /// Everything that PostgreSQL sent before it closed.
    fn relay_rest(&mut self) {
        let rest = self.link.upstream.input.split();
        self.link.client.output.extend_from_slice(&rest);
    }

    /// The next whole frame from PostgreSQL, as an owned copy, while the gateway has the connection to itself.
    /// Asynchronous messages are relayed on the way.
    async fn next_frame(&mut self) -> Result<Bytes, SessionEnd> {
        self.probing = true;
        let frame = self.own_frame().await?;
        self.probing = false;
        Ok(frame)
    }

    async fn own_frame(&mut self) -> Result<Bytes, SessionEnd> {
        loop {
            while let Some(h) = frame::peek(&self.link.upstream.input)? {
                if self.link.upstream.input.len() < h.len {
                    break;
                }
                let f = self.link.upstream.input.split_to(h.len).freeze();
                match h.tag {
                    b'A' | b'S' => self.link.client.output.extend_from_slice(&f),
                    _ => return Ok(f),
                }
            }
            // A frame longer than the buffers is read whole here: it is one of ours, and bounded by PostgreSQL.
            self.turn().await?;
        }
    }

    /// Takes an error that is the client's answer: forwards it and has the rest of the pipeline skipped.
    fn forward_error(&mut self, f: &[u8], record: &mut Record) {
        if let Some(report) = self.tripped(f, &record.entry.reasons) {
            record.failed(&report.sqlstate, &report.message);
            message::put_error(&mut self.link.client.output, &report);
            self.state.failed();
            return;
        }
        if let Ok(fields) = message::Fields::read(frame::body(f)) {
            record.failed(fields.text(b'C'), fields.text(b'M'));
        }
        self.link.client.output.extend_from_slice(f);
        self.state.failed();
    }
}

#[cfg(test)]
mod tests;
