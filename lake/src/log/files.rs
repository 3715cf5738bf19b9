//! The files of a version as a persistent sequence: versions share what did not change between them, so that following the log costs
//! the change and holding a version costs nothing. Pure.
//!
//! Files stand by day, then by least event time, then by path, cut into *parts* of a few hundred neighbours. A part knows the
//! statistics of all its files together, and finding the files that may matter asks the parts first.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Index;
use std::sync::{Arc, OnceLock, Weak};

use super::LakeFile;
use crate::stats::FileStats;

/// Files of a part when it is made.
const PART_FILES: usize = 256;
/// A part with more is cut in two.
const PART_MOST: usize = 2 * PART_FILES;
/// Neighbours that have no more together become one.
const PART_LEAST: usize = PART_FILES / 2;

/// Some neighbouring files.
#[derive(Debug)]
pub struct Part {
    files: Vec<Arc<LakeFile>>,
    /// First and last event time of each.
    ranges: Vec<(i64, i64)>,
    /// Of all: asked for often, made when first asked for.
    summary: OnceLock<FileStats>,
    span: OnceLock<(i64, i64)>,
}

impl Clone for Part {
    /// For a change: what is known of the whole is not taken along.
    fn clone(&self) -> Self {
        Self::new(self.files.clone(), self.ranges.clone())
    }
}

impl Part {
    fn new(files: Vec<Arc<LakeFile>>, ranges: Vec<(i64, i64)>) -> Self {
        Self { files, ranges, summary: OnceLock::new(), span: OnceLock::new() }
    }

    pub fn files(&self) -> &[Arc<LakeFile>] {
        &self.files
    }

    /// The statistics of the rows of all files.
    pub fn summary(&self) -> &FileStats {
        self.summary.get_or_init(|| summary(&self.files))
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.size).sum()
    }

    /// First and last event time of all files.
    fn span(&self) -> (i64, i64) {
        *self.span.get_or_init(|| {
            self.ranges.iter().fold((i64::MAX, i64::MIN), |(low, high), (a, b)| (low.min(*a), high.max(*b)))
        })
    }

    fn key(&self, at: usize) -> Key<'_> {
        (self.files[at].day, self.ranges[at].0, self.files[at].path.as_str())
    }

    fn position(&self, key: &Key<'_>) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.files.len());
        while low < high {
            let middle = (low + high) / 2;
            match self.key(middle).cmp(key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    fn changed(&mut self) {
        self.summary = OnceLock::new();
        self.span = OnceLock::new();
    }
}

/// Day, least event time, path.
type Key<'a> = (i32, i64, &'a str);

/// The statistics of the rows of several files.
fn summary(files: &[Arc<LakeFile>]) -> FileStats {
    let mut all = FileStats::default();
    for file in files {
        all.merge(&file.stats);
    }
    all
}

/// The files of one version. A clone is another hold on the same.
#[derive(Clone)]
pub struct Files(Arc<Root>);

struct Root {
    parts: Vec<Arc<Part>>,
    /// How many files lie before each part.
    before: Vec<usize>,
    len: usize,
    summary: OnceLock<Arc<FileStats>>,
}

impl Files {
    /// No files.
    pub fn new() -> Self {
        Self::of(Vec::new())
    }

    fn of(parts: Vec<Arc<Part>>) -> Self {
        let mut len = 0;
        let before = parts
            .iter()
            .map(|p| {
                let here = len;
                len += p.files.len();
                here
            })
            .collect();
        Self(Arc::new(Root { parts, before, len, summary: OnceLock::new() }))
    }

    pub fn len(&self) -> usize {
        self.0.len
    }

    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// Every file, in order.
    pub fn iter(&self) -> Iter<'_> {
        Iter { parts: self.0.parts.iter(), files: [].iter(), left: self.0.len }
    }

    pub fn get(&self, index: usize) -> Option<&Arc<LakeFile>> {
        if index >= self.0.len {
            return None;
        }
        let part = self.0.before.partition_point(|n| *n <= index).checked_sub(1)?;
        self.0.parts.get(part)?.files.get(index - self.0.before[part])
    }

    pub fn first(&self) -> Option<&Arc<LakeFile>> {
        self.get(0)
    }

    pub fn last(&self) -> Option<&Arc<LakeFile>> {
        self.get(self.0.len.checked_sub(1)?)
    }

    /// The parts, in order.
    pub fn parts(&self) -> &[Arc<Part>] {
        &self.0.parts
    }

    /// The files for which `may` is true, in order. `may` is asked of the statistics of many files at once and must then be true if it
    /// is true for one of them: whatever it concludes from bounds and counts of NULLs does that.
    pub fn prune(&self, may: impl Fn(&FileStats) -> bool) -> Vec<Arc<LakeFile>> {
        let mut found = Vec::new();
        for part in self.0.parts.iter().filter(|p| may(p.summary())) {
            found.extend(part.files.iter().filter(|f| may(&f.stats)).cloned());
        }
        found
    }

    /// The files that may have rows of event times from `low` to `high`, both included, in order.
    pub fn between(&self, low: i64, high: i64) -> Vec<Arc<LakeFile>> {
        let meets = |(first, last): (i64, i64)| first <= high && last >= low;
        let mut found = Vec::new();
        for part in self.0.parts.iter().filter(|p| meets(p.span())) {
            let files = part.files.iter().zip(&part.ranges);
            found.extend(files.filter(|(_, range)| meets(**range)).map(|(f, _)| f.clone()));
        }
        found
    }

    /// The files of `day` (days since 1970-01-01) and later.
    pub fn since(&self, day: i32) -> Self {
        let Some(at) = self.0.parts.iter().position(|p| p.files.last().is_some_and(|f| f.day >= day)) else {
            return Self::new();
        };
        let mut parts = self.0.parts[at..].to_vec();
        let first = parts[0].files.partition_point(|f| f.day < day);
        if first == 0 && at == 0 {
            return self.clone();
        }
        if first > 0 {
            let (files, ranges) = (parts[0].files[first..].to_vec(), parts[0].ranges[first..].to_vec());
            parts[0] = Arc::new(Part::new(files, ranges));
        }
        Self::of(parts)
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.0.parts.iter().map(|p| p.bytes()).sum()
    }

    /// The statistics of all rows of the version.
    pub fn summary(&self) -> Arc<FileStats> {
        let make = || {
            let mut all = FileStats::default();
            for part in &self.0.parts {
                all.merge(part.summary());
            }
            Arc::new(all)
        };
        self.0.summary.get_or_init(make).clone()
    }

    /// Tells later whether somebody still holds these files.
    pub fn watch(&self) -> Watch {
        Watch(Arc::downgrade(&self.0))
    }
}

impl Default for Files {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|file| &file.path)).finish()
    }
}

impl PartialEq for Files {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Index<usize> for Files {
    type Output = Arc<LakeFile>;

    fn index(&self, index: usize) -> &Arc<LakeFile> {
        match self.get(index) {
            Some(file) => file,
            None => panic!("file {index} of {}", self.len()),
        }
    }
}

impl<'a> IntoIterator for &'a Files {
    type Item = &'a Arc<LakeFile>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl FromIterator<Arc<LakeFile>> for Files {
    /// Files of a table whose event time is not told: they are ordered by day and path.
    fn from_iter<I: IntoIterator<Item = Arc<LakeFile>>>(files: I) -> Self {
        FileSet::new("", files).freeze()
    }
}

/// See [`Files::iter`].
#[derive(Clone)]
pub struct Iter<'a> {
    parts: std::slice::Iter<'a, Arc<Part>>,
    files: std::slice::Iter<'a, Arc<LakeFile>>,
    left: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a Arc<LakeFile>;

    fn next(&mut self) -> Option<&'a Arc<LakeFile>> {
        loop {
            if let Some(file) = self.files.next() {
                self.left -= 1;
                return Some(file);
            }
            self.files = self.parts.next()?.files.iter();
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Iter<'_> {}

/// Whether the files of a version are still held; see [`Files::watch`].
#[derive(Clone)]
pub struct Watch(Weak<Root>);

impl Watch {
    pub fn is_held(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watch({})", self.is_held())
    }
}

/// A file that is found by its path.
#[derive(Debug)]
struct ByPath(Arc<LakeFile>);

impl Hash for ByPath {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.path.as_str().hash(state);
    }
}

impl PartialEq for ByPath {
    fn eq(&self, other: &Self) -> bool {
        self.0.path == other.0.path
    }
}

impl Eq for ByPath {}

impl Borrow<str> for ByPath {
    fn borrow(&self) -> &str {
        &self.0.path
    }
}

/// The files of the version that is followed: changed in place, where no version shares them.
#[derive(Debug)]
pub(super) struct FileSet {
    /// Lake name of the event time.
    event: String,
    parts: Vec<Arc<Part>>,
    by_path: HashSet<ByPath>,
    rows: u64,
    bytes: u64,
}

impl FileSet {
    /// The given files; of two with one path the later counts.
    pub fn new(event: &str, files: impl IntoIterator<Item = Arc<LakeFile>>) -> Self {
        let mut by_path = HashSet::new();
        for file in files {
            by_path.replace(ByPath(file));
        }
        let mut ordered: Vec<((i64, i64), Arc<LakeFile>)> =
            by_path.iter().map(|f| (f.0.range(event), f.0.clone())).collect();
        ordered.sort_unstable_by(|(a, f), (b, g)| (f.day, a.0, &f.path).cmp(&(g.day, b.0, &g.path)));
        let rows = ordered.iter().map(|(_, f)| f.rows).sum();
        let bytes = ordered.iter().map(|(_, f)| f.size).sum();
        let parts = ordered
            .chunks(PART_FILES)
            .map(|some| {
                let (ranges, files) = some.iter().cloned().unzip();
                Arc::new(Part::new(files, ranges))
            })
            .collect();
        Self { event: event.to_owned(), parts, by_path, rows, bytes }
    }

    pub fn contains(&self, path: &str) -> bool {
        self.by_path.contains(path)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<LakeFile>> {
        self.parts.iter().flat_map(|p| p.files.iter())
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The version as it is now.
    pub fn freeze(&self) -> Files {
        Files::of(self.parts.clone())
    }

    pub fn remove(&mut self, path: &str) {
        let Some(ByPath(file)) = self.by_path.take(path) else { return };
        self.rows -= file.rows;
        self.bytes -= file.size;
        let key: Key<'_> = (file.day, file.range(&self.event).0, file.path.as_str());
        let at = self.part_of(&key);
        let Some(part) = self.parts.get_mut(at) else { return };
        let part = Arc::make_mut(part);
        if let Ok(position) = part.position(&key) {
            part.files.remove(position);
            part.ranges.remove(position);
            part.changed();
        }
        if part.files.is_empty() {
            self.parts.remove(at);
        }
    }

    pub fn insert(&mut self, file: Arc<LakeFile>) {
        self.remove(&file.path);
        self.rows += file.rows;
        self.bytes += file.size;
        self.by_path.insert(ByPath(file.clone()));
        let range = file.range(&self.event);
        let at = self.part_of(&(file.day, range.0, file.path.as_str()));
        let Some(part) = self.parts.get_mut(at) else {
            self.parts.push(Arc::new(Part::new(vec![file], vec![range])));
            return;
        };
        let part = Arc::make_mut(part);
        let position = part.position(&(file.day, range.0, file.path.as_str())).unwrap_or_else(|p| p);
        part.files.insert(position, file);
        part.ranges.insert(position, range);
        part.changed();
        if part.files.len() > PART_MOST {
            let (files, ranges) = (part.files.split_off(PART_FILES), part.ranges.split_off(PART_FILES));
            self.parts.insert(at + 1, Arc::new(Part::new(files, ranges)));
        }
    }

    /// Joins parts that have become small; to be called after many changes, and cheap.
    pub fn tidy(&mut self) {
        let mut at = 0;
        while at + 1 < self.parts.len() {
            if self.parts[at].files.len() + self.parts[at + 1].files.len() > PART_LEAST {
                at += 1;
                continue;
            }
            let next = self.parts.remove(at + 1);
            let part = Arc::make_mut(&mut self.parts[at]);
            part.files.extend(next.files.iter().cloned());
            part.ranges.extend(next.ranges.iter().copied());
            part.changed();
        }
    }

    /// The part that a file with this key is in, or would be in: the last that does not begin after it.
    fn part_of(&self, key: &Key<'_>) -> usize {
        self.parts.partition_point(|p| p.key(0) <= *key).saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stats::{Bound, ColumnStats};

    fn file(path: &str, day: i32, first: i64, last: i64) -> Arc<LakeFile> {
        let bounds = ColumnStats {
            nulls: 1,
            min: Some(Bound::Int(first)),
            max: Some(Bound::Int(last)),
            exact: true,
            distinct: None,
            plain: false,
        };
        let stats = FileStats { rows: 10, columns: [("ts".to_owned(), bounds)].into_iter().collect() };
        Arc::new(LakeFile {
            path: path.into(),
            location: object_store::path::Path::from(path),
            size: 7,
            rows: 10,
            day,
            modification_ms: 0,
            sorted: true,
            stats,
        })
    }

    fn check(set: &FileSet, model: &std::collections::BTreeMap<String, Arc<LakeFile>>) {
        let files = set.freeze();
        let mut expected: Vec<_> = model.values().cloned().collect();
        expected.sort_by_key(|f| (f.day, f.range("ts").0, f.path.clone()));
        assert_eq!(files.iter().cloned().collect::<Vec<_>>(), expected);
        assert_eq!(files.len(), expected.len());
        assert_eq!((set.rows(), set.bytes()), (10 * expected.len() as u64, 7 * expected.len() as u64));
        for (i, f) in expected.iter().enumerate() {
            assert_eq!(files.get(i), Some(f));
        }
        assert_eq!(files.get(expected.len()), None);
        assert!(files.parts().iter().all(|p| !p.files().is_empty() && p.files().len() <= PART_MOST));
        let summary = files.summary();
        assert_eq!(summary.rows, set.rows());
        let ts = summary.columns.get("ts");
        assert_eq!(ts.and_then(|c| c.min.clone()), expected.iter().map(|f| Bound::Int(f.range("ts").0)).min_by(|a, b| a.partial_cmp(b).unwrap()));
        for day in [-1, 0, 3, 5, 9, 10] {
            let wanted: Vec<_> = expected.iter().filter(|f| f.day >= day).cloned().collect();
            let since = files.since(day);
            assert_eq!(since.iter().cloned().collect::<Vec<_>>(), wanted);
            assert_eq!((since.summary().rows, since.bytes()), (10 * wanted.len() as u64, 7 * wanted.len() as u64));
        }
        for (low, high) in [(0, 100), (300, 300), (-5, -1), (250, 800)] {
            let wanted: Vec<_> =
                expected.iter().filter(|f| f.range("ts").0 <= high && f.range("ts").1 >= low).cloned().collect();
            assert_eq!(files.between(low, high), wanted);
            let may = |s: &FileStats| {
                let c = s.columns.get("ts").unwrap();
                c.min <= Some(Bound::Int(high)) && c.max >= Some(Bound::Int(low))
            };
            assert_eq!(files.prune(may), wanted);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn it_is_a_sorted_map_and_versions_stay(seed in any::<u64>(), at_first in 0usize..1500, steps in 1usize..8) {
            let mut state = seed;
            let mut random = move |n: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % n
            };
            let make = |n: usize, random: &mut dyn FnMut(u64) -> u64| {
                let first = random(1000) as i64;
                file(&format!("f{n}"), (first / 100) as i32, first, first + random(50) as i64)
            };
            let mut model = std::collections::BTreeMap::new();
            for n in 0..at_first {
                let f = make(n, &mut random);
                model.insert(f.path.clone(), f);
            }
            let mut set = FileSet::new("ts", model.values().cloned());
            check(&set, &model);
            for step in 0..steps {
                let (before, files) = (model.values().cloned().collect::<Vec<_>>(), set.freeze());
                for n in 0..random(400) as usize {
                    if random(2) == 0 && !model.is_empty() {
                        let path = model.keys().nth(random(model.len() as u64) as usize).unwrap().clone();
                        model.remove(&path);
                        set.remove(&path);
                    } else {
                        let f = make(10_000 * (step + 1) + n, &mut random);
                        model.insert(f.path.clone(), f.clone());
                        set.insert(f);
                    }
                }
                if random(3) == 0 {
                    for path in model.keys().filter(|p| p.len() % 2 == 0).cloned().collect::<Vec<_>>() {
                        model.remove(&path);
                        set.remove(&path);
                    }
                }
                set.tidy();
                check(&set, &model);
                let mut still: Vec<_> = files.iter().cloned().collect();
                still.sort_by(|a, b| a.path.cmp(&b.path));
                prop_assert_eq!(still, before);
            }
        }
    }

    #[test]
    fn what_did_not_change_is_shared() {
        let mut set = FileSet::new("ts", (0..10_000).map(|i| file(&format!("{i:05}"), i / 100, i64::from(i), i64::from(i))));
        let before = set.freeze();
        let watch = before.watch();
        set.insert(file("new", 50, 5_000, 5_001));
        set.remove("09999");
        let after = set.freeze();
        let shared = after.parts().iter().filter(|p| before.parts().iter().any(|q| Arc::ptr_eq(p, q))).count();
        assert_eq!((after.parts().len() - shared, after.len()), (2, 10_000));
        assert!(watch.is_held());
        drop(before);
        assert!(!watch.is_held());
    }
}
