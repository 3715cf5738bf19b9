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

    /// 22012, as every division operator raises it.
    pub fn division_by_zero() -> Self {
        Self::new("22012", "division by zero")
    }

    /// 22008, as every timestamp function raises it.
    pub fn timestamp_out_of_range() -> Self {
        Self::new("22008", "timestamp out of range")
    }
}
