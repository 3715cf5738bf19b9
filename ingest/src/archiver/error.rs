//! What can go wrong with an archive or a verification, and whether trying again may help.

/// The result of the archiver's and the verifier's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an archive or a verification did not come to its end. Nothing is lost by any of them: rows stay in PostgreSQL's tail.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The lake, or reading PostgreSQL's rows.
    #[error(transparent)]
    Lake(#[from] lake::Error),
    /// PostgreSQL failed or refused.
    #[error("PostgreSQL: {0}")]
    Postgres(#[from] sqlx::Error),
    /// No tiered table has this name.
    #[error(
        "no tiered table {0}: SELECT watershed.attach_table('{0}', event_time => '...') makes a table one"
    )]
    UnknownTable(String),
    /// The name fits tables in several schemas.
    #[error("several tiered tables are named {0}; name the schema too")]
    AmbiguousTable(String),
    /// Transaction numbers no longer mean what they meant when the lake was written.
    #[error(
        "table {table}: its rows were archived in lineage {archived}, and the server is now of lineage {current} (a restore, a point-in-time \
         recovery or a failover lies between); archiving has stopped, run `watershed rebase {table}`"
    )]
    LineageChanged { table: String, archived: String, current: String },
    /// The lake holds an archive that PostgreSQL knows nothing of.
    #[error(
        "table {table}: the lake holds archive {archive}, of which PostgreSQL has no boundary (an older backup was restored, or the lake \
         belongs to another database); archiving has stopped, run `watershed rebase {table}`"
    )]
    UnknownArchive { table: String, archive: i64 },
    /// The boundary in the lake sees more than a snapshot taken now.
    #[error(
        "table {table}: the lake's boundary {boundary} lies beyond the server's snapshot {snapshot}; archiving has stopped, run `watershed \
         rebase {table}`"
    )]
    BoundaryAhead { table: String, boundary: String, snapshot: String },
    /// Another process leads the table.
    #[error("table {0}: another process is archiving it")]
    Busy(String),
    /// Another process has taken over the lead; this one must not go on.
    #[error("table {0}: another process has taken over archiving it")]
    LostLead(String),
    /// The lake is too far ahead for numbers to be used up.
    #[error(
        "table {table}: the lake holds rows of transaction {lake}, {missing} beyond the server's {server}; so many numbers cannot be used \
         up one by one (is this the lake's server?)"
    )]
    TooFar { table: String, lake: i64, server: i64, missing: i64 },
    /// Something that the rebase must have alone was held for too long.
    #[error("table {table}: {what}; run `watershed rebase {table}` again")]
    RebaseBlocked { table: String, what: String },
    /// Rows could not be set aside on disk.
    #[error("rows could not be set aside on disk: {0}")]
    Spill(#[from] std::io::Error),
    /// A step of our own died.
    #[error("internal: {0}")]
    Internal(String),
    /// Asked to stop.
    #[error("interrupted; nothing was changed")]
    Cancelled,
}

impl Error {
    /// Whether the same call may succeed later without anyone changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Lake(e) => e.is_transient(),
            Self::Postgres(e) => postgres_is_transient(e),
            Self::Busy(_) | Self::LostLead(_) => true,
            Self::TooFar { .. } | Self::RebaseBlocked { .. } | Self::Spill(_) => false,
            Self::UnknownTable(_)
            | Self::AmbiguousTable(_)
            | Self::LineageChanged { .. }
            | Self::UnknownArchive { .. }
            | Self::BoundaryAhead { .. }
            | Self::Internal(_)
            | Self::Cancelled => false,
        }
    }
}

fn postgres_is_transient(e: &sqlx::Error) -> bool {
    match e {
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Protocol(_) => true,
        // Connections, resources, serialization, shutdown and start, locks.
        sqlx::Error::Database(d) => d.code().is_some_and(|c| {
            ["08", "53", "40", "57P"].iter().any(|class| c.starts_with(class)) || c == "55P03"
        }),
        _ => false,
    }
}
