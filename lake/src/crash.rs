//! Crash points: named places where a test makes the process die as if by kill -9. Knows nothing else.

use std::sync::OnceLock;

/// The environment variable that names the point to die at.
pub const VARIABLE: &str = "WATERSHED_CRASH_AT";

fn target() -> Option<&'static str> {
    static TARGET: OnceLock<Option<String>> = OnceLock::new();
    TARGET.get_or_init(|| std::env::var(VARIABLE).ok().filter(|v| !v.is_empty())).as_deref()
}

/// Ends the process at once, without unwinding, flushing or running destructors, if `WATERSHED_CRASH_AT` equals `name`.
/// Costs one comparison otherwise.
pub fn point(name: &str) {
    if target() == Some(name) {
        // Nothing of the process may tidy up: what it leaves behind is what the test is about.
        std::process::abort();
    }
}
