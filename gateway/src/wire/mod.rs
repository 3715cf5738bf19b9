//! The PostgreSQL wire format: framing and the few messages that the gateway itself reads or makes.
//! What both halves of a SCRAM login compute stands in [`scram`].
//! ✗ sockets, session state, what a statement means.

pub mod frame;
pub mod message;
pub mod scram;
pub mod startup;

#[cfg(test)]
mod tests;
