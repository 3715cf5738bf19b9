//! No code: one set of dependency features for every selection of crates (see Cargo.toml).
