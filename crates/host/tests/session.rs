//! Sessions between real endpoints on loopback.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use enishi_host::nat64::Known;
use enishi_host::session::{
    BindError, CONTROL_FRAME_BYTES_MAX, DatagramError, QUEUE_FRAMES_MAX, SessionConfig,
    SessionEvent, Sessions,
};
use enishi_overlay::{Contact, Keypair, NodeId, OverlayId};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{SockaddrIn, getsockname};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Long enough for anything on loopback, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

struct Node {
    sessions: Sessions,
    events: mpsc::Receiver<SessionEvent>,
    datagrams: mpsc::UnboundedReceiver<(NodeId, Bytes)>,
}

fn config(seed: u8, overlay: &str, port: u16) -> SessionConfig {
    SessionConfig {
        keypair: Keypair::from_seed(&[seed; 32]),
        overlay: OverlayId::from_name(overlay),
        listen: vec![SocketAddr::from(([127, 0, 0, 1], port))],
        on_datagram: Arc::new(|_, _| {}),
        carry: Arc::new(enishi_host::session::NobodyCarries),
    }
}

impl Node {
    async fn start(seed: u8) -> Self {
        Self::start_in(seed, "test", 0).await
    }

    async fn start_in(seed: u8, overlay: &str, port: u16) -> Self {
        let (sender, datagrams) = mpsc::unbounded_channel();
        let config = SessionConfig {
            on_datagram: Arc::new(move |peer, datagram| {
                let _ = sender.send((peer, datagram));
            }),
            ..config(seed, overlay, port)
        };
        let (sessions, events) = Sessions::bind(config).await.unwrap();
        Self {
            sessions,
            events,
            datagrams,
        }
    }

    fn id(&self) -> NodeId {
        self.sessions.me()
    }

    fn contact(&self) -> Contact {
        Contact::new(self.id(), self.sessions.addresses())
    }

    fn port(&self) -> u16 {
        self.sessions.addresses()[0].port()
    }

    async fn event(&mut self) -> SessionEvent {
        let event = timeout(PATIENCE, self.events.recv()).await;
        event.expect("an event in time").expect("more events")
    }

    async fn opened(&mut self, expected: NodeId) {
        match self.event().await {
            SessionEvent::Opened { peer, .. } if peer == expected => {}
            other => panic!("expected Opened, got {other:?}"),
        }
    }

    async fn closed(&mut self, expected: NodeId) {
        match self.event().await {
            SessionEvent::Closed { peer } if peer == expected => {}
            other => panic!("expected Closed, got {other:?}"),
        }
    }

    async fn restarted(&mut self, expected: NodeId) {
        match self.event().await {
            SessionEvent::Restarted { peer } if peer == expected => {}
            other => panic!("expected Restarted, got {other:?}"),
        }
    }

    async fn unreachable(&mut self, expected: NodeId) {
        match self.event().await {
            SessionEvent::Unreachable { peer } if peer == expected => {}
            other => panic!("expected Unreachable, got {other:?}"),
        }
    }

    async fn frame(&mut self) -> Bytes {
        match self.event().await {
            SessionEvent::Control { frame, .. } => frame,
            other => panic!("expected Control, got {other:?}"),
        }
    }

    /// Asserts that nothing happens for a while.
    async fn silence(&mut self, how_long: Duration) {
        if let Ok(event) = timeout(how_long, self.events.recv()).await {
            panic!("expected silence, got {event:?}");
        }
    }
}

async fn pair() -> (Node, Node) {
    let (mut a, mut b) = (Node::start(1).await, Node::start(2).await);
    a.sessions.dial(&b.contact());
    a.opened(b.id()).await;
    b.opened(a.id()).await;
    (a, b)
}

#[tokio::test]
async fn frames_go_both_ways() {
    let (mut a, mut b) = (Node::start(1).await, Node::start(2).await);
    for n in 0..100_u8 {
        a.sessions.send_control(&b.contact(), Bytes::from(vec![n]));
    }
    b.opened(a.id()).await;
    for n in 0..100_u8 {
        assert_eq!(b.frame().await, vec![n]);
    }
    // By id alone: the session is there.
    let longest = Bytes::from(vec![7; CONTROL_FRAME_BYTES_MAX]);
    b.sessions
        .send_control(&Contact::new(a.id(), []), longest.clone());
    a.opened(b.id()).await;
    assert_eq!(a.frame().await, longest);

    let info = a.sessions.session(b.id()).unwrap();
    assert_eq!(info.path, format!("direct 127.0.0.1:{}", b.port()));
    assert!(info.rtt < Duration::from_secs(1) && info.bytes_received > 256 * 1024);
    assert_eq!(a.sessions.sessions().len(), 1);

    a.sessions.close().await;
    b.closed(a.id()).await;
    assert!(b.sessions.session(a.id()).is_none());
}

#[tokio::test]
async fn frames_queued_before_the_close_arrive() {
    let (a, mut b) = pair().await;
    for n in 0..50_u8 {
        a.sessions.send_control(&b.contact(), Bytes::from(vec![n]));
    }
    let begin = Instant::now();
    a.sessions.close().await;
    assert!(begin.elapsed() < Duration::from_millis(2_500));
    for n in 0..50_u8 {
        assert_eq!(b.frame().await, vec![n]);
    }
    b.closed(a.id()).await;
}

#[tokio::test]
async fn a_simultaneous_dial_ends_in_one_session_and_loses_nothing() {
    let (mut a, mut b) = (Node::start(1).await, Node::start(2).await);
    let (to_a, to_b) = (a.contact(), b.contact());
    for n in 0..100_u8 {
        a.sessions.send_control(&to_b, Bytes::from(vec![n]));
        b.sessions.send_control(&to_a, Bytes::from(vec![n]));
        if n % 10 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    for (node, peer) in [(&mut a, to_b.id()), (&mut b, to_a.id())] {
        node.opened(peer).await;
        let mut frames = Vec::new();
        for _ in 0..100 {
            frames.push(node.frame().await[0]);
        }
        frames.sort_unstable();
        assert_eq!(frames, (0..100).collect::<Vec<_>>());
    }
    // The loser is closed without a word, and the session goes on.
    a.silence(Duration::from_secs(6)).await;
    b.silence(Duration::from_millis(10)).await;
    a.sessions.send_control(&to_b, Bytes::from_static(b"still"));
    assert_eq!(b.frame().await, "still");
    let mut counters = a.sessions.counters();
    assert_eq!(std::mem::take(&mut counters.frames_sent), 101);
    assert!(std::mem::take(&mut counters.frame_bytes_sent) > 100);
    assert_eq!(counters, Default::default());
}

#[tokio::test]
async fn another_key_at_the_address_is_not_accepted() {
    let (mut a, mut b) = (Node::start(1).await, Node::start(2).await);
    let claimed = Keypair::from_seed(&[3; 32]).id();
    let contact = Contact::new(claimed, b.sessions.addresses());
    a.sessions.send_control(&contact, Bytes::from_static(b"x"));
    a.unreachable(claimed).await;
    assert!(a.sessions.session(claimed).is_none());
    assert_eq!(a.sessions.counters().frames_lost, 1);
    b.silence(Duration::from_millis(200)).await;
}

#[tokio::test]
async fn a_stranger_at_one_of_the_addresses_does_not_spoil_the_others() {
    for order in [0, 1] {
        let (mut a, b) = (Node::start(1).await, Node::start(2).await);
        let stranger = Node::start(3).await;
        let mut addresses = [b.sessions.addresses()[0], stranger.sessions.addresses()[0]];
        addresses.rotate_left(order);
        a.sessions.dial(&Contact::new(b.id(), addresses));
        a.opened(b.id()).await;
    }
}

#[tokio::test]
async fn another_overlay_is_refused() {
    let (mut a, mut b) = (Node::start(1).await, Node::start_in(2, "another", 0).await);
    a.sessions.dial(&b.contact());
    a.unreachable(b.id()).await;
    b.silence(Duration::from_millis(200)).await;
}

#[tokio::test]
async fn nobody_is_unreachable_at_once_and_silence_after_five_seconds() {
    let mut a = Node::start(1).await;
    let nobody = Contact::new(Keypair::from_seed(&[3; 32]).id(), []);
    let begin = Instant::now();
    a.sessions.send_control(&nobody, Bytes::from_static(b"x"));
    a.unreachable(nobody.id()).await;
    assert!(begin.elapsed() < Duration::from_secs(1));

    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = Contact::new(nobody.id(), [silent.local_addr().unwrap()]);
    let begin = Instant::now();
    a.sessions.dial(&silent);
    a.unreachable(nobody.id()).await;
    assert!(begin.elapsed() > Duration::from_secs(4));
    assert!(begin.elapsed() < Duration::from_secs(7));
}

#[tokio::test]
async fn failed_dials_are_repeated_ever_more_slowly() {
    let (mut a, b) = (Node::start(1).await, Node::start_in(2, "another", 0).await);
    let begin = Instant::now();
    for _ in 0..4 {
        a.sessions.dial(&b.contact());
        a.unreachable(b.id()).await;
    }
    assert!(begin.elapsed() > Duration::from_millis(200 + 400 + 800));
    assert!(begin.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn a_new_address_restarts_a_dial_under_way() {
    let (mut a, b) = (Node::start(1).await, Node::start(2).await);
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let begin = Instant::now();
    a.sessions
        .dial(&Contact::new(b.id(), [silent.local_addr().unwrap()]));
    tokio::time::sleep(Duration::from_millis(300)).await;
    a.sessions.remember(&b.contact());
    a.opened(b.id()).await;
    // The dial to the silent address would have taken five.
    assert!(begin.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn own_oversized_frames_are_not_sent() {
    let (a, mut b) = pair().await;
    let oversized = Bytes::from(vec![0; CONTROL_FRAME_BYTES_MAX + 1]);
    a.sessions.send_control(&b.contact(), oversized);
    b.silence(Duration::from_millis(200)).await;
    assert_eq!(a.sessions.counters().frames_oversized, 1);
}

/// A peer of the right key and overlay that does not keep to the lanes.
async fn rogue(seed: u8, victim: &Node) -> (iroh::Endpoint, iroh::endpoint::Connection) {
    let overlay = OverlayId::from_name("test");
    let hex: String = overlay.as_bytes()[..8]
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect();
    let endpoint = iroh::Endpoint::builder(iroh::endpoint::presets::Minimal)
        .secret_key(iroh::SecretKey::from_bytes(&[seed; 32]))
        .bind()
        .await
        .unwrap();
    let key = iroh::PublicKey::from_bytes(victim.id().as_bytes()).unwrap();
    let address = iroh::EndpointAddr::new(key).with_ip_addr(victim.sessions.addresses()[0]);
    let protocol = format!("enishi/1/{hex}");
    let connection = endpoint
        .connect(address, protocol.as_bytes())
        .await
        .unwrap();
    (endpoint, connection)
}

#[tokio::test]
async fn an_oversized_frame_closes_the_session() {
    let mut a = Node::start(1).await;
    let peer = Keypair::from_seed(&[9; 32]).id();
    let (_endpoint, connection) = rogue(9, &a).await;
    let mut control = connection.open_uni().await.unwrap();
    control.write_all(&[1; 9]).await.unwrap();
    control
        .write_all(&[3, 0, 0, 0, b'a', b'b', b'c'])
        .await
        .unwrap();
    a.opened(peer).await;
    assert_eq!(a.frame().await, "abc");
    let length = u32::try_from(CONTROL_FRAME_BYTES_MAX + 1).unwrap();
    control.write_all(&length.to_le_bytes()).await.unwrap();
    a.closed(peer).await;
    assert_eq!(a.sessions.counters().frames_oversized, 1);
    timeout(PATIENCE, connection.closed()).await.unwrap();
}

#[tokio::test]
async fn unknown_lanes_close_the_session() {
    let mut a = Node::start(1).await;
    let peer = Keypair::from_seed(&[9; 32]).id();
    let (_endpoint, connection) = rogue(9, &a).await;
    let mut stream = connection.open_uni().await.unwrap();
    stream.write_all(&[77; 9]).await.unwrap();
    a.opened(peer).await;
    a.closed(peer).await;
}

#[tokio::test]
async fn a_full_queue_drops_and_counts() {
    let a = Node::start(1).await;
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let peer = Keypair::from_seed(&[3; 32]).id();
    let contact = Contact::new(peer, [silent.local_addr().unwrap()]);
    for _ in 0..QUEUE_FRAMES_MAX + 10 {
        a.sessions.send_control(&contact, Bytes::from_static(b"x"));
    }
    assert_eq!(a.sessions.counters().frames_dropped, 10);
}

#[tokio::test]
async fn a_slow_host_slows_the_sender_down_instead_of_filling_memory() {
    let (a, mut b) = pair().await;
    let frame = Bytes::from(vec![1; 64 * 1024]);
    let begin = Instant::now();
    while a.sessions.counters().frames_dropped == 0 {
        assert!(begin.elapsed() < PATIENCE, "nothing pushes back");
        a.sessions.send_control(&b.contact(), frame.clone());
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    // Whatever was not dropped arrives once the host reads.
    for _ in 0..=256 {
        assert_eq!(b.frame().await, frame);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_peer_that_dials_takes_over_from_its_corpse() {
    for (survivor, crasher) in [(1, 2), (2, 1)] {
        let mut a = Node::start(survivor).await;
        let (runtime, b_id, port) = crashing_node(crasher, &a);
        a.opened(b_id).await;
        assert_eq!(a.frame().await, "here");
        tokio::task::spawn_blocking(move || drop(runtime))
            .await
            .unwrap();

        let mut b = Node::start_in(crasher, "test", port).await;
        let begin = Instant::now();
        b.sessions
            .send_control(&a.contact(), Bytes::from_static(b"back"));
        a.restarted(b_id).await;
        assert_eq!(a.frame().await, "back");
        b.opened(a.id()).await;
        a.sessions
            .send_control(&Contact::new(b_id, []), Bytes::from_static(b"hello"));
        assert_eq!(b.frame().await, "hello");
        let elapsed = begin.elapsed();
        assert!(elapsed < Duration::from_secs(2), "{elapsed:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_peer_is_reached_after_its_session_was_dropped() {
    let mut a = Node::start(1).await;
    let (runtime, b_id, port) = crashing_node(2, &a);
    a.opened(b_id).await;
    assert_eq!(a.frame().await, "here");
    tokio::task::spawn_blocking(move || drop(runtime))
        .await
        .unwrap();

    let mut b = Node::start_in(2, "test", port).await;
    let begin = Instant::now();
    a.sessions.drop_session(b_id);
    assert!(a.sessions.session(b_id).is_none());
    a.closed(b_id).await;
    a.sessions
        .send_control(&b.contact(), Bytes::from_static(b"hello"));
    b.opened(a.id()).await;
    assert_eq!(b.frame().await, "hello");
    let elapsed = begin.elapsed();
    assert!(elapsed < Duration::from_secs(2), "{elapsed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_doubted_is_left_only_if_it_does_not_answer() {
    let mut a = Node::start(1).await;
    let there = Node::start(3).await;
    a.sessions.dial(&there.contact());
    a.opened(there.id()).await;
    let (runtime, dead, _) = crashing_node(2, &a);
    a.opened(dead).await;
    assert_eq!(a.frame().await, "here");
    tokio::task::spawn_blocking(move || drop(runtime))
        .await
        .unwrap();

    // What it sent last may still be under way.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let since = a.sessions.session(there.id()).unwrap().open_for;
    for peer in [there.id(), dead] {
        a.sessions.doubt(peer);
        a.sessions.doubt(peer);
        assert!(a.sessions.session(peer).is_some(), "it may be slow");
    }
    a.closed(dead).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let kept = a.sessions.session(there.id()).unwrap();
    assert!(kept.open_for >= since + Duration::from_millis(1_500));
    assert!(a.sessions.session(dead).is_none());
}

/// Starts a node on a runtime of its own, which says "here" to `a`. Dropping the
/// runtime ends the node without a word, as a crash does.
fn crashing_node(seed: u8, a: &Node) -> (tokio::runtime::Runtime, NodeId, u16) {
    let contact = a.contact();
    let (sender, receiver) = std::sync::mpsc::channel();
    let runtime = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async move {
            let mut node = Node::start(seed).await;
            node.sessions
                .send_control(&contact, Bytes::from_static(b"here"));
            node.opened(contact.id()).await;
            sender.send((node.id(), node.port())).unwrap();
            tokio::spawn(async move {
                let _node = node;
                std::future::pending::<()>().await;
            });
        });
        runtime
    });
    let runtime = tokio::task::block_in_place(|| runtime.join()).unwrap();
    let (id, port) = receiver.recv().unwrap();
    (runtime, id, port)
}

#[tokio::test]
async fn bulk_carries_eight_mebibytes_there_and_back() {
    let (a, mut b) = pair().await;
    let payload: Vec<u8> = (0..8 * 1024 * 1024_u32).map(|n| (n / 7) as u8).collect();
    let contact = b.contact();
    let echo = tokio::spawn(async move {
        let SessionEvent::Bulk {
            mut reader,
            mut writer,
            ..
        } = b.event().await
        else {
            panic!("expected Bulk");
        };
        tokio::io::copy(&mut reader, &mut writer).await.unwrap();
        writer.shutdown().await.unwrap();
        b
    });
    let (mut reader, mut writer) = a.sessions.open_bulk(&contact).await.unwrap();
    let sent = payload.clone();
    let sender = tokio::spawn(async move {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    let mut back = Vec::new();
    timeout(PATIENCE * 3, reader.read_to_end(&mut back))
        .await
        .unwrap()
        .unwrap();
    sender.await.unwrap();
    echo.await.unwrap();
    assert!(back == payload);
}

#[tokio::test]
async fn datagrams_arrive_and_the_lane_notices_the_end() {
    let (a, mut b) = pair().await;
    let lane = a.sessions.datagrams(b.id()).unwrap();
    let bytes_max = lane.bytes_max().unwrap();
    assert!(
        2 * bytes_max >= 1_280 + 16,
        "an IPv6 packet fits two datagrams"
    );
    lane.send(Bytes::from_static(b"one")).unwrap();
    lane.send_many(&[Bytes::from_static(b"two"), Bytes::from_static(b"three")])
        .unwrap();
    for expected in ["one", "two", "three"] {
        let (peer, datagram) = timeout(PATIENCE, b.datagrams.recv())
            .await
            .unwrap()
            .unwrap();
        assert_eq!((peer, &datagram[..]), (a.id(), expected.as_bytes()));
    }
    let large = Bytes::from(vec![0; 60_000]);
    let error = lane.send(large.clone()).unwrap_err();
    assert!(matches!(error, DatagramError::TooLarge { bytes_max } if bytes_max > 1_000));
    // What goes with it arrives all the same.
    let many = [
        Bytes::from_static(b"four"),
        large,
        Bytes::from_static(b"five"),
    ];
    assert_eq!(lane.send_many(&many), Err(error));
    for expected in ["four", "five"] {
        let (_, datagram) = timeout(PATIENCE, b.datagrams.recv())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&datagram[..], expected.as_bytes());
    }

    a.sessions.drop_session(b.id());
    assert!(lane.bytes_max().is_none() && a.sessions.datagrams(b.id()).is_none());
    assert_eq!(lane.send(Bytes::new()), Err(DatagramError::Closed));
    b.closed(a.id()).await;
}

#[tokio::test]
async fn a_port_in_use_is_told_clearly() {
    let a = Node::start(1).await;
    let error = Sessions::bind(config(2, "test", a.port()))
        .await
        .unwrap_err();
    assert!(matches!(error, BindError::PortInUse { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains(&a.port().to_string()) && text.contains("--listen"),
        "{text}"
    );
}

#[tokio::test]
async fn the_port_is_free_again_after_the_close() {
    let (a, _b) = pair().await;
    let port = a.port();
    a.sessions.close().await;
    drop(a);
    // The last tasks let go of the socket a moment later.
    let bound = async {
        while Sessions::bind(config(1, "test", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, bound).await.unwrap();
}

#[tokio::test]
async fn both_families_are_listened_on_when_asked_for() {
    let both = SessionConfig {
        listen: vec!["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()],
        ..config(2, "test", 0)
    };
    let (b, _events) = Sessions::bind(both).await.unwrap();
    let (v4, v6): (Vec<_>, Vec<_>) = b.addresses().into_iter().partition(SocketAddr::is_ipv4);
    assert_eq!((v4.len(), v6.len()), (1, 1));
    let only_v6 = SessionConfig {
        listen: vec!["[::1]:0".parse().unwrap()],
        ..config(1, "test", 0)
    };
    let (a, mut events) = Sessions::bind(only_v6).await.unwrap();
    a.dial(&Contact::new(b.me(), v6.clone()));
    match timeout(PATIENCE, events.recv()).await.unwrap() {
        Some(SessionEvent::Opened { address, .. }) => assert_eq!(address, v6.first().copied()),
        other => panic!("expected Opened, got {other:?}"),
    }
}

#[tokio::test]
async fn several_addresses_of_one_family_are_listened_on_in_their_order() {
    let wanted = ["127.0.0.2:0", "[::1]:0", "127.0.0.1:0", "127.0.0.3:0"];
    let wanted = wanted.map(|at| at.parse::<SocketAddr>().unwrap());
    let several = SessionConfig {
        listen: wanted.to_vec(),
        ..config(2, "test", 0)
    };
    let (sessions, _events) = Sessions::bind(several).await.unwrap();
    let bound = sessions.listening().into_iter().map(|at| at.ip());
    assert_eq!(
        bound.collect::<Vec<_>>(),
        wanted.map(|at| at.ip()).as_slice()
    );
    let a = Node::start(1).await;
    let mut events = a.events;
    for at in sessions.listening().into_iter().filter(SocketAddr::is_ipv4) {
        a.sessions.dial(&Contact::new(sessions.me(), [at]));
    }
    match timeout(PATIENCE, events.recv()).await.unwrap() {
        Some(SessionEvent::Opened { peer, .. }) => assert_eq!(peer, sessions.me()),
        other => panic!("expected Opened, got {other:?}"),
    }
}

#[tokio::test]
async fn own_addresses_are_those_listened_on() {
    let a = Node::start(1).await;
    assert_eq!(
        a.sessions.addresses(),
        [SocketAddr::from(([127, 0, 0, 1], a.port()))]
    );
    let everywhere = SessionConfig {
        listen: Vec::new(),
        ..config(2, "test", 0)
    };
    let (sessions, _events) = Sessions::bind(everywhere).await.unwrap();
    let mut watched = sessions.watch_addresses();
    let told = timeout(PATIENCE, watched.wait_for(|a| !a.is_empty())).await;
    let told = told.unwrap().unwrap().clone();
    assert!(told.len() <= 8 && told.iter().all(|a| !a.ip().is_unspecified()));

    let hidden = told[0].ip();
    sessions.hide_addresses(vec![hidden]);
    let gone = watched.wait_for(|told| told.iter().all(|a| a.ip() != hidden));
    timeout(PATIENCE, gone).await.unwrap().unwrap();
}

/// Returns a second descriptor of the UDP socket on `port`, as a child process has between
/// `fork(2)` and `execve(2)`.
fn copy_of_socket(port: u16) -> OwnedFd {
    let is_it = |fd: &i32| {
        let name = getsockname::<SockaddrIn>(*fd);
        name.is_ok_and(|name| name.port() == port)
    };
    let fd = (3..4096).find(is_it).unwrap();
    #[expect(unsafe_code, reason = "the QUIC library does not lend its descriptors")]
    // SAFETY: the socket was found open, and nothing closes it while this thread copies it.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    borrowed.try_clone_to_owned().unwrap()
}

fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status();
    assert!(status.unwrap().success(), "ip {words}");
}

// One thread: it alone is in a network namespace of its own.
#[tokio::test(flavor = "current_thread")]
async fn sockets_that_cannot_be_opened_again_at_once_are_opened_later() {
    if unshare(CloneFlags::CLONE_NEWNET).is_err() {
        eprintln!("skipped: needs root");
        return;
    }
    ip("link set lo up");
    let (mut a, mut b) = pair().await;
    let (address, copy) = (a.contact(), copy_of_socket(a.port()));
    ip("link add v0 type veth peer name v1");
    ip("address add 192.0.2.1/24 dev v0");
    ip("link set v0 up");
    ip("link set v1 up");
    a.closed(b.id()).await;
    drop(copy);
    // It has the port that it had, and its peer sees that it lives again.
    let there = Bytes::from("there?");
    a.sessions.send_control(&b.contact(), there.clone());
    b.restarted(a.id()).await;
    assert_eq!(b.frame().await, there);
    a.opened(b.id()).await;
    let here = Bytes::from("here");
    b.sessions.send_control(&address, here.clone());
    assert_eq!(a.frame().await, here);
    assert_eq!(a.contact().addresses(), address.addresses());
}

// One thread: it alone is in a network namespace of its own.
#[tokio::test(flavor = "current_thread")]
async fn who_is_reached_by_a_nat64_alone_is_dialled_as_soon_as_there_is_one() {
    if unshare(CloneFlags::CLONE_NEWNET).is_err() {
        eprintln!("skipped: needs root");
        return;
    }
    ip("link set lo up");
    // What the NAT64 makes of 11.0.0.1.
    ip("address add 64:ff9b::b00:1/128 dev lo nodad");
    let listening = |seed, at: &str| {
        Sessions::bind(SessionConfig {
            listen: vec![at.parse().unwrap()],
            ..config(seed, "test", 0)
        })
    };
    let (a, mut events) = listening(1, "[::]:0").await.unwrap();
    let (b, _b_events) = listening(2, "[64:ff9b::b00:1]:0").await.unwrap();
    let port = b.listening()[0].port();
    let contact = Contact::new(b.me(), [SocketAddr::from(([11, 0, 0, 1], port))]);
    // Until a dial, or the pause before the next one, takes long.
    a.dial(&contact);
    while let Ok(event) = timeout(Duration::from_millis(3_500), events.recv()).await {
        assert!(matches!(event, Some(SessionEvent::Unreachable { .. })));
        a.dial(&contact);
    }
    let prefix = "64:ff9b::/96".to_owned();
    a.set_nat64(Some(Known::Told(prefix.try_into().unwrap())));
    match timeout(Duration::from_secs(1), events.recv()).await {
        Ok(Some(SessionEvent::Opened { peer, .. })) => assert_eq!(peer, b.me()),
        other => panic!("expected Opened at once, got {other:?}"),
    }
}
