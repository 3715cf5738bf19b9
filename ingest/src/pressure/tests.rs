use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::monitor::Gate;
use super::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn reading(free: u64, total: u64) -> [(String, Option<Reading>); 1] {
    [("a disk".to_owned(), Some(Reading { free, total }))]
}

#[test]
fn marks_are_sound_for_large_and_small_disks() {
    let config = Config::default();
    // 2 % of a large disk, a gibibyte of a usual one, a tenth of a small one.
    assert_eq!(config.marks(1000 * GIB).0, 20 * GIB);
    assert_eq!(config.marks(20 * GIB).0, GIB);
    assert_eq!(config.marks(100 * MIB).0, 10 * MIB);
    assert_eq!(config.marks(100 * MIB).1, 15 * MIB);
    assert_eq!(config.marks(0), (0, 0));
}

#[test]
fn it_closes_below_the_lower_mark_and_opens_above_the_higher_one() {
    let mut gate = Gate::new(Config::default(), 1);
    let now = Instant::now();
    let mut at = |free: u64| gate.step(&reading(free * MIB, 100 * MIB), None, now);
    assert_eq!(at(11), State::Open);
    assert_eq!(at(10), State::Open);
    let closed = at(9);
    let State::Closed { reason } = &closed else { panic!("open") };
    assert_eq!(reason, "a disk is nearly full: 9.0 MiB of 100.0 MiB are free, and 15.0 MiB are needed");
    // Further down and in between: the same, word for word, so that waiters are not woken.
    assert_eq!(at(1), closed);
    assert_eq!(at(14), closed);
    assert_eq!(at(15), State::Open);
    assert_eq!(at(14), State::Open);
}

#[test]
fn what_cannot_be_measured_keeps_its_state() {
    let mut gate = Gate::new(Config::default(), 1);
    let now = Instant::now();
    let unknown = [("a disk".to_owned(), None)];
    assert!(gate.step(&unknown, None, now).is_open());
    assert!(!gate.step(&reading(0, GIB), None, now).is_open());
    assert!(!gate.step(&unknown, None, now).is_open());
    assert!(gate.step(&reading(GIB, GIB), None, now).is_open());
    assert!(gate.step(&unknown, None, now).is_open());
}

#[test]
fn one_full_place_of_two_is_enough() {
    let mut gate = Gate::new(Config::default(), 2);
    let now = Instant::now();
    let two = |a: u64, b: u64| {
        [a, b].map(|free| (format!("disk {a}-{b}"), Some(Reading { free: free * GIB, total: 100 * GIB })))
    };
    assert!(!gate.step(&two(50, 1), None, now).is_open());
    assert!(!gate.step(&two(1, 50), None, now).is_open());
    assert!(gate.step(&two(50, 50), None, now).is_open());
}

#[test]
fn a_refusal_closes_for_a_while_and_longer_each_time() {
    let config = Config { refusal_pause: Duration::from_secs(10), ..Config::default() };
    let mut gate = Gate::new(config, 0);
    let start = Instant::now();
    let at = |s: u64| start + Duration::from_secs(s);
    let full = || Some("53100".to_owned());
    assert_eq!(gate.step(&[], full(), at(0)), State::Closed { reason: "53100".into() });
    // Writers that were under way say so too: not counted again.
    assert!(!gate.step(&[], full(), at(9)).is_open());
    assert!(gate.step(&[], None, at(10)).is_open());
    // Again, soon after: twice as long.
    assert!(!gate.step(&[], full(), at(12)).is_open());
    assert!(!gate.step(&[], None, at(31)).is_open());
    assert!(gate.step(&[], None, at(32)).is_open());
    // Much later: as at first.
    assert!(!gate.step(&[], full(), at(500)).is_open());
    assert!(gate.step(&[], None, at(510)).is_open());
}

proptest! {
    /// Whatever is read: it is closed whenever less than the lower mark is free, and open whenever the higher one is.
    #[test]
    fn marks_are_kept(total in 1u64..1 << 45, shares in prop::collection::vec(0.0f64..1.0, 1..40)) {
        let config = Config::default();
        let (close, open) = config.marks(total);
        prop_assert!(close <= open && open <= total);
        let mut gate = Gate::new(config, 1);
        let now = Instant::now();
        for share in shares {
            let free = (total as f64 * share * share) as u64;
            let state = gate.step(&reading(free, total), None, now);
            prop_assert!(free >= close || !state.is_open());
            prop_assert!(free < open || state.is_open());
        }
    }
}

/// A probe that says what it is told to.
struct Injected(Arc<Mutex<Result<Reading, String>>>);

impl Probe for Injected {
    fn place(&self) -> &str {
        "the test disk"
    }

    fn read(&mut self) -> BoxFuture<'_, Result<Reading, String>> {
        let now = self.0.lock().clone();
        Box::pin(async move { now })
    }
}

fn quick() -> Config {
    Config { interval: Duration::from_millis(10), ..Config::default() }
}

#[tokio::test]
async fn waiters_are_woken_at_each_change() {
    let said = Arc::new(Mutex::new(Ok(Reading { free: GIB, total: GIB })));
    let (mut pressure, monitor) = Monitor::new(quick(), vec![Box::new(Injected(said.clone()))]);
    let stop = CancellationToken::new();
    let running = tokio::spawn(monitor.run(stop.clone()));
    assert!(pressure.is_open());
    pressure.opened().await;

    *said.lock() = Ok(Reading { free: 0, total: GIB });
    pressure.changed().await;
    assert!(!pressure.is_open());

    let mut other = pressure.clone();
    let waiter = tokio::spawn(async move { other.opened().await });
    *said.lock() = Err("the disk is away".into());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiter.is_finished() && !pressure.is_open());
    *said.lock() = Ok(Reading { free: GIB, total: GIB });
    waiter.await.unwrap();
    assert!(pressure.is_open());

    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn only_a_full_disk_is_a_refusal() {
    let (pressure, monitor) = Monitor::new(quick(), Vec::new());
    let stop = CancellationToken::new();
    let running = tokio::spawn(monitor.run(stop.clone()));
    pressure.note(&crate::Error::Postgres(sqlx::Error::PoolTimedOut));
    pressure.note(&crate::Error::Cancelled);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(pressure.is_open());
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn the_space_of_a_directory() {
    let mut space = Space::of(std::env::temp_dir());
    let reading = space.read().await.unwrap();
    assert!(reading.free <= reading.total && reading.total > 0);
    assert!(Space::of("/no/such/directory".into()).read().await.is_err());
}
