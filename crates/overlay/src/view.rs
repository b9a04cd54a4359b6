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

/// A node as it is told to somebody who may turn to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// How it may be reached.
    pub contact: Contact,
    /// What it is to the one who tells.
    pub role: Role,
    /// Where in the network it says to be.
    pub coordinate: Coordinate,
    /// Its class and score, as it says.
    pub grade: Grade,
}

/// A node in a view as it is told to somebody who will not turn to it: 17 octets, mostly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// Where on the ring it is, as octets, most significant first: positions have no small
    /// numbers that would be written shorter.
    position: [u8; 8],
    /// What it is to the view's owner.
    pub role: Role,
    /// Where in the network it says to be.
    pub coordinate: Coordinate,
    /// Its class and score, as it says.
    pub grade: Grade,
}

impl Seat {
    /// Makes a seat at a position.
    pub fn new(position: Position, role: Role, coordinate: Coordinate, grade: Grade) -> Self {
        let position = position.number().to_be_bytes();
        Self {
            position,
            role,
            coordinate,
            grade,
        }
    }

    /// Returns where on the ring it is.
    pub const fn position(&self) -> Position {
        Position::from_number(u64::from_be_bytes(self.position))
    }
}

/// One node in a view.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Where on the ring it is.
    pub position: Position,
    /// How it may be reached, if that is known.
    pub contact: Option<Contact>,
    /// What it is to the view's owner.
    pub role: Role,
    /// Where in the network it says to be.
    pub coordinate: Coordinate,
    /// Its class and score, as it says.
    pub grade: Grade,
}

impl Member {
    /// Makes a member of an entry of the node at a position.
    pub fn new(position: Position, entry: &Entry) -> Self {
        Self {
            position,
            contact: Some(entry.contact.clone()),
            role: entry.role,
            coordinate: entry.coordinate,
            grade: entry.grade,
        }
    }

    /// Returns what may be told to somebody who may turn to it; none when this is not known.
    pub fn entry(&self) -> Option<Entry> {
        Some(Entry {
            contact: self.contact.clone()?,
            role: self.role,
            coordinate: self.coordinate,
            grade: self.grade,
        })
    }

    /// Returns where it is and what.
    pub fn seat(&self) -> Seat {
        Seat::new(self.position, self.role, self.coordinate, self.grade)
    }

    /// Tells whether it was told of as much before as now, but for its place in the network
    /// and its grade.
    fn is_known_from(&self, before: &Self) -> bool {
        let reachable = self.contact.is_none() || self.contact == before.contact;
        reachable && self.role == before.role
    }

    fn told(&self, detail: Detail) -> Self {
        let tells = match detail {
            Detail::Everyone => true,
            Detail::Near => self.role == Role::Near,
            Detail::Seats => false,
        };
        let contact = self.contact.as_ref().filter(|_| tells);
        Self {
            contact: contact.cloned(),
            ..*self
        }
    }
}

impl From<Seat> for Member {
    fn from(seat: Seat) -> Self {
        Self {
            position: seat.position(),
            contact: None,
            role: seat.role,
            coordinate: seat.coordinate,
            grade: seat.grade,
        }
    }
}

/// Of whom a view tells how they may be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Of everyone: to a client, which looks for hosts there, and where messages jump.
    Everyone,
    /// Of near neighbours: to a near neighbour, which may need them when others are gone.
    Near,
    /// Of nobody: to the other end of a long link.
    Seats,
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
    /// Who is new in the view or changed, and may be turned to.
    pub added: Vec<Entry>,
    /// Who is new in the view or changed, of all others.
    pub seated: Vec<Seat>,
    /// Who is new and a peer of the receiver, as the sender knows from the receiver's view:
    /// five octets for each.
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
            && self.seated.len() <= VIEW_NODES_MAX
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

/// A view: this node's own, or what is known of a peer's.
#[derive(Clone, Debug, Default)]
pub struct View {
    version: u32,
    /// Ascending by position.
    members: Vec<Member>,
    /// What [`Self::near_span`] found when it was asked first.
    span: OnceLock<Option<(u64, u64)>>,
    /// What [`Self::told`] made of it.
    told: [OnceLock<Arc<Self>>; 2],
}

impl View {
    /// Makes the view that follows this one with other members; none when they are the
    /// same.
    pub fn next(&self, members: impl Iterator<Item = Member>) -> Option<Self> {
        let mut members: Vec<Member> = members.collect();
        members.sort_unstable_by_key(|member| member.position);
        members.truncate(VIEW_NODES_MAX);
        if self.version != 0 && members == self.members {
            return None;
        }
        let version = self.version.wrapping_add(1).max(1);
        Some(Self::of(version, members))
    }

    const fn of(version: u32, members: Vec<Member>) -> Self {
        Self {
            version,
            members,
            span: OnceLock::new(),
            told: [const { OnceLock::new() }; 2],
        }
    }

    /// Returns the view as it is told with so much detail.
    pub fn told(self: &Arc<Self>, detail: Detail) -> Arc<Self> {
        let form = match detail {
            Detail::Everyone => return Arc::clone(self),
            Detail::Near => &self.told[0],
            Detail::Seats => &self.told[1],
        };
        let told = || self.members.iter().map(|member| member.told(detail));
        let make = || Arc::new(Self::of(self.version, told().collect()));
        Arc::clone(form.get_or_init(make))
    }

    /// Returns the version; 0 before the first content.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Returns how many nodes it holds.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Tells whether it holds nobody.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Returns the change from `older` to this view, or all of it without `older`, for
    /// somebody whose own view was `theirs` of late.
    pub fn update_since(self: &Arc<Self>, older: Option<&Self>, theirs: &Self) -> ViewUpdate {
        let mut update = ViewUpdate {
            base: older.map(|older| older.version),
            version: self.version,
            removed: vec![],
            added: vec![],
            seated: vec![],
            shared: vec![],
            moved: vec![],
            graded: vec![],
            snapshot: Snapshot(Some(Arc::clone(self))),
        };
        let empty = Self::default();
        let older = older.unwrap_or(&empty);
        for (index, before) in (0..=u8::MAX).zip(&older.members) {
            if self.at(before.position).is_none() {
                update.removed.push(index);
            }
        }
        for member in &self.members {
            let index = older.index(member.position);
            let before = index.and_then(|index| Some((index, older.members.get(index as usize)?)));
            match before {
                Some((index, before)) if member.is_known_from(before) => {
                    if before.coordinate != member.coordinate {
                        update.moved.push((index, member.coordinate));
                    }
                    if before.grade != member.grade {
                        update.graded.push((index, member.grade));
                    }
                }
                _ if theirs.at(member.position).is_some() => {
                    update.shared.push((member.role, mark(member.position)));
                }
                _ => match member.entry() {
                    Some(entry) => update.added.push(entry),
                    None => update.seated.push(member.seat()),
                },
            }
        }
        update
    }

    /// Returns how many nodes came, went or found their place in the network since `older`.
    pub fn changes_since(&self, older: &Self) -> usize {
        if self.version == older.version {
            return 0;
        }
        let news = |member: &&Member| {
            let before = older.at(member.position);
            let known = |member: &Member| member.coordinate.is_known();
            before.is_none_or(|before| known(member) && !known(before))
        };
        let came = self.members.iter().filter(news).count();
        let gone = |member: &&Member| self.at(member.position).is_none();
        came + older.members.iter().filter(gone).count()
    }

    /// Returns the positions of those that an update to this view removes.
    pub fn removed_by(&self, update: &ViewUpdate) -> Vec<Position> {
        let base = update.base.filter(|base| *base == self.version);
        let removed = update.removed.iter().filter(|_| base.is_some());
        let members = removed.filter_map(|index| self.members.get(*index as usize));
        members.map(|member| member.position).collect()
    }

    /// Returns what a peer's update makes of its view; none when it does not fit, or names
    /// somebody by a mark whom `known` does not hold. Then all of the view is to be asked for.
    pub fn updated(
        &self,
        overlay: &OverlayId,
        update: &ViewUpdate,
        known: impl Fn(Mark) -> Option<Member>,
    ) -> Option<Arc<Self>> {
        if update.base.is_some_and(|base| base != self.version) {
            return None;
        }
        let shared = update.shared.iter().map(|(role, mark)| {
            let member = known(*mark)?;
            Some(Member {
                role: *role,
                ..member
            })
        });
        let shared = shared.collect::<Option<Vec<Member>>>()?;
        if let Snapshot(Some(snapshot)) = &update.snapshot {
            return Some(Arc::clone(snapshot));
        }
        let mut members = match update.base {
            Some(_) => self.changed(update),
            None => Vec::new(),
        };
        let added = update.added.iter().map(|entry| {
            let position = Position::of_node(overlay, &entry.contact.id());
            Member::new(position, entry)
        });
        let seated = update.seated.iter().map(|seat| Member::from(*seat));
        for member in added.chain(seated).chain(shared) {
            match members.binary_search_by_key(&member.position, |other| other.position) {
                Ok(index) => members[index] = member,
                Err(index) => members.insert(index, member),
            }
        }
        members.truncate(VIEW_NODES_MAX);
        let version = update.version;
        Some(Arc::new(Self::of(version, members)))
    }

    /// Returns what is left of this view after an update, with new places and grades.
    fn changed(&self, update: &ViewUpdate) -> Vec<Member> {
        let mut members = self.members.clone();
        for (index, coordinate) in &update.moved {
            if let Some(member) = members.get_mut(*index as usize) {
                member.coordinate = *coordinate;
            }
        }
        for (index, grade) in &update.graded {
            if let Some(member) = members.get_mut(*index as usize) {
                member.grade = *grade;
            }
        }
        let kept = |index: &usize| !update.removed.iter().any(|gone| *gone as usize == *index);
        let mut indices = 0..members.len();
        members.retain(|_| indices.next().is_some_and(|index| kept(&index)));
        members
    }

    /// Visits the nodes of the view, upwards by their positions.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter()
    }

    /// Returns the node at a position.
    pub fn at(&self, position: Position) -> Option<&Member> {
        let index = self.search(position);
        index.map(|index| &self.members[index])
    }

    /// Visits the nodes nearest to `target` that `usable` admits, up to `count` on either
    /// side of it. Looks at a few places only, so a long run of unusable nodes can hide a
    /// usable one further off.
    pub fn around(
        &self,
        target: Position,
        count: usize,
        usable: impl Fn(&Member) -> bool + Copy,
    ) -> impl Iterator<Item = &Member> {
        const REACH: usize = 6;
        let len = self.members.len();
        let split = self.members.partition_point(|m| m.position < target);
        let reach = REACH.min(len);
        let side = move |up: bool| {
            let offset = move |i: usize| if up { split + i } else { split + len - 1 - i };
            let members = (0..reach).map(move |i| &self.members[offset(i) % len]);
            members.filter(move |member| usable(member)).take(count)
        };
        side(true).chain(side(false))
    }

    /// Returns the nearest of these.
    pub fn nearest(
        &self,
        target: Position,
        usable: impl Fn(&Member) -> bool + Copy,
    ) -> Option<&Member> {
        let either = self.around(target, 1, usable);
        either.min_by_key(|member| target.rank(member.position))
    }

    /// Returns over how much of the ring the near neighbours of the owner, who sits at `owner`, spread, and into
    /// how many gaps they cut it; none when there are fewer than two.
    pub fn near_span(&self, owner: Position) -> Option<(u64, u64)> {
        *self.span.get_or_init(|| self.measure_span(owner))
    }

    fn measure_span(&self, owner: Position) -> Option<(u64, u64)> {
        let near = || {
            let members = self.members.iter();
            members.filter(|member| member.role == Role::Near)
        };
        let count = near().count();
        if count < 2 {
            return None;
        }
        // The widest gap between successive near neighbours is the rest of the ring.
        let start = near().take_while(|member| member.position < owner).count();
        let half = count / 2;
        let at = |index: usize| near().nth(index % count).map(|member| member.position);
        let last = at(start + count - half - 1)?;
        let first = at(start + count - half)?;
        Some((first.clockwise(last), count as u64))
    }

    fn search(&self, position: Position) -> Option<usize> {
        let index = self
            .members
            .binary_search_by_key(&position, |member| member.position);
        index.ok()
    }

    fn index(&self, position: Position) -> Option<u8> {
        self.search(position)
            .and_then(|index| u8::try_from(index).ok())
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

    /// Members, every third of them at the other end of a long link.
    fn members(seeds: &[u8]) -> impl Iterator<Item = Member> {
        seeds.iter().map(|seed| {
            let contact = Contact::new(Keypair::from_seed(&[*seed; 32]).id(), []);
            let long = seed.is_multiple_of(3);
            Member {
                position: Position::of_node(&overlay(), &contact.id()),
                contact: Some(contact),
                role: if long { Role::Long } else { Role::Near },
                coordinate: Coordinate::default(),
                grade: Grade::default(),
            }
        })
    }

    /// The update as it comes off the wire.
    fn sent(update: &ViewUpdate) -> ViewUpdate {
        let octets = postcard::to_allocvec(update).unwrap();
        postcard::from_bytes(&octets).unwrap()
    }

    #[test]
    fn an_update_to_another_version_does_not_fit() {
        let first = Arc::new(View::default().next(members(&[1, 2, 3])).unwrap());
        let second = Arc::new(first.next(members(&[2, 3, 4])).unwrap());
        assert!(second.next(members(&[4, 2, 3])).is_none());
        let stranger = View::default();
        let nobody = |_| None;
        let difference = sent(&second.update_since(Some(&first), &stranger));
        assert_eq!((difference.removed.len(), difference.added.len()), (1, 1));
        let theirs = View::default();
        assert!(theirs.updated(&overlay(), &difference, nobody).is_none());
        let whole = sent(&first.update_since(None, &stranger));
        let theirs = theirs.updated(&overlay(), &whole, nobody).unwrap();
        let theirs = theirs.updated(&overlay(), &difference, nobody).unwrap();
        assert_eq!(theirs.members, second.members);
        assert_eq!(theirs.version, second.version);
    }

    proptest! {
        #[test]
        fn a_snapshot_is_what_the_update_leads_to(
            before in proptest::collection::btree_set(any::<u8>(), 1..30),
            after in proptest::collection::btree_set(any::<u8>(), 1..30),
            theirs in proptest::collection::btree_set(any::<u8>(), 1..30),
            detail in prop_oneof![Just(Detail::Everyone), Just(Detail::Near), Just(Detail::Seats)],
        ) {
            let seeds = |set: std::collections::BTreeSet<u8>| set.into_iter().collect::<Vec<_>>();
            let first = Arc::new(View::default().next(members(&seeds(before))).unwrap());
            let Some(second) = first.next(members(&seeds(after))) else { return Ok(()) };
            let theirs = View::default().next(members(&seeds(theirs))).unwrap();
            let known = |wanted: Mark| {
                let mut members = theirs.members().filter(|m| mark(m.position) == wanted);
                members.next().map(|member| member.told(Detail::Seats))
            };
            let first = first.told(detail);
            let update = Arc::new(second).told(detail).update_since(Some(&first), &theirs);
            let shared = first.updated(&overlay(), &update, known).unwrap();
            let computed = first.updated(&overlay(), &sent(&update), known).unwrap();
            let seats = |view: &View| view.members().map(Member::seat).collect::<Vec<_>>();
            prop_assert_eq!(seats(&shared), seats(&computed));
            // Whom both know already is not told again, and who is known may be turned to.
            let lost = |m: &Member| m.contact.is_none() && theirs.at(m.position).is_none();
            let lost = |view: &View| view.members().filter(|m| lost(m)).count();
            prop_assert_eq!(lost(&shared), lost(&computed));
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
            let view = View::default().next(members(&seeds)).unwrap();
            let target = Position::from_number(target);
            let best = view.members().min_by_key(|member| target.rank(member.position));
            prop_assert_eq!(view.nearest(target, |_| true), best);
        }
    }

    #[test]
    fn nodes_in_common_are_named_by_a_few_octets() {
        let stranger = View::default();
        let mine = Arc::new(stranger.next(members(&[1, 2, 3, 4, 5, 6])).unwrap());
        let theirs = stranger.next(members(&[3, 4, 5, 6, 7, 8])).unwrap();
        let octets = |theirs| {
            let update = mine.update_since(None, theirs);
            postcard::to_allocvec(&update).unwrap().len()
        };
        assert!(octets(&theirs) + 4 * 30 < octets(&stranger));
    }

    #[test]
    fn a_seat_costs_a_fraction_of_an_entry() {
        let stranger = View::default();
        let mine = Arc::new(stranger.next(members(&[1, 2, 3, 4, 5, 6])).unwrap());
        let octets = |detail| {
            let update = mine.told(detail).update_since(None, &stranger);
            postcard::to_allocvec(&update).unwrap().len()
        };
        let (all, near) = (octets(Detail::Everyone), octets(Detail::Near));
        let seats = octets(Detail::Seats);
        // Coordinates of real places take six octets more each.
        assert!(seats * 5 <= all * 2, "{seats} of {all}");
        assert_eq!(
            mine.told(Detail::Near)
                .members()
                .filter(|m| m.contact.is_some())
                .count(),
            4
        );
        assert!(near < all);
    }

    #[test]
    fn who_becomes_a_neighbour_is_told_how_to_reach_the_others() {
        let stranger = View::default();
        let mine = Arc::new(stranger.next(members(&[1, 2, 3])).unwrap());
        let later = Arc::new(mine.next(members(&[1, 2, 3, 4])).unwrap());
        let told = mine.told(Detail::Seats);
        let update = later
            .told(Detail::Near)
            .update_since(Some(&told), &stranger);
        assert_eq!((update.added.len(), update.seated.len()), (3, 0));
    }
}
