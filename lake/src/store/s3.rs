//! Object storage that speaks S3. A commit is a PUT with `If-None-Match: *`. A server that ignores the condition would let two commits
//! replace each other without a word, so each bucket is asked once before the first commit.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut};
use object_store::client::SpawnedReqwestConnector;
use object_store::path::Path;
use object_store::{
    ClientOptions, CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, Result, RetryConfig,
};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use url::Url;
use uuid::Uuid;

use super::settings::Settings;

pub(super) fn connect(
    url: &Url,
    settings: &Settings,
    runtime: &Handle,
) -> crate::Result<Conditional<AmazonS3>> {
    let from = &settings.s3;
    let said = |value: String| matches!(value.as_str(), "1" | "true" | "TRUE" | "True");
    let allow_http = from.allow_http.unwrap_or_else(|| std::env::var("AWS_ALLOW_HTTP").is_ok_and(said));
    let client = ClientOptions::new()
        .with_allow_http(allow_http)
        .with_connect_timeout(settings.metadata_timeout.min(Duration::from_secs(10)))
        // Of a whole request; a read that stands still ends earlier.
        .with_timeout(settings.write_timeout.max(settings.read_timeout));
    let retry = RetryConfig {
        max_retries: 3,
        retry_timeout: settings.metadata_timeout + settings.read_timeout,
        ..RetryConfig::default()
    };
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(url.authority())
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_retry(retry)
        .with_client_options(client)
        .with_http_connector(SpawnedReqwestConnector::new(runtime.clone()));
    if let Some(endpoint) = &from.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = &from.region {
        builder = builder.with_region(region);
    }
    if let Some(id) = &from.access_key_id {
        builder = builder.with_access_key_id(id);
    }
    if let Some(secret) = &from.secret_access_key {
        builder = builder.with_secret_access_key(secret);
    }
    if let Some(token) = &from.session_token {
        builder = builder.with_token(token);
    }
    if let Some(virtual_hosted) = from.virtual_hosted {
        builder = builder.with_virtual_hosted_style_request(virtual_hosted);
    }
    Ok(Conditional::new(builder.build()?, settings.read_timeout))
}

/// A store whose puts that must not replace are trusted only after one was seen to be refused, and whose reads do not stall: one from
/// which nothing comes for the read timeout is begun anew, once.
#[derive(Debug)]
pub(super) struct Conditional<S> {
    inner: S,
    read_timeout: Duration,
    proven: OnceCell<()>,
}

/// Reads up to this many bytes can be begun anew.
const REPEATED: u64 = 64 << 20;

impl<S: ObjectStore> Conditional<S> {
    fn new(inner: S, read_timeout: Duration) -> Self {
        Self { inner, read_timeout, proven: OnceCell::new() }
    }

    /// None: nothing came in time.
    async fn get_in_time(&self, location: &Path, options: GetOptions) -> Option<Result<GetResult>> {
        let whole =
            matches!(&options.range, Some(GetRange::Bounded(r)) if r.end.saturating_sub(r.start) <= REPEATED);
        let limit = self.read_timeout;
        let got = match timeout(limit, self.inner.get_opts(location, options)).await.ok()? {
            Ok(got) => got,
            Err(error) => return Some(Err(error)),
        };
        let (meta, range, attributes) = (got.meta.clone(), got.range.clone(), got.attributes.clone());
        let mut chunks = got.into_stream();
        let payload = if whole {
            let mut all = Vec::new();
            while let Some(chunk) = timeout(limit, chunks.next()).await.ok()? {
                match chunk {
                    Ok(chunk) => all.push(Ok(chunk)),
                    Err(error) => return Some(Err(error)),
                }
            }
            stream::iter(all).boxed()
        } else {
            stream::unfold(Some(chunks), move |chunks| async move {
                let mut chunks = chunks?;
                match timeout(limit, chunks.next()).await {
                    Ok(chunk) => chunk.map(|chunk| (chunk, Some(chunks))),
                    Err(_) => Some((Err(stalled(limit)), None)),
                }
            })
            // Delta's library polls streams that have ended.
            .fuse()
            .boxed()
        };
        Some(Ok(GetResult { payload: GetResultPayload::Stream(payload), meta, range, attributes }))
    }

    /// Puts an object beside `place` twice.
    async fn prove(&self, place: &Path) -> Result<()> {
        let mut parts: Vec<_> = place.parts().collect();
        parts.pop();
        let name = format!(".conditional.tmp.{}", Uuid::new_v4().simple());
        let path: Path = parts.into_iter().chain(Path::from(name).parts()).collect();
        let create = || PutOptions::from(PutMode::Create);
        self.inner.put_opts(&path, PutPayload::from_static(b"1"), create()).await?;
        let second = self.inner.put_opts(&path, PutPayload::from_static(b"2"), create()).await;
        if let Err(error) = self.inner.delete(&path).await {
            tracing::debug!(%path, %error, "a probe was left behind");
        }
        match second {
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(Error::NotSupported {
                source: format!(
                    "{} replaces objects although it is asked not to (If-None-Match: *): commits would be lost there",
                    self.inner
                )
                .into(),
            }),
        }
    }
}

fn stalled(limit: Duration) -> Error {
    let source = format!("the object store stalls: nothing came for {} s", limit.as_secs_f64()).into();
    Error::Generic { store: "S3", source }
}

impl<S: fmt::Display> fmt::Display for Conditional<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl<S: ObjectStore> ObjectStore for Conditional<S> {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        if matches!(opts.mode, PutMode::Create) {
            self.proven.get_or_try_init(|| self.prove(location)).await?;
        }
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if let Some(got) = self.get_in_time(location, options.clone()).await {
            return got;
        }
        self.get_in_time(location, options).await.unwrap_or_else(|| Err(stalled(self.read_timeout)))
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::TryStreamExt;
    use object_store::memory::InMemory;

    use super::*;

    /// A server that does not know the condition, and lets some reads hang.
    #[derive(Debug, Default)]
    struct Careless {
        inner: InMemory,
        hanging: AtomicUsize,
    }

    impl fmt::Display for Careless {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a careless store")
        }
    }

    #[async_trait]
    impl ObjectStore for Careless {
        async fn put_opts(&self, at: &Path, payload: PutPayload, _: PutOptions) -> Result<PutResult> {
            self.inner.put(at, payload).await
        }
        async fn put_multipart_opts(
            &self,
            at: &Path,
            o: PutMultipartOptions,
        ) -> Result<Box<dyn MultipartUpload>> {
            self.inner.put_multipart_opts(at, o).await
        }
        async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
            if self.hanging.load(Ordering::SeqCst) > 0 {
                self.hanging.fetch_sub(1, Ordering::SeqCst);
                std::future::pending::<()>().await;
            }
            self.inner.get_opts(at, options).await
        }
        fn delete_stream(&self, at: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
            self.inner.delete_stream(at)
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

    #[tokio::test]
    async fn nothing_is_committed_to_a_server_that_ignores_conditions() {
        let store = Conditional::new(Careless::default(), Duration::from_secs(10));
        let entry = Path::from("lake/t/_delta_log/00000000000000000000.json");
        let refused = store.put_opts(&entry, "{}".into(), PutMode::Create.into()).await.unwrap_err();
        assert!(matches!(refused, Error::NotSupported { .. }), "{refused}");
        assert!(refused.to_string().contains("If-None-Match"), "{refused}");
        assert_eq!(store.list(None).try_collect::<Vec<_>>().await.unwrap(), []);
        // What needs no condition works.
        store.put(&Path::from("lake/t/a.parquet"), "x".into()).await.unwrap();
    }

    #[tokio::test]
    async fn a_read_that_hangs_is_begun_anew_once() {
        let store = Conditional::new(Careless::default(), Duration::from_millis(100));
        let path = Path::from("lake/t/a.parquet");
        store.put(&path, "0123456789".into()).await.unwrap();
        store.inner.hanging.store(1, Ordering::SeqCst);
        assert_eq!(store.get_range(&path, 2..5).await.unwrap(), "234");
        store.inner.hanging.store(2, Ordering::SeqCst);
        let error = store.get_range(&path, 2..5).await.unwrap_err().to_string();
        assert!(error.contains("stalls"), "{error}");
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "0123456789");
    }

    #[tokio::test]
    async fn a_server_is_asked_once() {
        let store = Conditional::new(InMemory::new(), Duration::from_secs(10));
        for version in 0..3 {
            let entry = Path::from(format!("lake/t/_delta_log/{version:020}.json"));
            store.put_opts(&entry, "{}".into(), PutMode::Create.into()).await.unwrap();
            let again = store.put_opts(&entry, "{}".into(), PutMode::Create.into()).await;
            assert!(matches!(again, Err(Error::AlreadyExists { .. })));
        }
        assert_eq!(store.list(None).try_collect::<Vec<_>>().await.unwrap().len(), 3);
    }
}
