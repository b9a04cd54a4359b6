//! The errors that a server gives without asking the protocol machine.
//!
//! Each function returns `None` when the message cannot be written, which with the few
//! attributes in it does not happen.

use stun_types::attribute::{
    AttributeType, ErrorCode, Nonce, PasswordAlgorithmValue, PasswordAlgorithms, Realm,
    UnknownAttributes,
};
use stun_types::message::{
    IntegrityAlgorithm, IntegrityKey, Message, MessageWrite, MessageWriteExt, MessageWriteVec,
};

/// A key by which a request was found to be signed.
#[derive(Clone, Copy)]
pub(super) struct Signer<'a> {
    pub(super) key: &'a IntegrityKey,
    pub(super) algorithm: IntegrityAlgorithm,
}

/// An error in clear, for who has proved nothing.
pub(super) fn error(request: &Message<'_>, code: u16) -> Option<Vec<u8>> {
    Some(begin(request, code)?.finish())
}

/// An error signed as its request was (RFC 8489, section 9.2.4).
pub(super) fn signed(request: &Message<'_>, code: u16, signer: &Signer<'_>) -> Option<Vec<u8>> {
    finish(begin(request, code)?, signer)
}

/// Says that an attribute is not understood.
pub(super) fn unknown(
    request: &Message<'_>,
    attribute: AttributeType,
    signer: &Signer<'_>,
) -> Option<Vec<u8>> {
    let mut reply = begin(request, ErrorCode::UNKNOWN_ATTRIBUTE)?;
    let attributes = UnknownAttributes::new(&[attribute]);
    reply.add_attribute(&attributes).ok()?;
    finish(reply, signer)
}

/// Asks for credentials (401), or for the use of another nonce (438).
///
/// A nonce that says so in its first octets must come with the password algorithms (RFC 8489,
/// section 9.2.5), or clients of that standard give up.
pub(super) fn challenge(
    request: &Message<'_>,
    code: u16,
    realm: &str,
    nonce: &str,
    algorithms: &[PasswordAlgorithmValue],
) -> Option<Vec<u8>> {
    let mut reply = begin(request, code)?;
    reply.add_attribute(&Realm::new(realm).ok()?).ok()?;
    reply.add_attribute(&Nonce::new(nonce).ok()?).ok()?;
    if !algorithms.is_empty() {
        let algorithms = PasswordAlgorithms::new(algorithms);
        reply.add_attribute(&algorithms).ok()?;
    }
    Some(reply.finish())
}

fn begin(request: &Message<'_>, code: u16) -> Option<MessageWriteVec> {
    let error = ErrorCode::builder(code).build().ok()?;
    let mut reply = Message::builder_error(request, MessageWriteVec::new());
    reply.add_attribute(&error).ok()?;
    Some(reply)
}

fn finish(mut reply: MessageWriteVec, signer: &Signer<'_>) -> Option<Vec<u8>> {
    reply
        .add_message_integrity_with_key(signer.key, signer.algorithm)
        .ok()?;
    Some(reply.finish())
}
