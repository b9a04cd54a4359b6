//! The overlay of one node as a state machine: input in, effects out, one deadline.
//!
//! This file holds the state and hands each input to the part that it concerns:
//!
//! | part | does |
//! |---|---|
//! | `acquaint` | hello and welcome, views, who becomes a near neighbour |
//! | `liveness` | signs of life, who is dead, what follows from it |
//! | `links` | long links: how many, drawn where, granted to whom |
//! | `route` | where a message goes next |
//! | `forward` | one hop: send, confirm, hedge, give back, introduce |
//! | `witness` | whom a message waits for, and when it stops waiting |
//! | `arrive` | a message has arrived: what is answered, and who is named |
//! | `back` | answers return the way their question came |
//! | `requests` | end to end: ask the node in charge, try again, answer |
//! | `search` | iterative lookups, over paths that have no node in common |
//! | `standing` | whom to serve and on whom to rely |
//! | `rejoin` | the first join, and finding lost parts of the ring again |
//! | `upkeep` | the six periodic actions |
//! | `effort` | how much is done for upkeep: the dial from leaf to full view |
//! | `regulate` | what the node is: client, peer or supernode |
//! | `client` | clients and their hosts |
//! | `estimate` | how many nodes there are |

mod acquaint;
mod arrive;
mod back;
mod client;
mod copies;
mod effort;
mod estimate;
mod forward;
mod links;
mod liveness;
mod regulate;
mod rejoin;
mod requests;
mod route;
mod search;
mod seen;
mod standing;
mod upkeep;
mod witness;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::class::{Grade, Measure, Regulator};
use crate::config::{Config, Forwarding};
use crate::contact::Contact;
use crate::coordinate::{Coordinate, Vivaldi};
use crate::deadlines::Deadlines;
use crate::id::NodeId;
use crate::message::Message;
use crate::near::{NearSet, Place};
use crate::peers::{Peer, Peers, RoundTrip};
use crate::ring::Position;
use crate::rng::Rng;
use crate::small_map::SmallMap;
use crate::standing::{Accounts, Budget};
use crate::time::Time;
use crate::view::View;
use crate::vitals::{HopReport, PathKind, Paths, Software, Vitals};

use acquaint::Greeting;
use client::{Clients, Hosting};
use copies::Copies;
use effort::Effort;
use forward::Hops;
use links::Race;
use liveness::Quarantine;
use rejoin::Remembered;
use requests::Requests;
pub use requests::{Manner, RequestId};
pub use route::NextHop;
use search::Searches;
pub use search::{Density, PATHS_MAX, SearchId};
use seen::Seen;
use upkeep::Period;
use witness::Testimony;

/// After a change among the near neighbours, how long further changes are gathered
/// before the peers are told.
const ANNOUNCE_DELAY: Duration = Duration::from_millis(200);

/// What happened to the node.
#[derive(Clone, Debug)]
pub enum Input {
    /// A message arrived in the session with `from`, which proved that key.
    Message {
        /// Who sent it.
        from: NodeId,
        /// What it says.
        message: Message,
    },
    /// A message to the peer could not be delivered: no address answered.
    Unreachable(NodeId),
    /// The session with the peer ended.
    Closed(NodeId),
    /// These nodes may know the overlay; join through them.
    Bootstrap(Vec<Contact>),
    /// The node's own addresses changed.
    Addresses(Vec<SocketAddr>),
    /// The path of an open session, when it is first known and when it changes.
    Path {
        /// The node at the other end.
        peer: NodeId,
        /// What sort of path it is.
        kind: PathKind,
        /// Where the peer is seen; none when the path is not from address to address.
        address: Option<SocketAddr>,
    },
    /// How much of a processor core the program uses, in thousandths
    /// ([`Vitals::load_per_mille`]).
    Load(u16),
    /// The node measured itself anew.
    Measured(Measure),
    /// The node is about to stop: take leave of the peers.
    Leave,
    /// The deadline has come.
    Timeout,
}

/// What the host, or the services above, have to do.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send the message, dialling if there is no session.
    Send {
        /// The receiver, with hints where to dial it.
        to: Contact,
        /// What to send.
        message: Message,
    },
    /// Open a session: the node is about to dial us, and both must try.
    Dial(Contact),
    /// The peer is taken for dead: end the session, unless the host still hears the peer by it. Who
    /// is slow to answer would only be slower after a handshake more.
    GiveUp(NodeId),
    /// Keep these contacts for the next start.
    Remember(Vec<Contact>),
    /// The node has found its place: it has a neighbour.
    Joined,
    /// The near neighbours changed; replicas may have to move.
    NeighboursChanged,
    /// A service's message from one node.
    Direct {
        /// Who sent it.
        from: NodeId,
        /// The service's number.
        service: u8,
        /// In the service's own format.
        body: Bytes,
    },
    /// A service's question to the node in charge, which is this one.
    Asked {
        /// Where the answer goes; hand it to [`Overlay::answer`].
        asker: Asker,
        /// The position asked for.
        target: Position,
        /// The service's number.
        service: u8,
        /// In the service's own format.
        body: Bytes,
    },
    /// A service's question was answered.
    Answered {
        /// The question.
        request: RequestId,
        /// Who answered: the node in charge, as far as the path was honest.
        from: NodeId,
        /// How many hops the question made.
        hops: u8,
        /// The answer.
        reply: crate::message::Reply,
    },
    /// A question was not answered, after all tries.
    Failed(RequestId),
    /// An iterative lookup ended.
    Searched {
        /// Which.
        search: SearchId,
        /// Who answered, nearest to the target first; each has proven its key.
        found: Vec<crate::view::Entry>,
        /// For each path the nearest node that is there, by its own findings.
        ends: Vec<Option<NodeId>>,
        /// How many nodes were asked.
        asked: u32,
    },
    /// A hop of a traced question reported; this node itself first, as hop 0.
    HopReport {
        /// The question.
        request: RequestId,
        /// Which try of the question it is, from 0; each may take another route.
        attempt: u8,
        /// The reporting node. It is a claim: the report came by way of others.
        by: NodeId,
        /// What the hop tells, as it says itself.
        report: HopReport,
    },
}

/// Who asked a routed question.
#[derive(Clone, Debug)]
pub struct Asker {
    /// Where the answer goes. The claim is the message's own, not proven.
    pub contact: Contact,
    pub(crate) request: u64,
    pub(crate) hops: u8,
    pub(crate) straight: bool,
    /// The answer must not overtake the reports, which go back the way of the question.
    pub(crate) traced: bool,
    pub(crate) back: Option<back::Previous>,
}

/// What happens when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    Period(Period),
    Greeting(NodeId),
    Probe(NodeId),
    Hop(u32),
    Request(u64),
    Find(u32),
    Announce,
    Reconnect,
    Register,
}

/// Events that a limit or a refusal left behind, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages that made no sense at their time or claimed a false sender.
    pub messages_refused: u64,
    /// Forwarded messages given up because too many were under way.
    pub hops_dropped: u64,
    /// Second tries sent before the first was confirmed.
    pub hops_hedged: u64,
    /// Copies of messages that were not sent, or not passed on, since too many were.
    pub copies_withheld: u64,
    /// Peers taken for dead.
    pub peers_lost: u64,
}

/// The overlay as one node sees and serves it.
#[derive(Debug)]
pub struct Overlay {
    config: Config,
    me: Contact,
    position: Position,
    rng: Rng,
    vivaldi: Vivaldi,
    /// What others are told of the place in the network.
    coordinate: Coordinate,
    /// When it may change next.
    next_move: Time,
    /// The round trips to all peers as one.
    typical: RoundTrip,
    /// The number of nodes as estimated last.
    size: u64,
    peers: Peers,
    near: NearSet,
    view: Arc<View>,
    view_stale: bool,
    /// Whether the near neighbours are to hear of the next change at once.
    announce_soon: bool,
    /// How many looks for this node's own place were due while the neighbours hardly changed.
    quiet_checks: u32,
    /// How often the near neighbours changed since the last of these.
    near_changes: u32,
    /// How many rounds of telling the view there were.
    rounds: u32,
    effort: Effort,
    greetings: SmallMap<NodeId, Greeting>,
    quarantine: Quarantine,
    /// When somebody spoke again who had not answered.
    reunited_at: Option<Time>,
    races: Vec<Race>,
    /// Who refused a link lately.
    refusals: Quarantine,
    remembered: Remembered,
    hops: Hops,
    accounts: Accounts,
    budget: Budget,
    seen: Seen,
    copies: Copies,
    testimony: Testimony,
    requests: Requests,
    searches: Searches,
    deadlines: Deadlines<Alarm>,
    counters: Counters,
    paths: Paths,
    load_per_mille: u16,
    effects: VecDeque<Effect>,
    joined: bool,
    left: bool,
    /// Draws that may still be made before the next look at the links.
    draws_left: u32,
    born_at: Time,
    measure: Measure,
    regulator: Regulator,
    /// What others are told of the class and score.
    grade: Grade,
    /// What a client knows of possible hosts.
    hosting: Hosting,
    /// The clients of this node, and those registered with it.
    clients: Clients,
}

impl Overlay {
    /// Makes the overlay state of a node that knows nobody yet.
    pub fn new(now: Time, me: Contact, config: Config, rng: Rng) -> Self {
        let position = Position::of_node(&config.overlay, &me.id());
        let config_measure = config.measure;
        let place = Place {
            position,
            id: me.id(),
        };
        let mut overlay = Self {
            near: NearSet::new(place, config.near_per_side),
            budget: Budget::new(now, config.carried_per_minute),
            effort: Effort::new(now, config.upkeep_bytes_per_s),
            config,
            me,
            position,
            requests: Requests::default(),
            rng,
            vivaldi: Vivaldi::new(),
            coordinate: Coordinate::default(),
            next_move: Time::ZERO,
            typical: RoundTrip::default(),
            size: 1,
            peers: Peers::new(),
            view: Arc::default(),
            view_stale: true,
            announce_soon: false,
            quiet_checks: 0,
            near_changes: 0,
            rounds: 0,
            greetings: SmallMap::new(),
            quarantine: Quarantine::default(),
            reunited_at: None,
            races: Vec::new(),
            refusals: Quarantine::default(),
            remembered: Remembered::default(),
            hops: Hops::default(),
            accounts: Accounts::default(),
            seen: Seen::default(),
            copies: Copies::new(now),
            testimony: Testimony::default(),
            searches: Searches::default(),
            deadlines: Deadlines::default(),
            counters: Counters::default(),
            paths: Paths::default(),
            load_per_mille: 0,
            effects: VecDeque::new(),
            joined: false,
            left: false,
            draws_left: 0,
            born_at: now,
            measure: config_measure,
            regulator: Regulator::default(),
            grade: Grade::default(),
            hosting: Hosting::default(),
            clients: Clients::default(),
        };
        overlay.start_periods(now);
        overlay.grade_self(now);
        overlay.settle(now);
        overlay
    }

    /// Takes in what happened; the effects are then to be drained with
    /// [`Self::pop_effect`].
    pub fn handle(&mut self, now: Time, input: Input) {
        match input {
            Input::Message { from, message } => self.receive(now, from, message),
            Input::Unreachable(peer) => self.unreachable(now, peer),
            Input::Closed(peer) => {
                self.paths.forget(peer);
                self.closed(now, peer);
            }
            Input::Bootstrap(contacts) => self.bootstrap(now, contacts),
            Input::Addresses(addresses) => self.readdress(now, addresses),
            Input::Path {
                peer,
                kind,
                address,
            } => self.paths.note(peer, kind, address),
            Input::Load(load_per_mille) => self.load_per_mille = load_per_mille,
            Input::Measured(measure) => self.on_measured(now, measure),
            Input::Leave => self.take_leave(),
            Input::Timeout => {}
        }
        while let Some(alarm) = self.deadlines.pop_due(now) {
            self.ring(now, alarm);
        }
        self.settle(now);
    }

    /// Takes the next effect.
    pub fn pop_effect(&mut self) -> Option<Effect> {
        let effect = self.effects.pop_front();
        // Announcements need much room, and seldom: none is kept for them.
        if self.effects.is_empty() {
            self.effects = VecDeque::new();
        }
        effect
    }

    /// Returns when [`Input::Timeout`] is due.
    pub fn next_timeout(&self) -> Option<Time> {
        self.deadlines.next()
    }

    /// Returns how this node may be reached.
    pub fn me(&self) -> &Contact {
        &self.me
    }

    /// Chooses next hops in this way from now on. An experiment asks the same questions over
    /// the same tables in several ways.
    pub fn set_forwarding(&mut self, forwarding: Forwarding) {
        self.config.forwarding = forwarding;
        // What peers are told of this node's view depends on it.
        for (_, peer) in self.peers.iter_mut() {
            peer.sent = None;
        }
    }

    /// Returns this node's place.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Returns where in the network this node thinks to be.
    pub fn coordinate(&self) -> Coordinate {
        self.coordinate
    }

    /// Returns the place of any node in this overlay.
    pub fn position_of(&self, id: &NodeId) -> Position {
        Position::of_node(&self.config.overlay, id)
    }

    /// Returns the near neighbours.
    pub fn near(&self) -> &NearSet {
        &self.near
    }

    /// Returns the near neighbours and long links.
    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values()
    }

    /// Returns one near neighbour or long link.
    pub fn peer(&self, id: NodeId) -> Option<&Peer> {
        self.peers.get(&id)
    }

    /// Tells whether the node has ever had a neighbour.
    pub fn joined(&self) -> bool {
        self.joined
    }

    /// Returns what limits and refusals left behind.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Returns what this node tells others of itself; none when it declines to.
    pub fn vitals(&self) -> Option<Vitals> {
        self.config.reports_hops.then(|| self.own_vitals())
    }

    /// Returns the path of the session with a node, and where the node is seen on it.
    pub fn path(&self, peer: NodeId) -> (PathKind, Option<SocketAddr>) {
        (self.paths.kind(peer), self.paths.address(peer))
    }

    /// Returns what this node and others did for each other.
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// Returns how this node takes part.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns how to reach a node if this one, a peer or a peer's view knows it.
    pub fn contact_of(&self, id: NodeId) -> Option<Contact> {
        if id == self.me.id() {
            return Some(self.me.clone());
        }
        if let Some(peer) = self.peers.get(&id) {
            return Some(peer.contact.clone());
        }
        if let Some(contact) = self.clients.contact(id) {
            return Some(contact.clone());
        }
        let position = self.position_of(&id);
        let mut members = self
            .peers
            .values()
            .filter_map(|peer| peer.view.at(position));
        members.find_map(|member| member.contact.clone())
    }

    /// Returns every node that a peer has told how to reach, once each, without the peers.
    pub fn known(&self) -> BTreeMap<NodeId, Contact> {
        let members = self.peers.values().flat_map(|peer| peer.view.members());
        members
            .filter_map(|member| member.contact.clone())
            .map(|contact| (contact.id(), contact))
            .filter(|(id, _)| *id != self.me.id() && !self.peers.contains_key(id))
            .collect()
    }

    /// Returns how many other nodes this one knows of: peers, and everyone in their views.
    pub fn places_known(&self) -> usize {
        let views = self.peers.values().flat_map(|peer| peer.view.members());
        let peers = self.peers.values().map(|peer| peer.position);
        let places: BTreeSet<Position> = views.map(|m| m.position).chain(peers).collect();
        places.len() - usize::from(places.contains(&self.position))
    }

    /// Sends a service's message to one node.
    pub fn send_direct(&mut self, to: Contact, service: u8, body: Bytes) {
        if to.id() == self.me.id() {
            self.effects.push_back(Effect::Direct {
                from: to.id(),
                service,
                body,
            });
        } else {
            self.send(to, Message::Direct { service, body });
        }
    }

    fn receive(&mut self, now: Time, from: NodeId, message: Message) {
        self.heard(now, from);
        match message {
            Message::Hello(hello) => self.on_hello(now, from, &hello),
            Message::Welcome(hello) => self.on_welcome(now, from, &hello),
            Message::Leave => self.on_leave(now, from),
            Message::Ping { nonce, version } => self.on_ping(from, nonce, version),
            Message::Pong {
                nonce,
                version,
                known,
                about,
            } => {
                if let Some((coordinate, grade)) = about {
                    self.note_about(from, coordinate, grade);
                }
                self.on_pong(now, from, nonce, version, known);
            }
            Message::ViewRequest { have } => self.on_view_request(from, have),
            Message::ViewUpdate(update) => self.on_view_update(now, from, &update),
            Message::Introduce { subject } => self.on_introduce(from, subject),
            Message::Introduced { newcomer } => self.on_introduced(from, newcomer),
            Message::Summon { subject, newcomer } => self.on_summon(now, subject, newcomer),
            Message::Routed(routed) => self.on_routed(now, from, routed),
            Message::HopAck { hop } => self.on_hop_ack(now, from, hop),
            Message::HopNack { hop, declined } => self.on_hop_nack(now, from, hop, declined),
            Message::Back { hop, by, returned } => self.on_back(now, from, hop, by, returned),
            Message::Find { nonce, target } => self.on_find(from, nonce, target),
            Message::Found { nonce, nodes } => self.on_found(now, from, nonce, &nodes),
            Message::Answer(answer) => self.on_straight_answer(now, from, answer),
            Message::Direct { service, body } => {
                self.effects.push_back(Effect::Direct {
                    from,
                    service,
                    body,
                });
            }
            // Only for the gate in front of a closed overlay.
            Message::Admission(_) => self.refuse(),
        }
    }

    fn ring(&mut self, now: Time, alarm: Alarm) {
        match alarm {
            Alarm::Period(period) => self.on_period(now, period),
            Alarm::Greeting(id) => self.greeting_timed_out(now, id),
            Alarm::Probe(id) => self.probe_timed_out(now, id),
            Alarm::Hop(hop) => self.hop_timed_out(now, hop),
            Alarm::Request(request) => self.request_timed_out(now, request),
            Alarm::Find(nonce) => self.find_timed_out(now, nonce),
            Alarm::Announce => self.announce_to_near(),
            Alarm::Reconnect => self.reconnect(now),
            Alarm::Register => self.register(now),
        }
    }

    /// Brings the view up to date after an input, and has the near neighbours told soon of a
    /// change among them; all else is told with the period.
    fn settle(&mut self, now: Time) {
        if std::mem::take(&mut self.view_stale) {
            self.renew_view();
        }
        if std::mem::take(&mut self.announce_soon) && !self.peers.is_empty() {
            self.deadlines
                .set_no_later(Alarm::Announce, now + ANNOUNCE_DELAY);
        }
    }

    fn send(&mut self, to: Contact, message: Message) {
        self.note_upkeep(&message);
        self.effects.push_back(Effect::Send { to, message });
    }

    /// Sends to a node whose session is there: it has just spoken, or is a peer.
    fn send_to(&mut self, id: NodeId, message: Message) {
        let contact = self.peers.get(&id).map(|peer| peer.contact.clone());
        let contact = contact.or_else(|| self.clients.contact(id).cloned());
        self.send(contact.unwrap_or_else(|| Contact::new(id, [])), message);
    }

    fn refuse(&mut self) {
        self.counters.messages_refused += 1;
    }

    fn own_vitals(&self) -> Vitals {
        Vitals {
            software: Software::THIS,
            load_per_mille: self.load_per_mille,
            grade: self.grade,
        }
    }

    fn place_of(&self, id: NodeId) -> Place {
        Place {
            position: self.position_of(&id),
            id,
        }
    }

    fn is_self(&self, id: NodeId) -> bool {
        id == self.me.id()
    }
}
