//! Sessions: one encrypted connection per remote node, with three lanes.
//!
//! A node is dialled by its key: whoever answers must prove in the handshake that
//! it holds the key, whatever address it answers from. The handshake also agrees on
//! a protocol name made of the version of these lanes and the overlay's id, so that
//! nodes of another overlay or version are refused before a word is said. A node that
//! is dialled in place of another, because it happens to have one of its addresses,
//! keeps silent.
//!
//! This module is the only one that knows which QUIC library does it. To its user a
//! session is a [`NodeId`] with three lanes, which are streams and datagrams of one
//! QUIC connection. Integers are little-endian:
//!
//! ```text
//! control   one unidirectional stream in each direction, open as long as the session
//!
//!           +--------+-------------------+------------+----------------+------------+---
//!           | 1 (u8) | incarnation (u64) | length u32 | frame (length) | length u32 | …
//!           +--------+-------------------+------------+----------------+------------+---
//!
//!           length is at most CONTROL_FRAME_BYTES_MAX; a larger one ends the session.
//!           incarnation: a random number that a process draws when it opens its endpoint.
//!           Two connections of one peer with different incarnations tell that it was
//!           restarted and the older one is a corpse.
//!
//! bulk      bidirectional streams, opened by either side when there is something
//!
//!           +--------+------------------+
//!           | 2 (u8) | octets …         |   and octets … the other way, without a tag
//!           +--------+------------------+
//!
//! datagram  QUIC datagrams, the payload alone; those without an octet, or with one, are the session's
//!           own: is the peer there, and yes (`doubt`)
//! ```
//!
//! Sending never waits: control frames go into a queue per peer ([`QUEUE_FRAMES_MAX`],
//! [`QUEUE_BYTES_MAX`], all together [`QUEUES_BYTES_MAX`]), which outlives connections and survives a dial. Receiving
//! waits for the host: events have a bounded channel, and when it is full QUIC's flow
//! control slows the peers down.
//!
//! Nothing here keeps a session open. One that is not used for [`IDLE_MAX`] is closed.

mod addresses;
mod announce;
mod book;
mod by_ipv4;
mod connection;
mod counters;
mod dial;
mod doubt;
mod endpoint;
mod idle;
mod lanes;
mod queue;
mod relayed;
mod selector;
mod serve;
mod table;
mod transport;

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use enishi_overlay::{Contact, Keypair, NodeId, OverlayId, PathKind};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use addresses::Reach;
pub use book::BOOK_MAX;
pub use counters::Counters;
pub use endpoint::{
    BULK_STREAMS_PER_PEER_MAX, BindError, CARRIED_BYTES_MAX, DATAGRAM_SEND_BYTES_MAX, SESSIONS_MAX,
    SESSIONS_RESERVED,
};
pub use idle::IDLE_MAX;
pub use lanes::{BulkReader, BulkWriter, CONTROL_FRAME_BYTES_MAX, DatagramError, DatagramLane};
pub use queue::{QUEUE_BYTES_MAX, QUEUE_FRAMES_MAX, QUEUES_BYTES_MAX};
pub use relayed::Relayed;
pub use transport::{By, Carry, NobodyCarries};

use announce::{Announcer, EVENTS_MAX};
use book::Book;
use by_ipv4::ByIpv4;
use connection::{CloseCode, Live};
use counters::Counting;
use table::{Entry, Table};
use transport::Transport;

use crate::nat64;

/// How long [`Sessions::open_bulk`] waits for a session and for the peer to allow
/// one more stream.
const BULK_OPEN_MAX: Duration = Duration::from_secs(10);

/// How long [`Sessions::close`] waits for frames to go out, and then for peers to
/// hear of the end; each.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// How many prefixes of NAT64 are remembered that were found before.
const FOUND_BEFORE_MAX: usize = 4;

/// What a node needs to hold sessions.
pub struct SessionConfig {
    /// Who the node is.
    pub keypair: Keypair,
    /// The overlay it belongs to: only its nodes are spoken with.
    pub overlay: OverlayId,
    /// Where to listen, UDP; port 0 takes a free one. Empty: all interfaces, IPv4
    /// and, where there is one, IPv6. A list of IPv4 addresses alone means no IPv6.
    pub listen: Vec<SocketAddr>,
    /// Called with every datagram of more than one octet, from the task of its session: it must not block.
    pub on_datagram: OnDatagram,
    /// Takes the packets of sessions with peers that no socket reaches.
    pub carry: Arc<dyn Carry>,
}

/// Takes the datagrams of all sessions.
pub type OnDatagram = Arc<dyn Fn(NodeId, Bytes) + Send + Sync>;

/// Addresses of this node that are not of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct External {
    /// At which others may dial it.
    pub told: Vec<SocketAddr>,
    /// Which are only tried with peers with whom there is a session, to have that go straight.
    pub tried: Vec<SocketAddr>,
}

/// What happened to a session.
#[derive(Debug)]
pub enum SessionEvent {
    /// A session is open, whoever dialled. Comes once, before anything else of it.
    Opened {
        /// The node at the other end, proven by its key.
        peer: NodeId,
        /// Where it is; `None` when the path is not an IP address.
        address: Option<SocketAddr>,
    },
    /// A control frame arrived.
    Control {
        /// Who sent it.
        peer: NodeId,
        /// The frame, at most [`CONTROL_FRAME_BYTES_MAX`] octets.
        frame: Bytes,
    },
    /// The peer opened a bulk stream.
    Bulk {
        /// Who opened it.
        peer: NodeId,
        /// What the peer sends.
        reader: BulkReader,
        /// What goes back.
        writer: BulkWriter,
    },
    /// The last connection of the session is gone, for whatever reason. Nothing more
    /// of it follows but, perhaps, `Opened` of the next one.
    Closed {
        /// The node that was at the other end.
        peer: NodeId,
    },
    /// The peer lives anew: its process is another, or it had to open its sockets again. It
    /// knows nothing of what was agreed before. The session goes on; comes before anything else
    /// of that life.
    Restarted {
        /// The node at the other end.
        peer: NodeId,
    },
    /// A dial failed: no address known, nobody there within five seconds, or someone
    /// else there. The frames that waited for it are lost.
    Unreachable {
        /// The node that was dialled.
        peer: NodeId,
    },
}

/// What is known of an open session.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// The node at the other end.
    pub peer: NodeId,
    /// The path in use, for people: `direct 192.0.2.1:567`, `direct tcp 192.0.2.1:443`, or `relayed by
    /// mbdmgowpeq`. Empty between two paths.
    pub path: String,
    /// What sort of path it is; unconnected between two paths.
    pub kind: PathKind,
    /// Where the peer's socket is on that path; `None` when others carry it, or a stream.
    pub address: Option<SocketAddr>,
    /// The smoothed round-trip time of that path.
    pub rtt: Duration,
    /// Octets sent in UDP datagrams, everything included.
    pub bytes_sent: u64,
    /// Octets received in UDP datagrams, everything included.
    pub bytes_received: u64,
    /// How long the present connection has been open.
    pub open_for: Duration,
}

/// Why a bulk stream was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BulkError {
    /// No session could be opened.
    #[error("the node cannot be reached")]
    Unreachable,
    /// The session closed meanwhile.
    #[error("the session closed")]
    Closed,
    /// The peer did not allow another stream in time.
    #[error("the node allows no further stream; {BULK_STREAMS_PER_PEER_MAX} are open")]
    Busy,
}

/// All sessions of a node: a handle that is cheap to clone.
///
/// Dropping it closes nothing: call [`Sessions::close`], or drop the receiver of
/// events.
#[derive(Clone)]
pub struct Sessions(Arc<Shared>);

/// What the tasks of the session layer share.
///
/// The two locks are never held at once, nor across a wait.
struct Shared {
    keypair: Keypair,
    /// Which life of the endpoint it is, so that peers see a restart.
    incarnation: AtomicU64,
    protocol: Vec<u8>,
    /// The one in use; `None` while another one takes its place: see [`serve`].
    endpoint: watch::Sender<Option<iroh::Endpoint>>,
    /// What the sockets are bound to.
    listening: Vec<SocketAddr>,
    /// Cancelled when the sessions are closed for good.
    closing: CancellationToken,
    runtime: tokio::runtime::Handle,
    tasks: TaskTracker,
    table: Mutex<Table<Arc<Live>>>,
    book: Mutex<Book>,
    dials: Semaphore,
    strangers: Semaphore,
    announcer: Announcer,
    addresses: watch::Sender<Vec<SocketAddr>>,
    /// Those among them that this host has itself.
    local: watch::Sender<Vec<SocketAddr>>,
    /// Those at which it is reached besides.
    external: watch::Sender<External>,
    hidden: watch::Sender<Vec<IpAddr>>,
    on_datagram: OnDatagram,
    transport: Transport,
    /// What a server relays.
    relayed: Relayed,
    nat64: watch::Sender<Option<nat64::Known>>,
    /// Those that were found before it: sessions may go by them still.
    found_before: Mutex<VecDeque<nat64::Nat64>>,
    by_ipv4: ByIpv4,
    counters: Counting,
}

impl Shared {
    fn places(&self, at: SocketAddr) -> impl Iterator<Item = SocketAddr> + use<> {
        let nat64 = *self.nat64.borrow();
        let translated = nat64.and_then(|known| known.nat64().translated(at));
        [at].into_iter().chain(translated)
    }

    fn sends_to(&self, to: Ipv4Addr) -> bool {
        let is_hidden = |ip: &IpAddr| self.hidden.borrow().contains(ip);
        match nat64::source_to(to) {
            Err(error) if error.kind() == ErrorKind::NetworkUnreachable => false,
            Ok(source) if !is_hidden(&source) => true,
            // A channel's exit has the routes; this node's own sockets go by others.
            Ok(_) | Err(_) => {
                let leads = |ip: &IpAddr| matches!(ip, IpAddr::V4(v4) if !v4.is_link_local());
                let mut own = enishi_dataplane::addresses_of_host().into_iter();
                own.any(|ip| leads(&ip) && !is_hidden(&ip))
            }
        }
    }
}

impl Sessions {
    /// Starts to listen. Must be called within a tokio runtime, which runs the tasks.
    ///
    /// # Errors
    /// [`BindError`] when the node cannot listen where it should.
    pub async fn bind(
        config: SessionConfig,
    ) -> Result<(Self, mpsc::Receiver<SessionEvent>), BindError> {
        let protocol = endpoint::protocol_name(&config.overlay);
        let transport = Transport::new(config.carry);
        let (keypair, listen) = (&config.keypair, &config.listen);
        let endpoint = endpoint::bind(keypair, protocol.clone(), listen, &transport).await?;
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let local = addresses::worth_telling(local_addresses(&endpoint, &[]));
        let shared = Arc::new(Shared {
            keypair: config.keypair,
            incarnation: AtomicU64::new(random_number()),
            protocol,
            listening: endpoint::listening(&endpoint, listen),
            endpoint: watch::Sender::new(Some(endpoint)),
            closing: CancellationToken::new(),
            runtime: tokio::runtime::Handle::current(),
            tasks: TaskTracker::new(),
            table: Mutex::new(Table::new()),
            book: Mutex::new(Book::new()),
            dials: Semaphore::new(dial::DIALS_AT_ONCE_MAX),
            strangers: Semaphore::new(dial::STRANGERS_AT_ONCE_MAX),
            announcer: Announcer::new(sender),
            addresses: watch::Sender::new(local.clone()),
            local: watch::Sender::new(local),
            external: watch::Sender::default(),
            hidden: watch::Sender::new(Vec::new()),
            on_datagram: config.on_datagram,
            transport,
            relayed: Relayed::default(),
            nat64: watch::Sender::default(),
            found_before: Mutex::default(),
            by_ipv4: ByIpv4::default(),
            counters: Counting::default(),
        });
        let sessions = Self(shared);
        sessions.start_tasks();
        Ok((sessions, events))
    }

    /// Returns who this node is.
    pub fn me(&self) -> NodeId {
        self.0.me()
    }

    /// Returns the node's own addresses at which others may dial it, best first, at
    /// most eight. Loopback only when it listens on nothing else, or there is nothing
    /// else.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.addresses.borrow().clone()
    }

    /// Returns a receiver that follows [`Self::addresses`] as interfaces change.
    pub fn watch_addresses(&self) -> watch::Receiver<Vec<SocketAddr>> {
        self.0.addresses.subscribe()
    }

    /// Returns those addresses at which others may dial this node that its host has itself, best
    /// first, at most eight.
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        self.0.local.borrow().clone()
    }

    /// Returns a receiver that follows [`Self::local_addresses`].
    pub fn watch_local_addresses(&self) -> watch::Receiver<Vec<SocketAddr>> {
        self.0.local.subscribe()
    }

    /// Says at which addresses this node is reached besides those of its host: outer ones of
    /// routers, in place of those named before. They are told others and used in punching holes.
    pub fn set_external_addresses(&self, external: External) {
        self.0.external.send_if_modified(|known| {
            let before = std::mem::replace(known, external);
            *known != before
        });
    }

    /// Returns a receiver that follows what [`Self::set_external_addresses`] said last.
    pub fn watch_external_addresses(&self) -> watch::Receiver<External> {
        self.0.external.subscribe()
    }

    /// Says by which NAT64 this host reaches those with IPv4, in place of the one named before; none
    /// for no NAT64. Who is being dialled and has IPv4 is dialled by it at once.
    pub fn set_nat64(&self, nat64: Option<nat64::Known>) {
        let is_another = self.0.nat64.send_if_modified(|known| {
            let before = std::mem::replace(known, nat64);
            if let Some(nat64::Known::Found(found)) = before.filter(|before| Some(*before) != nat64)
            {
                let mut earlier = lock(&self.0.found_before);
                earlier.retain(|it| *it != found);
                earlier.push_back(found);
                if earlier.len() > FOUND_BEFORE_MAX {
                    earlier.pop_front();
                }
            }
            *known != before
        });
        if let Some(nat64) = nat64.filter(|_| is_another).map(nat64::Known::nat64) {
            let is_translated = |at: &SocketAddr| nat64.translated(*at).is_some();
            let reached = lock(&self.0.book).is_reached_now(is_translated);
            let table = lock(&self.0.table);
            reached.into_iter().for_each(|peer| table.wake_dial(peer));
        }
    }

    /// Returns a receiver that follows which NAT64 there is.
    pub fn watch_nat64(&self) -> watch::Receiver<Option<nat64::Known>> {
        self.0.nat64.subscribe()
    }

    /// Returns the address of IPv4 that is reached at one of the NAT64, or of one that was found before, and
    /// whether nobody vouches for that; any other address as it is.
    pub fn native(&self, at: SocketAddr) -> (SocketAddr, bool) {
        let known = *self.0.nat64.borrow();
        let native =
            known.and_then(|known| Some((known.nat64().embedded(at)?, known.is_hearsay())));
        let by_earlier = || {
            let earlier = lock(&self.0.found_before);
            let native = earlier.iter().find_map(|nat64| nat64.embedded(at));
            native.map(|native| (native, true))
        };
        native.or_else(by_earlier).unwrap_or((at, false))
    }

    /// Tells whether a route of this host leads to an address of IPv4. Where that is a virtual network of
    /// this node, or refuses all, as channels' exits do: whether it has IPv4 otherwise.
    pub(crate) fn sends_to(&self, to: Ipv4Addr) -> bool {
        self.0.sends_to(to)
    }

    /// Returns an address and, if a NAT64 is known that translates it, the one that it makes of it.
    pub fn places(&self, at: SocketAddr) -> impl Iterator<Item = SocketAddr> + use<> {
        self.0.places(at)
    }

    /// Leaves these out of [`Self::addresses`], in place of those named before: the
    /// addresses of the virtual networks, which must not carry their own sessions.
    ///
    /// Peers may still learn of them from the QUIC library and try them, so packets
    /// that a virtual device sees from a port of [`Self::listening`] are to be
    /// dropped.
    pub fn hide_addresses(&self, virtual_addresses: Vec<IpAddr>) {
        self.0.hidden.send_replace(virtual_addresses);
    }

    /// Returns the table of addresses that stand for peers which a server relays.
    pub fn relayed(&self) -> Relayed {
        self.0.relayed.clone()
    }

    /// Returns the addresses and ports that the sockets are bound to.
    pub fn listening(&self) -> Vec<SocketAddr> {
        self.0.listening.clone()
    }

    /// Sends a control frame, dialling if there is no session. Never waits.
    ///
    /// Nothing is promised: a frame may be lost with its connection, and is dropped
    /// and counted when it is larger than [`CONTROL_FRAME_BYTES_MAX`], when the
    /// peer's queue is full, all queues together are, or too many dials are pending. A failed dial is told by
    /// [`SessionEvent::Unreachable`].
    pub fn send_control(&self, to: &Contact, frame: Bytes) {
        if frame.len() > CONTROL_FRAME_BYTES_MAX {
            return self.0.counters.frames_oversized();
        }
        let Some(entry) = self.enter(to) else {
            return;
        };
        if entry.queue.push(frame).is_err() {
            self.0.counters.frames_dropped();
        }
        self.start_dial(to.id(), entry);
    }

    /// Opens a session if there is none, without sending anything.
    pub fn dial(&self, to: &Contact) {
        if let Some(entry) = self.enter(to) {
            self.start_dial(to.id(), entry);
        }
    }

    /// Notes where a node may be dialled, for dialling by id alone. The book holds
    /// [`BOOK_MAX`] nodes, and of each the newest eight addresses and the last one at
    /// which a session was open.
    pub fn remember(&self, contact: &Contact) {
        let fresh = lock(&self.0.book).remember(contact.id(), contact.addresses());
        if fresh {
            lock(&self.0.table).wake_dial(contact.id());
        }
    }

    /// Returns where a node may be dialled, as far as the book knows.
    pub fn addresses_of(&self, peer: NodeId) -> Vec<SocketAddr> {
        lock(&self.0.book).addresses(peer)
    }

    /// Tells whether there is a session that goes by datagrams to an address of this reach, so that
    /// those pass.
    pub fn has_datagrams(&self, reach: Reach) -> bool {
        let connected = lock(&self.0.table).connected();
        let addresses = connected.iter().filter_map(|(_, live)| live.address());
        addresses.into_iter().any(|at| Reach::of(at.ip()) == reach)
    }

    /// Returns the datagram lane of a session, `None` when there is no session.
    pub fn datagrams(&self, peer: NodeId) -> Option<DatagramLane> {
        lock(&self.0.table).follow(peer).map(DatagramLane::new)
    }

    /// Opens a bulk stream, and a session for it if there is none.
    ///
    /// # Errors
    /// [`BulkError`], after ten seconds at most.
    pub async fn open_bulk(&self, to: &Contact) -> Result<(BulkReader, BulkWriter), BulkError> {
        let entry = self.enter(to).ok_or(BulkError::Unreachable)?;
        let mut current = entry.current.clone();
        self.start_dial(to.id(), entry);
        let open = async {
            let live = match current.wait_for(Option::is_some).await {
                Ok(current) => current.as_ref().map(|(_, live)| Arc::clone(live)),
                Err(_) => None,
            };
            let live = live.ok_or(BulkError::Unreachable)?;
            live.open_bulk().await.map_err(|_| BulkError::Closed)
        };
        let opened = tokio::time::timeout(BULK_OPEN_MAX, open).await;
        opened.unwrap_or(Err(BulkError::Busy))
    }

    /// Takes in a packet of at most [`CARRIED_BYTES_MAX`] octets that others carried here, of the
    /// session with a peer. Whether it is of that peer QUIC finds out. Never waits: without room
    /// the packet is lost.
    pub fn deliver(&self, from: NodeId, packet: Bytes) {
        self.0.transport.deliver(from, packet);
    }

    /// Opens a session if there is none and returns its datagram lane; none if that fails.
    pub async fn connect(&self, to: &Contact) -> Option<DatagramLane> {
        let entry = self.enter(to)?;
        let mut current = entry.current.clone();
        self.start_dial(to.id(), entry);
        current.wait_for(Option::is_some).await.ok()?;
        self.datagrams(to.id())
    }

    /// Lists the open sessions, in no particular order.
    pub fn sessions(&self) -> Vec<SessionInfo> {
        let connected = lock(&self.0.table).connected();
        let info = |(peer, live): &(NodeId, Arc<Live>)| live.info(*peer, &self.0.transport);
        connected.iter().map(info).collect()
    }

    /// Returns what is known of the session with a peer, `None` when there is none.
    pub fn session(&self, peer: NodeId) -> Option<SessionInfo> {
        let live = lock(&self.0.table).current(peer)?;
        Some(live.info(peer, &self.0.transport))
    }

    /// Closes the session with a peer at once and drops the frames that wait for it.
    ///
    /// [`SessionEvent::Closed`] follows, unless the next session opens before the host
    /// has read so far; frames that had arrived may come before and even after it. A
    /// dial under way goes on.
    pub fn drop_session(&self, peer: NodeId) {
        let lines = lock(&self.0.table).cut(peer);
        for live in lines {
            live.close(CloseCode::Dropped);
        }
    }

    /// A peer has not answered somebody: asks it by its session, and closes that unless it answers within
    /// some round trips, six seconds at most where this node does not run late itself. Until then it is
    /// spoken to by that session, and what it has not taken is lost with it.
    pub fn doubt(&self, peer: NodeId) {
        doubt::doubt(&self.0, peer);
    }

    /// Sends what waits in queues, closes all sessions and stops to listen. Returns
    /// after two seconds at most. The events of the closing may be read afterwards.
    pub async fn close(&self) {
        for queue in lock(&self.0.table).queues() {
            queue.finish();
        }
        self.0.tasks.close();
        // In both cases the end comes, only less gracefully for whoever is too slow.
        let _ = tokio::time::timeout(CLOSE_MAX, self.0.tasks.wait()).await;
        self.0.closing.cancel();
        let endpoint = self.0.endpoint.borrow().clone();
        if let Some(endpoint) = endpoint {
            let _ = tokio::time::timeout(CLOSE_MAX, endpoint.close()).await;
        }
    }

    /// Returns what was refused, dropped or lost since the start.
    pub fn counters(&self) -> Counters {
        self.0.counters.snapshot()
    }

    fn start_tasks(&self) {
        let runtime = &self.0.runtime;
        runtime.spawn(serve::serve(Arc::clone(&self.0)));
        runtime.spawn(idle::sweep(Arc::clone(&self.0)));
        let sessions = self.clone();
        runtime.spawn(async move {
            tokio::select! {
                () = sessions.0.announcer.deserted() => sessions.close().await,
                () = sessions.0.closing.cancelled() => {}
            }
        });
    }

    /// Notes the contact's addresses and finds or makes its entry in the table.
    fn enter(&self, to: &Contact) -> Option<Entry<Arc<Live>>> {
        self.remember(to);
        let stranger = !lock(&self.0.book).has_met(to.id());
        let entry = lock(&self.0.table).enter(to.id(), stranger);
        if entry.is_none() {
            self.0.counters.dials_refused();
        }
        entry
    }

    fn start_dial(&self, peer: NodeId, entry: Entry<Arc<Live>>) {
        if let Some(wake) = entry.start_dial {
            dial::start(&self.0, peer, wake);
        }
    }
}

impl Shared {
    fn me(&self) -> NodeId {
        self.keypair.id()
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sessions({:?})", self.0.me())
    }
}

/// What the endpoint itself knows of this host.
fn local_addresses(endpoint: &iroh::Endpoint, hidden: &[IpAddr]) -> BTreeSet<SocketAddr> {
    let mut own: BTreeSet<SocketAddr> = endpoint.addr().ip_addrs().copied().collect();
    own.extend(addresses::of_the_site(&endpoint.bound_sockets()));
    own.retain(|address| !hidden.contains(&address.ip()));
    own
}

/// Draws a number that no other life of this process is likely to have had.
fn random_number() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    // The standard library seeds its hashers from the system's generator; nobody
    // needs to be unable to guess this number.
    let mut hasher = RandomState::new().build_hasher();
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH);
    hasher.write_u128(since.unwrap_or_default().as_nanos());
    hasher.finish()
}

/// Locks a mutex. A panic in another task does not make what it guards useless:
/// every change to the tables is complete when the lock is released.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
