//! The wire format between nodes.
//!
//! ```text
//!  0        1
//! +--------+------------------------------------------------+
//! | version| message: postcard of [`Message`]               |
//! +--------+------------------------------------------------+
//!   1 octet  variant as varint, then its fields in order;
//!            integers as varints (LEB128), ids as 32 octets,
//!            sequences and texts behind their length
//! ```
//!
//! A session's control lane carries one such frame per message, so the length is
//! known from the lane. A frame is at most [`MESSAGE_BYTES_MAX`] octets. The sender
//! is known from the session, which proves its key; no message repeats it.
//!
//! | family | messages | for |
//! |---|---|---|
//! | acquaintance | `Hello`, `Welcome`, `Leave` | becoming neighbours and links, going |
//! | liveness | `Ping`, `Pong` | is it there, how far, is its view newer |
//! | views | `ViewRequest`, `ViewUpdate` | a peer's own neighbours: the routing table |
//! | introduction | `Introduce`, `Introduced`, `Summon` | the neighbour in common, or a client's host, makes two meet |
//! | routing | `Routed`, `HopAck`, `HopNack`, `Back`, `Answer` | recursive forwarding |
//! | search | `Find`, `Found` | iterative lookups, each step by the asker itself |
//! | services | `Direct` | whatever a service says to one node |
//! | admission | `Admission` | in a closed overlay: showing that one is a member |

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::admission::Admission;
use crate::class::Grade;
use crate::contact::Contact;
use crate::coordinate::Coordinate;
use crate::id::NodeId;
use crate::ring::Position;
use crate::silence::Silences;
use crate::view::{Entry, ViewUpdate};
use crate::vitals::HopReport;

/// The first octet of every message; others are refused.
pub const WIRE_VERSION: u8 = 5;

/// The largest message, in octets.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// The most nodes in one list of an answer.
pub const NODES_MAX: usize = 64;

/// What one node says to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Message {
    /// Makes oneself known and asks to be known; answered by `Welcome`.
    Hello(Hello),
    /// Answers `Hello` with the same `nonce`.
    Welcome(Hello),
    /// Takes leave: the sender is about to be gone.
    Leave,
    /// Asks for a sign of life.
    Ping {
        /// Comes back in the answer.
        nonce: u16,
        /// The version of the sender's view that the receiver was sent last, so that it can
        /// tell when one was lost; 0 for none.
        version: u32,
    },
    /// Gives a sign of life.
    Pong {
        /// From the question.
        nonce: u16,
        /// The version of the sender's view that the receiver was sent last, of a host of
        /// clients the present one; 0 for none.
        version: u32,
        /// Whether the sender counts the receiver among its neighbours and links.
        known: bool,
        /// Where in the network the sender thinks to be, and its class and score; none when
        /// the receiver was told and it has not changed since.
        about: Option<(Coordinate, Grade)>,
    },
    /// Asks for the receiver's view.
    ViewRequest {
        /// The version that the sender has; 0 for none.
        have: u32,
    },
    /// Tells what changed in the sender's view, or all of it.
    ViewUpdate(ViewUpdate),
    /// Asks the receiver to tell `subject` that the sender is about to dial it, and the sender
    /// where to.
    Introduce {
        /// A neighbour or link of the receiver.
        subject: NodeId,
    },
    /// Tells the receiver who is about to dial it, or whom it wanted to dial, so that both dial
    /// at the same time and each opens its own NAT.
    Introduced {
        /// The other one; first where the sender sees it, if it does not say so itself.
        newcomer: Contact,
    },
    /// A message on its way to the node in charge of a position.
    Routed(Routed),
    /// Confirms that a routed message arrived at the next hop.
    HopAck {
        /// The number that the sender gave this transmission.
        hop: u32,
    },
    /// Gives a routed message back: the sender knows no way on, or declines.
    HopNack {
        /// The number that the receiver gave this transmission.
        hop: u32,
        /// Whether the sender knows a way on and does not want to be used for it.
        declined: bool,
    },
    /// What goes back to the origin of a routed message, over the sessions that it came by.
    Back {
        /// The number that the receiver gave the transmission in which the message left it.
        hop: u32,
        /// Who says it.
        by: NodeId,
        /// What.
        returned: Returned,
    },
    /// The answer of the node in charge, straight to the origin.
    Answer(Answer),
    /// Asks whom the receiver knows near a position.
    Find {
        /// Comes back in the answer.
        nonce: u32,
        /// The position.
        target: Position,
    },
    /// Answers `Find`.
    Found {
        /// From the question.
        nonce: u32,
        /// The nearest that the sender knows, itself among them, nearest first; at most
        /// [`NODES_MAX`].
        nodes: Vec<Entry>,
    },
    /// A service's message to the same service of the receiver.
    Direct {
        /// The service's number.
        service: u8,
        /// In the service's own format.
        body: Bytes,
    },
    /// Asks a client's host to tell the client that somebody is about to dial it.
    Summon {
        /// The client.
        subject: NodeId,
        /// Who is about to dial.
        newcomer: Contact,
    },
    /// What nodes of a closed overlay show each other first.
    Admission(Box<Admission>),
}

/// The body of `Hello` and `Welcome`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Comes back in the answer.
    pub nonce: u32,
    /// How the sender may be reached. Its id must be the sender's.
    pub contact: Contact,
    /// Where in the network it thinks to be.
    pub coordinate: Coordinate,
    /// Its class and score.
    pub grade: Grade,
    /// In `Hello`: the sender asks for a long link or, being a client, for a host. In
    /// `Welcome`: granted.
    pub link: bool,
    /// In `Welcome`: all of the sender's view, unless it refused a link and has no other use
    /// for the receiver. Who said hello tells its own view later, when it knows its place.
    pub view: Option<ViewUpdate>,
}

/// A message on its way to the node in charge of `target`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Routed {
    /// The origin's number for this request.
    pub request: u64,
    /// Who asks, and where the answer goes.
    pub origin: Contact,
    /// The position whose node in charge is meant.
    pub target: Position,
    /// How many hops it has made, counting the present one.
    pub hops: u8,
    /// The sender's number for this transmission, returned in `HopAck` and `Back`.
    pub hop: u32,
    /// Where the node sits, known to the receiver, for whose sake it was chosen; none when
    /// it was chosen for its own.
    pub toward: Option<Position>,
    /// Whether it goes by the distance on the ring from now on, whatever the geometry. Always
    /// false in Symphony, which has no other distance.
    pub by_ring: bool,
    /// Who did not confirm it on its way.
    pub silences: Silences,
    /// Whether the answer goes straight to the origin, not back the same way.
    pub straight: bool,
    /// Whether any of the nodes nearest to the target, as many as replicas, will do. Each of
    /// them knows who is in charge.
    pub any: bool,
    /// Whether each hop reports to the origin.
    pub trace: bool,
    /// What is asked.
    pub query: Query,
}

impl Routed {
    /// Returns how much of a frame the message takes, in octets.
    pub fn encoded_len(&self) -> usize {
        postcard::experimental::serialized_size(self).unwrap_or(0)
    }
}

/// What a routed message asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Query {
    /// Who is in charge, and who is near the target; answered by [`Reply::Nodes`].
    Nodes {
        /// How many nodes are enough.
        count: u8,
    },
    /// Who is near the target, which is the asker's own position; answered by
    /// [`Reply::Acquaintances`]: a near neighbour of the asker names itself alone, since each
    /// of the two knows what the other does.
    Place {
        /// Whether the asker knows nobody, or nobody any more, and wants to in any case.
        alone: bool,
    },
    /// Who near the target might be linked to; answered by [`Reply::Acquaintances`].
    Links {
        /// Where in the network the asker is: those nearest to it there come first. None
        /// when it wants the node in charge and nobody else.
        to: Option<Coordinate>,
    },
    /// A service's question to the same service of the node in charge.
    Service {
        /// The service's number.
        service: u8,
        /// In the service's own format.
        body: Bytes,
    },
    /// The origin is a client, and the target its position: who asks for it there is to be
    /// told. Answered by [`Reply::Acquaintances`] with nobody.
    Register {
        /// The peer that it is attached to.
        host: Contact,
    },
}

/// What goes back to the origin of a routed message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Returned {
    /// The answer.
    Answer(Answer),
    /// A traced message came by.
    Report(HopReport),
}

/// The answer to a routed message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The origin's number of the request.
    pub request: u64,
    /// How many hops the request made.
    pub hops: u8,
    /// What is answered.
    pub reply: Reply,
}

/// What is answered to a [`Query`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// The node in charge first, then its neighbours by their nearness to the
    /// target; at most [`NODES_MAX`].
    Nodes(Vec<Entry>),
    /// In the service's own format.
    Service(Bytes),
    /// Whom the asker may say hello to, the best first; at most [`NODES_MAX`].
    Acquaintances(Vec<Entry>),
}

/// Why octets are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The frame is empty or longer than [`MESSAGE_BYTES_MAX`].
    #[error("the message's size is out of range")]
    Size,
    /// The sender speaks another version.
    #[error("the message is of version {0}, this program speaks version {WIRE_VERSION}")]
    Version(u8),
    /// The octets are no message of this version.
    #[error("the message is malformed")]
    Malformed,
    /// A list in it is longer than allowed.
    #[error("a list in the message is too long")]
    TooMany,
}

impl Message {
    /// Writes the message as a frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut octets = vec![WIRE_VERSION];
        // Serialising into a growing vector fails for no value of these types.
        octets = postcard::to_extend(self, octets).unwrap_or_default();
        octets
    }

    /// Reads a frame. The work is linear in its length.
    ///
    /// # Errors
    /// See [`DecodeError`]; the frame is then to be dropped and counted.
    pub fn decode(octets: &[u8]) -> Result<Self, DecodeError> {
        if octets.len() > MESSAGE_BYTES_MAX {
            return Err(DecodeError::Size);
        }
        let (version, body) = octets.split_first().ok_or(DecodeError::Size)?;
        if *version != WIRE_VERSION {
            return Err(DecodeError::Version(*version));
        }
        let (message, rest): (Self, _) =
            postcard::take_from_bytes(body).map_err(|_| DecodeError::Malformed)?;
        if !rest.is_empty() {
            return Err(DecodeError::Malformed);
        }
        if message.lists_are_bounded() {
            Ok(message)
        } else {
            Err(DecodeError::TooMany)
        }
    }

    /// Returns the length of the frame that [`Self::encode`] would write, in octets.
    pub fn encoded_len(&self) -> usize {
        1 + postcard::experimental::serialized_size(self).unwrap_or(0)
    }

    fn lists_are_bounded(&self) -> bool {
        match self {
            Self::Hello(hello) | Self::Welcome(hello) => {
                hello.view.as_ref().is_none_or(ViewUpdate::is_bounded)
            }
            Self::ViewUpdate(update) => update.is_bounded(),
            Self::Answer(answer)
            | Self::Back {
                returned: Returned::Answer(answer),
                ..
            } => match &answer.reply {
                Reply::Nodes(nodes) | Reply::Acquaintances(nodes) => nodes.len() <= NODES_MAX,
                Reply::Service(_) => true,
            },
            Self::Routed(routed) => routed.silences.is_bounded(),
            Self::Found { nodes, .. } => nodes.len() <= NODES_MAX,
            Self::Admission(admission) => admission.is_bounded(),
            Self::Back {
                returned: Returned::Report(_),
                ..
            }
            | Self::Leave
            | Self::Ping { .. }
            | Self::Pong { .. }
            | Self::ViewRequest { .. }
            | Self::Introduce { .. }
            | Self::Introduced { .. }
            | Self::HopAck { .. }
            | Self::HopNack { .. }
            | Self::Find { .. }
            | Self::Direct { .. }
            | Self::Summon { .. } => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Keypair;
    use proptest::prelude::*;

    fn contact(seed: u8) -> Contact {
        let address = format!("192.0.2.{seed}:7000").parse().unwrap();
        Contact::new(Keypair::from_seed(&[seed; 32]).id(), [address])
    }

    fn entry(seed: u8) -> Entry {
        Entry {
            contact: contact(seed),
            role: crate::view::Role::Near,
            coordinate: Coordinate::default(),
            grade: Grade::default(),
        }
    }

    fn routed() -> Message {
        Message::Routed(Routed {
            request: 7,
            origin: contact(1),
            target: Position::from_number(99),
            hops: 3,
            hop: 12,
            toward: None,
            by_ring: false,
            silences: Silences::default(),
            straight: false,
            any: false,
            trace: true,
            query: Query::Service {
                service: 1,
                body: Bytes::from_static(b"what"),
            },
        })
    }

    #[test]
    fn every_family_round_trips_and_knows_its_length() {
        let nodes = Reply::Nodes((1..=9).map(entry).collect());
        for message in [
            routed(),
            Message::Leave,
            Message::Ping {
                nonce: 1,
                version: 2,
            },
            Message::Introduced {
                newcomer: contact(4),
            },
            Message::Answer(Answer {
                request: 1,
                hops: 2,
                reply: nodes,
            }),
        ] {
            let octets = message.encode();
            assert_eq!(octets.len(), message.encoded_len());
            assert_eq!(Message::decode(&octets), Ok(message));
        }
    }

    #[test]
    fn foreign_versions_and_trailing_octets_are_refused() {
        let mut octets = routed().encode();
        octets.push(0);
        assert_eq!(Message::decode(&octets), Err(DecodeError::Malformed));
        octets[0] = 9;
        assert_eq!(Message::decode(&octets), Err(DecodeError::Version(9)));
        assert_eq!(Message::decode(&[]), Err(DecodeError::Size));
        assert_eq!(
            Message::decode(&vec![1; MESSAGE_BYTES_MAX + 1]),
            Err(DecodeError::Size)
        );
    }

    #[test]
    fn overlong_lists_are_refused() {
        let reply = Reply::Nodes(vec![entry(1); NODES_MAX + 1]);
        let octets = Message::Answer(Answer {
            request: 1,
            hops: 2,
            reply,
        })
        .encode();
        assert_eq!(Message::decode(&octets), Err(DecodeError::TooMany));
    }

    proptest! {
        #[test]
        fn noise_never_panics(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Message::decode(&octets);
        }

        #[test]
        fn damaged_messages_never_panic(index in 0..100_usize, octet in any::<u8>()) {
            let mut octets = routed().encode();
            let index = index % octets.len();
            octets[index] = octet;
            if let Ok(message) = Message::decode(&octets) {
                let _ = message.encode();
            }
        }
    }
}
