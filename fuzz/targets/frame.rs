//! Datagrams of one peer: decoded and put together they never exceed their bounds, and
//! what was split comes out whole.
//!
//! The input is a row of datagrams, each behind its length (2 octets, little-endian).
#![no_main]

use std::time::{Duration, Instant};

use bytes::Bytes;
use enishi_dataplane::lane::{Content, Datagrams, PART_BYTES_MAX};
use enishi_dataplane::{Frame, Reassembly, Splitter};
use libfuzzer_sys::fuzz_target;

/// A path on which most packets are split.
const DATAGRAM_BYTES_MAX: usize = 64;

fuzz_target!(|octets: &[u8]| {
    let mut rest = octets;
    let (mut reassembly, mut splitter) = (Reassembly::default(), Splitter::default());
    let mut now = Instant::now();
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(after.len());
        let (datagram, after) = after.split_at(length);
        rest = after;
        now += Duration::from_millis(datagram.last().copied().unwrap_or(0).into());
        let datagram = Bytes::copy_from_slice(datagram);
        if let Some(packet) = receive(&mut reassembly, now, &datagram) {
            assert!(packet.len() <= 2 * PART_BYTES_MAX + datagram.len());
            send_on(&mut splitter, now, &packet);
        }
    }
});

fn receive(reassembly: &mut Reassembly, now: Instant, datagram: &Bytes) -> Option<Vec<u8>> {
    let frame = Frame::decode(datagram).ok()?;
    match frame.content {
        Content::Whole(packet) => Some(packet.to_vec()),
        Content::Part { id, half, bytes } => {
            assert!((1..=PART_BYTES_MAX).contains(&bytes.len()));
            reassembly.insert(now, (frame.tag, id), half, &bytes)
        }
    }
}

fn send_on(splitter: &mut Splitter, now: Instant, packet: &[u8]) {
    let Ok(Datagrams::Two(first, second)) = splitter.encode(7, packet, DATAGRAM_BYTES_MAX) else {
        return;
    };
    let mut other = Reassembly::default();
    assert_eq!(receive(&mut other, now, &second), None);
    assert_eq!(receive(&mut other, now, &first).as_deref(), Some(packet));
}
