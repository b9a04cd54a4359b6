//! Signs of life: who is there, who is dead, and what follows from it.
//!
//! Any message is a sign of life. Who stays silent is asked, and asked again; then it
//! is taken for dead: it leaves all tables, the peers hear of it with the next view,
//! and it is not asked again for a while unless it speaks itself. A peer's word that
//! somebody is gone only makes this node ask.
//!
//! Who is silent here may still be there for others: not every two nodes can talk. A peer
//! whose view goes on naming such a node as its neighbour vouches for it, and what is meant
//! for that node goes by way of the peer ([`Overlay::is_vouched_for`]). So each of the two has
//! its place on the ring in the eyes of the other. (M. Freedman et al., "Non-Transitive
//! Connectivity and DHTs", WORLDS 2005, call them invisible nodes.)
//!
//! Silence is the same whether a node died or the network was split. So when one of those that
//! did not answer speaks again, the others are said hello to again as soon as somebody names
//! them ([`Overlay::reunite`]). Else two halves that meet would shun each other for as long as
//! the dead are left alone.

use std::net::SocketAddr;
use std::time::Duration;

use super::acquaint::all_told;
use super::{Alarm, Effect, Overlay};
use crate::contact::Contact;
use crate::coordinate::Coordinate;
use crate::id::NodeId;
use crate::message::Message;
use crate::peers::{Peer, Probe};
use crate::ring::Position;
use crate::small_map::SmallMap;
use crate::time::Time;
use crate::view::Role;

/// An alarm that comes so much too late says that this node did not run meanwhile: what came in
/// that time waits at its own door, and is heard first.
const LATE: Duration = Duration::from_millis(50);
/// How long a node that did not answer is left alone.
pub(super) const QUARANTINE: Duration = Duration::from_secs(60);
/// The most nodes that are left alone at one time; beyond it the oldest is forgotten.
const QUARANTINE_MAX: usize = 1024;
/// How long after its first place in the network a node may tell of another.
const MOVE_FIRST: Duration = Duration::from_secs(300);
/// By how much longer than its life so far it then waits with the next.
const MOVE_FACTOR: u32 = 3;
/// A peer heard within this time needs no question when others call it gone.
const HEARD_LATELY: Duration = Duration::from_secs(2);

/// After a peer was taken for dead, how long others are not believed that it is there: by
/// then its nearest neighbours have asked it with their period, and told the others.
const DOUBT: Duration = Duration::from_secs(20);

/// Nodes that did not answer lately, by their places on the ring: of those in a peer's view
/// no more is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Quarantine(SmallMap<Position, Silence>);

/// That a node did not answer, and when; until when it is left alone, and until when others are
/// not believed that it is there.
#[derive(Clone, Copy, Debug)]
struct Silence {
    since: Time,
    until: Time,
    doubted_until: Time,
}

impl Quarantine {
    /// Leaves a node alone that did not answer this one; others may reach it.
    pub(super) fn put(&mut self, at: Position, now: Time, time: Duration) {
        self.insert(at, now, time, Duration::ZERO);
    }

    /// Leaves a node alone that was a peer and fell silent: most likely it is dead, and
    /// others have not noticed yet.
    fn put_lost(&mut self, at: Position, now: Time) {
        self.insert(at, now, QUARANTINE, DOUBT);
    }

    fn insert(&mut self, at: Position, now: Time, time: Duration, doubt: Duration) {
        let silence = Silence {
            since: now,
            until: now + time,
            doubted_until: now + doubt,
        };
        if self.0.len() >= QUARANTINE_MAX {
            self.0.retain(|_, silence| silence.until > now);
        }
        if self.0.len() >= QUARANTINE_MAX {
            let oldest = self.0.iter().min_by_key(|(_, silence)| silence.until);
            let oldest = oldest.map(|(at, _)| *at);
            oldest.map(|oldest| self.0.remove(&oldest));
        }
        self.0.insert(at, silence);
    }

    /// Tells whether the node is to be left alone.
    pub(super) fn holds(&self, at: Position, now: Time) -> bool {
        self.0.get(&at).is_some_and(|silence| silence.until > now)
    }

    /// Tells whether the node is to be left alone because of what came at a moment or after it, if there
    /// was one. What comes at the very moment may be the answer to what it led to: who was said hello
    /// to then and cannot be reached is not said hello to again.
    pub(super) fn holds_since(&self, at: Position, now: Time, moment: Option<Time>) -> bool {
        let silence = self.0.get(&at).filter(|silence| silence.until > now);
        silence.is_some_and(|silence| moment.is_none_or(|moment| silence.since >= moment))
    }

    /// Tells whether the node is to be taken for dead, whatever others say.
    pub(super) fn doubts(&self, at: Position, now: Time) -> bool {
        let silence = self.0.get(&at);
        silence.is_some_and(|silence| silence.doubted_until > now)
    }

    /// Tells whether nothing was heard of the node since it last did not answer.
    pub(super) fn remembers(&self, at: Position) -> bool {
        self.0.contains_key(&at)
    }

    /// Leaves a node alone no longer; tells whether it had not answered.
    pub(super) fn release(&mut self, at: Position) -> bool {
        !self.0.is_empty() && self.0.remove(&at).is_some()
    }
}

impl Overlay {
    /// Tells whether a peer is believed that one of its near neighbours is there although it
    /// does not answer this node: when another peer says the same, for one alone may have made
    /// it up. Long links are looked after too seldom for that.
    pub(super) fn is_vouched_for(&self, now: Time, by: &Peer, at: Position) -> bool {
        let names = |peer: &Peer| {
            let member = peer.view.at(at);
            member.is_some_and(|member| member.role == Role::Near)
        };
        let other = |peer: &Peer| peer.position != by.position && names(peer);
        !self.quarantine.doubts(at, now) && names(by) && self.peers.values().any(other)
    }

    /// Notes a sign of life.
    pub(super) fn heard(&mut self, now: Time, from: NodeId) {
        let position = match self.peers.get_mut(&from) {
            Some(peer) => {
                peer.heard_at = now;
                peer.position
            }
            None => self.position_of(&from),
        };
        self.clients.heard(now, from);
        if self.quarantine.release(position) {
            self.reunite(now);
        }
    }

    /// One that did not answer speaks again: the network may have been split, and the others
    /// that did not answer may be there, too. Those that peers name are said hello to, at once
    /// and from now on; messages go by way of them when they have spoken.
    ///
    /// Whoever is to cause this again has to leave this node without an answer first. The work
    /// grows with the peers' views.
    fn reunite(&mut self, now: Time) {
        self.reunited_at = Some(now);
        self.learn_again(now);
    }

    /// Tells whether a node is not said hello to: it did not answer, and nobody has spoken again
    /// since.
    pub(super) fn is_shunned(&self, at: Position, now: Time) -> bool {
        self.quarantine.holds_since(at, now, self.reunited_at)
    }

    /// Returns when a node last spoke again that had not answered; none when none has.
    pub fn reunited_at(&self) -> Option<Time> {
        self.reunited_at
    }

    /// A service waited for a node in vain: a peer is asked for a sign of life.
    pub fn suspect(&mut self, now: Time, silent: NodeId) {
        self.probe(now, silent);
    }

    /// Asks a peer for a sign of life, unless it is being asked.
    pub(super) fn probe(&mut self, now: Time, id: NodeId) {
        if self.peers.get(&id).is_some_and(|peer| peer.probe.is_none()) {
            let nonce = self.rng.number() as u16;
            self.send_probe(id, Probe::new(now, nonce));
        }
    }

    fn send_probe(&mut self, id: NodeId, probe: Probe) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let version = peer.sent.as_ref().map_or(0, |sent| sent.version());
        peer.probe = Some(probe);
        self.deadlines
            .set(Alarm::Probe(id), peer.answer_due(&probe));
        let nonce = probe.nonce();
        self.send_to(id, Message::Ping { nonce, version });
    }

    pub(super) fn probe_timed_out(&mut self, now: Time, id: NodeId) {
        let nonce = self.rng.number() as u16;
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some(mut probe) = peer.probe else { return };
        let is_late = now > peer.answer_due(&probe) + LATE;
        if peer.heard_at > probe.sent_at() {
            self.end_probe(id);
        } else if is_late && !probe.is_extended {
            probe.is_extended = true;
            peer.probe = Some(probe);
            self.deadlines.set(Alarm::Probe(id), now + LATE);
        } else if let Some(again) = probe.again(now, nonce) {
            self.send_probe(id, again);
        } else {
            self.lose(now, id);
        }
    }

    /// Tells whether a peer is being asked for a sign of life.
    pub(super) fn is_probed(&self, id: NodeId) -> bool {
        self.peers.get(&id).is_some_and(|peer| peer.probe.is_some())
    }

    fn end_probe(&mut self, id: NodeId) {
        self.deadlines.cancel(Alarm::Probe(id));
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.probe = None;
        }
    }

    pub(super) fn on_ping(&mut self, from: NodeId, nonce: u16, version: u32) {
        let is_client = self.clients.has(from);
        let now = (self.coordinate, self.grade);
        let (mut about, mut sent) = (Some(now), self.view.version());
        if let Some(peer) = self.peers.get_mut(&from) {
            about = about.filter(|now| peer.told != Some(*now));
            peer.told = Some(now);
            sent = peer.sent.as_ref().map_or(0, |sent| sent.version());
        }
        let pong = Message::Pong {
            nonce,
            version: sent,
            known: is_client || self.peers.contains_key(&from),
            about,
        };
        self.send_to(from, pong);
        self.compare_version(from, version);
    }

    pub(super) fn on_pong(
        &mut self,
        now: Time,
        from: NodeId,
        nonce: u16,
        version: u32,
        known: bool,
    ) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return self.end_race(now, from, nonce);
        };
        let Some(sent_at) = peer.probe.and_then(|probe| probe.answered(nonce)) else {
            return;
        };
        self.measured(now, from, now.since(sent_at));
        self.end_probe(from);
        if known {
            self.compare_version(from, version);
        } else {
            self.forgotten_by(now, from);
        }
    }

    /// Takes in a measured round trip to a peer.
    pub(super) fn measured(&mut self, now: Time, id: NodeId, round_trip: Duration) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.round_trip.measured(round_trip);
        self.typical.measured(round_trip);
        let least = peer.round_trip.least().unwrap_or(round_trip);
        let coordinate = peer.coordinate;
        self.place_in_network(now, &coordinate, least);
    }

    /// Corrects this node's place in the network by a round trip.
    pub(super) fn place_in_network(&mut self, now: Time, other: &Coordinate, round_trip: Duration) {
        self.vivaldi.measured(other, round_trip, &mut self.rng);
        let coordinate = self.vivaldi.coordinate();
        // Everyone who tells of this node has to tell of its moves: so they are few, at
        // first after some measurements, then after ever longer times.
        let first = !self.coordinate.is_known();
        let due = now >= self.next_move && coordinate.has_moved_from(&self.coordinate);
        if first && coordinate.is_known() {
            self.next_move = now + MOVE_FIRST;
            self.coordinate = coordinate;
        } else if due {
            self.next_move = now + now.since(Time::ZERO).max(MOVE_FIRST) * MOVE_FACTOR;
            self.coordinate = coordinate;
        }
    }

    /// The peer does not count this node among its own: it restarted, or found nearer
    /// neighbours, or gave the link up.
    fn forgotten_by(&mut self, now: Time, id: NodeId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.link_in = false;
        let (contact, linked) = (peer.contact.clone(), peer.drawn_at_size.is_some());
        if linked || self.near.contains(id) {
            self.greet(now, &contact, linked);
        } else {
            self.peers.remove(&id);
        }
        self.view_stale = true;
    }

    /// A peer says that these are no longer its neighbours: see for ourselves.
    pub(super) fn check_removed(&mut self, now: Time, removed: &[Position]) {
        let gone = self.near.iter().filter(|p| removed.contains(&p.position));
        let gone: Vec<NodeId> = gone.map(|place| place.id).collect();
        for id in gone {
            let peer = self.peers.get(&id);
            if peer.is_some_and(|peer| now.since(peer.heard_at) > HEARD_LATELY) {
                self.probe(now, id);
            }
        }
    }

    /// No address of the node answers.
    pub(super) fn unreachable(&mut self, now: Time, id: NodeId) {
        if self.peers.contains_key(&id) {
            return self.lose(now, id);
        }
        let hoped = self.greetings.contains_key(&id);
        self.forget_greeting(id);
        self.quarantine.put(self.position_of(&id), now, QUARANTINE);
        if hoped {
            self.learn_again(now);
        }
        self.expedite_hops(now, id);
        self.fail_finds(now, id);
        self.host_failed(now, id);
    }

    /// A session may end because nothing was said for long; a peer is asked.
    pub(super) fn closed(&mut self, now: Time, id: NodeId) {
        self.probe(now, id);
    }

    pub(super) fn on_leave(&mut self, now: Time, from: NodeId) {
        self.quarantine.put_lost(self.position_of(&from), now);
        self.clients.remove(from);
        self.remove_peer(now, from);
        self.expedite_hops(now, from);
        self.host_failed(now, from);
    }

    /// Says goodbye to all peers and makes no new acquaintance any more.
    pub(super) fn take_leave(&mut self) {
        self.left = true;
        self.keep_contacts();
        let peers: Vec<NodeId> = self
            .peers
            .keys()
            .copied()
            .chain(self.clients.ids())
            .collect();
        for id in peers {
            self.send_to(id, Message::Leave);
        }
    }

    /// Takes a peer for dead.
    fn lose(&mut self, now: Time, id: NodeId) {
        self.quarantine.put_lost(self.position_of(&id), now);
        let was_near = self.near.contains(id);
        if let Some(contact) = self.remove_peer(now, id) {
            self.counters.peers_lost += 1;
            self.remember_lost(now, contact, was_near);
            self.effects.push_back(Effect::GiveUp(id));
        }
        self.expedite_hops(now, id);
        self.fail_finds(now, id);
        self.host_failed(now, id);
    }

    pub(super) fn remove_peer(&mut self, now: Time, id: NodeId) -> Option<Contact> {
        self.deadlines.cancel(Alarm::Probe(id));
        self.forget_greeting(id);
        let peer = self.peers.remove(&id)?;
        self.view_stale = true;
        if self.near.remove(id) {
            // First the candidates that the lost one itself knew: they are the nearest.
            self.near_changed(now);
            self.consider(now, all_told(id, &peer.view).collect());
            self.learn_again(now);
        }
        Some(peer.contact)
    }

    /// This node's own addresses changed: the peers hear of it.
    pub(super) fn readdress(&mut self, now: Time, addresses: Vec<SocketAddr>) {
        let contact = Contact::new(self.me.id(), addresses);
        if contact == self.me {
            return;
        }
        self.me = contact;
        // It may have been carried to another network, and be far from where it was.
        self.next_move = now;
        self.register_soon(now);
        let peers: Vec<(Contact, bool)> = self
            .peers
            .values()
            .map(|peer| (peer.contact.clone(), peer.drawn_at_size.is_some()))
            .collect();
        for (contact, linked) in peers {
            self.greet(now, &contact, linked);
        }
        // Those that it did not reach, or that did not reach it, may do so now.
        self.reunite(now);
    }
}
