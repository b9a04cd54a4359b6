//! Open names: values in the DHT that everybody may read who knows their name.
//!
//! | derived | from | for |
//! |---|---|---|
//! | writer key | the name | where the record is; everybody who knows the name may write there |
//! | seal key | the name | its value: holders do not see what they keep |
//! | owner key | the *node's* secret and the name | whose record it is: only that node changes it |
//!
//! The first node that writes a name owns it as long as its lease is renewed. A name that
//! can be guessed hides nothing: this is for what may be public.

use enishi_overlay::{Keypair, NodeId, Rng};

use crate::calls::PutRequest;
use crate::keys::{Secret, derive, derive_keypair, seal, unseal};
use crate::record::{Key, Kind, Record};

/// The longest name, in octets; the shortest has one.
pub const NAME_BYTES_MAX: usize = 1024;

/// One open name as one node uses it.
#[derive(Debug)]
pub struct OpenName {
    writer: Keypair,
    owner: Keypair,
    seal: Secret,
}

impl OpenName {
    /// Derives the keys of a name; none when it is empty or longer than
    /// [`NAME_BYTES_MAX`].
    pub fn new(name: &str, node: &Keypair) -> Option<Self> {
        let name = name.as_bytes();
        (1..=NAME_BYTES_MAX).contains(&name.len()).then(|| Self {
            writer: derive_keypair("enishi 1 open record writer", name, &[]),
            owner: derive_keypair("enishi 1 open record owner", &*node.seed(), &[name]),
            seal: derive("enishi 1 open record seal", name, &[]),
        })
    }

    /// Returns the key of the name's record.
    pub fn key(&self) -> Key {
        Key::new(Kind::Lease, &self.writer.id())
    }

    /// Returns as whom this node owns the name, if it does.
    pub fn owner(&self) -> NodeId {
        self.owner.id()
    }

    /// Makes the request that stores a value, or without one removes it.
    pub fn put_request(&self, rng: &mut Rng, lease_s: u32, value: Option<&[u8]>) -> PutRequest {
        let about = self.writer.id();
        PutRequest {
            kind: Kind::Lease,
            writer: self.writer.clone(),
            owner: self.owner.clone(),
            lease_s,
            value: value.map(|value| seal(rng, &self.seal, about.as_bytes(), value).into()),
        }
    }

    /// Opens a record's value; none when it was removed or sealed with another key.
    pub fn open(&self, record: &Record) -> Option<Vec<u8>> {
        let content = record.content();
        let about = self.writer.id();
        let sealed = (!content.removed).then_some(&content.value)?;
        unseal(&self.seal, about.as_bytes(), sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_share_the_key_but_not_the_owner() {
        let [a, b] = [1, 2].map(|seed| Keypair::from_seed(&[seed; 32]));
        let (at_a, at_b) = (
            OpenName::new("n", &a).unwrap(),
            OpenName::new("n", &b).unwrap(),
        );
        assert_eq!(at_a.key(), at_b.key());
        assert_ne!(at_a.owner(), at_b.owner());
        assert_ne!(at_a.key(), OpenName::new("m", &a).unwrap().key());
        assert!(OpenName::new("", &a).is_none());
        assert!(OpenName::new(&"n".repeat(NAME_BYTES_MAX + 1), &a).is_none());
    }
}
