//! CONTRACT used by session/lake.rs and lib.rs: keep these names, replace the bodies.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::datasource::TableProvider;
use datafusion::logical_expr::LogicalPlan;
use lake::boundary::Boundary;
use lake::log::LakeVersion;
use lake::spec::TableSpec;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use url::Url;

#[derive(Debug, Clone)]
pub struct EngineConfig {
    pub memory_limit_bytes: usize,
    pub spill_dir: PathBuf,
    pub control_url: String,
    pub lake_root: Url,
    pub target_partitions: usize,
    pub max_concurrent: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        EngineConfig {
            memory_limit_bytes: 1 << 30,
            spill_dir: std::env::temp_dir(),
            control_url: String::new(),
            lake_root: Url::from_directory_path("/").expect("the root is an absolute path"),
            target_partitions: 2,
            max_concurrent: 4,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("{0}")]
    Refused(String),
    #[error("{message}")]
    Postgres { sqlstate: String, message: String },
    #[error("{0}")]
    Lake(String),
    #[error("{0}")]
    Internal(String),
    #[error("cancelled")]
    Cancelled,
}

pub struct Pin {
    pub spec: Arc<TableSpec>,
    pub version: Arc<LakeVersion>,
    /// None: nothing archived, every row is tail
    pub boundary: Option<Boundary>,
}

#[derive(Debug, Clone, Default)]
pub struct Stats {
    pub files: u64,
    pub row_groups: u64,
    pub bytes_scanned: u64,
}

pub struct QueryStream {}

impl QueryStream {
    pub fn schema(&self) -> SchemaRef {
        Arc::new(arrow::datatypes::Schema::empty())
    }
    /// cancel safe
    pub async fn next(&mut self) -> Option<Result<RecordBatch, EngineError>> {
        None
    }
    pub fn stats(&self) -> Stats {
        Stats::default()
    }
}

pub struct Engine {}

impl Engine {
    pub fn new(_config: EngineConfig) -> Result<Arc<Engine>, EngineError> {
        Ok(Arc::new(Engine {}))
    }
    /// `newer`: look at the log again before answering (the fence has moved past the version at hand)
    pub async fn pin(&self, _relid: u32, _newer: bool) -> Result<Pin, EngineError> {
        Err(EngineError::Internal("not there yet".into()))
    }
    pub async fn execute(self: &Arc<Self>, _plan: LogicalPlan, _cancel: CancellationToken) -> Result<QueryStream, EngineError> {
        Err(EngineError::Internal("not there yet".into()))
    }
}

pub struct TieredProvider {}

impl TieredProvider {
    /// `tail`: batches of exactly the columns `attnums`, in that order, under their lake names
    pub fn try_new(_pin: Pin, _attnums: &[i16], _tail: Vec<RecordBatch>) -> Result<Arc<dyn TableProvider>, EngineError> {
        Err(EngineError::Internal("not there yet".into()))
    }
}

pub fn memory_provider(_schema: SchemaRef, _rows: Vec<RecordBatch>) -> Result<Arc<dyn TableProvider>, EngineError> {
    Err(EngineError::Internal("not there yet".into()))
}
