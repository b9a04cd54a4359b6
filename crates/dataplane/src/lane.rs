//! IP packets as datagrams of a session.
//!
//! Every datagram begins with a tag, a number that the receiver chose for one of
//! its channels. What follows is told by the four bits after it, where every IP
//! packet has its version (numbers are big-endian):
//!
//! ```text
//!   whole packet, 4 octets more than the packet
//!   0               4
//!  +---------------+---- - - -
//!  |      tag      | IP packet; its first four bits are 4 or 6
//!  +---------------+---- - - -
//!
//!   first or second part of a packet, 7 octets more than the part
//!   0               4       5               7
//!  +---------------+-------+---------------+---- - - -
//!  |      tag      |1 or 2 |      id       | part of the packet, not empty
//!  +---------------+-------+---------------+---- - - -
//! ```
//!
//! In octet 4 of a part, 0x10 stands for the first and 0x20 for the second; other
//! values are refused and left for later use. A packet is split when it does not
//! fit in one datagram, into two halves, so that both still pass when the largest
//! datagram becomes a little smaller on the way. Both carry the same id, which the
//! sender counts up. The session gives authenticity and secrecy; loss of either
//! half is loss of the packet. [`crate::Reassembly`] puts the halves together.

use bytes::{BufMut, Bytes, BytesMut};

/// Octets before a whole packet.
pub const WHOLE_OVERHEAD_BYTES: usize = 4;

/// Octets before a part of a packet.
pub const PART_OVERHEAD_BYTES: usize = 7;

/// The longest part that is sent or accepted, in octets.
pub const PART_BYTES_MAX: usize = 4096;

const FIRST: u8 = 0x10;
const SECOND: u8 = 0x20;

/// Why octets are not a frame, or a packet cannot be sent as frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaneError {
    /// The datagram ends before its content begins.
    #[error("the datagram is cut short")]
    Truncated,
    /// The four bits after the tag are none of 1, 2, 4 and 6.
    #[error("unknown kind of frame")]
    Kind,
    /// A part is longer than [`PART_BYTES_MAX`].
    #[error("the part is too long")]
    PartTooLong,
    /// The packet is not an IP packet.
    #[error("neither IPv4 nor IPv6")]
    NotIp,
    /// The packet does not fit in two datagrams.
    #[error("the packet does not fit in two datagrams of this path")]
    TooLong,
}

/// Which part of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// The first half.
    First,
    /// The second half.
    Second,
}

/// What a datagram carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A packet that begins with an IP version; nothing else of it was checked.
    Whole(Bytes),
    /// A half of a packet.
    Part {
        /// The sender's number for the packet; it repeats after 65,536 split packets.
        id: u16,
        /// Which half.
        half: Half,
        /// 1 to [`PART_BYTES_MAX`] octets.
        bytes: Bytes,
    },
}

/// A decoded datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The receiver's number for a channel.
    pub tag: u32,
    /// What is in it.
    pub content: Content,
}

impl Frame {
    /// Decodes a datagram, without copying its content.
    ///
    /// # Errors
    /// [`LaneError::Truncated`], [`LaneError::Kind`] or [`LaneError::PartTooLong`].
    pub fn decode(datagram: &Bytes) -> Result<Self, LaneError> {
        let (tag, content) = datagram.split_first_chunk().ok_or(LaneError::Truncated)?;
        let tag = u32::from_be_bytes(*tag);
        let kind = *content.first().ok_or(LaneError::Truncated)?;
        if is_ip(kind) {
            let content = Content::Whole(datagram.slice(WHOLE_OVERHEAD_BYTES..));
            return Ok(Self { tag, content });
        }
        let half = match kind {
            FIRST => Half::First,
            SECOND => Half::Second,
            _ => return Err(LaneError::Kind),
        };
        let [_, high, low, _, ..] = *content else {
            return Err(LaneError::Truncated);
        };
        let content = Content::Part {
            id: u16::from_be_bytes([high, low]),
            half,
            bytes: datagram.slice(PART_OVERHEAD_BYTES..),
        };
        if datagram.len() - PART_OVERHEAD_BYTES > PART_BYTES_MAX {
            return Err(LaneError::PartTooLong);
        }
        Ok(Self { tag, content })
    }
}

/// The datagrams of one packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Datagrams {
    /// It fits in one.
    One(Bytes),
    /// The first and the second half.
    Two(Bytes, Bytes),
}

/// Returns the longest packet that passes in at most two datagrams of `datagram_bytes_max`.
pub const fn packet_bytes_max(datagram_bytes_max: usize) -> usize {
    let whole = datagram_bytes_max.saturating_sub(WHOLE_OVERHEAD_BYTES);
    let part = datagram_bytes_max.saturating_sub(PART_OVERHEAD_BYTES);
    let halves = 2 * if part < PART_BYTES_MAX {
        part
    } else {
        PART_BYTES_MAX
    };
    if whole > halves { whole } else { halves }
}

/// Turns the packets for one peer into datagrams; keeps the last id used.
#[derive(Clone, Debug, Default)]
pub struct Splitter {
    id: u16,
}

impl Splitter {
    /// Frames a packet for the channel that the receiver calls `tag`, in datagrams of
    /// at most `datagram_bytes_max` octets.
    ///
    /// # Errors
    /// [`LaneError::NotIp`], or [`LaneError::TooLong`] when the packet is longer than
    /// [`packet_bytes_max`].
    pub fn encode(
        &mut self,
        tag: u32,
        packet: &[u8],
        datagram_bytes_max: usize,
    ) -> Result<Datagrams, LaneError> {
        if !packet.first().is_some_and(|first| is_ip(*first)) {
            return Err(LaneError::NotIp);
        }
        if packet.len() + WHOLE_OVERHEAD_BYTES <= datagram_bytes_max {
            return Ok(Datagrams::One(datagram(tag, &[], packet)));
        }
        if packet.len() > packet_bytes_max(datagram_bytes_max) {
            return Err(LaneError::TooLong);
        }
        self.id = self.id.wrapping_add(1);
        let [high, low] = self.id.to_be_bytes();
        let (first, second) = packet.split_at(packet.len().div_ceil(2));
        Ok(Datagrams::Two(
            datagram(tag, &[FIRST, high, low], first),
            datagram(tag, &[SECOND, high, low], second),
        ))
    }
}

fn datagram(tag: u32, part_header: &[u8], content: &[u8]) -> Bytes {
    let bytes = WHOLE_OVERHEAD_BYTES + part_header.len() + content.len();
    let mut datagram = BytesMut::with_capacity(bytes);
    datagram.put_u32(tag);
    datagram.put_slice(part_header);
    datagram.put_slice(content);
    datagram.freeze()
}

/// Tells whether a packet's first octet has an IP version.
fn is_ip(first: u8) -> bool {
    matches!(first >> 4, 4 | 6)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_layout_is_as_drawn() {
        let mut splitter = Splitter::default();
        let Datagrams::One(one) = splitter.encode(0x0102_0304, &[0x45, 9], 6).unwrap() else {
            panic!("fits in one");
        };
        assert_eq!(&one[..], [1, 2, 3, 4, 0x45, 9]);
        let packet = [0x60, 2, 3, 4, 5, 6, 7, 8];
        let Datagrams::Two(first, second) = splitter.encode(7, &packet, 11).unwrap() else {
            panic!("8 + 4 octets do not fit in one datagram of 11");
        };
        assert_eq!(&first[..], [0, 0, 0, 7, 0x10, 0, 1, 0x60, 2, 3, 4]);
        assert_eq!(&second[..], [0, 0, 0, 7, 0x20, 0, 1, 5, 6, 7, 8]);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let decode = |bytes: &[u8]| Frame::decode(&Bytes::copy_from_slice(bytes)).unwrap_err();
        assert_eq!(decode(&[]), LaneError::Truncated);
        assert_eq!(decode(&[0; 4]), LaneError::Truncated);
        assert_eq!(decode(&[0; 5]), LaneError::Kind);
        assert_eq!(decode(&[0, 0, 0, 0, 0x11, 0, 0, 1]), LaneError::Kind);
        assert_eq!(decode(&[0, 0, 0, 0, FIRST, 0, 0]), LaneError::Truncated);
        let mut long = vec![0; PART_OVERHEAD_BYTES + PART_BYTES_MAX + 1];
        long[4] = SECOND;
        assert_eq!(decode(&long), LaneError::PartTooLong);
        let mut splitter = Splitter::default();
        assert_eq!(splitter.encode(0, &[], 1200), Err(LaneError::NotIp));
        assert_eq!(splitter.encode(0, &[0x15; 40], 1200), Err(LaneError::NotIp));
        assert_eq!(
            splitter.encode(0, &[0x45; 1387], 700),
            Err(LaneError::TooLong)
        );
        assert!(splitter.encode(0, &[0x45; 1386], 700).is_ok());
        assert_eq!(splitter.encode(0, &[0x45; 40], 3), Err(LaneError::TooLong));
    }

    proptest! {
        #[test]
        fn any_octets_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..40), kind: u8) {
            let mut bytes = bytes;
            if let Some(place) = bytes.get_mut(4) {
                *place = kind & 0xf0;
            }
            let _ = Frame::decode(&Bytes::from(bytes));
        }

        #[test]
        fn frames_never_exceed_the_datagram_and_decode(
            tag: u32,
            length in 1_usize..10_000,
            datagram_bytes_max in 0_usize..9_000,
        ) {
            let packet = vec![0x45; length];
            let encoded = Splitter::default().encode(tag, &packet, datagram_bytes_max);
            let fits = length <= packet_bytes_max(datagram_bytes_max);
            prop_assert_eq!(encoded.is_ok(), fits);
            let datagrams = match encoded {
                Ok(Datagrams::One(one)) => vec![one],
                Ok(Datagrams::Two(first, second)) => vec![first, second],
                Err(_) => vec![],
            };
            for datagram in datagrams {
                prop_assert!(datagram.len() <= datagram_bytes_max);
                prop_assert_eq!(Frame::decode(&datagram).map(|frame| frame.tag), Ok(tag));
            }
        }
    }
}
