//! One connection of postgres_fdw: login, then its few statements, in the simple protocol and, for parameters, the extended one.
//! ✗ which rows a statement gets.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use rand::Rng;
use sqlx::postgres::types::Oid;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use super::Door;
use super::fence::{self, Admitted, Column, unreadable};
use super::judge::{Judge, Spool};
use super::scan::Rows;
use super::scram;
use super::sql::{self, Statement};
use crate::cancel::{Guard, Handle, Key, MIN_SECRET};
use crate::session::link::Side;
use crate::wire::frame;
use crate::wire::message::{self, Bind, ErrorReport, Execute, Parse, Reader, Target};
use crate::wire::startup::{self, MAX_STARTUP, Opening};

/// How long a login may take.
const LOGIN_LIMIT: Duration = Duration::from_secs(30);
/// How long a connection may rest outside of a transaction; postgres_fdw opens another when it needs one.
const IDLE_LIMIT: Duration = Duration::from_secs(900);
/// The longest message taken in: a condition can hold a long list.
const MAX_MESSAGE: usize = 64 << 20;
/// Cursors of one connection: one for each scan of cold rows that a transaction has open.
const MAX_CURSORS: usize = 256;
/// Bytes of rows that are made before they are sent.
const ENOUGH: usize = 256 << 10;

enum Cursor {
    Rows(Box<Rows>),
    Spool(Box<Spool>),
}

struct Open {
    cursor: Cursor,
    /// How many savepoints there were when it was declared.
    depth: usize,
}

struct Session {
    door: Arc<Door>,
    side: Side,
    pid: i32,
    role: u32,
    handle: Arc<Handle>,
    /// `I`, `T` or `E`, as in ReadyForQuery.
    status: u8,
    savepoints: Vec<String>,
    cursors: HashMap<String, Open>,
    judge: Option<Judge>,
    /// Prepared and bound, for the extended protocol: the unnamed ones only.
    prepared: Option<String>,
    bound: Option<String>,
    /// After an error, until Sync.
    skipping: bool,
}

/// The peer went away; nobody is to be told.
struct Gone;

impl From<io::Error> for Gone {
    fn from(_: io::Error) -> Self {
        Gone
    }
}

/// Serves a connection until it ends.
pub(super) async fn serve(door: Arc<Door>, stream: UnixStream) {
    let pid = stream.peer_cred().ok().and_then(|c| c.pid());
    let mut side = match Side::unix(stream) {
        Ok(side) => side,
        Err(e) => return tracing::warn!(error = %e, "a connection to the door to cold rows could not be watched"),
    };
    let login = tokio::time::timeout(LOGIN_LIMIT, login(&door, &mut side, pid)).await;
    let (role, guard, _place, pid) = match login {
        Ok(Ok(Some(in_))) => in_,
        Ok(Ok(None) | Err(Gone)) | Err(_) => return side.finish().await,
    };
    let mut session = Session {
        door,
        side,
        pid,
        role,
        handle: guard.handle.clone(),
        status: b'I',
        savepoints: Vec::new(),
        cursors: HashMap::new(),
        judge: None,
        prepared: None,
        bound: None,
        skipping: false,
    };
    // The peer's end is the only way out.
    let _ = session.run().await;
    drop(guard);
}

type LoggedIn = (u32, Guard, tokio::sync::OwnedSemaphorePermit, i32);

async fn refuse(side: &mut Side, report: ErrorReport) -> Result<Option<LoggedIn>, Gone> {
    message::put_error(&mut side.output, &report);
    side.flush().await?;
    Ok(None)
}

async fn login(door: &Arc<Door>, side: &mut Side, pid: Option<i32>) -> Result<Option<LoggedIn>, Gone> {
    let startup = loop {
        match startup::read(&packet(side).await?) {
            Ok(Opening::Ssl | Opening::Gss) => {
                side.output.put_u8(b'N');
                side.flush().await?;
            }
            Ok(Opening::Cancel { pid, key }) => {
                // Says nothing, like PostgreSQL.
                door.cancels.request(&Key { pid, secret: key });
                return Ok(None);
            }
            Ok(Opening::BrokenCancel) => return Ok(None),
            Ok(Opening::Start(startup)) => break startup,
            Ok(Opening::Unsupported) => {
                return refuse(side, ErrorReport::fatal("0A000", "the door to cold rows speaks protocol 3")).await;
            }
            Err(e) => return refuse(side, ErrorReport::fatal("08P01", e.to_string())).await,
        }
    };
    let Ok(place) = door.connections.clone().try_acquire_owned() else {
        return refuse(side, ErrorReport::fatal("53300", "too many connections to the door of cold rows"))
            .await;
    };
    let Some(pid) = pid else {
        return refuse(
            side,
            ErrorReport::fatal("28000", "the process at the other end of the socket is not known"),
        )
        .await;
    };
    let encoding = startup.get("client_encoding").unwrap_or("UTF8").to_ascii_uppercase().replace('-', "");
    if !["UTF8", "UNICODE"].contains(&encoding.as_str()) {
        return refuse(side, ErrorReport::fatal("0A000", "the door to cold rows speaks UTF8"))
            .await;
    }
    let role: Option<u32> = startup.user().parse().ok();
    let secret = match role {
        Some(role) => {
            let asked = sqlx::query_scalar("SELECT watershed_control.cold_secret($1)")
                .bind(Oid(role))
                .fetch_one(&door.control)
                .await;
            match asked {
                Ok(secret) => secret,
                Err(e) => return refuse(side, ErrorReport { severity: "FATAL", ..unreadable(&e) }).await,
            }
        }
        None => None,
    };
    // Who has no secret is asked all the same, and learns nothing.
    let known = secret.is_some();
    let secret: String = secret.unwrap_or_else(|| hex::encode(rand::rng().random::<[u8; 32]>()));
    let denied = || {
        ErrorReport::fatal("28P01", format!("password authentication failed for user \"{}\"", startup.user()))
    };
    if !proven(side, &secret).await? || !known {
        return refuse(side, denied()).await;
    }
    let Some(role) = role else { return refuse(side, denied()).await };
    let number = door.next.fetch_add(1, Ordering::Relaxed);
    let guard = door.cancels.register(number, MIN_SECRET, None);
    let out = &mut side.output;
    message::frame(out, b'R', |b| b.put_i32(0));
    for (name, value) in [
        ("server_version", "15.0"),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO, MDY"),
        ("IntervalStyle", "postgres"),
        ("TimeZone", "UTC"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
    ] {
        message::frame(out, b'S', |b| {
            b.put_slice(name.as_bytes());
            b.put_u8(0);
            b.put_slice(value.as_bytes());
            b.put_u8(0);
        });
    }
    message::put_key(out, number, &guard.key.secret);
    ready(out, b'I');
    side.flush().await?;
    Ok(Some((role, guard, place, pid)))
}

/// SCRAM-SHA-256; false: the proof does not hold.
async fn proven(side: &mut Side, secret: &str) -> Result<bool, Gone> {
    message::frame(&mut side.output, b'R', |b| {
        b.put_i32(10);
        b.put_slice(b"SCRAM-SHA-256\0\0");
    });
    side.flush().await?;
    let first = next(side).await?;
    let Some(client_first) = (|| {
        let mut r = Reader::new(frame::body(&first), "SASLInitialResponse");
        let mechanism = r.cstr().ok()?;
        let text = r.value().ok()??;
        (first[0] == b'p' && mechanism == b"SCRAM-SHA-256").then(|| std::str::from_utf8(text).ok())?
    })() else {
        return Ok(false);
    };
    let nonce = hex::encode(rand::rng().random::<[u8; 18]>());
    let Some(login) = scram::Login::new(client_first, rand::rng().random(), &nonce) else { return Ok(false) };
    message::frame(&mut side.output, b'R', |b| {
        b.put_i32(11);
        b.put_slice(login.first().as_bytes());
    });
    side.flush().await?;
    let last = next(side).await?;
    let proof = std::str::from_utf8(frame::body(&last)).ok().filter(|_| last[0] == b'p');
    let Some(answer) = proof.and_then(|p| login.last(p, secret)) else { return Ok(false) };
    message::frame(&mut side.output, b'R', |b| {
        b.put_i32(12);
        b.put_slice(answer.as_bytes());
    });
    Ok(true)
}

fn ready(out: &mut BytesMut, status: u8) {
    message::frame(out, b'Z', |b| b.put_u8(status));
}

/// The body of a startup packet.
async fn packet(side: &mut Side) -> Result<Bytes, Gone> {
    loop {
        if let [a, b, c, d, ..] = side.input[..] {
            let len = i32::from_be_bytes([a, b, c, d]);
            let len = usize::try_from(len).ok().filter(|n| (8..=MAX_STARTUP).contains(n)).ok_or(Gone)?;
            if side.input.len() >= len {
                let mut whole = side.input.split_to(len);
                whole.advance(4);
                return Ok(whole.freeze());
            }
        }
        if side.fill().await? == 0 {
            return Err(Gone);
        }
    }
}

/// The next whole frame.
async fn next(side: &mut Side) -> Result<Bytes, Gone> {
    loop {
        if let Some(h) = frame::peek(&side.input).map_err(|_| Gone)? {
            if h.len > MAX_MESSAGE {
                let report = ErrorReport::fatal("54000", "a message is too long for the door to cold rows");
                message::put_error(&mut side.output, &report);
                side.flush().await?;
                return Err(Gone);
            }
            if side.input.len() >= h.len {
                return Ok(side.input.split_to(h.len).freeze());
            }
        }
        if side.fill().await? == 0 {
            return Err(Gone);
        }
    }
}

fn protocol(e: impl std::fmt::Display) -> ErrorReport {
    ErrorReport::error("08P01", e.to_string())
}

fn not_served(sql: &str) -> ErrorReport {
    let shown: String = sql.chars().take(200).collect();
    ErrorReport::error("0A000", "the door to cold rows serves what postgres_fdw reads with, and nothing else")
        .detail(format!("Not served: {shown}"))
}

/// What ends a statement.
enum End {
    Gone,
    Error(ErrorReport),
}

impl From<Gone> for End {
    fn from(_: Gone) -> Self {
        End::Gone
    }
}

impl From<ErrorReport> for End {
    fn from(report: ErrorReport) -> Self {
        End::Error(report)
    }
}

impl Session {
    async fn run(&mut self) -> Result<(), Gone> {
        loop {
            let f = match self.status {
                b'I' => match tokio::time::timeout(IDLE_LIMIT, next(&mut self.side)).await {
                    Ok(f) => f?,
                    Err(_) => {
                        let report =
                            ErrorReport::fatal("57P05", "terminating connection due to idle-session timeout");
                        message::put_error(&mut self.side.output, &report);
                        return Ok(self.side.flush().await?);
                    }
                },
                _ => next(&mut self.side).await?,
            };
            if f[0] == b'X' {
                return Ok(());
            }
            let handle = self.handle.clone();
            let cancel = handle.begin();
            let outcome = self.message(&f, &cancel).await;
            handle.end();
            match outcome {
                Ok(()) => {}
                Err(End::Gone) => return Err(Gone),
                Err(End::Error(report)) => {
                    message::put_error(&mut self.side.output, &report);
                    if self.status == b'T' {
                        self.status = b'E';
                    }
                    self.skipping = f[0] != b'Q';
                }
            }
            if f[0] == b'Q' || f[0] == b'S' {
                ready(&mut self.side.output, self.status);
            }
            self.side.flush().await?;
        }
    }

    async fn message(&mut self, f: &Bytes, cancel: &CancellationToken) -> Result<(), End> {
        if f[0] == b'S' {
            self.skipping = false;
            return Ok(());
        }
        if self.skipping {
            return Ok(());
        }
        let body = frame::body(f);
        match f[0] {
            b'Q' => {
                let text =
                    std::str::from_utf8(message::query_text(body).map_err(protocol)?).map_err(protocol)?;
                self.execute(text, cancel).await
            }
            b'P' => {
                let parse = Parse::read(body).map_err(protocol)?;
                let text = std::str::from_utf8(parse.sql).map_err(protocol)?;
                if !parse.name.is_empty() {
                    return Err(not_served(text).into());
                }
                self.prepared = Some(text.to_owned());
                message::frame(&mut self.side.output, b'1', |_| {});
                Ok(())
            }
            b'B' => {
                let bind = Bind::read(body).map_err(protocol)?;
                let text = self.prepared.clone().unwrap_or_default();
                if !(bind.portal.is_empty() && bind.statement.is_empty())
                    || bind.param_formats.iter().any(|f| *f != 0)
                {
                    return Err(not_served(&text).into());
                }
                let values = (bind.params.iter())
                    .map(|v| v.map(|v| String::from_utf8(v.to_vec())).transpose())
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(protocol)?;
                self.bound = Some(sql::with_params(&text, &values).ok_or_else(|| not_served(&text))?);
                message::frame(&mut self.side.output, b'2', |_| {});
                Ok(())
            }
            b'D' => {
                let target = Target::read(body).map_err(protocol)?;
                if target.kind != b'P' || !target.name.is_empty() {
                    return Err(not_served("Describe of a statement").into());
                }
                // What is executed so is DECLARE, which returns nothing.
                message::frame(&mut self.side.output, b'n', |_| {});
                Ok(())
            }
            b'E' => {
                Execute::read(body).map_err(protocol)?;
                let text = self.bound.take().ok_or_else(|| protocol("nothing is bound"))?;
                match sql::statements(&text).as_deref() {
                    Ok([Statement::Declare { .. }]) => self.execute(&text, cancel).await,
                    _ => Err(not_served(&text).into()),
                }
            }
            b'C' => {
                message::frame(&mut self.side.output, b'3', |_| {});
                Ok(())
            }
            b'H' => Ok(()),
            tag => Err(protocol(format!("message {tag:#04x} is not served here")).into()),
        }
    }

    /// Waits for `work` and for the peer's going away at once: it sends nothing while it waits.
    async fn unless_gone<T>(
        side: &mut Side,
        work: impl Future<Output = Result<T, ErrorReport>>,
    ) -> Result<T, End> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done?),
                filled = side.fill() => if filled.map_err(Gone::from)? == 0 {
                    return Err(End::Gone);
                },
            }
        }
    }

    async fn execute(&mut self, text: &str, cancel: &CancellationToken) -> Result<(), End> {
        let statements = sql::statements(text).map_err(|part| not_served(&part))?;
        for statement in statements {
            let ends = matches!(
                statement,
                Statement::Commit | Statement::Abort | Statement::RollbackTo(_) | Statement::DeallocateAll
            );
            if self.status == b'E' && !ends {
                return Err(ErrorReport::error(
                    "25P02",
                    "current transaction is aborted, commands ignored until end of transaction block",
                )
                .into());
            }
            let tag = self.statement(statement, cancel).await?;
            message::put_command_complete(&mut self.side.output, &tag);
        }
        Ok(())
    }

    async fn statement(&mut self, statement: Statement, cancel: &CancellationToken) -> Result<String, End> {
        let no_savepoint =
            |name: &str| ErrorReport::error("3B001", format!("savepoint \"{name}\" does not exist"));
        Ok(match statement {
            Statement::Set => "SET".to_owned(),
            Statement::Begin => {
                self.status = b'T';
                "START TRANSACTION".to_owned()
            }
            Statement::Commit | Statement::Abort => {
                let tag = if matches!(statement, Statement::Commit) && self.status != b'E' {
                    "COMMIT"
                } else {
                    "ROLLBACK"
                };
                self.status = b'I';
                self.savepoints.clear();
                self.cursors.clear();
                self.judge = None;
                tag.to_owned()
            }
            Statement::Savepoint(name) => {
                self.savepoints.push(name);
                "SAVEPOINT".to_owned()
            }
            Statement::Release(name) => {
                let at =
                    self.savepoints.iter().rposition(|s| *s == name).ok_or_else(|| no_savepoint(&name))?;
                self.savepoints.truncate(at);
                self.cursors.values_mut().for_each(|c| c.depth = c.depth.min(at));
                "RELEASE".to_owned()
            }
            Statement::RollbackTo(name) => {
                let at =
                    self.savepoints.iter().rposition(|s| *s == name).ok_or_else(|| no_savepoint(&name))?;
                self.savepoints.truncate(at + 1);
                self.cursors.retain(|_, c| c.depth <= at);
                self.status = b'T';
                "ROLLBACK".to_owned()
            }
            Statement::DeallocateAll => "DEALLOCATE ALL".to_owned(),
            Statement::Declare { cursor, query } => {
                if self.status != b'T' {
                    return Err(ErrorReport::error(
                        "25P01",
                        "DECLARE CURSOR can only be used in transaction blocks",
                    )
                    .into());
                }
                if self.cursors.len() >= MAX_CURSORS {
                    return Err(ErrorReport::error("53400", "too many scans of cold rows at once").into());
                }
                let opened = self.declare(&query, cancel).await?;
                self.cursors.insert(cursor, Open { cursor: opened, depth: self.savepoints.len() });
                "DECLARE CURSOR".to_owned()
            }
            Statement::Fetch { cursor, rows } => {
                format!("FETCH {}", self.fetch(&cursor, rows, cancel).await?)
            }
            Statement::Rewind { cursor } => {
                match &mut self.opened(&cursor)?.cursor {
                    Cursor::Rows(rows) => rows.rewind(),
                    Cursor::Spool(spool) => spool.rewind().await?,
                }
                "MOVE 0".to_owned()
            }
            Statement::Close { cursor } => {
                self.opened(&cursor)?;
                self.cursors.remove(&cursor);
                "CLOSE CURSOR".to_owned()
            }
            Statement::Pages { relation } => {
                let relid = sql::qualified_relid(&relation).ok_or_else(|| not_served(&relation))?;
                let admitted =
                    Self::unless_gone(&mut self.side, fence::admit(&self.door, relid, self.pid, self.role))
                        .await?;
                let cold = admitted
                    .pin
                    .version
                    .files
                    .iter()
                    .filter(|f| lake::types::partition_day(admitted.floor_us) > f.day);
                let bytes: u64 = cold.map(|f| f.size).sum();
                described(&mut self.side.output, 1);
                message::put_text_row(&mut self.side.output, &(bytes / 8192).max(1).to_string());
                "SELECT 1".to_owned()
            }
        })
    }

    fn opened(&mut self, cursor: &str) -> Result<&mut Open, ErrorReport> {
        self.cursors
            .get_mut(cursor)
            .ok_or_else(|| ErrorReport::error("34000", format!("cursor \"{cursor}\" does not exist")))
    }

    async fn declare(&mut self, query: &str, cancel: &CancellationToken) -> Result<Cursor, End> {
        let (door, pid, role) = (self.door.clone(), self.pid, self.role);
        if let Some(scan) = sql::scan(query) {
            let admitted =
                Self::unless_gone(&mut self.side, fence::admit(&door, scan.relid, pid, role)).await?;
            if let Some(rows) = Rows::of(&admitted, &scan)? {
                return Ok(Cursor::Rows(Box::new(rows)));
            }
        }
        // Anything else, sorted by a locale, joined or aggregated, PostgreSQL answers over temporary tables of the rows.
        let mut relids = Vec::new();
        let named = sql::with_relations(query, &mut |relid| {
            if !relids.contains(&relid) {
                relids.push(relid);
            }
            Spool::name(relid)
        });
        let Some(named) = named.filter(|_| !relids.is_empty()) else { return Err(not_served(query).into()) };
        let work = async {
            let mut spool = Spool::new(&door).await?;
            let (named_here, filters) = (sql::names(query), sql::filters(query));
            let mut known = std::collections::HashSet::new();
            for relid in relids {
                let admitted: Admitted = fence::admit(&door, relid, pid, role).await?;
                let mut columns: Vec<Column> =
                    admitted.columns.iter().filter(|c| named_here.contains(&c.name)).cloned().collect();
                if columns.is_empty() {
                    // Rows are counted by a column of theirs.
                    columns.extend(admitted.columns.first().cloned());
                }
                known.extend(columns.iter().map(|c| c.name.clone()));
                spool.make(relid, &columns).await?;
                let mut rows = Rows::for_query(&admitted, &columns, &filters)?;
                while let Some(texts) = rows.texts(&door, cancel).await? {
                    spool.add(relid, &columns, texts).await?;
                }
            }
            spool.open(&named, query, &known).await?;
            Ok(spool)
        };
        let work = async {
            tokio::select! {
                done = work => done,
                () = cancel.cancelled() => Err(ErrorReport::error("57014", "canceling statement due to user request")),
            }
        };
        Ok(Cursor::Spool(Box::new(Self::unless_gone(&mut self.side, work).await?)))
    }

    /// Sends up to `rows` rows; gives how many.
    async fn fetch(&mut self, cursor: &str, rows: usize, cancel: &CancellationToken) -> Result<usize, End> {
        let door = self.door.clone();
        let wants_judge = matches!(&self.opened(cursor)?.cursor, Cursor::Rows(r) if r.needs_judge());
        // What is cut short leaves a connection that nobody may use again.
        let mut judge = match wants_judge {
            true => match self.judge.take() {
                Some(judge) => Some(judge),
                None => Some(Self::unless_gone(&mut self.side, Judge::connect(&door)).await?),
            },
            false => None,
        };
        let Some(open) = self.cursors.get_mut(cursor) else {
            return Err(ErrorReport::error("34000", "no such cursor").into());
        };
        let mut sent = 0;
        match &mut open.cursor {
            Cursor::Rows(scan) => {
                described(&mut self.side.output, scan.width());
                while sent < rows {
                    let mut out = std::mem::take(&mut self.side.output);
                    let work = scan.fetch(&door, judge.as_mut(), cancel, rows - sent, ENOUGH, &mut out);
                    let done = Self::unless_gone(&mut self.side, work).await;
                    self.side.output = out;
                    let (written, more) = done?;
                    sent += written;
                    if !more {
                        break;
                    }
                    if self.side.output.len() >= ENOUGH {
                        self.side.flush().await.map_err(Gone::from)?;
                    }
                }
            }
            Cursor::Spool(spool) => {
                let mut out = BytesMut::new();
                let (fetched, columns) =
                    Self::unless_gone(&mut self.side, spool.fetch(rows, &mut out)).await?;
                described(&mut self.side.output, columns);
                self.side.output.extend_from_slice(&out);
                sent = fetched;
            }
        }
        if judge.is_some() {
            self.judge = judge;
        }
        Ok(sent)
    }
}

/// RowDescription of so many texts; postgres_fdw reads values by position.
fn described(out: &mut BytesMut, columns: usize) {
    message::frame(out, b'T', |b| {
        b.put_u16(columns as u16);
        for i in 1..=columns {
            b.put_slice(format!("c{i}").as_bytes());
            b.put_u8(0);
            b.put_i32(0);
            b.put_i16(0);
            b.put_i32(25);
            b.put_i16(-1);
            b.put_i32(-1);
            b.put_i16(0);
        }
    });
}
