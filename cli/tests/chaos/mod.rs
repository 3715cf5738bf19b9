//! Parts of the proof of exactly once (`exactly_once.rs`): what producers know, what they do, what is done to the machine, and how
//! all of it is compared in the end.

pub mod compare;
pub mod faults;
pub mod ledger;
pub mod processes;
pub mod producers;
