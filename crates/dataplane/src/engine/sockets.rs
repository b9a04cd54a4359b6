//! The sockets of the engine: one for good, and others for a while, by which a translation is found
//! a way through ([`super::punch`]).

use std::io;
use std::net::SocketAddr;

use slab::Slab;

use crate::relay::{HEADER_BYTES, Token};
use crate::socket::Socket;

/// The most sockets besides the first one: as many as are opened towards one peer, and some by which
/// others are reached.
pub(super) const OTHERS_MAX: usize = 320;

/// Which socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Via(u16);

impl Via {
    /// The first one, which is always there.
    pub(super) const FIRST: Self = Self(0);

    pub(super) fn number(self) -> u16 {
        self.0
    }

    pub(super) fn from_number(number: u16) -> Self {
        Self(number)
    }

    fn key(self) -> Option<usize> {
        usize::from(self.0).checked_sub(1)
    }
}

/// A socket of this host and an address of a peer: the candidate pair of RFC 8445, section 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) via: Via,
    pub(super) address: SocketAddr,
    /// If that is not the peer's but a relay's: by which token it passes on.
    pub(super) relay: Option<Token>,
}

impl Pair {
    /// Returns a pair that goes straight.
    pub(super) fn straight(via: Via, address: SocketAddr) -> Self {
        let relay = None;
        Self {
            via,
            address,
            relay,
        }
    }

    /// Tells whether no relay is between.
    pub(super) fn is_straight(&self) -> bool {
        self.relay.is_none()
    }

    /// Returns by how much a datagram is longer on this way than by itself.
    pub(super) fn header_bytes(&self) -> usize {
        self.relay.map_or(0, |_| HEADER_BYTES)
    }
}

impl From<SocketAddr> for Pair {
    fn from(address: SocketAddr) -> Self {
        Self::straight(Via::FIRST, address)
    }
}

/// All of them.
pub(super) struct Sockets {
    first: Socket,
    others: Slab<Socket>,
}

impl Sockets {
    pub(super) fn new(first: Socket) -> Self {
        let others = Slab::new();
        Self { first, others }
    }

    /// Returns the first one.
    pub(super) fn first(&self) -> &Socket {
        &self.first
    }

    /// Returns a socket; none when it is closed.
    pub(super) fn get(&self, via: Via) -> Option<&Socket> {
        match via.key() {
            None => Some(&self.first),
            Some(key) => self.others.get(key),
        }
    }

    /// Opens one more, on any port.
    ///
    /// # Errors
    /// When there are [`OTHERS_MAX`], or the system refuses.
    pub(super) fn open(&mut self) -> io::Result<Via> {
        if self.others.len() >= OTHERS_MAX {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let key = self.others.insert(Socket::bind(0)?);
        u16::try_from(key + 1).map(Via).map_err(io::Error::other)
    }

    /// Closes one, unless it is the first.
    pub(super) fn close(&mut self, via: Via) -> Option<Socket> {
        let key = via.key()?;
        self.others.try_remove(key)
    }

    /// Returns those besides the first one.
    pub(super) fn others(&self) -> Vec<Via> {
        let keys = self.others.iter().map(|(key, _)| key + 1);
        let numbers = keys.filter_map(|number| u16::try_from(number).ok());
        numbers.map(Via).collect()
    }

    /// Returns the ports of all.
    pub(super) fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        let others = self.others.iter().map(|(_, socket)| socket);
        others.chain([&self.first]).map(Socket::port)
    }
}
