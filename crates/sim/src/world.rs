//! The world: nodes, the network between them, and time.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use enishi_overlay::{Contact, Keypair, NodeId, OverlayId, Rng, Time};
use enishi_services::Node;

use crate::internet::{Model, Site};
use crate::network::{DIAL_TIMEOUT, Fate, Network};
use crate::participant::{Birth, Effect, Input, Participant};
use crate::queue::Queue;

/// The simulated clock's beginning, in seconds since 1970.
pub const EPOCH_UNIX_S: u64 = 1_700_000_000;

/// The number of a node in the world, in the order of their births.
pub type Index = usize;

/// What a node's host keeps for it: when it was written, and what.
type Disk<Key> = BTreeMap<Key, (Time, Vec<u8>)>;

/// A node's body: what stays of it in the world while it is dead.
#[derive(Debug)]
struct Body<Key> {
    secret: [u8; 32],
    disk: Disk<Key>,
    id: NodeId,
    site: Site,
    part: u32,
    alive: bool,
    born_at: Time,
    timer_at: Option<Time>,
}

#[derive(Debug)]
enum Happening<Message> {
    Arrival {
        to: Index,
        from: Index,
        message: Message,
    },
    Undeliverable {
        to: Index,
        peer: NodeId,
    },
    Timer {
        node: Index,
        at: Time,
    },
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Inputs that nodes worked off.
    pub inputs: u64,
    /// Messages sent.
    pub messages: u64,
    /// Octets sent, each message with its length on the wire.
    pub bytes: u64,
}

/// How all nodes of a world are set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The source of everything random.
    pub seed: u64,
    /// How the network behaves.
    pub model: Model,
    /// Long links per node; none lets each node decide.
    pub long_links: Option<u32>,
}

/// What was sent of one sort of message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages.
    pub messages: u64,
    /// Octets.
    pub bytes: u64,
}

/// What was sent, by the sort of message ([`Participant::sort`]).
pub type Traffic = BTreeMap<&'static str, Tally>;

/// Many nodes of one protocol, by default Enishi's, and the network between them.
#[derive(Debug)]
pub struct World<P: Participant = Node> {
    config: P::Config,
    /// The living; apart from the rest, so that a node's effects are carried out while
    /// it still hands them over.
    lives: Vec<Option<P>>,
    ground: Ground<P>,
}

/// Everything in the world but the nodes themselves.
#[derive(Debug)]
struct Ground<P: Participant> {
    now: Time,
    rng: Rng,
    network: Network,
    bodies: Vec<Body<P::Key>>,
    by_id: BTreeMap<NodeId, Index>,
    queue: Queue<Happening<P::Message>>,
    events: Vec<(Time, Index, P::Event)>,
    tapped: Option<Index>,
    tape: Vec<(NodeId, P::Message)>,
    counters: Counters,
    traffic: Traffic,
    trace: blake3::Hasher,
}

impl World {
    /// Makes an empty world for Enishi's nodes.
    pub fn new(setup: Setup) -> Self {
        let mut config = enishi_overlay::Config::new(OverlayId::from_name("simulated"));
        config.long_links = setup.long_links;
        Self::inhabited(setup.seed, setup.model, config)
    }
}

impl<P: Participant> World<P> {
    /// Makes an empty world for the nodes of any protocol, all set up by `config`.
    pub fn inhabited(seed: u64, model: Model, config: P::Config) -> Self {
        let mut octets = [0; 32];
        octets[..8].copy_from_slice(&seed.to_le_bytes());
        let mut rng = Rng::from_seed(octets);
        let network = Network::new(model, Rng::from_seed(rng.octets()));
        Self {
            config,
            lives: Vec::new(),
            ground: Ground {
                now: Time::ZERO,
                rng,
                network,
                bodies: Vec::new(),
                by_id: BTreeMap::new(),
                queue: Queue::default(),
                events: Vec::new(),
                tapped: None,
                tape: Vec::new(),
                counters: Counters::default(),
                traffic: Traffic::new(),
                trace: blake3::Hasher::new(),
            },
        }
    }

    /// Brings a node to life; it joins through `bootstrap`.
    pub fn spawn(&mut self, bootstrap: Option<Index>) -> Index {
        let ground = &mut self.ground;
        let secret = ground.rng.octets();
        let index = ground.bodies.len();
        let id = Keypair::from_seed(&secret).id();
        let site = Site::random(&mut ground.rng);
        ground.bodies.push(Body {
            secret,
            disk: Disk::new(),
            id,
            site,
            part: 0,
            alive: false,
            born_at: ground.now,
            timer_at: None,
        });
        ground.by_id.insert(id, index);
        self.lives.push(None);
        self.start(index, bootstrap);
        index
    }

    /// Starts a node that was killed, with its key and what it had kept.
    pub fn restart(&mut self, index: Index, bootstrap: Option<Index>) {
        self.start(index, bootstrap);
    }

    fn start(&mut self, index: Index, bootstrap: Option<Index>) {
        let ground = &mut self.ground;
        let now = ground.now;
        let contact = ground.contact(index);
        let seed = ground.rng.octets();
        let body = &mut ground.bodies[index];
        body.alive = true;
        body.born_at = now;
        body.timer_at = None;
        let birth = Birth {
            keypair: Keypair::from_seed(&body.secret),
            index,
            contact,
            unix_s: EPOCH_UNIX_S + now.as_micros() / 1_000_000,
            seed,
        };
        let kept = body.disk.clone();
        self.lives[index] = Some(P::new(birth, &self.config));
        self.reset_timer(index);
        for (key, (written_at, value)) in kept {
            let age_s = now.since(written_at).as_secs();
            self.input(index, Input::Restored { key, value, age_s });
        }
        if let Some(contact) = bootstrap.map(|bootstrap| self.ground.contact(bootstrap)) {
            self.input(index, Input::Bootstrap(contact));
        }
    }

    /// Kills a node without a word.
    pub fn kill(&mut self, index: Index) {
        self.lives[index] = None;
        self.ground.bodies[index].alive = false;
        self.ground.network.forget(index as u32);
    }

    /// Lets a node take leave of the others, and stops it.
    pub fn leave(&mut self, index: Index) {
        if let Some(node) = &mut self.lives[index] {
            let age = self.ground.age(index);
            for effect in node.leave(age) {
                self.ground.carry_out(index, effect);
            }
        }
        self.kill(index);
    }

    /// Lets a node try to join through another one once more.
    pub fn bootstrap(&mut self, index: Index, via: Index) {
        let contact = self.ground.contact(via);
        self.input(index, Input::Bootstrap(contact));
    }

    /// Puts a node into a part; nodes of different parts cannot reach each other.
    pub fn set_part(&mut self, index: Index, part: u32) {
        self.ground.bodies[index].part = part;
    }

    /// Lets a node's host ask something.
    pub fn command(&mut self, index: Index, command: P::Command) {
        self.input(index, Input::Command(command));
    }

    /// Records what arrives at a node from now on, for [`Self::take_tape`].
    pub fn tap(&mut self, index: Index) {
        self.ground.tapped = Some(index);
    }

    /// Takes what arrived at the tapped node, with the senders.
    pub fn take_tape(&mut self) -> Vec<(NodeId, P::Message)> {
        std::mem::take(&mut self.ground.tape)
    }

    /// Lets a message arrive at a node at once, as if sent by `from`, which is taken to
    /// have proven that key.
    pub fn inject(&mut self, to: Index, from: NodeId, message: P::Message) {
        self.input(to, Input::Message { from, message });
    }

    /// Lets time go by.
    pub fn run_for(&mut self, duration: Duration) {
        let until = self.ground.now + duration;
        while let Some((at, happening)) = self.ground.queue.pop_until(until) {
            self.ground.now = at;
            self.happen(happening);
        }
        self.ground.now = until;
    }

    /// Returns the present time.
    pub fn now(&self) -> Time {
        self.ground.now
    }

    /// Returns the world's randomness, for the choices of a scenario.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.ground.rng
    }

    /// Returns a living node.
    pub fn node(&self, index: Index) -> Option<&P> {
        self.lives[index].as_ref()
    }

    /// Visits the living nodes.
    pub fn living(&self) -> impl Iterator<Item = (Index, &P)> {
        let lives = self.lives.iter().enumerate();
        lives.filter_map(|(index, life)| Some((index, life.as_ref()?)))
    }

    /// Returns the number of a node.
    pub fn index_of(&self, id: NodeId) -> Option<Index> {
        self.ground.by_id.get(&id).copied()
    }

    /// Returns who a node is, dead or alive.
    pub fn id(&self, index: Index) -> NodeId {
        self.ground.bodies[index].id
    }

    /// Draws a living node.
    pub fn any(&mut self) -> Index {
        let living: Vec<Index> = self.living().map(|(index, _)| index).collect();
        living[self.ground.rng.below(living.len() as u64) as usize]
    }

    /// Takes the events that nodes told their hosts since the last call.
    pub fn take_events(&mut self) -> Vec<(Time, Index, P::Event)> {
        std::mem::take(&mut self.ground.events)
    }

    /// Returns what was counted.
    pub fn counters(&self) -> Counters {
        self.ground.counters
    }

    /// Returns what was sent, by the sort of message.
    pub fn traffic(&self) -> &Traffic {
        &self.ground.traffic
    }

    /// Returns a hash of everything that has happened: when, to whom, what sort, how long.
    pub fn trace(&self) -> [u8; 32] {
        *self.ground.trace.finalize().as_bytes()
    }

    fn happen(&mut self, happening: Happening<P::Message>) {
        match happening {
            Happening::Arrival { to, from, message } => {
                let from = self.ground.bodies[from].id;
                if self.ground.tapped == Some(to) {
                    self.ground.tape.push((from, message.clone()));
                }
                self.input(to, Input::Message { from, message });
            }
            Happening::Undeliverable { to, peer } => self.input(to, Input::Unreachable(peer)),
            Happening::Timer { node, at } => {
                if self.ground.bodies[node].timer_at == Some(at) {
                    self.ground.bodies[node].timer_at = None;
                    self.input(node, Input::Timeout);
                }
            }
        }
    }

    /// Hands an input to a node and carries out what it wants.
    fn input(&mut self, index: Index, input: Input<P>) {
        let Some(node) = &mut self.lives[index] else {
            return;
        };
        let ground = &mut self.ground;
        ground.counters.inputs += 1;
        for effect in node.handle(ground.age(index), input) {
            ground.carry_out(index, effect);
        }
        self.reset_timer(index);
    }

    fn reset_timer(&mut self, index: Index) {
        let due = self.lives[index].as_ref().and_then(P::next_timeout);
        if let Some(due) = due {
            self.ground.set_timer(index, due);
        }
    }
}

impl<P: Participant> Ground<P> {
    fn contact(&self, index: Index) -> Contact {
        Contact::new(self.bodies[index].id, [address(index)])
    }

    /// Returns the time since a node's start.
    fn age(&self, index: Index) -> Time {
        Time::ZERO + self.now.since(self.bodies[index].born_at)
    }

    fn carry_out(&mut self, index: Index, effect: Effect<P>) {
        match effect {
            Effect::Send { to, message } => self.send(index, to.id(), message),
            Effect::Drop(peer) => {
                if let Some(peer) = self.by_id.get(&peer) {
                    self.network.close(index as u32, *peer as u32);
                }
            }
            Effect::Event(event) => self.events.push((self.now, index, event)),
            Effect::Persist { key, value } => {
                let disk = &mut self.bodies[index].disk;
                match value {
                    Some(value) => disk.insert(key, (self.now, value)),
                    None => disk.remove(&key),
                };
            }
        }
    }

    fn send(&mut self, from: Index, to: NodeId, message: P::Message) {
        let bytes = P::encoded_len(&message) as u64;
        self.counters.messages += 1;
        self.counters.bytes += bytes;
        let tally = self.traffic.entry(P::sort(&message)).or_default();
        tally.messages += 1;
        tally.bytes += bytes;
        self.note(from, &to, bytes);
        let Some(receiver) = self.by_id.get(&to).copied() else {
            return self.queue.push(
                self.now + DIAL_TIMEOUT,
                Happening::Undeliverable { to: from, peer: to },
            );
        };
        let (a, b) = (&self.bodies[from], &self.bodies[receiver]);
        let reachable = b.alive && a.part == b.part;
        let ends = ((from as u32, &a.site), (receiver as u32, &b.site));
        match self.network.send(self.now, ends.0, ends.1, reachable) {
            Fate::Arrives(delay) => {
                let arrival = Happening::Arrival {
                    to: receiver,
                    from,
                    message,
                };
                self.queue.push(self.now + delay, arrival);
            }
            Fate::Lost => {}
            Fate::Undeliverable => {
                let undeliverable = Happening::Undeliverable { to: from, peer: to };
                self.queue.push(self.now + DIAL_TIMEOUT, undeliverable);
            }
        }
    }

    fn note(&mut self, from: Index, to: &NodeId, bytes: u64) {
        self.trace.update(&self.now.as_micros().to_le_bytes());
        self.trace.update(&(from as u64).to_le_bytes());
        self.trace.update(to.as_bytes());
        self.trace.update(&bytes.to_le_bytes());
    }

    fn set_timer(&mut self, index: Index, due: Time) {
        let body = &mut self.bodies[index];
        let at = (body.born_at + due.since(Time::ZERO)).max(self.now);
        if body.timer_at.is_none_or(|present| present != at) {
            body.timer_at = Some(at);
            self.queue.push(at, Happening::Timer { node: index, at });
        }
    }
}

/// An address that looks like one and names the node.
fn address(index: Index) -> SocketAddr {
    let low = index as u32;
    let ip = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, (low >> 16) as u16, low as u16);
    SocketAddr::new(ip.into(), 7000)
}
