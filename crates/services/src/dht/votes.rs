//! What several holders say about one key, and what follows from it.
//!
//! Signatures keep holders from inventing records of others, but a holder can hide what it
//! has, show an older version, or, under a name that anyone may write, a record of its own.
//! So nodes vote: each has one voice for every owner of which it shows a record.

use std::collections::BTreeMap;

use enishi_overlay::NodeId;

use crate::record::{Kind, Precedence, Record};

/// What several holders have under one key. Their signatures are checked.
#[derive(Debug, Default)]
pub(super) struct Votes(BTreeMap<NodeId, Vec<Record>>);

impl Votes {
    /// Takes in what a node has, without what is not signed as it should be.
    pub(super) fn cast<'a>(&mut self, voter: NodeId, records: impl Iterator<Item = &'a Record>) {
        let mut genuine = Vec::new();
        for record in records {
            // Most holders have the same: a signature is checked once.
            let known = self.0.values().flatten().any(|known| known == record);
            if known || record.verify() {
                genuine.push(record.clone());
            }
        }
        self.0.insert(voter, genuine);
    }

    /// Returns how many nodes answered, if only that they have nothing.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells whether nobody answered.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells whether a node showed this very record.
    pub(super) fn shows(&self, voter: NodeId, record: &Record) -> bool {
        self.0.get(&voter).is_some_and(|all| all.contains(record))
    }

    /// Returns how many of some nodes showed this very record.
    pub(super) fn counting(&self, among: &[NodeId], record: &Record) -> u32 {
        let showing = among.iter().filter(|voter| self.shows(**voter, record));
        showing.count() as u32
    }

    /// Returns the version of the same owner's newest record, if it is newer than this one.
    pub(super) fn newer_than(&self, record: &Record) -> Option<u64> {
        let owner = record.content().owner;
        let same = self.0.values().flatten();
        let versions = same.filter(|other| other.content().owner == owner);
        let newest = versions.map(|other| other.content().seq).max();
        newest.filter(|newest| *newest > record.content().seq)
    }

    /// Tells whether more nodes show another owner's record than this one's: then the key
    /// is taken.
    pub(super) fn is_taken(&self, record: &Record) -> bool {
        let content = record.content();
        if content.kind != Kind::Lease {
            return false;
        }
        let by_owner = self.newest();
        let mine = by_owner
            .get(&content.owner)
            .map_or(0, |(voices, _)| *voices);
        by_owner.iter().any(|(owner, (voices, newest))| {
            *owner != content.owner && !newest.content().removed && *voices > mine
        })
    }

    /// Returns what is there: of each owner the newest record, unless that removes it; of a
    /// key that only one may have, the record of the owner with the most voices.
    pub(super) fn live(&self) -> Vec<Record> {
        let mut live: Vec<(u32, &Record)> = self.newest().into_values().collect();
        live.retain(|(_, record)| !record.content().removed);
        let single = live
            .iter()
            .any(|(_, record)| record.content().kind == Kind::Lease);
        if single {
            let best = live.into_iter().reduce(|best, other| {
                let tie = best.0 == other.0 && best.1.precedence(other.1) == Precedence::Older;
                if other.0 > best.0 || tie { other } else { best }
            });
            live = best.into_iter().collect();
        }
        live.into_iter().map(|(_, record)| record.clone()).collect()
    }

    /// Returns for each owner how many nodes show a record of its, and the newest of these.
    fn newest(&self) -> BTreeMap<NodeId, (u32, &Record)> {
        let mut by_owner: BTreeMap<NodeId, (u32, &Record)> = BTreeMap::new();
        for records in self.0.values() {
            let mut voted = Vec::new();
            for record in records {
                let owner = record.content().owner;
                let (voices, newest) = by_owner.entry(owner).or_insert((0, record));
                if record.precedence(newest) == Precedence::Newer {
                    *newest = record;
                }
                if !voted.contains(&owner) {
                    voted.push(owner);
                    *voices += 1;
                }
            }
        }
        by_owner
    }
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

    fn record(owner: u8, seq: u64, since_unix_s: u64, removed: bool) -> Record {
        let content = Content {
            kind: Kind::Lease,
            writer: keypair(1).id(),
            owner: keypair(owner).id(),
            seq,
            since_unix_s,
            lease_s: 3600,
            removed,
            value: if removed {
                Bytes::new()
            } else {
                Bytes::from_static(b"v")
            },
        };
        Record::sign(content, &keypair(1), &keypair(owner))
    }

    fn votes(each: &[Option<&Record>]) -> Votes {
        let mut votes = Votes::default();
        for (voter, record) in (100..).zip(each) {
            votes.cast(keypair(voter).id(), record.iter().copied());
        }
        votes
    }

    #[test]
    fn one_holder_with_an_earlier_claim_of_its_own_does_not_outvote_the_others() {
        let (theirs, forged) = (record(2, 5, 1000, false), record(3, 9, 1, false));
        let votes = votes(&[Some(&theirs), Some(&forged), Some(&theirs), None]);
        assert_eq!(votes.live(), std::slice::from_ref(&theirs));
        assert!(votes.is_taken(&forged));
        assert!(!votes.is_taken(&theirs));
    }

    #[test]
    fn the_newest_of_the_owner_counts_whoever_shows_it() {
        let (old, new) = (record(2, 5, 1000, false), record(2, 6, 1000, false));
        let gone = record(2, 7, 1000, true);
        let among: Vec<NodeId> = (100..103).map(|seed| keypair(seed).id()).collect();
        let both = votes(&[Some(&old), Some(&old), Some(&new)]);
        assert_eq!(both.live(), std::slice::from_ref(&new));
        assert_eq!(both.counting(&among, &new), 1);
        assert_eq!(both.newer_than(&old), Some(6));
        assert!(
            votes(&[Some(&old), Some(&gone), Some(&new)])
                .live()
                .is_empty()
        );
    }

    #[test]
    fn what_is_not_signed_does_not_count() {
        let (mut octets, good) = (Vec::new(), record(2, 5, 1000, false));
        octets.extend(postcard::to_stdvec(&good).unwrap());
        let last = octets.len() - 1;
        octets[last] ^= 1;
        let bad: Record = postcard::from_bytes(&octets).unwrap();
        let votes = votes(&[Some(&bad)]);
        assert!(votes.live().is_empty() && votes.len() == 1);
    }
}
