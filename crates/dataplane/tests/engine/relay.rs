//! Nodes that relay: what they pass on and for whom, and what becomes of a flow when one is gone.

use std::net::UdpSocket;

use enishi_dataplane::engine::{ByRelay, RelayTerms};
use enishi_dataplane::relay::{self, Bind, Kind, RelayKey, Token};

use super::*;

const LASTS: Duration = Duration::from_secs(120);
const TERMS: RelayTerms = RelayTerms {
    pairs_max: 4,
    bytes_per_s_each: 10_000_000,
    bytes_per_s_all: 20_000_000,
};

/// The host of a node that does nothing but relay.
struct Nothing;

impl Outside for Nothing {
    fn note(&mut self, _: Note) {}

    fn lane_bytes_max(&mut self, _: &PeerKey) -> Option<usize> {
        None
    }

    fn send_by_lane(&mut self, _: &PeerKey, _: &[Bytes]) {}
}

fn keys(token: u64) -> [RelayKey; 2] {
    [1, 2].map(|end| RelayKey::new([end ^ (token << 4) as u8; 32]))
}

fn relay(token: u64, terms: RelayTerms) -> Engine {
    let engine = Engine::start(0, Nothing).unwrap();
    let inbox = engine.inbox();
    inbox.tell(Command::RelayTerms(terms));
    inbox.tell(Command::Relay {
        token: Token(token),
        keys: keys(token),
        lasts: LASTS,
    });
    engine
}

fn report(engine: &Engine) -> Report {
    let (to, report) = mpsc::sync_channel(1);
    engine.inbox().tell(Command::Report(to));
    report.recv_timeout(LIMIT).unwrap()
}

/// An end as the test plays it.
struct Played {
    socket: UdpSocket,
    key: RelayKey,
    counter: u64,
}

impl Played {
    fn new(there: SocketAddr, key: &RelayKey) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(there).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let key = key.clone();
        Self {
            socket,
            key,
            counter: 0,
        }
    }

    fn ask(&mut self, token: Token, cookie: u64) -> Vec<u8> {
        self.counter += 1;
        let counter = self.counter;
        let bind = Bind {
            token,
            counter,
            cookie,
        };
        let octets = bind.encode(Kind::Bind, &self.key);
        self.socket.send(&octets).unwrap();
        octets.to_vec()
    }

    fn hear(&self) -> Vec<u8> {
        let mut buffer = [0; 65_536];
        let bytes = self.socket.recv(&mut buffer).unwrap();
        buffer[..bytes].to_vec()
    }

    /// Binds as an end does; returns both questions.
    fn bind(&mut self, token: Token) -> [Vec<u8>; 2] {
        let first = self.ask(token, 0);
        let cookie = Bind::decode(&self.hear(), &self.key).unwrap().cookie;
        let second = self.ask(token, cookie);
        let kind = relay::decode(&self.hear());
        assert_eq!(kind, Some((Kind::Bound, token)));
        [first, second]
    }

    fn hears_nothing(&self) {
        self.socket.set_nonblocking(true).unwrap();
        let heard = self.socket.recv(&mut [0; 2_048]);
        assert!(heard.is_err(), "{heard:?} octets");
        self.socket.set_nonblocking(false).unwrap();
    }
}

fn data(token: Token, content: &[u8]) -> Vec<u8> {
    [&relay::header(token)[..], content].concat()
}

#[test]
fn what_is_longer_than_any_network_carries_is_not_relayed() {
    let token = Token(7);
    let engine = relay(7, TERMS);
    let there = SocketAddr::from(([127, 0, 0, 1], engine.port()));
    let [one, other] = &keys(7);
    let (mut a, mut b) = (Played::new(there, one), Played::new(there, other));
    a.bind(token);
    b.bind(token);
    let of_length = |length: usize| {
        let content = length - data(token, b"").len();
        data(token, &vec![7; content])
    };
    for length in [9_217, 65_507, 9_216] {
        a.socket.send(&of_length(length)).unwrap();
    }
    assert_eq!(b.hear(), of_length(9_216));
    b.hears_nothing();
    assert_eq!(report(&engine).relayed.packets, 1);
}

#[test]
fn strangers_replays_and_floods_get_nothing_of_a_relay() {
    let token = Token(7);
    let engine = relay(7, TERMS);
    let there = SocketAddr::from(([127, 0, 0, 1], engine.port()));
    let [one, other] = &keys(7);
    let (mut a, mut b) = (Played::new(there, one), Played::new(there, other));
    // Before both are bound nothing passes.
    a.socket.send(&data(token, b"early")).unwrap();
    let binds = a.bind(token);
    a.socket.send(&data(token, b"early")).unwrap();
    b.bind(token);
    a.socket.send(&data(token, b"hello")).unwrap();
    assert_eq!(b.hear(), data(token, b"hello"));
    b.socket.send(&data(token, b"hi")).unwrap();
    assert_eq!(a.hear(), data(token, b"hi"));

    // A stranger: data by the right token and by guessed ones, binds that it heard, and own ones.
    let mut stranger = Played::new(there, &RelayKey::new([9; 32]));
    stranger.socket.send(&data(token, b"forged")).unwrap();
    for guess in 0..1_000 {
        stranger.socket.send(&data(Token(guess), b"guess")).unwrap();
    }
    for bind in &binds {
        stranger.socket.send(bind).unwrap();
    }
    stranger.ask(token, 0);
    stranger.ask(Token(8), 0);
    for kind in 1..16 {
        stranger.socket.send(&[0x20 | kind; 41]).unwrap();
    }
    // Members' binds from elsewhere, without the cookie: answered once, at the same length.
    let mut elsewhere = Played::new(there, one);
    elsewhere.counter = 100;
    elsewhere.ask(token, 0);
    let asked = elsewhere.hear();
    assert_eq!(relay::decode(&asked), Some((Kind::Prove, token)));
    assert_eq!(asked.len(), relay::BIND_BYTES);
    // What was sent after all that arrives, and nothing of it does.
    b.socket.send(&data(token, b"still here")).unwrap();
    assert_eq!(a.hear(), data(token, b"still here"));
    a.socket.send(&data(token, b"so am I")).unwrap();
    assert_eq!(b.hear(), data(token, b"so am I"));
    stranger.hears_nothing();
    let told = report(&engine);
    assert_eq!((told.relayed.pairs, told.relayed.packets), (1, 4));
    assert!(told.refused > 1_000, "{told:?}");

    // More than the budget is dropped and counted.
    let long = data(token, &[5; 1_300]);
    let (begin, mut sent) = (Instant::now(), 0);
    while sent < 20_000 {
        // Slow enough for the kernel's buffer.
        for _ in 0..64 {
            a.socket.send(&long).unwrap();
            sent += 1;
        }
        report(&engine);
    }
    let told = report(&engine).relayed;
    let most = TERMS.bytes_per_s_each as f64 * (begin.elapsed().as_secs_f64() + 0.25);
    assert!(told.bytes as f64 <= most + 1_000.0, "{told:?}");
    assert!(told.dropped_packets > 0, "{told:?}");
    // A pair whose time is over is none any more.
    engine.inbox().tell(Command::Relay {
        token,
        keys: keys(7),
        lasts: Duration::ZERO,
    });
    let before = report(&engine).relayed.packets;
    a.socket.send(&data(token, b"late")).unwrap();
    until("it is refused", || {
        report(&engine).refused > told.dropped_packets
    });
    assert_eq!(report(&engine).relayed.packets, before);
}

#[test]
fn an_end_that_moves_is_followed_by_the_relay() {
    let token = Token(7);
    let engine = relay(7, TERMS);
    let there = SocketAddr::from(([127, 0, 0, 1], engine.port()));
    let [one, other] = &keys(7);
    let (mut a, mut b) = (Played::new(there, one), Played::new(there, other));
    a.bind(token);
    b.bind(token);
    let mut moved = Played::new(there, one);
    moved.counter = a.counter;
    moved.bind(token);
    b.socket.send(&data(token, b"there")).unwrap();
    assert_eq!(moved.hear(), data(token, b"there"));
    a.hears_nothing();
}

/// Tells two ends that a relay is between them, at an address of its host.
fn tell_both(ends: [&End; 2], token: u64, engine: &Engine, at: &End) {
    for (place, (end, other)) in [(ends[0], ends[1]), (ends[1], ends[0])].iter().enumerate() {
        end.engine.inbox().tell(Command::ByRelay(ByRelay {
            peer: [other.number; 32],
            by: [token as u8; 32],
            at: SocketAddr::new(at.host.address().into(), engine.port()),
            token: Token(token),
            key: keys(token)[place].clone(),
            lasts: LASTS,
        }));
    }
}

#[test]
fn packets_go_by_a_relay_then_another_then_the_lane_and_straight_when_they_can() {
    need_root!();
    let (_lab, left, right) = ends();
    left.set_lane(&right, true);
    right.set_lane(&left, true);
    right.attach(&left, 0, false, false);
    right.report();
    left.attach(&right, 0, true, false);
    let all = RelayTerms {
        bytes_per_s_each: u64::MAX / 1_000,
        bytes_per_s_all: u64::MAX / 1_000,
        ..TERMS
    };
    let mut relays = [
        (21, within(&left, || relay(21, all)), &left),
        (22, within(&right, || relay(22, all)), &right),
    ]
    .map(Some);
    for (token, engine, at) in relays.iter().flatten() {
        tell_both([&left, &right], *token, engine, at);
    }
    let by = |end: &End| end.report().sessions[0].relay.map(|by| u64::from(by[0]));
    until("packets are relayed", || {
        by(&left).is_some() && by(&right).is_some()
    });
    for size in ["0", "1300", "1392", "5000", "60000"] {
        let told = left.ping(&["-c", "3", "-i", "0.05", "-s", size, "10.77.0.2"]);
        assert!(told.contains(" 0% packet loss"), "{size}: {told}");
    }
    let (rate, _) = left.iperf(&right, &[]);
    assert!(rate > 50.0, "{rate} Mbit/s");
    assert!(!left.is_direct() && !right.is_direct());
    let relayed: u64 = relays
        .iter()
        .flatten()
        .map(|(_, engine, _)| report(engine).relayed.bytes)
        .sum();
    assert!(relayed > 1_000_000, "{relayed} octets");

    // Both are gone, one after the other.
    for left_over in [1, 0] {
        let used = by(&left);
        thread::scope(|scope| {
            let pinging = scope.spawn(|| left.ping(&["-c", "50", "-i", "0.1", "10.77.0.2"]));
            thread::sleep(Duration::from_secs(1));
            for relay in &mut relays {
                relay.take_if(|(token, ..)| Some(*token) == used || left_over == 0);
            }
            let told = pinging.join().unwrap();
            assert!(received(&told) >= 25, "{told}");
        });
        assert_ne!(by(&left), used);
        assert_eq!(by(&left).is_some(), left_over == 1);
    }
    let candidate = SocketAddr::new(right.host.address().into(), right.engine.port());
    let (token, engine) = (23, within(&left, || relay(23, all)));
    tell_both([&left, &right], token, &engine, &left);
    until("packets are relayed again", || by(&left).is_some());
    left.engine.inbox().tell(Command::Candidates {
        peer: [right.number; 32],
        candidates: vec![candidate],
    });
    until_direct(&left, &right);
    assert_eq!(by(&left), None);
}
