//! The errors of this crate, and which of them a caller may retry. Knows no client wording.

use deltalake_core::DeltaTableError;

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong between PostgreSQL's rows and the lake's files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The object store failed or refused.
    #[error("the lake's storage failed: {0}")]
    Storage(#[from] object_store::Error),
    /// A URL leads to no store.
    #[error("{url} is no place for a lake: {what}; {advice}")]
    Location { url: String, what: String, advice: &'static str },
    /// A local file could not be made durable.
    #[error("{action} {path}: {source}")]
    Durability { action: &'static str, path: String, source: std::io::Error },
    /// The Delta log could not be read or written.
    #[error("the Delta log failed: {0}")]
    Delta(#[source] Box<DeltaTableError>),
    /// A Parquet file could not be read or written.
    #[error("Parquet failed: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// Arrow refused arrays or a schema.
    #[error("Arrow failed: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    /// PostgreSQL failed or refused.
    #[error("PostgreSQL: {0}")]
    Postgres(#[from] sqlx::Error),
    /// The bytes of a COPY stream are not what the protocol says.
    #[error("malformed COPY stream: {0}")]
    Copy(String),
    /// A value is valid in PostgreSQL, but has no equal in the column's Arrow type.
    #[error("column {column}: {value} cannot be kept in the lake")]
    Unkeepable { column: String, value: String },
    /// A text that should be a snapshot is not one.
    #[error("not a snapshot: {0:?}")]
    Boundary(String),
    /// The log holds something that Watershed does not write and cannot read exactly.
    #[error("lake table {table}: {what}")]
    Unsupported { table: String, what: String },
    /// The lake's schema or location and the table's do not fit together.
    #[error("table {table}: {what}")]
    Schema { table: String, what: String },
    /// Another archiver or compactor has taken over: this one must stop what it does.
    #[error("table {table}: superseded by a newer {role} (fence {theirs}, ours is {ours})")]
    Fenced { table: String, role: &'static str, ours: i64, theirs: i64 },
    /// The lake's newest archive is not the one that the new rows were counted from.
    #[error("table {table}: the lake holds archive {found}, expected {expected}")]
    UnexpectedArchive { table: String, expected: i64, found: i64 },
    /// A commit failed in a way that leaves open whether it landed, and the log could not be read to find out.
    /// The new files must be left where they are.
    #[error("table {table}: a commit may or may not have landed: {reason}")]
    Ambiguous { table: String, reason: String },
    /// The new files were written so long ago that a vacuum may have taken them for left-overs. Nothing was committed.
    #[error("table {table}: file {path} was written too long ago to be committed")]
    Overdue { table: String, path: String },
    /// Too many others committed in between.
    #[error("table {table}: gave up after {tries} lost races for the next version")]
    Contended { table: String, tries: u32 },
}

impl Error {
    /// Whether the same call may succeed later without anyone changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Storage(e) => !matches!(
                e,
                object_store::Error::NotSupported { .. }
                    | object_store::Error::InvalidPath { .. }
                    | object_store::Error::PermissionDenied { .. }
                    | object_store::Error::Unauthenticated { .. }
            ),
            Self::Postgres(e) => match e {
                sqlx::Error::Io(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::WorkerCrashed
                | sqlx::Error::Protocol(_) => true,
                // Class 08: connection; 57P0x: shutdown, crash, cannot connect now; 53: resources; 40: serialization; 55P03: lock.
                sqlx::Error::Database(d) => d.code().is_some_and(|c| {
                    c.starts_with("08")
                        || c.starts_with("57P")
                        || c.starts_with("53")
                        || c.starts_with("40")
                        || c == "55P03"
                }),
                _ => false,
            },
            Self::Delta(_)
            | Self::Parquet(_)
            | Self::Durability { .. }
            | Self::Ambiguous { .. }
            | Self::Overdue { .. }
            | Self::Contended { .. }
            | Self::UnexpectedArchive { .. } => true,
            Self::Arrow(_)
            | Self::Copy(_)
            | Self::Unkeepable { .. }
            | Self::Location { .. }
            | Self::Boundary(_)
            | Self::Unsupported { .. }
            | Self::Schema { .. }
            | Self::Fenced { .. } => false,
        }
    }
}

impl From<DeltaTableError> for Error {
    fn from(e: DeltaTableError) -> Self {
        Self::Delta(Box::new(e))
    }
}

impl From<deltalake_core::kernel::Error> for Error {
    fn from(e: deltalake_core::kernel::Error) -> Self {
        DeltaTableError::from(e).into()
    }
}
