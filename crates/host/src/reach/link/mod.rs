//! Links: streams between two nodes that carry packets of their session where no datagram passes.
//!
//! A link is TCP straight to the peer, TCP through a proxy by CONNECT, or an HTTP bridge. Who needs
//! one opens it to a peer that can be dialled, at the port of its sessions or at one that companies
//! let out; the peer listens there. To the [`Carrier`] a link is one more way to the peer, by itself.
//!
//! | part | does |
//! |---|---|
//! | `hello` | how the two ends come to know each other; what they say |
//! | `stream` | messages over a stream |
//! | `dial` | tries all that may pass, and takes what does |
//! | `listen` | takes links of others, of both kinds at one port |

mod dial;
mod hello;
mod listen;
mod stream;

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use enishi_overlay::{Keypair, NodeId};
use enishi_proxy::Proxies;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Carrier;
use crate::session::Sessions;
pub(crate) use dial::{Passage, survey};
use hello::{Message, Pipe};

/// How long a peer is given to answer by datagrams before a link is opened.
const PATIENCE: Duration = Duration::from_millis(300);

/// A link from which nothing comes for so long ends: the session's own signs of life come every five
/// seconds.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// How many links are opened at once.
const OPENING_MAX: usize = 16;

/// Sends what goes over a link; cheap to clone.
#[derive(Clone)]
pub(super) struct Link {
    to: mpsc::Sender<Bytes>,
    about: Arc<str>,
    ended: CancellationToken,
}

impl Link {
    /// Sends a packet; without room it is lost, as on any network.
    pub(super) fn send(&self, packet: Bytes) {
        let _ = self.to.try_send(Message::Packet(packet).encode());
    }

    /// Asks the other end for a sign of life.
    pub(super) fn ask(&self) {
        let _ = self.to.try_send(Message::Ping.encode());
    }

    /// Says in words what it goes over.
    pub(super) fn about(&self) -> Arc<str> {
        Arc::clone(&self.about)
    }

    /// Ends it.
    pub(super) fn end(&self) {
        self.ended.cancel();
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
    /// The peers to which one is being opened.
    opening: Mutex<HashSet<NodeId>>,
    stop: CancellationToken,
}

impl Linker {
    /// Opens a link to each peer that is `wanted`, and serves those who come to `listeners`, until
    /// `stop`.
    pub(crate) async fn run(
        keypair: Keypair,
        carrier: Arc<Carrier>,
        (sessions, proxies): (Sessions, Proxies),
        listeners: Vec<TcpListener>,
        mut wanted: mpsc::Receiver<NodeId>,
        stop: CancellationToken,
    ) {
        let linker = Arc::new(Self {
            keypair,
            carrier,
            sessions,
            proxies,
            opening: Mutex::default(),
            stop,
        });
        listen::start(&linker, listeners);
        while let Some(Some(peer)) = linker.stop.run_until_cancelled(wanted.recv()).await {
            if super::lock(&linker.opening).len() < OPENING_MAX
                && super::lock(&linker.opening).insert(peer)
            {
                let linker = Arc::clone(&linker);
                tokio::spawn(async move {
                    let stop = linker.stop.clone();
                    stop.run_until_cancelled(linker.open(peer)).await;
                    super::lock(&linker.opening).remove(&peer);
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
        let addresses = self.sessions.addresses_of(peer);
        let is_without_datagrams = !self.sessions.has_datagrams();
        let opened = dial::dial(
            &self.keypair,
            peer,
            &addresses,
            &self.proxies,
            is_without_datagrams,
        );
        if let Some(opened) = opened.await {
            self.serve(peer, opened);
        }
    }

    /// Lets the carrier use a link as long as it lasts.
    fn serve(self: &Arc<Self>, peer: NodeId, opened: Opened) {
        let Opened {
            pipe: Pipe { to, mut from },
            about,
            held,
        } = opened;
        tracing::debug!(?peer, about, "a link");
        let link = Link {
            to,
            about: about.into(),
            ended: self.stop.child_token(),
        };
        self.carrier.link(peer, link.clone());
        let carrier = Arc::clone(&self.carrier);
        tokio::spawn(async move {
            let served = async {
                while let Ok(Some(message)) = tokio::time::timeout(SILENCE_MAX, from.recv()).await {
                    match Message::decode(&message) {
                        Some(Message::Packet(packet)) => carrier.on_link(peer, Some(packet)),
                        Some(Message::Ping) => drop(link.to.try_send(Message::Pong.encode())),
                        Some(Message::Pong) => carrier.on_link(peer, None),
                        // Said again, since the answer was late.
                        Some(_) => {}
                        None => return,
                    }
                }
            };
            link.ended.run_until_cancelled(served).await;
            tracing::debug!(?peer, about = &*link.about, "a link has ended");
            carrier.unlink(peer, &link);
            drop(held);
        });
    }
}

/// A link that has just been opened.
struct Opened {
    pipe: Pipe,
    /// What it goes over, for people.
    about: String,
    /// What ends with it.
    held: Box<dyn Send>,
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
