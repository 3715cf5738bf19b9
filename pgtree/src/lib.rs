//! PostgreSQL's analyzed query trees as the server prints them (`nodeToString`).
//!
//! Four layers, each usable without the next: [`read`] turns the text into generic nodes, bounded in size and depth;
//! [`tree`] is the typed tree of a SELECT; [`value`] decodes constants (`Const` datums in the server's memory order,
//! and the wire's binary format); [`oid`] names the types, functions, operators and aggregates that callers decide by.
//!
//! The contract is PostgreSQL 15 on a little-endian machine; the forms that 16 to 18 print are read too. Fields that are not known here are
//! skipped; a node that is not known becomes [`tree::Expr::Unknown`] and leaves the decision to the caller.
//!
//! Does no I/O, knows no Arrow, no wire protocol and no policy of what may run where.

pub mod oid;
pub mod read;
pub mod tree;
pub mod value;

pub use read::{Limits, ReadError};
pub use tree::{Query, TreeError};
pub use value::{Numeric, Value, ValueError};
