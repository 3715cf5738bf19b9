//! Tells Delta's library that logs in remote stores are kept like any other: by the store that [`super::open`] gives.

use std::sync::{Arc, Once};

use deltalake_core::DeltaResult;
use deltalake_core::logstore::{
    LogStore, LogStoreFactory, ObjectStoreRef, StorageConfig, default_logstore, logstore_factories,
};
use url::Url;

struct Factory;

impl LogStoreFactory for Factory {
    fn with_options(
        &self,
        prefixed_store: ObjectStoreRef,
        root_store: ObjectStoreRef,
        location: &Url,
        options: &StorageConfig,
    ) -> DeltaResult<Arc<dyn LogStore>> {
        Ok(default_logstore(prefixed_store, root_store, location, options))
    }
}

/// Does so once.
pub(super) fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let known = logstore_factories();
        for scheme in ["hdfs://", "viewfs://", "s3://", "s3a://"] {
            if let Ok(scheme) = Url::parse(scheme) {
                known.insert(scheme, Arc::new(Factory));
            }
        }
    });
}
