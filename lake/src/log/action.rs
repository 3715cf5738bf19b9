//! Delta's actions to and from ours: files, schema, protocol. Pure.

use std::collections::HashMap;

use deltalake_core::kernel::{
    Add, DataType, Metadata, Protocol, Remove, StructField, StructType, new_metadata,
};
use object_store::path::Path;

use super::{LakeFile, NewFile, TAG_SORTED};
use crate::spec::TableSpec;
use crate::stats::{self, FileStats};
use crate::types::{self, ColType};
use crate::{Error, Result};

/// Table features beyond the oldest protocol that we write ourselves.
const NTZ: &str = "timestampNtz";
/// Features that ask nothing of a reader or writer like us: no invariants are declared, nothing is deleted.
const HARMLESS: [&str; 2] = ["appendOnly", "invariants"];

pub(super) fn add(new: &NewFile, spec: &TableSpec, data_change: bool) -> Add {
    let file = &new.file;
    let mut tags = HashMap::new();
    // Serializing plain maps of numbers and strings cannot fail; a file without the tag would be refused when read.
    tags.insert(stats::TAG.to_owned(), file.stats.to_tag().ok());
    if file.sorted
        && let Ok(event) = spec.event_column()
    {
        tags.insert(TAG_SORTED.to_owned(), Some(event.lake_name.clone()));
    }
    Add {
        path: file.path.clone(),
        partition_values: partition(file.day),
        size: file.size as i64,
        modification_time: file.modification_ms,
        data_change,
        stats: Some(new.delta_stats.clone()),
        tags: Some(tags),
        ..Add::default()
    }
}

pub(super) fn remove(file: &LakeFile, data_change: bool, now_ms: i64) -> Remove {
    Remove {
        path: file.path.clone(),
        data_change,
        deletion_timestamp: Some(now_ms),
        extended_file_metadata: Some(true),
        partition_values: Some(partition(file.day)),
        size: Some(file.size as i64),
        ..Remove::default()
    }
}

fn partition(day: i32) -> HashMap<String, Option<String>> {
    HashMap::from([(types::DAY.to_owned(), Some(types::day_text(day)))])
}

/// What an `add` action says of a file, as far as it matters here.
pub(super) struct Facts<'a> {
    pub path: String,
    pub size: i64,
    pub modification_ms: i64,
    pub day: Option<i32>,
    /// The text of the tag [`stats::TAG`].
    pub tag: Option<&'a str>,
    pub sorted: bool,
}

pub(super) fn foreign(spec: &TableSpec, path: &str, what: &str) -> Error {
    Error::Unsupported {
        table: spec.qualified(),
        what: format!("file {path}, which Watershed did not write, {what}"),
    }
}

/// The file that an action names. Errors: [`Error::Unsupported`] if another program wrote it.
pub(super) fn file(add: Add, spec: &TableSpec, prefix: &Path) -> Result<LakeFile> {
    if add.deletion_vector.is_some() {
        return Err(foreign(spec, &add.path, "has a deletion vector"));
    }
    let tag = |name: &str| add.tags.as_ref()?.get(name)?.as_deref();
    let facts = Facts {
        size: add.size,
        modification_ms: add.modification_time,
        day: add.partition_values.get(types::DAY).and_then(|v| v.as_deref()).and_then(types::parse_day),
        tag: tag(stats::TAG),
        sorted: tag(TAG_SORTED) == Some(spec.event_column()?.lake_name.as_str()),
        path: add.path.clone(),
    };
    made(facts, spec, prefix)
}

/// The file that these facts are about. Errors: [`Error::Unsupported`] if another program wrote it.
pub(super) fn made(facts: Facts<'_>, spec: &TableSpec, prefix: &Path) -> Result<LakeFile> {
    let refuse = |what: &str| foreign(spec, &facts.path, what);
    let stats = FileStats::from_tag(facts.tag.ok_or_else(|| refuse("has no statistics of ours"))?)
        .map_err(|_| refuse("has statistics that cannot be read"))?;
    let day = facts.day.ok_or_else(|| refuse("is of no day"))?;
    let relative = Path::parse(&facts.path).map_err(|_| refuse("has a path outside the table"))?;
    Ok(LakeFile {
        location: prefix.parts().chain(relative.parts()).collect(),
        size: u64::try_from(facts.size).map_err(|_| refuse("has a negative size"))?,
        rows: stats.rows,
        day,
        modification_ms: facts.modification_ms,
        sorted: facts.sorted,
        stats,
        path: facts.path,
    })
}

fn fields(spec: &TableSpec) -> impl Iterator<Item = StructField> + '_ {
    spec.columns.iter().map(|c| StructField::new(c.lake_name.clone(), c.ty.delta(), true))
}

fn needs_ntz(spec: &TableSpec) -> bool {
    spec.columns.iter().any(|c| c.ty == ColType::Timestamp)
}

fn protocol(ntz: bool) -> Result<Protocol> {
    let value = if ntz {
        serde_json::json!({
            "minReaderVersion": 3, "minWriterVersion": 7,
            "readerFeatures": [NTZ], "writerFeatures": [NTZ, HARMLESS[0], HARMLESS[1]],
        })
    } else {
        serde_json::json!({ "minReaderVersion": 1, "minWriterVersion": 2 })
    };
    serde_json::from_value(value).map_err(internal)
}

fn internal(e: serde_json::Error) -> Error {
    Error::Unsupported { table: "_delta_log".into(), what: e.to_string() }
}

/// Protocol and metadata of a new table.
pub(super) fn creation(spec: &TableSpec) -> Result<(Protocol, Metadata)> {
    let day = StructField::new(types::DAY, DataType::DATE, true);
    let schema = StructType::try_new(fields(spec).chain([day])).map_err(schema_error(spec))?;
    let configuration = [
        // Cleaning the log at every commit lists all of it; the compactor does it instead.
        ("delta.enableExpiredLogCleanup", "false"),
        // Statistics are ours, for every column.
        ("delta.dataSkippingNumIndexedCols", "-1"),
    ];
    let metadata = new_metadata(&schema, [types::DAY], configuration)?;
    Ok((protocol(needs_ntz(spec))?, metadata))
}

fn schema_error<E: std::fmt::Display>(spec: &TableSpec) -> impl Fn(E) -> Error + '_ {
    |e| Error::Schema { table: spec.qualified(), what: e.to_string() }
}

/// The lake's schema with the columns of `spec` that it lacks; `None`: it lacks none.
pub(super) fn extended_schema(metadata: &Metadata, spec: &TableSpec) -> Result<Option<StructType>> {
    let have = metadata.parse_schema().map_err(schema_error(spec))?;
    for field in have.fields() {
        let name = field.name();
        if name == types::DAY {
            continue;
        }
        let wanted = spec.columns.iter().find(|c| c.lake_name == *name).map(|c| c.ty.delta());
        match wanted {
            Some(ty) if ty == *field.data_type() => {}
            Some(ty) => {
                return Err(Error::Schema {
                    table: spec.qualified(),
                    what: format!(
                        "column {name} is {} in the lake and {ty} in PostgreSQL",
                        field.data_type()
                    ),
                });
            }
            None => {
                return Err(Error::Schema {
                    table: spec.qualified(),
                    what: format!("column {name} of the lake is gone from PostgreSQL"),
                });
            }
        }
    }
    let missing: Vec<_> = fields(spec).filter(|f| have.field(f.name()).is_none()).collect();
    if missing.is_empty() {
        return Ok(None);
    }
    let all = have.fields().cloned().chain(missing);
    Ok(Some(StructType::try_new(all).map_err(schema_error(spec))?))
}

/// The protocol that the columns of `spec` need, if the table's is less.
pub(super) fn widened_protocol(have: &Protocol, spec: &TableSpec) -> Result<Option<Protocol>> {
    Ok(if needs_ntz(spec) && have.min_writer_version() < 7 { Some(protocol(true)?) } else { None })
}

/// Errors: [`Error::Unsupported`] for a table that asks for more than we write.
pub(super) fn check_protocol(protocol: &Protocol, spec: &TableSpec) -> Result<()> {
    let known = |f: &str| f == NTZ || HARMLESS.contains(&f);
    let unknown: Vec<String> = [protocol.reader_features(), protocol.writer_features()]
        .into_iter()
        .flatten()
        .flatten()
        .map(ToString::to_string)
        .filter(|f| !known(f))
        .collect();
    if unknown.is_empty() && matches!(protocol.min_reader_version(), 1 | 3) {
        return Ok(());
    }
    Err(Error::Unsupported {
        table: spec.qualified(),
        what: format!(
            "the lake's protocol ({}, {}) with features {unknown:?} is not one that Watershed writes",
            protocol.min_reader_version(),
            protocol.min_writer_version(),
        ),
    })
}

/// The version in the text of `_last_checkpoint`.
pub(super) fn checkpoint_version(hint: &[u8]) -> Option<u64> {
    serde_json::from_slice::<serde_json::Value>(hint).ok()?.get("version")?.as_u64()
}
