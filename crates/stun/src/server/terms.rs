//! What goes into a server and what comes out of it.

use std::net::SocketAddr;

use crate::budget::Rate;
use crate::credentials::Credentials;
use crate::peers::Prefix;

/// The longest datagram that is relayed, in octets: an Ethernet jumbo frame's worth.
pub const DATAGRAM_BYTES_MAX: usize = 9_000;

/// What a server is started with.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The name of what the passwords are for, shown to people; usually a domain. Has 1 to 127
    /// characters, or else nobody is let in.
    pub realm: String,
    /// The address that clients send to. Serves only to tell it from relayed addresses.
    pub listen: SocketAddr,
    /// Who may allocate.
    pub users: Vec<Credentials>,
    /// The families of which relayed addresses can be had.
    pub families: Vec<Family>,
    /// Which peers may be reached.
    pub policy: Policy,
    /// How much of everything.
    pub limits: Limits,
}

/// Which peers clients may reach. See [`crate::allowed`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// All addresses of this node, also those by which others know it, and the virtual networks that
    /// it is in.
    pub own: Vec<Prefix>,
    /// Ranges that are allowed besides the Internet.
    pub extra: Vec<Prefix>,
}

/// How much clients may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most allocations.
    pub allocations_max: usize,
    /// The most allocations of one user.
    pub allocations_per_user_max: usize,
    /// The most allocations of one IPv4 address, or of the /64 of an IPv6 address.
    pub allocations_per_source_max: usize,
    /// The most permissions of one allocation, and the most channels.
    pub peers_max: usize,
    /// What one allocation may carry, both ways together, in octets.
    pub octets_each: Rate,
    /// What all allocations may carry together, in octets.
    pub octets_all: Rate,
}

impl Default for Limits {
    /// A hundred allocations of 1 MB/s, and 8 MB/s in all.
    fn default() -> Self {
        Self {
            allocations_max: 100,
            allocations_per_user_max: 20,
            allocations_per_source_max: 20,
            peers_max: 64,
            octets_each: Rate {
                per_s: 1_000_000,
                burst: 2_000_000,
            },
            octets_all: Rate {
                per_s: 8_000_000,
                burst: 8_000_000,
            },
        }
    }
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// By what a client and its server speak (RFC 8656, section 2.1). To peers it is UDP always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leg {
    /// Datagrams.
    #[default]
    Udp,
    /// A stream: see [`crate::Stream`].
    Tcp,
}

/// Where a client is, and by what it speaks: both tell it from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Client {
    pub(super) at: SocketAddr,
    pub(super) leg: Leg,
}

/// What a server is told.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// A datagram came to the address that clients send to.
    FromClient {
        /// Whose it is.
        source: SocketAddr,
        /// Its octets.
        datagram: &'a [u8],
    },
    /// A message came in the stream of a client, as [`crate::Stream`] finds it.
    FromStream {
        /// Whose it is: the other end of the stream.
        source: SocketAddr,
        /// Its octets.
        message: &'a [u8],
    },
    /// The stream of a client has ended, and with it its allocation.
    StreamEnded(SocketAddr),
    /// A datagram came to a relayed address.
    FromPeer {
        /// The relayed address.
        relayed: SocketAddr,
        /// Whose it is.
        source: SocketAddr,
        /// Its octets.
        datagram: &'a [u8],
    },
    /// What became of an [`Action::Open`], which must be said once of each.
    Opened {
        /// What was to be opened.
        opening: Opening,
        /// The relayed address, as peers see it; `None` when there is none to be had.
        relayed: Option<SocketAddr>,
    },
    /// The time of [`crate::Server::next_timeout`] has come.
    Timeout,
}

/// What a server wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a datagram to a client, from the address that clients send to.
    ToClient {
        /// The client.
        to: SocketAddr,
        /// The octets.
        datagram: Vec<u8>,
    },
    /// Write a message into the stream of a client, by [`crate::in_stream`].
    ToStream {
        /// The other end of the stream.
        to: SocketAddr,
        /// The octets.
        message: Vec<u8>,
    },
    /// Send a datagram to a peer, from a relayed address.
    ToPeer {
        /// The relayed address.
        relayed: SocketAddr,
        /// The peer.
        to: SocketAddr,
        /// The octets.
        datagram: Vec<u8>,
    },
    /// Open a socket and say [`Input::Opened`].
    Open(Opening),
    /// Close the socket of a relayed address.
    Close(SocketAddr),
}

/// A socket that is wanted for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Opening {
    /// Tells it from all others.
    pub(super) number: u64,
    /// The client that it is for.
    pub(super) client: Client,
    /// The family of its address.
    pub family: Family,
    /// The number of its port must be even, for RTP (RFC 8656, section 18.7).
    pub even_port: bool,
}

/// A client that has an allocation, or is about to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    /// Where it is.
    pub client: SocketAddr,
    /// By what it speaks.
    pub leg: Leg,
    /// Whose credentials it has.
    pub user: String,
    /// Its relayed addresses: one, or one of each family.
    pub relayed: Vec<SocketAddr>,
    /// How many peers have its permission.
    pub peers: usize,
}

/// What happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests answered with 401 or 438: a client's first ones, or a wrong password.
    pub challenged_messages: u64,
    /// Allocations refused because there were too many.
    pub refused_allocations: u64,
    /// Requests refused because of a peer that must not be reached.
    pub denied_messages: u64,
    /// Requests refused because an allocation has too many peers.
    pub crowded_messages: u64,
    /// Requests not looked at, since their source sent too many.
    pub throttled_messages: u64,
    /// Datagrams without a meaning here, or longer than [`DATAGRAM_BYTES_MAX`].
    pub ignored_messages: u64,
    /// Octets dropped because a budget was used up.
    pub dropped_octets: u64,
    /// Octets sent to peers.
    pub to_peers_octets: u64,
    /// Octets sent to clients on behalf of peers.
    pub to_clients_octets: u64,
}
