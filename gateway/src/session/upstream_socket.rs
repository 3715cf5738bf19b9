//! A Unix-domain connection to PostgreSQL that is watched for what there is to read, and for room to write only while there is none.
//! (A Unix socket reports room each time the peer reads, so that PostgreSQL's reading of every statement would wake the session's
//! thread once more, at just the moment when PostgreSQL begins to work.) ✗ messages.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// Read at once, at first: room that is read into is cleared before, so that more than what comes would be wasted.
const FIRST: usize = 2 * 1024;
/// And while more is always there.
const MOST: usize = 64 * 1024;

/// The half that reads.
pub(super) struct ReadHalf {
    socket: Arc<AsyncFd<UnixStream>>,
    /// Bytes that the next read may bring.
    size: usize,
}

/// The half that writes.
pub(super) struct WriteHalf {
    socket: Arc<AsyncFd<UnixStream>>,
    /// Watched for room to write, while that is waited for.
    full: Option<AsyncFd<UnixStream>>,
}

/// Both halves of a connected socket.
pub(super) fn split(stream: tokio::net::UnixStream) -> io::Result<(ReadHalf, WriteHalf)> {
    let socket = Arc::new(watch(stream.into_std()?, Interest::READABLE)?);
    Ok((ReadHalf { socket: socket.clone(), size: FIRST }, WriteHalf { socket, full: None }))
}

/// The function is deprecated for types whose descriptor may close or change while it is watched; this one's cannot.
#[allow(deprecated)]
fn watch(stream: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    AsyncFd::with_interest(stream, interest)
}

impl AsyncRead for ReadHalf {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { socket, size } = self.get_mut();
        loop {
            let mut ready = ready!(socket.poll_read_ready(cx))?;
            let room = buf.initialize_unfilled_to(buf.remaining().min(*size));
            let most = room.len();
            match socket.get_ref().read(room) {
                Ok(n) => {
                    // Less than there was room for: that was all, and what comes next is told anew.
                    if n > 0 && n < most {
                        ready.clear_ready();
                        if n < FIRST {
                            *size = FIRST;
                        }
                    } else {
                        *size = (*size * 4).min(MOST);
                    }
                    buf.advance(n);
                    return Poll::Ready(Ok(()));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.socket.get_ref().write(buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                written => {
                    self.full = None;
                    return Poll::Ready(written);
                }
            }
            let full = match self.full.take() {
                Some(full) => full,
                None => watch(self.socket.get_ref().try_clone()?, Interest::WRITABLE)?,
            };
            let waited = full.poll_write_ready(cx).map_ok(|mut ready| ready.clear_ready());
            self.full = Some(full);
            ready!(waited)?;
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket.get_ref().shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Far more than a socket holds goes both ways at once, in pieces of any size, and ends.
    #[tokio::test]
    async fn all_bytes_arrive_in_order() {
        let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
        let (mut rd, mut wr) = split(ours).unwrap();
        const ALL: usize = 5_000_000;
        let byte = |n: usize| (n % 251) as u8;
        let (mut their_rd, mut their_wr) = theirs.into_split();
        let send = async {
            let bytes: Vec<u8> = (0..ALL).map(byte).collect();
            for part in bytes.chunks(70_001) {
                wr.write_all(part).await.unwrap();
            }
            wr.shutdown().await.unwrap();
        };
        let answer = async {
            let mut buf = vec![0; 3_333];
            loop {
                let n = their_rd.read(&mut buf).await.unwrap();
                if n == 0 {
                    break;
                }
                their_wr.write_all(&buf[..n]).await.unwrap();
            }
            their_wr.shutdown().await.unwrap();
        };
        let receive = async {
            let mut all = Vec::new();
            rd.read_to_end(&mut all).await.unwrap();
            assert_eq!(all.len(), ALL);
            assert!(all.iter().enumerate().all(|(n, b)| *b == byte(n)));
        };
        tokio::join!(send, answer, receive);
    }

    /// What is asked for when nothing is there waits, and each answer wakes it.
    #[tokio::test]
    async fn small_answers_wake_each_time() {
        let (ours, mut theirs) = tokio::net::UnixStream::pair().unwrap();
        let (mut rd, mut wr) = split(ours).unwrap();
        let mut buf = [0; 64];
        for n in 0..1_000u32 {
            wr.write_all(&n.to_be_bytes()).await.unwrap();
            let echo = async {
                let asked = theirs.read_u32().await.unwrap();
                tokio::task::yield_now().await;
                theirs.write_u32(asked + 1).await.unwrap();
            };
            let (_, got) = tokio::join!(echo, rd.read(&mut buf));
            assert_eq!((got.unwrap(), u32::from_be_bytes(buf[..4].try_into().unwrap())), (4, n + 1));
        }
        drop(theirs);
        assert_eq!(rd.read(&mut buf).await.unwrap(), 0);
        assert!(wr.write(b"x").await.is_err());
    }
}
