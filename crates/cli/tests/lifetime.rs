//! For how long routers keep silent ways open, as nodes find out. Without root this test has nothing to
//! stand on and says so.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

mod net;

use std::time::Duration;

use enishi_lab::Daemon;
use enishi_lab::wire::{NatKind, Ports};
use serde_json::{Value, json};

use net::{A_WHILE, Net, status, wait};

/// How a node says it, once it has seen the end of a way.
fn found(daemon: &Daemon) -> (u64, u64, Value) {
    let status = wait(daemon, "it is found out", |status| {
        status["nat"]["lifetime"]["less_than_s"].is_u64()
    });
    let lifetime = status["nat"]["lifetime"].clone();
    let [least, less] = ["at_least_s", "less_than_s"].map(|key| lifetime[key].as_u64().unwrap());
    (least, less, lifetime)
}

#[test]
fn a_node_finds_out_when_its_router_forgets_and_comes_before_that() {
    let Some(mut net) = Net::open("lifetime") else {
        return;
    };
    let [public, other, router] = ["p", "q", "k"].map(|name| net.world.public(name).unwrap());
    let (first, ticket) = net.found(&public, "");
    let second = net.join(&other, "", &ticket);
    // Linux's own router keeps what was seen once only for less.
    let kernel = net.world.behind_kernel("d", &router, "").unwrap();
    let times = "cd /proc/sys/net/netfilter && echo 24 > nf_conntrack_udp_timeout_stream && \
                 echo 7 > nf_conntrack_udp_timeout";
    let set = router.run(&["sh", "-ec", times], A_WHILE).unwrap();
    assert!(set.success(), "{}", set.stderr);
    let kinds = [
        ("a", NatKind::port_restricted(), 24),
        ("b", NatKind::symmetric(Ports::Random), 14),
    ];
    let mut nodes = vec![(net.join(&kernel, "", &ticket), 24)];
    for (name, kind, lifetime_s) in kinds {
        let udp_lifetime = Duration::from_secs(lifetime_s);
        let kind = NatKind {
            udp_lifetime,
            ..kind
        };
        let home = net.world.home(kind).unwrap();
        let host = net.world.host(name, home).unwrap();
        nodes.push((net.join(&host, "", &ticket), lifetime_s));
    }
    for (daemon, lifetime_s) in &nodes {
        let (least, less, told) = found(daemon);
        assert!(
            least <= *lifetime_s && *lifetime_s < less,
            "{lifetime_s} {told}"
        );
        assert_eq!(told["translated"], true);
        let every_ms = told["keep_alive_ms"].as_u64().unwrap();
        assert!(every_ms < 1000 * least, "{told}");
    }
    let doctor = |daemon: &Daemon| daemon.call(&["doctor", "net"]).unwrap().stdout;
    let symmetric = &nodes[2].0;
    let (text, (least, less, _)) = (doctor(symmetric), found(symmetric));
    let said = format!("the router forgets a silent way after {least} to {less} s");
    assert!(text.contains(&said), "{text}");
    for daemon in [&first, &second] {
        let told = status(daemon)["nat"]["lifetime"].clone();
        assert_eq!(told["unlimited"], true, "{told}");
        assert_eq!(told["less_than_s"], json!(null), "{told}");
    }
    let text = doctor(&first);
    assert!(
        text.contains("nothing is in between that forgets"),
        "{text}"
    );
}
