//! Kademlia: P. Maymounkov, D. Mazières, "Kademlia: A Peer-to-Peer Information System
//! Based on the XOR Metric", IPTPS 2002; practical parts as in BitTorrent's BEP 5,
//! libtorrent and libp2p.
//!
//! A node knows up to k nodes in each bucket, that is, in each half, quarter, eighth, …
//! of the positions that it is not in itself ([`table`]). To find the node in charge of a
//! target, the closest by XOR, it asks the closest that it knows for closer ones, and
//! those again, alpha at a time ([`lookup`]). Everything heard fills the buckets; what is
//! not heard is asked, within a budget of octets per second (`upkeep`).
//!
//! Where it is better than the paper, so that our own overlay is measured against what
//! can be had:
//!
//! | question | here |
//! |---|---|
//! | timeouts | from measured round trips: another try and one more candidate after 1.3 round trips or four variations (our own overlay's rule), failed after three tries |
//! | who stays in a full bucket | clearly shorter round trips |
//! | whom to ask | the closest always; in the other slots who gives most progress for its round trip |
//! | signs of life | `Ping` of a few octets, longest silent first, instead of whole refreshes |
//! | refresh | one request to one member of the most stale bucket; what it names is pinged |
//! | dead nodes | not asked first after one late answer; after three tries out of the table, and not asked for a minute whoever names them |
//! | join | a lookup of itself that ends early; the rest of the surroundings is greeted by `Ping` |
//!
//! Input in, outputs out, one deadline, like our own. Whether a message to a stranger
//! costs a session is the world's matter; timeouts adapt to either.

pub mod config;
pub mod lookup;
mod participant;
mod requests;
pub mod table;
mod upkeep;
pub mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use enishi_overlay::deadlines::Deadlines;
use enishi_overlay::peers::RoundTrip;
use enishi_overlay::{Contact, NodeId, Position, Rng, Time};

pub use config::Config;
pub use lookup::{Found, Purpose};
use lookup::{Lookup, Plan};
pub use participant::{Command, Datagram};
pub(crate) use participant::{FIND_LOOKUP, NODES_LOOKUP};
use requests::Requests;
pub use table::Table;
pub use wire::Message;

/// The most lookups under way at one time; further ones of the host fail at once.
const LOOKUPS_MAX: usize = 256;
/// The most contacts kept for joining again.
const BOOTSTRAPS_MAX: usize = 8;
/// How long a node that failed is not asked, whoever names it.
const QUARANTINE: Duration = Duration::from_secs(60);
/// The most nodes that are left alone at one time; beyond it the oldest are forgotten.
const QUARANTINE_MAX: usize = 512;

/// What happened to the node.
#[derive(Clone, Debug)]
pub enum Input {
    /// A message arrived.
    Message {
        /// Who sent it, with the address that it came from.
        from: Contact,
        /// What it says.
        message: Message,
    },
    /// A node could not be reached.
    Unreachable(NodeId),
    /// These nodes may know the others; join through them.
    Bootstrap(Vec<Contact>),
    /// Find the nodes closest to a position.
    Lookup {
        /// Comes back in the outcome.
        id: u64,
        /// Close to what.
        target: Position,
        /// How many must have answered; 1 asks who is in charge.
        width: usize,
    },
    /// The deadline has come.
    Timeout,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send the message.
    Send {
        /// The receiver.
        to: Contact,
        /// What to send.
        message: Message,
        /// Whether it is a request of a lookup that the host asked for.
        for_host: bool,
    },
    /// Tell the host.
    Event(Event),
}

/// What the host hears.
#[derive(Clone, Debug)]
pub enum Event {
    /// The node has found its surroundings.
    Joined,
    /// A lookup of the host ended.
    Done(Outcome),
}

/// What came of a lookup.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The host's number.
    pub id: u64,
    /// Close to what.
    pub target: Position,
    /// The closest nodes, closest first; the asker may be one. At most the width. The
    /// first is in charge, and `answered_at` is when it first answered.
    pub closest: Vec<Found>,
    /// Requests sent.
    pub requests: u32,
    /// Octets of the requests and of the answers that came in time, on both sides. Second
    /// tries are not counted.
    pub bytes: u64,
    /// When the host asked.
    pub started_at: Time,
    /// When it was certain that nobody closer is known.
    pub ended_at: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    Request(u16),
    Join,
    Ping,
    Refresh,
}

/// One node of Kademlia.
#[derive(Debug)]
pub struct Kademlia {
    config: Config,
    me: Contact,
    position: Position,
    rng: Rng,
    table: Table,
    requests: Requests,
    /// Round trips to nodes that are not in the table.
    strangers: RoundTrip,
    lookups: BTreeMap<u32, Lookup>,
    lookup_next: u32,
    bootstraps: Vec<Contact>,
    quarantine: BTreeMap<NodeId, Time>,
    joined: bool,
    /// Whether the refreshes that belong to joining are over.
    settled: bool,
    /// How long to wait before the next try to join.
    join_wait: Duration,
    /// Whether the last refresh was for the surroundings.
    refresh_turn: bool,
    upkeep_turn: u32,
    deadlines: Deadlines<Alarm>,
    outputs: VecDeque<Output>,
}

impl Kademlia {
    /// Makes a node that knows nobody yet.
    pub fn new(me: Contact, config: Config, mut rng: Rng) -> Self {
        let position = Position::of_node(&config.overlay, &me.id());
        Self {
            table: Table::new(position, config.bucket, config.proximity),
            requests: Requests::new(&mut rng),
            config,
            me,
            position,
            rng,
            strangers: RoundTrip::default(),
            lookups: BTreeMap::new(),
            lookup_next: 0,
            bootstraps: Vec::new(),
            quarantine: BTreeMap::new(),
            joined: false,
            join_wait: upkeep::JOIN_AGAIN,
            settled: false,
            refresh_turn: false,
            upkeep_turn: 0,
            deadlines: Deadlines::default(),
            outputs: VecDeque::new(),
        }
    }

    /// Takes in what happened and hands out what is to be done.
    pub fn handle(&mut self, now: Time, input: Input) -> impl Iterator<Item = Output> + '_ {
        match input {
            Input::Message { from, message } => self.receive(now, &from, message),
            Input::Unreachable(peer) => self.unreachable(now, peer),
            Input::Bootstrap(contacts) => self.bootstrap(now, contacts),
            Input::Lookup { id, target, width } => self.look_up(now, id, target, width),
            Input::Timeout => {}
        }
        while let Some(alarm) = self.deadlines.pop_due(now) {
            match alarm {
                Alarm::Request(request) => self.request_timed_out(now, request),
                Alarm::Join => self.join_if_needed(now),
                Alarm::Ping => self.ping_someone(now),
                Alarm::Refresh => self.refresh_most_stale(now),
            }
        }
        self.outputs.drain(..)
    }

    /// Returns when [`Input::Timeout`] is due.
    pub fn next_timeout(&self) -> Option<Time> {
        self.deadlines.next()
    }

    /// Returns how the node is reached.
    pub fn me(&self) -> &Contact {
        &self.me
    }

    /// Returns the node's position.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Returns the routing table.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Tells whether the node has found its surroundings.
    pub fn is_joined(&self) -> bool {
        self.joined
    }

    fn position_of(&self, id: NodeId) -> Position {
        Position::of_node(&self.config.overlay, &id)
    }

    fn look_up(&mut self, now: Time, id: u64, target: Position, width: usize) {
        let plan = Plan {
            purpose: Purpose::Host(id),
            target,
            parallel: self.config.parallel,
            width: width.max(1),
            requests_max: None,
            reach: self.config.bucket.max(width),
        };
        if self.lookups.len() < LOOKUPS_MAX {
            self.start_lookup(now, plan, &[]);
        } else {
            let nothing = Lookup::new(now, plan, self.me.clone(), self.position);
            self.tell(now, id, &nothing, Vec::new());
        }
    }

    /// Starts a lookup from the given nodes or, without any, from the closest in the table.
    fn start_lookup(&mut self, now: Time, plan: Plan, seeds: &[Contact]) {
        let mut lookup = Lookup::new(now, plan, self.me.clone(), self.position);
        let (target, reach) = (lookup.plan().target, lookup.plan().reach);
        for seed in seeds {
            lookup.learn(seed, self.position_of(seed.id()), 0, None);
        }
        if seeds.is_empty() {
            let closest = self.table.closest(target, reach);
            let sound = closest.iter().any(|entry| entry.strikes == 0);
            for entry in closest {
                // Who is late to answer is left to others, unless all are.
                if sound && entry.strikes > 0 {
                    continue;
                }
                lookup.learn(&entry.contact, entry.position, 0, entry.least);
            }
        }
        let bucket = self.table.bucket_of(target);
        self.table.refreshing(now, bucket);
        self.lookup_next = self.lookup_next.wrapping_add(1);
        let number = self.lookup_next;
        self.lookups.insert(number, lookup);
        self.advance(now, number);
    }

    /// Lets a lookup ask whom it wants to ask, and ends it if it is done.
    fn advance(&mut self, now: Time, number: u32) {
        let usual = self.usual_trip();
        let Some(mut lookup) = self.lookups.remove(&number) else {
            return;
        };
        while !lookup.is_done() {
            let Some((contact, position)) = lookup.next(usual) else {
                break;
            };
            match self.find_node(now, &contact, position, lookup.plan(), number) {
                Some(bytes) => lookup.spent(bytes),
                None => lookup.failed(position, contact.id()),
            }
        }
        if lookup.is_done() {
            self.end_lookup(now, &lookup);
        } else {
            self.lookups.insert(number, lookup);
        }
    }

    fn end_lookup(&mut self, now: Time, lookup: &Lookup) {
        match lookup.plan().purpose {
            Purpose::Host(id) => self.tell(now, id, lookup, lookup.found()),
            Purpose::Join => self.found_surroundings(now, lookup),
            Purpose::Refresh(_) => self.refreshed(now, lookup),
        }
    }

    fn tell(&mut self, now: Time, id: u64, lookup: &Lookup, closest: Vec<Found>) {
        let outcome = Outcome {
            id,
            target: lookup.plan().target,
            closest,
            requests: lookup.requests(),
            bytes: lookup.bytes(),
            started_at: lookup.started_at(),
            ended_at: now,
        };
        self.outputs.push_back(Output::Event(Event::Done(outcome)));
    }

    fn receive(&mut self, now: Time, from: &Contact, message: Message) {
        let at = self.position_of(from.id());
        self.quarantine.remove(&from.id());
        if self.bootstraps.is_empty() {
            self.begin_upkeep(now);
        }
        match message {
            Message::Ping { request } => {
                self.table.heard(now, from, at, None);
                self.send(from, Message::Pong { request }, false);
            }
            Message::FindNode { request, target } => {
                self.table.heard(now, from, at, None);
                let closest = self.table.closest(target, self.config.reply + 1);
                let contacts = closest
                    .into_iter()
                    .map(|entry| &entry.contact)
                    .filter(|contact| contact.id() != from.id())
                    .take(self.config.reply)
                    .cloned()
                    .collect();
                self.send(from, Message::Nodes { request, contacts }, false);
            }
            Message::Pong { request } => self.answered(now, from, at, request, None),
            Message::Nodes { request, contacts } => {
                self.answered(now, from, at, request, Some(&contacts));
            }
        }
    }

    /// Takes in what an asked node named, for the table and for the lookup.
    fn named(&mut self, now: Time, lookup: u32, hops: u8, contacts: &[Contact]) {
        for contact in contacts.iter().take(wire::CONTACTS_MAX) {
            let id = contact.id();
            if id == self.me.id() || self.is_quarantined(now, id) {
                continue;
            }
            let at = self.position_of(id);
            self.table.named(now, contact, at);
            let trip = self.table.entry(at, id).and_then(|entry| entry.least);
            if let Some(lookup) = self.lookups.get_mut(&lookup) {
                lookup.learn(contact, at, hops, trip);
            }
        }
    }

    fn is_quarantined(&self, now: Time, id: NodeId) -> bool {
        self.quarantine.get(&id).is_some_and(|until| *until > now)
    }

    fn put_in_quarantine(&mut self, now: Time, id: NodeId) {
        if self.quarantine.len() >= QUARANTINE_MAX {
            self.quarantine.retain(|_, until| *until > now);
        }
        if self.quarantine.len() < QUARANTINE_MAX {
            self.quarantine.insert(id, now + QUARANTINE);
        }
    }

    fn send(&mut self, to: &Contact, message: Message, for_host: bool) {
        let to = to.clone();
        self.outputs.push_back(Output::Send {
            to,
            message,
            for_host,
        });
    }
}
