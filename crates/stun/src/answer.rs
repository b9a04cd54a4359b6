//! Answers to STUN Binding requests (RFC 8489): "from which address do you see me?"
//!
//! ```text
//!  0                   1                   2                   3
//! |0 0|  type             |  length of what follows the header   |
//! |                 magic cookie 0x2112a442                      |
//! |                 transaction id, 96 bits                      |
//! | attributes: type 16, length 16, value, padding to 32 bits    |
//! ```
//!
//! The first two bits are zero (section 5), so that a STUN message is told by its first octet
//! from the sealed datagrams that share a socket with it. The answer has the source of the
//! request in XOR-MAPPED-ADDRESS (section 14.2), which routers that rewrite addresses in
//! payloads do not recognise.
//!
//! No request is authenticated here (section 6.3.1 leaves that to the usage), and none changes
//! anything: who asks with a forged source has the answer sent to another. So an answer has
//! no more than [`ANSWER_MULTIPLE_MAX`] times the octets of its request, and each source has a
//! rate.

use std::net::SocketAddr;

use enishi_overlay::Time;
use stun_types::attribute::{Attribute as _, AttributeStaticType as _, AttributeType};
use stun_types::attribute::{
    ErrorCode, Fingerprint, MessageIntegrity, MessageIntegritySha256, Nonce, PasswordAlgorithm,
    Realm, UnknownAttributes, Userhash, Username, XorMappedAddress,
};
use stun_types::message::{
    BINDING, MAGIC_COOKIE, Message, MessageClass, MessageHeader, MessageWrite, MessageWriteExt,
    MessageWriteVec,
};

use crate::budget::{Rate, Throttle};

/// An answer has at most so many times the octets of its request: the longest in proportion says
/// of a request with one attribute that the attribute is unknown.
pub const ANSWER_MULTIPLE_MAX: usize = 3;

/// The longest request that is answered, in octets. STUN over UDP should fit any path
/// (RFC 8489, section 6.1); nobody has reason to ask at greater length.
const REQUEST_BYTES_MAX: usize = 1280;

/// How often one source is answered, in messages. A client retransmits seven times with growing
/// pauses (section 6.2.1); many clients can be behind one address.
const EACH: Rate = Rate {
    per_s: 20,
    burst: 60,
};

/// How often all are answered together, in messages: some 100 kB/s.
const ALL: Rate = Rate {
    per_s: 2_000,
    burst: 4_000,
};

/// The most sources that are known at a time.
const SOURCES_MAX: usize = 4_096;

/// The attributes of RFC 8489 that demand to be understood. They ask for nothing of who
/// answers without authentication.
const UNDERSTOOD: [AttributeType; 8] = [
    Fingerprint::TYPE,
    MessageIntegrity::TYPE,
    MessageIntegritySha256::TYPE,
    Nonce::TYPE,
    PasswordAlgorithm::TYPE,
    Realm::TYPE,
    Userhash::TYPE,
    Username::TYPE,
];

/// Answers Binding requests.
#[derive(Clone, Debug)]
pub struct Answerer {
    throttle: Throttle,
    answered: Answered,
}

/// What became of the datagrams that an [`Answerer`] was given. All are numbers of messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// Told where they came from.
    pub successes: u64,
    /// Told that an attribute is unknown.
    pub errors: u64,
    /// Not answered because their source asks too often, or all do.
    pub throttled: u64,
    /// Not answered because they are no Binding requests.
    pub ignored: u64,
}

impl Default for Answerer {
    fn default() -> Self {
        Self::new()
    }
}

impl Answerer {
    /// Makes one that knows no source yet.
    pub fn new() -> Self {
        Self {
            throttle: Throttle::new(EACH, ALL, SOURCES_MAX),
            answered: Answered::default(),
        }
    }

    /// Returns what to send back to the source, if anything. Takes time in proportion to the
    /// octets.
    pub fn answer(&mut self, now: Time, source: SocketAddr, datagram: &[u8]) -> Option<Vec<u8>> {
        let Some(request) = binding_request(datagram) else {
            self.answered.ignored += 1;
            return None;
        };
        if !self.throttle.take(source.ip(), now) {
            self.answered.throttled += 1;
            return None;
        }
        let unknown = unknown(&request);
        let answer = if unknown.is_empty() {
            self.answered.successes += 1;
            success(&request, source)
        } else {
            self.answered.errors += 1;
            refusal(&request, &unknown)
        };
        let Some(answer) = answer else {
            unreachable!("an answer that is not written yet takes each attribute once");
        };
        debug_assert!(answer.len() <= ANSWER_MULTIPLE_MAX * datagram.len());
        Some(answer)
    }

    /// Returns what became of the datagrams so far.
    pub fn answered(&self) -> Answered {
        self.answered
    }
}

/// Tells whether a datagram has the form of a STUN message (RFC 8489, section 5), so that it can
/// be told from other datagrams of the same socket.
pub fn is_stun(datagram: &[u8]) -> bool {
    let Some(header) = datagram.first_chunk::<{ MessageHeader::LENGTH }>() else {
        return false;
    };
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    header[0] < 4
        && length.is_multiple_of(4)
        && header[4..8] == MAGIC_COOKIE.to_be_bytes()
        && datagram.len() == MessageHeader::LENGTH + length
}

fn binding_request(datagram: &[u8]) -> Option<Message<'_>> {
    if datagram.len() > REQUEST_BYTES_MAX || !is_stun(datagram) {
        return None;
    }
    let message = Message::from_bytes(datagram).ok()?;
    let asks = message.has_class(MessageClass::Request) && message.has_method(BINDING);
    asks.then_some(message)
}

fn unknown(request: &Message<'_>) -> Vec<AttributeType> {
    let types = request.iter_attributes().map(|(_, it)| it.get_type());
    types
        .filter(|it| it.comprehension_required() && !UNDERSTOOD.contains(it))
        .collect()
}

fn success(request: &Message<'_>, source: SocketAddr) -> Option<Vec<u8>> {
    let source = SocketAddr::new(source.ip().to_canonical(), source.port());
    let mapped = XorMappedAddress::new(source, request.transaction_id());
    let mut answer = Message::builder_success(request, MessageWriteVec::new());
    answer.add_attribute(&mapped).ok()?;
    finish(request, answer)
}

/// The error of RFC 8489, section 6.3.1.
fn refusal(request: &Message<'_>, unknown: &[AttributeType]) -> Option<Vec<u8>> {
    let error = ErrorCode::builder(ErrorCode::UNKNOWN_ATTRIBUTE);
    let mut answer = Message::builder_error(request, MessageWriteVec::new());
    answer.add_attribute(&error.build().ok()?).ok()?;
    answer
        .add_attribute(&UnknownAttributes::new(unknown))
        .ok()?;
    finish(request, answer)
}

/// Adds a fingerprint for who uses it (section 7).
fn finish(request: &Message<'_>, mut answer: MessageWriteVec) -> Option<Vec<u8>> {
    if request.has_attribute(Fingerprint::TYPE) {
        answer.add_fingerprint().ok()?;
    }
    Some(answer.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use stun_types::attribute::Software;

    const SOURCE: &str = "192.0.2.7:40000";

    fn source() -> SocketAddr {
        SOURCE.parse().unwrap()
    }

    fn request(change: impl FnOnce(&mut MessageWriteVec)) -> Vec<u8> {
        let mut request = Message::builder_request(BINDING, MessageWriteVec::new());
        change(&mut request);
        request.finish()
    }

    fn answer(datagram: &[u8], source: SocketAddr) -> Option<Vec<u8>> {
        Answerer::new().answer(Time::ZERO, source, datagram)
    }

    /// Appends an attribute of four octets to a finished message.
    fn append(datagram: &mut Vec<u8>, kind: u16) {
        datagram.extend(kind.to_be_bytes());
        datagram.extend([0, 4, 1, 2, 3, 4]);
        let length = u16::try_from(datagram.len() - MessageHeader::LENGTH).unwrap();
        datagram[2..4].copy_from_slice(&length.to_be_bytes());
    }

    #[test]
    fn the_source_is_told() {
        for (source, seen) in [
            (SOURCE, SOURCE),
            ("[2001:db8::1]:5", "[2001:db8::1]:5"),
            ("[::ffff:192.0.2.7]:40000", SOURCE),
        ] {
            let asked = request(|_| ());
            let octets = answer(&asked, source.parse().unwrap()).unwrap();
            let answer = Message::from_bytes(&octets).unwrap();
            let id = Message::from_bytes(&asked).unwrap().transaction_id();
            assert_eq!(answer.transaction_id(), id);
            assert!(answer.has_class(MessageClass::Success));
            assert!(!answer.has_attribute(Fingerprint::TYPE));
            let mapped = answer.attribute::<XorMappedAddress>().unwrap();
            assert_eq!(mapped.addr(id).to_string(), seen);
        }
    }

    #[test]
    fn a_fingerprint_is_answered_by_one() {
        let asked = request(|request| request.add_fingerprint().unwrap());
        let octets = answer(&asked, source()).unwrap();
        let answer = Message::from_bytes(&octets).unwrap();
        assert!(answer.has_attribute(Fingerprint::TYPE));
        let mut damaged = asked;
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(
            super::Answerer::new().answer(Time::ZERO, source(), &damaged),
            None
        );
    }

    #[test]
    fn what_must_be_understood_and_is_not_is_named() {
        // CHANGE-REQUEST (RFC 5780), PRIORITY (RFC 8445), and an optional one.
        let mut asked = request(|_| ());
        for kind in [0x0003, 0x0024, 0x8888] {
            append(&mut asked, kind);
        }
        let octets = answer(&asked, source()).unwrap();
        let answer = Message::from_bytes(&octets).unwrap();
        assert_eq!(answer.attribute::<ErrorCode>().unwrap().code(), 420);
        let named = answer.attribute::<UnknownAttributes>().unwrap();
        let has = |kind| named.has_attribute(AttributeType::new(kind));
        assert!(has(0x0003) && has(0x0024) && !has(0x8888));
    }

    #[test]
    fn only_requests_are_answered() {
        let software = Software::new("a client").unwrap();
        let asked = request(|request| request.add_attribute(&software).unwrap());
        assert!(answer(&asked, source()).is_some());
        for class in [0x0011_u16, 0x0101, 0x0111, 0x0003] {
            let mut other = asked.clone();
            other[..2].copy_from_slice(&class.to_be_bytes());
            assert_eq!(answer(&other, source()), None, "{class:#x}");
        }
        let mut longer = asked.clone();
        longer.push(0);
        assert_eq!(answer(&longer, source()), None);
        assert_eq!(answer(&asked[..19], source()), None);
    }

    #[test]
    fn who_asks_too_often_is_not_answered() {
        let mut answerer = Answerer::new();
        let asked = request(|_| ());
        let answers = (0..100).filter_map(|_| answerer.answer(Time::ZERO, source(), &asked));
        assert_eq!(answers.count(), 60);
        let other = "198.51.100.1:1".parse().unwrap();
        assert!(answerer.answer(Time::ZERO, other, &asked).is_some());
        let answered = answerer.answered();
        assert_eq!((answered.successes, answered.throttled), (61, 40));
        let later = Time::from_secs(1);
        assert!(answerer.answer(later, source(), &asked).is_some());
    }

    proptest! {
        #[test]
        fn octets_of_any_kind_get_a_short_answer_or_none(
            mut octets in proptest::collection::vec(any::<u8>(), 0..200),
            shaped in any::<bool>(),
        ) {
            if shaped && octets.len() >= MessageHeader::LENGTH {
                octets.truncate(octets.len() / 4 * 4);
                let length = u16::try_from(octets.len() - MessageHeader::LENGTH).unwrap();
                octets[..2].copy_from_slice(&[0, 1]);
                octets[2..4].copy_from_slice(&length.to_be_bytes());
                octets[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
            }
            if let Some(answer) = answer(&octets, source()) {
                prop_assert!(answer.len() <= ANSWER_MULTIPLE_MAX * octets.len());
                prop_assert!(is_stun(&answer));
                prop_assert_eq!(&answer[8..20], &octets[8..20]);
            }
        }

        #[test]
        fn attributes_of_any_number_and_kind_are_answered_shortly(
            kinds in proptest::collection::vec(any::<u16>(), 0..100),
        ) {
            let mut asked = request(|_| ());
            for kind in &kinds {
                append(&mut asked, *kind);
            }
            if let Some(answer) = answer(&asked, source()) {
                prop_assert!(answer.len() <= ANSWER_MULTIPLE_MAX * asked.len());
            }
        }
    }
}
