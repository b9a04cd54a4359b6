//! What a node holds for the overlay: precedence, leases and quotas.

use std::collections::BTreeMap;
use std::time::Duration;

use enishi_overlay::ring::Arc;
use enishi_overlay::{NodeId, Position, Time};

use super::wire::{Aged, Item, Outcome};
use crate::record::{Key, Kind, Precedence, Record};

/// The most records a node holds.
pub const RECORDS_HELD_MAX: usize = 65_536;
/// The most octets a node holds.
pub const BYTES_HELD_MAX: u64 = 64 << 20;
/// The most octets a node holds that one owner's node put there itself.
pub const BYTES_PER_PUTTER_MAX: u64 = 2 << 20;
/// The most octets a node holds that one other holder handed over.
pub const BYTES_PER_HOLDER_MAX: u64 = 32 << 20;
/// The most entries of one directory.
pub const SET_ENTRIES_MAX: usize = 64;
/// The most marks of entries that were removed from one directory. They take no entry's place; of
/// more, the one that would end first goes.
pub const SET_MARKS_MAX: usize = 64;

/// How a record comes to a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The owner's node puts it: whoever has the key keeps it.
    Put,
    /// The node in charge passes the owner's put on: the same.
    Copy,
    /// Another holder had it: [`Record::precedence`] decides.
    Repair,
    /// This node had it before its last stop.
    Restored,
}

impl Arrival {
    const fn quota(self) -> u64 {
        match self {
            Self::Put => BYTES_PER_PUTTER_MAX,
            Self::Copy | Self::Repair => BYTES_PER_HOLDER_MAX,
            Self::Restored => BYTES_HELD_MAX,
        }
    }

    /// Tells whether an owner's earlier claim may displace another's.
    const fn settles_claims(self) -> bool {
        match self {
            Self::Put | Self::Copy => false,
            Self::Repair | Self::Restored => true,
        }
    }
}

/// A record as it is held.
#[derive(Clone, Debug)]
pub struct Held {
    record: Record,
    expires_at: Time,
    source: NodeId,
    digest: u128,
}

impl Held {
    /// Returns the record.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Tells whether it is the mark of a removed record.
    fn is_mark(&self) -> bool {
        self.record.content().removed
    }

    /// Returns the record with its age at `now`.
    pub fn aged(&self, now: Time) -> Aged {
        let lease_s = self.record.content().lease_s;
        let left_s = self.expires_at.since(now).as_secs();
        let age_s = lease_s.saturating_sub(u32::try_from(left_s).unwrap_or(u32::MAX));
        Aged {
            record: self.record.clone(),
            age_s,
        }
    }
}

type Slot = (Position, Key, NodeId);

/// The records that a node holds, ordered by their place on the ring.
#[derive(Debug, Default)]
pub struct Store {
    held: BTreeMap<Slot, Held>,
    bytes: u64,
    bytes_by_source: BTreeMap<NodeId, u64>,
}

/// What a node had to do to store a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Owners under the same key whose records had to go.
    pub displaced: Vec<NodeId>,
}

impl Store {
    /// Stores a record whose signatures are checked, if precedence, lease and quotas
    /// admit it. The work grows with the logarithm of what is held and with the entries
    /// under the key.
    ///
    /// # Errors
    /// The outcome that is to be answered.
    pub fn accept(
        &mut self,
        now: Time,
        aged: Aged,
        source: NodeId,
        arrival: Arrival,
    ) -> Result<Change, Outcome> {
        let Aged { record, age_s } = aged;
        let lease_s = record.content().lease_s;
        if age_s >= lease_s {
            return Err(Outcome::Invalid);
        }
        let expires_at = now + Duration::from_secs(u64::from(lease_s - age_s));
        let key = record.key();
        let owner = record.content().owner;
        let mut displaced = self.judge(now, key, &record, arrival)?;
        let slot = (key.position(), key, owner);
        if let Some(present) = self.held.get_mut(&slot)
            && present.record == record
        {
            present.expires_at = present.expires_at.max(expires_at);
            return Ok(Change { displaced });
        }
        self.check_quotas(&slot, &record, source, arrival)?;
        displaced.extend(self.mark_too_many(&record));
        for owner in &displaced {
            self.remove(key, *owner);
        }
        self.insert(slot, record, expires_at, source);
        Ok(Change { displaced })
    }

    /// Returns what is held under a key, at most [`SET_ENTRIES_MAX`] records and, in a directory,
    /// [`SET_MARKS_MAX`] marks of removed ones.
    pub fn under(&self, key: Key, now: Time) -> impl Iterator<Item = &Held> {
        let (first, last) = (NodeId::from_bytes([0; 32]), NodeId::from_bytes([255; 32]));
        let position = key.position();
        self.held
            .range((position, key, first)..=(position, key, last))
            .map(|(_, held)| held)
            .filter(move |held| held.expires_at > now)
    }

    /// Returns one record.
    pub fn one(&self, key: Key, owner: NodeId) -> Option<&Held> {
        self.held.get(&(key.position(), key, owner))
    }

    /// Removes one record.
    pub fn remove(&mut self, key: Key, owner: NodeId) {
        if let Some(held) = self.held.remove(&(key.position(), key, owner)) {
            self.account(held.source, held.record.size(), false);
        }
    }

    /// Removes what has outlived its lease; returns what it was.
    pub fn expire(&mut self, now: Time) -> Vec<(Key, NodeId)> {
        let ended = self.held.iter().filter(|(_, held)| held.expires_at <= now);
        let ended: Vec<(Key, NodeId)> = ended.map(|((_, key, owner), _)| (*key, *owner)).collect();
        for (key, owner) in &ended {
            self.remove(*key, *owner);
        }
        ended
    }

    /// Visits what is held on a stretch of the ring, in order from its start.
    pub fn on_arc(&self, arc: Arc) -> impl Iterator<Item = (Item, &Held)> {
        let first = move |position| (position, Key::MIN, NodeId::from_bytes([0; 32]));
        let (start, end) = (first(arc.start), first(arc.end));
        // A stretch over the top of the ring is two stretches of numbers.
        let split = arc.start >= arc.end;
        let upper = self
            .held
            .range(start..)
            .take_while(move |(slot, _)| split || **slot < end);
        let lower = self.held.range(..end).take_while(move |_| split);
        upper.chain(lower).map(|((_, key, owner), held)| {
            (
                Item {
                    key: *key,
                    owner: *owner,
                    digest: held.digest,
                },
                held,
            )
        })
    }

    /// Returns how many records are held.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Tells whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Returns how many octets are held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns how many octets are held that a node brought, as an owner or as another
    /// holder. Of what was held before the last start nobody knows who brought it.
    pub fn bytes_of(&self, source: NodeId) -> u64 {
        self.bytes_by_source.get(&source).copied().unwrap_or(0)
    }

    fn judge(
        &self,
        now: Time,
        key: Key,
        record: &Record,
        arrival: Arrival,
    ) -> Result<Vec<NodeId>, Outcome> {
        let content = record.content();
        let mut displaced = Vec::new();
        for held in self.under(key, now) {
            let present = held.record.content();
            if present.owner == content.owner {
                if record.precedence(&held.record) == Precedence::Older {
                    return Err(Outcome::Stale { seq: present.seq });
                }
                continue;
            }
            // The mark of another's removal stays beside the new owner's record: it keeps
            // the removed record from coming back with a holder that was away.
            if content.kind == Kind::Set || present.removed {
                continue;
            }
            if !arrival.settles_claims() {
                return Err(Outcome::Taken);
            }
            if content.removed {
                continue;
            }
            match record.precedence(&held.record) {
                Precedence::Newer => displaced.push(present.owner),
                Precedence::Same | Precedence::Older => return Err(Outcome::Taken),
            }
        }
        Ok(displaced)
    }

    fn check_quotas(
        &self,
        slot: &Slot,
        record: &Record,
        source: NodeId,
        arrival: Arrival,
    ) -> Result<(), Outcome> {
        let present = self.held.get(slot);
        if record.content().removed && present.is_some() {
            // Always: it makes room.
            return Ok(());
        }
        let size = record.size() as u64;
        let freed = present.map_or(0, |held| held.record.size() as u64);
        let by_source = self.bytes_by_source.get(&source).copied().unwrap_or(0);
        let freed_of_source = if present.is_some_and(|held| held.source == source) {
            freed
        } else {
            0
        };
        let no_place = match record.content().kind {
            Kind::Lease => present.is_none() && self.count(slot.1, |_| true) >= SET_ENTRIES_MAX,
            Kind::Set => self.is_crowded(slot.1, present, record),
        };
        let full = no_place
            || (present.is_none() && self.held.len() >= RECORDS_HELD_MAX)
            || self.bytes - freed + size > BYTES_HELD_MAX
            || by_source - freed_of_source + size > arrival.quota();
        if full { Err(Outcome::Full) } else { Ok(()) }
    }

    /// Tells whether a directory has no place for a record: live ones and marks have their own.
    fn is_crowded(&self, key: Key, present: Option<&Held>, record: &Record) -> bool {
        let removed = record.content().removed;
        let has_place = present.is_some_and(|held| held.is_mark() == removed);
        let most = if removed {
            SET_MARKS_MAX
        } else {
            SET_ENTRIES_MAX
        };
        !has_place && self.count(key, |held| held.is_mark() == removed) >= most
    }

    /// The mark that has to go for a record, which is to be another in its directory.
    fn mark_too_many(&self, record: &Record) -> Option<NodeId> {
        let (key, content) = (record.key(), record.content());
        if content.kind != Kind::Set || !content.removed {
            return None;
        }
        let others = self.under(key, Time::ZERO).filter(|held| held.is_mark());
        let others = others.filter(|held| held.record.content().owner != content.owner);
        let others: Vec<&Held> = others.collect();
        let first = others.iter().min_by_key(|held| held.expires_at)?;
        (others.len() >= SET_MARKS_MAX).then(|| first.record.content().owner)
    }

    fn count(&self, key: Key, counts: impl Fn(&Held) -> bool) -> usize {
        let held = self.under(key, Time::ZERO);
        held.filter(|held| counts(held)).count()
    }

    fn insert(&mut self, slot: Slot, record: Record, expires_at: Time, source: NodeId) {
        self.remove(slot.1, slot.2);
        self.account(source, record.size(), true);
        let digest = digest(&record);
        self.held.insert(
            slot,
            Held {
                record,
                expires_at,
                source,
                digest,
            },
        );
    }

    fn account(&mut self, source: NodeId, size: usize, added: bool) {
        let size = size as u64;
        let by_source = self.bytes_by_source.entry(source).or_default();
        if added {
            self.bytes += size;
            *by_source += size;
        } else {
            self.bytes -= size;
            *by_source -= size;
        }
        if *by_source == 0 {
            self.bytes_by_source.remove(&source);
        }
    }
}

fn digest(record: &Record) -> u128 {
    let octets = postcard::to_stdvec(record).unwrap_or_default();
    let hash = blake3::hash(&octets);
    let mut digest = [0; 16];
    digest.copy_from_slice(&hash.as_bytes()[..16]);
    u128::from_le_bytes(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Content;
    use bytes::Bytes;
    use enishi_overlay::Keypair;

    fn keypair(seed: u8) -> Keypair {
        Keypair::from_seed(&[seed; 32])
    }

    fn aged(kind: Kind, writer: u8, owner: u8, seq: u64, value: usize) -> Aged {
        let content = Content {
            kind,
            writer: keypair(writer).id(),
            owner: keypair(owner).id(),
            seq,
            since_unix_s: 100 - u64::from(owner),
            lease_s: 60,
            removed: false,
            value: Bytes::from(vec![0; value]),
        };
        Aged {
            record: Record::sign(content, &keypair(writer), &keypair(owner)),
            age_s: 0,
        }
    }

    fn put(store: &mut Store, aged: Aged, arrival: Arrival) -> Result<Change, Outcome> {
        store.accept(Time::from_secs(1), aged, keypair(200).id(), arrival)
    }

    #[test]
    fn a_lease_belongs_to_its_first_owner_until_it_ends() {
        let mut store = Store::default();
        let first = aged(Kind::Lease, 1, 1, 1, 5);
        let key = first.record.key();
        put(&mut store, first, Arrival::Put).unwrap();
        let second = aged(Kind::Lease, 1, 2, 1, 5);
        assert_eq!(
            put(&mut store, second.clone(), Arrival::Put),
            Err(Outcome::Taken)
        );
        let stale = aged(Kind::Lease, 1, 1, 0, 5);
        assert_eq!(
            put(&mut store, stale, Arrival::Put),
            Err(Outcome::Stale { seq: 1 })
        );
        assert_eq!(store.expire(Time::from_secs(62)).len(), 1);
        assert_eq!(store.under(key, Time::from_secs(62)).count(), 0);
        assert!(put(&mut store, second, Arrival::Put).is_ok());
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn when_two_claims_meet_in_repair_the_earlier_one_stays() {
        let mut store = Store::default();
        put(&mut store, aged(Kind::Lease, 1, 1, 1, 5), Arrival::Put).unwrap();
        let earlier = aged(Kind::Lease, 1, 2, 1, 5);
        let change = put(&mut store, earlier, Arrival::Repair).unwrap();
        assert_eq!(change.displaced, [keypair(1).id()]);
        assert_eq!(store.len(), 1);
        let later = aged(Kind::Lease, 1, 1, 9, 5);
        assert_eq!(put(&mut store, later, Arrival::Repair), Err(Outcome::Taken));
    }

    #[test]
    fn sets_hold_one_entry_of_each_owner_up_to_a_limit() {
        let mut store = Store::default();
        for owner in 0..SET_ENTRIES_MAX as u8 {
            put(&mut store, aged(Kind::Set, 1, owner, 1, 5), Arrival::Put).unwrap();
        }
        let more = aged(Kind::Set, 1, 99, 1, 5);
        assert_eq!(put(&mut store, more, Arrival::Put), Err(Outcome::Full));
        assert!(put(&mut store, aged(Kind::Set, 1, 3, 2, 9), Arrival::Put).is_ok());
    }

    #[test]
    fn marks_of_removed_entries_take_no_place_and_are_bounded() {
        let mut store = Store::default();
        let removed = |owner| {
            let present = aged(Kind::Set, 1, owner, 2, 0).record;
            let content = Content {
                removed: true,
                ..present.content().clone()
            };
            let record = Record::sign(content, &keypair(1), &keypair(owner));
            Aged { record, age_s: 0 }
        };
        let key = removed(0).record.key();
        let marks = |store: &Store| store.count(key, Held::is_mark);
        for owner in 0..90 {
            put(&mut store, aged(Kind::Set, 1, owner, 1, 5), Arrival::Put).unwrap();
            let change = put(&mut store, removed(owner), Arrival::Put).unwrap();
            let too_many = usize::from(owner) >= SET_MARKS_MAX;
            assert_eq!(change.displaced.len(), usize::from(too_many), "{owner}");
        }
        assert_eq!((store.len(), marks(&store)), (SET_MARKS_MAX, SET_MARKS_MAX));
        let unheard = put(&mut store, removed(95), Arrival::Repair);
        assert_eq!(unheard, Err(Outcome::Full));
        for owner in 0..SET_ENTRIES_MAX as u8 {
            put(&mut store, aged(Kind::Set, 1, owner, 3, 5), Arrival::Put).unwrap();
        }
        let more = aged(Kind::Set, 1, 99, 3, 5);
        assert_eq!(put(&mut store, more, Arrival::Put), Err(Outcome::Full));
    }

    #[test]
    fn one_putter_cannot_fill_a_holder() {
        let mut store = Store::default();
        let refused = (0..=255)
            .flat_map(|writer| (0..3).map(move |owner| (writer, owner)))
            .map(|(writer, owner)| aged(Kind::Set, writer, owner, 1, 4096))
            .find_map(|aged| put(&mut store, aged, Arrival::Put).err());
        assert_eq!(refused, Some(Outcome::Full));
        assert!(store.bytes() <= BYTES_PER_PUTTER_MAX);
        let other = aged(Kind::Lease, 7, 7, 1, 4096);
        assert!(
            store
                .accept(Time::ZERO, other, keypair(201).id(), Arrival::Put)
                .is_ok()
        );
    }

    #[test]
    fn at_the_quota_one_may_still_change_and_remove() {
        let mut store = Store::default();
        let full = (0..=255)
            .flat_map(|writer| (0..3).map(move |owner| (writer, owner)))
            .find(|(writer, owner)| {
                put(
                    &mut store,
                    aged(Kind::Set, *writer, *owner, 1, 4096),
                    Arrival::Put,
                )
                .is_err()
            });
        assert!(full.is_some());
        assert!(put(&mut store, aged(Kind::Set, 0, 0, 2, 4096), Arrival::Put).is_ok());
        let mut gone = aged(Kind::Set, 0, 0, 3, 0);
        let content = Content {
            removed: true,
            ..gone.record.content().clone()
        };
        gone.record = Record::sign(content, &keypair(0), &keypair(0));
        assert!(put(&mut store, gone, Arrival::Put).is_ok());
    }

    #[test]
    fn what_was_removed_does_not_come_back_over_a_new_owner() {
        let mut store = Store::default();
        let (old, new) = (aged(Kind::Lease, 1, 2, 1, 5), aged(Kind::Lease, 1, 1, 1, 5));
        put(&mut store, old.clone(), Arrival::Put).unwrap();
        let content = Content {
            removed: true,
            seq: 2,
            value: Bytes::new(),
            ..old.record.content().clone()
        };
        let record = Record::sign(content, &keypair(1), &keypair(2));
        put(&mut store, Aged { record, age_s: 0 }, Arrival::Put).unwrap();
        put(&mut store, new.clone(), Arrival::Put).unwrap();
        // A holder that was away brings the removed record, whose claim is the earlier.
        let outcome = put(&mut store, old, Arrival::Repair);
        assert_eq!(outcome, Err(Outcome::Stale { seq: 2 }));
        let live: Vec<&Held> = store
            .under(new.record.key(), Time::from_secs(1))
            .filter(|held| !held.record.content().removed)
            .collect();
        assert_eq!(live.len(), 1);
        assert_eq!(*live[0].record(), new.record);
    }

    #[test]
    fn arcs_over_the_top_visit_everything_once() {
        let mut store = Store::default();
        for writer in 0..100 {
            put(&mut store, aged(Kind::Lease, writer, 1, 1, 5), Arrival::Put).unwrap();
        }
        assert_eq!(store.on_arc(Arc::ALL).count(), 100);
        let middle = Position::from_number(1 << 63);
        let low = Arc {
            start: Position::from_number(7),
            end: middle,
        };
        let high = Arc {
            start: middle,
            end: Position::from_number(7),
        };
        assert_eq!(store.on_arc(low).count() + store.on_arc(high).count(), 100);
    }
}
