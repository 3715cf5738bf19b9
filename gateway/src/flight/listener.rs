//! Connections of Flight clients, encrypted or not, on the terms of the wire: the same certificate, and nothing in the clear from other
//! machines unless that is allowed. ✗ gRPC.

use crate::server::Shared;
use crate::session::opening::Peer;
use crate::tls::Tls;
use futures::Stream;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
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

/// One connection, and its place.
pub struct Connection {
    stream: Either,
    peer: Peer,
    _place: OwnedSemaphorePermit,
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
        return Ok(Connection { stream, peer, _place: place });
    }
    if !shared.config.allow_plaintext && !peer.is_local {
        return Err(io::Error::other("connections from other machines must use TLS"));
    }
    Ok(Connection { stream: Either::Plain(stream), peer, _place: place })
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

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Either::Plain(s) => Pin::new(s).poll_write(cx, buf),
            Either::Encrypted(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Either::Plain(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            Either::Encrypted(s) => Pin::new(s).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Either::Plain(s) => s.is_write_vectored(),
            Either::Encrypted(s) => s.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Either::Plain(s) => Pin::new(s).poll_flush(cx),
            Either::Encrypted(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Either::Plain(s) => Pin::new(s).poll_shutdown(cx),
            Either::Encrypted(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}
