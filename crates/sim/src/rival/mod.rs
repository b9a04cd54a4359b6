//! Rival overlays, written as well as we can, to be measured beside our own.
//!
//! A comparison is worth as much as the rival in it. So each one gets what its best
//! implementations do, and a choice between its paper's way and theirs is an option of its
//! configuration where it matters.

pub mod kademlia;

pub use kademlia::Kademlia;
