//! Whom the authority has removed.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Signature, VERSION, signed_octets};
use crate::id::{Keypair, NodeId, OverlayId};

/// The most keys that can be revoked; 32 octets each must fit one message.
pub const REVOKED_MAX: usize = 1024;

/// What goes before the signed octets of a list.
const REVOCATIONS: &[u8] = b"enishi 1 revocations\0";

/// Whom the authority has removed: one list, each with a higher number than the one before.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocations {
    version: u8,
    overlay: OverlayId,
    number: u64,
    keys: Vec<NodeId>,
    signature: Signature,
}

impl Revocations {
    /// Signs the list that follows `before`, with one more node or invitation (the name of
    /// an invitation is its first key). None when the list is full ([`REVOKED_MAX`]).
    pub fn sign(
        authority: &Keypair,
        overlay: OverlayId,
        before: Option<&Self>,
        key: NodeId,
    ) -> Option<Self> {
        let mut keys = before.map_or_else(Vec::new, |list| list.keys.clone());
        if let Err(at) = keys.binary_search(&key) {
            keys.insert(at, key);
        }
        let number = before.map_or(0, |list| list.number).saturating_add(1);
        let content = (VERSION, &overlay, number, &keys);
        let signature = Signature::new(&authority.sign(&signed_octets(REVOCATIONS, &content)));
        (keys.len() <= REVOKED_MAX).then_some(Self {
            version: VERSION,
            overlay,
            number,
            keys,
            signature,
        })
    }

    /// Tells whether it is the authority's list for the overlay. One signature check.
    pub fn verify(&self, overlay: &OverlayId, authority: &NodeId) -> bool {
        let content = (self.version, &self.overlay, self.number, &self.keys);
        self.version == VERSION
            && self.overlay == *overlay
            && self.is_bounded()
            && self.keys.is_sorted()
            && authority.verify(
                &signed_octets(REVOCATIONS, &content),
                &self.signature.octets(),
            )
    }

    /// Tells whether a node or an invitation is in the list.
    pub fn contains(&self, key: &NodeId) -> bool {
        self.keys.binary_search(key).is_ok()
    }

    /// Returns the number of the list, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Returns the nodes and invitations in it, in order, at most [`REVOKED_MAX`].
    pub fn keys(&self) -> &[NodeId] {
        &self.keys
    }

    pub(super) fn is_bounded(&self) -> bool {
        self.keys.len() <= REVOKED_MAX
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Revocations({}, {} keys)", self.number, self.keys.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> Keypair {
        Keypair::from_seed(&[seed; 32])
    }

    #[test]
    fn only_the_authority_revokes_and_lists_grow() {
        let authority = &key(1);
        let overlay = OverlayId::of_authority(&authority.id());
        let mut list = Revocations::sign(authority, overlay, None, key(9).id()).unwrap();
        for seed in [3, 7, 3] {
            list = Revocations::sign(authority, overlay, Some(&list), key(seed).id()).unwrap();
        }
        assert_eq!((list.number(), list.keys().len()), (4, 3));
        assert!(list.verify(&overlay, &authority.id()) && list.contains(&key(7).id()));
        assert!(!list.verify(&overlay, &key(2).id()));
        let mut forged = list.clone();
        forged.number += 1;
        assert!(!forged.verify(&overlay, &authority.id()));
        let by_another = Revocations::sign(&key(2), overlay, Some(&list), key(1).id()).unwrap();
        assert!(!by_another.verify(&overlay, &authority.id()));
    }
}
