//! Rival overlays, written as well as we can, to be measured beside our own.
//!
//! A comparison is worth as much as the rival in it. So each one gets what its best
//! implementations do, and where its paper leaves a choice, the choice that measures
//! best here.

pub mod kademlia;
pub mod trial;

pub use kademlia::Kademlia;
