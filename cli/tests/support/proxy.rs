//! A TCP proxy that misbehaves on request: it cuts, refuses, delays, slows down and stalls the connections that go through it,
//! and loses the answers to chosen requests.
//!
//! It knows bytes and sockets only. Its port stays bound as long as it lives, so that a client always finds the same address;
//! a refused connection is accepted and reset at once. It depends on nothing else here: other test binaries may include it.
#![allow(dead_code)] // each test binary uses a part of it

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often a waiting pump looks whether it still has to wait.
const TICK: Duration = Duration::from_millis(10);

#[derive(Default)]
struct State {
    upstream: Mutex<Option<SocketAddr>>,
    closed: AtomicBool,
    refusing: AtomicBool,
    stalled: AtomicBool,
    /// Milliseconds that each piece of data waits, in each direction.
    delay_ms: AtomicU64,
    /// Bytes a second for each direction of each connection; 0 is no limit.
    rate: AtomicU64,
    /// Requests whose answers get lost.
    losing: Mutex<Losing>,
    accepted: AtomicU64,
    next: AtomicU64,
    /// Both ends of every open connection.
    open: Mutex<BTreeMap<u64, (TcpStream, TcpStream)>>,
}

#[derive(Default)]
struct Losing {
    /// A request is meant if one piece of data holds all of these.
    holding: Vec<Vec<u8>>,
    /// How many more, and how many so far.
    left: u64,
    lost: u64,
}

/// A listening port in front of another one.
pub struct Proxy {
    port: u16,
    state: Arc<State>,
}

impl Proxy {
    /// In front of `127.0.0.1:upstream`.
    pub fn start(upstream: u16) -> Proxy {
        let proxy = Proxy::unconnected();
        proxy.point_to(upstream);
        proxy
    }

    /// With no server behind it yet: connections are refused until [`Proxy::point_to`].
    pub fn unconnected() -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port for the proxy");
        let port = listener.local_addr().expect("the proxy's address").port();
        let state = Arc::new(State::default());
        let accepting = Arc::clone(&state);
        thread::spawn(move || accept(&listener, &accepting));
        Proxy { port, state }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn point_to(&self, upstream: u16) {
        *lock(&self.state.upstream) = Some(SocketAddr::from(([127, 0, 0, 1], upstream)));
    }

    /// Ends every open connection, on both sides, with whatever is on its way.
    pub fn cut(&self) {
        for (_, (client, server)) in std::mem::take(&mut *lock(&self.state.open)) {
            reset(&client);
            reset(&server);
        }
    }

    /// Whether new connections are reset at once.
    pub fn refuse(&self, refuse: bool) {
        self.state.refusing.store(refuse, Ordering::SeqCst);
    }

    /// Whether all data stops where it is; the connections stay open.
    pub fn stall(&self, stall: bool) {
        self.state.stalled.store(stall, Ordering::SeqCst);
    }

    /// Each piece of data waits that long, in each direction.
    pub fn delay(&self, delay: Duration) {
        self.state.delay_ms.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// At most so many bytes a second in each direction of each connection; `None` is no limit.
    pub fn limit(&self, bytes_per_second: Option<u64>) {
        self.state.rate.store(bytes_per_second.unwrap_or(0), Ordering::SeqCst);
    }

    /// The next requests that hold all of these bytes reach the server, which has time to carry them out; their connections end before
    /// an answer comes. A request that is sent again counts again.
    pub fn lose_answers(&self, holding: &[&str], times: u64) {
        let mut losing = lock(&self.state.losing);
        losing.holding = holding.iter().map(|part| part.as_bytes().to_vec()).collect();
        losing.left = times;
    }

    /// Answers that were lost so far.
    pub fn lost_answers(&self) -> u64 {
        lock(&self.state.losing).lost
    }

    /// Everything passes again.
    pub fn heal(&self) {
        self.lose_answers(&[], 0);
        self.refuse(false);
        self.stall(false);
        self.delay(Duration::ZERO);
        self.limit(None);
    }

    /// Connections taken since the start.
    pub fn accepted(&self) -> u64 {
        self.state.accepted.load(Ordering::SeqCst)
    }

    pub fn open_connections(&self) -> usize {
        lock(&self.state.open).len()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.closed.store(true, Ordering::SeqCst);
        self.cut();
        let _ = TcpStream::connect(("127.0.0.1", self.port)); // wakes the accepting thread, which then ends
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What is inside is valid after every statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn reset(socket: &TcpStream) {
    let _ = socket.shutdown(Shutdown::Both); // it may be gone already
}

fn accept(listener: &TcpListener, state: &Arc<State>) {
    for client in listener.incoming() {
        if state.closed.load(Ordering::SeqCst) {
            return;
        }
        let Ok(client) = client else {
            thread::sleep(TICK);
            continue;
        };
        if state.refusing.load(Ordering::SeqCst) {
            reset(&client);
            continue;
        }
        let upstream = *lock(&state.upstream);
        let Some(server) = upstream.and_then(|address| TcpStream::connect(address).ok()) else {
            reset(&client);
            continue;
        };
        state.accepted.fetch_add(1, Ordering::SeqCst);
        if let Err(error) = serve(client, server, state) {
            eprintln!("proxy: {error}");
        }
    }
}

fn serve(client: TcpStream, server: TcpStream, state: &Arc<State>) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let id = state.next.fetch_add(1, Ordering::SeqCst);
    lock(&state.open).insert(id, (client.try_clone()?, server.try_clone()?));
    // Set once a request went up whose answer is to be lost.
    let mute = Arc::new(AtomicBool::new(false));
    for (up, mut from, mut to) in [(true, client.try_clone()?, server.try_clone()?), (false, server, client)] {
        let state = Arc::clone(state);
        let mute = Arc::clone(&mute);
        thread::spawn(move || {
            pump(&mut from, &mut to, up, &mute, &state);
            // One direction has ended; half-open connections are of no use to either protocol.
            reset(&from);
            reset(&to);
            lock(&state.open).remove(&id);
        });
    }
    Ok(())
}

/// Whether these bytes hold a request whose answer is to be lost; counts it.
fn is_to_be_lost(bytes: &[u8], state: &State) -> bool {
    let mut losing = lock(&state.losing);
    let holds = |part: &Vec<u8>| bytes.windows(part.len().max(1)).any(|window| window == &part[..]);
    if losing.left == 0 || !losing.holding.iter().all(holds) {
        return false;
    }
    losing.left -= 1;
    losing.lost += 1;
    true
}

/// How long a server has for a request whose answer is lost.
const CARRIED_OUT: Duration = Duration::from_secs(1);

/// Copies until either side ends. `up`: from the client to the server.
fn pump(from: &mut TcpStream, to: &mut TcpStream, up: bool, mute: &AtomicBool, state: &State) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let rate = state.rate.load(Ordering::SeqCst);
        // Small pieces when slow, so that a new limit takes effect soon.
        let most = if rate == 0 {
            buffer.len()
        } else {
            usize::try_from(rate / 20).unwrap_or(1).clamp(1, buffer.len())
        };
        let read = match from.read(&mut buffer[..most]) {
            Ok(0) | Err(_) => return,
            Ok(read) => read,
        };
        // A limit that was set while this waited for data holds for that data.
        let rate = state.rate.load(Ordering::SeqCst);
        let mut wait = Duration::from_millis(state.delay_ms.load(Ordering::SeqCst));
        if rate > 0 {
            wait += Duration::from_secs_f64(read as f64 / rate as f64);
        }
        let until = Instant::now() + wait;
        while (Instant::now() < until || state.stalled.load(Ordering::SeqCst))
            && !state.closed.load(Ordering::SeqCst)
        {
            thread::sleep(
                TICK.min(until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))),
            );
        }
        let lose = up && is_to_be_lost(&buffer[..read], state);
        if lose {
            mute.store(true, Ordering::SeqCst);
        }
        if !up && mute.load(Ordering::SeqCst) {
            continue;
        }
        if to.write_all(&buffer[..read]).is_err() {
            return;
        }
        if lose {
            thread::sleep(CARRIED_OUT);
            return;
        }
    }
}
