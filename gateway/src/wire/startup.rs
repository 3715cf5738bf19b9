//! The packets before the first frame: SSLRequest, GSSENCRequest, CancelRequest, StartupMessage.
//! ✗ passwords, sockets.

use super::message::{Malformed, Reader};
use crate::cancel::{MAX_SECRET, MIN_SECRET};
use bytes::{BufMut, BytesMut};

/// PostgreSQL's own limits for a startup packet, in bytes, its length word included.
pub const MIN_STARTUP: usize = 8;
pub const MAX_STARTUP: usize = 10_004;

/// The code of CancelRequest.
const CANCEL: i32 = 80_877_102;

/// What a client opens a connection with.
#[derive(Debug, PartialEq, Eq)]
pub enum Opening {
    Ssl,
    Gss,
    /// Backend process id and secret key, as they were sent in BackendKeyData.
    Cancel { pid: i32, key: Vec<u8> },
    /// A CancelRequest of another length: PostgreSQL says nothing to it.
    BrokenCancel,
    Start(Startup),
    /// A StartupMessage of another protocol, or a request of an unknown kind.
    Unsupported,
}

/// StartupMessage of protocol 3: its parameters in order.
#[derive(Debug, PartialEq, Eq)]
pub struct Startup {
    pub params: Vec<(String, String)>,
}

impl Startup {
    /// The value of a parameter: the last, as PostgreSQL takes it.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.params.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The role the client asks for.
    pub fn user(&self) -> &str {
        self.get("user").unwrap_or("")
    }

    /// The database: the user's name unless given.
    pub fn database(&self) -> &str {
        self.get("database").filter(|d| !d.is_empty()).unwrap_or_else(|| self.user())
    }

    /// A walsender connection: never inspected, only relayed.
    pub fn is_replication(&self) -> bool {
        self.get("replication").is_some_and(|v| {
            !matches!(v.to_ascii_lowercase().as_str(), "false" | "off" | "no" | "0" | "f" | "n" | "of")
        })
    }
}

/// Reads a packet without its length word.
pub fn read(body: &[u8]) -> Result<Opening, Malformed> {
    let mut r = Reader::new(body, "startup");
    let code = r.i32()?;
    Ok(match code {
        80877103 => Opening::Ssl,
        80877104 => Opening::Gss,
        CANCEL => {
            let key = body.get(8..).unwrap_or(&[]).to_vec();
            match r.i32() {
                Ok(pid) if (MIN_SECRET..=MAX_SECRET).contains(&key.len()) => Opening::Cancel { pid, key },
                _ => Opening::BrokenCancel,
            }
        }
        // The parameters of another protocol are not for us to read.
        code if code >> 16 != 3 => Opening::Unsupported,
        _ => {
            let mut params = Vec::new();
            loop {
                let name = r.cstr()?;
                if name.is_empty() {
                    break;
                }
                let value = r.cstr()?;
                params.push((String::from_utf8_lossy(name).into_owned(), String::from_utf8_lossy(value).into_owned()));
            }
            Opening::Start(Startup { params })
        }
    })
}

/// CancelRequest (F).
pub fn put_cancel(out: &mut BytesMut, pid: i32, secret: &[u8]) {
    out.put_i32(12 + secret.len() as i32);
    out.put_i32(CANCEL);
    out.put_i32(pid);
    out.put_slice(secret);
}

/// A whole StartupMessage with the setting `name` (a name of ours, in ASCII) at `value`, whatever the client said of it.
/// PostgreSQL takes the last value of a setting, and `options` before all of them. Everything else stays as it is.
pub fn with_setting(packet: &[u8], name: &str, value: &str) -> Result<BytesMut, Malformed> {
    let body = packet.get(4..).unwrap_or(&[]);
    let mut r = Reader::new(body, "startup");
    let mut out = BytesMut::with_capacity(packet.len() + name.len() + value.len() + 2);
    out.put_i32(0);
    out.put_i32(r.i32()?);
    let mut read = 4;
    loop {
        let theirs = r.cstr()?;
        read += theirs.len() + 1;
        if theirs.is_empty() {
            break;
        }
        let their_value = r.cstr()?;
        read += their_value.len() + 1;
        if !theirs.eq_ignore_ascii_case(name.as_bytes()) {
            for text in [theirs, their_value] {
                out.put_slice(text);
                out.put_u8(0);
            }
        }
    }
    for text in [name, value, ""] {
        out.put_slice(text.as_bytes());
        out.put_u8(0);
    }
    // What follows the end is for PostgreSQL to refuse.
    out.put_slice(&body[read..]);
    let len = out.len() as i32;
    out[..4].copy_from_slice(&len.to_be_bytes());
    Ok(out)
}
