//! What goes into a client and what comes out of it.

use std::net::{IpAddr, SocketAddr};

use crate::credentials::Credentials;
use crate::server::{Family, Leg};

/// What a client is started with.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The server.
    pub server: SocketAddr,
    /// The address of the socket. Serves only to tell directions apart.
    pub local: SocketAddr,
    /// Name and password at the server.
    pub credentials: Credentials,
    /// The family that the relayed address shall have.
    pub family: Family,
    /// By what it speaks with the server.
    pub leg: Leg,
}

/// What a client is told.
#[derive(Clone, Copy, Debug)]
pub enum ClientInput<'a> {
    /// A datagram came from the server, or a message in its stream, as [`crate::Stream`] finds it.
    Datagram(&'a [u8]),
    /// A peer shall be allowed to send to the relayed address; needed before sending to it.
    Permit(IpAddr),
    /// A peer shall have a channel, which saves octets. Permits it too.
    Bind(SocketAddr),
    /// Something is to be sent to a peer.
    Send {
        /// The peer.
        peer: SocketAddr,
        /// At most [`crate::DATAGRAM_BYTES_MAX`] octets.
        octets: &'a [u8],
    },
    /// The allocation is not needed any more.
    Release,
    /// The time of [`crate::Client::next_timeout`] has come.
    Timeout,
}

/// What a client wants done, or says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientOutput {
    /// Send a datagram to the server, or a message by [`crate::in_stream`].
    Send(Vec<u8>),
    /// Something happened.
    Event(ClientEvent),
}

/// What happened to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// There is a relayed address.
    Allocated {
        /// The relayed address.
        relayed: SocketAddr,
        /// The address from which the server sees this client.
        mapped: Option<SocketAddr>,
    },
    /// A peer may send now.
    Permitted(IpAddr),
    /// A peer may not, or not any more.
    NotPermitted(IpAddr),
    /// A peer has a channel now.
    Bound(SocketAddr),
    /// A peer has none, or not any more.
    NotBound(SocketAddr),
    /// A peer sent something.
    Data {
        /// The peer.
        peer: SocketAddr,
        /// What it sent.
        octets: Vec<u8>,
    },
    /// Something was not sent: the peer has no permission, or it was too long.
    NotSent(SocketAddr),
    /// The server serves this client no more. Nothing comes after it.
    Lost(Loss),
}

/// Why a server was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It does not answer.
    Silent,
    /// It does not know the allocation, for instance after a restart.
    Forgotten,
    /// It refuses, with this error code (RFC 8489, section 18.3; RFC 8656, section 19): 401
    /// tells of a wrong name or password, 486 and 508 of a crowd.
    Refused(u16),
    /// This side gave it up.
    Released,
}
