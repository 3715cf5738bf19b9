//! What can go wrong with a whole load or request. What goes wrong with one record is a [`crate::batch::Rejected`],
//! never an error.

use std::path::PathBuf;

use crate::load::LoadSummary;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a load or an ingest request as a whole did not finish.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such table, or it is not tiered: `watershed.attach_table` makes it so.
    #[error(
        "table {0} is not a tiered table: SELECT watershed.attach_table('{0}', event_time => '...') makes it one"
    )]
    UnknownTable(String),
    /// The table is attached, but something that attach_table makes is missing.
    #[error("table {table}: {what}")]
    Target { table: String, what: String },
    /// The format was neither given nor recognised.
    #[error("{0}: the format is not recognised; name it with --format (combined, ndjson, json, csv, syslog)")]
    UnknownFormat(String),
    /// The format cannot be mapped to this table at all.
    #[error("{0}")]
    Unmappable(String),
    /// Reading the source failed.
    #[error("{file}: {source}")]
    Read { file: String, source: std::io::Error },
    /// PostgreSQL refused or is away.
    #[error("PostgreSQL: {0}")]
    Postgres(#[from] sqlx::Error),
    /// Somebody else moved the progress that this writer had read: nothing of the batch was written.
    #[error("{0}: its progress was moved by another session; nothing of this batch was written")]
    Fenced(String),
    /// The idempotency key was used before with another body.
    #[error("Idempotency-Key {0:?} was used before with another body")]
    KeyReused(String),
    /// Asked to stop; what was committed stays, and the same load continues there.
    #[error("interrupted; the same command continues where it stopped")]
    Cancelled,
    /// Kafka's settings, or a client of it that is at its end.
    #[error("Kafka: {0}")]
    Kafka(String),
    /// A step of our own died.
    #[error("internal: {0}")]
    Internal(String),
    /// One of several files failed; those before it are complete.
    #[error("{}: {source}", file.display())]
    File { file: PathBuf, completed: Vec<LoadSummary>, source: Box<Error> },
}

impl Error {
    /// True if the same request may succeed later without any change to it: PostgreSQL is starting, stopping, full of
    /// connections, out of reach, or chose this transaction as the victim of a deadlock.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Postgres(e) => postgres_is_transient(e),
            Error::File { source, .. } => source.is_transient(),
            _ => false,
        }
    }
}

/// SQLSTATE of a PostgreSQL error, if it is one.
pub fn sqlstate(error: &sqlx::Error) -> Option<String> {
    match error {
        sqlx::Error::Database(e) => e.code().map(|c| c.into_owned()),
        _ => None,
    }
}

fn postgres_is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Protocol(_) => true,
        // 08 connection, 40 deadlock and serialization, 53 no resources (disk, memory, connections), 57P0x shutdown
        // and start-up, 55P03 a lock held by maintenance.
        sqlx::Error::Database(_) => sqlstate(error).is_some_and(|s| {
            s.starts_with("08")
                || s.starts_with("40")
                || s.starts_with("53")
                || s.starts_with("57P0")
                || s == "55P03"
        }),
        _ => false,
    }
}

/// True if the error is the fault of a row's values, so that leaving the row out lets the others in: data exceptions
/// (22), constraints and missing partitions (23), size limits of rows, index entries and nesting (54), and what a
/// CHECK or a domain raises by itself (P0001).
pub fn is_rows_fault(error: &sqlx::Error) -> bool {
    sqlstate(error)
        .is_some_and(|s| s.starts_with("22") || s.starts_with("23") || s.starts_with("54") || s == "P0001")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_connection_is_transient_and_no_rows_fault() {
        let e = sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into());
        assert!(!is_rows_fault(&e));
        assert!(Error::Postgres(e).is_transient());
        assert!(!Error::Cancelled.is_transient());
    }
}
