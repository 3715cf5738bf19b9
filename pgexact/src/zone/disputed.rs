//! The zones whose history before 1970 is not the same in every build of the IANA database.

/// Zones whose history before 1970 depends on how the IANA database was built, sorted.
pub const DISPUTED_BEFORE_1970: &[&str] = &[];
