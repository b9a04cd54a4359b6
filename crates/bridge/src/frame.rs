//! What a request and a reply carry.
//!
//! ```text
//!   0    1    2        6          22     26     30      34      38     39      40      42
//!   | 45 | kind | length | token 16 | seq 4 | ack 4 | least 4 | most 4 | wait | reply | count 2 |
//!   ( packet length 2 | packet ) * count   zeros   checksum 4
//! ```
//!
//! Numbers are big-endian. `length` is that of the whole frame, so that octets which a proxy
//! appends do no harm. `seq` numbers the requests of a direction from zero, and the replies of a
//! session; `ack` of a request is the number of the reply that is waited for next, that of a reply the
//! number of the request that it answers; `least` of a reply is the number of the request with packets that
//! is waited for next. What carries no packets has the number [`UNNUMBERED`], so that nothing waits for it. A request says how long its reply has to be at `least`
//! and may be at `most`, how many seconds it may `wait`, and in which dress it comes
//! ([`ReplyCoding`]). The checksum is the beginning of BLAKE3 over everything before
//! it. It finds accidents, not forgeries.
//!
//! A stream is a body of frames, one right after the other, each of at most [`PART_BYTES_MAX`] octets
//! ([`Splitter`]). `most` of what asks for one is its length at most, and `most` of its last frame is 1 when
//! the server ends it because nothing came of it.

use bytes::{BufMut, Bytes, BytesMut};

use crate::way::ReplyCoding;
use crate::{DATAGRAM_BYTES_MAX, FRAME_BYTES_MAX};

/// The first octet: this format, the first of its kind.
pub const VERSION: u8 = 0x45;

/// The number of what carries no packets.
pub const UNNUMBERED: u32 = u32::MAX;

/// Octets of a frame without packets.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + CHECKSUM_BYTES;

/// The longest frame in a stream, in octets: with much to carry several are under way.
pub const PART_BYTES_MAX: usize = 64 * 1024;

/// Octets around a packet.
pub const PACKET_OVERHEAD_BYTES: usize = 2;

/// Packets of a frame, at most: each takes tens of octets beside its own, so that a frame of tiny
/// ones would cost several times its length.
pub const PACKETS_MAX: usize = 16 * 1024;

const HEADER_BYTES: usize = 42;
const CHECKSUM_BYTES: usize = 4;

/// The name of a session: random, and known to its two ends and whoever is between them.
pub type Token = [u8; 16];

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Asks for a session.
    Open,
    /// Brings packets.
    Up,
    /// Waits for packets.
    Poll,
    /// Ends a session.
    Close,
    /// Asks only for a reply of `most` octets.
    Probe,
    /// Waits for packets, and is answered by a stream for `wait_s` seconds.
    Stream,
    /// Begins a stream of `Up`; or one of which [`Kind::Await`] is to be told.
    Pour,
    /// Asks for a stream of four frames that are sent one after the other.
    Try,
    /// Waits until something came of a stream that begins with `Pour` and has the same token.
    Await,
    /// A session was made; its name is `token`.
    Opened,
    /// Answers `Up`, and the end of `Pour`.
    Taken,
    /// Answers `Poll`; a frame of what answers `Stream`.
    Polled,
    /// Answers `Close`.
    Closed,
    /// Answers `Probe`, `Try` and `Await`.
    Probed,
    /// What came was not what was sent.
    Damaged,
    /// There is no such session.
    Unknown,
    /// There are too many sessions, or too many requests.
    Busy,
}

const KINDS: [(u8, Kind); 17] = [
    (0x01, Kind::Open),
    (0x02, Kind::Up),
    (0x03, Kind::Poll),
    (0x04, Kind::Close),
    (0x05, Kind::Probe),
    (0x06, Kind::Stream),
    (0x07, Kind::Pour),
    (0x08, Kind::Try),
    (0x09, Kind::Await),
    (0x81, Kind::Opened),
    (0x82, Kind::Taken),
    (0x83, Kind::Polled),
    (0x84, Kind::Closed),
    (0x85, Kind::Probed),
    (0x90, Kind::Damaged),
    (0x91, Kind::Unknown),
    (0x92, Kind::Busy),
];

impl Kind {
    fn code(self) -> u8 {
        let found = KINDS.iter().find(|(_, kind)| *kind == self);
        found.map_or(0, |(code, _)| *code)
    }

    fn of(code: u8) -> Option<Self> {
        let found = KINDS.iter().find(|(other, _)| *other == code);
        found.map(|(_, kind)| *kind)
    }
}

/// A request or a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// The session; zeros where there is none yet.
    pub token: Token,
    /// Its number.
    pub seq: u32,
    /// The number of what it answers.
    pub ack: u32,
    /// How many octets the reply has at least.
    pub least: u32,
    /// How many octets the reply has at most, but for those that every frame has.
    pub most: u32,
    /// How many seconds the reply may be waited for.
    pub wait_s: u8,
    /// The dress of the reply.
    pub reply: ReplyCoding,
    /// What is carried, at most [`PACKETS_MAX`], each of 1 to [`DATAGRAM_BYTES_MAX`] octets.
    pub packets: Vec<Bytes>,
}

/// Why octets are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Less than a frame.
    Short,
    /// Of another format, or of none.
    Foreign,
    /// Longer than frames are.
    Long,
    /// Altered.
    Checksum,
    /// Made by somebody who does not keep to the format.
    Malformed,
}

impl Frame {
    /// Makes a frame without packets.
    #[must_use]
    pub fn new(kind: Kind, token: Token) -> Self {
        Self {
            kind,
            token,
            seq: 0,
            ack: 0,
            least: 0,
            most: 0,
            wait_s: 0,
            reply: ReplyCoding::Raw,
            packets: Vec::new(),
        }
    }

    /// Returns the length of the frame with these packets, in octets.
    #[must_use]
    pub fn bytes(&self) -> usize {
        OVERHEAD_BYTES + self.packets.iter().map(room).sum::<usize>()
    }

    /// Encodes the frame, filled up with zeros to `least` octets, at most [`FRAME_BYTES_MAX`].
    #[must_use]
    pub fn encode(&self, least: usize) -> Bytes {
        let length = self.bytes().max(least.min(FRAME_BYTES_MAX));
        let mut out = BytesMut::with_capacity(length);
        out.put_u8(VERSION);
        out.put_u8(self.kind.code());
        out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        out.put_slice(&self.token);
        for number in [self.seq, self.ack, self.least, self.most] {
            out.put_u32(number);
        }
        out.put_u8(self.wait_s);
        out.put_u8(self.reply.code());
        out.put_u16(u16::try_from(self.packets.len()).unwrap_or(u16::MAX));
        for packet in &self.packets {
            out.put_u16(u16::try_from(packet.len()).unwrap_or(u16::MAX));
            out.put_slice(packet);
        }
        out.resize(length - CHECKSUM_BYTES, 0);
        let checksum = checksum(&out);
        out.put_slice(&checksum);
        out.freeze()
    }

    /// Decodes a frame at the beginning of `octets`; what follows it is left alone. Looks at each
    /// octet of the frame once.
    ///
    /// # Errors
    /// When there is no whole frame.
    pub fn decode(octets: &Bytes) -> Result<Self, Damage> {
        let length = declared(octets)?;
        let octets = octets.get(..length).ok_or(Damage::Short)?;
        let (body, sum) = octets.split_at(length - CHECKSUM_BYTES);
        if checksum(body) != *sum {
            return Err(Damage::Checksum);
        }
        let number =
            |at: usize| u32::from_be_bytes([body[at], body[at + 1], body[at + 2], body[at + 3]]);
        let mut token = Token::default();
        token.copy_from_slice(&body[6..22]);
        let count = usize::from(u16::from_be_bytes([body[40], body[41]]));
        Ok(Self {
            kind: Kind::of(body[1]).ok_or(Damage::Malformed)?,
            token,
            seq: number(22),
            ack: number(26),
            least: number(30),
            most: number(34),
            wait_s: body[38],
            reply: ReplyCoding::of(body[39]).ok_or(Damage::Malformed)?,
            packets: packets(&body[HEADER_BYTES..], count)?,
        })
    }
}

/// Returns the length that the beginning of a frame declares.
///
/// # Errors
/// When no frame begins so.
pub fn declared(octets: &[u8]) -> Result<usize, Damage> {
    if octets.first().is_some_and(|version| *version != VERSION) {
        return Err(Damage::Foreign);
    }
    let length = octets.get(2..6).ok_or(Damage::Short)?;
    let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]);
    let length = usize::try_from(length).map_err(|_| Damage::Long)?;
    match length {
        _ if length < OVERHEAD_BYTES => Err(Damage::Malformed),
        _ if length > FRAME_BYTES_MAX => Err(Damage::Long),
        _ => Ok(length),
    }
}

/// Returns whether a body that begins so is a stream; `None` as long as too little has come.
#[must_use]
pub fn is_stream(octets: &[u8]) -> Option<bool> {
    match *octets {
        [VERSION, kind, ..] => Some(Kind::of(kind) == Some(Kind::Pour)),
        [] | [VERSION] => None,
        [_, ..] => Some(false),
    }
}

/// Takes frames out of a stream as its octets come. Keeps less than one frame beside what is put in.
#[derive(Debug, Default)]
pub struct Splitter {
    waiting: BytesMut,
}

impl Splitter {
    /// Puts in what came.
    pub fn push(&mut self, octets: &[u8]) {
        self.waiting.extend_from_slice(octets);
    }

    /// Takes the octets of the next frame; `None` when it has not come whole.
    ///
    /// # Errors
    /// When what came is no frame of a stream: nothing can follow it.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, Damage> {
        let length = match declared(&self.waiting) {
            Err(Damage::Short) => return Ok(None),
            declared => declared?,
        };
        if length > PART_BYTES_MAX {
            return Err(Damage::Long);
        }
        let whole = self.waiting.len() >= length;
        Ok(whole.then(|| Bytes::copy_from_slice(&self.waiting.split_to(length))))
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// Returns how much of a frame a packet takes, in octets.
#[must_use]
pub fn room(packet: &Bytes) -> usize {
    packet.len() + PACKET_OVERHEAD_BYTES
}

fn packets(mut rest: &[u8], count: usize) -> Result<Vec<Bytes>, Damage> {
    if count > PACKETS_MAX {
        return Err(Damage::Malformed);
    }
    // A count that lies reserves nothing: each packet takes three octets.
    let mut packets = Vec::with_capacity(count.min(rest.len() / 3));
    for _ in 0..count {
        let (length, after) = rest.split_first_chunk::<2>().ok_or(Damage::Malformed)?;
        let length = usize::from(u16::from_be_bytes(*length));
        if !(1..=DATAGRAM_BYTES_MAX).contains(&length) || after.len() < length {
            return Err(Damage::Malformed);
        }
        let (packet, after) = after.split_at(length);
        // A copy of its own: one packet that is kept must not keep a whole frame.
        packets.push(Bytes::copy_from_slice(packet));
        rest = after;
    }
    Ok(packets)
}

fn checksum(octets: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = blake3::hash(octets);
    let hash = hash.as_bytes();
    [hash[0], hash[1], hash[2], hash[3]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_frame() -> impl Strategy<Value = Frame> {
        let packet = proptest::collection::vec(any::<u8>(), 1..200).prop_map(Bytes::from);
        let numbers = any::<(u32, u32, u32, u32, u8)>();
        let parts = (0..KINDS.len(), any::<Token>(), numbers, 0_u8..3);
        (parts, proptest::collection::vec(packet, 0..8)).prop_map(
            |((kind, token, (seq, ack, least, most, wait_s), reply), packets)| Frame {
                kind: KINDS[kind].1,
                token,
                seq,
                ack,
                least,
                most,
                wait_s,
                reply: ReplyCoding::of(reply).unwrap(),
                packets,
            },
        )
    }

    proptest! {
        #[test]
        fn a_frame_comes_back_whatever_is_appended(frame in any_frame(), least in 0_usize..3_000, tail in any::<Vec<u8>>()) {
            let mut octets = frame.encode(least).to_vec();
            prop_assert!(octets.len() >= least && octets.len() >= frame.bytes());
            octets.extend(tail);
            prop_assert_eq!(Frame::decode(&octets.into()), Ok(frame));
        }

        #[test]
        fn an_altered_octet_is_found(frame in any_frame(), at in any::<prop::sample::Index>(), flip in 1_u8..) {
            let mut octets = frame.encode(0).to_vec();
            let at = at.index(octets.len());
            octets[at] ^= flip;
            prop_assert!(Frame::decode(&octets.into()).is_err());
        }

        #[test]
        fn any_octets_are_survived(octets in any::<Vec<u8>>()) {
            let _ = Frame::decode(&octets.into());
        }

        /// What has the form of a frame reaches what is behind the checksum, whatever it counts and declares.
        #[test]
        fn a_frame_that_lies_is_survived(head in any::<[u8; 32]>(), kind in 0_u8..0x98, reply in 0_u8..4, count in 0_u16..40, extra in -3_i64..4, body in proptest::collection::vec(prop_oneof![Just(0_u8), 1_u8..6, any::<u8>()], 0..300)) {
            let octets = forged(&head, kind, reply, count, extra, &body);
            match Frame::decode(&octets) {
                Ok(frame) => {
                    prop_assert_eq!(frame.packets.len(), usize::from(count));
                    prop_assert!(frame.bytes() <= octets.len());
                    prop_assert_eq!(Frame::decode(&frame.encode(octets.len())), Ok(frame));
                }
                Err(damage) => {
                    let lies = extra != 0;
                    prop_assert!(damage == Damage::Malformed || lies && matches!(damage, Damage::Short | Damage::Checksum), "{:?}", damage);
                }
            }
            let mut splitter = Splitter::default();
            splitter.push(&octets);
            while let Ok(Some(_)) = splitter.next_frame() {}
        }
    }

    proptest! {
        #[test]
        fn a_stream_is_split_the_same_however_it_is_cut(frames in proptest::collection::vec(any_frame(), 1..6), pieces in proptest::collection::vec(1_usize..700, 1..50)) {
            let stream: Vec<u8> = frames.iter().flat_map(|frame| frame.encode(0)).collect();
            let (mut splitter, mut split, mut rest) = (Splitter::default(), Vec::new(), &stream[..]);
            let mut pieces = pieces.into_iter().cycle();
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(pieces.next().unwrap().min(rest.len()));
                rest = after;
                splitter.push(piece);
                while let Some(octets) = splitter.next_frame().unwrap() {
                    split.push(Frame::decode(&octets).unwrap());
                }
            }
            prop_assert_eq!(split, frames);
            prop_assert!(splitter.is_empty());
        }

        #[test]
        fn a_splitter_survives_any_octets(octets in any::<Vec<u8>>()) {
            let mut splitter = Splitter::default();
            splitter.push(&octets);
            while let Ok(Some(_)) = splitter.next_frame() {}
        }
    }

    /// Makes a frame by hand: `extra` is by how much its declared length is wrong.
    fn forged(head: &[u8], kind: u8, reply: u8, count: u16, extra: i64, body: &[u8]) -> Bytes {
        let length = OVERHEAD_BYTES + body.len();
        let mut out = BytesMut::new();
        out.put_slice(&[VERSION, kind]);
        let declared = i64::try_from(length).unwrap() + extra;
        out.put_u32(u32::try_from(declared).unwrap());
        out.put_slice(head);
        out.put_slice(&[0, reply]);
        out.put_u16(count);
        out.put_slice(body);
        let sum = checksum(&out);
        out.put_slice(&sum);
        out.freeze()
    }

    #[test]
    fn a_count_that_lies_is_refused() {
        let body = [0, 1, b'x', 0, 1, b'y'];
        let decode = |count, body| Frame::decode(&forged(&[0; 32], 2, 0, count, 0, body));
        assert_eq!(decode(2, &body).unwrap().packets.len(), 2);
        for (count, body) in [(3, &body[..]), (u16::MAX, &body), (2, &body[..5])] {
            assert_eq!(decode(count, body), Err(Damage::Malformed));
        }
    }

    #[test]
    fn a_stream_has_no_long_frames() {
        let mut frame = Frame::new(Kind::Up, [0; 16]).encode(PART_BYTES_MAX + 1);
        let mut splitter = Splitter::default();
        splitter.push(&frame.split_to(100));
        assert_eq!(splitter.next_frame(), Err(Damage::Long));
        assert_eq!(is_stream(&[VERSION, 0x07]), Some(true));
        assert_eq!(is_stream(&[VERSION, 0x02]), Some(false));
        assert_eq!(is_stream(b"<html>"), Some(false));
        assert_eq!((is_stream(b""), is_stream(&[VERSION])), (None, None));
    }

    #[test]
    fn what_is_cut_or_too_long_is_told() {
        let octets = Frame::new(Kind::Poll, [7; 16]).encode(100);
        assert_eq!(Frame::decode(&octets.slice(..99)), Err(Damage::Short));
        assert_eq!(
            Frame::decode(&Bytes::from_static(b"<html>")),
            Err(Damage::Foreign)
        );
        let mut long = octets.to_vec();
        long[2] = 1;
        assert_eq!(Frame::decode(&long.into()), Err(Damage::Long));
    }

    #[test]
    fn a_packet_that_is_too_long_or_empty_is_refused() {
        for length in [0, DATAGRAM_BYTES_MAX + 1] {
            let mut frame = Frame::new(Kind::Up, [0; 16]);
            frame.packets.push(vec![0; length].into());
            assert_eq!(Frame::decode(&frame.encode(0)), Err(Damage::Malformed));
        }
    }

    #[test]
    fn a_frame_has_no_more_packets_than_may_be() {
        for (more, fits) in [(0, true), (1, false)] {
            let mut frame = Frame::new(Kind::Up, [0; 16]);
            frame.packets = vec![Bytes::from_static(b"x"); PACKETS_MAX + more];
            assert_eq!(Frame::decode(&frame.encode(0)).is_ok(), fits);
        }
    }
}
