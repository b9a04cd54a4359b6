//! TURN (RFC 8656) with the programs and servers of others; nodes need none of it among themselves.
//!
//! | part | does |
//! |---|---|
//! | [`server`] | lets programs with a password have an address of this node |
//! | [`client`] | has this node be reached at an address of somebody's server |
//! | `line` | what is spoken by with that server: datagrams, or a stream |
//! | `streams` | clients that come to this node's server by TCP |
//! | `queue` | what waits to be written into a stream |
//! | `permits` | whom that server lets in |
//! | `places` | who of them has a socket |
//! | [`url`] | how such a server is named |
//! | [`kept`] | who may use the server, and which others this node uses, on disk |
//!
//! What the protocol is, and what is allowed, is decided in `enishi_stun`; here are the sockets.

pub mod client;
pub mod kept;
mod line;
mod permits;
mod places;
mod queue;
pub mod server;
mod streams;
pub mod url;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use enishi_overlay::Time;
pub use enishi_stun::NOISY_LOG_TARGETS;

/// The longest datagram of UDP.
const DATAGRAM_BYTES_MAX: usize = 1 << 16;

/// Our time, as a protocol machine that was started then counts it.
fn time(started: Instant) -> Time {
    let micros = u64::try_from(started.elapsed().as_micros());
    Time::from_micros(micros.unwrap_or(u64::MAX))
}

/// An address as it is without a socket that takes both versions of IP.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// An address as a socket of this family takes it.
fn for_socket(local: SocketAddr, address: SocketAddr) -> SocketAddr {
    match (local, address.ip()) {
        (SocketAddr::V6(_), IpAddr::V4(v4)) => {
            SocketAddr::new(v4.to_ipv6_mapped().into(), address.port())
        }
        _ => address,
    }
}

/// A panic elsewhere does not make what is guarded useless: every change is complete.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
