//! TLS on the gateway's port, SCRAM under it, and what holds back connections that are too many, too slow or too quick:
//! psql and a libpq that knows direct TLS, and clients that choose every byte.

mod secured;
mod support;

use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use std::{fs, thread};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secured::{Certificates, SSL_REQUEST, frame, handshake, psql_fails, psql_works, rest};
use support::instance::{Instance, Options, on_path, signal, wait_for_value};
use support::scram::Scram;
use support::wait_for;
use support::wire::{Client, Host, LoginError, Target, frontend};

const GSS_REQUEST: i32 = 80_877_104;
const P256: &str = "ec -pkeyopt ec_paramgen_curve:P-256";

/// An instance with settings of its own, and the certificates that these name.
struct Secured {
    instance: Instance,
    certificates: Certificates,
}

impl Secured {
    /// `settings` go into the section `[gateway]`, `tls` into `[gateway.tls]`, where `%` is the folder of the certificates.
    fn start(certificates: Certificates, settings: &str, tls: &str) -> Secured {
        certificates.server("server", "authority", P256);
        certificates.put("server.crt", "now.crt");
        certificates.put("server.key", "now.key");
        let folder = certificates.text("");
        let text =
            format!("[gateway]\n{settings}\n[gateway.tls]\ncert = \"%now.crt\"\nkey = \"%now.key\"\n{tls}\n");
        fs::write(certificates.path("settings.toml"), text.replace('%', &folder)).expect("settings");
        let options = Options::on_demand().with("WATERSHED_CONFIG", &certificates.text("settings.toml"));
        Secured { instance: Instance::start(options), certificates }
    }

    /// The one that most tests share.
    fn shared() -> &'static Secured {
        static SHARED: OnceLock<Secured> = OnceLock::new();
        SHARED.get_or_init(|| {
            let certificates = Certificates::new();
            certificates.authority("authority");
            certificates.authority("stranger");
            Secured::start(certificates, "startup_timeout = \"5s\"", "")
        })
    }

    fn owner(&self) -> Target {
        self.instance.gateway()
    }

    fn socket(&self) -> std::net::TcpStream {
        secured::socket(self.instance.port())
    }

    /// TLS by request.
    fn encrypted(&self) -> secured::Tls {
        secured::encrypted(self.instance.port(), &self.certificates.path("authority.crt"))
    }
}

/// The first frame that is no authentication, after logging in with SCRAM-SHA-256 as the wire client does.
fn log_in(stream: &mut (impl Read + Write), target: &Target) -> support::wire::Frame {
    stream.write_all(&frontend::startup(196_608, target, &[])).expect("startup sent");
    let mut scram = Scram::new(&target.password);
    loop {
        let next = frame(stream).expect("a frame");
        if next.tag != b'R' {
            return next;
        }
        let answer = match next.body[3] {
            10 => scram.first(),
            11 => scram.last(&next.body[4..]),
            _ => continue,
        };
        stream.write_all(&password_message(&answer)).expect("an answer sent");
    }
}

fn password_message(body: &[u8]) -> Vec<u8> {
    let mut out = vec![b'p'];
    out.extend_from_slice(&(u32::try_from(body.len()).expect("a small message") + 4).to_be_bytes());
    out.extend_from_slice(body);
    out
}

/// Asks for one value on a session that has logged in, reading over what comes before it.
fn value(stream: &mut (impl Read + Write), sql: &str) -> String {
    stream.write_all(&frontend::query(sql)).expect("a query sent");
    loop {
        let next = frame(stream).expect("a frame");
        match next.tag {
            b'D' => {
                return String::from_utf8_lossy(next.columns()[0].as_deref().expect("no NULL")).into_owned();
            }
            b'E' => panic!("{next:?}"),
            _ => {}
        }
    }
}

/// The SQLSTATE and message of the frame, which must be an error.
#[track_caller]
fn error(bytes: &[u8]) -> (String, String) {
    let frame = frame(&mut &bytes[..]).unwrap_or_else(|_| panic!("no frame in {bytes:?}"));
    assert_eq!(frame.tag, b'E', "{frame:?}");
    let fields = frame.fields();
    (fields[&'C'].clone(), fields[&'M'].clone())
}

fn refused(target: &Target) -> (String, String) {
    match Client::try_connect(target, &[]) {
        Err(LoginError::Refused(frame)) => (frame.fields()[&'C'].clone(), frame.fields()[&'M'].clone()),
        Err(LoginError::Io(e)) => panic!("{e}"),
        Ok(_) => panic!("the login succeeded"),
    }
}

#[test]
fn psql_speaks_tls_and_knows_who_answers() {
    if !on_path("psql") {
        println!("psql is not installed: nothing to see");
        return;
    }
    let secured = Secured::shared();
    let owner = secured.owner();
    let (authority, stranger) =
        (secured.certificates.text("authority.crt"), secured.certificates.text("stranger.crt"));
    let full = [("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", authority.as_str())];
    for settings in [
        &[("PGSSLMODE", "require")][..],
        &[],
        &[("PGSSLMODE", "verify-ca"), ("PGSSLROOTCERT", &authority)],
        &full,
        &[full[0], full[1], ("PGHOST", "127.0.0.1")],
        &[full[0], full[1], ("PGSSLMINPROTOCOLVERSION", "TLSv1.3")],
        &[full[0], full[1], ("PGSSLMAXPROTOCOLVERSION", "TLSv1.2")],
    ] {
        let info = psql_works(&owner, settings, "\\conninfo");
        assert!(info.contains("SSL connection (protocol: TLSv1."), "{settings:?}: {info}");
        assert_eq!(psql_works(&owner, settings, "SELECT 1"), "1");
    }
    assert!(!psql_works(&owner, &[("PGSSLMODE", "disable")], "\\conninfo").contains("SSL"));
    psql_fails(
        &owner,
        &[("PGSSLMODE", "verify-ca"), ("PGSSLROOTCERT", &stranger)],
        "certificate verify failed",
    );
    psql_fails(&owner, &[full[0], full[1], ("PGHOST", "other.test")], "does not match host name");
    // Nothing older is spoken.
    psql_fails(
        &owner,
        &[full[0], full[1], ("PGSSLMINPROTOCOLVERSION", "TLSv1.1"), ("PGSSLMAXPROTOCOLVERSION", "TLSv1.1")],
        "SSL",
    );

    // What is said under TLS is the same, rows by the hundred thousand in both directions included.
    let rows = "SELECT n, repeat('x', n % 97), n::numeric / 7 FROM generate_series(1, 200000) n";
    assert_eq!(psql_works(&owner, &full, rows), psql_works(&secured.instance.direct(), &[], rows));
    let there_and_back = "CREATE TABLE encrypted (n int, t text)";
    psql_works(&owner, &full, there_and_back);
    psql_works(&owner, &full, &format!("INSERT INTO encrypted VALUES (1, '{}')", "y".repeat(100_000)));
    assert_eq!(psql_works(&owner, &full, "SELECT length(t) FROM encrypted"), "100000");
    let lake = "SELECT level, count(*) FROM logs GROUP BY level ORDER BY level";
    psql_works(
        &owner,
        &full,
        "INSERT INTO logs (ts, level, service) SELECT now(), 'L' || n % 5, 's' FROM generate_series(1, 1000) n",
    );
    secured.instance.archive();
    assert_eq!(psql_works(&owner, &full, lake), psql_works(&secured.instance.direct(), &[], lake));
}

/// Every way that libpq may use or not use channel binding: as with PostgreSQL that has TLS itself.
#[test]
fn scram_is_bound_to_the_channel_where_the_client_wants_it() {
    if !on_path("psql") {
        println!("psql is not installed: nothing to see");
        return;
    }
    let secured = Secured::shared();
    let owner = secured.owner();
    let mut admin = Client::connect(&secured.instance.admin());
    admin.run("CREATE ROLE bound LOGIN PASSWORD 'p\u{e4}ss \u{2167}'");
    let bound = owner.login("bound", "p\u{e4}ss \u{2167}");
    for binding in ["require", "prefer", "disable"] {
        let settings = [("PGSSLMODE", "require"), ("PGCHANNELBINDING", binding)];
        assert_eq!(psql_works(&bound, &settings, "SELECT current_user"), "bound", "{binding}");
        // Who refuses is PostgreSQL: the message is its own, whether the role is there or not.
        for (user, password) in
            [("bound", "wrong"), ("nobody_at_all", "wrong"), ("watershed_readonly", "wrong")]
        {
            let says = format!("FATAL:  password authentication failed for user \"{user}\"");
            let text = psql_fails(&owner.login(user, password), &settings, &says);
            assert!(!text.contains("DETAIL"), "{text}");
        }
        psql_fails(&bound.login("bound", ""), &settings, "no password supplied");
    }
    psql_fails(&bound, &[("PGSSLMODE", "disable"), ("PGCHANNELBINDING", "require")], "channel binding");
    // A password that has changed counts at once, in every cell.
    admin.run("ALTER ROLE bound PASSWORD 'next'");
    for binding in ["require", "disable"] {
        let settings = [("PGSSLMODE", "require"), ("PGCHANNELBINDING", binding)];
        psql_fails(&bound, &settings, "password authentication failed");
        assert_eq!(psql_works(&bound.login("bound", "next"), &settings, "SELECT 1"), "1");
    }
    // One that has expired does not, as in PostgreSQL; nor one of another kind.
    admin.run("ALTER ROLE bound VALID UNTIL '2001-01-01'");
    let require = [("PGSSLMODE", "require"), ("PGCHANNELBINDING", "require")];
    psql_fails(&bound.login("bound", "next"), &require, "password authentication failed");
    admin.run("ALTER ROLE bound VALID UNTIL 'infinity' NOLOGIN");
    psql_fails(&bound.login("bound", "next"), &require, "role \"bound\" is not permitted to log in");
    admin.run("ALTER ROLE bound LOGIN; SET password_encryption = 'md5'; ALTER ROLE bound PASSWORD 'old'");
    psql_fails(&bound.login("bound", "old"), &require, "password authentication failed");
    // The gateway's own connection for verifiers may break; the next login opens another.
    admin.run("ALTER ROLE bound PASSWORD NULL; SET password_encryption = 'scram-sha-256'; ALTER ROLE bound PASSWORD 'last'");
    assert_eq!(psql_works(&bound.login("bound", "last"), &require, "SELECT 1"), "1");
    admin.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'watershed_gateway'");
    assert_eq!(psql_works(&bound.login("bound", "last"), &require, "SELECT 1"), "1");
}

/// What a client, or somebody on the way, may try in the exchange itself: the answers are those of the PostgreSQL behind the
/// gateway, which gets a certificate of its own for this (and is reached by the gateway over its socket, without TLS, all the same).
#[test]
fn scram_under_tls_is_not_talked_down() {
    let certificates = Certificates::new();
    certificates.authority("authority");
    let secured = Secured::start(certificates, "", "");
    let owner = secured.owner();
    // A client without channel binding is relayed.
    let mut stream = secured.encrypted();
    assert_eq!(log_in(&mut stream, &owner).tag, b'S');
    assert_eq!(value(&mut stream, "SELECT current_user"), owner.user);

    let mut admin = Client::connect(&secured.instance.admin());
    let folder = Path::new(&admin.value("SHOW data_directory")).to_owned();
    for (from, to, setting) in
        [("server.crt", "tls.crt", "ssl_cert_file"), ("server.key", "tls.key", "ssl_key_file")]
    {
        let to = folder.join(to);
        fs::copy(secured.certificates.path(from), &to).expect("a copy");
        let status = Command::new("chown").arg("--reference").arg(&folder).arg(&to).status();
        assert!(status.expect("chown starts").success());
        admin.run(&format!("ALTER SYSTEM SET {setting} = '{}'", to.display()));
    }
    admin.run("ALTER SYSTEM SET ssl = on");
    admin.run("SELECT pg_reload_conf()");
    wait_for_value(&mut admin, "SHOW ssl", "on");
    let behind = secured.instance.direct();
    let Host::Tcp(_, port) = &behind.host else { panic!("a target by TCP") };
    let (authority, gateway) = (secured.certificates.path("authority.crt"), secured.instance.port());

    // Everything that a server sends for these answers of a client, errors by state, message and detail.
    let answers = |port: u16, messages: &[&dyn Fn(&str) -> Vec<u8>]| -> Vec<String> {
        let mut stream = secured::encrypted(port, &authority);
        stream.write_all(&frontend::startup(196_608, &owner, &[])).expect("startup sent");
        let (mut shown, mut nonce) = (Vec::new(), String::new());
        for message in messages.iter().map(Some).chain([None]) {
            let Ok(next) = frame(&mut stream) else { break };
            if next.tag == b'E' {
                let fields = next.fields();
                shown.push(format!("{} {} {:?}", fields[&'C'], fields[&'M'], fields.get(&'D')));
                break;
            }
            let text = String::from_utf8_lossy(&next.body).into_owned();
            match text.split_once("r=") {
                // Nonce and salt are new each time, or the role's.
                Some((before, rest)) => {
                    nonce = rest.split(',').next().expect("a nonce").to_owned();
                    assert!(nonce.starts_with("abcdefgh") && nonce.len() > 20, "{text}");
                    let after = rest.split_once(',').expect("salt and iterations").1;
                    shown.push(format!("{before}r=...,{after}"));
                }
                None => shown.push(text),
            }
            if let Some(message) = message {
                stream.write_all(&password_message(&message(&nonce))).expect("a message sent");
            }
        }
        shown
    };
    let initial = |mechanism: &str, first: &str| {
        let mut body = mechanism.as_bytes().to_vec();
        body.push(0);
        body.extend_from_slice(&(first.len() as u32).to_be_bytes());
        body.extend_from_slice(first.as_bytes());
        body
    };
    let same = |what: &str, messages: &[&dyn Fn(&str) -> Vec<u8>]| -> Vec<String> {
        let (expected, actual) = (answers(*port, messages), answers(gateway, messages));
        assert_eq!(expected, actual, "{what}");
        actual
    };
    let binds = |first: &'static str| move |_: &str| initial("SCRAM-SHA-256-PLUS", first);
    let first = "p=tls-server-end-point,,n=,r=abcdefgh";
    for (mechanism, first, says) in [
        // "I can bind, and you cannot": the offer was taken away on the way.
        ("SCRAM-SHA-256", "y,,n=,r=abcdefgh", "28000 SCRAM channel binding negotiation error"),
        ("SCRAM-SHA-256", first, "08P01 malformed"),
        ("SCRAM-SHA-256-PLUS", "y,,n=,r=abcdefgh", "08P01 malformed"),
        ("SCRAM-SHA-256-PLUS", "n,,n=,r=abcdefgh", "08P01 malformed"),
        ("SCRAM-SHA-256-PLUS", "p=tls-unique,,n=,r=abcdefgh", "08P01 unsupported"),
        ("SCRAM-SHA-256-PLUS", "p=tls-server-end-point,a=other,n=,r=abcdefgh", "0A000 client uses"),
        ("SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,m=x,n=,r=abcdefgh", "0A000 client requires"),
        ("SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,n=,r=abc defgh", "08P01 non-printable"),
        ("SCRAM-SHA-1", "n,,n=,r=abcdefgh", "08P01 client selected an invalid"),
    ] {
        let shown = same(first, &[&move |_: &str| initial(mechanism, first)]);
        assert_eq!(shown[0], "\0\0\0\nSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0");
        assert!(shown.len() == 2 && shown[1].starts_with(says), "{shown:?}");
    }
    // The last message: bound to another channel (which is what somebody in between has), of another exchange, without the password.
    let der = CertificateDer::from_pem_file(secured.certificates.path("server.crt")).expect("a certificate");
    let hash = <sha2::Sha256 as sha2::Digest>::digest(&der).to_vec();
    let bound = |hash: &[u8]| [b"p=tls-server-end-point,,", hash].concat();
    let last = |binding: Vec<u8>, more: &'static str, proof: &'static str| {
        move |nonce: &str| {
            let binding = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &binding);
            format!("c={binding},r={nonce}{more},p={proof}").into_bytes()
        }
    };
    let proof = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    for (last, says) in [
        (last(bound(&[7; 32]), "", proof), "28000 SCRAM channel binding check failed"),
        (last(bound(&[]), "", proof), "28000 SCRAM channel binding check failed"),
        (last(b"n,,".to_vec(), "", proof), "28000 SCRAM channel binding check failed"),
        (last(bound(&hash), "x", proof), "08P01 invalid SCRAM response"),
        (last(bound(&hash), "", proof), "28P01 password authentication failed for user"),
        (last(bound(&hash), ",x=y", proof), "28P01 password authentication failed for user"),
    ] {
        let shown = same(says, &[&binds(first), &last]);
        assert!(shown.len() == 3 && shown[2].starts_with(says), "{shown:?}");
    }
    // The mechanism alone, and the first message when it is asked for.
    let alone = |_: &str| b"SCRAM-SHA-256-PLUS\0\xff\xff\xff\xff".to_vec();
    let shown = same(
        "without an initial response",
        &[&alone, &|_: &str| first.as_bytes().to_vec(), &last(bound(&hash), "", proof)],
    );
    assert!(shown.len() == 4 && shown[3].starts_with("28P01"), "{shown:?}");
    // Nor does the flag get by in a message of its own, which is a form that somebody in between could give it.
    let alone = |_: &str| b"SCRAM-SHA-256\0\xff\xff\xff\xff".to_vec();
    let shown = same("without an initial response", &[&alone, &|_: &str| b"y,,n=,r=abcdefgh".to_vec()]);
    assert!(
        shown.len() == 3 && shown[2].starts_with("28000 SCRAM channel binding negotiation error"),
        "{shown:?}"
    );
    let unbound = last(b"n,,".to_vec(), "", proof);
    let shown =
        same("without an initial response", &[&alone, &|_: &str| b"n,,n=,r=abcdefgh".to_vec(), &unbound]);
    assert!(shown.len() == 4 && shown[3].starts_with("28P01"), "{shown:?}");
    // libpq says "y" to a server that offers no binding: PostgreSQL without TLS takes it, with TLS it does not (above).
    let mut plain = secured::socket(gateway);
    plain.write_all(&frontend::startup(196_608, &owner, &[])).expect("startup sent");
    assert_eq!(frame(&mut plain).expect("a frame").body, b"\0\0\0\nSCRAM-SHA-256\0\0");
    plain
        .write_all(&password_message(&initial("SCRAM-SHA-256", "y,,n=,r=abcdefgh")))
        .expect("a message sent");
    assert_eq!(frame(&mut plain).expect("a frame").body[..4], 11u32.to_be_bytes());
}

#[test]
fn nothing_in_the_clear_gets_behind_a_request_for_tls() {
    let secured = Secured::shared();
    let owner = secured.owner();
    let request = frontend::untagged(SSL_REQUEST, &[]);
    let startup = frontend::startup(196_608, &owner, &[]);
    // In one packet: closed before an answer.
    for stuffed in [&startup[..], &frontend::query("DROP TABLE logs"), b"\0", &request] {
        let mut socket = secured.socket();
        socket.write_all(&[&request, stuffed].concat()).expect("bytes sent");
        assert_eq!(rest(&mut socket), b"", "{stuffed:?}");
    }
    // Behind the answer: the handshake fails, and nothing is said but TLS's own alert.
    for stuffed in [&startup[..], b"GET / HTTP/1.1\r\n\r\n", &[0x16; 4096]] {
        let mut socket = secured.socket();
        socket.write_all(&request).expect("bytes sent");
        let mut answer = [0];
        socket.read_exact(&mut answer).expect("an answer");
        socket.write_all(stuffed).expect("bytes sent");
        let alert = rest(&mut socket);
        assert!(alert.is_empty() || alert[0] == 0x15, "{alert:?}");
    }
    // Encryption is asked for once, and not under itself.
    let mut stream = secured.encrypted();
    stream.write_all(&request).expect("bytes sent");
    assert_eq!(
        error(&rest(&mut stream)),
        ("0A000".into(), "unsupported frontend protocol 1234.5679: server supports 3.0 to 3.0".into())
    );
    let gss = frontend::untagged(GSS_REQUEST, &[]);
    let mut socket = secured.socket();
    for _ in 0..2 {
        socket.write_all(&gss).expect("bytes sent");
        let mut answer = [0];
        socket.read_exact(&mut answer).expect("an answer");
        if answer == *b"E" {
            break;
        }
        assert_eq!(answer, *b"N");
    }
    assert!(String::from_utf8_lossy(&rest(&mut socket)).contains("unsupported frontend protocol 1234.5680"));
    // GSS, then TLS, as libpq does where both could be.
    let mut socket = secured.socket();
    for (ask, expected) in [(&gss, b'N'), (&request, b'S')] {
        socket.write_all(ask).expect("bytes sent");
        let mut answer = [0];
        socket.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer[0], expected);
    }
    let mut stream = handshake(socket, &secured.certificates.path("authority.crt"), &[b"postgresql"])
        .expect("a handshake");
    assert_eq!(log_in(&mut stream, &owner).tag, b'S');

    // A gateway without TLS says no, and takes nothing that came before its answer.
    let plain = Instance::shared();
    for (code, name) in [(SSL_REQUEST, "SSL"), (GSS_REQUEST, "GSSAPI encryption")] {
        let mut socket = secured::socket(plain.port());
        socket.write_all(&[&frontend::untagged(code, &[]), &startup[..]].concat()).expect("bytes sent");
        let answer = rest(&mut socket);
        assert_eq!(answer[0], b'N');
        assert_eq!(
            error(&answer[1..]),
            ("08P01".into(), format!("received unencrypted data after {name} request"))
        );
    }
    let mut direct = secured::socket(plain.port());
    direct.write_all(b"\x16\x03\x01\x02\0\x01").expect("bytes sent");
    assert_eq!(rest(&mut direct), b"");
}

#[test]
fn direct_tls_needs_the_protocols_name() {
    let secured = Secured::shared();
    let owner = secured.owner();
    let authority = secured.certificates.path("authority.crt");
    for names in [&[&b"postgresql"[..]][..], &[b"h2", b"postgresql"]] {
        let mut stream = handshake(secured.socket(), &authority, names).expect("a handshake");
        assert_eq!(stream.conn.alpn_protocol(), Some(&b"postgresql"[..]));
        assert_eq!(log_in(&mut stream, &owner).tag, b'S');
        assert_eq!(value(&mut stream, "SELECT 40 + 2"), "42");
    }
    // Another protocol is refused in the handshake, none behind it.
    assert!(handshake(secured.socket(), &authority, &[b"h2"]).is_err());
    let mut nameless = handshake(secured.socket(), &authority, &[]).expect("a handshake");
    let _ = nameless.write_all(&frontend::startup(196_608, &owner, &[])); // it may be closed already
    assert_eq!(rest(&mut nameless), b"");
}

/// libpq knows direct TLS from version 17 on; psycopg's binary package has such a one.
#[test]
fn a_newer_libpq_connects_directly() {
    let secured = Secured::shared();
    let owner = secured.owner();
    let drivers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/local/drivers/drivers.sh");
    let program = r#"
import sys, psycopg
assert psycopg.pq.version() >= 170000, psycopg.pq.version()
host, port, user, password, dbname, root = sys.argv[1:]
def ask(**settings):
    with psycopg.connect(host=host, hostaddr="127.0.0.1", port=port, user=user, password=password, dbname=dbname, sslrootcert=root, **settings) as c:
        assert c.pgconn.ssl_in_use
        return c.execute("SELECT %s + count(*) FROM logs WHERE false", [42]).fetchone()[0]
for settings in [
    dict(sslmode="verify-full", sslnegotiation="direct"),
    dict(sslmode="verify-full", sslnegotiation="direct", channel_binding="require"),
    dict(sslmode="verify-full", sslnegotiation="direct", channel_binding="disable"),
    dict(sslmode="verify-full", channel_binding="require", require_auth="scram-sha-256"),
]:
    assert ask(**settings) == 42, settings
# Newer versions send CancelRequest under TLS.
with psycopg.connect(host=host, hostaddr="127.0.0.1", port=port, user=user, password=password, dbname=dbname, sslrootcert=root, sslmode="verify-full", sslnegotiation="direct") as c:
    import threading
    over = threading.Event()
    def cancel():
        # One that comes before the statement meets nothing.
        while not over.wait(0.5):
            c.cancel_safe()
    canceller = threading.Thread(target=cancel)
    canceller.start()
    try:
        c.execute("SELECT pg_sleep(60)")
        raise SystemExit("not cancelled")
    except psycopg.errors.QueryCanceled:
        pass
    finally:
        over.set()
        canceller.join()
print("done")
"#;
    let Host::Tcp(_, port) = &owner.host else { panic!("a target by TCP") };
    let mut command = Command::new(drivers);
    support::instance::scrub(&mut command);
    command.args([
        "python",
        "-c",
        program,
        "localhost",
        &port.to_string(),
        &owner.user,
        &owner.password,
        &owner.database,
    ]);
    command.arg(secured.certificates.text("authority.crt"));
    let output = command.output().expect("bash starts");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("done"), "{text}");
}

#[test]
fn a_client_that_stalls_is_let_go_and_delays_nobody() {
    let secured = Secured::shared();
    let owner = secured.owner();
    let request = frontend::untagged(SSL_REQUEST, &[]);
    let half_hello = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03";
    let startup = frontend::startup(196_608, &owner, &[]);
    let began = Instant::now();
    let mut stalled: Vec<std::net::TcpStream> = Vec::new();
    for bytes in [&b""[..], b"\0", &request[..5], b"\x16", half_hello, &startup[..20]] {
        for _ in 0..5 {
            let mut socket = secured.socket();
            socket.write_all(bytes).expect("bytes sent");
            stalled.push(socket);
        }
    }
    // In the middle of a handshake by request.
    for _ in 0..5 {
        let mut socket = secured.socket();
        socket.write_all(&request).expect("bytes sent");
        socket.read_exact(&mut [0]).expect("an answer");
        socket.write_all(half_hello).expect("bytes sent");
        stalled.push(socket);
    }
    // Under TLS, without a startup packet.
    let mut silent = secured.encrypted();
    assert_eq!(Client::connect(&owner).value("SELECT 1"), "1");
    for mut socket in stalled {
        assert_eq!(rest(&mut socket), b"");
    }
    assert_eq!(rest(&mut silent), b"");
    assert!(began.elapsed() >= Duration::from_secs(5), "they were let go before their time");

    // Byte by byte is too slow as well: the time is that of the whole packet.
    let mut slow = secured.socket();
    let (began, mut sent) = (Instant::now(), 0);
    for byte in startup.iter().cycle() {
        if slow.write_all(&[*byte]).is_err() || sent > 2_000 {
            break;
        }
        sent += 1;
        if sent >= startup.len() - 1 {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(rest(&mut slow), b"");
    assert!(began.elapsed() < Duration::from_secs(60));
    // Lengths that no packet may have end the connection at once; as PostgreSQL, without a word.
    for length in [0u32, 7, 10_005, u32::MAX] {
        let mut socket = secured.socket();
        socket.write_all(&length.to_be_bytes()).expect("bytes sent");
        assert_eq!(rest(&mut socket), b"", "{length}");
    }
    assert_eq!(Client::connect(&owner).value("SELECT 1"), "1");
}

/// TLS keeps bytes back while the socket is full; they must go out when it is not, though nothing follows them. Answers of growing
/// length, in steps smaller than what is kept back, until one is longer than everything on the way can hold.
#[test]
fn who_reads_late_gets_everything() {
    const STEP: usize = 40_000;
    let secured = Secured::shared();
    let socket = secured::narrow_socket(secured.instance.port());
    let mut stream = handshake(socket, &secured.certificates.path("authority.crt"), &[b"postgresql"])
        .expect("a handshake");
    log_in(&mut stream, &secured.owner());
    while frame(&mut stream).expect("a frame").tag != b'Z' {}
    let pid = value(&mut stream, "SELECT pg_backend_pid()");
    while frame(&mut stream).expect("a frame").tag != b'Z' {}
    let mut watcher = Client::connect(&secured.instance.admin());
    for step in 1.. {
        let sql = format!("SELECT repeat('z', {})", step * STEP);
        stream.write_all(&frontend::query(&sql)).expect("a query sent");
        let state = format!(
            "SELECT state || ' ' || coalesce(wait_event, '') FROM pg_stat_activity WHERE pid = {pid} AND query = '{}'",
            sql.replace('\'', "''")
        );
        let state = wait_for("PostgreSQL to have sent all, or not to be able to", || {
            let rows = watcher.run(&state).rows();
            rows.first()
                .and_then(|row| row[0].clone())
                .filter(|state| state == "idle ClientRead" || state == "active ClientWrite")
        });
        // A moment for what is behind PostgreSQL.
        thread::sleep(Duration::from_millis(20));
        let mut length = 0;
        loop {
            let next = frame(&mut stream).unwrap_or_else(|e| panic!("{sql}: {e}"));
            match next.tag {
                b'D' => length = next.columns()[0].as_ref().expect("no NULL").len(),
                b'Z' => break,
                _ => {}
            }
        }
        assert_eq!(length, step * STEP);
        if state == "active ClientWrite" {
            assert!(step > 3, "the sockets take nothing");
            break;
        }
    }
}

/// A setting that the gateway makes and the client cannot.
#[test]
fn postgresql_knows_the_clients_address() {
    let secured = Secured::shared();
    let owner = secured.owner();
    let forged: [&[(&str, &str)]; 4] = [
        &[],
        &[("watershed.client_addr", "198.51.100.1")],
        &[("Watershed.Client_Addr", "198.51.100.1"), ("application_name", "x")],
        &[("options", "-c watershed.client_addr=198.51.100.1 -cwatershed.CLIENT_ADDR=198.51.100.2")],
    ];
    for options in forged {
        let mut client = Client::try_connect(&owner, options).unwrap_or_else(|e| panic!("{e:?}"));
        assert_eq!(
            client.value("SELECT current_setting('watershed.client_addr')"),
            "127.0.0.1",
            "{options:?}"
        );
        assert_eq!(client.value("SELECT watershed.client_addr()"), "127.0.0.1");
        client.run("SET watershed.client_addr = '198.51.100.3'");
        assert_eq!(client.value("SELECT watershed.client_addr()"), "127.0.0.1");
        client.run("RESET ALL");
        assert_eq!(client.value("SELECT current_setting('watershed.client_addr')"), "127.0.0.1");
        client.run("DISCARD ALL");
        assert_eq!(client.value("SELECT watershed.client_addr()"), "127.0.0.1");
    }
    // A default of the role or the database counts less than what a session is started with.
    let mut admin = Client::connect(&secured.instance.admin());
    admin.run("ALTER ROLE watershed_analyst SET watershed.client_addr = '198.51.100.4'");
    let analyst = owner.login("watershed_analyst", &secured.instance.secret("WATERSHED_ANALYST_PASSWORD"));
    assert_eq!(Client::connect(&analyst).value("SELECT watershed.client_addr()"), "127.0.0.1");
    admin.run("ALTER ROLE watershed_analyst RESET watershed.client_addr");

    // From another machine, as far as addresses tell: seen as such, and only under TLS.
    let Some(address) = secured::address_on_a_network() else {
        println!("this machine has no address but loopback: nothing to see");
        return;
    };
    let mut socket = secured::socket_from(address, secured.instance.port());
    socket.write_all(&frontend::startup(196_608, &owner, &[])).expect("startup sent");
    assert_eq!(
        error(&rest(&mut socket)),
        ("28000".into(), "connections from other machines must use TLS".into())
    );
    let socket = secured::socket_from(address, secured.instance.port());
    let mut stream = handshake(socket, &secured.certificates.path("authority.crt"), &[b"postgresql"])
        .expect("a handshake");
    assert_eq!(log_in(&mut stream, &owner).tag, b'S');
    assert_eq!(value(&mut stream, "SELECT watershed.client_addr()"), address.to_string());
}

/// PostgreSQL sees the gateway's address only, so its trust is not the client's: users come in without a proof only by name.
#[test]
fn who_needs_no_password_needs_to_be_named() {
    let certificates = Certificates::new();
    certificates.authority("authority");
    let secured = Secured::start(certificates, "trusted_users = [\"trusting\"]", "");
    let owner = secured.owner();
    let mut admin = Client::connect(&secured.instance.admin());
    admin.run("CREATE ROLE trusting LOGIN; CREATE ROLE sneaky LOGIN");
    let hba = admin.value("SHOW hba_file");
    let rules = fs::read_to_string(&hba).expect("pg_hba.conf");
    fs::write(&hba, format!("local all trusting,sneaky trust\n{rules}")).expect("pg_hba.conf");
    admin.run("SELECT pg_reload_conf()");
    let says = ("28000".to_owned(), "login of user \"sneaky\" refused by the gateway".to_owned());
    let trusting = owner.login("trusting", "");
    let mut named = wait_for("the new rules", || Client::try_connect(&trusting, &[]).ok());
    assert_eq!(named.value("SELECT current_user"), "trusting");
    assert_eq!(refused(&owner.login("sneaky", "")), says);
    // PostgreSQL takes the last name that a client gives itself, so that is the one that counts.
    match Client::try_connect(&trusting, &[("user", "sneaky")]) {
        Err(LoginError::Refused(frame)) => assert_eq!(frame.fields()[&'M'], says.1),
        _ => panic!("let in"),
    }
    // TLS changes nothing about it.
    let mut stream = secured.encrypted();
    stream.write_all(&frontend::startup(196_608, &owner.login("sneaky", ""), &[])).expect("startup sent");
    assert_eq!(error(&rest(&mut stream)), says);
    let mut stream = secured.encrypted();
    assert_eq!(log_in(&mut stream, &trusting).tag, b'S');
}

#[test]
fn a_new_certificate_is_taken_up_and_a_wrong_one_is_not() {
    let certificates = Certificates::new();
    certificates.authority("authority");
    certificates.authority("next");
    certificates.server("renewed", "next", "rsa:2048");
    let secured = Secured::start(certificates, "", "");
    let handshake_with = |authority: &str| {
        let path = secured.certificates.path(authority);
        handshake(secured.socket(), &path, &[b"postgresql"]).is_ok()
    };
    assert!(handshake_with("authority.crt") && !handshake_with("next.crt"));
    let mut before =
        handshake(secured.socket(), &secured.certificates.path("authority.crt"), &[b"postgresql"])
            .expect("a handshake");
    assert_eq!(log_in(&mut before, &secured.owner()).tag, b'S');

    let hang_up = |says: &str, times: usize| {
        signal("HUP", secured.instance.pid());
        wait_for(says, || (secured.instance.log().matches(says).count() == times).then_some(()));
    };
    // The certificate alone does not fit the key: everything stays.
    secured.certificates.put("renewed.crt", "now.crt");
    hang_up("the files of TLS are wrong", 1);
    assert!(handshake_with("authority.crt") && !handshake_with("next.crt"));
    fs::write(secured.certificates.path("now.crt"), "no certificate").expect("a file");
    hang_up("the files of TLS are wrong", 2);
    assert!(handshake_with("authority.crt"));
    secured.certificates.put("renewed.crt", "now.crt");
    secured.certificates.put("renewed.key", "now.key");
    hang_up("read the certificate again", 1);
    assert!(!handshake_with("authority.crt") && handshake_with("next.crt"));
    // Sessions go on, and new ones are bound to the new certificate.
    assert_eq!(value(&mut before, "SELECT 1"), "1");
    if on_path("psql") {
        let root = secured.certificates.text("next.crt");
        let settings =
            [("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", root.as_str()), ("PGCHANNELBINDING", "require")];
        assert_eq!(psql_works(&secured.owner(), &settings, "SELECT 1"), "1");
    }
    assert!(secured.instance.alive());

    // A certificate whose signature names no hash: nothing can be bound to it, and it is not offered.
    secured.certificates.itself("edwards", "ed25519");
    secured.certificates.put("edwards.crt", "now.crt");
    secured.certificates.put("edwards.key", "now.key");
    hang_up("read the certificate again", 2);
    if on_path("psql") {
        for binding in ["prefer", "disable"] {
            let settings = [("PGSSLMODE", "require"), ("PGCHANNELBINDING", binding)];
            assert_eq!(psql_works(&secured.owner(), &settings, "SELECT 1"), "1");
        }
        psql_fails(
            &secured.owner(),
            &[("PGSSLMODE", "require"), ("PGCHANNELBINDING", "require")],
            "channel binding",
        );
    }
    secured.instance.terminate();
}

#[test]
fn client_certificates_are_asked_for_where_their_authority_is_known() {
    if !on_path("psql") {
        println!("psql is not installed: nothing to see");
        return;
    }
    let certificates = Certificates::new();
    for authority in ["authority", "clients", "stranger"] {
        certificates.authority(authority);
    }
    certificates.client("ann", "clients");
    certificates.client("eve", "stranger");
    let secured = Secured::start(certificates, "", "client_ca = \"%clients.crt\"");
    let owner = secured.owner();
    let file = |name: &str| secured.certificates.text(name);
    let shown = |name: &str| {
        [
            ("PGSSLMODE", "verify-full".to_owned()),
            ("PGSSLROOTCERT", file("authority.crt")),
            ("PGSSLCERT", file(&format!("{name}.crt"))),
            ("PGSSLKEY", file(&format!("{name}.key"))),
        ]
    };
    let run = |user: &Target, settings: &[(&'static str, String)]| {
        let settings: Vec<(&str, &str)> =
            settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        secured::psql(user, &settings, "SELECT 1")
    };
    let (ann, eve) = (shown("ann"), shown("eve"));
    let nobody = &ann[..2];
    let (done, text) = run(&owner, &ann);
    assert!(done && text == "1\n", "{text}");
    // A password is asked for all the same.
    let (done, text) = run(&owner.login(&owner.user, "wrong"), &ann);
    assert!(!done && text.contains("password authentication failed"), "{text}");
    for wrong in [&eve[..], nobody] {
        let (done, text) = run(&owner, wrong);
        assert!(!done && text.contains("alert"), "{wrong:?}: {text}");
    }
    // `up` itself and whoever sources connection.env come in the clear, from this machine.
    assert_eq!(secured.instance.connection("PGSSLMODE"), "disable");
    assert_eq!(Client::connect(&owner).value("SELECT 1"), "1");

    // Optional: none is fine, a wrong one is not.
    let path = secured.certificates.path("settings.toml");
    let text = fs::read_to_string(&path).expect("settings") + "client_certificate = \"optional\"\n";
    fs::write(&path, text).expect("settings");
    secured.instance.terminate();
    secured.instance.restart();
    for right in [&ann[..], nobody] {
        let (done, text) = run(&owner, right);
        assert!(done, "{right:?}: {text}");
    }
    assert!(!run(&owner, &eve).0);
}

#[test]
fn sessions_and_logins_are_counted_and_timed() {
    let certificates = Certificates::new();
    certificates.authority("authority");
    let settings = "max_sessions = 4\nlogin_timeout = \"4s\"\nstartup_timeout = \"2s\"";
    let secured = Secured::start(certificates, settings, "");
    let owner = secured.owner();
    let too_many = ("53300".to_owned(), "sorry, too many clients already".to_owned());
    // The sessions that `up` itself had are over when their places are free.
    let connect = || {
        wait_for("a place", || match Client::try_connect(&owner, &[]) {
            Ok(client) => Some(client),
            Err(LoginError::Refused(_)) => None,
            Err(e) => panic!("{e:?}"),
        })
    };
    let mut sessions: Vec<Client> = (0..4).map(|_| connect()).collect();
    assert_eq!(refused(&owner), too_many);
    // Whoever it is: PostgreSQL is not asked, in the clear or not.
    assert_eq!(refused(&owner.login("nobody_at_all", "x")), too_many);
    let mut stream = secured.encrypted();
    stream.write_all(&frontend::startup(196_608, &owner, &[])).expect("startup sent");
    assert_eq!(error(&rest(&mut stream)), too_many);
    // A cancel request needs no place.
    let key = sessions[0].cancel_key();
    sessions[0].send(&frontend::query("SELECT pg_sleep(60)"));
    wait_for("the statement", || {
        let sql =
            "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'";
        (sessions[1].value(sql) == "1").then_some(())
    });
    key.cancel();
    assert_eq!(sessions[0].reply().sqlstate(), "57014");
    // One goes, one comes.
    drop(sessions.pop());
    sessions.push(connect());
    assert_eq!(refused(&owner), too_many);
    for session in &mut sessions {
        assert_eq!(session.value("SELECT 1"), "1");
    }
    sessions.clear();

    // Logins that stall hold places only for their time, and are told.
    let mut stalled: Vec<std::net::TcpStream> = Vec::new();
    let began = Instant::now();
    while stalled.len() < 4 {
        let mut socket = secured.socket();
        socket.write_all(&frontend::startup(196_608, &owner, &[])).expect("startup sent");
        let first = frame(&mut socket).expect("a frame");
        if first.tag == b'R' {
            stalled.push(socket);
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{first:?}");
    }
    for mut socket in stalled {
        assert_eq!(
            error(&rest(&mut socket)),
            ("57014".into(), "canceling authentication due to timeout".into())
        );
    }
    assert_eq!(connect().value("SELECT 1"), "1");
    // An answer larger than PostgreSQL takes, and one that is none.
    for (bytes, message) in
        [(&b"p\0\x01\0\0"[..], "invalid message length"), (b"p\x7f\xff\xff\xff", "invalid message length")]
    {
        let mut socket = secured.socket();
        socket.write_all(&frontend::startup(196_608, &owner, &[])).expect("startup sent");
        frame(&mut socket).expect("a frame");
        socket.write_all(bytes).expect("bytes sent");
        assert_eq!(error(&rest(&mut socket)), ("08P01".into(), message.into()));
    }
    // A startup packet that has no room for what the gateway adds.
    let shortest = frontend::startup(196_608, &owner, &[("application_name", "")]).len();
    let filler = "x".repeat(9_990 - shortest);
    let mut socket = secured.socket();
    socket
        .write_all(&frontend::startup(196_608, &owner, &[("application_name", &filler)]))
        .expect("startup sent");
    assert_eq!(error(&rest(&mut socket)), ("08P01".into(), "invalid length of startup packet".into()));
    assert_eq!(connect().value("SELECT 1"), "1");
}

#[test]
fn an_address_that_connects_too_often_is_turned_away() {
    let certificates = Certificates::new();
    certificates.authority("authority");
    // A burst of fifty, then ten a second.
    let secured = Secured::start(certificates, "connection_rate = 10", "");
    let owner = secured.owner();
    let mut session = wait_for("a session", || Client::try_connect(&owner, &[]).ok());
    let mut turned_away = 0;
    let mut flood: Vec<std::net::TcpStream> = (0..300).map(|_| secured.socket()).collect();
    for socket in &mut flood {
        // Who was let in waits for us; who was not has its answer.
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a read timeout");
        let mut first = [0; 1024];
        match socket.read(&mut first) {
            Ok(n) if n > 0 => {
                let (state, message) = error(&first[..n]);
                assert_eq!(
                    (state.as_str(), message.as_str()),
                    ("53300", "too many connections from this address in a short time")
                );
                turned_away += 1;
            }
            _ => {}
        }
    }
    assert!((150..=300).contains(&turned_away), "{turned_away} of 300 were turned away");
    assert_eq!(session.value("SELECT 1"), "1");
    drop(flood);
    let mut later = wait_for("a place in the rate", || Client::try_connect(&owner, &[]).ok());
    assert_eq!(later.value("SELECT 1"), "1");
    assert!(secured.instance.log().contains("connections are turned away"));
}

#[test]
fn postgresql_that_is_away_is_waited_for_and_then_named() {
    let certificates = Certificates::new();
    certificates.authority("authority");
    let secured = Secured::start(certificates, "", "");
    let owner = secured.owner();
    let mut admin = Client::connect(&secured.instance.admin());
    let folder = admin.value("SHOW unix_socket_directories");
    let port = admin.value("SHOW port");
    let (there, away) =
        (Path::new(&folder).join(format!(".s.PGSQL.{port}")), Path::new(&folder).join("away"));

    // Away for good: a clear answer in a bounded time.
    fs::rename(&there, &away).expect("the socket");
    let began = Instant::now();
    assert_eq!(refused(&owner), ("08001".into(), "the gateway cannot reach PostgreSQL".into()));
    let waited = began.elapsed();
    assert!(waited > Duration::from_secs(1) && waited < Duration::from_secs(30), "{waited:?}");
    // Back within it: nobody notices.
    let back = thread::spawn({
        let (there, away) = (there.clone(), away.clone());
        move || {
            thread::sleep(Duration::from_millis(700));
            fs::rename(away, there).expect("the socket");
        }
    });
    assert_eq!(Client::connect(&owner).value("SELECT 1"), "1");
    back.join().expect("the socket is back");

    // A session that an administrator ends hears PostgreSQL's own words, once, idle or at work.
    for at_work in [false, true] {
        let mut client = Client::connect(&owner);
        if at_work {
            client.send(&frontend::query("SELECT pg_sleep(600)"));
            wait_for_value(&mut admin, &active(client.pid, "pg_sleep"), "1");
        }
        admin.run(&format!("SELECT pg_terminate_backend({})", client.pid));
        let last = last_error(&mut client);
        assert_eq!((last[&'S'].as_str(), last[&'C'].as_str()), ("FATAL", "57P01"), "{last:?}");
        assert_eq!(last[&'M'], "terminating connection due to administrator command");
    }
    // A process that dies without a word: in a statement, between two, in a statement of the lake's.
    let mut idle = Client::connect(&owner);
    let mut busy = Client::connect(&owner);
    idle.run("BEGIN");
    busy.send(&frontend::query("SELECT pg_sleep(600)"));
    wait_for_value(&mut admin, &active(busy.pid, "pg_sleep"), "1");
    signal("KILL", busy.pid);
    for client in [&mut busy, &mut idle] {
        let last = last_error(client);
        assert_eq!((last[&'S'].as_str(), last[&'C'].as_str()), ("FATAL", "57P01"), "{last:?}");
    }
    // The server restarts its processes by itself; who comes meanwhile waits, for some seconds.
    let mut next = wait_for("PostgreSQL's recovery", || Client::try_connect(&owner, &[]).ok());
    assert_eq!(next.value("SELECT 1"), "1");
    // The whole server dies and is started again.
    next.send(&frontend::query("SELECT pg_sleep(600)"));
    drop(admin);
    let mut admin = Client::connect(&secured.instance.admin());
    wait_for_value(&mut admin, &active(next.pid, "pg_sleep"), "1");
    secured.instance.kill_cluster();
    let last = last_error(&mut next);
    assert_eq!((last[&'S'].as_str(), last[&'C'].as_str()), ("FATAL", "57P01"), "{last:?}");
    let mut again = wait_for("PostgreSQL again", || Client::try_connect(&owner, &[]).ok());
    assert_eq!(again.value("SELECT 1"), "1");
}

fn active(pid: i32, what: &str) -> String {
    format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND state = 'active' AND query LIKE '%{what}%'"
    )
}

/// The last error before the server closes.
fn last_error(client: &mut Client) -> std::collections::BTreeMap<char, String> {
    let mut last = None;
    while let Ok(frame) = client.try_frame() {
        if frame.tag == b'E' {
            assert!(last.is_none(), "two errors: {last:?}, {frame:?}");
            last = Some(frame.fields());
        }
    }
    last.expect("an error before the end")
}

#[test]
fn at_the_end_every_session_is_told() {
    let certificates = Certificates::new();
    certificates.authority("authority");
    let secured = Secured::start(certificates, "", "");
    let owner = secured.owner();
    let mut idle = Client::connect(&owner);
    let mut inside = Client::connect(&owner);
    inside.run("BEGIN");
    let mut busy = Client::connect(&owner);
    busy.send(&frontend::query("SELECT pg_sleep(600)"));
    let mut elsewhere = Client::connect(&secured.instance.admin_through_gateway().database("postgres"));
    assert_eq!(elsewhere.value("SELECT 1"), "1");
    wait_for_value(&mut elsewhere, &active(busy.pid, "pg_sleep"), "1");
    // One that logs in and one that only connected do not hold up the end.
    let mut half = secured.socket();
    half.write_all(&frontend::startup(196_608, &owner, &[])).expect("startup sent");
    let silent = secured.socket();
    signal("TERM", secured.instance.pid());
    for client in [&mut idle, &mut elsewhere] {
        let last = last_error(client);
        assert_eq!(
            (last[&'C'].as_str(), last[&'M'].as_str()),
            ("57P01", "terminating connection due to administrator command")
        );
    }
    // The others when the drain time, two seconds here, is over.
    let began = Instant::now();
    for client in [&mut inside, &mut busy] {
        let last = last_error(client);
        assert_eq!(
            (last[&'C'].as_str(), last[&'M'].as_str()),
            ("57P01", "terminating connection due to administrator command")
        );
    }
    assert!(began.elapsed() < Duration::from_secs(60));
    wait_for("the end of up", || (!secured.instance.alive()).then_some(()));
    drop((half, silent));
}

/// Where others could read along, `up` does not start.
#[test]
fn an_open_address_needs_a_certificate() {
    let certificates = Certificates::new();
    certificates.authority("authority");
    certificates.server("server", "authority", P256);
    let folder = tempfile::tempdir().expect("a temporary directory");
    let up = |arguments: &[&str], environment: &[(&str, &str)]| {
        let mut command = Command::new(support::instance::binary());
        support::instance::scrub(&mut command);
        command
            .arg("up")
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .args(["--http", "127.0.0.1:0", "--flight", "off"])
            .args(arguments);
        command.envs(environment.iter().copied()).current_dir(folder.path());
        let output = command.output().expect("up starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let (code, text) = up(&["--listen", listen], &[]);
        assert!(
            code == Some(2)
                && text.contains("reachable from outside, and there is no TLS")
                && text.contains("allow_plaintext"),
            "{text}"
        );
    }
    let (code, text) = up(&["--listen", "0.0.0.0:0", "--tls-cert", &certificates.text("server.crt")], &[]);
    assert!(code == Some(2) && text.contains("needs a certificate and its key"), "{text}");
    // Files that make no TLS are told before anything is started.
    let pair = |cert: &str, key: &str| {
        up(
            &["--listen", "127.0.0.1:0"],
            &[
                ("WATERSHED_TLS_CERT", &certificates.text(cert)),
                ("WATERSHED_TLS_KEY", &certificates.text(key)),
            ],
        )
    };
    for (cert, key, says) in [
        ("server.crt", "absent.key", "absent.key cannot be read"),
        ("server.key", "server.key", "holds no certificate"),
        ("authority.crt", "server.key", "do not go together"),
    ] {
        let (code, text) = pair(cert, key);
        assert!(code == Some(2) && text.contains("TLS cannot be offered") && text.contains(says), "{text}");
    }
    assert!(!folder.path().join("data/pg").exists());
}
