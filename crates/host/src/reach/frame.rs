//! A packet on its way: a datagram of the session with the node that carries it.
//!
//! ```text
//! 0          1        2                             34
//! +----------+--------+-----------------------------+------------+
//! | 0x10 | k | part   | node (32)                   | packet     |
//! +----------+--------+-----------------------------+------------+
//!   part 1, 2: a half, whose packet's number follows the node:   34 number (2, little-endian) 36
//!
//! k  0  to the node, for whom it is to be carried
//!    1  from the node, for whom it was carried
//!    2  the node cannot be reached from here; no packet
//!    3  a question whether the receiver is there; no node, eight octets that come back
//!    4  the answer
//!    5  more is to be carried here for all together than there is room for; no node, nothing more
//! ```
//!
//! The first octet tells it from the packets of virtual networks, which begin with 0xc0 or more.

use bytes::{BufMut, Bytes, BytesMut};
use enishi_dataplane::reassembly::Half;
use enishi_overlay::NodeId;

const BASE: u8 = 0x10;
const NODE_BYTES: usize = 32;
const HEADER_BYTES: usize = 2 + NODE_BYTES;
const NUMBER_BYTES: usize = 2;

/// What a datagram says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// Carry this to a node.
    To(NodeId, Load),
    /// This was carried from a node.
    From(NodeId, Load),
    /// There is no way to a node here.
    NoWay(NodeId),
    /// Is the receiver there?
    Ping([u8; 8]),
    /// It is.
    Pong([u8; 8]),
    /// The sender carries as much as it can: others may have room.
    Busy,
}

/// A packet, or half of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) half: Option<(u16, Half)>,
    pub(super) octets: Bytes,
}

/// Tells whether a datagram is one of these.
pub fn is_frame(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|kind| kind & 0xf0 == BASE)
}

impl Frame {
    pub(super) fn encode(&self) -> Bytes {
        let (kind, node, load) = match self {
            Self::To(node, load) => (0, node, Some(load)),
            Self::From(node, load) => (1, node, Some(load)),
            Self::NoWay(node) => (2, node, None),
            Self::Ping(word) | Self::Pong(word) => {
                let kind = if matches!(self, Self::Ping(_)) { 3 } else { 4 };
                return Bytes::from([&[BASE | kind, 0], &word[..]].concat());
            }
            Self::Busy => return Bytes::from_static(&[BASE | 5, 0]),
        };
        let length = load.map_or(0, |load| load.octets.len());
        let mut datagram = BytesMut::with_capacity(HEADER_BYTES + NUMBER_BYTES + length);
        datagram.put_u8(BASE | kind);
        datagram.put_u8(match load.and_then(|load| load.half) {
            None => 0,
            Some((_, Half::First)) => 1,
            Some((_, Half::Second)) => 2,
        });
        datagram.put_slice(node.as_bytes());
        if let Some(load) = load {
            if let Some((number, _)) = load.half {
                datagram.put_u16_le(number);
            }
            datagram.put_slice(&load.octets);
        }
        datagram.freeze()
    }

    /// Reads a datagram; none when it makes no sense.
    pub(super) fn decode(datagram: &Bytes) -> Option<Self> {
        let (head, body) = datagram.split_first_chunk::<2>()?;
        let word = || <[u8; 8]>::try_from(body).ok();
        let node = || {
            let node = body.first_chunk::<NODE_BYTES>()?;
            Some(NodeId::from_bytes(*node))
        };
        let load = || {
            let rest = datagram.slice_ref(body.get(NODE_BYTES..)?);
            let half = match head[1] {
                0 => {
                    return Some(Load {
                        half: None,
                        octets: rest,
                    });
                }
                1 => Half::First,
                2 => Half::Second,
                _ => return None,
            };
            let number = u16::from_le_bytes(*rest.first_chunk::<NUMBER_BYTES>()?);
            let octets = rest.slice(NUMBER_BYTES..);
            Some(Load {
                half: Some((number, half)),
                octets,
            })
        };
        Some(match head[0] ^ BASE {
            0 => Self::To(node()?, load()?),
            1 => Self::From(node()?, load()?),
            2 => Self::NoWay(node()?),
            3 => Self::Ping(word()?),
            4 => Self::Pong(word()?),
            5 if body.is_empty() => Self::Busy,
            _ => return None,
        })
    }
}

impl Load {
    /// A packet as a whole.
    pub(super) fn whole(octets: Bytes) -> Self {
        Self { half: None, octets }
    }

    /// As one load, or two halves where frames have `bytes_max` octets at most.
    pub(super) fn fit(self, bytes_max: usize, number: impl FnOnce() -> u16) -> [Option<Self>; 2] {
        if self.half.is_some() || HEADER_BYTES + self.octets.len() <= bytes_max {
            return [Some(self), None];
        }
        let number = number();
        let mut first = self.octets;
        let second = first.split_off(first.len().div_ceil(2));
        let half = |half, octets| {
            Some(Self {
                half: Some((number, half)),
                octets,
            })
        };
        [half(Half::First, first), half(Half::Second, second)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_back_and_others_refused() {
        let (node, octets) = (NodeId::from_bytes([7; 32]), Bytes::from_static(b"packet"));
        let whole = Load::whole(octets.clone());
        let [first, second] = whole.clone().fit(HEADER_BYTES + 5, || 0x1234);
        assert_eq!(
            whole.clone().fit(HEADER_BYTES + 6, || 0)[0],
            Some(whole.clone())
        );
        for frame in [
            Frame::To(node, whole.clone()),
            Frame::From(node, first.unwrap()),
            Frame::From(node, second.unwrap()),
            Frame::NoWay(node),
            Frame::Ping([1; 8]),
            Frame::Pong([2; 8]),
            Frame::Busy,
        ] {
            let datagram = frame.encode();
            assert!(is_frame(&datagram));
            assert_eq!(Frame::decode(&datagram), Some(frame));
            for length in 0..datagram.len().min(HEADER_BYTES) {
                // Ten octets are a ping of which nothing lacks.
                let cut = Frame::decode(&datagram.slice(..length));
                assert!(cut.is_none(), "{length}: {cut:?}");
            }
        }
        for head in [[0x15, 0], [0x10, 3], [0x20, 0]] {
            let datagram = [&head[..], &[0; 40]].concat();
            assert_eq!(Frame::decode(&datagram.into()), None);
        }
    }
}
