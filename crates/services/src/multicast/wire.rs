//! What nodes say to each other about a group.
//!
//! ```text
//!  0        1                 17
//! +--------+-----------------+------------------------------------------+
//! | version| tag             | body: postcard of [`Body`]               |
//! +--------+-----------------+------------------------------------------+
//!
//! data, after its variant:
//! +--------+----------+------+-----+--------+----------+---------------------------+
//! | flow   | number   | hops | age | direct | receipts | sealed, behind its length |
//! +--------+----------+------+-----+--------+----------+---------------------------+
//!   8        1–10       1      1–5   1        1          XChaCha20-Poly1305 of:
//!                                                        author 32 | incarnation
//!                                                        | payload | signature 64
//! ```
//!
//! | body | says |
//! |---|---|
//! | `Data` | a message on its way |
//! | `Prune` | I have this author's messages from somebody else: keep them |
//! | `Graft` | send me this author's messages, and these numbers again |
//! | `Digest` | up to these numbers I have everything, and nothing came for so long |
//! | `Receipt` | so many below me have it, of so many |
//! | `Link` | sealed: whether the sender wants the receiver for a neighbour |
//! | `Exchange` | sealed: other members |
//! | `Join`, `Joined`, `Leave` | Scribe: to the next node on the way to the rendezvous |

use std::time::Duration;

use bytes::Bytes;
use enishi_overlay::{Contact, Coordinate};
use serde::{Deserialize, Serialize};

use super::PAYLOAD_BYTES_MAX;
use crate::keys::SEAL_BYTES;

/// The first octet; others are refused.
const VERSION: u8 = 2;
/// What is under a message's seal beside the payload, in octets: author, incarnation, the
/// payload's length, signature.
const INSIDE_BYTES: usize = 32 + 10 + 3 + 64;
/// The longest sealed message, in octets.
pub const SEALED_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + SEAL_BYTES + INSIDE_BYTES;
/// The most authors in one digest or graft.
pub const FLOWS_TOLD_MAX: usize = 64;
/// The most numbers that are asked for again at once, of one author.
pub const NUMBERS_ASKED_MAX: usize = 32;
/// The most members in one exchange.
pub const MEMBERS_TOLD_MAX: usize = 16;

/// The name of a group among those who carry its messages: 16 octets that look random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tag(pub [u8; 16]);

/// What one author says in one of its lives: 8 octets that look random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Flow(pub [u8; 8]);

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// Of which author.
    pub flow: Flow,
    /// The author's number for it, from 1.
    pub number: u64,
    /// How many hops it has made, counting the present one.
    pub hops: u8,
    /// How long ago it was said, in milliseconds, without the time that it was under way.
    pub age_ms: u32,
    /// Whether the author sends it to every member itself.
    pub direct: bool,
    /// Whether receipts are to be sent back.
    pub receipts: bool,
    /// What it says.
    pub sealed: Bytes,
}

/// Up to which number somebody has everything of an author.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Have {
    /// Of which author.
    pub flow: Flow,
    /// The last number before the first missing.
    pub up_to: u64,
    /// For how long nothing of this author has come, in milliseconds: what it said is at least
    /// as old.
    pub silent_ms: u32,
}

/// What is asked for of an author.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// Of which author.
    pub flow: Flow,
    /// Which numbers again; at most [`NUMBERS_ASKED_MAX`].
    pub numbers: Vec<u64>,
}

/// What one node says to another about a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Body {
    /// A message on its way.
    Data(Data),
    /// The receiver need not send what this author says.
    Prune {
        /// Of which author.
        flow: Flow,
    },
    /// The receiver is to send what these authors say, and some of it again.
    Graft {
        /// What; at most [`FLOWS_TOLD_MAX`].
        wanted: Vec<Want>,
    },
    /// What the sender has.
    Digest {
        /// Of which authors; at most [`FLOWS_TOLD_MAX`].
        has: Vec<Have>,
    },
    /// How many have a message, of those that the sender answers for. Several add up.
    Receipt {
        /// Of which author.
        flow: Flow,
        /// Which.
        number: u64,
        /// How many have it.
        received: i32,
        /// How many should.
        expected: i32,
    },
    /// A sealed [`LinkSaid`].
    Link(Bytes),
    /// A sealed [`ExchangeSaid`].
    Exchange(Bytes),
    /// Scribe: the sender wants to have the group's messages by way of the receiver.
    Join,
    /// Scribe: answers `Join`.
    Joined,
    /// Scribe: the sender does not want them any more.
    Leave,
}

/// What a member says of its link with another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkSaid {
    /// What.
    pub wish: Wish,
    /// Who says it.
    pub me: Told,
}

/// What a member wants of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wish {
    /// To have it; answered by `Granted` or `Refused`.
    Wanted,
    /// It is there.
    Granted,
    /// The sender has links enough, or knows of none.
    Refused,
    /// It is not needed by the sender any more.
    Released,
    /// The sender leaves the group.
    Leaving,
}

/// What a member says of others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExchangeSaid {
    /// Whether it answers an exchange, and wants no answer.
    pub answer: bool,
    /// The sender first, then others; at most [`MEMBERS_TOLD_MAX`].
    pub members: Vec<Told>,
}

/// A member as others are told of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// How it may be reached.
    pub contact: Contact,
    /// Where in the network it says to be.
    pub coordinate: Coordinate,
    /// The seconds since somebody heard from it.
    pub age_s: u16,
}

impl Body {
    /// Writes what is said about a group.
    pub fn encode(&self, tag: Tag) -> Vec<u8> {
        postcard::to_extend(&(tag, self), vec![VERSION]).unwrap_or_default()
    }

    /// Reads what is said about which group; none when the octets are nothing of this
    /// version, or something in it is too long.
    pub fn decode(octets: &[u8]) -> Option<(Tag, Self)> {
        let (&VERSION, rest) = octets.split_first()? else {
            return None;
        };
        let (tag, body): (Tag, Self) = whole(rest)?;
        body.is_bounded().then_some((tag, body))
    }

    fn is_bounded(&self) -> bool {
        match self {
            Self::Data(data) => data.sealed.len() <= SEALED_BYTES_MAX && data.number > 0,
            Self::Graft { wanted } => {
                let short = |want: &Want| want.numbers.len() <= NUMBERS_ASKED_MAX;
                wanted.len() <= FLOWS_TOLD_MAX && wanted.iter().all(short)
            }
            Self::Digest { has } => has.len() <= FLOWS_TOLD_MAX,
            Self::Prune { .. }
            | Self::Receipt { .. }
            | Self::Link(_)
            | Self::Exchange(_)
            | Self::Join
            | Self::Joined
            | Self::Leave => true,
        }
    }
}

/// Returns a time in milliseconds, as messages carry it.
pub(super) fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

/// Reads a value that takes up all octets.
pub(super) fn whole<'a, T: Deserialize<'a>>(octets: &'a [u8]) -> Option<T> {
    let (value, rest) = postcard::take_from_bytes(octets).ok()?;
    rest.is_empty().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TAG: Tag = Tag([5; 16]);
    const FLOW: Flow = Flow([7; 8]);

    fn data(bytes: usize) -> Body {
        Body::Data(Data {
            flow: FLOW,
            number: 1 << 40,
            hops: 3,
            age_ms: 60_000,
            direct: true,
            receipts: false,
            sealed: vec![1; bytes].into(),
        })
    }

    #[test]
    fn messages_come_back_as_they_were() {
        let want = Want {
            flow: FLOW,
            numbers: vec![1, 2, 9],
        };
        let has = vec![Have {
            flow: FLOW,
            up_to: 9,
            silent_ms: 300,
        }];
        for body in [
            data(SEALED_BYTES_MAX),
            Body::Prune { flow: FLOW },
            Body::Graft { wanted: vec![want] },
            Body::Digest { has },
            Body::Receipt {
                flow: FLOW,
                number: 9,
                received: 57,
                expected: -1,
            },
            Body::Link(Bytes::from_static(b"sealed")),
            Body::Exchange(Bytes::from_static(b"sealed")),
            Body::Join,
            Body::Joined,
            Body::Leave,
        ] {
            let mut octets = body.encode(TAG);
            assert_eq!(Body::decode(&octets), Some((TAG, body)));
            octets.push(0);
            assert_eq!(Body::decode(&octets), None, "something behind it");
        }
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let have = Have {
            flow: FLOW,
            up_to: 1,
            silent_ms: 0,
        };
        let want = |numbers| Want {
            flow: FLOW,
            numbers: vec![1; numbers],
        };
        for body in [
            data(SEALED_BYTES_MAX + 1),
            Body::Digest {
                has: vec![have; FLOWS_TOLD_MAX + 1],
            },
            Body::Graft {
                wanted: vec![want(NUMBERS_ASKED_MAX + 1)],
            },
            Body::Graft {
                wanted: vec![want(1); FLOWS_TOLD_MAX + 1],
            },
        ] {
            assert_eq!(Body::decode(&body.encode(TAG)), None);
        }
    }

    proptest! {
        #[test]
        fn noise_never_panics(octets in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = Body::decode(&octets);
            let kind = [octets.len() as u8 % 10];
            let _ = Body::decode(&[&[VERSION][..], &TAG.0, &kind, &octets].concat());
        }
    }
}
