//! What follows from a group's name and secret.
//!
//! | derived | for |
//! |---|---|
//! | tag | names the group to its members and to those who forward for it; the rendezvous is where a hash of it falls on the ring: g(H(group)) |
//! | writer key | where the group's entries are in the DHT, and who may write there |
//! | entry key | seals the entries |
//! | message key | seals the messages |
//! | control key | seals what members tell each other of members |
//! | flow key | hides authors from those who forward |
//! | owner key (of the *node's* secret) | whose entry it is, without telling holders |
//!
//! Whoever is in charge of the rendezvous, or forwards, sees the tag, sizes and times.

use bytes::Bytes;
use enishi_overlay::{Keypair, NodeId, Position, Rng};
use serde::{Deserialize, Serialize};

use super::wire::{Data, Flow, Tag};
use crate::calls::GroupName;
use crate::keys::{Secret, derive, derive_keypair, seal, unseal};
use crate::record::{Key, Kind, Signature};

/// What follows from a group's name and secret.
#[derive(Debug)]
pub(super) struct GroupKeys {
    pub(super) tag: Tag,
    pub(super) writer: Keypair,
    name: GroupName,
    entry: Secret,
    message: Secret,
    control: Secret,
    flow: Secret,
}

/// What a message says under its seal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Opened {
    pub(super) author: NodeId,
    pub(super) incarnation: u64,
    pub(super) payload: Bytes,
    signature: Signature,
}

impl GroupKeys {
    pub(super) fn new(name: GroupName, secret: &Secret) -> Self {
        let about: [&[u8]; 1] = [&name.0];
        let mut tag = [0; 16];
        let hash = derive("enishi 1 multicast tag", &**secret, &about);
        tag.copy_from_slice(&hash[..16]);
        Self {
            tag: Tag(tag),
            writer: derive_keypair("enishi 1 multicast entry writer", &**secret, &about),
            name,
            entry: derive("enishi 1 multicast entry seal", &**secret, &about),
            message: derive("enishi 1 multicast message seal", &**secret, &about),
            control: derive("enishi 1 multicast control seal", &**secret, &about),
            flow: derive("enishi 1 multicast flow", &**secret, &about),
        }
    }

    /// Where the group's entries are in the DHT.
    pub(super) fn key(&self) -> Key {
        Key::new(Kind::Set, &self.writer.id())
    }

    /// The key pair of this node for its entry, which tells holders nothing of the node.
    pub(super) fn owner(&self, node: &Keypair) -> Keypair {
        let about: [&[u8]; 2] = [&self.name.0, &self.tag.0];
        derive_keypair("enishi 1 multicast entry owner", &*node.seed(), &about)
    }

    pub(super) fn seal_entry(&self, rng: &mut Rng, entry: &[u8]) -> Vec<u8> {
        seal(rng, &self.entry, &self.tag.0, entry)
    }

    pub(super) fn open_entry(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        unseal(&self.entry, &self.tag.0, sealed)
    }

    /// Seals what one member tells another. That it opens proves that a member said it, and
    /// the session proves which one.
    pub(super) fn seal_control(
        &self,
        rng: &mut Rng,
        (from, to): (NodeId, NodeId),
        said: &[u8],
    ) -> Vec<u8> {
        let about = [&from.as_bytes()[..], to.as_bytes()].concat();
        seal(rng, &self.control, &about, said)
    }

    pub(super) fn open_control(
        &self,
        (from, to): (NodeId, NodeId),
        sealed: &[u8],
    ) -> Option<Vec<u8>> {
        let about = [&from.as_bytes()[..], to.as_bytes()].concat();
        unseal(&self.control, &about, sealed)
    }

    /// The name of what an author says in one of its lives.
    pub(super) fn flow(&self, author: &NodeId, incarnation: u64) -> Flow {
        let about: [&[u8]; 2] = [author.as_bytes(), &incarnation.to_le_bytes()];
        let hash = derive("enishi 1 multicast flow name", &*self.flow, &about);
        let mut flow = [0; 8];
        flow.copy_from_slice(&hash[..8]);
        Flow(flow)
    }

    /// Signs and seals a payload; `data.sealed` is set.
    pub(super) fn seal(
        &self,
        rng: &mut Rng,
        node: &Keypair,
        incarnation: u64,
        payload: Bytes,
        data: &mut Data,
    ) {
        let signature = node.sign(&self.signed(incarnation, data, &payload));
        let opened = Opened {
            author: node.id(),
            incarnation,
            payload,
            signature: Signature::new(signature),
        };
        let octets = postcard::to_stdvec(&opened).unwrap_or_default();
        data.sealed = seal(rng, &self.message, &self.about(data), &octets).into();
    }

    /// Opens a message; none when no member sealed it or its author did not sign it.
    pub(super) fn open(&self, data: &Data) -> Option<Opened> {
        let octets = unseal(&self.message, &self.about(data), &data.sealed)?;
        let opened: Opened = postcard::from_bytes(&octets).ok()?;
        let signed = self.signed(opened.incarnation, data, &opened.payload);
        let genuine = self.flow(&opened.author, opened.incarnation) == data.flow
            && opened.author.verify(&signed, &opened.signature.octets());
        genuine.then_some(opened)
    }

    /// What is bound to the seal: everything outside but the hops and the age.
    fn about(&self, data: &Data) -> Vec<u8> {
        let manner = [u8::from(data.direct), u8::from(data.receipts)];
        let number = data.number.to_le_bytes();
        [&self.tag.0[..], &data.flow.0, &number, &manner].concat()
    }

    fn signed(&self, incarnation: u64, data: &Data, payload: &[u8]) -> Vec<u8> {
        let text = b"enishi 1 multicast message\0";
        let incarnation = incarnation.to_le_bytes();
        [&text[..], &incarnation, &self.about(data), payload].concat()
    }
}

/// Returns the place on the ring of the rendezvous of a group.
pub(super) fn rendezvous(tag: &Tag) -> Position {
    let hash = blake3::derive_key("enishi 1 multicast rendezvous", &tag.0);
    Position::of_hash(&hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(keys: &GroupKeys, author: &Keypair) -> Data {
        let mut data = Data {
            flow: keys.flow(&author.id(), 7),
            number: 3,
            hops: 0,
            age_ms: 0,
            direct: false,
            receipts: false,
            sealed: Bytes::new(),
        };
        let mut rng = Rng::from_seed([1; 32]);
        keys.seal(&mut rng, author, 7, Bytes::from_static(b"hello"), &mut data);
        data
    }

    #[test]
    fn a_message_opens_as_it_was_sealed_and_not_otherwise() {
        let keys = GroupKeys::new(GroupName([1; 32]), &Secret::new([2; 32]));
        let author = Keypair::from_seed(&[3; 32]);
        let data = sealed(&keys, &author);
        let opened = keys.open(&data).expect("it is genuine");
        assert_eq!(
            (&opened.payload[..], opened.author),
            (&b"hello"[..], author.id())
        );
        let carried = Data {
            hops: 9,
            age_ms: 9,
            ..data.clone()
        };
        assert!(
            keys.open(&carried).is_some(),
            "hops and age change on the way"
        );
        for other in [
            Data {
                number: 4,
                ..data.clone()
            },
            Data {
                flow: Flow([0; 8]),
                ..data.clone()
            },
            Data {
                direct: true,
                ..data.clone()
            },
            Data {
                receipts: true,
                ..data.clone()
            },
        ] {
            assert!(keys.open(&other).is_none());
        }
        let strangers = GroupKeys::new(GroupName([1; 32]), &Secret::new([9; 32]));
        assert!(strangers.open(&data).is_none());
        assert_ne!(strangers.tag, keys.tag);
    }

    #[test]
    fn a_member_cannot_speak_for_another() {
        let keys = GroupKeys::new(GroupName([1; 32]), &Secret::new([2; 32]));
        let (author, other) = (Keypair::from_seed(&[3; 32]), Keypair::from_seed(&[4; 32]));
        let mut forged = sealed(&keys, &author);
        let mut opened = keys.open(&forged).expect("it is genuine");
        opened.author = other.id();
        forged.flow = keys.flow(&other.id(), 7);
        let octets = postcard::to_stdvec(&opened).expect("it can be written");
        let mut rng = Rng::from_seed([2; 32]);
        forged.sealed = seal(&mut rng, &keys.message, &keys.about(&forged), &octets).into();
        assert!(keys.open(&forged).is_none());
    }

    #[test]
    fn what_is_told_one_member_means_nothing_to_another() {
        let keys = GroupKeys::new(GroupName([1; 32]), &Secret::new([2; 32]));
        let [a, b, c] = [1, 2, 3].map(|seed| Keypair::from_seed(&[seed; 32]).id());
        let sealed = keys.seal_control(&mut Rng::from_seed([1; 32]), (a, b), b"said");
        assert!(keys.open_control((a, b), &sealed).is_some());
        assert!(keys.open_control((b, a), &sealed).is_none());
        assert!(keys.open_control((a, c), &sealed).is_none());
    }
}
