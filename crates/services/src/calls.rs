//! What services ask of the DHT through the kernel, and what they are answered. It stands
//! apart from the DHT because no service names another.

use bytes::Bytes;
use enishi_overlay::{Keypair, NodeId, Position};
use serde::{Deserialize, Serialize};

use crate::record::{Key, Kind, Record};

/// How sure a reader wants to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Consistency {
    /// The first holder's word; [`Self::Sure`] when it has nothing.
    Any,
    /// The newest that a majority of the holders knows; [`Self::Sure`] when they have nothing.
    Majority,
    /// The newest that any of several nodes has, found over paths that have no node in
    /// common and asked directly: for keys near which hostile nodes may sit. Costs some
    /// fifty messages.
    Sure,
    /// The first holder's word, also that there is nothing: quick and cheap, for what may
    /// be missed.
    Hasty,
}

/// What is to be confirmed over several paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subject {
    /// Which node is in charge of a place.
    Place(Position),
    /// That a node is where its key puts it.
    Node(NodeId),
    /// What is stored under a key.
    Key(Key),
}

/// What came of a confirmation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Verdict {
    /// It is there, and most paths or holders agree on it.
    Confirmed,
    /// It is there, but most disagree.
    Disputed,
    /// It was not found.
    Unknown,
}

/// What several paths, which have no node in common, found out.
#[derive(Clone, Debug, Serialize)]
pub struct Confirmation {
    /// What follows.
    pub verdict: Verdict,
    /// How many paths led anywhere.
    pub paths: u32,
    /// How many of them ended at the node in question, or at one that shows the record.
    pub agreeing: u32,
    /// How many nodes were asked for the way.
    pub asked: u32,
    /// The nodes nearest to the place that proved to be there, nearest first; at most as
    /// many as replicas.
    pub nearest: Vec<NodeId>,
    /// How many nodes show the same newest record.
    pub holders: u32,
    /// What is stored there.
    pub records: Vec<Record>,
    /// Whether nodes sit much closer to the place, or further from it, than elsewhere.
    pub unusual: bool,
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
