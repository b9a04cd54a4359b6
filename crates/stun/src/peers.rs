//! Which peers a TURN server may be made to talk to.
//!
//! A TURN server stands inside a site and sends where its clients want it to. Without a
//! rule it is a door: to the services that listen on loopback only, to the printers of the
//! office, to the addresses where clouds tell a machine its passwords (RFC 8656, section 21.3.2,
//! and coturn's `denied-peer-ip`). So everything is refused that is not plainly the Internet's,
//! however it is written down, unless the operator allows it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

/// A range of addresses: those that share their first bits with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    network: IpAddr,
    bits: u32,
}

/// A text that is no range of addresses.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not a range of addresses such as 192.168.1.0/24 or fd00::/8")]
pub struct NotPrefix;

/// Why a peer is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// It is of the node itself.
    Own,
    /// It is not an address of one host of the Internet.
    Special,
}

/// What is not a host of the Internet, by the registries of RFC 6890.
const SPECIAL: &[(IpAddr, u32)] = &[
    (v4(0, 0, 0), 8),        // this network, RFC 791
    (v4(10, 0, 0), 8),       // private, RFC 1918
    (v4(100, 64, 0), 10),    // carriers' own, RFC 6598
    (v4(127, 0, 0), 8),      // loopback, RFC 1122
    (v4(169, 254, 0), 16),   // link-local, RFC 3927
    (v4(172, 16, 0), 12),    // private, RFC 1918
    (v4(192, 0, 0), 24),     // protocol assignments, RFC 6890
    (v4(192, 0, 2), 24),     // documentation, RFC 5737
    (v4(192, 88, 99), 24),   // 6to4 relays, RFC 7526
    (v4(192, 168, 0), 16),   // private, RFC 1918
    (v4(198, 18, 0), 15),    // benchmarks, RFC 2544
    (v4(198, 51, 100), 24),  // documentation, RFC 5737
    (v4(203, 0, 113), 24),   // documentation, RFC 5737
    (v4(224, 0, 0), 4),      // multicast, RFC 5771
    (v4(240, 0, 0), 4),      // reserved, and broadcast, RFC 1112
    (v6(0x2001, 0), 23),     // Teredo and other assignments, RFC 2928
    (v6(0x2001, 0xdb8), 32), // documentation, RFC 3849
    (v6(0x2002, 0), 16),     // 6to4, which holds an IPv4 address, RFC 3056
    (v6(0x3fff, 0), 20),     // documentation, RFC 9637
];

/// What of IPv6 is assigned to hosts of the Internet at all (RFC 4291, section 2.4); outside are
/// loopback, mapped and translated IPv4, link-local, site-local, unique local, multicast.
const GLOBAL_UNICAST: (IpAddr, u32) = (v6(0x2000, 0), 3);

/// Judges a peer. `own` are the addresses and networks of the node, inside and outside; `extra` are
/// ranges that the operator allows besides, which may include the node's own addresses.
///
/// # Errors
/// When it must not be reached, and why.
pub fn allowed(peer: IpAddr, own: &[Prefix], extra: &[Prefix]) -> Result<(), Denied> {
    let peer = peer.to_canonical();
    if extra.iter().any(|prefix| prefix.contains(peer)) {
        return Ok(());
    }
    if own.iter().any(|own| own.contains(peer)) {
        return Err(Denied::Own);
    }
    let (global, global_bits) = GLOBAL_UNICAST;
    let special = SPECIAL
        .iter()
        .any(|(network, bits)| shares(peer, *network, *bits));
    if special || (peer.is_ipv6() && !shares(peer, global, global_bits)) {
        return Err(Denied::Special);
    }
    Ok(())
}

impl Prefix {
    /// Takes a network and how many of its bits count; `None` when it has not so many.
    pub fn new(network: IpAddr, bits: u32) -> Option<Self> {
        let network = network.to_canonical();
        let most = if network.is_ipv4() { 32 } else { 128 };
        (bits <= most).then_some(Self { network, bits })
    }

    /// Tells whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        shares(address, self.network, self.bits)
    }
}

impl From<IpAddr> for Prefix {
    /// The address alone.
    fn from(address: IpAddr) -> Self {
        let network = address.to_canonical();
        let bits = if network.is_ipv4() { 32 } else { 128 };
        Self { network, bits }
    }
}

impl FromStr for Prefix {
    type Err = NotPrefix;

    /// Reads `ADDRESS/BITS`, or an address alone.
    fn from_str(text: &str) -> Result<Self, NotPrefix> {
        let (network, bits) = match text.split_once('/') {
            Some((network, bits)) => (network, Some(bits)),
            None => (text, None),
        };
        let network: IpAddr = network.parse().map_err(|_| NotPrefix)?;
        let Some(bits) = bits else {
            return Ok(network.into());
        };
        let bits = bits.parse().map_err(|_| NotPrefix)?;
        Self::new(network, bits).ok_or(NotPrefix)
    }
}

fn shares(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let differs = address.to_bits() ^ network.to_bits();
            differs.leading_zeros() >= bits
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            let differs = address.to_bits() ^ network.to_bits();
            differs.leading_zeros() >= bits
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

const fn v4(a: u8, b: u8, c: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, 0))
}

const fn v6(a: u16, b: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(peer: &str, own: &[&str], extra: &[&str]) -> Result<(), Denied> {
        let own: Vec<Prefix> = own.iter().map(|text| text.parse().unwrap()).collect();
        let extra: Vec<Prefix> = extra.iter().map(|text| text.parse().unwrap()).collect();
        allowed(peer.parse().unwrap(), &own, &extra)
    }

    #[test]
    fn the_internet_is_allowed() {
        for peer in [
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1",
            "2a00::1",
        ] {
            assert_eq!(judged(peer, &[], &[]), Ok(()), "{peer}");
        }
    }

    #[test]
    fn the_site_the_host_and_groups_are_refused_however_they_are_written() {
        for peer in [
            "0.0.0.0",
            "127.0.0.1",
            "10.1.2.3",
            "172.31.255.255",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "224.0.0.251",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:10.1.2.3",
            "::ffff:0:10.1.2.3",
            "64:ff9b::a01:203",
            "64:ff9b:1::a01:203",
            "2002:a01:203::1",
            "2001:0:a01:203::1",
            "fe80::1",
            "fec0::1",
            "fd12::1",
            "ff02::1",
        ] {
            assert_eq!(judged(peer, &[], &[]), Err(Denied::Special), "{peer}");
        }
    }

    #[test]
    fn the_node_itself_is_refused() {
        let own = ["8.8.4.4", "2606:4700::1", "44.0.0.0/9"];
        assert_eq!(judged("8.8.4.4", &own, &[]), Err(Denied::Own));
        assert_eq!(judged("::ffff:8.8.4.4", &own, &[]), Err(Denied::Own));
        assert_eq!(judged("2606:4700::1", &own, &[]), Err(Denied::Own));
        assert_eq!(judged("2606:4700::2", &own, &[]), Ok(()));
        assert_eq!(judged("44.127.1.2", &own, &[]), Err(Denied::Own));
        assert_eq!(judged("44.128.1.2", &own, &[]), Ok(()));
    }

    #[test]
    fn an_operator_allows_ranges() {
        let extra = ["192.168.7.0/24", "10.0.0.1", "fd00::/8"];
        for peer in ["192.168.7.9", "10.0.0.1", "fdab::1", "::ffff:192.168.7.9"] {
            assert_eq!(judged(peer, &[], &extra), Ok(()), "{peer}");
        }
        for peer in ["192.168.8.9", "10.0.0.2", "fe80::1"] {
            assert_eq!(judged(peer, &[], &extra), Err(Denied::Special), "{peer}");
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in ["", "10.0.0.0/33", "10.0.0.0/", "::/129", "10.0.0/8", "a/8"] {
            assert_eq!(text.parse::<Prefix>(), Err(NotPrefix), "{text}");
        }
        assert!("0.0.0.0/0".parse::<Prefix>().unwrap().contains(v4(9, 9, 9)));
    }
}
