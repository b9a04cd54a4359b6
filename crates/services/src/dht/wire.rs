//! The messages of the DHT.
//!
//! ```text
//!  0        1
//! +--------+--------------------------------------+
//! | version| postcard of the message or question  |
//! +--------+--------------------------------------+
//! ```
//!
//! A record travels with its age: the seconds since its owner was last heard, as far
//! as the sender knows, so that holders need no common clock to let leases end.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use enishi_overlay::ring::Arc;
use enishi_overlay::{Contact, NodeId, Position};

use super::{Consistency, REPLICAS};
use crate::record::{Key, Record};

/// The first octet; others are refused.
const VERSION: u8 = 1;
/// The most octets of records that one message carries.
pub const RECORDS_BYTES_MAX: usize = 40_000;
/// The most records in one message.
pub const RECORDS_MAX: usize = 256;
/// The most items that are wanted or listed in one message.
pub const ITEMS_MAX: usize = 512;
/// The most ranges in one comparison.
pub const RANGES_MAX: usize = 128;

/// A record and its age.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Aged {
    /// The record.
    pub record: Record,
    /// Seconds since its owner was last heard.
    pub age_s: u32,
}

/// What one node's DHT says to another's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum DhtMessage {
    /// The owner to the node in charge: store this and have it copied.
    Put {
        /// The sender's number.
        token: u64,
        /// What to store.
        record: Record,
    },
    /// The node in charge to the owner.
    PutReply {
        /// From the put.
        token: u64,
        /// What came of it.
        outcome: Outcome,
    },
    /// The node in charge, or one that is no longer a holder, to a holder: a copy.
    Store {
        /// The sender's number.
        token: u64,
        /// What to store.
        aged: Aged,
    },
    /// A holder's answer to a copy.
    StoreReply {
        /// From the copy.
        token: u64,
        /// What came of it.
        outcome: Outcome,
    },
    /// The node in charge to a holder: what do you have?
    Fetch {
        /// The sender's number.
        token: u64,
        /// Under this key.
        key: Key,
        /// What the sender has itself: a holder that has the same says [`Self::Same`].
        known: Option<Summary>,
    },
    /// A holder's answer.
    FetchReply {
        /// From the question.
        token: u64,
        /// What it has, as much as [`RECORDS_BYTES_MAX`] admits.
        records: Vec<Aged>,
    },
    /// One holder to another: this is what I have, in short.
    Compare(Compare),
    /// One holder to another: send me these.
    Want {
        /// What.
        items: Vec<Item>,
    },
    /// One holder to another: what you lack.
    Records {
        /// The records.
        records: Vec<Aged>,
    },
    /// To the node in charge of a key: which nodes are nearest to it?
    Near {
        /// The sender's number.
        token: u64,
        /// The key.
        key: Key,
    },
    /// The answer: itself and its neighbours, at most [`REPLICAS`].
    NearReply {
        /// From the question.
        token: u64,
        /// The nearest first.
        nodes: Vec<Contact>,
    },
    /// The owner to a node near the key: keep this, whoever else does; answered by
    /// `StoreReply`.
    Keep {
        /// The sender's number.
        token: u64,
        /// What to keep.
        record: Record,
    },
    /// A holder's answer: what the sender of the question has.
    Same {
        /// From the question.
        token: u64,
    },
}

/// What came of a put or a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Stored, by so many holders.
    Stored {
        /// How many.
        replicas: u32,
    },
    /// The key belongs to another owner.
    Taken,
    /// A newer version of the same owner is there.
    Stale {
        /// Its version.
        seq: u64,
    },
    /// A quota is reached.
    Full,
    /// Signatures, sizes or lease are wrong.
    Invalid,
    /// Too few holders confirmed in time.
    TooFew,
}

/// What a holder has on a stretch of the ring, in short: successive ranges, of which
/// each begins where the one before it ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compare {
    /// The stretch.
    pub arc: Arc,
    /// Its ranges.
    pub ranges: Vec<Range>,
}

/// One range of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// Where it ends.
    pub end: Position,
    /// What is there.
    pub content: RangeContent,
}

/// What a holder has on a range.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RangeContent {
    /// Both have the same; nothing to do.
    Same,
    /// So many items, and the sum of their digests modulo 2^128.
    Sum {
        /// How many.
        count: u32,
        /// The sum.
        sum: u128,
    },
    /// Every item.
    Items(Vec<Item>),
}

/// One version of one record, named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Item {
    /// The record's key.
    pub key: Key,
    /// The record's owner.
    pub owner: NodeId,
    /// The first octets of a hash of the whole record.
    pub digest: u128,
}

/// What is asked of the node in charge of a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// Which record.
    pub key: Key,
    /// How sure the asker wants to be.
    pub consistency: Consistency,
    /// What the last answer was, if the asker remembers it.
    pub known: Option<Summary>,
}

/// What the node in charge answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Found {
    /// The records, removed ones included.
    Records(Vec<Aged>),
    /// What the asker knows.
    Same,
}

/// A hash of the records under one key, their ages and the marks of removed ones left out: who
/// knows them already need not be sent them again. Of marks holders keep a bounded number, not all
/// the same; and none of them says anything of a record that both have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary([u8; 16]);

impl Summary {
    /// Sums up records as [`cut`] orders them. The work is linear in their octets.
    pub fn of(records: &[Aged]) -> Self {
        let mut hasher = blake3::Hasher::new();
        let live = records.iter().filter(|a| !a.record.content().removed);
        for aged in live {
            // A record's octets tell where it ends.
            hasher.update(&postcard::to_stdvec(&aged.record).unwrap_or_default());
        }
        let mut first = [0; 16];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(first)
    }
}

/// The octets are no message of this version, or a list in them is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a message of the DHT")]
pub struct DecodeError;

impl DhtMessage {
    /// Writes the message.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a message. The work is linear in its length.
    ///
    /// # Errors
    /// [`DecodeError`]; the message is to be dropped.
    pub fn decode(octets: &[u8]) -> Result<Self, DecodeError> {
        let message: Self = decode(octets)?;
        let bounded = match &message {
            Self::FetchReply { records, .. } | Self::Records { records } => {
                records.len() <= RECORDS_MAX
            }
            Self::Want { items } => items.len() <= ITEMS_MAX,
            Self::NearReply { nodes, .. } => nodes.len() <= REPLICAS,
            Self::Compare(compare) => compare.is_bounded(),
            Self::Put { .. }
            | Self::PutReply { .. }
            | Self::Store { .. }
            | Self::StoreReply { .. }
            | Self::Fetch { .. }
            | Self::Near { .. }
            | Self::Keep { .. }
            | Self::Same { .. } => true,
        };
        if bounded {
            Ok(message)
        } else {
            Err(DecodeError)
        }
    }
}

impl Compare {
    fn is_bounded(&self) -> bool {
        let items = |range: &Range| match &range.content {
            RangeContent::Items(items) => items.len(),
            RangeContent::Same | RangeContent::Sum { .. } => 0,
        };
        self.ranges_advance()
            && self.ranges.len() <= RANGES_MAX
            && self.ranges.iter().map(items).sum::<usize>() <= ITEMS_MAX
    }
}

impl Compare {
    /// Tells whether each range ends further on than the one before it and none beyond
    /// the stretch, so that all together cost no more than the stretch once.
    fn ranges_advance(&self) -> bool {
        let way = |end: Position| match self.arc.start.clockwise(end) {
            0 => u64::MAX,
            way => way,
        };
        let mut ways = self.ranges.iter().map(|range| way(range.end));
        ways.clone().is_sorted_by(|a, b| a < b) && ways.all(|w| w <= way(self.arc.end))
    }
}

/// Writes a message, question or answer behind the version.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![VERSION]).unwrap_or_default()
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// [`DecodeError`] on any other octets.
pub fn decode<T: DeserializeOwned>(octets: &[u8]) -> Result<T, DecodeError> {
    match octets.split_first() {
        Some((&VERSION, body)) => match postcard::take_from_bytes(body) {
            Ok((value, [])) => Ok(value),
            _ => Err(DecodeError),
        },
        _ => Err(DecodeError),
    }
}

/// Takes as many records as fit into one message.
pub fn fill(records: impl IntoIterator<Item = Aged>) -> Vec<Vec<Aged>> {
    let mut messages: Vec<Vec<Aged>> = Vec::new();
    let mut room = 0;
    for aged in records {
        let size = aged.record.size();
        if size > room || messages.last().is_none_or(|last| last.len() >= RECORDS_MAX) {
            messages.push(Vec::new());
            room = RECORDS_BYTES_MAX;
        }
        room = room.saturating_sub(size);
        if let Some(last) = messages.last_mut() {
            last.push(aged);
        }
    }
    messages
}

/// Takes what fits into one message: live records before the marks of removed ones, and each in
/// the order of their owners, so that of the same records all holders leave out the same.
pub fn cut(mut records: Vec<Aged>) -> Vec<Aged> {
    records.sort_by_key(|aged| (aged.record.content().removed, aged.record.content().owner));
    fill(records).into_iter().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use enishi_overlay::Keypair;
    use proptest::prelude::*;

    #[test]
    fn messages_round_trip_and_overlong_lists_are_refused() {
        let writer = Keypair::from_seed(&[1; 32]).id();
        let key = Key::new(crate::record::Kind::Set, &writer);
        let item = Item {
            key,
            owner: writer,
            digest: 9,
        };
        let good = DhtMessage::Want {
            items: vec![item; ITEMS_MAX],
        };
        assert_eq!(DhtMessage::decode(&good.encode()), Ok(good));
        let bad = DhtMessage::Want {
            items: vec![item; ITEMS_MAX + 1],
        };
        assert_eq!(DhtMessage::decode(&bad.encode()), Err(DecodeError));
    }

    #[test]
    fn a_summary_tells_records_apart_whatever_their_ages_and_the_marks_beside_them() {
        let record_or_mark = |seed: u8, seq, removed| {
            let (writer, owner) = (
                Keypair::from_seed(&[1; 32]),
                Keypair::from_seed(&[seed; 32]),
            );
            let content = crate::record::Content {
                kind: crate::record::Kind::Set,
                writer: writer.id(),
                owner: owner.id(),
                seq,
                since_unix_s: 0,
                lease_s: 3600,
                removed,
                value: vec![0; usize::from(!removed)].into(),
            };
            let record = Record::sign(content, &writer, &owner);
            Aged { record, age_s: 0 }
        };
        let record = |seed, seq| record_or_mark(seed, seq, false);
        let mark = record_or_mark(4, 1, true);
        let some = [record(2, 1), record(3, 1)];
        let mut older = some.clone();
        older[0].age_s = 9;
        assert_eq!(Summary::of(&some), Summary::of(&older));
        let beside = [some[0].clone(), some[1].clone(), mark];
        assert_eq!(Summary::of(&some), Summary::of(&beside));
        for other in [&[record(2, 2), record(3, 1)][..], &some[..1], &[]] {
            assert_ne!(Summary::of(&some), Summary::of(other));
        }
    }

    #[test]
    fn ranges_that_go_round_and_round_are_refused() {
        let range = |end| Range {
            end: Position::from_number(end),
            content: RangeContent::Same,
        };
        let compare = |ranges| {
            let arc = Arc {
                start: Position::from_number(10),
                end: Position::from_number(50),
            };
            DhtMessage::decode(&DhtMessage::Compare(Compare { arc, ranges }).encode())
        };
        assert!(compare(vec![range(20), range(50)]).is_ok());
        for bad in [vec![20, 20], vec![20, 15], vec![20, 60], vec![10]] {
            assert!(
                compare(bad.iter().copied().map(range).collect()).is_err(),
                "{bad:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn noise_never_panics(mut octets in proptest::collection::vec(any::<u8>(), 1..300)) {
            octets[0] = VERSION;
            let _ = DhtMessage::decode(&octets);
            let _ = decode::<Question>(&octets);
            let _ = decode::<Found>(&octets);
        }
    }
}
