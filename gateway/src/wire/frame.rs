//! Frames: one tag byte, a big-endian length that counts itself, a body
//! (PostgreSQL documentation, "Message Formats"). ✗ bodies.

use thiserror::Error;

/// The longest frame either side may announce: PostgreSQL's own limit for a message is 1 GiB.
pub const MAX_FRAME: usize = (1 << 30) + 1;

/// Header of a frame whose first five bytes are in the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Message type.
    pub tag: u8,
    /// Whole length in bytes: tag, length word and body.
    pub len: usize,
}

/// A length word that no message can have.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("invalid message length {len} for message type {tag:#04x}")]
pub struct FrameError {
    /// Message type.
    pub tag: u8,
    /// The length word as sent.
    pub len: i32,
}

/// Reads the header at the front of `buf`; `None` while fewer than five bytes are there.
pub fn peek(buf: &[u8]) -> Result<Option<Header>, FrameError> {
    let [tag, a, b, c, d, ..] = *buf else { return Ok(None) };
    let len = i32::from_be_bytes([a, b, c, d]);
    if len < 4 || len as usize + 1 > MAX_FRAME {
        return Err(FrameError { tag, len });
    }
    Ok(Some(Header { tag, len: len as usize + 1 }))
}

/// The whole first frame of `buf`, if it is there.
pub fn whole(buf: &[u8]) -> Result<Option<&[u8]>, FrameError> {
    Ok(peek(buf)?.and_then(|h| buf.get(..h.len)))
}

/// The body of a whole frame.
pub fn body(frame: &[u8]) -> &[u8] {
    frame.get(5..).unwrap_or(&[])
}
