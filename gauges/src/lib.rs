//! Metrics of this process: counters, gauges and histograms by name and labels, printed as Prometheus text (format
//! 0.0.4). Knows no HTTP and no settings, and never fails: what goes wrong here must not cost a row.
//!
//! - A handle is cheap to clone and lock-free to use; looking one up takes a lock, so look up once a batch, not a row.
//! - Bounded: a name has at most [`MAX_SERIES`] sets of label values. What comes later is counted together, under
//!   `other` in every label, and the log says it once.
//! - A name keeps the kind that it was first used with; another kind is logged and counts nowhere.
//! - What others count already is asked of them when the page is made ([`collector`]).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

mod process;

/// The content type of [`render`]'s text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The most sets of label values that one name keeps apart.
pub const MAX_SERIES: usize = 500;

/// Label values are cut to this many bytes.
const MAX_VALUE: usize = 200;

/// Upper bounds of the buckets of a histogram, in seconds: a fast commit to a long outage.
const BUCKETS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0];

/// What only grows.
#[derive(Debug, Clone)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// What was counted so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What goes up and down.
#[derive(Debug, Clone)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// Sets the value.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    /// The value.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// How long something takes, in seconds.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug)]
struct Buckets {
    /// Upper bounds, ascending.
    bounds: &'static [f64],
    /// One a bound, and a last one for what is beyond all.
    counts: Box<[AtomicU64]>,
    /// Bits of the sum of all values.
    sum: AtomicU64,
}

impl Buckets {
    fn new(bounds: &'static [f64]) -> Arc<Self> {
        Arc::new(Buckets { bounds, counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(), sum: AtomicU64::new(0) })
    }
}

impl Histogram {
    /// Counts one value.
    pub fn observe(&self, seconds: f64) {
        let at = self.0.bounds.partition_point(|b| *b < seconds);
        self.0.counts[at].fetch_add(1, Ordering::Relaxed);
        let add = |bits| Some((f64::from_bits(bits) + seconds).to_bits());
        // The closure always gives a value, so this cannot fail.
        let _ = self.0.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Counts the time since `began`.
    pub fn since(&self, began: Instant) {
        self.observe(began.elapsed().as_secs_f64());
    }
}

#[derive(Debug, Clone)]
enum Cell {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

/// One name: what it means, and its series by label values.
#[derive(Debug)]
struct Family {
    kind: &'static str,
    series: BTreeMap<Vec<(&'static str, String)>, Cell>,
    overflowed: bool,
}

type Collect = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct Registry {
    families: Mutex<BTreeMap<&'static str, Family>>,
    help: Mutex<BTreeMap<&'static str, &'static str>>,
    collectors: Mutex<BTreeMap<&'static str, Collect>>,
}

static REGISTRY: Registry = Registry {
    families: Mutex::new(BTreeMap::new()),
    help: Mutex::new(BTreeMap::new()),
    collectors: Mutex::new(BTreeMap::new()),
};

/// Labels of a series: names, and the values that tell it from the others of its name.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

/// The counter of this name and these labels.
pub fn counter(name: &'static str, labels: Labels<'_>) -> Counter {
    let fresh = || Cell::Counter(Counter(Arc::default()));
    match REGISTRY.cell(name, labels, "counter", fresh) {
        Some(Cell::Counter(c)) => c,
        _ => Counter(Arc::default()),
    }
}

/// The gauge of this name and these labels.
pub fn gauge(name: &'static str, labels: Labels<'_>) -> Gauge {
    let fresh = || Cell::Gauge(Gauge(Arc::default()));
    match REGISTRY.cell(name, labels, "gauge", fresh) {
        Some(Cell::Gauge(g)) => g,
        _ => Gauge(Arc::default()),
    }
}

/// The histogram of this name and these labels.
pub fn histogram(name: &'static str, labels: Labels<'_>) -> Histogram {
    histogram_in(name, labels, BUCKETS)
}

/// As [`histogram`], with buckets of its own: `bounds` in seconds, ascending.
pub fn histogram_in(name: &'static str, labels: Labels<'_>, bounds: &'static [f64]) -> Histogram {
    let fresh = || Cell::Histogram(Histogram(Buckets::new(bounds)));
    match REGISTRY.cell(name, labels, "histogram", fresh) {
        Some(Cell::Histogram(h)) => h,
        _ => Histogram(Buckets::new(bounds)),
    }
}

/// A counter that somebody else keeps: set to what they have counted so far.
pub fn total(name: &'static str, labels: Labels<'_>) -> Gauge {
    let fresh = || Cell::Gauge(Gauge(Arc::default()));
    match REGISTRY.cell(name, labels, "counter", fresh) {
        Some(Cell::Gauge(g)) => g,
        _ => Gauge(Arc::default()),
    }
}

/// Called before every page: sets gauges and totals to what they are. It must be quick, and there is one of each `name`.
pub fn collector(name: &'static str, collect: impl Fn() + Send + Sync + 'static) {
    REGISTRY.collectors.lock().insert(name, Arc::new(collect));
}

/// Says what a name means, in one line.
pub fn describe(name: &'static str, help: &'static str) {
    REGISTRY.help.lock().insert(name, help);
}

/// Forgets a series: of a partition that was given away, or a table that is gone.
pub fn remove(name: &'static str, labels: Labels<'_>) {
    let mut families = REGISTRY.families.lock();
    if let Some(family) = families.get_mut(name) {
        family.series.remove(&key(labels));
    }
}

/// Everything, as Prometheus text.
pub fn render() -> String {
    collect();
    REGISTRY.render()
}

/// One figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub name: String,
    pub kind: &'static str,
    pub labels: Vec<(&'static str, String)>,
    pub value: f64,
}

/// Everything, as figures: of a histogram its `_count` and its `_sum`.
pub fn samples() -> Vec<Sample> {
    collect();
    REGISTRY.samples()
}

fn collect() {
    process::sample();
    // Outside of the lock: they look up series.
    let collectors: Vec<Collect> = REGISTRY.collectors.lock().values().cloned().collect();
    for collect in collectors {
        collect();
    }
}

/// Label values as they are kept: bounded in length, in the order of the label names.
fn key(labels: Labels<'_>) -> Vec<(&'static str, String)> {
    let mut key: Vec<_> = labels
        .iter()
        .map(|(name, value)| {
            let end =
                (0..=value.len().min(MAX_VALUE)).rev().find(|at| value.is_char_boundary(*at)).unwrap_or(0);
            (*name, value[..end].to_owned())
        })
        .collect();
    key.sort_unstable();
    key
}

impl Registry {
    /// The cell of a series, made if it is new. `None` if the name has another kind.
    fn cell(
        &self,
        name: &'static str,
        labels: Labels<'_>,
        kind: &'static str,
        fresh: impl Fn() -> Cell,
    ) -> Option<Cell> {
        let mut families = self.families.lock();
        let family = families.entry(name).or_insert_with(|| Family {
            kind,
            series: BTreeMap::new(),
            overflowed: false,
        });
        if family.kind != kind {
            tracing::error!(name, kind, first = family.kind, "a metric is used as two kinds");
            return None;
        }
        let mut key = key(labels);
        if let Some(cell) = family.series.get(&key) {
            return Some(cell.clone());
        }
        if family.series.len() >= MAX_SERIES {
            for (_, value) in &mut key {
                "other".clone_into(value);
            }
            if !std::mem::replace(&mut family.overflowed, true) {
                tracing::warn!(name, "more than {MAX_SERIES} series; further ones are counted together");
            }
        }
        Some(family.series.entry(key).or_insert_with(fresh).clone())
    }

    fn samples(&self) -> Vec<Sample> {
        let mut out = Vec::new();
        for (name, family) in self.families.lock().iter() {
            for (labels, cell) in &family.series {
                let mut say = |suffix: &str, value: f64| {
                    out.push(Sample { name: format!("{name}{suffix}"), kind: family.kind, labels: labels.clone(), value });
                };
                match cell {
                    Cell::Counter(c) => say("", c.get() as f64),
                    Cell::Gauge(g) => say("", g.get()),
                    Cell::Histogram(h) => {
                        say("_count", h.0.counts.iter().map(|c| c.load(Ordering::Relaxed)).sum::<u64>() as f64);
                        say("_sum", f64::from_bits(h.0.sum.load(Ordering::Relaxed)));
                    }
                }
            }
        }
        out
    }

    fn render(&self) -> String {
        let help = self.help.lock().clone();
        let families = self.families.lock();
        let mut out = String::with_capacity(8192);
        for (name, family) in families.iter().filter(|(_, f)| !f.series.is_empty()) {
            if let Some(help) = help.get(name) {
                let _ = writeln!(out, "# HELP {name} {}", help.replace('\\', r"\\").replace('\n', r"\n"));
            }
            let _ = writeln!(out, "# TYPE {name} {}", family.kind);
            for (labels, cell) in &family.series {
                match cell {
                    Cell::Counter(c) => line(&mut out, name, "", labels, None, &c.get().to_string()),
                    Cell::Gauge(g) => line(&mut out, name, "", labels, None, &number(g.get())),
                    Cell::Histogram(h) => buckets(&mut out, name, labels, &h.0),
                }
            }
        }
        out
    }
}

/// A histogram's lines: buckets count what is at most their bound, so they add up.
fn buckets(out: &mut String, name: &str, labels: &[(&'static str, String)], buckets: &Buckets) {
    let mut total = 0;
    for (at, count) in buckets.counts.iter().enumerate() {
        total += count.load(Ordering::Relaxed);
        let bound = buckets.bounds.get(at).map_or_else(|| "+Inf".to_owned(), |b| number(*b));
        line(out, name, "_bucket", labels, Some(&bound), &total.to_string());
    }
    let sum = f64::from_bits(buckets.sum.load(Ordering::Relaxed));
    line(out, name, "_sum", labels, None, &number(sum));
    line(out, name, "_count", labels, None, &total.to_string());
}

fn line(
    out: &mut String,
    name: &str,
    suffix: &str,
    labels: &[(&'static str, String)],
    bound: Option<&str>,
    value: &str,
) {
    out.push_str(name);
    out.push_str(suffix);
    let all = labels.iter().map(|(n, v)| (*n, v.as_str())).chain(bound.map(|b| ("le", b)));
    let mut open = false;
    for (label, value) in all {
        out.push(if std::mem::replace(&mut open, true) { ',' } else { '{' });
        out.push_str(label);
        out.push_str("=\"");
        for c in value.chars() {
            match c {
                '\\' => out.push_str(r"\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str(r"\n"),
                c => out.push(c),
            }
        }
        out.push('"');
    }
    if open {
        out.push('}');
    }
    out.push(' ');
    out.push_str(value);
    out.push('\n');
}

fn number(value: f64) -> String {
    match value {
        v if v.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        v => v.to_string(),
    }
}

#[cfg(test)]
mod tests;
