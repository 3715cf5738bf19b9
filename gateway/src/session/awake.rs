//! Waiting awake. Who sends one small statement after the other waits, on an idle machine, mostly for processors to be woken: a
//! session whose last wait for the same (its client, or PostgreSQL) was short looks for its next bytes a moment longer before its thread
//! goes to sleep. ✗ what is waited for.
//!
//! Nobody else may pay for it: one session of the process at a time waits so, and only while PostgreSQL is at work for few others; other sessions of the
//! thread are served meanwhile, and if the processor is wanted elsewhere (the thread did not run for a while) the thread sleeps as
//! ever for some time. A wait that is longer than allowed costs that much once.

use std::cell::Cell;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Between two looks; if more has passed, somebody else had the processor.
const GAP: Duration = Duration::from_micros(40);
/// How long a thread whose processor was wanted does not wait awake.
const BACK_OFF: Duration = Duration::from_millis(20);


/// A session waits awake.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// Sessions that sleep until PostgreSQL has done something: it needs processors.
static ASLEEP: AtomicUsize = AtomicUsize::new(0);
/// So many of those, and nobody waits awake. Of a single processor, whoever is waited for would have nothing.
static CROWD: LazyLock<usize> = LazyLock::new(|| std::thread::available_parallelism().map_or(0, |n| n.get() / 2));

thread_local! {
    static NOT_BEFORE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// A wait; ends when it drops.
pub(super) struct Awake {
    until: Instant,
    looked: Instant,
}

impl Awake {
    /// From `now` on, for `longest` at most. `None`: sleep.
    pub(super) fn begin(now: Instant, longest: Duration) -> Option<Awake> {
        let wanted = NOT_BEFORE.get().is_some_and(|until| now < until);
        if wanted || longest.is_zero() || crowded() || TAKEN.swap(true, Ordering::Relaxed) {
            return None;
        }
        Some(Awake { until: now + longest, looked: now })
    }

    /// Whether to look again, at `now`.
    pub(super) fn goes_on(&mut self, now: Instant) -> bool {
        if now.duration_since(self.looked) > GAP {
            NOT_BEFORE.set(Some(now + BACK_OFF));
            return false;
        }
        self.looked = now;
        now < self.until && !crowded()
    }
}

fn crowded() -> bool {
    ASLEEP.load(Ordering::Relaxed) >= *CROWD
}

/// The sleep of a session that PostgreSQL is at work for.
pub(super) struct Asleep(());

impl Asleep {
    pub(super) fn begin() -> Asleep {
        ASLEEP.fetch_add(1, Ordering::Relaxed);
        Asleep(())
    }
}

impl Drop for Asleep {
    fn drop(&mut self) {
        ASLEEP.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        TAKEN.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_micros(150);
    const STEP: Duration = Duration::from_micros(10);

    #[test]
    fn one_at_a_time_waits_until_its_time_is_over_or_somebody_wants_the_processor() {
        if *CROWD == 0 {
            return;
        }
        let mut now = Instant::now();
        assert!(Awake::begin(now, Duration::ZERO).is_none(), "switched off");
        // Sessions of other tests may be at it.
        let begin = |now| (0..1_000_000).find_map(|_| Awake::begin(now, LONGEST)).expect("a turn");
        let mut first = begin(now);
        assert!(Awake::begin(now, LONGEST).is_none(), "one is enough");
        for _ in 0..14 {
            now += STEP;
            assert!(first.goes_on(now));
        }
        now += STEP;
        assert!(!first.goes_on(now), "its time is over");
        drop(first);
        let mut second = begin(now);
        now += GAP + STEP;
        assert!(!second.goes_on(now), "the processor was another's");
        drop(second);
        assert!(Awake::begin(now + STEP, LONGEST).is_none());
        drop(begin(now + BACK_OFF));
        let crowd: Vec<Asleep> = (0..*CROWD).map(|_| Asleep::begin()).collect();
        assert!(Awake::begin(now + BACK_OFF, LONGEST).is_none(), "others are busy");
        drop(crowd);
        drop(begin(now + BACK_OFF));
    }
}
