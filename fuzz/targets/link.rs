//! What comes in the stream of a link: however it is cut, the same messages, none too long, each stable
//! once read.
#![no_main]

#[path = "../../crates/host/src/reach/link/message.rs"]
mod message;

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use message::{MESSAGE_BYTES_MAX, Message, next};

fuzz_target!(|octets: &[u8]| {
    let whole = read(octets, octets.len().max(1));
    assert_eq!(read(octets, 3), whole);
    for octets in whole.0 {
        assert!((1..=MESSAGE_BYTES_MAX).contains(&octets.len()));
        if let Some(message) = Message::decode(&octets) {
            assert_eq!(message.encode(), octets);
        }
    }
    // A bridge brings messages one by one.
    let octets = Bytes::copy_from_slice(octets);
    if let Some(message) = Message::decode(&octets) {
        assert_eq!(message.encode(), octets);
    }
});

/// Reads a stream in pieces; tells whether it ends with what cannot be.
fn read(octets: &[u8], piece: usize) -> (Vec<Bytes>, bool) {
    let (mut waiting, mut messages) = (BytesMut::new(), Vec::new());
    for piece in octets.chunks(piece) {
        waiting.extend_from_slice(piece);
        loop {
            match next(&mut waiting) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => return (messages, true),
            }
        }
    }
    (messages, false)
}
