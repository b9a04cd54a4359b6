//! Links: streams between two nodes, and other ways, that carry packets of their session where its own
//! datagrams do not pass.
//!
//! A link is TCP straight to the peer, TCP through a proxy by CONNECT, or an HTTP bridge. Who needs
//! one opens it to a peer that can be dialled, at the port of its sessions or at one that companies
//! let out; the peer listens there. Or it is the way that packets of a common channel have found. To the
//! [`Carrier`] a link is one more way to the peer, by itself.
//!
//! | part | does |
//! |---|---|
//! | `hello` | how the two ends come to know each other |
//! | `message` | what they say |
//! | `stream` | messages over a stream |
//! | `turns` | to whom one may be opened now |
//! | `dial` | tries all that may pass, and takes what does |
//! | `listen` | takes links of others, of both kinds at one port |
//! | `packets` | links by the ways that packets have found |

mod dial;
mod hello;
mod listen;
mod message;
mod packets;
mod stream;
mod turns;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use enishi_overlay::{Keypair, NodeId};
use enishi_proxy::Proxies;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::Carrier;
use crate::packets::Networks;
use crate::session::Sessions;
pub(crate) use dial::{Passage, survey};
use hello::Pipe;
use message::Message;
use turns::Turns;

/// How long a peer is given to answer by datagrams before a link is opened.
const PATIENCE: Duration = Duration::from_millis(300);

/// A link from which nothing comes for so long ends: the session's own signs of life come every five
/// seconds.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// How many bridges are tried at once.
const BRIDGES_AT_ONCE_MAX: usize = 24;

/// Two links are opened at the same time if there is not more between them.
const SAME_TIME: Duration = Duration::from_secs(10);

/// How often it is looked whether sessions could go by the ways of packets that went otherwise when these
/// were found.
const PACKETS_INTERVAL: Duration = Duration::from_secs(10);

/// How often it is looked whether the peer of a link has a session, without which it ends.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// Sends what goes over a link; cheap to clone.
#[derive(Clone)]
pub(super) struct Link {
    to: mpsc::Sender<Bytes>,
    about: Arc<str>,
    opener: NodeId,
    opened: Instant,
    ended: CancellationToken,
}

impl Link {
    /// Sends a packet; without room it is lost, as on any network.
    pub(super) fn send(&self, packet: Bytes) {
        self.say(Message::Packet(packet).encode());
    }

    /// Asks the other end for a sign of life.
    pub(super) fn ask(&self) {
        self.say(Message::Ping.encode());
    }

    fn say(&self, message: Bytes) {
        let _ = self.to.try_send(message);
    }

    /// Says in words what it goes over.
    pub(super) fn about(&self) -> Arc<str> {
        Arc::clone(&self.about)
    }

    /// Ends it.
    pub(super) fn end(&self) {
        self.ended.cancel();
    }

    /// Tells whether this one stays although there is `another`, newer one: both ends may open one at the
    /// same time, and are to keep the same.
    pub(super) fn outlasts(&self, another: &Self) -> bool {
        self.opener < another.opener && self.opened.elapsed() < SAME_TIME
    }

    /// Tells whether two are the same.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.to.same_channel(&other.to)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({})", self.about)
    }
}

/// Opens links and takes those of others.
pub(crate) struct Linker {
    keypair: Keypair,
    carrier: Arc<Carrier>,
    sessions: Sessions,
    /// Which proxies connections take.
    proxies: Proxies,
    networks: Arc<Networks>,
    turns: Mutex<Turns>,
    bridges: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Linker {
    /// Opens a link to each peer that is `wanted`, and serves those who come to `listeners`, until
    /// `stop`.
    pub(crate) async fn run(
        keypair: Keypair,
        carrier: Arc<Carrier>,
        (sessions, networks, proxies): (Sessions, Arc<Networks>, Proxies),
        listeners: Vec<TcpListener>,
        mut wanted: mpsc::Receiver<NodeId>,
        stop: CancellationToken,
    ) {
        let linker = Arc::new(Self {
            keypair,
            carrier,
            sessions,
            proxies,
            networks,
            turns: Mutex::default(),
            bridges: Arc::new(Semaphore::new(BRIDGES_AT_ONCE_MAX)),
            stop,
        });
        listen::start(&linker, listeners);
        let mut addresses = linker.sessions.watch_local_addresses();
        let mut proxies = linker.proxies.watch();
        let Some(mut words) = linker.networks.words() else {
            return;
        };
        let mut looks = tokio::time::interval(PACKETS_INTERVAL);
        loop {
            let peer = tokio::select! {
                () = linker.stop.cancelled() => return,
                _ = looks.tick() => {
                    linker.consider_all_packets();
                    continue;
                }
                Ok(()) = addresses.changed() => {
                    super::lock(&linker.turns).moved();
                    continue;
                }
                Ok(()) = proxies.changed() => {
                    // Nobody may have been reached without the one that is told now.
                    super::lock(&linker.turns).moved();
                    linker.carrier.take_heart();
                    continue;
                }
                Some(word) = words.recv() => {
                    linker.on_word(word);
                    continue;
                }
                peer = wanted.recv() => match peer {
                    Some(peer) => peer,
                    None => return,
                },
            };
            if super::lock(&linker.turns).begin(Instant::now(), peer) {
                let linker = Arc::clone(&linker);
                tokio::spawn(async move {
                    let stop = linker.stop.clone();
                    stop.run_until_cancelled(linker.open(peer)).await;
                    super::lock(&linker.turns).end(peer);
                });
            }
        }
    }

    /// Opens a link to a peer, unless it answers by itself meanwhile.
    async fn open(self: &Arc<Self>, peer: NodeId) {
        tokio::time::sleep(PATIENCE).await;
        if self.carrier.is_reached(peer) {
            return;
        }
        if self.open_by_packets(peer).await {
            return;
        }
        let addresses = self.sessions.addresses_of(peer);
        let mut proxies = self.proxies.watch();
        let opened = loop {
            let opened = dial::dial(
                &self.keypair,
                peer,
                &addresses,
                &self.proxies,
                &self.bridges,
                |reach| !self.sessions.has_datagrams(reach),
            );
            tokio::select! {
                opened = opened => break opened,
                // It may take a minute to find that nothing passes without the proxy told now.
                Ok(()) = proxies.changed() => {}
            }
        };
        match opened {
            Some(_) if self.carrier.is_reached(peer) => {}
            Some(opened) => {
                super::lock(&self.turns).opened(Instant::now(), peer);
                self.serve(peer, opened);
            }
            None => super::lock(&self.turns).failed(Instant::now(), peer),
        }
    }

    /// Lets the carrier use a link as long as it lasts.
    fn serve(self: &Arc<Self>, peer: NodeId, opened: Opened) {
        let Opened {
            pipe: Pipe { to, mut from },
            about,
            beginning,
            held,
        } = opened;
        tracing::debug!(?peer, about, "a link");
        let me = self.sessions.me();
        let opener = match beginning {
            Beginning::Opened => me,
            Beginning::Taken(_) => peer,
            // The same for both ends.
            Beginning::BySignOfLife => me.min(peer),
        };
        let link = Link {
            to,
            about: about.into(),
            opener,
            opened: Instant::now(),
            ended: self.stop.child_token(),
        };
        let carrier = Arc::clone(&self.carrier);
        tokio::spawn(async move {
            let following = follow(&carrier, peer, &link, &mut from, &beginning);
            link.ended.run_until_cancelled(following).await;
            tracing::debug!(?peer, about = &*link.about, "a link has ended");
            carrier.unlink(peer, &link);
            drop(held);
        });
    }
}

/// Takes what comes over a link, until it ends, is silent for too long, or has no session.
async fn follow(
    carrier: &Carrier,
    peer: NodeId,
    link: &Link,
    from: &mut mpsc::Receiver<Bytes>,
    beginning: &Beginning,
) {
    let mut is_used = matches!(beginning, Beginning::Opened);
    if is_used {
        carrier.link(peer, link.clone());
    }
    if matches!(beginning, Beginning::BySignOfLife) {
        link.ask();
    }
    let first_look = tokio::time::Instant::now() + LOOK_INTERVAL;
    let mut looks = tokio::time::interval_at(first_look, LOOK_INTERVAL);
    let mut silent_until = tokio::time::Instant::now() + SILENCE_MAX;
    loop {
        let message = tokio::select! {
            message = from.recv() => message,
            () = tokio::time::sleep_until(silent_until) => return,
            _ = looks.tick() => match carrier.has_session(peer) {
                true => continue,
                false => return,
            },
        };
        let Some(message) = message.and_then(|message| Message::decode(&message)) else {
            return;
        };
        silent_until = tokio::time::Instant::now() + SILENCE_MAX;
        if !is_used && matches!(message, Message::Packet(_) | Message::Ping | Message::Pong) {
            is_used = true;
            carrier.link(peer, link.clone());
        }
        match message {
            Message::Packet(packet) => carrier.on_link(peer, Some(packet)),
            Message::Ping => link.say(Message::Pong.encode()),
            Message::Pong => carrier.on_link(peer, None),
            // What it was answered was lost, or is late.
            Message::Proof { .. } => {
                if let Beginning::Taken(welcome) = beginning {
                    link.say(welcome.clone());
                }
            }
            Message::Hello | Message::Nonce(_) | Message::Welcome(_) => {}
        }
    }
}

/// A link that has just been opened.
struct Opened {
    pipe: Pipe,
    /// What it goes over, for people.
    about: String,
    beginning: Beginning,
    /// What ends with it.
    held: Box<dyn Send>,
}

/// How a link begins.
enum Beginning {
    /// This node has opened it.
    Opened,
    /// The peer has, and was answered this. It takes the link by what it says first.
    Taken(Bytes),
    /// Neither end: it is used once the peer gives a sign of life.
    BySignOfLife,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opened({})", self.about)
    }
}

/// Listens for links beside the sockets of the sessions, and at `ports` of all interfaces. Where
/// another program listens, this node does not, and says so.
pub(crate) fn bind(sessions: &[SocketAddr], ports: &[u16]) -> (Vec<TcpListener>, Vec<String>) {
    let (mut listeners, mut failures) = (Vec::new(), Vec::new());
    let everywhere = ports.iter().flat_map(|port| {
        let v6 = SocketAddr::from(([0_u16; 8], *port));
        [SocketAddr::from(([0; 4], *port)), v6]
    });
    let has_v6 = sessions.iter().any(SocketAddr::is_ipv6);
    let everywhere = everywhere.filter(|address| address.is_ipv4() || has_v6);
    for address in sessions.iter().copied().chain(everywhere) {
        match listen::bind(address) {
            Ok(listener) => listeners.push(listener),
            Err(error) => failures.push(format!("TCP {address}: {error}")),
        }
    }
    (listeners, failures)
}
