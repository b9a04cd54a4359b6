//! The messages of a link, and how they follow each other in a stream. They come from strangers. Depends on
//! nothing else of this crate, so that its fuzz target need not build that.

use std::io;

use bytes::{Bytes, BytesMut};
use enishi_services::keys::SEAL_BYTES;

/// The longest message, in octets: a packet and what is around it.
pub(super) const MESSAGE_BYTES_MAX: usize = 2_048;

/// What an opener says first.
const GREETING: &[u8] = b"enishi/1";

const NAME_BYTES: usize = 32 + 64;

/// The longest message before a link is open, in octets.
const PROOF_BYTES: usize = 1 + 32 + NAME_BYTES + SEAL_BYTES;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Hello,
    Nonce([u8; 32]),
    Proof { key: [u8; 32], sealed: Bytes },
    Welcome(Bytes),
    Packet(Bytes),
    Ping,
    Pong,
}

impl Message {
    pub(super) fn encode(&self) -> Bytes {
        let parts: (u8, &[u8], &[u8]) = match self {
            Self::Hello => (0, GREETING, &[]),
            Self::Nonce(nonce) => (1, nonce, &[]),
            Self::Proof { key, sealed } => (2, key, sealed),
            Self::Welcome(sealed) => (3, sealed, &[]),
            Self::Packet(packet) => (4, packet, &[]),
            Self::Ping => (5, &[], &[]),
            Self::Pong => (6, &[], &[]),
        };
        Bytes::from([&[parts.0], parts.1, parts.2].concat())
    }

    /// Reads a message; none when it makes no sense.
    pub(super) fn decode(message: &Bytes) -> Option<Self> {
        let kind = *message.first()?;
        let body = message.slice(1..);
        Some(match kind {
            0 if body == GREETING => Self::Hello,
            1 => Self::Nonce(<[u8; 32]>::try_from(&body[..]).ok()?),
            2 if message.len() == PROOF_BYTES => Self::Proof {
                key: *body.first_chunk()?,
                sealed: body.slice(32..),
            },
            3 if body.len() == SEAL_BYTES => Self::Welcome(body),
            4 => Self::Packet(body),
            5 if body.is_empty() => Self::Ping,
            6 if body.is_empty() => Self::Pong,
            _ => return None,
        })
    }
}

/// Takes the next message off what was read; none when it has not come as a whole.
///
/// # Errors
/// When its length cannot be.
pub(super) fn next(octets: &mut BytesMut) -> io::Result<Option<Bytes>> {
    let Some(length) = octets.first_chunk::<2>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_le_bytes(*length));
    if length == 0 || length > MESSAGE_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    if octets.len() < 2 + length {
        return Ok(None);
    }
    let mut message = octets.split_to(2 + length).freeze();
    Ok(Some(message.split_off(2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_back_and_noise_is_refused() {
        let sealed = |length| Bytes::from(vec![9; length]);
        for message in [
            Message::Hello,
            Message::Nonce([1; 32]),
            Message::Proof {
                key: [2; 32],
                sealed: sealed(NAME_BYTES + SEAL_BYTES),
            },
            Message::Welcome(sealed(SEAL_BYTES)),
            Message::Packet(Bytes::from_static(b"packet")),
            Message::Ping,
            Message::Pong,
        ] {
            let octets = message.encode();
            assert_eq!(Message::decode(&octets), Some(message.clone()));
            if !matches!(message, Message::Packet(_)) {
                let longer = Bytes::from([&octets[..], &[0]].concat());
                assert_eq!(Message::decode(&longer), None);
                assert_eq!(Message::decode(&octets.slice(..octets.len() - 1)), None);
            }
        }
        assert_eq!(Message::decode(&Bytes::from_static(&[7])), None);
    }
}
