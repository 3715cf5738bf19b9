//! The packets before the first frame: SSLRequest, GSSENCRequest, CancelRequest, StartupMessage.
//! ✗ passwords, sockets.

use super::message::{Malformed, Reader};

/// PostgreSQL's own limit for a startup packet, in bytes.
pub const MAX_STARTUP: usize = 10_000;

/// What a client opens a connection with.
#[derive(Debug, PartialEq, Eq)]
pub enum Opening {
    Ssl,
    Gss,
    /// Backend process id and secret key, as they were sent in BackendKeyData.
    Cancel { pid: i32, key: Vec<u8> },
    Start(Startup),
}

/// StartupMessage: protocol version and parameters in order.
#[derive(Debug, PartialEq, Eq)]
pub struct Startup {
    pub version: (u16, u16),
    pub params: Vec<(String, String)>,
}

impl Startup {
    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
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
        80877102 => {
            let pid = r.i32()?;
            let key = body.get(8..).unwrap_or(&[]).to_vec();
            if key.len() < 4 || key.len() > 256 {
                return Err(Malformed("CancelRequest"));
            }
            Opening::Cancel { pid, key }
        }
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
            Opening::Start(Startup { version: ((code >> 16) as u16, code as u16), params })
        }
    })
}
