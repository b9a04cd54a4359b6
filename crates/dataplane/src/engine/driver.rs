//! The engine's thread: waits, and lets each have its turn.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use rustc_hash::FxHashMap;
use slab::Slab;

use super::backlog::Backlog;
use super::inbound::BUFFERS;
use super::network::Network;
use super::outbound::{Exit, Side, Way};
use super::paths::{Ask, KEEP_ALIVE, KEEP_ALIVE_MIN};
use super::punch::Puncher;
use super::relayed::Relays;
use super::relaying::Relaying;
use super::session::{Session, Tokens};
use super::sockets::{Pair, Via};
use super::{
    COMMANDS_MAX, Command, NetworkId, Note, Outside, PeerKey, Report, SessionKeys, SessionReport,
    Wake,
};
use crate::device::{Device, READ_BYTES_MAX};
use crate::filter::Filter;
use crate::link::addresses_of_host;
use crate::sealed::Kind;
use crate::socket::Socket;
use crate::table::Route;

/// Sessions by the indices of their datagrams. The indices are drawn by this host, so nobody
/// can choose them to collide.
pub(super) type Indices = FxHashMap<u32, usize>;

/// What an event is of.
const WAKE: u64 = u64::MAX;
const SOCKET: u64 = u64::MAX - 1;
/// Added to a network's number for the device of those for whom addresses are held.
const GUESTS: u64 = 1 << 32;
/// Added to the number of a socket besides the first one.
const OTHER_SOCKET: u64 = 1 << 33;

/// How often what is due is looked for: while packets pass or ways are sought, and otherwise.
const TICK: Duration = Duration::from_millis(50);
const IDLE_TICK: Duration = Duration::from_millis(500);
/// For how long after it was last used the engine keeps the shorter tick.
const BUSY: Duration = Duration::from_secs(3);

/// How often it is looked at which addresses this host has, while networks behind it are reached.
const HOST_INTERVAL: Duration = Duration::from_secs(1);

/// How many datagrams of lanes are worked off before others have their turn.
const LANE_DATAGRAMS_AT_ONCE: usize = 128;

/// Octets of each buffer of the socket.
const BUFFER_BYTES: usize = 1 << 16;

/// Everything that the thread has.
pub(super) struct Driver<O> {
    pub(super) exit: Exit<O>,
    pub(super) networks: BTreeMap<NetworkId, Network>,
    pub(super) sessions: Slab<Session>,
    pub(super) by_index: Indices,
    by_peer: BTreeMap<(PeerKey, NetworkId), usize>,
    /// Of the engine's sockets and of those that the host named.
    pub(super) own_ports: Vec<u16>,
    ports_of_others: Vec<u16>,
    /// A packet of a device; batches of the socket.
    pub(super) read: Vec<u8>,
    pub(super) backlog: Backlog,
    pub(super) buffers: [Vec<u8>; BUFFERS],
    pub(super) tokens: Tokens,
    pub(super) puncher: Puncher,
    pub(super) relaying: Relaying,
    pub(super) relays: Relays,
    pub(super) started: Instant,
    pub(super) now: Instant,
    /// Datagrams that were refused: of no session, or of one that has ended.
    pub(super) refused: u64,
    /// When the host was last told of whose unknown index.
    pub(super) unknown: BTreeMap<PeerKey, Instant>,
    /// How often silent paths are used.
    keep_alive: Duration,
    busy_until: Instant,
    next_tick: Instant,
    next_look: Instant,
    waiting: Waiting,
    wake: Arc<Wake>,
    epoll: Epoll,
}

/// What others have left for the driver.
pub(super) struct Waiting {
    pub(super) told: mpsc::Receiver<Command>,
    pub(super) arrived: mpsc::Receiver<(PeerKey, Bytes)>,
}

impl<O: Outside> Driver<O> {
    pub(super) fn new(
        socket: Socket,
        waiting: Waiting,
        wake: Arc<Wake>,
        outside: O,
    ) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, SOCKET))?;
        epoll.add(&wake.bell, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        let now = Instant::now();
        Ok(Self {
            own_ports: vec![socket.port()],
            ports_of_others: Vec::new(),
            exit: Exit::new(socket, outside),
            networks: BTreeMap::new(),
            sessions: Slab::new(),
            by_index: Indices::default(),
            by_peer: BTreeMap::new(),
            read: vec![0; READ_BYTES_MAX],
            backlog: Backlog::new(),
            buffers: std::array::from_fn(|_| vec![0; BUFFER_BYTES]),
            tokens: Tokens::default(),
            puncher: Puncher::default(),
            relaying: Relaying::new(now),
            relays: Relays::default(),
            started: now,
            now,
            refused: 0,
            unknown: BTreeMap::new(),
            keep_alive: KEEP_ALIVE,
            busy_until: now,
            next_tick: now,
            next_look: now,
            waiting,
            wake,
            epoll,
        })
    }

    /// Works until the handle is dropped.
    pub(super) fn run(mut self) {
        let mut events = [EpollEvent::empty(); 16];
        while !self.wake.stop.load(Ordering::Acquire) {
            let wait = match self.backlog.is_empty() {
                true => self.next_tick.saturating_duration_since(Instant::now()),
                false => Duration::ZERO,
            };
            // Rounded up, or the last millisecond would be spent in a loop.
            let rounded = wait + Duration::from_millis(u64::from(!wait.is_zero()));
            let wait = EpollTimeout::try_from(rounded);
            let ready = match self
                .epoll
                .wait(&mut events, wait.unwrap_or(EpollTimeout::ZERO))
            {
                Ok(ready) => ready,
                Err(nix::errno::Errno::EINTR) => 0,
                Err(error) => {
                    tracing::error!(%error, "the thread for packets cannot wait: it ends");
                    return;
                }
            };
            self.now = Instant::now();
            for event in &events[..ready] {
                match event.data() {
                    WAKE => self.take_what_waits(),
                    SOCKET => self.receive(Via::FIRST),
                    other if other & OTHER_SOCKET != 0 => {
                        self.receive(Via::from_number(other as u16));
                    }
                    device => {
                        let side = match device & GUESTS {
                            0 => Side::Host,
                            _ => Side::Guests,
                        };
                        self.read_device(NetworkId(device as u32), side);
                    }
                }
                if event.data() != WAKE {
                    self.busy_until = self.now + BUSY;
                }
            }
            if !self.backlog.is_empty() {
                self.forward_waiting();
            }
            if self.now >= self.next_tick {
                self.tick();
                let busy = self.now < self.busy_until || self.puncher.is_busy();
                if !busy {
                    self.backlog.rest();
                }
                self.next_tick = self.now + if busy { TICK } else { IDLE_TICK };
            }
        }
    }

    /// Takes the commands that wait, all of them: what is received after them may follow from
    /// them. Whoever is told an index by this host's answer has had it told here before.
    pub(super) fn take_commands_first(&mut self) {
        for _ in 0..COMMANDS_MAX {
            match self.waiting.told.try_recv() {
                Ok(command) => self.command(command),
                Err(_) => return,
            }
        }
    }

    fn take_what_waits(&mut self) {
        self.wake.bell.silence();
        let arrived = self.waiting.arrived.try_iter();
        let arrived: Vec<(PeerKey, Bytes)> = arrived.take(LANE_DATAGRAMS_AT_ONCE).collect();
        if arrived.len() == LANE_DATAGRAMS_AT_ONCE {
            // Others have their turn first.
            self.wake.bell.ring();
        }
        self.take_commands_first();
        self.receive_by_lanes(arrived);
        self.flush();
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Open {
                network,
                device,
                prefixes,
                addresses,
            } => {
                self.close(network);
                self.await_device(device.as_ref(), network.0.into());
                self.networks
                    .insert(network, Network::new(device, prefixes, addresses));
            }
            Command::Close(network) => self.close(network),
            Command::Attach {
                network,
                peer,
                addresses,
                filter,
                keys,
                candidates,
            } => {
                self.attach((network, peer), addresses, filter, &keys);
                self.learn(peer, &candidates);
            }
            Command::Addresses {
                network,
                peer,
                addresses,
            } => {
                if let Some(slot) = self.by_peer.get(&(peer, network)).copied() {
                    self.set_addresses(slot, addresses);
                    self.send_all_waiting(slot);
                }
            }
            Command::Host {
                network,
                device,
                addresses,
            } => self.host(network, device, addresses),
            Command::Filter {
                network,
                peer,
                filter,
            } => self.set_filter(network, peer, filter),
            Command::Beyond {
                network,
                gateways,
                behind,
            } => {
                if let Some(network) = self.networks.get_mut(&network) {
                    network.table.set_gateways(gateways);
                    network.table.set_behind(behind);
                }
                self.look_at_host();
            }
            Command::Candidates { peer, candidates } => self.learn(peer, &candidates),
            Command::Detach { network, peer } => {
                if let Some(slot) = self.by_peer.remove(&(peer, network)) {
                    self.forget(slot);
                }
            }
            Command::Lapse {
                network,
                peer,
                may_hear,
            } => {
                let slot = self.by_peer.get(&(peer, network));
                if let Some(session) = slot.and_then(|slot| self.sessions.get_mut(*slot)) {
                    let dropped = session.lapse(self.now, may_hear);
                    self.by_index.retain(|index, _| !dropped.contains(index));
                }
            }
            Command::Unresolved { network, address } => {
                if let Some(network) = self.networks.get_mut(&network) {
                    network.give_up(self.now, address);
                }
            }
            Command::Deliver { network, packet } => {
                if let Some(network) = self.networks.get(&network) {
                    network.deliver_to_many(&packet);
                }
            }
            Command::OwnPorts(ports) => {
                self.ports_of_others = ports;
                self.count_ports();
            }
            Command::KeepAlive(every) => {
                self.keep_alive = every.clamp(KEEP_ALIVE_MIN, KEEP_ALIVE);
            }
            Command::Moved => self.moved(),
            Command::SendAnew(datagrams) => {
                if let Some(via) = self.open_for_punch() {
                    for (address, datagram) in datagrams {
                        self.send_foreign(Pair::straight(via, address), &datagram);
                    }
                }
            }
            Command::Punch { peer, punch } => self.begin_punch(peer, punch),
            Command::Say { peer, message } => self.say(peer, &message),
            Command::RelayTerms(terms) => self.relaying.set_terms(self.now, terms),
            Command::Relay { token, keys, lasts } => {
                self.relaying.grant(self.now, token, &keys, lasts);
            }
            Command::ByRelay(told) => self.by_relay(&told),
            Command::Send(datagrams) => {
                for (to, datagram) in datagrams {
                    self.send_foreign(to.into(), &datagram);
                }
            }
            // Nobody waits any more if it cannot be told.
            Command::Report(to) => drop(to.try_send(self.report())),
        }
        self.busy_until = self.now + BUSY;
        self.next_tick = self.next_tick.min(self.now + TICK);
    }

    fn attach(
        &mut self,
        (id, peer): (NetworkId, PeerKey),
        addresses: Vec<IpAddr>,
        filter: Option<Filter>,
        keys: &SessionKeys,
    ) {
        if !self.networks.contains_key(&id) {
            return;
        }
        let slot = match self.by_peer.get(&(peer, id)) {
            Some(slot) => *slot,
            None => {
                let mut session = Session::new(id, peer, self.now);
                for pair in self.relays.to(peer) {
                    session.paths.learn_relay(self.now, pair);
                }
                let slot = self.sessions.insert(session);
                self.by_peer.insert((peer, id), slot);
                self.share_ways(peer);
                slot
            }
        };
        self.set_addresses(slot, addresses);
        // Before anything passes, or the answers to what waits would belong to no flow.
        self.sessions[slot].set_filter(filter);
        let dropped = self.sessions[slot].set_keys(self.now, keys);
        self.by_index.insert(keys.receive_index, slot);
        self.by_index.retain(|index, _| Some(*index) != dropped);
        if keys.peer_has_them {
            // The peer uses the keys as soon as it sees them used.
            self.confirm(slot);
            self.send_all_waiting(slot);
        }
    }

    fn set_addresses(&mut self, slot: usize, addresses: Vec<IpAddr>) {
        let session = &mut self.sessions[slot];
        let network = self.networks.get_mut(&session.network);
        let Some(network) = network.filter(|_| session.addresses != addresses) else {
            return;
        };
        network.table.forget_peer(&slot);
        for address in &addresses {
            let route = Route {
                peer: slot,
                path_mtu: u16::MAX,
            };
            let set = network.table.set_route(*address, route);
            let set = set.and_then(|()| network.table.allow_source(slot, *address));
            if set.is_err() {
                tracing::warn!("the address table of a channel is full");
            }
        }
        session.addresses = addresses;
    }

    fn host(&mut self, id: NetworkId, device: Option<Device>, addresses: Vec<IpAddr>) {
        let Some(network) = self.networks.get(&id) else {
            return;
        };
        if let Some(before) = &network.guests {
            let _ = self.epoll.delete(before.as_fd());
        }
        self.await_device(device.as_ref(), GUESTS | u64::from(id.0));
        if let Some(network) = self.networks.get_mut(&id) {
            network.host(device, addresses);
        }
    }

    fn await_device(&self, device: Option<&Device>, number: u64) {
        let Some(device) = device else { return };
        let event = EpollEvent::new(EpollFlags::EPOLLIN, number);
        if let Err(error) = self.epoll.add(device.as_fd(), event) {
            tracing::error!(%error, "a network device cannot be waited for");
        }
    }

    fn set_filter(&mut self, network: NetworkId, peer: PeerKey, filter: Option<Filter>) {
        let slot = self.by_peer.get(&(peer, network));
        if let Some(session) = slot.and_then(|slot| self.sessions.get_mut(*slot)) {
            session.set_filter(filter);
        }
    }

    fn learn(&mut self, peer: PeerKey, candidates: &[std::net::SocketAddr]) {
        for slot in self.slots_of(peer) {
            self.sessions[slot]
                .paths
                .learn(self.now, candidates.iter().copied());
        }
        self.next_tick = self.now;
    }

    /// Opens another socket, and waits for what comes to it; none when the system refuses.
    pub(super) fn open_socket(&mut self) -> Option<Via> {
        let via = self.exit.sockets.open().ok()?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, OTHER_SOCKET | u64::from(via.number()));
        let socket = self.exit.sockets.get(via)?;
        if self.epoll.add(socket, event).is_err() {
            self.exit.sockets.close(via);
            return None;
        }
        self.count_ports();
        Some(via)
    }

    /// Closes a socket that is not the first one.
    pub(super) fn close_socket(&mut self, via: Via) {
        if let Some(socket) = self.exit.sockets.close(via) {
            let _ = self.epoll.delete(&socket);
            for (_, session) in &mut self.sessions {
                session.paths.close(via);
            }
            self.count_ports();
        }
    }

    fn count_ports(&mut self) {
        self.own_ports.clear();
        self.own_ports.extend(self.exit.sockets.ports());
        self.own_ports.extend(&self.ports_of_others);
    }

    /// Returns the sessions with a peer.
    pub(super) fn slots_of(&self, peer: PeerKey) -> Vec<usize> {
        let range = (peer, NetworkId(0))..=(peer, NetworkId(u32::MAX));
        self.by_peer.range(range).map(|(_, slot)| *slot).collect()
    }

    /// Looks at once for what is due.
    pub(super) fn look_soon(&mut self) {
        self.next_tick = self.now;
    }

    fn moved(&mut self) {
        self.bind_all();
        for (_, session) in &mut self.sessions {
            session.paths.moved(self.now);
            // What was told of it is forgotten elsewhere, too.
            session.seen_at = None;
        }
        self.next_tick = self.now;
    }

    /// The peer has the next keys: use them.
    pub(super) fn promote(&mut self, slot: usize) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let dropped = session.promote();
        self.by_index.retain(|index, _| Some(*index) != dropped);
        self.send_all_waiting(slot);
    }

    /// Sends what waits for a peer, if there are keys for it and a way to it.
    pub(super) fn send_all_waiting(&mut self, slot: usize) {
        if !self.can_send(slot) {
            return;
        }
        let Some(session) = self.sessions.get(slot) else {
            return;
        };
        let id = session.network;
        let network = self.networks.get(&id);
        for address in network.map_or_else(Vec::new, |n| n.awaited(slot)) {
            self.send_waiting(id, address);
        }
    }

    /// Shows the peer that keys are in use, by the way that packets take.
    fn confirm(&mut self, slot: usize) {
        match self.way(slot) {
            Some(Way::Direct(to, _)) => self.ask(slot, Ask { to, bytes: 0 }),
            Some(way @ Way::Lane(..)) => self.probe(slot, way, 0),
            None => {}
        }
    }

    /// Tells whether packets can be sent to a peer now.
    pub(super) fn can_send(&mut self, slot: usize) -> bool {
        self.sessions.get(slot).is_some_and(Session::can_seal) && self.way(slot).is_some()
    }

    fn way(&mut self, slot: usize) -> Option<Way> {
        let session = self.sessions.get(slot)?;
        self.exit.way(session)
    }

    /// Asks a peer by an address.
    pub(super) fn ask(&mut self, slot: usize, ask: Ask) {
        if let Some(token) = ask.to.relay {
            // Should this host's outer address be another than the relay knows.
            self.bind(token);
        }
        self.probe(slot, Way::Direct(ask.to, 0), ask.bytes);
    }

    fn probe(&mut self, slot: usize, way: Way, bytes: usize) {
        let Some(session) = self
            .sessions
            .get_mut(slot)
            .filter(|session| session.can_seal())
        else {
            return;
        };
        let micros = self.now.saturating_duration_since(self.started).as_micros() as u64;
        let to = match way {
            Way::Direct(to, _) => Some(to),
            Way::Lane(..) => None,
        };
        let content = self.tokens.probe(micros, to, bytes);
        self.exit.flush();
        self.exit.emit(session, way, Kind::Probe, &content);
        // Alone: what it finds out of the path is of this length, and of no other.
        self.flush();
    }

    fn close(&mut self, id: NetworkId) {
        let Some(network) = self.networks.remove(&id) else {
            return;
        };
        for device in [&network.device, &network.guests].into_iter().flatten() {
            let _ = self.epoll.delete(device.as_fd());
        }
        let gone: Vec<_> = self
            .by_peer
            .extract_if(.., |(_, of), _| *of == id)
            .collect();
        for (_, slot) in gone {
            self.forget(slot);
        }
    }

    fn forget(&mut self, slot: usize) {
        let session = self.sessions.remove(slot);
        self.refused += session.counters.refused;
        for index in session.indices() {
            // Another session may have drawn the same.
            if self.by_index.get(&index) == Some(&slot) {
                self.by_index.remove(&index);
            }
        }
        if let Some(network) = self.networks.get_mut(&session.network) {
            network.table.forget_peer(&slot);
        }
        if session.told_at.is_some() {
            self.untell_way(session.peer);
        }
    }

    /// Another program removed the device.
    pub(super) fn lose_device(&mut self, id: NetworkId) {
        let device = self
            .networks
            .get_mut(&id)
            .and_then(|network| network.device.take());
        if let Some(device) = device {
            let _ = self.epoll.delete(device.as_fd());
            let name = device.name().to_owned();
            self.exit
                .outside
                .note(Note::DeviceLost { network: id, name });
        }
    }

    /// Sees which addresses this host has where networks behind it are reached.
    fn look_at_host(&mut self) {
        self.next_look = self.now + HOST_INTERVAL;
        let passing = self.networks.values_mut().filter(|n| n.table.passes_on());
        let mut passing = passing.peekable();
        if passing.peek().is_some() {
            let addresses = addresses_of_host();
            passing.for_each(|network| network.set_elsewhere(addresses.clone()));
        }
    }

    fn tick(&mut self) {
        if self.now >= self.next_look {
            self.look_at_host();
        }
        let networks: Vec<NetworkId> = self.networks.keys().copied().collect();
        for id in networks {
            self.ask_again(id);
            if let Some(network) = self.networks.get_mut(&id) {
                network.expire(self.now);
            }
        }
        let slots: Vec<usize> = self.sessions.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            let session = &mut self.sessions[slot];
            if session.is_over(self.now) {
                self.by_peer.remove(&(session.peer, session.network));
                self.forget(slot);
                continue;
            }
            for index in session.expire_keys(self.now) {
                self.by_index.remove(&index);
            }
            let is_wayless = session.can_seal() && session.paths.wants_help(self.now);
            let wayless = is_wayless.then_some(session.peer);
            if session.wants_keys(self.now, false) {
                self.exit.outside.note(session.wish());
            }
            let (asks, _) = session.paths.tick(self.now, self.keep_alive);
            if session.paths.is_doubtful(self.now) {
                let doubtful = Note::Doubtful(session.peer);
                self.exit.outside.note(doubtful);
            }
            for ask in asks {
                self.ask(slot, ask);
            }
            self.tell_way(slot);
            if let Some(peer) = wayless {
                let is_relayed = self.is_relayed(peer);
                let note = Note::Wayless { peer, is_relayed };
                self.exit.outside.note(note);
            }
        }
        self.go_on_punching();
        self.look_after_relays();
        self.relaying.expire(self.now);
        for token in self.relaying.unused() {
            self.exit.outside.note(Note::RelayUnused(token));
        }
        self.flush();
    }

    /// Sends what is in the batch, and learns from what cannot be sent.
    pub(super) fn flush(&mut self) {
        self.exit.flush();
        if let Some((pair, bytes)) = self.exit.batch.too_long.take() {
            for (_, session) in &mut self.sessions {
                if session
                    .paths
                    .direct()
                    .is_some_and(|(taken, _)| taken == pair)
                {
                    session.paths.too_long(bytes - pair.header_bytes());
                }
            }
        }
    }

    fn report(&self) -> Report {
        let sessions = self.sessions.iter().map(|(_, session)| SessionReport {
            network: session.network,
            peer: session.peer,
            direct: session.paths.straight().map(|pair| pair.address),
            relay: session
                .paths
                .relay()
                .and_then(|token| self.relays.by(token)),
            round_trip: session.paths.round_trip(),
            counters: session.counters,
        });
        let refused = self
            .sessions
            .iter()
            .map(|(_, session)| session.counters.refused);
        let devices = self
            .networks
            .values()
            .filter_map(|network| network.device.as_ref());
        Report {
            foreign_frames: devices.map(Device::foreign_frames).sum(),
            storm_packets: self.networks.values().map(|n| n.storm_packets).sum(),
            refused: self.refused + refused.sum::<u64>(),
            sessions: sessions.collect(),
            lost: self.exit.batch.lost,
            relayed: self.relaying.report(),
        }
    }
}
