//! Two nodes behind one router: in one home, in two homes of one carrier, and in a network that keeps
//! its guests apart. What is possible depends on whether that router turns packets round that are for
//! its own outer address (hairpinning: RFC 4787, section 6). Without root these tests have nothing to
//! stand on and say so.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

mod net;

use enishi_lab::wire::{Area, NatKind, Ports};
use enishi_lab::{Daemon, Host, until};

use net::{A_WHILE, Net, id, packets_go, way};

/// A router that keeps one port for all and lets in whom was sent to.
fn router(hairpin: bool) -> NatKind {
    NatKind {
        hairpin,
        ports: Ports::Random,
        ..NatKind::port_restricted()
    }
}

/// Two members, and two whom everybody reaches, each in a network of its own.
struct Town {
    nodes: [(Host, Daemon); 2],
    helpers: [Daemon; 2],
    /// Behind the router that both have in common.
    area: Area,
    net: Net,
}

impl Town {
    /// `area` makes what is behind the common router, `home` says where each node is. None without root.
    fn open(
        name: &str,
        area: impl Fn(&mut Net) -> Area,
        home: impl Fn(&mut Net, Area) -> Area,
    ) -> Option<Self> {
        let mut net = Net::open(name)?;
        let [first, second] = ["s0", "s1"].map(|name| net.world.public(name).unwrap());
        let (first, ticket) = net.found(&first, "");
        let second = net.join(&second, "", &ticket);
        let area = area(&mut net);
        let nodes = ["a", "b"].map(|name| {
            let home = home(&mut net, area);
            let host = net.world.host(name, home).unwrap();
            let daemon = net.join(&host, "", &ticket);
            (host, daemon)
        });
        Some(Self {
            nodes,
            helpers: [first, second],
            area,
            net,
        })
    }

    /// Two homes, whose hosts have the same address, behind one router of a carrier.
    fn of_a_carrier(name: &str, hairpin: bool) -> Option<Self> {
        Self::open(
            name,
            |net| net.world.carrier(router(hairpin)).unwrap(),
            |net, carrier| net.world.behind(carrier, router(false)).unwrap(),
        )
    }

    /// Waits until the first node's packets to the second, and their session, go a way that begins so.
    fn goes(&self, packets: &str, session: &str) {
        let [(host, a), (_, b)] = &self.nodes;
        packets_go((a, host), b, packets);
        let b = id(b);
        until(A_WHILE, "the session goes so, too", || {
            std::thread::sleep(std::time::Duration::from_millis(200));
            Ok(way(a, &b).starts_with(session))
        })
        .unwrap_or_else(|error| panic!("{error}: {}\n{}", way(a, &b), a.log()));
    }

    /// Tells whether the first node's packets reach the second one and are answered, but for a few: a way that is
    /// better may just be taken.
    fn talks(&self) -> bool {
        let told = self.pings("20");
        let (_, rest) = told.split_once(" packets transmitted, ").unwrap();
        rest.split(' ').next().unwrap().parse::<u32>().unwrap() >= 16
    }

    /// Pings the second node from the first, ten times a second.
    fn pings(&self, count: &str) -> String {
        let there = self.nodes[1].1.address().unwrap().to_string();
        let words = ["ping", "-q", "-i", "0.1", "-c", count, "-W", "2", &there];
        self.nodes[0].0.run(&words, A_WHILE).unwrap().stdout
    }
}

#[test]
fn two_in_one_home_talk_in_its_network_also_when_the_internet_is_gone() {
    let home = |net: &mut Net| net.world.home(router(false)).unwrap();
    let Some(town) = Town::open("home", home, |_, home| home) else {
        return;
    };
    town.goes("direct 192.168.1.3:", "direct 192.168.1.3:");
    town.net.world.cut_area(town.area, true);
    let told = town.pings("100");
    assert!(told.contains(" 0% packet loss"), "{told}");
    // Both know that everybody else is gone.
    let helpers = town.helpers.each_ref().map(id);
    for (_, node) in &town.nodes {
        until(A_WHILE, "the others are gone", || {
            Ok(helpers.iter().all(|helper| way(node, helper) == "-"))
        })
        .unwrap_or_else(|error| panic!("{error}: {}", node.log()));
    }
    let told = town.pings("100");
    assert!(told.contains(" 0% packet loss"), "{told}");
    town.goes("direct 192.168.1.3:", "direct 192.168.1.3:");
}

#[test]
fn two_homes_of_a_carrier_that_hairpins_talk_straight() {
    let Some(town) = Town::of_a_carrier("hairpin", true) else {
        return;
    };
    town.goes("direct 11.0.3.1:", "direct 11.0.3.1:");
    assert!(town.talks());
}

#[test]
fn two_homes_of_a_carrier_that_does_not_hairpin_talk_by_way_of_others() {
    let Some(town) = Town::of_a_carrier("nohairpin", false) else {
        return;
    };
    town.goes("relayed by ", "relayed by ");
    assert!(town.talks());
}

#[test]
fn guests_who_are_kept_apart_talk_by_their_router_if_that_hairpins() {
    let guests = |net: &mut Net| {
        let guests = net.world.home(router(true)).unwrap();
        net.world.keep_apart(guests);
        guests
    };
    let Some(town) = Town::open("guests", guests, |_, guests| guests) else {
        return;
    };
    town.goes("direct 11.0.3.1:", "direct 11.0.3.1:");
}
