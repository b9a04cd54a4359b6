//! The world: nodes, the network between them, and time.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use enishi_overlay::{Contact, Keypair, Message, NodeId, OverlayId, Rng, Time};
use enishi_services::service::ServiceId;
use enishi_services::{Command, Config, Event, Input, Node, Output};

use crate::network::{DIAL_TIMEOUT, Fate, Model, Network, Spot};
use crate::queue::Queue;

/// The simulated clock's beginning, in seconds since 1970.
pub const EPOCH_UNIX_S: u64 = 1_700_000_000;

/// The number of a node in the world, in the order of their births.
pub type Index = usize;

/// What a node's host keeps for it: when it was written, and what.
type Disk = BTreeMap<(ServiceId, Vec<u8>), (Time, Vec<u8>)>;

#[derive(Debug)]
struct Inhabitant {
    node: Option<Node>,
    keypair: Keypair,
    disk: Disk,
    id: NodeId,
    spot: Spot,
    part: u32,
    born_at: Time,
    timer_at: Option<Time>,
    /// Whether it declines to be traced.
    reticent: bool,
}

#[derive(Debug)]
enum Happening {
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

/// Many nodes and the network between them.
#[derive(Debug)]
pub struct World {
    setup: Setup,
    now: Time,
    rng: Rng,
    network: Network,
    nodes: Vec<Inhabitant>,
    by_id: BTreeMap<NodeId, Index>,
    queue: Queue<Happening>,
    events: Vec<(Time, Index, Event)>,
    tapped: Option<Index>,
    tape: Vec<(NodeId, Message)>,
    counters: Counters,
    trace: blake3::Hasher,
}

impl World {
    /// Makes an empty world.
    pub fn new(setup: Setup) -> Self {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&setup.seed.to_le_bytes());
        let mut rng = Rng::from_seed(seed);
        let network = Network::new(setup.model.clone(), Rng::from_seed(rng.octets()));
        Self {
            setup,
            now: Time::ZERO,
            rng,
            network,
            nodes: Vec::new(),
            by_id: BTreeMap::new(),
            queue: Queue::default(),
            events: Vec::new(),
            tapped: None,
            tape: Vec::new(),
            counters: Counters::default(),
            trace: blake3::Hasher::new(),
        }
    }

    /// Brings a node to life; it joins through `bootstrap`.
    pub fn spawn(&mut self, bootstrap: Option<Index>) -> Index {
        let keypair = Keypair::from_seed(&self.rng.octets());
        let index = self.nodes.len();
        let id = keypair.id();
        let spot = Spot::random(&mut self.rng);
        self.nodes.push(Inhabitant {
            node: None,
            keypair,
            disk: Disk::new(),
            id,
            spot,
            part: 0,
            born_at: self.now,
            timer_at: None,
            reticent: false,
        });
        self.by_id.insert(id, index);
        self.start(index, bootstrap);
        index
    }

    /// Has a node decline to be traced from its next start on.
    pub fn make_reticent(&mut self, index: Index) {
        self.nodes[index].reticent = true;
    }

    /// Starts a node that was killed, with its key and what it had kept.
    pub fn restart(&mut self, index: Index, bootstrap: Option<Index>) {
        self.start(index, bootstrap);
    }

    fn start(&mut self, index: Index, bootstrap: Option<Index>) {
        let config = self.config(index);
        let seed = self.rng.octets();
        let inhabitant = &mut self.nodes[index];
        inhabitant.node = Some(Node::new(inhabitant.keypair.clone(), config, seed));
        inhabitant.born_at = self.now;
        inhabitant.timer_at = None;
        self.reset_timer(index);
        for ((service, key), (written_at, value)) in self.nodes[index].disk.clone() {
            let age_s = self.now.since(written_at).as_secs();
            self.input(
                index,
                Input::Restored {
                    service,
                    key,
                    value,
                    age_s,
                },
            );
        }
        if let Some(contact) = bootstrap.map(|bootstrap| self.contact(bootstrap)) {
            self.input(index, Input::Bootstrap(vec![contact]));
        }
    }

    /// Kills a node without a word.
    pub fn kill(&mut self, index: Index) {
        self.nodes[index].node = None;
        self.network.forget(index as u32);
    }

    /// Puts a node into a part; nodes of different parts cannot reach each other.
    pub fn set_part(&mut self, index: Index, part: u32) {
        self.nodes[index].part = part;
    }

    /// Lets a node's host ask something.
    pub fn command(&mut self, index: Index, command: Command) {
        self.input(index, Input::Command(command));
    }

    /// Records what arrives at a node from now on, for [`Self::take_tape`].
    pub fn tap(&mut self, index: Index) {
        self.tapped = Some(index);
    }

    /// Takes what arrived at the tapped node, with the senders.
    pub fn take_tape(&mut self) -> Vec<(NodeId, Message)> {
        std::mem::take(&mut self.tape)
    }

    /// Lets a message arrive at a node at once, as if sent by `from`, which is taken to
    /// have proven that key.
    pub fn inject(&mut self, to: Index, from: NodeId, message: Message) {
        self.input(to, Input::Message { from, message });
    }

    /// Lets time go by.
    pub fn run_for(&mut self, duration: Duration) {
        let until = self.now + duration;
        while let Some((at, happening)) = self.queue.pop_until(until) {
            self.now = at;
            self.happen(happening);
        }
        self.now = until;
    }

    /// Returns the present time.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Returns the world's randomness, for the choices of a scenario.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// Returns a living node.
    pub fn node(&self, index: Index) -> Option<&Node> {
        self.nodes[index].node.as_ref()
    }

    /// Visits the living nodes.
    pub fn living(&self) -> impl Iterator<Item = (Index, &Node)> {
        let nodes = self.nodes.iter().enumerate();
        nodes.filter_map(|(index, inhabitant)| Some((index, inhabitant.node.as_ref()?)))
    }

    /// Returns the number of a node.
    pub fn index_of(&self, id: NodeId) -> Option<Index> {
        self.by_id.get(&id).copied()
    }

    /// Draws a living node.
    pub fn any(&mut self) -> Index {
        let living: Vec<Index> = self.living().map(|(index, _)| index).collect();
        living[self.rng.below(living.len() as u64) as usize]
    }

    /// Takes the events that nodes told their hosts since the last call.
    pub fn take_events(&mut self) -> Vec<(Time, Index, Event)> {
        std::mem::take(&mut self.events)
    }

    /// Returns what was counted.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Returns a hash of everything that has happened: when, to whom, what sort, how long.
    pub fn trace(&self) -> [u8; 32] {
        *self.trace.finalize().as_bytes()
    }

    fn config(&self, index: Index) -> Config {
        let mut overlay = enishi_overlay::Config::new(OverlayId::from_name("simulated"));
        overlay.long_links = self.setup.long_links;
        overlay.reports_hops = !self.nodes[index].reticent;
        Config {
            overlay,
            addresses: vec![address(index)],
            host_name: format!("host{index}"),
            started_unix_s: EPOCH_UNIX_S + self.now.as_micros() / 1_000_000,
        }
    }

    fn contact(&self, index: Index) -> Contact {
        Contact::new(self.nodes[index].id, [address(index)])
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrival { to, from, message } => {
                let from = self.nodes[from].id;
                if self.tapped == Some(to) {
                    self.tape.push((from, message.clone()));
                }
                self.input(to, Input::Message { from, message });
            }
            Happening::Undeliverable { to, peer } => self.input(to, Input::Unreachable(peer)),
            Happening::Timer { node, at } => {
                if self.nodes[node].timer_at == Some(at) {
                    self.nodes[node].timer_at = None;
                    self.input(node, Input::Timeout);
                }
            }
        }
    }

    /// Hands an input to a node and carries out what it wants.
    fn input(&mut self, index: Index, input: Input) {
        let inhabitant = &mut self.nodes[index];
        let since_birth = Time::ZERO + self.now.since(inhabitant.born_at);
        let Some(node) = &mut inhabitant.node else {
            return;
        };
        self.counters.inputs += 1;
        let outputs: Vec<Output> = node.handle(since_birth, input).collect();
        for output in outputs {
            match output {
                Output::Send { to, message } => self.send(index, to.id(), message),
                Output::Drop(peer) => {
                    if let Some(peer) = self.index_of(peer) {
                        self.network.close(index as u32, peer as u32);
                    }
                }
                Output::Event(event) => self.events.push((self.now, index, event)),
                Output::Persist {
                    service,
                    key,
                    value,
                } => {
                    let disk = &mut self.nodes[index].disk;
                    match value {
                        Some(value) => disk.insert((service, key), (self.now, value)),
                        None => disk.remove(&(service, key)),
                    };
                }
                Output::Remember(_) | Output::Dial(_) => {}
            }
        }
        self.reset_timer(index);
    }

    fn send(&mut self, from: Index, to: NodeId, message: Message) {
        let bytes = message.encoded_len() as u64;
        self.counters.messages += 1;
        self.counters.bytes += bytes;
        self.note(from, &to, bytes);
        let Some(receiver) = self.index_of(to) else {
            return self.queue.push(
                self.now + DIAL_TIMEOUT,
                Happening::Undeliverable { to: from, peer: to },
            );
        };
        let (a, b) = (&self.nodes[from], &self.nodes[receiver]);
        let reachable = b.node.is_some() && a.part == b.part;
        let ends = ((from as u32, a.spot), (receiver as u32, b.spot));
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

    fn reset_timer(&mut self, index: Index) {
        let inhabitant = &mut self.nodes[index];
        let due = inhabitant.node.as_ref().and_then(Node::next_timeout);
        let Some(due) = due else { return };
        let at = (inhabitant.born_at + due.since(Time::ZERO)).max(self.now);
        if inhabitant.timer_at.is_none_or(|present| present != at) {
            inhabitant.timer_at = Some(at);
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
