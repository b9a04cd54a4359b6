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
    /// Tells whether nothing but the place in the network and the grade is another in
    /// `later`, if that.
    fn is_same_but_for_place_and_grade(&self, later: &Self) -> bool {
        self.contact == later.contact && self.role == later.role
    }
}

/// The first half of a position, by which a node is told from a few others.
pub type Mark = [u8; 4];

/// Returns by what a node is named to somebody who knows it.
pub fn mark(position: Position) -> Mark {
    let [a, b, c, d, ..] = position.number().to_be_bytes();
    [a, b, c, d]
}

/// A change of a view on the wire.
///
/// Sender and receiver have the base in common, so of its nodes an update tells but where
/// they are in it, one octet for each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ViewUpdate {
    /// The version to which the change applies; none when the update holds all of the
    /// view.
    pub base: Option<u32>,
    /// The version after the change; never 0.
    pub version: u32,
    /// Who is no longer in the view: places in the base, counted from the least position.
    pub removed: Vec<u8>,
    /// Who is new in the view or changed.
    pub added: Vec<Entry>,
    /// Who is new and a peer of the receiver, as the sender knows from the receiver's view:
    /// five octets for each instead of fifty.
    pub shared: Vec<(Role, Mark)>,
    /// Who is at another place in the network than before.
    pub moved: Vec<(u8, Coordinate)>,
    /// Who has another class or score than before.
    pub graded: Vec<(u8, Grade)>,
    /// The view after the change, where sender and receiver share their memory.
    #[serde(skip)]
    pub snapshot: Snapshot,
}

impl ViewUpdate {
    /// Tells whether the lists are within [`VIEW_NODES_MAX`].
    pub fn is_bounded(&self) -> bool {
        self.removed.len() <= VIEW_NODES_MAX
            && self.added.len() <= VIEW_NODES_MAX
            && self.shared.len() <= VIEW_NODES_MAX
            && self.moved.len() <= VIEW_NODES_MAX
            && self.graded.len() <= VIEW_NODES_MAX
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
        slots.truncate(VIEW_NODES_MAX);
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

    /// Returns the change from `older` to this view, or all of it without `older`, for
    /// somebody whose own view was `theirs` of late.
    pub fn update_since(self: &Arc<Self>, older: Option<&Self>, theirs: &Self) -> ViewUpdate {
        let mut update = ViewUpdate {
            base: older.map(|older| older.version),
            version: self.version,
            removed: vec![],
            added: vec![],
            shared: vec![],
            moved: vec![],
            graded: vec![],
            snapshot: Snapshot(Some(Arc::clone(self))),
        };
        let empty = Self::default();
        let older = older.unwrap_or(&empty);
        for (index, before) in (0..=u8::MAX).zip(&older.slots) {
            if self.slot(before.position).is_none() {
                update.removed.push(index);
            }
        }
        for slot in &self.slots {
            let (entry, index) = (&slot.entry, older.index(slot.position));
            let before =
                index.and_then(|index| Some((index, &older.slots.get(index as usize)?.entry)));
            match before {
                Some((index, before)) if before.is_same_but_for_place_and_grade(entry) => {
                    if before.coordinate != entry.coordinate {
                        update.moved.push((index, entry.coordinate));
                    }
                    if before.grade != entry.grade {
                        update.graded.push((index, entry.grade));
                    }
                }
                _ if theirs
                    .slot(slot.position)
                    .is_some_and(|theirs| theirs.entry.contact == entry.contact) =>
                {
                    update.shared.push((entry.role, mark(slot.position)));
                }
                _ => update.added.push(entry.clone()),
            }
        }
        update
    }

    /// Returns how many nodes came, went or found their place in the network since `older`.
    pub fn changes_since(&self, older: &Self) -> usize {
        if self.version == older.version {
            return 0;
        }
        let news = |slot: &&Slot| {
            let before = older.slot(slot.position);
            let known = |slot: &Slot| slot.entry.coordinate.is_known();
            before.is_none_or(|before| known(slot) && !known(before))
        };
        let came = self.slots.iter().filter(news).count();
        let gone = |slot: &&Slot| self.slot(slot.position).is_none();
        came + older.slots.iter().filter(gone).count()
    }

    /// Returns the positions of those that an update to this view removes.
    pub fn removed_by(&self, update: &ViewUpdate) -> Vec<Position> {
        let base = update.base.filter(|base| *base == self.version);
        let removed = update.removed.iter().filter(|_| base.is_some());
        let slots = removed.filter_map(|index| self.slots.get(*index as usize));
        slots.map(|slot| slot.position).collect()
    }

    /// Returns what a peer's update makes of its view; none when it does not fit, or names
    /// somebody by a mark whom `known` does not hold. Then all of the view is to be asked for.
    pub fn updated(
        &self,
        overlay: &OverlayId,
        update: &ViewUpdate,
        known: impl Fn(Mark) -> Option<(Position, Entry)>,
    ) -> Option<Arc<Self>> {
        if update.base.is_some_and(|base| base != self.version) {
            return None;
        }
        let shared = update.shared.iter().map(|(role, mark)| {
            let (position, mut entry) = known(*mark)?;
            entry.role = *role;
            Some(Slot { position, entry })
        });
        let shared = shared.collect::<Option<Vec<Slot>>>()?;
        if let Snapshot(Some(snapshot)) = &update.snapshot {
            return Some(Arc::clone(snapshot));
        }
        let mut slots = match update.base {
            Some(_) => self.changed(update),
            None => Vec::new(),
        };
        let added = update.added.iter().map(|entry| {
            let position = Position::of_node(overlay, &entry.contact.id());
            let entry = entry.clone();
            Slot { position, entry }
        });
        for slot in added.chain(shared) {
            match slots.binary_search_by_key(&slot.position, |slot| slot.position) {
                Ok(index) => slots[index] = slot,
                Err(index) => slots.insert(index, slot),
            }
        }
        slots.truncate(VIEW_NODES_MAX);
        let version = update.version;
        Some(Arc::new(Self::of(version, slots)))
    }

    /// Returns what is left of this view after an update, with new places and grades.
    fn changed(&self, update: &ViewUpdate) -> Vec<Slot> {
        let mut slots = self.slots.clone();
        for (index, coordinate) in &update.moved {
            if let Some(slot) = slots.get_mut(*index as usize) {
                slot.entry.coordinate = *coordinate;
            }
        }
        for (index, grade) in &update.graded {
            if let Some(slot) = slots.get_mut(*index as usize) {
                slot.entry.grade = *grade;
            }
        }
        let kept = |index: &usize| !update.removed.iter().any(|gone| *gone as usize == *index);
        let mut indices = 0..slots.len();
        slots.retain(|_| indices.next().is_some_and(|index| kept(&index)));
        slots
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

    fn index(&self, position: Position) -> Option<u8> {
        let index = self
            .slots
            .binary_search_by_key(&position, |slot| slot.position);
        index.ok().and_then(|index| u8::try_from(index).ok())
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
        let stranger = View::default();
        let nobody = |_| None;
        let difference = sent(&second.update_since(Some(&first), &stranger));
        assert_eq!((difference.removed.len(), difference.added.len()), (1, 1));
        let theirs = View::default();
        assert!(theirs.updated(&overlay(), &difference, nobody).is_none());
        let whole = sent(&first.update_since(None, &stranger));
        let theirs = theirs.updated(&overlay(), &whole, nobody).unwrap();
        let theirs = theirs.updated(&overlay(), &difference, nobody).unwrap();
        assert_eq!(theirs.slots, second.slots);
        assert_eq!(theirs.version, second.version);
    }

    proptest! {
        #[test]
        fn a_snapshot_is_what_the_update_leads_to(
            before in proptest::collection::btree_set(any::<u8>(), 1..30),
            after in proptest::collection::btree_set(any::<u8>(), 1..30),
            theirs in proptest::collection::btree_set(any::<u8>(), 1..30),
        ) {
            let seeds = |set: std::collections::BTreeSet<u8>| set.into_iter().collect::<Vec<_>>();
            let first = Arc::new(View::default().next(entries(&seeds(before))).unwrap());
            let Some(second) = first.next(entries(&seeds(after))) else { return Ok(()) };
            let theirs = View::default().next(entries(&seeds(theirs))).unwrap();
            let known = |wanted: Mark| {
                let mut places = theirs.places().filter(|(at, _)| mark(*at) == wanted);
                places.next().map(|(at, entry)| (at, entry.clone()))
            };
            let update = Arc::new(second).update_since(Some(&first), &theirs);
            let shared = first.updated(&overlay(), &update, known).unwrap();
            let computed = first.updated(&overlay(), &sent(&update), known).unwrap();
            prop_assert_eq!(&shared.slots, &computed.slots);
            prop_assert_eq!(shared.version, computed.version);
            // Who has lost somebody meanwhile cannot make anything of it, shared memory or not.
            let vain = first.updated(&overlay(), &update, |_| None).is_none();
            prop_assert_eq!(vain, !update.shared.is_empty());
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

    #[test]
    fn nodes_in_common_are_named_by_a_few_octets() {
        let stranger = View::default();
        let mine = Arc::new(stranger.next(entries(&[1, 2, 3, 4, 5, 6])).unwrap());
        let theirs = stranger.next(entries(&[3, 4, 5, 6, 7, 8])).unwrap();
        let octets = |theirs| {
            let update = mine.update_since(None, theirs);
            postcard::to_allocvec(&update).unwrap().len()
        };
        assert!(octets(&theirs) + 4 * 30 < octets(&stranger));
    }
}
