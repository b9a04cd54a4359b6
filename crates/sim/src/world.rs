//! The world: nodes, the network between them, and time.

use std::collections::BTreeMap;
use std::time::Duration;

use enishi_overlay::class::Measure;
use enishi_overlay::config::Forwarding;
use enishi_overlay::{Keypair, NodeId, OverlayId, Rng, Time};
use enishi_services::Node;

use crate::ground::{Body, Ground, Happening, Letter};
use crate::internet::Model;
use crate::participant::{Birth, Input, Participant};

/// The simulated clock's beginning, in seconds since 1970.
pub const EPOCH_UNIX_S: u64 = 1_700_000_000;

/// The number of a node in the world, in the order of their births.
pub type Index = usize;

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Inputs that nodes worked off.
    pub inputs: u64,
    /// Messages that reached nobody: on the way to a node that was or had gone.
    pub lost: u64,
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

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.bytes += other.bytes;
    }
}

/// What one node has sent and received since its birth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Messages sent.
    pub messages_sent: u64,
    /// Octets sent.
    pub bytes_sent: u64,
    /// Messages received, or on their way.
    pub messages_received: u64,
    /// Octets received, or on their way.
    pub bytes_received: u64,
}

/// What nodes are besides what their places in the network make them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct People {
    /// How many of a million are clients.
    pub clients_per_million: u32,
    /// Whether nodes remember how long they usually stay: 16 minutes to 22 days, each
    /// doubling as likely as the others. Without, they know only how long they are up.
    pub histories: bool,
}

/// What was sent, by the sort of message ([`Participant::sort`]).
pub type Traffic = BTreeMap<&'static str, Tally>;

/// Many nodes of one protocol, by default Enishi's, and the network between them.
#[derive(Debug)]
pub struct World<P: Participant = Node> {
    config: P::Config,
    people: People,
    /// How those are set up that were born otherwise.
    others: BTreeMap<Index, P::Config>,
    /// The living; apart from the rest, so that a node's effects are carried out while
    /// it still hands them over.
    lives: Vec<Option<Box<P>>>,
    ground: Ground<P>,
}

impl People {
    /// Returns what a node is, the same in each of its lives: its key decides, which is as
    /// good as a draw. The first one is no client: it would have nobody to attach to.
    fn traits(self, index: Index, body: &Body) -> (Measure, bool) {
        let id = body.id.as_bytes();
        let draw = |i: usize| u64::from_le_bytes(std::array::from_fn(|j| id[8 * i + j]));
        let mut measure = body.site.measure(draw(0));
        if self.histories {
            measure.stay_s = 60 << (4 + draw(1) % 12);
        }
        let client = index > 0 && draw(2) % 1_000_000 < self.clients_per_million.into();
        (measure, client)
    }
}

impl World {
    /// Makes an empty world for Enishi's nodes.
    pub fn new(setup: Setup) -> Self {
        let mut config = enishi_overlay::Config::new(OverlayId::from_name("simulated"));
        config.long_links = setup.long_links;
        Self::inhabited(setup.seed, setup.model, config)
    }

    /// Has all nodes, also those yet to be born, choose next hops in this way from now on.
    pub fn set_forwarding(&mut self, forwarding: Forwarding) {
        self.config.overlay.forwarding = forwarding;
        for node in self.lives.iter_mut().flatten() {
            node.set_forwarding(forwarding);
        }
    }
}

impl<P: Participant> World<P> {
    /// Makes an empty world for the nodes of any protocol, all set up by `config`.
    pub fn inhabited(seed: u64, model: Model, config: impl Into<P::Config>) -> Self {
        let mut octets = [0; 32];
        octets[..8].copy_from_slice(&seed.to_le_bytes());
        Self {
            config: config.into(),
            people: People::default(),
            others: BTreeMap::new(),
            lives: Vec::new(),
            ground: Ground::new(model, Rng::from_seed(octets)),
        }
    }

    /// Chooses what the nodes to be born are.
    pub fn set_people(&mut self, people: People) {
        self.people = people;
    }

    /// Returns what a node, dead or alive, has sent and received.
    pub fn load(&self, index: Index) -> Load {
        self.ground.bodies[index].load
    }

    /// Brings a node to life; it joins through `bootstrap`.
    pub fn spawn(&mut self, bootstrap: Option<Index>) -> Index {
        let secret = self.ground.rng.octets();
        self.spawn_with(secret, bootstrap)
    }

    /// Brings a node with a given key to life; `secret` is the key's seed.
    pub fn spawn_with(&mut self, secret: [u8; 32], bootstrap: Option<Index>) -> Index {
        let index = self.settle(secret);
        self.start(index, bootstrap);
        index
    }

    /// Brings a node to life that is set up otherwise than the rest, now and whenever it is
    /// restarted. `secret` is the seed of its key.
    pub fn spawn_as(
        &mut self,
        secret: [u8; 32],
        config: impl Into<P::Config>,
        bootstrap: Option<Index>,
    ) -> Index {
        let index = self.settle(secret);
        self.others.insert(index, config.into());
        self.start(index, bootstrap);
        index
    }

    fn settle(&mut self, secret: [u8; 32]) -> Index {
        self.lives.push(None);
        self.ground.settle(secret)
    }

    /// Lets the nodes that start from now on be set up in another way.
    pub fn config_mut(&mut self) -> &mut P::Config {
        &mut self.config
    }

    /// Starts a node that was killed, with its key and what it had kept.
    pub fn restart(&mut self, index: Index, bootstrap: Option<Index>) {
        self.start(index, bootstrap);
    }

    fn start(&mut self, index: Index, bootstrap: Option<Index>) {
        let ground = &mut self.ground;
        let now = ground.now;
        let seed = ground.rng.octets();
        ground.wake(index);
        let (measure, client) = self.people.traits(index, &ground.bodies[index]);
        let estate = &ground.estates[index];
        let birth = Birth {
            keypair: Keypair::from_seed(&estate.secret),
            index,
            contact: ground.contact(index),
            unix_s: EPOCH_UNIX_S + now.as_micros() / 1_000_000,
            seed,
            measure,
            client,
        };
        let kept = estate.disk.clone();
        let config = self.others.get(&index).unwrap_or(&self.config);
        self.lives[index] = Some(Box::new(P::new(birth, config)));
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
        self.ground.bury(index);
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

    /// Tells whether two nodes, born or yet to be born, can never reach each other.
    pub fn is_broken(&self, a: Index, b: Index) -> bool {
        self.ground.network.is_broken(a as u32, b as u32)
    }

    /// Draws how long a message from one node straight to another takes in an open session;
    /// none when they can never reach each other.
    pub fn one_way(&mut self, from: Index, to: Index) -> Option<Duration> {
        self.ground.one_way(from, to)
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

    /// Has every message of a session take so much longer from now on, in either direction, as where
    /// all nodes have too much to do.
    pub fn set_slowness(&mut self, slowness: Duration) {
        self.ground.network.set_slowness(slowness);
    }

    /// Returns how many nodes were born so far, which is the number of the next one.
    pub fn born(&self) -> Index {
        self.lives.len()
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
        self.lives[index].as_deref()
    }

    /// Visits the living nodes in the order of their births.
    pub fn living(&self) -> impl Iterator<Item = (Index, &P)> {
        let lives = self.lives.iter().enumerate();
        lives.filter_map(|(index, life)| Some((index, life.as_deref()?)))
    }

    /// Returns the number of a node.
    pub fn index_of(&self, id: NodeId) -> Option<Index> {
        self.ground.index_of(&id)
    }

    /// Returns who a node is, dead or alive.
    pub fn id(&self, index: Index) -> NodeId {
        self.ground.bodies[index].id
    }

    /// Draws a living node. There must be one.
    pub fn any(&mut self) -> Index {
        self.ground.any()
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
    pub fn traffic(&self) -> Traffic {
        self.ground.traffic.by_name()
    }

    /// Returns a hash of everything that has happened: who sent how much to whom, and when.
    pub fn trace(&self) -> [u8; 32] {
        self.ground.trace.digest()
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Letter(number) => match self.ground.letters.remove(number as usize) {
                Letter::Message { to, from, message } => self.deliver(to as Index, from, message),
                Letter::Undeliverable { to, peer } => {
                    // The peer may have opened a session meanwhile; the daemon says nothing then.
                    if !self.ground.are_connected(to, &peer) {
                        self.input(to as Index, Input::Unreachable(peer));
                    }
                }
            },
            Happening::Timer(node) => {
                let index = node as Index;
                if self.ground.take_timer(index) {
                    let due = self.due(index);
                    match due {
                        Some(due) if due <= self.ground.now => self.input(index, Input::Timeout),
                        _ => self.reset_timer(index),
                    }
                }
            }
        }
    }

    fn deliver(&mut self, to: Index, from: u32, message: P::Message) {
        let from = self.ground.bodies[from as Index].id;
        if self.ground.tapped == Some(to) {
            self.ground.tape.push((from, message.clone()));
        }
        if self.lives[to].is_none() {
            self.ground.counters.lost += 1;
        }
        self.input(to, Input::Message { from, message });
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

    /// Returns when a living node wants to be woken.
    fn due(&self, index: Index) -> Option<Time> {
        let due = self.lives[index].as_ref()?.next_timeout()?;
        Some(self.ground.bodies[index].born_at + due.since(Time::ZERO))
    }

    fn reset_timer(&mut self, index: Index) {
        if let Some(due) = self.due(index) {
            self.ground.set_timer(index, due);
        }
    }
}
