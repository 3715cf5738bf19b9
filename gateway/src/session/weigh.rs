//! What of a statement's tables the lake would read, for the choice by cost: by the files of the version at hand, before anything is pinned.
//! ✗ the choice.

use super::Session;
use super::bracket::Probed;
use crate::analyze::Shape;
use crate::classify::{Classified, Override};
use crate::cost::Extent;
use lake::log::LakeVersion;
use std::sync::Arc;

/// A table whose rows are surely so many that PostgreSQL's plan need not be asked, if all of them are wanted.
const SURELY_LARGE: u64 = 1_000_000;

/// One table of a statement.
pub(super) struct Source {
    version: Arc<LakeVersion>,
    columns: u64,
}

impl Source {
    /// Of the files that have rows from `from_us` on.
    pub(super) fn extent(&self, from_us: Option<i64>) -> Extent {
        let from = from_us.map(lake::types::partition_day);
        let mut extent = Extent { columns: self.columns, ..Extent::default() };
        for file in self.version.files.iter().filter(|f| from.is_none_or(|day| f.day >= day)) {
            extent.files += 1;
            extent.rows += file.rows;
        }
        extent
    }
}

impl Session {
    /// The tables of a statement whose route cost decides; `None` where it is decided already, or is plain.
    pub(super) fn extents(&self, probed: &Probed, statement: &Classified) -> Option<Vec<Source>> {
        let analysis = &probed.analysis;
        let open = self.shared.config.route_by_cost
            && probed.wanted == Override::Auto
            && statement.hint.is_none()
            && probed.turned.is_none()
            && probed.path == crate::query::record::Path::Lake
            && analysis.shape == Shape::Aggregate
            // PostgreSQL alone may lack rows.
            && !self.shared.catalog.current().has_floor;
        if !open {
            return None;
        }
        let sources: Option<Vec<Source>> = analysis
            .tables
            .iter()
            .map(|used| {
                let version = self.shared.engine.at_hand(used.relid)?;
                Some(Source { version, columns: used.attnums.len() as u64 })
            })
            .collect();
        let sources = sources?;
        let plain = !analysis.narrows() && sources.iter().any(|s| s.version.rows > SURELY_LARGE);
        (!plain).then_some(sources)
    }
}
