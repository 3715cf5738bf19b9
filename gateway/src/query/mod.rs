//! What is known of statements after they ran: one record each, kept for the virtual tables.
//! ✗ wire and Arrow types.

pub mod fingerprint;
pub mod log;
pub mod record;

#[cfg(test)]
mod tests;
