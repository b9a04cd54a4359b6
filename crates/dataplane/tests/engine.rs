//! Two engines in network namespaces, with the system's own programs as the judges. The test
//! is the host of both: it gives keys and addresses by hand, and is their lane.
//! Every test needs root and says so when it is not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use enishi_dataplane::engine::{
    Command, Engine, Inbox, NetworkId, Note, Outside, PeerKey, Report, SessionKeys,
};
use enishi_dataplane::filter::{Filter, Permit};
use enishi_dataplane::packet::protocol;
use enishi_dataplane::sealed::{Cipher, DirectionKey, INDEX_MARK};
use enishi_dataplane::table::Gateway;
use enishi_dataplane::{Device, DeviceConfig, Layer, Network};
use enishi_lab::{Host, Lab, ensure_programs, is_root};

const LIMIT: Duration = Duration::from_secs(60);
const NETWORK: NetworkId = NetworkId(1);
/// The longest datagram of the test's lane, that of a young session of iroh.
const LANE_BYTES_MAX: usize = 1162;

macro_rules! need_root {
    () => {
        if !is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let programs = [
            ("ping", "iputils-ping"),
            ("ip", "iproute2"),
            ("iperf3", "iperf3"),
        ];
        ensure_programs(&programs).unwrap();
    };
}

#[path = "engine/hostile.rs"]
mod hostile;
#[path = "engine/relay.rs"]
mod relay;
#[path = "engine/straight.rs"]
mod straight;
#[path = "engine/waiting.rs"]
mod waiting;

/// One engine of two, and what its host hears.
struct End {
    host: Host,
    engine: Engine,
    notes: Mutex<mpsc::Receiver<Note>>,
    words: Mutex<mpsc::Receiver<straight::Word>>,
    lane: Arc<Mutex<Option<(PeerKey, Inbox)>>>,
    number: u8,
}

/// The host of an engine, as far as the engine sees it: the lane leads to the other.
struct Lane {
    notes: mpsc::Sender<Note>,
    words: mpsc::Sender<straight::Word>,
    lane: Arc<Mutex<Option<(PeerKey, Inbox)>>>,
}

impl Outside for Lane {
    fn note(&mut self, note: Note) {
        let _ = self.notes.send(note);
        // A test may hold the thread up here.
        drop(self.lane.lock());
    }

    fn lane_bytes_max(&mut self, _: &PeerKey) -> Option<usize> {
        self.lane.lock().unwrap().as_ref().map(|_| LANE_BYTES_MAX)
    }

    fn straight(&mut self, peer: &PeerKey, at: Option<SocketAddr>) {
        let _ = self.words.send(straight::Word::Straight(*peer, at));
    }

    fn said(&mut self, peer: &PeerKey, message: &[u8]) {
        let _ = self
            .words
            .send(straight::Word::Said(*peer, message.to_vec()));
    }

    fn send_by_lane(&mut self, _: &PeerKey, datagrams: &[Bytes]) {
        for datagram in datagrams {
            assert!(datagram.len() <= LANE_BYTES_MAX);
            if let Some((peer, inbox)) = &*self.lane.lock().unwrap() {
                inbox.arrived(*peer, datagram.clone());
            }
        }
    }
}

fn address(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 77, 0, number).into()
}

fn address6(number: u8) -> IpAddr {
    std::net::Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number.into()).into()
}

/// The key for what comes from an end, and what it calls the session, by round of agreement.
fn key(number: u8, round: u8) -> DirectionKey {
    DirectionKey::new([number ^ (round << 4); 32])
}

fn index(number: u8, round: u8) -> u32 {
    INDEX_MARK | u32::from(round) << 8 | u32::from(number)
}

impl End {
    /// Starts an engine on a host, with a network whose address there ends in `number`.
    fn start(host: &Host, number: u8) -> Self {
        Self::start_at(host, number, Layer::Ip)
    }

    fn start_at(host: &Host, number: u8, layer: Layer) -> Self {
        let (notes, heard) = mpsc::channel();
        let (words, said) = mpsc::channel();
        let lane = Arc::new(Mutex::new(None));
        let outside = Lane {
            notes,
            words,
            lane: Arc::clone(&lane),
        };
        let inside = host.clone();
        let start = move || {
            inside.enter().unwrap();
            let IpAddr::V4(address4) = address(number) else {
                unreachable!()
            };
            let IpAddr::V6(six) = address6(number) else {
                unreachable!()
            };
            let device = Device::new(&DeviceConfig {
                layer,
                name: "enishi%d".to_owned(),
                mtu: 1420,
                ipv4: (address4, 24),
                ipv6: Some((six, 64)),
            });
            let engine = Engine::start(0, outside).unwrap();
            engine.inbox().tell(Command::Open {
                network: NETWORK,
                device: Some(device.unwrap()),
                prefixes: vec![
                    Network::new(address(number), 24),
                    Network::new(address6(number), 64),
                ],
                addresses: vec![address(number), address6(number)],
            });
            engine
        };
        let engine = thread::spawn(start).join().unwrap();
        Self {
            host: host.clone(),
            engine,
            notes: Mutex::new(heard),
            words: Mutex::new(said),
            lane,
            number,
        }
    }

    /// Attaches the other end, with keys of a round of agreement.
    fn attach(&self, other: &Self, round: u8, asked: bool, by_udp: bool) {
        self.attach_with(other, round, asked, by_udp, None);
    }

    fn attach_with(
        &self,
        other: &Self,
        round: u8,
        asked: bool,
        by_udp: bool,
        filter: Option<Filter>,
    ) {
        let keys = SessionKeys {
            cipher: if round.is_multiple_of(2) {
                Cipher::Aes256Gcm
            } else {
                Cipher::ChaCha20Poly1305
            },
            send: key(self.number, round),
            receive: key(other.number, round),
            send_index: index(other.number, round),
            receive_index: index(self.number, round),
            peer_has_them: asked,
            renew_after: Duration::from_secs(120),
        };
        let candidate = SocketAddr::new(other.host.address().into(), other.engine.port());
        self.engine.inbox().tell(Command::Attach {
            network: NETWORK,
            peer: [other.number; 32],
            addresses: vec![address(other.number), address6(other.number)],
            filter,
            keys,
            candidates: if by_udp { vec![candidate] } else { Vec::new() },
        });
    }

    /// Makes the lane to the other end, or ends it.
    fn set_lane(&self, other: &Self, open: bool) {
        let lane = open.then(|| ([self.number; 32], other.engine.inbox().clone()));
        *self.lane.lock().unwrap() = lane;
    }

    fn report(&self) -> Report {
        let (to, report) = mpsc::sync_channel(1);
        self.engine.inbox().tell(Command::Report(to));
        report.recv_timeout(LIMIT).unwrap()
    }

    fn is_direct(&self) -> bool {
        self.report()
            .sessions
            .iter()
            .any(|session| session.direct.is_some())
    }

    fn ping(&self, words: &[&str]) -> String {
        let words = [&["ping", "-n", "-q"], words].concat();
        let output = self.host.run(&words, LIMIT).unwrap();
        output.stdout + &output.stderr
    }

    /// Runs `iperf3` to the other end and returns what arrived, in Mbit/s, and of datagrams the
    /// share that was lost, in %; none where none are sent.
    fn iperf(&self, other: &Self, words: &[&str]) -> (f64, Option<f64>) {
        let mut server = other.host.command("iperf3");
        server.args(["-s", "-1", "--forceflush"]);
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let mut server = other.host.spawn(server, &log).unwrap();
        until("iperf3 listens", || {
            std::fs::read_to_string(&log).unwrap().contains("listening")
        });
        let there = address(other.number).to_string();
        let words = [&["iperf3", "-J", "-t", "1", "-c", &there], words].concat();
        let output = self.host.run(&words, LIMIT).unwrap();
        server.wait(LIMIT).unwrap();
        let told: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
        let sum = &told["end"]["sum_received"];
        let rate = sum["bits_per_second"]
            .as_f64()
            .unwrap_or_else(|| panic!("{told}"));
        let lost = told["end"]["sum"]["lost_percent"].as_f64();
        (rate / 1e6, lost)
    }
}

/// The left end asks the right one, which has the keys first.
fn agree(left: &End, right: &End) {
    right.attach(left, 0, false, true);
    // Its thread has them once it tells anything.
    right.report();
    left.attach(right, 0, true, true);
}

/// Makes two hosts on one wire, with an engine on each.
fn ends() -> (Lab, End, End) {
    let mut lab = Lab::new("engine").unwrap();
    let (left, right) = lab.pair("left", "right").unwrap();
    let (left, right) = (End::start(&left, 1), End::start(&right, 2));
    (lab, left, right)
}

fn until_direct(left: &End, right: &End) {
    until("both know the way", || {
        left.is_direct() && right.is_direct()
    });
}

/// Reads how many answers `ping` counted.
fn received(told: &str) -> u32 {
    let (_, rest) = told.split_once(" packets transmitted, ").unwrap();
    rest.split(' ').next().unwrap().parse().unwrap()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < LIMIT, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Runs something in the network namespace of a host.
fn within<T: Send>(end: &End, run: impl FnOnce() -> T + Send) -> T {
    let enter = || {
        end.host.enter().unwrap();
        run()
    };
    thread::scope(|scope| scope.spawn(enter).join().unwrap())
}

#[test]
fn packets_of_all_kinds_pass_straight() {
    need_root!();
    let (_lab, left, right) = ends();
    agree(&left, &right);
    until_direct(&left, &right);
    for there in ["10.77.0.2", "fd77::2"] {
        for size in ["0", "1300", "1392", "5000", "60000"] {
            let told = left.ping(&["-c", "3", "-i", "0.05", "-s", size, there]);
            assert!(told.contains(" 0% packet loss"), "{there} {size}: {told}");
        }
    }
    let (rate, _) = left.iperf(&right, &[]);
    assert!(rate > 100.0, "{rate} Mbit/s");
    let (rate, _) = left.iperf(&right, &["-R", "-P", "4"]);
    assert!(rate > 100.0, "{rate} Mbit/s");
    for (size, rate) in [("16", "200K"), ("1300", "10M"), ("8000", "10M")] {
        let (_, lost) = left.iperf(&right, &["-u", "-b", rate, "-l", size]);
        assert!(
            lost.is_some_and(|lost| lost < 1.0),
            "{size}: {lost:?} % lost"
        );
    }
    let report = right.report();
    assert_eq!(report.refused, 0, "{report:?}");
    assert!(report.sessions[0].counters.received_bytes > 1_000_000);
}

#[test]
fn ethernet_ends_at_the_device() {
    need_root!();
    ensure_programs(&[("arping", "arping")]).unwrap();
    let mut lab = Lab::new("engine").unwrap();
    let (left, right) = lab.pair("left", "right").unwrap();
    // One end speaks Ethernet to its kernel, the other IP.
    let left = End::start_at(&left, 1, Layer::Ethernet);
    let right = End::start(&right, 2);
    agree(&left, &right);
    until_direct(&left, &right);
    for there in ["10.77.0.2", "fd77::2"] {
        for size in ["0", "1300", "1392", "20000"] {
            let told = left.ping(&["-c", "3", "-i", "0.05", "-s", size, there]);
            assert!(told.contains(" 0% packet loss"), "{there} {size}: {told}");
        }
    }
    let run = |words: &[&str]| left.host.run(words, LIMIT).unwrap().stdout;
    let neighbours = run(&["ip", "neigh", "show", "dev", "enishi0"]);
    for there in ["10.77.0.2", "fd77::2"] {
        let line = format!("{there} lladdr 02:65:6e:69:73:68");
        assert!(neighbours.contains(&line), "{neighbours}");
    }
    // Whoever has the address, and whether anybody has; but not this host's own, everybody's,
    // or another network's.
    let arping = |address| run(&["arping", "-c", "1", "-w", "1", "-I", "enishi0", address]);
    for others in ["10.77.0.2", "10.77.0.9"] {
        until("ARP is answered", || {
            arping(others).contains("02:65:6e:69:73:68")
        });
    }
    for none in ["10.77.0.1", "10.77.0.255", "10.78.0.1"] {
        let told = arping(none);
        assert!(told.contains("100% unanswered"), "{told}");
    }
    for words in [&[][..], &["-R", "-P", "4"]] {
        let (rate, _) = left.iperf(&right, words);
        assert!(rate > 20.0, "{rate} Mbit/s");
    }
    let (_, lost) = left.iperf(&right, &["-u", "-b", "10M", "-l", "8000"]);
    assert!(lost.is_some_and(|lost| lost < 1.0), "{lost:?} % lost");

    // Frames of neither kind are counted and go nowhere.
    let send = "import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); \
                s.bind(('enishi0', 0)); s.send(b'\\xff' * 12 + b'\\x88\\xb5' + b'x' * 46)";
    let before = left.report().foreign_frames;
    let told = left.host.run(&["python3", "-c", send], LIMIT).unwrap();
    assert!(told.success(), "{told:?}");
    until("the frame is counted", || {
        left.report().foreign_frames > before
    });
    assert_eq!(left.report().refused + right.report().refused, 0);
}

#[test]
fn what_has_no_way_takes_the_lane_and_later_the_way() {
    need_root!();
    let (_lab, left, right) = ends();
    left.set_lane(&right, true);
    right.set_lane(&left, true);
    right.attach(&left, 1, false, false);
    left.attach(&right, 1, true, false);
    for size in ["0", "1300", "1392", "20000"] {
        let told = left.ping(&["-c", "3", "-i", "0.05", "-s", size, "10.77.0.2"]);
        assert!(told.contains(" 0% packet loss"), "{size}: {told}");
    }
    let (rate, _) = left.iperf(&right, &[]);
    assert!(rate > 20.0, "{rate} Mbit/s");
    assert!(!left.is_direct() && !right.is_direct());
    let candidate = SocketAddr::new(right.host.address().into(), right.engine.port());
    let peer = [right.number; 32];
    left.engine.inbox().tell(Command::Candidates {
        peer,
        candidates: vec![candidate],
    });
    until_direct(&left, &right);

    // The wire is cut: packets take the lane again, within two and a half seconds.
    left.host.link_down().unwrap();
    let told = left.ping(&["-c", "40", "-i", "0.1", "10.77.0.2"]);
    assert!(received(&told) >= 14, "{told}");
    assert!(!left.is_direct());
    left.host.link_up().unwrap();
    until_direct(&left, &right);
}

#[test]
fn keys_change_under_traffic_without_loss() {
    need_root!();
    let (_lab, left, right) = ends();
    agree(&left, &right);
    until_direct(&left, &right);
    thread::scope(|scope| {
        let pinging = scope.spawn(|| left.ping(&["-c", "300", "-i", "0.01", "10.77.0.2"]));
        for round in 1..6 {
            thread::sleep(Duration::from_millis(400));
            // The one that answers has the keys first, as when it is asked.
            let (asker, answerer) = if round % 2 == 0 {
                (&left, &right)
            } else {
                (&right, &left)
            };
            answerer.attach(asker, round, false, true);
            // Its thread has them once it tells so.
            answerer.report();
            asker.attach(answerer, round, true, true);
        }
        let told = pinging.join().unwrap();
        assert!(told.contains(" 0% packet loss"), "{told}");
    });
    assert_eq!(left.report().refused + right.report().refused, 0);
}

#[test]
fn a_peer_that_moves_is_followed() {
    need_root!();
    let (_lab, left, right) = ends();
    agree(&left, &right);
    until_direct(&left, &right);
    // Its old address goes and another comes in one step.
    let [a, b, c, _] = left.host.address().octets();
    let (old, new) = (left.host.address(), Ipv4Addr::new(a, b, c, 77));
    let moves = format!(
        "ip address add {new}/24 dev eth0; ip address del {old}/24 dev eth0; \
         ip address add {new}/24 dev eth0; ip -4 address"
    );
    thread::scope(|scope| {
        let pinging = scope.spawn(|| left.ping(&["-c", "60", "-i", "0.05", "10.77.0.2"]));
        let before = right.report().sessions[0].counters.received_bytes;
        until("it is pinged", || {
            right.report().sessions[0].counters.received_bytes > before + 1000
        });
        let told = left.host.run(&["sh", "-c", &moves], LIMIT).unwrap();
        assert!(told.success() && told.stdout.contains(".77/"), "{told:?}");
        let told = pinging.join().unwrap();
        // Half a second of a ping every 50 ms.
        assert!(received(&told) >= 40, "{told}");
    });
    let direct = right.report().sessions[0].direct.unwrap();
    assert_eq!(direct.ip().to_string().split('.').next_back(), Some("77"));
}

#[test]
fn misses_and_strange_indices_are_told() {
    need_root!();
    let (_lab, left, right) = ends();
    let pinging = left.host.clone();
    let pinging =
        thread::spawn(move || pinging.run(&["ping", "-n", "-c", "1", "10.77.0.2"], LIMIT));
    let missing = Note::Missing {
        network: NETWORK,
        address: address(2),
    };
    let heard = |note: &Note| {
        left.notes
            .lock()
            .unwrap()
            .try_iter()
            .any(|told| told == *note)
    };
    until("the miss is told", || heard(&missing));
    let unresolved = Command::Unresolved {
        network: NETWORK,
        address: address(2),
    };
    left.engine.inbox().tell(unresolved);
    let told = pinging.join().unwrap().unwrap().stdout;
    assert!(told.contains("Destination Host Unreachable"), "{told}");

    let index = INDEX_MARK | 99;
    let datagram = Bytes::from([&index.to_be_bytes()[..], &[0; 40]].concat());
    let peer = [right.number; 32];
    left.engine.inbox().arrived(peer, datagram);
    until("the strange index is told", || {
        heard(&Note::UnknownIndex { peer, index })
    });
    assert_eq!(left.report().refused, 1);

    // Another program removes the device: told, and the rest goes on.
    left.host
        .run(&["ip", "link", "delete", "enishi0"], LIMIT)
        .unwrap();
    let lost = Note::DeviceLost {
        network: NETWORK,
        name: "enishi0".to_owned(),
    };
    until("the loss of the device is told", || heard(&lost));
    assert!(left.report().sessions.is_empty());
}

#[test]
fn only_what_is_permitted_passes_whichever_end_forbids() {
    need_root!();
    let (_lab, left, right) = ends();
    agree(&left, &right);
    until_direct(&left, &right);
    let tcp = |ports| Permit {
        network: None,
        ports: Some((protocol::TCP, ports)),
    };
    let set = |at: &End, other: &End, filter| {
        at.engine.inbox().tell(Command::Filter {
            network: NETWORK,
            peer: [other.number; 32],
            filter,
        });
        at.report();
    };
    // The left one may begin connections to the port of iperf3, and nothing else passes.
    for (forbids, is_left) in [(&right, false), (&left, true)] {
        let permits = vec![tcp(5201..=5201)];
        let (other, filter) = match is_left {
            true => (&right, Filter::new(vec![], permits)),
            false => (&left, Filter::new(permits, vec![])),
        };
        set(forbids, other, Some(filter));
        let told = left.ping(&["-c", "2", "-i", "0.1", "-W", "1", "10.77.0.2"]);
        assert_eq!(received(&told), 0, "{told}");
        assert_eq!(told.contains("errors"), is_left, "{told}");
        let (rate, _) = left.iperf(&right, &[]);
        assert!(rate > 20.0, "{rate} Mbit/s");
        let told = right.ping(&["-c", "2", "-i", "0.1", "-W", "1", "10.77.0.1"]);
        assert_eq!(received(&told), 0, "{told}");
        set(forbids, other, None);
        let told = left.ping(&["-c", "2", "-i", "0.1", "10.77.0.2"]);
        assert_eq!(received(&told), 2, "{told}");
    }
}

#[test]
fn a_network_behind_a_member_is_reached_through_it_and_nothing_else_is() {
    need_root!();
    let (_lab, left, right) = ends();
    agree(&left, &right);
    until_direct(&left, &right);
    let run = |at: &End, line: &str| {
        let told = at.host.run(&["sh", "-ec", line], LIMIT).unwrap();
        assert!(told.success(), "{told:?}");
    };
    run(&right, "ip address add 192.168.7.1/24 dev lo");
    run(&left, "ip route add 192.168.7.0/24 dev enishi0");
    let ping = |wait| received(&left.ping(&["-c", "2", "-i", "0.1", "-W", wait, "192.168.7.1"]));
    assert_eq!(ping("1"), 0);
    let lan = Network::new([192, 168, 7, 0].into(), 24);
    let beyond = |at: &End, gateways, behind| {
        at.engine.inbox().tell(Command::Beyond {
            network: NETWORK,
            gateways,
            behind,
        });
        at.report();
    };
    let via = address(2);
    beyond(&left, vec![Gateway { network: lan, via }], vec![]);
    assert_eq!(ping("1"), 0, "the other end does not route there");
    beyond(&right, vec![], vec![lan]);
    assert_eq!(ping("20"), 2);
    // A router's own address there is the router's: what opens its networks does not open it.
    let permit = |network| {
        let all = vec![Permit {
            network,
            ports: None,
        }];
        right.engine.inbox().tell(Command::Filter {
            network: NETWORK,
            peer: [left.number; 32],
            filter: Some(Filter::new(all, vec![])),
        });
        right.report();
    };
    permit(Some(Network::new([0, 0, 0, 0].into(), 0)));
    assert_eq!(ping("1"), 0);
    permit(None);
    assert_eq!(ping("20"), 2);
    beyond(&left, vec![], vec![]);
    assert_eq!(ping("1"), 0);
}

#[test]
fn marks_of_congestion_and_of_service_reach_the_other_end() {
    need_root!();
    ensure_programs(&[("nft", "nftables")]).unwrap();
    let (_lab, left, right) = ends();
    agree(&left, &right);
    until_direct(&left, &right);
    let run = |at: &End, line: &str| {
        let told = at.host.run(&["sh", "-ec", line], LIMIT).unwrap();
        assert!(told.success(), "{told:?}");
        told.stdout
    };
    // The router between the two is congested: it marks datagrams that can be marked.
    run(
        &left,
        "nft add table ip test; \
         nft 'add chain ip test out { type filter hook output priority 0; }'; \
         nft add rule ip test out oifname eth0 ip ecn != not-ect ip ecn set ce",
    );
    run(
        &right,
        "nft add table inet test; \
         nft 'add chain inet test in { type filter hook input priority 0; }'; \
         nft add rule inet test in iifname enishi0 ip dscp 0x0a ip ecn ce counter; \
         nft add rule inet test in iifname enishi0 ip6 dscp 0x0a ip6 ecn ce counter; \
         nft add rule inet test in iifname enishi0 ip dscp 0x0b ip ecn not-ect counter",
    );
    for there in ["10.77.0.2", "fd77::2"] {
        let told = left.ping(&["-Q", "0x2a", "-c", "3", "-i", "0.05", there]);
        assert_eq!(received(&told), 3, "{told}");
    }
    let told = left.ping(&["-Q", "0x2c", "-c", "3", "-i", "0.05", "10.77.0.2"]);
    assert_eq!(received(&told), 3, "{told}");
    let rules = run(&right, "nft list table inet test");
    assert_eq!(rules.matches("packets 3 ").count(), 3, "{rules}");
}

/// Turns an echo request of IPv4 into the answer to it.
fn answer_echo(mut packet: Vec<u8>) -> Option<Vec<u8>> {
    if packet[9] != protocol::ICMP || packet[20] != 8 {
        return None;
    }
    let (before, after) = packet[12..20].split_at_mut(4);
    before.swap_with_slice(after);
    packet[20] = 0;
    let sum = u16::from_be_bytes([packet[22], packet[23]]);
    let (sum, carry) = sum.overflowing_add(0x0800);
    packet[22..24].copy_from_slice(&(sum + u16::from(carry)).to_be_bytes());
    Some(packet)
}

#[test]
fn who_is_hosted_is_reached_by_members_and_by_the_host_itself() {
    need_root!();
    let (_lab, left, right) = ends();
    agree(&left, &right);
    until_direct(&left, &right);
    // Somebody at the left end who answers every echo request.
    let hosted = address(50);
    let (device, port) = enishi_dataplane::device::queue(1420).unwrap();
    left.engine.inbox().tell(Command::Host {
        network: NETWORK,
        device: Some(device),
        addresses: vec![hosted],
    });
    let stop = &std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                if let Some(answer) = port.receive().and_then(answer_echo) {
                    assert!(port.send(answer));
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        let ping = |end: &End, wait: &str| {
            // Its thread has been told what it was to be once it tells anything.
            end.report();
            left.report();
            received(&end.ping(&["-c", "3", "-i", "0.1", "-W", wait, "10.77.0.50"]))
        };
        assert_eq!(ping(&left, "20"), 3, "from the host itself");
        assert_eq!(
            ping(&right, "1"),
            0,
            "the member does not know who holds the address"
        );
        right.engine.inbox().tell(Command::Addresses {
            network: NETWORK,
            peer: [1; 32],
            addresses: vec![address(1), address6(1), hosted],
        });
        assert_eq!(ping(&right, "20"), 3);
        left.engine.inbox().tell(Command::Host {
            network: NETWORK,
            device: None,
            addresses: Vec::new(),
        });
        assert_eq!(ping(&right, "1"), 0, "nobody is hosted any more");
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
