//! Hands packets to nodes that carry them to peers that no socket reaches, and carries those of
//! others.
//!
//! A packet goes to a node with which both ends have a session of their own, and over these
//! sessions as a datagram. So whoever carries sees who speaks with whom, how much and when, and
//! nothing of what is said; and nobody can send in another's name, since the session proves who
//! asks. Only sessions that go straight are used for it: nothing is carried twice.
//!
//! A peer may also have a link to this node, which carries what is for it alone: see `link`. That is a
//! way to the peer by the peer itself.
//!
//! What a node carries for others has a budget ([`Budget`]); what goes beyond is dropped, as on a
//! full link, and QUIC slows down.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use enishi_dataplane::reassembly::Reassembly;
use enishi_overlay::{Contact, NodeId, PathKind};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::frame::{Frame, Load};
use super::link::Link;
use super::lock;
use super::ways::{Due, Sending, WAYS_MAX, Ways};
use crate::session::{By, CARRIED_BYTES_MAX, Carry, DatagramLane, Sessions};

/// The most packets that wait to be handed over.
const OUTGOING_MAX: usize = 1_024;

/// How many of them are taken at once.
const BATCH: usize = 64;

/// The most peers for which a way is to be looked for at once.
const WANTED_MAX: usize = 64;

/// How often the ways are looked after.
const LOOK: Duration = Duration::from_millis(100);

/// How long it is believed that a session goes straight.
const STRAIGHT_FOR: Duration = Duration::from_secs(1);

/// How long opening a session with a node that may carry may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// Of how many packets' senders, each by way of one node, halves wait at once; and for how long
/// after the last one.
const HALVES_MAX: usize = 128;
const HALVES_TIME: Duration = Duration::from_secs(1);

/// How many sessions with nodes that may carry are opened at once, since somebody named them.
const OPENING_MAX: usize = 8;

/// What a packet costs besides its own octets: the headers of what it comes and goes in.
const OVERHEAD_BYTES: u64 = 100;

/// The most links, and for how long one is taken that another one has replaced.
const LINKS_MAX: usize = 1_024;
const LINK_GRACE: Duration = Duration::from_secs(5);

/// The most nodes of which lanes and budgets are kept.
const LANES_MAX: usize = 2_048;

/// For how long what was not used of a rate is saved.
const SAVED: Duration = Duration::from_millis(250);

/// How often a node is told that there is no room, at most.
const TELL_BUSY: Duration = Duration::from_secs(1);

/// What is carried for one node, and for all together, in octets a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// For one node.
    pub each: u64,
    /// For all together.
    pub all: u64,
}

/// Carries packets between nodes.
pub struct Carrier {
    outgoing: mpsc::Sender<(NodeId, Bytes)>,
    sessions: OnceLock<Sessions>,
    ways: Mutex<Ways>,
    wants: Wants<mpsc::Sender<NodeId>>,
    links: Mutex<HashMap<NodeId, Link>>,
    /// Halves that wait for their partners, by who carried them and who sent the packet: each of
    /// the two may have numbered it.
    halves: Mutex<HashMap<(NodeId, NodeId), Halves>>,
    numbers: AtomicU16,
    lanes: Mutex<HashMap<NodeId, KnownLane>>,
    /// None on a node that does not carry for others.
    budget: Option<Mutex<Budget>>,
    carried_bytes: AtomicU64,
    opening: Arc<Semaphore>,
}

/// What a [`Carrier`] needs to run.
pub struct Inlet(mpsc::Receiver<(NodeId, Bytes)>);

/// The peers for which a way is to be looked for: two ends of each channel.
#[derive(Debug)]
pub struct Wants<End> {
    /// By asking through the overlay who may carry.
    pub calls: End,
    /// By opening a link.
    pub links: End,
}

/// The lane of a session, if that goes straight, as it was a moment ago.
#[derive(Clone)]
struct KnownLane {
    lane: Option<DatagramLane>,
    looked: Instant,
}

/// Halves, and when the last one came.
struct Halves {
    at: Instant,
    waiting: Reassembly,
}

/// How much may be carried now.
struct Budget {
    rates: Rates,
    all: Tank,
    each: HashMap<NodeId, Customer>,
}

/// A node for which is carried.
struct Customer {
    tank: Tank,
    /// When it was told last that there is no room.
    told: Option<Instant>,
}

/// Whether there is room for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Yes,
    No,
    /// There is none for all together, and the node is to be told so.
    Busy,
}

struct Tank {
    bytes: u64,
    filled: Instant,
}

impl Carrier {
    /// Makes one that carries for others so much, or does not; it begins with [`Self::run`]. The receivers
    /// get the peers for which a way is to be looked for.
    pub fn new(for_others: Option<Rates>) -> (Arc<Self>, Inlet, Wants<mpsc::Receiver<NodeId>>) {
        let now = Instant::now();
        let (outgoing, inlet) = mpsc::channel(OUTGOING_MAX);
        let [(calls, called), (links, linked)] =
            [mpsc::channel(WANTED_MAX), mpsc::channel(WANTED_MAX)];
        let wanted = Wants {
            calls: called,
            links: linked,
        };
        let carrier = Self {
            outgoing,
            sessions: OnceLock::new(),
            ways: Mutex::new(Ways::new(now)),
            wants: Wants { calls, links },
            links: Mutex::default(),
            halves: Mutex::default(),
            numbers: AtomicU16::new(0),
            lanes: Mutex::default(),
            budget: for_others.map(|rates| Mutex::new(Budget::new(now, rates))),
            carried_bytes: AtomicU64::new(0),
            opening: Arc::new(Semaphore::new(OPENING_MAX)),
        };
        (Arc::new(carrier), Inlet(inlet), wanted)
    }

    /// Hands packets over and looks after the ways until `stop`.
    pub async fn run(
        self: Arc<Self>,
        sessions: Sessions,
        Inlet(mut inlet): Inlet,
        stop: CancellationToken,
    ) {
        // Nothing came before: the sessions were opened with this carrier.
        let _ = self.sessions.set(sessions);
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = looks.tick() => self.look(),
                count = inlet.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    for (to, packet) in batch.drain(..) {
                        self.send(to, packet);
                    }
                }
            }
        }
    }

    /// Takes in a datagram of a session for which [`super::is_carried`] holds.
    pub fn on_datagram(&self, peer: NodeId, datagram: &Bytes) {
        match Frame::decode(datagram) {
            Some(Frame::To(to, load)) => self.forward(peer, to, load),
            Some(Frame::From(from, load)) => self.take(peer, from, load),
            Some(Frame::NoWay(to)) => lock(&self.ways).refused(to, peer),
            Some(Frame::Ping(word)) => self.say(peer, &Frame::Pong(word)),
            Some(Frame::Pong(_)) => lock(&self.ways).heard_relay(Instant::now(), peer),
            Some(Frame::Busy) => lock(&self.ways).busy(Instant::now(), peer),
            None => {}
        }
    }

    /// Uses nodes that may carry to a peer, as soon as there is a session with each: the nearest of those
    /// with whom there is one is the first, and those come last that lately said to be busy. For anybody's
    /// word, at most `new_max` sessions are opened, and eight at once in all.
    pub fn learn(self: &Arc<Self>, to: NodeId, mut relays: Vec<Contact>, new_max: usize) {
        let Some(sessions) = self.sessions.get() else {
            return;
        };
        // Where this node has no preference the peer's stands.
        let now = Instant::now();
        relays.sort_by_cached_key(|relay| {
            let is_busy = lock(&self.ways).is_busy(now, relay.id());
            let session = sessions.session(relay.id());
            (
                is_busy,
                session.map_or(Duration::MAX, |session| session.rtt),
            )
        });
        let mut opened = 0;
        for relay in relays {
            if [to, sessions.me()].contains(&relay.id()) {
                continue;
            }
            if self.straight(relay.id()).is_some() {
                self.add(to, relay.id());
                continue;
            }
            let turn = Arc::clone(&self.opening).try_acquire_owned();
            let (Ok(turn), true) = (turn, opened < new_max) else {
                continue;
            };
            opened += 1;
            let (carrier, sessions) = (Arc::clone(self), sessions.clone());
            tokio::spawn(async move {
                let connected = tokio::time::timeout(CONNECT_TIME_MAX, sessions.connect(&relay));
                if let Ok(Some(_)) = connected.await {
                    carrier.add(to, relay.id());
                }
                drop(turn);
            });
        }
    }

    /// Uses a link that leads to a peer, in place of one that it had.
    pub(super) fn link(&self, peer: NodeId, link: Link) {
        let mut links = lock(&self.links);
        if links.len() >= LINKS_MAX && !links.contains_key(&peer) {
            return link.end();
        }
        let stays = links.get(&peer).is_some_and(|old| old.outlasts(&link));
        let other = match stays {
            true => Some(link),
            false => links.insert(peer, link),
        };
        drop(links);
        if let Some(other) = other {
            // The peer may be using it until it knows of the one that is kept.
            tokio::spawn(async move {
                tokio::time::sleep(LINK_GRACE).await;
                other.end();
            });
        }
        self.add(peer, peer);
    }

    /// A link has ended.
    pub(super) fn unlink(&self, peer: NodeId, ended: &Link) {
        let mut links = lock(&self.links);
        if links.get(&peer).is_some_and(|link| link.is(ended)) {
            links.remove(&peer);
            drop(links);
            lock(&self.lanes).remove(&peer);
            lock(&self.ways).refused(peer, peer);
        }
    }

    /// Takes what came over a link: a packet, or a sign of life.
    pub(super) fn on_link(&self, peer: NodeId, packet: Option<Bytes>) {
        match packet {
            Some(packet) => self.take(peer, peer, Load::whole(packet)),
            None => lock(&self.ways).heard_relay(Instant::now(), peer),
        }
    }

    /// Tells whether a peer is reached: by datagrams, or in any way that is known.
    pub(super) fn is_reached(&self, peer: NodeId) -> bool {
        let is_by_datagrams = || {
            let session = self.sessions.get()?.session(peer)?;
            session.address
        };
        self.link_to(peer).is_some() || is_by_datagrams().is_some()
    }

    /// Tells whether there is a session with a peer.
    pub(super) fn has_session(&self, peer: NodeId) -> bool {
        let sessions = self.sessions.get();
        sessions.is_some_and(|sessions| sessions.session(peer).is_some())
    }

    fn link_to(&self, peer: NodeId) -> Option<Link> {
        lock(&self.links).get(&peer).cloned()
    }

    /// Returns how many octets were carried for others.
    pub fn carried_bytes(&self) -> u64 {
        self.carried_bytes.load(Ordering::Relaxed)
    }

    /// Returns who carries packets of this node's session with a peer, the one in use first.
    pub fn carry_to(&self, peer: NodeId) -> Vec<NodeId> {
        let mut by = lock(&self.ways).all(peer);
        by.retain(|by| *by != peer);
        by
    }

    /// Tells whether it carries for others.
    pub fn is_for_others(&self) -> bool {
        self.budget.is_some()
    }

    /// This node has other addresses or other proxies than before: it looks at once for ways that were not found.
    pub(crate) fn take_heart(&self) {
        lock(&self.ways).take_heart();
    }

    fn add(&self, to: NodeId, relay: NodeId) {
        tracing::debug!(?to, ?relay, "a way by another node");
        lock(&self.lanes).remove(&relay);
        let held = lock(&self.ways).add(Instant::now(), to, relay);
        for packet in held {
            self.send(to, packet);
        }
    }

    fn look(&self) {
        let now = Instant::now();
        lock(&self.halves).retain(|_, halves| now.duration_since(halves.at) < HALVES_TIME);
        let due = lock(&self.ways).tick(now);
        for due in due {
            match due {
                Due::Ask(relay) => self.ask(relay),
                Due::Want(peer) => self.want(peer),
                Due::Try(peer) => self.try_all(peer),
                Due::Again { to, by, packet } => self.send_by(by, to, packet),
            }
        }
    }

    /// Asks a node by which packets go whether it is there.
    fn ask(&self, relay: NodeId) {
        match self.link_to(relay) {
            Some(link) => link.ask(),
            None => self.say(relay, &Frame::Ping([0; 8])),
        }
    }

    fn want(&self, peer: NodeId) {
        let session = self.sessions.get().and_then(|all| all.session(peer));
        if session.is_some_and(|session| session.address.is_some()) {
            return lock(&self.ways).forget(peer);
        }
        // A link that is no way was silent for too long.
        let is_way = lock(&self.ways).all(peer).contains(&peer);
        let silent = (!is_way).then(|| lock(&self.links).remove(&peer));
        if let Some(silent) = silent.flatten() {
            silent.end();
        }
        // Without room: it is wanted again.
        let _ = self.wants.calls.try_send(peer);
        let _ = self.wants.links.try_send(peer);
    }

    /// Takes those with whom there is a session for ways to a peer, the quickest first. Who has none with
    /// the peer says so. A node that joins has no other way to those who are to be its neighbours.
    fn try_all(&self, to: NodeId) {
        let Some(sessions) = self.sessions.get() else {
            return;
        };
        let mut sessions = sessions.sessions();
        sessions.retain(|session| session.kind == PathKind::Direct && session.peer != to);
        let now = Instant::now();
        let comes_last = |peer| {
            let ways = lock(&self.ways);
            (ways.is_lost(now, peer), ways.is_busy(now, peer))
        };
        sessions.sort_by_cached_key(|session| (comes_last(session.peer), session.rtt));
        for session in sessions.into_iter().take(WAYS_MAX) {
            self.add(to, session.peer);
        }
    }

    fn send(&self, to: NodeId, packet: Bytes) {
        let sending = lock(&self.ways).send(Instant::now(), to, &packet);
        match sending {
            Sending::Held => {}
            Sending::By(relay) => self.send_by(relay, to, packet),
        }
    }

    fn send_by(&self, relay: NodeId, to: NodeId, packet: Bytes) {
        if relay == to {
            return match self.link_to(to) {
                Some(link) => link.send(packet),
                None => lock(&self.ways).refused(to, to),
            };
        }
        let Some(lane) = self.straight(relay) else {
            return lock(&self.ways).lose(relay);
        };
        self.put(&lane, Load::whole(packet), |load| Frame::To(to, load));
    }

    /// Carries a packet of a peer to another one.
    fn forward(&self, peer: NodeId, to: NodeId, load: Load) {
        let length = load.octets.len();
        if peer == to || !(1..=CARRIED_BYTES_MAX).contains(&length) {
            return;
        }
        let lane = self.budget.as_ref().and_then(|_| self.straight(to));
        let (Some(lane), Some(budget)) = (lane, &self.budget) else {
            return self.say(peer, &Frame::NoWay(to));
        };
        let room = lock(budget).take(Instant::now(), peer, length as u64 + OVERHEAD_BYTES);
        match room {
            Room::Yes => {
                self.carried_bytes
                    .fetch_add(length as u64, Ordering::Relaxed);
                self.put(&lane, load, |load| Frame::From(peer, load));
            }
            Room::Busy => self.say(peer, &Frame::Busy),
            Room::No => {}
        }
    }

    /// Takes a packet that a node carried here.
    fn take(&self, relay: NodeId, from: NodeId, load: Load) {
        let Some(sessions) = self.sessions.get() else {
            return;
        };
        let now = Instant::now();
        if from == sessions.me() || load.octets.len() > CARRIED_BYTES_MAX {
            return;
        }
        let Some(held) = lock(&self.ways).heard(now, from, relay) else {
            return;
        };
        for packet in held {
            self.send(from, packet);
        }
        let packet = match load.half {
            None => Some(load.octets),
            Some((number, half)) => {
                let mut halves = lock(&self.halves);
                let is_known = halves.contains_key(&(relay, from));
                if !is_known && halves.len() >= HALVES_MAX {
                    return;
                }
                let halves = halves.entry((relay, from)).or_insert_with(|| Halves {
                    at: now,
                    waiting: Reassembly::default(),
                });
                halves.at = now;
                let whole = halves.waiting.insert(now, number, half, &load.octets);
                whole.map(Bytes::from)
            }
        };
        if let Some(packet) = packet.filter(|packet| packet.len() <= CARRIED_BYTES_MAX) {
            sessions.deliver(from, packet);
        }
    }

    fn put(&self, lane: &DatagramLane, load: Load, frame: impl Fn(Load) -> Frame) {
        let Some(bytes_max) = lane.bytes_max() else {
            return;
        };
        let number = || self.numbers.fetch_add(1, Ordering::Relaxed);
        for load in load.fit(bytes_max, number).into_iter().flatten() {
            // What does not fit, or a lane that has just closed: QUIC sends again.
            let _ = lane.send(frame(load).encode());
        }
    }

    fn say(&self, to: NodeId, frame: &Frame) {
        if let Some(lane) = self.straight(to) {
            let _ = lane.send(frame.encode());
        }
    }

    /// Returns the lane of the session with a peer, if there is one that goes straight.
    fn straight(&self, peer: NodeId) -> Option<DatagramLane> {
        let now = Instant::now();
        let known = lock(&self.lanes).get(&peer).cloned();
        if let Some(known) = known.filter(|known| now.duration_since(known.looked) < STRAIGHT_FOR) {
            return known.lane.filter(|lane| lane.bytes_max().is_some());
        }
        let sessions = self.sessions.get()?;
        // Of nodes that are not there, and perhaps are none, nothing is kept.
        let session = sessions.session(peer)?;
        let is_straight = session.kind == PathKind::Direct;
        let lane = is_straight.then(|| sessions.datagrams(peer)).flatten();
        let mut lanes = lock(&self.lanes);
        if lanes.len() >= LANES_MAX {
            lanes.retain(|_, known| now.duration_since(known.looked) < STRAIGHT_FOR);
        }
        if lanes.len() < LANES_MAX {
            let looked = now;
            lanes.insert(
                peer,
                KnownLane {
                    lane: lane.clone(),
                    looked,
                },
            );
        }
        lane
    }
}

impl Carry for Carrier {
    fn carry(&self, to: NodeId, packet: Bytes) {
        // Without room it is lost, as on any network.
        let _ = self.outgoing.try_send((to, packet));
    }

    fn by(&self, to: NodeId) -> Option<By> {
        let by = lock(&self.ways).by(to)?;
        match by == to {
            true => self.link_to(to).map(|link| By::Link(link.about())),
            false => Some(By::Node(by)),
        }
    }
}

impl Budget {
    fn new(now: Instant, rates: Rates) -> Self {
        Self {
            rates,
            all: Tank::full(now, rates.all),
            each: HashMap::new(),
        }
    }

    /// Takes so many octets for a node, if there are as many. A node is told every [`TELL_BUSY`] at most that
    /// all together have none left.
    fn take(&mut self, now: Instant, node: NodeId, bytes: u64) -> Room {
        if self.each.len() >= LANES_MAX && !self.each.contains_key(&node) {
            let lately = |at: Instant| now.duration_since(at) < SAVED;
            self.each.retain(|_, customer| lately(customer.tank.filled));
            if self.each.len() >= LANES_MAX {
                return Room::No;
            }
        }
        let Rates { each, all } = self.rates;
        let customer = self.each.entry(node).or_insert_with(|| Customer {
            tank: Tank::full(now, each),
            told: None,
        });
        customer.tank.fill(now, each);
        self.all.fill(now, all);
        if customer.tank.bytes < bytes {
            return Room::No;
        }
        if self.all.bytes < bytes {
            let lately = |told: Instant| now.duration_since(told) < TELL_BUSY;
            if customer.told.is_some_and(lately) {
                return Room::No;
            }
            customer.told = Some(now);
            return Room::Busy;
        }
        customer.tank.bytes -= bytes;
        self.all.bytes -= bytes;
        Room::Yes
    }
}

impl Tank {
    fn full(now: Instant, rate: u64) -> Self {
        Self {
            bytes: Self::size(rate),
            filled: now,
        }
    }

    fn size(rate: u64) -> u64 {
        rate / 1_000 * SAVED.as_millis() as u64
    }

    fn fill(&mut self, now: Instant, rate: u64) {
        let passed = now.duration_since(self.filled).min(SAVED);
        let gained = rate * passed.as_micros() as u64 / 1_000_000;
        self.bytes = (self.bytes + gained).min(Self::size(rate));
        self.filled = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_carried_for_one_node_and_for_all_has_a_limit() {
        let mut now = Instant::now();
        const RATE_EACH: u64 = 12_500_000;
        const RATE_ALL: u64 = 50_000_000;
        let rates = Rates {
            each: RATE_EACH,
            all: RATE_ALL,
        };
        let mut budget = Budget::new(now, rates);
        let id = |number| NodeId::from_bytes([number; 32]);
        let mut carried = 0;
        for _ in 0..1_000 {
            now += Duration::from_millis(1);
            let taken = (0..20).filter(|_| budget.take(now, id(1), 1_000) == Room::Yes);
            carried += taken.count() as u64 * 1_000;
        }
        let expected = RATE_EACH..=RATE_EACH + Tank::size(RATE_EACH);
        assert!(expected.contains(&carried), "{carried}");
        for number in 2..=20 {
            budget.take(now, id(number), 3_000_000);
        }
        // Who asks for no more than its share is told, and not for each packet.
        let share = Tank::size(RATE_EACH);
        let mut told = Vec::new();
        for number in 21..=30 {
            told.push(budget.take(now, id(number), share));
        }
        assert_eq!(told.last(), Some(&Room::Busy), "{told:?}");
        assert_eq!(budget.take(now, id(30), share), Room::No);
        assert_eq!(budget.take(now, id(31), share + 1), Room::No);
        for number in 40..=44 {
            budget.take(now + TELL_BUSY, id(number), share);
        }
        assert_eq!(budget.take(now + TELL_BUSY, id(30), share), Room::Busy);
    }
}
