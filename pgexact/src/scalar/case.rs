//! The guard of functions that depend on a locale's letters.

use crate::PgError;

/// The text, if it is ASCII: only there do all locales that are allowed agree on upper and lower case.
pub(super) fn ascii(text: &str) -> Result<&str, PgError> {
    match text.is_ascii() {
        true => Ok(text),
        false => Err(PgError::not_exact("upper and lower case beyond ASCII are the locale's")),
    }
}
