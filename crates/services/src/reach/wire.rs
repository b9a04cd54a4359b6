//! What nodes tell each other about how they are reached.
//!
//! ```text
//!  0        1        2
//! +--------+--------+---------------------+
//! | version| kind   | postcard of the body|
//! +--------+--------+---------------------+
//!
//! kind  0  seen        SocketAddr: family (0 IPv4, 1 IPv6), 4 or 16 octets, port (varint)
//!       1  call        the id of whom it is for, contacts
//!       2  answer      perhaps a contact, contacts
//!       3  stun        port (varint)
//!       4  where       the id of a node
//!       5  sees        the id of a node, IpAddr: family (0 IPv4, 1 IPv6), 4 or 16 octets
//!       6  punch       number (varint), SocketAddr, how ports are given (0 kept, 1 steps and
//!                      their length as a zigzag varint, 2 random)
//!       7  meet        the same
//!       8  could       the id of a node
//!       9  offer       the id of a node, perhaps a round trip (µs, varint) and a load (percent)
//!      10  relay       the id of a node, token (varint; 0 for a new one)
//!      11  grant       the id of a node, token (varint), key (32 octets), port and seconds (varints)
//!      12  sees too    the id of a node, IpAddr, IpAddr
//!      13  shows       IpAddr, ticket (varint)
//!      14  show        nothing
//!      15  later       number (varint)
//! ```
//!
//! All of it is of bounded size: contacts have eight addresses at most, and there are
//! [`RELAYS_MAX`] of them.

use std::net::{IpAddr, SocketAddr};

use enishi_overlay::{Contact, NodeId};
use serde::{Deserialize, Serialize};

use super::call::RELAYS_MAX;
use super::punch::Offer;
use super::relay::{Grant, Standing};
use crate::keys::Secret;

/// The first octet; others are refused.
const VERSION: u8 = 1;

/// What one node's service says to another's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReachMessage {
    /// The sender sees the receiver at this address, as the other end of their session.
    Seen(SocketAddr),
    /// The sender wants to speak with a node and does not reach it.
    Call {
        /// The node.
        to: NodeId,
        /// Who may carry to the sender; at most [`RELAYS_MAX`].
        relays: Vec<Contact>,
    },
    /// Answers a call.
    Answer(Answer),
    /// The sender answers STUN's questions at this port of the address at which it is seen.
    Stun(u16),
    /// The sender wants to know where the receiver sees a node.
    Where(NodeId),
    /// The sender's session with a node goes to the first address; that node has shown that its packets
    /// come out at the second one too, if there is one. Who says both says the first alone after it: who
    /// does not know this kind hears that, others have heard more.
    Sees(NodeId, IpAddr, Option<IpAddr>),
    /// The sender wants to open translations together with the receiver, by this number; this is
    /// how its packets come out.
    Punch(u64, Offer),
    /// Answers a wish of this number.
    Meet(u64, Offer),
    /// Answers a wish of this number: the sender has no time for it now, or nothing to offer.
    Later(u64),
    /// The sender wants to know whether the receiver could relay packets between it and a node.
    Could(NodeId),
    /// How well the sender could; none when it does not.
    Offer(NodeId, Option<Standing>),
    /// The sender wants packets relayed between it and a node, or longer by this token.
    Relay(NodeId, u64),
    /// The sender relays packets between the receiver and a node.
    Grant(NodeId, Grant),
    /// This ticket of the receiver's came to the sender at an address (`enishi_stun::Tickets`).
    Shows(IpAddr, u64),
    /// The sender is asked where it sees the receiver, and would like to be shown where that is by
    /// another version of IP.
    Show,
}

/// How a node that was called is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The node itself; none when another one answers.
    pub contact: Option<Contact>,
    /// Who may carry to it; at most [`RELAYS_MAX`], none when it is not there.
    pub relays: Vec<Contact>,
}

impl ReachMessage {
    /// Writes the message.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, body) = match self {
            Self::Seen(address) => (0, postcard::to_stdvec(address)),
            Self::Call { to, relays } => (1, postcard::to_stdvec(&(to, relays))),
            Self::Answer(answer) => (2, postcard::to_stdvec(answer)),
            Self::Stun(port) => (3, postcard::to_stdvec(port)),
            Self::Where(of) => (4, postcard::to_stdvec(of)),
            Self::Sees(of, at, None) => (5, postcard::to_stdvec(&(of, at))),
            Self::Sees(of, at, Some(too)) => (12, postcard::to_stdvec(&(of, at, too))),
            Self::Punch(number, offer) => (6, postcard::to_stdvec(&(number, offer))),
            Self::Meet(number, offer) => (7, postcard::to_stdvec(&(number, offer))),
            Self::Could(with) => (8, postcard::to_stdvec(with)),
            Self::Offer(with, standing) => (9, postcard::to_stdvec(&(with, standing))),
            Self::Relay(with, token) => (10, postcard::to_stdvec(&(with, token))),
            Self::Grant(with, grant) => {
                let Grant {
                    token,
                    key,
                    port,
                    lasts_s,
                } = grant;
                let key: &[u8; 32] = key;
                (11, postcard::to_stdvec(&(with, token, key, port, lasts_s)))
            }
            Self::Shows(at, ticket) => (13, postcard::to_stdvec(&(at, ticket))),
            Self::Show => (14, Ok(Vec::new())),
            Self::Later(number) => (15, postcard::to_stdvec(number)),
        };
        // Serialising into a growing vector fails for no value of these types.
        let body = body.unwrap_or_default();
        [&[VERSION, kind][..], &body].concat()
    }

    /// Reads a message; none when the octets are no message of this version.
    pub fn decode(octets: &[u8]) -> Option<Self> {
        let (&[VERSION, kind], body) = octets.split_first_chunk()? else {
            return None;
        };
        let (message, rest) = match kind {
            0 => {
                let (address, rest) = postcard::take_from_bytes(body).ok()?;
                (Self::Seen(address), rest)
            }
            1 => {
                let ((to, relays), rest) = postcard::take_from_bytes(body).ok()?;
                (Self::Call { to, relays }, rest)
            }
            2 => {
                let (answer, rest) = postcard::take_from_bytes(body).ok()?;
                (Self::Answer(answer), rest)
            }
            3 => {
                let (port, rest) = postcard::take_from_bytes(body).ok()?;
                (Self::Stun(port), rest)
            }
            4 => {
                let (of, rest) = postcard::take_from_bytes(body).ok()?;
                (Self::Where(of), rest)
            }
            5 => {
                let ((of, at), rest) = postcard::take_from_bytes(body).ok()?;
                (Self::Sees(of, at, None), rest)
            }
            6 => {
                let ((number, offer), rest) = postcard::take_from_bytes(body).ok()?;
                (Self::Punch(number, offer), rest)
            }
            7 => {
                let ((number, offer), rest) = postcard::take_from_bytes(body).ok()?;
                (Self::Meet(number, offer), rest)
            }
            8 => {
                let (with, rest) = postcard::take_from_bytes(body).ok()?;
                (Self::Could(with), rest)
            }
            9 => {
                let ((with, standing), rest) = postcard::take_from_bytes(body).ok()?;
                (Self::Offer(with, standing), rest)
            }
            10 => {
                let ((with, token), rest) = postcard::take_from_bytes(body).ok()?;
                (Self::Relay(with, token), rest)
            }
            11 => {
                let ((with, token, key, port, lasts_s), rest) =
                    postcard::take_from_bytes(body).ok()?;
                let grant = Grant {
                    token,
                    key: Secret::new(key),
                    port,
                    lasts_s,
                };
                (Self::Grant(with, grant), rest)
            }
            12 => {
                let ((of, at, too), rest) = postcard::take_from_bytes(body).ok()?;
                (Self::Sees(of, at, Some(too)), rest)
            }
            13 => {
                let ((at, ticket), rest) = postcard::take_from_bytes(body).ok()?;
                (Self::Shows(at, ticket), rest)
            }
            14 => (Self::Show, body),
            15 => {
                let (number, rest) = postcard::take_from_bytes(body).ok()?;
                (Self::Later(number), rest)
            }
            _ => return None,
        };
        let relays = match &message {
            Self::Call { relays, .. } | Self::Answer(Answer { relays, .. }) => relays.len(),
            Self::Seen(_)
            | Self::Stun(_)
            | Self::Where(_)
            | Self::Sees(..)
            | Self::Punch(..)
            | Self::Meet(..)
            | Self::Could(_)
            | Self::Offer(..)
            | Self::Relay(..)
            | Self::Grant(..)
            | Self::Shows(..)
            | Self::Show
            | Self::Later(_) => 0,
        };
        (rest.is_empty() && relays <= RELAYS_MAX).then_some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_come_back_as_they_were() {
        for text in ["192.0.2.1:7000", "[2001:db8::1]:65535"] {
            let message = ReachMessage::Seen(text.parse().unwrap());
            let mut octets = message.encode();
            assert!(octets.len() <= 22);
            assert_eq!(ReachMessage::decode(&octets), Some(message));
            octets.push(0);
            assert_eq!(ReachMessage::decode(&octets), None, "something behind it");
        }
    }

    #[test]
    fn what_is_said_of_packets_comes_back() {
        use super::super::punch::Ports;
        let (id, at) = (
            NodeId::from_bytes([9; 32]),
            "192.0.2.1:7000".parse::<SocketAddr>(),
        );
        let at = at.unwrap();
        let mut messages = vec![
            ReachMessage::Stun(65_535),
            ReachMessage::Where(id),
            ReachMessage::Sees(id, at.ip(), None),
            ReachMessage::Sees(id, "2001:db8::1".parse().unwrap(), Some(at.ip())),
            ReachMessage::Shows(at.ip(), u64::MAX),
            ReachMessage::Show,
            ReachMessage::Later(u64::MAX),
        ];
        for ports in [Ports::Kept, Ports::Steps(-3), Ports::Random, Ports::Unknown] {
            messages.push(ReachMessage::Punch(u64::MAX, Offer { at, ports }));
            messages.push(ReachMessage::Meet(1, Offer { at, ports }));
        }
        messages.push(ReachMessage::Could(id));
        let standing = Standing {
            round_trip_us: 20_000,
            load: 50,
        };
        messages.extend([None, Some(standing)].map(|all| ReachMessage::Offer(id, all)));
        messages.push(ReachMessage::Relay(id, u64::MAX));
        let grant = Grant {
            token: u64::MAX,
            key: Secret::new([3; 32]),
            port: 7001,
            lasts_s: 240,
        };
        messages.push(ReachMessage::Grant(id, grant));
        for message in messages {
            let octets = message.encode();
            assert!(octets.len() <= 81);
            assert_eq!(ReachMessage::decode(&octets), Some(message));
        }
    }

    #[test]
    fn calls_and_answers_come_back_and_too_many_who_carry_are_refused() {
        let contact = |number: u8| {
            let at = ([192, 0, 2, number], 7000).into();
            Contact::new(NodeId::from_bytes([number; 32]), [at])
        };
        let some = |count: usize| (1..=count as u8).map(contact).collect::<Vec<_>>();
        let to = NodeId::from_bytes([9; 32]);
        for (count, is_taken) in [(0, true), (RELAYS_MAX, true), (RELAYS_MAX + 1, false)] {
            for message in [
                ReachMessage::Call {
                    to,
                    relays: some(count),
                },
                ReachMessage::Answer(Answer {
                    contact: (count > 0).then(|| contact(1)),
                    relays: some(count),
                }),
            ] {
                let read = ReachMessage::decode(&message.encode());
                assert_eq!(read, is_taken.then_some(message));
            }
        }
    }

    proptest! {
        #[test]
        fn noise_never_panics(octets in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = ReachMessage::decode(&octets);
            for kind in 0..=16 {
                let _ = ReachMessage::decode(&[&[VERSION, kind][..], &octets].concat());
            }
        }
    }
}
