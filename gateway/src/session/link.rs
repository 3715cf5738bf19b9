//! The two sockets of a session and their buffers. Bytes move in both directions at once, each bounded, so
//! that neither side can block the other for good. ✗ what the bytes mean.

use super::awake::{Asleep, Awake};
use super::upstream_socket;
use crate::telemetry::Moved;
use bytes::{Buf, BytesMut};
use std::future::poll_fn;
use std::io;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// Reading stops while this many bytes wait to be written the other way.
pub const BUFFER_LIMIT: usize = 256 * 1024;
/// Buffers larger than this are given back when a session rests.
const RESTING: usize = 16 * 1024;
/// Room for what is read at once: more while more is always there.
const PIECE: usize = 8 * 1024;
const MAX_PIECE: usize = 64 * 1024;
/// A peer that does not read what is left for it holds nobody up for longer.
const FINISH_LIMIT: Duration = Duration::from_secs(10);

type Rd = Box<dyn AsyncRead + Send + Unpin>;
type Wr = Box<dyn AsyncWrite + Send + Unpin>;

/// One socket: what came in and is not consumed, what is to go out and is not written.
pub struct Side {
    rd: Rd,
    wr: Wr,
    pub input: BytesMut,
    pub output: BytesMut,
    pub closed: bool,
    /// TLS may keep written bytes back until it is flushed,
    encrypted: bool,
    /// and has done so.
    unflushed: bool,
    /// Nothing more can be written: what it has sent may still be read.
    broken: bool,
    /// Room for the next read, in bytes.
    piece: usize,
}

impl Side {
    fn new(rd: impl AsyncRead + Send + Unpin + 'static, wr: impl AsyncWrite + Send + Unpin + 'static) -> Self {
        Side {
            rd: Box::new(rd),
            wr: Box::new(wr),
            input: BytesMut::with_capacity(16 * 1024),
            output: BytesMut::with_capacity(16 * 1024),
            closed: false,
            encrypted: false,
            unflushed: false,
            broken: false,
            piece: PIECE,
        }
    }

    /// A TLS connection after its handshake.
    pub fn tls(stream: TlsStream<TcpStream>) -> Self {
        let (rd, wr) = tokio::io::split(stream);
        Side { encrypted: true, ..Side::new(rd, wr) }
    }

    /// The other end is beyond a network, or may be: TLS is below.
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// The other end is gone: nothing more is read, and what was to be written, or flushed, is not wanted.
    pub fn abandon(&mut self) {
        self.closed = true;
        self.unflushed = false;
        self.output.clear();
    }

    /// A client inside of this process.
    pub fn inside(stream: DuplexStream) -> Self {
        let (rd, wr) = tokio::io::split(stream);
        Side::new(rd, wr)
    }

    /// A TCP connection.
    pub fn tcp(stream: TcpStream) -> Self {
        // Small answers must not wait for a full segment.
        let _ = stream.set_nodelay(true);
        let (rd, wr) = stream.into_split();
        Side::new(rd, wr)
    }

    /// A Unix-domain connection to PostgreSQL.
    pub fn unix(stream: UnixStream) -> io::Result<Self> {
        let (rd, wr) = upstream_socket::split(stream)?;
        Ok(Side::new(rd, wr))
    }

    /// Reads once into `input`; 0 is the end. Cancel safe.
    pub async fn fill(&mut self) -> io::Result<usize> {
        self.input.reserve(PIECE);
        let n = end_is_an_end(self.rd.read_buf(&mut self.input).await)?;
        if n == 0 {
            self.closed = true;
        }
        Ok(n)
    }

    /// Writes once from `output`. Cancel safe.
    pub async fn drain_some(&mut self) -> io::Result<()> {
        let n = write_or_flush(&mut self.wr, &self.output).await?;
        self.output.advance(n);
        self.unflushed = self.encrypted && n > 0;
        Ok(())
    }

    /// Writes all of `output`. Not cancel safe with respect to time, safe with respect to bytes.
    pub async fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            self.drain_some().await?;
        }
        self.wr.flush().await?;
        self.unflushed = false;
        Ok(())
    }

    /// Reads once into `input`; 0 is the end. TLS that is cut off is an error here.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.input.reserve(self.piece);
        let room = self.input.capacity() - self.input.len();
        let n = ready!(pin!(self.rd.read_buf(&mut self.input)).poll(cx))?;
        if n == room {
            self.piece = (self.piece * 2).min(MAX_PIECE);
        }
        Poll::Ready(Ok(n))
    }

    /// Writes `output`, as far as it can be written now; `wrote` tells that some was.
    fn poll_write_all(&mut self, cx: &mut Context<'_>, wrote: &mut bool) -> Poll<io::Result<()>> {
        while !self.output.is_empty() || self.unflushed {
            if self.output.is_empty() {
                ready!(Pin::new(&mut self.wr).poll_flush(cx))?;
                self.unflushed = false;
                break;
            }
            match ready!(Pin::new(&mut self.wr).poll_write(cx, &self.output))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.output.advance(n),
            }
            self.unflushed = self.encrypted;
            *wrote = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what is left and closes the sending half.
    pub async fn finish(&mut self) {
        let _ = tokio::time::timeout(FINISH_LIMIT, async {
            if self.flush().await.is_ok() {
                let _ = self.wr.shutdown().await;
            }
        })
        .await;
    }
}

/// Writes some of `out`; with nothing to write, what the writer keeps back. Cancel safe.
async fn write_or_flush(wr: &mut Wr, out: &[u8]) -> io::Result<usize> {
    if out.is_empty() {
        return wr.flush().await.map(|()| 0);
    }
    match wr.write(out).await? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        n => Ok(n),
    }
}

/// TLS has an error for a peer that goes without a goodbye; messages carry lengths of their own, so that nothing can
/// be cut off unnoticed.
fn end_is_an_end(read: io::Result<usize>) -> io::Result<usize> {
    read.or_else(|e| if e.kind() == io::ErrorKind::UnexpectedEof { Ok(0) } else { Err(e) })
}

/// Where PostgreSQL listens.
#[derive(Debug, Clone)]
pub enum UpstreamAddress {
    /// The socket file itself.
    Unix(PathBuf),
    Tcp(String, u16),
}

impl UpstreamAddress {
    /// Opens a connection.
    pub async fn connect(&self) -> io::Result<Side> {
        match self {
            UpstreamAddress::Unix(path) => Side::unix(UnixStream::connect(path).await?),
            UpstreamAddress::Tcp(host, port) => TcpStream::connect((host.as_str(), *port)).await.map(Side::tcp),
        }
    }
}

/// What happened in one turn of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// More bytes from the client are in `client.input`.
    Client,
    /// More bytes from PostgreSQL are in `upstream.input`.
    Upstream,
    /// Only writing went on.
    Wrote,
    ClientClosed,
    UpstreamClosed,
}

/// Both sockets of a session.
pub struct Link {
    pub client: Side,
    pub upstream: Side,
    /// A buffer has held more than it keeps when the session rests.
    grown: bool,
    /// Whose turn it was last to be read first.
    client_first: bool,
    moved: Moved,
    /// How long the last waits were: for the client, and for PostgreSQL.
    waited: [Duration; 2],
    /// How long a wait may be spent awake.
    pub awake_for: Duration,
}

impl Link {
    /// Of two connections; what they have read already stays.
    pub fn new(client: Side, upstream: Side) -> Self {
        Link { client, upstream, grown: false, client_first: false, moved: Moved::default(), waited: [Duration::MAX; 2], awake_for: Duration::ZERO }
    }

    /// Hands on the first `n` bytes from the client. (Copied: shared buffers would have to be made anew.)
    pub fn to_upstream(&mut self, n: usize) {
        self.upstream.output.extend_from_slice(&self.client.input[..n]);
        self.client.input.advance(n);
    }

    /// Hands on the first `n` bytes from PostgreSQL.
    pub fn to_client(&mut self, n: usize) {
        self.client.output.extend_from_slice(&self.upstream.input[..n]);
        self.upstream.input.advance(n);
    }

    /// Waits until some bytes moved. Cancel safe.
    pub async fn turn(&mut self) -> io::Result<Turn> {
        poll_fn(|cx| self.poll_turn(cx, false, false)).await
    }

    /// As [`Link::turn`], but what is to be written is written without a word, unless reading was held up by it or buffers have grown.
    /// With `whole_frame` the client is read even when its input is over the limit: one long frame must be completed.
    /// `owed`: PostgreSQL is at work for this session.
    pub async fn exchange(&mut self, whole_frame: bool, owed: bool) -> io::Result<Turn> {
        if let Some(turn) = self.look(whole_frame).await {
            return turn;
        }
        let began = Instant::now();
        let whom = usize::from(owed);
        // A wait is as long as the one before for the same, as a rule.
        if self.waited[whom] <= self.awake_for
            && let Some(mut awake) = Awake::begin(began, self.awake_for)
        {
            while awake.goes_on(Instant::now()) {
                // The thread's other sessions have their turn, and the sockets are asked.
                tokio::task::yield_now().await;
                if let Some(turn) = self.look(whole_frame).await {
                    self.waited[whom] = began.elapsed();
                    return turn;
                }
            }
        }
        let asleep = owed.then(Asleep::begin);
        let turn = poll_fn(|cx| self.poll_turn(cx, whole_frame, true)).await;
        drop(asleep);
        self.waited[whom] = began.elapsed();
        turn
    }

    /// What can be done at once.
    async fn look(&mut self, whole_frame: bool) -> Option<io::Result<Turn>> {
        poll_fn(|cx| {
            Poll::Ready(match self.poll_turn(cx, whole_frame, true) {
                Poll::Ready(turn) => Some(turn),
                Poll::Pending => None,
            })
        })
        .await
    }

    /// Gives back what a large answer has left.
    pub fn rest(&mut self) {
        self.moved.hand_in();
        let Link { client, upstream, .. } = self;
        if !client.output.is_empty() || !upstream.output.is_empty() {
            return;
        }
        self.grown = false;
        (client.piece, upstream.piece) = (PIECE, PIECE);
        for buffer in [&mut client.input, &mut client.output, &mut upstream.input, &mut upstream.output] {
            // Of what is allocated, the capacity tells only what lies behind the last byte that was taken.
            if buffer.is_empty() && buffer.try_reclaim(RESTING + 1) {
                *buffer = BytesMut::new();
            }
        }
    }

    /// Writes what can be written, then reads once from one of both. Everything is noted before it returns: nothing is lost if it is
    /// not polled again.
    fn poll_turn(&mut self, cx: &mut Context<'_>, whole_frame: bool, quiet: bool) -> Poll<io::Result<Turn>> {
        let Link { client, upstream, grown, client_first, moved, .. } = self;
        let lengths = [client.input.len(), client.output.len(), upstream.input.len(), upstream.output.len()];
        *grown |= lengths.into_iter().any(|n| n > RESTING) || client.piece.max(upstream.piece) > PIECE;
        let mut wrote = false;
        if upstream.broken {
            upstream.output.clear();
        }
        match upstream.poll_write_all(cx, &mut wrote) {
            Poll::Ready(Err(_)) => {
                // PostgreSQL is gone. What it said before is still to be read, then its end.
                upstream.broken = true;
                upstream.output.clear();
            }
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        if let Poll::Ready(Err(e)) = client.poll_write_all(cx, &mut wrote) {
            return Poll::Ready(Err(e));
        }
        if wrote && (*grown || !quiet) {
            return Poll::Ready(Ok(Turn::Wrote));
        }
        let room = upstream.output.len() < BUFFER_LIMIT && client.input.len() < BUFFER_LIMIT;
        let read_client = !client.closed && (room || whole_frame);
        let read_upstream = !upstream.closed && client.output.len() < BUFFER_LIMIT;
        // In turns, so that neither keeps the other from being heard.
        *client_first = !*client_first;
        for of_client in [*client_first, !*client_first] {
            if of_client && read_client {
                if let Poll::Ready(n) = client.poll_fill(cx) {
                    let n = end_is_an_end(n)?;
                    moved.from_client += n as u64;
                    moved.hand_in_if_much();
                    let ended = n == 0;
                    client.closed |= ended;
                    return Poll::Ready(Ok(if ended { Turn::ClientClosed } else { Turn::Client }));
                }
            }
            if !of_client && read_upstream {
                if let Poll::Ready(n) = upstream.poll_fill(cx) {
                    // However it ends: a reset is what a process leaves that died with something unread.
                    let n = n.unwrap_or(0);
                    moved.from_postgres += n as u64;
                    moved.hand_in_if_much();
                    let ended = n == 0;
                    upstream.closed |= ended;
                    return Poll::Ready(Ok(if ended { Turn::UpstreamClosed } else { Turn::Upstream }));
                }
            }
        }
        Poll::Pending
    }
}
