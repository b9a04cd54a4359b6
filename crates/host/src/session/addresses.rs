//! Which addresses are worth telling others, and which are worth dialling.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use enishi_dataplane::addresses_of_host;
use enishi_overlay::contact::ADDRESSES_MAX;

/// Tells whether a datagram to the address could reach one node at all.
///
/// Addresses come from strangers: nothing may be sent to groups or to everyone.
/// Link-local IPv6 is left out, because without its zone it means nothing elsewhere.
pub(super) fn is_dialable(address: &SocketAddr) -> bool {
    let ip = address.ip();
    let usable = match ip {
        IpAddr::V4(v4) => !v4.is_broadcast(),
        IpAddr::V6(v6) => !v6.is_unicast_link_local() && v6.to_ipv4_mapped().is_none(),
    };
    usable && address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast()
}

/// Picks from a node's own addresses those to tell others, best first.
///
/// IPv4 and IPv6 take turns, so that many temporary IPv6 addresses do not crowd out
/// the only IPv4 one; and the first address of the site comes third at the latest, since outer
/// addresses of a router seldom lead back into its site. At most [`ADDRESSES_MAX`].
pub(super) fn worth_telling(all: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let all = all.into_iter().filter(is_dialable);
    let (mut v4, mut v6): (Vec<_>, Vec<_>) = all.partition(SocketAddr::is_ipv4);
    v4.sort_by_key(|a| (Reach::of(a.ip()), *a));
    v6.sort_by_key(|a| (Reach::of(a.ip()), *a));
    site_third(&mut v4);
    site_third(&mut v6);
    let turns = v4.len().max(v6.len());
    (0..turns)
        .flat_map(|turn| [v4.get(turn), v6.get(turn)])
        .flatten()
        .copied()
        .take(ADDRESSES_MAX)
        .collect()
}

fn site_third(sorted: &mut [SocketAddr]) {
    let site = |address: &SocketAddr| Reach::of(address.ip()) == Reach::Site;
    if let Some(first) = sorted.iter().position(site).filter(|first| *first > 2) {
        sorted[2..=first].rotate_right(1);
    }
}

/// Returns the addresses of this host that reach no further than its site, at which these sockets
/// take datagrams: link-local IPv4 (RFC 3927) and unique local IPv6 (RFC 4193).
///
/// The QUIC library leaves them out as soon as there are others, such as that of a virtual network.
pub(super) fn of_the_site(sockets: &[SocketAddr]) -> Vec<SocketAddr> {
    let is_of_the_site = |address: &IpAddr| match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unique_local(),
    };
    let at = |address: IpAddr| {
        let takes = |socket: &&SocketAddr| {
            socket.ip().is_unspecified() && socket.is_ipv4() == address.is_ipv4()
        };
        let socket = sockets.iter().find(takes)?;
        Some(SocketAddr::new(address, socket.port()))
    };
    let addresses = addresses_of_host().into_iter().filter(is_of_the_site);
    addresses.filter_map(at).collect()
}

/// From where an address can be reached, from the most to the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// From the whole Internet, but for firewalls.
    Internet,
    /// From the networks of one site or provider (RFC 1918, RFC 4193, RFC 6598).
    Site,
    /// From one link (RFC 3927).
    Link,
    /// From this host.
    Host,
}

impl Reach {
    /// Returns from where an address can be reached.
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            _ if ip.is_loopback() => Self::Host,
            IpAddr::V4(v4) if v4.is_link_local() => Self::Link,
            IpAddr::V4(v4) if v4.is_private() || is_shared(v4) => Self::Site,
            IpAddr::V6(v6) if v6.is_unique_local() => Self::Site,
            _ => Self::Internet,
        }
    }
}

/// Tells whether an address is one of those that a provider gives to many customers
/// (100.64.0.0/10, RFC 6598).
fn is_shared(v4: Ipv4Addr) -> bool {
    let [first, second, ..] = v4.octets();
    first == 100 && second & 0xc0 == 64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_zones_and_nothing_are_not_dialled() {
        let bad = "0.0.0.0:1 255.255.255.255:1 224.0.0.1:1 192.0.2.1:0 [::]:1 [ff02::1]:1 \
                   [fe80::1]:1 [::ffff:192.0.2.1]:1";
        for text in bad.split_whitespace() {
            assert!(!is_dialable(&text.parse().unwrap()), "{text}");
        }
        for text in ["127.0.0.1:1", "[::1]:1", "192.0.2.1:9", "[2001:db8::1]:9"] {
            assert!(is_dialable(&text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn families_take_turns_and_public_addresses_come_first() {
        let mut all: Vec<SocketAddr> = (1..20)
            .map(|n| format!("[2001:db8::{n}]:1").parse().unwrap())
            .collect();
        let own = ["10.0.0.1:1", "100.64.0.9:1", "198.51.100.1:1"];
        all.extend(own.map(|a| a.parse::<SocketAddr>().unwrap()));
        let told = worth_telling(all);
        assert_eq!(told.len(), ADDRESSES_MAX);
        assert_eq!(told[0], "198.51.100.1:1".parse().unwrap());
        assert_eq!(told[2], "10.0.0.1:1".parse().unwrap());
    }

    #[test]
    fn outer_addresses_do_not_crowd_out_the_one_of_the_site() {
        let six = (1..9).map(|n| format!("[2001:db8::{n}]:1"));
        let four = (1..6).map(|n| format!("198.51.100.1:{n}"));
        let all = six.chain(four).chain(["192.168.1.2:1".to_owned()]);
        let told = worth_telling(all.map(|text| text.parse().unwrap()));
        assert!(told.contains(&"192.168.1.2:1".parse().unwrap()), "{told:?}");
        assert_eq!(told[0], "198.51.100.1:1".parse().unwrap());
    }
}
