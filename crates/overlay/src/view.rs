//! A node's view: its near neighbours and long links, as it tells them to its peers.
//!
//! The views of a node's peers are its routing table. Looking one hop ahead is what
//! Symphony's paper does to choose the next hop (section 4.3 there, "1-lookahead");
//! here the message goes straight to the best node in any peer's view.
//!
//! A view carries a version that grows with every change. Peers get the difference
//! to the version that was sent to them before, or all of it when they have none.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::contact::Contact;
use crate::id::{NodeId, OverlayId};
use crate::near::Place;
use crate::ring::Position;

/// The most nodes in one view: near neighbours, long links out and in.
pub const VIEW_NODES_MAX: usize = 160;

/// What another node is to the owner of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// A near neighbour on the ring.
    Near,
    /// A long link, in either direction.
    Long,
}

/// One node in a view.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// How it may be reached.
    pub contact: Contact,
    /// What it is to the view's owner.
    pub role: Role,
}

/// A change of a view on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ViewUpdate {
    /// The version to which the change applies; none when the update holds all of the
    /// view.
    pub base: Option<u32>,
    /// The version after the change; never 0.
    pub version: u32,
    /// Who is no longer in the view.
    pub removed: Vec<NodeId>,
    /// Who is new in the view or changed.
    pub added: Vec<Entry>,
}

impl ViewUpdate {
    /// Tells whether the lists are within [`VIEW_NODES_MAX`].
    pub fn is_bounded(&self) -> bool {
        self.removed.len() <= VIEW_NODES_MAX && self.added.len() <= VIEW_NODES_MAX
    }
}

/// A view: this node's own, or what is known of a peer's.
#[derive(Clone, Debug, Default)]
pub struct View {
    version: u32,
    entries: BTreeMap<NodeId, Entry>,
    /// The places of all entries, by position, for binary search.
    places: Vec<Place>,
}

impl View {
    /// Returns the version; 0 before the first content.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Replaces the content by `entries`; tells whether anything changed, and gives a
    /// new version if so.
    pub fn replace(&mut self, overlay: &OverlayId, entries: BTreeMap<NodeId, Entry>) -> bool {
        if self.version != 0 && entries == self.entries {
            return false;
        }
        self.entries = entries;
        self.version = self.version.wrapping_add(1).max(1);
        self.index(overlay);
        true
    }

    /// Returns the change from `older` to this view, or all of it without `older`.
    pub fn update_since(&self, older: Option<&Self>) -> ViewUpdate {
        let Some(older) = older else {
            let added = self.entries.values().cloned().collect();
            return ViewUpdate {
                base: None,
                version: self.version,
                removed: vec![],
                added,
            };
        };
        let gone = older
            .entries
            .keys()
            .filter(|id| !self.entries.contains_key(id));
        let new = self
            .entries
            .iter()
            .filter(|(id, entry)| older.entries.get(id) != Some(entry));
        ViewUpdate {
            base: Some(older.version),
            version: self.version,
            removed: gone.copied().collect(),
            added: new.map(|(_, entry)| entry.clone()).collect(),
        }
    }

    /// Applies a peer's update; tells whether it fitted. If not, all of the view is to
    /// be asked for.
    pub fn apply(&mut self, overlay: &OverlayId, update: &ViewUpdate) -> bool {
        match update.base {
            Some(base) if base != self.version => return false,
            Some(_) => {}
            None => self.entries.clear(),
        }
        for id in &update.removed {
            self.entries.remove(id);
        }
        for entry in &update.added {
            self.entries.insert(entry.contact.id(), entry.clone());
        }
        while self.entries.len() > VIEW_NODES_MAX {
            self.entries.pop_last();
        }
        self.version = update.version;
        self.index(overlay);
        true
    }

    /// Visits the nodes of the view.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Returns a node's contact if the view holds it.
    pub fn contact(&self, id: NodeId) -> Option<&Contact> {
        self.entries.get(&id).map(|entry| &entry.contact)
    }

    /// Returns the node nearest to `target` that `usable` admits. Looks at a few
    /// places on either side of the target, so a long run of unusable nodes can hide
    /// a usable one further off.
    pub fn nearest(&self, target: Position, usable: impl Fn(NodeId) -> bool) -> Option<Place> {
        const REACH: usize = 6;
        let len = self.places.len();
        let split = self.places.partition_point(|place| place.position < target);
        let around = (0..(2 * REACH).min(len)).map(|i| {
            let offset = (split + len * REACH - REACH.min(len) + i) % len;
            self.places[offset]
        });
        around
            .filter(|place| usable(place.id))
            .min_by_key(|place| (target.rank(place.position), place.id))
    }

    /// Returns over how much of the ring the owner's near neighbours spread, and into
    /// how many gaps they cut it; none when there are fewer than two.
    pub fn near_span(&self, owner: Position) -> Option<(u64, u64)> {
        let near: Vec<Position> = self
            .places
            .iter()
            .filter(|place| {
                self.entries
                    .get(&place.id)
                    .is_some_and(|e| e.role == Role::Near)
            })
            .map(|place| place.position)
            .collect();
        if near.len() < 2 {
            return None;
        }
        // The widest gap between successive near neighbours is the rest of the ring.
        let count = near.len();
        let start = near.partition_point(|position| *position < owner);
        let half = count / 2;
        let last = near[(start + count - half - 1) % count];
        let first = near[(start + count - half) % count];
        Some((first.clockwise(last), count as u64))
    }

    fn index(&mut self, overlay: &OverlayId) {
        let known: BTreeMap<NodeId, Position> = self
            .places
            .iter()
            .map(|place| (place.id, place.position))
            .collect();
        let place = |id: &NodeId| Place {
            position: known
                .get(id)
                .copied()
                .unwrap_or_else(|| Position::of_node(overlay, id)),
            id: *id,
        };
        self.places = self.entries.keys().map(place).collect();
        self.places.sort_unstable();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Keypair;
    use proptest::prelude::*;

    fn entries(seeds: &[u8]) -> BTreeMap<NodeId, Entry> {
        let entry = |seed: &u8| {
            let contact = Contact::new(Keypair::from_seed(&[*seed; 32]).id(), []);
            (
                contact.id(),
                Entry {
                    contact,
                    role: Role::Near,
                },
            )
        };
        seeds.iter().map(entry).collect()
    }

    #[test]
    fn an_update_to_another_version_does_not_fit() {
        let overlay = OverlayId::from_name("test");
        let (mut mine, mut theirs) = (View::default(), View::default());
        mine.replace(&overlay, entries(&[1, 2, 3]));
        let first = mine.clone();
        mine.replace(&overlay, entries(&[2, 3, 4]));
        let difference = mine.update_since(Some(&first));
        assert_eq!((difference.removed.len(), difference.added.len()), (1, 1));
        assert!(!theirs.apply(&overlay, &difference));
        assert!(theirs.apply(&overlay, &first.update_since(None)));
        assert!(theirs.apply(&overlay, &difference));
        assert_eq!(theirs.entries, mine.entries);
    }

    proptest! {
        #[test]
        fn nearest_agrees_with_a_full_scan(
            seeds in proptest::collection::btree_set(any::<u8>(), 1..40),
            target in any::<u64>(),
        ) {
            let overlay = OverlayId::from_name("test");
            let mut view = View::default();
            view.replace(&overlay, entries(&seeds.into_iter().collect::<Vec<_>>()));
            let target = Position::from_number(target);
            let best = view.places.iter().min_by_key(|p| (target.rank(p.position), p.id)).copied();
            prop_assert_eq!(view.nearest(target, |_| true), best);
        }
    }
}
