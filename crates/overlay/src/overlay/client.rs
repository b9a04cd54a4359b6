//! Clients: nodes too weak for the ring, and the peers that they attach to, their hosts.
//!
//! ```text
//!   client --Hello (client, link)--> host        a place among the host's clients
//!   client <------Welcome----------- host        granted or not; its view names others
//!   client --Routed--> host --Routed--> ...      questions; answers come back the same way
//!   client --Routed Register--> host --> node in charge of the client's position
//! ```
//!
//! **The client** keeps [`HOSTS`] hosts in the place of peers: it looks after them as after
//! links, knows their views, and chooses between them for each question as any node chooses
//! its next hop, so that a dead one costs a second try and not the question. It has no near
//! neighbours and no view of its own; it answers no questions and stores nothing. Who was
//! invited by it is sent on to its hosts. What services send to single nodes it sends itself.
//!
//! **The host** counts its clients apart from its peers: they are in no view, so nobody
//! else hears of them, and no message is routed by way of them.
//!
//! **Others find a client** by its id. It registers every minute with the node in charge of
//! its position, which names it to whoever asks for exactly that position, and has the host
//! summon it: the client then dials the asker, in case that nobody can dial the client.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::upkeep::Period;
use super::{Alarm, Effect, Overlay};
use crate::class::{Class, Grade};
use crate::contact::Contact;
use crate::coordinate::Coordinate;
use crate::geometry::Geometry;
use crate::id::NodeId;
use crate::message::{Hello, Message};
use crate::peers::Peer;
use crate::ring::{Position, Rank};
use crate::time::Time;
use crate::view::{Entry, Member, Role, View, ViewUpdate};

/// How many hosts a client wants: a second one for the time in which the first is dead.
const HOSTS: usize = 2;
/// The most nodes that a client keeps in mind as possible hosts.
const OFFERS_MAX: usize = 64;
/// How long a node that declined, or that another was preferred to, is not asked again.
const DECLINED: Duration = Duration::from_secs(600);
/// How much nearer in the network a peer must be to be as good a host as a supernode.
const SUPER_WORTH: Duration = Duration::from_millis(100);
/// How much better another host must be for a client to change.
const CHANGE_WORTH: Duration = Duration::from_millis(30);

/// Further from the target than every node.
pub(super) const RANK_MAX: Rank = (u64::MAX, true);

/// How long a host keeps a silent client: five times the interval of its questions.
const CLIENT_SILENCE_MAX: Duration = Duration::from_secs(60);

/// How often a client registers, how soon after a failure, and how long that is valid: two
/// may be lost.
const REGISTER_INTERVAL: Duration = Duration::from_secs(60);
const REGISTER_SOON: Duration = Duration::from_secs(2);
const REGISTERED: Duration = Duration::from_secs(180);
/// The most clients that are registered with one node.
const REGISTERED_MAX: usize = 1024;
/// How often one client is summoned at most.
const SUMMON_INTERVAL: Duration = Duration::from_secs(1);

/// What a client knows of possible hosts.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosting {
    offers: BTreeMap<NodeId, Entry>,
    declined: BTreeMap<NodeId, Time>,
}

impl Hosting {
    /// Takes in a node of which only the contact is known.
    pub(super) fn offer_contact(&mut self, contact: Contact) {
        self.offer(Entry {
            contact,
            role: Role::Long,
            coordinate: Coordinate::default(),
            grade: Grade::default(),
        });
    }

    fn offer(&mut self, entry: Entry) {
        let id = entry.contact.id();
        let full = self.offers.len() >= OFFERS_MAX && !self.offers.contains_key(&id);
        if full && entry.grade.class() != Class::Super {
            return;
        }
        if full {
            // A supernode is worth more than any peer that is not one.
            let usual = |entry: &Entry| entry.grade.class() != Class::Super;
            let least = self.offers.iter().find(|(_, entry)| usual(entry));
            let Some(id) = least.map(|(id, _)| *id) else {
                return;
            };
            self.offers.remove(&id);
        }
        if !entry.grade.is_client() {
            self.offers.insert(id, entry);
        }
    }

    /// Visits the possible hosts.
    pub(super) fn contacts(&self) -> impl Iterator<Item = Contact> + '_ {
        self.offers.values().map(|entry| entry.contact.clone())
    }

    fn decline(&mut self, now: Time, id: NodeId) {
        self.declined.retain(|_, until| *until > now);
        if self.declined.len() < OFFERS_MAX {
            self.declined.insert(id, now + DECLINED);
        }
    }
}

/// A client of this node.
#[derive(Clone, Debug)]
struct Client {
    contact: Contact,
    heard_at: Time,
    /// The view of this node that it was sent last.
    sent: Option<Arc<View>>,
    summoned_at: Option<Time>,
}

/// A client that is named to those who ask for its position.
#[derive(Clone, Debug)]
struct Registered {
    contact: Contact,
    host: Contact,
    at: Time,
    summoned_at: Option<Time>,
}

/// The clients of this node, and those registered with it.
#[derive(Clone, Debug, Default)]
pub(super) struct Clients {
    attached: BTreeMap<NodeId, Client>,
    registered: BTreeMap<Position, Registered>,
}

impl Clients {
    pub(super) fn has(&self, id: NodeId) -> bool {
        self.attached.contains_key(&id)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.attached.keys().copied()
    }

    pub(super) fn contact(&self, id: NodeId) -> Option<&Contact> {
        self.attached.get(&id).map(|client| &client.contact)
    }

    pub(super) fn heard(&mut self, now: Time, id: NodeId) {
        if let Some(client) = self.attached.get_mut(&id) {
            client.heard_at = now;
        }
    }

    pub(super) fn remove(&mut self, id: NodeId) {
        self.attached.remove(&id);
    }

    pub(super) fn sent(&self, id: NodeId) -> Option<Arc<View>> {
        self.attached.get(&id)?.sent.clone()
    }

    pub(super) fn note_sent(&mut self, id: NodeId, view: &Arc<View>) {
        if let Some(client) = self.attached.get_mut(&id) {
            client.sent = Some(Arc::clone(view));
        }
    }

    /// Forgets clients that are gone, and registrations that were not renewed.
    pub(super) fn forget_silent(&mut self, now: Time) {
        let heard = |client: &Client| now.since(client.heard_at) <= CLIENT_SILENCE_MAX;
        self.attached.retain(|_, client| heard(client));
        let valid = |registered: &Registered| now.since(registered.at) <= REGISTERED;
        self.registered.retain(|_, registered| valid(registered));
    }
}

/// Tells whether a client may be summoned again, and notes that it was.
fn may_summon(now: Time, last: &mut Option<Time>) -> bool {
    let may = last.is_none_or(|last| now.since(last) >= SUMMON_INTERVAL);
    if may {
        *last = Some(now);
    }
    may
}

/// What a host costs a client: its round trip, and what it lacks to be a supernode.
fn cost(grade: Grade, round_trip: Duration) -> Duration {
    match grade.class() {
        Class::Super => round_trip,
        Class::Peer | Class::Client => round_trip + SUPER_WORTH,
    }
}

// The client.
impl Overlay {
    /// Returns how many clients are attached to this node.
    pub fn clients(&self) -> usize {
        self.clients.attached.len()
    }

    /// Visits the clients that are attached to this node.
    pub fn attached(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.clients.ids()
    }

    /// Tells whether a node is attached to this one as a client.
    pub fn has_client(&self, id: NodeId) -> bool {
        self.clients.has(id)
    }

    /// Returns how near to a target the next hop must be at least: nearer than this node,
    /// which for a client, being nowhere on the ring, is any.
    pub(super) fn own_reach(&self, distance: Geometry, target: Position) -> Rank {
        if self.is_client() {
            RANK_MAX
        } else {
            distance.remaining(self.position, target)
        }
    }

    /// The six periods of a client.
    pub(super) fn on_client_period(&mut self, now: Time, period: Period) {
        match period {
            Period::Stabilise => {
                let hosts: Vec<NodeId> = self.peers.keys().copied().collect();
                hosts.into_iter().for_each(|id| self.probe(now, id));
            }
            Period::Link => {
                self.grade_self(now);
                self.take_offers_of_hosts();
                self.look_for_better(now);
                self.keep_hosts(now);
            }
            Period::Remember => self.keep_contacts(),
            Period::Probe | Period::Announce | Period::Place => {}
        }
    }

    /// Attaches to as many hosts as are missing, the best that are known.
    pub(super) fn keep_hosts(&mut self, now: Time) {
        if !self.is_client() || self.left {
            return;
        }
        let present = self.peers.len() + self.greetings.len();
        for _ in present..HOSTS {
            let Some((_, contact)) = self.best_offer(now) else {
                return;
            };
            self.greet(now, &contact, true);
        }
    }

    /// Tries another host if one is known that promises to be better than a present one.
    fn look_for_better(&mut self, now: Time) {
        let worst = self.peers.values().map(|peer| self.cost_of(peer)).max();
        let full = self.peers.len() >= HOSTS && self.greetings.is_empty();
        let (Some(worst), true) = (worst, full) else {
            return;
        };
        if let Some((cost, contact)) = self.best_offer(now)
            && cost + CHANGE_WORTH < worst
        {
            self.greet(now, &contact, true);
        }
    }

    fn best_offer(&self, now: Time) -> Option<(Duration, Contact)> {
        let declined = |id: &NodeId| {
            let until = self.hosting.declined.get(id);
            until.is_some_and(|until| *until > now)
        };
        let possible = self.hosting.offers.iter().filter(|(id, _)| {
            let taken = self.peers.contains_key(id) || self.greetings.contains_key(id);
            !taken
                && !declined(id)
                && !self.is_self(**id)
                && !self.quarantine.holds(self.position_of(id), now)
        });
        let judged = possible.map(|(id, entry)| {
            let round_trip = self.coordinate.round_trip(&entry.coordinate);
            let cost = cost(
                entry.grade,
                round_trip.unwrap_or_else(|| self.typical.usual()),
            );
            // Of equals, others choose others.
            let apart = self.position.distance(self.position_of(id));
            (cost, apart, &entry.contact)
        });
        let best = judged.min_by_key(|(cost, apart, _)| (*cost, *apart));
        best.map(|(cost, _, contact)| (cost, contact.clone()))
    }

    fn cost_of(&self, host: &Peer) -> Duration {
        cost(host.grade, host.round_trip.usual())
    }

    fn take_offers_of_hosts(&mut self) {
        let views: Vec<Entry> = self
            .peers
            .values()
            .flat_map(|peer| peer.view.members().filter_map(Member::entry))
            .collect();
        views
            .into_iter()
            .for_each(|entry| self.hosting.offer(entry));
    }

    fn take_offers(&mut self, update: &ViewUpdate) {
        for entry in &update.added {
            self.hosting.offer(entry.clone());
        }
    }

    /// A node answered that does not become a neighbour, because it or this one is a client.
    pub(super) fn on_host_welcome(
        &mut self,
        now: Time,
        from: NodeId,
        hello: &Hello,
        round_trip: Duration,
    ) {
        if !self.is_client() {
            // It was on the ring, or somebody said so.
            self.remove_peer(now, from);
            return;
        }
        if let Some(view) = &hello.view {
            self.take_offers(view);
        }
        if hello.link && !hello.grade.is_client() {
            self.attach(now, hello, round_trip);
        } else {
            self.hosting.decline(now, from);
            self.hosting.offers.remove(&from);
            self.remove_peer(now, from);
        }
        self.keep_hosts(now);
    }

    fn attach(&mut self, now: Time, hello: &Hello, round_trip: Duration) {
        let id = hello.contact.id();
        let position = self.position_of(&id);
        let mut peer = self
            .peers
            .remove(&id)
            .unwrap_or_else(|| Peer::new(hello.contact.clone(), position, now));
        peer.contact = hello.contact.clone();
        peer.coordinate = hello.coordinate;
        peer.grade = hello.grade;
        peer.heard_at = now;
        peer.drawn_at_size = Some(1);
        peer.round_trip.guess(round_trip);
        let update = hello.view.as_ref();
        let view = update.and_then(|update| self.updated(&peer.view, update));
        if let Some(view) = view {
            peer.view = view;
        }
        let first = self.peers.is_empty();
        self.peers.insert(id, peer);
        self.remembered.alive(id);
        self.part_with_worst(now);
        self.estimate_size();
        self.register_soon(now);
        self.remember_soon(now);
        if first {
            if !std::mem::replace(&mut self.joined, true) {
                self.effects.push_back(Effect::Joined);
            }
            self.effects.push_back(Effect::NeighboursChanged);
        }
    }

    /// Gives up the worst of too many hosts.
    fn part_with_worst(&mut self, now: Time) {
        if self.peers.len() <= HOSTS {
            return;
        }
        let worst = self.peers.iter().max_by_key(|(_, peer)| self.cost_of(peer));
        if let Some(id) = worst.map(|(id, _)| *id) {
            self.send_to(id, Message::Leave);
            self.remove_peer(now, id);
            self.hosting.decline(now, id);
        }
    }

    /// A node is gone that may have been a host, or was to become one.
    pub(super) fn host_failed(&mut self, now: Time, id: NodeId) {
        if self.is_client() {
            self.hosting.offers.remove(&id);
            self.take_offers_of_hosts();
            self.keep_hosts(now);
            self.register_soon(now);
        }
    }

    /// Has a client make itself known anew.
    pub(super) fn register_soon(&mut self, now: Time) {
        if self.is_client() {
            self.deadlines
                .set_no_later(Alarm::Register, now + REGISTER_SOON);
        }
    }

    pub(super) fn register(&mut self, now: Time) {
        let hosts = self.peers.values();
        let host = hosts.min_by_key(|peer| peer.round_trip.usual());
        let Some(host) = host.filter(|_| self.is_client()) else {
            return;
        };
        let host = host.contact.clone();
        self.ask_to_register(now, host);
        let wait = self.rng.jitter(REGISTER_INTERVAL);
        self.deadlines.set(Alarm::Register, now + wait);
    }

    /// Takes leave of peers and clients alike, because this node changes its class.
    pub(super) fn part_with_all(&mut self) {
        let all: Vec<NodeId> = self
            .peers
            .keys()
            .copied()
            .chain(self.clients.ids())
            .collect();
        for id in &all {
            self.send_to(*id, Message::Leave);
            self.deadlines.cancel(Alarm::Probe(*id));
            self.near.remove(*id);
        }
        let greeted: Vec<NodeId> = self.greetings.keys().copied().collect();
        greeted.into_iter().for_each(|id| self.forget_greeting(id));
        self.peers.clear();
        self.clients = Clients::default();
        self.view = Arc::default();
        self.view_stale = true;
    }
}

// The host, and the node in charge of a client's position.
impl Overlay {
    /// A hello by which nobody becomes a neighbour: one side is a client.
    pub(super) fn on_client_hello(&mut self, now: Time, from: NodeId, hello: &Hello) {
        self.remove_peer_unless_host(now, from);
        let room = self.clients.has(from) || self.clients.attached.len() < self.clients_max();
        let granted = hello.link && hello.grade.is_client() && room;
        if granted {
            let client = Client {
                contact: hello.contact.clone(),
                heard_at: now,
                sent: Some(Arc::clone(&self.view)),
                summoned_at: None,
            };
            self.clients.attached.insert(from, client);
        } else {
            self.clients.remove(from);
        }
        let welcome = Hello {
            nonce: hello.nonce,
            contact: self.me.clone(),
            coordinate: self.coordinate,
            grade: self.grade,
            link: granted,
            view: Some(self.view_for_client().update_since(None, &View::default())),
        };
        self.send(hello.contact.clone(), Message::Welcome(welcome));
    }

    /// Returns where a client may attach: whom this node knows, of a client its hosts.
    fn view_for_client(&self) -> Arc<View> {
        if !self.is_client() {
            return Arc::clone(&self.view);
        }
        let host = |peer: &Peer| peer.as_member(Role::Long);
        let hosts = View::default().next(self.peers.values().map(host));
        Arc::new(hosts.unwrap_or_default())
    }

    /// A former neighbour or host has become a client, or believes that this one is none.
    fn remove_peer_unless_host(&mut self, now: Time, from: NodeId) {
        if !self.is_client() {
            self.remove_peer(now, from);
        }
    }

    fn clients_max(&self) -> usize {
        self.class().clients_max()
    }

    /// Returns the place of a node on the ring; none of a client, whose position says
    /// nothing about what it knows.
    pub(super) fn ring_position(&self, id: NodeId) -> Option<Position> {
        (!self.clients.has(id)).then(|| self.position_of(&id))
    }

    /// Notes a client that sits at `target` and is attached to `host`.
    pub(super) fn note_registered(
        &mut self,
        now: Time,
        target: Position,
        client: &Contact,
        host: Contact,
    ) {
        let registered = &mut self.clients.registered;
        let room = registered.contains_key(&target) || registered.len() < REGISTERED_MAX;
        if self.position_of(&client.id()) != target || !room {
            return self.refuse();
        }
        let entry = Registered {
            contact: client.clone(),
            host,
            at: now,
            summoned_at: None,
        };
        self.clients.registered.insert(target, entry);
    }

    /// Somebody asks for a position: if a client is registered there, it is named, and told
    /// to dial who asked.
    pub(super) fn summon(&mut self, now: Time, target: Position, asker: &Contact) -> Option<Entry> {
        let registered = self.clients.registered.get_mut(&target)?;
        let (subject, host) = (registered.contact.id(), registered.host.clone());
        let own = subject == asker.id() || now.since(registered.at) > REGISTERED;
        let entry = Entry {
            contact: registered.contact.clone(),
            role: Role::Long,
            coordinate: Coordinate::default(),
            grade: Grade::CLIENT,
        };
        if own {
            return None;
        }
        if may_summon(now, &mut registered.summoned_at) {
            let newcomer = asker.clone();
            if self.is_self(host.id()) {
                self.on_summon(now, subject, newcomer);
            } else {
                self.send(host, Message::Summon { subject, newcomer });
            }
        }
        Some(entry)
    }

    pub(super) fn on_summon(&mut self, now: Time, subject: NodeId, newcomer: Contact) {
        let client = self.clients.attached.get_mut(&subject);
        if client.is_some_and(|client| may_summon(now, &mut client.summoned_at)) {
            self.send_to(subject, Message::Introduced { newcomer });
        } else {
            self.refuse();
        }
    }
}
