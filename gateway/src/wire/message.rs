//! Messages that the gateway reads (Parse, Bind, Describe, Execute, Close, Query, RowDescription,
//! ErrorResponse) and makes. Layouts: PostgreSQL documentation, "Message Formats".
//! ✗ product wording, I/O.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

/// A message whose body does not have its declared layout.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("malformed {0} message")]
pub struct Malformed(pub &'static str);

/// Reads a body from front to back.
pub struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Starts at the front of `body`; `what` names the message in errors.
    pub fn new(body: &'a [u8], what: &'static str) -> Self {
        Reader { rest: body, what }
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.rest.split_at_checked(n).ok_or(Malformed(self.what))?;
        self.rest = tail;
        Ok(head)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    /// Big-endian 16-bit integer.
    pub fn i16(&mut self) -> Result<i16, Malformed> {
        let b = self.take(2)?;
        Ok(i16::from_be_bytes([b[0], b[1]]))
    }

    /// Big-endian 32-bit integer.
    pub fn i32(&mut self) -> Result<i32, Malformed> {
        let b = self.take(4)?;
        Ok(i32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// NUL-terminated string, as bytes without the NUL.
    pub fn cstr(&mut self) -> Result<&'a [u8], Malformed> {
        let end = memchr::memchr(0, self.rest).ok_or(Malformed(self.what))?;
        let s = self.take(end)?;
        self.take(1)?;
        Ok(s)
    }

    /// A length-prefixed value; -1 is NULL.
    pub fn value(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        match self.i32()? {
            -1 => Ok(None),
            n if n >= 0 => Ok(Some(self.take(n as usize)?)),
            _ => Err(Malformed(self.what)),
        }
    }

    fn counted_i16(&mut self) -> Result<Vec<i16>, Malformed> {
        let n = self.i16()? as u16;
        (0..n).map(|_| self.i16()).collect()
    }

    /// Nothing may follow.
    pub fn end(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed(self.what)) }
    }
}

/// Parse (F).
#[derive(Debug, PartialEq, Eq)]
pub struct Parse<'a> {
    pub name: &'a [u8],
    pub sql: &'a [u8],
    pub param_types: Vec<u32>,
}

impl<'a> Parse<'a> {
    /// Reads the body of a `P` frame.
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(body, "Parse");
        let (name, sql) = (r.cstr()?, r.cstr()?);
        let n = r.i16()? as u16;
        let param_types = (0..n).map(|_| r.i32().map(|o| o as u32)).collect::<Result<_, _>>()?;
        r.end()?;
        Ok(Parse { name, sql, param_types })
    }
}

/// Bind (F).
#[derive(Debug, PartialEq, Eq)]
pub struct Bind<'a> {
    pub portal: &'a [u8],
    pub statement: &'a [u8],
    /// 0, 1 or one per parameter; 0 text, 1 binary.
    pub param_formats: Vec<i16>,
    pub params: Vec<Option<&'a [u8]>>,
    /// 0, 1 or one per result column.
    pub result_formats: Vec<i16>,
}

impl<'a> Bind<'a> {
    /// Reads the body of a `B` frame.
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(body, "Bind");
        let (portal, statement) = (r.cstr()?, r.cstr()?);
        let param_formats = r.counted_i16()?;
        let n = r.i16()? as u16;
        let params = (0..n).map(|_| r.value()).collect::<Result<_, _>>()?;
        let result_formats = r.counted_i16()?;
        r.end()?;
        Ok(Bind { portal, statement, param_formats, params, result_formats })
    }
}

/// Describe or Close (F): `S` a statement, `P` a portal.
#[derive(Debug, PartialEq, Eq)]
pub struct Target<'a> {
    pub kind: u8,
    pub name: &'a [u8],
}

impl<'a> Target<'a> {
    /// Reads the body of a `D` or `C` frame from a client.
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(body, "Describe or Close");
        let t = Target { kind: r.u8()?, name: r.cstr()? };
        r.end()?;
        Ok(t)
    }
}

/// Execute (F).
#[derive(Debug, PartialEq, Eq)]
pub struct Execute<'a> {
    pub portal: &'a [u8],
    /// 0 is no limit.
    pub max_rows: i32,
}

impl<'a> Execute<'a> {
    /// Reads the body of an `E` frame from a client.
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(body, "Execute");
        let e = Execute { portal: r.cstr()?, max_rows: r.i32()? };
        r.end()?;
        Ok(e)
    }
}

/// The text of a Query frame's body.
pub fn query_text(body: &[u8]) -> Result<&[u8], Malformed> {
    let mut r = Reader::new(body, "Query");
    let text = r.cstr()?;
    r.end()?;
    Ok(text)
}

/// One column of a RowDescription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    pub name: Vec<u8>,
    pub type_oid: u32,
    pub typmod: i32,
}

/// Reads the body of a `T` frame.
pub fn row_description(body: &[u8]) -> Result<Vec<Field>, Malformed> {
    let mut r = Reader::new(body, "RowDescription");
    let n = r.i16()? as u16;
    (0..n)
        .map(|_| {
            let name = r.cstr()?.to_vec();
            let (_table, _attnum) = (r.i32()?, r.i16()?);
            let type_oid = r.i32()? as u32;
            let _len = r.i16()?;
            let typmod = r.i32()?;
            let _format = r.i16()?;
            Ok(Field { name, type_oid, typmod })
        })
        .collect()
}

/// The whole RowDescription frame `described`, with `formats` (one a column) in the place of its own.
pub fn with_formats(described: &[u8], formats: &[i16]) -> Result<BytesMut, Malformed> {
    let mut out = BytesMut::from(described);
    let mut at = 7;
    for format in formats {
        let end = described.get(at..).and_then(|rest| memchr::memchr(0, rest)).ok_or(Malformed("RowDescription"))?;
        // Table, column, type, length and modifier lie between the name and the format.
        let place = at + end + 1 + 16;
        out.get_mut(place..place + 2).ok_or(Malformed("RowDescription"))?.copy_from_slice(&format.to_be_bytes());
        at = place + 2;
    }
    Ok(out)
}

/// Reads the body of a `t` frame: the types of `$1`, `$2`, ...
pub fn parameter_description(body: &[u8]) -> Result<Vec<u32>, Malformed> {
    let mut r = Reader::new(body, "ParameterDescription");
    let n = r.i16()? as u16;
    (0..n).map(|_| r.i32().map(|o| o as u32)).collect()
}

/// Reads the body of a `D` frame from the server.
pub fn data_row(body: &[u8]) -> Result<Vec<Option<&[u8]>>, Malformed> {
    let mut r = Reader::new(body, "DataRow");
    let n = r.i16()? as u16;
    (0..n).map(|_| r.value()).collect()
}

/// The fields of an ErrorResponse or NoticeResponse, by field code.
#[derive(Debug, Clone, Default)]
pub struct Fields<'a>(Vec<(u8, &'a [u8])>);

impl<'a> Fields<'a> {
    /// Reads the body of an `E` or `N` frame from the server.
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(body, "ErrorResponse");
        let mut fields = Vec::with_capacity(12);
        loop {
            match r.u8()? {
                0 => return Ok(Fields(fields)),
                code => fields.push((code, r.cstr()?)),
            }
        }
    }

    /// The fields at the front of a body that may be cut off.
    pub fn head(body: &'a [u8]) -> Self {
        let mut r = Reader::new(body, "ErrorResponse");
        let mut fields = Vec::with_capacity(12);
        while let Ok(code @ 1..) = r.u8()
            && let Ok(value) = r.cstr()
        {
            fields.push((code, value));
        }
        Fields(fields)
    }

    /// The value of field `code`, if present.
    pub fn get(&self, code: u8) -> Option<&'a [u8]> {
        self.0.iter().find(|(c, _)| *c == code).map(|(_, v)| *v)
    }

    /// As text; empty if absent or not UTF-8.
    pub fn text(&self, code: u8) -> &'a str {
        self.get(code).and_then(|v| std::str::from_utf8(v).ok()).unwrap_or("")
    }
}

/// The whole ErrorResponse or NoticeResponse frame `f`, with the text of field `code` as `other` gives it; `None` if that gives
/// none.
pub fn with_field(f: &[u8], code: u8, other: impl Fn(&str) -> Option<String>) -> Option<BytesMut> {
    rewritten(f, |field, text| if field == code { other(text).map(Some) } else { None })
}

/// The error or notice without the fields of this code whose text `leaves`; `None` if there is none.
pub fn without_field(f: &[u8], code: u8, leaves: impl Fn(&str) -> bool) -> Option<BytesMut> {
    rewritten(f, |field, text| (field == code && leaves(text)).then_some(None))
}

/// With other texts for its fields, or without some: `other` says what becomes of one, `None` that it stays.
fn rewritten(f: &[u8], other: impl Fn(u8, &str) -> Option<Option<String>>) -> Option<BytesMut> {
    let (tag, mut body) = (*f.first()?, f.get(5..)?);
    let mut changed = false;
    let mut out = BytesMut::with_capacity(f.len());
    frame(&mut out, tag, |out| {
        // A field is a code and a text that ends with a zero; a zero alone ends them all.
        while let [field, rest @ ..] = body {
            if *field == 0 {
                out.put_u8(0);
                break;
            }
            let end = memchr::memchr(0, rest).unwrap_or(rest.len());
            let new = std::str::from_utf8(&rest[..end]).ok().and_then(|text| other(*field, text));
            changed |= new.is_some();
            let text = match &new {
                None => Some(&rest[..end]),
                Some(text) => text.as_ref().map(|text| text.as_bytes()),
            };
            if let Some(text) = text {
                out.put_u8(*field);
                cstr(out, text);
            }
            body = rest.get(end + 1..).unwrap_or(&[]);
        }
    });
    changed.then_some(out)
}

/// Writes one frame: the tag, then whatever `body` puts, with the length filled in after.
pub fn frame(out: &mut BytesMut, tag: u8, body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(tag);
    let at = out.len();
    out.put_i32(0);
    body(out);
    let len = (out.len() - at) as i32;
    out[at..at + 4].copy_from_slice(&len.to_be_bytes());
}

fn cstr(out: &mut BytesMut, s: &[u8]) {
    out.put_slice(s);
    out.put_u8(0);
}

/// Parse (F).
pub fn put_parse(out: &mut BytesMut, name: &[u8], sql: &[u8], param_types: &[u32]) {
    frame(out, b'P', |b| {
        cstr(b, name);
        cstr(b, sql);
        b.put_i16(param_types.len() as i16);
        for oid in param_types {
            b.put_u32(*oid);
        }
    });
}

/// Bind (F). Formats as in [`Bind`].
pub fn put_bind(
    out: &mut BytesMut,
    portal: &[u8],
    statement: &[u8],
    param_formats: &[i16],
    params: &[Option<&[u8]>],
    result_formats: &[i16],
) {
    frame(out, b'B', |b| {
        cstr(b, portal);
        cstr(b, statement);
        b.put_i16(param_formats.len() as i16);
        param_formats.iter().for_each(|f| b.put_i16(*f));
        b.put_i16(params.len() as i16);
        for p in params {
            match p {
                None => b.put_i32(-1),
                Some(v) => {
                    b.put_i32(v.len() as i32);
                    b.put_slice(v);
                }
            }
        }
        b.put_i16(result_formats.len() as i16);
        result_formats.iter().for_each(|f| b.put_i16(*f));
    });
}

/// Describe (F).
pub fn put_describe(out: &mut BytesMut, kind: u8, name: &[u8]) {
    frame(out, b'D', |b| {
        b.put_u8(kind);
        cstr(b, name);
    });
}

/// Close (F).
pub fn put_close(out: &mut BytesMut, kind: u8, name: &[u8]) {
    frame(out, b'C', |b| {
        b.put_u8(kind);
        cstr(b, name);
    });
}

/// Execute (F).
pub fn put_execute(out: &mut BytesMut, portal: &[u8], max_rows: i32) {
    frame(out, b'E', |b| {
        cstr(b, portal);
        b.put_i32(max_rows);
    });
}

/// Flush (F).
pub fn put_flush(out: &mut BytesMut) {
    frame(out, b'H', |_| {});
}

/// Sync (F).
pub fn put_sync(out: &mut BytesMut) {
    frame(out, b'S', |_| {});
}

/// Terminate (F).
pub fn put_terminate(out: &mut BytesMut) {
    frame(out, b'X', |_| {});
}

/// BackendKeyData (B).
pub fn put_key(out: &mut BytesMut, pid: i32, secret: &[u8]) {
    frame(out, b'K', |b| {
        b.put_i32(pid);
        b.put_slice(secret);
    });
}

/// CommandComplete (B).
pub fn put_command_complete(out: &mut BytesMut, tag: &str) {
    frame(out, b'C', |b| cstr(b, tag.as_bytes()));
}

/// PortalSuspended (B).
pub fn put_portal_suspended(out: &mut BytesMut) {
    frame(out, b's', |_| {});
}

/// DataRow (B) of one text value.
pub fn put_text_row(out: &mut BytesMut, value: &str) {
    frame(out, b'D', |b| {
        b.put_i16(1);
        b.put_i32(value.len() as i32);
        b.put_slice(value.as_bytes());
    });
}

/// An error made by the gateway itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorReport {
    /// `ERROR` or `FATAL`.
    pub severity: &'static str,
    pub sqlstate: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl ErrorReport {
    /// An `ERROR` with neither detail nor hint.
    pub fn error(sqlstate: &str, message: impl Into<String>) -> Self {
        ErrorReport { severity: "ERROR", sqlstate: sqlstate.into(), message: message.into(), detail: None, hint: None }
    }

    /// A `FATAL`: the connection ends after it.
    pub fn fatal(sqlstate: &str, message: impl Into<String>) -> Self {
        ErrorReport { severity: "FATAL", ..Self::error(sqlstate, message) }
    }

    /// With a detail.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// With a hint that names the next step.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// ErrorResponse (B).
pub fn put_error(out: &mut BytesMut, e: &ErrorReport) {
    frame(out, b'E', |b| {
        let mut field = |code: u8, value: &str| {
            b.put_u8(code);
            cstr(b, value.replace('\0', " ").as_bytes());
        };
        field(b'S', e.severity);
        field(b'V', e.severity);
        field(b'C', &e.sqlstate);
        field(b'M', &e.message);
        if let Some(d) = &e.detail {
            field(b'D', d);
        }
        if let Some(h) = &e.hint {
            field(b'H', h);
        }
        b.put_u8(0);
    });
}

/// An owned copy of a whole frame.
pub fn copy(frame: &[u8]) -> Bytes {
    Bytes::copy_from_slice(frame)
}
