//! How many connections may be on their way in: all together, from one address, and how quickly they may come.
//! A session that logged in has a place of its own. ✗ sockets.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Addresses whose rate is known at a time; beyond them only the other limits hold.
const MAX_ADDRESSES: usize = 8_192;
/// An address that was quiet may come with this many seconds' worth at once.
const BURST_SECS: f64 = 5.0;
/// Refusals are logged this often at the most.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Why a connection is turned away before it said anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Too many connections have not logged in yet.
    Crowd,
    /// Too many of these are from this address.
    Address,
    /// This address connects too often.
    Rate,
}

/// See the module. One accepting task owns it.
pub struct Admission {
    most: usize,
    most_of_one: usize,
    pending: Arc<Mutex<Pending>>,
    rates: Option<Rates>,
    refused: u64,
    logged: Option<Instant>,
}

#[derive(Default)]
struct Pending {
    all: usize,
    of: HashMap<IpAddr, usize>,
}

/// A connection that has not logged in yet counts until this drops.
pub struct OnItsWay {
    pending: Arc<Mutex<Pending>>,
    from: IpAddr,
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        let mut pending = self.pending.lock();
        pending.all -= 1;
        if let Some(n) = pending.of.get_mut(&self.from) {
            *n -= 1;
            if *n == 0 {
                pending.of.remove(&self.from);
            }
        }
    }
}

impl Admission {
    /// For so many sessions; `rate` is new connections a second from one address.
    pub fn new(max_sessions: usize, rate: Option<u32>) -> Admission {
        // As many as PostgreSQL lets in before they have logged in; one address must leave room for others.
        let most = 2 * max_sessions + 100;
        Admission {
            most,
            most_of_one: most / 2,
            pending: Arc::default(),
            rates: rate.map(|rate| Rates { per_second: f64::from(rate), of: HashMap::new() }),
            refused: 0,
            logged: None,
        }
    }

    /// Lets a connection in, or says why not.
    pub fn admit(&mut self, from: IpAddr, now: Instant) -> Result<OnItsWay, Refusal> {
        let admitted = self.judge(from, now);
        if let Err(refusal) = &admitted {
            self.refused += 1;
            if self.logged.is_none_or(|at| now.duration_since(at) >= LOG_EVERY) {
                tracing::warn!(%from, ?refusal, refused = self.refused, "connections are turned away");
                self.logged = Some(now);
                self.refused = 0;
            }
        }
        admitted
    }

    fn judge(&mut self, from: IpAddr, now: Instant) -> Result<OnItsWay, Refusal> {
        let from = neighbourhood(from);
        if let Some(rates) = &mut self.rates
            && !rates.take(from, now)
        {
            return Err(Refusal::Rate);
        }
        let mut pending = self.pending.lock();
        if pending.all >= self.most {
            return Err(Refusal::Crowd);
        }
        let most_of_one = self.most_of_one;
        let of_one = pending.of.entry(from).or_default();
        if *of_one >= most_of_one {
            return Err(Refusal::Address);
        }
        *of_one += 1;
        pending.all += 1;
        Ok(OnItsWay { pending: self.pending.clone(), from })
    }
}

/// Who holds one IPv6 address holds the network of 64 bits around it.
fn neighbourhood(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & !u128::from(u64::MAX)).into()),
        ip => ip,
    }
}

/// A bucket of tokens for each address.
struct Rates {
    per_second: f64,
    of: HashMap<IpAddr, Bucket>,
}

#[derive(Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Rates {
    fn take(&mut self, from: IpAddr, now: Instant) -> bool {
        let (rate, burst) = (self.per_second, self.per_second * BURST_SECS);
        let filled =
            |b: &Bucket| (b.tokens + now.saturating_duration_since(b.at).as_secs_f64() * rate).min(burst);
        if self.of.len() >= MAX_ADDRESSES && !self.of.contains_key(&from) {
            // Who has a full bucket is as good as unknown.
            self.of.retain(|_, bucket| filled(bucket) < burst);
            if self.of.len() >= MAX_ADDRESSES {
                return true;
            }
        }
        let bucket = self.of.entry(from).or_insert(Bucket { tokens: burst, at: now });
        let tokens = filled(bucket);
        let enough = tokens >= 1.0;
        *bucket = Bucket { tokens: if enough { tokens - 1.0 } else { tokens }, at: now };
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_comes_as_often_as_it_may() {
        let mut admission = Admission::new(1_000, Some(10));
        let start = Instant::now();
        let mut admitted =
            |from: &str, at: u64| admission.admit(ip(from), start + Duration::from_millis(at)).is_ok();
        // A burst, then one every tenth of a second; others are not held back.
        assert_eq!((0..60).filter(|_| admitted("192.0.2.1", 0)).count(), 50);
        assert!(admitted("192.0.2.2", 0));
        assert!(!admitted("192.0.2.1", 90));
        assert!(admitted("::ffff:192.0.2.1", 210));
        assert!(admitted("192.0.2.1", 211));
        assert!(!admitted("192.0.2.1", 212));
        // Neighbours in one IPv6 network are one.
        assert_eq!((0..60).filter(|n| admitted(&format!("2001:db8::{n:x}"), 300)).count(), 50);
        assert!(admitted("2001:db8:0:1::1", 300));
    }

    #[test]
    fn connections_on_their_way_are_few() {
        let mut admission = Admission::new(10, None);
        let now = Instant::now();
        let mut from = |text: &str| admission.admit(ip(text), now);
        let mut held: Vec<OnItsWay> =
            (0..60).map(|_| from("192.0.2.1").unwrap_or_else(|e| panic!("{e:?}"))).collect();
        assert_eq!(from("192.0.2.1").err(), Some(Refusal::Address));
        held.extend((0..60).map(|n| from(&format!("192.0.2.{}", 2 + n)).unwrap_or_else(|e| panic!("{e:?}"))));
        assert_eq!(from("192.0.2.200").err(), Some(Refusal::Crowd));
        held.remove(0);
        assert!(from("192.0.2.1").is_ok());
        drop(held);
        assert!(admission.pending.lock().of.is_empty());
        assert_eq!(admission.pending.lock().all, 0);
    }

    #[test]
    fn so_many_addresses_are_remembered_and_no_more() {
        let mut rates = Rates { per_second: 1.0, of: HashMap::new() };
        let start = Instant::now();
        let address = |n: usize| IpAddr::V4((n as u32).into());
        for n in 0..MAX_ADDRESSES + 100 {
            assert!(rates.take(address(n), start));
        }
        assert_eq!(rates.of.len(), MAX_ADDRESSES);
        // Later all are full again and forgotten.
        assert!(rates.take(address(MAX_ADDRESSES + 1), start + Duration::from_secs(60)));
        assert_eq!(rates.of.len(), 1);
    }
}
