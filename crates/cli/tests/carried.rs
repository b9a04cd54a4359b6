//! Nodes that no packet reaches straight, each behind a router that gives every destination another
//! port: what others carry between them. Without root these tests have nothing to stand on and say
//! so.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

mod net;

use std::fs::File;
use std::process::Stdio;
use std::time::{Duration, Instant};

use enishi_lab::wire::{NatKind, Outward, Ports};
use enishi_lab::{Daemon, Host, until};

use net::{A_WHILE, Death, Net, PROGRAM, connect, id, longest_gap, octets, send, way};

/// How much is sent while the node dies that carries it, in octets.
const SENT_BYTES: usize = 8_000_000;

/// How long a flow may stand still then. It is one or two seconds, and on a busy machine TCP may have to send once
/// more; QUIC alone would notice after seven seconds.
const GAP_MAX: Duration = Duration::from_secs(5);

/// Two nodes that everybody reaches, also where the web alone is let out, and two that nobody does.
struct Town {
    helpers: Vec<(Host, Daemon)>,
    nodes: Vec<(Host, Daemon)>,
    net: Net,
}

impl Town {
    fn open(name: &str, sites: [NatKind; 2]) -> Option<Self> {
        let mut net = Net::open(name)?;
        // Packets go in the sessions.
        let config = "web_ports = [80, 443]\nrelay_pairs = 0\n";
        let [one, other] = ["s0", "s1"].map(|name| net.world.public(name).unwrap());
        let (first, ticket) = net.found(&one, config);
        let second = net.join(&other, config, &ticket);
        let mut nodes = Vec::new();
        for (name, nat) in ["a", "b"].into_iter().zip(sites) {
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

    /// Two that send every destination by another port.
    fn symmetric(name: &str) -> Option<Self> {
        Self::open(name, [(); 2].map(|()| NatKind::symmetric(Ports::Random)))
    }

    /// Two that no datagram leaves.
    fn without_datagrams(name: &str) -> Option<Self> {
        let behind = |outward| NatKind {
            outward,
            ..NatKind::port_restricted()
        };
        let sites = [Outward::NoUdp, Outward::TcpTo(vec![80, 443])].map(behind);
        let town = Self::open(name, sites)?;
        // Each reaches those who listen over TCP, at whatever port is let out.
        for (node, port) in town.nodes.iter().zip([None, Some([":80", ":443"])]) {
            let helpers = town.helpers.iter();
            let ways: Vec<String> = helpers.map(|to| way(&node.1, &id(&to.1))).collect();
            let is_stream = |way: &String| way.starts_with("direct tcp 11.0.");
            assert!(ways.iter().any(is_stream), "{ways:?}\n{}", node.1.log());
            let passes =
                |way: &String| port.is_none_or(|all| all.iter().any(|port| way.ends_with(port)));
            assert!(
                ways.iter().filter(|way| is_stream(way)).all(passes),
                "{ways:?}"
            );
        }
        Some(town)
    }

    /// Waits until the first node has a session with the second, by way of another, and returns
    /// which of the helpers that is.
    fn carries(&self) -> usize {
        let (a, b) = (&self.nodes[0].1, id(&self.nodes[1].1));
        let mut by = None;
        until(A_WHILE, "one carries for the other", || {
            let path = way(a, &b);
            by = path.strip_prefix("relayed by ").map(str::to_owned);
            Ok(by.is_some())
        })
        .unwrap();
        let by = by.unwrap();
        // One of them may be dead by now.
        let is_it = |helper: &(Host, Daemon)| {
            let status = helper.1.json(&["status"]);
            status.is_ok_and(|status| status["node_id"].as_str().unwrap().starts_with(&by))
        };
        self.helpers.iter().position(is_it).unwrap()
    }

    /// Waits until a node has a session with each helper, so that there is a spare.
    fn is_ready(&self) {
        for (_, node) in &self.nodes {
            for (_, helper) in &self.helpers {
                let helper = id(helper);
                until(A_WHILE, "there are sessions with both", || {
                    Ok(way(node, &helper).starts_with("direct "))
                })
                .unwrap_or_else(|error| panic!("{error}\n{}", node.log()));
            }
        }
        let there = self.nodes[1].1.address().unwrap().to_string();
        let started = Instant::now();
        let ping = ["ping", "-c", "1", "-W", "10", &there];
        let answered = self.nodes[0].0.run(&ping, A_WHILE).unwrap();
        println!("first answer after {:?}", started.elapsed());
        let log = || self.nodes[0].1.log();
        assert!(answered.success(), "{}\n{}", answered.stdout, log());
    }

    /// Who carries dies while the first node sends the second one something, which comes out of this.
    fn bears(&mut self, sent: &[u8], arrives: impl std::io::Read, death: Death) {
        let by = self.carries();
        let (net, helper) = (&self.net, &mut self.helpers[by]);
        let gap = longest_gap(arrives, sent, || net.kill(helper, death));
        println!("{death:?}: the longest gap: {gap:?}");
        assert!(gap < GAP_MAX, "{gap:?}\n{}", self.nodes[0].1.log());
        assert_ne!(self.carries(), by);
    }

    /// The first node sends the second one a stream over the bulk lane.
    fn sends_a_stream_while_the_carrier_dies(mut self, death: Death) {
        self.is_ready();
        let sent = octets(SENT_BYTES);
        let file = self.net.path("sent");
        std::fs::write(&file, &sent).unwrap();
        let id = id(&self.nodes[1].1);
        let connect = |node: &Daemon, words: &[&str]| {
            let mut command = std::process::Command::new(PROGRAM);
            command.arg("--data").arg(node.data()).args(words);
            command
        };
        let mut listener = connect(&self.nodes[1].1, &["connect", "--listen", "file"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut connector = None;
        until(A_WHILE, "the stream opens", || {
            let mut child = connect(&self.nodes[0].1, &["connect", &id, "file"])
                .stdin(File::open(&file)?)
                .stdout(Stdio::null())
                .spawn()?;
            std::thread::sleep(Duration::from_millis(500));
            let is_open = child.try_wait()?.is_none();
            connector = is_open.then_some(child);
            Ok(is_open)
        })
        .unwrap();
        let output = listener.stdout.take().unwrap();
        self.bears(&sent, output, death);
        assert!(listener.wait().unwrap().success());
        assert!(connector.unwrap().wait().unwrap().success());
    }

    /// The first node's host sends the second one's something by TCP, over the virtual network.
    fn sends_by_tcp_while_the_carrier_dies(mut self, death: Death) {
        self.is_ready();
        let at = self.nodes[1].1.address().unwrap();
        let [near, far] = connect(&self.nodes[0].0, &self.nodes[1].0, at.into());
        let sent = octets(SENT_BYTES);
        let sending = send(near, sent.clone());
        self.bears(&sent, far, death);
        sending.join().unwrap();
    }
}

#[test]
fn two_that_no_packet_reaches_speak_by_way_of_others_and_lose_nothing_when_one_dies() {
    if let Some(town) = Town::symmetric("carried") {
        town.sends_a_stream_while_the_carrier_dies(Death::Killed);
    }
}

#[test]
fn nothing_is_lost_when_the_host_falls_silent_that_carries() {
    if let Some(town) = Town::symmetric("silent") {
        town.sends_a_stream_while_the_carrier_dies(Death::CutOff);
    }
}

#[test]
fn tcp_over_the_virtual_network_goes_on_when_who_carries_dies() {
    if let Some(town) = Town::symmetric("tcp") {
        town.sends_by_tcp_while_the_carrier_dies(Death::CutOff);
    }
}

#[test]
fn two_without_datagrams_lose_nothing_either() {
    if let Some(town) = Town::without_datagrams("streams") {
        town.sends_a_stream_while_the_carrier_dies(Death::Killed);
    }
}

#[test]
fn two_without_datagrams_lose_nothing_when_the_host_falls_silent_that_carries() {
    if let Some(town) = Town::without_datagrams("mute") {
        town.sends_a_stream_while_the_carrier_dies(Death::CutOff);
    }
}

#[test]
fn tcp_over_the_virtual_network_goes_on_without_datagrams_too() {
    if let Some(town) = Town::without_datagrams("tcptcp") {
        town.sends_by_tcp_while_the_carrier_dies(Death::CutOff);
    }
}
