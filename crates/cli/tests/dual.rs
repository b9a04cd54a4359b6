//! Nodes with IPv4 and IPv6 whose sessions go by IPv6 are met by IPv4, where ports have to be searched.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

mod net;

use enishi_lab::Stack;
use enishi_lab::wire::{INTERNET, NatKind, Ports};

use net::{Net, packets_go};

/// Sessions by IPv6 alone; packets go by both.
const SESSIONS_BY_IPV6: &str = "listen = [\"[::]:0\"]\n";

/// A host with both, behind a router of one kind, goes straight to one with IPv4 alone behind one of
/// another.
fn goes_straight(name: &str, [with_both, other]: [NatKind; 2]) {
    let Some(mut net) = Net::open(name) else {
        return;
    };
    let helpers = ["s0", "s1"].map(|name| net.world.host_of(name, INTERNET, Stack::Dual).unwrap());
    let site = net.world.home_v6(with_both).unwrap();
    let both = net.world.host_of("d", site, Stack::Dual).unwrap();
    let home = net.world.home(other).unwrap();
    let four = net.world.host("h", home).unwrap();
    let (_first, ticket) = net.found(&helpers[0], "");
    let _second = net.join(&helpers[1], "", &ticket);
    let node = net.join(&both, SESSIONS_BY_IPV6, &ticket);
    let other = net.join(&four, "", &ticket);
    packets_go((&node, &both), &other, "direct 11.");
}

fn one_port_for_all() -> NatKind {
    NatKind {
        ports: Ports::Random,
        ..NatKind::port_restricted()
    }
}

#[test]
fn its_ports_are_searched() {
    let symmetric = NatKind::symmetric(Ports::Random);
    goes_straight("dual-sym", [symmetric, one_port_for_all()]);
}

#[test]
fn it_searches_ports() {
    let symmetric = NatKind::symmetric(Ports::Random);
    goes_straight("dual-one", [one_port_for_all(), symmetric]);
}
