use super::frame::{self, Header};
use super::message::*;
use super::startup::{self, Opening};
use bytes::BytesMut;
use proptest::prelude::*;

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
fn openings_are_told_apart() {
    let code = |n: i32| n.to_be_bytes().to_vec();
    assert_eq!(startup::read(&code(80877103)).unwrap(), Opening::Ssl);
    assert_eq!(startup::read(&code(80877104)).unwrap(), Opening::Gss);
    let mut cancel = code(80877102);
    cancel.extend([0, 0, 0, 7, 1, 2, 3, 4]);
    assert_eq!(startup::read(&cancel).unwrap(), Opening::Cancel { pid: 7, key: vec![1, 2, 3, 4] });
    let mut start = code(196608);
    start.extend(b"user\0ann\0replication\0database\0\0");
    let Opening::Start(s) = startup::read(&start).unwrap() else { panic!("a startup message") };
    assert_eq!((s.user(), s.database(), s.is_replication()), ("ann", "ann", true));
}
