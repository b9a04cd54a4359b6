use super::super::nat::Ports;
use super::super::packet::tests::{udp, udp_v6};
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
    fn send(&mut self, from: Place, source: &str, to: &str) -> Option<(Place, Duration, String)> {
        self.carry(from, udp(source, to))
    }

    fn carry(&mut self, from: Place, packet: Vec<u8>) -> Option<(Place, Duration, String)> {
        self.fabric.send(self.now, from, packet);
        let sent = self.now;
        while let Some(at) = self.fabric.next() {
            self.now = at;
            if let Some((place, packet)) = self.fabric.poll(at).pop() {
                let v4 = packet::flow(&packet).map(|flow| flow.source.to_string());
                let v6 = packet::flow_v6(&packet).map(|flow| flow.source.to_string());
                return Some((place, at - sent, v4.or(v6).unwrap()));
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
fn those_who_are_kept_apart_meet_by_their_router_alone() {
    let [a, b] = ["192.168.9.2:4000", "192.168.9.3:4000"];
    for hairpin in [true, false] {
        let mut town = town(NatKind::full_cone());
        let (fabric, link) = (&mut town.fabric, LinkKind::of_delay(MILLI));
        let kind = NatKind {
            hairpin,
            ..NatKind::port_restricted()
        };
        let guests = fabric.area(INTERNET, address("11.0.9.1"), kind, link);
        let [here, there] =
            ["192.168.9.2", "192.168.9.3"].map(|own| town.fabric.host(guests, address(own), link));
        let met = town.send(here, a, b).map(|(place, _, _)| place);
        assert_eq!(met, Some(there));
        town.fabric.keep_apart(guests);
        for to in [b, "255.255.255.255:7"] {
            assert_eq!(town.send(here, a, to), None, "{to}");
        }
        let seen = [(here, a), (there, b)].map(|(place, own)| {
            let (at, _, seen) = town.send(place, own, "11.0.0.1:53").unwrap();
            assert_eq!(at, town.public);
            seen
        });
        // Both send; the first one opens the router for the other.
        town.send(here, a, &seen[1]);
        let met = town.send(there, b, &seen[0]);
        let met = met.map(|(place, _, from)| (place, from));
        assert_eq!(met, hairpin.then(|| (here, seen[1].clone())));
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

/// A public host with both, a home with both, and one with IPv6 alone.
fn dual_town() -> (Town, Place, Place) {
    let mut town = town(NatKind::full_cone());
    let link = LinkKind::of_delay(5 * MILLI);
    let fabric = &mut town.fabric;
    fabric.add_v6(town.public, "2600:11:0:1::1".parse().unwrap(), false);
    let [dual, alone] = [(8, false), (9, true)].map(|(number, is_alone)| {
        let outer = Ipv4Addr::new(11, 0, number, 1);
        let home = fabric.area(INTERNET, outer, NatKind::port_restricted(), link);
        let prefix = Ipv6Addr::new(0x2600, 0x11, 0, u16::from(number), 0, 0, 0, 0);
        fabric.route_v6(home, prefix, NatKind::port_restricted());
        let cable = LinkKind::of_delay(Duration::ZERO);
        let place = fabric.host(home, address("192.168.1.2"), cable);
        fabric.add_v6(place, Ipv6Addr::from_bits(prefix.to_bits() | 2), is_alone);
        place
    });
    (town, dual, alone)
}

impl Town {
    fn send_v6(&mut self, from: Place, source: &str, to: &str) -> Option<(Place, String)> {
        let arrived = self.carry(from, udp_v6(source, to));
        arrived.map(|(place, _, source)| (place, source))
    }
}

#[test]
fn a_firewall_lets_answers_of_ipv6_in_and_nothing_else() {
    let (mut town, dual, alone) = dual_town();
    let public = town.public;
    let (own, other) = ("[2600:11:0:8::2]:4000", "[2600:11:0:1::1]:53");
    assert_eq!(town.send_v6(public, other, own), None);
    let there = town.send_v6(dual, own, other).unwrap();
    assert_eq!(there, (public, own.to_owned()));
    assert_eq!(town.send_v6(public, other, own).unwrap().0, dual);
    // Two homes open their firewalls for each other.
    let third = "[2600:11:0:9::2]:4000";
    assert_eq!(town.send_v6(dual, own, third), None);
    assert_eq!(town.send_v6(alone, third, own).unwrap().0, dual);
    assert_eq!(town.send_v6(dual, own, third).unwrap().0, alone);
    let unroutable = town.fabric.counts().unroutable;
    assert_eq!(town.send_v6(dual, third, other), None);
    assert_eq!(town.fabric.counts().unroutable, unroutable + 1);
}

#[test]
fn a_host_with_ipv6_alone_speaks_ipv4_by_the_nat64() {
    let (mut town, dual, alone) = dual_town();
    let public = town.public;
    let (own, other) = ("[2600:11:0:9::2]:4000", "[64:ff9b::11.0.0.1]:53");
    let (place, seen) = town.send_v6(alone, own, other).unwrap();
    assert_eq!((place, seen.as_str()), (public, "11.0.9.1:4000"));
    let (place, _, from) = town.send(public, "11.0.0.1:53", &seen).unwrap();
    assert_eq!((place, from.as_str()), (alone, "[64:ff9b::b00:1]:53"));
    let both = town.send_v6(dual, "[2600:11:0:8::2]:4000", other);
    assert_eq!(both, None);
}
