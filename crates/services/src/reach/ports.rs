//! At which ports others reach the packets of the host, whether by themselves or as its router maps them.

use std::net::SocketAddr;

use super::observed::is_public;

/// Where the host takes packets.
#[derive(Debug, Default)]
pub(super) struct Packets {
    /// At which port of its own.
    pub(super) port: Option<u16>,
    /// At which address and port of a router that passes them on.
    pub(super) mapped: Option<SocketAddr>,
}

/// The ports at which everybody reaches the host's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    /// Of the host itself.
    own: u16,
    /// To the Internet, by IPv4.
    outer: u16,
}

impl Ports {
    /// Returns that for somebody who comes from, or is at, an address.
    pub(super) fn toward(self, at: SocketAddr) -> u16 {
        let ip = at.ip().to_canonical();
        // Who is of the same site comes to the host, not to the router.
        match ip.is_ipv4() && is_public(ip) {
            true => self.outer,
            false => self.own,
        }
    }
}

impl Packets {
    /// Returns the ports, unless by one version of IP most see the host elsewhere than it is and no
    /// router passes its packets on there. Where nobody on the Internet sees it, those with whom it has sessions
    /// are of its own site.
    pub(super) fn ports(&self, local: &[SocketAddr], seen: &[SocketAddr]) -> Option<Ports> {
        let own = self.port?;
        let is_in_the_open = |is_v4: bool| {
            let seen = seen.iter().filter(|seen| seen.is_ipv4() == is_v4);
            let elsewhere = seen.clone().filter(|seen| !local.contains(seen)).count();
            elsewhere == 0 || 2 * elsewhere < seen.count()
        };
        let outer = match is_in_the_open(true) {
            true => own,
            false => self.mapped_port(seen)?,
        };
        is_in_the_open(false).then_some(Ports { own, outer })
    }

    /// Returns the port that a router maps, if most see the host at the address of which that router
    /// speaks: behind another router there is nothing to be reached.
    pub(super) fn mapped_port(&self, seen: &[SocketAddr]) -> Option<u16> {
        let mapped = self.mapped.filter(|mapped| is_public(mapped.ip()))?;
        let seen = seen.iter().filter(|seen| seen.is_ipv4());
        let there = seen.clone().filter(|seen| seen.ip() == mapped.ip()).count();
        (2 * there > seen.count()).then_some(mapped.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_port_is_one_only_where_others_see_the_router() {
        let at = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let local = [at("192.168.1.2:7000"), at("[2001:db8::7]:7000")];
        let router = [at("198.51.100.7:9"), at("198.51.100.7:10")];
        let mut packets = Packets {
            port: Some(7001),
            mapped: None,
        };
        assert_eq!(packets.ports(&local, &router), None);
        packets.mapped = Some(at("198.51.100.7:41"));
        let ports = packets.ports(&local, &router).unwrap();
        assert_eq!(ports.toward(router[0]), 41);
        assert_eq!(ports.toward(local[1]), 7001);
        assert_eq!(ports.toward(at("192.168.1.3:7000")), 7001);
        // What is mapped is nothing to those who come to the host itself.
        let own = packets.ports(&local, &local[..1]).unwrap();
        assert_eq!(own.toward(router[0]), 7001);
        // A router behind a router, and what no router of the Internet can be.
        assert_eq!(packets.ports(&local, &[at("203.0.113.1:9")]), None);
        packets.mapped = Some(at("192.168.1.1:41"));
        assert_eq!(packets.ports(&local, &[at("192.168.1.1:9")]), None);
        // By one version of IP it is behind something else.
        packets.mapped = Some(at("198.51.100.7:41"));
        let six = [router[0], at("[2001:db8::8]:7000")];
        assert_eq!(packets.ports(&local, &six), None);
    }
}
