//! An invitation: what parses is printed so that it parses to the same.
//!
//! The first octet decides whether the rest is a text or the content of one; the
//! content gets its checksum here, which mutations would never hit.
#![no_main]

use data_encoding::BASE32_NOPAD;
use enishi_services::ticket::Ticket;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    let text = match octets.split_first() {
        Some((b'c', content)) => with_checksum(content),
        Some((_, text)) => String::from_utf8_lossy(text).into_owned(),
        None => return,
    };
    if let Ok(ticket) = text.parse::<Ticket>() {
        assert_eq!(ticket.to_string().parse(), Ok(ticket));
    }
});

fn with_checksum(content: &[u8]) -> String {
    let sum = blake3::derive_key("enishi 1 ticket checksum", content);
    let octets = [content, &sum[..4]].concat();
    format!(
        "enishi1{}",
        BASE32_NOPAD.encode(&octets).to_ascii_lowercase()
    )
}
