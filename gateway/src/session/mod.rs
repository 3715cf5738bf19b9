//! One client session: login, then the loop that moves frames between client and PostgreSQL and, per
//! statement, classifies, probes, routes and answers.
//! ✗ what analysis, planning and execution do inside.
//!
//! The loop is one task over both sockets. A frame that concerns no candidate statement is forwarded unread.
//! A candidate waits until PostgreSQL owes nothing, then the probe has the connection to itself.
//! What is malformed goes to PostgreSQL as it came, whose answer it deserves.

pub mod link;
pub mod login;
pub mod opening;
pub mod probe;
pub mod state;

mod arrange;
mod awake;
mod bracket;
mod cold;
mod copy;
mod decide;
mod extended;
mod give_up;
mod lake;
pub(crate) mod outlet;
mod proof;
mod relay;
pub(crate) mod replay;
mod simple;
mod weigh;
mod tails;
mod upstream_socket;

use crate::cancel::Guard;
use crate::catalog::Snapshot;
use crate::classify::Classified;
use crate::query::record::{Record, Who};
use crate::server::Shared;
use crate::wire::frame::{self, FrameError};
use crate::wire::message::{self, ErrorReport, Fields, Malformed};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use lake::LakePortal;
use link::{BUFFER_LIMIT, Link, Side, Turn};
use login::LoggedIn;
use state::{Expect, State, TxStatus};
use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

/// Frames up to this size are read whole and looked at; longer ones are only forwarded.
const MAX_INSPECTED: usize = 1024 * 1024;
/// Prepared statements and portals whose route is remembered, a session; beyond it they are PostgreSQL's.
const MAX_REMEMBERED: usize = 4_096;
/// And what their texts and trees may take, in bytes.
const MAX_REMEMBERED_BYTES: usize = 16 * 1024 * 1024;
/// A message of PostgreSQL's that the gateway reads itself is no longer than this (the tail's rows, which come in pieces, aside).
const MAX_OWN_FRAME: usize = 32 * 1024 * 1024;
/// How long a client may take to fetch the next bytes of what is left when its session ends, and when everything ends.
const LAST_WORDS: Duration = Duration::from_secs(10);
const LAST_WORDS_IN_HASTE: Duration = Duration::from_secs(2);
/// How often, and after which pauses, PostgreSQL is asked to stop what nobody waits for any more.
const CALLS: u32 = 20;
const FIRST_CALL: Duration = Duration::from_millis(20);
const LONGEST_CALL: Duration = Duration::from_secs(1);

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
    /// A message of the client that PostgreSQL is to judge; the session goes on.
    #[error("malformed message")]
    Malformed,
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
    reasons: Cow<'static, str>,
    /// EXPLAIN: lines before PostgreSQL's own.
    lines: Vec<String>,
    classify_us: i64,
    probe_us: i64,
    /// What PostgreSQL's text has more than the client's.
    added: Option<state::Added>,
    /// PostgreSQL may have analyzed it anew without the gateway having seen the tree.
    unsure: bool,
    /// As often PostgreSQL had planned it or taken its plan, when that was last known.
    uses: Option<i64>,
    /// The session's turn when PostgreSQL analyzed it; `None` once it was bound since.
    analyzed_in: Option<u64>,
}

impl Prepared {
    /// About what remembering it takes, in bytes.
    fn bytes(&self) -> usize {
        // The tree stands in memory twice: as text and analyzed.
        256 + self.statement.sql.len() * 2 + self.probed.as_ref().map_or(0, |p| p.tree.len() * 2)
    }
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
    /// The protocol of replication: not looked at.
    walsender: bool,
    statements: HashMap<Bytes, Prepared>,
    portals: HashMap<Bytes, Portal>,
    /// The candidate whose Parse was the last thing the client sent.
    fresh: Option<Bytes>,
    /// How often the client has asked for the answers so far (Sync, Flush, and what implies them).
    turn: u64,
    /// A portal of the lake may be bound and not opened.
    unopened: bool,
    /// By table, the lake version that serves the transaction's fixed snapshot, and as what it was read.
    fixed: HashMap<u32, (Arc<::lake::spec::TableSpec>, Arc<::lake::log::LakeVersion>)>,
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
    /// DDL that is not committed yet, or that the gateway was not told of.
    ddl_untold: bool,
    /// The gateway has PostgreSQL at work for a probe or a tail.
    probing: bool,
    /// The client sent Terminate.
    said_goodbye: bool,
    /// PostgreSQL ended the connection with an error, and the client has it.
    farewell_said: bool,
    /// What is left of the frame from PostgreSQL is not for the client.
    discarding: bool,
    /// The client sent what no message is: PostgreSQL gets the rest unread, and ends the session.
    derailed: bool,
    /// What the remembered statements take, in bytes.
    remembered: usize,
    /// Trips when a CancelRequest comes for what the gateway itself is at work on.
    stop: Option<CancellationToken>,
    /// That request was passed on to PostgreSQL, which was at work for the gateway.
    stop_passed_on: bool,
    /// When the statement under way began, as statement_timeout counts.
    began: Option<Instant>,
    /// Messages of user code inside a bracket, until it is known whether the client gets them from there.
    notices: BytesMut,
    /// The lake's last answer is to be PostgreSQL's too.
    replay: Option<replay::Replay>,
    /// It is being computed: whatever the client sends stops that.
    replaying: bool,
    /// Trips when everything ends.
    draining: CancellationToken,
    /// Where the lake's rows go, if not to the wire.
    outlet: Option<outlet::Outlet>,
}

impl Session {
    /// Takes over a connection that PostgreSQL has accepted.
    pub fn new(shared: Arc<Shared>, logged_in: LoggedIn) -> Self {
        let LoggedIn { mut link, startup, cancel } = logged_in;
        link.awake_for = shared.config.busy_wait;
        let who = Arc::new(Who {
            pid: cancel.key.pid,
            usename: startup.user().to_string(),
            datname: startup.database().to_string(),
        });
        let walsender = startup.is_replication();
        let inspected = !walsender && startup.database() == shared.catalog.database();
        Session {
            link,
            state: State::default(),
            cancel,
            shared,
            who,
            inspected,
            walsender,
            statements: HashMap::new(),
            portals: HashMap::new(),
            fresh: None,
            turn: 0,
            unopened: false,
            fixed: HashMap::new(),
            client_remaining: 0,
            upstream_remaining: 0,
            swallow_trees: false,
            // Options at startup, of the role or of the database may have set it.
            route_named: startup.params.iter().any(|(n, v)| n == "watershed.route" || v.contains("watershed.route")),
            log_level: None,
            level_known: false,
            catalog_changed: false,
            ddl_untold: false,
            probing: false,
            said_goodbye: false,
            farewell_said: false,
            discarding: false,
            derailed: false,
            remembered: 0,
            stop: None,
            stop_passed_on: false,
            began: None,
            notices: BytesMut::new(),
            replay: None,
            replaying: false,
            draining: CancellationToken::new(),
            outlet: None,
        }
    }

    /// A session whose client takes the lake's rows as batches, beside the wire.
    pub fn with_outlet(mut self, outlet: outlet::Outlet) -> Self {
        self.outlet = Some(outlet);
        self
    }

    /// Runs until either side closes, `shutdown` asks an idle session to go, or `now` asks any.
    pub async fn run(mut self, shutdown: CancellationToken, now: CancellationToken) -> SessionEnd {
        self.draining = shutdown.clone();
        let served = tokio::select! {
            biased;
            served = self.serve(&shutdown) => served,
            () = now.cancelled() => Err(SessionEnd::Shutdown),
        };
        let end = match served {
            Ok(()) => SessionEnd::Client,
            Err(e) => e,
        };
        // Whatever the lake does for this session ends here.
        self.portals.clear();
        match &end {
            SessionEnd::Client => {
                if self.abandoned() {
                    self.call_off().await;
                } else if !self.link.upstream.closed {
                    message::put_terminate(&mut self.link.upstream.output);
                    last_words(&mut self.link.upstream, LAST_WORDS).await;
                }
            }
            SessionEnd::Upstream => {
                self.relay_rest();
                let expected = self.farewell_said || self.said_goodbye || self.derailed || self.walsender;
                if !expected && self.between_frames() {
                    let e = ErrorReport::fatal("57P01", "terminating connection because PostgreSQL closed it")
                        .detail("The PostgreSQL process of this session ended without a word, as in a crash.")
                        .hint("What the last statement did is not known: look before it is run again.");
                    message::put_error(&mut self.link.client.output, &e);
                }
                last_words(&mut self.link.client, LAST_WORDS).await;
            }
            SessionEnd::Shutdown => {
                let busy = self.probing || !self.state.settled() || self.state.lost();
                if self.between_frames() {
                    let e = ErrorReport::fatal("57P01", "terminating connection due to administrator command");
                    message::put_error(&mut self.link.client.output, &e);
                }
                if busy {
                    self.cancel_upstream().await;
                }
                message::put_terminate(&mut self.link.upstream.output);
                let Link { client, upstream, .. } = &mut self.link;
                tokio::join!(last_words(client, LAST_WORDS_IN_HASTE), last_words(upstream, LAST_WORDS_IN_HASTE));
            }
            SessionEnd::Protocol(m) => {
                if self.between_frames() {
                    message::put_error(&mut self.link.client.output, &ErrorReport::fatal("08P01", m.clone()));
                }
                last_words(&mut self.link.client, LAST_WORDS).await;
            }
            SessionEnd::Io(_) | SessionEnd::Malformed => {
                if self.abandoned() {
                    self.call_off().await;
                }
            }
        }
        end
    }

    /// Has PostgreSQL end what it does for a client that is gone, and its session. A request that comes before the statement that it
    /// means has no effect (the statement may have been sent a moment ago, or not yet), so it is repeated until the session ends.
    async fn call_off(&mut self) {
        self.link.client.abandon();
        message::put_terminate(&mut self.link.upstream.output);
        let mut pause = FIRST_CALL;
        for _ in 0..CALLS {
            if self.link.upstream.closed {
                return;
            }
            self.cancel_upstream().await;
            let ended = async {
                // What it still has to say must be taken, or it would wait for that.
                while !matches!(self.link.turn().await, Ok(Turn::UpstreamClosed) | Err(_)) {
                    self.link.upstream.input.clear();
                }
            };
            if tokio::time::timeout(pause, ended).await.is_ok() {
                return;
            }
            pause = (pause * 2).min(LONGEST_CALL);
        }
        tracing::warn!(pid = self.who.pid, "PostgreSQL does not stop the statement of a client that is gone");
    }

    /// What the client has got, or will, ends with a whole frame.
    fn between_frames(&self) -> bool {
        self.upstream_remaining == 0 || self.discarding
    }

    /// The client is gone without a goodbye while PostgreSQL works for it at something that only reads.
    fn abandoned(&mut self) -> bool {
        !self.said_goodbye
            && (self.probing || self.state.running().is_some_and(|r| r.record.entry.statement.reads))
    }

    /// Asks PostgreSQL to stop what it does for this session.
    async fn cancel_upstream(&mut self) {
        if let Some(real) = &self.cancel.upstream {
            login::stop_upstream(&self.shared.upstream, real).await;
        }
    }

    async fn serve(&mut self, shutdown: &CancellationToken) -> Result<(), SessionEnd> {
        if self.walsender {
            return self.copy_both_ways(shutdown).await;
        }
        let mut shutting_down = pin!(shutdown.cancelled());
        loop {
            self.relay_upstream()?;
            if self.serve_client().await? {
                return self.see_off().await;
            }
            self.relay_upstream()?;
            let at_rest = self.state.settled() && !self.state.lost();
            let idle = at_rest && self.state.status() == TxStatus::Idle && self.link.client.input.is_empty();
            if idle {
                self.rest();
            }
            let whole = self.wants_whole_frame();
            let turn = tokio::select! {
                biased;
                t = self.link.exchange(whole, !at_rest) => t?,
                () = &mut shutting_down, if idle => return Err(SessionEnd::Shutdown),
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

    /// From Terminate on: PostgreSQL reads it when it has done what was sent before, whose answers are still the client's.
    async fn see_off(&mut self) -> Result<(), SessionEnd> {
        loop {
            let rest = self.link.client.input.split();
            self.link.upstream.output.extend_from_slice(&rest);
            self.relay_upstream()?;
            match self.link.turn().await? {
                Turn::ClientClosed => return Err(SessionEnd::Client),
                Turn::UpstreamClosed => {
                    self.relay_upstream()?;
                    return Err(SessionEnd::Upstream);
                }
                _ => {}
            }
        }
    }

    /// Outside of transactions, with nothing to do: gives back what a large answer has left, and what a transaction was held to.
    fn rest(&mut self) {
        self.fixed.clear();
        self.link.rest();
    }

    /// A frame is being read whole that is longer than the usual buffer.
    fn wants_whole_frame(&self) -> bool {
        self.client_remaining == 0 && self.link.client.input.len() >= BUFFER_LIMIT
    }

    /// Walsenders: the client's bytes as they come, PostgreSQL's frame by frame, so that a shutdown finds a place between two.
    async fn copy_both_ways(&mut self, shutdown: &CancellationToken) -> Result<(), SessionEnd> {
        loop {
            let from_client = self.link.client.input.split();
            self.link.upstream.output.extend_from_slice(&from_client);
            self.relay_upstream()?;
            tokio::select! {
                t = self.link.turn() => match t? {
                    Turn::ClientClosed => return Err(SessionEnd::Client),
                    Turn::UpstreamClosed => return Err(SessionEnd::Upstream),
                    _ => {}
                },
                () = shutdown.cancelled(), if self.between_frames() => return Err(SessionEnd::Shutdown),
            }
        }
    }

    /// Serves the client's buffered frames. True when the client said goodbye.
    async fn serve_client(&mut self) -> Result<bool, SessionEnd> {
        loop {
            if self.link.upstream.output.len() >= BUFFER_LIMIT {
                return Ok(false);
            }
            if self.derailed {
                let rest = self.link.client.input.split();
                self.link.upstream.output.extend_from_slice(&rest);
                return Ok(false);
            }
            if self.client_remaining > 0 {
                let n = self.client_remaining.min(self.link.client.input.len());
                self.link.to_upstream(n);
                self.client_remaining -= n;
                if self.client_remaining > 0 {
                    return Ok(false);
                }
            }
            let h = match frame::peek(&self.link.client.input) {
                Ok(Some(h)) => h,
                Ok(None) if self.link.client.input.first().is_some_and(|tag| !is_frontend(*tag)) => {
                    self.derailed = true;
                    continue;
                }
                Ok(None) => return Ok(false),
                Err(_) => {
                    self.derailed = true;
                    continue;
                }
            };
            if self.unopened
                && !self.state.lost()
                && matches!(h.tag, b'S' | b'H' | b'F' | b'Q')
                && !self.state.skipping()
                && !self.state.copy_in()
            {
                // A Query destroys the unnamed one.
                self.open_bound((h.tag == b'Q').then_some(b"".as_slice())).await?;
            }
            if matches!(h.tag, b'S' | b'H' | b'F' | b'Q') {
                self.turn += 1;
            }
            if let Some(replay) = self.replay.take()
                && matches!((h.tag, h.len), (b'S', 5))
                && !self.state.lost()
                && self.settle().await?
            {
                self.link.client.input.advance(h.len);
                self.began = None;
                self.fresh = None;
                self.finish_replayed(replay).await?;
                continue;
            }
            if self.fresh.is_some() && !matches!(h.tag, b'D' | b'H') {
                self.fresh = None;
            }
            let looked_at = self.inspected && !self.state.lost() && matches!(h.tag, b'Q' | b'P' | b'B' | b'D' | b'E' | b'C');
            match h.tag {
                b'X' => {
                    self.said_goodbye = true;
                    return Ok(true);
                }
                // Nothing of these concerns a statement of the lake.
                _ if !looked_at || self.state.skipping() || self.state.copy_in() => {
                    if !is_frontend(h.tag) {
                        self.derailed = true;
                        continue;
                    }
                    self.forward(h.len);
                    if let Some(expect) = Expect::plain(h.tag) {
                        self.state.sent(expect);
                    }
                    if h.tag == b'H' && h.len > 5 {
                        self.state.sent(Expect::BrokenFlush);
                    }
                    if h.tag == b'S' {
                        self.began = None;
                    }
                }
                tag if h.len <= MAX_INSPECTED => {
                    if self.link.client.input.len() < h.len {
                        return Ok(false);
                    }
                    // A copy is cheaper than sharing the buffer, which then could not be used again.
                    let f = Bytes::copy_from_slice(&self.link.client.input[..h.len]);
                    self.link.client.input.advance(h.len);
                    let served = match tag {
                        b'Q' => self.query(f.clone()).await,
                        b'P' => self.parse(f.clone()).await,
                        b'B' => self.bind(f.clone()).await,
                        b'D' => self.describe(f.clone()).await,
                        b'E' => self.execute(f.clone()).await,
                        _ => self.close(f.clone()).await,
                    };
                    match served {
                        Err(SessionEnd::Malformed) => self.pass(&f),
                        other => other?,
                    }
                }
                b'Q' | b'P' | b'B' => {
                    if !self.long_frame(h).await? {
                        return Ok(false);
                    }
                }
                // Longer than any name: PostgreSQL closes the connection.
                _ => self.derailed = true,
            }
        }
    }

    /// Hands a frame of the client to PostgreSQL as it is.
    fn pass(&mut self, f: &[u8]) {
        self.link.upstream.output.extend_from_slice(f);
        if let Some(expect) = f.first().and_then(|tag| Expect::plain(*tag)) {
            self.state.sent(expect);
        }
    }

    /// A Query, Parse or Bind too long to look at: PostgreSQL's. False until its names have arrived.
    async fn long_frame(&mut self, h: frame::Header) -> Result<bool, SessionEnd> {
        const NAMES: usize = 4_096;
        let input = &self.link.client.input;
        if input.len() < NAMES {
            return Ok(false);
        }
        let name = message::Reader::new(&input[5..NAMES], "long").cstr().map(Bytes::copy_from_slice).unwrap_or_default();
        match h.tag {
            b'Q' => {
                if self.unnamed_is_lakes() {
                    self.settle().await?;
                }
                if !self.state.skipping() {
                    self.forget_unnamed();
                }
            }
            b'P' => drop(self.forget_statement(&name)),
            _ => {
                let lakes = matches!(self.portals.get(&name), Some(Portal::Lake(_)));
                if lakes {
                    self.settle().await?;
                }
                // Over a named portal it will fail.
                if !self.state.skipping() && (!lakes || name.is_empty()) {
                    self.portals.remove(&name);
                }
            }
        }
        self.forward(h.len);
        if let Some(expect) = Expect::plain(h.tag) {
            self.state.sent(expect);
        }
        Ok(true)
    }

    /// Forwards the frame of `len` bytes at the front of the client's input, as far as it has arrived.
    fn forward(&mut self, len: usize) {
        let n = len.min(self.link.client.input.len());
        self.link.to_upstream(n);
        self.client_remaining = len - n;
    }

    /// A simple Query destroys the unnamed statement and portal.
    fn forget_unnamed(&mut self) {
        self.forget_statement(b"");
        self.portals.remove(b"".as_slice());
    }

    /// PostgreSQL may analyze this statement anew without the gateway seeing it.
    fn doubt_analysis(&mut self, name: &[u8]) {
        if let Some(prepared) = self.statements.get_mut(name) {
            prepared.unsure = true;
        }
    }

    fn forget_statement(&mut self, name: &[u8]) -> Option<Prepared> {
        let prepared = self.statements.remove(name)?;
        self.remembered = self.remembered.saturating_sub(prepared.bytes());
        Some(prepared)
    }

    /// The lake is giving the rows of the unnamed portal: what ends it must be known for sure.
    fn unnamed_is_lakes(&self) -> bool {
        matches!(self.portals.get(b"".as_slice()), Some(Portal::Lake(_)))
    }

    /// From here on a CancelRequest is the gateway's own to obey.
    fn begin_work(&mut self) {
        self.began.get_or_insert_with(Instant::now);
        self.stop = Some(self.cancel.handle.begin());
        self.stop_passed_on = false;
    }

    /// From here on it is PostgreSQL's.
    fn end_work(&mut self) {
        if self.stop.take().is_some() {
            self.cancel.handle.end();
        }
    }

    /// A CancelRequest came for the work under way.
    fn stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(CancellationToken::is_cancelled)
    }

    /// When the statement under way must be done.
    fn deadline(&mut self, settings: &probe::Settings) -> Option<Instant> {
        let began = *self.began.get_or_insert_with(Instant::now);
        began.checked_add(Duration::from_millis(settings.timeout_ms()?))
    }

    fn classify(&self, sql: &str) -> (Arc<Classified>, Arc<Snapshot>) {
        let catalog = self.shared.catalog.current();
        (self.shared.classified.get(sql, catalog.generation, &catalog.names), catalog)
    }

    fn record(&self, protocol: &'static str, statement: &Arc<Classified>) -> Record {
        let protocol = if self.outlet.is_some() { "flight" } else { protocol };
        let record = Record::open(&self.shared.log, &self.who, protocol, statement);
        if self.outlet.is_some() && crate::flight::is_own(&statement.sql) { record.unlogged() } else { record }
    }

    /// Notes what a statement may do to what the session and the gateway remember.
    fn note_effects(&mut self, statement: &Classified) {
        if statement.touches_route {
            self.route_named = true;
        }
        if statement.touches_level {
            self.level_known = false;
        }
        if statement.executes {
            for prepared in self.statements.values_mut() {
                prepared.unsure = true;
            }
        }
        if statement.deallocates {
            let all = statement.words.iter().any(|w| &**w == "all");
            let gone: Vec<Bytes> = self
                .statements
                .keys()
                .filter(|name| all || statement.words.iter().any(|w| w.as_bytes() == &name[..]))
                .cloned()
                .collect();
            for name in gone {
                self.forget_statement(&name);
            }
        }
        if statement.ddl {
            self.catalog_changed = true;
            self.ddl_untold = true;
        }
    }

    /// After DDL of its own, a session sees its new tables at once.
    async fn look_again(&mut self) {
        if self.catalog_changed && self.state.settled() && self.state.status() == TxStatus::Idle {
            self.catalog_changed = false;
            self.shared.catalog.look_now().await;
        }
    }

    /// Waits until PostgreSQL owes nothing. False if what comes next is PostgreSQL's without a look: the pipeline failed meanwhile,
    /// or a COPY reads it.
    async fn settle(&mut self) -> Result<bool, SessionEnd> {
        self.relay_upstream()?;
        if !self.state.settled() {
            message::put_flush(&mut self.link.upstream.output);
        }
        while !self.state.settled() || self.upstream_remaining > 0 {
            if self.state.copy_in() {
                return Ok(false);
            }
            self.turn().await?;
            self.relay_upstream()?;
        }
        Ok(!self.state.skipping())
    }

    /// One turn in which the client's end ends the session.
    async fn turn(&mut self) -> Result<(), SessionEnd> {
        match self.link.exchange(false, true).await? {
            Turn::ClientClosed => Err(SessionEnd::Client),
            Turn::UpstreamClosed => Err(SessionEnd::Upstream),
            _ => Ok(()),
        }
    }

    /// What PostgreSQL said before it closed (a FATAL error, as a rule) is the client's; answers to the gateway's own questions
    /// are not.
    fn relay_rest(&mut self) {
        if self.upstream_remaining > 0 {
            let n = self.upstream_remaining.min(self.link.upstream.input.len());
            self.pass_up_to(n);
        }
        while self.upstream_remaining == 0
            && let Ok(Some(f)) = frame::whole(&self.link.upstream.input)
        {
            let (tag, len) = (f[0], f.len());
            let fields = if tag == b'E' { Fields::head(frame::body(f)) } else { Fields::default() };
            self.farewell_said |= matches!(fields.text(b'V'), "FATAL" | "PANIC");
            let f = self.link.upstream.input.split_to(len);
            if !self.probing || matches!(tag, b'E' | b'N' | b'A' | b'S') {
                self.link.client.output.extend_from_slice(&f);
            }
        }
    }

    /// The next whole frame from PostgreSQL, as an owned copy, while the gateway has the connection to itself.
    /// Asynchronous messages are relayed on the way.
    async fn next_frame(&mut self) -> Result<Bytes, SessionEnd> {
        self.own_frame(None).await
    }

    /// As [`Session::next_frame`], but CopyData comes in pieces as it arrives, each as if it were a frame.
    async fn next_piece(&mut self, remaining: &mut usize) -> Result<Bytes, SessionEnd> {
        self.own_frame(Some(remaining)).await
    }

    async fn own_frame(&mut self, mut pieces: Option<&mut usize>) -> Result<Bytes, SessionEnd> {
        self.probing = true;
        loop {
            if let Some(remaining) = pieces.as_deref_mut()
                && *remaining > 0
                && !self.link.upstream.input.is_empty()
            {
                let n = (*remaining).min(self.link.upstream.input.len());
                *remaining -= n;
                let mut piece = BytesMut::with_capacity(n + 5);
                piece.put_slice(b"d\0\0\0\0");
                piece.put_slice(&self.link.upstream.input.split_to(n));
                self.probing = false;
                return Ok(piece.freeze());
            }
            while let Some(h) = frame::peek(&self.link.upstream.input)? {
                if h.tag == b'd'
                    && let Some(remaining) = pieces.as_deref_mut()
                    && self.link.upstream.input.len() < h.len
                {
                    self.link.upstream.input.advance(5);
                    *remaining = h.len - 5;
                    break;
                }
                if self.link.upstream.input.len() < h.len {
                    if h.len > MAX_OWN_FRAME {
                        return Err(SessionEnd::Protocol(format!("a message of {} bytes from PostgreSQL is too long", h.len)));
                    }
                    break;
                }
                let f = self.link.upstream.input.split_to(h.len).freeze();
                match h.tag {
                    b'A' | b'S' => self.link.client.output.extend_from_slice(&f),
                    _ => {
                        self.probing = false;
                        return Ok(f);
                    }
                }
            }
            if pieces.as_deref().is_some_and(|r| *r > 0) && !self.link.upstream.input.is_empty() {
                continue;
            }
            if self.replaying && !self.stop_passed_on && !self.link.client.input.is_empty() {
                self.stop_passed_on = true;
                self.cancel_upstream().await;
            }
            match self.stop.clone() {
                Some(stop) if !self.stop_passed_on => tokio::select! {
                    turned = self.turn() => turned?,
                    () = stop.cancelled() => {
                        // PostgreSQL is at work on it: its own error ends the exchange.
                        self.stop_passed_on = true;
                        self.cancel_upstream().await;
                    }
                },
                _ => self.turn().await?,
            }
        }
    }

    /// Takes an error that is the client's answer: forwards it and has the rest of the pipeline skipped.
    fn forward_error(&mut self, f: &[u8], record: &mut Record) {
        if let Some(report) = self.tripped(f, &record.entry.reasons) {
            record.failed(&report.sqlstate, &report.message);
            message::put_error(&mut self.link.client.output, &report);
            self.state.failed(false);
            return;
        }
        if let Ok(fields) = message::Fields::read(frame::body(f)) {
            self.farewell_said |= matches!(fields.text(b'V'), "FATAL" | "PANIC");
            record.failed(fields.text(b'C'), fields.text(b'M'));
        }
        // A time limit or a request to stop may meet PostgreSQL at something of ours: where, the client is not told.
        let bare = message::without_field(f, b'W', |context| probe::OUR_CONTEXTS.iter().any(|ours| context.contains(ours)));
        self.link.client.output.extend_from_slice(bare.as_deref().unwrap_or(f));
        self.state.failed(false);
    }
}

/// The messages that a client may send.
fn is_frontend(tag: u8) -> bool {
    matches!(tag, b'Q' | b'P' | b'B' | b'D' | b'E' | b'C' | b'S' | b'H' | b'F' | b'd' | b'c' | b'f' | b'X')
}

/// Writes what is left and closes the sending half, as long as somebody takes it.
async fn last_words(side: &mut Side, patience: Duration) {
    while !side.output.is_empty() {
        match tokio::time::timeout(patience, side.drain_some()).await {
            Ok(Ok(())) => {}
            _ => return,
        }
    }
    // What cannot be sent any more was not wanted.
    let _ = tokio::time::timeout(patience, side.finish()).await;
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
