//! The two sockets of a session and their buffers. Bytes move in both directions at once, each bounded, so
//! that neither side can block the other for good. ✗ what the bytes mean.

use bytes::{Buf, BytesMut};
use std::io;
use std::path::PathBuf;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// Reading stops while this many bytes wait to be written the other way.
pub const BUFFER_LIMIT: usize = 256 * 1024;

type Rd = Box<dyn AsyncRead + Send + Unpin>;
type Wr = Box<dyn AsyncWrite + Send + Unpin>;

/// One socket: what came in and is not consumed, what is to go out and is not written.
pub struct Side {
    rd: Rd,
    wr: Wr,
    pub input: BytesMut,
    pub output: BytesMut,
    pub closed: bool,
}

impl Side {
    fn new(rd: impl AsyncRead + Send + Unpin + 'static, wr: impl AsyncWrite + Send + Unpin + 'static) -> Self {
        Side {
            rd: Box::new(rd),
            wr: Box::new(wr),
            input: BytesMut::with_capacity(16 * 1024),
            output: BytesMut::with_capacity(16 * 1024),
            closed: false,
        }
    }

    /// A TCP connection.
    pub fn tcp(stream: TcpStream) -> Self {
        // Small answers must not wait for a full segment.
        let _ = stream.set_nodelay(true);
        let (rd, wr) = stream.into_split();
        Side::new(rd, wr)
    }

    /// A Unix-domain connection.
    pub fn unix(stream: UnixStream) -> Self {
        let (rd, wr) = stream.into_split();
        Side::new(rd, wr)
    }

    /// Reads once into `input`; 0 is the end. Cancel safe.
    pub async fn fill(&mut self) -> io::Result<usize> {
        self.input.reserve(8 * 1024);
        let n = self.rd.read_buf(&mut self.input).await?;
        if n == 0 {
            self.closed = true;
        }
        Ok(n)
    }

    /// Writes once from `output`. Cancel safe.
    pub async fn drain_some(&mut self) -> io::Result<()> {
        let n = self.wr.write(&self.output).await?;
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.output.advance(n);
        Ok(())
    }

    /// Writes all of `output`. Not cancel safe with respect to time, safe with respect to bytes.
    pub async fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            self.drain_some().await?;
        }
        self.wr.flush().await
    }

    /// Writes what is left and closes the sending half.
    pub async fn finish(&mut self) {
        let _ = self.flush().await;
        let _ = self.wr.shutdown().await;
    }
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
            UpstreamAddress::Unix(path) => UnixStream::connect(path).await.map(Side::unix),
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
}

impl Link {
    /// Waits until some bytes moved. Cancel safe.
    pub async fn turn(&mut self) -> io::Result<Turn> {
        self.turn_for(false).await
    }

    /// As [`Link::turn`]; with `whole_frame` the client is read even when its input is over the limit: one long
    /// frame must be completed.
    pub async fn turn_for(&mut self, whole_frame: bool) -> io::Result<Turn> {
        let Link { client, upstream } = self;
        let room = upstream.output.len() < BUFFER_LIMIT && client.input.len() < BUFFER_LIMIT;
        let read_client = !client.closed && (room || whole_frame);
        turn(client, upstream, read_client).await
    }
}

async fn turn(client: &mut Side, upstream: &mut Side, read_client: bool) -> io::Result<Turn> {
    let Side { rd: crd, wr: cwr, input: cin, output: cout, closed: cclosed } = client;
    let Side { rd: urd, wr: uwr, input: uin, output: uout, closed: uclosed } = upstream;
    let read_upstream = !*uclosed && cout.len() < BUFFER_LIMIT;
    if read_client {
        cin.reserve(8 * 1024);
    }
    if read_upstream {
        uin.reserve(8 * 1024);
    }
    tokio::select! {
        n = uwr.write(uout), if !uout.is_empty() => {
            let n = n?;
            if n == 0 { return Err(io::ErrorKind::WriteZero.into()); }
            uout.advance(n);
            Ok(Turn::Wrote)
        }
        n = cwr.write(cout), if !cout.is_empty() => {
            let n = n?;
            if n == 0 { return Err(io::ErrorKind::WriteZero.into()); }
            cout.advance(n);
            Ok(Turn::Wrote)
        }
        n = urd.read_buf(uin), if read_upstream => {
            if n? == 0 { *uclosed = true; return Ok(Turn::UpstreamClosed); }
            Ok(Turn::Upstream)
        }
        n = crd.read_buf(cin), if read_client => {
            if n? == 0 { *cclosed = true; return Ok(Turn::ClientClosed); }
            Ok(Turn::Client)
        }
    }
}
