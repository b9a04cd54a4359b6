//! What nodes tell each other about how they are reached.
//!
//! ```text
//!  0        1        2
//! +--------+--------+---------------------+
//! | version| kind   | postcard of the body|
//! +--------+--------+---------------------+
//!
//! kind  0  seen        SocketAddr: family (0 IPv4, 1 IPv6), 4 or 16 octets, port (varint)
//! ```
//!
//! All of it is of bounded size: at most 22 octets.

use std::net::SocketAddr;

/// The first octet; others are refused.
const VERSION: u8 = 1;

/// What one node's service says to another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReachMessage {
    /// The sender sees the receiver at this address, as the other end of their session.
    Seen(SocketAddr),
}

impl ReachMessage {
    /// Writes the message.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, body) = match self {
            Self::Seen(address) => (0, postcard::to_stdvec(address)),
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
            _ => return None,
        };
        rest.is_empty().then_some(message)
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

    proptest! {
        #[test]
        fn noise_never_panics(octets in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = ReachMessage::decode(&octets);
            let _ = ReachMessage::decode(&[&[VERSION, 0][..], &octets].concat());
        }
    }
}
