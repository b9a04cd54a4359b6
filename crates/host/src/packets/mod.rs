//! IP packets of the virtual networks: the engine of `crates/dataplane` carries them between
//! the devices of this host and the peers. They do not pass through the node, which only
//! agrees on keys and addresses; what it decides comes here as events, and what the engine
//! cannot decide goes back as notes.
//!
//! | module | is about |
//! |---|---|
//! | `forwarding` | passing packets on, while a network is shared |
//! | `shared` | files that all nodes of one host share |
//! | `discovery` | which channel programs find without choosing a device |
//! | `hold` | the host's one exit: what refuses all that is to go by it |
//! | `lanes` | the sessions' datagram lanes, and the engine's notes |
//! | `look` | how this node's packets come out, and where others get theirs |
//! | `open` | devices and networks in user space, by channel |
//! | `outside` | where others see this node's packets come from |
//! | `straight` | ways straight to members, and what hosts say to each other there |
//! | `stun` | how they are asked for it, and answered |
//! | `terms` | permits, networks and keys, as the engine takes them |
//! | `routing` | routes, as the engine and the system are told of them |
//! | `system` | what the system routes and translates |
//! | `relay` | nodes that relay, and relaying for others |
//! | `reach` | sockets in a channel, whether there is a device or not |

mod discovery;
mod forwarding;
mod hold;
mod lanes;
mod look;
mod open;
mod outside;
mod reach;
mod relay;
mod routing;
mod shared;
mod straight;
mod stun;
mod system;
mod terms;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use enishi_dataplane::device::{Device, Layer};
use enishi_dataplane::engine::{CANDIDATES_MAX, Command, Engine, NetworkId, Punch, Report};
use enishi_dataplane::filter::Filter;
use enishi_dataplane::sealed::Cipher;
use enishi_dataplane::table;
use enishi_overlay::NodeId;
use enishi_services::reach::punch::{Offer, Plan};
use enishi_services::vnet::routes::Prefix;
use enishi_services::vnet::{self, Agreement, ChannelId, Event, Vnet};
use enishi_stun::Ticket;
use tokio::sync::{mpsc, watch};

use crate::dns::Place;
use crate::session::Sessions;
use lanes::Lanes;
use open::{Network, Open, make_device, make_stack};
use outside::Outside;
use straight::Straight;
use stun::Questions;
use system::SystemRoutes;
use terms::{filter, keys};

pub use discovery::Discovery;
pub use reach::{Connection, Datagrams, Listener, Reach};
pub use straight::Word;

/// What the packet path tells the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A packet waits for the holder of an address.
    Missing {
        /// In which channel.
        channel: ChannelId,
        /// Which address.
        address: IpAddr,
    },
    /// A packet of this host is for all members.
    Many {
        /// In which channel.
        channel: ChannelId,
        /// The packet.
        packet: Bytes,
    },
    /// Keys are old, used up or gone.
    KeysWanted {
        /// In which channel.
        channel: ChannelId,
        /// With whom.
        peer: NodeId,
    },
    /// A peer marked a datagram with an index that is not in use, or not by it: it thinks that
    /// packets may be exchanged.
    UnknownIndex {
        /// Who.
        from: NodeId,
        /// The index.
        index: u32,
    },
    /// A member, or a node that was asked, sees the packets of this host come from an address.
    Seen {
        /// Who says so.
        by: NodeId,
        /// The address.
        at: SocketAddr,
        /// What shows that node that the answer came there; none if it gave none.
        ticket: Option<Ticket>,
    },
    /// A node has shown that it gets packets at an address.
    Shown(NodeId, IpAddr),
    /// Somebody asks something at the port of packets: at most 64 a second.
    Question {
        /// From where.
        from: SocketAddr,
        /// The question.
        datagram: Bytes,
    },
    /// A member is spoken to, and its packets find no way straight; whether a node relays them.
    Wayless(NodeId, bool),
    /// Nobody uses what this host relays under a token, which it has forgotten.
    RelayUnused(u64),
    /// How packets come out, as [`Networks::look`] has found.
    Looked(NodeId, Option<Offer>),
    /// What [`Networks::punch`] began has ended, with a way straight to the peer or without one.
    Punched(NodeId, bool),
}

/// The virtual networks of this host.
pub struct Networks {
    layer: Option<Layer>,
    discovery: Discovery,
    notes: mpsc::Sender<Note>,
    started: OnceLock<Started>,
    wireguard_port: OnceLock<u16>,
    /// Where the site's router takes packets for this node.
    mapped: Mutex<Option<SocketAddr>>,
    outside: Mutex<Outside>,
    questions: Questions,
    straight: Straight,
    /// Until somebody takes it.
    words: Mutex<Option<mpsc::Receiver<Word>>>,
    /// Whether what the last look has found comes out by a NAT64.
    by_nat64: AtomicBool,
    open: Arc<Open>,
    /// Where members were said to be when they were attached, without what a NAT64 makes of it.
    said: Mutex<BTreeMap<(ChannelId, NodeId), Vec<SocketAddr>>>,
    /// What the system refuses for channels without a device that are to have an exit.
    held: Mutex<BTreeMap<ChannelId, SystemRoutes>>,
    /// Counts what happened to the networks.
    changes: watch::Sender<u64>,
}

/// What there is once there are sessions.
struct Started {
    engine: Mutex<Option<Engine>>,
    inbox: enishi_dataplane::engine::Inbox,
    port: u16,
    sessions: Sessions,
}

impl Networks {
    /// Makes the table of networks, empty. Channels get devices of the kernel, of a layer, or
    /// user-space networks. Notes that find no room are dropped: the next packet brings another. The
    /// key, drawn at random, is that of the tickets by which others show where they get packets.
    pub fn new(
        notes: mpsc::Sender<Note>,
        layer: Option<Layer>,
        discovery: Discovery,
        key: [u8; 32],
    ) -> Self {
        let (straight, words) = Straight::new();
        Self {
            layer,
            discovery,
            notes,
            started: OnceLock::new(),
            wireguard_port: OnceLock::new(),
            mapped: Mutex::default(),
            outside: Mutex::default(),
            questions: Questions::new(key),
            straight,
            words: Mutex::new(Some(words)),
            by_nat64: AtomicBool::new(false),
            open: Arc::default(),
            said: Mutex::default(),
            held: Mutex::default(),
            changes: watch::Sender::new(0),
        }
    }

    /// Starts the engine, at the port after that of the sessions, or at any other that is free;
    /// before that packets go nowhere.
    ///
    /// # Errors
    /// When the system gives no socket or thread.
    pub fn start(&self, sessions: Sessions) -> std::io::Result<()> {
        let own_ports: Vec<u16> = sessions.listening().iter().map(SocketAddr::port).collect();
        let next = own_ports.first().and_then(|port| port.checked_add(1));
        let (open, questions, straight) = (&self.open, &self.questions, &self.straight);
        let lanes = || {
            let (sessions, notes) = (sessions.clone(), self.notes.clone());
            let told = (questions.clone(), straight.clone());
            Lanes::new(sessions, notes, Arc::clone(open), told)
        };
        let engine = match next.map(|port| Engine::start(port, lanes())) {
            Some(Ok(engine)) => engine,
            Some(Err(_)) | None => Engine::start(0, lanes())?,
        };
        engine.inbox().tell(Command::OwnPorts(own_ports));
        let started = Started {
            inbox: engine.inbox().clone(),
            port: engine.port(),
            engine: Mutex::new(Some(engine)),
            sessions,
        };
        // Told once, at the start.
        let _ = self.started.set(started);
        Ok(())
    }

    /// Returns what members are to know to send packets here, when sessions are to be dialled
    /// at these addresses.
    pub fn ways(&self, addresses: &[SocketAddr]) -> vnet::Command {
        let mut candidates: Vec<SocketAddr> = lock(&self.mapped).iter().copied().collect();
        candidates.extend(lock(&self.outside).addresses());
        for address in addresses {
            let Some(started) = self.started.get() else {
                break;
            };
            let candidate = SocketAddr::new(address.ip(), started.port);
            if !candidates.contains(&candidate) && candidates.len() < vnet::wire::CANDIDATES_MAX {
                candidates.push(candidate);
            }
        }
        let aes = Cipher::preferred() == Cipher::Aes256Gcm;
        vnet::Command::Ways { candidates, aes }
    }

    /// Says at which outer address the site's router takes packets for this node, if it does.
    pub fn set_mapped(&self, mapped: Option<SocketAddr>) {
        *lock(&self.mapped) = mapped;
    }

    /// Asks nodes by STUN where they see the packets of this host come from; each answer is a
    /// [`Note::Seen`].
    pub fn ask_outside(&self, servers: &[(NodeId, SocketAddr)]) {
        let Some(started) = self.started.get() else {
            return;
        };
        let servers = self.asked_at(started, servers);
        let questions = self.questions.ask(Instant::now(), &servers);
        self.tell(Command::Send(questions));
    }

    /// Opens a way straight to a peer: a [`Note::Punched`] follows within ten seconds.
    pub fn punch(&self, peer: NodeId, plan: Plan) {
        let punch = match plan {
            Plan::Search {
                ip,
                expected,
                drawn,
            } => Punch::Search {
                ip: self.way_to(SocketAddr::new(ip, 0)).ip(),
                expected,
                drawn,
            },
            Plan::Open { to, sockets } => Punch::Open {
                to: self.way_to(to),
                sockets,
            },
            Plan::Meet { ip, ports } => Punch::Meet {
                ip: self.way_to(SocketAddr::new(ip, 0)).ip(),
                ports,
            },
        };
        let to = match &punch {
            Punch::Search { ip, .. } | Punch::Meet { ip, .. } => *ip,
            Punch::Open { to, .. } => to.ip(),
        };
        // What leads into a virtual network would be a tunnel within itself.
        if !self.open.holds(to) {
            let peer = *peer.as_bytes();
            self.tell(Command::Punch { peer, punch });
        }
    }

    /// Says how often silent ways are used, so that routers keep them open.
    pub fn set_keep_alive(&self, every: Duration) {
        self.tell(Command::KeepAlive(every));
    }

    /// A node says where it sees packets of this host come from. Tells whether
    /// [`Self::ways`] is another now.
    pub fn seen(&self, by: NodeId, at: SocketAddr) -> bool {
        lock(&self.outside).seen(Instant::now(), by, at)
    }

    /// Returns where others see packets of this host come from, if they agree.
    pub fn outside(&self) -> Vec<SocketAddr> {
        lock(&self.outside).addresses().to_vec()
    }

    /// Has peers asked at once, from the addresses that this host has now.
    pub fn moved(&self) {
        lock(&self.outside).clear();
        self.tell(Command::Moved);
    }

    /// Sends a datagram from the port at which packets are taken; it may be lost.
    pub(crate) fn send(&self, to: SocketAddr, datagram: Bytes) {
        self.tell(Command::Send(vec![(to, datagram)]));
    }

    /// Returns the outer address at which the site's router takes packets, if it does.
    #[cfg_attr(
        not(feature = "mainline"),
        expect(dead_code, reason = "only the Mainline DHT wants to know")
    )]
    pub(crate) fn mapped(&self) -> Option<SocketAddr> {
        *lock(&self.mapped)
    }

    /// Follows what the virtual networks' control decided. Makes and removes devices, which
    /// takes some milliseconds.
    pub fn on_event(&self, event: &Event, vnet: &Vnet) {
        match event {
            Event::Claimed {
                channel,
                address,
                address6,
            } => {
                if let Some(opened) = vnet.channel(*channel) {
                    let prefix = opened.network().prefix();
                    let addresses = [(*address).into(), (*address6).into()];
                    self.open(*channel, addresses, prefix);
                    if self.discovery.channel().as_deref() == Some(opened.name()) {
                        // Of a failure there is a notice.
                        let _ = self.lead_discovery(*channel, true);
                    }
                }
            }
            Event::Attached {
                channel,
                peer,
                addresses,
                permits,
                agreement,
            } => self.attach(
                (*channel, *peer),
                addresses,
                filter(permits.as_ref()),
                agreement,
            ),
            Event::Addressed {
                channel,
                peer,
                addresses,
            } => self.tell(Command::Addresses {
                network: NetworkId(channel.0),
                peer: *peer.as_bytes(),
                addresses: addresses.clone(),
            }),
            Event::Permitted {
                channel,
                peer,
                permits,
            } => self.tell(Command::Filter {
                network: NetworkId(channel.0),
                peer: *peer.as_bytes(),
                filter: filter(permits.as_ref()),
            }),
            Event::Routed {
                channel,
                routes,
                behind,
                exit,
            } => self.route(*channel, routes, behind, *exit),
            Event::Detached { channel, peer } => {
                lock(&self.said).remove(&(*channel, *peer));
                self.tell(Command::Detach {
                    network: NetworkId(channel.0),
                    peer: *peer.as_bytes(),
                });
            }
            Event::Lapsed {
                channel,
                peer,
                may_hear,
            } => self.tell(Command::Lapse {
                network: NetworkId(channel.0),
                peer: *peer.as_bytes(),
                may_hear: *may_hear,
            }),
            Event::Unresolved { channel, address } => {
                let (network, address) = (NetworkId(channel.0), *address);
                self.tell(Command::Unresolved { network, address });
            }
            Event::Broadcast { channel, packet } => self.tell(Command::Deliver {
                network: NetworkId(channel.0),
                packet: packet.clone(),
            }),
            Event::Displaced { channel, .. } => self.displace(*channel),
            Event::Closed(channel) => {
                lock(&self.said).retain(|(of, _), _| of != channel);
                self.close_one(*channel);
                drop(self.lock_held().remove(channel));
            }
            // What is hosted is for those who take part by way of this node: they open the
            // device for it.
            Event::Hosting { .. }
            | Event::HostFailed { .. }
            | Event::ClaimFailed { .. }
            | Event::Counted { .. }
            | Event::Invited { .. }
            | Event::Withdrawn { .. }
            | Event::Governed(_) => {}
        }
    }

    /// Takes a datagram of a session. Does not wait.
    pub fn on_datagram(&self, from: NodeId, datagram: &Bytes) {
        if let Some(started) = self.started.get() {
            started.inbox.arrived(*from.as_bytes(), datagram.clone());
        }
    }

    /// Has the engine take part in a channel for others, by a device of theirs.
    pub(crate) fn host(&self, channel: ChannelId, device: Option<Device>, addresses: Vec<IpAddr>) {
        self.tell(Command::Host {
            network: NetworkId(channel.0),
            device,
            addresses,
        });
    }

    /// Says at which port this node takes WireGuard's datagrams: they are not carried either.
    pub(crate) fn set_wireguard_port(&self, port: u16) {
        // Told once, when the socket is made.
        let _ = self.wireguard_port.set(port);
        let ports = self.ports();
        self.tell(Command::OwnPorts(ports.iter().copied().collect()));
        let (mut open, mut held) = (self.open.lock(), self.lock_held());
        let open = open.values_mut().filter_map(|open| open.system.as_mut());
        for system in open.chain(held.values_mut()) {
            system.set_ports(ports.clone());
        }
    }

    /// Returns the port at which packets are taken, once there is one.
    pub fn port(&self) -> Option<u16> {
        self.started.get().map(|started| started.port)
    }

    /// Tells whether channels get network devices.
    pub fn makes_devices(&self) -> bool {
        self.layer.is_some()
    }

    /// Returns the way into a channel for this node itself; none while it has no address
    /// there, or lost its device.
    pub fn reach(&self, channel: ChannelId) -> Option<Reach> {
        let open = self.open.lock();
        let network = open.get(&channel)?;
        match (&network.stack, &network.device) {
            (Some(stack), _) => Some(Reach::Userspace(stack.clone())),
            (None, Some(_)) => Some(Reach::Kernel(network.addresses)),
            (None, None) => None,
        }
    }

    /// Follows whether networks are opened and closed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Tells whether the channel's address is held, and its device made if it is to have
    /// one.
    pub fn is_open(&self, channel: ChannelId) -> bool {
        self.open.lock().contains_key(&channel)
    }

    /// Returns the name of a channel's device, and what a person should know of it.
    pub fn interface(&self, channel: ChannelId) -> (Option<String>, Option<String>) {
        let (open, held) = (self.open.lock(), self.lock_held());
        let network = open.get(&channel);
        let device = network.and_then(|network| network.device.clone());
        let own = network.and_then(|network| network.notice.as_ref());
        let system = network.and_then(|network| network.system.as_ref());
        let systems = system.into_iter().chain(held.get(&channel));
        let notices = own
            .into_iter()
            .chain(systems.flat_map(SystemRoutes::notices));
        let notices: Vec<&str> = notices.map(String::as_str).collect();
        let notice = (!notices.is_empty()).then(|| notices.join("; "));
        (device, notice)
    }

    /// Returns the channels that have a device now, in the order of their numbers.
    pub fn places(&self) -> Vec<Place> {
        let open = self.open.lock();
        let places = open.iter().filter_map(|(channel, network)| {
            Some(Place {
                channel: channel.0,
                device: network.device.clone()?,
                addresses: network.addresses,
            })
        });
        places.collect()
    }

    /// Returns what passes in all channels, with whom, and which way. Waits for the engine,
    /// which is a matter of microseconds.
    pub fn report(&self) -> Report {
        let (to, report) = std::sync::mpsc::sync_channel(1);
        self.tell(Command::Report(to));
        report.recv().unwrap_or_default()
    }

    /// Removes all devices.
    pub fn close(&self) {
        for network in std::mem::take(&mut *self.open.lock()).into_values() {
            network.end();
        }
        self.lock_held().clear();
        if let Some(started) = self.started.get() {
            drop(lock(&started.engine).take());
        }
    }

    fn open(&self, channel: ChannelId, addresses: [IpAddr; 2], prefix: u8) {
        // Claimed again after its holders had lost it: nothing has changed.
        let same = |network: &Network| network.addresses == addresses;
        if self.open.lock().get(&channel).is_some_and(same) {
            return;
        }
        self.displace(channel);
        let made = self
            .layer
            .map(|layer| make_device(layer, addresses, prefix));
        let (mut device, mut notice) = match made {
            None => (None, None),
            Some(Ok(device)) => (Some(device), None),
            Some(Err(notice)) => (None, Some(notice)),
        };
        let system = device.as_ref().map(|device| {
            let [address, address6] = addresses;
            let own = [(address, prefix), (address6, vnet::Network::PREFIX6)];
            let own = own.map(|(address, bits)| Prefix::around(address, bits));
            let name = device.name().to_owned();
            let before = self.lock_held().remove(&channel);
            let system = before.unwrap_or_else(|| SystemRoutes::new(self.ports()));
            system.with_device(name, own)
        });
        let mut network = Network {
            addresses,
            device: device.as_ref().map(|device| device.name().to_owned()),
            stack: None,
            notice: None,
            system,
        };
        if device.is_none() {
            match make_stack(addresses, prefix) {
                Ok((queue, stack)) => (device, network.stack) = (Some(queue), Some(stack)),
                Err(error) => {
                    let reason = format!("no network in user space: {error}");
                    tracing::warn!("{reason}");
                    notice.get_or_insert(reason);
                }
            }
        }
        network.notice = notice;
        let [address, address6] = addresses;
        self.tell(Command::Open {
            network: NetworkId(channel.0),
            device,
            prefixes: vec![
                table::Network::new(address, prefix),
                table::Network::new(address6, vnet::Network::PREFIX6),
            ],
            addresses: addresses.to_vec(),
        });
        self.open.lock().insert(channel, network);
        self.hide_addresses();
        self.changes.send_modify(|count| *count += 1);
    }

    fn attach(
        &self,
        (channel, peer): (ChannelId, NodeId),
        addresses: &[IpAddr],
        filter: Option<Filter>,
        agreement: &Agreement,
    ) {
        let Some(started) = self.started.get() else {
            return;
        };
        // Where its session is seen to come from, its packets may pass as well.
        let mut candidates = agreement.candidates.clone();
        let seen = started
            .sessions
            .session(peer)
            .and_then(|session| session.address);
        let ports: BTreeSet<u16> = candidates.iter().map(SocketAddr::port).collect();
        for (seen, port) in seen
            .into_iter()
            .flat_map(|seen| ports.iter().map(move |port| (seen, *port)))
        {
            let candidate = SocketAddr::new(seen.ip().to_canonical(), port);
            if !candidates.contains(&candidate) {
                candidates.push(candidate);
            }
        }
        candidates.retain(|candidate| !addresses.contains(&candidate.ip()));
        lock(&self.said).insert((channel, peer), candidates.clone());
        let candidates = self.places_of(started, candidates);
        started.inbox.tell(Command::Attach {
            network: NetworkId(channel.0),
            peer: *peer.as_bytes(),
            addresses: addresses.to_vec(),
            filter,
            keys: keys(agreement),
            candidates,
        });
    }

    /// Returns where packets to a member are tried that is said to be at some addresses.
    fn places_of(&self, started: &Started, said: Vec<SocketAddr>) -> Vec<SocketAddr> {
        let places = said.into_iter().flat_map(|at| started.sessions.places(at));
        // What leads into a virtual network would be a tunnel within itself.
        let mut places: Vec<_> = places.filter(|at| !self.open.holds(at.ip())).collect();
        // With more of them the first, which are the best, would make room for the last.
        places.truncate(CANDIDATES_MAX);
        places
    }

    /// There is another NAT64: what it makes of the addresses of members is tried, too.
    pub fn follow_nat64(&self) {
        let Some(started) = self.started.get() else {
            return;
        };
        for ((_, peer), said) in lock(&self.said).iter() {
            let peer = *peer.as_bytes();
            let candidates = self.places_of(started, said.clone());
            self.tell(Command::Candidates { peer, candidates });
        }
    }

    /// The ports of this node's sockets, each once: some listen by both versions of IP.
    fn ports(&self) -> BTreeSet<u16> {
        let started = self.started.get();
        started.map_or_else(BTreeSet::new, |started| {
            let sessions = started.sessions.listening();
            let sessions = sessions.iter().map(SocketAddr::port);
            let wireguard = self.wireguard_port.get().copied();
            sessions.chain([started.port]).chain(wireguard).collect()
        })
    }

    fn close_one(&self, channel: ChannelId) {
        let removed = self.open.lock().remove(&channel);
        if let Some(network) = removed {
            network.end();
            self.changes.send_modify(|count| *count += 1);
            self.tell(Command::Close(NetworkId(channel.0)));
            self.hide_addresses();
        }
    }

    /// Sessions must not run through the virtual networks that they carry.
    fn hide_addresses(&self) {
        let networks = self.open.lock();
        let addresses = networks
            .values()
            .flat_map(|network| network.addresses)
            .collect();
        if let Some(started) = self.started.get() {
            started.sessions.hide_addresses(addresses);
        }
    }

    fn tell(&self, command: Command) {
        if let Some(started) = self.started.get() {
            started.inbox.tell(command);
        }
    }
}

/// A panic elsewhere does not make what is guarded useless: every change is complete.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
