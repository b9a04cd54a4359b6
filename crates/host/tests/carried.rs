//! Sessions between nodes that do not reach each other, carried by real ones on loopback.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use enishi_host::reach::{Carrier, Rates, is_carried};
use enishi_host::session::{SessionConfig, SessionEvent, Sessions};
use enishi_overlay::{Contact, Keypair, NodeId, OverlayId, PathKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Long enough for anything on loopback, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a flow may stand still when the node dies that carries it. It is about a second; where others
/// keep the machine busy it may be more.
const GAP_MAX: Duration = Duration::from_secs(3);

const RATES: Rates = Rates {
    each: 12_500_000,
    all: 50_000_000,
};

const FOUR: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const SIX: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

struct Node {
    sessions: Sessions,
    events: mpsc::Receiver<SessionEvent>,
    carrier: Arc<Carrier>,
    wanted: mpsc::Receiver<NodeId>,
    stop: CancellationToken,
    /// Whether it carries nothing any more and answers nobody.
    is_silent: Arc<AtomicBool>,
}

/// How a node dies.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// Its sessions end.
    Ends,
    /// Its sessions are open, and nothing comes out of them.
    FallsSilent,
}

impl Node {
    /// A node that speaks IPv4, IPv6 or both: nodes without a common one do not reach each other.
    async fn start(seed: u8, for_others: bool, speaks: &[IpAddr]) -> Self {
        let (carrier, inlet, wanted) = Carrier::new(for_others.then_some(RATES));
        let taker = Arc::clone(&carrier);
        let is_silent = Arc::new(AtomicBool::new(false));
        let takes_nothing = Arc::clone(&is_silent);
        let (sessions, events) = Sessions::bind(SessionConfig {
            keypair: Keypair::from_seed(&[seed; 32]),
            overlay: OverlayId::from_name("test"),
            listen: speaks.iter().map(|at| SocketAddr::new(*at, 0)).collect(),
            on_datagram: Arc::new(move |peer, datagram| {
                assert!(is_carried(&datagram));
                if !takes_nothing.load(Ordering::Relaxed) {
                    taker.on_datagram(peer, &datagram);
                }
            }),
            carry: Arc::clone(&carrier) as _,
        })
        .await
        .unwrap();
        let stop = CancellationToken::new();
        let running = Arc::clone(&carrier).run(sessions.clone(), inlet, stop.clone());
        tokio::spawn(running);
        Self {
            sessions,
            events,
            carrier,
            wanted: wanted.calls,
            stop,
            is_silent,
        }
    }

    fn id(&self) -> NodeId {
        self.sessions.me()
    }

    fn contact(&self) -> Contact {
        Contact::new(self.id(), self.sessions.addresses())
    }

    async fn knows(&self, others: &[&Node]) {
        for other in others {
            assert!(self.sessions.connect(&other.contact()).await.is_some());
        }
    }

    /// Waits until it is told that a session with a peer is open.
    async fn opened(&mut self, expected: NodeId) {
        let opened = async {
            loop {
                match self.events.recv().await.unwrap() {
                    SessionEvent::Opened { peer, .. } if peer == expected => return,
                    _ => {}
                }
            }
        };
        timeout(PATIENCE, opened).await.unwrap();
    }

    async fn kill(self) {
        self.stop.cancel();
        self.sessions.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_opens_by_way_of_a_node_that_both_know_and_goes_on_by_another() {
    goes_on_by_another(Death::Ends).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_by_another_node_when_the_one_that_carries_falls_silent() {
    goes_on_by_another(Death::FallsSilent).await;
}

/// Two have a session by way of a third node, which dies while they use it.
async fn goes_on_by_another(death: Death) {
    let mut a = Node::start(1, true, &[FOUR]).await;
    let mut b = Node::start(2, true, &[SIX]).await;
    let r = Node::start(3, true, &[FOUR, SIX]).await;
    let s = Node::start(4, true, &[FOUR, SIX]).await;
    a.knows(&[&r, &s]).await;
    b.knows(&[&r, &s]).await;

    let started = Instant::now();
    a.sessions.dial(&b.contact());
    let wanted = timeout(PATIENCE, a.wanted.recv()).await.unwrap();
    assert_eq!(wanted, Some(b.id()));
    a.carrier.learn(b.id(), vec![r.contact(), s.contact()], 6);
    a.opened(b.id()).await;
    println!("open after {:?}", started.elapsed());
    b.opened(a.id()).await;
    let session = a.sessions.session(b.id()).unwrap();
    assert_eq!(session.kind, PathKind::Relayed);
    assert!(session.path.starts_with("relayed by "), "{}", session.path);
    let names = [&r, &s].map(|node| node.id().short().to_string());
    let first = names.each_ref().map(|name| session.path.ends_with(name));
    let first_by = names[usize::from(!first[0])].clone();

    // Octets flow while the node dies by whose way they went.
    let (_reader, mut writer) = a.sessions.open_bulk(&b.contact()).await.unwrap();
    let mut arrived = loop {
        let event = timeout(PATIENCE, b.events.recv()).await.unwrap();
        if let Some(SessionEvent::Bulk { reader, .. }) = event {
            break reader;
        }
    };
    let sending = tokio::spawn(async move {
        let piece = vec![7; 64 * 1024];
        for _ in 0..200 {
            writer.write_all(&piece).await.unwrap();
            sleep(Duration::from_millis(5)).await;
        }
        writer.shutdown().await.unwrap();
        writer
    });
    let mut count = 0;
    let mut gap = Duration::ZERO;
    let mut last = Instant::now();
    let [r, s] = [r, s].map(Some);
    let (mut killed, _kept) = if first[0] { (r, s) } else { (s, r) };
    let mut piece = vec![0; 64 * 1024];
    let mut silent = None;
    loop {
        let read = timeout(PATIENCE, arrived.read(&mut piece)).await.unwrap();
        let read = read.unwrap();
        gap = gap.max(last.elapsed());
        last = Instant::now();
        count += read;
        if read == 0 {
            break;
        }
        if count > 2_000_000
            && let Some(node) = killed.take()
        {
            match death {
                Death::Ends => {
                    node.sessions.drop_session(a.id());
                    node.sessions.drop_session(b.id());
                    node.kill().await;
                }
                Death::FallsSilent => {
                    node.is_silent.store(true, Ordering::Relaxed);
                    silent = Some(node);
                }
            }
        }
    }
    println!("{death:?}: longest gap {gap:?}");
    assert!(gap < GAP_MAX, "{gap:?}");
    assert_eq!(count, 200 * 64 * 1024);
    sending.await.unwrap();
    let session = a.sessions.session(b.id()).unwrap();
    assert!(!session.path.ends_with(&first_by), "{}", session.path);
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_carry_says_so() {
    let mut a = Node::start(1, true, &[FOUR]).await;
    let b = Node::start(2, true, &[SIX]).await;
    let no = Node::start(3, false, &[FOUR, SIX]).await;
    let r = Node::start(4, true, &[FOUR, SIX]).await;
    a.knows(&[&no, &r]).await;
    b.knows(&[&no, &r]).await;
    a.sessions.dial(&b.contact());
    timeout(PATIENCE, a.wanted.recv()).await.unwrap();
    a.carrier.learn(b.id(), vec![no.contact()], 6);
    // It is wanted again, for the one way is none.
    let wanted = timeout(PATIENCE, a.wanted.recv()).await.unwrap();
    assert_eq!(wanted, Some(b.id()));
    assert_eq!(no.carrier.carried_bytes(), 0);
    a.carrier.learn(b.id(), vec![r.contact()], 6);
    a.opened(b.id()).await;
    assert!(r.carrier.carried_bytes() > 1_200);
}
