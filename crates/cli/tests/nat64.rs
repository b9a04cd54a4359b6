//! A node with IPv6 alone that is told of its site's NAT64 goes straight to those with IPv4 alone.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

mod net;

use enishi_lab::wire::{INTERNET, NatKind, Ports};
use enishi_lab::{Stack, until};
use net::{A_WHILE, Net, dnsmasq, id, packets_go, status, way};

const TOLD: &str = "nat64_prefix = \"64:ff9b::/96\"\n";
const TRANSLATED: &str = "direct [64:ff9b::";

#[test]
fn a_node_with_ipv6_alone_goes_straight_by_the_nat64() {
    let Some(mut net) = Net::open("nat64d") else {
        return;
    };
    let [first, second] =
        ["s0", "s1"].map(|name| net.world.host_of(name, INTERNET, Stack::Dual).unwrap());
    let public = net.world.public("p").unwrap();
    let home = net.world.home(NatKind {
        ports: Ports::Random,
        ..NatKind::port_restricted()
    });
    let behind = net.world.host("h", home.unwrap()).unwrap();
    let site = net.world.home_v6(NatKind::port_restricted()).unwrap();
    let six = net.world.host_of("six", site, Stack::Ipv6).unwrap();
    let (_first, ticket) = net.found(&first, "");
    let _second = net.join(&second, "", &ticket);
    let public = net.join(&public, "", &ticket);
    let behind = net.join(&behind, "", &ticket);
    let node = net.join(&six, TOLD, &ticket);

    packets_go((&node, &six), &public, TRANSLATED);
    until(A_WHILE, "the session goes straight", || {
        Ok(way(&node, &id(&public)).starts_with(TRANSLATED))
    })
    .unwrap_or_else(|error| panic!("{error}: {}", way(&node, &id(&public))));
    // Both open their routers for each other: the other one sends to the NAT64's outer address.
    packets_go((&node, &six), &behind, TRANSLATED);
}

#[test]
fn ports_are_searched_through_the_nat64() {
    let Some(mut net) = Net::open("nat64s") else {
        return;
    };
    let [first, second] =
        ["s0", "s1"].map(|name| net.world.host_of(name, INTERNET, Stack::Dual).unwrap());
    let symmetric = net.world.home(NatKind::symmetric(Ports::Random)).unwrap();
    let behind = net.world.host("h", symmetric).unwrap();
    let site = NatKind {
        ports: Ports::Random,
        ..NatKind::port_restricted()
    };
    let site = net.world.home_v6(site).unwrap();
    let six = net.world.host_of("six", site, Stack::Ipv6).unwrap();
    let (_first, ticket) = net.found(&first, "");
    let _second = net.join(&second, "", &ticket);
    let behind = net.join(&behind, "", &ticket);
    let node = net.join(&six, TOLD, &ticket);
    // The NAT64 has one port for all, the other router has another for each: who is behind the NAT64
    // searches there.
    packets_go((&node, &six), &behind, TRANSLATED);
}

#[test]
fn sessions_go_straight_through_the_nat64_to_who_is_behind_a_router() {
    let Some(mut net) = Net::open("nat64e") else {
        return;
    };
    let helpers = ["s0", "s1"].map(|name| net.world.host_of(name, INTERNET, Stack::Dual).unwrap());
    let home = net.world.home(NatKind {
        ports: Ports::Random,
        ..NatKind::port_restricted()
    });
    let behind = net.world.host("h", home.unwrap()).unwrap();
    let site = net.world.home_v6(NatKind::port_restricted()).unwrap();
    let six = net.world.host_of("six", site, Stack::Ipv6).unwrap();
    let (_first, ticket) = net.found(&helpers[0], "");
    let _second = net.join(&helpers[1], "", &ticket);
    let behind = net.join(&behind, "", &ticket);
    let node = net.join(&six, TOLD, &ticket);
    until(A_WHILE, "the outer address is known", || {
        let observed = status(&node)["nat"]["observed"].clone();
        let all = observed.as_array().cloned().unwrap_or_default();
        Ok(all
            .iter()
            .any(|at| at.as_str().is_some_and(|at| at.starts_with("11."))))
    })
    .unwrap_or_else(|error| panic!("{error}: {}", status(&node)["nat"]));
    until(A_WHILE, "the session goes straight", || {
        let address = behind.address().unwrap().to_string();
        six.run(&["ping", "-c", "1", "-W", "1", &address], A_WHILE)?;
        Ok(way(&node, &id(&behind)).starts_with(TRANSLATED))
    })
    .unwrap_or_else(|error| panic!("{error}: {}\n{}", way(&node, &id(&behind)), node.log()));
}

#[test]
fn the_nat64_is_found_by_the_dns_of_the_site_unless_the_configuration_says_that_there_is_none() {
    let Some(mut net) = Net::open("nat64f") else {
        return;
    };
    let public = ["s0", "s1"].map(|name| net.world.public(name).unwrap());
    let site = net.world.home_v6(NatKind::port_restricted()).unwrap();
    let hosts =
        ["dns", "six", "off"].map(|name| net.world.host_of(name, site, Stack::Ipv6).unwrap());
    let [server, six, off] = hosts;
    let (_first, ticket) = net.found(&public[0], "");
    let other = net.join(&public[1], "", &ticket);
    // What a DNS64 makes of the two addresses that the name has.
    let lines =
        "address=/ipv4only.arpa/64:ff9b::192.0.0.170\naddress=/ipv4only.arpa/64:ff9b::192.0.0.171";
    let _dnsmasq = dnsmasq(net.directory.path(), &server, lines);
    let resolver = format!("nameserver {}\n", server.address_v6().unwrap());
    for host in [&six, &off] {
        host.set_etc("resolv.conf", &resolver).unwrap();
    }
    // Nobody there has IPv6, so nobody is reached otherwise.
    let node = net.join(&six, "", &ticket);
    packets_go((&node, &six), &other, TRANSLATED);
    // Who is told that there is none reaches nobody.
    let words = ["--bootstrap", &ticket];
    let alone = net.start(&off, "nat64_prefix = \"off\"\n", &words);
    let joined = alone.call(&["channel", "join", &ticket]).unwrap();
    assert!(!joined.success(), "{}", joined.stdout);
    let peers = alone.json(&["peers"]).unwrap();
    assert_eq!(peers["peers"].as_array().map(Vec::len), Some(0), "{peers}");
}
