//! The IPv4 network of a channel, and the IPv6 network that goes with it.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use enishi_overlay::{NodeId, Rng};
use serde::{Deserialize, Serialize};

/// The widest and the narrowest network that a channel may have.
const PREFIX: std::ops::RangeInclusive<u8> = 8..=30;

/// An IPv4 network: address and prefix length, 8 to 30. The host bits are zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "(Ipv4Addr, u8)", into = "(Ipv4Addr, u8)")]
pub struct Network {
    address: Ipv4Addr,
    prefix: u8,
}

/// Why something is not a network for a channel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// It is not written as address/prefix length.
    #[error("write the network as ADDRESS/LENGTH, for example 10.77.0.0/16")]
    Form,
    /// The prefix length is out of range.
    #[error("the network's prefix length must be between 8 and 30, for example 10.77.0.0/16")]
    Prefix,
    /// The address is one of a host, not of the network.
    #[error("{0} is an address inside the network; the network itself is {1}")]
    HostBits(Ipv4Addr, String),
    /// The network is not for unicast use.
    #[error(
        "{0} is not usable for hosts; take one of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 100.64.0.0/10"
    )]
    Unusable(Ipv4Addr),
}

impl Network {
    /// Makes a network.
    ///
    /// # Errors
    /// See [`NetworkError`].
    pub fn new(address: Ipv4Addr, prefix: u8) -> Result<Self, NetworkError> {
        if !PREFIX.contains(&prefix) {
            return Err(NetworkError::Prefix);
        }
        if address.is_loopback() || address.octets()[0] == 0 || address.octets()[0] >= 224 {
            return Err(NetworkError::Unusable(address));
        }
        let mask = u32::MAX << (32 - prefix);
        let base = Ipv4Addr::from_bits(address.to_bits() & mask);
        if base != address {
            return Err(NetworkError::HostBits(address, format!("{base}/{prefix}")));
        }
        Ok(Self { address, prefix })
    }

    /// Returns the network's address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Returns the prefix length.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Tells whether the address is one that a host of the network may have.
    pub fn has_host(&self, address: Ipv4Addr) -> bool {
        let host = address.to_bits() ^ self.address.to_bits();
        host != 0 && host < self.broadcast_bits()
    }

    /// Tells whether the address lies in the network.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        (address.to_bits() ^ self.address.to_bits()) <= self.broadcast_bits()
    }

    /// Tells whether the two networks have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    /// Draws a host address evenly (document 004, algorithm 2, step 2).
    pub fn random_host(&self, rng: &mut Rng) -> Ipv4Addr {
        let host = 1 + rng.below(u64::from(self.broadcast_bits()) - 1);
        Ipv4Addr::from_bits(self.address.to_bits() | host as u32)
    }

    /// The IPv6 network of a channel: `fd`, 40 bits of the channel's id as global id,
    /// subnet 0 (RFC 4193, section 3.1), with the host part from the node's key, so that
    /// no two nodes can meet in one address.
    pub fn address6(channel: &[u8; 32], node: &NodeId) -> Ipv6Addr {
        let mut octets = [0; 16];
        octets[0] = 0xfd;
        octets[1..6].copy_from_slice(&channel[..5]);
        let host = blake3::derive_key("enishi 1 IPv6 interface id", node.as_bytes());
        octets[8..].copy_from_slice(&host[..8]);
        Ipv6Addr::from(octets)
    }

    /// The IPv6 address that goes with an IPv4 address which a node holds for somebody else: in
    /// the network of the node's own, with the host part from its key and that address. Only
    /// that node can have it, so that it needs no claim either.
    pub fn hosted6(own: Ipv6Addr, node: &NodeId, address: Ipv4Addr) -> Ipv6Addr {
        let mut octets = own.octets();
        let about = [&node.as_bytes()[..], &address.octets()].concat();
        let host = blake3::derive_key("enishi 1 IPv6 interface id of a hosted address", &about);
        octets[8..].copy_from_slice(&host[..8]);
        Ipv6Addr::from(octets)
    }

    /// The prefix length of [`Self::address6`]'s network.
    pub const PREFIX6: u8 = 64;

    fn broadcast_bits(&self) -> u32 {
        u32::MAX >> self.prefix
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = text.trim().split_once('/').ok_or(NetworkError::Form)?;
        let address = address.parse().map_err(|_| NetworkError::Form)?;
        let prefix = prefix.parse().map_err(|_| NetworkError::Form)?;
        Self::new(address, prefix)
    }
}

impl TryFrom<(Ipv4Addr, u8)> for Network {
    type Error = NetworkError;

    fn try_from((address, prefix): (Ipv4Addr, u8)) -> Result<Self, NetworkError> {
        Self::new(address, prefix)
    }
}

impl From<Network> for (Ipv4Addr, u8) {
    fn from(network: Network) -> Self {
        (network.address, network.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_parse_and_wrong_ones_say_why() {
        let network: Network = "10.77.0.0/16".parse().unwrap();
        assert_eq!(network.to_string(), "10.77.0.0/16");
        assert_eq!("10.77.0.0".parse::<Network>(), Err(NetworkError::Form));
        assert_eq!("10.77.0.0/31".parse::<Network>(), Err(NetworkError::Prefix));
        assert!(matches!(
            "224.0.0.0/8".parse::<Network>(),
            Err(NetworkError::Unusable(_))
        ));
        let inside = "10.77.1.0/16".parse::<Network>().unwrap_err().to_string();
        assert!(inside.ends_with("10.77.0.0/16"), "{inside}");
    }

    #[test]
    fn overlapping_networks_are_noticed_either_way() {
        let network = |text: &str| text.parse::<Network>().unwrap();
        let (wide, narrow) = (network("10.77.0.0/16"), network("10.77.3.0/24"));
        assert!(wide.overlaps(&narrow) && narrow.overlaps(&wide) && wide.overlaps(&wide));
        assert!(!narrow.overlaps(&network("10.77.4.0/24")));
        assert!(wide.contains("10.77.255.255".parse().unwrap()));
        assert!(!wide.contains("10.78.0.0".parse().unwrap()));
    }

    #[test]
    fn drawn_hosts_are_hosts() {
        let mut rng = Rng::from_seed([1; 32]);
        for text in ["10.0.0.0/8", "192.168.7.0/24", "192.168.7.8/30"] {
            let network: Network = text.parse().unwrap();
            assert!((0..1000).all(|_| network.has_host(network.random_host(&mut rng))));
        }
        let small: Network = "192.168.7.8/30".parse().unwrap();
        assert!(!small.has_host("192.168.7.8".parse().unwrap()));
        assert!(!small.has_host("192.168.7.11".parse().unwrap()));
    }
}
