//! Ingest: how records become rows of tiered tables, and how those rows reach the lake.
//!
//! A record's life, with the module that each step lives in:
//!
//! ```text
//! file | HTTP body | generator      decode::input, http, generate
//!   -> records of bounded size      decode::frame
//!   -> named fields                 decode::{json, csv, web, syslog}, decode::envelope
//!   -> the columns of the table     map
//!   -> a batch of COPY rows         batch
//!   -> rows + position, one commit  sink (dead letters in the same commit)
//! ```
//!
//! `load` remembers what has been loaded; `archiver` ships committed rows to the lake; `verify` compares the two
//! stores; `rebase` brings them together after PostgreSQL lost transactions; `retention` lets
//! old days leave PostgreSQL, and the lake. Nothing here knows the wire protocol, the router or the query engine.

pub mod archiver;
pub mod batch;
pub mod decode;
pub mod error;
pub mod forward;
pub mod generate;
pub mod http;
pub mod kafka;
pub mod letters;
pub mod load;
pub mod map;
pub mod metrics;
pub mod pressure;
pub mod rebase;
pub mod retention;
pub mod sink;
pub mod target;
pub mod topics;
pub mod verify;
pub mod vitals;

pub use error::{Error, Result};
