//! Every `txn` action of a log at once: from the last checkpoint and the entries after it. The library finds one application at a time,
//! going through the log for each.

use std::collections::HashMap;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use deltalake_core::kernel::Action;
use deltalake_core::logstore::{LogStoreRef, get_actions};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::action;
use crate::{Error, Result};

/// Entries that are read at once.
const AHEAD: usize = 8;

/// The version of each application as of `version`.
pub(super) async fn read(log: &LogStoreRef, version: u64) -> Result<HashMap<String, i64>> {
    let store = log.object_store(None);
    let mut txns = HashMap::new();
    // A checkpoint newer than `version` may hold later transactions; then the entries themselves must still be there.
    let checkpoint = last_checkpoint(store.as_ref()).await?.filter(|c| *c <= version);
    if let Some(checkpoint) = checkpoint {
        of_checkpoint(store.as_ref(), checkpoint, &mut txns).await?;
    }
    let first = checkpoint.map_or(0, |c| c + 1);
    let mut entries = futures::stream::iter(first..=version)
        .map(|v| async move { Ok::<_, Error>((v, log.read_commit_entry(v).await?)) })
        .buffered(AHEAD);
    while let Some((v, entry)) = entries.try_next().await? {
        let entry = entry.ok_or_else(|| Error::Unsupported {
            table: log.root_url().to_string(),
            what: format!("entry {v} of its log is gone, and no checkpoint holds it"),
        })?;
        for one in get_actions(v, &entry)? {
            if let Action::Txn(txn) = one {
                txns.insert(txn.app_id, txn.version);
            }
        }
    }
    Ok(txns)
}

/// The version of the newest checkpoint, as the log's hint tells.
pub(super) async fn last_checkpoint(store: &dyn ObjectStore) -> Result<Option<u64>> {
    match store.get(&Path::from("_delta_log/_last_checkpoint")).await {
        Ok(found) => Ok(action::checkpoint_version(&found.bytes().await?)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

async fn of_checkpoint(
    store: &dyn ObjectStore,
    version: u64,
    txns: &mut HashMap<String, i64>,
) -> Result<()> {
    let path = Path::from(format!("_delta_log/{version:020}.checkpoint.parquet"));
    let bytes = store.get(&path).await?.bytes().await?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
    let Some(column) = builder.schema().fields().iter().position(|f| f.name() == "txn") else {
        return Ok(());
    };
    let mask = ProjectionMask::roots(builder.parquet_schema(), [column]);
    for batch in builder.with_projection(mask).build()? {
        let batch = batch?;
        let Some(txn) = batch.column(0).as_struct_opt() else { continue };
        let (Some(app), Some(version)) = (txn.column_by_name("appId"), txn.column_by_name("version")) else {
            continue;
        };
        let app = arrow::compute::cast(app, &arrow::datatypes::DataType::Utf8)?;
        let (app, version) = (app.as_string::<i32>(), version.as_primitive_opt::<Int64Type>());
        let Some(version) = version else { continue };
        for i in (0..txn.len()).filter(|i| txn.is_valid(*i) && app.is_valid(*i) && version.is_valid(*i)) {
            txns.insert(app.value(i).to_owned(), version.value(i));
        }
    }
    Ok(())
}
