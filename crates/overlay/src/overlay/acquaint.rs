//! Becoming acquainted: hello and welcome, views, who becomes a near neighbour.
//!
//! A node that learns of another which would be a near neighbour says hello; only a
//! node that answered, or spoke itself, gets a place in the near set, so that nobody
//! passes on the dead. Near neighbours tell each other every change of their views,
//! and what they learn there leads to the next hello: this alone closes the ring
//! again after crashes and zips two rings into one.

use std::sync::Arc;
use std::time::Duration;

use super::{Alarm, Effect, Overlay};
use crate::config::Forwarding;
use crate::contact::Contact;
use crate::id::NodeId;
use crate::message::{Hello, Message};
use crate::near::Place;
use crate::peers::Peer;
use crate::time::Time;
use crate::view::{Detail, Entry, Mark, Role, View, ViewUpdate, mark};

/// The most hellos that wait for their welcome at one time.
const GREETINGS_MAX: usize = 64;
/// The most hellos that wait because of what one node told; it may have made names up.
const HEARSAY_MAX: usize = 12;
/// How long to wait for the first welcome, twice as long for the second.
const GREETING_TIMEOUT: Duration = Duration::from_millis(1500);
/// How long a node that refused a link is not asked for one again.
const REFUSAL: Duration = Duration::from_secs(900);
/// How often to say hello before a node counts as gone.
const GREETING_TRIES: u32 = 2;

/// A hello on its way.
#[derive(Clone, Debug)]
pub(super) struct Greeting {
    contact: Contact,
    /// Who told of the node; none when this node chose it itself.
    teller: Option<NodeId>,
    nonce: u32,
    link: bool,
    sent_at: Time,
    tries: u32,
}

/// A node that another mentions.
#[derive(Clone, Debug)]
pub(super) struct Told {
    teller: NodeId,
    place: Place,
    contact: Contact,
}

/// Returns everyone in a node's view who is on the ring and can be turned to.
pub(super) fn all_told(teller: NodeId, view: &View) -> impl Iterator<Item = Told> + '_ {
    let on_ring = view.members().filter(|m| !m.grade.is_client());
    on_ring.filter_map(move |member| {
        let contact = member.contact.clone()?;
        let place = Place {
            position: member.position,
            id: contact.id(),
        };
        Some(Told {
            teller,
            place,
            contact,
        })
    })
}

impl Overlay {
    /// Says hello unless one is on its way already; with `link` it asks for a long link.
    pub(super) fn greet(&mut self, now: Time, contact: &Contact, link: bool) {
        self.greet_known_by(now, contact, link, None);
    }

    fn greet_known_by(&mut self, now: Time, contact: &Contact, link: bool, teller: Option<NodeId>) {
        let id = contact.id();
        if self.is_self(id) {
            return;
        }
        if let Some(present) = self.greetings.get_mut(&id) {
            present.link |= link;
            return;
        }
        let told = self.greetings.values().filter(|g| g.teller == teller);
        let too_many = teller.is_some() && told.count() >= HEARSAY_MAX;
        if self.greetings.len() < GREETINGS_MAX && !too_many {
            let contact = contact.clone();
            let greeting = Greeting {
                contact,
                teller,
                nonce: 0,
                link,
                sent_at: now,
                tries: 0,
            };
            self.greetings.insert(id, greeting);
            self.say_hello(now, id);
        }
    }

    fn say_hello(&mut self, now: Time, id: NodeId) {
        let nonce = self.rng.number() as u32;
        let (me, coordinate, grade) = (self.me.clone(), self.coordinate, self.grade);
        let Some(greeting) = self.greetings.get_mut(&id) else {
            return;
        };
        greeting.nonce = nonce;
        greeting.sent_at = now;
        greeting.tries += 1;
        let wait = GREETING_TIMEOUT * greeting.tries;
        let hello = Hello {
            nonce,
            contact: me,
            coordinate,
            grade,
            link: greeting.link,
            view: None,
        };
        let to = greeting.contact.clone();
        self.deadlines.set(Alarm::Greeting(id), now + wait);
        self.send(to, Message::Hello(hello));
    }

    pub(super) fn greeting_timed_out(&mut self, now: Time, id: NodeId) {
        match self.greetings.get(&id) {
            Some(greeting) if greeting.tries < GREETING_TRIES => {
                // It may be behind a router that lets nobody in whom it has not spoken to.
                let teller = greeting.teller.filter(|it| self.peers.contains_key(it));
                if let Some(teller) = teller {
                    self.ask_introduction(now, teller, id);
                }
                self.say_hello(now, id);
            }
            Some(_) => self.unreachable(now, id),
            None => {}
        }
    }

    /// Returns how many nodes have been asked for a link and have not answered yet.
    pub(super) fn links_asked(&self) -> u32 {
        let drawn = |id| {
            self.peers
                .get(id)
                .is_some_and(|peer| peer.drawn_at_size.is_some())
        };
        self.greetings
            .iter()
            .filter(|(id, greeting)| greeting.link && !drawn(*id))
            .count() as u32
    }

    /// Tells whether a node that would be a near neighbour has been said hello to and has not
    /// answered yet.
    pub(super) fn is_greeting_neighbours(&self) -> bool {
        self.greetings.values().any(|greeting| !greeting.link)
    }

    pub(super) fn forget_greeting(&mut self, id: NodeId) {
        self.deadlines.cancel(Alarm::Greeting(id));
        self.greetings.remove(&id);
    }

    pub(super) fn on_hello(&mut self, now: Time, from: NodeId, hello: &Hello) {
        if hello.contact.id() != from || self.is_self(from) {
            return self.refuse();
        }
        if self.left {
            return;
        }
        if hello.grade.is_client() || self.is_client() {
            return self.on_client_hello(now, from, hello);
        }
        if self.hellos_crossed(from) {
            return;
        }
        self.clients.remove(from);
        let granted = hello.link && self.grants_link(now, from);
        self.admit(now, hello, |peer| peer.link_in |= granted);
        let kept = self.peers.contains_key(&from);
        // Who looks for its place on the ring finds it in the views of those around it.
        let tells = kept || !hello.link;
        let told = if hello.link {
            self.view_for(from)
        } else {
            self.view_for_neighbour()
        };
        let welcome = Hello {
            nonce: hello.nonce,
            contact: self.me.clone(),
            coordinate: self.coordinate,
            grade: self.grade,
            link: granted,
            view: tells.then(|| told.update_since(None, &View::default())),
        };
        if tells {
            self.note_sent(from, told);
        }
        self.send(hello.contact.clone(), Message::Welcome(welcome));
        // Who is not kept, and was not asked, has nothing to tell.
        if let Some(view) = hello.view.as_ref().filter(|_| kept) {
            self.learn(now, from, &view.added);
        }
    }

    /// Tells whether of two nodes that said hello to each other at once this is the one whose
    /// hello is answered. Each would tell all of its view twice.
    fn hellos_crossed(&mut self, from: NodeId) -> bool {
        if !self.greetings.contains_key(&from) {
            return false;
        }
        if self.me.id() < from {
            return true;
        }
        // Whoever wants a link of the other says so in a hello of its own.
        if !self
            .greetings
            .get(&from)
            .is_some_and(|greeting| greeting.link)
        {
            self.forget_greeting(from);
        }
        false
    }

    pub(super) fn on_welcome(&mut self, now: Time, from: NodeId, hello: &Hello) {
        let expected = self
            .greetings
            .get(&from)
            .filter(|greeting| greeting.nonce == hello.nonce);
        let Some(greeting) = expected.filter(|_| hello.contact.id() == from) else {
            return self.refuse();
        };
        let (asked, round_trip) = (greeting.link, now.since(greeting.sent_at));
        self.forget_greeting(from);
        let drawn = (asked && hello.link).then(|| self.size_estimate());
        // It includes opening the session, which takes a round trip of its own.
        let round_trip = round_trip / 2;
        self.place_in_network(now, &hello.coordinate, round_trip);
        if hello.grade.is_client() || self.is_client() {
            return self.on_host_welcome(now, from, hello, round_trip);
        }
        self.admit(now, hello, |peer| {
            peer.drawn_at_size = drawn.or(peer.drawn_at_size);
            peer.round_trip.guess(round_trip);
        });
        if asked && !hello.link {
            self.refusals.put(self.position_of(&from), now, REFUSAL);
        }
        if asked {
            self.draw_links(now);
        }
        if let Some(view) = &hello.view {
            self.learn(now, from, &view.added);
        }
    }

    /// Takes a node that has just spoken among the peers if it is to be one, and keeps
    /// what it said of itself.
    fn admit(&mut self, now: Time, hello: &Hello, change: impl FnOnce(&mut Peer)) {
        let id = hello.contact.id();
        let place = self.place_of(id);
        let mut peer = self
            .peers
            .remove(&id)
            .unwrap_or_else(|| Peer::new(hello.contact.clone(), place.position, now));
        peer.heard_at = now;
        change(&mut peer);
        peer.contact = hello.contact.clone();
        peer.coordinate = hello.coordinate;
        peer.grade = hello.grade;
        let became_near = self.near.insert(place);
        if self.near.contains(id) || peer.is_long() {
            let update = hello.view.as_ref();
            let view = update.and_then(|update| self.updated(&peer.view, update));
            if let Some(view) = view {
                peer.view = view;
            }
            self.peers.insert(id, peer);
        }
        self.view_stale = true;
        self.remembered.alive(id);
        if became_near {
            self.near_changed(now);
        }
    }

    /// Forgets peers that are neither near neighbours nor links any more.
    pub(super) fn near_changed(&mut self, now: Time) {
        let near = &self.near;
        self.peers
            .retain(|id, peer| peer.is_long() || near.contains(*id));
        self.view_stale = true;
        self.announce_soon = true;
        self.near_changes += 1;
        self.estimate_size();
        self.remember_soon(now);
        self.effects.push_back(Effect::NeighboursChanged);
        if !self.joined && !self.near.is_empty() {
            self.joined = true;
            self.effects.push_back(Effect::Joined);
            self.start_linking(now);
        }
    }

    /// Says hello to those of the named nodes that would be near neighbours.
    pub(super) fn learn(&mut self, now: Time, teller: NodeId, told: &[Entry]) {
        let on_ring = told.iter().filter(|entry| !entry.grade.is_client());
        let told = on_ring.map(|entry| Told {
            teller,
            place: self.place_of(entry.contact.id()),
            contact: entry.contact.clone(),
        });
        let told = told.collect();
        self.consider(now, told);
    }

    /// Looks through all peers' views for near neighbours, after one was lost.
    pub(super) fn learn_again(&mut self, now: Time) {
        let views = self.peers.iter().map(|(id, peer)| (*id, &peer.view));
        let told = views.flat_map(|(teller, view)| all_told(teller, view));
        let told = told.collect();
        self.consider(now, told);
    }

    /// Of nodes that others mention, says hello to those that would be near neighbours if all
    /// of them, and those that are being greeted, were there.
    pub(super) fn consider(&mut self, now: Time, mut told: Vec<Told>) {
        if self.is_client() {
            return;
        }
        told.retain(|told| {
            let id = told.place.id;
            !self.near.contains(id)
                && self.near.would_take(told.place)
                && !self.is_shunned(told.place.position, now)
        });
        if told.is_empty() {
            return;
        }
        let mut hoped = self.near.clone();
        for greeting in self.greetings.values().filter(|greeting| !greeting.link) {
            hoped.insert(self.place_of(greeting.contact.id()));
        }
        for told in &told {
            hoped.insert(told.place);
        }
        for Told {
            teller,
            place,
            contact,
        } in told
        {
            if !hoped.contains(place.id) || self.near.contains(place.id) {
                continue;
            }
            if self.peers.contains_key(&place.id) {
                // A long link that is in touch anyway. It is said hello to nevertheless: to a
                // link it has told less than to a neighbour.
                self.near.insert(place);
                self.near_changed(now);
            }
            self.greet_known_by(now, &contact, false, Some(teller));
        }
    }

    /// Makes this node's view anew; a client has none.
    pub(super) fn renew_view(&mut self) {
        if self.is_client() {
            return;
        }
        let member = |peer: &Peer| {
            let near = self.near.contains(peer.contact.id());
            peer.as_member(if near { Role::Near } else { Role::Long })
        };
        if let Some(next) = self.view.next(self.peers.values().map(member)) {
            self.view = Arc::new(next);
        }
    }

    /// Returns this node's view as a node is told of it.
    fn view_for(&self, id: NodeId) -> Arc<View> {
        if self.clients.has(id) {
            Arc::clone(&self.view)
        } else if self.near.contains(id) || !self.peers.contains_key(&id) {
            self.view_for_neighbour()
        } else if self.config.forwarding == Forwarding::Jump {
            Arc::clone(&self.view)
        } else {
            self.view.told(Detail::Seats)
        }
    }

    /// Returns it as a near neighbour is told of it, and whoever looks for its place among them.
    fn view_for_neighbour(&self) -> Arc<View> {
        self.view.told(match self.config.forwarding {
            Forwarding::Jump => Detail::Everyone,
            Forwarding::Greedy | Forwarding::Lookahead | Forwarding::Fastest => Detail::Near,
        })
    }

    fn note_sent(&mut self, id: NodeId, view: Arc<View>) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.sent = Some(view);
        }
        self.clients.note_sent(id, &self.view);
    }

    /// Tells the near neighbours at once what changed since they were told last.
    pub(super) fn announce_to_near(&mut self) {
        let near: Vec<NodeId> = self.near.iter().map(|place| place.id).collect();
        for id in near {
            self.announce_to(id);
        }
    }

    /// Tells one peer what changed since it was told last, if anything did.
    pub(super) fn announce_to(&mut self, id: NodeId) {
        let view = self.view_for(id);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let same = |sent: &Arc<View>| sent.version() == view.version();
        if peer.sent.as_ref().is_some_and(same) {
            return;
        }
        let sent = peer.sent.replace(Arc::clone(&view));
        let update = view.update_since(sent.as_deref(), &peer.view);
        self.send_to(id, Message::ViewUpdate(update));
    }

    /// Returns what an update makes of a view; none when it does not fit.
    pub(super) fn updated(&self, view: &View, update: &ViewUpdate) -> Option<Arc<View>> {
        let known = |wanted: Mark| {
            let mut peers = self.peers.values();
            let peer = peers.find(|peer| mark(peer.position) == wanted);
            peer.map(|peer| peer.as_member(Role::Near))
        };
        view.updated(&self.config.overlay, update, known)
    }

    pub(super) fn on_view_request(&mut self, from: NodeId, have: u32) {
        let sent = self.peers.get(&from).and_then(|peer| peer.sent.clone());
        let sent = sent.or_else(|| self.clients.sent(from));
        let base = sent.filter(|sent| sent.version() == have && have != 0);
        // Who asks for all of it may lack those whom it told.
        let view = self.view_for(from);
        let update = view.update_since(base.as_deref(), &View::default());
        self.note_sent(from, view);
        self.send_to(from, Message::ViewUpdate(update));
    }

    pub(super) fn on_view_update(&mut self, now: Time, from: NodeId, update: &ViewUpdate) {
        let Some(before) = self.peers.get(&from).map(|peer| Arc::clone(&peer.view)) else {
            return;
        };
        let removed = before.removed_by(update);
        match self.updated(&before, update) {
            Some(view) => {
                if let Some(peer) = self.peers.get_mut(&from) {
                    peer.view = view;
                }
                self.learn(now, from, &update.added);
                self.check_removed(now, &removed);
            }
            None => self.send_to(from, Message::ViewRequest { have: 0 }),
        }
    }

    /// Asks for the view of a peer that says to have sent another version than we have.
    pub(super) fn compare_version(&mut self, from: NodeId, version: u32) {
        let Some(peer) = self.peers.get(&from) else {
            return;
        };
        let have = peer.view.version();
        if have != version && version != 0 {
            self.send_to(from, Message::ViewRequest { have });
        }
    }
}
