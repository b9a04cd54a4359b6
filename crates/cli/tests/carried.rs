//! Nodes that no packet reaches straight, each behind a router that gives every destination another
//! port: what others carry between them. Without root these tests have nothing to stand on and say
//! so.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test may panic as the test itself"
)]

mod net;

use std::fs::File;
use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use enishi_lab::wire::{NatKind, Outward, Ports};
use enishi_lab::{Daemon, Host, until};

use net::{A_WHILE, Net, PROGRAM, id, way};

/// How much is sent while the node dies that carries it, in octets.
const SENT_BYTES: usize = 8_000_000;

/// Two nodes that everybody reaches, also where the web alone is let out, and two that nobody does.
struct Town {
    helpers: Vec<Daemon>,
    nodes: Vec<(Host, Daemon)>,
    net: Net,
}

impl Town {
    fn open(name: &str, sites: [NatKind; 2]) -> Option<Self> {
        let mut net = Net::open(name)?;
        let config = "web_ports = [80, 443]\n";
        let public = ["s0", "s1"].map(|name| net.world.public(name).unwrap());
        let (first, ticket) = net.found(&public[0], config);
        let second = net.join(&public[1], config, &ticket);
        let mut nodes = Vec::new();
        for (name, nat) in ["a", "b"].into_iter().zip(sites) {
            let router = net.world.home(nat).unwrap();
            let host = net.world.host(name, router).unwrap();
            let daemon = net.join(&host, "", &ticket);
            nodes.push((host, daemon));
        }
        Some(Self {
            helpers: vec![first, second],
            nodes,
            net,
        })
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
        let is_it = |helper: &Daemon| {
            let status = helper.json(&["status"]);
            status.is_ok_and(|status| status["node_id"].as_str().unwrap().starts_with(&by))
        };
        self.helpers.iter().position(is_it).unwrap()
    }

    /// The first node sends the second one a stream, and who carries it is killed meanwhile.
    fn sends_while_the_carrier_dies(mut self) {
        let there = self.nodes[1].1.address().unwrap();
        let started = Instant::now();
        let ping = ["ping", "-c", "1", "-W", "10", &there.to_string()];
        let answered = self.nodes[0].0.run(&ping, A_WHILE).unwrap();
        println!("first answer after {:?}", started.elapsed());
        assert!(
            answered.success(),
            "{}\n{}",
            answered.stdout,
            self.nodes[0].1.log()
        );
        let by = self.carries();

        let sent: Vec<u8> = (0..SENT_BYTES as u32).map(|n| (n / 3) as u8).collect();
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

        let mut output = listener.stdout.take().unwrap();
        let (mut received, mut piece) = (Vec::new(), vec![0; 65_536]);
        let (mut last, mut gap, mut killed) = (Instant::now(), Duration::ZERO, false);
        loop {
            let count = output.read(&mut piece).unwrap();
            gap = gap.max(last.elapsed());
            last = Instant::now();
            if count == 0 {
                break;
            }
            received.extend_from_slice(&piece[..count]);
            if !killed && received.len() > SENT_BYTES / 8 {
                self.helpers[by].process().kill9().unwrap();
                killed = true;
            }
        }
        println!("the longest gap: {gap:?}");
        // QUIC alone would notice after 15 seconds.
        assert!(gap < Duration::from_secs(10), "{gap:?}");
        assert!(killed && received == sent, "{} octets", received.len());
        assert!(listener.wait().unwrap().success());
        assert!(connector.unwrap().wait().unwrap().success());
        assert_ne!(self.carries(), by);
    }
}

#[test]
fn two_that_no_packet_reaches_speak_by_way_of_others_and_lose_nothing_when_one_dies() {
    let sites = [(); 2].map(|()| NatKind::symmetric(Ports::Random));
    if let Some(town) = Town::open("carried", sites) {
        town.sends_while_the_carrier_dies();
    }
}

#[test]
fn two_without_datagrams_lose_nothing_either() {
    let behind = |outward| NatKind {
        outward,
        ..NatKind::port_restricted()
    };
    let sites = [Outward::NoUdp, Outward::TcpTo(vec![80, 443])].map(behind);
    let Some(town) = Town::open("streams", sites) else {
        return;
    };
    // Each reaches those who listen over TCP, at whatever port is let out.
    for (node, port) in town.nodes.iter().zip([None, Some([":80", ":443"])]) {
        let ways: Vec<String> = town
            .helpers
            .iter()
            .map(|to| way(&node.1, &id(to)))
            .collect();
        let is_stream = |way: &String| way.starts_with("direct tcp 11.0.");
        assert!(ways.iter().any(is_stream), "{ways:?}\n{}", node.1.log());
        let passes =
            |way: &String| port.is_none_or(|all| all.iter().any(|port| way.ends_with(port)));
        assert!(
            ways.iter().filter(|way| is_stream(way)).all(passes),
            "{ways:?}"
        );
    }
    town.sends_while_the_carrier_dies();
}
