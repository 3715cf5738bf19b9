//! Which files to rewrite, and why. Pure: a version, a policy and the time in, jobs out.
//!
//! A day is at rest when its files are *firm* (sorted, not small) and overlap one another hardly at all. What disturbs that:
//!
//! - *loose* files, small or unsorted. They are merged with their neighbours once they are many, together make a whole file, or have gone
//!   quiet; the larger ones among them only when the others weigh something against them, so that a row is rewritten a logarithmic
//!   number of times, whatever trickles in.
//! - late rows: loose files within the time of firm ones. They are merged into those firm files that they weigh something against, and
//!   wait as small files of their own until then. So a late row costs a bounded number of rewritten rows, and never the whole day.
//! - firm files that overlap each other by a good part of their rows. The same rule decides about them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lake::log::{LakeFile, LakeVersion};

/// What is worth rewriting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Bytes that a file should have. Files below half of it are small.
    pub target_bytes: u64,
    /// This many loose files are always worth a job.
    pub min_files: usize,
    /// A large file is rewritten for smaller ones that together have at least one n-th of its bytes.
    pub growth: u64,
    /// Two loose files or more that are all older than this are worth a job.
    pub quiet: Duration,
    /// A job takes no further files once it has this many bytes. Files that overlap stay together, whatever they weigh.
    pub max_job_bytes: u64,
    /// Merge loose files at once, however few. Firm files are rewritten by the same rule as always.
    pub eager: bool,
    /// Rewrite firm files for whatever overlaps them, too.
    pub full: bool,
}

impl Policy {
    /// The usual policy for files of `target_bytes`.
    pub fn new(target_bytes: u64) -> Self {
        let target_bytes = target_bytes.max(1);
        Self {
            target_bytes,
            min_files: 8,
            growth: 4,
            quiet: Duration::from_secs(600),
            max_job_bytes: target_bytes.saturating_mul(4),
            eager: false,
            full: false,
        }
    }

    /// The same, without waiting.
    pub fn eagerly(mut self) -> Self {
        self.eager = true;
        self
    }

    /// The same, without waiting and without regard to cost: afterwards no file overlaps another.
    pub fn fully(mut self) -> Self {
        self.eager = true;
        self.full = true;
        self
    }

    fn small(&self, file: &LakeFile) -> bool {
        file.size < self.target_bytes.div_ceil(2)
    }
}

/// Why a job is worth doing now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// A file's rows are not in order, which every reader pays for.
    Unsorted,
    /// Firm files share a good part of their time.
    Overlap,
    /// Late rows weigh enough against the files they belong to.
    Late,
    /// There are many loose files.
    Many,
    /// The loose files make a whole one.
    Whole,
    /// Nothing was added for a while.
    Quiet,
    /// Somebody asked for it.
    Asked,
}

/// What is wrong with the files of a job, and why they are rewritten now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    /// Files below half the target.
    pub small: usize,
    /// Large files that are rewritten because others overlap them.
    pub overlapped: usize,
    /// Files whose rows are not in order.
    pub unsorted: usize,
    pub why: Why,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for (n, what) in
            [(self.small, "small"), (self.overlapped, "overlapped"), (self.unsorted, "unsorted")]
        {
            if n > 0 {
                write!(f, "{comma}{n} {what}")?;
                comma = ", ";
            }
        }
        f.write_str(match self.why {
            Why::Unsorted => ": rows out of order cost every reader",
            Why::Overlap => ": large files share a good part of their time",
            Why::Late => ": late rows weigh enough against the files of their time",
            Why::Many => ": many small files",
            Why::Whole => ": together they make a whole file",
            Why::Quiet => ": nothing was added for a while",
            Why::Asked => ": asked for",
        })
    }
}

/// Files of one day to be replaced by fewer or better ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Days since 1970-01-01.
    pub day: i32,
    /// By least event time.
    pub files: Vec<Arc<LakeFile>>,
    /// How many files to make of them.
    pub outputs: usize,
    pub reason: Reason,
}

impl Job {
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|f| f.rows).sum()
    }

    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.size).sum()
    }
}

/// What there is to do, now and later.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// By day.
    pub jobs: Vec<Job>,
    /// When there will be more to do without any change (milliseconds since 1970): a day will have gone quiet.
    pub next_ms: Option<i64>,
}

/// The jobs worth doing in `version`, by day. `event` is the lake name of the event time, `now_ms` milliseconds since 1970.
///
/// No file is in two jobs, and the jobs of a day may be done in any order.
pub fn plan(version: &LakeVersion, event: &str, policy: &Policy, now_ms: i64) -> Plan {
    let mut plan = Plan::default();
    let mut day: Vec<Item> = Vec::new();
    for file in &version.files {
        if day.last().is_some_and(|item| item.file.day != file.day) {
            of_day(&mut day, policy, now_ms, &mut plan);
            day.clear();
        }
        day.push(Item::of(file, event, policy));
    }
    of_day(&mut day, policy, now_ms, &mut plan);
    plan
}

/// A file and when its rows are from.
#[derive(Debug, Clone)]
struct Item {
    file: Arc<LakeFile>,
    first: i64,
    last: i64,
    loose: bool,
}

impl Item {
    fn of(file: &Arc<LakeFile>, event: &str, policy: &Policy) -> Self {
        let (first, last) = file.range(event);
        Self { file: file.clone(), first, last, loose: policy.small(file) || !file.sorted }
    }

    /// Whether rows of both may lie between each other's; touching is no overlap.
    fn overlaps(&self, other: &Self) -> bool {
        self.first < other.last && other.first < self.last
    }

    /// About which part of this file's rows lies within the time of the other.
    fn share(&self, other: &Self) -> f64 {
        if !self.overlaps(other) {
            return 0.0;
        }
        let length = |first: i64, last: i64| (i128::from(last) - i128::from(first)) as f64;
        let common = length(self.first.max(other.first), self.last.min(other.last));
        let whole = length(self.first, self.last);
        // Even if it is one moment of a long time, it is something.
        if whole > 0.0 { (common / whole).clamp(1e-9, 1.0) } else { 1.0 }
    }

    fn bytes(&self) -> f64 {
        self.file.size as f64
    }
}

/// A file of which more than this lies within the time of firm files that stay is not merged into the others.
const OVERHANG: f64 = 0.1;

/// The jobs of one day.
fn of_day(items: &mut [Item], policy: &Policy, now_ms: i64, plan: &mut Plan) {
    if items.is_empty() || (items.len() == 1 && items[0].file.sorted) {
        return;
    }
    items.sort_by(|a, b| order(a).cmp(&order(b)));
    let items = &*items;
    let merged = with_firm(items, policy);
    let part = |wanted: bool| items.iter().zip(&merged).filter(move |(_, m)| **m == wanted).map(|(item, _)| item);
    // What is merged with firm files: whatever overlaps, together.
    for cluster in clusters(part(true)) {
        if cluster.len() > 1 {
            let why = if cluster.iter().all(|i| !i.loose) { Why::Overlap } else { Why::Late };
            plan.jobs.push(job(cluster, policy, why));
        }
    }
    // What is merged with its like.
    let stay: Vec<&Item> = part(false).filter(|i| !i.loose).collect();
    for bin in bins(part(false).filter(|i| i.loose), stay, policy) {
        match worth(bin, policy, now_ms) {
            Verdict::Now(files, why) => plan.jobs.push(job(files, policy, why)),
            Verdict::At(ms) => plan.next_ms = Some(plan.next_ms.map_or(ms, |next| next.min(ms))),
            Verdict::No => {}
        }
    }
}

fn order(item: &Item) -> (i64, i64, &str) {
    (item.first, item.last, item.file.path.as_str())
}

/// Which files are merged into, or are, firm ones that are rewritten. A firm file is if what lies within its time weighs something against
/// it; another file is if it lies within the time of such files, but for an overhang. `items` are in [`order`].
fn with_firm(items: &[Item], policy: &Policy) -> Vec<bool> {
    let firm: Vec<usize> = (0..items.len()).filter(|i| !items[*i].loose).collect();
    // The latest end of the firm files up to each.
    let mut latest = i64::MIN;
    let ends: Vec<i64> = firm
        .iter()
        .map(|f| {
            latest = latest.max(items[*f].last);
            latest
        })
        .collect();
    // Which part of each file lies within which firm ones.
    let shares: Vec<Vec<(usize, f64)>> = items
        .iter()
        .enumerate()
        .map(|(i, item)| {
            let begun = firm.partition_point(|f| items[*f].first < item.last);
            let near = (0..begun).rev().take_while(|n| ends[*n] > item.first).map(|n| firm[n]);
            let shared = near.filter(|f| *f != i).map(|f| (f, item.share(&items[f])));
            shared.filter(|(_, share)| *share > 0.0).collect()
        })
        .collect();
    let mut merged: Vec<bool> = (0..items.len()).map(|i| !items[i].loose || !shares[i].is_empty()).collect();
    // Each round takes fewer files, so this ends.
    loop {
        let mut weights = vec![0.0; items.len()];
        for (i, with) in shares.iter().enumerate().filter(|(i, _)| merged[*i]) {
            for (f, share) in with {
                weights[*f] += share * items[i].bytes();
            }
        }
        let mut changed = false;
        for f in &firm {
            let heavy = weights[*f] > 0.0
                && (policy.full || weights[*f] * policy.growth as f64 >= items[*f].bytes());
            changed |= merged[*f] && !heavy;
            merged[*f] &= heavy;
        }
        for (i, with) in shares.iter().enumerate() {
            let outside: f64 = with.iter().filter(|(f, _)| !merged[*f]).map(|(_, share)| share).sum();
            let fits = outside <= OVERHANG && (!items[i].loose || with.iter().any(|(f, _)| merged[*f]));
            changed |= merged[i] && !fits;
            merged[i] &= fits;
        }
        if !changed {
            return merged;
        }
    }
}

/// Files that overlap one another, directly or through others. `items` are in [`order`].
fn clusters<'a>(items: impl Iterator<Item = &'a Item>) -> Vec<Vec<&'a Item>> {
    let mut clusters: Vec<(i64, Vec<&Item>)> = Vec::new();
    for item in items {
        match clusters.last_mut() {
            Some((end, cluster)) if item.first < *end => {
                *end = (*end).max(item.last);
                cluster.push(item);
            }
            _ => clusters.push((item.last, vec![item])),
        }
    }
    clusters.into_iter().map(|(_, cluster)| cluster).collect()
}

/// Neighbouring loose files that may become one, without lying across a firm file that none of them overlaps now.
fn bins<'a>(
    loose: impl Iterator<Item = &'a Item>,
    mut firm: Vec<&Item>,
    policy: &Policy,
) -> Vec<Vec<&'a Item>> {
    let mut bins: Vec<Vec<&Item>> = Vec::new();
    let (mut end, mut bytes) = (i64::MIN, 0u64);
    firm.sort_by_key(|f| f.last);
    for item in loose {
        let overlaps = item.first < end;
        let between = || {
            let from = firm.partition_point(|f| f.last <= end);
            firm[from..].iter().take_while(|f| f.last <= item.first).any(|f| f.first >= end)
        };
        match bins.last_mut() {
            Some(bin) if overlaps || (bytes < policy.max_job_bytes && !between()) => {
                bin.push(item);
                end = end.max(item.last);
                bytes = bytes.saturating_add(item.file.size);
            }
            _ => {
                bins.push(vec![item]);
                (end, bytes) = (item.last, item.file.size);
            }
        }
    }
    bins
}

enum Verdict<'a> {
    Now(Vec<&'a Item>, Why),
    /// Not before this time, if nothing changes.
    At(i64),
    No,
}

/// What to do about neighbouring loose files.
fn worth<'a>(mut bin: Vec<&'a Item>, policy: &Policy, now_ms: i64) -> Verdict<'a> {
    if bin.iter().any(|i| !i.file.sorted) {
        return Verdict::Now(bin, Why::Unsorted);
    }
    let better = |bin: &[&Item]| {
        let overlaps = bin.windows(2).any(|w| w[0].overlaps(w[1]));
        bin.len() > 1 && (overlaps || outputs(bin, policy) < bin.len())
    };
    if policy.eager {
        return if better(&bin) { Verdict::Now(bin, Why::Asked) } else { Verdict::No };
    }
    // Without the large ones that the others do not weigh anything against.
    let mut by_size: Vec<u64> = bin.iter().map(|i| i.file.size).collect();
    by_size.sort_unstable();
    let mut sum: u64 = by_size.iter().sum();
    while let Some(largest) = by_size.pop() {
        sum -= largest;
        if sum.saturating_mul(policy.growth) >= largest {
            sum += largest;
            by_size.push(largest);
            break;
        }
    }
    let limit = by_size.last().copied().unwrap_or(0);
    bin.retain(|i| i.file.size <= limit);
    if !better(&bin) {
        return Verdict::No;
    }
    if bin.len() >= policy.min_files {
        return Verdict::Now(bin, Why::Many);
    }
    if sum >= policy.target_bytes {
        return Verdict::Now(bin, Why::Whole);
    }
    let newest = bin.iter().map(|i| i.file.modification_ms).max().unwrap_or(0);
    let quiet_ms = i64::try_from(policy.quiet.as_millis()).unwrap_or(i64::MAX);
    let due = newest.saturating_add(quiet_ms);
    if now_ms >= due { Verdict::Now(bin, Why::Quiet) } else { Verdict::At(due) }
}

/// At least a whole target each, so that files which compress better together do not become small again.
fn outputs(items: &[&Item], policy: &Policy) -> usize {
    let bytes: u64 = items.iter().map(|i| i.file.size).sum();
    usize::try_from(bytes / policy.target_bytes.max(1)).unwrap_or(usize::MAX).max(1)
}

fn job(items: Vec<&Item>, policy: &Policy, why: Why) -> Job {
    let count = |what: &dyn Fn(&Item) -> bool| items.iter().filter(|i| what(i)).count();
    let unsorted = count(&|i| !i.file.sorted);
    let reason = Reason {
        small: count(&|i| policy.small(&i.file)),
        overlapped: count(&|i| !i.loose),
        unsorted,
        why: if unsorted > 0 { Why::Unsorted } else { why },
    };
    Job {
        day: items[0].file.day,
        outputs: outputs(&items, policy),
        files: items.into_iter().map(|i| i.file.clone()).collect(),
        reason,
    }
}

#[cfg(test)]
mod tests;
