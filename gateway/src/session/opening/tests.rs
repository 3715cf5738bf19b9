use super::*;
use tokio::net::TcpListener;

const FAR: Peer = Peer { ip: IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 9)), is_local: false };

fn packet(code: i32, rest: &[u8]) -> Vec<u8> {
    let mut out = (rest.len() as i32 + 8).to_be_bytes().to_vec();
    out.extend(code.to_be_bytes());
    out.extend(rest);
    out
}

/// Opens a connection on which these pieces are sent one after the other, and gives what the client got besides.
async fn opened(
    peer: Option<Peer>,
    allow_plaintext: bool,
    pieces: &[&[u8]],
) -> (Result<Opener, LoginEnd>, Vec<u8>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    client.set_nodelay(true).unwrap();
    let (server, _) = listener.accept().await.unwrap();
    let peer = peer.unwrap_or_else(|| Peer::of(&server).unwrap());
    let terms = Terms { tls: None, allow_plaintext };
    let send = async {
        for piece in pieces {
            client.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        client
    };
    let (opened, mut client) = tokio::join!(open(server, peer, &terms), send);
    let mut got = Vec::new();
    if opened.is_err() {
        let _ = client.read_to_end(&mut got).await; // a reset is an end too
    }
    (opened, got)
}

#[tokio::test]
async fn who_is_far_away_may_not_speak_in_the_clear() {
    let start = packet(196_608, b"user\0ann\0\0");
    let (refused, told) = opened(Some(FAR), false, &[&start]).await;
    let Err(LoginEnd::Refused(e)) = refused else { panic!("let in") };
    assert_eq!(
        (e.sqlstate.as_str(), e.message.as_str()),
        ("28000", "connections from other machines must use TLS")
    );
    assert!(String::from_utf8_lossy(&told).contains("sslmode=verify-full"));
    for (peer, allowed) in [(Some(FAR), true), (None, false)] {
        let (opened, _) = opened(peer, allowed, &[&start]).await;
        let Ok(Opener::Session(session)) = opened else { panic!("refused") };
        assert_eq!((session.startup.user(), session.end_point.is_none()), ("ann", true));
        assert!(!session.client.is_encrypted());
    }
    // Older clients know no other way to cancel.
    let (opened, _) = opened(Some(FAR), false, &[&packet(80_877_102, &[0, 0, 0, 7, 1, 2, 3, 4])]).await;
    assert!(matches!(&opened, Ok(Opener::Cancel { key, .. }) if key.pid == 7 && key.secret == [1, 2, 3, 4]));
}

#[tokio::test]
async fn packets_arrive_in_pieces_and_what_follows_is_kept() {
    let start = packet(196_608, b"user\0ann\0\0");
    let mut more = start.clone();
    more.extend(b"Q\0\0\0\x06;\0");
    let bytes: Vec<&[u8]> = more.chunks(1).collect();
    let (opened, _) = opened(None, false, &bytes).await;
    let Ok(Opener::Session(session)) = opened else { panic!("refused") };
    assert_eq!(&session.packet[..], &start[..]);
    assert!(b"Q\0\0\0\x06;\0".starts_with(&session.client.input[..]));
}

#[tokio::test]
async fn other_openings_end() {
    for (pieces, state) in [
        (&[&packet(262_144, b"\0")[..]][..], "0A000"),
        (&[&packet(131_072, b"x")], "0A000"),
        (&[&packet(196_608, b"user\0ann")], "08P01"),
        (&[&packet(196_608, b"")], "08P01"),
    ] {
        let (refused, told) = opened(None, false, pieces).await;
        let Err(LoginEnd::Refused(e)) = refused else { panic!("{pieces:?}") };
        assert_eq!(e.sqlstate, state, "{pieces:?}");
        let old = pieces[0][4..6] == [0, 2];
        assert_eq!(told.starts_with(b"EFATAL:  unsupported frontend protocol 2.0: "), old, "{pieces:?}");
        assert_eq!(told.ends_with(b"\n\0"), old, "{pieces:?}");
    }
    // To these PostgreSQL says nothing.
    let long = [&10_005_i32.to_be_bytes()[..], &[0; 10_001]].concat();
    let silent: [&[u8]; 7] = [
        &packet(80_877_102, b"\0"),
        &packet(80_877_102, b"\0\0\0\x01abc"),
        &packet(80_877_102, &[1; 300]),
        b"\0\0\0\x07",
        &[0xff; 8],
        &long,
        b"GET / HTTP/1.1\r\n\r\n",
    ];
    for piece in silent {
        let (ended, told) = opened(None, false, &[piece]).await;
        assert!(matches!(ended, Err(LoginEnd::Closed | LoginEnd::Io(_))), "{piece:?}");
        assert_eq!(told, b"", "{piece:?}");
    }
    let longest = packet(196_608, &[b"user\0".as_slice(), &[b'u'; 10_004 - 8 - 5 - 2], b"\0\0"].concat());
    assert!(matches!(opened(None, false, &[&longest]).await.0, Ok(Opener::Session(_))));
    let (direct, told) = opened(None, false, &[b"\x16\x03\x01"]).await;
    assert!(matches!(direct, Err(LoginEnd::Handshake(_))));
    assert_eq!(told, b"");
}
