//! The structured overlay: ids, ring, links, routing, wire format.
//!
//! Pure: no sockets, no clock, no randomness of its own. Input in, effects out,
//! one deadline.

pub mod contact;
pub mod id;
pub mod time;

pub use contact::Contact;
pub use id::{Keypair, NodeId, OverlayId};
pub use time::Time;
