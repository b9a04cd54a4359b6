//! The address table of one virtual network: who holds which address.
//!
//! It answers two questions, each with one look into a hash table: where does a
//! packet to this address go, and may this peer send from that address? The control
//! plane fills it. Generic over how a peer is named; by default its public key.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

/// The most routes of one table; at about 100 octets each.
pub const ROUTES_MAX: usize = 65_536;

/// The most peers with source addresses of one table.
pub const PEERS_MAX: usize = 65_536;

/// The most source addresses of one peer: its own, and two for each of those that take part by
/// way of it.
pub const SOURCES_PER_PEER_MAX: usize = 80;

/// The most addresses of this host in one network.
pub const LOCAL_ADDRESSES_MAX: usize = 16;

/// The most addresses that this host holds for others in one network.
pub const HOSTED_MAX: usize = 64;

/// The most networks that are reached by way of a member, and that are behind this host.
pub const GATEWAYS_MAX: usize = 1024;

/// The most networks of one table: one of each IP version.
pub const NETWORKS_MAX: usize = 2;

/// A limit of the table is reached; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the address table is full")]
pub struct TableFull;

/// An IP network: an address in it and the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    first: u128,
    mask: u128,
    is_v4: bool,
}

/// A network that is reached by way of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// The network.
    pub network: Network,
    /// The member's address.
    pub via: IpAddr,
}

impl Network {
    /// Makes the network of `prefix` bits that `address` is in. A longer prefix than
    /// the address is taken as the whole address.
    pub fn new(address: IpAddr, prefix: u8) -> Self {
        let (value, bits) = number(address);
        let host_bits = bits - u32::from(prefix).min(bits);
        let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
        Self {
            first: value & mask,
            mask,
            is_v4: address.is_ipv4(),
        }
    }

    /// Tells whether an address is in the network.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.is_v4 && number(address).0 & self.mask == self.first
    }

    /// Tells whether it is all of one version of IP.
    pub fn is_everything(&self) -> bool {
        match self.is_v4 {
            true => self.mask & u128::from(u32::MAX) == 0,
            false => self.mask == 0,
        }
    }

    /// Tells whether an address is the network's broadcast address: the last one of an
    /// IPv4 network of at most 30 bits (RFC 919; RFC 3021 for 31 bits).
    pub fn is_broadcast(&self, address: IpAddr) -> bool {
        let hosts = !self.mask & u128::from(u32::MAX);
        self.is_v4 && self.contains(address) && hosts >= 3 && number(address).0 & hosts == hosts
    }
}

/// Where packets to an address go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route<P> {
    /// The peer that holds the address.
    pub peer: P,
    /// The longest IP packet that the path to it takes, in octets.
    pub path_mtu: u16,
}

/// What to do with a packet, by its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup<P> {
    /// This host holds the address.
    Local,
    /// This host holds it for somebody else.
    Hosted,
    /// A peer holds it.
    Forward(Route<P>),
    /// It is in the network, or behind a member, but where that member is is not known:
    /// resolve this address.
    Miss(IpAddr),
    /// It is a multicast address, 255.255.255.255 or the network's broadcast address.
    Many,
    /// It is in none of the networks.
    Outside,
}

/// The address table of one virtual network.
#[derive(Clone, Debug)]
pub struct AddressTable<P = [u8; 32]> {
    networks: Vec<Network>,
    local: Vec<IpAddr>,
    hosted: Vec<IpAddr>,
    /// The narrowest first.
    gateways: Vec<Gateway>,
    behind: Vec<Network>,
    routes: HashMap<IpAddr, Route<P>>,
    sources: HashMap<P, Vec<IpAddr>>,
}

impl<P: Copy + Eq + Hash> AddressTable<P> {
    /// Makes an empty table for up to [`NETWORKS_MAX`] networks; further ones are dropped.
    pub fn new(networks: impl IntoIterator<Item = Network>) -> Self {
        Self {
            networks: networks.into_iter().take(NETWORKS_MAX).collect(),
            local: Vec::new(),
            hosted: Vec::new(),
            gateways: Vec::new(),
            behind: Vec::new(),
            routes: HashMap::new(),
            sources: HashMap::new(),
        }
    }

    /// Says where a packet to `destination` goes. Bounded work, one hash.
    pub fn lookup(&self, destination: IpAddr) -> Lookup<P> {
        if let Some(route) = self.routes.get(&destination) {
            return Lookup::Forward(*route);
        }
        if self.local.contains(&destination) {
            return Lookup::Local;
        }
        if self.hosts(destination) {
            return Lookup::Hosted;
        }
        let limited_broadcast =
            matches!(destination, IpAddr::V4(address) if address.is_broadcast());
        if destination.is_multicast() || limited_broadcast {
            return Lookup::Many;
        }
        match self
            .networks
            .iter()
            .find(|network| network.contains(destination))
        {
            Some(network) if network.is_broadcast(destination) => Lookup::Many,
            Some(_) => Lookup::Miss(destination),
            None => self.lookup_beyond(destination),
        }
    }

    /// Says where a packet goes that is to none of the network's own addresses.
    fn lookup_beyond(&self, destination: IpAddr) -> Lookup<P> {
        let Some(via) = self.gateway(destination) else {
            return Lookup::Outside;
        };
        match self.routes.get(&via) {
            Some(route) => Lookup::Forward(*route),
            None => Lookup::Miss(via),
        }
    }

    fn gateway(&self, address: IpAddr) -> Option<IpAddr> {
        let mut gateways = self.gateways.iter();
        let gateway = gateways.find(|gateway| gateway.network.contains(address));
        gateway.map(|gateway| gateway.via)
    }

    /// Sets which networks are reached by way of members, in place of those before; no more
    /// than [`GATEWAYS_MAX`] are kept.
    pub fn set_gateways(&mut self, mut gateways: Vec<Gateway>) {
        gateways.truncate(GATEWAYS_MAX);
        gateways.sort_by_key(|gateway| std::cmp::Reverse(gateway.network.mask));
        self.gateways = gateways;
    }

    /// Sets which networks are behind this host, in place of those before; no more than
    /// [`GATEWAYS_MAX`] are kept.
    pub fn set_behind(&mut self, mut networks: Vec<Network>) {
        networks.truncate(GATEWAYS_MAX);
        self.behind = networks;
    }

    /// Tells whether networks behind this host are reached by way of it.
    pub fn passes_on(&self) -> bool {
        !self.behind.is_empty()
    }

    /// Sets which addresses this host holds for others, in place of those before; no more than
    /// [`HOSTED_MAX`] are kept. Routes for them are dropped.
    pub fn set_hosted(&mut self, mut addresses: Vec<IpAddr>) {
        addresses.truncate(HOSTED_MAX);
        for address in &addresses {
            self.routes.remove(address);
        }
        self.hosted = addresses;
    }

    /// Tells whether this host holds an address for somebody else.
    pub fn hosts(&self, address: IpAddr) -> bool {
        self.hosted.contains(&address)
    }

    /// Tells whether an address is this host's, one that it holds for somebody else, or in a
    /// network behind it that is none of the channel's own.
    pub fn is_here(&self, address: IpAddr) -> bool {
        let among = |networks: &[Network]| networks.iter().any(|n| n.contains(address));
        self.local.contains(&address)
            || self.hosts(address)
            || (among(&self.behind) && !among(&self.networks))
    }

    /// Tells whether `peer` may send packets from `source`: one of its addresses, or one in a
    /// network that is reached by way of it. One hash, two for the latter.
    pub fn may_send(&self, peer: &P, source: IpAddr) -> bool {
        let addresses = self.sources.get(peer);
        addresses.is_some_and(|addresses| addresses.contains(&source))
            || self.is_behind(peer, source)
    }

    fn is_behind(&self, peer: &P, source: IpAddr) -> bool {
        let is_own = self.networks.iter().any(|network| network.contains(source));
        let via = self.gateway(source).filter(|_| !is_own);
        let route = via.and_then(|via| self.routes.get(&via));
        route.is_some_and(|route| route.peer == *peer)
    }

    /// Says that this host holds an address; a route for it is dropped.
    ///
    /// # Errors
    /// When there are [`LOCAL_ADDRESSES_MAX`] already.
    pub fn add_local(&mut self, address: IpAddr) -> Result<(), TableFull> {
        if !self.local.contains(&address) {
            if self.local.len() == LOCAL_ADDRESSES_MAX {
                return Err(TableFull);
            }
            self.local.push(address);
        }
        self.routes.remove(&address);
        Ok(())
    }

    /// Sets or replaces the route of an address; a route for an address of this host, or one
    /// that it holds for somebody else, is ignored.
    ///
    /// # Errors
    /// When there are [`ROUTES_MAX`] already.
    pub fn set_route(&mut self, address: IpAddr, route: Route<P>) -> Result<(), TableFull> {
        if self.local.contains(&address) || self.hosts(address) {
            return Ok(());
        }
        if self.routes.len() >= ROUTES_MAX && !self.routes.contains_key(&address) {
            return Err(TableFull);
        }
        self.routes.insert(address, route);
        Ok(())
    }

    /// Lets a peer send from an address.
    ///
    /// # Errors
    /// When the peer has [`SOURCES_PER_PEER_MAX`] addresses, or there are [`PEERS_MAX`]
    /// peers, already.
    pub fn allow_source(&mut self, peer: P, address: IpAddr) -> Result<(), TableFull> {
        if self.sources.len() >= PEERS_MAX && !self.sources.contains_key(&peer) {
            return Err(TableFull);
        }
        let addresses = self.sources.entry(peer).or_default();
        if addresses.contains(&address) {
            return Ok(());
        }
        if addresses.len() == SOURCES_PER_PEER_MAX {
            return Err(TableFull);
        }
        addresses.push(address);
        Ok(())
    }

    /// Drops everything about a peer. Looks at every route.
    pub fn forget_peer(&mut self, peer: &P) {
        self.routes.retain(|_, route| route.peer != *peer);
        self.sources.remove(peer);
    }
}

/// Returns an address as a number, and how many bits it has.
fn number(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(address) => (u32::from(address).into(), 32),
        IpAddr::V6(address) => (address.into(), 128),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn table() -> AddressTable<u8> {
        let networks = [("10.77.0.0", 16), ("fd00::", 64)];
        AddressTable::new(networks.map(|(text, prefix)| Network::new(ip(text), prefix)))
    }

    #[test]
    fn networks_know_their_members_and_their_broadcast_address() {
        let network = Network::new(ip("10.77.3.4"), 16);
        assert!(network.contains(ip("10.77.255.1")) && !network.contains(ip("10.78.0.1")));
        assert!(!network.contains(ip("::a4d:1")) && network.is_broadcast(ip("10.77.255.255")));
        assert!(!Network::new(ip("10.0.0.0"), 31).is_broadcast(ip("10.0.0.1")));
        assert!(!Network::new(ip("10.0.0.1"), 32).is_broadcast(ip("10.0.0.1")));
        let all = Network::new(ip("10.0.0.0"), 0);
        assert!(all.contains(ip("1.2.3.4")) && all.is_broadcast(ip("255.255.255.255")));
        assert!(Network::new(ip("::"), 0).contains(ip("fd00::1")));
        assert!(!Network::new(ip("fd00::"), 64).is_broadcast(ip("fd00::ffff:ffff:ffff:ffff")));
        assert!(Network::new(ip("10.0.0.1"), 99).contains(ip("10.0.0.1")));
    }

    #[test]
    fn every_destination_has_its_answer() {
        let mut table = table();
        let route = Route {
            peer: 7,
            path_mtu: 1280,
        };
        table.add_local(ip("10.77.0.1")).unwrap();
        table.set_route(ip("10.77.0.2"), route).unwrap();
        table.set_route(ip("10.77.0.1"), route).unwrap();
        for (destination, answer) in [
            ("10.77.0.1", Lookup::Local),
            ("10.77.0.2", Lookup::Forward(route)),
            ("10.77.0.3", Lookup::Miss(ip("10.77.0.3"))),
            ("fd00::3", Lookup::Miss(ip("fd00::3"))),
            ("10.77.255.255", Lookup::Many),
            ("255.255.255.255", Lookup::Many),
            ("224.0.0.251", Lookup::Many),
            ("ff02::fb", Lookup::Many),
            ("10.78.0.1", Lookup::Outside),
            ("fe80::1", Lookup::Outside),
        ] {
            assert_eq!(table.lookup(ip(destination)), answer, "{destination}");
        }
    }

    #[test]
    fn a_peer_sends_only_from_its_own_addresses() {
        let mut table = table();
        table.allow_source(1, ip("10.77.0.2")).unwrap();
        assert!(table.may_send(&1, ip("10.77.0.2")));
        assert!(!table.may_send(&1, ip("10.77.0.3")) && !table.may_send(&2, ip("10.77.0.2")));
        table
            .set_route(
                ip("10.77.0.2"),
                Route {
                    peer: 1,
                    path_mtu: 1280,
                },
            )
            .unwrap();
        table.forget_peer(&1);
        assert!(!table.may_send(&1, ip("10.77.0.2")));
        assert_eq!(table.lookup(ip("10.77.0.2")), Lookup::Miss(ip("10.77.0.2")));
    }

    #[test]
    fn networks_behind_members_are_reached_by_the_narrowest() {
        let mut table = table();
        let gateway = |network: &str, prefix, via| Gateway {
            network: Network::new(ip(network), prefix),
            via: ip(via),
        };
        table.set_gateways(vec![
            gateway("0.0.0.0", 0, "10.77.0.2"),
            gateway("192.168.7.0", 24, "10.77.0.3"),
        ]);
        let route = Route {
            peer: 7,
            path_mtu: 1280,
        };
        table.set_route(ip("10.77.0.3"), route).unwrap();
        assert_eq!(table.lookup(ip("192.168.7.9")), Lookup::Forward(route));
        assert_eq!(
            table.lookup(ip("8.8.8.8")),
            Lookup::Miss(ip("10.77.0.2")),
            "by the widest, whose member is not known"
        );
        assert_eq!(table.lookup(ip("2001:db8::1")), Lookup::Outside);
        assert!(table.may_send(&7, ip("192.168.7.9")) && !table.may_send(&7, ip("8.8.8.8")));
        assert!(!table.may_send(&8, ip("192.168.7.9")));
        // Nobody sends from another member's address by being its gateway.
        table.set_gateways(vec![gateway("0.0.0.0", 0, "10.77.0.3")]);
        assert!(table.may_send(&7, ip("8.8.8.8")) && !table.may_send(&7, ip("10.77.0.9")));
    }

    #[test]
    fn what_is_behind_this_host_is_here() {
        let mut table = table();
        table.add_local(ip("10.77.0.1")).unwrap();
        table.set_behind(vec![Network::new(ip("0.0.0.0"), 0)]);
        assert!(table.is_here(ip("10.77.0.1")) && table.is_here(ip("192.168.7.9")));
        assert!(!table.is_here(ip("10.77.0.2")), "another member's");
        assert!(!table.is_here(ip("fd00::2")));
    }

    #[test]
    fn what_is_held_for_others_is_neither_local_nor_a_members() {
        let mut table = table();
        let route = Route {
            peer: 7,
            path_mtu: 1280,
        };
        table.set_route(ip("10.77.0.5"), route).unwrap();
        table.set_hosted(vec![ip("10.77.0.5"), ip("fd00::5")]);
        table.set_route(ip("fd00::5"), route).unwrap();
        for address in ["10.77.0.5", "fd00::5"] {
            assert_eq!(table.lookup(ip(address)), Lookup::Hosted);
            assert!(table.is_here(ip(address)) && table.hosts(ip(address)));
        }
        table.set_hosted(Vec::new());
        assert_eq!(table.lookup(ip("fd00::5")), Lookup::Miss(ip("fd00::5")));
        assert!(!table.is_here(ip("10.77.0.5")));
    }

    #[test]
    fn every_limit_holds() {
        let mut table = table();
        let route = Route {
            peer: 1,
            path_mtu: 1280,
        };
        let address = |number: usize| IpAddr::from(u32::try_from(number).unwrap().to_be_bytes());
        for number in 0..ROUTES_MAX {
            table.set_route(address(number), route).unwrap();
        }
        assert_eq!(table.set_route(address(ROUTES_MAX), route), Err(TableFull));
        assert_eq!(table.set_route(address(0), route), Ok(()));
        assert_eq!(table.routes.len(), ROUTES_MAX);
        for number in 0..SOURCES_PER_PEER_MAX {
            table.allow_source(1, address(number)).unwrap();
        }
        for number in 0..LOCAL_ADDRESSES_MAX {
            table.add_local(address(number)).unwrap();
        }
        table.set_hosted((0..100).map(address).collect());
        assert_eq!(table.hosted.len(), HOSTED_MAX);
        assert_eq!(table.allow_source(1, address(99)), Err(TableFull));
        assert_eq!(table.allow_source(1, address(0)), Ok(()));
        assert_eq!(table.add_local(address(99)), Err(TableFull));
    }
}
