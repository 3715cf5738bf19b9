//! The PostgreSQL wire format: framing and the few messages that the gateway itself reads or makes.
//! ✗ sockets, session state, what a statement means.

pub mod frame;
pub mod message;
pub mod startup;

#[cfg(test)]
mod tests;
