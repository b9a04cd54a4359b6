//! A node's view: its near neighbours and long links, as it tells them to its peers.
//!
//! The views of a node's peers are its routing table. Looking one hop ahead is what
//! Symphony's paper does to choose the next hop (section 4.3 there, "1-lookahead").
//!
//! A view carries a version that grows with every change. Peers get the difference
//! to the version that was sent to them before, or all of it when they have none.
//!
//! A view never changes once it is made: a change makes another. So its owner, the record
//! of what was sent to whom, and, where many nodes live in one process, everyone who
//! knows it, share one copy.

use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::class::Grade;
use crate::contact::Contact;
use crate::coordinate::Coordinate;
use crate::id::OverlayId;
use crate::ring::Position;

/// The most nodes in one view: near neighbours, long links out and in.
pub const VIEW_NODES_MAX: usize = 256;

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
    /// Where in the network it says to be.
    pub coordinate: Coordinate,
    /// Its class and score, as it says.
    pub grade: Grade,
}

impl Entry {
    /// Tells whether nothing but the place in the network is another in `later`, if that.
    fn differs_in_place_only(&self, later: &Self) -> bool {
        self.contact == later.contact && self.role == later.role && self.grade == later.grade
    }
}

/// A change of a view on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ViewUpdate {
    /// The version to which the change applies; none when the update holds all of the
    /// view.
    pub base: Option<u32>,
    /// The version after the change; never 0.
    pub version: u32,
    /// Who is no longer in the view, by position: ten octets for each, not thirty-two.
    pub removed: Vec<Position>,
    /// Who is new in the view or changed.
    pub added: Vec<Entry>,
    /// Who is at another place in the network than before.
    pub moved: Vec<(Position, Coordinate)>,
    /// The view after the change, where sender and receiver share their memory.
    #[serde(skip)]
    pub snapshot: Snapshot,
}

impl ViewUpdate {
    /// Tells whether the lists are within [`VIEW_NODES_MAX`].
    pub fn is_bounded(&self) -> bool {
        self.removed.len() <= VIEW_NODES_MAX
            && self.added.len() <= VIEW_NODES_MAX
            && self.moved.len() <= VIEW_NODES_MAX
    }
}

/// What an update leads to, for receivers in the same process; never on the wire. Whoever
/// alters an update has to drop it.
#[derive(Clone, Default)]
pub struct Snapshot(Option<Arc<View>>);

impl PartialEq for Snapshot {
    /// It follows from the rest of the update, so it makes no difference.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("_")
    }
}

/// An entry and where it sits.
#[derive(Clone, Debug, PartialEq)]
struct Slot {
    position: Position,
    entry: Entry,
}

/// A view: this node's own, or what is known of a peer's.
#[derive(Clone, Debug, Default)]
pub struct View {
    version: u32,
    /// Ascending by position.
    slots: Vec<Slot>,
    /// What [`Self::near_span`] found when it was asked first.
    span: OnceLock<Option<(u64, u64)>>,
}

impl View {
    /// Makes the view that follows this one with other entries; none when they are the
    /// same.
    pub fn next(&self, entries: impl Iterator<Item = (Position, Entry)>) -> Option<Self> {
        let mut slots: Vec<Slot> = entries
            .map(|(position, entry)| Slot { position, entry })
            .collect();
        slots.sort_unstable_by_key(|slot| slot.position);
        if self.version != 0 && slots == self.slots {
            return None;
        }
        let version = self.version.wrapping_add(1).max(1);
        Some(Self::of(version, slots))
    }

    const fn of(version: u32, slots: Vec<Slot>) -> Self {
        Self {
            version,
            slots,
            span: OnceLock::new(),
        }
    }

    /// Returns the version; 0 before the first content.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Returns how many nodes it holds.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Tells whether it holds nobody.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Returns the change from `older` to this view, or all of it without `older`.
    pub fn update_since(self: &Arc<Self>, older: Option<&Self>) -> ViewUpdate {
        let snapshot = Snapshot(Some(Arc::clone(self)));
        let Some(older) = older else {
            return ViewUpdate {
                base: None,
                version: self.version,
                removed: vec![],
                added: self.entries().cloned().collect(),
                moved: vec![],
                snapshot,
            };
        };
        let gone = older
            .slots
            .iter()
            .filter(|slot| self.slot(slot.position).is_none());
        let (mut added, mut moved) = (Vec::new(), Vec::new());
        for slot in &self.slots {
            let entry = &slot.entry;
            match older.at(slot.position) {
                Some(before) if before.differs_in_place_only(entry) => {
                    if before.coordinate != entry.coordinate {
                        moved.push((slot.position, entry.coordinate));
                    }
                }
                _ => added.push(entry.clone()),
            }
        }
        ViewUpdate {
            base: Some(older.version),
            version: self.version,
            removed: gone.map(|slot| slot.position).collect(),
            added,
            moved,
            snapshot,
        }
    }

    /// Returns what a peer's update makes of its view; none when it does not fit. Then all
    /// of the view is to be asked for.
    pub fn updated(&self, overlay: &OverlayId, update: &ViewUpdate) -> Option<Arc<Self>> {
        if update.base.is_some_and(|base| base != self.version) {
            return None;
        }
        if let Snapshot(Some(snapshot)) = &update.snapshot {
            return Some(Arc::clone(snapshot));
        }
        let mut slots = match update.base {
            Some(_) => self.slots.clone(),
            None => Vec::new(),
        };
        slots.retain(|slot| !update.removed.contains(&slot.position));
        for entry in &update.added {
            let position = Position::of_node(overlay, &entry.contact.id());
            let entry = entry.clone();
            match slots.binary_search_by_key(&position, |slot| slot.position) {
                Ok(index) => slots[index].entry = entry,
                Err(index) => slots.insert(index, Slot { position, entry }),
            }
        }
        for (position, coordinate) in &update.moved {
            if let Ok(index) = slots.binary_search_by_key(position, |slot| slot.position) {
                slots[index].entry.coordinate = *coordinate;
            }
        }
        slots.truncate(VIEW_NODES_MAX);
        let version = update.version;
        Some(Arc::new(Self::of(version, slots)))
    }

    /// Visits the nodes of the view.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.slots.iter().map(|slot| &slot.entry)
    }

    /// Visits the nodes of the view with their positions, upwards.
    pub fn places(&self) -> impl Iterator<Item = (Position, &Entry)> {
        self.slots.iter().map(|slot| (slot.position, &slot.entry))
    }

    /// Returns the entry at a position.
    pub fn at(&self, position: Position) -> Option<&Entry> {
        self.slot(position).map(|slot| &slot.entry)
    }

    /// Visits the nodes nearest to `target` that `usable` admits, up to `count` on either
    /// side of it. Looks at a few places only, so a long run of unusable nodes can hide a
    /// usable one further off.
    pub fn around(
        &self,
        target: Position,
        count: usize,
        usable: impl Fn(Position, &Entry) -> bool + Copy,
    ) -> impl Iterator<Item = (Position, &Entry)> {
        const REACH: usize = 6;
        let len = self.slots.len();
        let split = self.slots.partition_point(|slot| slot.position < target);
        let reach = REACH.min(len);
        let side = move |up: bool| {
            let offset = move |i: usize| if up { split + i } else { split + len - 1 - i };
            let slots = (0..reach).map(move |i| &self.slots[offset(i) % len]);
            let admitted = slots.filter(move |slot| usable(slot.position, &slot.entry));
            admitted.take(count)
        };
        let both = side(true).chain(side(false));
        both.map(|slot| (slot.position, &slot.entry))
    }

    /// Returns the nearest of these.
    pub fn nearest(
        &self,
        target: Position,
        usable: impl Fn(Position, &Entry) -> bool + Copy,
    ) -> Option<(Position, &Entry)> {
        let either = self.around(target, 1, usable);
        either.min_by_key(|(position, _)| target.rank(*position))
    }

    /// Returns over how much of the ring the near neighbours of the owner, who sits at `owner`, spread, and into
    /// how many gaps they cut it; none when there are fewer than two.
    pub fn near_span(&self, owner: Position) -> Option<(u64, u64)> {
        *self.span.get_or_init(|| self.measure_span(owner))
    }

    fn measure_span(&self, owner: Position) -> Option<(u64, u64)> {
        let near = || {
            let slots = self.slots.iter();
            slots.filter(|slot| slot.entry.role == Role::Near)
        };
        let count = near().count();
        if count < 2 {
            return None;
        }
        // The widest gap between successive near neighbours is the rest of the ring.
        let start = near().take_while(|slot| slot.position < owner).count();
        let half = count / 2;
        let at = |index: usize| near().nth(index % count).map(|slot| slot.position);
        let last = at(start + count - half - 1)?;
        let first = at(start + count - half)?;
        Some((first.clockwise(last), count as u64))
    }

    fn slot(&self, position: Position) -> Option<&Slot> {
        let index = self
            .slots
            .binary_search_by_key(&position, |slot| slot.position);
        index.ok().map(|index| &self.slots[index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Keypair;
    use proptest::prelude::*;

    fn overlay() -> OverlayId {
        OverlayId::from_name("test")
    }

    fn entries(seeds: &[u8]) -> impl Iterator<Item = (Position, Entry)> {
        seeds.iter().map(|seed| {
            let contact = Contact::new(Keypair::from_seed(&[*seed; 32]).id(), []);
            let position = Position::of_node(&overlay(), &contact.id());
            let (role, coordinate) = (Role::Near, Coordinate::default());
            let entry = Entry {
                contact,
                role,
                coordinate,
                grade: Grade::default(),
            };
            (position, entry)
        })
    }

    /// The update as it comes off the wire.
    fn sent(update: &ViewUpdate) -> ViewUpdate {
        let octets = postcard::to_allocvec(update).unwrap();
        postcard::from_bytes(&octets).unwrap()
    }

    #[test]
    fn an_update_to_another_version_does_not_fit() {
        let first = Arc::new(View::default().next(entries(&[1, 2, 3])).unwrap());
        let second = Arc::new(first.next(entries(&[2, 3, 4])).unwrap());
        assert!(second.next(entries(&[4, 2, 3])).is_none());
        let difference = sent(&second.update_since(Some(&first)));
        assert_eq!((difference.removed.len(), difference.added.len()), (1, 1));
        let theirs = View::default();
        assert!(theirs.updated(&overlay(), &difference).is_none());
        let whole = sent(&first.update_since(None));
        let theirs = theirs.updated(&overlay(), &whole).unwrap();
        let theirs = theirs.updated(&overlay(), &difference).unwrap();
        assert_eq!(theirs.slots, second.slots);
        assert_eq!(theirs.version, second.version);
    }

    proptest! {
        #[test]
        fn a_snapshot_is_what_the_update_leads_to(
            before in proptest::collection::btree_set(any::<u8>(), 1..30),
            after in proptest::collection::btree_set(any::<u8>(), 1..30),
        ) {
            let seeds = |set: std::collections::BTreeSet<u8>| set.into_iter().collect::<Vec<_>>();
            let first = Arc::new(View::default().next(entries(&seeds(before))).unwrap());
            let Some(second) = first.next(entries(&seeds(after))) else { return Ok(()) };
            let update = Arc::new(second).update_since(Some(&first));
            let shared = first.updated(&overlay(), &update).unwrap();
            let computed = first.updated(&overlay(), &sent(&update)).unwrap();
            prop_assert_eq!(&shared.slots, &computed.slots);
            prop_assert_eq!(shared.version, computed.version);
        }

        #[test]
        fn nearest_agrees_with_a_full_scan(
            seeds in proptest::collection::btree_set(any::<u8>(), 1..40),
            target in any::<u64>(),
        ) {
            let seeds: Vec<u8> = seeds.into_iter().collect();
            let view = View::default().next(entries(&seeds)).unwrap();
            let target = Position::from_number(target);
            let best = view.places().min_by_key(|(position, _)| target.rank(*position));
            prop_assert_eq!(view.nearest(target, |_, _| true), best);
        }
    }
}
