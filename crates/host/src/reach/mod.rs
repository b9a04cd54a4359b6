//! How this node is reached, and how it reaches peers that no socket of it reaches.
//!
//! | part | does |
//! |---|---|
//! | `carrier` | hands packets to nodes that carry them, and carries those of others |
//! | `frame` | how a packet looks on its way |
//! | `lifetime` | for how long the site's router keeps silent ways open |
//! | `link` | streams to peers where no datagram passes: TCP, CONNECT, HTTP |
//! | `mapping` | ports that a router maps to this node |
//! | `ways` | by way of whom each peer is reached; no socket, no clock |

mod carrier;
mod frame;
mod lifetime;
pub(crate) mod link;
mod mapping;
mod ways;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use carrier::{Carrier, Inlet, Rates, Wants};
pub use frame::is_frame as is_carried;
pub(crate) use lifetime::{Kept, measure};
pub(crate) use mapping::{Mapped, Mapping};

/// A panic elsewhere does not make what is guarded useless: every change is complete.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
