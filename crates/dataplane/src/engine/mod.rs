//! The engine: one thread that carries the packets of all networks of this host.
//!
//! ```text
//!   devices ─> outbound: whose address? cut, seal ─> batch ─> socket ┐
//!      ^                  │ nobody's yet: keep it, tell the host     ├─> peers
//!      │                  └ no way straight to it ─> lane ───────────┘
//!   devices <─ inbound: open, may the peer send this? put together <─ socket, lane
//! ```
//!
//! A network may have a second device, for addresses that this host holds for others: what comes
//! from it is sent as what comes from the first, and what is to one of these addresses goes
//! there instead, also from the first device.
//!
//! The host fills its tables with [`Command`]s, hears of what it cannot decide by [`Note`]s,
//! and lends it the sessions' lanes ([`Outside`]). Each round works a batch off to its end:
//! one thread that does so is faster than two that hand packets over (measured: a plain
//! forwarder with one loop against one with two).

mod backlog;
mod batch;
mod driver;
mod inbound;
mod network;
mod outbound;
mod paths;
mod punch;
mod relayed;
mod relaying;
mod session;
mod sockets;
mod straight;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::bell::Bell;
use crate::device::Device;
use crate::filter::Filter;
use crate::relay::{RelayKey, Token};
use crate::sealed::{Cipher, DirectionKey, OVERHEAD_BYTES};
use crate::socket::Socket;
use crate::table::{Gateway, Network as Prefix};
use bytes::Bytes;

pub use paths::{CANDIDATES_MAX, DATAGRAM_BYTES, KEEP_ALIVE, KEEP_ALIVE_MIN};
pub use punch::{DRAWN_MAX, EXPECTED_MAX, PER_S_MAX, Punch, SOCKETS_MAX};

/// A peer's public key.
pub type PeerKey = [u8; 32];

/// The number of a network on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkId(pub u32);

/// Keys that were agreed with a peer.
#[derive(Clone, Debug)]
pub struct SessionKeys {
    /// Which AEAD they are for.
    pub cipher: Cipher,
    /// For what goes to the peer.
    pub send: DirectionKey,
    /// For what comes from it.
    pub receive: DirectionKey,
    /// What the peer calls the session; see [`crate::sealed::INDEX_MARK`].
    pub send_index: u32,
    /// What this host calls it.
    pub receive_index: u32,
    /// Whether the peer is known to have them: true for whoever asked and was answered. They
    /// are used once it has them.
    pub peer_has_them: bool,
    /// After how long others are wanted, if they are used.
    pub renew_after: Duration,
}

/// What the host tells the engine.
pub enum Command {
    /// Carry the packets of a network.
    Open {
        /// Its number.
        network: NetworkId,
        /// Its device; without one nothing is read or written.
        device: Option<Device>,
        /// Which addresses are in it.
        prefixes: Vec<Prefix>,
        /// This host's addresses in it.
        addresses: Vec<IpAddr>,
    },
    /// Carry them no longer, and remove the device.
    Close(NetworkId),
    /// Exchange packets with a member, or with changed addresses or new keys.
    Attach {
        /// In which network.
        network: NetworkId,
        /// With whom.
        peer: PeerKey,
        /// Its addresses: what is routed to it, and what may come from it.
        addresses: Vec<IpAddr>,
        /// What may pass; none for everything.
        filter: Option<Filter>,
        /// How to seal.
        keys: SessionKeys,
        /// Where it may be reached.
        candidates: Vec<SocketAddr>,
    },
    /// A member has other addresses.
    Addresses {
        /// In which network.
        network: NetworkId,
        /// Who.
        peer: PeerKey,
        /// All its addresses.
        addresses: Vec<IpAddr>,
    },
    /// Take part for others as well, in place of those before.
    Host {
        /// In which network.
        network: NetworkId,
        /// Where their packets come from and go to; none for nobody.
        device: Option<Device>,
        /// Their addresses.
        addresses: Vec<IpAddr>,
    },
    /// What may pass between this host and a member is another.
    Filter {
        /// In which network.
        network: NetworkId,
        /// Between this host and whom.
        peer: PeerKey,
        /// What may pass; none for everything.
        filter: Option<Filter>,
    },
    /// Which networks are reached by way of members, and which are behind this host, in place
    /// of those before.
    Beyond {
        /// In which network.
        network: NetworkId,
        /// By way of members.
        gateways: Vec<Gateway>,
        /// Behind this host.
        behind: Vec<Prefix>,
    },
    /// Where a peer may be reached, too.
    Candidates {
        /// Which peer; in all networks.
        peer: PeerKey,
        /// Where.
        candidates: Vec<SocketAddr>,
    },
    /// Exchange packets with a member no longer.
    Detach {
        /// In which network.
        network: NetworkId,
        /// With whom.
        peer: PeerKey,
    },
    /// What was agreed with a member has lapsed: another agreement is asked for, and what the member
    /// has sent is taken for ten seconds more, as it may not know yet.
    Lapse {
        /// In which network.
        network: NetworkId,
        /// With whom.
        peer: PeerKey,
        /// Whether packets go on by the old agreement for as long, where there is a way to the member by
        /// which it answers; else they wait.
        may_hear: bool,
    },
    /// Nobody has the address: tell those whose packets wait.
    Unresolved {
        /// In which network.
        network: NetworkId,
        /// Which address.
        address: IpAddr,
    },
    /// A member sent a packet to many, of whom this host is one.
    Deliver {
        /// In which network.
        network: NetworkId,
        /// The packet.
        packet: Bytes,
    },
    /// The ports of this node's other sockets: their packets are never carried, or a session
    /// might be found to run through itself.
    OwnPorts(Vec<u16>),
    /// How often silent paths are used, so that routers keep them open: [`KEEP_ALIVE`] unless said
    /// otherwise, and nothing outside [`KEEP_ALIVE_MIN`] to that.
    KeepAlive(Duration),
    /// This host has other addresses than before: peers are asked at once, and hear from where.
    Moved,
    /// Send datagrams of another protocol, which begin with an octet below 64, so that no peer
    /// takes them for sealed ones (RFC 7983, section 7). What comes back goes to
    /// [`Outside::foreign`].
    Send(Vec<(SocketAddr, Bytes)>),
    /// The same from a socket that is opened for it, and is the first one that a punch uses which
    /// follows within ten seconds. Those of the punch before are closed, if packets do not go by
    /// them; while one is under way, nothing is sent.
    SendAnew(Vec<(SocketAddr, Bytes)>),
    /// Find a way straight to a peer through translations, in all networks that are shared with it.
    /// The outcome is a [`Note::Punched`]. One at a time: another one that is under way is given up.
    Punch {
        /// Who.
        peer: PeerKey,
        /// How.
        punch: Punch,
    },
    /// Send a message to the host of a peer, straight or not at all; it may be lost. There it comes to
    /// [`Outside::said`].
    Say {
        /// To whom.
        peer: PeerKey,
        /// At most [`MESSAGE_BYTES_MAX`] octets.
        message: Bytes,
    },
    /// How much this node relays for others ([`crate::relay`]); nothing before it is told.
    RelayTerms(RelayTerms),
    /// Relay between two others, or longer than so far.
    Relay {
        /// What names the two.
        token: Token,
        /// The key of each.
        keys: [RelayKey; 2],
        /// For how long from now on.
        lasts: Duration,
    },
    /// A node relays between this one and a peer.
    ByRelay(ByRelay),
    /// Tell what is known of the sessions.
    Report(mpsc::SyncSender<Report>),
}

/// A node that relays to a peer.
#[derive(Clone, Debug)]
pub struct ByRelay {
    /// The peer.
    pub peer: PeerKey,
    /// Who relays.
    pub by: PeerKey,
    /// Where it takes packets.
    pub at: SocketAddr,
    /// What names the two ends there.
    pub token: Token,
    /// This node's key.
    pub key: RelayKey,
    /// For how long from now on.
    pub lasts: Duration,
}

/// How much is relayed for others; nothing by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayTerms {
    /// For how many pairs at a time.
    pub pairs_max: usize,
    /// Octets a second for each, headers of UDP not counted.
    pub bytes_per_s_each: u64,
    /// Octets a second for all.
    pub bytes_per_s_all: u64,
}

/// What was relayed for others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    /// For how many pairs now.
    pub pairs: usize,
    /// Datagrams.
    pub packets: u64,
    /// Their octets.
    pub bytes: u64,
    /// Datagrams that were more than the terms allow.
    pub dropped_packets: u64,
}

/// What the engine tells the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A packet waits for the holder of an address.
    Missing {
        /// In which network.
        network: NetworkId,
        /// Which address.
        address: IpAddr,
    },
    /// A packet is for all members of a network: broadcast, or multicast.
    Many {
        /// Of which network.
        network: NetworkId,
        /// The packet.
        packet: Bytes,
    },
    /// Keys are old, used up or gone: agree on others.
    KeysWanted {
        /// In which network.
        network: NetworkId,
        /// With whom.
        peer: PeerKey,
    },
    /// A datagram came by a lane with an index that is not in use: the peer thinks that
    /// packets may be exchanged.
    UnknownIndex {
        /// From whom.
        peer: PeerKey,
        /// The index.
        index: u32,
    },
    /// A peer sees the datagrams of this host come from an address, as it says; told when that
    /// is another one than it said before.
    Seen {
        /// The peer.
        peer: PeerKey,
        /// The address.
        at: SocketAddr,
    },
    /// A peer leaves questions unanswered by the way that its packets take, which may be given up soon.
    Doubtful(PeerKey),
    /// A peer is spoken to, and no way straight to it is found: told every few seconds, also while a
    /// node relays.
    Wayless {
        /// The peer.
        peer: PeerKey,
        /// Whether a node relays.
        is_relayed: bool,
    },
    /// Nobody uses what this host relays under a token: it is forgotten.
    RelayUnused(Token),
    /// A punch has ended.
    Punched {
        /// With whom.
        peer: PeerKey,
        /// Whether a way straight to it was found.
        is_through: bool,
    },
    /// Another program removed the device.
    DeviceLost {
        /// Of which network.
        network: NetworkId,
        /// Its name.
        name: String,
    },
}

/// What passed in a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Octets of packets that were sent.
    pub sent_bytes: u64,
    /// Octets of packets that were received.
    pub received_bytes: u64,
    /// Packets that were sent.
    pub sent_packets: u64,
    /// Packets that were received.
    pub received_packets: u64,
    /// Datagrams that were refused: broken, repeated, or with a packet that the peer may not
    /// send.
    pub refused: u64,
}

/// What is known of everything.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The sessions that are open.
    pub sessions: Vec<SessionReport>,
    /// Datagrams that were refused, in these sessions and others.
    pub refused: u64,
    /// Datagrams that the system did not take.
    pub lost: u64,
    /// Frames of TAP devices that were neither IP nor questions for addresses.
    pub foreign_frames: u64,
    /// What was relayed for others.
    pub relayed: Relayed,
    /// Packets to many (broadcast, multicast) of this host that were dropped: more than 200 at
    /// once and 60 a second in one network. Of the networks that are open.
    pub storm_packets: u64,
}

/// What is known of a session.
#[derive(Clone, Debug)]
pub struct SessionReport {
    /// In which network.
    pub network: NetworkId,
    /// With whom.
    pub peer: PeerKey,
    /// Where datagrams to it go straight; none for a relay or the lane.
    pub direct: Option<SocketAddr>,
    /// Who relays them; none when they go straight or by the lane.
    pub relay: Option<PeerKey>,
    /// The round trip of the way that is taken.
    pub round_trip: Option<Duration>,
    /// What passed.
    pub counters: Counters,
}

/// What the engine needs of its host. Called in the engine's thread: nothing may wait.
pub trait Outside: Send + 'static {
    /// Hears of something; what is dropped comes again when it matters.
    fn note(&mut self, note: Note);

    /// Returns the longest datagram that the lane of a peer's session takes; none without a
    /// session.
    fn lane_bytes_max(&mut self, peer: &PeerKey) -> Option<usize>;

    /// Sends datagrams by the lane of a peer's session, in order; they may be lost.
    fn send_by_lane(&mut self, peer: &PeerKey, datagrams: &[Bytes]);

    /// Hears where the longest datagrams go straight to a peer, in any network, or that they do not any
    /// more: within a second or so after that is so, and whenever it changes.
    fn straight(&mut self, peer: &PeerKey, at: Option<SocketAddr>) {
        let _ = (peer, at);
    }

    /// Takes what the host of a peer has told its engine to [`Command::Say`]: any octets, as often
    /// as the peer likes.
    fn said(&mut self, peer: &PeerKey, message: &[u8]) {
        let _ = (peer, message);
    }

    /// Takes a datagram that is not the engine's: its first octet is below 4, as STUN's are (RFC
    /// 7983, section 7), and it has at most [`FOREIGN_BYTES_MAX`]. Returns what to send by
    /// the same socket, and where to, if anything.
    fn foreign(&mut self, from: SocketAddr, datagram: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
        let _ = (from, datagram);
        None
    }
}

/// The longest message of a host, in octets: what fits with its seal in the longest datagram.
pub const MESSAGE_BYTES_MAX: usize = DATAGRAM_BYTES[0] - OVERHEAD_BYTES;

/// The longest datagram of another protocol that is looked at, in octets.
pub const FOREIGN_BYTES_MAX: usize = 1280;

/// The running engine. It ends when this is dropped; its devices are removed then.
pub struct Engine {
    inbox: Inbox,
    port: u16,
    thread: Option<JoinHandle<()>>,
}

/// Where to tell the engine something; cheap to clone.
#[derive(Clone)]
pub struct Inbox {
    commands: mpsc::SyncSender<Command>,
    lanes: mpsc::SyncSender<(PeerKey, Bytes)>,
    wake: Arc<Wake>,
}

/// Wakes the engine's thread, or ends it.
struct Wake {
    bell: Bell,
    stop: AtomicBool,
}

/// The most commands that wait for the engine; whoever tells it more waits.
const COMMANDS_MAX: usize = 4096;
/// The most datagrams that have come by lanes and wait; more are lost.
const LANE_DATAGRAMS_MAX: usize = 2048;

impl Engine {
    /// Starts the engine with a socket on a port, or on any for 0.
    ///
    /// # Errors
    /// When the port is in use, or the system refuses.
    pub fn start(port: u16, outside: impl Outside) -> io::Result<Self> {
        let socket = Socket::bind(port)?;
        let port = socket.port();
        let wake = Arc::new(Wake {
            bell: Bell::new()?,
            stop: AtomicBool::new(false),
        });
        let (commands, told) = mpsc::sync_channel(COMMANDS_MAX);
        let (lanes, arrived) = mpsc::sync_channel(LANE_DATAGRAMS_MAX);
        let waiting = driver::Waiting { told, arrived };
        let driver = driver::Driver::new(socket, waiting, Arc::clone(&wake), outside)?;
        let thread = thread::Builder::new()
            .name("packets".to_owned())
            .spawn(move || driver.run())?;
        let inbox = Inbox {
            commands,
            lanes,
            wake,
        };
        Ok(Self {
            inbox,
            port,
            thread: Some(thread),
        })
    }

    /// Returns the port of the socket.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns where to tell the engine something.
    pub fn inbox(&self) -> &Inbox {
        &self.inbox
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.inbox.wake.stop.store(true, Ordering::Release);
        self.inbox.wake.bell.ring();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has told so.
            let _ = thread.join();
        }
    }
}

impl Inbox {
    /// Tells the engine something. Waits while it has 4,096 commands to work off; does
    /// nothing once it has ended.
    pub fn tell(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            self.wake.bell.ring();
        }
    }

    /// Tells the engine to [`Command::Say`] a message, which is lost while 4,096 commands wait. Never
    /// waits.
    pub fn say(&self, peer: PeerKey, message: Bytes) {
        if self
            .commands
            .try_send(Command::Say { peer, message })
            .is_ok()
        {
            self.wake.bell.ring();
        }
    }

    /// Hands over a datagram that came by the lane of a peer's session. What the engine was
    /// told before is done before; while 2,048 others wait, it is lost.
    pub fn arrived(&self, peer: PeerKey, datagram: Bytes) {
        if self.lanes.try_send((peer, datagram)).is_ok() {
            self.wake.bell.ring();
        }
    }
}
