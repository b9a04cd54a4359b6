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
//! Pure: packets and moments in, packets out. [`super::Wire`] gives it devices and a clock.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::link::{Link, LinkKind};
use super::nat::{Nat, NatKind};
use super::packet;

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
    cable: Cable,
}

#[derive(Debug)]
struct Seat {
    area: Area,
    address: Ipv4Addr,
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
    hosts: BTreeMap<(Area, Ipv4Addr), Place>,
    /// Which area has a router with an address in another area.
    routers: BTreeMap<(Area, Ipv4Addr), Area>,
    under_way: BTreeMap<(Duration, u64), (Step, Vec<u8>)>,
    sent: u64,
    counts: Counts,
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
            cable: Cable::new(link, 2 * seed),
        });
        self.routers.insert((outside, address), Area(number));
        Area(number)
    }

    /// Adds a host to an area.
    pub(crate) fn host(&mut self, area: Area, address: Ipv4Addr, link: LinkKind) -> Place {
        let place = Place(self.seats.len());
        self.seats.push(Seat {
            area,
            address,
            cable: Cable::new(link, 2 * place.0 as u64 + 1),
        });
        self.hosts.insert((area, address), place);
        place
    }

    /// Gives a host another address.
    pub(crate) fn readdress(&mut self, place: Place, area: Area, address: Ipv4Addr) {
        if let Some(seat) = self.seats.get_mut(place.0) {
            self.hosts.remove(&(seat.area, seat.address));
            (seat.area, seat.address) = (area, address);
            self.hosts.insert((area, address), place);
        }
    }

    /// Has an area's router start anew, with the same address or another.
    pub(crate) fn restart(&mut self, area: Area, address: Option<Ipv4Addr>) {
        if let Some(inner) = area.0.checked_sub(1).and_then(|at| self.inner.get_mut(at)) {
            self.routers.remove(&(inner.outside, inner.nat.outer()));
            let address = address.unwrap_or(inner.nat.outer());
            inner.nat.restart(address);
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

    /// Returns when the next packet's time on a link is over.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.under_way.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes a packet that a host sends.
    pub(crate) fn send(&mut self, now: Duration, from: Place, packet: Vec<u8>) {
        let Some(seat) = self.seats.get_mut(from.0) else {
            return;
        };
        let (area, address) = (seat.area, seat.address);
        let arrival = seat.cable.up.send(now, packet.len());
        match packet::destination(&packet) {
            // Who sends to all on the cable is heard by all others on it.
            Some(to) if to.is_multicast() || to.is_broadcast() => {
                let is_other = |((of, other), _): &(&(Area, Ipv4Addr), &Place)| {
                    *of == area && *other != address && area != INTERNET
                };
                let others = self.hosts.iter().filter(is_other);
                let others: Vec<Place> = others.map(|(_, place)| *place).collect();
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
            match step {
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

    fn route(&mut self, now: Duration, area: Area, mut packet: Vec<u8>) {
        let Some(to) = packet::destination(&packet) else {
            return;
        };
        if let Some(place) = self.hosts.get(&(area, to)) {
            return self.down(Some(now), *place, packet);
        }
        if let Some(within) = self.routers.get(&(area, to)).copied() {
            let Some(inner) = self.inner.get_mut(within.0 - 1) else {
                return;
            };
            let arrival = inner.cable.down.send(now, packet.len());
            return self.under_way(arrival, Step::Enter(within), packet);
        }
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

    /// A packet comes to an area's router from outside, or is turned round there.
    fn enter(&mut self, now: Duration, area: Area, mut packet: Vec<u8>) {
        let Some(inner) = area.0.checked_sub(1).and_then(|at| self.inner.get_mut(at)) else {
            return;
        };
        if inner.nat.inward(now, &mut packet) && packet::hop(&mut packet) {
            self.route(now, area, packet);
        } else {
            self.counts.refused += 1;
        }
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

#[cfg(test)]
mod tests {
    use super::super::nat::Ports;
    use super::super::packet::tests::udp;
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    /// A public host, two homes behind a carrier's router, and a home of its own.
    struct Town {
        fabric: Fabric,
        public: Place,
        homes: [Place; 3],
        carrier: Area,
        now: Duration,
    }

    fn address(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    fn town(carrier: NatKind) -> Town {
        let mut fabric = Fabric::default();
        let link = LinkKind::of_delay(5 * MILLI);
        let public = fabric.host(INTERNET, address("11.0.0.1"), link);
        let carrier = fabric.area(INTERNET, address("11.0.1.1"), carrier, link);
        let homes = [
            (carrier, "100.64.0.2"),
            (carrier, "100.64.0.3"),
            (INTERNET, "11.0.2.1"),
        ];
        let homes = homes.map(|(outside, outer)| {
            let nat = NatKind::port_restricted();
            let home = fabric.area(outside, address(outer), nat, link);
            fabric.host(
                home,
                address("192.168.1.2"),
                LinkKind::of_delay(Duration::ZERO),
            )
        });
        Town {
            fabric,
            public,
            homes,
            carrier,
            now: Duration::from_secs(1),
        }
    }

    impl Town {
        /// Sends, and returns who got it after how long, and from where.
        fn send(
            &mut self,
            from: Place,
            source: &str,
            to: &str,
        ) -> Option<(Place, Duration, String)> {
            self.fabric.send(self.now, from, udp(source, to));
            let sent = self.now;
            while let Some(at) = self.fabric.next() {
                self.now = at;
                if let Some((place, packet)) = self.fabric.poll(at).pop() {
                    let source = packet::flow(&packet).unwrap().source.to_string();
                    return Some((place, at - sent, source));
                }
            }
            None
        }
    }

    #[test]
    fn through_two_routers_and_back() {
        let mut town = town(NatKind::symmetric(Ports::Random));
        let (host, public) = (town.homes[0], town.public);
        let there = town.send(host, "192.168.1.2:4000", "11.0.0.1:53").unwrap();
        // The home's cable, the carrier's, and the public host's.
        assert_eq!((there.0, there.1), (public, 15 * MILLI));
        assert!(there.2.starts_with("11.0.1.1:"));
        let back = town.send(public, "11.0.0.1:53", &there.2).unwrap();
        assert_eq!((back.0, back.2.as_str()), (host, "11.0.0.1:53"));
        assert_eq!(town.send(public, "11.0.0.1:54", &there.2), None);
        assert_eq!(
            town.send(town.homes[2], "192.168.1.2:1", "192.168.1.9:1"),
            None
        );
        assert_eq!(town.fabric.counts().refused, 1);
        assert_eq!(town.fabric.counts().unroutable, 1);
    }

    #[test]
    fn neighbours_behind_a_carrier_meet_where_it_hairpins() {
        for (kind, meet) in [
            (NatKind::full_cone(), true),
            (NatKind::port_restricted(), false),
        ] {
            let mut town = town(kind);
            let [a, b, _] = town.homes;
            let seen_of = |town: &mut Town, place| {
                let (_, _, seen) = town.send(place, "192.168.1.2:4000", "11.0.0.1:53").unwrap();
                seen
            };
            let (of_a, of_b) = (seen_of(&mut town, a), seen_of(&mut town, b));
            // Both send; the first one opens its own router.
            town.send(a, "192.168.1.2:4000", &of_b);
            let met = town.send(b, "192.168.1.2:4000", &of_a);
            assert_eq!(met.map(|(place, _, _)| place == a), meet.then_some(true));
        }
    }

    #[test]
    fn a_router_that_starts_anew_knows_nobody() {
        let mut town = town(NatKind::full_cone());
        let public = town.public;
        let (_, _, seen) = town
            .send(town.homes[0], "192.168.1.2:4000", "11.0.0.1:53")
            .unwrap();
        town.fabric.restart(town.carrier, Some(address("11.0.1.9")));
        assert_eq!(town.send(public, "11.0.0.1:53", &seen), None);
        let again = town.send(town.homes[0], "192.168.1.2:4000", "11.0.0.1:53");
        assert!(again.unwrap().2.starts_with("11.0.1.9:"));
        town.fabric
            .on_area_links(town.carrier, |link| link.cut(true));
        assert_eq!(
            town.send(town.homes[0], "192.168.1.2:4000", "11.0.0.1:53"),
            None
        );
    }
}
