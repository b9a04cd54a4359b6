//! What services ask of the DHT and of multicast through the kernel, and what they are
//! answered. It stands apart from both because no service names another.

use std::str::FromStr;

use bytes::Bytes;
use enishi_overlay::{Keypair, NodeId, Position};
use serde::{Deserialize, Serialize};

use crate::keys::Secret;
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

/// The name of a multicast group; with its secret it makes the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GroupName(pub [u8; 32]);

/// Along what a group's messages go. All members must choose the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tree {
    /// Links among the members, most of them to near ones; straight to each in small groups.
    #[default]
    Biased,
    /// The union of the members' routes on the ring to the rendezvous; who is on the way
    /// forwards without being a member.
    Scribe,
}

impl FromStr for Tree {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "biased" => Ok(Self::Biased),
            "scribe" => Ok(Self::Scribe),
            _ => Err("there are biased and scribe".to_owned()),
        }
    }
}

/// In which order a member is given what others say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// As it comes.
    #[default]
    None,
    /// What one author says in the order in which it said it. What is late holds up what
    /// comes after it, for some seconds at most.
    PerSender,
}

/// A multicast group and how one takes part in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GroupSpec {
    /// Its name.
    pub name: GroupName,
    /// Its secret: whoever has it is a member.
    #[serde(with = "crate::recording::secret")]
    pub secret: Secret,
    /// Along what its messages go.
    pub tree: Tree,
    /// In which order they are given.
    pub order: Order,
}

/// What a member of a group said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Heard {
    /// In which group.
    pub group: GroupName,
    /// Who; proven by its signature.
    pub author: NodeId,
    /// What.
    pub payload: Bytes,
}

/// How many members have got a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Receipts {
    /// In which group.
    pub group: GroupName,
    /// The author's number of the message.
    pub number: u64,
    /// How many others should have got it, as far as known.
    pub expected: u32,
    /// How many said that they did.
    pub received: u32,
}
