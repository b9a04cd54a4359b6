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
//!
//! TICKET, an attribute of Enishi's own, has something in the answer by which the asker shows later that
//! it came there ([`crate::Tickets`]).
//!
//! RESPONSE-PORT (RFC 5780, section 7.5) has the answer sent to another port of the source's address,
//! which shows whether a NAT still has a mapping there ([`crate::Measurement`]). It lets nobody reach
//! more than a forged source does: the address is that of the source, the port none of a service
//! (RFC 6335, section 6), the answer as short and as rare as any. Such an answer has no
//! RESPONSE-ORIGIN, as a socket at all addresses does not know its own.

use std::net::SocketAddr;

use enishi_overlay::Time;
use stun_types::attribute::{Attribute as _, AttributeStaticType as _, AttributeType};
use stun_types::attribute::{
    ErrorCode, Fingerprint, MessageIntegrity, MessageIntegritySha256, Nonce, PasswordAlgorithm,
    RawAttribute, Realm, UnknownAttributes, Userhash, Username, XorMappedAddress,
};
use stun_types::message::{
    BINDING, MAGIC_COOKIE, Message, MessageClass, MessageHeader, MessageWrite, MessageWriteExt,
    MessageWriteVec,
};

use crate::budget::{Rate, Throttle};
use crate::ticket::{self, TICKET, Ticket, Tickets};

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

/// RESPONSE-PORT: a port, and two octets of padding, which some count as its length and some do not.
pub(crate) const RESPONSE_PORT: AttributeType = AttributeType::new(0x0027);
const RESPONSE_PORT_BYTES: [usize; 2] = [2, 4];

/// The first port that answers may be sent to: those below belong to services.
pub(crate) const RESPONSE_PORT_MIN: u16 = 1024;

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
    /// Whether answers may be wanted at another port.
    at_ports: bool,
    /// What is given to those who ask for it.
    tickets: Option<Tickets>,
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

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Where it is to be sent: to the source of the request, or another port there.
    pub to: SocketAddr,
    /// Its octets.
    pub octets: Vec<u8>,
}

impl Answerer {
    /// Makes one that knows no source yet, and answers to where a request came from.
    pub fn new() -> Self {
        Self {
            throttle: Throttle::new(EACH, ALL, SOURCES_MAX),
            at_ports: false,
            tickets: None,
            answered: Answered::default(),
        }
    }

    /// Makes one that also answers to another port of the source, if a request says so (RFC 5780,
    /// section 7.5), from 1024 on.
    pub fn at_ports() -> Self {
        Self {
            at_ports: true,
            ..Self::new()
        }
    }

    /// Has it give tickets to those who ask for one, in answers that go to where the request came from.
    #[must_use]
    pub fn with_tickets(self, tickets: Tickets) -> Self {
        Self {
            tickets: Some(tickets),
            ..self
        }
    }

    /// Returns what to send, and where to, if anything. Takes time in proportion to the octets.
    pub fn answer(&mut self, now: Time, source: SocketAddr, datagram: &[u8]) -> Option<Answer> {
        let Some(request) = binding_request(datagram) else {
            self.answered.ignored += 1;
            return None;
        };
        if !self.throttle.take(source.ip(), now) {
            self.answered.throttled += 1;
            return None;
        }
        let unknown = unknown(&request, self.at_ports);
        let (to, octets) = if unknown.is_empty() {
            let Some(port) = response_port(&request).unwrap_or(Some(source.port())) else {
                self.answered.ignored += 1;
                return None;
            };
            self.answered.successes += 1;
            let mut to = source;
            to.set_port(port);
            let tickets = self.tickets.as_ref();
            let tickets = tickets.filter(|_| to == source && ticket::is_wanted(&request));
            let ticket = tickets.map(|tickets| tickets.give(now, source.ip()));
            (to, success(&request, source, ticket))
        } else {
            self.answered.errors += 1;
            (source, refusal(&request, &unknown))
        };
        let Some(octets) = octets else {
            unreachable!("an answer that is not written yet takes each attribute once");
        };
        debug_assert!(octets.len() <= ANSWER_MULTIPLE_MAX * datagram.len());
        Some(Answer { to, octets })
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

fn unknown(request: &Message<'_>, at_ports: bool) -> Vec<AttributeType> {
    let types = request.iter_attributes().map(|(_, it)| it.get_type());
    let understands =
        |it: &AttributeType| UNDERSTOOD.contains(it) || (at_ports && *it == RESPONSE_PORT);
    types
        .filter(|it| it.comprehension_required() && !understands(it))
        .collect()
}

/// Returns to which port an answer is wanted, if the request says so; no port if it must not be that.
fn response_port(request: &Message<'_>) -> Option<Option<u16>> {
    let attribute = request.raw_attribute(RESPONSE_PORT)?;
    let value = &attribute.value[..];
    let port = value.first_chunk().copied().map(u16::from_be_bytes);
    let is_one = |port: &u16| *port >= RESPONSE_PORT_MIN;
    let port = port.filter(is_one);
    Some(port.filter(|_| RESPONSE_PORT_BYTES.contains(&value.len())))
}

fn success(request: &Message<'_>, source: SocketAddr, ticket: Option<Ticket>) -> Option<Vec<u8>> {
    let source = SocketAddr::new(source.ip().to_canonical(), source.port());
    let mapped = XorMappedAddress::new(source, request.transaction_id());
    let mut answer = Message::builder_success(request, MessageWriteVec::new());
    answer.add_attribute(&mapped).ok()?;
    if let Some(ticket) = ticket {
        let octets = ticket.octets();
        answer
            .add_attribute(&RawAttribute::new(TICKET, &octets))
            .ok()?;
    }
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
        let answer = Answerer::new().answer(Time::ZERO, source, datagram)?;
        assert_eq!(answer.to, source);
        Some(answer.octets)
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
    fn an_answer_is_sent_to_another_port_of_the_source_and_nowhere_else() {
        let asked = |port: &[u8]| {
            request(|request| {
                let attribute = RawAttribute::new(RESPONSE_PORT, port);
                request.add_attribute(&attribute).unwrap();
            })
        };
        let answer = |datagram: &[u8]| Answerer::at_ports().answer(Time::ZERO, source(), datagram);
        for port in [&[0xc3, 0x50][..], &[0xc3, 0x50, 0, 0]] {
            let question = asked(port);
            let told = answer(&question).unwrap();
            assert_eq!(told.to.to_string(), "192.0.2.7:50000");
            // What it says is where the request came from.
            let message = Message::from_bytes(&told.octets).unwrap();
            let mapped = message.attribute::<XorMappedAddress>().unwrap();
            assert_eq!(mapped.addr(message.transaction_id()), source());
            assert!(told.octets.len() <= ANSWER_MULTIPLE_MAX * question.len());
        }
        // Ports of services, none, and what is no port.
        for port in [&[0, 53][..], &[0x03, 0xff], &[0, 0], &[], &[1], &[9, 9, 9]] {
            assert_eq!(answer(&asked(port)), None, "{port:?}");
        }
        // Whoever does not offer it says so, to the source itself.
        let question = asked(&[0xc3, 0x50]);
        let told = Answerer::new().answer(Time::ZERO, source(), &question);
        let told = told.unwrap();
        let message = Message::from_bytes(&told.octets).unwrap();
        assert_eq!(message.attribute::<ErrorCode>().unwrap().code(), 420);
        assert_eq!(told.to, source());
        // With PADDING (RFC 5780, section 7.6) it would be a long answer.
        let mut padded = asked(&[0xc3, 0x50]);
        append(&mut padded, 0x0026);
        let told = answer(&padded).unwrap();
        assert_eq!(told.to, source());
    }

    #[test]
    fn a_ticket_is_given_to_who_asks_at_the_address_from_which_it_does() {
        use crate::question;
        let tickets = Tickets::new([7; 32]);
        let mut answerer = Answerer::at_ports().with_tickets(tickets.clone());
        let now = Time::from_secs(90);
        let (_, asked) = question::question_for_ticket();
        let told = answerer.answer(now, source(), &asked).unwrap();
        let ticket = question::ticket(&told.octets).unwrap();
        assert!(tickets.gave(now, source().ip(), ticket));
        assert!(!tickets.gave(now, "192.0.2.8".parse().unwrap(), ticket));
        // It costs no more octets than the question, but for the address.
        assert_eq!((told.octets.len(), asked.len()), (52, 40));
        assert!(question::mapped(&told.octets).is_some());
        // Not to who does not ask, nor to another port, nor by who gives none.
        let plain = answerer.answer(now, source(), &question::question().1);
        assert_eq!(question::ticket(&plain.unwrap().octets), None);
        let elsewhere = request(|request| {
            let port = RawAttribute::new(RESPONSE_PORT, &[0xc3, 0x50, 0, 0]);
            request.add_attribute(&port).unwrap();
            let wanted = RawAttribute::new(TICKET, &[0; 8]);
            request.add_attribute(&wanted).unwrap();
        });
        let told = answerer.answer(now, source(), &elsewhere).unwrap();
        assert_eq!(told.to.port(), 50_000);
        assert_eq!(question::ticket(&told.octets), None);
        let told = Answerer::new().answer(now, source(), &asked).unwrap();
        assert_eq!(question::ticket(&told.octets), None);
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
