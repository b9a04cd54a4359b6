//! Kademlia's wire format: the four messages that finding nodes needs.
//!
//! ```text
//!  0        1
//! +--------+------------------------------------------------+
//! | version| message: postcard of [`Message`]               |
//! +--------+------------------------------------------------+
//! ```
//!
//! The same octets for the same things as in our own format: contacts carry 32 octets of
//! id and one address. Who sends is not repeated, though on plain UDP it would have to be:
//! BEP 5 puts the id into each message. Numbers of requests have 16 bits, as in BEP 5.

use enishi_overlay::{Contact, Position};
use serde::{Deserialize, Serialize};

/// The first octet of every message; others are refused.
pub const WIRE_VERSION: u8 = 1;

/// The most contacts in an answer.
pub const CONTACTS_MAX: usize = 64;

/// The largest message, in octets: an answer of [`CONTACTS_MAX`] contacts.
pub const MESSAGE_BYTES_MAX: usize = 8 * 1024;

/// What one node says to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Message {
    /// Asks for a sign of life.
    Ping {
        /// Comes back in the answer.
        request: u16,
    },
    /// Gives a sign of life.
    Pong {
        /// From the question.
        request: u16,
    },
    /// Asks for the nodes closest to a position.
    FindNode {
        /// Comes back in the answer.
        request: u16,
        /// Close to what.
        target: Position,
    },
    /// Names the closest nodes that the sender knows, without itself and the asker.
    Nodes {
        /// From the question.
        request: u16,
        /// Closest first, at most [`CONTACTS_MAX`].
        contacts: Vec<Contact>,
    },
}

/// Why octets are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The frame is empty or longer than [`MESSAGE_BYTES_MAX`].
    Size,
    /// The sender speaks another version.
    Version(u8),
    /// The octets are no message of this version.
    Malformed,
    /// A list in it is longer than allowed.
    TooMany,
}

impl Message {
    /// Writes the message as a frame.
    pub fn encode(&self) -> Vec<u8> {
        // Serialising into a growing vector fails for no value of these types.
        postcard::to_extend(self, vec![WIRE_VERSION]).unwrap_or_default()
    }

    /// Reads a frame. The work is linear in its length.
    ///
    /// # Errors
    /// See [`DecodeError`]; the frame is then to be dropped.
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
        match &message {
            Self::Nodes { contacts, .. } if contacts.len() > CONTACTS_MAX => {
                Err(DecodeError::TooMany)
            }
            Self::Nodes { .. } | Self::Ping { .. } | Self::Pong { .. } | Self::FindNode { .. } => {
                Ok(message)
            }
        }
    }

    /// Returns the length of the frame that [`Self::encode`] would write, in octets.
    pub fn encoded_len(&self) -> usize {
        1 + postcard::experimental::serialized_size(self).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use enishi_overlay::NodeId;

    #[test]
    fn messages_round_trip_know_their_length_and_refuse_what_is_not_one() {
        let contact = Contact::new(
            NodeId::from_bytes([7; 32]),
            ["[2001:db8::1]:7000".parse().unwrap()],
        );
        let nodes = |count| Message::Nodes {
            request: 9,
            contacts: vec![contact.clone(); count],
        };
        let target = Position::from_number(u64::MAX / 3);
        for message in [
            Message::Ping { request: 1 },
            Message::Pong { request: u16::MAX },
            Message::FindNode { request: 2, target },
            nodes(20),
        ] {
            let octets = message.encode();
            assert_eq!(octets.len(), message.encoded_len());
            assert_eq!(Message::decode(&octets), Ok(message));
            let longer = [octets, vec![0]].concat();
            assert_eq!(Message::decode(&longer), Err(DecodeError::Malformed));
        }
        let many = nodes(CONTACTS_MAX + 1).encode();
        assert_eq!(Message::decode(&many), Err(DecodeError::TooMany));
        assert_eq!(Message::decode(&[2]), Err(DecodeError::Version(2)));
        assert_eq!(Message::decode(&[]), Err(DecodeError::Size));
        assert!(nodes(CONTACTS_MAX).encoded_len() <= MESSAGE_BYTES_MAX);
    }
}
