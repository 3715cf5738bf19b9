//! The error that PostgreSQL would have raised. Knows SQLSTATEs; does not know how errors reach a client.

/// An error with the SQLSTATE and the primary message that PostgreSQL 15 gives for the same cause.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PgError {
    /// Five characters, such as `22012`.
    pub sqlstate: &'static str,
    /// PostgreSQL's message in English, without severity.
    pub message: String,
}

impl PgError {
    pub fn new(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Self { sqlstate, message: message.into() }
    }

    /// Not an error of PostgreSQL's, which would go on: the exact result cannot be computed here, and the
    /// statement belongs to PostgreSQL. XX000.
    pub fn not_exact(message: impl Into<String>) -> Self {
        Self::new("XX000", message)
    }

    /// Whether this came from [`Self::not_exact`].
    pub fn is_not_exact(&self) -> bool {
        self.sqlstate == "XX000"
    }

    /// 22012, as every division operator raises it.
    pub fn division_by_zero() -> Self {
        Self::new("22012", "division by zero")
    }

    /// 22008, as every timestamp function raises it.
    pub fn timestamp_out_of_range() -> Self {
        Self::new("22008", "timestamp out of range")
    }
}
