//! The statistics of a file's columns by name, small: a table has one list of names for a hundred thousand files. Pure.

use std::fmt;
use std::sync::Arc;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ColumnStats;

type Sorted = Arc<Vec<Box<str>>>;

/// Statistics by the lake name of the column, in the order of the names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    names: Sorted,
    stats: Vec<ColumnStats>,
}

impl Columns {
    /// What is known of the column; `None`: it is not in the file.
    pub fn get(&self, name: &str) -> Option<&ColumnStats> {
        self.stats.get(self.position(name).ok()?)
    }

    /// Adds a column, or replaces what was known of it.
    pub fn insert(&mut self, name: String, stats: ColumnStats) {
        match self.position(&name) {
            Ok(at) => self.stats[at] = stats,
            Err(at) => {
                Arc::make_mut(&mut self.names).insert(at, name.into());
                self.stats.insert(at, stats);
            }
        }
    }

    pub fn len(&self) -> usize {
        self.stats.len()
    }

    pub fn is_empty(&self) -> bool {
        self.stats.is_empty()
    }

    /// By name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &ColumnStats)> + Clone {
        self.names.iter().map(|n| &**n).zip(&self.stats)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut ColumnStats)> {
        self.names.iter().map(|n| &**n).zip(&mut self.stats)
    }

    pub(super) fn stats(&self) -> impl Iterator<Item = &ColumnStats> {
        self.stats.iter()
    }

    pub(super) fn stats_mut(&mut self) -> impl Iterator<Item = &mut ColumnStats> {
        self.stats.iter_mut()
    }

    pub(super) fn same_names(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.names, &other.names) || self.names == other.names
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.names.binary_search_by(|n| (**n).cmp(name))
    }
}

impl FromIterator<(String, ColumnStats)> for Columns {
    /// Of two with one name the later counts.
    fn from_iter<I: IntoIterator<Item = (String, ColumnStats)>>(columns: I) -> Self {
        let mut all: Vec<(String, ColumnStats)> = columns.into_iter().collect();
        let ordered = all.windows(2).all(|w| w[0].0 < w[1].0);
        if !ordered {
            all = all.into_iter().collect::<std::collections::BTreeMap<_, _>>().into_iter().collect();
        }
        let (names, stats): (Vec<Box<str>>, Vec<_>) = all.into_iter().map(|(n, s)| (n.into(), s)).unzip();
        Self { names: Arc::new(names), stats }
    }
}

impl Serialize for Columns {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Columns;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("columns by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Columns, A::Error> {
                let mut all = Vec::with_capacity(map.size_hint().unwrap_or(16));
                while let Some(one) = map.next_entry::<String, ColumnStats>()? {
                    all.push(one);
                }
                Ok(all.into_iter().collect())
            }
        }
        deserializer.deserialize_map(Map)
    }
}

/// The lists of names in use, so that files of the same columns share one.
#[derive(Debug, Default)]
pub struct Names(Vec<Sorted>);

/// Lists remembered: one for each shape that the table has had lately.
const SHAPES: usize = 16;

impl Names {
    /// Makes `columns` use a list that is there already, if its names are the same.
    pub fn share(&mut self, columns: &mut Columns) {
        match self.0.iter().find(|known| **known == columns.names) {
            Some(known) => columns.names = known.clone(),
            None => {
                if self.0.len() == SHAPES {
                    self.0.remove(0);
                }
                self.0.push(columns.names.clone());
            }
        }
    }
}
