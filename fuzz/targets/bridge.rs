//! What comes to the HTTP bridge: requests in any dress, and streams of frames. What is read of it lies within it,
//! and a frame that is read is stable. Octets seldom have a right checksum, so they also get one.
#![no_main]

use bytes::Bytes;
use enishi_bridge::frame::{
    Frame, OVERHEAD_BYTES, PACKETS_MAX, Splitter, VERSION, declared, is_stream,
};
use enishi_bridge::way::{Ask, undress};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    let octets = Bytes::copy_from_slice(octets);
    read(&octets);
    read(&forged(&octets));
    let _ = undress(&octets).map(|frame| read(&frame));
    let text = String::from_utf8_lossy(&octets);
    let (path, body) = text.split_once('\n').unwrap_or((&text, ""));
    for path in [path.to_owned(), format!("/AAAAAAAAAAA/{path}")] {
        if let Some(Ok(frame)) = Ask::undress(&path, &Bytes::copy_from_slice(body.as_bytes())) {
            read(&frame);
        }
    }
    split(&octets);
});

/// Gives octets the head, the length and the checksum of a frame.
fn forged(octets: &Bytes) -> Bytes {
    let mut frame = octets.to_vec();
    frame.resize(octets.len().max(OVERHEAD_BYTES), 0);
    let length = frame.len();
    frame[0] = VERSION;
    frame[2..6].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    let sum = blake3::hash(&frame[..length - 4]);
    frame[length - 4..].copy_from_slice(&sum.as_bytes()[..4]);
    frame.into()
}

fn read(octets: &Bytes) {
    let _ = is_stream(octets);
    if let Ok(frame) = Frame::decode(octets) {
        let length = declared(octets).expect("a frame declares its length");
        assert!(frame.bytes() <= length && length <= octets.len());
        assert!(frame.packets.len() <= PACKETS_MAX);
        assert_eq!(Frame::decode(&frame.encode(length)), Ok(frame));
    }
}

/// However a stream is cut, the same comes out of it.
fn split(octets: &Bytes) {
    let mut whole = Splitter::default();
    whole.push(octets);
    let mut frames = Vec::new();
    let end = loop {
        match whole.next_frame() {
            Ok(Some(frame)) => frames.push(frame),
            end => break end,
        }
    };
    let (mut pieces, mut again) = (Splitter::default(), Vec::new());
    let mut last = Ok(None);
    'all: for piece in octets.chunks(7) {
        pieces.push(piece);
        loop {
            match pieces.next_frame() {
                Ok(Some(frame)) => again.push(frame),
                Ok(None) => break,
                damage => {
                    last = damage;
                    break 'all;
                }
            }
        }
    }
    assert_eq!((again, last), (frames, end));
}
