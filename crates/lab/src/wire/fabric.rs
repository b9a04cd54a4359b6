//! Which way packets go: areas within areas, with a router before each, and the Internet around
//! all.
//!
//! ```text
//!   Internet ---- public hosts
//!      |------ router (NAT) --- home: hosts
//!      `------ router (NAT) --- carrier's network
//!                                  `--- router (NAT) --- home: hosts
//! ```
//!
//! IPv6 is beside it: a network of the Internet has a prefix of 64 bits if it is to, with a firewall
//! in its router and, where hosts have IPv6 alone, a NAT64.
//!
//! Pure: packets and moments in, packets out. [`super::Wire`] gives it devices and a clock.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::firewall::Firewall;
use super::link::{Link, LinkKind};
use super::nat::{Nat, NatKind};
use super::{nat64, packet};

/// The most packets on their way; more are dropped.
const UNDER_WAY_MAX: usize = 100_000;

/// An area, by the order of making; the first is the Internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Area(pub(crate) usize);

/// The Internet.
pub const INTERNET: Area = Area(0);

/// A host's place, by the order of making.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(pub(crate) usize);

/// Both directions of what leads to a host, or to an area.
#[derive(Debug)]
struct Cable {
    up: Link,
    down: Link,
}

impl Cable {
    fn new(kind: LinkKind, seed: u64) -> Self {
        Self {
            up: Link::new(kind, seed * 2 + 1),
            down: Link::new(kind, seed * 2 + 2),
        }
    }

    fn both(&mut self) -> [&mut Link; 2] {
        [&mut self.up, &mut self.down]
    }
}

/// A network behind a router.
#[derive(Debug)]
struct Inner {
    outside: Area,
    nat: Nat,
    /// None where IPv6 is not routed.
    firewall: Option<Firewall>,
    cable: Cable,
    /// Whether nothing passes between those in it but by the router.
    is_apart: bool,
}

#[derive(Debug)]
struct Seat {
    area: Area,
    /// Where it has none of its own, what the NAT64 knows it by.
    address: Ipv4Addr,
    has_ipv4: bool,
    address_v6: Option<Ipv6Addr>,
    cable: Cable,
}

/// What happens to a packet when its time on a link is over.
#[derive(Debug)]
enum Step {
    /// It is in an area, to be sent on.
    Route(Area),
    /// It is before an area's router.
    Enter(Area),
    /// It is at a host.
    Deliver(Place),
}

/// What became of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Handed to hosts.
    pub delivered: u64,
    /// Lost on links, by chance or for want of room.
    pub lost: u64,
    /// Not let through by a router.
    pub refused: u64,
    /// For nobody.
    pub unroutable: u64,
}

/// All areas, hosts, links and what is on its way.
#[derive(Debug, Default)]
pub(crate) struct Fabric {
    /// Of each area but the Internet, which is the first.
    inner: Vec<Inner>,
    seats: Vec<Seat>,
    /// Who has an address in an area.
    hosts: BTreeMap<(Area, IpAddr), Place>,
    /// Whom an area's NAT64 knows by an address.
    translated: BTreeMap<(Area, Ipv4Addr), Place>,
    /// Which area has a router with an address in another area.
    routers: BTreeMap<(Area, Ipv4Addr), Area>,
    /// Which area has a prefix: the first 64 bits of its addresses.
    prefixes: BTreeMap<u64, Area>,
    under_way: BTreeMap<(Duration, u64), (Step, Vec<u8>)>,
    sent: u64,
    counts: Counts,
    /// How long after its time a packet was moved on at most.
    late: Duration,
}

impl Fabric {
    /// Adds an area behind a router that has an address in another area.
    pub(crate) fn area(
        &mut self,
        outside: Area,
        address: Ipv4Addr,
        nat: NatKind,
        link: LinkKind,
    ) -> Area {
        let number = self.inner.len() + 1;
        let seed = number as u64;
        self.inner.push(Inner {
            outside,
            nat: Nat::new(nat, address, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            firewall: None,
            cable: Cable::new(link, 2 * seed),
            is_apart: false,
        });
        self.routers.insert((outside, address), Area(number));
        Area(number)
    }

    /// Routes IPv6 to an area of the Internet, through a firewall that lets out what the kind of
    /// its router says. All addresses of the area's hosts begin with the 64 bits of the prefix.
    pub(crate) fn route_v6(&mut self, area: Area, prefix: Ipv6Addr, kind: NatKind) {
        if let Some(inner) = area.0.checked_sub(1).and_then(|at| self.inner.get_mut(at)) {
            inner.firewall = Some(Firewall::new(kind));
            self.prefixes.insert(network(prefix), area);
        }
    }

    /// Keeps those in an area apart: nothing passes between them but by the area's router.
    pub(crate) fn keep_apart(&mut self, area: Area) {
        if let Some(inner) = area.0.checked_sub(1).and_then(|at| self.inner.get_mut(at)) {
            inner.is_apart = true;
        }
    }

    fn is_apart(&self, area: Area) -> bool {
        let inner = area.0.checked_sub(1).and_then(|at| self.inner.get(at));
        inner.is_some_and(|inner| inner.is_apart)
    }

    /// Adds a host to an area.
    pub(crate) fn host(&mut self, area: Area, address: Ipv4Addr, link: LinkKind) -> Place {
        let place = Place(self.seats.len());
        self.seats.push(Seat {
            area,
            address,
            has_ipv4: true,
            address_v6: None,
            cable: Cable::new(link, 2 * place.0 as u64 + 1),
        });
        self.hosts.insert((area, address.into()), place);
        place
    }

    /// Gives a host an address of IPv6, beside that of IPv4 or in place of it. In place of it the
    /// area's router is a NAT64 to it.
    pub(crate) fn add_v6(&mut self, place: Place, address: Ipv6Addr, is_alone: bool) {
        if let Some(seat) = self.seats.get_mut(place.0) {
            seat.address_v6 = Some(address);
            seat.has_ipv4 = !is_alone;
            self.hosts.insert((seat.area, address.into()), place);
            if is_alone {
                self.hosts.remove(&(seat.area, seat.address.into()));
                self.translated.insert((seat.area, seat.address), place);
            }
        }
    }

    /// Gives a host another address of IPv4.
    pub(crate) fn readdress(&mut self, place: Place, area: Area, address: Ipv4Addr) {
        if let Some(seat) = self.seats.get_mut(place.0) {
            self.hosts.remove(&(seat.area, seat.address.into()));
            (seat.area, seat.address) = (area, address);
            self.hosts.insert((area, address.into()), place);
        }
    }

    /// Has an area's router start anew, with the same address or another.
    pub(crate) fn restart(&mut self, area: Area, address: Option<Ipv4Addr>) {
        if let Some(inner) = area.0.checked_sub(1).and_then(|at| self.inner.get_mut(at)) {
            self.routers.remove(&(inner.outside, inner.nat.outer()));
            let address = address.unwrap_or(inner.nat.outer());
            inner.nat.restart(address);
            inner.firewall.iter_mut().for_each(Firewall::restart);
            self.routers.insert((inner.outside, address), area);
        }
    }

    /// Changes, cuts or mends what leads to an area's router.
    pub(crate) fn on_area_links(&mut self, area: Area, change: impl FnMut(&mut Link)) {
        if let Some(inner) = area.0.checked_sub(1).and_then(|at| self.inner.get_mut(at)) {
            inner.cable.both().into_iter().for_each(change);
        }
    }

    /// Changes, cuts or mends what leads to a host.
    pub(crate) fn on_host_links(&mut self, place: Place, change: impl FnMut(&mut Link)) {
        if let Some(seat) = self.seats.get_mut(place.0) {
            seat.cable.both().into_iter().for_each(change);
        }
    }

    /// Returns what became of packets.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns how long after its time a packet was moved on at most, since that was asked last.
    pub(crate) fn take_lateness(&mut self) -> Duration {
        std::mem::take(&mut self.late)
    }

    /// Returns when the next packet's time on a link is over.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.under_way.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes a packet that a host sends.
    pub(crate) fn send(&mut self, now: Duration, from: Place, packet: Vec<u8>) {
        let Some(seat) = self.seats.get_mut(from.0) else {
            return;
        };
        let area = seat.area;
        let arrival = seat.cable.up.send(now, packet.len());
        let is_apart = self.is_apart(area);
        match packet::destination(&packet) {
            // Who sends to all on the cable is heard by all others on it.
            Some(to) if is_for_all(to) => {
                let hears = |(place, seat): &(usize, &Seat)| {
                    let has_family = match to {
                        IpAddr::V4(_) => seat.has_ipv4,
                        IpAddr::V6(_) => seat.address_v6.is_some(),
                    };
                    let is_beside = seat.area == area && area != INTERNET && !is_apart;
                    is_beside && *place != from.0 && has_family
                };
                let others = self.seats.iter().enumerate().filter(hears);
                let others: Vec<Place> = others.map(|(place, _)| Place(place)).collect();
                for other in others {
                    self.down(arrival, other, packet.clone());
                }
            }
            Some(_) => self.under_way(arrival, Step::Route(area), packet),
            None => self.counts.unroutable += 1,
        }
    }

    /// Returns the packets that have come to hosts by now.
    pub(crate) fn poll(&mut self, now: Duration) -> Vec<(Place, Vec<u8>)> {
        let mut arrived = Vec::new();
        while let Some(first) = self.under_way.first_entry() {
            let (at, _) = *first.key();
            if at > now {
                break;
            }
            let (step, packet) = first.remove();
            self.late = self.late.max(now.saturating_sub(at));
            match step {
                Step::Route(area) if self.is_kept_apart(area, &packet) => self.counts.refused += 1,
                Step::Route(area) => self.route(at, area, packet),
                Step::Enter(area) => self.enter(at, area, packet),
                Step::Deliver(place) => {
                    self.counts.delivered += 1;
                    arrived.push((place, packet));
                }
            }
        }
        arrived
    }

    /// Tells whether a packet from within an area is for another one there, from whom it is kept.
    fn is_kept_apart(&self, area: Area, packet: &[u8]) -> bool {
        let to = packet::destination(packet).filter(|_| self.is_apart(area));
        to.is_some_and(|to| {
            let is_router = |to| self.routers.contains_key(&(area, to));
            self.hosts.contains_key(&(area, to)) || matches!(to, IpAddr::V4(to) if is_router(to))
        })
    }

    fn route(&mut self, now: Duration, area: Area, packet: Vec<u8>) {
        let Some(to) = packet::destination(&packet) else {
            return;
        };
        if let Some(place) = self.hosts.get(&(area, to)) {
            return self.down(Some(now), *place, packet);
        }
        let within = match to {
            IpAddr::V4(to) => self.routers.get(&(area, to)),
            IpAddr::V6(to) => self.prefixes.get(&network(to)).filter(|_| area == INTERNET),
        };
        if let Some(within) = within.copied() {
            let Some(inner) = self.inner.get_mut(within.0 - 1) else {
                return;
            };
            let arrival = inner.cable.down.send(now, packet.len());
            return self.under_way(arrival, Step::Enter(within), packet);
        }
        match to {
            IpAddr::V4(to) => self.leave(now, area, to, packet),
            IpAddr::V6(to) => self.leave_v6(now, area, to, packet),
        }
    }

    /// A packet comes to an area's router from inside.
    fn leave(&mut self, now: Duration, area: Area, to: Ipv4Addr, mut packet: Vec<u8>) {
        let Some(inner) = area.0.checked_sub(1).and_then(|at| self.inner.get_mut(at)) else {
            self.counts.unroutable += 1;
            return;
        };
        let is_hairpin = to == inner.nat.outer();
        let passes = packet::hop(&mut packet)
            && (!is_hairpin || inner.nat.hairpins())
            && inner.nat.outward(now, &mut packet);
        if !passes {
            self.counts.refused += 1;
        } else if is_hairpin {
            self.enter(now, area, packet);
        } else {
            let (outside, arrival) = (inner.outside, inner.cable.up.send(now, packet.len()));
            self.under_way(arrival, Step::Route(outside), packet);
        }
    }

    fn leave_v6(&mut self, now: Duration, area: Area, to: Ipv6Addr, mut packet: Vec<u8>) {
        let inner = area.0.checked_sub(1).and_then(|at| self.inner.get_mut(at));
        let routed = inner.and_then(|inner| Some((inner.firewall.as_mut()?, &mut inner.cable)));
        let source = packet::source_v6(&packet);
        let place = source.and_then(|source| self.hosts.get(&(area, source.into())));
        let (Some((firewall, cable)), Some(place)) = (routed, place) else {
            // Also what a host sends by an address that the network did not give it (RFC 2827).
            self.counts.unroutable += 1;
            return;
        };
        let seat = &self.seats[place.0];
        if let Some(to) = nat64::embedded(to) {
            let source = (!seat.has_ipv4).then_some(seat.address);
            match source.and_then(|source| nat64::to_ipv4(&packet, source)) {
                Some(packet) => self.leave(now, area, to, packet),
                None => self.counts.refused += 1,
            }
        } else if packet::hop(&mut packet) && firewall.outward(now, &packet) {
            let arrival = cable.up.send(now, packet.len());
            self.under_way(arrival, Step::Route(INTERNET), packet);
        } else {
            self.counts.refused += 1;
        }
    }

    /// A packet comes to an area's router from outside, or is turned round there.
    fn enter(&mut self, now: Duration, area: Area, mut packet: Vec<u8>) {
        let Some(inner) = area.0.checked_sub(1).and_then(|at| self.inner.get_mut(at)) else {
            return;
        };
        let is_let_in = match packet::destination(&packet) {
            Some(IpAddr::V4(_)) => inner.nat.inward(now, &mut packet),
            Some(IpAddr::V6(_)) => {
                let firewall = inner.firewall.as_ref();
                firewall.is_some_and(|firewall| firewall.inward(now, &packet))
            }
            None => false,
        };
        let passing = Some(packet).filter(|_| is_let_in);
        let passing = passing.and_then(|mut packet| packet::hop(&mut packet).then_some(packet));
        match passing.and_then(|packet| self.translated(area, packet)) {
            Some(packet) => self.route(now, area, packet),
            None => self.counts.refused += 1,
        }
    }

    /// Returns a packet as the inner host takes it that it is for; none if it cannot be made so.
    fn translated(&self, area: Area, packet: Vec<u8>) -> Option<Vec<u8>> {
        let Some(IpAddr::V4(to)) = packet::destination(&packet) else {
            return Some(packet);
        };
        let Some(place) = self.translated.get(&(area, to)) else {
            return Some(packet);
        };
        nat64::to_ipv6(&packet, self.seats.get(place.0)?.address_v6?)
    }

    /// Sends a packet down to a host.
    fn down(&mut self, at: Option<Duration>, place: Place, packet: Vec<u8>) {
        let seat = self.seats.get_mut(place.0);
        let arrival = seat
            .zip(at)
            .and_then(|(seat, at)| seat.cable.down.send(at, packet.len()));
        self.under_way(arrival, Step::Deliver(place), packet);
    }

    fn under_way(&mut self, arrival: Option<Duration>, step: Step, packet: Vec<u8>) {
        match arrival.filter(|_| self.under_way.len() < UNDER_WAY_MAX) {
            Some(arrival) => {
                self.sent += 1;
                self.under_way.insert((arrival, self.sent), (step, packet));
            }
            None => self.counts.lost += 1,
        }
    }
}

/// Tells whether an address is that of all on a cable.
fn is_for_all(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_multicast() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_multicast(),
    }
}

/// The first 64 bits.
fn network(address: Ipv6Addr) -> u64 {
    (address.to_bits() >> 64) as u64
}

#[cfg(test)]
mod tests;
