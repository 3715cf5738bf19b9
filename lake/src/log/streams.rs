//! How far each source stream of a table had been read at a version: `txn` actions for the offsets, which change with every archive,
//! and keys of the table's configuration for what a stream is, which hardly ever does. Both survive checkpoints and rewrites. Pure.

use std::collections::HashMap;

use deltalake_core::kernel::{Action, Metadata, MetadataExt, Transaction};

use crate::Result;

/// What the `txn` application of a stream begins with; its number follows.
const APP_STREAM: &str = "watershed/stream/";
/// What the configuration key of a stream begins with.
const KEY: &str = "watershed.stream.";

/// A source stream as an archive's snapshot saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEnd {
    /// Its number: `_stream` of its rows.
    pub id: i32,
    /// The offset after the last one whose rows are in this version or were dealt with otherwise.
    pub next_offset: i64,
    /// What it takes to register it again, as JSON: the columns of its row in `watershed_control.streams`.
    pub about: String,
}

/// The actions that bring `txns` and `metadata` to `ends`. A position never falls.
pub(super) fn actions(
    ends: &[StreamEnd],
    txns: &HashMap<String, i64>,
    metadata: &Metadata,
) -> Result<Vec<Action>> {
    let mut actions = Vec::new();
    let mut described = metadata.clone();
    let mut changed = false;
    for end in ends {
        let app = format!("{APP_STREAM}{}", end.id);
        if txns.get(&app).is_none_or(|known| *known < end.next_offset) {
            actions.push(Action::Txn(Transaction::new(app, end.next_offset)));
        }
        let key = format!("{KEY}{}", end.id);
        if described.configuration().get(&key) != Some(&end.about) {
            described = described.add_config_key(key, end.about.clone())?;
            changed = true;
        }
    }
    if changed {
        actions.push(Action::Metadata(described));
    }
    Ok(actions)
}

/// The streams that `txns` and `metadata` tell of, by number.
pub(super) fn ends(txns: &HashMap<String, i64>, metadata: &Metadata) -> Vec<StreamEnd> {
    let mut ends: Vec<StreamEnd> = txns
        .iter()
        .filter_map(|(app, next_offset)| {
            let id = app.strip_prefix(APP_STREAM)?.parse().ok()?;
            let about = metadata.configuration().get(&format!("{KEY}{id}")).cloned().unwrap_or_default();
            Some(StreamEnd { id, next_offset: *next_offset, about })
        })
        .collect();
    ends.sort_unstable_by_key(|e| e.id);
    ends
}
