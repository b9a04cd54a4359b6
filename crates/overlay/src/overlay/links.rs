//! Long links: how many, drawn where, granted to whom.
//!
//! Symphony, section 3: a node draws k distances from the harmonic density and links
//! to the managers of those points; a node takes at most 2k links from others; links
//! serve both directions. Links are drawn anew when the estimated size has changed by
//! a factor of two since (section 4.2), one at a time so that routes stay short
//! meanwhile.

use std::time::Duration;

use super::upkeep::Period;
use super::{Alarm, Effect, Overlay};
use crate::id::NodeId;
use crate::message::Query;
use crate::ring::harmonic_distance;
use crate::time::Time;
use crate::view::Entry;

use super::requests::Purpose;

/// The most long links a node draws, whatever is configured or estimated.
pub(super) const LINKS_MAX: u32 = 64;
/// Among how many nodes about a drawn point the link goes to the nearest in the network.
const CANDIDATES: u8 = 16;
/// How long after the first neighbour the first links are drawn.
const LINKING_DELAY: Duration = Duration::from_secs(2);
/// How many draws in a row may fail before the next period tries again.
const DRAWS_PER_ROUND: u32 = 8;

impl Overlay {
    /// Returns how many long links this node wants to have drawn.
    pub fn links_wanted(&self) -> u32 {
        if self.near.spans_ring() {
            return 0;
        }
        let suited = self.size_estimate().max(1).ilog2() / 2;
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

    pub(super) fn grants_link(&self, from: NodeId) -> bool {
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
        if self.links_drawn() > self.links_wanted() {
            self.give_up_link(|_| true);
        } else if self.links_drawn() == self.links_wanted() {
            let size = self.size_estimate();
            self.give_up_link(|drawn| drawn > size.saturating_mul(2) || drawn < size / 2);
        }
        self.draw_links(now);
    }

    fn give_up_link(&mut self, outdated: impl Fn(u64) -> bool) {
        let link = self
            .peers
            .iter_mut()
            .find(|(_, p)| p.drawn_at_size.is_some_and(&outdated));
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
        let under_way = self.requests.count(Purpose::Link) + self.links_asked();
        let size = self.size_estimate();
        let missing = self
            .links_wanted()
            .saturating_sub(self.links_drawn() + under_way);
        for _ in 0..missing.min(self.draws_left) {
            self.draws_left -= 1;
            let distance = harmonic_distance(&mut self.rng, size);
            let target = self.position.advance(distance);
            let count = if self.config.proximity { CANDIDATES } else { 1 };
            self.ask(now, target, Query::Nodes { count }, Purpose::Link);
        }
    }

    /// The node in charge of a drawn point is known: ask it for a link.
    pub(super) fn link_found(&mut self, now: Time, nodes: &[Entry]) {
        let suits = |entry: &&Entry| {
            let id = entry.contact.id();
            let linked = self
                .peers
                .get(&id)
                .is_some_and(|p| p.drawn_at_size.is_some());
            !linked && !entry.grade.is_client() && !self.is_self(id) && !self.near.contains(id)
        };
        // A node that refuses would refuse again; a new point is drawn then.
        let mut candidates = nodes.iter().filter(suits);
        let chosen = if self.config.proximity {
            // Of nodes at about the same place of the ring, the one nearest in the network.
            candidates.min_by_key(|entry| {
                let round_trip = self.coordinate.round_trip(&entry.coordinate);
                round_trip.unwrap_or(Duration::MAX)
            })
        } else {
            candidates.next()
        };
        match chosen.map(|entry| entry.contact.clone()) {
            Some(contact) if !self.greetings.contains_key(&contact.id()) => {
                self.greet(now, &contact, true);
            }
            _ => self.draw_links(now),
        }
    }

    pub(super) fn on_introduce(&mut self, from: NodeId, subject: NodeId) {
        let newcomer = self.peers.get(&from).map(|peer| peer.contact.clone());
        match newcomer {
            Some(newcomer) if self.peers.contains_key(&subject) => {
                self.send_to(subject, crate::message::Message::Introduced { newcomer });
            }
            _ => self.refuse(),
        }
    }

    pub(super) fn on_introduced(&mut self, from: NodeId, newcomer: crate::Contact) {
        if self.peers.contains_key(&from) && !self.is_self(newcomer.id()) {
            self.effects.push_back(Effect::Dial(newcomer));
        } else {
            self.refuse();
        }
    }
}
