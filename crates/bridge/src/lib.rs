//! Datagrams through plain HTTP/1.1, for networks where neither UDP nor TCP, neither CONNECT nor
//! WebSocket passes.
//!
//! ```text
//!   client                     proxy                       server
//!     | -- POST /x  packets ---> | ----------------------->  |   up: two or three at a time
//!     | <------ what waits ----- | <-----------------------  |
//!     | -- GET /y/poll --------> | ----------------------->  |   down: two or three wait there, 20 s at most,
//!     | <-------- packets ------ | <-----------------------  |   and return when there is something
//! ```
//!
//! Where a proxy passes on what comes as it comes, one request or reply goes on as packets come, and does for
//! many: a stream.
//!
//! What is carried are opaque datagrams of at most [`DATAGRAM_BYTES_MAX`] octets. They may be lost and
//! may change places; whoever uses the bridge (QUIC) lives with that, and protects what it sends:
//! a proxy reads everything, and could take a session over, so the bridge promises nothing to those
//! who send plain text.
//!
//! Proxies forbid, cache, cut and alter. Requests that do not pass are told by their answers, or by a
//! checksum, and are put another way: [`probe`] finds a way before the first datagram, and
//! [`exchange`] goes on adapting.
//!
//! | part | does |
//! |---|---|
//! | [`frame`] | what a request and a reply carry: numbers, packets, a checksum |
//! | [`way`] | the dress of a frame: method, encoding, content type, user agent |
//! | [`exchange`] | both ends of a session, without sockets and clock |
//! | [`probe`] | what passes a proxy: tried in order, remembered, told in words |
//! | [`auth`] | what a proxy asks for: Basic and Digest |
//! | [`tunnel`] | the simpler ways: a stream by CONNECT, or by WebSocket, where a proxy allows it |
//! | [`websocket`] | streams within a WebSocket, and the listener's side of it |
//! | [`dial`] | streams to a proxy, plain or by TLS |
//! | [`client`], [`server`] | thin shells of tokio and hyper around these |

pub mod auth;
mod body;
pub mod client;
pub mod dial;
pub mod exchange;
pub mod frame;
mod patience;
pub mod probe;
pub mod server;
pub mod tunnel;
pub mod way;
pub mod websocket;

use std::time::Duration;

/// The time since some moment before, the same for one end as long as it lives.
pub type Time = Duration;

/// The longest datagram that is carried, in octets.
pub const DATAGRAM_BYTES_MAX: usize = 1_500;

/// The longest frame, in octets: some proxies take tens of milliseconds for each request, however long
/// it is.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// The frame that is sent when nothing longer passes, in octets: one QUIC packet of the smallest
/// length that all paths must take (RFC 9000, section 14), and what is around it.
pub const FRAME_BYTES_FLOOR: usize = 1_280;

/// What the slowest network carries that is used at all, in octets each second.
pub const SLOW_BYTES_PER_S: u32 = 8_192;

/// Connections of one client to its proxy: a stream and two polls, two streams upward and two or three requests.
pub const CONNECTIONS_MAX: usize = 8;

/// Draws what an end of an exchange begins its numbers with.
///
/// # Panics
/// When the system has no random octets, which no end can do without.
fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).expect("the system gives random octets");
    seed
}
