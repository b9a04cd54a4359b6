//! How to reach a node: its id and the addresses at which it was seen.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use crate::id::NodeId;

/// The most addresses that one contact carries; further ones are dropped.
pub const ADDRESSES_MAX: usize = 8;

/// A node and the addresses at which it may be dialled, best first.
///
/// Cheap to clone: tables and messages share one allocation. Addresses are hints
/// that anyone may have written; only a session, which proves the key, is proof.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Parts")]
pub struct Contact(Arc<Parts>);

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Parts {
    id: NodeId,
    addresses: Vec<SocketAddr>,
}

impl Contact {
    /// Makes a contact; addresses past [`ADDRESSES_MAX`] are dropped.
    pub fn new(id: NodeId, addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        let addresses = addresses.into_iter().take(ADDRESSES_MAX).collect();
        Self(Arc::new(Parts { id, addresses }))
    }

    /// Returns who the node is.
    pub fn id(&self) -> NodeId {
        self.0.id
    }

    /// Returns where it may be dialled, at most [`ADDRESSES_MAX`] addresses.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.0.addresses
    }
}

impl From<Parts> for Contact {
    fn from(mut parts: Parts) -> Self {
        parts.addresses.truncate(ADDRESSES_MAX);
        Self(Arc::new(parts))
    }
}

impl Serialize for Contact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl fmt::Debug for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{:?}", self.0.id, self.0.addresses)
    }
}
