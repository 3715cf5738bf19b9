//! What the services share: tables as versioned sets of files, and what each version covers.
//!
//! Glossary
//! - *lake table*: one Delta table of Parquet files below the lake's root, fed from one tiered table.
//! - *version*: a committed Delta version: a set of files, and the number of the archive it holds.
//! - *archive*: one run of the archiver; its number names a row of `watershed_control.archives`.
//! - *boundary*: a PostgreSQL snapshot; a version holds exactly the rows that its boundary sees.
//! - *tail*: the rows that a reader sees in PostgreSQL and the boundary does not.
//!
//! Knows no wire protocol, no users' SQL, no DataFusion and no message broker.

pub mod boundary;
pub mod checksum;
pub mod crash;
pub mod error;
pub mod fault;
pub mod log;
pub mod pgcopy;
pub mod reader;
pub mod spec;
pub mod stats;
pub mod store;
pub mod types;
pub mod writer;

pub use error::{Error, Result};
pub use url::Url;
