//! A network in user space: TCP, UDP and ICMP echo at this node's addresses in a channel,
//! without a network interface and without any right.
//!
//! ```text
//!   engine <── queue of packets ──> link   smoltcp: Interface, sockets   streams, sockets
//!             (dataplane::device)     └──────── core, behind a lock ────────┘
//!                                       driver: polls when something is to do
//! ```
//!
//! One [`Stack`] serves one channel. Its sockets are used like those of tokio: each reads and
//! writes the buffers of its smoltcp socket under the lock, and wakes the driver. Everything
//! is bounded: [`SOCKETS_MAX`] sockets with buffers of [`BUFFER_BYTES`] in each direction,
//! [`BACKLOG_MAX`] connections that wait at a port.

mod core;
mod driver;
mod link;
mod tcp;
mod udp;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use enishi_dataplane::device::Port;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::core::Core;
use crate::bell;

pub use tcp::{Listener, Stream};
pub use udp::Socket;

/// The most sockets of a stack; connections that end count until they have ended.
pub const SOCKETS_MAX: usize = 256;

/// Octets of the buffers of a socket in each direction, and so the most that is under way in a
/// connection: 200 Mbit/s at a round trip of 20 ms. The system gives memory as it is used.
pub const BUFFER_BYTES: usize = 512 * 1024;

/// The most connections to a port that nobody has taken yet.
pub const BACKLOG_MAX: usize = 64;

/// How long a connection may take to be made.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(15);

/// The network in user space of one channel; cheap to clone. It ends when it is closed.
#[derive(Clone)]
pub struct Stack(Arc<Shared>);

/// What the sockets and the driver share.
struct Shared {
    core: Mutex<Core>,
    /// A socket was used: there may be something to send.
    used: Notify,
    closed: CancellationToken,
}

impl Stack {
    /// Starts a stack at a port of the engine, with this node's addresses and the lengths of
    /// their networks' prefixes, for packets of `mtu` octets. Must be called within a tokio
    /// runtime, which drives it.
    ///
    /// # Errors
    /// When the system gives no random numbers, or the port cannot be waited for.
    pub fn start(port: Port, addresses: [(IpAddr, u8); 2], mtu: u16) -> io::Result<Self> {
        let bell = bell::of(&port)?;
        let shared = Arc::new(Shared {
            core: Mutex::new(Core::new(addresses, mtu)?),
            used: Notify::new(),
            closed: CancellationToken::new(),
        });
        tokio::spawn(driver::drive(Arc::clone(&shared), port, bell));
        Ok(Self(shared))
    }

    /// Connects to a member.
    ///
    /// # Errors
    /// [`io::ErrorKind::ConnectionRefused`] when nobody listens there,
    /// [`io::ErrorKind::HostUnreachable`] when nobody has the address,
    /// [`io::ErrorKind::TimedOut`] after 15 seconds, [`io::ErrorKind::QuotaExceeded`] when
    /// there are too many sockets.
    pub async fn connect(&self, to: SocketAddr) -> io::Result<Stream> {
        let connecting = Stream::connect(&self.0, to);
        let connected = tokio::time::timeout(CONNECT_TIME_MAX, connecting).await;
        connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Takes connections to a port of this node, at both addresses.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] when another does so.
    pub fn listen(&self, port: u16) -> io::Result<Listener> {
        Listener::new(Arc::clone(&self.0), port)
    }

    /// Opens a socket for datagrams at a port of this node, or at any for 0.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`], or [`io::ErrorKind::QuotaExceeded`] when there are too
    /// many sockets.
    pub fn bind(&self, port: u16) -> io::Result<Socket> {
        Socket::bind(Arc::clone(&self.0), port)
    }

    /// Tells whether it is the same stack.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Ends the stack: its connections break off.
    pub fn close(&self) {
        self.0.closed.cancel();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Core> {
        // Every change is complete, whatever panics after it.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
