use std::collections::{BTreeMap, HashSet};

use lake::stats::{ColumnStats, FileStats};
use object_store::path::Path;
use proptest::prelude::*;

use super::*;

const MB: u64 = 1 << 20;

fn file(name: &str, day: i32, size: u64, first: i64, last: i64) -> Arc<LakeFile> {
    let bounds =
        ColumnStats { nulls: 0, min: Some(Bound::Int(first)), max: Some(Bound::Int(last)), exact: true };
    Arc::new(LakeFile {
        path: name.into(),
        location: Path::from(name),
        size,
        rows: size / 100 + 1,
        day,
        modification_ms: 0,
        sorted: true,
        stats: FileStats { rows: size / 100 + 1, columns: BTreeMap::from([("ts".to_owned(), bounds)]) },
    })
}

fn version(mut files: Vec<Arc<LakeFile>>) -> LakeVersion {
    files.sort_by_key(|f| (f.day, range(f, "ts"), f.path.clone()));
    LakeVersion {
        version: 1,
        archive: 1,
        rows: files.iter().map(|f| f.rows).sum(),
        bytes: files.iter().map(|f| f.size).sum(),
        files: files.into(),
    }
}

fn policy() -> Policy {
    Policy::new(100 * MB)
}

fn names(job: &Job) -> Vec<&str> {
    job.files.iter().map(|f| f.path.as_str()).collect()
}

#[test]
fn nothing_to_do() {
    let eager = policy().eagerly();
    assert_eq!(plan(&version(vec![]), "ts", &eager, 0), []);
    // One file a day, however small.
    let one_a_day = version((0..50).map(|d| file(&format!("f{d}"), d, MB, 0, 9)).collect());
    assert_eq!(plan(&one_a_day, "ts", &eager, 0), []);
    // Large files that touch at most.
    let good = version(vec![
        file("a", 0, 90 * MB, 0, 5),
        file("b", 0, 200 * MB, 5, 9),
        file("c", 0, 60 * MB, 10, 11),
    ]);
    assert_eq!(plan(&good, "ts", &eager, i64::MAX), []);
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
    let jobs = plan(&v, "ts", &policy().eagerly(), 0);
    assert_eq!(jobs.iter().map(names).collect::<Vec<_>>(), [vec!["a", "b"], vec!["c", "d", "e"]]);
    assert_eq!(jobs[1].reason, Reason { small: 3, overlapping: 0, unsorted: 0 });
    assert_eq!(jobs[1].reason.to_string(), "3 small");
    assert_eq!(jobs[1].outputs, 1);
}

#[test]
fn overlapping_files_become_neighbours() {
    let v = version(vec![
        file("a", 0, 150 * MB, 0, 10),
        file("b", 0, 150 * MB, 5, 15),
        file("c", 0, 150 * MB, 14, 20),
        file("far", 0, 150 * MB, 20, 30),
    ]);
    let jobs = plan(&v, "ts", &policy().eagerly(), 0);
    assert_eq!(jobs.iter().map(names).collect::<Vec<_>>(), [vec!["a", "b", "c"]]);
    assert_eq!((jobs[0].outputs, jobs[0].reason.to_string()), (4, "3 overlapping".into()));
}

#[test]
fn an_unsorted_file_is_rewritten_alone() {
    let mut f = (*file("a", 0, 150 * MB, 0, 10)).clone();
    f.sorted = false;
    let jobs = plan(&version(vec![Arc::new(f)]), "ts", &policy(), 0);
    assert_eq!(jobs.len(), 1);
    assert_eq!(jobs[0].reason.to_string(), "1 unsorted");
}

#[test]
fn a_large_file_is_not_rewritten_for_a_trickle() {
    let late = version(vec![file("big", 0, 200 * MB, 0, 100), file("late", 0, MB, 50, 60)]);
    assert_eq!(plan(&late, "ts", &policy(), 1000), []);
    // Unless the day is quiet, or there are many, or they weigh something.
    assert_eq!(plan(&late, "ts", &policy(), 600_000).len(), 1);
    assert_eq!(plan(&late, "ts", &policy().eagerly(), 0).len(), 1);
    let mut files = vec![file("big", 0, 200 * MB, 0, 100)];
    files.extend((0..7).map(|i| file(&format!("late{i}"), 0, MB, 50, 60)));
    assert_eq!(plan(&version(files), "ts", &policy(), 1000).len(), 1);
    let heavy = version(vec![file("big", 0, 200 * MB, 0, 100), file("late", 0, 50 * MB, 50, 60)]);
    assert_eq!(plan(&heavy, "ts", &policy(), 1000).len(), 1);
}

#[test]
fn files_without_bounds_overlap_everything() {
    let mut f = (*file("unknown", 0, 150 * MB, 0, 0)).clone();
    f.stats.columns.clear();
    let v = version(vec![file("a", 0, 150 * MB, 3, 4), Arc::new(f), file("b", 0, 150 * MB, 8, 9)]);
    assert_eq!(plan(&v, "ts", &policy().eagerly(), 0)[0].files.len(), 3);
}

#[test]
fn a_job_is_bounded() {
    let v = version((0..100).map(|i| file(&format!("f{i:03}"), 0, 40 * MB, i * 10, i * 10 + 5)).collect());
    let jobs = plan(&v, "ts", &policy().eagerly(), 0);
    assert_eq!(jobs.len(), 10);
    assert!(jobs.iter().all(|j| j.bytes() == 400 * MB && j.outputs == 4));
}

/// The version after the jobs: each becomes `outputs` files that touch at most, `shrink` percent as large.
fn apply(v: &LakeVersion, jobs: &[Job], round: usize, shrink: u64) -> LakeVersion {
    let gone: HashSet<&str> = jobs.iter().flat_map(names).collect();
    let mut files: Vec<_> = v.files.iter().filter(|f| !gone.contains(f.path.as_str())).cloned().collect();
    for (n, job) in jobs.iter().enumerate() {
        let first = job.files.iter().map(|f| range(f, "ts").0).min().unwrap();
        let last = job.files.iter().map(|f| range(f, "ts").1).max().unwrap();
        let (outputs, bytes) = (job.outputs as i64, job.bytes() * shrink / 100);
        for i in 0..outputs {
            let (from, to) =
                (first + (last - first) * i / outputs, first + (last - first) * (i + 1) / outputs);
            let mut f =
                (*file(&format!("r{round}j{n}o{i}"), job.day, bytes / outputs as u64, from, to)).clone();
            f.rows = 1;
            files.push(Arc::new(f));
        }
    }
    version(files)
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
    fn jobs_are_sound(files in files(), now in 0..2_000_000i64, eager: bool) {
        let v = version(files);
        let policy = Policy { eager, ..policy() };
        let mut seen = HashSet::new();
        for job in plan(&v, "ts", &policy, now) {
            prop_assert!(!job.files.is_empty());
            prop_assert!(job.files.len() > 1 || job.reason.unsorted == 1);
            prop_assert!(job.outputs >= 1 && job.outputs as u64 <= (job.bytes() / policy.target_bytes).max(1));
            for f in &job.files {
                prop_assert_eq!(f.day, job.day);
                prop_assert!(seen.insert(f.path.clone()), "{} is in two jobs", f.path);
                prop_assert!(v.files.contains(f));
                // A good file is taken only if it overlaps another of the job.
                let overlaps = job.files.iter().any(|g| g.path != f.path && {
                    let ((a, b), (c, d)) = (range(f, "ts"), range(g, "ts"));
                    (a < d && c < b) || (a, b) == (c, d) || (a < c && d < b) || (c <= a && b <= d)
                });
                prop_assert!(f.size < policy.target_bytes.div_ceil(2) || !f.sorted || overlaps);
            }
        }
    }

    /// Doing what is planned comes to an end, with files that are sorted and touch at most.
    #[test]
    fn eager_planning_comes_to_rest(files in files(), shrink in 20..110u64) {
        let policy = policy().eagerly();
        let mut v = version(files);
        for round in 0..8 {
            let jobs = plan(&v, "ts", &policy, 0);
            if jobs.is_empty() {
                break;
            }
            v = apply(&v, &jobs, round, shrink);
        }
        prop_assert_eq!(plan(&v, "ts", &policy, 0), vec![]);
        for day in v.files.chunk_by(|a, b| a.day == b.day) {
            prop_assert!(day.iter().all(|f| f.sorted));
            for pair in day.windows(2) {
                prop_assert!(range(&pair[0], "ts").1 <= range(&pair[1], "ts").0);
            }
        }
    }
}
