//! Hosts with IPv6 alone, and the NAT64 that takes their packets to those with IPv4 (RFC 6146): what
//! it translates is sent to addresses that begin with its prefix and have those of IPv4 after it (RFC 6052,
//! section 2.2).
//!
//! ```text
//!   prefix   octets 0                       8                       16
//!    32     |  prefix   |  IPv4     | 0 |      suffix                 |
//!    40     |  prefix       | IPv4  | 0 | IPv4 |   suffix             |
//!    48     |  prefix           | 4 | 0 | IPv4     |   suffix         |
//!    56     |  prefix               | 0 | IPv4 ... |   suffix         |
//!    64     |  prefix               | 0 |  IPv4         |   suffix    |
//!    96     |  prefix                                    |  IPv4      |
//! ```
//!
//! The prefix is told by the configuration, or found by a name that a DNS64 makes up ([`discovery`], RFC
//! 7050). What a router announces (RFC 8781) is not listened to.

pub mod discovery;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use serde::Deserialize;

/// The octet that is zero whatever the prefix.
const ZERO_AT: usize = 8;

/// How long prefixes are, in bits (RFC 6052, section 2.2).
const LENGTHS: [u8; 6] = [32, 40, 48, 56, 64, 96];

/// The prefix of a NAT64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nat64 {
    prefix: Ipv6Addr,
    bits: u8,
}

/// The NAT64 that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// The configuration tells of it.
    Told(Nat64),
    /// The site's DNS alone tells of it: nobody vouches for where it leads.
    Found(Nat64),
}

impl Known {
    /// Returns it, whoever tells of it.
    pub fn nat64(self) -> Nat64 {
        match self {
            Self::Told(nat64) | Self::Found(nat64) => nat64,
        }
    }

    /// Tells whether nobody vouches for it.
    pub fn is_hearsay(self) -> bool {
        matches!(self, Self::Found(_))
    }
}

/// Whether there is a NAT64, and which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Source {
    /// It is looked for where the host has IPv6 alone.
    #[default]
    Auto,
    /// There is none.
    Off,
    /// This one.
    Known(Nat64),
}

impl Nat64 {
    /// Makes one of an address and a length; none when it cannot be a prefix.
    fn new(address: Ipv6Addr, bits: u8) -> Option<Self> {
        let bits = LENGTHS.into_iter().find(|length| *length == bits)?;
        let mask = u128::MAX << (128 - u32::from(bits));
        let prefix = Ipv6Addr::from_bits(address.to_bits() & mask);
        is_allowed(&prefix).then_some(Self { prefix, bits })
    }

    /// Returns where a place with IPv4 is reached; none for one with IPv6, and for what is of no use
    /// beyond the own network.
    pub fn translated(self, at: SocketAddr) -> Option<SocketAddr> {
        let IpAddr::V4(address) = at.ip().to_canonical() else {
            return None;
        };
        let address = Some(address).filter(is_translated)?;
        Some(SocketAddr::new(self.around(address).into(), at.port()))
    }

    /// Returns the address of IPv6 that has an address of IPv4 after the prefix.
    fn around(self, address: Ipv4Addr) -> Ipv6Addr {
        let mut octets = self.prefix.octets();
        for (place, octet) in places(self.bits).into_iter().zip(address.octets()) {
            octets[place] = octet;
        }
        Ipv6Addr::from(octets)
    }

    /// Returns the address of IPv4 at an address; none where that does not have the prefix.
    fn within(self, address: Ipv6Addr) -> Option<Ipv4Addr> {
        let is_its = Self::new(address, self.bits) == Some(self);
        let octets = address.octets();
        let four = Ipv4Addr::from(places(self.bits).map(|place| octets[place]));
        (is_its && octets[ZERO_AT] == 0).then_some(four)
    }

    /// Returns which place with IPv4 is reached at one with the prefix; none for any other.
    pub fn embedded(self, at: SocketAddr) -> Option<SocketAddr> {
        let IpAddr::V6(address) = at.ip() else {
            return None;
        };
        let four = self.within(address).filter(is_translated)?;
        Some(SocketAddr::new(four.into(), at.port()))
    }
}

/// Returns in which octets the address of IPv4 is, after a prefix of so many bits.
fn places(bits: u8) -> [usize; 4] {
    let mut next = usize::from(bits / 8);
    std::array::from_fn(|_| {
        next += usize::from(next == ZERO_AT);
        next += 1;
        next - 1
    })
}

/// Tells whether an address may be of another network's host (RFC 6890). What is shared within a carrier's (RFC 6598)
/// may be of the one that has the NAT64.
fn is_translated(address: &Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    let is_of_no_host = first == 0 || first >= 240 || [first, second, third] == [192, 0, 0];
    !(is_of_no_host
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast())
}

/// Returns from which address of IPv4 this host sends to one, as its routes are now. Nothing is sent.
///
/// # Errors
/// What the system says: [`std::io::ErrorKind::NetworkUnreachable`] where no route leads there.
pub(crate) fn source_to(to: Ipv4Addr) -> std::io::Result<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // The port is of no importance.
    socket.connect((to, 9))?;
    Ok(socket.local_addr()?.ip())
}

/// Tells whether a prefix may be one: of one network, with zeros as octet 8 (RFC 6052, section 2.2).
fn is_allowed(prefix: &Ipv6Addr) -> bool {
    let is_reserved = prefix.is_unspecified()
        || prefix.is_loopback()
        || prefix.is_multicast()
        || prefix.is_unicast_link_local()
        || prefix.to_ipv4_mapped().is_some();
    !is_reserved && prefix.octets()[ZERO_AT] == 0
}

impl TryFrom<String> for Nat64 {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parts = text.split_once('/');
        let parts = parts.and_then(|(prefix, bits)| {
            let prefix: Ipv6Addr = prefix.parse().ok()?;
            Some((prefix, bits.parse().ok()?))
        });
        let nat64 = parts.and_then(|(prefix, bits)| {
            let nat64 = Self::new(prefix, bits);
            nat64.filter(|nat64| nat64.prefix == prefix)
        });
        nat64.ok_or_else(|| {
            format!(
                "`{text}` is no prefix of a NAT64 like 64:ff9b::/96, of 32, 40, 48, 56, 64 or 96 bits; \
                 nor `auto` or `off`"
            )
        })
    }
}

impl TryFrom<String> for Source {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            _ => Nat64::try_from(text).map(Self::Known),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nat64(text: &str) -> Result<Nat64, String> {
        Nat64::try_from(text.to_owned())
    }

    #[test]
    fn addresses_of_ipv4_follow_the_prefix() {
        // RFC 6052, section 2.4.
        for (prefix, translated) in [
            ("2001:db8::/32", "[2001:db8:c000:221::]:53"),
            ("2001:db8:100::/40", "[2001:db8:1c0:2:21::]:53"),
            ("2001:db8:122::/48", "[2001:db8:122:c000:2:2100::]:53"),
            ("2001:db8:122:300::/56", "[2001:db8:122:3c0:0:221::]:53"),
            ("2001:db8:122:344::/64", "[2001:db8:122:344:c0:2:2100::]:53"),
            ("2001:db8:122:344::/96", "[2001:db8:122:344::192.0.2.33]:53"),
            ("64:ff9b::/96", "[64:ff9b::192.0.2.33]:53"),
        ] {
            let at = "192.0.2.33:53".parse().unwrap();
            let nat64 = nat64(prefix).unwrap();
            let translated: SocketAddr = translated.parse().unwrap();
            assert_eq!(nat64.translated(at), Some(translated));
            assert_eq!(nat64.embedded(translated), Some(at));
            for other in [at, "[2001:dba:122:345::c000:221]:53".parse().unwrap()] {
                assert_eq!(nat64.embedded(other), None, "{other}");
            }
        }
        let well_known = nat64("64:ff9b::/96").unwrap();
        let mapped = well_known.translated("[::ffff:192.0.2.33]:53".parse().unwrap());
        assert_eq!(mapped, Some("[64:ff9b::c000:221]:53".parse().unwrap()));
        let inner = "[64:ff9b::192.168.1.1]:53".parse().unwrap();
        assert_eq!(well_known.embedded(inner), None);
        for other in [
            "192.168.1.1:53",
            "127.0.0.1:53",
            "169.254.1.1:53",
            "224.0.0.1:53",
            "0.0.0.0:53",
            "0.1.2.3:53",
            "240.0.0.1:53",
            "255.255.255.255:53",
            "192.0.0.170:53",
            "[2001:db8::1]:53",
        ] {
            assert_eq!(
                well_known.translated(other.parse().unwrap()),
                None,
                "{other}"
            );
        }
    }

    #[test]
    fn only_prefixes_of_rfc_6052_are_taken() {
        for wrong in [
            "64:ff9b::",
            "64:ff9b::/33",
            "64:ff9b::/128",
            "64:ff9b::/129",
            "64:ff9b::/200",
            "64:ff9b::/255",
            "64:ff9b::/256",
            "64:ff9b::/0",
            "64:ff9b::/",
            "64:ff9b::1/64",
            "64:ff9b::1/96",
            "::/96",
            "192.0.2.0/96",
            "fe80::/96",
            "ff02::/96",
            "::ffff:0:0/96",
            "2001:db8::ff00:0:0:0/96",
            "",
        ] {
            assert!(
                nat64(wrong).unwrap_err().contains("64:ff9b::/96"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_host_sends_to_itself_from_itself_and_to_all_from_nowhere() {
        let source = source_to(Ipv4Addr::LOCALHOST).unwrap();
        assert_eq!(source, Ipv4Addr::LOCALHOST);
        assert!(source_to(Ipv4Addr::BROADCAST).is_err());
    }

    #[test]
    fn it_is_looked_for_unless_the_configuration_says_otherwise() {
        let source = |text: &str| Source::try_from(text.to_owned());
        assert_eq!(source("auto"), Ok(Source::default()));
        assert_eq!(source("off"), Ok(Source::Off));
        let known = nat64("64:ff9b::/96").map(Source::Known);
        assert_eq!(source("64:ff9b::/96"), known);
        assert!(source("on").is_err());
    }
}
