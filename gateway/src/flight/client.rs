//! The client of one of the gateway's own sessions, inside the process: logs in as any client does, sends statements, reads answers.
//! What the lake answers comes beside the wire, in batches. ✗ Flight, what a session does.

use super::failure::Failure;
use super::types::Column;
use crate::cancel::Key;
use crate::server::Shared;
use crate::session::link::Side;
use crate::session::login::{self, Desk};
use crate::session::opening::{Opened, Peer};
use crate::session::outlet::BATCHES_AHEAD;
use crate::session::{Session, SessionEnd};
use crate::threads::Threads;
use crate::wire::message::{self, Field, Reader};
use crate::wire::scram::{SCRAM, hmac, salted_password};
use crate::wire::startup::Startup;
use crate::wire::frame;
use arrow::array::RecordBatch;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use rand::Rng;
use rand::distr::Alphanumeric;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use stringprep::tables;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Bytes that may lie between a session and its client.
const PIPE: usize = 256 * 1024;
/// More than any sane server asks for; a bound on the work that it can make us do.
const MAX_ITERATIONS: u32 = 1_000_000;

/// To PostgreSQL, which waits for rows of a COPY.
const NO_COPY_IN: &[u8] = b"Flight has no COPY: use bulk ingestion\0";

/// A portal that is never opened.
const NOWHERE: &[u8] = b"flight_nowhere";

/// Who wants in.
pub struct Credentials {
    pub user: String,
    pub password: String,
    pub database: String,
}

tokio::task_local! {
    /// Set where a call works: cancelled when its client is gone.
    pub static GONE: CancellationToken;
}

/// How long a statement that was asked to stop may go on until it is asked again: it may not have begun.
pub const AGAIN: Duration = Duration::from_secs(1);

/// Waits until the client of the call that works here is gone; for ever where none does.
pub async fn gone() {
    match GONE.try_with(CancellationToken::clone) {
        Ok(gone) => gone.cancelled().await,
        Err(_) => std::future::pending().await,
    }
}

/// Whether it is: what has not begun then does not begin, and what is not complete is undone.
pub fn is_gone() -> bool {
    GONE.try_with(CancellationToken::is_cancelled).unwrap_or(false)
}

/// What such a call ends with, which nobody reads.
pub fn given_up() -> Failure {
    Failure::new("57014", "the call was given up by its client")
}

/// Waits until the client is gone; if PostgreSQL was asked to stop already, until it should be asked again.
async fn nobody_waits(stopped: bool) {
    gone().await;
    if stopped {
        tokio::time::sleep(AGAIN).await;
    }
}

/// What sessions need to be begun with.
pub struct Ground {
    pub shared: Arc<Shared>,
    pub threads: Threads,
    pub shutdown: CancellationToken,
    pub now: CancellationToken,
}

/// One session.
pub struct Client {
    pipe: DuplexStream,
    input: BytesMut,
    batches: mpsc::Receiver<RecordBatch>,
    key: Key,
    shared: Arc<Shared>,
    /// The call that works is nobody's any more, and PostgreSQL was asked to stop.
    stopped: bool,
    /// Answers that the session owes, each ended by ReadyForQuery.
    owed: u32,
    /// As ReadyForQuery told last: `I` outside of a transaction, `T` inside, `E` inside of one that failed.
    status: u8,
    /// How often ReadyForQuery told of no transaction.
    rests: u64,
    /// Executions were begun whose Sync is still to be sent.
    open: bool,
    /// A statement changed client_encoding.
    foreign: bool,
    lost: bool,
}

/// What comes next of an answer.
pub enum Event {
    /// Its tag and its body.
    Frame(u8, Bytes),
    Batch(RecordBatch),
}

/// What a statement takes and gives.
#[derive(Debug, Clone, Default)]
pub struct Described {
    pub parameters: Vec<u32>,
    /// None: it gives no rows.
    pub fields: Option<Vec<Field>>,
}

/// An answer as text, of the statements that serve Flight itself.
pub type TextRows = Vec<Vec<Option<String>>>;

impl Client {
    /// Logs in. The session lives until the client drops.
    pub async fn connect(ground: &Ground, peer: Peer, who: &Credentials) -> Result<Client, Failure> {
        let shared = ground.shared.clone();
        let Ok(place) = shared.places.clone().try_acquire_owned() else {
            return Err(Failure::new("53300", "sorry, too many clients already")
                .hint("Close idle sessions, or raise max_sessions of the gateway."));
        };
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let startup = Startup {
            params: [
                ("user", who.user.as_str()),
                ("database", &who.database),
                ("application_name", "Arrow Flight SQL"),
                ("client_encoding", "UTF8"),
            ]
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .to_vec(),
        };
        if startup.params.iter().any(|(_, v)| v.contains('\0')) {
            return Err(Failure::new("28000", "a name with a zero byte"));
        }
        let (outlet, batches) = mpsc::channel(BATCHES_AHEAD);
        let (shutdown, now) = (ground.shutdown.child_token(), ground.now.child_token());
        ground.threads.spawn(move || async move {
            let packet = startup_packet(&startup);
            let opened = Opened { client: Side::inside(theirs), packet, startup, end_point: None };
            let desk = Desk {
                upstream: &shared.upstream,
                policy: &shared.policy,
                verifiers: &shared.verifiers,
                cancels: &shared.cancels,
                deadline: tokio::time::Instant::now() + shared.config.login_timeout,
            };
            let logged_in = tokio::select! {
                entered = login::login(opened, peer, &desk) => entered,
                () = now.cancelled() => return,
            };
            match logged_in {
                Ok(logged_in) => {
                    let session = Session::new(shared, logged_in).with_outlet(outlet);
                    if let SessionEnd::Protocol(reason) = session.run(shutdown, now).await {
                        tracing::warn!(peer = %peer.ip, reason, "session of a Flight client ended");
                    }
                }
                Err(reason) => tracing::info!(peer = %peer.ip, %reason, "Flight login refused"),
            }
            drop(place);
        });
        let mut client = Client {
            pipe: ours,
            input: BytesMut::new(),
            batches,
            key: Key { pid: 0, secret: Vec::new() },
            shared: ground.shared.clone(),
            stopped: false,
            owed: 1,
            status: b'I',
            rests: 0,
            open: false,
            foreign: false,
            lost: false,
        };
        client.log_in(&who.password).await?;
        Ok(client)
    }

    async fn log_in(&mut self, password: &str) -> Result<(), Failure> {
        let refused = |why: &str| Failure::new("28000", why.to_owned());
        let nonce: String = rand::rng().sample_iter(Alphanumeric).take(24).map(char::from).collect();
        let bare = format!("n=,r={nonce}");
        let mut expected = None;
        let mut proven = false;
        loop {
            let (tag, body) = self.frame().await?;
            match tag {
                b'R' => match (Reader::new(&body, "Authentication").i32().unwrap_or(-1), body.get(4..).unwrap_or_default()) {
                    (0, _) if expected.is_some() && !proven => return Err(refused("PostgreSQL did not prove who it is")),
                    (0, _) => {}
                    (3, _) => self.answer_login(&[password.as_bytes(), b"\0"].concat()).await?,
                    (10, mechanisms) => {
                        if !mechanisms.split(|b| *b == 0).any(|name| name == SCRAM.as_bytes()) {
                            return Err(refused("PostgreSQL offers no SCRAM-SHA-256"));
                        }
                        let first = format!("n,,{bare}");
                        let mut message = BytesMut::new();
                        message.put_slice(SCRAM.as_bytes());
                        message.put_u8(0);
                        message.put_u32(first.len() as u32);
                        message.put_slice(first.as_bytes());
                        self.answer_login(&message).await?;
                    }
                    (11, server_first) => {
                        let server_first = std::str::from_utf8(server_first).unwrap_or_default();
                        let (last, signature) = scram_last(password, &nonce, &bare, server_first)
                            .ok_or_else(|| refused("PostgreSQL's part of the login cannot be read"))?;
                        expected = Some(signature);
                        self.answer_login(last.as_bytes()).await?;
                    }
                    (12, server_final) => {
                        proven = expected.as_deref().is_some_and(|e| e.as_bytes() == server_final);
                        if !proven {
                            return Err(refused("PostgreSQL does not know the password that it asks for"));
                        }
                    }
                    _ => {
                        return Err(refused("PostgreSQL asks for a login that Flight does not speak")
                            .hint("Use scram-sha-256 in pg_hba.conf; passwords that were stored as MD5 must be set again."));
                    }
                },
                b'K' => {
                    let pid = Reader::new(&body, "BackendKeyData").i32().unwrap_or(0);
                    self.key = Key { pid, secret: body.get(4..).unwrap_or_default().to_vec() };
                }
                b'E' => return Err(Failure::read(&body)),
                b'Z' => return Ok(()),
                _ => {}
            }
        }
    }

    async fn answer_login(&mut self, body: &[u8]) -> Result<(), Failure> {
        let mut out = BytesMut::new();
        message::frame(&mut out, b'p', |b| b.put_slice(body));
        self.write(&out).await
    }

    /// By which what it does is cancelled.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Another call works from now on.
    pub fn serve(&mut self) {
        self.stopped = false;
    }

    /// See [`Client::status`] of ReadyForQuery.
    pub fn status(&self) -> u8 {
        self.status
    }

    /// How often there was no transaction after a statement: one that was begun goes on while this is the same.
    pub fn rests(&self) -> u64 {
        self.rests
    }

    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// Sends, and takes what comes meanwhile, so that neither side waits for the other for ever.
    async fn write(&mut self, out: &[u8]) -> Result<(), Failure> {
        let mut rest = out;
        while !self.lost && !rest.is_empty() {
            let (mut from, mut to) = tokio::io::split(&mut self.pipe);
            let step = tokio::select! {
                biased;
                written = to.write(rest) => Some(written.inspect(|n| rest = &rest[*n..])),
                read = from.read_buf(&mut self.input) => Some(read),
                () = nobody_waits(self.stopped) => None,
            };
            match step {
                Some(Ok(1..)) => self.forget_notices(),
                Some(_) => self.lost = true,
                None => self.stop().await,
            }
        }
        if self.lost {
            // What it said before it went is worth more.
            return Err(self.last_error().await.unwrap_or_else(Failure::lost));
        }
        Ok(())
    }

    /// Notices are for nobody here, and there may be one for each row that is sent.
    fn forget_notices(&mut self) {
        while let Ok(Some(notice)) = frame::whole(&self.input)
            && notice[0] == b'N'
        {
            let len = notice.len();
            self.input.advance(len);
        }
    }

    /// The error with which the session ended.
    async fn last_error(&mut self) -> Option<Failure> {
        self.lost = true;
        while let Ok(1..) = self.pipe.read_buf(&mut self.input).await {}
        let mut found = None;
        while let Ok(Some(f)) = frame::whole(&self.input) {
            let len = f.len();
            if f[0] == b'E' {
                found = Some(Failure::read(frame::body(f)));
            }
            let _ = self.input.split_to(len);
        }
        found
    }

    /// A frame that has arrived whole.
    fn buffered(&mut self) -> Result<Option<(u8, Bytes)>, Failure> {
        let whole = frame::whole(&self.input).map_err(|_| {
            self.lost = true;
            Failure::lost()
        })?;
        let Some((tag, len)) = whole.map(|f| (f[0], f.len())) else { return Ok(None) };
        let body = self.input.split_to(len).split_off(5).freeze();
        if tag == b'Z' {
            self.owed = self.owed.saturating_sub(1);
            self.status = body.first().copied().unwrap_or(b'I');
            self.rests += u64::from(self.status == b'I');
        }
        if tag == b'S'
            && let Some(encoding) = body.strip_prefix(b"client_encoding\0")
        {
            self.foreign = encoding != b"UTF8\0";
        }
        Ok(Some((tag, body)))
    }

    /// The next frame. Cancel safe.
    async fn frame(&mut self) -> Result<(u8, Bytes), Failure> {
        loop {
            if let Some(f) = self.buffered()? {
                return Ok(f);
            }
            if !matches!(self.pipe.read_buf(&mut self.input).await, Ok(1..)) {
                self.lost = true;
                return Err(Failure::lost());
            }
        }
    }

    /// The next frame or batch; a batch that was made before a frame comes before it. What is waited for on behalf of a client that is gone is
    /// stopped. Cancel safe.
    pub async fn event(&mut self) -> Result<Event, Failure> {
        loop {
            let stopped = self.stopped;
            tokio::select! {
                biased;
                event = self.next_event() => return event,
                () = nobody_waits(stopped) => self.stop().await,
            }
        }
    }

    async fn stop(&mut self) {
        login::cancel(&self.shared.upstream, &self.shared.cancels, &self.key).await;
        self.stopped = true;
    }

    async fn next_event(&mut self) -> Result<Event, Failure> {
        loop {
            // Batches go ahead: what the frame says (that the answer is complete) is of them.
            if let Ok(batch) = self.batches.try_recv() {
                return Ok(Event::Batch(batch));
            }
            if let Some((tag, body)) = self.buffered()? {
                return Ok(Event::Frame(tag, body));
            }
            let Client { pipe, input, batches, .. } = self;
            tokio::select! {
                biased;
                batch = batches.recv() => match batch {
                    Some(batch) => return Ok(Event::Batch(batch)),
                    // The session has ended; what it said last is in the pipe.
                    None => {
                        while let Ok(1..) = self.pipe.read_buf(&mut self.input).await {}
                        if let Some((tag, body)) = self.buffered()? {
                            return Ok(Event::Frame(tag, body));
                        }
                        self.lost = true;
                        return Err(Failure::lost());
                    }
                },
                read = pipe.read_buf(input) => if !matches!(read, Ok(1..)) {
                    self.lost = true;
                    return Err(Failure::lost());
                },
            }
        }
    }

    /// Has nothing owed, whatever an operation before left. Executions without their Sync are undone: PostgreSQL refuses what does not exist,
    /// and with it all before.
    pub async fn settle(&mut self) -> Result<(), Failure> {
        if std::mem::take(&mut self.open) {
            let mut out = BytesMut::new();
            message::put_execute(&mut out, NOWHERE, 0);
            message::put_sync(&mut out);
            self.write(&out).await?;
        }
        while self.owed > 0 {
            if let Event::Frame(b'G', _) = self.event().await? {
                self.refuse_copy().await?;
            }
        }
        Ok(())
    }

    /// PostgreSQL waits for rows of COPY, of which there are none. While it waits, it has ignored the Sync that was sent.
    pub async fn refuse_copy(&mut self) -> Result<(), Failure> {
        self.open = false;
        let mut out = BytesMut::new();
        message::frame(&mut out, b'f', |b| b.put_slice(NO_COPY_IN));
        message::put_sync(&mut out);
        self.write(&out).await
    }

    /// Has nothing owed, and Arrow's texts, which are of UTF-8, read as such, whatever a statement before set.
    async fn ready(&mut self) -> Result<(), Failure> {
        self.settle().await?;
        // In a transaction that failed nothing is read, and what it set ends with it.
        if self.foreign && self.status != b'E' {
            let mut out = BytesMut::new();
            message::frame(&mut out, b'Q', |b| b.put_slice(b"SET client_encoding = 'UTF8'\0"));
            self.write(&out).await?;
            self.owed += 1;
            self.settle().await?;
        }
        Ok(())
    }

    /// Sends messages, which end with Sync or are a Query.
    pub async fn send(&mut self, messages: &[u8]) -> Result<(), Failure> {
        self.ready().await?;
        self.write(messages).await?;
        self.owed += 1;
        Ok(())
    }

    /// Sends what belongs to the message before: data of COPY.
    pub async fn send_more(&mut self, messages: &[u8]) -> Result<(), Failure> {
        self.write(messages).await
    }

    /// Up to ReadyForQuery. The first error is the outcome; `frame` sees all others.
    pub async fn finish(&mut self, mut frame: impl FnMut(u8, &Bytes)) -> Result<(), Failure> {
        let mut failed = None;
        while self.owed > 0 {
            match self.event().await? {
                Event::Frame(b'E', body) => {
                    failed.get_or_insert_with(|| Failure::read(&body));
                }
                Event::Frame(b'G', _) => {
                    failed.get_or_insert_with(no_copy_in);
                    self.refuse_copy().await?;
                }
                Event::Frame(b'H', _) => {
                    failed.get_or_insert_with(no_copy);
                }
                Event::Frame(tag, body) => frame(tag, &body),
                Event::Batch(_) => {}
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Prepares a statement under a name, and asks what it takes and gives.
    pub async fn prepare(&mut self, name: &str, sql: &str, close: &[String]) -> Result<Described, Failure> {
        if sql.contains('\0') {
            return Err(Failure::new("22021", "invalid byte sequence for encoding \"UTF8\": 0x00"));
        }
        let mut out = BytesMut::new();
        for old in close {
            message::put_close(&mut out, b'S', old.as_bytes());
        }
        message::put_parse(&mut out, name.as_bytes(), sql.as_bytes(), &[]);
        message::put_describe(&mut out, b'S', name.as_bytes());
        message::put_sync(&mut out);
        self.send(&out).await?;
        let mut described = Described::default();
        let mut malformed = false;
        self.finish(|tag, body| match tag {
            b't' => match message::parameter_description(body) {
                Ok(parameters) => described.parameters = parameters,
                Err(_) => malformed = true,
            },
            b'T' => match message::row_description(body) {
                Ok(fields) => described.fields = Some(fields),
                Err(_) => malformed = true,
            },
            _ => {}
        })
        .await?;
        if malformed { Err(Failure::new("08P01", "a description that cannot be read")) } else { Ok(described) }
    }

    /// Binds and executes a prepared statement; the answer is the caller's to read. All up to the `last` are one transaction, if they are in
    /// none; ReadyForQuery comes after that one alone.
    pub async fn begin(&mut self, name: &str, params: &[Option<Vec<u8>>], columns: &[Column], last: bool) -> Result<(), Failure> {
        let params: Vec<Option<&[u8]>> = params.iter().map(Option::as_deref).collect();
        let formats: Vec<i16> = columns.iter().map(Column::format).collect();
        let mut out = BytesMut::new();
        message::put_bind(&mut out, b"", name.as_bytes(), &[], &params, &formats);
        message::put_execute(&mut out, b"", 0);
        if last {
            message::put_sync(&mut out);
        } else {
            message::put_flush(&mut out);
        }
        match self.open {
            true => self.write(&out).await?,
            false => self.send(&out).await?,
        }
        self.open = !last;
        Ok(())
    }

    /// Executes a prepared statement whose rows nobody wants, once for each row of parameters, all or none of them. Gives how many rows it
    /// touched.
    pub async fn update_all(&mut self, name: &str, rows: &[Vec<Option<Vec<u8>>>], at_a_time: usize) -> Result<i64, Failure> {
        self.ready().await?;
        self.owed += 1;
        let (mut touched, mut failed) = (0, None);
        let mut rest = rows;
        while !rest.is_empty() && !is_gone() {
            // No more than the way holds: PostgreSQL may wait for somebody to read what it gives for the first of them.
            let mut out = BytesMut::new();
            let mut many = 0;
            while many < rest.len().min(at_a_time.max(1)) && (many == 0 || out.len() < PIPE / 4) {
                let params: Vec<Option<&[u8]>> = rest[many].iter().map(Option::as_deref).collect();
                let before = out.len();
                message::put_bind(&mut out, b"", name.as_bytes(), &[], &params, &[]);
                message::put_execute(&mut out, b"", 0);
                if many > 0 && out.len() > PIPE / 2 {
                    out.truncate(before);
                    break;
                }
                many += 1;
            }
            let (some, later) = rest.split_at(many);
            rest = later;
            message::put_flush(&mut out);
            self.write(&out).await?;
            let mut done = 0;
            while done < some.len() && failed.is_none() {
                match self.event().await? {
                    Event::Frame(b'C', body) => {
                        touched += affected(&body);
                        done += 1;
                    }
                    Event::Frame(b'I' | b's', _) => done += 1,
                    Event::Frame(b'E', body) => failed = Some(Failure::read(&body)),
                    Event::Frame(b'H', _) => failed = Some(no_copy()),
                    // The Sync behind it is the one below.
                    Event::Frame(b'G', _) => {
                        failed = Some(no_copy_in());
                        let mut out = BytesMut::new();
                        message::frame(&mut out, b'f', |b| b.put_slice(NO_COPY_IN));
                        self.write(&out).await?;
                    }
                    _ => {}
                }
            }
            if failed.is_some() {
                break;
            }
        }
        let mut out = BytesMut::new();
        if failed.is_none() && is_gone() {
            failed = Some(given_up());
            // Refused, and with it all before.
            message::put_execute(&mut out, NOWHERE, 0);
        }
        message::put_sync(&mut out);
        self.write(&out).await?;
        let finished = self.finish(|_, _| ()).await;
        match failed {
            Some(e) => Err(e),
            None => finished.map(|()| touched),
        }
    }

    /// A statement of Flight's own with text parameters; its rows in text.
    pub async fn query(&mut self, sql: &str, params: &[Option<&str>]) -> Result<TextRows, Failure> {
        let params: Vec<Option<&[u8]>> = params.iter().map(|p| p.map(str::as_bytes)).collect();
        let mut out = BytesMut::new();
        message::put_parse(&mut out, b"", sql.as_bytes(), &[]);
        message::put_bind(&mut out, b"", b"", &[], &params, &[]);
        message::put_execute(&mut out, b"", 0);
        message::put_sync(&mut out);
        self.send(&out).await?;
        let mut rows = Vec::new();
        self.finish(|tag, body| {
            if tag == b'D' {
                let row = message::data_row(body).unwrap_or_default();
                rows.push(row.into_iter().map(|v| v.map(|v| String::from_utf8_lossy(v).into_owned())).collect());
            }
        })
        .await?;
        Ok(rows)
    }

    /// As SQL, for what has no parameters. Gives the last command tag.
    pub async fn command(&mut self, sql: &str) -> Result<String, Failure> {
        let mut out = BytesMut::new();
        message::frame(&mut out, b'Q', |b| {
            b.put_slice(sql.as_bytes());
            b.put_u8(0);
        });
        self.send(&out).await?;
        let mut last = String::new();
        self.finish(|tag, body| {
            if tag == b'C' {
                last = tag_text(body);
            }
        })
        .await?;
        Ok(last)
    }
}

/// Of COPY TO STDOUT, whose rows no client would see.
pub fn no_copy() -> Failure {
    Failure::new("0A000", "COPY TO STDOUT is not spoken over Flight").hint("Use SELECT.")
}

/// Of COPY FROM STDIN, whose rows no client could send.
pub fn no_copy_in() -> Failure {
    Failure::new("0A000", "COPY FROM STDIN is not spoken over Flight").hint("Use bulk ingestion, or INSERT with a batch of parameters.")
}

fn tag_text(body: &[u8]) -> String {
    String::from_utf8_lossy(body.strip_suffix(b"\0").unwrap_or(body)).into_owned()
}

/// The number at the end of a command tag; 0 of a command that has none, as drivers expect of DDL.
pub fn affected(body: &[u8]) -> i64 {
    tag_text(body).rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn startup_packet(startup: &Startup) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_i32(0);
    out.put_i32(196_608);
    for (name, value) in &startup.params {
        for text in [name, value] {
            out.put_slice(text.as_bytes());
            out.put_u8(0);
        }
    }
    out.put_u8(0);
    let len = out.len() as i32;
    out[..4].copy_from_slice(&len.to_be_bytes());
    out
}

/// The client's last message of SCRAM, and what PostgreSQL must answer to it.
fn scram_last(password: &str, nonce: &str, bare: &str, server_first: &str) -> Option<(String, String)> {
    let first = crate::wire::scram::ServerFirst::read(server_first)?;
    if !first.nonce.starts_with(nonce) || first.nonce.len() == nonce.len() || first.iterations > MAX_ITERATIONS {
        return None;
    }
    let without_proof = format!("c=biws,r={}", first.nonce);
    let message = format!("{bare},{server_first},{without_proof}");
    let salted = salted_password(&prepared(password), &BASE64.decode(first.salt).ok()?, first.iterations);
    let client_key = hmac(&salted, b"Client Key");
    let signature = hmac(&Sha256::digest(client_key), message.as_bytes());
    let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, sig)| key ^ sig).collect();
    let expected = hmac(&hmac(&salted, b"Server Key"), message.as_bytes());
    Some((format!("{without_proof},p={}", BASE64.encode(proof)), format!("v={}", BASE64.encode(expected))))
}

/// A password as libpq prepares it for SCRAM (RFC 4013): one that cannot be prepared counts as it is.
fn prepared(password: &str) -> Cow<'_, str> {
    // PostgreSQL looks for these in what was typed, `saslprep` in what it has become.
    let refused = |c: char| tables::unassigned_code_point(c) || tables::change_display_properties_or_deprecated(c);
    match stringprep::saslprep(password) {
        Ok(prepared) if !prepared.is_empty() && !password.chars().any(refused) => prepared,
        _ => Cow::Borrowed(password),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_prepared_as_libpq_does() {
        assert_eq!(prepared("e\u{301}"), "\u{e9}");
        assert_eq!(prepared("x\u{ad}"), "x");
        assert_eq!(prepared("x\u{a0}y"), "x y");
        // Nothing left; a control character; a code point of later days; Arabic beside Latin.
        for as_it_is in ["plain", "\u{ad}", "\u{7}\u{e9}", "\u{1f100}", "\u{627}a"] {
            assert_eq!(prepared(as_it_is), as_it_is);
        }
    }
}
