//! Why the engine gave no answer, sorted by what the gateway does about it. ✗ client wording, falling back.

use datafusion::error::DataFusionError;
use pgexact::PgError;

/// The kinds the gateway tells apart: see each for what may follow.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// Too many queries at once, or not enough memory or spill space: 53200, or PostgreSQL.
    #[error("{0}")]
    Refused(String),
    /// A kernel met values for which PostgreSQL raises an error.
    #[error("{message}")]
    Postgres { sqlstate: String, message: String },
    /// The lake's storage, log or files failed: 58030, or PostgreSQL.
    #[error("{0}")]
    Lake(String),
    /// The engine cannot run the plan, or is wrong: PostgreSQL.
    #[error("{0}")]
    Internal(String),
    /// The caller's token was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl From<PgError> for EngineError {
    fn from(e: PgError) -> Self {
        // What the kernels refuse because they cannot be exact is no error of PostgreSQL's.
        if e.is_not_exact() {
            return EngineError::Internal(e.message);
        }
        EngineError::Postgres { sqlstate: e.sqlstate.to_owned(), message: e.message }
    }
}

impl From<lake::Error> for EngineError {
    fn from(e: lake::Error) -> Self {
        EngineError::Lake(e.to_string())
    }
}

impl From<DataFusionError> for EngineError {
    fn from(e: DataFusionError) -> Self {
        let mut link: Option<&(dyn std::error::Error + 'static)> = Some(&e);
        let mut storage = false;
        while let Some(error) = link {
            if let Some(pg) = error.downcast_ref::<PgError>() {
                return pg.clone().into();
            }
            if let Some(engine) = error.downcast_ref::<EngineError>() {
                return engine.clone();
            }
            storage |= error.is::<object_store::Error>()
                || error.is::<parquet::errors::ParquetError>()
                || error.is::<std::io::Error>();
            link = error.source();
        }
        match e.find_root() {
            DataFusionError::ResourcesExhausted(what) => EngineError::Refused(what.clone()),
            _ if storage => EngineError::Lake(e.strip_backtrace()),
            _ => EngineError::Internal(e.strip_backtrace()),
        }
    }
}
