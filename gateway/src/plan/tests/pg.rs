//! A real PostgreSQL for these tests: one scratch cluster a test process, on a private socket, that ends with the process and takes its directory
//! along; and a small blocking client that sees frames as they are.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const KEEPER: &str = r#"
set -e
"$BIN/initdb" -D "$DIR/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 -N >"$DIR/initdb.log" 2>&1
"$BIN/postgres" -D "$DIR/data" -k "$DIR" -c listen_addresses= -c fsync=off -c max_connections=40 \
    -c unix_socket_permissions=0777 >"$DIR/server.log" 2>&1 &
pid=$!
cat >/dev/null || true
while kill -INT $pid 2>/dev/null; do sleep 0.1; done
rm -rf "$DIR"
"#;

pub struct Cluster {
    dir: PathBuf,
    _keeper: Child,
}

/// A shell as a user that may run PostgreSQL.
fn shell() -> Command {
    let root = Command::new("id").arg("-u").output().expect("id").stdout.trim_ascii() == b"0";
    let mut command = Command::new(if root { "setpriv" } else { "sh" });
    match root {
        true => command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups", "sh", "-c"]),
        false => command.arg("-c"),
    };
    command
}

fn binaries() -> PathBuf {
    let on_path = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path).find(|d| d.join("initdb").exists() && d.join("postgres").exists())
    });
    on_path.unwrap_or_else(|| {
        let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
            .expect("PostgreSQL is installed")
            .flatten()
            .filter_map(|e| Some((e.file_name().to_str()?.parse().ok()?, e.path().join("bin"))))
            .collect();
        versions.sort();
        versions.pop().expect("PostgreSQL is installed").1
    })
}

/// The cluster of this test process, with `schema` run in it once.
pub fn cluster(schema: &str) -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let dir = std::env::temp_dir().join(format!("gateway-plan-{}", std::process::id()));
        assert!(shell().arg(r#"mkdir -m 0755 "$DIR""#).env("DIR", &dir).status().expect("a shell").success());
        let keeper = shell()
            .arg(KEEPER)
            .env("BIN", binaries())
            .env("DIR", &dir)
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let cluster = Cluster { dir, _keeper: keeper };
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut client = loop {
            match cluster.try_connect() {
                Some(client) => break client,
                None => assert!(Instant::now() < deadline, "PostgreSQL did not start"),
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        client.query(schema).expect("the schema");
        cluster
    })
}

impl Cluster {
    fn try_connect(&self) -> Option<Client> {
        let stream = UnixStream::connect(self.dir.join(".s.PGSQL.5432")).ok()?;
        let mut client = Client { stream };
        let mut body = 196_608i32.to_be_bytes().to_vec();
        body.extend(b"user\0postgres\0database\0postgres\0client_encoding\0UTF8\0\0");
        let length = (body.len() as i32 + 4).to_be_bytes();
        client.stream.write_all(&[&length[..], &body].concat()).ok()?;
        client.answer().ok()?;
        Some(client)
    }

    pub fn connect(&self) -> Client {
        self.try_connect().expect("a connection")
    }
}

pub struct Client {
    stream: UnixStream,
}

/// SQLSTATE and message.
pub type ServerError = (String, String);

/// What one exchange gave.
#[derive(Debug, Default)]
pub struct Answer {
    /// Bodies of DataRow.
    pub rows: Vec<Vec<u8>>,
    /// Name, type OID, typmod.
    pub fields: Vec<(String, u32, i32)>,
    pub param_types: Vec<u32>,
    /// Details of LOG messages about trees.
    pub trees: Vec<String>,
    /// Bodies of CopyData, joined.
    pub copied: Vec<u8>,
}

impl Answer {
    /// The values of a row, by column.
    pub fn values(row: &[u8]) -> Vec<Option<Vec<u8>>> {
        let mut rest = &row[2..];
        let mut values = Vec::new();
        while !rest.is_empty() {
            let length = i32::from_be_bytes(rest[..4].try_into().expect("four bytes"));
            rest = &rest[4..];
            values.push((length >= 0).then(|| {
                let (value, tail) = rest.split_at(length as usize);
                rest = tail;
                value.to_vec()
            }));
        }
        values
    }
}

impl Client {
    fn send(&mut self, tag: u8, body: &[u8]) {
        let length = (body.len() as i32 + 4).to_be_bytes();
        self.stream.write_all(&[&[tag][..], &length, body].concat()).expect("the server listens");
    }

    fn frame(&mut self) -> std::io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head)?;
        let length = i32::from_be_bytes(head[1..].try_into().expect("four bytes")) as usize;
        let mut body = vec![0; length - 4];
        self.stream.read_exact(&mut body)?;
        Ok((head[0], body))
    }

    /// Everything up to ReadyForQuery.
    fn answer(&mut self) -> Result<Answer, ServerError> {
        let mut answer = Answer::default();
        let mut error = None;
        loop {
            let (tag, body) = self.frame().map_err(|e| ("08006".to_owned(), e.to_string()))?;
            match tag {
                b'D' => answer.rows.push(body),
                b'd' => answer.copied.extend(body),
                b'T' => answer.fields = fields(&body),
                b't' => {
                    answer.param_types =
                        body[2..].chunks(4).map(|b| u32::from_be_bytes(b.try_into().expect("four"))).collect()
                }
                b'N' | b'E' => {
                    let parts: HashMap<u8, String> = body
                        .split(|b| *b == 0)
                        .filter(|p| !p.is_empty())
                        .map(|p| (p[0], String::from_utf8_lossy(&p[1..]).into_owned()))
                        .collect();
                    let part = |k: u8| parts.get(&k).cloned().unwrap_or_default();
                    if tag == b'E' {
                        error.get_or_insert((part(b'C'), part(b'M')));
                    } else if part(b'M') == "rewritten parse tree:" {
                        answer.trees.push(part(b'D'));
                    }
                }
                b'Z' => return error.map_or(Ok(answer), Err),
                _ => {}
            }
        }
    }

    /// A simple Query.
    pub fn query(&mut self, sql: &str) -> Result<Answer, ServerError> {
        self.send(b'Q', &[sql.as_bytes(), b"\0"].concat());
        self.answer()
    }

    /// Parse and Describe.
    pub fn describe(&mut self, sql: &str, types: &[u32]) -> Result<Answer, ServerError> {
        let mut body = [b"\0", sql.as_bytes(), b"\0"].concat();
        body.extend((types.len() as i16).to_be_bytes());
        types.iter().for_each(|t| body.extend(t.to_be_bytes()));
        self.send(b'P', &body);
        self.send(b'D', b"S\0");
        self.send(b'S', b"");
        self.answer()
    }

    /// Parse, Bind with text parameters, Execute.
    pub fn execute(
        &mut self,
        sql: &str,
        types: &[u32],
        params: &[Option<&str>],
        binary: bool,
    ) -> Result<Answer, ServerError> {
        let mut body = [b"\0", sql.as_bytes(), b"\0"].concat();
        body.extend((types.len() as i16).to_be_bytes());
        types.iter().for_each(|t| body.extend(t.to_be_bytes()));
        self.send(b'P', &body);
        let mut body = b"\0\0".to_vec();
        body.extend(0i16.to_be_bytes());
        body.extend((params.len() as i16).to_be_bytes());
        for param in params {
            match param {
                None => body.extend((-1i32).to_be_bytes()),
                Some(text) => {
                    body.extend((text.len() as i32).to_be_bytes());
                    body.extend(text.as_bytes());
                }
            }
        }
        body.extend(1i16.to_be_bytes());
        body.extend(i16::from(binary).to_be_bytes());
        self.send(b'B', &body);
        self.send(b'E', b"\0\0\0\0\0");
        self.send(b'S', b"");
        self.answer()
    }
}

fn fields(body: &[u8]) -> Vec<(String, u32, i32)> {
    let mut rest = &body[2..];
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let end = rest.iter().position(|b| *b == 0).expect("a terminated name");
        let name = String::from_utf8_lossy(&rest[..end]).into_owned();
        let fixed = &rest[end + 1..];
        let type_oid = u32::from_be_bytes(fixed[6..10].try_into().expect("four bytes"));
        let typmod = i32::from_be_bytes(fixed[12..16].try_into().expect("four bytes"));
        fields.push((name, type_oid, typmod));
        rest = &fixed[18..];
    }
    fields
}
