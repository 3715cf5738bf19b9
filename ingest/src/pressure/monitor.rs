//! Reads the probes now and then and opens and closes the door. The decision is [`Gate`], without I/O or clock.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Pressure, Probe, Reading, State};
use crate::metrics;

/// Marks and times.
#[derive(Debug, Clone)]
pub struct Config {
    /// How often the room is measured.
    pub interval: Duration,
    /// Closed below this many free bytes ...
    pub min_free_bytes: u64,
    /// ... or this share of the whole, whichever is more, but never more than a tenth of the whole.
    pub min_free_ratio: f64,
    /// How long it stays closed after PostgreSQL said that it is out of space; doubled each time it says so again.
    pub refusal_pause: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            interval: Duration::from_secs(1),
            min_free_bytes: 1 << 30,
            min_free_ratio: 0.02,
            refusal_pause: Duration::from_secs(10),
        }
    }
}

/// The longest time between two tries after refusals.
const MAX_REFUSAL_PAUSE: Duration = Duration::from_secs(300);

impl Config {
    /// Closed below the first, open again from the second on.
    pub(super) fn marks(&self, total: u64) -> (u64, u64) {
        let share = (total as f64 * self.min_free_ratio.clamp(0.0, 1.0)) as u64;
        let close = share.max(self.min_free_bytes).min(total / 10);
        (close, close + close / 2)
    }
}

/// What was decided so far.
#[derive(Debug)]
pub(super) struct Gate {
    config: Config,
    /// One a probe.
    full: Vec<bool>,
    closed: Option<String>,
    /// The last refusal by PostgreSQL: closed until then, and how long that was.
    refusal: Option<(Instant, Duration)>,
}

impl Gate {
    pub(super) fn new(config: Config, probes: usize) -> Gate {
        Gate { config, full: vec![false; probes], closed: None, refusal: None }
    }

    /// The state from now on. `readings` has a place and a reading for each probe, `None` where it could not be read.
    pub(super) fn step(
        &mut self,
        readings: &[(String, Option<Reading>)],
        refused: Option<String>,
        now: Instant,
    ) -> State {
        let mut reason = None;
        for (full, (place, reading)) in self.full.iter_mut().zip(readings) {
            if let Some(Reading { free, total }) = *reading {
                let (close, open) = self.config.marks(total);
                *full = if *full { free < open } else { free < close };
                if *full && reason.is_none() {
                    reason = Some(format!(
                        "{place} is nearly full: {} of {} are free, and {} are needed",
                        size(free),
                        size(total),
                        size(open)
                    ));
                }
            } else if *full && reason.is_none() {
                reason = Some(format!("{place} was nearly full when it was last measured"));
            }
        }
        if let Some(why) = refused {
            let pause = match self.refusal {
                // Of a writer that began before the door closed.
                Some((until, _)) if now < until => None,
                Some((until, pause)) if now < until + pause => Some((pause * 2).min(MAX_REFUSAL_PAUSE)),
                _ => Some(self.config.refusal_pause),
            };
            if let Some(pause) = pause {
                self.refusal = Some((now + pause, pause));
            }
            reason.get_or_insert(why);
        }
        let waiting = self.refusal.is_some_and(|(until, _)| now < until);
        if reason.is_none() && waiting {
            reason = Some("PostgreSQL ran out of space a short time ago".to_owned());
        }
        // While it stays closed, the first reason stands: waiters are woken by changes only.
        self.closed = match (self.closed.take(), reason) {
            (_, None) => None,
            (Some(first), Some(_)) => Some(first),
            (None, new) => new,
        };
        match &self.closed {
            None => State::Open,
            Some(reason) => State::Closed { reason: reason.clone() },
        }
    }
}

/// Bytes for people.
pub(super) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["bytes", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "bytes" { format!("{bytes} bytes") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// Measures, decides and tells, for as long as it runs.
pub struct Monitor {
    gate: Gate,
    interval: Duration,
    probes: Vec<Box<dyn Probe>>,
    /// Whether the last reading of each probe failed, so that it is logged once.
    mute: Vec<bool>,
    pressure: Pressure,
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Monitor").field("gate", &self.gate).finish_non_exhaustive()
    }
}

impl Monitor {
    /// A monitor and what it steers. Open until it first measured: call [`Monitor::check`] before anything is served.
    pub fn new(config: Config, probes: Vec<Box<dyn Probe>>) -> (Pressure, Monitor) {
        metrics::describe(
            "watershed_pressure_closed",
            "1 while nothing is taken in because a disk is nearly full.",
        );
        metrics::describe("watershed_pressure_closed_total", "How often taking in was stopped.");
        metrics::describe("watershed_space_free_bytes", "Free space of what is watched.");
        metrics::describe("watershed_space_total_bytes", "Size of what is watched.");
        metrics::describe(
            "watershed_space_close_below_bytes",
            "Taking in stops when less than this is free.",
        );
        metrics::gauge("watershed_pressure_closed", &[]).set(0.0);
        let pressure = Pressure::new();
        let interval = config.interval.max(Duration::from_millis(10));
        let (gate, mute) = (Gate::new(config, probes.len()), vec![false; probes.len()]);
        (pressure.clone(), Monitor { gate, interval, probes, mute, pressure })
    }

    /// Measures until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            self.check().await;
            let shared = self.pressure.shared.clone();
            tokio::select! {
                () = stop.cancelled() => return,
                () = shared.wake.notified() => {}
                () = tokio::time::sleep(self.interval) => {}
            }
        }
    }

    /// Measures once and tells of a change.
    pub async fn check(&mut self) {
        let mut readings = Vec::with_capacity(self.probes.len());
        for (probe, mute) in self.probes.iter_mut().zip(&mut self.mute) {
            let read = probe.read().await;
            let place = probe.place().to_owned();
            match &read {
                Ok(reading) => {
                    let labels = [("place", place.as_str())];
                    metrics::gauge("watershed_space_free_bytes", &labels).set(reading.free as f64);
                    metrics::gauge("watershed_space_total_bytes", &labels).set(reading.total as f64);
                    let (close, _) = self.gate.config.marks(reading.total);
                    metrics::gauge("watershed_space_close_below_bytes", &labels).set(close as f64);
                    *mute = false;
                }
                Err(error) => {
                    if !std::mem::replace(mute, true) {
                        tracing::warn!(place, error, "cannot tell how much room there is");
                    }
                }
            }
            readings.push((place, read.ok()));
        }
        let refused = self.pressure.shared.refused.lock().take();
        let state = self.gate.step(&readings, refused, Instant::now());
        self.tell(state);
    }

    fn tell(&self, state: State) {
        self.pressure.shared.state.send_if_modified(|now| {
            if *now == state {
                return false;
            }
            match &state {
                State::Open => tracing::warn!("there is room again: taking in goes on"),
                State::Closed { reason } => {
                    metrics::counter("watershed_pressure_closed_total", &[]).inc();
                    tracing::error!(reason, "nothing more is taken in until there is room; reading goes on");
                }
            }
            metrics::gauge("watershed_pressure_closed", &[]).set(if state.is_open() { 0.0 } else { 1.0 });
            *now = state;
            true
        });
    }
}
