//! Which files to rewrite, and why. Pure: a version, a policy and the time in, jobs out.
//!
//! Within a day, files whose event times overlap form *clusters*; a file alone in its cluster, sorted and not small, is *settled* and
//! is never touched. The clusters between settled files are gathered into jobs. A job is worth its bytes if it has many files, if its
//! smaller files weigh something against its largest (so a row is rewritten a logarithmic number of times, whatever trickles in), or
//! if the day has gone quiet.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lake::log::{LakeFile, LakeVersion};
use lake::stats::Bound;

/// What is worth rewriting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Bytes that a file should have. Files below half of it are small.
    pub target_bytes: u64,
    /// This many files are always worth a job.
    pub min_files: usize,
    /// So are files that together have at least one n-th of the bytes of the job's largest.
    pub growth: u64,
    /// So is anything in files that are all older than this.
    pub quiet: Duration,
    /// A job takes no further files once it has this many bytes. Files that overlap stay together, whatever they weigh.
    pub max_job_bytes: u64,
    /// Do whatever makes the lake better, at once.
    pub eager: bool,
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
        }
    }

    /// The same, doing everything that helps.
    pub fn eagerly(mut self) -> Self {
        self.eager = true;
        self
    }
}

/// Why a job was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    /// Files below half the target.
    pub small: usize,
    /// Files that overlap another in event time.
    pub overlapping: usize,
    /// Files whose rows are not in order.
    pub unsorted: usize,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for (n, what) in
            [(self.small, "small"), (self.overlapping, "overlapping"), (self.unsorted, "unsorted")]
        {
            if n > 0 {
                write!(f, "{comma}{n} {what}")?;
                comma = ", ";
            }
        }
        Ok(())
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

/// First and last event time of a file, in the unit of its column; everything, where the log does not say.
pub fn range(file: &LakeFile, event: &str) -> (i64, i64) {
    let bound = |b: Option<&Bound>, otherwise| match b {
        Some(Bound::Int(v)) => *v,
        _ => otherwise,
    };
    let column = file.column(event);
    (
        bound(column.and_then(|c| c.min.as_ref()), i64::MIN),
        bound(column.and_then(|c| c.max.as_ref()), i64::MAX),
    )
}

/// The jobs worth doing in `version`, by day. `event` is the lake name of the event time, `now_ms` milliseconds since 1970.
///
/// No file is in two jobs, and the jobs of a day may be done in any order.
pub fn plan(version: &LakeVersion, event: &str, policy: &Policy, now_ms: i64) -> Vec<Job> {
    let mut jobs = Vec::new();
    for files in version.files.chunk_by(|a, b| a.day == b.day) {
        for bin in bins(clusters(files, event), policy) {
            jobs.extend(job(bin, policy, now_ms));
        }
    }
    jobs
}

/// Files that overlap one another, directly or through others.
struct Cluster {
    files: Vec<Arc<LakeFile>>,
    bytes: u64,
}

impl Cluster {
    fn settled(&self, policy: &Policy) -> bool {
        matches!(self.files.as_slice(), [one] if one.sorted && !small(one, policy))
    }
}

fn small(file: &LakeFile, policy: &Policy) -> bool {
    file.size < policy.target_bytes.div_ceil(2)
}

fn clusters(files: &[Arc<LakeFile>], event: &str) -> Vec<Cluster> {
    let mut ordered: Vec<_> = files.iter().map(|f| (range(f, event), f)).collect();
    ordered.sort_by(|(a, f), (b, g)| a.cmp(b).then_with(|| f.path.cmp(&g.path)));
    let mut clusters: Vec<(i64, Cluster)> = Vec::new();
    for ((first, last), file) in ordered {
        match clusters.last_mut() {
            // Files that only touch are in order already.
            Some((end, cluster)) if first < *end => {
                *end = (*end).max(last);
                cluster.bytes = cluster.bytes.saturating_add(file.size);
                cluster.files.push(file.clone());
            }
            _ => clusters.push((last, Cluster { files: vec![file.clone()], bytes: file.size })),
        }
    }
    clusters.into_iter().map(|(_, cluster)| cluster).collect()
}

/// Neighbouring clusters that may become one job.
fn bins(clusters: Vec<Cluster>, policy: &Policy) -> Vec<Vec<Cluster>> {
    let mut bins = Vec::new();
    let mut open: Vec<Cluster> = Vec::new();
    let mut bytes = 0u64;
    for cluster in clusters {
        let settled = cluster.settled(policy);
        if settled || bytes >= policy.max_job_bytes {
            bins.extend((!open.is_empty()).then(|| std::mem::take(&mut open)));
            bytes = 0;
        }
        if !settled {
            bytes = bytes.saturating_add(cluster.bytes);
            open.push(cluster);
        }
    }
    bins.extend((!open.is_empty()).then_some(open));
    bins
}

fn job(bin: Vec<Cluster>, policy: &Policy, now_ms: i64) -> Option<Job> {
    let overlapping = bin.iter().filter(|c| c.files.len() > 1).map(|c| c.files.len()).sum();
    let files: Vec<_> = bin.into_iter().flat_map(|c| c.files).collect();
    let reason = Reason {
        small: files.iter().filter(|f| small(f, policy)).count(),
        overlapping,
        unsorted: files.iter().filter(|f| !f.sorted).count(),
    };
    let bytes: u64 = files.iter().map(|f| f.size).sum();
    // At least a whole target each, so that files which compress better together do not become small again.
    let outputs = usize::try_from(bytes / policy.target_bytes.max(1)).unwrap_or(usize::MAX).max(1);
    let better = reason.unsorted > 0 || reason.overlapping > 0 || outputs < files.len();
    if !better || (files.len() < 2 && reason.unsorted == 0) {
        return None;
    }
    let largest = files.iter().map(|f| f.size).max().unwrap_or(0);
    let newest = files.iter().map(|f| f.modification_ms).max().unwrap_or(0);
    let quiet_ms = i64::try_from(policy.quiet.as_millis()).unwrap_or(i64::MAX);
    let worth = policy.eager
        || reason.unsorted > 0
        || files.len() >= policy.min_files
        || (bytes - largest).saturating_mul(policy.growth) >= largest
        || now_ms.saturating_sub(newest) >= quiet_ms;
    worth.then(|| Job { day: files[0].day, files, outputs, reason })
}

#[cfg(test)]
mod tests;
