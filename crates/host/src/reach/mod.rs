//! How this node is reached, and how it reaches peers that no socket of it reaches.
//!
//! | part | does |
//! |---|---|
//! | `carrier` | hands packets to nodes that carry them, and carries those of others |
//! | `frame` | how a packet looks on its way |
//! | `mapping` | ports that a router maps to this node |
//! | `ways` | by way of whom each peer is reached; no socket, no clock |

mod carrier;
mod frame;
mod mapping;
mod ways;

pub use carrier::{Carrier, Inlet};
pub use frame::is_frame as is_carried;
pub(crate) use mapping::{Mapped, Mapping};
