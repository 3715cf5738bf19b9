//! Connections of Flight clients, encrypted or not, on the terms of the wire: the same certificate, and nothing in the clear from other
//! machines unless that is allowed. ✗ gRPC.
//!
//! HTTP/2 writes frame by frame, of 16 KiB for most clients, and flushes after each. What is written in one turn of a connection's task is
//! gathered here and sent together, so that a large answer is not a system call, and a wakened client, for each frame.

use crate::server::Shared;
use crate::session::opening::Peer;
use crate::tls::Tls;
use futures::Stream;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// HTTP/2's name in ALPN.
const ALPN: &[u8] = b"h2";
/// First byte of a TLS handshake record.
const HANDSHAKE: u8 = 0x16;
/// Connections for each session that there may be.
const EACH: usize = 4;

/// Bytes that are gathered before they are sent.
const GATHERED: usize = 256 << 10;
/// Bytes of a turn after which a large buffer is given back: a connection that only talks keeps none.
const TALK: usize = 16 << 10;

/// One connection, and its place.
pub struct Connection {
    stream: Either,
    peer: Peer,
    gathered: Gathered,
    _place: OwnedSemaphorePermit,
}

/// Bytes on their way.
#[derive(Default)]
struct Gathered {
    bytes: Vec<u8>,
    sent: usize,
    /// Some came since the last flush.
    fresh: bool,
}

impl Gathered {
    /// As much of `bufs` as there is room for.
    fn add(&mut self, bufs: &[io::IoSlice<'_>]) -> usize {
        let mut added = 0;
        for buf in bufs {
            let room = GATHERED.saturating_sub(self.bytes.len());
            let piece = &buf[..buf.len().min(room)];
            self.bytes.extend_from_slice(piece);
            added += piece.len();
        }
        self.fresh |= added > 0;
        added
    }

    /// All of a turn, of so many bytes, was sent.
    fn rest(&mut self, turn: usize) {
        if turn < TALK && self.bytes.capacity() > TALK {
            self.bytes = Vec::new();
        }
    }

    fn poll_send(&mut self, mut to: impl FnMut(&[u8]) -> Poll<io::Result<usize>>) -> Poll<io::Result<()>> {
        while self.sent < self.bytes.len() {
            match ready!(to(&self.bytes[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.sent += n,
            }
        }
        self.bytes.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

enum Either {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer
    }
}

/// All connections from now on.
pub fn incoming(shared: Arc<Shared>, listener: TcpListener) -> impl Stream<Item = io::Result<Connection>> {
    let (ready, connections) = mpsc::channel(1);
    tokio::spawn(accept(shared, listener, ready));
    futures::stream::unfold(connections, |mut connections| async {
        connections.recv().await.map(|connection| (Ok(connection), connections))
    })
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, ready: mpsc::Sender<Connection>) {
    let places = Arc::new(tokio::sync::Semaphore::new(shared.config.max_sessions.saturating_mul(EACH)));
    loop {
        // Never closed.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(e) => {
                    tracing::warn!(error = %e, "a Flight connection could not be accepted");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = ready.closed() => return,
        };
        let (shared, ready) = (shared.clone(), ready.clone());
        tokio::spawn(async move {
            let opened = tokio::time::timeout(shared.config.startup_timeout, open(&shared, stream, place)).await;
            match opened {
                Ok(Ok(connection)) => drop(ready.send(connection).await),
                Ok(Err(e)) => tracing::debug!(reason = %e, "a Flight connection was not opened"),
                Err(_) => tracing::debug!("a Flight connection was not opened in time"),
            }
        });
    }
}

async fn open(shared: &Shared, stream: TcpStream, place: OwnedSemaphorePermit) -> io::Result<Connection> {
    let _ = stream.set_nodelay(true);
    let _ = socket2::SockRef::from(&stream).set_keepalive(true);
    let peer = Peer::of(&stream)?;
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if first[0] == HANDSHAKE {
        let tls = shared.config.tls.as_deref().ok_or_else(|| io::Error::other("TLS is not configured"))?;
        let stream = Either::Encrypted(Box::new(encrypt(stream, tls).await?));
        return Ok(Connection { stream, peer, gathered: Gathered::default(), _place: place });
    }
    if !shared.config.allow_plaintext && !peer.is_local {
        return Err(io::Error::other("connections from other machines must use TLS"));
    }
    Ok(Connection { stream: Either::Plain(stream), peer, gathered: Gathered::default(), _place: place })
}

async fn encrypt(stream: TcpStream, tls: &Tls) -> io::Result<TlsStream<TcpStream>> {
    let mut config = (*tls.current().config).clone();
    config.alpn_protocols = vec![ALPN.to_vec()];
    TlsAcceptor::from(Arc::new(config)).accept(stream).await
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Either::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Either::Encrypted(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl Connection {
    /// Sends what was gathered.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Connection { stream, gathered, .. } = self;
        gathered.poll_send(|bytes| match stream {
            Either::Plain(s) => Pin::new(s).poll_write(cx, bytes),
            Either::Encrypted(s) => Pin::new(s).poll_write(cx, bytes),
        })
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let connection = self.get_mut();
        if connection.gathered.bytes.len() >= GATHERED {
            ready!(connection.poll_send(cx))?;
        }
        Poll::Ready(Ok(connection.gathered.add(bufs)))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let connection = self.get_mut();
        if std::mem::take(&mut connection.gathered.fresh) {
            // More may follow in this turn of the task. It has another at once, and flushes in each.
            cx.waker().wake_by_ref();
            return Poll::Ready(Ok(()));
        }
        let turn = connection.gathered.bytes.len();
        ready!(connection.poll_send(cx))?;
        connection.gathered.rest(turn);
        match &mut connection.stream {
            Either::Plain(s) => Pin::new(s).poll_flush(cx),
            Either::Encrypted(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let connection = self.get_mut();
        ready!(connection.poll_send(cx))?;
        match &mut connection.stream {
            Either::Plain(s) => Pin::new(s).poll_shutdown(cx),
            Either::Encrypted(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_gathered_up_to_a_bound_and_sent_in_order() {
        let mut gathered = Gathered::default();
        let all: Vec<u8> = (0..3 * GATHERED).map(|n| (n % 251) as u8).collect();
        let (mut taken, mut arrived, mut calls) = (0, Vec::new(), 0);
        while taken < all.len() {
            let head = &all[taken..all.len().min(taken + 9)];
            let rest = &all[taken + head.len()..all.len().min(taken + 16_393)];
            let added = gathered.add(&[io::IoSlice::new(head), io::IoSlice::new(rest)]);
            assert!(gathered.bytes.len() <= GATHERED);
            taken += added;
            if added < head.len() + rest.len() || taken == all.len() {
                // A socket takes some of it, then nothing for a while.
                let mut blocked = false;
                while gathered
                    .poll_send(|bytes| {
                        calls += 1;
                        blocked = !blocked;
                        if !blocked {
                            return Poll::Pending;
                        }
                        let n = bytes.len().min(100_000);
                        arrived.extend_from_slice(&bytes[..n]);
                        Poll::Ready(Ok(n))
                    })
                    .is_pending()
                {}
            }
        }
        assert!(arrived == all);
        assert!(calls < 30, "{calls}");
        gathered.rest(GATHERED);
        assert!(gathered.bytes.capacity() >= GATHERED, "the next turn may be as large");
        gathered.rest(100);
        assert_eq!(gathered.bytes.capacity(), 0);
    }

    #[test]
    fn a_socket_that_takes_nothing_is_an_error() {
        let mut gathered = Gathered::default();
        gathered.add(&[io::IoSlice::new(b"x")]);
        let sent = gathered.poll_send(|_| Poll::Ready(Ok(0)));
        assert!(matches!(sent, Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::WriteZero));
    }
}
