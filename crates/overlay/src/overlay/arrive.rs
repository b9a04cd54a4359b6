//! A message has arrived: what this node answers, and whom it names.

use super::back::Previous;
use super::{Asker, Effect, Overlay};
use crate::id::NodeId;
use crate::message::{Query, Reply, Routed};
use crate::ring::Position;
use crate::silence::Silences;
use crate::time::Time;
use crate::view::{Entry, Role};

/// The most nodes that are named to whoever asks for those near a position.
const NODES_ANSWERED_MAX: usize = 16;

impl Overlay {
    /// Answers a message for which this node is in charge.
    pub(super) fn arrived(&mut self, now: Time, routed: Routed, back: Option<Previous>) {
        let Routed {
            request,
            origin,
            target,
            hops,
            straight,
            trace,
            query,
            silences,
            ..
        } = routed;
        let asker = Asker {
            contact: origin,
            request,
            hops,
            straight,
            traced: trace,
            back,
        };
        match query {
            Query::Nodes { count } => {
                let mut nodes = self.nodes_left(target, count.into(), &silences);
                nodes.extend(self.summon(now, target, &asker.contact));
                self.answer(asker, Reply::Nodes(nodes));
            }
            Query::Place { alone } => {
                let nodes = self.neighbours_of(&asker.contact, alone, &silences);
                self.answer(asker, Reply::Acquaintances(nodes));
            }
            Query::Links { to } => {
                let nodes = self.link_candidates(target, to, &silences);
                self.answer(asker, Reply::Acquaintances(nodes));
            }
            Query::Register { host } => {
                self.note_registered(now, target, &asker.contact, host);
                self.answer(asker, Reply::Acquaintances(Vec::new()));
            }
            Query::Service { service, body, .. } => {
                self.effects.push_back(Effect::Asked {
                    asker,
                    target,
                    service,
                    body,
                });
            }
        }
    }

    /// Returns the nodes nearest to the target without those that were silent: whoever asks
    /// turns to the first.
    pub(super) fn nodes_left(
        &self,
        target: Position,
        count: usize,
        silences: &Silences,
    ) -> Vec<Entry> {
        let mut nodes = self.nodes_near(target, NODES_ANSWERED_MAX);
        nodes.retain(|entry| {
            let id = entry.contact.id();
            self.is_self(id) || !silences.tell_of(self.position_of(&id))
        });
        nodes.truncate(count);
        nodes
    }

    /// Returns the few nodes nearest to the target that this one knows among itself and its
    /// neighbours, nearest first; at most 16.
    pub fn nodes_near(&self, target: Position, count: usize) -> Vec<Entry> {
        let nearest = self.near.nearest(target, count.min(NODES_ANSWERED_MAX));
        let entries = nearest.iter().map(|place| self.entry_of(place.id));
        entries.flatten().collect()
    }

    /// Returns what this node tells of itself or a peer.
    pub(super) fn entry_of(&self, id: NodeId) -> Option<Entry> {
        let (contact, coordinate, grade) = if self.is_self(id) {
            (self.me.clone(), self.coordinate, self.grade)
        } else {
            let peer = self.peers.get(&id)?;
            (peer.contact.clone(), peer.coordinate, peer.grade)
        };
        let role = Role::Near;
        Some(Entry {
            contact,
            role,
            coordinate,
            grade,
        })
    }
}
