//! How peers are reached that no socket of this node reaches.
//!
//! | part | does |
//! |---|---|
//! | [`carrier`] | hands packets to nodes that carry them, and carries those of others |
//! | [`frame`] | how a packet looks on its way |
//! | [`ways`] | by way of whom each peer is reached; no socket, no clock |

mod carrier;
mod frame;
mod ways;

pub use carrier::{Carrier, Inlet};
pub use frame::is_frame as is_carried;
