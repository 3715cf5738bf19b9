//! The broker and the proxy that other tests lean on: killed, restarted, cut and slowed down, they keep what they promise.

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use support::kafka::{Broker, BrokerOptions, Ended, Producer};
use support::proxy::Proxy;
use support::wait_for;

#[test]
fn a_broker_killed_while_it_is_written_to_has_each_acknowledged_record_once() {
    let proxy = Proxy::unconnected();
    let broker = Broker::with(BrokerOptions { advertised: Some(proxy.port()), ..BrokerOptions::default() });
    proxy.point_to(broker.proxied_port());
    broker.create_topic("records", 3, &[]);
    let through = format!("127.0.0.1:{}", proxy.port());
    let producer = Producer::new(&through, &[]);
    for n in 0..3000u64 {
        producer.send("records", None, Some(&format!("k{}", n % 7)), Some(n.to_string().as_bytes()), n);
        match n {
            1000 => {
                broker.kill9();
                broker.restart();
            }
            2000 => proxy.cut(),
            _ => {}
        }
    }
    producer.flush();
    assert_eq!(producer.failed(), []);
    let acknowledged = producer.acknowledged();
    assert_eq!(acknowledged.len(), 3000);
    let read = broker.read("records", &BTreeMap::new());
    let mut numbers: Vec<u64> = read
        .iter()
        .map(|read| {
            String::from_utf8_lossy(read.payload.as_deref().unwrap_or_default()).parse().expect("a number")
        })
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..3000).collect::<Vec<u64>>());
    for one in &acknowledged {
        if let Some(offset) = one.offset {
            let found = read.iter().find(|read| (read.partition, read.offset) == (one.partition, offset));
            let payload = found.and_then(|read| read.payload.clone());
            assert_eq!(payload, Some(one.number.to_string().into_bytes()), "{one:?}");
        }
    }
    assert_eq!(broker.end_offsets("records").values().sum::<i64>(), 3000);
    assert!(proxy.accepted() > 0, "nobody came through the proxy");
}

#[test]
fn topics_are_made_changed_and_deleted() {
    let broker = Broker::shared();
    broker.create_topic("changing", 1, &[("retention.ms", "-1")]);
    let producer = Producer::new(&broker.bootstrap(), &[]);
    for n in 0..10 {
        producer.send("changing", Some(0), None, Some(b"x"), n);
    }
    producer.flush();
    assert_eq!(broker.watermarks("changing", 0), (0, 10));
    broker.delete_records("changing", 0, 4);
    assert_eq!(broker.watermarks("changing", 0), (4, 10));
    assert_eq!(broker.read("changing", &BTreeMap::new()).len(), 6);
    broker.add_partitions("changing", 3);
    assert_eq!(broker.end_offsets("changing"), BTreeMap::from([(0, 10), (1, 0), (2, 0)]));
    broker.delete_topic("changing");
    broker.create_topic("changing", 2, &[]);
    assert_eq!(broker.end_offsets("changing"), BTreeMap::from([(0, 0), (1, 0)]));
}

#[test]
fn what_a_transaction_aborts_is_not_read() {
    let broker = Broker::shared();
    broker.create_topic("transactions", 2, &[]);
    let producer = Producer::transactional(&broker.bootstrap(), "one", &[]);
    for round in 0..4u64 {
        producer.begin();
        for n in 0..5 {
            producer.send(
                "transactions",
                Some((n % 2) as i32),
                None,
                Some(format!("{round}.{n}").as_bytes()),
                n,
            );
        }
        if round % 2 == 0 {
            assert_eq!(producer.commit(), Ended::Committed);
        } else {
            producer.flush();
            assert!(producer.abort());
        }
    }
    let mut read: Vec<String> = broker
        .read("transactions", &BTreeMap::new())
        .into_iter()
        .map(|read| String::from_utf8(read.payload.expect("a payload")).expect("text"))
        .collect();
    read.sort();
    assert_eq!(read, ["0.0", "0.1", "0.2", "0.3", "0.4", "2.0", "2.1", "2.2", "2.3", "2.4"]);
}

/// A server that sends back what it gets.
fn echo() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = socket.read(&mut buffer) {
                    if socket.write_all(&buffer[..read]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

fn round_trip(socket: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    socket.write_all(bytes)?;
    let mut back = vec![0; bytes.len()];
    socket.read_exact(&mut back)?;
    assert_eq!(back, bytes);
    Ok(())
}

#[test]
fn a_proxy_cuts_refuses_delays_limits_and_stalls() {
    let proxy = Proxy::start(echo());
    let connect = || TcpStream::connect(("127.0.0.1", proxy.port())).expect("the proxy listens");
    let mut socket = connect();
    round_trip(&mut socket, b"hello").expect("an answer");

    proxy.delay(Duration::from_millis(100));
    let started = Instant::now();
    round_trip(&mut socket, b"slowly").expect("an answer");
    assert!(started.elapsed() >= Duration::from_millis(200), "both directions wait");
    proxy.heal();

    proxy.limit(Some(20_000));
    let started = Instant::now();
    round_trip(&mut socket, &[7; 10_000]).expect("an answer");
    assert!(started.elapsed() >= Duration::from_millis(500), "10,000 bytes at 20,000 a second");
    proxy.heal();

    proxy.stall(true);
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    socket.write_all(b"x").expect("the socket is open");
    assert!(socket.read(&mut [0]).is_err(), "nothing comes while all stands still");
    proxy.heal();
    socket.set_read_timeout(None).expect("no timeout");
    assert_eq!(socket.read(&mut [0; 2]).expect("what was on its way comes"), 1);

    proxy.cut();
    assert!(round_trip(&mut socket, b"x").is_err());
    wait_for("no open connection", || (proxy.open_connections() == 0).then_some(()));
    proxy.refuse(true);
    assert!(round_trip(&mut connect(), b"x").is_err());
    proxy.heal();
    round_trip(&mut connect(), b"again").expect("an answer");
}
