//! Networks behind a member: what it routes for the others.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most networks behind one member.
pub const ROUTES_MAX: usize = 16;

/// An IP network of either version: an address, and how many of its bits count. The others are
/// zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "(IpAddr, u8)", into = "(IpAddr, u8)")]
pub struct Prefix {
    address: IpAddr,
    bits: u8,
}

/// Why something is no IP network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// It is not written as address/length.
    #[error("write a network as ADDRESS/LENGTH, for example 192.168.7.0/24 or fd12::/48")]
    Form,
    /// The address is one of a host, not of the network.
    #[error("{0} is an address inside the network; the network itself is {1}")]
    HostBits(IpAddr, Prefix),
}

impl Prefix {
    /// The network of everything, of either version.
    pub const EVERYTHING: [Self; 2] = [
        Self {
            address: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
            bits: 0,
        },
        Self {
            address: IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
            bits: 0,
        },
    ];

    /// Makes a network.
    ///
    /// # Errors
    /// See [`PrefixError`].
    pub fn new(address: IpAddr, bits: u8) -> Result<Self, PrefixError> {
        let network = match address {
            IpAddr::V4(four) if bits <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                IpAddr::V4((four.to_bits() & mask).into())
            }
            IpAddr::V6(six) if bits <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                IpAddr::V6((six.to_bits() & mask).into())
            }
            IpAddr::V4(_) | IpAddr::V6(_) => return Err(PrefixError::Form),
        };
        let prefix = Self {
            address: network,
            bits,
        };
        match network == address {
            true => Ok(prefix),
            false => Err(PrefixError::HostBits(address, prefix)),
        }
    }

    /// The network of so many bits that an address is in; all of them when the address has
    /// fewer.
    pub fn around(address: IpAddr, bits: u8) -> Self {
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.min(most);
        Self {
            address: Self::truncated(address, bits),
            bits,
        }
    }

    /// The network of one address.
    pub fn of_host(address: IpAddr) -> Self {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        Self { address, bits }
    }

    /// Returns the network's address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Returns how many bits count.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Tells whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let of = |address| Self::truncated(address, self.bits);
        address.is_ipv4() == self.address.is_ipv4() && of(address) == self.address
    }

    /// Tells whether the two have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    /// Tells whether it is everything.
    pub fn is_everything(&self) -> bool {
        self.bits == 0
    }

    fn truncated(address: IpAddr, bits: u8) -> IpAddr {
        match Self::new(address, bits) {
            Ok(prefix) | Err(PrefixError::HostBits(_, prefix)) => prefix.address,
            Err(PrefixError::Form) => address,
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, bits) = text.trim().split_once('/').ok_or(PrefixError::Form)?;
        let address = address.parse().map_err(|_| PrefixError::Form)?;
        let bits = bits.parse().map_err(|_| PrefixError::Form)?;
        Self::new(address, bits)
    }
}

impl TryFrom<(IpAddr, u8)> for Prefix {
    type Error = PrefixError;

    fn try_from((address, bits): (IpAddr, u8)) -> Result<Self, PrefixError> {
        Self::new(address, bits)
    }
}

impl From<Prefix> for (IpAddr, u8) {
    fn from(prefix: Prefix) -> Self {
        (prefix.address, prefix.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn networks_contain_their_addresses() {
        let lan = prefix("192.168.7.0/24");
        assert!(lan.contains("192.168.7.255".parse().unwrap()));
        assert!(!lan.contains("192.168.8.0".parse().unwrap()));
        assert!(!lan.contains("::ffff:192.168.7.1".parse().unwrap()));
        let [four, six] = Prefix::EVERYTHING;
        assert!(four.contains("8.8.8.8".parse().unwrap()) && four.overlaps(&lan));
        assert!(six.contains("fe80::1".parse().unwrap()) && !six.overlaps(&lan));
        assert!(prefix("fd00::/8").overlaps(&prefix("fd12:3456::/32")));
        assert!(Prefix::of_host("10.0.0.1".parse().unwrap()).contains("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_network_is_refused_with_the_right_one() {
        assert_eq!("10.0.0.0/33".parse::<Prefix>(), Err(PrefixError::Form));
        assert_eq!("10.0.0.0".parse::<Prefix>(), Err(PrefixError::Form));
        let error = "10.1.2.3/16".parse::<Prefix>().unwrap_err();
        assert!(error.to_string().contains("10.1.0.0/16"), "{error}");
        let hostile = postcard::to_stdvec(&("10.1.2.3".parse::<IpAddr>().unwrap(), 16_u8));
        assert!(postcard::from_bytes::<Prefix>(&hostile.unwrap()).is_err());
    }
}
