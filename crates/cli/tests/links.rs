//! Nodes in a company's network that nothing leaves but what its proxy lets through: squid, in front
//! of it. Without root these tests have nothing to stand on and say so.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

mod net;
mod site;

use std::time::{Duration, Instant};

use enishi_lab::wire::{NatKind, Outward};
use enishi_lab::{Host, until};

use net::{A_WHILE, Net, id, status, wait, way};
use site::{PROXY, Site};

/// A node behind such a proxy reaches the others.
struct Case {
    name: &'static str,
    /// Lines of the proxy's configuration.
    squid: &'static str,
    /// Lines of the node's.
    node: &'static str,
    /// Whether that is how the node reaches who listens at the ports of the web.
    by: fn(&str) -> bool,
}

fn reaches(case: &Case) {
    let Some(mut net) = Net::open(case.name) else {
        return;
    };
    let [helper, other] = ["s0", "o"].map(|name| net.world.public(name).unwrap());
    let site = Site::new(&mut net);
    let inside = &site.inside;
    let _squid = site.squid(PROXY, case.squid);
    let (first, ticket) = net.found(&helper, "web_ports = [80, 443]\n");
    let other = net.join(&other, "", &ticket);
    let started = Instant::now();
    let node = net.join(inside, case.node, &ticket);
    println!("{}: joined after {:?}", case.name, started.elapsed());
    let helper = id(&first);
    until(A_WHILE, "it is reached", || {
        Ok((case.by)(&way(&node, &helper)))
    })
    .unwrap_or_else(|error| panic!("{error}: {}\n{}", way(&node, &helper), node.log()));
    // Those that are not reached by the proxy are by way of others.
    let there = other.address().unwrap().to_string();
    let started = Instant::now();
    let ping = ["ping", "-c", "3", "-i", "0.2", "-W", "5", &there];
    let answered = inside.run(&ping, A_WHILE).unwrap();
    println!("{}: pings within {:?}", case.name, started.elapsed());
    assert!(answered.success(), "{}\n{}", answered.stdout, node.log());
    assert!(started.elapsed() < Duration::from_secs(15));
    assert_eq!(status(&node)["joined"], true);
    let examined = node.call(&["doctor", "net"]).unwrap();
    println!("{}", examined.stdout);
    let passes = examined
        .stdout
        .lines()
        .filter(|line| line.contains(": passes, "));
    let passes: Vec<_> = passes.collect();
    assert!(!passes.is_empty(), "{}", examined.stdout);
    assert!(passes.iter().all(|line| line.contains(PROXY)), "{passes:?}");
}

#[test]
fn squid_lets_connect_through() {
    reaches(&Case {
        name: "connect",
        squid: "",
        node: "proxy = \"http://192.168.1.1:3128\"\n",
        by: |way| {
            way.starts_with("direct tcp 11.0.")
                && way.ends_with(&format!(":443 by the proxy {PROXY}"))
        },
    });
}

#[test]
fn squid_wants_to_know_who_asks() {
    reaches(&Case {
        name: "basic",
        squid: "auth_param basic program /usr/lib/squid/basic_ncsa_auth DIRECTORY/basic\n\
                acl known proxy_auth REQUIRED\nhttp_access deny !known\n",
        node: "proxy = \"http://aki:sesame@192.168.1.1:3128\"\n",
        by: |way| way.ends_with(&format!(":443 by the proxy {PROXY}")),
    });
}

#[test]
fn squid_lets_requests_alone_through() {
    reaches(&Case {
        name: "requests",
        squid: "http_access deny CONNECT\n",
        node: "proxy = \"http://192.168.1.1:3128\"\n",
        by: |way| way.starts_with("direct http 11.0.") && way.ends_with(PROXY),
    });
}

/// A public node wants to speak to one that no datagram leaves and that nobody reaches. The one is a client, so
/// the other has never heard of it; nobody carries. What is left is to ask the other one through the overlay to
/// dial.
#[test]
fn who_is_called_dials_where_nothing_else_is_possible() {
    const ALONE: &str = "relay = false\n";
    let Some(mut net) = Net::open("called") else {
        return;
    };
    let [one, other, public] = ["s0", "s1", "p"].map(|name| net.world.public(name).unwrap());
    let site = net.world.home(NatKind {
        outward: Outward::NoUdp,
        ..NatKind::port_restricted()
    });
    let inside = net.world.host("inside", site.unwrap()).unwrap();
    let (first, ticket) = net.found(&one, ALONE);
    let start = |host: &Host, more: &[&str]| {
        let words = ["--no-tun", "--no-dns", "--bootstrap", &ticket];
        let node = net.start(host, ALONE, &[&words, more].concat());
        wait(&node, "it joins", |status| status["joined"] == true);
        node
    };
    let second = start(&other, &[]);
    let caller = start(&public, &["--client"]);
    let attached = |to: &str| way(&caller, to).starts_with("direct ");
    let (helpers, called) = ([id(&first), id(&second)], start(&inside, &[]));
    until(A_WHILE, "the client has both its hosts", || {
        Ok(helpers.iter().all(|helper| attached(helper)))
    })
    .unwrap();
    until(A_WHILE, "the other one has its neighbours", || {
        let has = |helper: &String| way(&called, helper).starts_with("direct tcp 11.0.");
        Ok(helpers.iter().all(has))
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", called.log()));
    let (from, to) = (id(&caller), id(&called));
    assert_eq!([way(&caller, &to), way(&called, &from)], ["-", "-"]);
    let started = Instant::now();
    let asked = caller.call(&["ping", &to, "-c", "1", "--timeout-ms", "8000"]);
    let asked = asked.unwrap();
    println!("answered after {:?}", started.elapsed());
    let logs = || format!("{}\n\n{}", caller.log(), called.log());
    assert!(asked.success(), "{}\n{}", asked.stderr, logs());
    let ways = [way(&caller, &to), way(&called, &from)];
    assert!(ways[0].starts_with("direct tcp from 11.0."), "{ways:?}");
    let here = format!("direct tcp {}:", public.address());
    assert!(ways[1].starts_with(&here), "{ways:?}");
}
