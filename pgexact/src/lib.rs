//! What PostgreSQL computes and prints, reproduced exactly on Arrow arrays.
//!
//! Every function here has one standard: the result is the one PostgreSQL 15 would give for the same
//! values, to the byte where it is text or wire format, and the error is PostgreSQL's (SQLSTATE and
//! message) where it would raise one. What cannot be reproduced is refused, so that the statement
//! stays on PostgreSQL.
//!
//! Values have one representation everywhere (see `lake::types`): timestamps are microseconds and dates
//! days since 1970, `infinity` is the largest and `-infinity` the smallest integer, a numeric of fixed
//! scale is a decimal, any other numeric is PostgreSQL's own text.
//!
//! Knows Arrow arrays, PostgreSQL's arithmetic, calendar, time zones and wire formats. Does not touch
//! I/O, SQL, query plans or catalogs.

pub mod arith;
mod calendar;
pub mod cast;
pub mod cut;
pub mod datetime;
pub mod deviation;
pub mod encode;
mod error;
pub mod extract;
pub mod extreme;
pub mod fixed;
mod float;
pub mod interval;
pub mod like;
pub mod numeric;
pub mod ordered;
pub mod real;
pub mod regexp;
pub mod scalar;
pub mod series;
#[cfg(test)]
mod testpg;
pub mod text;
pub mod tochar;
pub mod zone;

pub use error::PgError;
pub use zone::Zone;
