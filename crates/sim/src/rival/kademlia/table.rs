//! The routing table: k-buckets with spares.
//!
//! Bucket i holds nodes whose positions share exactly i leading bits with this node's
//! (Maymounkov & Mazières 2002, section 2.2). A node enters by speaking, never by
//! hearsay. A full bucket keeps what it has; newcomers wait among its spares, the
//! replacement cache of section 4.1, and step in when an entry fails. Two additions:
//!
//! - whoever is among the k closest of all is let into a full bucket too. That is what
//!   section 2.4 reaches by splitting further buckets in an unbalanced tree: each node
//!   knows its whole surroundings;
//! - with proximity, a node of a clearly shorter round trip takes the place of the
//!   bucket's slowest entry, which becomes a spare (as in R/Kademlia and in Bamboo).

use std::time::Duration;

use enishi_overlay::peers::RoundTrip;
use enishi_overlay::{Contact, NodeId, Position, Time};

/// Buckets: one for each bit of a position.
const BUCKETS: usize = 64;

/// How much shorter a round trip must be to displace an entry, as a ratio: differences
/// smaller than this come and go with the load.
const CLEARLY_SHORTER: (u32, u32) = (3, 4);

/// A node in a bucket: it has spoken.
#[derive(Clone, Debug)]
pub struct Entry {
    /// How to reach it.
    pub contact: Contact,
    /// Its position.
    pub position: Position,
    /// Round trips, for timeouts.
    pub round_trip: RoundTrip,
    /// The shortest round trip: what distance costs, without queues and session set-ups.
    pub least: Option<Duration>,
    /// When it spoke last.
    pub heard_at: Time,
    /// Requests that it left unanswered since.
    pub strikes: u8,
}

/// A node that may step in.
#[derive(Clone, Debug)]
pub struct Spare {
    /// How to reach it.
    pub contact: Contact,
    /// Its position.
    pub position: Position,
    /// The shortest round trip; none if it was never asked.
    pub least: Option<Duration>,
    /// When it spoke last; none if it is only known by hearsay.
    pub heard_at: Option<Time>,
    /// When it became a spare, or was asked last.
    pub looked_at: Time,
}

#[derive(Clone, Debug, Default)]
struct Bucket {
    entries: Vec<Entry>,
    spares: Vec<Spare>,
    refreshed_at: Time,
}

/// All buckets of one node. At most 2·k entries and k spares in each.
#[derive(Clone, Debug)]
pub struct Table {
    me: Position,
    k: usize,
    proximity: bool,
    /// As many as the deepest entry needs.
    buckets: Vec<Bucket>,
}

/// Returns the XOR distance.
pub fn distance(a: Position, b: Position) -> u64 {
    a.number() ^ b.number()
}

impl Table {
    /// Makes an empty table for the node at `me` with buckets of `k`.
    pub fn new(me: Position, k: usize, proximity: bool) -> Self {
        Self {
            me,
            k,
            proximity,
            buckets: Vec::new(),
        }
    }

    /// Returns the bucket of a position: the number of leading bits that it shares.
    pub fn bucket_of(&self, position: Position) -> usize {
        (distance(self.me, position).leading_zeros() as usize).min(BUCKETS - 1)
    }

    /// Visits every entry.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.buckets.iter().flat_map(|bucket| &bucket.entries)
    }

    /// Visits the entries of one bucket.
    pub fn bucket(&self, index: usize) -> impl Iterator<Item = &Entry> {
        self.buckets
            .get(index)
            .into_iter()
            .flat_map(|bucket| &bucket.entries)
    }

    /// Visits every spare.
    pub fn spares(&self) -> impl Iterator<Item = &Spare> {
        self.buckets.iter().flat_map(|bucket| &bucket.spares)
    }

    /// Visits the spares of buckets that have room.
    pub fn missing(&self) -> impl Iterator<Item = &Spare> {
        let open = self
            .buckets
            .iter()
            .filter(|bucket| bucket.entries.len() < self.k);
        open.flat_map(|bucket| &bucket.spares)
    }

    /// Tells whether a bucket has room, or too few spares to close gaps.
    pub fn wants_more(&self, index: usize) -> bool {
        self.buckets
            .get(index)
            .is_none_or(|bucket| bucket.entries.len() < self.k || bucket.spares.len() < self.k / 4)
    }

    /// Returns an entry.
    pub fn entry(&self, position: Position, id: NodeId) -> Option<&Entry> {
        self.bucket(self.bucket_of(position))
            .find(|entry| entry.contact.id() == id)
    }

    /// Returns how deep the buckets go that hold only a part of what there is: from this
    /// number on, they hold at most k nodes together, this node's surroundings.
    pub fn depth(&self) -> usize {
        let mut below = 0;
        let deep = self.buckets.iter().rposition(|bucket| {
            below += bucket.entries.len();
            below > self.k
        });
        deep.map_or(0, |index| index + 1)
    }

    /// Returns when a bucket was last refreshed or crossed by a lookup.
    pub fn refreshed_at(&self, index: usize) -> Time {
        self.buckets
            .get(index)
            .map_or(Time::ZERO, |bucket| bucket.refreshed_at)
    }

    /// Notes that a bucket is being refreshed.
    pub fn refreshing(&mut self, now: Time, index: usize) {
        if let Some(bucket) = self.buckets.get_mut(index) {
            bucket.refreshed_at = now;
        }
    }

    /// Returns up to `count` entries closest to `target`, closest first.
    pub fn closest(&self, target: Position, count: usize) -> Vec<&Entry> {
        let mut found: Vec<&Entry> = self.entries().collect();
        let key = |entry: &&Entry| (distance(entry.position, target), entry.contact.id());
        if found.len() > count && count > 0 {
            found.select_nth_unstable_by_key(count - 1, key);
        }
        found.truncate(count);
        found.sort_unstable_by_key(key);
        found
    }

    /// Notes that a node spoke, with the round trip if it answered a request.
    pub fn heard(&mut self, now: Time, contact: &Contact, at: Position, trip: Option<Duration>) {
        if at == self.me {
            return;
        }
        let index = self.bucket_of(at);
        let bucket = self.bucket_mut(index);
        let known = bucket
            .entries
            .iter_mut()
            .find(|entry| entry.contact.id() == contact.id());
        if let Some(entry) = known {
            entry.heard(now, trip);
            return;
        }
        let mut entry = Entry::new(now, contact.clone(), at);
        if let Some(spare) = bucket.take_spare(contact.id()) {
            entry.least = spare.least;
        }
        entry.heard(now, trip);
        self.place(now, index, entry);
    }

    /// Notes a node that was only named by another.
    pub fn named(&mut self, now: Time, contact: &Contact, at: Position) {
        if at == self.me || self.entry(at, contact.id()).is_some() {
            return;
        }
        let (index, k) = (self.bucket_of(at), self.k);
        let bucket = self.bucket_mut(index);
        let known = bucket
            .spares
            .iter()
            .any(|spare| spare.contact.id() == contact.id());
        if !known {
            let spare = Spare {
                contact: contact.clone(),
                position: at,
                least: None,
                heard_at: None,
                looked_at: now,
            };
            bucket.keep_spare(spare, k);
        }
    }

    /// Notes that a request has waited for longer than usual.
    pub fn doubt(&mut self, at: Position, id: NodeId) {
        if let Some(entry) = self.entry_mut(at, id) {
            entry.strikes = entry.strikes.max(1);
        }
    }

    /// Notes that a node left a request unanswered, after a second try: it goes, and the
    /// best spare that has spoken takes its place. Without one it stays among the spares
    /// by hearsay, to be asked once more.
    pub fn failed(&mut self, now: Time, at: Position, id: NodeId) {
        let (index, k) = (self.bucket_of(at), self.k);
        let bucket = self.bucket_mut(index);
        if bucket.take_spare(id).is_some() {
            return;
        }
        let found = bucket
            .entries
            .iter()
            .position(|entry| entry.contact.id() == id);
        let Some(entry) = found.map(|found| bucket.entries.remove(found)) else {
            return;
        };
        if bucket.entries.len() >= k {
            return;
        }
        match bucket.best_spare() {
            Some(spare) => bucket.entries.push(spare),
            None => {
                let spare = Spare {
                    heard_at: None,
                    looked_at: now,
                    ..Spare::from(entry)
                };
                bucket.keep_spare(spare, k);
            }
        }
    }

    /// Notes that a spare is being asked.
    pub fn looked(&mut self, now: Time, at: Position, id: NodeId) {
        let index = self.bucket_of(at);
        let mut spares = self.bucket_mut(index).spares.iter_mut();
        if let Some(spare) = spares.find(|spare| spare.contact.id() == id) {
            spare.looked_at = now;
        }
    }

    fn place(&mut self, now: Time, index: usize, entry: Entry) {
        let (k, proximity) = (self.k, self.proximity);
        let reach = self.surroundings_reach(index);
        let near = distance(self.me, entry.position) < reach;
        let me = self.me;
        let bucket = self.bucket_mut(index);
        let limit = if near { 2 * k } else { k };
        if bucket.entries.len() < limit {
            bucket.entries.push(entry);
            return;
        }
        let farthest = || bucket.farthest_from(me).filter(|_| near);
        let doubtful = bucket.entries.iter().position(|entry| entry.strikes > 0);
        let far = |entry: &Entry| distance(me, entry.position) > reach;
        let slower = || bucket.slower_than(&entry, far).filter(|_| proximity);
        match doubtful.or_else(farthest).or_else(slower) {
            Some(place) => {
                let displaced = std::mem::replace(&mut bucket.entries[place], entry);
                bucket.keep_spare(displaced.into(), k);
            }
            None => {
                let mut spare = Spare::from(entry);
                spare.looked_at = now;
                bucket.keep_spare(spare, k);
            }
        }
    }

    /// Returns the distance of the k-th closest entry: who is nearer belongs to this
    /// node's surroundings. The largest distance while there are fewer than k in the
    /// buckets from `index` on; for those before it, the answer is of no use.
    fn surroundings_reach(&self, index: usize) -> u64 {
        let deep = self.buckets.iter().skip(index);
        let entries = deep.flat_map(|bucket| &bucket.entries);
        let mut far: Vec<u64> = entries
            .map(|entry| distance(self.me, entry.position))
            .collect();
        if far.len() < self.k {
            return u64::MAX;
        }
        *far.select_nth_unstable(self.k - 1).1
    }

    fn bucket_mut(&mut self, index: usize) -> &mut Bucket {
        if self.buckets.len() <= index {
            self.buckets.resize_with(index + 1, Bucket::default);
        }
        &mut self.buckets[index]
    }

    fn entry_mut(&mut self, at: Position, id: NodeId) -> Option<&mut Entry> {
        let index = self.bucket_of(at);
        let bucket = self.buckets.get_mut(index)?;
        let mut entries = bucket.entries.iter_mut();
        entries.find(|entry| entry.contact.id() == id)
    }
}

impl Entry {
    fn new(now: Time, contact: Contact, position: Position) -> Self {
        Self {
            contact,
            position,
            round_trip: RoundTrip::default(),
            least: None,
            heard_at: now,
            strikes: 0,
        }
    }

    fn heard(&mut self, now: Time, trip: Option<Duration>) {
        self.heard_at = now;
        self.strikes = 0;
        if let Some(trip) = trip {
            self.round_trip.measured(trip);
            self.least = Some(self.least.map_or(trip, |least| least.min(trip)));
        }
    }
}

impl From<Entry> for Spare {
    fn from(entry: Entry) -> Self {
        Self {
            contact: entry.contact,
            position: entry.position,
            least: entry.least,
            heard_at: (entry.strikes == 0).then_some(entry.heard_at),
            looked_at: entry.heard_at,
        }
    }
}

impl Bucket {
    fn take_spare(&mut self, id: NodeId) -> Option<Spare> {
        let mut spares = self.spares.iter();
        let found = spares.position(|spare| spare.contact.id() == id)?;
        Some(self.spares.remove(found))
    }

    /// Keeps a spare; past `limit` the oldest goes. Half of the places are for those that
    /// have spoken, so that neither they nor new names are crowded out.
    fn keep_spare(&mut self, spare: Spare, limit: usize) {
        self.spares.push(spare);
        if self.spares.len() <= limit {
            return;
        }
        let spoken = |spare: &&Spare| spare.heard_at.is_some();
        let crowd = self.spares.iter().filter(spoken).count() > limit / 2;
        let age = |spare: &&Spare| (spare.heard_at, spare.looked_at, spare.contact.id());
        let crowded = self.spares.iter().filter(|spare| spoken(spare) == crowd);
        let oldest = crowded.min_by_key(age).map(|spare| spare.contact.id());
        oldest.map(|oldest| self.take_spare(oldest));
    }

    /// Takes the spare that spoke last.
    fn best_spare(&mut self) -> Option<Entry> {
        let spoken = self.spares.iter().filter(|spare| spare.heard_at.is_some());
        let best = spoken.max_by_key(|spare| (spare.heard_at, spare.contact.id()))?;
        let spare = self.take_spare(best.contact.id())?;
        let mut entry = Entry::new(spare.heard_at?, spare.contact, spare.position);
        entry.least = spare.least;
        Some(entry)
    }

    fn farthest_from(&self, me: Position) -> Option<usize> {
        let entries = self.entries.iter().enumerate();
        entries
            .max_by_key(|(_, entry)| (distance(me, entry.position), entry.contact.id()))
            .map(|(place, _)| place)
    }

    /// Finds the slowest entry that may go, if the candidate is clearly faster. An entry that was never
    /// measured counts as slow.
    fn slower_than(&self, candidate: &Entry, may_go: impl Fn(&Entry) -> bool) -> Option<usize> {
        let (part, whole) = CLEARLY_SHORTER;
        let trip = candidate.least?;
        let slow = |entry: &Entry| entry.least.unwrap_or(Duration::MAX);
        let (place, slowest) = self
            .entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| may_go(entry))
            .max_by_key(|(_, entry)| (slow(entry), entry.contact.id()))?;
        let shorter = slow(slowest)
            .checked_mul(part)
            .is_none_or(|bound| trip * whole < bound);
        shorter.then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contact(number: u64) -> Contact {
        let mut octets = [0; 32];
        octets[..8].copy_from_slice(&number.to_be_bytes());
        Contact::new(NodeId::from_bytes(octets), [])
    }

    fn at(number: u64) -> Position {
        Position::from_number(number)
    }

    const FAR: u64 = 1 << 63;
    const TRIP: Option<Duration> = Some(Duration::from_millis(80));

    fn full(k: usize, proximity: bool) -> Table {
        let mut table = Table::new(at(0), k, proximity);
        // The surroundings: so that nobody in bucket 0 is among the k closest.
        for near in 1..=k as u64 {
            table.heard(Time::ZERO, &contact(near), at(near), TRIP);
        }
        for far in 0..k as u64 {
            table.heard(Time::ZERO, &contact(FAR + far), at(FAR + far), TRIP);
        }
        table
    }

    #[test]
    fn a_full_bucket_keeps_what_it_has_until_one_fails() {
        let mut table = full(4, false);
        let late = FAR + 100;
        table.heard(Time::from_secs(1), &contact(late), at(late), TRIP);
        assert!(table.entry(at(late), contact(late).id()).is_none());
        assert_eq!(table.bucket(0).count(), 4);
        table.failed(Time::from_secs(2), at(FAR), contact(FAR).id());
        assert!(table.entry(at(FAR), contact(FAR).id()).is_none());
        assert!(table.entry(at(late), contact(late).id()).is_some());
    }

    #[test]
    fn a_clearly_nearer_node_takes_the_place_of_the_slowest() {
        let mut table = full(4, true);
        let (near, bit_nearer) = (FAR + 100, FAR + 101);
        let trip = |millis| Some(Duration::from_millis(millis));
        table.heard(Time::ZERO, &contact(bit_nearer), at(bit_nearer), trip(70));
        assert!(
            table
                .entry(at(bit_nearer), contact(bit_nearer).id())
                .is_none()
        );
        table.heard(Time::ZERO, &contact(near), at(near), trip(20));
        assert!(table.entry(at(near), contact(near).id()).is_some());
        assert_eq!(table.bucket(0).count(), 4);
        assert_eq!(table.spares().count(), 2);
    }

    #[test]
    fn the_surroundings_are_known_whole_even_when_a_bucket_is_full() {
        let k = 4;
        let mut table = Table::new(at(0), k, false);
        // All in one bucket, the farthest first.
        for near in (32..64).rev() {
            table.heard(Time::ZERO, &contact(near), at(near), TRIP);
        }
        for near in 32..32 + k as u64 {
            let known = table.entry(at(near), contact(near).id());
            assert!(known.is_some(), "{near} is among the {k} closest of all");
        }
        assert!(table.entries().count() <= 2 * k);
    }

    #[test]
    fn hearsay_is_never_handed_on_and_tables_are_bounded() {
        let mut table = Table::new(at(0), 4, true);
        for named in 1..10_000 {
            let number = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(named);
            table.named(Time::ZERO, &contact(number), at(number));
        }
        assert!(table.closest(at(5), 20).is_empty());
        assert!(table.spares().count() <= 64 * 4);
    }

    #[test]
    fn the_closest_are_the_closest_by_exclusive_or() {
        let table = full(4, false);
        let target = at(FAR + 2);
        let found: Vec<u64> = table
            .closest(target, 3)
            .iter()
            .map(|entry| entry.position.number() - FAR)
            .collect();
        assert_eq!(found, [2, 3, 0]);
    }
}
