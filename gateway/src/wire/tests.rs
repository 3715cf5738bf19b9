use super::frame::{self, Header};
use super::message::*;
use super::scram::{self, ClientLast, ServerFirst, Verifier};
use super::startup::{self, Opening};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::BytesMut;
use proptest::prelude::*;
use sha2::{Digest, Sha256};

#[test]
fn frames_are_cut_where_their_length_says() {
    let mut out = BytesMut::new();
    put_sync(&mut out);
    put_describe(&mut out, b'S', b"one");
    assert_eq!(frame::peek(&out).unwrap(), Some(Header { tag: b'S', len: 5 }));
    let rest = out.split_off(5);
    let whole = frame::whole(&rest).unwrap().unwrap();
    assert_eq!(Target::read(frame::body(whole)).unwrap(), Target { kind: b'S', name: b"one" });
    assert_eq!(frame::whole(&rest[..7]).unwrap(), None);
    assert_eq!(frame::peek(&rest[..4]).unwrap(), None);
}

#[test]
fn impossible_lengths_are_refused() {
    assert!(frame::peek(b"Q\0\0\0\x03").is_err());
    assert!(frame::peek(b"Q\xff\xff\xff\xff").is_err());
    assert!(frame::peek(b"Q\x7f\xff\xff\xff").is_err());
}

proptest! {
    #[test]
    fn parse_reads_back(name in "[a-z]{0,9}", sql in "[ -~]{0,40}", types in prop::collection::vec(any::<u32>(), 0..5)) {
        let mut out = BytesMut::new();
        put_parse(&mut out, name.as_bytes(), sql.as_bytes(), &types);
        let p = Parse::read(frame::body(&out)).unwrap();
        prop_assert_eq!((p.name, p.sql, p.param_types), (name.as_bytes(), sql.as_bytes(), types));
    }

    #[test]
    fn bind_reads_back(
        params in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..9)), 0..5),
        formats in prop::collection::vec(0i16..2, 0..4),
    ) {
        let params: Vec<Option<&[u8]>> = params.iter().map(Option::as_deref).collect();
        let mut out = BytesMut::new();
        put_bind(&mut out, b"p", b"s", &formats, &params, &formats);
        let b = Bind::read(frame::body(&out)).unwrap();
        prop_assert_eq!(b.params, params);
        prop_assert_eq!(b.result_formats, formats.clone());
        prop_assert_eq!(b.param_formats, formats);
    }

    #[test]
    fn garbage_is_an_error_and_never_a_panic(body in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = Parse::read(&body);
        let _ = Bind::read(&body);
        let _ = Execute::read(&body);
        let _ = Target::read(&body);
        let _ = row_description(&body);
        let _ = parameter_description(&body);
        let _ = data_row(&body);
        let _ = Fields::read(&body);
        let _ = query_text(&body);
        let _ = startup::read(&body);
        let _ = frame::peek(&body);
        let _ = startup::with_setting(&body, "name", "value");
        let text = String::from_utf8_lossy(&body);
        let _ = (ServerFirst::read(&text), ClientLast::read(&text), scram::client_nonce(&text), Verifier::parse(&text));
    }
}

/// Messages of a client, by the writers.
fn written() -> impl Strategy<Value = BytesMut> {
    let name = || prop::collection::vec(1..=255u8, 0..6);
    let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..9));
    let formats = || prop::collection::vec(any::<i16>(), 0..3);
    let put = |write: &dyn Fn(&mut BytesMut)| {
        let mut out = BytesMut::new();
        write(&mut out);
        out
    };
    prop_oneof![
        (name(), name(), prop::collection::vec(any::<u32>(), 0..4))
            .prop_map(move |(name, sql, types)| put(&|out| put_parse(out, &name, &sql, &types))),
        (name(), name(), formats(), prop::collection::vec(value, 0..4), formats()).prop_map(
            move |(portal, statement, formats, values, results)| {
                let values: Vec<Option<&[u8]>> = values.iter().map(Option::as_deref).collect();
                put(&|out| put_bind(out, &portal, &statement, &formats, &values, &results))
            }
        ),
        (any::<u8>(), name()).prop_map(move |(kind, name)| put(&|out| put_describe(out, kind, &name))),
        (any::<u8>(), name()).prop_map(move |(kind, name)| put(&|out| put_close(out, kind, &name))),
        (name(), any::<i32>()).prop_map(move |(portal, rows)| put(&|out| put_execute(out, &portal, rows))),
        name().prop_map(move |sql| put(&|out| frame(out, b'Q', |b| b.extend_from_slice(&[&sql[..], &[0]].concat())))),
        Just(put(&put_sync)),
        Just(put(&put_flush)),
        (any::<u8>(), prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(move |(tag, body)| put(&|out| frame(out, tag, |b| b.extend_from_slice(&body)))),
    ]
}

/// Some damage to bytes: changed, cut out, put in.
fn damaged(mut bytes: Vec<u8>, damage: &[(usize, u8, u8)]) -> Vec<u8> {
    for (at, how, byte) in damage {
        let at = at % (bytes.len() + 1);
        match how % 3 {
            0 if at < bytes.len() => bytes[at] = *byte,
            1 if at < bytes.len() => drop(bytes.remove(at)),
            _ => bytes.insert(at, *byte),
        }
    }
    bytes
}

proptest! {
    /// As a session cuts them, whatever pieces they arrive in: the frames that were sent, each as soon as its last byte is there.
    #[test]
    fn frames_are_cut_out_of_any_pieces(
        frames in prop::collection::vec(written(), 0..12),
        sizes in prop::collection::vec(1..40usize, 1..12),
    ) {
        let all: Vec<u8> = frames.concat();
        let (mut input, mut rest, mut got) = (BytesMut::new(), &all[..], Vec::new());
        let mut sizes = sizes.iter().cycle();
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
            rest = later;
            input.extend_from_slice(piece);
            while let Some(f) = frame::whole(&input).unwrap() {
                let len = f.len();
                got.push(input.split_to(len));
            }
            let whole = frames.iter().scan(0, |end, f| { *end += f.len(); Some(*end) }).filter(|end| *end <= all.len() - rest.len());
            prop_assert_eq!(got.len(), whole.count());
            if let Some(h) = frame::peek(&input).unwrap() {
                prop_assert_eq!((h.tag, h.len), (frames[got.len()][0], frames[got.len()].len()));
            }
        }
        prop_assert!(input.is_empty());
        prop_assert_eq!(got, frames);
    }

    /// A stream that is damaged somewhere is read without a panic, never past its end, and what a reader takes for a message is one:
    /// written again it is the same.
    #[test]
    fn what_is_read_of_a_damaged_stream_is_there(
        frames in prop::collection::vec(written(), 1..6),
        damage in prop::collection::vec((any::<usize>(), any::<u8>(), any::<u8>()), 0..6),
    ) {
        let bytes = damaged(frames.concat(), &damage);
        let mut rest = &bytes[..];
        while let Ok(Some(f)) = frame::whole(rest) {
            prop_assert!(f.len() >= 5 && f.len() <= frame::MAX_FRAME);
            let body = frame::body(f);
            let mut again = BytesMut::new();
            if f[0] == b'P' && let Ok(m) = Parse::read(body) {
                put_parse(&mut again, m.name, m.sql, &m.param_types);
            } else if f[0] == b'B' && let Ok(m) = Bind::read(body) {
                put_bind(&mut again, m.portal, m.statement, &m.param_formats, &m.params, &m.result_formats);
            } else if f[0] == b'D' && let Ok(m) = Target::read(body) {
                put_describe(&mut again, m.kind, m.name);
            } else if f[0] == b'C' && let Ok(m) = Target::read(body) {
                put_close(&mut again, m.kind, m.name);
            } else if f[0] == b'E' && let Ok(m) = Execute::read(body) {
                put_execute(&mut again, m.portal, m.max_rows);
            } else if f[0] == b'Q' && let Ok(text) = query_text(body) {
                frame(&mut again, b'Q', |b| b.extend_from_slice(&[text, &[0]].concat()));
            } else {
                again.extend_from_slice(f);
            }
            prop_assert_eq!(&again[..], f);
            let _ = (row_description(body), parameter_description(body), data_row(body), with_formats(f, &[1, 0, 1]));
            let whole = Fields::read(body);
            let head = Fields::head(body);
            if let Ok(fields) = whole {
                for code in 1..=255 {
                    prop_assert_eq!(fields.get(code), head.get(code));
                }
            }
            rest = &rest[f.len()..];
        }
    }

    /// Startup packets: read alike before and after the gateway's own setting is put in, except for that setting.
    #[test]
    fn startup_packets_keep_what_clients_say(
        params in prop::collection::vec(("(?s)[a-z_.]{1,8}|ours", "[^\\x00]{0,8}"), 0..5),
        minor in any::<u16>(),
        damage in prop::collection::vec((any::<usize>(), any::<u8>(), any::<u8>()), 0..3),
    ) {
        let mut body = (3 << 16 | i32::from(minor)).to_be_bytes().to_vec();
        for (name, value) in &params {
            body.extend([name.as_bytes(), &[0], value.as_bytes(), &[0]].concat());
        }
        body.push(0);
        let body = damaged(body, &damage);
        let packet = [&(body.len() as i32 + 4).to_be_bytes()[..], &body].concat();
        let read = startup::read(&body);
        let with = startup::with_setting(&packet, "ours", "mine");
        if let Ok(Opening::Start(theirs)) = read {
            let with = with.unwrap();
            prop_assert_eq!(&with[..4], &(with.len() as i32).to_be_bytes());
            prop_assert_eq!(&with[4..8], &packet[4..8]);
            let Ok(Opening::Start(all)) = startup::read(&with[4..]) else { panic!("no startup message") };
            prop_assert_eq!(all.get("ours"), Some("mine"));
            let kept: Vec<_> = theirs.params.into_iter().filter(|(n, _)| !n.eq_ignore_ascii_case("ours")).collect();
            prop_assert_eq!(&all.params[..all.params.len() - 1], &kept[..]);
        }
    }
}

#[test]
fn errors_carry_code_detail_and_hint() {
    let mut out = BytesMut::new();
    put_error(&mut out, &ErrorReport::error("0A000", "no").detail("why").hint("do"));
    let f = Fields::read(frame::body(&out)).unwrap();
    assert_eq!((f.text(b'C'), f.text(b'M'), f.text(b'D'), f.text(b'H'), f.text(b'V')), ("0A000", "no", "why", "do", "ERROR"));
}

#[test]
fn a_field_is_left_out_of_an_error() {
    let mut out = BytesMut::new();
    put_error(&mut out, &ErrorReport::error("57014", "stopped").detail("of ours").hint("none"));
    let without = without_field(&out, b'D', |text| text.contains("ours")).expect("a field less");
    let fields = Fields::read(frame::body(&without)).expect("an error");
    assert_eq!((fields.get(b'D'), fields.text(b'C'), fields.text(b'H')), (None, "57014", "none"));
    assert_eq!(frame::peek(&without).expect("a frame").map(|h| h.len), Some(without.len()));
    assert_eq!(without_field(&out, b'D', |text| text.contains("theirs")), None);
}

#[test]
fn the_head_of_an_error_is_read_where_the_rest_is_missing() {
    let mut out = BytesMut::new();
    put_error(&mut out, &ErrorReport::error("57014", "x".repeat(100)));
    let body = frame::body(&out);
    assert_eq!(Fields::head(body).text(b'M').len(), 100);
    for cut in 0..body.len() {
        let f = Fields::head(&body[..cut]);
        assert!(f.text(b'C').is_empty() || f.text(b'C') == "57014", "cut at {cut}");
    }
    assert_eq!(Fields::head(&body[..60]).text(b'C'), "57014");
}

#[test]
fn openings_are_told_apart() {
    let code = |n: i32| n.to_be_bytes().to_vec();
    assert_eq!(startup::read(&code(80877103)).unwrap(), Opening::Ssl);
    assert_eq!(startup::read(&code(80877104)).unwrap(), Opening::Gss);
    let mut cancel = code(80877102);
    cancel.extend([0, 0, 0, 7, 1, 2, 3, 4]);
    assert_eq!(startup::read(&cancel).unwrap(), Opening::Cancel { pid: 7, key: vec![1, 2, 3, 4] });
    // Keys of protocol 3.2 have up to 256 bytes.
    for (length, fits) in [(3, false), (4, true), (32, true), (256, true), (257, false)] {
        let mut cancel = code(80877102);
        cancel.extend([0, 0, 0, 7]);
        cancel.extend(vec![9; length]);
        let key = Opening::Cancel { pid: 7, key: vec![9; length] };
        assert_eq!(startup::read(&cancel), Ok(if fits { key } else { Opening::BrokenCancel }), "{length}");
        let mut written = BytesMut::new();
        startup::put_cancel(&mut written, 7, &vec![9; length]);
        assert_eq!((written[..4].to_vec(), &written[4..]), ((written.len() as i32).to_be_bytes().to_vec(), &cancel[..]));
    }
    for other in [0, 1234, 131_072, 262_144, -1] {
        assert_eq!(startup::read(&code(other)), Ok(Opening::Unsupported), "{other}");
    }
    let mut start = code(196608);
    start.extend(b"user\0ann\0replication\0database\0\0");
    let Opening::Start(s) = startup::read(&start).unwrap() else { panic!("a startup message") };
    assert_eq!((s.user(), s.database(), s.is_replication()), ("ann", "ann", true));
    // Of several, PostgreSQL takes the last: to look at another one would let one user in for another.
    start.pop();
    start.extend(b"user\0bob\0\0");
    let Opening::Start(s) = startup::read(&start).unwrap() else { panic!("a startup message") };
    assert_eq!(s.user(), "bob");
}

#[test]
fn a_setting_of_ours_is_not_the_clients() {
    let packet = |body: &[u8]| {
        let mut out = ((body.len() + 8) as i32).to_be_bytes().to_vec();
        out.extend(196608i32.to_be_bytes());
        out.extend(body);
        out
    };
    let theirs = packet(b"user\0a\xff\0Our.Name\0forged\0options\0-c our.name=x\0our.name\0\0\0rest");
    let ours = packet(b"user\0a\xff\0options\0-c our.name=x\0our.name\010.0.0.1\0\0rest");
    assert_eq!(&startup::with_setting(&theirs, "our.name", "10.0.0.1").unwrap()[..], &ours[..]);
    assert!(startup::with_setting(&packet(b"user\0a"), "our.name", "x").is_err());
}

/// The example of RFC 7677, section 3: what a verifier alone can tell, and what it gives away.
#[test]
fn a_verifier_recovers_the_clients_key() {
    let salt = "W22ZaJ0SNY7soEsUEjb6gQ==";
    let salted = scram::salted_password("pencil", &BASE64.decode(salt).unwrap(), 4096);
    let client_key = scram::hmac(&salted, b"Client Key");
    let stored = scram::encoded(&Sha256::digest(client_key));
    let text = format!("SCRAM-SHA-256$4096:{salt}${stored}:{}", scram::encoded(&scram::hmac(&salted, b"Server Key")));
    let verifier = Verifier::parse(&text).unwrap();

    let client_bare = "n=user,r=rOprNGfwEbeRWgbNEkqO";
    assert_eq!(scram::client_nonce(client_bare), Some("rOprNGfwEbeRWgbNEkqO"));
    let server_first = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    assert!(verifier.is_of(&ServerFirst::read(server_first).unwrap()));
    assert!(!verifier.is_of(&ServerFirst { iterations: 4097, ..ServerFirst::read(server_first).unwrap() }));
    let client_last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    let last = ClientLast::read(client_last).unwrap();
    assert_eq!((last.binding, last.nonce), ("biws", "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"));
    let message = format!("{client_bare},{server_first},{}", last.without_proof);
    assert_eq!(verifier.client_key(&message, &last.proof), Some(client_key));
    assert_eq!(verifier.proof(&client_key, &message), last.proof);
    assert_eq!(scram::encoded(&verifier.server_signature(&message)), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    let mut wrong = last.proof;
    wrong[0] ^= 1;
    assert_eq!(verifier.client_key(&message, &wrong), None);
    assert_eq!(verifier.client_key(&message[1..], &last.proof), None);

    for other in ["", "md5aaaa", "SCRAM-SHA-256$4096:x", "SCRAM-SHA-256$4096:AAAA$AAAA:AAAA", "SCRAM-SHA-256$-1:AAAA$AAAA:AAAA"] {
        assert!(Verifier::parse(other).is_none(), "{other}");
    }
    for other in ["", "n=", "r=abc", "n=,m=1,r=abc"] {
        assert_eq!(scram::client_nonce(other), None, "{other}");
    }
    for other in ["", "c=biws,r=x", "c=biws,r=x,p=", "c=biws,r=x,p=AAAA", "r=x,c=biws,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="] {
        assert_eq!(ClientLast::read(other), None, "{other}");
    }
    assert!(BASE64.decode(scram::binding(b"hash")).unwrap().ends_with(b"p=tls-server-end-point,,hash"));
}
