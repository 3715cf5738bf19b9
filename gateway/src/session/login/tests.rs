use super::*;
use bytes::{BufMut, BytesMut};
use std::net::{IpAddr, Ipv4Addr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// A server behind the gateway that accepts everybody, under one process id and this secret.
async fn accept(server: &UnixListener, secret: &[u8]) -> UnixStream {
    let (mut stream, _) = server.accept().await.unwrap();
    let packet = startup_packet(&mut stream).await;
    assert!(packet.windows(4).any(|w| w == b"user"), "{packet:?}");
    let mut out = BytesMut::new();
    message::frame(&mut out, b'R', |b| b.put_i32(0));
    message::frame(&mut out, b'S', |b| b.put_slice(b"server_version\x0018.0\0"));
    message::put_key(&mut out, 77, secret);
    message::frame(&mut out, b'Z', |b| b.put_u8(b'I'));
    stream.write_all(&out).await.unwrap();
    stream
}

async fn startup_packet(stream: &mut UnixStream) -> Vec<u8> {
    let len = stream.read_i32().await.unwrap();
    let mut packet = vec![0; len as usize - 4];
    stream.read_exact(&mut packet).await.unwrap();
    packet
}

/// The body of BackendKeyData in what the client was sent.
fn key_told(mut bytes: &[u8]) -> Option<(i32, Vec<u8>)> {
    while let Some(f) = frame::whole(bytes).unwrap() {
        if f[0] == b'K' {
            let body = frame::body(f);
            return Some((i32::from_be_bytes(body[..4].try_into().unwrap()), body[4..].to_vec()));
        }
        bytes = &bytes[f.len()..];
    }
    None
}

#[tokio::test]
async fn postgresqls_own_key_stays_inside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server");
    let server = UnixListener::bind(&path).unwrap();
    let upstream = UpstreamAddress::Unix(path);
    let policy = Policy { trusted_users: vec!["ann".into()] };
    let verifiers = Verifiers::new("postgres://nobody@127.0.0.1:1/none").unwrap();
    let cancels = Registry::default();
    let peer = Peer { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), is_local: true };
    // Of protocol 3.0, of 3.2 as PostgreSQL makes it, and the longest.
    for real in [vec![1, 2, 3, 4], vec![5; 32], vec![6; 256]] {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let mut packet = BytesMut::from(&b"\0\0\0\x12\0\x03\0\0user\0ann\0\0"[..]);
        let startup::Opening::Start(startup) = startup::read(&packet[4..]).unwrap() else { panic!("no startup") };
        let len = packet.len() as i32;
        packet[..4].copy_from_slice(&len.to_be_bytes());
        let opened = Opened { client: Side::tcp(stream), packet, startup, end_point: None };
        let desk = Desk {
            upstream: &upstream,
            policy: &policy,
            verifiers: &verifiers,
            cancels: &cancels,
            deadline: Instant::now() + Duration::from_secs(60),
        };
        let (logged_in, _backend) = tokio::join!(login(opened, peer, &desk), accept(&server, &real));
        let mut logged_in = logged_in.unwrap();
        logged_in.link.client.flush().await.unwrap();
        let mut told = BytesMut::new();
        let (pid, secret) = loop {
            if let Some(key) = key_told(&told) {
                break key;
            }
            assert_ne!(client.read_buf(&mut told).await.unwrap(), 0);
        };
        assert_eq!((pid, secret.len()), (77, real.len()));
        assert_ne!(secret, real);
        assert!(!told.windows(real.len()).any(|w| w == real));

        // The client's key becomes PostgreSQL's; PostgreSQL's own does nothing here.
        let asked = |secret: &[u8]| Key { pid, secret: secret.to_vec() };
        let (own, wrong) = (asked(&secret), asked(&real));
        let request = async {
            let (mut stream, _) = server.accept().await.unwrap();
            startup_packet(&mut stream).await
        };
        let ((), ()) = tokio::join!(
            async {
                cancel(&upstream, &cancels, &wrong).await;
                cancel(&upstream, &cancels, &own).await;
            },
            async {
                let packet = request.await;
                assert_eq!(packet[..4], 80_877_102_i32.to_be_bytes());
                assert_eq!(packet[4..8], 77_i32.to_be_bytes());
                assert_eq!(&packet[8..], &real);
            }
        );
        // And after the session nothing is asked of anybody: no connection waits.
        drop(logged_in);
        cancel(&upstream, &cancels, &own).await;
        assert!(tokio::time::timeout(Duration::from_millis(50), server.accept()).await.is_err());
    }
}
