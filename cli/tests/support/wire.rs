//! A PostgreSQL wire client that sees every byte: it sends the frames a test asks for and keeps the frames that come back.
//!
//! It knows framing, login (clear text, MD5-free, SCRAM-SHA-256) and how to print frames. It does not interpret values, retry, or
//! know that there is a gateway: the same code speaks to PostgreSQL and to the product, so that their answers can be compared.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use super::scram::Scram;

/// How long a test waits for one frame before it gives up: generous, since it only bounds a hang.
const FRAME_TIMEOUT: Duration = Duration::from_secs(120);

/// Where a server listens.
#[derive(Clone, Debug)]
pub enum Host {
    Tcp(String, u16),
    /// The directory of the socket, and the port that names the file in it.
    Unix(PathBuf, u16),
}

/// A server and who logs in there.
#[derive(Clone, Debug)]
pub struct Target {
    pub host: Host,
    pub user: String,
    pub password: String,
    pub database: String,
}

impl Target {
    /// Reads `postgres://user:password@host:port/database[?host=/socket/dir&port=n]`.
    pub fn from_url(url: &str) -> Target {
        let rest = url.split_once("://").unwrap_or_else(|| panic!("no scheme in {url}")).1;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, address) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        let (mut host, mut port) = match address.rsplit_once(':') {
            Some((host, port)) => (unescape(host), port.parse().expect("the port of a URL")),
            None => (unescape(address), 5432),
        };
        let (mut user, mut password, mut database) = (unescape(user), unescape(password), unescape(database));
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = unescape(value);
            match key {
                "host" => host = value,
                "port" => port = value.parse().expect("the port of a URL"),
                "user" => user = value,
                "password" => password = value,
                "dbname" => database = value,
                _ => {}
            }
        }
        let host = if host.starts_with('/') { Host::Unix(host.into(), port) } else { Host::Tcp(host, port) };
        Target { host, user, password, database }
    }

    /// The same server for another user.
    pub fn login(&self, user: &str, password: &str) -> Target {
        Target { user: user.into(), password: password.into(), ..self.clone() }
    }

    /// The same server and user in another database.
    pub fn database(&self, database: &str) -> Target {
        Target { database: database.into(), ..self.clone() }
    }
}

fn unescape(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let digits =
                    [bytes.next().expect("two digits after %"), bytes.next().expect("two digits after %")];
                let digits = std::str::from_utf8(&digits).expect("two digits after %");
                out.push(u8::from_str_radix(digits, 16).expect("two digits after %"));
            }
            other => out.push(other),
        }
    }
    String::from_utf8(out).expect("UTF-8 in a URL")
}

/// One backend message: its tag and what follows the length.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frame {
    pub tag: u8,
    pub body: Vec<u8>,
}

impl Frame {
    /// The fields of an ErrorResponse or NoticeResponse by their letter.
    pub fn fields(&self) -> BTreeMap<char, String> {
        self.body
            .split(|byte| *byte == 0)
            .filter(|field| !field.is_empty())
            .map(|field| (char::from(field[0]), String::from_utf8_lossy(&field[1..]).into_owned()))
            .collect()
    }

    /// The columns of a DataRow, `None` for NULL.
    pub fn columns(&self) -> Vec<Option<Vec<u8>>> {
        assert_eq!(self.tag, b'D', "columns are asked of a DataRow");
        let count = i16::from_be_bytes([self.body[0], self.body[1]]);
        let mut rest = &self.body[2..];
        let mut columns = Vec::new();
        for _ in 0..count {
            let length = i32::from_be_bytes(rest[..4].try_into().expect("four bytes"));
            rest = &rest[4..];
            columns.push(usize::try_from(length).ok().map(|length| {
                let (value, after) = rest.split_at(length);
                rest = after;
                value.to_vec()
            }));
        }
        assert!(rest.is_empty(), "bytes after the last column of a DataRow");
        columns
    }

    /// Name, table, attribute, type, length, typmod and format of each column of a RowDescription.
    pub fn description(&self) -> Vec<ColumnDescription> {
        assert_eq!(self.tag, b'T', "a description is asked of a RowDescription");
        let count = i16::from_be_bytes([self.body[0], self.body[1]]);
        let mut rest = &self.body[2..];
        (0..count)
            .map(|_| {
                let end = rest.iter().position(|byte| *byte == 0).expect("the end of a column name");
                let name = String::from_utf8_lossy(&rest[..end]).into_owned();
                let f = &rest[end + 1..end + 19];
                rest = &rest[end + 19..];
                ColumnDescription {
                    name,
                    table: u32::from_be_bytes(f[0..4].try_into().expect("four bytes")),
                    attribute: i16::from_be_bytes(f[4..6].try_into().expect("two bytes")),
                    type_oid: u32::from_be_bytes(f[6..10].try_into().expect("four bytes")),
                    length: i16::from_be_bytes(f[10..12].try_into().expect("two bytes")),
                    typmod: i32::from_be_bytes(f[12..16].try_into().expect("four bytes")),
                    format: i16::from_be_bytes(f[16..18].try_into().expect("two bytes")),
                }
            })
            .collect()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(self.body.strip_suffix(&[0]).unwrap_or(&self.body)).into_owned()
    }
}

/// One column of a RowDescription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnDescription {
    pub name: String,
    pub table: u32,
    pub attribute: i16,
    pub type_oid: u32,
    pub length: i16,
    pub typmod: i32,
    pub format: i16,
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tag {
            b'1' => write!(f, "ParseComplete"),
            b'2' => write!(f, "BindComplete"),
            b'3' => write!(f, "CloseComplete"),
            b'n' => write!(f, "NoData"),
            b's' => write!(f, "PortalSuspended"),
            b'I' => write!(f, "EmptyQueryResponse"),
            b'C' => write!(f, "CommandComplete {:?}", self.text()),
            b'Z' => write!(f, "ReadyForQuery {:?}", self.text()),
            b'E' => write!(f, "ErrorResponse {:?}", self.fields()),
            b'N' => write!(f, "NoticeResponse {:?}", self.fields()),
            b'T' => {
                write!(f, "RowDescription")?;
                for c in self.description() {
                    write!(
                        f,
                        " [{} table {}.{} type {} len {} typmod {} format {}]",
                        c.name, c.table, c.attribute, c.type_oid, c.length, c.typmod, c.format
                    )?;
                }
                Ok(())
            }
            b'D' => {
                write!(f, "DataRow")?;
                for column in self.columns() {
                    match column {
                        None => write!(f, " NULL")?,
                        Some(value) => match std::str::from_utf8(&value) {
                            Ok(text) if !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') => {
                                write!(f, " {text:?}")?
                            }
                            _ => write!(f, " x{}", hex::encode(&value))?,
                        },
                    }
                }
                Ok(())
            }
            tag => write!(f, "{} {:?}", char::from(tag), String::from_utf8_lossy(&self.body)),
        }
    }
}

/// Everything that came back for one request, up to and with ReadyForQuery.
#[derive(Clone, PartialEq, Eq)]
pub struct Reply {
    pub frames: Vec<Frame>,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 40;
        for frame in self.frames.iter().take(SHOWN) {
            writeln!(f, "    {frame:?}")?;
        }
        if self.frames.len() > SHOWN {
            writeln!(
                f,
                "    ... and {} more frames, the last {:?}",
                self.frames.len() - SHOWN,
                self.frames[self.frames.len() - 1]
            )?;
        }
        Ok(())
    }
}

impl Reply {
    /// The rows as text, NULL as `None`.
    pub fn rows(&self) -> Vec<Vec<Option<String>>> {
        self.frames
            .iter()
            .filter(|frame| frame.tag == b'D')
            .map(|frame| {
                frame
                    .columns()
                    .into_iter()
                    .map(|c| c.map(|value| String::from_utf8_lossy(&value).into_owned()))
                    .collect()
            })
            .collect()
    }

    /// The only value of the only row.
    pub fn value(&self) -> String {
        let rows = self.rows();
        assert!(rows.len() == 1 && rows[0].len() == 1, "one value was expected:\n{self:?}");
        rows[0][0].clone().unwrap_or_else(|| panic!("a value was expected, not NULL:\n{self:?}"))
    }

    /// The values of a single column.
    pub fn column(&self) -> Vec<String> {
        self.rows().into_iter().map(|mut row| row.swap_remove(0).unwrap_or_else(|| "NULL".into())).collect()
    }

    /// The error, if one was raised.
    pub fn error(&self) -> Option<BTreeMap<char, String>> {
        self.frames.iter().find(|frame| frame.tag == b'E').map(Frame::fields)
    }

    /// The SQLSTATE of the error, or "00000".
    pub fn sqlstate(&self) -> String {
        self.error().map_or_else(|| "00000".into(), |fields| fields[&'C'].clone())
    }

    /// The notices that came along.
    pub fn notices(&self) -> Vec<BTreeMap<char, String>> {
        self.frames.iter().filter(|frame| frame.tag == b'N').map(Frame::fields).collect()
    }

    /// The command tags.
    pub fn tags(&self) -> Vec<String> {
        self.frames.iter().filter(|frame| frame.tag == b'C').map(Frame::text).collect()
    }

    /// The tags of the frames in order, DataRows collapsed: `1 2 T D C Z`.
    pub fn shape(&self) -> String {
        let mut shape = String::new();
        for frame in &self.frames {
            if frame.tag == b'D' && shape.ends_with('D') {
                continue;
            }
            shape.push(char::from(frame.tag));
        }
        shape
    }

    /// The transaction status of the last ReadyForQuery: I, T or E.
    pub fn status(&self) -> char {
        let last = self.frames.iter().rev().find(|frame| frame.tag == b'Z');
        char::from(last.unwrap_or_else(|| panic!("no ReadyForQuery in\n{self:?}")).body[0])
    }

    /// Itself, after asserting that no error was raised.
    #[track_caller]
    pub fn ok(self) -> Reply {
        assert!(self.error().is_none(), "unexpected error:\n{self:?}");
        self
    }
}

trait Socket: Read + Write + Send {
    fn bound_reads(&self, timeout: Option<Duration>);
    fn other(&self) -> Box<dyn Socket>;
    fn close(&self);
}

impl Socket for TcpStream {
    fn bound_reads(&self, timeout: Option<Duration>) {
        self.set_read_timeout(timeout).expect("a read timeout");
    }
    fn other(&self) -> Box<dyn Socket> {
        Box::new(self.try_clone().expect("a second handle of the socket"))
    }
    fn close(&self) {
        let _ = self.shutdown(std::net::Shutdown::Both); // it may be closed already
    }
}

impl Socket for UnixStream {
    fn bound_reads(&self, timeout: Option<Duration>) {
        self.set_read_timeout(timeout).expect("a read timeout");
    }
    fn other(&self) -> Box<dyn Socket> {
        Box::new(self.try_clone().expect("a second handle of the socket"))
    }
    fn close(&self) {
        let _ = self.shutdown(std::net::Shutdown::Both); // it may be closed already
    }
}

fn open(host: &Host) -> io::Result<Box<dyn Socket>> {
    let socket: Box<dyn Socket> = match host {
        Host::Tcp(host, port) => {
            let stream = TcpStream::connect((host.as_str(), *port))?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
        Host::Unix(directory, port) => {
            Box::new(UnixStream::connect(directory.join(format!(".s.PGSQL.{port}")))?)
        }
    };
    socket.bound_reads(Some(FRAME_TIMEOUT));
    Ok(socket)
}

/// The format of a parameter or a result column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text = 0,
    Binary = 1,
}

/// Frontend messages, each ready to be sent; they can be concatenated into a pipeline.
pub mod frontend {
    use super::Format;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![tag];
        out.extend_from_slice(&(i32::try_from(body.len()).expect("a small message") + 4).to_be_bytes());
        out.extend_from_slice(body);
        out
    }

    fn string(out: &mut Vec<u8>, text: &str) {
        out.extend_from_slice(text.as_bytes());
        out.push(0);
    }

    fn count(out: &mut Vec<u8>, n: usize) {
        out.extend_from_slice(&i16::try_from(n).expect("a small count").to_be_bytes());
    }

    /// A message without a tag: its length, then a code, then more.
    pub fn untagged(code: i32, rest: &[u8]) -> Vec<u8> {
        let mut out = (i32::try_from(rest.len()).expect("a small message") + 8).to_be_bytes().to_vec();
        out.extend_from_slice(&code.to_be_bytes());
        out.extend_from_slice(rest);
        out
    }

    /// StartupMessage of a protocol version: 196608 is 3.0.
    pub fn startup(version: i32, target: &super::Target, options: &[(&str, &str)]) -> Vec<u8> {
        let mut body = Vec::new();
        for (name, value) in
            [("user", target.user.as_str()), ("database", target.database.as_str())].iter().chain(options)
        {
            string(&mut body, name);
            string(&mut body, value);
        }
        body.push(0);
        untagged(version, &body)
    }

    pub fn query(sql: &str) -> Vec<u8> {
        query_bytes(sql.as_bytes())
    }

    /// A Query in whatever encoding the session speaks.
    pub fn query_bytes(sql: &[u8]) -> Vec<u8> {
        message(b'Q', &[sql, &[0]].concat())
    }

    /// FunctionCall with arguments and result in text.
    pub fn function_call(oid: u32, arguments: &[&str]) -> Vec<u8> {
        let mut body = oid.to_be_bytes().to_vec();
        count(&mut body, 1);
        count(&mut body, Format::Text as usize);
        count(&mut body, arguments.len());
        for argument in arguments {
            body.extend_from_slice(&i32::try_from(argument.len()).expect("a small value").to_be_bytes());
            body.extend_from_slice(argument.as_bytes());
        }
        count(&mut body, Format::Text as usize);
        message(b'F', &body)
    }

    pub fn parse(name: &str, sql: &str, types: &[u32]) -> Vec<u8> {
        let mut body = Vec::new();
        string(&mut body, name);
        string(&mut body, sql);
        count(&mut body, types.len());
        for oid in types {
            body.extend_from_slice(&oid.to_be_bytes());
        }
        message(b'P', &body)
    }

    /// One format stands for all parameters; likewise for the results.
    pub fn bind(
        portal: &str,
        statement: &str,
        format: Format,
        values: &[Option<Vec<u8>>],
        results: Format,
    ) -> Vec<u8> {
        let mut body = Vec::new();
        string(&mut body, portal);
        string(&mut body, statement);
        count(&mut body, 1);
        count(&mut body, format as usize);
        count(&mut body, values.len());
        for value in values {
            match value {
                None => body.extend_from_slice(&(-1i32).to_be_bytes()),
                Some(value) => {
                    body.extend_from_slice(&i32::try_from(value.len()).expect("a small value").to_be_bytes());
                    body.extend_from_slice(value);
                }
            }
        }
        count(&mut body, 1);
        count(&mut body, results as usize);
        message(b'B', &body)
    }

    /// `kind` is b'S' for a statement, b'P' for a portal.
    pub fn describe(kind: u8, name: &str) -> Vec<u8> {
        let mut body = vec![kind];
        string(&mut body, name);
        message(b'D', &body)
    }

    pub fn close(kind: u8, name: &str) -> Vec<u8> {
        let mut body = vec![kind];
        string(&mut body, name);
        message(b'C', &body)
    }

    pub fn execute(portal: &str, max_rows: i32) -> Vec<u8> {
        let mut body = Vec::new();
        string(&mut body, portal);
        body.extend_from_slice(&max_rows.to_be_bytes());
        message(b'E', &body)
    }

    pub fn sync() -> Vec<u8> {
        message(b'S', &[])
    }

    pub fn flush() -> Vec<u8> {
        message(b'H', &[])
    }

    pub fn copy_data(data: &[u8]) -> Vec<u8> {
        message(b'd', data)
    }

    pub fn copy_done() -> Vec<u8> {
        message(b'c', &[])
    }

    pub fn copy_fail(reason: &str) -> Vec<u8> {
        let mut body = Vec::new();
        string(&mut body, reason);
        message(b'f', &body)
    }

    pub(super) fn password(body: &[u8]) -> Vec<u8> {
        message(b'p', body)
    }

    pub fn terminate() -> Vec<u8> {
        message(b'X', &[])
    }
}

/// What stops a login: the server's last frame, or the connection.
#[derive(Debug)]
pub enum LoginError {
    Refused(Frame),
    Io(io::Error),
}

impl From<io::Error> for LoginError {
    fn from(error: io::Error) -> LoginError {
        LoginError::Io(error)
    }
}

/// One session.
pub struct Client {
    socket: Box<dyn Socket>,
    host: Host,
    /// Bytes read from the socket and not yet taken as frames.
    pending: Vec<u8>,
    /// The ParameterStatus values of the login, then as they change.
    pub parameters: BTreeMap<String, String>,
    /// Frames of the login, authentication left out.
    pub greeting: Vec<Frame>,
    pub pid: i32,
    /// Of four bytes, or more in newer protocols.
    key: Vec<u8>,
}

/// What CancelRequest needs.
#[derive(Clone)]
pub struct CancelKey {
    host: Host,
    pid: i32,
    key: Vec<u8>,
}

impl CancelKey {
    /// The same key, for another server.
    pub fn at(&self, host: &Host) -> CancelKey {
        CancelKey { host: host.clone(), ..self.clone() }
    }

    /// Another key: one bit of its secret is different.
    pub fn with_bit(mut self, bit: usize) -> CancelKey {
        self.key[bit / 8] ^= 1 << (bit % 8);
        self
    }

    /// Sends CancelRequest on a connection of its own and waits until the server has closed it.
    pub fn cancel(&self) {
        let mut socket = open(&self.host).expect("a connection for CancelRequest");
        let mut body = Vec::new();
        for number in [12 + self.key.len() as i32, 80_877_102, self.pid] {
            body.extend_from_slice(&number.to_be_bytes());
        }
        body.extend_from_slice(&self.key);
        socket.write_all(&body).expect("CancelRequest sent");
        let _ = socket.read(&mut [0; 16]); // either end of file or a reset: both mean it was taken
    }
}

impl Client {
    /// Logs in, or panics with what the server said.
    #[track_caller]
    pub fn connect(target: &Target) -> Client {
        match Client::try_connect(target, &[]) {
            Ok(client) => client,
            Err(error) => panic!("login of {} at {:?} failed: {error:?}", target.user, target.host),
        }
    }

    /// A connection on which nothing was said yet.
    pub fn unspoken(target: &Target) -> io::Result<Client> {
        Ok(Client {
            socket: open(&target.host)?,
            host: target.host.clone(),
            pending: Vec::new(),
            parameters: BTreeMap::new(),
            greeting: Vec::new(),
            pid: 0,
            key: Vec::new(),
        })
    }

    /// One byte outside of any frame: the answer to SSLRequest and GSSENCRequest.
    pub fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.socket.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    /// Logs in with more startup parameters.
    pub fn try_connect(target: &Target, options: &[(&str, &str)]) -> Result<Client, LoginError> {
        let mut client = Client::unspoken(target)?;
        client.socket.write_all(&frontend::startup(196_608, target, options))?;
        client.login(target)?;
        Ok(client)
    }

    fn login(&mut self, target: &Target) -> Result<(), LoginError> {
        let mut scram = Scram::new(&target.password);
        loop {
            let frame = self.try_frame()?;
            match frame.tag {
                b'R' => {
                    let code = i32::from_be_bytes(frame.body[..4].try_into().expect("four bytes"));
                    let rest = &frame.body[4..];
                    let answer = match code {
                        0 | 12 => {
                            if code == 12 {
                                scram.verify(rest);
                            }
                            continue;
                        }
                        3 => [target.password.as_bytes(), &[0]].concat(),
                        10 => scram.first(),
                        11 => scram.last(rest),
                        other => panic!("authentication request {other} is not spoken here"),
                    };
                    self.socket.write_all(&frontend::password(&answer))?;
                }
                b'K' => {
                    self.pid = i32::from_be_bytes(frame.body[..4].try_into().expect("four bytes"));
                    self.key = frame.body[4..].to_vec();
                }
                b'E' => return Err(LoginError::Refused(frame)),
                b'Z' => {
                    self.greeting.push(frame);
                    return Ok(());
                }
                _ => self.greeting.push(frame),
            }
        }
    }

    pub fn cancel_key(&self) -> CancelKey {
        CancelKey { host: self.host.clone(), pid: self.pid, key: self.key.clone() }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the server takes what is sent");
    }

    /// Like [`Client::send`], but a lost connection is a value.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)
    }

    /// The next frame, ParameterStatus remembered on the way.
    pub fn try_frame(&mut self) -> io::Result<Frame> {
        let mut chunk = [0; 16 * 1024];
        loop {
            if self.pending.len() >= 5 {
                let length = u32::from_be_bytes(self.pending[1..5].try_into().expect("four bytes")) as usize;
                if self.pending.len() > length {
                    let frame = Frame { tag: self.pending[0], body: self.pending[5..=length].to_vec() };
                    self.pending.drain(..=length);
                    if frame.tag == b'S' {
                        let mut parts = frame.body.split(|byte| *byte == 0);
                        let mut part =
                            || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
                        let name = part();
                        self.parameters.insert(name, part());
                    }
                    return Ok(frame);
                }
            }
            match self.socket.read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.pending.extend_from_slice(&chunk[..n]),
                // The process was stopped, and goes on.
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    #[track_caller]
    pub fn frame(&mut self) -> Frame {
        match self.try_frame() {
            Ok(frame) => frame,
            Err(error) => panic!("no frame came: {error}"),
        }
    }

    /// True if no frame comes within `wait`.
    pub fn quiet_for(&mut self, wait: Duration) -> bool {
        self.socket.bound_reads(Some(wait));
        let answer = self.try_frame();
        self.socket.bound_reads(Some(FRAME_TIMEOUT));
        match answer {
            Err(error) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
            Ok(_) => false,
        }
    }

    /// Frames up to and with the first whose tag is one of `tags`.
    #[track_caller]
    pub fn until(&mut self, tags: &[u8]) -> Reply {
        let mut frames = Vec::new();
        loop {
            let frame = self.frame();
            let last = tags.contains(&frame.tag);
            frames.push(frame);
            if last {
                return Reply { frames };
            }
        }
    }

    /// Frames up to and with ReadyForQuery.
    #[track_caller]
    pub fn reply(&mut self) -> Reply {
        self.until(b"Z")
    }

    /// Like [`Client::reply`], but a lost connection is a value.
    pub fn try_reply(&mut self) -> io::Result<Reply> {
        let mut frames = Vec::new();
        loop {
            let frame = self.try_frame()?;
            let last = frame.tag == b'Z';
            frames.push(frame);
            if last {
                return Ok(Reply { frames });
            }
        }
    }

    /// A simple Query.
    #[track_caller]
    pub fn query(&mut self, sql: &str) -> Reply {
        self.send(&frontend::query(sql));
        self.reply()
    }

    /// A simple Query whose connection may be lost on the way.
    pub fn try_query(&mut self, sql: &str) -> io::Result<Reply> {
        self.socket.write_all(&frontend::query(sql))?;
        self.try_reply()
    }

    /// A simple Query that must succeed.
    #[track_caller]
    pub fn run(&mut self, sql: &str) -> Reply {
        let reply = self.query(sql);
        assert!(reply.error().is_none(), "{sql}\n{reply:?}");
        reply
    }

    /// The only value of a simple Query.
    #[track_caller]
    pub fn value(&mut self, sql: &str) -> String {
        let reply = self.run(sql);
        let rows = reply.rows();
        assert!(rows.len() == 1 && rows[0].len() == 1, "one value was expected of {sql}\n{reply:?}");
        rows[0][0].clone().unwrap_or_else(|| panic!("a value was expected of {sql}, not NULL"))
    }

    /// Parse, Bind, Describe, Execute, Sync in one pipeline, all unnamed, as JDBC does.
    #[track_caller]
    pub fn pipelined(
        &mut self,
        sql: &str,
        format: Format,
        values: &[Option<Vec<u8>>],
        results: Format,
    ) -> Reply {
        let mut bytes = frontend::parse("", sql, &[]);
        bytes.extend(frontend::bind("", "", format, values, results));
        bytes.extend(frontend::describe(b'P', ""));
        bytes.extend(frontend::execute("", 0));
        bytes.extend(frontend::sync());
        self.send(&bytes);
        self.reply()
    }

    /// Parse and Describe of a named statement, Sync; then Bind, Execute, Sync; then Close, as libpq and tokio-postgres do.
    #[track_caller]
    pub fn prepared(
        &mut self,
        name: &str,
        sql: &str,
        format: Format,
        values: &[Option<Vec<u8>>],
        results: Format,
    ) -> Reply {
        let mut bytes = frontend::parse(name, sql, &[]);
        bytes.extend(frontend::describe(b'S', name));
        bytes.extend(frontend::sync());
        self.send(&bytes);
        let mut reply = self.reply();
        if reply.error().is_some() {
            return reply;
        }
        let mut bytes = frontend::bind("", name, format, values, results);
        bytes.extend(frontend::execute("", 0));
        bytes.extend(frontend::sync());
        self.send(&bytes);
        reply.frames.extend(self.reply().frames);
        let mut bytes = frontend::close(b'S', name);
        bytes.extend(frontend::sync());
        self.send(&bytes);
        reply.frames.extend(self.reply().frames);
        reply
    }

    /// Ends the socket without a word, as a client that dies.
    pub fn drop_connection(self) {
        self.socket.close();
    }

    /// A handle that can write while another thread reads.
    pub fn writer(&self) -> impl FnMut(&[u8]) + Send + use<> {
        let mut write = self.try_writer();
        move |bytes: &[u8]| write(bytes).expect("the server takes what is sent")
    }

    /// Like [`Client::writer`], but a lost connection is a value.
    pub fn try_writer(&self) -> impl FnMut(&[u8]) -> io::Result<()> + Send + use<> {
        let mut socket = self.socket.other();
        move |bytes: &[u8]| socket.write_all(bytes)
    }
}

impl Client {
    /// Logs in with a protocol version of its own. What the server said, up to ReadyForQuery or a refusal, is there to be read
    /// again as frames.
    pub fn open(target: &Target, version: i32, options: &[(&str, &str)]) -> io::Result<Client> {
        let mut client = Client::unspoken(target)?;
        client.socket.write_all(&frontend::startup(version, target, options))?;
        let mut scram = Scram::new(&target.password);
        let mut said = Vec::new();
        loop {
            let frame = match client.try_frame() {
                Ok(frame) => frame,
                // A refusal is the last word.
                Err(_) if !said.is_empty() => break,
                Err(e) => return Err(e),
            };
            let code = || i32::from_be_bytes(frame.body[..4].try_into().expect("four bytes"));
            let answer = match (frame.tag, frame.tag == b'R') {
                (_, true) if code() == 10 => Some(scram.first()),
                (_, true) if code() == 11 => Some(scram.last(&frame.body[4..])),
                (_, true) if code() == 3 => Some([target.password.as_bytes(), &[0]].concat()),
                (_, true) if code() == 12 => {
                    scram.verify(&frame.body[4..]);
                    None
                }
                (b'K', _) => {
                    client.pid = code();
                    client.key = frame.body[4..].to_vec();
                    None
                }
                _ => None,
            };
            if let Some(answer) = answer {
                client.socket.write_all(&frontend::password(&answer))?;
            }
            let ready = frame.tag == b'Z';
            said.push(frame);
            if ready {
                break;
            }
        }
        let mut bytes = Vec::new();
        for frame in said {
            bytes.push(frame.tag);
            bytes.extend_from_slice(&(frame.body.len() as u32 + 4).to_be_bytes());
            bytes.extend(frame.body);
        }
        bytes.append(&mut client.pending);
        client.pending = bytes;
        Ok(client)
    }

    /// The next frame, or nothing if none comes within `wait`.
    pub fn frame_within(&mut self, wait: Duration) -> io::Result<Option<Frame>> {
        self.socket.bound_reads(Some(wait));
        let answer = self.try_frame();
        self.socket.bound_reads(Some(FRAME_TIMEOUT));
        match answer {
            Ok(frame) => Ok(Some(frame)),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.socket.write_all(&frontend::terminate()); // the server may be gone
    }
}
