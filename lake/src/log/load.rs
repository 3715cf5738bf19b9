//! The state of a log read from the start: the newest checkpoint, and the entries after it. Only the columns that matter are read of a
//! checkpoint, and our own statistics are parsed on all processors. A log that is laid out in a way that we do not write (a checkpoint in
//! parts, entries folded together) is left to the library, which knows all of them and takes longer.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, MapArray, StructArray};
use arrow::datatypes::{Int64Type, Int32Type};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use deltalake_core::DeltaTable;
use deltalake_core::kernel::{Action, Metadata, Protocol};
use deltalake_core::logstore::{LogStoreRef, get_actions};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

use super::files::FileSet;
use super::{LakeFile, Removed, State, action, txns};
use crate::spec::TableSpec;
use crate::stats::{self, Names};
use crate::{Error, Result, types};

/// Entries that are read at once.
const AHEAD: usize = 8;
/// Rows of a checkpoint that one thread takes at a time.
const BATCH_ROWS: usize = 4096;
/// Times that a log is read anew because entries went while it was read.
const TRIES: usize = 3;

/// Where a log's state is to be found.
#[derive(Debug, PartialEq)]
struct Layout {
    checkpoint: Option<u64>,
    /// The newest version.
    version: u64,
}

/// Reads the whole log. With `removed`, what it tells of removed files as well.
pub(super) async fn load(
    log: &LogStoreRef,
    spec: &TableSpec,
    prefix: &Path,
    removed: bool,
) -> Result<State> {
    let store = log.object_store(None);
    for _ in 0..TRIES {
        let Some(layout) = find(store.as_ref()).await? else { break };
        match read(log, &layout, spec, prefix, removed).await {
            Ok(Some(state)) => return Ok(state),
            Ok(None) => break,
            // Cleaned up between the listing and now: a newer checkpoint is there.
            Err(Error::Storage(object_store::Error::NotFound { .. })) => {}
            Err(e) => return Err(e),
        }
    }
    by_library(log, spec, prefix, removed).await
}

/// What the log's directory holds; `None`: not what we write.
async fn find(store: &dyn ObjectStore) -> Result<Option<Layout>> {
    let directory = Path::from("_delta_log");
    let hint = txns::last_checkpoint(store).await?;
    let listed = match hint {
        // Names that begin with the hint's version come after the bare number.
        Some(version) => store.list_with_offset(Some(&directory), &Path::from(format!("_delta_log/{version:020}"))),
        None => store.list(Some(&directory)),
    };
    let names: Vec<String> = listed
        .try_filter_map(|m| async move { Ok(m.location.filename().map(str::to_owned)) })
        .try_collect()
        .await?;
    Ok(layout(names.iter().map(String::as_str)))
}

fn layout<'a>(names: impl Iterator<Item = &'a str>) -> Option<Layout> {
    let mut entries = Vec::new();
    let mut checkpoint = None;
    let mut foreign = None;
    for name in names {
        let Some((number, rest)) = name.split_once('.') else { continue };
        if number.len() != 20 || !number.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        let Ok(version) = number.parse::<u64>() else { continue };
        match rest {
            "json" => entries.push(version),
            "checkpoint.parquet" => checkpoint = checkpoint.max(Some(version)),
            other if other.starts_with("checkpoint.") => foreign = foreign.max(Some(version)),
            _ => {}
        }
    }
    if foreign > checkpoint {
        return None;
    }
    let first = checkpoint.map_or(0, |c| c + 1);
    entries.retain(|v| *v >= first);
    entries.sort_unstable();
    let contiguous = entries.iter().zip(first..).all(|(have, wanted)| *have == wanted);
    let version = entries.last().copied().or(checkpoint)?;
    contiguous.then_some(Layout { checkpoint, version })
}

async fn read(
    log: &LogStoreRef,
    layout: &Layout,
    spec: &TableSpec,
    prefix: &Path,
    removed: bool,
) -> Result<Option<State>> {
    let event = spec.event_column()?.lake_name.clone();
    let mut found = Checkpoint::default();
    if let Some(version) = layout.checkpoint {
        let path = Path::from(format!("_delta_log/{version:020}.checkpoint.parquet"));
        let bytes = log.object_store(None).get(&path).await?.bytes().await?;
        let (spec, prefix) = (spec.clone(), prefix.clone());
        let read = tokio::task::spawn_blocking(move || checkpoint(bytes, &spec, &prefix, removed));
        found = read.await.map_err(|e| Error::Unsupported {
            table: log.root_url().to_string(),
            what: format!("its checkpoint could not be read: {e}"),
        })??;
    }
    let first = layout.checkpoint.map_or(0, |c| c + 1);
    let mut entries = futures::stream::iter(first..=layout.version)
        .map(|v| async move {
            let path = Path::from(format!("_delta_log/{v:020}.json"));
            Ok::<_, Error>((v, log.object_store(None).get(&path).await?.bytes().await?))
        })
        .buffered(AHEAD);
    let mut state: Option<State> = None;
    let of_checkpoint = layout.checkpoint;
    let start = |found: Checkpoint| -> Result<Option<State>> {
        let (Some(metadata), Some(protocol)) = (found.metadata, found.protocol) else { return Ok(None) };
        action::check_protocol(&protocol, spec)?;
        let at = of_checkpoint.unwrap_or(0);
        let tombstone = |(path, at_ms, size)| (path, Removed { at_ms, version: at, size });
        Ok(Some(State {
            version: at,
            files: FileSet::new(&event, found.files),
            txns: found.txns,
            metadata,
            protocol,
            removed: removed.then(|| found.removed.into_iter().map(tombstone).collect()),
        }))
    };
    if of_checkpoint.is_some() {
        state = start(std::mem::take(&mut found))?;
        if state.is_none() {
            return Ok(None);
        }
    }
    while let Some((v, entry)) = entries.try_next().await? {
        let actions = get_actions(v, &entry)?;
        if state.is_none() {
            // The first entry of a log without a checkpoint says what the table is.
            for one in &actions {
                match one {
                    Action::Metadata(m) => found.metadata = Some(m.clone()),
                    Action::Protocol(p) => found.protocol = Some(p.clone()),
                    _ => {}
                }
            }
            state = start(std::mem::take(&mut found))?;
        }
        let Some(state) = &mut state else { return Ok(None) };
        state.apply(v, actions, spec, prefix)?;
    }
    Ok(state)
}

/// What a checkpoint holds.
#[derive(Default)]
struct Checkpoint {
    files: Vec<Arc<LakeFile>>,
    /// Path, time and bytes.
    removed: Vec<(String, i64, u64)>,
    txns: HashMap<String, i64>,
    metadata: Option<Metadata>,
    protocol: Option<Protocol>,
}

/// Whether a leaf column of a checkpoint is read.
fn wanted(column: &str, removed: bool) -> bool {
    let (action, field) = column.split_once('.').unwrap_or((column, ""));
    match action {
        "add" => ["path", "partitionValues", "size", "modificationTime", "tags", "deletionVector"]
            .iter()
            .any(|f| field == *f || field.starts_with(&format!("{f}."))),
        "remove" => removed && matches!(field, "path" | "deletionTimestamp" | "size"),
        "txn" | "metaData" | "protocol" => true,
        _ => false,
    }
}

fn checkpoint(bytes: Bytes, spec: &TableSpec, prefix: &Path, removed: bool) -> Result<Checkpoint> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
    let leaves: Vec<usize> = builder
        .parquet_schema()
        .columns()
        .iter()
        .enumerate()
        .filter(|(_, c)| wanted(&c.path().string(), removed))
        .map(|(i, _)| i)
        .collect();
    let mask = ProjectionMask::leaves(builder.parquet_schema(), leaves);
    let batches = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build()?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    // One thread decodes, the others make files of what it decoded.
    let (send, take) = std::sync::mpsc::sync_channel::<RecordBatch>(threads * 2);
    let take = parking_lot::Mutex::new(take);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                let take = &take;
                scope.spawn(move || {
                    let mut part = Checkpoint::default();
                    let mut names = Names::default();
                    let mut outcome = Ok(());
                    loop {
                        // The lock is let go before the batch is worked on; after an error batches are still taken, so that the
                        // decoding thread does not wait for ever.
                        let next = take.lock().recv();
                        let Ok(batch) = next else { break };
                        if outcome.is_ok() {
                            outcome = part.add(&batch, spec, prefix, &mut names);
                        }
                    }
                    outcome.map(|()| part)
                })
            })
            .collect();
        let mut outcome = Ok(());
        for batch in batches {
            match batch {
                Ok(batch) => {
                    if send.send(batch).is_err() {
                        break;
                    }
                }
                Err(e) => {
                    outcome = Err(e.into());
                    break;
                }
            }
        }
        drop(send);
        let mut all = Checkpoint::default();
        for worker in workers {
            let part = worker.join().map_err(|_| unreadable("a thread that read it failed"))??;
            all.files.extend(part.files);
            all.removed.extend(part.removed);
            all.txns.extend(part.txns);
            all.metadata = all.metadata.or(part.metadata);
            all.protocol = all.protocol.or(part.protocol);
        }
        outcome.map(|()| all)
    })
}

fn unreadable(what: &str) -> Error {
    Error::Unsupported { table: "the log's checkpoint".into(), what: what.into() }
}

impl Checkpoint {
    fn add(&mut self, batch: &RecordBatch, spec: &TableSpec, prefix: &Path, names: &mut Names) -> Result<()> {
        let of = |name: &str| batch.column_by_name(name).and_then(|c| c.as_struct_opt());
        if let Some(adds) = of("add") {
            self.adds(adds, spec, prefix, names)?;
        }
        if let Some(removes) = of("remove") {
            let paths = Texts::of(removes, "path")?;
            let (times, sizes) = (Numbers::of(removes, "deletionTimestamp")?, Numbers::of(removes, "size")?);
            for i in (0..removes.len()).filter(|i| removes.is_valid(*i)) {
                if let Some(path) = paths.get(i) {
                    let size = sizes.get(i).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
                    self.removed.push((decoded(path)?, times.get(i).unwrap_or(0), size));
                }
            }
        }
        if let Some(txns) = of("txn") {
            let (apps, versions) = (Texts::of(txns, "appId")?, Numbers::of(txns, "version")?);
            for i in (0..txns.len()).filter(|i| txns.is_valid(*i)) {
                if let (Some(app), Some(version)) = (apps.get(i), versions.get(i)) {
                    self.txns.insert(app.to_owned(), version);
                }
            }
        }
        if let Some(column) = of("protocol")
            && let Some(i) = (0..column.len()).find(|i| column.is_valid(*i))
        {
            let mut value = value(column, i)?;
            // Absent and empty are different things to the library.
            if let Some(map) = value.as_object_mut() {
                map.retain(|_, v| !v.is_null());
            }
            self.protocol = Some(serde_json::from_value(value).map_err(|e| unreadable(&e.to_string()))?);
        }
        if let Some(column) = of("metaData")
            && let Some(i) = (0..column.len()).find(|i| column.is_valid(*i))
        {
            self.metadata =
                Some(serde_json::from_value(value(column, i)?).map_err(|e| unreadable(&e.to_string()))?);
        }
        Ok(())
    }

    fn adds(&mut self, adds: &StructArray, spec: &TableSpec, prefix: &Path, names: &mut Names) -> Result<()> {
        let event = &spec.event_column()?.lake_name;
        let paths = Texts::of(adds, "path")?;
        let (sizes, times) = (Numbers::of(adds, "size")?, Numbers::of(adds, "modificationTime")?);
        let (days, tags) = (Pairs::of(adds, "partitionValues")?, Pairs::of(adds, "tags")?);
        let vectors = adds.column_by_name("deletionVector");
        for i in (0..adds.len()).filter(|i| adds.is_valid(*i)) {
            let path = paths.get(i).ok_or_else(|| unreadable("a file without a path"))?;
            if vectors.is_some_and(|v| v.is_valid(i)) {
                return Err(action::foreign(spec, path, "has a deletion vector"));
            }
            let mut tag = None;
            let mut sorted = false;
            tags.each(i, |key, value| match key {
                stats::TAG => tag = value,
                super::TAG_SORTED => sorted = value == Some(event.as_str()),
                _ => {}
            });
            let mut day = None;
            days.each(i, |key, value| {
                if key == types::DAY {
                    day = value.and_then(types::parse_day);
                }
            });
            let facts = action::Facts {
                path: decoded(path)?,
                size: sizes.get(i).unwrap_or(-1),
                modification_ms: times.get(i).unwrap_or(0),
                day,
                tag,
                sorted,
            };
            let mut file = action::made(facts, spec, prefix)?;
            names.share(&mut file.stats.columns);
            self.files.push(Arc::new(file));
        }
        Ok(())
    }
}

/// A path of the log is a URI.
fn decoded(path: &str) -> Result<String> {
    if !path.contains('%') {
        return Ok(path.to_owned());
    }
    let digit = |b: u8| (b as char).to_digit(16);
    let bytes = path.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let pair = (bytes[i] == b'%' && i + 2 < bytes.len())
            .then(|| digit(bytes[i + 1]).zip(digit(bytes[i + 2])))
            .flatten();
        match pair {
            Some((high, low)) => {
                out.push((high * 16 + low) as u8);
                i += 3;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8(out).map_err(|_| unreadable("a path that is no text"))
}

/// A column of texts, of whichever Arrow type.
enum Texts<'a> {
    Plain(&'a arrow::array::StringArray),
    Large(&'a arrow::array::LargeStringArray),
    View(&'a arrow::array::StringViewArray),
    Absent,
}

impl<'a> Texts<'a> {
    fn of(parent: &'a StructArray, name: &str) -> Result<Self> {
        parent.column_by_name(name).map_or(Ok(Self::Absent), Self::array)
    }

    fn array(array: &'a ArrayRef) -> Result<Self> {
        if let Some(a) = array.as_string_opt::<i32>() {
            Ok(Self::Plain(a))
        } else if let Some(a) = array.as_string_opt::<i64>() {
            Ok(Self::Large(a))
        } else if let Some(a) = array.as_string_view_opt() {
            Ok(Self::View(a))
        } else {
            Err(unreadable("a column that should hold texts"))
        }
    }

    fn get(&self, i: usize) -> Option<&'a str> {
        match *self {
            Self::Plain(a) => a.is_valid(i).then(|| a.value(i)),
            Self::Large(a) => a.is_valid(i).then(|| a.value(i)),
            Self::View(a) => a.is_valid(i).then(|| a.value(i)),
            Self::Absent => None,
        }
    }
}

/// A column of 64 bit numbers.
struct Numbers<'a>(Option<&'a arrow::array::Int64Array>);

impl<'a> Numbers<'a> {
    fn of(parent: &'a StructArray, name: &str) -> Result<Self> {
        let Some(column) = parent.column_by_name(name) else { return Ok(Self(None)) };
        let numbers = column.as_primitive_opt::<Int64Type>();
        numbers.map(|n| Self(Some(n))).ok_or_else(|| unreadable("a column that should hold numbers"))
    }

    fn get(&self, i: usize) -> Option<i64> {
        self.0.filter(|n| n.is_valid(i)).map(|n| n.value(i))
    }
}

/// A column of maps from text to text.
struct Pairs<'a>(Option<(&'a MapArray, Texts<'a>, Texts<'a>)>);

impl<'a> Pairs<'a> {
    fn of(parent: &'a StructArray, name: &str) -> Result<Self> {
        let Some(column) = parent.column_by_name(name) else { return Ok(Self(None)) };
        let map = column.as_map_opt().ok_or_else(|| unreadable("a column that should hold maps"))?;
        Ok(Self(Some((map, Texts::array(map.keys())?, Texts::array(map.values())?))))
    }

    fn each(&self, i: usize, mut pair: impl FnMut(&'a str, Option<&'a str>)) {
        let Some((map, keys, values)) = &self.0 else { return };
        if map.is_null(i) {
            return;
        }
        let offsets = map.value_offsets();
        // Offsets are not negative.
        for at in offsets[i] as usize..offsets[i + 1] as usize {
            if let Some(key) = keys.get(at) {
                pair(key, values.get(at));
            }
        }
    }
}

/// One value of a column as JSON, for the few actions that the library has to make.
fn value(array: &dyn Array, i: usize) -> Result<Value> {
    if array.is_null(i) {
        return Ok(Value::Null);
    }
    if let Some(columns) = array.as_any().downcast_ref::<StructArray>() {
        let mut map = serde_json::Map::new();
        for (field, column) in columns.fields().iter().zip(columns.columns()) {
            map.insert(field.name().clone(), value(column, i)?);
        }
        return Ok(Value::Object(map));
    }
    if let Some(pairs) = array.as_map_opt() {
        let pairs = (pairs, Texts::array(pairs.keys())?, Texts::array(pairs.values())?);
        let mut map = serde_json::Map::new();
        Pairs(Some(pairs)).each(i, |key, text| {
            map.insert(key.to_owned(), json!(text));
        });
        return Ok(Value::Object(map));
    }
    if let Some(list) = array.as_list_opt::<i32>() {
        let items = list.value(i);
        return (0..items.len()).map(|j| value(&items, j)).collect::<Result<Vec<_>>>().map(Value::Array);
    }
    if let Some(n) = array.as_primitive_opt::<Int64Type>() {
        return Ok(json!(n.value(i)));
    }
    if let Some(n) = array.as_primitive_opt::<Int32Type>() {
        return Ok(json!(n.value(i)));
    }
    if let Some(b) = array.as_boolean_opt() {
        return Ok(json!(b.value(i)));
    }
    let text = if let Some(a) = array.as_string_opt::<i32>() {
        a.value(i)
    } else if let Some(a) = array.as_string_opt::<i64>() {
        a.value(i)
    } else if let Some(a) = array.as_string_view_opt() {
        a.value(i)
    } else {
        return Err(unreadable("a column of an unknown kind"));
    };
    Ok(json!(text))
}

/// Any log, by the library.
async fn by_library(log: &LogStoreRef, spec: &TableSpec, prefix: &Path, removed: bool) -> Result<State> {
    let mut table = DeltaTable::new(log.clone());
    table.load().await?;
    let snapshot = table.snapshot()?;
    action::check_protocol(snapshot.protocol(), spec)?;
    let mut files = Vec::new();
    for view in snapshot.log_data().iter() {
        // The only way to a loaded file's tags, which hold our statistics.
        #[allow(deprecated)]
        let file = action::file(view.add_action(), spec, prefix)?;
        files.push(Arc::new(file));
    }
    let txns = txns::read(log, snapshot.version()).await?;
    Ok(State {
        version: snapshot.version(),
        files: FileSet::new(&spec.event_column()?.lake_name, files),
        txns,
        metadata: snapshot.metadata().clone(),
        protocol: snapshot.protocol().clone(),
        // What is not known is left to the listing of the table's files.
        removed: removed.then(HashMap::new),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: &[&str]) -> Option<Layout> {
        layout(names.iter().copied())
    }

    #[test]
    fn logs_that_we_write_are_recognised() {
        let at = |checkpoint, version| Some(Layout { checkpoint, version });
        let entry = |v: u64| format!("{v:020}.json");
        assert_eq!(found(&[&entry(0), &entry(1), "_last_checkpoint", ".00000000000000000002.json.tmp.0"]), at(None, 1));
        let c = format!("{:020}.checkpoint.parquet", 7);
        assert_eq!(found(&[&c]), at(Some(7), 7));
        assert_eq!(found(&[&entry(5), &entry(6), &entry(7), &c, &entry(8)]), at(Some(7), 8));
        // A gap, nothing at all, and a newer checkpoint that is not ours.
        assert_eq!(found(&[&entry(0), &entry(2)]), None);
        assert_eq!(found(&[&entry(3)]), None);
        assert_eq!(found(&[&c, &entry(9)]), None);
        assert_eq!(found(&[]), None);
        let parts = format!("{:020}.checkpoint.0000000001.0000000002.parquet", 8);
        assert_eq!(found(&[&c, &entry(8), &parts]), None);
    }

    #[test]
    fn paths_are_uris() {
        assert_eq!(decoded("_day=2024-01-01/part-1.parquet").unwrap(), "_day=2024-01-01/part-1.parquet");
        assert_eq!(decoded("a%20b%25c%").unwrap(), "a b%c%");
    }
}
