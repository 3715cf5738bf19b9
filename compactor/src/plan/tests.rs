use std::collections::HashSet;

use lake::stats::{Bound, ColumnStats, FileStats};
use object_store::path::Path;
use proptest::prelude::*;

use super::*;

const MB: u64 = 1 << 20;

fn file(name: &str, day: i32, size: u64, first: i64, last: i64) -> Arc<LakeFile> {
    let bounds = ColumnStats {
        nulls: 0,
        min: Some(Bound::Int(first)),
        max: Some(Bound::Int(last)),
        exact: true,
        distinct: None,
        plain: false,
    };
    Arc::new(LakeFile {
        path: name.into(),
        location: Path::from(name),
        size,
        rows: size / 100 + 1,
        day,
        modification_ms: 0,
        sorted: true,
        stats: FileStats { rows: size / 100 + 1, columns: [("ts".to_owned(), bounds)].into_iter().collect() },
    })
}

fn version(files: Vec<Arc<LakeFile>>) -> LakeVersion {
    LakeVersion {
        version: 1,
        archive: 1,
        rows: files.iter().map(|f| f.rows).sum(),
        bytes: files.iter().map(|f| f.size).sum(),
        files: files.into_iter().collect(),
    }
}

fn range(file: &LakeFile) -> (i64, i64) {
    file.range("ts")
}

fn jobs(version: &LakeVersion, policy: &Policy, now_ms: i64) -> Vec<Job> {
    plan(version, "ts", policy, now_ms).jobs
}

fn policy() -> Policy {
    Policy::new(100 * MB)
}

fn names(job: &Job) -> Vec<&str> {
    job.files.iter().map(|f| f.path.as_str()).collect()
}

#[test]
fn nothing_to_do() {
    let eager = policy().fully();
    assert_eq!(plan(&version(vec![]), "ts", &eager, 0), Plan::default());
    // One file a day, however small.
    let one_a_day = version((0..50).map(|d| file(&format!("f{d}"), d, MB, 0, 9)).collect());
    assert_eq!(jobs(&one_a_day, &eager, 0), []);
    // Large files that touch at most.
    let good = version(vec![
        file("a", 0, 90 * MB, 0, 5),
        file("b", 0, 200 * MB, 5, 9),
        file("c", 0, 60 * MB, 10, 11),
    ]);
    assert_eq!(jobs(&good, &eager, i64::MAX), []);
}

#[test]
fn small_neighbours_are_merged_and_good_files_left_alone() {
    let v = version(vec![
        file("a", 0, 10 * MB, 0, 1),
        file("b", 0, 10 * MB, 1, 2),
        file("good", 0, 90 * MB, 3, 4),
        file("c", 0, 10 * MB, 5, 6),
        file("d", 0, 12 * MB, 7, 8),
        file("e", 0, 11 * MB, 9, 9),
        file("other day", 1, 10 * MB, 0, 1),
    ]);
    let jobs = jobs(&v, &policy().eagerly(), 0);
    assert_eq!(jobs.iter().map(names).collect::<Vec<_>>(), [vec!["a", "b"], vec!["c", "d", "e"]]);
    assert_eq!(jobs[1].reason, Reason { small: 3, overlapped: 0, unsorted: 0, why: Why::Asked });
    assert_eq!(jobs[1].reason.to_string(), "3 small: asked for");
    assert_eq!(jobs[1].outputs, 1);
}

#[test]
fn large_files_that_share_their_time_become_neighbours() {
    let v = version(vec![
        file("a", 0, 150 * MB, 0, 10),
        file("b", 0, 150 * MB, 5, 15),
        file("c", 0, 150 * MB, 12, 20),
        file("far", 0, 150 * MB, 20, 30),
    ]);
    let found = jobs(&v, &policy(), 0);
    assert_eq!(found.iter().map(names).collect::<Vec<_>>(), [vec!["a", "b", "c"]]);
    assert_eq!((found[0].outputs, found[0].reason.why), (4, Why::Overlap));
    // A few rows in common are not worth two files.
    let v = version(vec![file("a", 0, 150 * MB, 0, 100), file("b", 0, 150 * MB, 99, 200)]);
    assert_eq!(jobs(&v, &policy().eagerly(), i64::MAX), []);
    assert_eq!(jobs(&v, &policy().fully(), 0).len(), 1);
}

#[test]
fn an_unsorted_file_is_rewritten_alone() {
    let mut f = (*file("a", 0, 150 * MB, 0, 10)).clone();
    f.sorted = false;
    let jobs = jobs(&version(vec![Arc::new(f)]), &policy(), 0);
    assert_eq!(jobs.len(), 1);
    assert_eq!(jobs[0].reason.to_string(), "1 unsorted: rows out of order cost every reader");
}

#[test]
fn a_large_file_is_not_rewritten_for_a_trickle() {
    let late = version(vec![file("big", 0, 200 * MB, 0, 100), file("late", 0, MB, 50, 60)]);
    assert_eq!(jobs(&late, &policy(), 1000), []);
    assert_eq!(jobs(&late, &policy(), 600_000), []);
    assert_eq!(jobs(&late, &policy().eagerly(), 0), []);
    assert_eq!(jobs(&late, &policy().fully(), 0).len(), 1);
    // Many of them become one; only when they weigh something does the large file take part.
    let mut files = vec![file("big", 0, 200 * MB, 0, 100)];
    files.extend((0..8).map(|i| file(&format!("late{i}"), 0, MB, 50, 60)));
    let found = jobs(&version(files), &policy(), 1000);
    assert_eq!((found.len(), found[0].files.len(), found[0].reason.why), (1, 8, Why::Many));
    let heavy = version(vec![file("big", 0, 180 * MB, 0, 100), file("late", 0, 45 * MB, 50, 60)]);
    let found = jobs(&heavy, &policy(), 1000);
    assert_eq!((found.len(), found[0].files.len(), found[0].reason.why), (1, 2, Why::Late));
}

#[test]
fn late_rows_do_not_rewrite_a_whole_date() {
    let mut files: Vec<_> =
        (0..20).map(|i| file(&format!("f{i:02}"), 0, 100 * MB, i * 100, i * 100 + 99)).collect();
    files.push(file("of one hour", 0, 30 * MB, 702, 795));
    files.push(file("of the whole day", 0, MB, 0, 1999));
    let found = jobs(&version(files.clone()), &policy().eagerly(), 0);
    assert_eq!(found.iter().map(names).collect::<Vec<_>>(), [vec!["f07", "of one hour"]]);
    // What is late all over the day waits until it weighs something against all of it.
    files.extend((0..9).map(|i| file(&format!("again {i}"), 0, 40 * MB, 0, 1999)));
    let found = jobs(&version(files.clone()), &policy(), 0);
    assert!(found.iter().all(|j| j.files.len() <= 10), "{found:?}");
    files.extend((0..9).map(|i| file(&format!("and again {i}"), 0, 40 * MB, 0, 1999)));
    assert_eq!(jobs(&version(files), &policy(), 0)[0].files.len(), 40);
}

#[test]
fn a_quiet_day_is_due_later() {
    let v = version(vec![file("a", 0, MB, 0, 5), file("b", 0, MB, 3, 9), file("c", 1, MB, 0, 1)]);
    assert_eq!(plan(&v, "ts", &policy(), 1000), Plan { jobs: vec![], next_ms: Some(600_000) });
    let found = plan(&v, "ts", &policy(), 600_000);
    assert_eq!((found.jobs.len(), found.jobs[0].reason.why, found.next_ms), (1, Why::Quiet, None));
}

#[test]
fn files_without_bounds_are_rewritten_at_any_cost_only() {
    let mut f = (*file("unknown", 0, 150 * MB, 0, 0)).clone();
    f.stats.columns = Default::default();
    let v = version(vec![file("a", 0, 150 * MB, 3, 4), Arc::new(f), file("b", 0, 150 * MB, 8, 9)]);
    assert_eq!(jobs(&v, &policy(), 0), []);
    assert_eq!(jobs(&v, &policy().fully(), 0)[0].files.len(), 3);
}

#[test]
fn a_job_is_bounded() {
    let v = version((0..100).map(|i| file(&format!("f{i:03}"), 0, 40 * MB, i * 10, i * 10 + 5)).collect());
    let jobs = jobs(&v, &policy().eagerly(), 0);
    assert_eq!(jobs.len(), 10);
    assert!(jobs.iter().all(|j| j.bytes() == 400 * MB && j.outputs == 4));
}

/// The version after the jobs: each becomes `outputs` files that touch at most, `shrink` percent as large.
fn apply(v: &LakeVersion, jobs: &[Job], round: usize, shrink: u64, now_ms: i64) -> LakeVersion {
    let gone: HashSet<&str> = jobs.iter().flat_map(names).collect();
    let mut files: Vec<_> = v.files.iter().filter(|f| !gone.contains(f.path.as_str())).cloned().collect();
    for (n, job) in jobs.iter().enumerate() {
        let first = job.files.iter().map(|f| range(f).0).min().unwrap();
        let last = job.files.iter().map(|f| range(f).1).max().unwrap();
        let (outputs, bytes) = (job.outputs as i64, job.bytes() * shrink / 100);
        for i in 0..outputs {
            let (from, to) =
                (first + (last - first) * i / outputs, first + (last - first) * (i + 1) / outputs);
            let mut f =
                (*file(&format!("r{round}j{n}o{i}"), job.day, bytes / outputs as u64, from, to)).clone();
            f.rows = 1;
            f.modification_ms = now_ms;
            files.push(Arc::new(f));
        }
    }
    version(files)
}

/// However late rows trickle into an old date, a byte of them costs a bounded number of bytes written, and the date stays in order.
#[test]
fn late_rows_cost_a_bounded_amount() {
    for (spread, megabytes) in [(1999, 1), (1999, 7), (60, 1), (300, 5), (1, 1)] {
        let mut v = version(
            (0..20).map(|i| file(&format!("f{i:02}"), 0, 100 * MB, i * 100, i * 100 + 100)).collect(),
        );
        let (mut late, mut written, mut most) = (0, 0, 0);
        let mut at = 17i64;
        for n in 0..2000usize {
            let now = n as i64 * 300_000;
            at = (at * 31 + 7) % (2000 - spread);
            let mut f = (*file(&format!("late{n}"), 0, megabytes * MB, at, at + spread)).clone();
            f.modification_ms = now;
            late += f.size;
            let files = v.files.iter().cloned().chain([Arc::new(f)]).collect();
            v = version(files);
            let found = jobs(&v, &policy(), now);
            written += found.iter().map(Job::bytes).sum::<u64>();
            v = apply(&v, &found, n, 100, now);
            most = most.max(v.files.iter().filter(|f| f.size < 50 * MB).count());
        }
        let times = written as f64 / late as f64;
        assert!(times < 14.0, "{times:.1} bytes written a late byte, spread {spread}, {megabytes} MB each");
        assert!(most < 60, "{most} small files at a time, spread {spread}, {megabytes} MB each");
    }
}

fn files() -> impl Strategy<Value = Vec<Arc<LakeFile>>> {
    prop::collection::vec((0..4i32, 1..400u64, 0..1000i64, 0..300i64, prop::bool::weighted(0.95)), 0..60)
        .prop_map(|specs| {
            specs
                .into_iter()
                .enumerate()
                .map(|(n, (day, mb, first, length, sorted))| {
                    let mut f = (*file(&format!("f{n}"), day, mb * MB, first, first + length)).clone();
                    f.sorted = sorted;
                    Arc::new(f)
                })
                .collect()
        })
}

proptest! {
    #[test]
    fn jobs_are_sound(files in files(), now in 0..2_000_000i64, eager: bool, full: bool) {
        let v = version(files);
        let policy = Policy { eager, full, ..policy() };
        let mut seen = HashSet::new();
        let plan = plan(&v, "ts", &policy, now);
        prop_assert!(plan.next_ms.is_none_or(|next| next > now));
        for job in plan.jobs {
            prop_assert!(!job.files.is_empty());
            prop_assert!(job.files.len() > 1 || job.reason.unsorted == 1);
            prop_assert!(job.outputs >= 1 && job.outputs as u64 <= (job.bytes() / policy.target_bytes).max(1));
            for f in &job.files {
                prop_assert_eq!(f.day, job.day);
                prop_assert!(seen.insert(f.path.clone()), "{} is in two jobs", f.path);
                prop_assert!(v.files.iter().any(|g| g == f));
                // A good file is taken only if it overlaps another of the job.
                let overlaps = job.files.iter().any(|g| g.path != f.path && {
                    let ((a, b), (c, d)) = (range(f), range(g));
                    a < d && c < b
                });
                prop_assert!(f.size < policy.target_bytes.div_ceil(2) || !f.sorted || overlaps);
            }
        }
    }

    /// Doing what is planned comes to an end: no unsorted file, hardly any overlap of large ones, and none at all if cost is no matter.
    #[test]
    fn planning_comes_to_rest(files in files(), shrink in 20..110u64, full: bool) {
        let policy = Policy { full, ..policy().eagerly() };
        let mut v = version(files);
        for round in 0..12 {
            let found = jobs(&v, &policy, 0);
            if found.is_empty() {
                break;
            }
            v = apply(&v, &found, round, shrink, 0);
        }
        prop_assert_eq!(jobs(&v, &policy, 0), vec![]);
        let mut files: Vec<_> = v.files.iter().cloned().collect();
        files.sort_by_key(|f| (f.day, range(f)));
        prop_assert!(files.iter().all(|f| f.sorted));
        for pair in files.windows(2).filter(|w| full && w[0].day == w[1].day) {
            prop_assert!(range(&pair[0]).1 <= range(&pair[1]).0, "{:?}", v.files);
        }
    }
}
