//! Everything in the world but the nodes themselves.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use enishi_overlay::{Contact, Keypair, NodeId, Rng, Time};
use rustc_hash::FxHashMap;
use slab::Slab;

use crate::internet::{Model, Site};
use crate::network::{DIAL_TIMEOUT, Fate, Network};
use crate::participant::{Effect, Participant};
use crate::queue::Queue;
use crate::trace::Trace;
use crate::world::{Counters, Index, Load, Tally, Traffic};

/// The time at which nothing happens.
const NEVER: Time = Time::from_micros(u64::MAX);
/// The first octet of every node's address.
const PREFIX: u8 = 10;
const PORT: u16 = 7000;

/// What a node's host keeps for it: when it was written, and what.
type Disk<Key> = BTreeMap<Key, (Time, Vec<u8>)>;

/// What is looked at for every message from or to a node, dead or alive.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) id: NodeId,
    pub(crate) part: u32,
    pub(crate) born_at: Time,
    pub(crate) site: Site,
    /// What it has sent and received.
    pub(crate) load: Load,
    /// The earliest timer in the queue that counts; [`NEVER`] without one.
    timer_at: Time,
    /// Its place among the living; none while it is dead.
    place: Option<u32>,
}

/// What is left of a node when it dies.
#[derive(Debug)]
pub(crate) struct Estate<Key> {
    pub(crate) secret: [u8; 32],
    pub(crate) disk: Disk<Key>,
}

/// What is going to happen.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Happening {
    /// A letter arrives.
    Letter(u32),
    /// A node may want to be woken.
    Timer(u32),
}

/// What is on its way to a node.
#[derive(Debug)]
pub(crate) enum Letter<Message> {
    /// A message from another.
    Message {
        to: u32,
        from: u32,
        message: Message,
    },
    /// Word that dialling was in vain.
    Undeliverable { to: u32, peer: NodeId },
}

/// What was sent by its sorts. For every message a name is looked for: by where it is in
/// memory, so that no text has to be compared. One name may be in several places.
#[derive(Debug, Default)]
pub(crate) struct Sums(Vec<(&'static str, Tally)>);

impl Sums {
    fn note(&mut self, sort: &'static str, bytes: u64) {
        let known = self
            .0
            .iter_mut()
            .find(|(name, _)| std::ptr::eq(*name, sort));
        let added = Tally { messages: 1, bytes };
        match known {
            Some((_, tally)) => tally.add(added),
            None => self.0.push((sort, added)),
        }
    }

    /// Returns the sums by name.
    pub(crate) fn by_name(&self) -> Traffic {
        let mut traffic = Traffic::new();
        for (name, tally) in &self.0 {
            traffic.entry(*name).or_default().add(*tally);
        }
        traffic
    }
}

/// Everything in the world but the nodes themselves.
#[derive(Debug)]
pub(crate) struct Ground<P: Participant> {
    pub(crate) now: Time,
    pub(crate) rng: Rng,
    pub(crate) bodies: Vec<Body>,
    pub(crate) estates: Vec<Estate<P::Key>>,
    pub(crate) queue: Queue<Happening>,
    pub(crate) letters: Slab<Letter<P::Message>>,
    pub(crate) events: Vec<(Time, Index, P::Event)>,
    pub(crate) tapped: Option<Index>,
    pub(crate) tape: Vec<(NodeId, P::Message)>,
    pub(crate) counters: Counters,
    pub(crate) traffic: Sums,
    pub(crate) trace: Trace,
    pub(crate) network: Network,
    /// The numbers of the living, in an order that depends on deaths.
    living: Vec<u32>,
    /// In an order without meaning: only looked up.
    by_id: FxHashMap<NodeId, u32>,
}

impl<P: Participant> Ground<P> {
    pub(crate) fn new(model: Model, mut rng: Rng) -> Self {
        Self {
            now: Time::ZERO,
            network: Network::new(model, Rng::from_seed(rng.octets())),
            rng,
            bodies: Vec::new(),
            estates: Vec::new(),
            queue: Queue::default(),
            letters: Slab::new(),
            events: Vec::new(),
            tapped: None,
            tape: Vec::new(),
            counters: Counters::default(),
            traffic: Sums::default(),
            trace: Trace::default(),
            living: Vec::new(),
            by_id: FxHashMap::default(),
        }
    }

    /// Makes room for one more node, which is dead as yet. `secret` is the seed of its key.
    pub(crate) fn settle(&mut self, secret: [u8; 32]) -> Index {
        let index = self.bodies.len();
        let id = Keypair::from_seed(&secret).id();
        self.bodies.push(Body {
            id,
            part: 0,
            born_at: self.now,
            site: Site::random(&mut self.rng),
            load: Load::default(),
            timer_at: NEVER,
            place: None,
        });
        let disk = Disk::new();
        self.estates.push(Estate { secret, disk });
        self.by_id.insert(id, index as u32);
        index
    }

    /// Counts a node among the living, from now on.
    pub(crate) fn wake(&mut self, index: Index) {
        let body = &mut self.bodies[index];
        body.born_at = self.now;
        body.timer_at = NEVER;
        if body.place.is_none() {
            body.place = Some(self.living.len() as u32);
            self.living.push(index as u32);
        }
    }

    /// Counts a node among the dead and forgets its sessions.
    pub(crate) fn bury(&mut self, index: Index) {
        self.network.forget(index as u32);
        if let Some(place) = self.bodies[index].place.take() {
            self.living.swap_remove(place as usize);
            if let Some(moved) = self.living.get(place as usize) {
                self.bodies[*moved as usize].place = Some(place);
            }
        }
    }

    /// Draws one of the living.
    pub(crate) fn any(&mut self) -> Index {
        let place = self.rng.below(self.living.len() as u64);
        self.living[place as usize] as Index
    }

    pub(crate) fn index_of(&self, id: &NodeId) -> Option<Index> {
        self.by_id.get(id).map(|index| *index as Index)
    }

    pub(crate) fn contact(&self, index: Index) -> Contact {
        Contact::new(self.bodies[index].id, [address(index as u32)])
    }

    /// Draws how long a message takes in an open session.
    pub(crate) fn one_way(&mut self, from: Index, to: Index) -> Option<Duration> {
        let (a, b) = (&self.bodies[from].site, &self.bodies[to].site);
        self.network.one_way((from as u32, a), (to as u32, b))
    }

    /// Returns the time since a node's start.
    pub(crate) fn age(&self, index: Index) -> Time {
        Time::ZERO + self.now.since(self.bodies[index].born_at)
    }

    /// Does what a node wants done.
    pub(crate) fn carry_out(&mut self, index: Index, effect: Effect<P>) {
        match effect {
            Effect::Send { to, message } => self.send(index as u32, &to, message),
            Effect::GiveUp(peer) => {
                let peer = self.index_of(&peer);
                self.close(index, peer.filter(|peer| !self.reaches(index, *peer)));
            }
            Effect::Drop(peer) => self.close(index, self.index_of(&peer)),
            Effect::Event(event) => self.events.push((self.now, index, event)),
            Effect::Persist { key, value } => {
                let disk = &mut self.estates[index].disk;
                match value {
                    Some(value) => disk.insert(key, (self.now, value)),
                    None => disk.remove(&key),
                };
            }
        }
    }

    /// Ends a node's session with another one.
    fn close(&mut self, index: Index, peer: Option<Index>) {
        if let Some(peer) = peer {
            self.network.close(index as u32, peer as u32);
        }
    }

    /// Tells whether what a node sends comes to another one.
    fn reaches(&self, from: Index, to: Index) -> bool {
        let (a, b) = (&self.bodies[from], &self.bodies[to]);
        b.place.is_some() && a.part == b.part
    }

    fn send(&mut self, from: u32, contact: &Contact, message: P::Message) {
        let bytes = P::encoded_len(&message) as u64;
        self.counters.messages += 1;
        self.counters.bytes += bytes;
        let load = &mut self.bodies[from as usize].load;
        load.messages_sent += 1;
        load.bytes_sent += bytes;
        self.traffic.note(P::sort(&message), bytes);
        let Some(to) = self.receiver(contact) else {
            self.trace.sent_astray(self.now, from, &contact.id(), bytes);
            return self.send_back(from, contact.id());
        };
        self.trace.sent(self.now, from, to, bytes);
        let (a, b) = (&self.bodies[from as usize], &self.bodies[to as usize]);
        let reachable = self.reaches(from as usize, to as usize);
        let ends = ((from, &a.site), (to, &b.site));
        match self.network.send(self.now, ends.0, ends.1, reachable) {
            Fate::Arrives(delay) => {
                let letter = Letter::Message { to, from, message };
                let number = self.letters.insert(letter) as u32;
                self.queue.push(self.now + delay, Happening::Letter(number));
                let load = &mut self.bodies[to as usize].load;
                load.messages_received += 1;
                load.bytes_received += bytes;
            }
            Fate::Lost => self.counters.lost += 1,
            Fate::Undeliverable => self.send_back(from, contact.id()),
        }
    }

    /// Finds whom a contact means. The number is read from the address where it can be;
    /// a contact without one, or with a false one, is looked up.
    fn receiver(&self, contact: &Contact) -> Option<u32> {
        let id = contact.id();
        let told = contact.addresses().first().and_then(index_at);
        let true_index =
            told.filter(|index| self.bodies.get(*index as usize).is_some_and(|b| b.id == id));
        true_index.or_else(|| self.by_id.get(&id).copied())
    }

    fn send_back(&mut self, to: u32, peer: NodeId) {
        let number = self.letters.insert(Letter::Undeliverable { to, peer }) as u32;
        let at = self.now + DIAL_TIMEOUT;
        self.queue.push(at, Happening::Letter(number));
    }

    /// Tells whether two nodes have an open session.
    pub(crate) fn are_connected(&self, a: u32, b: &NodeId) -> bool {
        let b = self.by_id.get(b);
        b.is_some_and(|b| self.network.is_open(self.now, a, *b))
    }

    /// Has a node woken at `due`, or now if that is over. A timer that is in the queue
    /// for an earlier time stays: it finds out by itself that it comes too early.
    pub(crate) fn set_timer(&mut self, index: Index, due: Time) {
        let at = due.max(self.now);
        let body = &mut self.bodies[index];
        if at < body.timer_at {
            body.timer_at = at;
            self.queue.push(at, Happening::Timer(index as u32));
        }
    }

    /// Takes a node's timer from the queue; tells whether it counts still.
    pub(crate) fn take_timer(&mut self, index: Index) -> bool {
        let body = &mut self.bodies[index];
        let counts = body.timer_at == self.now;
        if counts {
            body.timer_at = NEVER;
        }
        counts
    }
}

/// An address that looks like one and names the node, up to 2^24 of them.
fn address(index: u32) -> SocketAddr {
    let [_, b, c, d] = index.to_be_bytes();
    SocketAddr::new(Ipv4Addr::new(PREFIX, b, c, d).into(), PORT)
}

/// Reads the node's number from [`address`].
fn index_at(address: &SocketAddr) -> Option<u32> {
    let IpAddr::V4(ip) = address.ip() else {
        return None;
    };
    let [prefix, b, c, d] = ip.octets();
    (prefix == PREFIX).then(|| u32::from_be_bytes([0, b, c, d]))
}
