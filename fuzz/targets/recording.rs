//! Recordings: nothing in a hostile one panics, what is read can be written again, and a
//! node that is made of one and given its inputs lives.
//!
//! An input is taken as the payload of an entry, as a whole recording, and, because the
//! fuzzer does not hit checksums, as the payloads of a header and of one entry that are
//! framed here: the length of the first (2, little endian), both one after the other.
#![no_main]

use enishi_services::recording::{Entry, FORMAT, MAGIC, Reader, Trace};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    if let Some(entry) = Entry::decode(octets) {
        let written = entry.encode();
        let again = Entry::decode(&written).expect("what was written is read");
        assert_eq!(again.encode(), written);
    }
    live(octets);
    if let Some((length, payloads)) = octets.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(payloads.len());
        let (header, entry) = payloads.split_at(length);
        let start = [&MAGIC[..], &[FORMAT]].concat();
        live(&[start, framed(header), framed(entry)].concat());
    }
});

/// Lives what is recorded, whatever it is.
fn live(recording: &[u8]) {
    let Ok(mut reader) = Reader::open(recording) else {
        return;
    };
    let mut node = reader.header().node();
    let mut trace = Trace::new(&node.id());
    while let Ok(step) = reader.step() {
        node.handle(step.at, step.input)
            .for_each(|output| trace.output(&output));
        trace.digest(node.next_timeout());
    }
    assert!(reader.offset() <= recording.len() as u64);
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let hash = blake3::hash(payload);
    let length = (payload.len() as u32).to_le_bytes();
    [&length[..], &hash.as_bytes()[..4], payload].concat()
}
