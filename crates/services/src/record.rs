//! Records: what the DHT stores.
//!
//! ```text
//! +------+--------+-------+-----+-------+---------+---------+-------+------------+-----------+
//! | kind | writer | owner | seq | since | lease_s | removed | value | by writer  | by owner  |
//! +------+--------+-------+-----+-------+---------+---------+-------+------------+-----------+
//!  1      32       32      1–10  1–10    1–5       1         2+n     64           64   octets
//! ```
//!
//! *Writer* is a public key that everyone who may write under this key can derive, for
//! example all members of a channel; the record's [`Key`] is a hash of it, so that
//! holders can refuse what outsiders write, without knowing who the insiders are.
//! *Owner* is the public key of the one who wrote this record; only the owner may
//! change it. Both sign everything before the signatures. Values are sealed; holders
//! see keys that look random, and sizes.

use std::fmt;

use bytes::Bytes;
use enishi_overlay::{Keypair, NodeId, Position};
use serde::{Deserialize, Serialize};

use crate::keys::SEAL_BYTES;

/// The largest value before sealing, in octets.
pub const VALUE_BYTES_MAX: usize = 4096;
/// The largest sealed value, in octets.
pub const SEALED_BYTES_MAX: usize = VALUE_BYTES_MAX + SEAL_BYTES;
/// How much a record counts besides its value, in octets.
pub const RECORD_BYTES: usize = 224;
/// The shortest and the longest lease, in seconds: 30 seconds and 31 days.
pub const LEASE_S: std::ops::RangeInclusive<u32> = 30..=31 * 86_400;

/// The name of a record in the DHT: 32 octets that look random.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key([u8; 32]);

impl Key {
    /// Derives the key of the records of a kind which the holders of a writer key may
    /// write.
    pub fn new(kind: Kind, writer: &NodeId) -> Self {
        let context = match kind {
            Kind::Lease => "enishi 1 record key lease",
            Kind::Set => "enishi 1 record key set",
        };
        Self(blake3::derive_key(context, writer.as_bytes()))
    }

    /// The least key.
    pub const MIN: Self = Self([0; 32]);

    /// Returns where on the ring the record belongs.
    pub const fn position(&self) -> Position {
        Position::of_hash(&self.0)
    }

    /// Returns the octets of the key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.position())
    }
}

/// What sort of record it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// Belongs to its first owner as long as the lease is renewed: names, addresses.
    Lease,
    /// One entry of each of several owners: directories.
    Set,
}

/// An ed25519 signature, 64 octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature([u8; 32], [u8; 32]);

impl Signature {
    pub(crate) fn new(octets: [u8; 64]) -> Self {
        let (mut a, mut b) = ([0; 32], [0; 32]);
        a.copy_from_slice(&octets[..32]);
        b.copy_from_slice(&octets[32..]);
        Self(a, b)
    }

    pub(crate) fn octets(&self) -> [u8; 64] {
        let mut octets = [0; 64];
        octets[..32].copy_from_slice(&self.0);
        octets[32..].copy_from_slice(&self.1);
        octets
    }
}

/// What owner and writer sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// What sort of record it is.
    pub kind: Kind,
    /// The key that all who may write here share; [`Key::new`] of it is the key.
    pub writer: NodeId,
    /// Whose record it is.
    pub owner: NodeId,
    /// The version; grows with every change of the owner's.
    pub seq: u64,
    /// Since when the owner has claimed the key, in seconds since 1970 by its own
    /// clock. Decides, when two parts of a split overlay meet, who claimed first.
    pub since_unix_s: u64,
    /// How long holders keep the record after the owner was last heard, in seconds.
    pub lease_s: u32,
    /// Whether the owner has removed it. Holders keep the mark as long as the lease.
    pub removed: bool,
    /// The sealed value; empty when removed.
    pub value: Bytes,
}

/// A record with its signatures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    content: Content,
    by_writer: Signature,
    by_owner: Signature,
}

/// What a holder does with a record that meets one under the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precedence {
    /// The new one takes the place of the old one.
    Newer,
    /// Both are the same version: only the lease starts again.
    Same,
    /// The old one stays.
    Older,
}

impl Record {
    /// Signs a record. `content.writer` and `content.owner` are set to the signers.
    pub fn sign(mut content: Content, writer: &Keypair, owner: &Keypair) -> Self {
        content.writer = writer.id();
        content.owner = owner.id();
        let octets = signed_octets(&content);
        Self {
            by_writer: Signature::new(writer.sign(&octets)),
            by_owner: Signature::new(owner.sign(&octets)),
            content,
        }
    }

    /// Tells whether sizes, lease and both signatures are right. Two signature checks.
    pub fn verify(&self) -> bool {
        let content = &self.content;
        let octets = signed_octets(content);
        content.value.len() <= SEALED_BYTES_MAX
            && LEASE_S.contains(&content.lease_s)
            && (!content.removed || content.value.is_empty())
            && content.writer.verify(&octets, &self.by_writer.octets())
            && content.owner.verify(&octets, &self.by_owner.octets())
    }

    /// Returns what was signed.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// Returns the key.
    pub fn key(&self) -> Key {
        Key::new(self.content.kind, &self.content.writer)
    }

    /// Returns how much it counts against quotas, in octets.
    pub fn size(&self) -> usize {
        self.content.value.len() + RECORD_BYTES
    }

    /// Compares with the present record of the same key, and of the same owner for
    /// [`Kind::Set`], when both are found to be stored at different holders.
    ///
    /// Of one owner the higher version wins. Of two owners the one with the earlier
    /// claim, then the one with the lower hash of its key; a removed record gives way
    /// to anyone's.
    pub fn precedence(&self, present: &Self) -> Precedence {
        let (new, old) = (&self.content, &present.content);
        let order = if new.owner == old.owner {
            let digest = |record: &Self| record.by_owner.octets();
            (new.seq, digest(self)).cmp(&(old.seq, digest(present)))
        } else {
            let strength = |content: &Content| {
                let claim = std::cmp::Reverse((
                    content.since_unix_s,
                    *blake3::hash(content.owner.as_bytes()).as_bytes(),
                ));
                (!content.removed, claim)
            };
            strength(new).cmp(&strength(old))
        };
        match order {
            std::cmp::Ordering::Greater => Precedence::Newer,
            std::cmp::Ordering::Equal => Precedence::Same,
            std::cmp::Ordering::Less => Precedence::Older,
        }
    }
}

fn signed_octets(content: &Content) -> Vec<u8> {
    let mut octets = b"enishi 1 record\0".to_vec();
    octets = postcard::to_extend(content, octets).unwrap_or_default();
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(owner: u8, seq: u64, since: u64, removed: bool) -> Record {
        let writer = Keypair::from_seed(&[100; 32]);
        let owner = Keypair::from_seed(&[owner; 32]);
        let content = Content {
            kind: Kind::Lease,
            writer: writer.id(),
            owner: owner.id(),
            seq,
            since_unix_s: since,
            lease_s: 60,
            removed,
            value: Bytes::new(),
        };
        Record::sign(content, &writer, &owner)
    }

    #[test]
    fn any_change_breaks_a_signature() {
        let good = record(1, 1, 5, false);
        assert!(good.verify());
        let mut octets = postcard::to_stdvec(&good).unwrap();
        for index in 0..octets.len() {
            octets[index] ^= 1;
            let damaged = postcard::from_bytes::<Record>(&octets);
            assert!(
                !damaged.is_ok_and(|record| record.verify()),
                "octet {index}"
            );
            octets[index] ^= 1;
        }
    }

    #[test]
    fn the_earlier_claim_wins_and_removal_gives_way() {
        let (first, second) = (record(1, 1, 5, false), record(2, 9, 6, false));
        assert_eq!(first.precedence(&second), Precedence::Newer);
        assert_eq!(second.precedence(&first), Precedence::Older);
        assert_eq!(second.precedence(&record(1, 2, 5, true)), Precedence::Newer);
        assert_eq!(record(1, 2, 5, true).precedence(&first), Precedence::Newer);
        assert_eq!(first.precedence(&first), Precedence::Same);
    }

    #[test]
    fn equal_claims_have_one_winner() {
        let (a, b) = (record(1, 1, 5, false), record(2, 1, 5, false));
        assert_ne!(a.precedence(&b), b.precedence(&a));
    }
}
