//! What the tests of TLS need: authorities and certificates by the openssl program, psql with the settings of a test, and a TLS
//! client whose every byte a test can choose. Knows files and sockets, no product.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, net};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::instance::scrub;
use crate::support::wire::{Frame, Host, Target, frontend};

/// A folder of authorities and what they have signed: NAME.crt and NAME.key.
pub struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    pub fn new() -> Certificates {
        Certificates { folder: tempfile::tempdir().expect("a temporary directory") }
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// As text for a settings file or a setting of libpq.
    pub fn text(&self, file: &str) -> String {
        self.path(file).to_str().expect("UTF-8").to_owned()
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        command.args(arguments.split_whitespace()).current_dir(self.folder.path());
        let output = command.output().expect("the openssl program");
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    pub fn authority(&self, name: &str) {
        self.itself(name, "ec -pkeyopt ec_paramgen_curve:P-256");
    }

    /// Signed by itself. `kind` is of its key, as openssl names it.
    pub fn itself(&self, name: &str, kind: &str) {
        self.openssl(&format!(
            "req -x509 -newkey {kind} -nodes -days 2 -subj /CN={name} -keyout {name}.key -out {name}.crt"
        ));
        self.private(name);
    }

    /// For a server at localhost and 127.0.0.1, signed by `authority`.
    pub fn server(&self, name: &str, authority: &str, kind: &str) {
        self.signed(name, authority, kind, "subjectAltName=DNS:localhost,IP:127.0.0.1");
    }

    pub fn client(&self, name: &str, authority: &str) {
        self.signed(name, authority, "ec -pkeyopt ec_paramgen_curve:P-256", "extendedKeyUsage=clientAuth");
    }

    fn signed(&self, name: &str, authority: &str, kind: &str, extension: &str) {
        self.openssl(&format!(
            "req -newkey {kind} -nodes -subj /CN={name} -addext {extension} -keyout {name}.key -out {name}.csr"
        ));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA {authority}.crt -CAkey {authority}.key -CAcreateserial -days 2 -copy_extensions copy -out {name}.crt"
        ));
        self.private(name);
    }

    fn private(&self, name: &str) {
        fs::set_permissions(self.path(&format!("{name}.key")), fs::Permissions::from_mode(0o600))
            .expect("a private key");
    }

    /// Puts a copy of one file in the place of another at once.
    pub fn put(&self, from: &str, to: &str) {
        let new = self.path(&format!("{to}.new"));
        fs::copy(self.path(from), &new).expect("a copy"); // with its mode
        fs::rename(new, self.path(to)).expect("in its place");
    }
}

/// What psql did: whether it succeeded, and both its streams.
pub fn psql(target: &Target, settings: &[(&str, &str)], sql: &str) -> (bool, String) {
    let Host::Tcp(host, port) = &target.host else { panic!("a target by TCP") };
    let mut command = Command::new("psql");
    scrub(&mut command);
    command.args(["-X", "-w", "-At", "-c", sql]);
    command.env("PGHOST", "localhost").env("PGHOSTADDR", host).env("PGPORT", port.to_string());
    command
        .env("PGUSER", &target.user)
        .env("PGPASSWORD", &target.password)
        .env("PGDATABASE", &target.database);
    // No certificates of whoever runs the tests.
    command
        .env("HOME", "/nonexistent")
        .env("PGSSLCERT", "/nonexistent")
        .env("PGSSLKEY", "/nonexistent")
        .env("PGCONNECT_TIMEOUT", "60");
    for (name, value) in settings {
        command.env(name, value);
    }
    let output = command.output().expect("psql starts");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

/// psql with these settings must succeed; gives what it printed.
#[track_caller]
pub fn psql_works(target: &Target, settings: &[(&str, &str)], sql: &str) -> String {
    let (done, text) = psql(target, settings, sql);
    assert!(done, "{settings:?}: {text}");
    text.trim_end().to_owned()
}

/// psql with these settings must fail, saying this.
#[track_caller]
pub fn psql_fails(target: &Target, settings: &[(&str, &str)], says: &str) -> String {
    let (done, text) = psql(target, settings, "SELECT 1");
    assert!(!done && text.contains(says), "{settings:?} should have failed with \"{says}\": {text}");
    text
}

/// A connection that gives up reading after a while.
pub fn socket(port: u16) -> TcpStream {
    let socket = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a read timeout");
    socket
}

/// A connection whose receiving side has next to no room.
pub fn narrow_socket(port: u16) -> TcpStream {
    connected(port, |socket| socket.set_recv_buffer_size(4096))
}

/// An address of this machine that is not loopback; None where it has none.
pub fn address_on_a_network() -> Option<net::Ipv4Addr> {
    // Nothing is sent: connecting a datagram socket only looks up the route.
    let probe = UdpSocket::bind("0.0.0.0:0").ok()?;
    probe.connect("203.0.113.1:9").ok()?;
    match probe.local_addr().ok()?.ip() {
        net::IpAddr::V4(ip) if !ip.is_loopback() && !ip.is_unspecified() => Some(ip),
        _ => None,
    }
}

/// A connection to loopback that comes from another address: to the server, that of another machine.
pub fn socket_from(source: net::Ipv4Addr, port: u16) -> TcpStream {
    connected(port, |socket| socket.bind(SocketAddr::from((source, 0))))
}

fn connected(port: u16, prepare: impl Fn(&tokio::net::TcpSocket) -> io::Result<()>) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        prepare(&socket)?;
        socket.connect(SocketAddr::from(([127, 0, 0, 1], port))).await?.into_std()
    });
    let stream = stream.expect("a connection");
    stream.set_nonblocking(false).expect("a blocking socket");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a read timeout");
    stream
}

/// Everything until the server closes; an error in place of an end is one.
pub fn rest(socket: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match socket.read(&mut chunk) {
            Ok(0) => return bytes,
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                panic!("the connection stays open after {bytes:?}")
            }
            Err(_) => return bytes,
        }
    }
}

/// The next frame.
pub fn frame(socket: &mut impl Read) -> io::Result<Frame> {
    let mut head = [0; 5];
    socket.read_exact(&mut head)?;
    let len = u32::from_be_bytes(head[1..].try_into().expect("four bytes")) as usize;
    let mut body = vec![0; len - 4];
    socket.read_exact(&mut body)?;
    Ok(Frame { tag: head[0], body })
}

pub type Tls = StreamOwned<ClientConnection, TcpStream>;

/// Begins TLS on a socket, trusting one authority, with these names in ALPN.
pub fn handshake(socket: TcpStream, authority: &Path, alpn: &[&[u8]]) -> io::Result<Tls> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).expect("a certificate")).expect("an authority");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS 1.2 and 1.3");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut stream = StreamOwned::new(connection, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    stream.flush()?;
    Ok(stream)
}

pub const SSL_REQUEST: i32 = 80_877_103;

/// TLS by request.
pub fn encrypted(port: u16, authority: &Path) -> Tls {
    let mut socket = socket(port);
    socket.write_all(&frontend::untagged(SSL_REQUEST, &[])).expect("SSLRequest sent");
    let mut answer = [0];
    socket.read_exact(&mut answer).expect("an answer");
    assert_eq!(answer, *b"S");
    handshake(socket, authority, &[]).expect("a handshake")
}
