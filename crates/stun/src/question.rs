//! Binding requests of this node (RFC 8489, section 2): "from which address do you see me?"
//!
//! They are sent once each, without retransmission: whoever asks asks several servers, and again
//! later. An answer is known by its transaction id of 96 random bits, so that only who got the
//! question, or is on its way, can answer it.

use std::net::SocketAddr;

use stun_types::attribute::{ErrorCode, RawAttribute, XorMappedAddress};
use stun_types::message::{
    BINDING, Message, MessageClass, MessageHeader, MessageWrite, MessageWriteExt, MessageWriteVec,
};

use crate::answer::{RESPONSE_PORT, is_stun};
use crate::ticket::{TICKET, TICKET_BYTES, Ticket};

/// Octets of a transaction id.
const ID_BYTES: usize = 12;
/// Where it is in a message.
const ID_AT: usize = MessageHeader::LENGTH - ID_BYTES;

/// By what a question and its answer are known to belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuestionId([u8; ID_BYTES]);

impl QuestionId {
    fn of(message: &[u8]) -> Option<Self> {
        message.get(ID_AT..)?.first_chunk().copied().map(Self)
    }
}

/// Writes a question, 28 octets long; its id is drawn from the system's randomness. The answer to
/// one that has a fingerprint (section 7) has one as well, and a damaged answer is no answer.
pub fn question() -> (QuestionId, Vec<u8>) {
    finish(Message::builder_request(BINDING, MessageWriteVec::new()))
}

/// Writes a question that asks for a [`Ticket`] besides, 40 octets long.
pub fn question_for_ticket() -> (QuestionId, Vec<u8>) {
    let mut question = Message::builder_request(BINDING, MessageWriteVec::new());
    let done = question.add_attribute(&RawAttribute::new(TICKET, &[0; TICKET_BYTES]));
    debug_assert!(done.is_ok(), "a request without attributes takes one");
    finish(question)
}

/// Writes a question whose answer is to be sent to another port of the address from which the server
/// sees it come (RFC 5780, section 7.5), 36 octets long.
pub(crate) fn question_answered_at(port: u16) -> (QuestionId, Vec<u8>) {
    let mut question = Message::builder_request(BINDING, MessageWriteVec::new());
    let [high, low] = port.to_be_bytes();
    let value = [high, low, 0, 0];
    let done = question.add_attribute(&RawAttribute::new(RESPONSE_PORT, &value));
    debug_assert!(done.is_ok(), "a request without attributes takes one");
    finish(question)
}

fn finish(mut question: MessageWriteVec) -> (QuestionId, Vec<u8>) {
    let done = question.add_fingerprint();
    debug_assert!(done.is_ok(), "a request without a fingerprint takes one");
    let octets = question.finish();
    let Some(id) = QuestionId::of(&octets) else {
        unreachable!("every message begins with a header");
    };
    (id, octets)
}

/// Reads an answer: to which question it is, and where the server saw that come from. None when the
/// octets are anything else.
pub fn mapped(datagram: &[u8]) -> Option<(QuestionId, SocketAddr)> {
    if !is_stun(datagram) {
        return None;
    }
    let message = Message::from_bytes(datagram).ok()?;
    let is_answer = message.has_class(MessageClass::Success) && message.has_method(BINDING);
    let mapped = message.attribute::<XorMappedAddress>().ok();
    let mapped = mapped.filter(|_| is_answer)?;
    let at = mapped.addr(message.transaction_id());
    let at = SocketAddr::new(at.ip().to_canonical(), at.port());
    Some((QuestionId::of(datagram)?, at))
}

/// Reads the ticket of an answer that [`mapped`] has read; none when the server gives none.
pub fn ticket(datagram: &[u8]) -> Option<Ticket> {
    Ticket::of(&Message::from_bytes(datagram).ok()?)
}

/// Reads to which question the server says that it does not understand it (420).
pub(crate) fn not_understood(datagram: &[u8]) -> Option<QuestionId> {
    if !is_stun(datagram) {
        return None;
    }
    let message = Message::from_bytes(datagram).ok()?;
    let code = message.attribute::<ErrorCode>().ok()?.code();
    let is_it = code == ErrorCode::UNKNOWN_ATTRIBUTE && message.has_class(MessageClass::Error);
    QuestionId::of(datagram).filter(|_| is_it)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Answerer;
    use enishi_overlay::Time;
    use proptest::prelude::*;

    #[test]
    fn an_answer_tells_which_question_it_is_to() {
        for source in ["192.0.2.7:40000", "[2001:db8::1]:5"] {
            let source: SocketAddr = source.parse().unwrap();
            let (id, question) = question();
            assert_eq!(mapped(&question), None, "a question is no answer");
            assert_eq!(question.len(), MessageHeader::LENGTH + 8);
            let mut answer = Answerer::new()
                .answer(Time::ZERO, source, &question)
                .unwrap()
                .octets;
            assert_eq!(mapped(&answer), Some((id, source)));
            let last = answer.len() - 9;
            answer[last] ^= 1;
            assert_eq!(mapped(&answer), None, "damaged");
        }
        assert_ne!(question().0, question().0);
    }

    proptest! {
        #[test]
        fn noise_is_no_answer(octets in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(mapped(&octets), None);
            prop_assert_eq!(ticket(&octets), None);
        }
    }
}
