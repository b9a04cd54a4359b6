//! Long links: how many, drawn where, granted to whom.
//!
//! Symphony, section 3: a node draws k distances from the harmonic density and links
//! to the managers of those points; a node takes at most 2k links from others; links
//! serve both directions. Links are drawn anew when the estimated size has changed by
//! a factor of two since (section 4.2), one at a time so that routes stay short
//! meanwhile.
//!
//! Other geometries sort their links into slots, fingers or buckets or directions, and the
//! emptiest get theirs first ([`Geometry`]).

use std::time::Duration;

use super::effort::Effort;
use super::upkeep::Period;
use super::{Alarm, Effect, Overlay};
use crate::contact::Contact;
use crate::coordinate::Coordinate;
use crate::geometry::Geometry;
use crate::id::NodeId;
use crate::message::{Message, Query};
use crate::ring::{Position, harmonic_distance};
use crate::silence::Silences;
use crate::time::Time;
use crate::view::Entry;

use super::requests::Purpose;

/// The most long links a node draws, whatever is configured or estimated.
pub(super) const LINKS_MAX: u32 = 64;
/// Among how many nodes about a drawn point the link goes to the nearest in the network.
const CANDIDATES: usize = 16;
/// How many of them the asker hears of: some may have refused it before.
const CANDIDATES_TOLD: usize = 4;
/// How many of them, the nearest by their places in the network, race for the link: places
/// are a guess.
const RUNNERS: usize = 4;
/// How long a race lasts at most, and how many go on at one time.
const RACE_TIME: Duration = Duration::from_secs(3);
const RACES_MAX: usize = 32;
/// How long after the first neighbour the first links are drawn.
const LINKING_DELAY: Duration = Duration::from_secs(2);
/// How many draws in a row may fail before the next period tries again.
const DRAWS_PER_ROUND: u32 = 4;

/// Nodes about a drawn point that were asked for a sign of life.
#[derive(Clone, Debug)]
pub(super) struct Race {
    nonce: u16,
    at: Time,
    runners: Vec<Contact>,
}

impl Overlay {
    /// Returns how many long links this node wants to have drawn.
    pub fn links_wanted(&self) -> u32 {
        self.links_by(Effort::links)
    }

    /// Returns with how many links none is given up.
    fn links_kept(&self) -> u32 {
        self.links_by(Effort::links_kept)
    }

    fn links_by(&self, effort: impl Fn(&Effort, u32) -> u32) -> u32 {
        if self.near.spans_ring() {
            return 0;
        }
        let suited = match self.config.geometry {
            Geometry::Symphony => effort(&self.effort, self.size_estimate().max(1).ilog2() / 2),
            geometry => geometry.slots(self.size_estimate()),
        };
        let usual = self.config.long_links.unwrap_or(suited);
        (usual * self.class().links_factor()).min(LINKS_MAX)
    }

    /// Returns how many long links this node has drawn.
    pub fn links_drawn(&self) -> u32 {
        self.peers
            .values()
            .filter(|peer| peer.drawn_at_size.is_some())
            .count() as u32
    }

    pub(super) fn grants_link(&self, now: Time, from: NodeId) -> bool {
        if self.only_takes(now, from) {
            return false;
        }
        let others = self
            .peers
            .iter()
            .filter(|(id, peer)| peer.link_in && **id != from)
            .count();
        (others as u32) < (2 * self.links_wanted()).max(2)
    }

    /// Begins to draw links soon after the node has found its place: by then it knows its
    /// neighbours, the size of the ring and its place in the network.
    pub(super) fn start_linking(&mut self, now: Time) {
        let link = Alarm::Period(Period::Link);
        self.deadlines.set_no_later(link, now + LINKING_DELAY);
    }

    /// The periodic look at the links.
    pub(super) fn keep_links(&mut self, now: Time) {
        self.draws_left = DRAWS_PER_ROUND;
        self.end_vain_links(now);
        if self.links_drawn() > self.links_kept() {
            self.give_up_link(|_, _| true);
        } else if self.config.geometry != Geometry::Symphony {
            self.give_up_misplaced();
        } else if self.links_drawn() >= self.links_wanted() {
            let size = self.size_estimate();
            self.give_up_link(|_, drawn| drawn > size.saturating_mul(2) || drawn < size / 2);
        }
        self.draw_links(now);
    }

    fn give_up_link(&mut self, outdated: impl Fn(Position, u64) -> bool) {
        let link = self.peers.iter_mut().find(|(_, p)| {
            p.drawn_at_size
                .is_some_and(|size| outdated(p.position, size))
        });
        let Some((id, peer)) = link else { return };
        let id = *id;
        peer.drawn_at_size = None;
        if !peer.is_long() && !self.near.contains(id) {
            self.peers.remove(&id);
        }
        self.view_stale = true;
    }

    /// Draws as many links as are missing.
    pub(super) fn draw_links(&mut self, now: Time) {
        let asked = self.requests.count(Purpose::Link) + self.links_asked();
        let under_way = asked + self.racing(now);
        let size = self.size_estimate();
        let missing = self
            .links_wanted()
            .saturating_sub(self.links_drawn() + under_way);
        let mut filled = self.filled_slots(size);
        for _ in 0..missing {
            // A question that this node answers itself ends at once, and may draw again.
            let Some(left) = self.draws_left.checked_sub(1) else {
                return;
            };
            self.draws_left = left;
            let Some(target) = self.draw_point(size, &mut filled) else {
                return;
            };
            let to = self.chooses_by_place().then_some(self.coordinate);
            self.ask(now, target, Query::Links { to }, Purpose::Link);
        }
    }

    /// Tells whether a link is chosen among several nodes about a point. A zone of CAN has
    /// one neighbour on each side, and no choice.
    fn chooses_by_place(&self) -> bool {
        self.config.proximity && !matches!(self.config.geometry, Geometry::Can { .. })
    }

    /// Returns those about a point that seem nearest in the network to a place, nearest
    /// first: they are a few of [`CANDIDATES`], so that an answer is short. Without a place it
    /// is the one in charge of the point.
    pub(super) fn link_candidates(
        &self,
        point: Position,
        to: Option<Coordinate>,
        silences: &Silences,
    ) -> Vec<Entry> {
        let Some(to) = to else {
            return self.nodes_left(point, 1, silences);
        };
        let mut nodes = self.nodes_left(point, CANDIDATES, silences);
        nodes.sort_by_key(|entry| to.round_trip(&entry.coordinate).unwrap_or(Duration::MAX));
        nodes.truncate(CANDIDATES_TOLD);
        nodes
    }

    /// Returns how many drawn links each slot of the geometry has; nothing in Symphony.
    fn filled_slots(&mut self, size: u64) -> Vec<u32> {
        let geometry = self.config.geometry;
        let slots = geometry.slots(size);
        let mut filled = vec![0; slots as usize];
        if matches!(geometry, Geometry::Can { .. }) {
            for (slot, count) in (0..slots).zip(&mut filled) {
                let point = geometry.point(&mut self.rng, self.position, slot, size);
                *count = point.map_or(0, |point| u32::from(self.covers(point)));
            }
        } else if slots > 0 {
            let drawn = self.peers.values().filter(|p| p.drawn_at_size.is_some());
            for slot in drawn.filter_map(|p| geometry.slot_of(self.position, p.position)) {
                if let Some(count) = filled.get_mut(slot as usize) {
                    *count += 1;
                }
            }
        }
        filled
    }

    /// Tells whether this node, or one of its peers, is in charge of a point.
    fn covers(&self, point: Position) -> bool {
        let peers = self.peers.values();
        let Some(nearest) = peers.min_by_key(|peer| point.rank(peer.position)) else {
            return true;
        };
        let best = point.rank(nearest.position);
        let nearer = nearest.view.nearest(point, |_| true);
        let nearer = nearer.is_some_and(|member| point.rank(member.position) < best);
        point.rank(self.position) < best || !nearer
    }

    /// Draws a point for a link, in one of the emptiest slots.
    fn draw_point(&mut self, size: u64, filled: &mut [u32]) -> Option<Position> {
        let geometry = self.config.geometry;
        if geometry == Geometry::Symphony {
            let distance = harmonic_distance(&mut self.rng, size);
            return Some(self.position.advance(distance));
        }
        let least = filled.iter().min().copied()?;
        // On each side of a zone there is one neighbour and not more.
        if least > 0 && matches!(geometry, Geometry::Can { .. }) {
            return None;
        }
        let emptiest: Vec<usize> = (0..filled.len()).filter(|i| filled[*i] == least).collect();
        let slot = emptiest[self.rng.below(emptiest.len() as u64) as usize];
        filled[slot] += 1;
        geometry.point(&mut self.rng, self.position, slot as u32, size)
    }

    /// Tells whether a link to a place goes into one of the emptiest slots.
    fn is_wanted(&self, place: Position, filled: &[u32]) -> bool {
        let Some(slot) = self.config.geometry.slot_of(self.position, place) else {
            return true;
        };
        filled.get(slot as usize) == filled.iter().min()
    }

    /// Gives up a link whose slot has more than others lack, or that no slot needs.
    fn give_up_misplaced(&mut self) {
        let size = self.size_estimate();
        let (geometry, me) = (self.config.geometry, self.position);
        let filled = self.filled_slots(size);
        if matches!(geometry, Geometry::Can { .. }) {
            let points: Vec<Position> = (0..geometry.slots(size))
                .filter_map(|slot| geometry.point(&mut self.rng, me, slot, size))
                .collect();
            // Who is in charge of no point beside this node's zone has no place nearer to one
            // than all other peers.
            let nearest = |point: &Position| {
                let places = self.peers.values().map(|peer| peer.position);
                places.min_by_key(|at| point.rank(*at))
            };
            let needed: Vec<Position> = points.iter().filter_map(nearest).collect();
            return self.give_up_link(|at, _| !needed.contains(&at));
        }
        if self.links_drawn() < self.links_wanted() {
            return;
        }
        let least = filled.iter().min().copied().unwrap_or(0);
        self.give_up_link(|at, _| {
            let slot = geometry.slot_of(me, at).unwrap_or(0) as usize;
            filled.get(slot).is_none_or(|count| *count > least + 1)
        });
    }

    /// The node in charge of a drawn point is known: ask it for a link.
    pub(super) fn link_found(&mut self, now: Time, nodes: &[Entry]) {
        let filled = self.filled_slots(self.size_estimate());
        let suits = |entry: &&Entry| {
            let id = entry.contact.id();
            let linked = self
                .peers
                .get(&id)
                .is_some_and(|p| p.drawn_at_size.is_some());
            let free = !linked
                && !entry.grade.is_client()
                && !self.is_self(id)
                && !self.near.contains(id)
                && !self.refusals.holds(self.position_of(&id), now)
                && !self.only_takes(now, id);
            free && self.is_wanted(self.position_of(&id), &filled)
        };
        let mut candidates: Vec<&Entry> = nodes.iter().filter(suits).collect();
        if !self.chooses_by_place() {
            // The node in charge of the drawn point, as in the paper.
            candidates.truncate(1);
        }
        candidates.sort_by_key(|entry| {
            let round_trip = self.coordinate.round_trip(&entry.coordinate);
            round_trip.unwrap_or(Duration::MAX)
        });
        candidates.truncate(RUNNERS);
        let contacts = candidates.iter().map(|entry| entry.contact.clone());
        match contacts.collect::<Vec<Contact>>().as_slice() {
            // A node that refuses would refuse again; a new point is drawn then.
            [] => self.draw_links(now),
            [only] => self.greet(now, only, true),
            runners => self.start_race(now, runners),
        }
    }

    /// Asks several nodes for a sign of life; the first to give it gets the link.
    fn start_race(&mut self, now: Time, runners: &[Contact]) {
        let nonce = self.rng.number() as u16;
        self.races.retain(|race| now.since(race.at) < RACE_TIME);
        if self.races.len() < RACES_MAX {
            let at = now;
            let runners = runners.to_vec();
            for runner in &runners {
                self.send(runner.clone(), Message::Ping { nonce, version: 0 });
            }
            self.races.push(Race { nonce, at, runners });
        }
    }

    /// Takes a stranger's sign of life for what it may be: the end of a race.
    pub(super) fn end_race(&mut self, now: Time, from: NodeId, nonce: u16) {
        let won = self.races.iter().position(|race| {
            let runs = race.runners.iter().any(|runner| runner.id() == from);
            race.nonce == nonce && runs
        });
        let Some(index) = won else { return };
        let race = self.races.swap_remove(index);
        let winner = race.runners.iter().find(|runner| runner.id() == from);
        if let Some(winner) = winner {
            self.greet(now, winner, true);
        }
    }

    /// Returns how many links wait for the end of a race.
    fn racing(&self, now: Time) -> u32 {
        let running = |race: &&Race| now.since(race.at) < RACE_TIME;
        self.races.iter().filter(running).count() as u32
    }

    pub(super) fn on_introduce(&mut self, from: NodeId, subject: NodeId) {
        let Some(newcomer) = self.as_seen(from) else {
            return self.refuse();
        };
        // Otherwise it has just gone.
        if let Some(sought) = self.as_seen(subject) {
            self.send_to(subject, Message::Introduced { newcomer });
            self.send_to(from, Message::Introduced { newcomer: sought });
        }
    }

    /// Returns a peer's contact, with the address at which this node sees it: if routers are
    /// between them, it is the one to dial for others as well, once the peer dials them.
    fn as_seen(&self, id: NodeId) -> Option<Contact> {
        let contact = self.peers.get(&id)?.contact.clone();
        let seen = self.paths.address(id);
        let seen = seen.filter(|seen| !contact.addresses().contains(seen));
        let Some(seen) = seen else {
            return Some(contact);
        };
        let known = contact.addresses().iter().copied();
        Some(Contact::new(id, [seen].into_iter().chain(known)))
    }

    pub(super) fn on_introduced(&mut self, from: NodeId, newcomer: Contact) {
        if self.peers.contains_key(&from) && !self.is_self(newcomer.id()) {
            self.effects.push_back(Effect::Dial(newcomer));
        } else {
            self.refuse();
        }
    }
}
