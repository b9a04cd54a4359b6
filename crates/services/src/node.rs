//! The node: the kernel around the overlay and the services.
//!
//! ```text
//!            Input                                  Output
//!              |                                      ^
//!              v                                      |
//!   +--------------------- Node ------------------------------+
//!   |  overlay  --effects-->  services  --calls-->  overlay   |
//!   |  behind the gate    dht diag multicast reach vnet       |
//!   +---------------------------------------------------------+
//! ```
//!
//! One input is worked off to its end: effects and calls are handed on until none is
//! left. Nothing here decides anything; it only dispatches.

mod handed;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;

use enishi_overlay::class::Measure;
use enishi_overlay::config::Forwarding;
use enishi_overlay::message::Reply;
use enishi_overlay::overlay::{self, Effect, RequestId, SearchId};
use enishi_overlay::small_map::SmallMap;
use enishi_overlay::{Contact, Keypair, Message, NodeId, Overlay, PathKind, Rng, Time};
use serde::{Deserialize, Serialize};

use crate::admission::{self, Gate, Membership, Order, Passage};
use crate::dht::{self, Caller, Dht};
use crate::diag::{self, Diag};
use crate::multicast::{self, Multicast, Subscriber};
use crate::reach::{self, Reach};
use crate::service::{Call, Context, Service, ServiceId, ServiceInput};
use crate::vnet::{self, Vnet};

use handed::Handed;

/// How a node is set up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// How it takes part in the overlay.
    pub overlay: enishi_overlay::Config,
    /// The addresses at which it can be dialled at first.
    pub addresses: Vec<SocketAddr>,
    /// The name that the host gives itself, for the other members of its channels.
    pub host_name: String,
    /// The host's clock at [`Time::ZERO`], in seconds since 1970.
    pub started_unix_s: u64,
}

/// What happens to a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Input {
    /// A message arrived in the session with `from`.
    Message {
        /// Who sent it; proven by the session.
        from: NodeId,
        /// What it says.
        #[serde(with = "crate::recording::message")]
        message: Message,
    },
    /// A node cannot be reached.
    Unreachable(NodeId),
    /// The session with a node ended.
    Closed(NodeId),
    /// These nodes may know the overlay.
    Bootstrap(Vec<Contact>),
    /// The node's own addresses changed.
    Addresses(Vec<SocketAddr>),
    /// Something that was kept before the last stop ([`Output::Persist`]).
    Restored {
        /// Which service kept it.
        service: ServiceId,
        /// Its key.
        key: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
        /// Seconds since it was written.
        age_s: u64,
    },
    /// Whether what is to be kept can be kept: false after a failure of the disk, until
    /// it works again. Meanwhile nothing new is acknowledged as stored.
    Storage {
        /// Whether it works.
        works: bool,
    },
    /// The path of an open session, when it is first known and when it changes.
    Path {
        /// The node at the other end.
        peer: NodeId,
        /// What sort of path it is.
        kind: PathKind,
        /// Where the peer is seen; none when the path is not from address to address.
        address: Option<SocketAddr>,
    },
    /// How much of a processor core the program used lately, in thousandths.
    Load(u16),
    /// The host asks something of a service.
    Command(Command),
    /// The node is about to stop.
    Leave,
    /// The deadline has come.
    Timeout,
    /// The host measured what the node is capable of.
    Measured(Measure),
}

/// What the host may ask of the services.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Command {
    /// Of the DHT.
    Dht(dht::Command),
    /// Of the diagnostics.
    Diag(diag::Command),
    /// Of the virtual networks.
    Vnet(vnet::Command),
    /// Of the gate of a closed overlay.
    Admission(admission::Command),
    /// Of multicast.
    Multicast(multicast::Command),
    /// Of how the node is reached.
    Reach(reach::Command),
}

/// What the host has to do.
#[derive(Clone, Debug, Serialize)]
pub enum Output {
    /// Keep or, without a value, forget this. Everything after it in the same batch may
    /// leave the node only when this is on disk.
    Persist {
        /// For which service.
        service: ServiceId,
        /// Under which key.
        key: Vec<u8>,
        /// What.
        value: Option<Vec<u8>>,
    },
    /// Keep these contacts for the next start.
    Remember(Vec<Contact>),
    /// Send a message, dialling if there is no session.
    Send {
        /// The receiver, with hints where to dial it.
        to: Contact,
        /// The message.
        message: Message,
    },
    /// Open a session.
    Dial(Contact),
    /// A node is taken for dead: end its session, unless it is still heard by it.
    GiveUp(NodeId),
    /// End a session at once: the node is not let in.
    Drop(NodeId),
    /// Something happened.
    Event(Event),
}

/// What a node tells its host.
#[derive(Clone, Debug, Serialize)]
pub enum Event {
    /// The node has found its place on the ring.
    Joined,
    /// Of the DHT; only what the host itself asked for.
    Dht(dht::Event),
    /// Of the diagnostics.
    Diag(diag::Event),
    /// Of the virtual networks.
    Vnet(vnet::Event),
    /// Of multicast; only what the host itself subscribed to.
    Multicast(multicast::Event),
    /// Of how the node is reached.
    Reach(reach::Event),
}

/// One node of the overlay with its services.
#[derive(Debug)]
pub struct Node {
    keypair: Keypair,
    overlay: Overlay,
    gate: Gate,
    dht: Dht,
    diag: Diag,
    multicast: Multicast,
    reach: Reach,
    vnet: Vnet,
    rng: Rng,
    started_unix_s: u64,
    calls: VecDeque<Call>,
    asked: SmallMap<RequestId, (ServiceId, u64)>,
    searched: SmallMap<SearchId, (ServiceId, u64)>,
    dht_events: VecDeque<dht::Event>,
    diag_events: VecDeque<diag::Event>,
    multicast_events: VecDeque<multicast::Event>,
    reach_events: VecDeque<reach::Event>,
    vnet_events: VecDeque<vnet::Event>,
    gate_events: VecDeque<Infallible>,
    outputs: VecDeque<Output>,
}

/// The system calls of one of the services.
macro_rules! context {
    ($self:ident, $events:ident, $id:expr, $now:expr) => {
        Context {
            now: $now,
            unix_s: $self.started_unix_s + $now.as_micros() / 1_000_000,
            service: $id,
            keypair: &$self.keypair,
            overlay: &$self.overlay,
            rng: &mut $self.rng,
            calls: &mut $self.calls,
            events: &mut $self.$events,
        }
    };
}

/// Hands an input to one of the services with its system calls.
macro_rules! hand_to {
    ($self:ident, $service:ident, $events:ident, $id:expr, $now:expr, $input:expr) => {{
        let mut cx = context!($self, $events, $id, $now);
        $self.$service.handle($input, &mut cx);
    }};
}

impl Node {
    /// Makes a node that knows nobody yet. `seed` is the source of all its randomness;
    /// the daemon takes it from the system, the simulator from the scenario.
    pub fn new(keypair: Keypair, config: Config, seed: [u8; 32]) -> Self {
        let mut rng = Rng::from_seed(seed);
        let me = Contact::new(keypair.id(), config.addresses);
        let overlay_rng = Rng::from_seed(rng.octets());
        Self {
            overlay: Overlay::new(Time::ZERO, me, config.overlay, overlay_rng),
            keypair,
            gate: Gate::default(),
            dht: Dht::new(),
            diag: Diag::default(),
            multicast: Multicast::default(),
            reach: Reach::default(),
            vnet: Vnet::new(config.host_name),
            rng,
            started_unix_s: config.started_unix_s,
            calls: VecDeque::new(),
            asked: SmallMap::new(),
            searched: SmallMap::new(),
            dht_events: VecDeque::new(),
            diag_events: VecDeque::new(),
            multicast_events: VecDeque::new(),
            reach_events: VecDeque::new(),
            vnet_events: VecDeque::new(),
            gate_events: VecDeque::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Makes the node one of a closed overlay, whose id its [`Config`] must name. To be
    /// called before the first input.
    pub fn in_closed_overlay(mut self, membership: Membership) -> Self {
        self.gate = Gate::closed(self.keypair.id(), membership, &mut self.rng);
        self
    }

    /// Takes in what happened and returns what is to be done, in order. Whatever the
    /// caller leaves in the iterator is lost, so it is to be drained.
    pub fn handle(&mut self, now: Time, input: Input) -> impl Iterator<Item = Output> + '_ {
        match input {
            Input::Message { from, message } => self.receive(now, from, message),
            Input::Unreachable(peer) => {
                self.gate.session_ended(peer);
                self.overlay.handle(now, overlay::Input::Unreachable(peer));
                self.tell_gone(now, peer);
            }
            Input::Closed(peer) => {
                self.gate.session_ended(peer);
                self.overlay.handle(now, overlay::Input::Closed(peer));
                self.tell_gone(now, peer);
            }
            Input::Bootstrap(contacts) => {
                self.overlay
                    .handle(now, overlay::Input::Bootstrap(contacts));
            }
            Input::Addresses(addresses) => {
                self.overlay
                    .handle(now, overlay::Input::Addresses(addresses));
                self.input_vnet(now, ServiceInput::AddressesChanged);
            }
            Input::Restored {
                service,
                key,
                value,
                age_s,
            } => {
                self.hand(now, service, Handed::Restored { key, value, age_s });
            }
            Input::Storage { works } => {
                let command = dht::Command::Storage { works };
                self.input_dht(now, ServiceInput::Command(command));
            }
            Input::Path {
                peer,
                kind,
                address,
            } => {
                let path = overlay::Input::Path {
                    peer,
                    kind,
                    address,
                };
                self.overlay.handle(now, path);
                self.tell_path(now, peer);
            }
            Input::Load(load) => self.overlay.handle(now, overlay::Input::Load(load)),
            Input::Command(Command::Dht(command)) => {
                self.input_dht(now, ServiceInput::Command(command));
            }
            Input::Command(Command::Diag(command)) => {
                self.input_diag(now, ServiceInput::Command(command));
            }
            Input::Command(Command::Vnet(command)) => {
                self.input_vnet(now, ServiceInput::Command(command));
            }
            Input::Command(Command::Admission(command)) => {
                self.input_gate(now, ServiceInput::Command(command));
            }
            Input::Command(Command::Multicast(command)) => {
                self.input_multicast(now, ServiceInput::Command(command));
            }
            Input::Command(Command::Reach(command)) => {
                self.input_reach(now, ServiceInput::Command(command));
            }
            Input::Leave => {
                self.input_vnet(now, ServiceInput::Command(vnet::Command::Suspend));
                let suspend = multicast::Command::Suspend;
                self.input_multicast(now, ServiceInput::Command(suspend));
                self.settle(now);
                self.overlay.handle(now, overlay::Input::Leave);
            }
            Input::Timeout => self.time_out(now),
            Input::Measured(measure) => {
                self.overlay.handle(now, overlay::Input::Measured(measure));
            }
        }
        self.settle(now);
        // The room goes with what is in it: after a round of announcements it is large, and
        // most inputs need hardly any.
        std::mem::take(&mut self.outputs).into_iter()
    }

    /// Returns when [`Input::Timeout`] is due.
    pub fn next_timeout(&self) -> Option<Time> {
        let services = [
            self.dht.next_timeout(),
            self.diag.next_timeout(),
            self.multicast.next_timeout(),
            self.reach.next_timeout(),
            self.vnet.next_timeout(),
            self.gate.next_timeout(),
        ];
        services
            .into_iter()
            .chain([self.overlay.next_timeout()])
            .flatten()
            .min()
    }

    /// Returns this node's id.
    pub fn id(&self) -> NodeId {
        self.keypair.id()
    }

    /// Returns the overlay as this node sees it.
    pub fn overlay(&self) -> &Overlay {
        &self.overlay
    }

    /// Has the overlay choose next hops in this way from now on, for experiments.
    pub fn set_forwarding(&mut self, forwarding: Forwarding) {
        self.overlay.set_forwarding(forwarding);
    }

    /// Returns the distributed hash table.
    pub fn dht(&self) -> &Dht {
        &self.dht
    }

    /// Returns the multicast groups.
    pub fn multicast(&self) -> &Multicast {
        &self.multicast
    }

    /// Returns how the node is reached.
    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// Returns the virtual networks.
    pub fn vnet(&self) -> &Vnet {
        &self.vnet
    }

    /// Returns the gate of the closed overlay; an open one in the open overlay.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Hands the overlay a message, if its sender may speak here.
    fn receive(&mut self, now: Time, from: NodeId, message: Message) {
        let mut cx = context!(self, gate_events, ServiceId::Admission, now);
        if let Some(message) = self.gate.receive(from, message, &mut cx) {
            if self.gate.is_closed() {
                self.tell_path(now, from);
            }
            self.overlay
                .handle(now, overlay::Input::Message { from, message });
        }
    }

    fn time_out(&mut self, now: Time) {
        let due = |timeout: Option<Time>| timeout.is_some_and(|at| at <= now);
        if due(self.overlay.next_timeout()) {
            self.overlay.handle(now, overlay::Input::Timeout);
        }
        if due(self.dht.next_timeout()) {
            self.input_dht(now, ServiceInput::Timeout);
        }
        if due(self.diag.next_timeout()) {
            self.input_diag(now, ServiceInput::Timeout);
        }
        if due(self.multicast.next_timeout()) {
            self.input_multicast(now, ServiceInput::Timeout);
        }
        if due(self.reach.next_timeout()) {
            self.input_reach(now, ServiceInput::Timeout);
        }
        if due(self.vnet.next_timeout()) {
            self.input_vnet(now, ServiceInput::Timeout);
        }
        if due(self.gate.next_timeout()) {
            self.input_gate(now, ServiceInput::Timeout);
        }
    }

    /// Tells a service the path of a session, once its peer may speak here.
    fn tell_path(&mut self, now: Time, peer: NodeId) {
        if self.gate.lets_speak(peer) {
            let (kind, address) = self.overlay.path(peer);
            let mut cx = context!(self, reach_events, ServiceId::Reach, now);
            self.reach.on_path(peer, kind, address, &mut cx);
        }
    }

    fn tell_gone(&mut self, now: Time, peer: NodeId) {
        self.input_dht(now, ServiceInput::Gone(peer));
        self.input_multicast(now, ServiceInput::Gone(peer));
        self.input_reach(now, ServiceInput::Gone(peer));
        self.input_vnet(now, ServiceInput::Gone(peer));
    }

    /// Hands effects, calls and events on until none is left.
    fn settle(&mut self, now: Time) {
        loop {
            if let Some(effect) = self.overlay.pop_effect() {
                self.on_effect(now, effect);
            } else if let Some(order) = self.gate.pop_order() {
                self.on_order(now, order);
            } else if let Some(call) = pop(&mut self.calls) {
                self.on_call(now, call);
            } else if let Some(event) = pop(&mut self.dht_events) {
                self.on_dht_event(now, event);
            } else if let Some(event) = pop(&mut self.diag_events) {
                self.outputs.push_back(Output::Event(Event::Diag(event)));
            } else if let Some(event) = pop(&mut self.multicast_events) {
                self.on_multicast_event(now, event);
            } else if let Some(event) = pop(&mut self.reach_events) {
                self.outputs.push_back(Output::Event(Event::Reach(event)));
            } else if let Some(event) = pop(&mut self.vnet_events) {
                self.outputs.push_back(Output::Event(Event::Vnet(event)));
            } else {
                return;
            }
        }
    }

    fn on_order(&mut self, now: Time, order: Order) {
        match order {
            Order::Send(to, message) => {
                let known = self.overlay.contact_of(to);
                let to = known.unwrap_or_else(|| Contact::new(to, []));
                self.outputs.push_back(Output::Send { to, message });
            }
            Order::Drop(peer) => {
                self.outputs.push_back(Output::Drop(peer));
                self.expel(now, peer);
                self.tell_gone(now, peer);
            }
        }
    }

    /// Takes a node that may not be spoken with out of the overlay's tables.
    fn expel(&mut self, now: Time, peer: NodeId) {
        self.overlay.handle(now, overlay::Input::Unreachable(peer));
    }

    fn send(&mut self, now: Time, to: Contact, message: Message) {
        match self.gate.passage(to.id(), now) {
            Passage::Free => {}
            Passage::After(first) => {
                let (to, message) = (to.clone(), first);
                self.outputs.push_back(Output::Send { to, message });
            }
            Passage::Barred => return self.expel(now, to.id()),
        }
        self.outputs.push_back(Output::Send { to, message });
    }

    fn on_effect(&mut self, now: Time, effect: Effect) {
        match effect {
            Effect::Send { to, message } => self.send(now, to, message),
            Effect::Dial(contact) if self.gate.bars(contact.id()) => {}
            Effect::Dial(contact) => self.outputs.push_back(Output::Dial(contact)),
            Effect::GiveUp(peer) => self.outputs.push_back(Output::GiveUp(peer)),
            Effect::Remember(contacts) => self.outputs.push_back(Output::Remember(contacts)),
            Effect::Joined => self.outputs.push_back(Output::Event(Event::Joined)),
            Effect::NeighboursChanged => {
                self.input_dht(now, ServiceInput::NeighboursChanged);
                self.input_multicast(now, ServiceInput::NeighboursChanged);
                self.input_vnet(now, ServiceInput::NeighboursChanged);
                self.input_gate(now, ServiceInput::NeighboursChanged);
            }
            Effect::Direct {
                from,
                service,
                body,
            } => {
                if let Some(service) = ServiceId::from_wire(service) {
                    self.hand(now, service, Handed::Direct { from, body });
                }
            }
            Effect::Asked {
                asker,
                target,
                service,
                body,
            } => {
                if let Some(service) = ServiceId::from_wire(service) {
                    self.hand(
                        now,
                        service,
                        Handed::Asked {
                            asker,
                            target,
                            body,
                        },
                    );
                }
            }
            Effect::Answered {
                request,
                from,
                hops,
                reply,
            } => {
                if let Some((service, token)) = self.asked.remove(&request) {
                    self.hand(
                        now,
                        service,
                        Handed::Answered {
                            token,
                            from,
                            hops,
                            reply,
                        },
                    );
                }
            }
            Effect::Failed(request) => {
                if let Some((service, token)) = self.asked.remove(&request) {
                    self.hand(now, service, Handed::Failed { token });
                }
            }
            Effect::Searched {
                search,
                found,
                ends,
                asked,
            } => {
                if let Some((service, token)) = self.searched.remove(&search) {
                    let handed = Handed::Searched {
                        token,
                        found,
                        ends,
                        asked,
                    };
                    self.hand(now, service, handed);
                }
            }
            Effect::HopReport {
                request,
                attempt,
                by,
                report,
            } => {
                if let Some((service, token)) = self.asked.get(&request).copied() {
                    self.hand(
                        now,
                        service,
                        Handed::HopReport {
                            token,
                            attempt,
                            by,
                            report,
                        },
                    );
                }
            }
        }
    }

    fn on_call(&mut self, now: Time, call: Call) {
        match call {
            Call::Send { service, to, body } => self.overlay.send_direct(to, service as u8, body),
            Call::Ask {
                service,
                token,
                target,
                any,
                via,
                body,
            } => {
                let question = (service as u8, body);
                let request = self.overlay.request_by(now, via, (target, any), question);
                self.asked.insert(request, (service, token));
            }
            Call::Locate {
                service,
                token,
                target,
                manner,
            } => {
                let request = self.overlay.locate(now, target, manner);
                self.asked.insert(request, (service, token));
            }
            Call::Search {
                service,
                token,
                target,
                paths,
            } => {
                let search = self.overlay.search(now, target, paths);
                self.searched.insert(search, (service, token));
            }
            Call::Answer { asker, body } => self.overlay.answer(asker, Reply::Service(body)),
            Call::Get {
                service,
                token,
                key,
                consistency,
            } => {
                let caller = Caller::Service(service, token);
                let command = dht::Command::Get {
                    caller,
                    key,
                    consistency,
                };
                self.input_dht(now, ServiceInput::Command(command));
            }
            Call::Put {
                service,
                token,
                request,
            } => {
                let caller = Caller::Service(service, token);
                let command = dht::Command::Put { caller, request };
                self.input_dht(now, ServiceInput::Command(command));
            }
            Call::Suspect(silent) => self.overlay.suspect(now, silent),
            Call::Subscribe { service, spec } => {
                let subscriber = Subscriber::Service(service);
                let spec = *spec;
                let command = multicast::Command::Subscribe { subscriber, spec };
                self.input_multicast(now, ServiceInput::Command(command));
            }
            Call::Unsubscribe { service, group } => {
                let subscriber = Subscriber::Service(service);
                let command = multicast::Command::Unsubscribe { subscriber, group };
                self.input_multicast(now, ServiceInput::Command(command));
            }
            Call::Publish {
                service,
                group,
                payload,
                receipts,
            } => {
                let command = multicast::Command::Publish {
                    subscriber: Subscriber::Service(service),
                    group,
                    payload,
                    receipts,
                };
                self.input_multicast(now, ServiceInput::Command(command));
            }
            Call::Persist {
                service,
                key,
                value,
            } => {
                self.outputs.push_back(Output::Persist {
                    service,
                    key,
                    value,
                });
            }
        }
    }

    fn on_dht_event(&mut self, now: Time, event: dht::Event) {
        match event {
            dht::Event::Got {
                caller: Caller::Service(service, token),
                answer,
            } => {
                self.hand(now, service, Handed::Got { token, answer });
            }
            dht::Event::PutDone {
                caller: Caller::Service(service, token),
                answer,
            } => {
                self.hand(now, service, Handed::PutDone { token, answer });
            }
            event => self.outputs.push_back(Output::Event(Event::Dht(event))),
        }
    }

    fn on_multicast_event(&mut self, now: Time, event: multicast::Event) {
        match event {
            multicast::Event::Heard {
                subscriber: Subscriber::Service(service),
                heard,
            } => self.hand(now, service, Handed::Heard(heard)),
            multicast::Event::Receipts {
                subscriber: Subscriber::Service(service),
                token,
                receipts,
            } => self.hand(now, service, Handed::Receipts { token, receipts }),
            event => {
                let event = Event::Multicast(event);
                self.outputs.push_back(Output::Event(event));
            }
        }
    }

    /// Hands an input that has no command in it to a service chosen at run time.
    fn hand(&mut self, now: Time, service: ServiceId, handed: Handed) {
        match service {
            ServiceId::Dht => self.input_dht(now, handed.into_input()),
            ServiceId::Diag => self.input_diag(now, handed.into_input()),
            ServiceId::Vnet => self.input_vnet(now, handed.into_input()),
            ServiceId::Admission => self.input_gate(now, handed.into_input()),
            ServiceId::Multicast => self.input_multicast(now, handed.into_input()),
            ServiceId::Reach => self.input_reach(now, handed.into_input()),
        }
    }

    fn input_dht(&mut self, now: Time, input: ServiceInput<dht::Command>) {
        hand_to!(self, dht, dht_events, ServiceId::Dht, now, input);
    }

    fn input_diag(&mut self, now: Time, input: ServiceInput<diag::Command>) {
        hand_to!(self, diag, diag_events, ServiceId::Diag, now, input);
    }

    fn input_multicast(&mut self, now: Time, input: ServiceInput<multicast::Command>) {
        let id = ServiceId::Multicast;
        hand_to!(self, multicast, multicast_events, id, now, input);
    }

    fn input_reach(&mut self, now: Time, input: ServiceInput<reach::Command>) {
        hand_to!(self, reach, reach_events, ServiceId::Reach, now, input);
    }

    fn input_vnet(&mut self, now: Time, input: ServiceInput<vnet::Command>) {
        hand_to!(self, vnet, vnet_events, ServiceId::Vnet, now, input);
    }

    fn input_gate(&mut self, now: Time, input: ServiceInput<admission::Command>) {
        hand_to!(self, gate, gate_events, ServiceId::Admission, now, input);
    }
}

/// Takes the first of a queue, and gives the room back with the last.
fn pop<T>(queue: &mut VecDeque<T>) -> Option<T> {
    let first = queue.pop_front();
    if queue.is_empty() {
        *queue = VecDeque::new();
    }
    first
}
