//! A home router's address translation, of each kind that RFC 4787 tells apart.
//!
//! *Mapping* (section 4.1) says for which packets from one inner port the outer port is the same:
//! for all, for those to one address, or for those to one address and port. *Filtering* (section
//! 5) says who may answer through it. *Ports* says how outer ports are given. What routers call
//! "cone" or "symmetric" are combinations of these.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::packet::{self, Flow, Transport};

/// The most mappings at once, as small routers have them.
const MAPPINGS_MAX: usize = 4096;
/// The outer ports that are given.
const PORTS: std::ops::Range<u16> = 1024..65_535;
/// How long a TCP mapping lives without packets (RFC 5382, REQ-5).
pub(super) const TCP_LIFETIME: Duration = Duration::from_secs(7440);
/// How long an echo's mapping lives without packets (RFC 5508, REQ-2).
pub(super) const ECHO_LIFETIME: Duration = Duration::from_secs(60);

/// What a mapping, or a filter, depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dependence {
    /// Nothing: the inner port alone.
    EndpointIndependent,
    /// The other's address.
    AddressDependent,
    /// The other's address and port.
    AddressAndPortDependent,
}

/// How outer ports are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ports {
    /// The inner port's number, or the next free one.
    Preserving,
    /// Each so many after the one before.
    Sequential(u16),
    /// Drawn.
    Random,
}

/// What a router lets out at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Outward {
    /// Everything.
    #[default]
    Everything,
    /// Everything but UDP.
    NoUdp,
    /// TCP to some ports alone.
    TcpTo(Vec<u16>),
    /// The same, and of one inner host alone: the proxy that the others have to take.
    TcpOf(Ipv4Addr, Vec<u16>),
}

impl Outward {
    /// Tells whether a packet of an inner host to an outer port may leave.
    pub(super) fn permits(&self, transport: Transport, inner: IpAddr, port: u16) -> bool {
        let is_tcp_to = |ports: &[u16]| transport == Transport::Tcp && ports.contains(&port);
        match self {
            Self::Everything => true,
            Self::NoUdp => transport != Transport::Udp,
            Self::TcpTo(ports) => is_tcp_to(ports),
            Self::TcpOf(host, ports) => inner == *host && is_tcp_to(ports),
        }
    }
}

/// A kind of router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatKind {
    /// For which packets an outer port is kept.
    pub mapping: Dependence,
    /// Who may send to it.
    pub filtering: Dependence,
    /// How it is chosen.
    pub ports: Ports,
    /// How long it lives without a packet from inside.
    pub udp_lifetime: Duration,
    /// Whether inner hosts reach each other by outer addresses (section 6).
    pub hairpin: bool,
    /// What may leave.
    pub outward: Outward,
}

impl NatKind {
    /// The best for others: everything independent, ports kept, hairpinning.
    pub fn full_cone() -> Self {
        Self {
            mapping: Dependence::EndpointIndependent,
            filtering: Dependence::EndpointIndependent,
            ports: Ports::Preserving,
            udp_lifetime: Duration::from_secs(300),
            hairpin: true,
            outward: Outward::Everything,
        }
    }

    /// The same, but only who was sent to may answer.
    pub fn port_restricted() -> Self {
        Self {
            filtering: Dependence::AddressAndPortDependent,
            hairpin: false,
            ..Self::full_cone()
        }
    }

    /// Another outer port for each whom one speaks to.
    pub fn symmetric(ports: Ports) -> Self {
        Self {
            mapping: Dependence::AddressAndPortDependent,
            ports,
            ..Self::port_restricted()
        }
    }
}

/// To whom a mapping is, as far as that matters.
type Toward = (Option<Ipv4Addr>, Option<u16>);

fn toward(dependence: Dependence, other: SocketAddrV4) -> Toward {
    match dependence {
        Dependence::EndpointIndependent => (None, None),
        Dependence::AddressDependent => (Some(*other.ip()), None),
        Dependence::AddressAndPortDependent => (Some(*other.ip()), Some(other.port())),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    transport: Transport,
    inner: SocketAddrV4,
    toward: Toward,
}

#[derive(Debug)]
struct Mapping {
    key: Key,
    until: Duration,
    /// Who may send to it, until when.
    admitted: BTreeMap<Toward, Duration>,
}

/// One router. Times are since any moment that is the same for all calls.
#[derive(Debug)]
pub(crate) struct Nat {
    kind: NatKind,
    outer: Ipv4Addr,
    by_key: BTreeMap<Key, u16>,
    by_port: BTreeMap<(Transport, u16), Mapping>,
    last_port: u16,
    random: u64,
}

impl Nat {
    /// Makes a router that has translated nothing.
    pub(crate) fn new(kind: NatKind, outer: Ipv4Addr, seed: u64) -> Self {
        Self {
            kind,
            outer,
            by_key: BTreeMap::new(),
            by_port: BTreeMap::new(),
            last_port: PORTS.start + (seed % 30_000) as u16,
            random: seed | 1,
        }
    }

    /// Returns the outer address.
    pub(crate) fn outer(&self) -> Ipv4Addr {
        self.outer
    }

    /// Whether inner hosts reach each other by outer addresses.
    pub(crate) fn hairpins(&self) -> bool {
        self.kind.hairpin
    }

    /// Forgets everything, as a router that starts; it may have another address then.
    pub(crate) fn restart(&mut self, outer: Ipv4Addr) {
        self.by_key.clear();
        self.by_port.clear();
        self.outer = outer;
    }

    /// Translates a packet that leaves; tells whether it may.
    pub(crate) fn outward(&mut self, now: Duration, packet: &mut [u8]) -> bool {
        let Some(flow) = packet::flow(packet) else {
            return false;
        };
        if flow.is_error {
            // About one that came in: its mapping is there, or the error leads nowhere.
            let key = self.key(&flow);
            let outer = self.by_key.get(&key).copied();
            let outer = outer.map(|port| SocketAddrV4::new(self.outer, port));
            outer.inspect(|outer| packet::set_source(packet, *outer));
            return outer.is_some();
        }
        let (inner, port) = (IpAddr::V4(*flow.source.ip()), flow.destination.port());
        if !self.kind.outward.permits(flow.transport, inner, port) {
            return false;
        }
        let Some(port) = self.map(now, &flow) else {
            return false;
        };
        packet::set_source(packet, SocketAddrV4::new(self.outer, port));
        true
    }

    /// Translates a packet that comes in; tells whether it may.
    pub(crate) fn inward(&mut self, now: Duration, packet: &mut [u8]) -> bool {
        let Some(flow) = packet::flow(packet) else {
            return false;
        };
        let slot = (flow.transport, flow.destination.port());
        let Some(mapping) = self.by_port.get(&slot) else {
            return false;
        };
        let other = toward(self.kind.filtering, flow.source);
        let admitted = mapping.admitted.get(&other);
        let is_let_in = mapping.until > now && admitted.is_some_and(|until| *until > now);
        if is_let_in {
            packet::set_destination(packet, mapping.key.inner);
        }
        is_let_in
    }

    fn key(&self, flow: &Flow) -> Key {
        Key {
            transport: flow.transport,
            inner: flow.source,
            toward: toward(self.kind.mapping, flow.destination),
        }
    }

    fn lifetime(&self, transport: Transport) -> Duration {
        match transport {
            Transport::Udp => self.kind.udp_lifetime,
            Transport::Tcp => TCP_LIFETIME,
            Transport::Echo => ECHO_LIFETIME,
        }
    }

    /// Returns the outer port of a flow that leaves, and keeps it open for whom it is to.
    fn map(&mut self, now: Duration, flow: &Flow) -> Option<u16> {
        let until = now + self.lifetime(flow.transport);
        let key = self.key(flow);
        let known = self.by_key.get(&key).copied();
        let is_alive = |nat: &Self, port| {
            let mapping = nat.by_port.get(&(flow.transport, port));
            mapping.is_some_and(|mapping| mapping.until > now)
        };
        let port = match known {
            Some(port) if is_alive(self, port) => port,
            stale => {
                stale
                    .into_iter()
                    .for_each(|port| self.forget((flow.transport, port)));
                let port = self.free_port(now, flow)?;
                self.forget((flow.transport, port));
                let mapping = Mapping {
                    key,
                    until,
                    admitted: BTreeMap::new(),
                };
                self.by_port.insert((flow.transport, port), mapping);
                self.by_key.insert(key, port);
                port
            }
        };
        let mapping = self.by_port.get_mut(&(flow.transport, port))?;
        mapping.until = until;
        mapping.admitted.retain(|_, until| *until > now);
        let other = toward(self.kind.filtering, flow.destination);
        mapping.admitted.insert(other, until);
        Some(port)
    }

    /// Chooses an outer port that nobody has; none when the router is full.
    fn free_port(&mut self, now: Duration, flow: &Flow) -> Option<u16> {
        if self.by_port.len() >= MAPPINGS_MAX {
            let ended = self.by_port.iter().filter(|(_, m)| m.until <= now);
            let ended: Vec<_> = ended.map(|(slot, _)| *slot).collect();
            ended.into_iter().for_each(|slot| self.forget(slot));
        }
        if self.by_port.len() >= MAPPINGS_MAX {
            return None;
        }
        let span = PORTS.end - PORTS.start;
        let (first, step) = match self.kind.ports {
            Ports::Preserving => (flow.source.port().max(PORTS.start), 1),
            Ports::Sequential(step) => (self.last_port.wrapping_add(step), step.max(1)),
            Ports::Random => (PORTS.start + (self.draw() % u64::from(span)) as u16, 1),
        };
        let candidates = (0..span).map(|tried| {
            let offset = first
                .wrapping_sub(PORTS.start)
                .wrapping_add(tried.wrapping_mul(step));
            PORTS.start + offset % span
        });
        let is_free = |port: &u16| {
            let mapping = self.by_port.get(&(flow.transport, *port));
            mapping.is_none_or(|mapping| mapping.until <= now)
        };
        let found = candidates.into_iter().find(is_free)?;
        self.last_port = found;
        Some(found)
    }

    fn forget(&mut self, slot: (Transport, u16)) {
        if let Some(mapping) = self.by_port.remove(&slot) {
            self.by_key.remove(&mapping.key);
        }
    }

    /// Xorshift (G. Marsaglia, 2003): routers need nothing better.
    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::tests::{udp, unreachable};
    use super::*;
    use Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};

    const OUTER: Ipv4Addr = Ipv4Addr::new(11, 0, 9, 9);
    const INNER: &str = "192.168.1.2:4000";
    const NOW: Duration = Duration::from_secs(10);

    fn nat(mapping: Dependence, filtering: Dependence, ports: Ports) -> Nat {
        let kind = NatKind {
            mapping,
            filtering,
            ports,
            ..NatKind::port_restricted()
        };
        Nat::new(kind, OUTER, 7)
    }

    /// Sends from inside; returns the outer port.
    fn send(nat: &mut Nat, now: Duration, from: &str, to: &str) -> u16 {
        let mut packet = udp(from, to);
        assert!(nat.outward(now, &mut packet), "{to}");
        let source = packet::flow(&packet).unwrap().source;
        assert_eq!(*source.ip(), OUTER);
        source.port()
    }

    /// Sends from outside; returns whom it reaches.
    fn answer(nat: &mut Nat, now: Duration, from: &str, port: u16) -> Option<String> {
        let mut packet = udp(from, &format!("{OUTER}:{port}"));
        let passed = nat.inward(now, &mut packet);
        passed.then(|| packet::flow(&packet).unwrap().destination.to_string())
    }

    #[test]
    fn mappings_are_kept_for_as_many_others_as_their_kind_says() {
        let others = ["11.0.0.1:1", "11.0.0.1:2", "11.0.0.2:1", "11.0.0.1:1"];
        for (mapping, expected) in [
            (EndpointIndependent, 1),
            (AddressDependent, 2),
            (AddressAndPortDependent, 3),
        ] {
            for ports in [Ports::Preserving, Ports::Sequential(2), Ports::Random] {
                let mut nat = nat(mapping, EndpointIndependent, ports);
                let given = others.map(|other| send(&mut nat, NOW, INNER, other));
                let mut different = given.to_vec();
                different.sort_unstable();
                different.dedup();
                assert_eq!(different.len(), expected, "{mapping:?} {ports:?} {given:?}");
                assert_eq!(given[0], given[3]);
            }
        }
    }

    #[test]
    fn only_those_whom_the_filter_admits_get_in() {
        // The one sent to, another port there, another address.
        let others = ["11.0.0.1:1", "11.0.0.1:2", "11.0.0.2:1"];
        for (filtering, expected) in [
            (EndpointIndependent, [true, true, true]),
            (AddressDependent, [true, true, false]),
            (AddressAndPortDependent, [true, false, false]),
        ] {
            for mapping in [EndpointIndependent, AddressAndPortDependent] {
                let mut nat = nat(mapping, filtering, Ports::Random);
                let port = send(&mut nat, NOW, INNER, others[0]);
                let passed = others.map(|other| answer(&mut nat, NOW, other, port));
                let reached = passed.map(|to| to.is_some_and(|to| to == INNER));
                assert_eq!(reached, expected, "{mapping:?} {filtering:?}");
                assert_eq!(answer(&mut nat, NOW, others[0], port ^ 1), None);
            }
        }
    }

    #[test]
    fn ports_are_given_as_the_kind_says() {
        let mut keeping = nat(EndpointIndependent, EndpointIndependent, Ports::Preserving);
        assert_eq!(send(&mut keeping, NOW, INNER, "11.0.0.1:1"), 4000);
        let other = "192.168.1.3:4000";
        assert_eq!(send(&mut keeping, NOW, other, "11.0.0.1:1"), 4001);
        let mut counting = nat(
            AddressAndPortDependent,
            EndpointIndependent,
            Ports::Sequential(3),
        );
        let others = ["11.0.0.1:1", "11.0.0.1:2", "11.0.0.2:1"];
        let [a, b, c] = others.map(|other| send(&mut counting, NOW, INNER, other));
        assert_eq!((b, c), (a + 3, a + 6));
        let mut drawing = nat(AddressAndPortDependent, EndpointIndependent, Ports::Random);
        let [a, b, c] = others.map(|other| send(&mut drawing, NOW, INNER, other));
        assert!(a.abs_diff(b) > 100 && b.abs_diff(c) > 100, "{a} {b} {c}");
    }

    #[test]
    fn a_mapping_lives_as_long_as_something_leaves_by_it() {
        let mut nat = nat(EndpointIndependent, EndpointIndependent, Ports::Random);
        let (other, lifetime) = ("11.0.0.1:1", nat.kind.udp_lifetime);
        let port = send(&mut nat, NOW, INNER, other);
        let late = NOW + lifetime - Duration::from_secs(1);
        assert!(answer(&mut nat, late, other, port).is_some());
        // What comes in does not keep it (RFC 4787, REQ-6).
        assert_eq!(answer(&mut nat, NOW + lifetime, other, port), None);
        let (again, later) = (send(&mut nat, late, INNER, other), late + lifetime);
        assert_eq!(again, port);
        assert_ne!(send(&mut nat, later, INNER, other), port);
        nat.restart(OUTER);
        assert_eq!(answer(&mut nat, later, other, port), None);
    }

    #[test]
    fn a_full_router_takes_no_more_until_something_ends() {
        let mut nat = nat(AddressAndPortDependent, EndpointIndependent, Ports::Random);
        for port in 1..=MAPPINGS_MAX {
            send(&mut nat, NOW, INNER, &format!("11.0.0.1:{port}"));
        }
        let mut packet = udp(INNER, "11.0.0.2:1");
        assert!(!nat.outward(NOW, &mut packet));
        let later = NOW + nat.kind.udp_lifetime;
        assert!(nat.outward(later, &mut packet));
        assert_eq!(nat.by_port.len(), nat.by_key.len());
    }

    #[test]
    fn errors_find_their_way_back_and_others_do_not() {
        let mut nat = nat(EndpointIndependent, AddressAndPortDependent, Ports::Random);
        let mut sent = udp(INNER, "11.0.0.1:53");
        assert!(nat.outward(NOW, &mut sent));
        let router = Ipv4Addr::new(11, 0, 0, 77);
        let mut error = unreachable(&sent, router);
        assert!(nat.inward(NOW, &mut error));
        assert_eq!(packet::flow(&error).unwrap().destination.to_string(), INNER);
        let mut of_another = unreachable(&udp("11.0.9.9:9", "11.0.0.1:53"), router);
        assert!(!nat.inward(NOW, &mut of_another));
    }

    #[test]
    fn what_may_not_leave_does_not() {
        let kind = NatKind {
            outward: Outward::NoUdp,
            ..NatKind::full_cone()
        };
        let mut nat = Nat::new(kind, OUTER, 7);
        assert!(!nat.outward(NOW, &mut udp(INNER, "11.0.0.1:53")));
        assert!(nat.by_port.is_empty());
        let [proxy, other] = [2, 3].map(|last| Ipv4Addr::new(192, 168, 1, last));
        let of_proxy = Outward::TcpOf(proxy, vec![443]);
        let permitted =
            |transport, inner: Ipv4Addr, port| of_proxy.permits(transport, inner.into(), port);
        assert!(permitted(Transport::Tcp, proxy, 443));
        assert!(!permitted(Transport::Tcp, proxy, 22));
        assert!(!permitted(Transport::Udp, proxy, 443));
        assert!(!permitted(Transport::Tcp, other, 443));
    }
}
