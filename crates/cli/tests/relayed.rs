//! Two members each behind a router that gives every destination another port: their packets are relayed
//! by nodes that others reach, as bare UDP. Without root these tests have nothing to stand on and say so.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

mod net;

use std::time::Duration;

use enishi_lab::wire::{NatKind, Ports};
use enishi_lab::{Daemon, Host, until};
use serde_json::Value;

use net::{A_WHILE, Death, Net, connect, id, longest_gap, octets, send, status};

/// How long a flow may stand still when the node dies that relays it.
const GAP_MAX: Duration = Duration::from_secs(3);
/// How often it is pinged, as the program takes it.
const INTERVAL_S: &str = "0.1";
const PINGS: &str = "100";

/// How much is sent by TCP meanwhile, in octets.
const SENT_BYTES: usize = 16_000_000;

struct Town {
    helpers: Vec<(Host, Daemon)>,
    nodes: Vec<(Host, Daemon)>,
    net: Net,
}

impl Town {
    fn open(name: &str, config: &str) -> Option<Self> {
        let mut net = Net::open(name)?;
        let [one, other] = ["s0", "s1"].map(|name| net.world.public(name).unwrap());
        let (first, ticket) = net.found(&one, config);
        let second = net.join(&other, config, &ticket);
        let mut nodes = Vec::new();
        for name in ["a", "b"] {
            let nat = NatKind::symmetric(Ports::Random);
            let router = net.world.home(nat).unwrap();
            let host = net.world.host(name, router).unwrap();
            let daemon = net.join(&host, "", &ticket);
            nodes.push((host, daemon));
        }
        Some(Self {
            helpers: vec![(one, first), (other, second)],
            nodes,
            net,
        })
    }

    /// Returns how packets of the first node go to the second.
    fn path(&self) -> String {
        let (a, b) = (&self.nodes[0].1, id(&self.nodes[1].1));
        let channel = a.json(&["channel", "show", "lab"]).unwrap();
        let members = channel["member_list"].as_array().unwrap();
        let member = members.iter().find(|member| member["node_id"] == b);
        member
            .map_or("-", |member| member["path"].as_str().unwrap())
            .to_owned()
    }

    fn there(&self) -> String {
        self.nodes[1].1.address().unwrap().to_string()
    }

    fn pings(&self, count: &str) -> String {
        ping(&self.nodes[0].0, &self.there(), count)
    }

    /// Returns which helper relays.
    fn relays(&self) -> usize {
        let mut by = None;
        until(A_WHILE, "a node relays packets", || {
            self.pings("5");
            by = self.path().strip_prefix("relayed by ").map(str::to_owned);
            Ok(by.is_some())
        })
        .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.path(), self.nodes[0].1.log()));
        let by = by.unwrap();
        let is_it = |helper: &(Host, Daemon)| {
            let status = helper.1.json(&["status"]);
            status.is_ok_and(|status| status["node_id"].as_str().unwrap().starts_with(&by))
        };
        self.helpers.iter().position(is_it).unwrap()
    }
}

fn ping(from: &Host, there: &str, count: &str) -> String {
    let words = [
        "ping", "-D", "-n", "-i", INTERVAL_S, "-c", count, "-W", "3", there,
    ];
    from.run(&words, A_WHILE).unwrap().stdout
}

fn service(daemon: &Daemon) -> Value {
    status(daemon)["service"].clone()
}

/// Returns the longest time between two answers of a ping, by its own stamps.
fn longest_pause(told: &str) -> Duration {
    let stamps = told.lines().filter_map(|line| {
        let (stamp, _) = line.strip_prefix('[')?.split_once(']')?;
        stamp.parse::<f64>().ok()
    });
    let stamps: Vec<f64> = stamps.collect();
    let gaps = stamps.windows(2).map(|pair| pair[1] - pair[0]);
    Duration::from_secs_f64(gaps.fold(0.0, f64::max))
}

#[test]
fn packets_of_two_that_no_packet_reaches_are_relayed_and_go_on_when_the_relay_dies() {
    let Some(mut town) = Town::open("relayed", "") else {
        return;
    };
    let by = town.relays();
    // What is sent goes that way, and not in the session; what comes may come by the other one.
    let relayed = |key: &str| {
        let of = |helper: &(Host, Daemon)| service(&helper.1)[key].as_u64().unwrap();
        town.helpers.iter().map(of).sum::<u64>()
    };
    let before = ["relayed_packets", "relayed_bytes"].map(relayed);
    let told = town.pings("20");
    assert!(told.contains(" 0% packet loss"), "{told}");
    let after = ["relayed_packets", "relayed_bytes"].map(relayed);
    assert!(after[0] - before[0] >= 40, "{before:?} {after:?}");
    assert!(after[1] - before[1] >= 40 * 84, "{before:?} {after:?}");
    assert_eq!(service(&town.helpers[by].1)["relayed_pairs"], 1);
    let channel = town.nodes[0].1.json(&["channel", "show", "lab"]).unwrap();
    assert_eq!(channel["relayed"], 1, "{channel}");

    // It is killed while they go: by the other one they go on.
    let (from, there) = (town.nodes[0].0.clone(), town.there());
    let pinging = std::thread::spawn(move || ping(&from, &there, PINGS));
    std::thread::sleep(Duration::from_secs(2));
    town.helpers[by].1.process().kill9().unwrap();
    let told = pinging.join().unwrap();
    let gap = longest_pause(&told);
    println!("the longest gap: {gap:?}");
    assert!(gap < GAP_MAX, "{gap:?}\n{told}\n{}", town.nodes[0].1.log());
    assert_ne!(town.relays(), by);
}

/// The relay dies in the middle of what the host of the one node sends that of the other by TCP.
fn tcp_goes_on(name: &str, death: Death) {
    let Some(mut town) = Town::open(name, "") else {
        return;
    };
    let by = town.relays();
    let at = town.nodes[1].1.address().unwrap();
    let [near, far] = connect(&town.nodes[0].0, &town.nodes[1].0, at.into());
    let sent = octets(SENT_BYTES);
    let sending = send(near, sent.clone());
    let (net, helper) = (&town.net, &mut town.helpers[by]);
    let gap = longest_gap(far, &sent, || net.kill(helper, death));
    println!("{death:?}: the longest gap: {gap:?}");
    assert!(gap < GAP_MAX, "{gap:?}\n{}", town.nodes[0].1.log());
    sending.join().unwrap();
    assert_ne!(town.relays(), by);
}

#[test]
fn tcp_over_the_virtual_network_loses_nothing_when_the_relay_is_killed() {
    tcp_goes_on("killed", Death::Killed);
}

#[test]
fn tcp_over_the_virtual_network_loses_nothing_when_the_relay_falls_silent() {
    tcp_goes_on("fallen", Death::CutOff);
}

#[test]
fn who_does_not_agree_relays_nothing() {
    let Some(town) = Town::open("unrelayed", "relay_pairs = 0\n") else {
        return;
    };
    let told = town.pings(PINGS);
    assert!(told.contains("bytes from"), "{told}");
    let path = town.path();
    assert!(path.starts_with("session relayed by "), "{path}");
    for (_, helper) in &town.helpers {
        let service = service(helper);
        assert_eq!(service["relayed_pairs"], 0, "{service}");
        assert_eq!(service["relayed_packets"], 0, "{service}");
    }
    let carried = town.helpers.iter().map(|(_, helper)| {
        let service = service(helper);
        service["carried_packet_bytes"].as_u64().unwrap()
    });
    assert!(carried.sum::<u64>() > 10_000);
}
