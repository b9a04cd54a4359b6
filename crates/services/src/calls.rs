//! What services ask of the DHT through the kernel, and what they are answered. It stands
//! apart from the DHT because no service names another.

use bytes::Bytes;
use enishi_overlay::Keypair;
use serde::{Deserialize, Serialize};

use crate::record::{Kind, Record};

/// How sure a reader wants to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Consistency {
    /// The first holder's word.
    Any,
    /// The newest that a majority of the holders knows.
    Majority,
}

/// A record to write.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PutRequest {
    /// What sort of record.
    pub kind: Kind,
    /// The key pair that all who may write there share.
    #[serde(with = "crate::recording::keypair")]
    pub writer: Keypair,
    /// The key pair of the owner.
    #[serde(with = "crate::recording::keypair")]
    pub owner: Keypair,
    /// The lease in seconds, within [`crate::record::LEASE_S`].
    pub lease_s: u32,
    /// The sealed value; none removes the record.
    pub value: Option<Bytes>,
}

/// What came of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum PutAnswer {
    /// A majority of the holders has it.
    Stored {
        /// The version.
        seq: u64,
        /// How many holders acknowledged.
        replicas: u32,
    },
    /// The key belongs to another owner.
    Taken,
    /// The holders have no room for more from this node.
    Full,
    /// Too few holders answered.
    Failed,
}

/// What came of a get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum GetAnswer {
    /// The records under the key, at most one for [`Kind::Lease`]; empty when there is
    /// none. Their signatures are checked.
    Records(Vec<Record>),
    /// Nobody answered.
    Failed,
}
