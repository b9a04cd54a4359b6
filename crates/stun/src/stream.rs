//! TURN over TCP between client and server (RFC 8656, sections 2.1 and 12.5): messages one after the other
//! in a stream, each told by its own length.
//!
//! ```text
//! |0 0| STUN: type   |  length  | cookie ...   20 octets, and so many more
//! |0 1| channel      |  length  | data ...      4 octets, and so many more, padded to 32 bits
//! ```

use stun_types::message::{MAGIC_COOKIE, MessageHeader};
use thiserror::Error;
use turn_types::message::{DATA, SEND};

use crate::server::DATAGRAM_BYTES_MAX;

/// The longest message in a stream, in octets: a full datagram with all that is said of it.
pub const MESSAGE_BYTES_MAX: usize = DATAGRAM_BYTES_MAX + 256;

/// Octets before the data of a channel.
const CHANNEL_HEADER_BYTES: usize = 4;

/// To how many octets the data of a channel is padded.
const CHANNEL_PADDING: usize = 4;

/// What is in a stream is neither STUN nor data of a channel, or too long. The stream is to be closed: where
/// the next message begins cannot be told.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the other end of the stream does not speak TURN")]
pub struct NotTurn;

/// Finds messages in what comes of a stream. Keeps what was pushed until it was taken: whoever takes all
/// that is whole before pushing more has at most [`MESSAGE_BYTES_MAX`] octets in it, and what was
/// pushed last.
#[derive(Debug, Default)]
pub struct Stream {
    octets: Vec<u8>,
    /// How many of them were taken: they go when there are more, at once for all messages.
    taken: usize,
}

impl Stream {
    /// Adds what came.
    pub fn push(&mut self, octets: &[u8]) {
        self.octets.drain(..self.taken);
        self.taken = 0;
        self.octets.extend_from_slice(octets);
    }

    /// Takes the next message, as it would be in a datagram; none when it is not whole yet.
    ///
    /// # Errors
    /// When there is none, and will be none.
    pub fn message(&mut self) -> Result<Option<Vec<u8>>, NotTurn> {
        let octets = self.octets.get(self.taken..).unwrap_or_default();
        let Some(first) = octets.first_chunk::<CHANNEL_HEADER_BYTES>() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([first[2], first[3]]));
        let (whole, padded) = match first[0] >> 6 {
            0 => {
                let cookie = octets.get(4..8);
                let is_wrong = cookie.is_some_and(|cookie| *cookie != MAGIC_COOKIE.to_be_bytes());
                if is_wrong || !length.is_multiple_of(4) {
                    return Err(NotTurn);
                }
                let whole = MessageHeader::LENGTH + length;
                (whole, whole)
            }
            1 => {
                let whole = CHANNEL_HEADER_BYTES + length;
                (whole, whole.next_multiple_of(CHANNEL_PADDING))
            }
            _ => return Err(NotTurn),
        };
        if whole > MESSAGE_BYTES_MAX {
            return Err(NotTurn);
        }
        if octets.len() < padded {
            return Ok(None);
        }
        let message = octets[..whole].to_vec();
        self.taken += padded;
        Ok(Some(message))
    }
}

/// Tells whether a message carries data: on a channel, or in a Send or Data indication (RFC 8656, section
/// 18). In a stream that is full such a message may be dropped, as a datagram would be; any other is
/// said once, and nobody would repeat it (RFC 8489, section 6.2.2).
pub fn is_data(message: &[u8]) -> bool {
    const INDICATION: u16 = 0x10;
    let kind = message.first_chunk().map(|kind| u16::from_be_bytes(*kind));
    kind.is_some_and(|kind| {
        kind >> 14 == 1 || kind == INDICATION | SEND.value() || kind == INDICATION | DATA.value()
    })
}

/// Makes of a message what is to be written into a stream.
pub fn in_stream(mut message: Vec<u8>) -> Vec<u8> {
    if message.first().is_some_and(|first| first >> 6 == 1) {
        message.resize(message.len().next_multiple_of(CHANNEL_PADDING), 0);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::question;
    use proptest::prelude::*;

    /// Reads a stream in pieces.
    fn read(octets: &[u8], pieces: usize) -> Result<Vec<Vec<u8>>, NotTurn> {
        let (mut stream, mut messages) = (Stream::default(), Vec::new());
        for piece in octets.chunks(pieces) {
            stream.push(piece);
            while let Some(message) = stream.message()? {
                messages.push(message);
            }
            assert!(stream.octets.len() - stream.taken <= MESSAGE_BYTES_MAX + pieces);
        }
        Ok(messages)
    }

    fn channel_data(length: u16) -> Vec<u8> {
        let mut message = vec![0x40, 1];
        message.extend(length.to_be_bytes());
        message.resize(CHANNEL_HEADER_BYTES + usize::from(length), 7);
        message
    }

    #[test]
    fn messages_are_found_however_they_are_cut() {
        let messages = [
            question().1,
            channel_data(0),
            channel_data(5),
            channel_data(8),
            question().1,
        ];
        let stream: Vec<u8> = messages.iter().cloned().flat_map(in_stream).collect();
        assert_eq!(stream.len(), 28 + 4 + 12 + 12 + 28);
        for pieces in 1..=stream.len() {
            assert_eq!(read(&stream, pieces).unwrap(), messages);
        }
    }

    #[test]
    fn what_was_taken_is_not_kept_when_more_comes() {
        let many = channel_data(0).repeat(10_000);
        let mut stream = Stream::default();
        for _ in 0..3 {
            stream.push(&many);
            assert_eq!(stream.octets.len(), many.len());
            let messages = std::iter::from_fn(|| stream.message().unwrap());
            assert_eq!(messages.count(), 10_000);
        }
        stream.push(&[]);
        assert!(stream.octets.is_empty());
    }

    #[test]
    fn data_are_told_from_what_is_said_once() {
        let head = |kind: u16| kind.to_be_bytes().to_vec();
        assert!(is_data(&channel_data(3)) && is_data(&channel_data(0)));
        // RFC 8656, section 17: Send and Data are indications only.
        assert!(is_data(&head(0x0016)) && is_data(&head(0x0017)));
        // Binding, Allocate, Refresh, and the answers to Refresh.
        for kind in [0x0001, 0x0003, 0x0004, 0x0104, 0x0114] {
            assert!(!is_data(&head(kind)), "{kind:#06x}");
        }
        assert!(!is_data(&question().1) && !is_data(&[]) && !is_data(&[0x40]));
    }

    #[test]
    fn what_is_not_turn_or_too_long_ends_the_stream() {
        for octets in [&b"GET / HTTP/1.1\r\n"[..], &[0x80, 0, 0, 0], &[22, 3, 1, 2]] {
            assert_eq!(read(octets, 100), Err(NotTurn), "{octets:?}");
        }
        let mut question = question().1;
        question[5] ^= 1;
        assert_eq!(read(&question, 100), Err(NotTurn));
        let most = u16::try_from(MESSAGE_BYTES_MAX - CHANNEL_HEADER_BYTES).unwrap();
        assert_eq!(read(&channel_data(most), 9_999).map(|all| all.len()), Ok(1));
        assert_eq!(read(&channel_data(most + 1), 9_999), Err(NotTurn));
    }

    proptest! {
        #[test]
        fn noise_is_bounded(
            octets in proptest::collection::vec(any::<u8>(), 0..2_000),
            pieces in 1_usize..50,
        ) {
            if let Ok(messages) = read(&octets, pieces) {
                let sum: usize = messages.iter().map(Vec::len).sum();
                prop_assert!(sum <= octets.len());
            }
        }
    }
}
