//! A store that fails on purpose, for tests of what a failed commit leaves open.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::*;
use parking_lot::Mutex;

/// What happens to the next put of a log entry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    /// It fails, and nothing is written.
    Before,
    /// It is written, and the answer is an error.
    After,
    /// It is written, and the answer is that it was there already (a retry inside the client).
    AfterAsExisting,
    /// It is written, the answer is an error, and so is the next read.
    AfterAndBlind,
}

#[derive(Debug)]
pub(crate) struct Faulty {
    inner: Arc<dyn ObjectStore>,
    next: Mutex<Option<Fault>>,
    blind: Mutex<bool>,
}

impl Faulty {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, next: Mutex::new(None), blind: Mutex::new(false) }
    }

    pub(crate) fn arm(&self, fault: Fault) {
        *self.next.lock() = Some(fault);
    }
}

impl std::fmt::Display for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "faulty {}", self.inner)
    }
}

fn broken() -> Error {
    Error::Generic { store: "faulty", source: "the connection was reset".into() }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let fault = if location.as_ref().ends_with(".json") { self.next.lock().take() } else { None };
        if fault == Some(Fault::Before) {
            return Err(broken());
        }
        let done = self.inner.put_opts(location, payload, opts).await?;
        match fault {
            None | Some(Fault::Before) => Ok(done),
            Some(Fault::After) => Err(broken()),
            Some(Fault::AfterAsExisting) => {
                Err(Error::AlreadyExists { path: location.to_string(), source: "it is there".into() })
            }
            Some(Fault::AfterAndBlind) => {
                *self.blind.lock() = true;
                Err(broken())
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if std::mem::take(&mut *self.blind.lock()) {
            return Err(broken());
        }
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
