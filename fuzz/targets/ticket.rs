//! An invitation, or a consent to a gateway: what parses is printed so that it parses to the same.
//!
//! The first octet decides whether the rest is a text or the content of one, and of which
//! kind; the content gets its checksum here, which mutations would never hit.
#![no_main]

use data_encoding::BASE32_NOPAD;
use enishi_overlay::NodeId;
use enishi_services::ticket::{Card, OverlayTicket, Ticket, read_consent, write_consent};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    let text = match octets.split_first() {
        Some((b'c', content)) => with_checksum("enishi1", content),
        Some((b'o', content)) => with_checksum("enishioverlay1", content),
        Some((b'm', content)) => with_checksum("enishimember1", content),
        Some((b'g', content)) => with_checksum("enishiconsent1", content),
        Some((_, text)) => String::from_utf8_lossy(text).into_owned(),
        None => return,
    };
    if let Ok(ticket) = text.parse::<Ticket>() {
        assert_eq!(ticket.to_string().parse(), Ok(ticket));
    }
    if let Ok(ticket) = text.parse::<OverlayTicket>() {
        assert_eq!(ticket.to_string().parse(), Ok(ticket.clone()));
        let me = NodeId::from_bytes([7; 32]);
        if let Ok(card) = Card::take_up(ticket, me, 1_800_000_000) {
            assert_eq!(card.to_string().parse(), Ok(card));
        }
    }
    if let Ok(consent) = read_consent(&text) {
        assert_eq!(read_consent(&write_consent(&consent)), Ok(consent));
    }
    if let Ok(card) = text.parse::<Card>() {
        assert_eq!(card.to_string().parse(), Ok(card));
    }
});

fn with_checksum(prefix: &str, content: &[u8]) -> String {
    let sum = blake3::derive_key("enishi 1 ticket checksum", content);
    let octets = [content, &sum[..4]].concat();
    format!(
        "{prefix}{}",
        BASE32_NOPAD.encode(&octets).to_ascii_lowercase()
    )
}
