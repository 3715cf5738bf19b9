//! The errors of this crate.

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a table, or a job of it, was left as it is. Whatever the error, the lake holds the rows it held before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The lake's log or storage failed or refused.
    #[error(transparent)]
    Lake(#[from] lake::Error),
    /// PostgreSQL, which knows the tables and the leaders, failed or refused.
    #[error("PostgreSQL: {0}")]
    Postgres(#[from] sqlx::Error),
    /// The object store failed.
    #[error("the lake's storage failed: {0}")]
    Storage(#[from] object_store::Error),
    /// A Parquet file could not be read.
    #[error("Parquet file {path}: {source}")]
    Parquet { path: String, source: parquet::errors::ParquetError },
    /// Merging or sorting failed; running out of memory or disk shows here.
    #[error("merging failed: {0}")]
    Merge(#[from] datafusion::error::DataFusionError),
    /// A file is not what the log says of it, or has a column that the table lacked when it was looked at.
    #[error("file {path}: {what}")]
    File { path: String, what: String },
    /// What was written is not what was read. The new files are gone, the old ones stay.
    #[error("rewriting {day} of {table} would have changed its rows: read {read}, wrote {wrote}")]
    Rows { table: String, day: String, read: String, wrote: String },
    /// No such tiered table.
    #[error("table {0} is not a tiered table")]
    UnknownTable(String),
    /// Another compactor has the table and did not let go of it.
    #[error("another compactor works on {0} and has not finished; try again later")]
    Busy(String),
    /// Another compactor has taken over.
    #[error("another compactor has taken over {0}")]
    Superseded(String),
    /// A spill directory or a left-over file could not be handled.
    #[error("{action} {path}: {source}")]
    Io { action: &'static str, path: String, source: std::io::Error },
    /// Told to stop; what was committed stays.
    #[error("interrupted; finished days stay compacted")]
    Cancelled,
    /// The compactor's thread ended without a result.
    #[error("the compactor's thread ended unexpectedly")]
    ThreadLost,
}
