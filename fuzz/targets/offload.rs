//! What a device hands over and what a member seals: super-packets are cut and put together
//! within their bounds, and what was cut becomes whole again.
//!
//! The input begins with the header of the device and the most octets of a packet (2,
//! little-endian); the rest is a packet, and once more packets, each behind its length (2
//! octets, little-endian), as a member may send them.
#![no_main]

use enishi_dataplane::offload::{OFFLOAD_HEADER_BYTES, Offload, Run, complete, split};
use enishi_dataplane::{Half, IpPacket, Reassembly};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    let Some((header, rest)) = octets.split_first_chunk::<OFFLOAD_HEADER_BYTES>() else {
        return;
    };
    let Some((most, packet)) = rest.split_first_chunk::<2>() else {
        return;
    };
    let most = usize::from(u16::from_le_bytes(*most));
    if let Some(offload) = Offload::decode(header) {
        cut(offload, packet.to_vec(), most);
    }
    put_together(packet);
});

/// Cuts a super-packet as the engine does, and puts the pieces together as its peer does.
fn cut(offload: Offload, mut packet: Vec<u8>, most: usize) {
    if let Some((from, at)) = offload.partial {
        complete(&mut packet.clone(), from, at);
    }
    let Some((transport, segment_bytes)) = offload.segments else {
        return;
    };
    let whole = packet.clone();
    let mut pieces = Vec::new();
    let done = split(&mut packet, transport, segment_bytes, most, |piece| {
        pieces.push(piece.to_vec());
    });
    assert_eq!(done, !pieces.is_empty());
    let mut payload = 0;
    for piece in &pieces {
        let parsed = IpPacket::parse(piece).expect("what is cut is whole");
        assert_eq!(parsed.bytes().len(), piece.len());
        assert!(piece.len() <= whole.len());
        payload += piece.len();
    }
    assert!(!done || payload >= whole.len());
    write(pieces.iter().map(Vec::as_slice));
}

/// Takes packets of a member: in runs, and as halves.
fn put_together(mut rest: &[u8]) {
    let mut packets = Vec::new();
    let mut reassembly = Reassembly::default();
    let now = std::time::Instant::now();
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(after.len());
        let (packet, after) = after.split_at(length);
        rest = after;
        packets.push(packet);
        let half = match packet.first() {
            Some(first) if first % 2 == 1 => Half::Second,
            _ => Half::First,
        };
        reassembly.insert(now, u16::from(packet.len() as u8), half, packet);
    }
    write(packets.into_iter());
}

fn write<'p>(packets: impl Iterator<Item = &'p [u8]>) {
    let mut run: Option<Run<'_>> = None;
    let flush = |run: Run<'_>| {
        run.finish(|pieces| {
            let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
            assert!(bytes <= OFFLOAD_HEADER_BYTES + 65_535 && pieces.len() <= 65);
        });
    };
    for packet in packets.filter_map(|packet| IpPacket::parse(packet).ok()) {
        if run.as_mut().is_some_and(|run| run.extend(&packet, true)) {
            continue;
        }
        if let Some(before) = run.replace(Run::begin(&packet, true)) {
            flush(before);
        }
    }
    if let Some(last) = run {
        flush(last);
    }
}
