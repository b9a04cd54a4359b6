//! The messages of the diagnostics.
//!
//! ```text
//!  0        1        2                         10
//! +--------+--------+-------------------------+---------------------+
//! | version| kind   | nonce (little endian)   | postcard of the body|
//! +--------+--------+-------------------------+---------------------+
//!
//! kind  0  echo request         no body
//!       1  echo response        EchoDetail or none
//!       2  find me              no body
//!       3  found                Found
//! ```
//!
//! All of it is of bounded size. A node that declines to be traced answers an echo
//! request without a detail, and `find me` not at all.

use std::net::SocketAddr;

use enishi_overlay::{NodeId, Vitals};
use serde::{Deserialize, Serialize};

/// The first octet; others are refused.
const VERSION: u8 = 1;

/// What one node's diagnostics say to another's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum DiagMessage {
    /// Asks for a sign of life from the node itself.
    EchoRequest,
    /// Answers it with the same nonce; without a detail from a node that declines.
    EchoResponse(Option<EchoDetail>),
    /// Asks the receiver, a stranger, who is in charge of the sender's own position.
    FindMe,
    /// Answers it with the same nonce.
    Found(Found),
}

/// What a node says of itself, and of the asker, with an echo response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EchoDetail {
    /// How the node is.
    pub vitals: Vitals,
    /// The seconds since 1970 by its clock.
    pub unix_s: u64,
    /// Where it sees the asker; none when their path is not from address to address.
    pub seen_at: Option<SocketAddr>,
}

/// Whom a stranger found at the asker's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The node that answered there; none when nobody did.
    pub in_charge: Option<NodeId>,
    /// How many hops the stranger's question made.
    pub hops: u8,
}

impl DiagMessage {
    /// Writes the message.
    pub fn encode(&self, nonce: u64) -> Vec<u8> {
        let (kind, body) = match self {
            Self::EchoRequest => (0, Ok(vec![])),
            Self::EchoResponse(detail) => (1, postcard::to_stdvec(detail)),
            Self::FindMe => (2, Ok(vec![])),
            Self::Found(found) => (3, postcard::to_stdvec(found)),
        };
        // Serialising into a growing vector fails for no value of these types.
        let body = body.unwrap_or_default();
        [&[VERSION, kind][..], &nonce.to_le_bytes(), &body].concat()
    }

    /// Reads a message and its nonce; none when the octets are no message of this
    /// version.
    pub fn decode(octets: &[u8]) -> Option<(u64, Self)> {
        let (&[VERSION, kind], rest) = octets.split_first_chunk()? else {
            return None;
        };
        let (nonce, body) = rest.split_first_chunk()?;
        let message = match kind {
            0 if body.is_empty() => Self::EchoRequest,
            1 => Self::EchoResponse(whole(body)?),
            2 if body.is_empty() => Self::FindMe,
            3 => Self::Found(whole(body)?),
            _ => return None,
        };
        Some((u64::from_le_bytes(*nonce), message))
    }
}

/// Reads a value that takes up all octets.
fn whole<'a, T: Deserialize<'a>>(octets: &'a [u8]) -> Option<T> {
    let (value, rest) = postcard::take_from_bytes(octets).ok()?;
    rest.is_empty().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use enishi_overlay::Software;
    use enishi_overlay::class::Grade;
    use proptest::prelude::*;

    #[test]
    fn messages_come_back_as_they_were() {
        let detail = EchoDetail {
            vitals: Vitals {
                software: Software::THIS,
                load_per_mille: 1500,
                grade: Grade::CLIENT,
            },
            unix_s: 1 << 40,
            seen_at: "[2001:db8::1]:7000".parse().ok(),
        };
        let found = Found {
            in_charge: Some(NodeId::from_bytes([7; 32])),
            hops: 3,
        };
        for message in [
            DiagMessage::EchoRequest,
            DiagMessage::EchoResponse(None),
            DiagMessage::EchoResponse(Some(detail)),
            DiagMessage::FindMe,
            DiagMessage::Found(found),
        ] {
            let mut octets = message.encode(99);
            assert_eq!(DiagMessage::decode(&octets), Some((99, message)));
            octets.push(0);
            assert_eq!(DiagMessage::decode(&octets), None, "something behind it");
        }
    }

    proptest! {
        #[test]
        fn noise_never_panics(octets in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = DiagMessage::decode(&octets);
            let _ = DiagMessage::decode(&[&[VERSION, octets.len() as u8 % 4][..], &octets].concat());
        }
    }
}
